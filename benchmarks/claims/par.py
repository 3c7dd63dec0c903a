"""A reward shaped by a sigmoid around references lets a policy train longer before it is hacked.

Source: Fu et al. (2025), "Reward shaping to mitigate reward hacking in RLHF", arXiv:2502.18770.

In each of many contexts there are candidate responses, of which the proxy reward is the gold reward
and a little noise. One in a hundred is a hack: its gold is poor, and its proxy far above what any
honest response reaches. What is measured is the mean gold of the policy that the proxy prefers most
within a KL divergence of the uniform one (:func:`best_within_kl`): what training ends with when it
goes well, so that no learning rate is to blame. The divergence is the same for every shape of the
proxy. "Final" is the gold at 1 nat, "peak" the highest on the way there. PAR reads ten responses of
the reference policy to the same context.

Controls: bringing the proxy to mean 0 and deviation 1 is a change of units, so that it changes
nothing at all; and without hacks the raw proxy does not fall, and PAR gains nothing over it.

What is not claimed. PAR puts the fall off, but it falls too (``par_at_3``), and the more hacks
there are the earlier (``par_kept_2_percent``). Holding the proxy within a deviation of its mean
ends higher than PAR (``clip_final``), and so does the log-sigmoid (``log_sigmoid_final``). In the
paper the raw reward peaks as high as PAR before it falls; here its peak is lower too.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.claims.claim import ClaimResult, Row
from prefgym.overoptimisation import best_within_kl
from prefgym.rewards import log_sigmoid, preference_as_reward, reference_level

KEY = "par"
CLAIM = (
    "A policy optimised for a proxy that can be hacked stays at its peak when the proxy is shaped "
    "by a sigmoid around references, and falls from it when it is not."
)
HACKS = 0.01
"""Share of the candidates that are hacks."""
WORST, NOISE, JUMP, TAIL = -2.0, 0.5, 4.0, 2.0
"""Gold of a hack, deviation of proxy from gold, least proxy of a hack, mean of what it adds."""
REFERENCES = 10
HALF, FINAL = 0.5, 1.0
"""Nats."""
WAY = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, HALF, 0.6, 0.7, 0.8, 0.9, FINAL, 1.5, 2.0, 3.0)
"""Nats at which gold is measured."""


class Contexts(NamedTuple):
    """Candidates and responses of the reference policy, ``[contexts, ...]``."""

    proxy: np.ndarray
    gold: np.ndarray
    references: np.ndarray
    """Proxy of the references."""


Shape = Callable[[Tensor, Tensor], Tensor]
"""``shape(proxy [contexts, candidates], references [contexts, 1, references])``."""

SHAPES: dict[str, Shape] = {
    "raw": lambda proxy, _: proxy,
    "par": preference_as_reward,
    "par_one_reference": lambda proxy, references: preference_as_reward(proxy, references[..., :1]),
    "log_sigmoid": lambda proxy, references: log_sigmoid(proxy, reference_level(references)),
    "mean_std": lambda proxy, _: _scaled(proxy),
    "clip": lambda proxy, _: _scaled(proxy).clamp(-1.0, 1.0),
}


def run(seed: int, quick: bool) -> ClaimResult:
    """Every shape along the way, with hacks, and the two that matter without and with more."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    size = (25, 512) if quick else (100, 1024)
    hacked, honest = drawn(rng, size, HACKS), drawn(rng, size, 0.0)
    curves = {name: golds(hacked, shape) for name, shape in SHAPES.items()}
    clean = {name: golds(honest, SHAPES[name]) for name in ("raw", "par")}
    many = golds(drawn(rng, size, 2 * HACKS), preference_as_reward)

    half, end = WAY.index(HALF), WAY.index(FINAL)
    gained = curves["par"] - curves["raw"]
    rows = [
        Row("PAR: final gold over its peak", kept(curves["par"]), ">=", 0.95),
        Row("raw: final gold over its peak", kept(curves["raw"]), "<=", 0.7),
        Row("gold of PAR less raw, 0.5 nats", gained[half], ">=", 0.4),
        Row("gold of PAR less raw, 1 nat", gained[end], ">=", 0.4),
    ]
    apart = np.abs(policy(hacked, "mean_std") - policy(hacked, "raw")).max()
    controls = [
        Row("mean 0, deviation 1: any probability less raw", apart, "<=", 1e-9),
        Row("no hacks, raw: final gold over its peak", kept(clean["raw"]), ">=", 0.99),
        Row(
            "no hacks: gold of PAR less raw, 1 nat", clean["par"][end] - clean["raw"][end], "<=", 0
        ),
    ]
    figures = {
        **{f"{name}_final": float(curve[end]) for name, curve in curves.items()},
        **{f"{name}_peak": float(curve[: end + 1].max()) for name, curve in curves.items()},
        **{f"{name}_at_3": float(curves[name][-1]) for name in ("raw", "par", "clip")},
        "par_kept_2_percent": kept(many),
        "par_final_2_percent": float(many[end]),
    }
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def drawn(rng: np.random.Generator, size: tuple[int, int], hacks: float) -> Contexts:
    """Candidates and references of the same policy."""
    proxy, gold = _responses(rng, size, hacks)
    references, _ = _responses(rng, (size[0], REFERENCES), hacks)
    return Contexts(proxy, gold, references)


def golds(contexts: Contexts, shape: Shape) -> np.ndarray:
    """Mean gold of the best policy for a shaped proxy, at every divergence of the way."""
    shaped = _shaped(contexts, shape)
    best = (best_within_kl(shaped, nats) for nats in WAY)
    return np.array([(policy * contexts.gold).sum(1).mean() for policy in best])


def policy(contexts: Contexts, name: str) -> np.ndarray:
    """The best policy at the end."""
    return best_within_kl(_shaped(contexts, SHAPES[name]), FINAL)


def kept(curve: np.ndarray) -> float:
    """Gold at the end over the highest on the way."""
    until = curve[: WAY.index(FINAL) + 1]
    return float(until[-1] / until.max())


def _responses(
    rng: np.random.Generator, size: tuple[int, int], hacks: float
) -> tuple[np.ndarray, np.ndarray]:
    gold = rng.normal(size=size)
    proxy = gold + NOISE * rng.normal(size=size)
    hack = rng.random(size) < hacks
    trick = JUMP + rng.exponential(TAIL, size)
    return np.where(hack, trick, proxy), np.where(hack, WORST, gold)


def _shaped(contexts: Contexts, shape: Shape) -> np.ndarray:
    references = torch.as_tensor(contexts.references)[:, None, :]
    return shape(torch.as_tensor(contexts.proxy), references).numpy()


def _scaled(proxy: Tensor) -> Tensor:
    """Mean 0 and deviation 1 in every context."""
    return (proxy - proxy.mean(1, keepdim=True)) / proxy.std(1, keepdim=True)
