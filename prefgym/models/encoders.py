"""Encoders: from rows of features to the numbers that a head reads, for all members at once.

Members of an ensemble never meet in a loop: their weights lie behind each other in one tensor, and
every layer is one batched matrix product.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from prefgym.names import lookup


@runtime_checkable
class Encoder(Protocol):
    """Any module that reads every member's own rows; the head says how many outputs it wants."""

    members: int
    """Networks in the ensemble."""

    @property
    def kept_per_row(self) -> int:
        """Hidden numbers that each member keeps of a row for its gradient."""
        ...

    def __call__(
        self, rows: Float[Tensor, " members rows features"]
    ) -> Float[Tensor, " members rows outputs"]:
        """Every member's outputs for its own rows."""
        ...


class Activation(NamedTuple):
    """A function of each number alone, and its slope from what is kept of the forward pass."""

    apply: Callable[[Tensor, Tensor], object]
    """``(inputs, out)``: write the values to ``out``, which may be ``inputs`` itself."""
    pull_back: Callable[[Tensor, Tensor], object]
    """``(gradient, kept)``: multiply the gradient by the slope at what was kept, in place."""
    keeps_inputs: bool = False
    """Whether the slope is told from the inputs, which are then kept beside the values. Otherwise
    it is told from the values, and these overwrite the inputs: half the memory, one pass less."""


_aten = torch.ops.aten
_LEAK = 0.01

ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        lambda x, out: torch.clamp_min(x, 0, out=out),
        lambda g, y: _aten.threshold_backward.grad_input(g, y, 0, grad_input=g),
    ),
    "leaky_relu": Activation(
        lambda x, out: _aten.leaky_relu.out(x, _LEAK, out=out),
        lambda g, y: _aten.leaky_relu_backward.grad_input(g, y, _LEAK, True, grad_input=g),
    ),
    "tanh": Activation(
        lambda x, out: torch.tanh(x, out=out),
        lambda g, y: _aten.tanh_backward.grad_input(g, y, grad_input=g),
    ),
    "silu": Activation(
        lambda x, out: _aten.silu.out(x, out=out),
        lambda g, x: _aten.silu_backward.grad_input(g, x, grad_input=g),
        keeps_inputs=True,
    ),
    "gelu": Activation(
        lambda x, out: _aten.gelu.out(x, out=out),
        lambda g, x: _aten.gelu_backward.grad_input(g, x, grad_input=g),
        keeps_inputs=True,
    ),
}
"""SiLU: Ramachandran, Zoph and Le (2017), arXiv:1710.05941; GELU, in its exact form: Hendrycks and
Gimpel (2016), arXiv:1606.08415."""


class MLPEncoder(nn.Module):
    """Fully connected layers, one network for every member.

    Initial weights are PyTorch's own for linear layers: uniform in ±1/√inputs.

    Args:
        features: numbers in a row of input.
        outputs: numbers in a row of output, as many as the head reads.
        members: networks in the ensemble.
        hidden: width of each hidden layer.
        activation: "leaky_relu", "relu", "tanh", "silu" or "gelu", after each hidden layer.
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

    @property
    def kept_per_row(self) -> int:
        """Hidden numbers that each member keeps of a row for its gradient."""
        return sum(self.hidden) * (2 if ACTIVATIONS[self.activation].keeps_inputs else 1)

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


class _Hidden(NamedTuple):
    """What is kept of a hidden layer, each ``[members, rows, width]``."""

    values: Tensor
    inputs: Tensor
    """Of the activation; the values themselves where these have overwritten them."""


class _Layers(torch.autograd.Function):
    """The whole network as one step of autograd.

    Written out because it decides the speed of every reward model: activations and their gradients
    are overwritten in place wherever that loses nothing, in memory that is used again, so that
    beside the matrix products each layer costs one pass over its values forward and two backward.
    Products with a very narrow side are turned around, which is several times faster in BLAS.
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
        hidden: list[_Hidden] = []
        last = rows
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            inputs = space.take(rows, *rows.shape[:2], weight.shape[2])
            torch.baddbmm(bias, last, weight, out=inputs)
            if hidden and not with_gradient:
                space.give_back(hidden.pop().values)
            both = activation.keeps_inputs and with_gradient
            last = space.take(inputs, *inputs.shape) if both else inputs
            activation.apply(inputs, last)
            hidden.append(_Hidden(last, inputs))
        outputs = _product(last, weights[-1]) + biases[-1]
        if with_gradient:
            ctx.activation, ctx.space, ctx.hidden = activation, space, hidden
            ctx.save_for_backward(rows, *weights)
        elif hidden:
            space.give_back(hidden.pop().values)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, *weights = ctx.saved_tensors
        if ctx.hidden is None:
            raise RuntimeError("MLPEncoder: its gradient can be taken once; call it again.")
        layers, ctx.hidden = [_Hidden(rows, rows), *ctx.hidden], None
        d_weights: list[Tensor] = []
        d_biases: list[Tensor] = []
        for layer in range(len(weights) - 1, -1, -1):
            values, inputs = layers[layer]
            d_weights.append(_outer_sum(values, gradient))
            d_biases.append(gradient.sum(1, keepdim=True))
            if layer > 0:
                below = ctx.space.take(gradient, *values.shape)
                _pull_back(gradient, weights[layer], below)
                ctx.activation.pull_back(below, inputs)
                ctx.space.give_back(values)
                if inputs is not values:
                    ctx.space.give_back(inputs)
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
