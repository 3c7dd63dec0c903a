"""Environments that say in words what changed: segments carry the captions' numbers."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from prefgym.captions import CAPTION, NOTHING, Captions
from prefgym.wrappers.inner import find_attribute, name_of


def is_captioned(env: Any) -> bool:
    """Whether an environment, single or vectorised, says in words what changed.

    It names what it can say, ``possible_captions``: a tuple of texts, empty where they are too many
    to be listed; None or nothing where it says nothing.
    """
    return find_attribute(env, "possible_captions") is not None


class CaptionedEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Give every caption a number, and add it to the factors of the step.

    ``info["caption"]`` is the environment's own text; ``info["factors"]["caption"]`` its number in
    ``captions``. Segments carry the number: ``captions.texts(segments.factors["caption"][0])``.

    Args:
        env: one that writes ``info["caption"]`` at every step.

    Raises:
        ValueError: the environment writes no captions.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.captions = _table(env)
        self.factor_names = _with_caption(env)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """A step of the environment, its caption numbered."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        text = info.get(CAPTION, NOTHING)
        factors = {**info.get("factors", {}), CAPTION: float(self.captions.number([text])[0])}
        info = {**info, CAPTION: text, "factors": factors}
        return observation, reward, terminated, truncated, info


class CaptionedVectorEnv(gym.vector.VectorWrapper):
    """:class:`CaptionedEnv` for all lanes at once, with one table for all of them.

    ``infos["caption"]`` is an array of texts, ``[lanes]``, of the step just made, in ended lanes
    too and ``""`` in lanes that made none. Where lanes end under "SameStep",
    ``infos["final_info"]`` holds caption and factors as well.

    Args: as :class:`CaptionedEnv`.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self.captions = _table(env)
        self.factor_names = _with_caption(env)
        mode = AutoresetMode(env.metadata.get("autoreset_mode", "NextStep"))
        self._same_step = mode == AutoresetMode.SAME_STEP

    def step(self, actions: Any) -> tuple[Any, Any, np.ndarray, np.ndarray, dict[str, Any]]:
        """A step in every lane, its caption numbered."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        texts = infos.get(CAPTION)
        if texts is None:
            texts = np.full(self.num_envs, NOTHING, object)
        told = {CAPTION: self.captions.number(texts).astype(np.float64)}
        infos = {**infos, CAPTION: texts, "factors": {**infos.get("factors", {}), **told}}
        ended = terminated | truncated
        if self._same_step and np.count_nonzero(ended):
            last = infos.get("final_info", {"factors": infos["factors"]})
            factors = {**last.get("factors", {}), **told}
            infos["final_info"] = {**last, CAPTION: texts.copy(), "factors": factors}
            infos["_final_info"] = ended.copy()
        return observations, rewards, terminated, truncated, infos

    def get_state(self) -> dict[str, Any]:
        """What this layer alone remembers: which numbers the captions have."""
        return self.captions.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`get_state`."""
        self.captions.set_state(state)


def _table(env: Any) -> Captions:
    if not is_captioned(env):
        raise ValueError(
            f"{name_of(env)} writes no captions; choose an environment that does, such as"
            " prefgym/DoorKey-8x8-v0."
        )
    return Captions(find_attribute(env, "possible_captions"))


def _with_caption(env: Any) -> tuple[str, ...]:
    named = tuple(find_attribute(env, "factor_names") or ())
    return (*(one for one in named if one != CAPTION), CAPTION)
