"""The delivery gridworld: the board on which people compared segments for Knox et al."""

from functools import cache
from typing import Any

import numpy as np

from prefgym_envs import gridworlds
from prefgym_envs.tabular import TabularEnv
from prefgym_envs.tabular_tasks import TabularTask
from prefgym_envs.tabular_vector import TabularVectorEnv

BOARD = (
    "..R.......",
    "....C....m",
    "..S....mmm",
    "C.R.HSSmm.",
    "mm........",
    "m.C.......",
    "mH.SRH....",
    ".C.....cmm",
    "..R....mmg",
    "......R..C",
)
"""Letters as in :data:`prefgym_envs.gridworlds.LETTERS`."""

WEIGHTS = (-1.0, 50.0, -50.0, 1.0, -1.0, -2.0)
"""Reward per unit of each of :data:`prefgym_envs.gridworlds.FACTORS`."""


class DeliveryEnv(TabularEnv):
    """Drive over a 10 × 10 board to the goal, around sheep, mud and roadblocks.

    ## Description
    The board on which 1,812 human preferences were given to show that people judge segments by
    regret rather than by the sum of rewards. Transitions are deterministic. All values are known
    exactly: with discount 0.999, the best policy earns J* = 41.21 and random actions −71.26, the
    mean over the 92 start states.

    ## Action space
    ``Discrete(4)``, one cell per step.

    | action | moves |
    |---|---|
    | 0 | up (row − 1) |
    | 1 | down (row + 1) |
    | 2 | left (column − 1) |
    | 3 | right (column + 1) |

    ## Observation space
    With ``observation="index"``: ``Discrete(100)``, the cell, 10 · row + column.
    With ``observation="coordinates"``: ``Box(0, 9, (2,), float32)``.

    | entry | meaning | unit | min | max |
    |---|---|---|---|---|
    | 0 | row, 0 at the top | cells | 0 | 9 |
    | 1 | column, 0 at the left | cells | 0 | 9 |

    ## True reward
    r = −1 · gas + 50 · goal − 50 · sheep + 1 · coin − 1 · roadblock − 2 · mud, where each factor is
    0 or 1 and comes under its name in ``info["factors"]``. Entering a cell counts its surface (mud
    or, anywhere else, gas) and its item; goal and sheep count alone. A blocked move (border, house)
    counts the surface of the cell where the agent stays, and no item. A coin is not used up: it
    pays on every entry. Cell (7, 7) holds a coin on mud and pays −2 + 1 = −1, as the rules say (and
    as the human data were generated; the released planning code gives it 0 by mistake).

    ## Start
    One of the 92 cells that are neither goal, sheep nor house, all equally likely, or
    ``reset(options={"state": cell})``. ``info["context_id"]`` is the cell.

    ## End
    Terminates at the goal (8, 9) and at the sheep (2, 2), (3, 5), (3, 6), (6, 3). The registered id
    truncates after 200 steps; the raw environment never does.

    ## What a rater may prefer that the reward does not say
    Regret ranks two segments with equal rewards by the values of the cells where they begin and
    end: a segment that loses nothing on its way beats one that collects a coin and drives off.
    A rater may also weigh safety (a wide berth around the sheep) or comfort (no mud at any price).

    ## Arguments
    ``observation``: "index" (default) or "coordinates". ``render_mode``: "ansi" or "rgb_array".

    ## Source
    Knox et al. (2022), Models of human preference for learning reward functions, arXiv:2206.02231.

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}

    def __init__(self, observation: str = "index", render_mode: str | None = None) -> None:
        super().__init__(task(observation), render_mode)


@cache
def task(observation: str = "index") -> TabularTask:
    """The rules of the delivery gridworld; solved at most once per process."""
    return gridworlds.task(
        gridworlds.Board.parse(BOARD), np.array(WEIGHTS), observation=observation
    )


def raw(**kwargs: Any) -> DeliveryEnv:
    """One environment with its true reward; arguments as :class:`DeliveryEnv`."""
    return DeliveryEnv(**kwargs)


def raw_vector(num_envs: int, observation: str = "index", **kwargs: Any) -> TabularVectorEnv:
    """The batched form; other arguments as :class:`TabularVectorEnv`."""
    return TabularVectorEnv(task(observation), num_envs, **kwargs)
