"""What can be checked before anything heavy is imported: the data is read, the checkpoint found, the two compared."""

from dataclasses import dataclass

from domaintune.config.schema import Config
from domaintune.data.labelling import Labels, check_labels, label_warnings, read_labels
from domaintune.data.splitting import Splits, check_sides, read_splits
from domaintune.errors import UsageError
from domaintune.models.families import check_family, check_vocabulary, labels_of, learnt_otherwise
from domaintune.models.locating import Checkpoint, locate, marks_of
from domaintune.runs.folder import say


@dataclass(frozen=True)
class Prepared:
    """A config together with what it names.

    Attributes:
        labels: of tasks that learn labels.
        trained_on: {class: texts that have it} and the number of texts of the training side that a loss is weighted by;
            None takes this config's own.
    """

    config: Config
    splits: Splits
    checkpoint: Checkpoint
    labels: Labels | None = None
    trained_on: tuple[dict[str, int], int] | None = None

    def hashes(self) -> dict[str, str | None]:
        """SHA-256 of the split texts, of the weights (None where they are drawn at random), of the checkpoint's config
        and tokenizer, and of how it writes."""
        pretrained = self.config.model.init == "pretrained"
        return {
            "data": self.splits.sha256(),
            "weights": self.checkpoint.weights_hash() if pretrained else None,
            "checkpoint": self.checkpoint.settings_hash(),
            "generation": self.checkpoint.generation_hash(),
        }


def prepare(config: Config) -> Prepared:
    """Reads and splits the documents and finds the checkpoint: within seconds, without torch.

    Raises:
        UsageError: something that the config names is missing, damaged or does not fit.
    """
    splits = read_splits(config.data, config.paths.cache, marks_of(config))
    check_sides(splits, config.data)
    for note in splits.found.notes:
        say(f"note: {note}")
    needs_weights = config.model.init == "pretrained"
    checkpoint = locate(config.model.checkpoint, needs_weights, config.paths.cache)
    check_family(checkpoint, config.task)
    check_vocabulary(checkpoint, checkpoint.tokens, may_resize(config))
    check_block_size(config, checkpoint)
    if needs_weights and (learnt := learnt_otherwise(checkpoint, config.task)):
        say(
            f"note: {checkpoint.name} was trained {learnt}: it was not trained to write text as task={config.task.name}"
        )
    labels = labels_for(config, splits, checkpoint)
    if labels is not None:
        check_labels(labels, config.data.format)
        for warning in label_warnings(labels, config.data.format, config.task.class_weights == "balanced"):
            say(f"note: {warning}")
    return Prepared(config, splits, checkpoint, labels)


def labels_for(config: Config, splits: Splits, checkpoint: Checkpoint) -> Labels | None:
    """The labels of the documents, in the order of the checkpoint's own head where that has them all."""
    if config.data.format not in ("labels", "entities"):
        return None
    pretrained = config.model.init == "pretrained"
    known = labels_of(checkpoint, config.task) if pretrained else None
    return read_labels(splits, config.data.format, known, config.data.strict)


def may_resize(config: Config) -> bool:
    """Whether the model gets as many embeddings as its tokenizer has tokens."""
    return config.model.resize_embeddings or config.model.init == "random"


def check_block_size(config: Config, checkpoint: Checkpoint) -> None:
    """Raises UsageError where windows, or targets, would be longer than the model's positions."""
    limit = checkpoint.max_positions
    for name in ("block_size", "target_size") if config.data.format == "pairs" else ("block_size",):
        if limit is not None and (size := getattr(config.data, name)) > limit:
            raise UsageError(f"data.{name}={size} is more than the {limit} positions of {checkpoint.name}")
