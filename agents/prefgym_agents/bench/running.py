"""All cells of a suite, and where their rows are kept: one file each, whole or absent.

    suite.json            what is run
    cells/<key>.json      a row, as soon as its cell is finished
    results.parquet       all rows; see ``report.py`` for what else is written in the end

A folder is gone on with by running the same suite again: cells that are there are not computed.
Cells are computed one after the other, in processes, or on a Ray cluster; their rows are the same
bytes in any case, because a cell is a function of its name and the suite.
"""

import json
import socket
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import closing
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from prefgym import checkpoints
from prefgym_agents.bench import cells
from prefgym_agents.bench.cells import Row
from prefgym_agents.bench.clock import tensors
from prefgym_agents.bench.suite import Cell, Suite, plain

FORMAT = 2
"""Of suite.json and the rows; raised when either changes its meaning."""
RAY_SECONDS = 5.0
"""How long a cluster may take to answer."""
WAITING = 2
"""Cells per worker that are handed out at a time."""


class Computed(NamedTuple):
    """A finished cell, and what it took."""

    cell: Cell
    row: Row
    seconds: float
    tensor_seconds: float


Computing = Generator[Computed, None, None]


class Spent(NamedTuple):
    """What a pass over a suite took."""

    cells: int
    """That were computed, and not found."""
    seconds: float
    """Summed over cells."""
    tensor_seconds: float

    @property
    def share(self) -> float:
        """Of the time inside tensor operations; see :mod:`prefgym_agents.bench.clock`."""
        return self.tensor_seconds / max(self.seconds, 1e-9)


def prepare(folder: Path, suite: Suite) -> None:
    """Begin a folder, or go on with one.

    Raises:
        ValueError: it holds another suite, rows of other code, or something else.
    """
    path = folder / "suite.json"
    wanted = json.loads(json.dumps({"format": FORMAT, **plain(suite)}))
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(
                f"{folder} is not empty and holds no suite; choose another folder with --out."
            )
        (folder / "cells").mkdir(parents=True)
        checkpoints.write_json(path, wanted)
        return
    found = _suite_in(path)
    edited = [
        name
        for name, told in found.get("own_modules", {}).items()
        if wanted["own_modules"].get(name, told) != told
    ]
    if edited:
        raise ValueError(
            f"{folder} holds rows of {', '.join(edited)} as it was before its module was edited;"
            " choose another folder with --out."
        )
    differ = [name for name in wanted if found.get(name) != wanted[name]]
    if differ == ["prefgym"]:
        raise ValueError(
            f"{folder} holds the results of prefgym {found.get('prefgym')}, and this is"
            f" {wanted['prefgym']}; choose another folder with --out."
        )
    if differ:
        raise ValueError(
            f"{folder} holds the results of another suite (other {', '.join(differ)}); choose"
            " another folder with --out, or ask for that suite again."
        )


def _suite_in(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); choose another folder with --out."
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("own_modules", {}), dict):
        raise ValueError(f"{path} holds no suite; choose another folder with --out.")
    return found


def run(
    suite: Suite,
    folder: Path,
    workers: int = 1,
    ray: str | None = None,
    quiet: bool = False,
) -> Spent:
    """Compute every cell that is not there yet.

    Args:
        suite: what to run.
        folder: made by :func:`prepare`.
        workers: processes side by side; 1 computes here.
        ray: address of a Ray cluster instead, or "local" for one that is started for the purpose.
        quiet: show no progress bar.

    Raises:
        ImportError: ``ray`` is asked for and not installed.
        ValueError: a cell cannot be computed; what was finished before is kept.
        KeyboardInterrupt: Ctrl-C; the same.
    """
    every = suite.cells()
    missing = [cell for cell in every if found(folder, cell) is None]
    count, total, inside = 0, 0.0, 0.0
    with _progress(quiet) as bar, closing(_computed(missing, suite, workers, ray)) as finished:
        task = bar.add_task("cells", total=len(every), completed=len(every) - len(missing), note="")
        for cell, row, seconds, tensor_seconds in finished:
            checkpoints.write_json(path_of(folder, cell), row)
            count, total, inside = count + 1, total + seconds, inside + tensor_seconds
            bar.update(task, advance=1, note=" ".join(map(str, cell)))
    return Spent(count, total, inside)


def path_of(folder: Path, cell: Cell) -> Path:
    """Where the row of a cell is kept."""
    return folder / "cells" / f"{cell.key}.json"


def found(folder: Path, cell: Cell) -> Row | None:
    """The row of a cell; None where it is not finished."""
    try:
        row: Row = json.loads(path_of(folder, cell).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return row


def rows(suite: Suite, folder: Path) -> list[Row]:
    """Those of all finished cells, in the order of the suite."""
    known = [found(folder, cell) for cell in suite.cells()]
    return [row for row in known if row is not None]


def compute(cell: Cell, suite: Suite) -> Computed:
    """One cell, with its times: what a worker does.

    Raises:
        ValueError: it cannot be computed; says which cell, what went wrong, and where.
    """
    begun, before = time.perf_counter(), tensors.seconds
    try:
        row = cells.run(cell, suite)
    except Exception as error:  # whatever a user's own model or rater raises
        raise ValueError(_failed(cell, error)) from error
    return Computed(cell, row, time.perf_counter() - begun, tensors.seconds - before)


def _failed(cell: Cell, error: Exception) -> str:
    """What is said of a cell that cannot be computed."""
    said = str(error)
    if not isinstance(error, ValueError):
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {said} ({where.filename}, line {where.lineno})"
    return f"{cell.task} × {cell.rater} × {cell.model}, seed {cell.seed}: {said}"


def _computed(missing: Sequence[Cell], suite: Suite, workers: int, ray: str | None) -> Computing:
    if missing and ray is not None:
        return _on_ray(missing, suite, ray, workers)
    if missing and workers > 1:
        return _in_processes(missing, suite, workers)
    return (compute(cell, suite) for cell in missing)


def _in_processes(missing: Sequence[Cell], suite: Suite, workers: int) -> Computing:
    todo = iter(missing)
    context = get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=context) as pool:
        running: set[Future[Computed]] = set()
        try:
            while True:
                for cell in _next(todo, WAITING * workers - len(running)):
                    running.add(pool.submit(compute, cell, suite))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for one in finished:
                    yield one.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _on_ray(missing: Sequence[Cell], suite: Suite, address: str, workers: int) -> Computing:
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise ImportError('--ray needs Ray; pip install "prefgym[ray]".') from error
    ours = not ray.is_initialized()
    if ours:
        local = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
        _reach(address)
        ray.init(address=address, log_to_driver=False, **local)
    try:
        todo, told = iter(missing), ray.put(suite)
        remote = ray.remote(num_cpus=1)(compute)
        running: list[Any] = []
        at_once = WAITING * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while True:
            running += [remote.remote(cell, told) for cell in _next(todo, at_once - len(running))]
            if not running:
                return
            finished, running = ray.wait(running)
            yield from ray.get(finished)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, ValueError) else error from None
    finally:
        if ours:
            ray.shutdown()


def _reach(address: str) -> None:
    """Ask whether anybody listens there, of which Ray itself makes sure for a minute.

    Raises:
        ValueError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "local", "auto"
        return
    try:
        socket.create_connection((host, int(port)), RAY_SECONDS).close()
    except OSError as error:
        raise ValueError(
            f"No Ray cluster answers at {address} ({error}); start one there (`ray start --head`),"
            " or say --ray local."
        ) from error


def _next(todo: Iterator[Cell], count: int) -> list[Cell]:
    """So many more of them, or as many as there are."""
    return [cell for _, cell in zip(range(count), todo, strict=False)]


def _progress(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=quiet,
    )
