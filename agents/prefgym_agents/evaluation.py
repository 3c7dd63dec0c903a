"""How good a policy really is: true returns of fresh episodes."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from jaxtyping import Float

from prefgym.names import lookup
from prefgym.raters import Rater
from prefgym.registration import ENVIRONMENTS
from prefgym.segments import Segments


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
        return true_returns(policy, env, seed, deterministic)
    finally:
        env.close()


def true_returns(
    policy: Predicts, env: Any, seed: int = 10_000, deterministic: bool = True
) -> np.ndarray:
    """True returns of the first episode of every lane of a preference environment of your own.

    Args: as :func:`evaluate`; the environment is reset, and left open.

    Returns:
        ``[lanes]``.
    """
    observations, _ = env.reset(seed=seed)
    returns = np.zeros(env.num_envs)
    playing = np.ones(env.num_envs, np.bool_)
    state: Any = None
    fresh = np.ones(env.num_envs, np.bool_)
    while playing.any():
        actions, state = policy.predict(observations, state, fresh, deterministic)
        observations, _, terminated, truncated, infos = env.step(actions)
        returns += infos["true_reward"] * playing
        fresh = terminated | truncated
        playing &= ~fresh
    return returns


def played(
    policy: Predicts,
    env_id: str,
    *,
    episodes: int = 20,
    seed: int = 10_000,
    deterministic: bool = False,
    **env_kwargs: Any,
) -> Segments:
    """Fresh episodes themselves, whole; arguments as :func:`evaluate`."""
    lookup(env_id, ENVIRONMENTS, "environment")
    env: Any = gym.make_vec(env_id, num_envs=episodes, **{**env_kwargs, "query_every": None})
    try:
        true_returns(policy, env, seed, deterministic)
        index = env.store.whole(np.arange(episodes))
        segments: Segments = env.store.segments(index, int(index.length.max()))
        return segments
    finally:
        env.close()


def win_rate_matrix(
    groups: Sequence[Segments], rater: Rater
) -> Float[np.ndarray, " groups groups"]:
    """How often a segment of one group is preferred to one of another, for all groups.

    Args:
        groups: of one environment, such as the episodes that each of some policies played.
        rater: whose exact probabilities are taken; ``env.rater``.

    Returns:
        ``matrix[i, j]`` = P(i ≻ j), the mean over all pairs; ``matrix + matrix.T`` is 1.
    """
    matrix = np.full((len(groups), len(groups)), 0.5)
    for i, first in enumerate(groups):
        for j, second in enumerate(groups[:i]):
            one, other = (index.ravel() for index in np.indices((len(first), len(second))))
            matrix[i, j] = rater.probability(first.take(one), second.take(other)).mean()
            matrix[j, i] = 1.0 - matrix[i, j]
    return matrix
