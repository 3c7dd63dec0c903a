"""The contract of every registered id, made with no arguments and with some."""

import copy
import json
import pickle
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import prefgym
from prefgym import checkpoints
from prefgym.making import make
from prefgym.registration import ENVIRONMENTS
from prefgym.wrappers import PreferenceVectorEnv
from prefgym.wrappers.notes import of_the_task

GRIDS = [one.id for one in ENVIRONMENTS.values() if one.module == "prefgym_envs.minigrid_tasks"]
"""One class for all of them: one stands for the others, of which test_minigrid.py asks the rest."""
IDS = pytest.mark.parametrize(
    "env_id",
    [
        one.id
        for one in ENVIRONMENTS.values()
        if not one.needs and one.extra is None and one.id not in GRIDS
    ]
    + ["prefgym/DoorKey-5x5-v0"],
)
LIMITED = [one.id for one in ENVIRONMENTS.values() if one.max_episode_steps is not None]
SEEN_STEPS = 400
"""Within so many random steps every id emits a preference."""

# What Gymnasium recommends and its own environments, whose dynamics these are, do not do.
ADVICE = pytest.mark.filterwarnings(
    "ignore:.*(unwrapped version|symmetric and normalized|is (-)?infinity).*:UserWarning"
)


def short(env_id: str) -> dict[str, Any]:
    """Arguments for tests that need questions early."""
    spec = ENVIRONMENTS[env_id]
    if ".text_" in spec.module:  # whole responses, and to one prompt
        return {"query_every": 5, "segment_steps": spec.segment_steps, "prompts": 1}
    return {"query_every": 5, "segment_steps": min(3, spec.segment_steps)}


def play(env: Any, steps: int, seed: int | None = 0) -> list[tuple[Any, ...]]:
    """Random actions, fixed by the seed; what they met, as plain values."""
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    told: list[tuple[Any, ...]] = [(observation.tolist(),)]
    for _ in range(steps):
        observation, *rest = env.step(env.action_space.sample())
        told.append((observation.tolist(), *rest))
        if rest[1] or rest[2]:
            env.reset()
    return told


def roll(env: gym.vector.VectorEnv[Any, Any, Any], steps: int, seed: int = 0) -> list[Any]:
    env.action_space.seed(seed)
    told = []
    for _ in range(steps):
        *arrays, infos = env.step(env.action_space.sample())
        ended = arrays[2] | arrays[3]
        if env.metadata["autoreset_mode"] == AutoresetMode.DISABLED and ended.any():
            arrays.append(env.reset(options={"reset_mask": ended})[0])
        told.append(([one.tolist() for one in arrays], as_lists(infos)))
    return told


def as_lists(infos: Any) -> Any:
    if isinstance(infos, dict):
        return {name: as_lists(value) for name, value in infos.items()}
    return [as_lists(one) for one in infos] if isinstance(infos, np.ndarray) else infos


def raw(env_id: str) -> gym.Env[Any, Any]:
    """The environment below the preference layer, limit included, reward visible."""
    spec = ENVIRONMENTS[env_id]
    env: gym.Env[Any, Any] = import_module(spec.module).raw(**spec.kwargs)
    if spec.max_episode_steps is not None:
        env = gym.wrappers.TimeLimit(env, spec.max_episode_steps)
    return env


def numbers(value: Any) -> Any:
    """Numpy scalars as Python's: what may stand in info besides plain values."""
    if isinstance(value, dict):
        return {name: numbers(one) for name, one in value.items()}
    return value.item() if isinstance(value, np.generic) else value


# --- made with no arguments ---------------------------------------------------------------------


@IDS
def test_random_steps_meet_preferences_hidden_rewards_and_the_truth(env_id: str) -> None:
    env = gym.make(env_id)
    told = play(env, 2 * SEEN_STEPS)[1:]
    emitted = [step for step, (*_, info) in enumerate(told) if "preference" in info]
    assert max(np.diff([0, *emitted, len(told)])) <= SEEN_STEPS
    preferences = env.get_wrapper_attr("preferences")
    assert len(preferences) == len(emitted)
    labels = set(preferences.comparisons.label)
    assert labels <= {0.0, 0.5, 1.0}
    truths = {info["true_reward"] for *_, info in told}
    if env_id not in GRIDS:  # whose reward comes once in an episode, by luck: nearly all tie
        assert len(labels) > 1 or len(truths) == 1  # where all steps are worth the same, all tie
        assert truths != {0.0}

    open_ = raw(env_id)
    for (observation, reward, terminated, truncated, info), known in zip(
        told[:SEEN_STEPS], play(open_, SEEN_STEPS)[1:], strict=True
    ):
        assert (type(reward), reward) == (float, 0.0)
        expected = known[0], float(known[1]), known[2], known[3]
        assert (observation, info["true_reward"], terminated, truncated) == expected
        factors = {name: info["factors"][name] for name in of_the_task(info["factors"])}
        assert numbers(factors) == numbers(known[4]["factors"])
        # Nothing in info is an array: a long run must not carry its steps about twice.
        assert json.loads(json.dumps(numbers(info))) == numbers(info)


@IDS
@pytest.mark.parametrize("lanes", [1, 3])
def test_vector_environments_meet_preferences_too(env_id: str, lanes: int) -> None:
    env = gym.make_vec(env_id, num_envs=lanes)
    assert isinstance(env, PreferenceVectorEnv)
    env.reset(seed=0)
    told = roll(env, SEEN_STEPS)
    emitted = [infos["preference"] for _, infos in told if "preference" in infos]
    assert len(emitted) >= 1
    assert emitted == json.loads(json.dumps(emitted))
    assert len(env.preferences) == len(emitted)
    assert not any(any(arrays[1]) for arrays, _ in told)
    assert all(len(infos["true_reward"]) == lanes for _, infos in told)
    assert all(set(infos["factors"]) == set(env.store.factor_names) for _, infos in told)


@IDS
def test_every_id_has_factors_a_limit_and_spaces_of_numbers(env_id: str) -> None:
    env, spec = gym.make(env_id), ENVIRONMENTS[env_id]
    assert env.get_wrapper_attr("store").factor_names
    assert env.spec is not None
    assert env.spec.id == env_id
    assert env.spec.max_episode_steps == spec.max_episode_steps
    assert env.get_wrapper_attr("segment_steps") == spec.segment_steps
    assert spec.max_episode_steps is None or spec.segment_steps <= spec.max_episode_steps
    for space in (env.observation_space, env.action_space):
        assert space.shape is not None
    lanes = gym.make_vec(env_id, num_envs=2)
    assert lanes.single_observation_space == env.observation_space
    assert lanes.single_action_space == env.action_space


@ADVICE
@IDS
def test_gymnasiums_and_sb3s_checks_pass(env_id: str) -> None:
    check_env(gym.make(env_id), skip_render_check=True)
    sb3_check_env(gym.make(env_id), warn=False)
    check_env(make(ENVIRONMENTS[env_id].name, **short(env_id)), skip_render_check=True)


# --- equal seeds, copies, specs -----------------------------------------------------------------


@IDS
def test_equal_seeds_give_equal_steps_and_preferences(env_id: str) -> None:
    one, other = (gym.make(env_id, **short(env_id)) for _ in range(2))
    play(other, 20, seed=3)
    first = play(one, 60)
    again = gym.make(env_id, **short(env_id))
    assert play(again, 60) == first
    assert play(other, 60)[0] == first[0]
    labels = [env.get_wrapper_attr("preferences").comparisons.label for env in (one, again)]
    np.testing.assert_array_equal(*labels)
    vectors = [gym.make_vec(env_id, num_envs=2, **short(env_id)) for _ in range(2)]
    for env in vectors:
        env.reset(seed=5)
    assert roll(vectors[0], 40) == roll(vectors[1], 40)


@IDS
def test_a_spec_goes_through_json(env_id: str) -> None:
    env = gym.make(env_id, rater="random", budget=7, **short(env_id))
    assert env.spec is not None
    spec = EnvSpec.from_json(env.spec.to_json())
    again = gym.make(spec)
    assert again.spec == env.spec
    assert play(again, 60) == play(env, 60)
    assert len(again.get_wrapper_attr("preferences")) == 7


@IDS
def test_copies_and_pickles_are_small_and_keep_what_was_answered(env_id: str) -> None:
    env: Any = gym.make(env_id, **short(env_id))
    play(env, 40)
    pickled = pickle.dumps(env)
    assert len(pickled) < 1_000_000
    for twin in (copy.deepcopy(env), pickle.loads(pickled)):
        known, kept = env.get_wrapper_attr("preferences"), twin.get_wrapper_attr("preferences")
        np.testing.assert_array_equal(kept.comparisons.label, known.comparisons.label)
        assert len(twin.get_wrapper_attr("store")) == len(env.get_wrapper_attr("store"))
        assert play(twin, 20)[:20] != []
        assert len(kept) > len(known)


# --- vector environments ------------------------------------------------------------------------


@IDS
@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda one: one.value)
def test_a_state_continues_in_another_environment(
    env_id: str, mode: AutoresetMode, tmp_path: Any
) -> None:
    limit = {} if ENVIRONMENTS[env_id].max_episode_steps is None else {"max_episode_steps": 9}
    one, other = (
        gym.make_vec(env_id, num_envs=2, autoreset_mode=mode, **short(env_id), **limit)
        for _ in range(2)
    )
    one.reset(seed=1)
    roll(one, 14)
    checkpoints.save(tmp_path / "state", one.get_state())
    expected = roll(one, 20, seed=2)
    other.set_state(checkpoints.load(tmp_path / "state"))
    assert roll(other, 20, seed=2) == expected
    np.testing.assert_array_equal(
        one.preferences.comparisons.label, other.preferences.comparisons.label
    )


@IDS
def test_processes_of_their_own_change_nothing(env_id: str) -> None:
    told = []
    for mode in ("sync", "async"):
        env = gym.make_vec(env_id, num_envs=2, vectorization_mode=mode, **short(env_id))
        env.reset(seed=0)
        told.append(roll(env, 30))
        env.close()
    assert told[0] == told[1]
    assert any("preference" in infos for _, infos in told[0])


# --- arguments ----------------------------------------------------------------------------------


def test_every_rater_goes_by_name() -> None:
    for rater in ("partial-return", "discounted-return", "regret", "noisy", "random", "skip"):
        env = gym.make("prefgym/Delivery-v0", rater=rater, query_every=10)
        play(env, 100)
        assert len(env.get_wrapper_attr("preferences")) > 3


def test_arguments_reach_the_task_and_the_layer() -> None:
    env = gym.make("prefgym/Pendulum-v0", g=1.0, rater="noisy", rater_kwargs={"beta": 2.0})
    assert env.get_wrapper_attr("g") == 1.0
    assert env.get_wrapper_attr("elicitor").rater.beta == 2.0
    lanes: Any = gym.make_vec("prefgym/Pendulum-v0", num_envs=2, g=1.0, max_episode_steps=60)
    assert lanes.get_wrapper_attr("g") == 1.0
    lanes.reset(seed=0)
    ends = [arrays[3] for arrays, _ in roll(lanes, 60)]
    assert ends[-1] == [True, True]
    assert not np.any(ends[:-1])


def test_pictures_do_not_change_what_happens() -> None:
    plain, drawn = (
        gym.make_vec("prefgym/Delivery-v0", num_envs=2, render_mode=mode)
        for mode in (None, "rgb_array")
    )
    for env in (plain, drawn):
        env.reset(seed=4)
    assert roll(plain, 20) == roll(drawn, 20)
    pictures = drawn.render()
    assert pictures is not None
    assert len(pictures) == 2
    single = gym.make("prefgym/CartPole-v0", render_mode="rgb_array")
    single.reset(seed=0)
    assert np.asarray(single.render()).ndim == 3


def test_no_option_can_rank_the_others_in_the_condorcet_game() -> None:
    """The default rater answers by the game's own circle, which no true reward can say."""
    env: Any = gym.make("prefgym/Condorcet-v0", query_every=None)
    play(env, 60)
    store, rng = env.get_wrapper_attr("store"), np.random.default_rng(0)
    a, b = (store.segments(store.sample(5000, 1, rng), 1) for _ in "ab")
    asked = env.get_wrapper_attr("compare")(a, b)
    first, second = asked.a.actions[:, 0], asked.b.actions[:, 0]
    matrix = env.get_wrapper_attr("preference_matrix")
    for i in range(3):
        for j in range(3):
            labels = asked.label[(first == i) & (second == j)]
            error = np.sqrt(0.25 / len(labels))
            assert abs(labels.mean() - matrix[i, j]) < 4 * error
    assert matrix[0, 1] > 0.5 < matrix[1, 2]
    assert matrix[2, 0] > 0.5
    assert asked.meaning == "game"


def test_registering_again_changes_nothing() -> None:
    before = dict(gym.registry)
    prefgym.register()
    assert gym.registry == before
    assert set(ENVIRONMENTS) == {one for one in before if one.startswith("prefgym/")}


# --- bad input ----------------------------------------------------------------------------------


def test_unknown_names_are_met_with_the_nearest_ones() -> None:
    with pytest.raises(gym.error.NameNotFound, match=r"Did you mean: `Pendulum`"):
        gym.make("prefgym/Pendlum-v0")
    with pytest.raises(ValueError, match=r"'prefgym/Hoper-v0'; did you mean 'prefgym/Hopper-v0'"):
        make("Hoper")
    for make_one in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=r"Unknown rater 'regrett'; did you mean 'regret'"):
            make_one("prefgym/Delivery-v0", rater="regrett")


@pytest.mark.parametrize("env_id", LIMITED)
def test_segments_longer_than_episodes_are_refused(env_id: str) -> None:
    limit = ENVIRONMENTS[env_id].max_episode_steps
    assert limit is not None
    for make_one in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=rf"of {env_id}, which has at most {limit} steps"):
            make_one(env_id, segment_steps=limit + 1)
    with pytest.raises(ValueError, match=r"at most 2 steps; choose shorter segments"):
        gym.make_vec(env_id, segment_steps=3, max_episode_steps=2)


@pytest.mark.parametrize("env_id", ["prefgym/Pendulum-v0", "prefgym/Hopper-v0"])
def test_actions_that_are_no_numbers_are_refused(env_id: str) -> None:
    env, lanes = gym.make(env_id), gym.make_vec(env_id, num_envs=2)
    env.reset(seed=0)
    lanes.reset(seed=0)
    for one in (env, lanes):
        action = np.array(one.action_space.sample())
        action.flat[0] = np.nan
        with pytest.raises(ValueError, match=r"wanted finite numbers, so look for the NaN"):
            one.step(action)
        with pytest.raises(ValueError, match=r"has shape|of shape"):
            one.step(action[..., None])
