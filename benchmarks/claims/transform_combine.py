"""A sum of log-sigmoids asks for responses that are good in all respects, a plain sum does not.

Source: Wang et al. (2024), "Transforming and combining rewards for aligning large language models",
arXiv:2402.00742.

In each of many contexts there are candidate responses with two rewards that pull apart (correlation
−½). A response is good in a respect if that reward is above its median. What is measured is how
likely the policy is good in both that a combined reward prefers most within 2 nats of the uniform
one (:func:`best_within_kl`). The log-sigmoid has its reference at the 0.85 quantile of 64 responses
of the reference policy to the same context, for each reward.

Controls: with one reward alone there is nothing to combine, and the transform does next to nothing;
and with references so high that nobody reaches them, the log-sigmoid is a straight line and the two
policies are the same.

Told besides: the quantile matters (``median``, ``0.95``); the gain is larger where one of the
rewards has a long tail, which a plain sum runs after (``long_tail_...``); and the plain minimum of
the two, which also asks for both, does better than the log-sigmoid where both rewards are normal
and worse where one has a long tail.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.claims.claim import ClaimResult, Row
from prefgym.overoptimisation import best_within_kl
from prefgym.rewards import (
    log_sigmoid_sum,
    preference_as_reward,
    reference_level,
    worst_reward,
)

KEY = "transform_combine"
CLAIM = (
    "Of rewards that conflict, a sum of log-sigmoids around references is the probability to be "
    "good in all: at the same divergence more responses are good in all than under the plain sum."
)
CORRELATION = -0.5
NATS = 2.0
CONTEXTS, QUICK_CONTEXTS, CANDIDATES, REFERENCES = 300, 75, 512, 64
QUANTILE = 0.85
FAR = 50.0
"""How far above what occurs the references of the control are."""


class Contexts(NamedTuple):
    """Two rewards of candidates and of responses of the reference policy."""

    rewards: Tensor
    """``[2, contexts, candidates]``"""
    references: Tensor
    """``[2, contexts, references]``"""

    def level(self, quantile: float) -> Tensor:
        """What counts as good, ``[2, contexts, 1]``."""
        return reference_level(self.references, quantile)[..., None]


def run(seed: int, quick: bool) -> ClaimResult:
    """Every combination on the same candidates."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    contexts = QUICK_CONTEXTS if quick else CONTEXTS
    normal, tail = drawn(rng, contexts, False), drawn(rng, contexts, True)
    both = {told: all_good(normal, combined) for told, combined in combinations(normal).items()}
    tailed = {told: all_good(tail, combined) for told, combined in combinations(tail).items()}
    one = Contexts(normal.rewards[:1], normal.references[:1])
    alone = combinations(one)
    far = normal.rewards.amax(-1, keepdim=True) + FAR
    straight = best(log_sigmoid_sum(normal.rewards, far)) - best(normal.rewards.sum(0))
    rows = [
        Row("good in both, log-sigmoids less sum", both["lsc"] - both["sum"], ">=", 0.10),
        Row("the same, one reward with a long tail", tailed["lsc"] - tailed["sum"], ">=", 0.10),
    ]
    gained_alone = all_good(one, alone["lsc"]) - all_good(one, alone["sum"])
    controls = [
        Row("one reward alone: good in it, the same difference", abs(gained_alone), "<=", 0.03),
        Row("references out of reach: policies apart", 0.5 * _apart(straight), "<=", 1e-6),
    ]
    figures = {
        **both,
        **{f"long_tail_{told}": share for told, share in tailed.items()},
        "one_alone": all_good(one, alone["sum"]),
    }
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def drawn(rng: np.random.Generator, contexts: int, tail: bool) -> Contexts:
    """Normal rewards, the second of which may be bent into a log-normal one."""
    mix = np.linalg.cholesky([[1.0, CORRELATION], [CORRELATION, 1.0]])

    def responses(many: int) -> Tensor:
        draws = np.einsum("ij,jcn->icn", mix, rng.normal(size=(2, contexts, many)))
        if tail:
            draws[1] = np.exp(0.7 * draws[1])
        return torch.as_tensor(draws)

    return Contexts(responses(CANDIDATES), responses(REFERENCES))


def combinations(contexts: Contexts) -> dict[str, Tensor]:
    """Ways to make one reward of all, ``[contexts, candidates]`` each."""
    rewards, references = contexts.rewards, contexts.references[:, :, None, :]
    return {
        "sum": rewards.sum(0),
        "lsc": log_sigmoid_sum(rewards, contexts.level(QUANTILE)),
        "lsc_median": log_sigmoid_sum(rewards, contexts.level(0.5)),
        "lsc_0.95": log_sigmoid_sum(rewards, contexts.level(0.95)),
        "par": preference_as_reward(rewards, references).sum(0),
        "min": worst_reward(rewards),
    }


def best(combined: Tensor) -> np.ndarray:
    """The best policy for a combined reward."""
    return best_within_kl(combined.numpy(), NATS)


def all_good(contexts: Contexts, combined: Tensor) -> float:
    """How likely that policy is above the median of every reward."""
    rewards = contexts.rewards.numpy()
    good = (rewards > np.median(rewards, axis=-1, keepdims=True)).all(0)
    return float((best(combined) * good).sum(1).mean())


def _apart(difference: np.ndarray) -> float:
    """The largest L1 norm of a row."""
    return float(np.abs(difference).sum(1).max())
