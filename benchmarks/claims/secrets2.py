"""An ensemble's vote finds the labels that are wrong.

Source: Wang et al. (2024), "Secrets of RLHF in large language models part II: reward modeling",
arXiv:2401.06080, sec. 2: ten reward models are fitted to the same comparisons, and the mean μ of
their margins in the direction of the label is taken for the strength of the preference. Labels of
the lowest μ are turned round or believed less, and μ becomes a margin in the loss.

A share of the labels of 3000 pairs is turned round. Ten voters see every pair four times, which is
too little to learn wrong labels by heart. What is told of them: the share of wrong labels among the
fifth of the pairs with the lowest and with the highest μ. Then models are fitted for 30 passes to
what became of the labels; accuracies are on pairs without mistakes, of a single member. "Strength"
is the correlation of the margin with the true difference of the two sides' returns.

Control: without mistakes, turning the lowest fifth round turns right labels of close pairs, and
does harm.

What is not claimed. That the margin is what makes rewards tell how strong a preference is: with
mistakes they do tell it better (``margin_gains_40``), but with the margins of *other* pairs they
often do as well (``others_margin_gains_40``), so that it may be any offset that helps. The voters
themselves, stopped early, know most of what their vote adds (``voters_40``,
``strength_voters_40``), so that against models that were stopped in time the gain is a small one.
All scores are against the truth, because labels that a model has corrected agree with the model.
Softening and dropping are only told (``softened_gains_40``). The paper's contrastive losses and
MetaRM are not part of this claim.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.flipped_labels import HELD_OUT, PAIRS, Flipped, accuracies, drawn, fitted
from prefgym.curation import (
    Vote,
    always,
    drop_lowest,
    filter_quality,
    flip_lowest,
    lowest,
    soften,
    untouched,
    vote,
    with_margin,
)
from prefgym.metrics import pearson
from prefgym.models.fit import Curated
from prefgym.models.reward_models import RewardModel

KEY = "secrets2"
CLAIM = (
    "The pairs on whose labels an ensemble agrees least hold most of the wrong labels, and turning "
    "them round makes a better reward model."
)
VOTERS, VOTERS_EPOCHS, MEMBERS = 10, 4, 3
SHARE = 0.2
"""Of the pairs, the lowest and the highest."""
TREATMENTS = ("plain", "flipped", "margin")
ONCE = ("others_margin", "softened", "dropped")
"""What is only tried on the first data set."""
RUNS, QUICK_RUNS = 3, 1
"""Data sets with 40 % wrong labels; scores are means."""


class Told(NamedTuple):
    """What one data set showed."""

    bottom: float
    """Share of wrong labels among the lowest fifth."""
    top: float
    accuracy: dict[str, float]
    """Of a single member, by treatment."""
    strength: dict[str, float]


def run(seed: int, quick: bool) -> ClaimResult:
    """Few, many and no mistakes."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    few, clean = shown(rng, 0.2, ()), shown(rng, 0.0, TREATMENTS)
    first = shown(rng, 0.4, TREATMENTS if quick else (*TREATMENTS, *ONCE))
    many = [first, *(shown(rng, 0.4, TREATMENTS) for _ in range(1, QUICK_RUNS if quick else RUNS))]
    bottom, top = np.mean([(one.bottom, one.top) for one in many], axis=0)
    flipped = gain([one.accuracy for one in many], "flipped")
    margin = gain([one.strength for one in many], "margin")
    spoiled = gain([clean.accuracy], "flipped")
    rows = [
        Row("20 % wrong: share wrong in the lowest fifth", few.bottom, ">=", 0.7),
        Row("40 % wrong: share wrong in the lowest fifth", bottom, ">=", 0.8),
        Row("20 % wrong: share wrong in the highest fifth", few.top, "<=", 0.1),
        Row("40 % wrong: share wrong in the highest fifth", top, "<=", 0.1),
        Row("40 % wrong: accuracy gained by flipping", flipped, ">=", 0.05),
    ]
    controls = [
        Row("none wrong: accuracy gained by flipping", spoiled, "<=", -0.02),
    ]
    figures = {"bottom_20": few.bottom, "bottom_40": bottom, "top_20": few.top, "top_40": top}
    for share, told in (("40", many), ("0", [clean])):
        for name in (*TREATMENTS, "voters"):
            figures[f"{name}_{share}"] = float(np.mean([one.accuracy[name] for one in told]))
            strong = float(np.mean([one.strength[name] for one in told]))
            figures[f"strength_{name}_{share}"] = strong
    figures["margin_gains_40"] = margin
    if not quick:
        figures["others_margin_gains_40"] = gain([first.strength], "others_margin")
        figures |= {f"{name}_gains_40": gain([first.accuracy], name) for name in ONCE[1:]}
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def gain(scores: Sequence[dict[str, float]], name: str) -> float:
    """What a treatment adds to plain labels, mean over the data sets."""
    return float(np.mean([one[name] - one["plain"] for one in scores]))


def shown(rng: np.random.Generator, noise: float, treatments: Sequence[str]) -> Told:
    """Vote, treat, and fit anew."""
    known, asked = drawn(rng, PAIRS, noise), drawn(rng, HELD_OUT)
    voters = fitted(known, rng, VOTERS, VOTERS_EPOCHS)
    given = untouched(known.comparisons)
    found = vote(voters.logits(known.comparisons.a, known.comparisons.b), given.label)
    bottom, top = (
        filter_quality(lowest(values, SHARE).numpy(), known.flipped).precision
        for values in (found.mean, -found.mean)
    )
    treated = treatments_of(given, found, torch.as_tensor(rng.permutation(PAIRS)))
    models = {
        name: fitted(known, rng, MEMBERS, curate=always(treated[name])) for name in treatments
    }
    models["voters"] = voters
    return Told(
        bottom,
        top,
        accuracy={name: accuracies(model, asked)[0] for name, model in models.items()},
        strength={name: strength(model, asked) for name, model in models.items()},
    )


def treatments_of(given: Curated, found: Vote, others: torch.Tensor) -> dict[str, Curated]:
    """What can be done about a vote; ``others`` names another pair for each."""
    margin = with_margin(given, found)
    return {
        "plain": given,
        "flipped": flip_lowest(given, found, SHARE),
        "margin": margin,
        "others_margin": margin._replace(offset=torch.as_tensor(margin.offset)[others]),
        "softened": soften(given, found, flips=0.5),
        "dropped": drop_lowest(given, found, SHARE),
    }


def strength(model: RewardModel, asked: Flipped) -> float:
    """Correlation of a member's margin with the true gap, mean over the members."""
    logits = model.logits(asked.comparisons.a, asked.comparisons.b).double().numpy()
    return float(np.mean([pearson(one, asked.gap) for one in logits]))
