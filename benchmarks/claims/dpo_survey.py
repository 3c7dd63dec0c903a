"""The direct losses, each at its optimum in closed form, on the bandit of two responses.

Source: "A Survey of Direct Preference Optimization" (2025), arXiv:2503.11701, for the family; the
losses' own papers stand in :mod:`prefgym.direct_losses`.

With a softmax policy over two responses, an anchor μ and a soft label p, every loss is a function
of one number, and its minimum can be written down, or is the root of a slope of one line; both are
written here once more in plain Python. L-BFGS on :func:`prefgym.direct_losses.direct_loss` must
end there. KTO has no inner optimum (its slope knows only on which side of ½ the label is): its
value and its slope at the anchor are checked, and that it runs to certainty.

Where labels are flipped (not in the quick part), rDPO, told how often, must come nearer to the
KL-regularised optimum than DPO, and earn more; where every label of a pair agrees, IPO's margin
must stop at 1/(2τ) while DPO's keeps growing.

Controls: with a label of ½ at a uniform anchor no loss moves the policy; planted faults, each a
mistake that somebody could make, must all leave the closed form; rDPO told that nothing is flipped
must be DPO.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch

from benchmarks.claims.bandits import Pairs, descended, distance, fitted, side, sigmoid, tilted
from benchmarks.claims.claim import ClaimResult, Row
from prefgym.direct_losses import RECIPES, Recipe, direct_loss

KEY = "dpo_survey"
CLAIM = (
    "The direct losses differ in what margin they want for a label: each has its own optimum in "
    "closed form, flipped labels mislead DPO but not rDPO, and unanimous ones not IPO."
)
DRAWS, QUICK_DRAWS = 20, 4
"""Bandits whose label, anchor and settings are drawn anew."""
EXACT = 1e-3
CONTEXTS, ARMS, LABELS, FLIPS, SEEDS = 16, 6, 10_000, 0.2, 5


def run(seed: int, quick: bool) -> ClaimResult:
    """Closed forms; and, unless quick, flipped and unanimous labels."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    worst, faults, tie = optima(rng, QUICK_DRAWS if quick else DRAWS)
    rows = [
        Row(f"{name}: largest distance from its closed form", far, "<=", EXACT)
        for name, far in worst.items()
    ]
    controls = [Row("labels of ½: largest margin", tie, "<=", EXACT)]
    controls += [Row(f"fault found: {name}", far, ">", 10 * EXACT) for name, far in faults.items()]
    figures = {"worst": max(worst.values()), "losses": float(len(worst))}
    if not quick:
        flipped = [flips(np.random.default_rng((seed, k))) for k in range(SEEDS)]
        mean = {name: float(np.mean([one[name] for one in flipped])) for name in flipped[0]}
        earned = sum(one["reward_rdpo"] > one["reward_dpo"] for one in flipped)
        nearer = sum(one["far_rdpo"] < one["far_dpo"] for one in flipped)
        grown, stopped = unanimous()
        rows += [
            Row("seeds in which rDPO earns more than DPO, 20 % flipped", earned, ">=", SEEDS - 1),
            Row("seeds in which rDPO is nearer to the optimum", nearer, ">=", SEEDS - 1),
            Row("DPO's margin on agreed pairs, 4,000 steps over 1,000", grown, ">=", 1.2),
            Row("IPO's margin there, distance from 1/(2τ), relative", stopped, "<=", 0.1),
        ]
        controls.append(Row("rDPO told of no flips, distance from DPO", mean["idle"], "<=", 1e-12))
        figures |= {**mean, "dpo_growth": grown, "ipo_off": stopped}
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


# --- closed forms -----------------------------------------------------------------------------


def optima(
    rng: np.random.Generator, draws: int
) -> tuple[dict[str, float], dict[str, float], float]:
    """Largest distances from the closed forms, those of planted faults, and a tie's margin."""
    worst: dict[str, float] = {}
    faults: dict[str, float] = {}
    tie = 0.0
    for _ in range(draws):
        p, anchor = float(rng.uniform(0.6, 0.9)), float(rng.uniform(0.2, 0.45))
        for name, recipe in _drawn(rng).items():
            wanted = closed_form(name, recipe, p, anchor)
            label = _flipped(p, recipe.flips) if name == "rdpo" else p
            worst = _larger(worst, {name: abs(logit_of(recipe, label, anchor) - wanted)})
            tie = max(tie, abs(logit_of(recipe, 0.5, 0.5)))
        worst = _larger(worst, _kto(RECIPES["kto"], p, anchor))
        faults = _larger(faults, _faults(rng, p, anchor))
    return worst, faults, tie


def _drawn(rng: np.random.Generator) -> dict[str, Recipe]:
    """Every recipe but KTO, with settings of this draw."""
    beta, flips = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.05, 0.3))
    drawn = {
        name: replace(recipe, beta=recipe.beta if recipe.odds else beta)
        for name, recipe in RECIPES.items()
        if name != "kto"
    }
    return drawn | {name: replace(drawn[name], flips=flips) for name in ("cdpo", "rdpo", "exo")}


def closed_form(name: str, recipe: Recipe, p: float, anchor: float) -> float:
    """The optimal log-odds of the first response; from the definitions, in plain Python.

    For rDPO ``p`` is the clean label, and it is given the flipped one.
    """
    beta, away = recipe.beta, _logit(anchor)
    flipped = _flipped(p, recipe.flips)
    margin = {
        "dpo": lambda: _logit(p) / beta,
        "cdpo": lambda: _logit(flipped) / beta,
        "exo": lambda: _logit(flipped) / beta,
        "rdpo": lambda: _logit(p) / beta,
        "ipo": lambda: (2 * p - 1) / (2 * beta),
        "hinge": lambda: 1 / beta,
        "irepo": lambda: _logit(min(p, 1 - 0.5 / recipe.votes)) / beta,
    }
    if name in margin:
        return away + margin[name]()
    slope: dict[str, Callable[[float], float]] = {
        "rpo": lambda u: beta * (_s(beta * (u - away)) - p) + recipe.likelihood * (_s(u) - p),
        "cpo": lambda u: beta * (_s(beta * u) - p) + recipe.likelihood * (_s(u) - p),
        "orpo": lambda u: recipe.weight * 2 * (_s(2 * u) - p) + recipe.likelihood * (_s(u) - p),
        "simpo": lambda u: (
            (1 - p) * _s(recipe.offset + beta * u) - p * _s(recipe.offset - beta * u)
        ),
        "cpl": lambda u: _cpl_slope(u, p, beta, recipe.bias),
    }
    return _root(slope[name])


def _cpl_slope(u: float, p: float, alpha: float, bias: float) -> float:
    win, lose = _s(u), _s(-u)
    first, second = alpha * math.log(win), alpha * math.log(lose)
    won = _s(bias * second - first) * (lose + bias * win)
    lost = _s(bias * first - second) * (win + bias * lose)
    return (1 - p) * lost - p * won


def _flipped(p: float, share: float) -> float:
    """The label that is left of ``p`` where such a share of the answers is flipped."""
    return (1 - share) * p + share * (1 - p)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _s(x: float) -> float:
    return 0.5 + 0.5 * math.tanh(0.5 * x)


def _root(slope: Callable[[float], float]) -> float:
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return low


def logit_of(recipe: Recipe, p: float, anchor: float) -> float:
    """The log-odds of the first response that the library's loss ends with."""
    one = np.zeros(1, np.int64)
    pairs = Pairs(one, one, one + 1, np.array([p]))
    win, lose = fitted(recipe, np.array([[anchor, 1 - anchor]]), pairs)[0].tolist()
    return math.log(max(win, 1e-300) / max(lose, 1e-300))


def _kto(recipe: Recipe, p: float, anchor: float) -> dict[str, float]:
    """At the anchor half the weight, the slope (1 − 2p) β/4 · d(h_a − h_b), and then certainty."""
    known = torch.tensor([[math.log(anchor), math.log(1 - anchor)]], dtype=torch.float64)
    logits = known.clone().requires_grad_()
    at, label = np.zeros(1, np.int64), torch.tensor([p], dtype=torch.float64)
    both = (side(logits.log_softmax(1), known, at, at + arm) for arm in (0, 1))
    cost = direct_loss(recipe, *both, label)
    (slope,) = torch.autograd.grad(cost.sum(), logits)
    wanted = (1 - 2 * p) * recipe.beta / 4 / 2
    return {
        "kto at the anchor": abs(cost.item() - 0.5),
        "kto's slope there": abs(slope[0, 0].item() - wanted),
        "kto in the end (1 − π)": _s(-logit_of(recipe, p, anchor)),
    }


def _faults(rng: np.random.Generator, p: float, anchor: float) -> dict[str, float]:
    """How far off the closed form what is wrong ends."""
    drawn = _drawn(rng)
    dpo, cdpo, simpo, cpo = (drawn[name] for name in ("dpo", "cdpo", "simpo", "cpo"))
    wrong = {
        "the anchor forgotten": ("dpo", dpo, replace(dpo, anchored=False), p),
        "the label made hard by one vote of ten": ("dpo", dpo, dpo, min(p + 0.1, 0.99)),
        "beta of half the size": ("ipo", drawn["ipo"], replace(drawn["ipo"], beta=dpo.beta / 2), p),
        "smoothing left out": ("cdpo", cdpo, dpo, p),
        "the flips corrected in the wrong direction": ("rdpo", drawn["rdpo"], cdpo, p),
        "the margin's offset left out": ("simpo", simpo, replace(simpo, offset=0.0), p),
        "the likelihood term left out": ("cpo", cpo, replace(cpo, likelihood=0.0), p),
        "the bias left out": ("cpl", drawn["cpl"], replace(drawn["cpl"], bias=1.0), p),
        "probabilities in place of odds": (
            "orpo",
            drawn["orpo"],
            replace(drawn["orpo"], odds=False),
            p,
        ),
    }
    return {
        fault: abs(logit_of(used, label, anchor) - closed_form(name, meant, p, anchor))
        for fault, (name, meant, used, label) in wrong.items()
    }


def _larger(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {**one, **{name: max(one.get(name, 0.0), value) for name, value in other.items()}}


# --- flipped and unanimous labels -------------------------------------------------------------


def flips(rng: np.random.Generator, beta: float = 0.5) -> dict[str, float]:
    """True reward, and distance from the regularised optimum, where 20 % of the labels lie."""
    rewards = rng.normal(size=(CONTEXTS, ARMS))
    start = np.full_like(rewards, 1.0 / ARMS)
    context, a = rng.integers(CONTEXTS, size=LABELS), rng.integers(ARMS, size=LABELS)
    b = (a + rng.integers(1, ARMS, size=LABELS)) % ARMS
    truth = rng.random(LABELS) < sigmoid(rewards[context, a] - rewards[context, b])
    lies = rng.random(LABELS) < FLIPS
    pairs = Pairs(context, a, b, np.where(lies, ~truth, truth).astype(np.float64))
    best = tilted(start, rewards, beta)
    told: dict[str, float] = {"reward_best": float((best * rewards).sum(1).mean())}
    for name, recipe in {
        "dpo": Recipe(beta=beta),
        "rdpo": Recipe("robust", beta, flips=FLIPS),
        "cdpo": Recipe("smoothed", beta, flips=FLIPS),
    }.items():
        policy = descended(recipe, start, pairs, 500)
        told[f"reward_{name}"] = float((policy * rewards).sum(1).mean())
        told[f"far_{name}"] = distance(policy, best)
    plain, idle = (
        descended(recipe, start, pairs, 50)
        for recipe in (Recipe(beta=beta), Recipe("robust", beta, flips=0.0))
    )
    return told | {"idle": distance(plain, idle)}


def unanimous(tau: float = 0.1) -> tuple[float, float]:
    """Growth of DPO's margin between 1,000 and 4,000 steps, and how far IPO's is from 1/(2τ)."""
    at = np.zeros(1, np.int64)
    pairs, start = Pairs(at, at, at + 1, np.ones(1)), np.full((1, 2), 0.5)
    early, late, ipo = (
        _logit(float(descended(recipe, start, pairs, steps, 0.003)[0, 0]))
        for recipe, steps in ((Recipe(), 1_000), (Recipe(), 4_000), (Recipe("square", tau), 4_000))
    )
    return late / early, abs(ipo * 2 * tau - 1.0)
