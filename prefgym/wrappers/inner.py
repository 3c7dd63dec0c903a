"""What a preference layer reads of the environment below it: a store, a rater, limits that fit."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from prefgym.names import lookup
from prefgym.raters import RATERS, ProbabilityRater, Rater, make_rater, populations
from prefgym.raters.defaults import Surroundings, default_options
from prefgym.raters.scores import ValueSource
from prefgym.responses import ResponseStore
from prefgym.segments import Segments
from prefgym.store import EpisodeStore
from prefgym.vector import ReplayableVectorEnv
from prefgym.wrappers.personal import PERSON, Personal

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
                f" (prefgym/Condorcet-v0, prefgym/TextCycle-v0); {env} does not. Choose another"
                " rater."
            )
        return ProbabilityRater(partial(_first_choices, preference), **{"meaning": GAME, **given})
    if rater == GROUPS:
        tastes = find_attribute(env, "groups")
        if tastes is None:
            raise ValueError(
                f"The rater {GROUPS!r} is for environments that name groups of raters"
                f" (prefgym/TextStyle-v0); {env} does not. Choose another rater."
            )
        shares = find_attribute(env, "group_shares")
        return populations.groups(tastes, **{"shares": shares, **given})
    if isinstance(rater, str):
        lookup(rater, RATERS | dict.fromkeys((GAME, GROUPS)), "rater")
        given = {**default_options(rater, surroundings(env), given), **given}
    if rater == PANEL:
        asked = given.pop("member", None) or PANEL_MEMBER
        given["member"] = chosen_rater(env, asked, value_source, given.pop("member_kwargs", None))
    personal = _personal(env)
    values = value_source if personal is None else personal.values_of(value_source)
    values = _own_values(env) if values is None else values
    if "regret" in (rater, given.get("of")) and values is None:
        raise ValueError(
            f"The rater 'regret' needs a value source, and {env} does not solve itself; pass"
            " value_source= (for example a prefgym.values.Critic), or choose another rater."
        )
    return make_rater(rater, values, **given)


def surroundings(env: Any) -> Surroundings:
    """What raters by name can look at in an environment, single or vectorised.

    Where episodes are played for somebody: in the task itself, so that raters look at the same
    things whoever is served.
    """
    personal = _personal(env)
    seen, acted = (
        getattr(env, f"single_{space}", getattr(env, space))
        for space in ("observation_space", "action_space")
    )
    if personal is not None:
        seen = personal.env.observation_space
    layout = find_attribute(env, "layout")
    vector = isinstance(seen, spaces.Box) and layout is None
    return Surroundings(
        name=str(env),
        classes=tuple(
            one.__name__.removesuffix("Env") for layer in _layers(env) for one in type(layer).mro()
        ),
        factors=tuple(one for one in find_attribute(env, "factor_names") or () if one != PERSON),
        columns=math.prod(seen.shape) if vector else 0,
        choices=int(acted.n) if isinstance(acted, spaces.Discrete) else 0,
        text=layout is not None,
        single_step=isinstance(seen, spaces.Discrete) and int(seen.n) == 1,
        ends=find_attribute(env, "ends"),
    )


def _personal(env: Any) -> Personal | None:
    """The layer that plays episodes for somebody, where there is one."""
    return next((layer for layer in _layers(env) if isinstance(layer, Personal)), None)


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


def _own_values(env: Any) -> ValueSource | None:
    """The exact advantages, and values of states, of environments that solve themselves."""
    advantages = find_attribute(env, "advantages")
    values = find_attribute(env, "state_values")
    if advantages is None or values is None:
        known: ValueSource | None = advantages
        return known
    return _OwnValues(advantages, values)


@dataclass(frozen=True)
class _OwnValues:
    """What an environment that solves itself knows, as one value source."""

    advantages: ValueSource
    values: Callable[[np.ndarray], np.ndarray]

    def __call__(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """A*(s, a) of some steps."""
        return self.advantages(observations, actions)

    def state_values(self, observations: np.ndarray) -> np.ndarray:
        """V*(s) of some states."""
        return self.values(observations)


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
