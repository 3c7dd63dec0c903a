"""What a judge says of captions teaches a network and a language model, by one learner.

No claim itself: :mod:`benchmarks.claims.text_transfer` has its rows.

Source: Zheng et al. (2024), "Online intrinsic rewards for decision making agents from large
language model feedback", arXiv:2410.23022 (ONI), of which text is no part.

:class:`~prefgym_agents.intrinsic.Intrinsic` with one set of settings trains on a grid and on text:
a network of Stable-Baselines3's PPO on MiniGrid's DoorKey-5x5, whose steps are told in captions,
and a tiny GPT-2 whose captions are the phrases that its responses finish: things, places and two
polite words (TextPolite, 64 prompts). A rule-based judge is asked of every caption once whether it
helps; what helps earns 1 / N³ the N-th time in an episode, or in a response. The task's own reward
weighs nothing (``extrinsic=0``), so that the judge alone teaches. Between the tasks differ the
environment's id and what it needs to know, the goal that the judge is told, the function that makes
the backend, and for how many steps it trains.

It is the part of claim ``text_transfer`` whose control task is no pendulum: nothing that happens to
a pendulum is told in words, so that a judge of captions has nothing to read there.

What is reported is the share of the gap in true return, in fresh episodes with sampled actions,
between the policy that training started from and the best there can be. On the grid the start is an
untrained network, and the best is taken to be 1, which no episode earns (the goal at step t of at
most 250 earns 1 − 0.9 t / 250), so that the share is a little more than is shown. On text the start
is a model that was pretrained on the task's demonstrations, and the best is the exact optimum.

A phrase does not say to which prompt it was written. The judge can ask for polite words; which
place is the right one, and that a response is brief, it cannot say by any goal. Hence the true
return on text is what people think who want politeness alone: the task's weights of correctness
and length are 0. For them the judge's reward is exact in this sense: a first polite word earns 1
and all of its repetitions together at most ζ(3) − 1 = 0.2, so that any response that the judge
finds best has both words and is truly best. By all three of the task's weights the same models are
among the figures: ``whole`` is their share of that gap, and ``whole_polite`` what it
would be if every response that they began with had become wholly polite and nothing else about it
had changed. The former is less, since nothing but the pull to the reference keeps what the judge
does not speak of.

Control: the judge answers the opposite of everything, and on average over the seeds hardly
anything of the gap may be closed. A coin would be none on the grid: it says once and for all of
each of twelve captions whether that helps, and every second time it says so of reaching the goal.

Quick: text alone, by a model without pretraining and for 16,000 tokens.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.claims.oni import LANES, MOST, PPO
from benchmarks.claims.text_transfer_tasks import Backends, Task, language_models, optimum
from benchmarks.claims.training import side_by_side
from prefgym.annotation import Inline
from prefgym.judges import RuleJudge
from prefgym.raters.language import LanguageRater
from prefgym_agents.intrinsic import Intrinsic
from prefgym_agents.language import language_backend
from prefgym_agents.language.models import causal_model
from prefgym_agents.sb3 import sb3_backend

LEARNER = "intrinsic"
SETTINGS: dict[str, Any] = {"config": "retrieval", "extrinsic": 0.0, "intrinsic": 1.0}
"""Of the learner, on both tasks."""


def networks(env: Any, seed: int) -> Backends:
    """An untrained network each time."""
    return lambda made: sb3_backend("PPO", made, seed=seed, **PPO)


def untrained_models(env: Any, seed: int) -> Backends:
    """A copy each time of one tiny model that writes at random."""
    model = causal_model(None, env.get_wrapper_attr("layout"), seed=seed)
    chosen = {"algorithm": "RLOO", "learning_rate": 1e-3, "kl": 0.1}
    return lambda made: language_backend(made, deepcopy(model), seed=seed, **chosen)


def bound(env: Any, seed: int) -> float:
    """More than any episode of MiniGrid earns."""
    return 1.0


POLITE = Task(
    "prefgym/TextPolite-v0",
    language_models,
    optimum,
    60_000,
    {"num_envs": 64, "samples_per_prompt": 8},
    {"captions": True, "weights": {"correctness": 0.0, "length": 0.0}},
    goal="say gladly and thanks",
    episodes=1_000,
    deterministic=False,
)
WHOLE = replace(POLITE, arguments={"captions": True})
"""The same text by all of its weights."""
TASKS = {
    "grid": Task(
        "prefgym/DoorKey-5x5-v0",
        networks,
        bound,
        100_000,
        {"num_envs": LANES, "capacity": 60_000},
        {"counts": MOST},
        goal="open the door and reach the goal",
        deterministic=False,
    ),
    "polite_text": POLITE,
}
UNTRAINED = {
    "untrained_text": replace(POLITE, backends=untrained_models, steps=16_000, episodes=300)
}
"""Quick."""


@dataclass(frozen=True)
class Job:
    """Both trainings on one task with one seed."""

    task: str
    seed: int


def trained(seeds: Sequence[int], quick: bool) -> dict[str, list[Mapping[str, float]]]:
    """By task what :func:`train` found for every seed."""
    tasks = UNTRAINED if quick else TASKS
    jobs = [Job(task, one) for task in tasks for one in seeds]
    told = dict(zip(jobs, map(train, jobs) if quick else side_by_side(train, jobs), strict=True))
    return {task: [told[Job(task, one)] for one in seeds] for task in tasks}


def train(job: Job) -> Mapping[str, float]:
    """Shares of the gap by what the judge answers, and where the gap begins and ends."""
    torch.set_num_threads(1)
    task, seed = {**TASKS, **UNTRAINED}[job.task], job.seed
    env = task.make()
    backends, best = task.backends(env, seed), task.best(env, seed)
    start = task.score(backends(env), seed)
    found = {"start": start, "best": best}
    for name, mistake in ((LEARNER, 0.0), (f"{LEARNER}_opposite", 1.0)):
        rater = LanguageRater(RuleJudge(mistake, seed), task.goal)
        learner = Intrinsic(backends(task.make()), Inline(rater), seed=seed, **SETTINGS)
        learner.learn(task.steps)
        found[name] = (task.score(learner, seed) - start) / (best - start)
        if task is POLITE and not mistake:
            found |= _by_all_weights(learner, backends, seed, best - start)
    return found


def _by_all_weights(
    learner: Intrinsic, backends: Backends, seed: int, impolite: float
) -> dict[str, float]:
    """The share of the gap in the task's whole reward, and what politeness alone can close."""
    env = WHOLE.make()
    start = WHOLE.score(backends(env), seed)
    gap = WHOLE.best(env, seed) - start
    return {
        "whole": (WHOLE.score(learner, seed) - start) / gap,
        "whole_polite": impolite / gap,
    }
