"""Novelty: rewards for what was not seen before."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from prefgym.rewards.transforms import CONSTANT
from prefgym.segments import Array


def state_entropy(
    observations: Shaped[Array, " batch steps *obs"],
    among: Shaped[Array, " seen *obs"],
    neighbours: int = 5,
) -> Float[Tensor, " batch steps"]:
    """How new each state is: log(1 + distance to its k-th nearest one among those seen).

    The mean over the states of a policy grows with the entropy of what it visits. Coordinates are
    first divided by their standard deviation among the states seen, so that none drowns the others.

    Source: Lee, Smith and Abbeel (2021), eq. 4, arXiv:2106.05091 (PEBBLE), there without the 1,
    which makes a repeated state worth 0 as in Liu and Abbeel (2021), eq. 3, arXiv:2103.04551.

    Args:
        observations: the states to judge, numpy or torch.
        among: states seen before.
        neighbours: k, at least 1; all of ``among`` if there are fewer.

    Raises:
        ValueError: ``among`` is empty or ``neighbours`` below 1.
    """
    if not len(among) or neighbours < 1:
        raise ValueError(
            f"rewards.state_entropy: got {len(among)} states to compare with and neighbours="
            f"{neighbours}; wanted 1 or more of both."
        )
    seen = torch.asarray(among, copy=True).flatten(1).to(torch.float32)
    scale = seen.std(0, correction=0)
    scale = torch.where(scale > CONSTANT, scale, torch.ones_like(scale))
    states = torch.asarray(observations, copy=True).flatten(0, 1).flatten(1).to(seen)
    nearest = [
        torch.cdist(part / scale, seen / scale).kthvalue(min(neighbours, len(seen)), dim=1).values
        for part in states.split(4096)
    ]
    return torch.log1p(torch.cat(nearest)).view(observations.shape[:2])
