"""Stable-Baselines3's replay buffer as a view of the episode store."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from prefgym.store import EpisodeStore
from prefgym_agents.replayed_steps import ReplayedSteps


class StoreReplayBuffer(ReplayedSteps, ReplayBuffer):
    """Samples transitions from an :class:`EpisodeStore` and adds nothing to it.

    Args: as Stable-Baselines3's, and
        store: where the preference environment keeps its steps.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        *,
        store: EpisodeStore,
        **ignored: Any,
    ) -> None:
        # A buffer of one step: the columns that the parent allocates are never used.
        ReplayBuffer.__init__(
            self, n_envs, observation_space, action_space, device, n_envs, **ignored
        )
        self.begin(store)

    def add(self, *args: Any) -> None:
        """Nothing: the environment's own store already has the step."""

    def size(self) -> int:
        """Steps that can be sampled."""
        return len(self.store)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Draw transitions from the steps that may be learned from, and from demonstrations."""
        drawn = self.drawn(batch_size)
        actions = drawn.actions.reshape(batch_size, -1)
        if isinstance(self.action_space, gym.spaces.Box):
            low, high = self.action_space.low.reshape(-1), self.action_space.high.reshape(-1)
            actions = (2.0 * (actions - low) / (high - low) - 1.0).astype(np.float32)
        return ReplayBufferSamples(
            observations=self.to_torch(drawn.observations),
            actions=self.to_torch(actions),
            next_observations=self.to_torch(drawn.next_observations),
            dones=self.to_torch(drawn.terminal.astype(np.float32)[:, None]),
            rewards=self.to_torch(drawn.rewards[:, None]),
        )
