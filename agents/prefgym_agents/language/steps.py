"""Gradient steps on a language model: in parts, over processes, and stopped before they do harm."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefgym.segments import Segments
from prefgym.text import Layout
from prefgym_agents.astray import astray
from prefgym_agents.language.optimizers import ExactAdamW
from prefgym_agents.language.packing import Packed, pack
from prefgym_agents.language.policy import LanguagePolicy, scores
from prefgym_agents.language.updates import Config, Lesson, loss_count, losses, minibatches
from prefgym_agents.processes import Processes

Loss = Callable[[Tensor], Tensor]


class GradientSteps:
    """A policy, its optimizer, and the steps that were taken.

    Args:
        policy: to improve; what of it requires a gradient is what learns.
        layout: of its texts.
        config: how large the steps are, and in how many parts they are computed.
        processes: that take the steps together.
    """

    def __init__(
        self, policy: LanguagePolicy, layout: Layout, config: Config, processes: Processes
    ) -> None:
        self.policy, self.layout, self.config, self.processes = policy, layout, config, processes
        policy.recompute = config.recompute
        if config.recompute or processes.sharded:  # neither goes together with a cache
            policy.reads_apart = False
        learned = [one for one in policy.parameters() if one.requires_grad]
        self.optimizer = ExactAdamW(learned, config.learning_rate, config.weight_decay)
        self._run = self.optimizer.prepare(policy, processes)
        self.taken = 0
        """Gradient steps so far."""

    def improve(
        self, segments: Segments, taught: Lesson, generator: torch.Generator
    ) -> dict[str, float]:
        """Pass over a batch of responses, as often as the settings say; returns metrics."""
        lengths = np.asarray(segments.mask).sum(1)
        loss: list[float] = []
        norm: list[float] = []
        told: dict[str, float] = {}
        for _ in range(self.config.epochs):
            for parts in minibatches(self.config, lengths, segments.context_id, generator):
                count = loss_count(self.config, taught.take(np.concatenate(parts)), self.processes)
                shares = [partial(self._share, segments, taught, one, count, told) for one in parts]
                step = self._take(shares, segments, taught)
                loss.append(step[0])
                norm.append(step[1])
        tokens = self.config.epochs * int(lengths.sum())
        return {
            **{f"train/{name}": total / tokens for name, total in told.items()},
            "train/loss": float(np.mean(loss)),
            "train/grad_norm": float(np.mean(norm)),
            "train/gradient_steps": float(self.taken),
        }

    def fit(self, loss: Loss, segments: Segments) -> dict[str, float]:
        """One step on ``loss(log_prob [B, T])``.

        Where a gradient is computed in parts, the slope of the loss is found first, and then
        brought to the weights part by part: exact for any loss, in less memory and more time.
        """
        if self.config.accumulate == 1:
            value, norm = self._take([lambda: loss(self._log_prob(segments))], segments)
            return {"loss": value, "grad_norm": norm}
        rows = np.array_split(np.arange(len(segments)), min(self.config.accumulate, len(segments)))
        leaf = scores(self.policy, self.layout, segments, len(rows[0]))[0].requires_grad_()
        whole = self._finite(loss(leaf), segments)
        (slope,) = torch.autograd.grad(whole, leaf)

        def share(part: np.ndarray) -> Tensor:
            index = torch.from_numpy(part).to(slope.device)
            return (self._log_prob(segments.take(part)) * slope[index]).sum()

        _, norm = self._take([partial(share, one) for one in rows], segments)
        return {"loss": float(whole.detach()), "grad_norm": norm}

    def _pack(self, segments: Segments) -> Packed:
        return pack(self.layout, segments, self.policy.reads_apart).to(self.policy.device)

    def _log_prob(self, segments: Segments) -> Tensor:
        packed = self._pack(segments)
        log_prob, value = self._run(*packed.inputs)
        if self.policy.value_head is not None:
            log_prob = log_prob + 0.0 * value  # processes wait for the slope of every weight
        return packed.unflatten(log_prob)

    def _share(
        self,
        segments: Segments,
        taught: Lesson,
        part: np.ndarray,
        count: Tensor,
        told: dict[str, float],
    ) -> Tensor:
        """What some responses add to the loss of a step."""
        packed = self._pack(segments.take(part))
        log_prob, value = (packed.unflatten(one) for one in self._run(*packed.inputs))
        sums = losses(self.config, taught.take(part), log_prob, value)
        loss = sums.pop("loss") / count
        for name, one in sums.items():
            told[name] = told.get(name, 0.0) + float(one.detach())
        return loss

    def _take(
        self,
        shares: Sequence[Callable[[], Tensor]],
        segments: Segments,
        taught: Lesson | None = None,
    ) -> tuple[float, float]:
        """A step on the sum of what is shared; returns the loss and the length of its gradient."""
        total = 0.0
        self.optimizer.zero_grad()
        for number, share in enumerate(shares):
            with self.processes.together(self._run, last=number == len(shares) - 1):
                loss = self._finite(share(), segments, taught)
                self.processes.backward(loss)
            total += float(loss.detach())
        norm = self.processes.clip(self.optimizer.weights, self.config.max_norm)
        if not np.isfinite(norm):
            raise self._astray("the length of the gradient", norm, segments, taught)
        self.optimizer.step()
        self.taken += 1
        return total, norm

    def _finite(self, loss: Tensor, segments: Segments, taught: Lesson | None = None) -> Tensor:
        value = float(loss.detach())
        if not np.isfinite(value):
            raise self._astray("the loss", value, segments, taught)
        return loss

    def _astray(
        self, what: str, value: float, segments: Segments, taught: Lesson | None
    ) -> RuntimeError:
        """Leave the batch for inspection, and say where."""
        arrays: Mapping[str, Any] = segments.arrays()
        if taught is not None:
            arrays = {**arrays, **{f"lesson/{k}": v.cpu().numpy() for k, v in vars(taught).items()}}
        name = f"astray-step-{self.taken}-process-{self.processes.number}.safetensors"
        return astray(what, value, self.taken, arrays, Path(self.config.inspect) / name)
