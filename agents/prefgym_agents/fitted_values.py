"""Fitted Q evaluation: what actions are worth if a given policy acts ever after.

    Q_i(s, a)  →  r + γ · (1 − terminated) · Q'_i(s', μ(s'))

over steps that other policies made, for two networks Q_i with slowly following targets Q'_i.
Source: Le, Voloshin and Yue (2019), "Batch policy learning under constraints", arXiv:1903.08738,
algorithm 3, by stochastic gradients. μ never changes, so that there is no maximum to overestimate.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from prefgym.values import Critic, Layer

MEMBERS = 2
BATCH = 256
LEARNING_RATE = 1e-3
FOLLOWING = 0.01
"""Share of a network that its target takes over in an update."""

Policy = Callable[[np.ndarray], np.ndarray]
"""Observations ``[n, *obs]`` -> actions ``[n, *act]``."""


class Steps(NamedTuple):
    """Steps in any order, ``[n, ...]``."""

    observations: Shaped[np.ndarray, " n *obs"]
    actions: Shaped[np.ndarray, " n *act"]
    rewards: Float[np.ndarray, " n"]
    next_observations: Shaped[np.ndarray, " n *obs"]
    terminated: Bool[np.ndarray, " n"]
    """A time limit does not terminate."""


def explored(
    env_id: str, policies: Sequence[Policy], steps: int, rng: np.random.Generator
) -> Steps:
    """Steps of several policies side by side, each made bolder in its own way.

    A third of a policy's lanes acts as it does, a third adds Gaussian noise of up to 0.6 of half
    the range, and a third acts at random in up to every step.

    Args:
        env_id: a prefgym id with bounded continuous actions.
        policies: one lane for each; name one several times for more.
        steps: in all, rounded to whole steps of all lanes.
        rng: of the noise.
    """
    lanes = len(policies)
    env: Any = gym.make_vec(env_id, num_envs=lanes, query_every=None)
    space = env.single_action_space
    half = (space.high - space.low) / 2.0
    kind, amount = np.arange(lanes) % 3, rng.random(lanes)
    spread = np.where(kind == 1, 0.6 * amount, 0.0)[:, None]
    share = np.where(kind == 2, amount, 0.0)[:, None]
    rows: list[tuple[np.ndarray, ...]] = []
    try:
        observations, _ = env.reset(seed=int(rng.integers(2**31)))
        for _ in range(max(1, steps // lanes)):
            wanted = np.empty((lanes, *space.shape))
            for policy in dict.fromkeys(policies):
                mine = np.array([one is policy for one in policies])
                wanted[mine] = policy(observations[mine])
            wanted += spread * half * rng.standard_normal(wanted.shape)
            drawn = rng.uniform(space.low, space.high, wanted.shape)
            actions = np.where(rng.random((lanes, 1)) < share, drawn, wanted)
            actions = np.clip(actions, space.low, space.high).astype(space.dtype)
            following, _, terminated, _, infos = env.step(actions)
            reached = _reached(following, infos)
            rows.append((observations, actions, infos["true_reward"], reached, terminated))
            observations = following
    finally:
        env.close()
    return Steps(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def fitted_critic(
    steps: Steps,
    actor: tuple[Layer, ...],
    policy: Policy,
    action_space: gym.spaces.Box,
    *,
    discount: float = 0.99,
    updates: int = 30_000,
    hidden: Sequence[int] = (128, 128),
    seed: int = 0,
    tell: Callable[[int], None] = lambda done: None,
) -> Critic:
    """Fit the values of a policy.

    Args:
        steps: what happened, of any policies.
        actor: the policy as layers, for the critic to know; see :class:`prefgym.values.Critic`.
        policy: the same as a function.
        action_space: bounds of the actions.
        discount: of the values, per step.
        updates: of both networks.
        hidden: widths.
        seed: of weights and batches.
        tell: called with the number of updates done, now and then.

    Raises:
        RuntimeError: the values are not finite.
    """
    torch_rng = torch.Generator().manual_seed(seed)
    low, high = (np.ravel(one).astype(np.float32) for one in (action_space.low, action_space.high))
    flat, after = (np.reshape(one, (len(one), -1)) for one in (steps[0], steps[3]))
    mean, deviation = flat.mean(0), flat.std(0) + 1e-6
    scale = float(np.std(steps.rewards) + np.abs(np.mean(steps.rewards))) / (1.0 - discount)

    def inputs(observed: np.ndarray, acted: np.ndarray) -> Tensor:
        scaled = 2.0 * (acted.reshape(len(acted), -1) - low) / (high - low) - 1.0
        both = np.concatenate([(observed - mean) / deviation, scaled], 1)
        return torch.from_numpy(both.astype(np.float32))

    now = inputs(flat, steps.actions)
    then = inputs(after, policy(steps.next_observations))
    rewards = torch.from_numpy((steps.rewards / scale).astype(np.float32))
    going_on = torch.from_numpy((discount * ~steps.terminated).astype(np.float32))
    layers = _new((now.shape[1], *hidden, 1), torch_rng)
    targets = [one.detach().clone() for one in layers]
    optimizer = torch.optim.Adam(layers, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, updates)
    for done in range(updates):
        batch = torch.randint(len(now), (BATCH,), generator=torch_rng)
        with torch.no_grad():
            goal = rewards[batch] + going_on[batch] * _values(targets, then[batch])
        loss = (_values(layers, now[batch]) - goal).square().mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        torch._foreach_lerp_(targets, [one.detach() for one in layers], FOLLOWING)
        if done % 500 == 0:
            tell(done)
    if not torch.isfinite(loss):
        raise RuntimeError("Fitted values went astray (NaN); give them more steps to learn from.")
    critics = _in_units(layers, mean, deviation, scale)
    return Critic(critics, actor, low, high, "relu", bounded="clip")


def _reached(following: np.ndarray, infos: dict[str, Any]) -> np.ndarray:
    """Where steps led; at the end of an episode that is not what the next one begins with."""
    if "final_obs" not in infos:
        return following
    reached = following.copy()
    for lane in np.flatnonzero(infos["_final_obs"]):
        reached[lane] = infos["final_obs"][lane]
    return reached


def _new(sizes: Sequence[int], rng: torch.Generator) -> list[Tensor]:
    """Weights and biases in turn, ``[members, inputs, outputs]`` and ``[members, 1, outputs]``."""
    parts = []
    for inputs, outputs in pairwise(sizes):
        for shape in ((MEMBERS, inputs, outputs), (MEMBERS, 1, outputs)):
            drawn = (2.0 * torch.rand(shape, generator=rng) - 1.0) / inputs**0.5
            parts.append(drawn.requires_grad_())
    return parts


def _values(parts: Sequence[Tensor], rows: Tensor) -> Float[Tensor, " members n"]:
    hidden = rows.expand(MEMBERS, -1, -1)
    for weight, bias in zip(parts[:-2:2], parts[1:-2:2], strict=True):
        hidden = torch.relu(torch.baddbmm(bias, hidden, weight))
    return torch.baddbmm(parts[-1], hidden, parts[-2])[..., 0]


@torch.no_grad()
def _in_units(
    parts: Sequence[Tensor], mean: np.ndarray, deviation: np.ndarray, scale: float
) -> tuple[Layer, ...]:
    """The same networks for observations as they come, with values in units of return."""
    pairs = [
        [one.detach().double() for one in pair]
        for pair in zip(parts[::2], parts[1::2], strict=True)
    ]
    first, shift = pairs[0]
    size = len(mean)
    factor = torch.ones(first.shape[1], 1, dtype=torch.float64)
    factor[:size, 0] = torch.from_numpy(1.0 / deviation)
    centre = torch.zeros(1, first.shape[1], dtype=torch.float64)
    centre[0, :size] = torch.from_numpy(mean)
    first = first * factor
    pairs[0] = [first, shift - centre @ first]
    pairs[-1] = [scale * one for one in pairs[-1]]
    return tuple(Layer(*(one.float() for one in pair)) for pair in pairs)
