"""What a preference layer reads of the environment below it: a store, a rater, limits that fit."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from os import PathLike
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from prefgym.critic_files import CriticFile, as_value_source
from prefgym.names import lookup
from prefgym.raters import RATERS, ProbabilityRater, Rater, make_rater, populations
from prefgym.raters.defaults import Surroundings, default_options
from prefgym.raters.options import checked_options
from prefgym.raters.scores import OwnValues, ValueSource
from prefgym.registration import ENVIRONMENTS
from prefgym.responses import ResponseStore
from prefgym.segments import Segments
from prefgym.showing import Showing
from prefgym.store import EpisodeStore
from prefgym.vector import ReplayableVectorEnv
from prefgym.wrappers.notes import of_the_task

GAME, GROUPS = "game", "groups"
"""Raters that the environment itself defines."""
PANEL, PANEL_MEMBER = "panel", "mistake"
"""Who votes on a panel unless told otherwise."""
CAPACITY = 1_000_000
"""Steps that a preference environment remembers, over all its lanes, unless told otherwise."""


def find_attribute(env: Any, name: str) -> Any:
    """An attribute of the outermost layer that has it; None where none does.

    Gymnasium's vector environments lack ``get_wrapper_attr``. The lanes of a vector environment
    are alike, so the first one speaks for all, where it lives in this process.
    """
    return next((getattr(one, name) for one in _layers(env) if hasattr(one, name)), None)


def _layers(env: Any) -> Iterator[Any]:
    """The environment and what is below it, from the outermost layer on."""
    layer = env
    while layer is not None:
        yield layer
        layer = _inner(layer)


def name_of(env: Any) -> str:
    """What an environment is called in messages: its id where it has one, else its class."""
    told = find_attribute(env, "prefgym_id")
    if told is not None:
        return str(told)
    layers = list(_layers(env))
    spec = next((one.spec for one in layers if getattr(one, "spec", None) is not None), None)
    return type(layers[-1]).__name__ if spec is None else str(spec.id)


def _inner(layer: Any) -> Any:
    if isinstance(layer, ReplayableVectorEnv | SyncVectorEnv):
        return layer.envs[0]
    return layer.env if isinstance(layer, gym.Wrapper | gym.vector.VectorWrapper) else None


def chosen_rater(
    env: Any,
    rater: str | Rater | Callable[..., Any],
    value_source: Callable[..., Any] | str | PathLike[str] | None,
    options: Mapping[str, Any] | None,
) -> Rater:
    """The rater that is meant, looking at what this environment shows.

    "game" is the preference that the environment itself defines, "groups" are the tastes that it
    names.
    """
    given = dict(options or {})
    if rater == GAME:
        preference = find_attribute(env, "preference")
        if preference is None:
            raise ValueError(
                f"The rater {GAME!r} is for environments that define a preference of their own"
                f" (prefgym/Condorcet-v0, prefgym/TextCycle-v0), and {name_of(env)} defines none;"
                " choose another rater."
            )
        given = checked_options(GAME, ProbabilityRater, given)
        return ProbabilityRater(partial(_first_choices, preference), **{"meaning": GAME, **given})
    if rater == GROUPS:
        tastes = find_attribute(env, "groups")
        if tastes is None:
            raise ValueError(
                f"The rater {GROUPS!r} is for environments that name groups of raters"
                f" (prefgym/TextStyle-v0), and {name_of(env)} names none; choose another rater."
            )
        shares = find_attribute(env, "group_shares")
        given = checked_options(GROUPS, populations.groups, given)
        return populations.groups(tastes, **{"shares": shares, **given})
    if isinstance(rater, str):
        lookup(rater, RATERS | dict.fromkeys((GAME, GROUPS)), "rater")
        given = checked_options(rater, RATERS[rater], given)
        given = {**default_options(rater, surroundings(env), given), **given}
    if rater == PANEL:
        asked = given.pop("member", None) or PANEL_MEMBER
        given["member"] = chosen_rater(env, asked, value_source, given.pop("member_kwargs", None))
    values = _values(env, value_source)
    if "regret" in (rater, given.get("of")) and values is None:
        raise ValueError(_without_values(env))
    return make_rater(rater, values, **given)


def surroundings(env: Any) -> Surroundings:
    """What raters by name can look at in an environment, single or vectorised.

    Where episodes are played for somebody: in the task itself, so that raters look at the same
    things whoever is served.
    """
    showing: Showing | None = find_attribute(env, "showing")
    seen, acted = (
        getattr(env, f"single_{space}", getattr(env, space))
        for space in ("observation_space", "action_space")
    )
    if showing is not None:
        seen = showing.task
    layout = find_attribute(env, "layout")
    vector = isinstance(seen, spaces.Box) and layout is None
    return Surroundings(
        name=name_of(env),
        classes=tuple(
            one.__name__.removesuffix("Env") for layer in _layers(env) for one in type(layer).mro()
        ),
        factors=of_the_task(find_attribute(env, "factor_names") or ()),
        columns=math.prod(seen.shape) if vector else 0,
        choices=int(acted.n) if isinstance(acted, spaces.Discrete) else 0,
        text=layout is not None,
        single_step=isinstance(seen, spaces.Discrete) and int(seen.n) == 1,
        ends=find_attribute(env, "ends"),
    )


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


def _values(env: Any, given: Callable[..., Any] | str | PathLike[str] | None) -> Any:
    """The value source that was given, asked about what the task shows; else the task's own."""
    source, showing = as_value_source(given), find_attribute(env, "showing")
    if source is None:
        return _own_values(env)
    if isinstance(source, CriticFile):
        source.check(name_of(env), surroundings(env).columns, _action_size(env))
    return source if showing is None else showing.values_of(source)


def _without_values(env: Any) -> str:
    """Why nobody can judge by regret in an environment, and what can be done about it."""
    name, task = name_of(env), list(_layers(env))[-1]
    changed = hasattr(task, "advantages")
    why = "knows advantages with its default arguments only" if changed else "does not solve itself"
    trained = name in ENVIRONMENTS and _action_size(env) > 0 and not changed
    source = (
        f"train a critic by `prefgym oracle train --env {name} --out FILE` and give"
        " value_source=FILE"
        if trained
        else "give value_source= a function of observations and actions"
    )
    return (
        f"The rater 'regret' needs a value source, and {name} {why}; {source}, or choose another"
        " rater."
    )


def _action_size(env: Any) -> int:
    """Numbers in an action; 0 where actions are not continuous."""
    acted = getattr(env, "single_action_space", env.action_space)
    return math.prod(acted.shape) if isinstance(acted, spaces.Box) else 0


def _own_values(env: Any) -> ValueSource | None:
    """The advantages, and values of states, that an environment knows."""
    advantages = find_attribute(env, "advantages")
    values = find_attribute(env, "state_values")
    if advantages is None or values is None:
        known: ValueSource | None = advantages
        return known
    return OwnValues(advantages, values)


def limit(env: Any) -> tuple[str, int | None]:
    """The id of an environment, and after how many steps its episodes end, where that is known."""
    spec = env.spec
    if spec is None:
        return name_of(env), None
    return spec.id, spec.kwargs.get("max_episode_steps", spec.max_episode_steps)


def check_length(segment_steps: Any, name: str, limit: int | None) -> None:
    """Refuse segments that no episode can hold."""
    if limit is not None and isinstance(segment_steps, int) and 0 < limit < segment_steps:
        raise ValueError(
            f"segment_steps={segment_steps} is longer than an episode of {name}, which has at most"
            f" {limit} steps; choose shorter segments."
        )
