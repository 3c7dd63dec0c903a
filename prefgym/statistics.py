"""What a handful of training runs says: aggregates, intervals, comparisons, p-values.

Scores are ``[runs, tasks]``: one number per run of a learner on a task, higher is better, scaled
so that tasks may be averaged. One task alone may come as ``[runs]``. Every draw comes from
``rng``: equal generators, equal intervals. All resamples are computed at once.

Source: Agarwal et al. (2021), "Deep RL at the edge of the statistical precipice",
arXiv:2108.13264.
"""

import math
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Scores = Float[np.ndarray, " runs tasks"] | Float[np.ndarray, " runs"]
Others = Float[np.ndarray, " other_runs tasks"] | Float[np.ndarray, " other_runs"]
Statistic = Callable[[np.ndarray], np.ndarray]
"""One number per resample: ``[resamples, runs, tasks]`` to ``[resamples]``, as ``iqms``."""

_BLOCK = 1 << 22
"""Numbers of resampled scores held at once: 32 MiB."""


class Interval(NamedTuple):
    """A figure, and how far chance alone may have moved it."""

    value: float
    low: float
    high: float


class Band(NamedTuple):
    """A figure at every point of a curve, and how far chance alone may have moved it."""

    value: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]


def iqm(scores: Scores) -> float:
    """Interquartile mean: the mean of the middle half of all runs on all tasks.

    A quarter of the scores, rounded down, is left out at each end (of 5 runs the best and the
    worst, of 3 none). Less moved by one freak run than the mean, less wasteful than the median.
    """
    return float(iqms(_matrix(scores)[None])[0])


def iqms(
    stack: Float[np.ndarray, " resamples runs tasks"],
) -> Float[np.ndarray, " resamples"]:
    """``iqm`` of many score matrices at once."""
    return _middle_mean(_pooled(stack))


def optimality_gap(scores: Scores, target: float = 1.0) -> float:
    """How far scores fall short of ``target`` on average; what lies above it earns nothing."""
    return float(optimality_gaps(_matrix(scores)[None], target)[0])


def optimality_gaps(
    stack: Float[np.ndarray, " resamples runs tasks"], target: float = 1.0
) -> Float[np.ndarray, " resamples"]:
    """``optimality_gap`` of many score matrices at once."""
    gaps: np.ndarray = np.maximum(target - _pooled(stack), 0.0).mean(1)
    return gaps


def performance_profile(
    scores: Scores, thresholds: Float[np.ndarray, " thresholds"]
) -> Float[np.ndarray, " thresholds"]:
    """Share of the runs, over all tasks, that score above each threshold."""
    profile: np.ndarray = _profiles(_matrix(scores)[None], thresholds)[0]
    return profile


def probability_of_improvement(scores: Scores, others: Others) -> float:
    """Chance that a run of ``scores`` beats one of ``others`` on a random task; a tie counts ½.

    Raises:
        ValueError: the two come from different numbers of tasks.
    """
    return float(_improvements(*(one[None] for one in _same_tasks(scores, others)))[0])


def bootstrap_interval(
    scores: Scores,
    rng: np.random.Generator,
    statistic: Statistic = iqms,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Percentile interval of a statistic under the stratified bootstrap.

    Runs are drawn again with replacement within each task, so that every resample has as many
    runs of every task as there were.

    Args:
        scores: finite, at least one run.
        rng: the only source of chance.
        statistic: takes ``[resamples, runs, tasks]`` to ``[resamples]``: ``iqms``,
            ``optimality_gaps``, ``lambda stack: stack.mean((1, 2))``.
        confidence: share of the resamples that the interval holds.
        resamples: how many there are.

    Returns:
        The statistic of the scores themselves, and the interval's ends.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.1, 0.3], [0.2, 0.5], [0.3, 0.4]])
        >>> value, low, high = bootstrap_interval(scores, np.random.default_rng(0))
        >>> low <= value <= high
        True
    """
    _check_bootstrap(confidence, resamples)
    scores = _matrix(scores)
    drawn = _in_blocks(resamples, scores.size, lambda some: statistic(_again(scores, some, rng)))
    low, high = _ends(drawn, confidence)
    return Interval(float(statistic(scores[None])[0]), float(low), float(high))


def improvement_interval(
    scores: Scores,
    others: Others,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """``probability_of_improvement`` with the interval of a stratified bootstrap of both sides.

    An interval above ½ says that ``scores`` are better; one that holds ½ leaves it open.
    """
    _check_bootstrap(confidence, resamples)
    scores, others = _same_tasks(scores, others)
    drawn = _in_blocks(
        resamples,
        scores.size * len(others),
        lambda some: _improvements(_again(scores, some, rng), _again(others, some, rng)),
    )
    low, high = _ends(drawn, confidence)
    return Interval(probability_of_improvement(scores, others), float(low), float(high))


def profile_band(
    scores: Scores,
    thresholds: Float[np.ndarray, " thresholds"],
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Band:
    """``performance_profile`` with a pointwise band of the stratified bootstrap."""
    _check_bootstrap(confidence, resamples)
    scores = _matrix(scores)
    drawn = _in_blocks(
        resamples,
        scores.size + len(thresholds),
        lambda some: _profiles(_again(scores, some, rng), thresholds),
    )
    return Band(_profiles(scores[None], thresholds)[0], *_ends(drawn, confidence))


def curve_band(
    values: Float[np.ndarray, " runs points"],
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Band:
    """Interquartile mean over runs at every point of a learning curve, with a bootstrap band.

    Whole runs are drawn again, so that the band is as smooth as the curves. It holds the true
    curve with the given confidence at each point, not at all points at once.
    """
    _check_bootstrap(confidence, resamples)
    values = _finite(values)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"curve_band: values have shape {values.shape}, wanted [runs, points].")
    runs, curves = len(values), values.T
    drawn = _in_blocks(
        resamples,
        values.size,
        lambda some: _middle_mean(curves[:, rng.integers(runs, size=(some, runs))]).T,
    )
    return Band(_middle_mean(curves), *_ends(drawn, confidence))


def permutation_test(
    scores: Float[np.ndarray, " runs"],
    others: Float[np.ndarray, " other_runs"],
    rng: np.random.Generator,
    resamples: int = 10_000,
    two_sided: bool = False,
) -> float:
    """P-value of the difference of two means, if which run is whose did not matter.

    Every assignment of the runs to the two sides is counted where there are at most ``resamples``
    of them; else that many are drawn, and the p-value is never below 1 / (resamples + 1).

    Args:
        scores: one number per run of the learner that is said to be better.
        others: the same of the other learner.
        rng: draws the assignments, where not all are counted.
        resamples: how many assignments at most.
        two_sided: whether ``others`` being better would count as a difference, too.

    Returns:
        The chance of a difference at least as large.
    """
    scores, others = _one_task("scores", scores), _one_task("others", others)
    pooled = np.concatenate([scores, others])
    pooled = pooled - pooled.mean()
    chosen, total = len(scores), len(pooled)
    exact = math.comb(total, chosen) <= resamples
    if exact:
        members = np.array(list(combinations(range(total), chosen)))
        sums = pooled[members].sum(1)
    else:
        sums = _in_blocks(
            resamples,
            total,
            lambda some: rng.permuted(np.tile(pooled, (some, 1)), axis=1)[:, :chosen].sum(1),
        )
    return _share_as_large(sums, pooled[:chosen].sum(), exact, two_sided, np.abs(pooled).sum())


def paired_permutation_test(
    scores: Float[np.ndarray, " pairs"],
    others: Float[np.ndarray, " pairs"],
    rng: np.random.Generator,
    resamples: int = 10_000,
    two_sided: bool = False,
) -> float:
    """P-value of the mean difference within pairs, if each difference were as likely reversed.

    For runs that share what else varies (the seed, the task): far sharper than the unpaired test.
    Exact where there are at most ``resamples`` ways to reverse. Arguments and result are those of
    ``permutation_test``, with as many others as scores.
    """
    scores, others = _one_task("scores", scores), _one_task("others", others)
    if scores.shape != others.shape:
        raise ValueError(
            f"paired_permutation_test: got {len(scores)} scores and {len(others)} others; give "
            "one of each per pair, or use permutation_test."
        )
    gaps = scores - others
    exact = 2 ** len(gaps) <= resamples
    if exact:
        reversed_ = (np.arange(2 ** len(gaps))[:, None] >> np.arange(len(gaps))) & 1
        sums = (1 - 2 * reversed_) @ gaps
    else:
        sums = _in_blocks(
            resamples,
            len(gaps),
            lambda some: (1 - 2 * rng.integers(2, size=(some, len(gaps)))) @ gaps,
        )
    return _share_as_large(sums, gaps.sum(), exact, two_sided, np.abs(gaps).sum())


def _share_as_large(
    sums: np.ndarray, observed: float, exact: bool, two_sided: bool, scale: float
) -> float:
    if two_sided:
        sums, observed = np.abs(sums), abs(observed)
    # Equal sums differ by rounding; the observed one must count itself.
    as_large = int((sums >= observed - 1e-12 * scale).sum())
    return as_large / len(sums) if exact else (as_large + 1) / (len(sums) + 1)


def _middle_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis."""
    left_out = values.shape[-1] // 4
    middle = np.sort(values, axis=-1)[..., left_out : values.shape[-1] - left_out]
    means: np.ndarray = middle.mean(-1)
    return means


def _profiles(stack: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    ordered = np.sort(_pooled(stack), axis=1)
    at_most = np.stack([np.searchsorted(row, thresholds, side="right") for row in ordered])
    shares: np.ndarray = 1.0 - at_most / ordered.shape[1]
    return shares


def _improvements(stack: np.ndarray, others: np.ndarray) -> np.ndarray:
    beats = np.sign(stack[:, :, None, :] - others[:, None, :, :])
    chances: np.ndarray = 0.5 + 0.5 * beats.mean((1, 2, 3))
    return chances


def _again(scores: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """``[resamples, runs, tasks]``: runs drawn with replacement within each task."""
    drawn = rng.integers(len(scores), size=(resamples, *scores.shape))
    resampled: np.ndarray = np.take_along_axis(scores[None], drawn, axis=1)
    return resampled


def _in_blocks(resamples: int, numbers_each: int, draw: Callable[[int], np.ndarray]) -> np.ndarray:
    """``draw(resamples)``, in as many calls as keep memory bounded."""
    at_once = max(1, _BLOCK // numbers_each)
    blocks = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    return np.concatenate([draw(some) for some in blocks])


def _ends(drawn: np.ndarray, confidence: float) -> np.ndarray:
    """``[2, ...]``: below and above the middle share of the resamples."""
    tail = (1.0 - confidence) / 2.0
    ends: np.ndarray = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    return ends


def _pooled(stack: np.ndarray) -> np.ndarray:
    return stack.reshape(len(stack), -1)


def _matrix(scores: np.ndarray) -> np.ndarray:
    scores = _finite(scores)
    matrix = scores[:, None] if scores.ndim == 1 else scores
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(
            f"Got scores of shape {scores.shape}, wanted [runs, tasks] or [runs] with runs in it."
        )
    return matrix


def _same_tasks(scores: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, others = _matrix(scores), _matrix(others)
    if scores.shape[1] != others.shape[1]:
        raise ValueError(
            f"Got scores of {scores.shape[1]} tasks and of {others.shape[1]}; both learners must "
            "have run on the same tasks."
        )
    return scores, others


def _one_task(name: str, scores: np.ndarray) -> np.ndarray:
    scores = _finite(scores)
    if scores.ndim != 1 or not scores.size:
        raise ValueError(f"Got {name} of shape {scores.shape}, wanted [runs] with runs in it.")
    return scores


def _finite(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        where = tuple(int(one) for one in np.argwhere(~np.isfinite(scores))[0])
        raise ValueError(
            f"The score at {list(where)} is {scores[where]}; leave out runs that did not finish, "
            "or score them with the lowest value there is."
        )
    return scores


def _check_bootstrap(confidence: float, resamples: int) -> None:
    if not 0.0 < confidence < 1.0 or resamples < 1:
        raise ValueError(
            f"Got confidence={confidence} and resamples={resamples}; give a share between 0 and 1, "
            "as 0.95, and at least one resample."
        )
