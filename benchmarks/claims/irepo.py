"""Regression on the log-odds of several votes, step after step.

Source: Le et al. (2024), "iREPO: implicit reward pairwise difference based empirical preference
optimization", arXiv:2405.15230.

A bandit of eight arms. The policy π_t is improved by one step: minimise (β D − logit q)², where D
is the margin of log-ratios to π_t and q the share of votes that the first of two arms got. With
exact q the step ends in π_t exp(r/β), and so do three steps in a row in π_0 exp(3r/β).

With votes: every pair of arms is shown once (as pairs of responses are) to five voters who choose
by Bradley and Terry's model, and of whose votes a fifth is flipped. DPO gets the majority as a hard
label, as is usual. How votes become q is not published; here q stays within [1/2h, 1 − 1/2h].

In single games of 28 votes the distance is smaller by a quarter in about 70 % (figure
``single_games_closer``).

Controls: DPO on the soft labels q is as good as iREPO, so that it is the degree of the vote that
helps and not the square; without a bound on q unanimous votes spoil the regression; and voters who
toss coins leave nothing to learn.
"""

import numpy as np
import torch

from benchmarks.claims.bandits import Pairs, distance, fitted, sigmoid, tilted
from benchmarks.claims.claim import ClaimResult, Row
from prefgym.direct_losses import Recipe

KEY = "irepo"
CLAIM = (
    "Regressing the difference of implicit rewards on the votes of several annotators reaches the "
    "regularised optimum in one step, and with few and noisy votes comes nearer to it than DPO."
)
ARMS, BETA, VOTERS, FLIPS = 8, 1.0, 5, 0.2
SEEDS, GAMES, QUICK_SEEDS = 5, 20, 1
"""Bandits with rewards, anchor and votes of their own; distances are means over 20 of them."""
A, B = np.triu_indices(ARMS, 1)


def run(seed: int, quick: bool) -> ClaimResult:
    """Exact steps, and steps from votes."""
    torch.set_num_threads(1)
    seeds = QUICK_SEEDS if quick else SEEDS
    told = [game(np.random.default_rng((seed, k))) for k in range(seeds * GAMES)]
    mean = {name: float(np.mean([one[name] for one in told])) for name in told[0]}
    irepo, dpo = (np.array([one[name] for one in told]) for name in ("irepo", "dpo"))
    ratios = irepo.reshape(seeds, GAMES).mean(1) / dpo.reshape(seeds, GAMES).mean(1)
    closer = float((irepo <= 0.75 * dpo).mean())
    return ClaimResult(
        KEY,
        CLAIM,
        seed,
        rows=[
            Row("one exact step, largest distance", max(one["one"] for one in told), "<=", 1e-6),
            Row("three exact steps", max(one["three"] for one in told), "<=", 1e-6),
            Row("from votes: mean distance over DPO's", mean["irepo"] / mean["dpo"], "<=", 0.75),
            Row("seeds with 25 % less distance", (ratios <= 0.75).sum(), ">=", max(1, seeds - 1)),
        ],
        controls=[
            Row("mean distance over soft-label DPO's", mean["irepo"] / mean["soft"], ">=", 0.9),
            Row("the same without a bound on q", mean["unbounded"] / mean["soft"], ">=", 1.25),
            Row("coins: distance over the start's", mean["coins"] / mean["start"], ">=", 0.95),
        ],
        figures={**mean, "single_games_closer": closer, "games": float(len(told))},
    )


def game(rng: np.random.Generator) -> dict[str, float]:
    """Distances from π_0 exp(r/β) on one bandit."""
    rewards = rng.normal(size=(1, ARMS))
    start = rng.dirichlet(np.full(ARMS, 3.0), size=1)
    best = tilted(start, rewards, BETA)
    truth = sigmoid(rewards[0, A] - rewards[0, B])
    told = (1.0 - FLIPS) * truth + FLIPS * (1.0 - truth)
    votes = rng.binomial(VOTERS, told) / VOTERS
    coins = rng.binomial(VOTERS, 0.5, size=len(A)) / VOTERS
    policies = {
        "one": step(start, truth, voters=10**6),
        "irepo": step(start, votes),
        "unbounded": step(start, votes, voters=10**6),
        "coins": step(start, coins),
        "dpo": fitted(Recipe(beta=BETA), start, pairs((votes > 0.5).astype(np.float64)), 200),
        "soft": fitted(Recipe(beta=BETA), start, pairs(votes)),
        "start": start,
    }
    three = start
    for _ in range(3):
        three = step(three, truth, voters=10**6)
    return {
        **{name: distance(policy, best) for name, policy in policies.items()},
        "three": distance(three, tilted(start, 3.0 * rewards, BETA)),
    }


def step(start: np.ndarray, share: np.ndarray, voters: int = VOTERS) -> np.ndarray:
    """One step of the iteration, from and anchored at ``start``."""
    return fitted(Recipe("regression", BETA, votes=voters), start, pairs(share))


def pairs(label: np.ndarray) -> Pairs:
    """Every pair of arms once."""
    return Pairs(np.zeros_like(A), A, B, label)
