import copy
import itertools
import random
from typing import Any

import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from domaintune.data import tokenizing
from domaintune.data.tokenizing import Tokens, tokenize

ALPHABETS = {
    "ascii": [*map(chr, range(32, 127)), "\n", "\t", "  ", "\n\n", " the", " and"],
    "accents": list("aeiou éèêëàâîïôûüçñßøåÉÜŒ\u0301\u00a0 "),
    "emoji": ["😀", "🎉", "👩‍💻", "🇩🇪", "❤️", "👍🏽", " ", "a", "\n"],
    "cjk": list("日本語中文字漢字한국어テスト。、 　a\U00020000"),
}
ALPHABETS["all"] = list(itertools.chain(*ALPHABETS.values()))


def texts(alphabet: str, number: int = 60) -> list[str]:
    draw = random.Random(alphabet)
    return ["".join(draw.choices(ALPHABETS[alphabet], k=draw.randint(1, 60))) for _ in range(number)]


def each(tokens: Tokens, values: np.ndarray) -> list[list[int]]:
    """The values of each document."""
    return [values[a:b].tolist() for a, b in zip(tokens.starts[:-1], tokens.starts[1:], strict=True)]


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_byte_counts_add_up_to_each_documents_bytes(tokenizer: Any, alphabet: str) -> None:
    made = texts(alphabet)
    tokens = tokenize(tiny.documents(*made), tokenizer)
    assert [sum(counts) for counts in each(tokens, tokens.byte_counts)] == [len(text.encode()) for text in made]
    assert (tokens.byte_counts >= 0).all()


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_each_document_is_its_tokens_and_one_end_of_text(tokenizer: Any, alphabet: str) -> None:
    made = texts(alphabet)
    tokens = tokenize(tiny.documents(*made), tokenizer)
    for text, ids in zip(made, each(tokens, tokens.ids), strict=True):
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in ids[:-1]
        assert tokenizer.decode(ids[:-1]) == text


def test_the_end_of_text_token_stands_for_no_bytes(tokenizer: Any) -> None:
    tokens = tokenize(tiny.documents("one", "two 😀"), tokenizer)
    assert tokens.byte_counts[tokens.ids == tokenizer.eos_token_id].tolist() == [0, 0]


def test_bytes_add_up_where_offsets_leave_white_space_out(tokenizer: Any) -> None:
    """As those of Llama 3's tokenizer do: a token of white space covers none of the text."""
    trimming = copy.deepcopy(tokenizer)
    trimming.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    made = ["a  b", "  a", "a \n\n ", " \n über   😀 \n", *texts("all")]
    tokens = tokenize(tiny.documents(*made), trimming)
    assert [sum(counts) for counts in each(tokens, tokens.byte_counts)] == [len(text.encode()) for text in made]
    assert (tokens.byte_counts >= 0).all()


def test_what_a_tokenizer_drops_belongs_to_its_neighbours() -> None:
    words = Tokenizer(WordLevel({"<end>": 0, "<unk>": 1, "one": 2, "two": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    dropping = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unk>")
    tokens = tokenize(tiny.documents("  one über two \n", "two"), dropping)
    assert tokens.ids.tolist() == [2, 1, 3, 0, 3, 0]
    assert tokens.byte_counts.tolist() == [5, 6, 6, 0, 3, 0]


def test_the_text_of_a_special_token_stays_plain_text(tokenizer: Any) -> None:
    text = f"before {tokenizer.eos_token} after"
    tokens = tokenize(tiny.documents(text), tokenizer)
    assert tokens.ids.tolist().count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(tokens.ids[:-1]) == text
    assert tokens.byte_counts.sum() == len(text)


def test_documents_are_the_same_whatever_the_batch_they_are_encoded_in(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "BATCH_CHARACTERS", 100)
    made = [f"document number {number}" for number in range(23)]
    tokens = tokenize(tiny.documents(*made), tokenizer)
    assert len(tokens.starts) == 24
    alone = tokenize(tiny.documents(made[-1]), tokenizer)
    assert tokens.ids[tokens.starts[-2] :].tolist() == alone.ids.tolist()


def test_no_documents_are_no_tokens(tokenizer: Any) -> None:
    tokens = tokenize([], tokenizer)
    assert tokens.ids.tolist() == tokens.byte_counts.tolist() == []
    assert tokens.starts.tolist() == [0]
