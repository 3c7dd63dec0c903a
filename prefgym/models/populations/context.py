"""A population whose tastes depend on the context, whoever is asked."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from prefgym.models.encoders import MLPEncoder
from prefgym.models.heads import Heard
from prefgym.models.populations.population import Evidence, Population


class ContextGate(Population):
    """What counts depends on the context: w = softmax of a network that reads how segments begin.

    Weighted and with tastes that were fitted to ratings it is the gate of Wang et al. (2024),
    arXiv:2406.12845 (ArmoRM), without its scale. As a mixture it is the router of Shen et al.
    (2025), arXiv:2505.24846 (MiCRo), whose entropy keeps all heads alive; its second stage, the fit
    of the router alone to few answers, is ``routing.fit_router``.

    Args:
        members: networks in the ensemble.
        tastes: K.
        reads: numbers of a context.
        mixture: whether one taste speaks at a time.
        entropy: α, weight of the router's entropy, in nats.
        hidden: layers of the gate.
        columns: which numbers of a context are read; None reads all.
        uniform: begin with equal weights in every context.
        generator: draws the initial weights.
    """

    reads_context = True

    def __init__(
        self,
        members: int,
        tastes: int,
        reads: int,
        mixture: bool = False,
        entropy: float = 0.0,
        hidden: tuple[int, ...] = (64,),
        columns: tuple[int, ...] | None = None,
        uniform: bool = False,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__(members, tastes, 1)
        self.mixture = mixture
        self.entropy = entropy
        self.columns = columns
        read = reads if columns is None else len(columns)
        self.gate = MLPEncoder(read, tastes, members, hidden, "leaky_relu", generator)
        if uniform:
            nn.init.zeros_(self.gate.weights[-1])
            nn.init.zeros_(self.gate.biases[-1])

    def log_weights(
        self, context: Float[Tensor, " members pairs numbers"]
    ) -> Float[Tensor, " members pairs tastes"]:
        """The logarithms of the weights, with gradient."""
        if self.columns is not None:
            context = context[..., list(self.columns)]
        found: Tensor = self.gate(context.contiguous()).log_softmax(-1)
        return found

    def weights(self, heard: Heard) -> Float[Tensor, " members pairs tastes"]:
        """The gate's answer to every pair's context."""
        if heard.context is None:
            raise ValueError("ContextGate: nobody said how the segments begin; give a context.")
        log_weights = self.log_weights(heard.context)
        weights = log_weights.exp()
        self.penalty = self.entropy * (weights * log_weights).sum(-1).mean(-1).sum()
        return weights

    def group_weights(
        self, context: Tensor | None
    ) -> Float[Tensor, " groups members batch tastes"]:
        """The gate's answer to every segment's own context."""
        assert context is not None
        return self.log_weights(context).exp()[None]

    def begin(self, evidence: Evidence, seed: int) -> None:
        """Nobody is told apart."""


def hedge_targets(
    log_weights: Float[Tensor, " *batch tastes"],
    differences: Float[Tensor, " *batch tastes"],
    label: Float[Tensor, " *#batch"],
    temperature: float = 1.0,
) -> Float[Tensor, " *batch tastes"]:
    """What a router should have said, seen what was preferred: ω_k ∝ w_k · exp(−L_k / τ).

    L_k = −p log σ(Δ_k) − (1 − p) log σ(−Δ_k) is what taste k pays for the answer, so that the step
    from w to ω is that of Hedge, with the tastes as experts and 1/τ as its rate. At τ = 1 and
    decided labels ω_k is the probability that taste k was the one who spoke, and the gradient of
    the cross-entropy of a router to ω is that of the mixture's own −log Σ_k w_k σ(Δ_k).

    Source: Shen et al. (2025), arXiv:2505.24846 (MiCRo), second stage; Freund and Schapire (1997).

    Args:
        log_weights: log w, what the router says without the answer.
        differences: Δ, by how much each taste prefers the first segment, in nats of log-odds.
        label: p = P(a ≻ b) as answered.
        temperature: τ > 0, in nats; the larger, the less an answer counts.

    Raises:
        ValueError: ``temperature`` is not above 0.
    """
    if not temperature > 0.0:
        raise ValueError(f"hedge_targets: temperature is {temperature}, wanted a number above 0.")
    said = label[..., None].expand_as(differences)
    paid = functional.binary_cross_entropy_with_logits(differences, said, reduction="none")
    return (log_weights - paid / temperature).softmax(-1)
