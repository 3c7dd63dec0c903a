"""Whom trajectories are compared with: a queue of recent ones, or each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from prefgym.segments import Segments


class Queue:
    """The newest trajectories of a policy; where only equal contexts may be compared, of each.

    Args:
        size: how many, at least 1.
        across_contexts: whether trajectories of different contexts may be compared.
    """

    def __init__(self, size: int, across_contexts: bool) -> None:
        if size < 1:
            raise ValueError(f"queue={size}; wanted at least 1 trajectory to compare others with.")
        self.size, self.across_contexts = size, across_contexts
        self.members: Segments | None = None
        """From the oldest to the newest; None while there is none."""

    def __len__(self) -> int:
        return 0 if self.members is None else len(self.members)

    def push(self, segments: Segments) -> None:
        """Take new trajectories in, and let the oldest go."""
        if not len(segments):
            return
        known = segments.numpy()
        if self.members is not None:
            known = Segments.concatenate([self.members, known])
        self.members = known.take(self._newest(np.asarray(known.context_id))).trimmed()

    def is_full_for(self, context_id: Int[np.ndarray, " batch"]) -> Bool[np.ndarray, " batch"]:
        """Whether there are as many opponents as there will ever be."""
        if self.members is None:
            return np.zeros(len(context_id), np.bool_)
        if self.across_contexts:
            return np.full(len(context_id), len(self.members) >= self.size)
        there, count = np.unique(self.members.context_id, return_counts=True)
        full: np.ndarray = np.isin(context_id, there[count >= self.size])
        return full

    def _newest(self, context_id: Int[np.ndarray, " n"]) -> Int[np.ndarray, " kept"]:
        """Rows of those that stay, in order."""
        if self.across_contexts:
            return np.arange(max(0, len(context_id) - self.size), len(context_id))
        order = np.lexsort((np.arange(len(context_id)), context_id))
        sorted_id = context_id[order]
        after = np.searchsorted(sorted_id, sorted_id, side="right") - np.arange(len(order)) - 1
        return np.sort(order[after < self.size])

    def state(self) -> dict[str, Any]:
        """Its members."""
        return {} if self.members is None else dict(self.members.arrays())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.members = Segments.from_arrays(state) if state else None


def may_meet(
    judged: Segments, opponents: Segments, across_contexts: bool
) -> Bool[np.ndarray, " judged opponents"]:
    """Which opponents each trajectory may be compared with: never itself, nor its own episode."""
    meet = np.asarray(judged.episode)[:, None] != np.asarray(opponents.episode)
    if not across_contexts:
        meet &= np.asarray(judged.context_id)[:, None] == np.asarray(opponents.context_id)
    allowed: np.ndarray = meet
    return allowed


def drawn_opponents(
    meet: Bool[np.ndarray, " judged opponents"], most: int, rng: np.random.Generator
) -> Bool[np.ndarray, " judged opponents"]:
    """At most so many opponents of each, drawn without replacement."""
    if most >= meet.shape[1]:
        return meet
    key = np.where(meet, rng.random(meet.shape), 2.0)
    limit = np.sort(key, 1)[:, most - 1 : most]
    chosen: np.ndarray = meet & (key <= limit)
    return chosen
