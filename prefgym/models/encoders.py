"""Encoders: from steps of segments to the numbers that a head reads, for all members at once.

An encoder is a module with ``forward(features [members, rows, features]) -> [members, rows,
outputs]``. Members of an ensemble never meet in a loop: their weights lie behind each other in one
tensor, and every layer is one batched matrix product.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space, spaces
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from prefgym.names import lookup
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


class Activation(NamedTuple):
    """A function whose slope can be told from its value, so that only the value is kept."""

    apply: Callable[[Tensor], Tensor]
    """In place on the layer's output."""
    pull_back: Callable[[Tensor, Tensor], object]
    """``(gradient, value)``: multiply the gradient by the slope at that value, in place."""


_aten = torch.ops.aten
_LEAK = 0.01

ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        torch.relu_, lambda g, y: _aten.threshold_backward.grad_input(g, y, 0, grad_input=g)
    ),
    "leaky_relu": Activation(
        lambda x: functional.leaky_relu_(x, _LEAK),
        lambda g, y: _aten.leaky_relu_backward.grad_input(g, y, _LEAK, True, grad_input=g),
    ),
    "tanh": Activation(
        torch.tanh_, lambda g, y: _aten.tanh_backward.grad_input(g, y, grad_input=g)
    ),
}


class MLPEncoder(nn.Module):
    """Fully connected layers, one network for every member.

    Initial weights are PyTorch's own for linear layers: uniform in ±1/√inputs.

    Args:
        features: numbers in a row of input.
        outputs: numbers in a row of output, as many as the head reads.
        members: networks in the ensemble.
        hidden: width of each hidden layer.
        activation: "leaky_relu", "relu" or "tanh", after each hidden layer.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        members: int,
        hidden: Sequence[int],
        activation: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        widths = (features, *hidden, outputs)
        if members < 1 or min(widths) < 1:
            raise ValueError(
                f"MLPEncoder: members is {members} and the widths are {widths}; wanted 1 or more."
            )
        self.members = members
        self.hidden = tuple(hidden)
        self.activation = activation
        self.workspace = Workspace()
        lookup(activation, ACTIVATIONS, "activation")

        def uniform(inputs: int, *shape: int) -> nn.Parameter:
            draws = torch.rand(members, *shape, generator=generator, device=generator.device)
            return nn.Parameter((2.0 * draws - 1.0) / inputs**0.5)

        layers = list(pairwise(widths))
        self.weights = nn.ParameterList([uniform(into, into, out) for into, out in layers])
        self.biases = nn.ParameterList([uniform(into, 1, out) for into, out in layers])

    def forward(
        self, rows: Float[Tensor, " members rows features"]
    ) -> Float[Tensor, " members rows outputs"]:
        """Every member's outputs for its own rows (``expand`` one batch to show it to all)."""
        how = ACTIVATIONS[self.activation], self.workspace, torch.is_grad_enabled()
        return _layers(*how, rows, *self.weights, *self.biases)


def rows_at_once(numbers_per_row: int, device: torch.device) -> int:
    """How many rows to compute at a time when each needs so many hidden numbers.

    On a CPU what fits into its cache (16 MiB), which is worth a fifth of the time of a fit; on an
    accelerator what fits into a small part of its memory (1 GiB).
    """
    return max(1, (1 << (22 if device.type == "cpu" else 28)) // max(1, numbers_per_row))


class Workspace:
    """Memory for hidden values, used again and again.

    Fresh memory comes from the kernel page by page, which costs a tenth of the time of a fit. All
    pieces are as large as the largest one asked for, so that any free piece will do; pages that are
    never touched take no memory.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []
        self._largest = 0

    def take(self, like: Tensor, *shape: int) -> Tensor:
        """An uninitialised tensor, of the type and on the device of ``like``."""
        numbers = math.prod(shape)
        self._largest = max(self._largest, numbers)
        piece = like.new_empty(0)
        with suppress(IndexError):  # there is none, or another thread was faster
            piece = self._free.pop()
        alike = piece.dtype == like.dtype and piece.device == like.device
        if not alike or piece.numel() < numbers:
            piece = like.new_empty(self._largest)
        return piece[:numbers].view(shape)

    def give_back(self, tensor: Tensor) -> None:
        """Allow what was taken to be taken again: nobody reads it any more."""
        piece = tensor._base
        if piece is not None and not piece.is_inference() and len(self._free) < _PIECES:
            self._free.append(piece)

    def __reduce__(self) -> tuple[type["Workspace"], tuple[()]]:
        """Copies and pickles of a model begin with none."""
        return Workspace, ()


_PIECES = 8
"""Free pieces that are kept: as many as a deep network needs at once."""


class _Layers(torch.autograd.Function):
    """The whole network as one step of autograd.

    Written out because it decides the speed of every reward model: activations and their gradients
    are overwritten in place, in memory that is used again, so that beside the matrix products each
    layer costs one pass over its values forward and two backward. Products with a very narrow side
    are turned around, which is several times faster in BLAS.
    """

    @staticmethod
    def forward(
        ctx: Any,
        activation: Activation,
        space: Workspace,
        with_gradient: bool,
        rows: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        depth = len(parameters) // 2
        weights, biases = parameters[:depth], parameters[depth:]
        hidden: list[Tensor] = []
        last = rows
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            out = space.take(rows, *rows.shape[:2], weight.shape[2])
            torch.baddbmm(bias, last, weight, out=out)
            if hidden and not with_gradient:
                space.give_back(hidden.pop())
            last = activation.apply(out)
            hidden.append(last)
        outputs = _product(last, weights[-1]) + biases[-1]
        if with_gradient:
            ctx.activation, ctx.space, ctx.hidden = activation, space, hidden
            ctx.save_for_backward(rows, *weights)
        elif hidden:
            space.give_back(hidden.pop())
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, *weights = ctx.saved_tensors
        if ctx.hidden is None:
            raise RuntimeError("MLPEncoder: its gradient can be taken once; call it again.")
        values, ctx.hidden = [rows, *ctx.hidden], None
        d_weights: list[Tensor] = []
        d_biases: list[Tensor] = []
        for layer in range(len(weights) - 1, -1, -1):
            d_weights.append(_outer_sum(values[layer], gradient))
            d_biases.append(gradient.sum(1, keepdim=True))
            if layer > 0:
                below = ctx.space.take(gradient, *values[layer].shape)
                _pull_back(gradient, weights[layer], below)
                ctx.activation.pull_back(below, values[layer])
                ctx.space.give_back(values[layer])
                if layer < len(weights) - 1:
                    ctx.space.give_back(gradient)
                gradient = below
        d_rows = torch.empty_like(rows) if ctx.needs_input_grad[3] else None
        if d_rows is not None:
            _pull_back(gradient, weights[0], d_rows)
        if len(weights) > 1:
            ctx.space.give_back(gradient)
        return None, None, None, d_rows, *reversed(d_weights), *reversed(d_biases)


_layers: Callable[..., Tensor] = _Layers.apply

_NARROW = 8
"""Columns below which a product is computed as the transpose of its transpose."""


def _product(values: Tensor, weight: Tensor) -> Tensor:
    if weight.shape[2] < _NARROW:
        return torch.bmm(weight.transpose(1, 2), values.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(values, weight)


def _outer_sum(values: Tensor, gradient: Tensor) -> Tensor:
    if gradient.shape[2] < _NARROW:
        return torch.bmm(gradient.transpose(1, 2), values).transpose(1, 2)
    return torch.bmm(values.transpose(1, 2), gradient)


def _pull_back(gradient: Tensor, weight: Tensor, out: Tensor) -> None:
    if gradient.shape[2] == 1:
        torch.mul(gradient, weight.transpose(1, 2), out=out)
    else:
        torch.bmm(gradient, weight.transpose(1, 2), out=out)
