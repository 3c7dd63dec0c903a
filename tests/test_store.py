"""The episode store against lists: the same segments, and never a step too many."""

import copy
import pickle
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefgym.episodes import OPEN, TERMINATED, TRUNCATED
from prefgym.store import EpisodeStore, SegmentIndex

Place = tuple[int, int, int]
"""Episode, start, length."""


class Enumeration(np.random.Generator):
    """Draws every number once, in order: what can be sampled becomes a list."""

    def integers(self, low: Any, *args: Any, **kwargs: Any) -> Any:
        return np.arange(low)


EVERYTHING = Enumeration(np.random.PCG64(0))


@dataclass
class Episode:
    lane: int
    first: int
    """Row of the lane, counted since the beginning, of its first step."""
    context_id: int
    observations: list[float]
    steps: list[tuple[float, float, float]] = field(default_factory=list)
    """Action, reward, factor."""
    end: int = OPEN


class Naive:
    """What the store should hold, as lists; and which row of the ring holds what by now."""

    def __init__(self, lanes: int, capacity: int) -> None:
        self.lanes, self.capacity = lanes, capacity
        self.episodes: list[Episode] = []
        self.open: list[int | None] = [None] * lanes
        self.head = [0] * lanes
        self.ring: list[dict[int, tuple[int, int]]] = [{} for _ in range(lanes)]

    def begin(self, lanes: list[int], observations: list[float], contexts: list[int]) -> None:
        for lane in lanes:
            self.close(lane, TRUNCATED)
        for lane, observation, context in zip(lanes, observations, contexts, strict=True):
            number = len(self.episodes)
            self.episodes.append(Episode(lane, self.head[lane], context, [observation]))
            self.open[lane] = number
            self.ring[lane][self.head[lane] % self.capacity] = (number, 0)

    def append(self, lane: int, step: tuple[float, float, float], after: float, end: int) -> None:
        number = self.open[lane]
        assert number is not None
        self.episodes[number].steps.append(step)
        self.episodes[number].observations.append(after)
        self.head[lane] += 1
        place = (number, len(self.episodes[number].steps))
        self.ring[lane][self.head[lane] % self.capacity] = place
        if end != OPEN:
            self.close(lane, end)

    def close(self, lane: int, end: int) -> None:
        number = self.open[lane]
        if number is not None:
            self.episodes[number].end = end
            self.open[lane] = None
            self.head[lane] += 1

    def oldest(self, number: int) -> int:
        """First step of an episode that must still be readable: the ring holds the newest rows."""
        one = self.episodes[number]
        return max(0, self.head[one.lane] + 1 - self.capacity - one.first)

    def intact(self, number: int, position: int) -> bool:
        """Whether an observation of an episode is still in its slot."""
        one = self.episodes[number]
        slot = (one.first + position) % self.capacity
        return self.ring[one.lane].get(slot) == (number, position)

    def places(self, steps: int, pad: bool, recent: int | None = None) -> list[Place]:
        found = []
        for number, one in enumerate(self.episodes):
            begin = self.oldest(number)
            if recent is not None:
                begin = max(begin, self.head[one.lane] - -(-recent // self.lanes) - one.first)
            for start in range(begin, len(one.steps)):
                length = min(steps, len(one.steps) - start)
                if length == steps or (pad and one.end == TERMINATED):
                    found.append((number, start, length))
        return found


class Play:
    """A random history, told to a store and to the lists alike. Every number in it is unique."""

    def __init__(self, seed: int, lanes: int, capacity: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.store = empty(lanes, capacity)
        self.naive = Naive(lanes, capacity)
        self.told = 0

    def go_on(self, turns: int, *others: EpisodeStore) -> None:
        stores = (self.store, *others)
        for _ in range(turns):
            ready = [lane for lane, one in enumerate(self.naive.open) if one is not None]
            if not ready or self.rng.random() < 0.1:
                self._begin(stores)
            elif self.rng.random() < 0.05:
                lanes = self._some(ready)
                for lane in lanes:
                    self.naive.close(lane, TRUNCATED)
                for store in stores:
                    store.interrupt(np.array(lanes))
            else:
                self._append(self._some(ready), stores)

    def _begin(self, stores: tuple[EpisodeStore, ...]) -> None:
        lanes = self._some(range(self.naive.lanes))
        seen, contexts = self._numbers(len(lanes)), self.rng.integers(0, 5, len(lanes))
        self.naive.begin(lanes, seen.tolist(), contexts.tolist())
        for store in stores:
            store.begin(np.array(lanes), seen[:, None], contexts)

    def _append(self, lanes: list[int], stores: tuple[EpisodeStore, ...]) -> None:
        count = len(lanes)
        actions, rewards, factors, after = (self._numbers(count) for _ in range(4))
        terminated, truncated = self.rng.random((2, count)) < 0.1
        for row, lane in enumerate(lanes):
            end = TERMINATED if terminated[row] else TRUNCATED if truncated[row] else OPEN
            step = float(actions[row]), float(rewards[row]), float(factors[row])
            self.naive.append(lane, step, float(after[row]), end)
        for store in stores:
            store.append(
                np.array(lanes),
                actions,
                rewards,
                after[:, None],
                terminated,
                truncated,
                {"factor": factors},
            )

    def _some(self, lanes: Any) -> list[int]:
        chosen = [lane for lane in lanes if self.rng.random() < 0.6]
        return chosen or [int(self.rng.choice(list(lanes)))]

    def _numbers(self, count: int) -> np.ndarray:
        self.told += count
        return np.arange(self.told - count, self.told) + 1.0


def empty(lanes: int = 1, capacity: int = 50) -> EpisodeStore:
    observed = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    acted = gym.spaces.Box(-np.inf, np.inf, (), np.float64)
    return EpisodeStore(observed, acted, lanes, capacity, ("factor",))


def places(index: SegmentIndex) -> list[Place]:
    return list(zip(*(one.tolist() for one in index), strict=True))


def everything(store: EpisodeStore, steps: int, **how: Any) -> SegmentIndex:
    """Each segment that can be sampled, once."""
    return store.sample(store.starts(steps, **how), steps, EVERYTHING, **how)


@st.composite
def plays(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Seed, lanes, capacity and turns."""
    return (
        draw(st.integers(0, 10_000)),
        draw(st.integers(1, 4)),
        draw(st.integers(2, 40)),
        draw(st.integers(0, 150)),
    )


def played(recipe: tuple[int, int, int, int]) -> Play:
    play = Play(*recipe[:3])
    play.go_on(recipe[3])
    return play


@given(plays(), st.integers(1, 7), st.booleans(), st.none() | st.integers(1, 60))
def test_what_can_be_sampled_is_what_the_lists_hold(
    recipe: tuple[int, int, int, int], steps: int, pad: bool, recent: int | None
) -> None:
    play = played(recipe)
    expected = play.naive.places(steps, pad, recent)
    assert play.store.starts(steps, pad=pad, recent=recent) == len(expected)
    assert len(play.store) == len(play.naive.places(1, pad=False))
    if expected:
        found = everything(play.store, steps, pad=pad, recent=recent)
        assert sorted(places(found)) == sorted(expected)
    else:
        with pytest.raises(ValueError, match=r"No episode in the store has .* steps yet"):
            play.store.sample(1, steps, np.random.default_rng(0), pad=pad, recent=recent)


@given(plays(), st.integers(1, 7))
def test_every_segment_is_what_was_written_and_was_not_overwritten(
    recipe: tuple[int, int, int, int], steps: int
) -> None:
    play = played(recipe)
    if not play.store.starts(steps):
        return
    index = everything(play.store, steps)
    segments = play.store.segments(index, steps)
    assert segments.steps == steps
    for row, (number, start, length) in enumerate(places(index)):
        one = play.naive.episodes[number]
        stop = start + length
        assert stop <= len(one.steps)
        assert length == steps or (one.end == TERMINATED and stop == len(one.steps))
        # The observation after the last step is there too: replay needs it.
        assert all(play.naive.intact(number, position) for position in range(start, stop + 1))
        wanted = np.zeros((steps, 4))
        wanted[:length, 0] = one.observations[start:stop]
        wanted[:length, 1:] = one.steps[start:stop]
        columns = [segments.observations[row, :, 0], segments.actions[row], segments.rewards[row]]
        np.testing.assert_array_equal(
            np.stack([*columns, segments.factors["factor"][row]], 1), wanted
        )
        assert segments.mask[row].tolist() == [True] * length + [False] * (steps - length)
        assert segments.context[row, 0] == one.observations[start]
        assert (segments.episode[row], segments.start[row]) == (number, start)
        if start == 0:
            assert segments.context_id[row] == one.context_id
    alone, mask = play.store.factor("factor", index, steps)
    np.testing.assert_array_equal(alone, segments.factors["factor"])
    np.testing.assert_array_equal(mask, segments.mask)
    begun_later = segments.start > 0
    strangers = segments.context_id[begun_later]
    assert (strangers < 0).all()
    assert len(set(strangers.tolist())) == begun_later.sum()


@settings(max_examples=40)
@given(plays(), st.integers(1, 7))
def test_rows_and_ends_are_those_of_the_lists(
    recipe: tuple[int, int, int, int], steps: int
) -> None:
    play = played(recipe)
    if not play.store.starts(steps):
        return
    index = everything(play.store, steps)
    lanes, rows = play.store.rows(index)
    ends = play.store.terminal(index)
    for row, (number, start, length) in enumerate(places(index)):
        one = play.naive.episodes[number]
        assert lanes[row] == one.lane
        assert play.store.actions[lanes[row], rows[row]] == one.steps[start][0]
        assert ends[row] == (one.end == TERMINATED and start + length == len(one.steps))
    ended = [one for one in play.naive.episodes if one.end == TERMINATED]
    assert play.store.any_terminated == bool(ended)
    assert play.store.total_steps == sum(len(one.steps) for one in play.naive.episodes)


@settings(max_examples=40)
@given(plays(), st.integers(1, 7))
def test_whole_episodes_are_what_is_left_of_them_and_pieces_cover_them(
    recipe: tuple[int, int, int, int], steps: int
) -> None:
    play = played(recipe)
    if not play.store.starts(1):
        return
    numbers = np.unique(everything(play.store, 1).episode)
    index = play.store.whole(numbers)
    lists = [play.naive.episodes[n] for n in numbers]
    left = [(n, play.naive.oldest(n)) for n in numbers]
    assert places(index) == [
        (n, first, len(one.steps) - first) for (n, first), one in zip(left, lists, strict=True)
    ]
    assert play.store.ended(numbers).tolist() == [one.end != OPEN for one in lists]
    pieces = index.pieces(steps)
    assert (pieces.length <= steps).all()
    covered = [(n, start + k) for n, start, length in places(pieces) for k in range(length)]
    assert covered == [(n, s + k) for n, s, length in places(index) for k in range(length)]


@settings(max_examples=40)
@given(plays(), st.integers(0, 60), st.none() | st.integers(1, 5))
def test_since_is_everything_written_since(
    recipe: tuple[int, int, int, int], more: int, chunk: int | None
) -> None:
    play = played(recipe)
    heads = play.store.head.copy()
    before = {n: len(one.steps) for n, one in enumerate(play.naive.episodes)}
    play.go_on(more)
    found = play.store.since(heads, chunk)
    expected = [
        (number, step)
        for number, one in enumerate(play.naive.episodes)
        for step in range(max(before.get(number, 0), play.naive.oldest(number)), len(one.steps))
    ]
    steps = [(n, start + step) for n, start, length in places(found) for step in range(length)]
    assert sorted(steps) == expected
    if chunk is not None:
        assert (found.length <= chunk).all()
    lane, _ = play.store.rows(found)
    for one in range(play.store.lanes):
        mine = [place for place, of in zip(places(found), lane, strict=True) if of == one]
        assert mine == sorted(mine)


@settings(max_examples=40)
@given(plays(), st.integers(0, 60), st.sampled_from(["restore", "pickle", "copy"]))
def test_a_restored_store_goes_on_as_if_nothing_had_happened(
    recipe: tuple[int, int, int, int], more: int, how: str
) -> None:
    play = played(recipe)
    if how == "restore":
        other = empty(*recipe[1:3])
        other.restore(play.store.state())
    else:
        other = copy.deepcopy(play.store) if how == "copy" else restored(play.store)
    for turns in (0, more):
        play.go_on(turns, other)
        assert other.starts(2) == play.store.starts(2)
        np.testing.assert_array_equal(other.head, play.store.head)
        assert other.total_steps == play.store.total_steps
        assert other.any_terminated == play.store.any_terminated
        if play.store.starts(2):
            one, two = everything(play.store, 2), everything(other, 2)
            assert places(one) == places(two)
            first, second = play.store.segments(one, 2).arrays(), other.segments(two, 2).arrays()
            for name, value in first.items():
                np.testing.assert_array_equal(value, second[name])


def restored(store: EpisodeStore) -> EpisodeStore:
    again: EpisodeStore = pickle.loads(pickle.dumps(store))
    return again


def test_a_state_is_a_copy_and_a_copy_is_small() -> None:
    store = empty(2, 1_000_000)
    store.begin(np.array([0, 1]), np.zeros((2, 1)))
    assert len(pickle.dumps(store)) < 10_000
    state = store.state()
    store.append(*step(2), {"factor": np.ones(2)})
    assert state["head"].tolist() == [0, 0]
    store.restore(state)
    assert len(store) == 0


def step(lanes: int = 1, reward: float = 1.0, **ended: bool) -> tuple[Any, ...]:
    flags = [np.full(lanes, ended.get(name, False)) for name in ("terminated", "truncated")]
    return np.arange(lanes), np.ones(lanes), np.full(lanes, reward), np.ones((lanes, 1)), *flags


def test_sampling_is_uniform_over_all_segments_and_equal_under_equal_generators() -> None:
    play = played((4, 3, 60, 300))
    total, draws = play.store.starts(3), 200_000
    assert total > 50
    index = play.store.sample(draws, 3, np.random.default_rng(0))
    order = {place: number for number, place in enumerate(places(everything(play.store, 3)))}
    counts = np.bincount([order[place] for place in places(index)], minlength=total)
    chi_squared = float(((counts - draws / total) ** 2).sum() * total / draws)
    assert abs(chi_squared - (total - 1)) < 4 * np.sqrt(2 * (total - 1))
    again = play.store.sample(draws, 3, np.random.default_rng(0))
    assert places(again) == places(index)


def test_segments_are_copies() -> None:
    play = played((1, 2, 30, 100))
    index = everything(play.store, 1)
    segments = play.store.segments(index, 1)
    before = segments.observations.copy()
    for column in (play.store.observations, play.store.actions, play.store.rewards):
        column[:] = -1.0
    np.testing.assert_array_equal(segments.observations, before)
    assert (segments.context == before[:, 0]).all()


def test_episodes_that_were_cut_off_are_never_padded() -> None:
    store = empty()
    for end in ("terminated", "truncated"):
        store.begin(np.array([0]), np.zeros((1, 1)))
        for number in range(3):
            store.append(*step(**{end: number == 2}))
    assert places(everything(store, 5)) == [(0, 0, 3), (0, 1, 2), (0, 2, 1)]
    assert store.starts(5, pad=False) == 0
    assert store.starts(3, pad=False) == 2
    assert store.longest == 3


def test_a_start_that_nobody_named_has_an_id_of_its_own() -> None:
    store = empty(2)
    store.begin(np.array([0, 1]), np.zeros((2, 1)))
    store.append(*step(2, terminated=True))
    store.begin(np.array([0]), np.zeros((1, 1)))
    store.append(*step(1))
    ids = store.segments(everything(store, 1), 1).context_id
    assert len(set(ids.tolist())) == 3


def test_memory_is_bounded_and_close_to_the_raw_columns() -> None:
    """Hopper: 11 observations, 3 actions, 5 factors; random episodes have 20 steps."""
    lanes, rows, length = 50, 500, 20
    factors = ("progress", "alive", "action2", "height", "tilt2")
    observed = gym.spaces.Box(-np.inf, np.inf, (11,), np.float64)
    acted = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    raw_bytes = 11 * 8 + 3 * 4 + 8 + 2 + len(factors) * 8

    def filled(capacity: int, episodes: int) -> EpisodeStore:
        store = EpisodeStore(observed, acted, lanes, capacity, factors)
        every, nothing = np.arange(lanes), np.zeros(lanes)
        told = {name: nothing for name in factors}
        no = np.zeros(lanes, bool)
        for _ in range(episodes):
            store.begin(every, np.zeros((lanes, 11)))
            for number in range(length):
                ended = np.full(lanes, number == length - 1)
                acts = np.zeros((lanes, 3), np.float32)
                store.append(every, acts, nothing, np.zeros((lanes, 11)), ended, no, told)
        return store

    store = filled(rows, 60)
    assert store.total_steps > 2 * rows * lanes
    assert store.nbytes <= 1.1 * raw_bytes * len(store)
    assert store.nbytes == filled(rows, 120).nbytes
    assert EpisodeStore(observed, acted, 1, 1_000_000, factors).nbytes <= 1.1e6 * raw_bytes


@settings(max_examples=10)
@given(plays())
def test_numbers_of_episodes_never_change(recipe: tuple[int, int, int, int]) -> None:
    play = played(recipe)
    if play.store.starts(1):
        index = everything(play.store, 1)
        play.go_on(200)
        kept = [row for row, (n, start, _) in enumerate(places(index)) if start >= oldest(play, n)]
        lost = sorted(set(range(len(index.episode))) - set(kept))
        here = SegmentIndex(*(one[kept] for one in index))
        rewards = [play.naive.episodes[n].steps[start][1] for n, start, _ in places(here)]
        assert play.store.segments(here, 1).rewards[:, 0].tolist() == rewards
        for row in lost[:3]:
            with pytest.raises(ValueError, match=r"no longer holds all"):
                play.store.segments(SegmentIndex(*(one[row : row + 1] for one in index)), 1)


def oldest(play: Play, number: int) -> int:
    return play.naive.oldest(number)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", [np.nan, np.inf, -np.inf])
def test_rewards_that_are_no_numbers_are_refused_and_nothing_is_written(reward: float) -> None:
    store = empty()
    store.begin(np.array([0]), np.zeros((1, 1)))
    store.append(*step())
    with pytest.raises(ValueError, match=r"finite rewards, so mend"):
        store.append(*step(reward=reward))
    assert len(store) == store.total_steps == 1


@pytest.mark.parametrize(
    ("position", "value", "sentence"),
    [
        (1, np.ones((1, 2)), r"action has shape \(2,\), but its space says \(\)"),
        (3, np.ones((1, 2)), r"observation has shape \(2,\), but its space says \(1,\)"),
        (3, np.ones(1), r"observation has shape \(\), but its space says \(1,\)"),
    ],
)
def test_steps_of_another_shape_are_refused(position: int, value: Any, sentence: str) -> None:
    store = empty()
    store.begin(np.array([0]), np.zeros((1, 1)))
    bad = list(step())
    bad[position] = value
    with pytest.raises(ValueError, match=sentence):
        store.append(*bad)
    assert len(store) == 0


def test_actions_are_looked_at_before_an_environment_sees_them() -> None:
    empty().check_actions(np.zeros(1))
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"actions \[(nan|inf)\]; wanted finite numbers"):
            empty().check_actions(np.array([value]))
    with pytest.raises(ValueError, match=r"action has shape \(2,\), but its space says \(\)"):
        empty().check_actions(np.ones((1, 2)))


def test_a_missing_factor_is_named() -> None:
    store = empty()
    store.begin(np.array([0]), np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"'factor' is not in its info"):
        store.append(*step(), {"another": np.zeros(1)})
    assert len(store) == 0


def test_a_step_needs_an_episode() -> None:
    store = empty()
    with pytest.raises(ValueError, match=r"call reset\(\) before the first step"):
        store.append(*step())
    store.begin(np.array([0]), np.zeros((1, 1)))
    store.append(*step(terminated=True))
    with pytest.raises(ValueError, match=r"call reset\(\) before the first step"):
        store.append(*step())


def test_segments_lie_within_an_episode_that_is_there() -> None:
    store = empty(capacity=5)
    store.begin(np.array([0]), np.zeros((1, 1)))
    for _ in range(3):
        store.append(*step())

    def cut(episode: int, start: int, length: int) -> None:
        index = SegmentIndex(*(np.array([one]) for one in (episode, start, length)))
        store.segments(index, 3)

    cut(0, 1, 2)
    with pytest.raises(ValueError, match=r"Steps 1 to 4 of episode 0 .* which has 3"):
        cut(0, 1, 3)
    with pytest.raises(ValueError, match=r"Steps -1 to 1 of episode 0"):
        cut(0, -1, 2)
    with pytest.raises(ValueError, match=r"no longer holds"):
        cut(1, 0, 1)
    for _ in range(3):
        store.append(*step())
    with pytest.raises(ValueError, match=r"episodes 0\.\.0 .* no longer holds"):
        cut(0, 0, 2)
    with pytest.raises(ValueError, match=r"has 9 steps yet \(the longest has 4\)"):
        store.sample(1, 9, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"of 0 steps"):
        store.sample(1, 0, np.random.default_rng(0))


def test_what_no_store_can_hold_is_refused_when_it_is_made() -> None:
    box, no_shape = gym.spaces.Box(0, 1, (2,)), gym.spaces.Dict({"a": gym.spaces.Discrete(2)})
    with pytest.raises(ValueError, match=r"observation space Dict.*FlattenObservation"):
        EpisodeStore(no_shape, box)
    with pytest.raises(ValueError, match=r"action space Dict.* no fixed shape"):
        EpisodeStore(box, no_shape)
    with pytest.raises(ValueError, match=r"lanes=0"):
        EpisodeStore(box, box, 0)
    with pytest.raises(ValueError, match=r"capacity=1; wanted"):
        EpisodeStore(box, box, 1, 1)
    with pytest.raises(ValueError, match=r"do not fit into memory .* smaller capacity"):
        EpisodeStore(box, box, 1, 1 << 50)


def test_a_state_of_another_store_is_refused() -> None:
    state = played((0, 2, 20, 50)).store.state()
    for other in (empty(1, 20), empty(2, 21)):
        with pytest.raises(ValueError, match=r"make the environment with the arguments"):
            other.restore(state)
    box = gym.spaces.Box(0, 1, (1,))
    with pytest.raises(ValueError, match=r"\(2, 20, 'factor'\), and this store \(2, 20\)"):
        EpisodeStore(box, box, 2, 20).restore(state)
