"""Pictures of gridworld boards, drawn with numpy alone.

Shapes are masks over a finely sampled cell with coordinates x (right) and y (down) in [0, 1];
averaging the fine samples gives soft edges.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

CELL_PIXELS = 48
_SAMPLES = 4
"""Fine samples per pixel and direction."""

Colour = tuple[float, float, float]
_GRASS, _MUD, _LINE = (238.0, 240.0, 228.0), (176.0, 138.0, 100.0), (205.0, 205.0, 195.0)
_BLUE, _WHITE, _INK = (38.0, 98.0, 200.0), (255.0, 255.0, 255.0), (60.0, 56.0, 56.0)

_grid = (np.arange(CELL_PIXELS * _SAMPLES) + 0.5) / (CELL_PIXELS * _SAMPLES)
_X, _Y = np.meshgrid(_grid, _grid)

Fine = Float[np.ndarray, " fine fine colours"]
Mask = Bool[np.ndarray, " fine fine"]


def picture(
    items: Int[np.ndarray, " rows columns"], mud: Bool[np.ndarray, " rows columns"]
) -> UInt8[np.ndarray, " height width 3"]:
    """The board without the agent.

    Args:
        items: 0 nothing, 1 goal, 2 house, 3 sheep, 4 coin, 5 roadblock.
        mud: where the surface is mud.
    """
    kinds = set(zip(items.ravel().tolist(), mud.ravel().tolist(), strict=True))
    tiles = {kind: _tile(*kind) for kind in kinds}
    rows = [
        np.concatenate([tiles[kind] for kind in zip(*row, strict=True)], axis=1)
        for row in zip(items.tolist(), mud.tolist(), strict=True)
    ]
    return np.concatenate(rows)


def with_agent(
    board: UInt8[np.ndarray, " height width 3"], cell: tuple[int, int]
) -> UInt8[np.ndarray, " height width 3"]:
    """A copy of the board's picture with the agent on one cell (row, column)."""
    shown = board.copy()
    top, left = CELL_PIXELS * cell[0], CELL_PIXELS * cell[1]
    here = shown[top : top + CELL_PIXELS, left : left + CELL_PIXELS]
    fine = here.astype(np.float64).repeat(_SAMPLES, axis=0).repeat(_SAMPLES, axis=1)
    fine[_disc(0.5, 0.5, 0.30, 0.30)] = _WHITE
    fine[_disc(0.5, 0.5, 0.25, 0.25)] = _BLUE
    here[:] = _averaged(fine)
    return shown


def _tile(item: int, wet: bool) -> UInt8[np.ndarray, " height width 3"]:
    fine = np.empty((*_X.shape, 3))
    fine[:] = _MUD if wet else _GRASS
    _ITEMS[item](fine)
    edge = 0.5 / CELL_PIXELS
    fine[(edge > _X) | (edge > _Y) | (1 - edge < _X) | (1 - edge < _Y)] = _LINE
    return _averaged(fine)


def _averaged(fine: Fine) -> UInt8[np.ndarray, " height width 3"]:
    blocks = fine.reshape(CELL_PIXELS, _SAMPLES, CELL_PIXELS, _SAMPLES, 3)
    averaged: np.ndarray = blocks.mean((1, 3)).round().astype(np.uint8)
    return averaged


def _disc(x: float, y: float, width: float, height: float) -> Mask:
    inside: Mask = ((_X - x) / width) ** 2 + ((_Y - y) / height) ** 2 <= 1.0
    return inside


def _bar(left: float, top: float, right: float, bottom: float) -> Mask:
    return (left <= _X) & (right >= _X) & (top <= _Y) & (bottom >= _Y)


def _nothing(fine: Fine) -> None:
    """The bare surface."""


def _goal(fine: Fine) -> None:
    """A green flag."""
    fine[_bar(0.28, 0.14, 0.34, 0.88)] = _INK
    fine[_bar(0.18, 0.84, 0.44, 0.88)] = _INK
    fine[_bar(0.34, 0.16, 0.80, 0.54) & (0.46 - np.abs(_Y - 0.35) >= _X - 0.34)] = (30, 150, 70)


def _house(fine: Fine) -> None:
    """Walls and a roof."""
    fine[_bar(0.20, 0.48, 0.80, 0.86)] = (150, 150, 158)
    fine[(_Y >= 0.14) & (_Y <= 0.50) & (np.abs(_X - 0.5) <= 1.1 * (_Y - 0.14))] = (120, 62, 52)
    fine[_bar(0.43, 0.60, 0.57, 0.86)] = _INK


def _sheep(fine: Fine) -> None:
    """A white body on dark legs, the head to the right."""
    for leg in (0.34, 0.58):
        fine[_bar(leg, 0.60, leg + 0.06, 0.84)] = _INK
    for x, y in ((0.34, 0.48), (0.48, 0.42), (0.60, 0.48), (0.47, 0.56)):
        fine[_disc(x, y, 0.185, 0.165)] = _INK
    for x, y in ((0.34, 0.48), (0.48, 0.42), (0.60, 0.48), (0.47, 0.56)):
        fine[_disc(x, y, 0.165, 0.145)] = _WHITE
    fine[_disc(0.76, 0.40, 0.10, 0.12)] = _INK


def _coin(fine: Fine) -> None:
    """A golden disc."""
    fine[_disc(0.5, 0.5, 0.24, 0.24)] = (190, 140, 20)
    fine[_disc(0.5, 0.5, 0.20, 0.20)] = (250, 205, 60)
    fine[_bar(0.47, 0.40, 0.53, 0.60)] = (190, 140, 20)


def _roadblock(fine: Fine) -> None:
    """A striped bar on two posts."""
    for post in (0.24, 0.70):
        fine[_bar(post, 0.34, post + 0.06, 0.84)] = _INK
    board = _bar(0.14, 0.38, 0.86, 0.62)
    fine[board] = _WHITE
    fine[board & (((_X + _Y) % 0.24) < 0.12)] = (220, 70, 40)


_ITEMS: tuple[Callable[[Fine], None], ...] = (
    _nothing,
    _goal,
    _house,
    _sheep,
    _coin,
    _roadblock,
)
