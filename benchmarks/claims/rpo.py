"""A likelihood term keeps a direct loss from what its data do not cover.

Source: Liu et al. (2024), "Provably mitigating overoptimization in RLHF: your SFT loss is
implicitly an adversarial regularizer", arXiv:2405.16436.

A bandit of three arms: a good and a bad one, compared a hundred times, of which the good one wins
about 73; and an arm that the data hardly cover, worse than both, which one stray answer prefers to
the good one. DPO (β = 0.1) believes the stray answer, because nothing contradicts it. RPO subtracts
c · log π(chosen) with c = β η.

The gradient of RPO is that of value-incentivised preference optimisation, offline, with the chosen
responses as calibration and α = η (Cen et al., 2024, arXiv:2405.19320); checked too.

Control: without the stray answer DPO leaves the uncovered arm alone.
"""

import numpy as np
import torch

from benchmarks.claims.bandits import Pairs, fitted, side
from benchmarks.claims.claim import ClaimResult, Row
from prefgym.direct_losses import Recipe, direct_loss, implicit_reward

KEY = "rpo"
CLAIM = (
    "The supervised term on preferred responses is an adversarial regulariser: it stops a direct "
    "loss from over-optimising towards responses that the data hardly cover."
)
BETA, ETAS, ANSWERS, WINS = 0.1, (0.005, 0.05, 0.2), 100, 0.73
GOOD, BAD, UNCOVERED = range(3)
REWARDS = np.array([1.0, 0.0, -1.0])
DRAWS, QUICK_DRAWS = 20, 5
"""Data sets, each with wins drawn anew."""


def run(seed: int, quick: bool) -> ClaimResult:
    """Every data set under DPO and RPO with three strengths."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    draws = QUICK_DRAWS if quick else DRAWS
    wins = rng.binomial(ANSWERS, WINS, size=draws)
    dpo = np.array([learned(0.0, data(int(won), stray=True)) for won in wins])
    without = np.array([learned(0.0, data(int(won), stray=False)) for won in wins])
    rpo = {
        eta: np.array([learned(eta, data(int(won), stray=True)) for won in wins]) for eta in ETAS
    }
    middle = rpo[0.05]
    return ClaimResult(
        KEY,
        CLAIM,
        seed,
        rows=[
            Row("DPO, least probability of the uncovered arm", dpo[:, UNCOVERED].min(), ">=", 0.95),
            Row("RPO (η = 0.05), largest", middle[:, UNCOVERED].max(), "<=", 0.25),
            Row("RPO, least probability of the good arm", middle[:, GOOD].min(), ">=", 0.7),
            Row("gradient less that of offline VPO", gradients_apart(rng), "<=", 1e-9),
        ],
        controls=[
            Row("DPO without the stray answer", without[:, UNCOVERED].max(), "<=", 0.05),
            Row("the same without: its good arm", without[:, GOOD].min(), ">=", 0.9),
        ],
        figures={
            "dpo_uncovered": float(dpo[:, UNCOVERED].mean()),
            **{f"rpo_{eta}_uncovered": float(rpo[eta][:, UNCOVERED].mean()) for eta in ETAS},
            "dpo_reward": float((dpo @ REWARDS).mean()),
            **{f"rpo_{eta}_reward": float((rpo[eta] @ REWARDS).mean()) for eta in ETAS},
        },
    )


def data(won: int, stray: bool) -> Pairs:
    """A hundred comparisons of good and bad, and perhaps the stray one."""
    label = (np.arange(ANSWERS) < won).astype(np.float64)
    a, b = np.full(ANSWERS, GOOD), np.full(ANSWERS, BAD)
    if stray:
        a, b, label = (
            np.append(column, last) for column, last in ((a, UNCOVERED), (b, GOOD), (label, 1.0))
        )
    return Pairs(np.zeros_like(a), a, b, label)


def learned(eta: float, pairs: Pairs) -> np.ndarray:
    """Probabilities of the three arms under RPO; DPO where η is 0."""
    recipe = Recipe(beta=BETA, likelihood=BETA * eta, likelihood_reduce="sum")
    return fitted(recipe, np.full((1, 3), 1.0 / 3.0), pairs)[0]


def gradients_apart(rng: np.random.Generator, eta: float = 0.05) -> float:
    """Largest difference of the two gradients, at a random policy and anchor."""
    anchor = torch.as_tensor(rng.normal(size=(1, 3))).log_softmax(1)
    logits = torch.as_tensor(rng.normal(size=(1, 3))).requires_grad_()
    pairs = data(70, stray=True)
    pairs = pairs.relabelled(np.ones_like(pairs.label))
    label = torch.as_tensor(pairs.label)
    slopes = []
    for incentive in (False, True):
        known = logits.log_softmax(1)
        a, b = (side(known, anchor, pairs.context, arm) for arm in (pairs.a, pairs.b))
        if incentive:
            loss = direct_loss(Recipe(beta=BETA), a, b, label) - eta * BETA * implicit_reward(a)
        else:
            recipe = Recipe(beta=BETA, likelihood=BETA * eta, likelihood_reduce="sum")
            loss = direct_loss(recipe, a, b, label)
        slopes.append(torch.autograd.grad(loss.mean(), logits)[0])
    return float((slopes[0] - slopes[1]).abs().max())
