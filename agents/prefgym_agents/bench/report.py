"""What a suite found: one Parquet of rows, a summary with intervals, tables, a heat map.

results.parquet   a row per cell: task, rater, model, seed and the scores of ``cells.SCORES``
summary.json      interquartile means with 95 % bootstrap intervals, by model and rater
accuracy.png      model × rater
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from prefgym import __version__, checkpoints
from prefgym.statistics import bootstrap_interval, iqm
from prefgym_agents.bench.cells import SCORES, Row
from prefgym_agents.bench.suite import Cell, Suite

SHORT = {
    "accuracy": "acc.",
    "worst_group_accuracy": "worst acc.",
    "calibration_error": "calib.",
    "strength_slope": "slope",
    "true_return": "return",
    "worst_group_return": "worst ret.",
    "exploitability": "exploit.",
}
"""Scores as heads of columns: a terminal of 80 holds them all."""
CHANCE, BEST = 0.4, 1.0
"""Accuracies at the two ends of the colours."""
_NAMES = {"seed": pa.int64(), **dict.fromkeys(("task", "rater", "model"), pa.string())}


def write(suite: Suite, rows: Sequence[Row], folder: Path) -> None:
    """Write all three files, each whole or not at all; equal rows give equal files."""
    _replaced(folder / "results.parquet", lambda path: pq.write_table(table_of(rows), path))
    checkpoints.write_json(folder / "summary.json", summary(suite, rows))
    scores = means(suite, rows, "accuracy")
    _replaced(folder / "accuracy.png", lambda path: heat_map(path, suite, scores))


def table_of(rows: Sequence[Row]) -> pa.Table:
    """The rows as Arrow has them; scores that do not apply are null."""
    columns = [*Cell._fields, *SCORES]
    schema = pa.schema([(name, _NAMES.get(name, pa.float64())) for name in columns])
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def values(rows: Sequence[Row], score: str, **where: str) -> Float[np.ndarray, " values"]:
    """A score of the rows with these names, where it applies."""
    chosen = (row for row in rows if all(row[name] == want for name, want in where.items()))
    return np.array([row[score] for row in chosen if row[score] is not None], np.float64)


def means(suite: Suite, rows: Sequence[Row], score: str) -> Float[np.ndarray, " models raters"]:
    """Interquartile means over tasks and seeds; NaN where a score does not apply."""
    return np.array(
        [
            [_mean(values(rows, score, model=model, rater=rater)) for rater in suite.raters]
            for model in suite.models
        ]
    )


def summary(suite: Suite, rows: Sequence[Row]) -> dict[str, Any]:
    """By model and rater, and by model alone: every score with its interval."""
    return {
        "prefgym": __version__,
        "cells": len(rows),
        "tasks": list(suite.tasks),
        "seeds": suite.seeds,
        "by_model": {model: _figures(rows, model=model) for model in suite.models},
        "by_model_and_rater": {
            model: {rater: _figures(rows, model=model, rater=rater) for rater in suite.raters}
            for model in suite.models
        },
    }


def _figures(rows: Sequence[Row], **where: str) -> Mapping[str, Any]:
    figures: dict[str, Any] = {}
    for score in SCORES:
        known = values(rows, score, **where)
        if len(known):
            interval = bootstrap_interval(known, np.random.default_rng(0), resamples=500)
            figures[score] = {**interval._asdict(), "cells": len(known)}
    return figures


def show(console: Console, suite: Suite, rows: Sequence[Row]) -> None:
    """Print accuracy by model and rater, then every score by model."""
    count = f"{len(suite.tasks)} tasks × {suite.seeds} seeds"
    accuracy = means(suite, rows, "accuracy")
    grid = Table(title=f"accuracy, interquartile mean over {count}")
    _fill(grid, suite.models, list(suite.raters), accuracy)
    console.print(grid)
    scores = SCORES[:-1]
    every = [[_mean(values(rows, one, model=model)) for one in scores] for model in suite.models]
    board = Table(title=f"all scores, interquartile mean over {count} × {len(suite.raters)} raters")
    _fill(board, suite.models, [SHORT[one] for one in scores], np.array(every))
    console.print(board)


def _fill(table: Table, names: Sequence[str], columns: Sequence[str], numbers: np.ndarray) -> None:
    table.add_column("model")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in zip(names, numbers, strict=True):
        table.add_row(name, *("-" if np.isnan(one) else f"{one:.2f}" for one in row))


def heat_map(path: Path, suite: Suite, scores: Float[np.ndarray, " models raters"]) -> None:
    """Draw accuracy as colour, with its number in every field."""
    raters, models = list(suite.raters), list(suite.models)
    size = 2.2 + 1.05 * len(raters), 1.6 + 0.42 * len(models)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(scores, cmap="cividis", vmin=CHANCE, vmax=BEST, aspect="auto")
    axes.set_xticks(range(len(raters)), raters, rotation=30, ha="right", fontsize=9)
    axes.set_yticks(range(len(models)), models, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), score in np.ndenumerate(scores):
        text = "–" if np.isnan(score) else f"{score:.2f}"
        dark = not np.isnan(score) and score < (CHANCE + BEST) / 2
        axes.text(
            column, row, text, ha="center", va="center", fontsize=9, color="w" if dark else "k"
        )
    axes.set_title("accuracy on unseen pairs", loc="left", fontsize=11, fontweight="bold")
    figure.colorbar(image, ax=axes, shrink=0.9)
    note = f"interquartile mean over {len(suite.tasks)} tasks and {suite.seeds} seeds"
    figure.supxlabel(note, fontsize=8, color="#666666", x=0.99, ha="right")
    figure.savefig(path, format="png")


def _mean(known: Float[np.ndarray, " values"]) -> float:
    return iqm(known) if len(known) else float("nan")


def _replaced(path: Path, write_to: Callable[[Path], object]) -> None:
    """Put a file where ``path`` is when all of it is written."""
    partial = path.with_name(f".{path.name}.partial")
    write_to(partial)
    partial.replace(path)
