"""Rewards of captions that were judged one by one: by heart, or by a classifier."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from prefgym.annotation.labels import CaptionLabels
from prefgym.models.caption_models.scores import CaptionScores, Online

_LOOKED_AT = 1000
"""Newest captions on which predictions are looked at."""


class Retrieval:
    """A table: 1 for a caption that was found helpful, 0 for any other, judged or not.

    Source: Zheng et al. (2024), arXiv:2410.23022 (ONI).
    """

    kind: ClassVar[str] = "helpful"

    def __init__(self) -> None:
        self._table: dict[str, float] = {}

    def learn(
        self, labels: CaptionLabels, seen: Sequence[str] = (), steps: int | None = None
    ) -> dict[str, float]:
        """Add labels. Metrics: labels, positive_labels (share).

        Args:
            labels: new ones. NaN is none, and the empty caption has none.
            seen: not needed.
            steps: not needed.
        """
        captions, label = judged(labels)
        self._table |= dict(zip(captions, (label > 0.5).astype(np.float64).tolist(), strict=True))
        return {
            "labels": float(len(self._table)),
            **_share("positive_labels", self._table.values()),
        }

    def rewards(self, captions: Sequence[str]) -> Float[np.ndarray, " captions"]:
        """The reward of each caption, 0 or 1."""
        return np.array([self._table.get(one, 0.0) for one in captions], np.float64)

    def wants(self, captions: Iterable[str], waiting: int = 0) -> list[str]:
        """What to have judged of what was seen: all that was not, the newest last.

        Args:
            captions: in the order in which they were seen; repeats do no harm.
            waiting: not needed.
        """
        return unseen(captions, self._table)

    def get_state(self) -> dict[str, Any]:
        """The table, as plain values."""
        return {"captions": list(self._table), "label": np.array(list(self._table.values()))}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`get_state`."""
        self._table = dict(zip(state["captions"], state["label"].tolist(), strict=True))


class Classification:
    """A classifier of texts: 1 for a caption that is helpful with a probability above η, else 0.

    Before the first label every reward is 0. Of the labels, most may be of one class; that the
    classifier says 0 to everything shows in ``predicted_positive``.

    Source: Zheng et al. (2024), arXiv:2410.23022 (ONI).

    Args:
        threshold: η, in [0, 1].
        encoder: "words" (a bag of words) or "characters" (convolutions).
        online: how much is learned when.
        seed: of weights, minibatches and dropout.
    """

    kind: ClassVar[str] = "helpful"

    def __init__(
        self,
        threshold: float = 0.5,
        encoder: str = "words",
        online: Online | None = None,
        seed: int = 0,
    ) -> None:
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"Classification: threshold is {threshold}; wanted one in [0, 1].")
        self._threshold = threshold
        self._scores = CaptionScores(1, encoder, online or Online(), seed)
        self._known: set[str] = set()

    def learn(
        self, labels: CaptionLabels, seen: Sequence[str] = (), steps: int | None = None
    ) -> dict[str, float]:
        """Add labels and descend; call it once in each update of the policy.

        Metrics: labels, positive_labels (share), gradient_steps, and where there were any: loss
        (nats), accuracy, predicted_positive (share of the newest 1000 captions that were judged).

        Args:
            labels: new ones, or none. NaN is none, and the empty caption has none.
            seen: not needed.
            steps: gradient steps; None: as :class:`Online` says.
        """
        captions, label = judged(labels)
        self._known |= {*captions}
        metrics = self._scores.learn([captions], label, steps)
        metrics |= _share("positive_labels", self._scores.label.tolist())
        if metrics["gradient_steps"]:
            predicted = self.rewards(self._scores.captions[-_LOOKED_AT:])
            metrics |= _share("predicted_positive", predicted.tolist())
        return metrics

    def probabilities(self, captions: Sequence[str]) -> Float[np.ndarray, " captions"]:
        """How probably each caption is helpful."""
        chances: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * self._scores(captions))
        return chances

    def rewards(self, captions: Sequence[str]) -> Float[np.ndarray, " captions"]:
        """The reward of each caption, 0 or 1."""
        if not len(self._scores):
            return np.zeros(len(captions))
        helpful = (self.probabilities(captions) > self._threshold) & told(captions)
        return np.where(helpful, 1.0, 0.0)

    def wants(self, captions: Iterable[str], waiting: int = 0) -> list[str]:
        """As :meth:`Retrieval.wants`."""
        return unseen(captions, self._known)

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what happens next, as arrays and plain values."""
        return {"scores": self._scores.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`get_state`, bit for bit."""
        self._scores.set_state(state["scores"])
        self._known = {*self._scores.captions}


def judged(labels: CaptionLabels) -> tuple[list[str], np.ndarray]:
    """Those that are labels: no NaN, no empty caption."""
    label = np.asarray(labels.label, np.float64)
    kept = np.isfinite(label) & told(labels.captions)
    return [labels.captions[i] for i in kept.nonzero()[0].tolist()], label[kept]


def told(captions: Sequence[str]) -> np.ndarray:
    """Which captions say anything."""
    return np.array([one.strip() != "" for one in captions], bool)


def unseen(captions: Iterable[str], known: "set[str] | dict[str, float]") -> list[str]:
    """The different captions that are not known, by when they were last seen."""
    newest = dict.fromkeys(reversed([*captions]))
    return [one for one in reversed(newest) if one.strip() and one not in known]


def _share(name: str, values: Iterable[float]) -> dict[str, float]:
    values = [*values]
    return {name: float(np.mean(np.array(values) > 0.5))} if values else {}
