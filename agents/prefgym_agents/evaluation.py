"""How good a policy really is: true returns of fresh episodes."""

from copy import deepcopy
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from prefgym.names import lookup
from prefgym.registration import ENVIRONMENTS


@runtime_checkable
class Predicts(Protocol):
    """Anything that acts as Stable-Baselines3's models do."""

    def predict(
        self, observation: Any, state: Any, episode_start: Any, deterministic: bool
    ) -> tuple[Any, Any]:
        """Actions for a batch of observations, and the next recurrent state."""
        ...


class RandomPolicy:
    """Uniformly random actions: the floor of every comparison."""

    def __init__(self, action_space: gym.Space[Any], seed: int = 0) -> None:
        self.action_space = deepcopy(action_space)
        self.action_space.seed(seed)

    def predict(
        self, observation: Any, state: Any, episode_start: Any, deterministic: bool
    ) -> tuple[Any, Any]:
        """One random action per observation."""
        return np.stack([self.action_space.sample() for _ in range(len(observation))]), None


def evaluate(
    policy: Predicts,
    env_id: str,
    *,
    episodes: int = 20,
    seed: int = 10_000,
    deterministic: bool = True,
    **env_kwargs: Any,
) -> np.ndarray:
    """True returns of fresh episodes, all played side by side.

    Args:
        policy: who acts.
        env_id: a prefgym id.
        episodes: how many.
        seed: of the environment; choose one that training did not use.
        deterministic: act by the most likely action.
        **env_kwargs: of the environment.

    Returns:
        ``[episodes]``.
    """
    lookup(env_id, ENVIRONMENTS, "environment")
    env = gym.make_vec(env_id, num_envs=episodes, **{**env_kwargs, "query_every": None})
    try:
        observations, _ = env.reset(seed=seed)
        returns = np.zeros(episodes)
        playing = np.ones(episodes, np.bool_)
        state: Any = None
        fresh = np.ones(episodes, np.bool_)
        while playing.any():
            actions, state = policy.predict(observations, state, fresh, deterministic)
            observations, _, terminated, truncated, infos = env.step(actions)
            returns += infos["true_reward"] * playing
            fresh = terminated | truncated
            playing &= ~fresh
    finally:
        env.close()
    return returns
