"""A user's own model or rater, by ``module:name``: imported where it is used.

A model is one of three things:

- ``name(observation_space, action_space, seed)``, which makes a preference model;
- ``name(members, reads, generator)``, which makes a head for our ensembles;
- a ``prefgym.models.presets.Preset``, which says the loss, too.

A rater is a ``Rater``, or a function (a, b) -> P(a ≻ b) or (a, b, rng) -> Labels.
"""

import hashlib
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from prefgym.models.presets import Preset
from prefgym.raters import Rater, make_rater
from prefgym_agents.imported import imported

MODEL_ARGUMENTS = ("observation_space", "action_space", "seed")
HEAD_ARGUMENTS = ("members", "reads", "generator")


class OwnModel(NamedTuple):
    """What was found under a name: a published one's like, or what makes a whole model."""

    preset: Preset
    make: Callable[..., Any] | None
    """(observation_space, action_space, seed) -> model; None where ``preset`` has a head."""


def is_own(name: str) -> bool:
    """Whether a name is one of a user's own, ``module:name``."""
    return ":" in name


def own_model(name: str) -> OwnModel:
    """The model of a user's own.

    Raises:
        ValueError: it does not import, or is none of the three things that a model may be.
    """
    found = imported(name, "model")
    if isinstance(found, Preset):
        return OwnModel(found, None)
    taken = _arguments(found)
    if taken == HEAD_ARGUMENTS:
        return OwnModel(Preset(name, lambda asked: found), None)
    if taken == MODEL_ARGUMENTS:
        return OwnModel(Preset(name, lambda asked: found), found)
    raise ValueError(
        f"The model {name} takes {', '.join(taken) or 'no arguments'}; write a function of"
        f" ({', '.join(MODEL_ARGUMENTS)}) that makes a preference model, one of"
        f" ({', '.join(HEAD_ARGUMENTS)}) that makes a head, or a prefgym.models.presets.Preset."
    )


def own_rater(name: str) -> Rater:
    """The rater of a user's own.

    Raises:
        ValueError: it does not import, or cannot answer.
    """
    found = imported(name, "rater")
    if not isinstance(found, Rater) and not callable(found):
        raise ValueError(
            f"The rater {name} is a {type(found).__name__}; write a function (a, b) -> P(a ≻ b) or"
            " (a, b, rng) -> Labels, or a prefgym.raters.Rater."
        )
    return make_rater(found)


def digest(name: str) -> str:
    """Of the file of the module that ``module:name`` names; what that imports is not looked at.

    Raises:
        ValueError: there is no such thing.
    """
    imported(name, "part")
    source = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    return "" if source is None else hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]


def _arguments(found: Any) -> tuple[str, ...]:
    try:
        return tuple(signature(found).parameters)
    except (TypeError, ValueError):  # nothing that can be called, or a built-in that does not tell
        return ()
