"""The formats of data: what a row holds."""

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
