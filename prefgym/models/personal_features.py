"""What a model reads where episodes are played for somebody: the task, not for whom it is done."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from prefgym.models.features import FeatureMap
from prefgym.segments import Segments
from prefgym.showing import Showing


@dataclass(frozen=True)
class ImpersonalFeatures:
    """The rows of other features, for observations without who it is at their end.

    A model that tells raters apart by who answered would else read there who it is, and what it
    infers about a rater from answers would say less than it could.
    """

    inner: FeatureMap
    """Of what the task shows."""
    showing: Showing
    """How observations say for whom an episode is played."""

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
        seen = self.showing.stripped(segments.observations)
        return self.inner(segments.replace(observations=seen))
