"""Where responses to prompts are kept: whole episodes of text, in a ring of fixed size.

A response is a segment by itself: the prompt is its context, and prompt and previous tokens are
the state, so that no observation is stored. Responses are numbered in the order in which they
ended; those that are still being written stand apart, and those that were broken off are dropped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from prefgym.segments import Segments
from prefgym.store import SegmentIndex
from prefgym.text import Layout


class ResponseStore:
    """The newest responses, with their prompts.

    It answers to what :class:`prefgym.store.EpisodeStore` does wherever both make sense; segments
    are always whole responses, of which only those to one prompt may be compared.

    Args:
        layout: where prompt and response stand in an observation.
        lanes: environments that write side by side.
        capacity: tokens that are remembered; rounded to whole responses.
        factor_names: the named parts of the true reward that come with every step.
    """

    across_contexts = False

    def __init__(
        self, layout: Layout, lanes: int, capacity: int, factor_names: Sequence[str] = ()
    ) -> None:
        self.layout, self.lanes, self.capacity = layout, lanes, capacity
        self.factor_names = tuple(factor_names)
        rows, prompt, response = self._rows, layout.prompt_tokens, layout.response_tokens
        self._columns: dict[str, np.ndarray] = {
            "context": np.zeros((rows, prompt), np.int32),
            "context_id": np.zeros(rows, np.int64),
            "actions": np.zeros((rows, response), np.int32),
            "length": np.zeros(rows, np.int32),
            "terminated": np.zeros(rows, np.bool_),
            "steps_before": np.zeros(rows, np.int64),
            "rewards": np.zeros((rows, response), np.float64),
        }
        for name in self.factor_names:
            self._columns[f"factors/{name}"] = np.zeros((rows, response), np.float64)
        self._open = {
            name: np.zeros((lanes, *column.shape[1:]), column.dtype)
            for name, column in self._columns.items()
        }
        self._writing = np.zeros(lanes, np.bool_)
        self.count = 0
        """Responses ever finished."""
        self.total_steps = 0
        """Tokens ever appended."""
        self.any_terminated = False
        """Whether any response ever ended by itself."""

    @property
    def _rows(self) -> int:
        return max(2, self.capacity // self.layout.response_tokens)

    # -- writing ------------------------------------------------------------------------------

    def begin(
        self,
        lanes: Int[np.ndarray, " n"],
        observations: Shaped[np.ndarray, " n *obs"],
        context_id: Int[np.ndarray, " n"] | None = None,
    ) -> None:
        """Open a response in each of ``lanes``; one still open there is dropped.

        Raises:
            ValueError: no ``context_id``: responses to one prompt must be known as such.
        """
        if context_id is None:
            raise ValueError(
                'The environment told no info["context_id"] at reset(); responses are compared to'
                " others of the same prompt, so give every prompt a number."
            )
        self._open["context"][lanes] = self.layout.split(observations)[0]
        self._open["context_id"][lanes] = context_id
        for name in self._open.keys() - {"context", "context_id"}:
            self._open[name][lanes] = 0
        self._writing[lanes] = True

    def check_actions(self, actions: Shaped[np.ndarray, " *tokens"]) -> None:
        """Refuse what is no token before an environment sees it.

        Raises:
            ValueError: it is no whole number, or not among the vocabulary.
        """
        size = self.layout.codec.size
        tokens = np.asarray(actions)
        if tokens.dtype.kind not in "iu":
            raise ValueError(
                f"step() got tokens of type {tokens.dtype}; wanted whole numbers from 0 to"
                f" {size - 1}."
            )
        if tokens.size and (tokens.min() < 0 or tokens.max() >= size):
            odd = tokens[(tokens < 0) | (tokens >= size)].flat[0]
            raise ValueError(
                f"step() got the token {odd}, and the vocabulary has {size} (0 to {size - 1});"
                " choose among these."
            )

    def append(
        self,
        lanes: Int[np.ndarray, " n"],
        actions: Shaped[np.ndarray, " n"],
        rewards: Shaped[np.ndarray, " n"],
        next_observations: Shaped[np.ndarray, " n *obs"],
        terminated: Bool[np.ndarray, " n"],
        truncated: Bool[np.ndarray, " n"],
        factors: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one token to the open response of each lane, and keep those that ended.

        Raises:
            ValueError: no response is open in a lane, or a reward is NaN or infinite.
        """
        if not self._writing[lanes].all():
            raise ValueError("A step came before reset(); call reset() before the first step().")
        self._check_rewards(rewards)
        here = (lanes, self._open["length"][lanes])
        self._open["actions"][here] = actions
        self._open["rewards"][here] = rewards
        for name in self.factor_names:
            self._open[f"factors/{name}"][here] = 0.0 if factors is None else factors[name]
        self._open["length"][lanes] += 1
        ended = np.asarray(terminated) | np.asarray(truncated)
        if ended.any():
            done = np.asarray(lanes)[ended]
            self._open["terminated"][done] = np.asarray(terminated)[ended]
            self._keep({name: column[done] for name, column in self._open.items()})
            self._writing[done] = False

    def extend(
        self,
        actions: Int[np.ndarray, " lanes steps"],
        lengths: Int[np.ndarray, " lanes"],
        rewards: Shaped[np.ndarray, " lanes steps"],
        terminated: Bool[np.ndarray, " lanes"],
        factors: Mapping[str, np.ndarray],
    ) -> SegmentIndex:
        """Keep a whole response of every lane, each to the prompt that is open there.

        Raises:
            ValueError: some lane is in the middle of a response, or a reward is not finite.
        """
        if not self._writing.all() or self._open["length"].any():
            raise ValueError(
                "play() needs every lane at the beginning of a response; call reset() first, and do"
                " not mix play() with step()."
            )
        self._check_rewards(rewards)
        self._writing[:] = False
        return self._keep(
            {
                "context": self._open["context"],
                "context_id": self._open["context_id"],
                "actions": actions,
                "length": lengths,
                "terminated": terminated,
                "rewards": rewards,
                **{f"factors/{name}": factors[name] for name in self.factor_names},
            }
        )

    def interrupt(self, lanes: Int[np.ndarray, " n"]) -> None:
        """Drop whatever is open in ``lanes``."""
        self._writing[lanes] = False

    def _keep(self, finished: Mapping[str, np.ndarray]) -> SegmentIndex:
        lengths = finished["length"]
        numbers = self.count + np.arange(len(lengths))
        rows = numbers % self._rows
        newest = slice(-self._rows, None)
        before = self.total_steps + np.cumsum(lengths) - lengths
        for name, values in {**finished, "steps_before": before}.items():
            self._columns[name][rows[newest]] = values[newest]
        self.count += len(lengths)
        self.total_steps += int(lengths.sum())
        self.any_terminated |= bool(finished["terminated"].any())
        return SegmentIndex(numbers, np.zeros_like(numbers), lengths.astype(np.int64))

    def _check_rewards(self, rewards: np.ndarray) -> None:
        if not np.isfinite(rewards).all():
            raise ValueError(
                f"The environment returned the rewards {np.asarray(rewards).tolist()}; preferences"
                " need finite rewards, so mend the environment's reward function."
            )

    # -- reading ------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Tokens of finished responses that can be read now."""
        return int(self._columns["length"][: min(self.count, self._rows)].sum())

    @property
    def nbytes(self) -> int:
        """Bytes of every array at full capacity."""
        return sum(one.nbytes for one in (*self._columns.values(), *self._open.values()))

    @property
    def longest(self) -> int:
        """Tokens of the longest response in the store."""
        return int(self._columns["length"].max(initial=0))

    def starts(self, steps: int, *, recent: int | None = None, pad: bool = True) -> int:
        """How many responses can be drawn: of at most ``steps`` tokens, or of exactly so many."""
        return len(self._usable(steps, recent, pad))

    def sample(
        self,
        count: int,
        steps: int,
        rng: np.random.Generator,
        *,
        recent: int | None = None,
        pad: bool = True,
    ) -> SegmentIndex:
        """Draw whole responses uniformly, with replacement; see :meth:`starts`.

        Raises:
            ValueError: there is none.
        """
        usable = self._usable(steps, recent, pad)
        if not len(usable):
            raise ValueError(
                f"No response of {'at most ' if pad else ''}{steps} tokens is in the store (the"
                f" longest has {self.longest}); act for longer, or raise segment_steps."
            )
        return self._index(usable[rng.integers(len(usable), size=count)])

    def sample_pairs(
        self, count: int, steps: int, rng: np.random.Generator, *, recent: int | None = None
    ) -> tuple[SegmentIndex, SegmentIndex]:
        """Draw pairs of two responses to one prompt, uniformly among all such pairs.

        Raises:
            ValueError: no prompt has two responses yet.
        """
        usable = self._usable(steps, recent, pad=True)
        context = self._columns["context_id"][usable % self._rows]
        order = np.argsort(context, kind="stable")
        _, first, size = np.unique(context[order], return_index=True, return_counts=True)
        pairs = size * (size - 1)
        reach = np.cumsum(pairs)
        if not len(reach) or reach[-1] == 0:
            raise ValueError(
                "No prompt has two responses yet; act for longer, make the environment with"
                " samples_per_prompt=2 or more, or with fewer prompts."
            )
        draw = rng.integers(reach[-1], size=count)
        group = np.searchsorted(reach, draw, side="right")
        within = draw - (reach[group] - pairs[group])
        one, other = np.divmod(within, np.maximum(size[group] - 1, 1))
        other += other >= one
        members = usable[order]
        return self._index(members[first[group] + one]), self._index(members[first[group] + other])

    def distinct_pair(
        self, steps: int, rng: np.random.Generator, *, recent: int | None = None
    ) -> tuple[SegmentIndex, SegmentIndex] | None:
        """Draw one pair of two responses to one prompt; None where there is none."""
        usable = self._usable(steps, recent, pad=True)
        context = self._columns["context_id"][usable % self._rows]
        if len(np.unique(context)) == len(context):
            return None
        return self.sample_pairs(1, steps, rng, recent=recent)

    def check_room(self, steps: int, recent: int | None = None) -> None:
        """Refuse a capacity that can never hold two responses.

        Raises:
            ValueError: it, or what is ``recent`` of it, is too small.
        """
        needed = 2 * self.layout.response_tokens
        for name, tokens in {"capacity": self.capacity, "recent": recent}.items():
            if tokens is not None and tokens < needed:
                raise ValueError(
                    f"{name}={tokens} tokens are too few for two responses of"
                    f" {self.layout.response_tokens}; raise {name}= to {needed} or more."
                )

    def segments(self, index: SegmentIndex, steps: int) -> Segments:
        """Copy responses out, in rows of ``steps`` tokens.

        Raises:
            ValueError: a response is not there (any more), or longer than ``steps``.
        """
        oldest = max(0, self.count - self._rows)
        inside = (index.episode >= oldest) & (index.episode < self.count)
        if not inside.all():
            raise ValueError(
                f"Response {index.episode[~inside][0]} was asked for, but the store holds numbers"
                f" {oldest} to {self.count - 1}; copy responses out sooner or raise the capacity."
            )
        rows = index.episode % self._rows
        lengths = self._columns["length"][rows]
        whole = (index.start == 0) & (index.length == lengths) & (lengths <= steps)
        if not whole.all():
            odd = int(np.argmin(whole))
            raise ValueError(
                f"Tokens {index.start[odd]} to {index.start[odd] + index.length[odd]} of a response"
                f" of {lengths[odd]} were asked for in rows of {steps}; a segment of text is a"
                " whole response."
            )
        width = min(steps, self.layout.response_tokens)
        mask = np.arange(width) < lengths[:, None]

        def column(name: str) -> np.ndarray:
            return np.where(mask, self._columns[name][rows, :width], 0)

        found = Segments(
            actions=column("actions").astype(np.int64),
            mask=mask,
            context=self._columns["context"][rows].astype(np.int64),
            context_id=self._columns["context_id"][rows],
            rewards=column("rewards"),
            factors={name: column(f"factors/{name}") for name in self.factor_names},
            episode=index.episode.astype(np.int64),
            start=index.start.astype(np.int64),
        )
        return found.padded(steps)

    def factor(
        self, name: str, index: SegmentIndex, steps: int
    ) -> tuple[Shaped[np.ndarray, " b steps"], Bool[np.ndarray, " b steps"]]:
        """One factor of responses, and their mask.

        Raises:
            ValueError: as :meth:`segments`.
        """
        found = self.segments(index, steps)
        return found.factors[name], found.mask

    def whole(self, episodes: Int[np.ndarray, " n"]) -> SegmentIndex:
        """These responses."""
        return self._index(np.asarray(episodes))

    def ended(self, episodes: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Always: a response is kept when it is finished."""
        return np.ones(len(episodes), np.bool_)

    def terminal(self, index: SegmentIndex) -> Bool[np.ndarray, " b"]:
        """Whether each response ended by itself, and was not cut off by the limit."""
        ended: np.ndarray = self._columns["terminated"][index.episode % self._rows]
        return ended

    def _readable(self) -> Int[np.ndarray, " responses"]:
        """Numbers of the responses that were not overwritten."""
        return np.arange(max(0, self.count - self._rows), self.count)

    def _usable(self, steps: int, recent: int | None, pad: bool) -> Int[np.ndarray, " responses"]:
        numbers: np.ndarray = self._readable()
        rows = numbers % self._rows
        length = self._columns["length"][rows]
        good = length <= steps if pad else length == steps
        if recent is not None:
            good &= self._columns["steps_before"][rows] + length > self.total_steps - recent
        usable: np.ndarray = numbers[good]
        return usable

    def _index(self, numbers: Int[np.ndarray, " n"]) -> SegmentIndex:
        length = self._columns["length"][numbers % self._rows].astype(np.int64)
        return SegmentIndex(numbers, np.zeros_like(numbers), length)

    # -- saving -------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """Copies of everything that was written, for :meth:`restore`."""
        used = min(self.count, self._rows)
        saved = {f"columns/{name}": one[:used].copy() for name, one in self._columns.items()}
        saved |= {f"open/{name}": one.copy() for name, one in self._open.items()}
        counted = (self.count, self.total_steps, int(self.any_terminated), self.capacity)
        return saved | {"writing": self._writing.copy(), "counted": np.array(counted)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a :meth:`state` of a store that was made with the same arguments.

        Raises:
            ValueError: it has other lanes, another capacity, layout or other factors.
        """
        theirs = {name: one.shape for name, one in state.items() if name.startswith("open/")}
        ours = {f"open/{name}": one.shape for name, one in self._open.items()}
        capacity = int(state["counted"][3])
        if theirs != ours or capacity != self.capacity:
            raise ValueError(
                f"ResponseStore: the state has capacity {capacity} and the shapes {theirs}, and"
                f" this store {self.capacity} and {ours}; make the environment with the arguments"
                " that it had then."
            )
        for name, column in self._columns.items():
            column[: len(state[f"columns/{name}"])] = state[f"columns/{name}"]
        for name, column in self._open.items():
            column[:] = state[f"open/{name}"]
        self._writing[:] = state["writing"]
        self.count, self.total_steps = (int(one) for one in state["counted"][:2])
        self.any_terminated = bool(state["counted"][2])

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles hold the responses that were written, not the whole capacity."""
        made_with = (self.layout, self.lanes, self.capacity, self.factor_names)
        return type(self), made_with, self.state()

    def __setstate__(self, state: Mapping[str, np.ndarray]) -> None:
        """As :meth:`restore`."""
        self.restore(state)
