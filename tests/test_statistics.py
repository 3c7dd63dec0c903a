"""Statistics: published figures, closed forms, coverage of intervals, exact p-values."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prefgym import statistics

# The matrices and figures of rliable's own test of its metrics.
FOUR_RUNS = np.array([[1.0, 2.0], [2.0, 2.0], [1.0, 1.0], [2.0, 1.0]])
THREE_RUNS = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])

FINITE = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))
MATRICES = hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=FINITE)
RUNS = hnp.arrays(np.float64, st.integers(1, 6), elements=FINITE)


def test_published_figures_of_rliable() -> None:
    assert statistics.iqm(FOUR_RUNS) == 1.5
    assert statistics.iqm(THREE_RUNS) == 2.0
    assert statistics.probability_of_improvement(FOUR_RUNS, THREE_RUNS) == pytest.approx(1 / 3)


def test_interquartile_mean_leaves_a_quarter_out_at_each_end() -> None:
    assert statistics.iqm(np.array([0.0, 1.0, 2.0, 3.0, 1000.0])) == 2.0
    assert statistics.iqm(np.array([5.0, 1.0, 3.0])) == 3.0
    assert statistics.iqm(np.arange(8.0).reshape(4, 2)) == 3.5
    assert statistics.iqm(np.arange(100.0)) == pytest.approx(49.5)


def test_interquartile_mean_of_normal_scores_is_near_their_mean(rng: np.random.Generator) -> None:
    assert statistics.iqm(rng.normal(3.0, 1.0, size=(400, 50))) == pytest.approx(3.0, abs=0.04)


@given(MATRICES, st.permutations(range(4)), FINITE)
def test_aggregates_ignore_order_and_follow_shifts(
    scores: np.ndarray, order: list[int], shift: float
) -> None:
    middle = statistics.iqm(scores)
    shuffled = scores[::-1][:, [at for at in order if at < scores.shape[1]]]
    assert statistics.iqm(shuffled) == pytest.approx(middle)
    assert statistics.iqm(scores + shift) == pytest.approx(middle + shift, abs=1e-6)
    assert statistics.iqm(-scores) == pytest.approx(-middle, abs=1e-9)
    assert scores.min() - 1e-9 <= middle <= scores.max() + 1e-9


def test_optimality_gap_by_hand() -> None:
    scores = np.array([[0.5, 2.0], [1.0, -1.0]])
    assert statistics.optimality_gap(scores) == pytest.approx((0.5 + 0 + 0 + 2) / 4)
    assert statistics.optimality_gap(scores, target=2.0) == pytest.approx((1.5 + 0 + 1 + 3) / 4)


def test_aggregates_of_many_matrices_at_once(rng: np.random.Generator) -> None:
    stack = rng.normal(size=(6, 5, 3))
    np.testing.assert_allclose(statistics.iqms(stack), [statistics.iqm(one) for one in stack])
    np.testing.assert_allclose(
        statistics.optimality_gaps(stack, 0.5),
        [statistics.optimality_gap(one, 0.5) for one in stack],
    )


@given(MATRICES, hnp.arrays(np.float64, st.integers(1, 5), elements=FINITE))
def test_performance_profile_counts_runs_above(scores: np.ndarray, taus: np.ndarray) -> None:
    expected = [(scores > tau).mean() for tau in taus]
    np.testing.assert_allclose(statistics.performance_profile(scores, taus), expected, atol=1e-12)


@given(MATRICES, st.data())
def test_improvement_of_one_is_the_loss_of_the_other(
    scores: np.ndarray, data: st.DataObject
) -> None:
    shape = st.tuples(st.integers(1, 5), st.just(scores.shape[1]))
    others = data.draw(hnp.arrays(np.float64, shape, elements=FINITE))
    better = statistics.probability_of_improvement(scores, others)
    assert better + statistics.probability_of_improvement(others, scores) == pytest.approx(1.0)
    assert statistics.probability_of_improvement(scores, scores) == pytest.approx(0.5)
    assert statistics.probability_of_improvement(scores + 3000, others) == 1.0


def test_equal_generators_give_equal_intervals(rng: np.random.Generator) -> None:
    scores, others = rng.normal(size=(10, 3)), rng.normal(size=(8, 3))
    interval: Callable[[np.random.Generator], tuple[Any, ...]]
    for interval in (
        partial(statistics.bootstrap_interval, scores),
        partial(statistics.improvement_interval, scores, others),
        partial(statistics.profile_band, scores, np.zeros(1)),
        partial(statistics.curve_band, scores),
    ):
        first, again, other = (interval(np.random.default_rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_equal(first, again)
        assert first[0] == pytest.approx(other[0])
    assert statistics.bootstrap_interval(
        scores, np.random.default_rng(1)
    ) != statistics.bootstrap_interval(scores, np.random.default_rng(2))


def test_intervals_do_not_depend_on_the_size_of_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = rng.normal(size=(7, 2))
    whole = statistics.bootstrap_interval(scores, np.random.default_rng(0))
    monkeypatch.setattr(statistics, "_BLOCK", 1000)
    assert statistics.bootstrap_interval(scores, np.random.default_rng(0)) == whole


def test_bootstrap_of_two_runs_in_closed_form() -> None:
    # Two runs 0 and 1 of one task: the resampled mean is 0, ½, 1 with chances ¼, ½, ¼.
    value, low, high = statistics.bootstrap_interval(
        np.array([0.0, 1.0]), np.random.default_rng(0), confidence=0.4, resamples=4000
    )
    assert (value, low, high) == (0.5, 0.5, 0.5)
    value, low, high = statistics.bootstrap_interval(
        np.array([0.0, 1.0]), np.random.default_rng(0), confidence=0.6, resamples=4000
    )
    assert (value, low, high) == (0.5, 0.0, 1.0)


def test_resampling_stays_within_each_task() -> None:
    # Tasks without any spread have no interval, however different they are from each other.
    scores = np.tile([1.0, 50.0, -3.0], (6, 1))
    value, low, high = statistics.bootstrap_interval(scores, np.random.default_rng(0))
    assert value == low == high


def test_interval_holds_the_truth_as_often_as_it_says(rng: np.random.Generator) -> None:
    def mean(stack: np.ndarray) -> np.ndarray:
        return np.asarray(stack.mean((1, 2)))

    held = 0
    for _ in range(300):
        _, low, high = statistics.bootstrap_interval(
            rng.normal(size=(20, 2)), rng, mean, confidence=0.9, resamples=400
        )
        held += int(low <= 0 <= high)
    assert 0.82 <= held / 300 <= 0.95  # percentile intervals of 20 runs are a little narrow


def test_improvement_interval_by_hand() -> None:
    runs = np.arange(5.0)
    assert statistics.improvement_interval(runs + 10, runs, np.random.default_rng(0)) == (1, 1, 1)
    value, low, high = statistics.improvement_interval(runs, runs, np.random.default_rng(0))
    assert value == 0.5
    assert low < 0.3
    assert high > 0.7


def test_profile_with_a_band(rng: np.random.Generator) -> None:
    scores, thresholds = rng.normal(size=(10, 3)), np.array([-9.0, 0.0, 1.0, 9.0])
    value, low, high = statistics.profile_band(scores, thresholds, rng)
    np.testing.assert_allclose(value, statistics.performance_profile(scores, thresholds))
    assert (low <= value).all()
    assert (high >= value).all()
    np.testing.assert_array_equal(low[[0, 3]], [1.0, 0.0])
    assert (low < high)[1:3].all()


def test_curve_band_point_by_point(rng: np.random.Generator) -> None:
    values = rng.normal(size=(5, 40)) + np.arange(40.0)
    middle, low, high = statistics.curve_band(values, rng)
    np.testing.assert_allclose(middle, [statistics.iqm(column) for column in values.T])
    assert (low <= middle).all()
    assert (high >= middle).all()
    for line in statistics.curve_band(values[:1], rng):
        np.testing.assert_array_equal(line, values[0])


def test_exact_p_values_by_hand(rng: np.random.Generator) -> None:
    high, low = np.array([4.0, 5.0, 6.0]), np.array([1.0, 2.0, 3.0])
    assert statistics.permutation_test(high, low, rng) == 1 / math.comb(6, 3)
    assert statistics.permutation_test(low, high, rng) == 1.0
    assert statistics.permutation_test(high, low, rng, two_sided=True) == 2 / math.comb(6, 3)
    assert statistics.paired_permutation_test(high, low, rng) == 1 / 8
    assert statistics.paired_permutation_test(high, low, rng, two_sided=True) == 2 / 8
    assert statistics.permutation_test(high, high, rng) > 0.5
    assert statistics.paired_permutation_test(high, high, rng) == 1.0


@given(RUNS, RUNS)
def test_exact_p_value_of_pairs_is_the_count_of_sign_flips(
    scores: np.ndarray, others: np.ndarray
) -> None:
    size = min(len(scores), len(others))
    gaps = np.round(1000 * (scores[:size] - others[:size])).astype(np.int64)
    sums = [np.dot(signs, gaps) for signs in product((1, -1), repeat=size)]
    expected = np.mean([one >= gaps.sum() for one in sums])
    p_value = statistics.paired_permutation_test(
        gaps.astype(np.float64), np.zeros(size), np.random.default_rng(0)
    )
    assert p_value == pytest.approx(expected)


@given(RUNS, RUNS, st.floats(0.1, 10), FINITE)
def test_p_values_follow_neither_scale_nor_shift(
    scores: np.ndarray, others: np.ndarray, scale: float, shift: float
) -> None:
    rng = np.random.default_rng(0)
    p_value = statistics.permutation_test(scores, others, rng)
    moved = statistics.permutation_test(scale * scores + shift, scale * others + shift, rng)
    assert moved == pytest.approx(p_value, abs=1e-9)
    assert 0 < p_value <= 1


def test_drawn_p_values_agree_with_exact_ones(rng: np.random.Generator) -> None:
    scores, others = rng.normal(0.7, 1.0, size=7), rng.normal(size=7)
    for test, few in (
        (statistics.permutation_test, 3000),  # of 3432 assignments
        (statistics.paired_permutation_test, 120),  # of 128
    ):
        exact, drawn = test(scores, others, rng), test(scores, others, rng, resamples=few)
        assert drawn != exact
        assert abs(drawn - exact) < 4 * math.sqrt(exact * (1 - exact) / few)
    assert statistics.permutation_test(np.arange(20.0) + 99, np.arange(20.0), rng, 999) == 1 / 1000


def test_p_values_are_uniform_where_nothing_differs(rng: np.random.Generator) -> None:
    p_values = [
        statistics.permutation_test(rng.normal(size=5), rng.normal(size=5), rng) for _ in range(400)
    ]
    assert np.mean(np.array(p_values) <= 0.1) <= 0.1 + 3 * math.sqrt(0.09 / 400)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda rng: statistics.iqm(np.array([1.0, np.nan])), r"score at \[1\] is nan"),
        (lambda rng: statistics.iqm(np.empty((0, 2))), "runs in it"),
        (lambda rng: statistics.bootstrap_interval(np.ones(3), rng, confidence=95.0), "share betw"),
        (lambda rng: statistics.curve_band(np.ones((2, 3)), rng, resamples=0), "resamples=0"),
        (lambda rng: statistics.permutation_test(np.ones(2), np.empty(0), rng), "others of shape"),
        (
            lambda rng: statistics.curve_band(np.array([[0.0], [np.inf]]), rng),
            r"score at \[1, 0\] is inf",
        ),
    ],
)
def test_bad_numbers_get_a_clear_sentence(
    call: Callable[[np.random.Generator], Any], sentence: str, rng: np.random.Generator
) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(rng)


@pytest.mark.parametrize(
    ("function", "arguments", "sentence"),
    [
        (statistics.probability_of_improvement, (np.ones((2, 3)), np.ones((2, 2))), "same tasks"),
        (
            statistics.paired_permutation_test,
            (np.ones(3), np.ones(2), None),
            "one of each per pair",
        ),
        (statistics.bootstrap_interval, (np.ones((2, 2, 2)), None), r"wanted \[runs, tasks\]"),
        (statistics.curve_band, (np.ones(3), None), r"wanted \[runs, points\]"),
        (statistics.permutation_test, (np.ones((2, 2)), np.ones(2), None), r"wanted \[runs\]"),
    ],
)
def test_wrong_shapes_get_a_clear_sentence_where_shapes_are_not_checked(
    function: Callable[..., Any], arguments: tuple[Any, ...], sentence: str
) -> None:
    """The test run checks shapes by annotation; a user's run has only the functions' own checks."""
    with pytest.raises(ValueError, match=sentence):
        inspect.unwrap(function)(*arguments)
