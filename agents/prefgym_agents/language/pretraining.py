"""Supervised pretraining: a language model learns to respond as demonstrations do.

Metrics: ``pretrain/loss`` (nats per token, of the pass), ``pretrain/held_out_loss`` (the same on
demonstrations that are not learned from, as far as there are any), ``pretrain/held_out_accuracy``
(share of their tokens that the model finds most likely), ``pretrain/epoch``,
``pretrain/tokens_per_second``.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from prefgym.segments import Segments
from prefgym.text import Layout
from prefgym_agents.language.optimizers import ExactAdamW
from prefgym_agents.language.packing import pack
from prefgym_agents.language.policy import LanguagePolicy


@dataclass(frozen=True)
class PretrainingConfig:
    """Settings of supervised pretraining; defaults suit tiny models."""

    epochs: int = 10
    """Passes over the demonstrations."""
    batch: int = 64
    """Demonstrations per gradient step."""
    learning_rate: float = 3e-3
    """Of AdamW at its highest: it rises over the first 5 % of the steps and falls as a cosine."""
    weight_decay: float = 0.01
    """Of AdamW."""
    held_out: float = 0.1
    """Share of the demonstrations that is measured on and not learned from."""
    max_norm: float = 1.0
    """Longest gradient; longer ones are shortened."""
    seed: int = 0
    """Of the order, and of what is held out."""

    def __post_init__(self) -> None:
        """Refuse settings that can never work."""
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; wanted at least 1.")
        if not 0.0 <= self.held_out < 1.0:
            raise ValueError(f"held_out={self.held_out}; wanted a share in [0, 1).")


def pretrain(
    model: Any,
    layout: Layout,
    demonstrations: Segments,
    config: PretrainingConfig | None = None,
) -> list[dict[str, float]]:
    """Train a model in place on the tokens of demonstrated responses.

    Args:
        model: of transformers (``language.models.causal_model``).
        layout: where prompts and responses stand.
        demonstrations: whole responses.
        config: the settings.

    Returns:
        Metrics after every pass.

    Raises:
        ValueError: there are fewer than two demonstrations.
        RuntimeError: the loss became infinite or NaN.
    """
    config = config or PretrainingConfig()
    if len(demonstrations) < 2:
        raise ValueError(
            f"pretrain() got {len(demonstrations)} demonstrations; give 2 or more, such as"
            " task.demonstrations(5_000, rng)."
        )
    rng = np.random.default_rng(config.seed)
    plain, order = demonstrations.numpy(), rng.permutation(len(demonstrations))
    aside = int(config.held_out * len(order))
    held_out, learned = plain.take(order[:aside]), plain.take(order[aside:])
    policy = LanguagePolicy(model, layout.codec.size)
    weights = [one for one in policy.parameters() if one.requires_grad]
    optimizer = ExactAdamW(weights, config.learning_rate, config.weight_decay)
    told, taken = [], 0
    steps = config.epochs * math.ceil(len(learned) / config.batch)
    for epoch in range(config.epochs):
        begun, loss, tokens = time.perf_counter(), 0.0, 0
        shuffled = rng.permutation(len(learned))
        for begin in range(0, len(learned), config.batch):
            _set_rate(optimizer, config, taken / steps)
            some = learned.take(shuffled[begin : begin + config.batch])
            loss += _step(policy, layout, some, optimizer, config.max_norm)
            tokens, taken = tokens + int(some.mask.sum()), taken + 1
        told.append(
            {
                "pretrain/epoch": epoch + 1.0,
                "pretrain/loss": loss / tokens,
                "pretrain/tokens_per_second": tokens / (time.perf_counter() - begun),
                **_measured(policy, layout, held_out, config.batch),
            }
        )
    return told


def _step(
    policy: LanguagePolicy,
    layout: Layout,
    some: Segments,
    optimizer: ExactAdamW,
    max_norm: float,
) -> float:
    """One gradient step; returns the summed loss."""
    packed = pack(layout, some, policy.reads_apart).to(policy.device)
    total = -policy(*packed.inputs)[0].sum()
    if not torch.isfinite(total):
        raise RuntimeError(
            f"pretrain() got the loss {total.item()}; lower learning_rate, or look at the"
            " demonstrations."
        )
    optimizer.zero_grad()
    (total / len(packed.actions)).backward()
    torch.nn.utils.clip_grad_norm_(optimizer.weights, max_norm)
    optimizer.step()
    return float(total.detach())


@torch.no_grad()
def _measured(
    policy: LanguagePolicy, layout: Layout, held_out: Segments, batch: int
) -> dict[str, float]:
    if not len(held_out):
        return {}
    loss, right = 0.0, 0
    for begin in range(0, len(held_out), batch):
        some = held_out.take(slice(begin, begin + batch))
        packed = pack(layout, some).to(policy.device)
        logits = policy(packed.tokens, packed.place).logits
        loss += float(torch.nn.functional.cross_entropy(logits, packed.actions, reduction="sum"))
        right += int((logits.argmax(1) == packed.actions).sum())
    tokens = int(held_out.mask.sum())
    return {"pretrain/held_out_loss": loss / tokens, "pretrain/held_out_accuracy": right / tokens}


def _set_rate(optimizer: ExactAdamW, config: PretrainingConfig, progress: float) -> None:
    rising = min(1.0, progress / 0.05)
    for group in optimizer.adam.param_groups:
        group["lr"] = config.learning_rate * rising * 0.5 * (1.0 + math.cos(math.pi * progress))
