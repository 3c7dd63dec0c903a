"""Environments given by tables, one episode at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from jaxtyping import Float, Int, Num

from prefgym_envs import random_streams
from prefgym_envs.tabular_tasks import TabularTask, checked_start, outcome_bounds

Observation = np.integer | np.ndarray


class TabularEnv(gym.Env[Observation, np.integer]):
    """One environment given by tables.

    Args:
        task: the rules.
        render_mode: one of ``metadata["render_modes"]``, or None.

    ``reset(options={"state": s})`` starts in state ``s`` instead of a random one. The reset's
    ``info["context_id"]`` is the start state, every step's ``info["factors"]`` what the reward
    counted. An ended episode stays in its absorbing state with reward 0.

    The dynamics draw from a stream of their own, seeded by ``reset(seed=...)``; ``np_random`` is
    left to wrappers.
    """

    def __init__(self, task: TabularTask, render_mode: str | None = None) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"render_mode {render_mode!r} is unknown here; there are "
                f"{', '.join(map(repr, self.metadata['render_modes'])) or 'none'}."
            )
        self.task = task
        self.render_mode = render_mode
        self.observation_space = task.observation_space
        self.action_space = gym.spaces.Discrete(task.mdps.actions)
        self.factor_names = task.factor_names
        self._state: int | None = None
        self._stream: int | None = None
        self._starts: list[int] = task.starts.tolist()
        self._moves = _moves(task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode at a random start state, or at ``options["state"]``."""
        super().reset(seed=seed)
        if seed is not None:
            self._stream = random_streams.seeded(int(seed))
        elif self._stream is None:
            self._stream = random_streams.seeded(int(self.np_random.integers(2**63)))
        if options and "state" in options:
            self._state = checked_start(options["state"], self.task)
        elif len(self._starts) == 1:
            self._state = self._starts[0]
        else:
            self._stream, number = random_streams.draw(self._stream)
            self._state = self._starts[int(number * len(self._starts))]
        return self._observation(), {"context_id": self._state}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move one step.

        Raises:
            ValueError: there is no such action.
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        if self._state is None or self._stream is None:
            raise ResetNeeded("Call reset() before step().")
        outcomes = self._moves[self._state][self._checked(action)]
        chosen = outcomes[0]
        if len(outcomes) > 1:
            self._stream, number = random_streams.draw(self._stream)
            chosen = next(outcome for outcome in outcomes if number < outcome.up_to)
        self._state = chosen.state
        factors = dict(chosen.factors)
        return self._observation(), chosen.reward, chosen.terminated, False, {"factors": factors}

    def render(self) -> Any:
        """The picture of the current state, in the render mode given at the start."""
        if self._state is None:
            raise ResetNeeded("Call reset() before render().")
        if self.render_mode is None or self.task.drawing is None:
            raise ValueError(
                "There is nothing to render with: make the environment with render_mode set to one "
                f"of {self.metadata['render_modes']}."
            )
        draw = self.task.drawing.text if self.render_mode == "ansi" else self.task.drawing.pixels
        return draw(self._state)

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

    def get_state(self) -> dict[str, np.ndarray]:
        """All that continues this very episode, its randomness included, as int64.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        if self._state is None or self._stream is None:
            raise ResetNeeded("Call reset() before get_state().")
        stream = np.array(self._stream, np.uint64).view(np.int64)
        return {"state": np.array(self._state, np.int64), "stream": stream}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to what :meth:`get_state` returned."""
        self._state = int(state["state"])
        self._stream = int(np.array(state["stream"], np.int64).view(np.uint64))

    def _checked(self, action: Any) -> int:
        try:
            number = index(action)
        except TypeError:
            number = -1
        if not 0 <= number < self.task.mdps.actions:
            raise ValueError(
                f"Action {action!r} does not exist; give an integer from 0 to "
                f"{self.task.mdps.actions - 1}."
            )
        return number

    def _observation(self) -> Observation:
        seen: Observation = self.task.observations[self._state]
        return seen.copy()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One thing that may happen, in plain Python numbers: faster than arrays for one lane."""

    state: int
    reward: float
    terminated: bool
    factors: dict[str, float]
    up_to: float
    """Chosen if the drawn number is below this."""


def _moves(task: TabularTask) -> list[list[Sequence[_Outcome]]]:
    """The possible outcomes of every action in every state."""
    mdp = task.mdps
    up_to = outcome_bounds(mdp).tolist()
    next_state, chance = mdp.next_state[0].tolist(), mdp.probability[0].tolist()
    rewards, features = mdp.outcome_rewards[0].tolist(), mdp.features[0].tolist()
    return [
        [
            tuple(
                _Outcome(
                    state=next_state[s][a][o],
                    reward=rewards[s][a][o],
                    terminated=bool(task.absorbing[next_state[s][a][o]]),
                    factors=dict(zip(task.factor_names, features[s][a][o], strict=True)),
                    up_to=up_to[s][a][o],
                )
                for o in range(len(chance[s][a]))
                if chance[s][a][o] > 0
            )
            for a in range(mdp.actions)
        ]
        for s in range(mdp.states)
    ]
