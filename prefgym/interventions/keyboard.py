"""A person at a terminal: says by a key when to take over, and acts by keys."""

import os
import select
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from jaxtyping import Shaped


class Keyboard:
    """Keys that are pressed in a terminal, read without waiting for any.

    Use it as a context, inside which the terminal passes on every key at once and shows none. ::

        with Keyboard(actions={"a": [-2.0], "d": [2.0]}, otherwise=[0.0]) as person:
            supervision = Supervision(person.acts, Person(person.takes_over))
            ...

    The space bar takes over. Slow the environment down to a pace that a person can follow.

    Args:
        key: that takes over.
        actions: key -> action, for a person who acts too.
        otherwise: the action while no such key was pressed; None repeats the last one, or before
            any the first of ``actions``.
        stream: of the terminal.

    Raises:
        ValueError: keys of several letters, or one key that means two things.
    """

    def __init__(
        self,
        key: str = " ",
        actions: Mapping[str, Any] | None = None,
        otherwise: Any = None,
        stream: TextIO | None = None,
    ) -> None:
        self.key, self.otherwise = key, otherwise
        self.actions = dict(actions or {})
        self.stream = sys.stdin if stream is None else stream
        for one in (key, *self.actions):
            if len(one) != 1:
                raise ValueError(f"Keyboard: {one!r} is no single key; give one letter each.")
        if key in self.actions:
            raise ValueError(f"Keyboard: {key!r} takes over and acts; give two different keys.")
        first = next(iter(self.actions.values()), None)
        self._action = first if otherwise is None else otherwise
        self._meant: list[Any] = []
        """Actions of the keys that were pressed since the last one was taken."""
        self._taken = False
        self._before: list[Any] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Keyboard":
        """There is one keyboard: Gymnasium copies the arguments of environments."""
        return self

    def __enter__(self) -> "Keyboard":
        """Pass on every key at once.

        Raises:
            ValueError: nobody can press keys there.
        """
        if not self.stream.isatty():
            raise ValueError(
                "Keyboard: keys are read from a terminal, and this program has none; start it in"
                " one, or give Person a function of your own."
            )
        import termios  # not on Windows, where keys are read otherwise
        import tty

        self._before = termios.tcgetattr(self.stream)
        tty.setcbreak(self.stream.fileno())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        if self._before is not None:
            import termios

            termios.tcsetattr(self.stream, termios.TCSADRAIN, self._before)

    def takes_over(self, observations: np.ndarray, actions: np.ndarray) -> bool:
        """Whether the key was pressed since this was asked last: for ``Person``."""
        self._read()
        taken, self._taken = self._taken, False
        return taken

    def acts(self, observations: np.ndarray) -> Shaped[np.ndarray, " n *act"]:
        """What the person does, the same in all lanes: an expert.

        Raises:
            ValueError: no key means an action.
        """
        if not self.actions:
            raise ValueError(
                "Keyboard: no key means an action; give actions={key: action}, or another expert."
            )
        self._read()
        if self._meant or self.otherwise is not None:
            self._action = self._meant[-1] if self._meant else self.otherwise
        self._meant = []
        chosen: np.ndarray = np.stack([np.asarray(self._action)] * len(observations))
        return chosen

    def _read(self) -> None:
        """Look at all keys that were pressed meanwhile."""
        pressed = ""
        while select.select([self.stream], [], [], 0.0)[0]:
            more = os.read(self.stream.fileno(), 64).decode(errors="ignore")
            if not more:
                break
            pressed += more
        self._taken |= self.key in pressed
        self._meant += [self.actions[one] for one in pressed if one in self.actions]
