"""Attributes that people rated: K linear rewards on frozen features, fitted in closed form.

Source: Wang et al. (2024), "Interpretable preferences via multi-objective reward modeling and
mixture-of-experts", arXiv:2406.12845 (ArmoRM): stage 1 here; stage 2 is the population
:class:`~prefgym.models.populations.ContextGate` on :class:`RatedAttributes`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

PENALTIES = tuple(10.0**power for power in range(-4, 5))
"""Ridge penalties that are tried."""
LAMBDAS = tuple(step / 50 for step in range(101))
"""Shares of an attribute that are tried to be taken off another, 0 to 2."""


def ridge(
    features: Float[Tensor, " items features"],
    ratings: Float[Tensor, " items attributes"],
    generator: torch.Generator,
    penalties: Sequence[float] = PENALTIES,
    validation_share: float = 0.2,
) -> Float[Tensor, " attributes features"]:
    """Weights of each attribute by ridge regression without intercept, all attributes at once.

    Each attribute takes the penalty under which its held-out ratings are met best, and is then
    fitted to all of its ratings. Not rated is NaN, and is skipped.

    Args:
        features: what is read of each item; bring it to one scale first.
        ratings: attributes on one scale each, for example with deviation 1.
        generator: draws the items that are held out.
        penalties: to try, above 0.
        validation_share: of the items, in (0, 1).

    Raises:
        ValueError: an attribute that nobody rated.
    """
    rated = ~torch.isnan(ratings)
    if not rated.any(0).all():
        unrated = int((~rated.any(0)).nonzero()[0])
        raise ValueError(f"ridge: nobody rated attribute {unrated}; leave it out, or rate it.")
    x, y = features.double(), ratings.nan_to_num().double()
    held = torch.rand(len(x), 1, generator=generator).to(x.device) < validation_share
    tried = torch.tensor(penalties, dtype=x.dtype, device=x.device)
    weights = _solved(x, y, rated & ~held, tried)  # [penalties, attributes, features]
    missed = torch.einsum("nf,pkf->pnk", x, weights) - y
    error = (missed.square() * (rated & held)).sum(1)  # [penalties, attributes]
    best = tried[error.argmin(0)]
    return _solved(x, y, rated, best[:, None])[range(len(best)), range(len(best))].to(features)


def _solved(x: Tensor, y: Tensor, counted: Tensor, penalties: Tensor) -> Tensor:
    """``(XᵀMX + αI) w = XᵀMy`` for every penalty and attribute."""
    products = torch.einsum("nf,nk,ng->kfg", x, counted.to(x), x)
    aims = torch.einsum("nf,nk->kf", x, counted * y)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    ridges = penalties.reshape(-1, 1, 1, 1) * eye
    found: Tensor = torch.linalg.solve(
        products[None] + ridges, aims.expand(len(ridges), *aims.shape)
    )
    return found


def without(
    rewards: Float[Tensor, " items attributes"], unwanted: int, most: float = 0.03
) -> tuple[Float[Tensor, " items attributes"], Float[Tensor, " attributes"]]:
    """Take so much of one attribute off the others that their ranks no longer follow it.

    λ_k is the least share on a grid from 0 to 2 with abs(Spearman(R_k − λ_k R_u, R_u)) ≤ ``most``;
    the share of least correlation where none is small enough.

    Args:
        rewards: of the items, by attribute, on one scale.
        unwanted: number of the attribute that should not matter (verbosity).
        most: correlation that may remain.

    Returns:
        The rewards, the unwanted one as it was, and λ.
    """
    shares = torch.tensor(LAMBDAS, dtype=rewards.dtype, device=rewards.device)
    corrected = rewards - shares[:, None, None] * rewards[:, unwanted, None]
    correlation = spearman(corrected, rewards[:, unwanted]).abs()  # [shares, attributes]
    enough = correlation <= most
    first = torch.where(enough.any(0), enough.int().argmax(0), correlation.argmin(0))
    first[unwanted] = 0
    kept = corrected[first, :, range(rewards.shape[1])].T
    return kept, shares[first]


def spearman(
    values: Float[Tensor, " *sets items attributes"], other: Float[Tensor, " items"]
) -> Float[Tensor, " *sets attributes"]:
    """Correlation of the ranks along the items; ties are ranked as they stand."""
    ranks = values.argsort(-2).argsort(-2).to(values)
    with_ranks = other.argsort().argsort().to(values)[:, None]
    a, b = (one - one.mean(-2, keepdim=True) for one in (ranks, with_ranks))
    scale = (a.square().sum(-2) * b.square().sum(-2)).sqrt()
    return (a * b).sum(-2) / scale.clamp(min=torch.finfo(values.dtype).tiny)


class RatedAttributes(nn.Module):
    """An encoder whose outputs are frozen linear rewards; only one scale per member is fitted.

    Args:
        weights: of each attribute.
        members: networks in the ensemble.
    """

    weights: Tensor

    def __init__(self, weights: Float[Tensor, " attributes features"], members: int = 1) -> None:
        super().__init__()
        self.members = members
        self.register_buffer("weights", weights)
        self.log_scale = nn.Parameter(torch.zeros(members))

    @property
    def kept_per_row(self) -> int:
        """Hidden numbers that each member keeps of a row for its gradient."""
        return len(self.weights)

    def forward(
        self, rows: Float[Tensor, " members rows features"]
    ) -> Float[Tensor, " members rows attributes"]:
        """Every attribute of every row."""
        return rows @ self.weights.T * self.log_scale.exp()[:, None, None]
