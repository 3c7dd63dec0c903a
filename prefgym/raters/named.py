"""Raters by name, for ``gymnasium.make(id, rater=NAME, rater_kwargs={...})`` and for the shell."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf, pi
from os import PathLike
from typing import Any, Final

from prefgym.critic_files import as_value_source
from prefgym.names import lookup
from prefgym.raters.features import Kind, Plane, Sectors, as_plane
from prefgym.raters.hierarchies import HierarchyRater
from prefgym.raters.histories import LowThenHigh
from prefgym.raters.intransitive import Cyclic, DistanceAndSector, rock_paper_scissors
from prefgym.raters.options import checked_options
from prefgym.raters.own import own_rater
from prefgym.raters.pairs import PairRater, matrix_rater
from prefgym.raters.panels import Panel
from prefgym.raters.populations import Chooser, Population, experts
from prefgym.raters.protocols import Rater
from prefgym.raters.scores import ValueSource, discounted_return, partial_return, regret
from prefgym.raters.scripted import RandomRater, ScriptedRater
from prefgym.raters.tastes import circle, goal_groups, opposed_groups

PanelMember = str | Rater | Callable[..., Any]


def make_rater(
    rater: str | Callable[..., Any],
    value_source: ValueSource | str | PathLike[str] | None = None,
    **options: Any,
) -> Rater:
    """The rater that is meant.

    Args:
        rater: a name in ``RATERS``; a Rater, which is returned as it is; or a function of a user's
            own, (a, b) -> P(a ≻ b) or (a, b, rng) -> Labels.
        value_source: asked for advantages by "regret", where the segments do not hold them; or
            the file of a trained critic.
        options: what the function in ``RATERS`` takes, and for most of them the fields of
            :class:`ScriptedRater`, which replace what the name stands for.

    Raises:
        ValueError: no rater has that name or that option, an option is of another kind, or the
            function's arguments do not fit.
    """
    if isinstance(rater, str):
        factory, source = lookup(rater, RATERS, "rater"), as_value_source(value_source)
        return factory(source, **checked_options(rater, factory, options))
    made: Rater = rater if isinstance(rater, Rater) else own_rater(rater)
    if options:
        raise ValueError(
            f"make_rater: {', '.join(options)} cannot be set on {rater!r}; options go with a rater "
            "chosen by name, so set them where you build your own."
        )
    return made


def _partial_return(value_source: ValueSource | None = None, **knobs: Any) -> ScriptedRater:
    return ScriptedRater(partial_return, "partial-return", **knobs)


def _discounted_return(
    value_source: ValueSource | None = None, discount: float = 0.99, **knobs: Any
) -> ScriptedRater:
    return ScriptedRater(discounted_return(discount), "discounted-return", **knobs)


def _regret(
    value_source: ValueSource | None = None, form: str = "stochastic", **knobs: Any
) -> ScriptedRater:
    return ScriptedRater(regret(value_source, form), "regret", **knobs)


def _random(value_source: ValueSource | None = None, rater_id: int = 0) -> RandomRater:
    return RandomRater(rater_id)


def _cyclic(
    value_source: ValueSource | None = None,
    plane: Sequence[int] | Sequence[str] | Plane = (0, 1),
    over: str = "last",
    beta: float = inf,
    mistake: float = 0.0,
    soft: bool = False,
    rater_id: int = 0,
) -> PairRater:
    return PairRater(Cyclic(as_plane(plane, over), beta), "cyclic", mistake, soft, rater_id)


def _distance_and_sector(
    value_source: ValueSource | None = None,
    plane: Sequence[int] | Sequence[str] | Plane = (0, 1),
    over: str = "last",
    radius: float = 10.0,
    width: float = pi / 4,
    sector_weight: float = 0.7,
    mistake: float = 0.0,
    soft: bool = False,
    rater_id: int = 0,
) -> PairRater:
    rule = DistanceAndSector(as_plane(plane, over), radius, width, sector_weight)
    return PairRater(rule, "distance-and-sector", mistake, soft, rater_id)


def _rock_paper_scissors(
    value_source: ValueSource | None = None,
    plane: Sequence[int] | Sequence[str] | Plane = (0, 1),
    over: str = "last",
    kind: Kind | None = None,
    shares: Sequence[float] = (1 / 3, 1 / 3, 1 / 3),
    **crowd: Any,
) -> Population:
    kinds = kind or Sectors(as_plane(plane, over), len(shares))
    return rock_paper_scissors(kinds, shares, **crowd)


_ROUND: Final = ((0.5, 0.9, 0.1), (0.1, 0.5, 0.9), (0.9, 0.1, 0.5))
"""Rock, paper and scissors, of whom one in ten is mistaken."""


def _matrix(
    value_source: ValueSource | None = None,
    matrix: Sequence[Sequence[float]] = _ROUND,
    plane: Sequence[int] | Sequence[str] | Plane = (0, 1),
    over: str = "last",
    kind: Kind | None = None,
    mistake: float = 0.0,
    soft: bool = False,
    rater_id: int = 0,
) -> PairRater:
    kinds = kind or Sectors(as_plane(plane, over), max(len(matrix), 1))
    return matrix_rater(matrix, kinds, mistake=mistake, soft=soft, rater_id=rater_id)


def _low_then_high(
    value_source: ValueSource | None = None,
    of: int | str | Kind | None = None,
    low: float | None = None,
    high: float | None = None,
    **knobs: Any,
) -> ScriptedRater:
    return ScriptedRater(LowThenHigh(of, low, high), "low-then-high", **knobs)


def _heron(
    value_source: ValueSource | None = None,
    factors: str | Sequence[str] = (),
    margins: float | Sequence[float] = 0.5,
    deviation: str | float | Sequence[float] = "history",
    over: str = "sum",
    mistake: float = 0.0,
    rater_id: int = 0,
) -> HierarchyRater:
    return HierarchyRater(factors, margins, deviation, over, mistake, rater_id)


def _groups(
    value_source: ValueSource | None = None,
    count: int = 2,
    by: str = "factors",
    factors: Sequence[str] = (),
    scales: Sequence[float] = (),
    goals: Sequence[Sequence[float]] | None = None,
    columns: Sequence[int] = (0, 1),
    radius: float = 1.0,
    centre: Sequence[float] = (0.0, 0.0),
    **crowd: Any,
) -> Population:
    lookup(by, {"factors": 0, "goals": 0}, "difference between groups")
    if by == "factors" and goals is None:
        return opposed_groups(count, factors, scales, **crowd)
    wanted = circle(count, radius, centre) if goals is None else goals
    return goal_groups(wanted, columns, **crowd)


def _experts(
    value_source: ValueSource | None = None,
    of: str = "partial-return",
    mistakes: Sequence[float] = (0.0, 0.1, 0.3),
    betas: Sequence[float] | None = None,
    shares: Sequence[float] | None = None,
    rule: str | Chooser = "query",
    people: int = 1,
    **knobs: Any,
) -> Population:
    one = make_rater(of, value_source, **knobs)
    if not isinstance(one, ScriptedRater):
        raise ValueError(
            f"The rater 'experts' varies how well a scripted rater knows, and {of!r} is none; "
            "choose of='partial-return', 'discounted-return', 'regret' or 'low-then-high'."
        )
    return experts(one, mistakes, betas, shares, rule, people)


def _panel(
    value_source: ValueSource | None = None,
    member: PanelMember = "mistake",
    member_kwargs: Mapping[str, Any] | None = None,
    size: int = 5,
    smoothing: float = 0.0,
    rater_id: int = 0,
) -> Panel:
    return Panel(
        make_rater(member, value_source, **(member_kwargs or {})), size, smoothing, rater_id
    )


RATERS: Final[dict[str, Callable[..., Rater]]] = {
    "partial-return": _partial_return,
    "discounted-return": _discounted_return,
    "regret": _regret,
    "oracle": _partial_return,
    "noisy": partial(_partial_return, beta=1.0),
    "mistake": partial(_partial_return, mistake=0.1),
    "skip": partial(_partial_return, skip=0.1),
    "myopic": partial(_partial_return, gamma=0.9),
    "equal": partial(_partial_return, equal=0.1),
    "ties": partial(_partial_return, beta=1.0, ties=5.0),
    "random": _random,
    "cyclic": _cyclic,
    "rock-paper-scissors": _rock_paper_scissors,
    "distance-and-sector": _distance_and_sector,
    "matrix": _matrix,
    "low-then-high": _low_then_high,
    "heron": _heron,
    "two-groups": partial(_groups, count=2),
    "five-groups": partial(_groups, count=5),
    "experts": _experts,
    "panel": _panel,
}
"""Name -> factory(value_source, **options). The six from "oracle" to "equal" are B-Pref's table 1:
hard choices on the partial return, with one behaviour each; all options can be combined. What
those from "cyclic" on look at by default follows from the environment: see
:mod:`prefgym.raters.defaults`."""
