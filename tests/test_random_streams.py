"""The random streams: the published generator, independent lanes, uniform numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prefgym_envs import random_streams


def test_the_first_words_are_those_of_the_published_splitmix64() -> None:
    words, stream = [], 1234567
    for _ in range(3):
        stream, number = random_streams.draw(stream)
        words.append(int(number * 2**53))
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert words == [word >> 11 for word in published]


@given(seeds=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5))
def test_a_lane_draws_what_its_seed_alone_draws(seeds: list[int]) -> None:
    lanes = random_streams.seeded(np.array(seeds, np.uint64))
    alone = [random_streams.seeded(seed) for seed in seeds]
    for _ in range(3):
        lanes, numbers = random_streams.draw(lanes)
        alone, expected = zip(*map(random_streams.draw, alone), strict=True)
        assert numbers.tolist() == list(expected)


def test_consecutive_seeds_give_independent_uniform_numbers() -> None:
    lanes = random_streams.seeded(np.arange(20_000, dtype=np.uint64))
    lanes, first = random_streams.draw(lanes)
    _, second = random_streams.draw(lanes)
    for numbers in (first, second):
        counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square, 19 degrees, p = .001
    for left, right in ((first, second), (first[:-1], first[1:])):
        assert abs(np.corrcoef(left, right)[0, 1]) < 3 / np.sqrt(20_000)
