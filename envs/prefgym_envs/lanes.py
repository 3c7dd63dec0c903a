"""Lanes of one task side by side, each with a random stream, episodes and resets of its own."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool

from prefgym_envs import random_streams


class LanesEnv(gym.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """When episodes of lanes begin and end: seeds, reset masks, autoreset modes, saved states.

    What is played in the lanes is for the classes below to say: ``step``, and the methods that are
    abstract here.

    Args:
        num_envs: lanes.
        spaces: observation and action space of one lane.
        autoreset_mode: "SameStep", "NextStep" or "Disabled", or Gymnasium's enum.
        render_mode: None, or one of ``render_modes``.
        render_modes: how the lanes can be shown.
        lanes_per_stream: so many neighbours draw the same random numbers.
    """

    start_option = "state"
    """The key of ``reset(options=...)`` that asks for a certain start."""
    factor_names: tuple[str, ...]

    def __init__(
        self,
        num_envs: int,
        spaces: tuple[gym.Space[Any], gym.Space[Any]],
        autoreset_mode: AutoresetMode | str,
        render_mode: str | None,
        render_modes: Sequence[str],
        lanes_per_stream: int = 1,
    ) -> None:
        check_count("num_envs", num_envs)
        modes = list(render_modes)
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"render_mode {render_mode!r} is unknown here; there are {modes}.")
        self.num_envs = num_envs
        self.autoreset_mode = _mode(autoreset_mode)
        self.render_mode = render_mode
        self.metadata = {"render_modes": modes, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space, self.single_action_space = spaces
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._lanes_per_stream = lanes_per_stream
        self._begun = False
        self._steps = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, np.bool_)
        self._streams = np.zeros(num_envs, np.uint64)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in every lane, or in those of ``options["reset_mask"]``.

        Args:
            seed: stream ``i`` gets ``seed + i``; or one seed (or None) per stream. Every lane has
                a stream of its own unless the task says otherwise.
            options: ``reset_mask`` (bool, one per lane), and a start, or one per lane, under the
                key that the task names.
        """
        options = options or {}
        mask = self._reset_mask(options)
        self._seed(seed, mask)
        self._begin(mask, options.get(self.start_option))
        return self._observations(), self._beginnings(mask)

    def get_state(self) -> dict[str, np.ndarray]:
        """All that continues these very episodes, their randomness included.

        Integers and bools only, none beyond int64: the lists of a JSON file bring them back.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        self._check_begun()
        return {
            **{name: one.copy() for name, one in self._places().items()},
            "steps": self._steps.copy(),
            "ended": self._ended.copy(),
            "streams": self._streams.copy().view(np.int64),
        }

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to what :meth:`get_state` returned.

        Raises:
            ValueError: the state belongs to another number of lanes.
        """
        if np.shape(state["steps"]) != (self.num_envs,):
            raise ValueError(
                f"The state belongs to {np.size(state['steps'])} lanes, but this environment has "
                f"{self.num_envs}; make it with num_envs={np.size(state['steps'])}."
            )
        self._set_places({name: np.array(state[name], np.int64) for name in self._places()})
        self._steps = np.array(state["steps"], np.int64)
        self._ended = np.array(state["ended"], np.bool_)
        self._streams = np.array(state["streams"], np.int64).view(np.uint64)
        self._begun = True

    # -- for the classes below to say -----------------------------------------------------------

    @abstractmethod
    def _place(self, lanes: np.ndarray, asked: np.ndarray | None) -> None:
        """Put ``lanes`` (a mask) where episodes start: where asked, or anywhere at random."""

    @abstractmethod
    def _observations(self) -> np.ndarray:
        """What every lane shows, as a new array."""

    @abstractmethod
    def _contexts(self) -> np.ndarray:
        """Where the episode of every lane started: equal numbers are comparable."""

    @abstractmethod
    def _places(self) -> dict[str, np.ndarray]:
        """Where every lane stands: integer arrays by name, one row per lane."""

    @abstractmethod
    def _set_places(self, places: Mapping[str, np.ndarray]) -> None:
        """Go where :meth:`_places` once was."""

    # -- for the classes below to call ----------------------------------------------------------

    def _drawn(self, mask: np.ndarray, count: int) -> np.ndarray:
        """A random index below ``count`` for each lane of the mask."""
        self._streams[mask], numbers = random_streams.draw(self._streams[mask])
        drawn: np.ndarray = (numbers * count).astype(np.int64)
        return drawn

    def _begin(self, mask: np.ndarray, asked: Any = None) -> None:
        """Begin episodes in the lanes of the mask."""
        each = None if asked is None else np.broadcast_to(np.asarray(asked), (self.num_envs,))
        self._place(mask, each)
        self._steps[mask] = 0
        self._ended = self._ended & ~mask

    def _beginnings(self, mask: np.ndarray) -> dict[str, Any]:
        return {"context_id": np.where(mask, self._contexts(), 0), "_context_id": mask.copy()}

    def _autoreset(self, resetting: np.ndarray, ended: np.ndarray, infos: dict[str, Any]) -> None:
        """Begin the episodes that are due, and note which lanes are still to be reset."""
        self._ended = ended
        due = resetting if self.autoreset_mode == AutoresetMode.NEXT_STEP else None
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            due = ended
            if ended.any():
                infos["final_obs"], infos["_final_obs"] = self._final_observations(), ended.copy()
                infos["final_info"] = {"factors": dict(infos["factors"]), "_factors": ended.copy()}
                infos["_final_info"] = ended.copy()
        if due is not None and due.any():
            self._begin(due)
            infos |= self._beginnings(due)

    def _check_begun(self) -> None:
        if not self._begun:
            raise ResetNeeded("Call reset() first.")

    def _check_ready(self) -> None:
        self._check_begun()
        if self.autoreset_mode == AutoresetMode.DISABLED and self._ended.any():
            raise ValueError(
                f"The episodes of lanes {np.flatnonzero(self._ended).tolist()} have ended; with "
                'autoreset disabled, call reset(options={"reset_mask": ended}) first.'
            )

    # -- inside ---------------------------------------------------------------------------------

    def _final_observations(self) -> np.ndarray:
        """Gymnasium's form: an object per lane, None where the episode goes on."""
        final = np.full(self.num_envs, None, dtype=object)
        lanes = np.flatnonzero(self._ended)
        seen = self._observations()[lanes]
        if seen.ndim == 1:
            final[lanes] = seen
        else:
            for lane, observation in zip(lanes, seen, strict=True):
                final[lane] = observation
        return final

    def _reset_mask(self, options: Mapping[str, Any]) -> Bool[np.ndarray, " lanes"]:
        if "reset_mask" not in options:
            return np.ones(self.num_envs, np.bool_)
        mask = np.asarray(options["reset_mask"])
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(
                f'options["reset_mask"] has shape {mask.shape} and type {mask.dtype}; give one '
                f"bool per lane, {self.num_envs} in all, at least one of them True."
            )
        if not self._begun and not mask.all():
            raise ResetNeeded("Call reset() for all lanes before you reset some of them.")
        return mask

    def _seed(self, seed: int | Sequence[int | None] | None, mask: np.ndarray) -> None:
        """Give seeded lanes of the mask a new stream; at the very first reset, all lanes."""
        whole = int(seed) if isinstance(seed, int | np.integer) else None
        super().reset(seed=whole)
        if not self._begun:
            self._streams = self._consecutive(
                int(self.np_random.integers(2**63)) if whole is None else whole
            )
            self._begun = True
        if whole is not None:
            self._streams[mask] = self._consecutive(whole)[mask]
        elif seed is not None:
            self._seed_each(seed, mask)

    def _seed_each(self, seeds: Any, mask: np.ndarray) -> None:
        streams = self.num_envs // self._lanes_per_stream
        if len(seeds) != streams:
            raise ValueError(
                f"Got {len(seeds)} seeds for {streams} {self._streams_are}; give one (or None) for"
                " each of them."
            )
        for lane in np.flatnonzero(mask):
            one = seeds[lane // self._lanes_per_stream]
            if one is not None:
                self._streams[lane] = random_streams.seeded(int(one))

    @property
    def _streams_are(self) -> str:
        each = self._lanes_per_stream
        return "lanes" if each == 1 else f"groups of {each} lanes that share a prompt"

    def _consecutive(self, seed: int) -> np.ndarray:
        """The streams of seed, seed + 1, ..., one for each lane."""
        first = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
        place = np.arange(self.num_envs, dtype=np.uint64) // np.uint64(self._lanes_per_stream)
        return random_streams.seeded(first + place)


def check_count(name: str, count: Any) -> None:
    """Refuse what is no whole number of at least 1.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(count, int | np.integer) or count < 1:
        raise ValueError(f"{name} is {count!r}; give a whole number of at least 1.")


def _mode(mode: AutoresetMode | str) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    names = {one.value: one for one in AutoresetMode} | {one.name: one for one in AutoresetMode}
    if mode not in names:
        raise ValueError(f"autoreset_mode {mode!r} is unknown; choose one of {sorted(names)}.")
    return names[mode]
