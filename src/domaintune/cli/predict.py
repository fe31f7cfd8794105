"""Ask a finished run's model about new texts: labels, entities, or what it writes.

    python scripts/predict.py run=NAME input=texts.csv output=labels.jsonl

run=NAME           a run by its name or folder, or a sweep's trial as SWEEP/TRIAL
input=PATH         a file, a folder or a glob of what data.path takes; labels aren't needed. For entities a row has a
                   list of words or a text parted at spaces; .conll and .tsv files hold a word and its tag a line
output=FILE        .jsonl, or a table (.csv), in the order of the input, with the columns that the input has. The same
                   command resumes where it was killed. It may lie in the folder of the input, where it isn't read
data.text_column=  the column with the text; unset: the one that the run was trained on
data.unit=         of .txt and .md: file, paragraph or line
data.encoding=     of text files; unset: UTF-8, or the run's for a file that isn't
data.quoting=      of .csv and .tsv: csv or none (quotes are letters); unset: the run's
paths.logs=        where runs are, as train was told
batch_size=32      texts at once
max_new_tokens=    of what is written; unset: data.target_size of the run, or 80
chat=true          a text is a message to answer, written as the model's chat template has it
fresh=true         replaces predictions that were made otherwise
"""

import itertools
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from domaintune.cli.arguments import remind_of_chats, run_folder, split_arguments, typed
from domaintune.cli.exiting import told
from domaintune.config.composing import PathsArguments, default_config
from domaintune.config.schema import TEXT_OR_TEXTS, all_facts
from domaintune.data.finding import passed_over
from domaintune.data.inputs import find_inputs, input_fields, read_inputs
from domaintune.errors import UsageError
from domaintune.files.output import Output, refuse_output
from domaintune.files.progress import progress
from domaintune.models.locating import locate, marks_of
from domaintune.run_exports import model_of_run
from domaintune.runs.folder import config_of_run

CHUNK = 512  # rows that are predicted together; what a kill can lose
NEW_TOKENS = 80  # of a language model


@dataclass
class DataArguments:
    text_column: str | None = None
    unit: str | None = None
    encoding: str | None = None
    quoting: str | None = None


@dataclass
class Arguments:
    run: str = ""
    input: Any = field(default=None, metadata={"kind": TEXT_OR_TEXTS})
    output: str = ""
    data: DataArguments = field(default_factory=DataArguments)
    paths: PathsArguments = field(default_factory=PathsArguments)
    batch_size: int = 32
    max_new_tokens: int | None = None
    chat: bool = False
    fresh: bool = False


def check_arguments(arguments: Arguments) -> None:
    """Raises UsageError where they can't be meant."""
    for key in ("run", "input", "output"):
        if not getattr(arguments, key):
            raise UsageError(f"give {key}=; --help says what it is")
    for key in ("batch_size", "max_new_tokens"):
        if (value := getattr(arguments, key)) is not None and value < 1:
            raise UsageError(f"{key}={value}: must be at least 1")
    for key in ("unit", "quoting"):
        value, choices = getattr(arguments.data, key), all_facts()[f"data.{key}"].choices
        if value not in (None, *choices):
            raise UsageError(f"data.{key}={value}: must be one of {', '.join(choices)}")


@told
def main() -> None:
    arguments = Arguments()
    typed(arguments, split_arguments(sys.argv[1:], __doc__ or ""))
    check_arguments(arguments)
    paths = default_config(paths=arguments.paths).paths
    folder = run_folder(arguments.run, paths)
    config = config_of_run(folder)
    config.paths.cache = paths.cache
    if not config.task.predicts:
        raise UsageError(f"run={arguments.run}: its task, {config.task.name}, predicts nothing of a whole text")
    export = model_of_run(folder, config.paths.cache)
    remind_of_chats(config, export, arguments.chat)
    config.model.checkpoint = str(export)
    checkpoint = locate(config.model.checkpoint, cache=config.paths.cache)
    config.data.quoting = arguments.data.quoting or config.data.quoting
    found = find_inputs(arguments.input, config.data, config.paths.cache, arguments.data.encoding)
    sources, file = found.sources, Path(arguments.output).expanduser()
    refuse_output(file, [read for source in sources for read in source.files])
    fields = input_fields(arguments.input, config.data, arguments.data.text_column, arguments.data.unit)
    marks = marks_of(config)
    if config.data.format == "text":  # whose documents end at each mark; other rows lose theirs, and stay one
        fields = replace(fields, marks=marks)
    # What is wrong with the input is told before weights load.
    total = sum(1 for _ in read_inputs(sources, fields, marks))
    for note in [*found.notes, *(f"{source.name}: {note}" for source in sources for note in source.notes)]:
        print(f"note: {note}")
    if words := passed_over(found.other_files, found.own_files):
        print(f"left out: {words}")
    new_tokens = arguments.max_new_tokens or (config.data.target_size if config.data.format == "pairs" else NEW_TOKENS)
    made_from = {
        "model": checkpoint.weights_hash(),
        "input": [source.sha256 for source in sources],
        "data.text_column": fields.text_column,
        "data.unit": fields.unit,
        "data.encoding": sorted({source.encoding for source in sources if source.encoding}) or None,
        "data.quoting": config.data.quoting,
        "max_new_tokens": new_tokens,
        "chat": arguments.chat,
        **({"data.marks": list(marks)} if marks else {}),
    }
    with Output(file, made_from, arguments.fresh) as output:
        from domaintune.tasks.base import task_class
        from domaintune.tasks.predicting import Predictor

        task = task_class(config.task)
        predictor = Predictor.of(config, checkpoint, task.head, arguments.batch_size, new_tokens, arguments.chat)
        done = output.begin(CHUNK)
        rows = itertools.islice(read_inputs(sources, fields, marks), done, None)
        with progress("predicting", total, "rows") as advance:
            advance(done)
            while chunk := list(itertools.islice(rows, CHUNK)):
                output.add(task.answer(predictor, chunk))
                advance(len(chunk))
        output.finish()
    print(f"{total:,} rows in {output.file}" + f", {done:,} of them from before" * (done > 0))
