"""The batched form of the environments given by tables: all lanes step in one computation."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Float, Int, Num

from prefgym_envs import random_streams
from prefgym_envs.lanes import LanesEnv, check_count
from prefgym_envs.tabular_tasks import TabularTask, checked_actions, checked_start, outcome_bounds


class TabularVectorEnv(LanesEnv):
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
        if max_episode_steps is not None:
            check_count("max_episode_steps", max_episode_steps)
        spaces = task.observation_space, gym.spaces.Discrete(task.mdps.actions)
        modes = ["ansi", "rgb_array"] if task.drawing is not None else []
        super().__init__(num_envs, spaces, autoreset_mode, render_mode, modes)
        self.task = task
        self.max_episode_steps = max_episode_steps
        self.factor_names = task.factor_names
        self._tables = _Tables(task)
        self._state = np.zeros(num_envs, np.int64)

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

    def state_values(
        self, observations: Num[np.ndarray, " batch *obs"]
    ) -> Float[np.ndarray, " batch"]:
        """V* of states, in units of reward; see :meth:`TabularTask.state_values`."""
        return self.task.state_values(observations)

    def optimal_policy(self) -> Float[np.ndarray, " states actions"]:
        """Probability of each action in each state; the best actions are mixed uniformly."""
        return self.task.optimal_policy

    def policy_return(self, policy: Float[np.ndarray, " states actions"]) -> float:
        """J: the expected discounted return of a policy, without a time limit."""
        return self.task.policy_return(policy)

    def scaled_return(self, policy: Float[np.ndarray, " states actions"]) -> float:
        """0 for random actions, 1 for an optimal policy; see :meth:`TabularTask.scaled_return`."""
        return self.task.scaled_return(policy)

    def _place(self, lanes: np.ndarray, asked: np.ndarray | None) -> None:
        starts = self.task.starts
        if asked is not None:
            self._state[lanes] = [checked_start(one, self.task) for one in asked[lanes]]
        elif len(starts) == 1:
            self._state[lanes] = starts[0]
        else:
            self._state[lanes] = starts.take(self._drawn(lanes, len(starts)))

    def _observations(self) -> np.ndarray:
        return self.task.observations.take(self._state, axis=0)

    def _contexts(self) -> np.ndarray:
        return self._state

    def _places(self) -> dict[str, np.ndarray]:
        return {"state": self._state}

    def _set_places(self, places: Mapping[str, np.ndarray]) -> None:
        self._state = places["state"]

    def _truncated(self) -> Bool[np.ndarray, " lanes"]:
        if self.max_episode_steps is None:
            return np.zeros(self.num_envs, np.bool_)
        return self._steps >= self.max_episode_steps


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
