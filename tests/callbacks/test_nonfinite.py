"""Steps that are looked at late, as on a GPU."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from domaintune.callbacks import nonfinite
from domaintune.callbacks.nonfinite import NonFinite
from domaintune.errors import RunError


def late(monkeypatch: pytest.MonkeyPatch, callback: NonFinite, finite: bool) -> None:
    """A step ends and isn't looked at yet."""
    monkeypatch.setattr(nonfinite, "documents_of", lambda *_: "documents")
    loop = SimpleNamespace(
        _should_accumulate=lambda: False,
        epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(ready=4))),
    )
    trainer: Any = SimpleNamespace(fit_loop=loop, global_step=4, current_epoch=0)
    loss = torch.tensor(1.0 if finite else torch.nan)
    step = {"lr": 0.1, "loss": loss, "grad_norm": loss, "finite": loss.isfinite(), "micro_losses": loss[None]}
    task: Any = SimpleNamespace(latest_step=step, device=SimpleNamespace(type="cuda"))
    callback.on_train_batch_end(trainer, task, None, None, 0)


def test_no_checkpoint_holds_a_bad_step_that_was_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    callback = NonFinite("stop", 0)
    late(monkeypatch, callback, finite=True)
    late(monkeypatch, callback, finite=False)
    with pytest.raises(RunError, match="step 4: not finite"):
        callback.state_dict()


def test_a_checkpoint_counts_all_skipped_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    callback = NonFinite("skip", 5)
    late(monkeypatch, callback, finite=False)
    assert callback.state_dict() == {"skipped": 1}
    assert callback.state_dict() == {"skipped": 1}
