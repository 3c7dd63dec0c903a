"""Laws of the traffic environments: vehicles are conserved, red is red, and waiting adds up."""

import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from prefgym.registration import ENVIRONMENTS
from prefgym_agents.evaluation import RandomPolicy, evaluate
from prefgym_envs import traffic, traffic_roads, traffic_sensors
from prefgym_envs.traffic_controllers import FixedTime, MaxPressure
from prefgym_envs.traffic_queues import FACTORS, Flows, Traffic, empty
from prefgym_envs.traffic_roads import (
    ENTRY_CAPACITY,
    LEAST_GREEN_STEPS,
    LINK_CAPACITY,
    MOST_ARRIVALS,
    MOST_GREEN_STEPS,
    SATURATION,
    STEP_SECONDS,
    TRAVEL_STEPS,
    network,
)

ROOT = Path(__file__).parents[1]
LAYOUTS = pytest.mark.parametrize("layout", ["single", "grid"])
LANES = 6


def played(
    layout: str, steps: int = 150, seed: int = 0, load: float = 0.6
) -> list[tuple[Traffic, np.ndarray, Flows]]:
    """States before each step, what arrived, and what flowed; random lights, random arrivals."""
    rng, roads = np.random.default_rng(seed), network(layout)
    now, told = empty(roads, LANES), []
    for _ in range(steps):
        wanted = rng.integers(0, 2, (LANES, roads.intersections))
        arrivals = np.minimum(rng.poisson(load, (LANES, len(roads.entries))), MOST_ARRIVALS)
        before = Traffic(roads, **{name: one.copy() for name, one in now.arrays().items()})
        told.append((before, arrivals, now.advance(wanted, arrivals)))
    return [*told, (now, np.zeros_like(arrivals), told[-1][2])]


def inside(one: Traffic) -> np.ndarray:
    count: np.ndarray = one.queue + one.driving.sum(-1)
    return count


def rolled(env: Any, actions: np.ndarray, **options: Any) -> list[Any]:
    told = [env.reset(**options)[0].tolist()]
    for action in actions:
        observation, reward, *_, info = env.step(action)
        told.append((observation.tolist(), np.asarray(reward).tolist(), plain(info["factors"])))
    return told


def plain(factors: dict[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(one).tolist() for name, one in factors.items()}


# --- flows --------------------------------------------------------------------------------------


@LAYOUTS
@pytest.mark.parametrize("load", [0.3, 2.5])
def test_vehicles_are_conserved(layout: str, load: float) -> None:
    """Arrived = standing + driving + turned away + left, on every road and in all."""
    told, roads = played(layout, load=load), network(layout)
    arrived = sum(arrivals for _, arrivals, _ in told[:-1]).sum()
    away = sum(flows.turned_away.sum() for *_, flows in told[:-1])
    left = sum(flows.passed[:, roads.ahead < 0].sum() for *_, flows in told[:-1])
    assert arrived == inside(told[-1][0]).sum() + away + left
    assert arrived > left > 0
    for (before, arrivals, flows), (after, *_) in pairwise(told):
        assert (inside(after) == inside(before) + flows.entered - flows.passed).all()
        assert (flows.entered + flows.turned_away)[:, roads.entries].sum() == arrivals.sum()
        links = roads.behind >= 0
        assert (flows.entered[:, links] == flows.passed[:, roads.behind[links]]).all()
    assert (away > 0) == (load > 1)


@LAYOUTS
def test_nothing_crosses_on_red_and_no_more_than_saturation(layout: str) -> None:
    roads = network(layout)
    crossed = np.zeros(roads.roads, np.int64)
    for (before, _, flows), (after, *_) in pairwise(played(layout)):
        light, axis = np.arange(roads.roads) // 4, np.arange(roads.roads) % 4 // 2
        red = flows.switched[:, light] | (after.phase[:, light] != axis)
        assert not flows.passed[red].any()
        assert flows.passed.max() <= SATURATION
        assert (flows.passed <= before.queue + before.driving[..., 0]).all()
        crossed += flows.passed.sum(0)
    assert (crossed > 0).all()


@LAYOUTS
def test_no_road_holds_more_than_fits_and_a_full_one_lets_nobody_in(layout: str) -> None:
    roads = network(layout)
    assert set(roads.capacity[roads.behind < 0]) == {ENTRY_CAPACITY}
    assert set(roads.capacity[roads.behind >= 0]) <= {LINK_CAPACITY}
    for before, _, flows in played(layout, load=2.5):
        assert (inside(before) <= roads.capacity).all()
        assert not flows.turned_away[:, roads.behind >= 0].any()


def test_a_queue_spills_back_over_the_light_behind_it() -> None:
    """West column northbound: light 2 is green for all, light 0 serves east and west only."""
    roads = network("grid")
    one = empty(roads, 1)
    first, second = 4 * 2 + 1, 4 * 0 + 1
    assert roads.ahead[first] == second
    arrivals = np.zeros((1, len(roads.entries)), np.int64)
    arrivals[0, list(roads.entries).index(first)] = 2
    for _ in range(200):  # the longest green of light 0 lets some pass, less than arrive
        one.green_steps[0, 2] = 1
        one.green_steps[0, 0] = np.minimum(one.green_steps[0, 0], LEAST_GREEN_STEPS)
        one.advance(np.array([[1, 0, 0, 0]]), arrivals)
    assert inside(one)[0, second] == LINK_CAPACITY
    assert one.queue[0, first] > 50


def test_a_vehicle_drives_twenty_seconds_and_a_green_light_does_not_stop_it() -> None:
    one = empty(network("single"), 1)
    alone = np.array([[1, 0, 0, 0]])
    flows = [one.advance(np.zeros((1, 1), np.int64), alone * (step == 0)) for step in range(9)]
    passed = [int(each.passed[0, 0]) for each in flows]
    assert passed == [int(step == TRAVEL_STEPS) for step in range(9)]
    assert one.waited.sum() == one.queue.sum() == 0


def test_greens_are_neither_too_short_nor_too_long() -> None:
    for choice, length in ((lambda phase: 1 - phase, LEAST_GREEN_STEPS), (lambda phase: phase, 15)):
        one, switched = empty(network("grid"), 2), []
        for _ in range(60):
            flows = one.advance(choice(one.phase), np.zeros((2, 8), np.int64))
            switched.append(flows.switched.copy())
        at = np.flatnonzero(np.array(switched)[:, 0, 0])
        assert set(np.diff(at)) == {length + 1}  # a change takes a step of its own
        assert (np.array(switched) == np.array(switched)[:, :1, :1]).all()
    assert MOST_GREEN_STEPS == 15


# --- signals ------------------------------------------------------------------------------------


@LAYOUTS
def test_waiting_times_add_up_to_queues_times_seconds(layout: str) -> None:
    """Those in the queue stood for as long as the ledger of joins says, first come first served."""
    roads = network(layout)
    lines: dict[tuple[int, int], list[int]] = {
        (lane, road): [] for lane in range(LANES) for road in range(roads.roads)
    }
    stood_before_crossing = standing = 0
    for clock, ((before, _, flows), (after, *_)) in enumerate(pairwise(played(layout, 80))):
        for (lane, road), line in lines.items():
            line += [clock] * int(before.driving[lane, road, 0])
            crossing = int(flows.passed[lane, road])
            stood_before_crossing += sum(clock - joined for joined in line[:crossing])
            del line[:crossing]
            assert len(line) == after.queue[lane, road]
            assert after.waited[lane, road] == sum(clock + 1 - joined for joined in line)
        standing += int(after.queue.sum())
        assert stood_before_crossing + after.waited.sum() == standing


@LAYOUTS
def test_factors_are_what_their_names_say(layout: str) -> None:
    for (_, _, flows), (after, *_) in pairwise(played(layout, 60)):
        factors = after.factors(flows)
        assert tuple(factors) == FACTORS
        queued, vehicles = after.queue.sum(-1), inside(after).sum(-1)
        np.testing.assert_array_equal(factors["queue_length"], queued)
        np.testing.assert_array_equal(factors["vehicles"], vehicles)
        np.testing.assert_array_equal(factors["switches"], flows.switched.sum(-1))
        np.testing.assert_array_equal(factors["passed"], flows.passed.sum(-1))
        np.testing.assert_allclose(factors["delay"] * vehicles, queued)
        seconds = STEP_SECONDS * after.waited.sum(-1)
        np.testing.assert_allclose(factors["waiting_time"] * queued, seconds)
        assert (factors["waiting_time"][queued == 0] == 0).all()


@LAYOUTS
def test_the_true_reward_is_minus_the_minutes_on_the_roads(layout: str) -> None:
    env = traffic.raw_vector(3, layout=layout)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(60):
        _, rewards, *_, infos = env.step(env.action_space.sample())
        np.testing.assert_allclose(rewards, -infos["factors"]["vehicles"] * 4 / 60)
        np.testing.assert_array_equal(rewards, traffic.true_reward(infos["factors"]))
    assert (rewards < 0).all()


@LAYOUTS
def test_without_demand_nothing_costs_anything(layout: str) -> None:
    env = traffic.raw(layout=layout, demand_scale=0.0)
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(40):
        _, reward, *_, info = env.step(env.action_space.sample())
        costs = {name: one for name, one in info["factors"].items() if name != "switches"}
        assert reward == 0
        assert set(costs.values()) == {0.0}


@LAYOUTS
def test_more_demand_costs_more(layout: str) -> None:
    returns = []
    for scale in (0.5, 1.0, 1.5):
        env = traffic.raw_vector(30, layout=layout, demand_scale=scale)
        policy = MaxPressure()
        observations, _ = env.reset(seed=3)
        total = 0.0
        for _ in range(100):
            observations, rewards, *_ = env.step(policy.predict(observations)[0])
            total += float(rewards.mean())
        returns.append(total)
    assert returns[0] > 1.5 * returns[1] > 1.5 * 1.3 * returns[2]


# --- demand -------------------------------------------------------------------------------------


@LAYOUTS
def test_arrivals_are_those_of_the_pattern(layout: str) -> None:
    """Mean and variance of a Poisson distribution, within four standard errors."""
    env = traffic.raw_vector(4, layout=layout)
    steps, demand = 3000, np.arange(4)
    streams = traffic.random_streams.seeded(np.arange(4, dtype=np.uint64))
    drawn = []
    for _ in range(steps):
        streams, _ = traffic.random_streams.draw(streams)
        drawn.append(env.task.arrivals(streams, demand))
    counts, mean = np.array(drawn), env.task.network.demands
    assert counts.shape == (steps, *mean.shape)
    assert (np.abs(counts.mean(0) - mean) < 4 * np.sqrt(mean / steps)).all()
    assert (np.abs(counts.var(0) / mean - 1) < 0.25).all()
    centred = (counts - counts.mean(0)).reshape(steps, -1)
    together = np.corrcoef(centred.T) - np.eye(centred.shape[1])
    assert np.abs(together).max() < 5 / np.sqrt(steps)


@LAYOUTS
def test_the_pattern_of_demand_is_drawn_or_asked_for(layout: str) -> None:
    env = traffic.raw_vector(200, layout=layout)
    _, infos = env.reset(seed=0)
    assert set(infos["context_id"]) == set(range(env.task.network.patterns))
    single = traffic.raw(layout=layout)
    assert single.reset(seed=0, options={"demand": 2})[1]["context_id"] == 2
    _, infos = env.reset(options={"demand": np.arange(200) % 4})
    assert infos["context_id"].tolist() == [k % 4 for k in range(200)]


def test_demand_is_uneven_enough_that_no_fixed_time_suits_it() -> None:
    for layout in ("single", "grid"):
        roads = network(layout)
        side = roads.entries % 4
        across, along = (
            roads.demands[:, side < 2].max(1),
            roads.demands[:, side >= 2].max(1),
        )
        assert (across > 2 * along).any()
        assert (along > 2 * across).any()
        assert (across + along < 0.9 * SATURATION).all()  # some timing copes with each pattern


# --- single and batched forms -------------------------------------------------------------------


@LAYOUTS
@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda one: one.value)
def test_a_lane_is_a_single_environment(layout: str, mode: AutoresetMode) -> None:
    """Through the end of an episode and a reset, in every mode."""
    lanes, limit = 3, 25
    env = traffic.raw_vector(lanes, layout=layout, max_episode_steps=limit, autoreset_mode=mode)
    singles = [gym.wrappers.TimeLimit(traffic.raw(layout=layout), limit) for _ in range(lanes)]
    seen, infos = env.reset(seed=7)
    fresh = [one.reset(seed=7 + lane) for lane, one in enumerate(singles)]
    np.testing.assert_array_equal(seen, np.stack([observation for observation, _ in fresh]))
    assert infos["context_id"].tolist() == [info["context_id"] for _, info in fresh]
    env.action_space.seed(1)
    for step in range(1, 60):
        actions = env.action_space.sample()
        seen, rewards, terminated, truncated, infos = env.step(actions)
        assert not terminated.any()
        if mode == AutoresetMode.NEXT_STEP and step % (limit + 1) == 0:
            assert not infos["_factors"].any()
            told = [one.reset()[0] for one in singles]
            np.testing.assert_array_equal(seen, np.stack(told))
            continue
        known = [one.step(action) for one, action in zip(singles, actions, strict=True)]
        assert rewards.tolist() == [each[1] for each in known]
        assert truncated.tolist() == [each[3] for each in known]
        for name, values in infos["factors"].items():
            assert values.tolist() == [each[4]["factors"][name] for each in known]
        observations = [each[0] for each in known]
        if truncated.any() and mode == AutoresetMode.SAME_STEP:
            np.testing.assert_array_equal(np.stack(list(infos["final_obs"])), observations)
            observations = [one.reset()[0] for one in singles]
        if truncated.any() and mode == AutoresetMode.DISABLED:
            np.testing.assert_array_equal(seen, observations)
            seen, _ = env.reset(options={"reset_mask": truncated})
            observations = [one.reset()[0] for one in singles]
        np.testing.assert_array_equal(seen, observations)


@LAYOUTS
def test_equal_seeds_give_equal_traffic_and_a_state_continues_it(layout: str) -> None:
    one, other = traffic.raw(layout=layout), traffic.raw(layout=layout)
    shape = (50, *(one.action_space.shape or ()))
    actions = np.random.default_rng(0).integers(0, 2, shape)
    first = rolled(one, actions, seed=5)
    assert rolled(other, actions, seed=5) == first
    assert rolled(other, actions, seed=6) != first
    one.reset(seed=1)
    for action in actions:
        one.step(action)
    state = one.get_state()
    assert all(np.asarray(each).dtype == np.int64 for each in state.values())
    expected = [one.step(action)[0].tolist() for action in actions]
    other.set_state(state)
    assert [other.step(action)[0].tolist() for action in actions] == expected
    assert rolled(one, actions) == rolled(other, actions)  # a reset without a seed goes on


def test_lanes_in_one_computation_are_faster_than_one_by_one() -> None:
    """Informational but for a floor far below what is met: 64 lanes against one."""
    lanes, steps = 64, 30
    many, one = traffic.raw_vector(lanes), traffic.raw()
    seconds = []
    for env in (many, one):
        env.reset(seed=0)
        actions = np.zeros((lanes,) if env is many else (), np.int64)
        env.step(actions)
        rounds = []
        for _ in range(3):
            begun = time.perf_counter()
            for _ in range(steps):
                env.step(actions)
            rounds.append(time.perf_counter() - begun)
        seconds.append(min(rounds))
    ratio = lanes * seconds[1] / seconds[0]
    print(f"{lanes} lanes make {ratio:.1f} times as many steps per second as one")
    assert ratio > 4


# --- observations -------------------------------------------------------------------------------


@LAYOUTS
def test_observations_are_the_state_in_units(layout: str) -> None:
    for (_, _, flows), (after, *_) in pairwise(played(layout, 60)):
        observations = traffic_sensors.observe(after)
        assert traffic_sensors.space(after.network.intersections).contains(observations[0])
        seen = traffic_sensors.read(observations)
        shape = seen.queue.shape
        queue = np.minimum(after.queue.reshape(shape), traffic_sensors.QUEUE_SEEN)
        np.testing.assert_allclose(seen.queue, queue, atol=1e-4)
        driving = np.minimum(after.driving.sum(-1).reshape(shape), traffic_sensors.DRIVING_SEEN)
        np.testing.assert_allclose(seen.driving, driving, atol=1e-4)
        np.testing.assert_array_equal(seen.phase, after.phase)
        np.testing.assert_array_equal(seen.green_steps, after.green_steps)
        assert (seen.green_steps[flows.switched] == 0).all()


def test_the_four_sides_look_alike() -> None:
    """Traffic turned by a quarter is served the same by lights turned with it."""
    rng, roads = np.random.default_rng(0), network("single")
    one, turned = empty(roads, 1), empty(roads, 1)
    turned.phase[:] = 1
    order = [2, 3, 0, 1]
    for _ in range(60):
        wanted, arrivals = rng.integers(0, 2, (1, 1)), rng.integers(0, 3, (1, 4))
        flows = one.advance(wanted, arrivals)
        other = turned.advance(1 - wanted, arrivals[:, order])
        assert (flows.passed == other.passed[:, order]).all()
        for name, values in one.factors(flows).items():
            np.testing.assert_array_equal(values, turned.factors(other)[name])


# --- controllers --------------------------------------------------------------------------------


def test_fixed_time_keeps_its_cycle() -> None:
    env, policy = traffic.raw(), FixedTime((4, 7))
    observation, _ = env.reset(seed=0)
    phases = []
    for _ in range(60):
        action, _ = policy.predict(observation)
        observation, *_ = env.step(action)
        phases.append(int(action))
    changes = np.flatnonzero(np.diff(phases)) + 1
    assert changes[0] == 4
    assert set(np.diff(changes)[::2]) == {8}  # seven green steps and the change
    assert set(np.diff(changes)[1::2]) == {5}


def test_max_pressure_serves_the_longer_queue() -> None:
    one = empty(network("single"), 4)
    one.green_steps[:] = 5
    one.queue[0] = [9, 0, 0, 1]
    one.queue[1] = [1, 0, 2, 7]
    one.queue[2] = [1, 0, 2, 2]  # not by enough
    one.queue[3] = [0, 0, 9, 9]
    one.green_steps[3] = 1  # too early
    actions, _ = MaxPressure().predict(traffic_sensors.observe(one))
    assert actions.tolist() == [0, 1, 0, 0]


def test_max_pressure_does_not_send_vehicles_into_a_jam() -> None:
    one = empty(network("grid"), 2)
    one.green_steps[:] = 5
    one.queue[:, 4 * 2 + 2] = 8  # from the east at the light in the south west
    one.queue[:, 4 * 2 + 1] = 20  # from the south, towards light 0
    one.queue[1, 4 * 0 + 1] = 19  # which is jammed in the second lane
    one.green_steps[:, 2] = 5
    actions, _ = MaxPressure().predict(traffic_sensors.observe(one))
    assert actions[:, 2].tolist() == [0, 1]


@pytest.mark.parametrize("env_id", ["prefgym/Traffic-v0", "prefgym/TrafficGrid-v0"])
def test_max_pressure_beats_fixed_times_and_they_beat_chance(env_id: str) -> None:
    env = gym.make(env_id)
    policies = {
        "random": RandomPolicy(env.action_space),
        "bad": FixedTime(2),
        "best": FixedTime(10),
        "pressure": MaxPressure(),
    }
    episodes = 24
    returns = {name: evaluate(one, env_id, episodes=episodes) for name, one in policies.items()}
    mean = {name: float(one.mean()) for name, one in returns.items()}
    gain = returns["pressure"] - returns["best"]  # of the same traffic
    assert gain.mean() > 4 * gain.std() / np.sqrt(episodes)
    assert mean["best"] > 0.85 * mean["bad"]
    assert mean["best"] > 0.85 * mean["random"]
    assert mean["pressure"] > 0.85 * mean["best"]


# --- pictures -----------------------------------------------------------------------------------


@LAYOUTS
def test_pictures_show_every_vehicle_and_light(layout: str) -> None:
    env = traffic.raw(layout=layout, render_mode="rgb_array", demand_scale=0.5)
    env.reset(seed=0)
    for _ in range(30):
        env.step(np.zeros(env.action_space.shape or (), np.int64))
    picture, lights = env.render(), env.task.network.intersections
    assert picture.dtype == np.uint8
    vehicles = int(inside(env.traffic).sum())
    pixels = sum(
        int((picture == colour).all(-1).sum()) for colour in ((246, 190, 60), (130, 200, 255))
    )
    assert pixels == 28 * vehicles > 0  # seven wide, four long
    bars = [int((picture == c).all(-1).sum()) for c in ((40, 190, 90), (225, 60, 50))]
    assert sum(bars) == 4 * lights * 44
    assert bars[0] % (2 * 44) == 0


def test_words_show_the_same() -> None:
    env = traffic.raw_vector(2, layout="grid", render_mode="ansi")
    env.reset(seed=0)
    for _ in range(20):
        env.step(np.zeros((2, 4), np.int64))
    texts = env.render()
    assert len(texts) == 2
    assert [line.split(":")[0] for line in texts[0].splitlines()] == [
        f"light {k}" for k in range(4)
    ]
    assert f"north {env.traffic.queue[0, 0]}+{env.traffic.driving[0, 0].sum()}," in texts[0]


# --- documentation, bad input -------------------------------------------------------------------


def test_the_page_tells_factors_ids_and_numbers() -> None:
    text = (ROOT / "docs" / "environments" / "traffic.md").read_text(encoding="utf-8")
    ids = [one.id for one in ENVIRONMENTS.values() if one.module == "prefgym_envs.traffic"]
    assert len(ids) == 2
    assert all(f"`{name}`" in text for name in (*FACTORS, *ids))
    for hourly in (traffic_roads._ONE_INTERSECTION, traffic_roads._GRID):
        for pattern in hourly:
            sides = [" / ".join(map(str, dict.fromkeys(line))) for line in pattern]
            assert f"| {' | '.join(sides)} |" in text


def test_bad_arguments_are_refused() -> None:
    for call, message in (
        (lambda: traffic.raw(layout="ring"), "Unknown layout 'ring'"),
        (lambda: traffic.raw(demand_scale=-1.0), r"demand_scale is -1.0; give a number from 0"),
        (lambda: traffic.raw(demand_scale=float("nan")), "demand_scale is nan"),
        (lambda: traffic.raw(render_mode="human"), "render_mode 'human' is unknown here"),
        (lambda: traffic.raw_vector(0), "num_envs is 0"),
        (lambda: traffic.raw_vector(2, max_episode_steps=0), "max_episode_steps is 0"),
        (lambda: FixedTime(1), "each from 2 to 15 steps"),
        (lambda: FixedTime((4, 5, 6)), "one length of green for both phases or two"),
        (lambda: FixedTime((4, 20)), "each from 2 to 15 steps"),
        (lambda: MaxPressure(least_green_steps=0), "least_green_steps is 0"),
        (lambda: MaxPressure(margin=float("nan")), "margin is nan"),
        (lambda: MaxPressure().predict(np.zeros((1, 28))), "An observation of 2 lights"),
        (lambda: FixedTime().predict(np.zeros((1, 13))), r"shape \(1, 13\) came where"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("action", [2, -1, 0.5, [0], None, np.nan])
def test_actions_that_do_not_exist_are_refused(action: Any) -> None:
    env = traffic.raw()
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError, match=r"wanted integers of shape \(\), 0 \(green"):
        env.step(action)
    assert all((before[name] == one).all() for name, one in env.get_state().items())


@pytest.mark.parametrize("actions", [np.zeros((2, 3), int), np.full((2, 4), 2), np.zeros((2, 4))])
def test_actions_that_do_not_exist_are_refused_in_batches(actions: np.ndarray) -> None:
    grid = traffic.raw_vector(2, layout="grid")
    grid.reset(seed=0)
    with pytest.raises(ValueError, match=r"integers of shape \(2, 4\)"):
        grid.step(actions)


def test_misuse_is_refused() -> None:
    env, lanes = traffic.raw(), traffic.raw_vector(2)
    for one in (env, lanes):
        for call in (partial(one.step, np.zeros(2, np.int64)), one.get_state, one.render):
            with pytest.raises(ResetNeeded):
                call()
        with pytest.raises(ValueError, match=r"number of a pattern, from 0 to 3"):
            one.reset(options={"demand": 4})
        one.reset(seed=0)
        with pytest.raises(ValueError, match="nothing to render with"):
            one.render()
    with pytest.raises(ValueError, match="The state belongs to 2 lanes"):
        traffic.raw_vector(3).set_state(lanes.get_state())
