"""Best of n and the best policy within a divergence: closed forms and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefgym.overoptimisation import best_of, best_of_kl, best_within_kl


def divergence(policy: np.ndarray, start: np.ndarray) -> np.ndarray:
    terms = np.where(policy > 0.0, policy * np.log(np.where(policy > 0, policy, 1.0) / start), 0.0)
    return np.asarray(terms.sum(-1))


# --- best of n ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_best_of_is_the_mean_over_all_subsets(size: int, rng: np.random.Generator) -> None:
    proxy, gold = rng.normal(size=6), rng.normal(size=6)
    subsets = itertools.combinations(range(6), size)
    brute = np.mean([gold[max(subset, key=lambda one: proxy[one])] for subset in subsets])
    assert best_of(proxy, gold, np.array([size]))[0] == pytest.approx(brute)


def test_best_of_one_is_the_mean_and_of_all_the_best(rng: np.random.Generator) -> None:
    proxy, gold = rng.normal(size=(3, 12_600)), rng.normal(size=(3, 12_600))
    first, last = best_of(proxy, gold, np.array([1, 12_600])).T
    np.testing.assert_allclose(first, gold.mean(1), rtol=1e-9)
    np.testing.assert_allclose(last, gold[np.arange(3), proxy.argmax(1)], rtol=1e-9)


def test_chances_of_places_sum_to_one_however_many_there_are() -> None:
    ones = np.ones(12_600)
    sizes = np.array([1, 7, 256, 4096, 12_599])
    spread = np.arange(12_600.0)
    np.testing.assert_allclose(best_of(spread, ones, sizes), 1.0, rtol=1e-9)


@given(seed=st.integers(0, 50))
def test_equal_proxies_share_and_order_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    proxy, gold = rng.integers(4, size=(2, 15)).astype(float), rng.normal(size=(2, 15))
    sizes = np.array([1, 3, 15])
    here = best_of(proxy, gold, sizes)
    order = rng.permutation(15)
    np.testing.assert_allclose(here, best_of(proxy[:, order], gold[:, order], sizes))
    top = [gold[row][proxy[row] == proxy[row].max()].mean() for row in range(2)]
    np.testing.assert_allclose(here[:, 2], top)
    blind = best_of(np.zeros((2, 15)), gold, sizes)
    np.testing.assert_allclose(blind, gold.mean(1, keepdims=True) * np.ones(3))


@given(seed=st.integers(0, 50))
def test_best_of_sees_the_order_of_the_proxy_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    proxy, gold, sizes = rng.normal(size=20), rng.normal(size=20), np.array([2, 9])
    np.testing.assert_array_equal(
        best_of(proxy, gold, sizes), best_of(np.exp(3.0 * proxy), gold, sizes)
    )
    assert (np.diff(best_of(gold, gold, np.arange(1, 21))) >= 0.0).all()


def test_the_divergence_of_the_best_of_n() -> None:
    # The best of n has density n F^(n−1): its divergence from F is log n − (n − 1)/n.
    sizes, ranks = np.array([1, 2, 16]), (np.arange(200_000) + 0.5) / 200_000
    density = sizes[:, None] * ranks ** (sizes[:, None] - 1)
    np.testing.assert_allclose(
        best_of_kl(sizes), (density * np.log(density)).mean(1), rtol=0, atol=1e-6
    )
    with pytest.raises(ValueError, match="least size is 0, wanted 1 or more"):
        best_of_kl(np.array([0, 4]))


def test_best_of_refuses_what_it_cannot_count() -> None:
    with pytest.raises(ValueError, match="sizes go from 1 to 9; wanted 1 to 8"):
        best_of(np.zeros(8), np.zeros(8), np.array([1, 9]))
    with pytest.raises(ValueError, match="proxy holds NaN or infinity"):
        best_of(np.array([0.0, math.nan]), np.zeros(2), np.array([1]))


# --- best within a divergence -------------------------------------------------------------------


@given(seed=st.integers(0, 50), nats=st.floats(0.01, 1.5))
def test_the_best_policy_is_a_tilt_at_the_divergence_asked_for(seed: int, nats: float) -> None:
    rng = np.random.default_rng(seed)
    rewards, start = rng.normal(size=(3, 40)), rng.dirichlet(np.ones(40), size=3)
    policy = best_within_kl(rewards, nats, start)
    np.testing.assert_allclose(policy.sum(1), 1.0)
    np.testing.assert_allclose(divergence(policy, start), nats, rtol=1e-8)
    tilt = np.log(policy) - np.log(start)  # linear in the reward, with one positive slope a row
    order = rewards.argsort(1)
    rise = np.diff(np.take_along_axis(tilt, order, 1)) / np.diff(np.sort(rewards, 1))
    np.testing.assert_allclose(rise, np.median(rise, 1, keepdims=True) * np.ones(39), rtol=1e-5)
    assert (rise > 0.0).all()


@given(seed=st.integers(0, 50))
def test_no_policy_within_the_divergence_does_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rewards, start = rng.normal(size=12), np.full(12, 1.0 / 12)
    best = best_within_kl(rewards, 0.3)
    others = rng.dirichlet(np.full(12, 3.0), size=2000)
    near = others[divergence(others, start) <= 0.3]
    assert len(near) > 100
    assert (near @ rewards).max() <= best @ rewards + 1e-12


@given(seed=st.integers(0, 50), scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_units_of_the_reward_change_nothing(seed: int, scale: float, shift: float) -> None:
    rewards = np.random.default_rng(seed).normal(size=(2, 30))
    here = best_within_kl(rewards, 0.7)
    np.testing.assert_allclose(here, best_within_kl(scale * rewards + shift, 0.7), atol=1e-7)


def test_two_candidates_in_closed_form() -> None:
    policy = best_within_kl(np.array([0.0, 5.0]), 0.2)
    high = policy[1]
    wanted = math.log(2.0) + high * math.log(high) + (1 - high) * math.log(1 - high)
    assert wanted == pytest.approx(0.2)
    assert high > 0.5


def test_beyond_the_last_divergence_the_best_share_as_they_did() -> None:
    start = np.array([0.1, 0.3, 0.6])
    policy = best_within_kl(np.array([1.0, 1.0, 0.0]), 50.0, start)
    np.testing.assert_allclose(policy, [0.25, 0.75, 0.0], atol=1e-12)
    np.testing.assert_allclose(best_within_kl(np.full(3, 2.0), 1.0, start), start)
    barred = best_within_kl(np.array([1.0, 9.0, 0.0]), 50.0, np.array([0.5, 0.0, 0.5]))
    np.testing.assert_allclose(barred, [1.0, 0.0, 0.0], atol=1e-12)


def test_best_within_kl_refuses_what_has_no_answer() -> None:
    rewards = np.zeros(3)
    with pytest.raises(ValueError, match=r"nats is 0.0, wanted a number above 0"):
        best_within_kl(rewards, 0.0)
    with pytest.raises(ValueError, match="rewards holds NaN or infinity"):
        best_within_kl(np.array([0.0, math.inf]), 1.0)
    with pytest.raises(ValueError, match=r"start sums to 0\.9 and its least entry is 0"):
        best_within_kl(rewards, 1.0, np.array([0.5, 0.4, 0.0]))
    with pytest.raises(ValueError, match=r"wanted \[..., candidates\], 1 or more"):
        best_within_kl(np.zeros((2, 0)), 1.0)
