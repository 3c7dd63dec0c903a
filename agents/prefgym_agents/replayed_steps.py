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


def transitions(store: EpisodeStore, index: SegmentIndex) -> Transitions:
    """Copies of single steps, with reward 0."""
    lanes, rows = store.rows(index)
    return Transitions(
        observations=store.observations[lanes, rows],
        actions=store.actions[lanes, rows],
        next_observations=store.observations[lanes, (rows + 1) % store.capacity],
        rewards=np.zeros(len(lanes), np.float32),
        terminal=store.terminal(index),
    )


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
    demonstrations: Transitions | None
    """Drawn beside the steps of the store."""
    symmetric: bool
    """Half of every batch are demonstrations; else their share is that of all steps there are."""

    def begin(self, store: EpisodeStore) -> None:
        """Nothing is judged yet."""
        self.store = store
        self.learned = np.zeros((store.lanes, store.capacity), np.float32)
        self.version = 0
        self.rng = np.random.default_rng(0)
        self.own_steps_only = self.refused_proposals = self.symmetric = False
        self.demonstrations = None

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

        Demonstrations are drawn with them as if all lay in one buffer, or, where sampling is
        symmetric, make up half of the batch. Source: Ball et al. (2023), arXiv:2302.02948, 4.1.

        Raises:
            ValueError: there are none.
        """
        half = count // 2 if self.symmetric else 0
        shown, index = self._allowed(count - half)
        own = self._of_store(index)
        if self.demonstrations is None or half + shown == 0:
            return own
        rows = self.rng.integers(len(self.demonstrations.rewards), size=half + shown)
        beside = (column[rows] for column in self.demonstrations)
        return Transitions(*map(np.concatenate, zip(own, beside, strict=True)))

    def _of_store(self, index: SegmentIndex) -> Transitions:
        """Steps of the store, and what they are worth."""
        store = self.store
        steps, (lanes, rows) = transitions(store, index), store.rows(index)
        steps = steps._replace(rewards=self.learned[lanes, rows])
        if self.refused_proposals:
            refused = store.factors[REFUSED][lanes, rows] > 0
            steps.actions[refused] = self._proposals(lanes[refused], rows[refused])
            steps.terminal[refused] = True
        return steps

    def _allowed(self, count: int) -> tuple[int, SegmentIndex]:
        """A batch: how many of it are demonstrations, and which single steps of the store.

        What may not be learned from is drawn again, from demonstrations and store alike.
        """
        share = 0.0
        if self.demonstrations is not None and not self.symmetric:
            given = len(self.demonstrations.rewards)
            share = given / (given + len(self.store))
        shown, missing = 0, count
        found: list[SegmentIndex] = []
        for _ in range(PATIENCE):
            again = int(self.rng.binomial(missing, share)) if share else 0
            index = self.store.sample(missing - again, 1, self.rng, pad=False)
            shown += again
            if not self.own_steps_only:
                return shown, index
            own = self._own(*self.store.rows(index))
            found.append(SegmentIndex(*(one[own] for one in index)))
            missing = int(np.count_nonzero(~own))
            if not missing:
                return shown, SegmentIndex(*map(np.concatenate, zip(*found, strict=True)))
        raise ValueError(
            "Nearly all steps in the store are the expert's, so that there is nothing to learn"
            " from what the policy did; intervene less, for fewer steps, or learn from the"
            " expert's steps too."
        )

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
