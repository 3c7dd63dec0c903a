"""Members of an ensemble that choose for one another the pairs to learn from.

Source: Zhang et al. (2025), "Two minds better than one: collaborative reward modeling for LLM
alignment", arXiv:2505.10597: two models, each of which learns from the pairs on which its peer is
least surprised. Departures, because the paper's code is not published and its order of batches from
easy to hard does harm (late batches hold mostly wrong labels, and the best of them are still
learned from): pairs are chosen from the whole pool and not within a batch, and nothing is left out
before a warm-up is over.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prefgym.curation.votes import directed, lowest
from prefgym.models.fit import Curated


@dataclass(frozen=True)
class PeerSelection:
    """A curator: each member learns from the 1 − ``noise`` of pairs that its peer believes most.

    What a member believes is the directed margin: how much better it finds the preferred side.
    Ties are always learned from. Kept pairs are soon predicted well, which
    ``fit(..., stop_accuracy=1)`` must not take for the end.

    >>> two_peers = PeerSelection(noise=0.4, epochs=30)
    """

    noise: float
    """Share of the labels that are thought to be wrong, and left out."""
    epochs: int
    """Of the fit that it is for."""
    warm_up: float = 0.3
    """Share of the epochs in which all pairs are kept."""
    own: bool = False
    """Let each member choose for itself; otherwise its peer does: the next member, and of the last
    one the first."""

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        if not 0.0 <= self.noise < 1.0:
            raise ValueError(
                f"PeerSelection: noise is {self.noise}; give the share of the labels that may be "
                "wrong, in [0, 1)."
            )
        if not 0.0 <= self.warm_up <= 1.0 or self.epochs < 1:
            raise ValueError(
                f"PeerSelection: epochs is {self.epochs} and warm_up {self.warm_up}; give the "
                "epochs of the fit, at least 1, and the share of them that warms up, in [0, 1]."
            )

    def __call__(
        self,
        epoch: int,
        margins: Float[Tensor, " members pairs"],
        label: Float[Tensor, " pairs"],
        generator: torch.Generator,
    ) -> Curated:
        """The pairs of every member for one pass."""
        if epoch < math.ceil(self.warm_up * self.epochs):
            return Curated(label)
        return Curated(label, (~self.dropped(margins, label)).to(margins))

    def dropped(
        self, margins: Float[Tensor, " members pairs"], label: Float[Tensor, " pairs"]
    ) -> Bool[Tensor, " members pairs"]:
        """Which pairs each member is not shown.

        Raises:
            ValueError: a single member has no peer.
        """
        doubted = lowest(directed(margins, label), self.noise, label != 0.5)
        if self.own:
            return doubted
        if len(margins) < 2:
            raise ValueError(
                "PeerSelection: the model has one member, and nobody to choose for it; give it "
                "two members, or take own=True."
            )
        return doubted.roll(-1, 0)
