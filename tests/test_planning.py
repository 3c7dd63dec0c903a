"""Exact planning: closed forms, optimality equation, successor features, batches."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prefgym_envs import delivery, planning, random_mdps
from prefgym_envs.tabular_mdps import TabularMDPs, stack


def corridor(length: int, discount: float) -> TabularMDPs:
    """Cells 0..length; action 0 steps back, 1 forward; reward 1 for reaching the last cell."""
    cells = np.arange(length + 1)
    next_state = np.stack([np.maximum(cells - 1, 0), np.minimum(cells + 1, length)], -1)
    next_state[length] = length
    features = np.zeros((length + 1, 2, 1, 1))
    features[length - 1, 1] = 1.0
    return TabularMDPs(
        next_state[None, :, :, None],
        np.ones((1, length + 1, 2, 1)),
        features[None],
        np.ones((1, 1)),
        np.eye(length + 1)[:1],
        discount,
    )


def random_table(seed: int, deterministic: bool = False) -> TabularMDPs:
    """Three MDPs without absorbing states, with dense random tables."""
    rng = np.random.default_rng(seed)
    outcomes = 1 if deterministic else 3
    return TabularMDPs(
        rng.integers(12, size=(3, 12, 4, outcomes)),
        rng.dirichlet(np.ones(outcomes), size=(3, 12, 4)),
        rng.normal(size=(3, 12, 4, outcomes, 2)),
        rng.normal(size=(3, 2)),
        rng.dirichlet(np.ones(12), size=3),
        0.95,
    )


def optimality_residual(mdps: TabularMDPs) -> float:
    values = planning.solve(mdps)
    lanes = np.arange(len(mdps)).reshape(-1, 1, 1, 1)
    later = (mdps.probability * values.v[lanes, mdps.next_state]).sum(-1)
    action_values = mdps.rewards + mdps.discount * later
    np.testing.assert_allclose(values.q, action_values, rtol=0, atol=1e-8)
    return float(np.abs(action_values.max(-1) - values.v).max())


@pytest.mark.parametrize("length", [1, 2, 7, 40])
def test_the_value_of_a_corridor_is_a_power_of_the_discount(length: int) -> None:
    values = planning.solve(corridor(length, 0.9))
    expected = np.append(0.9 ** np.arange(length - 1, -1, -1), 0.0)
    np.testing.assert_allclose(values.v[0], expected, atol=1e-12)


def test_a_reward_for_ever_is_worth_one_over_one_minus_the_discount() -> None:
    loop = TabularMDPs(
        np.zeros((1, 1, 1, 1), np.int64),
        np.ones((1, 1, 1, 1)),
        np.ones((1, 1, 1, 1, 1)),
        np.ones((1, 1)),
        np.ones((1, 1)),
        0.999,
    )
    assert planning.solve(loop).v[0, 0] == pytest.approx(1000.0, abs=1e-8)


@given(seed=st.integers(0, 10_000), deterministic=st.booleans())
@settings(max_examples=25, deadline=None)
def test_solutions_fulfil_the_optimality_equation(seed: int, deterministic: bool) -> None:
    assert optimality_residual(random_table(seed, deterministic)) < 1e-8


@given(layout_seed=st.integers(0, 10_000), stochastic=st.booleans())
@settings(max_examples=25, deadline=None)
def test_random_gridworlds_are_solved(layout_seed: int, stochastic: bool) -> None:
    assert optimality_residual(random_mdps.task(layout_seed, stochastic).mdps) < 1e-8


def test_no_policy_of_many_is_better_than_the_solution(rng: np.random.Generator) -> None:
    mdps = random_table(0)
    best = planning.solve(mdps).v
    for _ in range(20):
        policy = rng.dirichlet(0.1 * np.ones(4), size=(3, 12))
        assert (planning.evaluate(mdps, policy) <= best + 1e-9).all()
    optimal = planning.greedy(planning.solve(mdps).q)
    np.testing.assert_allclose(planning.evaluate(mdps, optimal), best, atol=1e-9)


weights = arrays.arrays(np.float64, 6, elements=st.floats(-100, 100))


@given(weights=weights, seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_successor_features_times_weights_are_values(weights: np.ndarray, seed: int) -> None:
    mdps = random_mdps.task(36).mdps
    policy = np.random.default_rng(seed).dirichlet(np.ones(4), size=(1, mdps.states))
    psi = planning.successor_features(mdps, policy)
    values = planning.evaluate(mdps.with_weights(weights[None]), policy)
    np.testing.assert_allclose(psi[0] @ weights, values[0], rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("stochastic", [False, True])
def test_one_pass_gives_values_and_the_features_that_they_are_made_of(stochastic: bool) -> None:
    batch = stack([random_mdps.task(seed, stochastic).mdps for seed in range(20)])
    solution, values = planning.solve_with_features(batch), planning.solve(batch)
    np.testing.assert_array_equal(solution.v, values.v)
    np.testing.assert_array_equal(solution.q, values.q)
    worth = np.einsum("msf,mf->ms", solution.features, batch.weights)
    np.testing.assert_allclose(worth, values.v, rtol=0, atol=1e-8)
    policy = np.eye(batch.actions)[values.q.argmax(-1)]
    gap = solution.features - planning.successor_features(batch, policy)
    np.testing.assert_allclose(np.einsum("msf,mf->ms", gap, batch.weights), 0.0, atol=1e-8)


@pytest.mark.parametrize("deterministic", [False, True])
def test_features_of_one_action_per_state_agree_with_linear_systems(deterministic: bool) -> None:
    table = random_table(3, deterministic)
    solution = planning.solve_with_features(table)
    policy = np.eye(table.actions)[solution.q.argmax(-1)]
    expected = planning.successor_features(table, policy)
    np.testing.assert_allclose(solution.features, expected, rtol=0, atol=1e-9)


def test_path_doubling_and_linear_systems_agree() -> None:
    mdps = delivery.task().mdps
    values = planning.solve(mdps)
    policy = np.eye(4)[values.q.argmax(-1)]
    np.testing.assert_allclose(planning.evaluate(mdps, policy), values.v, atol=1e-9)


def test_a_batch_is_solved_as_its_members() -> None:
    tasks = [random_mdps.task(seed, stochastic=seed % 3 == 0).mdps for seed in range(12)]
    together, batch = planning.solve(stack(tasks)), stack(tasks)
    returns = planning.returns(batch, planning.uniform(batch))
    for i, one in enumerate(tasks):
        alone = planning.solve(one)
        np.testing.assert_allclose(together.v[i, : one.states], alone.v[0], atol=1e-9)
        np.testing.assert_allclose(together.q[i, : one.states], alone.q[0], atol=1e-9)
        assert (together.v[i, one.states :] == 0).all()
        alone_return = planning.returns(one, planning.uniform(one))[0]
        assert returns[i] == pytest.approx(alone_return, abs=1e-9)


def test_one_board_takes_many_rewards(rng: np.random.Generator) -> None:
    many = rng.choice([-1.0, 50.0, -50.0, 1.0, -2.0], size=(70, 6))
    library = delivery.task().mdps.with_weights(many)
    policies = planning.greedy(planning.solve(library).q)
    psi = planning.successor_features(library, policies)
    assert psi.shape == (70, 100, 6)
    values = np.einsum("msf,mf->ms", psi, many)
    np.testing.assert_allclose(values, planning.solve(library).v, rtol=1e-9, atol=1e-6)


def test_a_batch_of_100_is_faster_than_a_loop() -> None:
    tasks = [random_mdps.task(seed).mdps for seed in range(100)]
    batch = stack(tasks)

    def seconds(solve_them: Callable[[], object]) -> float:
        begin = time.process_time()
        solve_them()
        return time.process_time() - begin

    whole = min(seconds(lambda: planning.solve(batch)) for _ in range(3))
    loop = min(seconds(lambda: [planning.solve(one) for one in tasks]) for _ in range(2))
    assert loop > 2 * whole


@pytest.mark.parametrize("observation", ["index", "coordinates"])
def test_environments_tell_the_values_of_states_and_advantages_are_their_differences(
    observation: str,
) -> None:
    env, lanes = delivery.raw(observation=observation), delivery.raw_vector(3, observation)
    mdps, task = env.task.mdps, env.task
    seen, values = task.observations, env.state_values(task.observations)
    np.testing.assert_array_equal(values, planning.solve(mdps).v[0])
    np.testing.assert_array_equal(lanes.state_values(seen), values)
    assert (values[task.absorbing] == 0).all()
    for action in range(4):
        later = values[mdps.next_state[0, :, action, 0]]
        gained = mdps.rewards[0, :, action] + mdps.discount * later
        advantages = env.advantages(seen, np.full(len(seen), action))
        np.testing.assert_allclose(advantages, gained - values, atol=1e-9)
    with pytest.raises(ValueError, match="is none of this task's"):
        env.state_values(seen + 1000)


def test_equal_actions_are_mixed_uniformly() -> None:
    q = np.array([[[1.0, 1.0 - 1e-12, 0.5], [0.0, 0.0, 0.0]]])
    expected = [[[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]]
    np.testing.assert_allclose(planning.greedy(q), expected)


def test_scaled_returns_run_from_random_to_optimal() -> None:
    batch = stack([random_mdps.task(seed).mdps for seed in range(8)])
    best = planning.greedy(planning.solve(batch).q)
    np.testing.assert_allclose(planning.scaled_returns(batch, best), 1.0, atol=1e-9)
    none = planning.scaled_returns(batch, planning.uniform(batch))
    np.testing.assert_allclose(none, 0.0, atol=1e-9)


def test_where_nothing_can_be_gained_every_policy_scores_one() -> None:
    pointless = corridor(3, 0.9).with_weights(np.zeros((1, 1)))
    assert planning.scaled_returns(pointless, planning.uniform(pointless)) == 1.0


def test_what_is_no_mdp_is_refused_in_one_sentence() -> None:
    good = corridor(2, 0.9)
    tables = (good.next_state, good.probability, good.features, good.weights, good.start)
    with pytest.raises(ValueError, match="discount is 1"):
        TabularMDPs(*tables, discount=1.0)
    with pytest.raises(ValueError, match="the states are 0 to 2"):
        TabularMDPs(good.next_state + 1, *tables[1:])
    with pytest.raises(ValueError, match="probability must be"):
        TabularMDPs(good.next_state, 0.5 * good.probability, *tables[2:])
    with pytest.raises(ValueError, match="finite"):
        good.with_weights(np.full((1, 1), np.nan))
    with pytest.raises(ValueError, match="give one row per MDP"):
        stack([good, good]).with_weights(np.ones((3, 1)))
    with pytest.raises(ValueError, match="nothing to stack"):
        stack([])
    with pytest.raises(ValueError, match="equal numbers of actions"):
        stack([good, delivery.task().mdps])
    with pytest.raises(ValueError, match="The policy has shape"):
        planning.evaluate(good, np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="sum to 1"):
        planning.evaluate(good, np.ones((1, 3, 2)))
