"""Rules over whole trajectories, and both forms of regret."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from prefgym.raters import make_rater
from prefgym.raters.histories import LowThenHigh
from prefgym.raters.scores import DeterministicRegret, StateValueSource, regret
from prefgym.segments import Segments


def path(rows: Any, lengths: Any = None) -> Segments:
    """Segments that observe these numbers."""
    seen = np.asarray(rows, float)
    real = np.full(len(seen), seen.shape[1]) if lengths is None else np.asarray(lengths)
    mask = np.arange(seen.shape[1]) < real[:, None]
    return Segments(
        actions=seen[:, ::-1].astype(np.int64),
        mask=mask,
        context=seen[:, :1],
        context_id=np.zeros(len(seen), np.int64),
        observations=np.where(mask, seen, np.nan),
        factors={"f": np.where(mask, 10.0 * seen, np.nan)},
    )


# --- low first, high later ------------------------------------------------------------------------


def test_both_ends_in_their_halves_score_two() -> None:
    some = path([[0, 4, 9, 5], [9, 4, 0, 5], [0, 9, 0, 5], [4, 4, 4, 4], [5, 0, 0, 9]])
    assert LowThenHigh(low=0.0, high=9.0)(some).tolist() == [2, 0, 1, 0, 2]
    assert LowThenHigh()(some).tolist() == [2, 0, 0, 0, 1]  # an end of one's own, in one half only
    assert LowThenHigh("f", low=0.0, high=90.0)(some).tolist() == [2, 0, 1, 0, 2]
    assert LowThenHigh(lambda one: -one.observations, low=-9.0, high=0.0)(some).tolist() == [
        0, 2, 2, 0, 1,
    ]  # fmt: skip


def test_halves_are_those_of_the_real_steps() -> None:
    some = path([[0, 5, 9, 99], [0, 9, 5, 5], [0, 9, 9, 9]], lengths=[3, 2, 1])
    assert LowThenHigh(low=0.0, high=9.0)(some).tolist() == [2, 2, 1]
    assert LowThenHigh()(some).tolist() == [2, 2, 1]


def test_without_observations_the_actions_count() -> None:
    some = path([[5, 9, 4, 0], [0, 4, 9, 5]])  # actions: the same backwards
    assert LowThenHigh(low=0.0, high=9.0)(some.replace(observations=None)).tolist() == [2, 0]


def test_no_reward_of_single_steps_gives_these_scores() -> None:
    """Two paths of the same steps in another order earn the same sum, and not the same score."""
    some = path([[0, 5, 5, 9], [9, 5, 5, 0]])
    assert some.observations is not None
    worth = np.sin(some.observations) * some.observations  # some reward
    np.testing.assert_allclose(*worth.sum(1))
    assert LowThenHigh(low=0.0, high=9.0)(some).tolist() == [2, 0]


def test_it_goes_through_the_choice_rules(rng: np.random.Generator) -> None:
    a, b = path([[0, 5, 5, 9], [0, 5, 5, 9]]), path([[5, 5, 5, 9], [9, 5, 5, 0]])
    rater = make_rater("low-then-high", of=0, low=0.0, high=9.0, beta=1.0)
    np.testing.assert_allclose(
        rater.probability(a, b), [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-2))]
    )
    assert rater.meaning == "low-then-high"
    hard = make_rater("low-then-high", low=0.0, high=9.0)
    assert hard(a, b, rng).label.tolist() == [1.0, 1.0]


def test_faults_of_histories_are_said() -> None:
    some = path([[0, 1, 2, 3]])
    with pytest.raises(ValueError, match="give a low end below the high one"):
        make_rater("low-then-high", low=1.0, high=0.0)
    with pytest.raises(ValueError, match=r"no column 3 of observations, which have 1 numbers here"):
        LowThenHigh(3)(some)
    with pytest.raises(ValueError, match="no factor 'height', only f"):
        LowThenHigh("height")(some)
    with pytest.raises(ValueError, match=r"shape \(1,\), wanted one number per step, \(1, 4\)"):
        LowThenHigh(lambda one: one.observations[:, 0])(some)
    with pytest.raises(ValueError, match="the number is NaN at some step"):
        LowThenHigh()(some.replace(observations=np.full((1, 4), np.nan)))
    with pytest.raises(ValueError, match="weights the steps of a sum"):
        make_rater("low-then-high", gamma=0.9)


# --- both forms of regret -------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    """States 0 to 5 in a row; action 0 stays and 1 goes right; every step costs, 5 is the goal."""

    def __call__(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        done = observations[:, 0] >= 5
        stay: np.ndarray = np.where(done | (actions == 1), 0.0, -1.0)
        return stay

    def state_values(self, observations: np.ndarray) -> np.ndarray:
        values: np.ndarray = np.minimum(observations[:, 0], 5.0) - 5.0
        return values


def walks(rng: np.random.Generator, count: int, steps: int) -> Segments:
    """Random walks on the chain, with rewards of −1 until the goal."""
    start = rng.integers(0, 6, count)
    actions = rng.integers(0, 2, (count, steps))
    before = np.cumsum(np.pad(actions, ((0, 0), (1, 0))), 1)[:, :-1]
    states = np.minimum(start[:, None] + before, 5)
    real = rng.integers(0, steps + 1, count)
    mask = np.arange(steps) < real[:, None]
    return Segments(
        actions=actions * mask,
        mask=mask,
        context=states[:, :1],
        context_id=start,
        observations=(states * mask)[:, :, None],
        rewards=np.where(mask & (states < 5), -1.0, 0.0),
    )


def test_both_forms_agree_where_transitions_are_deterministic(rng: np.random.Generator) -> None:
    some = walks(rng, 300, 7)
    source = Chain()
    assert isinstance(source, StateValueSource)
    deterministic = regret(source, "deterministic")
    assert isinstance(deterministic, DeterministicRegret)
    np.testing.assert_allclose(deterministic(some), regret(source)(some), atol=1e-12)
    assert (deterministic(some)[some.lengths == 0] == 0.0).all()


def test_luck_on_the_way_counts_in_the_deterministic_form_only() -> None:
    lucky = walks(np.random.default_rng(1), 1, 4).replace(
        mask=np.ones((1, 4), bool),
        observations=np.array([[[0.0], [1.0], [4.0], [4.0]]]),  # a leap from 1 to 4
        actions=np.array([[1, 1, 0, 0]]),
        rewards=np.array([[-1.0, -1.0, -1.0, -1.0]]),
    )
    assert regret(Chain())(lucky).tolist() == [-2.0]
    assert regret(Chain(), "deterministic")(lucky).tolist() == [-3.0 + 4.0 - 1.0]


def test_the_form_is_an_option_of_the_rater_by_name(rng: np.random.Generator) -> None:
    a, b = walks(rng, 50, 5), walks(rng, 50, 5)
    one, other = (
        make_rater("regret", Chain(), form=form) for form in ("stochastic", "deterministic")
    )
    np.testing.assert_array_equal(one.probability(a, b), other.probability(a, b))
    assert one.meaning == other.meaning == "regret"
    assert make_rater("regret", Chain()) == one


def test_faults_of_value_sources_are_said(rng: np.random.Generator) -> None:
    some = walks(rng, 4, 3)
    with pytest.raises(
        ValueError, match=r"needs a value source that knows V\(s\) too, and none came"
    ):
        make_rater("regret", form="deterministic")
    with pytest.raises(ValueError, match=r"has no state_values.*; pass a Critic or an ExactTable"):
        regret(lambda observations, actions: actions, "deterministic")
    with pytest.raises(
        ValueError, match="Unknown form of regret 'determinstic'; did you mean 'det"
    ):
        regret(Chain(), "determinstic")
    blind = some.replace(observations=None)
    with pytest.raises(ValueError, match="these segments hold none; choose form='stochastic'"):
        regret(Chain(), "deterministic")(blind)

    class Odd(Chain):
        def state_values(self, observations: np.ndarray) -> np.ndarray:
            return observations

    with pytest.raises(ValueError, match=r"when asked for V\(s\) of \d steps; it must return one"):
        regret(Odd(), "deterministic")(some)

    class Lost(Chain):
        def state_values(self, observations: np.ndarray) -> np.ndarray:
            return np.full(len(observations), np.nan)

    with pytest.raises(ValueError, match=r"the values of segment \d are NaN or infinite"):
        regret(Lost(), "deterministic")(some)
