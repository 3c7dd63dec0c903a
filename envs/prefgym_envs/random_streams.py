"""Random numbers with one independent stream per lane, drawn for many lanes in one computation.

A stream is a single 64-bit number, so that a vector environment saves and restores its randomness
as one array, and lane ``i`` of a vector environment seeded with ``s`` draws what a single
environment seeded with ``s + i`` draws, whatever the other lanes do.

Source: SplitMix64 of Steele, Lea and Flood (2014), Fast splittable pseudorandom number generators.
"""

from typing import TypeVar, overload

import numpy as np

Stream = TypeVar("Stream", int, np.ndarray)
"""One stream as a Python integer, or many as an array of uint64."""

_WORD = 0xFFFFFFFFFFFFFFFF
_STEP = 0x9E3779B97F4A7C15


def seeded(seed: Stream) -> Stream:
    """The stream that belongs to a seed; seeds are taken modulo 2**64.

    Example:
        >>> stream, number = draw(seeded(7))
        >>> round(number, 6)
        0.524346
    """
    return _mixed(seed & _WORD)


@overload
def draw(stream: int) -> tuple[int, float]: ...
@overload
def draw(stream: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...
def draw(stream: Stream) -> tuple[Stream, float | np.ndarray]:
    """Advance a stream, and draw a number from the uniform distribution on [0, 1).

    Returns:
        The advanced stream and the number; arrays of both when an array of streams came in.
    """
    advanced = (stream + _STEP) & _WORD
    return advanced, (_mixed(advanced) >> 11) * 2.0**-53


def _mixed(word: Stream) -> Stream:
    """SplitMix64's finaliser: a bijection in which every bit depends on every other."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    mixed: Stream = word ^ (word >> 31)
    return mixed
