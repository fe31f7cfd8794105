"""Which families of models fit which tasks, told from a checkpoint's config.json alone. Imports nothing heavy."""

from typing import Any

from domaintune.config.programs import program
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
    **dict.fromkeys(DECODERS, "a decoder, which sees no token to the right"),
    **dict.fromkeys(ENCODERS, "an encoder, which sees the whole text"),
    **dict.fromkeys(ENCODER_DECODERS, "an encoder with a decoder, which turns a text into another"),
    **dict.fromkeys(TRANSLATORS, "a translator, whose tokenizer writes a target otherwise than a source"),
}
TASKS = {
    KINDS["gpt2"]: ("causal_lm", "sequence_classification", "token_classification"),
    KINDS["bert"]: ("masked_lm", "sequence_classification", "token_classification"),
    KINDS["t5"]: ("seq2seq",),
    KINDS["mbart"]: (),
}
# Pairs that transformers has no class for.
MISSING = {
    "sequence_classification": ("granite",),
    "token_classification": "gemma3_text gptj granite olmo olmo2 opt".split(),
}
# What the head of a class of transformers has learnt, where it is not to write text.
LEARNT = {
    "ForSequenceClassification": "to label texts",
    "ForTokenClassification": "to tag words",
    "ForQuestionAnswering": "to find answers in texts",
    "ForMultipleChoice": "to choose among answers",
}
HEADS = {"sequence_classification": "ForSequenceClassification", "token_classification": "ForTokenClassification"}


def check_family(checkpoint: Checkpoint, task_name: str) -> None:
    """Raises UsageError where a checkpoint is of a family that can't do the task."""
    family = checkpoint.config.get("model_type")
    kind = KINDS.get(str(family))
    if kind is None or task_name in (fits := fitting(str(family))):
        return
    if task_name in TASKS[kind]:
        raise UsageError(f"model.checkpoint={checkpoint.name}: transformers has no {family} for task={task_name}")
    raise UsageError(
        f"model.checkpoint={checkpoint.name}: {family} is {kind}, so it does not fit task={task_name}; it fits "
        f"{', '.join(fits) or 'none of the tasks'}"
    )


def fitting(family: str) -> list[str]:
    """The tasks that a family of KINDS can do."""
    return [task for task in TASKS[KINDS[family]] if family not in MISSING.get(task, ())]


def learnt_otherwise(checkpoint: Checkpoint, task_name: str) -> str | None:
    """What the weights were trained to do where that is not to write text and the task is; config.json says it."""
    made_for = _made_for(checkpoint)
    if task_name not in ("causal_lm", "seq2seq"):
        return None
    return next((f"{words} ({made_for})" for head, words in LEARNT.items() if made_for.endswith(head)), None)


def check_writes(checkpoint: Checkpoint, task_name: str) -> None:
    """Raises UsageError where a checkpoint did not learn to write, but its family could."""
    if learnt := learnt_otherwise(checkpoint, task_name):
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


def labels_of(checkpoint: Checkpoint, task_name: str) -> tuple[list[str], bool] | None:
    """The label names of a checkpoint's own head in their order, and whether a text may have several of them.

    None where it has no head of this task.
    """
    config: dict[str, Any] = checkpoint.config
    if task_name not in HEADS or not _made_for(checkpoint).endswith(HEADS[task_name]) or not config.get("id2label"):
        return None
    names = {int(number): str(name) for number, name in config["id2label"].items()}
    several = config.get("problem_type") == "multi_label_classification"
    return [names[number] for number in sorted(names)], several
