"""Encoders: the gradient written out by hand is the exact one, for every activation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from prefgym.models.encoders import ACTIVATIONS, MLPEncoder

MODULES: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(),
    "tanh": nn.Tanh(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
}
"""PyTorch's own, as references."""


def mlp(
    activation: str,
    hidden: tuple[int, ...] = (5, 4),
    outputs: int = 2,
    kind: torch.dtype = torch.float64,
) -> MLPEncoder:
    generator = torch.Generator().manual_seed(3)
    return MLPEncoder(3, outputs, 2, hidden, activation, generator).to(kind)


def rows_for(encoder: MLPEncoder, count: int = 6, seed: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, 3, generator=generator).to(encoder.weights[0].dtype)


class Anew(torch.autograd.Function):
    """The encoder, computed anew for every gradient: gradcheck asks for many of one graph."""

    @staticmethod
    def forward(ctx: Any, encoder: MLPEncoder, rows: Tensor, *parameters: Tensor) -> Tensor:
        ctx.encoder = encoder
        ctx.save_for_backward(rows, *parameters)
        return outputs_of(encoder, rows, *parameters)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        leaves = [leaf.detach().requires_grad_() for leaf in ctx.saved_tensors]
        with torch.enable_grad():
            outputs = outputs_of(ctx.encoder, *leaves)
        return None, *torch.autograd.grad(outputs, leaves, gradient)


anew: Callable[..., Tensor] = Anew.apply


def outputs_of(encoder: MLPEncoder, rows: Tensor, *parameters: Tensor) -> Tensor:
    names = [name for name, _ in encoder.named_parameters()]
    given = dict(zip(names, parameters, strict=True))
    outputs: Tensor = functional_call(encoder, given, (rows,))
    return outputs


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (5,), (5, 4, 9)])
@pytest.mark.parametrize("outputs", [1, 9])
def test_the_gradient_is_the_limit_of_differences(
    activation: str, hidden: tuple[int, ...], outputs: int
) -> None:
    encoder = mlp(activation, hidden, outputs)
    leaves = [rows_for(encoder, 3), *(one.detach() for one in encoder.parameters())]
    assert torch.autograd.gradcheck(
        lambda *given: anew(encoder, *given), [one.requires_grad_() for one in leaves]
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_members_are_networks_of_pytorchs_own_layers(activation: str, kind: torch.dtype) -> None:
    encoder = mlp(activation, kind=kind)
    rows = rows_for(encoder) * 30.0  # far out too, where values are saturated or as good as 0
    outputs = encoder(rows)
    gradients = torch.autograd.grad(outputs.square().sum(), list(encoder.parameters()))
    alone = rows
    parameters = [one.detach().clone().requires_grad_() for one in encoder.parameters()]
    weights, biases = parameters[:3], parameters[3:]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        alone = MODULES[activation](alone @ weight + bias)
    alone = alone @ weights[-1] + biases[-1]
    torch.testing.assert_close(outputs, alone)
    torch.testing.assert_close(gradients, torch.autograd.grad(alone.square().sum(), parameters))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_do_not_depend_on_whether_a_gradient_is_wanted(activation: str) -> None:
    encoder = mlp(activation)
    rows = rows_for(encoder)
    with torch.no_grad():
        silent = encoder(rows)
    torch.testing.assert_close(silent, encoder(rows), rtol=0, atol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_graphs_alive_at_once_keep_apart_and_memory_comes_back(activation: str) -> None:
    encoder = mlp(activation, (5, 4, 9))
    parameters = list(encoder.parameters())
    batches = [rows_for(encoder, seed=seed) for seed in (1, 2, 3)]

    def pulled(outputs: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(outputs.square().sum(), parameters)

    alone = [pulled(encoder(rows)) for rows in batches]
    graphs = [encoder(rows) for rows in batches]
    torch.testing.assert_close([pulled(graph) for graph in graphs], alone, rtol=0, atol=0)
    free = [piece.data_ptr() for piece in encoder.workspace._free]
    assert len(free) == len(set(free)) > 0  # nothing is lent twice


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_kept_of_a_row_is_what_lies_in_memory(activation: str) -> None:
    encoder, count = mlp(activation, (8, 8)), 50
    outputs = encoder(rows_for(encoder, count))
    taken = {id(one) for layer in outputs.grad_fn.hidden for one in layer}
    assert len(taken) * 8 == encoder.kept_per_row
    assert encoder.kept_per_row == (32 if ACTIVATIONS[activation].keeps_inputs else 16)


def test_silu_is_the_input_times_its_logistic_function() -> None:
    encoder = MLPEncoder(1, 1, 1, (1,), "silu", torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for weight, bias in zip(encoder.weights, encoder.biases, strict=True):
            weight.fill_(1.0)
            bias.zero_()
    x = torch.linspace(-40.0, 40.0, 81, dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(encoder(x), x / (1.0 + torch.exp(-x)))
