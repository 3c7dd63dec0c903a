"""Linear rewards: mirror images, closed forms of the margins, merging, batches, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefgym.models.linear_rewards import (
    Descent,
    LinearComparisons,
    ValueLibrary,
    _Margins,
    fit_linear_rewards,
    margins,
)
from prefgym_envs import delivery, planning

QUICK = Descent(learning_rate=0.5, iterations=150, keep_best=False)
seeds = st.integers(0, 2**31 - 1)


def random_problems(seed: int, problems: int = 4, pairs: int = 12) -> LinearComparisons:
    """Whole-numbered features, so that rows repeat, in a world of five states."""
    rng = np.random.default_rng(seed)
    return LinearComparisons(
        rng.integers(-1, 2, (problems, pairs, 2)).astype(np.float64),
        rng.choice([0.0, 0.5, 1.0], (problems, pairs)),
        rng.integers(2, size=(problems, pairs, 4)),
        rng.integers(1, 4, (problems, pairs)).astype(np.float64),
    )


def random_library(seed: int, boards: int = 2, temperature: float = 1e-3) -> ValueLibrary:
    rng = np.random.default_rng(seed)
    return ValueLibrary(rng.normal(size=(boards, 3, 2, 2)), temperature)


def mirrored(one: LinearComparisons) -> LinearComparisons:
    ends = None if one.ends is None else one.ends[..., [2, 3, 0, 1]]
    return LinearComparisons(-one.features, 1.0 - one.label, ends, one.weight)


def cross_entropy(margin: np.ndarray, one: LinearComparisons) -> np.ndarray:
    weight = np.ones(one.label.shape) if one.weight is None else one.weight
    loss = np.logaddexp(0.0, margin) - one.label * margin
    return (weight * loss).sum(1) / weight.sum(1)


@given(seed=seeds, temperature=st.sampled_from([0.0, 0.5]))
@settings(max_examples=20, deadline=None)
def test_mirrored_pairs_have_opposite_margins(seed: int, temperature: float) -> None:
    problems, library = random_problems(seed), random_library(seed, temperature=temperature)
    weights = np.random.default_rng(seed).normal(size=(4, 2))
    for known in (None, library):
        np.testing.assert_allclose(
            margins(weights, problems, known),
            -margins(weights, mirrored(problems), known),
            rtol=0,
            atol=1e-9,
        )


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_the_margin_of_partial_returns_is_the_difference_of_their_sums(seed: int) -> None:
    problems, weights = random_problems(seed), np.random.default_rng(seed).normal(size=(4, 2))
    expected = np.einsum("pnf,pf->pn", problems.features, weights)
    np.testing.assert_allclose(margins(weights, problems), expected, rtol=0, atol=1e-12)


def test_with_the_optimal_policy_the_margin_is_the_difference_of_regrets() -> None:
    """The library of one policy, at the true weights: V_w = V*, and margins are exact."""
    mdps = delivery.task().mdps
    solution = planning.solve_with_features(mdps)
    rng = np.random.default_rng(0)
    begin, action = (
        rng.choice(mdps.states, (2, 500), p=mdps.start[0]),
        rng.integers(4, size=(2, 500)),
    )
    end, phi = mdps.next_state[0, begin, action, 0], mdps.features[0, begin, action, 0]
    pairs = LinearComparisons(
        (phi[0] - phi[1])[None],
        np.full((1, 500), 0.5),
        np.stack([begin[0], end[0], begin[1], end[1]], -1)[None],
    )
    library = ValueLibrary(solution.features[:, None], temperature=0.0)
    undiscounted = phi @ mdps.weights[0] + solution.v[0, end] - solution.v[0, begin]
    found = margins(mdps.weights, pairs, library)[0]
    np.testing.assert_allclose(found, undiscounted[0] - undiscounted[1], rtol=0, atol=1e-9)
    advantages = (solution.q - solution.v[..., None])[0, begin, action]
    loss_of_discounting = 0.001 * np.abs(solution.v).max() * 2
    np.testing.assert_allclose(found, advantages[0] - advantages[1], atol=loss_of_discounting)


@given(seed=seeds, scale=st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_values_are_the_best_of_the_library_and_scale_with_the_reward(
    seed: int, scale: float
) -> None:
    library = random_library(seed, temperature=0.0)
    weights = np.random.default_rng(seed).normal(size=(4, 2))
    values = library.state_values(weights)
    worth = np.einsum("plsf,pf->pls", np.repeat(library.features, 2, 0), weights)
    np.testing.assert_allclose(values, worth.max(1), atol=1e-12)
    np.testing.assert_allclose(library.state_values(scale * weights), scale * values, atol=1e-9)
    cold = replace(library, temperature=1e-6).state_values(weights)
    np.testing.assert_allclose(cold, values, atol=1e-4)
    assert (replace(library, temperature=0.5).state_values(weights) <= values + 1e-12).all()


@pytest.mark.parametrize("temperature", [None, 0.0, 0.3])
def test_the_slope_of_margins_is_right(temperature: float | None) -> None:
    library = None if temperature is None else random_library(1, temperature=temperature)
    weights = torch.tensor(np.random.default_rng(1).normal(size=(4, 2)), requires_grad=True)
    assert torch.autograd.gradcheck(_Margins(random_problems(1), library, torch.float64), weights)


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_merging_equal_pairs_changes_the_loss_by_a_constant_only(seed: int) -> None:
    problems, library = random_problems(seed, pairs=40), random_library(seed)
    merged = problems.merged()
    assert merged.label.shape[1] < 40
    assert problems.weight is not None
    assert merged.weight is not None
    np.testing.assert_allclose(merged.weight.sum(1), problems.weight.sum(1))
    for known in (None, library):
        gaps = [
            cross_entropy(margins(weights, problems, known), problems)
            - cross_entropy(margins(weights, merged, known), merged)
            for weights in np.random.default_rng(seed).normal(size=(3, 4, 2))
        ]
        np.testing.assert_allclose(gaps, np.zeros((3, 4)), atol=1e-9)


def test_merging_turns_mirror_images_round() -> None:
    features = np.array([[[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]])
    merged = LinearComparisons(features, np.array([[1.0, 1.0, 1.0]])).merged()
    assert merged.features.shape == (1, 2, 2)
    assert sorted(merged.label[0].tolist()) == [0.5, 1.0]


def test_probabilities_give_the_weights_back() -> None:
    rng = np.random.default_rng(0)
    features, truth = rng.normal(size=(3, 200, 4)), rng.normal(size=(3, 4))
    label = 1.0 / (1.0 + np.exp(-np.einsum("pnf,pf->pn", features, truth)))
    longer = replace(QUICK, iterations=400)
    fit = fit_linear_rewards(LinearComparisons(features, label), descent=longer)
    np.testing.assert_allclose(fit.weights, truth, atol=1e-2)
    entropy = -(label * np.log(label) + (1 - label) * np.log1p(-label)).mean(1)
    np.testing.assert_allclose(fit.loss, entropy, atol=1e-4)


def test_the_best_weights_are_kept_where_asked() -> None:
    problems, library = random_problems(5), random_library(5)
    wild = Descent(learning_rate=20.0, iterations=50, keep_best=True)
    best = fit_linear_rewards(problems, library, wild)
    last = fit_linear_rewards(problems, library, replace(wild, keep_best=False))
    assert (best.loss <= last.loss + 1e-6).all()
    assert (best.loss < last.loss - 1e-3).any()
    shown = cross_entropy(margins(best.weights, problems, library), problems)
    np.testing.assert_allclose(best.loss, shown, rtol=1e-4)


@pytest.mark.parametrize("known", [False, True])
def test_problems_do_not_disturb_each_other(known: bool) -> None:
    problems, library = random_problems(2), random_library(2, temperature=0.0)
    together = fit_linear_rewards(problems, library if known else None, QUICK)
    for at in range(4):
        assert problems.ends is not None
        assert problems.weight is not None
        alone = LinearComparisons(
            *(part[at : at + 1] for part in (problems.features, problems.label, problems.ends)),
            problems.weight[at : at + 1],
        )
        own = ValueLibrary(library.features[at // 2 : at // 2 + 1], 0.0) if known else None
        found = fit_linear_rewards(alone, own, QUICK)
        np.testing.assert_allclose(found.weights[0], together.weights[at], atol=1e-3)


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    problems, library = random_problems(0), random_library(0)
    with pytest.raises(ValueError, match="needs the states where segments begin and end"):
        fit_linear_rewards(replace(problems, ends=None), library)
    far = replace(problems, ends=np.full((4, 12, 4), 2))
    with pytest.raises(ValueError, match="states are 0 to 1"):
        fit_linear_rewards(far, library)
    with pytest.raises(ValueError, match="2 boards with 2 features, and the comparisons are 3"):
        fit_linear_rewards(random_problems(0, problems=3), library)
    with pytest.raises(ValueError, match="must be probabilities"):
        replace(problems, label=problems.label + 1.0)
    with pytest.raises(ValueError, match="label has shape"):
        replace(problems, label=problems.label[:, :3])
    with pytest.raises(ValueError, match="hold NaN"):
        replace(problems, features=problems.features * np.nan)
    with pytest.raises(ValueError, match="a row that counts"):
        replace(problems, weight=np.zeros((4, 12)))
    with pytest.raises(ValueError, match="hold NaN"):
        ValueLibrary(np.full((1, 1, 1, 1), np.inf))
    with pytest.raises(ValueError, match="temperature is -1"):
        ValueLibrary(np.zeros((1, 1, 1, 1)), temperature=-1.0)
