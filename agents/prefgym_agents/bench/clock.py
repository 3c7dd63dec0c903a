"""How much of the time is spent in tensor operations.

Counted is the wall-clock time inside calls that work on whole arrays of numpy or torch: a rater's
answers to all pairs, :func:`prefgym.models.fit.fit`, a model's logits and rewards, exact planning,
scores. Not counted: stepping environments, making environments and models, exact solutions of
matrix games (integers in Python), reading and writing files, imports.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up seconds; one within another counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Count what happens inside."""
        begun = time.perf_counter()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.seconds += time.perf_counter() - begun


tensors = Stopwatch()
"""Of tensor operations in this process, since it began."""
