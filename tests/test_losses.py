"""Losses on pairs: numbers by hand, laws, minima in closed form."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefgym import losses
from prefgym.losses import PairLoss

LOSSES: dict[str, PairLoss] = {
    "logistic": losses.logistic,
    "smoothed": partial(losses.smoothed, flips=0.2),
    "lapsing": partial(losses.lapsing, lapses=0.1),
    "robust": partial(losses.robust, flips=0.2),
    "square": partial(losses.square, target=0.5),
    "hinge": partial(losses.hinge, target=2.0),
    "ties": partial(losses.ties, threshold=5.0),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)

margins = st.floats(-1e4, 1e4, width=32)
labels = st.floats(0.0, 1.0, width=32)


def number(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("loss", "margin", "label", "expected"),
    [
        ("logistic", 0.0, 1.0, math.log(2)),
        ("logistic", 1.0, 1.0, 0.31326168751822286),
        ("logistic", -1.0, 0.0, 0.31326168751822286),
        ("logistic", 1.0, 0.5, 0.8132616875182228),
        ("smoothed", 1.0, 1.0, 0.5132616875182229),
        ("lapsing", 0.0, 1.0, math.log(2)),
        ("lapsing", 1.0, 1.0, -math.log(0.9 * 0.7310585786300049 + 0.05)),
        ("robust", 1.0, 1.0, (0.8 * 0.31326168751822286 - 0.2 * 1.3132616875182228) / 0.6),
        ("square", 2.0, 1.0, 2.25),
        ("square", 2.0, 0.0, 6.25),
        ("hinge", 0.5, 1.0, 1.5),
        ("hinge", 0.5, 0.0, 2.5),
        ("hinge", 3.0, 1.0, 0.0),
        ("ties", math.log(5.0), 1.0, math.log(2)),
        ("ties", 0.0, 0.5, -math.log(24.0 / 36.0)),
    ],
)
def test_numbers_by_hand(loss: str, margin: float, label: float, expected: float) -> None:
    value = LOSSES[loss](number(margin), number(label))
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@every_loss
@given(margin=margins, label=labels)
def test_swapping_sides_and_label_changes_nothing(
    loss: PairLoss, margin: float, label: float
) -> None:
    here = loss(number(margin), number(label))
    there = loss(number(-margin), number(1.0 - label))
    torch.testing.assert_close(here, there, rtol=1e-12, atol=1e-12)


@every_loss
@given(margin=margins, label=labels)
def test_value_and_slope_are_finite(loss: PairLoss, margin: float, label: float) -> None:
    leaf = torch.tensor([margin, 1e4, -1e4], requires_grad=True)
    value = loss(leaf, torch.tensor([label] * 3))
    value.sum().backward()
    assert leaf.grad is not None
    assert torch.isfinite(value).all()
    assert torch.isfinite(leaf.grad).all()


@every_loss
def test_a_label_pulls_the_margin_its_own_way(loss: PairLoss) -> None:
    margin = torch.zeros(2, requires_grad=True)
    loss(margin, torch.tensor([1.0, 0.0])).sum().backward()
    assert margin.grad is not None
    assert margin.grad[0] < 0 < margin.grad[1]


@every_loss
@given(margin=st.floats(-5.0, 5.0), label=labels)
def test_the_loss_of_a_label_between_lies_on_the_line(
    loss: PairLoss, margin: float, label: float
) -> None:
    """A soft label is a mixture of hard ones; for ties, of the nearer hard one and the tie."""
    ends = (0.0, 1.0)
    if loss is LOSSES["ties"]:
        ends = (0.5, 1.0) if label >= 0.5 else (0.0, 0.5)
    low, high = (loss(number(margin), number(end)) for end in ends)
    share = (label - ends[0]) / (ends[1] - ends[0])
    torch.testing.assert_close(loss(number(margin), number(label)), low + share * (high - low))


@pytest.mark.parametrize("label", [0.02, 0.3, 0.5, 0.75, 0.98])
@pytest.mark.parametrize(
    ("loss", "best"),
    [
        ("logistic", lambda p: math.log(p / (1 - p))),
        ("smoothed", lambda p: math.log((0.2 + 0.6 * p) / (0.8 - 0.6 * p))),
        ("square", lambda p: 0.5 * (2 * p - 1)),
    ],
)
def test_minimum_in_closed_form(loss: str, best: Callable[[float], float], label: float) -> None:
    margin = number(best(label)).requires_grad_()
    LOSSES[loss](margin, number(label)).sum().backward()
    assert margin.grad is not None
    assert abs(margin.grad.item()) < 1e-12


@given(margin=st.floats(-20.0, 20.0), label=st.sampled_from([0.0, 0.5, 1.0]))
def test_robust_is_the_clean_loss_on_average_over_flips(margin: float, label: float) -> None:
    flips = 0.3
    kept = losses.robust(number(margin), number(label), flips)
    flipped = losses.robust(number(margin), number(1.0 - label), flips)
    clean = losses.logistic(number(margin), number(label))
    torch.testing.assert_close((1 - flips) * kept + flips * flipped, clean)


@given(margin=margins)
def test_lapsing_bounds_what_one_answer_may_cost(margin: float) -> None:
    assert losses.lapsing(number(margin), number(1.0), 0.1).item() <= -math.log(0.05) + 1e-9


@given(margin=st.floats(-30.0, 30.0), threshold=st.floats(1.01, 50.0))
def test_win_loss_and_tie_have_probability_one_together(margin: float, threshold: float) -> None:
    three = losses.ties(number(margin, margin, margin), number(1.0, 0.0, 0.5), threshold)
    assert torch.exp(-three).sum().item() == pytest.approx(1.0, rel=1e-9)


@every_loss
def test_slopes_agree_with_differences(loss: PairLoss) -> None:
    margin = number(-1.7, -0.3, 0.4, 2.9).requires_grad_()
    label = number(1.0, 0.5, 0.2, 0.0)
    assert torch.autograd.gradcheck(lambda one: loss(one, label), (margin,))


def test_limits_of_the_noise_models_are_the_plain_loss() -> None:
    margin, label = number(-3.0, 0.2, 5.0), number(1.0, 0.5, 0.3)
    plain = losses.logistic(margin, label)
    for other in (
        losses.smoothed(margin, label, 0.0),
        losses.robust(margin, label, 0.0),
        losses.lapsing(margin, label, 1e-12),
    ):
        torch.testing.assert_close(other, plain)


def test_batches_of_any_shape() -> None:
    margin, label = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.ones(3, 4)
    for loss in LOSSES.values():
        assert loss(margin, label).shape == (3, 4)


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (partial(losses.smoothed, flips=0.6), "losses.smoothed: flips is 0.6, wanted a number in"),
        (partial(losses.lapsing, lapses=0.0), "losses.lapsing: lapses is 0.0, wanted a number bet"),
        (partial(losses.robust, flips=0.5), "losses.robust: flips is 0.5, wanted a number in"),
        (partial(losses.square, target=0.0), "losses.square: target is 0.0, wanted a number above"),
        (partial(losses.hinge, target=-1.0), "losses.hinge: target is -1.0, wanted a number above"),
        (partial(losses.ties, threshold=1.0), "losses.ties: threshold is 1.0, wanted a number abo"),
    ],
)
def test_settings_out_of_range_are_refused(loss: PairLoss, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        loss(torch.zeros(1), torch.zeros(1))
