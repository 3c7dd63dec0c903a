"""Tables of values: which row an observation has, how they explore, and what an update is."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import prefgym  # noqa: F401
from prefgym.wrappers import PreferenceVectorEnv
from prefgym_agents.replayed_steps import Transitions
from prefgym_agents.tabular import TabularQ

GRID = "prefgym/PitGrid-v0"


def grid(**settings: Any) -> TabularQ:
    return TabularQ(gym.make_vec(GRID, num_envs=4, query_every=None), seed=0, **settings)


class Corner(gym.Env[np.ndarray, Any]):
    """Two numbers that do not begin at 0, and an episode of one step."""

    observation_space = gym.spaces.MultiDiscrete([2, 3], start=[5, -1])
    action_space = gym.spaces.Discrete(2, start=7)

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[Any, Any]]:
        super().reset(seed=seed)
        return np.array([6, 1]), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[Any, Any]]:
        return np.array([6, 1]), float(action == 8), True, False, {}


def test_several_numbers_that_begin_anywhere_are_one_row() -> None:
    lanes = gym.vector.SyncVectorEnv(
        [Corner] * 2, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP
    )
    table = TabularQ(PreferenceVectorEnv(lanes, segment_steps=1, query_every=None), seed=0)
    assert table.q.shape == (6, 2)
    table.q[5] = 0.0, 1.0
    actions, _ = table.predict(np.array([[6, 1]]), deterministic=True)
    assert actions.tolist() == [8]


def test_soft_max_draws_each_action_as_often_as_it_says() -> None:
    table = grid(temperature=0.5)
    table.q[3] = [0.0, 0.5, 1.0, -1.0]
    drawn, _ = table.predict(np.full(40_000, 3))
    weights = np.exp(table.q[3] / 0.5)
    share = np.bincount(drawn, minlength=4) / len(drawn)
    # Four standard errors of a share.
    np.testing.assert_allclose(share, weights / weights.sum(), atol=4 * 0.5 / 200)
    surely, _ = table.predict(np.full(10, 3), deterministic=True)
    assert set(surely.tolist()) == {2}


def test_an_update_moves_each_value_by_the_mean_of_its_errors() -> None:
    table = grid(learning_rate=0.5, gamma=0.9)
    table.q[1] = [0.0, 2.0, 0.0, 0.0]
    visits = Transitions(
        observations=np.array([0, 0, 0]),
        next_observations=np.array([1, 1, 2]),
        actions=np.array([3, 3, 1]),
        rewards=np.array([1.0, 3.0, 1.0]),
        terminal=np.array([False, True, False]),
    )
    table._improve(visits)
    assert table.q[0].tolist() == [0.0, 0.5, 0.0, 0.5 * ((1.0 + 0.9 * 2.0) + 3.0) / 2]
    assert table.q[1].tolist() == [0.0, 2.0, 0.0, 0.0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="wanted a number above 0, or None"):
        grid(temperature=temperature)
