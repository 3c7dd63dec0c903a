"""Questions that wait for an answer: newest first, each once, and no more than so many.

What was seen last is what the agent does now; first come, first served would have it wait behind
all that was seen while the agent was still lost. Source: Zheng et al. (2024), arXiv:2410.23022
(ONI).
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from prefgym.annotation.labels import Question

_DOUBLINGS = 9
"""A question waits at most 2⁹ units to be asked again."""


@dataclass
class _Entry:
    question: Question
    number: int
    """Offers are numbered; a higher one is newer."""
    due: float = 0.0
    """Not to be asked before."""
    failures: int = 0


class Backlog:
    """Which questions wait, which are being asked, and which were answered.

    Time is whatever the caller counts: seconds, or offers. A question is the same as its mirror
    image. Questions about the empty caption, and of a caption with itself, are not taken.

    Args:
        capacity: questions that may wait; beyond it the oldest are dropped, and may be offered
            again.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; wanted 1 question or more.")
        self._capacity = capacity
        self._waiting: OrderedDict[Question, _Entry] = OrderedDict()
        """Oldest first, by :func:`_key`."""
        self._out: dict[Question, _Entry] = {}
        self._answered: set[Question] = set()
        self._next = 0
        self.asked = 0
        """Questions ever handed out, those asked again included."""
        self.dropped = 0

    def __len__(self) -> int:
        """How many wait for an answer, those that are being asked included."""
        return len(self._waiting) + len(self._out)

    def add(self, questions: Iterable[Question]) -> None:
        """Offer questions, oldest first. One that waits already becomes the newest."""
        for question in questions:
            key = _key(question)
            tells = all(one.strip() for one in key) and len(set(key)) == len(key)
            if tells and key not in self._answered and key not in self._out:
                entry = self._waiting.pop(key, None) or _Entry(question, 0)
                entry.number, self._next = self._next, self._next + 1
                self._waiting[key] = entry
        self._drop()

    def take(self, most: int, now: float) -> list[Question]:
        """Hand out the newest that are due, newest first."""
        due = (key for key, entry in reversed(self._waiting.items()) if entry.due <= now)
        keys = list(islice(due, most))
        for key in keys:
            self._out[key] = self._waiting.pop(key)
        self.asked += len(keys)
        return [self._out[key].question for key in keys]

    def next_due(self, now: float) -> float | None:
        """How long until a question is due that is not so now; None if there is none."""
        later = [entry.due for entry in self._waiting.values() if entry.due > now]
        return min(later) - now if later else None

    def answered(self, questions: Iterable[Question]) -> None:
        """These have their answer, and are never asked again."""
        for question in questions:
            key = _key(question)
            self._answered.add(key)
            self._out.pop(key, None)
            self._waiting.pop(key, None)

    def give_back(self) -> None:
        """All that is being asked waits again, at its old place: whoever was asked is not there."""
        merged = [*self._waiting.items(), *self._out.items()]
        self._waiting = OrderedDict(sorted(merged, key=lambda one: one[1].number))
        self._out.clear()
        self._drop()

    def postpone(self, now: float, unit: float) -> None:
        """As :meth:`give_back`, for questions to which no answer can be had just now.

        Each waits ``unit`` times 1, 2, 4, ... before it is asked again.
        """
        for entry in self._out.values():
            entry.due = now + unit * 2 ** min(entry.failures, _DOUBLINGS)
            entry.failures += 1
        self.give_back()

    def get_state(self, now: float) -> list[dict[str, Any]]:
        """What waits, oldest first, as plain values; what is being asked waits as well."""
        entries = sorted([*self._waiting.values(), *self._out.values()], key=lambda one: one.number)
        return [
            {
                "captions": list(entry.question),
                "due_in": max(0.0, entry.due - now),
                "failures": entry.failures,
            }
            for entry in entries
        ]

    def set_state(self, state: Sequence[dict[str, Any]], now: float) -> None:
        """Wait for what waited in a :meth:`get_state`, unless it is known to have an answer."""
        self._waiting.clear()
        self._out.clear()
        for one in state:
            question = tuple(one["captions"])
            self.add([question])
            if (entry := self._waiting.get(_key(question))) is not None:
                entry.due, entry.failures = now + one["due_in"], one["failures"]

    def _drop(self) -> None:
        while len(self._waiting) > self._capacity:
            self._waiting.popitem(last=False)
            self.dropped += 1


def _key(question: Question) -> Question:
    return tuple(sorted(question))
