"""Measure a model on text: loss, perplexity and bits per byte over every predicted token, or what its task has.

    python scripts/evaluate.py run=NAME                             # the run's own test documents
    python scripts/evaluate.py run=NAME data.path=other.txt         # all documents of another text
    python scripts/evaluate.py run=NAME model.checkpoint=embedded:gpt2_tiny  # another model on the same documents

run=NAME                a run by its name or folder, or a sweep's trial as SWEEP/TRIAL
model.checkpoint=ID     an export/ folder, another local folder, a Hub id, embedded:gpt2_tiny or run:NAME. With run= it
                        is measured on that run's documents, read and cut as that run did
split=SIDE              train, val, test, or all; all where data.path is given and is another text than the run's,
                        else test, or val where no document is on the test side
data.KEY=VALUE          a setting of the data group: data.block_size, data.text_column, data.columns.prompt, ...
trainer.precision=auto  trainer.accelerator=auto
paths.logs=             where runs are, as train was told
"""

import glob
import os
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from domaintune.cli.arguments import run_folder, split_arguments, typed
from domaintune.cli.exiting import told
from domaintune.config.checks import PATHS, check
from domaintune.config.composing import PathsArguments, default_config
from domaintune.config.schema import Config, DataConfig, PeftConfig
from domaintune.config.wording import escaped
from domaintune.data.documents import SIDES
from domaintune.data.finding import passed_over
from domaintune.data.formats.choosing import fields_of
from domaintune.data.labelling import Labels
from domaintune.data.splitting import LEFT_OUT, TEST, Splits, read_splits
from domaintune.errors import UsageError
from domaintune.models.families import check_family, check_vocabulary, check_writes, labels_of
from domaintune.models.locating import Checkpoint, locate, marks_of
from domaintune.preparing import Prepared, check_block_size, labels_for
from domaintune.run_exports import model_of_run
from domaintune.runs.folder import RunFolder, config_of_run, say

SPLITS = ("train", "val", "test", "all")
SETTINGS = ("data.", "trainer.precision", "trainer.accelerator", "model.checkpoint")
# Of the `data` group, what a run says of its own text alone.
OF_ONE_TEXT = ("encoding", "quoting", "strict", "dedup", "subset", "split", "unit", "marks", "group_column")


@dataclass
class Arguments:
    """Those that are no settings of a run."""

    run: str | None = None
    split: str | None = None
    paths: PathsArguments = field(default_factory=PathsArguments)


def documents(config: Config, split: str | None, sha256: str | None, marks: tuple[str, ...]) -> tuple[Splits, str]:
    """The documents to measure, as the test side, and which side they are of.

    Args:
        split: of SPLITS; None is the test side, or the validation side where that has no document.
        sha256: of the documents that a run was split into.
        marks: see `marks_of`.

    Raises:
        UsageError: there are none, or they are not split as the run's were: it may have been trained on them.
    """
    splits = read_splits(config.data, config.paths.cache, marks)
    if sha256 is not None and splits.sha256() != sha256:
        raise UsageError(
            "the text or its split is not that of the run, which may have been trained on what would be measured. "
            "Leave out the data settings that split it otherwise, or give data.path=OTHER_TEXT"
        )
    if split is None:
        split = "test" if len(splits.of("test")) else "val"
        if split == "val":
            say("note: no document is on the test side: the validation side is measured, which chose the best weights")
    chosen = splits.side != LEFT_OUT if split == "all" else splits.side == SIDES.index(split)
    if not chosen.any():
        raise UsageError(f"split={split}: no document on this side")
    return replace(splits, side=np.where(chosen, TEST, LEFT_OUT).astype(np.int8)), split


def is_text_of(config: Config, earlier: dict[str, Any], marks: tuple[str, ...]) -> bool:
    """Whether the data group names the documents, and the split, that a run was made with, wherever they lie now."""
    try:
        return read_splits(config.data, config.paths.cache, marks).sha256() == earlier["data"]["sha256"]
    except UsageError:
        return False  # where it can't be read it is told once it is measured


def check_is_there(config: Config, run: str | None) -> None:
    """Raises UsageError where the text that a run was made with lies elsewhere now, with what to type."""
    for key in PATHS:
        value = getattr(config.data, key)
        for path in value if isinstance(value, list) else [value]:
            if path and os.path.isabs(path) and not glob.has_magic(path) and not os.path.lexists(path):
                raise UsageError(
                    f"{path}: no such file or folder: the text that run={run} was made with has been moved. "
                    f"data.{key}=WHERE_IT_IS measures the same test side; data.path=OTHER_TEXT measures another text"
                )


def prepare(settings: dict[str, str]) -> tuple[Prepared, str]:
    """What the arguments name, checked and read; and which side of the documents is measured, or `all`."""
    asked = Arguments()
    typed(asked, {key: settings.pop(key) for key in list(settings) if key.split(".")[0] in vars(asked)})
    run, split = asked.run, asked.split
    if run is None and "model.checkpoint" not in settings:
        raise UsageError("give run=NAME or model.checkpoint=ID_OR_FOLDER, or both: a model on the documents of a run")
    if split is not None and split not in SPLITS:
        raise UsageError(f"split={split}: must be one of {', '.join(SPLITS)}")
    if unknown := [key for key in settings if not key.startswith(SETTINGS)]:
        raise UsageError(f"there is no argument {unknown[0]}; --help lists them")
    config = default_config(paths=asked.paths)
    if run is not None:
        folder = run_folder(run, config.paths)
        cache = config.paths.cache
        config = config_of_run(folder)
        config.paths.cache, start = cache, config.model.checkpoint
    typed(config, settings)
    if run is not None and "model.checkpoint" not in settings:
        config.model.checkpoint = str(model_of_run(folder, cache))
    config.model.init = "pretrained"  # how a run's own weights began is no matter here, nor which it trained
    config.peft, config.model.freeze, config.optim.head_lr = PeftConfig(), [], None
    config.model.frozen_dtype = "float32"
    config = check(OmegaConf.structured(config))
    earlier = None if run is None else RunFolder(folder).earlier()
    cut_by = config
    if run is not None and "model.checkpoint" in settings:  # another model is measured on what the run's own cut
        cut_by = replace(config, model=replace(config.model, checkpoint=start))
    other = "data.path" in settings and not (earlier and is_text_of(config, earlier, marks_of(cut_by)))
    if earlier and "data.path" in settings and not other:
        say("note: data.path is the text of the run: of it the test side is measured, unless split says otherwise")
    for side in ("val", "test"):
        if other and f"data.{side}_path" not in settings:
            setattr(config.data, f"{side}_path", None)  # the run's own are of another text
    # So are the encoding and the splits; and another text is cut as it is for any other model.
    for name in OF_ONE_TEXT if other else ():
        if f"data.{name}" not in settings:
            setattr(config.data, name, getattr(DataConfig(), name))
    if other and split in (None, "all") and config.data.dedup == "near":
        config.data.dedup = "exact"  # all documents are measured: none is held out from another
    if earlier and "data.path" not in settings:
        check_is_there(config, run)
    sha256 = earlier["data"]["sha256"] if earlier and not other else None
    splits, split = documents(
        config, split or ("all" if other else None), sha256, marks_of(config if other else cut_by)
    )
    checkpoint = locate(config.model.checkpoint, cache=config.paths.cache)
    check_family(checkpoint, config.task)
    check_writes(checkpoint, config.task)
    check_vocabulary(checkpoint, checkpoint.tokens)
    check_block_size(config, checkpoint)
    for note in splits.found.notes:
        print(f"note: {note}")
    if words := passed_over(splits.found.other_files, splits.found.own_files):
        print(f"left out: {words}")
    labels = labels_for(config, splits, checkpoint)
    if labels is not None:
        check_known(labels, labels_of(checkpoint, config.task), checkpoint)
    trained_on = None
    if labels is not None and config.task.class_weights == "balanced":
        if earlier is None:
            raise UsageError("task.class_weights=balanced weighs by the training side of a run: give run=NAME")
        side = earlier["data"]["train"]
        trained_on = {name: side["classes"].get(name, 0) for name in labels.names}, side["documents"]
    return Prepared(config, splits, checkpoint, labels, trained_on), split


def check_known(labels: Labels, known: tuple[list[str], bool] | None, checkpoint: Checkpoint) -> None:
    """Raises UsageError where a checkpoint has no head for the labels of the documents."""
    if known is None:
        raise UsageError(f"model.checkpoint={checkpoint.name}: it was trained on no labels, so it can't be measured")
    if unknown := [name for name in labels.names if name not in known[0]]:
        raise UsageError(f"{checkpoint.name} was trained on other labels: it does not know {', '.join(unknown[:5])}")
    if known[1] != labels.several:
        one, other = ("several labels", "one") if known[1] else ("one label", "several")
        raise UsageError(f"{checkpoint.name} gives a text {one}, and these texts have {other}")


@told
def main() -> None:
    prepared, side = prepare(split_arguments(sys.argv[1:], __doc__ or ""))
    from domaintune.training import evaluate

    metrics, labels, unit, splits = evaluate(prepared)
    table = Table()
    for header in ("", prepared.checkpoint.name):
        table.add_column(Text(escaped(header)))
    table.add_row("documents", f"{len(splits.of('test')):,}")
    table.add_row("of the sides" if side == "all" else "of the side", side)
    if (piece := fields_of(prepared.config.data).unit) != "file":
        table.add_row("a document of a text file", f"a {piece}")
    table.add_row("longest window", f"{prepared.config.data.block_size:,} tokens")
    for reason, rows in splits.left_out.items():
        table.add_row(f"left out: {reason}", f"{rows['rows']:,}")
    table.add_row("copies left out", f"{prepared.splits.duplicates:,}")
    table.add_row(f"predicted {unit}", f"{labels:,}")
    for name, value in metrics.items():
        table.add_row(Text(escaped(name.removeprefix("test/"))), f"{value:.6g}")
    Console().print(table)
