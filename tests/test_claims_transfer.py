"""Claim text_transfer: who answers whom, and for how many labels."""

import numpy as np
import pytest

from benchmarks.claims import text_transfer_judged
from benchmarks.claims.text_transfer import CLOSE, LEARNERS, UNTAUGHT
from benchmarks.claims.text_transfer_tasks import TASKS
from prefgym.interventions import Random, ValueBased


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("learner", [name for name, entry in LEARNERS.items() if entry.reads])
def test_a_coin_answers_in_the_place_of_every_rater(learner: str, task: str) -> None:
    entry = LEARNERS[learner]
    one = TASKS[task]
    told, tossed = (one.make(**entry.asked(one.factors, coin)) for coin in (False, True))
    for env in (told, tossed):
        env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(200):
            env.step(env.action_space.sample())
    a, b = told.sample_pairs(64, np.random.default_rng(0))
    sure = np.abs(told.rater.probability(a, b) - 0.5)
    assert sure.max() == 0.5
    assert np.array_equal(tossed.rater.probability(a, b), np.full(64, 0.5))
    assert told.elicitor.budget_left == tossed.elicitor.budget_left == entry.labels


def test_a_learner_has_as_many_labels_and_the_same_settings_on_every_task() -> None:
    hierarchies = {name: LEARNERS["heron"].asked(one.factors, False) for name, one in TASKS.items()}
    for name, asked in hierarchies.items():
        assert asked["rater_kwargs"].pop("factors") == TASKS[name].factors
    assert hierarchies["control"] == hierarchies["text"]


@pytest.mark.parametrize("task", TASKS)
def test_chance_takes_over_in_the_place_of_who_knows(task: str) -> None:
    env, taking_over = TASKS[task].make(), TASKS[task].taking_over
    assert taking_over is not None
    knows, by_chance = (
        taking_over(env, lambda seen: seen, 0, at_random) for at_random in (False, True)
    )
    assert isinstance(knows.rule, ValueBased)
    assert isinstance(by_chance.rule, Random)


def test_a_judge_teaches_a_language_model_and_its_opposite_does_not() -> None:
    ((found,),) = text_transfer_judged.trained([0], quick=True).values()
    assert found["intrinsic"] >= CLOSE
    assert found["intrinsic_opposite"] <= UNTAUGHT
