"""Reward models of text: against a plain forward pass by hand; what is learned, kept, refused."""

import copy
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from prefgym import checkpoints
from prefgym.comparisons import Comparisons
from prefgym.models.fit import Pairs, PreferenceModel, adam, fit
from prefgym.models.language import LanguageRewardModel, language_reward_model
from prefgym.models.presets import MODELS, model_head
from prefgym.models.reward_models import PointwiseModel, reward_model
from prefgym.rewards import worst_reward
from prefgym.segments import Segments
from prefgym.text import Layout, Vocabulary

transformers = pytest.importorskip("transformers", reason="needs prefgym[text]")

WORDS = Vocabulary.of(*"abcdefgh")
LAYOUT = Layout(WORDS, prompt_tokens=4, response_tokens=8)
WORTH = np.array([0.0, 0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 0.0, 1.0])
"""The true reward of each word."""


def configuration(width: int = 32, vocabulary: int = WORDS.size, positions: int = 32) -> Any:
    return transformers.GPT2Config(
        vocab_size=vocabulary,
        n_positions=positions,
        n_embd=width,
        n_layer=2,
        n_head=2,
        bos_token_id=None,
        eos_token_id=None,
    )


def small(seed: int = 0, members: int = 3, width: int = 16, **changes: Any) -> LanguageRewardModel:
    return language_reward_model(configuration(width), LAYOUT, members, seed=seed, **changes)


def texts(
    rng: np.random.Generator, count: int, context: np.ndarray | None = None, turned: bool = False
) -> Segments:
    """Prompts and responses of 1 to P and 1 to T words; each word is worth what WORTH says.

    With ``turned``, what a prompt that begins with one of the last four words asks for is the
    opposite.
    """
    if context is None:
        words = rng.integers(2, WORDS.size, (count, LAYOUT.prompt_tokens))
        context = words * (np.arange(4) >= rng.integers(0, 4, (count, 1)))
    mask = np.arange(LAYOUT.response_tokens) < rng.integers(1, 9, (count, 1))
    actions = rng.integers(2, WORDS.size, mask.shape) * mask
    first = np.take_along_axis(context, (context > 0).argmax(1)[:, None], 1)
    sign = np.where(first < 6, 1.0, -1.0) if turned else 1.0
    return Segments(
        actions=actions,
        mask=mask,
        context=context,
        context_id=np.arange(count),
        rewards=WORTH[actions] * mask * sign,
    )


def judged(rng: np.random.Generator, pairs: int, turned: bool = False) -> Comparisons:
    """Pairs of responses to one prompt; the label says whose words are worth more."""
    a = texts(rng, 2 * pairs, turned=turned)
    b = texts(rng, 2 * pairs, a.context, turned)
    assert a.rewards is not None
    assert b.rewards is not None
    gap = a.rewards.sum(1) - b.rewards.sum(1)
    decided = np.flatnonzero(gap)[:pairs]
    return Comparisons(a.take(decided), b.take(decided), label=(gap[decided] > 0).astype(float))


def agreement(model: LanguageRewardModel, comparisons: Comparisons) -> float:
    logits = model.logits(comparisons.a, comparisons.b).mean(0).numpy()
    return float(np.mean((logits > 0) == (comparisons.label > 0.5)))


def shown(model: LanguageRewardModel, a: Segments, b: Segments) -> Pairs:
    """The same pairs in the same order for every member."""
    features = torch.stack([model.features(side) for side in (a, b)], 1)
    mask = torch.stack([torch.as_tensor(side.mask) for side in (a, b)], 1)
    features, mask = (one.expand(model.members, *one.shape) for one in (features, mask))
    return Pairs(features, mask, torch.zeros(model.members, len(a), dtype=torch.int64))


def state(model: LanguageRewardModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# --- what it computes ------------------------------------------------------------------------


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_rewards_are_those_of_a_plain_forward_pass(
    kind: str, tanh: bool, rng: np.random.Generator
) -> None:
    """One text at a time, without padding, mask or positions."""
    config = configuration(16)
    if kind == "llama":  # positions by rotation, another normalisation
        config = transformers.LlamaConfig(
            vocab_size=WORDS.size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=None,
            eos_token_id=None,
        )
    model, batch = language_reward_model(config, LAYOUT, 3, tanh), texts(rng, 12)
    rewards, outline = model.member_rewards(batch), model.outline(batch)
    assert rewards.shape == (3, 12, 8)
    for row in range(12):
        prompt, response = batch.context[row], batch.actions[row][batch.mask[row]]
        prompt = prompt[prompt != 0]
        ids = torch.as_tensor(np.concatenate([prompt, response]))[None]
        with torch.no_grad():
            hidden = model.trunk(input_ids=ids).last_hidden_state[0, len(prompt) :]
            wanted = hidden @ model.heads.weights[0][..., 0].T + model.heads.biases[0][:, 0, 0]
        wanted = (torch.tanh(wanted) if tanh else wanted).T
        torch.testing.assert_close(rewards[:, row, : len(response)], wanted, atol=1e-6, rtol=1e-4)
        assert not rewards[:, row, len(response) :].any()
        torch.testing.assert_close(outline[row], hidden.mean(0), atol=1e-5, rtol=1e-4)


def test_a_reward_knows_the_words_before_it_and_none_behind(rng: np.random.Generator) -> None:
    model, batch = small(), texts(rng, 20)
    later = np.where(np.arange(8) >= 3, 2 + (batch.actions + 3) % 8, batch.actions) * batch.mask
    changed = model.rewards(batch.replace(actions=later))
    torch.testing.assert_close(changed[:, :3], model.rewards(batch)[:, :3], atol=1e-6, rtol=1e-4)
    other = np.where(batch.context > 0, 2 + (batch.context - 1) % 8, 0)
    real = torch.as_tensor(batch.mask)
    assert (model.rewards(batch.replace(context=other)) != model.rewards(batch))[real].all()


def test_padding_changes_nothing(rng: np.random.Generator) -> None:
    model, batch = small(), texts(rng, 9)
    rewards = model.rewards(batch)
    torch.testing.assert_close(model.rewards(batch.padded(13))[:, :8], rewards)
    wider = LanguageRewardModel(model.trunk, Layout(WORDS, 7, 8), 3)
    wider.load_state_dict(model.state_dict())
    moved = batch.replace(context=np.pad(batch.context, ((0, 0), (3, 0))))
    torch.testing.assert_close(wider.rewards(moved), rewards)
    filled = batch.replace(actions=np.where(batch.mask, batch.actions, 5))
    torch.testing.assert_close(model.rewards(filled), rewards, rtol=0, atol=0)
    for row in range(9):
        alone = model.rewards(batch.take(slice(row, row + 1)))
        torch.testing.assert_close(alone[0], rewards[row], atol=1e-6, rtol=1e-4)


def test_a_pad_inside_a_prompt_is_read_as_a_word(rng: np.random.Generator) -> None:
    """Where padding and end are one token, as many tokenizers have it."""
    model, batch = small(), texts(rng, 1)
    hole, shorter = np.array([[2, 0, 3, 4]]), np.array([[0, 2, 3, 4]])
    both = [model.rewards(batch.replace(context=context)) for context in (hole, shorter)]
    assert not torch.allclose(*both)


def test_laws_of_margins_and_logits(rng: np.random.Generator) -> None:
    model, a = small(), texts(rng, 6)
    b = texts(rng, 6, a.context)
    logits = model.logits(a, b)
    torch.testing.assert_close(logits, -model.logits(b, a), rtol=0, atol=0)
    assert not model.logits(a, a).any()
    torch.testing.assert_close(
        logits, model.member_rewards(a).sum(2) - model.member_rewards(b).sum(2)
    )
    margins = model.margins(shown(model, a, b))
    torch.testing.assert_close(margins, logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(margins, -model.margins(shown(model, b, a)), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(model.rewards(a), model.member_rewards(a).mean(0))


def test_every_member_reads_pairs_of_its_own(rng: np.random.Generator) -> None:
    model, a = small(), texts(rng, 6)
    b = texts(rng, 6, a.context)
    features, mask, rater_id = shown(model, a, b)
    order = torch.stack([torch.randperm(6) for _ in range(3)])
    own = Pairs(
        *(torch.stack([x[order[m]] for m, x in enumerate(y)]) for y in (features, mask)), rater_id
    )
    wanted = torch.take_along_dim(model.logits(a, b), order, 1)
    torch.testing.assert_close(model.margins(own), wanted, atol=1e-5, rtol=1e-4)


def test_long_batches_are_computed_in_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = small(), texts(rng, 9)
    whole = model.rewards(batch), model.outline(batch)
    monkeypatch.setattr("prefgym.models.language.rows_at_once", lambda *_: 2)
    torch.testing.assert_close((model.rewards(batch), model.outline(batch)), whole)


def test_a_token_alone_is_worth_what_it_is_in_its_response(rng: np.random.Generator) -> None:
    model, batch = small(), texts(rng, 4)
    model.standardise(batch)
    lengths = batch.mask.sum(1)
    seen = LAYOUT.observations(batch.context, batch.actions, lengths - 1)
    for row, last in enumerate(lengths - 1):
        alone = model.step_reward(seen[row], batch.actions[row, last])
        assert alone == pytest.approx(float(model.rewards(batch)[row, last]), abs=1e-5)


def test_no_text_is_worth_nothing(rng: np.random.Generator) -> None:
    model, none = small(), texts(rng, 3).take(slice(0, 0))
    assert model.rewards(none).shape == (0, 8)
    assert model.outline(none).shape == (0, 16)
    blank = texts(rng, 2)
    blank = blank.replace(mask=np.zeros_like(blank.mask), context=np.zeros_like(blank.context))
    assert not model.rewards(blank).any()
    assert not model.outline(blank).any()


def test_gradients_agree_with_differences_and_reach_the_trunk(rng: np.random.Generator) -> None:
    model, a = small(members=2).double(), texts(rng, 4)
    pairs = shown(model, a, texts(rng, 4, a.context))
    model.margins(pairs).pow(2).sum().backward()
    generator = torch.Generator().manual_seed(0)
    for name, leaf in model.named_parameters():
        way = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        ends = []
        with torch.no_grad():
            for step in (1e-5, -2e-5):
                leaf += step * way
                ends.append(model.margins(pairs).pow(2).sum().item())
            leaf += 1e-5 * way
        assert leaf.grad is not None, name
        slope = (leaf.grad * way).sum().item()
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope, rel=1e-4, abs=1e-8), name
    assert all(p.grad is not None and p.grad.any() for p in model.trunk.h.parameters())


# --- what is learned -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_worth_of_words_is_learned_from_600_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, data = small(seed, members=1, width=32), judged(rng, 600)
    metrics = fit(
        model, data, adam(model, 3e-3), rng, epochs=20, batch_pairs=32, stop_accuracy=0.99
    )
    assert metrics["accuracy"] > 0.95
    assert agreement(model, judged(rng, 1000)) > 0.95


def test_a_worth_that_hangs_on_the_prompt_is_learned(rng: np.random.Generator) -> None:
    """Who does not read the prompt is right about half of these pairs."""
    model, data = small(members=1, width=32), judged(rng, 800, turned=True)
    fit(model, data, adam(model, 1e-3), rng, epochs=20, batch_pairs=32, stop_accuracy=0.98)
    assert agreement(model, judged(rng, 1000, turned=True)) > 0.9
    assert agreement(model, judged(rng, 1000)) < 0.65


def test_nothing_is_learned_from_labels_at_random(rng: np.random.Generator) -> None:
    model, data = small(members=1), judged(rng, 200)
    data = data.replace(label=rng.integers(2, size=200).astype(np.float64))
    fit(model, data, adam(model, 3e-3), rng, epochs=5, batch_pairs=32)
    assert 0.25 < agreement(model, judged(rng, 1000)) < 0.75


def test_minibatches_cut_into_blocks_give_the_same_fit(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, models = judged(rng, 24), [small(), small()]
    for model, rows in zip(models, (10**9, 3), strict=True):
        monkeypatch.setattr("prefgym.models.fit.rows_at_once", lambda *_, rows=rows: rows)
        fit(model, data, adam(model), np.random.default_rng(0), epochs=2, batch_pairs=8)
    logits = [model.logits(data.a, data.b) for model in models]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-3)


def test_equal_states_give_equal_bits_and_the_global_generator_stays(
    rng: np.random.Generator,
) -> None:
    before, data = torch.get_rng_state(), judged(rng, 24)
    models = [small(), small()]
    for model in models:
        draws = np.random.default_rng(5)
        fit(model, data, adam(model), draws, epochs=2, batch_pairs=8, validation_share=0.2)
    torch.testing.assert_close(*(state(model) for model in models), rtol=0, atol=0)
    assert torch.equal(before, torch.get_rng_state())


def test_a_frozen_trunk_stays_as_it_is(rng: np.random.Generator) -> None:
    model = small()
    model.trunk.requires_grad_(False)
    before = state(model)
    fit(model, judged(rng, 40), adam(model), rng, epochs=2)
    changed = {name for name, value in model.state_dict().items() if (value != before[name]).any()}
    assert "heads.weights.0" in changed
    assert not [name for name in changed if name.startswith("trunk")]


# --- what is kept ----------------------------------------------------------------------------


def test_members_differ_and_the_seed_decides(rng: np.random.Generator) -> None:
    model, again, other, batch = small(0), small(0), small(1), texts(rng, 5)
    rewards = model.member_rewards(batch)
    assert len({round(float(one), 6) for one in rewards.sum((1, 2))}) == 3
    assert torch.equal(rewards, again.member_rewards(batch))
    assert not torch.equal(rewards, other.member_rewards(batch))
    assert rewards.abs().max() < 0.6


def test_a_saved_state_says_all_that_rewards_depend_on(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    model, batch = small(), texts(rng, 6)
    fit(model, judged(rng, 30), adam(model), rng, epochs=2)
    model.standardise(batch)
    checkpoints.save(tmp_path / "saved", dict(model.state_dict()))
    restored = small(seed=4)
    restored.load_state_dict(checkpoints.load(tmp_path / "saved"))
    for twin in (restored, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.rewards(batch), model.rewards(batch))


def test_standardised_rewards_have_mean_zero_and_deviation_one(rng: np.random.Generator) -> None:
    model, batch = small(), texts(rng, 50)
    before = state(model)
    model.normalise(batch)
    torch.testing.assert_close(state(model), before, rtol=0, atol=0)
    a, b = batch, batch.take(slice(None, None, -1))
    logits = model.logits(a, b)
    model.standardise(batch)
    rewards = model.rewards(batch)[torch.as_tensor(batch.mask)]
    assert rewards.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert rewards.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)
    assert not model.rewards(batch)[~torch.as_tensor(batch.mask)].any()
    torch.testing.assert_close(model.logits(a, b), logits, rtol=0, atol=0)
    assert (model.rewards(batch, worst_reward) <= model.rewards(batch) + 1e-5).all()


def test_torch_segments_are_read_as_numpy_ones_are(rng: np.random.Generator) -> None:
    model, batch = small(), texts(rng, 5)
    assert torch.equal(model.rewards(batch.to("cpu")), model.rewards(batch))
    narrow = batch.replace(
        actions=batch.actions.astype(np.int32), context=batch.context.astype(np.int32)
    )
    assert torch.equal(model.rewards(narrow), model.rewards(batch))


def test_a_trunk_in_half_precision_is_valued_in_full(rng: np.random.Generator) -> None:
    exact, half, batch = small(), small(dtype=torch.bfloat16), texts(rng, 5)
    assert half.rewards(batch).dtype == torch.float32
    torch.testing.assert_close(half.rewards(batch), exact.rewards(batch), atol=0.02, rtol=0.1)


def test_reward_models_are_what_they_say() -> None:
    steps = reward_model(spaces.Box(-1, 1, (2,)), spaces.Discrete(2))
    for model in (small(), steps):
        assert isinstance(model, PreferenceModel)
        assert isinstance(model, PointwiseModel)
    assert small().kept_per_step == 2 * 30 * 16 * 12 // 8


# --- trunks ----------------------------------------------------------------------------------


def test_a_causal_language_models_checkpoint_is_read_without_its_head(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    whole = transformers.GPT2LMHeadModel(configuration(16)).eval()
    whole.save_pretrained(tmp_path)
    model, batch = language_reward_model(tmp_path, LAYOUT, 2), texts(rng, 4)
    ours = LanguageRewardModel(copy.deepcopy(whole.base_model), LAYOUT, 2)
    assert torch.equal(model.rewards(batch), ours.rewards(batch))
    assert not model.trunk.training


class Recurrent(nn.Module):
    """A user's own trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.config = transformers.PretrainedConfig(
            vocab_size=WORDS.size, hidden_size=8, num_hidden_layers=1
        )
        self.words = nn.Embedding(WORDS.size, 8)
        self.cell = nn.GRU(8, 8, batch_first=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        hidden = self.words(input_ids) * attention_mask[..., None]
        return transformers.modeling_outputs.BaseModelOutput(self.cell(hidden)[0])


def test_any_module_that_returns_hidden_states_will_do(rng: np.random.Generator) -> None:
    model = LanguageRewardModel(Recurrent(), LAYOUT)
    fit(model, judged(rng, 300), adam(model, 1e-2), rng, epochs=10, batch_pairs=32)
    assert agreement(model, judged(rng, 500)) > 0.8


def with_head() -> LanguageRewardModel:
    return LanguageRewardModel(transformers.GPT2LMHeadModel(configuration()), LAYOUT)


BATCH = texts(np.random.default_rng(0), 2)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: small(members=0), "members is 0; wanted 1 or more"),
        (
            lambda: language_reward_model(configuration(vocabulary=9), LAYOUT),
            "the trunk knows 9 tokens and the layout's codec has 10",
        ),
        (
            lambda: language_reward_model(configuration(positions=11), LAYOUT),
            r"reads at most 11 tokens, and prompt and response have 4 \+ 8",
        ),
        (lambda: with_head().rewards(BATCH), r"has no last_hidden_state; give the model without"),
        (
            lambda: small().rewards(BATCH.replace(context=BATCH.context[:, 1:])),
            "prompts are 3 tokens wide, and the layout has 4",
        ),
        (
            lambda: small().rewards(BATCH.replace(actions=np.zeros((2, 8, 3)))),
            r"actions has shape \(2, 8, 3\), wanted \[batch, tokens\]",
        ),
        (
            lambda: small().rewards(BATCH.replace(context=np.full((2, 4), 10))),
            "There is no token 10; the vocabulary has 0 to 9",
        ),
        (
            lambda: small().rewards(BATCH.replace(context=np.zeros((2, 4), np.float32))),
            "Tokens of type float32 came",
        ),
        (
            lambda: small().standardise(BATCH.replace(mask=np.zeros((2, 8), bool))),
            "got no steps",
        ),
    ],
)
def test_what_a_model_refuses(act: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        act()


def test_a_checkpoint_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    configuration().save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ValueError, match="holds no Hugging Face checkpoint in safetensors; write"):
        language_reward_model(tmp_path, LAYOUT)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'pip install "prefgym\[text\]"'):
        language_reward_model(config, LAYOUT)


def test_a_model_gone_astray_says_so() -> None:
    model = small()
    with torch.no_grad():
        model.heads.biases[-1].fill_(float("nan"))
    with pytest.raises(RuntimeError, match="a reward is NaN or infinite"):
        model.rewards(BATCH)


# --- other heads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_published_head_reads_text_too(name: str, rng: np.random.Generator) -> None:
    head = model_head(name, raters=4)
    model = language_reward_model(configuration(16), LAYOUT, 2, head=head)
    comparisons = judged(rng, 24).replace(rater_id=np.arange(24) % 4)
    fit(model, comparisons, adam(model, 1e-3), rng, epochs=2, loss=MODELS[name].loss)
    assert isinstance(model, PointwiseModel)
    a, b = texts(rng, 6), texts(rng, 6)
    for who in (None, np.arange(6) % 4):
        there, back = model.logits(a, b, who), model.logits(b, a, who)
        torch.testing.assert_close(there, -back, atol=1e-5, rtol=1e-5)
    model.standardise(a)
    worth = model.rewards(a)
    assert worth.shape == a.mask.shape
    assert (worth[torch.as_tensor(~a.mask)] == 0).all()
    if MODELS[name].tells_raters_apart:
        assert torch.isfinite(model.logits(a, b, np.arange(6) % 4, model.infer(comparisons))).all()


def test_a_context_is_the_last_state_of_the_prompt(rng: np.random.Generator) -> None:
    model = small(members=1)
    segments = texts(rng, 5)
    read = model.features(segments)
    begun = model.beginnings(read[None], torch.as_tensor(segments.mask)[None])[0]
    for row, prompt in zip(begun, segments.context, strict=True):
        ids = torch.as_tensor(prompt[prompt != WORDS.pad])[None]
        with torch.no_grad():
            wanted = model.trunk(input_ids=ids).last_hidden_state[0, -1]
        torch.testing.assert_close(row, wanted, atol=1e-5, rtol=1e-4)


def test_a_hidden_layer_reads_what_a_linear_head_cannot(rng: np.random.Generator) -> None:
    """On a frozen trunk; the layers are SiLU (BaseReward)."""
    linear, deep = (
        language_reward_model(configuration(16), LAYOUT, 1, seed=1, hidden=hidden)
        for hidden in ((), (32, 32))
    )
    comparisons = judged(rng, 300)
    told = {}
    for name, model in (("linear", linear), ("deep", deep)):
        model.trunk.requires_grad_(False)
        told[name] = fit(model, comparisons, adam(model, 1e-2), rng, epochs=30, stop_accuracy=1.0)[
            "loss"
        ]
    assert told["deep"] < told["linear"]
