"""Rewards of captions that were compared: Bradley-Terry, then a scale and a threshold."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from prefgym.annotation.labels import PairLabels
from prefgym.models.caption_models.judged import told
from prefgym.models.caption_models.scores import CaptionScores, Online
from prefgym.names import lookup

CONSTANT = 1e-8
"""A standard deviation at or below this is taken for a constant, which gives rewards of 0."""

_ROUNDING = 1e-5
"""A score may differ by less when it is computed beside others."""
_TRIES = 8
"""Pairs that are drawn for each that is wanted; equal and known ones are left out."""


@dataclass(frozen=True)
class Supply:
    """Which pairs are asked. The defaults are those of ONI, arXiv:2410.23022."""

    keep_every: int = 10
    """Of the captions seen, the empty one not counted, every so many-th may stand in a pair."""
    pairs: int = 10
    """Drawn at each update, while fewer than ``enough`` wait."""
    enough: int = 200
    """Two batches of the annotator."""
    kept: int = 10_000
    """Captions that are kept, the newest."""

    def __post_init__(self) -> None:
        """Refuse what asks nothing."""
        if min(self.keep_every, self.pairs, self.enough, self.kept) < 1:
            raise ValueError(f"{self}: wanted 1 or more of each.")


class Ranking:
    """Bradley-Terry rewards of captions; a tie is a label of ½.

    The raw score s is scaled to z = (s − mean) / deviation, and what is below a threshold gets 0:

        "running"     mean and deviation over all captions that were seen so far, with repeats, each
                      as scored when it was seen; z ≥ −.5 is kept. What ONI meant to do.
        "unique"      mean and deviation over the different captions that were compared, as scored
                      now; at and above their median is kept. What Motif does.
        "published"   s itself. What ONI's code does: it adds up the raw scores and leaves the
                      scaled ones unused.

    Before the first label every reward is 0; so is that of the empty caption, always.

    Source: Zheng et al. (2024), arXiv:2410.23022 (ONI); Klissarov et al. (2023), arXiv:2310.00166
    (Motif).

    Args:
        normalise: "running", "unique" or "published".
        threshold: of z, for "running".
        quantile: of the different captions, for "unique".
        encoder: "words" (a bag of words) or "characters" (convolutions).
        online: how much is learned when.
        supply: which pairs are asked.
        seed: of weights, minibatches, dropout and pairs.
    """

    kind: ClassVar[str] = "ranking"

    def __init__(
        self,
        normalise: str = "running",
        threshold: float = -0.5,
        quantile: float = 0.5,
        encoder: str = "words",
        online: Online | None = None,
        supply: Supply | None = None,
        seed: int = 0,
    ) -> None:
        lookup(normalise, dict.fromkeys(("running", "unique", "published")), "normalisation")
        if not 0.0 <= quantile <= 1.0:
            raise ValueError(f"Ranking: quantile is {quantile}; wanted one in [0, 1].")
        self._normalise, self._threshold, self._quantile = normalise, threshold, quantile
        self._scores = CaptionScores(2, encoder, online or Online(), seed)
        self._supply, self._rng = supply or Supply(), np.random.default_rng(seed)
        self._pairs: set[tuple[str, str]] = set()
        self._stock: list[str] = []
        self._met = 0
        self._running = np.zeros(3)
        """Captions seen, their mean score, and the sum of squares about it."""
        self._scale = 0.0, 0.0, threshold
        """Mean, deviation and threshold in use."""

    def learn(
        self, labels: PairLabels, seen: Sequence[str] = (), steps: int | None = None
    ) -> dict[str, float]:
        """Add labels and descend, then take note of what was seen; once in each update.

        Metrics: labels, ties (share of the labels), gradient_steps, reward_mean and
        reward_deviation (of raw scores, as used for scaling), where there were steps loss (nats),
        accuracy (decided labels) and rewarded (share of the captions compared).

        Args:
            labels: new ones, or none. NaN is none, and a pair with an empty caption has none.
            seen: the captions of the steps since the last call, with repeats ("running").
            steps: gradient steps; None: as :class:`Online` says.
        """
        columns, label = _judged(labels)
        self._pairs |= {_key(*pair) for pair in zip(*columns, strict=True)}
        metrics = self._scores.learn(columns, label, steps)
        if len(self._scores):
            metrics["ties"] = float((self._scores.label == 0.5).float().mean())
            if self._normalise != "unique":
                self._see(seen)
            self._rescale()
            metrics |= {"reward_mean": self._scale[0], "reward_deviation": self._scale[1]}
        if metrics["gradient_steps"]:
            metrics["rewarded"] = float((self.rewards(self._scores.captions) != 0.0).mean())
        return metrics

    def raw(self, captions: Sequence[str]) -> Float[np.ndarray, " captions"]:
        """The score of each caption, before scaling."""
        return self._scores(captions)

    def rewards(self, captions: Sequence[str]) -> Float[np.ndarray, " captions"]:
        """The reward of each caption."""
        if not len(self._scores):
            return np.zeros(len(captions))
        raw = self.raw(captions)
        if self._normalise == "published":
            return np.where(told(captions), raw, 0.0)
        scaled = self._scaled(raw)
        return np.where(told(captions) & (scaled >= self._scale[2]), scaled, 0.0)

    def wants(self, captions: Iterable[str], waiting: int = 0) -> list[tuple[str, str]]:
        """Which pairs to have compared: of captions kept, drawn at random, none of them twice.

        Args:
            captions: those of the steps since the last call, in their order, with repeats.
            waiting: pairs that wait for an answer already.
        """
        supply = self._supply
        said = [one for one in captions if one.strip()]
        self._stock += said[-self._met % supply.keep_every :: supply.keep_every]
        self._stock = self._stock[-supply.kept :]
        self._met += len(said)
        if waiting >= supply.enough or not self._stock:
            return []
        drawn = self._rng.integers(len(self._stock), size=(_TRIES * supply.pairs, 2)).tolist()
        pairs = [(self._stock[i], self._stock[j]) for i, j in drawn]
        new = {
            _key(*pair): pair
            for pair in pairs
            if pair[0] != pair[1] and _key(*pair) not in self._pairs
        }
        return list(new.values())[: supply.pairs]

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what happens next, as arrays and plain values."""
        return {
            "scores": self._scores.get_state(),
            "pairs": [list(pair) for pair in sorted(self._pairs)],
            "stock": list(self._stock),
            "met": self._met,
            "running": self._running.copy(),
            "scale": list(self._scale),
            "random": self._rng.bit_generator.state,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`get_state`, bit for bit."""
        self._scores.set_state(state["scores"])
        self._pairs = {(first, second) for first, second in state["pairs"]}
        self._stock, self._met = list(state["stock"]), state["met"]
        self._running = np.array(state["running"])
        mean, deviation, threshold = state["scale"]
        self._scale = mean, deviation, threshold
        self._rng.bit_generator.state = state["random"]

    def _scaled(self, raw: np.ndarray) -> np.ndarray:
        mean, deviation, _ = self._scale
        return (raw - mean) / deviation if deviation > CONSTANT else np.zeros_like(raw)

    def _see(self, captions: Sequence[str]) -> None:
        """Merge the moments of what was seen into those before. Chan, Golub and LeVeque (1983)."""
        times = Counter(one for one in captions if one.strip())
        if not times:
            return
        raw, weight = self.raw(list(times)), np.array(list(times.values()), np.float64)
        count, mean, squares = self._running.tolist()
        more = weight.sum()
        new_mean = (weight * raw).sum() / more
        gap, total = new_mean - mean, count + more
        squares += (weight * (raw - new_mean) ** 2).sum() + gap**2 * count * more / total
        self._running = np.array([total, mean + gap * more / total, squares])

    def _rescale(self) -> None:
        """Mean, deviation and threshold that are used from here on."""
        if self._normalise == "unique":
            raw = self.raw(self._scores.captions)
            self._scale = float(raw.mean()), float(raw.std()), -np.inf
            level = float(np.quantile(self._scaled(raw), self._quantile)) - _ROUNDING
            self._scale = self._scale[0], self._scale[1], level
        else:
            count, mean, squares = self._running.tolist()
            self._scale = mean, float((squares / max(count, 1.0)) ** 0.5), self._threshold


def _judged(labels: PairLabels) -> tuple[list[list[str]], np.ndarray]:
    """Those that are labels: no NaN, no empty caption."""
    label = np.asarray(labels.label, np.float64)
    kept = (np.isfinite(label) & told(labels.first) & told(labels.second)).nonzero()[0]
    columns = [[column[i] for i in kept.tolist()] for column in (labels.first, labels.second)]
    return columns, label[kept]


def _key(first: str, second: str) -> tuple[str, str]:
    return (first, second) if first <= second else (second, first)
