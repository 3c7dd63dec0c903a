"""Transforms: other rewards for the same steps, or other scores for the same responses.

Rewards ``[*batch, steps]`` come with their mask, and padded steps stay at zero. What is about whole
responses takes their scores ``[*batch]``; :func:`at_last_step` makes rewards of them.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

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


# --- scores of whole responses -------------------------------------------------------------------


def at_last_step(
    scores: Float[Tensor, " *batch"], mask: Bool[Tensor, " *batch steps"]
) -> Float[Tensor, " *batch steps"]:
    """Each response's score as the reward of its last real step, 0 before it."""
    steps = torch.arange(mask.shape[-1], device=mask.device)
    last = mask.sum(-1, keepdim=True) - 1
    return torch.where(steps == last, scores[..., None], 0.0)


def centred_by_context(
    scores: Float[Tensor, " batch"], context_id: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Scores minus the mean of those that answer the same context.

    A comparison never crosses contexts, so what a Bradley-Terry model adds for a context is chance.
    """
    rows = context_rows(context_id)
    table = rows.table(scores, torch.nan)
    filled = ~table.isnan()
    mean = torch.where(filled, table, 0.0).sum(1) / filled.sum(1)
    return scores - mean[rows.place[0]]


def references_by_context(
    context_id: Int[Tensor, " batch"],
    reference_scores: Float[Tensor, " references"],
    reference_context_id: Int[Tensor, " references"],
) -> Float[Tensor, " batch most"]:
    """For each response the scores of what the reference policy says in the same context.

    Rows are as long as the longest; NaN fills the others, which :func:`preference_as_reward` and
    :func:`reference_level` do not read.

    Raises:
        ValueError: a context has no reference.
    """
    rows = context_rows(reference_context_id)
    ids, table = rows.ids, rows.table(reference_scores, torch.nan)
    row = torch.searchsorted(ids, context_id).clamp(max=max(len(ids) - 1, 0))
    known = ids[row] == context_id if len(ids) else torch.zeros_like(context_id, dtype=torch.bool)
    if not known.all():
        raise ValueError(
            f"rewards.references_by_context: context {int(context_id[~known][0])} has no "
            "reference; score one or more responses of the reference policy to every context."
        )
    return table[row]


def preference_as_reward(
    scores: Float[Tensor, " *batch"],
    references: Float[Tensor, " *#batch references"],
    steepness: float = 1.0,
) -> Float[Tensor, " *batch"]:
    """PAR, (1/M) Σ_m σ(k (r − r_ref^m)): the chance to be preferred to a reference, in (0, 1).

    It is steep where responses are as good as the references and flat where a score is far above
    them, which is where a reward model is least to be believed.

    Source: Fu et al. (2025), arXiv:2502.18770.

    Args:
        scores: of whole responses.
        references: scores of responses of the reference policy to the same context, by the same
            reward model; NaN is left out.
        steepness: k > 0, per unit of score; 1 takes the score for Bradley-Terry log-odds.

    Raises:
        ValueError: ``steepness`` is not above 0, or a response has no reference.
    """
    if not steepness > 0.0:
        raise ValueError(
            f"rewards.preference_as_reward: steepness is {steepness}, wanted a number above 0."
        )
    known = _known(references, "preference_as_reward")
    chances = torch.sigmoid(steepness * (scores[..., None] - torch.where(known, references, 0.0)))
    return (chances * known).sum(-1) / known.sum(-1)


def reference_level(
    references: Float[Tensor, " *batch references"], quantile: float = 0.85
) -> Float[Tensor, " *batch"]:
    """The score that this share of the references does not reach: what :func:`log_sigmoid` wants.

    Args:
        references: scores of responses of the reference policy to one context; NaN is left out.
        quantile: in [0, 1]. Which one is taken changes a good deal of what is learned.

    Raises:
        ValueError: ``quantile`` is outside [0, 1], or a context has no reference.
    """
    if not 0.0 <= quantile <= 1.0:
        raise ValueError(f"rewards.reference_level: quantile is {quantile}, wanted one in [0, 1].")
    _known(references, "reference_level")
    return torch.nanquantile(references, quantile, dim=-1)


def log_sigmoid(
    scores: Float[Tensor, " *batch"], level: Float[Tensor, " *#batch"]
) -> Float[Tensor, " *batch"]:
    """The log-probability that a response is good: at or above its level.

    Nearly r − r_ref far below the level and nearly 0 far above it, so that what is poor is mended
    before what is good is made better.

    Source: Wang et al. (2024), arXiv:2402.00742.

    Args:
        scores: of whole responses.
        level: what counts as good in the same context, for example :func:`reference_level`.
    """
    return functional.logsigmoid(scores - level)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)


class ContextRows(NamedTuple):
    """Where values stand in a table that has a row for each context.

    A table and not scattered sums, whose order, and with it the last bit, is chance on a GPU.
    """

    ids: Tensor
    """``[contexts]``, in order."""
    counts: Tensor
    """``[contexts]``: values of each."""
    place: tuple[Tensor, Tensor]
    """Row and column of every value."""

    def table(self, values: Tensor, empty: float) -> Tensor:
        """``[contexts, most]``: the values of a context a row, ``empty`` where there is none."""
        most = int(self.counts.max()) if len(self.counts) else 0
        shape = len(self.ids), most
        table = torch.full(shape, empty, dtype=values.dtype, device=values.device)
        table[self.place] = values
        return table


def context_rows(context_id: Int[Tensor, " batch"]) -> ContextRows:
    """The rows of a table by context."""
    ids, group, counts = torch.unique(context_id, return_inverse=True, return_counts=True)
    order = torch.argsort(group, stable=True)
    column = torch.empty_like(order)
    column[order] = torch.arange(len(order), device=order.device)
    column -= (counts.cumsum(0) - counts)[group]
    return ContextRows(ids, counts, (group, column))


def _known(references: Tensor, name: str) -> Tensor:
    known = ~references.isnan()
    if not known.any(-1).all():
        raise ValueError(
            f"rewards.{name}: a response has no reference, or NaN only; score one or more "
            "responses of the reference policy to every context."
        )
    return known
