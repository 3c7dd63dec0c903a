"""The same learners on a pendulum and on a language model, without a line or a number changed.

Every entry of ``LEARNERS`` is one class with one set of settings. It trains on every entry of
``TASKS``: a pendulum that a network of Stable-Baselines3's PPO swings up, and a text that a tiny
GPT-2 copies while leaving out a forbidden letter (27 prompts, 341 responses each). Between tasks
differ the environment's id, what it names and knows, the function that makes the backend, and for
how many steps it trains; labels are as many on both.

Learners say whose answers they read. The reward learner and SPO read partial returns. CPL models
regret: on the pendulum from V* on a grid (:mod:`benchmarks.claims.pendulum_values`), on text from
exact tables, where regret orders two responses to one prompt as their returns do. HERON reads a
hierarchy of factors with margins of half a deviation. Factors are the environment's, and so is
their order, which is the one thing that it is told differently: the pendulum's angle, then its
speed, then the torque; of a text what was copied, then the forbidden letters. RLIF learns from
takeovers alone, by somebody who knows how much a step loses and lets others act for four steps who
know less: an expert who is wrong in most of the states (:mod:`benchmarks.claims.rlif_pendulum`), or
the model that training began with. On the pendulum it is off-policy (RLPD), as in its paper. On
text its model takes steps of 2e-4 and those of the others 5e-4: who takes over is wrong in one step
of 20, and at 5e-4 a mistake that was let pass once (its probability .003) was what nearly every
response to that prompt wrote three updates later.

Intrinsic rewards want captions, of which a pendulum has none; they have a claim of their own, on a
grid and on text: :mod:`benchmarks.claims.text_transfer_judged`.

Labels are 4,000 at most, but 20,000 for SPO on both: it keeps no answer, so that each teaches only
once, and with 4,000 of them it closes 0.5 to 0.6 of the gap on text, though 0.9 on the pendulum. It
compares segments, which on text are whole responses, and multiplies win rates by four, so that they
weigh more than the pull to the reference. HERON is given a few hundred labels on text, where soon
hardly a pair is decided.

What is reported is the share of the gap in true return, in fresh episodes, between the policy that
training started from and the best known one. On the pendulum the start is a random action and the
best is greedy in V*; on text, actions are sampled, the start is a model that was pretrained on the
task's demonstrations, in which 3 tokens of 10 are wrong, and the best is the exact optimum. The
learner on the true reward stands beside it as a figure, at the same steps and with the backend's
own algorithm.

Control: a coin answers instead (for HERON the hierarchy, turned round half of the time; for RLIF,
who takes over does so at random), and on
average over the seeds nothing of the gap may be closed (a single seed of it moves at random, by a
fifth of the gap on the pendulum).
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from benchmarks.claims import pendulum_values, rlif_pendulum
from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.training import EVALUATION_SEED, side_by_side
from prefgym.interventions import Random, Supervision, ValueBased
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.direct import DirectPreference
from prefgym_agents.evaluation import Predicts, evaluate
from prefgym_agents.heron import HERON
from prefgym_agents.language import language_backend
from prefgym_agents.language.models import causal_model
from prefgym_agents.language.pretraining import PretrainingConfig, pretrain
from prefgym_agents.learner import Learner
from prefgym_agents.oracle import TrueReward
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.rlif import RLIF
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.spo import SPO
from prefgym_agents.tuned import settings

KEY = "text_transfer"
CLAIM = "What learns from preferences on a control task learns, unchanged, on a language model."

SEEDS = 5
LABELS = 4_000
MORE_LABELS = 20_000
"""For who learns from each label once."""
MARGIN = 0.5
"""Of every level of a hierarchy, in deviations."""
CLOSE = 0.8
"""Share of the gap that every learner closes on every task, in every seed."""
UNTAUGHT = 0.2
"""Share that a coin's answers may close, on average over the seeds."""

TAKEN_OVER = 0.3
"""Share of the steps after which somebody takes over who does so at random."""

Backends = Callable[[Any], PolicyBackend]
"""Makes the backend of an environment; the same starting policy every time."""


@dataclass(frozen=True)
class Entry:
    """One learner with its settings."""

    make: Callable[..., Learner]
    """``(backend, labels=, seed=)``."""
    reads: str | None
    """What its labels mean: the rater that it learns from; None where takeovers teach it."""
    labels: int = LABELS

    def asked(self, factors: str, coin: bool) -> dict[str, Any]:
        """Who answers: arguments of the environment, whose factors are these; or a coin."""
        if self.reads is None:
            return {}
        if self.reads == "heron":
            hierarchy = {"factors": factors, "margins": MARGIN, "mistake": 0.5 if coin else 0.0}
            return {"rater": "heron", "rater_kwargs": hierarchy, "budget": self.labels}
        return {"rater": "random" if coin else self.reads, "budget": self.labels}


LEARNERS = {
    "reward_learning": Entry(
        partial(
            RewardLearning,
            sessions=10,
            ask_until=0.8,
            queries="uniform",
            members=3,
            learning_rate=1e-3,
            epochs=4,
            stop_accuracy=1.0,
            start_steps=200,
        ),
        "partial-return",
    ),
    "direct": Entry(
        partial(DirectPreference, config="cpl", rounds=6, epochs=20, batch_pairs=96, meaning=None),
        "regret",
    ),
    "spo": Entry(
        partial(SPO, compare="segments", queue=50, comparisons=10, scale=4.0, snapshots=0),
        "partial-return",
        MORE_LABELS,
    ),
    "heron": Entry(partial(HERON, sessions=10, ask_until=0.6), "heron"),
    "rlif": Entry(lambda backend, labels, seed: RLIF(backend), None),
}
"""Who learns; a new learner joins by one entry."""


@dataclass(frozen=True)
class Task:
    """One domain."""

    env: str
    factors: str
    """Of the environment, the most important first."""
    backends: Callable[[Any, int], Backends]
    """Given an environment and a seed, prepares the starting policy."""
    best: Callable[[Any, int], float]
    """Return of the best known policy."""
    steps: int
    lanes: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    """Of the environment, wherever it is made."""
    asking: Callable[[], dict[str, Any]] = dict
    """More arguments where somebody is asked."""
    taking_over: Callable[[Any, PolicyBackend, int, bool], Supervision] | None = None
    """``(environment, starting policy, seed, at random)``: who watches, where takeovers teach."""
    corrected: tuple[Callable[[Any, int], Backends], int, int] | None = None
    """Starting policies, lanes and steps where takeovers teach; None: as elsewhere."""
    episodes: int = 100
    deterministic: bool = True
    """How a policy is judged: by its most likely actions, or by sampled ones."""

    def make(self, entry: Entry | None = None, coin: bool = False, **more: Any) -> Any:
        """The environment, with somebody whom a learner asks, or a coin in their place."""
        arguments = {**self.lanes, **self.arguments, **self.asking(), **more}
        asked = {} if entry is None else entry.asked(self.factors, coin)
        return gym.make_vec(self.env, query_every=None, **arguments, **asked)

    def score(self, policy: Predicts, seed: int) -> float:
        """Mean true return of fresh episodes."""
        returns = evaluate(
            policy,
            self.env,
            episodes=self.episodes,
            seed=EVALUATION_SEED + seed,
            deterministic=self.deterministic,
            **self.arguments,
        )
        return float(returns.mean())


def networks(env: Any, seed: int) -> Backends:
    """An untrained network each time; its exploration changes every 16 steps (gSDE)."""
    chosen = {**settings("PPO", PENDULUM), "sde_sample_freq": 16}
    return lambda made: sb3_backend("PPO", made, seed=seed, **chosen)


def language_models(env: Any, seed: int, learning_rate: float = 5e-4) -> Backends:
    """A copy each time of one tiny model, pretrained on the task's demonstrations."""
    model = causal_model(None, env.get_wrapper_attr("layout"), seed=seed)
    demonstrations = env.get_wrapper_attr("task").demonstrations(4_000, np.random.default_rng(seed))
    pretrain(
        model,
        env.get_wrapper_attr("layout"),
        demonstrations,
        PretrainingConfig(epochs=5, seed=seed),
    )
    chosen = {"algorithm": "RLOO", "learning_rate": learning_rate, "kl": 0.1}
    return lambda made: language_backend(made, deepcopy(model), seed=seed, **chosen)


def replaying_networks(env: Any, seed: int) -> Backends:
    """An untrained network each time, whose steps are replayed."""
    return lambda made: rlif_pendulum.off_policy(made, seed)


def on_pendulum(env: Any, start: PolicyBackend, seed: int, at_random: bool) -> Supervision:
    """A bad expert, called by who knows V*."""
    rule = Random(TAKEN_OVER) if at_random else rlif_pendulum.watched()
    return Supervision(rlif_pendulum.BadExpert(seed), rule)


def on_text(env: Any, start: PolicyBackend, seed: int, at_random: bool) -> Supervision:
    """The model that training begins with, called by who knows what tokens lose."""
    known = ValueBased(env.get_wrapper_attr("advantages"), margin=0.02, scale=1.0)
    return Supervision(start, Random(TAKEN_OVER) if at_random else known)


def greedy_in_values(env: Any, seed: int) -> float:
    """The return of the policy that is greedy in V*, in the episodes that judge the others."""
    return TASKS["control"].score(pendulum_values.solved(), seed)


def optimum(env: Any, seed: int) -> float:
    """The largest return there is, exact."""
    return float(env.get_wrapper_attr("task").optimal_return)


def exact_regret() -> dict[str, Any]:
    """Short segments, and who knows the advantages of their steps."""
    return {"segment_steps": 10, "value_source": pendulum_values.solved().advantages}


PENDULUM = "prefgym/Pendulum-v0"
TASKS = {
    "control": Task(
        PENDULUM,
        "-angle2,-speed2,-torque2",
        networks,
        greedy_in_values,
        80_000,
        {"num_envs": 8},
        asking=exact_regret,
        taking_over=on_pendulum,
        corrected=(replaying_networks, rlif_pendulum.LANES, 15_000),
    ),
    "text": Task(
        "prefgym/TextCopy-v0",
        "copied,-forbidden",
        language_models,
        optimum,
        200_000,
        {"num_envs": 64, "samples_per_prompt": 8},
        {"prompts": 27},
        taking_over=on_text,
        corrected=(partial(language_models, learning_rate=2e-4), 64, 200_000),
        episodes=1_000,
        deterministic=False,
    ),
}


@dataclass(frozen=True)
class Job:
    """All trainings on one task with one seed."""

    task: str
    seed: int
    learners: tuple[str, ...]


def run(seed: int, quick: bool) -> ClaimResult:
    """Five seeds of every learner on every task; when quick, one of the direct learner."""
    learners = ("direct",) if quick else tuple(LEARNERS)
    seeds = [SEEDS * seed + k for k in range(1 if quick else SEEDS)]
    jobs = [Job(task, one, learners) for task in reversed(TASKS) for one in seeds]
    told = dict(zip(jobs, map(train, jobs) if quick else side_by_side(train, jobs), strict=True))
    rows, controls, figures = [], [], {"seeds": float(len(seeds))}
    for task in TASKS:
        by_seed = [told[Job(task, one, learners)] for one in seeds]
        for name in by_seed[0]:
            values = np.array([one[name] for one in by_seed])
            figures[f"{task}_{name}"] = float(values.mean())
            if name in LEARNERS:
                figures[f"{task}_{name}_min"] = float(values.min())
                reached = int((values >= CLOSE).sum())
                rows.append(Row(f"{name} on {task}: seeds at 80 %", reached, ">=", len(seeds)))
            elif name.endswith("_coin"):
                figures[f"{task}_{name}_max"] = float(values.max())
                share = float(values.mean())
                controls.append(Row(f"{name} on {task}: mean share", share, "<=", UNTAUGHT))
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def train(job: Job) -> Mapping[str, float]:
    """Shares of the gap by learner, the same with a coin, and where the gap begins and ends."""
    torch.set_num_threads(1)
    task, seed = TASKS[job.task], job.seed
    env = task.make()
    backends = task.backends(env, seed)
    best = task.best(env, seed)
    start = task.score(backends(env), seed)

    def share(learner: Learner, steps: int = task.steps) -> float:
        return (task.score(learner.learn(steps), seed) - start) / (best - start)

    found = {"start": start, "best": best}
    if len(job.learners) == len(LEARNERS):
        found["true_reward"] = share(TrueReward(backends(task.make())))
    for name in job.learners:
        entry = LEARNERS[name]
        for coin in (False, True):
            makes, steps, more = backends, task.steps, {}
            if entry.reads is None:
                makes, steps, more = _watched(task, env, backends, seed, coin)
            learner = entry.make(
                makes(task.make(entry, coin, **more)), labels=entry.labels, seed=seed
            )
            found[name + ("_coin" if coin else "")] = share(learner, steps)
    return found


def _watched(
    task: Task, env: Any, backends: Backends, seed: int, at_random: bool
) -> tuple[Backends, int, dict[str, Any]]:
    """Starting policies, steps and arguments of the environment where takeovers teach."""
    assert task.taking_over is not None
    more = {"supervision": task.taking_over(env, backends(env), seed, at_random)}
    if task.corrected is None:
        return backends, task.steps, more
    makes, lanes, steps = task.corrected
    return makes(env, seed), steps, {**more, "num_envs": lanes}
