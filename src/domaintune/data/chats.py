"""Instructions in the forms that people have them in -> a prompt and its completion, or a chat in canonical form.

Forms are, in the order in which a row is looked through for them:

- messages with `role` and `content`, or ShareGPT's `from` and `value`
- prompt and completion, each a string or a list of messages
- Alpaca's and Dolly's instruction, input and output
"""

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from domaintune.data.cells import checked, has, is_missing, json_of, list_in, not_blank, string_in, text_in
from domaintune.data.fields import Fields
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
PART_KEYS = ("text", "content", "value")  # of the text in a part
QUESTIONS = ("prompt", "question", "query")  # columns beside which `input` is not what is asked


def read_instruction(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """`prompt` and `completion`, or `messages`. Raises RowError where the row has no form of these."""
    forms = _forms(fields)
    for form in forms:
        if form.is_filled(row, fields):
            return form.read(row, fields)
    for form in forms:  # it has one in which something is missing: say what
        if form.is_there(row, fields):
            return form.read(row, fields)
    raise RowError(MISSING_FIELD, no_instruction(row, fields))


def ask(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """What a model is asked by a row whose answer need not be there: `prompt`, or `messages` that end before an answer.

    Raises:
        RowError: nothing is asked.
    """
    for form in _forms(fields):
        if (asked := form.ask(row, fields)) is not None:
            return asked
    raise RowError(*_nothing_asked(row, fields))


def _nothing_asked(row: dict[str, Any], fields: Fields) -> tuple[str, str]:
    """The reason, and the words about it."""
    known = [name for role in ("messages", "prompt", "instruction", "input") for name in fields.called(role)]
    if name := _present(row, known):
        return BLANK, f"nothing is asked in {name!r}"
    messages, prompt, instruction = (repr(fields.column(role)) for role in ("messages", "prompt", "instruction"))
    return MISSING_FIELD, f"no field {prompt}, {messages} or {instruction}; {has(row)}; set data.text_column"


def has_form(columns: Iterable[str], fields: Fields) -> bool:
    """Whether a table has the columns of one of the forms."""
    return any(form.is_there(dict.fromkeys(columns), fields) for form in FORMS)


def no_instruction(row: Iterable[Any], fields: Fields) -> str:
    """The message on a row, or the columns of a table, of no form."""
    prompt, completion, messages, instruction, output = (
        repr(fields.column(role)) for role in ("prompt", "completion", "messages", "instruction", "output")
    )
    forms = f"neither {messages}, nor {prompt} and {completion}, nor {instruction} and {output}"
    return f"{forms}; {has(row)}; set data.columns"


def not_learnt(row: dict[str, Any]) -> int:
    """How many messages of a chat nothing is learnt from: those after its last answer, and blank answers."""
    turns = row.get("messages", [])
    last = max((number for number, turn in enumerate(turns) if is_answer(turn)), default=-1)
    blank = sum(turn["role"] == "assistant" and not is_answer(turn) for turn in turns[: last + 1])
    return len(turns) - (last + 1) + blank


def is_answer(turn: Turn) -> bool:
    """Whether the assistant says something in a message, or calls a tool."""
    return turn["role"] == "assistant" and bool(turn.get("tool_calls") or not_blank(turn["content"]))


def _present(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in row), None)


def _filled(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of these fields in which something stands."""
    return next((name for name in names if not _is_empty(row.get(name))), None)


def _is_empty(value: object) -> bool:
    return is_missing(value) or value in ([], {}) or (isinstance(value, str) and not_blank(value) is None)


# The forms.


class _Form(NamedTuple):
    """A way to write instructions.

    Attributes:
        roles: of the columns that only this form has.
        is_there: whether a row has its columns.
        is_filled: whether something stands in them.
        read: what is learnt from. Raises RowError where something is missing or wrong.
        ask: what a model is given; None where nothing is asked.
    """

    roles: frozenset[str]
    is_there: Callable[[dict[str, Any], Fields], bool]
    is_filled: Callable[[dict[str, Any], Fields], bool]
    read: Callable[[dict[str, Any], Fields], dict[str, Any]]
    ask: Callable[[dict[str, Any], Fields], dict[str, Any] | None]


def _forms(fields: Fields) -> list[_Form]:
    """In the order in which they are looked for: first those whose columns a person has named."""
    renamed = {role for role, name in fields.columns if role != name}
    return sorted(FORMS, key=lambda form: not form.roles & renamed)


def _messages_column(row: Mapping[str, Any], fields: Fields) -> str | None:
    """The column of messages; under another name than the one that is set, only where it holds messages."""
    own, *others = fields.called("messages")
    found = [own, *(name for name in others if is_list_of_objects(row.get(name)))]
    return _filled(row, found)


def is_list_of_objects(value: Any) -> bool:
    found = list_in(value)
    return bool(found) and all(isinstance(each, dict) for each in found or ())


def _chat(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    name = _messages_column(row, fields) or _filled(row, fields.called("messages"))
    if name is None:
        raise RowError(NO_ANSWER, f"nothing stands in {_present(row, fields.called('messages'))!r}")
    chat = list_in(row[name])
    if chat is None or not all(isinstance(turn, dict) for turn in chat):
        raise RowError(WRONG_TYPE, f"field {name!r} must be a list of objects with role and content")
    return _answering(row, _read_turns(chat, fields), fields)


def _ask_in_chat(row: dict[str, Any], fields: Fields) -> dict[str, Any] | None:
    name = _messages_column(row, fields)
    messages = _messages_in(row[name], fields) if name else None
    if messages is None:
        return None
    turns = _read_turns(messages, fields)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    return _after_other_columns(row, turns, fields) if turns else None


def _is_pair(row: Mapping[str, Any], fields: Fields) -> bool:
    return fields.column("prompt") in row and fields.column("completion") in row


def _pair(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """A pair of strings as it is; with messages in it, or a system prompt or a history before it, it is a chat."""
    prompt, completion = fields.column("prompt"), fields.column("completion")
    if _is_chat(row, [prompt, completion], fields):
        asked, answered = _turns(row, prompt, "user", fields), _turns(row, completion, "assistant", fields)
        return _answering(row, [*asked, *answered], fields)
    asked_text = string_in(row, prompt, "") or ""
    return {"prompt": asked_text, "completion": text_in(row, completion, "", NO_ANSWER)}


def _ask_in_pair(row: dict[str, Any], fields: Fields) -> dict[str, Any] | None:
    prompt = fields.column("prompt")
    if _filled(row, [prompt]) is None:
        return None
    if _is_chat(row, [prompt], fields):
        turns = _turns(row, prompt, "user", fields)
        return _after_other_columns(row, turns, fields) if turns else None
    return {"prompt": string_in(row, prompt, "")}


def _is_chat(row: Mapping[str, Any], names: list[str], fields: Fields) -> bool:
    """Whether messages stand in these columns, or a system prompt or a history in another."""
    before = any(_filled(row, fields.called(role)) for role in ("system", "history"))
    return before or any(_messages_in(row[name], fields) for name in names)


def _messages_in(value: Any, fields: Fields) -> list[dict[str, Any]] | None:
    """The messages in a cell; None where there are none.

    A text is JSON of messages only where each has a content and a role that is known: else it is a text.
    """
    if not is_list_of_objects(value):
        return None
    found = list_in(value)
    if found is None or not isinstance(value, str):
        return found
    for turn in found:
        try:
            role_of(str(turn[_key(turn, "role", fields)]), fields.roles)
            _key(turn, "content", fields)
        except RowError:
            return None
    return found


def _turns(row: dict[str, Any], name: str, role: str, fields: Fields) -> list[Turn]:
    if messages := _messages_in(row[name], fields):
        return _read_turns(messages, fields)
    text = not_blank(string_in(row, name, ""))
    return [{"role": role, "content": text}] if text else []


def _question_columns(row: Mapping[str, Any], fields: Fields) -> list[str]:
    """The columns of what is asked: `instruction`, then `input`.

    What stands beside a question under another name, as Dolly's `context`, is none itself.
    """
    instruction = [name for name in fields.called("instruction") if name in row]
    own, *others = fields.called("input")
    elsewhere = own == "input" and any(name in row for name in QUESTIONS)
    alone = [] if elsewhere else [own]
    return [*instruction, *(name for name in ([own, *others] if instruction else alone) if name in row)]


def _is_answered(row: Mapping[str, Any], fields: Fields) -> bool:
    return bool(_question_columns(row, fields)) and _present(row, fields.called("output")) is not None


def _answered(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """Instruction, input and output."""
    question = _question(row, fields)
    output = _filled(row, fields.called("output")) or _present(row, fields.called("output"))
    answer = text_in(row, str(output), "", NO_ANSWER)
    if not question:
        raise RowError(BLANK, f"nothing is asked; {has(row)}")
    return _answering(row, [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], fields)


def _ask_to_answer(row: dict[str, Any], fields: Fields) -> dict[str, Any] | None:
    question = _question(row, fields)
    return _after_other_columns(row, [{"role": "user", "content": question}], fields) if question else None


def _question(row: dict[str, Any], fields: Fields) -> str:
    """The instruction, and the input behind it."""
    columns = _question_columns(row, fields)
    asked = [
        _filled(row, [name for name in fields.called(role) if name in columns]) for role in ("instruction", "input")
    ]
    parts = [not_blank(string_in(row, name, "")) for name in asked if name]
    return "\n\n".join(part for part in parts if part)


FORMS = (
    _Form(
        frozenset({"messages", "role", "content"}),
        lambda row, fields: _present(row, fields.called("messages")) is not None,
        lambda row, fields: _messages_column(row, fields) is not None,
        _chat,
        _ask_in_chat,
    ),
    _Form(
        frozenset({"prompt", "completion"}),
        _is_pair,
        lambda row, fields: _is_pair(row, fields) and _filled(row, [fields.column("completion")]) is not None,
        _pair,
        _ask_in_pair,
    ),
    _Form(
        frozenset({"instruction", "input", "output"}),
        _is_answered,
        lambda row, fields: (
            _is_answered(row, fields)
            and _filled(row, _question_columns(row, fields)) is not None
            and _filled(row, fields.called("output")) is not None
        ),
        _answered,
        _ask_to_answer,
    ),
)


def _system(row: Mapping[str, Any], fields: Fields) -> list[Turn]:
    name = _filled(row, fields.called("system"))
    return [{"role": "system", "content": string_in(row, name, "")}] if name else []


def _history(row: Mapping[str, Any], fields: Fields) -> list[Turn]:
    name = _filled(row, fields.called("history"))
    if name is None:
        return []
    history = list_in(row[name])
    if history is not None and all(isinstance(turn, dict) for turn in history):
        return _read_turns(history, fields)
    pairs = [list_in(pair) for pair in history or ()]
    if history is None or not all(pair is not None and len(pair) == 2 for pair in pairs):
        raise RowError(
            WRONG_TYPE, f"field {name!r} must be a list of messages, or of pairs of a question and its answer"
        )
    said = [(checked(text, f"a text in {name!r}"), place) for pair in pairs for place, text in enumerate(pair or ())]
    return [{"role": ("user", "assistant")[place], "content": text or ""} for text, place in said]


def _answering(row: Mapping[str, Any], turns: list[Turn], fields: Fields) -> dict[str, Any]:
    """A chat to learn from. Raises RowError where the assistant says nothing in it."""
    if not any(is_answer(turn) for turn in turns):
        roles = ", ".join(dict.fromkeys(turn["role"] for turn in turns))
        blank = "every answer of the assistant is blank"
        answers = any(turn["role"] == "assistant" for turn in turns)
        raise RowError(NO_ANSWER, blank if answers else f"the chat has no answer, only {roles or 'no message at all'}")
    return _after_other_columns(row, turns, fields)


def _after_other_columns(row: Mapping[str, Any], turns: list[Turn], fields: Fields) -> dict[str, Any]:
    """A chat with the system prompt and the history that stand in columns of their own before it."""
    own = 1 if turns[0]["role"] == "system" else 0
    system = turns[:own] or _system(row, fields)
    return {"messages": [*system, *_history(row, fields), *turns[own:]]}


# Messages.


def _read_turns(chat: list[dict[str, Any]], fields: Fields) -> list[Turn]:
    """The messages of a chat. Raises RowError naming all roles that are not known, or what is wrong with a message."""
    turns, unknown = [], []
    for turn in chat:
        try:
            read = _turn(turn, fields)
            if read["role"] != "system" or not_blank(read["content"]):  # of one in which nothing stands there is none
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
    found: Turn = {"role": role, "content": _content(turn, fields, bool(calls))}
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


def _content(turn: Mapping[str, Any], fields: Fields, calls: bool) -> str:
    """The text of a message; of one in which nothing stands, or that only calls tools, an empty string."""
    if calls and _filled(turn, fields.called("content")) is None:
        return ""
    name = _key(turn, "content", fields)
    content = turn[name]
    if is_missing(content):
        return ""
    if isinstance(content, list):
        return "".join(_part(part, name) for part in content)
    return checked(content, f"a message's {name!r}") or ""


def _part(part: Any, name: str) -> str:
    """The text of a part of a message's content."""
    if not isinstance(part, dict):
        return checked(part, f"a part of a message's {name!r}") or ""
    kind = part.get("type") or ("text" if _present(part, PART_KEYS) else next(iter(part), "nothing"))
    if kind not in TEXT_PARTS:
        raise RowError(WRONG_TYPE, f"a message's {name!r} has a part of type {kind!r}; only text is read")
    key = _filled(part, PART_KEYS) or _present(part, PART_KEYS)
    if key is None:
        raise RowError(MISSING_FIELD, f"a part of a message's {name!r} has no 'text'; {has(part)}")
    return checked(None if is_missing(part[key]) else part[key], f"a part of a message's {name!r}") or ""


def _calls(turn: Mapping[str, Any]) -> list[Any]:
    """The calls of tools in a message; `function_call` is how one call was written before there were several."""
    name = _filled(turn, ("tool_calls", "function_call"))
    if name is None:
        return []
    found: list[Any] | None
    if name == "tool_calls":
        found = list_in(turn[name])
    else:
        call = json_of(turn[name])
        found = [{"type": "function", "function": call}] if isinstance(call, dict) else None
    try:
        written = json.dumps(found, ensure_ascii=False)
        written.encode()
        found = json.loads(written)  # lists for tuples and texts for other keys, as a record lies on the disk
    except (TypeError, ValueError):
        found = None
    if found is None:
        kind = "a list" if name == "tool_calls" else "an object"
        raise RowError(WRONG_TYPE, f"a message's {name!r} must be {kind} that JSON can hold")
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
