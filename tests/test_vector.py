"""The replayable vector environment: an episode is its number and its actions, in every mode."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st

from prefgym.vector import ReplayableVectorEnv, episode_seed
from prefgym_envs import control, locomotion

SAME_STEP, NEXT_STEP, DISABLED = (
    AutoresetMode.SAME_STEP,
    AutoresetMode.NEXT_STEP,
    AutoresetMode.DISABLED,
)
MODES = pytest.mark.parametrize("mode", [SAME_STEP, NEXT_STEP, DISABLED], ids=lambda one: one.value)

TASKS: dict[str, Callable[[], gym.Env[Any, Any]]] = {
    "Pendulum": lambda: TimeLimit(control.raw("Pendulum"), 7),
    "CartPole": lambda: TimeLimit(control.raw("CartPole"), 30),
    "Hopper": lambda: TimeLimit(locomotion.raw("Hopper"), 15),
}


def vector(
    task: str = "CartPole", mode: AutoresetMode = SAME_STEP, lanes: int = 3
) -> ReplayableVectorEnv:
    return ReplayableVectorEnv([TASKS[task]] * lanes, mode)


Told = tuple[bytes, bytes, bytes, bytes, dict[str, Any]]


def roll(env: ReplayableVectorEnv, seed: int, steps: int) -> list[Told]:
    """What random actions meet, resets of the disabled mode included."""
    rng = np.random.default_rng(seed)
    space = env.single_action_space
    told = []
    for _ in range(steps):
        shape = (env.num_envs, *space.shape)
        actions: Any = rng.uniform(-1, 1, shape).astype(np.float32)
        if isinstance(space, gym.spaces.Discrete):
            actions = rng.integers(space.n, size=env.num_envs)
        observations, rewards, terminated, truncated, infos = env.step(actions)
        ended = terminated | truncated
        if env.autoreset_mode == DISABLED and ended.any():
            observations = env.reset(options={"reset_mask": ended})[0]
        flags = terminated.tobytes(), truncated.tobytes()
        told.append((observations.tobytes(), rewards.tobytes(), *flags, plain(infos)))
    return told


def plain(infos: dict[str, Any]) -> dict[str, Any]:
    return {
        k: plain(v) if isinstance(v, dict) else np.asarray(v).tolist() for k, v in infos.items()
    }


@MODES
def test_equal_seeds_give_equal_trajectories(mode: AutoresetMode) -> None:
    one, other = vector(mode=mode), vector(mode=mode)
    one.reset(seed=5)
    other.reset(seed=1)
    roll(other, 3, 10)
    other.reset(seed=np.int64(5))
    assert roll(one, 0, 80) == roll(other, 0, 80)
    one.reset(seed=[1, None, 3])
    other.reset(seed=[1, None, 3])
    assert roll(one, 0, 20) == roll(other, 0, 20)


def test_other_seeds_and_no_seed_give_other_trajectories() -> None:
    starts = [vector().reset(seed=seed)[0].tobytes() for seed in (0, 1, [0, 1, 2], None, None)]
    assert len(set(starts)) == len(starts)
    env = vector()
    first = env.reset(seed=0)[0]
    assert not np.array_equal(env.reset()[0], first)
    lanes = first.tolist()
    assert lanes[0] != lanes[1] != lanes[2] != lanes[0]


@MODES
@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=4)
@given(before=st.integers(0, 50), after=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_state_continues_bit_for_bit(
    task: str, mode: AutoresetMode, before: int, after: int, seed: int
) -> None:
    one, other = vector(task, mode), vector(task, mode)
    one.reset(seed=seed)
    other.reset(seed=seed + 1)
    roll(one, 0, before)
    roll(other, 1, 11)
    state = {name: value.copy() for name, value in one.get_state().items()}
    expected = roll(one, 2, after)
    other.set_state(state)
    assert roll(other, 2, after) == expected
    one.set_state(state)
    assert roll(one, 2, after) == expected
    for name, value in one.get_state().items():
        np.testing.assert_array_equal(value, other.get_state()[name])


def test_a_state_holds_the_running_episodes_only() -> None:
    env = vector("Pendulum")
    env.reset(seed=0)
    roll(env, 0, 500)
    assert sum(value.nbytes for value in env.get_state().values()) < 300


def test_long_episodes_can_be_replayed_too() -> None:
    def endless() -> gym.Env[Any, Any]:
        return control.raw("Pendulum")

    one, other = (ReplayableVectorEnv([endless, endless]) for _ in range(2))
    one.reset(seed=0)
    roll(one, 0, 200)
    other.set_state(one.get_state())
    assert roll(one, 1, 100) == roll(other, 1, 100)


@MODES
def test_an_episode_is_its_number_and_its_actions(mode: AutoresetMode) -> None:
    """What the other lanes do, and how the earlier episodes went, does not matter."""
    one, other = vector("Pendulum", mode, 2), vector("Pendulum", mode, 4)
    starts = []
    for env in (one, other):
        seen = [env.reset(seed=3)[0][0]]
        for action in np.random.default_rng(env.num_envs).uniform(-2, 2, 40):
            actions = np.full((env.num_envs, 1), action, np.float32)
            observations, _, _, truncated, _ = env.step(actions)
            if mode == DISABLED and truncated.any():
                observations, _ = env.reset(options={"reset_mask": truncated})
            if env.get_state()["elapsed"][0] == 0:
                seen.append(observations[0])
        starts.append(np.array(seen))
    assert len(starts[0]) == 6
    np.testing.assert_array_equal(starts[0], starts[1])


def test_seeds_of_episodes_are_all_different() -> None:
    seeds = {episode_seed(s, lane, k) for s in range(5) for lane in range(5) for k in range(50)}
    assert len(seeds) == 5 * 5 * 50


def test_the_three_modes_live_through_the_same_episodes() -> None:
    """Each lane plays its own list of actions, one for each step in which it really acts."""
    actions = np.random.default_rng(0).integers(2, size=(3, 200))
    histories = []
    for mode in (SAME_STEP, NEXT_STEP, DISABLED):
        env = vector("CartPole", mode)
        env.reset(seed=8)
        acted, history = np.zeros(3, np.int64), [[], [], []]  # type: ignore[var-annotated]
        resetting = np.zeros(3, bool)
        while (acted < 120).any():
            observations, rewards, terminated, truncated, infos = env.step(
                actions[np.arange(3), np.minimum(acted, 199)]
            )
            ended = terminated | truncated
            arrived = infos["final_obs"] if mode == SAME_STEP and ended.any() else observations
            for lane in np.nonzero(~resetting)[0]:
                seen = (arrived if ended[lane] else observations)[lane]
                told = {name: values[lane] for name, values in infos["factors"].items()}
                history[lane].append((seen.tolist(), rewards[lane], terminated[lane], told))
                acted[lane] += 1
            for lane in np.nonzero(resetting)[0]:
                assert (rewards[lane], ended[lane]) == (0.0, False)
            if mode == NEXT_STEP:
                resetting = ended
            elif mode == DISABLED and ended.any():
                env.reset(options={"reset_mask": ended})
        histories.append([lane[:120] for lane in history])
    assert histories[0] == histories[1] == histories[2]


def test_final_observations_are_told_where_episodes_ended() -> None:
    env = vector("Pendulum")
    env.reset(seed=0)
    for number in range(7):
        observations, *_, infos = env.step(np.ones((3, 1), np.float32))
        assert ("final_obs" in infos) == (number == 6)
    assert infos["_final_obs"].all()
    assert not np.array_equal(infos["final_obs"], observations)


def test_what_it_returns_is_not_its_own() -> None:
    one, other = vector("Pendulum"), vector("Pendulum")
    for env in (one, other):
        env.reset(seed=0)
    for _ in range(20):
        actions = np.ones((3, 1), np.float32)
        wanted, got = other.step(actions), one.step(actions)
        for mine, theirs in zip(got[:4], wanted[:4], strict=True):
            np.testing.assert_array_equal(mine, theirs)
            mine[:] = 7
        actions[:] = 9.0


def test_a_seed_with_a_mask_seeds_those_lanes_only() -> None:
    one, other = vector("Pendulum", DISABLED), vector("Pendulum", DISABLED)
    one.reset(seed=0)
    before = one.get_state()
    mask = np.array([False, True, False])
    observations, _ = one.reset(seed=9, options={"reset_mask": mask})
    fresh, _ = other.reset(seed=9)
    np.testing.assert_array_equal(observations[1], fresh[1])
    expected = roll(one, 0, 30)
    one.set_state(before)
    one.reset(seed=9, options={"reset_mask": mask})
    other.set_state(one.get_state())
    assert roll(other, 0, 30) == roll(one, 0, 30) == expected


def test_names_of_factors_are_told_in_any_order() -> None:
    class Swapped(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            *rest, info = self.env.step(action)
            told = dict(reversed(info["factors"].items()))
            return *rest, {**info, "factors": told}

    one, other = vector("Pendulum"), ReplayableVectorEnv([lambda: Swapped(TASKS["Pendulum"]())] * 3)
    one.reset(seed=0)
    other.reset(seed=0)
    assert one.factor_names == other.factor_names == ("angle2", "speed2", "torque2")
    assert roll(one, 0, 20) == roll(other, 0, 20)


def test_it_renders_calls_and_closes_its_lanes() -> None:
    env = ReplayableVectorEnv([lambda: control.raw("CartPole", render_mode="rgb_array")] * 2)
    env.reset(seed=0)
    pictures = env.render()
    assert len(pictures) == 2
    assert pictures[0].ndim == 3
    assert env.call("render_mode") == ("rgb_array",) * 2
    env.close()
    assert env.closed


# --- bad input ----------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize(
    "actions",
    [
        np.zeros((2, 1), np.float32),
        np.zeros(3, np.float32),
        np.zeros((3, 2), np.float32),
        [[0.0]],
        np.zeros((3, 1), complex),
        "up",
    ],
    ids=str,
)
def test_actions_of_another_shape_are_refused(mode: AutoresetMode, actions: Any) -> None:
    env = vector("Pendulum", mode)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"wanted shape \(3, 1\) and type float32"):
        env.step(actions)


def test_choices_are_whole_numbers() -> None:
    env = vector("CartPole")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"type float64; wanted shape \(3,\) and type int64"):
        env.step(np.array([0.0, 1.0, 0.7]))
    env.step([0, 1, 0])
    env.step(np.array([0, 1, 0], np.int8))


def test_ended_lanes_must_be_reset_where_nothing_does_it_by_itself() -> None:
    env = vector("Pendulum", DISABLED)
    env.reset(seed=0)
    actions = np.ones((3, 1), np.float32)
    for _ in range(7):
        env.step(actions)
    with pytest.raises(ValueError, match=r"Lanes \[0, 1, 2\] have ended; .* call reset\(options="):
        env.step(actions)
    env.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(ValueError, match=r"Lanes \[1\] have ended"):
        env.step(actions)


@pytest.mark.parametrize(
    "mask", [np.ones(2, bool), np.ones(3), [True, False], np.zeros(3, bool), True]
)
def test_a_mask_is_one_bool_for_each_lane(mask: Any) -> None:
    env = vector()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"give one bool per lane, 3 in all"):
        env.reset(options={"reset_mask": mask})


def test_options_that_could_not_be_replayed_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\['x_init'\]; a replayable environment takes"):
        vector("Pendulum").reset(options={"x_init": 1.0})


def test_nothing_happens_before_reset() -> None:
    env = vector()
    for call in (
        lambda: env.step(np.zeros(3, np.int64)),
        env.get_state,
        lambda: env.reset(options={"reset_mask": np.array([True, False, False])}),
    ):
        with pytest.raises(ResetNeeded, match=r"Call reset\(\)"):
            call()
    env.reset(options={"reset_mask": np.ones(3, bool)})


def test_a_state_of_other_lanes_is_refused() -> None:
    env = vector(lanes=2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"belongs to 2 lanes, .* make it with num_envs=2"):
        vector(lanes=3).set_state(env.get_state())
