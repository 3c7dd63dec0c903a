"""Raters that go round in a circle, and those that look at a pair as a whole."""

from math import inf, pi
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefgym.raters import make_rater
from prefgym.raters.features import Columns, FactorSums, Sectors, Walk, as_plane
from prefgym.raters.intransitive import Cyclic, DistanceAndSector, ranking, rock_paper_scissors
from prefgym.raters.pairs import PairRater, PreferenceMatrix, matrix_rater
from prefgym.segments import Segments

LAST = Columns((0, 1))
ANGLES = st.floats(-10.0, 10.0)


def at(points: Any, lengths: Any = None) -> Segments:
    """Segments of two steps that end at these points, or after one step, at (9, 9)."""
    ends = np.asarray(points, float)
    observations = np.stack([np.full_like(ends, 9.0), ends], 1)
    real = np.full(len(ends), 2) if lengths is None else np.asarray(lengths)
    mask = np.arange(2) < real[:, None]
    return Segments(
        actions=np.zeros((len(ends), 2), np.int64),
        mask=mask,
        context=observations[:, 0],
        context_id=np.zeros(len(ends), np.int64),
        observations=observations * mask[:, :, None],
        factors={"f": ends[:, :1] * [[0.25, 0.75]], "g": ends[:, 1:] * [[2.0, -1.0]]},
    )


def towards(*angles: float, far: Any = 1.0) -> Segments:
    turn = np.asarray(angles)
    return at(np.stack([np.cos(turn), np.sin(turn)], -1) * np.reshape(far, (-1, 1)))


def pairwise(rule: Any, segments: Segments) -> np.ndarray:
    count = len(segments)
    i, j = np.divmod(np.arange(count * count), count)
    table: np.ndarray = rule(segments.take(i), segments.take(j)).reshape(count, count)
    return table


# --- by a heading -------------------------------------------------------------------------------


@given(ANGLES, ANGLES, st.sampled_from([0.0, 0.3, 4.0]), st.floats(0.01, 100.0))
def test_a_headings_preference_has_its_closed_form(
    one: float, other: float, beta: float, far: float
) -> None:
    chance = Cyclic(LAST, beta)(towards(one, far=far), towards(other))
    assert np.isclose(chance[0], 1 / (1 + np.exp(-beta * np.sin(one - other))), rtol=0, atol=1e-9)


def test_three_headings_beat_each_other_in_a_circle() -> None:
    three = towards(0.0, 2 * pi / 3, 4 * pi / 3)
    hard = pairwise(Cyclic(LAST), three)
    assert hard.tolist() == [[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]
    soft = pairwise(Cyclic(LAST, beta=2.0), three)
    assert (soft[hard == 1.0] > 0.8).all()


def test_equal_opposite_and_missing_headings_tie(rng: np.random.Generator) -> None:
    a, b = at([[1, 2], [1, 2], [0, 0], [0, 0]]), at([[2, 4], [-3, -6], [1, 1], [0, 0]])
    rater = PairRater(Cyclic(LAST), "cyclic")
    assert rater.probability(a, b).tolist() == [0.5] * 4
    assert rater(a, b, rng).label.tolist() == [0.5] * 4  # ties, not coins
    assert PairRater(Cyclic(LAST), "cyclic", soft=True)(a, b, rng).label.tolist() == [0.5] * 4


def test_turning_all_headings_changes_nothing(rng: np.random.Generator) -> None:
    angles, other = rng.uniform(-pi, pi, (2, 40))
    for rule in (Cyclic(LAST, 1.3), DistanceAndSector(LAST)):
        still = rule(towards(*angles, far=np.full(40, 2.0)), towards(*other))
        turned = rule(towards(*angles + 1.0, far=np.full(40, 2.0)), towards(*other + 1.0))
        np.testing.assert_allclose(still, turned, atol=1e-9)


# --- distance and sector ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        # (angle, distance) of both: farther; ahead; behind; too far ahead; both
        ((0.0, 2.0), (pi, 1.0), 0.5 + 0.15),
        ((0.1, 1.0), (0.0, 1.0), 0.5 + 0.35),
        ((0.0, 1.0), (0.1, 1.0), 0.5 - 0.35),
        ((pi / 4, 1.0), (0.0, 1.0), 0.5 + 0.35),
        ((pi / 4 + 0.01, 1.0), (0.0, 1.0), 0.5),
        ((0.1, 2.0), (0.0, 1.0), 1.0),
        ((0.1, 1.0), (0.0, 2.0), 0.7),
        # both beyond the radius: how far no longer matters; the sector reaches over the seam
        ((0.1, 12.0), (0.0, 19.0), 0.85),
        ((0.1, 9.0), (0.0, 19.0), 0.7),
        ((-pi + 0.1, 1.0), (pi - 0.1, 1.0), 0.85),
        ((0.0, 1.0), (0.0, 1.0), 0.5),
        ((0.0, 0.0), (0.0, 1.0), 0.5 - 0.15),
    ],
)
def test_distance_and_sector_by_hand(
    a: tuple[float, float], b: tuple[float, float], wanted: float
) -> None:
    one, other = (towards(angle, far=far) for angle, far in (a, b))
    rule = DistanceAndSector(LAST)
    assert rule(one, other)[0] == pytest.approx(wanted, abs=1e-12)
    assert rule(other, one)[0] == pytest.approx(1.0 - wanted, abs=1e-12)


def test_distance_and_sector_goes_round_in_three() -> None:
    """Each is a little ahead of the next one, and the last got farthest."""
    three = towards(0.0, 0.6, 1.2, far=[3.0, 2.0, 1.0])
    beats = pairwise(DistanceAndSector(LAST), three) > 0.5
    assert beats[1, 0]
    assert beats[2, 1]
    assert beats[0, 2]


@given(st.lists(st.tuples(ANGLES, st.floats(0.0, 20.0)), min_size=2, max_size=8))
def test_rules_are_mirrored(points: list[tuple[float, float]]) -> None:
    angles, far = np.array(points).T
    some = towards(*angles, far=far)
    for rule in (Cyclic(LAST), Cyclic(LAST, 0.7), DistanceAndSector(LAST, 5.0, 1.0, 0.4)):
        table = pairwise(rule, some)
        assert np.allclose(table + table.T, 1.0, rtol=0, atol=1e-12)
        assert ((table >= 0) & (table <= 1)).all()


# --- rock, paper, scissors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights", [(1 / 3, 1 / 3, 1 / 3), (0.45, 0.35, 0.2), (0.1, 0.2, 0.3, 0.4)]
)
def test_majorities_have_their_closed_form_and_cycle(weights: tuple[float, ...]) -> None:
    kinds = len(weights)
    population = rock_paper_scissors(Sectors(LAST, kinds), weights)
    some = towards(*(2 * pi * (kind + 0.5) / kinds for kind in range(kinds)))
    table = pairwise(population.probability, some)
    matrices = [np.array(ranking(group, kinds)) for group in range(kinds)]
    np.testing.assert_allclose(table, np.einsum("g,gij->ij", weights, matrices), atol=1e-12)
    for kind in range(kinds):  # all but one group hold kind above the next one
        follower = (kind + 1) % kinds
        assert table[kind, follower] == pytest.approx(1.0 - weights[follower])
        assert table[kind, follower] > 0.5


@pytest.mark.parametrize("weights", [(0.6, 0.2, 0.2), (0.5, 0.3, 0.2), (0.5, 0.5), (0.1, 0.9)])
def test_majorities_that_do_not_cycle_say_so(weights: tuple[float, ...]) -> None:
    kinds = len(weights)
    with pytest.warns(UserWarning, match="does not go round in a circle; give three"):
        population = rock_paper_scissors(Sectors(LAST, kinds), weights)
    some = towards(*(2 * pi * (kind + 0.5) / kinds for kind in range(kinds)))
    beats = pairwise(population.probability, some) > 0.5
    assert np.trace(np.linalg.matrix_power(beats.astype(int), 3)) == 0


def test_every_group_by_itself_is_transitive(rng: np.random.Generator) -> None:
    some = towards(*rng.uniform(-pi, pi, 12))
    population = rock_paper_scissors(Sectors(LAST), (0.2, 0.35, 0.45))
    for one in population.raters:
        beats = pairwise(one.probability, some) > 0.5
        assert np.trace(np.linalg.matrix_power(beats.astype(int), 3)) == 0
    assert [one.rater_id for one in population.raters] == [0, 1, 2]  # type: ignore[attr-defined]


def test_kinds_are_thirds_of_the_circle() -> None:
    some = towards(0.0, 2 * pi / 3, 4 * pi / 3, -1e-12, 2.0, -0.1, -pi)
    assert Sectors(LAST)(some).tolist() == [0, 1, 2, 0, 0, 2, 1]
    assert Sectors(LAST)(at([[0.0, 0.0]])).tolist() == [0]
    three = some.replace(actions=np.arange(7)[:, None] * [[1, 5]] % 3)
    assert Sectors(Walk(3, 1))(three).tolist() == [0, 1, 2, 0, 1, 2, 0]


# --- matrices -----------------------------------------------------------------------------------


def first_action(segments: Segments) -> np.ndarray:
    kinds: np.ndarray = segments.actions[:, 0]
    return kinds


def test_a_matrix_is_the_preference_between_kinds() -> None:
    matrix = [[0.5, 0.8, 0.1], [0.2, 0.5, 1.0], [0.9, 0.0, 0.5]]
    three = at(np.zeros((3, 2))).replace(actions=np.array([[0, 0], [1, 0], [2, 0]]))
    np.testing.assert_allclose(
        pairwise(matrix_rater(matrix, first_action).probability, three), matrix
    )
    wrong = matrix_rater(np.array(matrix), first_action, mistake=0.25)
    np.testing.assert_allclose(pairwise(wrong.probability, three), 0.25 + 0.5 * np.array(matrix))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (
            [[0.5, 0.8], [0.3, 0.5]],
            r"P\(0 ≻ 1\) = 0.8 and P\(1 ≻ 0\) = 0.3; give prob.*add up to 1",
        ),
        ([[0.6, 0.8], [0.2, 0.5]], r"P\(0 ≻ 0\) = 0.6 and P\(0 ≻ 0\) = 0.6"),
        ([[0.5, 1.5], [-0.5, 0.5]], "give probabilities from 0 to 1"),
        ([[0.5, np.nan], [0.5, 0.5]], "P.* = nan"),
        ([[0.5, 0.5]], r"got \(1, 2\); give one row and one column per kind"),
        ([], "one row and one column per kind"),
    ],
)
def test_matrices_that_are_no_preference_are_refused(matrix: Any, message: str) -> None:
    for make in (
        lambda: matrix_rater(matrix, first_action),
        lambda: make_rater("matrix", matrix=matrix),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_kinds_outside_the_matrix_are_refused() -> None:
    rule = PreferenceMatrix(((0.5, 1.0), (0.0, 0.5)), first_action)
    some = at(np.zeros((2, 2))).replace(actions=np.array([[0, 0], [2, 0]]))
    with pytest.raises(ValueError, match=r"is of kind 2, and the matrix has 2 \(0 to 1\)"):
        rule(some, some)
    with pytest.raises(ValueError, match=r"the kinds came as float64 of shape \(2, 2\)"):
        PreferenceMatrix(rule.matrix, lambda one: one.observations[:, 0])(some, some)


# --- numbers of a segment -----------------------------------------------------------------------


def test_columns_by_hand() -> None:
    some = at([[1.0, 2.0], [5.0, 5.0], [3.0, 3.0]], lengths=[2, 1, 0])
    wanted = {
        "last": [[1, 2], [9, 9], [0, 0]],
        "mean": [[5, 5.5], [9, 9], [0, 0]],
        "sum": [[10, 11], [9, 9], [0, 0]],
        "change": [[-8, -7], [0, 0], [0, 0]],
    }
    for over, expected in wanted.items():
        assert Columns((0, 1), over)(some).tolist() == expected
    assert Columns((1,), "sum", 0.5)(some).tolist() == [[5.5], [4.5], [0.0]]
    assert FactorSums(("f", "g"))(some.replace(mask=np.ones((3, 2), bool))).tolist() == [
        [1, 2], [5, 5], [3, 3],
    ]  # fmt: skip


def test_a_walk_takes_a_step_for_every_action() -> None:
    some = at(np.zeros((3, 2)), [2, 2, 1]).replace(actions=np.array([[0, 1], [0, 2], [3, 0]]))
    np.testing.assert_allclose(Walk(4)(some), [[1, 1], [0, 0], [0, -1]], atol=1e-12)
    np.testing.assert_allclose(Walk(4, 1)(some), [[1, 0], [1, 0], [0, -1]], atol=1e-12)


def test_padding_is_never_read(rng: np.random.Generator) -> None:
    clean = at(rng.normal(size=(5, 2)), [1, 1, 2, 1, 2])
    dirty = clean.replace(
        observations=np.where(clean.mask[:, :, None], clean.observations, np.nan),
        factors={name: np.where(clean.mask, one, np.inf) for name, one in clean.factors.items()},
        actions=np.where(clean.mask, clean.actions, 77),
    )
    planes = [Columns((0, 1), over) for over in ("last", "mean", "sum", "change")]
    for plane in (*planes, FactorSums(("f", "g")), Walk(5)):
        np.testing.assert_array_equal(plane(dirty), plane(clean.replace(factors=dirty.factors)))
        assert np.isfinite(plane(dirty)).all()


@pytest.mark.parametrize(
    ("plane", "message"),
    [
        ([0, 7], r"no column 7 of observations, which have 2 numbers here \(columns 0 to 1\)"),
        ([-1, 0], "no column -1"),
        (["f", "height"], "no factor 'height', only f, g"),
        (lambda one: one.observations, r"the plane gave shape \(2, 2, 2\) for 2 segments"),
        (lambda one: np.full((2, 2), np.nan), "number of segment 0 in the plane is NaN or infin"),
    ],
)
def test_planes_that_are_not_there_are_refused(plane: Any, message: str) -> None:
    some = towards(0.0, 1.0)
    for name in ("cyclic", "distance-and-sector", "rock-paper-scissors"):
        with pytest.raises(ValueError, match=message):
            make_rater(name, plane=plane).probability(some, some)


def test_settings_that_cannot_be_are_refused() -> None:
    some = towards(0.0).replace(observations=None)
    with pytest.raises(ValueError, match=r"hold no observations \(text\?\)"):
        make_rater("cyclic").probability(some, some)
    for what in ("progress", [0], [0, 1, 2], ["f", 0], 3):
        with pytest.raises(ValueError, match="is no pair of numbers of a segment"):
            as_plane(what)
    with pytest.raises(ValueError, match="did you mean 'mean'"):
        make_rater("cyclic", over="meen")
    with pytest.raises(ValueError, match="beta is -1"):
        make_rater("cyclic", beta=-1.0)
    with pytest.raises(ValueError, match="give an angle above 0 and below π"):
        make_rater("distance-and-sector", width=4.0)
    with pytest.raises(ValueError, match="mistake is 2"):
        make_rater("cyclic", mistake=2.0)
    with pytest.raises(ValueError, match="no option 'gamma'; it takes beta, mistake, over"):
        make_rater("cyclic", gamma=0.9)
    continuous = some.replace(actions=np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match=r"a walk needs one whole number per action"):
        Walk(3)(continuous)
    assert make_rater("cyclic", beta=inf) == make_rater("cyclic")
