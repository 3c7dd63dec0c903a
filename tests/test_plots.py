"""Learning curves: the picture is a picture, the table holds the numbers, nothing else changes."""

import csv
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from prefgym.statistics import iqm
from prefgym_agents import plots
from prefgym_agents.plots import curves_csv, learning_curve

STEPS = np.arange(0, 5000, 500)


def several(runs: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A noisy rising curve of some runs."""
    noise = np.random.default_rng(runs).normal(size=(runs, len(STEPS)))
    return STEPS, STEPS / 1000 + noise


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved during a test."""
    saved: list[Figure] = []
    save = Figure.savefig

    def remember(figure: Figure, *arguments: Any, **options: Any) -> None:
        saved.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return saved


def test_the_picture_is_a_readable_png(tmp_path: Path) -> None:
    path = learning_curve(tmp_path / "new" / "curve.png", {"PPO": several()}, title="Pendulum")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (1050, 630)
    assert [one.name for one in path.parent.iterdir()] == ["curve.png"]


def test_equal_curves_give_equal_pictures(tmp_path: Path) -> None:
    first = learning_curve(tmp_path / "first.png", {"PPO": several()})
    second = learning_curve(tmp_path / "second.png", {"PPO": several()})
    assert first.read_bytes() == second.read_bytes()


def test_several_runs_are_a_line_with_a_band_and_one_run_is_its_line(
    tmp_path: Path, figures: list[Figure]
) -> None:
    steps, values = several()
    curves = {"several": (steps, values), "one": (steps, values[:1])}
    learning_curve(tmp_path / "curve.png", curves, levels={"random policy": -1.0})
    (axes,) = figures[0].axes
    middle, single, level = axes.get_lines()
    expected = np.array([iqm(column) for column in values.T])
    np.testing.assert_allclose(np.asarray(middle.get_ydata(), dtype=np.float64), expected)
    np.testing.assert_array_equal(single.get_ydata(), values[0])
    assert set(np.asarray(level.get_ydata())) == {-1.0}
    assert len(axes.collections) == 1
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["several", "one", "random policy"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "environment steps",
        "true return per episode",
    )
    assert "interquartile mean of 4 runs" in figures[0].get_supxlabel()


def test_no_two_of_many_curves_look_alike(tmp_path: Path, figures: list[Figure]) -> None:
    learning_curve(tmp_path / "curve.png", {f"learner {one}": several(2) for one in range(15)})
    lines = figures[0].axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 15
    assert len(figures[0].legends[0].get_texts()) == 15


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_suffix_says_how_it_is_drawn(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = learning_curve(tmp_path / f"curve{suffix}", {"PPO": several()})
    assert path.read_bytes().startswith(start)


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    learning_curve(tmp_path / "curve.png", {"PPO": several()})
    assert dict(mpl.rcParams) == before
    asks = "import sys; import prefgym_agents.plots; print('matplotlib.pyplot' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", asks], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_a_failed_picture_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "curve.xyz"
    path.write_text("old")
    with pytest.raises(ValueError, match="xyz"):
        learning_curve(path, {"PPO": several()})
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["curve.xyz"]


def test_the_table_gives_back_every_number(tmp_path: Path) -> None:
    steps, values = several(2)
    curves = {"PPO, 500 labels": (steps, values), "one": (steps[:1], values[:1, :1])}
    path = curves_csv(tmp_path / "curve.csv", curves, note="commit abc\ncommand here")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["# commit abc", "# command here", "curve,run,steps,value"]
    rows = list(csv.DictReader(lines[2:]))
    assert len(rows) == 2 * len(steps) + 1
    first = [row for row in rows if row["curve"] == "PPO, 500 labels"]
    np.testing.assert_array_equal([float(row["value"]) for row in first], values.ravel())
    assert [int(row["steps"]) for row in first] == 2 * steps.tolist()
    assert [int(row["run"]) for row in first] == [0] * len(steps) + [1] * len(steps)


@pytest.mark.parametrize(
    ("curves", "sentence"),
    [
        ({}, "no curves to draw"),
        ({"PPO": (STEPS, np.zeros((2, 3)))}, r"'PPO' has steps of shape \(10,\) and values"),
        ({"PPO": (STEPS, np.zeros(10))}, r"wanted \[points\] and \[runs, points\]"),
        ({"PPO": (STEPS[:0], np.zeros((1, 0)))}, "with points in them"),
        ({"PPO": (STEPS, np.full((1, 10), np.nan))}, "NaN or an infinite number"),
    ],
)
@pytest.mark.parametrize("write", [learning_curve, curves_csv])
def test_curves_that_do_not_fit_get_a_clear_sentence(
    write: Any, curves: plots.Curves, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        write(tmp_path / "curve.png", curves)
    assert list(tmp_path.iterdir()) == []
