"""The formats of data, which task learns from which, and what it is judged by."""

# The columns of each format of data beside data.text_column, under these names unless data.columns renames them.
ROLES: dict[str, tuple[str, ...]] = {
    "text": (),
    "instructions": (
        *("prompt", "completion", "messages", "role", "content"),
        *("instruction", "input", "output", "system", "history"),
    ),
    "labels": ("label",),
    "entities": ("tokens", "tags"),
    "pairs": ("source", "target"),
}
SPEAKERS = ("user", "assistant", "system", "tool")  # the roles of messages

FORMATS = {  # that a task learns from
    "causal_lm": ("text", "instructions"),
    "sequence_classification": ("labels",),
    "token_classification": ("entities",),
    "seq2seq": ("pairs",),
    "masked_lm": ("text",),
}
WRITTEN = ("val/rouge1", "val/rouge2", "val/rougeL", "val/chrf")
MONITORS: dict[str, tuple[str, ...]] = {
    "causal_lm": ("val/loss", "val/perplexity", "val/bits_per_byte"),
    "sequence_classification": ("val/loss", "val/accuracy", "val/f1"),
    "token_classification": ("val/loss", "val/precision", "val/recall", "val/f1"),
    "seq2seq": ("val/loss", "val/perplexity", *WRITTEN),
    "masked_lm": ("val/loss", "val/perplexity", "val/accuracy"),
}
LOGGED = ("train/loss", "train/grad_norm", "lr")  # besides, of each task
CLASS_F1 = "val/f1/"  # followed by the name of a class or of a kind of entities
# Which values of a metric are better: the lowest or the highest ones.
DIRECTIONS = {
    **dict.fromkeys(("val/loss", "val/perplexity", "val/bits_per_byte", *LOGGED), "min"),
    **dict.fromkeys(("val/accuracy", "val/precision", "val/recall", "val/f1", *WRITTEN), "max"),
}
# Why rows hold one text where they do.
PADDED_ONLY = {
    "sequence_classification": "a label is read from a row of its own",
    "token_classification": "an encoder would see across sentences",
    "seq2seq": "a decoder would see across pairs",
    "masked_lm": "an encoder would see across documents",
}


def direction(metric: str) -> str | None:
    """`min` or `max`, whichever values of a metric are better; None where nobody here knows the metric."""
    return "max" if metric.startswith(CLASS_F1) else DIRECTIONS.get(metric)
