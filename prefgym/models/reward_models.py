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
from torch import Tensor, nn

from prefgym.models.encoders import Encoder, MLPEncoder, rows_at_once
from prefgym.models.features import StepFeatures, as_tensor
from prefgym.models.fit import Pairs, PreferenceModel
from prefgym.models.heads import RewardHead, ScalarHead
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

    def normalise(self, segments: Segments) -> None:
        """Learn from these steps how to normalise what is read."""
        ...

    def standardise(self, segments: Segments) -> None:
        """Give :meth:`rewards` mean 0 and standard deviation 1 over these steps."""
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


class RewardModel(nn.Module):
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
    reward_mean: Tensor
    reward_deviation: Tensor

    def __init__(self, features: StepFeatures, encoder: Encoder, head: RewardHead) -> None:
        super().__init__()
        self.step_features = features
        self.encoder = encoder
        self.head = head
        width, exact = features.width, torch.float64
        self.register_buffer("feature_count", torch.zeros((), dtype=exact))
        self.register_buffer("feature_mean", torch.zeros(width, dtype=exact))
        self.register_buffer("feature_variance", torch.ones(width, dtype=exact))
        self.register_buffer("reward_mean", torch.zeros(encoder.members))
        self.register_buffer("reward_deviation", torch.ones(encoder.members))

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

    def margins(self, pairs: Pairs) -> Float[Tensor, " members pairs"]:
        """How much better each member finds the first segment, with gradient: what `fit` calls."""
        members, count, sides, steps, width = pairs.features.shape
        outputs = self.encoder(pairs.features.view(members, count * sides * steps, width))
        outputs = outputs.reshape(members, count * sides, steps, self.head.width)
        summary = self.head.summary(outputs, pairs.mask.view(members, count * sides, steps))
        a, b = summary.unflatten(1, (count, sides)).unbind(2)
        return self.head.margin(a, b)

    @torch.no_grad()
    def logits(self, a: Segments, b: Segments) -> Float[Tensor, " members batch"]:
        """Each member's log-odds that ``a[i]`` is preferred to ``b[i]``, without gradient.

        Rewards are taken as fitted, not as standardised.
        """
        return self.head.margin(self._summary(a), self._summary(b))

    @torch.no_grad()
    def member_rewards(self, segments: Segments) -> Float[Tensor, " members batch steps"]:
        """Each member's rewards as fitted, without gradient; zeros at padding.

        Raises:
            RuntimeError: a reward is NaN or infinite.
        """
        mask = as_tensor(segments.mask).to(self.device)
        return finite(self.head.rewards(self._outputs(segments)) * mask)

    def rewards(
        self, segments: Segments, aggregate: Aggregator = mean_reward
    ) -> Float[Tensor, " batch steps"]:
        """What every step is worth, without gradient; zeros at padding.

        Args:
            segments: numpy or torch.
            aggregate: makes one reward of the members' standardised ones (``prefgym.rewards``).
        """
        mask = as_tensor(segments.mask).to(self.device)
        mean, deviation = self.reward_mean[:, None, None], self.reward_deviation[:, None, None]
        return aggregate((self.member_rewards(segments) - mean) / deviation) * mask

    @torch.no_grad()
    def outline(self, segments: Segments) -> Float[Tensor, " batch features"]:
        """The mean step of each segment, as the model reads it: what k-centre tells apart."""
        mask = as_tensor(segments.mask).to(self.device)
        return mean_step(self.features(segments), mask)

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

    @torch.no_grad()
    def standardise(self, segments: Segments) -> None:
        """Give :meth:`rewards` mean 0 and standard deviation 1 over the steps of ``segments``.

        Members are first brought to one scale each, so that none outvotes the others. A reward
        that is constant there is only shifted. Source: Christiano et al. (2017), sec. 2.2.1 and
        2.2.3, arXiv:1706.03741.

        Raises:
            ValueError: no real step to measure on.
        """
        mask = as_tensor(segments.mask).to(self.device)
        mean, deviation = reward_scale(self.member_rewards(segments)[:, mask])
        self.reward_mean.copy_(mean)
        self.reward_deviation.copy_(deviation)

    def _summary(self, segments: Segments) -> Tensor:
        mask = as_tensor(segments.mask).to(self.device)
        return self.head.summary(self._outputs(segments), mask[None])

    def _outputs(self, segments: Segments) -> Tensor:
        """``[members, batch, steps, width]``, computed in blocks of bounded memory."""
        rows = self.features(segments)
        block = rows_at_once(self.members * self.kept_per_step, self.device)
        parts = [part.expand(self.members, -1, -1) for part in rows.flatten(0, 1).split(block)]
        outputs: Tensor = torch.cat([self.encoder(part) for part in parts], 1)
        steps: Tensor = outputs.unflatten(1, rows.shape[:2])
        return steps


def finite(rewards: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
    """The same rewards.

    Raises:
        RuntimeError: one is NaN or infinite.
    """
    if not torch.isfinite(rewards).all():
        raise RuntimeError(
            "RewardModel: a reward is NaN or infinite, so a fit has gone astray; go back to a "
            "saved model, and lower the learning rate."
        )
    return rewards


def mean_step(
    steps: Float[Tensor, " batch steps numbers"], mask: Bool[Tensor, " batch steps"]
) -> Float[Tensor, " batch numbers"]:
    """The mean over the real steps; zeros where there are none."""
    return (steps * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def reward_scale(
    rewards: Float[Tensor, " members steps"],
) -> tuple[Float[Tensor, " members"], Float[Tensor, " members"]]:
    """What to take off each member's rewards, and then to divide them by.

    Raises:
        ValueError: no step to measure on.
    """
    if not rewards.shape[1]:
        raise ValueError("RewardModel.standardise: got no steps; give segments with some.")
    mean = rewards.mean(1)
    rewards = rewards - mean[:, None]
    own = _scale(rewards.std(1, correction=0))
    joint = _scale((rewards / own[:, None]).mean(0).std(correction=0))
    return mean, own * joint


def _scale(deviation: Tensor) -> Tensor:
    return torch.where(deviation > CONSTANT, deviation, torch.ones_like(deviation))


def reward_model(
    observation_space: Space[Any],
    action_space: Space[Any],
    members: int = 3,
    hidden: Sequence[int] = (256, 256, 256),
    activation: str = "leaky_relu",
    tanh: bool = False,
    seed: int = 0,
) -> RewardModel:
    """An ensemble of multi-layer perceptrons over single observations and actions.

    Defaults are PEBBLE's, but for its ``tanh``: it bounds what a step may be worth.

    Args:
        observation_space: of one environment, not of a vector of them.
        action_space: of one environment.
        members: networks in the ensemble.
        hidden: width of each hidden layer.
        activation: "leaky_relu", "relu" or "tanh".
        tanh: hold every reward in (−1, 1).
        seed: of the initial weights; members differ.
    """
    features, head = StepFeatures(observation_space, action_space), ScalarHead(tanh)
    generator = torch.Generator().manual_seed(seed)
    encoder = MLPEncoder(features.width, head.width, members, hidden, activation, generator)
    return RewardModel(features, encoder, head)
