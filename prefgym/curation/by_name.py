"""Curation by name, for learners: what is done about labels of which a share is thought wrong."""

from collections.abc import Callable
from typing import Any, Final, Protocol, runtime_checkable

import torch
from torch import Tensor

from prefgym.comparisons import Comparisons
from prefgym.curation.outcomes import always, untouched
from prefgym.curation.peers import PeerSelection
from prefgym.curation.votes import Vote, drop_lowest, flip_lowest, soften, vote, with_margin
from prefgym.models.fit import Curated, Curator
from prefgym.names import lookup


@runtime_checkable
class Votes(Protocol):
    """An ensemble, as :class:`prefgym.models.reward_models.RewardModel` is one."""

    def logits(self, a: Any, b: Any) -> Tensor:
        """Each member's log-odds that ``a`` is preferred, ``[members, batch]``."""
        ...


TREATMENTS: Final[dict[str, Callable[[Curated, Vote, float], Curated]]] = {
    "flip": flip_lowest,
    "drop": drop_lowest,
    "soften": lambda curated, found, share: soften(curated, found, flips=share),
    "margin": lambda curated, found, share: with_margin(curated, found),
}
"""Name -> f(labels, the ensemble's vote, share thought wrong): what Secrets of RLHF II does."""
CURATIONS: Final = ("none", "peers", "own", *TREATMENTS)
"""All names: nothing, the choice of peers (CRM) or of each member itself, a vote's treatments."""


def curator(
    name: str,
    wrong: float,
    epochs: int,
    comparisons: Comparisons,
    voters: Votes | None,
) -> Curator | None:
    """What looks over the labels in a fit; None where nobody does.

    Args:
        name: one of ``CURATIONS``.
        wrong: share of the labels that is thought wrong.
        epochs: of the fit.
        comparisons: that will be fitted.
        voters: an ensemble that was fitted to some of them, not for long; None has no vote yet.

    Raises:
        ValueError: no curation has that name.
    """
    lookup(name, dict.fromkeys(CURATIONS), "curation")
    if name == "none":
        return None
    if name in ("peers", "own"):
        return PeerSelection(wrong, epochs, own=name == "own")
    if voters is None:
        return None
    label = torch.as_tensor(comparisons.label, dtype=torch.float32)
    found = vote(voters.logits(comparisons.a, comparisons.b).cpu(), label)
    return always(TREATMENTS[name](untouched(comparisons), found, wrong))
