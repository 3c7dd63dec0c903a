"""Agents that the claims about training share: one environment, one algorithm, three rewards.

Not a claim itself.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from prefgym_agents.evaluation import RandomPolicy, evaluate
from prefgym_agents.oracle import TrueReward
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.tuned import settings

J, R = TypeVar("J"), TypeVar("R")
EVALUATION_SEED = 1_000_000


@dataclass(frozen=True)
class Job:
    """One training."""

    env: str
    seed: int
    steps: int
    rater: str | None
    """None trains on the true reward."""
    labels: int = 200
    rater_kwargs: dict[str, Any] = field(default_factory=dict)
    learner: dict[str, Any] = field(default_factory=dict)


def train(job: Job) -> float:
    """Train with PPO; the mean true return of 20 fresh episodes."""
    torch.set_num_threads(1)
    asked = {"rater": job.rater, "rater_kwargs": job.rater_kwargs} if job.rater else {}
    env = gym.make_vec(job.env, num_envs=8, query_every=None, budget=job.labels, **asked)
    backend = sb3_backend("PPO", env, seed=job.seed, **settings("PPO", job.env))
    learner = (
        RewardLearning(backend, labels=job.labels, seed=job.seed, **job.learner)
        if job.rater
        else TrueReward(backend)
    )
    learner.learn(job.steps)
    return float(evaluate(learner, job.env, seed=EVALUATION_SEED + job.seed).mean())


def side_by_side(work: Callable[[J], R], jobs: Sequence[J], workers: int = 2) -> list[R]:
    """What a function of a module makes of every job, in ``workers`` processes."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(work, jobs))


def random_return(env_id: str, episodes: int = 100) -> float:
    """Mean true return of random actions."""
    probe = gym.make(env_id)
    policy = RandomPolicy(probe.action_space)
    probe.close()
    returns = evaluate(policy, env_id, episodes=episodes, seed=EVALUATION_SEED)
    return float(np.mean(returns))
