"""How far the whole run is: one bar on a terminal, a line now and then in a log file."""

import math
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.table import Column

SHOWN = {"train/loss": "loss", "val/loss": "val loss", "train/tokens_per_second": "tokens/s"}
LOOK_SECONDS = 0.5  # between two looks at the figures: reading one waits for the device


class RunProgress(ProgressBar):
    """Optimizer steps of the run, the latest loss, tokens a second and the time left.

    Lightning's own bars count the batches of one epoch; the time left there is not that of the run.

    Args:
        line_seconds: between two lines where the output is no terminal.
    """

    def __init__(self, line_seconds: float = 30.0) -> None:
        super().__init__()
        self.line_seconds = line_seconds
        self.console = Console(highlight=False)
        self.bar: Progress | None = None
        self._task = TaskID(0)
        self._enabled = True
        self._started = self._last_line = self._last_look = time.monotonic()
        self._first_step = 0

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False  # Lightning does so on every rank but the first

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = self._last_line = time.monotonic()
        self._first_step = trainer.global_step
        if not (self._enabled and self.console.is_terminal):
            return
        whole = Column(no_wrap=True)  # one line on a narrow terminal, too
        columns = [BarColumn(), MofNCompleteColumn(table_column=whole), TextColumn("steps")]
        times = [TimeElapsedColumn(table_column=whole), TimeLeft(table_column=whole)]
        figures = TextColumn("left  {task.fields[figures]}")
        self.bar = Progress(*columns, *times, figures, console=self.console)
        total = self._total(trainer)
        self._task = self.bar.add_task("", total=total, completed=trainer.global_step, figures="")
        self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.bar is not None:
            self.bar.update(self._task, completed=trainer.global_step)
            if time.monotonic() - self._last_look >= LOOK_SECONDS:
                self._show(trainer)
        elif time.monotonic() - self._last_line >= self.line_seconds:
            self._now_and_then(f"{self._place(trainer)}  {self._figures(trainer)}")

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        done = f"validating: {batch_idx + 1:,} of {int(sum(trainer.num_val_batches)):,} batches"
        if self.bar is not None:
            if time.monotonic() - self._last_look >= LOOK_SECONDS:
                self._show(trainer, done)
        else:
            self._now_and_then(done)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.bar is not None:
            self._show(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _now_and_then(self, line: str) -> None:
        if self._enabled and time.monotonic() - self._last_line >= self.line_seconds:
            self._last_line = time.monotonic()
            self.console.print(line, soft_wrap=True)

    def _total(self, trainer: L.Trainer) -> int | None:
        total = trainer.estimated_stepping_batches
        return int(total) if math.isfinite(total) else None

    def _place(self, trainer: L.Trainer) -> str:
        done, total = trainer.global_step, self._total(trainer)
        if total is None:
            return f"step {done:,}"
        seconds = (time.monotonic() - self._started) / max(1, done - self._first_step) * (total - done)
        return f"step {done:,} of {total:,}, {math.ceil(seconds / 60)} min left"

    def _show(self, trainer: L.Trainer, done: str = "") -> None:
        """Writes the latest figures beside the bar, and after them what is under way."""
        assert self.bar is not None
        self._last_look = time.monotonic()
        self.bar.update(self._task, figures="  ".join(text for text in (self._figures(trainer), done) if text))

    def _figures(self, trainer: L.Trainer) -> str:
        task: Any = trainer.lightning_module
        latest = (
            {"train/loss": task.latest_step["loss"]} if task.latest_step else {}
        )  # of each step, not only when logged
        metrics = {**trainer.callback_metrics, **latest}
        return "  ".join(f"{name} {float(metrics[key]):,.4g}" for key, name in SHOWN.items() if key in metrics)
