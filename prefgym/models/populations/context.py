"""A population whose tastes depend on the context, whoever is asked."""

import torch
from jaxtyping import Float
from torch import Tensor

from prefgym.models.encoders import MLPEncoder
from prefgym.models.heads import Heard
from prefgym.models.populations.population import Evidence, Population


class ContextGate(Population):
    """What counts depends on the context: w = softmax of a network that reads how segments begin.

    Weighted and with tastes that were fitted to ratings it is the gate of Wang et al. (2024),
    arXiv:2406.12845 (ArmoRM), without its scale. As a mixture it is the router of Shen et al.
    (2025), arXiv:2505.24846 (MiCRo), whose entropy keeps all heads alive.

    Args:
        members: networks in the ensemble.
        tastes: K.
        reads: numbers of a context.
        mixture: whether one taste speaks at a time.
        entropy: α, weight of the router's entropy, in nats.
        hidden: layers of the gate.
        columns: which numbers of a context are read; None reads all.
        generator: draws the initial weights.
    """

    published = "micro"
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
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__(members, tastes, 1)
        self.mixture = mixture
        self.entropy = entropy
        self.columns = columns
        read = reads if columns is None else len(columns)
        self.gate = MLPEncoder(read, tastes, members, hidden, "leaky_relu", generator)

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
