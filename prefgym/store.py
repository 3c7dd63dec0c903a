"""Where the steps of every episode are kept, once: contiguous columns in a ring of fixed size.

The store has one lane per parallel environment. In a lane, an episode of ``n`` steps takes
``n + 1`` consecutive rows: the last one holds only the final observation, so that the observation
after a step is always that of the next row. A segment is four integers (episode, start, length,
and the number of steps that its row is padded to); its arrays are copied out when asked for, so
no segment keeps an episode alive.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Int, Shaped

from prefgym.episodes import OPEN, TERMINATED, TRUNCATED, EpisodeTable
from prefgym.segments import Segments

PATIENCE = 8
"""Draws of a pair before giving up on finding two different segments."""


class SegmentIndex(NamedTuple):
    """Where segments lie in a store; plain integers, ``[B]`` each."""

    episode: Int[np.ndarray, " batch"]
    start: Int[np.ndarray, " batch"]
    length: Int[np.ndarray, " batch"]

    def pieces(self, steps: int) -> "SegmentIndex":
        """The same segments cut into pieces of ``steps`` steps, the last of each may be shorter."""
        count = -(-self.length // steps)
        owner = np.repeat(np.arange(len(count)), count)
        offset = steps * (np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count))
        return SegmentIndex(
            self.episode[owner],
            self.start[owner] + offset,
            np.minimum(self.length[owner] - offset, steps),
        )


class EpisodeStore:
    """The steps of all episodes that still fit, by lane.

    Segments of any two episodes may be compared (``across_contexts``).

    Args:
        observation_space: of one environment; anything with a fixed shape and dtype.
        action_space: of one environment, likewise.
        lanes: how many environments write side by side.
        capacity: rows of each lane; the oldest steps are overwritten. Memory is taken from the
            system only as rows are written.
        factor_names: the named parts of the true reward that come with every step.
    """

    across_contexts = True

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        lanes: int = 1,
        capacity: int = 1_000_000,
        factor_names: Sequence[str] = (),
    ) -> None:
        for role, space in (("observation", observation_space), ("action", action_space)):
            if space.shape is None or space.dtype is None:
                raise ValueError(
                    f"EpisodeStore: the {role} space {space} has no fixed shape and dtype; wrap the"
                    " environment in gymnasium.wrappers.FlattenObservation or a similar wrapper."
                )
        if lanes < 1 or capacity < 2:
            raise ValueError(
                f"EpisodeStore: got lanes={lanes} and capacity={capacity}; wanted at least one lane"
                " of at least two rows."
            )
        self.observation_space, self.action_space = observation_space, action_space
        self.lanes, self.capacity = lanes, capacity
        self.factor_names = tuple(factor_names)
        shape = (lanes, capacity)
        try:
            self.observations = _column(shape, observation_space)
            self.actions = _column(shape, action_space)
            self.rewards = np.zeros(shape, np.float64)
            self.factors = {name: np.zeros(shape, np.float64) for name in self.factor_names}
        except MemoryError as error:
            raise ValueError(
                f"EpisodeStore: {lanes} x {capacity} steps of this environment do not fit into"
                f" memory ({error}); choose a smaller capacity."
            ) from error
        self.head = np.zeros(lanes, np.int64)
        """Row of each lane that is written next, counted since the beginning."""
        self.total_steps = 0
        """Steps ever appended."""
        self.any_terminated = False
        """Whether any episode ever ended for good (not by a limit)."""
        self._episodes = EpisodeTable()
        self._current = np.full(lanes, -1, np.int64)
        """The episode that is open in each lane; -1 where none is."""

    # -- writing ------------------------------------------------------------------------------

    def begin(
        self,
        lanes: Int[np.ndarray, " n"],
        observations: Shaped[np.ndarray, " n *obs"],
        context_id: Int[np.ndarray, " n"] | None = None,
    ) -> None:
        """Open an episode in each of ``lanes``; one still open there counts as truncated."""
        self._check_shape("observation", observations, self.observations)
        self.interrupt(lanes)
        rows = self.head[lanes]
        self.observations[lanes, rows % self.capacity] = observations
        self._current[lanes] = self._episodes.open(lanes, rows, self._oldest(), context_id)

    def check_actions(self, actions: Shaped[np.ndarray, " n *act"]) -> None:
        """Refuse actions before an environment sees them.

        Raises:
            ValueError: they have another shape than their space, or are NaN or infinite.
        """
        self._check_shape("action", actions, self.actions)
        if self.actions.dtype.kind == "f" and not _finite(actions):
            raise ValueError(
                f"step() got the actions {actions.tolist()}; wanted finite numbers, so look for the"
                " NaN or infinity in the policy that chose them."
            )

    def append(
        self,
        lanes: Int[np.ndarray, " n"],
        actions: Shaped[np.ndarray, " n *act"],
        rewards: Shaped[np.ndarray, " n"],
        next_observations: Shaped[np.ndarray, " n *obs"],
        terminated: Bool[np.ndarray, " n"],
        truncated: Bool[np.ndarray, " n"],
        factors: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one step to the open episode of each lane, and close the episodes that ended.

        ``factors`` hold a number for all lanes or an array ``[n]`` under each name.

        Raises:
            ValueError: a reward is NaN or infinite, a shape is not that of its space, a factor is
                missing, or no episode is open in a lane.
        """
        self._check_step(actions, rewards, next_observations)
        episodes = self._current[lanes]
        if np.count_nonzero(episodes < 0):
            raise ValueError("A step came before reset(); call reset() before the first step().")
        rows = self.head[lanes]
        here = rows % self.capacity
        self.actions[lanes, here] = actions
        self.rewards[lanes, here] = rewards
        self._write_factors(lanes, here, factors)
        self.observations[lanes, (rows + 1) % self.capacity] = next_observations
        self.head[lanes] = rows + 1
        self._episodes.grow(episodes)
        self.total_steps += len(lanes)
        ended = terminated | truncated
        if np.count_nonzero(ended):
            ends = np.where(terminated[ended], TERMINATED, TRUNCATED).astype(np.int8)
            self._close(np.asarray(lanes)[ended], ends)
            self.any_terminated |= bool(terminated.any())

    def interrupt(self, lanes: Int[np.ndarray, " n"]) -> None:
        """Close whatever is open in ``lanes`` as truncated (the user reset in mid-episode)."""
        still_open = lanes[self._current[lanes] >= 0]
        if len(still_open):
            self._close(still_open, np.full(len(still_open), TRUNCATED, np.int8))

    def _check_step(
        self,
        actions: np.ndarray,
        rewards: np.ndarray,
        observations: np.ndarray,
    ) -> None:
        """Refuse a step before any of it is written."""
        self._check_shape("action", actions, self.actions)
        self._check_shape("observation", observations, self.observations)
        if not _finite(rewards):
            raise ValueError(
                f"The environment returned the rewards {rewards.tolist()}; preferences need finite"
                " rewards, so mend the environment's reward function."
            )

    def _write_factors(
        self,
        lanes: Int[np.ndarray, " n"],
        here: Int[np.ndarray, " n"],
        factors: Mapping[str, Any] | None,
    ) -> None:
        try:
            for name, column in self.factors.items():
                column[lanes, here] = 0.0 if factors is None else factors[name]
        except KeyError as error:
            raise ValueError(
                f"The environment names the factors {list(self.factors)}, but {error} is not in its"
                ' info["factors"]; tell all of them at every step.'
            ) from error

    @staticmethod
    def _check_shape(what: str, values: np.ndarray, column: np.ndarray) -> None:
        if values.shape[1:] != column.shape[2:]:
            raise ValueError(
                f"An {what} has shape {values.shape[1:]}, but its space says {column.shape[2:]};"
                f" give {what}s of that shape."
            )

    def _close(self, lanes: Int[np.ndarray, " n"], ends: Int[np.ndarray, " n"]) -> None:
        self._episodes.close(self._current[lanes], ends)
        self._current[lanes] = -1
        self.head[lanes] += 1

    # -- reading ------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Steps that can be read now."""
        return int(self._usable(1, None, pad=False)[1].sum())

    @property
    def nbytes(self) -> int:
        """Bytes of every array at full capacity."""
        columns = [self.observations, self.actions, self.rewards, *self.factors.values()]
        return sum(column.nbytes for column in columns) + self._episodes.nbytes

    @property
    def longest(self) -> int:
        """Steps of the longest episode that is still whole or in part in the store."""
        return int(self._usable(1, None, pad=False)[1].max(initial=0))

    def starts(self, steps: int, *, recent: int | None = None, pad: bool = True) -> int:
        """How many different segments :meth:`sample` draws from."""
        return int(self._usable(steps, recent, pad)[1].sum())

    def sample(
        self,
        count: int,
        steps: int,
        rng: np.random.Generator,
        *,
        recent: int | None = None,
        pad: bool = True,
    ) -> SegmentIndex:
        """Draw segments uniformly, with replacement, from all that do not cross a reset.

        Args:
            count: how many.
            steps: the length of each.
            rng: where the randomness comes from.
            recent: only from about the newest ``recent`` steps.
            pad: let segments run into the end of an episode that *terminated*; what lies beyond
                is an absorbing state of zero reward (mask false). Episodes that were cut off by
                a time limit never give shorter segments.

        Raises:
            ValueError: no episode is long enough yet, or ``steps`` is below 1.
        """
        if steps < 1:
            raise ValueError(f"Segments of {steps} steps were asked for; wanted at least one step.")
        begin, starts = self._usable(steps, recent, pad)
        reach = np.cumsum(starts)
        total = int(reach[-1]) if len(reach) else 0
        if total == 0:
            raise ValueError(
                f"No episode in the store has {steps} steps yet (the longest has {self.longest});"
                " act for longer, or ask for shorter segments."
            )
        draw = rng.integers(total, size=count)
        which = np.searchsorted(reach, draw, side="right")
        offset = draw - (reach[which] - starts[which]) + begin[which]
        table = self._episodes
        length = np.minimum(table["steps"][which] - offset, steps)
        return SegmentIndex(which + table.dropped, offset, length)

    def sample_pairs(
        self, count: int, steps: int, rng: np.random.Generator, *, recent: int | None = None
    ) -> tuple[SegmentIndex, SegmentIndex]:
        """Draw pairs that may be compared: here, any two segments.

        Raises:
            ValueError: as :meth:`sample`.
        """
        first = self.sample(count, steps, rng, recent=recent)
        return first, self.sample(count, steps, rng, recent=recent)

    def distinct_pair(
        self, steps: int, rng: np.random.Generator, *, recent: int | None = None
    ) -> tuple[SegmentIndex, SegmentIndex] | None:
        """Draw one pair whose segments share no step; None where none is found."""
        if self.starts(steps, recent=recent) < 2:
            return None
        for _ in range(PATIENCE):
            index = self.sample(2, steps, rng, recent=recent)
            apart = abs(int(index.start[0]) - int(index.start[1])) >= steps
            if apart or index.episode[0] != index.episode[1]:
                return tuple(SegmentIndex(*(one[k : k + 1] for one in index)) for k in (0, 1))  # type: ignore[return-value]
        return None

    def check_room(self, steps: int, recent: int | None = None) -> None:
        """Refuse segments that no lane has room for.

        Raises:
            ValueError: the capacity, or what is ``recent`` of it, can never hold two segments.
        """
        rooms = {"capacity": self.capacity}
        if recent is not None:
            rooms["recent"] = -(-recent // self.lanes)
        for name, rows in rooms.items():
            if rows < steps + 2:
                raise ValueError(
                    f"{name}= leaves {rows} steps to each of {self.lanes} environments, too few to"
                    f" compare segments of {steps} steps; raise {name}= to"
                    f" {(steps + 2) * self.lanes} or more, or choose a smaller segment_steps."
                )

    def segments(self, index: SegmentIndex, steps: int) -> Segments:
        """Copy the segments at ``index`` out, in rows of ``steps`` steps.

        Raises:
            ValueError: an episode is not there, its rows were overwritten since, or a segment
                reaches beyond its episode.
        """
        where, mask = self._places(index, steps)
        table = self._episodes
        which = index.episode - table.dropped
        observations = _masked(self.observations[where], mask)
        return Segments(
            actions=_masked(self.actions[where], mask),
            mask=mask,
            context=observations[:, 0].copy(),
            context_id=np.where(
                index.start == 0, table.context_id[which], -1 - (index.episode << 24) - index.start
            ),
            observations=observations,
            rewards=_masked(self.rewards[where], mask),
            factors={name: _masked(column[where], mask) for name, column in self.factors.items()},
            episode=index.episode.astype(np.int64),
            start=index.start.astype(np.int64),
        )

    def factor(
        self, name: str, index: SegmentIndex, steps: int
    ) -> tuple[Shaped[np.ndarray, " b steps"], Bool[np.ndarray, " b steps"]]:
        """One factor of the segments at ``index``, and their mask: the rest is not copied out.

        Raises:
            ValueError: as :meth:`segments`.
        """
        where, mask = self._places(index, steps)
        return _masked(self.factors[name][where], mask), mask

    def _places(
        self, index: SegmentIndex, steps: int
    ) -> tuple[tuple[np.ndarray, np.ndarray], Bool[np.ndarray, " b steps"]]:
        """Where the steps of segments stand in the columns, and their mask."""
        table = self._episodes
        which = index.episode - table.dropped
        if len(which) and (which.min() < 0 or which.max() >= len(table)):
            raise ValueError(self._lost(index))
        first, lane = table["first"][which], table["lane"][which]
        beyond = (index.start < 0) | (index.start + index.length > table["steps"][which])
        if beyond.any():
            odd = int(np.argmax(beyond))
            raise ValueError(
                f"Steps {index.start[odd]} to {index.start[odd] + index.length[odd]} of episode"
                f" {index.episode[odd]} were asked for, which has {table['steps'][which][odd]};"
                " a segment must lie within its episode."
            )
        if (first + index.start < self._oldest()[lane]).any():
            raise ValueError(self._lost(index))
        column = np.arange(steps)
        rows = (first + index.start)[:, None] + np.minimum(column, index.length[:, None] - 1)
        return (lane[:, None], rows % self.capacity), column < index.length[:, None]

    def since(self, heads: Int[np.ndarray, " lanes"], chunk: int | None = None) -> SegmentIndex:
        """Everything written after ``self.head`` was ``heads``, cut at episode ends.

        The pieces of a lane follow each other in time; ``chunk`` bounds their length.
        """
        table = self._episodes
        lane = table["lane"]
        begin = np.maximum(table["first"], np.maximum(heads, self._oldest())[lane])
        length = table["first"] + table["steps"] - begin
        which = np.nonzero(length > 0)[0]
        found = SegmentIndex(
            which + table.dropped, begin[which] - table["first"][which], length[which]
        )
        return found if chunk is None else found.pieces(chunk)

    def whole(self, episodes: Int[np.ndarray, " n"]) -> SegmentIndex:
        """These episodes, each as far as it has come, without steps that were overwritten."""
        table = self._episodes
        which = episodes - table.dropped
        begin = np.maximum(self._oldest()[table["lane"][which]] - table["first"][which], 0)
        return SegmentIndex(np.asarray(episodes), begin, table["steps"][which] - begin)

    def ended(self, episodes: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether no step of an episode is still to come."""
        over: np.ndarray = self._episodes["end"][episodes - self._episodes.dropped] != OPEN
        return over

    def rows(self, index: SegmentIndex) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"]]:
        """Lane and row (within the columns) of the first step of each segment."""
        which = index.episode - self._episodes.dropped
        row = (self._episodes["first"][which] + index.start) % self.capacity
        return self._episodes["lane"][which].astype(np.int64), row

    def terminal(self, index: SegmentIndex) -> Bool[np.ndarray, " b"]:
        """Whether the last step of each segment ended its episode for good (not by a limit)."""
        which = index.episode - self._episodes.dropped
        at_end = index.start + index.length == self._episodes["steps"][which]
        ended: np.ndarray = at_end & (self._episodes["end"][which] == TERMINATED)
        return ended

    def _oldest(self) -> Int[np.ndarray, " lanes"]:
        return np.maximum(self.head + 1 - self.capacity, 0)

    def _usable(
        self, steps: int, recent: int | None, pad: bool
    ) -> tuple[Int[np.ndarray, " episodes"], Int[np.ndarray, " episodes"]]:
        """First usable step, and number of possible starts, of every episode in the table."""
        table = self._episodes
        oldest = self._oldest()
        if recent is not None:
            oldest = np.maximum(oldest, self.head - -(-recent // self.lanes))
        begin = np.maximum(oldest[table["lane"]] - table["first"], 0)
        left = table["steps"] - begin
        starts = left - (steps - 1)
        if pad:
            starts = np.where(table["end"] == TERMINATED, left, starts)
        return begin, np.maximum(starts, 0)

    def _lost(self, index: SegmentIndex) -> str:
        return (
            f"A segment of episodes {index.episode.min()}..{index.episode.max()} was asked for, but"
            f" the store (capacity {self.lanes} x {self.capacity} rows) no longer holds all of"
            " them; copy segments out sooner or raise the capacity."
        )

    # -- saving -------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """Copies of everything that was written, for :meth:`restore`."""
        used = int(min(self.head.max() + 1, self.capacity))
        columns = {"observations": self.observations, "actions": self.actions}
        columns |= {"rewards": self.rewards}
        columns |= {f"factors/{name}": column for name, column in self.factors.items()}
        saved = {name: column[:, :used].copy() for name, column in columns.items()}
        saved |= {"head": self.head.copy(), "current": self._current.copy()}
        saved["capacity"] = np.array(self.capacity)
        saved["total_steps"] = np.array(self.total_steps)
        saved["any_terminated"] = np.array(self.any_terminated)
        return saved | {f"episodes/{name}": one for name, one in self._episodes.state().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a :meth:`state` of a store that was made with the same arguments.

        Raises:
            ValueError: it has other lanes, another capacity or other factors.
        """
        theirs = (len(state["head"]), int(state["capacity"]), *_factors_in(state))
        if theirs != (self.lanes, self.capacity, *sorted(self.factors)):
            raise ValueError(
                "EpisodeStore: the state has (lanes, capacity, factors) ="
                f" {theirs}, and this store {(self.lanes, self.capacity, *sorted(self.factors))};"
                " make the environment with the arguments that it had then."
            )
        used = state["observations"].shape[1]
        self.observations[:, :used] = state["observations"]
        self.actions[:, :used] = state["actions"]
        self.rewards[:, :used] = state["rewards"]
        for name, column in self.factors.items():
            column[:, :used] = state[f"factors/{name}"]
        self.head[:] = state["head"]
        self._current[:] = state["current"]
        self.total_steps = int(state["total_steps"])
        self.any_terminated = bool(state["any_terminated"])
        self._episodes.restore(
            {k.removeprefix("episodes/"): v for k, v in state.items() if k.startswith("episodes/")}
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles hold the steps that were written, not the whole capacity."""
        made_with = (self.observation_space, self.action_space, self.lanes, self.capacity)
        return type(self), (*made_with, self.factor_names), self.state()

    def __setstate__(self, state: Mapping[str, np.ndarray]) -> None:
        """As :meth:`restore`."""
        self.restore(state)


def _column(shape: tuple[int, int], space: gym.Space[Any]) -> np.ndarray:
    return np.zeros((*shape, *(space.shape or ())), space.dtype)


def _finite(values: np.ndarray) -> bool:
    """Whether no number is NaN or infinite; for a handful, ``all()`` would take twice as long."""
    return bool(np.count_nonzero(np.isfinite(values)) == values.size)


def _factors_in(state: Mapping[str, np.ndarray]) -> list[str]:
    return sorted(k.removeprefix("factors/") for k in state if k.startswith("factors/"))


def _masked(values: np.ndarray, mask: Bool[np.ndarray, " batch steps"]) -> np.ndarray:
    """Zero the padding, in place."""
    if not mask.all():
        values[~mask] = 0
    return values
