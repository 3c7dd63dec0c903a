"""Steps of the episode store that are learned from again and again, and what they are worth.

The store holds the only copy of the steps. What lives here is one column of rewards, written when
a learner says what steps are worth, and written again as a whole when it changes its mind.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from prefgym.interventions.supervision import INTERVENED, PROPOSED, REFUSED
from prefgym.segments import Segments
from prefgym.store import EpisodeStore, SegmentIndex

RELABEL_STEPS = 1 << 16
"""Steps judged at once when everything is relabelled."""
PATIENCE = 200
"""Draws before giving up on steps of the policy's own."""


class Transitions(NamedTuple):
    """Steps as replay has them."""

    observations: np.ndarray
    actions: np.ndarray
    next_observations: np.ndarray
    rewards: Float[np.ndarray, " batch"]
    terminal: Bool[np.ndarray, " batch"]
    """Not where a time limit ended the episode: what follows is worth something there."""


class ReplayedSteps:
    """Samples transitions from an :class:`EpisodeStore` and adds nothing to it."""

    store: EpisodeStore
    learned: np.ndarray
    """``[lanes, capacity]`` what steps are worth, float32."""
    version: int
    """How many times everything was judged anew."""
    rng: np.random.Generator
    own_steps_only: bool
    """Leave out what an expert did in interventions."""
    refused_proposals: bool
    """Learn from proposals that were refused, as steps that ended there."""

    def begin(self, store: EpisodeStore) -> None:
        """Nothing is judged yet."""
        self.store = store
        self.learned = np.zeros((store.lanes, store.capacity), np.float32)
        self.version = 0
        self.rng = np.random.default_rng(0)
        self.own_steps_only = self.refused_proposals = False

    def write(self, index: SegmentIndex, rewards: np.ndarray) -> None:
        """Say what the steps of segments are worth, ``[B, T]``; padding is not read."""
        lanes, first = self.store.rows(index)
        column = np.arange(rewards.shape[1])
        real = column < index.length[:, None]
        rows = (first[:, None] + column) % self.store.capacity
        self.learned[np.broadcast_to(lanes[:, None], rows.shape)[real], rows[real]] = rewards[real]

    def relabel(self, judge: Any, episodes: np.ndarray | None = None, chunk: int = 256) -> None:
        """Judge every step in the store anew, in a few large batches.

        Args:
            judge: rewards ``[B, T]`` of segments.
            episodes: ``[n]`` numbers; None: all that are there.
            chunk: steps of the pieces that episodes are cut into.
        """
        if episodes is None:
            index = self.store.since(np.zeros(self.store.lanes, np.int64), chunk)
        else:
            index = self.store.whole(episodes).pieces(chunk)
        at_once = max(1, RELABEL_STEPS // chunk)
        for begin in range(0, len(index.episode), at_once):
            part = SegmentIndex(*(one[begin : begin + at_once] for one in index))
            segments: Segments = self.store.segments(part, int(part.length.max()))
            self.write(part, judge(segments))
        self.version += 1

    def drawn(self, count: int) -> Transitions:
        """Transitions drawn uniformly from all steps that may be learned from.

        Raises:
            ValueError: there are none.
        """
        store, index = self.store, self._allowed(count)
        lanes, rows = store.rows(index)
        following = (rows + 1) % store.capacity
        actions, terminal = store.actions[lanes, rows], store.terminal(index)
        if self.refused_proposals:
            refused = store.factors[REFUSED][lanes, rows] > 0
            actions[refused] = self._proposals(lanes[refused], rows[refused])
            terminal |= refused
        return Transitions(
            observations=store.observations[lanes, rows],
            actions=actions,
            next_observations=store.observations[lanes, following],
            rewards=self.learned[lanes, rows],
            terminal=terminal,
        )

    def _allowed(self, count: int) -> SegmentIndex:
        """Single steps, drawn again until all may be learned from."""
        index = self.store.sample(count, 1, self.rng, pad=False)
        for _ in range(PATIENCE if self.own_steps_only else 0):
            out = np.flatnonzero(~self._own(*self.store.rows(index)))
            if not len(out):
                return index
            anew = self.store.sample(len(out), 1, self.rng, pad=False)
            for column, fresh in zip(index, anew, strict=True):
                column[out] = fresh
        if self.own_steps_only:
            raise ValueError(
                "Nearly all steps in the store are the expert's, so that there is nothing to learn"
                " from what the policy did; intervene less, for fewer steps, or learn from the"
                " expert's steps too."
            )
        return index

    def _own(
        self, lanes: Int[np.ndarray, " batch"], rows: Int[np.ndarray, " batch"]
    ) -> Bool[np.ndarray, " batch"]:
        own: np.ndarray = self.store.factors[INTERVENED][lanes, rows] == 0
        if self.refused_proposals:
            own |= self.store.factors[REFUSED][lanes, rows] > 0
        return own

    def _proposals(
        self, lanes: Int[np.ndarray, " some"], rows: Int[np.ndarray, " some"]
    ) -> np.ndarray:
        shape = self.store.actions.shape[2:]
        columns = int(np.prod(shape))
        proposed: np.ndarray = np.zeros((len(lanes), columns), self.store.actions.dtype)
        for k, column in enumerate(proposed.T):
            column[:] = self.store.factors[f"{PROPOSED}_{k}"][lanes, rows]
        actions: np.ndarray = proposed.reshape(len(lanes), *shape)
        return actions
