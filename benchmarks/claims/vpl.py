"""A few answers of a new person tell what she wants, where all people together want nothing.

Source: Poddar et al. (2024), "Personalizing reinforcement learning from human feedback with
variational preference learning", arXiv:2408.10075 (VPL).

Half of 300 people want the point (see ``point_mass.py``) in one corner, half in the opposite one;
each answers 16 noisy questions. Then 1000 people who were not fitted answer one, four or sixteen,
from which the model infers their latent, and are asked 10 others. *Pooled* is Bradley-Terry on the
same answers. *Purity*: the means of the inferred latents, after sixteen answers, are split in two
along the direction in which they differ most; the share of people who stand with their own group.

The same with goals all over the square: nothing to cluster, and a latent is still inferred.

Control: people who all want the same. There is nobody to tell apart, and VPL is no better than
pooled.
"""

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.point_mass import (
    CORNERS,
    EACH,
    NEW_PEOPLE,
    PEOPLE,
    accuracy_of_new,
    answers,
    anywhere,
    fitted,
    pooled_accuracy,
    two_groups,
)
from prefgym.models.reward_models import RewardModel

KEY = "vpl"
CLAIM = (
    "A latent inferred from a few of a user's answers recovers the preferences of users whom a "
    "single reward model averages away."
)
FEW = (1, 4, 16)
QUICK_EPOCHS, EPOCHS = 15, 40

Goals = Callable[[np.random.Generator, int], np.ndarray]


def run(seed: int, quick: bool) -> ClaimResult:
    """VPL and the pooled model with two goals, all goals, and one."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    kinds: dict[str, Goals] = {"two": _two, "one": _one}
    if not quick:
        kinds["any"] = anywhere
    learned, accuracy = {}, {}
    for told, goals in kinds.items():
        answered, new = answers(rng, goals(rng, PEOPLE), EACH), goals(rng, NEW_PEOPLE)
        epochs = QUICK_EPOCHS if quick else EPOCHS
        learned[told] = fitted("vpl", answered, rng, epochs=epochs)
        for few in FEW:
            accuracy[f"{told}_{few}"] = accuracy_of_new(learned[told], rng, new, few)
        pooled = fitted("bt", answered, rng, epochs=epochs)
        accuracy[f"{told}_pooled"] = pooled_accuracy(pooled, rng, new)
    pure = purity(learned["two"], rng)
    rows = [
        Row("two goals: new people, 4 answers", accuracy["two_4"], ">=", 0.95),
        Row("two goals: new people, 1 answer", accuracy["two_1"], ">=", 0.80),
        Row("two goals: pooled", accuracy["two_pooled"], "<=", 0.65),
        Row("two goals: purity of the latents", pure, ">=", 0.98),
    ]
    if not quick:
        rows += [
            Row("any goal: new people, 16 answers", accuracy["any_16"], ">=", 0.82),
            Row("any goal: pooled", accuracy["any_pooled"], "<=", 0.66),
        ]
    gained = accuracy["one_16"] - accuracy["one_pooled"]
    controls = [Row("one goal: gained over pooled, 16 answers", gained, "<=", 0.02)]
    return ClaimResult(KEY, CLAIM, seed, rows, controls, {**accuracy, "purity": pure})


def purity(model: RewardModel, rng: np.random.Generator) -> float:
    """Share of new people who fall in the half of the latents in which most of their group does."""
    group = two_groups(rng, NEW_PEOPLE)
    voices = model.infer(answers(rng, CORNERS[group], max(FEW)))
    means = voices.weights.flatten(1).double().numpy()  # linear in the means of the latents
    means -= means.mean(0)
    direction = np.linalg.svd(means, full_matrices=False)[2][0]
    same = ((means @ direction > 0.0) == (group == 1)).mean()
    return float(max(same, 1.0 - same))


def _two(rng: np.random.Generator, many: int) -> np.ndarray:
    goals: np.ndarray = CORNERS[two_groups(rng, many)]
    return goals


def _one(rng: np.random.Generator, many: int) -> np.ndarray:
    return np.tile(CORNERS[:1], (many, 1))
