"""The annotator without a process: answers in the call itself, at offers that are counted.

What it does is a function of what was offered alone, so that a run can be repeated exactly.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from prefgym.annotation.annotator import CAPACITY
from prefgym.annotation.asking import (
    CaptionRater,
    ask,
    counts_of,
    failing,
    less,
    summed,
    with_rater,
)
from prefgym.annotation.backlog import Backlog
from prefgym.annotation.labels import (
    Labelled,
    Labels,
    Question,
    as_labels,
    captions_in_question,
)


class Inline:
    """The face of :class:`~prefgym.annotation.Annotator`, for a rater that answers at once.

    The newest ``batch`` questions are answered at every ``every``-th offer, an empty offer
    included. A question without an answer is asked again 1, 2, 4, ... offers later.

    Args:
        rater: who answers.
        kind: "helpful" (one caption) or "ranking" (two).
        batch: questions in one call of the rater.
        every: offers between two calls.
        capacity: questions that may wait; the oldest beyond it are dropped and counted.
    """

    def __init__(
        self,
        rater: CaptionRater,
        kind: str = "helpful",
        batch: int = 100,
        every: int = 1,
        capacity: int = CAPACITY,
    ) -> None:
        captions_in_question(kind)
        if batch < 1 or every < 1:
            raise ValueError(f"Inline: batch is {batch} and every {every}; wanted 1 or more.")
        self.kind = kind
        self._rater, self._batch, self._every = rater, batch, every
        self._capacity, self._backlog = capacity, Backlog(capacity)
        self._labelled: list[Labelled] = []
        self._delivered = self._offers = self._failures = 0
        self._earlier: dict[str, int] = {}
        self._earlier_rater: dict[str, int] = {}
        self._warned = False

    def offer(self, captions: Iterable[str]) -> None:
        """Have captions judged, the last of them first; what is known or waits is not taken."""
        self._put("helpful", [(caption,) for caption in captions])

    def offer_pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Have pairs compared, the last of them first; a mirrored pair is the same one."""
        self._put("ranking", list(pairs))

    def labels(self) -> Labels:
        """The labels since the last call."""
        new = self._labelled[self._delivered :]
        self._delivered += len(new)
        return as_labels(self.kind, new)

    def counts(self) -> dict[str, int]:
        """As those of the annotator with a process, which has a few more."""
        own = self._grown() | {"labelled": len(self._labelled), "waiting": len(self._backlog)}
        return with_rater(own, summed(self._earlier_rater, counts_of(self._rater)))

    def get_state(self) -> dict[str, Any]:
        """Everything, the labels included, as plain values; the rater is the user's own."""
        return {
            "offers": self._offers,
            "delivered": self._delivered,
            "labelled": [[list(question), label] for question, label in self._labelled],
            "waiting": self._backlog.get_state(float(self._offers)),
            "counts": self._grown(),
            "rater": summed(self._earlier_rater, counts_of(self._rater)),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`get_state`."""
        self._offers, self._delivered = state["offers"], state["delivered"]
        self._labelled = [(tuple(question), label) for question, label in state["labelled"]]
        self._backlog, self._failures = Backlog(self._capacity), 0
        self._backlog.set_state(state["waiting"], float(self._offers))
        self._backlog.answered(question for question, _ in self._labelled)
        self._earlier = dict(state["counts"])
        self._earlier_rater = less(state["rater"], counts_of(self._rater))

    def close(self) -> None:
        """Nothing to end."""

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, kind: str, questions: list[Question]) -> None:
        if kind != self.kind:
            raise ValueError(
                f"Inline: this annotator asks questions of kind {self.kind!r}; use "
                f"{'offer_pairs' if self.kind == 'ranking' else 'offer'}, or make it with "
                f"kind={kind!r}."
            )
        self._backlog.add(questions)
        self._offers += 1
        if self._offers % self._every == 0:
            self._ask()

    def _ask(self) -> None:
        questions = self._backlog.take(self._batch, float(self._offers))
        if not questions:
            return
        outcome = ask(self._rater, self.kind, questions)
        self._labelled += outcome.labelled
        self._backlog.answered(question for question, _ in outcome.labelled)
        self._failures += outcome.down
        if outcome.down:
            self._backlog.give_back()
        else:
            self._backlog.postpone(float(self._offers), 1.0)
        if outcome.error is not None and not self._warned:
            self._warned = True
            warnings.warn(failing(outcome.error), RuntimeWarning, stacklevel=4)

    def _grown(self) -> dict[str, int]:
        own = {
            "asked": self._backlog.asked,
            "dropped": self._backlog.dropped,
            "failures": self._failures,
        }
        return summed(self._earlier, own)
