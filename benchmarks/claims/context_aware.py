"""Which answer is better depends on what was asked for: a model that is told so can turn round.

Source: Pitis et al. (2024), "Improving context-aware preference modeling for language models",
arXiv:2407.14916.

Segments of four steps of eight numbers; four criteria, each a direction to have much of. A
comparison says under which criterion it was made: all steps show it, as four flags. The pairs for
fitting are reversals, as in the paper's data: the same two segments under two criteria by which
opposite sides win. One network reads the flags, the other does not. On pairs held out:

- reversals: without the context right on exactly half of them;
- any pairs, after a fit to such pairs: what the context is worth;
- an absurd criterion, to prefer the *smaller* sum of the first number, is obeyed like the others;
- two steps: a criterion that is inferred rightly in 80 % of the cases costs as much as it should,
  .8 · accuracy + .2 · accuracy under a wrong criterion;
- profile: who answers always by one criterion is known by four answers.

Controls: without reversals among the pairs for fitting, where one criterion was asked for nearly
all pairs, the model that sees the context still ignores the others; and where all criteria are one,
seeing the context is worth nothing.
"""

import numpy as np
import torch
from torch.nn import functional

from benchmarks.claims.claim import ClaimResult, Row
from prefgym.comparisons import Comparisons
from prefgym.models.encoders import MLPEncoder
from prefgym.models.features import MappedFeatures
from prefgym.models.fit import adam, fit
from prefgym.models.heads import ScalarHead
from prefgym.models.reward_models import RewardModel
from prefgym.segments import Segments

KEY = "context_aware"
CLAIM = (
    "A preference model that reads the criterion follows it where the preferred answer reverses; "
    "one that does not is right half of the time."
)
CRITERIA, ITEM, STEPS = 4, 8, 4
PAIRS, TEST, ASKED = 3_000, 8_000, 4
INFERRED = 0.8
"""Share of contexts that the first of two steps finds."""


class World:
    """What each criterion wants; the last one is absurd."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.wants = np.linalg.qr(rng.normal(size=(ITEM, ITEM)))[0][:CRITERIA]
        self.wants[-1] = -np.eye(ITEM)[0]

    def gaps(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """By how much ``a`` is better under each criterion, ``[n, criteria]``."""
        difference: np.ndarray = (a - b).sum(1) @ self.wants.T
        return difference


def items(count: int, rng: np.random.Generator) -> np.ndarray:
    """``[n, steps, numbers]``."""
    drawn: np.ndarray = rng.normal(size=(count, STEPS, ITEM)) / STEPS**0.5
    return drawn


def under(criterion: np.ndarray, item: np.ndarray) -> Segments:
    """Segments whose steps show the criterion as flags."""
    flags = np.eye(CRITERIA)[criterion]
    shown = np.broadcast_to(flags[:, None], (*item.shape[:2], CRITERIA))
    observations = np.concatenate([shown, item], -1).astype(np.float32)
    return Segments(
        actions=np.zeros(item.shape[:2], np.int64),
        mask=np.ones(item.shape[:2], np.bool_),
        context=observations[:, 0],
        context_id=np.asarray(criterion, np.int64),
        observations=observations,
    )


def compared(world: World, criterion: np.ndarray, a: np.ndarray, b: np.ndarray) -> Comparisons:
    """Each pair under its criterion."""
    gap = world.gaps(a, b)[np.arange(len(a)), criterion]
    label = (gap > 0).astype(np.float64)
    return Comparisons(under(criterion, a), under(criterion, b), label, meaning="criterion")


def reversals(world: World, count: int, rng: np.random.Generator) -> Comparisons:
    """``2 · count`` comparisons: each pair of segments under two criteria with opposite winners."""
    a, b = items(8 * count, rng), items(8 * count, rng)
    wins = world.gaps(a, b) > 0
    both = np.flatnonzero(wins.any(1) & ~wins.all(1))[:count]
    a, b, wins = a[both], b[both], wins[both]
    draws = rng.random(wins.shape)
    won, lost = (np.where(side, draws, -1.0).argmax(1) for side in (wins, ~wins))
    parts = [compared(world, criterion, a, b) for criterion in (won, lost)]
    return Comparisons.concatenate(parts)


def anything(world: World, count: int, rng: np.random.Generator) -> Comparisons:
    """Pairs as they come, each under a criterion drawn at random."""
    return compared(world, rng.integers(CRITERIA, size=count), items(count, rng), items(count, rng))


def seen(segments: Segments) -> np.ndarray:
    """Criterion and item of every step."""
    assert segments.observations is not None
    return np.asarray(segments.observations)


def unseen(segments: Segments) -> np.ndarray:
    """The item alone."""
    return seen(segments)[..., CRITERIA:]


def fitted(sees: bool, pairs: Comparisons, seed: int, rng: np.random.Generator) -> RewardModel:
    """A network with or without the criterion, after 30 passes."""
    function, width = (seen, CRITERIA + ITEM) if sees else (unseen, ITEM)
    generator = torch.Generator().manual_seed(seed)
    encoder = MLPEncoder(width, 1, 1, (64, 64), "leaky_relu", generator)
    model = RewardModel(MappedFeatures(function, width), encoder, ScalarHead())
    fit(model, pairs, adam(model, 3e-3), rng, epochs=30, batch_pairs=128, stop_accuracy=1.0)
    return model


def margin(model: RewardModel, pairs: Comparisons) -> np.ndarray:
    """Log-odds of every pair."""
    found: np.ndarray = model.logits(pairs.a, pairs.b).mean(0).numpy()
    return found


def accuracy(model: RewardModel, pairs: Comparisons) -> float:
    """Share of the pairs whose better side has the larger reward; a tie counts half."""
    lean = np.sign(margin(model, pairs)) * np.sign(pairs.label - 0.5)
    return float(0.5 + 0.5 * lean.mean())


def elsewhere(pairs: Comparisons, criterion: np.ndarray) -> Comparisons:
    """The same pairs and answers, shown under other criteria."""
    return pairs.replace(a=under(criterion, unseen(pairs.a)), b=under(criterion, unseen(pairs.b)))


def profile(model: RewardModel, world: World, rng: np.random.Generator) -> float:
    """How often four answers tell by which criterion their author judges."""
    authors = 300
    truth = rng.integers(CRITERIA, size=authors)
    asked = np.repeat(truth, ASKED)
    answers = compared(world, asked, items(len(asked), rng), items(len(asked), rng))
    said = torch.as_tensor(np.where(answers.label > 0.5, 1.0, -1.0))
    likely = [
        functional.logsigmoid(
            said * torch.as_tensor(margin(model, elsewhere(answers, np.full(len(asked), k))))
        )
        for k in range(CRITERIA)
    ]
    total = torch.stack(likely, 1).view(authors, ASKED, CRITERIA).sum(1)
    return float(np.mean(total.argmax(1).numpy() == truth))


def run(seed: int, quick: bool) -> ClaimResult:
    """One world; when quick with a third of the pairs."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    world = World(rng)
    count = PAIRS // 3 if quick else PAIRS
    pairs = reversals(world, count // 2, rng)
    turned, test = reversals(world, TEST // 2, rng), anything(world, TEST, rng)
    sees, blind = fitted(True, pairs, seed, rng), fitted(False, pairs, seed, rng)
    criterion = test.a.context_id
    absurd = test.take(criterion == CRITERIA - 1)
    wrong = (criterion + rng.integers(1, CRITERIA, size=TEST)) % CRITERIA
    found = rng.random(TEST) < INFERRED
    two_steps = accuracy(sees, elsewhere(test, np.where(found, criterion, wrong)))
    foreseen = INFERRED * accuracy(sees, test) + (1.0 - INFERRED) * accuracy(
        sees, elsewhere(test, wrong)
    )
    always = np.zeros(count, np.int64)
    one_sided = fitted(
        True, compared(world, always, items(count, rng), items(count, rng)), seed, rng
    )
    others = turned.take(turned.a.context_id != 0)
    alike = World(rng)
    alike.wants[:] = alike.wants[0]
    agreed, new = anything(alike, count, rng), anything(alike, TEST, rng)
    told, untold = (accuracy(fitted(one, agreed, seed, rng), new) for one in (True, False))
    mixed = anything(world, count, rng)
    with_it, without = (accuracy(fitted(one, mixed, seed, rng), test) for one in (True, False))
    return ClaimResult(
        KEY,
        CLAIM,
        seed,
        rows=[
            Row("reversals, context read", accuracy(sees, turned), ">=", 0.93),
            Row("reversals, context not read", accuracy(blind, turned), "==", 0.5),
            Row("what the context is worth on any pairs", with_it - without, ">=", 0.10),
            Row("an absurd criterion is obeyed", accuracy(sees, absurd), ">=", 0.9),
            Row("two steps, away from what is foreseen", abs(two_steps - foreseen), "<=", 0.02),
            Row("authors known by four answers", profile(sees, world, rng), ">=", 0.85),
        ],
        controls=[
            Row("other criteria, fitted without them", accuracy(one_sided, others), "<=", 0.6),
            Row("worth of the context where criteria agree", told - untold, "<=", 0.03),
        ],
        figures={
            "any_pairs": with_it,
            "any_pairs_blind": without,
            "two_steps": two_steps,
            "foreseen": foreseen,
            "agreed_told": told,
            "agreed_untold": untold,
        },
    )
