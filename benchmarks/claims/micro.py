"""Answers of two groups, nobody says whose; the context tells who is probably asked.

Source: Shen et al. (2025), "MiCRo: mixture modeling and context-aware routing for personalized
preference learning", arXiv:2505.24846.

A point in a square; two groups want it in opposite corners, and half of the answers are of each.
Comparisons carry no rater ids. Each shows a context, two numbers around one of two places, by which
the group goes; what a head is worth to a segment does not depend on it. Stage 1 fits two heads and
a router as a mixture to 4,000 comparisons. Accuracy is on new pairs without chance, by the group
whose context they show; heads are matched to groups as suits them best.

Stage 2: heads from a *static* mixture, which never saw a context, and a new router that begins
uniform, adapted by Hedge to 50 comparisons with context.

Controls: a static mixture and a Bradley-Terry model on the same data, and a router whose contexts
are noise: all of them are right about as often as a coin.
"""

from itertools import permutations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.claims import point_mass
from benchmarks.claims.claim import ClaimResult, Row
from prefgym.comparisons import Comparisons
from prefgym.models.encoders import MLPEncoder
from prefgym.models.features import MappedFeatures
from prefgym.models.fit import adam, fit
from prefgym.models.heads import ScalarHead, TasteHead
from prefgym.models.populations import ContextGate, Pooled, PopulationHead
from prefgym.models.populations.hedge import adapt_router
from prefgym.models.reward_models import RewardModel
from prefgym.segments import Segments

KEY = "micro"
CLAIM = "A mixture finds the groups behind anonymous answers, and a router tells them by context."
PAIRS, QUICK_PAIRS, TEST, BUDGET = 4_000, 1_500, 2_000, 50
CONTEXT, ITEM, GROUPS = 2, 4, 2
PLACES = np.array([[-1.0, 0.5], [1.0, -0.5]])
"""Of the two groups' contexts, before noise of deviation ½."""


class Blind(nn.Module):
    """An encoder that does not see the context."""

    def __init__(self, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.item = MLPEncoder(ITEM, outputs, 1, (64, 64), "leaky_relu", generator)
        self.members = 1
        self.kept_per_row = self.item.kept_per_row

    def forward(
        self, rows: Float[Tensor, " members rows features"]
    ) -> Float[Tensor, " members rows outputs"]:
        """What the item is worth."""
        found: Tensor = self.item(rows[..., CONTEXT:].contiguous())
        return found


def seen(segments: Segments) -> np.ndarray:
    """Context, place and action of every step."""
    assert segments.observations is not None
    return np.concatenate([segments.observations, segments.actions], -1)


FEATURES = MappedFeatures(seen, CONTEXT + ITEM)


def asked(
    rng: np.random.Generator, many: int, beta: float = point_mass.BETA, informative: bool = True
) -> tuple[Comparisons, np.ndarray]:
    """Anonymous comparisons that show their context, and whose they are."""
    group = rng.integers(GROUPS, size=many)
    plain = point_mass.answers(rng, point_mass.CORNERS[group], 1, beta)
    place = PLACES[group if informative else rng.integers(GROUPS, size=many)]
    context = place + 0.5 * rng.normal(size=(many, CONTEXT))
    sides = {"a": _shown(plain.a, context), "b": _shown(plain.b, context)}
    return plain.replace(rater_id=np.zeros(1, np.int64), **sides), group


def _shown(segments: Segments, context: np.ndarray) -> Segments:
    """The same segments, every step of which shows the context."""
    assert segments.observations is not None
    beside = np.broadcast_to(context[:, None], (*segments.mask.shape, CONTEXT))
    observations = np.concatenate([beside, segments.observations], -1).astype(np.float32)
    return segments.replace(observations=observations, context=observations[:, 0])


def router(generator: torch.Generator) -> ContextGate:
    """A gate that speaks for one head at a time; α = ½ as in the paper."""
    return ContextGate(
        1, GROUPS, CONTEXT + ITEM, True, 0.5, (32,), columns=(0, 1), generator=generator
    )


def fitted(
    head: PopulationHead | ScalarHead, pairs: Comparisons, rng: np.random.Generator, seed: int
) -> RewardModel:
    """Stage 1."""
    encoder = Blind(head.width, torch.Generator().manual_seed(seed))
    model = RewardModel(FEATURES, encoder, head)
    model.normalise(pairs.a)
    fit(model, pairs, adam(model, 3e-3), rng, epochs=30, batch_pairs=128, stop_accuracy=1.0)
    return model


def unrouted(static: RewardModel, generator: torch.Generator) -> RewardModel:
    """The heads of a static mixture under a router that finds all of them equally likely."""
    gate = router(generator)
    with torch.no_grad():
        gate.gate.weights[-1].zero_()
        gate.gate.biases[-1].zero_()
    model = RewardModel(FEATURES, static.encoder, PopulationHead(TasteHead(GROUPS), gate))
    for name, value in static.named_buffers(recurse=False):
        if name.startswith("feature"):
            getattr(model, name).copy_(value)
    return model


def accuracy(model: RewardModel, pairs: Comparisons) -> float:
    """Share of the pairs that the model calls as they are, given what it reads of the context."""
    return _right(model.logits(pairs.a, pairs.b).mean(0), pairs)


def own_and_other(model: RewardModel, pairs: Comparisons, group: np.ndarray) -> tuple[float, float]:
    """How often each head is right about its own group, and about the other; least and largest."""
    by_head = model.told_apart(pairs.a, pairs.b).mean(0)
    table = np.array(
        [
            [_right(by_head[group == who][:, head], pairs.take(group == who)) for head in range(2)]
            for who in range(GROUPS)
        ]
    )
    best = max(permutations(range(GROUPS)), key=lambda order: table[range(GROUPS), order].sum())
    matched = table[:, best]
    return float(np.diag(matched).min()), float(matched[~np.eye(GROUPS, dtype=bool)].max())


def _right(margin: Tensor, pairs: Comparisons) -> float:
    return float(np.mean((margin.numpy() > 0) == (pairs.label > 0.5)))


def run(seed: int, quick: bool) -> ClaimResult:
    """Both stages; when quick with fewer comparisons."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    pairs, _ = asked(rng, QUICK_PAIRS if quick else PAIRS)
    test, group = asked(rng, TEST, beta=np.inf)
    heads = lambda population: PopulationHead(TasteHead(GROUPS), population)  # noqa: E731
    routed = fitted(heads(router(generator)), pairs, rng, seed)
    static = fitted(heads(Pooled(1, GROUPS)), pairs, rng, seed)
    single = fitted(ScalarHead(), pairs, rng, seed)
    own, other = own_and_other(routed, test, group)
    adapted = unrouted(static, generator)
    before = accuracy(adapted, test)
    adapt_router(adapted, asked(rng, BUDGET)[0])
    after = accuracy(adapted, test)
    noise, _ = asked(rng, QUICK_PAIRS, informative=False)
    misled = fitted(heads(router(generator)), noise, rng, seed)
    blind, _ = asked(rng, TEST, beta=np.inf, informative=False)
    return ClaimResult(
        KEY,
        CLAIM,
        seed,
        rows=[
            Row("a head about its own group, least", own, ">=", 0.95),
            Row("a head about the other group, largest", other, "<=", 0.30),
            Row("accuracy, routed by context", accuracy(routed, test), ">=", 0.90),
            Row("accuracy, static mixture", accuracy(static, test), "<=", 0.65),
            Row("accuracy, Bradley-Terry", accuracy(single, test), "<=", 0.62),
            Row("accuracy, router adapted to 50 comparisons", after, ">=", 0.85),
        ],
        controls=[
            Row("accuracy, router before that", before, "<=", 0.65),
            Row("accuracy, contexts without information", accuracy(misled, blind), "<=", 0.65),
        ],
        figures={"routed": accuracy(routed, test), "adapted": after},
    )
