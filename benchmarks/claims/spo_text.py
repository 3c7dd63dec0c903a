"""Self-play by a language model, on drinks that beat each other in a circle; no claim itself.

The task is ``prefgym/TextCycle-v0`` with the default shares: tea beats coffee, coffee juice, juice
tea, and the minimax winner offers them in the proportions .6, .1 and .3. A tiny model that was
trained on nothing learns by RLOO with a pull to where it began, which keeps a policy of a circle
from running to one corner; SPO is the same as on the bandits but for its backend.
"""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from prefgym.metrics import exploitability
from prefgym.segments import Segments
from prefgym_agents.language import language_backend
from prefgym_agents.spo import SPO

ENV, DRINKS = "prefgym/TextCycle-v0", 3
LANES, SAMPLES, TOKENS, SNAPSHOTS = 64, 16, 60_000, 128
BACKEND: dict[str, Any] = {"algorithm": "RLOO", "learning_rate": 1e-3, "kl": 0.05}


class Offered(NamedTuple):
    """What a model came to."""

    average: float
    """Exploitability of the average policy's drinks."""
    last: float
    """The same of the newest policy."""
    best_reward: float
    """The same of the drink with the best Bradley-Terry reward."""
    served: float
    """How often the average policy offers a drink at all."""


def offered(seed: int, form: str) -> Offered:
    """Self-play "queue" or "group"."""
    env: Any = gym.make_vec(ENV, num_envs=LANES, samples_per_prompt=SAMPLES)
    matrix = np.asarray(env.get_wrapper_attr("preference_matrix"))[-DRINKS:, -DRINKS:]
    settings = {
        "opponents": form,
        "answers": "exact",
        "queue": SAMPLES,
        "comparisons": SAMPLES // 2,
    }
    learner = SPO(
        language_backend(env, seed=seed, **BACKEND), snapshots=SNAPSHOTS, seed=seed, **settings
    )
    learner.learn(TOKENS)
    last = chances(learner, env)
    mixtures = []
    for one in learner.reservoir.kept:
        learner.policy.load_snapshot(one)
        mixtures.append(chances(learner, env))
    average = np.mean(mixtures, 0)
    best = np.eye(DRINKS)[int(np.argmax(matrix.mean(1)))]
    known = [exploitability(matrix, one / one.sum()) for one in (average, last, best)]
    return Offered(*known, served=float(average.sum()))


def chances(learner: SPO, env: Any) -> np.ndarray:
    """Probability that the first token is each of the drinks, mean over the prompts."""
    task, layout = env.get_wrapper_attr("task"), env.get_wrapper_attr("layout")
    prompts = len(task.prompts)
    drinks = np.tile(np.arange(layout.codec.size - DRINKS, layout.codec.size), prompts)
    rows = np.repeat(np.arange(prompts), DRINKS)
    first = np.arange(layout.response_tokens) == 0
    segments = Segments(
        actions=np.where(first, drinks[:, None], 0),
        mask=np.tile(first, (len(rows), 1)),
        context=task.prompts[rows],
        context_id=rows,
    )
    with torch.no_grad():
        known = learner.policy.log_prob(segments)[:, 0].double().exp().numpy()
    shares: np.ndarray = known.reshape(prompts, DRINKS).mean(0)
    return shares
