"""Preferences that go round in a circle: no reward explains them, a skew-symmetric score does.

Source: Zhang et al. (2025), "Beyond Bradley-Terry models: a general preference model for language
model alignment", arXiv:2410.02197 (GPM). The paper's cyclic sets: Bradley-Terry 62.4 and 50.0 %,
GPM 100 %.

A rater prefers whichever of two segments lies less than half a turn anticlockwise of the other, by
the direction in which a segment's mean place lies from the origin: for every segment there is a
better one, round and round. 4000 answers are fitted, 4000 others tested. The form of GPM is what
``MODELS`` holds: four numbers, no normalisation, τ = 1.

Three segments in a circle, of which all three pairs are fitted: the likeliest Bradley-Terry model
gives all of them one value, so that it says ½ of every pair, while GPM gets all three right.

Exact besides: exchanging the sides turns the sign of the score, and a tournament of 64 segments
comes from 64 encodings.

Control: with a rater who does have a reward, GPM is hardly worse than Bradley-Terry.

Figures: with two numbers, of length 1, and τ = 0.1, the smallest form with the settings of the
paper's code, most starts stay at chance; of five, the best, the median, and the share that does.
"""

from math import inf

import numpy as np
import torch

from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.point_mass import fitted, right, segments
from prefgym.comparisons import Comparisons
from prefgym.models.heads import GeneralPreferenceHead
from prefgym.models.reward_models import RewardModel
from prefgym.raters.features import Columns
from prefgym.raters.intransitive import Cyclic
from prefgym.raters.pairs import PairRater
from prefgym.raters.protocols import Rater
from prefgym.raters.scores import StepSum
from prefgym.raters.scripted import ScriptedRater
from prefgym.raters.tastes import GoalDistance
from prefgym.segments import Segments

KEY = "gpm"
CLAIM = (
    "A skew-symmetric score of two embeddings expresses intransitive preferences, on which "
    "Bradley-Terry models are no better than random guessing."
)
PAIRS, QUICK_PAIRS = 4000, 1500
EPOCHS, TURNS_OF_THREE, FIELD, STARTS = 40, 400, 64, 5
ROUND = PairRater(Cyclic(Columns((0, 1), over="mean")), "cyclic")
STRAIGHT = ScriptedRater(StepSum(GoalDistance((1.0, 1.0))), "goal", beta=inf)


def run(seed: int, quick: bool) -> ClaimResult:
    """Both models with both raters, and with three segments in a circle."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    pairs = QUICK_PAIRS if quick else PAIRS
    learned, accuracy = {}, {}
    for told, rater in {"cyclic": ROUND, "transitive": STRAIGHT}.items():
        train, test = (answered(rng, rater, pairs) for _ in range(2))
        for name in ("bt", "gpm"):
            learned[told, name] = fitted(name, train, rng, epochs=EPOCHS)
            accuracy[told, name] = float(right(learned[told, name], test).mean())
        if told == "cyclic":
            shy = fitted(_two_numbers, train, rng, epochs=EPOCHS, members=STARTS)
            starts = of_starts(shy, test)
    gaps, all_three = of_three(rng)
    mirrored, tournament = exactness(learned["cyclic", "gpm"], segments(rng, FIELD))
    rows = [
        Row("cyclic rater: Bradley-Terry, least", accuracy["cyclic", "bt"], ">=", 0.45),
        Row("cyclic rater: Bradley-Terry, most", accuracy["cyclic", "bt"], "<=", 0.55),
        Row("cyclic rater: GPM", accuracy["cyclic", "gpm"], ">=", 0.93),
        Row("three in a circle: largest Bradley-Terry gap, nats", gaps, "<=", 1e-2),
        Row("three in a circle: GPM, share of pairs", all_three, "==", 1.0),
        Row("score of (a, b) plus that of (b, a), over the largest", mirrored, "<=", 1e-6),
        Row("64 encodings less 4096 pairs, over the largest score", tournament, "<=", 1e-6),
    ]
    lost = accuracy["transitive", "bt"] - accuracy["transitive", "gpm"]
    controls = [Row("transitive rater: lost by GPM", lost, "<=", 0.04)]
    figures = {f"{told}_{name}": one for (told, name), one in accuracy.items()}
    figures |= {
        "normalised_best": float(starts.max()),
        "normalised_median": float(np.median(starts)),
        "normalised_at_chance": float((starts < 0.6).mean()),
    }
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def answered(rng: np.random.Generator, rater: Rater, many: int) -> Comparisons:
    """What the rater says about so many pairs."""
    a, b = segments(rng, many), segments(rng, many)
    return Comparisons(a, b, rater(a, b, rng).label, meaning=rater.meaning)


def of_starts(model: RewardModel, test: Comparisons) -> np.ndarray:
    """The accuracy of every member, each from a start of its own."""
    told = model.logits(test.a, test.b).numpy() > 0.0
    accuracy: np.ndarray = (told == (test.label > 0.5)).mean(1)
    return accuracy


def of_three(rng: np.random.Generator) -> tuple[float, float]:
    """Bradley-Terry's largest gap between three segments in a circle, and GPM's accuracy."""
    three = in_a_circle(rng)
    ahead, behind = three.take([1, 2, 0]), three.take([0, 1, 2])
    cycle = Comparisons(ahead, behind, ROUND(ahead, behind, rng).label, meaning="cyclic")
    assert cycle.label.all()
    models = [fitted(name, cycle, rng, epochs=TURNS_OF_THREE) for name in ("bt", "gpm")]
    gaps = models[0].logits(ahead, behind).abs().max()
    return float(gaps), float(right(models[1], cycle).mean())


def in_a_circle(rng: np.random.Generator) -> Segments:
    """Three segments, each of which is preferred to the one before."""
    drawn = segments(rng, 1000)
    x, y = np.asarray(drawn.observations).mean(1).T
    turn = np.arctan2(y, x) % (2.0 * np.pi)
    thirds = 2.0 * np.pi * np.arange(3) / 3.0
    return drawn.take(np.abs(turn - thirds[:, None] - np.pi / 6.0).argmin(1))


def exactness(model: RewardModel, field: Segments) -> tuple[float, float]:
    """How far mirrored scores are from cancelling, and a tournament from its single pairs.

    Both as shares of the largest score.
    """
    first, second = (index.ravel() for index in np.indices((len(field), len(field))))
    a, b = field.take(first), field.take(second)
    forward, backward = model.logits(a, b), model.logits(b, a)
    head = model.head
    assert isinstance(head, GeneralPreferenceHead)
    with torch.no_grad():
        items = head.summary(model.outputs(field), torch.as_tensor(field.mask)[None])
        apart = head.scores(items).flatten(1) - forward
    largest = forward.abs().max()
    return float((forward + backward).abs().max() / largest), float(apart.abs().max() / largest)


def _two_numbers(members: int, reads: int, generator: torch.Generator) -> GeneralPreferenceHead:
    return GeneralPreferenceHead(members, 2, normalise=True, temperature=0.1)
