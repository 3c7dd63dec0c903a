"""What a model reads where episodes are played for somebody: the task, not for whom it is done."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float
from torch import Tensor

from prefgym.models.features import FeatureMap, StepFeatures
from prefgym.segments import Segments


@dataclass(frozen=True)
class ImpersonalFeatures:
    """The rows of other features, for observations without the flags at their end.

    A model that tells raters apart by who answered would else read there who it is, and what it
    infers about a rater from answers would say less than it could.
    """

    inner: FeatureMap
    people: int
    """How many flags there are."""

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self.inner.width

    @property
    def measured(self) -> Bool[np.ndarray, " features"]:
        """Which numbers are measurements."""
        return self.inner.measured

    def __call__(self, segments: Segments) -> Float[Tensor, " batch steps features"]:
        """The rows of a batch; zeros at padding."""
        assert segments.observations is not None
        return self.inner(segments.replace(observations=segments.observations[..., : -self.people]))


def impersonal(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], people: int
) -> ImpersonalFeatures:
    """Steps of a task, out of observations that end in one flag per person."""
    assert isinstance(observation_space, spaces.Box)
    low, high = (bound[:-people] for bound in (observation_space.low, observation_space.high))
    task = spaces.Box(low, high, dtype=np.float32)
    return ImpersonalFeatures(StepFeatures(task, action_space), people)
