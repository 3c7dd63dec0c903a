"""Raters: the contract of every one of them, laws, numbers by hand, faults made on purpose."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from math import exp, inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prefgym.comparisons import Labels
from prefgym.raters import (
    RATERS,
    LabelRater,
    Panel,
    ProbabilityRater,
    Rater,
    make_rater,
)
from prefgym.raters.scores import StepSum, discounted_return, partial_return, regret
from prefgym.raters.scripted import RandomRater, ScriptedRater
from prefgym.segments import Segments

STEPS = 6
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
FINITE = st.floats(-100.0, 100.0, allow_nan=False, width=32)
RATES = st.floats(0.0, 1.0)


def segments(rewards: Any, lengths: Any = None, **more: Any) -> Segments:
    """Segments of these rewards; row ``i`` has ``lengths[i]`` real steps, all by default."""
    rewards = np.asarray(rewards, float)
    count, steps = rewards.shape
    real = np.full(count, steps) if lengths is None else np.asarray(lengths)
    mask = np.arange(steps) < real[:, None]
    return Segments(
        actions=np.zeros((count, steps), np.int64),
        mask=mask,
        context=np.zeros((count, 1)),
        context_id=np.zeros(count, np.int64),
        rewards=np.where(mask, rewards, 0.0),
        **more,
    )


def batches(pairs: int = 4) -> st.SearchStrategy[Drawn]:
    """Segments of 0 to 6 real steps, with rewards and, unrelated to them, advantages.

    Drawn as plain arrays: :func:`built` makes Segments of them inside the test, because beartype
    draws random numbers of its own, which hypothesis does not allow in a strategy.
    """
    scores = arrays.arrays(float, (pairs, STEPS), elements=FINITE)
    return st.tuples(scores, scores, arrays.arrays(np.int64, pairs, elements=st.integers(0, STEPS)))


def built(drawn: Drawn) -> Segments:
    rewards, advantages, lengths = drawn
    made = segments(rewards, lengths)
    return made.replace(advantages=np.where(made.mask, advantages, 0.0))


@st.composite
def scripted(draw: st.DrawFn) -> ScriptedRater:
    """Any scripted rater, after a few adaptations."""
    rater = ScriptedRater(
        draw(st.sampled_from([partial_return, discounted_return(0.9), regret()])),
        "test",
        beta=draw(st.sampled_from([0.0, 0.01, 1.0, 30.0, inf])),
        gamma=draw(st.sampled_from([1.0, 0.9, 0.3])),
        mistake=draw(RATES),
        skip=draw(RATES),
        equal=draw(RATES),
        soft=draw(st.booleans()),
        bpref_compatible=draw(st.booleans()),
    )
    for mean in draw(st.lists(FINITE, max_size=3)):
        rater = rater.adapted(mean)
    return rater


def random_pairs(rng: np.random.Generator, pairs: int = 50) -> tuple[Segments, Segments]:
    """Pairs with everything that some rater reads."""
    sides = []
    for number in range(2):
        made = segments(rng.normal(size=(pairs, STEPS)), rng.integers(1, STEPS + 1, pairs))
        known = {
            "advantages": np.where(made.mask, -np.abs(made.rewards), 0.0),
            "observations": rng.normal(size=(pairs, STEPS, 2)) * made.mask[..., None],
            "factors": {name: rng.normal(size=(pairs, STEPS)) * made.mask for name in "fgh"},
            "context_id": number * pairs + np.arange(pairs),
        }
        sides.append(made.replace(**known))
    return sides[0], sides[1]


# --- the contract of every rater ------------------------------------------------------------------

OWN: dict[str, Callable[..., Any]] = {
    "own-probability": lambda a, b: 1 / (1 + np.exp(partial_return(b) - partial_return(a))),
    "own-rater": ScriptedRater(regret(), "regret", beta=0.5, mistake=0.2, rater_id=7),
}
EVERY = [*RATERS, *OWN]
NEEDED: dict[str, Any] = {"heron": {"factors": "f,-g,h"}}
"""What a name cannot do without, where no environment says it."""


def named(name: str) -> Rater:
    return make_rater(OWN.get(name, name), **NEEDED.get(name, {}))


@pytest.fixture(params=EVERY)
def rater(request: pytest.FixtureRequest) -> Rater:
    made = named(request.param)
    return made.adapted(1.0).adapted(0.7) if isinstance(made, ScriptedRater) else made


def test_it_answers_every_pair_once_with_a_label_between_0_and_1(
    rater: Rater, rng: np.random.Generator
) -> None:
    labels = rater(*random_pairs(rng), rng)
    assert isinstance(labels, Labels)
    assert labels.label.shape == labels.answered.shape == labels.rater_id.shape == (50,)
    shares = set(np.arange(6) / 5) if isinstance(rater, Panel) else {0.0, 0.5, 1.0}
    assert set(np.unique(labels.label)) <= shares
    assert len(set(labels.label)) > 1
    assert isinstance(rater.meaning, str)


def test_equal_generators_give_equal_answers(rater: Rater, rng: np.random.Generator) -> None:
    a, b = random_pairs(rng)
    once, again = (rater(a, b, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(one, two) for one, two in zip(once, again, strict=True))


def test_probabilities_of_a_pair_and_its_mirror_image_add_up_to_one(
    rater: Rater, rng: np.random.Generator
) -> None:
    a, b = random_pairs(rng)
    assert np.allclose(rater.probability(a, b) + rater.probability(b, a), 1.0, rtol=0, atol=1e-12)


def test_labels_are_drawn_with_the_stated_probability(
    rater: Rater, rng: np.random.Generator
) -> None:
    """Each pair within 5 standard errors, so that a rater fails by chance once in 100,000 times."""
    a, b = random_pairs(rng, 10)
    many = np.repeat(np.arange(10), 4000)
    labels = rater(a.take(many), b.take(many), rng)
    known = rater.probability(a, b)
    for pair in range(10):
        answers = labels.label[many == pair][labels.answered[many == pair]]
        if len(answers):
            error = answers.std() / np.sqrt(len(answers))
            assert abs(answers.mean() - known[pair]) < 5 * error + 1e-3


def test_nothing_is_asked_of_an_empty_batch(rater: Rater, rng: np.random.Generator) -> None:
    a, b = random_pairs(rng, 0)
    assert len(rater(a, b, rng).label) == len(rater.probability(a, b)) == 0


def test_sides_of_different_size_are_refused(rater: Rater, rng: np.random.Generator) -> None:
    a, b = random_pairs(rng)
    with pytest.raises(ValueError, match="left side holds 50 segments and the right side 49"):
        rater(a, b.take(slice(49)), rng)
    with pytest.raises(ValueError, match="equally many"):
        rater.probability(a.take(slice(3)), b)


@pytest.mark.parametrize("name", RATERS)
def test_named_raters_survive_pickling_and_are_equal_by_value(name: str) -> None:
    rater = named(name)
    assert pickle.loads(pickle.dumps(rater)) == rater == named(name)


@pytest.mark.parametrize("name", RATERS)
def test_named_raters_read_torch_segments_too(name: str, rng: np.random.Generator) -> None:
    a, b = random_pairs(rng)
    there = named(name).probability(a.to("cpu"), b.to("cpu"))
    assert np.array_equal(there, named(name).probability(a, b))


# --- laws of scripted raters ----------------------------------------------------------------------


@given(scripted(), batches(), batches())
def test_swapping_the_sides_swaps_the_probability(
    rater: ScriptedRater, left: Drawn, right: Drawn
) -> None:
    a, b = built(left), built(right)
    forward, backward = rater.probability(a, b), rater.probability(b, a)
    assert np.allclose(forward + backward, 1.0, rtol=0, atol=1e-12)
    assert ((forward >= 0) & (forward <= 1)).all()
    assert np.array_equal(rater.answer_probability(a, b), rater.answer_probability(b, a))


@given(scripted(), batches(), batches(), st.integers(0, 99))
def test_a_mirrored_pair_gets_the_mirrored_answer(
    rater: ScriptedRater, left: Drawn, right: Drawn, seed: int
) -> None:
    a, b = built(left), built(right)
    there = rater(a, b, np.random.default_rng(seed))
    back = rater(b, a, np.random.default_rng(seed))
    decided = rater.probability(a, b) != 0.5  # otherwise a coin may decide, the same for both
    assert np.allclose(there.label[decided], 1.0 - back.label[decided])
    assert np.array_equal(there.answered, back.answered)


@given(scripted(), batches(), batches(), st.integers(1, 5), st.integers(0, 99))
def test_padding_changes_nothing(
    rater: ScriptedRater, left: Drawn, right: Drawn, more: int, seed: int
) -> None:
    a, b = built(left), built(right)
    longer = a.padded(a.steps + more)
    assert np.allclose(rater.probability(longer, b), rater.probability(a, b), rtol=0, atol=1e-9)
    one, two = (rater(side, b, np.random.default_rng(seed)) for side in (a, longer))
    assert np.array_equal(one.answered, two.answered)


@given(batches(), st.floats(-1e9, 1e9))
def test_what_stands_in_padding_is_never_read(drawn: Drawn, junk: float) -> None:
    made = built(drawn)
    assert made.rewards is not None
    dirty = made.replace(
        rewards=np.where(made.mask, made.rewards, junk),
        advantages=np.where(made.mask, made.advantages, nan),
    )
    for statistic in (partial_return, discounted_return(0.9), regret(), StepSum(len_one, 1.0, 0.5)):
        assert np.array_equal(statistic(dirty), statistic(made))


def len_one(made: Segments) -> np.ndarray:
    """Score 1 per step: the sum is the length."""
    return np.ones(made.mask.shape)


@given(batches(), batches(), FINITE)
def test_segments_of_equal_length_may_all_be_shifted(left: Drawn, right: Drawn, by: float) -> None:
    a, b = built(left), built(right)
    full = a.replace(mask=np.ones_like(a.mask)), b.replace(mask=np.ones_like(b.mask))
    shifted = [side.replace(rewards=side.rewards + by) for side in full]
    rater = make_rater("noisy", beta=0.1, mistake=0.1)
    assert np.allclose(rater.probability(*full), rater.probability(*shifted), rtol=0, atol=1e-6)


@given(batches(), batches(), st.floats(0.01, 100.0))
def test_scaling_the_reward_is_scaling_beta(left: Drawn, right: Drawn, scale: float) -> None:
    a, b = built(left), built(right)
    larger = [side.replace(rewards=side.rewards * scale) for side in (a, b)]
    one = make_rater("noisy", beta=0.3).probability(*larger)
    two = make_rater("noisy", beta=0.3 * scale).probability(a, b)
    assert np.allclose(one, two, rtol=0, atol=1e-6)


@given(batches(), batches())
def test_more_rationality_names_the_better_one_more_often(left: Drawn, right: Drawn) -> None:
    a, b = built(left), built(right)
    beliefs = [
        np.abs(make_rater("noisy", beta=beta).probability(a, b) - 0.5)
        for beta in (0.0, 0.1, 1.0, inf)
    ]
    assert (np.diff(beliefs, axis=0) >= -1e-12).all()


@given(batches())
def test_a_discount_of_one_is_the_partial_return(drawn: Drawn) -> None:
    made = built(drawn)
    assert np.array_equal(discounted_return(1.0)(made), partial_return(made))


@given(batches(), batches(), RATES)
def test_mistakes_pull_the_probability_towards_its_opposite(
    left: Drawn, right: Drawn, mistake: float
) -> None:
    a, b = built(left), built(right)
    clean = make_rater("noisy").probability(a, b)
    wrong = make_rater("noisy", mistake=mistake).probability(a, b)
    assert np.allclose(wrong, (1 - mistake) * clean + mistake * (1 - clean), rtol=0, atol=1e-12)


@given(st.floats(0.01, 1000.0), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_thresholds_are_those_of_bpref_for_positive_returns(
    mean: float, skip: float, equal: float
) -> None:
    rater = make_rater("oracle", skip=skip, equal=equal)
    there, bpref = rater.adapted(mean), replace(rater, bpref_compatible=True).adapted(mean)
    assert isinstance(there, ScriptedRater)
    assert np.isclose(there.skip_threshold, skip * mean)
    assert np.isclose(there.equal_threshold, equal * mean)
    assert np.isclose(bpref.skip_threshold, skip * mean)
    below = rater.adapted(-mean)
    assert isinstance(below, ScriptedRater)
    assert np.isclose(-mean - below.skip_threshold, mean - there.skip_threshold)
    assert below.equal_threshold == there.equal_threshold


# --- numbers by hand ------------------------------------------------------------------------------


def test_statistics_by_hand() -> None:
    made = segments([[1, 2, 4], [8, 2, 99]], [3, 2], advantages=np.array([[-1, 0, -3], [0, -2, 0]]))
    assert partial_return(made).tolist() == [7, 10]
    assert discounted_return(0.5)(made).tolist() == [1 + 1 + 1, 8 + 1]
    assert regret()(made).tolist() == [-4, -2]
    # later steps count more, from the end of each segment's own length
    assert replace(partial_return, recency=0.5)(made).tolist() == [0.25 + 1 + 4, 4 + 2]


def test_regret_asks_the_value_source_about_real_steps_only() -> None:
    asked = []

    def source(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        asked.append((observations.shape, actions.shape))
        return -observations[:, 0]

    observations = np.arange(12.0).reshape(2, 3, 2)
    made = segments(np.zeros((2, 3)), [3, 1], observations=observations)
    assert regret(source)(made).tolist() == [-(0 + 2 + 4), -6]
    assert asked == [((4, 2), (4,))]


@pytest.mark.parametrize(
    ("name", "options", "a", "b", "wanted"),
    [
        ("oracle", {}, [1, 2], [1, 1], 1.0),
        ("oracle", {}, [1, 2], [2, 1], 0.5),
        ("noisy", {}, [1, 2], [0, 1], 1 / (1 + exp(-2))),
        ("noisy", {"beta": 0.5}, [0, 1], [1, 2], 1 / (1 + exp(1))),
        ("mistake", {}, [1, 2], [1, 1], 0.9),
        ("mistake", {}, [1, 2], [2, 1], 0.5),
        ("noisy", {"mistake": 0.25}, [1, 2], [0, 1], 0.25 + 0.5 / (1 + exp(-2))),
        # 10 now is 9 seen from the last step, and 9.5 at the last step is more
        ("myopic", {}, [10, 0], [0, 9.5], 0.0),
        ("oracle", {}, [10, 0], [0, 9.5], 1.0),
        ("noisy", {"gamma": 0.5}, [2, 0], [0, 0], 1 / (1 + exp(-1))),
        ("discounted-return", {"discount": 0.5, "beta": 1.0}, [0, 2], [0, 0], 1 / (1 + exp(-1))),
        ("equal", {"equal_threshold": 1.5}, [1, 1], [1, 0], 0.5),
        ("equal", {"equal_threshold": 1.0}, [1, 1], [1, 0], 1.0),
        ("random", {}, [9, 9], [0, 0], 0.5),
        ("noisy", {"beta": 0.0}, [9, 9], [0, 0], 0.5),
        ("noisy", {"beta": 1e308}, [9, 9], [0, 0], 1.0),
    ],
)
def test_probabilities_by_hand(
    name: str, options: dict[str, Any], a: list[float], b: list[float], wanted: float
) -> None:
    rater = make_rater(name, **options)
    assert np.isclose(rater.probability(segments([a]), segments([b])), wanted, rtol=0, atol=1e-12)


def test_the_equal_test_looks_at_the_sum_and_not_at_the_myopic_one() -> None:
    early, late = segments([[1.0, 0.0]]), segments([[0.0, 1.0]])
    near = make_rater("myopic", equal=0.1, equal_threshold=0.05)
    assert near.probability(early, late).tolist() == [0.5]
    assert make_rater("myopic").probability(early, late).tolist() == [0.0]


def test_a_pair_is_skipped_when_even_the_better_one_is_bad(rng: np.random.Generator) -> None:
    a, b = segments([[0.5], [0.5], [1.0]]), segments([[0.2], [2.0], [0.3]])
    rater = make_rater("skip", skip=0.5)
    assert rater(a, b, rng).answered.all()  # before anything is known about returns
    adapted = rater.adapted(2.0)
    assert adapted(a, b, rng).answered.tolist() == [False, True, False]
    assert isinstance(adapted, ScriptedRater)
    assert adapted.answer_probability(a, b).tolist() == [0.0, 1.0, 0.0]


def test_negative_returns_are_skipped_and_tied_on_the_same_terms(rng: np.random.Generator) -> None:
    a, b = segments([[-100.0], [-195.0], [-120.0]]), segments([[-105.0], [-300.0], [-150.0]])
    rater = make_rater("oracle", skip=0.1, equal=0.1).adapted(-100.0)
    labels = rater(a, b, rng)
    assert labels.answered.tolist() == [True, False, True]  # below −190
    assert labels.label[[0, 2]].tolist() == [0.5, 1.0]  # closer than 10


def test_rounding_errors_are_ties() -> None:
    near = segments(np.zeros((2, 1)), advantages=np.array([[0.0], [1e12]]))
    far = segments(np.zeros((2, 1)), advantages=np.array([[-1e-15], [1e12 + 1e-3]]))
    assert make_rater("regret").probability(near, far).tolist() == [0.5, 0.5]
    assert make_rater("regret", rounding=0.0).probability(near, far).tolist() == [1.0, 0.0]


def test_soft_labels_are_the_probability_and_draw_nothing(rng: np.random.Generator) -> None:
    a, b = random_pairs(rng)
    state = rng.bit_generator.state
    rater = make_rater("noisy", mistake=0.1, soft=True)
    assert np.array_equal(rater(a, b, rng).label, rater.probability(a, b))
    assert rng.bit_generator.state == state


def test_labels_carry_the_raters_id(rng: np.random.Generator) -> None:
    a, b = random_pairs(rng, 3)
    for name in ("noisy", "random"):
        assert make_rater(name, rater_id=4)(a, b, rng).rater_id.tolist() == [4, 4, 4]


# --- B-Pref's released code -----------------------------------------------------------------------


class Zeros(np.random.Generator):
    """Draws 0 every time: the one draw that tells ``<=`` from ``<`` at a mistake of 0."""

    def random(self, size: Any = None, *_: Any, **__: Any) -> Any:
        """Zeros of this shape."""
        return np.zeros(size)


def test_bpref_multiplies_by_its_epsilon_twice_from_the_second_session_on() -> None:
    for compatible, second in ((False, 10.0), (True, 1.0)):
        rater = make_rater("oracle", skip=0.1, equal=0.1, bpref_compatible=compatible)
        for wanted in (10.0, second, second):
            rater = rater.adapted(100.0)
            assert isinstance(rater, ScriptedRater)
            assert np.isclose(rater.skip_threshold, wanted)
            assert np.isclose(rater.equal_threshold, wanted)


def test_bpref_neither_skips_nor_ties_where_returns_are_negative(rng: np.random.Generator) -> None:
    a, b = segments([[-500.0]]), segments([[-500.5]])
    for compatible in (False, True):
        rater = make_rater("oracle", skip=0.1, equal=0.1, bpref_compatible=compatible)
        labels = rater.adapted(-100.0)(a, b, rng)
        assert labels.answered.tolist() == [compatible]
        assert labels.label.tolist() == [1.0 if compatible else 0.5]


def test_bpref_makes_a_mistake_when_the_draw_equals_the_rate() -> None:
    a, b = segments([[1.0]]), segments([[0.0]])
    for compatible, label in ((False, 1.0), (True, 0.0)):
        rater = make_rater("oracle", bpref_compatible=compatible)
        assert rater(a, b, Zeros(np.random.PCG64(0))).label.tolist() == [label]


def test_a_tie_overrides_a_mistake(rng: np.random.Generator) -> None:
    a, b = segments([[1.0]]), segments([[0.9]])
    for compatible in (False, True):
        rater = make_rater("oracle", mistake=1.0, equal=0.5, bpref_compatible=compatible)
        assert rater.adapted(1.0)(a, b, rng).label.tolist() == [0.5]
        assert rater(a, b, rng).label.tolist() == [0.0]


def test_adapting_leaves_the_rater_itself_alone() -> None:
    rater = make_rater("equal")
    assert isinstance(rater, ScriptedRater)
    assert rater.adapted(5.0) is not rater
    assert (rater.equal_threshold, rater.adaptations) == (0.0, 0)
    assert make_rater("noisy").adapted(5.0) == make_rater("noisy")


def test_thresholds_may_be_given_in_units_of_the_statistic(rng: np.random.Generator) -> None:
    rater = make_rater("oracle", skip_threshold=1.0).adapted(50.0)
    assert rater(segments([[0.5]]), segments([[0.6]]), rng).answered.tolist() == [False]


# --- a user's own rater ---------------------------------------------------------------------------


def test_functions_of_two_and_three_arguments_are_raters(rng: np.random.Generator) -> None:
    def answer(a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        return Labels(np.ones(len(a)), np.arange(len(a)) > 0, np.full(len(a), 9))

    a, b = random_pairs(rng, 3)
    mine = make_rater(answer)
    assert isinstance(mine, LabelRater)
    assert mine(a, b, rng).label[1:].tolist() == [1, 1]
    assert mine(a, b, rng).answered.tolist() == [False, True, True]
    with pytest.raises(ValueError, match="does not tell its choice probabilities"):
        mine.probability(a, b)
    other = make_rater(lambda a, b: np.full(len(a), 0.5))
    assert isinstance(other, ProbabilityRater)
    assert replace(other, soft=True)(a, b, rng).label.tolist() == [0.5] * 3


def test_a_rater_object_passes_through() -> None:
    rater = RandomRater(3)
    assert make_rater(rater) is rater
    assert isinstance(rater, Rater)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rater", "options", "message"),
    [
        ("nosy", {}, "'noisy'"),
        ("noisy", {"temperature": 2.0}, "has no option 'temperature'; it takes beta, bpref"),
        ("random", {"beta": 2.0}, "it takes rater_id."),
        ("partial-return", {"discount": 0.9}, "has no option 'discount'"),
        ("partial-return", {"statistic": partial_return}, "has no option 'statistic'"),
        (RandomRater(), {"beta": 2.0}, "chosen by name"),
        (lambda a: a, {}, r"is no function of \(a, b\) or \(a, b, rng\)"),
        ("noisy", {"beta": -1.0}, "beta is -1.0; give a number of 0 or more"),
        ("noisy", {"beta": nan}, "beta is nan"),
        ("noisy", {"mistake": 1.1}, "mistake is 1.1; give a number from 0 to 1"),
        ("noisy", {"skip": -0.1}, "skip is -0.1"),
        ("noisy", {"equal": nan}, "equal is nan"),
        ("noisy", {"gamma": 0.0}, "gamma is 0.0; give a number above 0"),
        ("noisy", {"equal_threshold": nan}, "equal_threshold is nan"),
        ("discounted-return", {"discount": 1.5}, "discount is 1.5"),
    ],
)
def test_bad_choices_are_refused(rater: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_rater(rater, **options)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([0.5], r"shape \(1,\) for 3 pairs"),
        ([2.0, 0.5, 0.5], "answered 2.0"),
        ([nan, 0.5, 0.5], "answered nan"),
        ([1.0, 0.5, 0.5], "must add up to 1"),
    ],
)
def test_functions_that_give_no_probabilities_are_refused(
    answer: list[float], message: str, rng: np.random.Generator
) -> None:
    with pytest.raises(ValueError, match=message):
        make_rater(lambda a, b: answer)(*random_pairs(rng, 3), rng)


def test_functions_that_give_no_labels_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="returned list"):
        make_rater(lambda a, b, rng: [1.0])(*random_pairs(rng, 3), rng)


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_rewards_that_are_not_finite_are_refused(bad: float) -> None:
    made = segments([[0.0, 0.0], [0.0, bad], [bad, -bad]])
    for name in ("oracle", "myopic", "discounted-return"):
        with pytest.raises(ValueError, match="rewards of segment 1 are NaN or infinite"):
            make_rater(name).probability(made, made)


def test_missing_columns_are_named() -> None:
    made = segments([[1.0]])
    with pytest.raises(ValueError, match="hold no rewards"):
        partial_return(made.replace(rewards=None))
    with pytest.raises(ValueError, match="no value source to ask; pass value_source="):
        make_rater("regret").probability(made, made)
    with pytest.raises(ValueError, match="needs to see observations"):
        make_rater("regret", lambda obs, act: np.zeros(len(obs))).probability(made, made)
    seen = made.replace(observations=np.zeros((1, 1, 2)))
    with pytest.raises(ValueError, match=r"answered with shape \(1, 2\) for 1 steps"):
        regret(lambda obs, act: np.zeros((1, 2)))(seen)
    with pytest.raises(ValueError, match="wanted one number per step"):
        partial_return(made.replace(rewards=np.zeros((1, 1, 2))))


def test_myopia_needs_a_sum_over_steps() -> None:
    with pytest.raises(ValueError, match="weights the steps of a sum"):
        ScriptedRater(lambda made: np.zeros(len(made)), "own", gamma=0.9)
    ScriptedRater(StepSum(len_one), "length", gamma=0.9)


def test_adapting_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the mean return is nan"):
        make_rater("skip").adapted(nan)
