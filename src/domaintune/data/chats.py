"""Instructions in the forms that people have them in -> a prompt and its completion, or a chat in canonical form.

Forms are, in the order in which a row is looked through for them:

- messages with `role` and `content`, or ShareGPT's `from` and `value`
- prompt and completion, each a string or a list of messages
- Alpaca's and Dolly's instruction, input and output
"""

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

from domaintune.data.cells import checked, has, is_missing, list_in, not_blank, string_in, text_in, type_name
from domaintune.data.fields import ALSO, Fields
from domaintune.data.left_out import BLANK, MISSING_FIELD, NO_ANSWER, UNKNOWN_ROLE, WRONG_TYPE, RowError

Turn = dict[str, Any]

# What the sides of a chat are called, in lower case, with a space for any other sign between words.
NAMES = {
    "user": "user usr human prompter person people customer client asker questioner question 用戶 用户 "
    "使用者 人類 人类 客戶 客户 提問者 提问者 ユーザー ユーザ 人間 質問者 사용자 "
    "benutzer nutzer utilisateur usuario usuário utente gebruiker пользователь",
    "assistant": "assistant asst gpt chatgpt model bot chatbot ai agent llm answer claude gemini bard bing llama "
    "助理 助手 機器人 机器人 模型 智能助手 アシスタント ボット 어시스턴트 assistent asistente assistente ассистент",
    "system": "system sys developer 系統 系统 システム 시스템 systeem sistema système система",
    "tool": "tool function observation ipython environment 工具 ツール 도구",
}
PHRASES = {
    "user": ("end user", "human user"),
    "assistant": ("ai assistant", "virtual assistant", "language model", "ai model", "function call", "tool call"),
    "system": ("system prompt", "system message"),
    "tool": ("tool response", "tool result", "tool output", "function response", "function result", "function output"),
}
KNOWN = {name: role for role, names in NAMES.items() for name in (*names.split(), *PHRASES[role])}
GPT = re.compile(r"(chat ?)?gpt( ?\d[a-z0-9]*)?( [a-z0-9]+)*")  # as GPT-4, gpt-3.5-turbo
TEXT_PARTS = ("text", "input_text", "output_text")


def instruction_in(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """`prompt` and `completion`, or `messages`. Raises RowError where the row has no form of these."""
    chat = _filled(row, fields.called("messages"))
    if chat is not None:
        return _chat(row, chat, fields)
    prompt, completion = fields.column("prompt"), fields.column("completion")
    is_pair = prompt in row and completion in row
    asked = [name for role in ("instruction", "input") for name in fields.called(role) if name in row]
    output = _filled(row, fields.called("output")) or _present(row, fields.called("output"))
    # Of a row with another form the question is not what is empty.
    is_answered = output is not None and bool(asked) and (prompt not in row or _filled(row, asked) is not None)
    if is_pair and (_filled(row, [completion]) or not is_answered):
        return _completion(row, prompt, completion, fields)
    if is_answered:
        return _answered(row, str(output), fields)
    if empty := _present(row, fields.called("messages")):
        raise RowError(NO_ANSWER, f"nothing stands in {empty!r}")
    raise RowError(MISSING_FIELD, no_instruction(row, fields))


def no_instruction(row: Iterable[Any], fields: Fields) -> str:
    """The message on a row, or the columns of a table, of no form."""
    prompt, completion, messages = (fields.column(role) for role in ("prompt", "completion", "messages"))
    return f"neither {messages!r} nor both {prompt!r} and {completion!r}; {has(row)}; set data.columns"


def after_last_answer(row: dict[str, Any]) -> int:
    """How many messages follow the last of the assistant: nothing is learnt from them."""
    roles = [turn["role"] for turn in row.get("messages", ())]
    return roles[::-1].index("assistant") if roles else 0


def _present(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in row), None)


def _filled(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of these fields in which something stands."""
    return next((name for name in names if not (is_missing(row.get(name)) or _is_blank(row[name]))), None)


def _is_blank(value: object) -> bool:
    return isinstance(value, str) and not_blank(value) is None


# The forms.


def _chat(row: dict[str, Any], name: str, fields: Fields) -> dict[str, Any]:
    chat = list_in(row[name])
    if chat is None or not all(isinstance(turn, dict) for turn in chat):
        raise RowError(WRONG_TYPE, f"field {name!r} must be a list of objects with role and content")
    turns = _read_turns(chat, fields)
    if name in ALSO["messages"] and not any(turn["role"] == "system" for turn in turns):
        turns = [*_system(row), *turns]
    return _answering(turns)


def _completion(row: dict[str, Any], prompt: str, completion: str, fields: Fields) -> dict[str, Any]:
    """A pair of strings as it is; where one of the two is a list of messages, both together are a chat."""
    if _messages_in(row[prompt]) or _messages_in(row[completion]):
        asked, answered = _turns(row, prompt, "user", fields), _turns(row, completion, "assistant", fields)
        return _answering([*asked, *answered])
    asked_text = string_in(row, prompt, "") or ""
    return {"prompt": asked_text, "completion": text_in(row, completion, "", NO_ANSWER)}


def _messages_in(value: Any) -> list[dict[str, Any]] | None:
    """The messages in a cell, also where they are written as text; None where there are none."""
    found = list_in(value)
    return found if found and all(isinstance(turn, dict) for turn in found) else None


def _turns(row: dict[str, Any], name: str, role: str, fields: Fields) -> list[Turn]:
    if messages := _messages_in(row[name]):
        return _read_turns(messages, fields)
    text = not_blank(string_in(row, name, ""))
    return [{"role": role, "content": text}] if text else []


def _answered(row: dict[str, Any], output: str, fields: Fields) -> dict[str, Any]:
    """Instruction, input and output; `system` and `history` stand before them."""
    asked = [_filled(row, fields.called(role)) for role in ("instruction", "input")]
    parts = [not_blank(string_in(row, name, "")) for name in asked if name]
    question = "\n\n".join(part for part in parts if part)
    answer = text_in(row, output, "", NO_ANSWER)
    if not question:
        raise RowError(BLANK, f"nothing is asked; {has(row)}")
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return _answering([*_system(row), *_history(row), *turns])


def _system(row: Mapping[str, Any]) -> list[Turn]:
    text = not_blank(string_in(row, "system", "")) if "system" in row else None
    return [{"role": "system", "content": text}] if text else []


def _history(row: Mapping[str, Any]) -> list[Turn]:
    if _filled(row, ["history"]) is None:
        return []
    history = list_in(row["history"])
    pairs = [list_in(pair) for pair in history or ()]
    if history is None or not all(pair is not None and len(pair) == 2 for pair in pairs):
        raise RowError(WRONG_TYPE, "field 'history' must be a list of pairs of a question and its answer")
    said = [(checked(text, "a text in 'history'"), place) for pair in pairs for place, text in enumerate(pair or ())]
    return [{"role": ("user", "assistant")[place], "content": text or ""} for text, place in said]


def _answering(turns: list[Turn]) -> dict[str, Any]:
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if not any(turn.get("tool_calls") or not_blank(turn["content"]) for turn in answers):
        roles = ", ".join(dict.fromkeys(turn["role"] for turn in turns))
        blank = "every answer of the assistant is blank"
        raise RowError(NO_ANSWER, blank if answers else f"the chat has no answer, only {roles or 'no message at all'}")
    return {"messages": turns}


# Messages.


def _read_turns(chat: list[dict[str, Any]], fields: Fields) -> list[Turn]:
    """The messages of a chat. Raises RowError naming all roles that are not known, or what is wrong with a message."""
    turns, unknown = [], []
    for turn in chat:
        try:
            read = _turn(turn, fields)
            if read["role"] != "system" or read["content"]:  # of one in which nothing stands there is none
                turns.append(read)
        except RowError as error:
            if error.reason != UNKNOWN_ROLE:
                raise
            unknown.append(str(turn[_key(turn, "role", fields)]))
    if unknown:
        raise RowError(UNKNOWN_ROLE, _about_unknown(unknown, {turn["role"] for turn in turns}))
    return turns


def _turn(turn: Mapping[str, Any], fields: Fields) -> Turn:
    calls = _calls(turn)
    name = turn[_key(turn, "role", fields)]
    named = checked(str(name) if type(name) is int else name, "a message's 'role'")
    if named is None:
        raise RowError(WRONG_TYPE, "a message's 'role' must be a string, not null")
    role = role_of(named, fields.roles)
    found: Turn = {"role": role, "content": _content(turn, fields, role, bool(calls))}
    if calls:
        found["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        if isinstance(turn.get(key), str) and (text := not_blank(checked(turn[key], f"a message's {key!r}"))):
            found[key] = text
    return found


def _key(turn: Mapping[str, Any], key: str, fields: Fields) -> str:
    """The name under which a role, or a content, stands in a message."""
    names = fields.called(key)
    name = _filled(turn, names) or _present(turn, names)
    if name is None:
        raise RowError(MISSING_FIELD, f"a message has no {names[0]!r}; {has(turn)}; set data.columns.{key}")
    return name


def _content(turn: Mapping[str, Any], fields: Fields, role: str, calls: bool) -> str:
    if calls and _filled(turn, fields.called("content")) is None:
        return ""
    content = turn[_key(turn, "content", fields)]
    if is_missing(content) and role == "system":
        return ""
    if is_missing(content):
        raise RowError(WRONG_TYPE, f"a message's 'content' must be a string, not {type_name(content)}")
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "".join(_part(part) for part in content)
    return checked(content, "field 'content'") or ""


def _part(part: Mapping[str, Any]) -> str:
    kind = part.get("type") or ("text" if "text" in part else next(iter(part), "nothing"))
    if kind not in TEXT_PARTS:
        raise RowError(WRONG_TYPE, f"a message's content has a part of type {kind!r}; only text is read")
    return checked(part.get("text"), "a part of a message's content") or ""


def _calls(turn: Mapping[str, Any]) -> list[Any]:
    calls = turn.get("tool_calls")
    if is_missing(calls) or _is_blank(calls) or calls == []:
        return []
    found = list_in(calls)
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        found = None
    if found is None:
        raise RowError(WRONG_TYPE, "a message's 'tool_calls' must be a list that JSON can hold")
    return found


@cache
def role_of(name: str, own: tuple[tuple[str, str], ...] = ()) -> str:
    """user, assistant, system or tool, by what a name means in any spelling.

    Args:
        own: names that a person gave besides, with their roles.

    Raises:
        RowError: the name is not known.
    """
    plain = _plain(name)
    role = {_plain(other): role for other, role in own}.get(plain) or KNOWN.get(plain)
    if role is None and not GPT.fullmatch(plain):
        raise RowError(UNKNOWN_ROLE, _about_unknown([name]))
    return role or "assistant"


def _about_unknown(names: list[str], known: Collection[str] = ()) -> str:
    """Says which names are not known, and which setting says what they are.

    Args:
        known: the roles that others of the chat have.
    """
    names = list({_plain(name): name for name in reversed(names)}.values())[::-1]
    listed = ", ".join(map(repr, names))
    what, are, it = ("the role", "is", "it is") if len(names) == 1 else ("the roles", "are", "they are")
    # Two sides that nobody named: the one that speaks first asks.
    roles = [role for role in ("user", "assistant") if role not in known] + ["system"] * len(names)
    pairs = [f"{_plain(name)}: {role}" for name, role in zip(names, roles, strict=False) if _plain(name)]
    advice = f"; data.roles says what {it}, as 'data.roles={{{', '.join(pairs)}}}'" if pairs else ""
    return f"{what} {listed} {are} none of user, assistant, system and tool, nor a name like human, gpt or bot{advice}"


def _plain(name: str) -> str:
    """In lower case, without signs around it, with one space between words."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    words = re.sub(r"[\W_]+", " ", re.sub(r"(?<=\d)\.(?=\d)", "", folded)).strip()
    return words or folded.strip()  # a name that is nothing but signs, as an emoji
