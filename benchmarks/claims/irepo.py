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

The panel: h annotators tell P(a ≻ b) by k of h votes as (k + ½) / (h + 1), which is finite however
they vote. Pairs have gaps of deviation 1. With h = 1, 3, 9, 27 the log-odds come nearer to the true
gap, though at first slower than by √h. Regressing on what 27 annotators said, the log-ratios of the
policy are those of the rewards (their slope, over all games together, within 5 %), and stay so.
DPO on the majority's hard labels goes on for as long as it is trained, but for the few games in
which the majorities go round in a circle through all arms.

Controls: DPO on the soft labels q is as good as iREPO, so that it is the degree of the vote that
helps and not the square; without a bound on q unanimous votes spoil the regression; voters who toss
coins leave nothing to learn; and annotators who never disagree tell no degree, so that the more of
them there are, the farther off the log-odds.
"""

import numpy as np
import torch

from benchmarks.claims.bandits import Pairs, descended, distance, fitted, sigmoid, tilted
from benchmarks.claims.claim import ClaimResult, Row
from prefgym.direct_losses import Recipe
from prefgym.raters import Panel, Rater, make_rater
from prefgym.segments import Segments

KEY = "irepo"
CLAIM = (
    "Regressing the difference of implicit rewards on the votes of several annotators reaches the "
    "regularised optimum in one step, with few and noisy votes comes nearer to it than DPO, and "
    "with many recovers the log-ratios of the rewards."
)
ARMS, BETA, VOTERS, FLIPS = 8, 1.0, 5, 0.2
SEEDS, GAMES, QUICK_SEEDS = 5, 20, 1
"""Bandits with rewards, anchor and votes of their own; distances are means over 20 of them."""
A, B = np.triu_indices(ARMS, 1)

PANELS = (1, 3, 9, 27)
"""Annotators, h."""
PANEL_PAIRS, PANEL_GAMES, QUICK_PANEL_GAMES, LONG_GAMES = 20_000, 200, 60, 8
BRIEF, LONG = 100, 1000
"""Steps of Adam."""
UNBOUNDED = 10**6
"""Votes so many that ½ of one bounds nothing; a panel's labels need no bound."""


def run(seed: int, quick: bool) -> ClaimResult:
    """Exact steps, and steps from votes."""
    torch.set_num_threads(1)
    seeds = QUICK_SEEDS if quick else SEEDS
    told = [game(np.random.default_rng((seed, k))) for k in range(seeds * GAMES)]
    mean = {name: float(np.mean([one[name] for one in told])) for name in told[0]}
    irepo, dpo = (np.array([one[name] for one in told]) for name in ("irepo", "dpo"))
    ratios = irepo.reshape(seeds, GAMES).mean(1) / dpo.reshape(seeds, GAMES).mean(1)
    closer = float((irepo <= 0.75 * dpo).mean())
    rows = [
        Row("one exact step, largest distance", max(one["one"] for one in told), "<=", 1e-6),
        Row("three exact steps", max(one["three"] for one in told), "<=", 1e-6),
        Row("from votes: mean distance over DPO's", mean["irepo"] / mean["dpo"], "<=", 0.75),
        Row("seeds with 25 % less distance", (ratios <= 0.75).sum(), ">=", max(1, seeds - 1)),
    ]
    controls = [
        Row("mean distance over soft-label DPO's", mean["irepo"] / mean["soft"], ">=", 0.9),
        Row("the same without a bound on q", mean["unbounded"] / mean["soft"], ">=", 1.25),
        Row("coins: distance over the start's", mean["coins"] / mean["start"], ">=", 0.95),
    ]
    panel = panels(np.random.default_rng((seed, seeds * GAMES)), quick)
    errors = np.array([panel[f"panel_{votes}"] for votes in PANELS])
    rows += [
        Row("panel of 27: mean error of the log-odds, nats", errors[-1], "<=", 0.4),
        Row(
            "larger over smaller panel: mean error, worst", (errors[1:] / errors[:-1]).max(), "<", 1
        ),
        Row(
            "27 votes, regression: slope of log-ratios, less 1", abs(panel["slope"] - 1), "<=", 0.05
        ),
        Row("majority, DPO: log-ratios of ten times the steps", panel["dpo_growth"], ">=", 1.3),
        Row("27 votes, regression: the same", panel["irepo_growth"], "<=", 1.01),
    ]
    agreed = panel["agreed_27"] / panel["agreed_1"]
    controls.append(Row("of one mind: error of 27 over that of 1", agreed, ">=", 2.0))
    figures = {**mean, **panel, "single_games_closer": closer, "games": float(len(told))}
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def panels(rng: np.random.Generator, quick: bool) -> dict[str, float]:
    """Error of what panels say, and what becomes of it, by regression and by DPO."""
    rewards = _rewards(rng, (2, PANEL_PAIRS))
    gap = rewards[0] - rewards[1]
    a, b = (_responses(side) for side in rewards)

    def error(person: Rater, size: int) -> float:
        told = Panel(person, size, smoothing=0.5)(a, b, rng).label
        return float(np.abs(_logit(told) - gap).mean())

    games = [recovered(rng) for _ in range(QUICK_PANEL_GAMES if quick else PANEL_GAMES)]
    along, square = np.sum(games, axis=0)
    growth = np.array([grown(rng) for _ in range(2 if quick else LONG_GAMES)]).mean(0)
    noisy, sure = make_rater("noisy", beta=1.0), make_rater("oracle")
    return {
        **{f"panel_{size}": error(noisy, size) for size in PANELS},
        **{f"agreed_{size}": error(sure, size) for size in (PANELS[0], PANELS[-1])},
        "slope": float(along / square),
        "dpo_growth": float(growth[0]),
        "irepo_growth": float(growth[1]),
    }


def recovered(rng: np.random.Generator) -> tuple[float, float]:
    """Of the largest panel in one game: Σ true gap · regressed log-ratio, and Σ true gap²."""
    start, shown, rewards = _asked(rng)
    found = _log_ratios(step(start, shown.label, UNBOUNDED), start)
    gap = rewards[A] - rewards[B]
    return float(found @ gap), float(gap @ gap)


def grown(rng: np.random.Generator) -> tuple[float, float]:
    """Largest log-ratio of the long training over that of the brief one: DPO, and regression."""
    start, shown, _ = _asked(rng)
    majority = shown.relabelled((shown.label > 0.5).astype(np.float64))

    def growth(recipe: Recipe, pairs: Pairs) -> float:
        ends = (descended(recipe, start, pairs, steps) for steps in (BRIEF, LONG))
        brief, long = (np.abs(_log_ratios(end, start)).max() for end in ends)
        return float(long / brief)

    square = Recipe("regression", BETA, votes=UNBOUNDED)
    return growth(Recipe(beta=BETA), majority), growth(square, shown)


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
        "one": step(start, truth, voters=UNBOUNDED),
        "irepo": step(start, votes),
        "unbounded": step(start, votes, voters=UNBOUNDED),
        "coins": step(start, coins),
        "dpo": fitted(Recipe(beta=BETA), start, pairs((votes > 0.5).astype(np.float64)), 200),
        "soft": fitted(Recipe(beta=BETA), start, pairs(votes)),
        "start": start,
    }
    three = start
    for _ in range(3):
        three = step(three, truth, voters=UNBOUNDED)
    return {
        **{name: distance(policy, best) for name, policy in policies.items()},
        "three": distance(three, tilted(start, 3.0 * rewards, BETA)),
    }


def step(start: np.ndarray, share: np.ndarray, voters: int = VOTERS) -> np.ndarray:
    """One step of the iteration, from and anchored at ``start``."""
    return fitted(Recipe("regression", BETA, votes=voters), start, pairs(share))


def _asked(rng: np.random.Generator) -> tuple[np.ndarray, Pairs, np.ndarray]:
    """An anchor, what the largest panel says of every pair of arms, and the arms' rewards."""
    rewards = _rewards(rng, ARMS)
    arms = _responses(rewards)
    panel = Panel(make_rater("noisy", beta=1.0), PANELS[-1], smoothing=0.5)
    label = panel(arms.take(A), arms.take(B), rng).label
    return rng.dirichlet(np.full(ARMS, 3.0), size=1), pairs(label), rewards


def _rewards(rng: np.random.Generator, shape: int | tuple[int, int]) -> np.ndarray:
    """Rewards whose differences have deviation 1."""
    return rng.normal(0.0, 0.5**0.5, shape)


def _responses(rewards: np.ndarray) -> Segments:
    """Segments of one step with these rewards."""
    count = len(rewards)
    return Segments(
        actions=np.zeros((count, 1), np.int64),
        mask=np.ones((count, 1), bool),
        context=np.zeros((count, 1)),
        context_id=np.zeros(count, np.int64),
        rewards=rewards[:, None],
    )


def _log_ratios(policy: np.ndarray, start: np.ndarray) -> np.ndarray:
    """How much likelier the first arm of every pair has become than the second, nats."""
    ratio = np.log(policy[0] / start[0])
    apart: np.ndarray = ratio[A] - ratio[B]
    return apart


def _logit(probability: np.ndarray) -> np.ndarray:
    odds: np.ndarray = np.log(probability) - np.log1p(-probability)
    return odds


def pairs(label: np.ndarray) -> Pairs:
    """Every pair of arms once."""
    return Pairs(np.zeros_like(A), A, B, label)
