"""Where the learners of ``text_transfer`` train: from which policies, and what is best there.

Not a claim itself.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

import prefgym  # noqa: F401
from benchmarks.claims import pendulum_values, rlif_pendulum
from benchmarks.claims.training import EVALUATION_SEED
from prefgym.interventions import Random, Supervision, ValueBased
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.evaluation import Predicts, evaluate
from prefgym_agents.language import language_backend
from prefgym_agents.language.models import causal_model
from prefgym_agents.language.pretraining import PretrainingConfig, pretrain
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.tuned import settings

TAKEN_OVER = 0.3
"""Share of the steps after which somebody takes over who does so at random."""

Backends = Callable[[Any], PolicyBackend]
"""Makes the backend of an environment; the same starting policy every time."""


@dataclass(frozen=True)
class Task:
    """An environment, the policies that training begins with, and what is best there."""

    env: str
    backends: Callable[[Any, int], Backends]
    """Given an environment and a seed, prepares the starting policy."""
    best: Callable[[Any, int], float]
    """Return of the best known policy."""
    steps: int
    lanes: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    """Of the environment, wherever it is made."""
    factors: str = ""
    """Of the environment, the most important first, for who reads a hierarchy of them."""
    goal: str = ""
    """What a judge of the environment's captions is told."""
    asking: Callable[[], dict[str, Any]] = dict
    """More arguments where somebody is asked."""
    taking_over: Callable[[Any, PolicyBackend, int, bool], Supervision] | None = None
    """``(environment, starting policy, seed, at random)``: who watches, where takeovers teach."""
    corrected: tuple[Callable[[Any, int], Backends], int, int] | None = None
    """Starting policies, lanes and steps where takeovers teach; None: as elsewhere."""
    episodes: int = 100
    deterministic: bool = True
    """How a policy is judged: by its most likely actions, or by sampled ones."""

    def make(self, **more: Any) -> Any:
        """The environment, for training; ``more`` says whom a learner asks, for example."""
        arguments = {**self.lanes, **self.arguments, **self.asking(), **more}
        return gym.make_vec(self.env, query_every=None, **arguments)

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
        networks,
        greedy_in_values,
        80_000,
        {"num_envs": 8},
        factors="-angle2,-speed2,-torque2",
        asking=exact_regret,
        taking_over=on_pendulum,
        corrected=(replaying_networks, rlif_pendulum.LANES, 15_000),
    ),
    "text": Task(
        "prefgym/TextCopy-v0",
        language_models,
        optimum,
        200_000,
        {"num_envs": 64, "samples_per_prompt": 8},
        {"prompts": 27},
        factors="copied,-forbidden",
        taking_over=on_text,
        corrected=(partial(language_models, learning_rate=2e-4), 64, 200_000),
        episodes=1_000,
        deterministic=False,
    ),
}
