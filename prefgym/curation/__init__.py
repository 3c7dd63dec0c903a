"""Curation: which labels to believe, to doubt and to turn round before a model is fitted to them.

A treatment takes a :class:`prefgym.models.fit.Curated` and gives another, so that treatments
follow one another. What comes out is given to a fit (``fit(..., curate=always(curated))``), or made
into comparisons (:func:`applied`). :class:`PeerSelection` decides anew before every pass.

``votes`` asks an ensemble, ``peers`` lets members choose for one another, ``filters`` asks a model
that can be trusted or a rater's own scores, ``outcomes`` says what was done and how well.
"""

from prefgym.curation.filters import drop_close, drop_inconsistent
from prefgym.curation.outcomes import (
    FilterQuality,
    Outcome,
    always,
    applied,
    filter_quality,
    outcome,
    untouched,
)
from prefgym.curation.peers import PeerSelection
from prefgym.curation.votes import (
    Vote,
    directed,
    drop_lowest,
    flip_lowest,
    lowest,
    soften,
    vote,
    with_margin,
)

__all__ = [
    "FilterQuality",
    "Outcome",
    "PeerSelection",
    "Vote",
    "always",
    "applied",
    "directed",
    "drop_close",
    "drop_inconsistent",
    "drop_lowest",
    "filter_quality",
    "flip_lowest",
    "lowest",
    "outcome",
    "soften",
    "untouched",
    "vote",
    "with_margin",
]
