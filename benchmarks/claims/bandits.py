"""Softmax policies over the arms of bandits, and their fit by a direct loss to the last digit.

Not a claim itself. A bandit has contexts (prompts) and arms (responses of one step each); what it
lacks of a real task is only that nothing generalises, so that optima are known in closed form.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from prefgym.direct_losses import Recipe, Side, direct_loss


@dataclass(frozen=True)
class Pairs:
    """Comparisons of arms, ``[B]`` each."""

    context: np.ndarray
    a: np.ndarray
    b: np.ndarray
    label: np.ndarray
    """P(a ≻ b)."""

    def relabelled(self, label: np.ndarray) -> "Pairs":
        """The same pairs under other labels."""
        return replace(self, label=label)


def side(policy: torch.Tensor, anchor: torch.Tensor, context: np.ndarray, arm: np.ndarray) -> Side:
    """What a direct loss reads of responses of one step; log-probabilities ``[contexts, arms]``."""
    at = torch.as_tensor(context), torch.as_tensor(arm)
    known = policy[at][:, None]
    return Side(known, torch.ones(known.shape, dtype=torch.bool), anchor[at][:, None])


def fitted(recipe: Recipe, start: np.ndarray, pairs: Pairs, steps: int = 500) -> np.ndarray:
    """The softmax policy ``[contexts, arms]`` that minimises the mean loss, from ``start``.

    ``start`` is the anchor too. ``steps`` bounds the iterations of L-BFGS, which matters where the
    loss has its minimum at infinity.
    """
    anchor = torch.as_tensor(np.log(start))
    logits = anchor.clone().requires_grad_()
    label = torch.as_tensor(pairs.label)
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=steps,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        history_size=30,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        known = logits.log_softmax(1)
        both = (side(known, anchor, pairs.context, arm) for arm in (pairs.a, pairs.b))
        loss = direct_loss(recipe, *both, label).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)
    return logits.detach().softmax(1).numpy()


def descended(
    recipe: Recipe, start: np.ndarray, pairs: Pairs, steps: int, learning_rate: float = 0.1
) -> np.ndarray:
    """The same after ``steps`` steps of Adam: a training that is stopped, as trainings are."""
    anchor = torch.as_tensor(np.log(start))
    logits = anchor.clone().requires_grad_()
    label = torch.as_tensor(pairs.label)
    optimizer = torch.optim.Adam([logits], lr=learning_rate)
    for _ in range(steps):
        known = logits.log_softmax(1)
        both = (side(known, anchor, pairs.context, arm) for arm in (pairs.a, pairs.b))
        optimizer.zero_grad()
        direct_loss(recipe, *both, label).mean().backward()
        optimizer.step()
    return logits.detach().softmax(1).numpy()


def tilted(start: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
    """π ∝ start · exp(r/β) in every context: the optimum of E r − β KL(π ‖ start)."""
    weights = start * np.exp((rewards - rewards.max(1, keepdims=True)) / beta)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Total variation between policies, the mean over contexts."""
    return float(0.5 * np.abs(one - other).sum(1).mean())


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Of Bradley and Terry's model."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))
