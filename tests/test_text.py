"""Text as numbers: words, tokens, observations, and what is no response."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefgym.segments import Segments
from prefgym.text import Codec, Layout, Vocabulary

LETTERS = Vocabulary.of("a", "b", "c")
LAYOUT = Layout(LETTERS, prompt_tokens=3, response_tokens=4)


def test_a_vocabulary_is_a_codec_and_goes_there_and_back() -> None:
    assert isinstance(LETTERS, Codec)
    assert (LETTERS.size, LETTERS.pad, LETTERS.eos) == (5, 0, 1)
    assert LETTERS.decode(LETTERS.encode("c a  b")) == "c a b"
    assert LETTERS.decode([0, 0, 2, 1, 0]) == "a"
    assert pickle.loads(pickle.dumps(LETTERS)) == LETTERS


def test_words_that_could_be_confused_are_refused() -> None:
    with pytest.raises(ValueError, match=r"first two words .* but \('a', 'b'\) came"):
        Vocabulary(("a", "b"))
    with pytest.raises(ValueError, match=r"'two words' is no single word"):
        Vocabulary.of("two words")
    with pytest.raises(ValueError, match=r"'a' came twice"):
        Vocabulary.of("a", "b", "a")
    with pytest.raises(ValueError, match=r"Unknown word 'd'"):
        LETTERS.encode("a d")
    for special in ("<pad>", "<eos>"):
        with pytest.raises(ValueError, match=rf"holds '{special}', which is no word"):
            LETTERS.encode(f"a {special}")
    with pytest.raises(ValueError, match=r"no token 5; this vocabulary has 0 to 4"):
        LETTERS.decode([5])


def test_spaces_are_integers_of_a_fixed_shape() -> None:
    space = LAYOUT.observation_space
    assert space.shape == (8,)
    assert space.dtype == np.int64
    assert space.nvec.tolist() == [5] * 7 + [5]
    assert LAYOUT.action_space == gym.spaces.Discrete(5)


@given(st.integers(0, 4), st.lists(st.integers(2, 4), min_size=1, max_size=3))
def test_observations_split_into_what_they_were_made_of(length: int, prompt: list[int]) -> None:
    prompts = LAYOUT.prompts([prompt])
    responses = np.array([[2, 3, 4, 2]])
    row = LAYOUT.observations(prompts, responses, np.array([length]))
    assert LAYOUT.observation_space.contains(row[0])
    seen, written, lengths = LAYOUT.split(row)
    np.testing.assert_array_equal(seen, prompts)
    np.testing.assert_array_equal(written[0], [2, 3, 4, 2][:length] + [0] * (4 - length))
    assert lengths.tolist() == [length]
    assert seen[0][LAYOUT.prompt_mask(seen)[0]].tolist() == prompt


def test_segments_print_as_text() -> None:
    actions = np.array([[4, 2, 1, 0], [3, 3, 3, 3]])
    segments = Segments(
        actions=actions,
        mask=LAYOUT.mask(actions),
        context=LAYOUT.prompts([[2, 4], [3, 2, 2]]),
        context_id=np.arange(2),
    )
    assert LAYOUT.text(segments) == ["a c → c a", "b a a → b b b b"]
    assert LAYOUT.text(segments.to("cpu")) == LAYOUT.text(segments)
    with pytest.raises(ValueError, match=r"shape \(2, 2\) came; wanted \(batch, 3\)"):
        LAYOUT.text(segments.replace(context=np.zeros((2, 2), np.int64)))


def test_a_response_ends_with_its_first_end_or_at_the_limit() -> None:
    actions = np.array([[1, 0, 1, 2], [2, 1, 1, 1], [2, 2, 2, 1], [0, 2, 2, 2]])
    mask = LAYOUT.mask(actions)
    assert mask.sum(1).tolist() == [1, 2, 4, 4]
    LAYOUT.check_responses(actions, mask)
    for row, wrong in ((0, [1, 1, 0, 0]), (1, [1, 0, 0, 0]), (3, [1, 1, 1, 0]), (3, [0, 0, 0, 0])):
        other = mask.copy()
        other[row] = np.array(wrong, bool)
        with pytest.raises(ValueError, match=rf"Row {row} is no whole response: its tokens are"):
            LAYOUT.check_responses(actions, other)
    other = mask.copy()
    other[1] = [False, True, False, False]
    with pytest.raises(ValueError, match=r"Row 1 is no whole response"):
        LAYOUT.check_responses(actions, other)


def test_segments_from_elsewhere_are_whole_responses_to_prompts_of_the_layout() -> None:
    actions = np.array([[4, 2, 1, 0, 0], [3, 3, 3, 3, 0]])
    good = Segments(
        actions=actions,
        mask=np.arange(5) < np.array([[3], [4]]),
        context=LAYOUT.prompts([[2, 4], [3, 2, 2]]),
        context_id=np.arange(2),
    )
    LAYOUT.check_segments(good)
    LAYOUT.check_segments(good.to("cpu"))
    short = good.take(slice(1))
    LAYOUT.check_segments(short.replace(actions=actions[:1, :3], mask=np.ones((1, 3), bool)))
    for changes, sentence in (
        ({"context": np.zeros((2, 3))}, "Tokens of type float64 came"),
        ({"context": np.zeros((2, 2), int)}, r"shape \(2, 2\) came; wanted \(batch, 3\)"),
        ({"context": np.zeros((2, 3), int)}, "Prompt 0 is empty; give every prompt a token"),
        ({"context": np.full((2, 3), 5)}, "no token 5; the vocabulary has 0 to 4"),
        ({"actions": np.full((2, 5), 7)}, "no token 7; the vocabulary has 0 to 4"),
        ({"actions": np.zeros((2, 5, 1))}, r"shape \(2, 5, 1\) .* wanted \(batch, steps\)"),
        ({"mask": np.ones((2, 5), bool)}, "up to 5 tokens came; .* at most 4 tokens"),
        ({"mask": np.arange(5) < np.array([[2], [4]])}, "Row 0 is no whole response"),
    ):
        with pytest.raises(ValueError, match=sentence):
            LAYOUT.check_segments(good.replace(**changes))


def test_bad_input_is_met_with_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"Prompt 1 has 0 tokens; wanted 1 to 3, so drop it"):
        LAYOUT.prompts([[2], []])
    with pytest.raises(ValueError, match=r"Prompt 0 has 4 tokens; .* raise prompt_tokens"):
        LAYOUT.prompts([[2, 2, 2, 2]])
    with pytest.raises(ValueError, match=r"no token 5; the vocabulary has 0 to 4"):
        LAYOUT.check_responses(np.full((1, 4), 5), np.ones((1, 4), bool))
    with pytest.raises(ValueError, match=r"Tokens of type float64 came"):
        LAYOUT.check_tokens(np.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(1, 3\) .* wanted \(1, 4\) both"):
        LAYOUT.check_responses(np.zeros((1, 3), int), np.ones((1, 3), bool))
    with pytest.raises(ValueError, match=r"shape \(2, 7\) came; wanted \(batch, 8\)"):
        LAYOUT.split(np.zeros((2, 7), np.int64))
    with pytest.raises(ValueError, match=r"wanted \(1, 3\) and \(1, 4\)"):
        LAYOUT.observations(np.zeros((1, 2), int), np.zeros((1, 4), int), np.zeros(1, int))
    with pytest.raises(ValueError, match=r"Lengths from 5 to 5 came; a response has 0 to 4"):
        LAYOUT.observations(np.zeros((1, 3), int), np.zeros((1, 4), int), np.array([5]))
    with pytest.raises(ValueError, match=r"response_tokens is 0; give at least 1"):
        Layout(LETTERS, 3, 0)
