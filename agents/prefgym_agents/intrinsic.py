"""Intrinsic rewards from a judge of captions: what happens is named, and somebody says what helps.

Sources: Zheng et al. (2024), "Online intrinsic rewards for decision making agents from large
language model feedback", arXiv:2410.23022 (ONI); Klissarov et al. (2023), "Motif: intrinsic
motivation from artificial intelligence feedback", arXiv:2310.00166.

    act; captions that are new go to the annotator, newest first
    labels that came back teach a model of captions
    r = c_ext · r_ext + c_int · r_int(caption) / N^k     N: how often in this episode, so far
    improve the policy for r

ONI does this from the first step on, and never waits for the annotator. Motif labels first
(``label_steps``), fits once, and then freezes the model (``freeze``).

The count makes the reward depend on what happened before in the episode, so that the policy must
see the counts (``counts=`` of the environment) or remember: otherwise it collects what is left of
a reward for ever.

Metrics: ``rater/...`` (the annotator's counts), ``reward_model/...`` (the caption model's),
``intrinsic/reward`` (mean of r_int / N^k over the steps), ``intrinsic/captions`` (those that have
a number: all that there can be where they can be listed, else those met so far), ``intrinsic/told``
(share of the steps in which something happened).
"""

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from prefgym.annotation import Annotator, Inline
from prefgym.captions import CAPTION, Captions
from prefgym.models.caption_models import Classification, Ranking, Retrieval
from prefgym.names import lookup, settings_of
from prefgym.rewards import count_discount
from prefgym.segments import Segments
from prefgym.wrappers.inner import find_attribute
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.learner import Learner
from prefgym_agents.worth import Worth

Model = Literal["retrieval", "classification", "ranking"]
MODELS: dict[str, str] = {
    "retrieval": "helpful",
    "classification": "helpful",
    "ranking": "ranking",
}
"""Models of captions, and what each wants to be told."""
FUTILE, SILENT_S, PAUSE_S = 6, 300.0, 0.05
"""Labels that come first are waited for until a judge who is there was asked so often in vain for
what is left, or no label came for so many seconds; and the time between two looks."""
UNLABELLED = (
    "{left} questions have no answer, and the model of captions is frozen without them; look"
    " whether the judge answers, or label for longer."
)
SILENCE, FEW = 0.1, 5
"""Share of the training, and labels (fewer where there are fewer captions, or at the end), after
which it is said that no caption earns anything."""
NOTHING_HELPS = (
    "no caption is found helpful, or better than another, after {labels} labels, so that the reward"
    " is constant; is the goal in the words of the captions, and what does the judge answer?"
)
NO_LABEL = "no label has come in the first {steps} steps; look at rater/failures and the judge."


@dataclass(frozen=True)
class Config:
    """Settings of intrinsic rewards."""

    model: Model = "retrieval"
    """What labels teach: a table, a classifier, or rewards that explain which of two is better."""
    extrinsic: float = 1.0
    """c_ext, of the task's own reward; 0 leaves it out."""
    intrinsic: float = 0.1
    """c_int."""
    exponent: float = 3.0
    """k: 0 pays every time alike, infinity the first time alone."""
    encoder: Literal["words", "characters"] = "words"
    """How a network reads a caption."""
    threshold: float | None = None
    """Of classification: the least probability (½ by default); of ranking: what is less, in
    deviations, is 0 (−½ by default)."""
    normalise: Literal["running", "unique", "published"] = "running"
    """Of ranking: by what was seen so far, by each different caption once (Motif), or not at all,
    as the published program does by a slip."""
    label_steps: int = 0
    """Steps in the beginning in which nothing but captions is learned about (Motif)."""
    fit_steps: int | None = None
    """Gradient steps on the labels of that time; None: as always when labels come."""
    freeze: bool = False
    """Ask and learn nothing more of captions afterwards (Motif)."""
    seed: int = 0
    """Of the caption model."""

    def __post_init__(self) -> None:
        """Refuse settings that can never work."""
        lookup(self.model, MODELS, "setting of model=")
        for name in ("extrinsic", "intrinsic", "exponent", "label_steps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}; wanted 0 or more.")
        if self.freeze and not self.label_steps:
            raise ValueError("freeze=True learns nothing without label steps; give label_steps.")


PRESETS: dict[str, Config] = {
    "retrieval": Config(),
    "classification": Config(model="classification"),
    "ranking": Config(model="ranking"),
    "motif": Config(
        model="ranking", normalise="unique", label_steps=20_000, fit_steps=1_000, freeze=True
    ),
}


def caption_model(config: Config) -> Any:
    """The model of captions that the settings describe."""
    given: dict[str, Any] = {} if config.threshold is None else {"threshold": config.threshold}
    if config.model == "retrieval":
        return Retrieval()
    if config.model == "classification":
        return Classification(encoder=config.encoder, seed=config.seed, **given)
    return Ranking(normalise=config.normalise, encoder=config.encoder, seed=config.seed, **given)


class Intrinsic(Learner):
    """Reinforcement learning on the task's reward and on what a judge says of captions.

    Args:
        policy: acts in an environment that tells captions.
        annotator: who has captions judged, of the kind that the model wants ("helpful", or
            "ranking" for ``model="ranking"``).
        config: the settings, or the name of a preset: retrieval, classification, ranking or motif.
        tensorboard_log: folder for TensorBoard.
        verbose: 1 prints tables.
        **changes: single settings that differ from ``config``.

    Raises:
        ValueError: unknown settings, an environment without captions, or an annotator of another
            kind.
    """

    def __init__(
        self,
        policy: PolicyBackend,
        annotator: Annotator | Inline,
        config: Config | str = "retrieval",
        *,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        **changes: Any,
    ) -> None:
        super().__init__(policy, tensorboard_log, verbose)
        self.config: Config = settings_of(config, changes, "Intrinsic", PRESETS)
        self.store = self.env.store
        captions: Captions | None = find_attribute(self.env, "captions")
        if captions is None or CAPTION not in self.store.factor_names:
            raise ValueError(
                "Intrinsic: this environment tells no captions; choose one that does, such as"
                " prefgym/DoorKey-8x8-v0, or pass captions=True where it can."
            )
        if annotator.kind != MODELS[self.config.model]:
            raise ValueError(
                f"Intrinsic: the annotator asks questions of kind {annotator.kind!r}, and"
                f" model={self.config.model!r} learns from {MODELS[self.config.model]!r}; make it"
                f" with kind={MODELS[self.config.model]!r}."
            )
        self.env.stop_emitting()
        self.captions = captions
        self.annotator = annotator
        self._offer: Any = annotator.offer_pairs if annotator.kind == "ranking" else annotator.offer
        self.model = caption_model(self.config)
        self.frozen = False
        """Whether captions are learned about no more."""
        self._stale = True
        """Whether what is replayed was judged by another model of captions, or never."""
        self._taught = 0
        """Labels that the model of captions was given."""
        self._tied = self._settled = False
        """Whether no caption is better; whether one is, or it was said that none is."""

    # -- the algorithm ------------------------------------------------------------------------

    def step(self, total_timesteps: int) -> dict[str, float] | None:
        """Act; have captions judged; learn from the labels that came; improve the policy."""
        with self.clock("env"):
            segments = self.policy.collect()
        if segments is None:
            return None
        told = {} if self.frozen else self._learned(segments)
        if self.num_timesteps < self.config.label_steps:
            return {**told, **self._metrics(segments)}
        if self.config.freeze and not self.frozen:
            told |= self._last_labels()
        self._warn(total_timesteps)
        with self.clock("reward_model"):
            curiosity = self.intrinsic(segments)
        with self.clock("policy"):
            if self.policy.has_replay and self._stale:
                self.policy.relabel(self.rewards)
            self._stale = False
            metrics = self.policy.update(segments, self._sum(segments, curiosity))
        earned = {"intrinsic/reward": float(curiosity[np.asarray(segments.mask)].mean())}
        return {**metrics, **told, **earned, **self._metrics(segments)}

    def rewards(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """What each step earns, ``[B, T]``."""
        return self._sum(segments, self.intrinsic(segments))

    def _sum(self, segments: Segments, curiosity: np.ndarray) -> np.ndarray:
        task = (
            self.config.extrinsic * np.asarray(segments.rewards) if self.config.extrinsic else 0.0
        )
        return task + self.config.intrinsic * curiosity

    def intrinsic(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """r_int / N^k of each step, counted from the beginning of its episode.

        What a replay has lost of an episode counts as if it had not been.
        """
        episodes = np.unique(np.asarray(segments.episode))
        index = self.store.whole(episodes)
        said, mask = self.store.factor(CAPTION, index, int(index.length.max()))
        events = said.astype(np.int64)
        numbers, place = np.unique(events, return_inverse=True)
        each = self.model.rewards(self.captions.texts(numbers))[place.reshape(events.shape)]
        counted = count_discount(
            torch.as_tensor(each),
            torch.as_tensor(events),
            torch.as_tensor(mask),
            self.config.exponent,
        )
        known = np.zeros((len(mask), int((index.start + index.length).max())))
        row, column = mask.nonzero()
        known[row, index.start[row] + column] = counted.numpy()[mask]
        return Worth(index.episode, known).of(segments)

    # -- captions -----------------------------------------------------------------------------

    def _learned(self, segments: Segments) -> dict[str, float]:
        """Offer what the model wants to know; learn from the labels that are there."""
        plain = segments.numpy()
        seen = self.captions.texts(plain.factors[CAPTION].T[plain.mask.T])
        with self.clock("rater"):
            self._offer(self.model.wants(seen, self.annotator.counts()["waiting"]))
            labels = self.annotator.labels()
        with self.clock("reward_model"):
            metrics = self.model.learn(labels, seen=seen)
        self._stale |= len(labels.label) > 0 or metrics.get("gradient_steps", 0.0) > 0.0
        self._taught += len(labels.label)
        self._tied = metrics.get("ties", 0.0) == 1.0
        return _named("reward_model", metrics)

    def _last_labels(self) -> dict[str, float]:
        """Wait for the labels that were asked for, learn from them, and freeze the model."""
        last = now = self.annotator.counts()
        since = time.monotonic()
        away = isinstance(self.annotator, Annotator)
        while now["waiting"] and not _in_vain(last, now, away):
            if time.monotonic() > since + SILENT_S:
                break
            time.sleep(PAUSE_S * away)
            self._offer([])
            now = self.annotator.counts()
            if now["waiting"] < last["waiting"]:
                last, since = now, time.monotonic()
        if now["waiting"]:
            self._settled = True
            told = UNLABELLED.format(left=now["waiting"])
            warnings.warn(f"Intrinsic: {told}", stacklevel=3)
        with self.clock("reward_model"):
            labels = self.annotator.labels()
            metrics = self.model.learn(labels, steps=self.config.fit_steps)
        self._taught += len(labels.label)
        self._tied = metrics.get("ties", 0.0) == 1.0
        self.frozen = self._stale = True
        return _named("reward_model", metrics)

    def _warn(self, total_timesteps: int) -> None:
        """Say once if a tenth of the training is over and no caption earns anything."""
        early = self.num_timesteps < SILENCE * total_timesteps
        if self._settled or early or not self.config.intrinsic:
            return
        counts, known = self.annotator.counts(), self.captions.texts(range(len(self.captions)))
        earning = not self._tied and bool(self.model.rewards(known).any())
        unheard = not counts["labelled"] and counts["waiting"] > 0
        over = self.num_timesteps >= total_timesteps and self._taught > 0
        enough = self._taught >= max(1, min(FEW, len(known) - 1))
        self._settled = earning or unheard or enough or over
        if self._settled and not earning:
            sentence = NOTHING_HELPS if self._taught else NO_LABEL
            told = sentence.format(labels=self._taught, steps=self.num_timesteps)
            warnings.warn(f"Intrinsic: {told}", stacklevel=4)

    def _metrics(self, segments: Segments) -> dict[str, float]:
        mask = np.asarray(segments.mask)
        return {
            **_named("rater", self.annotator.counts()),
            "intrinsic/captions": float(len(self.captions) - 1),
            "intrinsic/told": float((np.asarray(segments.factors[CAPTION])[mask] > 0).mean()),
        }

    # -- keeping ------------------------------------------------------------------------------

    @property
    def labels(self) -> int:
        """Labels of captions, or of pairs, so far."""
        return self.annotator.counts()["labelled"]

    def close(self) -> None:
        """Close the environment, and end the annotator."""
        super().close()
        self.annotator.close()

    def state(self) -> dict[str, Any]:
        """The model of captions, what waits for a label, and whether all that is over."""
        return {
            "model": self.model.get_state(),
            "annotator": self.annotator.get_state(),
            "frozen": self.frozen,
            "stale": self._stale,
            "settled": self._settled,
            "tied": self._tied,
            "taught": self._taught,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.model.set_state(state["model"])
        self.annotator.set_state(state["annotator"])
        self.frozen = state["frozen"]
        self._stale, self._settled = state["stale"], state["settled"]
        self._tied, self._taught = state["tied"], state["taught"]


def _named(prefix: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics under one heading, whether they stand there already or not."""
    return {
        name if name.startswith(f"{prefix}/") else f"{prefix}/{name}": float(one)
        for name, one in metrics.items()
    }


def _in_vain(last: Mapping[str, int], now: Mapping[str, int], away: bool) -> bool:
    """Whether asking, since the last label came, shows that no other is to be hoped for.

    A judge who is not there may return where it is asked from a process of its own, in its time.
    """
    grown = {name: now.get(name, 0) - last.get(name, 0) for name in now}
    if gone := grown["failures"] + grown.get("restarts", 0):
        return gone >= FUTILE and not away
    return grown["asked"] >= FUTILE * now["waiting"]
