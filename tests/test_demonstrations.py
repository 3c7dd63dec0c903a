"""Demonstrations: what is recorded, how often it is drawn, and what cannot be one."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import prefgym  # noqa: F401
from benchmarks.claims import leak
from prefgym.checkpoints import CheckpointError
from prefgym.interventions import Random, Supervision
from prefgym.segments import Segments
from prefgym_agents.demonstrations import as_demonstrations, recorded
from prefgym_agents.evaluation import played
from prefgym_agents.replayed_steps import Transitions
from prefgym_agents.rlif import RLIF
from prefgym_agents.rlpd import RLPD
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.tabular import TabularQ
from prefgym_envs import pit_grid

GRID, PENDULUM = "prefgym/PitGrid-v0", "prefgym/Pendulum-v0"
CELLS, MOVES = gym.spaces.Discrete(100), gym.spaces.Discrete(4)
BEST = pit_grid.task().values.q[0].argmax(1)


def best(cells: np.ndarray) -> np.ndarray:
    return BEST[cells]


def push(seen: np.ndarray) -> np.ndarray:
    return np.full((len(seen), 1), 2.0, np.float32)


def on_grid(seed: int = 0, steps: int = 4, **more: Any) -> RLIF:
    rule = more.pop("rule", Random(0.3))
    env = gym.make_vec(
        GRID, num_envs=8, query_every=None, supervision=Supervision(best, rule, steps)
    )
    return RLIF(TabularQ(env, seed=seed), **more)


def on_pendulum(seed: int = 0, algorithm: Any = "SAC", **more: Any) -> RLIF:
    env = gym.make_vec(
        PENDULUM, num_envs=2, query_every=None, supervision=Supervision(push, Random(0.3))
    )
    net = {"net_arch": [16], **({"critics": 3} if algorithm is RLPD else {})}
    small = {"learning_starts": 64, "batch_size": 32, "gradient_steps": 2}
    return RLIF(sb3_backend(algorithm, env, seed=seed, policy_kwargs=net, **small), **more)


def test_whole_episodes_of_the_expert_are_recorded() -> None:
    steps = recorded(best, GRID, episodes=30, seed=1)
    assert (steps.actions == BEST[steps.observations]).all()
    assert steps.terminal.sum() == 30  # every one of them reaches the goal, and only at its end
    goal = np.unique(steps.next_observations[steps.terminal])
    assert len(goal) == 1
    assert not (steps.observations == goal).any()
    inside = ~steps.terminal[:-1] & ~steps.terminal[1:]
    again = recorded(best, GRID, episodes=30, seed=1)
    for one, other in zip(steps, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert inside.any()


def test_a_time_limit_is_no_end_and_what_follows_it_is_known() -> None:
    steps = recorded(push, PENDULUM, episodes=3, max_episode_steps=20, segment_steps=5)
    assert len(steps.actions) == 60
    assert not steps.terminal.any()
    same = steps.observations[1:] == steps.next_observations[:-1]
    apart = np.flatnonzero(~same.all(1)) + 1
    np.testing.assert_array_equal(apart, [20, 40])  # where another episode begins


def test_segments_are_demonstrations_without_their_last_steps() -> None:
    acting = TabularQ(gym.make_vec(GRID, num_envs=1, query_every=None))
    acting.q[np.arange(100), BEST] = 1.0
    whole = played(acting, GRID, episodes=10, seed=2, deterministic=True)
    steps = as_demonstrations(whole, CELLS, MOVES)
    table = recorded(best, GRID, episodes=10, seed=2)
    kept = np.sort(
        table.observations[~table.terminal] * 100 + table.next_observations[~table.terminal]
    )
    np.testing.assert_array_equal(np.sort(steps.observations * 100 + steps.next_observations), kept)
    assert not steps.terminal.any()
    assert (steps.rewards == 0.0).all()


def test_a_store_is_all_that_was_done_in_an_environment() -> None:
    env: Any = gym.make_vec(GRID, num_envs=4, query_every=None)
    seen, _ = env.reset(seed=3)
    for _ in range(50):
        seen = env.step(best(seen))[0]
    steps = as_demonstrations(env.store, CELLS, MOVES)
    assert len(steps.actions) == 200
    assert (steps.actions == BEST[steps.observations]).all()
    task = pit_grid.task()
    np.testing.assert_array_equal(steps.terminal, task.absorbing[steps.next_observations])
    assert steps.terminal.any()


@pytest.mark.parametrize("expert_steps", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_how_often_demonstrations_are_drawn(symmetric: bool, expert_steps: bool) -> None:
    given = recorded(best, GRID, episodes=20)
    marked = given._replace(next_observations=np.full_like(given.next_observations, 99))
    learner = on_grid(demonstrations=marked, symmetric=symmetric, expert_steps=expert_steps).learn(
        1_024
    )
    replay: Any = learner.policy.replay
    store = learner.store
    own = store.segments(store.since(np.zeros(8, np.int64)), 100)
    usable = np.asarray(own.mask)
    if not expert_steps:
        usable = usable & (own.factors["intervened"] == 0)
    replay.demonstrations = replay.demonstrations._replace(
        rewards=np.full(len(given.rewards), 7.0, np.float32)
    )
    drawn = replay.drawn(20_000)
    share = np.mean(drawn.rewards == 7.0)
    count = len(given.rewards)
    wanted = 0.5 if symmetric else count / (count + usable.sum())
    assert len(drawn.actions) == 20_000
    assert abs(share - wanted) < 0.015
    assert 0.02 < wanted < 0.98


def test_what_is_shown_is_worth_more_than_what_is_refused() -> None:
    given = recorded(best, GRID, episodes=60)
    q = (
        on_grid(rule=Random(1.0), steps=1, demonstrations=given, symmetric=True)
        .learn(2_048)
        .policy.q
    )
    shown = np.zeros(q.shape, bool)
    shown[given.observations, given.actions] = True
    tried = q < 0.0
    assert tried.sum() > 100
    assert q[shown].mean() > q[tried & ~shown].mean() + 0.3


@pytest.mark.parametrize("algorithm", ["SAC", RLPD])
def test_networks_learn_beside_demonstrations(algorithm: Any) -> None:
    learner = on_pendulum(
        algorithm=algorithm, symmetric=True, demonstrations=recorded(push, PENDULUM, episodes=2)
    ).learn(256)
    sampled = learner.policy.model.replay_buffer.sample(64)
    assert sampled.actions.shape == (64, 1)
    assert (sampled.actions == 1.0).float().mean() >= 0.5  # the bound of the space is ±1 there
    assert set(np.unique(sampled.rewards)) <= {-1.0, 0.0}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("made", [on_grid, on_pendulum])
def test_saved_and_loaded_it_goes_on_bit_for_bit(
    made: Any, symmetric: bool, run_folder: Any
) -> None:
    best_or_push, env = (best, GRID) if made is on_grid else (push, PENDULUM)
    given = recorded(best_or_push, env, episodes=3)
    first = made(demonstrations=given, symmetric=symmetric)
    turns = first.iterations(512)
    for steps, _ in turns:
        if steps >= 256:
            break
    first.save(run_folder / "saved")
    for _ in turns:
        pass
    second = made(seed=5, demonstrations=given, symmetric=symmetric)
    second.load(run_folder / "saved").learn(512)
    assert leak.fingerprint(first) == leak.fingerprint(second)
    with pytest.raises(CheckpointError, match="give the same demonstrations"):
        made().load(run_folder / "saved")


def test_without_demonstrations_nothing_changes() -> None:
    given = recorded(best, GRID, episodes=3)
    plain, beside = on_grid().learn(256), on_grid(demonstrations=given).learn(256)
    assert leak.fingerprint(plain) == leak.fingerprint(on_grid().learn(256))
    assert leak.fingerprint(plain) != leak.fingerprint(beside)


def test_what_cannot_be_is_refused() -> None:
    given = recorded(best, GRID, episodes=2)
    nothing = Transitions(*(column[:0] for column in given))
    with pytest.raises(ValueError, match="nothing to replay; record some"):
        on_grid(demonstrations=nothing)
    alone = Segments(
        actions=np.zeros((4, 1), np.int64),
        mask=np.ones((4, 1), bool),
        context=np.zeros(4, np.int64),
        context_id=np.arange(4),
        observations=np.zeros((4, 1), np.int64),
    )
    with pytest.raises(ValueError, match="no step with a step after it"):
        on_grid(demonstrations=alone)
    with pytest.raises(ValueError, match="are they text"):
        on_grid(demonstrations=alone.replace(observations=None))
    with pytest.raises(ValueError, match="do not fit the environment: an observation of theirs"):
        on_pendulum(demonstrations=given)
    with pytest.raises(ValueError, match="do not fit the environment"):
        on_grid(demonstrations=recorded(push, PENDULUM, episodes=1))
    with pytest.raises(ValueError, match="do not fit the environment: an action"):
        on_grid(demonstrations=given._replace(actions=given.actions + 9))
    with pytest.raises(ValueError, match="wanted Segments of whole episodes or the store"):
        as_demonstrations([1, 2], CELLS, MOVES)
    with pytest.raises(ValueError, match="and there are none; give demonstrations="):
        on_grid(symmetric=True)
    with pytest.raises(ValueError, match="one demonstration or more"):
        recorded(best, GRID, episodes=0)
    with pytest.raises(ValueError, match="more than the environment remembers; raise capacity="):
        recorded(push, PENDULUM, episodes=2, capacity=200)
    with pytest.raises(ValueError, match="writes text"):
        recorded(best, "prefgym/TextCopy-v0")
    with pytest.raises(ValueError, match="NaN or infinity in the policy behind it"):
        recorded(lambda seen: np.full((len(seen), 1), np.nan), PENDULUM, episodes=1)
