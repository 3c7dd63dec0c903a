"""The backend that drives Stable-Baselines3: rewards land where they belong, and nowhere else."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit
from safetensors.numpy import load_file
from stable_baselines3 import PPO

from prefgym.vector import ReplayableVectorEnv
from prefgym.wrappers import PreferenceVectorEnv
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.normalisation import RunningNormalisation
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.sb3_env import GymnasiumVecEnv
from prefgym_agents.sb3_off_policy import OffPolicySB3
from prefgym_agents.sb3_on_policy import OnPolicySB3

SMALL: dict[str, dict[str, Any]] = {
    "PPO": {"n_steps": 64, "n_epochs": 2},
    "A2C": {"n_steps": 16},
    "SAC": {"learning_starts": 50, "batch_size": 32},
    "TD3": {"learning_starts": 50, "batch_size": 32},
    "DDPG": {"learning_starts": 50, "batch_size": 32},
}


def pendulum(mode: AutoresetMode = AutoresetMode.SAME_STEP, limit: int = 30) -> PreferenceVectorEnv:
    def make() -> gym.Env[Any, Any]:
        return TimeLimit(gym.make("Pendulum-v1", max_episode_steps=-1), limit)

    return PreferenceVectorEnv(ReplayableVectorEnv([make] * 3, mode), segment_steps=5)


def backend(algorithm: str, seed: int = 0, **changes: Any) -> OnPolicySB3 | OffPolicySB3:
    return sb3_backend(algorithm, pendulum(**changes), seed=seed, **SMALL[algorithm])


def advance(one: PolicyBackend, turns: int) -> None:
    for _ in range(turns):
        segments = one.collect()
        assert segments is not None
        one.update(segments, np.asarray(segments.rewards))


@pytest.mark.parametrize("algorithm", SMALL)
def test_it_is_a_policy_backend(algorithm: str) -> None:
    assert isinstance(backend(algorithm), PolicyBackend)


@pytest.mark.parametrize("algorithm", SMALL)
def test_collect_returns_exactly_the_steps_taken(algorithm: str) -> None:
    one = backend(algorithm)
    one.begin(1000)
    seen = 0
    for _ in range(5):
        segments = one.collect()
        assert segments is not None
        seen += int(segments.mask.sum())
        assert seen == one.num_timesteps
        one.update(segments, np.zeros(segments.mask.shape))
    assert segments.steps <= 30


@pytest.mark.parametrize("limit", [30, 7])
def test_on_policy_training_on_hidden_rewards_equals_plain_ppo_bit_for_bit(limit: int) -> None:
    """Adding the true rewards after the rollout must be the same as never having hidden them."""
    ours = backend("PPO", limit=limit)
    ours.begin(3 * 64 * 4)
    advance(ours, 4)
    plain_env = GymnasiumVecEnv(pendulum(limit=limit).env)
    plain = PPO("MlpPolicy", plain_env, seed=0, device="cpu", **SMALL["PPO"])
    plain.learn(3 * 64 * 4)
    for name, value in plain.policy.state_dict().items():
        np.testing.assert_allclose(value.numpy(), ours.snapshot()[name], rtol=1e-4, atol=1e-6)


def test_rewards_reach_the_step_they_are_for() -> None:
    one = backend("PPO", limit=7)
    one.begin(1000)
    for _ in range(3):
        segments = one.collect()
        assert segments is not None
        buffer = one.model.rollout_buffer
        bootstrap = buffer.rewards.copy()
        one.update(segments, np.asarray(segments.rewards))
        given = buffer.rewards - bootstrap
        lane, step = one._places(one._index)
        for row in range(len(segments)):
            length = int(segments.mask[row].sum())
            there = given[step[row] : step[row] + length, lane[row]]
            np.testing.assert_allclose(there, segments.rewards[row, :length], rtol=1e-5)
        assert np.isclose(given.sum(), segments.rewards.sum(), rtol=1e-4)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_both_usable_autoreset_modes_train_alike(mode: AutoresetMode) -> None:
    snapshots = []
    for each in (AutoresetMode.SAME_STEP, mode):
        one = backend("PPO", limit=7, mode=each)
        one.begin(1000)
        advance(one, 2)
        snapshots.append(one.snapshot())
    for name, value in snapshots[0].items():
        assert np.array_equal(value, snapshots[1][name])


def test_the_next_step_mode_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="resets at the next step"):
        backend("PPO", mode=AutoresetMode.NEXT_STEP)


def test_an_environment_without_preferences_is_refused() -> None:
    with pytest.raises(ValueError, match="does not emit preferences"):
        sb3_backend("PPO", gym.make_vec("Pendulum-v1", num_envs=2))


def test_an_unknown_algorithm_names_its_neighbours() -> None:
    with pytest.raises(ValueError, match="PPO"):
        sb3_backend("PP0", pendulum())


@pytest.mark.parametrize("algorithm", ["SAC", "TD3"])
def test_replay_is_relabelled_as_a_whole_and_once(algorithm: str) -> None:
    one = backend(algorithm)
    assert isinstance(one, OffPolicySB3)
    one.begin(1000)
    advance(one, 12)
    calls = []

    def judge(segments: Any) -> np.ndarray:
        calls.append(len(segments))
        return np.asarray(segments.observations[..., 0] * 10 + segments.actions[..., 0])

    one.relabel(judge)
    assert (len(calls), one.replay.version) == (1, 1)
    store = one.store
    sample = one.replay.sample(500)
    expected = sample.observations[:, :1] * 10 + 2.0 * sample.actions
    np.testing.assert_allclose(sample.rewards.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)
    assert len(store) == one.num_timesteps


def test_replay_samples_are_transitions_of_the_store_and_limits_are_not_terminal() -> None:
    one = backend("SAC", limit=7)
    assert isinstance(one, OffPolicySB3)
    one.begin(1000)
    advance(one, 30)
    sample = one.replay.sample(400)
    assert not sample.dones.any()  # Pendulum never terminates, it is only cut off
    cos, sin = sample.observations[:, 0], sample.observations[:, 1]
    speed = sample.next_observations[:, 2]
    angle = torch.atan2(sin, cos) + speed * 0.05
    np.testing.assert_allclose(sample.next_observations[:, 0], torch.cos(angle), atol=1e-3)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "SAC", "TD3"])
def test_a_state_continues_bit_for_bit(algorithm: str) -> None:
    first = backend(algorithm, limit=13)
    first.begin(4000)
    advance(first, 6)
    state = first.get_state()
    advance(first, 5)
    second = backend(algorithm, seed=99, limit=13)
    second.set_state(state)
    second.begin(4000)
    advance(second, 5)
    for name, value in first.snapshot().items():
        assert np.array_equal(value, second.snapshot()[name]), name
    assert first.episode_statistics() == second.episode_statistics()


@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
def test_log_prob_is_the_policys_density_and_fit_raises_it(algorithm: str) -> None:
    one = backend(algorithm)
    one.begin(1000)
    segments = one.collect()
    assert segments is not None
    before = one.log_prob(segments)
    assert before.shape == segments.mask.shape
    assert torch.isfinite(before).all()
    assert not before[~torch.as_tensor(segments.mask)].any()
    for _ in range(5):
        told = one.fit(lambda log_prob: -log_prob.mean(), segments)
    assert np.isfinite(told["loss"])
    assert one.log_prob(segments).sum() > before.sum()


def test_a_loss_that_is_not_finite_stops_and_leaves_the_batch(run_folder: Path) -> None:
    one = backend("PPO")
    one.begin(1000)
    segments = one.collect()
    assert segments is not None
    one.fit(lambda log_prob: -log_prob.mean(), segments)
    before = one.snapshot()
    with pytest.raises(RuntimeError, match=r"The loss became nan .* astray-step-1\.safetensors"):
        one.fit(lambda log_prob: log_prob.sum() * float("nan"), segments)
    found = load_file(run_folder / "astray-step-1.safetensors")
    np.testing.assert_array_equal(found["actions"], segments.actions)
    assert all(np.array_equal(value, one.snapshot()[name]) for name, value in before.items())


def test_restarting_values_keeps_the_actor() -> None:
    one = backend("SAC")
    one.begin(1000)
    advance(one, 10)
    critic = {k: v.copy() for k, v in one.snapshot().items() if k.startswith("critic.")}
    one.restart_values()
    after = one.snapshot()
    assert any(not np.allclose(after[name], value, atol=1e-2) for name, value in critic.items())


def test_observation_statistics_equal_those_of_all_observations_at_once() -> None:
    norm = RunningNormalisation(gym.spaces.Box(-10, 10, (3,)))
    rng = np.random.default_rng(0)
    batches = [
        torch.as_tensor(rng.normal(3.0, 2.0, (n, 3)).astype(np.float32)) for n in (5, 70, 20)
    ]
    for batch in batches:
        norm.update(batch)
    everything = torch.cat(batches)
    np.testing.assert_allclose(norm.mean, everything.mean(0), rtol=1e-3)
    np.testing.assert_allclose(norm.variance, everything.var(0, correction=0), rtol=1e-2)
    whole = norm(everything)
    assert whole.mean().abs() < 1e-2
    assert (whole.std() - 1).abs() < 5e-2


def test_normalised_observations_resume_with_their_statistics() -> None:
    def make(seed: int) -> OnPolicySB3 | OffPolicySB3:
        return sb3_backend(
            "PPO", pendulum(), seed=seed, normalise_observations=True, **SMALL["PPO"]
        )

    first = make(0)
    first.begin(2000)
    advance(first, 2)
    state = first.get_state()
    advance(first, 2)
    second = make(1)
    second.set_state(state)
    second.begin(2000)
    advance(second, 2)
    for name, value in first.snapshot().items():
        assert np.array_equal(value, second.snapshot()[name]), name


def test_a_discrete_task_trains_with_dqn() -> None:
    env = gym.make_vec("prefgym/CartPole-v0", num_envs=2)
    one = sb3_backend("DQN", env, seed=0, learning_starts=50, batch_size=32)
    one.begin(1000)
    advance(one, 10)
    assert one.num_timesteps == 160


def test_the_policys_arguments_stay_the_users_own() -> None:
    asked = {"net_arch": [8]}
    for algorithm in ("SAC", "PPO"):  # SAC adds to what it is given
        env = gym.make_vec("prefgym/Pendulum-v0", num_envs=1)
        sb3_backend(algorithm, env, seed=0, policy_kwargs=asked)
        assert asked == {"net_arch": [8]}
