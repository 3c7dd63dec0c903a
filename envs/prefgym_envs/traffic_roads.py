"""Roads, lights and demand of the traffic environments: everything that never changes.

All traffic drives straight on. Intersections stand in a square, numbered row by row from the north
west. A *road* leads to one stop line: road ``4 · intersection + side`` is the one on which vehicles
come from that side.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from prefgym.names import lookup

SIDES = ("north", "south", "east", "west")
"""Where vehicles come from, in the order of the roads of an intersection."""
STEP_SECONDS = 4
"""Length of a step, s; also the time that a change of lights takes (3 s amber, 1 s all red)."""
SATURATION = 2
"""Vehicles that cross a green stop line in a step at most: 1800 vehicles per hour."""
LEAST_GREEN_STEPS, MOST_GREEN_STEPS = 2, 15
"""Steps for which a phase is green: 8 s at least, whatever is asked for, and 60 s at most."""
TRAVEL_STEPS = 5
"""Steps from entering a road to its stop line: 20 s for 300 m at 15 m/s."""
LINK_CAPACITY = 40
"""Vehicles that fit on a road between two intersections: 7.5 m for each."""
ENTRY_CAPACITY = 120
"""Vehicles that fit on a road from outside; when it is full, further ones turn away."""
MOST_ARRIVALS = 6
"""Vehicles that arrive on a road in a step at most; larger Poisson draws count as so many."""

_ONE_INTERSECTION = (
    ((900,), (900,), (300,), (300,)),
    ((300,), (300,), (900,), (900,)),
    ((600,), (600,), (600,), (600,)),
    ((900,), (300,), (450,), (150,)),
)
_GRID = (
    ((750, 750), (750, 750), (300, 300), (300, 300)),
    ((300, 300), (300, 300), (750, 750), (750, 750)),
    ((525, 525), (525, 525), (525, 525), (525, 525)),
    ((750, 300), (450, 150), (150, 450), (300, 750)),
)


@dataclass(frozen=True, eq=False)
class Network:
    """A square of intersections with their roads and demand.

    Attributes:
        columns: intersections in a row, and rows.
        ahead: the road that vehicles enter behind the stop line; −1 where they leave.
        behind: the road whose vehicles enter this one; −1 where they come from outside.
        entries: the roads that vehicles enter from outside.
        capacity: vehicles that fit on each road.
        demands: mean arrivals on every entry in every pattern of demand, vehicles per step.
    """

    columns: int
    ahead: Int[np.ndarray, " roads"]
    behind: Int[np.ndarray, " roads"]
    entries: Int[np.ndarray, " entries"]
    capacity: Int[np.ndarray, " roads"]
    demands: Float[np.ndarray, " patterns entries"]

    @property
    def intersections(self) -> int:
        """How many there are; one light for each."""
        return self.columns**2

    @property
    def roads(self) -> int:
        """How many there are; four for each intersection."""
        return 4 * self.intersections

    @property
    def patterns(self) -> int:
        """Patterns of demand that an episode may have."""
        return len(self.demands)

    def arrival_chances(self, scale: float) -> Float[np.ndarray, " patterns entries counts"]:
        """P(at most k vehicles arrive in a step), k = 0, 1, ..., of a Poisson distribution.

        Args:
            scale: of all demands.
        """
        mean = scale * self.demands[..., None]
        count = np.arange(MOST_ARRIVALS)
        factorial = np.array([math.factorial(k) for k in range(MOST_ARRIVALS)])
        chances: np.ndarray = (np.exp(-mean) * mean**count / factorial).cumsum(-1)
        return chances


def network(layout: str) -> Network:
    """The network of that name.

    Args:
        layout: "single", one intersection, or "grid", two by two.

    Raises:
        ValueError: there is no such layout.
    """
    columns, hourly = lookup(
        layout, {"single": (1, _ONE_INTERSECTION), "grid": (2, _GRID)}, "layout"
    )
    node, side = np.divmod(np.arange(4 * columns**2), 4)
    row, column = np.divmod(node, columns)
    ahead = _road_at(row + _SOUTHWARD[side], column + _EASTWARD[side], side, columns)
    behind = _road_at(row - _SOUTHWARD[side], column - _EASTWARD[side], side, columns)
    entries = np.flatnonzero(behind < 0)
    line = np.where(side < 2, column, row)
    demands = np.array(hourly)[:, side[entries], line[entries]] * (STEP_SECONDS / 3600)
    capacity = np.where(behind < 0, ENTRY_CAPACITY, LINK_CAPACITY)
    return Network(columns, ahead, behind, entries, capacity, demands)


_SOUTHWARD = np.array([1, -1, 0, 0])
_EASTWARD = np.array([0, 0, -1, 1])


def _road_at(
    row: Int[np.ndarray, " roads"],
    column: Int[np.ndarray, " roads"],
    side: Int[np.ndarray, " roads"],
    columns: int,
) -> Int[np.ndarray, " roads"]:
    """The road from that side at each of these intersections; −1 where there is none."""
    inside = (np.minimum(row, column) >= 0) & (np.maximum(row, column) < columns)
    return np.where(inside, 4 * (row * columns + column) + side, -1)
