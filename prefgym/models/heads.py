"""Heads: what the numbers of an encoder mean, and how two segments are compared by them.

A head reads ``width`` numbers for every step. ``summary`` brings a segment down to a few numbers,
``margin`` compares two summaries: P(a ≻ b) = σ(margin). A segment that stands in many pairs is
summarised once. A head that also has ``rewards`` is *pointwise*: its margins are differences of
what single segments are worth.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@runtime_checkable
class Head(Protocol):
    """Any way to compare two segments."""

    width: int
    """How many numbers of each step the head reads."""

    def summary(
        self,
        steps: Float[Tensor, " members segments steps width"],
        mask: Bool[Tensor, " #members segments steps"],
    ) -> Float[Tensor, " members segments summary"]:
        """What a segment comes down to; padded steps do not count."""
        ...

    def margin(
        self,
        a: Float[Tensor, " members pairs summary"],
        b: Float[Tensor, " members pairs summary"],
    ) -> Float[Tensor, " members pairs"]:
        """How much better ``a`` is, in nats of log-odds; exchanging the sides turns the sign."""
        ...


@runtime_checkable
class RewardHead(Head, Protocol):
    """A head by which a single segment is worth something."""

    def rewards(self, steps: Float[Tensor, " *batch width"]) -> Float[Tensor, " *batch"]:
        """The reward of every step."""
        ...


class ScalarHead(nn.Module):
    """One reward for every step; a segment is worth the sum of its steps (Bradley-Terry).

    Source: Christiano et al. (2017), sec. 2.2.3, arXiv:1706.03741; the bounded form from Lee,
    Smith and Abbeel (2021), appendix B, arXiv:2106.05091 (PEBBLE).

    Args:
        tanh: hold every reward in (−1, 1).
    """

    width = 1

    def __init__(self, tanh: bool = False) -> None:
        super().__init__()
        self.tanh = tanh

    def rewards(self, steps: Float[Tensor, " *batch 1"]) -> Float[Tensor, " *batch"]:
        """The reward of every step."""
        return torch.tanh(steps[..., 0]) if self.tanh else steps[..., 0]

    def summary(
        self,
        steps: Float[Tensor, " members segments steps 1"],
        mask: Bool[Tensor, " #members segments steps"],
    ) -> Float[Tensor, " members segments 1"]:
        """The sum of the rewards over the real steps."""
        return (self.rewards(steps) * mask).sum(-1, keepdim=True)

    def margin(
        self, a: Float[Tensor, " members pairs 1"], b: Float[Tensor, " members pairs 1"]
    ) -> Float[Tensor, " members pairs"]:
        """The difference of the two sums."""
        return (a - b)[..., 0]
