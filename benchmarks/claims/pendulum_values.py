"""The optimal values of Pendulum, by dynamic programming: a second of one core, no training.

Not a claim itself. The state is an angle θ (0 is upright) and a speed, the dynamics are known and
deterministic, and V* is computed on a grid with linear interpolation between its points. Greedy in
it, the return of an episode of 200 steps is about −130.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from prefgym.segments import Segments

DISCOUNT, STEP_S, FASTEST, STRONGEST = 0.99, 0.05, 8.0, 2.0
ANGLES, SPEEDS, TORQUES = 121, 81, 17
CLOSE = 1e-3
"""Largest change in the last sweep, in units of return."""


@dataclass(frozen=True, eq=False)
class PendulumValues:
    """V* on the grid, and what follows from it."""

    grid: np.ndarray
    """``[angles, speeds]``; the angles from −π to π, the speeds from −8 to 8."""

    def advantages(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """A*(s, a) = r(s, a) + γ V*(s') − V*(s), in units of return."""
        angle, speed = seen(observations)
        torque = np.clip(actions[:, 0], -STRONGEST, STRONGEST)
        value = interpolated(self.grid, angle, speed)
        arrived = interpolated(self.grid, *moved(angle, speed, torque))
        return np.asarray(reward(angle, speed, torque) + DISCOUNT * arrived - value)

    def change(self, segments: Segments) -> np.ndarray:
        """V*(where each segment ends) − V*(where it begins), ``[B]``; no segment has padding."""
        assert segments.observations is not None
        begin = interpolated(self.grid, *seen(segments.context))
        torque = np.clip(segments.actions[:, -1, 0], -STRONGEST, STRONGEST)
        end = moved(*seen(segments.observations[:, -1]), torque)
        return np.asarray(interpolated(self.grid, *end) - begin)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """The best torque of 41 in each state, ``[n, 1]``."""
        torque = np.linspace(-STRONGEST, STRONGEST, 41)
        angle, speed = (one[:, None] for one in seen(observations))
        arrived = interpolated(self.grid, *moved(angle, speed, torque))
        best = (reward(angle, speed, torque) + DISCOUNT * arrived).argmax(1)
        return torque[best][:, None].astype(np.float32)

    def predict(
        self,
        observation: np.ndarray,
        state: object = None,
        episode_start: object = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """:meth:`act`, as Stable-Baselines3's models do."""
        return self.act(np.asarray(observation)), None


@cache
def solved() -> PendulumValues:
    """Value iteration until nothing changes."""
    angle, speed, torque = np.meshgrid(
        np.linspace(-np.pi, np.pi, ANGLES),
        np.linspace(-FASTEST, FASTEST, SPEEDS),
        np.linspace(-STRONGEST, STRONGEST, TORQUES),
        indexing="ij",
    )
    paid, arrived = reward(angle, speed, torque), moved(angle, speed, torque)
    grid = np.zeros((ANGLES, SPEEDS))
    change = np.inf
    while change > CLOSE:
        better = (paid + DISCOUNT * interpolated(grid, *arrived)).max(2)
        change = float(np.abs(better - grid).max())
        grid = better
    return PendulumValues(grid)


def reward(angle: np.ndarray, speed: np.ndarray, torque: np.ndarray) -> np.ndarray:
    """Gymnasium's Pendulum-v1."""
    return np.asarray(-(angle**2 + 0.1 * speed**2 + 0.001 * torque**2))


def moved(
    angle: np.ndarray, speed: np.ndarray, torque: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Angle and speed one step later."""
    faster = speed + (15.0 * np.sin(angle) + 3.0 * torque) * STEP_S
    faster = np.clip(faster, -FASTEST, FASTEST)
    return angle + faster * STEP_S, faster


def seen(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle and speed of observations ``[n, 3]``."""
    return np.arctan2(observations[:, 1], observations[:, 0]), observations[:, 2]


def interpolated(grid: np.ndarray, angle: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """The values between the points of the grid, bilinear; angles wrap around."""
    x = np.mod(angle + np.pi, 2.0 * np.pi) / (2.0 * np.pi) * (ANGLES - 1)
    y = (speed + FASTEST) / (2.0 * FASTEST) * (SPEEDS - 1)
    i, j = (
        np.minimum(at.astype(np.int64), most) for at, most in ((x, ANGLES - 2), (y, SPEEDS - 2))
    )
    right, up = x - i, y - j
    low = (1.0 - right) * grid[i, j] + right * grid[i + 1, j]
    high = (1.0 - right) * grid[i, j + 1] + right * grid[i + 1, j + 1]
    return np.asarray((1.0 - up) * low + up * high)
