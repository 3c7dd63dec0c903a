"""Filters by something that can be trusted more than the labels: a gold model, a rater's scores."""

import torch
from jaxtyping import Float
from torch import Tensor

from prefgym.curation.votes import directed
from prefgym.models.fit import Curated


def drop_inconsistent(
    curated: Curated,
    logits: Float[Tensor, " members pairs"],
    least: float = 0.5,
    flip_from: float | None = None,
) -> Curated:
    """Leave out the labels that a model contradicts which was fitted to trusted comparisons.

    The model's confidence in a label is the probability, a mean over its members, that it gives the
    preferred side. Ties stay.

    What such a filter cannot do: the model's own errors pass it as agreement, and a model of a few
    trusted comparisons may be better alone than what is fitted to all that it lets pass. So
    compare with it.

    Source: Liu et al. (2025), sec. 3 (stage 2), "Skywork-Reward-V2", arXiv:2507.01352: keep where
    the confidence is above ½, and perhaps flip the others.

    Args:
        curated: what to treat.
        logits: the trusted model's log-odds that ``a`` is preferred, ``model.logits(a, b)``.
        least: confidence with which a label is kept.
        flip_from: confidence in the other side from which a label is turned round and kept; None
            turns none round.

    Raises:
        ValueError: a confidence that is none, or that would both keep a label and flip it.
    """
    if not 0.0 <= least <= 1.0:
        raise ValueError(f"drop_inconsistent: least is {least}, wanted a probability.")
    if flip_from is not None and not 1.0 - least < flip_from <= 1.0:
        raise ValueError(
            f"drop_inconsistent: flip_from is {flip_from}, wanted a probability above 1 − least = "
            f"{1.0 - least:.4g}, so that no label is both kept and flipped."
        )
    confidence = torch.sigmoid(directed(logits, curated.label)).mean(0)
    decided = curated.label != 0.5
    drop = decided & (confidence < least)
    label = curated.label
    if flip_from is not None:
        turn = decided & (1.0 - confidence >= flip_from)
        drop, label = drop & ~turn, torch.where(turn, 1.0 - label, label)
    return _without(curated._replace(label=label), drop)


def drop_close(curated: Curated, gap: Float[Tensor, " pairs"], least: float) -> Curated:
    """Leave out the pairs whose two sides are scored too much alike to be told apart.

    Source: Yu et al. (2024), "RLAIF-V", arXiv:2405.17220: keep pairs whose scores (claims found to
    be wrong) differ by at least 1.

    Args:
        curated: what to treat.
        gap: score of ``a`` minus score of ``b``, or the ``strength`` of the comparisons; the sign
            does not matter.
        least: the smallest gap that is kept, in the scores' unit.

    Raises:
        ValueError: gaps that nobody gave, or of another number of pairs.
    """
    if gap.shape != curated.label.shape:
        raise ValueError(
            f"drop_close: got {len(gap)} gaps for {len(curated.label)} labels; give one for each."
        )
    unknown = int(gap.isnan().sum())
    if unknown:
        raise ValueError(
            f"drop_close: {unknown} of {len(gap)} gaps are NaN, as the strength of a comparison is "
            "where its rater gave none; pass scores of your own, or take the other pairs only."
        )
    return _without(curated, gap.abs() < least)


def _without(curated: Curated, drop: Tensor) -> Curated:
    """The same without some pairs."""
    weight = torch.as_tensor(curated.weight).to(curated.label)
    return curated._replace(weight=torch.where(drop, 0.0, weight))
