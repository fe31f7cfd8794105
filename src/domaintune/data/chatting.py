"""Conversations -> what a model is given and what it learns, written by the tokenizer's chat template.

What the template writes is told from what people wrote: only a name that the template itself writes is a control sign.
"""

import json
import re
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple, TypeVar

from domaintune.data.cells import json_of
from domaintune.data.chats import is_answer
from domaintune.data.encoder import SIGN, Encoder, specials_of

# For instructions where the tokenizer has no chat template of its own; saved with the model, so that
# `apply_chat_template` writes the same. `User: ...`, `Assistant: ...`, each turn closed by a blank line.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].capitalize() + ': ' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ ('\n' if message['content'] or not loop.first else '') + 'Call: ' + (call['function'] or call) | tojson }}"
    "{% endfor %}"
    "{{ eos_token if message['role'] == 'assistant' else '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
NONCHARACTER = "\ufdd0"  # Unicode gives it to programs for their own use
OPENED = re.compile(rf"{SIGN}?<(\w+)>\s*")  # a part of an answer that a generation prompt begins, as <think>

T = TypeVar("T")
Message = dict[str, Any]


def plain_template(tokenizer: Any) -> str:
    """PLAIN_TEMPLATE behind what the tokenizer puts before a text, which nobody adds to what a template has written."""
    before = "".join(tokenizer.convert_ids_to_tokens(specials_of(tokenizer).before.tolist()))
    return f"{{{{ {json.dumps(before, ensure_ascii=False)} }}}}" * bool(before) + PLAIN_TEMPLATE


class Segment(NamedTuple):
    """A part of a document that is encoded by itself, with SIGN before each control sign.

    Attributes:
        learnt: whether its tokens have labels.
    """

    text: str
    learnt: bool = True


class Chats:
    """Writes conversations by a tokenizer's chat template."""

    def __init__(self, tokenizer: Any, encoder: Encoder) -> None:
        self.tokenizer, self.encoder = tokenizer, encoder
        self._unwritten: dict[tuple[Any, ...], str | None] = {}  # {shape of a conversation: what isn't written of it}

    def asked(self, messages: list[Message]) -> list[str]:
        """Messages that wait for their answer, as they stand before the answer in training: parts to encode apart.

        Raises:
            ValueError: the template refuses them.
        """
        return _in_either_form(self._asked, messages)

    def _asked(self, messages: list[Message]) -> list[str]:
        conversation = _Conversation(self, messages)
        parts, written, asked = [], "", conversation.asked(len(messages))
        try:
            earlier = conversation.answers()
        except ValueError:  # of a conversation that training would refuse
            return [asked]
        for before, answer in earlier:
            if not before.startswith(written):
                return [asked]
            parts += [before[len(written) :], answer]
            written = before + answer
        return [*parts, asked[len(written) :]] if asked.startswith(written) else [asked]

    def sequences(self, messages: list[Message]) -> list[list[Segment]]:
        """What of a conversation is given and what is learnt: each answer of the assistant with the sign of its end.

        A context is encoded apart from the answer, as it is when the model is used. Turns after the last answer are
        left out. A template that writes earlier turns otherwise than they were generated (without their thoughts, for
        example) makes of each answer a sequence of its own, after what the model is given at that turn.

        Arguments of calls that are written as JSON in a text are given to the template as objects; where it refuses
        these, as they are.

        Raises:
            ValueError: the template refuses the conversation, or leaves messages or calls of tools out.
        """
        return _in_either_form(self._sequences, messages)

    def _sequences(self, messages: list[Message]) -> list[list[Segment]]:
        conversation = _Conversation(self, messages)
        last = max(number for number, message in enumerate(messages) if is_answer(message))
        self._check_written(messages[: last + 1])
        pairs = conversation.answers()
        if not pairs:
            raise ValueError("the chat template leaves every answer out")
        found, written = [], ""
        for asked, answer in pairs:
            if not asked.startswith(written):
                return [[Segment(asked, learnt=False), Segment(answer)] for asked, answer in pairs]
            found += [Segment(asked[len(written) :], learnt=False), Segment(answer)]
            written = asked + answer
        return [found]

    def _check_written(self, messages: list[Message]) -> None:
        """Raises ValueError where the template leaves something out: it looks at roles, not at what is said."""
        shape = tuple(
            (message["role"], bool(message["content"].strip()), len(message.get("tool_calls", ())))
            for message in messages
        )
        if shape not in self._unwritten:
            self._unwritten[shape] = _Conversation(self, messages).unwritten()
        if unwritten := self._unwritten[shape]:
            raise ValueError(f"the chat template leaves {unwritten} out")

    def end_of_turn(self) -> int | None:
        """The token that the template writes behind an answer; None where it writes none.

        It need not be a special one: an added token of its own ends a turn as well.
        """
        behind = self.behind_answer()
        special = self.encoder.first_special(behind)
        added = self.tokenizer.get_added_vocab().get(behind.replace(SIGN, "").strip())
        return added if special is None else special

    def behind_answer(self) -> str:
        """What the template writes behind an answer, with SIGN before special tokens; empty where there is none."""
        talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
        try:
            return _Conversation(self, talk).around(1)[1] if self.tokenizer.chat_template is not None else ""
        except ValueError:
            return ""


def stop_ids(tokenizer: Any, model: Any) -> list[int]:
    """The tokens that end what a model writes.

    The tokenizer's end-of-text token, what the checkpoint's own generation config names, and what its chat template
    writes behind an answer.
    """
    own = getattr(model.generation_config, "eos_token_id", None)
    named = own if isinstance(own, list) else [own]
    found = dict.fromkeys([tokenizer.eos_token_id, *named, Chats(tokenizer, Encoder(tokenizer)).end_of_turn()])
    size = model.get_input_embeddings().num_embeddings  # the default of a config may lie beyond
    return [number for number in found if number is not None and number < size]


class _Conversation:
    """Messages in which names of special tokens are put out of the template's sight while it writes."""

    def __init__(self, chats: Chats, messages: list[Message]) -> None:
        self.chats = chats
        # As many noncharacters as stand nowhere in the messages.
        text = json.dumps(messages, ensure_ascii=False)
        self.mark = next(mark for many in count(1) if (mark := NONCHARACTER * many) not in text)
        self.hidden: list[str] = []
        self.messages = [
            {key: value if key == "role" else _changed(value, self._hide) for key, value in message.items()}
            for message in messages
        ]

    def _hide(self, text: str) -> str:
        def placeholder(found: re.Match[str]) -> str:
            self.hidden.append(found[0])
            return f"{self.mark}{len(self.hidden) - 1}{self.mark}"

        return self.chats.encoder.names.sub(placeholder, text)

    def _shown(self, text: str) -> str:
        return re.sub(f"{self.mark}(\\d+){self.mark}", lambda found: self.hidden[int(found[1])], text)

    def _rendered(self, messages: list[Message], asks: bool) -> str:
        from jinja2.exceptions import TemplateError

        try:
            text = str(self.chats.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks))
        except (TemplateError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"the chat template refuses it: {error}") from error
        return self._shown(self.chats.encoder.signed(text))

    def unwritten(self) -> str | None:
        """What the template leaves out, in words: messages in which something stands, or calls; None where nothing.

        A greeting may be missing, and so may thoughts, which a template knows by their signs.
        """
        wanted: dict[str, str] = {}

        def noted(what: str) -> str:
            sign = f"{self.mark}+{len(wanted)}{self.mark}"
            wanted[sign] = what
            return sign

        messages = []
        for number, message in enumerate(self.messages):
            greets = number == 0 and message["role"] == "assistant"
            new = dict(message)
            if message["content"].strip() and not greets:
                new["content"] = noted(f"messages of the role {message['role']!r}")
            if message.get("tool_calls"):
                new["tool_calls"] = [_with_name(call, noted("calls of tools")) for call in message["tool_calls"]]
            messages.append(new)
        written = self._rendered(messages, False)
        return next((what for sign, what in wanted.items() if sign not in written), None)

    def asked(self, number: int) -> str:
        """What the model is given before message `number`."""
        return self._rendered(self.messages[:number], True)

    def around(self, number: int) -> tuple[str, str]:
        """What the template writes before and behind the content of message `number` where it is the last.

        Raises:
            ValueError: it doesn't write the content.
        """
        blank = f"{self.mark}-{self.mark}"
        written = self._rendered([*self.messages[:number], {**self.messages[number], "content": blank}], False)
        before, found, behind = written.partition(blank)
        if not found:
            raise ValueError("the chat template leaves an answer out")
        return before, behind

    def answers(self) -> list[tuple[str, str]]:
        """What is given before each answer of the assistant, and the answer."""
        numbers = [number for number, message in enumerate(self.messages) if is_answer(message)]
        return [pair for number in numbers if (pair := self.answer(number)) is not None]

    def answer(self, number: int) -> tuple[str, str] | None:
        """What is given before an answer, and the answer as it is generated. None of a greeting that isn't written."""
        answered = self._rendered(self.messages[: number + 1], False)
        if number == 0:  # nobody asks: what the template writes before a greeting is what it is given
            try:
                asked = self.around(0)[0]
            except ValueError:
                return None
        else:
            asked = self.asked(number)
        if answered.startswith(asked):
            return asked, answered[len(asked) :]
        return asked, self._generated(number, asked, answered)

    def _generated(self, number: int, asked: str, answered: str) -> str:
        """An answer behind a generation prompt that the template does not write before it when it is given.

        Where the prompt opens a part of the answer, as `<think>`, the answer's own thoughts follow, or it is closed.
        """
        before, behind = self.around(number)
        if not answered.startswith(before):
            raise ValueError("the chat template asks for an answer otherwise than it writes it")
        opened = OPENED.fullmatch(asked.removeprefix(before)) if asked.startswith(before) else None
        if opened is None:
            return answered[len(before) :]
        content, closing = str(self.messages[number]["content"]), f"</{opened[1]}>"
        if closing in content:
            return self._shown(content.strip().removeprefix(f"<{opened[1]}>").lstrip("\n")) + behind
        return f"\n{self.chats.encoder.signed(closing)}\n\n{answered[len(before) :]}"


def _function_of(call: Any) -> Any:
    """The part of a call that holds its name and its arguments."""
    return call["function"] if isinstance(call, dict) and isinstance(call.get("function"), dict) else call


def _with_function(call: Any, function: Any) -> Any:
    return function if _function_of(call) is call else {**call, "function": function}


def _with_name(call: Any, name: str) -> Any:
    """A call of another tool."""
    function = _function_of(call)
    return _with_function(call, {**function, "name": name}) if isinstance(function, dict) else name


def _in_either_form(write: Callable[[list[Message]], T], messages: list[Message]) -> T:
    """What `write` makes of messages with the arguments of calls as objects, or where it refuses these, as text."""
    parsed = [_with_parsed_arguments(message) for message in messages]
    try:
        return write(parsed)
    except ValueError:
        if parsed == messages:
            raise
        return write(messages)


def _with_parsed_arguments(message: Message) -> Message:
    """A message whose calls have objects as arguments where these are objects in JSON."""
    calls = message.get("tool_calls")
    return {**message, "tool_calls": [_parsed(call) for call in calls]} if calls else message


def _parsed(call: Any) -> Any:
    function = _function_of(call)
    written = function.get("arguments") if isinstance(function, dict) else None
    arguments = json_of(written) if isinstance(written, str) else None
    return _with_function(call, {**function, "arguments": arguments}) if isinstance(arguments, dict) else call


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """A value of JSON with every string in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(each, change) for each in value]
    if isinstance(value, dict):
        return {change(key): _changed(each, change) for key, each in value.items()}
    return value
