"""What every rater is: two contracts, and two more for those who follow the agent."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from prefgym.comparisons import Labels
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


@runtime_checkable
class RememberingRater(AdaptiveRater, Protocol):
    """An adaptive rater that depends on all that it was told of, and not on the last of it only."""

    def memory(self) -> dict[str, Any]:
        """What it knows, as plain numbers and arrays."""

    def remembering(self, memory: Mapping[str, Any]) -> "RememberingRater":
        """The same rater with a :meth:`memory`."""


@runtime_checkable
class SkippingRater(Rater, Protocol):
    """A rater that tells which pairs it leaves unanswered."""

    def answer_probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """The exact chance that a pair is answered; the same for its mirror image."""


def answer_probability(rater: Rater, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
    """The chance that a rater answers, 1 where it does not say otherwise."""
    if isinstance(rater, SkippingRater):
        return rater.answer_probability(a, b)
    return np.ones(len(a))
