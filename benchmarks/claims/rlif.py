"""Interventions alone teach more than the interventions themselves show.

Source: Luo et al. (2023), "RLIF: interactive imitation learning as reinforcement learning",
arXiv:2311.12996.

Grids of 10 × 10 cells with a goal and twenty pits (``prefgym/PitGrid-v0``), drawn anew for every
seed. The expert acts wrongly in 10, 40 or 80 % of the cells, always in the same way. The supervisor
knows what moves are worth, takes over after one that loses time (with probability 0.95, and after
any other with 0.05), and lets the expert act for four steps. RLIF learns a table of values from −1
for moves that provoked this. DAgger imitates the same expert with a network, in every state that it
visits, until it was told as many actions as the expert took over in for RLIF. What is measured is
the share of fresh episodes that reach the goal, from the half of the cells that are farthest from
it: from next door anybody arrives. From all cells, which are among the figures, the expert who errs
in 40 % of them reaches it in 0.21 of the episodes, on average over grids: more than the 0.2 that
is allowed here.

Pendulums (not in the quick part), with networks: see :mod:`benchmarks.claims.rlif_pendulum`.

Controls: takeovers at random, by a coin at every step, say nothing and must teach nothing; and the
literal labelling of the paper (−1 on the step before a refused proposal) blames innocent moves
where one step decides, so that the effect vanishes with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from benchmarks.claims import rlif_pendulum
from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.training import EVALUATION_SEED
from prefgym.interventions import Random, Rule, Supervision, ValueBased, with_mistakes
from prefgym_agents.evaluation import Predicts, played
from prefgym_agents.imitation import Imitation
from prefgym_agents.rlif import JUDGED, RLIF, Blame
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.tabular import TabularQ
from prefgym_envs import pit_grid

KEY = "rlif"
CLAIM = (
    "What made somebody take over is reward enough to become better than whoever takes over, where"
    " imitation stays as bad as the expert."
)
ENV = "prefgym/PitGrid-v0"
SHARES = (0.1, 0.4, 0.8)
"""Of the cells in which the expert is wrong."""
BAD = SHARES[1:]
GRIDS, FEW = 40, 8
"""Grids of a seed, and those of them that the controls are run on, or that are quick."""
LANES, STEPS, DAGGER_STEPS, EPISODES = 32, 30_000, 8_000, 400
MARGIN = 0.005
"""Of the state's value: a move that leads nowhere loses 0.02 of it, one against the border 0.01."""


@dataclass(frozen=True)
class Grid:
    """A grid, and an expert who errs there."""

    layout: int
    share: float

    @property
    def table(self) -> np.ndarray:
        """What the expert does in every cell."""
        best = pit_grid.task(self.layout).values.q[0].argmax(1)
        return with_mistakes(best, 4, self.share, np.random.default_rng(self.layout))

    def make(self, rule: Rule, judged: Any = "executed") -> Any:
        """The environment, with the expert behind the policy."""
        table = self.table
        supervision = Supervision(lambda cells: table[cells], rule, judged=judged)
        return gym.make_vec(
            ENV,
            num_envs=LANES,
            layout_seed=self.layout,
            query_every=None,
            supervision=supervision,
        )

    def watched(self) -> ValueBased:
        """By somebody who knows what moves are worth."""
        return ValueBased(pit_grid.raw(layout_seed=self.layout), margin=MARGIN)

    def success(self, policy: Predicts) -> "Success":
        """Share of fresh episodes that reach the goal."""
        told = {"episodes": EPISODES, "seed": EVALUATION_SEED, "layout_seed": self.layout}
        lived = played(policy, ENV, deterministic=True, **told)
        task = pit_grid.task(self.layout)
        worth = task.values.v[0]  # falls with the way to the goal
        far = worth[lived.context] <= np.median(worth[~task.absorbing])
        reached = np.asarray(lived.rewards).sum(1) > 0.5
        return Success(float(reached[far].mean()), float(reached.mean()))


class Success(NamedTuple):
    """Share of the episodes that reach the goal."""

    far: float
    """Of those from the farther half of the cells."""
    anywhere: float


def run(seed: int, quick: bool) -> ClaimResult:
    """Three experts on forty grids each, and pendulums; when quick, the worst on eight grids."""
    torch.set_num_threads(1)
    shares = (SHARES[-1],) if quick else SHARES
    rows: list[Row] = []
    figures: dict[str, float] = {}
    for share in shares:
        of_share, told = _experts(seed, share, FEW if quick else GRIDS)
        rows += of_share
        figures |= told
    grids = [Grid(1_000 * seed + number, BAD[0]) for number in range(1 if quick else FEW)]
    at_random = _mean([rlif(grid, rule=Random(0.5))[0].far for grid in grids])
    controls = [Row("takeovers at random: success of RLIF", at_random, "<=", 0.2)]
    if not quick:
        literal = _mean([rlif(grid, "previous")[0].far for grid in grids])
        controls.append(Row("the step before is blamed: success of RLIF", literal, "<=", 0.3))
        proposals = _mean([rlif(grid, "proposal")[0].far for grid in grids])
        figures |= {"random": at_random, "previous": literal, "proposal": proposals}
        pendulums = rlif_pendulum.compared(seed)
        rows += pendulums.rows
        controls += pendulums.controls
        figures |= pendulums.figures
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def _experts(seed: int, share: float, count: int) -> tuple[list[Row], dict[str, float]]:
    """RLIF, DAgger and the expert itself, who errs in this share of the cells."""
    grids = [Grid(1_000 * seed + number, share) for number in range(count)]
    learned = [rlif(grid) for grid in grids]
    alone = [of_expert(grid) for grid in grids]
    success, expert = (
        _mean([one.far for one in many]) for many in ([one for one, _ in learned], alone)
    )
    rows = [Row(f"{share:.0%} wrong: success of RLIF", success, ">=", 0.9)]
    name = f"{100 * share:.0f}"
    figures = {
        f"rlif_{name}": success,
        f"expert_{name}": expert,
        f"rlif_{name}_anywhere": _mean([one.anywhere for one, _ in learned]),
        f"expert_{name}_anywhere": _mean([one.anywhere for one in alone]),
    }
    if share in BAD:
        imitated = [dagger(grid, one[1]) for grid, one in zip(grids, learned, strict=True)]
        told = figures[f"dagger_{name}"] = _mean([one.far for one in imitated])
        rows.append(Row(f"{share:.0%} wrong: success of the expert", expert, "<=", 0.2))
        rows.append(Row(f"{share:.0%} wrong: success of DAgger", told, "<=", 0.2))
    return rows, figures


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def rlif(grid: Grid, blame: Blame = "posthoc", rule: Rule | None = None) -> tuple[Success, int]:
    """Success after training, and in how many steps the expert acted."""
    env = grid.make(rule or grid.watched(), JUDGED[blame])
    learner = RLIF(TabularQ(env, seed=grid.layout), blame=blame).learn(STEPS)
    store = learner.store
    whole = store.segments(store.since(np.zeros(LANES, np.int64)), pit_grid.SIZE**2)
    return grid.success(learner), int((whole.factors["intervened"] > 0.0).sum())


def dagger(grid: Grid, labels: int) -> Success:
    """Success after imitating the expert, told so many of its actions at most."""
    env = grid.make(lambda seen, done, rng: np.zeros(len(seen), np.bool_))
    backend = sb3_backend(
        "PPO",
        env,
        seed=grid.layout,
        n_steps=32,
        batch_size=256,
        learning_rate=3e-3,
        policy_kwargs={"net_arch": [64]},
    )
    learner = Imitation(backend, "dagger", labels=labels, seed=grid.layout)
    return grid.success(learner.learn(DAGGER_STEPS))


def of_expert(grid: Grid) -> Success:
    """Success of the expert by itself."""
    acting = TabularQ(gym.make_vec(ENV, num_envs=1, layout_seed=grid.layout, query_every=None))
    acting.q[np.arange(len(acting.q)), grid.table] = 1.0
    return grid.success(acting)
