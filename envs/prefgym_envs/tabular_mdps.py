"""Finite Markov decision processes as tables, in batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class TabularMDPs:
    """A batch of finite MDPs with rewards that are linear in features: r = features · weights.

    Every state is a number in 0..states−1. An episode ends in an absorbing state: all its actions
    lead back to it, with features 0, so that its value is 0. The batch may be a batch of one.

    Attributes:
        next_state: where each outcome of each action leads.
        probability: of each outcome; sums to 1 over the outcomes.
        features: what each outcome counts.
        weights: reward per unit of each feature.
        start: probability that an episode starts in a state.
        discount: of the next step's reward, below 1.

    Raises:
        ValueError: the shapes do not fit each other, probabilities do not sum to 1, a next state
            does not exist, or the discount is not in [0, 1).
    """

    next_state: Int[np.ndarray, " mdps states actions outcomes"]
    probability: Float[np.ndarray, " mdps states actions outcomes"]
    features: Float[np.ndarray, " mdps states actions outcomes features"]
    weights: Float[np.ndarray, " mdps features"]
    start: Float[np.ndarray, " mdps states"]
    discount: float = 0.999

    def __post_init__(self) -> None:
        self._check_shapes()
        if not 0.0 <= self.discount < 1.0:
            raise ValueError(
                f"discount is {self.discount}, but exact values of tasks without a time limit need "
                "a discount of at least 0 and below 1."
            )
        if self.next_state.min() < 0 or self.next_state.max() >= self.states:
            raise ValueError(
                f"next_state runs from {self.next_state.min()} to {self.next_state.max()}, but the "
                f"states are 0 to {self.states - 1}."
            )
        for name, mass in (("probability", self.probability), ("start", self.start)):
            if (mass < 0).any() or not np.allclose(mass.sum(-1), 1.0, rtol=0, atol=1e-9):
                raise ValueError(f"{name} must be non-negative and sum to 1 over its last axis.")
        if not np.isfinite(self.features).all() or not np.isfinite(self.weights).all():
            raise ValueError("features and weights must be finite numbers, without NaN.")

    def _check_shapes(self) -> None:
        mdps, states, actions, outcomes = self.next_state.shape
        features = self.weights.shape[-1]
        wanted = {
            "probability": (mdps, states, actions, outcomes),
            "features": (mdps, states, actions, outcomes, features),
            "weights": (mdps, features),
            "start": (mdps, states),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} has shape {getattr(self, name).shape}, but next_state and weights ask "
                    f"for {shape}."
                )

    def __len__(self) -> int:
        """Number of MDPs in the batch."""
        return len(self.next_state)

    @property
    def states(self) -> int:
        """Number of states of each MDP."""
        return int(self.next_state.shape[1])

    @property
    def actions(self) -> int:
        """Number of actions in each state."""
        return int(self.next_state.shape[2])

    @cached_property
    def outcome_rewards(self) -> Float[np.ndarray, " mdps states actions outcomes"]:
        """Reward of every single outcome."""
        rewards: np.ndarray = np.einsum("msaof,mf->msao", self.features, self.weights)
        return rewards

    @cached_property
    def rewards(self) -> Float[np.ndarray, " mdps states actions"]:
        """Expected reward of every action."""
        rewards: np.ndarray = (self.probability * self.outcome_rewards).sum(-1)
        return rewards

    @cached_property
    def deterministic(self) -> bool:
        """Whether every action leads to one state for certain (its reward may still be random)."""
        same = self.next_state == self.next_state[..., :1]
        return bool((same | (self.probability == 0)).all() and (self.probability[..., 0] > 0).all())

    def with_weights(self, weights: Float[np.ndarray, " mdps features"]) -> "TabularMDPs":
        """The same MDPs with other rewards.

        Args:
            weights: one row per MDP; a batch of one MDP takes any number of rows, and becomes
                that many MDPs which share the memory of their transitions.

        Raises:
            ValueError: the number of rows fits neither.
        """
        if len(self) not in (1, len(weights)):
            raise ValueError(
                f"Got {len(weights)} rows of weights for {len(self)} MDPs; give one row per MDP."
            )
        count = len(weights)

        def shared(table: np.ndarray) -> np.ndarray:
            return np.broadcast_to(table, (count, *table.shape[1:]))

        return replace(
            self,
            weights=weights,
            next_state=shared(self.next_state),
            probability=shared(self.probability),
            features=shared(self.features),
            start=shared(self.start),
        )


def stack(batches: Sequence[TabularMDPs]) -> TabularMDPs:
    """One batch out of several, whose numbers of states and outcomes may differ.

    Smaller MDPs are filled up with absorbing states that nothing leads to.

    Raises:
        ValueError: there is nothing to stack, or actions, features or discounts differ.
    """
    if not batches:
        raise ValueError("There is nothing to stack: give at least one TabularMDPs.")
    kinds = {(one.actions, one.weights.shape[-1], one.discount) for one in batches}
    if len(kinds) > 1:
        raise ValueError(
            "Only MDPs with equal numbers of actions and features and equal discounts can be "
            f"stacked; these have (actions, features, discount) = {sorted(kinds)}."
        )
    states = max(one.states for one in batches)
    outcomes = max(one.next_state.shape[3] for one in batches)
    padded = [_padded(one, states, outcomes) for one in batches]
    return TabularMDPs(
        next_state=np.concatenate([one.next_state for one in padded]),
        probability=np.concatenate([one.probability for one in padded]),
        features=np.concatenate([one.features for one in padded]),
        weights=np.concatenate([one.weights for one in padded]),
        start=np.concatenate([one.start for one in padded]),
        discount=padded[0].discount,
    )


def _padded(mdps: TabularMDPs, states: int, outcomes: int) -> TabularMDPs:
    """The same MDPs with more states (absorbing, unreachable) and more outcomes (impossible)."""
    more_states = states - mdps.states
    more_outcomes = outcomes - mdps.next_state.shape[3]
    if not more_states and not more_outcomes:
        return mdps
    table = ((0, 0), (0, more_states), (0, 0), (0, more_outcomes))
    next_state = np.pad(mdps.next_state, table)
    next_state[..., mdps.next_state.shape[3] :] = next_state[..., :1]
    next_state[:, mdps.states :] = np.arange(mdps.states, states).reshape(-1, 1, 1)
    probability = np.pad(mdps.probability, table)
    probability[:, mdps.states :, :, 0] = 1.0
    return replace(
        mdps,
        next_state=next_state,
        probability=probability,
        features=np.pad(mdps.features, (*table, (0, 0))),
        start=np.pad(mdps.start, ((0, 0), (0, more_states))),
    )
