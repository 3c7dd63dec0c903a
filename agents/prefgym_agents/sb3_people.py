"""Policies of Stable-Baselines3 that read what is known about a person, in place of who it is."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor


class DescribedPerson(BaseFeaturesExtractor):
    """Puts a person's description where the observation ends in flags that say who it is.

    The flags do nothing but choose a row of the table, which is a buffer, hence saved with the
    policy: steps that were seen under an older table are read under the newest one.

    Args:
        observation_space: flattened, with one flag per person at its end.
        people: how many flags there are.
        numbers: of each description.
        inner: the extractor that reads the observation with the description at its end.
        inner_kwargs: its arguments.
    """

    table: torch.Tensor

    def __init__(
        self,
        observation_space: gym.Space[Any],
        people: int,
        numbers: int,
        inner: type[BaseFeaturesExtractor] = FlattenExtractor,
        inner_kwargs: dict[str, Any] | None = None,
    ) -> None:
        width = gym.spaces.flatdim(observation_space) - people + numbers
        seen = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        made = inner(seen, **(inner_kwargs or {}))
        super().__init__(observation_space, made.features_dim)
        self.people = people
        self.inner = made
        self.register_buffer("table", torch.zeros(people, numbers))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """What the inner extractor makes of a batch."""
        features: torch.Tensor = self.inner(self._described(observations))
        return features

    def update(self, observations: torch.Tensor) -> None:
        """Pass a batch on to an inner extractor that keeps statistics."""
        update: Any = getattr(self.inner, "update", None)
        if update is not None:
            update(self._described(observations))

    def _described(self, observations: torch.Tensor) -> torch.Tensor:
        flat = observations.flatten(1).to(self.table)
        task, flags = flat[:, : -self.people], flat[:, -self.people :]
        return torch.cat([task, flags @ self.table], 1)


def read_descriptions(model: BaseAlgorithm, people: int, numbers: int) -> None:
    """Make the policy anew, reading descriptions; as if it had been made so in the beginning.

    Args:
        model: that has not been trained.
        people: flags at the end of its observations.
        numbers: of each description.
    """
    inner = model.policy_kwargs.get("features_extractor_class", FlattenExtractor)
    inner_kwargs = model.policy_kwargs.get("features_extractor_kwargs", {})
    model.policy_kwargs = {
        **model.policy_kwargs,
        "features_extractor_class": DescribedPerson,
        "features_extractor_kwargs": {
            "people": people,
            "numbers": numbers,
            "inner": inner,
            "inner_kwargs": inner_kwargs,
        },
    }
    model._setup_model()


def describe(model: BaseAlgorithm, table: torch.Tensor) -> None:
    """Read these descriptions from now on, ``[people, numbers]``."""
    for module in model.policy.modules():
        if isinstance(module, DescribedPerson):
            module.table.copy_(table)


def descriptions(model: BaseAlgorithm) -> torch.Tensor | None:
    """Those that are read, copied; None where the policy sees who it is."""
    found = (one for one in model.policy.modules() if isinstance(one, DescribedPerson))
    first = next(found, None)
    return None if first is None else first.table.clone()
