"""Ask a rater of captions, and survive whatever it does."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from prefgym.annotation.labels import Labelled, Question


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


class Outcome(NamedTuple):
    """What came of asking."""

    labelled: list[Labelled]
    down: bool = False
    """Whoever was asked is not there: nothing came back that has to do with the questions."""
    error: str | None = None


def ask(rater: CaptionRater, kind: str, questions: Sequence[Question]) -> Outcome:
    """One call of the rater. An exception is an outcome like any other."""
    before = _without_sense(rater)
    columns = [list(column) for column in zip(*questions, strict=True)]
    try:
        given = rater.helpful(*columns) if kind == "helpful" else rater.prefer(*columns)
        label = np.asarray(given, np.float64)
        if label.shape != (len(questions),) or ((label < 0.0) | (label > 1.0)).any():
            raise ValueError(
                f"the rater gave {label!r} for {len(questions)} questions; wanted as many numbers "
                "in [0, 1] or NaN"
            )
    except Exception as error:
        return Outcome([], True, told(error))
    there = np.isfinite(label)
    labelled = [(questions[i], float(label[i])) for i in there.nonzero()[0].tolist()]
    down = not labelled and _without_sense(rater) == before
    return Outcome(labelled, down, "no answer came" if down else None)


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
        if secret and len(value) >= _SECRET:
            text = text.replace(value, "***")
    return text[:_LINE]


_SECRET = 8
"""Characters from which on a value is worth hiding, and does not stand in every text."""
_LINE = 300


def _without_sense(rater: CaptionRater) -> int:
    return sum(int(rater.counts.get(name, 0)) for name in ("unparsable", "blank"))


def summed(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Counts of two lives of a rater."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def less(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """By how much counts are more than others."""
    return summed(one, {name: -value for name, value in other.items()})


def with_rater(own: dict[str, int], rater: Mapping[str, int]) -> dict[str, int]:
    """Counts of who asks and, under names of their own, of who answers."""
    return {(f"judge_{name}" if name in own else name): one for name, one in rater.items()} | own
