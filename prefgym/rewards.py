"""Plain functions of rewards: transforms, aggregates of an ensemble, win rates, novelty.

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


def beats(
    scores: Float[Tensor, " *groups options"],
    others: Float[Tensor, " *groups opponents"],
    band: float = 0.0,
) -> Float[Tensor, " *groups options opponents"]:
    """Comparisons read off scores: 1 where the first is higher, 0 where lower, ½ for a tie.

    Args:
        scores: of the options to be judged.
        others: of what each of them is compared with.
        band: scores at most this far apart are a tie, as for a judge who cannot see less.

    Raises:
        ValueError: ``band`` is below 0.
    """
    if not band >= 0.0:
        raise ValueError(f"rewards.beats: band is {band}, wanted 0 or more, in units of score.")
    gap = scores[..., :, None] - others[..., None, :]
    return 0.5 + 0.5 * torch.where(gap.abs() > band, gap.sign(), 0.0)


def win_rates(
    chances: Float[Tensor, " *groups options opponents"],
) -> Float[Tensor, " *groups options"]:
    """How often each option is preferred to an opponent drawn at random.

    Against a queue of what the same policy did lately it is the reward of Swamy et al. (2024),
    arXiv:2401.04056 (SPO), which needs no utility to exist behind the preferences.

    Args:
        chances: ``chances[..., i, j]`` = P(i ≻ j) in [0, 1], a tie is ½.
    """
    return chances.mean(-1)


def win_rates_in_group(
    chances: Float[Tensor, " *groups size size"],
) -> Float[Tensor, " *groups size"]:
    """How often each sample of a group is preferred to another one of it, (1/(G−1)) Σ_{j≠i} P(i≻j).

    Source: Wang et al. (2025), arXiv:2508.20751 (Pref-GRPO).

    Args:
        chances: ``chances[..., i, j]`` = P(i ≻ j) in [0, 1], a tie is ½; the diagonal is not read.

    Raises:
        ValueError: a group has one sample only.
    """
    size = chances.shape[-1]
    if size < 2:
        raise ValueError(
            f"rewards.win_rates_in_group: groups have {size} sample; draw 2 or more per context."
        )
    itself = torch.eye(size, dtype=torch.bool, device=chances.device)
    return chances.masked_fill(itself, 0.0).sum(-1) / (size - 1)


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
