"""The entry points of every ``prefgym/`` id: a raw task, in the preference layer."""

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit

from prefgym.elicitation import Schedule
from prefgym.names import lookup
from prefgym.registration import ENVIRONMENTS, EnvironmentSpec
from prefgym.segments import Segments
from prefgym.vector import ReplayableVectorEnv
from prefgym.wrappers.captioned import CaptionedEnv, CaptionedVectorEnv, is_captioned
from prefgym.wrappers.inner import check_length, find_attribute
from prefgym.wrappers.intervention import InterventionEnv, InterventionVectorEnv
from prefgym.wrappers.personal import Personal, PersonalVectorEnv
from prefgym.wrappers.single import PreferenceEnv
from prefgym.wrappers.vector import PreferenceVectorEnv


def make(task: str, render_mode: str | None = None, **kwargs: Any) -> PreferenceEnv:
    """Entry point of every single ``prefgym/`` environment.

    Args:
        task: the name in the id.
        render_mode: passed to the raw environment.
        **kwargs: arguments of :class:`PreferenceEnv`; ``personal`` plays every episode for one of
            so many people (:class:`~prefgym.wrappers.personal.Personal`), ``supervision`` lets
            somebody watch and take over (:class:`~prefgym.wrappers.InterventionEnv`); all others go
            to the raw environment.
    """
    spec, ours, theirs = _sorted_arguments(task, kwargs)
    check_length(ours["segment_steps"], spec.id, spec.max_episode_steps)
    people = theirs.pop("personal", None)
    supervision = theirs.pop("supervision", None)
    env = _named(_personal(_raw(spec, render_mode, theirs), people), spec)
    if is_captioned(env):
        env = CaptionedEnv(env)
    if supervision is not None:
        env = InterventionEnv(env, supervision)
    return PreferenceEnv(env, **_fitting(env, ours, kwargs))


def make_vector(
    task: str,
    num_envs: int = 1,
    max_episode_steps: int | None = None,
    autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    render_mode: str | None = None,
    **kwargs: Any,
) -> PreferenceVectorEnv:
    """Entry point of every vector ``prefgym/`` environment; one rater looks at all lanes.

    Args:
        task: the name in the id.
        num_envs: lanes.
        max_episode_steps: time limit; the id's own by default.
        autoreset_mode: SAME_STEP by default, which is what Stable-Baselines3 needs.
        render_mode: passed to the raw environments.
        **kwargs: arguments of :class:`PreferenceVectorEnv`, ``personal`` and ``supervision``, as in
            :func:`make`; others go to the raw environment.
    """
    spec, ours, theirs = _sorted_arguments(task, kwargs)
    limit = spec.max_episode_steps if max_episode_steps is None else max_episode_steps
    check_length(ours["segment_steps"], spec.id, limit)
    mode = AutoresetMode(autoreset_mode)
    people, supervision = theirs.pop("personal", None), theirs.pop("supervision", None)
    if spec.batched:
        inner = import_module(spec.module).raw_vector(
            num_envs,
            max_episode_steps=limit,
            autoreset_mode=mode,
            render_mode=render_mode,
            **theirs,
        )
        if people is not None:
            inner = PersonalVectorEnv(inner, people)
    else:
        inner = ReplayableVectorEnv(
            [lambda: _limited(_personal(_raw(spec, render_mode, theirs), people), limit)]
            * num_envs,
            mode,
        )
    inner = _named(inner, spec)
    if is_captioned(inner):
        inner = CaptionedVectorEnv(inner)
    if supervision is not None:
        inner = InterventionVectorEnv(inner, supervision)
    return PreferenceVectorEnv(inner, **_fitting(inner, ours, kwargs))


def _named(env: Any, spec: EnvironmentSpec) -> Any:
    """Messages shall name the id, which Gymnasium tells an environment only when all is made."""
    env.unwrapped.prefgym_id = spec.id
    return env


def _limited(env: gym.Env[Any, Any], limit: int | None) -> gym.Env[Any, Any]:
    return env if limit is None else TimeLimit(env, limit)


def _personal(env: gym.Env[Any, Any], people: int | None) -> gym.Env[Any, Any]:
    return env if people is None else Personal(env, people)


def _raw(
    spec: EnvironmentSpec, render_mode: str | None, arguments: Mapping[str, Any]
) -> gym.Env[Any, Any]:
    shown = {} if render_mode is None else {"render_mode": render_mode}
    try:
        env: gym.Env[Any, Any] = import_module(spec.module).raw(**shown, **arguments)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(
            f"{spec.id} does not take all of the arguments {', '.join(arguments)} ({error}). The"
            f" preference layer takes {', '.join(sorted(_OURS))}; arguments of a rater go into"
            " rater_kwargs={...}."
        ) from error
    return env


_OURS = {one.name for one in fields(Schedule)} | {
    "rater",
    "rater_kwargs",
    "capacity",
    "directory",
    "value_source",
}


def _sorted_arguments(
    task: str, kwargs: Mapping[str, Any]
) -> tuple[EnvironmentSpec, dict[str, Any], dict[str, Any]]:
    """The task, and which arguments belong to the preference layer and which to the raw task."""
    spec = lookup(f"prefgym/{task}-v0", ENVIRONMENTS, "environment")
    missing = [f"{name}=" for name in spec.needs if name not in kwargs]
    if missing:
        raise ValueError(
            f"{spec.id} has no default for {' and '.join(missing)}; give what it shall be made of."
        )
    defaults: dict[str, Any] = {
        "rater": spec.rater,
        "segment_steps": spec.segment_steps,
        "query_every": spec.query_every,
    }
    if spec.rater is None:
        defaults |= _unrated(spec, kwargs)
    ours = {**defaults, **{k: v for k, v in kwargs.items() if k in _OURS}}
    return spec, ours, {**spec.kwargs, **{k: v for k, v in kwargs.items() if k not in _OURS}}


REWARDLESS = (
    "random",
    "cyclic",
    "rock-paper-scissors",
    "matrix",
    "distance-and-sector",
    "low-then-high",
)
"""Raters that never read a reward."""


def _unrated(spec: EnvironmentSpec, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults where no true reward is known: no question, unless there is somebody to ask."""
    rater = kwargs.get("rater")
    if isinstance(rater, str) and rater not in REWARDLESS:
        raise ValueError(
            f"The rater {rater!r} reads the true reward, which {spec.id} does not know; give"
            " rater= a function of two batches of segments that returns P(first ≻ second)."
        )
    return {} if rater is not None else {"rater": _nobody, "query_every": None}


def _nobody(a: Segments, b: Segments) -> Any:
    raise ValueError(
        "There is nobody to ask: this environment knows no true reward, and was made without"
        " rater=; give a function of two batches of segments that returns P(first ≻ second)."
    )


def _fitting(env: Any, ours: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Where text is written, segments are as long as the longest response, unless told otherwise.

    How long that is may follow from the task's own arguments.
    """
    layout = find_attribute(env, "layout")
    if layout is None or "segment_steps" in given:
        return dict(ours)
    return {**ours, "segment_steps": layout.response_tokens}
