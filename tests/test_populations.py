"""Heads and populations: laws of every published model, what each tells apart, what is refused."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from prefgym.comparisons import Comparisons
from prefgym.models.ensembles import Ensemble
from prefgym.models.fit import adam, fit
from prefgym.models.heads import GeneralPreferenceHead, Heard, IdealPointHead, TasteHead, turned
from prefgym.models.populations import (
    Amortised,
    ContextGate,
    HardClusters,
    Pooled,
    PopulationHead,
    Simplex,
)
from prefgym.models.populations.hedge import adapt_router, hedge_targets
from prefgym.models.populations.population import mixed_log_odds
from prefgym.models.presets import MODELS, model_head
from prefgym.models.reward_models import PointwiseModel, reward_model
from prefgym.segments import Segments

STEPS = 4
SEEN, DONE = spaces.Box(-9.0, 9.0, (2,)), spaces.Box(-9.0, 9.0, (1,))
RATERS = 40


def drawn(rng: np.random.Generator, count: int) -> Segments:
    mask = np.arange(STEPS) < rng.integers(1, STEPS + 1, (count, 1))
    seen = rng.normal(size=(count, STEPS, 2)).astype(np.float32)
    return Segments(
        actions=rng.normal(size=(count, STEPS, 1)).astype(np.float32),
        mask=mask,
        context=seen[:, 0],
        context_id=np.zeros(count, np.int64),
        observations=seen,
    )


def judged(
    rng: np.random.Generator, each: int = 12, raters: int = RATERS, sign: np.ndarray | None = None
) -> Comparisons:
    """Half of the raters like large first coordinates, the others small ones."""
    sign = np.where(np.arange(raters) % 2, 1.0, -1.0) if sign is None else sign
    who = np.repeat(np.arange(raters), each)
    a, b = drawn(rng, len(who)), drawn(rng, len(who))
    score = [(one.observations[..., 0] * one.mask).sum(1) for one in (a, b)]
    label = (sign[who] * (score[0] - score[1]) > 0).astype(np.float64)
    return Comparisons(a, b, label, rater_id=who, meaning="taste")


def made(name: str, members: int = 2, raters: int = RATERS, **asked: Any) -> Ensemble:
    head = model_head(name, raters=raters, **asked)
    return reward_model(SEEN, DONE, members, (16,), seed=3, head=head)


def fitted(name: str, comparisons: Comparisons, seed: int = 0, epochs: int = 40) -> Ensemble:
    model = made(name)
    rng = np.random.default_rng(seed)
    fit(
        model,
        comparisons,
        adam(model, 1e-2),
        rng,
        epochs=epochs,
        loss=MODELS[name].loss,
        stop_accuracy=1.0,
    )
    return model


# --- the contract of every published model -------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_a_reward_model_and_mirrors(name: str, rng: np.random.Generator) -> None:
    comparisons = judged(rng)
    model = fitted(name, comparisons, epochs=2)
    assert isinstance(model, PointwiseModel)
    a, b = drawn(rng, 9), drawn(rng, 9)
    torch.testing.assert_close(model.logits(a, b), -model.logits(b, a), atol=1e-5, rtol=1e-5)
    who = np.arange(9) % RATERS
    asked = model.logits(a, b, who)
    torch.testing.assert_close(asked, -model.logits(b, a, who), atol=1e-5, rtol=1e-5)
    model.standardise(a)
    worth = model.rewards(a)
    assert worth.shape == a.mask.shape
    assert (worth[torch.as_tensor(~a.mask)] == 0).all()
    assert worth[torch.as_tensor(a.mask)].std(correction=0) == pytest.approx(1.0, abs=0.02)
    groups = model.rewards_by_group(a)
    assert groups.shape[1:] == worth.shape
    real = torch.as_tensor(a.mask)
    torch.testing.assert_close(
        groups[:, real].mean(-1), torch.zeros(len(groups)), atol=1e-4, rtol=0
    )
    if MODELS[name].tells_raters_apart:  # who agree on little: their mean is no scale for them
        assert groups[:, real].square().mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_padding_says_nothing(name: str, rng: np.random.Generator) -> None:
    comparisons = judged(rng)
    model = fitted(name, comparisons, epochs=1)
    a, b = drawn(rng, 5), drawn(rng, 5)
    noise = rng.normal(size=a.actions.shape).astype(np.float32)
    padded = a.replace(actions=np.where(a.mask[..., None], a.actions, noise))
    torch.testing.assert_close(model.logits(a, b), model.logits(padded, b))


@pytest.mark.parametrize("name", MODELS)
def test_equal_seeds_fit_alike_and_states_go_on(name: str, rng: np.random.Generator) -> None:
    comparisons = judged(rng, each=6)
    one, other = fitted(name, comparisons, epochs=3), fitted(name, comparisons, epochs=3)
    a, b = drawn(rng, 5), drawn(rng, 5)
    assert torch.equal(one.logits(a, b), other.logits(a, b))
    fresh = made(name)
    fresh.load_state_dict(one.state_dict())
    assert torch.equal(one.logits(a, b), fresh.logits(a, b))
    copy = pickle.loads(pickle.dumps(one))
    assert torch.equal(one.logits(a, b), copy.logits(a, b))


@pytest.mark.parametrize("name", [name for name, one in MODELS.items() if one.tells_raters_apart])
def test_raters_are_told_apart_and_new_ones_inferred(name: str, rng: np.random.Generator) -> None:
    model = fitted(name, judged(rng, each=24), epochs=60)
    test = judged(rng)
    known = model.logits(test.a, test.b, test.rater_id).mean(0).numpy()
    enough = 0.75 if name == "pal-distance" else 0.9  # these tastes are no distances
    assert np.mean((known > 0) == (test.label > 0.5)) > enough
    sign = np.where(rng.random(30) < 0.5, 1.0, -1.0)
    voices = model.infer(judged(rng, each=8, raters=30, sign=sign))
    asked = judged(rng, raters=30, sign=sign)
    new = model.logits(asked.a, asked.b, asked.rater_id, voices).mean(0).numpy()
    assert np.mean((new > 0) == (asked.label > 0.5)) > enough - 0.05
    pooled = model.logits(asked.a, asked.b).mean(0).numpy()
    assert np.mean((pooled > 0) == (asked.label > 0.5)) < 0.65


# --- heads ---------------------------------------------------------------------------------------


def test_general_preference_is_skew_symmetric_and_adds_up(rng: np.random.Generator) -> None:
    head = GeneralPreferenceHead(members=2, numbers=6)
    steps = torch.as_tensor(rng.normal(size=(2, 7, STEPS, 6)), dtype=torch.float32)
    mask = torch.as_tensor(rng.random((1, 7, STEPS)) < 0.7)
    items = head.summary(steps, mask)
    scores = head.scores(items)
    torch.testing.assert_close(scores, -scores.transpose(1, 2))
    torch.testing.assert_close(scores[:, 0, 1], head.margin(items[:, :1], items[:, 1:2])[:, 0])
    head.meet(items[:, 3:])
    against = head.margin(items, head.crowd[:, None].expand_as(items))
    torch.testing.assert_close((head.rewards(steps) * mask).sum(-1), against)
    torch.testing.assert_close(turned(turned(items)), -items)


def test_a_normalised_score_is_bounded_and_learns_a_circle(rng: np.random.Generator) -> None:
    a, b = drawn(rng, 600), drawn(rng, 600)
    places = [(one.observations * one.mask[..., None]).sum(1) for one in (a, b)]
    turned_by = places[0][:, 0] * places[1][:, 1] - places[0][:, 1] * places[1][:, 0]
    label = (turned_by > 0).astype(np.float64)  # whoever is less than half a turn ahead
    model = fitted("gpm-normalised", Comparisons(a, b, label, meaning="circle"), epochs=60)
    logits = model.logits(a, b)
    assert logits.abs().max() <= 10.0 + 1e-4
    assert np.mean((logits.mean(0).numpy() > 0) == (label > 0.5)) > 0.85


def test_two_numbers_with_a_one_are_bradley_terry() -> None:
    head = GeneralPreferenceHead(members=1, numbers=2)
    worth = torch.tensor([[0.3], [-1.2], [2.0]])
    items = torch.stack([worth[:, 0], torch.ones(3)], -1)[None]
    scores = head.scores(items)[0]
    torch.testing.assert_close(scores, worth - worth.T)


def test_ideal_points_mix_as_their_weights_do(rng: np.random.Generator) -> None:
    head = IdealPointHead(1, 3, 5, generator=torch.Generator().manual_seed(0))
    e = torch.as_tensor(rng.normal(size=(1, 2, 1, 5)), dtype=torch.float32)
    weights = torch.tensor([0.2, 0.5, 0.3])
    ideal = weights @ head.prototypes[0]
    worth = head.rewards(e)[0, :, 0] @ weights
    distance = (e[0, :, 0] - ideal).square().sum(-1)
    torch.testing.assert_close(worth[0] - worth[1], distance[1] - distance[0])


def test_a_mixture_is_the_log_odds_of_the_mean_probability(rng: np.random.Generator) -> None:
    margins = torch.as_tensor(rng.normal(size=(2, 5, 3)) * 4)
    weights = torch.as_tensor(rng.dirichlet(np.ones(3), size=(2, 5)))
    chance = (weights * margins.sigmoid()).sum(-1)
    torch.testing.assert_close(mixed_log_odds(margins, weights, -1), chance.logit())
    one = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(mixed_log_odds(margins, one, -1), margins[..., 1])
    extreme = mixed_log_odds(margins * 1e3, weights, -1)
    assert torch.isfinite(extreme).all()


# --- populations -----------------------------------------------------------------------------


def test_answers_in_another_order_say_the_same(rng: np.random.Generator) -> None:
    model = fitted("vpl", judged(rng, each=6), epochs=2)
    few = judged(rng, each=5, raters=3)
    shuffled = few.take(rng.permutation(len(few)))
    torch.testing.assert_close(
        model.infer(few).weights, model.infer(shuffled).weights, atol=1e-5, rtol=1e-5
    )


def test_more_answers_narrow_the_posterior(rng: np.random.Generator) -> None:
    generator = torch.Generator().manual_seed(0)
    population = Amortised(2, 4, 5, reads=3, generator=generator)
    read = torch.as_tensor(rng.normal(size=(1, 5, 6, 6)), dtype=torch.float32)
    narrower = None
    for count in range(7):
        known = (torch.arange(6) < count).expand(1, 5, 6)
        mean, log_variance = population.posterior(read, known)
        if narrower is None:
            torch.testing.assert_close(mean, torch.zeros_like(mean))
            torch.testing.assert_close(log_variance, torch.zeros_like(log_variance))
        else:
            assert (log_variance < narrower).all()
        narrower = log_variance


def test_clusters_are_found_whatever_their_numbers(rng: np.random.Generator) -> None:
    model = fitted("maxmin", judged(rng, each=16), epochs=30)
    assert isinstance(model.head, PopulationHead)
    assert isinstance(model.head.population, HardClusters)
    for assignment in model.head.population.assignment.numpy():
        assert len({int(one) for one in assignment[::2]}) == 1
        assert len({int(one) for one in assignment[1::2]}) == 1
        assert assignment[0] != assignment[1]


def test_an_empty_cluster_is_revived() -> None:
    population = HardClusters(1, 2, 6)
    favours_first = torch.zeros(1, 12, 2)
    favours_first[..., 0] = 3.0
    population.reassess(favours_first, torch.ones(12), torch.arange(12) % 6)
    assert set(population.assignment[0].tolist()) == {0, 1}


def test_a_gate_reads_the_context_and_a_static_mixture_does_not(rng: np.random.Generator) -> None:
    generator = torch.Generator().manual_seed(0)
    gate = ContextGate(1, 3, 2, columns=(1,), generator=generator)
    context = torch.as_tensor(rng.normal(size=(1, 4, 2)), dtype=torch.float32)
    heard = Heard(torch.zeros(1, 4, dtype=torch.int64), context)
    weights = gate.weights(heard)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 4))
    moved = context.clone()
    moved[..., 0] += 5.0
    torch.testing.assert_close(gate.weights(heard._replace(context=moved)), weights)
    moved[..., 1] += 5.0
    assert not torch.allclose(gate.weights(heard._replace(context=moved)), weights)
    assert torch.equal(Pooled(1, 2).weights(heard), torch.full((1, 4, 2), 0.5))


def test_hedge_is_bayes_rule_and_moves_the_gate_alone(rng: np.random.Generator) -> None:
    log_weights = torch.as_tensor(rng.normal(size=(2, 5, 3))).log_softmax(-1)
    differences = torch.as_tensor(rng.normal(size=(2, 5, 3)))
    label = torch.as_tensor((rng.random(5) < 0.5).astype(float))
    chance = torch.where(label[:, None] > 0.5, differences.sigmoid(), (-differences).sigmoid())
    wanted = log_weights.exp() * chance
    torch.testing.assert_close(
        hedge_targets(log_weights, differences, label), wanted / wanted.sum(-1, keepdim=True)
    )
    torch.testing.assert_close(
        hedge_targets(log_weights, differences, label, 1e9), log_weights.exp(), atol=1e-6, rtol=0
    )
    model = fitted("micro", judged(rng, each=6), epochs=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told = adapt_router(model, judged(rng, each=1), steps=30)
    assert told[-1] < told[0]
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed
    assert all(name.startswith("head.population.gate") for name in changed)
    with pytest.raises(ValueError, match="has no router that reads a context"):
        adapt_router(made("mixture"), judged(rng, each=1))
    with pytest.raises(ValueError, match="temperature is 0"):
        hedge_targets(log_weights, differences, label, 0.0)


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, one in MODELS.items() if one.tells_raters_apart])
def test_answers_without_raters_are_refused(name: str, rng: np.random.Generator) -> None:
    anonymous = judged(rng).replace(rater_id=np.zeros(1, np.int64))
    model = made(name)
    with pytest.raises(ValueError, match="all answers carry the rater id 0, so raters cannot be"):
        fit(model, anonymous, adam(model), rng, epochs=1)
    with pytest.raises(ValueError, match="rater 40 answered, and there is room for the raters 0"):
        fit(model, judged(rng, raters=41), adam(model), rng, epochs=1)


def test_more_tastes_than_raters_are_refused() -> None:
    for kind in (Simplex, HardClusters):
        with pytest.raises(ValueError, match="2 raters cannot tell 3 tastes apart; make the model"):
            kind(1, 3, 2)
    with pytest.raises(ValueError, match="tastes is 0; wanted 1 or more"):
        TasteHead(0)
    with pytest.raises(ValueError, match="the head has 2 tastes and the population 3"):
        PopulationHead(TasteHead(2), Pooled(1, 3))
    with pytest.raises(ValueError, match="an even number of 2 or more"):
        GeneralPreferenceHead(1, 3)
    with pytest.raises(ValueError, match="preference model"):
        model_head("bradley")


@pytest.mark.parametrize("name", ["maxmin", "pal", "pal-distance"])
def test_more_tastes_than_raters_who_answered_are_refused(
    name: str, rng: np.random.Generator
) -> None:
    few, fewer = judged(rng, raters=3), judged(rng, raters=2)
    model = made(name, raters=4, tastes=3)
    with pytest.raises(ValueError, match=r"3 tastes cannot be learned from the 2 raters"):
        fit(model, fewer, adam(model), rng, epochs=1)
    with pytest.warns(UserWarning, match=r"no answers of 1 of 4 raters \(3\)"):
        fit(model, few, adam(model), rng, epochs=1)
    model.await_raters()
    with pytest.warns(UserWarning, match="3 tastes cannot be learned from the 2 raters"):
        fit(model, fewer, adam(model), rng, epochs=1)


def test_awaiting_raters_changes_no_fit(rng: np.random.Generator) -> None:
    comparisons, models = judged(rng, each=4), [made("maxmin") for _ in range(2)]
    models[1].await_raters()
    for model in models:
        fit(model, comparisons, adam(model), np.random.default_rng(0), epochs=2)
    a, b = drawn(rng, 5), drawn(rng, 5)
    assert torch.equal(models[0].logits(a, b), models[1].logits(a, b))


def test_settings_that_a_model_would_ignore_are_refused() -> None:
    for name in ("bt", "gpm", "vpl"):
        with pytest.raises(ValueError, match=f"model='{name}' has no tastes to choose"):
            model_head(name, tastes=5, raters=9)
    for asked in ({"tastes": 0}, {"raters": 0}):
        with pytest.raises(ValueError, match="is 0; wanted 1 or more"):
            model_head("vpl", **asked)


def test_who_cannot_be_inferred_is_said(rng: np.random.Generator) -> None:
    comparisons = judged(rng, each=2)
    with pytest.raises(ValueError, match="ScalarHead knows no raters"):
        made("bt").infer(comparisons)
    with pytest.raises(ValueError, match="do not depend on who is asked"):
        made("mixture").infer(comparisons)
    voices = made("pal").infer(comparisons)
    with pytest.raises(ValueError, match="rater 77 is not among the 40 voices"):
        made("pal").logits(comparisons.a, comparisons.b, np.full(len(comparisons), 77), voices)
    with pytest.raises(ValueError, match="voices came without rater_id"):
        made("pal").logits(comparisons.a, comparisons.b, voices=voices)
