"""A policy straight from preferences over segments: by regret it learns, by return it is misled.

Source: Hejna et al. (2023), "Contrastive preference learning: learning from human feedback without
RL", arXiv:2310.13639; labels as in Knox et al. (2022), arXiv:2206.02231.

The same learner, the preset ``cpl`` (α = 0.1, λ = 0.5), and the same MLP policies of PPO, never
improved by PPO itself. On the delivery gridworld: 3,000 labels about segments of 3 steps of the
starting policy; regret from the exact table; the exact return of the policy that results, where 0
is random and 1 optimal. On Pendulum: 2,000 labels about segments of 10 steps in four rounds; regret
from V* on a grid (:mod:`benchmarks.claims.pendulum_values`); the share of the gap between random
actions and the policy that is greedy in V*, in 20 fresh episodes.

A partial return says where a segment happened to be, and CPL takes it for what the actions were
worth. Controls: with V*(end) − V*(start) added, labels by return teach again (on either task: what
misled was the missing value, nothing else); a coin's labels teach nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from benchmarks.claims import pendulum_values
from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.training import EVALUATION_SEED, random_return, side_by_side
from prefgym.raters.scores import partial_return
from prefgym.raters.scripted import ScriptedRater
from prefgym.segments import Segments
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.direct import DirectPreference
from prefgym_agents.evaluation import evaluate
from prefgym_agents.sb3 import sb3_backend
from prefgym_envs import delivery

KEY = "cpl"
CLAIM = (
    "Optimal policies can be learned directly from regret-based preferences over segments, without "
    "a reward and without reinforcement learning; preferences by partial return mislead."
)
SEEDS = 5
TAUGHT, MISLED, UNTAUGHT = 0.8, 0.3, 0.2
"""Shares of the gap between random and best: reached by regret; not by return; of a coin, mean."""
ANSWERS = ("regret", "partial-return", "corrected", "random")
DELIVERY, PENDULUM = "prefgym/Delivery-v0", "prefgym/Pendulum-v0"


@dataclass(frozen=True)
class Job:
    """One training."""

    env: str
    answers: str
    """One of ``ANSWERS``; "corrected" adds V*(end) − V*(start) to the partial return."""
    seed: int


def run(seed: int, quick: bool) -> ClaimResult:
    """Both tasks; when quick, one seed of the gridworld, without the corrected answers."""
    torch.set_num_threads(1)
    seeds = [SEEDS * seed + k for k in range(1 if quick else SEEDS)]
    envs = (DELIVERY,) if quick else (DELIVERY, PENDULUM)
    kinds = [one for one in ANSWERS if not quick or one != "corrected"]
    jobs = [Job(env, answers, one) for env in envs for answers in kinds for one in seeds]
    scores = list(map(train, jobs)) if quick else side_by_side(train, jobs)
    table = np.array(scores).reshape(len(envs), len(kinds), len(seeds))
    rows, controls, figures = [], [], {}
    least = max(1, len(seeds) - 1)
    for env, by_answers in zip(envs, table, strict=True):
        name = env.split("/")[1].split("-")[0]
        shares = dict(zip(kinds, by_answers, strict=True))
        taught = {one: int((shares[one] >= TAUGHT).sum()) for one in kinds}
        misled = int((shares["partial-return"] > MISLED).sum())
        rows.append(Row(f"{name}: seeds taught by regret", taught["regret"], ">=", least))
        rows.append(Row(f"{name}: seeds taught by return", misled, "<=", 0))
        if "corrected" in taught:
            with_change = f"{name}: seeds taught by return with the value's change"
            controls.append(Row(with_change, taught["corrected"], ">=", least))
        coin = float(shares["random"].mean())
        controls.append(Row(f"{name}: share of the gap by a coin", coin, "<=", UNTAUGHT))
        figures |= {f"{name}_{one}": float(each.mean()) for one, each in shares.items()}
        figures |= {f"{name}_regret_min": float(shares["regret"].min())}
        figures |= {f"{name}_partial-return_max": float(shares["partial-return"].max())}
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def train(job: Job) -> float:
    """The share of the gap between random and best that CPL closes."""
    torch.set_num_threads(1)
    return gridworld(job) if job.env == DELIVERY else pendulum(job)


def gridworld(job: Job) -> float:
    """Scaled return of the learned policy, exact."""
    task = delivery.task()
    asked = _asked(job.answers, _value_change)
    env = gym.make_vec(DELIVERY, num_envs=16, **asked)
    policy = sb3_backend("PPO", env, seed=job.seed, n_steps=64, learning_rate=1e-3)
    _learn(policy, job, 20_480, labels=3_000, epochs=30)
    states, actions = task.mdps.states, task.mdps.actions
    state, action = np.divmod(np.arange(states * actions), actions)
    seen = task.observations[state]
    every = Segments(
        actions=action[:, None],
        mask=np.ones((len(action), 1), np.bool_),
        context=seen,
        context_id=state,
        observations=seen[:, None],
    )
    with torch.no_grad():
        chance = policy.log_prob(every).double().exp().numpy().reshape(states, actions)
    return task.scaled_return(chance / chance.sum(1, keepdims=True))


def pendulum(job: Job) -> float:
    """Share of the gap in the mean return of 20 fresh episodes."""
    values = pendulum_values.solved()
    asked = _asked(job.answers, values.change)
    env = gym.make_vec(
        PENDULUM, num_envs=8, segment_steps=10, value_source=values.advantages, **asked
    )
    policy = sb3_backend(
        "PPO",
        env,
        seed=job.seed,
        n_steps=256,
        learning_rate=1e-3,
        use_sde=True,
        sde_sample_freq=16,
    )
    learner = _learn(policy, job, 40_960, labels=2_000, epochs=30, rounds=4)
    own, best = (
        float(evaluate(one, PENDULUM, seed=EVALUATION_SEED + job.seed).mean())
        for one in (learner, values)
    )
    floor = random_return(PENDULUM)
    return (own - floor) / (best - floor)


def _asked(answers: str, change: Callable[[Segments], np.ndarray]) -> dict[str, Any]:
    """Arguments of the environment that say who answers."""
    if answers != "corrected":
        return {"rater": answers, "query_every": None}
    score = lambda segments: partial_return(segments) + change(segments)  # noqa: E731
    return {"rater": ScriptedRater(score, "partial-return"), "query_every": None}


def _learn(policy: PolicyBackend, job: Job, steps: int, **settings: Any) -> DirectPreference:
    """CPL; only labels by regret are taken without being told to."""
    if job.answers != "regret":
        settings["meaning"] = None
    learner = DirectPreference(policy, "cpl", batch_pairs=96, seed=job.seed, **settings)
    learner.learn(steps)
    return learner


def _value_change(segments: Segments) -> np.ndarray:
    """V*(where each segment ends) − V*(where it begins) on the delivery board."""
    task = delivery.task()
    value = task.values.v[0]
    last = segments.lengths - 1
    row = np.arange(len(segments))
    assert segments.observations is not None
    state, action = segments.observations[row, last], segments.actions[row, last]
    end = task.mdps.next_state[0, state, action, 0]
    return np.asarray(value[end] - value[segments.context])
