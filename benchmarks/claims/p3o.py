"""What a context adds to every reward: pairs do not feel it, a critic has to learn it.

Source: Wu et al. (2023), "Pairwise Proximal Policy Optimization", arXiv:2310.00212, the invariance
to equivalent rewards. A Bradley-Terry reward is known up to such an offset per context.

Bandits with many contexts, each of which comes back some fifty times; two samples per context,
four updates per batch, so that the clips are in use. Learned twice with the same draws, on rewards
with and without an offset of ten times their spread. The rival is PPO's clipped loss with a critic
that is as quick as a table can be (the mean of all rewards that a context gave so far), at the
policy rate that is best for it where there is no offset.

Controls: the same rival with a critic that knew every context from the start, which must lose
nothing; and with advantages divided by their deviation over the batch, as implementations of PPO
do. The first, wrong advantages are then no larger than any others: little is lost, and the critic
does as well as pairs. What the claim shows is thus the harm of offsets to a learner without a scale
of its own. With 20 contexts (figures ``few_lost``) a critic has the time to learn the offsets, and
loses next to nothing unless the policy moves fast.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.claims.claim import ClaimResult, Row
from prefgym.policy_losses import clipped, pair_clipped_apart, pair_clipped_jointly

KEY = "p3o"
CLAIM = (
    "Pairwise PPO is invariant to what a context adds to every reward; an actor-critic, which has "
    "to learn it, is not."
)
ARMS, CONTEXTS_PER_STEP, UPDATES, REPLICAS = 4, 16, 4, 4
OFFSET = 10.0
"""Standard deviation of what a context adds; that of the rewards of its arms is 1."""
RATES = (0.1, 0.2, 0.4, 0.8)
"""Policy rates, per sample."""
POINTS = 20
"""Of a curve."""

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``loss(log_prob, old, rewards, values)``: ``[lanes, contexts, 2]``, values ``[lanes, contexts]``;
one number per context."""


class Size(NamedTuple):
    """How much is learned, and on what."""

    contexts: int
    steps: int


def run(seed: int, quick: bool) -> ClaimResult:
    """Both forms of P3O and the critics, with and without offsets."""
    torch.set_num_threads(1)
    size = Size(200, 600) if quick else Size(1000, 3000)
    forms = {"V1": pairs(pair_clipped_apart), "V2": pairs(pair_clipped_jointly)}
    found = {name: learn(loss, size, seed) for name, loss in forms.items()}
    cold = learn(actor_critic(normalised=False), size, seed)
    known = learn(actor_critic(normalised=False), size, seed, known=True)
    scaled = learn(actor_critic(normalised=True), size, seed)
    best, best_scaled = int(cold[-1, 0].argmax()), int(scaled[-1, 0].argmax())
    lost = (cold[-1, 0] - cold[-1, 1])[best]
    lost_scaled = (scaled[-1, 0] - scaled[-1, 1])[best_scaled]
    rows = [
        *(
            Row(f"{name}: largest gap between curves, share of optimum", _apart(curve), "<=", 1e-9)
            for name, curve in found.items()
        ),
        Row("critic: lost by the offset, share of optimum", float(lost), ">=", 0.10),
    ]
    controls = [
        Row("critic that knew: largest gap between curves", _apart(known), "<=", 1e-9),
        Row("critic, scaled advantages: lost by the offset", float(lost_scaled), "<=", 0.05),
    ]
    figures = {
        **{f"{name}_offset": float(curve[-1, 1, best]) for name, curve in found.items()},
        "critic_plain": float(cold[-1, 0, best]),
        "critic_offset": float(cold[-1, 1, best]),
        "critic_offset_tuned": float(cold[-1, 1].max()),
        "scaled_plain": float(scaled[-1, 0, best_scaled]),
        "scaled_offset": float(scaled[-1, 1, best_scaled]),
        "rate": RATES[best],
    }
    if not quick:
        few = learn(actor_critic(normalised=False), Size(20, size.steps), seed)
        figures |= {
            f"few_lost_rate_{rate}": float(few[-1, 0, one] - few[-1, 1, one])
            for one, rate in enumerate(RATES)
        }
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def pairs(form: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Loss:
    """P3O: what matters is which of the two was the better one, and by how much."""

    def loss(log_prob: Tensor, old: Tensor, rewards: Tensor, values: Tensor) -> Tensor:
        first, second = (log_prob - old).unbind(-1)
        return form(first, second, rewards[..., 0] - rewards[..., 1])

    return loss


def actor_critic(normalised: bool) -> Loss:
    """PPO: what matters is how much more there was than the critic expected."""

    def loss(log_prob: Tensor, old: Tensor, rewards: Tensor, values: Tensor) -> Tensor:
        advantage = rewards - values[..., None]
        if normalised:
            mean = advantage.mean((-2, -1), keepdim=True)
            advantage = (advantage - mean) / advantage.std((-2, -1), keepdim=True)
        return clipped(log_prob, old, advantage).mean(-1)

    return loss


def learn(loss: Loss, size: Size, seed: int, known: bool = False) -> Tensor:
    """Learn without and with offsets, at every rate, with the same draws.

    Args:
        loss: of the pairs of samples of a batch of contexts.
        size: of the problem.
        seed: of rewards, offsets, and draws.
        known: whether the critic begins with the mean of each context, offset included.

    Returns:
        ``[points, 2, rates]`` mean return as a share of the best one, without and with offset.
    """
    random = torch.Generator().manual_seed(seed)
    conditions = 2 * len(RATES)
    shape = (REPLICAS, size.contexts, ARMS)
    quality = torch.randn(shape, generator=random, dtype=torch.float64)
    added = OFFSET * torch.randn((*shape[:2], 1), generator=random, dtype=torch.float64)
    rewards = torch.stack([quality, quality + added]).repeat_interleave(len(RATES), 0).flatten(0, 1)
    rate = torch.tensor(RATES, dtype=torch.float64).repeat(2).repeat_interleave(REPLICAS)

    logits = torch.zeros_like(rewards)
    values = rewards.mean(-1) if known else torch.zeros_like(rewards[..., 0])
    visits = torch.full_like(values, float(known))
    curve = []
    for step in range(1, size.steps + 1):
        draws = (REPLICAS, CONTEXTS_PER_STEP)
        context = torch.randint(size.contexts, draws, generator=random).repeat(conditions, 1)
        chance = torch.rand((*draws, 2), generator=random, dtype=torch.float64)
        place = (torch.arange(len(context))[:, None].expand_as(context), context)
        arm = _drawn(logits[place], chance.repeat(conditions, 1, 1))
        reward = rewards[place].gather(-1, arm)
        old, value = logits[place].log_softmax(-1).gather(-1, arm), values[place]
        for _ in range(UPDATES):
            leaf = logits[place].requires_grad_()
            log_prob = leaf.log_softmax(-1).gather(-1, arm)
            total = loss(log_prob, old, reward, value).sum()
            (slope,) = torch.autograd.grad(total, leaf)
            logits.index_put_(place, -rate[:, None, None] * slope, accumulate=True)
        visits.index_put_(place, torch.ones_like(value), accumulate=True)
        change = (reward.mean(-1) - values[place]) / visits[place]
        values.index_put_(place, change, accumulate=True)
        if step % (size.steps // POINTS) == 0:
            mean = (
                (logits.softmax(-1).unflatten(0, (conditions, -1)) * quality).sum(-1).mean((1, 2))
            )
            curve.append(mean.view(2, -1) / quality.amax(-1).mean())
    return torch.stack(curve)


def _drawn(logits: Tensor, chance: Tensor) -> Tensor:
    """Two arms per context, ``[lanes, contexts, 2]``."""
    below = logits.softmax(-1).cumsum(-1)[..., None, :-1]
    return (chance[..., None] > below).sum(-1)


def _apart(curve: Tensor) -> float:
    """How far the curves without and with offsets ever are from each other, at any rate."""
    return float((curve[:, 0] - curve[:, 1]).abs().max())
