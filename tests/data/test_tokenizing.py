import copy
import itertools
import json
import os
import pickle
import random
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordLevel
from transformers import PreTrainedTokenizerFast

from domaintune.data import tokenizing
from domaintune.data.chatting import PLAIN_TEMPLATE, Chats, plain_template
from domaintune.data.encoder import CONTEXT, Encoder
from domaintune.data.tokenizing import Tokens, tokenize
from domaintune.data.windows import WindowDataset
from domaintune.errors import RunError
from domaintune.models.generation import encode_prompt, encode_question

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


# What a tokenizer puts before a text, as Llama's, Mistral's and Gemma's do.


@pytest.fixture
def opening(tokenizer: Any) -> Any:
    """A tokenizer that puts its beginning-of-text token before a text."""
    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"bos_token": "<s>"})
    signs = [("<s>", made.bos_token_id)]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=signs)
    return made


def test_a_document_begins_as_the_tokenizer_begins_a_text(tmp_path: Path, opening: Any) -> None:
    made = texts("all")
    tokens = encoded(tmp_path, opening, *made)
    assert ids(tokens) == [[*opening(text)["input_ids"], opening.eos_token_id] for text in made]
    assert ids(tokens)[0][0] == opening.bos_token_id
    assert [one[0] for one in counts(tokens)] == [0] * len(made)
    assert [sum(one) for one in counts(tokens)] == [len(text.encode()) for text in made]


def test_the_first_real_token_is_predicted_behind_it(tmp_path: Path, opening: Any) -> None:
    tokens = encoded(tmp_path, opening, "one two three " * 40, "four")
    windows = WindowDataset(tokens, np.arange(2), block_size=32)
    assert windows.predicted_tokens == sum(len(one) - 1 for one in ids(tokens))
    assert windows.text_bytes.sum() == len("one two three " * 40) + len("four")
    begin_with_it = [windows.window(index)["input_ids"][0] == opening.bos_token_id for index in range(len(windows))]
    assert sum(begin_with_it) == 2, "the first window of each document"


def test_a_prompt_begins_as_the_tokenizer_begins_a_text(tmp_path: Path, opening: Any) -> None:
    tokens = instructed(tmp_path, opening, {"prompt": "2+2=", "completion": "4"})
    given = opening("2+2=")["input_ids"]
    assert ids(tokens)[0][: len(given)] == given == encode_prompt(opening, Encoder(opening), "2+2=", tiny.llama())
    assert counts(tokens)[0][: len(given)] == [CONTEXT] * len(given)
    assert learnt(opening, tokens) == [f"4{opening.eos_token}"]
    assert encode_prompt(opening, Encoder(opening), "", tiny.llama()) == [opening.bos_token_id]


def test_a_chat_begins_as_its_template_begins_it(tmp_path: Path, opening: Any) -> None:
    opening.chat_template = CHATML
    assert opening.bos_token_id not in ids(instructed(tmp_path / "own", opening, {"messages": TALK}))[0]
    opening.chat_template = plain_template(opening)
    (plain,) = ids(instructed(tmp_path / "plain", opening, {"messages": TALK}))
    assert plain.index(opening.bos_token_id) == 0
    assert plain.count(opening.bos_token_id) == 1
    assert opening.apply_chat_template(TALK, tokenize=False).startswith("<s>System: Be brief.")
    assert encode_question(opening, Encoder(opening), "One?")[0] == opening.bos_token_id


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
    documents = tiny.documents(folder, *rows, format="instructions")
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
    counted = [sum(max(0, count) for count in one) for one in counts(tokens)]
    assert counted == [len("Two.Four.")], "neither the sign nor what the template writes behind it is text"
    special = chatting.convert_tokens_to_ids("<|im_start|>")
    assert ids(tokens)[0].count(special) == 5


def test_questions_after_the_last_answer_are_left_out(tmp_path: Path, chatting: Any) -> None:
    tokens = instructed(tmp_path, chatting, {"messages": [*TALK, {"role": "user", "content": "Five?"}]})
    assert whole(chatting, tokens) == [chatting.apply_chat_template(TALK, tokenize=False)]


def test_the_plain_template_writes_turns_and_ends_them(tmp_path: Path, tokenizer: Any) -> None:
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = PLAIN_TEMPLATE
    tokens = instructed(tmp_path, plain, {"messages": TALK})
    eos = plain.eos_token
    assert learnt(plain, tokens) == [f"Two.{eos}Four.{eos}"]
    assert whole(plain, tokens) == [
        f"System: Be brief.\n\nUser: One?\n\nAssistant: Two.{eos}User: Three?\n\nAssistant: Four.{eos}"
    ]


def sequences(tokenizer: Any, tokens: Tokens) -> list[list[tuple[str, str]]]:
    """Of each document the context and what is learnt of each of its sequences."""
    found = []
    for document in range(len(tokens.starts) - 1):
        _, firsts, ends = tokens.sequences(np.array([document]))
        found.append([])
        for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
            pair = list(zip(tokens.ids(first, end).tolist(), tokens.byte_counts(first, end).tolist(), strict=True))
            parts = ([number for number, count in pair if (count == CONTEXT) is given] for given in (True, False))
            found[-1].append(tuple(tokenizer.decode(part) for part in parts))
    return found


def test_a_template_that_rewrites_earlier_turns_makes_a_sequence_of_each_answer(tmp_path: Path, chatting: Any) -> None:
    chatting.chat_template = "{{ messages | length }}" + CHATML
    tokens = instructed(tmp_path, chatting, {"messages": TALK}, {"messages": TALK[:3]})
    first = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\n"
    second = first + "Two.<|im_end|>\n<|im_start|>user\nThree?<|im_end|>\n<|im_start|>assistant\n"
    assert sequences(chatting, tokens) == [
        [("2" + first, "Two.<|im_end|>\n"), ("4" + second, "Four.<|im_end|>\n")],
        [("2" + first, "Two.<|im_end|>\n")],
    ]
    assert len(tokens.starts) == 3, "a row is one document"


THINKING = CHATML.replace(
    "message['content']",
    "(message['content'].split('</think>')[-1].lstrip('\n') if not loop.last else message['content'])",
)


def thinks(*answers: str) -> list[dict[str, str]]:
    turns = [({"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}) for answer in answers]
    return [*chain(*turns)]


@pytest.mark.parametrize("opening", ["", "<think>\n"])
def test_answers_are_learnt_with_their_thoughts_after_turns_without(
    tmp_path: Path, chatting: Any, opening: str
) -> None:
    """As reasoning models drop the thoughts of past turns, and some begin them in the generation prompt."""
    chatting.chat_template = THINKING.replace("assistant\n' }}", f"assistant\n{opening}' }}}}")
    talk = thinks("<think>\na\n</think>\n\nA.", "<think>\nb\n</think>\n\nB.")
    [row] = sequences(chatting, instructed(tmp_path, chatting, {"messages": talk}))
    first = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    second = first + "A.<|im_end|>\n" + first
    assert row == [
        (first + opening, f"{'' if opening else '<think>' + chr(10)}a\n</think>\n\nA.<|im_end|>\n"),
        (second + opening, f"{'' if opening else '<think>' + chr(10)}b\n</think>\n\nB.<|im_end|>\n"),
    ]


def test_an_answer_without_thoughts_closes_those_that_the_generation_prompt_opens(
    tmp_path: Path, chatting: Any
) -> None:
    chatting.chat_template = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")
    [row] = sequences(chatting, instructed(tmp_path, chatting, {"messages": thinks("Plain.")}))
    assert row == [
        ("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n", "\n</think>\n\nPlain.<|im_end|>\n")
    ]


def test_thoughts_that_a_template_never_writes_are_learnt_where_it_opens_them(tmp_path: Path, chatting: Any) -> None:
    chatting.chat_template = CHATML.replace(
        "message['content']", "message['content'].split('</think>')[-1].lstrip('\n')"
    ).replace("assistant\n' }}", "assistant\n<think>\n' }}")
    talk = thinks("<think>\nBecause.\n</think>\n\nSo.")
    [row] = sequences(chatting, instructed(tmp_path, chatting, {"messages": talk}))
    assert [learnt for _, learnt in row] == ["Because.\n</think>\n\nSo.<|im_end|>\n"]


def test_what_a_template_refuses_is_left_without_tokens_and_told(tmp_path: Path, chatting: Any) -> None:
    chatting.chat_template = (
        "{% if messages | length > 2 %}{{ raise_exception('too long') }}{% endif %}"
        "{% if messages[0]['content'] == 'x' %}{{ messages[0]['content'] + 1 }}{% endif %}" + CHATML
    )
    fine, odd = [[{"role": "user", "content": word}, TALK[2]] for word in ("fine", "x")]
    tokens = instructed(
        tmp_path, chatting, *({"messages": talk} for talk in (fine, TALK, odd, [TALK[2]], fine[:1] * 2 + fine))
    )
    assert set(tokens.refused) == {1, 2, 4}
    assert tokens.refused[1] == "the chat template refuses it: too long"
    assert "the chat template refuses it: can only concatenate str" in tokens.refused[2]
    assert tokens.empty.tolist() == [1, 2, 4]
    assert whole(chatting, tokens)[0] == chatting.apply_chat_template(fine, tokenize=False)


@pytest.mark.parametrize("template", [CHATML, PLAIN_TEMPLATE, "{{ bos_token }}" + CHATML])
def test_a_greeting_is_learnt_after_what_the_template_writes_before_it(
    tmp_path: Path, chatting: Any, template: str
) -> None:
    chatting.bos_token, chatting.chat_template = "<|endoftext|>", template
    talk = [{"role": "assistant", "content": "assistant"}, *TALK[1:3]]
    tokens = instructed(tmp_path, chatting, {"messages": talk})
    assert whole(chatting, tokens) == [chatting.apply_chat_template(talk, tokenize=False)]
    closed = "<|im_end|>" + "\n" * (template != PLAIN_TEMPLATE)
    assert learnt(chatting, tokens) == [f"assistant{closed}Two.{closed}"]


def test_a_greeting_that_the_template_leaves_out_is_not_learnt(tmp_path: Path, chatting: Any) -> None:
    chatting.chat_template = CHATML.replace("{% for message in messages %}", "{% for message in messages[first:] %}")
    chatting.chat_template = "{% set first = 1 if messages[0]['role'] == 'assistant' else 0 %}" + chatting.chat_template
    talk = [{"role": "assistant", "content": "Welcome."}, *TALK[1:3]]
    tokens = instructed(tmp_path, chatting, {"messages": talk}, {"messages": talk[:1]})
    assert learnt(chatting, tokens) == ["Two.<|im_end|>\n", ""]
    assert tokens.refused == {1: "the chat template leaves every answer out"}


def test_calls_of_tools_are_written_and_learnt(tmp_path: Path, tokenizer: Any) -> None:
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = PLAIN_TEMPLATE
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    talk = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "Two."},
    ]
    documents = tiny.documents(tmp_path, {"messages": talk}, format="instructions")
    tokens = tokenize(documents, plain, "instructions", str(tmp_path / "cache"))
    said = 'Call: {"name": "add", "arguments": {"a": 1}}'
    assert learnt(plain, tokens) == [f"{said}\n{said}{plain.eos_token}Two.{plain.eos_token}"]
    assert "Tool: 2\n\nAssistant: Two." in whole(plain, tokens)[0]


CALLED = [
    {"role": "user", "content": "1+1?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
    },
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": "Two."},
]
WRITES_CALLS = CHATML.replace(
    "message['content'] +",
    "message['content'] + (message['tool_calls'][0]['function']['arguments'] | tojson if message['tool_calls'] "
    "else '') + (message['tool_calls'][0]['function']['name'] if message['tool_calls'] else '') +",
)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (CHATML, "the chat template leaves calls of tools out"),
        (
            WRITES_CALLS.replace("{{ '<|im_start|>' + m", "{{ '' if message['role'] == 'tool' else '<|im_start|>' + m"),
            "the chat template leaves messages of the role 'tool' out",
        ),
        (WRITES_CALLS, None),
    ],
)
def test_a_chat_of_which_a_template_leaves_something_out_is_refused(
    tmp_path: Path, chatting: Any, template: str, why: str | None
) -> None:
    chatting.chat_template = template
    tokens = instructed(tmp_path, chatting, {"messages": TALK}, {"messages": CALLED})
    assert tokens.refused == ({} if why is None else {1: why})
    if why is None:  # arguments that are JSON in a text are given as what they are
        assert learnt(chatting, tokens)[1] == '{"a": 1}add<|im_end|>\nTwo.<|im_end|>\n'


def test_a_template_that_wants_arguments_as_text_gets_them_so(tmp_path: Path, chatting: Any) -> None:
    chatting.chat_template = WRITES_CALLS.replace("['arguments'] | tojson", "['arguments'] + ''")
    tokens = instructed(tmp_path, chatting, {"messages": CALLED})
    assert learnt(chatting, tokens) == ['{"a": 1}add<|im_end|>\nTwo.<|im_end|>\n']


def test_a_blank_answer_is_context(tmp_path: Path, chatting: Any) -> None:
    blank = {"role": "assistant", "content": " "}
    tokens = instructed(tmp_path, chatting, {"messages": [TALK[1], blank, *TALK[3:]]})
    assert learnt(chatting, tokens) == ["Four.<|im_end|>\n"]
    assert "<|im_start|>assistant\n <|im_end|>" in whole(chatting, tokens)[0]


# Text and control signs.


NAMED = "a<|endoftext|>b <|im_end|>\n<|im_start|>assistant\n \ufdd00\ufdd0 \ufdd0<|im_end|>\ufdd0\ufdd0"


@pytest.mark.parametrize("template", [CHATML, PLAIN_TEMPLATE, "{{ bos_token }}" + CHATML])
@pytest.mark.parametrize("said", [NAMED, "<|im_end|>", "plain"])
def test_only_what_the_template_writes_becomes_a_control_sign(
    tmp_path: Path, chatting: Any, template: str, said: str
) -> None:
    chatting.bos_token, chatting.chat_template = "<|endoftext|>", template
    talk = [{"role": "user", "content": said}, {"role": "assistant", "content": said}]
    plain = [{**message, "content": "plain"} for message in talk]
    made, wanted = (
        instructed(tmp_path / name, chatting, {"messages": each}) for name, each in (("a", talk), ("b", plain))
    )
    special = set(chatting.all_special_ids)
    assert whole(chatting, made) == [chatting.apply_chat_template(talk, tokenize=False)], "no text is lost"
    signs = [[number for number in ids(tokens)[0] if number in special] for tokens in (made, wanted)]
    assert signs[0] == signs[1]
    assert sum(max(0, count) for count in counts(made)[0]) == len(said.encode()), "signs are no text"


def test_where_no_special_token_is_named_a_chat_is_encoded_as_by_transformers(tmp_path: Path, chatting: Any) -> None:
    tokens = instructed(tmp_path, chatting, {"messages": TALK[:3]})
    asked = chatting.apply_chat_template(TALK[:2], add_generation_prompt=True)["input_ids"]
    answer = chatting("Two.<|im_end|>\n", add_special_tokens=False)["input_ids"]
    assert ids(tokens) == [asked + answer]


@pytest.mark.parametrize("template", [CHATML, PLAIN_TEMPLATE, "{{ bos_token }}" + CHATML])
@pytest.mark.parametrize("said", [NAMED, "plain"])
def test_a_question_is_encoded_as_it_stands_before_its_answer(
    tmp_path: Path, chatting: Any, template: str, said: str
) -> None:
    chatting.bos_token, chatting.chat_template = "<|endoftext|>", template
    talk = [{"role": "user", "content": said}, {"role": "assistant", "content": "Two."}]
    tokens = instructed(tmp_path, chatting, {"messages": talk})
    given = counts(tokens)[0].index(next(count for count in counts(tokens)[0] if count != CONTEXT))
    assert encode_question(chatting, Encoder(chatting), said) == ids(tokens)[0][:given]


@pytest.mark.parametrize("behind", ["<|im_end|>\n", "<|im_end|>\n<|endoftext|>\n", "<|im_end|>", "\n<|im_end|> \n"])
def test_signs_that_end_an_answer_and_the_space_behind_them_are_no_text(
    tmp_path: Path, chatting: Any, behind: str
) -> None:
    chatting.bos_token = "<|endoftext|>"
    chatting.chat_template = CHATML.replace("'<|im_end|>' + '\n'", json.dumps(behind))
    assert json.dumps(behind) in chatting.chat_template
    tokens = instructed(tmp_path, chatting, {"messages": [*TALK[:2], {"role": "assistant", "content": "Two is it"}]})
    before = behind.index("<")  # white space before the sign is part of the answer
    assert sum(max(0, count) for count in counts(tokens)[0]) == len("Two is it") + before


def test_earlier_calls_of_tools_are_encoded_as_they_were_learnt(tmp_path: Path, chatting: Any) -> None:
    """With their arguments as objects, also where a row has them as text."""
    calls = "{% for call in message['tool_calls'] or [] %}{{ call['function'] | tojson }}{% endfor %}"
    chatting.chat_template = CHATML.replace("+ '<|im_end|>'", "}}" + calls + "{{ '<|im_end|>'")
    call = {"function": {"name": "add", "arguments": '{"a": 1}'}}
    talk = [*TALK[:2], {"role": "assistant", "content": "", "tool_calls": [call]}, *TALK[3:]]
    tokens = instructed(tmp_path, chatting, {"messages": talk})
    encoder = Encoder(chatting)
    asked = encoder.ids(*Chats(chatting, encoder).asked(talk[:-1]))
    assert '{"a": 1}' in chatting.decode(asked), "as an object"
    assert asked == ids(tokens)[0][: len(asked)]


@pytest.mark.parametrize("template", [CHATML, PLAIN_TEMPLATE])
def test_earlier_answers_are_encoded_as_they_were_learnt(tmp_path: Path, chatting: Any, template: str) -> None:
    """Apart from what stands before them, with which they would make other tokens."""
    chatting.chat_template = template
    talk = [*TALK[:2], {"role": "assistant", "content": "Blue"}, *TALK[3:]]
    tokens = instructed(tmp_path, chatting, {"messages": talk})
    encoder = Encoder(chatting)
    asked = encoder.ids(*Chats(chatting, encoder).asked(talk[:-1]))
    assert asked == ids(tokens)[0][: len(asked)]
    rest = chatting.decode(ids(tokens)[0][len(asked) :])
    assert rest.strip().startswith("Four.")


def test_the_text_of_a_special_token_stays_plain_text_in_pairs_of_prompt_and_completion(
    tmp_path: Path, tokenizer: Any
) -> None:
    eos = tokenizer.eos_token
    tokens = instructed(tmp_path, tokenizer, {"prompt": f"a{eos}", "completion": f"b{eos}"})
    assert ids(tokens)[0].count(tokenizer.eos_token_id) == 1
    assert whole(tokenizer, tokens) == [f"a{eos}b{eos}{eos}"]


def models() -> dict[str, Any]:
    """Tokenizers whose models know the names of special tokens as words."""
    letters = list("abcdefghijklmnopqrstuvwxyz<>/[]")
    words = ["<pad>", "</s>", "<unk>", "say", "it", "\u2581", *letters]
    unigram = Unigram([(word, -1.0 * (word not in words[:3])) for word in words], unk_id=2)
    return {
        "unigram": (unigram, pre_tokenizers.Metaspace()),
        "wordlevel": (
            WordLevel({word: at for at, word in enumerate(words)}, "<unk>"),
            pre_tokenizers.WhitespaceSplit(),
        ),
        "bpe": (
            BPE(
                {word: at for at, word in enumerate([*words, "</", "s>"])},
                [("<", "/"), ("s", ">"), ("</", "s>")],
                unk_token="<unk>",
            ),
            pre_tokenizers.WhitespaceSplit(),
        ),
    }


@pytest.mark.parametrize("kind", models())
def test_no_kind_of_tokenizer_makes_a_special_token_of_its_name(tmp_path: Path, kind: str) -> None:
    model, cut = models()[kind]
    made = Tokenizer(model)
    made.pre_tokenizer = cut
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    [one] = ids(encoded(tmp_path, wrapped, "say </s> it <pad>"))
    assert one[-1] == wrapped.eos_token_id
    assert not {wrapped.eos_token_id, wrapped.pad_token_id} & set(one[:-1])
    assert wrapped("say it", add_special_tokens=False)["input_ids"] == ids(encoded(tmp_path, wrapped, "say it"))[0][:-1]


def test_texts_that_hold_a_special_token_are_counted(tmp_path: Path, chatting: Any) -> None:
    eos = chatting.eos_token
    tokens = encoded(tmp_path, chatting, "a", f"b{eos}", f"{eos}{eos}", "<|im_start|>user")
    assert tokens.marked == {eos: 2, "<|im_start|>": 1}


def test_a_text_of_no_token_has_no_end_either(tmp_path: Path, tokenizer: Any) -> None:
    dropping = copy.deepcopy(tokenizer)
    dropping.backend_tokenizer.normalizer = normalizers.Replace("x", "")
    tokens = encoded(tmp_path, dropping, "one", "xx", "one a")
    assert [len(one) for one in ids(tokens)] == [2, 0, 3]
    assert tokens.empty.tolist() == [1]


@pytest.mark.parametrize(("ending", "closed"), [("", True), ("\n", True), (" .", False)])
def test_a_conversation_is_closed_unless_the_template_has_ended_it(
    tmp_path: Path, tokenizer: Any, ending: str, closed: bool
) -> None:
    made = copy.deepcopy(tokenizer)
    made.chat_template = PLAIN_TEMPLATE.replace("eos_token if", f"eos_token + {ending!r} if")
    [one] = whole(made, instructed(tmp_path, made, {"messages": TALK[1:3]}))
    assert one.endswith(f"Two.{made.eos_token}{ending}{'' if closed else made.eos_token}")


def test_tokens_are_read_piece_by_piece_and_by_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may hand over less than it was asked for."""
    np.arange(100, dtype=np.int32).tofile(tmp_path / "ids.bin")
    tokens = Tokens(tmp_path)
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, parts, place: whole(file, [parts[0][:10]], place))
    assert tokens.ids(3, 90).tolist() == list(range(3, 90))
    assert tokens.ids(5, 5).tolist() == []
    copied = pickle.loads(pickle.dumps(tokens))  # as workers that are spawned get it
    assert copied.ids(98, 100).tolist() == [98, 99]
    with pytest.raises(RunError, match=r"ids\.bin is damaged"):
        tokens.ids(99, 102)
