"""From comparisons to what is curated of them and back; what was done, and how well."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from prefgym.comparisons import Comparisons
from prefgym.models.features import as_tensor
from prefgym.models.fit import Curated, Curator


class Outcome(NamedTuple):
    """Shares of the pairs, in [0, 1]."""

    kept: float
    """Left with a weight above 0."""
    flipped: float
    """Kept, and turned to the other side."""
    softened: float
    """Kept on their side, and believed less."""


class FilterQuality(NamedTuple):
    """How a filter did on planted flips."""

    precision: float
    """Share of flips among the suspected pairs; NaN where none is suspected."""
    recall: float
    """Share of the flips that are suspected; NaN where none was planted."""
    noise_kept: float
    """Share of flips among the others; NaN where all are suspected."""


def untouched(comparisons: Comparisons) -> Curated:
    """The labels as they were given, to begin with; a fit adds the comparisons' own weights."""
    return Curated(as_tensor(comparisons.label))


def always(curated: Curated) -> Curator:
    """The curator that gives the same before each pass.

    Raises:
        ValueError: when it is called, if the fit is to another number of pairs.
    """

    def curate(epoch: int, margins: Tensor, label: Tensor, generator: torch.Generator) -> Curated:
        if curated.label.shape[-1] != len(label):
            raise ValueError(
                f"curation.always: {curated.label.shape[-1]} pairs were curated, and the fit is to "
                f"{len(label)}; give the fit the same comparisons and validation_share=0, or make "
                "comparisons of what was curated (curation.applied)."
            )
        return Curated(*(torch.as_tensor(one).to(margins) for one in curated))

    return curate


def applied(comparisons: Comparisons, curated: Curated) -> Comparisons:
    """New comparisons with the curated labels and weights, without the pairs that were left out.

    Raises:
        ValueError: what only a fit can hold: an offset, or members that are treated differently.
    """
    label, weight, offset = (torch.as_tensor(one).cpu().double() for one in curated)
    if bool((offset != 0.0).any()):
        raise ValueError(
            "curation.applied: there is an offset, which comparisons cannot hold; use "
            "fit(..., curate=always(curated))."
        )
    for one in (label, weight):
        if one.shape not in ((), (len(comparisons),)):
            raise ValueError(
                f"curation.applied: got shape {tuple(one.shape)} for {len(comparisons)} "
                "comparisons; give what was curated of these, the same for every member."
            )
    relative = weight.expand(len(comparisons)).numpy()
    treated = comparisons.replace(
        label=label.expand(len(comparisons)).numpy(), weight=comparisons.weight * relative
    )
    return treated.take(relative > 0.0)


def outcome(curated: Curated, label: Float[Tensor, " pairs"]) -> Outcome:
    """What was done to the labels; over all members where they are treated differently."""
    before, after = label.double() - 0.5, curated.label.double() - 0.5
    kept = torch.as_tensor(curated.weight).to(after) > 0.0
    kept, before, after = torch.broadcast_tensors(kept, before, after)
    flipped = kept & (before * after < 0.0)
    softened = kept & ~flipped & (after.abs() < before.abs())
    return Outcome(*(float(one.double().mean()) for one in (kept, flipped, softened)))


def filter_quality(
    suspected: Bool[np.ndarray, " *shape"], flipped: Bool[np.ndarray, " *shape"]
) -> FilterQuality:
    """Precision, recall, and what noise is left, where it is known which labels are wrong.

    Args:
        suspected: the pairs that a filter drops or turns round.
        flipped: the pairs whose labels were turned round on purpose.

    Example:
        >>> suspected, flipped = np.array([True, True, False]), np.array([True, False, True])
        >>> filter_quality(suspected, flipped)
        FilterQuality(precision=0.5, recall=0.5, noise_kept=1.0)
    """
    return FilterQuality(
        precision=_share(flipped[suspected]),
        recall=_share(suspected[flipped]),
        noise_kept=_share(flipped[~suspected]),
    )


def _share(among: np.ndarray) -> float:
    return float(among.mean()) if len(among) else float("nan")
