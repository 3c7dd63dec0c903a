"""Ask a rater of captions, and survive whatever it does."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from prefgym.annotation.labels import Labelled, Question
from prefgym.judges.endpoint_errors import SECRET
from prefgym.streams import together


@runtime_checkable
class CaptionRater(Protocol):
    """Whoever judges captions, such as ``prefgym.raters.language.LanguageRater``."""

    @property
    def counts(self) -> dict[str, int]:
        """Numbers that only grow: "unparsable" (answers that say nothing), "blank", ..."""
        ...

    def helpful(self, captions: Sequence[str]) -> np.ndarray:
        """1, 0 or NaN (no answer) for each."""
        ...

    def prefer(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """P(first preferred) or NaN (no answer) for each pair."""
        ...


@runtime_checkable
class StreamingRater(Protocol):
    """A rater, too, whose labels can be had as they come, so that a kill loses hardly any."""

    def stream(self, kind: str, questions: Sequence[Question]) -> Iterator[tuple[int, float]]:
        """Number and label of every question that gets one, as soon as it does."""
        ...


class Outcome(NamedTuple):
    """What came of asking."""

    labelled: list[Labelled]
    down: bool = False
    """Whoever was asked is not there: nothing came back that has to do with the questions."""
    error: str | None = None


def ask(
    rater: CaptionRater,
    kind: str,
    questions: Sequence[Question],
    heard: Callable[[Sequence[Labelled]], None] = lambda labelled: None,
) -> Outcome:
    """One call of the rater. An exception is an outcome like any other.

    Args:
        rater: who is asked.
        kind: of all questions.
        questions: the newest first.
        heard: is given labels while others still come; the outcome has them all, by question.
    """
    before, labels = _signs_of_life(rater), dict[int, float]()
    error = None
    try:
        for some in _as_they_come(rater, kind, questions):
            heard([(questions[number], label) for number, label in some])
            labels.update(some)
    except Exception as failure:
        error = told(failure)
    labelled = [(questions[number], labels[number]) for number in sorted(labels)]
    if error is None and not labelled and _signs_of_life(rater) == before:
        error = "no answer came"
    return Outcome(labelled, error is not None and not labelled, error)


def _as_they_come(
    rater: CaptionRater, kind: str, questions: Sequence[Question]
) -> Iterator[list[tuple[int, float]]]:
    """Numbers and labels of the questions that get one."""
    if isinstance(rater, StreamingRater):
        yield from together(_sound(label) for label in rater.stream(kind, questions))
        return
    columns = [list(column) for column in zip(*questions, strict=True)]
    given = rater.helpful(*columns) if kind == "helpful" else rater.prefer(*columns)
    label = np.asarray(given, np.float64)
    if label.shape != (len(questions),) or ((label < 0.0) | (label > 1.0)).any():
        raise ValueError(
            f"the rater gave {label!r} for {len(questions)} questions; wanted as many numbers in"
            " [0, 1] or NaN"
        )
    yield [(number, float(label[number])) for number in np.isfinite(label).nonzero()[0].tolist()]


def _sound(answered: tuple[int, float]) -> tuple[int, float]:
    """A question's number and its label, if it is one."""
    if not 0.0 <= answered[1] <= 1.0:
        raise ValueError(
            f"the rater gave {answered[1]!r} for a question; wanted a number in [0, 1], and none"
            " where there is no answer"
        )
    return answered


def failing(error: str) -> str:
    """What is said once of a judge that fails."""
    return (
        f"The annotator's judge fails ({error}); training goes on, and its questions are asked "
        "again."
    )


def counts_of(rater: CaptionRater) -> dict[str, int]:
    """The rater's own counts, as plain numbers."""
    return {str(name): int(value) for name, value in dict(rater.counts).items()}


def told(error: BaseException) -> str:
    """One line about an error, with every secret of the environment blotted out."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    for name, value in os.environ.items():
        secret = any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSWORD"))
        if secret and len(value) >= SECRET:
            text = text.replace(value, "***")
    return text[:_LINE]


_LINE = 300
_ALIVE = ("unparsable", "blank", "too_long", "refused", "unfinished")
"""What a rater counts that shows somebody to be there, though the question has no label."""


def _signs_of_life(rater: CaptionRater) -> int:
    return sum(int(rater.counts.get(name, 0)) for name in _ALIVE)


def summed(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Counts of two lives of a rater."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def less(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """By how much counts are more than others."""
    return summed(one, {name: -value for name, value in other.items()})


def with_rater(own: dict[str, int], rater: Mapping[str, int]) -> dict[str, int]:
    """Counts of who asks and, under names of their own, of who answers."""
    return {(f"judge_{name}" if name in own else name): one for name, one in rater.items()} | own
