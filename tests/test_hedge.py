"""Hedge targets, and a router that is adapted to few answers: laws."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from prefgym.comparisons import Comparisons
from prefgym.models.heads import TasteHead
from prefgym.models.populations import ContextGate, PopulationHead
from prefgym.models.populations.hedge import adapt_router, hedge_targets
from prefgym.models.populations.population import mixed_log_odds
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.segments import Segments

SEEN, DONE = spaces.Box(-9.0, 9.0, (2,)), spaces.Box(-9.0, 9.0, (1,))


def drawn(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights of a router, differences of the tastes, and labels of a few answers."""
    log_weights = torch.as_tensor(rng.normal(size=(2, 7, 3))).log_softmax(-1)
    differences = torch.as_tensor(3.0 * rng.normal(size=(2, 7, 3)))
    return log_weights, differences, torch.as_tensor(rng.integers(0, 2, 7) * 1.0)


def routed() -> RewardModel:
    """Two members whose tastes are the action and its opposite, and whose gate reads column 0."""

    def head(members: int, reads: int, generator: torch.Generator) -> PopulationHead:
        gate = ContextGate(members, 2, reads, True, columns=(0,), generator=generator)
        nn.init.zeros_(gate.gate.weights[-1])
        nn.init.zeros_(gate.gate.biases[-1])
        return PopulationHead(TasteHead(2), gate)

    model = reward_model(SEEN, DONE, 2, (), seed=0, head=head)
    with torch.no_grad():
        model.encoder.weights[0].zero_()[:, 2] = torch.tensor([4.0, -4.0])
        model.encoder.biases[0].zero_()
    return model


def answered(rng: np.random.Generator, many: int, known: bool = True) -> Comparisons:
    """Large actions are liked where column 0 is above 0 and disliked elsewhere; or by chance."""
    place = np.repeat(rng.normal(size=(many, 1, 2)), 3, 1).astype(np.float32)
    sides = []
    for _ in range(2):
        actions = rng.normal(size=(many, 3, 1)).astype(np.float32)
        mask, nothing = np.ones((many, 3), bool), np.zeros(many, np.int64)
        sides.append(Segments(actions, mask, place[:, 0], nothing, observations=place))
    gap = (sides[0].actions - sides[1].actions).sum((1, 2))
    sign = np.sign(place[:, 0, 0]) if known else rng.choice([-1.0, 1.0], many)
    return Comparisons(*sides, (sign * gap > 0).astype(np.float64))


def accuracy(model: RewardModel, test: Comparisons) -> float:
    told = model.logits(test.a, test.b).mean(0).numpy() > 0.0
    return float((told == (test.label > 0.5)).mean())


def test_mirrored_answers_have_equal_targets(rng: np.random.Generator) -> None:
    log_weights, differences, label = drawn(rng)
    soft = 0.1 + 0.7 * label
    for temperature in (0.3, 1.0, 5.0):
        one = hedge_targets(log_weights, differences, soft, temperature)
        other = hedge_targets(log_weights, -differences, 1.0 - soft, temperature)
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one.sum(-1), torch.ones_like(one[..., 0]))


def test_answers_that_tell_nothing_leave_the_router(rng: np.random.Generator) -> None:
    log_weights, differences, label = drawn(rng)
    alike = differences[..., :1].expand_as(differences)
    torch.testing.assert_close(hedge_targets(log_weights, alike, label), log_weights.exp())
    sharp = hedge_targets(log_weights, differences, label, temperature=1e-6)
    best = (differences * (2.0 * label - 1.0)[:, None]).argmax(-1)
    torch.testing.assert_close(sharp.argmax(-1), best)


def test_cross_entropy_descends_as_the_mixture_does(rng: np.random.Generator) -> None:
    log_weights, differences, label = drawn(rng)
    gradients = []
    for hedged in (True, False):
        logits = log_weights.clone().requires_grad_()
        log_odds = logits.log_softmax(-1)
        if hedged:
            target = hedge_targets(log_odds.detach(), differences, label)
            loss = -(target * log_odds).sum()
        else:
            margin = mixed_log_odds(differences, log_odds.exp(), -1)
            said = label.expand_as(margin)
            loss = nn.functional.binary_cross_entropy_with_logits(margin, said, reduction="sum")
        gradients.append(torch.autograd.grad(loss, logits)[0])
    torch.testing.assert_close(*gradients)


def test_a_uniform_router_begins_uniform_and_learns_from_few_answers(
    rng: np.random.Generator,
) -> None:
    model, test = routed(), answered(rng, 500)
    torch.testing.assert_close(model.logits(test.a, test.b), torch.zeros(2, 500))
    before = [one.clone() for one in model.encoder.parameters()]
    told = adapt_router(model, answered(rng, 40))
    assert told[0] == pytest.approx(np.log(2), abs=1e-6)
    assert accuracy(model, test) > 0.85
    for one, other in zip(model.encoder.parameters(), before, strict=True):
        assert torch.equal(one, other)


def test_contexts_that_tell_nothing_route_nothing(rng: np.random.Generator) -> None:
    model, test = routed(), answered(rng, 500, known=False)
    adapt_router(model, answered(rng, 40, known=False))
    assert abs(accuracy(model, test) - 0.5) < 0.1


def test_weights_count_as_copies_of_an_answer(rng: np.random.Generator) -> None:
    few = answered(rng, 6)
    often = few.take(np.array([0, 0, 0, 1, 2, 3, 4, 5]))
    weighted = few.replace(weight=np.array([3.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
    fitted = []
    for comparisons in (often, weighted):
        model = routed()
        adapt_router(model, comparisons, steps=20)
        fitted.append(model.logits(few.a, few.b))
    torch.testing.assert_close(*fitted, atol=1e-4, rtol=1e-3)


def test_nothing_to_adapt_to_is_said(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="the 0 comparisons have no weight in all"):
        adapt_router(routed(), answered(rng, 3).take(slice(0)))
