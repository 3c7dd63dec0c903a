"""Rejection sampling towards the optimal policy, and what it buys a direct loss.

Source: Liu et al. (2023), "Statistical rejection sampling improves preference optimization",
arXiv:2309.06657.

The sampler: of 64 samples of π_sft, 8 are kept. How far their distribution is from
π_sft exp(r/β), in total variation, against how far π_sft itself is; the mean over ten bandits.

End to end (not in the quick part): bandits with 64 contexts and 24 arms whose reward is linear in
features. A ranker is fitted to 256 noisy comparisons that were written by another policy. Then one
loss (sigmoid-norm: γ = β = 0.5) is fitted on as many pairs of three kinds: those comparisons
("direct"); pairs of π_sft's samples, labelled by the ranker ("sft"); pairs of the samples that were
kept of 64, labelled alike ("rso"). The policy is a table, so it learns about the arms that it is
shown; a ranker generalises to those that nobody compared.

Controls: a hot selector (β → ∞) is π_sft again; and with rankers that were taught by a coin, and by
the same coin turned over, rejection sampling gains nothing over the start.
"""

import numpy as np
import torch
from torch.nn import functional

from benchmarks.claims.bandits import Pairs, descended, sigmoid, tilted
from benchmarks.claims.claim import ClaimResult, Row
from prefgym.direct_losses import Recipe
from prefgym.selection import acceptance, rejection

KEY = "rso"
CLAIM = (
    "Pairs sampled from the estimated optimal policy by rejection teach a direct loss more than "
    "pairs of the supervised policy, and these more than pairs of another policy."
)
BETA, CANDIDATES, KEPT = 0.5, 64, 8
BANDITS, ARMS, REPEATS = 10, 5, 2_000
SEEDS, CONTEXTS, TASK_ARMS, FEATURES, LABELS = 5, 64, 24, 6, 256
KINDS = ("direct", "sft", "rso")


def run(seed: int, quick: bool) -> ClaimResult:
    """The sampler; and, unless quick, five trainings."""
    torch.set_num_threads(1)
    sampled = [sampler(np.random.default_rng((seed, k))) for k in range(BANDITS)]
    exact, kept, hot, raw = (float(np.mean(column)) for column in zip(*sampled, strict=True))
    rows = [
        Row("one pass, accepted samples: total variation", exact, "<=", 1e-12),
        Row("64 to 8: total variation", kept, "<=", 0.02),
        Row("the same over that of π_sft", kept / raw, "<=", 0.2),
    ]
    controls = [Row("a hot selector, over that of π_sft", hot / raw, ">=", 0.9)]
    figures = {"tv_rso": kept, "tv_sft": raw, "tv_hot": hot}
    if not quick:
        told, heads, tails = (
            [trained(np.random.default_rng((seed, k, 1)), answers) for k in range(SEEDS)]
            for answers in ("truth", "heads", "tails")
        )
        mean = {name: float(np.mean([one[name] for one in told])) for name in told[0]}
        ordered = sum(one["rso"] >= one["sft"] >= one["direct"] for one in told)
        gained = float(np.mean([one["rso"] - one["start"] for one in heads + tails]))
        rows.append(Row("seeds ordered rso >= sft >= direct", ordered, ">=", SEEDS - 1))
        share = gained / (mean["rso"] - mean["start"])
        controls.append(Row("a coin's ranker: share of rso's gain", share, "<=", 0.25))
        figures |= {f"reward_{name}": value for name, value in mean.items()} | {"coin": share}
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def sampler(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Total variations from the target: exact acceptance, 64 to 8, 64 to 8 when hot, and π_sft."""
    start, rewards = rng.dirichlet(np.full(ARMS, 2.0), size=1), rng.uniform(size=(1, ARMS))
    wanted = tilted(start, rewards, BETA)[0]
    accepted = (start * acceptance(rewards, BETA))[0]
    arms = rng.choice(ARMS, size=(REPEATS, CANDIDATES), p=start[0])

    def share(beta: float) -> np.ndarray:
        chosen = rejection(rewards[0, arms], KEPT, beta, rng)
        kept = np.take_along_axis(arms, chosen, 1)
        return np.bincount(kept.ravel(), minlength=ARMS) / kept.size

    shares = (accepted / accepted.sum(), share(BETA), share(1e9), start[0])
    exact, kept, hot, raw = (float(0.5 * np.abs(one - wanted).sum()) for one in shares)
    return exact, kept, hot, raw


def trained(rng: np.random.Generator, answers: str) -> dict[str, float]:
    """Mean true reward of the policies that three kinds of pairs lead to.

    ``answers``: "truth" is Bradley and Terry's; "heads" a coin, "tails" its other side.
    """
    features = rng.normal(size=(CONTEXTS, TASK_ARMS, FEATURES))
    rewards = features @ rng.normal(size=FEATURES) / np.sqrt(FEATURES)
    start, other = (_softmax(rng.normal(size=(CONTEXTS, TASK_ARMS))) for _ in range(2))
    context = rng.integers(CONTEXTS, size=LABELS)
    a, b = (_drawn(other, context, rng) for _ in range(2))
    truth = sigmoid(rewards[context, a] - rewards[context, b])
    label = (rng.random(LABELS) < (truth if answers == "truth" else 0.5)).astype(np.float64)
    label = 1.0 - label if answers == "tails" else label
    direct = Pairs(context, a, b, label)
    scores = features @ ranker(features[context, a] - features[context, b], label)
    everywhere = np.repeat(np.arange(CONTEXTS), CANDIDATES)
    candidates = _drawn(start, everywhere, rng).reshape(CONTEXTS, CANDIDATES)
    pairs = {
        "direct": direct,
        "sft": ranked(scores, candidates, 1e9, rng),
        "rso": ranked(scores, candidates, BETA, rng),
    }
    policies = {
        name: descended(Recipe(beta=BETA), start, of, steps=400) for name, of in pairs.items()
    }
    policies |= {"start": start, "best": tilted(start, rewards, BETA)}
    return {name: float((one * rewards).sum(1).mean()) for name, one in policies.items()}


def ranked(
    scores: np.ndarray, candidates: np.ndarray, beta: float, rng: np.random.Generator
) -> Pairs:
    """Pairs of what is kept, four of each context, labelled by the ranker."""
    known = np.take_along_axis(scores, candidates, 1)
    kept = np.take_along_axis(candidates, rejection(known, KEPT, beta, rng), 1)
    context = np.repeat(np.arange(CONTEXTS), KEPT // 2)
    a, b = kept[:, 0::2].ravel(), kept[:, 1::2].ravel()
    label = 0.5 + 0.5 * np.sign(scores[context, a] - scores[context, b])
    return Pairs(context, a, b, label)


def ranker(gaps: np.ndarray, label: np.ndarray, ridge: float = 0.01) -> np.ndarray:
    """Bradley and Terry's weights of the features, from differences of features ``[B, F]``."""
    weights = torch.zeros(gaps.shape[1], dtype=torch.float64, requires_grad=True)
    known, wanted = torch.as_tensor(gaps), torch.as_tensor(label)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(known @ weights, wanted)
        loss = loss + ridge * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach().numpy()


def _drawn(policy: np.ndarray, context: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An arm of ``policy`` in each context."""
    up_to = np.cumsum(policy, axis=1)[context]
    return np.minimum((rng.random((len(context), 1)) > up_to).sum(1), policy.shape[1] - 1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(weights / weights.sum(1, keepdims=True))
