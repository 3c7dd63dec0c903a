"""Whether segments belong to the spaces of an environment."""

from typing import Any

import gymnasium as gym
import numpy as np

from prefgym.segments import Segments


def check_steps(
    segments: Segments, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> None:
    """Refuse segments whose steps are none of an environment with these spaces.

    Boxes are checked by shape and for NaN and infinity, not by bounds, which rounding may pass.

    Args:
        segments: whatever they hold.
        observation_space: of one environment.
        action_space: of one environment.

    Raises:
        ValueError: they hold no observations, or a step has another shape or lies outside.
    """
    plain = segments.numpy()
    if plain.observations is None:
        raise ValueError(
            "the segments hold no observations (are they text?), and the environment shows some of"
            f" shape {observation_space.shape}."
        )
    for name, values, space in (
        ("observation", plain.observations, observation_space),
        ("action", plain.actions, action_space),
    ):
        if values.shape[2:] != space.shape:
            raise ValueError(
                f"an {name} of the segments has shape {values.shape[2:]}, and one of the"
                f" environment {space.shape}."
            )
        _check_values(name, values[plain.mask], space)


def _check_values(name: str, values: np.ndarray, space: gym.Space[Any]) -> None:
    """Refuse steps ``[steps, *shape]`` that are NaN, infinite, or outside a space of integers."""
    bounds = _bounds(space)
    if bounds is not None and values.dtype.kind not in "biu":
        raise ValueError(f"the {name}s of the segments are {values.dtype}; wanted {space}.")
    if bounds is None:
        outside, wanted = ~np.isfinite(values), "finite numbers"
    else:
        outside, wanted = (values < bounds[0]) | (values > bounds[1]), str(space)
    if outside.any():
        raise ValueError(f"an {name} of the segments is {values[outside][0]}; wanted {wanted}.")


def _bounds(space: gym.Space[Any]) -> tuple[Any, Any] | None:
    """Least and greatest numbers of a space of integers; None for others."""
    if isinstance(space, gym.spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, gym.spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    return (0, 1) if isinstance(space, gym.spaces.MultiBinary) else None
