"""One training whose checkpoints become experts: PPO on the true reward, kept now and then."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import numpy as np
from jaxtyping import Float
from torch import nn

from prefgym import checkpoints
from prefgym.interventions.stored import GradedExpert, load_experts, save_experts
from prefgym.names import lookup
from prefgym.registration import ENVIRONMENTS
from prefgym.segments import Segments
from prefgym.wrappers import PreferenceVectorEnv
from prefgym_agents.evaluation import evaluate
from prefgym_agents.oracle import TrueReward
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.sb3_on_policy import OnPolicySB3
from prefgym_agents.tuned import writes_text

CHECKPOINTS, EPISODES = 40, 5
"""Times at which the policy is measured and kept while it learns, and episodes of each."""
CHOICE_SEED = 3_000_000
"""Of episodes by which something is chosen; no seed of training comes near."""

_PPO: Final[dict[str, Any]] = {
    "lanes": 16,
    "n_steps": 256,
    "batch_size": 128,
    "n_epochs": 10,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
}
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "default": _PPO,
    "prefgym/Pendulum-v0": {
        **_PPO,
        "lanes": 32,
        "n_steps": 64,
        "batch_size": 256,
        "learning_rate": 1e-3,
        "gamma": 0.9,
    },
    "prefgym/Hopper-v0": {**_PPO, "gamma": 0.999, "gae_lambda": 0.99},
}
"""Of PPO, where experts are trained, and how many environments it acts in.

The hopper looks further ahead than others, as in RL Baselines3 Zoo (Raffin 2020): at 0.99 it learns
to stand, and falls forward for a return of 750.
"""


Tell = Callable[[str, float], None]
"""Told what is being done, and which share of it is over."""


@dataclass(frozen=True)
class Acting:
    """An expert for :func:`~prefgym_agents.evaluation.evaluate`."""

    expert: GradedExpert

    def predict(
        self, observation: Any, state: Any, episode_start: Any, deterministic: bool
    ) -> tuple[Any, Any]:
        """Its actions."""
        return self.expert(observation), None


def check(env_id: str, steps: int, hidden: Sequence[int]) -> None:
    """Refuse what no expert can be trained for.

    Raises:
        ValueError: there is no such environment, it has other actions or writes text, or a number
            is out of range.
    """
    lookup(env_id, ENVIRONMENTS, "environment")
    if writes_text(env_id):
        raise ValueError(
            f"{env_id} writes text, and experts of this kind are for continuous actions; a language"
            " model is an expert as it is."
        )
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden={tuple(hidden)}; wanted one or more positive widths.")
    env = _made(env_id, 1)
    space = env.single_action_space
    env.close()
    if not isinstance(space, gym.spaces.Box) or not space.is_bounded():
        raise ValueError(
            f"{env_id} has the actions {space}, and experts of this kind are for continuous ones"
            " with bounds (Box); where there are few states, give an expert as a table of actions"
            " (prefgym.interventions.with_mistakes)."
        )
    asked = _settings(env_id)
    rollout = asked["lanes"] * asked["n_steps"]
    if steps < rollout:
        raise ValueError(f"steps={steps}; wanted at least the {rollout} of one rollout.")


def train_checkpoints(
    env_id: str,
    steps: int,
    *,
    seed: int = 0,
    hidden: Sequence[int] = (64, 64),
    file: Path | None = None,
    tell: Tell = lambda what, share: None,
) -> tuple[GradedExpert, ...]:
    """Train PPO on the true reward and keep its mean policy now and then.

    Source: Schulman et al. (2017), Proximal policy optimization algorithms, arXiv:1707.06347, as
    Stable-Baselines3 has it. The learning rate falls to 0 in a line, and rewards are multiplied by
    1 − γ, so that values have the size of rewards. Equal arguments give equal checkpoints on one
    machine.

    Args:
        env_id: a prefgym id with bounded continuous actions.
        steps: of the environment.
        seed: of everything.
        hidden: widths of the policy.
        file: where the checkpoints are kept; a training that was stopped goes on from there.
        tell: told how far it is.

    Returns:
        Checkpoints; ``about`` has ``steps`` and the ``mean_return`` of a few episodes.

    Raises:
        ValueError: it cannot be trained there, or the file is of another training.
    """
    check(env_id, steps, hidden)
    asked = {"env": env_id, "training_steps": steps, "seed": seed, "hidden": list(hidden)}
    kept = _kept(file, asked)
    if kept and kept[-1].about["steps"] >= steps:
        return tuple(kept)
    env = _made(env_id, _settings(env_id)["lanes"])
    try:
        backend = _backend(env, env_id, seed, hidden)
        kept = _gone_on(backend, file, kept)
        every = steps / CHECKPOINTS
        for done, _ in _ScaledReward(backend).iterations(steps):
            tell(f"training (return {_last(kept):.0f})", min(1.0, done / steps))
            if done < min(_steps(kept) + every, steps):
                continue
            policy = mean_policy(backend)
            found = float(returns_of(policy, env_id, EPISODES, CHOICE_SEED).mean())
            kept.append(replace(policy, about={**asked, "steps": done, "mean_return": found}))
            if file is not None:
                save_experts(file, kept)
                checkpoints.save(_state_of(file), {"steps": done, "state": backend.get_state()})
    finally:
        env.close()
    if file is not None:
        shutil.rmtree(_state_of(file), ignore_errors=True)
    return tuple(kept)


def _backend(
    env: PreferenceVectorEnv, env_id: str, seed: int, hidden: Sequence[int]
) -> OnPolicySB3:
    asked = _settings(env_id)
    rate, _ = (asked.pop(name) for name in ("learning_rate", "lanes"))
    widths = {"log_std_init": -0.5, "activation_fn": nn.ReLU, "net_arch": list(hidden)}
    backend = sb3_backend(
        "PPO",
        env,
        seed=seed,
        normalise_observations=True,
        learning_rate=lambda left: rate * left,
        policy_kwargs=widths,
        **asked,
    )
    assert isinstance(backend, OnPolicySB3)
    return backend


def _kept(file: Path | None, asked: Mapping[str, Any]) -> list[GradedExpert]:
    """The checkpoints that there are.

    Raises:
        ValueError: they are of another training.
    """
    if file is None or not file.exists():
        return []
    kept = list(load_experts(file))
    told = {name: kept[0].about.get(name) for name in asked}
    if told != dict(asked):
        raise ValueError(f"{file} is of another training ({told}); choose another folder.")
    return kept


def _gone_on(
    backend: OnPolicySB3, file: Path | None, kept: list[GradedExpert]
) -> list[GradedExpert]:
    """Put a backend where the training was stopped; the checkpoints until then."""
    if file is None or not _state_of(file).exists():
        return []
    found = checkpoints.load(_state_of(file))
    backend.set_state(found["state"])
    return [one for one in kept if one.about["steps"] <= found["steps"]]


def _state_of(file: Path) -> Path:
    return file.with_suffix(".state")


def _steps(kept: Sequence[GradedExpert]) -> int:
    return int(kept[-1].about["steps"]) if kept else 0


def _last(kept: Sequence[GradedExpert]) -> float:
    return float(kept[-1].about["mean_return"]) if kept else math.nan


def mean_policy(backend: OnPolicySB3) -> GradedExpert:
    """The mean action of PPO's policy as one perceptron, the scale of observations included."""
    policy: Any = backend.model.policy
    linear = [one for one in policy.mlp_extractor.policy_net if isinstance(one, nn.Linear)]
    linear.append(policy.action_net)
    weights = [one.weight.detach().double().numpy().T for one in linear]
    biases = [one.bias.detach().double().numpy() for one in linear]
    running = policy.features_extractor
    factor = 1.0 / np.sqrt(running.variance.double().numpy() + 1e-8)
    biases[0] = biases[0] - (running.mean.double().numpy() * factor) @ weights[0]
    weights[0] = factor[:, None] * weights[0]
    space: Any = backend.env.single_action_space
    low, high = (one.ravel().astype(np.float64) for one in (space.low, space.high))
    weights[-1] = weights[-1] * 2.0 / (high - low)
    biases[-1] = 2.0 * (biases[-1] - low) / (high - low) - 1.0
    observed: Any = backend.env.single_observation_space
    return GradedExpert(
        tuple(one.astype(np.float32) for one in weights),
        tuple(one.astype(np.float32) for one in biases),
        observed,
        space,
        activation="relu",
        bounded="clip",
    )


def returns_of(
    expert: GradedExpert, env_id: str, episodes: int, seed: int
) -> Float[np.ndarray, " episodes"]:
    """True returns of an expert's episodes."""
    return evaluate(Acting(expert), env_id, episodes=episodes, seed=seed)


class _ScaledReward(TrueReward):
    """Rewards times 1 − γ."""

    def step(self, total_timesteps: int) -> dict[str, float] | None:
        """Act, and improve the policy."""
        policy: Any = self.policy
        segments: Segments | None = policy.collect()
        if segments is None:
            return None
        factor = 1.0 - policy.model.gamma
        told: dict[str, float] = policy.update(segments, factor * np.asarray(segments.rewards))
        return told


def _settings(env_id: str) -> dict[str, Any]:
    return dict(SETTINGS.get(env_id, SETTINGS["default"]))


def _made(env_id: str, lanes: int) -> PreferenceVectorEnv:
    env = gym.make_vec(env_id, num_envs=lanes, query_every=None)
    assert isinstance(env, PreferenceVectorEnv)
    return env
