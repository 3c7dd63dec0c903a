"""Populations whose raters have a row of their own: on a simplex of prototypes, or in a cluster."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from prefgym.models.heads import Heard
from prefgym.models.populations.population import Evidence, Population, check_raters, check_tastes

SHARPNESS = 10.0
"""A step of a rater's row counts so much: rows see few answers, and must move faster than nets."""


class Pooled(Population):
    """The same weights for everybody; as a mixture, somebody unknown speaks each time."""

    def __init__(self, members: int, tastes: int, mixture: bool = True) -> None:
        super().__init__(members, tastes, 1)
        self.mixture = mixture
        self.rows = nn.Parameter(torch.zeros(members, tastes))

    def weights(self, heard: Heard) -> Float[Tensor, " members pairs tastes"]:
        """The one row."""
        rows: Tensor = (SHARPNESS * self.rows).softmax(-1)
        return rows[:, None].expand(-1, heard.rater_id.shape[1], -1)

    def begin(self, evidence: Evidence, seed: int) -> None:
        """Nobody is told apart."""


class Simplex(Population):
    """A rater is a mixture of K prototypes: w = softmax of the rater's own row.

    Source: Chen et al. (2025), arXiv:2406.08469 (PAL). A new rater's row is fitted with everything
    else frozen.

    Args:
        members: networks in the ensemble.
        tastes: K prototypes, at most as many as raters.
        raters: how many will be fitted; their ids count from 0.

    Raises:
        ValueError: more prototypes than raters.
    """

    published = "pal"
    tastes_of_raters = True
    STEPS, RATE, PRIOR = 200, 0.1, 0.01
    """Of a new rater's fit: steps and rate of Adam, and the weight of the row's square."""

    def __init__(self, members: int, tastes: int, raters: int) -> None:
        check_tastes(tastes, raters, self.published)
        super().__init__(members, tastes, raters)
        self.rows = nn.Parameter(torch.zeros(members, raters, tastes))

    def weights(self, heard: Heard) -> Float[Tensor, " members pairs tastes"]:
        """The rows of those who were asked."""
        return (SHARPNESS * rows_of(self.rows, heard.rater_id, self)).softmax(-1)

    def infer(
        self,
        evidence: Evidence,
        differences: Float[Tensor, " members pairs tastes"],
        raters: int,
    ) -> Float[Tensor, " raters members tastes"]:
        """Rows fitted to the new raters' answers, all side by side."""
        rows = differences.new_zeros(self.members, raters, self.tastes, requires_grad=True)
        optimizer = torch.optim.Adam([rows], lr=self.RATE)
        with torch.enable_grad():
            for _ in range(self.STEPS):
                optimizer.zero_grad(set_to_none=True)
                weights = rows[:, evidence.rater_id].softmax(-1)
                margin = (differences.detach() * weights).sum(-1)
                label = evidence.label.expand_as(margin)
                wrong = functional.binary_cross_entropy_with_logits(margin, label, reduction="sum")
                (wrong + self.PRIOR * rows.square().sum()).backward()
                optimizer.step()
        return rows.detach().softmax(-1).transpose(0, 1)


class HardClusters(Population):
    """Every rater has one of K tastes: the one under which the answers were likeliest.

    Before each pass every rater is assigned anew (E-step); the pass fits each taste to its own
    raters' answers (M-step). A taste that lost all raters takes over those who are explained worst.

    Source: Chakraborty et al. (2024), arXiv:2402.08925 (MaxMin-RLHF), alg. 2.

    Args:
        members: networks in the ensemble; each has assignments of its own.
        tastes: K, at most as many as raters.
        raters: how many will be fitted; their ids count from 0.

    Raises:
        ValueError: more tastes than raters.
    """

    assignment: Tensor
    """``[members, raters]``: whose taste is which."""
    published = "maxmin"
    tastes_of_raters = True
    reassesses = True

    def __init__(self, members: int, tastes: int, raters: int) -> None:
        check_tastes(tastes, raters, self.published)
        super().__init__(members, tastes, raters)
        turns = torch.arange(raters) % tastes
        self.register_buffer("assignment", turns.repeat(members, 1))

    def weights(self, heard: Heard) -> Float[Tensor, " members pairs tastes"]:
        """1 for the assigned taste, 0 for the others."""
        chosen = rows_of(self.assignment[..., None], heard.rater_id, self)[..., 0]
        return functional.one_hot(chosen, self.tastes).to(self.shares)

    def reassess(
        self,
        differences: Float[Tensor, " members pairs tastes"],
        label: Float[Tensor, " pairs"],
        rater_id: Int[Tensor, " pairs"],
    ) -> None:
        """The E-step."""
        likely = log_likelihoods(differences, label, rater_id, self.raters)
        assignment = likely.argmax(-1)
        heard = torch.bincount(rater_id, minlength=self.raters) > 0
        for taste in range(self.tastes):
            self._revive(taste, assignment, likely, heard)
        self.assignment.copy_(assignment)

    def _revive(self, taste: int, assignment: Tensor, likely: Tensor, heard: Tensor) -> None:
        """Where no rater has this taste, give it to the 1/K of them who are explained worst."""
        count = max(1, int(heard.sum()) // self.tastes)
        explained = likely.max(-1).values.masked_fill(~heard, torch.inf)
        worst = explained.argsort(-1)[:, :count]
        empty = ((assignment == taste) & heard).sum(-1, keepdim=True) == 0
        taken = torch.where(empty, taste, assignment.gather(1, worst))
        assignment.scatter_(1, worst, taken)

    def infer(
        self,
        evidence: Evidence,
        differences: Float[Tensor, " members pairs tastes"],
        raters: int,
    ) -> Float[Tensor, " raters members tastes"]:
        """The likeliest taste of each new rater."""
        likely = log_likelihoods(differences, evidence.label, evidence.rater_id, raters)
        chosen = functional.one_hot(likely.argmax(-1), self.tastes)
        return chosen.to(differences).transpose(0, 1)


def log_likelihoods(
    differences: Float[Tensor, " members pairs tastes"],
    label: Float[Tensor, " pairs"],
    rater_id: Int[Tensor, " pairs"],
    raters: int,
) -> Float[Tensor, " members raters tastes"]:
    """What each taste gives a rater's answers: Σ log P(answer | taste)."""
    said = label[:, None]
    each = said * functional.logsigmoid(differences) + (1.0 - said) * functional.logsigmoid(
        -differences
    )
    total = differences.new_zeros(len(differences), raters, differences.shape[2])
    return total.index_add_(1, rater_id, each)


def rows_of(
    rows: Float[Tensor, " members raters numbers"] | Int[Tensor, " members raters numbers"],
    rater_id: Int[Tensor, " members pairs"],
    population: Population,
) -> Tensor:
    """``[members, pairs, numbers]``: the row of each pair's rater.

    Raises:
        ValueError: a rater beyond those that there is room for.
    """
    check_raters(rater_id.flatten(), population.raters, population.published)
    return rows.gather(1, rater_id[..., None].expand(-1, -1, rows.shape[2]))
