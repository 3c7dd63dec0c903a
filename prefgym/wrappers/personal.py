"""Episodes that are played for somebody: who it is stands in every observation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

PERSON = "person"
"""The factor that says, at every step, for whom the episode is played."""


class Personal(gym.Wrapper[np.ndarray, Any, np.ndarray, Any]):
    """Draws a person for every episode, and shows who it is: one policy learns to serve them all.

    Observations are flattened and followed by one flag per person. The number of the person is the
    factor "person", by which a population with ``rule="person"`` knows who answers, and a learner
    with ``serve="person"`` whose reward is to be earned. ``reset(options={"person": k})`` plays for
    person k.

    Args:
        env: with observations that are arrays of numbers.
        people: how many there are; their numbers are the rater ids.

    Raises:
        ValueError: fewer than two people, or observations of another kind.
    """

    def __init__(self, env: gym.Env[Any, Any], people: int) -> None:
        super().__init__(env)
        seen = env.observation_space
        if not isinstance(seen, spaces.Box):
            raise ValueError(
                f"personal={people}: {type(env.unwrapped).__name__} shows {seen}, and who is served"
                " can only stand beside a Box; choose a control task."
            )
        if people < 2:
            raise ValueError(f"personal={people}: wanted 2 people or more.")
        self.people = people
        self.person = 0
        """For whom the episode is played."""
        low, high = (np.ravel(bound).astype(np.float64) for bound in (seen.low, seen.high))
        self._kind: Any = np.result_type(seen.dtype or np.float32, np.float32).type
        least, most = (
            np.concatenate([bound, flags]).astype(self._kind)
            for bound, flags in ((low, np.zeros(people)), (high, np.ones(people)))
        )
        self.observation_space = spaces.Box(least, most, dtype=self._kind)
        named = env.get_wrapper_attr("factor_names") if env.has_wrapper_attr("factor_names") else ()
        self.factor_names = (*named, PERSON)

    @property
    def advantages(self) -> Any:
        """Those of the task, which does not care for whom it is done; None where unknown."""
        return self.values_of(self._of_task("advantages"))

    @property
    def state_values(self) -> Any:
        """Values of states, as :attr:`advantages`; None where unknown."""
        known = self._of_task("state_values")
        return None if known is None else _WithoutPerson(known, self.people, self._shape)

    def values_of(self, source: Any) -> Any:
        """A value source of the task, for observations as they are shown here.

        Args:
            source: asked about observations of the task; None stays None.
        """
        if source is None:
            return None
        known = getattr(source, "state_values", None)
        if known is None:
            return _WithoutPerson(source, self.people, self._shape)
        values = _WithoutPerson(known, self.people, self._shape)
        return _ValuesWithoutPerson(source, self.people, self._shape, values)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode, for a person drawn from the environment's own generator.

        Raises:
            ValueError: a person that there is not.
        """
        asked = (options or {}).get(PERSON)
        passed = {name: one for name, one in (options or {}).items() if name != PERSON}
        observation, info = self.env.reset(seed=seed, options=passed or None)
        drawn = int(self.env.unwrapped.np_random.integers(self.people))
        self.person = drawn if asked is None else int(asked)
        if not 0 <= self.person < self.people:
            raise ValueError(
                f"reset: there is no person {self.person}; their numbers are 0 to"
                f" {self.people - 1}."
            )
        return self._shown(observation), {**info, PERSON: self.person}

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """A step of the task."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        factors = {**info.get("factors", {}), PERSON: float(self.person)}
        return self._shown(observation), reward, terminated, truncated, {**info, "factors": factors}

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of an observation of the task."""
        return self.env.observation_space.shape or ()

    def _of_task(self, name: str) -> Any:
        return self.env.get_wrapper_attr(name) if self.env.has_wrapper_attr(name) else None

    def _shown(self, observation: Any) -> np.ndarray:
        flags = np.arange(self.people) == self.person
        shown: np.ndarray = np.concatenate([np.ravel(observation), flags]).astype(self._kind)
        return shown


@dataclass(frozen=True)
class _WithoutPerson:
    """A function of what the task itself shows, and of whatever else it is given."""

    function: Callable[..., np.ndarray]
    people: int
    shape: tuple[int, ...]

    def __call__(self, observations: np.ndarray, *others: np.ndarray) -> np.ndarray:
        """What the function says of observations that end in one flag per person."""
        seen = np.asarray(observations)[:, : -self.people]
        return self.function(seen.reshape(len(seen), *self.shape), *others)


@dataclass(frozen=True)
class _ValuesWithoutPerson(_WithoutPerson):
    """A value source that knows the values of states too."""

    state_values: Callable[[np.ndarray], np.ndarray]
