"""One policy that serves people by what their answers tell, also those whom training never met.

A part of the claim ``pal``; no claim itself.

Everybody wants the first joint of ``prefgym/Reacher-v0`` to point in a direction of their own,
drawn anywhere on the circle, and answers P(a ≻ b) = σ(5 · gap), where gap is by how much nearer to
it the joint was in a, summed over ten steps. While a policy trains, 30 people answer 64 questions
each in three portions; PAL tells them apart by three prototypes, and the policy reads everybody's
shares in place of a number (``serve="inferred"``). Then 40 people who never answered are asked 32
questions each, the model infers their shares, and each is served an episode. What counts is the
mean distance from the goal over the steps of episodes; at random it is about 1.3.

*Pooled* is the same training with one reward for all. Controls: the new people's answers are a
coin's; and everybody is served as the next one in the row.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float

import prefgym  # noqa: F401
from benchmarks.claims.claim import Row
from benchmarks.claims.training import EVALUATION_SEED
from prefgym.comparisons import Comparisons
from prefgym.models.ensembles import Voices
from prefgym.raters.tastes import GoalDistance, goal_groups
from prefgym_agents.evaluation import Predicts, played
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.sb3 import sb3_backend

ENV = "prefgym/Reacher-v0"
JOINT = (0, 2)
"""Cosine and sine of the first joint, among the numbers of an observation."""
BETA = 5.0
PEOPLE, ANSWERS = 30, 64
NEW, NEW_ANSWERS = 40, 32
STEPS = 100_000
TASTES = 3
POLICY: dict[str, Any] = {
    "n_steps": 50,
    "batch_size": 320,
    "n_epochs": 20,
    "learning_rate": 1e-3,
    "gamma": 0.9,
    "ent_coef": 0.003,
}
FITTING: dict[str, Any] = {
    "labels": PEOPLE * ANSWERS,
    "sessions": 3,
    "ask_until": 0.25,
    "start_steps": 2_000,
    "queries": "uniform",
    "members": 1,
    "hidden": (64, 64),
    "epochs": 20,
    "batch_pairs": 128,
}

Goals = Float[np.ndarray, " people 2"]


def served(seed: int) -> tuple[list[Row], list[Row], dict[str, float]]:
    """Rows, controls and figures."""
    rng = np.random.default_rng(seed)
    known, new = anywhere(rng, PEOPLE), anywhere(rng, NEW)
    learner = trained(seed, known, model="pal", population=PEOPLE, tastes=TASTES, serve="inferred")
    answered = answers(learner, new, rng)
    guessed = answered.replace(label=rng.integers(0, 2, len(answered)).astype(np.float64))
    told, nothing = (learner.model.infer(one) for one in (answered, guessed))
    fitted = Voices(np.arange(PEOPLE), learner.model.head.population.group_weights(None)[:, :, 0])
    who = told.rater_id
    far = {
        "pooled": distance(trained(seed, known, model="bt"), new, seed),
        "new": distance(learner.serving(told, who), new, seed, PEOPLE),
        "fitted": distance(learner.serving(fitted, fitted.rater_id), known, seed, PEOPLE),
        "coin": distance(learner.serving(nothing, who), new, seed, PEOPLE),
        "another": distance(learner.serving(told, np.roll(who, 1)), new, seed, PEOPLE),
    }
    rows = [Row("policy: new people, distance / pooled", far["new"] / far["pooled"], "<=", 0.6)]
    controls = [
        Row("policy: a coin's answers, distance / pooled", far["coin"] / far["pooled"], ">=", 0.85),
        Row("policy: served as another / pooled", far["another"] / far["pooled"], ">=", 0.85),
    ]
    return rows, controls, {f"served_{name}": one for name, one in far.items()}


def anywhere(rng: np.random.Generator, people: int) -> Goals:
    """Directions."""
    angle = rng.uniform(0.0, 2.0 * np.pi, people)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def trained(seed: int, goals: Goals, **asked: Any) -> Any:
    """A policy for these people; what a model tells apart is served apart."""
    personal = "serve" in asked
    env = gym.make_vec(
        ENV,
        num_envs=32,
        query_every=None,
        segment_steps=10,
        rater=goal_groups(goals.tolist(), JOINT, rule="person" if personal else "query", beta=BETA),
        **({"personal": len(goals)} if personal else {}),
    )
    learner = RewardLearning(
        sb3_backend("PPO", env, seed=seed, **POLICY), seed=seed, **FITTING, **asked
    )
    learner.learn(STEPS)
    return learner


def answers(learner: Any, goals: Goals, rng: np.random.Generator) -> Comparisons:
    """What people who never answered say of things that happened in training."""
    people = goal_groups(goals.tolist(), JOINT, beta=BETA).raters
    a, b = learner.env.sample_pairs(len(people) * NEW_ANSWERS, rng)
    who = np.repeat(np.arange(len(people)), NEW_ANSWERS)
    asked = (np.flatnonzero(who == number) for number in range(len(people)))
    label = [
        one(a.take(rows), b.take(rows), rng).label for one, rows in zip(people, asked, strict=True)
    ]
    return Comparisons(a, b, np.concatenate(label), rater_id=who + PEOPLE)


def distance(policy: Predicts, goals: Goals, seed: int, people: int | None = None) -> float:
    """Mean over everybody's own episode and its steps."""
    episodes = played(
        policy,
        ENV,
        episodes=len(goals),
        seed=EVALUATION_SEED + seed,
        deterministic=True,
        **({"personal": people} if people else {}),
    )
    each = (
        GoalDistance(tuple(goal), JOINT)(episodes.take(np.array([number])))[0]
        for number, goal in enumerate(goals.tolist())
    )
    return -float(np.mean([steps.mean() for steps in each]))
