"""Fit a preference model to comparisons: one loop for every model and every loss.

Metrics: ``loss`` (mean over pairs and members, in the loss's unit), ``accuracy`` (share of decided
pairs whose preferred side got the positive margin, mean over members, measured on each minibatch
before its step), ``epochs``, ``gradient_steps``, ``pairs``; with a validation share ``val_loss``,
``val_accuracy`` and ``val_pairs``.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from prefgym.comparisons import Comparisons
from prefgym.losses import PairLoss, logistic
from prefgym.models.encoders import rows_at_once
from prefgym.models.features import as_tensor
from prefgym.segments import Segments


class Pairs(NamedTuple):
    """A minibatch of pairs for every member; side 0 is ``a``, side 1 is ``b``."""

    features: Shaped[Tensor, " members pairs 2 *features"]
    """What the model reads of a segment, in the shape that it has chosen."""
    mask: Bool[Tensor, " members pairs 2 steps"]
    rater_id: Int[Tensor, " members pairs"]


@runtime_checkable
class PreferenceModel(Protocol):
    """What can be fitted, pointwise or pairwise: an ensemble of independent members."""

    @property
    def members(self) -> int:
        """Networks in the ensemble."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        ...

    @property
    def kept_per_step(self) -> int:
        """Numbers that each member keeps of a step for its gradient."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is fitted."""
        ...

    def features(self, segments: Segments) -> Shaped[Tensor, " batch *features"]:
        """What the model reads of each segment, on its device: rows of steps, tokens, ..."""
        ...

    def margins(self, pairs: Pairs) -> Float[Tensor, " members pairs"]:
        """How much better each member finds side 0 of its own pairs, with gradient."""
        ...


@runtime_checkable
class Attentive(Protocol):
    """A model that wants to know who said what, beside giving margins."""

    reassesses: bool
    """Whether :meth:`reassess` wants to be called."""

    def begin(self, pairs: Pairs, label: Tensor, rng: np.random.Generator) -> None:
        """A fit to these pairs begins; ``pairs`` are those of one member, ``[1, P]``."""
        ...

    def differences(self, pairs: Pairs) -> Float[Tensor, " members pairs tastes"]:
        """By how much each taste prefers side 0, without gradient."""
        ...

    def reassess(
        self,
        differences: Float[Tensor, " members pairs tastes"],
        label: Float[Tensor, " pairs"],
        rater_id: Int[Tensor, " pairs"],
    ) -> None:
        """Before each pass, given :meth:`differences` of all pairs."""
        ...

    def penalty(self) -> Tensor | float:
        """What to add to the mean loss of the last margins, summed over members."""
        ...


class Curated(NamedTuple):
    """What a curator makes of the labels for one pass; each broadcasts to ``[members, pairs]``."""

    label: Tensor
    weight: Tensor | float = 1.0
    """Multiplies the comparison's own; 0 leaves it out."""
    offset: Tensor | float = 0.0
    """By how much ``a`` has to be better before the margin counts as one."""


Curator = Callable[[int, Tensor, Tensor, torch.Generator], Curated]
"""``curate(epoch, margins [members, pairs], label [pairs], generator)``, before each pass."""


def adam(
    model: PreferenceModel, learning_rate: float = 3e-4, weight_decay: float = 0.0
) -> torch.optim.AdamW:
    """The optimizer that reward models are usually fitted with, in its fused form."""
    return torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True
    )


def fit(
    model: PreferenceModel,
    comparisons: Comparisons,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    epochs: int = 50,
    batch_pairs: int = 128,
    loss: PairLoss = logistic,
    stop_accuracy: float = 0.97,
    validation_share: float = 0.0,
    bootstrap: bool = False,
    curate: Curator | None = None,
) -> dict[str, float]:
    """Descend the mean loss of the comparisons, each weighted by its ``weight``.

    Every member walks through the pairs in an order of its own. On a CPU the result depends on the
    arguments' state only: saved and restored between calls they continue to the same bits.

    Args:
        model: fitted in place.
        comparisons: labels are P(a ≻ b); only ratios of weights matter.
        optimizer: of the model's parameters, for example :func:`adam`.
        rng: draws the orders.
        epochs: passes over the pairs, at most.
        batch_pairs: pairs of each member in a gradient step.
        loss: of margin and label, from ``prefgym.losses``.
        stop_accuracy: an epoch above this accuracy is the last; 1 never stops early.
        validation_share: share of the pairs to hold out, in [0, 1). Chosen by position, so that a
            pair once held out stays so while a data set grows.
        bootstrap: each member sees as many pairs, drawn anew with replacement, as there are.
        curate: looks over the labels before each pass (``prefgym.curation``).

    Returns:
        The metrics of the last epoch, as listed at the top of the file.

    Raises:
        ValueError: no comparisons, no weight, or a setting out of range.
        RuntimeError: the loss is no longer finite; the step that it belongs to was not taken.
    """
    _check(comparisons, epochs, batch_pairs, validation_share)
    held = _held_out(len(comparisons), validation_share)
    table = _Table.of(model, comparisons.take(~held))
    once = np.tile(np.arange(len(table.label)), (model.members, 1))
    bags = rng.integers(once.shape[1], size=once.shape) if bootstrap else once
    steps = _Steps(optimizer, loss, batch_pairs, curate)
    metrics = _epochs(model, table, bags, rng, steps, epochs, stop_accuracy)
    if held.any():
        metrics |= _validation(model, _Table.of(model, comparisons.take(held)), loss)
    return metrics


class _Steps(NamedTuple):
    """How a fit descends."""

    optimizer: torch.optim.Optimizer
    loss: PairLoss
    batch_pairs: int
    curate: Curator | None


def _epochs(
    model: PreferenceModel,
    table: "_Table",
    bags: np.ndarray,
    rng: np.random.Generator,
    steps: _Steps,
    most: int,
    stop_accuracy: float,
) -> dict[str, float]:
    """Passes over the pairs, each in a new order of ``bags [members, pairs]``; the last metrics."""
    if isinstance(model, Attentive):
        model.begin(table.pairs(_everything(table, 1)), table.label, rng)
    epoch, metrics = 0, {"accuracy": 0.0}
    while epoch < most and metrics["accuracy"] <= stop_accuracy:
        epoch += 1
        order = torch.as_tensor(rng.permuted(bags, axis=1), device=model.device)
        if isinstance(model, Attentive) and model.reassesses:
            differences = _in_blocks(model, table, model.differences)
            model.reassess(differences, table.label, table.rater_id)
        curated = _curated(model, table, rng, steps.curate, epoch - 1)
        metrics = _epoch(model, table, order, steps, curated)
    pairs = len(table.label)
    count = epoch * math.ceil(pairs / steps.batch_pairs)
    return metrics | {
        "epochs": float(epoch),
        "gradient_steps": float(count),
        "pairs": float(pairs),
    }


def _curated(
    model: PreferenceModel,
    table: "_Table",
    rng: np.random.Generator,
    curate: Curator | None,
    epoch: int,
) -> Curated:
    """The labels for one pass, as given or as a curator makes them."""
    if curate is None:
        return Curated(table.label)
    draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
    with torch.no_grad():
        margins = _in_blocks(model, table, model.margins)
    return curate(epoch, margins, table.label, draws)


class _Table(NamedTuple):
    """The pairs of a data set as tensors, made once for all epochs."""

    features: Tensor  # [pairs, what is read of both sides]
    mask: Tensor  # [pairs, 2 * steps]
    label: Tensor  # [pairs]
    weight: Tensor  # [pairs], mean 1
    rater_id: Tensor  # [pairs]
    steps: int
    shape: torch.Size  # of what is read of one side

    @classmethod
    def of(cls, model: PreferenceModel, comparisons: Comparisons) -> "_Table":
        steps = max(comparisons.a.steps, comparisons.b.steps)
        sides = [side.padded(steps) for side in (comparisons.a, comparisons.b)]
        features = torch.stack([model.features(side) for side in sides], 1)
        mask = torch.stack([as_tensor(side.mask) for side in sides], 1)
        relative = comparisons.weight / max(comparisons.weight.mean(), np.finfo(np.float64).tiny)
        kind = features.dtype if features.is_floating_point() else torch.float32
        label, weight = (
            as_tensor(one).to(features.device, kind) for one in (comparisons.label, relative)
        )
        rater_id = as_tensor(comparisons.rater_id).to(features.device)
        mask = mask.to(features.device).flatten(1)
        shape = features.shape[2:]
        return cls(features.flatten(1), mask, label, weight, rater_id, steps, shape)

    def pairs(self, index: Tensor) -> Pairs:
        """The pairs at ``index [members, pairs]``."""
        flat, sides = index.flatten(), (*index.shape, 2)
        return Pairs(
            self.features.index_select(0, flat).view(*sides, *self.shape),
            self.mask.index_select(0, flat).view(*sides, self.steps),
            self.rater_id[index],
        )


def _epoch(
    model: PreferenceModel, table: _Table, order: Tensor, steps: _Steps, curated: Curated
) -> dict[str, float]:
    """One pass over the pairs; ``order [members, pairs]``."""
    label, weight = _ordered(curated.label, order), table.weight[order]
    weight, offset = weight * _ordered(curated.weight, order), _ordered(curated.offset, order)
    penalty = model.penalty if isinstance(model, Attentive) else float
    margins, total = torch.empty_like(label), 0.0
    for batch in torch.arange(order.shape[1]).split(steps.batch_pairs):
        first, last = int(batch[0]), int(batch[-1]) + 1
        steps.optimizer.zero_grad(set_to_none=True)
        for part in _blocks(model, table, first, last):
            margin = model.margins(table.pairs(order[:, part]))
            each = steps.loss(margin - offset[:, part], label[:, part]) * weight[:, part]
            share = (part.stop - part.start) / (last - first)
            objective = each.sum() / (last - first) + share * penalty()
            value = objective.item()
            if not math.isfinite(value):
                raise RuntimeError(_diverged(value, margin))
            objective.backward()
            total += value * (last - first)
            margins[:, part] = margin.detach()
        steps.optimizer.step()
    return {"loss": total / order.numel(), "accuracy": _accuracy(margins, label, weight)}


def _ordered(values: Tensor | float, order: Tensor) -> Tensor:
    """Each member's values in its own order."""
    table = torch.as_tensor(values, device=order.device)
    if table.ndim == 0:
        return table.expand(order.shape)
    return table.expand(len(order), -1).gather(1, order)


def _everything(table: _Table, members: int) -> Tensor:
    """Every pair once, for each member: ``[members, pairs]``."""
    return torch.arange(len(table.label), device=table.label.device).expand(members, -1)


def _in_blocks(model: PreferenceModel, table: _Table, compute: Callable[[Pairs], Tensor]) -> Tensor:
    """``compute`` of all pairs, ``[members, pairs, ...]``, in parts of bounded memory."""
    order = _everything(table, model.members)
    blocks = _blocks(model, table, 0, len(table.label))
    return torch.cat([compute(table.pairs(order[:, part])) for part in blocks], 1)


def _blocks(model: PreferenceModel, table: _Table, first: int, last: int) -> list[slice]:
    """The pairs from ``first`` to ``last``, in parts of bounded memory with added gradients."""
    kept = model.members * 2 * table.steps * model.kept_per_step
    most = rows_at_once(kept, model.device)
    parts = math.ceil((last - first) / most)
    edges = [first + (last - first) * part // parts for part in range(parts + 1)]
    return [slice(low, high) for low, high in pairwise(edges)]


@torch.no_grad()
def _validation(model: PreferenceModel, table: _Table, loss: PairLoss) -> dict[str, float]:
    margin = _in_blocks(model, table, model.margins)
    label, weight = table.label.expand_as(margin), table.weight.expand_as(margin)
    return {
        "val_loss": float((loss(margin, label) * weight).mean()),
        "val_accuracy": _accuracy(margin, label, weight),
        "val_pairs": float(len(table.label)),
    }


def _accuracy(margin: Tensor, label: Tensor, weight: Tensor) -> float:
    """Weighted share of decided pairs on the right side; margin 0 counts ½, and so do only ties."""
    lean = (label - 0.5).sign()
    counted = weight * lean.abs()
    agreement = (margin.sign() * lean * counted).sum() / counted.sum().clamp(min=1e-12)
    return 0.5 + 0.5 * float(agreement)


def _held_out(pairs: int, share: float) -> np.ndarray:
    """Which pairs are kept for validation: even spread, by the golden ratio's fractional parts."""
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    held: np.ndarray = np.mod((np.arange(pairs) + 1) * golden, 1.0) < share
    return held


def _check(comparisons: Comparisons, epochs: int, batch_pairs: int, share: float) -> None:
    if epochs < 1 or batch_pairs < 1:
        raise ValueError(
            f"fit: epochs is {epochs} and batch_pairs {batch_pairs}; wanted 1 or more of both."
        )
    if not 0.0 <= share < 1.0:
        raise ValueError(f"fit: validation_share is {share}, wanted a number in [0, 1).")
    if not len(comparisons):
        raise ValueError("fit: got no comparisons; ask a rater first, or check what was skipped.")
    weight = comparisons.weight[~_held_out(len(comparisons), share)]
    if not weight.sum() > 0.0:
        raise ValueError(
            f"fit: the {len(weight)} comparisons to fit have no weight in all; give at least one a "
            "weight above 0, or hold out fewer."
        )


def _diverged(value: float, margin: Tensor) -> str:
    largest = float(margin.detach().abs().max())
    return (
        f"fit: the loss became {value} (largest margin {largest:.3g}); lower the learning rate, "
        "normalise the features (model.normalise), or bound the rewards (tanh=True)."
    )
