"""What a player of NetHack is shown: the bottom line as scaled numbers, and the cells around.

Only numbers of NetHack 3.6.7 stand here; what a glyph is, NLE says where it is installed.
"""

from typing import Any, NamedTuple

import numpy as np


class Number(NamedTuple):
    """One number of the bottom line, and how it is brought into [low, 1]."""

    name: str
    column: int
    scale: float
    """It is divided by this, its logarithm if ``log``, and clipped."""
    low: float = 0.0
    log: bool = False
    """Whether log(1 + value) is taken first."""


NUMBERS = (
    Number("x", 0, 78.0),
    Number("y", 1, 20.0),
    Number("strength", 3, 125.0),
    Number("dexterity", 4, 25.0),
    Number("constitution", 5, 25.0),
    Number("intelligence", 6, 25.0),
    Number("wisdom", 7, 25.0),
    Number("charisma", 8, 25.0),
    Number("log score", 9, 15.0, log=True),
    Number("log hit points", 10, 6.0, log=True),
    Number("log most hit points", 11, 6.0, log=True),
    Number("depth", 12, 50.0),
    Number("log gold", 13, 12.0, log=True),
    Number("log energy", 14, 6.0, log=True),
    Number("log most energy", 15, 6.0, log=True),
    Number("armour class", 16, 20.0, low=-1.0),
    Number("experience level", 18, 30.0),
    Number("log time", 20, 12.0, log=True),
    Number("hunger", 21, 6.0),
    Number("burden", 22, 5.0),
    Number("dungeon", 23, 8.0),
    Number("alignment", 26, 1.0, low=-1.0),
)
"""The bottom line of NLE (``blstats``) as an observation has it, in this order."""
KINDS = (
    *("unseen", "wall", "door", "floor", "stairs up", "stairs down", "water or lava", "feature"),
    *("trap", "object", "body", "monster", "pet", "other"),
)
"""What can be in a cell: one flag each."""
REACH = 4
"""Cells that are seen on every side of the hero, who stands in the middle."""
SIDE = 2 * REACH + 1
CELLS = tuple(
    f"row {row}, column {column}: {kind}"
    for row in range(-REACH, REACH + 1)
    for column in range(-REACH, REACH + 1)
    for kind in KINDS
)
"""The names of the flags of all cells, in the order of an observation."""
SYMBOLS = {
    "unseen": (0,),
    "wall": (*range(1, 12), 17, 18, 37, 38),
    "door": range(12, 17),
    "floor": (*range(19, 23), 33, 35, 36),
    "stairs up": (23, 25),
    "stairs down": (24, 26),
    "water or lava": (32, 34, 41),
    "feature": range(27, 32),
    "trap": range(42, 65),
}
"""Symbols of the map, as NetHack numbers them."""

_COLUMNS = np.array([one.column for one in NUMBERS])
_SCALES = np.array([one.scale for one in NUMBERS])
_LOWEST = np.array([one.low for one in NUMBERS])
_LOG = np.array([one.log for one in NUMBERS])


def stats(bottom: np.ndarray) -> np.ndarray:
    """The bottom line as numbers in [−1, 1], of which most are in [0, 1].

    Args:
        bottom: ``[27]``, NLE's ``blstats``.
    """
    values = bottom[_COLUMNS].astype(np.float64)
    values = np.where(_LOG, np.log1p(np.maximum(values, 0.0)), values)
    scaled: np.ndarray = np.clip(values / _SCALES, _LOWEST, 1.0)
    return scaled


class Glyphs:
    """Which kind of thing each glyph of NetHack is, as a table.

    Args:
        numbers: ``nle.nethack``, which knows the glyphs.
    """

    def __init__(self, numbers: Any) -> None:
        every = range(numbers.MAX_GLYPH)
        kinds = np.full(numbers.MAX_GLYPH + 1, KINDS.index("other"), np.int64)
        for kind, belongs in (
            ("monster", numbers.glyph_is_monster),
            ("object", numbers.glyph_is_object),
            ("body", numbers.glyph_is_body),
            ("pet", numbers.glyph_is_pet),
        ):
            kinds[[one for one in every if belongs(one)]] = KINDS.index(kind)
        for kind, symbols in SYMBOLS.items():
            kinds[[numbers.GLYPH_CMAP_OFF + one for one in symbols]] = KINDS.index(kind)
        self._flags = np.eye(len(KINDS), dtype=np.float32)[kinds]
        self._nothing = numbers.GLYPH_CMAP_OFF

    def around(self, glyphs: np.ndarray, x: int, y: int) -> np.ndarray:
        """Flags of the cells around a place; beyond the map all is unseen.

        Args:
            glyphs: ``[rows, columns]``, the map.
            x: column of the hero.
            y: row of the hero.

        Returns:
            ``[SIDE · SIDE · len(KINDS)]``, row by row.
        """
        shown = np.full((SIDE, SIDE), self._nothing, np.int64)
        rows, columns = glyphs.shape
        top, left = y - REACH, x - REACH
        first_row, first_column = max(top, 0), max(left, 0)
        part = glyphs[
            first_row : min(y + REACH + 1, rows), first_column : min(x + REACH + 1, columns)
        ]
        row, column = first_row - top, first_column - left
        shown[row : row + part.shape[0], column : column + part.shape[1]] = part
        return self._flags[shown].reshape(-1)
