"""Raters whose rule speaks about a pair and not about each of its segments.

No score stands behind such a rule: it may go round in a circle, which no reward can say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from prefgym.comparisons import Labels
from prefgym.raters.features import Kind
from prefgym.raters.scripted import check_pair
from prefgym.segments import Segments

PairRule = Callable[[Segments, Segments], Float[np.ndarray, " batch"]]
"""(a, b) -> P(a ≻ b), mirrored: P(a ≻ b) + P(b ≻ a) = 1."""


@dataclass(frozen=True)
class PairRater:
    """Answers drawn from a rule of pairs; where the rule says exactly ½, the answer is a tie."""

    rule: PairRule
    meaning: str
    """What the labels are about, as stored with them."""
    mistake: float = 0.0
    """Probability of turning an answer round; a tie stays a tie."""
    soft: bool = False
    """Answer with the probability itself instead of drawing from it."""
    rater_id: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        if not 0.0 <= self.mistake <= 1.0:
            raise ValueError(f"PairRater: mistake is {self.mistake}; give a number from 0 to 1.")

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """Answer every pair: 1 where ``a`` is preferred, 0 where ``b`` is, ½ for a tie."""
        label = self.probability(a, b)
        if not self.soft:
            drawn = (rng.random(len(a)) < label).astype(np.float64)
            label = np.where(label == 0.5, 0.5, drawn)
        return Labels(label, np.ones(len(a), bool), np.full(len(a), self.rater_id, np.int64))

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """What the rule says, after mistakes; exact."""
        check_pair(a, b)
        preferred = np.asarray(self.rule(a.numpy(), b.numpy()), np.float64)
        chance: np.ndarray = preferred + self.mistake * (1.0 - 2.0 * preferred)
        return chance


@dataclass(frozen=True)
class PreferenceMatrix:
    """P(a ≻ b) = matrix[kind of a][kind of b].

    Raises:
        ValueError: the matrix is not square, or not mirrored.
    """

    matrix: tuple[tuple[float, ...], ...]
    """Kinds × kinds. Entry and mirror entry add up to 1, so that the diagonal is ½."""
    kind: Kind
    """Which kind every segment is of."""

    def __post_init__(self) -> None:
        """Take lists and arrays too, and refuse what is no preference."""
        object.__setattr__(self, "matrix", _checked_matrix(self.matrix))

    def __call__(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """The entry of every pair."""
        first, second = (self._kinds(side) for side in (a, b))
        entries: np.ndarray = np.array(self.matrix)[first, second]
        return entries

    def _kinds(self, segments: Segments) -> np.ndarray:
        kinds, count = np.asarray(self.kind(segments)), len(self.matrix)
        if kinds.shape != (len(segments),) or kinds.dtype.kind not in "iu":
            raise ValueError(
                f"PreferenceMatrix: the kinds came as {kinds.dtype} of shape {kinds.shape}; wanted "
                f"one whole number per segment, shape ({len(segments)},)."
            )
        if kinds.size and (kinds.min() < 0 or kinds.max() >= count):
            outside = kinds[(kinds < 0) | (kinds >= count)][0]
            raise ValueError(
                f"PreferenceMatrix: a segment is of kind {outside}, and the matrix has {count} (0 "
                f"to {count - 1}); give a larger matrix or fewer kinds."
            )
        return kinds


def matrix_rater(
    matrix: Sequence[Sequence[float]] | np.ndarray, kind: Kind, **options: Any
) -> PairRater:
    """A rater that looks at nothing but the kinds of two segments.

    Args:
        matrix: P(row's kind ≻ column's kind), kinds × kinds.
        kind: which kind every segment is of.
        **options: fields of :class:`PairRater`.

    Raises:
        ValueError: entries and mirror entries do not add up to 1.
    """
    rule = PreferenceMatrix(_checked_matrix(matrix), kind)
    return PairRater(rule, **{"meaning": "matrix", **options})


def _checked_matrix(matrix: Any) -> tuple[tuple[float, ...], ...]:
    try:
        known = np.asarray(matrix, np.float64)
    except (TypeError, ValueError):
        known = np.empty(0)
    if known.ndim != 2 or known.shape[0] != known.shape[1] or not known.size:
        raise ValueError(
            f"PreferenceMatrix: got {known.shape if known.size else matrix!r}; give one row and "
            "one column per kind, [kinds, kinds] numbers."
        )
    off = np.abs(known + known.T - 1.0)
    if not ((known >= 0.0) & (known <= 1.0)).all() or (off > 1e-6).any():
        row, column = np.unravel_index(int(np.argmax(np.nan_to_num(off, nan=np.inf))), off.shape)
        raise ValueError(
            f"PreferenceMatrix: P({row} ≻ {column}) = {known[row, column]:.6g} and"
            f" P({column} ≻ {row}) = {known[column, row]:.6g}; give probabilities from 0 to 1 of "
            "which entry and mirror entry add up to 1."
        )
    exact = 0.5 + 0.5 * (known - known.T)
    return tuple(tuple(row) for row in exact.tolist())
