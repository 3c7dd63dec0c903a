"""HERON: who compares, what drives the policy, what other units change (nothing), on text too."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import prefgym  # noqa: F401
from prefgym.models.combined_features import CombinedFeatures, feature_reward_model, with_factors
from prefgym.models.features import FactorFeatures, StepFeatures
from prefgym.raters import make_rater
from prefgym.segments import Segments
from prefgym.vector import ReplayableVectorEnv
from prefgym.wrappers import PreferenceVectorEnv
from prefgym_agents.heron import HERON, PRESETS
from prefgym_agents.learner import acted
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.sb3_off_policy import OffPolicySB3

PENDULUM, POLITE = "prefgym/Pendulum-v0", "prefgym/TextPolite-v0"
FACTORS = ("angle2", "speed2", "torque2")
SMALL: dict[str, Any] = {
    "labels": 400, "sessions": 4, "start_steps": 200, "hidden": (16,), "batch_pairs": 64,
}  # fmt: skip


def pendulums(**asked: Any) -> Any:
    return gym.make_vec(PENDULUM, **{"num_envs": 4, "rater": "heron", "segment_steps": 1, **asked})


def backend(algorithm: str = "PPO", env: Any = None, seed: int = 0) -> Any:
    arguments = {
        "PPO": {"n_steps": 64, "n_epochs": 2},
        "SAC": {"learning_starts": 100, "batch_size": 32, "gradient_steps": 2},
    }[algorithm]
    return sb3_backend(algorithm, pendulums() if env is None else env, seed=seed, **arguments)


# --- the loop -------------------------------------------------------------------------------------


def test_the_policy_earns_what_the_reward_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the reward of the environment, as in the code that was released for robots."""
    policy = backend()
    learner = HERON(policy, **SMALL)
    handed = []

    def update(segments: Segments, rewards: np.ndarray) -> dict[str, float]:
        handed.append((segments, rewards))
        return {}

    monkeypatch.setattr(policy, "update", update)
    learner.learn(1024)
    segments, rewards = handed[-1]
    assert np.array_equal(rewards, learner.model.rewards(segments).numpy())
    told = segments.rewards[segments.mask]
    assert np.corrcoef(rewards[segments.mask], told)[0, 1] > 0.8
    assert not np.allclose(rewards[segments.mask], told)


def test_a_replay_is_judged_anew_by_the_newest_model() -> None:
    policy = backend("SAC")
    assert isinstance(policy, OffPolicySB3)
    learner = HERON(policy, **SMALL)
    judged = []

    def relabel(rewards: Any) -> None:
        policy.replay.relabel(rewards)
        judged.append(policy.num_timesteps)

    policy.relabel = relabel  # type: ignore[method-assign]
    learner.learn(600)
    assert judged == [224, 320, 480], "as often as labels were asked"
    index = policy.store.since(np.zeros(4, np.int64), 100)
    steps = policy.store.segments(index, int(index.length.max()))
    lanes, first = policy.store.rows(index)
    at = first[:, None] + np.arange(steps.steps)
    kept = policy.replay.learned[
        np.broadcast_to(lanes[:, None], at.shape), at % policy.store.capacity
    ]
    np.testing.assert_allclose(
        kept[steps.mask], learner.rewards(steps)[steps.mask], rtol=0.0, atol=1e-5
    )


def test_comparisons_are_counted_and_told_apart_by_who_decided() -> None:
    learner = HERON(backend(), **SMALL).learn(1024)
    told, asked = learner.told, learner.env.preferences
    assert told["pref/labelled"] == len(asked) <= 400
    assert told["pref/skipped"] == asked.skipped > 0
    shares = [told[f"rater/decided_by_-{name}"] for name in FACTORS]
    assert sum(shares) + told["rater/undecided"] == pytest.approx(1.0)
    assert min(shares) > 0.0
    assert told["rater/undecided"] == 1.0 - told["pref/asked_now"] / learner.compared
    assert told["pref/ties"] == 0.0
    assert asked.meaning == "hierarchy"


class Units(gym.Wrapper[Any, Any, Any, Any]):
    """The factors of the pendulum, measured in other units."""

    def __init__(self, env: Any, scales: tuple[float, ...]) -> None:
        super().__init__(env)
        self.factor_names, self.scales = FACTORS, scales

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        factors = {
            name: info["factors"][name] * by for name, by in zip(FACTORS, self.scales, strict=True)
        }
        return observation, reward, terminated, truncated, {**info, "factors": factors}


def trained_in(scales: tuple[float, ...], rater: str) -> dict[str, np.ndarray]:
    def make() -> Any:
        from prefgym_envs.control import raw

        return Units(gym.wrappers.TimeLimit(raw(name="Pendulum"), 200), scales)

    order = {"factors": "-angle2,-speed2,-torque2"} if rater == "heron" else {}
    env = PreferenceVectorEnv(
        ReplayableVectorEnv([make] * 4), rater, rater_kwargs=order, segment_steps=1
    )
    learner = HERON(backend(env=env), **SMALL).learn(768)
    assert len(env.preferences) > 200
    return dict(learner.policy.snapshot())


def test_factors_in_other_units_give_the_same_agent_bit_for_bit() -> None:
    """Powers of two, so that not a bit is rounded differently on the way."""
    plain, other = (trained_in(scales, "heron") for scales in ((1.0,) * 3, (1.0, 8.0, 2.0**-10)))
    assert all(np.array_equal(plain[name], other[name]) for name in plain)


def test_a_hierarchy_in_which_nothing_is_decided_is_told_and_survived() -> None:
    env = pendulums(rater_kwargs={"factors": "-angle2", "margins": 1000.0})
    learner = HERON(backend(env=env), **SMALL)
    with pytest.warns(UserWarning, match=r"none was decided \(-angle2 0%, undecided 100%\)"):
        learner.learn(512)
    assert learner.told["rater/undecided"] == 1.0
    assert learner.told["pref/labelled"] == 0.0


# --- what the reward model reads ------------------------------------------------------------------


def test_the_factors_of_the_hierarchy_stand_beside_what_happens() -> None:
    asked = {"factors": "-speed2,-angle2"}
    reads = HERON(backend(env=pendulums(rater_kwargs=asked)), **SMALL).model.step_features
    assert isinstance(reads, CombinedFeatures)
    assert reads.parts[1] == FactorFeatures(["speed2", "angle2"])
    assert reads.width == 3 + 1 + 2
    plain = HERON(backend(), **SMALL, factors_as_inputs=False)
    assert isinstance(plain.model.step_features, StepFeatures)
    everything = RewardLearning(backend(env=pendulums(rater="oracle")), factors_as_inputs=True)
    assert everything.model.step_features.width == 3 + 1 + 3


def test_a_learner_reads_no_factor_but_those_it_measures() -> None:
    learner = HERON(backend(), **SMALL).learn(512)
    asked = learner.env.preferences.comparisons
    assert set(acted(asked).a.factors) == set()
    kept = acted(asked, ("speed2",)).a
    assert set(kept.factors) == {"speed2"}
    assert kept.rewards is None
    with pytest.raises(ValueError, match="Unknown factor 'speed3'; did you mean 'speed2'"):
        acted(asked, ("speed3",))
    again = HERON(backend(), data=asked, labels=0, sessions=2, start_steps=200).learn(512)
    assert again.told["reward_model/accuracy"] > 0.7
    bare = asked.replace(a=acted(asked).a, b=acted(asked).b)
    with pytest.raises(ValueError, match="Unknown factor 'angle2'"):
        HERON(backend(), data=bare, labels=0)


def test_features_side_by_side_are_the_features_one_by_one() -> None:
    rng = np.random.default_rng(0)
    some = Segments(
        actions=rng.integers(0, 2, (5, 4)),
        mask=np.arange(4) < rng.integers(1, 5, 5)[:, None],
        context=rng.normal(size=(5, 3)),
        context_id=np.arange(5),
        observations=rng.normal(size=(5, 4, 3)),
        factors={name: rng.normal(size=(5, 4)) for name in "fg"},
    )
    seen, acting = spaces.Box(-np.inf, np.inf, (3,)), spaces.Discrete(2)
    joint = with_factors(["f", "g"], seen, acting)
    parts = [StepFeatures(seen, acting)(some), FactorFeatures(["f", "g"])(some)]
    assert torch.equal(joint(some), torch.cat(parts, -1))
    assert joint.measured.tolist() == [True] * 3 + [False] * 2 + [True] * 2
    assert with_factors(["f", "g"], None, acting) == FactorFeatures(["f", "g"])
    model = feature_reward_model(joint, 2, (8,), tanh=True, seed=1)
    assert model.rewards(some).abs().max() < 1.0
    assert model.members == 2
    with pytest.raises(ValueError, match="got no feature maps"):
        CombinedFeatures([])


# --- mistakes of users ----------------------------------------------------------------------------


def test_who_compares_is_a_hierarchy() -> None:
    with pytest.raises(ValueError, match=r"mean 'partial-return'; make it with rater='heron'"):
        HERON(backend(env=pendulums(rater="partial-return")))


def test_presets_and_settings_go_by_name() -> None:
    assert HERON(backend(), "paper").config == PRESETS["paper"]
    with pytest.raises(ValueError, match="Unknown preset 'pebble'"):
        HERON(backend(), "pebble")
    with pytest.raises(ValueError, match="Unknown setting of reward learning 'margins'"):
        HERON(backend(), margins=0.5)
    bare = gym.make_vec(PENDULUM, num_envs=2)
    bare.store.factor_names = ()
    with pytest.raises(ValueError, match="names no factors; set it to False"):
        RewardLearning(backend(env=bare), factors_as_inputs=True)


# --- text -----------------------------------------------------------------------------------------


def share_preferred(after: Segments, before: Segments) -> float:
    """Of responses to equal prompts, in pairs, how often the hierarchy prefers the first."""
    left, right = np.nonzero(after.context_id[:, None] == before.context_id)
    rater = make_rater("heron", factors="correctness,politeness,-length", deviation="batch")
    return float(rater.probability(after.take(left), before.take(right)).mean())


def test_a_language_model_is_preferred_to_its_start_by_the_hierarchy() -> None:
    pytest.importorskip("transformers")
    from prefgym_agents.language import language_backend

    env = gym.make_vec(
        POLITE, num_envs=64, samples_per_prompt=8, prompts=8, rater="heron", query_every=None
    )
    policy = language_backend(env, algorithm="RLOO", seed=0, learning_rate=1e-3, kl=0.01)
    learner = HERON(policy, labels=1500, sessions=5, start_steps=500)
    assert isinstance(learner.model.step_features, FactorFeatures)
    policy.begin(20_000)
    before = policy.collect()
    learner.learn(16_000)
    policy.begin(40_000)
    after = policy.collect()
    assert share_preferred(before, before) == pytest.approx(0.5)
    assert share_preferred(after, before) > 0.65
    names = ("correctness", "politeness", "length")
    steps = np.array([[1.0, 0.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 1.0]])
    right, polite, idle = learner.model.rewards(
        Segments(
            actions=np.zeros((3, 1), np.int64),
            mask=np.ones((3, 1), bool),
            context=np.zeros((3, 6), np.int64),
            context_id=np.zeros(3, np.int64),
            factors=dict(zip(names, steps.T[..., None], strict=True)),
        )
    )[:, 0].tolist()
    assert right > polite > idle, "what a token earns that is right, polite, or neither"
