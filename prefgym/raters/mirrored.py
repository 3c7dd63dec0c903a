"""Whether a rater says the same of a pair when its sides change places, found out as it answers.

Win rates are only fair where P(a ≻ b) + P(b ≻ a) = 1: a rater that favours the first side whatever
it sees makes every trajectory beat its opponents.
"""

import numpy as np

from prefgym.raters.protocols import Rater
from prefgym.segments import Segments

SAMPLE = 4
"""Pairs of every batch that are asked about in both orders."""
TOLERANCE = 1e-6
"""By how much probabilities may miss 1."""
DEVIATIONS = 6.0
"""Standard errors by which drawn answers may miss it on average."""


class MirrorCheck:
    """Asks about a few pairs of every batch in both orders, and refuses a rater that has a side.

    Where probabilities are known they are compared at once. Drawn answers are added up from batch
    to batch: l(a, b) + l(b, a) − 1 has mean 0 and a variance of at most ½.
    """

    def __init__(self) -> None:
        self._pairs = 0
        self._excess = 0.0

    def __call__(self, rater: Rater, a: Segments, b: Segments, rng: np.random.Generator) -> None:
        """Look at a few of the pairs.

        Raises:
            ValueError: the order of the two sides decides.
        """
        chosen = rng.integers(len(a), size=min(SAMPLE, len(a)))
        a, b = a.take(chosen), b.take(chosen)
        try:
            both = rater.probability(a, b) + rater.probability(b, a)
        except ValueError:  # it does not know them
            self._add_drawn(rater, a, b, rng)
            return
        if (np.abs(both - 1.0) > TOLERANCE).any():
            worst = int(np.argmax(np.abs(both - 1.0)))
            _refuse(rater, f"P(a ≻ b) + P(b ≻ a) is {both[worst]:.6g} for some pair")

    def _add_drawn(self, rater: Rater, a: Segments, b: Segments, rng: np.random.Generator) -> None:
        there, back = rater(a, b, rng), rater(b, a, rng)
        known = there.answered & back.answered
        self._pairs += int(known.sum())
        self._excess += float((there.label + back.label - 1.0)[known].sum())
        if abs(self._excess) > DEVIATIONS * np.sqrt(0.5 * max(self._pairs, 1)):
            mean = 1.0 + self._excess / self._pairs
            _refuse(
                rater,
                f"labels of {self._pairs} pairs and of their mirror images add up to"
                f" {mean:.2f} on average",
            )


def _refuse(rater: Rater, found: str) -> None:
    raise ValueError(
        f"The rater {rater.meaning!r} prefers by the order of the two sides: {found}, which must be"
        " 1; make it answer (b, a) as the mirror image of (a, b)."
    )
