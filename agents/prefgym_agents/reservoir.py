"""The average of the policies that a run went through, as a uniform sample of snapshots.

Where preferences go round in a circle the newest policy does, too, and it is the average that no
other policy beats. To act as the average is to draw one of its policies for each episode.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prefgym_agents.backend import PolicyBackend

Snapshot = Mapping[str, Any]


class Reservoir:
    """Keeps so many of all snapshots that it was ever offered, each with the same chance.

    Source: Vitter (1985), Random sampling with a reservoir, algorithm R.

    Args:
        size: how many to keep; 0 keeps none.
        seed: of the choice.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.offered = 0
        """Snapshots it was ever offered."""
        self.kept: list[Snapshot] = []

    def __len__(self) -> int:
        return len(self.kept)

    def offer(self, take: Callable[[], Snapshot]) -> None:
        """Keep what ``take`` copies with the chance that is its due; it is not called else."""
        place = int(np.random.default_rng((self.seed, self.offered, 5)).integers(self.offered + 1))
        self.offered += 1
        if len(self.kept) < self.size:
            self.kept.append(take())
        elif place < self.size:
            self.kept[place] = take()

    def state(self) -> dict[str, Any]:
        """What it holds."""
        return {"offered": self.offered, "kept": [dict(one) for one in self.kept]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.offered, self.kept = state["offered"], [dict(one) for one in state["kept"]]


class AveragePolicy:
    """Acts in every lane as one of several snapshots, drawn anew where an episode begins.

    Args:
        policy: whose snapshots they are. It acts as they did, and is itself again afterwards.
        snapshots: one or more.
        seed: of the draws.

    Raises:
        ValueError: there are no snapshots.
    """

    def __init__(self, policy: PolicyBackend, snapshots: list[Snapshot], seed: int = 0) -> None:
        if not snapshots:
            raise ValueError(
                "AveragePolicy: there are no snapshots; train first, with snapshots=1 or more."
            )
        self.policy, self.snapshots = policy, snapshots
        self._rng = np.random.default_rng(seed)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Actions, and which snapshot acts in each lane; give that back with the next call."""
        lanes = len(observation)
        fresh = np.ones(lanes, np.bool_) if state is None else np.asarray(episode_start, np.bool_)
        drawn = self._rng.integers(len(self.snapshots), size=lanes)
        acting = drawn if state is None else np.where(fresh, drawn, state)
        return self._actions(np.asarray(observation), acting, deterministic), acting

    def _actions(self, observation: np.ndarray, acting: np.ndarray, deterministic: bool) -> Any:
        newest, actions = self.policy.snapshot(), None
        for one in np.unique(acting):
            lanes = np.flatnonzero(acting == one)
            self.policy.load_snapshot(self.snapshots[one])
            chosen, _ = self.policy.predict(observation[lanes], None, None, deterministic)
            if actions is None:
                actions = np.zeros((len(acting), *chosen.shape[1:]), chosen.dtype)
            actions[lanes] = chosen
        self.policy.load_snapshot(newest)
        return actions
