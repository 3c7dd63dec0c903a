"""Pictures of the traffic, drawn with numpy alone, and the same in words."""

import numpy as np
from jaxtyping import UInt8

from prefgym_envs.traffic_queues import Traffic
from prefgym_envs.traffic_roads import SIDES, STEP_SECONDS, TRAVEL_STEPS

ROAD_PIXELS, BOX_PIXELS = 240, 40
"""Length of a road, and width and height of an intersection."""
VEHICLE_PIXELS = 6
"""From one vehicle to the next: 40 fill the road, further ones of a longer queue are not shown."""
_LANE = 14
_GRASS, _ASPHALT, _LINE = (226, 234, 214), (84, 86, 92), (210, 206, 190)
_STANDING, _DRIVING = (246, 190, 60), (130, 200, 255)
_GREEN, _RED = (40, 190, 90), (225, 60, 50)

Picture = UInt8[np.ndarray, " height width 3"]


def picture(traffic: Traffic, lane: int) -> Picture:
    """The roads from above, north at the top.

    Yellow vehicles stand, blue ones drive; the bar before an intersection is its light. Vehicles
    keep to the right.
    """
    columns = traffic.network.columns
    pitch = ROAD_PIXELS + BOX_PIXELS
    size = columns * pitch + ROAD_PIXELS
    shown = np.empty((size, size, 3), np.uint8)
    shown[:] = _GRASS
    for k in range(columns):
        low = ROAD_PIXELS + k * pitch
        for road in (shown, shown.swapaxes(0, 1)):
            road[low + 4 : low + BOX_PIXELS - 4] = _ASPHALT
            road[low + BOX_PIXELS // 2 - 1 : low + BOX_PIXELS // 2 + 1] = _LINE
    for light in range(traffic.network.intersections):
        row, column = divmod(light, columns)
        top, left = ROAD_PIXELS + row * pitch, ROAD_PIXELS + column * pitch
        shown[top : top + BOX_PIXELS, left : left + BOX_PIXELS] = _ASPHALT
        around = shown[
            top - ROAD_PIXELS : top + pitch,
            left - ROAD_PIXELS : left + pitch,
        ]
        for side in range(4):
            _draw_approach(_turned(around, side), traffic, lane, 4 * light + side)
    return shown


def text(traffic: Traffic, lane: int) -> str:
    """A line for every light: its phase, and who stands and drives on each side."""
    return "\n".join(_line(traffic, lane, light) for light in range(traffic.network.intersections))


def _line(traffic: Traffic, lane: int, light: int) -> str:
    phase, green = traffic.phase[lane, light], int(traffic.green_steps[lane, light])
    names = ("north-south", "east-west")[phase]
    roads = slice(4 * light, 4 * light + 4)
    queue = traffic.queue[lane, roads].tolist()
    driving = traffic.driving[lane, roads].sum(-1).tolist()
    sides = ", ".join(
        f"{side} {stands}+{drives}"
        for side, stands, drives in zip(SIDES, queue, driving, strict=True)
    )
    state = f"green for {STEP_SECONDS * green} s" if green else "about to be green"
    return f"light {light}: {names} {state}; standing+driving: {sides}"


def _turned(around: np.ndarray, side: int) -> np.ndarray:
    """A view of an intersection and its roads in which vehicles of that side come from the top."""
    return np.rot90(around, (0, 2, 1, 3)[side])


def _draw_approach(around: np.ndarray, traffic: Traffic, lane: int, road: int) -> None:
    """Vehicles and light of a road that comes from the top, onto a view of the picture."""
    left = ROAD_PIXELS + BOX_PIXELS // 2 - _LANE  # on the right of those who come down
    light, side = divmod(road, 4)
    phase, steps = traffic.phase[lane, light], traffic.green_steps[lane, light]
    green = steps > 0 and phase == side // 2
    around[ROAD_PIXELS - 4 : ROAD_PIXELS, left : left + 11] = _GREEN if green else _RED
    queue = int(traffic.queue[lane, road])
    _draw_vehicles(around, left, 0, queue, _STANDING)
    taken = queue * VEHICLE_PIXELS
    for cell, vehicles in enumerate(traffic.driving[lane, road].tolist()):
        start = max(taken, cell * ROAD_PIXELS // TRAVEL_STEPS)
        _draw_vehicles(around, left, start, vehicles, _DRIVING)
        taken = start + vehicles * VEHICLE_PIXELS if vehicles else taken


def _draw_vehicles(
    around: np.ndarray, left: int, start: int, vehicles: int, colour: tuple[int, int, int]
) -> None:
    """So many vehicles, the first ``start`` pixels before the stop line."""
    for number in range(vehicles):
        bottom = ROAD_PIXELS - 6 - start - number * VEHICLE_PIXELS
        if bottom < VEHICLE_PIXELS - 2:
            return
        around[bottom - VEHICLE_PIXELS + 2 : bottom, left + 2 : left + 9] = colour
