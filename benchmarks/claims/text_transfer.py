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

Intrinsic rewards want captions, of which a pendulum has none. Their two tasks are a grid and
another text: see :mod:`benchmarks.claims.text_transfer_judged`.

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
own algorithm (not where captions are judged).

Control: a coin answers instead (for HERON the hierarchy, turned round half of the time; for RLIF,
who takes over does so at random; a judge of captions says the opposite of everything), and on
average over the seeds at most a fifth of the gap may be closed: a single seed moves at random, on
the pendulum by a fifth of the gap, and with RLIF by nine tenths.

Quick: one seed of the direct learner, and of a judge's who teaches a model that writes at random.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.claims import text_transfer_judged
from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.text_transfer_tasks import TASKS, Backends, Task
from benchmarks.claims.training import side_by_side
from prefgym_agents.direct import DirectPreference
from prefgym_agents.heron import HERON
from prefgym_agents.learner import Learner
from prefgym_agents.oracle import TrueReward
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.rlif import RLIF
from prefgym_agents.spo import SPO

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
CONTROLS = ("_coin", "_opposite")
"""Who answers instead, after a learner's name."""


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
class Job:
    """All trainings on one task with one seed."""

    task: str
    seed: int
    learners: tuple[str, ...]


def run(seed: int, quick: bool) -> ClaimResult:
    """Five seeds of every learner on every task; when quick, one of the direct and of a judge's."""
    learners = ("direct",) if quick else tuple(LEARNERS)
    seeds = [SEEDS * seed + k for k in range(1 if quick else SEEDS)]
    jobs = [Job(task, one, learners) for task in reversed(TASKS) for one in seeds]
    told = dict(zip(jobs, map(train, jobs) if quick else side_by_side(train, jobs), strict=True))
    found = {task: [told[Job(task, one, learners)] for one in seeds] for task in TASKS}
    found |= text_transfer_judged.trained(seeds, quick)
    rows, controls, figures = [], [], {"seeds": float(len(seeds))}
    for task, by_seed in found.items():
        for name in by_seed[0]:
            values = np.array([one[name] for one in by_seed])
            figures[f"{task}_{name}"] = float(values.mean())
            if name in {*LEARNERS, text_transfer_judged.LEARNER}:
                figures[f"{task}_{name}_min"] = float(values.min())
                reached = int((values >= CLOSE).sum())
                rows.append(Row(f"{name} on {task}: seeds at 80 %", reached, ">=", len(seeds)))
            elif name.endswith(CONTROLS):
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
            made = task.make(**entry.asked(task.factors, coin), **more)
            learner = entry.make(makes(made), labels=entry.labels, seed=seed)
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
