"""How good a preference model, a reward or a mixture of options is: arrays in, one number out.

Preference logits are those of P(a ≻ b); labels are P(a ≻ b) in [0, 1], with ½ for a tie. Every
score of pairs here is unchanged when the two sides of a pair are swapped (logit negated, label
and probability taken from one), because which side is called ``a`` means nothing.
"""

from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float


def sigmoid(logits: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
    """P(a ≻ b) of a logit: the logistic function, with no overflow at any logit."""
    probabilities: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * np.asarray(logits, dtype=np.float64))
    return probabilities


def accuracy(logits: Float[np.ndarray, " pairs"], labels: Float[np.ndarray, " pairs"]) -> float:
    """Share of the decided pairs on whose preferred side the model stands.

    A pair labelled ½ has no preferred side and is left out. A logit of exactly 0 takes no side and
    scores ½ on a decided pair. A soft label counts for the side that it leans to.

    Returns:
        A share in [0, 1]; NaN where every label is a tie.
    """
    logits, labels = _pairs(logits=logits, labels=labels)
    _in_unit("labels", labels)
    decided = labels != 0.5
    if not decided.any():
        return float("nan")
    agreement = np.sign(logits[decided]) * np.sign(labels[decided] - 0.5)
    return float((0.5 + 0.5 * agreement).mean())


def ranking_accuracy(
    chosen: Float[np.ndarray, " pairs"], rejected: Float[np.ndarray, " pairs"]
) -> float:
    """Share of pairs whose preferred side gets the higher score; equal scores count ½.

    With log-probabilities of a policy this is its ranking accuracy, which a low direct loss does
    not promise. Source: Chen et al. (2024), eq. 3, arXiv:2405.19534 (who count equal scores 1).

    Args:
        chosen: score of the preferred side of each pair.
        rejected: score of the other side.

    Returns:
        A share in [0, 1].
    """
    chosen, rejected = _pairs(chosen=chosen, rejected=rejected)
    return float((0.5 + 0.5 * np.sign(chosen - rejected)).mean())


def idealised_ranking_accuracy(
    reference_margins: Float[np.ndarray, " pairs"], labels: Float[np.ndarray, " pairs"], beta: float
) -> float:
    """Ranking accuracy of a policy that has minimised the expected direct loss perfectly.

    Its margin is log π(a) − log π(b) = m + logit(p)/β, where m is that of the reference. What a
    trained policy lacks of this is the alignment gap. A label of exactly 1 or 0 asks for an
    infinite margin and counts as ranked right; of people, who disagree, give the share of votes.

    Source: Chen et al. (2024), arXiv:2405.19534.

    Args:
        reference_margins: m, log-probability of ``a`` minus that of ``b`` under the reference.
        labels: P(a ≻ b); a pair labelled ½ is left out, as in :func:`accuracy`.
        beta: β > 0 of the loss.

    Returns:
        A share in [0, 1]; NaN where every label is a tie.
    """
    _above_zero("idealised_ranking_accuracy", beta)
    reference_margins, labels = _pairs(reference_margins=reference_margins, labels=labels)
    _in_unit("labels", labels)
    with np.errstate(divide="ignore"):
        gained = (np.log(labels) - np.log1p(-labels)) / beta
    # Accuracy reads signs alone, and refuses infinities.
    return accuracy(np.sign(reference_margins + gained), labels)


def flipping_loss(
    reference_margins: Float[np.ndarray, " pairs"], beta: float
) -> Float[np.ndarray, " pairs"]:
    """How small DPO's loss of a pair must be for the policy to rank it right: log(1 + exp(β m)).

    The policy gives the preferred side the higher log-probability if and only if the pair's loss is
    below this. Where the reference is wrong by a hundred nats, that is exp(−100 β): the loss is as
    good as zero long before. Worth logging beside the loss.

    Source: Chen et al. (2024), theorem 4.1, arXiv:2405.19534.

    Args:
        reference_margins: m, log-probability of the preferred side minus that of the other under
            the reference.
        beta: β > 0 of the loss.

    Returns:
        A loss in nats, per pair.
    """
    _above_zero("flipping_loss", beta)
    (reference_margins,) = _pairs(reference_margins=reference_margins)
    bounds: np.ndarray = np.logaddexp(0.0, beta * reference_margins)
    return bounds


def cross_entropy(
    logits: Float[np.ndarray, " pairs"], labels: Float[np.ndarray, " pairs"]
) -> float:
    """Mean negative log-likelihood of the labels, nats per pair; ln 2 for a model of zeros."""
    logits, labels = _pairs(logits=logits, labels=labels)
    _in_unit("labels", labels)
    return float((np.logaddexp(0.0, logits) - labels * logits).mean())


def brier(probabilities: Float[np.ndarray, " pairs"], labels: Float[np.ndarray, " pairs"]) -> float:
    """Mean squared distance between P(a ≻ b) and the label; ¼ for a model that says ½."""
    probabilities, labels = _pairs(probabilities=probabilities, labels=labels)
    _in_unit("probabilities", probabilities)
    _in_unit("labels", labels)
    return float(((probabilities - labels) ** 2).mean())


def expected_calibration_error(
    probabilities: Float[np.ndarray, " pairs"],
    labels: Float[np.ndarray, " pairs"],
    bins: int = 10,
) -> float:
    """Mean distance between confidence and agreement over bins of equal width.

    Confidence is that of the side which the model prefers, in [½, 1], so that the order of the
    two sides does not matter; a probability of exactly ½ agrees with ½ of anything.
    Source: Guo et al. (2017), eq. 3, arXiv:1706.04599, for two classes.

    Args:
        probabilities: P(a ≻ b) by the model.
        labels: P(a ≻ b) by the rater.
        bins: how many bins share [½, 1].

    Returns:
        A gap in [0, 1], each bin weighted by its number of pairs.
    """
    probabilities, labels = _pairs(probabilities=probabilities, labels=labels)
    _in_unit("probabilities", probabilities)
    _in_unit("labels", labels)
    if bins < 1:
        raise ValueError(f"expected_calibration_error: got bins={bins}; give 1 or more.")
    side = np.sign(probabilities - 0.5)
    confidence = 0.5 + np.abs(probabilities - 0.5)
    agreement = 0.5 + side * (labels - 0.5)
    bin_of = np.minimum((2 * bins * (confidence - 0.5)).astype(np.int64), bins - 1)
    gaps = np.abs(np.bincount(bin_of, weights=confidence - agreement, minlength=bins))
    return float(gaps.sum() / len(labels))


def strength_slope(
    learned_logits: Float[np.ndarray, " pairs"], true_logits: Float[np.ndarray, " pairs"]
) -> float:
    """Least-squares slope, through the origin, of the learned logit on the true logit.

    1 says that *how much* a side is preferred was learned, which accuracy does not see; above 1
    the model is too sure, at 0 it knows nothing. Through the origin, because each pair also
    stands for its mirror image.

    Returns:
        The slope; NaN where every true logit is 0.
    """
    learned, true = _pairs(learned_logits=learned_logits, true_logits=true_logits)
    scale = float(np.abs(true).max())
    if scale == 0.0:
        return float("nan")
    unit = true / scale  # squares of tiny or huge logits neither vanish nor overflow
    return float((learned / scale) @ unit / (unit @ unit))


def pearson(first: Float[np.ndarray, " points"], second: Float[np.ndarray, " points"]) -> float:
    """Linear correlation, for example of learned and true rewards of the same steps.

    Returns:
        A number in [-1, 1]; NaN where one side does not vary.
    """
    first, second = _pairs(first=first, second=second)
    first, second = _direction(first), _direction(second)
    return float(np.clip(first @ second, -1.0, 1.0))


def spearman(first: Float[np.ndarray, " points"], second: Float[np.ndarray, " points"]) -> float:
    """Correlation of the ranks; equal values share the mean of their ranks.

    Returns:
        A number in [-1, 1]; NaN where one side does not vary.
    """
    first, second = _pairs(first=first, second=second)
    return pearson(_ranks(first), _ranks(second))


def exploitability(
    matrix: Float[np.ndarray, " options options"], mixture: Float[np.ndarray, " options"]
) -> float:
    """How much more often than half of the time the best answer to a mixture is preferred to it.

    max_i Σ_j P(i ≻ j) mixture_j − ½, in [0, ½]; 0 exactly for a minimax winner.
    Source: Swamy et al. (2024), sec. 2, arXiv:2401.04056.

    Args:
        matrix: ``matrix[i, j]`` = P(i ≻ j), with ``matrix + matrix.T == 1``.
        mixture: probability of each option, adds up to 1.
    """
    matrix = _preference_matrix(matrix)
    mixture = np.asarray(mixture, dtype=np.float64)
    if mixture.shape != matrix.shape[:1] or not _is_distribution(mixture):
        raise ValueError(
            f"exploitability: mixture {mixture!r} is no distribution over the {len(matrix)} "
            "options of the matrix; give that many probabilities that add up to 1."
        )
    return max(0.0, float((_margins(matrix) @ mixture).max()))


def minimax_winner(matrix: Float[np.ndarray, " options options"]) -> Float[np.ndarray, " options"]:
    """The mixture of options to which no option is preferred (von Neumann winner).

    Solved in exact integer arithmetic (simplex with Bland's rule and one common denominator), so
    that the only rounding is that of the result. Meant for few options: 12 take milliseconds,
    30 a fraction of a second, 60 many seconds. Where several mixtures win, as when two options tie
    for the first place, this is a corner of the set of winners.
    Sources: Dudík et al. (2015), arXiv:1502.06362; Edmonds (1967) for the integer pivots.

    Args:
        matrix: ``matrix[i, j]`` = P(i ≻ j), with ``matrix + matrix.T == 1``.

    Returns:
        The probability of each option.

    Example:
        >>> import numpy as np
        >>> rock_paper_scissors = np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
        >>> minimax_winner(rock_paper_scissors).round(3)
        array([0.333, 0.333, 0.333])
    """
    matrix = _preference_matrix(matrix)
    count = len(matrix)
    # Maximise Σy under (margins + shift) y ≤ 1, y ≥ 0: at the optimum, y scaled to a distribution
    # has margins @ y ≤ 0, so nothing beats it. The shift makes every coefficient positive.
    margins, shift = _integer_margins(matrix)
    tableau = np.zeros((count + 1, 2 * count + 1), dtype=object)
    tableau[:count, :count] = margins + shift
    tableau[:count, count:-1] = np.eye(count, dtype=np.int64).astype(object)
    tableau[:count, -1] = 1
    tableau[-1, :count] = -1
    basis = list(range(count, 2 * count))
    denominator = 1
    while (gains := np.flatnonzero(tableau[-1, :-1] < 0)).size:
        column = int(gains[0])
        rows = np.flatnonzero(tableau[:count, column] > 0)
        row = min(
            rows, key=lambda one: (Fraction(tableau[one, -1], tableau[one, column]), basis[one])
        )
        pivot = tableau[row, column]
        kept = tableau[row].copy()
        tableau = (tableau * pivot - np.outer(tableau[:, column], kept)) // denominator
        tableau[row] = kept
        basis[row], denominator = column, pivot
    winner = np.zeros(count)
    for place, option in enumerate(basis):
        if option < count:
            winner[option] = float(Fraction(tableau[place, -1], tableau[-1, -1]))
    return winner


def _pairs(**arrays: np.ndarray) -> list[np.ndarray]:
    checked = [np.asarray(value, dtype=np.float64) for value in arrays.values()]
    shapes = {value.shape for value in checked}
    if len(shapes) != 1 or checked[0].ndim != 1 or not checked[0].size:
        got = ", ".join(
            f"{name} of shape {value.shape}" for name, value in zip(arrays, checked, strict=True)
        )
        raise ValueError(f"Got {got}; give one-dimensional arrays of one length, at least 1.")
    for name, value in zip(arrays, checked, strict=True):
        if not np.isfinite(value).all():
            bad = int(np.flatnonzero(~np.isfinite(value))[0])
            raise ValueError(f"{name}[{bad}] is {value[bad]}; give finite numbers.")
    return checked


def _in_unit(name: str, values: np.ndarray) -> None:
    outside = np.flatnonzero((values < 0) | (values > 1))
    if outside.size:
        bad = int(outside[0])
        raise ValueError(
            f"{name}[{bad}] is {values[bad]}; give probabilities of the first side, from 0 to 1."
        )


def _above_zero(name: str, beta: float) -> None:
    if not beta > 0.0:
        raise ValueError(f"{name}: beta is {beta}, wanted a number above 0.")


def _direction(values: np.ndarray) -> np.ndarray:
    if values.min() == values.max():
        return np.full_like(values, np.nan)
    offset = values / np.abs(values).max()
    offset = offset - offset.mean()
    unit: np.ndarray = offset / np.linalg.norm(offset)
    return unit


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[which]


def _preference_matrix(matrix: np.ndarray) -> np.ndarray:
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(
            f"A preference matrix has shape [options, options], this one has {matrix.shape}."
        )
    if not ((matrix >= 0) & (matrix <= 1)).all() or np.abs(matrix + matrix.T - 1).max() > 1e-9:
        raise ValueError(
            "A preference matrix holds P(i preferred to j) in [0, 1], so that matrix + matrix.T "
            "is 1 everywhere and its diagonal ½; this one is not such a matrix."
        )
    return matrix


def _is_distribution(mixture: np.ndarray) -> bool:
    return bool((mixture >= -1e-9).all()) and abs(float(mixture.sum()) - 1) <= 1e-6


def _margins(matrix: np.ndarray) -> np.ndarray:
    margins: np.ndarray = 0.5 * (matrix - matrix.T)
    return margins


def _integer_margins(matrix: np.ndarray) -> tuple[Any, int]:
    """Entries of ``matrix - matrix.T`` times one power of two, and a bound above their size."""
    ratios = [[float(value).as_integer_ratio() for value in row] for row in matrix]
    unit = max(below for row in ratios for _, below in row)
    whole = np.array([[above * (unit // below) for above, below in row] for row in ratios], object)
    return whole - whole.T, 2 * unit
