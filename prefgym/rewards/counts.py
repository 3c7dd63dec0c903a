"""Counts: rewards for events that are worth less each time that they happen in an episode."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def episode_counts(
    events: Int[Tensor, " batch steps"],
    mask: Bool[Tensor, " batch steps"],
    before: Int[Tensor, " batch known"] | None = None,
) -> Int[Tensor, " batch steps"]:
    """N: how often the event of each step has happened in its episode, that step included.

    A row is one episode or a piece of one.

    Args:
        events: a number for what happened in each step, such as that of its caption.
        mask: real steps; N of padding is 0.
        before: how often each event had happened in the episode when the row begins; none by
            default. Events from ``known`` on had not.

    Raises:
        ValueError: an event has a number below 0.

    Example:
        >>> events = torch.tensor([[3, 1, 3, 3]])
        >>> episode_counts(events, events > 0)
        tensor([[1, 1, 2, 3]])
        >>> episode_counts(events, events > 0, before=torch.tensor([[0, 5]]))
        tensor([[1, 6, 2, 3]])
    """
    kinds = _kinds(events, mask)
    rows = torch.arange(len(events), device=events.device)[:, None]
    # Equal events of a row side by side, in their order; padding in a row of its own behind all.
    group = torch.where(mask, rows * kinds + events, len(events) * kinds).flatten()
    ordered, order = torch.sort(group, stable=True)
    place = torch.arange(len(group), device=group.device)
    begins = torch.searchsorted(ordered, ordered)
    counts = torch.empty_like(place)
    counts[order] = place - begins + 1
    counts = counts.view(events.shape)
    if before is not None and before.shape[1]:
        known = before.shape[1]
        had = torch.gather(before.to(counts), 1, events.clamp(0, known - 1).long())
        counts = counts + torch.where(events < known, had, 0)
    return torch.where(mask, counts, 0)


def counts_after(
    events: Int[Tensor, " batch steps"],
    mask: Bool[Tensor, " batch steps"],
    before: Int[Tensor, " batch known"] | None = None,
    known: int | None = None,
) -> Int[Tensor, " batch after"]:
    """How often each event has happened when the row ends: ``before`` of the row that goes on.

    Args:
        events: as in :func:`episode_counts`.
        mask: as in :func:`episode_counts`.
        before: as in :func:`episode_counts`.
        known: columns; as many as are needed by default.

    Raises:
        ValueError: an event has a number below 0, or ``known`` is too small.
    """
    kinds = max(_kinds(events, mask), 0 if before is None else before.shape[1])
    if known is not None and known < kinds:
        raise ValueError(f"rewards.counts_after: known is {known}; wanted {kinds} or more.")
    width = kinds if known is None else known
    rows = torch.arange(len(events), device=events.device)[:, None]
    group = (rows * width + events)[mask]
    after = torch.bincount(group, minlength=len(events) * width).view(len(events), width)
    if before is not None:
        after[:, : before.shape[1]] += before
    return after


def count_discount(
    rewards: Float[Tensor, " batch steps"],
    events: Int[Tensor, " batch steps"],
    mask: Bool[Tensor, " batch steps"],
    exponent: float = 3.0,
    before: Int[Tensor, " batch known"] | None = None,
) -> Float[Tensor, " batch steps"]:
    """Rewards divided by N^k, with N the :func:`episode_counts`: what happens again is worth less.

    The result depends on the past of the episode and not on the state alone, so whoever learns from
    it needs a memory, or counts in the observation: a policy that sees neither may collect what is
    left of a reward for ever.

    Source: Zheng et al. (2024), arXiv:2410.23022 (ONI), and Klissarov et al. (2023),
    arXiv:2310.00166 (Motif), with k = 3.

    Args:
        rewards: of the events.
        events: as in :func:`episode_counts`.
        mask: real steps; padding gets 0.
        exponent: k, 0 (the rewards as they are) to ∞.
        before: as in :func:`episode_counts`.

    Raises:
        ValueError: ``exponent`` is below 0, or an event has a number below 0.

    Example:
        >>> events = torch.tensor([[1, 1, 2]])
        >>> count_discount(torch.ones(1, 3), events, events > 0, exponent=1.0)
        tensor([[1.0000, 0.5000, 1.0000]])
    """
    if not exponent >= 0.0:
        raise ValueError(f"rewards.count_discount: exponent is {exponent}, wanted 0 or more.")
    counts = episode_counts(events, mask, before).clamp(min=1)
    return torch.where(mask, rewards * counts.to(rewards) ** -exponent, 0.0)


def _kinds(events: Tensor, mask: Tensor) -> int:
    """One more than the highest event."""
    real = events[mask]
    if not len(real):
        return 0
    if int(real.min()) < 0:
        raise ValueError(
            f"rewards: an event has the number {int(real.min())}; wanted 0 or more at real steps."
        )
    return int(real.max()) + 1
