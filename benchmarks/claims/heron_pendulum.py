"""Pendulum by a hierarchy of factors, without deep reinforcement learning.

Not a claim itself. A reward is learned from comparisons of single steps of random play, then
planned with: dynamic programming on a grid of 61 angles, 61 speeds and 9 torques. What remains is
the reward's own quality. A minute's work in seconds, and the same for equal seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import prefgym  # noqa: F401
from benchmarks.claims.pendulum_values import DISCOUNT, FASTEST, STRONGEST, moved, seen
from prefgym.comparisons import Comparisons
from prefgym.models.combined_features import feature_reward_model, with_factors
from prefgym.models.fit import adam, fit
from prefgym.raters import make_rater
from prefgym.segments import Segments
from prefgym_agents.evaluation import evaluate
from prefgym_agents.heron import HERON
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.tuned import settings

ENV = "prefgym/Pendulum-v0"
NAMES = ("angle2", "speed2", "torque2")
ORDER, REVERSED = "-angle2,-speed2,-torque2", "-torque2,-speed2,-angle2"
SIDE, TORQUES, SWEEPS = 61, 9, 700
LANES, EPISODE = 20, 200
EPISODES, EVALUATION_SEED = 100, 1_000_000
SPACES = (
    spaces.Box(np.float32([-1, -1, -8]), np.float32([1, 1, 8])),
    spaces.Box(-2.0, 2.0, (1,), np.float32),
)

Reward = Callable[[Segments], np.ndarray]
"""``[B, 1]`` of single steps."""


def random_pairs(pairs: int, seed: int) -> tuple[Segments, Segments]:
    """Pairs of single steps of random play, with their factors."""
    env = gym.make_vec(ENV, num_envs=LANES, rater="random", query_every=None, segment_steps=1)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    for _ in range(5 * EPISODE):
        env.step(env.action_space.sample())
    found: tuple[Segments, Segments] = env.sample_pairs(pairs, np.random.default_rng(seed))  # type: ignore[attr-defined]
    env.close()
    return found


def rescaled(segments: Segments, scales: Sequence[float]) -> Segments:
    """The same steps, the factors measured in other units."""
    units = dict(zip(NAMES, scales, strict=True))
    return segments.replace(factors={k: segments.factors[k] * by for k, by in units.items()})


class Judged(NamedTuple):
    """What a hierarchy said of pairs."""

    answers: Comparisons
    """Where a factor decided."""
    label: np.ndarray
    """``[B]``: P(a ≻ b), ½ where none did."""
    shares: Mapping[str, float]
    """Of the pairs, by who decided."""


def judged(a: Segments, b: Segments, order: str, margin: float) -> Judged:
    """The pairs as a hierarchy judges them."""
    rater = make_rater("heron", factors=order, margins=margin, deviation="batch")
    said = rater(a, b, np.random.default_rng(0))
    kept = np.flatnonzero(said.answered)
    answers = Comparisons(a.take(kept), b.take(kept), said.label[kept], meaning=rater.meaning)
    return Judged(answers, said.label, rater.shares_decided(a, b))  # type: ignore[attr-defined]


def learned(
    answers: Comparisons, scales: Sequence[float], seed: int, epochs: int, hidden: tuple[int, ...]
) -> Reward:
    """The reward of HERON: a network over observation, action and factors, fitted to answers."""
    model = feature_reward_model(with_factors(NAMES, *SPACES), 1, hidden, seed=seed)
    model.normalise(answers.a)
    model.normalise(answers.b)
    fit(
        model,
        answers,
        adam(model, 1e-3),
        np.random.default_rng(seed),
        epochs=epochs,
        batch_pairs=128,
        stop_accuracy=1.0,
    )
    return lambda steps: model.rewards(rescaled(steps, scales)).numpy()


def weighted(weights: Sequence[float]) -> Reward:
    """−Σ weight · factor, as somebody might write it."""
    return lambda steps: (
        -sum(weight * steps.factors[name] for name, weight in zip(NAMES, weights, strict=True))
    )


@dataclass(frozen=True, eq=False)
class Grid:
    """All states and torques of the grid, and where they lead."""

    steps: Segments
    """Every state with every torque, a step each, in the order angle, speed, torque."""
    corner: np.ndarray
    """``[4, states, torques]``: the states around the one that is reached."""
    weight: np.ndarray
    """``[4, states, torques]``: how near each of them is."""


@cache
def grid() -> Grid:
    """Everything about the grid that no reward changes."""
    angle, speed, torque = (
        one.ravel()
        for one in np.meshgrid(
            np.linspace(-np.pi, np.pi, SIDE),
            np.linspace(-FASTEST, FASTEST, SIDE),
            np.linspace(-STRONGEST, STRONGEST, TORQUES),
            indexing="ij",
        )
    )
    observations = np.stack([np.cos(angle), np.sin(angle), speed], 1).astype(np.float32)
    factors = dict(zip(NAMES, (angle**2, speed**2, torque**2), strict=True))
    steps = Segments(
        actions=torque[:, None, None].astype(np.float32),
        mask=np.ones((len(angle), 1), bool),
        context=observations,
        context_id=np.arange(len(angle)),
        observations=observations[:, None],
        factors={name: one[:, None] for name, one in factors.items()},
    )
    corner, weight = _around(*moved(angle, speed, torque))
    shape = (4, SIDE * SIDE, TORQUES)
    return Grid(steps, corner.reshape(shape), weight.reshape(shape))


def _around(angle: np.ndarray, speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and weights ``[4, n]`` of the states around some, for bilinear interpolation."""
    x = np.mod(angle + np.pi, 2.0 * np.pi) / (2.0 * np.pi) * (SIDE - 1)
    y = (speed + FASTEST) / (2.0 * FASTEST) * (SIDE - 1)
    i, j = (np.clip(at.astype(np.int64), 0, SIDE - 2) for at in (x, y))
    right, up = x - i, y - j
    corners = [(i + k) * SIDE + j + m for k in (0, 1) for m in (0, 1)]
    weights = [(right if k else 1 - right) * (up if m else 1 - up) for k in (0, 1) for m in (0, 1)]
    return np.stack(corners), np.stack(weights)


class Planner:
    """Acts greedily in the values of a reward, which are exact on the grid."""

    def __init__(self, reward: Reward) -> None:
        whole = grid()
        paid = np.asarray(reward(whole.steps), np.float64).reshape(SIDE * SIDE, TORQUES)
        paid = (paid - paid.mean()) / paid.std()
        value = np.zeros(SIDE * SIDE)
        for _ in range(SWEEPS):
            worth = paid + DISCOUNT * (whole.weight * value[whole.corner]).sum(0)
            value = worth.max(1)
        self.worth = worth

    def predict(
        self,
        observation: np.ndarray,
        state: object = None,
        episode_start: object = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """The best torque of the nine in every state, as Stable-Baselines3's models do."""
        corner, weight = _around(*seen(np.asarray(observation)))
        best = (weight[:, :, None] * self.worth[corner]).sum(0).argmax(1)
        torque = np.linspace(-STRONGEST, STRONGEST, TORQUES)[best]
        return torque[:, None].astype(np.float32), None


def true_return(reward: Reward, episodes: int = EPISODES) -> float:
    """What planning with a reward earns of the true one, per episode of 200 steps."""
    returns = evaluate(Planner(reward), ENV, episodes=episodes, seed=EVALUATION_SEED)
    return float(returns.mean())


def trained_return(steps: int, seed: int) -> float:
    """True return of the learner: SAC in turns with the reward, no grid and no model."""
    env = gym.make_vec(
        ENV, num_envs=4, rater="heron", rater_kwargs={"factors": ORDER, "margins": 0.5},
        segment_steps=1, query_every=None,
    )  # fmt: skip
    arguments = {**settings("SAC", ENV), "policy_kwargs": {"net_arch": [64, 64]}}
    learner = HERON(sb3_backend("SAC", env, seed=seed, **arguments), seed=seed)
    learner.learn(steps)
    returns = evaluate(learner, ENV, episodes=EPISODES, seed=EVALUATION_SEED)
    return float(returns.mean())
