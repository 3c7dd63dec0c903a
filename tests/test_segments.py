"""Segments: cutting, joining, padding and moving change no value; what does not fit is refused."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefgym.segments import Segments

SHAPES = ((), (3,), (2, 2))


def made(
    rng: np.random.Generator, batch: int, steps: int, obs: tuple[int, ...], act: tuple[int, ...]
) -> Segments:
    """Segments of random lengths, all arrays present, padding zero."""
    mask = np.arange(steps) < rng.integers(0, steps + 1, batch)[:, None]

    def column(shape: tuple[int, ...], kind: Any) -> np.ndarray:
        values = rng.integers(1, 100, (batch, steps, *shape)).astype(kind)
        values[~mask] = 0
        return values

    return Segments(
        actions=column(act, np.float32 if act else np.int64),
        mask=mask,
        context=rng.random((batch, *obs)),
        context_id=rng.integers(0, 9, batch),
        observations=column(obs, np.uint8),
        rewards=column((), np.float64),
        advantages=column((), np.float32),
        factors={"speed": column((), np.float64), "a/b": column((), np.float64)},
        episode=rng.integers(0, 9, batch),
        start=rng.integers(0, 9, batch),
    )


class Recipe(NamedTuple):
    """What hypothesis draws; the segments are made in the test, under beartype."""

    seed: int
    batch: int
    steps: int
    obs: tuple[int, ...]
    act: tuple[int, ...]

    def made(self) -> Segments:
        return made(np.random.default_rng(self.seed), *self[1:])


shapes = st.sampled_from(SHAPES)
recipes = st.builds(
    Recipe, st.integers(0, 10_000), st.integers(0, 5), st.integers(1, 6), shapes, shapes
)


def plain(**changes: Any) -> Segments:
    """Two segments of three steps with nothing but what is required."""
    arrays: dict[str, Any] = {
        "actions": np.zeros((2, 3, 1)),
        "mask": np.ones((2, 3), bool),
        "context": np.zeros((2, 4)),
        "context_id": np.zeros(2, np.int64),
    }
    return Segments(**(arrays | changes))


def assert_same(one: Segments, other: Segments) -> None:
    first, second = one.arrays(), other.arrays()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert type(value) is type(second[name])
        assert value.dtype == second[name].dtype, name
        np.testing.assert_array_equal(value, second[name], name)


@given(recipes, st.data())
def test_parts_taken_and_joined_again_are_the_whole(recipe: Recipe, data: st.DataObject) -> None:
    whole = recipe.made()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    edges = [0, *cuts, len(whole)]
    parts = [whole.take(slice(a, b)) for a, b in pairwise(edges)]
    assert [len(part) for part in parts] == np.diff(edges).tolist()
    assert_same(Segments.concatenate(parts), whole)
    assert_same(whole.take(np.arange(len(whole))), whole)
    assert_same(whole.take(np.ones(len(whole), bool)), whole)


@given(recipes, st.integers(0, 5))
def test_padding_adds_masked_zeros_and_nothing_else(recipe: Recipe, extra: int) -> None:
    short = recipe.made()
    long = short.padded(short.steps + extra)
    assert long.steps == short.steps + extra
    np.testing.assert_array_equal(long.lengths, short.lengths)
    for name, value in long.arrays().items():
        known = short.arrays()[name]
        if value.ndim > 1 and name != "context":
            assert not np.any(value[:, short.steps :]), name
            value = value[:, : short.steps]
        np.testing.assert_array_equal(value, known, name)
        assert value.dtype == known.dtype


@given(recipes, st.integers(0, 7))
def test_beginnings_are_the_first_steps_and_rows_can_be_trimmed(recipe: Recipe, most: int) -> None:
    whole = recipe.made()
    limit = (np.arange(len(whole)) + most) % (whole.steps + 2)
    cut = whole.first(limit)
    np.testing.assert_array_equal(cut.lengths, np.minimum(whole.lengths, limit))
    for name, value in cut.arrays().items():
        known = whole.arrays()[name]
        if value.ndim > 1 and name != "context":
            real = cut.mask.reshape(*cut.mask.shape, *[1] * (value.ndim - 2))
            known = np.where(real, known, np.zeros((), known.dtype))
        np.testing.assert_array_equal(value, known, name)
        assert value.dtype == known.dtype
    short = cut.trimmed()
    assert short.steps == max(cut.lengths, default=0)
    if short.steps:
        assert_same(short.padded(cut.steps), cut)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=4))
def test_joining_pads_to_the_longest_and_keeps_the_order(sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(1)
    parts = [made(rng, batch, steps, (3,), ()) for batch, steps in sizes]
    whole = Segments.concatenate(parts)
    assert whole.steps == max(part.steps for part in parts)
    begin = 0
    for part in parts:
        assert_same(whole.take(slice(begin, begin + len(part))), part.padded(whole.steps))
        begin += len(part)
    assert begin == len(whole)


@given(recipes)
def test_torch_and_back_changes_nothing(recipe: Recipe) -> None:
    known = recipe.made()
    there = known.to("cpu")
    assert all(isinstance(value, torch.Tensor) for value in there.arrays().values())
    assert_same(there.numpy(), known)
    assert_same(known.numpy(), known)


@given(recipes, st.integers(0, 3))
def test_torch_and_numpy_do_the_same(recipe: Recipe, extra: int) -> None:
    known = recipe.made()
    there, steps = known.to("cpu"), known.steps + extra
    assert len(there) == len(known)
    np.testing.assert_array_equal(there.lengths.numpy(), known.lengths)
    assert_same(there.padded(steps).numpy(), known.padded(steps))
    both = Segments.concatenate([there, there.padded(steps)]).numpy()
    assert_same(both, Segments.concatenate([known, known.padded(steps)]))
    assert_same(there.take(slice(1, None)).numpy(), known.take(slice(1, None)))


def test_views_that_torch_cannot_share_are_copied(rng: np.random.Generator) -> None:
    known = made(rng, 3, 4, (2,), ())
    backwards = known.take(slice(None, None, -1))
    assert_same(backwards.to("cpu").numpy(), known.take(np.array([2, 1, 0])))
    locked = known.replace(rewards=np.broadcast_to(np.float64(2.0), (3, 4)))
    assert locked.to("cpu").rewards.tolist() == [[2.0] * 4] * 3


@given(recipes)
def test_arrays_are_all_there_is(recipe: Recipe) -> None:
    known = recipe.made()
    assert_same(Segments.from_arrays(known.arrays()), known)


def test_a_copy_with_changes_leaves_the_original(rng: np.random.Generator) -> None:
    known = made(rng, 2, 3, (), ())
    changed = known.replace(rewards=None)
    assert changed.rewards is None
    assert known.rewards is not None
    assert_same(changed.replace(rewards=known.rewards), known)


def test_its_picture_shows_shapes_and_not_values() -> None:
    assert repr(plain()) == (
        "Segments(actions=float64[2, 3, 1], mask=bool[2, 3], context=float64[2, 4],"
        " context_id=int64[2])"
    )
    assert "mask=bool[2, 3]" in repr(plain().to("cpu"))


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({"mask": np.ones(3, bool)}, [r"\(3,\)", r"\[batch, steps\]"]),
        ({"actions": np.zeros((2, 4, 1))}, [r"actions", r"\(2, 4, 1\)", r"\(2, 3\)"]),
        ({"rewards": np.zeros((3, 3))}, [r"rewards", r"\(3, 3\)", r"\(2, 3\)"]),
        ({"rewards": np.zeros(2)}, [r"rewards", r"\(2,\)", r"\(2, 3\)"]),
        ({"context_id": np.zeros(3)}, [r"context_id", r"\(3,\)", r"\(2,\)"]),
        ({"factors": {"speed": np.zeros((2, 5))}}, [r"speed", r"\(2, 5\)", r"\(2, 3\)"]),
        ({"mask": np.ones((2, 3))}, [r"float64", r"booleans"]),
        ({"mask": torch.ones(2, 3)}, [r"float32", r"booleans"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_both_shapes(
    changes: dict[str, Any], both: list[str]
) -> None:
    with pytest.raises(ValueError, match="(?s)" + ".*".join(both)):
        plain(**changes)


def test_joining_what_no_store_has_with_what_one_has_forgets_where_that_was() -> None:
    stored = plain(episode=np.arange(2), start=np.arange(2))
    for joined in ([stored, plain()], [plain(), stored]):
        both = Segments.concatenate(joined)
        assert len(both) == 4
        assert both.episode is None
        assert both.start is None
    half = Segments.concatenate([stored, plain(episode=np.arange(2))])
    assert half.episode is not None
    assert half.episode.tolist() == [0, 1, 0, 1]
    assert half.start is None


def test_joining_what_differs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no batches; give at least one"):
        Segments.concatenate([])
    with pytest.raises(ValueError, match=r"only some of the batches have rewards"):
        Segments.concatenate([plain(), plain(rewards=np.zeros((2, 3)))])
    with pytest.raises(ValueError, match=r"only some of the batches have factors/x"):
        Segments.concatenate([plain(), plain(factors={"x": np.zeros((2, 3))})])
    with pytest.raises(ValueError, match=r"actions has shape \(2, 3, 2\) .* and \(2, 3, 1\)"):
        Segments.concatenate([plain(), plain(actions=np.zeros((2, 3, 2)))])
    with pytest.raises(ValueError, match=r"context has shape \(2, 5\) .* and \(2, 4\)"):
        Segments.concatenate([plain(), plain(context=np.zeros((2, 5)))])


def test_padding_never_cuts() -> None:
    with pytest.raises(ValueError, match=r"rows of 3 steps to 2; choose 3 or more"):
        plain().padded(2)
