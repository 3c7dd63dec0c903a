"""Reward models that must all agree are over-optimised less than one of them.

Source: Coste et al. (2023), "Reward model ensembles help mitigate overoptimization",
arXiv:2310.02743.

A response is a point drawn from a normal distribution; gold is its closeness to a point two
deviations from the centre, so that one can go too far in the right direction too. Five reward
models of equal make are fitted to the same 600 comparisons, a quarter of which were turned round.
What is measured is the gold (in deviations of the responses) of the best of n by the proxy, up to
n = 4096, by the estimator without bias over 12,600 candidates. "Single" is what the five give one
by one, on average. "Drop" is how far the mean curve has come down from its own peak at n = 4096.
One run says little, so that the curves are means over runs, each with a target, comparisons and
initial weights of its own.

Control: where no label is turned round the members agree, nothing falls, and the ensemble is hardly
better than one of its members.

Told besides: a plain mean over the members (``mean_...``) and a smaller λ (``uwo_0.5_...``) help
too, and less.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from benchmarks.claims.claim import ClaimResult, Row
from prefgym.comparisons import Comparisons
from prefgym.models.fit import adam, fit
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.overoptimisation import best_of
from prefgym.raters import make_rater
from prefgym.rewards import cautious_reward, mean_reward, worst_reward
from prefgym.segments import Segments

KEY = "ensembles"
CLAIM = (
    "Where labels are noisy, the best of many by the least of an ensemble, or by its mean less its "
    "variance, is better than by a single reward model, and falls less from its peak."
)
FEATURES, DISTANCE = 8, 2.0
MEMBERS, HIDDEN, RATE, EPOCHS, BATCH = 5, (32, 32, 32), 1e-2, 12, 32
PAIRS, FLIPPED = 600, 0.25
CANDIDATES = 12_600
SIZES = np.array([1, 4, 16, 64, 256, 1024, 4096])
OBSERVED = spaces.Box(-1.0, 1.0, (1,), np.float32)
"""Nothing: all is in the response, the action."""
RESPONSE = spaces.Box(-np.inf, np.inf, (FEATURES,), np.float32)

AGGREGATES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": mean_reward,
    "uwo_0.5": partial(cautious_reward, penalty=0.5),
    "uwo": partial(cautious_reward, penalty=2.0),
    "wco": worst_reward,
}


class Curve(NamedTuple):
    """Mean gold over the runs at every size."""

    gold: np.ndarray

    @property
    def final(self) -> float:
        """Gold of the best of 4096."""
        return float(self.gold[-1])

    @property
    def drop(self) -> float:
        """How far that is below the peak."""
        return float(self.gold.max() - self.gold[-1])


def run(seed: int, quick: bool) -> ClaimResult:
    """All runs with labels turned round, and some of them without."""
    torch.set_num_threads(1)
    runs, controls = (15, 3) if quick else (60, 10)
    seeds = np.random.SeedSequence(seed).spawn(runs)
    noisy = curves(seeds, FLIPPED)
    clean = curves(seeds[:controls], 0.0)
    single = noisy["single"]
    rows = [
        Row("WCO over single, gold at 4096", noisy["wco"].final / single.final, ">=", 1.2),
        Row("UWO over single, gold at 4096", noisy["uwo"].final / single.final, ">=", 1.2),
        Row("single: drop from its peak", single.drop, ">=", 0.2),
        Row("WCO: drop from its peak over single's", noisy["wco"].drop / single.drop, "<=", 0.5),
        Row("UWO: drop from its peak over single's", noisy["uwo"].drop / single.drop, "<=", 0.5),
    ]
    alone = clean["single"]
    without = [
        Row("no mistakes: WCO over single", clean["wco"].final / alone.final, "<=", 1.1),
        Row("no mistakes: UWO over single", clean["uwo"].final / alone.final, "<=", 1.1),
        Row("no mistakes, single: drop from its peak", alone.drop, "<=", 0.05),
    ]
    figures = {
        **{f"{told}_final": curve.final for told, curve in noisy.items()},
        **{f"{told}_drop": curve.drop for told, curve in noisy.items()},
        **{f"clean_{told}_final": curve.final for told, curve in clean.items()},
        "runs": float(runs),
    }
    return ClaimResult(KEY, CLAIM, seed, rows, without, figures)


def curves(seeds: list[np.random.SeedSequence], mistakes: float) -> dict[str, Curve]:
    """What every way to read the ensemble leads to."""
    runs = [one_run(np.random.default_rng(seed), mistakes) for seed in seeds]
    return {told: Curve(np.mean([run[told] for run in runs], 0)) for told in runs[0]}


def one_run(rng: np.random.Generator, mistakes: float) -> dict[str, np.ndarray]:
    """Gold of the best of each size, by one ensemble."""
    target = rng.normal(size=FEATURES)
    target *= DISTANCE / np.linalg.norm(target)
    a, b = (responses(rng, PAIRS, target) for _ in range(2))
    model = fitted(a, b, mistakes, rng)

    candidates = responses(rng, CANDIDATES, target)
    gold = np.asarray(candidates.rewards)[:, 0]
    gold = (gold - gold.mean()) / gold.std()
    model.standardise(candidates)
    every = model.member_rewards(candidates)[..., 0].double().numpy()
    return {
        "single": best_of(every, np.broadcast_to(gold, every.shape), SIZES).mean(0),
        **{
            told: best_of(model.rewards(candidates, how)[:, 0].double().numpy(), gold, SIZES)
            for told, how in AGGREGATES.items()
        },
    }


def responses(rng: np.random.Generator, many: int, target: np.ndarray) -> Segments:
    """Segments of one step, whose true reward is the gold."""
    points = rng.normal(size=(many, 1, FEATURES))
    nothing = np.zeros((many, 1, 1), np.float32)
    return Segments(
        actions=points.astype(np.float32),
        mask=np.ones((many, 1), bool),
        context=nothing[:, 0],
        context_id=np.zeros(many, np.int64),
        observations=nothing,
        rewards=-((points - target) ** 2).sum(-1),
    )


def fitted(a: Segments, b: Segments, mistakes: float, rng: np.random.Generator) -> RewardModel:
    """Five models of the same answers, alike but for their first weights and their order."""
    label = make_rater("mistake", mistake=mistakes)(a, b, rng).label
    first = int(rng.integers(2**31))
    model = reward_model(OBSERVED, RESPONSE, MEMBERS, HIDDEN, activation="relu", seed=first)
    comparisons = Comparisons(a, b, label)
    optimizer = adam(model, RATE)
    fit(model, comparisons, optimizer, rng, epochs=EPOCHS, batch_pairs=BATCH, stop_accuracy=1.0)
    return model
