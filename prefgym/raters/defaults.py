"""What raters by name look at by default: it follows from what an environment shows.

A plane of two numbers per segment, for headings:

1. robots and other classic tasks: the two numbers in :data:`HEADINGS`;
2. other observations of two numbers or more: the first two of the last one;
3. text: the direction of the first token, token k of n lying at 2πk/n;
4. three or more discrete actions: where a walk of the actions ends, action k of n being a step of
   length 1 in direction 2πk/n;
5. two named factors or more: the sums of the first two.

An order of factors, for hierarchies: that of :data:`HIERARCHIES`, which follows from what the
factors are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prefgym.names import lookup
from prefgym.raters.features import Columns, FactorSums, Plane, Walk
from prefgym.raters.hierarchies import levels


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
    ends: tuple[float, float] | None = None
    """The least and the largest first number of an observation, where an environment names them."""


ANY: Final = 0
"""Stands for any number of columns."""
HEADINGS: Final[dict[tuple[str, int], Columns]] = {
    ("Pendulum", 3): Columns((0, 1), "mean"),
    ("CartPole", 4): Columns((1, 3), "mean"),
    ("MountainCarContinuous", 2): Columns((0, 1), "change"),
    ("Acrobot", 6): Columns((4, 5), "mean"),
    ("Reacher", 10): Columns((6, 7), "mean"),
    ("HalfCheetah", 17): Columns((11, 14), "mean"),
    ("Hopper", 11): Columns((8, 10), "mean"),
    ("Walker2d", 17): Columns((11, 14), "mean"),
    ("Ant", 105): Columns((13, 14), "mean"),
    ("Ant", 107): Columns((15, 16), "mean"),
    ("Traffic", 14): Columns((0, 2), "change"),
    ("Traffic", 56): Columns((0, 2), "change"),
    ("TrafficVector", 14): Columns((0, 2), "change"),
    ("TrafficVector", 56): Columns((0, 2), "change"),
}
"""Class of environment and numbers in its observation -> the plane of its heading.

Pendulum: the mean of (cos, sin), where the pole points. CartPole: mean velocity of the cart and of
the pole's angle. MountainCarContinuous: change of position and of velocity. Acrobot, Reacher: mean
velocity of the two joints; HalfCheetah, Walker2d: of the two thighs; Hopper: of thigh and foot.
Ant: mean velocity in the plane that it walks in (107: with its position observed). Traffic: by how
much the queues from north and east at the first light grew.
"""
_ANT_SECONDS: Final = 0.05
POSITIONS: Final[dict[tuple[str, int], Columns]] = {
    ("Ant", 105): Columns((13, 14), "sum", _ANT_SECONDS),
    ("Ant", 107): Columns((0, 1), "last"),
    ("CaptionedGrid", ANY): Columns((0, 1), "sum"),
}
"""Where a segment ends, in metres, where that is not the plane of the heading: velocity times
seconds since the segment began, or the position itself; MiniGrid: the sum of the directions in
which the agent looked."""


SCALES: Final[dict[str, dict[str, float]]] = {
    "Pendulum": {"angle2": 90.0, "speed2": 300.0, "torque2": 6.0},
    "CartPole": {"alive": 7.0, "fallen": 0.5, "cart_position2": 0.2, "pole_angle2": 0.1},
    "MountainCarContinuous": {"goal": 1.0, "action2": 1.5, "height": 1.3},
    "Acrobot": {"below_goal": 10.0, "tip_height": 6.0, "torque2": 2.5},
    "Reacher": {"distance": 1.5, "action2": 2.0, "joint_speed2": 2400.0},
    "HalfCheetah": {"progress": 13.0, "action2": 6.0, "height": 1.3, "tilt2": 19.0},
    "Hopper": {"progress": 11.0, "alive": 14.0, "action2": 15.0, "height": 16.0, "tilt2": 0.1},
    "Walker2d": {"progress": 8.0, "alive": 10.0, "action2": 22.0, "height": 12.0, "tilt2": 4.0},
    "Ant": {
        "progress": 19.0,
        "alive": 16.0,
        "action2": 41.0,
        "contact2": 31.0,
        "joints_at_limit": 47.0,
        "feet_on_floor": 6.0,
    },
}
"""Class of environment -> by how much the sum of each factor differs between segments of the
default length under random actions, as a standard deviation; so that no factor drowns the others
where groups weigh them. Elsewhere factors count as they are."""


HIERARCHIES: Final[dict[tuple[str, ...], str]] = {
    ("population_0", "population_1", "population_2"): "population_0,population_1,population_2",
    ("gas", "goal", "sheep", "coin", "roadblock", "mud"): "goal,-sheep,coin,-roadblock,-mud,-gas",
    ("early_left", "late_right"): "early_left,late_right",
    ("angle2", "speed2", "torque2"): "-angle2,-speed2,-torque2",
    ("alive", "fallen", "cart_position2", "pole_angle2"): "alive,-pole_angle2,-cart_position2",
    ("goal", "action2", "height"): "goal,height,-action2",
    ("below_goal", "tip_height", "torque2"): "-below_goal,tip_height,-torque2",
    ("distance", "action2", "joint_speed2"): "-distance,-action2,-joint_speed2",
    ("progress", "action2", "height", "tilt2"): "progress,-action2",
    ("progress", "alive", "action2", "height", "tilt2"): "progress,alive,-action2",
    (
        *("progress", "alive", "action2", "contact2", "joints_at_limit", "feet_on_floor"),
    ): "alive,progress,-joints_at_limit,-action2",
    (
        *("distance", "similarity", "close", "success", "dropped", "action2", "steps"),
    ): "success,close,-dropped,similarity",
    ("score", "frozen", "died", "deeper", "health", "steps"): "-died,deeper,score,-frozen",
    (
        *("queue_length", "waiting_time", "delay", "vehicles", "switches", "passed"),
    ): "-queue_length,-waiting_time,-delay,-vehicles,-switches,passed",
    ("goal", "delay", "opened", "picked_up", "bumped", "steps"): "goal,opened,picked_up,-bumped",
    ("letters", "end"): "letters,end",
    ("copied", "forbidden"): "copied,-forbidden",
    ("exact", "digits"): "exact,digits",
    ("correctness", "politeness", "length"): "correctness,politeness,-length",
    ("formal", "casual"): "formal,casual",
}
"""The factors that an environment names, as it names them -> a hierarchy of them. Pendulum, half
cheetah, hopper and traffic lights: those of HERON (arXiv:2309.02632)."""


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
    if around.ends is None or {"of", "low", "high"} & options.keys():
        return {}
    return dict(zip(("low", "high"), around.ends, strict=True))


def _factors(rater: str, around: Surroundings, options: Mapping[str, Any]) -> dict[str, Any]:
    if options.get("by", "factors") != "factors" or {"goals", "factors"} & options.keys():
        return {}
    if not around.factors:
        raise ValueError(
            f"The rater {rater!r} weighs the named factors of a reward, and {around.name} names "
            "none; group by rater_kwargs={'by': 'goals'}, or choose another rater."
        )
    fitting = [
        SCALES[one] for one in around.classes if set(SCALES.get(one, ())) == set(around.factors)
    ]
    if not fitting or "scales" in options:
        return {"factors": around.factors}
    return {
        "factors": around.factors,
        "scales": tuple(fitting[0][factor] for factor in around.factors),
    }


def _hierarchy(rater: str, around: Surroundings, options: Mapping[str, Any]) -> dict[str, Any]:
    named = ", ".join(around.factors)
    if not around.factors:
        raise ValueError(
            f"The rater {rater!r} compares factors, and {around.name} names none; choose another "
            "rater."
        )
    if not options.get("factors"):
        if around.factors in HIERARCHIES:
            return {"factors": HIERARCHIES[around.factors]}
        raise ValueError(
            f"The rater {rater!r} does not know in which order the factors of {around.name} matter;"
            f" pass rater_kwargs={{'factors': ...}}, with some of {named}, the most important "
            "first, and a minus where less is better."
        )
    known = dict.fromkeys(around.factors)
    for level in levels(options["factors"]):
        lookup(level.name, known, f"factor of {around.name}")
    return {}


def _plane(
    rater: str,
    around: Surroundings,
    table: Mapping[tuple[str, int], Columns],
    first: int | None,
) -> Plane:
    keys = [(one, size) for one in around.classes for size in (around.columns, ANY)]
    known = [table[one] for one in keys if one in table]
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
    "heron": _hierarchy,
}
