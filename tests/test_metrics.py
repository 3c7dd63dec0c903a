"""Metrics: numbers by hand, laws of swapping sides, and the exact solver of preference games."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prefgym import metrics

LOGITS = st.floats(-30, 30).map(lambda value: round(value, 6))
SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def arrays(*elements: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[np.ndarray, ...]]:
    """As many arrays of one length, from 1 to 20."""
    return st.integers(1, 20).flatmap(
        lambda size: st.tuples(*(hnp.arrays(np.float64, size, elements=one) for one in elements))
    )


@st.composite
def preference_matrices(draw: st.DrawFn, options: int = 7) -> np.ndarray:
    """Games of up to ``options`` options, ties and certain wins among them."""
    count = draw(st.integers(1, options))
    share = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32))
    upper = np.triu(draw(hnp.arrays(np.float64, (count, count), elements=share)), 1)
    return upper + np.tril(1.0 - upper.T, -1) + 0.5 * np.eye(count)


def test_accuracy_leaves_tied_labels_out_and_counts_an_undecided_model_half() -> None:
    logits = np.array([2.0, -1.0, 0.0, 5.0, -0.1])
    labels = np.array([1.0, 1.0, 0.0, 0.5, 0.3])
    assert metrics.accuracy(logits, labels) == pytest.approx((1 + 0 + 0.5 + 1) / 4)


def test_accuracy_of_nothing_but_ties_is_no_number() -> None:
    assert math.isnan(metrics.accuracy(np.ones(3), np.full(3, 0.5)))


@given(arrays(LOGITS, SHARES))
def test_swapping_the_sides_of_every_pair_changes_no_score(
    pairs: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, labels = pairs
    for score in (metrics.accuracy, metrics.cross_entropy):
        np.testing.assert_allclose(score(-logits, 1 - labels), score(logits, labels), atol=1e-12)
    for gap in (metrics.brier, metrics.expected_calibration_error):
        np.testing.assert_allclose(
            gap(metrics.sigmoid(-logits), 1 - labels),
            gap(metrics.sigmoid(logits), labels),
            atol=1e-12,
        )


@given(arrays(st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.625, 1.0]), SHARES), st.integers(1, 12))
def test_calibration_error_is_blind_to_the_order_of_sides_at_bin_edges_too(
    pairs: tuple[np.ndarray, np.ndarray], bins: int
) -> None:
    probabilities, labels = pairs
    gap = metrics.expected_calibration_error(probabilities, labels, bins)
    assert 0.0 <= gap <= 1.0
    assert metrics.expected_calibration_error(1 - probabilities, 1 - labels, bins) == gap


def test_ranking_accuracy_of_log_probabilities() -> None:
    chosen, rejected = np.array([-1.0, -2.0, -3.0, -4.0]), np.array([-2.0, -1.0, -5.0, -4.0])
    assert metrics.ranking_accuracy(chosen, rejected) == (1 + 0 + 1 + 0.5) / 4


@given(arrays(LOGITS, LOGITS))
def test_ranking_accuracy_is_the_accuracy_of_the_difference(
    pairs: tuple[np.ndarray, np.ndarray],
) -> None:
    chosen, rejected = pairs
    expected = metrics.accuracy(chosen - rejected, np.ones(len(chosen)))
    assert metrics.ranking_accuracy(chosen, rejected) == pytest.approx(expected)


def test_the_loss_that_flips_a_pair_by_hand() -> None:
    found = metrics.flipping_loss(np.array([-2.0, 0.0, 100.0, -100.0]), 0.3)
    assert found == pytest.approx([0.43748795, math.log(2), 30.0, math.exp(-30)])


@given(arrays(LOGITS, LOGITS), st.floats(0.05, 5.0))
def test_a_pair_is_ranked_right_where_its_loss_is_below_the_one_that_flips(
    pairs: tuple[np.ndarray, np.ndarray], beta: float
) -> None:
    """DPO's loss is log(1 + exp(−β (D − m))), of policy margin D and reference margin m."""
    policy, reference = (np.round(side, 2) for side in pairs)  # nothing nearly at the threshold
    loss = np.logaddexp(0.0, -beta * (policy - reference))
    below = loss < metrics.flipping_loss(reference, beta)
    seen = np.abs(beta * reference) < 25  # beyond, a double cannot tell the two losses apart
    np.testing.assert_array_equal(below[seen & (policy != 0)], (policy > 0)[seen & (policy != 0)])


@given(arrays(LOGITS, st.floats(0.02, 0.98)), st.floats(0.05, 5.0))
def test_idealised_ranking_accuracy_is_that_of_the_minimum_of_the_loss(
    pairs: tuple[np.ndarray, np.ndarray], beta: float
) -> None:
    reference, labels = pairs
    optimum = reference + np.log(labels / (1 - labels)) / beta
    slope = beta * (metrics.sigmoid(beta * (optimum - reference)) - labels)
    np.testing.assert_allclose(slope, 0.0, atol=1e-12)
    found = metrics.idealised_ranking_accuracy(reference, labels, beta)
    np.testing.assert_equal(found, metrics.accuracy(optimum, labels))
    swapped = metrics.idealised_ranking_accuracy(-reference, 1 - labels, beta)
    np.testing.assert_allclose(swapped, found)


def test_idealised_ranking_accuracy_at_its_ends() -> None:
    reference, votes = np.array([-5.0, -1.0, 5.0]), np.full(3, 0.9)
    assert metrics.idealised_ranking_accuracy(reference, np.ones(3), 0.1) == 1.0
    assert metrics.idealised_ranking_accuracy(reference, votes, 1.0) == pytest.approx(2 / 3)
    assert metrics.idealised_ranking_accuracy(reference, votes, 0.1) == 1.0
    assert metrics.idealised_ranking_accuracy(reference, votes, 1e9) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match=r"beta is 0.0, wanted a number above 0"):
        metrics.idealised_ranking_accuracy(reference, votes, 0.0)
    with pytest.raises(ValueError, match=r"flipping_loss: beta is -1.0"):
        metrics.flipping_loss(reference, -1.0)


def test_cross_entropy_by_hand() -> None:
    assert metrics.cross_entropy(np.zeros(4), np.array([0.0, 0.5, 1.0, 0.2])) == pytest.approx(
        math.log(2)
    )
    assert metrics.cross_entropy(np.array([math.log(3)]), np.array([1.0])) == pytest.approx(
        math.log(4 / 3)
    )


def test_cross_entropy_is_finite_and_linear_at_huge_logits() -> None:
    assert metrics.cross_entropy(np.array([1e4, -1e4]), np.array([0.0, 1.0])) == 1e4
    assert metrics.cross_entropy(np.array([1e4, -1e4]), np.array([1.0, 0.0])) == 0.0


def test_brier_by_hand() -> None:
    assert metrics.brier(np.array([0.8, 0.5, 0.1]), np.array([1.0, 0.5, 1.0])) == pytest.approx(
        (0.04 + 0 + 0.81) / 3
    )


def test_calibration_error_by_hand() -> None:
    # Confidence .9 with 3 of 4 right, from both sides; and .6 with 1 of 2 right.
    probabilities = np.array([0.9, 0.9, 0.1, 0.1, 0.6, 0.4])
    labels = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    expected = (4 * (0.9 - 0.75) + 2 * (0.6 - 0.5)) / 6
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(expected)


def test_calibration_error_vanishes_for_a_calibrated_rater(rng: np.random.Generator) -> None:
    probabilities = rng.random(200_000)
    labels = (rng.random(200_000) < probabilities).astype(np.float64)
    assert metrics.expected_calibration_error(probabilities, labels) < 0.01
    overconfident = metrics.sigmoid(3 * np.log(probabilities / (1 - probabilities)))
    assert metrics.expected_calibration_error(overconfident, labels) > 0.1


@given(arrays(LOGITS), st.floats(-5, 5))
def test_strength_slope_finds_the_factor(pairs: tuple[np.ndarray], factor: float) -> None:
    (true,) = pairs
    slope = metrics.strength_slope(factor * true, true)
    if (true == 0).all():
        assert math.isnan(slope)
    else:
        assert slope == pytest.approx(factor, rel=1e-9, abs=1e-9)


def test_strength_slope_is_the_least_squares_slope_through_the_origin() -> None:
    learned, true = np.array([1.0, 3.0, -1.0]), np.array([1.0, 2.0, 2.0])
    assert metrics.strength_slope(learned, true) == pytest.approx((1 + 6 - 2) / 9)


def test_correlations_by_hand() -> None:
    first, second = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 8.0, 27.0, 64.0])
    assert metrics.spearman(first, second) == pytest.approx(1.0)
    assert metrics.pearson(first, second) == pytest.approx(np.corrcoef(first, second)[0, 1])
    # Ranks 1, 2.5, 2.5, 4 against 4, 2.5, 2.5, 1.
    assert metrics.spearman(np.array([0.0, 1, 1, 2]), np.array([9.0, 3, 3, -1])) == pytest.approx(
        -1
    )
    assert metrics.spearman(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(0.5)
    assert math.isnan(metrics.pearson(first, np.ones(4)))
    assert math.isnan(metrics.spearman(np.ones(4), first))


@given(arrays(st.integers(-5, 5).map(float), st.integers(-5, 5).map(float)))
def test_rank_correlation_ignores_any_rising_transform(
    points: tuple[np.ndarray, np.ndarray],
) -> None:
    first, second = points
    np.testing.assert_allclose(
        metrics.spearman(np.exp(first), second), metrics.spearman(first, second), atol=1e-12
    )
    np.testing.assert_allclose(
        metrics.pearson(3 * first - 7, second), metrics.pearson(first, second), atol=1e-9
    )


@given(preference_matrices())
def test_no_option_beats_the_minimax_winner(matrix: np.ndarray) -> None:
    winner = metrics.minimax_winner(matrix)
    assert (winner >= 0).all()
    assert winner.sum() == pytest.approx(1.0, abs=1e-12)
    assert metrics.exploitability(matrix, winner) <= 1e-9


@pytest.mark.parametrize("options", [9, 12])
def test_minimax_winner_is_exact_for_a_dozen_options(
    options: int, rng: np.random.Generator
) -> None:
    upper = np.triu(rng.random((options, options)), 1)
    matrix = upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(options)
    winner = metrics.minimax_winner(matrix)
    assert metrics.exploitability(matrix, winner) <= 1e-12
    # A winner of such a game is unique and has an odd support, on which all options tie with it.
    support = winner > 0
    assert support.sum() % 2 == 1
    np.testing.assert_allclose((matrix @ winner)[support], 0.5, atol=1e-12)


@given(
    st.tuples(st.floats(0.01, 0.5), st.floats(0.01, 0.5), st.floats(0.01, 0.5)),
)
def test_minimax_winner_of_a_cycle_in_closed_form(edges: tuple[float, float, float]) -> None:
    # 0 beats 1 by a, 1 beats 2 by b, 2 beats 0 by c: the winner is (b, c, a) / (a + b + c).
    a, b, c = edges
    matrix = 0.5 + np.array([[0.0, a, -c], [-a, 0.0, b], [c, -b, 0.0]])
    expected = np.array([b, c, a]) / (a + b + c)
    np.testing.assert_allclose(metrics.minimax_winner(matrix), expected, atol=1e-9)


def test_a_condorcet_winner_wins_alone() -> None:
    matrix = np.array([[0.5, 0.4, 0.9], [0.6, 0.5, 0.51], [0.1, 0.49, 0.5]])
    np.testing.assert_array_equal(metrics.minimax_winner(matrix), [0.0, 1.0, 0.0])


def test_exploitability_by_hand() -> None:
    cycle = np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
    assert metrics.exploitability(cycle, np.array([1.0, 0.0, 0.0])) == 0.5
    assert metrics.exploitability(cycle, np.array([0.5, 0.5, 0.0])) == pytest.approx(0.25)
    assert metrics.exploitability(cycle, np.full(3, 1 / 3)) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.accuracy(np.array([np.nan]), np.ones(1)), r"logits\[0\] is nan"),
        (lambda: metrics.brier(np.ones(2), np.array([0.0, 2.0])), r"labels\[1\] is 2"),
        (lambda: metrics.brier(np.array([-1.0]), np.ones(1)), r"probabilities\[0\] is -1"),
        (lambda: metrics.expected_calibration_error(np.ones(1), np.ones(1), 0), "bins=0"),
        (lambda: metrics.minimax_winner(np.full((2, 2), 0.6)), "is not such a matrix"),
        (lambda: metrics.exploitability(np.full((2, 2), 0.5), np.ones(2)), "no distribution"),
    ],
)
def test_bad_numbers_get_a_clear_sentence(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize(
    ("function", "arguments", "sentence"),
    [
        (metrics.accuracy, (np.ones(3), np.ones(2)), r"logits of shape \(3,\), labels of shape"),
        (metrics.spearman, (np.ones((2, 2)), np.ones((2, 2))), "one-dimensional"),
        (metrics.pearson, (np.ones(0), np.ones(0)), "at least 1"),
        (metrics.minimax_winner, (np.ones((2, 3)),), r"\[options, options\]"),
        (metrics.exploitability, (np.full((2, 2), 0.5), np.ones(3)), "no distribution"),
    ],
)
def test_wrong_shapes_get_a_clear_sentence_where_shapes_are_not_checked(
    function: Callable[..., Any], arguments: tuple[np.ndarray, ...], sentence: str
) -> None:
    """The test run checks shapes by annotation; a user's run has only the functions' own checks."""
    with pytest.raises(ValueError, match=sentence):
        inspect.unwrap(function)(*arguments)
