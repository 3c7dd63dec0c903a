"""A run: a folder that holds everything about one training, and can be gone on with.

    config.json          what was asked for, and the version that wrote it
    preferences/         every answer, durable as soon as it is given (Parquet)
    checkpoints/         the newest two, each whole or absent
    metrics.csv  tb/     scalars
    summary.json  learning_curve.png

A run that is killed at any moment and resumed ends with the same parameters and preferences as
one that was never interrupted, bit for bit, on a CPU.
"""

import json
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from prefgym import __version__, checkpoints
from prefgym_agents.learner import PHASES, Learner
from prefgym_agents.logs import CsvLog, TensorBoardLog, read_csv
from prefgym_agents.plots import learning_curve

FORMAT = 1
KEEP = 2
"""Checkpoints that are kept."""


class RunError(ValueError):
    """The folder is not a run that this version can read or write."""


def create(folder: Path, config: Mapping[str, Any]) -> None:
    """Begin a run in a new folder.

    Raises:
        RunError: a run is there already.
    """
    if (folder / "config.json").exists():
        raise RunError(
            f"{folder} already holds a run; resume it with --resume {folder}, or choose another"
            " folder with --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.write_json(
        folder / "config.json", {"format": FORMAT, "prefgym": __version__, "config": dict(config)}
    )


def read_config(folder: Path) -> dict[str, Any]:
    """What a run was started with.

    Raises:
        RunError: no run is there, or another version wrote it.
    """
    path = folder / "config.json"
    if not path.exists():
        raise RunError(f"{folder} holds no run (no config.json); give the folder of a run.")
    try:
        document = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise RunError(f"{path} is damaged ({error}); the run cannot be read.") from error
    if document.get("format") != FORMAT:
        raise RunError(
            f"{folder} is a run in format {document.get('format')}, written by prefgym"
            f" {document.get('prefgym', '(unknown)')}; this is prefgym {__version__}, which reads"
            f" format {FORMAT}. Install that version, or start a new run."
        )
    config: dict[str, Any] = document["config"]
    return config


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = sorted(folder.glob("checkpoints/step-*[0-9]"))
    return found[-1] if found else None


def save_checkpoint(folder: Path, learner: Learner) -> None:
    """Write one, and drop those that are too old."""
    steps = learner.num_timesteps
    learner.save(folder / "checkpoints" / f"step-{steps:012d}")
    for old in sorted(folder.glob("checkpoints/step-*[0-9]"))[:-KEEP]:
        shutil.rmtree(old)


def train(
    folder: Path,
    learner: Learner,
    total_timesteps: int,
    *,
    checkpoint_every: int,
    quiet: bool = False,
) -> bool:
    """Train in a run's folder, from its newest checkpoint if it has one.

    Args:
        folder: made by :func:`create`.
        learner: fresh; it is put where the checkpoint says.
        total_timesteps: when to stop.
        checkpoint_every: steps between checkpoints.
        quiet: show nothing.

    Returns:
        Whether the run is complete; False after Ctrl-C, which saves first.
    """
    found = latest_checkpoint(folder)
    if found is not None:
        learner.load(found)
    else:
        learner.env.rewind()  # killed before its first checkpoint, it may have asked already
    begun = learner.num_timesteps if found is not None else 0
    saved_at = begun
    with ExitStack() as stack:
        csv = CsvLog(folder / "metrics.csv", begun)
        board = TensorBoardLog(folder / "tb", begun)
        stack.callback(board.close)
        bar = stack.enter_context(_progress(quiet))
        task = bar.add_task("learning", total=total_timesteps, completed=begun, note="")
        interrupted = stack.enter_context(_interruptible())
        for steps, metrics in learner.iterations(total_timesteps):
            csv(steps, metrics)
            board(steps, metrics)
            bar.update(task, completed=min(steps, total_timesteps), note=_note(metrics))
            if interrupted.is_set() or steps - saved_at >= checkpoint_every:
                save_checkpoint(folder, learner)
                saved_at = steps
            if interrupted.is_set():
                break
    done = learner.num_timesteps >= total_timesteps
    if done:
        save_checkpoint(folder, learner)
    _draw(folder)
    return done


def time_budget(learner: Learner) -> str:
    """One line: where the time went."""
    spent = learner.clock.seconds
    total = max(sum(spent.values()), 1e-9)
    parts = [f"{phase} {spent[phase]:.1f} s ({spent[phase] / total:.0%})" for phase in PHASES]
    return "time: " + ", ".join(parts)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that a turn is finished first; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(signum: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _progress(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=quiet,
    )


def _note(metrics: Mapping[str, float]) -> str:
    shown = {"rollout/ep_rew_mean": "true return", "pref/labelled": "labels"}
    return "  ".join(f"{name} {metrics[key]:.4g}" for key, name in shown.items() if key in metrics)


def _draw(folder: Path) -> None:
    rows = [row for row in read_csv(folder / "metrics.csv") if row.get("rollout/ep_rew_mean")]
    if len(rows) >= 2:
        learning_curve(
            folder / "learning_curve.png",
            {
                "true return": (
                    np.array([int(row["steps"]) for row in rows]),
                    np.array([[float(row["rollout/ep_rew_mean"]) for row in rows]]),
                )
            },
            ylabel="true return of recent episodes",
            title=read_config(folder)["env"],
        )
