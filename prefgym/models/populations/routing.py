"""Fit a router alone to a few answers whose context is known, everything else as it is."""

import torch
from torch import Tensor

from prefgym.comparisons import Comparisons
from prefgym.models.ensembles import Ensemble
from prefgym.models.features import as_tensor
from prefgym.models.fit import Pairs
from prefgym.models.populations.context import ContextGate, hedge_targets
from prefgym.models.populations.population import PopulationHead


def fit_router(
    model: Ensemble,
    comparisons: Comparisons,
    steps: int = 200,
    learning_rate: float = 1e-2,
    weight_decay: float = 0.1,
    temperature: float = 1.0,
) -> dict[str, float]:
    """Descend the cross-entropy of the router to its Hedge targets, renewed before every step.

        mean −Σ_k ω_k log w_k(c),      ω_k ∝ w_k(c) · exp(−L_k / τ)

    over all pairs together. With a router that begins uniform (``ContextGate(uniform=True)``) and
    tastes that were fitted without contexts, some fifty answers tell which context wants what.

    Source: Shen et al. (2025), arXiv:2505.24846 (MiCRo), second stage.

    Args:
        model: one whose population is a :class:`ContextGate`; only its gate is fitted, in place.
        comparisons: answers; both sides of a pair begin with its context.
        steps: gradient steps.
        learning_rate: of AdamW.
        weight_decay: of AdamW; few answers overfit a gate.
        temperature: τ > 0; see :func:`hedge_targets`.

    Returns:
        ``loss``, nats, and ``entropy`` of the router over the pairs, nats, both before the last
        step and summed over members.

    Raises:
        ValueError: the model has no router, there are no answers, or a setting is out of range.
    """
    if not (
        isinstance(model.head, PopulationHead) and isinstance(model.head.population, ContextGate)
    ):
        raise ValueError(
            "fit_router: this model has no router; make it with a ContextGate as its population"
            " (micro, gate)."
        )
    if not len(comparisons) or steps < 1:
        raise ValueError(
            f"fit_router: {len(comparisons)} comparisons and {steps} steps came; give at least one"
            " of both."
        )
    gate = model.head.population
    differences, context = _read(model, comparisons)
    label = as_tensor(comparisons.label).to(differences).expand(differences.shape[:-1])
    weight = as_tensor(comparisons.weight / comparisons.weight.mean()).to(differences)
    optimizer = torch.optim.AdamW(gate.parameters(), lr=learning_rate, weight_decay=weight_decay)
    for _ in range(steps):
        log_weights = gate.log_weights(context)
        target = hedge_targets(log_weights.detach(), differences, label, temperature)
        loss = -((target * log_weights).sum(-1) * weight).mean(-1).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        entropy = -(log_weights.exp() * log_weights).sum(-1).mean(-1).sum()
    return {"loss": loss.item(), "entropy": entropy.item()}


@torch.no_grad()
def _read(model: Ensemble, comparisons: Comparisons) -> tuple[Tensor, Tensor]:
    """What every taste says of the pairs, and how these begin; ``[members, pairs, ...]`` both."""
    steps = max(comparisons.a.steps, comparisons.b.steps)
    sides = [side.padded(steps) for side in (comparisons.a, comparisons.b)]
    features = torch.stack([model.features(side) for side in sides], 1)
    mask = torch.stack([as_tensor(side.mask) for side in sides], 1).to(features.device)
    who = torch.zeros(len(comparisons), dtype=torch.int64, device=features.device)
    shown = (one.expand(model.members, *one.shape) for one in (features, mask, who))
    pairs = Pairs(*shown)
    begun = model.beginnings(pairs.features.flatten(1, 2), pairs.mask.flatten(1, 2))
    return model.differences(pairs), begun.unflatten(1, (-1, 2)).mean(2)
