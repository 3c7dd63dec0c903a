"""Learning curves as a picture and as a table, without touching the user's matplotlib state."""

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from prefgym.statistics import curve_band

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Label to steps ``[points]`` and values ``[runs, points]``; every curve has points of its own."""

# Okabe and Ito (2008): told apart by every kind of colour vision. Yellow is too pale for lines.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MOST_INSIDE = 5
"""A legend of more lines stands beside the picture, where it hides nothing."""
_GREY = "#666666"


def learning_curve(
    path: Path,
    curves: Curves,
    ylabel: str = "true return per episode",
    title: str = "",
    xlabel: str = "environment steps",
    levels: Mapping[str, float] | None = None,
) -> Path:
    """Draw learning curves: the interquartile mean of the runs with its 95 % bootstrap band.

    A curve of one run is its plain line. The band's resamples are seeded: equal curves, equal
    picture.

    Args:
        path: where the picture goes; the suffix says how (.png, .svg, .pdf). Folders are made.
        curves: label to (steps, values), in the order of the legend.
        ylabel: what the values are, with their unit.
        title: one line above the picture.
        xlabel: what the steps count.
        levels: named values to compare with, drawn as dotted lines across (a random policy).

    Returns:
        The path.

    Raises:
        ValueError: there is nothing to draw, or a curve's steps and values do not fit together.
    """
    _check(curves)
    figure = Figure(figsize=(7.0, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (label, (steps, values)) in enumerate(curves.items()):
        _draw(axes, number, label, steps, values)
    for name, level in (levels or {}).items():
        axes.axhline(level, color=_GREY, linewidth=1.2, linestyle=(0, (1, 2)), label=name)
    _dress(axes, ylabel, title, xlabel)
    if len(axes.get_lines()) <= MOST_INSIDE:
        axes.legend(framealpha=0.85, edgecolor="none", fontsize=9)
    else:
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    runs = sorted({len(values) for _, values in curves.values()} - {1})
    if runs:
        count = str(runs[0]) if len(runs) == 1 else f"{runs[0]}–{runs[-1]}"
        note = f"interquartile mean of {count} runs, band: 95 % bootstrap interval"
        figure.supxlabel(note, fontsize=8, color=_GREY, x=0.99, ha="right")
    with _whole(path) as half:
        figure.savefig(half, format=path.suffix.removeprefix(".") or "png")
    return path


def curves_csv(path: Path, curves: Curves, note: str = "") -> Path:
    """Write learning curves as rows of curve, run, steps, value; the numbers behind a picture.

    Args:
        path: where the table goes. Folders are made.
        curves: as ``learning_curve`` takes them.
        note: text for lines at the top that begin with ``#``: the command, the commit.

    Returns:
        The path.
    """
    _check(curves)
    with _whole(path) as half, half.open("w", newline="", encoding="utf-8") as file:
        for line in note.splitlines():
            file.write(f"# {line}\n")
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("curve", "run", "steps", "value"))
        for label, (steps, values) in curves.items():
            for run, row in enumerate(values.tolist()):
                table.writerows((label, run, *point) for point in zip(steps, row, strict=True))
    return path


def _draw(axes: Axes, number: int, label: str, steps: np.ndarray, values: np.ndarray) -> None:
    color = PALETTE[number % len(PALETTE)]
    dashes = DASHES[number // len(PALETTE) % len(DASHES)]
    middle, low, high = curve_band(values.astype(np.float64), np.random.default_rng(0))
    if len(values) > 1:
        axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    marker = "o" if len(steps) == 1 else ""
    axes.plot(steps, middle, dashes, color=color, linewidth=1.8, marker=marker, label=label)


def _dress(axes: Axes, ylabel: str, title: str, xlabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.margins(x=0.02)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GREY)
    axes.tick_params(colors="#333333", labelsize=9)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path to write to, that takes the place of ``path`` when all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield half
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def _check(curves: Curves) -> None:
    if not curves:
        raise ValueError("Got no curves to draw; give at least one, as {label: (steps, values)}.")
    for label, (steps, values) in curves.items():
        if np.ndim(values) != 2 or np.shape(values)[1:] != np.shape(steps) or not np.size(values):
            raise ValueError(
                f"Curve {label!r} has steps of shape {np.shape(steps)} and values of shape "
                f"{np.shape(values)}; wanted [points] and [runs, points], with points in them."
            )
        if not (np.isfinite(steps).all() and np.isfinite(values).all()):
            raise ValueError(
                f"Curve {label!r} has a NaN or an infinite number; leave out points that were not "
                "measured."
            )
