"""Chats, or prompts and answers: the answers alone are learnt."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from domaintune.config.schema import DataConfig
from domaintune.data.chats import ask, has_form, no_instruction, not_learnt, read_instruction
from domaintune.data.chatting import Chats, Segment
from domaintune.data.encoder import CONTEXT, SIGN, Encoded, Encoder, Ids, specials_of
from domaintune.data.fields import Fields, Format, Record
from domaintune.data.formats.text import TEXT


class InstructionsFormat(Format):
    """`prompt` and `completion`, or `messages`."""

    name = "instructions"

    def parse(self, row: dict[str, Any], fields: Fields) -> Record:
        return read_instruction(row, fields)

    def given(self, record: dict[str, Any]) -> str:
        """Of a chat all that is said but for system prompts, which are often the same in all."""
        turns = [turn["content"] for turn in record.get("messages", ()) if turn["role"] != "system"]
        return " ".join(turns or record.values())

    def unused(self, record: dict[str, Any]) -> int:
        return not_learnt(record)

    def no_column(self, row: Iterable[Any], fields: Fields) -> str:
        return no_instruction(row, fields)

    def lacks(self, columns: Iterable[str], fields: Fields) -> bool:
        return not has_form(columns, fields)

    def settings(self, fields: Fields) -> list[object]:
        return [fields.roles]

    def asking(self, config: DataConfig, text_column: str | None) -> tuple[Format, str]:
        return (QUESTIONS, config.text_column) if text_column is None else (TEXT, text_column)

    def encode_documents(self, records: list[Any], first: int, tokenizer: Any, encoder: Encoder) -> Encoded:
        """The tokens of each record, with CONTEXT in place of byte counts outside the answers.

        What the tokenizer puts before a text stands before a prompt. Before a chat stands what its template writes.

        Args:
            first: the number of the first record.
        """
        chats, rows, openings, refused = Chats(tokenizer, encoder), [], [], {}
        before = specials_of(tokenizer).before
        for number, record in enumerate(records, first):
            try:
                rows.append(_sequences(record, chats))
                openings.append(before if "prompt" in record else _NOTHING[0])
            except ValueError as error:
                rows.append([])
                openings.append(_NOTHING[0])
                refused[number] = str(error)
        every = [segment for row in rows for sequence in row for segment in sequence]
        ids, counts, lengths = encoder.encode([segment.text for segment in every])
        cuts = np.cumsum(lengths)[:-1]
        parts = iter(zip(np.split(ids, cuts), np.split(counts, cuts), strict=True))
        joined = [
            [_whole(sequence, parts, tokenizer, opening, encoder) for sequence in row]
            for row, opening in zip(rows, openings, strict=True)
        ]
        flat = [sequence for row in joined for sequence in row] or [_NOTHING]
        return Encoded(
            ids=np.concatenate([one for one, _ in flat]),
            counts=np.concatenate([one for _, one in flat]),
            lengths=np.array([sum(len(one) for one, _ in row) for row in joined], dtype=np.int64),
            sequences=np.array([len(one) for row in joined for one, _ in row], dtype=np.int64),
            refused=refused,
        )


_NOTHING = (np.empty(0, np.int32), np.empty(0, np.int32))


def _sequences(row: dict[str, Any], chats: Chats) -> list[list[Segment]]:
    """What of a row is given and what is learnt.

    A prompt and its completion are joined as they are, since a person who wants a space or a line end between them
    has put it there. The parts are encoded apart, as a prompt is when the model is used.
    """
    if "prompt" in row:
        return [[Segment(row["prompt"], learnt=False), Segment(row["completion"])]]
    return chats.sequences(row["messages"])


def _whole(
    sequence: list[Segment], parts: Iterator[tuple[Ids, Ids]], tokenizer: Any, opening: Ids, encoder: Encoder
) -> tuple[Ids, Ids]:
    """The next parts joined behind `opening`, closed by an end-of-text token unless the template has ended with one."""
    found = [(opening, np.full_like(opening, CONTEXT))]
    found += [
        (ids, _of_answer(segment.text, ids, counts, encoder) if segment.learnt else np.full_like(counts, CONTEXT))
        for segment, (ids, counts) in zip(sequence, parts, strict=False)
    ]
    if not sequence[-1].text.rstrip().endswith(f"{SIGN}{tokenizer.eos_token}"):
        closing = 0 if sequence[-1].learnt else CONTEXT
        found.append((np.array([tokenizer.eos_token_id], np.int32), np.array([closing], np.int32)))
    return np.concatenate([ids for ids, _ in found]), np.concatenate([counts for _, counts in found])


def _of_answer(text: str, ids: Ids, counts: Ids, encoder: Encoder) -> Ids:
    """The counts without the white space that a template writes behind the signs that end an answer."""
    if ending := encoder.ending.search(text):
        signs = np.flatnonzero(np.isin(ids, list(encoder.special.values())))
        counts = counts.copy()
        counts[signs[-ending[0].count(SIGN)] :] = 0
    return counts


class QuestionsFormat(InstructionsFormat):
    """Rows that a trained model is asked about; an answer need not be there."""

    is_text = True

    def parse(self, row: dict[str, Any], fields: Fields) -> Record:
        return ask(row, fields)

    def lacks(self, columns: Iterable[str], fields: Fields) -> bool:
        return False


INSTRUCTIONS, QUESTIONS = InstructionsFormat(), QuestionsFormat()
