"""Interventions alone teach more than the interventions themselves show.

Source: Luo et al. (2023), "RLIF: interactive imitation learning as reinforcement learning",
arXiv:2311.12996.

Grids of 10 × 10 cells with a goal and twenty pits (``prefgym/PitGrid-v0``), drawn anew for every
seed. The expert acts wrongly in 10, 40 or 80 % of the cells, always in the same way. The supervisor
knows what moves are worth, takes over after one that loses time (with probability 0.95, and after
any other with 0.05), and lets the expert act for four steps. RLIF learns a table of values from −1
for moves that provoked this. DAgger imitates the same expert with a network, in every state that it
visits, until it was told as many actions as the expert took over in for RLIF. What is measured is
the share of 400 fresh episodes, from random cells, that reach the goal.

Controls: takeovers at random, by a coin at every step, say nothing and must teach nothing; and the
literal labelling of the paper (−1 on the step before a refused proposal) blames innocent moves
where one step decides, so that the effect vanishes with it.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.training import EVALUATION_SEED
from prefgym.interventions import Random, Rule, Supervision, ValueBased, with_mistakes
from prefgym_agents.evaluation import Predicts, evaluate
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
GRIDS, LANES, STEPS, DAGGER_STEPS, EPISODES = 3, 32, 60_000, 16_000, 400
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

    def success(self, policy: Predicts) -> float:
        """Share of fresh episodes that reach the goal."""
        told = {"episodes": EPISODES, "seed": EVALUATION_SEED, "layout_seed": self.layout}
        return float((evaluate(policy, ENV, **told) > 0.5).mean())


def run(seed: int, quick: bool) -> ClaimResult:
    """All three experts on three grids each; when quick, the worst on one."""
    torch.set_num_threads(1)
    shares = (SHARES[-1],) if quick else SHARES
    count = 1 if quick else GRIDS
    rows, controls, figures = [], [], {}
    for share in shares:
        grids = [Grid(1_000 * seed + number, share) for number in range(count)]
        learned = [rlif(grid) for grid in grids]
        alone = float(np.mean([of_expert(grid) for grid in grids]))
        success = float(np.mean([one[0] for one in learned]))
        rows.append(Row(f"{share:.0%} wrong: success of RLIF", success, ">=", 0.9))
        figures |= {f"rlif_{share:.0%}".rstrip("%"): success, f"expert_{share:.0%}"[:-1]: alone}
        if share in BAD:
            imitated = [dagger(g, one[1]) for g, one in zip(grids, learned, strict=True)]
            told = float(np.mean(imitated))
            rows.append(Row(f"{share:.0%} wrong: success of the expert", alone, "<=", 0.2))
            rows.append(Row(f"{share:.0%} wrong: success of DAgger", told, "<=", 0.2))
            figures[f"dagger_{share:.0%}"[:-1]] = told
    grids = [Grid(1_000 * seed + number, BAD[0]) for number in range(count)]
    at_random = float(np.mean([rlif(grid, rule=Random(0.5))[0] for grid in grids]))
    controls.append(Row("takeovers at random: success of RLIF", at_random, "<=", 0.2))
    if not quick:
        literal = float(np.mean([rlif(grid, "previous")[0] for grid in grids]))
        controls.append(Row("the step before is blamed: success of RLIF", literal, "<=", 0.3))
        proposals = float(np.mean([rlif(grid, "proposal")[0] for grid in grids]))
        figures |= {"previous": literal, "proposal": proposals}
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def rlif(grid: Grid, blame: Blame = "posthoc", rule: Rule | None = None) -> tuple[float, int]:
    """Success after training, and in how many steps the expert acted."""
    env = grid.make(rule or grid.watched(), JUDGED[blame])
    learner = RLIF(TabularQ(env, seed=grid.layout), blame=blame).learn(STEPS)
    store = learner.store
    whole = store.segments(store.since(np.zeros(LANES, np.int64)), pit_grid.SIZE**2)
    return grid.success(learner), int((whole.factors["intervened"] > 0.0).sum())


def dagger(grid: Grid, labels: int) -> float:
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


def of_expert(grid: Grid) -> float:
    """Success of the expert by itself."""
    acting = TabularQ(gym.make_vec(ENV, num_envs=1, layout_seed=grid.layout, query_every=None))
    acting.q[np.arange(len(acting.q)), grid.table] = 1.0
    return grid.success(acting)
