"""Transforms and aggregates of rewards: laws and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefgym import rewards
from prefgym.rewards.shaping import Shaping, aggregator


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards and a mask with rows of every length from 1 to 6."""
    values = torch.randn(6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mask = torch.arange(6)[None] <= torch.arange(6)[:, None]
    return values * mask, mask


@given(seed=st.integers(0, 100), shift=st.floats(-10, 10), scale=st.floats(0.1, 10))
def test_standardised_forgets_shift_and_scale(seed: int, shift: float, scale: float) -> None:
    values, mask = batch(seed)
    moved = rewards.standardised((values * scale + shift) * mask, mask)
    torch.testing.assert_close(moved, rewards.standardised(values, mask))
    assert moved[mask].mean().item() == pytest.approx(0.0, abs=1e-9)
    assert moved[mask].std(correction=0).item() == pytest.approx(1.0)
    assert not moved[~mask].any()


def test_centred_keeps_differences() -> None:
    values, mask = batch()
    moved = rewards.centred(values, mask)
    gaps = moved[mask][1:] - moved[mask][:-1]
    torch.testing.assert_close(gaps, values[mask][1:] - values[mask][:-1])
    assert moved[mask].sum().item() == pytest.approx(0.0, abs=1e-9)
    assert not moved[~mask].any()


def test_a_constant_reward_becomes_zero() -> None:
    _, mask = batch()
    assert not rewards.standardised(3.0 * mask, mask).any()


def test_clipped() -> None:
    values = torch.tensor([-3.0, 0.5, 2.0])
    assert rewards.clipped(values, -1.0, 1.0).tolist() == [-1.0, 0.5, 1.0]
    with pytest.raises(ValueError, match=r"low is 1.0 and high 1.0; wanted low < high"):
        rewards.clipped(values, 1.0, 1.0)


def test_aggregates_by_hand() -> None:
    members = torch.tensor([[1.0, 4.0], [3.0, 4.0], [5.0, 1.0]])
    assert rewards.mean_reward(members).tolist() == [3.0, 3.0]
    assert rewards.worst_reward(members).tolist() == [1.0, 1.0]
    cautious = rewards.cautious_reward(members, penalty=0.5)
    torch.testing.assert_close(cautious, torch.tensor([3.0 - 0.5 * 8 / 3, 3.0 - 0.5 * 2.0]))
    with pytest.raises(ValueError, match=r"penalty is -1.0, wanted 0 or more"):
        rewards.cautious_reward(members, penalty=-1.0)


def test_a_soft_least_member_by_name_lies_between_the_least_and_the_mean() -> None:
    members = torch.tensor([[1.0, 4.0], [3.0, 4.0], [5.0, 1.0]])
    assert torch.equal(aggregator("soft-worst", 0.0)(members), rewards.worst_reward(members))
    soft = aggregator("soft-worst", 1.0)(members)
    assert (soft > rewards.worst_reward(members)).all()
    assert (soft < rewards.mean_reward(members)).all()
    assert torch.equal(aggregator("mean", 1.0)(members), rewards.mean_reward(members))


@given(seed=st.integers(0, 100), shift=st.floats(-10, 10), scale=st.floats(0.1, 10))
def test_standardising_by_references_forgets_shift_and_scale(
    seed: int, shift: float, scale: float
) -> None:
    values, mask = batch(seed)
    context_id = torch.arange(6) % 2
    for of in ("step", "segment"):
        plain, moved = (
            Shaping("standardise", of)(one, mask, context_id, (one, mask, context_id))  # type: ignore[arg-type]
            for one in (values, (values * scale + shift * (of == "step")) * mask)
        )
        torch.testing.assert_close(moved, plain)
        assert not moved[~mask].any()


def test_centring_takes_off_the_mean_of_the_references_of_the_same_context() -> None:
    values, mask = batch()
    context_id = torch.arange(6) % 2
    scores = values.sum(1)
    shaped = Shaping("centre", "segment")(values, mask, context_id, (values, mask, context_id))
    torch.testing.assert_close(shaped.sum(1), rewards.centred_by_context(scores, context_id))
    steps = Shaping("centre")(values, mask, context_id, (values, mask, context_id))
    torch.testing.assert_close(steps, rewards.centred(values, mask))


def test_members_that_agree_leave_every_aggregate_the_same() -> None:
    one = batch()[0]
    members = one.expand(4, -1, -1)
    for aggregate in (rewards.mean_reward, rewards.worst_reward, rewards.cautious_reward):
        torch.testing.assert_close(aggregate(members), one)


def test_the_order_of_members_does_not_matter() -> None:
    members = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    for aggregate in (rewards.mean_reward, rewards.worst_reward, rewards.cautious_reward):
        torch.testing.assert_close(aggregate(members), aggregate(members.flip(0)))


def test_state_entropy_on_a_line() -> None:
    seen = np.array([[0.0], [1.0], [2.0], [5.0]])
    scale = float(seen.std())
    states = np.array([[[0.0], [2.5]]])
    new = rewards.state_entropy(states, seen, neighbours=2)
    expected = torch.tensor([[math.log1p(1.0 / scale), math.log1p(1.5 / scale)]])
    torch.testing.assert_close(new, expected)


def test_state_entropy_of_a_repeated_state_is_zero_and_a_far_one_is_newer() -> None:
    seen = np.random.default_rng(0).standard_normal((50, 2, 3)).astype(np.float32)
    states = np.stack([seen[:1], seen[:1] + 9.0], 1)
    new = rewards.state_entropy(states, seen, neighbours=1)
    assert new.shape == (1, 2)
    assert new[0, 0].item() == pytest.approx(0.0, abs=1e-3)
    assert new[0, 1] > 1.0


def test_state_entropy_forgets_the_unit_of_a_coordinate(rng: np.random.Generator) -> None:
    seen, states = rng.standard_normal((40, 2)), rng.standard_normal((3, 4, 2))
    unit = np.array([1.0, 1e3])
    here = rewards.state_entropy(states, seen)
    torch.testing.assert_close(here, rewards.state_entropy(states * unit, seen * unit))


def test_state_entropy_wants_something_to_compare_with() -> None:
    with pytest.raises(ValueError, match="got 0 states to compare with"):
        rewards.state_entropy(np.zeros((1, 1, 2)), np.zeros((0, 2)))


def test_win_rates_by_hand() -> None:
    scores, others = torch.tensor([[0.0, 1.0, 1.04]]), torch.tensor([[0.5, 1.0]])
    strict = rewards.beats(scores, others)
    assert strict.tolist() == [[[0.0, 0.0], [1.0, 0.5], [1.0, 1.0]]]
    assert rewards.beats(scores, others, band=0.05)[0, 2].tolist() == [1.0, 0.5]
    assert rewards.win_rates(strict).tolist() == [[0.0, 0.75, 1.0]]
    within = rewards.win_rates_in_group(rewards.beats(scores, scores, band=0.05))
    assert within.tolist() == [[0.0, 0.75, 0.75]]


@given(seed=st.integers(0, 100))
def test_win_rates_see_the_order_of_scores_alone(seed: int) -> None:
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    here = rewards.win_rates_in_group(rewards.beats(scores, scores))
    for bend in (torch.exp, torch.tanh, lambda one: 5.0 * one**3 - 2.0):
        bent = bend(scores)
        assert torch.equal(rewards.win_rates_in_group(rewards.beats(bent, bent)), here)


@given(seed=st.integers(0, 100))
def test_win_rates_of_a_group_are_a_half_on_average(seed: int) -> None:
    chances = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(seed))
    chances = (chances + 1.0 - chances.mT) / 2
    rates = rewards.win_rates_in_group(chances)
    torch.testing.assert_close(rates.mean(-1), torch.full((3,), 0.5))
    itself = chances + 7.0 * torch.eye(5)
    torch.testing.assert_close(rewards.win_rates_in_group(itself), rates)


def test_win_rates_refuse_a_group_of_one_and_a_band_below_zero() -> None:
    with pytest.raises(ValueError, match="groups have 1 sample"):
        rewards.win_rates_in_group(torch.zeros(2, 1, 1))
    with pytest.raises(ValueError, match=r"band is -1.0, wanted 0 or more"):
        rewards.beats(torch.zeros(1, 2), torch.zeros(1, 2), band=-1.0)
