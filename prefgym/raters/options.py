"""Options of raters by name: which there are, of which kind, and one sentence where one is none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

import numpy as np

from prefgym.raters.populations import Chooser
from prefgym.raters.protocols import Rater
from prefgym.raters.scripted import ScriptedRater

_SCRIPTED: Final[Mapping[str, Any]] = {
    one.name: one.type
    for one in fields(ScriptedRater)
    if one.name not in ("statistic", "meaning", "adaptations")
}
_CROWD: Final[Mapping[str, Any]] = {
    "shares": Sequence[float] | None,
    "rule": str | Chooser,
    "people": int,
}
_MEMBERS: Final = {name: kind for name, kind in _SCRIPTED.items() if name != "rater_id"}
"""Every one of several raters has an id of its own."""
_HANDED_ON: Final[Mapping[str, Mapping[str, Any]]] = {
    "rock-paper-scissors": {**_CROWD, "mistake": float, "soft": bool},
    "two-groups": {**_CROWD, **_MEMBERS},
    "five-groups": {**_CROWD, **_MEMBERS},
    "groups": _MEMBERS,
    "experts": {name: kind for name, kind in _MEMBERS.items() if name != "mistake"},
}
"""Options that a factory hands on, and their kinds; those of :class:`ScriptedRater` elsewhere."""
_OURS: Final = ("value_source", "function", "tastes")
"""Arguments of factories that are no options of a user's."""


def checked_options(
    name: str, factory: Callable[..., Rater], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Options of a rater, of the kinds that its factory names: the shell knows 5.0, and no 5.

    Args:
        name: of the rater.
        factory: makes it; the annotations of its arguments are read.
        options: by name.

    Raises:
        ValueError: the rater has no such option, or the option is of another kind.
    """
    taken = signature(factory).parameters.values()
    kinds = {
        one.name: one.annotation
        for one in taken
        if one.kind is not Parameter.VAR_KEYWORD and one.name not in _OURS
    }
    if any(one.kind is Parameter.VAR_KEYWORD for one in taken):
        kinds = {**_HANDED_ON.get(name, _SCRIPTED), **kinds}
    unknown = [option for option in options if option not in kinds]
    if unknown:
        raise ValueError(
            f"make_rater: the rater {name!r} has no option {', '.join(map(repr, unknown))}; it "
            f"takes {', '.join(sorted(kinds))}."
        )
    return {
        option: _checked(name, option, kinds[option], value) for option, value in options.items()
    }


def _checked(name: str, option: str, kind: Any, value: Any) -> Any:
    try:
        return _as(kind, value)
    except TypeError:
        raise ValueError(
            f"make_rater: {option}={value!r} came for the rater {name!r}; give {_words(kind)}."
        ) from None


def _as(kind: Any, value: Any) -> Any:
    """A value as its annotation wants it.

    Raises:
        TypeError: it is of another kind.
    """
    choices = _choices(kind)
    if len(choices) > 1:
        fitting = (one for one in choices if _fits(one, value))
        return _as(next(fitting, NoneType), value)
    if get_origin(kind) is Sequence:
        if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
            raise TypeError
        return tuple(_as(get_args(kind)[0], one) for one in value)
    if kind in _PLAIN:
        return _PLAIN[kind](value)
    if callable(value) if get_origin(kind) is Callable else isinstance(value, _class_of(kind)):
        return value
    raise TypeError


def _fits(kind: Any, value: Any) -> bool:
    try:
        _as(kind, value)
    except TypeError:
        return False
    return True


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _class_of(kind: Any) -> type:
    known: type = object if kind in (Any, Parameter.empty) else get_origin(kind) or kind
    return known


def _flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError
    return bool(value)


def _number(value: Any) -> float:
    if value in ("inf", "-inf") and isinstance(value, str):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError
    return float(value)


def _whole(value: Any) -> int:
    if not _number(value).is_integer():
        raise TypeError
    return int(value)


_PLAIN: Final[dict[Any, Callable[[Any], Any]]] = {bool: _flag, int: _whole, float: _number}
_WORDS: Final[dict[Any, tuple[str, str]]] = {
    bool: ("true or false", "flags"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a word", "words"),
    Mapping: ("values by name", "values by name"),
    Rater: ("a rater", "raters"),
}
"""Kinds in words: one, and several."""


def _words(kind: Any, several: bool = False) -> str:
    """What to give."""
    told = []
    for one in _choices(kind):
        if get_origin(one) is Sequence:
            of = _words(get_args(one)[0], several=True)
            told.append(f"lists of {of}" if several else f"a list of {of}")
        elif get_origin(one) is Callable:
            told.append("a function")
        elif one is not NoneType:
            told.append(_WORDS[_class_of(one)][several])
    return " or ".join(dict.fromkeys(told))
