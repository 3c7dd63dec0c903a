"""Losses on the margin of a pair: pure functions of tensors, one number for every pair.

A margin Δ is how much better a model finds the first of two segments: the difference of two
rewards, of two implicit rewards (DPO), or a pairwise score. A label p is P(a ≻ b). Every loss here
leaves its sum or mean to the caller, who may weight the pairs first; swapping the sides (Δ → −Δ,
p → 1 − p) changes nothing; values and gradients are finite for |Δ| up to 1e4.

Written with ℓ(Δ, p) = −p log σ(Δ) − (1 − p) log σ(−Δ), the cross-entropy of Bradley and Terry.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

PairLoss = Callable[[Tensor, Tensor], Tensor]
"""``loss(margin, label)``: tensors of one shape in, the loss of every pair out.

Settings are bound with :func:`functools.partial`: ``partial(smoothed, flips=0.2)``.
"""


def logistic(
    margin: Float[Tensor, " *batch"], label: Float[Tensor, " *batch"]
) -> Float[Tensor, " *batch"]:
    """Cross-entropy of the Bradley-Terry model, ℓ(Δ, p), in nats.

    Source: Bradley and Terry (1952); Christiano et al. (2017), sec. 2.2.3, arXiv:1706.03741;
    with soft labels also Rafailov et al. (2023), eq. 7, arXiv:2305.18290 (DPO).

    Args:
        margin: how much better the first segment is, in nats of log-odds.
        label: P(a ≻ b) in [0, 1]; a tie is ½.

    Example:
        >>> logistic(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))
        tensor([0.6931, 0.3133])
    """
    return functional.binary_cross_entropy_with_logits(margin, label, reduction="none")


def smoothed(
    margin: Float[Tensor, " *batch"], label: Float[Tensor, " *batch"], flips: float = 0.1
) -> Float[Tensor, " *batch"]:
    """Label smoothing, (1 − ε) ℓ(Δ, p) + ε ℓ(Δ, 1 − p): no label is believed beyond 1 − ε.

    The minimum stands at σ(Δ) = (1 − ε) p + ε (1 − p), so margins stay bounded.

    Source: Mitchell (2023), conservative DPO; Wang et al. (2024), sec. 3, arXiv:2401.06080.

    Args:
        margin: as in :func:`logistic`.
        label: as in :func:`logistic`.
        flips: ε in [0, ½], the share of labels thought to be wrong.
    """
    _require(0.0 <= flips <= 0.5, "smoothed", "flips", flips, "in [0, 0.5]")
    return logistic(margin, label + flips * (1.0 - 2.0 * label))


def lapsing(
    margin: Float[Tensor, " *batch"], label: Float[Tensor, " *batch"], lapses: float = 0.1
) -> Float[Tensor, " *batch"]:
    """Cross-entropy with P = (1 − λ) σ(Δ) + λ/2: a share of the answers is thrown by a coin.

    Unlike :func:`smoothed` it bounds the loss and not the margin, so that one answer which
    contradicts a sure model pulls less the surer the model is.

    Source: Christiano et al. (2017), sec. 2.2.3, arXiv:1706.03741: 10 % of the answers.

    Args:
        margin: as in :func:`logistic`.
        label: as in :func:`logistic`.
        lapses: λ in (0, 1), the share of answers that say nothing.
    """
    _require(0.0 < lapses < 1.0, "lapsing", "lapses", lapses, "between 0 and 1, both excluded")
    sure = math.log1p(-lapses)
    coin = margin.new_tensor(math.log(lapses / 2.0))
    first = torch.logaddexp(sure + functional.logsigmoid(margin), coin)
    second = torch.logaddexp(sure + functional.logsigmoid(-margin), coin)
    return -label * first - (1.0 - label) * second


def robust(
    margin: Float[Tensor, " *batch"], label: Float[Tensor, " *batch"], flips: float = 0.1
) -> Float[Tensor, " *batch"]:
    """Unbiased under flipped labels: ((1 − ε) ℓ(Δ, p) − ε ℓ(Δ, 1 − p)) / (1 − 2ε).

    If a share ε of the labels is flipped at random, the expectation over the flips is ℓ of the
    clean labels. A single pair's loss may be negative and falls without bound as Δ grows.

    Source: Chowdhury, Kini and Natarajan (2024), eq. 10, arXiv:2403.00409 (rDPO).

    Args:
        margin: as in :func:`logistic`.
        label: as in :func:`logistic`.
        flips: ε in [0, ½), the share of labels that were flipped.
    """
    _require(0.0 <= flips < 0.5, "robust", "flips", flips, "in [0, 0.5)")
    return logistic(margin, (label - flips) / (1.0 - 2.0 * flips))


def square(
    margin: Float[Tensor, " *batch"], label: Float[Tensor, " *batch"], target: float = 1.0
) -> Float[Tensor, " *batch"]:
    """Squared distance to a fixed margin: p (Δ − c)² + (1 − p)(Δ + c)².

    The minimum, Δ = c (2p − 1), is finite even where every label agrees; this is what keeps the
    policy near its reference when Δ is a log-ratio of policies.

    Source: Azar et al. (2023), eq. 17, arXiv:2310.12036 (IPO), with c = 1/(2τ).

    Args:
        margin: as in :func:`logistic`, but on the scale of ``target``.
        label: as in :func:`logistic`.
        target: c > 0, the margin of a pair whose label is 1.
    """
    _require(target > 0.0, "square", "target", target, "above 0")
    return label * (margin - target) ** 2 + (1.0 - label) * (margin + target) ** 2


def hinge(
    margin: Float[Tensor, " *batch"], label: Float[Tensor, " *batch"], target: float = 1.0
) -> Float[Tensor, " *batch"]:
    """Linear up to a margin: p max(0, c − Δ) + (1 − p) max(0, c + Δ).

    Source: Zhao et al. (2023), eq. 2, arXiv:2305.10425 (SLiC-HF).

    Args:
        margin: as in :func:`logistic`, but on the scale of ``target``.
        label: as in :func:`logistic`.
        target: c > 0, the margin beyond which a pair is left alone.
    """
    _require(target > 0.0, "hinge", "target", target, "above 0")
    return label * functional.relu(target - margin) + (1.0 - label) * functional.relu(
        target + margin
    )


def ties(
    margin: Float[Tensor, " *batch"], label: Float[Tensor, " *batch"], threshold: float = 5.0
) -> Float[Tensor, " *batch"]:
    """Bradley-Terry with ties, of which there are the more the closer the two are.

    With c = log k: P(a ≻ b) = σ(Δ − c), P(b ≻ a) = σ(−Δ − c), P(tie) = (k² − 1) σ(Δ − c) σ(−Δ − c).
    A tie says that the two are close, which the logistic loss can only read as "no idea". A label
    between ½ and 1 counts as a tie with weight 2 (1 − p) and as a win with weight 2p − 1.

    Source: Rao and Kupper (1967); k = 5 from Liu et al. (2025), arXiv:2501.13918.

    Args:
        margin: as in :func:`logistic`.
        label: as in :func:`logistic`; ½ is a tie.
        threshold: k > 1; log k is the margin at which a win is as likely as not.
    """
    _require(threshold > 1.0, "ties", "threshold", threshold, "above 1")
    log_win = functional.logsigmoid(margin - math.log(threshold))
    log_loss = functional.logsigmoid(-margin - math.log(threshold))
    log_tie = log_win + log_loss + math.log(threshold**2 - 1.0)
    lean = 2.0 * label - 1.0
    decided = functional.relu(lean) * log_win + functional.relu(-lean) * log_loss
    return -decided - (1.0 - lean.abs()) * log_tie


def _require(good: bool, loss: str, name: str, value: float, wanted: str) -> None:
    if not good:
        raise ValueError(f"losses.{loss}: {name} is {value}, wanted a number {wanted}.")
