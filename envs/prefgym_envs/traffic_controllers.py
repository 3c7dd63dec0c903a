"""Controllers that people wrote for traffic lights: what a learned policy should beat.

Both act as Stable-Baselines3's models do, so they can stand wherever a policy is evaluated.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from prefgym_envs import traffic_sensors
from prefgym_envs.lanes import check_count
from prefgym_envs.traffic_roads import (
    LEAST_GREEN_STEPS,
    MOST_GREEN_STEPS,
    Network,
    network,
)
from prefgym_envs.traffic_sensors import Seen


class FixedTime:
    """Every light changes after a fixed number of green steps, whatever the traffic.

    Args:
        green_steps: of both phases, or of north and south and of east and west; a step is 4 s. The
            change itself takes a step more.

    Raises:
        ValueError: a green is no whole number, or shorter or longer than the lights allow.
    """

    def __init__(self, green_steps: int | Sequence[int] = 10) -> None:
        both = green_steps if isinstance(green_steps, Sequence) else (green_steps, green_steps)
        for one in both:
            check_count("green_steps", one)
        if len(both) != 2 or not all(LEAST_GREEN_STEPS <= one <= MOST_GREEN_STEPS for one in both):
            raise ValueError(
                f"green_steps is {green_steps!r}; give one length of green for both phases or two,"
                f" each from {LEAST_GREEN_STEPS} to {MOST_GREEN_STEPS} steps."
            )
        self.green_steps = tuple(both)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """The phase of every light, for one observation or a batch, and the state as it was."""
        return _acted(observation, self._phases), state

    def _phases(self, seen: Seen) -> Int[np.ndarray, " batch intersections"]:
        over = seen.green_steps >= np.array(self.green_steps)[seen.phase]
        return np.where(over, 1 - seen.phase, seen.phase)


class MaxPressure:
    """Every light serves the phase with the greater pressure.

    The pressure of a road is its queue minus that of the road that its vehicles enter next, and of
    a phase that of its two roads. Because a change costs a step, a light keeps its phase for some
    steps, and until the other's pressure is greater by a margin.

    Source: Varaiya (2013), Max pressure control of a network of signalized intersections.
    Departures: the shortest green and the margin, since that model changes phases at no cost.

    Args:
        least_green_steps: shortest green, in steps of 4 s.
        margin: vehicles by which the other phase must be ahead.
    """

    def __init__(self, least_green_steps: int = 3, margin: float = 4.0) -> None:
        check_count("least_green_steps", least_green_steps)
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin is {margin!r}; give a finite number of vehicles, from 0.")
        self.least_green_steps = least_green_steps
        self.margin = margin
        self._networks = {one.intersections: one for one in map(network, ("single", "grid"))}

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """The phase of every light, for one observation or a batch, and the state as it was.

        Raises:
            ValueError: the observation is none of this package's networks.
        """
        return _acted(observation, self._phases), state

    def _phases(self, seen: Seen) -> Int[np.ndarray, " batch intersections"]:
        lights = seen.phase.shape[1]
        if lights not in self._networks:
            raise ValueError(
                f"An observation of {lights} lights came; max pressure knows the roads between"
                f" {' or '.join(map(str, self._networks))}."
            )
        pressure = _pressures(seen, self._networks[lights])
        ahead = np.take_along_axis(pressure, 1 - seen.phase[..., None], -1) - np.take_along_axis(
            pressure, seen.phase[..., None], -1
        )
        change = (seen.green_steps >= self.least_green_steps) & (ahead[..., 0] > self.margin)
        return np.where(change, 1 - seen.phase, seen.phase)


def _pressures(seen: Seen, roads: Network) -> Float[np.ndarray, " batch intersections phases"]:
    """Of both phases at every light, in vehicles."""
    queue = seen.queue.reshape(len(seen.queue), -1)
    next_queue = np.where(roads.ahead < 0, 0.0, queue[:, roads.ahead])
    pressure: np.ndarray = (queue - next_queue).reshape(len(queue), -1, 2, 2).sum(-1)
    return pressure


def _acted(observation: Any, phases: Any) -> np.ndarray:
    """Actions in the form of the environments: a number for one light, a row for several."""
    given = np.asarray(observation)
    batch = given if given.ndim != 1 else given[None]
    chosen: np.ndarray = phases(traffic_sensors.read(batch))
    if chosen.shape[1] == 1:
        chosen = chosen[:, 0]
    return chosen if given.ndim != 1 else np.asarray(chosen[0])
