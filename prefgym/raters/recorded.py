"""Raters that answer from what is there already: recorded comparisons, or a fitted model."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from prefgym.comparisons import Comparisons, Labels, PreferenceDataset
from prefgym.raters.scripted import check_pair
from prefgym.segments import Segments

_Pair = tuple[bytes, bytes]


@dataclass(frozen=True, eq=False)
class RecordedRater:
    """Answers the pairs that a data set holds, in either order, and skips all others.

    A pair is known again by its contexts and actions. Where it was recorded several times, the
    mean label counts.
    """

    data: Comparisons | PreferenceDataset

    @property
    def meaning(self) -> str:
        """What the recorded labels mean."""
        return self.data.meaning

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """The recorded labels; pairs that were never asked are skipped."""
        label, rater_id = self._look_up(a, b)
        known = ~np.isnan(label)
        return Labels(np.where(known, label, 0.5), known, rater_id)

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """The recorded labels; ½ for pairs that were never asked."""
        label, _ = self._look_up(a, b)
        return np.where(np.isnan(label), 0.5, label)

    def _look_up(
        self, a: Segments, b: Segments
    ) -> tuple[Float[np.ndarray, " batch"], Int[np.ndarray, " batch"]]:
        check_pair(a, b)
        nothing = (float("nan"), 0)
        found = [self._table.get(pair, nothing) for pair in _pairs(a, b)]
        label = np.array([one[0] for one in found], np.float64)
        return label, np.array([one[1] for one in found], np.int64)

    @cached_property
    def _table(self) -> dict[_Pair, tuple[float, int]]:
        whole = self.data.comparisons if isinstance(self.data, PreferenceDataset) else self.data
        seen: dict[_Pair, list[float]] = {}
        who: dict[_Pair, int] = {}
        pairs = _pairs(whole.a, whole.b)
        for (a, b), label, rater in zip(pairs, whole.label, whole.rater_id, strict=True):
            for pair, one in (((a, b), float(label)), ((b, a), 1.0 - float(label))):
                seen.setdefault(pair, []).append(one)
                who.setdefault(pair, int(rater))
        return {pair: (float(np.mean(labels)), who[pair]) for pair, labels in seen.items()}


@runtime_checkable
class Compares(Protocol):
    """A preference model, as :class:`prefgym.models.reward_models.RewardModel` is one."""

    def logits(self, a: Segments, b: Segments) -> Any:
        """Log-odds that ``a`` is preferred, ``[members, batch]``."""


@dataclass(frozen=True, eq=False)
class ModelRater:
    """A judge: a preference model that was fitted before answers in the place of a person."""

    model: Compares
    meaning: str = "model"
    soft: bool = False
    """Answer with the probability itself instead of drawing from it."""
    rater_id: int = 0

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """Answer every pair."""
        label = self.probability(a, b)
        if not self.soft:
            label = (rng.random(len(a)) < label).astype(np.float64)
        return Labels(label, np.ones(len(a), bool), np.full(len(a), self.rater_id, np.int64))

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """σ of the members' mean log-odds, made to agree with itself on the mirrored pair."""
        check_pair(a, b)
        forward, backward = (
            np.asarray(self.model.logits(*pair), np.float64).mean(0) for pair in ((a, b), (b, a))
        )
        chance: np.ndarray = 0.5 + 0.5 * np.tanh(0.25 * (forward - backward))
        return chance


def _pairs(a: Segments, b: Segments) -> Iterator[_Pair]:
    return zip(_keys(a), _keys(b), strict=True)


def _keys(segments: Segments) -> Iterator[bytes]:
    """What tells a segment: its context, and its actions as far as it goes."""
    plain = segments.numpy()
    lengths = plain.mask.sum(1)
    for context, actions, length in zip(plain.context, plain.actions, lengths, strict=True):
        yield (
            np.asarray(context, np.float64).tobytes()
            + b"/"
            + np.asarray(actions[:length], np.float64).tobytes()
        )
