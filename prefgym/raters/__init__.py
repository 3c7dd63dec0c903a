"""Raters: whoever compares two segments.

A rater is chosen by name, or is any callable of a user's own:

>>> make_rater("noisy", beta=5.0).meaning
'partial-return'
>>> make_rater(lambda a, b: (a.lengths > b.lengths) * 0.5 + 0.25 * (a.lengths == b.lengths) + 0.25)
... # doctest: +ELLIPSIS
ProbabilityRater(...)
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from inspect import Parameter, signature
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from prefgym.comparisons import Labels
from prefgym.names import lookup
from prefgym.raters.scores import ValueSource, discounted_return, partial_return, regret
from prefgym.raters.scripted import RandomRater, ScriptedRater, check_pair
from prefgym.segments import Segments


@runtime_checkable
class Rater(Protocol):
    """Whoever compares two segments; a value, whose randomness comes in as ``rng``."""

    @property
    def meaning(self) -> str:
        """What the labels are about: "partial-return", "regret", "human", ..."""

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """Answer every pair; label = P(a ≻ b), in [0, 1]. Equal generators, equal answers."""

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """The exact mean label of answered pairs.

        ``probability(a, b) + probability(b, a)`` is 1.
        """


@runtime_checkable
class AdaptiveRater(Rater, Protocol):
    """A rater some of whose habits are relative to how good segments are these days."""

    @property
    def adaptive(self) -> bool:
        """Whether it wants to be told."""

    def adapted_to(self, seen: Segments) -> "AdaptiveRater":
        """The same rater, for agents that produce segments such as these."""


@dataclass(frozen=True)
class ProbabilityRater:
    """A user's own function (a, b) -> P(a ≻ b); answers are drawn from it."""

    function: Callable[[Segments, Segments], Any]
    meaning: str = "custom"
    soft: bool = False
    """Answer with the probability itself instead of drawing from it."""
    rater_id: int = 0

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """Answer every pair.

        Raises:
            ValueError: the function does not give probabilities, see :meth:`probability`.
        """
        label = self.probability(a, b)
        if not self.soft:
            label = (rng.random(len(a)) < label).astype(np.float64)
        return Labels(label, np.ones(len(a), bool), np.full(len(a), self.rater_id, np.int64))

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """What the function says, after asking it about the mirrored pairs too.

        Raises:
            ValueError: it answers in another shape, outside [0, 1], or not mirrored.
        """
        check_pair(a, b)
        forward, backward = (
            _probabilities(self.function(*pair), len(a)) for pair in ((a, b), (b, a))
        )
        if (np.abs(forward + backward - 1.0) > 1e-6).any():
            worst = int(np.argmax(np.abs(forward + backward - 1.0)))
            raise ValueError(
                f"Rater: your function says P(a ≻ b) = {forward[worst]:.6g} and, mirrored, P(b ≻ a)"
                f" = {backward[worst]:.6g}, which must add up to 1; for a rater that looks at the "
                "order, write (a, b, rng) -> Labels."
            )
        known: np.ndarray = 0.5 + 0.5 * (forward - backward)
        return known


@dataclass(frozen=True)
class LabelRater:
    """A user's own function (a, b, rng) -> Labels; its choice probabilities are not known."""

    function: Callable[[Segments, Segments, np.random.Generator], Any]
    meaning: str = "custom"

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """What the function answers.

        Raises:
            ValueError: that is not one label in [0, 1] per pair.
        """
        check_pair(a, b)
        answer = self.function(a, b, rng)
        if not isinstance(answer, tuple) or len(answer) != 3:
            raise ValueError(
                f"Rater: your function returned {type(answer).__name__}; a function of (a, b, rng) "
                "returns prefgym.comparisons.Labels(label, answered, rater_id)."
            )
        label, answered, rater_id = answer
        answered = np.asarray(answered, bool)
        label = _probabilities(np.where(answered, label, 0.5), len(a))
        return Labels(label, answered, np.asarray(rater_id, np.int64))

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """Not known.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "Rater: a function (a, b, rng) -> Labels does not tell its choice probabilities; give "
            "a function (a, b) -> P(a ≻ b) instead, or a Rater object with a probability method."
        )


def make_rater(
    rater: str | Callable[..., Any], value_source: ValueSource | None = None, **options: Any
) -> Rater:
    """The rater that is meant.

    Args:
        rater: a name in ``RATERS``; a Rater, which is returned as it is; or a function of a user's
            own, (a, b) -> P(a ≻ b) or (a, b, rng) -> Labels.
        value_source: asked for advantages by "regret", where the segments do not hold them.
        options: fields of :class:`ScriptedRater` (of :class:`RandomRater` for "random"), which
            replace what the name stands for; "discounted-return" also takes ``discount``.

    Raises:
        ValueError: no rater has that name or that option, or the function's arguments do not fit.
    """
    if isinstance(rater, str):
        factory = lookup(rater, RATERS, "rater")
        _check_options(rater, factory, options)
        return factory(value_source, **options)
    made: Rater = rater if isinstance(rater, Rater) else _own(rater)
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


def _regret(value_source: ValueSource | None = None, **knobs: Any) -> ScriptedRater:
    return ScriptedRater(regret(value_source), "regret", **knobs)


def _random(value_source: ValueSource | None = None, rater_id: int = 0) -> RandomRater:
    return RandomRater(rater_id)


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
    "random": _random,
}
"""Name -> factory(value_source, **options). The six from "oracle" to "equal" are B-Pref's table 1:
hard choices on the partial return, with one behaviour each; all options can be combined."""

_KNOBS = tuple(
    field.name
    for field in fields(ScriptedRater)
    if field.name not in ("statistic", "meaning", "adaptations")
)


def _check_options(name: str, factory: Callable[..., Rater], options: dict[str, Any]) -> None:
    taken = signature(factory).parameters.values()
    knobs = _KNOBS if any(one.kind is Parameter.VAR_KEYWORD for one in taken) else ()
    plain = (one.name for one in taken if one.kind is not Parameter.VAR_KEYWORD)
    allowed = sorted({*plain, *knobs} - {"value_source"})
    unknown = [option for option in options if option not in allowed]
    if unknown:
        raise ValueError(
            f"make_rater: the rater {name!r} has no option {', '.join(map(repr, unknown))}; it "
            f"takes {', '.join(allowed)}."
        )


def _own(function: Callable[..., Any]) -> Rater:
    try:
        count = len(signature(function).parameters)
    except (TypeError, ValueError):  # no function, or a built-in that does not tell
        count = -1
    if count == 2:
        return ProbabilityRater(function)
    if count == 3:
        return LabelRater(function)
    raise ValueError(
        f"make_rater: {function!r} is no function of (a, b) or (a, b, rng); write one that returns "
        "P(a ≻ b) or Labels, or choose a rater by name."
    )


def _probabilities(values: Any, pairs: int) -> Float[np.ndarray, " batch"]:
    known = np.asarray(values, np.float64)
    if known.shape != (pairs,):
        raise ValueError(
            f"Rater: your function answered with shape {known.shape} for {pairs} pairs; it must "
            f"return one number per pair, shape ({pairs},)."
        )
    within = (known >= 0.0) & (known <= 1.0)
    if not within.all():
        raise ValueError(
            f"Rater: your function answered {known[~within][0]}; a label or probability lies from "
            "0 to 1 (for scores, return 1 / (1 + exp(score_b − score_a)))."
        )
    return known
