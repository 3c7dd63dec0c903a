"""Adroit's pen with its true reward and the reward's factors: gymnasium-robotics' physics.

gymnasium-robotics (https://robotics.farama.org) is an optional package: ``prefgym[adroit]``. The
page ``docs/environments/adroit.md`` holds the tables.
"""

import importlib
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from numpy.typing import NDArray

from prefgym.names import lookup
from prefgym_envs.factors import Task, checked_action

StepResult = tuple[NDArray[np.float64], np.float64, bool, bool, dict[str, Any]]
"""Observation, true reward, terminated (never), truncated (never, by itself), info."""
FACTORS = ("distance", "similarity", "close", "success", "dropped", "action2", "steps")
NEAR, CLOSE, ALIGNED = 0.075, 0.9, 0.95
"""Metres to the target, and dot products with its direction, at which bonuses begin."""
FALLEN = 0.075
"""Height, in metres, below which the pen has been dropped."""
PEN, POINTS, WANTED, GAP = slice(24, 27), slice(33, 36), slice(36, 39), slice(39, 42)
"""Columns of the observation: where the pen is, its direction, the target's, pen minus target."""


class AdroitPen(gym.Wrapper[Any, Any, Any, Any], EzPickle):
    """Turn a pen in a hand until it points as a target does.

    True reward: −distance + similarity + 10 close + 50 success − 5 dropped; with
    ``reward_type="sparse"``: 10.1 success − 0.1 steps. Never terminates.

    Factors, after the step: ``distance`` of the pen from the target, m; ``similarity``, the dot
    product of their directions, in [−1, 1]; ``close``, 1 where the distance is below 0.075 and the
    similarity above 0.9; ``success``, the same with 0.95; ``dropped``, 1 where the pen is lower
    than 0.075 m; ``action2``, Σ action², of the action as given; ``steps``, 1.

    Args:
        reward_type: "dense" or "sparse".
        kwargs: as gymnasium-robotics' AdroitHandPen-v1 takes them (``render_mode``, ...).

    Raises:
        ImportError: gymnasium-robotics is not installed.
        ValueError: no such reward type.
    """

    factor_names = FACTORS

    def __init__(self, reward_type: str = "dense", **kwargs: Any) -> None:
        EzPickle.__init__(self, reward_type, **kwargs)
        _weights(reward_type)
        super().__init__(_game(reward_type, **kwargs))

    def step(self, action: Any) -> StepResult:
        """Move 24 joints towards positions for a hundredth of a second."""
        action = checked_action(action, self.action_space.shape)
        observation, reward, _, _, _ = self.env.step(action)
        distance = float(np.linalg.norm(observation[GAP]))
        similarity = float(np.dot(observation[POINTS], observation[WANTED]))
        near = distance < NEAR
        factors = {
            "distance": distance,
            "similarity": similarity,
            "close": float(near and similarity > CLOSE),
            "success": float(near and similarity > ALIGNED),
            "dropped": float(observation[PEN][2] < FALLEN),
            "action2": float(np.vdot(action, action)),
            "steps": 1.0,
        }
        return observation, np.float64(reward), False, False, {"factors": factors}


def _game(reward_type: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """gymnasium-robotics' environment, which is imported only here."""
    try:
        module = importlib.import_module("gymnasium_robotics.envs.adroit_hand.adroit_pen")
    except ImportError as missing:
        raise ImportError(
            f"prefgym/AdroitPen-v0 needs gymnasium-robotics ({missing}); pip install"
            ' "prefgym[adroit]".'
        ) from missing
    game: gym.Env[Any, Any] = module.AdroitHandPenEnv(reward_type=reward_type, **kwargs)
    return game


def _weights(reward_type: str = "dense", **kwargs: Any) -> dict[str, float]:
    dense = {"distance": -1.0, "similarity": 1.0, "close": 10.0, "success": 50.0, "dropped": -5.0}
    known = {"dense": dense, "sparse": {"success": 10.1, "steps": -0.1}}
    return lookup(reward_type, known, "reward type")


TASKS = {"AdroitPen": Task("AdroitHandPen-v1", AdroitPen, 200, FACTORS, _weights)}
"""Every task of this file by name."""


def raw(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make a task whose true reward is visible, without a time limit.

    Args:
        name: a key of :data:`TASKS`.
        kwargs: as :class:`AdroitPen` takes them.

    Raises:
        ImportError: gymnasium-robotics is not installed.
        ValueError: no task has that name.
    """
    return lookup(name, TASKS, "Adroit task").create(**kwargs)
