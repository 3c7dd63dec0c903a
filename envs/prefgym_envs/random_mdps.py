"""Random gridworlds: boards and rewards drawn at random, for claims that must hold on average."""

from functools import lru_cache
from typing import Any

import numpy as np

from prefgym_envs import gridworlds
from prefgym_envs.gridworlds import LETTERS, Board
from prefgym_envs.tabular import TabularEnv
from prefgym_envs.tabular_tasks import TabularTask
from prefgym_envs.tabular_vector import TabularVectorEnv


class RandomMDPEnv(TabularEnv):
    """Walk over a board whose size, items and rewards were drawn from ``layout_seed``.

    ## Description
    The board and the reward are fixed by ``layout_seed``: a different number is a different task,
    with other spaces. On some boards the goal is walled in by sheep, or worth nothing: that is part
    of the distribution. All values are known exactly (discount 0.999).

    Drawn uniformly for ``stochastic=False``:

    | what | from |
    |---|---|
    | rows, columns | {3, 6, 10, 15}, {5, 6, 10} |
    | share of sheep, roadblocks, coins | {0, .1, .3}, {0, .1, .5, .8}, {0, .1, .2}; sum below 1 |
    | goal | one cell, whatever lay there |
    | reward of goal | {0, 1, 5, 10, 50} |
    | reward of sheep | {−5, −10, −50, −100} |
    | reward of roadblock | {−2, −5, −10} |
    | reward of mud | {−1, −2, −3} (there is no mud on these boards) |
    | reward of gas, coin | −1, +1 |

    With ``stochastic=True`` the board is 5 × 5 with a share of sheep from {.05, .1, .3} and nothing
    else but the goal; gas −1, goal +50, sheep −50. Entering a sheep's cell ends the episode, and
    with probability ½ pays ``win_reward`` instead of −50: whether to gamble depends on the size of
    the reward, which comparisons of noiseless sums do not reveal.

    ## Action space
    ``Discrete(4)``, one cell per step.

    | action | moves |
    |---|---|
    | 0 | up (row − 1) |
    | 1 | down (row + 1) |
    | 2 | left (column − 1) |
    | 3 | right (column + 1) |

    ## Observation space
    With ``observation="index"``: ``Discrete(rows · columns)``, the cell, columns · row + column.
    With ``observation="coordinates"``: ``Box(0, (rows − 1, columns − 1), (2,), float32)``.

    | entry | meaning | unit | min | max |
    |---|---|---|---|---|
    | 0 | row, 0 at the top | cells | 0 | rows − 1 (at most 14) |
    | 1 | column, 0 at the left | cells | 0 | columns − 1 (at most 9) |

    ## True reward
    r = Σ weight · factor over gas, goal, sheep, coin, roadblock and mud, with the weights drawn
    above (``env.unwrapped.task.mdps.weights[0]``). Each factor is 0 or 1 and comes under its name
    in ``info["factors"]``; a gamble that was won counts as a coin, whose weight is then
    ``win_reward``. The rules of moving are those of :class:`prefgym_envs.delivery.DeliveryEnv`.

    ## Start
    One of the cells that are neither goal nor sheep, all equally likely, or
    ``reset(options={"state": cell})``. ``info["context_id"]`` is the cell.

    ## End
    Terminates at the goal and at every sheep. The registered id truncates after 200 steps; the raw
    environment never does.

    ## What a rater may prefer that the reward does not say
    How a segment ends (regret) against what it collected (partial return); in the stochastic form,
    how much risk to bear for a win, or the decision against the luck that followed.

    ## Arguments
    ``layout_seed``: which board (default 36: 6 × 5, with every kind of item, and worth walking
    over). ``stochastic``: the gambling form. ``win_reward``: of a gamble that is won.
    ``observation``: "index" (default) or "coordinates". ``render_mode``: "ansi" or "rgb_array".

    ## Source
    Knox et al. (2022), arXiv:2206.02231, and Knox et al. (2024), Learning optimal advantage from
    preferences and mistaking it for reward, arXiv:2310.02456 (stochastic form).

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}

    def __init__(
        self,
        layout_seed: int = 36,
        stochastic: bool = False,
        win_reward: float = 50.0,
        observation: str = "index",
        render_mode: str | None = None,
    ) -> None:
        super().__init__(task(layout_seed, stochastic, win_reward, observation), render_mode)


@lru_cache(maxsize=128)
def task(
    layout_seed: int = 36,
    stochastic: bool = False,
    win_reward: float = 50.0,
    observation: str = "index",
) -> TabularTask:
    """The rules of one random board; arguments as :class:`RandomMDPEnv`.

    ``tabular_mdps.stack([task(seed).mdps for seed in range(100)])`` is a batch to plan on at once.

    Raises:
        ValueError: ``layout_seed`` is no integer of at least 0, ``win_reward`` is not finite, or
            the observation is unknown.
    """
    if not isinstance(layout_seed, int | np.integer) or layout_seed < 0:
        raise ValueError(f"layout_seed is {layout_seed!r}; give an integer of at least 0.")
    if not np.isfinite(win_reward):
        raise ValueError(f"win_reward is {win_reward}; give a finite number.")
    rng = np.random.default_rng(layout_seed)
    if stochastic:
        board, weights = _gambling_board(rng, win_reward)
    else:
        board, weights = _board(rng)
    return gridworlds.task(
        board, weights, win_probability=0.5 if stochastic else 0.0, observation=observation
    )


def raw(**kwargs: Any) -> RandomMDPEnv:
    """One environment with its true reward; arguments as :class:`RandomMDPEnv`."""
    return RandomMDPEnv(**kwargs)


def raw_vector(
    num_envs: int,
    layout_seed: int = 36,
    stochastic: bool = False,
    win_reward: float = 50.0,
    observation: str = "index",
    **kwargs: Any,
) -> TabularVectorEnv:
    """The batched form, all lanes on one board; other arguments as :class:`TabularVectorEnv`."""
    rules = task(layout_seed, stochastic, win_reward, observation)
    return TabularVectorEnv(rules, num_envs, **kwargs)


def _board(rng: np.random.Generator) -> tuple[Board, np.ndarray]:
    """A board and its weights; shares are counted in tenths, so that their sum is exact."""
    rows, columns = int(rng.choice([3, 6, 10, 15])), int(rng.choice([5, 6, 10]))
    sheep = int(rng.choice([0, 1, 3]))
    roadblocks = _drawn_below(rng, [0, 1, 5, 8], 10 - sheep)
    coins = _drawn_below(rng, [0, 1, 2], 10 - sheep - roadblocks)
    cells = rows * columns
    counts = {"S": sheep * cells // 10, "R": roadblocks * cells // 10, "C": coins * cells // 10}
    weights = [
        -1.0,
        rng.choice([0.0, 1.0, 5.0, 10.0, 50.0]),
        rng.choice([-5.0, -10.0, -50.0, -100.0]),
        1.0,
        rng.choice([-2.0, -5.0, -10.0]),
        rng.choice([-1.0, -2.0, -3.0]),
    ]
    return _scattered(rng, rows, columns, counts), np.array(weights)


def _gambling_board(rng: np.random.Generator, win_reward: float) -> tuple[Board, np.ndarray]:
    sheep_percent = int(rng.choice([5, 10, 30]))
    board = _scattered(rng, 5, 5, {"S": 25 * sheep_percent // 100})
    return board, np.array([-1.0, 50.0, -50.0, win_reward, 0.0, 0.0])


def _drawn_below(rng: np.random.Generator, shares: list[int], limit: int) -> int:
    """One of the shares that stay below the limit, all equally likely."""
    return int(rng.choice([share for share in shares if share < limit]))


def _scattered(rng: np.random.Generator, rows: int, columns: int, counts: dict[str, int]) -> Board:
    """Items on distinct random cells; the goal then takes a random cell, whatever lies there."""
    items = np.zeros(rows * columns, np.int64)
    cells = rng.permutation(rows * columns)
    begin = 0
    for letter, count in counts.items():
        items[cells[begin : begin + count]] = LETTERS.index(letter)
        begin += count
    items[rng.integers(rows * columns)] = LETTERS.index("G")
    return Board(items.reshape(rows, columns), np.zeros((rows, columns), np.bool_))
