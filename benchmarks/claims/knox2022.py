"""Regret tells the reward from noiseless answers, and people answer by regret.

Source: Knox et al. (2022), Models of human preference for learning reward functions,
arXiv:2206.02231. A segment's *regret* is what it falls short of optimal behaviour; its *partial
return* is its sum of rewards. Rewards are linear in the six things that a step on a gridworld
counts, and are learned by whichever account answered. A reward is *near-optimal* if the policy that
is optimal under it gains more than 0.9 of what can be gained over random actions.

Random MDPs. On 100 boards, pairs of three random steps are compared, without noise and with it
(Boltzmann, β = 1); by regret and without noise on 400 more. Without noise, partial returns say only
which sum is larger: some optimal policies are not among what they leave possible, however many they
are (3,000 or 30,000). Regret gets there with 300. Noise should free partial returns of this limit,
as frequencies tell sizes. On these boards that shows late and in part only (the figures
``partial-return_noisy_*``: by 3,000 pairs nothing is gained): gas costs exactly what a coin gives,
which answers without noise pin down as ties, and after noisy ones an estimate that is 0.02 off has
the agent collect one coin for ever.

The delivery board. 50 noisy answers by either account, learned from by either, 40 times. Random
pairs rarely show the goal, so that only values of states tell where it is.

People. 1,793 answers of people on the delivery board, if they are at hand: a folder in the
environment variable ``PREFGYM_DATA`` (or ``shared/data/knox_human`` beside this checkout or in it)
with ``*_segment_pairs.npy`` and ``*_Y.npy`` of the condition Privileged-Control, from
``data/human_data`` of github.com/Stephanehk/InfluencingHumanPrefs. They carry no licence and are
not part of this project. How well either account predicts held-out answers, after fitting how sure
people are (one number); without the data, the figure ``human_data`` is 0 and these rows are absent.

Controls. Answers of a coin, learned from by either account, are rarely near-optimal (small boards
make it easy to be so by luck). Human answers that are put to other
pairs, either way round, tell nothing.

Departures: the values of states are the maximum over the library (published: soft, at temperature
0.001, which is the same but for rounding); the rates of descent fall to 0 over 1,500 iterations for
regret and 3,000 for partial returns (published: constant, 5,000 and 30,000). As published, nothing
in the library was made from the true reward; policies drawn for other rewards may be optimal.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.provenance import ROOT
from prefgym.converters.arrays import read_delivery
from prefgym.models.linear_rewards import (
    PARTIAL_RETURN,
    REGRET,
    LinearComparisons,
    ValueLibrary,
    fit_linear_rewards,
)
from prefgym.raters import make_rater
from prefgym.segments import Segments
from prefgym_envs import delivery, planning, random_mdps
from prefgym_envs.tabular_mdps import TabularMDPs, stack

KEY = "knox2022"
CLAIM = (
    "Regret identifies the reward up to its optimal policies from noiseless preferences, which "
    "partial return does not, and it predicts human preferences better."
)
BOARDS, MORE_BOARDS = 100, 400
"""Random MDPs; and such on which regret alone is tried, without noise."""
STEPS, POOL = 3, 20_000
"""Of a segment; how many segments a board's pairs are drawn from."""
NEAR_OPTIMAL = 0.9
"""Scaled return from which on a policy counts as near-optimal."""
BOARD_WEIGHTS = (50.0, -50.0, 1.0, -1.0, -2.0, 0.0, -10.0, 10.0, 5.0)
DELIVERY_WEIGHTS = (-1.0, 50.0, -50.0, 1.0, -1.0, -2.0)
"""What the rewards are drawn from for which the policies of a library are optimal."""
ACCOUNTS = ("regret", "partial-return")
NOISE = {"noiseless": np.inf, "noisy": 1.0}
"""Rationality β of the answers."""
DESCENTS = {
    "regret": replace(REGRET, learning_rate=1.0, iterations=1_500, settle=True),
    "partial-return": replace(PARTIAL_RETURN, iterations=3_000, settle=True),
}
FOLDS, UNINFORMED = 10, np.log(2.0)


@dataclass(frozen=True, eq=False)
class Worlds:
    """Boards, segments on them to compare, and what a learner of regret knows of them."""

    mdps: TabularMDPs
    pool: Segments
    """Of the first board, then those of the next one, :data:`POOL` each."""
    features: np.ndarray
    """``[boards, POOL, 6]`` the sums of the segments."""
    ends: np.ndarray
    """``[boards, POOL, 2]`` the states where they begin and end."""
    library: ValueLibrary


def run(seed: int, quick: bool) -> ClaimResult:
    """All three experiments, or a small part of the first and the third."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    found = random_boards(12 if quick else BOARDS, (300,) if quick else (300, 3_000, 30_000), rng)
    if not quick:
        found |= delivery_board(40, rng)
        found |= by_regret_on_more_boards(found, (300, 3_000), rng)
    people = human_figures(rng)
    rows, controls = judged(found, quick)
    more, other = judged_people(people)
    figures = {**found, "human_data": float(bool(people)), **people}
    return ClaimResult(KEY, CLAIM, seed, [*rows, *more], [*controls, *other], figures)


def judged(found: dict[str, float], quick: bool) -> tuple[list[Row], list[Row]]:
    """What is wanted of the shares of near-optimal rewards.

    Over seeds regret comes to 0.967; five hundred boards tell that to ±0.008 (one standard error),
    and a dozen little.
    """
    rows = [
        Row(f"regret, noiseless, {size} pairs: share near-optimal",
            found[f"regret_noiseless_{size}"], ">=", 0.75 if quick else 0.95)
        for size in ((300,) if quick else (300, 3_000))
    ]  # fmt: skip
    if not quick:
        before, after = (found[f"partial-return_noiseless_{size}"] for size in (3_000, 30_000))
        matched = found["delivery_regret_by_regret"]
        rows += [
            Row("partial return, noiseless, 30000 pairs: the same", after, "<=", 0.95),
            Row("... gained by ten times as many pairs", after - before, "<=", 0.05),
            Row("... behind regret with 3000", found["regret_noiseless_3000"] - after, ">=", 0.03),
            Row("regret, noisy, 3000 pairs: the same", found["regret_noisy_3000"], ">=", 0.9),
            Row("delivery, 50 noisy answers: regret by regret", matched, ">=", 0.5),
            Row("... over partial return by partial return",
                matched - found["delivery_partial-return_by_partial-return"], ">=", 0.25),
        ]  # fmt: skip
    controls = [
        Row(
            f"a coin's answers by {one}: share near-optimal",
            found[f"{one}_coin"],
            "<=",
            0.7 if quick else 0.5,
        )
        for one in ACCOUNTS
    ]
    if not quick:
        controls += [
            Row(f"a coin's answers on the delivery board by {one}",
                found[f"delivery_coin_by_{one}"], "<=", 0.3)
            for one in ACCOUNTS
        ]  # fmt: skip
    return rows, controls


def random_boards(count: int, sizes: Sequence[int], rng: np.random.Generator) -> dict[str, float]:
    """Shares of near-optimal rewards, by account, noise and number of pairs."""
    tasks = [random_mdps.task(int(one)).mdps for one in rng.integers(2**31, size=count)]
    worlds = prepared(stack(tasks), BOARD_WEIGHTS, 100, rng)
    found = {}
    for size in sizes:
        pairs = rng.integers(POOL, size=(count, size, 2))
        for account in ACCOUNTS:
            if account == "regret" and size > 3_000:
                continue  # it has nothing to gain, and takes the time of all others together
            labels = [answers(worlds, pairs, account, beta, rng) for beta in NOISE.values()]
            good = near_optimal(worlds, pairs, np.stack(labels, 1), account)
            for at, noise in enumerate(NOISE):
                found[f"{account}_{noise}_{size}"] = float(good[:, at].mean())
    pairs = rng.integers(POOL, size=(count, sizes[0], 2))
    for account in ACCOUNTS:
        coin = rng.integers(2, size=(count, 1, sizes[0])).astype(np.float64)
        found[f"{account}_coin"] = float(near_optimal(worlds, pairs, coin, account).mean())
    return found


def by_regret_on_more_boards(
    found: dict[str, float], sizes: Sequence[int], rng: np.random.Generator
) -> dict[str, float]:
    """Shares of near-optimal rewards by regret, without noise, over all boards."""
    good: dict[int, list[float]] = {one: [] for one in sizes}
    for _ in range(MORE_BOARDS // BOARDS):
        tasks = [random_mdps.task(int(one)).mdps for one in rng.integers(2**31, size=BOARDS)]
        worlds = prepared(stack(tasks), BOARD_WEIGHTS, 100, rng)
        for size in sizes:
            pairs = rng.integers(POOL, size=(BOARDS, size, 2))
            label = answers(worlds, pairs, "regret", NOISE["noiseless"], rng)
            good[size].append(near_optimal(worlds, pairs, label[:, None], "regret").mean())
    names = {one: f"regret_noiseless_{one}" for one in sizes}
    return {name: float(np.mean([found[name], *good[one]])) for one, name in names.items()}


def delivery_board(draws: int, rng: np.random.Generator) -> dict[str, float]:
    """Shares of near-optimal rewards on the delivery board, by who answers and who learns."""
    worlds = prepared(delivery.task().mdps, DELIVERY_WEIGHTS, 69, rng)
    found = {}
    for answered in (*ACCOUNTS, "coin"):
        pairs = rng.integers(POOL, size=(1, draws * 50, 2))
        label = (
            rng.integers(2, size=(1, draws * 50)).astype(np.float64)
            if answered == "coin"
            else answers(worlds, pairs, answered, 1.0, rng)
        )
        for account in ACCOUNTS:
            good = near_optimal(
                worlds, pairs.reshape(1, draws, 50, 2), label.reshape(1, draws, 50), account
            )
            found[f"delivery_{answered}_by_{account}"] = float(good.mean())
    return found


def prepared(
    mdps: TabularMDPs, choices: Sequence[float], policies: int, rng: np.random.Generator
) -> Worlds:
    """Segments of random actions on every board, and a library of policies."""
    board = np.arange(len(mdps))[:, None]
    chance = np.cumsum(mdps.start, 1)
    drawn = rng.random((len(mdps), POOL, 1)) * chance[:, None, -1:]
    state = (drawn >= chance[:, None]).sum(-1)
    features, begin, steps = np.zeros((len(mdps), POOL, mdps.weights.shape[1])), state, []
    values = planning.solve(mdps)
    for _ in range(STEPS):
        action = rng.integers(mdps.actions, size=state.shape)
        lost = values.q[board, state, action] - values.v[board, state]
        steps.append((action, mdps.rewards[board, state, action], lost))
        features += mdps.features[board, state, action, 0]
        state = mdps.next_state[board, state, action, 0]
    actions, rewards, advantages = (np.stack(part, -1) for part in zip(*steps, strict=True))
    flat = (-1, STEPS)
    pool = Segments(
        actions=actions.reshape(flat),
        mask=np.ones((actions.size // STEPS, STEPS), np.bool_),
        context=begin.reshape(-1),
        context_id=begin.reshape(-1),
        rewards=rewards.reshape(flat),
        advantages=advantages.reshape(flat),
    )
    return Worlds(
        mdps, pool, features, np.stack([begin, state], -1), library(mdps, choices, policies, rng)
    )


def library(
    mdps: TabularMDPs, choices: Sequence[float], policies: int, rng: np.random.Generator
) -> ValueLibrary:
    """Successor features of policies that are optimal for rewards drawn without looking."""
    drawn = rng.choice(choices, (policies, *mdps.weights.shape))
    known = [planning.solve_with_features(mdps.with_weights(one)).features for one in drawn]
    features = np.stack(known, 1)
    distinct = [
        np.unique(one.reshape(policies, -1).round(6), axis=0).reshape(-1, *one.shape[1:])
        for one in features
    ]
    most = max(map(len, distinct))
    return ValueLibrary(
        np.stack([np.resize(one, (most, *one.shape[1:])) for one in distinct]), temperature=0.0
    )


def answers(
    worlds: Worlds, pairs: np.ndarray, account: str, beta: float, rng: np.random.Generator
) -> np.ndarray:
    """Labels of pairs ``[boards, pairs, 2]``, by a scripted rater."""
    rater = make_rater(account, beta=beta)
    first = POOL * np.arange(len(pairs))[:, None]
    labels = [
        rater(worlds.pool.take(at + a), worlds.pool.take(at + b), rng).label
        for at, (a, b) in zip(first, pairs.transpose(0, 2, 1), strict=True)
    ]
    return np.stack(labels)


def near_optimal(worlds: Worlds, pairs: np.ndarray, labels: np.ndarray, account: str) -> np.ndarray:
    """Whether the rewards that are learned serve, ``[boards, data sets]``.

    Args:
        worlds: where.
        pairs: ``[boards, pairs, 2]``, or ``[boards, data sets, pairs, 2]`` where they differ.
        labels: ``[boards, data sets, pairs]``.
        account: by which it is learned.
    """
    boards, sets, size = labels.shape
    shown = pairs if pairs.ndim == 4 else np.repeat(pairs[:, None], sets, 1)
    shown = shown.reshape(boards * sets, size, 2)
    board = np.arange(boards).repeat(sets)[:, None]
    a, b = shown[..., 0], shown[..., 1]
    ends = np.concatenate([worlds.ends[board, a], worlds.ends[board, b]], -1)
    by_regret = account == "regret"
    data = LinearComparisons(
        worlds.features[board, a] - worlds.features[board, b],
        labels.reshape(boards * sets, size),
        ends if by_regret else None,
    )
    known = worlds.library if by_regret else None
    learned = fit_linear_rewards(data.merged(), known, DESCENTS[account]).weights
    good = [
        planning.scaled_returns(
            worlds.mdps,
            planning.greedy(planning.solve(worlds.mdps.with_weights(weights)).q),
        )
        > NEAR_OPTIMAL
        for weights in learned.reshape(boards, sets, -1).transpose(1, 0, 2)
    ]
    return np.stack(good, 1)


def human_figures(rng: np.random.Generator) -> dict[str, float]:
    """Held-out cross-entropies of the answers of people, nats; nothing where there are none."""
    folder = human_data()
    if folder is None:
        return {}
    people = read_delivery(folder)
    mdps, task = delivery.task().mdps, delivery.task()
    scores = {name: [] for name in ACCOUNTS}
    for side in (people.a, people.b):
        assert side.observations is not None
        reward = np.where(side.mask, mdps.rewards[0, side.observations, side.actions], 0.0)
        last = np.maximum(side.lengths - 1, 0)[:, None]
        at, move = (
            np.take_along_axis(part, last, 1)[:, 0] for part in (side.observations, side.actions)
        )
        end, begin = mdps.next_state[0, at, move, 0], side.context
        scores["partial-return"].append(reward.sum(1))
        change = task.state_values(end) - task.state_values(begin)
        scores["regret"].append(reward.sum(1) + change)
    order = rng.permutation(len(people.label))
    turned = np.where(rng.random(len(order)) < 0.5, people.label, 1.0 - people.label)
    shuffled = rng.permutation(turned)
    found = {"human_answers": float(len(people.label)), "human_uninformed": float(UNINFORMED)}
    for name, (a, b) in scores.items():
        found[f"human_{name}"] = held_out(a - b, people.label, order)
        found[f"human_{name}_shuffled"] = held_out(a - b, shuffled, order)
    return found


def human_data() -> Path | None:
    """Where the answers of people are, if they are anywhere."""
    named = os.environ.get("PREFGYM_DATA")
    places = [Path(named)] if named else []
    places += [root / "shared" / "data" / "knox_human" for root in (ROOT, ROOT.parent)]
    return next((one for one in places if list(one.glob("*_segment_pairs.npy"))), None)


def held_out(margin: np.ndarray, label: np.ndarray, order: np.ndarray) -> float:
    """Mean cross-entropy of answers that were not fitted, P = σ(k · margin), in 10 folds.

    The one number k minimises the loss of the other folds; the loss is convex in it, and Newton's
    method finds it for all folds at once.
    """
    fold = np.empty(len(order), np.int64)
    fold[order] = np.arange(len(order)) % FOLDS
    fitted = (fold != np.arange(FOLDS)[:, None]).astype(np.float64)
    unit = margin / margin.std()
    slope = np.zeros(FOLDS)
    for _ in range(30):
        sure = 1.0 / (1.0 + np.exp(-slope[:, None] * unit))
        down = (fitted * (sure - label) * unit).sum(1)
        bend = (fitted * sure * (1.0 - sure) * unit**2).sum(1)
        slope -= down / bend
    odds = slope[fold] * unit
    return float((np.logaddexp(0.0, odds) - label * odds).mean())


def judged_people(people: dict[str, float]) -> tuple[list[Row], list[Row]]:
    """What is wanted of them, if they were asked."""
    if not people:
        return [], []
    rows = [
        Row(f"people: |cross-entropy by {name} − {wanted}|",
            abs(people[f"human_{name}"] - wanted), "<=", 0.005)
        for name, wanted in (("partial-return", 0.620), ("regret", 0.573))
    ]  # fmt: skip
    controls = [
        Row(f"people's answers to other pairs: cross-entropy by {name}",
            people[f"human_{name}_shuffled"], ">=", 0.69)
        for name in ACCOUNTS
    ]  # fmt: skip
    return rows, controls
