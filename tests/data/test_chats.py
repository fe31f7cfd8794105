"""Instructions in the forms that people have them in."""

import json
from typing import Any

import pytest

from domaintune.config.schema import DataConfig
from domaintune.data.chats import role_of
from domaintune.data.formats.choosing import fields_of
from domaintune.data.left_out import RowError
from domaintune.data.rows import Row, row_of


def read(row: Any, **settings: Any) -> Row:
    return row_of(1, row, fields_of(DataConfig(path="a.jsonl", format="instructions", **settings)))


def said(row: Any, **settings: Any) -> Any:
    """The document of a row: role and content of each message, or the pair."""
    found = read(row, **settings)
    assert found.record is not None, (found.reason, found.why)
    made = found.record
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


def test_a_text_that_looks_like_messages_is_one_only_where_roles_and_contents_are_known() -> None:
    for completion in ('[{"name": "Bob"}]', '[{"from": "Bob", "value": "hi"}]', '[{"role": "user"}]', "[1, 2]"):
        row = {"prompt": '[{"temp": 3}]', "completion": completion}
        assert said(row) == row
        assert said({"instruction": "a", "output": completion})[1] == ("assistant", completion)


def test_columns_that_a_person_names_go_first() -> None:
    named = {"prompt": "question", "completion": "answer"}
    row = {"question": "q", "answer": "a", **FORMS["messages"]}
    assert said(row, columns=named) == {"prompt": "q", "completion": "a"}
    row = {"q": "2+2?", "output": "4", "prompt": "no", "completion": "no"}
    assert said(row, columns={"instruction": "q"}) == ASKED


@pytest.mark.parametrize("other", [{"conversation": 17}, {"conversation": "c-17"}, {"messages": []}, {"messages": {}}])
def test_another_column_in_which_no_messages_stand_is_no_form(other: dict[str, Any]) -> None:
    assert said({"prompt": "p", "completion": "c", **other}) == {"prompt": "p", "completion": "c"}
    assert said({**other, "conversations": FORMS["ShareGPT"]["conversations"]}) == ASKED


def test_what_stands_beside_a_question_is_not_what_is_asked() -> None:
    assert said({"instruction": "Who?", "context": "Bob came.", "response": "Bob"}) == [
        ("user", "Who?\n\nBob came."),
        ("assistant", "Bob"),
    ]
    assert said({"input": "2+2?", "output": "4"}) == ASKED
    row = {"question": "no", "what": "2+2?", "output": "4"}
    assert said(row, columns={"input": "what"}) == ASKED


@pytest.mark.parametrize("name", ["system", "system_prompt", "rules"])
@pytest.mark.parametrize("form", ["messages", "ShareGPT", "Alpaca", "prompt and completion of TRL", "a pair"])
def test_a_system_prompt_in_a_column_stands_before_every_form(name: str, form: str) -> None:
    row = {"prompt": "2+2?", "completion": "4"} if form == "a pair" else FORMS[form]
    columns = {"system": "rules"} if name == "rules" else {}
    assert said({**row, name: "Be short."}, columns=columns) == [("system", "Be short."), *ASKED]
    without = row if form == "a pair" else ASKED
    assert said({**row, name: " "}, columns=columns) == without


def test_a_system_message_is_taken_before_a_column() -> None:
    chat = [turn("system", "Mine."), *(turn(*each) for each in ASKED)]
    row = {"messages": chat, "system": "Other.", "history": [["a", "b"]]}
    assert said(row) == [("system", "Mine."), ("user", "a"), ("assistant", "b"), *ASKED]


@pytest.mark.parametrize(
    "content",
    [
        ["2+2?"],
        [{"type": "text", "content": "2+2?"}],
        [{"type": "text", "value": "2+2?"}],
        [{"value": "2+2?"}],
        [{"type": "text", "text": "2+2?"}, {"type": "text", "text": None}],
    ],
)
def test_the_text_of_a_part_has_several_keys(content: list[Any]) -> None:
    assert said({"messages": [turn("user", content), turn("assistant", "4")]}) == ASKED


def test_one_call_as_it_was_written_once() -> None:
    call = {"name": "add", "arguments": '{"a": 2}'}
    for written in (call, json.dumps(call)):
        made = read({"messages": [turn("user", "2+2?"), turn("assistant", None, function_call=written)]})
        assert made.record["messages"][1]["tool_calls"] == [{"type": "function", "function": call}]


def test_null_says_nothing_like_an_empty_text() -> None:
    chat = [turn("user", "a"), turn("assistant", None), turn("tool", None), turn("user", None), turn("assistant", "b")]
    found = read({"messages": chat})
    assert found.record["messages"] == [{**each, "content": each["content"] or ""} for each in chat]
    assert found.unused == 1, "the blank answer"


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
        ({"messages": []}, "no answer", "nothing stands in 'messages'"),
        ({"conversations": 17}, "wrong type", "field 'conversations' must be a list of objects"),
        ({"messages": None}, "no answer", "nothing stands in 'messages'"),
        ({"messages": [turn("user", "a"), turn("gpt", " ")]}, "no answer", "every answer of the assistant is blank"),
        ({"prompt": "a", "completion": float("nan")}, "no answer", "nothing stands in 'completion'"),
        ({"instruction": "a", "input": "b", "output": None}, "no answer", "nothing stands in 'output'"),
        ({"instruction": " ", "input": None, "output": "a"}, "blank", "nothing is asked; it has"),
        ({"instruction": "a"}, "missing field", "neither 'messages', nor 'prompt' and 'completion', nor "),
        ({"question": "a", "context": "b", "response": "c"}, "missing field", "neither 'messages', nor 'prompt'"),
        ({"prompt": "a", "input": "b", "output": "c"}, "missing field", "neither 'messages', nor 'prompt'"),
        ({"instruction": 5, "output": "a"}, "wrong type", "field 'instruction' must be a string, not int"),
        (
            {"messages": [turn("user", [{"type": "image_url", "image_url": "x"}]), turn("assistant", "a")]},
            "wrong type",
            "a message's 'content' has a part of type 'image_url'; only text is read",
        ),
        ({"messages": [turn("assistant", "a", tool_calls="no")]}, "wrong type", "a message's 'tool_calls' must be"),
        ({"messages": [turn("assistant", "", function_call="no")]}, "wrong type", "a message's 'function_call' must"),
        ({"messages": [turn("user", [{"type": "text", "txt": "a"}])]}, "missing field", "a part of a message's 'con"),
        ({"messages": [turn("user", None), turn("assistant", None)]}, "no answer", "every answer of the assistant is"),
        ({"messages": "[open]"}, "wrong type", "field 'messages' must be a list of objects"),
    ],
)
def test_rows_of_no_use_are_left_out_with_their_reason(row: dict[str, Any], reason: str, why: str) -> None:
    found = read(row)
    assert (found.record, found.reason) == (None, reason)
    assert found.why.startswith(why), found.why


def test_calls_of_tools_pass_through() -> None:
    calls = [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}]
    chat = [
        turn("user", "2+2?"),
        {"role": "assistant", "content": None, "tool_calls": calls},
        turn("function", "4", name="add", tool_call_id="x1"),
    ]
    found = read({"messages": chat})
    assert found.record["messages"] == [
        turn("user", "2+2?"),
        turn("assistant", "", tool_calls=calls),
        turn("tool", "4", name="add", tool_call_id="x1"),
    ]
    assert found.unused == 1
    plain = {"messages": [turn("user", "a", tool_calls=None, name=None), turn("assistant", "b", tool_calls=[])]}
    assert read(plain).record["messages"] == [turn("user", "a"), turn("assistant", "b")]


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
