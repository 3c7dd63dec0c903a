"""Rejection sampling: it draws from the tilted distribution, and refuses what cannot be drawn."""

import numpy as np
import pytest

from prefgym.selection import acceptance, rejection


def tilted(start: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
    wanted = start * np.exp(rewards / beta)
    return wanted / wanted.sum()


def test_what_is_accepted_in_one_pass_is_distributed_as_it_should() -> None:
    rng = np.random.default_rng(0)
    start, rewards = rng.dirichlet(np.ones(6)), rng.normal(size=6)
    passed = start * acceptance(rewards[None], 0.5)[0]
    np.testing.assert_allclose(passed / passed.sum(), tilted(start, rewards, 0.5), atol=1e-15)


def test_a_few_of_many_follow_the_tilted_distribution() -> None:
    rng = np.random.default_rng(1)
    start, rewards = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.0, 0.2, 0.4, 0.6])
    arms = rng.choice(4, size=(4000, 64), p=start)
    kept = np.take_along_axis(arms, rejection(rewards[arms], 4, 0.5, rng), 1)
    share = np.bincount(kept.ravel(), minlength=4) / kept.size
    np.testing.assert_allclose(share, tilted(start, rewards, 0.5), atol=0.02)


def test_a_cold_beta_takes_the_best_and_a_hot_one_any() -> None:
    rewards = np.random.default_rng(2).normal(size=(300, 20))
    cold = rejection(rewards, 3, 1e-9, np.random.default_rng(0))
    best = np.argsort(-rewards, axis=1)[:, :3]
    np.testing.assert_array_equal(np.sort(cold, 1), np.sort(best, 1))
    hot = rejection(rewards, 3, 1e9, np.random.default_rng(0))
    assert abs(np.take_along_axis(rewards, hot, 1).mean() - rewards.mean()) < 0.1


@pytest.mark.parametrize("count", [1, 7, 20])
def test_each_candidate_is_kept_at_most_once(count: int) -> None:
    rewards = np.random.default_rng(3).normal(size=(50, 20))
    kept = rejection(rewards, count, 0.5, np.random.default_rng(0))
    assert kept.shape == (50, count)
    assert all(len(set(row)) == count for row in kept.tolist())
    again = rejection(rewards, count, 0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(kept, again)


def test_a_constant_added_to_a_contexts_rewards_changes_nothing() -> None:
    rewards = np.random.default_rng(4).normal(size=(30, 16))
    shifted = rewards + np.linspace(-500.0, 500.0, 30)[:, None]
    kept = [rejection(one, 4, 0.5, np.random.default_rng(0)) for one in (rewards, shifted)]
    np.testing.assert_array_equal(*kept)


@pytest.mark.parametrize(
    ("rewards", "count", "beta", "sentence"),
    [
        (np.array([[0.0, np.nan]]), 1, 1.0, "rewards of context 0 are not all finite"),
        (np.zeros((1, 2)), 3, 1.0, "asked to keep 3 of 2 candidates"),
        (np.zeros((1, 2)), 1, 0.0, "beta is 0.0, wanted a number above 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    rewards: np.ndarray, count: int, beta: float, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        rejection(rewards, count, beta, np.random.default_rng(0))
