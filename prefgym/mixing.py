"""Numbers stirred so that neighbours end far apart: chance that needs no generator's state."""

import numpy as np


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Every uint64 as another one; equal numbers give equal ones.

    Source: the finaliser of splitmix64, Steele et al. (2014), "Fast splittable pseudorandom number
    generators".
    """
    z = numbers + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    stirred: np.ndarray = z ^ (z >> np.uint64(31))
    return stirred
