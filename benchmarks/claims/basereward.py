"""A non-linear head reads from frozen features what a linear one cannot.

Source: Zhang et al. (2025), "BaseReward: a strong baseline for multimodal reward model",
arXiv:2509.16127: of the recipes compared there, a head of two linear layers with SiLU between them
on the last hidden state of a language model does best.

What can be shown without pretrained models is why such a head is worth its cost. A frozen random
network (tanh, no biases) makes 64 features of ten latent numbers, two of which are bits; the better
of two responses is the one whose bits differ. The network is odd, and turning all signs does not
change whether two bits differ, so that no linear function of the features is correlated with it.

Controls: a quality that is one of the bits, which the linear head reads as well; and a trunk of the
same shape that is not frozen, under which the linear head is enough. The head helps where the trunk
stays as it is and has not unfolded what is asked for.

Left out: the paper's sweep over a penalty on rewards away from mean zero, which reads more of a
pair than its margin, and its mixture of text and images, which has no honest analogue here.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.claims.claim import ClaimResult, Row
from prefgym.comparisons import Comparisons
from prefgym.models.encoders import MLPEncoder
from prefgym.models.features import MappedFeatures
from prefgym.models.fit import adam, fit
from prefgym.models.heads import ScalarHead
from prefgym.models.reward_models import RewardModel
from prefgym.segments import Segments

KEY = "basereward"
CLAIM = (
    "On frozen features a head with a SiLU layer reads an attribute of which a linear head learns "
    "nothing."
)
LATENTS, FEATURES = 10, 64
"""Numbers behind a response, the first two of them ±1, and what the frozen network makes of them.
A trunk that is trained has as many units, and so has each layer of a head."""
PAIRS, HELD_OUT = 1000, 2000
TRUNKS, QUICK_TRUNKS, HEADS = 5, 1, 5
"""Frozen networks, each with pairs of its own, and heads on each of them; accuracies are means."""

Attribute = Callable[[np.ndarray], np.ndarray]


class Head(NamedTuple):
    """What stands on the trunk, or with it."""

    hidden: Sequence[int] = ()
    activation: str = "silu"
    frozen: bool = True


LINEAR = Head()
ONE, TWO = Head((FEATURES,)), Head((FEATURES, FEATURES))
UNFROZEN = Head((FEATURES,), "tanh", frozen=False)
"""The trunk itself, trained together with a linear head."""


def bits_differ(latents: np.ndarray) -> np.ndarray:
    """Above 0 where exactly one of the two bits is set, ``[batch]``."""
    product: np.ndarray = latents[:, 0] * latents[:, 1]
    return -product


def first_bit(latents: np.ndarray) -> np.ndarray:
    """Above 0 where the first bit is set, ``[batch]``."""
    first: np.ndarray = latents[:, 0]
    return first


def run(seed: int, quick: bool) -> ClaimResult:
    """Heads on frozen features, for an attribute that is not linear in them and one that is."""
    torch.set_num_threads(1)
    trunks = QUICK_TRUNKS if quick else TRUNKS

    def mean(head: Head, attribute: Attribute) -> float:
        return float(np.mean([accuracy(head, attribute, (seed, k)) for k in range(trunks)]))

    found = {
        "linear": mean(LINEAR, bits_differ),
        "silu": mean(ONE, bits_differ),
        "silu_silu": mean(TWO, bits_differ),
        "linear_on_bit": mean(LINEAR, first_bit),
        "silu_on_bit": mean(ONE, first_bit),
        "unfrozen": mean(UNFROZEN, bits_differ),
    }
    rows = [
        Row("two bits differ, linear head: accuracy", found["linear"], "<=", 0.60),
        Row("two bits differ, one SiLU layer", found["silu"], ">=", 0.95),
        Row("two bits differ, two SiLU layers", found["silu_silu"], ">=", 0.95),
    ]
    controls = [
        Row("one bit, linear head", found["linear_on_bit"], ">=", 0.95),
        Row(
            "one bit, gain by a SiLU layer",
            found["silu_on_bit"] - found["linear_on_bit"],
            "<=",
            0.02,
        ),
        Row("two bits differ, linear head on a trained trunk", found["unfrozen"], ">=", 0.95),
    ]
    return ClaimResult(KEY, CLAIM, seed, rows, controls, found)


def accuracy(head: Head, attribute: Attribute, seed: tuple[int, int]) -> float:
    """Share of held-out pairs ranked right, mean over the heads on one trunk."""
    rng = np.random.default_rng(seed)
    weight = torch.as_tensor(rng.normal(size=(LATENTS, FEATURES)) / LATENTS**0.5)
    frozen = MappedFeatures(lambda one: torch.tanh(_latents(one) @ weight), FEATURES)
    features = frozen if head.frozen else MappedFeatures(_latents, LATENTS)
    start = torch.Generator().manual_seed(int(rng.integers(2**31)))
    encoder = MLPEncoder(features.width, 1, HEADS, head.hidden, head.activation, start)
    model = RewardModel(features, encoder, ScalarHead())
    known, asked = drawn(attribute, PAIRS, rng), drawn(attribute, HELD_OUT, rng)
    model.normalise(known.a)
    fit(model, known, adam(model, 3e-3), rng, epochs=40, batch_pairs=64, stop_accuracy=0.995)
    right = (model.logits(asked.a, asked.b).numpy() > 0.0) == (asked.label > 0.5)
    return float(right.mean())


def drawn(attribute: Attribute, pairs: int, rng: np.random.Generator) -> Comparisons:
    """Pairs of single steps, of which exactly one has the attribute; it is preferred."""
    latents = rng.normal(size=(8 * pairs, 1, LATENTS))
    latents[..., :2] = np.sign(latents[..., :2])
    good = attribute(latents[:, 0]) > 0.0
    first = rng.random(pairs) < 0.5
    sides = np.flatnonzero(good)[:pairs], np.flatnonzero(~good)[:pairs]
    a, b = (np.where(first == side, *sides) for side in (True, False))
    return Comparisons(_steps(latents[a]), _steps(latents[b]), label=first.astype(np.float64))


def _steps(latents: np.ndarray) -> Segments:
    count = len(latents)
    return Segments(
        actions=np.zeros((count, 1), np.int64),
        mask=np.ones((count, 1), bool),
        context=latents[:, 0],
        context_id=np.zeros(count, np.int64),
        observations=latents,
    )


def _latents(segments: Segments) -> torch.Tensor:
    return torch.as_tensor(segments.observations)
