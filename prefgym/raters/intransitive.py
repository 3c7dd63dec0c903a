"""Raters that go round in a circle: by a heading, by majorities of groups, by distance and sector.

Sources: Swamy et al. (2024), "A minimaximalist approach to reinforcement learning from human
feedback", arXiv:2401.04056 (mixed populations; distance and sector, for an ant that walks in the
plane).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, pi
from typing import Any

import numpy as np
from jaxtyping import Float

from prefgym.raters.features import ROUNDING, Kind, Plane, read_plane
from prefgym.raters.pairs import PairRater, PreferenceMatrix
from prefgym.raters.populations import Population
from prefgym.segments import Segments


@dataclass(frozen=True)
class Cyclic:
    """P(a ≻ b) = σ(beta · sin(θ_a − θ_b)), with θ the heading of a segment in a plane.

    A segment is preferred to those whose heading lies less than half a turn behind its own
    (clockwise), so that three headings a third of a turn apart beat each other in a circle. Equal
    and opposite headings tie, and so does a segment without a heading, at (0, 0). With beta = ∞
    the answer is certain.
    """

    plane: Plane
    beta: float = inf

    def __post_init__(self) -> None:
        """Refuse a rationality below 0."""
        if not self.beta >= 0.0:
            raise ValueError(f"Cyclic: beta is {self.beta}; give a number of 0 or more, or inf.")

    def __call__(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """P(a ≻ b) of every pair."""
        (xa, ya), (xb, yb) = (_directions(self.plane, side)[0].T for side in (a, b))
        ahead = ya * xb - xa * yb
        ahead = np.where(np.abs(ahead) <= ROUNDING, 0.0, ahead)
        if self.beta == inf:
            return 0.5 + 0.5 * np.sign(ahead)
        return 0.5 + 0.5 * np.tanh(0.5 * self.beta * ahead)


@dataclass(frozen=True)
class DistanceAndSector:
    """Prefer who got farther, and rather who ends up a little ahead in direction.

        P(a ≻ b) = (1 − w) · D(a, b) + w · S(a, b),      w = ``sector_weight`` = 0.7

    with r and θ the distance from the origin and the heading of where a segment ends:

    - D asks "farther, or both beyond ``radius``?". 1 where r_a > r_b, 0 where r_a < r_b; ½ where
      both are beyond ``radius`` (then it holds of either) or equally far.
    - S asks "is a's heading within the sector of ``width`` that opens anticlockwise at b's?".
      1 where 0 < θ_a − θ_b ≤ width, 0 where 0 < θ_b − θ_a ≤ width, else ½ (then it holds of
      neither, or one of the two has no heading).

    A condition that holds both ways, or neither way, says nothing, hence ½: with f the condition as
    0 or 1, D and S are (1 + f(a, b) − f(b, a)) / 2, which keeps P(a ≻ b) + P(b ≻ a) = 1.

    Source: Swamy et al. (2024), arXiv:2401.04056. Departure: which way the sector opens was not
    found in print; one that lies evenly about the other's heading would hold both ways always.
    """

    plane: Plane
    radius: float = 10.0
    width: float = pi / 4
    """Of the sector, radians, below π."""
    sector_weight: float = 0.7

    def __post_init__(self) -> None:
        """Refuse sectors that meet their own mirror image."""
        if not 0.0 < self.width < pi:
            raise ValueError(
                f"DistanceAndSector: width is {self.width}; give an angle above 0 and below π."
            )
        if not 0.0 <= self.sector_weight <= 1.0:
            raise ValueError(
                f"DistanceAndSector: sector_weight is {self.sector_weight}; give a number from 0 "
                "to 1."
            )
        if not self.radius >= 0.0:
            raise ValueError(
                f"DistanceAndSector: radius is {self.radius}; give a number of 0 or more."
            )

    def __call__(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """P(a ≻ b) of every pair."""
        (heading_a, far_a), (heading_b, far_b) = (_directions(self.plane, one) for one in (a, b))
        apart = far_a - far_b
        apart = np.where(np.abs(apart) <= ROUNDING * np.maximum(far_a, far_b), 0.0, apart)
        beyond = (far_a > self.radius) & (far_b > self.radius)
        distance = np.where(beyond, 0.0, np.sign(apart))

        (xa, ya), (xb, yb) = heading_a.T, heading_b.T
        turn = np.arctan2(ya * xb - xa * yb, xa * xb + ya * yb)
        within = (np.abs(turn) > ROUNDING) & (np.abs(turn) <= self.width + ROUNDING)
        sector = np.where(within, np.sign(turn), 0.0)
        weight = self.sector_weight
        chance: np.ndarray = 0.5 + 0.5 * ((1.0 - weight) * distance + weight * sector)
        return chance


def rock_paper_scissors(
    kind: Kind, weights: Sequence[float] = (1 / 3, 1 / 3, 1 / 3), **options: Any
) -> Population:
    """Groups that rank kinds of segments in a circle: the majority's choice is no ranking.

    Of n groups and n kinds, group g ranks kind g first, then g + 1, and so on round to g − 1. A
    larger share than ½ for each of 0 ≻ 1, 1 ≻ 2, ..., n − 1 ≻ 0 follows as long as every group is
    smaller than ½: kind i beats kind i + 1 for all but group i + 1. A warning says where one
    is not. ``probability`` is the exact share.

    Args:
        kind: which kind every segment is of, as :class:`~prefgym.raters.features.Sectors`.
        weights: shares of the groups, as many as there are kinds.
        **options: ``rule`` and ``people`` as in :class:`Population`; others go to every
            :class:`PairRater`.

    Source: the Condorcet mixes of Swamy et al. (2024), arXiv:2401.04056.
    """
    crowd = {name: options.pop(name) for name in ("rule", "people") if name in options}
    if max(weights, default=0.0) >= 0.5:
        warnings.warn(
            f"rock_paper_scissors: the shares {', '.join(f'{one:.3g}' for one in weights)} hold one"
            " of ½ or more, so that the majority does not go round in a circle; give three shares"
            " or more, all below ½, if it shall.",
            stacklevel=2,
        )
    members = tuple(
        PairRater(
            PreferenceMatrix(ranking(group, len(weights)), kind),
            "rock-paper-scissors",
            rater_id=group,
            **options,
        )
        for group in range(len(weights))
    )
    return Population(members, tuple(weights), "rock-paper-scissors", **crowd)


def ranking(first: int, kinds: int) -> tuple[tuple[float, ...], ...]:
    """Who ranks kind ``first`` best, then the next ones in turn, as a matrix of certainties."""
    place = (np.arange(kinds) - first) % kinds
    matrix = 0.5 + 0.5 * np.sign(place - place[:, None])
    return tuple(tuple(row) for row in matrix.tolist())


def _directions(
    plane: Plane, segments: Segments
) -> tuple[Float[np.ndarray, " batch 2"], Float[np.ndarray, " batch"]]:
    """Unit vectors, (0, 0) where there is no direction, and distances from the origin."""
    ends = read_plane(plane, segments)
    far = np.hypot(*ends.T)
    return ends / np.where(far > 0.0, far, 1.0)[:, None], far
