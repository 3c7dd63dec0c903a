"""What a learner asks of whatever stores and improves a policy, on every domain.

A backend is the only part that knows how a policy is represented. A learner calls it in a loop:
collect, decide what the steps were worth, update. Nothing here knows a simulator, a network
library's trainer, or a language model.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from prefgym.models.heads import HeadFactory
from prefgym.models.reward_models import PointwiseModel
from prefgym.segments import Segments

RewardFunction = Callable[[Segments], np.ndarray]
"""Rewards ``[B, T]`` of a batch of segments; what it says of padding is never read."""


@runtime_checkable
class PolicyBackend(Protocol):
    """A policy, the environment that it acts in, and the algorithm that improves it."""

    env: Any
    """The preference environment: ``store``, ``preferences``, ``compare(a, b)``, ..."""

    @property
    def num_timesteps(self) -> int:
        """Environment steps taken, over all lanes."""
        ...

    @property
    def steps_per_collect(self) -> int:
        """Environment steps of one :meth:`collect`."""
        ...

    @property
    def has_log_prob(self) -> bool:
        """Whether actions have a log-probability: not where a policy is deterministic."""
        ...

    @property
    def has_replay(self) -> bool:
        """Whether steps are learned from again and again, and not once when they are collected."""
        ...

    def begin(self, total_timesteps: int, callback: Any = None) -> None:
        """Get ready for a call of ``learn``: schedules run to ``total_timesteps``."""
        ...

    def end(self) -> None:
        """Training is over, for now."""
        ...

    def episode_statistics(self) -> dict[str, float]:
        """What recent episodes were like, for people to read (``rollout/ep_rew_mean``, ...)."""
        ...

    def collect(self) -> Segments | None:
        """Act, and return exactly the steps taken; None when a callback asked to stop."""
        ...

    def update(self, segments: Segments, rewards: np.ndarray) -> dict[str, float]:
        """Improve the policy, given what each step that was collected is worth, ``[B, T]``."""
        ...

    def relabel(self, rewards: RewardFunction, episodes: np.ndarray | None = None) -> None:
        """Judge everything that is still learned from anew (nothing, for on-policy learners).

        Args:
            rewards: asked about it in large batches.
            episodes: ``[n]`` numbers in the store: only these.
        """
        ...

    def restart_values(self) -> None:
        """Forget what states were worth under an earlier reward, not how to act."""
        ...

    def reward_model(
        self,
        members: int,
        hidden: Sequence[int],
        tanh: bool,
        seed: int,
        head: HeadFactory | None = None,
    ) -> PointwiseModel:
        """A new ensemble of rewards that reads what happens in this environment.

        Args:
            members: rewards in the ensemble.
            hidden: width of each hidden layer, where layers are made for the purpose.
            tanh: hold every reward in (−1, 1).
            seed: of the initial weights.
            head: makes another head than one reward per step (``prefgym.models.presets``).
        """
        ...

    def log_prob(self, segments: Segments) -> torch.Tensor:
        """Log-probability of each action, ``[B, T]``, with gradient; zero on padding."""
        ...

    def reference_log_prob(self, segments: Segments) -> torch.Tensor:
        """The same under the policy as it was when the backend was made, without gradient."""
        ...

    def fit(
        self, loss: Callable[[torch.Tensor], torch.Tensor], segments: Segments
    ) -> dict[str, float]:
        """One gradient step on a loss of :meth:`log_prob`."""
        ...

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Actions for a batch of observations, as Stable-Baselines3 has it."""
        ...

    def snapshot(self) -> dict[str, np.ndarray]:
        """The policy's parameters alone, copied."""
        ...

    def load_snapshot(self, parameters: Mapping[str, Any]) -> None:
        """Act as a :meth:`snapshot` did."""
        ...

    def load_policy(self, state: Mapping[str, Any]) -> None:
        """Act as the policy of a :meth:`get_state` did, and leave everything else as it is."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Everything, the environment and all random generators included."""
        ...

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`get_state`, bit for bit."""
        ...
