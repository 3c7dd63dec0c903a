"""A fit after which rewards have a scale that a policy can learn from."""

from typing import Any

import numpy as np
import torch

from prefgym.comparisons import Comparisons
from prefgym.models.fit import fit
from prefgym.models.populations.hedge import adapt_router
from prefgym.models.reward_models import PointwiseModel
from prefgym.segments import Segments


def scaled_fit(
    model: PointwiseModel,
    comparisons: Comparisons,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    scale: Segments,
    ends: bool,
    router: Comparisons | None = None,
    **settings: Any,
) -> dict[str, float]:
    """:func:`prefgym.models.fit.fit`, and then the scale of the rewards.

    Args:
        model: fitted in place.
        comparisons: that it is fitted to.
        optimizer: of its parameters.
        rng: draws the orders.
        scale: whose steps say how rewards are standardised.
        ends: whether some episode ended for good: then a constant per step counts, and rewards stay
            where the fit put them.
        router: comparisons beside those of the fit, to which the model's router is adapted after
            it (:func:`~prefgym.models.populations.hedge.adapt_router`); None: it stays as fitted.
        **settings: of the fit.

    Returns:
        The fit's metrics, and ``router`` (nats), how surprised the router was before it learned.
    """
    told = fit(model, comparisons, optimizer, rng, **settings)
    if router is not None:
        told["router"] = adapt_router(model, router)[0]
    model.standardise(scale)
    if ends:
        model.uncentre()
    return told
