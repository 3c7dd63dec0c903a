"""Captions as numbers, in one environment and in lanes, in segments of steps and of text."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from prefgym import checkpoints
from prefgym.captions import Captions
from prefgym.vector import ReplayableVectorEnv
from prefgym.wrappers import PreferenceEnv, PreferenceVectorEnv
from prefgym.wrappers.captioned import CaptionedEnv, CaptionedVectorEnv
from prefgym.wrappers.inner import find_attribute
from prefgym_agents.language import language_backend
from prefgym_agents.language.models import tiny_config

PHRASED = pytest.mark.parametrize("task", ["Polite", "Style", "Copy"])


class Telling(gym.Env[Any, Any]):
    """Says a number that it drew, or nothing; what can be said is not known beforehand."""

    observation_space = gym.spaces.Box(0.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(2)
    possible_captions: tuple[str, ...] = ()
    factor_names = ("steps",)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        text = f"You hear {self.np_random.integers(1000)}." if action else ""
        info = {"factors": {"steps": 1.0}, "caption": text}
        return np.zeros(1, np.float32), 1.0, self.steps == 5, False, info


def lanes_of(mode: AutoresetMode = AutoresetMode.SAME_STEP) -> PreferenceVectorEnv:
    inner = CaptionedVectorEnv(ReplayableVectorEnv([Telling] * 3, mode))
    return PreferenceVectorEnv(inner, segment_steps=3, query_every=7)


# --- the table ----------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(st.text(max_size=3)), st.lists(st.text(max_size=3)))
def test_numbers_and_texts_are_each_others_inverse(first: list[str], second: list[str]) -> None:
    table = Captions(first)
    numbers = table.number(second)
    assert table.texts(numbers) == second
    assert table.texts(numbers.astype(float)) == second
    assert ((numbers == 0) == [text == "" for text in second]).all()
    assert len(table) == len({"", *first, *second})
    assert table.texts(range(len(table))) == list(dict.fromkeys(["", *first, *second]))
    again = Captions()
    again.set_state(table.get_state())
    np.testing.assert_array_equal(again.number(second), numbers)
    assert len(again) == len(table)


def test_what_is_no_caption_is_refused() -> None:
    table = Captions(["You see a key."])
    with pytest.raises(ValueError, match=r"There is no caption 2; this table has 0 to 1"):
        table.texts([2])
    with pytest.raises(ValueError, match=r'info\["caption"\] is 3; wanted a text'):
        table.number(np.array([3], object))
    with pytest.raises(ValueError, match=r"CartPole.* writes no captions; choose"):
        CaptionedEnv(gym.make("CartPole-v1"))


# --- environments -------------------------------------------------------------------------------


def test_a_single_environment_numbers_what_it_says() -> None:
    env = PreferenceEnv(CaptionedEnv(Telling()), segment_steps=3, query_every=None)
    env.reset(seed=0)
    told = []
    for action in (1, 0, 1, 1, 1):
        *_, info = env.step(action)
        told.append(info["caption"])
        assert list(info["factors"]) == ["steps", "caption"]
    table = find_attribute(env, "captions")
    whole = env.store.segments(env.store.whole(np.array([0])), 5)  # type: ignore[union-attr]
    assert table.texts(whole.factors["caption"][0]) == told
    assert told[1] == ""
    assert len(set(told)) == 5


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda one: one.value)
def test_lanes_share_one_table_and_a_resumed_run_goes_on_with_its_numbers(
    mode: AutoresetMode, tmp_path: Any
) -> None:
    one, other = lanes_of(mode), lanes_of(mode)
    one.reset(seed=0)

    def act(env: PreferenceVectorEnv, steps: int) -> list[Any]:
        found = []
        for _ in range(steps):
            *_, terminated, _, infos = env.step(np.array([1, 0, 1]))
            numbers = infos["factors"]["caption"]
            assert find_attribute(env, "captions").texts(numbers) == infos["caption"].tolist()
            assert infos["caption"][1] == ""
            found.append((numbers.tolist(), infos["caption"].tolist()))
            if terminated.any() and mode == AutoresetMode.DISABLED:
                env.reset(options={"reset_mask": terminated})
            elif terminated.any() and mode == AutoresetMode.SAME_STEP:
                last = infos["final_info"]
                assert last["caption"].tolist() == infos["caption"].tolist()
                assert last["factors"]["caption"].tolist() == numbers.tolist()
        return found

    act(one, 13)
    checkpoints.save(tmp_path / "state", one.get_state())
    expected = act(one, 12)
    other.set_state(checkpoints.load(tmp_path / "state"))
    assert act(other, 12) == expected
    assert one.store.factor_names == ("steps", "caption")
    numbers = one.store.factors["caption"][0]  # type: ignore[union-attr]
    assert numbers.max() > 10


def test_a_note_is_nothing_that_raters_look_at() -> None:
    env = gym.make("prefgym/DoorKey-5x5-v0", rater="heron")
    assert "caption" not in str(env.get_wrapper_attr("rater"))


# --- text ---------------------------------------------------------------------------------------


@PHRASED
def test_phrases_come_token_by_token_and_at_once(task: str) -> None:
    name = f"prefgym/Text{task}-v0"
    stepped, played = (gym.make_vec(name, num_envs=4, captions=True) for _ in range(2))
    single = gym.make(name, captions=True)
    layout, rng = played.layout, np.random.default_rng(0)
    actions = rng.integers(1, layout.codec.size, (4, layout.response_tokens))
    mask = layout.mask(actions)
    stepped.reset(seed=0)
    played.reset(seed=0)
    segments = played.play(np.where(mask, actions, 0), mask)
    table = played.get_wrapper_attr("captions")
    for time in range(layout.response_tokens):
        *_, infos = stepped.step(np.where(mask[:, time], actions[:, time], 1))
        for lane in np.flatnonzero(mask[:, time]):
            text = infos["caption"][lane]
            assert table.texts(segments.factors["caption"][lane, time : time + 1]) == [text]
            assert text in ("", layout.codec.words[actions[lane, time]])
    single.reset(seed=0)
    for token in actions[0][mask[0]].tolist():
        info = single.step(token)[4]
        assert info["caption"] in ("", layout.codec.words[token])
        assert info["factors"]["caption"] == table.number([info["caption"]])[0]
    assert not segments.factors["caption"][~mask].any()
    assert segments.factors["caption"].any()


def test_words_that_lead_up_to_a_phrase_finish_none() -> None:
    env: Any = gym.make_vec("prefgym/TextPolite-v0", num_envs=1, captions=True)
    env.reset(seed=0)
    codec = env.layout.codec
    actions = np.array([[*codec.encode("well the key is in the bed thanks thanks"), codec.eos]])
    segments = env.play(actions, np.ones_like(actions, bool))
    told = env.get_wrapper_attr("captions").texts(segments.factors["caption"][0])
    assert told == ["", "", "key", "", "", "", "bed", "thanks", "thanks", ""]


def test_what_a_language_model_writes_carries_its_phrases() -> None:
    env: Any = gym.make_vec("prefgym/TextCopy-v0", num_envs=8, captions=True, query_every=None)
    backend = language_backend(env, tiny_config(env.layout, width=32), seed=0)
    backend.begin(1000)
    segments = backend.collect()
    assert segments is not None
    plain = segments.numpy()
    table = find_attribute(backend.env, "captions")
    words = np.array([one if one in ("a", "b", "x") else "" for one in env.layout.codec.words])
    expected = np.where(plain.mask, words[np.where(plain.mask, plain.actions, 0)], "")
    assert table.texts(plain.factors["caption"].ravel()) == expected.ravel().tolist()
    assert (expected != "").any()


def test_tasks_without_phrases_refuse_captions() -> None:
    with pytest.raises(ValueError, match=r"captions=True: this task has no finished phrases"):
        gym.make_vec("prefgym/TextSort-v0", num_envs=2, captions=True)
    env = gym.make("prefgym/TextCopy-v0")
    assert find_attribute(env, "captions") is None
