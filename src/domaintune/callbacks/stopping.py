"""What ends a run before its steps are done: signals, with a checkpoint and 128 + their number; and time."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import lightning as L
from lightning.pytorch.callbacks import Timer

from domaintune.runs.queueing import requeue_after

# Of Ctrl-C, of a scheduler before it kills, of SLURM (`--signal=USR1@120`) before the time is over, and of a terminal
# that is closed, unless the process was told to outlive it, as by nohup.
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
CAUGHT = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
HANGUP = getattr(signal, "SIGHUP", None)


class StopOnSignal(L.Callback):
    """While training, the first signal asks to save and stop after the optimizer step that is under way; a second one,
    or one at any other time, stops at once. In a job of SLURM, SIGUSR1 queues the job anew.

    Attributes:
        received: the signal that asks for it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._training = False

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Catches the signals while the block runs."""
        before = {number: signal.getsignal(number) for number in CAUGHT}
        self._install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _install(self) -> None:
        for number in CAUGHT:
            if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._receive)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if not self._training or self.received is not None:
            requeue_after(number)
            raise SystemExit(128 + number)
        self.received = number
        if number == HANGUP:  # a shell and its terminal send it one after the other
            signal.signal(number, signal.SIG_IGN)
        print(f"{signal.Signals(number).name}: saving after this step; once more stops at once", flush=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._install()  # Lightning puts its own in their place, which in several processes wait for each other

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._install()
        self._training = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._training = False

    def leave(self, trainer: L.Trainer) -> NoReturn:
        """Ends the process, after its checkpoint is saved."""
        for number in CAUGHT:
            signal.signal(number, signal.SIG_IGN)  # it ends already
        if not trainer.is_global_zero:
            raise SystemExit(0)  # else the first rank would be killed before it has written how the run ended
        number = self.received or signal.SIGTERM
        requeue_after(number)
        raise SystemExit(128 + number)


class StepTimer(Timer):
    """Ends training when its time is over, between two optimizer steps. Lightning's own may end it within one."""

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any, **named: Any) -> None:
        if not trainer.fit_loop._should_accumulate():
            super().on_train_batch_end(trainer, *arguments, **named)
