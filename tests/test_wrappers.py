"""Preference environments around anybody's environment: what is hidden, told, kept and refused."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from prefgym import checkpoints
from prefgym.comparisons import Labels, PreferenceDataset
from prefgym.elicitation import BudgetExhaustedError
from prefgym.episodes import OPEN, TERMINATED, TRUNCATED
from prefgym.locks import WriterLock
from prefgym.raters import make_rater
from prefgym.segments import Segments
from prefgym.vector import ReplayableVectorEnv
from prefgym.wrappers import (
    LearnedReward,
    PreferenceEnv,
    PreferenceVectorEnv,
    preference_layer,
)
from prefgym.wrappers.inner import find_attribute
from prefgym_envs import control, delivery

SAME_STEP, NEXT_STEP, DISABLED = (
    AutoresetMode.SAME_STEP,
    AutoresetMode.NEXT_STEP,
    AutoresetMode.DISABLED,
)
MODES = pytest.mark.parametrize("mode", [SAME_STEP, NEXT_STEP, DISABLED], ids=lambda one: one.value)
USERS = pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1"])

# What Gymnasium recommends and its own environments do not do.
ADVICE = pytest.mark.filterwarnings(
    "ignore:.*(unwrapped version|symmetric and normalized|is (-)?infinity).*:UserWarning"
)


def users(name: str = "Pendulum-v1", **kwargs: Any) -> PreferenceEnv:
    """A preference environment around an environment of Gymnasium."""
    return PreferenceEnv(gym.make(name), **({"segment_steps": 5, "query_every": 10} | kwargs))


Told = tuple[Any, float, bool, bool, dict[str, Any]]


def play(env: gym.Env[Any, Any], steps: int, seed: int | None = 0) -> list[Told]:
    """Random actions, fixed by the seed; episodes follow each other."""
    env.action_space.seed(seed)
    env.reset(seed=seed)
    told: list[Told] = []
    for _ in range(steps):
        told.append(env.step(env.action_space.sample()))
        if told[-1][2] or told[-1][3]:
            env.reset()
    return told


def plain(told: list[Told]) -> list[Any]:
    return [(observation.tolist(), *rest) for observation, *rest in told]


class Probe(gym.Env[np.ndarray, np.ndarray]):
    """Observation: (episode, step). Reward and end as told; what reset says is counted."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = gym.spaces.Box(-1e6, 1e6, (2,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, ends_after: int = 10, reward: float | None = None) -> None:
        self.ends_after, self.reward = ends_after, reward
        self.episode, self.steps, self.taken = -1, 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> Any:
        self.steps, self.taken = self.steps + 1, self.taken + 1
        reward = 100.0 * self.episode + self.steps if self.reward is None else self.reward
        return self._seen(), reward, self.steps == self.ends_after, False, {}

    def _seen(self) -> np.ndarray:
        return np.array([self.episode, self.steps], np.float64)


def act(env: Any, steps: int = 1) -> None:
    for _ in range(steps):
        env.step(np.zeros(1, np.float32))


# --- what is hidden and what is told ------------------------------------------------------------


@USERS
def test_the_reward_is_hidden_and_the_truth_is_in_info(name: str) -> None:
    hidden, open_ = play(users(name), 300), play(gym.make(name), 300)
    for (seen, reward, *ends, info), (known, truth, *true_ends, true_info) in zip(
        hidden, open_, strict=True
    ):
        np.testing.assert_array_equal(seen, known)
        assert ends == true_ends
        assert (type(reward), reward) == (float, 0.0)
        assert (type(info["true_reward"]), info["true_reward"]) == (float, float(truth))
        assert info.keys() - {"true_reward", "preference"} == true_info.keys()


@USERS
def test_preferences_come_when_they_are_due_and_the_bulk_stays_in_the_store(name: str) -> None:
    env = users(name)
    told = [info.get("preference") for *_, info in play(env, 300)]
    due = [step for step, answer in enumerate(told, 1) if answer is not None]
    assert 10 <= due[0] <= 20  # two segments that do not overlap must have been seen
    assert (np.diff(due) == 10).mean() > 0.9
    assert min(np.diff(due)) == 10
    assert len(env.preferences) == len(due)
    answers = [answer for answer in told if answer is not None]
    assert answers == json.loads(json.dumps(answers))
    assert [one["query_id"] for one in answers] == list(range(len(due)))
    np.testing.assert_array_equal(
        [one["label"] for one in answers], env.preferences.comparisons.label
    )
    assert env.store.total_steps == 300


def test_segments_are_what_was_seen_and_done() -> None:
    env = users()
    env.action_space.seed(3)
    observation, _ = env.reset(seed=3)
    rows = []
    for _ in range(60):
        action = env.action_space.sample()
        after, *_, info = env.step(action)
        rows.append((observation, action, info["true_reward"]))
        observation = after
    comparisons = env.preferences.comparisons
    for side in (comparisons.a, comparisons.b):
        for row, start in enumerate(side.start.tolist()):
            seen, done, worth = zip(*rows[start : start + 5], strict=True)
            np.testing.assert_array_equal(side.observations[row], np.stack(seen))
            np.testing.assert_array_equal(side.actions[row], np.stack(done))
            np.testing.assert_array_equal(side.rewards[row], worth)
        np.testing.assert_array_equal(side.context, side.observations[:, 0])
    better = comparisons.a.rewards.sum(1) > comparisons.b.rewards.sum(1)
    np.testing.assert_array_equal(comparisons.label, better)


@USERS
def test_equal_seeds_give_equal_preferences(name: str) -> None:
    one, other, third = (users(name, rater="noisy") for _ in range(3))
    assert plain(play(one, 250)) == plain(play(other, 250))
    play(third, 250, seed=1)
    first, second, unlike = (
        env.preferences.comparisons.label.tolist() for env in (one, other, third)
    )
    assert first == second != unlike


def test_without_a_seed_preferences_are_random() -> None:
    labels = []
    for _ in range(2):
        env = users(rater="random")
        play(env, 400, seed=None)
        labels.append(env.preferences.comparisons.label.tolist())
    assert labels[0] != labels[1]


def test_episodes_that_the_user_interrupts_end_there() -> None:
    env = PreferenceEnv(Probe(ends_after=8), segment_steps=4, query_every=3)
    rng = np.random.default_rng(0)
    for _ in range(60):
        env.reset(seed=0)
        act(env, int(rng.integers(0, 8)))
    env.reset()
    env.reset()
    act(env, 8)
    index = env.store.since(np.zeros(1, np.int64))
    assert env.store.terminal(index).tolist() == [False] * (len(index.length) - 1) + [True]
    asked = env.preferences.comparisons
    for side in (asked.a, asked.b):
        assert (np.diff(side.observations[..., 0]) == 0).all()  # one episode
        assert (np.diff(side.observations[..., 1]) == 1).all()  # one step after the other
        assert side.mask.all()


def test_segments_run_into_an_end_but_not_into_a_limit() -> None:
    def lengths(env: gym.Env[Any, Any]) -> set[int]:
        asking = PreferenceEnv(env, segment_steps=6, query_every=2)
        for _ in range(10):
            asking.reset(seed=0)
            act(asking, 8)
        asked = asking.preferences.comparisons
        return set(asked.a.lengths.tolist() + asked.b.lengths.tolist())

    assert lengths(Probe(ends_after=8)) == {1, 2, 3, 4, 5, 6}
    assert lengths(TimeLimit(Probe(ends_after=99), 8)) == {6}


def test_ends_are_told_apart_in_the_store() -> None:
    ends = []
    for env in (Probe(4), TimeLimit(Probe(99), 4), TimeLimit(Probe(4), 4), Probe(99)):
        one = PreferenceEnv(env, segment_steps=3)
        one.reset(seed=0)
        act(one, 4)
        ends.append(int(one.store.state()["episodes/end"][0]))
    assert ends == [TERMINATED, TRUNCATED, TERMINATED, OPEN]


def test_nothing_of_it_is_an_array_in_info() -> None:
    for *_, info in play(PreferenceEnv(control.raw("Pendulum"), segment_steps=5), 150):
        assert json.loads(json.dumps(info)) == info
        assert info.keys() - {"preference"} == {"factors", "true_reward"}


def test_factors_go_into_the_store() -> None:
    env = PreferenceEnv(control.raw("Pendulum"), segment_steps=5, query_every=10)
    told = play(env, 30)
    assert env.store.factor_names == ("angle2", "speed2", "torque2")
    segments = env.store.segments(env.store.since(np.zeros(1, np.int64)), 30)
    for name, column in segments.factors.items():
        np.testing.assert_array_equal(column[0], [info["factors"][name] for *_, info in told])
    assert (env.preferences.comparisons.a.factors["angle2"] > 0).all()


# --- asking -------------------------------------------------------------------------------------


def test_an_agent_can_ask_through_any_wrapper_under_a_budget() -> None:
    env: Any = RecordEpisodeStatistics(TimeLimit(users(query_every=None, budget=10), 50))
    assert not any("preference" in info for *_, info in play(env, 60))
    store, compare = env.get_wrapper_attr("store"), env.get_wrapper_attr("compare")
    rng = np.random.default_rng(0)
    a, b = (store.segments(store.sample(6, 5, rng), 5) for _ in "ab")
    answers = compare(a, b)
    np.testing.assert_array_equal(answers.label, a.rewards.sum(1) > b.rewards.sum(1))
    with pytest.raises(BudgetExhaustedError, match=r"6 comparisons .* but 4 .* of 10 labels"):
        compare(a, b)
    preferences: PreferenceDataset = env.get_wrapper_attr("preferences")
    assert len(preferences) == 6
    assert env.get_wrapper_attr("segment_steps") == 5


def test_emitted_preferences_share_the_budget_and_can_be_stopped() -> None:
    env = users(budget=3)
    assert sum("preference" in info for *_, info in play(env, 200)) == 3
    other = users()
    other.stop_emitting()
    assert not any("preference" in info for *_, info in play(other, 200))


def test_own_raters_own_values_and_options_go_in_by_argument() -> None:
    def shorter(a: Segments, b: Segments) -> np.ndarray:
        return np.where(a.episode < b.episode, 1.0, np.where(a.episode == b.episode, 0.5, 0.0))

    def skipping(a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        return Labels(np.zeros(1), rng.random(1) < 0.5, np.full(1, 9))

    env = users("CartPole-v1", rater=shorter)
    for *_, info in play(env, 300):
        if (
            "preference" in info
            and info["preference"]["episode_a"] != info["preference"]["episode_b"]
        ):
            answer = info["preference"]
            assert answer["label"] == float(answer["episode_a"] < answer["episode_b"])
    env = users(rater=skipping)
    told = [info for *_, info in play(env, 400) if "preference" in info]
    assert len(told) == len(env.preferences) > 5 < env.preferences.skipped
    assert 38 <= env.preferences.asked <= 40
    assert {info["preference"]["rater_id"] for info in told} == {9}

    def values(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return -np.abs(actions[:, 0])

    env = users(rater="regret", value_source=values)
    play(env, 100)
    asked = env.preferences.comparisons
    effort = [np.abs(side.actions).sum((1, 2)) for side in (asked.a, asked.b)]
    np.testing.assert_array_equal(asked.label, effort[0] < effort[1])
    assert env.preferences.meaning == "regret"

    env = users(rater="oracle", rater_kwargs={"rater_id": 5, "mistake": 1.0})
    play(env, 100)
    asked = env.preferences.comparisons
    np.testing.assert_array_equal(asked.label, asked.a.rewards.sum(1) < asked.b.rewards.sum(1))
    assert (asked.rater_id == 5).all()
    ready = make_rater("myopic")
    assert users(rater=ready).elicitor.rater is ready


def test_exact_values_of_an_environment_are_used_for_regret() -> None:
    env = PreferenceEnv(TimeLimit(delivery.raw(), 50), rater="regret", segment_steps=3)
    play(env, 500)
    asked = env.preferences.comparisons
    assert len(asked) == 5
    best = [
        env.unwrapped.advantages(side.observations[side.mask], side.actions[side.mask])
        for side in (asked.a, asked.b)
    ]
    sums = [
        np.array([part.sum() for part in np.split(values, np.cumsum(side.lengths)[:-1])])
        for values, side in zip(best, (asked.a, asked.b), strict=True)
    ]
    decided = np.abs(sums[0] - sums[1]) > 1e-6
    np.testing.assert_array_equal(asked.label[decided], (sums[0] > sums[1])[decided])


def test_answers_on_disk_are_there_when_the_process_is_gone(tmp_path: Path) -> None:
    env = users(directory=tmp_path / "answers")
    labels = [info["preference"]["label"] for *_, info in play(env, 200) if "preference" in info]
    kept = PreferenceDataset.open(tmp_path / "answers")
    assert kept.comparisons.label.tolist() == labels
    assert kept.meaning == "partial-return"
    env.rewind()
    assert len(env.preferences) == 0
    play(env, 200)
    numbers = env.preferences.comparisons.query_id.tolist()
    assert numbers[: len(labels)] == list(range(len(labels)))
    with pytest.raises(ValueError, match=r"mean 'partial-return', not 'random'"):
        users(directory=tmp_path / "answers", rater="random")


@pytest.mark.parametrize(
    "make",
    [users, lambda **kwargs: asking(SyncVectorEnv(lanes_of("Pendulum", 20)), **kwargs)],
    ids=["single", "vector"],
)
def test_a_closed_environment_lets_others_write_its_answers(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    env = make(directory=tmp_path)
    with pytest.raises(ValueError, match=r"is being written to by"):
        WriterLock(tmp_path / "_writer.lock")
    for _ in range(2):
        env.close()
    WriterLock(tmp_path / "_writer.lock").release()


# --- as any other environment -------------------------------------------------------------------


@ADVICE
@USERS
def test_gymnasiums_and_sb3s_checks_pass(name: str) -> None:
    check_env(users(name, query_every=3), skip_render_check=True)
    sb3_check_env(users(name, query_every=3), warn=False)


@USERS
def test_its_spec_builds_it_again(name: str) -> None:
    env = users(name, rater="noisy", budget=20, rater_kwargs={"beta": 2.0})
    spec = EnvSpec.from_json(env.spec.to_json())
    assert spec == env.spec
    again = gym.make(spec)
    assert again.spec == env.spec
    assert plain(play(again, 250)) == plain(play(env, 250))


def test_a_spec_with_objects_builds_it_again_in_this_process() -> None:
    env = users(rater=lambda a, b: np.full(len(a), 0.5))
    again = gym.make(env.spec)
    assert plain(play(again, 100)) == plain(play(env, 100))


@USERS
@pytest.mark.parametrize("way", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_goes_its_own_way_from_here(name: str, way: Callable[[Any], Any]) -> None:
    env = users(name, rater="noisy")
    play(env, 105)
    twin = way(env)

    def go_on(one: Any) -> list[Any]:
        one.action_space.seed(4)
        told = []
        for _ in range(100):
            told.append(one.step(one.action_space.sample()))
            if told[-1][2] or told[-1][3]:
                one.reset()
        return plain(told)

    twin.reset()
    env.reset()
    expected = go_on(env)
    assert go_on(twin) == expected
    assert len(twin.preferences) == len(env.preferences)


def test_attributes_of_the_layer_below_are_reached() -> None:
    env = users()
    assert env.get_wrapper_attr("max_torque") == 2.0
    assert env.render_mode is None
    assert env.metadata["render_fps"] == 30
    env.close()


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", [np.nan, np.inf])
def test_rewards_must_be_finite(reward: float) -> None:
    env = PreferenceEnv(Probe(reward=reward))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"returned the rewards \[(nan|inf)\]; .* mend the env"):
        act(env)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_actions_must_be_finite_and_of_their_shape(value: float) -> None:
    env = users()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions \[\[(nan|inf)\]\]; wanted finite numbers"):
        env.step(np.array([value], np.float32))
    with pytest.raises(ValueError, match=r"action has shape \(2,\), but its space says \(1,\)"):
        env.step(np.array([1.0, value], np.float32))
    assert len(env.store) == 0
    env.step(np.array([1.0], np.float32))  # nothing has happened to the environment


def test_steps_after_the_end_are_refused() -> None:
    env = PreferenceEnv(Probe(ends_after=2))
    env.reset(seed=0)
    act(env, 2)
    with pytest.raises(ValueError, match=r"call reset\(\) before the first step"):
        act(env)


def test_segments_longer_than_an_episode_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"segment_steps=201 .* of Pendulum-v1, .* 200 steps"):
        users(segment_steps=201)
    users(segment_steps=200)
    PreferenceEnv(gym.make("Pendulum-v1", max_episode_steps=300), segment_steps=300)
    lanes = gym.make_vec("CartPole-v1", 2, "sync")
    with pytest.raises(ValueError, match=r"segment_steps=501 .* CartPole-v1, .* 500 steps"):
        PreferenceVectorEnv(lanes, segment_steps=501)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rater": "partial-retrun"}, r"Unknown rater .*did you mean 'partial-return'"),
        ({"rater": "noisy", "rater_kwargs": {"betta": 1}}, r"no option 'betta'"),
        ({"rater": lambda a: a}, r"no function of \(a, b\)"),
        ({"rater": "game"}, r"'game' is for environments that define a preference"),
        ({"segment_steps": 0}, r"segment_steps=0; wanted a whole number of at least 1"),
        ({"query_every": 0}, r"query_every=0"),
        ({"budget": -1}, r"budget=-1; wanted a whole number of at least 0"),
        ({"capacity": 5}, r"capacity= leaves 5 steps"),
        ({"recent": 5}, r"recent= leaves 5 steps"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_in_a_sentence(
    arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        users(**arguments)


def test_regret_without_values_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"needs a value source, .* give value_source="):
        users(rater="regret")


def test_spaces_without_a_shape_are_refused() -> None:
    class Nested(Probe):
        observation_space: Any = gym.spaces.Dict({"a": gym.spaces.Discrete(2)})

    with pytest.raises(ValueError, match=r"Dict.*FlattenObservation"):
        PreferenceEnv(Nested())


# --- vector environments ------------------------------------------------------------------------


def lanes_of(name: str, limit: int, lanes: int = 3) -> list[Callable[[], gym.Env[Any, Any]]]:
    return [lambda: TimeLimit(control.raw(name), limit)] * lanes


def asking(env: gym.vector.VectorEnv[Any, Any, Any], **kwargs: Any) -> PreferenceVectorEnv:
    return PreferenceVectorEnv(env, **({"segment_steps": 5, "query_every": 10} | kwargs))


def same_life(env: PreferenceVectorEnv, steps: int, seed: int = 0) -> list[list[Any]]:
    """What each lane's store holds after it played its own list of actions.

    A lane takes the next action of its list only at steps at which it really acts.
    """
    space, lanes = env.single_action_space, env.num_envs
    space.seed(5)
    actions = np.array([[space.sample() for _ in range(4 * steps)] for _ in range(lanes)])
    env.reset(seed=seed)
    acted, told = np.zeros(lanes, np.int64), [[] for _ in range(lanes)]  # type: ignore[var-annotated]
    while (acted < steps).any():
        _, rewards, terminated, truncated, infos = env.step(actions[np.arange(lanes), acted])
        assert not rewards.any()
        for lane in np.nonzero(infos["_true_reward"])[0]:
            told[lane].append(infos["true_reward"][lane])
            acted[lane] += 1
        assert not infos["true_reward"][~infos["_true_reward"]].any()
        if env.autoreset_mode == DISABLED and (terminated | truncated).any():
            env.reset(options={"reset_mask": terminated | truncated})
    store = env.store
    index = store.since(np.zeros(lanes, np.int64))
    segments, (where, rows) = store.segments(index, int(index.length.max())), store.rows(index)
    lives: list[list[Any]] = [[] for _ in range(lanes)]
    for row, lane in enumerate(where):
        length, start = index.length[row], len(lives[lane])
        for step in range(length):
            factors = {name: column[row, step] for name, column in segments.factors.items()}
            arrays = segments.observations[row, step].tolist(), segments.actions[row, step].tolist()
            after = store.observations[lane, rows[row] + step + 1].tolist()  # of the same episode
            lives[lane].append((*arrays, segments.rewards[row, step], factors, after, step))
        lives[lane][-1] += (bool(store.terminal(index)[row]),)
        assert [one[2] for one in lives[lane][start:]] == told[lane][start : start + length]
    for life, chosen in zip(lives, actions.tolist(), strict=True):
        assert [one[1] for one in life] == chosen[: len(life)]
    return [life[:steps] for life in lives]


@pytest.mark.parametrize(("name", "limit"), [("Pendulum", 12), ("CartPole", 25)])
@pytest.mark.parametrize("kind", [SyncVectorEnv, ReplayableVectorEnv])
def test_three_autoreset_modes_record_the_same_life(name: str, limit: int, kind: Any) -> None:
    lives = []
    for mode in (SAME_STEP, NEXT_STEP, DISABLED):
        env = asking(kind(lanes_of(name, limit), autoreset_mode=mode), query_every=20)
        lives.append(same_life(env, 60))
        assert len(env.preferences) > 5
        assert env.store.factor_names
    for other in lives[1:]:
        assert [len(life) for life in other] == [60, 60, 60]
        # The last step of a life may or may not be known to be the last of its episode.
        assert [life[:-1] for life in other] == [life[:-1] for life in lives[0]]
    assert any(step[3] != lives[0][0][0][3] for step in lives[0][0])


@MODES
def test_a_reset_step_never_enters_a_segment(mode: AutoresetMode) -> None:
    env = asking(
        SyncVectorEnv([lambda: Probe(7), lambda: Probe(9)], autoreset_mode=mode), query_every=1
    )
    env.reset(seed=0)
    for _ in range(80):
        _, _, terminated, _, _ = env.step(np.zeros((2, 1), np.float32))
        if mode == DISABLED and terminated.any():
            env.reset(options={"reset_mask": terminated})
    asked = env.preferences.comparisons
    assert len(asked) > 70
    for side in (asked.a, asked.b):
        both = side.mask[:, 1:] & side.mask[:, :-1]
        assert (np.diff(side.observations[..., 0])[both] == 0).all()
        assert (np.diff(side.observations[..., 1])[both] == 1).all()
        rewards = 100.0 * side.observations[..., 0] + side.observations[..., 1] + 1
        np.testing.assert_array_equal(side.rewards[side.mask], rewards[side.mask])


@MODES
def test_a_user_may_reset_early(mode: AutoresetMode) -> None:
    env = asking(
        SyncVectorEnv([lambda: Probe(6), lambda: Probe(8)], autoreset_mode=mode), query_every=1
    )
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(80):
        _, _, terminated, _, _ = env.step(np.zeros((2, 1), np.float32))
        if mode == DISABLED and terminated.any():
            env.reset(options={"reset_mask": terminated})
        if rng.random() < (0.5 if terminated.any() else 0.05):
            env.reset()
        elif rng.random() < (0.5 if terminated[1] else 0.05):
            env.reset(options={"reset_mask": np.array([False, True])})
    asked = env.preferences.comparisons
    probes: Any = env.unwrapped
    assert env.store.total_steps == sum(probe.taken for probe in probes.envs)
    assert len(asked) > 40
    for side in (asked.a, asked.b):
        both = side.mask[:, 1:] & side.mask[:, :-1]
        assert (np.diff(side.observations[..., 0])[both] == 0).all()
        assert (np.diff(side.observations[..., 1])[both] == 1).all()


def roll(env: Any, steps: int, seed: int = 0) -> list[Any]:
    env.action_space.seed(seed)
    told = []
    for _ in range(steps):
        observations, rewards, terminated, truncated, infos = env.step(env.action_space.sample())
        ended = terminated | truncated
        if env.autoreset_mode == DISABLED and ended.any():
            observations, _ = env.reset(options={"reset_mask": ended})
        told.append((observations.tolist(), rewards.tolist(), ended.tolist(), as_lists(infos)))
    return told


def as_lists(infos: Any) -> Any:
    if isinstance(infos, dict):
        return {name: as_lists(value) for name, value in infos.items()}
    return [as_lists(one) for one in infos] if isinstance(infos, np.ndarray) else infos


@MODES
def test_equal_seeds_give_equal_preferences_of_all_lanes(mode: AutoresetMode) -> None:
    one, other = (
        asking(SyncVectorEnv(lanes_of("CartPole", 25), autoreset_mode=mode), rater="noisy")
        for _ in range(2)
    )
    for seed in (3, [1, 2, 3]):
        one.reset(seed=seed)
        other.reset(seed=seed)
        first = roll(one, 50)
        assert first == roll(other, 50)
    other.reset(seed=4)
    assert roll(other, 50) != first


@MODES
def test_async_lanes_are_recorded_like_sync_ones(mode: AutoresetMode) -> None:
    told, labels = [], []
    for kind in (SyncVectorEnv, AsyncVectorEnv):
        inner: Any = kind(lanes_of("CartPole", 25, 2), autoreset_mode=mode)
        env = asking(inner)
        env.reset(seed=0)
        told.append(roll(env, 40))
        labels.append(env.preferences.comparisons.label.tolist())
        env.close()
    assert labels[0] == labels[1]
    assert told[0] == told[1]


@MODES
def test_a_resumed_run_repeats_every_step_and_every_answer(
    mode: AutoresetMode, tmp_path: Path
) -> None:
    one, other = (
        asking(ReplayableVectorEnv(lanes_of("CartPole", 25), mode), rater="noisy") for _ in range(2)
    )
    one.reset(seed=0)
    roll(one, 37)
    checkpoints.save(tmp_path / "state", one.get_state())
    expected = roll(one, 50, seed=1)
    other.set_state(checkpoints.load(tmp_path / "state"))
    assert roll(other, 50, seed=1) == expected
    known, again = one.preferences.comparisons, other.preferences.comparisons
    np.testing.assert_array_equal(known.label, again.label)
    np.testing.assert_array_equal(known.query_id, again.query_id)
    for name, value in known.a.arrays().items():
        np.testing.assert_array_equal(value, again.a.arrays()[name])


def test_what_cannot_be_resumed_says_so() -> None:
    env = asking(SyncVectorEnv([delivery.raw] * 2))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"SyncVectorEnv cannot be resumed exactly; make the"):
        env.get_state()
    with pytest.raises(ValueError, match=r"got no factories"):
        ReplayableVectorEnv([])


def test_the_layer_is_found_below_other_wrappers() -> None:
    inner = asking(SyncVectorEnv(lanes_of("Pendulum", 20)))
    outer: Any = gym.wrappers.vector.RecordEpisodeStatistics(inner)
    assert preference_layer(outer) is inner
    assert find_attribute(outer, "preferences") is inner.preferences
    assert find_attribute(outer, "max_torque") == 2.0
    assert find_attribute(outer, "nothing") is None
    assert inner.get_wrapper_attr("store") is inner.store
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'"):
        inner.get_wrapper_attr("nothing")
    with pytest.raises(ValueError, match=r"does not emit preferences; make it with"):
        preference_layer(SyncVectorEnv(lanes_of("Pendulum", 20)))


def test_lanes_share_one_budget_and_answer_on_request() -> None:
    env = asking(SyncVectorEnv(lanes_of("Pendulum", 20)), budget=4)
    env.reset(seed=0)
    assert sum("preference" in infos for *_, infos in roll(env, 100)) == 4
    a = env.store.segments(env.store.sample(1, 5, np.random.default_rng(0)), 5)
    with pytest.raises(BudgetExhaustedError, match=r"0 of the budget of 4"):
        env.compare(a, a)
    other = asking(SyncVectorEnv(lanes_of("Pendulum", 20)))
    other.stop_emitting()
    other.reset(seed=0)
    assert not any("preference" in infos for *_, infos in roll(other, 30))


def test_exact_values_of_lanes_are_used_for_regret() -> None:
    env = asking(SyncVectorEnv([lambda: TimeLimit(delivery.raw(), 50)] * 2), rater="regret")
    env.reset(seed=0)
    roll(env, 50)
    assert env.preferences.meaning == "regret"
    assert len(env.preferences) > 5


def test_actions_of_lanes_must_be_finite() -> None:
    env = asking(SyncVectorEnv([lambda: gym.make("Pendulum-v1")] * 2))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions \[\[nan\], \[0\.0\]\]; wanted finite"):
        env.step(np.array([[np.nan], [0.0]], np.float32))


# --- a learned reward ---------------------------------------------------------------------------


def test_a_learned_reward_is_that_of_what_was_seen_before_the_action() -> None:
    asked = []

    def reward(observation: Any, action: Any) -> float:
        asked.append((observation, action))
        return float(len(asked))

    env = LearnedReward(users(), reward)
    seen, _ = env.reset(seed=0)
    for number in range(1, 8):
        action = np.array([0.1 * number], np.float32)
        after, paid, *_, info = env.step(action)
        assert paid == number
        np.testing.assert_array_equal(asked[-1][0], seen)
        assert asked[-1][1] is action
        assert info["true_reward"] != paid
        seen = after


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_learned_reward_must_be_finite(value: float) -> None:
    env = LearnedReward(users(), lambda observation, action: value)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"returned (nan|-inf); wanted a finite number"):
        act(env)


def test_stock_ppo_learns_from_it() -> None:
    env = LearnedReward(users(), lambda observation, action: float(observation[0]))
    torch.manual_seed(0)
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=2, seed=0, device="cpu")
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(256)
    changed = zip(before, model.policy.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in changed)
    assert 20 <= len(env.get_wrapper_attr("preferences")) <= 25
    assert model.rollout_buffer.rewards.any()
