"""What the control tasks share: their table entry, and the check of an action before it acts.

A *factor* is a measured part of what happened in one step, by name: ``info["factors"]`` maps each
name to a float. The true reward is a weighted sum of some of them; the others are things that a
rater may care about and the reward does not. Factors have natural units and no sign: whether more
is better stands in the weight.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np


@dataclass(frozen=True)
class Task:
    """What is known about a control task before its environment is made."""

    gymnasium_id: str
    """The environment of Gymnasium whose dynamics and reward these are."""
    create: Callable[..., gym.Env[Any, Any]]
    """Makes the environment, without a time limit, from Gymnasium's own keyword arguments."""
    max_episode_steps: int
    """After how many steps an episode is truncated, by the wrapper that sets a time limit."""
    factor_names: tuple[str, ...]
    """Names in ``info["factors"]`` of every step, in this order."""
    weights: Callable[..., dict[str, float]]
    """From the same keyword arguments: reward = Σ weight · factor; a name left out weighs 0."""

    def reward(self, factors: Mapping[str, Any], **kwargs: Any) -> Any:
        """The true reward, from the factors.

        Args:
            factors: name to number, or to arrays of one shape.
            kwargs: those with which the environment was made.

        Returns:
            Number or array; equal to what ``step`` returned up to float32 rounding.

        Raises:
            ValueError: a factor that the reward needs is not there.
        """
        weights = self.weights(**kwargs)
        missing = [name for name in weights if name not in factors]
        if missing:
            raise ValueError(
                f"The true reward of {self.gymnasium_id} needs the factors {list(weights)}, but"
                f" {missing} are not among those given: {list(factors)}."
            )
        return sum(weight * factors[name] for name, weight in weights.items())


def checked_action(action: Any, shape: tuple[int, ...] | None) -> np.ndarray:
    """The action as an array, if a simulator can digest it.

    Finite values outside the bounds pass: what happens to them is the task's own rule.

    Args:
        action: what the caller gave to ``step``.
        shape: of the action space.

    Raises:
        ValueError: wrong shape, no numbers, or NaN or infinite ones.
    """
    array = np.asarray(action)
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise ValueError(
            f"step() got an action of shape {array.shape} and type {array.dtype}; wanted"
            f" numbers of shape {shape}, as env.action_space.sample() gives."
        )
    if not all(map(math.isfinite, array.tolist())):
        raise ValueError(
            f"step() got the action {array.tolist()}; wanted finite numbers, so look for the NaN"
            " or infinity in the policy that chose it."
        )
    return array


def checked_choice(action: Any, choices: int) -> int:
    """The action as an int, if it is one of ``0, ..., choices − 1``.

    Args:
        action: what the caller gave to ``step``.
        choices: how many there are.

    Raises:
        ValueError: anything but one whole number in range.
    """
    number = action.item() if isinstance(action, np.ndarray) and action.shape == () else action
    if not isinstance(number, int | np.integer) or not 0 <= number < choices:
        raise ValueError(
            f"step() got the action {action!r}; wanted one whole number from 0 to {choices - 1}."
        )
    return int(number)
