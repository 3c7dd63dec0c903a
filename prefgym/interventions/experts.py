"""Who acts in an intervention: any policy with an action, made worse on purpose where asked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float, Int, Shaped

Expert = Callable[[Any], Any]
"""Observations ``[n, *obs]`` -> actions ``[n, *act]``."""


def as_expert(
    given: Any, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> "CheckedExpert":
    """An expert for these spaces, whose actions are looked at before they are executed.

    Args:
        given: a function of observations, or anything with Stable-Baselines3's ``predict``, which
            is asked for its most likely actions.
        observation_space: of one environment.
        action_space: of one environment.

    Raises:
        ValueError: it can do neither, or says that it is for other spaces.
    """
    if isinstance(given, CheckedExpert):
        given = given.expert
    for name, wanted in (("observation_space", observation_space), ("action_space", action_space)):
        told = getattr(given, name, None)
        if told is not None and told != wanted:
            raise ValueError(
                f"The expert's {name.replace('_', ' ')} is {told}, and the environment's is"
                f" {wanted}; give an expert that was trained in this environment."
            )
    if hasattr(given, "predict"):
        return CheckedExpert(Predicting(given), action_space)
    if not callable(given):
        raise ValueError(
            f"An expert is a function of observations, or a model with predict(); got {given!r}."
        )
    return CheckedExpert(given, action_space)


@dataclass(frozen=True)
class Predicting:
    """What a model of Stable-Baselines3, or a learner of ours, would do."""

    model: Any

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Its most likely actions."""
        actions: np.ndarray = np.asarray(self.model.predict(observations, deterministic=True)[0])
        return actions


@dataclass(frozen=True)
class CheckedExpert:
    """An expert whose actions are finite and of the right shape, or else an error says so."""

    expert: Expert
    action_space: gym.Space[Any]

    def __call__(
        self, observations: Shaped[np.ndarray, " n *obs"]
    ) -> Shaped[np.ndarray, " n *act"]:
        """Actions.

        Raises:
            ValueError: NaN, infinity, another shape, or an action that there is not.
        """
        actions = np.asarray(self.expert(observations))
        shape = (len(observations), *(self.action_space.shape or ()))
        if actions.shape != shape:
            raise ValueError(
                f"The expert returned actions of shape {actions.shape} for {len(observations)}"
                f" observations; wanted {shape}."
            )
        if isinstance(self.action_space, gym.spaces.Discrete):
            low, count = int(self.action_space.start), int(self.action_space.n)
            wrong = (actions < low) | (actions >= low + count) | (actions != np.floor(actions))
            if wrong.any():
                raise ValueError(
                    f"The expert returned the action {actions[wrong][0]}; there are {low} to"
                    f" {low + count - 1}."
                )
            return actions.astype(np.int64)
        if not np.isfinite(actions).all():
            row = int(np.argmax(~np.isfinite(actions).reshape(len(actions), -1).all(1)))
            raise ValueError(
                f"The expert returned {actions[row].tolist()} for the observation"
                f" {np.asarray(observations)[row].tolist()}; wanted finite numbers, so look for the"
                " NaN or infinity in the policy behind it."
            )
        return actions.astype(self.action_space.dtype)


def with_mistakes(
    best: Int[np.ndarray, " states"], actions: int, share: float, rng: np.random.Generator
) -> Int[np.ndarray, " states"]:
    """An expert's table that is wrong in a fixed share of the states, always in the same way.

    Args:
        best: the right action in each state.
        actions: how many there are.
        share: of the states, in [0, 1], rounded to whole states.
        rng: which states, and which wrong actions.

    Raises:
        ValueError: a share outside [0, 1], or nothing but the right action to choose.
    """
    if not 0.0 <= share <= 1.0 or actions < 2:
        raise ValueError(
            f"with_mistakes: share={share} of {actions} actions; wanted a share in [0, 1] and two"
            " actions or more."
        )
    wrong = rng.permutation(len(best))[: round(share * len(best))]
    table = best.copy()
    table[wrong] = (best[wrong] + rng.integers(1, actions, size=len(wrong))) % actions
    return table


def noisy(
    expert: Expert, action_space: gym.Space[Any], share: float, seed: int = 0
) -> "NoisyExpert":
    """An expert that acts at random in a share of the steps.

    Raises:
        ValueError: a share outside [0, 1], or actions that cannot be drawn uniformly.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"noisy: share={share}; wanted one in [0, 1].")
    if not isinstance(action_space, gym.spaces.Discrete | gym.spaces.Box):
        raise ValueError(f"noisy: wanted Discrete or Box actions; got {action_space}.")
    return NoisyExpert(expert, action_space, share, np.random.default_rng(seed))


@dataclass(frozen=True)
class NoisyExpert:
    """Made by :func:`noisy`."""

    expert: Expert
    action_space: gym.Space[Any]
    share: float
    rng: np.random.Generator

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Actions, some of them random."""
        actions = np.array(self.expert(observations))
        at_random = self.rng.random(len(actions)) < self.share
        actions[at_random] = self._drawn(len(actions))[at_random]
        return actions

    def _drawn(self, count: int) -> Float[np.ndarray, " n *act"] | Int[np.ndarray, " n"]:
        space: Any = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            numbers: np.ndarray = space.start + self.rng.integers(space.n, size=count)
            return numbers
        drawn: np.ndarray = self.rng.uniform(space.low, space.high, (count, *space.shape))
        return drawn
