"""The batched form of the environments given by tables: all lanes step in one computation."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Int, Num

from prefgym_envs import random_streams
from prefgym_envs.tabular_tasks import TabularTask, checked_actions, checked_start, outcome_bounds


class TabularVectorEnv(gym.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many lanes of one tabular task, stepped with a handful of numpy calls.

    Lane ``i`` seeded with ``reset(seed=s)`` lives through the same episodes as the single
    environment seeded with ``s + i``, in every autoreset mode and whatever the other lanes do.

    Args:
        task: the rules.
        num_envs: lanes.
        max_episode_steps: truncate episodes after so many steps; None never does.
        autoreset_mode: "SameStep" (default), "NextStep" or "Disabled", or Gymnasium's enum. With
            "Disabled", ended lanes are reset by ``reset(options={"reset_mask": ended})``.
        render_mode: "ansi" or "rgb_array" where the task can be drawn; one picture per lane.

    ``infos["factors"]`` maps each factor's name to an array of shape (lanes,) that belongs to the
    step just made, in ended lanes too; ``infos["_factors"]`` marks the lanes that made one.
    ``infos["context_id"]`` holds the start states where episodes began. Under "SameStep",
    ``final_obs`` and ``final_info`` are Gymnasium's.

    ``reset(options={"state": s})`` starts in state ``s``, a number or one per lane.
    """

    def __init__(
        self,
        task: TabularTask,
        num_envs: int,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        _check_count("num_envs", num_envs)
        if max_episode_steps is not None:
            _check_count("max_episode_steps", max_episode_steps)
        modes = ["ansi", "rgb_array"] if task.drawing is not None else []
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"render_mode {render_mode!r} is unknown here; there are {modes}.")
        self.task = task
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.autoreset_mode = _mode(autoreset_mode)
        self.render_mode = render_mode
        self.metadata = {"render_modes": modes, "autoreset_mode": self.autoreset_mode}
        self.factor_names = task.factor_names
        self.single_observation_space = task.observation_space
        self.single_action_space = gym.spaces.Discrete(task.mdps.actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._tables = _Tables(task)
        self._begun = False
        self._state = np.zeros(num_envs, np.int64)
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
            seed: lane ``i`` gets ``seed + i``; or one seed (or None) per lane.
            options: ``reset_mask`` (bool, one per lane) and ``state`` (start state or states).
        """
        options = options or {}
        mask = self._reset_mask(options)
        self._seed(seed, mask)
        self._begin(mask, options.get("state"))
        return self._observations(), self._beginnings(mask)

    def step(
        self, actions: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every lane; a lane that is being reset ("NextStep") ignores its action.

        Raises:
            ValueError: an action does not exist, or an ended lane was not reset ("Disabled").
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        self._check_ready()
        actions = checked_actions(actions, self.task.mdps.actions, self.num_envs)
        resetting = self._ended
        entry = self._tables.entry(self._state, actions, self._streams, ~resetting)
        self._state = self._tables.next_state.take(entry)
        self._steps += 1
        rewards = self._tables.rewards.take(entry)
        factors = self._tables.features.take(entry, axis=1)
        terminated = self._tables.terminated.take(entry)
        truncated = self._truncated()
        if resetting.any():
            for values in (rewards, terminated, truncated):
                values[resetting] = 0
            factors[:, resetting] = 0.0
        infos: dict[str, Any] = {
            "factors": dict(zip(self.factor_names, factors, strict=True)),
            "_factors": ~resetting,
        }
        self._autoreset(resetting, terminated | truncated, infos)
        return self._observations(), rewards, terminated, truncated, infos

    def render(self) -> tuple[Any, ...]:
        """One picture per lane."""
        self._check_begun()
        if self.render_mode is None or self.task.drawing is None:
            raise ValueError(
                "There is nothing to render with: make the environments with render_mode set to "
                f"one of {self.metadata['render_modes']}."
            )
        draw = self.task.drawing.text if self.render_mode == "ansi" else self.task.drawing.pixels
        return tuple(draw(state) for state in self._state.tolist())

    def advantages(
        self,
        observations: Num[np.ndarray, " batch *obs"],
        actions: Int[np.ndarray, " batch"],
    ) -> Float[np.ndarray, " batch"]:
        """A* of actions, in units of reward; see :meth:`TabularTask.advantages`."""
        return self.task.advantages(observations, actions)

    def optimal_policy(self) -> Float[np.ndarray, " states actions"]:
        """Probability of each action in each state; the best actions are mixed uniformly."""
        return self.task.optimal_policy

    def policy_return(self, policy: Float[np.ndarray, " states actions"]) -> float:
        """J: the expected discounted return of a policy, without a time limit."""
        return self.task.policy_return(policy)

    def scaled_return(self, policy: Float[np.ndarray, " states actions"]) -> float:
        """0 for random actions, 1 for an optimal policy; see :meth:`TabularTask.scaled_return`."""
        return self.task.scaled_return(policy)

    def get_state(self) -> dict[str, np.ndarray]:
        """All that continues these very episodes, their randomness included.

        Integers and bools only, none beyond int64: the lists of a JSON file bring them back.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        self._check_begun()
        return {
            "state": self._state.copy(),
            "steps": self._steps.copy(),
            "ended": self._ended.copy(),
            "streams": self._streams.copy().view(np.int64),
        }

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to what :meth:`get_state` returned.

        Raises:
            ValueError: the state belongs to another number of lanes.
        """
        if np.shape(state["state"]) != (self.num_envs,):
            raise ValueError(
                f"The state belongs to {np.size(state['state'])} lanes, but this environment has "
                f"{self.num_envs}; make it with num_envs={np.size(state['state'])}."
            )
        self._state = np.array(state["state"], np.int64)
        self._steps = np.array(state["steps"], np.int64)
        self._ended = np.array(state["ended"], np.bool_)
        self._streams = np.array(state["streams"], np.int64).view(np.uint64)
        self._begun = True

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

    def _begin(self, mask: np.ndarray, state: Any = None) -> None:
        """Put the lanes of the mask into start states: those asked for, or random ones."""
        starts = self.task.starts
        if state is not None:
            asked = np.broadcast_to(np.asarray(state), (self.num_envs,))
            self._state[mask] = [checked_start(one, self.task) for one in asked[mask]]
        elif len(starts) == 1:
            self._state[mask] = starts[0]
        else:
            self._streams[mask], numbers = random_streams.draw(self._streams[mask])
            self._state[mask] = starts.take((numbers * len(starts)).astype(np.int64))
        self._steps[mask] = 0
        self._ended = self._ended & ~mask

    def _beginnings(self, mask: np.ndarray) -> dict[str, Any]:
        return {"context_id": np.where(mask, self._state, 0), "_context_id": mask.copy()}

    def _observations(self) -> np.ndarray:
        return self.task.observations.take(self._state, axis=0)

    def _final_observations(self) -> np.ndarray:
        """Gymnasium's form: an object per lane, None where the episode goes on."""
        final = np.full(self.num_envs, None, dtype=object)
        lanes = np.flatnonzero(self._ended)
        seen = self.task.observations.take(self._state[lanes], axis=0)
        if seen.ndim == 1:
            final[lanes] = seen
        else:
            for lane, observation in zip(lanes, seen, strict=True):
                final[lane] = observation
        return final

    def _truncated(self) -> Bool[np.ndarray, " lanes"]:
        if self.max_episode_steps is None:
            return np.zeros(self.num_envs, np.bool_)
        return self._steps >= self.max_episode_steps

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
            first = int(self.np_random.integers(2**63)) if whole is None else whole
            self._streams = _consecutive(first, self.num_envs)
            self._begun = True
        if whole is not None:
            self._streams[mask] = _consecutive(whole, self.num_envs)[mask]
        elif seed is not None:
            self._seed_each(seed, mask)

    def _seed_each(self, seeds: Any, mask: np.ndarray) -> None:
        if len(seeds) != self.num_envs:
            raise ValueError(
                f"Got {len(seeds)} seeds for {self.num_envs} lanes; give one (or None) per lane."
            )
        for lane in np.flatnonzero(mask):
            if seeds[lane] is not None:
                self._streams[lane] = random_streams.seeded(int(seeds[lane]))

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


class _Tables:
    """The task's tables, state, action and outcome in one index: (state · A + action) · O + o."""

    def __init__(self, task: TabularTask) -> None:
        mdps = task.mdps
        self.actions, self.outcomes = mdps.next_state.shape[2:]
        self.next_state = mdps.next_state[0].reshape(-1).astype(np.int64)
        self.rewards = mdps.outcome_rewards[0].reshape(-1)
        self.features = np.ascontiguousarray(mdps.features[0].reshape(len(self.rewards), -1).T)
        self.terminated = task.absorbing[self.next_state]
        self.up_to = outcome_bounds(mdps).reshape(-1, self.outcomes)
        possible = (mdps.probability[0] > 0).reshape(-1, self.outcomes)
        self.uncertain = possible.sum(-1) > 1
        self.certain_entry = np.arange(len(possible)) * self.outcomes + possible.argmax(-1)

    def entry(
        self,
        states: Int[np.ndarray, " lanes"],
        actions: Int[np.ndarray, " lanes"],
        streams: np.ndarray,
        acting: Bool[np.ndarray, " lanes"],
    ) -> Int[np.ndarray, " lanes"]:
        """Where in the tables the lanes land; lanes with several outcomes advance their stream."""
        pair: np.ndarray = states * self.actions + actions
        if self.outcomes == 1:
            return pair
        entry: np.ndarray = self.certain_entry.take(pair)
        lanes = np.flatnonzero(self.uncertain.take(pair) & acting)
        streams[lanes], numbers = random_streams.draw(streams[lanes])
        drawn = (numbers[:, None] >= self.up_to[pair[lanes]]).sum(-1)
        entry[lanes] = pair[lanes] * self.outcomes + drawn
        return entry


def _check_count(name: str, count: int) -> None:
    if not isinstance(count, int | np.integer) or count < 1:
        raise ValueError(f"{name} is {count!r}; give a whole number of at least 1.")


def _consecutive(seed: int, lanes: int) -> np.ndarray:
    """The streams of seed, seed + 1, ..."""
    first = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    return random_streams.seeded(first + np.arange(lanes, dtype=np.uint64))


def _mode(mode: AutoresetMode | str) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    names = {one.value: one for one in AutoresetMode} | {one.name: one for one in AutoresetMode}
    if mode not in names:
        raise ValueError(f"autoreset_mode {mode!r} is unknown; choose one of {sorted(names)}.")
    return names[mode]
