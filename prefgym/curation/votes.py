"""What an ensemble thinks of the labels that it was fitted to, and four things to do about it.

The *directed* margin of a pair is how much better a member finds the preferred side, in nats of
log-odds: below 0 where it contradicts the label. A tie prefers no side; it is never doubted, and
never counted in a share.

The ensemble has to be under-trained: members that have had the time to memorise wrong labels agree
with them.

Source: Wang et al. (2024), sec. 2, "Secrets of RLHF in large language models part II: reward
modeling", arXiv:2401.06080.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prefgym.models.fit import Curated


class Vote(NamedTuple):
    """What the members of an ensemble think of every pair."""

    mean: Float[Tensor, " pairs"]
    """μ, of the directed margin over the members, nats; 0 for a tie."""
    deviation: Float[Tensor, " pairs"]
    """The same of its deviation: about what the members disagree."""
    lean: Float[Tensor, " pairs"]
    """1 where the label prefers ``a``, −1 where it prefers ``b``, 0 for a tie."""


def directed(
    logits: Float[Tensor, " *members pairs"], label: Float[Tensor, " pairs"]
) -> Float[Tensor, " *members pairs"]:
    """How much better the preferred side is found, in nats; 0 for a tie.

    Args:
        logits: log-odds that ``a`` is preferred.
        label: P(a ≻ b); a soft one counts for the side that it leans to.

    Raises:
        ValueError: as many logits as labels were wanted, or a logit is NaN or infinite.
    """
    if logits.shape[-1] != len(label):
        raise ValueError(
            f"curation: got logits of {logits.shape[-1]} pairs and {len(label)} labels; give as "
            "many of each."
        )
    if not torch.isfinite(logits).all():
        raise ValueError(
            "curation: a logit is NaN or infinite, so the fit of these members has gone astray; "
            "fit them anew with a lower learning rate."
        )
    return logits * _lean(label).to(logits)


def vote(logits: Float[Tensor, " members pairs"], label: Float[Tensor, " pairs"]) -> Vote:
    """Mean and deviation of the directed margin over the members of an ensemble.

    Args:
        logits: log-odds of every member that ``a`` is preferred, ``model.logits(a, b)``.
        label: P(a ≻ b).

    Example:
        >>> found = vote(torch.tensor([[2.0, 1.0], [4.0, 3.0]]), torch.tensor([1.0, 0.0]))
        >>> found.mean, found.deviation
        (tensor([ 3., -2.]), tensor([1., 1.]))
    """
    margin = directed(logits, label)
    return Vote(margin.mean(0), margin.std(0, correction=0), _lean(label).to(logits))


def lowest(
    values: Float[Tensor, " *members pairs"],
    share: float,
    decided: Bool[Tensor, " pairs"] | None = None,
) -> Bool[Tensor, " *members pairs"]:
    """Where the lowest values are: a share of the decided pairs, rounded down.

    The bound is a quantile of the whole pool. Values equal at the bound stay out together, so that
    the order of the pairs does not matter.

    Args:
        values: of every pair; each row has a bound of its own.
        share: in [0, 1].
        decided: which pairs count, and may be chosen; None is all of them.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"curation.lowest: share is {share}, wanted a number in [0, 1].")
    if decided is not None:
        values = values.masked_fill(~decided, torch.inf)
    pairs = values.shape[-1]
    count = int(share * (pairs if decided is None else int(decided.sum())) + 1e-9)
    if count == pairs:
        return torch.ones_like(values, dtype=torch.bool)
    bound = values.sort(-1).values[..., count, None]
    return values < bound


def flip_lowest(curated: Curated, found: Vote, share: float) -> Curated:
    """Turn round the labels that the ensemble contradicts most: those of the lowest μ.

    Args:
        curated: what to treat.
        found: what the ensemble thinks of its labels.
        share: of the decided pairs, at most.
    """
    where = lowest(_mean(curated, found), share, found.lean != 0)
    return curated._replace(label=torch.where(where, 1.0 - curated.label, curated.label))


def drop_lowest(curated: Curated, found: Vote, share: float) -> Curated:
    """Leave out the pairs whose labels the ensemble contradicts most.

    Args:
        curated: what to treat.
        found: what the ensemble thinks of its labels.
        share: of the decided pairs, at most.
    """
    where = lowest(_mean(curated, found), share, found.lean != 0)
    weight = torch.as_tensor(curated.weight).to(found.mean)
    return curated._replace(weight=torch.where(where, 0.0, weight))


def soften(curated: Curated, found: Vote, flips: float = 0.1, below: float = 0.0) -> Curated:
    """Believe labels less where μ is low: p becomes (1 − ε) p + ε (1 − p).

    Args:
        curated: what to treat.
        found: what the ensemble thinks of its labels.
        flips: ε in [0, ½]; at ½ such a label says nothing.
        below: μ under which a label is softened, nats.
    """
    if not 0.0 <= flips <= 0.5:
        raise ValueError(f"curation.soften: flips is {flips}, wanted a number in [0, 0.5].")
    soft = curated.label + flips * (1.0 - 2.0 * curated.label)
    return curated._replace(label=torch.where(_mean(curated, found) < below, soft, curated.label))


def with_margin(curated: Curated, found: Vote) -> Curated:
    """Ask the preferred side to win by what the ensemble thinks it does: log σ(Δ − μ).

    Sure pairs have to be told farther apart than doubtful ones, so that margins come to say how
    strong a preference is; where μ < 0 a loss by as much is forgiven. A pair that was turned round
    keeps its meaning: −Δ has to reach −μ.

    Departure: the paper's eq. 6 takes μ off outside the logarithm, where it changes no gradient.

    Args:
        curated: what to treat; an offset that it has is replaced.
        found: what the ensemble thinks of its labels.
    """
    return curated._replace(offset=found.lean * found.mean)


def _mean(curated: Curated, found: Vote) -> Tensor:
    """μ in the direction of the labels as they are by now: some may have been turned round."""
    return found.mean * found.lean * _lean(curated.label).to(found.lean)


def _lean(label: Tensor) -> Tensor:
    return (label - 0.5).sign()
