"""Comparisons and the data set of them: laws, and what must never be mixed or asked twice."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefgym.comparisons import UNNUMBERED, Comparisons, PreferenceDataset
from prefgym.segments import Segments


def segments(rng: np.random.Generator, batch: int, steps: int = 4, **changes: Any) -> Segments:
    """Some segments of control, the last half of them one step shorter."""
    mask = np.ones((batch, steps), bool)
    mask[batch // 2 :, -1] = steps == 1
    observations = rng.normal(size=(batch, steps, 3)).astype(np.float32) * mask[..., None]
    arrays = {
        "actions": rng.normal(size=(batch, steps, 2)).astype(np.float32) * mask[..., None],
        "mask": mask,
        "context": observations[:, 0],
        "context_id": np.arange(batch),
        "observations": observations,
        "rewards": rng.normal(size=(batch, steps)) * mask,
        "factors": {"speed.x": rng.normal(size=(batch, steps)) * mask},
        "episode": rng.integers(0, 9, batch),
        "start": rng.integers(0, 9, batch),
    }
    return Segments(**(arrays | changes))


def texts(rng: np.random.Generator, batch: int, prompt: int, steps: int) -> Segments:
    return Segments(
        actions=rng.integers(1, 9, (batch, steps)),
        mask=np.ones((batch, steps), bool),
        context=rng.integers(1, 9, (batch, prompt)),
        context_id=np.arange(batch),
    )


def comparisons(
    rng: np.random.Generator, batch: int, steps: int = 4, first: int = 0, **changes: Any
) -> Comparisons:
    """Some comparisons with the query ids ``first``, ``first + 1``, ..."""
    columns: dict[str, Any] = {
        "label": rng.choice([0.0, 0.3, 0.5, 1.0], batch),
        "rater_id": rng.integers(0, 3, batch),
        "weight": rng.random(batch),
        "strength": np.where(rng.random(batch) < 0.5, np.nan, rng.random(batch)),
        "query_id": np.arange(first, first + batch),
        "meaning": "regret",
    }
    return Comparisons(
        segments(rng, batch, steps), segments(rng, batch, steps), **(columns | changes)
    )


def assert_same(one: Comparisons, other: Comparisons) -> None:
    """Equal, but for padding of different width."""
    assert one.meaning == other.meaning
    for name in ("label", "rater_id", "weight", "strength", "query_id"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for left, right in ((one.a, other.a), (one.b, other.b)):
        steps = max(left.steps, right.steps)
        first, second = left.padded(steps).arrays(), right.padded(steps).arrays()
        assert first.keys() == second.keys()
        for name, array in first.items():
            np.testing.assert_array_equal(array, second[name])
            assert array.dtype == second[name].dtype


def test_columns_have_defaults_and_one_value_for_each_pair(rng: np.random.Generator) -> None:
    one = Comparisons(segments(rng, 3), segments(rng, 3), label=np.array([0.0, 0.5, 1.0]))
    assert one.rater_id.tolist() == [0, 0, 0]
    assert one.weight.tolist() == [1.0, 1.0, 1.0]
    assert np.isnan(one.strength).all()
    assert one.query_id.tolist() == [UNNUMBERED] * 3
    assert len(one) == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"label": np.array([0.0, 1.5])}, r"label is 1\.5 in row 1, wanted a number in \[0, 1\]"),
        ({"label": np.array([np.nan, 1.0])}, "label is nan in row 0"),
        ({"label": np.array(["a", "b"])}, "label came as"),
        ({"label": np.zeros(3)}, r"label has shape \(3,\), wanted \(2,\)"),
        ({"weight": np.array([1.0, -1.0])}, "weight is -1.0 in row 1"),
        ({"weight": np.array([1.0, np.inf])}, "weight is inf in row 1"),
        ({"rater_id": np.array([0.5, 1.0])}, "rater_id came as float64, wanted integers"),
    ],
)
def test_what_is_no_comparison_is_refused(
    rng: np.random.Generator, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        comparisons(rng, 2, **changes)


def test_as_many_second_segments_as_first_ones(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="2 first segments but 3 second ones"):
        Comparisons(segments(rng, 2), segments(rng, 3), np.zeros(2))


@given(seed=st.integers(0, 99), batch=st.integers(1, 6))
def test_swapping_twice_changes_nothing_and_once_mirrors_the_label(seed: int, batch: int) -> None:
    one = comparisons(np.random.default_rng(seed), batch)
    other = one.swapped()
    np.testing.assert_allclose(one.label + other.label, 1.0, atol=1e-15)
    assert other.a is one.b
    twice = other.swapped()
    np.testing.assert_allclose(twice.label, one.label, atol=1e-15)
    assert_same(twice.replace(label=one.label), one)


@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_parts_of_a_concatenation_are_what_was_joined(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    parts = [comparisons(rng, size, steps=2 + at) for at, size in enumerate(sizes)]
    whole = Comparisons.concatenate(parts)
    ends = np.cumsum(sizes)
    for part, end in zip(parts, ends, strict=True):
        assert_same(whole.take(slice(end - len(part), end)), part)


def test_prompts_of_different_lengths_are_joined_with_zeros_behind(
    rng: np.random.Generator,
) -> None:
    short, long = (
        Comparisons(texts(rng, 2, prompt, 3), texts(rng, 2, prompt, 3), np.ones(2))
        for prompt in (2, 5)
    )
    whole = Comparisons.concatenate([short, long])
    assert whole.a.context.shape == (4, 5)
    np.testing.assert_array_equal(whole.a.context[:2, :2], short.a.context)
    assert not whole.a.context[:2, 2:].any()


def test_nothing_and_different_meanings_cannot_be_joined(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="got no batches"):
        Comparisons.concatenate([])
    with pytest.raises(ValueError, match="'human' and labels that mean 'regret' cannot be mixed"):
        Comparisons.concatenate([comparisons(rng, 1), comparisons(rng, 1, meaning="human")])


# The data set, in memory and on disk alike.


@pytest.fixture(params=["memory", "disk"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Return where the data set lives."""
    return tmp_path / "preferences" if request.param == "disk" else None


def test_what_was_appended_is_there_in_its_order(
    rng: np.random.Generator, place: Path | None
) -> None:
    dataset = PreferenceDataset(place)
    parts = [comparisons(rng, 3, steps=2, first=0), comparisons(rng, 2, steps=5, first=3)]
    dataset.append(parts[0], skipped=2)
    dataset.append(parts[1].take(slice(0)), skipped=np.array([17, 18]))
    dataset.append(parts[1])
    assert (len(dataset), dataset.skipped, dataset.asked) == (5, 4, 9)
    assert dataset.meaning == "regret"
    assert dataset.next_query_id == 19
    assert_same(dataset.comparisons, Comparisons.concatenate(parts))
    assert dataset.comparisons is dataset.comparisons  # kept


def test_an_empty_data_set_says_so(place: Path | None) -> None:
    dataset = PreferenceDataset(place, meaning="human")
    assert (len(dataset), dataset.asked, dataset.next_query_id) == (0, 0, 0)
    assert dataset.meaning == "human"
    with pytest.raises(ValueError, match="there are no comparisons yet"):
        _ = dataset.comparisons


def test_appending_again_changes_nothing(rng: np.random.Generator, place: Path | None) -> None:
    dataset = PreferenceDataset(place)
    batch = comparisons(rng, 4)
    dataset.append(batch, skipped=np.array([7]))
    dataset.append(batch.take(slice(2)), skipped=np.array([7, 8]))
    dataset.append(batch)
    assert (len(dataset), dataset.skipped) == (4, 2)
    assert_same(dataset.comparisons, batch)


def test_several_raters_may_answer_one_query(rng: np.random.Generator, place: Path | None) -> None:
    dataset = PreferenceDataset(place)
    batch = comparisons(rng, 2, rater_id=np.array([0, 1]), query_id=np.array([5, 5]))
    dataset.append(batch)
    dataset.append(batch.replace(rater_id=np.array([2, 3])))
    assert len(dataset) == 4


def test_another_pair_under_an_old_query_id_is_kept_too(
    rng: np.random.Generator, place: Path | None
) -> None:
    dataset = PreferenceDataset(place)
    dataset.append(comparisons(rng, 2))
    dataset.append(comparisons(rng, 2))
    assert len(dataset) == 4


def test_one_judgement_twice_in_a_batch_is_refused(
    rng: np.random.Generator, place: Path | None
) -> None:
    one = comparisons(rng, 1)
    with pytest.raises(ValueError, match="same query id, rater and pair"):
        PreferenceDataset(place).append(Comparisons.concatenate([one, one]))


def test_unnumbered_comparisons_get_the_next_ids(
    rng: np.random.Generator, place: Path | None
) -> None:
    dataset = PreferenceDataset(place)
    dataset.append(comparisons(rng, 2, query_id=np.array([UNNUMBERED, 4])))
    dataset.append(comparisons(rng, 2, query_id=np.array([UNNUMBERED])), skipped=np.array([9]))
    assert dataset.comparisons.query_id.tolist() == [5, 4, 6, 7]
    assert dataset.next_query_id == 10


def test_meanings_are_not_mixed(rng: np.random.Generator, place: Path | None) -> None:
    dataset = PreferenceDataset(place)
    dataset.append(comparisons(rng, 2))
    with pytest.raises(ValueError, match="'regret' and labels that mean 'human'"):
        dataset.append(comparisons(rng, 2, first=2, meaning="human"))
    with pytest.raises(ValueError, match="cannot be mixed"):
        dataset.append(comparisons(rng, 2, first=2, meaning="unknown"))
    with pytest.raises(ValueError, match="cannot be mixed"):
        PreferenceDataset(meaning="human").append(comparisons(rng, 2))
    assert len(dataset) == 2


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"observations": np.zeros((2, 4, 5), np.float32)}, "a_observations"),
        ({"actions": np.zeros((2, 4), np.int64)}, "a_actions"),
        ({"rewards": None}, r"a_rewards \(missing\)"),
        ({"advantages": np.zeros((2, 4))}, r"a_advantages \(new\)"),
        ({"factors": {"other": np.zeros((2, 4))}}, "a_factors/other"),
    ],
)
def test_segments_of_another_environment_are_refused(
    rng: np.random.Generator, place: Path | None, changes: dict[str, Any], column: str
) -> None:
    dataset = PreferenceDataset(place)
    dataset.append(comparisons(rng, 2))
    other = comparisons(rng, 2, first=2)
    with pytest.raises(ValueError, match=column):
        dataset.append(other.replace(a=other.a.replace(**changes)))
    assert len(dataset) == 2


def test_negative_skips_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="skipped is -1"):
        PreferenceDataset().append(comparisons(rng, 1), skipped=-1)


def test_answers_are_found_by_query_and_by_pair(
    rng: np.random.Generator, place: Path | None
) -> None:
    dataset = PreferenceDataset(place)
    batch = comparisons(rng, 3, first=10)
    dataset.append(batch, skipped=np.array([20]))
    found, labels = dataset.answered(np.array([12, 20, 10, 99]))
    assert found.tolist() == [True, True, True, False]
    assert labels.answered.tolist() == [True, False, True, False]
    assert labels.label[[0, 2]].tolist() == batch.label[[2, 0]].tolist()
    assert labels.rater_id[[0, 2]].tolist() == batch.rater_id[[2, 0]].tolist()
    same = dataset.answered(batch.query_id, (batch.a.padded(9), batch.b))
    assert same.found.all()
    np.testing.assert_array_equal(same.labels.label, batch.label)
    assert not dataset.answered(batch.query_id, (batch.b, batch.a)).found.any()


def test_going_back_and_asking_again_gives_the_same_data_set(
    rng: np.random.Generator, place: Path | None
) -> None:
    parts = [comparisons(rng, 3, first=3 * at) for at in range(3)]
    dataset = PreferenceDataset(place)
    for part in parts:
        dataset.append(part, skipped=1)
    assert dataset.truncated_to(4, 1) is dataset
    assert (len(dataset), dataset.skipped) == (4, 1)
    assert_same(dataset.comparisons, Comparisons.concatenate(parts).take(slice(4)))
    for part in parts[1:]:
        dataset.append(part, skipped=1)
    assert (len(dataset), dataset.skipped) == (9, 3)
    assert_same(dataset.comparisons, Comparisons.concatenate(parts))
    if place is not None:
        reopened = PreferenceDataset.open(place)
        assert (len(reopened), reopened.skipped) == (9, 3)
        assert_same(reopened.comparisons, dataset.comparisons)
    with pytest.raises(ValueError, match="cannot go back to 10 comparisons and 0 skips"):
        dataset.truncated_to(10, 0)


def test_a_recorded_answer_outlives_a_different_second_one(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    dataset = PreferenceDataset(tmp_path)
    batch = comparisons(rng, 2, label=np.array([1.0, 0.0]))
    dataset.append(batch)
    dataset.truncated_to(0, 0)
    assert dataset.answered(batch.query_id).found.all()
    dataset.append(batch.replace(label=np.array([0.2, 0.2])))
    assert dataset.comparisons.label.tolist() == [1.0, 0.0]


def test_arrays_are_the_data_sets_own(rng: np.random.Generator, place: Path | None) -> None:
    dataset = PreferenceDataset(place)
    batch = comparisons(rng, 3)
    before = batch.a.observations.copy()
    dataset.append(batch)
    batch.a.observations[:] = 7.0
    np.testing.assert_array_equal(dataset.comparisons.a.observations, before)


def test_torch_segments_are_stored_as_numpy(rng: np.random.Generator, place: Path | None) -> None:
    batch = comparisons(rng, 3)
    dataset = PreferenceDataset(place)
    dataset.append(batch.replace(a=batch.a.to("cpu"), b=batch.b.to("cpu")))
    assert_same(dataset.comparisons, batch)


def test_copies_hold_the_same(rng: np.random.Generator, place: Path | None) -> None:
    dataset = PreferenceDataset(place)
    dataset.append(comparisons(rng, 3), skipped=1)
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert other.skipped == 1
        assert_same(other.comparisons, dataset.comparisons)


@given(
    seed=st.integers(0, 99),
    order=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=8),
)
def test_any_order_of_repeats_holds_each_judgement_once(
    seed: int, order: list[tuple[int, int]]
) -> None:
    pool = comparisons(np.random.default_rng(seed), 8)
    dataset = PreferenceDataset()
    seen: list[int] = []
    for first, size in order:
        rows = [row for row in range(first, first + size)]
        dataset.append(pool.take(np.array(rows, int)))
        seen += [row for row in rows if row not in seen]
    assert len(dataset) == len(seen)
    if seen:
        assert_same(dataset.comparisons, pool.take(np.array(seen)))
