"""Classic control with its true reward and the reward's factors: Gymnasium's own dynamics.

Each class is Gymnasium's environment plus ``info["factors"]``. The dynamics, spaces, reward and
keyword arguments are Gymnasium's, to the bit. The pages in ``docs/environments`` hold the tables.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import (
    AcrobotEnv,
    CartPoleEnv,
    Continuous_MountainCarEnv,
    PendulumEnv,
)

from prefgym.names import lookup
from prefgym_envs.factors import Task, checked_action, checked_choice
from prefgym_envs.trained_critics import trained_values

# Gymnasium's environments carry few annotations.
# mypy: allow-untyped-calls

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]
"""Observation, true reward, terminated, truncated (never, by itself), info."""


class Pendulum(PendulumEnv):
    """Swing a pole up and keep it there.

    True reward: −(angle2 + 0.1 speed2 + 0.001 torque2), all before the step. Never terminates.

    Factors: ``angle2``, squared angle from upright, rad²; ``speed2``, squared angular velocity,
    rad²/s²; ``torque2``, squared torque as applied (after clipping to ±2), N²m².
    """

    factor_names = ("angle2", "speed2", "torque2")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Hang up the pole; the arguments are Gymnasium's."""
        super().__init__(*args, **kwargs)
        self.advantages = trained_values("Pendulum", args, kwargs)
        """Of a trained critic, for raters of regret; None where arguments change the task."""

    def step(self, action: Any) -> StepResult:
        """Apply a torque, N·m, for a twentieth of a second."""
        angle, speed = self.state.tolist()
        observation, reward, _, _, info = super().step(
            checked_action(action, self.action_space.shape)
        )
        angle = (angle + math.pi) % (2 * math.pi) - math.pi
        torque = float(self.last_u)
        info["factors"] = {"angle2": angle**2, "speed2": speed**2, "torque2": torque**2}
        return observation, float(reward), False, False, info


class CartPole(CartPoleEnv):
    """Balance a pole on a cart.

    True reward: alive + fallen, that is 1 for every step up to the one at which the pole falls
    (with ``sutton_barto_reward=True``: −fallen). Terminates when |position| > 2.4 m or
    |angle| > 12°.

    Factors: ``alive``, 1 if the pole still stands after the step, else 0; ``fallen``, 1 − alive;
    ``cart_position2``, squared distance from the centre, m²; ``pole_angle2``, squared angle from
    upright, rad². All after the step.
    """

    factor_names = ("alive", "fallen", "cart_position2", "pole_angle2")

    def step(self, action: Any) -> StepResult:
        """Push the cart left (0) or right (1) for a fiftieth of a second."""
        choice = checked_choice(action, 2)
        observation, reward, terminated, _, info = super().step(choice)
        assert self.state is not None
        position, _, angle, _ = self.state.tolist()
        info["factors"] = {
            "alive": float(not terminated),
            "fallen": float(terminated),
            "cart_position2": position**2,
            "pole_angle2": angle**2,
        }
        return observation, float(reward), terminated, False, info


class MountainCarContinuous(Continuous_MountainCarEnv):
    """Drive an underpowered car up a hill.

    True reward: 100 goal − 0.1 action2. Terminates at the flag (position 0.45).

    Factors: ``goal``, 1 at the step that reaches the flag, else 0 (a time-out is no success);
    ``action2``, squared action as given, before clipping to ±1; ``height``, of the car on its
    track after the step, 0.1 in the valley and 1 at the top.
    """

    factor_names = ("goal", "action2", "height")

    def step(self, action: Any) -> StepResult:
        """Push the car with a force in [−1, 1]."""
        action = checked_action(action, self.action_space.shape)
        observation, reward, terminated, _, info = super().step(action)
        info["factors"] = {
            "goal": float(terminated),
            "action2": float(action[0]) ** 2,
            "height": 0.45 * math.sin(3.0 * float(self.state[0])) + 0.55,
        }
        # A copy: Gymnasium hands out its own state, and whoever wrote into it would move the car.
        return np.array(observation), float(reward), terminated, False, info


class Acrobot(AcrobotEnv):
    """Swing the tip of a two-link pendulum above a line, by a motor between the links.

    True reward: −below_goal, that is −1 for every step but the one that gets there. Terminates
    when the tip is more than 1 m above the pivot.

    Factors: ``below_goal``, 1 if the tip is not above the line after the step, else 0;
    ``tip_height``, of the tip over the pivot after the step, m, from −2 to 2; ``torque2``,
    squared torque, N²m², 0 or 1.
    """

    factor_names = ("below_goal", "tip_height", "torque2")

    def step(self, action: Any) -> StepResult:
        """Apply −1, 0 or 1 N·m for a fifth of a second."""
        choice = checked_choice(action, 3)
        observation, reward, terminated, _, info = super().step(choice)
        assert self.state is not None
        first, second = self.state[:2].tolist()
        info["factors"] = {
            "below_goal": float(not terminated),
            "tip_height": -math.cos(first) - math.cos(first + second),
            "torque2": float(self.AVAIL_TORQUE[choice]) ** 2,
        }
        return observation, float(reward), terminated, False, info


def _pendulum_weights(**kwargs: Any) -> dict[str, float]:
    return {"angle2": -1.0, "speed2": -0.1, "torque2": -0.001}


def _cart_pole_weights(sutton_barto_reward: bool = False, **kwargs: Any) -> dict[str, float]:
    return {"fallen": -1.0} if sutton_barto_reward else {"alive": 1.0, "fallen": 1.0}


def _mountain_car_weights(**kwargs: Any) -> dict[str, float]:
    return {"goal": 100.0, "action2": -0.1}


def _acrobot_weights(**kwargs: Any) -> dict[str, float]:
    return {"below_goal": -1.0}


TASKS = {
    "Pendulum": Task("Pendulum-v1", Pendulum, 200, Pendulum.factor_names, _pendulum_weights),
    "CartPole": Task("CartPole-v1", CartPole, 500, CartPole.factor_names, _cart_pole_weights),
    "MountainCarContinuous": Task(
        "MountainCarContinuous-v0",
        MountainCarContinuous,
        999,
        MountainCarContinuous.factor_names,
        _mountain_car_weights,
    ),
    "Acrobot": Task("Acrobot-v1", Acrobot, 500, Acrobot.factor_names, _acrobot_weights),
}
"""Every task of this file by name."""


def raw(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make a task whose true reward is visible, without a time limit.

    Args:
        name: a key of :data:`TASKS`.
        kwargs: as Gymnasium's environment takes them (``render_mode``, ``g``, ...).

    Raises:
        ValueError: no task has that name.
    """
    return lookup(name, TASKS, "classic control task").create(**kwargs)
