"""Reinforcement learning on the true reward: the ceiling that learners from preferences aim at."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from prefgym_agents.learner import Learner


class TrueReward(Learner):
    """The same loop as every learner, but for the reward: the one that the environment hides.

    For comparisons only. It asks nothing and learns nothing but the policy.
    """

    def step(self, total_timesteps: int) -> dict[str, float] | None:
        """Act, and improve the policy for the true reward."""
        with self.clock("env"):
            segments = self.policy.collect()
        if segments is None:
            return None
        with self.clock("policy"):
            return self.policy.update(segments, np.asarray(segments.rewards))

    def state(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing of its own."""
