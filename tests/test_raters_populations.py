"""Who answers, under every rule; who the raters are; groups by goals, factors and expertise."""

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from prefgym import converters
from prefgym.comparisons import Comparisons, Labels, PreferenceDataset
from prefgym.converters.trl import from_trl, to_trl
from prefgym.raters import Population, Rater, make_rater
from prefgym.raters.populations import groups
from prefgym.raters.scores import StepSum, WeightedFactors
from prefgym.raters.scripted import RandomRater, ScriptedRater
from prefgym.raters.tastes import GoalDistance, OpposedFactors, circle, goal_groups, opposed_groups
from prefgym.segments import Segments

HIGH, LOW = (make_rater("oracle", rater_id=7), make_rater("oracle", mistake=1.0, rater_id=9))
"""One always names the better one and the other the worse one."""


def segments(count: int, seed: int, contexts: int | None = None) -> Segments:
    rng = np.random.default_rng(seed)
    mask = np.arange(3) < rng.integers(1, 4, size=(count, 1))
    return Segments(
        actions=np.zeros((count, 3), np.int64),
        mask=mask,
        context=rng.integers(0, 2, size=(count, 1)),
        context_id=np.arange(count) % (contexts or count),
        observations=rng.normal(size=(count, 3, 2)) * mask[:, :, None],
        rewards=rng.normal(size=(count, 3)) * mask,
        factors={name: rng.normal(size=(count, 3)) * mask for name in "fgh"},
    )


def several(raters: Any = (HIGH, LOW), *rest: Any, **options: Any) -> Population:
    return Population(raters, *rest, **options)


def by_last_bit(a: Segments, b: Segments) -> np.ndarray:
    """Who answers follows from what both contexts show."""
    bit: np.ndarray = (a.context[:, 0] + b.context[:, 0]) % 2
    return bit


def leaning(a: Segments, b: Segments) -> np.ndarray:
    first = 0.2 + 0.6 * by_last_bit(a, b)
    return np.stack([first, 1.0 - first], -1)


RULES: dict[str, Any] = {
    "query": "query",
    "session": "session",
    "context": "context",
    "numbers": by_last_bit,
    "shares": leaning,
}


# --- the rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_marginals_are_exact_under_every_rule(rule: str) -> None:
    """Answers and ids of many calls, each of ten pairs, against the stated chances."""
    population: Rater = several(weights=(0.3, 0.7), rule=RULES[rule])
    a, b = segments(10, 1), segments(10, 2)
    rng, calls = np.random.default_rng(0), 600
    told = [population(a, b, rng) for _ in range(calls)]
    labels, ids = (np.array([one[column] for one in told]) for column in (0, 2))
    known = population.probability(a, b)
    np.testing.assert_allclose(known + population.probability(b, a), 1.0)
    error = np.sqrt(known * (1 - known) / calls)
    assert (np.abs(labels.mean(0) - known) <= 4 * error + 1e-12).all()
    better = HIGH.probability(a, b)
    np.testing.assert_array_equal(labels == better, ids == 7)  # the id tells by whom
    if rule in ("query", "session"):
        np.testing.assert_allclose(known, 0.7 + (0.3 - 0.7) * better)


def test_one_rater_answers_a_whole_session() -> None:
    population = several(rule="session", people=5)
    a, b = segments(40, 1), segments(40, 2)
    rng = np.random.default_rng(0)
    sessions = [set(population(a, b, rng).rater_id) for _ in range(200)]
    assert {len(one) for one in sessions} == {1}
    assert set.union(*sessions) == {*range(35, 40), *range(45, 50)}


def test_a_context_has_its_own_rater_however_often_it_is_asked_about() -> None:
    population = several(rule="context", weights=(0.2, 0.8), people=3)
    a, b = segments(4000, 1, contexts=400), segments(4000, 2, contexts=400)
    one, other = (population(a, b, np.random.default_rng(seed)).rater_id for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    mirrored = population(b, a, np.random.default_rng(2)).rater_id
    np.testing.assert_array_equal(one, mirrored)
    np.testing.assert_array_equal(one[:400], one[400:800])  # the same contexts again
    share = np.mean(one[:400] // 3 == 7)
    assert abs(share - 0.2) < 4 * np.sqrt(0.16 / 400)
    assert len(set(one)) == 6


def test_people_of_a_group_answer_alike_under_ids_of_their_own() -> None:
    population = opposed_groups(2, ("f",), people=4)
    a, b = segments(4000, 3), segments(4000, 4)
    told = population(a, b, np.random.default_rng(0))
    counts = np.bincount(told.rater_id, minlength=8)
    assert len(counts) == 8
    assert (np.abs(counts - 500) < 5 * np.sqrt(500)).all()
    first, second = (one.probability(a, b) for one in population.raters)
    np.testing.assert_array_equal(told.label, np.where(told.rater_id < 4, first, second))
    alone = opposed_groups(2, ("f",))
    np.testing.assert_array_equal(population.probability(a, b), alone.probability(a, b))


def test_any_raters_can_belong_to_a_population(rng: np.random.Generator) -> None:
    def mine(a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        return Labels(np.ones(len(a)), np.ones(len(a), bool), np.full(len(a), 3))

    inner = several((HIGH, LOW))
    outer = several((inner, make_rater(mine), RandomRater(1)))
    a, b = segments(300, 1), segments(300, 2)
    told = outer(a, b, rng)
    assert set(told.rater_id) == {7, 9, 3, 1}
    assert (told.label[told.rater_id == 3] == 1.0).all()
    with pytest.raises(ValueError, match="does not tell its choice probabilities"):
        outer.probability(a, b)
    named = several((inner, make_rater(mine)), ids=(20, 30))
    assert set(named(a, b, rng).rater_id) == {20, 30}


def test_skipped_pairs_do_not_bend_the_mixture() -> None:
    fussy = make_rater("oracle", skip_threshold=0.5)
    population = several((fussy, LOW), (0.5, 0.5))
    a, b = segments(200, 5), segments(200, 6)
    judged = fussy(a, b, np.random.default_rng(0)).answered
    better = HIGH.probability(a, b)
    known = population.probability(a, b)
    np.testing.assert_allclose(known[~judged], 1.0 - better[~judged])  # only the other one answers
    np.testing.assert_allclose(known[judged], 0.5)
    np.testing.assert_allclose(population.answer_probability(a, b), np.where(judged, 1.0, 0.5))
    told = [population(a, b, np.random.default_rng(seed)) for seed in range(200)]
    rate = np.mean([one.answered[~judged] for one in told])
    assert abs(rate - 0.5) < 0.02
    silent = several((fussy,))
    assert (silent.probability(a, b)[~judged] == 0.5).all()


def test_members_adapt_together() -> None:
    population = several((make_rater("equal", equal=0.5), RandomRater(1)))
    assert population.adaptive
    adapted = population.adapted_to(segments(50, 0))
    one = adapted.raters[0]
    assert isinstance(one, ScriptedRater)
    assert one.equal_threshold > 0.0
    assert adapted.raters[1] is population.raters[1]
    assert not several().adaptive
    assert several().adapted_to(segments(3, 0)) == several()


def test_populations_are_values() -> None:
    for rule in RULES.values():
        one = several(rule=rule, people=2, ids=(1, 2))
        assert pickle.loads(pickle.dumps(one)) == one
    assert several() == several(weights=(0.5, 0.5))


# --- tastes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5])
def test_opposed_weights_leave_nothing_to_agree_on(count: int) -> None:
    names = ("f", "g", "h")
    table = np.array(
        [
            list(OpposedFactors(group, count, names, (1.0, 2.0, 4.0)).weights(names).values())
            for group in range(count)
        ]
    )
    np.testing.assert_allclose(table.sum(0), 0.0, atol=1e-12)
    plain = np.array(
        [list(OpposedFactors(group, count).weights(names).values()) for group in range(count)]
    )
    np.testing.assert_allclose(table, plain / [1.0, 2.0, 4.0])
    assert len(np.unique(plain.round(9), axis=0)) == count
    a, b = segments(200, 1), segments(200, 2)
    if count == 2:
        np.testing.assert_allclose(opposed_groups(2).probability(a, b), 0.5)
        assert plain[0, 0] > 0.0 > OpposedFactors(0, 2).weights("fg")["g"]


TASTES = {"calm": {"f": -1.0}, "wild": {"f": 2.0, "g": -0.5}}


def test_weighted_factors_add_up_with_their_weights() -> None:
    one = segments(20, 0)
    expected = (2.0 * one.factors["f"] - 0.5 * one.factors["g"]).sum(1)
    np.testing.assert_allclose(StepSum(WeightedFactors(TASTES["wild"]))(one), expected)


@pytest.mark.parametrize("beta", [1.0, np.inf])
def test_groups_answer_by_their_own_taste(beta: float) -> None:
    population = groups(TASTES, (0.3, 0.7), beta=beta)
    a, b = segments(300, 4), segments(300, 5)
    each = np.stack([one.probability(a, b) for one in population.raters])
    np.testing.assert_allclose(population.probability(a, b), [0.3, 0.7] @ each)
    labels = population(a, b, np.random.default_rng(6))
    assert set(labels.rater_id) == {0, 1}
    if beta == np.inf:
        np.testing.assert_array_equal(labels.label, each[labels.rater_id, np.arange(300)])
        assert (each[0] != each[1]).mean() > 0.3  # they do disagree
    with pytest.raises(ValueError, match="add up to 1"):
        groups(TASTES, (0.3, 0.3))


def test_groups_by_goal_want_to_be_near_it() -> None:
    some = segments(30, 1)
    assert some.observations is not None
    expected = -np.linalg.norm(some.observations - [3.0, 4.0], axis=-1)
    np.testing.assert_allclose(GoalDistance((3.0, 4.0))(some), expected)
    two = goal_groups(circle(2, 5.0, (1.0, 0.0)))
    goals = [one.statistic.step_scores.goal for one in two.raters]  # type: ignore[attr-defined]
    np.testing.assert_allclose(goals, [[6.0, 0.0], [-4.0, 0.0]], atol=1e-12)
    near, far = (some.replace(observations=np.full((30, 3, 2), [x, 0.0])) for x in (5.0, -3.0))
    assert [one.probability(near, far)[0] for one in two.raters] == [1.0, 0.0]
    assert [one.rater_id for one in two.raters] == [0, 1]  # type: ignore[attr-defined]


def test_experts_want_the_same_and_err_by_their_rates() -> None:
    population = make_rater("experts", mistakes=(0.0, 0.4), betas=(np.inf, 2.0), shares=(0.9, 0.1))
    assert isinstance(population, Population)
    assert population.meaning == "partial-return"
    a, b = segments(50, 1), segments(50, 2)
    best = HIGH.probability(a, b)
    worse = make_rater("noisy", beta=2.0, mistake=0.4).probability(a, b)
    np.testing.assert_allclose(population.probability(a, b), 0.9 * best + 0.1 * worse)
    told = population(
        a.take(np.zeros(5000, int)), b.take(np.zeros(5000, int)), np.random.default_rng(0)
    )
    right = told.label == best[0]
    assert right[told.rater_id == 0].all()
    assert abs(np.mean(told.rater_id) - 0.1) < 4 * np.sqrt(0.09 / 5000)


# --- ids on their way -----------------------------------------------------------------------------


def test_ids_survive_disk_exports_and_conversions(tmp_path: Path) -> None:
    """From an environment of words to Parquet, TRL and back."""
    folder = tmp_path / "answers"
    env: Any = gym.make(
        "prefgym/TextStyle-v0",
        rater="two-groups",
        rater_kwargs={"people": 3},
        prompts=1,
        query_every=4,
        directory=folder,
    )
    env.action_space.seed(0)
    env.reset(seed=0)
    told = []
    for _ in range(160):
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        told += [info["preference"]["rater_id"]] if "preference" in info else []
        if terminated or truncated:
            env.reset()
    layout = env.get_wrapper_attr("layout")
    env.close()
    assert len(told) > 20
    assert set(told) == set(range(6))

    again = PreferenceDataset(folder)
    kept = again.comparisons
    np.testing.assert_array_equal(kept.rater_id, told)
    back = from_trl(to_trl(kept, layout=layout, ties="double"), layout=layout)
    pairs = {int(query): int(who) for query, who in zip(kept.query_id, kept.rater_id, strict=True)}
    for query, who in zip(back.query_id, back.rater_id, strict=True):
        assert pairs[int(query)] == who
    converters.convert(folder, tmp_path / "rows.jsonl", "trl", None, layout)
    converters.convert(tmp_path / "rows.jsonl", tmp_path / "there", "trl", None, layout)
    there = PreferenceDataset(tmp_path / "there").comparisons
    assert {pairs[int(query)] for query in there.query_id} == set(there.rater_id)
    joined = Comparisons.concatenate([kept.take(slice(3)), kept.take(slice(3, None))])
    np.testing.assert_array_equal(joined.rater_id, told)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"raters": ()}, "0 raters and 0 weights came; give one weight for each rater"),
        ({"weights": (1.0,)}, "2 raters and 1 weights"),
        ({"weights": (0.9, 0.9)}, "no shares; give numbers of 0 or more that add up to 1"),
        ({"weights": (1.5, -0.5)}, "no shares"),
        ({"weights": (np.nan, 1.0)}, "no shares"),
        ({"rule": "sesion"}, "Unknown rule for who answers 'sesion'; did you mean 'session'"),
        ({"people": 0}, "people is 0; give a whole number of at least 1"),
        ({"ids": (1,)}, "the ids of 2 raters are 1; give every rater one of its own"),
        ({"ids": (1, 1)}, "the ids of 2 raters are 1, 1"),
        ({"raters": (HIGH, HIGH)}, r"the ids of 2 raters are 7, 7; .* ids=\(0, 1, ...\)"),
    ],
)
def test_populations_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        several(**options)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda a, b: np.full(len(a), 2), r"the rule names rater 2, and there are 2 \(0 to 1\)"),
        (lambda a, b: np.full((len(a), 2), 0.7), r"or shares that add up to 1, shape \(4, 2\)"),
        (lambda a, b: np.full(len(a), 0.5), r"the rule gave float64 of shape \(4,\) for 4 pairs"),
        (
            lambda a, b: (a.rewards[:, 0] > b.rewards[:, 0]).astype(int),
            "its mirror image; who answ",
        ),
    ],
)
def test_rules_that_tell_no_rater_are_refused(
    rule: Any, message: str, rng: np.random.Generator
) -> None:
    with pytest.raises(ValueError, match=message):
        several(rule=rule)(segments(4, 1), segments(4, 2), rng)


def test_tastes_that_cannot_be_are_refused() -> None:
    bare = segments(3, 0).replace(factors={})
    with pytest.raises(ValueError, match=r"hold none; let the environment tell info\['factors'\]"):
        make_rater("two-groups").probability(bare, bare)
    with pytest.raises(ValueError, match="no factor 'height', only f, g, h"):
        make_rater("five-groups", factors=["f", "height"]).probability(*[segments(3, 0)] * 2)
    with pytest.raises(ValueError, match="2 factors and 1 scales came"):
        make_rater("two-groups", factors=["f", "g"], scales=[1.0])
    with pytest.raises(ValueError, match=r"scales are \(0.0,\); give numbers above 0"):
        make_rater("two-groups", factors=["f"], scales=[0.0])
    with pytest.raises(ValueError, match="two or more"):
        opposed_groups(1)
    with pytest.raises(ValueError, match=r"the goal \(1.0,\) has 1 numbers, and 2 columns"):
        make_rater("two-groups", goals=[[1.0], [2.0]])
    with pytest.raises(ValueError, match="no column 5 of observations"):
        make_rater("two-groups", by="goals", columns=[0, 5]).probability(*[segments(3, 0)] * 2)
    with pytest.raises(ValueError, match=r"'goal'; did you mean 'goals'"):
        make_rater("two-groups", by="goal")
    with pytest.raises(ValueError, match="2 mistakes and 1 betas came; give one of both"):
        make_rater("experts", mistakes=[0.0, 0.1], betas=[1.0])
    with pytest.raises(ValueError, match="no option 'rater_id'"):
        make_rater("two-groups", rater_id=3)
    with pytest.raises(ValueError, match="5 raters and 2 weights"):
        make_rater("five-groups", shares=[0.5, 0.5])
