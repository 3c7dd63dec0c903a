"""Populations: several raters behind one face, one of whom answers each question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from prefgym.comparisons import Labels
from prefgym.raters.scores import StepSum, WeightedFactors
from prefgym.raters.scripted import ScriptedRater
from prefgym.segments import Segments


@dataclass(frozen=True)
class Population:
    """A group of raters; who answers is drawn anew for every pair, and told as ``rater_id``.

    A reward fitted to all answers together sees only the mixture: where groups disagree, no single
    reward agrees with all of them.
    """

    raters: tuple[ScriptedRater, ...]
    """Their ``rater_id`` say who they are."""
    weights: tuple[float, ...]
    """Shares of the answers, adding up to 1."""
    meaning: str = "population"

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        shares = np.asarray(self.weights, np.float64)
        if len(shares) != len(self.raters) or not len(shares):
            raise ValueError(
                f"Population: {len(self.raters)} raters and {len(shares)} weights came; give one"
                " weight for each rater, and at least one of both."
            )
        if not (shares >= 0).all() or abs(shares.sum() - 1.0) > 1e-9:
            raise ValueError(
                f"Population: the weights {self.weights} are no shares; give numbers of 0 or more"
                " that add up to 1."
            )

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """Answer every pair, each by one of the raters."""
        who = rng.choice(len(self.raters), size=len(a), p=self.weights)
        answers = [rater(a, b, rng) for rater in self.raters]
        picked = [np.choose(who, column) for column in zip(*answers, strict=True)]
        return Labels(*picked)

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """The mean label of the mixture; exact where all raters answer every pair."""
        chances = np.stack([rater.probability(a, b) for rater in self.raters])
        mixed: np.ndarray = np.asarray(self.weights) @ chances
        return mixed


def groups(
    tastes: Mapping[str, Mapping[str, float]], shares: Sequence[float], **options: Any
) -> Population:
    """A population whose groups weigh the factors of an environment each in their own way.

    Args:
        tastes: group -> factor -> weight.
        shares: of the groups, in the same order.
        **options: fields of :class:`ScriptedRater`, for all of them.
    """
    raters = tuple(
        replace(
            ScriptedRater(StepSum(WeightedFactors(dict(taste))), f"group-{name}", **options),
            rater_id=number,
        )
        for number, (name, taste) in enumerate(tastes.items())
    )
    return Population(raters, tuple(float(one) for one in shares))
