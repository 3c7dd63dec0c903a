"""A router that is adapted to a few comparisons whose context is known; the heads stay as they are.

Source: Shen et al. (2025), arXiv:2505.24846 (MiCRo), stage 2: each comparison says which head it
was probably made by, and the router learns to foretell that from the context.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from prefgym.comparisons import Comparisons
from prefgym.models.ensembles import Ensemble
from prefgym.models.features import as_tensor
from prefgym.models.populations.context import ContextGate
from prefgym.models.populations.population import PopulationHead
from prefgym.models.reward_models import PointwiseModel


def hedge_targets(
    log_weights: Float[Tensor, " members pairs tastes"],
    differences: Float[Tensor, " members pairs tastes"],
    label: Float[Tensor, " pairs"],
    temperature: float = 1.0,
) -> Float[Tensor, " members pairs tastes"]:
    """ω_k ∝ f_k exp(−L_k / τ) with L_k = −log P_k(label): Hedge's next weights of the heads.

    Args:
        log_weights: log f, what the router says now.
        differences: by how much each head prefers the first side, in nats.
        label: P(a ≻ b).
        temperature: τ > 0; 1 is Bayes' rule.

    Raises:
        ValueError: ``temperature`` is not above 0.
    """
    if not temperature > 0.0:
        raise ValueError(f"hedge_targets: temperature is {temperature}, wanted a number above 0.")
    said = label[:, None]
    loss = -said * functional.logsigmoid(differences) - (1.0 - said) * functional.logsigmoid(
        -differences
    )
    return (log_weights - loss / temperature).softmax(-1)


def adapt_router(
    model: Ensemble | PointwiseModel,
    comparisons: Comparisons,
    steps: int = 200,
    learning_rate: float = 1e-2,
    weight_decay: float = 0.1,
    temperature: float = 1.0,
) -> list[float]:
    """Fit the gate alone to these comparisons, cross-entropy to :func:`hedge_targets`.

        mean over comparisons of −Σ_k ω_k log f_k(context),    ω from f as it is before each step

    At τ = 1 and decided labels its gradient is that of the mixture's own −log Σ_k f_k P_k(label).
    All comparisons stand in every step, each counted by its weight: a budget is tens of them.

    Args:
        model: with a :class:`ContextGate`; its gate changes, nothing else.
        comparisons: whose segments show their context.
        steps: of AdamW.
        learning_rate: of AdamW.
        weight_decay: of AdamW; few comparisons are soon known by heart.
        temperature: τ of the targets.

    Returns:
        The cross-entropy before each step, mean over members and comparisons, nats.

    Raises:
        ValueError: the model has no router, or there is nothing to adapt it to.
    """
    gate = _router(model, comparisons)
    assert isinstance(model, Ensemble)
    differences = model.told_apart(comparisons.a, comparisons.b)
    context = model.begun(comparisons.a, comparisons.b)
    label = as_tensor(comparisons.label).to(differences)
    weight = as_tensor(comparisons.weight / comparisons.weight.mean()).to(differences)
    optimizer = torch.optim.AdamW(
        gate.gate.parameters(), lr=learning_rate, weight_decay=weight_decay
    )
    told = []
    for _ in range(steps):
        log_weights = gate.log_weights(context)
        targets = hedge_targets(log_weights.detach(), differences, label, temperature)
        entropy = -((targets * log_weights).sum(-1) * weight).mean(-1)
        optimizer.zero_grad(set_to_none=True)
        entropy.sum().backward()
        optimizer.step()
        told.append(float(entropy.detach().mean()))
    return told


def _router(model: Ensemble | PointwiseModel, comparisons: Comparisons) -> ContextGate:
    """The model's gate, if there is one and something to adapt it to."""
    head = model.head if isinstance(model, Ensemble) else None
    gate = head.population if isinstance(head, PopulationHead) else None
    if not isinstance(gate, ContextGate):
        raise ValueError(
            "adapt_router: the model has no router that reads a context; make it with"
            " model_head('micro')."
        )
    if not comparisons.weight.sum() > 0.0:
        raise ValueError(
            f"adapt_router: the {len(comparisons)} comparisons have no weight in all; give at least"
            " one with a weight above 0."
        )
    return gate
