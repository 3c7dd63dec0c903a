"""Classic control and MuJoCo: the reward is its factors, and an episode is its seed and actions."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from prefgym_envs import control, locomotion
from prefgym_envs.factors import Task, checked_action, checked_choice

ROOT = Path(__file__).parents[1]
TASKS: dict[str, Task] = {**control.TASKS, **locomotion.TASKS}
BOX = sorted(set(TASKS) - {"CartPole", "Acrobot"})
OTHER_REWARDS: dict[str, dict[str, Any]] = {
    "CartPole": {"sutton_barto_reward": True},
    "Reacher": {"reward_dist_weight": 3.0, "reward_control_weight": 0.2},
    "HalfCheetah": {"forward_reward_weight": 0.5, "ctrl_cost_weight": 0.0},
    "Hopper": {"healthy_reward": 2.0, "terminate_when_unhealthy": False},
    "Walker2d": {"healthy_reward": 0.0, "ctrl_cost_weight": 0.3},
    "Ant": {"contact_cost_weight": 0.01, "forward_reward_weight": 2.0, "healthy_reward": 0.5},
}
seeds = st.integers(0, 2**31 - 1)


def raw(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Any task of the two files."""
    module = control if name in control.TASKS else locomotion
    return module.raw(name, **kwargs)


@cache
def used(name: str) -> gym.Env[Any, Any]:
    """One instance of each task, with a past."""
    return raw(name)


def play(env: gym.Env[Any, Any], seed: int, steps: int) -> list[tuple[Any, ...]]:
    """An episode of random actions, both from ``seed``."""
    env.action_space.seed(seed)
    start, _ = env.reset(seed=seed)
    told: list[tuple[Any, ...]] = [(start.tobytes(),)]
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        told.append((observation.tobytes(), reward, terminated, truncated, info["factors"]))
        if terminated:
            break
    return told


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_the_true_reward_is_the_weighted_sum_of_the_factors(name: str, seed: int) -> None:
    for _, reward, *_, factors in play(used(name), seed, 60)[1:]:
        assert reward == pytest.approx(TASKS[name].reward(factors), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("name", "kwargs"), OTHER_REWARDS.items())
def test_the_law_holds_for_other_weights(name: str, kwargs: dict[str, Any]) -> None:
    for _, reward, *_, factors in play(raw(name, **kwargs), 3, 100)[1:]:
        want = TASKS[name].reward(factors, **kwargs)
        assert reward == pytest.approx(want, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", TASKS)
def test_the_table_names_the_factors_and_the_limit(name: str) -> None:
    task = TASKS[name]
    for *_, factors in play(used(name), 0, 5)[1:]:
        assert tuple(factors) == task.factor_names == used(name).get_wrapper_attr("factor_names")
        assert all(type(value) is float for value in factors.values())
    assert set(task.weights()) <= set(task.factor_names)
    assert gym.spec(task.gymnasium_id).max_episode_steps == task.max_episode_steps


@pytest.mark.parametrize("name", TASKS)
def test_observations_and_rewards_are_gymnasiums_to_the_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # Gymnasium's own HalfCheetah leaves a log where it is made
    theirs, ours = gym.make(TASKS[name].gymnasium_id).unwrapped, raw(name)
    ours.action_space.seed(5)
    assert theirs.observation_space == ours.observation_space
    assert theirs.action_space == ours.action_space
    assert theirs.reset(seed=5)[0].tobytes() == ours.reset(seed=5)[0].tobytes()
    for _ in range(100):
        action = ours.action_space.sample()
        wanted, got = theirs.step(action), ours.step(action)
        assert wanted[0].tobytes() == got[0].tobytes()
        assert wanted[1:4] == got[1:4]
        assert wanted[4].items() <= got[4].items()
        if got[2]:
            break


def test_the_cheetahs_model_is_gymnasiums_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours: Any = raw("HalfCheetah").unwrapped
    theirs = mujoco.MjModel.from_xml_path(ours.fullpath)
    mujoco.mj_saveModel(ours.model, "ours.mjb")
    mujoco.mj_saveModel(theirs, "theirs.mjb")
    assert Path("ours.mjb").read_bytes() == Path("theirs.mjb").read_bytes()


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=4, deadline=None)
@given(seed=seeds)
def test_an_episode_is_a_function_of_its_seed_and_actions(name: str, seed: int) -> None:
    # The used instance has stopped in the middle of some other episode.
    assert play(used(name), seed, 40) == play(raw(name), seed, 40)
    play(used(name), seed // 2, seed % 30)


@pytest.mark.parametrize("name", TASKS)
def test_writing_into_an_observation_changes_nothing(name: str) -> None:
    clean, spoilt = raw(name), raw(name)
    clean.action_space.seed(0)
    clean.reset(seed=0)
    spoilt.reset(seed=0)[0][:] = 1e3
    for _ in range(10):
        action = clean.action_space.sample()
        wanted, got = clean.step(action), spoilt.step(action)
        assert wanted[0].tobytes() == got[0].tobytes()
        got[0][:] = 1e3


@pytest.mark.parametrize("name", control.TASKS)
def test_a_deep_copy_of_classic_control_goes_on_alike(name: str) -> None:
    env = raw(name)
    play(env, 2, 7)
    twin = copy.deepcopy(env)
    action = env.action_space.sample()
    assert env.step(action)[0].tobytes() == twin.step(action)[0].tobytes()


@pytest.mark.parametrize("name", TASKS)
def test_environments_and_their_factories_pickle(name: str) -> None:
    module = control if name in control.TASKS else locomotion
    factory = pickle.loads(pickle.dumps(partial(module.raw, name)))
    again = pickle.loads(pickle.dumps(factory()))
    assert play(again, 1, 10) == play(used(name), 1, 10)


@pytest.mark.filterwarnings("ignore:.*spec.*:UserWarning")  # it is given by gym.make
@pytest.mark.filterwarnings("ignore:.*action space.*:UserWarning")  # Pendulum's torque is ±2
@pytest.mark.filterwarnings("ignore:.*infinity.*:UserWarning")  # MuJoCo's states are unbounded
@pytest.mark.parametrize("name", TASKS)
def test_gymnasium_and_sb3_accept_it(name: str) -> None:
    check_env(raw(name), skip_render_check=True)
    sb3_check_env(raw(name), skip_render_check=True)


@pytest.mark.parametrize("name", ["Pendulum", "Hopper"])
def test_worker_processes_give_the_same_steps(name: str) -> None:
    module = control if name in control.TASKS else locomotion
    factories: list[Callable[[], gym.Env[Any, Any]]] = [partial(module.raw, name)] * 2
    here = SyncVectorEnv(factories, autoreset_mode=AutoresetMode.SAME_STEP)
    there = AsyncVectorEnv(factories, autoreset_mode=AutoresetMode.SAME_STEP, context="spawn")
    here.action_space.seed(0)
    assert here.reset(seed=4)[0].tobytes() == there.reset(seed=4)[0].tobytes()
    for _ in range(10):
        actions = here.action_space.sample()
        wanted, got = here.step(actions), there.step(actions)
        assert wanted[0].tobytes() == got[0].tobytes()
        for factor in TASKS[name].factor_names:
            np.testing.assert_array_equal(wanted[4]["factors"][factor], got[4]["factors"][factor])
    there.close()


@pytest.mark.parametrize("name", BOX)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_are_refused_and_change_nothing(name: str, bad: float) -> None:
    env = used(name)
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape or (), np.float32)
    action[-1] = bad
    with pytest.raises(ValueError, match=r"step\(\) got the action .*wanted finite numbers"):
        env.step(action)
    twin = raw(name)
    twin.reset(seed=0)
    action[-1] = 0.5
    assert env.step(action)[0].tobytes() == twin.step(action)[0].tobytes()


@pytest.mark.parametrize("name", BOX)
@pytest.mark.parametrize("action", [0.5, [], np.zeros((2, 9)), [None], "left", ["a"]])
def test_actions_of_another_shape_or_kind_are_refused(name: str, action: Any) -> None:
    used(name).reset(seed=0)
    with pytest.raises(ValueError, match=r"step\(\) got an action of shape .*; wanted numbers of"):
        used(name).step(action)


@pytest.mark.parametrize("name", ["CartPole", "Acrobot"])
@pytest.mark.parametrize("action", [-1, 3, 0.5, np.nan, [0], np.zeros(1, int), None, "left"])
def test_choices_out_of_range_are_refused(name: str, action: Any) -> None:
    used(name).reset(seed=0)
    with pytest.raises(ValueError, match=r"step\(\) got the action .*; wanted one whole number"):
        used(name).step(action)


def test_actions_of_every_usual_kind_are_taken() -> None:
    assert [checked_choice(one, 3) for one in (2, np.int64(2), np.array(2))] == [2, 2, 2]
    for action in ([1, 0.5], np.ones(2, np.float32), np.ones(2, int)):
        assert checked_action(action, (2,)).shape == (2,)
    given = np.ones(2, np.float32)
    assert checked_action(given, (2,)) is given


def test_a_factor_that_the_reward_needs_must_be_there() -> None:
    with pytest.raises(ValueError, match="needs the factors"):
        TASKS["Pendulum"].reward({"angle2": 1.0})


@pytest.mark.parametrize("module", [control, locomotion])
def test_an_unknown_name_is_answered_with_the_nearest(module: Any) -> None:
    near = next(iter(module.TASKS))
    with pytest.raises(ValueError, match=near):
        module.raw(near[:-1])


def test_factors_by_hand() -> None:
    pendulum: Any = raw("Pendulum")
    pendulum.reset(seed=0)
    pendulum.state = np.array([2 * np.pi + 0.5, -2.0])
    factors = pendulum.step(np.array([9.0]))[4]["factors"]
    assert factors == pytest.approx({"angle2": 0.25, "speed2": 4.0, "torque2": 4.0})

    car: Any = raw("MountainCarContinuous")
    car.reset(seed=0)
    car.state = np.array([0.449, 0.05])
    _, reward, terminated, _, info = car.step(np.array([1.0]))
    assert terminated
    assert reward == pytest.approx(99.9)
    assert info["factors"]["goal"] == 1.0

    acrobot: Any = raw("Acrobot")
    acrobot.reset(seed=0)
    acrobot.state = np.zeros(4)
    still = acrobot.step(1)[4]["factors"]
    assert still == pytest.approx({"below_goal": 1.0, "tip_height": -2.0, "torque2": 0.0})


def test_a_robot_on_its_back_is_tilted_and_a_standing_one_is_as_high_as_its_body() -> None:
    cheetah: Any = raw("HalfCheetah", reset_noise_scale=0.0)
    cheetah.reset(seed=0)
    factors = cheetah.step(np.zeros(6))[4]["factors"]
    assert factors["height"] == pytest.approx(cheetah.data.body("torso").xpos[2], abs=0.02)
    assert factors["tilt2"] < 0.05
    cheetah.data.qpos[2] = 3 * np.pi
    assert cheetah.step(np.zeros(6))[4]["factors"]["tilt2"] > 8.0
    hopper: Any = raw("Hopper", reset_noise_scale=0.0)
    hopper.reset(seed=0)
    assert hopper.step(np.zeros(3))[4]["factors"]["height"] == pytest.approx(1.25, abs=0.01)


def test_the_ants_joints_and_feet_are_counted() -> None:
    ant: Any = raw("Ant", reset_noise_scale=0.0)
    ant.reset(seed=0)
    for _ in range(60):  # it falls on its feet
        factors = ant.step(np.zeros(8))[4]["factors"]
    assert (factors["feet_on_floor"], factors["alive"]) == (4.0, 1.0)
    assert factors["contact2"] > 0.0
    for _ in range(60):
        factors = ant.step(np.ones(8))[4]["factors"]
    ranges = ant.model.jnt_range[1:]
    ends = np.abs(ant.data.qpos[7:] - ranges.mean(1)) > 0.99 * (ranges[:, 1] - ranges[:, 0]) / 2
    assert factors["joints_at_limit"] == ends.sum() > 0


CLEAN = """
import numpy as np
from prefgym_envs import locomotion
for name in locomotion.TASKS:
    env = locomotion.raw(name)
    for seed in range(3):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        for step in range(40):
            sign = 1.0 if step % 2 else -1.0
            env.step((env.action_space.sample(), sign * env.action_space.high, sign * 1e6
                      * env.action_space.high)[seed].astype(np.float32))
    env.close()
"""


def test_no_robot_writes_to_the_terminal_or_the_folder(tmp_path: Path) -> None:
    """In a process of its own, with every Python warning turned into an error."""
    paths = [str(ROOT), str(ROOT / "envs")]
    code = f"import sys; sys.path[:0] = {paths!r}\n{CLEAN}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TASKS)
def test_every_factor_and_id_stands_in_the_documentation(name: str) -> None:
    page = "classic_control" if name in control.TASKS else "mujoco"
    text = (ROOT / "docs" / "environments" / f"{page}.md").read_text(encoding="utf-8")
    _, section = text.split(f"## prefgym/{name}-v0", 1)
    section = section.split("\n## ", 1)[0]
    for factor in TASKS[name].factor_names:
        assert f"`{factor}`" in section
