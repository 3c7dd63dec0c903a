"""Who acts, who is blamed, and what is stored, when somebody watches."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import prefgym  # noqa: F401
from prefgym.interventions import (
    Distance,
    Person,
    Random,
    Supervision,
    ValueBased,
    as_expert,
    noisy,
    with_mistakes,
)
from prefgym.wrappers import InterventionEnv

BOARD, PENDULUM = "prefgym/Delivery-v0", "prefgym/Pendulum-v0"


def never(observations: Any, actions: Any, rng: Any) -> np.ndarray:
    return np.zeros(len(observations), bool)


def always(observations: Any, actions: Any, rng: Any) -> np.ndarray:
    return np.ones(len(observations), bool)


def up(observations: np.ndarray) -> np.ndarray:
    return np.zeros(len(observations), np.int64)


def board(supervision: Supervision | None, lanes: int = 6, **more: Any) -> Any:
    return gym.make_vec(BOARD, num_envs=lanes, supervision=supervision, query_every=None, **more)


def played(env: Any, steps: int, seed: int = 3) -> list[Any]:
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    return [env.step(rng.integers(1, 4, size=env.num_envs)) for _ in range(steps)]


@pytest.mark.parametrize("judged", ["executed", "proposed"])
def test_who_never_intervenes_changes_nothing(judged: Any) -> None:
    watched, free = (
        played(board(one), 60) for one in (Supervision(up, never, judged=judged), None)
    )
    for one, other in zip(watched, free, strict=True):
        for a, b in zip(one[:4], other[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one[4]["true_reward"], other[4]["true_reward"])
        assert not one[4]["intervened"].any()
        assert not one[4]["refused"].any()


def test_after_a_refused_action_the_expert_acts_for_k_steps() -> None:
    env = board(Supervision(up, always, steps=3))
    told = played(env, 40)
    seen = env.store.segments(env.store.since(np.zeros(6, np.int64)), 200)
    by_expert = seen.factors["intervened"].astype(bool) & seen.mask
    refused = seen.factors["refused"].astype(bool) & seen.mask
    assert (seen.actions[by_expert] == 0).all()
    assert (seen.actions[seen.mask & ~by_expert] > 0).all()
    for row in range(len(seen)):  # one of the policy's, three of the expert's, and so on
        length = int(seen.lengths[row])
        wanted = np.arange(length) % 4
        np.testing.assert_array_equal(by_expert[row, :length], wanted > 0)
        np.testing.assert_array_equal(refused[row, :length], wanted == 0)
    assert any(one[4]["handover"].any() for one in told)


def test_a_refused_proposal_is_never_executed() -> None:
    env = board(Supervision(up, always, steps=2, judged="proposed"))
    for one in played(env, 10):
        by_expert = one[4]["intervened"]
        assert (one[4]["executed_action"][by_expert] == 0).all()
        assert not (one[4]["refused"] & ~by_expert).any()
    seen = env.store.segments(env.store.since(np.zeros(6, np.int64)), 200)
    assert (seen.factors["proposed_0"][seen.mask] > 0).all()
    for row in range(len(seen)):  # refused, the expert again, then an action that passes
        length = int(seen.lengths[row])
        wanted = np.arange(length) % 3
        np.testing.assert_array_equal(seen.factors["refused"][row, :length], wanted == 0)
        np.testing.assert_array_equal(seen.factors["intervened"][row, :length], wanted < 2)
        np.testing.assert_array_equal(seen.actions[row, :length] == 0, wanted < 2)


def test_one_lane_is_as_one_environment() -> None:
    rule = ValueBased(gym.make(BOARD).unwrapped, sure=1.0, slip=0.0)
    vector = board(Supervision(up, rule), lanes=1)
    single = gym.make(BOARD, supervision=Supervision(up, rule), query_every=None)
    rng = np.random.default_rng(0)
    vector.reset(seed=5)
    single.reset(seed=5)
    flags = ("intervened", "refused", "handover")
    for _ in range(50):
        action = int(rng.integers(4))
        many, one = vector.step(np.array([action])), single.step(action)
        assert many[4]["executed_action"][0] == one[4]["executed_action"]
        assert [bool(many[4][name][0]) for name in flags] == [one[4][name] for name in flags]
        assert bool(many[2][0]) == one[2]
        if one[2] or one[3]:
            break


def test_the_supervisor_who_knows_values_refuses_what_loses() -> None:
    task = gym.make(BOARD).unwrapped
    rule = ValueBased(task, margin=0.02, sure=1.0, slip=0.0)
    states, actions = (part.ravel() for part in np.indices(task.task.values.q.shape[1:]))
    refused = rule(states, actions, np.random.default_rng(0))
    lost = -task.advantages(states, actions)
    np.testing.assert_array_equal(refused, lost > 0.02 * np.abs(task.state_values(states)))
    best = task.task.values.q[0].argmax(1)
    assert not rule(np.arange(len(best)), best, np.random.default_rng(0)).any()
    unsure = ValueBased(task, sure=0.5, slip=0.1)
    told = np.mean([unsure(states, actions, np.random.default_rng(k)) for k in range(400)], 0)
    assert abs(told[refused].mean() - 0.5) < 0.02
    assert abs(told[~refused].mean() - 0.1) < 0.02


def test_other_rules() -> None:
    rng = np.random.default_rng(0)
    many = np.zeros((20_000, 3))
    assert abs(Random(0.3)(many, many, rng).mean() - 0.3) < 0.02
    far = Distance(lambda seen: np.zeros((len(seen), 2)), 1.0)
    found = far(many[:3], np.array([[0.4, 0.5], [0.5, -0.5], [0.0, 2.0]]), rng)
    assert found.tolist() == [False, True, True]
    assert Distance(up)(many[:2], np.array([0, 2]), rng).tolist() == [False, True]
    assert Person(lambda seen, acted: True)(many[:2], many[:2], rng).tolist() == [True, True]
    with pytest.raises(ValueError, match="one truth, or one for each lane"):
        Person(lambda seen, acted: [True, False, True])(many[:2], many[:2], rng)


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
@pytest.mark.parametrize("env_id", [BOARD, PENDULUM])
def test_what_was_decided_goes_on_after_a_stop(env_id: str, mode: str) -> None:
    expert: Any = up if env_id == BOARD else lambda seen: np.zeros((len(seen), 1), np.float32)

    def made() -> Any:
        supervision = Supervision(expert, Random(0.4))
        kwargs = {"supervision": supervision, "query_every": None, "autoreset_mode": mode}
        return gym.make_vec(env_id, num_envs=3, max_episode_steps=60, **kwargs)

    whole, again = made(), made()
    actions = [whole.action_space.sample() for _ in range(150)]
    whole.reset(seed=2)
    for action in actions[:70]:
        whole.step(action)
    again.set_state(whole.get_state())
    for action in actions[70:]:
        one, other = whole.step(action), again.step(action)
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[4]["executed_action"], other[4]["executed_action"])


def test_raters_do_not_look_at_who_acted() -> None:
    env = board(Supervision(up, Random(0.5)))
    assert "intervened" in env.store.factor_names
    with pytest.raises(ValueError, match="intervened"):
        board(Supervision(up, Random(0.5)), rater="heron", rater_kwargs={"factors": "intervened"})


def test_graded_experts() -> None:
    best = np.arange(1000) % 4
    worse = with_mistakes(best, 4, 0.4, np.random.default_rng(0))
    assert np.mean(worse != best) == pytest.approx(0.4)
    space = gym.spaces.Discrete(4)
    seldom = noisy(lambda seen: best[seen], space, 0.2)(np.arange(1000))
    assert abs(np.mean(seldom != best) - 0.15) < 0.04


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        as_expert(lambda seen: np.zeros(3), gym.spaces.Discrete(4), gym.spaces.Discrete(2))(
            np.zeros(2, int)
        )
    box = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    broken = as_expert(lambda seen: np.full((len(seen), 2), np.nan), box, box)
    with pytest.raises(ValueError, match="NaN or infinity in the policy behind it"):
        broken(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="there are 0 to 3"):
        as_expert(lambda seen: np.full(len(seen), 7), box, gym.spaces.Discrete(4))(np.zeros((1, 2)))

    class Elsewhere:
        observation_space = gym.spaces.Discrete(9)

        def predict(self, observations: Any, deterministic: bool) -> Any:
            return observations, None

    with pytest.raises(ValueError, match="trained in this environment"):
        board(Supervision(Elsewhere(), never))
    with pytest.raises(ValueError, match="returned the action nan; there are 0 to 3"):
        as_expert(lambda seen: np.full(len(seen), np.nan), box, gym.spaces.Discrete(4))(
            np.zeros((1, 2))
        )
    with pytest.raises(ValueError, match="longer than an episode"):
        board(Supervision(up, never, steps=500))
    with pytest.raises(ValueError, match="one step or more"):
        Supervision(up, never, steps=0)
    with pytest.raises(ValueError, match="needs a value source"):
        ValueBased(None)
    with pytest.raises(ValueError, match="give scale="):
        ValueBased(lambda seen, acted: np.zeros(len(seen)))


def test_a_rule_that_knows_nothing_says_so() -> None:
    """NaN is neither above nor below a threshold: nobody would ever take over."""
    rng, seen, acted = np.random.default_rng(0), np.zeros((2, 3)), np.ones((2, 1))
    broken = ValueBased(lambda seen, acted: np.array([0.0, np.nan]), scale=1.0)
    with pytest.raises(ValueError, match="says NaN about the action"):
        broken(seen, acted, rng)
    with pytest.raises(ValueError, match="finite numbers, so check its policy"):
        Distance(lambda seen: np.full((len(seen), 1), np.nan))(seen, acted, rng)
    with pytest.raises(ValueError, match="of shape \\(2, 2\\)"):
        Distance(lambda seen: np.zeros((len(seen), 2)))(seen, acted, rng)


def test_any_gymnasium_environment_can_be_watched() -> None:
    env = InterventionEnv(gym.make("CartPole-v1"), Supervision(up, Random(1.0), steps=2))
    env.reset(seed=0)
    acted = []
    for _ in range(9):
        *_, info = env.step(1)
        acted.append(int(info["executed_action"]))
    assert acted[:6] == [1, 0, 0, 1, 0, 0]
