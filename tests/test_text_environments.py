"""The laws of text environments: one and many lanes, steps and whole responses, exact solutions."""

import copy
import itertools
import json
import pickle
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import prefgym  # noqa: F401
from prefgym.metrics import minimax_winner
from prefgym.raters.scores import regret
from prefgym.segments import Segments
from prefgym_envs import text_planning
from prefgym_envs.text_env import TextEnv, TextVectorEnv
from prefgym_envs.text_tasks import TextTask

FAMILIES = ("sort", "copy", "arithmetic", "polite", "style", "cycle")
EACH = pytest.mark.parametrize("family", FAMILIES)
BRIEF = {"sort": {"prompts": 5}, "arithmetic": {"prompts": 7, "largest": 3}}
"""Other arguments than the defaults, where prompts are many."""


def raw(family: str, **kwargs: Any) -> TextEnv:
    env: TextEnv = import_module(f"prefgym_envs.text_{family}").raw(**kwargs)
    return env


def lanes(family: str, count: int, **kwargs: Any) -> TextVectorEnv:
    env: TextVectorEnv = import_module(f"prefgym_envs.text_{family}").raw_vector(count, **kwargs)
    return env


def written(
    task: TextTask, count: int, rng: np.random.Generator, ends: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """Random whole responses, some of them as long as can be."""
    size, eos = task.layout.codec.size, task.layout.codec.eos
    actions = rng.integers(size, size=(count, task.layout.response_tokens))
    actions = np.where(rng.random(actions.shape) < ends, eos, actions)
    return actions, task.layout.mask(actions)


def lived(env: TextEnv, tokens: list[int]) -> list[tuple[Any, ...]]:
    """What one response meets; it must end with its last token."""
    steps = [env.step(token) for token in tokens]
    assert [one[2] or one[3] for one in steps] == [False] * (len(tokens) - 1) + [True]
    return steps


# --- one environment --------------------------------------------------------------------------


@EACH
def test_gymnasiums_and_sb3s_checks_pass(family: str) -> None:
    check_env(raw(family), skip_render_check=True)
    sb3_check_env(raw(family), warn=False)


@EACH
def test_sizes_are_small_and_observations_belong_to_the_space(family: str) -> None:
    env = raw(family)
    layout = env.layout
    assert layout.codec.size <= 24
    assert layout.prompt_tokens <= 12
    assert layout.response_tokens <= 12
    env.action_space.seed(0)
    observation, info = env.reset(seed=0)
    assert info == {"context_id": env.task.contexts_of(observation[None, : layout.prompt_tokens])}
    for _ in range(200):
        assert env.observation_space.contains(observation)
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            observation, _ = env.reset()


@EACH
def test_the_end_terminates_and_the_last_token_truncates(family: str) -> None:
    env = raw(family)
    steps, eos = env.layout.response_tokens, env.layout.codec.eos
    word = env.layout.codec.size - 1
    for before in range(steps):
        env.reset(seed=before)
        *_, last = lived(env, [word] * before + [eos])
        assert last[2:4] == (True, False)
    env.reset()
    *_, last = lived(env, [word] * steps)
    assert last[2:4] == (False, True)
    with pytest.raises(ResetNeeded, match=r"no response is being written"):
        env.step(word)


@EACH
def test_factors_add_up_to_the_reward_in_plain_numbers(family: str) -> None:
    env = raw(family)
    rng = np.random.default_rng(1)
    actions, mask = written(env.task, 100, rng)
    for row, real in zip(actions, mask, strict=True):
        env.reset()
        for _, reward, *_, info in lived(env, row[real].tolist()):
            assert tuple(info["factors"]) == env.factor_names
            told = sum(env.task.weights[name] * one for name, one in info["factors"].items())
            assert reward == pytest.approx(told)
            assert json.loads(json.dumps([reward, info])) == [reward, info]


@EACH
def test_returns_are_of_the_order_of_one(family: str) -> None:
    task = raw(family).task
    assert 0.5 <= task.optimal_return <= 1.0
    assert abs(task.random_return) < 0.15
    actions, mask = written(task, 2000, np.random.default_rng(0), ends=0.0)
    contexts = np.arange(2000) % len(task.prompts)
    assert task.play(contexts, actions, mask).rewards.sum(1).min() >= -1.0


def test_text_is_shown() -> None:
    env = raw("sort", render_mode="ansi")
    env.reset(options={"prompt": 0})
    prompt = env.layout.codec.decode(env.task.prompts[0].tolist())
    assert env.render() == f"{prompt} → "
    env.step(env.layout.codec.encode("a")[0])
    assert env.render() == f"{prompt} → a"
    several = lanes("sort", 2, render_mode="ansi")
    several.reset(options={"prompt": 0})
    several.step(np.array([2, 3]))
    assert several.render() == (f"{prompt} → a", f"{prompt} → b")


@EACH
def test_a_saved_state_continues_the_very_same_response(family: str) -> None:
    one, other = raw(family), raw(family)
    one.reset(seed=3)
    one.step(one.layout.codec.size - 1)
    other.set_state(json_arrays(one.get_state()))
    eos = one.layout.codec.eos
    for _ in range(5):
        told = [env.step(eos) for env in (one, other)]
        np.testing.assert_equal(*told)
        np.testing.assert_equal(*[env.reset() for env in (one, other)])
    twin = pickle.loads(pickle.dumps(one))
    assert len(pickle.dumps(one)) < 400_000
    np.testing.assert_equal(twin.step(eos), copy.deepcopy(one).step(eos))


def json_arrays(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    text = json.dumps({name: one.tolist() for name, one in state.items()})
    return {name: np.array(one) for name, one in json.loads(text).items()}


def plain(value: Any) -> Any:
    """Lists and numbers, which can be compared."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, np.ndarray | tuple) else value


# --- prompts ------------------------------------------------------------------------------------


@EACH
def test_prompts_follow_from_the_seed(family: str) -> None:
    few = {"prompts": 4}
    one, again, other = (raw(family, seed=seed, **few).task for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.prompts, again.prompts)
    assert not np.array_equal(one.prompts, other.prompts)
    assert one.layout == other.layout  # so that a model of one reads the other
    assert len(np.unique(one.prompts, axis=0)) == 4
    np.testing.assert_array_equal(one.contexts_of(one.prompts[[3, 0, 1]]), [3, 0, 1])


def test_answers_are_right_in_the_words_of_the_prompt() -> None:
    for family, kwargs in (("sort", {}), ("copy", {"prompts": 27}), ("arithmetic", {})):
        task = raw(family, **kwargs).task
        actions, mask = task.optimal_responses()
        assert task.play(np.arange(len(actions)), actions, mask).rewards.sum(1) == pytest.approx(1)
        for prompt, answer in zip(task.prompts.tolist(), actions.tolist(), strict=True):
            asked, told = task.layout.codec.decode(prompt), task.layout.codec.decode(answer)
            if family == "sort":
                assert told.split() == sorted(asked.split())
            elif family == "copy":
                assert told.split() == [letter for letter in asked.split() if letter != "x"]
            else:
                one, other = asked.replace(" ", "").rstrip("=").split("+")
                assert int(told.replace(" ", "")) == int(one) + int(other)


def score(family: str, prompt: str, response: str, **kwargs: Any) -> tuple[float, dict[str, float]]:
    """The reward of a response in words, after a prompt in words, and its factors."""
    task = raw(family, **kwargs).task
    codec, steps = task.layout.codec, task.layout.response_tokens
    row = [*codec.encode(response), codec.eos][:steps]
    actions = np.array([row + [0] * (steps - len(row))])
    (context,) = task.contexts_of(task.layout.prompts([codec.encode(prompt)])).tolist()
    played = task.play(np.array([context]), actions, task.layout.mask(actions))
    return float(played.rewards.sum()), {n: float(one.sum()) for n, one in played.factors.items()}


def test_rewards_by_hand() -> None:
    every = {"prompts": 27}
    assert score("copy", "a x b", "a b", **every)[0] == pytest.approx(1.0)
    assert score("copy", "a x b", "a x b", **every)[0] == pytest.approx(1 / 3 - 1 / 4)
    assert score("copy", "x x x", "", **every)[0] == pytest.approx(1.0)
    assert score("copy", "x x x", "a", **every)[0] == 0.0
    assert score("copy", "a a b", "x x x x", **every)[0] == -1.0
    sums = {"prompts": 400}
    assert score("arithmetic", "1 7 + 5 =", "2 2", **sums) == (1.0, {"exact": 1.0, "digits": 1.0})
    assert score("arithmetic", "1 7 + 5 =", "3 2", **sums)[0] == 0.25
    assert score("arithmetic", "1 7 + 5 =", "2 2 1", **sums)[0] == 0.5
    assert score("arithmetic", "4 + 5 =", "9", **sums)[0] == 1.0
    asked, all_ = "cat box key bed where key", {"prompts": 288}
    best = {"correctness": 1.0, "politeness": 1.0, "length": 3.0}
    assert score("polite", asked, "bed gladly thanks", **all_) == (pytest.approx(0.91), best)
    rude = score("polite", asked, "the key is in the bed", **all_)
    assert rude[1] == {"correctness": 1.0, "politeness": 0.0, "length": 6.0}
    wrong = score("polite", asked, "box bed thanks thanks", **all_)
    assert wrong[1] == {"correctness": 0.0, "politeness": 0.5, "length": 4.0}
    assert score("style", "anna to ben", "ben dear regards sincerely") == (
        pytest.approx(0.52),
        {"formal": pytest.approx(1.0), "casual": pytest.approx(-0.2)},
    )
    assert score("style", "anna to ben", "anna ben hey hey")[1] == {"formal": -0.2, "casual": 0.2}
    assert score("style", "anna to ben", "hello ben bye")[1] == {"formal": 0.4, "casual": 0.4}


# --- many lanes ---------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda one: one.value)
def test_a_lane_lives_as_a_single_environment_does(family: str, mode: AutoresetMode) -> None:
    several = lanes(family, 3, autoreset_mode=mode)
    alone = [raw(family) for _ in range(3)]
    seen, infos = several.reset(seed=7)
    for lane, env in enumerate(alone):
        observation, info = env.reset(seed=7 + lane)
        np.testing.assert_array_equal(seen[lane], observation)
        assert infos["context_id"][lane] == info["context_id"]
    rng, over = np.random.default_rng(0), np.zeros(3, bool)
    for _ in range(60):
        tokens = rng.integers(several.layout.codec.size, size=3)
        seen, rewards, terminated, truncated, infos = several.step(tokens)
        for lane, env in enumerate(alone):
            if over[lane] and mode == AutoresetMode.NEXT_STEP:
                observation, info = env.reset()
                assert (rewards[lane], terminated[lane], truncated[lane]) == (0.0, False, False)
                assert not infos["_factors"][lane]
                assert infos["context_id"][lane] == info["context_id"]
                over[lane] = False
            else:
                observation, *outcome, info = env.step(tokens[lane])
                assert [rewards[lane], terminated[lane], truncated[lane]] == outcome
                told = {name: one[lane] for name, one in infos["factors"].items()}
                assert told == info["factors"]
                over[lane] = outcome[1] or outcome[2]
            if over[lane] and mode == AutoresetMode.SAME_STEP:
                np.testing.assert_array_equal(infos["final_obs"][lane], observation)
                observation, info = env.reset()
                assert infos["context_id"][lane] == info["context_id"]
            np.testing.assert_array_equal(seen[lane], observation)
        if mode == AutoresetMode.DISABLED and over.any():
            seen, _ = several.reset(options={"reset_mask": over})
            for lane in np.flatnonzero(over):
                np.testing.assert_array_equal(seen[lane], alone[lane].reset()[0])
            over[:] = False


@EACH
def test_lanes_of_a_group_answer_the_same_prompts(family: str) -> None:
    grouped, plain = lanes(family, 6, samples_per_prompt=3), lanes(family, 2)
    grouped.reset(seed=2)
    plain.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(5):
        np.testing.assert_array_equal(grouped.context_id, np.repeat(plain.context_id, 3))
        for env in (grouped, plain):
            env.play(*written(env.task, env.num_envs, rng))
    grouped.reset(seed=[5, 6])
    plain.reset(seed=[5, 6])
    np.testing.assert_array_equal(grouped.context_id, np.repeat(plain.context_id, 3))


@EACH
@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda one: one.value)
def test_playing_a_response_equals_stepping_it(family: str, mode: AutoresetMode) -> None:
    at_once, by_step = lanes(family, 8, autoreset_mode=mode), lanes(family, 1)
    rng = np.random.default_rng(4)
    at_once.reset(seed=11)
    for _ in range(3):
        actions, mask = written(at_once.task, 8, rng)
        seen, contexts = at_once.observations, at_once.context_id
        played = at_once.play(actions, mask)
        for lane in range(8):
            start, infos = by_step.reset(options={"prompt": contexts[lane]})
            np.testing.assert_array_equal(start[0], seen[lane])
            for step in range(int(mask[lane].sum())):
                _, rewards, terminated, truncated, infos = by_step.step(actions[lane, step, None])
                assert played.rewards[lane, step] == rewards[0]
                for name, factor in infos["factors"].items():
                    assert played.factors[name][lane, step] == factor[0]
            assert (terminated[0], truncated[0]) == (
                played.terminated[lane],
                played.truncated[lane],
            )
            assert not played.rewards[lane, step + 1 :].any()
    # New episodes have begun, with the prompts that stepping would have met.
    stepped = lanes(family, 8)
    stepped.reset(seed=11)
    for _ in range(3):
        stepped.step(np.full(8, stepped.layout.codec.eos))
    np.testing.assert_array_equal(stepped.observations, at_once.observations)


@EACH
@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda one: one.value)
def test_a_saved_state_continues_all_lanes(family: str, mode: AutoresetMode) -> None:
    one, other = (lanes(family, 4, samples_per_prompt=2, autoreset_mode=mode) for _ in "ab")
    one.reset(seed=0)
    one.step(np.array([2, 1, 0, 3]))
    other.set_state(json_arrays(one.get_state()))
    rng = np.random.default_rng(0)
    for _ in range(20):
        tokens = rng.integers(one.layout.codec.size, size=4)
        if mode == AutoresetMode.DISABLED:
            over = one.get_state()["ended"]
            if over.any():
                for env in (one, other):
                    env.reset(options={"reset_mask": over})
        assert plain(one.step(tokens)) == plain(other.step(tokens))
    with pytest.raises(ValueError, match=r"belongs to 4 lanes, but this environment has 2"):
        lanes(family, 2).set_state(one.get_state())


# --- exact solutions ----------------------------------------------------------------------------


def enumerated(task: TextTask, temperature: float) -> np.ndarray:
    """β log E exp(r / β) over all responses of a policy that draws tokens uniformly, per prompt."""
    mask = task.all_responses()[1]
    log_prob = np.broadcast_to(
        -mask.sum(1) * np.log(task.layout.codec.size), task.all_returns.shape
    )
    if temperature == 0:
        best: np.ndarray = task.all_returns.max(1)
        return best
    value, _ = task.kl_optimal(log_prob, temperature)
    return value


@pytest.mark.parametrize("temperature", [0.0, 0.05, 0.3, 10.0])
@pytest.mark.parametrize("family", ["copy", "cycle"])
def test_soft_values_are_those_of_all_responses(family: str, temperature: float) -> None:
    task = raw(family).task
    swept = task.soft_values(temperature)[0][task.start]
    np.testing.assert_allclose(swept, enumerated(task, temperature), atol=1e-9)


def test_every_response_is_listed_once() -> None:
    task = raw("copy").task
    actions, mask = task.all_responses()
    assert len(actions) == 1 + 4 + 16 + 64 + 4**4
    assert len(np.unique(actions * mask + 10 * mask, axis=0)) == len(actions)
    task.layout.check_responses(actions, mask)
    chance = (1 / task.layout.codec.size) ** mask.sum(1)
    assert chance.sum() == pytest.approx(1.0)
    assert (chance @ task.all_returns.T).mean() == pytest.approx(task.random_return)
    with pytest.raises(ValueError, match=r"A vocabulary of 18 has .* take a smaller task"):
        raw("polite").task.all_responses()


def test_the_best_policy_near_a_reference_is_exact(rng: np.random.Generator) -> None:
    task, temperature = raw("copy", prompts=3).task, 0.2
    reference = rng.normal(size=task.all_returns.shape)
    reference -= np.logaddexp.reduce(reference, axis=1)[:, None]
    value, best = task.kl_optimal(reference, temperature)
    worth = task.kl_value(best, reference, temperature)
    np.testing.assert_allclose(worth, value)
    np.testing.assert_allclose(np.exp(best).sum(1), 1.0)
    for _ in range(20):
        other = best + 0.3 * rng.normal(size=best.shape)
        other -= np.logaddexp.reduce(other, axis=1)[:, None]
        assert (task.kl_value(other, reference, temperature) < value).all()
    np.testing.assert_allclose(
        task.kl_value(reference, reference, 1.0), (np.exp(reference) * task.all_returns).sum(1)
    )
    with pytest.raises(ValueError, match=r"probability of 2 for prompt 0; give log π of whole"):
        task.kl_optimal(reference + np.log(2.0), temperature)
    with pytest.raises(ValueError, match=r"shape \(3, 5\); wanted \(3, 341\)"):
        task.kl_optimal(reference[:, :5], temperature)
    with pytest.raises(ValueError, match=r"temperature is 0"):
        task.kl_optimal(reference, 0.0)


@EACH
def test_advantages_telescope_to_the_gap_from_the_best(family: str) -> None:
    """Σ A* = Σ r − V*(start): regret is the reward that a response leaves behind, exactly."""
    env = raw(family, **BRIEF.get(family, {}))
    task, rng = env.task, np.random.default_rng(0)
    actions, mask = written(task, 300, rng)
    contexts = rng.integers(len(task.prompts), size=300)
    played = task.play(contexts, actions, mask)
    segments = Segments(actions, mask, task.prompts[contexts], contexts)
    assert env.advantages is not None
    advantages = env.advantages.of_segments(segments)
    assert (advantages <= 1e-12).all()
    assert not advantages[~mask].any()
    gap = played.rewards.sum(1) - task.values[0][task.start[contexts]]
    np.testing.assert_allclose(advantages.sum(1), gap, atol=1e-12)
    np.testing.assert_allclose(regret(env.advantages)(segments), gap, atol=1e-12)
    wide = env.advantages.of_segments(segments.padded(segments.steps + 3))
    np.testing.assert_array_equal(wide[:, : segments.steps], advantages)
    best, whole = task.optimal_responses()
    every = Segments(best, whole, task.prompts, np.arange(len(best)))
    np.testing.assert_allclose(env.advantages.of_segments(every), 0.0, atol=1e-12)


@EACH
def test_advantages_of_observations_are_those_of_segments(family: str) -> None:
    several = lanes(family, 5)
    rng = np.random.default_rng(0)
    actions, mask = written(several.task, 5, rng, ends=0.0)
    seen, infos = several.reset(seed=0)
    segments = Segments(actions, mask, seen[:, : several.layout.prompt_tokens], infos["context_id"])
    assert several.advantages is not None
    whole = several.advantages.of_segments(segments)
    for step in range(several.layout.response_tokens):
        now = mask[:, step]
        found = several.advantages(seen, actions[:, step])
        np.testing.assert_allclose(found[now], whole[now, step], atol=1e-12)
        seen, *_, infos = several.step(actions[:, step])
    ended = np.stack([one for one in infos["final_obs"] if one is not None])
    np.testing.assert_array_equal(several.advantages(ended, actions[: len(ended), 0]), 0.0)


def test_advantages_of_other_prompts_are_refused() -> None:
    here, there = raw("sort", seed=0), raw("sort", seed=1)
    assert here.advantages is not None
    odd, _ = there.reset(options={"prompt": 0})
    with pytest.raises(ValueError, match=r"is none of this task's 64"):
        here.advantages(odd[None], np.array([2]))
    with pytest.raises(ValueError, match=r"not those that their context_id names"):
        here.advantages.of_segments(there.task.demonstrations(3, np.random.default_rng(0)))
    few = here.task.demonstrations(1, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"There is no prompt 64; this task has 0 to 63"):
        here.advantages.of_segments(few.replace(context_id=np.array([64])))


# --- demonstrations -----------------------------------------------------------------------------


@EACH
def test_a_task_is_reached_from_any_environment_and_shown_in_one_line(family: str) -> None:
    name = f"prefgym/Text{family.capitalize()}-v0"
    single, several = gym.make(name), gym.make_vec(name, num_envs=2)
    for task in (
        single.get_wrapper_attr("task"),
        several.get_wrapper_attr("task"),  # type: ignore[attr-defined]
        several.task,  # type: ignore[attr-defined]
    ):
        assert isinstance(task, TextTask)
        shown = repr(task)
        assert len(shown) < 200
        assert "\n" not in shown
        assert shown.startswith(f"TextTask({len(task.prompts)} prompts of up to")
        assert all(factor in shown for factor in task.factor_names)
    control = gym.make_vec("prefgym/CartPole-v0", num_envs=2)
    assert control.task is None  # type: ignore[attr-defined]


@EACH
def test_demonstrations_are_mediocre_and_whole(family: str, rng: np.random.Generator) -> None:
    task = raw(family).task
    shown = task.demonstrations(3000, rng)
    task.layout.check_responses(shown.actions, shown.mask)
    played = task.play(shown.context_id, shown.actions, shown.mask)
    np.testing.assert_array_equal(shown.rewards, played.rewards)
    np.testing.assert_array_equal(shown.context, task.prompts[shown.context_id])
    reached = (played.rewards.sum(1).mean() - task.random_return) / (
        task.optimal_return - task.random_return
    )
    assert 0.1 < reached < 0.75
    clean = task.demonstrations(3000, rng, noise=0.0)
    assert clean.rewards is not None
    assert clean.rewards.sum(1).mean() > played.rewards.sum(1).mean()
    again = task.demonstrations(50, np.random.default_rng(5))
    np.testing.assert_array_equal(
        again.actions, task.demonstrations(50, np.random.default_rng(5)).actions
    )


def test_demonstrations_join_what_was_played(rng: np.random.Generator) -> None:
    env: Any = gym.make_vec("prefgym/TextCopy-v0", num_envs=3)
    env.reset(seed=0)
    actions, mask = written(env.task, 3, rng)
    played, shown = env.play(actions, mask), env.task.demonstrations(5, rng)
    both = Segments.concatenate([shown, played])
    assert env.layout.text(both) == env.layout.text(shown) + env.layout.text(played)
    np.testing.assert_array_equal(both.rewards[5:], played.rewards)


# --- groups and circles -------------------------------------------------------------------------


def test_preferences_among_drinks_go_round_in_a_circle() -> None:
    for env in (raw("cycle"), lanes("cycle", 2)):
        codec: Any = env.layout.codec
        tea, coffee, juice = codec.encode("tea coffee juice")
        matrix = env.preference_matrix  # type: ignore[attr-defined]
        for first, second in itertools.pairwise((tea, coffee, juice, tea)):
            assert matrix[first, second] > 0.5
        np.testing.assert_allclose(matrix + matrix.T, 1.0)
        assert matrix[tea, codec.eos] == 1.0
        mixture = env.minimax_winner  # type: ignore[attr-defined]
        np.testing.assert_allclose(mixture, minimax_winner(matrix), atol=1e-9)
        np.testing.assert_allclose(mixture[[tea, coffee, juice]], [0.6, 0.1, 0.3], atol=1e-9)
        chances = env.preference(np.array([tea, juice]), np.array([coffee, coffee]))  # type: ignore[attr-defined]
        np.testing.assert_allclose(chances, [matrix[tea, coffee], matrix[juice, coffee]])
        with pytest.raises(ValueError, match=r"no token 99"):
            env.preference(np.array([99]), np.array([2]))  # type: ignore[attr-defined]
    many = raw("cycle", weights=[0.25] * 4)
    assert many.layout.codec.size == 13


def test_two_groups_disagree_about_style() -> None:
    env: Any = raw("style", weights=(0.7, 0.3))
    assert env.group_shares == (0.7, 0.3)
    assert lanes("style", 2).group_shares == (0.6, 0.4)  # type: ignore[attr-defined]
    assert set(env.groups) == set(env.factor_names)
    rng = np.random.default_rng(0)
    actions, mask = written(env.task, 4000, rng)
    played = env.task.play(rng.integers(12, size=4000), actions, mask)
    formal, casual = (played.factors[name].sum(1) for name in ("formal", "casual"))
    assert np.corrcoef(formal, casual)[0, 1] < -0.2


# --- bad input ----------------------------------------------------------------------------------


@EACH
def test_tokens_that_do_not_exist_are_refused(family: str) -> None:
    env, several = raw(family), lanes(family, 2)
    env.reset(seed=0)
    several.reset(seed=0)
    size = env.layout.codec.size
    for odd in (-1, size, 1.5, None):
        with pytest.raises(ValueError, match=rf"There is no token .*from 0 to {size - 1}"):
            env.step(odd)
    with pytest.raises(ValueError, match=rf"{size} \(lane 1\) does not exist"):
        several.step(np.array([0, size]))
    actions, mask = written(env.task, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match=rf"no token {size}; the vocabulary has 0 to {size - 1}"):
        several.play(np.where(np.arange(actions.shape[1]) == 0, size, actions), mask)


def test_responses_that_are_not_whole_are_refused() -> None:
    env = lanes("sort", 2)
    actions, mask = written(env.task, 2, np.random.default_rng(0), ends=0.0)
    with pytest.raises(ResetNeeded, match=r"reset\(\) first"):
        env.play(actions, mask)
    env.reset(seed=0)
    short = mask.copy()
    short[1, 0] = False
    with pytest.raises(ValueError, match=r"Row 1 is no whole response"):
        env.play(actions, short)
    with pytest.raises(ValueError, match=r"shape \(1, 6\); wanted \(2, 6\)"):
        env.play(actions[:1], mask[:1])
    env.step(np.array([2, 1]))
    with pytest.raises(ValueError, match=r"lanes \[0\] are not; call reset\(\) first"):
        env.play(actions, mask)


def test_arguments_that_make_no_task_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prompts=0; this task has 1 to 9288 different prompts"):
        raw("sort", prompts=0)
    with pytest.raises(ValueError, match=r"prompts=28; this task has 1 to 27"):
        raw("copy", prompts=28)
    with pytest.raises(ValueError, match=r"seed=-1; give a whole number"):
        raw("polite", seed=-1)
    with pytest.raises(ValueError, match=r"largest=0; give a whole number from 1"):
        raw("arithmetic", largest=0)
    with pytest.raises(ValueError, match=r"no factor 'tone'; weigh some of correctness"):
        raw("polite", weights={"tone": 1.0})
    with pytest.raises(ValueError, match=r"shares of two groups, adding up to 1"):
        raw("style", weights=(0.5, 0.6))
    with pytest.raises(ValueError, match=r"8 drinks, too few for 9"):
        raw("cycle", weights=[1 / 9] * 9)
    with pytest.raises(ValueError, match=r"num_envs=5 is no multiple of samples_per_prompt=2"):
        lanes("copy", 5, samples_per_prompt=2)
    with pytest.raises(ValueError, match=r"ends by itself after at most 4 tokens; leave it out"):
        lanes("copy", 2, max_episode_steps=3)
    with pytest.raises(ValueError, match=r'options\["prompt"\] is 8; give a number from 0 to 7'):
        raw("copy").reset(options={"prompt": 8})
    with pytest.raises(ValueError, match=r"Got 4 seeds for 2 groups of 2 lanes that share"):
        lanes("copy", 4, samples_per_prompt=2).reset(seed=[1, 2, 3, 4])
    with pytest.raises(ValueError, match=r"render_mode 'human' is unknown here; there is 'ansi'"):
        raw("copy", render_mode="human")
    with pytest.raises(ValueError, match=r"noise is 2.0; give a share"):
        raw("copy").task.demonstrations(1, np.random.default_rng(0), noise=2.0)
    with pytest.raises(ValueError, match=r"temperature is -1"):
        raw("copy").task.soft_values(-1.0)


def test_soft_values_by_hand() -> None:
    """Two tokens, one step: V = β log mean exp(r / β)."""
    values = text_planning.soft_values(
        np.zeros((1, 2), int), np.array([[1.0, 0.0]]), eos=1, steps=1, temperature=0.5
    )
    assert values[0, 0] == pytest.approx(0.5 * np.log((np.exp(2.0) + 1) / 2))
