"""Boards of items, and the rules of moving on them: what the gridworld tasks have in common.

Rules: the four actions move one cell. Entering a cell costs its surface (gas, or mud instead of
gas) and gives its item; goal and sheep have no surface cost and end the episode. A move against
the border or a house leaves the agent where it is and costs the surface of that cell alone. Coins
are not used up: they pay on every entry.
Source: Knox et al. (2022), arXiv:2206.02231, domain of the human study.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float, Int

from prefgym.names import lookup
from prefgym_envs import board_pictures
from prefgym_envs.tabular_mdps import TabularMDPs
from prefgym_envs.tabular_tasks import TabularTask

FACTORS = ("gas", "goal", "sheep", "coin", "roadblock", "mud")
"""What a step counts, in the order of the weights."""

MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
"""Rows and columns that each action moves: up, down, left, right."""

LETTERS = ".GHSCR"
"""Nothing, goal, house, sheep, coin, roadblock; on mud: ``m`` and the small letters."""

_NOTHING, _GOAL, _HOUSE, _SHEEP, _COIN, _ROADBLOCK = range(6)


@dataclass(frozen=True, eq=False)
class Board:
    """What lies on each cell, and where there is mud below it.

    Attributes:
        items: position in :data:`LETTERS`.
        mud: whether the surface is mud.
    """

    items: Int[np.ndarray, " rows columns"]
    mud: Bool[np.ndarray, " rows columns"]

    @classmethod
    def parse(cls, rows: Sequence[str]) -> "Board":
        """A board from one string per row, one letter of :data:`LETTERS` per cell.

        Raises:
            ValueError: the rows differ in length, or a letter is unknown.

        Example:
            >>> print(Board.parse(["..G", "mCh"]).text(0))
            [.] .  G
             m  C  h
        """
        if not rows or len({len(row) for row in rows}) > 1:
            raise ValueError(f"The rows of a board need one length; got {[len(r) for r in rows]}.")
        unknown = sorted(set("".join(rows)) - set(LETTERS + LETTERS[1:].lower() + "m"))
        if unknown:
            raise ValueError(
                f"A board knows the letters {LETTERS} and, on mud, m{LETTERS[1:].lower()}; got "
                f"{''.join(unknown)!r}."
            )
        items = [[max(0, LETTERS.find(letter.upper())) for letter in row] for row in rows]
        mud = [[letter.islower() for letter in row] for row in rows]
        return cls(np.array(items), np.array(mud))

    @property
    def columns(self) -> int:
        """Cells per row."""
        return int(self.items.shape[1])

    @property
    def absorbing(self) -> Bool[np.ndarray, " cells"]:
        """Cells where no episode goes on: goal and sheep, and houses, which none can enter."""
        return np.isin(self.items.ravel(), (_GOAL, _SHEEP, _HOUSE))

    def text(self, state: int) -> str:
        """The board in letters; the agent's cell stands in brackets."""
        dry = np.array(list(LETTERS))[self.items]
        wet = np.array(list("m" + LETTERS[1:].lower()))[self.items]
        cells = np.where(self.mud, wet, dry).ravel()
        shown = [f"[{cell}]" if i == state else f" {cell} " for i, cell in enumerate(cells)]
        rows = [shown[begin : begin + self.columns] for begin in range(0, len(shown), self.columns)]
        return "\n".join("".join(row).rstrip() for row in rows)

    def pixels(self, state: int) -> np.ndarray:
        """The board in colour with the agent as a blue disc: uint8, (height, width, 3)."""
        return board_pictures.with_agent(self._empty_picture, divmod(state, self.columns))

    @cached_property
    def _empty_picture(self) -> np.ndarray:
        return board_pictures.picture(self.items, self.mud)


def task(
    board: Board,
    weights: Float[np.ndarray, " features"],
    *,
    win_probability: float = 0.0,
    discount: float = 0.999,
    observation: str = "index",
) -> TabularTask:
    """The task of moving on a board; episodes start in every cell that is not absorbing.

    Args:
        board: the cells.
        weights: reward per unit of each of :data:`FACTORS`.
        win_probability: with this probability, entering a sheep's cell pays the coin's weight
            instead of the sheep's; the episode ends all the same.
        discount: of the next step's reward, for the exact values.
        observation: "index" (row · columns + column, Discrete) or "coordinates" (row and column in
            cells, Box of two float32).

    Raises:
        ValueError: there is no cell to start in, or the observation is unknown.
    """
    rows, columns = board.items.shape
    if board.absorbing.all():
        raise ValueError("No episode can start: every cell of the board ends it or is a house.")
    start = (~board.absorbing).astype(np.float64)
    next_state, features = _transitions(board)
    mdps = TabularMDPs(
        next_state=next_state[None, :, :, None],
        probability=np.ones((1, *next_state.shape, 1)),
        features=features[None, :, :, None],
        weights=np.asarray(weights, np.float64)[None],
        start=(start / start.sum())[None],
        discount=discount,
    )
    if win_probability:
        mdps = _with_wins(mdps, win_probability)
    seen, space, place_values = lookup(
        observation,
        {"index": _index_observations, "coordinates": _coordinate_observations},
        "observation",
    )(rows, columns)
    return TabularTask(mdps, board.absorbing, seen, space, place_values, FACTORS, board)


def _transitions(
    board: Board,
) -> tuple[Int[np.ndarray, " cells actions"], Float[np.ndarray, " cells actions features"]]:
    """Where each move leads, and what it counts."""
    shape = np.array(board.items.shape)
    cells = np.arange(board.items.size)
    here = np.stack(np.divmod(cells, board.columns), -1)
    target = here[:, None] + MOVES
    inside = ((target >= 0) & (target < shape)).all(-1)
    target = np.clip(target, 0, shape - 1)
    target_cell = target[..., 0] * board.columns + target[..., 1]
    items, mud = board.items.ravel(), board.mud.ravel()
    entered = inside & (items[target_cell] != _HOUSE)
    next_cell = np.where(entered, target_cell, cells[:, None])
    item = np.where(entered, items[next_cell], _NOTHING)
    ends = (item == _GOAL) | (item == _SHEEP)
    columns = {
        "gas": ~ends & ~mud[next_cell],
        "goal": item == _GOAL,
        "sheep": item == _SHEEP,
        "coin": item == _COIN,
        "roadblock": item == _ROADBLOCK,
        "mud": ~ends & mud[next_cell],
    }
    features = np.stack([columns[name] for name in FACTORS], -1).astype(np.float64)
    over = board.absorbing
    next_cell[over] = cells[over, None]
    features[over] = 0.0
    return next_cell, features


def _with_wins(mdps: TabularMDPs, win_probability: float) -> TabularMDPs:
    """The same board, with a second outcome of entering a sheep's cell: the coin's reward."""
    sheep, coin = FACTORS.index("sheep"), FACTORS.index("coin")
    meets_sheep = mdps.features[..., sheep] > 0
    chance = np.where(meets_sheep, win_probability, 0.0)
    won = mdps.features.copy()
    won[..., coin] += won[..., sheep]
    won[..., sheep] = 0.0
    return replace(
        mdps,
        next_state=np.repeat(mdps.next_state, 2, axis=-1),
        probability=np.concatenate([1.0 - chance, chance], -1),
        features=np.concatenate([mdps.features, won], -2),
    )


def _index_observations(
    rows: int, columns: int
) -> tuple[np.ndarray, gym.Space[np.int64], tuple[int, ...]]:
    return np.arange(rows * columns), gym.spaces.Discrete(rows * columns), (1,)


def _coordinate_observations(
    rows: int, columns: int
) -> tuple[np.ndarray, gym.Space[np.ndarray], tuple[int, ...]]:
    high = np.array([rows - 1, columns - 1], np.float32)
    space = gym.spaces.Box(np.zeros(2, np.float32), high, dtype=np.float32)
    cells = np.arange(rows * columns)
    return np.stack(np.divmod(cells, columns), -1).astype(np.float32), space, (columns, 1)
