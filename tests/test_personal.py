"""Episodes played for somebody: who is shown, who answers, whose reward is earned."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import prefgym  # noqa: F401
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
