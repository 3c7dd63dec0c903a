"""A rater that knows which factors matter more than which, and no weights.

Source: Bukharin et al. (2023), HERON, arXiv:2309.02632. Factors come in the order of their
importance, each with a margin, a multiple of the factor's standard deviation. The first factor by
which two segments differ by more than its margin decides; where none does, there is no answer.

What the factors are worth is nowhere said, so labels stay the same when a factor is measured in
other units.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from prefgym.comparisons import Labels
from prefgym.names import lookup
from prefgym.raters.scripted import check_pair
from prefgym.segments import Segments

DEVIATIONS = ("history", "recent", "batch")
OVER = ("sum", "mean")
UNDECIDED = "undecided"
TELLING = 20
"""Pairs of which, if no factor decides a single one, the hierarchy is said to decide nothing."""
SETTLED = 1_000
"""Segments seen before that is said of a hierarchy that is asked about single pairs: the first ones
of a run may all be alike."""


class Level(NamedTuple):
    """One factor of a hierarchy."""

    name: str
    sign: float
    """1 where more is better, −1 where less is."""


def levels(factors: str | Sequence[str]) -> tuple[Level, ...]:
    """The levels of a hierarchy, the most important first.

    >>> levels("-angle2, -speed2")
    (Level(name='angle2', sign=-1.0), Level(name='speed2', sign=-1.0))

    Args:
        factors: names, or one string of names with commas; "-" before a name: less is better.

    Raises:
        ValueError: there is no name, or one comes twice.
    """
    words = factors.split(",") if isinstance(factors, str) else list(factors)
    found = tuple(
        Level(word.strip().lstrip("+-").strip(), -1.0 if word.strip().startswith("-") else 1.0)
        for word in words
    )
    names = [one.name for one in found]
    if not all(names) or not names or len(set(names)) < len(names):
        raise ValueError(
            f"A hierarchy of factors was given as {factors!r}; name at least one factor, each once,"
            " the most important first, with a minus where less is better: '-angle2,-speed2'."
        )
    return found


@dataclass(frozen=True)
class Spread:
    """Mean and sum of squared differences from it of all that was seen so far, per level."""

    count: int
    mean: tuple[float, ...]
    squares: tuple[float, ...]

    def with_more(self, values: Float[np.ndarray, " batch levels"]) -> "Spread":
        """What it is after these values too (Chan, Golub and LeVeque 1983)."""
        if not len(values):
            return self
        count, mean = self.count + len(values), np.array(self.mean)
        gap = values.mean(0) - mean
        mean = mean + gap * (len(values) / count)
        squares = self.squares + ((values - values.mean(0)) ** 2).sum(0)
        squares = squares + gap**2 * (self.count * len(values) / count)
        return Spread(count, tuple(mean.tolist()), tuple(squares.tolist()))

    @property
    def deviation(self) -> Float[np.ndarray, " levels"]:
        """The standard deviation of each level."""
        found: np.ndarray = np.sqrt(np.array(self.squares) / max(self.count, 1))
        return found


class _Judgement(NamedTuple):
    level: Int[np.ndarray, " batch"]
    """Which level decides; as many as there are levels where none does."""
    preferred: Float[np.ndarray, " batch"]
    """1 where ``a`` is, 0 where ``b`` is, ½ where nothing decides."""


@dataclass(frozen=True)
class HierarchyRater:
    """Prefers by the first factor that tells two segments apart, and is silent where none does.

    With z_l the l-th factor of a segment, s_l its sign and δ_l = margin_l · deviation_l, the first
    l with abs(z_l(a) − z_l(b)) > δ_l decides: ``a`` if s_l (z_l(a) − z_l(b)) > 0. A factor of a
    segment is its sum over the real steps, as in a return, so that of two segments of different
    length the longer one has more of what is measured; ``over="mean"`` compares step for step.

    Deviations are those of segments such as are compared, in the unit of the factor. They follow
    what :meth:`adapted_to` was told: all of it ("history"), or the last of it ("recent"). Until it
    was told something, and always with "batch", they are those of the segments in the call, both
    sides together; so "batch" needs many pairs at a time. Numbers (one, or one per level) are fixed
    deviations. "history" drifts slowly, "recent" and "batch" are as noisy as they are small.

    Whether a factor is about success or a time-out is the environment's to say; those of this
    package that speak of an end (``goal``, ``alive``, ``fallen``) read ``terminated`` only.

    A rater is a value: equal fields answer alike, and nothing in it changes.

    Raises:
        ValueError: no factor or one twice, another number of margins than of factors, a margin or a
            deviation below 0, or settings that do not exist.
    """

    factors: str | Sequence[str]
    """The most important first; see :func:`levels`."""
    margins: float | Sequence[float] = 0.5
    """Standard deviations by which segments must differ, one for all levels or one for each. With 0
    at a level of measured numbers, the levels below it decide next to nothing; above 2 most pairs
    are undecided at it."""
    deviation: str | float | Sequence[float] = "history"
    """"history", "recent", "batch", or numbers in the units of the factors."""
    over: str = "sum"
    """How a segment's steps make one number: "sum" or "mean"."""
    mistake: float = 0.0
    """Probability of turning an answer round."""
    rater_id: int = 0
    rounding: float = 1e-9
    """Factors that differ by no more than this share of their size are equal."""
    spread: Spread | None = None
    """Of what it was told of; None before that."""
    meaning: str = "hierarchy"

    def __post_init__(self) -> None:
        """Bring everything to one number per level, and refuse what cannot be."""
        found = levels(self.factors)
        signed = tuple(("-" if one.sign < 0.0 else "") + one.name for one in found)
        object.__setattr__(self, "factors", signed)
        object.__setattr__(self, "margins", _per_level("margins", self.margins, signed))
        if isinstance(self.deviation, str):
            lookup(self.deviation, dict.fromkeys(DEVIATIONS), "deviation of a hierarchy")
        else:
            fixed = _per_level("deviation", self.deviation, signed)
            object.__setattr__(self, "deviation", fixed)
        lookup(self.over, dict.fromkeys(OVER), "way to sum up a segment")
        if not 0.0 <= self.mistake <= 1.0:
            raise ValueError(
                f"HierarchyRater: mistake is {self.mistake}; give a number from 0 to 1."
            )

    @property
    def levels(self) -> tuple[Level, ...]:
        """Names and signs, the most important first."""
        return levels(self.factors)

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """Answer the pairs that a factor decides: 1 where ``a`` is preferred, 0 where ``b`` is.

        Raises:
            ValueError: the two batches differ in size, or lack a factor.
        """
        judged = self._judge(a, b)
        answered = judged.level < len(self.levels)
        self._warn_of_silence(judged)
        label = judged.preferred
        if self.mistake:
            label = np.where(rng.random(len(a)) < self.mistake, 1.0 - label, label)
        return Labels(label, answered, np.full(len(a), self.rater_id, np.int64))

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """P(a ≻ b) after mistakes, exact; ½ where no factor decides."""
        preferred = self._judge(a, b).preferred
        chance: np.ndarray = preferred + self.mistake * (1.0 - 2.0 * preferred)
        return chance

    def answer_probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """1 where a factor decides, 0 elsewhere."""
        return (self._judge(a, b).level < len(self.levels)).astype(np.float64)

    def shares_decided(self, a: Segments, b: Segments) -> dict[str, float]:
        """Which share of the pairs each level decides, in their order, and "undecided" the rest."""
        return self._shares(self._judge(a, b))

    def measured(self, segments: Segments) -> Float[np.ndarray, " batch levels"]:
        """What is compared of each segment: its factors, in the order of the hierarchy.

        Raises:
            ValueError: the segments lack a factor, or it is NaN or infinite somewhere.
        """
        plain = segments.numpy()
        names = [one.name for one in self.levels]
        missing = [name for name in names if name not in plain.factors]
        if missing:
            raise ValueError(
                f"HierarchyRater: the segments hold no factor {missing[0]!r}, only"
                f" {', '.join(sorted(plain.factors)) or 'none'}; choose among these."
            )
        steps = np.stack([np.asarray(plain.factors[name], np.float64) for name in names])
        if not plain.mask.all():
            steps = np.where(plain.mask, steps, 0.0)
        found: np.ndarray = np.einsum("lbt->bl", steps)
        if self.over == "mean":
            found = found / np.maximum(plain.lengths, 1)[:, None]
        finite = np.isfinite(found)
        if not finite.all():
            segment, level = np.argwhere(~finite)[0]
            raise ValueError(
                f"HierarchyRater: factor {names[level]!r} of segment {segment} is NaN or infinite, "
                "and such a segment cannot be compared; look for the step at which the environment "
                "went wrong."
            )
        return found

    @property
    def adaptive(self) -> bool:
        """Whether its margins follow what segments are like."""
        return self.deviation in ("history", "recent") and any(_numbers(self.margins))

    def adapted_to(self, seen: Segments) -> "HierarchyRater":
        """The same hierarchy, its deviations told of these segments too (or of these alone)."""
        if not self.adaptive:
            return self
        values, none = self.measured(seen), (0.0,) * len(self.levels)
        before = self.spread if self.deviation == "history" else None
        adapted = replace(self, spread=(before or Spread(0, none, none)).with_more(values))
        if adapted.spread is not None and adapted.spread.count >= SETTLED:
            adapted._warn_of_silence(adapted._compared(values[1:], values[:-1]))
        return adapted

    def memory(self) -> dict[str, Any]:
        """What it was told of, as arrays."""
        known = self.spread or Spread(0, (), ())
        return {
            "count": known.count, "mean": np.array(known.mean), "squares": np.array(known.squares),
        }  # fmt: skip

    def remembering(self, memory: Mapping[str, Any]) -> "HierarchyRater":
        """The same hierarchy with a :meth:`memory`."""
        mean, squares = (tuple(np.asarray(memory[k]).tolist()) for k in ("mean", "squares"))
        count = int(memory["count"])
        return replace(self, spread=Spread(count, mean, squares) if count else None)

    def _judge(self, a: Segments, b: Segments) -> _Judgement:
        check_pair(a, b)
        return self._compared(self.measured(a), self.measured(b))

    def _compared(
        self,
        a: Float[np.ndarray, " batch levels"],
        b: Float[np.ndarray, " batch levels"],
    ) -> _Judgement:
        """All pairs at all levels at once."""
        gap = (a - b) * np.array([one.sign for one in self.levels])
        margin = np.array(self.margins) * self._deviations(a, b)
        slack = self.rounding * np.maximum(np.abs(a), np.abs(b))
        apart = np.abs(gap) > margin + slack
        level = np.where(apart.any(1), apart.argmax(1), len(self.levels))
        deciding = np.where(apart, gap, 0.0)[np.arange(len(a)), np.minimum(level, len(margin) - 1)]
        return _Judgement(level, 0.5 + 0.5 * np.sign(deciding))

    def _deviations(
        self,
        a: Float[np.ndarray, " batch levels"],
        b: Float[np.ndarray, " batch levels"],
    ) -> Float[np.ndarray, " levels"]:
        if not isinstance(self.deviation, str):
            return np.array(self.deviation)
        if self.deviation != "batch" and self.spread is not None:
            return self.spread.deviation
        if not len(a):
            return np.zeros(a.shape[1])
        # Written so that the two sides may change places without a change in the last bit.
        between = 0.5 * (a.mean(0) - b.mean(0))
        found: np.ndarray = np.sqrt(0.5 * (a.var(0) + b.var(0)) + between**2)
        return found

    def _shares(self, judged: _Judgement) -> dict[str, float]:
        count = np.bincount(judged.level, minlength=len(self.levels) + 1)
        shares = count / max(len(judged.level), 1)
        return dict(zip((*self.factors, UNDECIDED), shares.tolist(), strict=True))

    def _warn_of_silence(self, judged: _Judgement) -> None:
        pairs = len(judged.level)
        if pairs < TELLING or (judged.level < len(self.levels)).any():
            return
        told = ", ".join(f"{name} {share:.0%}" for name, share in self._shares(judged).items())
        warnings.warn(
            f"HierarchyRater: of {pairs} pairs none was decided ({told}); lower the margins, or add"
            " a factor that differs between segments.",
            stacklevel=3,
        )


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(one) for one in np.ravel(values))


def _per_level(
    name: str, values: float | Sequence[float], factors: Sequence[str]
) -> tuple[float, ...]:
    """One number for each level."""
    try:
        known = _numbers(values)
    except (TypeError, ValueError):
        known = ()
    if len(known) == 1:
        known = known * len(factors)
    if len(known) != len(factors):
        raise ValueError(
            f"HierarchyRater: {name} is {values!r}, and there are {len(factors)} factors"
            f" ({', '.join(factors)}); give one number for all of them, or {len(factors)}."
        )
    if not all(0.0 <= one < np.inf for one in known):
        raise ValueError(f"HierarchyRater: {name} is {values!r}; give numbers of 0 or more.")
    return known
