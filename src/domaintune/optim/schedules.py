"""Learning-rate schedules: pure functions from a step to a share of the peak rate."""

import math
from collections.abc import Callable


def warmup_then(name: str, step: int, total_steps: float, warmup_steps: float, min_lr_rate: float = 0.0) -> float:
    """The share of the peak learning rate at a step.

    Args:
        name: cosine, linear or constant: what follows the warm-up.
        step: optimizer steps done so far; step 0 of a warm-up of n steps has 1 / (n + 1) of the peak, so that no step
            is wasted at a rate of zero.
        total_steps: of the whole run; infinite where nothing but time ends it (then the rate stays at its peak).
        warmup_steps: see `warmup_length`.
        min_lr_rate: the share of the peak at which cosine and linear end.
    """
    warmup = warmup_length(warmup_steps, total_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = _progress(step - warmup, total_steps - warmup)
    return min_lr_rate + (1 - min_lr_rate) * SHAPES[name](done)


def warmup_length(warmup_steps: float, total_steps: float) -> int:
    """The optimizer steps of a warm-up.

    Args:
        warmup_steps: as it is set: whole steps, where 1 is one step; or below 1 a share of the total.
        total_steps: of the whole run. A warm-up that is as long or longer would never reach the peak: it is cut to half
            of the run. Where the total is infinite, a share is no warm-up.
    """
    if warmup_steps < 1:
        return int(round(warmup_steps * total_steps, 6)) if math.isfinite(total_steps) else 0
    return int(warmup_steps) if warmup_steps < total_steps else int(total_steps) // 2


SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,  # noqa: ARG005
}


def _progress(step: float, steps: float) -> float:
    return min(1.0, step / steps) if steps > 0 else 1.0
