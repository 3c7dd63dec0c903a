"""Features: the rows of numbers that a model reads of segments, one for every step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from jaxtyping import Bool, Float
from torch import Tensor

from prefgym.segments import Array, Segments


@dataclass(frozen=True)
class StepFeatures:
    """One row of numbers for every step: its observation, then its action.

    Box values stand as they are, flattened; Discrete and MultiDiscrete values become one-hot.

    Raises:
        ValueError: a space that cannot be a row of numbers.
    """

    observation_space: Space[Any]
    action_space: Space[Any]

    def __post_init__(self) -> None:
        """Refuse spaces of the wrong kind when the model is built, not when it is used."""
        for name, space in self._spaces():
            if not isinstance(space, spaces.Box | spaces.MultiBinary) and not _is_categorical(
                space
            ):
                raise ValueError(
                    f"StepFeatures: the {name} space is {space}, and an MLP reads Box, Discrete, "
                    "MultiDiscrete and MultiBinary; flatten it with "
                    "gymnasium.wrappers.FlattenObservation, or write an encoder for it."
                )

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return sum(spaces.flatdim(space) for _, space in self._spaces())

    @property
    def measured(self) -> Bool[np.ndarray, " features"]:
        """Which numbers are measurements; the others are flags, which need no normalising."""
        kinds = [(isinstance(s, spaces.Box), spaces.flatdim(s)) for _, s in self._spaces()]
        return np.concatenate([np.full(width, measured) for measured, width in kinds])

    def __call__(self, segments: Segments) -> Float[Tensor, " batch steps features"]:
        """The rows of a batch, float32, on the device of the segments; zeros at padding.

        Raises:
            ValueError: no observations, values outside the spaces' shapes, NaN or infinity.
        """
        if segments.observations is None:
            raise ValueError(
                "StepFeatures: the segments hold no observations (text?); a model of steps needs "
                "them, a language model reads context and actions instead."
            )
        mask = as_tensor(segments.mask)
        columns = (segments.observations, segments.actions)
        parts = [
            _columns(as_tensor(values), mask, space, name)
            for values, (name, space) in zip(columns, self._spaces(), strict=True)
        ]
        rows = torch.cat(parts, -1)
        if not torch.isfinite(rows).all():
            row = int((~torch.isfinite(rows)).any(-1).any(-1).nonzero()[0])
            raise ValueError(
                f"StepFeatures: segment {row} holds NaN or infinite observations or actions; "
                "find out which step of the environment made them."
            )
        return rows

    def _spaces(self) -> tuple[tuple[str, Space[Any]], tuple[str, Space[Any]]]:
        return ("observation", self.observation_space), ("action", self.action_space)


def as_tensor(values: Array) -> Tensor:
    """Numpy or torch as torch; copies only what torch cannot share (read-only, reversed)."""
    if isinstance(values, np.ndarray):
        shared = values.flags.writeable and min(values.strides, default=0) >= 0
        return torch.from_numpy(values if shared else values.copy())
    return torch.as_tensor(values)


def _is_categorical(space: Space[Any]) -> bool:
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete)


def _columns(values: Tensor, mask: Tensor, space: Space[Any], name: str) -> Tensor:
    """``[batch, steps, width]`` numbers of one space, zeros at padding."""
    shape = tuple(space.shape or ())
    if tuple(values.shape[2:]) != shape:
        raise ValueError(
            f"StepFeatures: the {name}s of a step have shape {tuple(values.shape[2:])}, wanted "
            f"{shape} as in {space}."
        )
    flat = values.flatten(2) if shape else values[..., None]
    if not _is_categorical(space):
        return torch.where(mask[..., None], flat, flat.new_zeros(())).to(torch.float32)
    counts, starts = _categories(space, flat.device)
    codes = torch.where(mask[..., None], flat.long() - starts, 0)
    if ((codes < 0) | (codes >= counts)).any():
        raise ValueError(f"StepFeatures: an {name} lies outside {space}; is it another space's?")
    ones = mask[..., None].to(torch.float32).expand(codes.shape)
    table = torch.zeros(*mask.shape, int(counts.sum()), device=flat.device)
    return table.scatter_(-1, codes + counts.cumsum(0) - counts, ones)


def _categories(space: Space[Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """How many values each component takes, and the least of them."""
    if isinstance(space, spaces.Discrete):
        counts, starts = np.array([space.n]), np.array([space.start])
    else:
        assert isinstance(space, spaces.MultiDiscrete)
        counts, starts = space.nvec.reshape(-1), space.start.reshape(-1)
    return (
        torch.as_tensor(counts.astype(np.int64), device=device),
        torch.as_tensor(starts.astype(np.int64), device=device),
    )
