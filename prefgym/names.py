"""Look a name up in a table, and tell the nearest names when it is not there."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

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
