"""Two reward models that choose for one another what to learn from withstand wrong labels.

Source: Zhang et al. (2025), "Two minds better than one: collaborative reward modeling for LLM
alignment", arXiv:2505.10597: each of two models learns from the share of pairs on which its peer
finds the preferred side better by most.

Four in ten labels of 3000 pairs are wrong, and that share is known. After a warm-up of 30 % of the
passes the two models are shown 60 % of the pairs, chosen from all of them before each pass. Plain
fits have as many passes over all the pairs. Accuracies are on pairs without mistakes, means over
runs with pairs and initial weights of their own: of a single model of the two, and of their mean.

Controls: where no label is wrong there is nothing to gain, and leaving out 40 % costs a little; and
the gain is not what two models bring by being two: a single peer beats the mean of two plain ones.

What is not claimed: that a peer chooses better than the model itself (``own_40``). The paper's
order of batches from easy to hard is left out: it does harm. A plain fit that ends after the
warm-up (``stopped_40``) has learned few wrong labels by heart, and most of the gain over a long
plain fit is against these.
"""

from dataclasses import replace

import numpy as np
import torch

from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.flipped_labels import (
    EPOCHS,
    HELD_OUT,
    PAIRS,
    Flipped,
    accuracies,
    drawn,
    fitted,
)
from prefgym.curation import PeerSelection, filter_quality, untouched
from prefgym.models.reward_models import RewardModel

KEY = "crm"
CLAIM = (
    "With 40 % of the labels wrong, two models that choose for one another are better than a plain "
    "one trained for as long, and than the mean of two."
)
RUNS = {40: 5, 20: 3, 0: 2}
"""Per cent of the labels that are wrong -> runs."""
QUICK_RUNS = {40: 1, 20: 0, 0: 1}
NOISE = 0.4


def run(seed: int, quick: bool) -> ClaimResult:
    """Peers and plain fits, with mistakes and without."""
    torch.set_num_threads(1)
    runs = QUICK_RUNS if quick else RUNS
    told: dict[str, float] = {}
    for percent, count in runs.items():
        found = [shown(np.random.default_rng((seed, percent, k)), percent) for k in range(count)]
        names = found[0] if found else ()
        told |= {
            f"{name}_{percent}": float(np.mean([one[name] for one in found])) for name in names
        }

    def gain(percent: int, over: str = "plain") -> float:
        return told[f"peer_{percent}"] - told[f"{over}_{percent}"]

    kept = told["noise_kept_40"]
    rows = [
        Row("40 % wrong: a peer less a plain model", gain(40), ">=", 0.04),
        Row("40 % wrong: wrong labels among those kept", kept, "<=", NOISE / 2),
    ]
    if runs[20]:
        rows.append(Row("20 % wrong: a peer less a plain model", gain(20), ">=", 0.025))
    controls = [
        Row("none wrong: a peer less a plain model", gain(0), "<=", 0.0),
        Row("40 % wrong: a peer less the mean of two", gain(40, "plain_both"), ">=", 0.02),
    ]
    return ClaimResult(KEY, CLAIM, seed, rows, controls, told)


def shown(rng: np.random.Generator, percent: int) -> dict[str, float]:
    """Accuracies of one run, and how well the peers chose."""
    noise = percent / 100
    known, asked = drawn(rng, PAIRS, noise), drawn(rng, HELD_OUT)
    peers = PeerSelection(noise or NOISE, EPOCHS)
    models = {"plain": fitted(known, rng, 2), "peer": fitted(known, rng, 2, curate=peers)}
    told = chosen(peers, models["peer"], known)
    if noise == NOISE:
        models["own"] = fitted(known, rng, 2, curate=replace(peers, own=True))
        models["stopped"] = fitted(known, rng, 2, int(peers.warm_up * EPOCHS))
    for name, model in models.items():
        told[name], told[f"{name}_both"] = accuracies(model, asked)
    return told


def chosen(peers: PeerSelection, model: RewardModel, known: Flipped) -> dict[str, float]:
    """How well the peers tell right labels from wrong ones at the end."""
    logits = model.logits(known.comparisons.a, known.comparisons.b)
    dropped = peers.dropped(logits, untouched(known.comparisons).label).numpy()
    if not known.flipped.any():
        return {}
    quality = filter_quality(dropped, np.broadcast_to(known.flipped, dropped.shape))
    return quality._asdict()
