"""Populations: who answers, what the mixture says, and raters that weigh factors anew."""

import numpy as np
import pytest

from prefgym.raters import Rater
from prefgym.raters.populations import Population, groups
from prefgym.raters.scores import StepSum, WeightedFactors
from prefgym.segments import Segments

TASTES = {"calm": {"speed": -1.0}, "wild": {"speed": 2.0, "cost": -0.5}}


def segments(count: int, seed: int) -> Segments:
    rng = np.random.default_rng(seed)
    mask = np.arange(3) < rng.integers(1, 4, size=(count, 1))
    return Segments(
        actions=np.zeros((count, 3), np.int64),
        mask=mask,
        context=np.zeros((count, 1)),
        context_id=np.zeros(count, np.int64),
        factors={name: rng.normal(size=(count, 3)) * mask for name in ("speed", "cost")},
    )


def test_weighted_factors_add_up_with_their_weights() -> None:
    one = segments(20, 0)
    expected = (2.0 * one.factors["speed"] - 0.5 * one.factors["cost"]).sum(1)
    np.testing.assert_allclose(StepSum(WeightedFactors(TASTES["wild"]))(one), expected)


@pytest.mark.parametrize("beta", [1.0, np.inf])
def test_the_mixture_is_exact_and_every_group_answers_as_often_as_its_share(beta: float) -> None:
    population: Rater = groups(TASTES, (0.3, 0.7), beta=beta)
    a, b = segments(5, 1), segments(5, 2)
    chance = population.probability(a, b)
    np.testing.assert_allclose(chance + population.probability(b, a), 1.0)
    many = np.tile(np.arange(5), 20_000)
    labels = population(a.take(many), b.take(many), np.random.default_rng(3))
    mean = labels.label.reshape(-1, 5).mean(0)
    error = np.sqrt(np.maximum(chance * (1 - chance), 1e-12) / 20_000)
    assert (np.abs(mean - chance) < 5 * error + 1e-9).all()
    assert set(labels.rater_id) == {0, 1}
    assert abs(np.mean(labels.rater_id) - 0.7) < 5 * np.sqrt(0.21 / 100_000)


def test_the_rater_id_says_by_whose_taste_a_pair_was_answered() -> None:
    population = groups(TASTES, (0.5, 0.5))
    a, b = segments(300, 4), segments(300, 5)
    labels = population(a, b, np.random.default_rng(6))
    expected = np.stack([one.probability(a, b) for one in population.raters])
    np.testing.assert_array_equal(labels.label, expected[labels.rater_id, np.arange(300)])
    assert (expected[0] != expected[1]).mean() > 0.3  # they do disagree


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        groups(TASTES, (0.3, 0.3))
    with pytest.raises(ValueError, match="2 raters and 1 weights"):
        groups(TASTES, (1.0,))
    with pytest.raises(ValueError, match="no factor 'height', only cost, speed"):
        StepSum(WeightedFactors({"height": 1.0}))(segments(1, 0))
    with pytest.raises(ValueError, match="at least one of both"):
        Population((), ())
