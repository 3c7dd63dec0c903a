"""Features: the rows of numbers that a model reads of segments, one for every step.

``StepFeatures`` reads what an agent sees and does; ``FactorFeatures`` and ``MappedFeatures`` read
what an expert knows to matter, so that little is left to learn and few comparisons will do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium import Space, spaces
from jaxtyping import Bool, Float
from torch import Tensor

from prefgym.names import lookup
from prefgym.segments import Array, Segments


@runtime_checkable
class FeatureMap(Protocol):
    """Any way to make rows of numbers of segments: what a model reads of them."""

    @property
    def width(self) -> int:
        """Numbers in a row."""
        ...

    @property
    def measured(self) -> Bool[np.ndarray, " features"]:
        """Which numbers are measurements; the others are flags, which need no normalising."""
        ...

    def __call__(self, segments: Segments) -> Float[Tensor, " batch steps features"]:
        """The rows of a batch, in float32 and memory of their own; zeros at padding."""
        ...


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
        wrong = _not_finite(rows)
        if wrong is not None:
            raise ValueError(
                f"StepFeatures: segment {wrong[0]} holds NaN or infinite observations or actions; "
                "find out which step of the environment made them."
            )
        return rows

    def _spaces(self) -> tuple[tuple[str, Space[Any]], tuple[str, Space[Any]]]:
        return ("observation", self.observation_space), ("action", self.action_space)


@dataclass(frozen=True)
class FactorFeatures:
    """The named factors of every step, for example ``FactorFeatures(["speed2", "effort"])``.

    The expert says which measurements matter; what they are worth is learned. Environments list
    their factors, and record them in every segment.

    Source: Nath et al. (2024), sec. 4.1, arXiv:2402.15473: a reward model that reads seven features
    of a response instead of the response.

    Raises:
        ValueError: no name, or one twice.
    """

    names: Sequence[str]
    """Of the factors, in the order of the columns."""

    def __post_init__(self) -> None:
        """Refuse names that make no row."""
        names = (self.names,) if isinstance(self.names, str) else tuple(self.names)
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"FactorFeatures: the names are {list(names)}; give at least one, and each once."
            )
        object.__setattr__(self, "names", names)

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return len(self.names)

    @property
    def measured(self) -> Bool[np.ndarray, " features"]:
        """All of them."""
        return np.ones(self.width, bool)

    def __call__(self, segments: Segments) -> Float[Tensor, " batch steps features"]:
        """The rows of a batch, float32, on the device of the segments; zeros at padding.

        Raises:
            ValueError: a factor that the segments lack, of another shape, NaN or infinite.
        """
        if not segments.factors:
            raise ValueError(
                f"FactorFeatures: the segments hold no factors, and {', '.join(self.names)} are to "
                "be read; record them in an environment that has factors, or use StepFeatures."
            )
        mask = as_tensor(segments.mask)
        columns = [as_tensor(lookup(one, segments.factors, "factor")) for one in self.names]
        for name, column in zip(self.names, columns, strict=True):
            if column.shape != mask.shape:
                raise ValueError(
                    f"FactorFeatures: factor {name!r} has shape {tuple(column.shape)}, wanted "
                    f"{tuple(mask.shape)}, one number for each step."
                )
        rows = _without_padding(torch.stack([one.to(torch.float32) for one in columns], -1), mask)
        wrong = _not_finite(rows)
        if wrong is not None:
            raise ValueError(
                f"FactorFeatures: factor {self.names[wrong[1]]!r} of segment {wrong[0]} is NaN or "
                "infinite; find out which step of the environment made it."
            )
        return rows


@dataclass(frozen=True)
class MappedFeatures:
    """What a function makes of every step: an expert's formulas, or a network that stays frozen.

    A number about a whole segment stands at one of its steps, zeros at the others.

    Raises:
        ValueError: the width is below 1.
    """

    function: Callable[[Segments], Array]
    """Segments in (numpy or torch, as the model gets them), ``[batch, steps, width]`` out, numpy or
    torch. No gradient flows through it, and what it says of padding is not read."""
    width: int
    """Numbers in a row."""

    def __post_init__(self) -> None:
        """Refuse rows of nothing."""
        if self.width < 1:
            raise ValueError(f"MappedFeatures: width is {self.width}, wanted 1 or more.")

    @property
    def measured(self) -> Bool[np.ndarray, " features"]:
        """All of them."""
        return np.ones(self.width, bool)

    @torch.no_grad()
    def __call__(self, segments: Segments) -> Float[Tensor, " batch steps features"]:
        """The rows of a batch, float32, on the device that the function chose; zeros at padding.

        Raises:
            ValueError: the function made rows of another shape, NaN or infinity.
        """
        rows, mask = as_tensor(self.function(segments)), as_tensor(segments.mask)
        if rows.shape != (*mask.shape, self.width):
            raise ValueError(
                f"MappedFeatures: the function made an array of shape {tuple(rows.shape)}, wanted "
                f"{(*mask.shape, self.width)}: a row of {self.width} numbers for each step."
            )
        rows = _without_padding(rows.to(torch.float32), mask)
        wrong = _not_finite(rows)
        if wrong is not None:
            raise ValueError(
                f"MappedFeatures: column {wrong[1]} of segment {wrong[0]} is NaN or infinite; mend "
                "the function (a division by zero, a logarithm of zero?)."
            )
        return rows


def as_tensor(values: Array) -> Tensor:
    """Numpy or torch as torch; copies only what torch cannot share (read-only, reversed)."""
    if isinstance(values, np.ndarray):
        shared = values.flags.writeable and min(values.strides, default=0) >= 0
        return torch.from_numpy(values if shared else values.copy())
    return torch.as_tensor(values)


def _without_padding(rows: Tensor, mask: Tensor) -> Tensor:
    """A copy with zeros at padding."""
    return torch.where(mask.to(rows.device)[..., None], rows, rows.new_zeros(()))


def _not_finite(rows: Tensor) -> tuple[int, int] | None:
    """The first segment and column with a number that is NaN or infinite."""
    finite = torch.isfinite(rows)
    if finite.all():
        return None
    segment, column = (~finite).any(1).nonzero()[0].tolist()
    return segment, column


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
