"""Features of an expert: what they read, what they refuse, and that a model learns from them."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from prefgym.models.features import FactorFeatures, FeatureMap, MappedFeatures, StepFeatures
from prefgym.segments import Segments


def segments(rng: np.random.Generator, count: int = 4, steps: int = 5) -> Segments:
    """Segments of different lengths with two factors, NaN at padding."""
    mask = np.arange(steps) < rng.integers(1, steps + 1, size=(count, 1))
    observations = np.where(mask[..., None], rng.standard_normal((count, steps, 2)), np.nan)
    return Segments(
        actions=np.zeros((count, steps), np.int64),
        mask=mask,
        context=observations[:, 0],
        context_id=np.zeros(count, np.int64),
        observations=observations,
        factors={"height": observations[..., 0], "speed": observations[..., 1] ** 2},
    )


def sums(batch: Segments) -> Any:
    """Two numbers of a step, whatever kind of array it comes in."""
    both = batch.observations
    assert both is not None
    return both + both[..., :1]


def test_factors_stand_in_the_order_of_their_names(rng: np.random.Generator) -> None:
    batch = segments(rng)
    rows = FactorFeatures(["speed", "height"])(batch)
    assert rows.dtype == torch.float32
    mask = batch.mask
    for column, name in enumerate(("speed", "height")):
        expected = np.where(mask, batch.factors[name], 0.0).astype(np.float32)
        assert np.array_equal(rows[..., column].numpy(), expected)


def test_a_function_makes_the_rows_of_numpy_and_of_torch(rng: np.random.Generator) -> None:
    batch = segments(rng)
    features = MappedFeatures(sums, 2)
    rows = features(batch)
    expected = np.where(batch.mask[..., None], sums(batch), 0.0)
    assert np.array_equal(rows.numpy(), expected.astype(np.float32))
    torch.testing.assert_close(features(batch.to("cpu")), rows)


@pytest.mark.parametrize("features", [FactorFeatures(["speed"]), MappedFeatures(sums, 2)])
def test_every_map_has_one_face(features: FeatureMap, rng: np.random.Generator) -> None:
    assert isinstance(features, FeatureMap)
    assert isinstance(StepFeatures(spaces.Box(-1, 1, (2,)), spaces.Discrete(2)), FeatureMap)
    batch = segments(rng)
    rows = features(batch)
    assert rows.shape == (4, 5, features.width)
    assert features.measured.shape == (features.width,)
    assert not rows[~torch.as_tensor(batch.mask)].any()
    assert torch.isfinite(rows).all()
    for other in (copy.deepcopy(features), pickle.loads(pickle.dumps(features))):
        assert torch.equal(other(batch), rows)


def test_rows_are_nobody_elses_memory(rng: np.random.Generator) -> None:
    """A model normalises them in place."""
    given = torch.ones(4, 5, 2)
    batch = segments(rng).replace(mask=np.ones((4, 5), bool))
    factor = np.ones((4, 5), np.float32)
    MappedFeatures(lambda _: given, 2)(batch).zero_()
    FactorFeatures(["one"])(batch.replace(factors={"one": factor})).zero_()
    assert given.all()
    assert factor.all()


def test_a_network_stays_frozen(rng: np.random.Generator) -> None:
    network = nn.Linear(2, 3).double()

    def read(batch: Segments) -> Tensor:
        hidden: Tensor = network(torch.as_tensor(batch.observations))
        return hidden

    rows = MappedFeatures(read, 3)(segments(rng))
    assert not rows.requires_grad


def changed(**changes: Any) -> Segments:
    return segments(np.random.default_rng(0)).replace(**changes)


HOLE = np.full((4, 5), 1.0)
HOLE[2, 0] = np.nan


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: FactorFeatures([]), r"the names are \[\]; give at least one"),
        (lambda: FactorFeatures(["a", "a"]), "each once"),
        (
            lambda: FactorFeatures("spede")(changed()),
            "Unknown factor 'spede'; did you mean 'speed'",
        ),
        (lambda: FactorFeatures(["speed"])(changed(factors={})), "hold no factors, and speed are"),
        (
            lambda: FactorFeatures(["one"])(changed(factors={"one": np.ones((4, 5, 1))})),
            r"factor 'one' has shape \(4, 5, 1\), wanted \(4, 5\)",
        ),
        (
            lambda: FactorFeatures(["one", "hole"])(
                changed(factors={"one": np.ones((4, 5)), "hole": HOLE})
            ),
            "factor 'hole' of segment 2 is NaN or infinite",
        ),
        (lambda: MappedFeatures(sums, 0), "width is 0, wanted 1 or more"),
        (
            lambda: MappedFeatures(sums, 3)(changed()),
            r"made an array of shape \(4, 5, 2\), wanted \(4, 5, 3\)",
        ),
        (
            lambda: MappedFeatures(lambda batch: batch.mask.sum(1), 1)(changed()),
            r"made an array of shape \(4,\), wanted \(4, 5, 1\)",
        ),
        (
            lambda: MappedFeatures(lambda _: np.stack([HOLE, HOLE], -1), 2)(changed()),
            "column 0 of segment 2 is NaN or infinite; mend the function",
        ),
    ],
)
def test_what_features_refuse(act: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        act()
