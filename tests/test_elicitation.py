"""Asking: when, about what, within which budget; what was answered once is not asked again."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from prefgym import checkpoints, elicitation
from prefgym.comparisons import Comparisons, Labels
from prefgym.elicitation import BudgetExhaustedError, Elicitor, Schedule
from prefgym.raters import make_rater
from prefgym.segments import Segments
from prefgym.store import EpisodeStore, SegmentIndex

ONE = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)


def filled(steps: int = 40, episodes: int = 3, lanes: int = 1, capacity: int = 10_000) -> Any:
    """A store in which every observation, action and reward is a number of its own."""
    store = EpisodeStore(ONE, ONE, lanes, capacity)
    rng = np.random.default_rng(0)
    for _ in range(episodes):
        store.begin(np.arange(lanes), rng.normal(size=(lanes, 1)))
        for step in range(steps):
            act(store, rng, truncated=step == steps - 1)
    return store


def act(store: EpisodeStore, rng: np.random.Generator, truncated: bool = False) -> None:
    lanes = store.lanes
    store.append(
        np.arange(lanes),
        rng.normal(size=(lanes, 1)),
        rng.normal(size=lanes),
        rng.normal(size=(lanes, 1)),
        np.zeros(lanes, bool),
        np.full(lanes, truncated),
    )


def elicitor(
    rater: Any = "partial-return",
    store: EpisodeStore | None = None,
    directory: Path | None = None,
    rater_kwargs: dict[str, Any] | None = None,
    **schedule: Any,
) -> Elicitor:
    schedule = {"segment_steps": 5, "query_every": 10} | schedule
    made = make_rater(rater, **(rater_kwargs or {}))
    one = Elicitor(filled() if store is None else store, made, Schedule(**schedule), directory)
    one.seed(7)
    return one


def pairs(store: EpisodeStore, count: int, seed: int = 0, steps: int = 5) -> list[Segments]:
    rng = np.random.default_rng(seed)
    return [store.segments(store.sample(count, steps, rng), steps) for _ in "ab"]


class Person:
    """Answers like a coin, remembers how often it was asked, and may skip or walk away."""

    def __init__(self, skip: float = 0.0) -> None:
        self.asked = 0
        self.skip = skip
        self.gone = False

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        if self.gone:
            raise ConnectionError("nobody is here")
        self.asked += len(a)
        answered = rng.random(len(a)) >= self.skip
        return Labels(rng.random(len(a)), answered, np.full(len(a), 3))


def events(one: Elicitor, steps: int, at_once: int = 1) -> list[tuple[int, dict[str, Any]]]:
    told = [(step, one.emit(at_once)) for step in range(1, steps + 1)]
    return [(step, answer) for step, answer in told if answer is not None]


def said(comparisons: Comparisons) -> list[tuple[Any, ...]]:
    columns = (comparisons.query_id, comparisons.label, comparisons.rater_id)
    starts = (comparisons.a.start, comparisons.b.start)
    return list(zip(*(one.tolist() for one in (*columns, *starts) if one is not None), strict=True))


# --- the schedule -------------------------------------------------------------------------------


def test_it_asks_at_the_appointed_steps_and_says_so_in_plain_numbers() -> None:
    one = elicitor()
    found = events(one, 55)
    assert [step for step, _ in found] == [10, 20, 30, 40, 50]
    assert [answer["query_id"] for _, answer in found] == [0, 1, 2, 3, 4]
    for _, answer in found:
        assert json.loads(json.dumps(answer)) == answer
        assert {type(value) for value in answer.values()} == {int, float}
        assert set(answer) == {
            *("query_id", "episode_a", "start_a", "length_a", "episode_b", "start_b", "length_b"),
            *("label", "rater_id"),
        }


def test_an_event_names_the_segments_that_the_rater_saw() -> None:
    one = elicitor()
    for row, (_, answer) in enumerate(events(one, 60)):
        asked = one.preferences.comparisons.take(slice(row, row + 1))
        for side, segments in (("a", asked.a), ("b", asked.b)):
            place = [answer[f"{name}_{side}"] for name in ("episode", "start", "length")]
            again = one.store.segments(SegmentIndex(*(np.array([n]) for n in place)), 5)
            for name, value in segments.arrays().items():
                np.testing.assert_array_equal(value, again.arrays()[name])
        returns = asked.a.rewards.sum(), asked.b.rewards.sum()
        assert answer["label"] == float(returns[0] > returns[1])


def test_lanes_count_together_and_at_most_one_question_comes_at_a_time() -> None:
    assert [step for step, _ in events(elicitor(), 7, at_once=4)] == [3, 6]
    assert [step for step, _ in events(elicitor(), 3, at_once=64)] == [1, 2, 3]


def test_it_waits_until_two_segments_exist_and_then_asks_soon() -> None:
    store, rng = EpisodeStore(ONE, ONE, 1, 1000), np.random.default_rng(0)
    store.begin(np.array([0]), np.zeros((1, 1)))
    one, asked = elicitor(store=store, segment_steps=25, query_every=20), []
    for step in range(1, 200):
        act(store, rng)
        if one.emit(1) is not None:
            asked.append(step)
    assert 50 <= asked[0] < 80
    assert min(np.diff(asked)) == 20


def test_only_on_request_nothing_is_emitted() -> None:
    assert events(elicitor(query_every=None), 100) == []
    one = elicitor()
    one.stop_emitting()
    assert events(one, 100) == []
    assert len(one.compare(*pairs(one.store, 2))) == 2


def test_the_two_segments_of_a_pair_share_no_step() -> None:
    one = elicitor(store=filled(steps=12, episodes=2), query_every=1)
    found = [answer for _, answer in events(one, 50)]
    assert len(found) > 40
    for answer in found:
        apart = abs(answer["start_a"] - answer["start_b"]) >= 5
        assert apart or answer["episode_a"] != answer["episode_b"]
    assert any(answer["episode_a"] == answer["episode_b"] for answer in found)
    for steps in (5, 9):
        single = elicitor(store=filled(steps=steps, episodes=1), query_every=1)
        assert events(single, 50) == []


def test_only_recent_steps_are_asked_about() -> None:
    one = elicitor(store=filled(steps=50, episodes=10), recent=60, query_every=1)
    episodes = [answer["episode_a"] for _, answer in events(one, 100)]
    assert set(episodes) == {8, 9}


def test_equal_seeds_give_equal_questions_and_answers() -> None:
    one, other, third = (elicitor("noisy") for _ in range(3))
    third.seed(8)
    first, second = events(one, 200), events(other, 200)
    assert first == second
    assert first != events(third, 200)
    again = elicitor("noisy")
    again.emit(9)
    again.seed(7)  # counting begins anew as well
    assert events(again, 200) == first


def test_silence_is_explained_once() -> None:
    one = elicitor(store=filled(steps=4, episodes=200), query_every=5)
    with pytest.warns(UserWarning, match=r"segments have 5 steps, and the longest episode had 4"):
        events(one, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        events(one, 100)


@pytest.mark.parametrize("name", ["segment_steps", "query_every", "budget", "recent"])
@pytest.mark.parametrize("value", [-1, 2.5, "10"])
def test_a_schedule_is_made_of_whole_numbers(name: str, value: Any) -> None:
    least = 0 if name == "budget" else 1
    schedule = Schedule()
    object.__setattr__(schedule, name, value)  # past the type checker of the tests
    with pytest.raises(ValueError, match=rf"{name}={value!r}; wanted a whole number of .* {least}"):
        schedule.__post_init__()


def test_segments_that_no_lane_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match=r"capacity= leaves 6 steps .* raise capacity= to 7"):
        elicitor(store=EpisodeStore(ONE, ONE, 1, 6))
    with pytest.raises(ValueError, match=r"recent= leaves 5 steps to each of 4 .* to 28 or more"):
        elicitor(store=EpisodeStore(ONE, ONE, 4, 100), recent=20)
    elicitor(store=EpisodeStore(ONE, ONE, 4, 7), recent=28)


# --- the budget ---------------------------------------------------------------------------------


def test_emitting_stops_when_the_budget_is_spent() -> None:
    one = elicitor(budget=3)
    assert len(events(one, 200)) == 3
    assert one.budget_left == 0
    with pytest.raises(BudgetExhaustedError, match=r"1 comparisons .* but 0 of the budget of 3"):
        one.compare(*pairs(one.store, 1))
    assert len(one.preferences) == 3


def test_a_request_beyond_the_budget_asks_nobody() -> None:
    person = Person()
    one = elicitor(person, budget=5)
    one.compare(*pairs(one.store, 3))
    with pytest.raises(ValueError, match=r"4 .* but 2 .* ask for fewer or raise budget="):
        one.compare(*pairs(one.store, 4))
    assert (person.asked, one.budget_left) == (3, 2)
    assert len(one.compare(*pairs(one.store, 2))) == 2
    assert elicitor().budget_left is None


def test_skipped_pairs_are_counted_absent_and_free() -> None:
    one = elicitor(Person(skip=0.5), budget=40)
    a, b = pairs(one.store, 40)
    answers = one.compare(a, b)
    assert 5 < len(answers) < 35
    assert len(answers) + one.preferences.skipped == 40 == one.preferences.asked
    assert one.budget_left == 40 - len(answers)
    kept = answers.query_id
    np.testing.assert_array_equal(answers.a.rewards, a.rewards[kept])
    emitted = events(elicitor(Person(skip=1.0)), 100)
    assert emitted == []


def test_answers_are_kept_with_all_that_belongs_to_them() -> None:
    one = elicitor("oracle", rater_kwargs={"rater_id": 4})
    a, b = pairs(one.store, 6)
    answers = one.compare(a, b)
    assert answers.meaning == one.preferences.meaning == "partial-return"
    assert answers.query_id.tolist() == list(range(6))
    assert answers.rater_id.tolist() == [4] * 6
    np.testing.assert_array_equal(answers.label, a.rewards.sum(1) > b.rewards.sum(1))
    assert one.compare(a.to("cpu"), b.to("cpu")).query_id.tolist() == list(range(6, 12))
    a.rewards[:] = 0.0
    assert one.preferences.comparisons.a.rewards.any()


@pytest.mark.parametrize(("first", "second"), [(2, 3), (0, 0), (0, 1)])
def test_pairs_come_in_equal_numbers(first: int, second: int) -> None:
    one = elicitor()
    a, b = pairs(one.store, 3)
    with pytest.raises(ValueError, match=rf"got {first} and {second} segments; wanted two batches"):
        one.compare(a.take(slice(first)), b.take(slice(second)))


def test_a_rater_that_fails_leaves_everything_as_it_was() -> None:
    person = Person()
    one, other = elicitor(person), elicitor(Person())
    a, b = pairs(one.store, 2)
    person.gone = True
    with pytest.raises(ConnectionError):
        one.compare(a, b)
    assert (one.queries, len(one.preferences)) == (0, 0)
    person.gone = False
    assert said(one.compare(a, b)) == said(other.compare(a, b))


# --- relative thresholds ------------------------------------------------------------------------


def test_thresholds_follow_the_statistic_of_recent_segments() -> None:
    store = filled(steps=50, episodes=4)
    store.rewards[:] = 2.0
    one = elicitor("partial-return", store, rater_kwargs={"equal": 0.1, "skip": 0.1})
    one.compare(*pairs(store, 1))
    rater: Any = one.rater
    assert rater.equal_threshold == pytest.approx(0.1 * 5 * 2.0)
    assert rater.skip_threshold == pytest.approx(0.1 * 5 * 2.0)

    def advantages(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return np.full(len(actions), -0.5)

    judge = make_rater("regret", advantages, equal=0.1)
    regret = Elicitor(store, judge, Schedule(5, None))
    regret.compare(*pairs(store, 1))
    adapted: Any = regret.rater
    assert adapted.equal_threshold == pytest.approx(0.1 * 5 * 0.5)


def test_old_steps_are_forgotten_by_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elicitation, "THESE_DAYS", 100)
    store = filled(steps=50, episodes=6)
    store.rewards[:] = np.where(np.arange(store.capacity) < store.head[0] - 101, 100.0, 1.0)
    one = elicitor("partial-return", store, rater_kwargs={"equal": 0.1})
    one.compare(*pairs(store, 1))
    rater: Any = one.rater
    assert rater.equal_threshold == pytest.approx(0.5)


def bpref(store: EpisodeStore) -> Elicitor:
    knobs = {"equal": 0.1, "bpref_compatible": True}
    store.rewards[:] = np.abs(store.rewards)
    return elicitor("partial-return", store, rater_kwargs=knobs, query_every=None)


def threshold(one: Elicitor) -> float:
    rater: Any = one.rater
    return float(rater.equal_threshold)


def test_a_rater_that_counts_its_sessions_is_put_back_with_the_rest() -> None:
    one = bpref(filled())
    begun = one.get_state()
    thresholds, states = [], []
    for _ in range(3):
        one.compare(*pairs(one.store, 1))
        thresholds.append(threshold(one))
        states.append(one.get_state())
    assert thresholds[0] > 5 * thresholds[1] > 0
    one.set_state(begun)
    one.compare(*pairs(one.store, 1))
    assert threshold(one) == thresholds[0]
    other = bpref(filled())
    other.set_state(states[0])
    other.compare(*pairs(other.store, 1))
    assert threshold(other) == thresholds[1]


# --- going back ---------------------------------------------------------------------------------


def ask(one: Elicitor, times: int, begin: int = 0) -> list[tuple[Any, ...]]:
    told = []
    for number in range(begin, begin + times):
        told += said(one.compare(*pairs(one.store, 3, seed=number)))
    return told


Make = Callable[[Any], Elicitor]


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Make an elicitor as another life of the same run would."""
    lives: list[Elicitor] = []

    def made(rater: Any) -> Elicitor:
        for one in lives:
            one.preferences.close()
        directory = tmp_path / "preferences" if request.param == "disk" else None
        lives.append(elicitor(rater, directory=directory))
        return lives[-1]

    return made


def test_a_state_goes_through_a_checkpoint_and_goes_on(make: Make, tmp_path: Path) -> None:
    one = make(Person(skip=0.3))
    ask(one, 4)
    one.emit(9)
    checkpoints.save(tmp_path / "checkpoint", one.get_state())
    expected = [one.emit(1), *ask(one, 3, 4)]
    everything = said(one.preferences.comparisons)

    other = make(Person(skip=0.3))
    other.seed(99)
    other.set_state(checkpoints.load(tmp_path / "checkpoint"))
    assert [other.emit(1), *ask(other, 3, 4)] == expected
    assert said(other.preferences.comparisons) == everything
    assert other.preferences.skipped == one.preferences.skipped
    assert other.queries == one.queries


def test_going_back_in_one_life_repeats_it(make: Make) -> None:
    one = make(Person(skip=0.3))
    ask(one, 2)
    state = one.get_state()
    first, everything = ask(one, 3, 2), said(one.preferences.comparisons)
    one.set_state(state)
    assert ask(one, 3, 2) == first
    assert said(one.preferences.comparisons) == everything


@pytest.mark.parametrize("skip", [0.0, 1.0])
def test_a_state_before_the_first_answer_can_be_gone_back_to(make: Make, skip: float) -> None:
    one = make(Person(skip=skip))
    ask(one, 1)
    state = one.get_state()
    other = make(Person(skip=skip))
    other.set_state(state)
    assert other.preferences.skipped == (3 if skip else 0)
    assert other.get_state().keys() == state.keys()
    assert ask(other, 2, 1) == ask(one, 2, 1)


def test_what_the_disk_has_is_not_asked_again(tmp_path: Path) -> None:
    person = Person(skip=0.2)
    one = elicitor(person, directory=tmp_path)
    state = one.get_state()
    first = ask(one, 4)
    assert person.asked == 12
    for go_back in (one.rewind, lambda: one.set_state(state)):
        go_back()
        assert (one.queries, len(one.preferences)) == (0, 0)
        assert ask(one, 4) == first
        assert person.asked == 12
    ask(one, 1, 4)
    assert person.asked == 15

    one.preferences.close()
    another = Person(skip=0.2)
    other = elicitor(another, directory=tmp_path)
    assert other.queries == 15
    other.rewind()
    assert ask(other, 4) == first
    assert another.asked == 0


def test_answers_belong_to_their_pairs(tmp_path: Path) -> None:
    """A question of the same number about other segments is another question."""
    person = Person()
    one = elicitor(person, directory=tmp_path)
    ask(one, 1)
    one.rewind()
    ask(one, 1, begin=5)
    assert person.asked == 6
    a, b = pairs(one.store, 3, seed=0)
    other_a, other_b = pairs(one.store, 3, seed=6)
    one.rewind()
    keep = np.array([0, 2])
    mixed = [x.take(keep) for x in (a, b)], [x.take([1]) for x in (other_a, other_b)]
    one.compare(*(Segments.concatenate([old, new]) for old, new in zip(*mixed, strict=True)))
    assert person.asked == 6 + 3 - 1  # of the three pairs only number 0 is where it was


def test_what_was_recorded_counts_and_not_what_would_be_said_now(tmp_path: Path) -> None:
    one = elicitor("partial-return", directory=tmp_path)
    first = ask(one, 2)
    one.preferences.close()
    knobs = {"mistake": 1.0}
    contrary = elicitor("partial-return", directory=tmp_path, rater_kwargs=knobs)
    contrary.rewind()
    assert ask(contrary, 2) == first
    now = ask(contrary, 1, 2)
    assert [row[1] for row in now] != [row[1] for row in ask(elicitor(), 1, 2)]


def test_a_budget_counts_the_answers_of_earlier_lives(tmp_path: Path) -> None:
    one = elicitor(directory=tmp_path, budget=5)
    ask(one, 1)
    one.preferences.close()
    other = elicitor(directory=tmp_path, budget=5)
    assert other.budget_left == 2
    with pytest.raises(BudgetExhaustedError, match=r"3 .* but 2 of the budget of 5"):
        ask(other, 1)
    other.rewind()
    assert other.budget_left == 5
