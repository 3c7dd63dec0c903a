"""Heads: what the numbers of an encoder mean, and how two segments are compared by them.

A head reads ``width`` numbers for every step. ``summary`` brings a segment down to a few numbers,
``margin`` compares two summaries: P(a ≻ b) = σ(margin). A segment that stands in many pairs is
summarised once. A head that also has ``rewards`` is *pointwise*: its margins are differences of
what single segments are worth. Heads whose margin depends on who was asked are in
``populations.py``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

SMALL = 0.1
"""Standard deviation, about, of what is read off a network before any fit: heads begin small."""


class Heard(NamedTuple):
    """What is known about the question beside its two segments."""

    rater_id: Int[Tensor, " members pairs"]
    """Who was asked."""
    context: Float[Tensor, " members pairs numbers"] | None
    """How both segments began, as the model reads it; None where no head wants to know."""


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
        heard: Heard | None = None,
    ) -> Float[Tensor, " members pairs"]:
        """How much better ``a`` is, in nats of log-odds; exchanging the sides turns the sign."""
        ...


@runtime_checkable
class RewardHead(Head, Protocol):
    """A head by which a single segment is worth something."""

    def rewards(
        self, steps: Float[Tensor, " members segments steps width"]
    ) -> Float[Tensor, " members segments steps"]:
        """The reward of every step."""
        ...


HeadFactory = Callable[[int, int, torch.Generator], Any]
"""``(members, reads, generator) -> Head``; ``reads`` numbers say what a segment is like."""


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
        self,
        a: Float[Tensor, " members pairs 1"],
        b: Float[Tensor, " members pairs 1"],
        heard: Heard | None = None,
    ) -> Float[Tensor, " members pairs"]:
        """The difference of the two sums."""
        return (a - b)[..., 0]


class GeneralPreferenceHead(nn.Module):
    """A preference that no reward explains, s(a ≻ b) = Σ_i (x_i(a) y_i(b) − y_i(a) x_i(b)).

    The x and y alternate in a vector v, which is the sum of the steps' numbers over a segment, so
    that the score is bilinear, and linear in every step: against a fixed crowd of segments with
    mean v̄, each step has a reward, its part of s(· ≻ v̄) (:meth:`rewards`). A preference that
    cycles has a crowd to be best against, and nobody who is best against everyone.

    Source: Zhang et al. (2025), arXiv:2410.02197 (GPM). There v has length 1 and the score is
    divided by τ = 0.1; with two numbers that form does not train at all (every start stays at
    chance), so here v is as it is and τ = 1 unless asked otherwise.

    Args:
        members: networks in the ensemble.
        numbers: of v, even.
        normalise: give v length 1; then rewards are of the whole segment's v, to first order only.
        temperature: τ, above 0.

    Raises:
        ValueError: an odd number of numbers, or none; a temperature that is not above 0.
    """

    crowd: Tensor
    """``[members, numbers]``: the mean v of those whom :meth:`rewards` compares with."""

    def __init__(
        self, members: int, numbers: int = 4, normalise: bool = False, temperature: float = 1.0
    ) -> None:
        super().__init__()
        if numbers < 2 or numbers % 2 or not temperature > 0.0:
            raise ValueError(
                f"GeneralPreferenceHead: numbers is {numbers} and temperature {temperature}; wanted"
                " an even number of 2 or more, and a temperature above 0."
            )
        self.width = numbers
        self.normalise = normalise
        self.temperature = temperature
        self.register_buffer("crowd", torch.zeros(members, numbers))

    def summary(
        self,
        steps: Float[Tensor, " members segments steps width"],
        mask: Bool[Tensor, " #members segments steps"],
    ) -> Float[Tensor, " members segments width"]:
        """The vector v of every segment."""
        total = (steps * mask[..., None]).sum(2)
        return nn.functional.normalize(total, dim=-1) if self.normalise else total

    def margin(
        self,
        a: Float[Tensor, " members pairs width"],
        b: Float[Tensor, " members pairs width"],
        heard: Heard | None = None,
    ) -> Float[Tensor, " members pairs"]:
        """s(a ≻ b) / τ."""
        return (turned(a) * b).sum(-1) / self.temperature

    def scores(
        self, items: Float[Tensor, " members segments width"]
    ) -> Float[Tensor, " members segments segments"]:
        """s(i ≻ j) / τ of all pairs of K summaries: K encodings, one product."""
        return turned(items) @ items.transpose(1, 2) / self.temperature

    def rewards(
        self, steps: Float[Tensor, " members segments steps width"]
    ) -> Float[Tensor, " members segments steps"]:
        """How much each step adds to s(segment ≻ the crowd) / τ; 0 before there is a crowd."""
        crowd = self.crowd[:, None, None]
        return (turned(steps) * crowd).sum(-1) / self.temperature

    def meet(self, summaries: Float[Tensor, " members segments width"]) -> None:
        """Compare with these segments from now on."""
        self.crowd.copy_(summaries.mean(1))


def turned(v: Float[Tensor, " *batch width"]) -> Float[Tensor, " *batch width"]:
    """R^T v: every two numbers (x, y) become (−y, x), so that ⟨turned(a), b⟩ is skew-symmetric."""
    x, y = v.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([-y, x], -1).flatten(-2)


class TasteHead(nn.Module):
    """K rewards for every step: tastes, objectives or attributes, told apart by a population.

    Args:
        tastes: K, 1 or more.
        tanh: hold every reward in (−1, 1).
    """

    def __init__(self, tastes: int, tanh: bool = False) -> None:
        super().__init__()
        self.width = self.tastes = at_least_one("TasteHead", "tastes", tastes)
        self.tanh = tanh

    def rewards(self, steps: Float[Tensor, " *batch tastes"]) -> Float[Tensor, " *batch tastes"]:
        """K rewards of every step."""
        return torch.tanh(steps) if self.tanh else steps


class IdealPointHead(nn.Module):
    """K rewards for every step: how near it is to each of K prototypes, −‖e − p_k‖².

    With weights that add up to 1 the margin of two segments under mixed tastes is that under the
    mixed ideal point u = Σ_k w_k p_k: the squares cancel.

    Source: Chen et al. (2025), arXiv:2406.08469 (PAL-A), there with distances that are not squared
    and one e for a whole item; here every step has one, so that steps have rewards.

    Args:
        members: networks in the ensemble.
        tastes: K, 1 or more.
        numbers: dimensions of the space in which prototypes live.
        generator: draws the prototypes.
    """

    def __init__(
        self, members: int, tastes: int, numbers: int = 8, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.tastes = at_least_one("IdealPointHead", "tastes", tastes)
        self.width = at_least_one("IdealPointHead", "numbers", numbers)
        drawn = torch.randn(members, tastes, numbers, generator=generator)
        self.prototypes = nn.Parameter(drawn / numbers**0.5)

    def rewards(
        self, steps: Float[Tensor, " members segments steps width"]
    ) -> Float[Tensor, " members segments steps tastes"]:
        """K rewards of every step."""
        points = self.prototypes[:, None]  # [members, 1, tastes, numbers]
        crossed = torch.einsum("mbtw,mkw->mbtk", steps, self.prototypes)
        return (
            2.0 * crossed - steps.square().sum(-1, keepdim=True) - points.square().sum(-1)[:, None]
        )


def at_least_one(who: str, name: str, count: int) -> int:
    """The same number.

    Raises:
        ValueError: it is below 1.
    """
    if count < 1:
        raise ValueError(f"{who}: {name} is {count}; wanted 1 or more.")
    return count
