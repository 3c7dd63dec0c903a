"""What a preference layer reads of the environment below it: a store, a rater, limits that fit."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import SyncVectorEnv

from prefgym.names import lookup
from prefgym.raters import RATERS, ProbabilityRater, Rater, make_rater, populations
from prefgym.responses import ResponseStore
from prefgym.segments import Segments
from prefgym.store import EpisodeStore
from prefgym.vector import ReplayableVectorEnv

GAME, GROUPS = "game", "groups"
"""Raters that the environment itself defines."""
CAPACITY = 1_000_000
"""Steps that a preference environment remembers, over all its lanes, unless told otherwise."""


def find_attribute(env: Any, name: str) -> Any:
    """An attribute of the outermost layer that has it; None where none does.

    Gymnasium's vector environments lack ``get_wrapper_attr``. The lanes of a vector environment
    are alike, so the first one speaks for all, where it lives in this process.
    """
    layer = env
    while layer is not None:
        if hasattr(layer, name):
            return getattr(layer, name)
        layer = _inner(layer)
    return None


def _inner(layer: Any) -> Any:
    if isinstance(layer, ReplayableVectorEnv | SyncVectorEnv):
        return layer.envs[0]
    return layer.env if isinstance(layer, gym.Wrapper | gym.vector.VectorWrapper) else None


def chosen_rater(
    env: Any,
    rater: str | Rater | Callable[..., Any],
    value_source: Callable[..., Any] | None,
    options: Mapping[str, Any] | None,
) -> Rater:
    """The rater that is meant; "game" is the preference that the environment itself defines."""
    if rater == GAME:
        preference = find_attribute(env, "preference")
        if preference is None:
            raise ValueError(
                f"The rater {GAME!r} is for environments that define a preference of their own"
                f" (prefgym/Condorcet-v0); {env} does not. Choose another rater."
            )
        rater, options = partial(_first_choices, preference), {"meaning": GAME, **(options or {})}
        return ProbabilityRater(rater, **options)
    if rater == GROUPS:
        tastes = find_attribute(env, "groups")
        if tastes is None:
            raise ValueError(
                f"The rater {GROUPS!r} is for environments that name groups of raters"
                f" (prefgym/TextStyle-v0); {env} does not. Choose another rater."
            )
        shares = find_attribute(env, "group_shares")
        return populations.groups(tastes, **{"shares": shares, **(options or {})})
    if isinstance(rater, str):
        lookup(rater, RATERS | dict.fromkeys((GAME, GROUPS)), "rater")
    values = value_source or _own_values(env)
    if rater == "regret" and values is None:
        raise ValueError(
            f"The rater 'regret' needs a value source, and {env} does not solve itself; pass"
            " value_source= (for example a prefgym.values.Critic), or choose another rater."
        )
    return make_rater(rater, values, **(options or {}))


def _first_choices(preference: Callable[..., Any], a: Segments, b: Segments) -> Any:
    return preference(a.actions[:, 0], b.actions[:, 0])


def fitting_store(
    env: Any,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    lanes: int,
    capacity: int,
) -> EpisodeStore | ResponseStore:
    """Whole responses where the environment writes text, steps with observations elsewhere."""
    names = tuple(find_attribute(env, "factor_names") or ())
    layout = find_attribute(env, "layout")
    if layout is not None:
        return ResponseStore(layout, lanes, capacity, names)
    rows = capacity if lanes == 1 else max(2, capacity // lanes)
    return EpisodeStore(observation_space, action_space, lanes, rows, names)


def _own_values(env: Any) -> Callable[..., Any] | None:
    """The exact advantages of environments that solve themselves."""
    found: Callable[..., Any] | None = find_attribute(env, "advantages")
    return found


def limit(env: Any) -> tuple[str, int | None]:
    """The id of an environment, and after how many steps its episodes end, where that is known."""
    spec = env.spec
    if spec is None:
        return str(env), None
    return spec.id, spec.kwargs.get("max_episode_steps", spec.max_episode_steps)


def check_length(segment_steps: Any, name: str, limit: int | None) -> None:
    """Refuse segments that no episode can hold."""
    if limit is not None and isinstance(segment_steps, int) and 0 < limit < segment_steps:
        raise ValueError(
            f"segment_steps={segment_steps} is longer than an episode of {name}, which has at most"
            f" {limit} steps; choose shorter segments."
        )
