"""What comes bit by bit, handed on in handfuls."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def together(stream: Iterable[T], every_s: float = 0.5) -> Iterator[list[T]]:
    """What comes, in lists that are at least so many seconds apart, the last one excepted.

    What came before an exception is handed on before it is raised.
    """
    some: list[T] = []
    told = time.monotonic()
    try:
        for one in stream:
            some.append(one)
            if time.monotonic() - told >= every_s:
                yield some
                some, told = [], time.monotonic()
    except Exception:
        if some:
            yield some
        raise
    if some:
        yield some
