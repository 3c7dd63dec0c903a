"""Environments on optional packages: what they say without them, and their contract with them."""

import copy
import pickle
import sys
from collections import Counter
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from prefgym.interventions import Random, Supervision
from prefgym.registration import ENVIRONMENTS
from prefgym.wrappers.inner import find_attribute
from prefgym_envs import adroit, nethack
from prefgym_envs.nethack_views import KINDS, NUMBERS, REACH, SIDE, SYMBOLS, Glyphs, stats

PEN, HACK = "prefgym/AdroitPen-v0", "prefgym/NetHack-v0"
PACKAGES = {PEN: ("adroit", "gymnasium_robotics"), HACK: ("nethack", "nle")}
BOTH = pytest.mark.parametrize(
    "env_id",
    [
        pytest.param(
            one,
            marks=pytest.mark.skipif(
                find_spec(package) is None, reason=f"{package} is not installed"
            ),
        )
        for one, (_, package) in PACKAGES.items()
    ],
)
WITH_PEN = pytest.mark.skipif(
    find_spec("gymnasium_robotics") is None, reason="gymnasium_robotics is not installed"
)
WITH_NLE = pytest.mark.skipif(find_spec("nle") is None, reason="nle is not installed")
ADVICE = pytest.mark.filterwarnings("ignore:.*(unwrapped version|is (-)?infinity).*:UserWarning")


def raw(env_id: str, **kwargs: Any) -> Any:
    return adroit.raw("AdroitPen", **kwargs) if env_id == PEN else nethack.raw(**kwargs)


def task(env_id: str) -> Any:
    return adroit.TASKS["AdroitPen"] if env_id == PEN else nethack.TASK


def play(env: Any, steps: int, seed: int) -> list[Any]:
    env.action_space.seed(seed)
    told: list[Any] = [env.reset(seed=seed)[0].tolist()]
    for _ in range(steps):
        observation, *rest = env.step(env.action_space.sample())
        told.append((observation.tolist(), *rest))
        if rest[1] or rest[2]:
            env.reset()
    return told


# --- without the package ------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", PACKAGES)
def test_without_the_package_one_sentence_says_what_to_install(
    env_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra, package = PACKAGES[env_id]
    assert ENVIRONMENTS[env_id].extra == extra
    for name in [one for one in sys.modules if one.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    says = rf'^{env_id} needs .*; pip install "prefgym\[{extra}\]"\.$'
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ImportError, match=says):
            make(env_id)


def test_the_pens_reward_is_a_sum_of_factors_in_both_forms() -> None:
    known = dict.fromkeys(adroit.FACTORS, 0.0) | {"steps": 1.0, "distance": 0.5}
    pen, done = task(PEN), {"success": 1.0, "close": 1.0, "similarity": 1.0, "distance": 0.0}
    assert pen.reward(known) == -0.5
    assert pen.reward(known | done) == 61.0
    assert pen.reward(known, reward_type="sparse") == -0.1
    assert pen.reward(known | done, reward_type="sparse") == pytest.approx(10.0)
    with pytest.raises(ValueError, match=r"reward type 'dens'; did you mean 'dense'"):
        adroit.raw("AdroitPen", reward_type="dens")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (b"", ""),
        (b"It's a wall.\0\0old", "It's a wall."),
        (b" You see here\n  a knife. \0", "You see here a knife."),
        (b"What do you want to eat? [fg or ?*]\0", "What do you want to eat?"),
        (b"Really attack the kitten? [yn] (n)\0", "Really attack the kitten?"),
        (b"You read: [sic] nothing.\0", "You read: [sic] nothing."),
    ],
)
def test_messages_are_cleaned(written: bytes, text: str) -> None:
    assert nethack.message(np.frombuffer(written.ljust(64, b"\0"), np.uint8)) == text


def test_the_bottom_line_keeps_within_its_bounds() -> None:
    low = np.array([one.low for one in NUMBERS])
    for bottom in (np.zeros(27, np.int64), np.full(27, 10**9), np.full(27, -(10**9))):
        scaled = stats(bottom)
        assert np.all((low <= scaled) & (scaled <= 1.0))
    bottom = np.zeros(27, np.int64)
    bottom[[0, 12]] = 39, 10
    assert dict(zip((one.name for one in NUMBERS), stats(bottom), strict=True))["x"] == 0.5
    assert np.count_nonzero(stats(bottom)) == 2


class FakeGlyphs:
    """Ten monsters, a pet, a body, an object, and then the symbols of the map."""

    MAX_GLYPH, GLYPH_CMAP_OFF = 100, 13
    glyph_is_monster = staticmethod(lambda one: one < 11)
    glyph_is_pet = staticmethod(lambda one: one == 10)
    glyph_is_object = staticmethod(lambda one: one in (11, 12))
    glyph_is_body = staticmethod(lambda one: one == 11)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (4, 3), (8, 6)])
def test_the_hero_stands_in_the_middle_of_what_is_seen(x: int, y: int) -> None:
    glyphs = np.full((7, 9), 13 + 19)
    glyphs[y, x] = 0
    glyphs[3, 0] = 10
    seen = Glyphs(FakeGlyphs).around(glyphs, x, y).reshape(SIDE, SIDE, len(KINDS))
    np.testing.assert_array_equal(seen.sum(axis=2), 1.0)
    assert KINDS[seen[REACH, REACH].argmax()] == "monster"
    inside = np.count_nonzero(seen[..., KINDS.index("floor")])
    rows, columns = min(y, REACH) + min(6 - y, REACH) + 1, min(x, REACH) + min(8 - x, REACH) + 1
    pet = x <= REACH and abs(y - 3) <= REACH
    assert inside == rows * columns - 1 - pet
    assert seen[..., KINDS.index("pet")].sum() == pet
    assert seen[..., KINDS.index("unseen")].sum() == SIDE * SIDE - rows * columns


def test_every_symbol_of_the_map_is_of_one_kind() -> None:
    named = [one for symbols in SYMBOLS.values() for one in symbols]
    assert len(set(named)) == len(named)
    assert set(range(65)) - set(named) == {39, 40}  # air and cloud
    assert set(SYMBOLS) < set(KINDS)


# --- with it ------------------------------------------------------------------------------------


@ADVICE
@BOTH
def test_gymnasiums_and_sb3s_checks_pass(env_id: str) -> None:
    check_env(raw(env_id), skip_render_check=True)
    check_env(gym.make(env_id), skip_render_check=True)
    sb3_check_env(gym.make(env_id), warn=False)


@BOTH
def test_equal_seeds_give_equal_episodes_whose_reward_is_the_sum_of_factors(env_id: str) -> None:
    env, twin = raw(env_id), raw(env_id)
    first = play(env, 150, seed=3)
    assert first == play(twin, 150, seed=3) == play(env, 150, seed=3)
    assert play(env, 5, seed=4) != first[:6]
    for observation, reward, *_, info in first[1:]:
        assert env.observation_space.contains(np.array(observation, env.observation_space.dtype))
        assert tuple(info["factors"]) == env.factor_names
        assert task(env_id).reward(info["factors"]) == pytest.approx(reward, abs=1e-9)
    for copied in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert play(copied, 150, seed=3) == first


@BOTH
def test_lanes_ask_for_preferences_and_a_state_continues_elsewhere(env_id: str) -> None:
    one, other = (
        gym.make_vec(env_id, num_envs=2, segment_steps=5, query_every=10, max_episode_steps=30)
        for _ in range(2)
    )

    def roll(env: Any, seed: int) -> list[Any]:
        env.action_space.seed(seed)
        steps = [env.step(env.action_space.sample()) for _ in range(40)]
        return [
            (seen.tolist(), *map(list, ends), *map(list, infos["factors"].values()))
            for seen, *ends, infos in steps
        ]

    one.reset(seed=1)
    roll(one, 0)
    state = one.get_state()  # type: ignore[attr-defined]
    expected = roll(one, 2)
    other.set_state(state)  # type: ignore[attr-defined]
    assert roll(other, 2) == expected
    assert len(one.preferences) == len(other.preferences) > 4  # type: ignore[attr-defined]
    assert any(any(step[3]) for step in expected)  # the time limit cuts; it does not terminate


@BOTH
def test_raters_by_name_look_at_something(env_id: str) -> None:
    for name in ("cyclic", "distance-and-sector", "low-then-high", "heron", "two-groups"):
        env = gym.make(env_id, rater=name, segment_steps=5, query_every=12)
        play(env, 60, seed=0)
        assert len(env.get_wrapper_attr("preferences")) >= 1


@BOTH
def test_somebody_can_take_over(env_id: str) -> None:
    space = gym.make(env_id).action_space
    wanted: Any = 1 if env_id == HACK else np.zeros(space.shape or (), np.float32)
    expert = Supervision(lambda seen: np.array([wanted] * len(seen)), Random(0.5))
    env = gym.make(env_id, supervision=expert, query_every=None)
    env.reset(seed=0)
    infos = [env.step(env.action_space.sample())[-1] for _ in range(30)]
    taken = [np.all(info["executed_action"] == wanted) for info in infos if info["intervened"]]
    assert 0 < len(taken) <= 30
    assert all(taken)


@WITH_PEN
def test_the_pen_can_be_paid_sparsely_and_copies_are_too() -> None:
    env = adroit.raw("AdroitPen", reward_type="sparse")
    for one in (env, pickle.loads(pickle.dumps(env))):
        assert {step[1] for step in play(one, 20, seed=0)[1:]} == {-0.1}
    with pytest.raises(ValueError, match=r"wanted finite numbers"):
        env.step(np.full(24, np.nan))
    state = env.unwrapped.get_env_state()  # type: ignore[attr-defined]
    assert state["qpos"].shape == (30,)


@WITH_PEN
def test_a_pen_on_its_target_is_a_success_and_one_below_the_hand_is_dropped() -> None:
    env: Any = adroit.raw("AdroitPen")
    env.reset(seed=0)
    state = env.unwrapped.get_env_state()
    half = np.sqrt(0.5)  # a quarter of a turn, from upright to where the pen points
    state["desired_orien"] = np.array([half, 0.0, half, 0.0])
    env.unwrapped.set_env_state(state)
    _, reward, _, _, info = env.step(np.zeros(24, np.float32))
    assert info["factors"]["success"] == info["factors"]["close"] == 1.0
    assert reward > 60.0
    state["qpos"][24] += 0.2  # downwards
    env.unwrapped.set_env_state(state)
    _, reward, _, _, info = env.step(np.zeros(24, np.float32))
    assert (info["factors"]["dropped"], info["factors"]["success"]) == (1.0, 0.0)
    assert reward < -4.0


@WITH_NLE
def test_the_games_messages_are_captions_and_are_counted() -> None:
    lanes: Any = gym.make_vec(HACK, num_envs=2, counts=4)
    lanes.action_space.seed(0)
    lanes.reset(seed=0)
    captions = find_attribute(lanes, "captions")
    told: list[Counter[str]] = [Counter(), Counter()]
    for _ in range(150):
        seen, _, terminated, _, infos = lanes.step(lanes.action_space.sample())
        assert not terminated.any()
        assert captions.texts(infos["factors"]["caption"]) == infos["caption"].tolist()
        for lane, text in enumerate(infos["caption"]):
            told[lane][text] += 1
            assert seen[lane, -1] == (min(told[lane][text], 4) / 4 if text else 0.0)
    assert min(len(one) for one in told) > 5
    assert max((one - Counter({"": 150})).most_common(1)[0][1] for one in told) > 4
    assert find_attribute(lanes, "possible_captions") == ()
    quiet = nethack.raw(captions=False)
    assert all("caption" not in step[-1] for step in play(quiet, 5, seed=0)[1:])


@WITH_NLE
def test_pictures_are_tiles_or_text() -> None:
    for mode, check in (
        ("rgb_array", lambda one: one.shape == (336, 1264, 3)),
        ("ansi", lambda one: "@" in one),
    ):
        env = nethack.raw(render_mode=mode)
        env.reset(seed=0)
        assert check(env.render())
    with pytest.raises(ValueError, match="render_mode 'full'"):
        nethack.raw(render_mode="full")
    with pytest.raises(ValueError, match="counts=-1"):
        nethack.raw(counts=-1)
