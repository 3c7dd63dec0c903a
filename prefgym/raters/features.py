"""A few numbers of a whole segment: where it went, which way it turned, of which kind it is.

Raters that cannot be told by one sum read these. A *plane* is a pair of numbers per segment; its
direction from the origin is the *heading* of a segment.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from prefgym.names import lookup
from prefgym.raters.scores import WeightedFactors
from prefgym.segments import Segments

Plane = Callable[[Segments], Any]
"""Two numbers per segment, ``[batch, 2]``."""
Kind = Callable[[Segments], Any]
"""The kind of every segment, ``[batch]`` whole numbers from 0."""

ROUNDING = 1e-9
"""Angles (in radians, or their sines) that differ by no more are equal."""


def observed(segments: Segments, columns: Sequence[int]) -> Float[np.ndarray, " batch steps k"]:
    """Some numbers of every observation, which is flattened first.

    Raises:
        ValueError: there are no observations, or not so many numbers in one.
    """
    if segments.observations is None:
        raise ValueError(
            f"Rater: columns {', '.join(map(str, columns))} of observations were asked for, and "
            "these segments hold no observations (text?); name two factors, or give a function "
            "of segments."
        )
    flat = _flat(segments.observations)
    unknown = [one for one in columns if not 0 <= one < flat.shape[2]]
    if unknown:
        raise ValueError(
            f"Rater: there is no column {unknown[0]} of observations, which have"
            f" {flat.shape[2]} numbers here (columns 0 to {flat.shape[2] - 1}); choose among these."
        )
    chosen: np.ndarray = flat[:, :, list(columns)].astype(np.float64)
    return chosen


@dataclass(frozen=True)
class Columns:
    """Columns of the observations, brought to one number each."""

    columns: tuple[int, ...]
    over: str = "last"
    """Of the real steps: "last", "mean", "sum", or "change" (the last minus the first)."""
    unit: float = 1.0
    """What the result is multiplied by, for example the seconds of a step."""

    def __post_init__(self) -> None:
        """Refuse an unknown way of bringing steps to one number."""
        lookup(self.over, _OVER, "way to bring steps to one number")

    def __call__(self, segments: Segments) -> Float[np.ndarray, " batch k"]:
        """One number per column; 0 for a segment without steps."""
        values = np.where(segments.mask[:, :, None], observed(segments, self.columns), 0.0)
        return self.unit * _OVER[self.over](values, segments.lengths)


@dataclass(frozen=True)
class FactorSums:
    """The sums of some named factors over a segment."""

    names: tuple[str, ...]

    def __call__(self, segments: Segments) -> Float[np.ndarray, " batch k"]:
        """One sum per factor."""
        steps = [WeightedFactors({name: 1.0})(segments) for name in self.names]
        sums: np.ndarray = np.where(segments.mask[:, :, None], np.stack(steps, -1), 0.0).sum(1)
        return sums


@dataclass(frozen=True)
class Walk:
    """Where a walk ends in which action k of n is a step of length 1 in direction 2πk/n."""

    choices: int
    """n, how many actions (or tokens) there are."""
    steps: int | None = None
    """Walk the first so many steps only; None: all."""

    def __call__(self, segments: Segments) -> Float[np.ndarray, " batch 2"]:
        """The end of the walk of every segment, which begins at (0, 0)."""
        taken = slice(None, self.steps)
        angle = 2.0 * np.pi / self.choices * np.asarray(segments.actions[:, taken], np.float64)
        if angle.ndim != 2:
            raise ValueError(
                f"Rater: a walk needs one whole number per action, and these have shape"
                f" {segments.actions.shape[2:]}; name two columns of observations instead."
            )
        steps = np.stack([np.cos(angle), np.sin(angle)], -1)
        end: np.ndarray = np.where(segments.mask[:, taken, None], steps, 0.0).sum(1)
        return end


@dataclass(frozen=True)
class Sectors:
    """Kinds of segments: in which of n equal sectors of the circle the heading lies.

    Kind 0 begins at angle 0 and goes anticlockwise; a segment without a heading is of kind 0.
    """

    plane: Plane
    kinds: int = 3

    def __call__(self, segments: Segments) -> Int[np.ndarray, " batch"]:
        """The kind of every segment, 0 to n − 1."""
        x, y = read_plane(self.plane, segments).T
        turn = np.arctan2(y, x) * self.kinds / (2.0 * np.pi)
        kind: np.ndarray = np.floor(turn + ROUNDING).astype(np.int64) % self.kinds
        return kind


def as_plane(what: Any, over: str = "last") -> Plane:
    """The plane that is meant.

    Args:
        what: two column numbers, two names of factors, or a function of segments.
        over: what becomes of the steps of a column; see :class:`Columns`.

    Raises:
        ValueError: it is none of these.
    """
    if callable(what):
        plane: Plane = what
        return plane
    pair = tuple(what) if isinstance(what, Sequence) and not isinstance(what, str) else ()
    if len(pair) == 2 and all(isinstance(one, str) for one in pair):
        return FactorSums(pair)
    if len(pair) == 2 and all(isinstance(one, int) for one in pair):
        return Columns(pair, over)
    raise ValueError(
        f"Rater: plane={what!r} is no pair of numbers of a segment; give two columns of "
        "observations ([0, 1]), two factors (['progress', 'height']), or a function of segments "
        "that returns [batch, 2]."
    )


def read_plane(plane: Plane, segments: Segments) -> Float[np.ndarray, " batch 2"]:
    """The two numbers of every segment.

    Raises:
        ValueError: they have another shape, or are NaN or infinite somewhere.
    """
    numbers = np.asarray(plane(segments), np.float64)
    if numbers.shape != (len(segments), 2):
        raise ValueError(
            f"Rater: the plane gave shape {numbers.shape} for {len(segments)} segments; it must "
            f"give two numbers each, shape ({len(segments)}, 2)."
        )
    finite = np.isfinite(numbers).all(1)
    if not finite.all():
        raise ValueError(
            f"Rater: a number of segment {int(np.argmin(finite))} in the plane is NaN or infinite, "
            "and such a segment cannot be compared; look for the step at which the environment "
            "went wrong."
        )
    return numbers


def step_numbers(of: int | str | Kind | None, segments: Segments) -> Float[np.ndarray, " b t"]:
    """One number of every step.

    Args:
        of: a column of the observations, the name of a factor, or a function of segments; None is
            the first number of the observation, and the action where there are no observations.
        segments: whose steps.

    Raises:
        ValueError: the segments do not hold it, or the function answers in another shape.
    """
    if isinstance(of, str):
        return WeightedFactors({of: 1.0})(segments)
    if of is None and segments.observations is None:
        return _flat(segments.actions)[:, :, 0].astype(np.float64)
    if of is None or isinstance(of, int):
        return observed(segments, [of or 0])[:, :, 0]
    values = np.asarray(of(segments), np.float64)
    if values.shape != segments.mask.shape:
        raise ValueError(
            f"Rater: your function gave shape {values.shape}, wanted one number per step,"
            f" {segments.mask.shape}."
        )
    return values


def _flat(values: np.ndarray) -> np.ndarray:
    """[batch, steps, numbers], whatever one step looks like."""
    return values.reshape(*values.shape[:2], math.prod(values.shape[2:]))


def _last(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    place = np.maximum(lengths - 1, 0)
    last: np.ndarray = values[np.arange(len(values)), place]
    return last


def _mean(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    mean: np.ndarray = values.sum(1) / np.maximum(lengths, 1)[:, None]
    return mean


_OVER: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "last": _last,
    "mean": _mean,
    "sum": lambda values, _: np.asarray(values.sum(1)),
    "change": lambda values, lengths: _last(values, lengths) - values[:, 0],
}
