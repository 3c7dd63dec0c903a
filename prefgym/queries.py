"""Which pairs to ask a rater about: scores of a pool of candidate pairs in, indices of it out.

``logits`` are those of P(a ≻ b), one row per member of an ensemble; ``features`` are one row of
numbers per candidate pair (for example both segments, flattened and joined). Among equal scores
the earlier candidate wins, so that nothing but ``rng`` is random.

Sources: Christiano et al. (2017), sec. 2.2.4, arXiv:1706.03741 (disagreement); Lee et al. (2021),
sec. 3.3, arXiv:2106.05091 (entropy, k-centre, and k-centre among the most uncertain).
"""

import numpy as np
from jaxtyping import Float, Int

from prefgym.metrics import sigmoid

_BLOCK = 1 << 22
"""Distances held at once while known centres are taken in: 32 MiB."""


def uniform(pool: int, count: int, rng: np.random.Generator) -> Int[np.ndarray, " {count}"]:
    """Any ``count`` different candidates of a pool of ``pool``, each set equally likely."""
    _enough(pool, count)
    return rng.choice(pool, size=count, replace=False)


def disagreement(
    logits: Float[np.ndarray, " members pool"], count: int
) -> Int[np.ndarray, " {count}"]:
    """The candidates on whose P(a ≻ b) the members of the ensemble differ most, most first."""
    return _highest(_spread(logits), count)


def entropy(logits: Float[np.ndarray, " members pool"], count: int) -> Int[np.ndarray, " {count}"]:
    """The candidates whose answer is most open, most first: entropy of the mean probability.

    Departure: Lee et al. average the entropies of the members, which misses the doubt that lies
    between members that are sure of opposite answers.
    """
    return _highest(_binary_entropy(_probabilities(logits).mean(0)), count)


def mutual_information(
    logits: Float[np.ndarray, " members pool"], count: int
) -> Int[np.ndarray, " {count}"]:
    """The candidates whose answer tells most about which member is right, most first.

    Entropy of the mean probability minus the mean entropy of the members: pairs that every member
    calls a coin flip, which ``entropy`` likes, are worth nothing here.
    Source: Houlsby et al. (2011), eq. 2, arXiv:1112.5745.
    """
    probabilities = _probabilities(logits)
    information = _binary_entropy(probabilities.mean(0)) - _binary_entropy(probabilities).mean(0)
    return _highest(information, count)


def k_centre(
    features: Float[np.ndarray, " pool dim"],
    count: int,
    rng: np.random.Generator,
    centres: Float[np.ndarray, " known dim"] | None = None,
) -> Int[np.ndarray, " {count}"]:
    """Candidates that cover the pool: each pick is the one farthest from all picks before it.

    Greedy 2-approximation of the smallest covering radius, Euclidean. One pass over the pool per
    pick: the distance to the nearest centre only ever shrinks towards the newest one.

    Args:
        features: one row per candidate.
        count: how many to pick.
        rng: draws the first pick where there are no centres yet.
        centres: rows of the pairs that were labelled before; picks stay away from these too.

    Returns:
        Different indices into the pool, in the order of the picks.
    """
    features = _finite("features", features, "[pool, dim]")
    _enough(len(features), count)
    picks = np.empty(count, dtype=np.int64)
    if not count:
        return picks
    origin = features[0]  # a shift loses no digits where all rows are far from zero
    rows = features - origin
    norms = (rows**2).sum(1)
    nearest = np.full(len(rows), np.inf)
    if centres is not None and len(centres):
        centres = _finite("centres", centres, "[known, dim]")
        if centres.shape[1] != features.shape[1]:
            raise ValueError(
                f"k_centre: centres have {centres.shape[1]} features, the pool has "
                f"{features.shape[1]}; describe both in the same way."
            )
        nearest = _nearest(rows, norms, centres - origin)
        picks[0] = nearest.argmax()
    else:
        picks[0] = rng.integers(len(rows))
    for done in range(1, count):
        newest = picks[done - 1]
        to_newest = np.maximum(norms + norms[newest] - 2.0 * (rows @ rows[newest]), 0.0)
        np.minimum(nearest, to_newest, out=nearest)
        nearest[newest] = -1.0  # never again, even where the pool repeats a row
        picks[done] = nearest.argmax()
    return picks


def k_centre_disagreement(
    logits: Float[np.ndarray, " members pool"],
    features: Float[np.ndarray, " pool dim"],
    count: int,
    rng: np.random.Generator,
    centres: Float[np.ndarray, " known dim"] | None = None,
    keep: float = 0.5,
) -> Int[np.ndarray, " {count}"]:
    """``k_centre`` among the share ``keep`` of the pool that the members differ most on."""
    kept = disagreement(logits, _kept(logits, features, count, keep))
    picks: np.ndarray = kept[k_centre(features[kept], count, rng, centres)]
    return picks


def k_centre_entropy(
    logits: Float[np.ndarray, " members pool"],
    features: Float[np.ndarray, " pool dim"],
    count: int,
    rng: np.random.Generator,
    centres: Float[np.ndarray, " known dim"] | None = None,
    keep: float = 0.5,
) -> Int[np.ndarray, " {count}"]:
    """``k_centre`` among the share ``keep`` of the pool whose answer is most open."""
    kept = entropy(logits, _kept(logits, features, count, keep))
    picks: np.ndarray = kept[k_centre(features[kept], count, rng, centres)]
    return picks


def pair_indices(
    context_id: Int[np.ndarray, " segments"], count: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " {count}"], Int[np.ndarray, " {count}"]]:
    """Different random pairs of segments that share a context.

    Every set of ``count`` unordered pairs is equally likely, and which of the two stands first is
    a coin flip. Where any two segments may be compared, give zeros as ids.

    Args:
        context_id: one id per segment; equal ids mean the same prompt or reset state.
        count: how many pairs to draw.
        rng: the only source of chance.

    Returns:
        Indices of the first and of the second segments, never equal in one row.

    Raises:
        ValueError: fewer than ``count`` pairs share a context.
    """
    context_id = np.asarray(context_id)
    if context_id.ndim != 1:
        raise ValueError(
            f"pair_indices: context_id has shape {context_id.shape}, wanted [segments]."
        )
    order = np.argsort(context_id, kind="stable")
    _, first_of, sizes = np.unique(context_id[order], return_index=True, return_counts=True)
    pairs_before = np.concatenate([[0], np.cumsum(sizes * (sizes - 1) // 2)])
    if not 0 <= count <= pairs_before[-1]:
        raise ValueError(
            f"pair_indices: asked for {count} pairs, but {len(context_id)} segments of "
            f"{len(sizes)} contexts make {pairs_before[-1]} pairs that share one; collect more "
            "segments per context or ask for fewer pairs."
        )
    drawn = rng.choice(int(pairs_before[-1]), size=count, replace=False)
    group = np.searchsorted(pairs_before, drawn, side="right") - 1
    low, high = _unordered_pair(drawn - pairs_before[group])
    swap = rng.random(count) < 0.5
    first, second = np.where(swap, high, low), np.where(swap, low, high)
    return order[first_of[group] + first], order[first_of[group] + second]


def _unordered_pair(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ``number``-th of the pairs (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    high = (0.5 + np.sqrt(0.25 + 2.0 * number)).astype(np.int64)
    high -= high * (high - 1) // 2 > number  # the root of a large number may round up
    high += high * (high + 1) // 2 <= number  # or down
    return number - high * (high - 1) // 2, high


def _probabilities(logits: np.ndarray) -> np.ndarray:
    return sigmoid(_finite("logits", logits, "[members, pool]"))


def _spread(logits: np.ndarray) -> np.ndarray:
    spread: np.ndarray = _probabilities(logits).std(0)
    return spread


def _binary_entropy(probability: np.ndarray) -> np.ndarray:
    """In nats; a certain answer has none."""
    tiny = np.finfo(np.float64).tiny
    other = 1.0 - probability
    nats: np.ndarray = -(
        probability * np.log(np.maximum(probability, tiny))
        + other * np.log(np.maximum(other, tiny))
    )
    return nats


def _highest(scores: np.ndarray, count: int) -> np.ndarray:
    _enough(len(scores), count)
    return np.argsort(-scores, kind="stable")[:count]


def _nearest(rows: np.ndarray, norms: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distance of every row to the nearest centre; ``norms`` are the rows' squared."""
    centre_norms = (centres**2).sum(1)
    at_once = max(1, _BLOCK // len(centres))
    nearest = np.concatenate(
        [
            (centre_norms - 2.0 * rows[at : at + at_once] @ centres.T).min(1)
            for at in range(0, len(rows), at_once)
        ]
    )
    distances: np.ndarray = np.maximum(nearest + norms, 0.0)
    return distances


def _kept(logits: np.ndarray, features: np.ndarray, count: int, keep: float) -> int:
    """How many of the most uncertain candidates k-centre chooses from."""
    pool = int(np.shape(features)[0])
    if np.shape(logits)[-1] != pool:
        raise ValueError(
            f"Got logits of {np.shape(logits)[-1]} candidates and features of {pool}; both must "
            "describe the same pool."
        )
    if not 0.0 < keep <= 1.0:
        raise ValueError(f"Got keep={keep}; give a share of the pool, above 0 and up to 1.")
    _enough(pool, count)
    return max(count, round(keep * pool))


def _finite(name: str, values: np.ndarray, shape: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not values.shape[0]:
        raise ValueError(f"Got {name} of shape {values.shape}, wanted {shape} with rows in it.")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise ValueError(f"{name} has a NaN or an infinite number in row {row}; give finite ones.")
    return values


def _enough(pool: int, count: int) -> None:
    if not 0 <= count <= pool:
        raise ValueError(
            f"Asked for {count} queries from a pool of {pool} candidates; ask for at most as many "
            "as there are, or make the pool larger."
        )
