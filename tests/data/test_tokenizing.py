import copy
import itertools
import random
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from domaintune.config import UsageError
from domaintune.data import chatting, tokenizing
from domaintune.data.documents import read_documents
from domaintune.data.encoder import Encoder
from domaintune.data.finding import Source
from domaintune.data.reading import Fields
from domaintune.data.tokenizing import CONTEXT, Tokens, tokenize
from domaintune.settings import DataConfig

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


def encoded(folder: Path, tokenizer: Any, *made: str) -> Tokens:
    return tokenize(tiny.documents(folder, *made), tokenizer, "text", str(folder / "cache"))


def ids(tokens: Tokens) -> list[list[int]]:
    """Of each document."""
    return [tokens.ids(a, b).tolist() for a, b in pairwise(tokens.starts.tolist())]


def counts(tokens: Tokens) -> list[list[int]]:
    return [tokens.byte_counts(a, b).tolist() for a, b in pairwise(tokens.starts.tolist())]


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_byte_counts_add_up_to_each_documents_bytes(tmp_path: Path, tokenizer: Any, alphabet: str) -> None:
    made = texts(alphabet)
    tokens = encoded(tmp_path, tokenizer, *made)
    assert [sum(one) for one in counts(tokens)] == [len(text.encode()) for text in made]
    assert min(min(one) for one in counts(tokens)) >= 0


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_each_document_is_its_tokens_and_one_end_of_text(tmp_path: Path, tokenizer: Any, alphabet: str) -> None:
    made = texts(alphabet)
    tokens = encoded(tmp_path, tokenizer, *made)
    for text, one in zip(made, ids(tokens), strict=True):
        assert one[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in one[:-1]
        assert tokenizer.decode(one[:-1]) == text


def test_the_end_of_text_token_stands_for_no_bytes(tmp_path: Path, tokenizer: Any) -> None:
    tokens = encoded(tmp_path, tokenizer, "one", "two 😀")
    assert [one[-1] for one in counts(tokens)] == [0, 0]


def test_bytes_add_up_where_offsets_leave_white_space_out(tmp_path: Path, tokenizer: Any) -> None:
    """As those of Llama 3's tokenizer do: a token of white space covers none of the text."""
    trimming = copy.deepcopy(tokenizer)
    trimming.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    made = ["a  b", "  a", "a \n\n ", " \n über   😀 \n", *texts("all")]
    tokens = encoded(tmp_path, trimming, *made)
    assert [sum(one) for one in counts(tokens)] == [len(text.encode()) for text in made]
    assert min(min(one) for one in counts(tokens)) >= 0


def test_what_a_tokenizer_drops_belongs_to_its_neighbours(tmp_path: Path) -> None:
    words = Tokenizer(WordLevel({"<end>": 0, "<unk>": 1, "one": 2, "two": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    dropping = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unk>")
    tokens = encoded(tmp_path, dropping, "  one über two \n", "two")
    assert ids(tokens) == [[2, 1, 3, 0], [3, 0]]
    assert counts(tokens) == [[5, 6, 6, 0], [3, 0]]


def test_the_text_of_a_special_token_stays_plain_text(tmp_path: Path, tokenizer: Any) -> None:
    text = f"before {tokenizer.eos_token} after"
    tokens = encoded(tmp_path, tokenizer, text)
    assert ids(tokens)[0].count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids(tokens)[0][:-1]) == text
    assert sum(counts(tokens)[0]) == len(text)


def test_documents_are_the_same_whatever_the_batch_they_are_encoded_in(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "BATCH_BYTES", 100)
    made = [f"document number {number}" for number in range(23)]
    tokens = encoded(tmp_path, tokenizer, *made)
    assert len(tokens.starts) == 24
    alone = encoded(tmp_path, tokenizer, made[-1])
    assert ids(tokens)[-1] == ids(alone)[0]


def test_bytes_are_the_same_counted_by_names_and_by_offsets(tmp_path: Path, tokenizer: Any) -> None:
    made = [*texts("ascii"), "x" * 5000]
    by_names = encoded(tmp_path, tokenizer, *made)
    encoder = Encoder(tokenizer)
    encoder.byte_level = False
    _, by_offsets, _ = encoder.encode(made)
    assert list(chain.from_iterable(one[:-1] for one in counts(by_names))) == by_offsets.tolist()


def test_each_token_stands_for_its_own_part_of_a_character(tmp_path: Path, tokenizer: Any) -> None:
    [one] = counts(encoded(tmp_path, tokenizer, "😀"))
    assert len(one) > 2
    assert sum(one) == 4
    assert max(one) < 4


def test_bytes_add_up_where_a_normalizer_changes_the_text(tmp_path: Path, tokenizer: Any) -> None:
    normalizing = copy.deepcopy(tokenizer)
    normalizing.backend_tokenizer.normalizer = normalizers.NFD()
    made = ["plain", "über café", "É" * 20, *texts("all")]
    tokens = encoded(tmp_path, normalizing, *made)
    assert [sum(one) for one in counts(tokens)] == [len(text.encode()) for text in made]


def test_settings_that_an_earlier_call_left_in_the_tokenizer_change_nothing(tmp_path: Path, tokenizer: Any) -> None:
    used = copy.deepcopy(tokenizer)
    used.pad_token = used.eos_token
    used(["a b c", "d"], truncation=True, max_length=2, padding=True)
    assert ids(encoded(tmp_path / "a", used, "one two three", "four")) == ids(
        encoded(tmp_path / "b", tokenizer, "one two three", "four")
    )


# Instructions.

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def chatting(tokenizer: Any) -> Any:
    """A tokenizer with ChatML's special tokens and template."""
    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"})
    made.chat_template = CHATML
    return made


def instructed(folder: Path, tokenizer: Any, *rows: dict[str, Any]) -> Tokens:
    fields = Fields.of(DataConfig(format="instructions"))
    source = Source(tiny.jsonl(folder / "rows.jsonl", *rows), ".jsonl")
    documents = read_documents([source], fields, str(folder / "cache"))
    return tokenize(documents, tokenizer, "instructions", str(folder / "cache"))


def learnt(tokenizer: Any, tokens: Tokens) -> list[str]:
    """The text of the tokens with a label, of each row."""
    pairs = (zip(*both, strict=True) for both in zip(ids(tokens), counts(tokens), strict=True))
    return [tokenizer.decode([number for number, count in pair if count != CONTEXT]) for pair in pairs]


def whole(tokenizer: Any, tokens: Tokens) -> list[str]:
    return [tokenizer.decode(one) for one in ids(tokens)]


def test_only_a_completion_is_learnt_and_its_end(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"prompt": "Say hello: ", "completion": "hello 😀"}, {"prompt": "", "completion": "free"}]
    tokens = instructed(tmp_path, tokenizer, *rows)
    eos = tokenizer.eos_token
    assert learnt(tokenizer, tokens) == [f"hello 😀{eos}", f"free{eos}"]
    assert whole(tokenizer, tokens) == [f"Say hello: hello 😀{eos}", f"free{eos}"]
    assert [sum(max(0, count) for count in one) for one in counts(tokens)] == [len("hello 😀".encode()), 4]


def test_a_prompt_is_encoded_as_it_is_when_the_model_is_used(tmp_path: Path, tokenizer: Any) -> None:
    """Also where the joined text would be cut into other tokens."""
    prompt = tokenizer("the", add_special_tokens=False)["input_ids"]
    assert tokenizer("there", add_special_tokens=False)["input_ids"][: len(prompt)] != prompt
    [one] = ids(instructed(tmp_path, tokenizer, {"prompt": "the", "completion": "re"}))
    assert one[: len(prompt)] == prompt


TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "Four."},
]


def test_the_answers_of_a_chat_are_learnt_with_the_sign_of_their_end(tmp_path: Path, chatting: Any) -> None:
    tokens = instructed(tmp_path, chatting, {"messages": TALK})
    assert whole(chatting, tokens) == [chatting.apply_chat_template(TALK, tokenize=False)]
    assert learnt(chatting, tokens) == ["Two.<|im_end|>\nFour.<|im_end|>\n"]
    special = chatting.convert_tokens_to_ids("<|im_start|>")
    assert ids(tokens)[0].count(special) == 5


def test_questions_after_the_last_answer_are_left_out(tmp_path: Path, chatting: Any) -> None:
    tokens = instructed(tmp_path, chatting, {"messages": [*TALK, {"role": "user", "content": "Five?"}]})
    assert whole(chatting, tokens) == [chatting.apply_chat_template(TALK, tokenize=False)]


def test_the_plain_template_writes_turns_and_ends_them(tmp_path: Path, tokenizer: Any) -> None:
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = chatting.PLAIN_TEMPLATE
    tokens = instructed(tmp_path, plain, {"messages": TALK})
    eos = plain.eos_token
    assert learnt(plain, tokens) == [f"Two.{eos}Four.{eos}"]
    assert whole(plain, tokens) == [
        f"System: Be brief.\n\nUser: One?\n\nAssistant: Two.{eos}User: Three?\n\nAssistant: Four.{eos}"
    ]


def test_a_template_that_rewrites_earlier_turns_is_refused(tmp_path: Path, chatting: Any) -> None:
    chatting.chat_template = "{{ messages | length }}" + CHATML
    with pytest.raises(UsageError, match=r"rows\.jsonl:1: the chat template rewrites earlier turns"):
        instructed(tmp_path, chatting, {"messages": TALK})


def test_what_a_template_refuses_is_told_with_the_row(tmp_path: Path, chatting: Any) -> None:
    chatting.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UsageError, match=r"rows\.jsonl:1: the chat template refuses it: roles must alternate"):
        instructed(tmp_path, chatting, {"messages": TALK})
