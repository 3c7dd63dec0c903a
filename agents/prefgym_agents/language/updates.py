"""What a language model learns from responses whose tokens were given rewards.

PPO (a value head, and the distance to the reference taken off the reward of every token), GRPO (a
response against the others to its prompt, the distance added to the loss), RLOO (against the mean
of the others, the distance taken off the return) and P3O (pairs of responses to one prompt).
Every response ends where it ends: nothing is added for what might have followed.

Sources: Schulman et al. (2017), arXiv:1707.06347; Zheng et al. (2023), arXiv:2307.04964; Shao et
al. (2024), arXiv:2402.03300; Ahmadian et al. (2024), arXiv:2402.14740; Wu et al. (2023),
arXiv:2310.00212.

Departures. The losses of tokens are averaged over the tokens of the whole minibatch, so that a
long response weighs more than a short one (as in DAPO, arXiv:2503.14476). RLOO's ratios are clipped
token by token, and those of P3O are means over the tokens of a response.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefgym import policy_losses
from prefgym.names import lookup
from prefgym.rewards import CONSTANT
from prefgym_agents.processes import Processes

ALGORITHMS = {"PPO": False, "GRPO": True, "RLOO": True, "P3O": True}
"""By name; true where several responses to one prompt are needed."""


@dataclass(frozen=True)
class Config:
    """Settings of how a language model acts and improves."""

    algorithm: str = "GRPO"
    """"PPO", "GRPO", "RLOO" or "P3O"."""
    learning_rate: float = 3e-4
    """Of AdamW. Suits tiny models; one of 1e9 parameters wants 1e-6, or 1e-5 with adapters."""
    weight_decay: float = 0.0
    """Of AdamW."""
    epochs: int = 1
    """Passes over the responses of one update."""
    minibatch: int | None = None
    """Responses per gradient step, about; None takes all of them."""
    accumulate: int = 1
    """In how many parts a step's gradient is computed; more need less memory."""
    recompute: bool = False
    """Compute hidden numbers twice instead of keeping them for the gradient (saves memory)."""
    kl: float = 0.0
    """Worth of a nat of log-ratio to the reference, in units of reward."""
    clip: float = 0.2
    """How far a ratio of probabilities may go from 1 before it stops counting."""
    trace: float = 0.95
    """PPO's λ; 1 credits a token with all that follows."""
    value_weight: float = 0.1
    """PPO's weight of the value head's loss."""
    value_clip: float = math.inf
    """How far PPO's values may move in an update before that stops counting, in return."""
    max_norm: float = 1.0
    """Longest gradient; longer ones are shortened."""
    temperature: float = 1.0
    """The policy is softmax(logits / temperature)."""
    generation_batch: int = 512
    """Responses written side by side."""
    inspect: str = "."
    """Folder in which a batch is left whose loss was not finite."""

    def __post_init__(self) -> None:
        """Refuse settings that can never work."""
        lookup(str(self.algorithm), ALGORITHMS, "algorithm")
        for name in ("epochs", "minibatch", "accumulate", "generation_batch"):
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if not (name == "minibatch" and value is None) and not (whole and value >= 1):
                none = ", or None for all" if name == "minibatch" else ""
                raise ValueError(f"{name}={value!r}; wanted a whole number, at least 1{none}.")
        for name, (wanted, fits) in _NUMBERS.items():
            value = getattr(self, name)
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not (number and fits(value)):
                raise ValueError(f"{name}={value!r}; wanted {wanted}.")
        if not isinstance(self.recompute, bool):
            raise ValueError(f"recompute={self.recompute!r}; wanted True or False.")
        if not isinstance(self.inspect, str | Path):
            raise ValueError(f"inspect={self.inspect!r}; wanted the name of a folder.")

    def check_same(self, saved: Mapping[str, Any]) -> None:
        """Refuse the settings of a saved state that would learn otherwise.

        Raises:
            ValueError: settings differ, and not only in memory, time or where files go.
        """
        idle = ("accumulate", "recompute", "generation_batch", "inspect")
        other = {k: v for k, v in saved.items() if k not in idle and getattr(self, k) != v}
        if other:
            told = ", ".join(f"{k}={v!r} (here {getattr(self, k)!r})" for k, v in other.items())
            raise ValueError(
                f"The state was saved under the settings {told}; make the backend with the same"
                " ones to go on from it, or take its policy alone with load_policy(state)."
            )


_NUMBERS: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "learning_rate": ("a finite number above 0", lambda one: 0.0 < one < math.inf),
    "weight_decay": ("0 or a finite number above it", lambda one: 0.0 <= one < math.inf),
    "kl": ("0 (no pull to the reference) or more, finite", lambda one: 0.0 <= one < math.inf),
    "clip": ("a number above 0", lambda one: one > 0.0),
    "trace": ("a number from 0 to 1", lambda one: 0.0 <= one <= 1.0),
    "value_weight": ("0 or a finite number above it", lambda one: 0.0 <= one < math.inf),
    "value_clip": ("a number above 0 (math.inf for none)", lambda one: one > 0.0),
    "max_norm": ("a number above 0 (math.inf for none)", lambda one: one > 0.0),
    "temperature": (
        "a finite number above 0 (predict(deterministic=True) chooses the most likely token)",
        lambda one: 0.0 < one < math.inf,
    ),
}
"""What each setting has to be, in words and as a test; NaN passes none of them."""


@dataclass(frozen=True)
class Lesson:
    """What is known of a batch of responses before the first gradient step, on the device."""

    mask: Tensor
    """``[B, T]``: the tokens that are learned about."""
    context_id: Tensor
    """``[B]``."""
    old: Tensor
    """``[B, T]`` log-probabilities under the policy that wrote them."""
    advantage: Tensor
    """``[B, T]``; of P3O, ``[B, 1]`` returns."""
    reference: Tensor
    """``[B, T]`` log-probabilities under the reference; those of the policy where nothing pulls."""
    value: Tensor
    """``[B, T]`` values before; zeros but for PPO."""
    target: Tensor
    """``[B, T]`` what the values should be."""

    def take(self, rows: np.ndarray) -> "Lesson":
        """Some of the responses."""
        index = torch.from_numpy(rows).to(self.mask.device)
        return Lesson(*(getattr(self, one.name)[index] for one in fields(self)))


def lesson(
    config: Config,
    mask: Tensor,
    context_id: Tensor,
    rewards: Tensor,
    old: Tensor,
    reference: Tensor | None,
    value: Tensor,
    processes: Processes,
    own: Tensor | None = None,
    learned: Tensor | None = None,
) -> tuple[Lesson, dict[str, float]]:
    """What each token was worth, and what there is to tell about it.

    What tokens earn counts for those before them, whoever wrote them. The log-ratio to the
    reference counts for ``own`` tokens alone, ``[B, T]``: drawn from the policy its mean is the
    divergence, but what somebody else wrote and the policy never would has a log-ratio far below 0,
    and taking that off the return is a reward for having let them write.

    Args:
        config: the settings.
        mask: ``[B, T]``: the tokens there are.
        context_id: ``[B]``.
        rewards: ``[B, T]``.
        old: ``[B, T]`` log-probabilities under the policy that wrote them.
        reference: ``[B, T]`` log-probabilities under the reference; None if nothing pulls.
        value: ``[B, T]`` of the value head.
        processes: that learn together.
        own: ``[B, T]``: the tokens that the policy chose; None: all.
        learned: ``[B, T]``: the tokens that teach anything; None: the policy's own.

    Raises:
        ValueError: a prompt has one response only, and the algorithm compares several.
    """
    own = mask if own is None else own
    learned = own if learned is None else learned
    pulled = reference is not None
    reference = old if reference is None else torch.where(own, reference, old)
    distance = policy_losses.kl_k1(old, reference)
    inside = config.algorithm == "GRPO"  # there the distance is part of the loss
    worth = torch.where(mask, rewards if inside else rewards - config.kl * distance, 0.0)
    target = torch.zeros_like(old)
    if ALGORITHMS[config.algorithm]:
        _check_groups(config.algorithm, context_id)
    returns = worth.sum(1)
    if config.algorithm == "PPO":
        advantage = policy_losses.gae(worth, value, mask, 1.0, config.trace)
        target = torch.where(mask, advantage + value, 0.0)
        advantage = _whitened(advantage, learned, processes)
    elif config.algorithm == "GRPO":
        advantage = policy_losses.group_advantages(returns, context_id)[:, None].expand_as(old)
    elif config.algorithm == "RLOO":
        advantage = policy_losses.leave_one_out(returns, context_id)[:, None].expand_as(old)
    else:
        advantage = returns[:, None]
    taught = Lesson(learned, context_id, old, advantage, reference, value, target)
    told = {"train/entropy": float(-policy_losses.masked_mean(old, learned))}
    if pulled:
        told["train/kl"] = float(torch.where(mask, distance, 0.0).sum(1).mean())
    return taught, told


def losses(config: Config, some: Lesson, log_prob: Tensor, value: Tensor) -> dict[str, Tensor]:
    """Sums of losses: ``loss`` with gradient, and what there is to tell.

    Args:
        config: the settings.
        some: the responses in question.
        log_prob: ``[B, T]`` of the policy now.
        value: ``[B, T]`` of the value head now.
    """
    if config.algorithm == "P3O":
        first, second = policy_losses.pairs_within(some.context_id)
        ratio = policy_losses.sequence_log_ratio(log_prob, some.old, some.mask, per_step=True)
        gain = some.advantage[:, 0]
        loss = policy_losses.pair_clipped_jointly(
            ratio[first], ratio[second], gain[first] - gain[second], config.clip
        ).sum()
    else:
        tokens = policy_losses.clipped(log_prob, some.old, some.advantage, config.clip)
        if config.algorithm == "GRPO" and config.kl:
            tokens = tokens + config.kl * policy_losses.kl_k3(log_prob, some.reference)
        if config.algorithm == "PPO":
            missed = policy_losses.clipped_value(value, some.value, some.target, config.value_clip)
            tokens = tokens + config.value_weight * missed
        loss = torch.where(some.mask, tokens, 0.0).sum()
    told = {"loss": loss}
    with torch.no_grad():
        moved = log_prob - some.old
        beyond = (moved.exp() - 1.0).abs() > config.clip
        told["clip_fraction"] = (beyond & some.mask).sum()
        told["approx_kl"] = torch.where(some.mask, torch.expm1(moved) - moved, 0.0).sum()
        if config.algorithm == "PPO":
            errors = torch.where(some.mask, (value - some.target) ** 2, 0.0)
            told["value_loss"] = 0.5 * errors.sum()
    return told


def loss_count(config: Config, some: Lesson, processes: Processes) -> Tensor:
    """What the sums of :func:`losses` are to be divided by: this process's share of the mean."""
    if config.algorithm == "P3O":
        count = torch.as_tensor(len(policy_losses.pairs_within(some.context_id)[0]))
        count = count.to(some.mask.device)
    else:
        count = some.mask.sum()
    return processes.sum(count).clamp(min=1) / processes.count


def minibatches(
    config: Config, lengths: np.ndarray, context_id: np.ndarray, generator: torch.Generator
) -> list[list[np.ndarray]]:
    """Rows of every gradient step of one pass, each in parts of like length.

    P3O's pairs stay together, so that there whole prompts are dealt out.
    """
    units = [np.array([row]) for row in range(len(lengths))]
    if config.algorithm == "P3O":
        units = [np.nonzero(context_id == one)[0] for one in np.unique(context_id)]
    steps = 1 if config.minibatch is None else max(1, round(len(lengths) / config.minibatch))
    steps = min(steps, len(units))
    order = torch.randperm(len(units), generator=generator).numpy()
    dealt = []
    for chosen in np.array_split(order, steps):
        longest = [-int(lengths[units[one]].max()) for one in chosen]
        sorted_units = chosen[np.argsort(longest, kind="stable")]
        parts = np.array_split(sorted_units, min(config.accumulate, len(chosen)))
        dealt.append([np.concatenate([units[one] for one in part]) for part in parts])
    return dealt


def _whitened(advantage: Tensor, mask: Tensor, processes: Processes) -> Tensor:
    """Mean 0 and deviation 1 over the tokens of all processes."""
    real = torch.where(mask, advantage, 0.0)
    count, total = processes.sum(torch.stack([mask.sum().to(real.dtype), real.sum()]))
    off = torch.where(mask, advantage - total / count, 0.0)
    variance = processes.sum(off.square().sum()) / count
    return off / torch.where(variance > CONSTANT**2, variance, 1.0).sqrt()


def _check_groups(algorithm: str, context_id: Tensor) -> None:
    counts = torch.unique(context_id, return_counts=True)[1]
    if int(counts.min()) < 2:
        raise ValueError(
            f"{algorithm} compares responses to one prompt, and a prompt came with one response"
            ' only; make the environment with samples_per_prompt=8, say, or choose "PPO".'
        )
