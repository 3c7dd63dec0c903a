"""The Condorcet bandit: cycles, exact winners, rewards that cannot tell, and bad matrices."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefgym_envs import condorcet

shares = st.lists(st.integers(1, 99), min_size=3, max_size=3)


def test_the_default_has_a_circle_and_a_winner_that_no_reward_shows() -> None:
    env = condorcet.raw()
    expected = [[0.5, 0.65, 0.45], [0.35, 0.5, 0.8], [0.55, 0.2, 0.5]]
    np.testing.assert_allclose(env.preference_matrix, expected)
    np.testing.assert_allclose(env.minimax_winner, [0.6, 0.1, 0.3])
    rewards = [run(env, option)[1] for option in range(3)]
    np.testing.assert_allclose(rewards, np.mean(expected, axis=1))
    assert int(np.argmax(rewards)) == 1


def run(env: condorcet.CondorcetEnv, option: int) -> Any:
    env.reset(seed=0)
    return env.step(option)


@given(counts=shares)
def test_weights_below_one_half_give_a_circle_with_a_known_winner(counts: list[int]) -> None:
    weights = np.array(counts) / sum(counts)
    env = condorcet.raw(weights=weights)
    matrix = env.preference_matrix
    np.testing.assert_allclose(matrix + matrix.T, 1.0)
    margins = np.array([matrix[0, 1], matrix[1, 2], matrix[2, 0]]) - 0.5
    np.testing.assert_allclose(margins, 0.5 - weights[[1, 2, 0]])
    if (weights < 0.5).all():
        circle = margins[[1, 2, 0]] / margins.sum()
        np.testing.assert_allclose(env.minimax_winner, circle, atol=1e-9)
    assert (matrix @ env.minimax_winner).max() <= 0.5 + 1e-9


@given(counts=shares)
def test_the_reward_is_the_mean_of_the_populations_factors(counts: list[int]) -> None:
    weights = np.array(counts) / sum(counts)
    env = condorcet.raw(weights=weights)
    for option in range(3):
        observation, reward, terminated, truncated, info = run(env, option)
        factors = [info["factors"][name] for name in env.factor_names]
        assert reward == pytest.approx(float(weights @ factors))
        assert reward == pytest.approx(env.preference_matrix[option].mean())
        assert (int(observation), terminated, truncated) == (0, True, False)


def test_a_population_ranks_every_option_before_those_that_follow_it() -> None:
    matrix = condorcet.raw(weights=[0.0, 1.0, 0.0, 0.0]).preference_matrix
    order = [1, 2, 3, 0]
    for place, option in enumerate(order):
        assert all(matrix[option, later] == 1.0 for later in order[place + 1 :])


def test_preferences_of_pairs_are_read_from_the_matrix() -> None:
    matrix = [[0.5, 0.9], [0.1, 0.5]]
    for env in (
        condorcet.raw(preference_matrix=matrix),
        condorcet.raw_vector(2, preference_matrix=matrix),
    ):
        first, second = np.array([0, 1, 1]), np.array([1, 0, 1])
        assert env.preference(first, second).tolist() == [0.9, 0.1, 0.5]
        assert env.minimax_winner.tolist() == [1.0, 0.0]
        assert env.preference_matrix.tolist() == matrix
        with pytest.raises(ValueError, match="give integers"):
            env.preference(first, second + 1)


def test_values_of_the_bandit() -> None:
    env = condorcet.raw()
    regret = env.advantages(np.zeros(3, np.int64), np.arange(3))
    np.testing.assert_allclose(regret, [0.5333333 - 0.55, 0.0, 0.4166667 - 0.55], atol=1e-6)
    assert env.task.optimal_return == pytest.approx(0.55)
    assert env.task.random_return == pytest.approx(0.5)
    np.testing.assert_array_equal(env.optimal_policy()[0], [0.0, 1.0, 0.0])


def test_the_batched_form_pays_by_the_option_and_ends_every_step() -> None:
    envs = condorcet.raw_vector(4)
    envs.reset(seed=0)
    observations, rewards, terminated, _, infos = envs.step(np.array([0, 1, 2, 1]))
    np.testing.assert_allclose(rewards, [1.6 / 3, 0.55, 1.25 / 3, 0.55])
    assert terminated.all()
    assert observations.tolist() == [0, 0, 0, 0]
    assert infos["final_obs"].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(
        sum(w * infos["factors"][f"population_{k}"] for k, w in enumerate(condorcet.WEIGHTS)),
        rewards,
    )


def test_arguments_may_come_from_json() -> None:
    matrix = json.loads("[[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]]")
    env = condorcet.raw(preference_matrix=matrix)
    np.testing.assert_allclose(env.minimax_winner, [1 / 3, 1 / 3, 1 / 3])
    assert env.factor_names == ("population_0",)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"preference_matrix": [[0.5, 0.7], [0.4, 0.5]]},
            r"preference_matrix\[0, 1\] \+ preference_matrix\[1, 0\] is 1.1, but",
        ),
        ({"preference_matrix": [[0.4, 0.5], [0.5, 0.5]]}, r"must be 1 for every pair"),
        ({"preference_matrix": [[0.5, 0.5]]}, r"has shape \(1, 2\)"),
        ({"preference_matrix": [[0.5]]}, "at least two"),
        ({"preference_matrix": [[0.5, 2.0], [-1.0, 0.5]]}, "from 0 to 1"),
        ({"preference_matrix": [[0.5, float("nan")], [0.5, 0.5]]}, "without NaN"),
        ({"preference_matrix": [[0.5, 0.5], [0.5]]}, "as many in each row"),
        ({"weights": [0.5, 0.4]}, "add up to 0.9 instead of 1"),
        ({"weights": [1.0]}, "at least two shares"),
        ({"weights": [1.5, -0.5]}, "none of them negative"),
        ({"weights": [0.5, float("nan")]}, "negative or NaN"),
        ({"weights": [0.5, 0.5], "preference_matrix": [[0.5, 0.5], [0.5, 0.5]]}, "not both"),
        ({"render_mode": "ansi"}, "there are none"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        condorcet.raw(**kwargs)
