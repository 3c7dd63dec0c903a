"""Policies that serve people by what a preference model inferred about them."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prefgym.models.ensembles import Ensemble, Voices
from prefgym.models.populations import PopulationHead
from prefgym.showing import Showing
from prefgym.wrappers.inner import find_attribute
from prefgym.wrappers.notes import PERSON
from prefgym_agents.backend import PolicyBackend


@runtime_checkable
class ReadsDescriptions(Protocol):
    """A backend whose policy can read numbers about a person in place of who it is.

    Observations end in who it is, as environments made with ``personal=`` show them.
    """

    def read_descriptions(self, people: int, numbers: int) -> None:
        """Make the policy anew, before training: so many numbers for each of so many people."""
        ...

    def describe(self, table: Tensor) -> None:
        """Read these descriptions from now on, ``[people, numbers]``."""
        ...

    def descriptions(self) -> Tensor | None:
        """Those that are read; None where the policy sees who it is."""
        ...


@torch.no_grad()
def described(model: Any) -> Float[Tensor, " people numbers"]:
    """What a model inferred about each rater that it was fitted to: the members' weights in a row.

    Raises:
        ValueError: it tells no raters apart.
    """
    head = getattr(model, "head", None)
    if not isinstance(model, Ensemble) or not isinstance(head, PopulationHead) or head.groups < 2:
        raise ValueError(
            f"serve='inferred': a {type(head or model).__name__} infers nothing about raters;"
            " choose a model that tells them apart (pal, vpl or maxmin with population=2 or more),"
            " or serve='everyone'."
        )
    if head.population.reads_context:
        raise ValueError(
            f"serve='inferred': {head.population.published} weighs tastes by what segments are"
            " about, not by who is asked; choose pal, vpl or maxmin."
        )
    return head.population.group_weights(None)[:, :, 0].flatten(1).float().cpu()


def reads_descriptions(policy: PolicyBackend) -> ReadsDescriptions:
    """The same policy, as one that can read descriptions.

    Raises:
        ValueError: it cannot, or its environment plays episodes for nobody.
    """
    if PERSON not in policy.env.store.factor_names:
        raise ValueError(
            "serve='inferred': nobody is served in this environment; make it with personal=, or"
            " choose serve='everyone'."
        )
    if not isinstance(policy, ReadsDescriptions):
        raise ValueError(
            f"serve='inferred': a {type(policy).__name__} does not read descriptions of people;"
            " use sb3_backend or language_backend, or serve='person'."
        )
    return policy


class Serving:
    """The policy as it acts for raters who were not fitted, one in each lane.

    Args:
        policy: that reads descriptions. It is itself again after every call.
        voices: what the model inferred about some raters (``model.infer``).
        rater_id: ``[lanes]``, whom each lane serves; one of them serves a single rater in all.

    Raises:
        ValueError: a policy that reads no descriptions, or a rater that is not among the voices.
    """

    def __init__(
        self, policy: PolicyBackend, voices: Voices, rater_id: Int[np.ndarray, " lanes"]
    ) -> None:
        known = policy.descriptions() if isinstance(policy, ReadsDescriptions) else None
        if known is None:
            raise ValueError(
                "This policy sees the number of a person, and one that was not fitted has none;"
                " train it with serve='inferred'."
            )
        unknown = np.setdiff1d(rater_id, voices.rater_id)
        if len(unknown):
            raise ValueError(
                f"Rater {unknown[0]} is not among the {len(voices.rater_id)} voices; give infer()"
                " some of that rater's answers first."
            )
        self.policy: Any = policy
        self.showing: Showing = find_attribute(policy.env, "showing")
        self.known: Tensor = known
        self.rows = voices.weights.flatten(1).float().cpu()
        self.place = np.searchsorted(voices.rater_id, rater_id)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Actions for a batch of observations, for whomever they are meant."""
        seen = np.array(observation)
        place = np.broadcast_to(self.place, len(seen))
        people = len(self.known)
        actions: Any = None
        for first in range(0, len(self.rows), people):
            lanes = np.flatnonzero((first <= place) & (place < first + people))
            if not len(lanes):
                continue
            meant = self.showing.addressed(seen[lanes], place[lanes] - first)
            chosen = self._as_described(self.rows[first : first + people], meant, deterministic)
            if actions is None:
                actions = np.zeros((len(seen), *chosen.shape[1:]), chosen.dtype)
            actions[lanes] = chosen
        return actions, state

    def _as_described(self, rows: Tensor, seen: np.ndarray, deterministic: bool) -> np.ndarray:
        table = torch.zeros_like(self.known)
        table[: len(rows)] = rows
        newest = self.policy.descriptions()
        self.policy.describe(table)
        try:
            chosen: np.ndarray = self.policy.predict(seen, None, None, deterministic)[0]
            return chosen
        finally:
            self.policy.describe(newest)
