"""A trifle that a reward model prefers takes over; win rates by a judge who cannot see it do not.

Source: Wang et al. (2025), "Pref-GRPO", arXiv:2508.20751: dividing by the deviation of a group
blows differences that mean nothing up to advantages ("illusory advantages").

A bandit with six arms: quality 0, ½ or 1, with and without a mark that is worth nothing and to
which the reward model gives 0.01. What is measured is the share of the marked arm among the two
best ones, ½ at the beginning: under scores; under win rates in the group of a judge for whom less
than 0.05 is a tie; and under the same judge's win rates of scores without the mark, which must be
the same learning to the bit.

Controls: ranks alone repair nothing, because a judge who calls every difference lets the mark take
over as scores do, so what repairs is the tie; and scores centred but not divided by their deviation
move the share a little only, so what does the harm is the division. A single lane says nothing: in
either case its share wanders (figure ``wander``, a standard deviation), and only the mean over many
tells drift from a pull.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.claims.claim import ClaimResult, Row
from prefgym.policy_losses import clipped, group_advantages
from prefgym.rewards import beats, win_rates_in_group

KEY = "pref_grpo"
CLAIM = (
    "Scores divided by the deviation of their group let a difference that means nothing take over; "
    "win rates by comparisons that call it a tie do not."
)
QUALITY = torch.tensor([0.0, 0.0, 0.5, 0.5, 1.0, 1.0], dtype=torch.float64)
MARK = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
WORTH = 0.01
"""What the reward model gives for the mark."""
BAND = 0.05
"""Scores closer than this are a tie to the judge."""
GROUP = 8


class Size(NamedTuple):
    """How much is learned."""

    lanes: int
    """Policies, each with draws of its own."""
    steps: int
    rate: float


class Learned(NamedTuple):
    """What the lanes ended with."""

    share: Tensor
    """``[lanes]`` of the marked arm among the two best."""
    quality: float
    """Mean over lanes of the mean quality."""


def run(seed: int, quick: bool) -> ClaimResult:
    """All rewards with the same draws."""
    torch.set_num_threads(1)
    size = Size(64, 750, 0.1) if quick else Size(256, 1500, 0.05)
    marked, plain = QUALITY + WORTH * MARK, QUALITY
    scores = learn(lambda score: score, marked, size, seed)
    centred = learn(lambda score: score, marked, size, seed, scale=False)
    tied = learn(win_rate(BAND), marked, size, seed)
    unmarked = learn(win_rate(BAND), plain, size, seed)
    strict = learn(win_rate(0.0), marked, size, seed)
    rows = [
        Row("scores: share of the marked arm", _mean(scores), ">=", 0.95),
        Row("ties: distance of the share from ½", abs(_mean(tied) - 0.5), "<=", 0.15),
        Row("ties: what the mark changes at all", _apart(tied, unmarked), "==", 0.0),
        Row("quality, the worse of the two", min(scores.quality, tied.quality), ">=", 0.99),
    ]
    controls = [
        Row("a judge without ties: share of the marked arm", _mean(strict), ">=", 0.95),
        Row("scores not divided: share of the marked arm", _mean(centred), "<=", 0.85),
    ]
    figures = {
        "scores": _mean(scores),
        "ties": _mean(tied),
        "wander": float(tied.share.std()),
        "no_ties": _mean(strict),
        "centred": _mean(centred),
        "quality_scores": scores.quality,
        "quality_ties": tied.quality,
    }
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def win_rate(band: float) -> Callable[[Tensor], Tensor]:
    """The reward of Pref-GRPO, ``[lanes, group] -> [lanes, group]``."""
    return lambda score: win_rates_in_group(beats(score, score, band))


def learn(
    reward: Callable[[Tensor], Tensor], score: Tensor, size: Size, seed: int, scale: bool = True
) -> Learned:
    """GRPO on a bandit.

    Args:
        reward: of the scores of a group of samples.
        score: ``[arms]`` what the reward model says.
        size: of the experiment.
        seed: of the draws.
        scale: whether advantages are divided by their deviation.
    """
    random = torch.Generator().manual_seed(seed)
    logits = torch.zeros(size.lanes, len(score), dtype=torch.float64)
    lane = torch.arange(size.lanes).repeat_interleave(GROUP)
    for _ in range(size.steps):
        chance = torch.rand(size.lanes, GROUP, 1, generator=random, dtype=torch.float64)
        below = logits.softmax(-1).cumsum(-1)[:, None, :-1]
        arm = (chance > below).sum(-1)
        advantage = group_advantages(reward(score[arm]).flatten(), lane, scale).view_as(arm)
        leaf = logits.clone().requires_grad_()
        log_prob = leaf.log_softmax(-1).gather(-1, arm)
        loss = clipped(log_prob, log_prob.detach(), advantage).mean(-1).sum()
        (slope,) = torch.autograd.grad(loss, leaf)
        logits -= size.rate * slope
    policy = logits.softmax(-1)
    share = policy[:, -1] / policy[:, -2:].sum(-1)
    return Learned(share, float((policy @ QUALITY).mean()))


def _mean(learned: Learned) -> float:
    return float(learned.share.mean())


def _apart(first: Learned, second: Learned) -> float:
    return float((first.share - second.share).abs().max())
