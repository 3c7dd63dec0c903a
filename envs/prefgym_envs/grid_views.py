"""What an agent of MiniGrid sees, as numbers: MiniGrid's own rules, without its loops over cells.

A cell is one small number, an entry of :class:`Tiles`. The view is cut out by one table of offsets
for each direction; what hides behind walls and closed doors is found row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from prefgym_envs.grid_captions import CARRIED, DOOR_STATES, Thing

SIZE = 7
"""Cells of the view, ahead and across; the agent stands in the middle of the nearest row."""
AHEAD = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Where the agent faces: right, down, left, up, as column and row."""
UNSEEN, EMPTY, WALL = 0, 1, 2
_OWN = SIZE * (SIZE - 1) + SIZE // 2
"""The agent's own cell in a view, by rows from the farthest to the nearest."""
_POWERS = 2 ** np.arange(SIZE)
_ROWS = (np.arange(2**SIZE)[:, None] & _POWERS) > 0


@dataclass(frozen=True)
class Tiles:
    """Everything that the cells of a task can show; number 0 is unseen, 1 empty, 2 a wall."""

    kinds: tuple[str, ...]
    """Besides walls."""
    door_colours: tuple[str, ...] = ()
    thing_colours: tuple[str, ...] = ()
    """Of keys, balls and boxes."""
    locked: bool = False
    """Whether doors can be locked."""

    @cached_property
    def things(self) -> tuple[Thing | None, ...]:
        """What each number stands for; None for unseen and empty."""
        found: list[Thing | None] = [None, None, Thing("wall", "grey")]
        for kind in self.kinds:
            if kind == "door":
                found += [Thing(kind, one, s) for one in self.door_colours for s in self._states]
            elif kind in CARRIED:
                found += [Thing(kind, one) for one in self.thing_colours]
            else:
                found.append(Thing(kind, "green"))
        return tuple(found)

    @cached_property
    def numbers(self) -> dict[Thing | None, int]:
        """The number of each thing; nothing is 1."""
        return {thing: number for number, thing in enumerate(self.things) if number > UNSEEN}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the flags of one cell: kinds, colours if there are several, states of doors."""
        colours = tuple(dict.fromkeys((*self.door_colours, *self.thing_colours)))
        return (
            *("unseen", "empty", "wall"),
            *self.kinds,
            *(colours if len(colours) > 1 else ()),
            *(self._states if "door" in self.kinds else ()),
        )

    @cached_property
    def flags(self) -> Float[np.ndarray, " numbers columns"]:
        """The flags of each number."""
        table = np.zeros((len(self.things), len(self.columns)), np.float32)
        table[UNSEEN, UNSEEN] = table[EMPTY, EMPTY] = 1.0
        for number, thing in enumerate(self.things):
            told: tuple[str, ...] = () if thing is None else (thing.kind, thing.state)
            if thing is not None and thing.kind in ("door", *CARRIED):
                told += (thing.colour,)
            for name in told:
                if name in self.columns:
                    table[number, self.columns.index(name)] = 1.0
        return table

    @cached_property
    def clear(self) -> np.ndarray:
        """Whether one sees past each number."""
        dark = ("wall", "closed", "locked")
        return np.array([one is None or not {one.kind, one.state} & {*dark} for one in self.things])

    def seen(self, view: UInt8[np.ndarray, " cells"]) -> frozenset[Thing]:
        """Things in a view, doors without their state; walls and the agent's own cell left out."""
        cells = view.tolist()
        cells[_OWN] = EMPTY
        numbers = frozenset(cells)
        if numbers not in self._met:
            things = (self.things[one] for one in numbers if one > WALL)
            self._met[numbers] = frozenset(Thing(one.kind, one.colour) for one in things if one)
        return self._met[numbers]

    @cached_property
    def _met(self) -> dict[frozenset[int], frozenset[Thing]]:
        return {}

    @property
    def _states(self) -> tuple[str, ...]:
        return DOOR_STATES if self.locked else DOOR_STATES[:2]


class Cells:
    """The cells of one grid as numbers, with walls all around, so that views never leave it.

    Args:
        tiles: what the cells can hold.
        grid: MiniGrid's, of any size.
    """

    def __init__(self, tiles: Tiles, grid: Any) -> None:
        self.tiles = tiles
        self.width, self.height = int(grid.width), int(grid.height)
        margin = SIZE - 1
        self._stride = self.width + 2 * margin
        self._first = margin * self._stride + margin
        padded = np.full((self.height + 2 * margin, self._stride), WALL, np.uint8)
        inside = np.array([self._number(one) for one in grid.grid], np.uint8)
        padded[margin:-margin, margin:-margin] = inside.reshape(self.height, self.width)
        self._flat = padded.reshape(-1)
        self._offsets = _offsets(self._stride)

    def update(self, place: tuple[int, int], cell: Any) -> None:
        """Note what MiniGrid has in a cell now."""
        self._flat[self._index(place)] = self._number(cell)

    def at(self, place: tuple[int, int]) -> Thing | None:
        """What is in a cell."""
        return self.tiles.things[int(self._flat[self._index(place)])]

    def whole(self) -> UInt8[np.ndarray, " cells"]:
        """All cells, row by row, as a copy."""
        margin = SIZE - 1
        padded = self._flat.reshape(-1, self._stride)
        return padded[margin:-margin, margin:-margin].reshape(-1)

    def view(
        self, place: tuple[int, int], direction: int, carried: Thing | None, through: bool
    ) -> UInt8[np.ndarray, " cells"]:
        """What the agent sees, row by row from the farthest, each from its left to its right.

        In its own cell it sees what it carries.

        Args:
            place: column and row of the agent.
            direction: in which it faces.
            carried: what it has picked up.
            through: whether it sees through walls.
        """
        view: np.ndarray = self._flat.take(self._offsets[direction] + self._index(place))
        if not through:
            clear = self.tiles.clear.take(view).reshape(SIZE, SIZE) @ _POWERS
            view = np.where(_ROWS.take(_visible(clear.tolist()), axis=0).reshape(-1), view, UNSEEN)
        view[_OWN] = self.tiles.numbers[carried]
        return view

    def _index(self, place: tuple[int, int]) -> int:
        return self._first + place[1] * self._stride + place[0]

    def _number(self, cell: Any) -> int:
        return self.tiles.numbers[None if cell is None else as_thing(cell)]


def as_thing(cell: Any) -> Thing:
    """What an object of MiniGrid is."""
    if cell.type != "door":
        return Thing(cell.type, cell.color)
    return Thing("door", cell.color, DOOR_STATES[cell.encode()[2]])


@lru_cache(maxsize=64)
def _offsets(stride: int) -> np.ndarray:
    """From the agent's cell to those of its view, ``[directions, cells]``."""
    ahead, across = np.indices((SIZE, SIZE)).reshape(2, -1)
    ahead, across = SIZE - 1 - ahead, across - SIZE // 2
    columns = [(dx * ahead - dy * across) + (dy * ahead + dx * across) * stride for dx, dy in AHEAD]
    return np.array(columns)


def _visible(clear: Sequence[int]) -> list[int]:
    """Which cells of each row are seen, as bits, from which let light through."""
    lit, rows = 1 << SIZE // 2, [0] * SIZE
    for row in range(SIZE - 1, -1, -1):
        rows[row], lit = _lit(lit, clear[row])
    return rows


@lru_cache(maxsize=1 << 2 * SIZE)
def _lit(lit: int, clear: int) -> tuple[int, int]:
    """One row: light spreads to both sides through clear cells, and from these to the next row.

    Args:
        lit: cells that the row before lights.
        clear: cells that let light through.

    Returns:
        Cells of this row that are seen, and cells of the next row that they light.
    """
    beyond = 0
    for cells, side in ((range(SIZE - 1), 1), (range(SIZE - 1, 0, -1), -1)):
        for cell in cells:
            if lit >> cell & 1 and clear >> cell & 1:
                lit |= 1 << cell + side
                beyond |= 1 << cell | 1 << cell + side
    return lit, beyond
