"""Queries: which candidates are picked, by hand and against plain implementations."""

import inspect
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prefgym import queries

SEEDS = st.integers(0, 2**32 - 1)


def points(rows: int = 12, dim: int = 3) -> st.SearchStrategy[np.ndarray]:
    """Small integer coordinates: distances are exact, repeated rows and equal gaps are common."""
    return st.tuples(st.integers(1, rows), st.integers(1, dim)).flatmap(
        lambda shape: hnp.arrays(np.float64, shape, elements=st.integers(-4, 4).map(float))
    )


def slow_k_centre(
    features: np.ndarray, picks: list[int], count: int, known: np.ndarray
) -> list[int]:
    """Greedy by definition: all distances anew for every pick."""
    while len(picks) < count:
        centres = np.concatenate([known, features[picks]])
        gaps = [
            -1.0 if at in picks else min(((one - centre) ** 2).sum() for centre in centres)
            for at, one in enumerate(features)
        ]
        picks.append(int(np.argmax(gaps)))
    return picks


@given(SEEDS, st.integers(0, 30), st.integers(0, 30))
def test_uniform_picks_different_candidates(seed: int, pool: int, extra: int) -> None:
    count = max(0, pool - extra)
    picks = queries.uniform(pool, count, np.random.default_rng(seed))
    assert len(set(picks.tolist())) == count
    assert set(picks.tolist()) <= set(range(pool))
    np.testing.assert_array_equal(queries.uniform(pool, count, np.random.default_rng(seed)), picks)


def test_uniform_is_uniform(rng: np.random.Generator) -> None:
    draws = np.concatenate([queries.uniform(5, 2, rng) for _ in range(4000)])
    shares = np.bincount(draws, minlength=5) / 4000
    assert np.abs(shares - 0.4).max() < 3.5 * np.sqrt(0.4 * 0.6 / 4000)


def test_disagreement_prefers_members_that_differ_in_probability() -> None:
    #                  agree   sure and opposite   far apart in logits, not in probability
    logits = np.array([[0.1, 5.0, 8.0, 0.5], [0.1, -5.0, 20.0, -0.5]])
    np.testing.assert_array_equal(queries.disagreement(logits, 4), [1, 3, 2, 0])


def test_entropy_prefers_open_answers() -> None:
    logits = np.array([[3.0, 0.0, -1.0, -6.0], [3.0, 0.2, -1.0, 6.0]])
    picks = queries.entropy(logits, 4)
    assert picks[0] == 3  # certain members of opposite opinions leave the answer quite open
    np.testing.assert_array_equal(picks, [3, 1, 2, 0])


def test_mutual_information_does_not_ask_about_coin_flips() -> None:
    logits = np.array([[0.0, 4.0, 1.0], [0.0, -4.0, -1.0]])
    np.testing.assert_array_equal(queries.mutual_information(logits, 3), [1, 2, 0])
    assert queries.entropy(logits, 1)[0] == 0


@given(hnp.arrays(np.float64, (3, 8), elements=st.floats(-1e4, 1e4)), st.integers(0, 8))
def test_swapping_sides_asks_questions_worth_the_same(logits: np.ndarray, count: int) -> None:
    share = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    mean = share.mean(0).clip(1e-300, 1 - 1e-16)
    worth = {
        queries.disagreement: share.std(0),
        queries.entropy: -mean * np.log(mean) - (1 - mean) * np.log(1 - mean),
    }
    for choose, score in worth.items():
        picks, mirrored = choose(logits, count), choose(-logits, count)
        assert len(set(picks.tolist())) == count
        np.testing.assert_allclose(score[picks], score[mirrored], atol=1e-12)
        np.testing.assert_allclose(score[picks], -np.sort(-score)[:count], atol=1e-12)


def test_equal_scores_go_to_the_earlier_candidate() -> None:
    np.testing.assert_array_equal(queries.entropy(np.zeros((2, 6)), 3), [0, 1, 2])


@given(points(), SEEDS, st.data())
def test_k_centre_is_the_greedy_cover(features: np.ndarray, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(features)))
    picks = queries.k_centre(features, count, np.random.default_rng(seed)).tolist()
    assert len(set(picks)) == count
    nothing = np.empty((0, features.shape[1]))
    assert picks == slow_k_centre(features, picks[:1], count, nothing)


@given(points(), st.data())
def test_k_centre_stays_away_from_what_was_labelled(
    features: np.ndarray, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(features)))
    known = data.draw(
        hnp.arrays(
            np.float64,
            st.tuples(st.integers(1, 6), st.just(features.shape[1])),
            elements=st.integers(-4, 4).map(float),
        )
    )
    picks = queries.k_centre(features, count, np.random.default_rng(0), known)
    assert picks.tolist() == slow_k_centre(features, [], count, known)


def test_k_centre_covers_within_twice_the_best_radius(rng: np.random.Generator) -> None:
    features = rng.normal(size=(14, 2))

    def radius(picks: Any) -> float:
        gaps = np.linalg.norm(features[:, None] - features[list(picks)], axis=-1)
        return float(gaps.min(1).max())

    best = min(radius(some) for some in combinations(range(14), 4))
    assert radius(queries.k_centre(features, 4, rng)) <= 2 * best


def test_k_centre_finds_the_clusters(rng: np.random.Generator) -> None:
    middles = 100.0 * np.eye(5)
    features = np.repeat(middles, 40, axis=0) + rng.normal(size=(200, 5))
    picks = queries.k_centre(features, 5, rng)
    assert set((picks // 40).tolist()) == set(range(5))
    fresh = queries.k_centre(features, 2, rng, centres=features[[0, 50, 90]])
    assert set((fresh // 40).tolist()) == {3, 4}


def test_known_centres_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    features, known = draw.normal(size=(50, 4)), draw.normal(size=(20, 4))
    whole = queries.k_centre(features, 10, draw, known)
    monkeypatch.setattr(queries, "_BLOCK", 60)
    np.testing.assert_array_equal(queries.k_centre(features, 10, draw, known), whole)


@pytest.mark.parametrize(
    ("hybrid", "uncertain"),
    [
        (queries.k_centre_disagreement, queries.disagreement),
        (queries.k_centre_entropy, queries.entropy),
    ],
)
def test_hybrids_cover_the_uncertain_part(
    hybrid: Callable[..., np.ndarray],
    uncertain: Callable[..., np.ndarray],
    rng: np.random.Generator,
) -> None:
    logits, features = rng.normal(size=(3, 40)), rng.normal(size=(40, 6))
    picks = hybrid(logits, features, 8, rng, keep=0.25)
    assert len(set(picks.tolist())) == 8
    assert set(picks.tolist()) <= set(uncertain(logits, 10).tolist())
    # With nothing to spare, the uncertain ones themselves.
    assert set(hybrid(logits, features, 8, rng, keep=0.1).tolist()) == set(
        uncertain(logits, 8).tolist()
    )


@given(hnp.arrays(np.int64, st.integers(2, 25), elements=st.integers(0, 5)), SEEDS, st.data())
def test_pairs_share_a_context_and_never_repeat(
    context_id: np.ndarray, seed: int, data: st.DataObject
) -> None:
    every = [
        (a, b) for a, b in combinations(range(len(context_id)), 2) if context_id[a] == context_id[b]
    ]
    count = data.draw(st.integers(0, len(every)))
    first, second = queries.pair_indices(context_id, count, np.random.default_rng(seed))
    drawn = {(min(pair), max(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert len(drawn) == count
    assert drawn <= set(every)


def test_every_pair_is_drawn_equally_often_and_in_both_orders(rng: np.random.Generator) -> None:
    context_id = np.array([3, 1, 3, 1, 3, 7])  # pairs: (0,2) (0,4) (2,4) (1,3)
    rounds = 4000
    counts: dict[tuple[int, int], int] = {}
    for _ in range(rounds):
        first, second = queries.pair_indices(context_id, 2, rng)
        for pair in zip(first.tolist(), second.tolist(), strict=True):
            counts[pair] = counts.get(pair, 0) + 1
    shares = np.array(list(counts.values())) / rounds
    assert len(counts) == 8
    assert np.abs(shares - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / rounds)


def test_numbering_of_pairs_is_exact_where_roots_round() -> None:
    high = np.array([1, 2, 3, 2**20, 2**26 + 1, 2**31 - 1], dtype=np.int64)
    for low in (np.zeros_like(high), high - 1):
        number = high * (high - 1) // 2 + low
        got_low, got_high = queries._unordered_pair(number)
        np.testing.assert_array_equal(got_high, high)
        np.testing.assert_array_equal(got_low, low)


def test_pairs_of_a_large_pool_take_no_memory_per_pair(rng: np.random.Generator) -> None:
    first, second = queries.pair_indices(np.zeros(1_000_000, dtype=np.int64), 1000, rng)
    assert (first != second).all()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda rng: queries.uniform(3, 4, rng), "4 queries from a pool of 3"),
        (lambda rng: queries.entropy(np.zeros((2, 3)), 4), "4 queries from a pool of 3"),
        (lambda rng: queries.k_centre(np.zeros((3, 1)), -1, rng), "-1 queries"),
        (lambda rng: queries.disagreement(np.array([[np.nan]]), 1), "NaN or an infinite"),
        (
            lambda rng: queries.k_centre_entropy(
                np.zeros((1, 2)), np.zeros((2, 1)), 1, rng, keep=0.0
            ),
            "keep=0.0",
        ),
        (lambda rng: queries.pair_indices(np.array([1, 2, 2]), 2, rng), "make 1 pairs"),
        (lambda rng: queries.pair_indices(np.array([1, 2, 3]), 1, rng), "of 3 contexts make 0"),
    ],
)
def test_bad_requests_get_a_clear_sentence(
    call: Callable[[np.random.Generator], Any], sentence: str, rng: np.random.Generator
) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(rng)


@pytest.mark.parametrize(
    ("function", "arguments", "sentence"),
    [
        (queries.entropy, (np.zeros(3), 1), r"logits of shape \(3,\)"),
        (queries.k_centre, (np.zeros(3), 1, np.random.default_rng(0)), "features of shape"),
        (
            queries.k_centre,
            (np.zeros((3, 2)), 1, np.random.default_rng(0), np.zeros((1, 5))),
            "centres have 5 features, the pool has 2",
        ),
        (queries.pair_indices, (np.zeros((2, 2), int), 1, np.random.default_rng(0)), "context_id"),
        (
            queries.k_centre_disagreement,
            (np.zeros((1, 2)), np.zeros((3, 1)), 1, np.random.default_rng(0)),
            "same pool",
        ),
    ],
)
def test_wrong_shapes_get_a_clear_sentence_where_shapes_are_not_checked(
    function: Callable[..., Any], arguments: tuple[Any, ...], sentence: str
) -> None:
    """The test run checks shapes by annotation; a user's run has only the functions' own checks."""
    with pytest.raises(ValueError, match=sentence):
        inspect.unwrap(function)(*arguments)
