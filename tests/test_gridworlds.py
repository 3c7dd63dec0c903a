"""Gridworlds: rules to the cell, published figures, single form = batched form, exact resume."""

import json
import pickle
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from prefgym_envs import condorcet, delivery, random_mdps
from prefgym_envs.gridworlds import FACTORS, Board, task
from prefgym_envs.tabular import TabularEnv
from prefgym_envs.tabular_vector import TabularVectorEnv

UP, DOWN, LEFT, RIGHT = range(4)

FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "delivery": (delivery, {}),
    "delivery with coordinates": (delivery, {"observation": "coordinates"}),
    "random": (random_mdps, {"layout_seed": 36}),
    "random and stochastic": (random_mdps, {"layout_seed": 3, "stochastic": True}),
    "condorcet": (condorcet, {}),
}
every_family = pytest.mark.parametrize("family", list(FAMILIES))
every_mode = pytest.mark.parametrize("mode", list(AutoresetMode))


def single(family: str, **kwargs: Any) -> TabularEnv:
    module, arguments = FAMILIES[family]
    env: TabularEnv = module.raw(**arguments, **kwargs)
    return env


def batched(family: str, lanes: int, **kwargs: Any) -> TabularVectorEnv:
    module, arguments = FAMILIES[family]
    envs: TabularVectorEnv = module.raw_vector(lanes, **arguments, **kwargs)
    return envs


# The delivery board --------------------------------------------------------------------------


def test_the_published_returns_of_delivery_come_out() -> None:
    board = delivery.raw().task
    assert len(board.starts) == 92
    assert board.optimal_return == pytest.approx(41.21, abs=0.005)
    assert board.random_return == pytest.approx(-71.26, abs=0.005)
    assert board.mdps.discount == 0.999


@pytest.mark.parametrize(
    ("cell", "action", "arrives", "reward", "counted"),
    [
        ((0, 0), RIGHT, (0, 1), -1, {"gas"}),
        ((0, 0), UP, (0, 0), -1, {"gas"}),  # the border
        ((3, 3), RIGHT, (3, 3), -1, {"gas"}),  # a house
        ((6, 0), RIGHT, (6, 0), -2, {"mud"}),  # a house, from mud
        ((0, 1), RIGHT, (0, 2), -2, {"gas", "roadblock"}),
        ((0, 4), DOWN, (1, 4), 0, {"gas", "coin"}),
        ((3, 0), LEFT, (3, 0), -1, {"gas"}),  # blocked on a coin: it is not collected again
        ((1, 8), RIGHT, (1, 9), -2, {"mud"}),
        ((7, 6), RIGHT, (7, 7), -1, {"mud", "coin"}),
        ((7, 9), DOWN, (8, 9), 50, {"goal"}),
        ((9, 9), UP, (8, 9), 50, {"goal"}),
        ((1, 2), DOWN, (2, 2), -50, {"sheep"}),
    ],
)
def test_the_rules_of_delivery(
    cell: tuple[int, int],
    action: int,
    arrives: tuple[int, int],
    reward: float,
    counted: set[str],
) -> None:
    env = delivery.raw()
    env.reset(seed=0, options={"state": 10 * cell[0] + cell[1]})
    observation, earned, terminated, truncated, info = env.step(action)
    assert divmod(int(observation), 10) == arrives
    assert earned == reward
    assert {name for name, count in info["factors"].items() if count} == counted
    assert terminated == bool(counted & {"goal", "sheep"})
    assert not truncated


def test_a_coin_pays_on_every_entry() -> None:
    env = delivery.raw()
    env.reset(seed=0, options={"state": 4})
    rewards = [env.step(action)[1] for action in (DOWN, UP, DOWN, UP, DOWN)]
    assert rewards == [0.0, -1.0, 0.0, -1.0, 0.0]


def test_the_reward_is_the_weighted_sum_of_the_factors() -> None:
    env = single("random")
    env.reset(seed=0)
    for action in np.random.default_rng(0).integers(4, size=300):
        _, reward, terminated, _, info = env.step(action)
        counted = np.array([info["factors"][name] for name in FACTORS])
        assert counted @ env.task.mdps.weights[0] == pytest.approx(reward)
        if terminated:
            env.reset()


def test_an_ended_episode_stays_where_it_is_for_nothing() -> None:
    env = delivery.raw()
    env.reset(seed=0, options={"state": 79})
    env.step(DOWN)
    observation, reward, terminated, _, info = env.step(UP)
    assert (int(observation), reward, terminated) == (89, 0.0, True)
    assert not any(info["factors"].values())
    assert env.advantages(np.array([89, 89]), np.array([0, 3])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("observation", ["index", "coordinates"])
def test_advantages_are_never_positive_and_zero_for_the_best_action(observation: str) -> None:
    env = delivery.raw(observation=observation)
    cells = env.task.observations[env.task.starts]
    each = [env.advantages(cells, np.full(92, action)) for action in range(4)]
    assert np.max(each, 0) == pytest.approx(0, abs=1e-9)
    assert np.max(each) <= 1e-9
    values = env.task.values.v[0]
    down = -1.0 + 0.999 * values[10] - values[0]
    assert each[DOWN][0] == pytest.approx(down, abs=1e-9)


def test_regret_of_a_segment_is_what_its_ends_and_rewards_say() -> None:
    """Sum of advantages = Σ γ^t r + γ^T V(end) − V(start), discounted; the deterministic form."""
    env = delivery.raw()
    observation, _ = env.reset(seed=5)
    values, states, actions, rewards = env.task.values.v[0], [int(observation)], [], []
    for action in (RIGHT, RIGHT, DOWN, LEFT, UP):
        observation, reward, terminated, *_ = env.step(action)
        states.append(int(observation))
        actions.append(action)
        rewards.append(reward)
        assert not terminated
    weights = 0.999 ** np.arange(5)
    regret = weights @ env.advantages(np.array(states[:-1]), np.array(actions))
    ends = weights @ rewards + 0.999**5 * values[states[-1]] - values[states[0]]
    assert regret == pytest.approx(ends)


def test_the_scaled_return_of_known_policies() -> None:
    env = delivery.raw()
    assert env.scaled_return(env.optimal_policy()) == pytest.approx(1.0)
    assert env.policy_return(env.optimal_policy()) == pytest.approx(env.task.optimal_return)
    assert env.scaled_return(np.full((100, 4), 0.25)) == pytest.approx(0.0)


def test_monte_carlo_agrees_with_the_exact_return() -> None:
    envs = delivery.raw_vector(4096, autoreset_mode="Disabled")
    envs.reset(seed=1)
    rng = np.random.default_rng(1)
    total, alive = np.zeros(4096), np.ones(4096, np.bool_)
    for step in range(600):
        _, rewards, terminated, _, _ = envs.step(rng.integers(4, size=4096))
        total += 0.999**step * np.where(alive, rewards, 0.0)
        alive &= ~terminated
        envs.set_state({**envs.get_state(), "ended": np.zeros(4096, np.bool_)})  # absorbing
        if not alive.any():
            break
    error = total.std() / np.sqrt(4096)
    assert total.mean() == pytest.approx(envs.task.random_return, abs=3 * error)


# Random boards ----------------------------------------------------------------------------------


@given(layout_seed=st.integers(0, 100_000))
@settings(max_examples=60, deadline=None)
def test_boards_come_from_the_documented_distribution(layout_seed: int) -> None:
    rules = random_mdps.task(layout_seed)
    board, weights = rules.drawing, rules.mdps.weights[0]
    assert isinstance(board, Board)
    rows, columns = board.items.shape
    assert rows in {3, 6, 10, 15}
    assert columns in {5, 6, 10}
    count = {letter: int((board.items == ".GHSCR".index(letter)).sum()) for letter in "GHSCR"}
    assert count["G"] == 1
    assert count["H"] == 0
    assert not board.mud.any()
    shares = (("S", {0, 1, 3}), ("R", {0, 1, 5, 8}), ("C", {0, 1, 2}))
    for letter, tenths in shares:
        exact = {share * rows * columns // 10 for share in tenths}
        assert count[letter] in exact | {number - 1 for number in exact}  # the goal covers one
    assert weights[0] == -1
    assert weights[1] in {0, 1, 5, 10, 50}
    assert weights[2] in {-5, -10, -50, -100}
    assert weights[3] == 1
    assert weights[4] in {-2, -5, -10}
    assert weights[5] in {-1, -2, -3}


def test_a_layout_seed_is_a_task() -> None:
    def fingerprint(seed: int) -> bytes:
        mdps = random_mdps.task(seed).mdps
        return mdps.next_state.tobytes() + mdps.outcome_rewards.tobytes()

    random_mdps.task.cache_clear()
    first = [fingerprint(seed) for seed in range(20)]
    random_mdps.task.cache_clear()
    assert first == [fingerprint(seed) for seed in range(20)]
    assert len(set(first)) == 20


def test_half_of_the_gambles_are_won() -> None:
    env = random_mdps.raw(layout_seed=0, stochastic=True, win_reward=70.0)
    board = env.task.drawing
    assert isinstance(board, Board)
    assert board.items.shape == (5, 5)
    gambles = np.argwhere(env.task.mdps.features[0, :, :, 0, FACTORS.index("sheep")] > 0)
    state, action = (int(number) for number in gambles[0])
    rewards, ends = [], []
    for seed in range(2000):
        env.reset(seed=seed, options={"state": state})
        _, reward, terminated, _, info = env.step(action)
        assert info["factors"]["coin"] == (reward > 0)
        rewards.append(reward)
        ends.append(terminated)
    assert set(rewards) == {-50.0, 70.0}
    assert all(ends)
    assert np.mean(np.array(rewards) > 0) == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(2000))
    assert env.task.mdps.rewards[0, state, action] == 10.0


def test_a_larger_win_makes_the_gamble_optimal() -> None:
    def gambles(win_reward: float) -> float:
        rules = random_mdps.task(0, stochastic=True, win_reward=win_reward)
        meets = rules.mdps.features[0, :, :, 0, FACTORS.index("sheep")] > 0
        return float((rules.optimal_policy * meets).sum())

    assert gambles(50.0) == 0.0
    assert gambles(500.0) > 0.0


# What every tabular environment keeps -----------------------------------------------------------


@every_family
def test_gymnasium_and_sb3_accept_it(family: str) -> None:
    check_env(single(family), skip_render_check=True)
    check_env_of_sb3(single(family))


def trajectory(env: TabularEnv, seed: int, steps: int = 60) -> list[Any]:
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    seen: list[Any] = [(np.asarray(observation).tolist(), info)]
    for _ in range(steps):
        action = rng.integers(env.task.mdps.actions)
        observation, *rest = env.step(action)
        seen.append((np.asarray(observation).tolist(), *rest))
        if rest[1] or rest[2]:
            observation, info = env.reset()
            seen.append((np.asarray(observation).tolist(), info))
    return seen


@every_family
def test_equal_seeds_give_equal_episodes(family: str) -> None:
    assert trajectory(single(family), 3) == trajectory(single(family), 3)
    if family != "condorcet":
        assert trajectory(single(family), 3) != trajectory(single(family), 4)


@every_family
def test_without_a_seed_starts_differ_between_environments(family: str) -> None:
    streams = set()
    for _ in range(3):
        env = single(family)
        env.reset()
        streams.add(int(env.get_state()["stream"]))
    assert len(streams) == 3


@every_family
def test_a_pickled_environment_goes_on_the_same(family: str) -> None:
    env = single(family)
    env.reset(seed=9)
    env.step(0)
    twin = pickle.loads(pickle.dumps(env))
    env.reset()
    twin.reset()
    for action in (1, 2, 0, 1):
        assert np.array_equal(env.step(action)[0], twin.step(action)[0])
    envs = batched(family, 3)
    envs.reset(seed=9)
    assert np.array_equal(
        pickle.loads(pickle.dumps(envs)).step(np.zeros(3, np.int64))[1],
        envs.step(np.zeros(3, np.int64))[1],
    )


@every_family
def test_a_saved_single_environment_goes_on_the_same(family: str) -> None:
    env, twin = single(family), single(family)
    env.reset(seed=2)
    env.step(1)
    twin.set_state(env.get_state())
    for action in (0, 1, 2, 2):
        assert np.array_equal(env.step(action)[0], twin.step(action)[0])
    assert np.array_equal(env.reset()[0], twin.reset()[0])


def masked(values: dict[str, Any], key: str) -> np.ndarray:
    return np.asarray(values.get(f"_{key}", np.zeros(5, np.bool_)))


def assert_equal_infos(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """``mine`` says all that Gymnasium says about the lanes of Gymnasium's masks, and as much."""
    for key in ("context_id", "final_obs", "final_info"):
        assert np.array_equal(masked(mine, key), masked(theirs, key)), key
    for lane in np.flatnonzero(masked(mine, "context_id")):
        assert mine["context_id"][lane] == theirs["context_id"][lane]
    for lane in np.flatnonzero(masked(mine, "final_obs")):
        assert np.array_equal(mine["final_obs"][lane], theirs["final_obs"][lane])
    for where in ((mine, theirs), (mine.get("final_info", {}), theirs.get("final_info", {}))):
        for lane in np.flatnonzero(masked(where[1], "factors")):
            for name, values in where[0]["factors"].items():
                assert values[lane] == where[1]["factors"][name][lane]


@every_family
@every_mode
def test_the_batched_form_lives_the_episodes_of_single_environments(
    family: str, mode: AutoresetMode
) -> None:
    envs = batched(family, 5, max_episode_steps=7, autoreset_mode=mode)
    loop = SyncVectorEnv(
        [lambda: TimeLimit(single(family), 7)] * 5,
        autoreset_mode=mode,
    )
    assert envs.observation_space == loop.observation_space
    assert envs.action_space == loop.action_space
    assert envs.metadata["autoreset_mode"] == mode
    rng = np.random.default_rng(0)
    mine, theirs = envs.reset(seed=11), loop.reset(seed=11)
    for _ in range(80):
        assert np.array_equal(mine[0], theirs[0])
        assert mine[0].dtype == theirs[0].dtype
        for one, other in zip(mine[1:-1], theirs[1:-1], strict=True):
            assert np.array_equal(one, other)
            assert one.dtype == other.dtype
        assert_equal_infos(mine[-1], theirs[-1])
        if mode == AutoresetMode.DISABLED and len(mine) > 2 and (mine[2] | mine[3]).any():
            ended = mine[2] | mine[3]
            mine = envs.reset(options={"reset_mask": ended})
            theirs = loop.reset(options={"reset_mask": ended.copy()})
            continue
        actions = rng.integers(envs.task.mdps.actions, size=5)
        mine, theirs = envs.step(actions), loop.step(actions)


@every_family
@every_mode
def test_a_saved_batch_goes_on_the_same(family: str, mode: AutoresetMode) -> None:
    envs = batched(family, 6, max_episode_steps=5, autoreset_mode=mode)
    rng = np.random.default_rng(0)

    def step(one: TabularVectorEnv, actions: np.ndarray) -> list[Any]:
        result = one.step(actions)
        ended = result[2] | result[3]
        if mode == AutoresetMode.DISABLED and ended.any():
            observations, _ = one.reset(options={"reset_mask": ended})
            return [observations.tolist(), *(part.tolist() for part in result[:4])]
        return [part.tolist() for part in result[:4]]

    envs.reset(seed=0)
    actions = rng.integers(3, size=(30, 6))
    for one in actions[:13]:
        step(envs, one)
    written = json.dumps({name: part.tolist() for name, part in envs.get_state().items()})
    twin = batched(family, 6, max_episode_steps=5, autoreset_mode=mode)
    twin.set_state({name: np.array(part) for name, part in json.loads(written).items()})
    for one in actions[13:]:
        assert step(envs, one) == step(twin, one)


def test_every_step_tells_its_factors_also_in_ended_lanes() -> None:
    envs = delivery.raw_vector(2)
    envs.reset(seed=0, options={"state": [79, 0]})
    _, rewards, terminated, _, infos = envs.step(np.array([DOWN, RIGHT]))
    assert terminated.tolist() == [True, False]
    assert rewards.tolist() == [50.0, -1.0]
    assert infos["factors"]["goal"].tolist() == [1.0, 0.0]
    assert infos["_factors"].tolist() == [True, True]
    assert infos["final_obs"].tolist() == [89, None]
    assert infos["_context_id"].tolist() == [True, False]


def test_seeds_may_be_given_lane_by_lane() -> None:
    envs, alone = delivery.raw_vector(3), delivery.raw()
    observations, _ = envs.reset(seed=[7, None, 1])
    assert observations[0] == alone.reset(seed=7)[0]
    assert observations[2] == alone.reset(seed=1)[0]
    with pytest.raises(ValueError, match="2 seeds for 3 lanes"):
        envs.reset(seed=[1, 2])


def test_starts_are_uniform_over_the_start_states() -> None:
    envs = delivery.raw_vector(46_000)
    observations, infos = envs.reset(seed=0)
    counts = np.bincount(observations, minlength=100)
    assert set(np.flatnonzero(counts)) == set(envs.task.starts.tolist())
    expected = 500.0
    statistic = ((counts[envs.task.starts] - expected) ** 2 / expected).sum()
    assert statistic < 138.0  # chi-square, 91 degrees of freedom, p = .001
    assert np.array_equal(infos["context_id"], observations)


# Pictures -----------------------------------------------------------------------------------


def test_the_picture_in_letters_shows_the_agent_in_brackets() -> None:
    env = delivery.raw(render_mode="ansi")
    env.reset(seed=0, options={"state": 77})
    rows = env.render().splitlines()
    assert len(rows) == 10
    assert rows[7] == " .  C  .  .  .  .  . [c] m  m"


def test_the_picture_in_colour_changes_only_in_the_cell_of_the_agent() -> None:
    env = delivery.raw(render_mode="rgb_array")
    env.reset(seed=0, options={"state": 0})
    first = env.render()
    env.step(RIGHT)
    second = env.render()
    assert first.shape == (480, 480, 3)
    assert first.dtype == np.uint8
    changed = (first != second).any(-1)
    assert changed[:48, :96].any()
    changed[:48, :96] = False
    assert not changed.any()
    envs = delivery.raw_vector(2, render_mode="rgb_array")
    envs.reset(seed=0, options={"state": 0})
    assert all(np.array_equal(picture, first) for picture in envs.render())


# What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [4, -1, 1.0, float("nan"), "up", None, np.array([1]), 2.5])
def test_an_action_that_does_not_exist_is_refused(action: Any) -> None:
    env = delivery.raw()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="give an integer from 0 to 3"):
        env.step(action)


@pytest.mark.parametrize("actions", [[4, 0], [-1, 0], [0.0, 1.0], [0], [[0, 1]], [np.nan, 0], 1])
def test_actions_that_do_not_exist_are_refused(actions: Any) -> None:
    envs = delivery.raw_vector(2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="give integers"):
        envs.step(np.array(actions))


def test_bad_arguments_are_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="Unknown observation 'indx'; did you mean 'index'"):
        delivery.raw(observation="indx")
    with pytest.raises(ValueError, match="render_mode 'human'"):
        delivery.raw(render_mode="human")
    with pytest.raises(ValueError, match="layout_seed is -1"):
        random_mdps.raw(layout_seed=-1)
    with pytest.raises(ValueError, match="win_reward is nan"):
        random_mdps.raw(stochastic=True, win_reward=float("nan"))
    with pytest.raises(ValueError, match="num_envs is 0"):
        delivery.raw_vector(0)
    with pytest.raises(ValueError, match="max_episode_steps is 0"):
        delivery.raw_vector(1, max_episode_steps=0)
    with pytest.raises(ValueError, match="autoreset_mode 'Later'"):
        delivery.raw_vector(1, autoreset_mode="Later")
    with pytest.raises(ValueError, match="render_mode 'human'"):
        delivery.raw_vector(1, render_mode="human")
    with pytest.raises(ValueError, match="no start state"):
        delivery.raw().reset(seed=0, options={"state": 22})
    with pytest.raises(ValueError, match="no start state"):
        delivery.raw_vector(2).reset(seed=0, options={"state": [0, 0.5]})
    with pytest.raises(ValueError, match="need one length"):
        Board.parse(["..", "."])
    with pytest.raises(ValueError, match="got 'x'"):
        Board.parse(["x."])
    with pytest.raises(ValueError, match="No episode can start"):
        task(Board.parse(["GS"]), np.zeros(6))


def test_what_comes_too_early_or_too_late_is_refused() -> None:
    env, envs = delivery.raw(), delivery.raw_vector(2, autoreset_mode="Disabled")
    for call in (lambda: env.step(0), env.render, env.get_state, envs.render, envs.get_state):
        with pytest.raises(ResetNeeded):
            call()
    with pytest.raises(ResetNeeded):
        envs.step(np.zeros(2, np.int64))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="render_mode"):
        env.render()
    with pytest.raises(ResetNeeded):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset(seed=0, options={"state": [79, 0]})
    with pytest.raises(ValueError, match="render_mode"):
        envs.render()
    envs.step(np.array([DOWN, DOWN]))
    with pytest.raises(ValueError, match=r"lanes \[0\] have ended"):
        envs.step(np.array([DOWN, DOWN]))
    for mask in (np.array([True]), np.array([1, 0]), np.array([False, False])):
        with pytest.raises(ValueError, match="reset_mask"):
            envs.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match="belongs to 2 lanes"):
        delivery.raw_vector(3).set_state(envs.get_state())


@pytest.mark.parametrize(
    ("observation", "seen"),
    [
        ("index", np.array([100])),
        ("index", np.array([-1])),
        ("index", np.array([0.5])),
        ("index", np.array([np.nan])),
        ("index", np.array([[1, 2]])),
        ("coordinates", np.array([[10.0, 0.0]])),
        ("coordinates", np.array([[0.0, 10.0]])),
        ("coordinates", np.array([[np.inf, 0.0]])),
        ("coordinates", np.array([1.0])),
    ],
)
def test_advantages_of_what_is_no_observation_are_refused(
    observation: str, seen: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="Observation"):
        delivery.raw(observation=observation).advantages(seen, np.array([0]))


def test_the_batched_form_is_worth_it() -> None:
    """A ratio within one run: at least five times the steps per second of the single form."""

    def seconds(act: Callable[[], object]) -> float:
        begin = time.process_time()
        act()
        return time.process_time() - begin

    env, envs = delivery.raw(), delivery.raw_vector(1000)
    env.reset(seed=0)
    envs.reset(seed=0)
    actions = np.random.default_rng(0).integers(4, size=1000)

    def alone() -> None:
        for action in actions:
            if env.step(action)[2]:
                env.reset()

    one = min(seconds(alone) for _ in range(3))
    together = min(seconds(lambda: [envs.step(actions) for _ in range(10)]) for _ in range(3)) / 10
    assert one > 5 * together
