"""Aggregates: one reward for what several members, rewards, attributes or groups of raters say.

They take ``[members, ...]`` and return ``[...]``. Members should share a scale first
(:meth:`prefgym.models.reward_models.RewardModel.standardise`).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prefgym.rewards.transforms import log_sigmoid, standardised

Aggregator = Callable[[Tensor], Tensor]
"""``aggregate(member_rewards)``: ``[members, ...] -> [...]``, one reward for what all say."""


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


def soft_worst_reward(
    member_rewards: Float[Tensor, " members *batch"], temperature: float = 0.0
) -> Float[Tensor, " *batch"]:
    """The smooth least reward, −τ log (1/K) Σ_k exp(−r_k / τ): between the least and the mean.

    It rises with every member's reward, and has a slope everywhere.

    Args:
        member_rewards: rewards of every member or group, on one scale.
        temperature: τ ≥ 0, in units of reward; 0 is :func:`worst_reward`.

    Raises:
        ValueError: ``temperature`` is below 0.
    """
    _check_temperature(temperature, "soft_worst_reward")
    if temperature == 0.0:
        return worst_reward(member_rewards)
    mean = torch.logsumexp(-member_rewards / temperature, 0) - math.log(len(member_rewards))
    return -temperature * mean


def log_sigmoid_sum(
    scores: Float[Tensor, " rewards *batch"], levels: Float[Tensor, " rewards *#batch"]
) -> Float[Tensor, " *batch"]:
    """Σ_i log σ(r_i − r_i^ref): the log-probability to be good in all, if these are independent.

    Source: Wang et al. (2024), arXiv:2402.00742.

    Args:
        scores: of whole responses, by several rewards.
        levels: what counts as good, for each reward; see :func:`log_sigmoid`.
    """
    return log_sigmoid(scores, levels).sum(0)


def directed_reward(
    attribute_rewards: Float[Tensor, " attributes *batch"],
    direction: Float[Tensor, " attributes"],
    mask: Bool[Tensor, " *batch"] | None = None,
    unit: bool = True,
) -> Float[Tensor, " *batch"]:
    """What a user wants for whom the attributes count as ``direction`` says.

    Source: Wang et al. (2024), arXiv:2402.18571 (directional preference alignment).

    Args:
        attribute_rewards: one reward for each attribute.
        direction: v, how much each attribute counts; below 0 it is to be avoided.
        mask: which values are real. Where given, every attribute is first brought to mean 0 and
            standard deviation 1 over these; None takes them to share a scale already, without
            which the angle of v means nothing.
        unit: divide v by its length.

    Raises:
        ValueError: ``direction`` is zero and has no angle.
    """
    length = torch.linalg.vector_norm(direction)
    if not length > 0.0:
        raise ValueError(
            "rewards.directed_reward: direction is 0 everywhere; give at least one attribute a "
            "weight."
        )
    if mask is not None:
        attribute_rewards = torch.stack([standardised(one, mask) for one in attribute_rewards])
    weights = direction / length if unit else direction
    combined: Tensor = torch.tensordot(weights.to(attribute_rewards), attribute_rewards, 1)
    return combined


def group_weights(
    group_returns: Float[Tensor, " groups"], temperature: float = 0.0
) -> Float[Tensor, " groups"]:
    """How much each group of raters is listened to: the worse off, the more; sums to 1.

    exp(−J_u / τ), normalised: the slopes of the :func:`soft_worst_reward` of the groups' returns.
    At τ = 0 the worst-off group alone counts, and groups that are equally badly off count equally.

    Args:
        group_returns: J_u, how well the policy does by each group's reward, on one scale.
        temperature: τ ≥ 0, in units of return.

    Raises:
        ValueError: ``temperature`` is below 0.
    """
    _check_temperature(temperature, "group_weights")
    if temperature == 0.0:
        worst = (group_returns == group_returns.amin()).to(group_returns)
        return worst / worst.sum()
    return torch.softmax(-group_returns / temperature, 0)


def worst_group(
    group_rewards: Float[Tensor, " groups batch steps"],
    mask: Bool[Tensor, " batch steps"],
    temperature: float = 0.0,
) -> Float[Tensor, " batch steps"]:
    """The reward of whom the policy serves worst, max_π min_u E_π[r_u]; zeros at padding.

    One group is chosen for the whole batch, by its mean return: the least reward of every single
    response (:func:`worst_reward`) would be another objective. Choosing the worst group alone
    makes learning swing between groups; a temperature of about the noise of a mean return does not.

    Source: Chakraborty et al. (2024), alg. 1, arXiv:2402.08925 (MaxMin-RLHF).

    Args:
        group_rewards: the batch by every group's reward, on one scale.
        mask: which steps are real.
        temperature: see :func:`group_weights`.

    Raises:
        ValueError: ``temperature`` is below 0.
    """
    returns = (group_rewards * mask).sum(-1).mean(-1)
    weights = group_weights(returns.detach(), temperature)
    heard: Tensor = torch.tensordot(weights, group_rewards, 1)
    return heard * mask


def _check_temperature(temperature: float, name: str) -> None:
    if not temperature >= 0.0:
        raise ValueError(f"rewards.{name}: temperature is {temperature}, wanted 0 or more.")
