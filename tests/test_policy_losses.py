"""Policy gradients: numbers by hand, and the laws that tie one objective to another."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prefgym import losses, rewards
from prefgym import policy_losses as pg

seeds = st.integers(0, 200)
PAIR_LOSSES = {"apart": pg.pair_clipped_apart, "jointly": pg.pair_clipped_jointly}
every_pair_loss = pytest.mark.parametrize("pair_loss", PAIR_LOSSES.values(), ids=PAIR_LOSSES)
PairLoss = Callable[..., Tensor]
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-14}


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope(loss: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(loss, leaf, retain_graph=True)[0]


# --- what a sample was worth ---------------------------------------------------------------------


def test_group_advantages_by_hand_where_groups_stand_mixed_and_differ_in_size() -> None:
    returns, ids = numbers(1.0, 5.0, 3.0, 9.0, 5.0), torch.tensor([7, -2, 7, -2, -2])
    deviation = math.sqrt(16 / 3)
    expected = numbers(-1, -4 / 3 / deviation, 1, 8 / 3 / deviation, -4 / 3 / deviation)
    scaled = pg.group_advantages(returns, ids)
    torch.testing.assert_close(scaled[[1, 3, 4]], expected[[1, 3, 4]], **EXACT)
    torch.testing.assert_close(scaled[[0, 2]], numbers(-1, 1) / math.sqrt(2), **EXACT)
    centred = pg.group_advantages(returns, ids, scale=False)
    torch.testing.assert_close(centred, numbers(-1, -4 / 3, 1, 8 / 3, -4 / 3), **EXACT)
    alone = pg.leave_one_out(returns, ids)
    torch.testing.assert_close(alone, numbers(-2, -2, 2, 4, -2), **EXACT)


@given(seed=seeds)
def test_advantages_of_a_group_add_up_to_zero_and_forget_what_the_context_adds(seed: int) -> None:
    ids = torch.arange(24) % 5
    returns, offset = normal(seed, 24), 100.0 * normal(seed + 1, 5)[ids]
    for worth in (
        pg.group_advantages,
        partial(pg.group_advantages, scale=False),
        pg.leave_one_out,
    ):
        advantages = worth(returns, ids)
        sums = torch.zeros(5, dtype=torch.float64).index_add_(0, ids, advantages)
        torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-12)
        torch.testing.assert_close(worth(returns + offset, ids), advantages, rtol=0, atol=1e-11)


@given(seed=seeds)
def test_scaled_advantages_forget_the_unit_and_have_deviation_one(seed: int) -> None:
    ids = torch.arange(12) // 4
    advantages = pg.group_advantages(normal(seed, 12), ids)
    torch.testing.assert_close(pg.group_advantages(7.0 * normal(seed, 12), ids), advantages)
    torch.testing.assert_close(advantages.view(3, 4).std(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("value", [0.1, 1e6 + 0.1, -3e-9])
def test_a_group_of_equal_returns_is_worth_exactly_nothing(value: float) -> None:
    returns, ids = torch.full((7,), value), torch.zeros(7, dtype=torch.int64)
    assert not pg.group_advantages(returns, ids).any()
    assert not pg.leave_one_out(returns, ids).any()


@given(seed=seeds)
def test_leave_one_out_is_the_group_mean_with_a_factor(seed: int) -> None:
    returns, ids = normal(seed, 12), torch.arange(12) % 3
    centred = pg.group_advantages(returns, ids, scale=False)
    torch.testing.assert_close(pg.leave_one_out(returns, ids), centred * 4 / 3, **EXACT)


@given(seed=seeds)
def test_pair_advantages_of_differences_are_those_of_the_group(seed: int) -> None:
    returns = normal(seed, 6, 4)
    gaps = returns[:, :, None] - returns[:, None, :]
    group = pg.group_advantages(returns.flatten(), torch.arange(24) // 4)
    torch.testing.assert_close(pg.pair_advantages(gaps), group.view(6, 4), **EXACT)


@given(seed=seeds)
def test_pair_advantages_of_any_judge_add_up_to_zero(seed: int) -> None:
    matrix = normal(seed, 3, 5, 5)
    advantages = pg.pair_advantages(matrix - matrix.mT)
    torch.testing.assert_close(
        advantages.sum(-1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_a_judge_who_sees_no_difference_is_worth_nothing() -> None:
    assert not pg.pair_advantages(torch.zeros(2, 4, 4)).any()
    ties = rewards.win_rates_in_group(rewards.beats(torch.ones(2, 4), torch.ones(2, 4)))
    assert not pg.group_advantages(ties.flatten(), torch.arange(8) // 4).any()


def test_a_strict_order_gives_the_same_advantages_whatever_the_scores() -> None:
    """G = 8 win rates 0, 1/7, ..., 1: ±1.43 at the ends, however small the differences were."""
    scores = torch.cumsum(normal(0, 8).exp() * 1e-6, 0)[None]
    rates = rewards.win_rates_in_group(rewards.beats(scores, scores))[0]
    advantages = pg.group_advantages(rates, torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(advantages, numbers(*range(-7, 8, 2)) / math.sqrt(24))
    assert advantages[-1].item() == pytest.approx(1.4289, abs=1e-4)


def test_pairs_within_a_context_are_all_there_once() -> None:
    first, second = pg.pairs_within(torch.tensor([4, 9, 4, 4, 9, 1]))
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    assert pairs == {(0, 2), (0, 3), (2, 3), (1, 4)}


def by_hand(
    rewards_: list[float], values: list[float], after: float, discount: float, trace: float
) -> list[float]:
    """The sums of the definition."""
    ends = [*values[1:], after]
    errors = [r + discount * n - v for r, v, n in zip(rewards_, values, ends, strict=True)]
    return [
        sum((discount * trace) ** k * error for k, error in enumerate(errors[step:]))
        for step in range(len(errors))
    ]


@given(seed=seeds, discount=st.floats(0, 1), trace=st.floats(0, 1), ended=st.booleans())
def test_gae_is_the_sum_of_its_definition(
    seed: int, discount: float, trace: float, ended: bool
) -> None:
    length = torch.tensor([1, 3, 6])
    mask = torch.arange(6) < length[:, None]
    given_, values, last = normal(seed, 3, 6), normal(seed + 1, 3, 6), normal(seed + 2, 3)
    found = pg.gae(given_, values, mask, discount, trace, None if ended else last)
    assert not found[~mask].any()
    for row, count in enumerate(length.tolist()):
        after = 0.0 if ended else float(last[row])
        wanted = by_hand(
            given_[row, :count].tolist(), values[row, :count].tolist(), after, discount, trace
        )
        torch.testing.assert_close(found[row, :count], numbers(*wanted), rtol=1e-9, atol=1e-12)


def test_gae_with_trace_one_is_return_minus_value() -> None:
    given_, values = normal(0, 2, 5), normal(1, 2, 5)
    mask = torch.ones(2, 5, dtype=torch.bool)
    returns = given_.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(pg.gae(given_, values, mask, 1.0, 1.0), returns - values)


# --- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope_wanted"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),
        (1.5, -2.0, 3.0, 3.0),
        (0.5, 2.0, -1.0, -1.0),
        (0.5, -2.0, 1.6, 0.0),
    ],
)
def test_clipped_by_hand(ratio: float, advantage: float, loss: float, slope_wanted: float) -> None:
    log_prob = numbers(math.log(ratio) - 3.0).requires_grad_()
    value = pg.clipped(log_prob, numbers(-3.0), numbers(advantage), 0.2)
    assert value.item() == pytest.approx(loss)
    assert slope(value.sum(), log_prob).item() == pytest.approx(slope_wanted)


def test_clipped_value_takes_the_worse_of_the_two() -> None:
    value = numbers(1.0, 1.0, 0.1).requires_grad_()
    loss = pg.clipped_value(value, numbers(0.0, 0.0, 0.0), numbers(2.0, 0.0, 2.0), 0.2)
    torch.testing.assert_close(loss, numbers(0.5 * 1.8**2, 0.5, 0.5 * 1.9**2))
    torch.testing.assert_close(slope(loss.sum(), value), numbers(0.0, 1.0, -1.9))


def test_masked_mean_and_sequence_ratio_do_not_see_padding() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False], [False] * 3])
    values = torch.where(mask, numbers(1.0, 3.0, 0.0), torch.inf)
    assert pg.masked_mean(values, mask).item() == pytest.approx(5 / 3)
    zero = torch.zeros_like(values)
    torch.testing.assert_close(pg.sequence_log_ratio(values, zero, mask), numbers(4, 1, 0))
    mean = pg.sequence_log_ratio(values, zero, mask, per_step=True)
    torch.testing.assert_close(mean, numbers(2, 1, 0))
    assert pg.masked_mean(values, torch.zeros_like(mask)).item() == 0.0


def pair_slope(
    pair_loss: PairLoss, logits: Tensor, old: Tensor, worth: Tensor, clip: float
) -> Tensor:
    """The slope of the expected pair loss over every pair that the old policy may draw."""
    leaf = logits.clone().requires_grad_()
    ratio = leaf.log_softmax(0) - old.log_softmax(0)
    first, second = torch.cartesian_prod(torch.arange(len(worth)), torch.arange(len(worth))).T
    chance = old.softmax(0)[first] * old.softmax(0)[second]
    loss = pair_loss(ratio[first], ratio[second], worth[first] - worth[second], clip)
    return slope((chance * loss).sum(), leaf)


@every_pair_loss
@given(seed=seeds)
def test_the_expected_slope_over_pairs_is_that_of_the_mean_return(
    pair_loss: PairLoss, seed: int
) -> None:
    """Also away from the policy that acted, as long as nothing is clipped."""
    logits, old, worth = normal(seed, 5), normal(seed + 1, 5), normal(seed + 2, 5)
    leaf = logits.clone().requires_grad_()
    reinforce = slope(-(leaf.softmax(0) * worth).sum(), leaf)
    for acted in (logits, old):
        found = pair_slope(pair_loss, logits, acted, worth, clip=1e6)
        torch.testing.assert_close(found, reinforce, **EXACT)


@every_pair_loss
@given(seed=seeds, clip=st.floats(0.05, 2.0))
def test_what_a_context_adds_to_rewards_moves_no_pair(
    pair_loss: PairLoss, seed: int, clip: float
) -> None:
    logits, old, worth = normal(seed, 5), normal(seed + 1, 5), normal(seed + 2, 5)
    here = pair_slope(pair_loss, logits, old, worth, clip)
    there = pair_slope(pair_loss, logits, old, worth + 10.0 * normal(seed + 3, 1), clip)
    torch.testing.assert_close(here, there, rtol=0, atol=1e-13)


@every_pair_loss
@given(seed=seeds)
def test_swapping_the_two_of_a_pair_changes_nothing(pair_loss: PairLoss, seed: int) -> None:
    first, second, gap = normal(seed, 3, 20)
    torch.testing.assert_close(
        pair_loss(first, second, gap, 0.2), pair_loss(second, first, -gap, 0.2), **EXACT
    )


@every_pair_loss
@given(seed=seeds)
def test_at_the_reference_pairs_and_dpo_pull_the_same_way(pair_loss: PairLoss, seed: int) -> None:
    """The norms stand in the ratio (r_w − r_l) : β, as −½g ∇D against −βσ(0) ∇D."""
    beta, gap = 0.1, 3.0
    leaf = normal(seed, 6).requires_grad_()
    reference = leaf.detach().log_softmax(0)
    ratio = leaf.log_softmax(0) - reference
    direct = slope(losses.logistic(beta * (ratio[:1] - ratio[1:2]), numbers(1.0)).sum(), leaf)
    pair = slope(pair_loss(ratio[:1], ratio[1:2], numbers(gap), 0.2).sum(), leaf)
    torch.testing.assert_close(pair, direct * gap / beta, **EXACT)


@pytest.mark.parametrize("gap", [-1.0, 1.0])
def test_pairs_beyond_the_clip_the_way_they_pull_have_no_slope(gap: float) -> None:
    for pair_loss in PAIR_LOSSES.values():
        apart = numbers(0.5 * gap).requires_grad_()
        gone = pair_loss(apart, -apart, numbers(gap), 0.2)
        assert slope(gone.sum(), apart).item() == 0.0
        back = pair_loss(apart, -apart, numbers(-gap), 0.2)
        assert slope(back.sum(), apart).item() != 0.0


def test_jointly_a_common_move_of_both_is_not_clipped() -> None:
    common = numbers(0.5).requires_grad_()
    still = numbers(0.5)
    moved = slope(pg.pair_clipped_jointly(common, still, numbers(1.0), 0.2).sum(), common)
    alone = slope(pg.pair_clipped_apart(common, still, numbers(1.0), 0.2).sum(), common)
    assert moved.item() == pytest.approx(-0.5 * math.e)
    assert alone.item() == 0.0


# --- distance to a reference ---------------------------------------------------------------------


@given(seed=seeds)
def test_both_estimators_have_the_divergence_for_their_mean(seed: int) -> None:
    policy, reference = normal(seed, 6).log_softmax(0), normal(seed + 1, 6).log_softmax(0)
    divergence = (policy.exp() * (policy - reference)).sum()
    for estimator in (pg.kl_k1, pg.kl_k3):
        mean = (policy.exp() * estimator(policy, reference)).sum()
        torch.testing.assert_close(mean, divergence, **EXACT)
    assert (pg.kl_k3(policy, reference) >= 0).all()


@given(seed=seeds)
def test_slopes_of_the_estimators_are_zero_and_the_reverse_divergence(seed: int) -> None:
    leaf, reference = normal(seed, 6).requires_grad_(), normal(seed + 1, 6).log_softmax(0)
    log_prob = leaf.log_softmax(0)
    chance = log_prob.detach().exp()
    nothing = slope((chance * pg.kl_k1(log_prob, reference)).sum(), leaf)
    torch.testing.assert_close(nothing, torch.zeros_like(nothing), **EXACT)
    log_prob = leaf.log_softmax(0)
    found = slope((chance * pg.kl_k3(log_prob, reference)).sum(), leaf)
    reverse = slope((reference.exp() * (reference - leaf.log_softmax(0))).sum(), leaf)
    torch.testing.assert_close(found, reverse, **EXACT)


# --- what is refused -----------------------------------------------------------------------------


def test_groups_of_one_are_refused() -> None:
    returns, ids = torch.zeros(3), torch.tensor([5, 8, 5])
    with pytest.raises(ValueError, match="group_advantages: context 8 has one sample only"):
        pg.group_advantages(returns, ids)
    with pytest.raises(ValueError, match="leave_one_out: context 8 has one sample only"):
        pg.leave_one_out(returns, ids)
    with pytest.raises(ValueError, match="pair_advantages: groups have 1 sample"):
        pg.pair_advantages(torch.zeros(2, 1, 1))


def test_probabilities_in_place_of_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"is up to 1, wanted 0; of probabilities give P − ½"):
        pg.pair_advantages(torch.full((2, 3, 3), 0.5))


@pytest.mark.parametrize(
    "loss", [pg.clipped, pg.clipped_value, pg.pair_clipped_apart, pg.pair_clipped_jointly]
)
def test_a_clip_of_nothing_is_refused(loss: PairLoss) -> None:
    with pytest.raises(ValueError, match=r"clip is 0.0, wanted a number above 0"):
        loss(torch.zeros(1), torch.zeros(1), torch.zeros(1), 0.0)
