"""Policy gradients: what a sample was worth, and losses of its log-probability.

Pure functions of tensors. Losses are to be minimised and come one per step, sample or pair; the
caller masks and averages (:func:`masked_mean`). Padded steps must hold finite numbers. Advantages,
rewards and the log-probabilities ``old`` of the policy that acted are constants: detach them.

Samples of one group answer the same context (prompt, or restored start): there, and only there,
does a constant of the context cancel.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prefgym.rewards import CONSTANT
from prefgym.rewards.transforms import context_rows


def masked_mean(
    values: Float[Tensor, " *batch steps"], mask: Bool[Tensor, " *batch steps"]
) -> Float[Tensor, ""]:
    """The mean over all real steps of the batch; 0 where there is none.

    Every step weighs the same, so a long sample weighs more than a short one.
    """
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def sequence_log_ratio(
    log_prob: Float[Tensor, " *batch steps"],
    old: Float[Tensor, " *batch steps"],
    mask: Bool[Tensor, " *batch steps"],
    per_step: bool = False,
) -> Float[Tensor, " *batch"]:
    """Log π(y)/π_old(y) of whole samples.

    Args:
        log_prob: log π of every step, with gradient.
        old: the same under the policy that acted.
        mask: true where a real step is.
        per_step: the mean over the steps in place of the sum. The variance of a sample's ratio
            grows exponentially with its length; that of the geometric mean does not.
            Source: Zheng et al. (2025), eq. 7, arXiv:2507.18071 (GSPO).
    """
    total = torch.where(mask, log_prob - old, 0.0).sum(-1)
    return total / mask.sum(-1).clamp(min=1) if per_step else total


# --- what a sample was worth --------------------------------------------------------------------


def gae(
    rewards: Float[Tensor, " batch steps"],
    values: Float[Tensor, " batch steps"],
    mask: Bool[Tensor, " batch steps"],
    discount: float = 1.0,
    trace: float = 0.95,
    last_value: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, " batch steps"]:
    """Generalised advantages, A_t = Σ_k (γλ)^k δ_{t+k} with δ_t = r_t + γ V_{t+1} − V_t.

    ``advantages + values`` is the target of the critic.

    Source: Schulman et al. (2016), eq. 16, arXiv:1506.02438.

    Args:
        rewards: of every step.
        values: V of what each step was decided in.
        mask: true where a real step is; padding stands at the end of a row and gets 0.
        discount: γ.
        trace: λ; 1 is return minus value, 0 the one-step error.
        last_value: V of what follows the last real step, where an episode was cut short; 0 where
            it ended, which is meant by None.
    """
    after = torch.zeros_like(values)
    after[:, :-1] = torch.where(mask[:, 1:], values[:, 1:], 0.0)
    if last_value is not None:
        last = mask.clone()
        last[:, :-1] &= ~mask[:, 1:]
        after = torch.where(last, last_value[:, None], after)
    errors = torch.where(mask, rewards + discount * after - values, 0.0)
    advantages = torch.zeros_like(errors)
    running = torch.zeros_like(errors[:, 0])
    for step in reversed(range(errors.shape[1])):
        running = errors[:, step] + discount * trace * running
        advantages[:, step] = running
    return advantages


def group_advantages(
    returns: Float[Tensor, " batch"], context_id: Int[Tensor, " batch"], scale: bool = True
) -> Float[Tensor, " batch"]:
    """Return minus the mean of its group, in standard deviations of the group.

    The deviation is the unbiased one. A group of equal returns gets exactly 0; nothing is added to
    the deviation, so that however small the differences are, they are scaled up to 1.

    Source: Shao et al. (2024), sec. 4.1.2, arXiv:2402.03300 (GRPO); without the scale Liu et al.
    (2025), sec. 3.2, arXiv:2503.20783 (Dr. GRPO).

    Args:
        returns: one number per sample.
        context_id: equal for the samples of one group.
        scale: whether to divide by the deviation.

    Raises:
        ValueError: a group has one sample only, of which nothing relative can be said.
    """
    groups = _centred(returns, context_id, "group_advantages")
    if not scale:
        return groups.centred[groups.place]
    variance = groups.centred.square().sum(1, keepdim=True) / (groups.size - 1)
    return (groups.centred / _divisor(variance.sqrt()))[groups.place]


def leave_one_out(
    returns: Float[Tensor, " batch"], context_id: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return minus the mean of the *others* in its group: a baseline without bias.

    Equals G/(G − 1) times the return minus the mean of all.

    Source: Ahmadian et al. (2024), arXiv:2402.14740 (RLOO).

    Args:
        returns: one number per sample.
        context_id: equal for the samples of one group.

    Raises:
        ValueError: a group has one sample only.
    """
    groups = _centred(returns, context_id, "leave_one_out")
    return (groups.centred * groups.size / (groups.size - 1))[groups.place]


def pair_advantages(gaps: Float[Tensor, " *groups size size"]) -> Float[Tensor, " *groups size"]:
    """How far each sample of a group is ahead of the others, from judgements of pairs alone.

    A_i = (1/G) Σ_j d_ij / sqrt(Σ_ij d_ij² / (2G(G − 1))). With d_ij = r_i − r_j these are the
    :func:`group_advantages` of r. Where every gap is 0 so is A.

    Source: Hong et al. (2025), arXiv:2505.16265 (Think-RM); there with a small constant
    inside the root.

    Args:
        gaps: ``gaps[..., i, j]`` = d_ij, how much better i is than j, with d_ji = −d_ij. Of a
            matrix of P(i ≻ j) give P − ½.

    Raises:
        ValueError: a group has one sample only, or what is said of (i, j) and (j, i) differs.
    """
    size = gaps.shape[-1]
    if size < 2:
        raise ValueError(
            f"policy_losses.pair_advantages: groups have {size} sample; draw 2 or more per context."
        )
    if not torch.allclose(gaps, -gaps.mT, atol=1e-6):
        worst = float((gaps + gaps.mT).abs().max())
        raise ValueError(
            f"policy_losses.pair_advantages: gaps[i, j] + gaps[j, i] is up to {worst:.3g}, wanted "
            "0; of probabilities give P − ½, of a judge that favours a position the mean of both "
            "orders, (gaps − gaps.mT) / 2."
        )
    deviation = (gaps.square().sum((-2, -1)) / (2 * size * (size - 1))).sqrt()
    return gaps.mean(-1) / _divisor(deviation)[..., None]


def pairs_within(context_id: Int[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
    """Every pair of samples that answer the same context, once: two lists of indices."""
    same = context_id[:, None] == context_id[None, :]
    first, second = torch.triu(same, diagonal=1).nonzero(as_tuple=True)
    return first, second


# --- losses -------------------------------------------------------------------------------------


def clipped(
    log_prob: Float[Tensor, " *batch"],
    old: Float[Tensor, " *batch"],
    advantage: Float[Tensor, " *batch"],
    clip: float = 0.2,
) -> Float[Tensor, " *batch"]:
    """−min(ρA, clip(ρ, 1 − ε, 1 + ε) A) with ρ = π/π_old, of every step.

    A step whose ratio has already gone beyond the clip the way its advantage pulls has no slope.
    Of whole samples (:func:`sequence_log_ratio` and zeros for ``old``) it is GSPO's loss.

    Source: Schulman et al. (2017), eq. 7, arXiv:1707.06347 (PPO).

    Args:
        log_prob: log π of what was done, with gradient.
        old: the same under the policy that acted.
        advantage: what it was worth; of a sample, the same at every step.
        clip: ε > 0.
    """
    _require(clip > 0.0, "clipped", "clip", clip, "above 0")
    ratio = torch.exp(log_prob - old)
    return -torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)


def clipped_value(
    value: Float[Tensor, " *batch"],
    old: Float[Tensor, " *batch"],
    target: Float[Tensor, " *batch"],
    clip: float = 0.2,
) -> Float[Tensor, " *batch"]:
    """½ max((V − R)², (clip(V, V_old − ε, V_old + ε) − R)²), of every step.

    Source: Schulman et al. (2017), OpenAI Baselines; Zheng et al. (2023),
    arXiv:2307.04964 (PPO-max).

    Args:
        value: V now, with gradient.
        old: V when the step was taken.
        target: R, what V should be (:func:`gae` plus ``old``).
        clip: ε > 0, in units of return.
    """
    _require(clip > 0.0, "clipped_value", "clip", clip, "above 0")
    near = old + (value - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((value - target) ** 2, (near - target) ** 2)


def pair_clipped_apart(
    first: Float[Tensor, " *pairs"],
    second: Float[Tensor, " *pairs"],
    gap: Float[Tensor, " *pairs"],
    clip: float = 0.2,
) -> Float[Tensor, " *pairs"]:
    """P3O's first form: −½ Σ_i min(w_i ρ_i, w_i clip(ρ_i, 1 − ε, 1 + ε)), w_i = (r_i − r_j) ρ_j.

    The weights w are constants. Only the gap of the two rewards matters, so whatever the context
    adds to both of them changes nothing. At π = π_old the slope is that of
    −½ (r_1 − r_2) log(π(y_1)/π(y_2)), whose mean over pairs is the slope of the mean return.

    Source: Wu et al. (2023), P3O-V1, arXiv:2310.00212.

    Args:
        first: log π/π_old of one sample of each pair (:func:`sequence_log_ratio`), with gradient.
        second: of the other one, which answers the same context.
        gap: r_1 − r_2.
        clip: ε > 0.
    """
    _require(clip > 0.0, "pair_clipped_apart", "clip", clip, "above 0")
    one, other = first.exp(), second.exp()
    zero = torch.zeros_like(gap)
    loss = clipped(first, zero, gap * other.detach(), clip)
    return 0.5 * (loss + clipped(second, zero, -gap * one.detach(), clip))


def pair_clipped_jointly(
    first: Float[Tensor, " *pairs"],
    second: Float[Tensor, " *pairs"],
    gap: Float[Tensor, " *pairs"],
    clip: float = 0.2,
) -> Float[Tensor, " *pairs"]:
    """P3O's second form: −½ min(w u, w clip(u, −ε, ε)), w = (r_1 − r_2) ρ_1 ρ_2, u = log ρ_1/ρ_2.

    What is clipped is how far the *two* have moved apart, and the weight w is a constant.

    Source: Wu et al. (2023), P3O-V2, arXiv:2310.00212.

    Args:
        first: as in :func:`pair_clipped_apart`; of long samples better with ``per_step``.
        second: as in :func:`pair_clipped_apart`.
        gap: r_1 − r_2.
        clip: ε > 0, in nats.
    """
    _require(clip > 0.0, "pair_clipped_jointly", "clip", clip, "above 0")
    weight = gap * (first + second).detach().exp()
    apart = first - second
    return -0.5 * torch.minimum(weight * apart, weight * apart.clamp(-clip, clip))


# --- distance to a reference --------------------------------------------------------------------


def kl_k1(
    log_prob: Float[Tensor, " *batch"], reference: Float[Tensor, " *batch"]
) -> Float[Tensor, " *batch"]:
    """Log π − log π_ref at a sample of π: its mean is KL(π ‖ π_ref).

    For rewards and for reports. Its own slope has mean 0: in a loss it does nothing.

    Source: Schulman (2020), "Approximating KL divergence", k1.
    """
    return log_prob - reference


def kl_k3(
    log_prob: Float[Tensor, " *batch"], reference: Float[Tensor, " *batch"]
) -> Float[Tensor, " *batch"]:
    """X − 1 − log x with x = π_ref/π at a sample of π: mean KL(π ‖ π_ref), never negative.

    The form that GRPO adds to its loss. Its slope, averaged over samples of π, is that of the
    *reverse* KL(π_ref ‖ π), which agrees with that of KL(π ‖ π_ref) near the reference only.

    Source: Schulman (2020), "Approximating KL divergence", k3; Shao et al. (2024), eq. 4,
    arXiv:2402.03300.
    """
    log_ratio = reference - log_prob
    return torch.expm1(log_ratio) - log_ratio


class _Groups(NamedTuple):
    """Returns minus the mean of their group, a group a row; 0 where a row is not filled."""

    centred: Tensor
    size: Tensor
    """``[groups, 1]`` samples of each."""
    place: tuple[Tensor, Tensor]
    """Row and column of every sample."""


def _centred(returns: Tensor, context_id: Tensor, name: str) -> _Groups:
    rows = context_rows(context_id)
    if (rows.counts < 2).any():
        raise ValueError(
            f"policy_losses.{name}: context {int(rows.ids[rows.counts < 2][0])} has one sample"
            " only; draw 2 or more per context (same prompt, same start)."
        )
    table = rows.table(returns, torch.inf)
    filled = torch.arange(table.shape[1], device=table.device) < rows.counts[:, None]
    # From the lowest of the group, so that equal returns leave exact zeros whatever their size.
    above = torch.where(filled, table - table.amin(1, keepdim=True), 0.0)
    size = rows.counts[:, None].to(returns)
    mean = above.sum(1, keepdim=True) / size
    return _Groups(torch.where(filled, above - mean, 0.0), size, rows.place)


def _divisor(deviation: Tensor) -> Tensor:
    return torch.where(deviation > CONSTANT, deviation, torch.ones_like(deviation))


def _require(good: bool, loss: str, name: str, value: float, wanted: str) -> None:
    if not good:
        raise ValueError(f"policy_losses.{loss}: {name} is {value}, wanted a number {wanted}.")
