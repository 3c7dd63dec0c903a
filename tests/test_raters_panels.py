"""Votes of several, and ties: soft labels and answers of three kinds."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefgym import losses
from prefgym.comparisons import Labels
from prefgym.raters import Panel, Population, make_rater
from prefgym.raters.populations import experts
from prefgym.raters.scripted import ScriptedRater
from prefgym.segments import Segments


def worth(*returns: float) -> Segments:
    """Segments of one step with these returns."""
    count = len(returns)
    return Segments(
        actions=np.zeros((count, 1), np.int64),
        mask=np.ones((count, 1), bool),
        context=np.zeros((count, 1)),
        context_id=np.arange(count),
        rewards=np.asarray(returns, float)[:, None],
    )


def often(a: Segments, b: Segments, times: int, rater: Any, seed: int = 0) -> Labels:
    many = np.repeat(np.arange(len(a)), times)
    told: Labels = rater(a.take(many), b.take(many), np.random.default_rng(seed))
    return told


# --- panels ---------------------------------------------------------------------------------------


def test_the_variance_of_a_panels_label_falls_as_one_over_its_size() -> None:
    a, b = worth(0.0), worth(0.4)
    chance = make_rater("noisy").probability(a, b)[0]
    draws = 20_000
    for size in (1, 4, 9):
        label = often(a, b, draws, Panel(make_rater("noisy"), size)).label
        expected = chance * (1 - chance) / size
        fourth = np.var((label - chance) ** 2)  # error of the measured variance
        assert abs(label.var() - expected) < 4 * np.sqrt(fourth / draws)
        assert set(np.round(label * size, 9)) <= set(range(size + 1))


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 2.0])
def test_smoothing_pulls_towards_a_half_by_its_closed_form(smoothing: float) -> None:
    a, b = worth(0.0, 1.0, 5.0), worth(0.3, 0.0, 0.0)
    panel = Panel(make_rater("noisy", mistake=0.1), 4, smoothing)
    chance = panel.rater.probability(a, b)
    known = panel.probability(a, b)
    np.testing.assert_allclose(known, (4 * chance + smoothing) / (4 + 2 * smoothing), atol=1e-12)
    labels = often(a, b, 10_000, panel).label.reshape(3, -1)
    assert (np.abs(labels.mean(1) - known) < 4 * labels.std(1) / 100 + 1e-9).all()
    if smoothing == 0.5:
        assert set(np.round(labels.ravel() * 5 - 0.5, 9)) <= set(range(5))


def test_the_error_of_a_panels_log_odds_falls_with_its_size() -> None:
    """The first part of a published result: mean error below 0.4 with 27 annotators."""
    rng = np.random.default_rng(0)
    gaps = rng.normal(size=2000)
    a, b = worth(*gaps), worth(*np.zeros(2000))
    errors = []
    for size in (1, 3, 9, 27):
        label = Panel(make_rater("noisy"), size, 0.5)(a, b, rng).label
        errors.append(np.abs(np.log(label / (1 - label)) - gaps).mean())
    assert (np.diff(errors) < -0.04).all()
    assert errors[-1] < 0.4


def test_votes_that_were_not_cast_are_left_out(rng: np.random.Generator) -> None:
    """Of two raters one does not judge bad pairs; the mean holds what is known of the others."""
    fussy = make_rater("noisy", skip_threshold=1.0)
    willing = make_rater("noisy", beta=3.0, rater_id=1)
    both = Population((fussy, willing), (0.7, 0.3))
    a, b = worth(0.0, 2.0), worth(0.5, 0.5)
    panel = Panel(both, 3, 0.5)
    silent = panel.answer_probability(a, b)
    np.testing.assert_allclose(silent, [1.0 - 0.7**3, 1.0])
    told = often(a, b, 20_000, panel)
    answered, label = (column.reshape(2, -1) for column in told[:2][::-1])
    assert abs(answered[0].mean() - silent[0]) < 4 * np.sqrt(0.25 / 20_000)
    known = panel.probability(a, b)
    for pair in range(2):
        some = label[pair][answered[pair]]
        assert abs(some.mean() - known[pair]) < 4 * some.std() / np.sqrt(len(some))
    nobody = Panel(fussy, 3)(worth(0.0), worth(0.5), rng)
    assert not nobody.answered.any()
    assert Panel(fussy, 3, 0.5).probability(worth(0.0), worth(0.5)).shape == (1,)


def test_a_panel_adapts_as_its_members_do() -> None:
    panel = Panel(make_rater("equal", equal=0.5), 3)
    adapted = panel.adapted_to(worth(2.0, 4.0))
    assert panel.adaptive
    assert isinstance(adapted.rater, ScriptedRater)
    assert adapted.rater.equal_threshold == 1.5
    still = Panel(make_rater("noisy"), 3)
    assert not still.adaptive
    assert still.adapted_to(worth(1.0)) is still


def test_panels_of_nobody_are_refused() -> None:
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"size is {size}; give a whole number of at least 1"):
            make_rater("panel", size=size)
    with pytest.raises(ValueError, match=r"smoothing is -0\.5"):
        make_rater("panel", smoothing=-0.5)
    with pytest.raises(ValueError, match="no option 'beta'; it takes member, member_kwargs"):
        make_rater("panel", beta=1.0)


# --- ties -----------------------------------------------------------------------------------------


def sigma(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x)))


@given(st.floats(-8.0, 8.0), st.floats(1.0, 50.0), st.floats(0.1, 3.0), st.floats(0.0, 1.0))
def test_the_mean_label_with_ties_has_its_closed_form(
    gap: float, k: float, beta: float, mistake: float
) -> None:
    win, loss = (sigma(sign * beta * gap - np.log(k)) for sign in (1, -1))
    rater = make_rater("ties", ties=k, beta=beta, mistake=mistake)
    mean = 0.5 + 0.5 * (1 - 2 * mistake) * (win - loss)
    assert np.isclose(rater.probability(worth(gap), worth(0.0))[0], mean, rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", [2.0, 5.0])
def test_answers_of_three_kinds_come_with_their_frequencies(k: float) -> None:
    gaps, draws = np.array([-2.0, 0.0, 0.5, 3.0]), 20_000
    a, b = worth(*gaps), worth(*np.zeros(4))
    labels = often(a, b, draws, make_rater("ties", ties=k)).label.reshape(4, draws)
    win, loss = sigma(gaps - np.log(k)), sigma(-gaps - np.log(k))
    for label, chance in ((1.0, win), (0.0, loss), (0.5, 1.0 - win - loss)):
        error = np.sqrt(chance * (1 - chance) / draws)
        assert (np.abs((labels == label).mean(1) - chance) < 4 * error).all()


def test_the_loss_for_ties_is_least_at_the_true_gap() -> None:
    """The rater draws what :func:`prefgym.losses.ties` believes: its mean slope vanishes there."""
    gap, draws = 1.3, 40_000
    labels = often(worth(gap), worth(0.0), draws, make_rater("ties")).label
    margin = torch.full((draws,), gap, requires_grad=True, dtype=torch.float64)
    losses.ties(margin, torch.as_tensor(labels)).sum().backward()
    assert margin.grad is not None
    slopes = margin.grad.numpy()
    assert abs(slopes.mean()) < 4 * slopes.std() / np.sqrt(draws)
    assert slopes.std() > 0.1


def test_a_k_of_one_is_no_other_rater(rng: np.random.Generator) -> None:
    a, b = worth(*rng.normal(size=500)), worth(*rng.normal(size=500))
    plain, same = make_rater("noisy"), make_rater("ties", ties=1.0)
    assert plain == same
    assert set(plain(a, b, rng).label) == {0.0, 1.0}


def test_certain_raters_tie_only_on_equal_sums(rng: np.random.Generator) -> None:
    a, b = worth(1.0, 1.0), worth(1.0, 0.999)
    hard = replace(make_rater("ties"), beta=np.inf)  # type: ignore[type-var]
    assert hard(a, b, rng).label.tolist() == [0.5, 1.0]
    soft = make_rater("ties", soft=True)
    np.testing.assert_array_equal(soft(a, b, rng).label, soft.probability(a, b))
    with pytest.raises(ValueError, match=r"ties is 0\.5; give a number of 1 or more"):
        make_rater("ties", ties=0.5)


def test_experts_may_tie_too() -> None:
    tying = make_rater("ties")
    assert isinstance(tying, ScriptedRater)
    several = experts(tying, (0.0, 0.2))
    assert [one.ties for one in several.raters] == [5.0, 5.0]  # type: ignore[attr-defined]
