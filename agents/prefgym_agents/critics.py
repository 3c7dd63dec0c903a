"""Trained critics: the value of actions where no table can hold it, learned on the true reward.

What comes out is a value source (:class:`prefgym.values.Critic`) for raters of regret.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
from rich.progress import Progress
from torch import nn

import prefgym
from prefgym.names import lookup
from prefgym.registration import ENVIRONMENTS
from prefgym.values import Critic
from prefgym.wrappers import PreferenceVectorEnv
from prefgym_agents.evaluation import evaluate
from prefgym_agents.oracle import TrueReward
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.sb3_off_policy import OffPolicySB3
from prefgym_agents.tuned import settings, writes_text

EVALUATIONS = 10
"""Times at which the policy is measured while it learns; of the later half, the best is kept."""
EPISODES = 10
"""Of each of these measurements."""
FINAL_EPISODES = 20
"""Of the return that the critic is said to have: fresh ones, after the choice."""
CHOICE_SEED, FINAL_SEED = 3_000_000, 4_000_000
"""Of the episodes above; no seed of training comes near."""


def train_critic(
    env_id: str,
    *,
    steps: int = 100_000,
    seed: int = 0,
    hidden: Sequence[int] = (64, 64),
    progress_bar: bool = False,
    **arguments: Any,
) -> Critic:
    """Train SAC on the true reward and keep its critics and the mean of its policy.

    Source: Haarnoja et al. (2018), Soft actor-critic algorithms and applications, arXiv:1812.05905,
    as Stable-Baselines3 has it. Equal arguments give equal critics on one machine.

    Args:
        env_id: a prefgym id with bounded continuous actions.
        steps: of the environment.
        seed: of everything.
        hidden: widths of all networks; small ones make small files.
        progress_bar: show one.
        **arguments: of SAC, over those in :mod:`prefgym_agents.tuned`.

    Returns:
        The critic; ``about`` names how it was made, and as ``mean_return`` the true return of its
        policy (mean action) over fresh episodes.

    Raises:
        ValueError: there is no such environment, it has other actions or writes text, or a number
            is too small.
    """
    env = _checked(env_id, steps, hidden)
    asked = {**settings("SAC", env_id), "policy_kwargs": {"net_arch": list(hidden)}, **arguments}
    backend = sb3_backend("SAC", env, seed=seed, **asked)
    assert isinstance(backend, OffPolicySB3)
    try:
        best = _best(backend, env_id, steps, progress_bar)
    finally:
        env.close()
    backend.load_snapshot(best)
    returns = evaluate(backend, env_id, episodes=FINAL_EPISODES, seed=FINAL_SEED)
    return replace(
        extracted(backend.model),
        about={
            "env": env_id,
            "algorithm": "SAC",
            "steps": steps,
            "seed": seed,
            "hidden": list(hidden),
            "learning_rate": float(backend.model.lr_schedule(1.0)),
            "discount": float(backend.model.gamma),
            "mean_return": round(float(returns.mean()), 1),
            "return_std": round(float(returns.std()), 1),
            "episodes": FINAL_EPISODES,
            "prefgym": prefgym.__version__,
        },
    )


def extracted(model: Any) -> Critic:
    """The value source in an SAC model of Stable-Baselines3, copied."""
    actor = model.actor
    space = model.action_space
    mean = nn.Sequential(*actor.latent_pi, actor.mu)
    return Critic.from_modules(list(model.critic.q_networks), mean, space.low, space.high)


def _checked(env_id: str, steps: int, hidden: Sequence[int]) -> PreferenceVectorEnv:
    """The environment to train in, with nobody asked.

    Raises:
        ValueError: SAC cannot be trained there, or not with these numbers.
    """
    lookup(env_id, ENVIRONMENTS, "environment")
    if writes_text(env_id):
        raise ValueError(
            f"{env_id} writes text, and a critic is for continuous actions; text tasks with few"
            " prompts solve themselves, so that rater='regret' needs no critic there."
        )
    if steps < EVALUATIONS:
        raise ValueError(f"steps={steps}; wanted at least {EVALUATIONS}.")
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden={tuple(hidden)}; wanted one or more positive widths.")
    env = gym.make_vec(env_id, num_envs=1, query_every=None)
    assert isinstance(env, PreferenceVectorEnv)
    space = env.single_action_space
    if not isinstance(space, gym.spaces.Box):
        env.close()
        raise ValueError(
            f"{env_id} has the actions {space}, and a critic of this kind is for continuous ones"
            " (Box); tabular environments solve themselves, so that rater='regret' needs no critic"
            " there."
        )
    return env


def _best(backend: OffPolicySB3, env_id: str, steps: int, progress_bar: bool) -> dict[str, Any]:
    """Train, and return the parameters of the best of the later measurements."""
    best, parameters = float("-inf"), backend.snapshot()
    every, due = steps / EVALUATIONS, steps / EVALUATIONS
    with Progress(disable=not progress_bar) as bar:
        task = bar.add_task("training SAC on the true reward", total=steps)
        for done, _ in TrueReward(backend).iterations(steps):
            bar.update(task, completed=min(done, steps))
            if done < due:
                continue
            due += every
            found = float(evaluate(backend, env_id, episodes=EPISODES, seed=CHOICE_SEED).mean())
            bar.update(task, description=f"training SAC (return {found:.0f})")
            if 2 * done >= steps and found >= best:
                best, parameters = found, backend.snapshot()
    return parameters
