"""A grid with pits on the way to a goal: where somebody who watches can say what not to do."""

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from prefgym_envs import gridworlds
from prefgym_envs.gridworlds import LETTERS, MOVES, Board
from prefgym_envs.tabular import TabularEnv
from prefgym_envs.tabular_tasks import TabularTask
from prefgym_envs.tabular_vector import TabularVectorEnv

SIZE, PITS, DISCOUNT = 10, 0.2, 0.99
"""Cells on a side, share of them that are pits, and discount of the exact values."""
WEIGHTS = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
"""Of :data:`prefgym_envs.gridworlds.FACTORS`: nothing counts but the goal."""


class PitGridEnv(TabularEnv):
    """Walk to the goal without falling into a pit.

    ## Description
    A square grid, drawn from ``layout_seed``: a goal, and pits on a fifth of the cells, none of
    which cuts a free cell off from the goal. There are few ways to go wrong for good and many to
    lose time, which makes it a place to learn from interventions: somebody who knows what moves are
    worth need not be able to walk well.

    ## Action space
    ``Discrete(4)``: 0 up, 1 down, 2 left, 3 right, one cell per step; the border holds.

    ## Observation space
    ``Discrete(size · size)``: the cell, size · row + column.

    ## True reward
    r = goal: 1 for entering the goal, else 0. ``info["factors"]`` are those of the delivery
    gridworld; a pit is its ``sheep``, which here costs nothing but the rest of the episode.

    ## Start
    Any cell that is neither goal nor pit, all equally likely, or
    ``reset(options={"state": cell})``. ``info["context_id"]`` is the cell.

    ## End
    Terminates at the goal and in every pit. The registered id truncates after 100 steps.

    ## What a rater may prefer that the reward does not say
    Short ways; and, by regret, moves that lead nearer over moves that only do no harm.

    ## Arguments
    ``layout_seed`` (0), ``size`` (10, at least 3), ``pits`` (0.2, below 0.5): share of the cells.
    ``render_mode``: "ansi" or "rgb_array"; a pit is drawn as the delivery gridworld's sheep.

    ## Source
    Ours, for the claims of Luo et al. (2023), RLIF, arXiv:2311.12996.

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}

    def __init__(
        self,
        layout_seed: int = 0,
        size: int = SIZE,
        pits: float = PITS,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(task(layout_seed, size, pits), render_mode)


@lru_cache(maxsize=128)
def task(layout_seed: int = 0, size: int = SIZE, pits: float = PITS) -> TabularTask:
    """The rules of one grid; arguments as :class:`PitGridEnv`.

    Raises:
        ValueError: a grid that is too small, or too many pits.
    """
    if size < 3 or not 0.0 <= pits < 0.5:
        raise ValueError(
            f"size={size}, pits={pits}; wanted 3 cells on a side or more, and a share of pits from"
            " 0 to below 0.5."
        )
    rng = np.random.default_rng(layout_seed)
    items = _items(rng, size, round(pits * size * size))
    while not _all_reach_the_goal(items):
        items = _items(rng, size, round(pits * size * size))
    board = Board(items, np.zeros((size, size), np.bool_))
    return gridworlds.task(board, WEIGHTS, discount=DISCOUNT)


def raw(**kwargs: Any) -> PitGridEnv:
    """One environment with its true reward; arguments as :class:`PitGridEnv`."""
    return PitGridEnv(**kwargs)


def raw_vector(
    num_envs: int, layout_seed: int = 0, size: int = SIZE, pits: float = PITS, **kwargs: Any
) -> TabularVectorEnv:
    """The batched form, all lanes on one grid; other arguments as :class:`TabularVectorEnv`."""
    return TabularVectorEnv(task(layout_seed, size, pits), num_envs, **kwargs)


def _items(rng: np.random.Generator, size: int, pits: int) -> Int[np.ndarray, " size size"]:
    """Goal and pits on different cells."""
    items = np.zeros(size * size, np.int64)
    cells = rng.permutation(size * size)
    items[cells[0]] = LETTERS.index("G")
    items[cells[1 : 1 + pits]] = LETTERS.index("S")
    return items.reshape(size, size)


def _all_reach_the_goal(items: Int[np.ndarray, " size size"]) -> bool:
    free: Bool[np.ndarray, " size size"] = items != LETTERS.index("S")
    reached = items == LETTERS.index("G")
    for _ in range(items.size):
        near = np.pad(reached, 1)
        ways = [np.roll(near, tuple(move), (0, 1))[1:-1, 1:-1] for move in MOVES]
        wider = free & np.logical_or.reduce([reached, *ways])
        if (wider == reached).all():
            break
        reached = wider
    return bool((reached == free).all())
