"""Shapes that a learned reward is brought to before a policy learns from it, by name.

Steps are shaped one by one, or a segment as a whole: then its score, the sum of its rewards, is
shaped and stands at its last real step. References are what the policy did before it learned; they
are compared with by context where they have the same contexts, and all together elsewhere.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prefgym.names import lookup
from prefgym.rewards.aggregates import (
    Aggregator,
    cautious_reward,
    mean_reward,
    soft_worst_reward,
    worst_reward,
)
from prefgym.rewards.transforms import (
    at_last_step,
    clipped,
    log_sigmoid,
    preference_as_reward,
    reference_level,
    references_by_context,
)

AGGREGATORS: Final[dict[str, Aggregator]] = {
    "mean": mean_reward,
    "worst": worst_reward,
    "cautious": cautious_reward,
    "soft-worst": soft_worst_reward,
}
"""Name -> what to make of an ensemble: mean, WCO, UWO, and a smooth least member.

A direction (:func:`prefgym.rewards.directed_reward`) weighs what means something each, such as what
several raters want; members of an ensemble all mean the same, so there is none here."""


def aggregator(name: str, softness: float) -> Aggregator:
    """The aggregate of that name.

    Args:
        name: a key of ``AGGREGATORS``.
        softness: temperature of those that are soft, in units of reward.
    """
    found = lookup(name, AGGREGATORS, "aggregate of an ensemble")
    return partial(soft_worst_reward, temperature=softness) if name == "soft-worst" else found


Of = Literal["step", "segment"]
"""What is shaped."""

_REFERENCES: Final = 256
"""References that one reward is compared with, at most."""


def _as_is(scores: Tensor, references: Tensor) -> Tensor:
    return scores


def _clip(scores: Tensor, references: Tensor) -> Tensor:
    middle, scale = references.nanmean(-1), _deviation(references)
    return middle + clipped((scores - middle) / scale, -1.0, 1.0) * scale


def _centre(scores: Tensor, references: Tensor) -> Tensor:
    return scores - references.nanmean(-1)


def _standardise(scores: Tensor, references: Tensor) -> Tensor:
    return _centre(scores, references) / _deviation(references)


def _par(scores: Tensor, references: Tensor) -> Tensor:
    return preference_as_reward(scores / _deviation(references), _scaled(references))


def _log_sigmoid(scores: Tensor, references: Tensor) -> Tensor:
    return log_sigmoid(scores / _deviation(references), reference_level(_scaled(references)))


SHAPES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "none": _as_is,
    "centre": _centre,
    "standardise": _standardise,
    "clip": _clip,
    "par": _par,
    "log-sigmoid": _log_sigmoid,
}
"""Name -> f(scores ``[batch]``, references ``[batch, most]`` with NaN for none).

Learned rewards have no unit, so all but "centre" first divide scores by the references' deviation.
The means and deviations are those of the references, and not of the batch, so that what an answer
earns does not depend on which others stand beside it."""


class Shaping:
    """A shape, and the references that it compares with.

    Args:
        shape: a key of ``SHAPES``.
        of: "step" or "segment".

    Raises:
        ValueError: no shape has that name.
    """

    def __init__(self, shape: str = "none", of: Of = "step") -> None:
        self.shape = lookup(shape, SHAPES, "shape of rewards")
        self.idle = shape == "none"
        self.of = lookup(of, {"step": "step", "segment": "segment"}, "what is shaped")

    def __call__(
        self,
        rewards: Float[Tensor, " batch steps"],
        mask: Bool[Tensor, " batch steps"],
        context_id: Int[Tensor, " batch"],
        references: tuple[Tensor, Tensor, Tensor],
    ) -> Float[Tensor, " batch steps"]:
        """The shaped rewards; zeros at padding.

        Args:
            rewards: of a batch, by the model.
            mask: which steps are real.
            context_id: of each segment.
            references: the same three of what is compared with, by the same model.
        """
        if self.idle:
            return rewards
        if self.of == "step":
            pool = references[0][references[1]][None]
            rows = rewards[mask]
            shaped = torch.zeros_like(rewards)
            shaped[mask] = self.shape(rows, _thinned(pool).expand(len(rows), -1))
            return shaped
        scores = (rewards * mask).sum(1)
        known = (references[0] * references[1]).sum(1)
        same = torch.isin(context_id, references[2]).all()
        table = (
            references_by_context(context_id, known, references[2])
            if bool(same)
            else _thinned(known[None]).expand(len(scores), -1)
        )
        return at_last_step(self.shape(scores, table), mask)


def _deviation(references: Tensor) -> Tensor:
    """One number for all: the deviation of the references within their contexts."""
    middle = references.nanmean(-1, keepdim=True)
    spread = (references - middle).square().nanmean().sqrt()
    return torch.where(spread > 0.0, spread, torch.ones_like(spread))


def _scaled(references: Tensor) -> Tensor:
    return references / _deviation(references)


def _thinned(pool: Tensor) -> Tensor:
    """At most so many of the references, evenly taken."""
    every = -(-pool.shape[1] // _REFERENCES)
    return pool[:, ::every]
