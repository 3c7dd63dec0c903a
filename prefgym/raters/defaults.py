"""What raters by name look at by default: it follows from what an environment shows.

A plane of two numbers per segment, for headings:

1. robots and other classic tasks: the two numbers in :data:`HEADINGS`;
2. other observations of two numbers or more: the first two of the last one;
3. text: the direction of the first token, token k of n lying at 2πk/n;
4. three or more discrete actions: where a walk of the actions ends, action k of n being a step of
   length 1 in direction 2πk/n;
5. two named factors or more: the sums of the first two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prefgym.raters.features import Columns, FactorSums, Plane, Walk


@dataclass(frozen=True)
class Surroundings:
    """What an environment shows, as far as raters ask."""

    name: str
    """For messages."""
    classes: tuple[str, ...] = ()
    """Names of the classes of the environment, from the outermost layer to the innermost."""
    factors: tuple[str, ...] = ()
    columns: int = 0
    """Numbers in an observation; 0 where it is no vector of measurements."""
    choices: int = 0
    """Discrete actions, or tokens; 0 where actions are not discrete."""
    text: bool = False
    single_step: bool = False
    """Whether an episode is one step, with nothing to observe."""


HEADINGS: Final[dict[tuple[str, int], Columns]] = {
    ("Pendulum", 3): Columns((0, 1), "mean"),
    ("CartPole", 4): Columns((1, 3), "mean"),
    ("MountainCarContinuous", 2): Columns((0, 1), "change"),
    ("Acrobot", 6): Columns((4, 5), "mean"),
    ("Reacher", 10): Columns((6, 7), "mean"),
    ("HalfCheetah", 17): Columns((8, 1), "mean"),
    ("Hopper", 11): Columns((5, 1), "mean"),
    ("Walker2d", 17): Columns((8, 1), "mean"),
    ("Ant", 105): Columns((13, 14), "mean"),
    ("Ant", 107): Columns((15, 16), "mean"),
}
"""Class of environment and numbers in its observation -> the plane of its heading.

Pendulum: the mean of (cos, sin), where the pole points. CartPole: mean velocity of the cart and of
the pole's angle. MountainCarContinuous: change of position and of velocity. Acrobot, Reacher: mean
velocity of the two joints. HalfCheetah, Hopper, Walker2d: mean forward velocity and pitch. Ant:
mean velocity in the plane that it walks in (107: with its position observed).
"""
_ANT_SECONDS: Final = 0.05
POSITIONS: Final[dict[tuple[str, int], Columns]] = {
    ("Ant", 105): Columns((13, 14), "sum", _ANT_SECONDS),
    ("Ant", 107): Columns((0, 1), "last"),
}
"""Where a segment ends, in metres, where that is not the plane of the heading: velocity times
seconds since the segment began, or the position itself."""


def default_options(rater: str, around: Surroundings, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that a rater by name needs and that were not given.

    Args:
        rater: the name.
        around: the environment.
        options: what the user gave.

    Raises:
        ValueError: this environment shows nothing that such a rater could look at.
    """
    wanted = _DEFAULTS.get(rater)
    return {} if wanted is None else wanted(rater, around, options)


def _heading(rater: str, around: Surroundings, options: Mapping[str, Any]) -> dict[str, Any]:
    if {"plane", "over"} & options.keys() or options.get("kind") is not None:
        return {}
    return {"plane": _plane(rater, around, HEADINGS, first=1)}


def _position(rater: str, around: Surroundings, options: Mapping[str, Any]) -> dict[str, Any]:
    if {"plane", "over"} & options.keys():
        return {}
    if around.single_step:
        raise ValueError(
            f"The rater {rater!r} asks where a segment ends, and an episode of {around.name} is a "
            "single choice; choose 'cyclic', or pass rater_kwargs={'plane': ...}."
        )
    return {"plane": _plane(rater, around, HEADINGS | POSITIONS, first=None)}


def _history(rater: str, around: Surroundings, options: Mapping[str, Any]) -> dict[str, Any]:
    if around.single_step:
        raise ValueError(
            f"The rater {rater!r} compares the first half of a segment with its second half, and "
            f"an episode of {around.name} is a single step; choose another rater."
        )
    return {}


def _factors(rater: str, around: Surroundings, options: Mapping[str, Any]) -> dict[str, Any]:
    if options.get("by", "factors") != "factors" or {"goals", "factors"} & options.keys():
        return {}
    if not around.factors:
        raise ValueError(
            f"The rater {rater!r} weighs the named factors of a reward, and {around.name} names "
            "none; group by rater_kwargs={'by': 'goals'}, or choose another rater."
        )
    return {"factors": around.factors}


def _plane(
    rater: str,
    around: Surroundings,
    table: Mapping[tuple[str, int], Columns],
    first: int | None,
) -> Plane:
    known = [table[one, around.columns] for one in around.classes if (one, around.columns) in table]
    if known:
        return known[0]
    if around.columns >= 2:
        return Columns((0, 1))
    if around.choices >= 3:
        return Walk(around.choices, first if around.text else None)
    if len(around.factors) >= 2:
        return FactorSums(around.factors[:2])
    raise ValueError(
        f"The rater {rater!r} needs two numbers of a segment, and {around.name} has neither "
        "observations of two numbers, nor three discrete actions, nor two named factors; pass "
        "rater_kwargs={'plane': ...}, a function of segments."
    )


_DEFAULTS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "cyclic": _heading,
    "rock-paper-scissors": _heading,
    "matrix": _heading,
    "distance-and-sector": _position,
    "low-then-high": _history,
    "two-groups": _factors,
    "five-groups": _factors,
}
