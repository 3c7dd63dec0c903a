"""Several kinds of features side by side, and a reward model of any features.

>>> seen = StepFeatures(spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2))
>>> CombinedFeatures([seen, FactorFeatures(["speed2"])]).width
6
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float
from torch import Tensor

from prefgym.models.encoders import MLPEncoder
from prefgym.models.features import FactorFeatures, FeatureMap, StepFeatures
from prefgym.models.heads import HeadFactory, ScalarHead
from prefgym.models.reward_models import RewardModel
from prefgym.segments import Segments


@dataclass(frozen=True)
class CombinedFeatures:
    """The rows of several feature maps as one row, in their order."""

    parts: Sequence[FeatureMap]

    def __post_init__(self) -> None:
        """Refuse rows of nothing."""
        if not self.parts:
            raise ValueError("CombinedFeatures: got no feature maps; give at least one.")

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return sum(part.width for part in self.parts)

    @property
    def measured(self) -> Bool[np.ndarray, " features"]:
        """Which numbers are measurements; the others are flags, which need no normalising."""
        return np.concatenate([part.measured for part in self.parts])

    def __call__(self, segments: Segments) -> Float[Tensor, " batch steps features"]:
        """The rows of a batch, in float32 and memory of their own; zeros at padding."""
        return torch.cat([part(segments) for part in self.parts], -1)


def with_factors(
    factors: Sequence[str],
    observation_space: spaces.Space[Any] | None,
    action_space: spaces.Space[Any],
) -> FeatureMap:
    """What a model reads that is shown factors beside what happens.

    Args:
        factors: their names.
        observation_space: of one environment; None where segments hold no observations, of which
            the factors alone are read.
        action_space: of one environment.
    """
    measured = FactorFeatures(factors)
    if observation_space is None:
        return measured
    return CombinedFeatures((StepFeatures(observation_space, action_space), measured))


def feature_reward_model(
    features: FeatureMap,
    members: int,
    hidden: Sequence[int],
    tanh: bool = False,
    seed: int = 0,
    head: HeadFactory | None = None,
    activation: str = "leaky_relu",
) -> RewardModel:
    """An ensemble of multi-layer perceptrons over any features.

    Args:
        features: makes rows of numbers of segments.
        members: networks in the ensemble.
        hidden: width of each hidden layer.
        tanh: hold every reward in (−1, 1).
        seed: of the initial weights; members differ.
        head: makes another head than one reward per step (``prefgym.models.presets``).
        activation: "leaky_relu", "relu", "tanh", "silu" or "gelu".
    """
    generator = torch.Generator().manual_seed(seed)
    made = ScalarHead(tanh) if head is None else head(members, features.width, generator)
    encoder = MLPEncoder(features.width, made.width, members, hidden, activation, generator)
    return RewardModel(features, encoder, made)
