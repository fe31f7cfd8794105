"""Whole runs on a GPU: nothing waits for it, nothing is lost, and the numbers are those of other ways."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import lightning as L
import pytest
import tiny
import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionMaskInterface
from watching import KILLED, Watching, result_of

from domaintune import training
from domaintune.errors import RunError
from domaintune.files.writing import checksum_file, sha256_of
from domaintune.runs.folder import RunFolder

pytestmark = pytest.mark.cuda
Train = Callable[..., Any]
SMALL = ("data.block_size=64", "data.batch_size=2", "trainer.limit_val_batches=1")


@pytest.fixture
def size(device: str) -> tuple[str, ...]:
    """Settings that make a run on a CPU short."""
    return () if device == "cuda" else SMALL


def labelled(folder: Path) -> str:
    rows = [{"text": " ".join(families.WORDS[: 3 + n % 20]), "label": "good" if n % 2 else "bad"} for n in range(160)]
    return tiny.jsonl(folder / "labelled.jsonl", *rows)


def paired(folder: Path) -> str:
    rows = [{"source": " ".join(families.WORDS[: 3 + n % 20]), "target": families.WORDS[n % 20]} for n in range(160)]
    return tiny.jsonl(folder / "paired.jsonl", *rows)


def of_task(task: str, folder: Path) -> tuple[str, ...]:
    """Settings of a small run of a task."""
    if task == "causal_lm":
        return ()
    family, data, path = {
        "classifier": ("bert", "sentiment", labelled),
        "decoder_classifier": ("gpt2", "sentiment", labelled),
        "t5": ("t5", "summaries", paired),
    }[task]
    checkpoint = families.save_family(family, folder / family)
    small = ("data.block_size=48", "data.batch_size=8", "optim.lr=1e-3", *["task.generate_examples=4"] * (task == "t5"))
    return (f"model.checkpoint={checkpoint}", f"data={data}", f"data.path={path(folder)}", *small)


WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default)


class Waiting(TorchDispatchMode):
    """Raises where an operation would have the program wait for a GPU, as far as a CPU shows it.

    `tolist` and an index that is a mask wait there, too, and are not seen here.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITS:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


class NoWaiting(L.Callback):
    """From the fourth step on nothing may wait, until the last has begun."""

    def __init__(self, device: str, steps: int) -> None:
        self.device, self.steps = device, steps
        self._mode: Any = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 3 and self.device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        if trainer.global_step == 3 and self.device == "cpu":
            # AdamW on a CPU keeps its steps there and asks for them; the forward and backward pass are looked at.
            self._mode = Waiting()
            self._mode.__enter__()
        if trainer.global_step == self.steps - 1:
            self.stop()

    def on_before_optimizer_step(self, *_: Any) -> None:
        if self._mode is not None:
            self.stop()

    def stop(self) -> None:
        if self.device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None


@pytest.mark.parametrize("task", ["causal_lm", "classifier", "decoder_classifier", "t5"])
def test_no_step_waits_for_the_device(
    train: Train, device: str, size: tuple[str, ...], tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = NoWaiting(device, steps=8)
    if device == "cpu":  # masks are made as on a GPU
        for name in ("sdpa", "eager"):
            monkeypatch.setitem(AttentionMaskInterface._global_mapping, name, AttentionMaskInterface()[name])
        training.make_masks_unasked()
    try:
        run = train("trainer.max_steps=8", *size, *of_task(task, tmp_path), callbacks=(looked_at,))
    finally:
        looked_at.stop()
    assert run.trainer.global_step == 8


class Poison(L.Callback):
    """Makes one number of the gradient of step 4 NaN."""

    def __init__(self) -> None:
        self.before: dict[str, torch.Tensor] = {}
        self.after: dict[str, torch.Tensor] = {}

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step == 3:
            self.before = {name: weight.detach().clone() for name, weight in pl_module.named_parameters()}
            next(pl_module.parameters()).grad.view(-1)[7] = torch.nan

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == 4:
            self.after = {name: weight.detach().clone() for name, weight in pl_module.named_parameters()}


def test_a_step_that_is_not_finite_is_left_out(train: Train, size: tuple[str, ...]) -> None:
    poison, watching = Poison(), Watching()
    run = train("trainer.max_steps=6", "run.on_nonfinite=skip", *size, callbacks=(poison, watching))
    assert run.trainer.global_step == 6
    assert all(torch.equal(poison.after[name], weight) for name, weight in poison.before.items())
    assert all(weight.isfinite().all() for weight in run.task.parameters())
    assert torch.stack(watching.losses).isfinite().all()


def test_a_step_that_is_not_finite_stops_the_run(train: Train, size: tuple[str, ...]) -> None:
    with pytest.raises(RunError, match=r"step 4: not finite: loss [\d.]+, gradient norm nan"):
        train("trainer.max_steps=9", *size, callbacks=(Poison(),))


KILLER = """
import os, signal, lightning
class Kill(lightning.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 7 and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on_to_the_bit(
    command: Any, device: str, size: tuple[str, ...], tmp_path: Path, workers: int
) -> None:
    (tmp_path / "killer.py").write_text(KILLER)
    settings = (
        *("trainer.max_epochs=-1", "trainer.max_steps=10", "trainer.val_check_interval=5", "logger=none"),
        *("checkpoint.every_steps=3", "model.dropout=0.1", "deterministic=true", f"data.num_workers={workers}"),
        *(f"trainer={'gpu' if device == 'cuda' else 'cpu'}", "trainer.limit_val_batches=2", "~callbacks.samples"),
        *size,
        "+callbacks.kill={_target_: killer.Kill}",
    )
    command("train.py", "name=broken", *settings, code=KILLED)
    done = command("train.py", "name=broken", *settings)
    assert "going on from" in done.stdout
    command("train.py", "name=whole", *settings)
    broken, whole = (tmp_path / "logs" / "runs" / name for name in ("broken", "whole"))
    weights = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
        for folder in (broken, whole)
    ]
    for name, weight in weights[1]["state_dict"].items():
        assert torch.equal(weights[0]["state_dict"][name], weight), name
    assert result_of(broken)["metrics"]["after"] == result_of(whole)["metrics"]["after"]


class Compiled(L.Callback):
    """Counts graphs from the start of training on, and what batches hold; a recompilation in a step is an error."""

    def __init__(self) -> None:
        self.windows: set[int] = set()

    def on_train_start(self, *_: Any) -> None:
        counters.clear()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        torch._dynamo.config.error_on_recompile = True
        self.windows.add(len(batch["cu_seqlens"]))

    def on_train_end(self, *_: Any) -> None:
        torch._dynamo.config.error_on_recompile = False


def test_compiled_once_it_trains_the_same(train: Train, device: str, size: tuple[str, ...]) -> None:
    # Without a GPU in fp32: some processors compute bf16, in which a compiled model rounds otherwise.
    precision = ("trainer.precision=32",) if device == "cpu" else ()
    settings = ("trainer.max_steps=30", "model.dropout=0", *precision, *size)
    plain, compiled, watched = Watching(), Watching(), Compiled()
    train(*settings, callbacks=(plain,), name="plain")
    torch._dynamo.reset()
    try:
        train(*settings, "model.compile=true", callbacks=(compiled, watched), name="compiled")
    finally:
        torch._dynamo.config.error_on_recompile = False
    assert len(watched.windows) > 2
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1
    losses = [torch.stack(watching.losses).float().cpu() for watching in (plain, compiled)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-2 if device == "cuda" else 1e-4, atol=0)


class Scale(L.Callback):
    """The loss scale at each step."""

    def __init__(self) -> None:
        self.scales: list[float] = []

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self.scales.append(float(trainer.precision_plugin.scaler.get_scale()))


def test_fp16_trains_and_keeps_its_loss_scale(train: Train, device: str) -> None:
    if device == "cpu":
        pytest.skip("Lightning scales losses on GPUs alone")
    scale, later = Scale(), Scale()
    run = train("trainer.precision=16-mixed", "trainer.max_steps=6", callbacks=(scale,))
    assert len(set(scale.scales)) == 1  # no step overflowed
    metrics = result_of(run.path)["metrics"]
    assert metrics["after"]["val/loss"] < metrics["before"]["val/loss"]
    checkpoint = torch.load(run.last, weights_only=True, map_location="cpu")
    checkpoint["MixedPrecision"]["scale"] = 8.0  # as if it had been halved on the way
    torch.save(checkpoint, run.last)
    checksum_file(run.last).write_text(sha256_of(run.last))
    train("trainer.precision=16-mixed", "trainer.max_steps=8", callbacks=(later,))
    assert later.scales == [8.0, 8.0]


def test_validation_evaluate_and_predict_agree_in_fp32(command: Any, device: str, tmp_path: Path) -> None:
    settings = of_task("classifier", tmp_path)
    path = next(word.removeprefix("data.path=") for word in settings if word.startswith("data.path="))
    command(
        "train.py",
        "name=run",
        *settings,
        *(f"data.val_path={path}", f"data.test_path={path}", "data.dedup=none"),
        *("trainer.precision=32", "trainer.max_epochs=-1", "trainer.max_steps=20", "logger=none"),
        f"trainer={'gpu' if device == 'cuda' else 'cpu'}",
    )
    folder = tmp_path / "logs" / "runs" / "run"
    validated = result_of(folder)["metrics"]["after"]["val/loss"]
    printed = command("scripts/evaluate.py", "run=run", "split=val", "trainer.precision=32").stdout
    evaluated = next(float(row.split()[3]) for row in printed.splitlines() if row.split()[1:2] == ["loss"])
    command("scripts/predict.py", "run=run", f"input={path}", "output=found.jsonl")
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    losses = [-math.log(row["probabilities"][given["label"]]) for row, given in zip(found, rows, strict=True)]
    predicted = sum(losses) / len(losses)
    assert evaluated == pytest.approx(validated, rel=1e-5)
    assert predicted == pytest.approx(validated, rel=1e-5)


class Spoil(L.Callback):
    """Makes the weights bad before step 4, so that the best are not the last."""

    @torch.no_grad()
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 4:
            for weight in pl_module.parameters():
                weight.mul_(3)


def test_fsdp_in_one_process_trains_the_same(
    train: Train, device: str, size: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, figure: Callable[[str], None]
) -> None:
    took: list[float] = []

    def load_whole(*given: Any) -> None:
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if device == "cuda" else 0
        plain_load(*given)
        took.append((torch.cuda.max_memory_allocated() - before) / 1e6 if device == "cuda" else 0.0)

    plain_load = training.load_whole
    monkeypatch.setattr(training, "load_whole", load_whole)
    settings = ("trainer.max_steps=8", "trainer.val_check_interval=2", "trainer.precision=32", *size)
    split: RunFolder = train(*settings, "trainer.strategy=fsdp", callbacks=(Spoil(),), name="split")
    whole: RunFolder = train(*settings, callbacks=(Spoil(),), name="whole")
    losses = [result_of(folder.path)["metrics"] for folder in (split, whole)]
    assert losses[0]["before"]["val/loss"] == pytest.approx(losses[1]["before"]["val/loss"], rel=1e-4)
    assert losses[0]["after"]["val/loss"] == pytest.approx(losses[1]["after"]["val/loss"], rel=1e-3)
    megabytes = sum(weight.numel() * weight.element_size() for weight in whole.task.parameters()) / 1e6  # type: ignore[attr-defined]
    figure(f"loading best.ckpt takes {max(took):.0f} MB of the device beside {megabytes:.0f} MB of weights")
    assert len(took) == 2
    assert max(took) < megabytes
