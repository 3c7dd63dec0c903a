"""Segments from elsewhere: those that an environment could have made pass, others do not."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from prefgym.segments import Segments
from prefgym.spaces import check_steps

BOX = gym.spaces.Box(-1.0, 1.0, (3,))
FOUR = gym.spaces.Discrete(4, start=1)


def steps(observations: Any, actions: Any) -> Segments:
    """One segment of two steps, of which the second is padding."""
    observations, actions = (np.asarray(one)[None] for one in (observations, actions))
    return Segments(
        actions=actions,
        mask=np.array([[True, False]]),
        context=observations[:, 0],
        context_id=np.zeros(1, np.int64),
        observations=observations,
    )


@pytest.mark.parametrize(
    "space",
    [BOX, FOUR, gym.spaces.MultiDiscrete([2, 5], start=[0, -3]), gym.spaces.MultiBinary(4)],
)
def test_what_a_space_holds_passes_and_padding_is_not_looked_at(space: Any) -> None:
    space.seed(0)
    for _ in range(20):
        inside = np.stack([space.sample(), np.full_like(space.sample(), 99)])
        check_steps(steps(inside, inside), space, space)
        with pytest.raises(ValueError, match="an observation of the segments has shape"):
            check_steps(steps(inside[..., None], inside), space, space)


def test_boxes_have_no_bounds_here() -> None:
    check_steps(steps(np.full((2, 3), 1.0 + 1e-6), [1, 0]), BOX, FOUR)


@pytest.mark.parametrize(
    ("observations", "actions", "sentence"),
    [
        (np.zeros((2, 4)), [1, 0], r"observation .* has shape \(4,\), .* environment \(3,\)"),
        (np.zeros((2, 3)), np.zeros((2, 1)), r"action of the segments has shape \(1,\)"),
        (np.full((2, 3), np.nan), [1, 0], "observation of the segments is nan; wanted finite"),
        (np.zeros((2, 3)), [5, 0], r"an action of the segments is 5; wanted Discrete\(4, start=1"),
        (np.zeros((2, 3)), [0, 1], r"an action of the segments is 0; wanted Discrete"),
        (np.zeros((2, 3)), [1.5, 0.0], "actions of the segments are float64; wanted Discrete"),
    ],
)
def test_what_it_does_not_hold_is_named(observations: Any, actions: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_steps(steps(observations, actions), BOX, FOUR)


def test_text_has_no_observations() -> None:
    text = steps(np.zeros((2, 3)), [1, 0]).replace(observations=None)
    with pytest.raises(ValueError, match=r"no observations .* shows some of shape \(3,\)"):
        check_steps(text, BOX, FOUR)
