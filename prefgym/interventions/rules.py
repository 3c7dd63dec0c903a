"""When a supervisor takes over: rules about a state and the action chosen in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from prefgym.interventions.experts import Expert
from prefgym.raters.scores import OwnValues


@runtime_checkable
class Rule(Protocol):
    """Looks at actions in their states, ``[n]`` at a time."""

    def __call__(
        self, observations: np.ndarray, actions: np.ndarray, rng: np.random.Generator
    ) -> Bool[np.ndarray, " n"]:
        """Which of them the supervisor does not let pass."""
        ...


@dataclass(frozen=True)
class ValueBased:
    """Somebody who knows what actions are worth, without being able to act better.

        A(s, a) < −margin · scale(s)          A(s, a) = Q(s, a) − V(s)

    is not let pass with probability ``sure``, anything else with probability ``slip``. The scale is
    |V(s)|, or a number. Source: Luo et al. (2023), arXiv:2311.12996, whose Q(s, a) < α Q(s, a_ref)
    this is for positive values with margin = 1 − α; relative to the size of the values it means the
    same where they are negative.

    Args of the constructor:
        values: a value source (``prefgym.values``), with ``state_values`` unless ``scale`` is
            given; or an environment that solves itself.
    """

    values: Any
    margin: float = 0.02
    scale: float | None = None
    """In units of return; None: |V(s)|."""
    sure: float = 0.95
    slip: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what can decide nothing."""
        if getattr(self.values, "advantages", None) is not None:
            known = OwnValues(self.values.advantages, self.values.state_values)
            object.__setattr__(self, "values", known)
        if self.values is None or not callable(self.values):
            raise ValueError(
                "ValueBased: the supervisor needs a value source, who knows what actions are worth;"
                f" got {self.values!r}. Tabular tasks are one (env.unwrapped), control tasks take a"
                " trained critic."
            )
        if self.scale is None and not hasattr(self.values, "state_values"):
            raise ValueError(
                "ValueBased: this value source does not know the values of states, against which a"
                " margin is measured; give scale= in units of return."
            )
        if self.margin < 0.0 or not (0.0 <= self.slip <= 1.0 and 0.0 <= self.sure <= 1.0):
            raise ValueError(
                f"ValueBased: margin={self.margin}, sure={self.sure}, slip={self.slip}; wanted a"
                " margin of 0 or more and two probabilities."
            )

    def __call__(
        self, observations: np.ndarray, actions: np.ndarray, rng: np.random.Generator
    ) -> Bool[np.ndarray, " n"]:
        """Which actions lose too much.

        Raises:
            ValueError: the value source says NaN, which is neither much nor little.
        """
        lost = -np.asarray(self.values(observations, actions), np.float64)
        scale = self.scale
        if scale is None:
            scale = np.abs(self.values.state_values(observations))
        allowed = np.broadcast_to(self.margin * np.asarray(scale, np.float64), lost.shape)
        unknown = np.isnan(lost) | np.isnan(allowed)
        if unknown.any():
            raise ValueError(
                "ValueBased: the value source says NaN about the action"
                f" {np.asarray(actions)[unknown][0].tolist()} for the observation"
                f" {np.asarray(observations)[unknown][0].tolist()}; wanted a number, so look for"
                " the NaN in the critic behind it."
            )
        bad = lost > allowed
        found: np.ndarray = rng.random(len(bad)) < np.where(bad, self.sure, self.slip)
        return found


@dataclass(frozen=True)
class Random:
    """Takes over at random: what a learner can make of interventions that say nothing."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"Random: rate={self.rate}; wanted a probability.")

    def __call__(
        self, observations: np.ndarray, actions: np.ndarray, rng: np.random.Generator
    ) -> Bool[np.ndarray, " n"]:
        """A share of them."""
        found: np.ndarray = rng.random(len(observations)) < self.rate
        return found


@dataclass(frozen=True)
class Distance:
    """Takes over where an action is far from the expert's: Σ |a − a*| ≥ threshold.

    Discrete actions are 1 apart or 0. Source: the gate of HG-DAgger, Kelly et al. (2019),
    arXiv:1810.02890, as released for RLIF (L1 distance).
    """

    expert: Expert
    threshold: float = 1.0

    def __call__(
        self, observations: np.ndarray, actions: np.ndarray, rng: np.random.Generator
    ) -> Bool[np.ndarray, " n"]:
        """Those that are too far.

        Raises:
            ValueError: the expert's actions have another shape, or are NaN.
        """
        wanted, done = np.asarray(self.expert(observations)), np.asarray(actions)
        if wanted.shape != done.shape or np.isnan(np.asarray(wanted, np.float64)).any():
            raise ValueError(
                f"Distance: the expert returned actions of shape {wanted.shape} (NaN among them or"
                f" not) to measure actions of shape {done.shape} against; wanted the same shape and"
                " finite numbers, so check its policy and the environment that it is for."
            )
        gap = np.abs(done.astype(np.float64) - wanted)
        if np.issubdtype(done.dtype, np.integer):
            gap = (gap > 0).astype(np.float64)
        far: np.ndarray = gap.reshape(len(gap), -1).sum(1) >= self.threshold
        return far


@dataclass(frozen=True)
class Person:
    """A person at a screen, or any other function, says so.

    ``says(observations, actions)`` returns one truth for all lanes, or one for each.
    """

    says: Callable[[np.ndarray, np.ndarray], Any]

    def __call__(
        self, observations: np.ndarray, actions: np.ndarray, rng: np.random.Generator
    ) -> Bool[np.ndarray, " n"]:
        """As told.

        Raises:
            ValueError: the answer is not one truth, or one for each lane.
        """
        told = np.asarray(self.says(observations, actions), np.bool_)
        if told.shape not in ((), (len(observations),)):
            raise ValueError(
                f"Person: says() returned an array of shape {told.shape} for {len(observations)}"
                " lanes; wanted one truth, or one for each lane."
            )
        return np.broadcast_to(told, (len(observations),))
