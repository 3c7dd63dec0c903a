"""Imitate an expert's actions: behaviour cloning, DAgger and HG-DAgger.

Sources: Pomerleau (1988), ALVINN; Ross, Gordon and Bagnell (2011), arXiv:1011.0686 (DAgger); Kelly
et al. (2019), arXiv:1810.02890 (HG-DAgger).

    act under supervision (prefgym.interventions)
    ask: what the expert did, or what it would have done, joins the examples
    descend −log π(expert's action) on minibatches of all examples

The three differ by who acts and what is asked, hence by the environment's supervision and one
setting:

    bc           the expert acts from the first step to the last: ``whole_episodes(expert)``
    hg_dagger    the expert acts where a rule lets it take over; what it did there is learned
    dagger       the policy acts; the expert says what it would have done in every state visited

Expert labels are counted, one for each example, and ``labels`` bounds them, so that learners can be
compared at equal numbers; once they are spent, acting goes on and no example is added. The released
code of RLIF (Luo et al. 2023, arXiv:2311.12996) weakens both, and so do the presets
``dagger_released`` (of the states visited half are labelled; elsewhere the policy's own actions
count as examples) and ``hg_dagger_released`` (the policy's own steps are examples, too).

Metrics: ``imitation/labels``, ``imitation/examples``, ``imitation/loss`` (mean −log π of the
minibatches, in nats), and what the backend says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool

from prefgym.interventions import Random, Supervision
from prefgym.interventions.supervision import INTERVENED, Running
from prefgym.names import lookup, settings_of
from prefgym.segments import Segments
from prefgym.wrappers.inner import find_attribute
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.learner import Learner
from prefgym_agents.silence import Silence, check_share

Ask = Literal["interventions", "everywhere"]


@dataclass(frozen=True)
class Config:
    """Settings of imitation."""

    ask: Ask = "interventions"
    """What is learned: the steps that the expert acted in, or what it would have done in all."""
    labels: int | None = None
    """Actions of the expert that may be learned from in all; None: no limit."""
    share: float = 1.0
    """Of the states visited that are labelled, where all are asked about."""
    own_steps: bool = False
    """Learn the policy's own actions, too, where the expert gave none."""
    gradient_steps: int = 32
    """Of every turn."""
    batch_size: int = 64
    """Examples of a gradient step."""
    seed: int = 0
    """Of the minibatches."""
    silence: float = 0.05
    """Share of the training steps after which it is a warning that there is no example."""

    def __post_init__(self) -> None:
        """Refuse settings that can never work."""
        lookup(self.ask, dict.fromkeys(get_args(Ask)), "setting of ask=")
        for name in ("labels", "gradient_steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}; wanted at least 1.")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share={self.share}; wanted one in (0, 1].")
        check_share(self.silence)


PRESETS: dict[str, Config] = {
    "bc": Config(),
    "hg_dagger": Config(),
    "dagger": Config(ask="everywhere"),
    "dagger_released": Config(ask="everywhere", share=0.5, own_steps=True),
    "hg_dagger_released": Config(own_steps=True),
}


def whole_episodes(expert: Any) -> Supervision:
    """The expert acts in every step, as demonstrators do."""
    return Supervision(expert, Random(1.0), None, "proposed")


class Imitation(Learner):
    """Imitation of an expert, on any backend whose actions have a log-probability.

    Args:
        policy: acts in an environment made with ``supervision=``.
        config: the settings, or the name of a preset.
        tensorboard_log: folder for TensorBoard.
        verbose: 1 prints tables.
        **changes: single settings that differ from ``config``.

    Raises:
        ValueError: unknown settings, nobody to imitate, an environment of text, or a policy without
            log-probabilities.
    """

    def __init__(
        self,
        policy: PolicyBackend,
        config: Config | str = "bc",
        *,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        **changes: Any,
    ) -> None:
        super().__init__(policy, tensorboard_log, verbose)
        self.config: Config = settings_of(config, changes, "imitation", PRESETS)
        running: Running | None = find_attribute(self.env.env, "running")
        if running is None:
            raise ValueError(
                "Imitation: nobody supervises this environment; make it with supervision="
                "whole_episodes(expert), or Supervision(expert, rule) (prefgym.interventions)."
            )
        if self.env.layout is not None:
            raise ValueError(
                "Imitation learns what to do in single observations, and this environment writes"
                " text; fine-tune on an expert's responses, or choose an environment with"
                " observations."
            )
        if not policy.has_log_prob:
            raise ValueError(
                "Imitation raises the log-probability of the expert's actions, and this policy acts"
                " deterministically; use PPO, A2C or SAC."
            )
        self.expert = running.expert
        self.env.stop_emitting()
        self.labels = 0
        """Actions of the expert that were learned from so far."""
        self.turns = 0
        self._silence = Silence(
            self.config.silence,
            "Imitation: the expert has not acted in the first {steps} steps, and without examples"
            " there is nothing to learn; let the rule take over more easily, or ask everywhere (the"
            " preset dagger).",
        )
        self._observations: list[np.ndarray] = []
        self._actions: list[np.ndarray] = []

    def step(self, total_timesteps: int) -> dict[str, float] | None:
        """Act; ask; imitate."""
        with self.clock("env"):
            segments = self.policy.collect()
        if segments is None:
            return None
        rng = np.random.default_rng((self.config.seed, self.turns))
        with self.clock("rater"):
            self._ask(segments, rng)
        self._silence.look(bool(self._actions), self.num_timesteps, total_timesteps)
        with self.clock("policy"):
            losses = self._imitated(rng)
        self.turns += 1
        return {
            "imitation/labels": float(self.labels),
            "imitation/examples": float(sum(map(len, self._actions))),
            **({"imitation/loss": float(np.mean(losses))} if losses else {}),
        }

    # -- examples -----------------------------------------------------------------------------

    def _ask(self, segments: Segments, rng: np.random.Generator) -> None:
        """Take examples from new steps."""
        mask = np.asarray(segments.mask)
        assert segments.observations is not None
        seen, done = (np.asarray(one)[mask] for one in (segments.observations, segments.actions))
        labelled = self._labelled(np.asarray(segments.factors[INTERVENED])[mask] > 0.0, rng)
        actions = np.array(done)
        if self.config.ask == "everywhere" and labelled.any():
            actions[labelled] = self.expert(seen[labelled])
        kept = np.ones(len(seen), np.bool_) if self.config.own_steps else labelled
        self.labels += int(labelled.sum())
        if kept.any():
            self._observations.append(seen[kept])
            self._actions.append(actions[kept])

    def _labelled(
        self, intervened: Bool[np.ndarray, " steps"], rng: np.random.Generator
    ) -> Bool[np.ndarray, " steps"]:
        """Which steps the expert says something about, as far as it may."""
        labelled = intervened
        if self.config.ask == "everywhere":
            labelled = rng.random(len(intervened)) < self.config.share
        if self.config.labels is None:
            return labelled
        within: np.ndarray = labelled & (np.cumsum(labelled) <= self.config.labels - self.labels)
        return within

    # -- learning -----------------------------------------------------------------------------

    def _imitated(self, rng: np.random.Generator) -> list[float]:
        """Losses of the gradient steps of a turn."""
        if not self._actions:
            return []
        seen, done = (np.concatenate(one) for one in (self._observations, self._actions))
        self._observations, self._actions = [seen], [done]
        return [
            self.policy.fit(
                _likelihood_loss,
                _single_steps(seen, done, rng.integers(len(done), size=self.config.batch_size)),
            )["loss"]
            for _ in range(self.config.gradient_steps)
        ]

    def state(self) -> dict[str, Any]:
        """The examples, and how many of them the expert gave."""
        examples = {}
        if self._actions:
            examples = {
                "observations": np.concatenate(self._observations),
                "actions": np.concatenate(self._actions),
            }
        counts = {"labels": self.labels, "turns": self.turns, "warned": self._silence.warned}
        return {**counts, **examples}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.labels, self.turns, self._silence.warned = (
            state["labels"],
            state["turns"],
            state["warned"],
        )
        self._observations = [np.array(state["observations"])] if "observations" in state else []
        self._actions = [np.array(state["actions"])] if "actions" in state else []


def _likelihood_loss(log_prob: torch.Tensor) -> torch.Tensor:
    """Mean −log π of single steps, in nats."""
    return -log_prob.mean()


def _single_steps(seen: np.ndarray, done: np.ndarray, rows: np.ndarray) -> Segments:
    """Examples as segments of one step each."""
    return Segments(
        actions=done[rows][:, None],
        mask=np.ones((len(rows), 1), np.bool_),
        context=seen[rows],
        context_id=rows,
        observations=seen[rows][:, None],
    )
