"""A vector environment whose every episode can be played again: each has a seed of its own.

Gymnasium's own vector environments draw the start of the next episode from generators that nobody
can read back without pickling the simulator. Here episode ``k`` of lane ``i`` is reset with a seed
computed from ``(seed, i, k)``, so an episode is a pure function of that number and its actions.
That is what makes exact resume possible for any deterministic environment: reset, replay, go on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from prefgym.captions import CAPTION, NOTHING

EnvFactory = Callable[[], gym.Env[Any, Any]]


def episode_seed(seed: int, lane: int, episode: int) -> int:
    """The seed with which episode number ``episode`` of a lane begins."""
    return int(np.random.SeedSequence((seed, lane, episode)).generate_state(1)[0])


class ReplayableVectorEnv(VectorEnv[Any, Any, Any]):
    """Several single environments stepped in turn, every episode with a seed of its own.

    Args:
        env_fns: one factory per lane; time limits belong inside.
        autoreset_mode: when the next episode begins; any of Gymnasium's three modes.

    ``infos`` hold what prefgym documents and nothing else: ``factors`` (name to array ``[n]``),
    ``caption`` (texts, ``[n]``) where the lanes write captions, and under SAME_STEP ``final_obs``
    with its mask ``_final_obs``.
    """

    def __init__(
        self,
        env_fns: Sequence[EnvFactory],
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ) -> None:
        self.envs: list[gym.Env[Any, Any]] = []
        for make in env_fns:  # one by one: if the last is refused, close() finds the others
            self.envs.append(make())
        self.num_envs = len(self.envs)
        if self.num_envs < 1:
            raise ValueError("ReplayableVectorEnv got no factories; give one for each lane.")
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        first = self.envs[0]
        self.metadata = {**first.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = first.render_mode
        self.single_observation_space = first.observation_space
        self.single_action_space = first.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        named = first.has_wrapper_attr("factor_names")
        self.factor_names: tuple[str, ...] = (
            tuple(first.get_wrapper_attr("factor_names")) if named else ()
        )
        """Names of the parts of the true reward."""
        self._captioned = (
            first.has_wrapper_attr("possible_captions")
            and first.get_wrapper_attr("possible_captions") is not None
        )
        shape, kind = self.single_observation_space.shape, self.single_observation_space.dtype
        self._observations = np.zeros((self.num_envs, *(shape or ())), kind)
        self._seeds = np.full(self.num_envs, _folded(None), np.uint64)
        self._played = np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, np.bool_)
        self._log = _ActionLog(self.num_envs, self.single_action_space)

    def reset(
        self,
        *,
        seed: int | np.integer[Any] | Sequence[int | None] | np.ndarray | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in every lane, or in those of ``options["reset_mask"]``.

        Args:
            seed: one integer for all lanes together; the k-th episode of each lane follows from it.
                (A list is folded into one integer.)
            options: ``{"reset_mask": bool[n]}`` resets, and seeds, some lanes only.

        Raises:
            ValueError: a mask that is none, or another option: episodes are replayed from seeds.
        """
        mask = self._reset_mask(options or {})
        if seed is not None:
            self._seeds[mask] = _folded(seed)
            self._played[mask] = 0
        self._begin(mask)
        return self._observations.copy(), {}

    def step(
        self, actions: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every lane; what happens to lanes that ended is the autoreset mode's to say."""
        actions = self._checked(actions)
        acting = (~self._ended).tolist()
        if self.autoreset_mode == AutoresetMode.DISABLED and np.count_nonzero(self._ended):
            raise ValueError(
                f"Lanes {np.nonzero(self._ended)[0].tolist()} have ended; with autoreset disabled,"
                ' call reset(options={"reset_mask": ended}) first.'
            )
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, np.bool_)
        truncated = np.zeros(self.num_envs, np.bool_)
        self._log.append(actions)
        told: list[Mapping[str, float] | None] = [None] * self.num_envs
        captions = np.full(self.num_envs, NOTHING, object)
        for lane, env in enumerate(self.envs):
            if acting[lane]:
                observation, reward, terminated[lane], truncated[lane], info = env.step(
                    actions[lane]
                )
                self._observations[lane], rewards[lane] = observation, reward
                told[lane] = info.get("factors")
                captions[lane] = info.get(CAPTION, NOTHING)
        infos = self._factors(told)
        if self._captioned:
            infos[CAPTION] = captions
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            self._begin(self._ended)
        self._ended = terminated | truncated
        if self.autoreset_mode == AutoresetMode.SAME_STEP and np.count_nonzero(self._ended):
            infos["final_obs"] = self._observations.copy()
            infos["_final_obs"] = self._ended.copy()
            self._begin(self._ended)
        return self._observations.copy(), rewards, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Close every lane."""
        for env in self.envs:
            env.close()

    def render(self) -> tuple[Any, ...]:
        """One picture per lane."""
        return tuple(env.render() for env in self.envs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method, or read an attribute, of every lane."""
        found = [env.get_wrapper_attr(name) for env in self.envs]
        return tuple(one(*args, **kwargs) if callable(one) else one for one in found)

    def get_state(self) -> dict[str, np.ndarray]:
        """Seeds and actions of the running episodes: all that :meth:`set_state` needs.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        self._check_begun()
        return {
            "seeds": self._seeds.copy(),
            "played": self._played.copy(),
            "ended": self._ended.copy(),
            "elapsed": self._log.elapsed,
            "actions": self._log.actions(),
        }

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a :meth:`get_state`, by resetting every lane and replaying its actions.

        Raises:
            ValueError: the state belongs to another number of lanes.
        """
        if state["seeds"].shape != self._seeds.shape:
            raise ValueError(
                f"The state belongs to {len(state['seeds'])} lanes, but this environment has"
                f" {self.num_envs}; make it with num_envs={len(state['seeds'])}."
            )
        self._seeds[:] = state["seeds"]
        self._played[:] = state["played"] - 1
        self._begin(np.ones(self.num_envs, np.bool_))
        for lane, env in enumerate(self.envs):
            for action in state["actions"][lane, : state["elapsed"][lane]]:
                self._observations[lane] = env.step(action)[0]
        self._log.restore(state["actions"], state["elapsed"])
        self._ended = state["ended"].copy()

    def _reset_mask(self, options: Mapping[str, Any]) -> np.ndarray:
        if set(options) - {"reset_mask"}:
            raise ValueError(
                f"reset() got the options {sorted(options)}; a replayable environment takes"
                " reset_mask only, because its episodes must follow from their seeds."
            )
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs, np.bool_)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(
                f'options["reset_mask"] has shape {mask.shape} and type {mask.dtype}; give one '
                f"bool per lane, {self.num_envs} in all, at least one of them True."
            )
        if not (mask | (self._played > 0)).all():
            raise ResetNeeded("Call reset() for all lanes before you reset some of them.")
        return mask

    def _check_begun(self) -> None:
        if np.count_nonzero(self._played) < self.num_envs:
            raise ResetNeeded("Call reset() first.")

    def _checked(self, actions: Any) -> np.ndarray:
        """One action per lane, in the type in which they are kept for replaying."""
        self._check_begun()
        array, shape, kind = np.asarray(actions), self._log.shape, self._log.kind
        if array.shape != shape or not np.can_cast(array.dtype, kind, "same_kind"):
            raise ValueError(
                f"step() got actions of shape {array.shape} and type {array.dtype}; wanted shape"
                f" {shape} and type {kind}, as env.action_space.sample() gives."
            )
        return array.astype(kind)

    def _begin(self, mask: np.ndarray) -> None:
        for lane in np.nonzero(mask)[0]:
            start = episode_seed(int(self._seeds[lane]), int(lane), int(self._played[lane]))
            self._observations[lane] = self.envs[lane].reset(seed=start)[0]
            self._played[lane] += 1
            self._log.begin(int(lane))
            self._ended[lane] = False

    def _factors(self, told: Sequence[Mapping[str, float] | None]) -> dict[str, Any]:
        if not self.factor_names:
            return {}
        table = {
            name: np.array([0.0 if one is None else one[name] for one in told], np.float64)
            for name in self.factor_names
        }
        return {"factors": table}


def _folded(seed: Any) -> int:
    """One number out of a seed or a list of them; a random one out of None."""
    entropy = [0 if one is None else int(one) for one in seed] if np.ndim(seed) else seed
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


class _ActionLog:
    """The actions of the running episodes: one array of all lanes per step, the newest last."""

    def __init__(self, lanes: int, space: gym.Space[Any]) -> None:
        self.shape = (lanes, *(space.shape or ()))
        self.kind: Any = space.dtype
        self._rows: list[np.ndarray] = []
        self._first = np.zeros(lanes, np.int64)

    @property
    def elapsed(self) -> np.ndarray:
        """Steps of the running episode of each lane."""
        return len(self._rows) - self._first

    def append(self, actions: np.ndarray) -> None:
        self._rows.append(actions.copy())

    def begin(self, lane: int) -> None:
        """Forget the episode of a lane, and the rows that nobody needs any more."""
        self._first[lane] = len(self._rows)
        unused = int(self._first.min())
        del self._rows[:unused]
        self._first -= unused

    def actions(self) -> np.ndarray:
        """Those of each lane's episode, ``[lanes, longest, *act]``, zeros behind them."""
        lanes, *rest = self.shape
        kept = np.zeros((lanes, max(1, len(self._rows)), *rest), self.kind)
        for lane, first in enumerate(self._first):
            for step, row in enumerate(self._rows[first:]):
                kept[lane, step] = row[lane]
        return kept

    def restore(self, actions: np.ndarray, elapsed: np.ndarray) -> None:
        longest = int(elapsed.max())
        rows = np.zeros((longest, *self.shape), self.kind)
        for lane, steps in enumerate(elapsed):
            rows[longest - steps :, lane] = actions[lane, :steps]
        self._rows, self._first = list(rows), longest - elapsed
