"""The published preference models, by name: head × population × loss with their settings.

>>> sorted(MODELS)
['bt', 'gate', 'gpm', 'maxmin', 'micro', 'mixture', 'pal', 'pal-distance', 'ties', 'vpl']
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from prefgym.losses import PairLoss, logistic, ties
from prefgym.models.heads import (
    GeneralPreferenceHead,
    HeadFactory,
    IdealPointHead,
    ScalarHead,
    TasteHead,
)
from prefgym.models.populations import (
    Amortised,
    ContextGate,
    HardClusters,
    Pooled,
    PopulationHead,
    Simplex,
)
from prefgym.names import lookup

BASIS = 16
"""Rewards that VPL's latent weighs."""


@dataclass(frozen=True)
class Asked:
    """What a user may say about a model of preferences."""

    tastes: int = 2
    """K: groups, prototypes or clusters that are told apart."""
    raters: int = 1
    """Whose answers will be fitted; their ids count from 0."""
    tanh: bool = False
    """Hold every reward in (−1, 1)."""


@dataclass(frozen=True)
class Preset:
    """A published model."""

    source: str
    """The paper."""
    head: Callable[[Asked], HeadFactory]
    loss: PairLoss = logistic
    tells_raters_apart: bool = False
    """Whether it needs answers that say who gave them."""
    pointwise: bool = True
    """Whether P(a ≻ b) depends on the difference of what a and b are worth to somebody."""


def model_head(name: str, **asked: Any) -> HeadFactory:
    """The head of a published model, for ``reward_model(..., head=...)``.

    Args:
        name: a key of ``MODELS``.
        **asked: fields of :class:`Asked`.

    Raises:
        ValueError: no model has that name; settings that cannot be.
    """
    return lookup(name, MODELS, "preference model").head(Asked(**asked))


def _scalar(asked: Asked) -> HeadFactory:
    return lambda members, reads, generator: ScalarHead(asked.tanh)


def _general(asked: Asked) -> HeadFactory:
    return lambda members, reads, generator: GeneralPreferenceHead(members, 4)


def _simplex(asked: Asked, distance: bool) -> HeadFactory:
    def made(members: int, reads: int, generator: torch.Generator) -> PopulationHead:
        tastes: TasteHead | IdealPointHead = TasteHead(asked.tastes, asked.tanh)
        if distance:
            tastes = IdealPointHead(members, asked.tastes, generator=generator)
        return PopulationHead(tastes, Simplex(members, asked.tastes, asked.raters))

    return made


def _amortised(asked: Asked) -> HeadFactory:
    def made(members: int, reads: int, generator: torch.Generator) -> PopulationHead:
        population = Amortised(members, BASIS, asked.raters, reads, generator=generator)
        return PopulationHead(TasteHead(BASIS, asked.tanh), population)

    return made


def _clusters(asked: Asked) -> HeadFactory:
    return lambda members, reads, generator: PopulationHead(
        TasteHead(asked.tastes, asked.tanh), HardClusters(members, asked.tastes, asked.raters)
    )


def _pooled(asked: Asked) -> HeadFactory:
    return lambda members, reads, generator: PopulationHead(
        TasteHead(asked.tastes, asked.tanh), Pooled(members, asked.tastes)
    )


def _gate(asked: Asked, mixture: bool, entropy: float) -> HeadFactory:
    def made(members: int, reads: int, generator: torch.Generator) -> PopulationHead:
        gate = ContextGate(members, asked.tastes, reads, mixture, entropy, generator=generator)
        return PopulationHead(TasteHead(asked.tastes, asked.tanh), gate)

    return made


MODELS: Final[dict[str, Preset]] = {
    "bt": Preset("Bradley and Terry (1952)", _scalar),
    "ties": Preset("Rao and Kupper (1967)", _scalar, partial(ties, threshold=5.0)),
    "gpm": Preset("Zhang et al. (2025), arXiv:2410.02197", _general, pointwise=False),
    "pal": Preset(
        "Chen et al. (2025), arXiv:2406.08469 (PAL-B)",
        partial(_simplex, distance=False),
        tells_raters_apart=True,
    ),
    "pal-distance": Preset(
        "Chen et al. (2025), arXiv:2406.08469 (PAL-A)",
        partial(_simplex, distance=True),
        tells_raters_apart=True,
    ),
    "vpl": Preset("Poddar et al. (2024), arXiv:2408.10075", _amortised, tells_raters_apart=True),
    "maxmin": Preset(
        "Chakraborty et al. (2024), arXiv:2402.08925", _clusters, tells_raters_apart=True
    ),
    "mixture": Preset("Shen et al. (2025), arXiv:2505.24846, without its router", _pooled),
    "micro": Preset(
        "Shen et al. (2025), arXiv:2505.24846", partial(_gate, mixture=True, entropy=0.5)
    ),
    "gate": Preset(
        "Wang et al. (2024), arXiv:2406.12845", partial(_gate, mixture=False, entropy=0.0)
    ),
}
"""Name -> what it consists of."""
