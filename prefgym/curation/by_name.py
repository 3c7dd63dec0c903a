"""Curation by name, for learners: what is done about labels of which a share is thought wrong."""

from collections.abc import Callable
from typing import Any, Final, Protocol, runtime_checkable

import torch
from torch import Tensor

from prefgym.comparisons import Comparisons
from prefgym.curation.filters import drop_close, drop_inconsistent
from prefgym.curation.outcomes import always, untouched
from prefgym.curation.peers import PeerSelection
from prefgym.curation.votes import Vote, drop_lowest, flip_lowest, lowest, soften, vote, with_margin
from prefgym.models.features import as_tensor
from prefgym.models.fit import Curated, Curator
from prefgym.names import lookup


@runtime_checkable
class Votes(Protocol):
    """An ensemble, as :class:`prefgym.models.reward_models.RewardModel` is one."""

    def logits(self, a: Any, b: Any) -> Tensor:
        """Each member's log-odds that ``a`` is preferred, ``[members, batch]``."""
        ...


def _without_close(curated: Curated, found: Vote, share: float) -> Curated:
    """Leave out the share of the decided pairs that the ensemble finds most alike."""
    gap = found.mean.abs().masked_fill(found.lean == 0, torch.inf)
    close = lowest(gap, share, found.lean != 0)
    least = float(gap[~close].min()) if bool((~close).any()) else torch.inf
    return drop_close(curated, gap, least)


TREATMENTS: Final[dict[str, Callable[[Curated, Vote, float], Curated]]] = {
    "flip": flip_lowest,
    "drop": drop_lowest,
    "soften": lambda curated, found, share: soften(curated, found, flips=share),
    "margin": lambda curated, found, share: with_margin(curated, found),
    "close": _without_close,
}
"""Name -> f(labels, the ensemble's vote, share thought wrong): what Secrets of RLHF II does, and
the gap filter of RLAIF-V, with the ensemble's own scores."""
CURATIONS: Final = ("none", "peers", "own", "gold", *TREATMENTS)
"""All names: nothing, the choice of peers (CRM) or of each member itself, consistency with a model
of trusted comparisons, a vote's treatments."""


def check_share(name: str, wrong: float) -> None:
    """Refuse a share of wrong labels that a curation cannot act on.

    Raises:
        ValueError: it is none, or so many labels that the others are the doubtful ones.
    """
    most = 0.5 if name == "soften" else 1.0
    if not 0.0 <= wrong <= most or (wrong == 1.0 and name in ("peers", "own")):
        raise ValueError(
            f"wrong={wrong} is no share of labels that curate={name!r} can take for wrong; give a"
            f" number in [0, {most:g}{')' if name in ('peers', 'own') else ']'}."
        )


def curator(
    name: str,
    wrong: float,
    epochs: int,
    comparisons: Comparisons,
    voters: Votes | None,
    gold: Votes | None = None,
    trusted: int = 0,
) -> Curator | None:
    """What looks over the labels in a fit; None where nobody does.

    Args:
        name: one of ``CURATIONS``.
        wrong: share of the labels that is thought wrong.
        epochs: of the fit.
        comparisons: that will be fitted.
        voters: an ensemble that was fitted to some of them, not for long; None has no vote yet.

        gold: a model that was fitted to trusted comparisons alone, for "gold".
        trusted: how many of the comparisons, the first, are those; they stay as they are.

    Raises:
        ValueError: no curation has that name, or "gold" has no model to agree with.
    """
    lookup(name, dict.fromkeys(CURATIONS), "curation")
    if name == "none":
        return None
    if name == "gold":
        return always(_agreeing(comparisons, gold, trusted))
    if name in ("peers", "own"):
        return PeerSelection(wrong, epochs, own=name == "own")
    if voters is None:
        return None
    label = as_tensor(comparisons.label).float()
    found = vote(voters.logits(comparisons.a, comparisons.b).cpu(), label)
    return always(TREATMENTS[name](untouched(comparisons), found, wrong))


def _agreeing(comparisons: Comparisons, gold: Votes | None, trusted: int) -> Curated:
    if gold is None:
        raise ValueError(
            "curate='gold' keeps the labels that a model of trusted comparisons agrees with, and"
            " there is none; give a learner trusted comparisons as data=."
        )
    logits = gold.logits(comparisons.a, comparisons.b).cpu()
    treated = drop_inconsistent(untouched(comparisons), logits.float())
    weight = torch.as_tensor(treated.weight).clone()
    weight[:trusted] = 1.0
    return treated._replace(weight=weight)
