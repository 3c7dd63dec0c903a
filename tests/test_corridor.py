"""The corridor: what a walk scores, and what no reward of cells alone can earn."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import prefgym  # noqa: F401
from prefgym.raters.histories import LowThenHigh
from prefgym_envs import corridor

SCORE = LowThenHigh(0, 0.0, 8.0)


def walked(plans: np.ndarray) -> Any:
    """Walks by plans ``[lanes, steps]``, as segments."""
    env: Any = gym.make_vec("prefgym/Corridor-v0", num_envs=len(plans), query_every=None)
    env.reset(seed=0)
    for actions in plans.T:
        env.step(actions)
    return env.store.segments(env.store.whole(np.arange(len(plans))), plans.shape[1])


def test_scores_and_rewards_by_hand() -> None:
    both = [0] * 4 + [2] * 16
    left, right, still = [0] * 20, [2] * 20, [1] * 20
    too_late = [1] * 7 + [0] * 4 + [2] * 9
    walks = walked(np.array([both, left, right, still, too_late]))
    assert SCORE(walks).tolist() == [2.0, 1.0, 1.0, 0.0, 1.0]
    # Steps that begin at the left end: 4 alone, 4 to 9; at the right end: 12 to 19, 10 to 19, 19.
    np.testing.assert_allclose(walks.rewards.sum(1), [0.9, 0.6, 1.0, 0.0, 0.1])


def test_the_default_rater_knows_the_ends_of_any_corridor() -> None:
    for cells in (3, 9, 15):
        env: Any = gym.make("prefgym/Corridor-v0", cells=cells)
        statistic = env.get_wrapper_attr("elicitor").rater.statistic
        assert (statistic.low, statistic.high) == (0.0, cells - 1.0)


def test_a_fixed_choice_in_every_cell_scores_one_at_most_and_time_is_worth_a_point() -> None:
    choice = np.random.default_rng(0).integers(3, size=(2000, 9))
    place, plans = np.full(2000, 4), np.empty((2000, 20), np.int64)
    for step in range(20):
        plans[:, step] = choice[np.arange(2000), place]
        place = np.clip(place + plans[:, step] - 1, 0, 8)
    assert SCORE(walked(plans)).max() == 1.0


def test_the_table_is_solved_by_waiting_at_the_left_and_running_right() -> None:
    task = corridor.task()
    # 4 steps to the left end, 6 at it if it stays to the end of the first half, and then 8 to the
    # right end, where 2 steps are left; each step there earns a tenth.
    assert task.optimal_return == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("wrong", [{"cells": 4}, {"cells": 1}, {"steps": 7}, {"steps": 0}])
def test_a_corridor_without_middle_or_halves_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="wanted an"):
        corridor.task(**wrong)
