"""HERON by a language model, on answers that shall be right, polite and brief; no claim itself.

The task is ``prefgym/TextPolite-v0`` with 8 prompts, few enough for a tiny model to learn where
things are. It is pretrained on demonstrations, which are wordy, a quarter polite and half right,
and learns by RLOO for 60,000 tokens, with a hierarchy of the environment's three factors and 4,000
decided comparisons at most.
"""

from copy import deepcopy
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from transformers import PreTrainedModel

import prefgym  # noqa: F401
from benchmarks.claims.training import EVALUATION_SEED
from prefgym_agents.evaluation import Predicts, evaluate
from prefgym_agents.heron import HERON
from prefgym_agents.language import language_backend
from prefgym_agents.language.models import causal_model
from prefgym_agents.language.pretraining import PretrainingConfig, pretrain
from prefgym_agents.oracle import TrueReward

ENV, PROMPTS = "prefgym/TextPolite-v0", 8
ORDER, REVERSED = "correctness,politeness,-length", "-length,politeness,correctness"
MARGIN = 0.5
LABELS, TOKENS, EPISODES = 4_000, 60_000, 1_000
PULL, PULL_OF_TRUTH = 0.1, 0.01
"""To the start, per nat. A learned reward has deviation 1, and the true one less: of 0.1, 0.03 and
0.01 the agent of the true reward does best with the last."""


class Answered(NamedTuple):
    """What agents earn per response: the true return."""

    heron: float
    true_reward: float
    coin: float
    """HERON, the hierarchy turned round half of the time."""
    reversed: float
    """HERON, the least important factor first."""
    start: float
    best: float
    """The exact optimum."""


def answered(seed: int, controls: bool) -> Answered:
    """HERON and the true reward from one start; NaN for the controls where they are left out."""
    env = asked(ORDER)
    start = pretrained(env, seed)

    def taught(order: str = ORDER, mistake: float = 0.0) -> float:
        policy = language_backend(
            asked(order, mistake), deepcopy(start), seed=seed, **settings(PULL)
        )
        return earned(HERON(policy, labels=LABELS, seed=seed).learn(TOKENS), seed)

    told = language_backend(env, deepcopy(start), seed=seed, **settings(PULL_OF_TRUTH))
    return Answered(
        heron=taught(),
        start=earned(told, seed),
        true_reward=earned(TrueReward(told).learn(TOKENS), seed),
        coin=taught(mistake=0.5) if controls else np.nan,
        reversed=taught(REVERSED) if controls else np.nan,
        best=float(env.get_wrapper_attr("task").optimal_return),
    )


def asked(order: str, mistake: float = 0.0) -> Any:
    """The environment, with a hierarchy to ask that is turned round at times."""
    hierarchy = {"factors": order, "margins": MARGIN, "mistake": mistake}
    return gym.make_vec(
        ENV,
        num_envs=64,
        samples_per_prompt=8,
        prompts=PROMPTS,
        rater="heron",
        rater_kwargs=hierarchy,
        query_every=None,
    )


def settings(pull: float) -> dict[str, Any]:
    """Of the backend."""
    return {"algorithm": "RLOO", "learning_rate": 1e-3, "kl": pull}


def pretrained(env: Any, seed: int) -> PreTrainedModel:
    """A tiny model that answers as demonstrators do."""
    layout, task = env.get_wrapper_attr("layout"), env.get_wrapper_attr("task")
    model: PreTrainedModel = causal_model(None, layout, seed=seed)
    demonstrations = task.demonstrations(4_000, np.random.default_rng(seed))
    pretrain(model, layout, demonstrations, PretrainingConfig(epochs=5, seed=seed))
    return model


def earned(policy: Predicts, seed: int) -> float:
    """Mean true return of fresh responses, sampled."""
    returns = evaluate(
        policy,
        ENV,
        episodes=EPISODES,
        seed=EVALUATION_SEED + seed,
        deterministic=False,
        prompts=PROMPTS,
    )
    return float(returns.mean())
