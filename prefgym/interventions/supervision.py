"""One supervisor over all lanes of an environment: who acts in the next step, and who is blamed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import gymnasium as gym
import numpy as np
from jaxtyping import Bool

from prefgym.interventions.experts import as_expert
from prefgym.interventions.rules import Rule
from prefgym.names import lookup

Judged = Literal["executed", "proposed"]
INTERVENED, REFUSED, PROPOSED = "intervened", "refused", "proposed"
"""Factors of every step: whether the expert acted, whether the policy's action was not let pass,
and, where proposals are judged, the numbers of the policy's action."""

FOREVER = 2**62
"""Steps of an intervention that lasts to the end of the episode."""


class Decided(NamedTuple):
    """Who acts in a step."""

    actions: np.ndarray
    """What is executed."""
    intervened: Bool[np.ndarray, " lanes"]
    """Where it is the expert's."""
    refused: Bool[np.ndarray, " lanes"]
    """Where a proposal was not let pass; nowhere if executed actions are judged."""


@dataclass
class Supervision:
    """Decides who acts.

    Judging *executed* actions: the policy acts; if that is not let pass, the expert acts for the
    next ``steps`` steps, then the policy again. Judging *proposed* ones: an action that is not let
    pass is never executed; the expert acts for ``steps`` steps, this one included; the policy's
    next action passes in any case, and then proposals are judged again.

    Args of the constructor:
        expert: acts in interventions (:func:`~prefgym.interventions.experts.as_expert`).
        rule: decides about them.
        steps: of an intervention; None: to the end of the episode.
        judged: "executed" or "proposed".

    Raises:
        ValueError: fewer steps than one, or a rule that cannot be asked.
    """

    expert: Any
    rule: Rule
    steps: int | None = 4
    judged: Judged = "executed"

    def __post_init__(self) -> None:
        """Refuse settings that can never work."""
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"Interventions of steps={self.steps}; wanted one step or more.")
        lookup(self.judged, dict.fromkeys(get_args(Judged)), "setting of judged=")
        if not callable(self.rule):
            raise ValueError(
                "An intervention rule is asked rule(observations, actions, rng); got"
                f" {self.rule!r}. There are ValueBased, Random, Distance and Person."
            )


class Running:
    """A supervision at work in some lanes.

    Args:
        supervision: who decides and acts.
        lanes: how many.
        observation_space: of one lane.
        action_space: of one lane.
        limit: steps of an episode at most; None where there is no limit.

    Raises:
        ValueError: an expert for other spaces, or interventions longer than an episode.
    """

    def __init__(
        self,
        supervision: Supervision,
        lanes: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        limit: int | None,
    ) -> None:
        self.supervision = supervision
        self.expert = as_expert(supervision.expert, observation_space, action_space)
        self.steps = FOREVER if supervision.steps is None else supervision.steps
        if supervision.steps is not None and limit is not None and self.steps > limit:
            raise ValueError(
                f"Interventions of steps={self.steps} are longer than an episode, which ends"
                f" after {limit} steps; choose fewer."
            )
        self.left = np.zeros(lanes, np.int64)
        """Steps that the expert still acts in each lane."""
        self.passing = np.zeros(lanes, np.bool_)
        """Lanes whose next proposal is not judged."""
        self.rng = np.random.default_rng(0)
        self.factor_names = (INTERVENED, REFUSED, *self._proposal_names(action_space))

    def begin(self, lanes: Bool[np.ndarray, " lanes"]) -> None:
        """Episodes begin there; nobody intervenes yet."""
        self.left[lanes] = 0
        self.passing[lanes] = False

    def before(
        self, observations: np.ndarray, actions: np.ndarray, acting: Bool[np.ndarray, " lanes"]
    ) -> Decided:
        """Who acts, given what the policy would do.

        Args:
            observations: ``[lanes, *obs]``, in which the actions were chosen.
            actions: ``[lanes, *act]``.
            acting: lanes that make a step at all.
        """
        refused = np.zeros(len(self.left), np.bool_)
        if self.supervision.judged == "proposed":
            free = acting & (self.left == 0)
            refused = self._judged(observations, actions, free & ~self.passing)
            self.passing[free] = False
            self.left[refused] = self.steps
        intervened = acting & (self.left > 0)
        if intervened.any():
            actions = np.array(actions)
            actions[intervened] = self.expert(observations[intervened])
        return Decided(actions, intervened, refused)

    def after(
        self,
        observations: np.ndarray,
        decided: Decided,
        acting: Bool[np.ndarray, " lanes"],
        ended: Bool[np.ndarray, " lanes"],
    ) -> Bool[np.ndarray, " lanes"]:
        """Which of the policy's actions were not let pass, when the step is made.

        Args:
            observations: in which the actions were chosen.
            decided: what :meth:`before` said.
            acting: lanes that made a step.
            ended: lanes whose episodes ended in it.
        """
        self.left[decided.intervened] -= 1
        self.passing |= decided.intervened & (self.left == 0)
        refused = decided.refused
        if self.supervision.judged == "executed":
            free = acting & ~decided.intervened
            refused = self._judged(observations, decided.actions, free)
            self.left[refused] = self.steps
        self.begin(ended)
        return refused

    def factors(
        self, decided: Decided, refused: Bool[np.ndarray, " lanes"], proposed: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The same as named parts of the step, ``[lanes]`` each."""
        told = {INTERVENED: decided.intervened.astype(float), REFUSED: refused.astype(float)}
        columns = np.asarray(proposed, np.float64).reshape(len(self.left), -1).T
        return told | dict(zip(self.factor_names[2:], columns, strict=False))

    def get_state(self) -> dict[str, Any]:
        """What decides who acts next."""
        passing = self.passing.copy()
        return {"left": self.left.copy(), "passing": passing, "rng": self.rng.bit_generator.state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`get_state`."""
        self.left, self.passing = np.array(state["left"]), np.array(state["passing"])
        self.rng.bit_generator.state = state["rng"]

    def _judged(
        self, observations: np.ndarray, actions: np.ndarray, free: Bool[np.ndarray, " lanes"]
    ) -> Bool[np.ndarray, " lanes"]:
        refused = np.zeros(len(free), np.bool_)
        if free.any():
            told = self.supervision.rule(observations[free], np.asarray(actions)[free], self.rng)
            refused[free] = told
        return refused

    def _proposal_names(self, action_space: gym.Space[Any]) -> Sequence[str]:
        if self.supervision.judged != "proposed":
            return ()
        return [f"{PROPOSED}_{k}" for k in range(int(np.prod(action_space.shape or (1,))))]
