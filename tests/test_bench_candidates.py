"""Where a policy is the best of candidates: what they are, and what is chosen."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from prefgym.segments import Segments
from prefgym_agents.bench import data
from prefgym_agents.bench.candidates import GRADES, candidates
from prefgym_agents.bench.fitting import fitted
from prefgym_agents.bench.policies import led_to, wishes
from prefgym_agents.bench.suite import FULL, TASKS, Cell, Size, Task

SIZE = Size(
    train_pairs=300, test_pairs=200, members=1, hidden=(8,), gradient_steps=8, batch_pairs=100,
    options=4, pools=2, best_of=16, starts=3, candidates=14, candidate_steps=20,
)  # fmt: skip


def short(name: str) -> Task:
    return replace(TASKS[name], steps=1_000)


def ideal(task: Task, rater: str, worth: Callable[[Segments], np.ndarray]) -> dict[str, float]:
    """What a model leads to that gives each segment this much: ``[groups, batch]``."""
    sides = data.played(task, SIZE, 0)
    told = data.answered(task, FULL.raters[rater], SIZE, 0)
    model = fitted("pal", sides, told, SIZE, 0)

    def by_rater(segments: Segments) -> torch.Tensor:
        each = np.zeros((told.groups, *segments.mask.shape))
        each[..., 0] = worth(segments)
        return torch.as_tensor(each[told.group_of])

    model.model.rewards_by_group = by_rater
    return led_to(model, Cell("any", rater, "pal", 0), task, sides, told, SIZE)


@pytest.mark.parametrize("name", ["pendulum", "hopper", "text-style"])
@pytest.mark.parametrize("rater", ["partial-return", "two-groups"])
def test_the_true_worths_choose_the_best_candidate(name: str, rater: str) -> None:
    told = data.answered(short(name), FULL.raters[rater], SIZE, 0)
    wanted = wishes(told)
    assert wanted is not None
    found = ideal(short(name), rater, lambda s: np.stack([one(s) for one in wanted]))
    assert found == pytest.approx({"true_return": 1.0, "worst_group_return": 1.0})
    worst = ideal(short(name), rater, lambda s: -np.stack([one(s) for one in wanted]))
    assert worst["true_return"] < 0.0


@pytest.mark.parametrize("name", ["pendulum", "hopper", "text-style"])
def test_a_model_that_tells_nothing_apart_earns_the_mean(name: str) -> None:
    found = ideal(short(name), "two-groups", lambda s: np.zeros(len(s)))
    assert found == pytest.approx({"true_return": 0.0, "worst_group_return": 0.0}, abs=1e-9)


def test_one_choice_cannot_serve_opposed_wishes() -> None:
    told = data.answered(short("pendulum"), FULL.raters["two-groups"], SIZE, 0)
    wanted = wishes(told)
    assert wanted is not None
    first, second = (one(candidates(short("pendulum"), SIZE, 0).segments) for one in wanted)
    assert first == pytest.approx(-second)
    found = ideal(short("pendulum"), "two-groups", lambda s: np.stack([wanted[0](s)] * 2))
    assert found["worst_group_return"] < 0.0 < found["true_return"] + 1.0


@pytest.mark.parametrize("name", ["pendulum", "hopper", "half-cheetah"])
def test_candidates_begin_alike_and_follow_from_the_seed(name: str) -> None:
    one, same = (candidates.__wrapped__(short(name), SIZE, 3) for _ in range(2))
    other = candidates.__wrapped__(short(name), SIZE, 4)
    assert (one.starts, one.each) == (3, 14)
    for key, values in one.segments.arrays().items():
        assert np.array_equal(values, same.segments.arrays()[key])
    begun = one.segments.observations[:, 0].reshape(3, 14, -1)
    assert (begun == begun[:, :1]).all()
    assert len(np.unique(begun[:, 0], axis=0)) == 3
    assert one.segments.context_id.tolist() == np.repeat(np.arange(3), 14).tolist()
    assert not np.array_equal(begun, other.segments.observations[:, 0].reshape(3, 14, -1))
    acted = one.segments.actions.reshape(3, 14, -1)
    assert all(len(np.unique(each, axis=0)) == 14 for each in acted)


def test_behaviours_of_higher_grade_earn_more() -> None:
    size = replace(SIZE, starts=8, candidate_steps=60)
    among = candidates.__wrapped__(short("pendulum"), size, 0)
    earned = among.segments.rewards.sum(1).reshape(8, 2, GRADES).mean((0, 1))
    assert earned[-1] > earned[0] + 50.0


def test_what_follows_the_end_of_an_episode_does_not_count() -> None:
    among = candidates.__wrapped__(short("hopper"), replace(SIZE, candidate_steps=60), 0)
    segments, ended = among.segments, among.segments.lengths < 60
    assert ended.any()
    assert (segments.lengths >= 1).all()
    assert not segments.rewards[~segments.mask].any()
    lengths = np.where(segments.mask, 1.0, 0.0).sum(1)
    assert np.array_equal(segments.mask, np.arange(60) < lengths[:, None])
    assert np.array_equal(segments.factors["alive"].sum(1)[ended], lengths[ended] - 1)


def test_where_nobody_knows_values_all_actions_are_random() -> None:
    task = Task("prefgym/MountainCarContinuous-v0", "best-of-n", 10)
    among = candidates.__wrapped__(task, SIZE, 0)
    assert len(among.segments) == 3 * 14
