"""A learned reward in the place of the true one, for agents that know nothing of preferences."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np


class LearnedReward(gym.Wrapper[Any, Any, Any, Any]):
    """Give a stock agent a learned reward: any function of observation and action.

    Args:
        env: usually a preference environment.
        reward: ``(observation, action) -> float``, for example a reward model's
            :meth:`~prefgym.models.reward_models.RewardModel.step_reward`.

    The truth stays in ``info["true_reward"]``.
    """

    def __init__(self, env: gym.Env[Any, Any], reward: Callable[[Any, Any], float]) -> None:
        super().__init__(env)
        self.reward = reward
        self._observation: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act; the reward is the learned one for what was seen before the action."""
        reward = float(self.reward(self._observation, action))
        if not np.isfinite(reward):
            raise ValueError(
                f"LearnedReward: the reward function returned {reward}; wanted a finite number."
            )
        self._observation, _, terminated, truncated, info = self.env.step(action)
        return self._observation, reward, terminated, truncated, info
