"""Instructions in the forms that people have them in."""

import json
from typing import Any

import pytest

from domaintune.data.chats import role_of
from domaintune.data.fields import Fields
from domaintune.data.left_out import RowError
from domaintune.data.rows import Row, row_of
from domaintune.settings import DataConfig


def read(row: Any, **settings: Any) -> Row:
    return row_of(1, row, Fields.of(DataConfig(path="a.jsonl", format="instructions", **settings)))


def said(row: Any, **settings: Any) -> Any:
    """The document of a row: role and content of each message, or the pair."""
    found = read(row, **settings)
    assert found.text is not None, (found.reason, found.why)
    made = json.loads(found.text)
    return [(turn["role"], turn["content"]) for turn in made["messages"]] if "messages" in made else made


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ASKED = [("user", "2+2?"), ("assistant", "4")]

NAMES = {
    "user": "user User USER human Human prompter person customer 用戶 使用者 用户 ユーザー "
    "<|user|> Human: ｕｓｅｒ end_user",
    "assistant": "assistant Assistant gpt GPT chatgpt ChatGPT gpt-4 GPT-3.5-turbo model bot Bot ai AI AI_Assistant "
    "chatbot agent llm 助理 助手 アシスタント [assistant] function_call",
    "system": "system System SYSTEM developer 系統 系统",
    "tool": "tool function observation ipython environment function_response Tool-Result",
}


@pytest.mark.parametrize("role", NAMES)
def test_roles_are_known_by_their_meaning(role: str) -> None:
    assert {name: role_of(name) for name in NAMES[role].split()} == dict.fromkeys(NAMES[role].split(), role)
    assert role_of(" \t" + NAMES[role].split()[0] + "\n ") == role


def test_further_roles_are_named_by_a_setting() -> None:
    chat = {"messages": [turn("Narrator", "2+2?"), turn("Dr. Who", "4")]}
    assert said(chat, roles={"narrator": "user", "Dr. Who": "assistant"}) == ASKED
    assert role_of("bot", (("bot", "user"),)) == "user", "a person knows better"
    left_out = read(chat)
    assert left_out.reason == "unknown role"
    assert "'Narrator', 'Dr. Who' are none of user, assistant, system and tool" in left_out.why
    assert "'data.roles={narrator: user, dr who: assistant}'" in left_out.why
    alone = read({"messages": [turn("Narrator", "2+2?"), turn("assistant", "4")]})
    assert "'Narrator' is none of user, assistant, system and tool" in alone.why
    assert "'data.roles={narrator: user}'" in alone.why
    with pytest.raises(RowError):
        role_of("")


FORMS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [turn("user", "2+2?"), turn("assistant", "4")]},
    "other roles": {"messages": [turn("Human", "2+2?"), turn("gpt", "4")]},
    "ShareGPT": {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
    "conversation": {"conversation": [turn("user", "2+2?"), turn("assistant", "4")]},
    "speakers": {"messages": [{"speaker": "customer", "text": "2+2?"}, {"speaker": "agent", "text": "4"}]},
    "authors": {"messages": [{"author": "user", "text": "2+2?"}, {"author": "bot", "text": "4"}]},
    "Gemini": {
        "messages": [{"role": "user", "parts": [{"text": "2+2?"}]}, {"role": "model", "parts": [{"text": "4"}]}]
    },
    "both keys, one of them null": {
        "messages": [
            {"role": None, "content": None, "from": "human", "value": "2+2?"},
            {"role": "assistant", "content": "4", "from": None, "value": None},
        ]
    },
    "parts": {
        "messages": [
            turn("user", [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]),
            turn("assistant", [{"type": "text", "text": "4", "image_url": None}]),
        ]
    },
    "messages as JSON": {"messages": json.dumps([turn("user", "2+2?"), turn("assistant", "4")])},
    "messages as Python writes them": {"messages": str([turn("user", "2+2?"), turn("assistant", "4")])},
    "prompt and completion of TRL": {"prompt": [turn("user", "2+2?")], "completion": [turn("assistant", "4")]},
    "a prompt of messages": {"prompt": [turn("user", "2+2?")], "completion": "4"},
    "a completion of messages": {"prompt": "2+2?", "completion": [turn("assistant", "4")]},
    "Alpaca": {"instruction": "2+2?", "input": "", "output": "4", "text": "all of it"},
    "Alpaca without input": {"instruction": "2+2?", "output": "4"},
    "Alpaca, input null": {"instruction": "2+2?", "input": None, "output": "4"},
    "Alpaca, input NaN": {"instruction": "2+2?", "input": float("nan"), "output": "4"},
    "Dolly": {"instruction": "2+2?", "context": "", "response": "4", "category": "qa"},
    "Alpaca with empty messages": {"messages": None, "instruction": "2+2?", "output": "4"},
    "Alpaca in a table with empty columns": {
        "messages": "",
        "prompt": "",
        "completion": "",
        "instruction": "2+2?",
        "input": "",
        "output": "4",
    },
    "messages before the others": {
        "messages": [turn("user", "2+2?"), turn("assistant", "4")],
        "prompt": "no",
        "completion": "no",
        "instruction": "no",
        "output": "no",
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_chat(form: str) -> None:
    assert said(FORMS[form]) == ASKED


def test_a_pair_is_taken_before_instruction_and_output() -> None:
    both = {"prompt": "p", "completion": "c", "instruction": "no", "output": "no"}
    assert said(both) == {"prompt": "p", "completion": "c"}
    assert said({**both, "completion": None, "instruction": "2+2?", "output": "4"}) == ASKED


def test_instruction_input_system_and_history() -> None:
    row = {"instruction": "Translate.", "input": "Haus", "output": "house", "system": "Be short."}
    history = [["Hello?", "Hi."], ["And you?", "Fine."]]
    earlier = [("user", "Hello?"), ("assistant", "Hi."), ("user", "And you?"), ("assistant", "Fine.")]
    asked = [("user", "Translate.\n\nHaus"), ("assistant", "house")]
    assert said({**row, "history": history}) == [("system", "Be short."), *earlier, *asked]
    assert said({**row, "history": str(history), "system": " "}) == [*earlier, *asked]
    assert said({**row, "history": [], "system": None}) == asked
    assert said({"conversations": FORMS["ShareGPT"]["conversations"], "system": "Hm."}) == [("system", "Hm."), *ASKED]
    assert read({**row, "history": ["Hello?"]}).reason == "wrong type"


def test_columns_and_keys_have_names_of_their_own() -> None:
    chat = {"turns": [{"who": "user", "says": "2+2?"}, {"who": "assistant", "says": "4"}]}
    assert said(chat, columns={"messages": "turns", "role": "who", "content": "says"}) == ASKED
    row = {"task": "2+2?", "data": "", "solution": "4"}
    assert said(row, columns={"instruction": "task", "input": "data", "output": "solution"}) == ASKED
    assert read(chat, columns={"messages": "turns"}).why == (
        "a message has no 'role'; it has 'who', 'says'; set data.columns.role"
    )
    sharegpt = {"messages": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}
    assert read(sharegpt, columns={"role": "who"}).reason == "missing field"


@pytest.mark.parametrize(
    ("row", "reason", "why"),
    [
        ({"messages": [turn("user", "a")]}, "no answer", "the chat has no answer, only user"),
        ({"messages": []}, "no answer", "the chat has no answer, only no message at all"),
        ({"messages": None}, "no answer", "nothing stands in 'messages'"),
        ({"messages": [turn("user", "a"), turn("gpt", " ")]}, "no answer", "every answer of the assistant is blank"),
        ({"prompt": "a", "completion": float("nan")}, "no answer", "nothing stands in 'completion'"),
        ({"instruction": "a", "input": "b", "output": None}, "no answer", "nothing stands in 'output'"),
        ({"instruction": " ", "input": None, "output": "a"}, "blank", "nothing is asked; it has"),
        ({"instruction": "a"}, "missing field", "neither 'messages' nor both 'prompt' and 'completion'; it has"),
        ({"instruction": 5, "output": "a"}, "wrong type", "field 'instruction' must be a string, not int"),
        (
            {"messages": [turn("user", [{"type": "image_url", "image_url": "x"}]), turn("assistant", "a")]},
            "wrong type",
            "a message's content has a part of type 'image_url'; only text is read",
        ),
        ({"messages": [turn("assistant", "a", tool_calls="no")]}, "wrong type", "a message's 'tool_calls' must be"),
        ({"messages": "[open]"}, "wrong type", "field 'messages' must be a list of objects"),
    ],
)
def test_rows_of_no_use_are_left_out_with_their_reason(row: dict[str, Any], reason: str, why: str) -> None:
    found = read(row)
    assert (found.text, found.reason) == (None, reason)
    assert found.why.startswith(why), found.why


def test_calls_of_tools_pass_through() -> None:
    calls = [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}]
    chat = [
        turn("user", "2+2?"),
        {"role": "assistant", "content": None, "tool_calls": calls},
        turn("function", "4", name="add", tool_call_id="x1"),
    ]
    found = read({"messages": chat})
    assert json.loads(found.text or "")["messages"] == [
        turn("user", "2+2?"),
        turn("assistant", "", tool_calls=calls),
        turn("tool", "4", name="add", tool_call_id="x1"),
    ]
    assert found.unused == 1
    plain = {"messages": [turn("user", "a", tool_calls=None, name=None), turn("assistant", "b", tool_calls=[])]}
    assert json.loads(read(plain).text or "")["messages"] == [turn("user", "a"), turn("assistant", "b")]


def test_messages_after_the_last_answer_are_counted() -> None:
    chat = [turn("user", "2+2?"), turn("assistant", "4")]
    assert read({"messages": chat}).unused == 0
    assert read({"messages": [*chat, turn("user", "And 3+3?"), turn("user", "Hello?")]}).unused == 2
    assert read({"prompt": "a", "completion": "b"}).unused == 0


def test_an_assistant_may_speak_first() -> None:
    assert said({"messages": [turn("bot", "Hi!"), turn("human", "2+2?"), turn("bot", "4")]}) == [
        ("assistant", "Hi!"),
        *ASKED,
    ]


def test_names_that_are_only_signs_are_told_apart() -> None:
    chat = {"messages": [turn("👤", "2+2?"), turn("🤖", "4")]}
    assert said(chat, roles={"👤": "user", "🤖": "assistant"}) == ASKED
    assert "'data.roles={👤: user, 🤖: assistant}'" in read(chat).why


def test_a_number_names_a_role_and_advice_looks_at_the_other_sides() -> None:
    chat = {"messages": [turn(0, "2+2?"), turn(1, "4")]}  # type: ignore[arg-type]
    assert said(chat, roles={"0": "user", "1": "assistant"}) == ASKED
    assert "{the helper: assistant}" in read({"messages": [turn("user", "2+2?"), turn("The Helper", "4")]}).why


def test_a_system_message_in_which_nothing_stands_is_none() -> None:
    empty = turn("system", None)  # type: ignore[arg-type]
    assert said({"messages": [empty, *(turn(*each) for each in ASKED)]}) == ASKED


def test_messages_written_as_text_in_prompt_and_completion_are_messages() -> None:
    row = {"prompt": json.dumps([turn(*ASKED[0])]), "completion": json.dumps([turn(*ASKED[1])])}
    assert said(row) == ASKED
