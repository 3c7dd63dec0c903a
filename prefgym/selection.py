"""Which of many candidates to learn from: their rewards in, indices out.

The candidates of one row answer one context (one prompt, one reset state), so that nothing but
their rewards tells them apart.
"""

import numpy as np
from jaxtyping import Float, Int


def rejection(
    rewards: Float[np.ndarray, " contexts candidates"],
    count: int,
    beta: float,
    rng: np.random.Generator,
) -> Int[np.ndarray, " contexts {count}"]:
    """``count`` different candidates of each context, as if drawn from π(y) ∝ π₀(y) exp(r/β).

    The candidates are samples of π₀. In passes over those that remain, each is accepted with
    probability exp((r − M)/β), where M is the best remaining reward, until there are enough; no
    likelihood is needed. β → 0 takes the best ``count``, β → ∞ any.

    Accepted candidates leave, so M falls and later passes lean towards π₀: take few out of many.

    Source: Liu et al. (2023), algorithm 1, arXiv:2309.06657 (RSO), with N = 64, n = 8, β = 0.5.

    Args:
        rewards: r of every candidate.
        count: n, how many to keep of each context.
        beta: β > 0, in the unit of the rewards.
        rng: the only source of chance.

    Returns:
        Indices into the second axis, in the order of acceptance.

    Raises:
        ValueError: rewards that are not finite, more to keep than there are, or β out of range.
    """
    contexts, candidates = rewards.shape
    if not np.isfinite(rewards).all():
        row = int(np.flatnonzero(~np.isfinite(rewards).all(1))[0])
        raise ValueError(f"rejection: the rewards of context {row} are not all finite numbers.")
    if not 1 <= count <= candidates:
        raise ValueError(
            f"rejection: asked to keep {count} of {candidates} candidates; keep at least one, and "
            "at most as many as there are."
        )
    if not beta > 0.0:
        raise ValueError(f"rejection: beta is {beta}, wanted a number above 0.")
    left = np.array(rewards, np.float64)
    kept = np.zeros((contexts, count), np.int64)
    done = np.zeros(contexts, np.int64)
    while (rows := np.flatnonzero(done < count)).size:
        open_ = left[rows]
        accepted = rng.random(open_.shape) < acceptance(open_, beta)
        place = done[rows, None] + np.cumsum(accepted, axis=1) - 1
        accepted &= place < count
        at, candidate = np.nonzero(accepted)
        kept[rows[at], place[at, candidate]] = candidate
        left[rows[at], candidate] = -np.inf
        done[rows] += accepted.sum(1)
    return kept


def acceptance(
    rewards: Float[np.ndarray, " contexts candidates"], beta: float
) -> Float[np.ndarray, " contexts candidates"]:
    """exp((r − max r)/β), the chance of each candidate in one pass; 0 where r is −∞."""
    chance: np.ndarray = np.exp((rewards - rewards.max(1, keepdims=True)) / beta)
    return chance
