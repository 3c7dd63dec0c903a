"""The learner: its schedule, its presets, what it may read, and that it learns."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import prefgym  # noqa: F401
from benchmarks.claims import leak
from prefgym.checkpoints import CheckpointError
from prefgym.comparisons import Labels
from prefgym.models.reward_models import PointwiseModel, reward_model
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.configs import RewardLearningRun, plain, restored, settled
from prefgym_agents.evaluation import RandomPolicy, evaluate
from prefgym_agents.learner import Learner
from prefgym_agents.reward_learning import PRESETS, Config, RewardLearning
from prefgym_agents.sb3 import sb3_backend
from tests.test_learners import BACKENDS, LEARNERS, answered

ALGORITHMS: dict[str, dict[str, Any]] = {
    "PPO": {"n_steps": 64, "n_epochs": 2},
    "SAC": {"learning_starts": 100, "batch_size": 32, "gradient_steps": 2},
}


def make(
    name: str = "reward-learning", algorithm: str = "PPO", seed: int = 0, **asked: Any
) -> Learner:
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=2, segment_steps=10, **asked)
    backend = sb3_backend(algorithm, env, seed=seed, **ALGORITHMS[algorithm])
    learner: Learner = LEARNERS[name](backend)
    return learner


def test_a_learner_of_another_kind_is_not_loaded(run_folder: Any) -> None:
    make("true-reward").learn(256).save(run_folder / "saved")
    with pytest.raises(CheckpointError, match="holds a TrueReward"):
        make("reward-learning").load(run_folder / "saved")


def test_settings_that_do_not_fit_are_told_apart(run_folder: Any) -> None:
    make().learn(256).save(run_folder / "saved")
    env = gym.make_vec("prefgym/CartPole-v0", num_envs=2)
    other = RewardLearning(sb3_backend("PPO", env, n_steps=64))
    with pytest.raises(CheckpointError, match="does not fit"):
        other.load(run_folder / "saved")


def test_learning_nothing_is_said() -> None:
    learner = make("true-reward").learn(256)
    with pytest.raises(ValueError, match="would do nothing"):
        learner.learn(256)
    assert learner.learn(128, reset_num_timesteps=False).policy.num_timesteps == 384


def test_stable_baselines_callbacks_work_and_can_stop() -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.n_calls < 100

    learner = make().learn(2000, callback=Stop())
    assert learner.policy.num_timesteps == 200


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs(preset: str) -> None:
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=2, segment_steps=10)
    backend = sb3_backend("SAC", env, seed=0, **ALGORITHMS["SAC"])
    explore = min(200, PRESETS[preset].explore_steps)
    learner = RewardLearning(
        backend, preset, labels=10, sessions=2, epochs=2, start_steps=100, explore_steps=explore
    ).learn(400)
    assert learner.sessions == 2
    assert len(learner.env.preferences) == 10


def test_an_unknown_preset_names_its_neighbours() -> None:
    backend = sb3_backend("PPO", gym.make_vec("prefgym/Pendulum-v0", num_envs=2), n_steps=64)
    with pytest.raises(ValueError, match="pebble"):
        RewardLearning(backend, "pebbel")


def test_a_budget_smaller_than_the_labels_is_refused_at_once() -> None:
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=2, budget=10)
    with pytest.raises(ValueError, match="allows only 10"):
        RewardLearning(sb3_backend("PPO", env, n_steps=64), labels=20)


@pytest.mark.parametrize("wrong", [{"labels": -1}, {"sessions": 0}, {"ask_until": 1.5}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


@pytest.mark.parametrize(("labels", "sessions"), [(20, 4), (7, 3), (5, 9), (1, 1)])
def test_the_whole_budget_is_asked_and_no_more(labels: int, sessions: int) -> None:
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=2, segment_steps=10, budget=labels)
    learner = RewardLearning(
        sb3_backend("PPO", env, seed=0, n_steps=64, n_epochs=1),
        labels=labels,
        sessions=sessions,
        epochs=1,
        start_steps=0,
        hidden=(8,),
    ).learn(2560)
    assert len(env.preferences) == labels
    assert learner.told["pref/labelled"] == labels


@pytest.mark.parametrize("queries", ["uniform", "disagreement", "entropy", "k-centre"])
def test_every_way_of_choosing_pairs(queries: Any) -> None:
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=2, segment_steps=10)
    learner = RewardLearning(
        sb3_backend("PPO", env, seed=0, n_steps=64, n_epochs=1),
        Config(labels=12, sessions=3, epochs=2, start_steps=0, hidden=(8,), queries=queries),
    ).learn(1280)
    assert len(env.preferences) == 12
    assert learner.sessions == 3


def test_the_backend_makes_the_model_as_the_settings_say() -> None:
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=2, segment_steps=10)
    backend = sb3_backend("PPO", env, seed=0, n_steps=64)
    learner = RewardLearning(backend, members=2, hidden=(8, 4), bounded=True, seed=5)
    spaces = env.single_observation_space, env.single_action_space
    wanted = reward_model(*spaces, members=2, hidden=(8, 4), tanh=True, seed=5)
    torch.testing.assert_close(
        dict(learner.model.state_dict()), dict(wanted.state_dict()), rtol=0, atol=0
    )
    assert isinstance(learner.model, PointwiseModel)
    assert isinstance(backend, PolicyBackend)
    mine = backend.reward_model(members=1, hidden=(3,), tanh=False, seed=0)
    assert RewardLearning(backend, model=mine).model is mine


def test_new_states_cannot_be_rewarded_where_none_are_seen() -> None:
    learner = make()
    learner.policy.begin(128)
    seen = learner.policy.collect()
    assert seen is not None
    assert isinstance(learner, RewardLearning)
    with pytest.raises(ValueError, match=r"segments of this environment hold no observations; set"):
        learner._novelty(seen.replace(observations=None))


def test_the_model_agrees_with_the_truth_in_the_end() -> None:
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=4)
    learner = RewardLearning(
        sb3_backend("PPO", env, seed=0, n_steps=256, n_epochs=1), labels=150, sessions=3
    ).learn(8 * 1024)
    assert learner.told["reward_model/true_return_corr"] > 0.9


def test_a_coins_answers_teach_nothing() -> None:
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=4, rater="random")
    learner = RewardLearning(
        sb3_backend("PPO", env, seed=0, n_steps=256, n_epochs=1), labels=150, sessions=3, epochs=20
    ).learn(8 * 1024)
    assert abs(learner.told["reward_model/true_return_corr"]) < 0.6


def test_the_scrambled_truth_changes_nothing() -> None:
    result = leak.run(0, quick=True)
    assert result.holds


def test_where_episodes_end_early_the_constant_of_the_reward_is_kept() -> None:
    env = gym.make_vec("prefgym/CartPole-v0", num_envs=2)
    learner = RewardLearning(
        sb3_backend("PPO", env, seed=0, n_steps=128, n_epochs=1), labels=20, sessions=1, epochs=5
    ).learn(1280)
    assert learner.store.any_terminated
    assert not learner.model.reward_mean.any()


def test_evaluation_is_a_function_of_policy_and_seed() -> None:
    env = gym.make("prefgym/Pendulum-v0")
    first, second = (
        evaluate(RandomPolicy(env.action_space, seed=1), "prefgym/Pendulum-v0", episodes=4, seed=9)
        for _ in range(2)
    )
    assert first.shape == (4,)
    assert np.array_equal(first, second)
    assert (first < 0).all()


def test_evaluation_leaves_the_generators_of_training_alone() -> None:
    learner = make()
    learner.learn(256)
    before = torch.get_rng_state()
    evaluate(learner, "prefgym/Pendulum-v0", episodes=2)
    assert torch.equal(before, torch.get_rng_state())


def test_portions_that_are_skipped_as_a_whole_change_nothing() -> None:
    def silent(a: Any, b: Any, rng: np.random.Generator) -> Labels:
        asked.append(len(a))
        answered = np.full(len(a), len(asked) > 2)
        return Labels(np.ones(len(a)), answered, np.zeros(len(a), np.int64))

    asked: list[int] = []
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=2, segment_steps=10, rater=silent)
    backend = sb3_backend("PPO", env, n_steps=64, n_epochs=1)
    learner = RewardLearning(backend, labels=12, sessions=4, start_steps=100, epochs=2)
    told = [metrics for _, metrics in learner.iterations(1_280)]
    assert told[1]["pref/asked_now"] == 0.0
    assert told[-1]["pref/labelled"] > 0
    assert told[-1]["pref/skipped"] > 0
    assert all(np.isfinite(list(one.values())).all() for one in told)


# --- given comparisons ------------------------------------------------------------------------


def pendulum(algorithm: str = "PPO", **asked: Any) -> PolicyBackend:
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=2, segment_steps=10, **asked)
    return sb3_backend(algorithm, env, seed=0, **ALGORITHMS[algorithm])


def from_data(policy: PolicyBackend, pairs: int = 20, **changes: Any) -> RewardLearning:
    settings = {"labels": 0, "sessions": 2, "epochs": 3, "start_steps": 300, "hidden": (16,)}
    return RewardLearning(policy, data=answered(policy, pairs), **{**settings, **changes})


def nobody(a: Any, b: Any) -> Any:
    raise AssertionError("asked")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_given_comparisons_are_learned_from_before_the_first_update(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = from_data(pendulum(algorithm, rater=nobody))
    policy, fitted = learner.policy, []
    start = {name: value.clone() for name, value in learner.model.state_dict().items()}
    update = policy.update

    def noting(segments: Any, worth: np.ndarray) -> dict[str, float]:
        now = learner.model.state_dict()
        fitted.append(any(not torch.equal(start[name], one) for name, one in now.items()))
        assert np.array_equal(worth, learner.rewards(segments))
        return update(segments, worth)

    monkeypatch.setattr(policy, "update", noting)
    told = [metrics for _, metrics in learner.iterations(640)]
    assert all(fitted)
    assert len(learner.env.preferences) == 0
    assert [one["pref/sessions"] for one in told][:: len(told) - 1] == [0.0, 2.0]
    assert all(one["reward_model/pairs"] == 20.0 for one in told)
    assert all("rater/agreement" not in one for one in told)
    assert all(np.isfinite(list(one.values())).all() for one in told)


def test_given_comparisons_are_learned_from_beside_the_asked() -> None:
    learner = from_data(pendulum(), labels=12)
    told = [metrics for _, metrics in learner.iterations(640)]
    assert told[0]["reward_model/pairs"] == 20.0
    assert told[0]["pref/asked_now"] == 0.0
    assert told[-1]["reward_model/pairs"] == 32.0
    assert told[-1]["pref/labelled"] == len(learner.env.preferences) == 12
    assert 0.0 <= told[-1]["rater/agreement"] <= 1.0


def test_given_comparisons_wait_for_exploration_to_end() -> None:
    learner = from_data(pendulum("SAC"), explore_steps=100)
    for steps, metrics in learner.iterations(160):
        assert ("reward_model/loss" in metrics) == (steps > 100)


def test_given_comparisons_resume_bit_for_bit(run_folder: Any) -> None:
    for at in (128, 384):
        first = from_data(pendulum(), labels=12)
        turns = first.iterations(768)
        while next(turns)[0] < at:
            pass
        first.save(run_folder / str(at))
        list(turns)
        second = from_data(pendulum(), labels=12, seed=0).load(run_folder / str(at)).learn(768)
        assert leak.fingerprint(first) == leak.fingerprint(second)
    with pytest.raises(CheckpointError, match="learned from 20 given comparisons, and data= hold"):
        from_data(pendulum(), 19, labels=12).load(run_folder / "384")


def test_the_true_reward_of_given_comparisons_is_not_read() -> None:
    data = answered(pendulum())
    false = data.a.replace(rewards=np.full(data.a.mask.shape, 1e3), factors={}, episode=None)
    learned = [
        leak.fingerprint(
            RewardLearning(pendulum(rater=nobody), data=one, labels=0, hidden=(8,)).learn(256)
        )
        for one in (data, data.replace(a=false))
    ]
    assert learned[0] == learned[1]


def test_a_model_of_given_comparisons_agrees_with_the_truth() -> None:
    learner = from_data(pendulum(rater=nobody), 200, start_steps=500, sessions=4, hidden=(32, 32))
    assert learner.learn(2048).told["reward_model/true_return_corr"] > 0.85


def test_given_comparisons_that_cannot_be_learned_from_are_refused_at_once() -> None:
    policy = pendulum()
    with pytest.raises(ValueError, match="labels=0 leaves nothing to learn from"):
        RewardLearning(policy, labels=0)
    human = answered(policy).replace(meaning="human")
    RewardLearning(policy, data=human, labels=0)
    with pytest.raises(ValueError, match=r"mean 'human', and those .* rater 'partial-return'"):
        RewardLearning(policy, data=human)
    with pytest.raises(ValueError, match="holds no comparisons"):
        RewardLearning(policy, data=human.take(slice(0)), labels=0)
    odd = human.replace(b=human.b.replace(actions=np.zeros((20, 10, 2))))
    with pytest.raises(ValueError, match=r"does not fit .* an action .* \(2,\), and .* \(1,\)"):
        RewardLearning(policy, data=odd, labels=0)


# --- the truth, for people ----------------------------------------------------------------------


def test_the_truth_is_compared_within_what_may_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def level(segments: Any) -> np.ndarray:
        """Nothing but the prompt: a number of its own for each."""
        return 10.0 * segments.context_id[:, None] * (np.arange(segments.steps) == 0)

    learner = LEARNERS["reward-learning"](BACKENDS["a language model's GRPO"](0))
    learner.learn(128)
    monkeypatch.setattr(learner, "rewards", lambda s: np.asarray(s.rewards) + level(s))
    assert learner._truth()["reward_model/true_return_corr"] == pytest.approx(1.0)
    monkeypatch.setattr(learner, "rewards", level)
    assert learner._truth() == {}


def test_what_a_run_and_its_learner_both_say_is_said_once() -> None:
    run = RewardLearningRun(model="vpl", population=2, labels=300, seed=4)
    saved = plain(run)
    for where in (saved, saved["learner"]):
        told = {name: where[name] for name in ("model", "population", "labels", "seed")}
        assert told == {"model": "vpl", "population": 2, "labels": 300, "seed": 4}
    assert plain(restored(saved)) == saved
    inner = plain(RewardLearningRun(learner=Config(model="gpm")))
    assert inner["model"] == inner["learner"]["model"] == "gpm"
    both = RewardLearningRun(model="gpm", learner=Config(model="ties"))
    with pytest.raises(ValueError, match=r"--model gpm and --learner\.model ties say different"):
        settled(both)
