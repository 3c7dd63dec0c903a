"""What a judge says of captions solves a task whose own reward comes too rarely to learn from.

Source: Zheng et al. (2024), "Online intrinsic rewards for decision making agents from large
language model feedback", arXiv:2410.23022 (ONI).

MiniGrid's DoorKey-8x8: fetch a key, unlock a door, walk to the goal; reward at the goal alone. PPO
acts for 200,000 steps, and every step says in a caption what changed. Twelve different captions
can come. A rule-based judge is asked of each once whether it helps to "open the door"; reaching the
goal is no part of that, so that no caption repeats the task's own reward. What helps earns 0.1 / N³
the N-th time in an episode, and the policy sees the counts up to four. A training solves the task
if at least 90 % of 50 fresh episodes reach the goal. Five trainings with seeds of their own stand
for each claim seed.

Ranking asks which of two captions is the greater step, and learns rewards from that: it may solve
fewer, and must do no worse than the task's reward alone.

One answer in five is wrong: each caption is asked of once, so that a wrong label stays. Nothing
averages it out, and what it costs depends on which one it is. If picking up the key and unlocking
the door are both said not to help (once in 25 trainings), nothing leads to the door. A majority of
the trainings has to solve the task.

A smaller world of a key and a door, where a table of values learns instead of PPO:
:mod:`benchmarks.claims.oni_keydoor`. It is the quick form.

Control: without the count term (k = 0) picking up the key and dropping it, or opening and closing
the door, is paid for ever, and worth more than the goal, so that the policy does nothing else.

Counts that the policy does not see are a control for the table, which then collects what is left of
a bonus for ever. For PPO they are among the figures alone: at k = 3 all repetitions of a caption
together are worth a fifth of the first time, 0.02, where the goal is worth up to 1. With the
weights of ONI's program, 0.4 for what helps and 0.1 for the goal, none of five trainings solved
the task without seeing the counts, but with them it was only two of five: where the goal counts
little, 200,000 steps are too few for either.
"""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from benchmarks.claims import oni_keydoor
from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.training import EVALUATION_SEED, side_by_side
from prefgym.annotation import Inline
from prefgym.judges import RuleJudge
from prefgym.raters.language import LanguageRater
from prefgym_agents.evaluation import evaluate
from prefgym_agents.intrinsic import MODELS, Intrinsic, Model
from prefgym_agents.sb3 import sb3_backend

KEY = "oni"
CLAIM = (
    "Rewards for captions that a language model finds helpful solve tasks that the task's own"
    " reward does not, while the model is asked only about what is new."
)
ENV = "prefgym/DoorKey-8x8-v0"
SEEDS, LANES, STEPS, EPISODES = 5, 8, 200_000, 50
GOAL = "open the door"
SOLVED = 0.9
"""Share of fresh episodes that reach the goal, in a training that solves the task."""
MOST = 4
"""Up to which captions are counted in the observation."""
PPO: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 4,
    "ent_coef": 0.01,
    "learning_rate": 5e-4,
    "gamma": 0.99,
}


@dataclass(frozen=True)
class Variant:
    """One way to be rewarded."""

    model: Model = "retrieval"
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the learner."""
    mistake: float = 0.0
    """Share of the judge's answers that are wrong."""
    counts: int = MOST


VARIANTS = {
    "extrinsic": Variant(settings={"intrinsic": 0.0}),
    "retrieval": Variant(),
    "classification": Variant("classification"),
    "ranking": Variant("ranking"),
    "mistaken": Variant(mistake=0.2),
    "uncounted": Variant(settings={"exponent": 0.0}),
    "hidden": Variant(counts=0),
}


@dataclass(frozen=True)
class Job:
    """One training."""

    variant: str
    seed: int


def run(seed: int, quick: bool) -> ClaimResult:
    """Eight trainings of a table, then five of PPO; when quick, two of the table alone."""
    torch.set_num_threads(1)
    rows, controls, figures = oni_keydoor.compared(seed, quick)
    if not quick:
        more = _on_doorkey(seed)
        rows, controls, figures = rows + more[0], controls + more[1], figures | more[2]
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def _on_doorkey(seed: int) -> tuple[list[Row], list[Row], dict[str, float]]:
    jobs = [Job(name, SEEDS * seed + k) for name in VARIANTS for k in range(SEEDS)]
    success = np.array(side_by_side(train, jobs)).reshape(len(VARIANTS), SEEDS)
    mean = dict(zip(VARIANTS, success.mean(1).tolist(), strict=True))
    solved = dict(zip(VARIANTS, (success >= SOLVED).sum(1).tolist(), strict=True))
    least = dict(zip(VARIANTS, success.min(1).tolist(), strict=True))
    beyond = mean["ranking"] - mean["extrinsic"]
    rows = [
        Row("the task's reward alone: seeds solved", solved["extrinsic"], "<=", SEEDS // 2),
        Row("retrieval: seeds solved", solved["retrieval"], ">=", SEEDS),
        Row("classification: seeds solved", solved["classification"], ">=", SEEDS),
        Row("ranking: success beyond the task's reward alone", beyond, ">=", 0.0),
        Row("retrieval, 20 % wrong answers: seeds solved", solved["mistaken"], ">", SEEDS / 2),
    ]
    controls = [
        Row("no count term: seeds solved", solved["uncounted"], "<=", SEEDS // 2),
    ]
    figures = {f"{name}_solved": float(one) for name, one in solved.items()}
    figures |= {f"{name}_success": one for name, one in mean.items()}
    figures |= {f"{name}_least": one for name, one in least.items()}
    return rows, controls, figures


def train(job: Job) -> float:
    """Train; the share of fresh episodes that reach the goal."""
    torch.set_num_threads(1)
    variant = VARIANTS[job.variant]
    env = gym.make_vec(
        ENV, num_envs=LANES, counts=variant.counts, query_every=None, capacity=60_000
    )
    rater = LanguageRater(RuleJudge(variant.mistake, job.seed), GOAL)
    learner = Intrinsic(
        sb3_backend("PPO", env, seed=job.seed, **PPO),
        Inline(rater, MODELS[variant.model]),
        variant.model,
        seed=job.seed,
        **variant.settings,
    )
    learner.learn(STEPS)
    returns = evaluate(
        learner,
        ENV,
        episodes=EPISODES,
        seed=EVALUATION_SEED + job.seed,
        deterministic=False,
        counts=variant.counts,
    )
    return float((returns > 0.0).mean())
