"""Plain functions of rewards: transforms, aggregates of an ensemble, and one that needs no model.

Transforms take rewards ``[*batch, steps]`` with their mask and leave padded steps at zero.
Aggregators take ``[members, ...]`` and return ``[...]``; members should share a scale first
(:meth:`prefgym.models.reward_models.RewardModel.standardise`).
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from prefgym.segments import Array

Aggregator = Callable[[Tensor], Tensor]
"""``aggregate(member_rewards)``: ``[members, ...] -> [...]``, one reward for what all say."""

CONSTANT = 1e-8
"""A standard deviation at or below this is taken for a constant reward, which scaling leaves be."""


def centred(
    rewards: Float[Tensor, " *batch steps"], mask: Bool[Tensor, " *batch steps"]
) -> Float[Tensor, " *batch steps"]:
    """Rewards minus their mean over the real steps.

    A Bradley-Terry reward is known up to a constant per step. Episodes of one length do not feel
    it; where they differ, it pays for living or for dying.
    """
    return (rewards - _mean(rewards, mask)) * mask


def standardised(
    rewards: Float[Tensor, " *batch steps"], mask: Bool[Tensor, " *batch steps"]
) -> Float[Tensor, " *batch steps"]:
    """Rewards with mean 0 and standard deviation 1 over the real steps; a constant becomes 0.

    Source: Christiano et al. (2017), sec. 2.2.1, arXiv:1706.03741.
    """
    moved = centred(rewards, mask)
    deviation = _mean(moved**2, mask).sqrt()
    return moved / torch.where(deviation > CONSTANT, deviation, torch.ones_like(deviation))


def clipped(rewards: Float[Tensor, " *batch"], low: float, high: float) -> Float[Tensor, " *batch"]:
    """Rewards held in ``[low, high]``.

    Raises:
        ValueError: ``low`` is not below ``high``.
    """
    if not low < high:
        raise ValueError(f"rewards.clipped: low is {low} and high {high}; wanted low < high.")
    return rewards.clamp(low, high)


def mean_reward(member_rewards: Float[Tensor, " members *batch"]) -> Float[Tensor, " *batch"]:
    """What the members say on average."""
    return member_rewards.mean(0)


def worst_reward(member_rewards: Float[Tensor, " members *batch"]) -> Float[Tensor, " *batch"]:
    """What the least convinced member says, min over members.

    Source: Coste et al. (2023), eq. 2 (WCO), arXiv:2310.02743.
    """
    return member_rewards.amin(0)


def cautious_reward(
    member_rewards: Float[Tensor, " members *batch"], penalty: float = 0.5
) -> Float[Tensor, " *batch"]:
    """Mean minus ``penalty`` times the variance between members.

    Source: Coste et al. (2023), eq. 3 (UWO), arXiv:2310.02743; the variance divides by the number
    of members.

    Args:
        member_rewards: rewards of every member, on one scale.
        penalty: λ ≥ 0, in units of one over reward.
    """
    if not penalty >= 0.0:
        raise ValueError(f"rewards.cautious_reward: penalty is {penalty}, wanted 0 or more.")
    return member_rewards.mean(0) - penalty * member_rewards.var(0, correction=0)


def state_entropy(
    observations: Shaped[Array, " batch steps *obs"],
    among: Shaped[Array, " seen *obs"],
    neighbours: int = 5,
) -> Float[Tensor, " batch steps"]:
    """How new each state is: log(1 + distance to its k-th nearest one among those seen).

    The mean over the states of a policy grows with the entropy of what it visits. Coordinates are
    first divided by their standard deviation among the states seen, so that none drowns the others.

    Source: Lee, Smith and Abbeel (2021), eq. 4, arXiv:2106.05091 (PEBBLE), there without the 1,
    which makes a repeated state worth 0 as in Liu and Abbeel (2021), eq. 3, arXiv:2103.04551.

    Args:
        observations: the states to judge, numpy or torch.
        among: states seen before.
        neighbours: k, at least 1; all of ``among`` if there are fewer.

    Raises:
        ValueError: ``among`` is empty or ``neighbours`` below 1.
    """
    if not len(among) or neighbours < 1:
        raise ValueError(
            f"rewards.state_entropy: got {len(among)} states to compare with and neighbours="
            f"{neighbours}; wanted 1 or more of both."
        )
    seen = torch.asarray(among, copy=True).flatten(1).to(torch.float32)
    scale = seen.std(0, correction=0)
    scale = torch.where(scale > CONSTANT, scale, torch.ones_like(scale))
    states = torch.asarray(observations, copy=True).flatten(0, 1).flatten(1).to(seen)
    nearest = [
        torch.cdist(part / scale, seen / scale).kthvalue(min(neighbours, len(seen)), dim=1).values
        for part in states.split(4096)
    ]
    return torch.log1p(torch.cat(nearest)).view(observations.shape[:2])


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
