"""What of the texts may not be meant: names of special tokens in them, a script that the tokenizer does not know."""

import shlex
from typing import Any

from domaintune.config.programs import program
from domaintune.config.schema import DataConfig
from domaintune.data.chatting import Chats
from domaintune.data.documents import Documents
from domaintune.data.encoder import Encoder
from domaintune.data.fields import strings_in
from domaintune.data.tokenizing import Tokens

MANY_MARKED = 20  # one text in so many that holds the name of a special token is worth a note
NAMED = 3  # special tokens that notes name
SAMPLED_BYTES = 300_000  # of the texts whose script is looked at
MANY_UNKNOWN = 0.1  # tokens a token that stand for unknown signs
FOREIGN = 0.3  # the share of characters beyond ASCII from which a script counts as another one
CUT_INTO_BYTES = 0.5  # tokens a byte from which on a tokenizer doesn't know a script: Chinese, known, takes 0.25


def notes_on_marks(config: DataConfig, documents: Documents, tokens: Tokens, tokenizer: Any) -> list[str]:
    """Where many texts hold the name of a special token."""
    texts, end = len(documents), tokenizer.eos_token
    many = {name: number for name, number in tokens.marked.items() if number >= max(2, texts / MANY_MARKED)}
    does = "ends a document there" if config.format == "text" else "leaves it out where a text ends in it"
    way_out = "" if config.marks else f"; data.marks=end {does}"
    return [
        f"{number:,} of {texts:,} texts hold {name}, which stays plain text" + way_out * (name == end)
        for name, number in sorted(many.items(), key=lambda item: (item[0] != end, -item[1]))[:NAMED]
    ]


def notes_on_script(config: DataConfig, documents: Documents, tokenizer: Any, for_decoders: bool) -> list[str]:
    """Where the tokenizer cuts the text's script into bytes, as one made for English does with Chinese.

    Args:
        for_decoders: whether a model can start at random weights with a tokenizer of one's own.
    """
    text = " ".join(strings_in(list(documents.records(*next(documents.batches(SAMPLED_BYTES), (0, 0))))))
    if not text or sum(not character.isascii() for character in text) < FOREIGN * len(text):
        return []
    ids = Encoder(tokenizer).ids(text)
    path = config.path if isinstance(config.path, str) else "CORPUS"
    own = (
        f", or make your own ({program('make_tokenizer')} {shlex.quote(f'data.path={path}')} out=START) and "
        f"start at random weights (model.checkpoint=START model.init=random optim.lr=1e-3)"
    )
    way_out = f"Take a model.checkpoint whose tokenizer knows it{own * for_decoders}"
    if (unknown := ids.count(tokenizer.unk_token_id) / len(ids)) > MANY_UNKNOWN:
        which = f"{unknown:.0%} of its tokens are {tokenizer.unk_token}, which stands for any sign that it lacks"
        return [f"the tokenizer does not know this text's script: {which}. {way_out}"]
    if (a_byte := len(ids) / len(text.encode())) < CUT_INTO_BYTES:
        return []
    a_character = len(ids) / len(text)
    return [
        f"the tokenizer does not know this text's script: it takes {a_character:.1f} tokens for a character, "
        f"{a_byte:.2f} for a byte (of English it takes about 0.25), so that a block holds little text and training "
        f"is slow. {way_out}"
    ]


def notes_on_ends(tokenizer: Any) -> list[str]:
    """Where the chat template ends an answer with a sign that writing can't stop at."""
    chats = Chats(tokenizer, Encoder(tokenizer))
    if chats.end_of_turn() is not None or not (behind := chats.behind_answer().strip()):
        return []
    return [
        f"the chat template ends an answer with {behind!r}, which is no token of the tokenizer: it is learnt as "
        f"text, and what is written stops at {tokenizer.eos_token} alone"
    ]
