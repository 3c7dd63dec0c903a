"""Win rates: what a response is worth by comparisons with others, without a scale of its own."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def beats(
    scores: Float[Tensor, " *groups options"],
    others: Float[Tensor, " *groups opponents"],
    band: float = 0.0,
) -> Float[Tensor, " *groups options opponents"]:
    """Comparisons read off scores: 1 where the first is higher, 0 where lower, ½ for a tie.

    Args:
        scores: of the options to be judged.
        others: of what each of them is compared with.
        band: scores at most this far apart are a tie, as for a judge who cannot see less.

    Raises:
        ValueError: ``band`` is below 0.
    """
    if not band >= 0.0:
        raise ValueError(f"rewards.beats: band is {band}, wanted 0 or more, in units of score.")
    gap = scores[..., :, None] - others[..., None, :]
    return 0.5 + 0.5 * torch.where(gap.abs() > band, gap.sign(), 0.0)


def win_rates(
    chances: Float[Tensor, " *groups options opponents"],
    against: Bool[Tensor, " *groups options opponents"] | None = None,
) -> Float[Tensor, " *groups options"]:
    """How often each option is preferred to an opponent drawn at random.

    Against a queue of what the same policy did lately it is the reward of Swamy et al. (2024),
    arXiv:2401.04056 (SPO), which needs no utility to exist behind the preferences.

    Args:
        chances: ``chances[..., i, j]`` = P(i ≻ j) in [0, 1], a tie is ½.
        against: which opponents count; the others are not read. An option without any is even, ½.
    """
    if against is None:
        return chances.mean(-1)
    met = against.sum(-1)
    won = torch.where(against, chances, 0.0).sum(-1)
    return torch.where(met > 0, won / met.clamp(min=1), 0.5)


def win_rates_in_group(
    chances: Float[Tensor, " *groups size size"],
) -> Float[Tensor, " *groups size"]:
    """How often each sample of a group is preferred to another one of it, (1/(G−1)) Σ_{j≠i} P(i≻j).

    Source: Wang et al. (2025), arXiv:2508.20751 (Pref-GRPO).

    Args:
        chances: ``chances[..., i, j]`` = P(i ≻ j) in [0, 1], a tie is ½; the diagonal is not read.

    Raises:
        ValueError: a group has one sample only.
    """
    size = chances.shape[-1]
    if size < 2:
        raise ValueError(
            f"rewards.win_rates_in_group: groups have {size} sample; draw 2 or more per context."
        )
    others = ~torch.eye(size, dtype=torch.bool, device=chances.device)
    return win_rates(chances, others.expand_as(chances))
