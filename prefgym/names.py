"""Look a name up in a table, and tell the nearest names when it is not there."""

from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar

T = TypeVar("T")


def lookup(name: str, table: Mapping[str, T], what: str) -> T:
    """The entry of ``table`` called ``name``.

    Args:
        name: what the user wrote.
        table: everything there is.
        what: what the table holds, for the message ("rater", "environment").

    Raises:
        ValueError: nothing has that name; the message lists the nearest names first.
    """
    if name in table:
        return table[name]
    near = get_close_matches(name, table, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(repr(one) for one in near)}?" if near else "."
    raise ValueError(f"Unknown {what} {name!r}{hint} There are: {', '.join(sorted(table))}.")


def settings_of(
    config: Any, changes: Mapping[str, Any], what: str, presets: Mapping[str, Any] | None = None
) -> Any:
    """Settings as a user gives them: a dataclass or the name of a preset, and what differs.

    Args:
        config: the dataclass's instance, or a key of ``presets``.
        changes: single settings by name.
        what: whose settings they are, for the message.
        presets: instances by name.

    Raises:
        ValueError: there is no such preset or setting.
    """
    chosen = lookup(config, presets or {}, "preset") if isinstance(config, str) else config
    known = {one.name: one for one in fields(chosen)}
    for name in changes:
        lookup(name, known, f"setting of {what}")
    return replace(chosen, **changes)
