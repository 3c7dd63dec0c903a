"""Rated attributes: ridge regression against its closed form, ranks, what is taken off."""

import numpy as np
import pytest
import torch

from prefgym.models.attributes import RatedAttributes, ridge, spearman, without


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_ridge_is_the_closed_form_of_each_attribute_alone(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(60, 4)), rng.normal(size=(60, 3))
    y[rng.random(y.shape) < 0.4] = np.nan
    found = ridge(torch.as_tensor(x), torch.as_tensor(y), generator(), penalties=(0.7,))
    for k, weights in enumerate(found.numpy()):
        rated = ~np.isnan(y[:, k])
        products = x[rated].T @ x[rated] + 0.7 * np.eye(4)
        np.testing.assert_allclose(weights, np.linalg.solve(products, x[rated].T @ y[rated, k]))


def test_clean_ratings_take_the_least_penalty_and_noise_a_large_one(
    rng: np.random.Generator,
) -> None:
    x = rng.normal(size=(200, 5))
    true = rng.normal(size=5)
    y = np.stack([x @ true, rng.normal(size=200)], 1)
    found = ridge(torch.as_tensor(x), torch.as_tensor(y), generator()).numpy()
    np.testing.assert_allclose(found[0], true, atol=1e-5)
    assert np.abs(found[1]).max() < 0.1


def test_an_attribute_without_ratings_is_refused() -> None:
    ratings = torch.tensor([[1.0, torch.nan], [2.0, torch.nan]])
    with pytest.raises(ValueError, match="nobody rated attribute 1"):
        ridge(torch.ones(2, 3), ratings, generator())


def test_ranks_follow_any_rising_function(rng: np.random.Generator) -> None:
    values = torch.as_tensor(rng.normal(size=(50, 2)))
    risen = torch.stack([values[:, 0].exp(), -(values[:, 0] ** 3)], 1)
    torch.testing.assert_close(
        spearman(risen, values[:, 0]), torch.tensor([1.0, -1.0], dtype=torch.float64)
    )


def test_what_is_unwanted_is_taken_off_and_itself_left_alone(rng: np.random.Generator) -> None:
    length = rng.normal(size=(3_000, 1))
    rewards = torch.as_tensor(np.concatenate([rng.normal(size=(3_000, 2)), length], 1))
    rewards[:, 1] += 0.6 * rewards[:, 2]
    kept, taken = without(rewards, unwanted=2, most=0.05)
    assert torch.equal(kept[:, 2], rewards[:, 2])
    assert torch.equal(kept[:, 0], rewards[:, 0])
    assert taken[1] == pytest.approx(0.6, abs=0.1)
    assert spearman(kept, rewards[:, 2])[:2].abs().max() <= 0.05


def test_only_the_scale_is_fitted() -> None:
    encoder = RatedAttributes(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), members=2)
    assert [tuple(one.shape) for one in encoder.parameters()] == [(2,)]
    rows = torch.tensor([[[3.0, 4.0]]]).expand(2, -1, -1)
    with torch.no_grad():
        encoder.log_scale[1] = np.log(10.0)
    torch.testing.assert_close(encoder(rows)[:, 0], torch.tensor([[3.0, 8.0], [30.0, 80.0]]))
