"""Preferences of others into a data set of ours, and back; what a data set holds."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.converters.arrays import (
    from_arrays,
    from_bpref,
    from_cpl,
    from_delivery,
    read_delivery,
    to_cpl,
)
from prefgym.converters.imitation import from_imitation, to_imitation
from prefgym.converters.trl import from_trl, rendering, to_trl, write_rows
from prefgym.names import lookup
from prefgym.preference_files import is_ours, open_files
from prefgym.text import Layout

__all__ = [
    "READERS",
    "WRITERS",
    "convert",
    "from_arrays",
    "from_bpref",
    "from_cpl",
    "from_delivery",
    "from_imitation",
    "from_trl",
    "inspect",
    "read_delivery",
    "rendering",
    "summary",
    "to_cpl",
    "to_imitation",
    "to_trl",
    "write_rows",
]

READERS: dict[str, Callable[..., Comparisons]] = {
    "trl": from_trl,
    "imitation": from_imitation,
    "cpl": from_cpl,
    "delivery": read_delivery,
}
"""Formats that :func:`convert` brings in: a path and ``meaning=`` to comparisons."""


def _write_cpl(dataset: PreferenceDataset, target: Path, layout: Layout | None) -> None:
    arrays = to_cpl(dataset)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(temporary, target)


def _write_trl(
    dataset: PreferenceDataset, target: Path, layout: Layout | None, **form: Any
) -> None:
    write_rows(to_trl(dataset, layout=layout, **form), target)


WRITERS: dict[str, Callable[[PreferenceDataset, Path, Layout | None], None]] = {
    "trl": _write_trl,
    "trl-messages": partial(_write_trl, messages=True),
    "kto": partial(_write_trl, form="unpaired"),
    "cpl": _write_cpl,
}
"""Formats that :func:`convert` writes."""


def convert(
    source: Path | str,
    target: Path | str,
    format: str,
    meaning: str | None = None,
    layout: Layout | None = None,
) -> dict[str, Any]:
    """Bring preferences of another format into a directory of ours, or ours into another format.

    Args:
        source: a directory that prefgym wrote (then ``target`` is a file to write), or what the
            format is read from: a ``.jsonl``, ``.json`` or ``.parquet`` file ("trl", also its KTO
            form), the pickle of imitation's data set ("imitation"), an ``.npz`` ("cpl"), the
            beginning of the names of the delivery gridworld's arrays ("delivery").
        target: the directory that the comparisons are appended to; repeating the same call adds
            nothing. Or the file: ``.jsonl`` or ``.parquet`` ("trl", "trl-messages", "kto"), or
            ``.npz`` ("cpl").
        format: a name of :data:`READERS` or :data:`WRITERS`.
        meaning: what the labels mean, where they come from elsewhere; None: as the format says.
        layout: of the text environment that comparisons come from, so that they are written in its
            words.

    Returns:
        :func:`inspect` of the directory that took part.

    Raises:
        ValueError: an unknown format, or data that the format does not allow.
    """
    if is_ours(Path(source)):
        writer = lookup(format, WRITERS, "format to write")
        writer(PreferenceDataset.open(source), Path(target), layout)
        return inspect(source)
    reader = lookup(format, READERS, "format to read")
    comparisons = reader(source) if meaning is None else reader(source, meaning=meaning)
    dataset = PreferenceDataset(target)
    dataset.append(comparisons)
    dataset.close()
    return inspect(target)


def inspect(directory: Path | str) -> dict[str, Any]:
    """What a directory of preferences holds; :func:`summary` prints it.

    Returns:
        Plain numbers, strings, lists and dicts (JSON): ``comparisons``, ``skipped``, ``asked``,
        ``ties``, ``queries`` (different ids), ``raters`` (id → comparisons), ``meaning``,
        ``labels`` (ten bins of [0, 1] → comparisons), ``lengths`` (shortest and longest segment),
        ``arrays`` (name → dtype and shape per comparison), ``format_version``, ``files``,
        ``bytes``.

    Raises:
        ValueError: there is no data set, or it is damaged or of another version.
    """
    dataset = PreferenceDataset.open(directory)
    report: dict[str, Any] = {
        "directory": str(dataset.directory),
        "comparisons": len(dataset),
        "skipped": dataset.skipped,
        "asked": dataset.asked,
        "meaning": dataset.meaning,
        **open_files(directory).describe(),
    }
    return report | (_contents(dataset.comparisons) if len(dataset) else {})


def summary(report: dict[str, Any]) -> str:
    """The lines that ``prefgym data inspect`` prints for :func:`inspect`'s report."""
    return "\n".join(f"{name:<15} {_line(value)}" for name, value in report.items())


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {one}" for name, one in value.items())
    if isinstance(value, list):
        return " to ".join(map(str, value))
    return str(value)


def _contents(comparisons: Comparisons) -> dict[str, Any]:
    raters, answers = np.unique(comparisons.rater_id, return_counts=True)
    counts, edges = np.histogram(comparisons.label, bins=10, range=(0.0, 1.0))
    lengths = np.concatenate([comparisons.a.lengths, comparisons.b.lengths])
    return {
        "queries": len(np.unique(comparisons.query_id)),
        "ties": int((comparisons.label == 0.5).sum()),
        "raters": dict(zip(map(str, raters.tolist()), answers.tolist(), strict=True)),
        "labels": {
            f"{low:.1f}-{high:.1f}": count
            for low, high, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True)
        },
        "lengths": [int(lengths.min()), int(lengths.max())],
        "arrays": {
            name: f"{array.dtype}{list(array.shape[1:])}"
            for name, array in comparisons.a.arrays().items()
        },
    }
