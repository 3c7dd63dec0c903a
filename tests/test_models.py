"""Reward models: one batch of members equals separate networks; what is fitted, kept, refused."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from prefgym import losses
from prefgym.comparisons import Comparisons
from prefgym.models.encoders import (
    ACTIVATIONS,
    Encoder,
    MLPEncoder,
    Workspace,
    rows_at_once,
)
from prefgym.models.features import StepFeatures
from prefgym.models.fit import Pairs, PreferenceModel, _held_out, adam, fit
from prefgym.models.heads import Head, RewardHead, ScalarHead
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.rewards import worst_reward
from prefgym.segments import Segments

OBSERVATION, ACTION = spaces.Box(-9.0, 9.0, (3,)), spaces.Box(-1.0, 1.0, (2,))
TASTE = np.array([1.0, -2.0, 0.5, 1.0, 0.0])
"""A linear reward of observation and action."""


def segments(
    rng: np.random.Generator, count: int, steps: int = 8, least: int | None = None
) -> Segments:
    """Segments of ``least`` to ``steps`` steps in the spaces above, with TASTE as true reward."""
    lengths = rng.integers(least or steps, steps + 1, size=count)
    mask = np.arange(steps) < lengths[:, None]
    observations = (rng.standard_normal((count, steps, 3)) * mask[..., None]).astype(np.float32)
    actions = (rng.uniform(-1, 1, (count, steps, 2)) * mask[..., None]).astype(np.float32)
    return Segments(
        actions=actions,
        mask=mask,
        context=observations[:, 0],
        context_id=np.zeros(count, np.int64),
        observations=observations,
        rewards=np.concatenate([observations, actions], -1) @ TASTE,
    )


def judged(rng: np.random.Generator, pairs: int, **shape: int) -> Comparisons:
    """Pairs whose label says which has the larger true return."""
    a, b = segments(rng, pairs, **shape), segments(rng, pairs, **shape)
    assert a.rewards is not None
    assert b.rewards is not None
    return Comparisons(a, b, label=(a.rewards.sum(1) > b.rewards.sum(1)).astype(np.float64))


def small(seed: int = 0, members: int = 3, **changes: Any) -> RewardModel:
    return reward_model(OBSERVATION, ACTION, members, (16, 16), seed=seed, **changes)


def agreement(model: PreferenceModel, comparisons: Comparisons) -> float:
    """Share of pairs on whose better side the mean member stands."""
    assert isinstance(model, RewardModel)
    logits = model.logits(comparisons.a, comparisons.b).mean(0).numpy()
    return float(np.mean((logits > 0) == (comparisons.label > 0.5)))


def separate(encoder: MLPEncoder, member: int, activation: nn.Module) -> nn.Sequential:
    """One member as a network of PyTorch's own linear layers, with the same weights."""
    layers: list[nn.Module] = []
    for weight, bias in zip(encoder.weights, encoder.biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.data.copy_(weight[member].T)
        linear.bias.data.copy_(bias[member, 0])
        layers += [linear, activation]
    return nn.Sequential(*layers[:-1])


# --- encoders --------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (8,), (8, 4, 16)])
@pytest.mark.parametrize("outputs", [1, 3, 9])
@pytest.mark.parametrize(
    ("activation", "module"),
    [("relu", nn.ReLU()), ("leaky_relu", nn.LeakyReLU()), ("tanh", nn.Tanh())],
)
def test_one_batch_of_members_equals_separate_networks(
    hidden: tuple[int, ...], outputs: int, activation: str, module: nn.Module
) -> None:
    generator = torch.Generator().manual_seed(0)
    encoder = MLPEncoder(5, outputs, 3, hidden, activation, generator)
    rows = torch.randn(3, 20, 5, generator=generator)
    together = encoder(rows)
    weighting = torch.randn(together.shape, generator=generator)
    (together * weighting).sum().backward()
    for member in range(3):
        alone = separate(encoder, member, module)
        out = alone(rows[member])
        torch.testing.assert_close(together[member], out)
        (out * weighting[member]).sum().backward()
        linears = [layer for layer in alone if isinstance(layer, nn.Linear)]
        for weight, bias, linear in zip(encoder.weights, encoder.biases, linears, strict=True):
            assert weight.grad is not None
            assert bias.grad is not None
            assert linear.weight.grad is not None
            torch.testing.assert_close(weight.grad[member], linear.weight.grad.T)
            torch.testing.assert_close(bias.grad[member, 0], linear.bias.grad)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("outputs", [1, 2])
def test_gradients_agree_with_differences(activation: str, outputs: int) -> None:
    generator = torch.Generator().manual_seed(1)
    encoder = MLPEncoder(4, outputs, 2, (5, 3), activation, generator).double()
    rows = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    leaves = [rows.requires_grad_(), *encoder.parameters()]
    encoder(rows).pow(2).sum().backward()
    for leaf in leaves:
        way = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            ends = []
            for step in (1e-6, -2e-6):
                leaf += step * way
                ends.append(encoder(rows).pow(2).sum().item())
            leaf += 1e-6 * way
        assert leaf.grad is not None
        slope = (leaf.grad * way).sum().item()
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_one_batch_shown_to_all_members_equals_copies_of_it() -> None:
    encoder = MLPEncoder(5, 1, 3, (8,), "relu", torch.Generator().manual_seed(0))
    rows = torch.randn(1, 20, 5).expand(3, -1, -1)
    torch.testing.assert_close(encoder(rows), encoder(rows.contiguous()))


def test_two_graphs_alive_at_once_do_not_disturb_each_other() -> None:
    encoder = MLPEncoder(5, 1, 2, (8, 8), "relu", torch.Generator().manual_seed(0))
    rows = torch.randn(2, 20, 5, generator=torch.Generator().manual_seed(1))
    parameters = list(encoder.parameters())

    def gradients(scale: float) -> tuple[Tensor, ...]:
        return torch.autograd.grad(encoder(rows * scale).sum(), parameters)

    alone = gradients(1.0), gradients(2.0)
    first, second = encoder(rows).sum(), encoder(rows * 2.0).sum()
    with torch.no_grad():
        encoder(rows * 3.0)
    together = torch.autograd.grad(first, parameters), torch.autograd.grad(second, parameters)
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


def test_a_gradient_is_taken_once() -> None:
    encoder = MLPEncoder(5, 1, 2, (8,), "relu", torch.Generator().manual_seed(0))
    total = encoder(torch.ones(2, 3, 5)).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="its gradient can be taken once; call it again"):
        total.backward()


def test_a_workspace_lends_the_same_memory_again_and_never_twice() -> None:
    space, like = Workspace(), torch.zeros(1)
    first, second = space.take(like, 4, 3), space.take(like, 2, 5)
    assert first.data_ptr() != second.data_ptr()
    place = first.data_ptr()
    space.give_back(first)
    assert space.take(like, 2, 2).data_ptr() == place
    assert space.take(like.double(), 2).dtype == torch.float64


def test_members_differ_and_the_seed_decides() -> None:
    model, again, other = small(0), small(0), small(1)
    weights = model.encoder.weights[0]
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights, again.encoder.weights[0])
    assert not torch.equal(weights, other.encoder.weights[0])
    assert weights.abs().max() <= 1.0 / 5**0.5


def test_the_global_generator_is_neither_read_nor_moved(rng: np.random.Generator) -> None:
    before = torch.get_rng_state()
    model = small()
    fit(model, judged(rng, 20), adam(model), np.random.default_rng(0), epochs=2)
    assert torch.equal(before, torch.get_rng_state())


# --- features --------------------------------------------------------------------------------


def one_step(observation: Any, action: Any) -> Segments:
    observations, actions = np.asarray(observation)[None, None], np.asarray(action)[None, None]
    return Segments(
        actions=actions,
        mask=np.ones((1, 1), bool),
        context=observations[:, 0],
        context_id=np.zeros(1, np.int64),
        observations=observations,
    )


@pytest.mark.parametrize(
    ("observation_space", "action_space", "observation", "action", "row"),
    [
        (OBSERVATION, ACTION, [1.0, 2.0, 3.0], [0.5, -0.5], [1, 2, 3, 0.5, -0.5]),
        (
            spaces.Box(0, 9, (2, 2)),
            spaces.Discrete(3),
            [[1.0, 2.0], [3.0, 4.0]],
            2,
            [1, 2, 3, 4, 0, 0, 1],
        ),
        (spaces.Discrete(2), spaces.Discrete(3, start=-1), 1, -1, [0, 1, 1, 0, 0]),
        (
            spaces.MultiDiscrete([2, 3]),
            spaces.MultiBinary(2),
            [1, 0],
            [0, 1],
            [0, 1, 1, 0, 0, 0, 1],
        ),
        (
            spaces.Box(0, 255, (2,), np.uint8),
            spaces.Discrete(2),
            np.array([7, 255], np.uint8),
            0,
            [7, 255, 1, 0],
        ),
    ],
)
def test_steps_as_rows(
    observation_space: Space[Any],
    action_space: Space[Any],
    observation: Any,
    action: Any,
    row: list[float],
) -> None:
    features = StepFeatures(observation_space, action_space)
    rows = features(one_step(observation, action))
    assert rows.dtype == torch.float32
    assert rows[0, 0].tolist() == row
    assert features.width == len(row) == len(features.measured)


def test_padding_is_zero_even_where_zero_is_a_category() -> None:
    two = Segments(
        actions=np.array([[1, 0]]),
        mask=np.array([[True, False]]),
        context=np.zeros((1, 1), np.float32),
        context_id=np.zeros(1, np.int64),
        observations=np.full((1, 2, 1), np.nan, np.float32) * np.array([[[0.0], [1.0]]]),
    )
    two = two.replace(observations=np.array([[[5.0], [np.nan]]], np.float32))
    rows = StepFeatures(spaces.Box(0, 9, (1,)), spaces.Discrete(2))(two)
    assert rows.tolist() == [[[5.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: reward_model(spaces.Dict(), ACTION), "the observation space is Dict"),
        (lambda: reward_model(OBSERVATION, spaces.Text(3)), "the action space is Text"),
        (lambda: reward_model(OBSERVATION, ACTION, members=0), "members is 0"),
        (lambda: reward_model(OBSERVATION, ACTION, hidden=(0,)), "wanted 1 or more"),
        (
            lambda: reward_model(OBSERVATION, ACTION, activation="relo"),
            "Unknown activation 'relo'; did you mean 'relu'",
        ),
        (
            lambda: small().rewards(one_step([1.0], [0.0, 0.0])),
            r"observations of a step have shape \(1,\), wanted \(3,\)",
        ),
        (
            lambda: small().rewards(one_step([1.0, 2.0, np.nan], [0.0, 0.0])),
            "segment 0 holds NaN or infinite",
        ),
        (
            lambda: small().rewards(
                one_step([1.0, 2.0, 3.0], [0.0, 0.0]).replace(observations=None)
            ),
            "hold no observations",
        ),
        (
            lambda: StepFeatures(OBSERVATION, spaces.Discrete(2))(one_step([1.0, 2.0, 3.0], 2)),
            "an action lies outside Discrete",
        ),
        (lambda: small().standardise(segments(np.random.default_rng(0), 0)), "got no steps"),
    ],
)
def test_what_a_model_refuses(act: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        act()


def test_read_only_arrays_are_read(rng: np.random.Generator) -> None:
    batch = segments(rng, 4)
    for array in batch.arrays().values():
        array.flags.writeable = False
    data = Comparisons(batch, batch.take(slice(None, None, -1)), label=np.broadcast_to(1.0, 4))
    model = small()
    fit(model, data, adam(model), rng, epochs=1)


# --- reward models ---------------------------------------------------------------------------


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), tanh=st.booleans())
def test_laws_of_logits_and_rewards(seed: int, tanh: bool) -> None:
    rng = np.random.default_rng(seed)
    model = small(seed, tanh=tanh)
    a, b = segments(rng, 5, least=1), segments(rng, 5, least=1)
    logits = model.logits(a, b)
    torch.testing.assert_close(logits, -model.logits(b, a), rtol=0, atol=0)
    assert not model.logits(a, a).any()
    rewards = model.member_rewards(a)
    assert rewards.shape == (3, 5, 8)
    assert not rewards[:, ~torch.as_tensor(a.mask)].any()
    torch.testing.assert_close(logits, rewards.sum(2) - model.member_rewards(b).sum(2))
    torch.testing.assert_close(model.rewards(a), rewards.mean(0))
    if tanh:
        assert rewards.abs().max() < 1.0


def test_padding_changes_nothing(rng: np.random.Generator) -> None:
    model, short, data = small(), segments(rng, 5, least=1), judged(rng, 12, least=1)
    long = short.padded(13)
    torch.testing.assert_close(model.rewards(long)[:, :8], model.rewards(short))
    torch.testing.assert_close(model.logits(long, short), torch.zeros(3, 5))
    other = small()
    fit(model, data, adam(model), np.random.default_rng(0), epochs=3)
    wider = data.replace(b=data.b.padded(11))
    fit(other, wider, adam(other), np.random.default_rng(0), epochs=3)
    torch.testing.assert_close(model.rewards(short), other.rewards(short))


def test_long_batches_are_computed_in_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = small(), segments(rng, 9)
    whole = model.rewards(batch)
    monkeypatch.setattr("prefgym.models.reward_models.rows_at_once", lambda *_: 7)
    torch.testing.assert_close(model.rewards(batch), whole)


def test_a_step_alone_is_worth_what_it_is_in_its_segment(rng: np.random.Generator) -> None:
    model, batch = small(), segments(rng, 4)
    model.standardise(batch)
    assert batch.observations is not None
    alone = model.step_reward(batch.observations[2, 5], batch.actions[2, 5])
    assert alone == pytest.approx(float(model.rewards(batch)[2, 5]), rel=1e-5)


def test_standardised_rewards_have_mean_zero_and_deviation_one(rng: np.random.Generator) -> None:
    model, batch = small(), segments(rng, 50, least=1)
    before = model.logits(batch, batch.take(slice(None, None, -1)))
    model.standardise(batch)
    rewards = model.rewards(batch)[torch.as_tensor(batch.mask)]
    assert rewards.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert rewards.std(correction=0).item() == pytest.approx(1.0, abs=1e-5)
    members = [rewards.mean() for rewards in model.member_rewards(batch)]
    assert len({round(float(one), 4) for one in members}) == 3
    torch.testing.assert_close(model.logits(batch, batch.take(slice(None, None, -1))), before)
    assert not model.rewards(batch)[~torch.as_tensor(batch.mask)].any()
    assert (model.rewards(batch, worst_reward) <= model.rewards(batch) + 1e-6).all()


def test_a_constant_reward_is_only_shifted() -> None:
    model = small()
    with torch.no_grad():
        model.encoder.weights[-1].zero_()
        model.encoder.biases[-1].fill_(0.7)
    batch = segments(np.random.default_rng(0), 5)
    model.standardise(batch)
    assert model.rewards(batch).abs().max() < 1e-6


def test_features_are_normalised_over_all_that_was_counted(rng: np.random.Generator) -> None:
    model, halves = small(), small()
    batch = segments(rng, 40, least=2)
    assert batch.observations is not None
    batch = batch.replace(
        observations=batch.observations * np.float32(5) + batch.mask[..., None] * np.float32(3)
    )
    model.normalise(batch)
    for half in (batch.take(slice(0, 13)), batch.take(slice(13, None))):
        halves.normalise(half)
    rows = model.features(batch)[torch.as_tensor(batch.mask)].double()
    torch.testing.assert_close(rows.mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        rows.std(0, correction=0), torch.ones(5, dtype=torch.float64), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(halves.feature_mean, model.feature_mean)
    torch.testing.assert_close(halves.feature_variance, model.feature_variance)
    assert halves.feature_count == batch.mask.sum()


def test_flags_and_constants_are_not_normalised() -> None:
    model = reward_model(spaces.Box(0, 9, (1,)), spaces.Discrete(3))
    batch = one_step([4.0], 1)
    model.normalise(batch)
    assert model.features(batch).tolist() == [[[0.0, 0.0, 1.0, 0.0]]]
    model.normalise(batch.take(slice(0, 0)))
    assert model.feature_count == 1


def test_an_outline_is_the_mean_of_the_real_steps(rng: np.random.Generator) -> None:
    model, batch = small(), segments(rng, 6, least=1)
    model.normalise(batch)
    outline = model.outline(batch)
    for row, length in enumerate(batch.mask.sum(1)):
        mean = model.features(batch)[row, :length].mean(0)
        torch.testing.assert_close(outline[row], mean)
    torch.testing.assert_close(model.outline(batch.padded(20)), outline)


def test_outliers_are_held_at_ten_deviations(rng: np.random.Generator) -> None:
    model = small()
    model.normalise(segments(rng, 50))
    assert model.features(one_step([1e6, 0.0, 0.0], [0.0, 0.0]))[0, 0, 0] == 10.0


# --- fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_linear_reward_is_learned_from_300_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, data = small(seed), judged(rng, 300)
    metrics = fit(model, data, adam(model, 3e-3), rng, epochs=60, batch_pairs=32, stop_accuracy=1.0)
    assert metrics["accuracy"] > 0.95
    assert agreement(model, judged(rng, 1000)) > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_learned_from_labels_at_random(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, data = small(seed), judged(rng, 300)
    data = data.replace(label=rng.integers(2, size=300).astype(np.float64))
    fit(model, data, adam(model, 3e-3), rng, epochs=20, batch_pairs=32)
    assert 0.25 < agreement(model, judged(rng, 1000)) < 0.75


def test_the_fit_is_what_separate_networks_and_autograd_would_do(rng: np.random.Generator) -> None:
    """Against the plainest program: one network at a time, PyTorch's own layers and optimizer."""
    model, data = small(), judged(rng, 50, least=3)
    data = data.replace(
        weight=rng.uniform(0.1, 3.0, 50), label=rng.choice([0.0, 0.5, 0.7, 1.0], 50)
    )
    alone = [separate(model.encoder, member, nn.LeakyReLU()) for member in range(3)]
    optimizer = adam(model, 1e-3, weight_decay=0.1)
    metrics = fit(
        model,
        data,
        optimizer,
        np.random.default_rng(7),
        epochs=4,
        batch_pairs=16,
        stop_accuracy=1.0,
    )
    orders = np.random.default_rng(7)
    label, weight = (
        torch.tensor(data.label).float(),
        torch.tensor(data.weight / data.weight.mean()).float(),
    )
    sides = [model.features(side) for side in (data.a, data.b)]
    masks = [torch.as_tensor(side.mask) for side in (data.a, data.b)]
    optimizers = [torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.1) for net in alone]
    for _ in range(4):
        order = orders.permuted(np.tile(np.arange(50), (3, 1)), axis=1)
        total = 0.0
        for member, (net, own) in enumerate(zip(alone, optimizers, strict=True)):
            for part in torch.as_tensor(order[member]).split(16):
                own.zero_grad()
                worth = [
                    (net(rows[part])[..., 0] * mask[part]).sum(1)
                    for rows, mask in zip(sides, masks, strict=True)
                ]
                each = functional.binary_cross_entropy_with_logits(
                    worth[0] - worth[1], label[part], weight[part], reduction="none"
                )
                each.mean().backward()
                own.step()
                total += each.sum().item()
    assert metrics["loss"] == pytest.approx(total / 150, rel=1e-4)
    assert metrics["gradient_steps"] == 16.0
    for member, net in enumerate(alone):
        linears = [layer for layer in net if isinstance(layer, nn.Linear)]
        for weight_, linear in zip(model.encoder.weights, linears, strict=True):
            torch.testing.assert_close(weight_[member], linear.weight.T, atol=2e-5, rtol=1e-3)


def state(model: RewardModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(one: RewardModel, other: RewardModel) -> None:
    torch.testing.assert_close(state(one), state(other), rtol=0, atol=0)


def test_equal_states_give_equal_bits(rng: np.random.Generator) -> None:
    data, models = judged(rng, 70), [small(), small()]
    for model in models:
        fit(model, data, adam(model), np.random.default_rng(5), epochs=3, batch_pairs=32)
    assert_same(*models)


def test_a_fit_resumed_from_saved_states_is_the_unbroken_fit(rng: np.random.Generator) -> None:
    data, settings_ = judged(rng, 70), {"batch_pairs": 32, "stop_accuracy": 1.0}
    whole, draws = small(), np.random.default_rng(5)
    optimizer = adam(whole)
    for _ in range(2):
        fit(whole, data, optimizer, draws, epochs=3, **settings_)
    half, draws = small(), np.random.default_rng(5)
    optimizer = adam(half)
    fit(half, data, optimizer, draws, epochs=3, **settings_)
    resumed, fresh = small(seed=9), np.random.default_rng(0)
    resumed.load_state_dict(state(half))
    restored = adam(resumed)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    fresh.bit_generator.state = draws.bit_generator.state
    fit(resumed, data, restored, fresh, epochs=3, **settings_)
    assert_same(resumed, whole)


def test_a_saved_state_says_all_that_rewards_depend_on(rng: np.random.Generator) -> None:
    model, other, batch = small(), small(seed=4), segments(rng, 6)
    model.normalise(batch)
    fit(model, judged(rng, 30), adam(model), rng, epochs=2)
    model.standardise(batch)
    other.load_state_dict(state(model))
    for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.rewards(batch), model.rewards(batch))


def test_minibatches_cut_into_blocks_give_the_same_fit(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, models = judged(rng, 40), [small(), small()]
    told = []
    for model, rows in zip(models, (10**9, 3), strict=True):
        monkeypatch.setattr("prefgym.models.fit.rows_at_once", lambda *_, rows=rows: rows)
        told.append(
            fit(model, data, adam(model), np.random.default_rng(0), epochs=3, batch_pairs=16)
        )
    logits = [model.logits(data.a, data.b) for model in models]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)
    assert told[0]["loss"] == pytest.approx(told[1]["loss"], rel=1e-5)


def test_only_ratios_of_weights_matter(rng: np.random.Generator) -> None:
    data, models = judged(rng, 40), [small(), small()]
    weight = rng.uniform(0.5, 2.0, 40)
    for model, scale in zip(models, (1.0, 8.0), strict=True):
        fit(
            model,
            data.replace(weight=scale * weight),
            adam(model),
            np.random.default_rng(0),
            epochs=3,
        )
    assert_same(*models)


def test_comparisons_without_weight_teach_nothing(rng: np.random.Generator) -> None:
    good, bad = judged(rng, 150), judged(rng, 150)
    data = Comparisons.concatenate(
        [good.replace(weight=np.ones(150)), bad.replace(label=1 - bad.label, weight=np.zeros(150))]
    )
    model = small()
    metrics = fit(model, data, adam(model, 3e-3), rng, epochs=60, batch_pairs=32, stop_accuracy=1.0)
    assert metrics["accuracy"] > 0.95
    assert agreement(model, judged(rng, 500)) > 0.9


def test_ties_are_left_out_of_the_accuracy_and_pull_margins_together(
    rng: np.random.Generator,
) -> None:
    data = judged(rng, 100)
    label = np.where(np.arange(100) < 50, 0.5, data.label)
    model = small()
    metrics = fit(
        model,
        data.replace(label=label),
        adam(model, 3e-3),
        rng,
        epochs=80,
        batch_pairs=25,
        stop_accuracy=1.0,
    )
    assert metrics["accuracy"] > 0.95
    margins = model.logits(data.a, data.b).abs().mean(0)
    assert margins[:50].mean() < 0.5 * margins[50:].mean()
    only = fit(small(), data.replace(label=np.full(100, 0.5)), adam(model), rng, epochs=2)
    assert only["accuracy"] == 0.5
    assert only["epochs"] == 2.0


def test_the_fit_stops_once_it_is_accurate_enough(rng: np.random.Generator) -> None:
    model, data = small(), judged(rng, 200)
    metrics = fit(
        model, data, adam(model, 3e-3), rng, epochs=500, batch_pairs=32, stop_accuracy=0.9
    )
    assert metrics["epochs"] < 100
    assert metrics["accuracy"] > 0.9
    assert metrics["gradient_steps"] == metrics["epochs"] * 7


def test_held_out_pairs_stay_held_out_while_the_data_grow(rng: np.random.Generator) -> None:
    data = judged(rng, 100)
    model, other = small(), small()
    metrics = fit(
        model, data, adam(model), np.random.default_rng(0), epochs=2, validation_share=0.2
    )
    assert metrics["pairs"] + metrics["val_pairs"] == 100
    assert metrics["val_pairs"] == pytest.approx(20, abs=1)
    assert 0 <= metrics["val_accuracy"] <= 1
    assert np.isfinite(metrics["val_loss"])
    held = [_held_out(count, 0.2) for count in (50, 100)]
    assert np.array_equal(held[0], held[1][:50])
    corrupted = data.replace(label=np.where(held[1], 1 - data.label, data.label))
    fit(other, corrupted, adam(other), np.random.default_rng(0), epochs=2, validation_share=0.2)
    assert_same(model, other)


def test_bootstrap_gives_every_member_pairs_of_its_own(rng: np.random.Generator) -> None:
    """With one pair left out of a member's bag, its label cannot matter to that member."""
    data = judged(rng, 6)
    bags = np.random.default_rng(3).integers(6, size=(3, 6))
    outcomes = []
    for label in (data.label, np.where(np.arange(6) == 0, 1 - data.label, data.label)):
        model = small()
        fit(
            model,
            data.replace(label=label),
            adam(model),
            np.random.default_rng(3),
            epochs=2,
            bootstrap=True,
        )
        outcomes.append(model.encoder.weights[0].detach())
    for member in range(3):
        same = torch.equal(outcomes[0][member], outcomes[1][member])
        assert same == (0 not in bags[member])


@pytest.mark.parametrize(
    "loss",
    [losses.lapsing, losses.smoothed, losses.robust, losses.square, losses.hinge, losses.ties],
)
def test_every_loss_fits(loss: losses.PairLoss, rng: np.random.Generator) -> None:
    model, data = small(), judged(rng, 200)
    metrics = fit(model, data, adam(model, 3e-3), rng, epochs=30, batch_pairs=32, loss=loss)
    assert metrics["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0 and batch_pairs 128; wanted 1 or more"),
        ({"batch_pairs": 0}, "batch_pairs 0; wanted 1 or more"),
        ({"validation_share": 1.0}, r"validation_share is 1.0, wanted a number in \[0, 1\)"),
        (
            {"comparisons": judged(np.random.default_rng(0), 0)},
            "got no comparisons; ask a rater first",
        ),
        (
            {"comparisons": judged(np.random.default_rng(0), 4).replace(weight=np.zeros(4))},
            "the 4 comparisons to fit have no weight",
        ),
    ],
)
def test_what_a_fit_refuses(arguments: dict[str, Any], sentence: str) -> None:
    rng, model = np.random.default_rng(0), small()
    call = {"comparisons": judged(rng, 4), **arguments}
    with pytest.raises(ValueError, match=sentence):
        fit(model, optimizer=adam(model), rng=rng, **call)


def test_a_loss_that_is_not_finite_stops_the_fit_before_its_step(rng: np.random.Generator) -> None:
    model = small()
    before = state(model)

    def broken(margin: Tensor, label: Tensor) -> Tensor:
        return margin * float("nan")

    with pytest.raises(RuntimeError, match=r"the loss became nan .* lower the learning rate"):
        fit(model, judged(rng, 4), adam(model), rng, loss=broken)
    torch.testing.assert_close(state(model), before, rtol=0, atol=0)


def test_a_model_gone_astray_says_so(rng: np.random.Generator) -> None:
    model = small()
    with torch.no_grad():
        model.encoder.biases[-1].fill_(float("nan"))
    with pytest.raises(RuntimeError, match="a reward is NaN or infinite"):
        model.rewards(segments(rng, 2))


# --- other heads and models ------------------------------------------------------------------


class SkewModel(nn.Module):
    """A user's own pairwise model: two numbers per segment, compared by their angle."""

    def __init__(self, members: int = 2) -> None:
        super().__init__()
        self.members = members
        self.encoder = MLPEncoder(2, 2, members, (32,), "tanh", torch.Generator().manual_seed(0))
        self.kept_per_step = 32
        self.device = torch.device("cpu")

    def features(self, batch: Segments) -> Tensor:
        return torch.as_tensor(batch.observations)

    def margins(self, pairs: Pairs) -> Tensor:
        rows = pairs.features.flatten(1, 3)
        a, b = self.encoder(rows).view(*pairs.features.shape[:3], 2).unbind(2)
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def test_a_pairwise_model_learns_the_cycle_that_rewards_cannot(rng: np.random.Generator) -> None:
    """P(a ≻ b) = 1 where a lies up to half a turn ahead of b: no reward has this order."""
    angles = rng.uniform(0, 2 * np.pi, (2, 800))
    sides = []
    for angle in angles:
        place = np.stack([np.cos(angle), np.sin(angle)], -1)[:, None].astype(np.float32)
        sides.append(
            Segments(
                actions=np.zeros((800, 1, 1), np.float32),
                mask=np.ones((800, 1), bool),
                context=place[:, 0],
                context_id=np.zeros(800, np.int64),
                observations=place,
            )
        )
    cycle = Comparisons(*sides, label=(np.sin(angles[0] - angles[1]) > 0).astype(np.float64))
    pairwise_model = SkewModel()
    scalar = reward_model(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)), 2, (32,), "tanh")
    run = partial(fit, comparisons=cycle, epochs=30, batch_pairs=32, stop_accuracy=1.0)
    told = [
        run(model, optimizer=adam(model, 1e-2), rng=np.random.default_rng(0))
        for model in (pairwise_model, scalar)
    ]
    assert told[0]["accuracy"] > 0.95
    assert told[1]["accuracy"] < 0.65


class OwnShape(nn.Module):
    """A model that reads whole segments, as numbers or as codes, in any shape."""

    def __init__(self, read: Callable[[Segments], Tensor]) -> None:
        super().__init__()
        self.members, self.kept_per_step, self.device = 2, 1, torch.device("cpu")
        self.read = read
        self.scale = nn.Parameter(torch.zeros(2))
        self.shapes: set[tuple[int, ...]] = set()

    def features(self, batch: Segments) -> Tensor:
        return self.read(batch)

    def margins(self, pairs: Pairs) -> Tensor:
        assert pairs.mask.shape == (*pairs.features.shape[:3], 8)
        self.shapes.add(tuple(pairs.features.shape[3:]))
        worth = pairs.features.flatten(3) if pairs.features.ndim > 3 else pairs.features[..., None]
        a, b = worth.float().sum(-1).unbind(2)
        return self.scale[:, None] * (a - b)


@pytest.mark.parametrize("shape", [(), (8,), (2, 2, 2)])
@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
def test_a_model_reads_segments_in_its_own_shape(
    shape: tuple[int, ...], kind: torch.dtype, rng: np.random.Generator
) -> None:
    def read(batch: Segments) -> Tensor:
        rewards = torch.as_tensor(batch.rewards) * 1000
        return (rewards if shape else rewards.sum(1)).to(kind).view(len(batch), *shape)

    model = OwnShape(read)
    told = fit(model, judged(rng, 60), adam(model), rng, epochs=2, validation_share=0.2)
    assert model.shapes == {shape}
    assert told["val_accuracy"] == 1.0
    assert (model.scale > 0).all()


def test_models_and_heads_are_what_they_say() -> None:
    assert isinstance(small(), PreferenceModel)
    assert isinstance(SkewModel(), PreferenceModel)
    assert isinstance(small().encoder, Encoder)
    assert isinstance(ScalarHead(), Head)
    assert isinstance(ScalarHead(), RewardHead)
    assert [into for into, _ in pairwise((5, 16, 16, 1))] == [
        weight.shape[1] for weight in small().encoder.weights
    ]
    assert rows_at_once(0, torch.device("cpu")) > 1
