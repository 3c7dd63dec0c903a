"""What people want of an answer depends on the question: rated attributes, weighed by a gate.

Source: Wang et al. (2024), "Interpretable preferences via multi-objective reward modeling and
mixture-of-experts", arXiv:2406.12845 (ArmoRM).

Segments of four steps begin with a context of two numbers, which all their steps show; a step has
eight more. Three attributes are linear in those; a step's worth is their mean under weights that a
softmax makes of the context. 2,500 segments were rated, each attribute with probability ½ and with
noise; 600 pairs with equal contexts were compared. Stage 1 is ridge regression on the ratings,
stage 2 fits the gate alone to the pairs. Accuracy is on 2,000 new pairs without noise; figures are
means over five draws of the whole.

Besides: one of the attributes that were rated is mixed with a fourth one, length; taking so much of
that off that the ranks agree no more leaves |Spearman| ≤ .05.

Controls: the best fixed weights on the same attributes, a Bradley-Terry model that does not see the
context, and gates on contexts that were shuffled over the pairs.
"""

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.claims.claim import ClaimResult, Row
from prefgym.comparisons import Comparisons
from prefgym.models.attributes import RatedAttributes, ridge, spearman, without
from prefgym.models.encoders import MLPEncoder
from prefgym.models.features import MappedFeatures
from prefgym.models.fit import adam, fit
from prefgym.models.heads import ScalarHead, TasteHead
from prefgym.models.populations import ContextGate, PopulationHead
from prefgym.models.reward_models import RewardModel
from prefgym.segments import Segments

KEY = "armorm"
CLAIM = "A gate that reads the question and weighs rated attributes beats all fixed weights."
CONTEXT, ITEM, STEPS, ATTRIBUTES = 2, 8, 4, 3
RATED, PAIRS, TEST = 2_500, 600, 2_000
RATING_NOISE, BETA = 0.5, 4.0
DRAWS = 5
WIDTH = CONTEXT + ITEM


class World:
    """Who wants what: attributes, and how their weights follow from the context."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.attributes = np.linalg.qr(rng.normal(size=(ITEM, ITEM)))[0][:ATTRIBUTES]
        angle = rng.uniform(0.0, 2.0 * np.pi) + 2.0 * np.pi * np.arange(ATTRIBUTES) / ATTRIBUTES
        self.tastes = 4.0 * np.stack([np.cos(angle), np.sin(angle)], 1)

    def weights(self, context: np.ndarray) -> np.ndarray:
        """``[n, attributes]``, adding up to 1."""
        raised = np.exp(context @ self.tastes.T)
        shares: np.ndarray = raised / raised.sum(1, keepdims=True)
        return shares

    def ratings(self, segments: Segments) -> np.ndarray:
        """What each attribute is, summed over the steps, ``[n, attributes]``."""
        assert segments.observations is not None
        total: np.ndarray = segments.observations[..., CONTEXT:].sum(1) @ self.attributes.T
        return total

    def worth(self, segments: Segments) -> np.ndarray:
        """What a segment is worth in its context, ``[n]``."""
        weights = self.weights(segments.context[:, :CONTEXT])
        total: np.ndarray = (weights * self.ratings(segments)).sum(1)
        return total


def drawn(context: np.ndarray, rng: np.random.Generator) -> Segments:
    """Segments in these contexts, ``[n, 2]``."""
    shown = np.broadcast_to(context[:, None], (len(context), STEPS, CONTEXT))
    item = rng.normal(size=(len(context), STEPS, ITEM)) / STEPS**0.5
    observations = np.concatenate([shown, item], -1).astype(np.float32)
    return Segments(
        actions=np.zeros((len(context), STEPS), np.int64),
        mask=np.ones((len(context), STEPS), np.bool_),
        context=observations[:, 0],
        context_id=np.arange(len(context)),
        observations=observations,
    )


def compared(world: World, count: int, rng: np.random.Generator, noisy: bool) -> Comparisons:
    """Pairs with equal contexts, and who is better."""
    context = rng.normal(size=(count, CONTEXT))
    a, b = drawn(context, rng), drawn(context, rng)
    gap = world.worth(a) - world.worth(b)
    chance = 1.0 / (1.0 + np.exp(-BETA * gap)) if noisy else (gap > 0).astype(np.float64)
    label = (rng.random(count) < chance).astype(np.float64)
    return Comparisons(a, b, label, meaning="in-context")


def seen(segments: Segments) -> np.ndarray:
    """Context and item of every step."""
    assert segments.observations is not None
    return np.asarray(segments.observations)


def unseen(segments: Segments) -> np.ndarray:
    """The item alone."""
    return seen(segments)[..., CONTEXT:]


ALL, ITEMS = MappedFeatures(seen, WIDTH), MappedFeatures(unseen, ITEM)


def gated(weights: torch.Tensor, generator: torch.Generator) -> RewardModel:
    """Frozen attributes under a gate that reads the context."""
    gate = ContextGate(1, ATTRIBUTES, WIDTH, hidden=(32,), columns=(0, 1), generator=generator)
    return RewardModel(ALL, RatedAttributes(weights), PopulationHead(TasteHead(ATTRIBUTES), gate))


def network(features: MappedFeatures, generator: torch.Generator) -> RewardModel:
    """Bradley-Terry on what it sees."""
    encoder = MLPEncoder(features.width, 1, 1, (32, 32), "leaky_relu", generator)
    return RewardModel(features, encoder, ScalarHead())


def fitted(model: RewardModel, pairs: Comparisons, rng: np.random.Generator) -> RewardModel:
    """The model after 60 passes."""
    fit(model, pairs, adam(model, 3e-3), rng, epochs=60, batch_pairs=64, stop_accuracy=1.0)
    return model


def share(margin: np.ndarray, pairs: Comparisons) -> float:
    """Of the pairs, those whose better side has the larger score."""
    return float(np.mean((margin > 0) == (pairs.label > 0.5)))


def fixed(weights: torch.Tensor, pairs: Comparisons) -> float:
    """Accuracy of the best fixed weights of the attributes, on a fine grid of the simplex."""
    side = np.linspace(0.0, 1.0, 41)
    first, second = (one.ravel() for one in np.meshgrid(side, side))
    mixed = np.stack([first, second, 1.0 - first - second], 1)[first + second <= 1.0]
    total = (seen(pairs.a) - seen(pairs.b)).sum(1) @ weights.numpy().T
    right = (total @ mixed.T > 0) == (pairs.label > 0.5)[:, None]
    return float(right.mean(0).max())


def one_draw(seed: int, draw: int) -> dict[str, float]:
    """Accuracies of every model in one world."""
    rng = np.random.default_rng((seed, draw))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    world = World(rng)
    items = drawn(rng.normal(size=(RATED, CONTEXT)), rng)
    ratings = world.ratings(items) + RATING_NOISE * rng.normal(size=(RATED, ATTRIBUTES))
    ratings[rng.random(ratings.shape) < 0.5] = np.nan
    read = torch.as_tensor(seen(items).sum(1))
    weights = ridge(read, torch.as_tensor(ratings, dtype=torch.float32), generator)
    pairs, test = compared(world, PAIRS, rng, noisy=True), compared(world, TEST, rng, noisy=False)

    def accuracy(model: RewardModel) -> float:
        return share(model.logits(test.a, test.b).mean(0).numpy(), test)

    gate = fitted(gated(weights, generator), pairs, rng)
    order = rng.permutation(PAIRS)
    shuffled = pairs.replace(a=_elsewhere(pairs.a, order), b=_elsewhere(pairs.b, order))
    assert isinstance(gate.head, PopulationHead)
    told = gate.head.population.group_weights(torch.as_tensor(test.a.context)[None])[0, 0]
    true = world.weights(test.a.context[:, :CONTEXT])
    return {
        "gated": accuracy(gate),
        "fixed": fixed(weights, test),
        "bt_blind": accuracy(fitted(network(ITEMS, generator), pairs, rng)),
        "bt_seeing": accuracy(fitted(network(ALL, generator), pairs, rng)),
        "gated_shuffled": accuracy(fitted(gated(weights, generator), shuffled, rng)),
        "weight_correlation": float(np.corrcoef(told.detach().numpy().ravel(), true.ravel())[0, 1]),
        "left_of_length": _left_of_length(rng),
    }


def _elsewhere(segments: Segments, order: np.ndarray) -> Segments:
    """The same items in the contexts of others."""
    observations = seen(segments).copy()
    observations[..., :CONTEXT] = observations[order][..., :CONTEXT]
    return segments.replace(observations=observations, context=observations[:, 0])


def _left_of_length(rng: np.random.Generator) -> float:
    """The largest |Spearman| with length after it was taken off two attributes mixed with it."""
    length = rng.normal(size=(2_000, 1))
    mixed = rng.normal(size=(2_000, 2)) + length * np.array([0.4, 0.9])
    rewards = torch.as_tensor(np.concatenate([mixed, length], 1))
    kept, _ = without(rewards, unwanted=2)
    return float(spearman(kept, rewards[:, 2])[:2].abs().max())


def run(seed: int, quick: bool) -> ClaimResult:
    """Five worlds (one when quick)."""
    torch.set_num_threads(1)
    draws: Sequence[int] = range(1 if quick else DRAWS)
    told = [one_draw(seed, draw) for draw in draws]
    mean = {name: float(np.mean([one[name] for one in told])) for name in told[0]}
    return ClaimResult(
        KEY,
        CLAIM,
        seed,
        rows=[
            Row("accuracy with a gate", mean["gated"], ">=", 0.88),
            Row("more than the best fixed weights", mean["gated"] - mean["fixed"], ">=", 0.08),
            Row("more than Bradley-Terry, blind", mean["gated"] - mean["bt_blind"], ">=", 0.10),
            Row("correlation of the gate's weights", mean["weight_correlation"], ">=", 0.8),
            Row("|Spearman| with length", mean["left_of_length"], "<=", 0.05),
        ],
        controls=[
            Row(
                "a gate on shuffled contexts gains over fixed weights",
                mean["gated_shuffled"] - mean["fixed"],
                "<=",
                0.02,
            ),
        ],
        figures=mean,
    )
