"""Data as people keep it: what other tools and other languages write, and what lies beside it."""

import json
import math
import random
import re
from pathlib import Path

from everyday import (
    GOOD,
    PEOPLE,
    PLACES,
    SETTINGS,
    SHORT,
    classes_of,
    documents_of,
    left_out,
    paragraph,
    question,
    result_of,
    review,
    scalars_of,
    tokens_of,
    works,
    write,
    write_csv,
    write_jsonl,
)
from families import save_family
from tokenizers import Tokenizer

END = "<|endoftext|>"


def notes_in(printed: str) -> list[str]:
    """The lines that warn of something without ending the run."""
    return [line for line in printed.splitlines() if line.startswith("note:")]


def labels_in(home: Path, name: str) -> set[str]:
    """The names that a run's exported model gives to what it tells apart."""
    config = json.loads((home / "logs" / "runs" / name / "export" / "config.json").read_text())
    return set(config["id2label"].values())


def decoded(shell, name: str) -> list[tuple[list[int], str]]:
    """Each document's token ids and their text, special tokens included, of the only run that used `cache`."""
    opened = Tokenizer.from_file(str(shell.home / "logs" / "runs" / name / "export" / "tokenizer.json"))
    return [(ids, opened.decode(ids, skip_special_tokens=False)) for ids in tokens_of(shell.home / "cache")]


def test_labels_are_lists_as_pandas_writes_them(shell, small_model):
    lists = [["warm", "local"], ["cold", "far"], ["warm"], ["cold", "far"]]
    rows = [(review(each), str(lists[each % 4])) for each in range(160)]
    write_csv(shell.home / "several.csv", "text,label", rows)
    line = f"python train.py model.checkpoint={small_model} data=sentiment data.path=several.csv name=one {SHORT}"
    printed = works(shell, line)
    read_as_lists = classes_of(shell.home, "one") == {"warm", "local", "cold", "far"}
    assert read_as_lists or any("list" in note for note in notes_in(printed))


def test_some_chats_begin_with_the_assistants_greeting(shell, small_model):
    greeting = {"role": "assistant", "content": "Hello! What would you like to know?"}
    chats = [{"messages": [greeting] * (each % 4 == 0) + question(each)} for each in range(80)]
    write_jsonl(shell.home / "chats.jsonl", chats)
    works(
        shell,
        f"python train.py model.checkpoint={small_model} data=instructions data.path=chats.jsonl name=one {SHORT}",
    )
    assert result_of(shell.home, "one")["data"]["documents_read"] == 80
    gone = left_out(shell.home, "one")
    assert sum(gone.values()) in (0, 20)
    assert documents_of(shell.home, "one") == 80 - sum(gone.values())


def test_chats_name_the_assistant_as_three_tools_do(shell, small_model):
    chats = [{"messages": question(each)} for each in range(90)]
    for number, chat in enumerate(chats):
        chat["messages"][1]["role"] = ("assistant", "gpt", "Assistant")[number % 3]
    write_jsonl(shell.home / "chats.jsonl", chats)
    works(
        shell,
        f"DOMAINTUNE_CACHE=cache python train.py model.checkpoint={small_model} data=instructions "
        f"data.path=chats.jsonl name=one {SHORT}",
    )
    assert result_of(shell.home, "one")["data"]["documents_read"] == 90
    assert left_out(shell.home, "one") == {}
    assert documents_of(shell.home, "one") == 90
    openings = {text.partition(", case")[2].partition("?")[2].partition(":")[0] for _, text in decoded(shell, "one")}
    assert openings == {"\n\nAssistant"}  # three spellings, written in one way


def test_chats_name_the_models_end_of_text(shell, small_model):
    chats = [{"messages": question(each)} for each in range(80)]
    for number, chat in enumerate(chats):
        chat["messages"][1]["content"] = f"With {END} behind the last word, number {number}."
    write_jsonl(shell.home / "chats.jsonl", chats)
    works(
        shell,
        f"DOMAINTUNE_CACHE=cache python train.py model.checkpoint={small_model} data=instructions "
        f"data.path=chats.jsonl name=one {SHORT}",
    )
    documents = decoded(shell, "one")
    assert len(documents) == 80
    for ids, text in documents:
        assert ids.count(0) == 1
        assert ids[-1] == 0
        assert text.count(END) == 2  # the person's stays text


def marked(shell) -> None:
    """Eighty records between the marks of other tools; three lack the mark at their end."""
    lines = [f"<|startoftext|>{paragraph(each, 2)}{END * (each % 30 != 7)}\n" for each in range(80)]
    write(shell.home / "marked.txt", "".join(lines))


def test_texts_end_with_the_models_own_mark(shell, small_model):
    marked(shell)
    printed = works(
        shell, f"python train.py model.checkpoint={small_model} data.path=marked.txt data.unit=line name=one {SHORT}"
    )
    assert re.search(r"(?<![\d.,])77(?![\d.,]*\d)", printed)
    assert "data.marks=end" in printed


def test_texts_end_with_the_models_own_mark_and_it_is_to_end_them(shell, small_model):
    marked(shell)
    works(
        shell,
        f"DOMAINTUNE_CACHE=cache python train.py model.checkpoint={small_model} data.path=marked.txt data.unit=line "
        f"data.marks=end name=one {SHORT}",
    )
    documents = decoded(shell, "one")
    assert len(documents) == 80
    for ids, text in documents:
        assert ids.count(0) == 1
        assert ids[-1] == 0
        assert text.count(END) == 1


def test_quotes_of_a_tsv_are_letters(shell, small_model):
    """As in the files of GLUE: one text begins with a quote, and another, four lines on, ends with one."""
    rows = [("bad" if each % 2 else "good", review(each)) for each in range(60)]
    rows[9] = ("bad", '"It begins well, wrote the clerk')
    rows[13] = ("bad", 'and it ends in the rain, wrote the clerk."')
    write(shell.home / "glue.tsv", "label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows))
    printed = works(
        shell, f"python train.py model.checkpoint={small_model} data=sentiment data.path=glue.tsv name=one {SHORT}"
    )
    assert result_of(shell.home, "one")["data"]["documents_read"] == 60
    assert documents_of(shell.home, "one") == 60
    assert "data.quoting" in printed


def french(number: int) -> list[tuple[str, str]]:
    """Words with tags: no-break spaces part thousands and stand inside quotation marks."""
    amount = f"{10 + number}\u00a0{number * 37 % 1000:03}"
    words = ["Prix", "de", "la", "lampe", "«\u202fneuve\u202f»", ":", amount, "euros"]
    return list(zip(words, "O O O B-objet I-objet O B-montant I-montant".split(), strict=True))


def write_conll(file: Path, sentences: list[list[tuple[str, str]]]) -> None:
    write(file, "\n".join("".join(f"{word} {tag}\n" for word, tag in sentence) for sentence in sentences))


def test_words_hold_no_break_spaces(shell, small_model):
    write_conll(shell.home / "french.conll", [french(each) for each in range(60)])
    works(
        shell, f"python train.py model.checkpoint={small_model} data=entities data.path=french.conll name=one {SHORT}"
    )
    assert documents_of(shell.home, "one") == 60
    assert classes_of(shell.home, "one") == {"O", "B-objet", "I-objet", "B-montant", "I-montant"}
    works(shell, "python scripts/predict.py run=one input=french.conll output=predicted.jsonl")
    lines = (shell.home / "predicted.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["tokens"] for line in lines] == [[word for word, _ in french(each)] for each in range(60)]


def test_a_no_break_space_is_a_word(shell, small_model):
    """It is kept as a word, or its sentence is left out and counted."""
    sentences = [french(each) for each in range(60)]
    for sentence in sentences[::4]:
        sentence[1] = ("\u00a0", "O")
    write_conll(shell.home / "french.conll", sentences)
    works(
        shell, f"python train.py model.checkpoint={small_model} data=entities data.path=french.conll name=one {SHORT}"
    )
    assert result_of(shell.home, "one")["data"]["documents_read"] == 60
    gone = sum(left_out(shell.home, "one").values())
    assert gone in (0, 15)
    assert documents_of(shell.home, "one") == 60 - gone


def test_pandas_wrote_whole_numbers_as_floats_since_some_are_missing(shell, small_model):
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = [None if each % 20 == 3 else float(each % 2) for each in range(160)]
    pq.write_table(pa.table({"text": [review(each) for each in range(160)], "label": labels}), shell.home / "a.parquet")
    works(shell, f"python train.py model.checkpoint={small_model} data=sentiment data.path=a.parquet name=one {SHORT}")
    assert classes_of(shell.home, "one") == {"0", "1"}
    assert result_of(shell.home, "one")["data"]["documents_read"] == 160
    assert left_out(shell.home, "one") == {"no label": 8}
    assert documents_of(shell.home, "one") == 152


def test_booleans_are_written_by_json_and_by_pandas(shell, small_model):
    write_jsonl(shell.home / "train.jsonl", [{"text": review(each), "label": each % 2 == 0} for each in range(160)])
    write_csv(shell.home / "val.csv", "text,label", [(review(each), each % 2 == 0) for each in range(2000, 2020)])
    works(
        shell,
        f"python train.py model.checkpoint={small_model} data=sentiment data.path=train.jsonl data.val_path=val.csv "
        f"name=one {SHORT}",
    )
    assert len(classes_of(shell.home, "one")) == 2
    assert classes_of(shell.home, "one", "val") == classes_of(shell.home, "one")


def test_a_missing_label_is_nan_in_json(shell, small_model):
    rows = [{"text": review(each), "label": math.nan if each == 5 else each % 2} for each in range(160)]
    write_jsonl(shell.home / "nan.jsonl", rows)
    assert "NaN" in (shell.home / "nan.jsonl").read_text()
    works(shell, f"python train.py model.checkpoint={small_model} data=sentiment data.path=nan.jsonl name=one {SHORT}")
    assert classes_of(shell.home, "one") == {"0", "1"}
    assert left_out(shell.home, "one") == {"no label": 1}
    (place,) = result_of(shell.home, "one")["data"]["left_out"]["no label"]["places"]
    assert place.endswith("nan.jsonl:6")


def test_labels_are_numbers_on_a_scale(shell, small_model):
    rows = [(review(each), f"{each * 7 % 51 / 10:.1f}") for each in range(200)]
    write_csv(shell.home / "ratings.csv", "text,label", rows)
    printed = works(
        shell, f"python train.py model.checkpoint={small_model} data=sentiment data.path=ratings.csv name=one {SHORT}"
    )
    numbers = [note for note in notes_in(printed) if "number" in note]
    every = {str(len(classes_of(shell.home, "one"))), "51"}
    assert any(each in note for note in numbers for each in every), printed


def test_a_parquet_file_of_the_hub_has_the_names_of_its_labels(shell, small_model):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    table = {"text": [review(each) for each in range(160)], "label": [(each + 1) % 2 for each in range(160)]}
    Dataset.from_dict(table, features=features).to_parquet(str(shell.home / "names.parquet"))
    works(
        shell, f"python train.py model.checkpoint={small_model} data=sentiment data.path=names.parquet name=one {SHORT}"
    )
    assert classes_of(shell.home, "one") == {"bad", "good"}
    assert labels_in(shell.home, "one") == {"bad", "good"}


def test_a_parquet_file_of_the_hub_has_the_names_of_its_tags(shell, small_model):
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    tags = Sequence(ClassLabel(names=["O", "B-person", "B-place"]))
    features = Features({"tokens": Sequence(Value("string")), "ner_tags": tags})
    draw = random.Random(0)
    sentences = [["The", draw.choice(PEOPLE), "saw", "the", draw.choice(PLACES), str(each)] for each in range(120)]
    table = {"tokens": sentences, "ner_tags": [[0, 1, 0, 0, 2, 0]] * 120}
    Dataset.from_dict(table, features=features).to_parquet(str(shell.home / "ner.parquet"))
    works(
        shell,
        f"python train.py model.checkpoint={small_model} data=entities data.path=ner.parquet "
        f"data.columns.tags=ner_tags name=one {SHORT}",
    )
    assert classes_of(shell.home, "one") == {"O", "B-person", "B-place"}
    assert labels_in(shell.home, "one") >= {"O", "B-person", "B-place"}


def test_a_folder_holds_other_kinds_of_files(shell, small_model):
    for number in range(30):
        write(shell.home / "mixed" / f"letter{number:02}.txt", paragraph(number))
    write(shell.home / "mixed" / "memoir.docx", b"PK\x03\x04" + bytes(range(256)) * 8)
    write(shell.home / "mixed" / "scan.pdf", b"%PDF-1.4\n" + bytes(range(256)) * 8)
    for ending in ("html", "log", "text", "rst", "tex", "py", "srt", "xml"):
        write(shell.home / "mixed" / f"other.{ending}", paragraph(900))
    printed = works(shell, f"python train.py model.checkpoint={small_model} data.path=mixed name=one {SHORT}")
    data = result_of(shell.home, "one")["data"]
    assert data["documents_read"] == 30
    assert sum(data["other_files"].values()) == 10
    assert data["other_files"][".docx"] == data["other_files"][".pdf"] == 1
    assert ".docx" in printed


def test_words_are_masked_in_texts_of_two_words_and_one_line_is_of_no_token(shell, tmp_path):
    """BERT's normalizer takes the line of zero-width characters away."""
    model, draw = save_family("bert", tmp_path / "bert"), random.Random(0)
    lines = [f"{draw.choice(GOOD)} {draw.choice(PLACES)} {number}" for number in range(80)]
    write(shell.home / "short.txt", "\n".join([*lines, "\u200b\u200d\u200b", "ok", ""]))
    settings = SETTINGS.replace("batch_size=8", "batch_size=1").replace("val_batches=2", "val_batches=8")
    printed = works(
        shell,
        f"python train.py data=masked data.path=short.txt data.unit=line model.checkpoint={model} name=one {settings} "
        f"trainer.max_steps=6 trainer.log_every_n_steps=1",
    )
    assert "scripts/predict.py" not in printed  # which refuses a masked language model
    result = result_of(shell.home, "one")
    losses = [result["metrics"][when]["val/loss"] for when in ("before", "after")]
    losses += [value for _, value in scalars_of(shell.home, "one")["train/loss"]]
    assert len(losses) == 8
    assert all(math.isfinite(loss) for loss in losses)
    assert result["data"]["documents_read"] == 82
    assert left_out(shell.home, "one") == {"no tokens": 1}
    (place,) = result["data"]["left_out"]["no tokens"]["places"]
    assert place.endswith("short.txt:81")
