"""What a machine can do at best: matrix products and copies, and what a GPT-2 needs of both.

A phase of training can take no less time than its matrix products at the rate of large ones, nor
than its numbers take to be read and written once at the rate of a copy.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

KEPT = 16
"""Numbers kept of each token in each layer for the gradient, in units of the width.

Two norms and their inputs (4), queries, keys and values (3), attention's output (1), the wide
layer before and after its activation (8).
"""


@dataclass(frozen=True)
class Need:
    """What some work asks of a machine."""

    flops: float
    """Of matrix products."""
    bytes: float
    """Read or written."""


@dataclass(frozen=True)
class Ceilings:
    """Rates of a machine, at one moment."""

    flops: float
    """Of matrix products, per second."""
    bytes: float
    """Read or written per second by a copy that no cache holds."""

    def least_seconds(self, need: Need) -> dict[str, float]:
        """What the matrix products and the memory traffic of some work take at best."""
        return {
            "matrix_products": need.flops / self.flops,
            "memory": need.bytes / self.bytes,
        }


class Probe:
    """Measures the ceilings, again and again: the speed of a shared machine changes.

    Args:
        device: "cpu" or "cuda".
        dtype: of the products.
    """

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        size = 1024 if device == "cpu" else 8192
        self.factors = [torch.randn(size, size, device=device).to(dtype) for _ in range(2)]
        self.product = torch.empty_like(self.factors[0])
        self.source = torch.ones(2**24 if device == "cpu" else 2**28, device=device)
        self.target = torch.ones_like(self.source)

    def measure(self) -> Ceilings:
        """The rates now."""
        products = self._seconds(partial(torch.mm, *self.factors, out=self.product))
        copy = self._seconds(partial(self.target.copy_, self.source))
        traffic = 2 * self.source.numel() * self.source.element_size()
        return Ceilings(2 * len(self.product) ** 3 / products, traffic / copy)

    def _seconds(self, work: Callable[[], object]) -> float:
        work()
        begun = self._now()
        work()
        return self._now() - begun

    def _now(self) -> float:
        if self.source.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def generation(config: Any, prompts: int, rows: int, prompt: int, steps: int, size: int) -> Need:
    """Of writing responses: weights and cache are read at every token, the cache written once.

    Args:
        config: of a GPT-2.
        prompts: distinct ones; each needs to be read once only.
        rows: responses.
        prompt: tokens of each prompt.
        steps: tokens of each response.
        size: bytes of a number.
    """
    flops = prompts * _read(config, 0, prompt) + rows * _read(config, prompt, prompt + steps - 1)
    flops += rows * steps * _vocabulary(config)
    contexts = range(prompt + 1, prompt + steps)
    cache = 2 * config.n_layer * config.n_embd * rows * sum(one + 1 for one in contexts)
    return Need(flops, size * (cache + steps * _weights(config)))


def update(
    config: Any, prompts: int, rows: int, prompt: int, steps: int, gradient_steps: int, size: int
) -> Need:
    """Of learning once from responses: a pass forward, and one back that costs twice as much.

    What is kept for the gradient is written and read. In every gradient step the weights are read
    three times and their gradients written; Adam reads weights, gradients and two moments, and
    writes all but the gradients. Each gradient step reads its prompts, but for each only once.

    Args:
        config: of a GPT-2.
        prompts: distinct ones.
        rows: responses.
        prompt: tokens of each prompt.
        steps: tokens of each response.
        gradient_steps: that the responses are dealt to.
        size: bytes of a number.
    """
    flops = rows * (_read(config, prompt, prompt + steps - 1) + steps * _vocabulary(config))
    flops += prompts * _read(config, 0, prompt)
    tokens = prompts * prompt + rows * (steps - 1)
    kept = 2 * (tokens * config.n_layer * KEPT * config.n_embd + rows * steps * config.vocab_size)
    return Need(3 * flops, size * (kept + gradient_steps * 11 * _weights(config)))


def _read(config: Any, begin: int, end: int) -> float:
    """Products of the tokens of a text from place `begin` on, but for the vocabulary's."""
    looked_at = sum(range(begin + 1, end + 1))
    each = 24 * config.n_embd**2
    return float(config.n_layer * ((end - begin) * each + 4 * looked_at * config.n_embd))


def _vocabulary(config: Any) -> float:
    return 2.0 * config.n_embd * config.vocab_size


def _weights(config: Any) -> float:
    return float(config.n_layer * 12 * config.n_embd**2 + config.vocab_size * config.n_embd)
