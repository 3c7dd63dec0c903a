"""Over-optimisation: what becomes of the true reward ("gold") while a proxy of it is pushed up.

Two ways to push that need no training and leave no doubt whether it went well: the best of n
candidates by the proxy, and the distribution over candidates that the proxy prefers most among
those within a given KL divergence of where they were drawn from.
"""

import numpy as np
from jaxtyping import Float, Int

_BISECTIONS = 60
_SHALLOWEST, _STEEPEST = -25.0, 45.0
"""Bounds of log(range of the rewards / temperature) that are searched."""


def best_of(
    proxy: Float[np.ndarray, " *batch candidates"],
    gold: Float[np.ndarray, " *batch candidates"],
    sizes: Int[np.ndarray, " sizes"],
) -> Float[np.ndarray, " *batch sizes"]:
    """Mean gold of the best by proxy among n candidates, over all subsets of n of the N given.

    Σ_{i ≥ n} C(i − 1, n − 1) / C(N, n) · gold_(i), with gold_(i) that of the i-th lowest proxy. It
    has no bias, and far less spread than drawing n once. Candidates of equal proxy share their
    places, as a tie broken by a coin does.

    Source: Nakano et al. (2021), arXiv:2112.09332; as used by Coste et al. (2023),
    arXiv:2310.02743.

    Args:
        proxy: by which the best is chosen.
        gold: what is measured of it.
        sizes: n, from 1 to the number of candidates.

    Raises:
        ValueError: shapes that differ, NaN, or a size out of range.
    """
    sizes = np.asarray(sizes)
    proxy, gold = _finite("best_of", proxy=proxy, gold=gold)
    many = proxy.shape[-1]
    if not ((sizes >= 1) & (sizes <= many)).all():
        raise ValueError(
            f"best_of: sizes go from {sizes.min()} to {sizes.max()}; wanted 1 to {many}, the "
            "number of candidates."
        )
    order = np.argsort(proxy, axis=-1, kind="stable")
    ordered = _shared(np.take_along_axis(proxy, order, -1), np.take_along_axis(gold, order, -1))
    factorial = np.concatenate([[0.0], np.log(np.arange(1, many + 1)).cumsum()])
    place, size = np.arange(1, many + 1), sizes[:, None]
    above = np.maximum(place - size, 0)
    ways = factorial[place - 1] - factorial[size - 1] - factorial[above]
    all_ways = factorial[many] - factorial[size] - factorial[many - size]
    chances = np.where(place >= size, np.exp(ways - all_ways), 0.0)
    means: np.ndarray = ordered @ chances.T
    return means


def best_of_kl(sizes: Int[np.ndarray, " sizes"]) -> Float[np.ndarray, " sizes"]:
    """How far the best of n is from a single draw: log n − (n − 1)/n nats, at most.

    Exact where no two candidates are equal. Source: Stiennon et al. (2020), appendix G.3,
    arXiv:2009.01325.

    Raises:
        ValueError: a size below 1.
    """
    sizes = np.asarray(sizes)
    if not (sizes >= 1).all():
        raise ValueError(f"best_of_kl: the least size is {sizes.min()}, wanted 1 or more.")
    nats: np.ndarray = np.log(sizes) - (sizes - 1) / sizes
    return nats


def best_within_kl(
    rewards: Float[np.ndarray, " *batch candidates"],
    nats: float,
    start: Float[np.ndarray, " *batch candidates"] | None = None,
) -> Float[np.ndarray, " *batch candidates"]:
    """The distribution of highest mean reward with KL(π ‖ start) ≤ nats: π ∝ start · exp(r / β).

    β is found by bisection, apart for each row, so that the divergence is ``nats``. Where even all
    weight on the best candidates is nearer than that, they share it as they did in ``start``. What
    two rewards make of it depends on their shape alone, not on their units: a·r + b with a > 0
    gives the same.

    Args:
        rewards: of every candidate.
        nats: the divergence, above 0.
        start: probabilities before; uniform if left out.

    Returns:
        Probabilities.

    Raises:
        ValueError: ``nats`` is not above 0, NaN or infinite rewards, or a start that is no
            distribution.
    """
    if not nats > 0.0:
        raise ValueError(f"best_within_kl: nats is {nats}, wanted a number above 0.")
    (rewards,) = _finite("best_within_kl", rewards=rewards)
    log_start = _log_start(rewards, start)
    possible = log_start > -np.inf
    below = rewards - np.where(possible, rewards, -np.inf).max(-1, keepdims=True)
    below = np.where(possible, below, 0.0)
    span = -below.min(-1, keepdims=True)
    below = below / np.where(span > 0.0, span, 1.0)
    low = np.full(span.shape, _SHALLOWEST)
    high = np.full(span.shape, _STEEPEST)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        near = _divergence(_tilted(log_start, below, middle), log_start) < nats
        low, high = np.where(near, middle, low), np.where(near, high, middle)
    probabilities: np.ndarray = np.exp(_tilted(log_start, below, low))
    return probabilities


def _tilted(log_start: np.ndarray, below: np.ndarray, log_steepness: np.ndarray) -> np.ndarray:
    """Log-probabilities of start · exp(steepness · reward)."""
    logits = log_start + np.exp(log_steepness) * below
    logits = logits - logits.max(-1, keepdims=True)
    log_prob: np.ndarray = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return log_prob


def _divergence(log_prob: np.ndarray, log_start: np.ndarray) -> np.ndarray:
    """KL in nats, ``[*batch, 1]``."""
    held = log_prob > -np.inf
    terms = np.where(held, log_prob, 0.0) - np.where(held, log_start, 0.0)
    nats: np.ndarray = (np.exp(log_prob) * terms).sum(-1, keepdims=True)
    return nats


def _shared(proxy: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Gold in ascending order of proxy, its mean where proxies are equal."""
    rows = gold.reshape(-1, gold.shape[-1])
    new = np.ones(rows.shape, bool)
    new[:, 1:] = np.diff(proxy.reshape(rows.shape), axis=1) > 0
    run = new.ravel().cumsum() - 1
    mean = np.bincount(run, rows.ravel()) / np.bincount(run)
    shared: np.ndarray = mean[run].reshape(gold.shape)
    return shared


def _log_start(rewards: np.ndarray, start: np.ndarray | None) -> np.ndarray:
    if start is None:
        return np.full(rewards.shape, -np.log(rewards.shape[-1]))
    start = np.broadcast_to(np.asarray(start, dtype=np.float64), rewards.shape)
    if not (start >= 0.0).all() or not np.allclose(start.sum(-1), 1.0):
        raise ValueError(
            f"best_within_kl: start sums to {start.sum(-1).min():.6g} and its least entry is "
            f"{start.min():.3g}; wanted probabilities, which sum to 1."
        )
    with np.errstate(divide="ignore"):
        log_start: np.ndarray = np.log(start)
    return log_start


def _finite(function: str, **arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays in float64, of one shape, with candidates and no NaN."""
    exact = {name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()}
    shapes = {name: values.shape for name, values in exact.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{function}: got shapes {shapes}; give one number of each candidate.")
    for name, values in exact.items():
        if not values.ndim or not values.shape[-1]:
            raise ValueError(
                f"{function}: {name} has shape {values.shape}; wanted [..., candidates], 1 or more."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{function}: {name} holds NaN or infinity; look at the reward model.")
    return list(exact.values())
