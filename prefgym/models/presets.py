"""The published preference models, by name: head × population × loss with their settings.

>>> print(*sorted(MODELS))
bt gate gpm gpm-normalised maxmin micro mixture pal pal-distance ties vpl
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
    at_least_one,
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

    def __post_init__(self) -> None:
        """Refuse numbers that can never be."""
        for name in ("tastes", "raters"):
            at_least_one("model_head", name, getattr(self, name))


@dataclass(frozen=True)
class Preset:
    """A published model."""

    source: str
    """The paper."""
    head: Callable[[Asked], HeadFactory]
    loss: PairLoss = logistic
    tells_raters_apart: bool = False
    """Whether it needs answers that say who gave them."""
    has_tastes: bool = False
    """Whether it tells K tastes apart that a user may choose."""
    has_router: bool = False
    """Whether Hedge can adapt it to contexts (:mod:`prefgym.models.populations.hedge`)."""


def model_head(name: str, **asked: Any) -> HeadFactory:
    """The head of a published model, for ``reward_model(..., head=...)``.

    Args:
        name: a key of ``MODELS``.
        **asked: fields of :class:`Asked`.

    Raises:
        ValueError: no model has that name; settings that cannot be, or that it would ignore.
    """
    published, wanted = lookup(name, MODELS, "preference model"), Asked(**asked)
    if not published.has_tastes and wanted.tastes != Asked.tastes:
        raise ValueError(ignored_tastes(name, wanted.tastes))
    return published.head(wanted)


def ignored_tastes(name: str, tastes: int) -> str:
    """What is said where a model without tastes is asked for so many."""
    known = ", ".join(one for one, preset in MODELS.items() if preset.has_tastes)
    return (
        f"model={name!r} has no tastes to choose, and tastes={tastes} would be ignored; leave it"
        f" out, or choose one of {known}."
    )


def _scalar(asked: Asked) -> HeadFactory:
    return lambda members, reads, generator: ScalarHead(asked.tanh)


def _general(asked: Asked, normalise: bool = False, temperature: float = 1.0) -> HeadFactory:
    return lambda members, reads, generator: GeneralPreferenceHead(
        members, 4, normalise, temperature
    )


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
    "gpm": Preset("Zhang et al. (2025), arXiv:2410.02197", _general),
    "gpm-normalised": Preset(
        "Zhang et al. (2025), arXiv:2410.02197, with v of length 1 and τ = .1",
        partial(_general, normalise=True, temperature=0.1),
    ),
    "pal": Preset(
        "Chen et al. (2025), arXiv:2406.08469 (PAL-B)",
        partial(_simplex, distance=False),
        tells_raters_apart=True,
        has_tastes=True,
    ),
    "pal-distance": Preset(
        "Chen et al. (2025), arXiv:2406.08469 (PAL-A)",
        partial(_simplex, distance=True),
        tells_raters_apart=True,
        has_tastes=True,
    ),
    "vpl": Preset("Poddar et al. (2024), arXiv:2408.10075", _amortised, tells_raters_apart=True),
    "maxmin": Preset(
        "Chakraborty et al. (2024), arXiv:2402.08925",
        _clusters,
        tells_raters_apart=True,
        has_tastes=True,
    ),
    "mixture": Preset(
        "Shen et al. (2025), arXiv:2505.24846, without its router", _pooled, has_tastes=True
    ),
    "micro": Preset(
        "Shen et al. (2025), arXiv:2505.24846",
        partial(_gate, mixture=True, entropy=0.5),
        has_tastes=True,
        has_router=True,
    ),
    "gate": Preset(
        "Wang et al. (2024), arXiv:2406.12845",
        partial(_gate, mixture=False, entropy=0.0),
        has_tastes=True,
    ),
}
"""Name -> what it consists of."""
