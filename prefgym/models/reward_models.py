"""Reward models: an ensemble that says what every step of a segment is worth.

Encoder × head, both exchangeable; see ``encoders.py`` and ``heads.py``. Members are independent
networks in one batched computation.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium import Space
from jaxtyping import Bool, Float
from torch import Tensor

from prefgym.models.encoders import Encoder, MLPEncoder, rows_at_once
from prefgym.models.ensembles import Ensemble, mean_step
from prefgym.models.features import FeatureMap, StepFeatures, as_tensor
from prefgym.models.fit import PreferenceModel
from prefgym.models.heads import HeadFactory, RewardHead, ScalarHead
from prefgym.models.populations import PopulationHead
from prefgym.rewards import CONSTANT, Aggregator, mean_reward
from prefgym.segments import Segments

LIMIT = 10.0
"""Normalised features are held within this many standard deviations of their mean."""


@runtime_checkable
class PointwiseModel(PreferenceModel, Protocol):
    """A preference model by which every step is worth something, whatever it reads."""

    reward_mean: Tensor
    """``[members]``: what :meth:`rewards` takes off each member's."""
    reward_deviation: Tensor
    """``[members]``: what it divides them by."""

    def logits(self, a: Segments, b: Segments) -> Float[Tensor, " members batch"]:
        """Each member's log-odds that ``a[i]`` is preferred to ``b[i]``, without gradient."""
        ...

    def member_rewards(self, segments: Segments) -> Float[Tensor, " members batch steps"]:
        """Each member's rewards as fitted, without gradient; zeros at padding."""
        ...

    def rewards(
        self, segments: Segments, aggregate: Aggregator = mean_reward
    ) -> Float[Tensor, " batch steps"]:
        """What every step is worth, without gradient; zeros at padding."""
        ...

    def rewards_by_group(
        self, segments: Segments, aggregate: Aggregator = mean_reward
    ) -> Float[Tensor, " groups batch steps"]:
        """The same of each group of raters; one group if they are not told apart."""
        ...

    def normalise(self, segments: Segments) -> None:
        """Learn from these steps how to normalise what is read."""
        ...

    def standardise(self, segments: Segments) -> None:
        """Give :meth:`rewards` mean 0 and standard deviation 1 over these steps."""
        ...

    def uncentre(self) -> None:
        """Leave rewards where the fit put them, instead of giving them mean 0."""
        ...

    def outline(self, segments: Segments) -> Float[Tensor, " batch numbers"]:
        """A few numbers that say what a segment is like, without gradient."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that rewards depend on."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Go back to a :meth:`state_dict`."""
        ...


class RewardModel(Ensemble):
    """An ensemble of rewards, ``rewards(segments) -> [batch, steps]``.

    Two things are state and are saved with the weights: mean and variance of the features
    (:meth:`normalise`), and mean and deviation of each member's rewards (:meth:`standardise`).
    Both change only when asked.

    Args:
        features: makes rows of numbers of segments.
        encoder: ``[members, rows, features] -> [members, rows, head.width]``.
        head: says what these numbers are worth.
    """

    feature_count: Tensor
    feature_mean: Tensor
    feature_variance: Tensor

    def __init__(
        self, features: FeatureMap, encoder: Encoder, head: RewardHead | PopulationHead
    ) -> None:
        super().__init__(head, encoder.members)
        self.step_features = features
        self.encoder = encoder
        width, exact = features.width, torch.float64
        self.register_buffer("feature_count", torch.zeros((), dtype=exact))
        self.register_buffer("feature_mean", torch.zeros(width, dtype=exact))
        self.register_buffer("feature_variance", torch.ones(width, dtype=exact))

    @property
    def members(self) -> int:
        """Networks in the ensemble."""
        return self.encoder.members

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.feature_mean.device

    @property
    def kept_per_step(self) -> int:
        """Hidden numbers of a step; bounds the memory of what is computed at once."""
        return self.encoder.kept_per_row

    def features(self, segments: Segments) -> Float[Tensor, " batch steps features"]:
        """Rows of numbers on the model's device; as they are until :meth:`normalise` was called."""
        rows = self.step_features(segments).to(self.device)
        if self.feature_count == 0:
            return rows
        scale = self.feature_variance.sqrt()
        scale = torch.where(scale > CONSTANT, scale, torch.ones_like(scale))
        rows -= self.feature_mean.to(rows.dtype)
        rows /= scale.to(rows.dtype)
        return rows.clamp_(-LIMIT, LIMIT)

    def steps(
        self,
        features: Float[Tensor, " members rows steps features"],
        mask: Bool[Tensor, " members rows steps"],
    ) -> Float[Tensor, " members rows steps width"]:
        """Every member's numbers for its own rows, with gradient."""
        members, rows, steps, width = features.shape
        outputs = self.encoder(features.reshape(members, rows * steps, width))
        return outputs.reshape(members, rows, steps, self.head.width)

    def beginnings(
        self,
        features: Float[Tensor, " members rows steps features"],
        mask: Bool[Tensor, " members rows steps"],
    ) -> Float[Tensor, " members rows features"]:
        """The first step of each segment, as the model reads it."""
        return features[:, :, 0]

    def means(
        self, features: Float[Tensor, " rows steps features"], mask: Bool[Tensor, " rows steps"]
    ) -> Float[Tensor, " rows features"]:
        """The mean step of each segment, as the model reads it."""
        return mean_step(features, mask)

    @torch.no_grad()
    def outputs(self, segments: Segments) -> Float[Tensor, " members batch steps width"]:
        """Every member's numbers, computed in blocks of bounded memory."""
        rows = self.features(segments)
        block = rows_at_once(self.members * self.kept_per_step, self.device)
        parts = [part.expand(self.members, -1, -1) for part in rows.flatten(0, 1).split(block)]
        outputs: Tensor = torch.cat([self.encoder(part) for part in parts], 1)
        steps: Tensor = outputs.unflatten(1, rows.shape[:2])
        return steps

    def step_reward(self, observation: Any, action: Any) -> float:
        """The reward of a single step, for the ``LearnedReward`` wrapper."""
        observations, actions = np.asarray(observation)[None, None], np.asarray(action)[None, None]
        step = Segments(
            actions=actions,
            mask=np.ones((1, 1), bool),
            context=observations[:, 0],
            context_id=np.zeros(1, np.int64),
            observations=observations,
        )
        return float(self.rewards(step))

    @torch.no_grad()
    def normalise(self, segments: Segments) -> None:
        """Count these steps into the mean and variance by which features are normalised.

        Flags (one-hot, MultiBinary) keep their 0 and 1. Source of the update: Chan, Golub and
        LeVeque (1983), pairwise means and sums of squares.
        """
        mask = as_tensor(segments.mask)
        rows = self.step_features(segments)[mask].to(self.device, torch.float64)
        if not len(rows):
            return
        count = self.feature_count + len(rows)
        measured = torch.as_tensor(self.step_features.measured, device=self.device)
        gap = torch.where(measured, rows.mean(0) - self.feature_mean, 0.0)
        squares = (
            self.feature_variance * self.feature_count
            + rows.var(0, correction=0) * len(rows)
            + gap**2 * self.feature_count * len(rows) / count
        )
        self.feature_mean += gap * len(rows) / count
        self.feature_variance.copy_(torch.where(measured, squares / count, 1.0))
        self.feature_count.copy_(count)


def reward_model(
    observation_space: Space[Any],
    action_space: Space[Any],
    members: int = 3,
    hidden: Sequence[int] = (256, 256, 256),
    activation: str = "leaky_relu",
    tanh: bool = False,
    seed: int = 0,
    head: HeadFactory | None = None,
) -> RewardModel:
    """An ensemble of multi-layer perceptrons over single observations and actions.

    Defaults are PEBBLE's, but for its ``tanh``: it bounds what a step may be worth.

    Args:
        observation_space: of one environment, not of a vector of them.
        action_space: of one environment.
        members: networks in the ensemble.
        hidden: width of each hidden layer.
        activation: "leaky_relu", "relu", "tanh", "silu" or "gelu".
        tanh: hold every reward in (−1, 1).
        seed: of the initial weights; members differ.
        head: makes another head than one reward per step (``prefgym.models.presets``).
    """
    features = StepFeatures(observation_space, action_space)
    generator = torch.Generator().manual_seed(seed)
    made = ScalarHead(tanh) if head is None else head(members, features.width, generator)
    encoder = MLPEncoder(features.width, made.width, members, hidden, activation, generator)
    return RewardModel(features, encoder, made)
