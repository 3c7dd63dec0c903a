"""The backend that drives language models: what is written, learned, kept and refused."""

from copy import deepcopy
from inspect import unwrap
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file
from stable_baselines3.common.callbacks import BaseCallback

from prefgym import checkpoints
from prefgym.models.reward_models import PointwiseModel
from prefgym.segments import Segments
from prefgym.text import Layout, Vocabulary
from prefgym.wrappers import PreferenceVectorEnv
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.language import LanguageBackend, language_backend
from prefgym_agents.language import policy as language_policy
from prefgym_agents.language.models import add_lora, causal_model, tiny_config, tokenizer
from prefgym_agents.language.packing import pack
from prefgym_agents.language.policy import LanguagePolicy
from prefgym_agents.language.pretraining import PretrainingConfig, pretrain
from prefgym_agents.language.sampling import write
from prefgym_agents.language.updates import ALGORITHMS, Config
from prefgym_envs import text_sort

TASK = text_sort.task()
LAYOUT = TASK.layout
KINDS = ["gpt2", "llama", "qwen2", "scaled"]


def text_env(lanes: int = 16, group: int = 4, seed: int = 0) -> PreferenceVectorEnv:
    raw = text_sort.raw_vector(lanes, samples_per_prompt=group, seed=seed)
    return PreferenceVectorEnv(raw, segment_steps=LAYOUT.response_tokens, query_every=None)


def config_of(kind: str, layout: Layout = LAYOUT) -> Any:
    """Two families with a short way, one of them with shared keys, and one with other logits."""
    if kind in ("gpt2", "llama"):
        return tiny_config(layout, kind, width=32)
    shape = {
        "vocab_size": layout.codec.size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "pad_token_id": layout.codec.pad,
        "eos_token_id": layout.codec.eos,
        "bos_token_id": layout.codec.eos,
    }
    if kind == "qwen2":
        return transformers.Qwen2Config(**shape)
    return transformers.CohereConfig(**shape, logit_scale=0.5)


def backend(env: Any = None, seed: int = 0, **settings: Any) -> LanguageBackend:
    config = settings.pop("model", config_of("gpt2"))
    return language_backend(env or text_env(), config, seed=seed, **settings)


def collected(one: LanguageBackend) -> Segments:
    one.begin(1_000_000)
    segments = one.collect()
    assert segments is not None
    return segments


def advance(one: LanguageBackend, turns: int) -> list[float]:
    """True mean returns of some turns of learning from the true reward."""
    one.begin(1_000_000)
    returns = []
    for _ in range(turns):
        segments = one.collect()
        assert segments is not None
        one.update(segments, np.asarray(segments.rewards))
        returns.append(float(segments.rewards.sum(1).mean()))
    return returns


def sharpened(one: LanguageBackend) -> LanguageBackend:
    """A policy that is far from uniform."""
    with torch.no_grad():
        for parameter in one.policy.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else None
    return one


# --- writing ------------------------------------------------------------------------------------


def test_it_is_a_policy_backend() -> None:
    assert isinstance(backend(), PolicyBackend)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("short_way", [True, False])
def test_what_is_noted_while_writing_is_what_reading_the_whole_says(
    kind: str, short_way: bool
) -> None:
    one = sharpened(backend(model=config_of(kind), algorithm="PPO"))
    assert (one.policy.decoder is None) == (kind == "scaled")
    if not short_way:
        one.policy.decoder = None
    assert one.policy.value_head is not None
    torch.nn.init.normal_(one.policy.value_head.weight)
    segments = collected(one)
    assert len(np.unique(LAYOUT.prompt_mask(segments.context).sum(1))) > 1  # padding was needed
    assert one._written is not None
    written = one._written[1]
    log_prob, value = one._scores(one.policy, segments)
    np.testing.assert_allclose(written.log_prob, log_prob.numpy(), atol=1e-5)
    np.testing.assert_allclose(written.value, value.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_is_the_models_own(kind: str) -> None:
    one = sharpened(backend(model=config_of(kind), temperature=0.7))
    segments = collected(one)
    found = one.log_prob(segments).detach().numpy()
    for row in range(len(segments)):
        prompt = segments.context[row][LAYOUT.prompt_mask(segments.context)[row]]
        answer = segments.actions[row][segments.mask[row]]
        text = torch.as_tensor(np.concatenate([prompt, answer]))[None]
        logits = one.model(input_ids=text, attention_mask=torch.ones_like(text)).logits[0] / 0.7
        told = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        wanted = told.gather(1, torch.as_tensor(answer)[:, None])[:, 0].detach().numpy()
        np.testing.assert_allclose(found[row, : len(answer)], wanted, atol=1e-5)
    assert not found[~segments.mask].any()


def test_the_environment_plays_what_was_written() -> None:
    one = backend()
    stepped = text_env()
    one.begin(1_000)
    observations, _ = stepped.reset(seed=0)
    for _ in range(3):
        segments = one.collect()
        assert segments is not None
        assert one._written is not None
        noted_of, written = one._written
        np.testing.assert_array_equal(segments.actions, written.actions)
        np.testing.assert_array_equal(segments.mask, written.mask)
        np.testing.assert_array_equal(segments.context, noted_of.context)
        assert stepped.layout is not None
        np.testing.assert_array_equal(stepped.layout.split(observations)[0], segments.context)
        stepped.store.check_actions(segments.actions)
        stepped.play(segments.actions, segments.mask)
        observations = stepped.observations()
    assert one.num_timesteps <= 3 * one.steps_per_collect


def test_tokens_are_counted_and_statistics_are_true_returns() -> None:
    one = backend()
    assert one.episode_statistics() == {}
    segments = collected(one)
    assert one.num_timesteps == segments.mask.sum()
    told = one.episode_statistics()
    assert told["rollout/ep_rew_mean"] == pytest.approx(segments.rewards.sum(1).mean())
    assert told["rollout/ep_len_mean"] == pytest.approx(segments.mask.sum(1).mean())


@pytest.mark.parametrize("rows_at_once", [1, 5])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_response_does_not_depend_on_its_batch(kind: str, rows_at_once: int) -> None:
    one = sharpened(backend(model=config_of(kind)))
    prompts = TASK.prompts[:20]
    whole, parts = (
        write(
            one.policy,
            LAYOUT,
            prompts,
            generator=torch.Generator().manual_seed(3),
            rows_at_once=rows,
        )
        for rows in (64, rows_at_once)
    )
    np.testing.assert_array_equal(whole.actions, parts.actions)
    np.testing.assert_array_equal(whole.mask, parts.mask)
    np.testing.assert_allclose(whole.log_prob, parts.log_prob, atol=1e-6)


def test_padding_changes_nothing() -> None:
    wide = Layout(LAYOUT.codec, LAYOUT.prompt_tokens + 3, LAYOUT.response_tokens)
    model = causal_model(tiny_config(wide), wide)
    policy = LanguagePolicy(model, LAYOUT.codec.size)
    prompts = np.pad(TASK.prompts[:8], ((0, 0), (3, 0)))
    narrow, broad = (
        write(policy, layout, given, generator=torch.Generator().manual_seed(0))
        for layout, given in ((LAYOUT, TASK.prompts[:8]), (wide, prompts))
    )
    np.testing.assert_array_equal(narrow.actions, broad.actions)
    np.testing.assert_allclose(narrow.log_prob, broad.log_prob, atol=1e-6)
    one = backend()
    segments = collected(one)
    long = segments.padded(segments.steps + 4)
    with torch.no_grad():
        assert torch.equal(one.log_prob(long)[:, : segments.steps], one.log_prob(segments))


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_read_apart_give_the_same_numbers_and_slopes(kind: str, values: bool) -> None:
    one = LanguagePolicy(causal_model(config_of(kind), LAYOUT), LAYOUT.codec.size, values=values)
    assert one.reads_apart
    segments = collected(backend(text_env(12, 4), temperature=5.0))
    assert len(set(LAYOUT.prompt_mask(segments.context).sum(1))) > 1
    slope = torch.randn(int(segments.mask.sum()), generator=torch.Generator().manual_seed(0))
    found = []
    for apart in (False, True):
        packed = pack(LAYOUT, segments, apart)
        assert (packed.prompts is not None) == apart
        one.zero_grad()
        log_prob, value = one(*packed.inputs)
        (slope * (log_prob + value)).sum().backward()
        slopes = [weight.grad for weight in one.parameters() if weight.grad is not None]
        found.append([log_prob.detach(), value.detach(), *slopes])
    for together, separate in zip(*found, strict=True):
        torch.testing.assert_close(separate, together, rtol=1e-4, atol=1e-5)


def test_prompts_are_read_apart_only_where_that_saves_much() -> None:
    segments = collected(backend(text_env(12, 4)))
    assert pack(LAYOUT, segments, True).prompts is not None
    assert pack(LAYOUT, segments.take(np.array([0, 4, 8])), True).prompts is None
    whole = segments.mask & (np.arange(LAYOUT.response_tokens) < 1)
    assert pack(LAYOUT, segments.replace(mask=whole), True).prompts is None
    assert backend(text_env(12, 4)).policy.reads_apart
    assert not backend(text_env(12, 4), recompute=True).policy.reads_apart


def test_samples_follow_the_policy() -> None:
    one = sharpened(backend())
    prompts = np.repeat(TASK.prompts[:1], 4_000, 0)
    first = write(one.policy, LAYOUT, prompts, generator=torch.Generator().manual_seed(1)).actions[
        :, 0
    ]
    packed = pack(
        LAYOUT,
        Segments(
            actions=np.arange(LAYOUT.codec.size)[:, None],
            mask=np.ones((LAYOUT.codec.size, 1), np.bool_),
            context=prompts[: LAYOUT.codec.size],
            context_id=np.zeros(LAYOUT.codec.size, np.int64),
        ),
    )
    wanted = one.policy(*packed.inputs)[0].exp().detach().numpy()
    np.testing.assert_allclose(wanted.sum(), 1.0, atol=1e-5)
    shares = np.bincount(first, minlength=LAYOUT.codec.size) / len(first)
    np.testing.assert_allclose(shares, wanted, atol=4 * 0.5 / np.sqrt(len(first)))


def test_predicting_token_by_token_writes_the_same() -> None:
    one = sharpened(backend())
    env = text_env(8, 1)
    env.reset(seed=1)
    prompts = LAYOUT.split(env.observations())[0].copy()
    greedy = write(one.policy, LAYOUT, prompts, generator=None)
    playing = np.ones(8, np.bool_)
    observations = env.observations()
    for step in range(LAYOUT.response_tokens):
        tokens, _ = one.predict(observations, deterministic=True)
        np.testing.assert_array_equal(tokens[playing], greedy.actions[playing, step])
        lengths = np.full(8, step + 1)
        observations = LAYOUT.observations(prompts, greedy.actions, lengths)
        playing &= tokens != LAYOUT.codec.eos
    sampled = [one.predict(text_env_observation(env))[0].tolist() for _ in range(5)]
    assert any(sampled[0] != other for other in sampled)


def text_env_observation(env: PreferenceVectorEnv) -> np.ndarray:
    return env.observations()


class StopAfter(BaseCallback):
    """Counts rollouts, and stops the second."""

    def _on_step(self) -> bool:
        return self.n_calls < 2


def test_callbacks_of_stable_baselines_are_called_and_may_stop() -> None:
    one, callback = backend(), StopAfter()
    one.begin(1_000, callback)
    assert one.collect() is not None
    assert one.collect() is None
    assert callback.num_timesteps == one.num_timesteps
    one.end()
    one.begin(1_000, [StopAfter()])
    assert one.collect() is not None
    one.begin(1_000, lambda *_: False)
    assert one.collect() is None


# --- improving ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_algorithm_improves_on_a_true_reward(algorithm: str, seed: int) -> None:
    one = backend(
        text_env(64, 8), seed, algorithm=algorithm, learning_rate=3e-3, epochs=2, minibatch=32
    )
    one.begin(1_000_000)
    share = []
    for _ in range(15):
        segments = one.collect()
        assert segments is not None
        hits = (segments.actions == 3) & segments.mask
        metrics = one.update(segments, hits.astype(np.float64))
        share.append(hits.sum(1).mean())
        assert all(np.isfinite(value) for value in metrics.values())
    assert np.mean(share[:2]) < 0.25 * LAYOUT.response_tokens
    assert np.mean(share[-2:]) > 0.6 * LAYOUT.response_tokens
    assert metrics["train/gradient_steps"] == 15 * 4


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_pull_to_the_reference_keeps_near(algorithm: str) -> None:
    distance = []
    for kl in (0.0, 1.0):
        one = backend(text_env(64, 8), algorithm=algorithm, learning_rate=3e-3, kl=kl)
        one.keep_reference()
        one.begin(1_000_000)
        for _ in range(15):
            segments = one.collect()
            assert segments is not None
            one.update(segments, ((segments.actions == 3) & segments.mask).astype(np.float64))
        with torch.no_grad():
            gap = one.log_prob(segments) - one.reference_log_prob(segments)
        distance.append(float(gap.sum(1).mean()))
    assert distance[1] < 0.5 * distance[0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "settings", [{"accumulate": 3}, {"recompute": True}, {"generation_batch": 3}]
)
def test_memory_is_saved_without_changing_the_step(
    algorithm: str, settings: dict[str, Any]
) -> None:
    found = []
    for more in ({}, settings):
        one = sharpened(backend(algorithm=algorithm, kl=0.1, **more))
        segments = collected(one)
        one.update(segments, np.asarray(segments.rewards))
        found.append(one.snapshot())
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], atol=2e-5, err_msg=name)


def test_logits_in_slices_are_the_same_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    one = backend()
    segments = collected(one)
    gradients = []
    for at_once in (1 << 26, 20):
        monkeypatch.setattr(language_policy, "LOGITS_AT_ONCE", at_once)
        one.policy.zero_grad()
        one.log_prob(segments).sum().backward()
        gradients.append([p.grad.clone() for p in one.model.parameters() if p.grad is not None])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_fit_descends_any_loss_of_log_prob(accumulate: int) -> None:
    one = backend(accumulate=accumulate, learning_rate=3e-3)
    segments = collected(one)
    losses = [one.fit(lambda log_prob: -log_prob.sum(1).mean(), segments)["loss"] for _ in range(9)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_fit_in_parts_takes_the_same_step() -> None:
    found = []
    for accumulate in (1, 4):
        one = backend(accumulate=accumulate)
        segments = collected(one)
        one.fit(lambda log_prob: (log_prob.sum(1) ** 2).mean().sqrt(), segments)
        found.append(one.snapshot())
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], atol=1e-5)


def test_rewards_at_padding_are_never_read() -> None:
    found = []
    for beyond in (0.0, np.nan):
        one = backend(algorithm="PPO")
        segments = collected(one)
        one.update(segments, np.where(segments.mask, segments.rewards, beyond))
        found.append(one.snapshot())
    assert all(np.array_equal(value, found[1][name]) for name, value in found[0].items())


def test_other_responses_than_the_last_are_scored_anew() -> None:
    one = backend()
    first = collected(one)
    second = one.collect()
    assert second is not None
    noted, _ = one._as_written(second)
    assert one._written is not None
    np.testing.assert_array_equal(noted.numpy(), one._written[1].log_prob)
    scored, _ = one._as_written(first)
    with torch.no_grad():
        torch.testing.assert_close(scored, one.log_prob(first))


def test_bfloat16_learns_in_steps_that_it_could_not_hold() -> None:
    one = backend(text_env(64, 8), dtype="bfloat16", learning_rate=1e-4)
    before = deepcopy(one.steps.optimizer.exact)
    assert next(one.policy.parameters()).dtype == torch.bfloat16
    advance(one, 2)
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(before, one.steps.optimizer.exact, strict=True)
    ]
    assert max(moved) < 4e-4
    assert min(moved) > 0.0
    state = one.get_state()
    again = backend(text_env(64, 8), dtype="bfloat16", learning_rate=1e-4, seed=5)
    again.set_state(state)
    for name, value in one.snapshot().items():
        assert np.array_equal(value, again.snapshot()[name])


def test_restarting_values_keeps_the_actor() -> None:
    one = backend(algorithm="PPO")
    advance(one, 3)
    before = one.snapshot()
    assert before["value_head.weight"].any()
    one.restart_values()
    for name, value in one.snapshot().items():
        assert not value.any() if name.startswith("value_head") else (value == before[name]).all()


# --- the reference ------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [None, 2])
def test_the_reference_is_the_policy_as_it_was(lora: int | None) -> None:
    one = backend(lora=lora, learning_rate=1e-2)
    segments = collected(one)
    with torch.no_grad():
        before = one.log_prob(segments)
    torch.testing.assert_close(one.reference_log_prob(segments), before)
    for _ in range(3):
        one.update(segments, np.asarray(segments.rewards))
    with torch.no_grad():
        assert (one.log_prob(segments) - before).abs().max() > 0.01
    torch.testing.assert_close(one.reference_log_prob(segments), before)
    assert not one.reference_log_prob(segments).requires_grad


def test_adapters_alone_learn() -> None:
    one = backend(lora=2)
    names = set(one.snapshot())
    assert all("lora_" in name for name in names)
    frozen = {n: p.clone() for n, p in one.policy.named_parameters() if n not in names}
    advance(one, 2)
    for name, value in one.policy.named_parameters():
        assert name in names or torch.equal(value, frozen[name])


def test_a_reference_that_was_lost_is_missed_in_one_sentence() -> None:
    one = backend()
    advance(one, 1)
    with pytest.raises(RuntimeError, match="keep_reference"):
        one.reference_log_prob(collected(one))


# --- keeping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("more", [{}, {"kl": 0.1, "epochs": 2, "minibatch": 8}])
def test_a_state_continues_bit_for_bit(algorithm: str, more: dict[str, Any]) -> None:
    first = backend(algorithm=algorithm, **more)
    advance(first, 3)
    state = first.get_state()
    advance(first, 3)
    second = backend(algorithm=algorithm, seed=99, **more)
    second.set_state(state)
    advance(second, 3)
    for name, value in first.snapshot().items():
        assert np.array_equal(value, second.snapshot()[name]), name
    assert first.episode_statistics() == second.episode_statistics()
    assert first.num_timesteps == second.num_timesteps


def test_adapters_continue_bit_for_bit_and_want_their_own_model() -> None:
    first = backend(lora=2)
    advance(first, 2)
    state = first.get_state()
    advance(first, 2)
    second = backend(lora=2)
    second.set_state(state)
    advance(second, 2)
    for name, value in first.snapshot().items():
        assert np.array_equal(value, second.snapshot()[name]), name
    with pytest.raises(ValueError, match="same model and seed"):
        backend(lora=2, seed=1).set_state(state)


def test_a_state_wants_the_settings_that_it_was_saved_with(tmp_path: Path) -> None:
    first = backend(learning_rate=1e-3, kl=0.1)
    advance(first, 1)
    checkpoints.save(tmp_path / "state", first.get_state())
    state = checkpoints.load(tmp_path / "state")
    other = backend(learning_rate=1e-4, generation_batch=8, inspect="left")
    before = other.snapshot()
    with pytest.raises(ValueError, match=r"learning_rate=0\.001 \(here 0\.0001\), kl=0\.1 \(here"):
        other.set_state(state)
    assert all(np.array_equal(value, other.snapshot()[name]) for name, value in before.items())
    other.load_policy(state)
    backend(learning_rate=1e-3, kl=0.1, generation_batch=8, inspect="left").set_state(state)


def test_snapshots_bring_a_policy_back() -> None:
    one = backend()
    segments = collected(one)
    with torch.no_grad():
        before = one.log_prob(segments)
    kept = one.snapshot()
    advance(one, 2)
    one.load_snapshot(kept)
    with torch.no_grad():
        assert torch.equal(one.log_prob(segments), before)
    with pytest.raises(ValueError, match="no place in this model"):
        one.load_snapshot({"nothing": np.zeros(2)})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [None, 2])
def test_transformers_reads_what_is_saved(kind: str, lora: int | None, tmp_path: Path) -> None:
    one = backend(model=config_of(kind), lora=lora, learning_rate=1e-2)
    advance(one, 2)
    one.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    text = torch.as_tensor(TASK.prompts[LAYOUT.prompt_mask(TASK.prompts).all(1)][:4])
    with torch.no_grad():
        torch.testing.assert_close(again(text).logits, one.model(text).logits)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert words("b a c")["input_ids"] == LAYOUT.codec.encode("b a c")
    assert (words.pad_token_id, words.eos_token_id) == (LAYOUT.codec.pad, LAYOUT.codec.eos)
    segments = collected(one)
    from_disk = backend(model=tmp_path)
    with torch.no_grad():
        found, wanted = from_disk.log_prob(segments), one.log_prob(segments)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_vocabulary_becomes_a_tokenizer_that_reads_and_writes() -> None:
    words = Vocabulary.of("yes", "no", "+", "12")
    made = tokenizer(words)
    assert made("no + 12")["input_ids"] == words.encode("no + 12")
    assert made.decode([2, 3, 1, 0], skip_special_tokens=True) == "yes no"
    assert len(made) == words.size


@pytest.mark.parametrize("lora", [None, 2])
def test_a_reward_model_reads_with_a_copy_of_the_model(lora: int | None) -> None:
    one = backend(lora=lora)
    segments = collected(one)
    before = one.snapshot()
    model = one.reward_model(members=2, hidden=(8,), tanh=False, seed=0)
    assert isinstance(model, PointwiseModel)
    assert model.rewards(segments).shape == segments.mask.shape
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(np.array_equal(value, one.snapshot()[name]) for name, value in before.items())


# --- pretraining --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_pretraining_teaches_what_demonstrations_show(kind: str) -> None:
    model = causal_model(tiny_config(LAYOUT, kind, width=32), LAYOUT)
    shown = TASK.demonstrations(600, np.random.default_rng(0), noise=0.1)
    told = pretrain(model, LAYOUT, shown, PretrainingConfig(epochs=4, batch=32))
    assert len(told) == 4
    assert told[-1]["pretrain/loss"] < 0.8 * told[0]["pretrain/loss"]
    assert told[-1]["pretrain/held_out_loss"] < np.log(LAYOUT.codec.size)
    one = language_backend(text_env(64, 1), model, seed=0)
    returns = collected(one).rewards.sum(1).mean()
    assert returns > 1.5 * TASK.random_return


def test_pretraining_is_a_function_of_its_seed() -> None:
    shown = TASK.demonstrations(100, np.random.default_rng(0))
    found = []
    for _ in range(2):
        model = causal_model(None, LAYOUT, seed=4)
        pretrain(model, LAYOUT, shown, PretrainingConfig(epochs=1))
        found.append(model.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


# --- refusals -----------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_and_leaves_the_batch(run_folder: Path) -> None:
    one = backend(inspect="left")
    segments = collected(one)
    before = one.snapshot()
    rewards = np.asarray(segments.rewards).copy()
    rewards[0, 0] = np.inf
    with pytest.raises(RuntimeError, match=r"left/astray-step-0-process-0\.safetensors"):
        one.update(segments, rewards)
    found = load_file(run_folder / "left" / "astray-step-0-process-0.safetensors")
    np.testing.assert_array_equal(found["actions"], segments.actions)
    assert not np.isfinite(found["lesson/advantage"]).all()
    with pytest.raises(RuntimeError, match="The loss became nan"):
        one.fit(lambda log_prob: log_prob.sum() * float("nan"), segments)
    assert all(np.array_equal(value, one.snapshot()[name]) for name, value in before.items())


@pytest.mark.parametrize("algorithm", ["GRPO", "PPO"])
def test_a_model_that_was_ruined_ends_in_that_sentence_too(
    run_folder: Path, algorithm: str
) -> None:
    """Its logits are NaN, and still it writes tokens that there are."""
    one = backend(learning_rate=1e8, inspect="left", algorithm=algorithm)
    with pytest.raises(RuntimeError, match="training stopped before it did harm"):
        advance(one, 4)
    (left,) = (run_folder / "left").iterdir()
    assert load_file(left)["actions"].max() < LAYOUT.codec.size


def test_a_model_of_another_vocabulary_is_refused() -> None:
    other = Layout(Vocabulary.of(*"abcdefghij"), 5, 6)
    with pytest.raises(ValueError, match=r"knows 12 tokens and .* has 8"):
        backend(model=tiny_config(other))


def test_a_model_with_too_short_a_context_is_refused() -> None:
    config = tiny_config(LAYOUT)
    config.n_positions = 10
    with pytest.raises(ValueError, match=r"at most 10 tokens, .* 5 \+ 6 = 11"):
        backend(model=config)


def test_a_tokenizer_without_end_is_refused() -> None:
    class Endless(Vocabulary):
        @property
        def eos(self) -> int:
            return None  # type: ignore[return-value]

    layout = Layout(Endless.of("a"), 2, 2)
    with pytest.raises(ValueError, match="eos token is None"):
        causal_model(config_of("gpt2"), layout)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        backend(model=tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="no safetensors"):
        backend(model=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_a_gpu_that_is_not_there_is_missed(device: str) -> None:
    with pytest.raises(ValueError, match=f"device='{device}' .* sees no GPU"):
        backend(device=device)


@pytest.mark.parametrize("device", ["foo", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_missed(device: str) -> None:
    with pytest.raises(ValueError, match=f"device='{device}' was asked for.* pass device='cpu'"):
        backend(device=device)


def test_settings_that_cannot_work_are_refused() -> None:
    for settings, sentence in {
        ("algorithm", "PP0"): "did you mean 'PPO'",
        ("learning_rat", 1e-3): "did you mean 'learning_rate'",
        ("temperature", 0.0): "above 0",
        ("epochs", 0): "at least 1",
        ("minibatch", 0): "at least 1",
        ("kl", -1.0): "0 .* or more",
        ("clip", 0.0): "above 0",
        ("trace", 2.0): "from 0 to 1",
        ("kl", float("nan")): "kl=nan; wanted",
        ("learning_rate", float("inf")): "learning_rate=inf; wanted a finite number above 0",
        ("weight_decay", -0.1): "0 or a finite number above it",
        ("max_norm", float("nan")): "above 0",
        ("lora", 0): "rank of 1 or more",
        ("lora", True): "lora=True; wanted a rank",
        ("model", 3): "model=3 is no language model",
        ("dtype", torch.float16): "Unknown dtype 'float16'",
        ("dtype", "float8"): "Unknown dtype",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            backend(**{settings[0]: settings[1]})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("algorithm", 3, "Unknown algorithm '3'"),
        ("epochs", 1.5, "epochs=1.5; wanted a whole number, at least 1"),
        ("epochs", True, "epochs=True; wanted a whole number"),
        ("minibatch", 2.5, "whole number, at least 1, or None for all"),
        ("learning_rate", "1e-3", "learning_rate='1e-3'; wanted a finite number above 0"),
        ("trace", "0.9", "trace='0.9'; wanted a number from 0 to 1"),
        ("recompute", 1, "recompute=1; wanted True or False"),
        ("inspect", 3, "name of a folder"),
    ],
)
def test_settings_of_another_type_are_refused(name: str, value: Any, sentence: str) -> None:
    wrong = object.__new__(Config)  # past the tests' own check of types
    vars(wrong).update({**vars(Config()), name: value})
    with pytest.raises(ValueError, match=sentence):
        wrong.__post_init__()


def test_a_rank_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="lora='8'; wanted a rank"):
        unwrap(add_lora)(causal_model(None, LAYOUT), "8")  # without the tests' check of types


def test_a_dtype_may_be_pytorchs() -> None:
    assert backend(dtype=torch.bfloat16).model.dtype == torch.bfloat16


@pytest.mark.parametrize("algorithm", ["GRPO", "RLOO", "P3O"])
def test_algorithms_that_compare_want_several_responses_to_a_prompt(algorithm: str) -> None:
    one = backend(text_env(4, 1, seed=3), algorithm=algorithm)
    segments = collected(one)
    assert len(np.unique(segments.context_id)) > 1
    with pytest.raises(ValueError, match="samples_per_prompt"):
        one.update(segments, np.asarray(segments.rewards))


def test_an_environment_without_text_is_refused() -> None:
    env = gym.make_vec("prefgym/CartPole-v0", num_envs=2)
    with pytest.raises(ValueError, match="no text environment"):
        language_backend(env)


def test_an_empty_prompt_is_refused() -> None:
    segments = collected(backend())
    with pytest.raises(ValueError, match="Prompt 0 is empty"):
        pack(LAYOUT, segments.replace(context=np.zeros_like(segments.context)))


def test_segments_of_control_are_refused() -> None:
    segments = collected(backend())
    with pytest.raises(ValueError, match="prompt tokens"):
        pack(LAYOUT, segments.replace(context=np.zeros((len(segments), 2))))


def test_adapters_are_put_into_the_model_that_is_given() -> None:
    model = causal_model(None, LAYOUT)
    before = [name for name, _ in model.named_parameters()]
    add_lora(model, 2)
    assert len(list(model.parameters())) > len(before)
