"""What a policy earns, given a reward model: whom it serves, and what shape the reward has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from prefgym.models.reward_models import PointwiseModel
from prefgym.names import lookup
from prefgym.rewards import directed_reward, worst_group
from prefgym.rewards.shaping import AGGREGATORS, Of, Shaping, aggregator
from prefgym.segments import Segments
from prefgym_agents.learner import as_rewards

Serve = Literal["everyone", "worst", "direction", "each", "person", "inferred"]
REFERENCES = 512
"""Segments of the untrained policy that shaped rewards are compared with."""


@dataclass(frozen=True)
class Earnings:
    """How rewards follow from what a model says."""

    serve: Serve = "everyone"
    """Whose reward the policy gets, where the model knows several: the mean over the raters by
    their shares of the answers, that of whom the policy serves worst, the sum in which each counts
    as ``direction`` says, the sum of "each" after it was shaped by itself (with "log-sigmoid": how
    likely all are content), or that of the person for whom the episode is played (an environment
    made with ``personal``). The policy sees the number of that person, or ("inferred") instead of
    it what the model inferred about that person."""
    direction: tuple[float, ...] = ()
    """For serve="direction": how much each rater counts, in the order of their ids; below 0, what
    that rater likes is to be avoided. Its length does not count, its angle does."""
    softness: float = 0.1
    """Temperature at which the worst served, and the "soft-worst" members, are weighed, in
    deviations of the rewards: of all raters', or of the members'."""
    aggregate: str = "mean"
    """What counts of an ensemble: "mean", "worst", "soft-worst" (a smooth least) or "cautious"
    (mean less variance)."""
    shape: str = "none"
    """What a reward is brought to: "none", "centre", "standardise", "clip", "par" or "log-sigmoid"
    (``prefgym.rewards.shaping``)."""
    shape_of: Of = "step"
    """Whether single steps are shaped, or whole segments, which then earn it at their end."""

    def __post_init__(self) -> None:
        """Refuse settings that can never work."""
        lookup(self.serve, dict.fromkeys(get_args(Serve)), "way to serve raters")
        lookup(self.aggregate, AGGREGATORS, "aggregate of an ensemble")
        Shaping(self.shape, self.shape_of)
        if not self.softness >= 0.0:
            raise ValueError(f"softness={self.softness}; wanted 0 or more.")
        if (self.serve == "direction") != bool(self.direction):
            raise ValueError(
                f"serve={self.serve!r} and direction={self.direction}: one wants the other; give"
                " both, as in serve='direction', direction=(0.8, -0.6), or neither."
            )
        if self.direction and not any(self.direction):
            raise ValueError(
                f"direction={self.direction} listens to nobody; give a number other than 0."
            )


class ShapedRewards:
    """``rewards(segments) -> [B, T]``, by a model that is fitted again and again.

    Args:
        model: says what steps are worth.
        earnings: what follows from that.
    """

    def __init__(self, model: PointwiseModel, earnings: Earnings) -> None:
        self.model = model
        self.earnings = earnings
        self._shaping = Shaping(earnings.shape, earnings.shape_of)
        self._references: Segments | None = None
        self._judged: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def __call__(self, segments: Segments) -> np.ndarray:
        """What each step earns."""
        worth = self._worth(segments)
        if not self._shaping.idle:
            before, *rest = self._compared_with()
            read = self._read(segments)
            shaped = [
                self._shaping(one, *read, (other, *rest))
                for one, other in zip(worth, before, strict=True)
            ]
            worth = torch.stack(shaped)
        return as_rewards(worth.sum(0))

    def begin(self, segments: Segments) -> None:
        """The first segments are what shaped rewards are compared with; others change nothing."""
        if self._references is None and not self._shaping.idle:
            self._references = segments.numpy().take(slice(0, REFERENCES))

    def refitted(self) -> None:
        """The model says other things now."""
        self._judged = None

    def state(self) -> dict[str, Any]:
        """What the rewards depend on beside the model."""
        return {} if self._references is None else dict(self._references.arrays())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self._references = Segments.from_arrays(state) if state else None
        self._judged = None

    def _worth(self, segments: Segments) -> torch.Tensor:
        """What each step is worth to whom the policy serves, as the model says: ``[n, B, T]``.

        One reward, or as many as are shaped before they are added up.
        """
        aggregate = aggregator(self.earnings.aggregate, self.earnings.softness)
        if self.earnings.serve == "everyone":
            return self.model.rewards(segments, aggregate)[None]
        grouped = self.model.rewards_by_group(segments, aggregate)
        return grouped if self.earnings.serve == "each" else self._one(grouped, segments)[None]

    def _one(self, grouped: torch.Tensor, segments: Segments) -> torch.Tensor:
        """One reward out of those of all raters."""
        if self.earnings.serve in ("person", "inferred"):
            return _own(grouped, segments)
        if self.earnings.serve == "direction":
            return directed_reward(grouped, torch.tensor(self.earnings.direction))
        steps = float(np.sqrt(np.asarray(segments.mask).sum(1).mean()))
        return worst_group(grouped, self._read(segments)[0], self.earnings.softness * steps)

    def _read(self, segments: Segments) -> tuple[torch.Tensor, torch.Tensor]:
        """Mask and context ids, where the model is."""
        columns = (segments.mask, segments.context_id)
        mask, context_id = (torch.as_tensor(one, device=self.model.device) for one in columns)
        return mask, context_id

    def _compared_with(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the policy did in the beginning, as the model judges it now."""
        if self._references is None:
            raise RuntimeError("ShapedRewards: nothing to compare with; call begin() first.")
        if self._judged is None:
            self._judged = (self._worth(self._references), *self._read(self._references))
        return self._judged


def _own(grouped: torch.Tensor, segments: Segments) -> torch.Tensor:
    """At every step the reward of the person for whom the episode was played."""
    if "person" not in segments.factors:
        raise ValueError(
            "serve='person': these segments do not say for whom they were made; make the"
            " environment with personal=, or choose serve='everyone'."
        )
    who = torch.as_tensor(segments.factors["person"], device=grouped.device).long()
    if int(who.max()) >= len(grouped):
        raise ValueError(
            f"serve='person': episodes are played for person {int(who.max())}, and the model tells"
            f" {len(grouped)} raters apart; give population= as many."
        )
    return grouped.gather(0, who[None])[0]
