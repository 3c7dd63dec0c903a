"""Interventions as the only reward: who is blamed, what is learned from, and what comes of it."""

import warnings
from contextlib import nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import prefgym  # noqa: F401
from benchmarks.claims import leak
from prefgym.interventions import Random, Supervision, ValueBased, with_mistakes
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.evaluation import evaluate
from prefgym_agents.rlif import RLIF
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.tabular import TabularQ
from prefgym_envs import pit_grid

GRID, PENDULUM = "prefgym/PitGrid-v0", "prefgym/Pendulum-v0"


def bad_expert(layout: int, share: float = 0.8) -> np.ndarray:
    best = pit_grid.task(layout).values.q[0].argmax(1)
    return with_mistakes(best, 4, share, np.random.default_rng(layout))


def on_grid(
    layout: int = 0, rule: Any = None, judged: Any = "executed", lanes: int = 8, **settings: Any
) -> TabularQ:
    table = bad_expert(layout)
    chosen = rule or ValueBased(pit_grid.raw(layout_seed=layout), margin=0.005, sure=1.0, slip=0.0)
    supervision = Supervision(lambda seen: table[seen], chosen, judged=judged)
    env = gym.make_vec(
        GRID, num_envs=lanes, layout_seed=layout, supervision=supervision, query_every=None
    )
    return TabularQ(env, seed=settings.pop("seed", 0), **settings)


def said_at_the_first_step() -> Any:
    return pytest.warns(UserWarning, match="took over at the first step of an episode")


def test_a_table_is_a_policy_backend() -> None:
    assert isinstance(on_grid(), PolicyBackend)


@pytest.mark.parametrize("blame", ["posthoc", "previous", "proposal"])
def test_who_is_blamed(blame: str) -> None:
    judged = "executed" if blame == "posthoc" else "proposed"
    learner = RLIF(on_grid(judged=judged), blame=blame)
    with said_at_the_first_step() if blame == "previous" else nullcontext():
        learner.learn(1_000)
    store, replay = learner.store, learner.policy.replay
    whole = store.segments(store.since(np.zeros(8, np.int64)), 100)
    refused = whole.factors["refused"] > 0
    wanted = np.zeros(refused.shape)
    if blame == "previous":
        wanted[:, :-1] = -refused[:, 1:].astype(float)
    else:
        wanted[refused] = -1.0
    np.testing.assert_array_equal(learner.blamed(whole), wanted * whole.mask)
    index = store.since(np.zeros(8, np.int64))
    lanes, first = store.rows(index)
    for row, (lane, begin, length) in enumerate(zip(lanes, first, index.length, strict=True)):
        written = replay.learned[lane, begin : begin + length]
        np.testing.assert_array_equal(written, wanted[row, :length])


def test_nobody_to_blame_at_the_first_step_is_counted_and_said_once() -> None:
    def at_every_proposal(observations: Any, actions: Any, rng: Any) -> np.ndarray:
        return np.ones(len(observations), bool)

    learner = RLIF(on_grid(rule=at_every_proposal, judged="proposed"), blame="previous")
    with said_at_the_first_step() as said:
        told = [metrics for _, metrics in learner.iterations(512)]
    assert len(said) == 1
    store = learner.store
    begun = store.segments(store.since(np.zeros(8, np.int64)), 100)
    refused_first = (begun.start == 0) & (begun.factors["refused"][:, 0] > 0)
    assert told[-1]["rlif/unblamed"] == learner.unblamed == refused_first.sum() > 8
    blames = [RLIF(on_grid(judged="executed")), RLIF(on_grid(judged="proposed"), blame="proposal")]
    for other in blames:
        assert all("rlif/unblamed" not in metrics for _, metrics in other.iterations(256))


def test_only_what_the_policy_did_is_learned_from() -> None:
    learner = RLIF(on_grid())
    learner.learn(2_000)
    table = bad_expert(0)
    drawn = learner.policy.replay.drawn(4_000)
    share_alike = np.mean(drawn.actions == table[drawn.observations])
    learner.policy.replay.own_steps_only = False
    everything = learner.policy.replay.drawn(4_000)
    assert np.mean(everything.actions == table[everything.observations]) > share_alike + 0.2
    assert set(np.unique(drawn.rewards)) == {-1.0, 0.0}


def test_a_refused_proposal_is_learned_from_as_an_end() -> None:
    learner = RLIF(on_grid(judged="proposed"), blame="proposal")
    learner.learn(2_000)
    drawn = learner.policy.replay.drawn(4_000)
    blamed = drawn.rewards < 0
    assert blamed.any()
    assert drawn.terminal[blamed].all()
    lost = -pit_grid.task(0).advantages(drawn.observations, drawn.actions)
    assert (lost[blamed] > 0).all()


def test_a_policy_becomes_better_than_the_expert_who_takes_over() -> None:
    """Four actions of five of the expert's are wrong; on two grids."""
    reached, of_expert = [], []
    for layout in (0, 1):
        learner = RLIF(on_grid(layout, seed=layout, lanes=32)).learn(16_000)
        told = {"episodes": 200, "seed": 1_000_000, "layout_seed": layout}
        reached.append(evaluate(learner, GRID, **told).mean())
        table = bad_expert(layout)
        expert = TabularQ(gym.make_vec(GRID, num_envs=1, query_every=None))
        expert.q[np.arange(100), table] = 1.0
        of_expert.append(evaluate(expert, GRID, **told).mean())
    assert np.mean(reached) >= 0.9
    assert np.mean(of_expert) <= 0.2


def test_interventions_that_say_nothing_teach_nothing() -> None:
    learner = RLIF(on_grid(rule=Random(0.5), lanes=32)).learn(8_000)
    assert evaluate(learner, GRID, episodes=200, seed=1_000_000).mean() <= 0.3


def test_saved_and_loaded_it_goes_on_bit_for_bit(run_folder: Any) -> None:
    def made(seed: int) -> RLIF:
        rule = ValueBased(pit_grid.raw(), margin=0.005)  # errs at random
        return RLIF(on_grid(rule=rule, seed=seed))

    first = made(0)
    turns = first.iterations(1_024)
    for steps, _ in turns:
        if steps >= 512:
            break
    first.save(run_folder / "saved")
    for _ in turns:
        pass
    second = made(7).load(run_folder / "saved").learn(1_024)
    assert leak.fingerprint(first) == leak.fingerprint(second)
    np.testing.assert_array_equal(first.policy.q, second.policy.q)
    assert first.refused == second.refused > 0


def test_networks_learn_from_interventions_too(run_folder: Any) -> None:
    def zero(seen: np.ndarray) -> np.ndarray:
        return np.zeros((len(seen), 1), np.float32)

    env = gym.make_vec(
        PENDULUM, num_envs=2, supervision=Supervision(zero, Random(0.5)), query_every=None
    )
    small = {"learning_starts": 64, "batch_size": 32, "gradient_steps": 2}
    learner = RLIF(sb3_backend("SAC", env, seed=0, **small)).learn(256)
    drawn = learner.policy.replay.drawn(500)
    assert set(np.unique(drawn.rewards)) == {-1.0, 0.0}
    assert (drawn.actions != 0.0).mean() > 0.99
    assert not drawn.terminal.any()  # a time limit is no end


def test_silence_is_a_warning() -> None:
    def never(observations: Any, actions: Any, rng: Any) -> np.ndarray:
        return np.zeros(len(observations), bool)

    with pytest.warns(UserWarning, match="nobody has intervened in the first"):
        RLIF(on_grid(rule=never)).learn(512)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RLIF(on_grid()).learn(512)


def test_what_cannot_be_is_refused() -> None:
    alone = gym.make_vec(GRID, num_envs=2, query_every=None)
    with pytest.raises(ValueError, match="nobody supervises"):
        RLIF(TabularQ(alone))
    with pytest.raises(ValueError, match="judged='proposed'"):
        RLIF(on_grid(), blame="previous")
    with pytest.raises(ValueError, match="blames"):
        RLIF(on_grid(), blames="previous")
    env = gym.make_vec(
        PENDULUM, num_envs=2, query_every=None,
        supervision=Supervision(lambda seen: np.zeros((len(seen), 1)), Random(0.5)),
    )  # fmt: skip
    with pytest.raises(ValueError, match="use an off-policy algorithm"):
        RLIF(sb3_backend("PPO", env, n_steps=64, batch_size=64))
    with pytest.raises(ValueError, match="Discrete actions"):
        TabularQ(env)


def test_every_free_cell_of_a_pit_grid_reaches_the_goal() -> None:
    for layout in range(20):
        task = pit_grid.task(layout)
        free = ~task.absorbing
        assert (task.values.v[0, free] > 0.0).all()
        assert free.sum() == 79
    with pytest.raises(ValueError, match="share of pits"):
        pit_grid.task(0, 10, 0.7)
