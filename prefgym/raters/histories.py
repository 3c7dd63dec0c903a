"""Rules over whole trajectories that no reward of single steps can say.

Source: Swamy et al. (2024), arXiv:2401.04056, whose non-Markovian preference asks what happened in
the first and what in the second part of an episode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from prefgym.raters.features import step_numbers
from prefgym.segments import Segments


@dataclass(frozen=True)
class LowThenHigh:
    """0, 1 or 2: a point for the low end in the first half, one for the high end in the second.

    Of a segment of n steps, steps t with 2t < n are the first half. An end counts as touched

    - with ``low`` or ``high`` given: where the number comes to at most ``low``, at least ``high``;
    - without: where that half goes lower (higher) than the other half does.

    Any reward of single steps that pays for both ends is earned best by staying at one of them, for
    a score of 1.
    """

    of: int | str | Callable[[Segments], Any] | None = None
    """A column of the observations, a factor, or a function of segments that gives one number per
    step. None: the first number of the observation, or the action where there are none."""
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Refuse ends that are the wrong way round."""
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(
                f"LowThenHigh: low is {self.low} and high is {self.high}; give a low end below the "
                "high one."
            )

    def __call__(self, segments: Segments) -> Float[np.ndarray, " batch"]:
        """The score of every segment.

        Raises:
            ValueError: the segments do not hold the number, or it is NaN somewhere.
        """
        plain = segments.numpy()
        values = step_numbers(self.of, plain)
        if np.isnan(values[plain.mask]).any():
            raise ValueError(
                "LowThenHigh: the number is NaN at some step, and such a segment cannot be "
                "compared; look for the step at which the environment went wrong."
            )
        early = plain.mask & (2 * np.arange(plain.steps) < plain.lengths[:, None])
        late = plain.mask & ~early
        lowest = [np.where(half, values, np.inf).min(1, initial=np.inf) for half in (early, late)]
        highest = [
            np.where(half, values, -np.inf).max(1, initial=-np.inf) for half in (early, late)
        ]
        low = lowest[0] < lowest[1] if self.low is None else lowest[0] <= self.low
        high = highest[1] > highest[0] if self.high is None else highest[1] >= self.high
        score: np.ndarray = low.astype(np.float64) + high
        return score
