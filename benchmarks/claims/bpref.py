"""B-Pref's teachers, and what their faults cost a learner.

Source: Lee et al. (2021), "B-Pref: Benchmarking Preference-Based Reinforcement Learning",
arXiv:2111.03026, section 3.

:func:`teachers` asks every scripted teacher the same questions many thousand times and compares how
often it prefers the first segment with the closed form, which is written down here once more, a
pair at a time in plain Python, straight from the definitions.

"Three standard errors" for one comparison means that a correct teacher passes with probability
0.9973. Of K = 350 comparisons the largest exceeds 3 more often than not, so the bound grows with K
such that *all* of them lie within it with that same probability 0.9973 (Šidák; a little more,
since the deviation pooled over a teacher's pairs depends on theirs). What is certain (hard choices,
ties, skips) must match exactly. The control is a list of planted faults, each a mistake that
somebody made or could make: every one must exceed the same bounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, inf, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.training import Job, side_by_side, train
from prefgym.raters import Rater, make_rater
from prefgym.raters.scores import StepSum, step_rewards
from prefgym.raters.scripted import ScriptedRater
from prefgym.segments import Segments

KEY = "bpref"
CLAIM = (
    "Teachers that are irrational, myopic, mistaken, or that skip or equate segments can be "
    "simulated by an explicit model of each behaviour."
)
ENV, TRAINING_STEPS, LABELS, SEEDS = "prefgym/Pendulum-v0", 60_000, 60, 5
FAULTY: dict[str, dict[str, float]] = {"noisy": {"beta": 0.01}, "mistake": {"mistake": 0.3}}
"""Teachers that err, and by how much."""
PAIRS, STEPS = 40, 8
DRAWS, QUICK_DRAWS = 20_000, 2_000
CONFIDENCE = 2 * NormalDist().cdf(3.0) - 1
RARE = 50
"""A pair is compared on its own if both answers are expected this often (else only pooled with the
others of its teacher), because below that a standard error says little about the tails."""


@dataclass(frozen=True)
class Teacher:
    """Knobs of a teacher, and how good the segments are that it was told of."""

    beta: float = inf
    gamma: float = 1.0
    mistake: float = 0.0
    skip: float = 0.0
    equal: float = 0.0
    sign: float = 1.0
    """−1 turns every reward into a cost."""
    sessions: int = 1
    """How often the thresholds were adapted before the questions."""
    bpref_compatible: bool = False


TEACHERS = {
    "oracle": Teacher(),
    "noisy": Teacher(beta=1.0),
    "noisy, beta 0.2": Teacher(beta=0.2),
    "myopic": Teacher(gamma=0.9),
    "mistake": Teacher(mistake=0.1),
    "skip": Teacher(skip=0.9),
    "equal": Teacher(equal=0.5),
    "noisy + myopic": Teacher(beta=1.0, gamma=0.7),
    "noisy + mistake": Teacher(beta=0.5, mistake=0.2),
    "mistake + equal": Teacher(mistake=0.3, equal=0.5),
    "noisy + skip": Teacher(beta=1.0, skip=0.8),
    "all five": Teacher(beta=0.5, gamma=0.8, mistake=0.1, skip=0.7, equal=0.3),
    "all five, costs": Teacher(beta=0.5, gamma=0.8, mistake=0.1, skip=0.7, equal=0.3, sign=-1.0),
    "all five, as released": Teacher(
        beta=0.5, gamma=0.8, mistake=0.1, skip=0.9, equal=0.7, sessions=2, bpref_compatible=True
    ),
}


def run(seed: int, quick: bool) -> ClaimResult:
    """Whether every teacher answers as stated, and every planted fault shows."""
    found = teachers(seed, QUICK_DRAWS if quick else DRAWS)
    rows = [
        Row(f"{name}: largest deviation, standard errors", worst, "<=", found.bound_z)
        for name, worst in found.worst_z.items()
    ]
    rows.append(Row("certain answers that differ", sum(found.inexact.values()), "==", 0))
    controls = [
        Row(f"fault found: {name}", float(caught), "==", 1)
        for name, caught in found.faults_caught.items()
    ]
    figures = {
        "comparisons": float(found.comparisons),
        "worst_z": max(found.worst_z.values()),
        "bound_z": found.bound_z,
        "faults_found": float(sum(found.faults_caught.values())),
    }
    if not quick:
        cost = costs(seed)
        rows += [
            Row(f"oracle's mean return minus that of {name}", cost["oracle"] - cost[name], ">=", 0)
            for name in FAULTY
        ]
        gap = abs(cost["oracle, first seed"] - cost["faultless, first seed"])
        controls.append(Row("the same, with the fault's size set to nothing", gap, "==", 0))
        figures |= {f"return_{name}": cost[name] for name in ("oracle", *FAULTY)}
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def costs(seed: int) -> dict[str, float]:
    """What faults cost: mean true return on Pendulum from few labels, per teacher.

    Few labels and large faults, because 200 labels survive B-Pref's own (a tenth of the answers
    wrong; β = 1 where returns differ by hundreds) without a loss that five seeds could show. The
    control trains on a "mistake" teacher that errs with probability 0: the oracle under another
    name, whose agent must be the oracle's to the bit.
    """
    seeds = [SEEDS * seed + k for k in range(SEEDS)]
    raters: list[tuple[str, dict[str, float]]] = [("oracle", {}), *FAULTY.items()]
    jobs = [
        Job(ENV, one, TRAINING_STEPS, name, LABELS, options)
        for name, options in raters
        for one in seeds
    ]
    jobs.append(Job(ENV, seeds[0], TRAINING_STEPS, "mistake", LABELS, {"mistake": 0.0}))
    returns = side_by_side(train, jobs)
    table = np.array(returns[:-1]).reshape(len(raters), SEEDS)
    means = {name: float(row.mean()) for (name, _), row in zip(raters, table, strict=True)}
    return {
        **means,
        "oracle, first seed": float(table[0, 0]),
        "faultless, first seed": returns[-1],
    }


class TeacherFigures(NamedTuple):
    """How far the answers lie from the closed form."""

    worst_z: dict[str, float]
    """Teacher -> its largest deviation, in standard errors."""
    inexact: dict[str, int]
    """Teacher -> certain answers that differ from the closed form; must be 0."""
    comparisons: int
    bound_z: float
    """What the largest of so many deviations of correct teachers stays below, with 99.73 %."""
    faults_caught: dict[str, bool]


def teachers(seed: int, draws: int = DRAWS) -> TeacherFigures:
    """Compare every teacher's frequencies with the closed form.

    Args:
        seed: of the segments and of the answers.
        draws: times that each of the 40 pairs is asked.
    """
    rng = np.random.default_rng(seed)
    rewards = rng.normal(0.3, 0.8, (2, PAIRS, STEPS))
    lengths = rng.integers(3, STEPS + 1, (2, PAIRS))
    rewards[np.arange(STEPS) >= lengths[..., None]] = 0.0
    mean = float(rewards.sum(axis=2).mean())

    def deviations(teacher: Teacher, rater: Rater) -> tuple[list[float], int]:
        a, b = (_segments(teacher.sign * side, n) for side, n in zip(rewards, lengths, strict=True))
        known = [
            closed_form(
                teacher,
                teacher.sign * mean,
                (teacher.sign * rewards[0, pair, : lengths[0, pair]]).tolist(),
                (teacher.sign * rewards[1, pair, : lengths[1, pair]]).tolist(),
            )
            for pair in range(PAIRS)
        ]
        return _deviations(rater, a, b, known, draws, rng)

    found = {
        name: deviations(teacher, _rater(teacher, teacher.sign * mean))
        for name, teacher in TEACHERS.items()
    }
    comparisons = sum(len(scores) for scores, _ in found.values())
    bound = NormalDist().inv_cdf(0.5 + 0.5 * CONFIDENCE ** (1.0 / comparisons))
    faulty = {name: deviations(TEACHERS[of], rater) for name, of, rater in _faults(mean)}
    return TeacherFigures(
        worst_z={name: _worst(scores) for name, (scores, _) in found.items()},
        inexact={name: wrong for name, (_, wrong) in found.items()},
        comparisons=comparisons,
        bound_z=bound,
        faults_caught={
            name: wrong > 0 or _worst(scores) > bound for name, (scores, wrong) in faulty.items()
        },
    )


def closed_form(
    teacher: Teacher, mean: float, a: Sequence[float], b: Sequence[float]
) -> float | None:
    """P(a ≻ b) with a tie as ½, or None for a skipped pair; from the definitions."""
    skip, equal = teacher.skip, teacher.equal
    if teacher.bpref_compatible and teacher.sessions > 1:
        skip, equal = skip**2, equal**2
    if teacher.skip and max(sum(a), sum(b)) <= mean - (1 - skip) * abs(mean):
        return None
    if abs(sum(a) - sum(b)) < equal * abs(mean):
        return 0.5
    gap = sum(r * teacher.gamma ** (len(a) - 1 - t) for t, r in enumerate(a)) - sum(
        r * teacher.gamma ** (len(b) - 1 - t) for t, r in enumerate(b)
    )
    choice = float(gap > 0) if teacher.beta == inf else 1 / (1 + exp(-teacher.beta * gap))
    return choice * (1 - teacher.mistake) + (1 - choice) * teacher.mistake


def _rater(teacher: Teacher, mean: float) -> ScriptedRater:
    knobs = {
        name: getattr(teacher, name)
        for name in ("beta", "gamma", "mistake", "skip", "equal", "bpref_compatible")
    }
    rater = make_rater("partial-return", **knobs)
    for _ in range(teacher.sessions):
        rater = rater.adapted(mean)
    assert isinstance(rater, ScriptedRater)
    return rater


def _faults(mean: float) -> list[tuple[str, str, Rater]]:
    """(what is wrong, the teacher that it pretends to be, the faulty rater)."""
    everything = TEACHERS["all five"]
    return [
        (
            "myopia from the wrong end",
            "noisy + myopic",
            ScriptedRater(StepSum(step_rewards, discount=0.7), "partial-return", beta=1.0),
        ),
        (
            "mistake drawn twice",
            "mistake",
            _rater(Teacher(mistake=0.1 * 0.9 * 2), mean),
        ),
        ("beta on the mean reward", "noisy", _rater(Teacher(beta=1.0 / STEPS), mean)),
        ("a tie can be a mistake", "mistake + equal", _rater(Teacher(mistake=0.3), mean)),
        (
            "epsilon multiplied twice",
            "all five",
            _rater(replace(everything, sessions=2, bpref_compatible=True), mean),
        ),
        ("a coin", "oracle", make_rater("random")),
    ]


def _deviations(
    rater: Rater,
    a: Segments,
    b: Segments,
    known: Sequence[float | None],
    draws: int,
    rng: np.random.Generator,
) -> tuple[list[float], int]:
    """Deviations in standard errors where chance decides, and how often what is certain differs."""
    every = np.tile(np.arange(len(known)), draws)
    answers = rater(a.take(every), b.take(every), rng)
    answered = answers.answered.reshape(draws, -1)
    labels = answers.label.reshape(draws, -1)
    scores, pooled, variance, inexact = [], 0.0, 0.0, 0
    for pair, wanted in enumerate(known):
        if wanted is None or not answered[:, pair].all():
            inexact += int((answered[:, pair] != (wanted is not None)).sum())
        elif wanted in (0.0, 0.5, 1.0):
            inexact += int((labels[:, pair] != wanted).sum())
        else:
            excess = float(labels[:, pair].mean()) - wanted
            pooled += (excess if wanted > 0.5 else -excess) * draws
            variance += wanted * (1 - wanted) * draws
            if draws * min(wanted, 1 - wanted) >= RARE:
                scores.append(excess / sqrt(wanted * (1 - wanted) / draws))
    return [*scores, pooled / sqrt(variance)] if variance else scores, inexact


def _worst(scores: Sequence[float]) -> float:
    return max((abs(score) for score in scores), default=0.0)


def _segments(rewards: np.ndarray, lengths: np.ndarray) -> Segments:
    mask = np.arange(STEPS) < lengths[:, None]
    return Segments(
        actions=np.zeros(mask.shape, np.int64),
        mask=mask,
        context=np.zeros((len(mask), 1)),
        context_id=np.zeros(len(mask), np.int64),
        rewards=rewards,
    )
