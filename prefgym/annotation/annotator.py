"""The annotator: has captions judged by a process of its own, while others act and learn."""

import threading
import time
import warnings
from collections.abc import Iterable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from prefgym.annotation.asking import failing, less, summed, with_rater
from prefgym.annotation.backlog import Backlog
from prefgym.annotation.labels import (
    Labelled,
    LabelReader,
    Labels,
    Question,
    as_labels,
    captions_in_question,
    claim_folder,
)
from prefgym.annotation.process import Channel, MakeRater, Report, start
from prefgym.locks import WriterLock

CAPACITY = 10_000
"""Questions that may wait, as in ONI."""
_LOCK = "annotator.lock"
_LONGEST_WAIT_S = 60.0
_END_S = 5.0
_SEVERAL = 3


class Annotator:
    """Labels of captions from a rater in another process, the newest captions first.

    No call waits for the rater. Every label is in the folder before anybody hears of it, and an
    annotator on the same folder goes on: it knows the labels and asks none of these questions
    again. What waited for an answer is no label and is not in the folder; it is in
    :meth:`get_state`, so that a run that is resumed still waits for it. Who begins anew on an old
    folder offers what is seen again, and what is not seen again needs no label.

    A question without an answer is asked again: soon, then at twice the distance and so on if it
    alone has none, and together with the newest, after a pause, if nothing came back at all. A
    process that has died is replaced at the next call.

    It has a thread in this process too, which sleeps but when the other one wants questions; make
    environments whose workers are forked first.

    Args:
        folder: where the labels are kept; made if it is not there. One annotator at a time.
        make_rater: called in the other process; a function of a module, or a ``partial`` of one.
        kind: "helpful" (one caption) or "ranking" (two).
        batch: questions in one call of the rater.
        capacity: questions that may wait; the oldest beyond it are dropped and counted.
        about: what is asked, such as the goal and the judge's name; a folder whose labels are
            about something else is refused.
        retry_s: seconds until a question without an answer is asked again for the first time.

    Raises:
        ValueError: the folder is in use or about something else, or ``make_rater`` cannot be sent.
    """

    def __init__(
        self,
        folder: str | Path,
        make_rater: MakeRater,
        kind: str = "helpful",
        batch: int = 100,
        *,
        capacity: int = CAPACITY,
        about: str = "",
        retry_s: float = 1.0,
    ) -> None:
        captions_in_question(kind)
        if batch < 1 or not retry_s > 0.0:
            raise ValueError(
                f"Annotator: batch is {batch} and retry_s {retry_s}; wanted at least 1 question "
                "and more than 0 seconds."
            )
        self.kind = kind
        self._folder, self._make_rater = Path(folder), make_rater
        self._batch, self._retry_s = batch, retry_s
        self._folder.mkdir(parents=True, exist_ok=True)
        self._only = WriterLock(self._folder / _LOCK)
        self._reader = LabelReader(self._folder, kind)
        self._backlog = Backlog(capacity)
        self._labelled: list[Labelled] = []
        self._delivered = 0
        self._earlier: dict[str, int] = {}
        """Counts of the run before it was resumed."""
        self._rater: dict[str, int] = {}
        self._earlier_rater: dict[str, int] = {}
        """The rater's counts in this process, and in those before it."""
        self._restarts = self._failures = self._futile = 0
        self._useful = False
        """Whether the process has labelled anything."""
        self._news: list[str] = []
        self._told: set[str] = set()
        self._changed = threading.Condition()
        self._channel: Channel | None = None
        self._closed = False
        try:
            claim_folder(self._folder, kind, about)
            self._read()
            self._adopt(*self._new_process())
        except BaseException:
            self._only.release()
            raise

    # -- for those who act ---------------------------------------------------------------------

    def offer(self, captions: Iterable[str]) -> None:
        """Have captions judged, the last of them first; what is known or waits is not taken."""
        self._put("helpful", [(caption,) for caption in captions])

    def offer_pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Have pairs compared, the last of them first; a mirrored pair is the same one."""
        self._put("ranking", list(pairs))

    def labels(self) -> Labels:
        """The labels since the last call; at first those that the folder already held."""
        self._keep_alive()
        with self._changed:
            new = self._labelled[self._delivered :]
            self._delivered += len(new)
        return as_labels(self.kind, new)

    def counts(self) -> dict[str, int]:
        """Numbers for a log; all but ``waiting`` only grow.

        asked (questions given to the rater, again included), labelled (in the folder), waiting,
        dropped, failures (calls of the rater to which nothing at all came back), restarts, damaged
        (lines of the file that are no labels), and the rater's own under their names, with
        ``judge_`` before one that stands here already.
        """
        with self._changed:
            own = self._grown() | {
                "labelled": len(self._labelled),
                "waiting": len(self._backlog),
                "damaged": self._reader.damaged,
            }
            return with_rater(own, summed(self._earlier_rater, self._rater))

    def get_state(self) -> dict[str, Any]:
        """What a run that is resumed needs beside the folder, as plain values."""
        with self._changed:
            return {
                "delivered": self._delivered,
                "waiting": self._backlog.get_state(time.monotonic()),
                "counts": self._grown(),
                "rater": summed(self._earlier_rater, self._rater),
            }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`get_state`: labels that came after it are delivered (again).

        Raises:
            ValueError: the folder holds fewer labels than had been delivered then.
        """
        with self._changed:
            if state["delivered"] > len(self._labelled):
                raise ValueError(
                    f"{self._folder} holds {len(self._labelled)} labels, and this run had been "
                    f"given {state['delivered']}; give the folder that the run began with."
                )
            self._delivered = state["delivered"]
            self._backlog.set_state(state["waiting"], time.monotonic())
            now = less(self._grown(), self._earlier)
            self._earlier = less(state["counts"], now)
            self._earlier_rater = less(state["rater"], self._rater)
            self._changed.notify_all()

    def close(self) -> None:
        """End the process. Questions in its hands are asked again by the next annotator."""
        if self._closed:
            return
        self._closed = True
        self._process.terminate()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._end_thread()
        self._process.close()
        self._only.release()

    def __enter__(self) -> "Annotator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the process ---------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """Number of the process that asks, None after :meth:`close`."""
        return None if self._closed else self._process.pid

    def _put(self, kind: str, questions: list[Question]) -> None:
        if self._closed:
            raise ValueError("Annotator: it is closed; make another one on the same folder.")
        if kind != self.kind:
            raise ValueError(
                f"Annotator: this one asks questions of kind {self.kind!r}; use "
                f"{'offer_pairs' if self.kind == 'ranking' else 'offer'}, or make it with "
                f"kind={kind!r}."
            )
        with self._changed:
            self._backlog.add(questions)
            self._changed.notify_all()
        self._keep_alive()

    def _new_process(self) -> tuple[BaseProcess, Channel]:
        return start(self._folder, self._make_rater, self.kind, self._retry_s)

    def _adopt(self, process: BaseProcess, channel: Channel) -> None:
        self._process, self._channel = process, channel
        self._useful = False
        self._started_at = time.monotonic()
        self._thread = threading.Thread(target=self._serve, args=(channel,), daemon=True)
        self._thread.start()

    def _serve(self, channel: Channel) -> None:
        """Answer one process's wishes for questions, in a thread that sleeps otherwise."""
        try:
            while True:
                report = channel.recv()
                if report.goes_on:
                    with self._changed:
                        self._note(report)
                elif (questions := self._next(channel, report)) is None:
                    return
                else:
                    channel.send(questions)
        except (EOFError, OSError):
            return  # it has died; whoever calls next sees that

    def _next(self, channel: Channel, report: Report) -> list[Question] | None:
        """Take note of what came of the last questions, and wait until there are others."""
        with self._changed:
            self._settle(report)
            while self._channel is channel and not self._closed:
                now = time.monotonic()
                if questions := self._backlog.take(self._batch, now):
                    return questions
                self._changed.wait(self._backlog.next_due(now))
        return None

    def _note(self, report: Report) -> None:
        self._rater = report.counts
        if report.written is not None:
            self._read(report.written)

    def _settle(self, report: Report) -> None:
        self._note(report)
        if report.error is not None:
            self._tell(report.error.partition(":")[0], failing(report.error))
        for message in report.warned:
            self._tell(message, message)
        self._failures += report.down
        if report.down:
            self._backlog.give_back()
        else:
            self._backlog.postpone(time.monotonic(), self._retry_s)

    def _read(self, until: int | None = None) -> None:
        """Take the labels that were written since the last look; all if nobody writes."""
        new = self._reader.read(until)
        self._labelled += new
        self._useful |= len(new) > 0
        self._backlog.answered(question for question, _ in new)

    def _keep_alive(self) -> None:
        """Pass on what went wrong, and replace a process that has died."""
        if self._closed:
            return
        if not self._process.is_alive():
            with self._changed:
                self._read()  # what it wrote before it died
            self._restart()
        with self._changed:
            news, self._news = self._news, []
        for message in news:
            warnings.warn(message, RuntimeWarning, stacklevel=4)

    def _restart(self) -> None:
        """Start another process, at once if the last one was of use, else after a while."""
        wait_s = 0.0 if self._useful else min(2.0**self._futile - 1.0, _LONGEST_WAIT_S)
        if time.monotonic() < self._started_at + wait_s:
            return
        self._futile = 0 if self._useful else self._futile + 1
        if self._futile == _SEVERAL:
            self._tell(
                "ends",
                "The annotator's process ends before it has any answer (exit code "
                f"{self._process.exitcode}; its own message is above); training goes on without "
                "labels.",
            )
        try:
            process, channel = self._new_process()
        except OSError as error:
            self._started_at, self._useful = time.monotonic(), False
            self._tell("OSError", f"The annotator cannot be started again just now ({error}).")
            return
        self._end_thread()
        self._process.close()
        self._restarts += 1
        self._adopt(process, channel)

    def _end_thread(self) -> None:
        """Let go of a process that has ended, and take what it wrote before it did."""
        with self._changed:
            channel, self._channel = self._channel, None
            self._changed.notify_all()
        self._thread.join(_END_S)
        if channel is not None:
            channel.close()
        with self._changed:
            self._read()
            self._backlog.postpone(time.monotonic(), self._retry_s)
            self._earlier_rater, self._rater = summed(self._earlier_rater, self._rater), {}

    def _grown(self) -> dict[str, int]:
        own = {
            "asked": self._backlog.asked,
            "dropped": self._backlog.dropped,
            "failures": self._failures,
            "restarts": self._restarts,
        }
        return summed(self._earlier, own)

    def _tell(self, what: str, message: str) -> None:
        """Have the next call warn of something that it has not been warned of."""
        if what not in self._told:
            self._told.add(what)
            self._news.append(message)
