"""Pictures for TensorBoard."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import TensorBoardLogger

WRITTEN = 12  # rows of a matrix up to which the numbers are written into it
NAMED = 60  # and up to which rows and columns are named


def add_matrix(
    trainer: Any, tag: str, table: npt.NDArray[np.float64], rows: Sequence[str], columns: Sequence[str]
) -> None:
    """Draws a table of counts, each row's shares as shades: a confusion matrix, what is true by what was given."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    if not loggers or not trainer.is_global_zero:
        return
    from matplotlib.figure import Figure  # without pyplot, which would look for a display

    size = min(12.0, 3 + 0.4 * len(rows))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(table / np.maximum(table.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if len(rows) <= NAMED:
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_ylabel("true")
    axes.set_xlabel("given")
    if len(rows) <= WRITTEN:
        for (row, column), count in np.ndenumerate(table):
            axes.text(column, row, f"{count:.0f}", ha="center", va="center")
    for logger in loggers:
        logger.experiment.add_figure(tag, figure, trainer.global_step)
