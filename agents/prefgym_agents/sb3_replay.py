"""Stable-Baselines3's replay buffer as a view of the episode store.

The store holds the only copy of the steps. What lives here is one column of rewards, written when
a learner says what steps are worth, and written again as a whole when it changes its mind.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from prefgym.segments import Segments
from prefgym.store import EpisodeStore, SegmentIndex

RELABEL_STEPS = 1 << 16
"""Steps judged at once when everything is relabelled."""


class StoreReplayBuffer(ReplayBuffer):
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
        super().__init__(n_envs, observation_space, action_space, device, n_envs, **ignored)
        self.store = store
        self.learned = np.zeros((store.lanes, store.capacity), np.float32)
        self.version = 0
        """How many times everything was judged anew."""
        self.rng = np.random.default_rng(0)

    def add(self, *args: Any) -> None:
        """Nothing: the environment's own store already has the step."""

    def size(self) -> int:
        """Steps that can be sampled."""
        return len(self.store)

    def write(self, index: SegmentIndex, rewards: np.ndarray) -> None:
        """Say what the steps of segments are worth, ``[B, T]``; padding is not read."""
        lanes, first = self.store.rows(index)
        column = np.arange(rewards.shape[1])
        real = column < index.length[:, None]
        rows = (first[:, None] + column) % self.store.capacity
        self.learned[np.broadcast_to(lanes[:, None], rows.shape)[real], rows[real]] = rewards[real]

    def relabel(self, judge: Any, episodes: np.ndarray | None = None, chunk: int = 256) -> None:
        """Judge every step in the store anew, in a few large batches.

        Args:
            judge: rewards ``[B, T]`` of segments.
            episodes: ``[n]`` numbers; None: all that are there.
            chunk: steps of the pieces that episodes are cut into.
        """
        if episodes is None:
            index = self.store.since(np.zeros(self.store.lanes, np.int64), chunk)
        else:
            index = self.store.whole(episodes).pieces(chunk)
        at_once = max(1, RELABEL_STEPS // chunk)
        for begin in range(0, len(index.episode), at_once):
            part = SegmentIndex(*(one[begin : begin + at_once] for one in index))
            segments: Segments = self.store.segments(part, int(part.length.max()))
            self.write(part, judge(segments))
        self.version += 1

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Draw transitions uniformly from all steps in the store."""
        store = self.store
        index = store.sample(batch_size, 1, self.rng, pad=False)
        lanes, rows = store.rows(index)
        following = (rows + 1) % store.capacity
        actions = store.actions[lanes, rows].reshape(batch_size, -1)
        if isinstance(self.action_space, gym.spaces.Box):
            low, high = self.action_space.low.reshape(-1), self.action_space.high.reshape(-1)
            actions = (2.0 * (actions - low) / (high - low) - 1.0).astype(np.float32)
        return ReplayBufferSamples(
            observations=self.to_torch(store.observations[lanes, rows]),
            actions=self.to_torch(actions),
            next_observations=self.to_torch(store.observations[lanes, following]),
            dones=self.to_torch(store.terminal(index).astype(np.float32)[:, None]),
            rewards=self.to_torch(self.learned[lanes, rows][:, None]),
        )
