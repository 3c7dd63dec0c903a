"""Episodes that are played for somebody: who it is stands in every observation."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from prefgym.mixing import mixed
from prefgym.showing import Showing
from prefgym.text import Played
from prefgym.wrappers.inner import find_attribute
from prefgym.wrappers.notes import PERSON, with_factors


class _KnowsTheTask:
    """The task does not care for whom it is done: its values are asked without the person."""

    env: Any
    showing: Showing

    @property
    def advantages(self) -> Any:
        """Those of the task; None where unknown."""
        return self.showing.values_of(find_attribute(self.env, "advantages"))

    @property
    def state_values(self) -> Any:
        """Values of the task's states; None where unknown."""
        return self.showing.values_of(find_attribute(self.env, "state_values"))


class Personal(_KnowsTheTask, gym.Wrapper[np.ndarray, Any, np.ndarray, Any]):
    """Draws a person for every episode, and shows who it is: one policy learns to serve them all.

    Observations end in who it is (:class:`~prefgym.showing.Showing`). The number of the
    person is the factor "person", by which a population with ``rule="person"`` knows who answers,
    and a learner with ``serve="person"`` whose reward is to be earned.
    ``reset(options={"person": k})`` plays for person k.

    Args:
        env: with observations that are arrays of numbers.
        people: how many there are; their numbers are the rater ids.

    Raises:
        ValueError: fewer than two people, or observations of another kind.
    """

    def __init__(self, env: gym.Env[Any, Any], people: int) -> None:
        super().__init__(env)
        self.showing = Showing(env.observation_space, people)
        self.people = people
        self.person = 0
        """For whom the episode is played."""
        self.observation_space = self.showing.space
        self.factor_names = (*(find_attribute(env, "factor_names") or ()), PERSON)
        _lengthen(self)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode, for a person drawn from the environment's own generator.

        Raises:
            ValueError: a person that there is not.
        """
        asked, passed = _asked(options, self.people)
        observation, info = self.env.reset(seed=seed, options=passed)
        drawn = int(self.env.unwrapped.np_random.integers(self.people))
        self.person = drawn if asked is None else int(asked)
        return self._shown(observation), {**info, PERSON: self.person}

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """A step of the task."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        factors = {**info.get("factors", {}), PERSON: float(self.person)}
        return self._shown(observation), reward, terminated, truncated, {**info, "factors": factors}

    def _shown(self, observation: Any) -> np.ndarray:
        shown: np.ndarray = self.showing.shown(
            np.asarray(observation)[None], np.array([self.person])
        )[0]
        return shown


class PersonalVectorEnv(_KnowsTheTask, gym.vector.VectorWrapper):
    """:class:`Personal` for environments that step all lanes at once, text among them.

    The person of a lane's episode follows from the lane's seed and from how many episodes it has
    begun, whatever the other lanes do. Lanes that get the same prompts serve the same people.

    Args: as :class:`Personal`.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], people: int) -> None:
        super().__init__(env)
        self.showing = Showing(env.single_observation_space, people)
        self.people = people
        self.person = np.zeros(env.num_envs, np.int64)
        """``[lanes]``, for whom their episodes are played."""
        self.single_observation_space = self.showing.space
        self.observation_space = batch_space(self.showing.space, env.num_envs)
        self.autoreset_mode = AutoresetMode(env.metadata.get("autoreset_mode", "NextStep"))
        self.factor_names = (*(find_attribute(env, "factor_names") or ()), PERSON)
        _lengthen(self)
        together = find_attribute(env, "samples_per_prompt") or 1
        self._stream = np.arange(env.num_envs) // together
        self._seeds = np.zeros(env.num_envs, np.uint64)
        self._begun = np.zeros(env.num_envs, np.int64)
        """Episodes of each lane so far."""
        self._seeded = False
        self._resetting = np.zeros(env.num_envs, np.bool_)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin episodes; ``options={"person": k}``, a number or one per lane, says for whom.

        Raises:
            ValueError: a person that there is not.
        """
        asked, passed = _asked(options, self.people)
        observations, infos = self.env.reset(seed=seed, options=passed)
        mask = np.ones(self.num_envs, np.bool_)
        if passed is not None and "reset_mask" in passed:
            mask = np.asarray(passed["reset_mask"], np.bool_)
        self._seed(seed, mask)
        self._begin(mask)
        if asked is not None:
            self.person[mask] = np.broadcast_to(asked, self.person.shape)[mask]
        self._resetting[mask] = False
        return self.showing.shown(observations, self.person), self._told(infos)

    def step(
        self, actions: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """A step of the task in every lane."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        ended, acting = terminated | truncated, ~self._resetting
        served = self.person.astype(np.float64)
        infos = with_factors(infos, {PERSON: np.where(acting, served, 0.0)}, acting)
        if "final_obs" in infos:
            infos["final_obs"] = self._shown_at_the_end(infos["final_obs"], ended)
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            self._begin(ended)
        elif self.autoreset_mode == AutoresetMode.NEXT_STEP:
            self._begin(self._resetting)
            self._resetting = ended
        shown = self.showing.shown(observations, self.person)
        return shown, rewards, terminated, truncated, self._told(infos)

    @property
    def observations(self) -> np.ndarray:
        """What every lane of a text environment shows now."""
        inner: Any = self.env
        return self.showing.shown(inner.observations, self.person)

    @property
    def context_id(self) -> np.ndarray:
        """The number of the prompt that every lane answers now."""
        inner: Any = self.env
        found: np.ndarray = inner.context_id
        return found

    def play(self, actions: Any, mask: Any) -> Played:
        """Whole responses in every lane of a text environment; new episodes have begun then."""
        inner: Any = self.env
        played: Played = inner.play(actions, mask)
        served = np.where(np.asarray(mask, np.bool_), self.person[:, None], 0).astype(np.float64)
        self._begin(np.ones(self.num_envs, np.bool_))
        return replace(played, factors={**played.factors, PERSON: served})

    def get_state(self) -> dict[str, Any]:
        """What this layer alone remembers."""
        return {
            "person": self.person.copy(),
            "seeds": self._seeds.view(np.int64).copy(),
            "begun": self._begun.copy(),
            "resetting": self._resetting.copy(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`get_state`."""
        self.person = np.array(state["person"], np.int64)
        self._seeds = np.array(state["seeds"], np.int64).view(np.uint64)
        self._begun = np.array(state["begun"], np.int64)
        self._resetting = np.array(state["resetting"], np.bool_)
        self._seeded = True

    def _seed(self, seed: Any, mask: np.ndarray) -> None:
        """A number for each lane that is seeded; at the very first reset, for all."""
        if seed is None and self._seeded:
            return
        if seed is None or np.ndim(seed) == 0:
            first = int(np.random.default_rng().integers(2**63)) if seed is None else int(seed)
            given = [first + int(one) for one in self._stream]
        else:
            given = [seed[one] for one in self._stream]
        for lane in np.flatnonzero(mask | (not self._seeded)):
            if given[lane] is not None:
                self._seeds[lane] = int(given[lane]) & 0xFFFFFFFFFFFFFFFF
                self._begun[lane] = 0
        self._seeded = True

    def _begin(self, mask: np.ndarray) -> None:
        """Somebody for each episode that begins."""
        drawn = mixed(mixed(self._seeds) + self._begun.astype(np.uint64))
        self.person[mask] = (drawn % np.uint64(self.people)).astype(np.int64)[mask]
        self._begun[mask] += 1

    def _shown_at_the_end(self, final: np.ndarray, ended: np.ndarray) -> np.ndarray:
        lanes = np.flatnonzero(ended)
        if len(lanes):
            shown = self.showing.shown(np.stack(list(final[lanes])), self.person[lanes])
            final = final.copy()
            for lane, one in zip(lanes, shown, strict=True):
                final[lane] = one
        return final

    def _told(self, infos: Mapping[str, Any]) -> dict[str, Any]:
        return {**infos, PERSON: self.person.copy()}


def _asked(options: dict[str, Any] | None, people: int) -> tuple[Any | None, dict[str, Any] | None]:
    """Who is asked for, if anybody, and the options of the task.

    Raises:
        ValueError: a person that there is not.
    """
    asked = (options or {}).get(PERSON)
    passed = {name: one for name, one in (options or {}).items() if name != PERSON}
    for one in () if asked is None else np.ravel(asked):
        if not 0 <= one < people:
            raise ValueError(
                f"reset: there is no person {one}; their numbers are 0 to {people - 1}."
            )
    return asked, passed or None


def _lengthen(layer: Any) -> None:
    """Where text is written: the layout of observations that end in who it is."""
    layout = find_attribute(layer.env, "layout")
    if layout is not None:
        layer.layout = replace(layout, people=layer.people)
