"""Direct losses: closed-form optima on a bandit, laws, and TRL's figures for the same numbers."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.claims import dpo_survey, irepo, rpo, rso
from benchmarks.claims.claim import report
from prefgym import direct_losses, losses
from prefgym.direct_losses import RECIPES, Recipe, Side, direct_loss

every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
TRL: dict[str, Any] = json.loads((Path(__file__).parent / "data/trl_losses.json").read_text())
BETA, P = 0.5, 0.8


def number(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sides(seed: int = 0, pairs: int = 5, steps: int = 4) -> tuple[Side, Side, torch.Tensor]:
    """Two sides with padding, and soft labels."""
    rng = torch.Generator().manual_seed(seed)

    def draw() -> torch.Tensor:
        return -torch.rand(pairs, steps, generator=rng, dtype=torch.float64) * 2.0 - 0.01

    def side() -> Side:
        lengths = torch.randint(1, steps + 1, (pairs, 1), generator=rng)
        return Side(draw(), torch.arange(steps) < lengths, draw())

    return side(), side(), torch.rand(pairs, generator=rng, dtype=torch.float64)


# --- optima on the bandit of two responses ----------------------------------------------------


def best_margin(recipe: Recipe, p: float = P, anchor: float = 0.5) -> float:
    """The margin log π_w / π_l − log μ_w / μ_l that a softmax policy of two arms ends with."""
    logit = number(0.0).requires_grad_()
    one = torch.ones(1, 1, dtype=torch.bool)
    known = number(anchor, 1.0 - anchor).log()
    optimizer = torch.optim.LBFGS(
        [logit], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        a, b = (
            Side(torch.nn.functional.logsigmoid(sign * logit)[None], one, known[at].view(1, 1))
            for at, sign in enumerate((1.0, -1.0))
        )
        loss = direct_loss(recipe, a, b, number(p)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return logit.item() - math.log(anchor / (1.0 - anchor))


def logit(p: float) -> float:
    return math.log(p / (1.0 - p))


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def root(slope: Callable[[float], float]) -> float:
    low, high = -50.0, 50.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return low


def simpo_margin(p: float, beta: float, offset: float) -> float:
    """Where p σ(γ − z) = (1 − p) σ(γ + z), a quadratic in e^z."""
    g, lean = math.exp(offset), 2.0 * p - 1.0
    return math.log((g * lean + math.sqrt(g * g * lean * lean + 4 * p * (1 - p))) / (2 - 2 * p)) / (
        beta
    )


@pytest.mark.parametrize(
    ("recipe", "p", "expected"),
    [
        (Recipe(beta=BETA), P, 2.7726),
        (Recipe("smoothed", BETA, flips=0.1), 1.0, 4.394),
        (Recipe("smoothed", BETA, flips=0.1), P, logit(0.74) / BETA),
        (Recipe("robust", BETA, flips=0.1), 0.74, logit(P) / BETA),
        (Recipe("square", BETA), P, 0.6),
        (Recipe("hinge", BETA), P, 2.0),
        (Recipe("hinge", BETA), 0.6, 2.0),
        (Recipe("exo", BETA, flips=0.1), 1.0, 4.394),
        (Recipe("exo", BETA, flips=0.1), P, logit(0.74) / BETA),
        (Recipe("regression", BETA, votes=5), P, logit(P) / BETA),
        (Recipe("regression", BETA, votes=5), 1.0, logit(0.9) / BETA),
        (Recipe(beta=BETA, anchored=False, offset=0.5), P, simpo_margin(P, BETA, 0.5)),
        (
            Recipe(beta=BETA, anchored=False, likelihood=1.0),
            P,
            root(lambda u: BETA * (sigmoid(BETA * u) - P) + sigmoid(u) - P),
        ),
        (
            Recipe(beta=BETA, likelihood=0.05, likelihood_reduce="sum"),
            P,
            root(lambda u: BETA * (sigmoid(BETA * u) - P) + 0.05 * (sigmoid(u) - P)),
        ),
        (
            replace(RECIPES["orpo"], weight=0.25),
            P,
            root(lambda u: 0.25 * 2 * (sigmoid(2 * u) - P) + sigmoid(u) - P),
        ),
        (Recipe(beta=BETA, anchored=False), P, logit(P) / BETA),
    ],
)
def test_optimum_in_closed_form(recipe: Recipe, p: float, expected: float) -> None:
    assert best_margin(recipe, p) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "recipe",
    [
        one
        for one in RECIPES.values()
        if one.anchored and (one.loss not in ("kto", "exo") and not one.likelihood)
    ],
)
def test_the_margin_is_measured_from_the_anchor(recipe: Recipe) -> None:
    recipe = replace(recipe, beta=BETA)
    assert best_margin(recipe, 0.7, anchor=0.9) == pytest.approx(best_margin(recipe, 0.7), abs=1e-3)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "kto"])
def test_a_tie_leaves_a_uniform_policy_alone(name: str) -> None:
    assert best_margin(RECIPES[name], 0.5) == pytest.approx(0.0, abs=1e-3)


def test_dpo_ends_with_the_probability_of_the_notes() -> None:
    assert sigmoid(best_margin(Recipe(beta=BETA))) == pytest.approx(16.0 / 17.0, abs=1e-4)  # .9412


def test_kto_costs_half_its_weight_at_the_anchor_and_runs_to_one() -> None:
    one = torch.ones(2, 1, dtype=torch.bool)
    side = Side(number(-1.0, -2.0)[:, None], one, number(-1.0, -2.0)[:, None])
    recipe = replace(RECIPES["kto"], good=1.4, bad=1.4)
    assert direct_loss(recipe, side, side, number(1.0, 0.3)).tolist() == pytest.approx([0.7, 0.7])
    assert sigmoid(best_margin(RECIPES["kto"], 0.6)) > 0.999


def test_ktos_baseline_is_the_mean_gain_of_mismatched_segments_at_least_zero_and_constant() -> None:
    mask = torch.ones(2, 2, dtype=torch.bool)
    lp = torch.tensor([[-1.0, -1.0], [-2.0, -1.0]]).requires_grad_()
    known = direct_losses.kl_baseline(Side(lp, mask, torch.full((2, 2), -2.0)))
    assert known.item() == pytest.approx((2.0 + 1.0) / 2.0)
    assert not known.requires_grad
    assert direct_losses.kl_baseline(Side(lp, mask, torch.zeros(2, 2))).item() == 0.0


def test_log_odds_by_hand() -> None:
    lp = number(0.8, 0.2).log()
    odds = direct_losses.log_odds(lp)
    assert (odds[0] - odds[1]).item() == pytest.approx(math.log(16.0))


# --- laws -------------------------------------------------------------------------------------


@every_recipe
def test_swapping_sides_and_label_changes_nothing(recipe: Recipe) -> None:
    a, b, label = sides()
    here, there = direct_loss(recipe, a, b, label), direct_loss(recipe, b, a, 1.0 - label)
    torch.testing.assert_close(here, there, rtol=1e-12, atol=1e-12)


@every_recipe
@given(
    values=st.lists(st.floats(-1e4, 0.0, width=32), min_size=4, max_size=4),
    label=st.floats(0.0, 1.0, width=32),
)
def test_value_and_slope_are_finite(recipe: Recipe, values: list[float], label: float) -> None:
    leaf = torch.tensor(values, dtype=torch.float32).view(2, 2).requires_grad_()
    mask, anchor = torch.ones(1, 2, dtype=torch.bool), torch.full((1, 2), -1.0)
    a, b = (Side(leaf[at : at + 1], mask, anchor) for at in range(2))
    loss = direct_loss(recipe, a, b, torch.tensor([label]))
    loss.sum().backward()
    assert leaf.grad is not None
    assert torch.isfinite(loss).all()
    assert torch.isfinite(leaf.grad).all()


@every_recipe
def test_what_stands_in_the_padding_is_never_read(recipe: Recipe) -> None:
    a, b, label = sides()
    lost = [
        Side(
            *(torch.where(one.mask, known, math.nan) for known in (one.log_prob,)),
            one.mask,
            torch.where(one.mask, one.anchor, math.inf),
        )
        for one in (a, b)
    ]
    torch.testing.assert_close(direct_loss(recipe, *lost, label), direct_loss(recipe, a, b, label))


@every_recipe
def test_slopes_agree_with_differences(recipe: Recipe) -> None:
    a, b, label = sides(seed=3)

    def of(here: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        return direct_loss(recipe, a._replace(log_prob=here), b._replace(log_prob=there), label)

    leaves = (a.log_prob.clone().requires_grad_(), b.log_prob.clone().requires_grad_())
    assert torch.autograd.gradcheck(of, leaves)


@every_recipe
def test_a_label_pulls_the_policy_its_own_way(recipe: Recipe) -> None:
    known = torch.full((2, 1), -1.0)
    same = Side(known, known < 0.0, known)
    lp = same.log_prob.clone().requires_grad_()
    direct_loss(recipe, same._replace(log_prob=lp), same, torch.tensor([1.0, 0.0])).sum().backward()
    assert lp.grad is not None
    assert lp.grad[0].item() < 0.0 <= lp.grad[1].item()


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in ("exo", "irepo")])
def test_a_soft_label_is_a_mixture_of_hard_ones(name: str) -> None:
    a, b, label = sides(seed=5)
    recipe = RECIPES[name]
    won, lost = (direct_loss(recipe, a, b, torch.full_like(label, end)) for end in (1.0, 0.0))
    torch.testing.assert_close(direct_loss(recipe, a, b, label), label * won + (1 - label) * lost)


@given(flips=st.floats(0.0, 0.45), clean=st.sampled_from([0.0, 1.0]))
def test_rdpo_is_dpo_on_average_over_flips(flips: float, clean: float) -> None:
    a, b, _ = sides()
    robust, p = Recipe("robust", flips=flips), torch.full((5,), clean, dtype=torch.float64)
    kept, flipped = (direct_loss(robust, a, b, label) for label in (p, 1.0 - p))
    expected = direct_loss(RECIPES["dpo"], a, b, p)
    torch.testing.assert_close((1.0 - flips) * kept + flips * flipped, expected)


def test_rdpo_number_of_the_notes() -> None:
    one, zero = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.float64)
    a, b = Side(number(1.3)[None], one, zero), Side(zero, one, zero)
    loss = direct_loss(Recipe(beta=BETA), a, b, number(1.0))
    assert loss.item() == pytest.approx(0.42006, abs=5e-6)


def test_rpo_descends_as_offline_vpo_does() -> None:
    """−c L(chosen) and −αβ (L − L_anchor)(chosen) differ by a constant: equal gradients."""
    a, b, _ = sides(seed=7)
    beta, alpha = 0.1, 0.05
    gradients = []
    for value_incentive in (False, True):
        lp = a.log_prob.clone().requires_grad_()
        here = a._replace(log_prob=lp)
        label = torch.ones(5, dtype=torch.float64)
        if value_incentive:
            gain = direct_losses.implicit_reward(here)
            loss = direct_loss(Recipe(beta=beta), here, b, label) - alpha * beta * gain
        else:
            rpo = Recipe(beta=beta, likelihood=beta * alpha, likelihood_reduce="sum")
            loss = direct_loss(rpo, here, b, label)
        gradients.append(torch.autograd.grad(loss.sum(), lp)[0])
    torch.testing.assert_close(*gradients, rtol=0.0, atol=1e-10)


def test_cpls_bias_prefers_the_likelier_of_two_policies_with_equal_margins() -> None:
    a, b, _ = sides()
    label = torch.ones(5, dtype=torch.float64)
    everywhere = [one._replace(log_prob=one.log_prob + 0.1) for one in (a, b)]
    even = [one._replace(mask=torch.ones_like(one.mask)) for one in (a, b)]
    likelier = [one._replace(mask=torch.ones_like(one.mask)) for one in everywhere]
    for bias, same in ((1.0, True), (0.5, False)):
        recipe = replace(RECIPES["cpl"], bias=bias)
        here, there = (direct_loss(recipe, *both, label) for both in (even, likelier))
        assert torch.allclose(here, there) is same
        assert (there < here + 1e-12).all()


def test_sum_and_mean_are_the_same_for_one_step() -> None:
    a, b, label = sides(steps=1)
    for recipe in RECIPES.values():
        both = [replace(recipe, reduce=of, likelihood_reduce=of) for of in ("sum", "mean")]
        torch.testing.assert_close(*(direct_loss(one, a, b, label) for one in both))


def test_limits_are_the_plain_loss() -> None:
    a, b, label = sides()
    plain = direct_loss(Recipe(), a, b, label)
    for other in (Recipe("smoothed", flips=0.0), Recipe("robust", flips=0.0)):
        torch.testing.assert_close(direct_loss(other, a, b, label), plain)


@given(margin=st.floats(-30.0, 30.0), label=st.floats(0.0, 1.0))
def test_exo_is_never_negative_and_zero_at_its_target(margin: float, label: float) -> None:
    assert direct_losses.exo(number(margin), number(label)).item() >= -1e-12
    target = torch.logit(number(label + 1e-3 * (1 - 2 * label)))
    assert direct_losses.exo(target, number(label)).item() == pytest.approx(0.0, abs=1e-12)


def test_exos_gradient_fades_where_the_model_is_sure_of_the_wrong_side() -> None:
    steep = []
    for loss in (
        lambda m: direct_losses.exo(m, number(1.0)),
        lambda m: losses.logistic(m, number(1.0)),
    ):
        margin = number(-20.0).requires_grad_()
        loss(margin).sum().backward()
        assert margin.grad is not None
        steep.append(abs(margin.grad.item()))
    assert steep[0] < 1e-6
    assert steep[1] > 0.99


# --- what TRL computes ------------------------------------------------------------------------

OURS: dict[str, Recipe] = {
    "dpo": RECIPES["dpo"],
    "hinge": RECIPES["hinge"],
    "ipo": replace(RECIPES["ipo"], reduce="mean"),
    "exo": RECIPES["exo"],
    "rdpo": RECIPES["rdpo"],
    "rpo": Recipe(beta=0.5, likelihood=0.2),
    "dpo, mean log-ratios": Recipe(reduce="mean"),
    "cpo": RECIPES["cpo"],
    "cdpo, no anchor": replace(RECIPES["cdpo"], anchored=False),
    "simpo": RECIPES["simpo"],
    "orpo": RECIPES["orpo"],
    "kto": replace(RECIPES["kto"], good=1.2, bad=0.8),
}


def recorded(name: str) -> Side:
    lengths = torch.tensor(TRL["lengths"][name])[:, None]
    policy, anchor = (
        torch.tensor(TRL[who][name], dtype=torch.float64) for who in ("policy", "anchor")
    )
    return Side(policy, torch.arange(policy.shape[1]) < lengths, anchor)


def test_every_recorded_loss_is_compared() -> None:
    assert set(OURS) == set(TRL["losses"])


@pytest.mark.parametrize("name", OURS)
def test_equal_to_trl(name: str) -> None:
    """TRL 1.16.0 on the same log-probabilities, in single precision."""
    a, b, mismatched = recorded("chosen"), recorded("rejected"), recorded("mismatched")
    label = torch.ones(len(a.mask), dtype=torch.float64)
    loss = direct_loss(OURS[name], a, b, label, mismatched)
    assert loss.mean().item() == pytest.approx(TRL["losses"][name], rel=3e-6)


def test_the_recorded_baseline_of_kto_is_not_clamped() -> None:
    assert direct_losses.kl_baseline(recorded("mismatched")).item() > 0.1


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"loss": "logstic"}, "Unknown direct loss 'logstic'; did you mean 'logistic'"),
        ({"beta": 0.0}, "beta is 0.0, wanted a number above 0"),
        ({"bias": 1.5}, r"bias is 1.5, wanted a number in \(0, 1\]"),
        ({"flips": 0.2}, "'logistic' does not read flips=0.2; it reads bias, offset"),
        ({"loss": "hinge", "votes": 3}, "'hinge' does not read votes=3; it reads no such"),
        ({"odds": True}, "odds are not taken relative to an anchor"),
        ({"loss": "kto", "anchored": False}, "KTO compares with an anchor"),
    ],
)
def test_recipes_that_cannot_work_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Recipe(**settings)


def test_sum_and_mean_are_all_there_is() -> None:
    with pytest.raises((ValueError, TypeError), match="reduce"):  # by us, or by beartype
        Recipe(reduce="average")  # type: ignore[arg-type]


def test_an_anchored_recipe_needs_an_anchor() -> None:
    a, b, label = sides()
    with pytest.raises(ValueError, match=r"Side\.anchor is None"):
        direct_loss(RECIPES["dpo"], a._replace(anchor=None), b, label)


def test_odds_of_densities_are_refused() -> None:
    with pytest.raises(ValueError, match="odds need discrete actions"):
        direct_losses.log_odds(number(-1.0, 0.5))


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda: direct_losses.exo(number(0.0), number(1.0), 0.0), "flips is 0.0, wanted"),
        (lambda: direct_losses.regression(number(0.0), number(1.0), 1), "votes is 1, wanted"),
    ],
)
def test_settings_out_of_range_are_refused(loss: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        loss()


# --- what they must show ----------------------------------------------------------------------


@pytest.mark.parametrize("claim", [dpo_survey, irepo, rpo, rso], ids=lambda claim: claim.KEY)
def test_the_quick_part_of_the_claim_holds(claim: Any) -> None:
    result = claim.run(3, quick=True)
    assert result.holds, report(result)
