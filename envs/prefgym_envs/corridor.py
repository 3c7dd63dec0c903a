"""A corridor whose walkers are judged by what they did in which half of the time."""

from typing import Any

import gymnasium as gym
import numpy as np

from prefgym_envs.tabular import TabularEnv
from prefgym_envs.tabular_mdps import TabularMDPs
from prefgym_envs.tabular_tasks import TabularTask
from prefgym_envs.tabular_vector import TabularVectorEnv

CELLS, STEPS = 9, 20
"""Of the corridor by default, and of an episode."""
FACTORS = ("early_left", "late_right")


class CorridorEnv(TabularEnv):
    """Walk along a corridor; people like who was at its left end early and at its right end late.

    ## Description
    A row of cells, and a fixed number of steps. The default rater, ``low-then-high``, gives a walk
    a point if it touches the left end in the first half of its steps, and one if it touches the
    right end in the second half, and prefers the higher score. That is no sum over steps: once an
    end is touched, staying there is worth nothing more. A reward of cells and actions that pays
    for both ends is earned best by standing at one of them, for a score of 1 of 2, however it was
    learned; a reward that knows the time can do better.

    ## Action space
    ``Discrete(3)``: 0 left, 1 stay, 2 right; walls hold.

    ## Observation space
    ``MultiDiscrete([cells, steps + 1])``: the cell from the left, and the steps taken.

    ## True reward
    r = 2 / steps · (early_left + late_right): a point for every full half of the time at the right
    place, in [0, 2]. Of ``info["factors"]``, ``early_left`` is 1 for a step of the first half that
    begins at the left end, ``late_right`` for one of the second half that begins at the right end,
    0 else.

    ## Start
    In the middle cell.

    ## End
    Terminates after ``steps`` steps.

    ## What a rater may prefer that the reward does not say
    That each end be touched at all: the score of ``low-then-high`` does not grow with the time
    spent there.

    ## Arguments
    ``cells`` (9), an odd number of 3 or more, and ``steps`` (20), an even one of 2 or more.

    ## Source
    The non-Markovian preferences of Swamy et al. (2024), A minimaximalist approach to RLHF,
    arXiv:2401.04056; the corridor is ours.

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": []}

    def __init__(
        self, cells: int = CELLS, steps: int = STEPS, render_mode: str | None = None
    ) -> None:
        super().__init__(task(cells, steps), render_mode)
        self.ends = 0.0, cells - 1.0


class CorridorVectorEnv(TabularVectorEnv):
    """The batched form of :class:`CorridorEnv`.

    Args:
        num_envs: lanes.
        cells: as :class:`CorridorEnv`.
        steps: as :class:`CorridorEnv`.
        **kwargs: as :class:`TabularVectorEnv`.
    """

    def __init__(
        self, num_envs: int, cells: int = CELLS, steps: int = STEPS, **kwargs: Any
    ) -> None:
        super().__init__(task(cells, steps), num_envs, **kwargs)
        self.ends = 0.0, cells - 1.0


def task(cells: int = CELLS, steps: int = STEPS) -> TabularTask:
    """The corridor as a table: state = step · cells + cell, and one more where it is over.

    Raises:
        ValueError: no cell is in the middle, or time has no halves.
    """
    if cells < 3 or cells % 2 == 0:
        raise ValueError(f"cells={cells}; wanted an odd number of 3 or more, for a middle one.")
    if steps < 2 or steps % 2:
        raise ValueError(f"steps={steps}; wanted an even number of 2 or more, for two halves.")
    step, cell = (part.ravel() for part in np.indices((steps, cells)))
    over = steps * cells
    moved = np.clip(cell[:, None] + np.array([-1, 0, 1]), 0, cells - 1)
    after = np.where(step[:, None] + 1 < steps, (step[:, None] + 1) * cells + moved, over)
    early = 2 * step < steps
    counted = np.stack([early & (cell == 0), ~early & (cell == cells - 1)], -1).astype(np.float64)
    features = np.zeros((1, over + 1, 3, 1, 2))
    features[0, :over, :, 0] = counted[:, None]
    start = np.zeros((1, over + 1))
    start[0, cells // 2] = 1.0
    mdps = TabularMDPs(
        next_state=np.append(after, np.full((1, 3), over), 0)[None, :, :, None],
        probability=np.ones((1, over + 1, 3, 1)),
        features=features,
        weights=np.full((1, 2), 2.0 / steps),
        start=start,
    )
    return TabularTask(
        mdps=mdps,
        absorbing=np.arange(over + 1) == over,
        observations=np.append(np.stack([cell, step], -1), [[0, steps]], 0),
        observation_space=gym.spaces.MultiDiscrete([cells, steps + 1]),
        place_values=(1, cells),
        factor_names=FACTORS,
    )


def raw(**kwargs: Any) -> CorridorEnv:
    """One environment with its true reward; arguments as :class:`CorridorEnv`."""
    return CorridorEnv(**kwargs)


def raw_vector(num_envs: int, **kwargs: Any) -> CorridorVectorEnv:
    """The batched form; arguments as :class:`CorridorVectorEnv`."""
    return CorridorVectorEnv(num_envs, **kwargs)
