"""The process of the annotator: asks for questions, asks its rater, writes the labels, again.

It knows nothing that would be lost with it. What waits is known to whoever started it, and a label
is told to nobody before it is on the disk; so it may be killed at any point.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from prefgym.annotation.asking import CaptionRater, Outcome, ask, counts_of, told
from prefgym.annotation.labels import Labelled, LabelWriter, Question
from prefgym.locks import WriterLock

MakeRater = Callable[[], CaptionRater]

_LOCK = "labels.lock"
_LONGEST_PAUSE = 60
"""Most times the first pause that is waited for a judge that is not there."""
_LOOK = 0.5
"""Seconds between two looks whether anybody still wants labels, and from one word about those that
are written to the next while others come."""


class Report(NamedTuple):
    """What the process tells when labels are written, or when it wants to be given questions."""

    counts: dict[str, int]
    """The rater's, since the process began."""
    written: int | None = None
    """Bytes of the file of labels that may be read; None: no more than before."""
    goes_on: bool = False
    """Whether other answers to the same questions are still to come."""
    down: bool = False
    error: str | None = None
    warned: tuple[str, ...] = ()
    """What the rater warned of, for whoever reads the parent's warnings."""


@runtime_checkable
class Channel(Protocol):
    """One end of a pipe."""

    def send(self, obj: Any) -> None:
        """Give something to the other end."""
        ...

    def recv(self) -> Any:
        """Wait for something from the other end."""
        ...

    def close(self) -> None:
        """Give the end back."""
        ...


def start(
    folder: Path, make_rater: MakeRater, kind: str, pause_s: float
) -> tuple[BaseProcess, Channel]:
    """A new process, and the connection on which it reports and gets questions.

    Raises:
        ValueError: ``make_rater`` cannot be sent to another process.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    settings = (theirs, folder, make_rater, kind, pause_s, os.getpid())
    failed: Exception | None = None
    for surroundings in (_without_main, _as_it_is) if _can_import_main() else (_without_main,):
        process = spawn.Process(target=_annotate, args=settings, name="annotator", daemon=True)
        try:
            with _without_interrupts(), surroundings():
                process.start()
            theirs.close()
            return process, ours
        except OSError:
            raise
        except Exception as error:  # of several kinds, one of them of a module not to be imported
            failed = error
    raise ValueError(
        f"Annotator: make_rater cannot be sent to another process ({failed}); give a function of a "
        "module (a notebook is none), or functools.partial of one with plain arguments."
    ) from failed


@contextmanager
def _without_main() -> Iterator[None]:
    """Let the new process not import the program that starts it.

    It needs nothing of it, unless ``make_rater`` stands there; and a program may import torch and
    a simulator, or begin to train as soon as it is imported.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _can_import_main() -> bool:
    """Whether the program is a file; a notebook is none."""
    main = sys.modules["__main__"]
    return main.__spec__ is not None or hasattr(main, "__file__")


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started meanwhile hears no Ctrl-C: it is meant for its parent.

    Who hears it is any thread that does not block it; so the main one is told when all is done.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # which would undo the mask if it were started inside
    handler, came = signal.getsignal(signal.SIGINT), []
    mine = threading.current_thread() is threading.main_thread() and handler is not None
    if mine:
        signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if mine:
            signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


# --- in the new process --------------------------------------------------------------------------


def _annotate(
    connection: Channel,
    folder: Path,
    make_rater: MakeRater,
    kind: str,
    pause_s: float,
    parent: int,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        lock = _only_writer(folder / _LOCK)
        writer = LabelWriter(folder)
        _serve(connection, writer, make_rater, kind, pause_s)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody wants labels any more
    lock.release()


def _serve(
    connection: Channel, writer: LabelWriter, make_rater: MakeRater, kind: str, pause_s: float
) -> None:
    rater, failures, written, told_at = None, 0, None, 0.0
    warned: list[str] = []
    warnings.showwarning = lambda message, *_, **__: warned.append(str(message))
    report = Report({})

    def heard(labelled: Sequence[Labelled]) -> None:
        nonlocal written, told_at
        assert rater is not None
        written = writer.append(labelled)
        if time.monotonic() >= told_at + _LOOK:  # else the call is over soon, or was told of
            told_at = time.monotonic()
            connection.send(Report(counts_of(rater), written, goes_on=True))

    while True:
        connection.send(report)
        questions: list[Question] = connection.recv()
        told_at = time.monotonic()
        try:
            if rater is None:
                rater = make_rater()
            outcome = ask(rater, kind, questions, heard)
        except Exception as error:
            outcome = Outcome([], True, told(error))
        failures = failures + 1 if outcome.down else 0
        if outcome.down:
            time.sleep(pause_s * min(2 ** (failures - 1), _LONGEST_PAUSE))
        counts = {} if rater is None else counts_of(rater)
        report = Report(counts, written, False, outcome.down, outcome.error, tuple(warned))
        warned.clear()


def _only_writer(path: Path) -> WriterLock:
    """The lock of the file; one who wrote before may need a moment to end."""
    while True:
        try:
            return WriterLock(path)
        except ValueError:
            time.sleep(_LOOK / 5)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, however that was.

    A closed connection would not tell: other children of the parent may hold its end open.
    """
    process = multiprocessing.parent_process()
    while process is not None and process.is_alive():
        if sys.platform != "win32" and os.getppid() != parent:
            break
        time.sleep(_LOOK)
    os._exit(0)
