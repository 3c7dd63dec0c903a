"""The table of episodes behind a store: where each begins, how long it is, how it ended."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

OPEN, TERMINATED, TRUNCATED = 0, 1, 2
"""What became of an episode: still running; ended by the task; cut off from outside."""

_EPISODE_COLUMNS = {"lane": np.int32, "first": np.int64, "steps": np.int64, "end": np.int8}


class EpisodeTable:
    """One row per episode; rows whose steps are all overwritten are dropped from the front."""

    def __init__(self) -> None:
        self.dropped = 0
        self._count = 0
        self._columns = {name: np.zeros(64, kind) for name, kind in _EPISODE_COLUMNS.items()}
        self._context_id = np.zeros(64, np.int64)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name][: self._count]

    @property
    def context_id(self) -> np.ndarray:
        """Which starts are comparable, ``[episodes]``."""
        return self._context_id[: self._count]

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        return sum(c.nbytes for c in self._columns.values()) + self._context_id.nbytes

    def open(
        self,
        lanes: Int[np.ndarray, " n"],
        first: Int[np.ndarray, " n"],
        oldest: Int[np.ndarray, " lanes"],
        context_id: Int[np.ndarray, " n"] | None,
    ) -> Int[np.ndarray, " n"]:
        """Add episodes; returns their numbers, which never change."""
        self._make_room(len(lanes), oldest)
        new = slice(self._count, self._count + len(lanes))
        numbers = np.arange(new.start, new.stop) + self.dropped
        self._columns["lane"][new] = lanes
        self._columns["first"][new] = first
        self._columns["steps"][new] = 0
        self._columns["end"][new] = OPEN
        self._context_id[new] = numbers if context_id is None else context_id
        self._count = new.stop
        return numbers

    def grow(self, numbers: Int[np.ndarray, " n"]) -> None:
        """Count one step more."""
        self._columns["steps"][numbers - self.dropped] += 1

    def close(self, numbers: Int[np.ndarray, " n"], ends: Int[np.ndarray, " n"]) -> None:
        """Say how episodes ended."""
        self._columns["end"][numbers - self.dropped] = ends

    def state(self) -> dict[str, np.ndarray]:
        """Copies of everything, for :meth:`restore`."""
        saved = {name: self[name].copy() for name in self._columns}
        saved["context_id"] = self.context_id.copy()
        return saved | {"dropped": np.array(self.dropped)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a :meth:`state`."""
        self.dropped, self._count = int(state["dropped"]), len(state["lane"])
        self._columns = {name: state[name].copy() for name in self._columns}
        self._context_id = state["context_id"].copy()

    def _make_room(self, extra: int, oldest: Int[np.ndarray, " lanes"]) -> None:
        size = len(self._context_id)
        if self._count + extra <= size:
            return
        dead = (self["first"] + self["steps"] < oldest[self["lane"]]) & (self["end"] != OPEN)
        gone = int(np.argmin(np.append(dead, False)))
        keep = slice(gone, self._count)
        size = max(64, 2 * (self._count - gone + extra))
        for name, column in self._columns.items():
            self._columns[name] = _resized(column[keep], size)
        self._context_id = _resized(self._context_id[keep], size)
        self._count -= gone
        self.dropped += gone


def _resized(column: np.ndarray, size: int) -> np.ndarray:
    grown = np.zeros(size, column.dtype)
    grown[: len(column)] = column
    return grown
