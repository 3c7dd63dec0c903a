"""Transforms of the scores of whole responses, and what is made of several rewards: laws."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prefgym import rewards


def draws(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- transforms ---------------------------------------------------------------------------------


def test_a_score_goes_to_the_last_real_step() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    made = rewards.at_last_step(torch.tensor([2.0, -1.0, 5.0]), mask)
    assert made.tolist() == [[0.0, 2.0, 0.0], [0.0, 0.0, -1.0], [0.0, 0.0, 0.0]]


@given(seed=st.integers(0, 100))
def test_centred_by_context_forgets_what_is_added_for_a_context(seed: int) -> None:
    scores, of_context = draws(seed, 12), draws(seed + 1, 4)
    context_id = torch.randint(4, (12,), generator=torch.Generator().manual_seed(seed))
    moved = rewards.centred_by_context(scores + of_context[context_id], context_id)
    torch.testing.assert_close(moved, rewards.centred_by_context(scores, context_id))
    for one in context_id.unique():
        assert moved[context_id == one].sum().item() == pytest.approx(0.0, abs=1e-9)
        own = scores[context_id == one]
        torch.testing.assert_close(moved[context_id == one].diff(), own.diff())


def test_references_come_to_the_responses_of_their_context() -> None:
    scores, ids = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([7, 4, 7])
    found = rewards.references_by_context(torch.tensor([4, 7, 4]), scores, ids)
    assert found[[0, 2]].nan_to_num(-9.0).tolist() == [[2.0, -9.0], [2.0, -9.0]]
    assert found[1].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("known", [[3, 5], []])
def test_a_context_without_references_is_named(known: list[int]) -> None:
    ids = torch.tensor(known, dtype=torch.int64)
    with pytest.raises(ValueError, match="context 4 has no reference; score one or more"):
        rewards.references_by_context(torch.tensor([3, 4])[-1:], torch.zeros(len(known)), ids)


def test_par_by_hand() -> None:
    scores, references = torch.tensor([0.0, 2.0]), torch.tensor([[0.0, 2.0], [2.0, math.nan]])
    by_hand = [(0.5 + 1 / (1 + math.exp(2.0))) / 2, 0.5]
    torch.testing.assert_close(
        rewards.preference_as_reward(scores, references), torch.tensor(by_hand)
    )


@given(seed=st.integers(0, 100), shift=st.floats(-5, 5), steepness=st.floats(0.1, 3))
def test_par_is_a_chance_that_keeps_order_and_forgets_a_shift(
    seed: int, shift: float, steepness: float
) -> None:
    scores, references = draws(seed, 3, 20), draws(seed + 1, 3, 1, 5)
    made = rewards.preference_as_reward(scores, references, steepness)
    assert ((made > 0.0) & (made < 1.0)).all()
    assert torch.equal(made.argsort(-1), scores.argsort(-1))
    again = rewards.preference_as_reward(scores + shift, references + shift, steepness)
    torch.testing.assert_close(made, again)


def test_par_under_bradley_terry_is_a_win_rate() -> None:
    scores, references = draws(0, 4), draws(1, 6)
    chances = torch.sigmoid(scores[:, None] - references)
    made = rewards.preference_as_reward(scores, references.expand(4, -1))
    torch.testing.assert_close(made, rewards.win_rates(chances))


def test_a_steep_par_counts_the_references_beaten() -> None:
    scores, references = draws(0, 5), draws(1, 5, 7)
    made = rewards.preference_as_reward(scores, references, steepness=1e6)
    torch.testing.assert_close(made, rewards.beats(scores[:, None], references)[:, 0].mean(-1))


def test_par_refuses_no_steepness_and_no_references() -> None:
    scores = torch.zeros(2)
    with pytest.raises(ValueError, match=r"steepness is 0.0, wanted a number above 0"):
        rewards.preference_as_reward(scores, torch.zeros(2, 1), steepness=0.0)
    for empty in (torch.zeros(2, 0), torch.full((2, 3), math.nan)):
        with pytest.raises(ValueError, match="a response has no reference, or NaN only"):
            rewards.preference_as_reward(scores, empty)
        with pytest.raises(ValueError, match="a response has no reference, or NaN only"):
            rewards.reference_level(empty)


def test_reference_level_is_the_quantile_of_what_is_known() -> None:
    references = torch.tensor([[0.0, 1.0, 2.0, math.nan], [3.0, 5.0, math.nan, math.nan]])
    assert rewards.reference_level(references, 0.5).tolist() == [1.0, 4.0]
    assert rewards.reference_level(references, 1.0).tolist() == [2.0, 5.0]
    with pytest.raises(ValueError, match=r"quantile is 85.0, wanted one in \[0, 1\]"):
        rewards.reference_level(references, 85.0)


def test_log_sigmoid_is_a_line_far_below_its_level_and_flat_far_above() -> None:
    level = torch.full((3,), 1.5, dtype=torch.float64)
    scores = torch.tensor([-8.5, 11.5, 1.5], dtype=torch.float64)
    made = rewards.log_sigmoid(scores, level)
    torch.testing.assert_close(made[0], scores[0] - 1.5, atol=1e-3, rtol=0)
    torch.testing.assert_close(made[1], torch.zeros((), dtype=torch.float64), atol=1e-3, rtol=0)
    assert made[2].item() == pytest.approx(-math.log(2.0))


@given(seed=st.integers(0, 100))
def test_log_sigmoid_keeps_order_and_is_the_log_of_par(seed: int) -> None:
    scores, level = draws(seed, 3, 9), draws(seed + 1, 3, 1)
    made = rewards.log_sigmoid(scores, level)
    assert torch.equal(made.argsort(-1), scores.argsort(-1))
    torch.testing.assert_close(made, rewards.preference_as_reward(scores, level[..., None]).log())


# --- several rewards ----------------------------------------------------------------------------


def test_a_sum_of_log_sigmoids_is_the_log_of_a_product() -> None:
    scores, levels = draws(0, 2, 5), draws(1, 2, 1)
    product = torch.sigmoid(scores - levels).prod(0)
    torch.testing.assert_close(rewards.log_sigmoid_sum(scores, levels), product.log())
    one = rewards.log_sigmoid_sum(scores[:1], levels[:1])
    torch.testing.assert_close(one, rewards.log_sigmoid(scores[0], levels[0]))


def test_a_sum_of_log_sigmoids_prefers_what_is_fair_in_both() -> None:
    scores = torch.tensor([[9.0, 2.0], [-3.0, 2.0]])  # the sum prefers the first response
    levels = torch.ones(2, 1)
    assert scores.sum(0).argmax() == 0
    assert rewards.log_sigmoid_sum(scores, levels).argmax() == 1


def test_soft_worst_by_hand() -> None:
    members = torch.tensor([[1.0], [3.0]])
    by_hand = -2.0 * math.log((math.exp(-0.5) + math.exp(-1.5)) / 2)
    assert rewards.soft_worst_reward(members, 2.0).item() == pytest.approx(by_hand)


@given(seed=st.integers(0, 100), temperature=st.floats(1e-3, 1e3))
def test_soft_worst_is_between_the_least_and_the_mean(seed: int, temperature: float) -> None:
    members = draws(seed, 4, 6)
    made = rewards.soft_worst_reward(members, temperature)
    assert (made >= rewards.worst_reward(members) - 1e-9).all()
    assert (made <= rewards.mean_reward(members) + 1e-9).all()
    better = members + draws(seed + 1, 4, 6).abs()
    assert (rewards.soft_worst_reward(better, temperature) >= made).all()


def test_soft_worst_ends_at_the_least_and_at_the_mean() -> None:
    members = draws(0, 4, 6)
    torch.testing.assert_close(rewards.soft_worst_reward(members), rewards.worst_reward(members))
    cold, hot = (rewards.soft_worst_reward(members, one) for one in (1e-4, 1e6))
    torch.testing.assert_close(cold, rewards.worst_reward(members), atol=1e-3, rtol=0)
    torch.testing.assert_close(hot, rewards.mean_reward(members), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match=r"soft_worst_reward: temperature is -1.0, wanted 0"):
        rewards.soft_worst_reward(members, -1.0)


def test_a_direction_by_hand() -> None:
    attributes = torch.tensor([[1.0, 2.0], [10.0, 0.0]])
    made = rewards.directed_reward(attributes, torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(made, torch.tensor([8.6, 1.2]))
    plain = rewards.directed_reward(attributes, torch.tensor([3.0, 4.0]), unit=False)
    torch.testing.assert_close(plain, torch.tensor([43.0, 6.0]))
    with pytest.raises(ValueError, match="direction is 0 everywhere"):
        rewards.directed_reward(attributes, torch.zeros(2))


@given(seed=st.integers(0, 100), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_a_direction_forgets_the_units_of_attributes_and_its_length(
    seed: int, scale: float, shift: float
) -> None:
    attributes, direction = draws(seed, 3, 4, 5), draws(seed + 1, 3)
    mask = torch.arange(5) <= torch.arange(4)[:, None]
    made = rewards.directed_reward(attributes, direction, mask)
    units = torch.tensor([1.0, scale, 1.0], dtype=torch.float64)[:, None, None]
    again = rewards.directed_reward(attributes * units + shift, 7.0 * direction, mask)
    torch.testing.assert_close(made, again)
    assert not made[~mask].any()


def test_a_direction_along_an_attribute_is_that_attribute_standardised() -> None:
    attributes, mask = draws(0, 2, 4, 5), torch.ones(4, 5, dtype=torch.bool)
    made = rewards.directed_reward(attributes, torch.tensor([0.0, 2.0]), mask)
    torch.testing.assert_close(made, rewards.standardised(attributes[1], mask))


# --- groups of raters ---------------------------------------------------------------------------


def test_the_worst_off_group_is_heard_alone_and_equals_share() -> None:
    assert rewards.group_weights(torch.tensor([2.0, 1.0, 3.0])).tolist() == [0.0, 1.0, 0.0]
    assert rewards.group_weights(torch.tensor([1.0, 1.0, 3.0])).tolist() == [0.5, 0.5, 0.0]
    with pytest.raises(ValueError, match=r"group_weights: temperature is nan, wanted 0 or more"):
        rewards.group_weights(torch.zeros(2), math.nan)


@given(seed=st.integers(0, 100), temperature=st.floats(0.05, 20))
def test_group_weights_are_the_slopes_of_the_soft_worst_return(
    seed: int, temperature: float
) -> None:
    returns = draws(seed, 4).requires_grad_()
    (slopes,) = torch.autograd.grad(rewards.soft_worst_reward(returns, temperature), returns)
    weights = rewards.group_weights(returns.detach(), temperature)
    torch.testing.assert_close(weights, slopes)
    assert torch.equal(weights.argsort(), returns.argsort(descending=True))


def test_the_worst_group_is_one_for_the_batch() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    groups = torch.tensor([[[1.0, 1.0], [-5.0, 99.0]], [[0.0, 0.0], [0.0, 99.0]]])
    # By mean return the first group is at −1.5; the step beyond the end is not counted.
    assert rewards.worst_group(groups, mask).tolist() == [[1.0, 1.0], [-5.0, 0.0]]


@given(seed=st.integers(0, 100))
def test_groups_that_agree_are_heard_as_one_and_their_order_does_not_matter(seed: int) -> None:
    mask = torch.arange(5) <= torch.arange(4)[:, None]
    one, groups = draws(seed, 4, 5), draws(seed, 3, 4, 5)
    for temperature in (0.0, 0.3):
        alike = rewards.worst_group(one.expand(3, -1, -1), mask, temperature)
        torch.testing.assert_close(alike, one * mask)
        torch.testing.assert_close(
            rewards.worst_group(groups, mask, temperature),
            rewards.worst_group(groups.flip(0), mask, temperature),
        )


def test_a_hot_worst_group_is_the_mean() -> None:
    mask, groups = torch.ones(4, 5, dtype=torch.bool), draws(0, 3, 4, 5)
    made = rewards.worst_group(groups, mask, temperature=1e9)
    torch.testing.assert_close(made, rewards.mean_reward(groups))


def test_max_min_serves_both_groups_where_the_mean_serves_one() -> None:
    # Three arms, worth (1, 0), (0, 1) and nothing; four raters in five are of the first group.
    worth, share = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([0.8, 0.2])

    def learned(reward: Tensor | None) -> Tensor:
        logits = torch.zeros(3)
        for step in range(2000):
            policy = logits.softmax(0)
            batch = (worth * policy)[:, None, :]  # one response of three "steps": mean returns
            heard = rewards.worst_group(batch, torch.ones(1, 3, dtype=torch.bool), 0.05)
            made = heard[0] / policy if reward is None else reward
            gain = made - 0.1 * (policy * 3.0).log()
            logits += 10.0 / (10 + step) * policy * (gain - (policy * gain).sum())
        return worth @ logits.softmax(0)

    fair, pooled = learned(None), learned(share @ worth)
    assert (fair[0] - fair[1]).abs() <= 0.02
    assert fair.min() >= 0.45
    assert pooled[1] <= 0.1


# --- slopes -------------------------------------------------------------------------------------

SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "par": lambda x: rewards.preference_as_reward(x[0], torch.tensor([[0.0, math.nan]])),
    "log_sigmoid": lambda x: rewards.log_sigmoid(x[0], torch.zeros(1)),
    "log_sigmoid_sum": lambda x: rewards.log_sigmoid_sum(x, torch.zeros(2, 1)),
    "soft_worst": partial(rewards.soft_worst_reward, temperature=0.1),
    "directed": lambda x: rewards.directed_reward(
        x, torch.tensor([1.0, -1.0]), torch.ones(x.shape[1], dtype=torch.bool)
    ),
    "centred_by_context": lambda x: rewards.centred_by_context(x[0], torch.tensor([0, 0, 1])),
    "worst_group": lambda x: rewards.worst_group(
        x[:, None], torch.ones(1, x.shape[1], dtype=torch.bool), 0.1
    ),
}


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_are_finite_however_far_a_score_is(name: str) -> None:
    scores = torch.tensor([[-1e4, 0.0, 1e4], [1e4, 0.0, 3.0]], requires_grad=True)
    made = SLOPES[name](scores)
    (slope,) = torch.autograd.grad(made.sum(), scores)
    assert torch.isfinite(made).all()
    assert torch.isfinite(slope).all()
