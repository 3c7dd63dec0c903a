"""A user's own function as a rater."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
from jaxtyping import Float

from prefgym.comparisons import Labels
from prefgym.raters.protocols import Rater
from prefgym.raters.scripted import check_pair
from prefgym.segments import Segments


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


def own_rater(function: Callable[..., Any]) -> Rater:
    """A function (a, b) -> P(a ≻ b), or (a, b, rng) -> Labels, as a rater.

    Raises:
        ValueError: it takes another number of arguments.
    """
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
