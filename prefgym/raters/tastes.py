"""Tastes that groups of people differ in: factors weighed in opposite ways, and places to be.

What environments of any kind can be asked without knowing them: :func:`opposed_groups` reads the
named factors of the true reward, :func:`goal_groups` the observations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Any

import numpy as np
from jaxtyping import Float

from prefgym.raters.features import observed
from prefgym.raters.populations import Chooser, Population, as_shares
from prefgym.raters.scores import StepScores, StepSum, WeightedFactors
from prefgym.raters.scripted import ScriptedRater
from prefgym.segments import Segments


@dataclass(frozen=True)
class OpposedFactors:
    """What a step is worth to group k of K: Σ_f cos(2πk/K − πf/F − π/4) · factor_f / scale_f.

    Groups are spread evenly round a circle of weights. The weights of all groups add up to 0 for
    every factor, so that equally large groups leave nothing for one reward to agree on. Two groups
    are exact opposites: of two factors, one wants more of the first and less of the second.
    """

    group: int
    groups: int
    factors: tuple[str, ...] = ()
    """F names; none are all that the segments hold."""
    scales: tuple[float, ...] = ()
    """The size of each factor, in its own unit; none are 1."""

    def __post_init__(self) -> None:
        """Refuse scales that do not go with the factors."""
        if self.scales and len(self.scales) != len(self.factors):
            raise ValueError(
                f"OpposedFactors: {len(self.factors)} factors and {len(self.scales)} scales came; "
                "give one scale for each factor that you name."
            )
        if not all(0.0 < one < np.inf for one in self.scales):
            raise ValueError(f"OpposedFactors: the scales are {self.scales}; give numbers above 0.")

    def weights(self, names: Sequence[str]) -> dict[str, float]:
        """Factor -> weight."""
        scales = self.scales or (1.0,) * len(names)
        turn = 2.0 * pi * self.group / self.groups - pi / 4
        return {
            name: cos(turn - pi * place / len(names)) / scale
            for place, (name, scale) in enumerate(zip(names, scales, strict=True))
        }

    def __call__(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """The worth of every step.

        Raises:
            ValueError: the segments lack a factor, or hold none.
        """
        names = self.factors or tuple(segments.factors)
        if not names:
            raise ValueError(
                "Rater: groups that weigh factors need segments with factors, and these hold none; "
                "let the environment tell info['factors'], or group by goals (by='goals')."
            )
        return WeightedFactors(self.weights(names))(segments)


@dataclass(frozen=True)
class GoalDistance:
    """What a step is worth to somebody who wants to be at a goal: −(distance to it)."""

    goal: tuple[float, ...]
    columns: tuple[int, ...] = (0, 1)
    """Of the observations, as many as the goal has numbers."""

    def __post_init__(self) -> None:
        """Refuse a goal in another space."""
        if len(self.goal) != len(self.columns):
            raise ValueError(
                f"GoalDistance: the goal {self.goal} has {len(self.goal)} numbers, and"
                f" {len(self.columns)} columns of observations were named; give as many of both."
            )

    def __call__(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """Minus the distance of every observation from the goal."""
        gap = observed(segments, self.columns) - np.asarray(self.goal)
        near: np.ndarray = -np.sqrt((gap * gap).sum(-1))
        return near


def opposed_groups(
    count: int,
    factors: Sequence[str] = (),
    scales: Sequence[float] = (),
    shares: Sequence[float] | None = None,
    rule: str | Chooser = "query",
    people: int = 1,
    **options: Any,
) -> Population:
    """Groups that weigh the factors of the true reward in opposite ways; :class:`OpposedFactors`.

    Args:
        count: how many groups.
        factors: names; none are all that the segments hold.
        scales: the size of each factor.
        shares: of the groups; equal ones by default.
        rule: who answers; see :class:`Population`.
        people: how many there are in every group.
        **options: fields of :class:`ScriptedRater`, for all of them.

    Raises:
        ValueError: fewer than two groups.
    """
    if count < 2:
        raise ValueError(f"opposed_groups: count is {count}; groups that differ are two or more.")
    names, sizes = tuple(factors), tuple(float(one) for one in scales)
    tastes = [OpposedFactors(number, count, names, sizes) for number in range(count)]
    return _population(tastes, shares, rule, people, options)


def goal_groups(
    goals: Sequence[Sequence[float]],
    columns: Sequence[int] = (0, 1),
    shares: Sequence[float] | None = None,
    rule: str | Chooser = "query",
    people: int = 1,
    **options: Any,
) -> Population:
    """Groups that want to be near a goal of their own: −Σ_t distance(observation_t, goal).

    Args:
        goals: one for each group; :func:`circle` spreads some.
        columns: the numbers of an observation that say where it is.
        shares: of the groups; equal ones by default.
        rule: who answers; see :class:`Population`.
        people: how many there are in every group.
        **options: fields of :class:`ScriptedRater`, for all of them.

    Raises:
        ValueError: a goal with more or fewer numbers than columns.
    """
    wanted = [tuple(float(one) for one in goal) for goal in goals]
    tastes = [GoalDistance(goal, tuple(columns)) for goal in wanted]
    return _population(tastes, shares, rule, people, options)


def circle(
    count: int, radius: float = 1.0, centre: Sequence[float] = (0.0, 0.0)
) -> list[tuple[float, float]]:
    """Goals spread evenly on a circle; the first lies in the direction of the first number.

    Raises:
        ValueError: the centre is no pair of numbers.
    """
    if len(centre) != 2:
        raise ValueError(
            f"circle: the centre has {len(centre)} numbers; give two, as the goals about it have."
        )
    turns = [2.0 * pi * number / count for number in range(count)]
    return [(centre[0] + radius * cos(one), centre[1] + radius * sin(one)) for one in turns]


def _population(
    tastes: Sequence[StepScores],
    shares: Sequence[float] | None,
    rule: str | Chooser,
    people: int,
    options: dict[str, Any],
) -> Population:
    members = tuple(
        ScriptedRater(StepSum(taste), f"group-{number}", rater_id=number, **options)
        for number, taste in enumerate(tastes)
    )
    return Population(members, as_shares(shares), rule=rule, people=people)
