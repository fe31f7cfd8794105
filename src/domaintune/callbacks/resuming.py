"""What a checkpoint needs besides Lightning's own so that a run goes on as if it had never stopped."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from domaintune.config.tasks import LOGGED
from domaintune.files.writing import PART

CHECKSUM = 4  # bytes
EARLIER_DATA = "TextDataModule"  # in the checkpoints of earlier versions
LENGTH = struct.Struct(f"<Q{CHECKSUM}x")  # of a record's content, and a checksum of that


def random_states() -> dict[str, Any]:
    """Of torch, each GPU, numpy and Python, as tensors and plain containers."""
    version, numbers, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *(float(part) for part in rest)],
        "python": [version, list(numbers), gauss],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """The inverse of `random_states`."""
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), int(position), int(has_gauss), gauss))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))


def remove_points(folder: Path, step: int) -> None:
    """Takes the figures of an optimizer step out of TensorBoard's files that earlier processes have written."""
    from tensorboard.compat.proto.event_pb2 import Event

    def is_figure(record: bytes) -> bool:
        event = Event.FromString(record[LENGTH.size : -CHECKSUM])
        tags = [value.tag for value in event.summary.value]
        return event.step == step and any(tag in LOGGED or tag.startswith("train/") for tag in tags)

    for file in sorted(folder.glob("events.out.tfevents.*")):
        records = list(_records(file.read_bytes()))
        kept = [record for record in records if not record.whole or not is_figure(record.content)]
        if len(kept) < len(records):
            beside = file.with_name(f"{file.name}{PART}")
            beside.write_bytes(b"".join(record.content for record in kept))
            beside.replace(file)


class _Record(NamedTuple):
    """A record of TensorBoard's files with its length and its checksums."""

    content: bytes
    whole: bool


def _records(content: bytes) -> Iterator[_Record]:
    """The records of a file; the last one of a process that was killed may be cut off."""
    place = 0
    while place < len(content):
        end = len(content) + 1
        if place + LENGTH.size <= len(content):
            end = place + LENGTH.size + LENGTH.unpack_from(content, place)[0] + CHECKSUM
        yield _Record(content[place:end], end <= len(content))
        place = end


class ExactResume(L.Callback):
    """Keeps random states in each checkpoint, those of every rank, and around each validation.

    They are set as training starts, when the loaders are set up and nothing is drawn yet: from the checkpoint, or from
    the seed, for each rank another. Validation leaves them as they were, so that a run whose first process validated
    before it was killed goes on like one that wasn't. Curves are flushed before a checkpoint is written: what stands
    before it is on the disk. A step that was logged only since it was the last one is taken out of the curves where
    training goes on after it.

    Args:
        seed: of a run that starts.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._loaded: list[dict[str, Any]] | None = None
        self._before: dict[str, Any] = {}
        self._out_of_turn: int | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        states: list[Any] = [random_states()]
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, states[0])
            states = gathered
        checkpoint["random_states"] = states
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        data: Any = trainer.datamodule
        # Lightning looks for the place in the data under the name of the class, which an earlier version had otherwise.
        if type(data).__qualname__ not in checkpoint and EARLIER_DATA in checkpoint:
            data.load_state_dict(checkpoint[EARLIER_DATA])
        self._loaded = checkpoint["random_states"]
        self._out_of_turn = checkpoint.get("logged_out_of_turn")

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        if self._out_of_turn is None:
            return
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, TensorBoardLogger):
                remove_points(Path(logger.log_dir), self._out_of_turn)
        task: Any = pl_module
        self._out_of_turn = task.logged_out_of_turn = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._loaded is None:
            L.seed_everything(self.seed + trainer.global_rank, workers=True, verbose=False)
        elif trainer.global_rank < len(self._loaded):
            set_random_states(self._loaded[trainer.global_rank])
        self._loaded = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._before = random_states()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        set_random_states(self._before)
