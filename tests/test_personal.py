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
from prefgym_agents.language import language_backend
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


SMALL: dict[str, Any] = {
    "population": 2, "labels": 40, "sessions": 2, "members": 2,
    "hidden": (8,), "epochs": 2, "fit_steps": 1, "start_steps": 50,
}  # fmt: skip


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
    with pytest.raises(ValueError, match="wanted 2 people or more"):
        gym.make_vec("prefgym/TextCopy-v0", num_envs=2, personal=1)
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
    return RewardLearning(backend, model=model, **{**SMALL, "serve": "inferred", **changes})


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


def on_board(serve: str = "inferred") -> RewardLearning:
    """As :func:`inferring`, where an observation is a cell and, behind it, a number."""
    env = gym.make_vec("prefgym/Delivery-v0", num_envs=4, **ASKED)
    backend = sb3_backend("PPO", env, seed=0, n_steps=64, batch_size=64, n_epochs=1)
    return RewardLearning(backend, model="maxmin", serve=serve, **SMALL)


def writing(serve: str = "inferred", **changes: Any) -> RewardLearning:
    """As :func:`inferring`, where a language model writes for somebody."""
    asked = {"rater": "groups", "rater_kwargs": {"rule": "person"}, "query_every": None}
    kind: dict[str, Any] = {"num_envs": 16, "samples_per_prompt": 4, "personal": 2, **asked}
    backend = language_backend(gym.make_vec("prefgym/TextStyle-v0", **kind), seed=0, **changes)
    return RewardLearning(backend, model="maxmin", serve=serve, **SMALL)


@pytest.mark.parametrize("make", [on_board, writing])
def test_boards_and_texts_serve_by_what_was_inferred(make: Any) -> None:
    learner = make().learn(1024)
    weights = described(learner.model)
    np.testing.assert_array_equal(learner.policy.descriptions(), weights)
    showing = learner.env.get_wrapper_attr("showing")
    seen = np.array([showing.task.sample() for _ in range(40)])
    if learner.env.layout is not None:
        seen[:, -1] = 0
    shown = [showing.shown(seen, np.full(40, person)) for person in (0, 1)]
    acts = [learner.predict(one, deterministic=True)[0] for one in shown]
    learner.policy.describe(weights.flip(0))
    turned = [learner.predict(one, deterministic=True)[0] for one in shown]
    np.testing.assert_array_equal(np.stack(turned), np.stack(acts[::-1]))
    learner.policy.describe(weights)
    rows = weights.unflatten(1, (2, -1))[[1, 0, 1]]
    voices = Voices(np.array([70, 80, 90]), rows)
    whom = np.resize([70, 80, 90], 40)
    as_new, _ = learner.serving(voices, whom).predict(shown[0], deterministic=True)
    np.testing.assert_array_equal(as_new, np.where(whom == 80, *acts))
    np.testing.assert_array_equal(learner.policy.descriptions(), weights)
    numbered = make("person")
    assert numbered.policy.descriptions() is None
    with pytest.raises(ValueError, match="train it with serve='inferred'"):
        numbered.serving(voices, 70)


@pytest.mark.parametrize("lora", [None, 2])
def test_a_language_model_begins_as_it_was_and_reads_for_whom_it_writes(lora: int | None) -> None:
    learner = writing(lora=lora, kl=0.1)
    policy, plain = (
        language_backend(env, seed=0, lora=lora)
        for env in (learner.env, gym.make_vec("prefgym/TextStyle-v0", num_envs=2))
    )
    policy.begin(0)
    segments = policy.collect()
    who = segments.factors["person"][:, 0]
    assert set(who) == {0.0, 1.0}
    assert (who.reshape(4, 4) == who[::4, None]).all()
    with torch.no_grad():
        np.testing.assert_allclose(policy.log_prob(segments), plain.log_prob(segments), atol=1e-5)
        before = policy.reference_log_prob(segments)
        learned = [one for name, one in policy.policy.named_parameters() if ".reads." in name]
        learned[0].normal_(generator=torch.Generator().manual_seed(0))
        others = segments.replace(
            factors={**segments.factors, "person": 1.0 - segments.factors["person"]}
        )
        changed = (policy.log_prob(segments) - policy.log_prob(others)).abs()
        assert (changed.sum(1) > 1e-3).all()
        np.testing.assert_allclose(policy.reference_log_prob(segments), before, atol=1e-5)
    seen = policy.env.observations()
    rows = [np.concatenate([seen[:, :-1], np.full((16, 1), k)], 1) for k in (0, 1)]
    first, second = (policy.predict(one, deterministic=True)[0] for one in rows)
    assert (first != second).any()
    with pytest.raises(ValueError, match="do not say for whom they were written"):
        policy.log_prob(segments.replace(factors={}))


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_whole_responses_are_played_for_whom_they_would_be_stepped(mode: str) -> None:
    kind: dict[str, Any] = {"num_envs": 6, "personal": 3, "autoreset_mode": mode}
    one, other = (gym.make_vec("prefgym/TextSort-v0", query_every=None, **kind) for _ in range(2))
    seen = one.reset(seed=7)[0]
    other.reset(seed=7)
    rng = np.random.default_rng(0)
    layout = one.get_wrapper_attr("layout")
    actions = rng.integers(2, layout.codec.size, (6, layout.response_tokens))
    mask = np.ones(actions.shape, bool)
    served = layout.person(seen)
    played = one.play(actions, mask)
    np.testing.assert_array_equal(played.factors["person"], np.tile(served, (len(actions[0]), 1)).T)
    for tokens in actions.T:
        after, *_, infos = other.step(tokens)
        np.testing.assert_array_equal(infos["factors"]["person"], served)
    if mode == "NextStep":
        after = other.step(actions[:, 0])[0]
    np.testing.assert_array_equal(one.observations(), after)
    state = one.get_state()
    again = gym.make_vec("prefgym/TextSort-v0", query_every=None, **kind)
    again.reset(seed=1)
    again.set_state(state)
    for _ in range(3):
        np.testing.assert_array_equal(again.observations(), one.observations())
        again.play(actions, mask)
        one.play(actions, mask)


@pytest.mark.parametrize("name", ["Delivery", "RandomMDP", "TextSort"])
def test_values_and_rewards_of_the_task_are_the_same_for_everybody(name: str) -> None:
    plain, personal = (
        gym.make_vec(f"prefgym/{name}-v0", num_envs=8, rater="regret", query_every=None, **more)
        for more in ({}, {"personal": 2})
    )
    rng = np.random.default_rng(0)
    seen = [env.reset(seed=3)[0] for env in (plain, personal)]
    assert set(personal.reset(seed=3)[1]["person"]) == {0, 1}
    for _ in range(30):
        np.testing.assert_array_equal(seen[0], np.reshape(seen[1][:, :-1], np.shape(seen[0])))
        actions = rng.integers(plain.single_action_space.n, size=8)
        known = [
            env.get_wrapper_attr("advantages")(x, actions)
            for env, x in zip((plain, personal), seen, strict=True)
        ]
        np.testing.assert_array_equal(*known)
        steps = [env.step(actions) for env in (plain, personal)]
        np.testing.assert_array_equal(*(one[4]["true_reward"] for one in steps))
        seen = [one[0] for one in steps]
    pairs = [env.sample_pairs(20, np.random.default_rng(1)) for env in (plain, personal)]
    answers = [
        env.rater.probability(*pair) for env, pair in zip((plain, personal), pairs, strict=True)
    ]
    np.testing.assert_array_equal(*answers)


def test_who_is_served_can_be_chosen_lane_by_lane() -> None:
    env = gym.make_vec("prefgym/Delivery-v0", num_envs=3, personal=4, query_every=None)
    seen, infos = env.reset(seed=0, options={"person": [3, 0, 2]})
    assert seen[:, -1].tolist() == infos["person"].tolist() == [3, 0, 2]
    with pytest.raises(ValueError, match="there is no person 4; their numbers are 0 to 3"):
        env.reset(options={"person": 4})


@pytest.mark.parametrize("make", [inferring, writing])
def test_what_was_inferred_goes_on_after_a_stop(make: Any, tmp_path: Path) -> None:
    whole = make().learn(1024)
    half = make()
    for steps, _ in half.iterations(1024):
        if steps >= 512:
            break
    half.save(tmp_path / "half.safetensors")
    again = make()
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
