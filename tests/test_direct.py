"""The direct learner: its rounds, its anchor, given comparisons, what it may read, and refusals."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import prefgym  # noqa: F401
from benchmarks.claims import cpl, leak, pendulum_values
from benchmarks.claims.claim import report
from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.converters.trl import from_trl
from prefgym.segments import Segments
from prefgym_agents.direct import PRESETS, Config, DirectPreference
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.sb3_base import LOG_STD_FLOOR
from prefgym_agents.sb3_off_policy import OffPolicySB3
from prefgym_agents.sb3_on_policy import OnPolicySB3

SMALL: dict[str, dict[str, Any]] = {
    "PPO": {"n_steps": 64},
    "SAC": {"learning_starts": 50, "batch_size": 32},
}


def backend(
    env: str = "Pendulum", algorithm: str = "PPO", seed: int = 0, **asked: Any
) -> OnPolicySB3 | OffPolicySB3:
    made = gym.make_vec(f"prefgym/{env}-v0", num_envs=2, **{"segment_steps": 10, **asked})
    return sb3_backend(algorithm, made, seed=seed, **SMALL[algorithm])


def make(config: str = "dpo", seed: int = 0, **changes: Any) -> DirectPreference:
    env = "CartPole" if config == "orpo" else "Pendulum"
    settings = {"labels": 20, "epochs": 2, "batch_pairs": 8, "meaning": None, **changes}
    return DirectPreference(backend(env, seed=seed), config, **settings)


def answered(pairs: int = 20) -> Comparisons:
    """Comparisons that random actions were given."""
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=2, segment_steps=10)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(60):
        env.step(env.action_space.sample())
    layer: Any = env
    return layer.compare(*layer.sample_pairs(pairs, np.random.default_rng(0)))  # type: ignore[no-any-return]


class Spy:
    """Calls of one method of a backend."""

    def __init__(self, of: Any, name: str) -> None:
        self.segments: list[Segments] = []
        self.original: Callable[..., Any] = getattr(of, name)
        setattr(of, name, self)

    def __call__(self, *given: Any) -> Any:
        self.segments.append(given[-1])
        return self.original(*given)


# --- rounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_learns_something_finite(preset: str) -> None:
    learner = make(preset)
    before = leak.fingerprint(learner)
    for _, metrics in learner.iterations(512):
        assert all(np.isfinite(value) for value in metrics.values()), metrics
    assert learner.rounds == PRESETS[preset].rounds
    assert len(learner.env.preferences) == 20
    assert leak.fingerprint(learner) != before


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_learner_on_a_language_model(preset: str) -> None:
    pytest.importorskip("transformers")
    from prefgym_agents.language import language_backend

    env = gym.make_vec(
        "prefgym/TextCopy-v0", num_envs=16, samples_per_prompt=4, prompts=27, rater="regret"
    )
    learner = DirectPreference(
        language_backend(env, seed=0), preset, labels=40, rounds=2, epochs=2, batch_pairs=16
    )
    before = leak.fingerprint(learner)
    learner.learn(600)
    assert len(learner.env.preferences) == 40
    assert all(np.isfinite(value) for value in learner.told.values())
    assert leak.fingerprint(learner) != before


@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
def test_one_round_leaves_the_policy_alone_until_everything_is_collected(algorithm: str) -> None:
    learner = DirectPreference(backend(algorithm=algorithm), labels=20, epochs=2)
    before = leak.fingerprint(learner)
    for steps, metrics in learner.iterations(512):
        if steps < 512:
            assert "direct/loss" not in metrics
            assert leak.fingerprint(learner) == before
    assert learner.told["direct/gradient_steps"] == 2.0
    assert leak.fingerprint(learner) != before


@pytest.mark.parametrize(("labels", "rounds"), [(20, 4), (7, 3), (5, 9), (1, 1)])
def test_the_whole_budget_is_asked_and_no_more(labels: int, rounds: int) -> None:
    learner = DirectPreference(backend(budget=labels), labels=labels, rounds=rounds, epochs=1)
    learner.learn(1280)
    assert learner.rounds == rounds
    assert learner.told["pref/labelled"] == len(learner.env.preferences) == labels


def test_rounds_that_fall_together_are_held_as_one() -> None:
    learner = make(rounds=5).learn(100)
    assert learner.policy.num_timesteps == 128
    assert len(learner.env.preferences) == 20


def test_a_round_asks_about_what_was_collected_since_the_last() -> None:
    learner = make(rounds=4, labels=40).learn(1024)
    held = learner.env.preferences.comparisons
    steps = [np.concatenate([held.a.episode[k::1], held.b.episode[k::1]]) for k in (0,)]
    assert len(steps[0]) == 80
    newest = held.take(slice(30, None))
    assert min(newest.a.episode.min(), newest.b.episode.min()) >= 4


def test_it_learns_from_its_own_round_alone_where_told_so() -> None:
    for learn_from, pairs in (("all", 40.0), ("round", 10.0)):
        learner = make(rounds=4, labels=40, learn_from=learn_from).learn(1024)
        assert learner.told["direct/pairs"] == pairs


def test_more_of_learn_is_more_rounds_and_labels() -> None:
    learner = make(rounds=2).learn(512)
    before = leak.fingerprint(learner)
    for labels, (steps, metrics) in zip((20, 30, 30, 40), learner.iterations(1024), strict=True):
        assert metrics["pref/labelled"] == labels, steps
    assert learner.rounds == 4
    assert learner.told["pref/asked_now"] == 10.0
    assert learner.told["direct/pairs"] == 40.0
    assert leak.fingerprint(learner) != before
    held = learner.env.preferences.comparisons.take(slice(20, 30))
    assert min(held.a.episode.min(), held.b.episode.min()) >= 2  # 200 steps each, in two lanes
    assert len(learner.learn(256, reset_num_timesteps=False).env.preferences) == 60


def test_more_of_learn_than_the_budget_allows_is_refused_before_acting() -> None:
    learner = DirectPreference(backend(budget=30), labels=20, epochs=1).learn(128)
    with pytest.raises(ValueError, match=r"labels=40, but the .* only 30; make it with budget=40"):
        learner.learn(128, reset_num_timesteps=False)
    assert learner.policy.num_timesteps == 128


def test_rounds_that_were_planned_again_resume_bit_for_bit(run_folder: Any) -> None:
    first = make(rounds=2).learn(256)
    turns = first.iterations(1024)
    next(turns)
    first.save(run_folder / "saved")
    for _ in turns:
        pass
    second = make(rounds=2, seed=5).load(run_folder / "saved").learn(1024)
    assert isinstance(second, DirectPreference)
    assert second.rounds == first.rounds == 4
    assert leak.fingerprint(first) == leak.fingerprint(second)


# --- the anchor -------------------------------------------------------------------------------


def test_the_anchor_is_computed_once_per_comparison() -> None:
    learner = make(epochs=5)
    spy = Spy(learner.policy, "reference_log_prob")
    learner.learn(512)
    assert sum(len(one) for one in spy.segments) == 40


@pytest.mark.parametrize("anchor", ["start", "round"])
def test_a_moved_anchor_is_the_policy_that_began_the_round(anchor: str) -> None:
    learner = make(rounds=2, anchor=anchor, beta=0.5)
    policy = learner.policy
    turns = learner.iterations(512)
    for steps, _ in turns:
        if steps == 384:
            break
    segments = learner.env.preferences.comparisons.a
    now, start = policy.log_prob(segments).detach(), policy.reference_log_prob(segments)
    assert not torch.allclose(now, start)
    known = torch.as_tensor(learner._anchor(segments))
    torch.testing.assert_close(known, now if anchor == "round" else start)


def test_a_reference_free_preset_never_asks_for_the_reference() -> None:
    learner = make("simpo")
    spy = Spy(learner.policy, "reference_log_prob")
    learner.learn(256)
    assert not spy.segments


def test_ktos_baseline_is_about_actions_in_contexts_of_others() -> None:
    learner = make("kto", epochs=1)
    spy = Spy(learner.policy, "reference_log_prob")
    learner.learn(256)
    a, b, of_a, of_b = (Segments.concatenate(spy.segments[3 * at : 3 * at + 3]) for at in range(4))
    for right, wrong in ((a, of_a), (b, of_b)):
        assert np.array_equal(wrong.observations, right.observations)
        assert np.array_equal(wrong.actions, np.roll(right.actions, -1, axis=0))


# --- given comparisons ------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["dpo", "kto", "cpl", "irepo"])
def test_given_comparisons_are_learned_from_without_acting(preset: str) -> None:
    learner = DirectPreference(backend(), preset, data=answered(), meaning=None, batch_pairs=8)
    learner.learn(7)
    assert learner.gradient_steps == learner.num_timesteps == 7
    assert learner.policy.num_timesteps == 0
    assert len(learner.env.preferences) == 0
    assert learner.learn(3, reset_num_timesteps=False).num_timesteps == 10


def test_a_data_set_on_disk_is_as_good(run_folder: Any) -> None:
    given = answered()
    with_folder = PreferenceDataset(run_folder / "data")
    with_folder.append(given)
    learned = [
        leak.fingerprint(DirectPreference(backend(), data=one).learn(5))
        for one in (given, with_folder)
    ]
    assert learned[0] == learned[1]


@pytest.mark.parametrize("anchor", ["start", "round"])
def test_given_comparisons_resume_bit_for_bit(anchor: str, run_folder: Any) -> None:
    def fresh(seed: int) -> DirectPreference:
        given = answered()
        return DirectPreference(
            backend(seed=seed), "kto", data=given, batch_pairs=8, anchor=anchor, beta=0.5
        )

    first = fresh(0).learn(6)
    first.save(run_folder / "saved")
    first.learn(12)
    second = fresh(77).load(run_folder / "saved").learn(12)
    assert leak.fingerprint(first) == leak.fingerprint(second)


def test_more_of_the_label_wins() -> None:
    learner = DirectPreference(backend(), data=answered(64))
    told = [metrics for _, metrics in learner.iterations(300)]
    for name, rise in (("accuracy", 0.08), ("margin", 3.0)):
        assert told[-1][f"direct/{name}"] > told[0][f"direct/{name}"] + rise


def test_weights_decide_what_is_learned() -> None:
    given = answered()
    weight = np.zeros(20)
    weight[:10] = 1.0
    half = DirectPreference(backend(), data=given.take(slice(10)), batch_pairs=20).learn(1)
    weighted = DirectPreference(backend(), data=given.replace(weight=weight), batch_pairs=20)
    weighted.learn(1)
    for name, value in half.policy.snapshot().items():
        np.testing.assert_allclose(value, weighted.policy.snapshot()[name], rtol=1e-4, atol=1e-5)


# --- what it may read -------------------------------------------------------------------------


def test_the_policy_is_never_shown_a_reward() -> None:
    learner = make("kto", rounds=2)
    shown = [Spy(learner.policy, name) for name in ("fit", "log_prob", "reference_log_prob")]
    learner.learn(512)
    for spy in shown:
        assert spy.segments
        assert all(one.rewards is None and not one.factors for one in spy.segments)


# --- refusals ---------------------------------------------------------------------------------


def test_cpl_refuses_labels_that_do_not_mean_regret() -> None:
    with pytest.raises(ValueError, match="reads a label as 'regret', and these mean 'partial-ret"):
        DirectPreference(backend(), "cpl")
    with pytest.raises(ValueError, match="pass meaning=None"):
        DirectPreference(backend(), "cpl", data=answered())
    assert DirectPreference(backend(), "cpl", meaning=None).config.meaning is None
    assert DirectPreference(backend("Delivery", segment_steps=3), "cpl").config.meaning == "regret"


def test_orpo_refuses_continuous_actions() -> None:
    with pytest.raises(ValueError, match="need discrete actions"):
        DirectPreference(backend(), "orpo")
    with pytest.raises(ValueError, match="need discrete actions"):
        DirectPreference(backend(), "orpo", data=answered())


@pytest.mark.parametrize(
    ("algorithm", "env"), [("TD3", "Pendulum"), ("DDPG", "Pendulum"), ("DQN", "CartPole")]
)
def test_a_policy_without_log_probabilities_is_refused_at_once(algorithm: str, env: str) -> None:
    made = gym.make_vec(f"prefgym/{env}-v0", num_envs=2)
    with pytest.raises(ValueError, match="acts deterministically"):
        DirectPreference(sb3_backend(algorithm, made, learning_starts=50))


def test_unknown_names_tell_their_neighbours() -> None:
    with pytest.raises(ValueError, match="did you mean 'dpo'"):
        DirectPreference(backend(), "dop")
    with pytest.raises(ValueError, match="did you mean 'beta'"):
        DirectPreference(backend(), betta=0.5)
    with pytest.raises(ValueError, match="does not read flips"):
        DirectPreference(backend(), "dpo", flips=0.3)


@pytest.mark.parametrize(
    "wrong", [{"labels": 0}, {"rounds": 0}, {"anchor": "never"}, {"learn_from": "none"}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):  # by us, or by beartype
        Config(**wrong)


def test_a_budget_smaller_than_the_labels_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="allows only 10"):
        DirectPreference(backend(budget=10), labels=20)


def test_data_of_another_environment_are_refused_at_once() -> None:
    given = answered()
    with pytest.raises(ValueError, match=r"does not fit .* observation .* shape \(3,\), .*\(4,\)"):
        DirectPreference(backend("CartPole"), data=given)
    without = given.replace(b=given.b.replace(observations=None))
    with pytest.raises(ValueError, match=r"data= does not fit .* hold no observations"):
        DirectPreference(backend(), data=without)


def test_tokens_that_do_not_exist_are_refused_at_once() -> None:
    pytest.importorskip("transformers")
    from prefgym_agents.language import language_backend

    env: Any = gym.make_vec("prefgym/TextCopy-v0", num_envs=8, samples_per_prompt=8)
    rows = [{"prompt": "a x b", "chosen": "a b", "rejected": "x"}]
    data, policy = from_trl(rows, layout=env.layout), language_backend(env, seed=0)
    DirectPreference(policy, data=data).learn(1)
    beyond = data.replace(b=data.b.replace(actions=np.full((1, 4), 17)))
    with pytest.raises(ValueError, match=r"data= does not fit .* There is no token 17"):
        DirectPreference(policy, data=beyond)
    with pytest.raises(ValueError, match=r"data= does not fit .* wanted .* the prompts"):
        DirectPreference(policy, data=from_trl(rows))
    with pytest.raises(ValueError, match=r"data= does not fit .* Tokens of type float32"):
        DirectPreference(policy, data=answered())


def test_no_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="holds no comparisons"):
        DirectPreference(backend(), data=answered().take(slice(0)))


# --- what it asks of the backend --------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
def test_the_reference_is_the_policy_as_it_was_made(algorithm: str, run_folder: Any) -> None:
    learner = DirectPreference(backend(algorithm=algorithm), labels=20, epochs=3)
    segments = answered().a
    start = learner.policy.log_prob(segments).detach()
    torch.testing.assert_close(learner.policy.reference_log_prob(segments), start)
    learner.learn(256)
    assert not torch.allclose(learner.policy.log_prob(segments), start)
    learner.save(run_folder / "saved")
    other = DirectPreference(backend(algorithm=algorithm, seed=9), labels=20, epochs=3)
    other.load(run_folder / "saved")
    for one in (learner, other):
        known = one.policy.reference_log_prob(segments)
        assert not known.requires_grad
        assert torch.equal(known, start)


def test_the_deviation_does_not_collapse_under_a_loss_of_densities() -> None:
    policy = backend()
    given = answered().a
    for group in policy._policy_optimizer().param_groups:
        group["lr"] = 0.5
    for _ in range(30):
        policy.fit(lambda log_prob: -log_prob.sum(), given)
    assert isinstance(policy, OnPolicySB3)
    assert policy.model.policy.log_std.min().item() >= LOG_STD_FLOOR


# --- what it must show ------------------------------------------------------------------------


def test_the_quick_part_of_the_claim_holds() -> None:
    result = cpl.run(3, quick=True)
    assert result.holds, report(result)


def test_the_values_of_pendulum_are_optimal() -> None:
    values = pendulum_values.solved()
    angle = np.linspace(-3.0, 3.0, 50)
    observations = np.stack([np.cos(angle), np.sin(angle), 2.0 * np.sin(5.0 * angle)], 1)
    best = values.advantages(observations, values.act(observations))
    worst = values.advantages(observations, -values.act(observations))
    assert np.abs(best).mean() < 0.3  # of values down to −258, on a grid
    assert (worst <= best + 1e-9).all()
