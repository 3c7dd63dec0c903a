"""The reward-learning learner with every published preference model, on steps and on text."""

import pathlib
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import prefgym  # noqa: F401
from prefgym.curation.by_name import CURATIONS
from prefgym.models.encoders import ACTIVATIONS
from prefgym.models.presets import MODELS
from prefgym.rewards.shaping import AGGREGATORS, SHAPES
from prefgym_agents.language import language_backend
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.sb3 import sb3_backend

FAST: dict[str, Any] = {
    "labels": 30,
    "sessions": 2,
    "members": 2,
    "hidden": (8,),
    "epochs": 2,
    "fit_steps": 1,
    "start_steps": 50,
}


def control(rater: str = "two-groups") -> Any:
    env = gym.make_vec(
        "prefgym/Pendulum-v0", num_envs=2, rater=rater, query_every=None, segment_steps=8
    )
    return sb3_backend("PPO", env, seed=0, n_steps=64, batch_size=64, n_epochs=1)


def text(rater: str = "two-groups") -> Any:
    env = gym.make_vec(
        "prefgym/TextPolite-v0",
        num_envs=8,
        samples_per_prompt=4,
        rater=rater,
        query_every=None,
    )
    return language_backend(env, None, seed=0)


def board(rater: str = "two-groups") -> Any:
    env = gym.make_vec(
        "prefgym/Delivery-v0", num_envs=2, rater=rater, query_every=None, segment_steps=3
    )
    return sb3_backend("PPO", env, seed=0, n_steps=64, batch_size=64, n_epochs=1)


DOMAINS = [control, board, text]
KINDS = [(name, make) for make in DOMAINS for name in MODELS]


@pytest.mark.parametrize(("name", "make"), KINDS)
def test_every_model_trains_a_policy(name: str, make: Any) -> None:
    population = 2 if MODELS[name].tells_raters_apart else 1
    learner = RewardLearning(make(), model=name, population=population, **FAST)
    steps = 256
    learner.learn(steps)
    assert learner.sessions == 2
    assert len(learner.env.preferences) == 30
    assert np.isfinite(learner.told["reward_model/loss"])


def test_a_model_of_ones_own_is_fitted_with_the_loss_that_comes_with_it() -> None:
    fast = {**FAST, "sessions": 1}

    def worth(**asked: Any) -> np.ndarray:
        learner = RewardLearning(control("oracle"), **asked, **fast)
        learner.learn(128)
        return learner.rewards(learner.env.preferences.comparisons.a)

    named = RewardLearning(control("oracle"), model="ties", **fast)
    made, plain = (named._reward_model() for _ in range(2))
    known = worth(model="ties")
    assert np.array_equal(worth(model=made, loss=MODELS["ties"].loss), known)
    assert not np.allclose(worth(model=plain), known)
    with pytest.raises(ValueError, match=r"label_noise=0\.1 would replace the loss"):
        RewardLearning(control(), loss=MODELS["ties"].loss, label_noise=0.1, **FAST)


@pytest.mark.parametrize("make", [control, text])
def test_the_worst_served_can_be_served(make: Any) -> None:
    learner = RewardLearning(make(), model="maxmin", population=2, serve="worst", **FAST)
    learner.learn(256)
    segments = learner.policy.collect()
    grouped = learner.model.rewards_by_group(segments).numpy()
    assert len(grouped) == 2
    worth = learner.rewards(segments)
    low, high = grouped.min(0), grouped.max(0)
    assert (worth >= low - 1e-5).all()
    assert (worth <= high + 1e-5).all()
    everyone = RewardLearning(make(), model="maxmin", population=2, **FAST)
    everyone.model.load_state_dict(learner.model.state_dict())
    assert not np.allclose(everyone.rewards(segments), worth)


@pytest.mark.parametrize("make", DOMAINS)
def test_raters_can_count_as_a_direction_says(make: Any) -> None:
    def rewards(*direction: float) -> np.ndarray:
        asked = {"serve": "direction", "direction": direction}
        other = RewardLearning(make(), model="maxmin", population=2, **asked, **FAST)
        other.model.load_state_dict(learner.model.state_dict())
        return other.rewards(segments)

    asked: dict[str, Any] = {"serve": "direction", "direction": (3.0, -4.0)}
    learner = RewardLearning(make(), model="maxmin", population=2, **asked, **FAST)
    learner.learn(256)
    segments = learner.policy.collect()
    first, second = learner.model.rewards_by_group(segments).numpy()
    np.testing.assert_allclose(learner.rewards(segments), 0.6 * first - 0.8 * second, atol=1e-5)
    np.testing.assert_allclose(rewards(2.0, 0.0), first, atol=1e-5)
    np.testing.assert_array_equal(rewards(-0.75, 1.0), -rewards(0.75, -1.0))


@pytest.mark.parametrize("make", DOMAINS)
def test_what_each_rater_wants_can_be_shaped_by_itself(make: Any) -> None:
    asked: dict[str, Any] = {"serve": "each", "shape": "log-sigmoid", "shape_of": "segment"}
    learner = RewardLearning(make(), model="maxmin", population=2, **asked, **FAST)
    learner.learn(256)
    segments = learner.env.sample_pairs(32, np.random.default_rng(0))[0]
    assert len(learner.earned._compared_with()[0]) == 2
    worth = learner.rewards(segments).sum(1)
    assert (worth < 0.0).all()  # the logarithm of a probability
    grouped = learner.model.rewards_by_group(segments).sum(-1)
    better = (grouped[:, :, None] > grouped[:, None]).all(0).numpy()
    same = np.asarray(segments.context_id)[:, None] == np.asarray(segments.context_id)
    if segments.observations is not None:  # text is compared prompt by prompt
        same[:] = True
    assert (better & same).any()
    assert (worth[:, None] > worth[None])[better & same].all()  # whom both like more earns more


@pytest.mark.parametrize("make", DOMAINS)
def test_the_newest_answers_adapt_the_router_alone(make: Any) -> None:
    def fitted(steps: int, **asked: Any) -> tuple[RewardLearning, dict[str, Any]]:
        learner = RewardLearning(make(), model="micro", **{**FAST, "sessions": 1, **asked})
        learner.learn(steps)
        return learner, {n: p.detach().clone() for n, p in learner.model.named_parameters()}

    learner, adapted = fitted(128, hedge=10)
    known = learner.env.preferences.comparisons
    heads, router = learner._apart(known)
    assert (len(heads), len(router or ())) == (20, 10)
    assert np.isfinite(learner.told["reward_model/router"])
    _, whole = fitted(128)
    assert any(not bool((adapted[name] == whole[name]).all()) for name in whole)
    plain = RewardLearning(make(), model="micro", **FAST)
    assert plain._apart(known) == (known, None)
    few = known.take(np.arange(6))
    assert [len(part or ()) for part in learner._apart(few)] == [3, 3]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="tells raters apart, and population=1; say how many"):
        RewardLearning(control(), model="vpl", **FAST)
    with pytest.raises(ValueError, match="preference model"):
        RewardLearning(control(), model="bradley", **FAST)
    with pytest.raises(ValueError, match="has a loss of its own, which label_noise"):
        RewardLearning(control(), model="ties", label_noise=0.1, **FAST)
    with pytest.raises(ValueError, match="all answers carry the rater id 0"):
        RewardLearning(control("oracle"), model="vpl", population=2, **FAST)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"population": 5}, "model='bt' does not tell raters apart, and population=5 would be"),
        ({"tastes": 7}, "model='bt' has no tastes to choose, and tastes=7 would be ignored"),
        ({"model": "vpl", "population": 2, "tastes": 5}, "model='vpl' has no tastes to choose"),
        ({"model": "maxmin", "population": 2, "tastes": 0}, "tastes is 0; wanted 1 or more"),
        ({"model": "maxmin", "population": 5}, "and only 2 raters answer .0, 1.; say pop"),
        (
            {"model": "maxmin", "population": 2, "tastes": 3},
            "tastes=3 cannot be learned from",
        ),
        ({"hedge": 5}, "hedge=5 adapts a router, and model='bt' has none"),
        ({"hedge": -1}, "hedge=-1; wanted at least 0"),
        ({"serve": "direction"}, "serve=.direction. and direction=..: one wants the other"),
        ({"direction": (1.0, 0.0)}, "serve='everyone' and direction=.1.0, 0.0.: one wants"),
        ({"serve": "direction", "direction": (0.0,)}, "listens to nobody"),
        (
            {"serve": "direction", "direction": (1.0,), "model": "maxmin", "population": 2},
            "says how much 1 raters count, and the model tells 2 apart",
        ),
        ({"serve": "worst"}, "serve='worst' asks what each rater wants, and this model has one"),
        ({"curate": "flip", "wrong": 1.5}, "wrong=1.5 is no share of labels"),
        ({"curate": "soften", "wrong": 0.7}, "curate='soften' can take for wrong"),
        ({"curate": "peers", "wrong": 1.0}, "curate='peers' can take for wrong"),
    ],
)
def test_what_would_be_ignored_or_fail_later_is_refused_at_once(
    asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RewardLearning(control(), **asked, **FAST)


def test_a_population_has_to_fit_who_answers() -> None:
    env = gym.make_vec(
        "prefgym/Pendulum-v0",
        num_envs=2,
        rater="five-groups",
        rater_kwargs={"shares": (0.58, 0.4, 0.0, 0.0, 0.02)},
        query_every=None,
        segment_steps=8,
    )
    policy = sb3_backend("PPO", env, seed=0, n_steps=64, batch_size=64, n_epochs=1)
    with pytest.raises(ValueError, match="the raters 0, 1, 4 answer; say population=5"):
        RewardLearning(policy, model="maxmin", population=2, **FAST)
    learner = RewardLearning(policy, model="maxmin", population=5, **FAST)
    assert learner.who == (0, 1, 4)
    assert learner.model.head.population.tastes == 3  # type: ignore[attr-defined]


def test_who_has_not_answered_yet_ends_no_run() -> None:
    env = gym.make_vec(
        "prefgym/Pendulum-v0",
        num_envs=2,
        rater="two-groups",
        rater_kwargs={"rule": "session"},
        query_every=None,
        segment_steps=8,
    )
    policy = sb3_backend("PPO", env, seed=0, n_steps=64, batch_size=64, n_epochs=1)
    learner = RewardLearning(policy, model="pal", population=2, **{**FAST, "sessions": 1})
    with pytest.warns(UserWarning, match="pal: all answers carry the rater id"):
        learner.learn(128)
    assert len(learner.env.preferences) == 30


@pytest.mark.parametrize("make", [control, text])
@pytest.mark.parametrize(("shape", "of"), [("clip", "step"), ("par", "segment")])
def test_shaped_rewards_train_and_resume(
    shape: str, of: str, make: Any, tmp_path: pathlib.Path
) -> None:
    def learner() -> RewardLearning:
        asked = {"shape": shape, "shape_of": of, "aggregate": "worst"}
        return RewardLearning(make("oracle"), **{**FAST, **asked})

    whole, again = learner(), learner()
    whole.learn(256)
    whole.save(tmp_path)
    again.load(tmp_path)
    for one in (whole, again):
        one.learn(256, reset_num_timesteps=False)
    segments = whole.policy.collect()
    worth = whole.rewards(segments)
    np.testing.assert_array_equal(again.rewards(segments), worth)
    if of == "segment":
        assert ((worth > 0).sum(1) == 1).all()
        assert worth.max() < 1.0


def test_a_worst_member_earns_no_more_than_the_mean() -> None:
    mean, worst = (
        RewardLearning(control("oracle"), aggregate=one, **FAST) for one in ("mean", "worst")
    )
    mean.learn(256)
    worst.model.load_state_dict(mean.model.state_dict())
    segments = mean.policy.collect()
    assert (worst.rewards(segments) <= mean.rewards(segments) + 1e-6).all()
    assert (worst.rewards(segments) < mean.rewards(segments)).any()


def played(env: Any) -> None:
    """Act at random."""
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(200):
        env.step(rng.uniform(-2.0, 2.0, (2, 1)).astype(np.float32))


def sampled(learner: RewardLearning) -> Any:
    """Segments of random actions."""
    played(learner.env)
    return learner.env.sample_pairs(16, np.random.default_rng(0))[0]


def trusted(make: Any) -> Any:
    """Comparisons by a rater who makes no mistakes."""
    policy = make("oracle")
    policy.begin(128)
    policy.collect()
    return policy.env.compare(*policy.env.sample_pairs(60, np.random.default_rng(0)))


@pytest.mark.parametrize("make", DOMAINS)
@pytest.mark.parametrize("curate", CURATIONS)
def test_labels_are_curated_on_the_way(curate: str, make: Any) -> None:
    data = trusted(make).replace(meaning="partial-return") if curate == "gold" else None
    learner = RewardLearning(make("mistake"), data=data, curate=curate, **FAST)
    learner.learn(256)
    assert learner.sessions == 2
    assert np.isfinite(learner.told["reward_model/loss"])


def test_a_gold_model_is_made_of_trusted_comparisons_alone() -> None:
    with pytest.raises(ValueError, match="give these as data="):
        RewardLearning(control("mistake"), curate="gold", **FAST)
    given = trusted(control)
    asked = {"data": given, "curate": "gold"}
    one, other = (RewardLearning(control("oracle"), **asked, **FAST) for _ in range(2))
    one.learn(256)
    assert one._gold is not None
    assert other._gold is not None
    said = [learner._gold.logits(given.a, given.b) for learner in (one, other)]  # type: ignore[union-attr]
    assert np.array_equal(*said)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("aggregate", AGGREGATORS)
def test_every_shape_and_aggregate_makes_rewards(shape: str, aggregate: str) -> None:
    asked = {"shape": shape, "aggregate": aggregate, "sessions": 1}
    learner = RewardLearning(control("oracle"), **{**FAST, **asked})
    segments = sampled(learner)
    learner.earned.begin(segments)
    worth = learner.rewards(segments)
    assert worth.shape == segments.mask.shape
    assert np.isfinite(worth).all()
    mean = worth.mean()
    if shape in ("centre", "standardise"):
        assert mean == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_can_be_asked_for(activation: str) -> None:
    learner = RewardLearning(control("oracle"), activation=activation, **FAST)
    usual = RewardLearning(control("oracle"), **FAST)
    segments = sampled(learner)
    same = np.array_equal(learner.rewards(segments), usual.rewards(segments))
    assert same == (activation == "leaky_relu")


def test_an_activation_that_nobody_has_is_refused() -> None:
    with pytest.raises(ValueError, match="where text is written leave it out"):
        RewardLearning(text("oracle"), activation="silu", **FAST)
    with pytest.raises(ValueError, match="activation"):
        RewardLearning(control("oracle"), activation="sillu", **FAST)
