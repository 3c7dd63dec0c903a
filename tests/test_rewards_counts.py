"""Counts within an episode, and rewards that are divided by their powers."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefgym import rewards


def naive(events: torch.Tensor, mask: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
    counts = torch.zeros_like(events)
    for row in range(len(events)):
        had = Counter[int]()
        if before is not None:
            had.update(dict(enumerate(before[row].tolist())))
        for step in range(events.shape[1]):
            if mask[row, step]:
                had[int(events[row, step])] += 1
                counts[row, step] = had[int(events[row, step])]
    return counts


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    rng = np.random.default_rng(seed)
    batch, steps, kinds = rng.integers(1, 6, 3).tolist()
    events = torch.as_tensor(rng.integers(0, kinds, (batch, steps)))
    mask = torch.arange(steps) < torch.as_tensor(rng.integers(0, steps + 1, (batch, 1)))
    before = None
    if seed % 2:
        before = torch.as_tensor(rng.integers(0, 4, (batch, int(rng.integers(0, kinds + 2)))))
    return events, mask, before, torch.as_tensor(rng.normal(size=(batch, steps)))


@settings(max_examples=40)
@given(seed=st.integers(0, 300), exponent=st.sampled_from([0.0, 0.5, 1.0, 3.0, math.inf]))
def test_counts_and_discount_are_those_of_a_loop(seed: int, exponent: float) -> None:
    events, mask, before, reward = drawn(seed)
    counts = naive(events, mask, before)
    assert torch.equal(rewards.episode_counts(events, mask, before), counts)
    wanted = torch.tensor(
        [
            [r * float(n) ** -exponent if n else 0.0 for r, n in zip(*row, strict=True)]
            for row in zip(reward.tolist(), counts.tolist(), strict=True)
        ],
        dtype=torch.float64,
    )
    got = rewards.count_discount(reward, events, mask, exponent, before)
    torch.testing.assert_close(got, wanted)


@settings(max_examples=40)
@given(seed=st.integers(0, 300), cut=st.integers(0, 5))
def test_an_episode_in_two_pieces_counts_as_one(seed: int, cut: int) -> None:
    events, mask, before, _ = drawn(seed)
    whole = rewards.episode_counts(events, mask, before)
    carried = rewards.counts_after(events[:, :cut], mask[:, :cut], before)
    rest = rewards.episode_counts(events[:, cut:], mask[:, cut:], carried)
    assert torch.equal(torch.cat([whole[:, :cut], rest], 1), whole)
    after = rewards.counts_after(events, mask, before, known=9)
    assert torch.equal(
        after, rewards.counts_after(events[:, cut:], mask[:, cut:], carried, known=9)
    )


def test_discount_at_its_ends() -> None:
    events = torch.tensor([[1, 2, 1, 1]])
    reward = torch.tensor([[2.0, 3.0, 2.0, 2.0]])
    mask = torch.tensor([[True, True, True, False]])
    first_only = rewards.count_discount(reward, events, mask, math.inf)
    assert first_only.tolist() == [[2.0, 3.0, 0.0, 0.0]]
    assert rewards.count_discount(reward, events, mask, 0.0).tolist() == [[2.0, 3.0, 2.0, 0.0]]
    with pytest.raises(ValueError, match=r"exponent is -1.0, wanted 0 or more"):
        rewards.count_discount(reward, events, mask, -1.0)
    with pytest.raises(ValueError, match="the number -1; wanted 0 or more"):
        rewards.count_discount(reward, events - 2, mask)
    with pytest.raises(ValueError, match="known is 2; wanted 3 or more"):
        rewards.counts_after(events, mask, known=2)
