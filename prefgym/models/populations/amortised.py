"""A population whose raters are inferred from what they answered."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from prefgym.models.encoders import MLPEncoder
from prefgym.models.heads import SMALL, Heard
from prefgym.models.populations.population import Evidence, Population, check_raters


class Amortised(Population):
    """Tastes inferred from a rater's own answers: q(z | answers) = N(μ, diag σ²), w linear in z.

    Each answer adds its own precision and mean to a standard normal prior, so that q does not
    depend on the order of the answers and narrows as they come in. z is drawn in a fit and is μ
    otherwise.

    Source: Poddar et al. (2024), arXiv:2408.10075 (VPL). Departures: the posterior is a product of
    experts instead of a network over a fixed number of answers, and rewards are bilinear in z and
    K rewards of the step, instead of a network that reads both: latent-conditioned rewards at the
    price of a pooled model.

    Args:
        members: networks in the ensemble.
        tastes: K, the rewards that z weighs.
        raters: how many will be fitted; their ids count from 0.
        reads: numbers that say what a segment is like.
        latent: of z.
        hidden: layers of the network that reads an answer.
        divergence: weight of KL(q ‖ prior), in nats per answer.
        most: answers of a rater that are read in a fit, at most; some of them are drawn anew for
            every step, so that few suffice later.
        generator: draws the initial weights.
    """

    published = "vpl"
    read: Tensor
    """``[raters, most, 3 · numbers]``: answers of the fitted raters."""
    known: Tensor
    """``[raters, most]``: which of them there are."""

    def __init__(
        self,
        members: int,
        tastes: int,
        raters: int,
        reads: int,
        latent: int = 8,
        hidden: tuple[int, ...] = (64,),
        divergence: float = 0.003,
        most: int = 8,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__(members, tastes, raters)
        self.divergence = divergence
        self.expert = MLPEncoder(2 * reads, 2 * latent, members, hidden, "leaky_relu", generator)
        drawn = torch.randn(members, latent, tastes, generator=generator)
        self.decoder = nn.Parameter(drawn / latent**0.5)
        self.base = nn.Parameter(SMALL * torch.randn(members, 1, tastes, generator=generator))
        self.draws = torch.Generator()
        self.register_buffer("read", torch.zeros(raters, most, 2 * reads))
        self.register_buffer("known", torch.zeros(raters, most, dtype=torch.bool))

    def posterior(
        self,
        read: Float[Tensor, " #members raters answers numbers"],
        known: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """μ and log σ², ``[members, raters, latent]``; the prior for a rater without answers."""
        shape = read.shape[1:3]
        rows = read.flatten(1, 2).expand(self.members, -1, -1)
        mean, precision = self.expert(rows).unflatten(1, shape).chunk(2, -1)
        precision = functional.softplus(precision) * known[..., None]
        total = 1.0 + precision.sum(2)
        return (precision * mean).sum(2) / total, -total.log()

    def weights(self, heard: Heard) -> Float[Tensor, " members pairs tastes"]:
        """By the answers of those who were asked; z is drawn while there is gradient."""
        check_raters(heard.rater_id.flatten(), self.raters, self.published)
        asked, place = heard.rater_id.unique(return_inverse=True)
        known = self.known[asked]
        fitting = torch.is_grad_enabled()
        if fitting:
            kept = torch.rand(known.shape, generator=self.draws).to(known.device)
            share = torch.rand((len(asked), 1), generator=self.draws).to(known.device)
            known = known & (kept <= share)
        mean, log_variance = self.posterior(self.read[asked][None], known[None])
        latent = mean
        if fitting:
            noise = torch.randn(mean.shape, generator=self.draws).to(mean)
            latent = mean + noise * (0.5 * log_variance).exp()
            divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(-1)
            self.penalty = self.divergence * divergence.mean(-1).sum()
        weights = self._decoded(latent)
        return weights.gather(1, place[..., None].expand(-1, -1, self.tastes))

    def begin(self, evidence: Evidence, seed: int) -> None:
        """Keep each rater's answers to read them again and again."""
        super().begin(evidence, seed)
        self.draws.manual_seed(seed)
        rows, known = by_rater(answers(evidence), evidence.rater_id, self.raters, self.most)
        self.read.copy_(rows)
        self.known.copy_(known)

    def infer(
        self,
        evidence: Evidence,
        differences: Float[Tensor, " members pairs tastes"],
        raters: int,
    ) -> Float[Tensor, " raters members tastes"]:
        """Weights by the mean of q, given all answers of each."""
        most = int(torch.bincount(evidence.rater_id, minlength=raters).max())
        rows, known = by_rater(answers(evidence), evidence.rater_id, raters, most)
        with torch.no_grad():
            mean, _ = self.posterior(rows[None], known[None])
            return self._decoded(mean).transpose(0, 1)

    @property
    def most(self) -> int:
        """Answers of a rater that are read in a fit, at most."""
        return self.known.shape[1]

    def _decoded(self, latent: Tensor) -> Tensor:
        return latent @ self.decoder + self.base


def answers(evidence: Evidence) -> Float[Tensor, " pairs numbers"]:
    """What an answer says: the difference of the sides, preferred minus other, and their mean.

    The difference is scaled by how decided the label is, so that a tie says nothing about it.
    """
    a, b = evidence.read.unbind(1)
    lean = (2.0 * evidence.label - 1.0)[:, None]
    return torch.cat([lean * (a - b), lean * 0.5 * (a + b)], -1)


def by_rater(
    rows: Float[Tensor, " pairs numbers"], rater_id: Int[Tensor, " pairs"], raters: int, most: int
) -> tuple[Tensor, Tensor]:
    """``[raters, most, numbers]`` and which are there: the last ``most`` rows of each rater."""
    order = rater_id.argsort(stable=True)
    sorted_ids = rater_id[order]
    counts = torch.bincount(rater_id, minlength=raters)
    rank = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[sorted_ids]
    place = rank - (counts[sorted_ids] - most).clamp(min=0)
    kept = place >= 0
    table = rows.new_zeros(raters, most, rows.shape[1])
    known = torch.zeros(raters, most, dtype=torch.bool, device=rows.device)
    table[sorted_ids[kept], place[kept]] = rows[order[kept]]
    known[sorted_ids[kept], place[kept]] = True
    return table, known
