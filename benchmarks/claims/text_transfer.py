"""The same learners on a gridworld and on a language model, without a line or a number changed.

Every entry of ``LEARNERS`` is one class with one set of settings. It trains on every entry of
``TASKS``: a board on which a network of Stable-Baselines3's PPO walks, and a text that a tiny GPT-2
copies while leaving out a forbidden letter (27 prompts, 341 responses each). Tasks differ by the
environment's id and by the function that makes the backend; steps, labels and raters are the same.
Who answers is "regret", read from exact values on both; of responses to one prompt that is the
order of their returns.

What is reported is the share of the gap in true return, of *sampled* actions in fresh episodes,
between the policy that training started from and the exact optimum of the task. On the board the
start is an untrained network, which acts nearly at random; on text, a model that was pretrained on
the task's demonstrations, in which 3 tokens of 10 are wrong. The learner on the true reward stands
beside it as a figure, at the same steps and with the backend's own algorithm.

Control: a coin answers instead, and nothing of the gap may be closed.

The board is ``RandomMDP``, 6 × 5 cells. On the larger board of ``Delivery`` reward learning does
not get there from 500 to 4,000 labels (the direct learner does: see ``cpl``), and on Pendulum,
where it needs 200, regret has no exact values (see ``reward_learning`` and ``cpl``).
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.training import EVALUATION_SEED
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.direct import DirectPreference
from prefgym_agents.evaluation import Predicts, evaluate
from prefgym_agents.language import language_backend
from prefgym_agents.language.models import causal_model
from prefgym_agents.language.pretraining import PretrainingConfig, pretrain
from prefgym_agents.learner import Learner
from prefgym_agents.oracle import TrueReward
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.tuned import settings

KEY = "text_transfer"
CLAIM = "What learns from preferences on a control task learns, unchanged, on a language model."

SEEDS = 5
STEPS, LABELS = 40_000, 2_000
QUICK = 5
"""By how much less of both the quick part makes do."""
EPISODES = 1_000
CLOSE = 0.8
"""Share of the gap that every learner closes on every task."""
UNTAUGHT = 0.2
"""Share that a coin's answers may close, in any seed."""

Backends = Callable[[Any], PolicyBackend]
"""Makes the backend of an environment; the same starting policy every time."""
LEARNERS: dict[str, Callable[..., Learner]] = {
    "reward_learning": partial(
        RewardLearning,
        sessions=10,
        ask_until=0.8,
        queries="uniform",
        members=1,
        learning_rate=1e-3,
        epochs=4,
        stop_accuracy=1.0,
        start_steps=200,
    ),
    "direct": partial(DirectPreference, config="dpo", rounds=10, epochs=10, batch_pairs=64),
}
"""Who learns, ``(backend, labels=, seed=)``; a new learner joins by one line."""


@dataclass(frozen=True)
class Task:
    """One domain."""

    env: str
    backends: Callable[[Any, int], Backends]
    """Given an environment and a seed, prepares the starting policy."""
    lanes: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    """Of the environment, wherever it is made."""

    def make(self, rater: str) -> Any:
        """The environment, with somebody to ask."""
        return gym.make_vec(
            self.env, rater=rater, query_every=None, budget=LABELS, **self.lanes, **self.arguments
        )

    def score(self, policy: Predicts, seed: int) -> float:
        """Mean true return of fresh episodes, actions sampled."""
        returns = evaluate(
            policy,
            self.env,
            episodes=EPISODES,
            seed=EVALUATION_SEED + seed,
            deterministic=False,
            **self.arguments,
        )
        return float(returns.mean())


def networks(env: Any, seed: int) -> Backends:
    """An untrained network each time."""
    return lambda made: sb3_backend("PPO", made, seed=seed, **settings("PPO", "default"))


def language_models(env: Any, seed: int) -> Backends:
    """A copy each time of one tiny model, pretrained on the task's demonstrations."""
    model = causal_model(None, env.get_wrapper_attr("layout"), seed=seed)
    demonstrations = env.get_wrapper_attr("task").demonstrations(4_000, np.random.default_rng(seed))
    pretrain(
        model,
        env.get_wrapper_attr("layout"),
        demonstrations,
        PretrainingConfig(epochs=5, seed=seed),
    )
    return lambda made: language_backend(
        made, deepcopy(model), seed=seed, learning_rate=5e-4, kl=0.05
    )


TASKS = {
    "control": Task("prefgym/RandomMDP-v0", networks, {"num_envs": 8}),
    "text": Task(
        "prefgym/TextCopy-v0",
        language_models,
        {"num_envs": 64, "samples_per_prompt": 8},
        {"prompts": 27},
    ),
}


@dataclass(frozen=True)
class Job:
    """All trainings on one task with one seed."""

    task: str
    seed: int
    learners: tuple[str, ...]
    less: int = 1
    """Divides steps and labels."""


def run(seed: int, quick: bool) -> ClaimResult:
    """Five seeds of every learner on every task; when quick, one of the direct learner."""
    learners = ("direct",) if quick else tuple(LEARNERS)
    seeds = [SEEDS * seed + k for k in range(1 if quick else SEEDS)]
    less = QUICK if quick else 1
    jobs = [Job(task, one, learners, less) for task in TASKS for one in seeds]
    told = [train(one) for one in jobs] if quick else train_all(jobs)
    rows, controls, figures = [], [], {"seeds": float(len(seeds))}
    for at, task in enumerate(TASKS):
        by_seed = told[at * len(seeds) : (at + 1) * len(seeds)]
        for name in by_seed[0]:
            values = np.array([one[name] for one in by_seed])
            figures[f"{task}_{name}"] = float(values.mean())
            if name in LEARNERS:
                figures[f"{task}_{name}_min"] = float(values.min())
                reached = int((values >= CLOSE).sum())
                rows.append(Row(f"{name} on {task}: seeds at 80 %", reached, ">=", len(seeds)))
            elif name.endswith("_coin"):
                highest = float(values.max())
                controls.append(Row(f"{name} on {task}: largest share", highest, "<=", UNTAUGHT))
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def train_all(jobs: list[Job], workers: int = 2) -> list[Mapping[str, float]]:
    """Every job in a process of its own, ``workers`` at a time."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(train, jobs))


def train(job: Job) -> Mapping[str, float]:
    """Shares of the gap by learner, the same with a coin, and where the gap begins and ends."""
    torch.set_num_threads(1)
    task, seed = TASKS[job.task], job.seed
    env = task.make("regret")
    backends = task.backends(env, seed)
    best = float(env.get_wrapper_attr("task").optimal_return)
    start = task.score(backends(env), seed)

    def share(learner: Learner) -> float:
        return (task.score(learner.learn(STEPS // job.less), seed) - start) / (best - start)

    found = {"start": start, "best": best}
    if len(job.learners) == len(LEARNERS):
        found["true_reward"] = share(TrueReward(backends(task.make("regret"))))
    for name in job.learners:
        make = LEARNERS[name]
        for rater, suffix in (("regret", ""), ("random", "_coin")):
            backend = backends(task.make(rater))
            found[name + suffix] = share(make(backend, labels=LABELS // job.less, seed=seed))
    return found
