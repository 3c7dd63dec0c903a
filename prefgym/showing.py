"""How an observation says for whom an episode is played, and how to read it without that."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Int, Num

from prefgym.segments import Array


@dataclass(frozen=True)
class Showing:
    """Observations of a task, with the person for whom it is done at their end.

    Where the task shows measurements (a Box), they are flattened and followed by one flag per
    person; where it shows whole numbers (Discrete, MultiDiscrete), the number of the person stands
    last.

    Args:
        task: what the task shows.
        people: how many there are; their numbers are the rater ids.

    Raises:
        ValueError: fewer than two people, or observations of another kind.
    """

    task: spaces.Space[Any]
    people: int
    space: spaces.Space[Any] = field(init=False, compare=False)
    """What is shown."""

    def __post_init__(self) -> None:
        """Refuse what cannot be shown."""
        whole = isinstance(self.task, spaces.Discrete | spaces.MultiDiscrete)
        flat = not isinstance(self.task, spaces.MultiDiscrete) or len(self.task.shape) == 1
        if not (whole or isinstance(self.task, spaces.Box)) or not flat:
            raise ValueError(
                f"personal={self.people}: the environment shows {self.task}, and who is served can"
                " only stand behind a Box, a Discrete or a row of MultiDiscrete."
            )
        if self.people < 2:
            raise ValueError(f"personal={self.people}: wanted 2 people or more.")
        made = _numbered(self.task, self.people) if whole else _flagged(self.task, self.people)
        object.__setattr__(self, "space", made)

    @property
    def columns(self) -> int:
        """Numbers at the end of an observation that say who it is."""
        return self.people if isinstance(self.task, spaces.Box) else 1

    def shown(
        self, observations: Num[np.ndarray, " n *shape"], person: Int[np.ndarray, " n"]
    ) -> Num[np.ndarray, " n width"]:
        """Observations of the task, as they are shown when it is done for these people."""
        rows = np.asarray(observations).reshape(len(person), -1)
        said = np.arange(self.people) == person[:, None] if self.columns > 1 else person[:, None]
        together: np.ndarray = np.concatenate([rows, said], 1).astype(self.space.dtype)
        return together

    def addressed(
        self, observations: Num[np.ndarray, " n width"], person: Int[np.ndarray, " n"]
    ) -> Num[np.ndarray, " n width"]:
        """The same observations, for these people instead."""
        return self.shown(np.asarray(observations)[:, : -self.columns], person)

    def stripped(self, observations: Array) -> Array:
        """What the task itself shows, ``[..., *shape]``; of arrays or tensors."""
        task: Array = observations[..., : -self.columns].reshape(
            *observations.shape[:-1], *(self.task.shape or ())
        )
        return task

    def values_of(self, source: Any) -> Any:
        """A value source of the task, for observations as they are shown here.

        Args:
            source: asked about observations of the task; None stays None. What else it knows (of
                states, of segments of text, which hold no observations) it goes on to know.
        """
        if source is None:
            return None
        known = {
            name: getattr(source, name)
            for name in ("of_segments", "values_of_segments")
            if hasattr(source, name)
        }
        if hasattr(source, "state_values"):
            known["state_values"] = _OfTheTask(source.state_values, self)
        return _OfTheTask(source, self, **known)


def _flagged(task: Any, people: int) -> spaces.Box:
    low, high = (np.ravel(bound).astype(np.float64) for bound in (task.low, task.high))
    kind: Any = np.result_type(task.dtype or np.float32, np.float32).type
    least, most = (
        np.concatenate([bound, flags]).astype(kind)
        for bound, flags in ((low, np.zeros(people)), (high, np.ones(people)))
    )
    return spaces.Box(least, most, dtype=kind)


def _numbered(task: Any, people: int) -> spaces.MultiDiscrete:
    sizes, first = (task.nvec, task.start) if task.shape else ([task.n], [task.start])
    return spaces.MultiDiscrete([*sizes, people], np.int64, start=[*first, 0])


class _OfTheTask:
    """A function of what the task itself shows, and of whatever else it is given.

    Args:
        function: of observations of the task.
        showing: what stands behind them.
        **known: more that it can do, by name.
    """

    def __init__(self, function: Callable[..., np.ndarray], showing: Showing, **known: Any) -> None:
        self.function, self.showing = function, showing
        vars(self).update(known)

    def __call__(self, observations: np.ndarray, *others: np.ndarray) -> np.ndarray:
        """What the function says of observations that end in who it is."""
        return self.function(self.showing.stripped(np.asarray(observations)), *others)
