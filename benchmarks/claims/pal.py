"""People as mixtures of a few prototypes: a row of shares per person, fitted from a few answers.

Source: Chen et al. (2025), "PAL: sample-efficient personalized reward modeling for pluralistic
alignment", arXiv:2406.08469 (PAL).

Half of 300 people want the point (see ``point_mass.py``) in one corner, half in the opposite one;
each answers 16 noisy questions. K prototypes and everybody's shares of them are fitted together.
Then the shares of 1000 new people are fitted to four or sixteen of their answers with all else
frozen, and they are asked 10 others. *Pooled* is Bradley-Terry on the same answers.

The same with goals all over the square, where two prototypes are too few: mixtures of K rewards
have K − 1 directions, up to scale, and goals have two.

A policy that reads the shares serves people whom training never met: ``served_people.py``.

Control: the ids of those who answered are dealt out anew, of the fitted people and of the new ones,
answers and pairs as they are. Then nobody's row tells anything, and new people get no more than the
pooled model knows. (Dealt anew in the fit only, a little remains, as a figure tells: by chance some
rows hold more answers of one group than of the other, enough to find the two goals at times.)
"""

from math import inf

import numpy as np
import torch

from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.point_mass import (
    ASKED_OF_NEW,
    CORNERS,
    EACH,
    NEW_PEOPLE,
    PEOPLE,
    accuracy_of_new,
    answers,
    anywhere,
    fitted,
    pooled_accuracy,
    right,
    two_groups,
)
from benchmarks.claims.served_people import served
from prefgym.comparisons import Comparisons

KEY = "pal"
CLAIM = (
    "A few prototypes, and each user's shares of them, explain pluralistic preferences, and new "
    "users from a few answers."
)
FEW = (4, 16)
QUICK_EPOCHS, EPOCHS = 15, 40


def run(seed: int, quick: bool) -> ClaimResult:
    """Two goals, with ids and with shuffled ones, and goals everywhere by two K."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    epochs = QUICK_EPOCHS if quick else EPOCHS
    new = CORNERS[two_groups(rng, NEW_PEOPLE)]
    answered = answers(rng, CORNERS[two_groups(rng, PEOPLE)], EACH)
    pooled = pooled_accuracy(fitted("bt", answered, rng, epochs=epochs), rng, new)
    told_apart = fitted("pal", answered, rng, epochs=epochs)
    accuracy = {f"two_{few}": accuracy_of_new(told_apart, rng, new, few) for few in FEW}

    mixed_up = fitted("pal", dealt_anew(answered, rng), rng, epochs=epochs)
    accuracy["dealt_in_fit"] = accuracy_of_new(mixed_up, rng, new, max(FEW))
    strangers = mixed_up.infer(dealt_anew(answers(rng, new, max(FEW)), rng))
    test = answers(rng, new, ASKED_OF_NEW, inf)
    accuracy["dealt"] = float(right(mixed_up, test, strangers).mean())
    rows = [
        Row("two goals: new people, 4 answers", accuracy["two_4"], ">=", 0.90),
        Row("two goals: new people, 16 answers", accuracy["two_16"], ">=", 0.94),
        Row("two goals: pooled", pooled, "<=", 0.65),
    ]
    if not quick:
        answered, new = answers(rng, anywhere(rng, PEOPLE), EACH), anywhere(rng, NEW_PEOPLE)
        for tastes in (2, 4):
            model = fitted("pal", answered, rng, tastes, epochs)
            accuracy[f"any_{tastes}"] = accuracy_of_new(model, rng, new, max(FEW))
        gained = accuracy["any_4"] - accuracy["any_2"]
        rows += [
            Row("any goal: new people, 16 answers, K = 4", accuracy["any_4"], ">=", 0.90),
            Row("any goal: the same less K = 2", gained, ">=", 0.10),
        ]
    controls = [
        Row("ids dealt anew: gained over pooled", accuracy["dealt"] - pooled, "<=", 0.02),
    ]
    figures = {**accuracy, "pooled": pooled}
    if not quick:
        more, where_not, told = served(seed)
        rows, controls, figures = [*rows, *more], [*controls, *where_not], {**figures, **told}
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def dealt_anew(answered: Comparisons, rng: np.random.Generator) -> Comparisons:
    """The same answers, as many of everybody, and nobody's own."""
    return answered.replace(rater_id=rng.permutation(answered.rater_id))
