"""Episodes played for somebody: who is shown, who answers, whose reward is earned."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import prefgym  # noqa: F401
from prefgym.models.ensembles import Voices
from prefgym_agents.people import described
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.sb3 import sb3_backend

ASKED: dict[str, Any] = {
    "rater": "two-groups",
    "rater_kwargs": {"rule": "person"},
    "query_every": None,
    "segment_steps": 8,
    "personal": 2,
}


def lanes(count: int = 4, **changes: Any) -> Any:
    return gym.make_vec("prefgym/Pendulum-v0", num_envs=count, **{**ASKED, **changes})


def test_who_is_served_is_seen_drawn_anew_and_can_be_chosen() -> None:
    env = gym.make("prefgym/Pendulum-v0", **ASKED)
    served = []
    for episode in range(20):
        observation, _ = env.reset(seed=3 if episode == 0 else None)
        served.append(int(observation[-2:].argmax()))
        assert observation[-2:].sum() == 1.0
        assert env.observation_space.contains(observation)
        after, *_, info = env.step(env.action_space.sample())
        np.testing.assert_array_equal(after[-2:], observation[-2:])
        assert info["factors"]["person"] == served[-1]
    assert set(served) == {0, 1}
    for person in (0, 1):
        observation, _ = env.reset(options={"person": person})
        assert observation[-2:].argmax() == person
    with pytest.raises(ValueError, match="there is no person 2; their numbers are 0 to 1"):
        env.reset(options={"person": 2})


def test_gymnasiums_check_passes_and_seeds_repeat() -> None:
    env = gym.make("prefgym/Pendulum-v0", **ASKED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is wrapped
        check_env(env, skip_render_check=True)
    first, second = (env.reset(seed=5)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_person_answers_and_earns() -> None:
    backend = sb3_backend("PPO", lanes(), seed=0, n_steps=64, batch_size=64, n_epochs=1)
    learner = RewardLearning(
        backend,
        model="maxmin",
        population=2,
        serve="person",
        labels=40,
        sessions=2,
        members=1,
        hidden=(8,),
        epochs=2,
        fit_steps=1,
        start_steps=50,
    )
    learner.learn(1024)
    comparisons = learner.env.preferences.comparisons
    people = np.stack([side.factors["person"][:, 0] for side in (comparisons.a, comparisons.b)], 1)
    answered = comparisons.rater_id[:, None] == people
    assert answered.any(1).all()
    assert set(comparisons.rater_id) == {0, 1}
    segments = learner.policy.collect()
    grouped = learner.model.rewards_by_group(segments).numpy()
    who = segments.factors["person"].astype(int)
    assert set(np.unique(who)) == {0, 1}
    np.testing.assert_allclose(
        learner.rewards(segments), np.take_along_axis(grouped, who[None], 0)[0]
    )
    few = comparisons.take(slice(0, 20))
    nearest = learner.model.resembles(learner.model.infer(few))
    assert set(nearest) <= {0, 1}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="personal=2: prefgym/TextCopy-v0 steps all lanes at once"):
        gym.make_vec("prefgym/TextCopy-v0", num_envs=2, personal=2)
    with pytest.raises(ValueError, match="wanted 2 people or more"):
        gym.make("prefgym/Pendulum-v0", personal=1)
    env = lanes(personal=3)
    env.reset(seed=0)
    for _ in range(40):
        env.step(env.action_space.sample())
    a, b = env.sample_pairs(60, np.random.default_rng(0))
    with pytest.raises(ValueError, match="made for person 2, and there are 2 raters"):
        env.compare(a, b)
    plain = lanes(personal=None)
    plain.reset(seed=0)
    for _ in range(40):
        plain.step(plain.action_space.sample())
    a, b = plain.sample_pairs(4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="make the environment with personal="):
        plain.compare(a, b)


def inferring(algorithm: str = "PPO", model: str = "maxmin", **changes: Any) -> RewardLearning:
    """Somebody's wishes are inferred, and the policy sees them."""
    own: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "n_epochs": 1}
    if algorithm == "PPO":
        own["normalise_observations"] = True
    else:
        own = {"learning_starts": 64, "gradient_steps": 1, "steps_per_round": 16, "batch_size": 16}
    backend = sb3_backend(algorithm, lanes(), seed=0, **own)
    settings: dict[str, Any] = {
        "population": 2, "serve": "inferred", "labels": 40, "sessions": 2, "members": 2,
        "hidden": (8,), "epochs": 2, "fit_steps": 1, "start_steps": 50,
    }  # fmt: skip
    return RewardLearning(backend, model=model, **{**settings, **changes})


@pytest.mark.parametrize(
    ("algorithm", "model"), [("PPO", "maxmin"), ("PPO", "vpl"), ("PPO", "pal"), ("SAC", "pal")]
)
def test_the_policy_sees_what_was_inferred_and_nothing_else(algorithm: str, model: str) -> None:
    learner = inferring(algorithm, model).learn(512)
    weights = described(learner.model)
    np.testing.assert_array_equal(learner.policy.descriptions(), weights)
    segments = learner.policy.collect()
    task = segments.observations[:, 0, :-2]
    shown = [np.concatenate([task, np.tile(row, (len(task), 1))], 1) for row in np.eye(2)]
    acts = [learner.predict(one.astype(np.float32), deterministic=True)[0] for one in shown]
    learner.policy.describe(weights.flip(0))
    turned = [learner.predict(one.astype(np.float32), deterministic=True)[0] for one in shown]
    np.testing.assert_array_equal(np.stack(turned), np.stack(acts[::-1]))
    learner.policy.describe(weights)
    voices = learner.model.infer(learner.env.preferences.comparisons.take(slice(0, 20)))
    voices = voices._replace(
        rater_id=np.array([70, 80, 90]),
        weights=weights.unflatten(1, (2, -1))[[1, 0, 1]],
    )
    for rater, person in ((70, 1), (80, 0), (90, 1)):
        as_new, _ = learner.serving(voices, rater).predict(shown[0], deterministic=True)
        np.testing.assert_allclose(as_new, acts[person], atol=1e-6)
    np.testing.assert_array_equal(learner.policy.descriptions(), weights)
    read = learner.model.step_features(segments)
    other = segments.replace(observations=segments.observations[..., [0, 1, 2, 4, 3]])
    np.testing.assert_array_equal(read, learner.model.step_features(other))


def test_what_was_inferred_goes_on_after_a_stop(tmp_path: Path) -> None:
    whole = inferring().learn(1024)
    half = inferring()
    for steps, _ in half.iterations(1024):
        if steps >= 512:
            break
    half.save(tmp_path / "half.safetensors")
    again = inferring()
    again.load(tmp_path / "half.safetensors")
    again.learn(1024)
    for name, value in whole.policy.snapshot().items():
        np.testing.assert_array_equal(value, again.policy.snapshot()[name])


def test_descriptions_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="one reward for all"):
        inferring(model="bt", population=1)
    backend = sb3_backend("PPO", lanes(personal=None, rater_kwargs={}), n_steps=64, batch_size=64)
    with pytest.raises(ValueError, match="make it with personal="):
        RewardLearning(backend, model="maxmin", population=2, serve="inferred", labels=10)
    numbered = inferring(serve="person")
    voices = Voices(np.array([0]), torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="train it with serve='inferred'"):
        numbered.serving(voices, 0)
    with pytest.raises(ValueError, match="Rater 5 is not among the 1 voices"):
        inferring().serving(voices, 5)
