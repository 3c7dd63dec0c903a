"""Rewards that are linear in features, learned by either account of what people compare.

    partial return   P(a ≻ b) = σ( w · (Φ_a − Φ_b) )
    regret           P(a ≻ b) = σ( w · (Φ_a − Φ_b) + [V_w(end) − V_w(begin)]_a
                                                    − [V_w(end) − V_w(begin)]_b )

with Φ the sum of a segment's features and V_w(s) the best that a library of policies gets under w:
the soft maximum over ψ_i(s) · w, for their successor features ψ_i (generalised policy improvement).
Where transitions are deterministic the second margin is the difference of minus the regrets.

Everything is batched over *problems*: data sets that are learned from at once, each with weights of
its own. Problems may share a board (the states and the library) with others.

Source: Knox et al. (2022), Models of human preference for learning reward functions,
arXiv:2206.02231, section on learning rewards; Barreto et al. (2017), Successor features for
transfer, arXiv:1606.05312.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prefgym.losses import logistic

_SIGNS = (-1.0, 1.0, 1.0, -1.0)
"""Of the values at a's begin and end and b's begin and end."""


@dataclass(frozen=True, eq=False)
class LinearComparisons:
    """Pairs of segments as a linear reward sees them, for several problems of equal size."""

    features: np.ndarray
    """``[problems, pairs, features]`` Φ_a − Φ_b."""
    label: np.ndarray
    """``[problems, pairs]`` P(a ≻ b)."""
    ends: np.ndarray | None = None
    """``[problems, pairs, 4]`` integers, the states where a begins, a ends, b begins and b ends.
    Read by the learner of regret only."""
    weight: np.ndarray | None = None
    """``[problems, pairs]`` how many comparisons each row stands for; one by default, 0 for
    padding."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if not np.isfinite(self.features).all():
            raise ValueError("LinearComparisons: features hold NaN or infinite values.")
        if not ((self.label >= 0) & (self.label <= 1)).all():
            raise ValueError("LinearComparisons: labels must be probabilities, in [0, 1].")
        shape = self.features.shape[:2]
        for name in ("label", "ends", "weight"):
            value = getattr(self, name)
            if value is not None and value.shape[:2] != shape:
                raise ValueError(
                    f"LinearComparisons: {name} has shape {value.shape}; wanted it to begin with "
                    f"{shape}, as features does."
                )
        if self.weight is not None and ((self.weight < 0).any() or (self.weight.sum(1) <= 0).any()):
            raise ValueError(
                "LinearComparisons: weights must not be negative, and every problem needs a row "
                "that counts."
            )

    def merged(self) -> "LinearComparisons":
        """The same comparisons with equal rows as one, which answers with their mean label.

        The loss is the same but for a constant, so that nothing that is learned changes. Rows that
        are another one's mirror image are turned round first.
        """
        weight = np.ones(self.label.shape) if self.weight is None else self.weight
        ends = self.ends if self.ends is not None else np.zeros((*self.label.shape, 0), np.int64)
        rows = np.concatenate([self.features, ends], -1)
        mirrored = np.concatenate([-self.features, np.roll(ends, 2, -1)], -1)
        at = (rows != mirrored).argmax(-1)[..., None]
        turn = np.take_along_axis(rows, at, -1) < np.take_along_axis(mirrored, at, -1)
        rows = np.where(turn, mirrored, rows)
        label = np.where(turn[..., 0], 1.0 - self.label, self.label)
        found = [_summed(*problem) for problem in zip(rows, label, weight, strict=True)]
        most, count = max(len(one.label) for one in found), self.features.shape[-1]
        whole, mean, counted = (
            np.stack([np.resize(part, (most, *part.shape[1:])) for part in parts])
            for parts in zip(*found, strict=True)
        )
        repeated = np.arange(most) >= np.array([len(one.label) for one in found])[:, None]
        states = None if self.ends is None else whole[..., count:].astype(np.int64)
        return LinearComparisons(whole[..., :count], mean, states, np.where(repeated, 0.0, counted))


class _Merged(NamedTuple):
    rows: np.ndarray
    label: np.ndarray
    weight: np.ndarray


def _summed(rows: np.ndarray, label: np.ndarray, weight: np.ndarray) -> _Merged:
    """Distinct rows of one problem, their mean labels, and how much they count."""
    kept = weight > 0
    distinct, number = np.unique(rows[kept], axis=0, return_inverse=True)
    number = number.reshape(-1)
    counted = np.bincount(number, weight[kept], len(distinct))
    mean = np.bincount(number, (weight * label)[kept], len(distinct)) / counted
    return _Merged(distinct, mean, counted)


@dataclass(frozen=True, eq=False)
class ValueLibrary:
    """V_w(s) for any weights, from policies whose successor features are known.

    The library must not hold the policy that is to be found, or the learner is told the answer.
    """

    features: Float[np.ndarray, " boards policies states features"]
    """ψ_i(s): expected discounted feature sums; 0 in states where an episode is over."""
    temperature: float = 1e-3
    """Of the soft maximum over policies, in units of reward; 0 takes the best policy, and is the
    faster: only that one's features are then differentiated."""

    def __post_init__(self) -> None:
        """Refuse values that are not finite."""
        if not np.isfinite(self.features).all():
            raise ValueError("ValueLibrary: features hold NaN or infinite values.")
        if not self.temperature >= 0:
            raise ValueError(
                f"ValueLibrary: temperature is {self.temperature}; give 0 (the maximum) or more."
            )

    def state_values(
        self, weights: Float[np.ndarray, " problems features"]
    ) -> Float[np.ndarray, " problems states"]:
        """V_w(s) of every state; problems that share a board stand behind each other."""
        with torch.no_grad():
            library = torch.as_tensor(self.features)
            found = _values(library, torch.as_tensor(weights), self.temperature)
        values: np.ndarray = found.numpy()
        return values


class LinearFit(NamedTuple):
    """What was learned."""

    weights: Float[np.ndarray, " problems features"]
    loss: Float[np.ndarray, " problems"]
    """Mean cross-entropy of the weights, nats per comparison."""


@dataclass(frozen=True)
class Descent:
    """How weights are found: by Adam on all comparisons at once, from 0."""

    learning_rate: float
    iterations: int
    keep_best: bool
    """Whether the weights of the lowest loss are kept, or those of the last step."""
    settle: bool = False
    """Whether the rate falls to 0 along half a cosine, instead of staying what it is."""


PARTIAL_RETURN = Descent(learning_rate=0.5, iterations=30_000, keep_best=False)
"""As published; the loss is convex, and a tenth of the iterations usually gets there."""
REGRET = Descent(learning_rate=2.0, iterations=5_000, keep_best=True)
"""As published; the loss is not convex, and jumps at this rate."""


def fit_linear_rewards(
    comparisons: LinearComparisons,
    library: ValueLibrary | None = None,
    descent: Descent | None = None,
) -> LinearFit:
    """Weights of linear rewards that explain comparisons, for all problems together.

    Args:
        comparisons: of every problem; the number of problems must be a multiple of the library's
            boards, and problems that share a board stand behind each other.
        library: values of states, for the account of regret; None learns from partial returns.
        descent: :data:`REGRET` or :data:`PARTIAL_RETURN` by default.

    Raises:
        ValueError: regret without the ends of segments, or ends or features that the library does
            not know.
    """
    if library is not None:
        _check_library(comparisons, library)
    chosen = descent or (PARTIAL_RETURN if library is None else REGRET)
    margins_of = _Margins(comparisons, library)
    label = torch.as_tensor(comparisons.label, dtype=torch.float32)
    given = comparisons.weight
    counted = torch.ones_like(label) if given is None else torch.as_tensor(given).float()
    share = counted / counted.sum(1, keepdim=True)
    weights = torch.zeros(len(label), comparisons.features.shape[-1], requires_grad=True)
    best, kept = torch.full((len(label),), torch.inf), weights.detach().clone()
    optimizer = torch.optim.Adam([weights], chosen.learning_rate)
    for step in range(chosen.iterations + 1):
        loss = (share * logistic(margins_of(weights), label)).sum(1)
        with torch.no_grad():
            better = loss < best if chosen.keep_best else torch.ones_like(best, dtype=torch.bool)
            best = torch.where(better, loss, best)
            kept = torch.where(better[:, None], weights, kept)
        if step < chosen.iterations:
            if chosen.settle:
                turn = math.cos(math.pi * step / chosen.iterations)
                optimizer.param_groups[0]["lr"] = chosen.learning_rate * (1.0 + turn) / 2.0
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
    return LinearFit(kept.double().numpy(), best.double().numpy())


def margins(
    weights: Float[np.ndarray, " problems features"],
    comparisons: LinearComparisons,
    library: ValueLibrary | None = None,
) -> Float[np.ndarray, " problems pairs"]:
    """The log-odds of a ≻ b under given weights, by regret if a library is given."""
    if library is not None:
        _check_library(comparisons, library)
    with torch.no_grad():
        found = _Margins(comparisons, library, torch.float64)(torch.as_tensor(weights).double())
    values: np.ndarray = found.numpy()
    return values


class _Margins:
    """Log-odds of all pairs, as a differentiable function of the weights."""

    def __init__(
        self,
        comparisons: LinearComparisons,
        library: ValueLibrary | None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.features = torch.as_tensor(comparisons.features, dtype=dtype)
        self.library = None if library is None else torch.as_tensor(library.features, dtype=dtype)
        self.temperature = 0.0 if library is None else library.temperature
        self.ends = None if comparisons.ends is None else torch.as_tensor(comparisons.ends)

    def __call__(self, weights: Tensor) -> Tensor:
        margin: Tensor = (self.features @ weights[..., None])[..., 0]
        if self.library is None or self.ends is None:
            return margin
        values = _values(self.library, weights, self.temperature)
        met: Tensor = values.gather(1, self.ends.flatten(1)).unflatten(1, (-1, 4))
        return margin + met @ torch.tensor(_SIGNS, dtype=met.dtype)


def _values(library: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """V_w(s), ``[problems, states]``."""
    boards, policies, states, features = library.shape
    grouped = weights.reshape(boards, -1, features)
    flat = library.reshape(boards, policies * states, features)
    if temperature > 0:
        worth = (flat @ grouped.mT).reshape(boards, policies, states, -1)
        values: Tensor = ((worth / temperature).softmax(1) * worth).sum(1)
        return values.mT.reshape(-1, states)
    with torch.no_grad():  # which policy is best is constant but where two of them are
        worth = (flat @ grouped.mT).reshape(boards, policies, states, -1)
        first = states * policies * torch.arange(boards)[:, None, None]
        row = first + states * worth.argmax(1) + torch.arange(states)[:, None]
        chosen = library.reshape(-1, features)[row]
    best: Tensor = (chosen * grouped[:, None]).sum(-1)
    return best.mT.reshape(-1, states)


def _check_library(comparisons: LinearComparisons, library: ValueLibrary) -> None:
    boards, _, states, features = library.features.shape
    if comparisons.ends is None:
        raise ValueError(
            "Learning from regret needs the states where segments begin and end; give "
            "LinearComparisons(ends=...), or no library, to learn from partial returns."
        )
    if comparisons.features.shape[-1] != features or len(comparisons.features) % boards:
        raise ValueError(
            f"The library knows {boards} boards with {features} features, and the comparisons are "
            f"{len(comparisons.features)} problems with {comparisons.features.shape[-1]}; wanted "
            "equally many features, and for each board equally many problems."
        )
    if comparisons.ends.min() < 0 or comparisons.ends.max() >= states:
        raise ValueError(
            f"The ends of segments run from {comparisons.ends.min()} to {comparisons.ends.max()}, "
            f"but the library's states are 0 to {states - 1}."
        )
