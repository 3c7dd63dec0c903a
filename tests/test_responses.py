"""The store of responses: what went in comes out, pairs share a prompt, saving is exact."""

import copy

import numpy as np
import pytest

from prefgym.responses import ResponseStore
from prefgym.text import Layout, Vocabulary

WORDS = Vocabulary(("<pad>", "<eos>", "a", "b", "c"))
LAYOUT = Layout(WORDS, prompt_tokens=2, response_tokens=4)
EVERYONE = np.arange(3)


def observations(prompts: np.ndarray) -> np.ndarray:
    count = len(prompts)
    return LAYOUT.observations(prompts, np.zeros((count, 4), np.int64), np.zeros(count, np.int64))


def filled(responses: int, seed: int = 0, capacity: int = 4_000) -> ResponseStore:
    """Random responses to three prompts, by ``extend``; rewards tell the number of the response."""
    rng = np.random.default_rng(seed)
    store = ResponseStore(LAYOUT, 3, capacity, ("length",))
    for first in range(0, responses, 3):
        context = rng.integers(3, size=3)
        store.begin(EVERYONE, observations(np.stack([context + 2, context + 2], 1)), context)
        lengths = rng.integers(1, 5, size=3)
        actions = rng.integers(2, 5, size=(3, 4)) * (np.arange(4) < lengths[:, None])
        rewards = np.zeros((3, 4))
        rewards[EVERYONE, 0] = first + EVERYONE
        store.extend(actions, lengths, rewards, lengths < 4, {"length": np.ones((3, 4))})
    return store


def test_stepping_and_extending_keep_the_same() -> None:
    whole, stepped = filled(30), ResponseStore(LAYOUT, 1, 4_000, ("length",))
    index = whole.sample(30, 4, np.random.default_rng(0))
    kept = whole.segments(index, 4)
    for row in range(len(kept)):
        one = kept.take(slice(row, row + 1))
        lane = np.zeros(1, np.int64)
        stepped.begin(lane, observations(one.context), one.context_id)
        length = int(one.lengths[0])
        for step in range(length):
            last = np.array([step == length - 1])
            stepped.append(
                lane,
                one.actions[:, step],
                one.rewards[:, step],
                observations(one.context),
                last & (length < 4),
                last & (length == 4),
                {"length": 1.0},
            )
    again = stepped.segments(stepped._index(np.arange(30)), 4)
    for name in ("actions", "mask", "context", "context_id", "rewards"):
        np.testing.assert_array_equal(getattr(again, name), getattr(kept, name))
    assert stepped.total_steps == len(stepped) == int(kept.mask.sum())
    assert stepped.any_terminated


def test_pairs_share_a_prompt_and_are_uniform_over_all_such_pairs() -> None:
    store = filled(12)
    a, b = store.sample_pairs(60_000, 4, np.random.default_rng(1))
    context = store._columns["context_id"]
    assert (context[a.episode] == context[b.episode]).all()
    assert (a.episode != b.episode).all()
    possible = [(i, j) for i in range(12) for j in range(12) if i != j and context[i] == context[j]]
    code = a.episode * 12 + b.episode
    counts = np.array([(code == i * 12 + j).sum() for i, j in possible])
    assert counts.sum() == 60_000
    expected = 60_000 / len(possible)
    chi = ((counts - expected) ** 2 / expected).sum()
    degrees = len(possible) - 1
    assert abs(chi - degrees) < 5 * np.sqrt(2 * degrees)


def test_the_ring_forgets_the_oldest_and_says_so() -> None:
    store = filled(90, capacity=40)  # ten responses
    found = store.segments(store.sample(500, 4, np.random.default_rng(0)), 4)
    assert set(found.rewards.sum(1)) == set(range(80, 90))
    lost = store.sample(1, 4, np.random.default_rng(0))._replace(episode=np.array([5]))
    with pytest.raises(ValueError, match="holds numbers 80 to 89"):
        store.segments(lost, 4)
    assert store.nbytes < 10 * 4 * 4 * 8 + 3_000


def test_recent_means_the_newest_tokens() -> None:
    store = filled(60)
    steps = store._columns["length"][:60]
    newest = np.cumsum(steps[::-1])[::-1] <= 20
    seen = store.sample(2_000, 4, np.random.default_rng(0), recent=20).episode
    assert seen.min() in (60 - newest.sum() - 1, 60 - newest.sum())


def test_saved_and_restored_stores_are_the_same() -> None:
    store = filled(30)
    store.begin(EVERYONE, observations(np.full((3, 2), 2)), np.zeros(3, np.int64))
    other = ResponseStore(LAYOUT, 3, 4_000, ("length",))
    other.restore(store.state())
    third = copy.deepcopy(store)
    for one in (other, third):
        for name, column in store.state().items():
            np.testing.assert_array_equal(one.state()[name], column)
    with pytest.raises(ValueError, match="make the environment with the arguments"):
        ResponseStore(LAYOUT, 2, 4_000, ("length",)).restore(store.state())


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    store = ResponseStore(LAYOUT, 3, 4_000)
    with pytest.raises(ValueError, match="the token 5, and the vocabulary has 5"):
        store.check_actions(np.array([1, 5]))
    with pytest.raises(ValueError, match="whole numbers"):
        store.check_actions(np.array([0.5]))
    with pytest.raises(ValueError, match="context_id"):
        store.begin(EVERYONE, observations(np.full((3, 2), 2)))
    with pytest.raises(ValueError, match="No response"):
        store.sample(1, 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="samples_per_prompt"):
        store.sample_pairs(1, 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="beginning of a response"):
        store.extend(
            np.ones((3, 4), np.int64), np.ones(3, np.int64), np.zeros((3, 4)), np.ones(3, bool), {}
        )
    with pytest.raises(ValueError, match="too few for two responses"):
        store.check_room(4, recent=7)
    assert store.distinct_pair(4, np.random.default_rng(0)) is None
