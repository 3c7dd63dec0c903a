"""What the single and the batched form of a tabular environment share: its rules, solved exactly.

One table is stepped, observed and solved, so that the three cannot disagree.
"""

from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from prefgym_envs import planning
from prefgym_envs.tabular_mdps import TabularMDPs


@runtime_checkable
class Drawing(Protocol):
    """A picture of every state."""

    def text(self, state: int) -> str:
        """The picture in letters, a line per row."""
        ...

    def pixels(self, state: int) -> np.ndarray:
        """The picture, uint8, shape (height, width, 3)."""
        ...


@dataclass(frozen=True, eq=False)
class TabularTask:
    """What single and batched environments have in common: the rules, and their exact solution.

    Attributes:
        mdps: a batch of one MDP.
        absorbing: the states in which an episode is over.
        observations: what is observed in each state, shape (states, ...).
        observation_space: to which every row of ``observations`` belongs.
        place_values: state = observation · place_values; one number for a plain index.
        factor_names: of the MDP's features, in their order.
        drawing: how to render a state; None if it cannot be rendered.
    """

    mdps: TabularMDPs
    absorbing: Bool[np.ndarray, " states"]
    observations: Num[np.ndarray, " states *obs"]
    observation_space: gym.Space[Any]
    place_values: tuple[int, ...]
    factor_names: tuple[str, ...]
    drawing: Drawing | None = None

    @cached_property
    def starts(self) -> Int[np.ndarray, " starts"]:
        """The states in which episodes start, all equally often."""
        return np.flatnonzero(self.mdps.start[0])

    @cached_property
    def values(self) -> planning.Values:
        """V* and Q*, solved when first asked for."""
        return planning.solve(self.mdps)

    @cached_property
    def optimal_policy(self) -> Float[np.ndarray, " states actions"]:
        """Probability of each action in each state; the best actions are mixed uniformly."""
        policy: np.ndarray = planning.greedy(self.values.q)[0]
        return policy

    @cached_property
    def optimal_return(self) -> float:
        """J*: the mean of V* over the start states."""
        return float(self.values.v[0] @ self.mdps.start[0])

    @cached_property
    def random_return(self) -> float:
        """J of the policy that takes every action equally often."""
        return float(planning.returns(self.mdps, planning.uniform(self.mdps))[0])

    def policy_return(self, policy: Float[np.ndarray, " states actions"]) -> float:
        """J of a policy: its expected discounted return, the mean over the start states."""
        return float(planning.returns(self.mdps, policy[None])[0])

    def scaled_return(self, policy: Float[np.ndarray, " states actions"]) -> float:
        """(J − J(random)) / (J* − J(random)): 0 for random actions, 1 for an optimal policy."""
        return float(planning.scaled_returns(self.mdps, policy[None])[0])

    def states_of(self, observations: Num[np.ndarray, " batch *obs"]) -> Int[np.ndarray, " batch"]:
        """The states that were observed.

        Raises:
            ValueError: an observation has another shape than the space, or is none of a state.
        """
        given = np.asarray(observations)
        shape = self.observations.shape[1:]
        if given.shape[1:] != shape or given.ndim == 0:
            raise ValueError(
                f"Observations of shape {given.shape} came where (batch, {str(shape)[1:-1]}) was "
                "wanted: one row per observation of the environment."
            )
        last = len(self.observations) - 1
        plain = self._observed_by_number and given.dtype.kind in "iu" and len(given) > 0
        if plain and given.min() >= 0 and given.max() <= last:
            return given.astype(np.int64, copy=False)
        numbers = np.clip(np.nan_to_num(given.astype(np.float64)), 0, last).reshape(len(given), -1)
        known = np.clip(numbers @ self.place_values, 0, last).astype(np.int64)
        if not (self.observations[known] == given).all():
            wrong = (self.observations[known] != given).reshape(len(given), -1).any(1).argmax()
            raise ValueError(f"Observation {given[wrong]} (number {wrong}) is none of this task's.")
        return known

    def advantages(
        self,
        observations: Num[np.ndarray, " batch *obs"],
        actions: Int[np.ndarray, " batch"],
    ) -> Float[np.ndarray, " batch"]:
        """A* = Q* − V* of actions, in units of reward: 0 if optimal or in an absorbing state.

        Raises:
            ValueError: an observation or an action is none of this task's.
        """
        states = self.states_of(observations)
        chosen = checked_actions(actions, self.mdps.actions, len(states))
        lost: np.ndarray = self._advantage_table.take(states * self.mdps.actions + chosen)
        return lost

    def state_values(
        self, observations: Num[np.ndarray, " batch *obs"]
    ) -> Float[np.ndarray, " batch"]:
        """V* of states, in units of reward: 0 in absorbing states.

        Raises:
            ValueError: an observation is none of this task's.
        """
        values: np.ndarray = self.values.v[0].take(self.states_of(observations))
        return values

    @cached_property
    def _advantage_table(self) -> Float[np.ndarray, " choices"]:
        """A* of every state and action, in one row."""
        table: np.ndarray = self.values.q[0] - self.values.v[0][:, None]
        return table.reshape(-1)

    @cached_property
    def _observed_by_number(self) -> bool:
        return np.array_equal(self.observations, np.arange(len(self.observations)))


def checked_actions(actions: Any, available: int, lanes: int) -> Int[np.ndarray, " lanes"]:
    """The actions as an integer array, one per lane.

    Raises:
        ValueError: they are no integers, too many or too few, or out of range.
    """
    given = np.asarray(actions)
    if given.shape != (lanes,) or given.dtype.kind not in "iu":
        raise ValueError(
            f"Actions of shape {given.shape} and type {given.dtype} came; give integers of shape "
            f"({lanes},), each from 0 to {available - 1}."
        )
    if lanes and (given.min() < 0 or given.max() >= available):
        wrong = int(((given < 0) | (given >= available)).argmax())
        raise ValueError(
            f"Action {given[wrong]} (lane {wrong}) does not exist; give integers from 0 to "
            f"{available - 1}."
        )
    return given.astype(np.int64, copy=False)


def checked_start(state: Any, task: TabularTask) -> int:
    """``state`` as an integer, if an episode can start there.

    Raises:
        ValueError: it cannot.
    """
    try:
        number = index(state)
    except TypeError:
        number = -1
    if not 0 <= number < task.mdps.states or task.mdps.start[0, number] == 0:
        raise ValueError(
            f'options["state"] is {state!r}, which is no start state; choose one of '
            f"{task.starts.tolist()}."
        )
    return number


def outcome_bounds(mdps: TabularMDPs) -> Float[np.ndarray, " states actions outcomes"]:
    """Upper ends of the outcomes' shares of [0, 1); the last possible one takes all the rest."""
    bounds: np.ndarray = np.cumsum(mdps.probability[0], -1)
    last = bounds >= bounds[..., -1:]
    return np.where(last, 1.0, bounds)
