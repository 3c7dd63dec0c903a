"""Comparisons of which it is known whose labels were turned round, and models of them; no claim.

A point moves in a square (``point_mass``). Someone wants it near a goal, far from a hazard and
moved with little effort, and never errs; a share of the labels is turned round afterwards. That is
easy to learn from clean labels, and the networks are large enough to learn wrong ones by heart.
"""

from typing import NamedTuple

import numpy as np
import torch

from benchmarks.claims.point_mass import DONE, SEEN, segments
from prefgym.comparisons import Comparisons
from prefgym.models.fit import Curator, adam, fit
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.segments import Segments

PAIRS, HELD_OUT = 3000, 3000
HIDDEN, RATE, BATCH, EPOCHS = (64, 64), 3e-3, 64, 30
GOAL, HAZARD = np.array([0.5, 0.5]), np.array([-0.4, -0.2])


class Flipped(NamedTuple):
    """Comparisons, and what is known of them."""

    comparisons: Comparisons
    flipped: np.ndarray
    """Whether the label is wrong, ``[pairs]``."""
    gap: np.ndarray
    """By how much ``a`` is truly better, ``[pairs]``."""


def drawn(rng: np.random.Generator, pairs: int, noise: float = 0.0) -> Flipped:
    """Pairs of ways, of whose labels a share is wrong."""
    a, b = segments(rng, pairs), segments(rng, pairs)
    gap = worth(a) - worth(b)
    flipped = rng.random(pairs) < noise
    label = ((gap > 0.0) != flipped).astype(np.float64)
    return Flipped(Comparisons(a, b, label, strength=np.abs(gap)), flipped, gap)


def worth(ways: Segments) -> np.ndarray:
    """The true worth of every way, ``[batch]``."""
    places = np.asarray(ways.observations)
    distance = np.linalg.norm(places - GOAL, axis=-1)
    danger = np.exp(-8.0 * ((places - HAZARD) ** 2).sum(-1))
    effort = (np.asarray(ways.actions) ** 2).sum(-1)
    total: np.ndarray = -(distance + 1.5 * danger + 0.3 * effort).sum(1)
    return total


def fitted(
    known: Flipped,
    rng: np.random.Generator,
    members: int,
    epochs: int = EPOCHS,
    curate: Curator | None = None,
) -> RewardModel:
    """Bradley and Terry's model, as an ensemble whose members see all pairs in their own order."""
    start = int(rng.integers(2**31))
    model = reward_model(SEEN, DONE, members, HIDDEN, activation="relu", seed=start)
    model.normalise(known.comparisons.a)
    optimizer = adam(model, RATE)
    data = known.comparisons
    fit(model, data, optimizer, rng, epochs, BATCH, stop_accuracy=1.0, curate=curate)
    return model


def accuracies(model: RewardModel, asked: Flipped) -> tuple[float, float]:
    """Share of pairs ranked right: by a single member, on average, and by all together."""
    logits = model.logits(asked.comparisons.a, asked.comparisons.b)
    better = torch.as_tensor(asked.gap > 0.0)
    single = ((logits > 0.0) == better).double().mean()
    return float(single), float(((logits.mean(0) > 0.0) == better).double().mean())
