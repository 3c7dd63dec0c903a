"""Hierarchies of factors: their laws, their margins, and what they are told on the way."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import prefgym  # noqa: F401
from prefgym.raters import HierarchyRater, RememberingRater, make_rater
from prefgym.raters.hierarchies import Level, Spread, levels
from prefgym.segments import Segments
from prefgym.wrappers import PreferenceEnv

NAMES = ("f", "g", "h")
ORDER = "-f,g,-h"
SIGNS = np.array([-1.0, 1.0, -1.0])


def segments(factors: dict[str, np.ndarray], lengths: np.ndarray | None = None) -> Segments:
    batch, steps = next(iter(factors.values())).shape
    lengths = np.full(batch, steps) if lengths is None else lengths
    mask = np.arange(steps) < lengths[:, None]
    return Segments(
        actions=np.zeros((batch, steps)),
        mask=mask,
        context=np.zeros((batch, 1)),
        context_id=np.arange(batch),
        factors={name: np.where(mask, one, 0.0) for name, one in factors.items()},
    )


def drawn(seed: int, pairs: int = 60, steps: int = 4, coarse: bool = False) -> Segments:
    """Random factors of very different sizes, in segments of different lengths."""
    rng = np.random.default_rng(seed)
    sizes = (1.0, 1e3, 1e-3)
    values = {n: s * rng.normal(size=(pairs, steps)) for n, s in zip(NAMES, sizes, strict=True)}
    if coarse:
        values = {name: np.sign(one) for name, one in values.items()}
    return segments(values, rng.integers(1, steps + 1, pairs))


def by_hand(rater: HierarchyRater, a: Segments, b: Segments) -> list[tuple[str, float]]:
    """The box of the paper, one pair and one level at a time: who decides, and P(a ≻ b)."""

    def total(one: Segments, row: int, name: str) -> float:
        steps = [float(one.factors[name][row, t]) for t in range(int(one.lengths[row]))]
        return sum(steps) / (len(steps) if rater.over == "mean" else 1)

    def deviation(name: str) -> float:
        told = [total(one, row, name) for one in (a, b) for row in range(len(one))]
        return float(np.std(told))

    found = []
    for row in range(len(a)):
        decided = ("undecided", 0.5)
        for word, margin in zip(rater.factors, np.ravel(rater.margins), strict=True):
            name, sign = word.lstrip("-"), -1.0 if word[0] == "-" else 1.0
            apart = sign * (total(a, row, name) - total(b, row, name))
            if abs(apart) > margin * deviation(name):
                decided = (word, 1.0 if apart > 0 else 0.0)
                break
        found.append(decided)
    return found


@pytest.mark.parametrize("over", ["sum", "mean"])
@pytest.mark.parametrize("margins", [0.0, 0.5, (2.0, 1.0, 0.2)])
def test_it_is_the_loop_of_the_paper(over: str, margins: Any) -> None:
    rater = HierarchyRater(ORDER, margins, over=over)
    a, b = drawn(0), drawn(1)
    expected = by_hand(rater, a, b)
    labels = rater(a, b, np.random.default_rng(0))
    assert rater.probability(a, b).tolist() == [chance for _, chance in expected]
    assert labels.label.tolist() == [chance for _, chance in expected]
    assert labels.answered.tolist() == [word != "undecided" for word, _ in expected]
    assert rater.answer_probability(a, b).tolist() == labels.answered.tolist()
    told = rater.shares_decided(a, b)
    assert list(told) == ["-f", "g", "-h", "undecided"]
    for word, share in told.items():
        assert share == pytest.approx(np.mean([one == word for one, _ in expected]))
    if margins != 0.0:
        assert min(told.values()) > 0.0, "every level decides something in this test"


@given(
    scales=st.tuples(*[st.floats(1e-6, 1e6)] * 3),
    margin=st.floats(0.0, 2.0),
    deviation=st.sampled_from(["history", "batch"]),
    seed=st.integers(0, 99),
)
def test_other_units_change_no_label(
    scales: tuple[float, ...], margin: float, deviation: str, seed: int
) -> None:
    def rescaled(one: Segments) -> Segments:
        pairs = zip(NAMES, scales, strict=True)
        return one.replace(factors={name: one.factors[name] * by for name, by in pairs})

    a, b, seen = drawn(seed), drawn(seed + 1), drawn(seed + 2)
    rater = HierarchyRater(ORDER, margin, deviation)
    plain = rater.adapted_to(seen).probability(a, b)
    assert np.array_equal(
        plain, rater.adapted_to(rescaled(seen)).probability(rescaled(a), rescaled(b))
    )


@given(seed=st.integers(0, 999), margin=st.floats(0.0, 2.0), mistake=st.floats(0.0, 1.0))
def test_mirrored_pairs_are_judged_the_other_way_round(
    seed: int, margin: float, mistake: float
) -> None:
    a, b = drawn(seed, coarse=seed % 2 == 0), drawn(seed + 1000, coarse=seed % 2 == 0)
    for told in (None, drawn(5)):
        rater = HierarchyRater(ORDER, margin, mistake=mistake)
        rater = rater if told is None else rater.adapted_to(told)
        there, back = rater.probability(a, b), rater.probability(b, a)
        np.testing.assert_allclose(there + back, 1.0, rtol=0.0, atol=1e-15)
        assert np.array_equal(rater.answer_probability(a, b), rater.answer_probability(b, a))
        assert np.all(rater.probability(a, a) == 0.5)


def test_without_margins_it_orders_like_words_in_a_dictionary() -> None:
    """Coarse factors, so that all levels decide: the order is that of tuples, hence transitive."""
    some = drawn(3, pairs=80, coarse=True)
    rater = HierarchyRater(ORDER, 0.0)
    left, right = (one.ravel() for one in np.indices((len(some), len(some))))
    chance = rater.probability(some.take(left), some.take(right)).reshape(len(some), -1)
    keys = [tuple(row) for row in (rater.measured(some) * SIGNS).tolist()]
    wanted = [[0.5 + 0.5 * ((x > y) - (x < y)) for y in keys] for x in keys]
    assert chance.tolist() == wanted
    assert min(rater.shares_decided(some.take(left), some.take(right)).values()) > 0.0


def test_larger_margins_decide_less() -> None:
    a, b = drawn(0, pairs=500), drawn(1, pairs=500)
    silent = [
        HierarchyRater(ORDER, margin).shares_decided(a, b)["undecided"]
        for margin in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
    ]
    assert silent == sorted(silent)
    assert silent[0] == 0.0
    assert 0.0 < silent[2] < 0.2 < 0.6 < silent[4] < 1.0


def test_no_margin_on_a_measured_number_leaves_nothing_to_the_others() -> None:
    told = HierarchyRater(ORDER, (0.0, 1.0, 1.0)).shares_decided(drawn(0), drawn(1))
    assert told == {"-f": 1.0, "g": 0.0, "-h": 0.0, "undecided": 0.0}


def test_a_sum_counts_steps_and_a_mean_does_not() -> None:
    values = {name: np.ones((2, 6)) for name in NAMES}
    long, short = (segments(values, np.array([n, n])) for n in (6, 2))
    assert HierarchyRater("g", 0.0).probability(long, short).tolist() == [1.0, 1.0]
    assert HierarchyRater("-g", 0.0).probability(long, short).tolist() == [0.0, 0.0]
    mean = HierarchyRater("g", 0.0, over="mean")
    assert mean.answer_probability(long, short).tolist() == [0.0, 0.0]


def test_what_stands_at_padding_is_never_read() -> None:
    clean = drawn(7)
    dirty = clean.replace(
        factors={name: np.where(clean.mask, one, np.nan) for name, one in clean.factors.items()}
    )
    assert np.array_equal(
        HierarchyRater(ORDER).measured(clean), HierarchyRater(ORDER).measured(dirty)
    )


def test_mistakes_turn_so_many_answers_round() -> None:
    a, b = drawn(0, pairs=4000), drawn(1, pairs=4000)
    sure, unsure = HierarchyRater(ORDER), HierarchyRater(ORDER, mistake=0.2)
    truth, said = sure(a, b, np.random.default_rng(0)), unsure(a, b, np.random.default_rng(0))
    assert np.array_equal(truth.answered, said.answered)
    wrong = np.mean(truth.label != said.label, where=truth.answered)
    assert wrong == pytest.approx(0.2, abs=0.03)


# --- deviations -----------------------------------------------------------------------------------


def test_history_adds_up_recent_forgets_and_numbers_stay() -> None:
    portions = [drawn(seed, pairs=30 + seed) for seed in range(4)]
    history, recent = (HierarchyRater(ORDER, 1.0, kind) for kind in ("history", "recent"))
    for one in portions:
        history, recent = history.adapted_to(one), recent.adapted_to(one)
    all_of_them = np.concatenate([history.measured(one) for one in portions])
    assert history.spread is not None
    assert recent.spread is not None
    assert history.spread.count == len(all_of_them)
    np.testing.assert_allclose(history.spread.deviation, all_of_them.std(0), rtol=1e-12)
    np.testing.assert_allclose(history.spread.mean, all_of_them.mean(0), rtol=1e-9, atol=1e-12)
    last = history.measured(portions[-1])
    np.testing.assert_allclose(recent.spread.deviation, last.std(0), rtol=1e-12)
    for kind in ("batch", 2.0, (1.0, 2.0, 3.0)):
        rater = HierarchyRater(ORDER, 1.0, kind)
        assert not rater.adaptive
        assert rater.adapted_to(portions[0]) is rater
    assert not HierarchyRater(ORDER, 0.0).adaptive


def test_fixed_deviations_are_in_the_unit_of_the_factor() -> None:
    a = segments({"f": np.array([[1.0], [1.0], [1.0]])})
    b = segments({"f": np.array([[0.9], [0.4], [1.7]])})
    rater = HierarchyRater("f", 0.5, deviation=1.0)
    assert rater.probability(a, b).tolist() == [0.5, 1.0, 0.0]


def test_single_pairs_are_judged_by_what_was_seen_before() -> None:
    """By themselves they would be a whole standard deviation apart, whatever they are."""
    seen, close = drawn(0, pairs=200), drawn(0, pairs=2)
    near = close.replace(factors={name: one * 1.001 for name, one in close.factors.items()})
    rater = HierarchyRater(ORDER, 0.5)
    assert rater.adapted_to(seen).answer_probability(close, near).tolist() == [0.0, 0.0]


def test_what_it_was_told_comes_back_from_its_memory() -> None:
    rater = HierarchyRater(ORDER).adapted_to(drawn(0)).adapted_to(drawn(1))
    assert isinstance(rater, RememberingRater)
    assert HierarchyRater(ORDER).remembering(rater.memory()) == rater
    fresh = HierarchyRater(ORDER)
    assert rater.remembering(fresh.memory()) == fresh


def test_a_spread_of_nothing_more_is_the_same() -> None:
    one = Spread(3, (1.0,), (2.0,))
    assert one.with_more(np.zeros((0, 1))) is one


def test_a_resumed_environment_goes_on_with_what_the_rater_had_heard() -> None:
    def act(env: Any, steps: int, seed: int) -> list[Any]:
        rng, told = np.random.default_rng(seed), []
        for _ in range(steps):
            *_, info = env.step(rng.uniform(-2.0, 2.0, 1).astype(np.float32))
            told += [info["preference"]] if "preference" in info else []
        return told

    whole: Any = gym.make("prefgym/Pendulum-v0", rater="heron", segment_steps=5, query_every=7)
    elicitor = whole.get_wrapper_attr("elicitor")
    whole.reset(seed=0)
    act(whole, 90, 0)
    state, heard = elicitor.get_state(), elicitor.rater
    assert heard.spread.count > 64
    act(whole, 40, 1)
    assert elicitor.rater != heard
    elicitor.set_state(state)
    assert elicitor.rater == heard


# --- mistakes of users ----------------------------------------------------------------------------


def test_factors_are_words_or_lists_of_words() -> None:
    assert levels(" -a, +b ,c") == (Level("a", -1.0), Level("b", 1.0), Level("c", 1.0))
    assert levels(["-a", "b"]) == levels("-a,b")
    assert HierarchyRater(["-f", "g"], 1.0) == HierarchyRater("-f,g", (1.0, 1.0))
    assert make_rater("heron", factors="-f,g", margins=[1.0, 1.0]) == HierarchyRater("-f,g", 1.0)


@pytest.mark.parametrize(
    ("factors", "options", "sentence"),
    [
        ("", {}, "name at least one factor, each once"),
        ("-f,f", {}, "name at least one factor, each once"),
        ("f,,g", {}, "name at least one factor"),
        (ORDER, {"margins": (1.0, 2.0)}, r"there are 3 factors \(-f, g, -h\); give one number"),
        (ORDER, {"margins": ()}, "there are 3 factors"),
        (ORDER, {"margins": -0.1}, "give numbers of 0 or more"),
        (ORDER, {"margins": float("nan")}, "give numbers of 0 or more"),
        (ORDER, {"deviation": "histroy"}, "did you mean 'history'"),
        (ORDER, {"deviation": (1.0, 2.0)}, "deviation is .* there are 3 factors"),
        (ORDER, {"over": "max"}, "There are: mean, sum"),
        (ORDER, {"mistake": 1.5}, "mistake is 1.5; give a number from 0 to 1"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    factors: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        HierarchyRater(factors, **options)


def test_factors_that_are_not_there_are_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no factor 'k', only f, g, h; choose"):
        HierarchyRater("-k").probability(drawn(0), drawn(1))
    broken = drawn(0)
    broken.factors["g"][3, 0] = np.inf
    with pytest.raises(ValueError, match=r"factor 'g' of segment 3 is NaN or infinite"):
        HierarchyRater(ORDER).measured(broken)


def test_an_environment_refuses_factors_it_does_not_name_when_it_is_made() -> None:
    def made(env_id: str = "prefgym/Pendulum-v0", **options: Any) -> Any:
        env: Any = gym.make(env_id, rater="heron", rater_kwargs=options)
        return env.get_wrapper_attr("elicitor").rater

    with pytest.raises(ValueError, match=r"did you mean 'angle2'.*There are: angle2, speed2, torq"):
        made(factors="-angel2,-speed2")
    with pytest.raises(ValueError, match="there are 2 factors"):
        made(factors="-angle2,-speed2", margins=[1.0, 1.0, 1.0])
    assert made().factors == ("-angle2", "-speed2", "-torque2")
    assert made("prefgym/TextPolite-v0").factors == ("correctness", "politeness", "-length")
    assert made(factors=["speed2"]).factors == ("speed2",)


class Elsewhere(gym.Env[Any, Any]):
    """An environment of somebody else."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, *factors: str) -> None:
        self.factor_names = factors

    def __str__(self) -> str:
        return "Elsewhere"


def test_elsewhere_somebody_has_to_say_what_matters() -> None:
    with pytest.raises(ValueError, match="compares factors, and Elsewhere names none"):
        PreferenceEnv(Elsewhere(), "heron", segment_steps=1)
    with pytest.raises(ValueError, match=r"in which order the factors of Elsewhere matter.*x, y"):
        PreferenceEnv(Elsewhere("x", "y"), "heron", segment_steps=1)
    chosen: Any = PreferenceEnv(
        Elsewhere("x", "y"), "heron", segment_steps=1, rater_kwargs={"factors": "-y"}
    )
    assert chosen.elicitor.rater.factors == ("-y",)


def test_a_hierarchy_that_decides_nothing_says_so() -> None:
    alike = segments({name: np.ones((30, 2)) for name in NAMES})
    with pytest.warns(UserWarning, match=r"of 30 pairs none was decided \(-f 0%, g 0%, -h 0%, und"):
        labels = HierarchyRater(ORDER)(alike, alike, np.random.default_rng(0))
    assert not labels.answered.any()
    few = alike.take(slice(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HierarchyRater(ORDER)(few, few, np.random.default_rng(0))  # too few to say so
    rater = HierarchyRater(ORDER, 100.0)
    for seed in range(16):
        rater = rater.adapted_to(drawn(seed))  # too few yet
    with pytest.warns(UserWarning, match="of 59 pairs none was decided"):
        rater.adapted_to(drawn(16))


def test_a_time_out_is_no_success() -> None:
    """The end by the clock leaves ``goal`` at 0, the end by the flag makes it 1."""
    env: Any = gym.make("prefgym/MountainCarContinuous-v0", max_episode_steps=30, rater="heron",
                        segment_steps=5)  # fmt: skip
    env.reset(seed=0)
    for _ in range(30):
        *_, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
    assert truncated
    assert not terminated
    last = env.get_wrapper_attr("store").segments(
        env.get_wrapper_attr("store").sample(200, 5, np.random.default_rng(0)), 5
    )
    assert not np.any(last.factors["goal"])
