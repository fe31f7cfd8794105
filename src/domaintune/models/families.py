"""Which families of models fit which tasks, told from a checkpoint's config.json alone. Imports nothing heavy."""

from typing import Any

from domaintune.config.programs import program
from domaintune.config.schema import TaskConfig
from domaintune.config.tasks import declared_tasks
from domaintune.errors import UsageError
from domaintune.models.locating import Checkpoint

# transformers' names of architectures that many people have; one that isn't here is judged by transformers itself.
DECODERS = (
    "bloom falcon gemma gemma2 gemma3_text gpt2 gpt_bigcode gpt_neo gpt_neox gptj granite llama mistral olmo olmo2 opt "
    "phi phi3 qwen2 qwen3 smollm3 starcoder2"
).split()
ENCODERS = (
    "albert bert camembert deberta deberta-v2 distilbert electra ernie mobilebert modernbert mpnet roberta "
    "roberta-prelayernorm xlm-roberta"
).split()
ENCODER_DECODERS = "bart blenderbot longt5 mt5 pegasus t5 umt5".split()
TRANSLATORS = "m2m_100 marian mbart".split()

KINDS = {
    **dict.fromkeys(DECODERS, "decoder"),
    **dict.fromkeys(ENCODERS, "encoder"),
    **dict.fromkeys(ENCODER_DECODERS, "encoder-decoder"),
    **dict.fromkeys(TRANSLATORS, "translator"),
}
IN_WORDS = {
    "decoder": "a decoder, which sees no token to the right",
    "encoder": "an encoder, which sees the whole text",
    "encoder-decoder": "an encoder with a decoder, which turns a text into another",
    "translator": "a translator, whose tokenizer writes a target otherwise than a source",
}
# Heads that transformers has no class for.
MISSING = {
    "ForSequenceClassification": ("granite",),
    "ForTokenClassification": "gemma3_text gptj granite olmo olmo2 opt".split(),
}
# What the head of a class of transformers has learnt, where it is not to write text.
LEARNT = {
    "ForSequenceClassification": "to label texts",
    "ForTokenClassification": "to tag words",
    "ForQuestionAnswering": "to find answers in texts",
    "ForMultipleChoice": "to choose among answers",
}


def check_family(checkpoint: Checkpoint, task: TaskConfig) -> None:
    """Raises UsageError where a checkpoint is of a family that can't do the task."""
    family = str(checkpoint.config.get("model_type"))
    if (kind := KINDS.get(family)) is None or can_do(family, task):
        return
    if kind in task.models:
        raise UsageError(f"model.checkpoint={checkpoint.name}: transformers has no {family} for task={task.name}")
    fitting = ", ".join(name for name, each in declared_tasks().items() if can_do(family, each))
    raise UsageError(
        f"model.checkpoint={checkpoint.name}: {family} is {IN_WORDS[kind]}, so it does not fit task={task.name}; it "
        f"fits {fitting or 'none of the tasks'}"
    )


def can_do(family: str, task: TaskConfig) -> bool:
    """Whether transformers has a model of a family of KINDS for the task."""
    return KINDS[family] in task.models and family not in MISSING.get(task.head, ())


def learnt_otherwise(checkpoint: Checkpoint, task: TaskConfig) -> str | None:
    """What the weights were trained to do where that is not to write text and the task is; config.json says it."""
    made_for = _made_for(checkpoint)
    if "text" not in task.predicts:
        return None
    return next((f"{words} ({made_for})" for head, words in LEARNT.items() if made_for.endswith(head)), None)


def check_writes(checkpoint: Checkpoint, task: TaskConfig) -> None:
    """Raises UsageError where a checkpoint did not learn to write, but its family could."""
    if learnt := learnt_otherwise(checkpoint, task):
        raise UsageError(
            f"model.checkpoint={checkpoint.name}: it was trained {learnt}, not to write text. "
            f"A run of this program is asked by {program('predict')}, and measured by {program('evaluate')} run=NAME"
        )


def check_vocabulary(checkpoint: Checkpoint, tokens: int | None, resizes: bool = False) -> None:
    """Raises UsageError where a tokenizer has more tokens than its model has embeddings.

    Args:
        tokens: of the tokenizer; None where that isn't known yet.
        resizes: whether the embeddings are made as many.
    """
    embeddings = checkpoint.embeddings
    if not resizes and tokens is not None and embeddings is not None and tokens > embeddings:
        raise UsageError(too_few_embeddings(checkpoint, tokens, embeddings))


def too_few_embeddings(checkpoint: Checkpoint, tokens: int, embeddings: int) -> str:
    return (
        f"model.checkpoint={checkpoint.name}: its tokenizer has {tokens:,} tokens and its model {embeddings:,} "
        f"embeddings; {program('train')} with model.resize_embeddings=true adds those that are missing"
    )


def _made_for(checkpoint: Checkpoint) -> str:
    """The class of transformers that a checkpoint's weights are of."""
    return str((checkpoint.config.get("architectures") or [""])[0])


def labels_of(checkpoint: Checkpoint, task: TaskConfig) -> tuple[list[str], bool] | None:
    """The label names of a checkpoint's own head in their order, and whether a text may have several of them.

    None where it has no head of this task.
    """
    config: dict[str, Any] = checkpoint.config
    if not task.head or not _made_for(checkpoint).endswith(task.head) or not config.get("id2label"):
        return None
    names = {int(number): str(name) for number, name in config["id2label"].items()}
    several = config.get("problem_type") == "multi_label_classification"
    return [names[number] for number in sorted(names)], several
