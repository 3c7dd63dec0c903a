"""Losses of pairs that need nothing but a policy's own log-probabilities: DPO and its kin.

With L(y) = Σ_t log π(a_t | s_t) over the steps of a segment (or their mean), the implicit reward
of a segment is h = L(y) − L_anchor(y), where the anchor is a frozen policy; transition
probabilities cancel in it, so the same losses serve responses of a language model and segments of
a robot. Every member of the family is a :class:`Recipe`: how a segment is scored, what is made of
the margin D = h_a − h_b of a pair, and which likelihood terms are added. :data:`RECIPES` holds
those that have a name.

A label p is P(a ≻ b) everywhere, a chosen and a rejected segment being p = 1. Swapping the two
sides together with the label changes nothing. Sum or mean over steps is an argument everywhere,
because the published variants of one loss often differ in nothing else.

What a margin estimates: β D is the difference of *returns* where both segments begin alike and run
to the end of an episode (responses to one prompt), and of *advantages* (regret) elsewhere.

Sources: Rafailov et al. (2023), arXiv:2305.18290 (DPO); Mitchell (2023), conservative DPO;
Chowdhury et al. (2024), arXiv:2403.00409 (rDPO); Azar et al. (2023), arXiv:2310.12036 (IPO); Zhao
et al. (2023), arXiv:2305.10425, with a reference in Liu et al. (2023), arXiv:2309.06657 (hinge);
Ji et al. (2024), eq. 16, arXiv:2402.00856 (EXO); Ethayarajh et al. (2024), eq. 7, arXiv:2402.01306
(KTO); Hong et al. (2024), eq. 6, arXiv:2403.07691 (ORPO); Meng et al. (2024), eq. 6,
arXiv:2405.14734 (SimPO); Xu et al. (2024), arXiv:2401.08417 (CPO); Liu et al. (2024),
arXiv:2405.16436 (RPO); Le et al. (2024), arXiv:2405.15230 (iREPO); Hejna et al. (2023), eq. 5 and
6, arXiv:2310.13639 (CPL).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from prefgym import losses
from prefgym.names import lookup

Reduce = Literal["sum", "mean"]
"""Over the real steps of a segment."""

_LARGEST_LOG_PROB: Final = -1e-6
"""Above it a probability counts as this near to 1, where its odds would be infinite."""


class Side(NamedTuple):
    """What is known of one side of a batch of pairs."""

    log_prob: Float[Tensor, " batch steps"]
    """log π(a_t | s_t) of the policy that is trained, with gradient."""
    mask: Bool[Tensor, " batch steps"]
    """True where a real step is."""
    anchor: Float[Tensor, " batch steps"] | None = None
    """The same of the anchor, without gradient; recipes that are not anchored need none."""


@dataclass(frozen=True)
class Recipe:
    """One direct loss: ``weight · loss(β · margin) − likelihood · L(chosen) − cloning · L(both)``.

    A setting that the chosen ``loss`` does not read is refused.
    """

    loss: str = "logistic"
    """What is made of the margin: a key of ``READS``."""
    beta: float = 0.1
    """β, nats of the loss's margin per nat of log-ratio; the smaller, the farther from the anchor
    a label may pull. τ of IPO, α of CPL."""
    reduce: Reduce = "sum"
    """Whether a segment's score adds up its steps or averages them."""
    anchored: bool = True
    """Whether scores are taken relative to the anchor."""
    odds: bool = False
    """Score by log-odds log(p / (1 − p)) instead of log p; for discrete actions only (ORPO)."""
    weight: float = 1.0
    """Of the loss on the margin."""
    bias: float = 1.0
    """λ in (0, 1], what the rejected side counts; below 1 actions outside the data lose (CPL)."""
    offset: float = 0.0
    """γ, nats by which the chosen side shall win at least (SimPO)."""
    flips: float = 0.1
    """ε, the share of labels thought to be wrong."""
    votes: int = 5
    """h, how many voters stand behind a label; it is not believed beyond 1 − 1/2h (iREPO)."""
    good: float = 1.0
    """Weight of what was preferred (KTO)."""
    bad: float = 1.0
    """Weight of what was not (KTO)."""
    likelihood: float = 0.0
    """c, weight of the negative log-likelihood of the chosen side."""
    likelihood_reduce: Reduce = "mean"
    """Whether that likelihood adds up steps or averages them: at T steps, a factor of T."""
    cloning: float = 0.0
    """Weight of the negative log-likelihood of both sides, reduced in the same way."""

    def __post_init__(self) -> None:
        """Refuse settings that can never work, or that nobody would read."""
        read = lookup(self.loss, READS, "direct loss")
        for one in fields(self):
            changed = getattr(self, one.name) != one.default
            if changed and one.name in _KNOBS and one.name not in read:
                raise ValueError(
                    f"Recipe: the loss {self.loss!r} does not read {one.name}="
                    f"{getattr(self, one.name)!r}; it reads {', '.join(read) or 'no such setting'}."
                )
        for name in ("reduce", "likelihood_reduce"):
            lookup(getattr(self, name), dict.fromkeys(get_args(Reduce)), name)
        self._check_values()

    def _check_values(self) -> None:
        if not self.beta > 0.0:
            raise ValueError(f"Recipe: beta is {self.beta}, wanted a number above 0.")
        if not 0.0 < self.bias <= 1.0:
            raise ValueError(f"Recipe: bias is {self.bias}, wanted a number in (0, 1].")
        if self.odds and self.anchored:
            raise ValueError("Recipe: odds are not taken relative to an anchor; anchored=False.")
        if self.loss == "kto" and not self.anchored:
            raise ValueError("Recipe: KTO compares with an anchor; leave anchored=True.")
        if self.weight < 0.0:
            raise ValueError(f"Recipe: weight is {self.weight}, wanted 0 or more.")
        if self.loss in _OF_MARGIN:
            nothing = torch.zeros(1)
            _OF_MARGIN[self.loss](nothing, nothing + 0.5, self)  # says what is out of range


def log_likelihood(
    log_prob: Float[Tensor, " batch steps"],
    mask: Bool[Tensor, " batch steps"],
    reduce: Reduce = "sum",
) -> Float[Tensor, " batch"]:
    """Sum or mean over the real steps of each segment, in nats.

    Example:
        >>> lp, mask = torch.tensor([[-1.0, -2.0, 9.0]]), torch.tensor([[True, True, False]])
        >>> log_likelihood(lp, mask), log_likelihood(lp, mask, "mean")
        (tensor([-3.]), tensor([-1.5000]))
    """
    total = torch.where(mask, log_prob, 0.0).sum(1)
    return total if reduce == "sum" else total / mask.sum(1).clamp(min=1)


def implicit_reward(side: Side, reduce: Reduce = "sum") -> Float[Tensor, " batch"]:
    """Of each segment h = L − L_anchor, in nats; without an anchor, L."""
    known = side.log_prob if side.anchor is None else side.log_prob - side.anchor
    return log_likelihood(known, side.mask, reduce)


def log_odds(mean_log_prob: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """log(p / (1 − p)) of the geometric mean probability of a segment's steps.

    Raises:
        ValueError: a log-probability above 0: that of a continuous action is a density.
    """
    if bool((mean_log_prob > 0.0).any()):
        raise ValueError(
            f"log_odds: a log-probability is {float(mean_log_prob.detach().max()):.4g}, above 0, as"
            " densities of continuous actions can be; odds need discrete actions, so choose a loss"
            " other than ORPO."
        )
    below = mean_log_prob.clamp(max=_LARGEST_LOG_PROB)
    return below - torch.log(-torch.expm1(below))


def exo(
    margin: Float[Tensor, " *batch"], label: Float[Tensor, " *batch"], flips: float = 1e-3
) -> Float[Tensor, " *batch"]:
    """Reverse cross-entropy: KL(σ(Δ) ‖ q) with q = (1 − ε) p + ε (1 − p).

    The minimum is that of :func:`prefgym.losses.smoothed`, σ(Δ) = q; the gradient is another:
    it fades where the model is sure, also where it is sure of the wrong side.

    Source: Ji et al. (2024), eq. 16, arXiv:2402.00856, for two responses.

    Args:
        margin: how much better the first segment is, in nats of log-odds.
        label: P(a ≻ b) in [0, 1]; a tie is ½.
        flips: ε in (0, ½]; 0 would make a hard label infinitely wrong.
    """
    if not 0.0 < flips <= 0.5:
        raise ValueError(f"direct_losses.exo: flips is {flips}, wanted a number in (0, 0.5].")
    target = label + flips * (1.0 - 2.0 * label)
    first, second = functional.logsigmoid(margin), functional.logsigmoid(-margin)
    here = torch.sigmoid(margin) * (first - torch.log(target))
    return here + torch.sigmoid(-margin) * (second - torch.log1p(-target))


def regression(
    margin: Float[Tensor, " *batch"], label: Float[Tensor, " *batch"], votes: int = 5
) -> Float[Tensor, " *batch"]:
    """Squared distance to the log-odds of the votes: (Δ − logit q)², q = p within [1/2h, 1 − 1/2h].

    Source: Le et al. (2024), arXiv:2405.15230 (iREPO). How votes become q where all agree is not
    published; here half a vote always stays with the other side.

    Args:
        margin: how much better the first segment is, in nats of log-odds.
        label: the share of votes for the first segment.
        votes: h, how many voters were asked.
    """
    if votes < 2:
        raise ValueError(
            f"direct_losses.regression: votes is {votes}, wanted at least 2: of a single vote, half"
            " of which stays with the other side, nothing is left."
        )
    least = 0.5 / votes
    return (margin - torch.logit(label.clamp(least, 1.0 - least))) ** 2


def one_sided(
    first: Float[Tensor, " *batch"],
    second: Float[Tensor, " *batch"],
    label: Float[Tensor, " *batch"],
    bias: float = 1.0,
    offset: float = 0.0,
) -> Float[Tensor, " *batch"]:
    """Loss p ς(γ − s_a + λ s_b) + (1 − p) ς(γ − s_b + λ s_a), with ς(x) = log(1 + eˣ).

    With λ = 1 and γ = 0 the logistic loss of s_a − s_b. λ < 1 is CPL's conservative bias: among
    the policies with equal margins, the one that makes the data likelier has the lower loss. γ is
    SimPO's margin.

    Args:
        first: scores of the first segments, in nats.
        second: scores of the second segments.
        label: P(a ≻ b) in [0, 1].
        bias: λ.
        offset: γ, in nats.
    """
    won = functional.softplus(offset - first + bias * second)
    lost = functional.softplus(offset - second + bias * first)
    return label * won + (1.0 - label) * lost


def kto(
    reward: Float[Tensor, " *batch"],
    label: Float[Tensor, " *batch"],
    baseline: Float[Tensor, ""] | float = 0.0,
    good: float = 1.0,
    bad: float = 1.0,
) -> Float[Tensor, " *batch"]:
    """Unpaired: p g (1 − σ(r − k)) + (1 − p) b (1 − σ(k − r)), bounded on both sides.

    At the anchor every segment costs half its weight. The slope depends on p by its side of ½
    only, so that probabilities run to 0 and 1.

    Source: Ethayarajh et al. (2024), eq. 7, arXiv:2402.01306.

    Args:
        reward: β h of each segment.
        label: how good it is thought to be, in [0, 1]: in a pair p for ``a``, 1 − p for ``b``.
        baseline: k = β · :func:`kl_baseline`.
        good: weight of good segments.
        bad: weight of bad ones.
    """
    liked = good * torch.sigmoid(baseline - reward)
    disliked = bad * torch.sigmoid(reward - baseline)
    return label * liked + (1.0 - label) * disliked


def kl_baseline(mismatched: Side, reduce: Reduce = "sum") -> Float[Tensor, ""]:
    """max(0, mean h) over actions paired with contexts that they were not chosen in, detached.

    A crude estimate of KL(π ‖ anchor): what a response gains merely because the policy now finds
    such responses likelier everywhere.
    """
    return implicit_reward(mismatched, reduce).mean().clamp(min=0.0).detach()


def direct_loss(
    recipe: Recipe,
    a: Side,
    b: Side,
    label: Float[Tensor, " batch"],
    mismatched: Side | None = None,
) -> Float[Tensor, " batch"]:
    """The loss of every pair.

    Args:
        recipe: which loss.
        a: log-probabilities of the first segments.
        b: of the second ones.
        label: P(a ≻ b).
        mismatched: for KTO's baseline: the actions of the batch in contexts of one another; None
            takes 0 for it.

    Raises:
        ValueError: the recipe is anchored, and the sides lack the anchor.
    """
    first, second = scores(recipe, a), scores(recipe, b)
    loss = recipe.weight * _of_scores(recipe, first, second, label, mismatched)
    if recipe.likelihood or recipe.cloning:
        here, there = (
            log_likelihood(side.log_prob, side.mask, recipe.likelihood_reduce) for side in (a, b)
        )
        chosen = label * here + (1.0 - label) * there
        loss = loss - recipe.likelihood * chosen - recipe.cloning * (here + there)
    return loss


def scores(recipe: Recipe, side: Side) -> Float[Tensor, " batch"]:
    """What a recipe compares: implicit rewards, log-likelihoods or log-odds, in nats.

    Raises:
        ValueError: the recipe is anchored, and ``side`` lacks the anchor.
    """
    if recipe.odds:
        return log_odds(log_likelihood(side.log_prob, side.mask, recipe.reduce))
    if not recipe.anchored:
        return log_likelihood(side.log_prob, side.mask, recipe.reduce)
    if side.anchor is None:
        raise ValueError(
            "direct_loss: the recipe is anchored but Side.anchor is None; give the anchor's"
            " log-probabilities, or a recipe with anchored=False."
        )
    return implicit_reward(side, recipe.reduce)


def _of_scores(
    recipe: Recipe, first: Tensor, second: Tensor, label: Tensor, mismatched: Side | None
) -> Tensor:
    beta = recipe.beta
    if recipe.loss == "logistic":
        return one_sided(beta * first, beta * second, label, recipe.bias, recipe.offset)
    if recipe.loss == "kto":
        known = 0.0 if mismatched is None else beta * kl_baseline(mismatched, recipe.reduce)
        liked, disliked = (
            kto(beta * reward, good, known, recipe.good, recipe.bad)
            for reward, good in ((first, label), (second, 1.0 - label))
        )
        return 0.5 * (liked + disliked)
    return _OF_MARGIN[recipe.loss](first - second, label, recipe)


_OF_MARGIN: Final[dict[str, Callable[[Tensor, Tensor, Recipe], Tensor]]] = {
    "smoothed": lambda margin, p, of: losses.smoothed(of.beta * margin, p, of.flips),
    "robust": lambda margin, p, of: losses.robust(of.beta * margin, p, of.flips),
    "square": lambda margin, p, of: losses.square(margin, p, 1.0 / (2.0 * of.beta)),
    "hinge": lambda margin, p, of: losses.hinge(of.beta * margin, p),
    "exo": lambda margin, p, of: exo(of.beta * margin, p, of.flips),
    "regression": lambda margin, p, of: regression(of.beta * margin, p, of.votes),
}

READS: Final[dict[str, tuple[str, ...]]] = {
    "logistic": ("bias", "offset"),
    "smoothed": ("flips",),
    "robust": ("flips",),
    "square": (),
    "hinge": (),
    "exo": ("flips",),
    "regression": ("votes",),
    "kto": ("good", "bad"),
}
"""Every loss on a margin -> the settings that it alone reads."""

_KNOBS: Final = frozenset(name for names in READS.values() for name in names)

RECIPES: Final[dict[str, Recipe]] = {
    "dpo": Recipe(),
    "cdpo": Recipe("smoothed", flips=0.1),
    "rdpo": Recipe("robust", flips=0.1),
    "ipo": Recipe("square"),
    "hinge": Recipe("hinge", beta=0.05),
    "exo": Recipe("exo", flips=1e-3),
    "kto": Recipe("kto"),
    "orpo": Recipe(beta=1.0, reduce="mean", anchored=False, odds=True, weight=0.1, likelihood=1.0),
    "simpo": Recipe(beta=2.0, reduce="mean", anchored=False, offset=0.5),
    "cpo": Recipe(anchored=False, likelihood=1.0),
    "rpo": Recipe(likelihood=0.005, likelihood_reduce="sum"),
    "irepo": Recipe("regression"),
    "cpl": Recipe(anchored=False, bias=0.5),
}
"""The named ones. RPO's c is β η with η = 0.05 (its authors' chat runs use 0.005, which is too
little in the bandit of the claim ``rpo``). IPO is the paper's, on sums; TRL divides each log-ratio
by its length, which is ``reduce="mean"``. CPO's and ORPO's likelihood terms are means over steps,
as released; TRL then weighs responses by their lengths, here each pair counts once."""
