"""A reward model that reads what an expert knows to matter needs a tenth of the comparisons.

Source: Nath et al. (2024), "Leveraging domain knowledge for efficient reward modelling in RLHF: a
case-study in e-commerce opinion summarization", arXiv:2402.15473: a network of a few units reads
seven features of a summary instead of the summary, and 940 comparisons are enough.

A point moves through a room for ten steps. Someone compares two such walks by a weighted sum of
seven measurements, and never errs: distance to a goal, nearness of a hazard, effort, speed,
progress towards the goal, nearness of the walls, sharpness of turns. Where goal and hazard are, and
how much each measurement matters, differs from task to task. The expert names the seven
measurements and not their weights; the model of raw input reads position, velocity and action. It
is given ten times the pairs, and the better of two networks: a large one and one as tiny as the
expert's.

Controls: an expert who leaves out the two measurements that matter most, and one whose features
belong to another walk. The former loses the advantage, the latter learns nothing.
"""

from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces

from benchmarks.claims.claim import ClaimResult, Row
from prefgym.comparisons import Comparisons
from prefgym.models.encoders import MLPEncoder
from prefgym.models.features import FactorFeatures, FeatureMap, MappedFeatures, StepFeatures
from prefgym.models.fit import adam, fit
from prefgym.models.heads import ScalarHead
from prefgym.models.reward_models import RewardModel
from prefgym.segments import Segments

KEY = "domain_knowledge"
CLAIM = (
    "With seven features of an expert a tiny network learns from 30 comparisons at least as much "
    "as networks on raw input from 300."
)
SIGNS = {
    "goal_distance": -1.0,
    "hazard": -1.0,
    "effort": -1.0,
    "speed": -1.0,
    "progress": 1.0,
    "walls": -1.0,
    "turning": -1.0,
}
"""Of the weights; how large they are is drawn for every task."""
NAMES = tuple(SIGNS)
STEPS, TIME_STEP = 10, 0.2
PAIRS, FACTOR, HELD_OUT = 30, 10, 1000
TASKS, QUICK_TASKS, MEMBERS = 20, 6, 3
"""Tasks with weights and walks of their own, and networks in each; accuracies are means."""


class Network(NamedTuple):
    """A network and how it is fitted."""

    hidden: tuple[int, ...]
    activation: str
    rate: float
    epochs: int
    batch_pairs: int


TINY = Network((5,), "silu", 2e-2, 150, 1024)
"""Hidden layer, rate, epochs, batch and decay are within the ranges of the paper."""
LARGE = Network((64, 64), "relu", 3e-3, 20, 32)
"""Twice the epochs make it no better."""
RAW = StepFeatures(spaces.Box(-np.inf, np.inf, (4,)), spaces.Box(-np.inf, np.inf, (2,)))


def run(seed: int, quick: bool) -> ClaimResult:
    """Expert features, raw input and two controls, over tasks drawn anew."""
    torch.set_num_threads(1)
    tasks = QUICK_TASKS if quick else TASKS
    told = [task(np.random.default_rng((seed, k))) for k in range(tasks)]
    mean = {name: float(np.mean([one[name] for one in told])) for name in told[0]}
    raw = max(mean["raw_300"], mean["raw_300_tiny"])
    rows = [
        Row("30 pairs, expert features: accuracy", mean["expert_30"], ">=", 0.88),
        Row("30 pairs with features minus 300 raw", mean["expert_30"] - raw, ">=", 0.0),
    ]
    controls = [
        Row("the same without the two decisive features", mean["lacking_30"] - raw, "<=", 0.0),
        Row("30 pairs, features of other walks: accuracy", mean["shuffled_30"], "<=", 0.55),
    ]
    gaps = np.array([one["expert_30"] - one["raw_300"] for one in told])
    error = float(gaps.std(ddof=1) / len(gaps) ** 0.5)
    figures = {**mean, "tasks_won": float(np.mean(gaps >= 0.0)), "standard_error": error}
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def task(rng: np.random.Generator) -> dict[str, float]:
    """Held-out accuracies for one goal, one hazard and one set of weights."""
    places = rng.uniform(-0.7, 0.7, size=(2, 2))
    weights = rng.gamma(2.0, size=len(NAMES))
    spread = _factors(walks(2000, places, rng)).mean(1).std(0)
    taste = np.array(list(SIGNS.values())) * weights / spread
    many = compared(PAIRS * FACTOR, places, taste, rng)
    few, asked = many.take(slice(PAIRS)), compared(HELD_OUT, places, taste, rng)
    lesser = [NAMES[k] for k in np.sort(np.argsort(weights)[:-2])]
    expert, lacking = FactorFeatures(NAMES), FactorFeatures(lesser)
    shuffled = MappedFeatures(lambda one: np.roll(_factors(one), 1, axis=0), len(NAMES))
    return {
        "expert_30": accuracy(expert, TINY, few, asked, rng),
        "raw_30": accuracy(RAW, LARGE, few, asked, rng),
        "raw_300": accuracy(RAW, LARGE, many, asked, rng),
        "raw_300_tiny": accuracy(RAW, TINY, many, asked, rng),
        "lacking_30": accuracy(lacking, TINY, few, asked, rng),
        "shuffled_30": accuracy(shuffled, TINY, few, asked, rng),
    }


def accuracy(
    features: FeatureMap,
    network: Network,
    known: Comparisons,
    asked: Comparisons,
    rng: np.random.Generator,
) -> float:
    """Share of held-out pairs ranked right, mean over the members."""
    start = torch.Generator().manual_seed(int(rng.integers(2**31)))
    encoder = MLPEncoder(features.width, 1, MEMBERS, network.hidden, network.activation, start)
    model = RewardModel(features, encoder, ScalarHead())
    model.normalise(Segments.concatenate([known.a, known.b]))
    optimizer = adam(model, network.rate, weight_decay=0.05)
    fit(model, known, optimizer, rng, network.epochs, network.batch_pairs, stop_accuracy=1.0)
    right = (model.logits(asked.a, asked.b).numpy() > 0.0) == (asked.label > 0.5)
    return float(right.mean())


def compared(
    pairs: int, places: np.ndarray, taste: np.ndarray, rng: np.random.Generator
) -> Comparisons:
    """Pairs of walks, and which of the two is better."""
    a, b = walks(pairs, places, rng), walks(pairs, places, rng)
    better = (_factors(a) - _factors(b)).sum(1) @ taste > 0.0
    return Comparisons(a, b, label=better.astype(np.float64), meaning="partial-return")


def walks(count: int, places: np.ndarray, rng: np.random.Generator) -> Segments:
    """Walks by random accelerations around a random drift, from a random place."""
    drift = rng.normal(0.0, 0.7, size=(count, 1, 2))
    actions = np.clip(drift + rng.normal(0.0, 0.7, size=(count, STEPS, 2)), -2.0, 2.0)
    position = rng.uniform(-1.0, 1.0, size=(count, 2))
    velocity = rng.normal(0.0, 0.3, size=(count, 2))
    seen = []
    for action in actions.swapaxes(0, 1):
        seen.append(np.concatenate([position, velocity], axis=1))
        velocity = 0.9 * velocity + TIME_STEP * action
        position = np.clip(position + TIME_STEP * velocity, -1.5, 1.5)
    observations = np.stack(seen, axis=1)
    return Segments(
        actions=actions,
        mask=np.ones((count, STEPS), bool),
        context=observations[:, 0],
        context_id=np.arange(count),
        observations=observations,
        factors=measured(observations, actions, places),
    )


def measured(
    observations: np.ndarray, actions: np.ndarray, places: np.ndarray
) -> dict[str, np.ndarray]:
    """The expert's seven measurements of every step."""
    position, velocity = observations[..., :2], observations[..., 2:]
    goal, hazard = places
    way = goal - position
    distance = np.linalg.norm(way, axis=-1)
    across = velocity[..., 0] * actions[..., 1] - velocity[..., 1] * actions[..., 0]
    return {
        "goal_distance": distance,
        "hazard": np.exp(-10.0 * ((position - hazard) ** 2).sum(-1)),
        "effort": (actions**2).sum(-1),
        "speed": np.linalg.norm(velocity, axis=-1),
        "progress": (velocity * way).sum(-1) / (distance + 0.1),
        "walls": np.maximum(np.abs(position).max(-1) - 0.8, 0.0),
        "turning": np.abs(across),
    }


def _factors(segments: Segments) -> np.ndarray:
    """``[batch, steps, factors]``."""
    return np.stack([segments.factors[name] for name in NAMES], axis=-1)
