"""How vehicles move: a queue at every stop line and a drive to it, for many lanes at once.

A point-queue model in steps of four seconds. The whole state is integers, so it is saved exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from prefgym_envs.traffic_roads import (
    ENTRY_CAPACITY,
    LEAST_GREEN_STEPS,
    MOST_ARRIVALS,
    MOST_GREEN_STEPS,
    SATURATION,
    STEP_SECONDS,
    TRAVEL_STEPS,
    Network,
)

FACTORS = ("queue_length", "waiting_time", "delay", "vehicles", "switches", "passed")
"""Names in ``info["factors"]``; units stand in :class:`prefgym_envs.traffic.TrafficEnv`."""
MINUTES_PER_STEP = STEP_SECONDS / 60


class Flows(NamedTuple):
    """What moved in a step, in vehicles."""

    entered: Int[np.ndarray, " lanes roads"]
    """Came onto the road, from outside or from the road behind."""
    turned_away: Int[np.ndarray, " lanes roads"]
    """Came from outside and found the road full; they are not seen again."""
    passed: Int[np.ndarray, " lanes roads"]
    """Crossed the stop line."""
    switched: Bool[np.ndarray, " lanes intersections"]
    """Lights that changed."""


@dataclass
class Traffic:
    """All vehicles and lights of every lane.

    Attributes:
        network: the roads.
        clock: steps since the roads were empty.
        demand: the pattern of demand.
        phase: 0 if north and south have, or are about to have, green; 1 if east and west.
        green_steps: for how many steps the phase has been green; 0 right after a change.
        driving: vehicles that reach the stop line after so many further steps.
        queue: vehicles that stand at the stop line.
        passed: vehicles that have ever crossed it.
        waited: steps for which those in the queue have stood there, summed.
        joined: the clock at which the vehicle of that number, modulo the places, reached the stop
            line.
    """

    network: Network
    clock: Int[np.ndarray, " lanes"]
    demand: Int[np.ndarray, " lanes"]
    phase: Int[np.ndarray, " lanes intersections"]
    green_steps: Int[np.ndarray, " lanes intersections"]
    driving: Int[np.ndarray, " lanes roads cells"]
    queue: Int[np.ndarray, " lanes roads"]
    passed: Int[np.ndarray, " lanes roads"]
    waited: Int[np.ndarray, " lanes roads"]
    joined: Int[np.ndarray, " lanes roads places"]

    def arrays(self) -> dict[str, np.ndarray]:
        """The state by name: integer arrays, one row per lane."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "network"}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go back to what :meth:`arrays` returned."""
        for name in self.arrays():
            setattr(self, name, arrays[name])

    def clear(self, lanes: Bool[np.ndarray, " lanes"], demand: Int[np.ndarray, " lanes"]) -> None:
        """Empty the roads of ``lanes`` and turn north and south to green.

        Args:
            lanes: a mask.
            demand: the pattern of every lane; read where the mask is set.
        """
        for array in self.arrays().values():
            array[lanes] = 0
        self.demand[lanes] = demand[lanes]

    def advance(
        self,
        wanted: Int[np.ndarray, " lanes intersections"],
        arrivals: Int[np.ndarray, " lanes entries"],
    ) -> Flows:
        """Four seconds pass: lights, then those who reach a stop line, then those who cross it.

        Args:
            wanted: the phase asked for at every light. It changes if it may, or if it must; a
                light that changes is red on all sides for this step.
            arrivals: vehicles that come from outside.
        """
        may = (wanted != self.phase) & (self.green_steps >= LEAST_GREEN_STEPS)
        switched = may | (self.green_steps >= MOST_GREEN_STEPS)
        self.phase = np.where(switched, 1 - self.phase, self.phase)
        self.green_steps = np.where(switched, 0, self.green_steps + 1)
        occupied = self.queue + self.driving.sum(-1)
        self._join()
        passed = self._cross(switched, occupied)
        self.queue -= passed
        self.waited += self.queue
        entered, turned_away = self._enter(passed, arrivals, occupied)
        self.driving = np.concatenate([self.driving[..., 1:], entered[..., None]], -1)
        self.clock = self.clock + 1
        return Flows(entered, turned_away, passed, switched)

    def factors(self, flows: Flows) -> dict[str, Float[np.ndarray, " lanes"]]:
        """The six signals after a step, in the order of :data:`FACTORS`."""
        queued = self.queue.sum(-1)
        vehicles = queued + self.driving.sum((1, 2))
        waited = STEP_SECONDS * self.waited.sum(-1)
        signals = (
            queued.astype(np.float64),
            waited / np.maximum(queued, 1),
            queued / np.maximum(vehicles, 1),
            vehicles.astype(np.float64),
            flows.switched.sum(-1).astype(np.float64),
            flows.passed.sum(-1).astype(np.float64),
        )
        return dict(zip(FACTORS, signals, strict=True))

    def _join(self) -> None:
        """Those whose drive is over join the queue."""
        joining = self.driving[..., 0]
        place = (self.passed + self.queue)[..., None] + np.arange(MOST_ARRIVALS)
        filled = np.flatnonzero(np.arange(MOST_ARRIVALS) < joining[..., None])
        lane_and_road, _ = np.divmod(filled, MOST_ARRIVALS)
        at = lane_and_road * ENTRY_CAPACITY + place.reshape(-1)[filled] % ENTRY_CAPACITY
        self.joined.reshape(-1)[at] = self.clock[lane_and_road // self.network.roads]
        self.queue = self.queue + joining

    def _cross(
        self,
        switched: Bool[np.ndarray, " lanes intersections"],
        occupied: Int[np.ndarray, " lanes roads"],
    ) -> Int[np.ndarray, " lanes roads"]:
        """Those who cross the stop lines, the longest-standing first."""
        roads = np.arange(self.network.roads)
        green = ~switched[:, roads // 4] & (self.phase[:, roads // 4] == roads % 4 // 2)
        ahead = self.network.ahead
        room = np.where(ahead < 0, SATURATION, (self.network.capacity - occupied)[:, ahead])
        crossing = np.where(green, np.minimum(np.minimum(self.queue, SATURATION), room), 0)
        number = np.arange(SATURATION)
        place = (self.passed[..., None] + number) % ENTRY_CAPACITY
        stood = self.clock[:, None, None] - np.take_along_axis(self.joined, place, -1)
        self.waited -= (stood * (number < crossing[..., None])).sum(-1)
        self.passed = self.passed + crossing
        return crossing

    def _enter(
        self,
        passed: Int[np.ndarray, " lanes roads"],
        arrivals: Int[np.ndarray, " lanes entries"],
        occupied: Int[np.ndarray, " lanes roads"],
    ) -> tuple[Int[np.ndarray, " lanes roads"], Int[np.ndarray, " lanes roads"]]:
        """Those who come onto each road, and those who find it full."""
        entries, behind = self.network.entries, self.network.behind
        coming = np.where(behind < 0, 0, passed[:, behind])
        coming[:, entries] = arrivals
        entered = np.minimum(coming, self.network.capacity - occupied)
        return entered, coming - entered


def empty(network: Network, lanes: int) -> Traffic:
    """Empty roads, north and south green, pattern 0 of demand."""
    by_road = (lanes, network.roads)
    by_light = (lanes, network.intersections)

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    return Traffic(
        network=network,
        clock=zeros(lanes),
        demand=zeros(lanes),
        phase=zeros(*by_light),
        green_steps=zeros(*by_light),
        driving=zeros(*by_road, TRAVEL_STEPS),
        queue=zeros(*by_road),
        passed=zeros(*by_road),
        waited=zeros(*by_road),
        joined=zeros(*by_road, ENTRY_CAPACITY),
    )
