"""What can be checked before anything heavy is imported: the data is read, the checkpoint found, the two compared."""

from dataclasses import dataclass

from domaintune.config import Config, UsageError
from domaintune.data.splitting import Splits, check_sides, read_splits
from domaintune.models.locating import Checkpoint, locate


@dataclass(frozen=True)
class Prepared:
    """A config together with what it names."""

    config: Config
    splits: Splits
    checkpoint: Checkpoint

    def hashes(self) -> dict[str, str | None]:
        """SHA-256 of the split texts and of the weights; None for weights that are drawn at random."""
        pretrained = self.config.model.init == "pretrained"
        return {"data": self.splits.sha256(), "weights": self.checkpoint.weights_hash() if pretrained else None}


def prepare(config: Config) -> Prepared:
    """Reads and splits the documents and finds the checkpoint: within seconds, without torch.

    Raises:
        UsageError: something that the config names is missing, damaged or does not fit.
    """
    splits = read_splits(config.data, config.paths.cache)
    check_sides(splits, config.data)
    checkpoint = locate(config.model.checkpoint, needs_weights=config.model.init == "pretrained")
    check_block_size(config, checkpoint)
    return Prepared(config, splits, checkpoint)


def check_block_size(config: Config, checkpoint: Checkpoint) -> None:
    """Raises UsageError where windows would be longer than the model's positions."""
    limit = checkpoint.max_positions
    if limit is not None and config.data.block_size > limit:
        raise UsageError(
            f"data.block_size={config.data.block_size} is more than the {limit} positions of {checkpoint.name}"
        )
