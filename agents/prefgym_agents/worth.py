"""What steps of whole episodes are worth, read by segments of these episodes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from prefgym.segments import Segments


class Worth(NamedTuple):
    """What steps of some episodes are worth."""

    episodes: Int[np.ndarray, " episodes"]
    """Their numbers, sorted."""
    steps: Float[np.ndarray, " episodes steps"]
    """By their place in the episode."""

    def of(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """That of the steps of segments; 0 for other episodes."""
        if not len(self.episodes):
            return np.zeros(segments.mask.shape)
        episode, start = np.asarray(segments.episode), np.asarray(segments.start)
        row = np.minimum(np.searchsorted(self.episodes, episode), len(self.episodes) - 1)
        step = start[:, None] + np.arange(segments.steps)
        known = (self.episodes[row] == episode)[:, None] & (step < self.steps.shape[1])
        found = self.steps[row[:, None], np.minimum(step, self.steps.shape[1] - 1)]
        worth: np.ndarray = np.where(known & np.asarray(segments.mask), found, 0.0)
        return worth
