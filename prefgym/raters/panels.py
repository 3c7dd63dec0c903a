"""Panels: several votes on every pair, as one soft label.

Source: the annotators of iREPO, Le et al. (2024), arXiv:2405.15230.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from prefgym.comparisons import Labels
from prefgym.raters.protocols import AdaptiveRater, Rater, answer_probability
from prefgym.segments import Segments


@dataclass(frozen=True)
class Panel:
    """Asks one rater h times, as h members who vote, and answers with the share of the votes.

    The label is (k + s) / (n + 2s): k the votes for ``a`` (a tie is half a vote), n the votes that
    were cast, s the smoothing. A pair on which nobody votes is skipped. If ``rater`` is a
    population, every member is one of its people; under the rule "session", one for the whole call.
    """

    rater: Rater
    size: int = 5
    """h."""
    smoothing: float = 0.0
    """s; ½ keeps log-odds of the label finite, (k + ½) / (h + 1)."""
    rater_id: int = 0
    """Of the panel; who its members are is not told."""

    def __post_init__(self) -> None:
        """Refuse a panel of nobody."""
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"Panel: size is {self.size}; give a whole number of at least 1.")
        if not 0.0 <= self.smoothing < np.inf:
            raise ValueError(f"Panel: smoothing is {self.smoothing}; give a number of 0 or more.")

    @property
    def meaning(self) -> str:
        """What the votes are about."""
        return self.rater.meaning

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """Answer every pair with a share of votes."""
        votes, cast = np.zeros(len(a)), np.zeros(len(a))
        for _ in range(self.size):
            label, answered, _ = self.rater(a, b, rng)
            votes += np.where(answered, label, 0.0)
            cast += answered
        given = cast > 0
        share = (votes + self.smoothing) / np.where(given, cast + 2.0 * self.smoothing, 1.0)
        return Labels(np.where(given, share, 0.5), given, np.full(len(a), self.rater_id, np.int64))

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """The exact mean label, E[(k + s) / (n + 2s) | n ≥ 1]; the rater's own if s is 0."""
        chance = self.rater.probability(a, b)
        if self.smoothing == 0.0:
            return chance
        mean: np.ndarray = 0.5 + (chance - 0.5) * self._kept(answer_probability(self.rater, a, b))
        return mean

    def answer_probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """The chance that somebody votes."""
        silent = 1.0 - answer_probability(self.rater, a, b)
        chance: np.ndarray = 1.0 - silent**self.size
        return chance

    @property
    def adaptive(self) -> bool:
        """Whether the members' habits follow the agent."""
        return isinstance(self.rater, AdaptiveRater) and self.rater.adaptive

    def adapted_to(self, seen: Segments) -> "Panel":
        """The same panel, its members adapted."""
        if not isinstance(self.rater, AdaptiveRater) or not self.rater.adaptive:
            return self
        return replace(self, rater=self.rater.adapted_to(seen))

    def _kept(self, answers: Float[np.ndarray, " batch"]) -> Float[np.ndarray, " batch"]:
        """E[n / (n + 2s) | n ≥ 1] with n binomial: how much of a lean smoothing leaves."""
        if (answers == 1.0).all():
            return np.full(len(answers), self.size / (self.size + 2.0 * self.smoothing))
        cast = np.arange(1, self.size + 1)
        answers = answers[:, None]
        voting = answers**cast * (1.0 - answers) ** (self.size - cast)
        chance = _binomial(self.size)[1:] * voting
        total = chance.sum(1)
        kept = (chance * cast / (cast + 2.0 * self.smoothing)).sum(1)
        mean: np.ndarray = kept / np.where(total > 0.0, total, 1.0)
        return mean


def _binomial(size: int) -> Float[np.ndarray, " counts"]:
    """The binomial coefficients of ``size``."""
    steps = np.arange(1, size + 1)
    coefficients: np.ndarray = np.cumprod(np.concatenate([[1.0], (size - steps + 1) / steps]))
    return coefficients
