"""What the lights see of the traffic: how the state becomes an observation, and back.

An observation has 14 numbers from 0 to 1 for every light, in the order of the intersections.
"""

from typing import NamedTuple

import gymnasium as gym
import numpy as np
from jaxtyping import Float, Int

from prefgym_envs.traffic_queues import Traffic
from prefgym_envs.traffic_roads import MOST_GREEN_STEPS, STEP_SECONDS

QUEUE_SEEN = 40
"""Vehicles; longer queues look like this one."""
DRIVING_SEEN = 20
"""Vehicles; more of them on their way look like so many."""
WAITING_SEEN = 120
"""s; longer mean waiting times look like this one."""
NUMBERS = 14
"""Of each light: queues, vehicles driving, waiting times (four of each), phase, length of green."""


class Seen(NamedTuple):
    """An observation in its units."""

    queue: Float[np.ndarray, " batch intersections sides"]
    """Vehicles."""
    driving: Float[np.ndarray, " batch intersections sides"]
    """Vehicles."""
    waiting: Float[np.ndarray, " batch intersections sides"]
    """Mean time in the queue, s."""
    phase: Int[np.ndarray, " batch intersections"]
    """0 north and south, 1 east and west."""
    green_steps: Int[np.ndarray, " batch intersections"]
    """Since the last change."""


def space(intersections: int) -> gym.spaces.Box:
    """The observation space of so many lights."""
    return gym.spaces.Box(0.0, 1.0, (NUMBERS * intersections,), np.float32)


def observe(traffic: Traffic) -> Float[np.ndarray, " lanes numbers"]:
    """What the lights of every lane see, float32."""
    lanes, lights = traffic.phase.shape
    by_side = (lanes, lights, 4)
    waiting = STEP_SECONDS * traffic.waited / np.maximum(traffic.queue, 1)
    seen = np.concatenate(
        [
            traffic.queue.reshape(by_side) / QUEUE_SEEN,
            traffic.driving.sum(-1).reshape(by_side) / DRIVING_SEEN,
            waiting.reshape(by_side) / WAITING_SEEN,
            traffic.phase[..., None],
            traffic.green_steps[..., None] / MOST_GREEN_STEPS,
        ],
        axis=-1,
    )
    observations: np.ndarray = np.minimum(seen, 1.0).astype(np.float32).reshape(lanes, -1)
    return observations


def read(observations: np.ndarray) -> Seen:
    """Observations in their units.

    Args:
        observations: shape (batch, 14 · intersections).

    Raises:
        ValueError: they have another shape.
    """
    given = np.asarray(observations)
    if given.ndim != 2 or given.shape[1] == 0 or given.shape[1] % NUMBERS:
        raise ValueError(
            f"Observations of shape {given.shape} came where (batch, {NUMBERS} for each light) was"
            " wanted: one row per observation of a traffic environment."
        )
    of_light = given.reshape(len(given), -1, NUMBERS).astype(np.float64)
    return Seen(
        queue=of_light[..., 0:4] * QUEUE_SEEN,
        driving=of_light[..., 4:8] * DRIVING_SEEN,
        waiting=of_light[..., 8:12] * WAITING_SEEN,
        phase=of_light[..., 12].astype(np.int64),
        green_steps=np.rint(of_light[..., 13] * MOST_GREEN_STEPS).astype(np.int64),
    )
