"""Observations brought to one scale, inside a policy of Stable-Baselines3."""

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.torch_layers import FlattenExtractor


class RunningNormalisation(FlattenExtractor):
    """Observations minus their mean, over their standard deviation, clipped at ten.

    The statistics change between updates only, so that a rollout is collected and learned from
    under the same ones; they are buffers, hence saved with the policy.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    count: torch.Tensor

    def __init__(self, observation_space: gym.Space[Any]) -> None:
        super().__init__(observation_space)
        self.register_buffer("mean", torch.zeros(self.features_dim))
        self.register_buffer("variance", torch.ones(self.features_dim))
        self.register_buffer("count", torch.tensor(1e-4))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Normalise a batch."""
        centred = super().forward(observations) - self.mean
        return torch.clamp(centred / torch.sqrt(self.variance + 1e-8), -10.0, 10.0)

    @torch.no_grad()
    def update(self, observations: torch.Tensor) -> None:
        """Take a batch into the statistics (parallel variance, Chan et al. 1979)."""
        flat = observations.to(self.mean).reshape(len(observations), -1)
        more = float(len(flat))
        total = self.count + more
        shift = flat.mean(0) - self.mean
        spread = self.variance * self.count + flat.var(0, correction=0) * more
        self.variance.copy_((spread + shift**2 * self.count * more / total) / total)
        self.mean += shift * more / total
        self.count.copy_(total)
