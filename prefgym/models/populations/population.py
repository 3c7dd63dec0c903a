"""What all populations share, and the head that asks them."""

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from prefgym.models.heads import Heard, IdealPointHead, TasteHead, at_least_one


class Evidence(NamedTuple):
    """Who said what about which pairs."""

    read: Float[Tensor, " pairs 2 numbers"]
    """What both sides are like on average."""
    label: Float[Tensor, " pairs"]
    rater_id: Int[Tensor, " pairs"]


class Population(nn.Module):
    """Base of all populations: K tastes, R raters, members side by side."""

    published = "population"
    """Its key among ``prefgym.models.presets.MODELS``, for messages."""
    tastes_of_raters = False
    """Whether a taste is learned from raters of its own, so that K may not exceed them."""
    awaits_raters = False
    """Whether answers of other raters are still to come, as while a learner goes on asking: then it
    is a warning, not an error, that too few were heard so far."""
    reads_context = False
    """Whether :meth:`weights` wants to know how the segments began."""
    reassesses = False
    """Whether :meth:`reassess` does anything."""
    mixture = False
    """Whether one taste speaks at a time, instead of all with their weights."""

    def __init__(self, members: int, tastes: int, raters: int) -> None:
        super().__init__()
        self.members = members
        self.tastes = at_least_one(type(self).__name__, "tastes", tastes)
        self.raters = at_least_one(type(self).__name__, "raters", raters)
        self.penalty: Tensor | float = 0.0
        """Added to the mean loss of the last weights asked for with gradient."""
        self.register_buffer("shares", torch.full((raters,), 1.0 / raters))

    shares: Tensor
    """``[raters]``: whose answers the fitted ones were."""

    @property
    def groups(self) -> int:
        """Reward functions that the population tells apart."""
        return self.raters

    def weights(self, heard: Heard) -> Float[Tensor, " members pairs tastes"]:
        """How much each taste counts in each answer, with gradient."""
        raise NotImplementedError

    def group_weights(
        self, context: Tensor | None
    ) -> Float[Tensor, " groups members batch tastes"]:
        """The same for each group; one row for all segments unless they have a context."""
        everyone = torch.arange(self.raters, device=self.shares.device)
        rows: Tensor = self.weights(Heard(everyone.expand(self.members, -1), None))
        return rows.transpose(0, 1)[:, :, None]

    def begin(self, evidence: Evidence, seed: int) -> None:
        """A fit to these answers begins.

        Raises:
            ValueError: raters that cannot be told apart, more of them than there is room for, or
                fewer than tastes; where :attr:`awaits_raters`, too few are a warning.
        """
        check_raters(evidence.rater_id, self.raters, self.published)
        counts = torch.bincount(evidence.rater_id, minlength=self.raters)
        told = unheard(counts, self.tastes if self.tastes_of_raters else 1, self.published)
        if told.fatal and not self.awaits_raters:
            raise ValueError(told.sentence)
        if told.sentence:
            warnings.warn(told.sentence, stacklevel=2)
        self.shares.copy_(counts / counts.sum())

    def reassess(
        self,
        differences: Float[Tensor, " members pairs tastes"],
        label: Float[Tensor, " pairs"],
        rater_id: Int[Tensor, " pairs"],
    ) -> None:
        """Before each pass over the pairs: what every taste says of them."""

    def infer(
        self,
        evidence: Evidence,
        differences: Float[Tensor, " members pairs tastes"],
        raters: int,
    ) -> Float[Tensor, " raters members tastes"]:
        """The weights of raters who were not fitted; ``evidence.rater_id`` counts from 0.

        Raises:
            ValueError: the population does not tell raters apart.
        """
        raise ValueError(
            f"{type(self).__name__}.infer: its weights do not depend on who is asked; choose pal,"
            " vpl or maxmin to tell raters apart."
        )


class PopulationHead(nn.Module):
    """A head whose margin depends on who was asked: K rewards for every step × a population.

    Args:
        tastes: gives every step K rewards.
        population: weighs them.

    Raises:
        ValueError: the two differ in K.
    """

    def __init__(self, tastes: TasteHead | IdealPointHead, population: Population) -> None:
        super().__init__()
        if tastes.tastes != population.tastes:
            raise ValueError(
                f"PopulationHead: the head has {tastes.tastes} tastes and the population"
                f" {population.tastes}; make both with the same number."
            )
        self.tastes = tastes
        self.population = population
        self.width = tastes.width

    @property
    def groups(self) -> int:
        """Reward functions that :meth:`group_rewards` tells apart."""
        return self.population.groups

    def summary(self, steps: Tensor, mask: Tensor) -> Float[Tensor, " members segments tastes"]:
        """What each taste finds a segment worth: sums over the real steps."""
        return (self.tastes.rewards(steps) * mask[..., None]).sum(2)

    def margin(
        self,
        a: Float[Tensor, " members pairs tastes"],
        b: Float[Tensor, " members pairs tastes"],
        heard: Heard | None = None,
    ) -> Float[Tensor, " members pairs"]:
        """How much better whoever was asked finds ``a``, in nats of log-odds.

        Raises:
            ValueError: a rater beyond those that there is room for.
        """
        if heard is None:
            return self.margin_of_all(a, b, None)
        return self.margin_of(a, b, self.population.weights(heard))

    def margin_of(
        self,
        a: Float[Tensor, " members pairs tastes"],
        b: Float[Tensor, " members pairs tastes"],
        weights: Float[Tensor, " members pairs tastes"],
    ) -> Float[Tensor, " members pairs"]:
        """The same for weights that are known."""
        if not self.population.mixture:
            return ((a - b) * weights).sum(-1)
        return mixed_log_odds(a - b, weights, -1)

    def margin_of_all(
        self,
        a: Float[Tensor, " members pairs tastes"],
        b: Float[Tensor, " members pairs tastes"],
        context: Tensor | None,
    ) -> Float[Tensor, " members pairs"]:
        """The log-odds that somebody drawn from the population prefers ``a``."""
        weights = self.population.group_weights(context)
        if self.groups == 1:
            return self.margin_of(a, b, weights[0].expand_as(a))
        each = ((a - b) * weights).sum(-1)
        return mixed_log_odds(each, self.population.shares[:, None, None], 0)

    def group_rewards(
        self, steps: Float[Tensor, " members batch steps width"], context: Tensor | None
    ) -> Float[Tensor, " groups members batch steps"]:
        """The reward of every step to every group."""
        weights = self.population.group_weights(context)
        return (self.tastes.rewards(steps) * weights[:, :, :, None]).sum(-1)

    def mixed(
        self, grouped: Float[Tensor, " groups members batch steps"]
    ) -> Float[Tensor, " members batch steps"]:
        """What a step is worth to all groups together, by their shares of the answers."""
        if len(grouped) == 1:
            return grouped[0]
        return torch.einsum("g,gmbt->mbt", self.population.shares, grouped)


def mixed_log_odds(
    differences: Tensor, weights: Tensor, dim: int
) -> Float[Tensor, " members pairs"]:
    """The logit of Σ_k w_k σ(Δ_k): its logistic loss is the mixture's −log likelihood."""
    log_weights = weights.clamp(min=torch.finfo(weights.dtype).tiny).log()
    for_a: Tensor = (log_weights + functional.logsigmoid(differences)).logsumexp(dim)
    for_b = (log_weights + functional.logsigmoid(-differences)).logsumexp(dim)
    return for_a - for_b


def check_raters(rater_id: Int[Tensor, " answers"], raters: int, who: str) -> None:
    """Refuse ids that a population has no room for.

    Raises:
        ValueError: ids below 0 or beyond ``raters``.
    """
    if not len(rater_id):
        return
    low, high = int(rater_id.min()), int(rater_id.max())
    if low < 0 or high >= raters:
        raise ValueError(
            f"{who}: rater {low if low < 0 else high} answered, and there is room for the raters 0"
            f" to {raters - 1}; make the model with raters={high + 1} (in a learner:"
            f" population={high + 1}), or renumber the raters."
        )


class Unheard(NamedTuple):
    """Who has not answered."""

    sentence: str
    """Empty where everybody has."""
    fatal: bool
    """Whether nothing can be told apart without the others."""


def unheard(counts: Int[Tensor, " raters"], tastes: int, who: str) -> Unheard:
    """What is to be said about raters without answers.

    Args:
        counts: answers of each.
        tastes: K that are learned from raters of their own; 1 if none is.
        who: the population's name.
    """
    heard = (counts > 0).nonzero()[:, 0].tolist()
    missing = (counts == 0).nonzero()[:, 0].tolist()
    if len(heard) == 1 and missing:
        return Unheard(
            f"{who}: all answers carry the rater id {heard[0]}, so raters cannot be told apart;"
            " give comparisons whose rater_id says who answered, or a pooled model.",
            True,
        )
    if heard and len(heard) < tastes:
        return Unheard(
            f"{who}: {tastes} tastes cannot be learned from the {len(heard)} raters who answered"
            f" ({_some(heard)}); ask more raters, or choose tastes={len(heard)}.",
            True,
        )
    if heard and missing:
        return Unheard(
            f"{who}: there are no answers of {len(missing)} of {len(counts)} raters"
            f" ({_some(missing)}), about whom the model knows nothing yet; ask them too, or make"
            " the model for those only who answer.",
            False,
        )
    return Unheard("", False)


def check_tastes(tastes: int, raters: int, who: str) -> None:
    """Refuse more tastes than there are raters to have them.

    Raises:
        ValueError: there are more.
    """
    if tastes > raters:
        raise ValueError(
            f"{who}: {raters} rater{'s' if raters > 1 else ''} cannot tell {tastes} tastes apart;"
            f" make the model for more raters (raters={tastes}; in a learner: population={tastes}),"
            f" or choose tastes={raters}."
        )


def _some(raters: list[int]) -> str:
    return ", ".join(map(str, raters[:5])) + (", ..." if len(raters) > 5 else "")
