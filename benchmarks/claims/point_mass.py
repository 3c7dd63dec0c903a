"""A point that moves in a square, and people who want it near a place of their own; no claim.

The point starts anywhere in [−0.75, 0.75]² and moves by a tenth of its action, and by a drift that
is the same for all ten steps of a segment. People answer with P(a ≻ b) = σ(5 · gap), where gap is
by how much nearer to their own goal the point was in a, summed over the steps. What they would say
without chance is the truth that models are tested on.

Of all goals in [−1, 1]² alike, the best reward for everybody agrees with 64 % of the truth.
"""

from math import inf

import numpy as np
from gymnasium import spaces

from prefgym.comparisons import Comparisons
from prefgym.models.ensembles import Voices
from prefgym.models.fit import adam, fit
from prefgym.models.heads import HeadFactory
from prefgym.models.presets import model_head
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.raters.scores import StepSum
from prefgym.raters.scripted import ScriptedRater
from prefgym.raters.tastes import GoalDistance
from prefgym.segments import Segments

STEPS = 10
SEEN, DONE = spaces.Box(-2.0, 2.0, (2,)), spaces.Box(-1.0, 1.0, (2,))
CORNERS = np.array([[-1.0, -1.0], [1.0, 1.0]])
"""Goals of two groups."""
BETA = 5.0
PEOPLE, NEW_PEOPLE, EACH, ASKED_OF_NEW = 300, 1000, 16, 10
"""Who is fitted and who is not, pairs that each of the former answers, questions for the others."""
MEMBERS, HIDDEN, RATE, EPOCHS, BATCH = 1, (64, 64), 3e-3, 40, 128


def segments(rng: np.random.Generator, many: int) -> Segments:
    """Ways of the point under random actions."""
    actions = rng.uniform(-1.0, 1.0, (many, STEPS, 2))
    drift = rng.uniform(-0.1, 0.1, (many, 2))
    place = np.empty((many, STEPS, 2))
    place[:, 0] = rng.uniform(-0.75, 0.75, (many, 2))
    for step in range(1, STEPS):
        moved = place[:, step - 1] + 0.1 * actions[:, step - 1] + drift
        place[:, step] = moved.clip(-1.5, 1.5)
    return Segments(
        actions=actions.astype(np.float32),
        mask=np.ones((many, STEPS), bool),
        context=place[:, 0].astype(np.float32),
        context_id=np.zeros(many, np.int64),
        observations=place.astype(np.float32),
    )


def answers(
    rng: np.random.Generator, goals: np.ndarray, each: int, beta: float = BETA
) -> Comparisons:
    """What people with ``goals [people, 2]`` say about ``each`` pairs of their own.

    With beta = ∞ they say what they would without chance. Their ids count from 0.
    """
    who = np.repeat(np.arange(len(goals)), each)
    a, b = segments(rng, len(who)), segments(rng, len(who))
    label = np.empty(len(who))
    places, place_of = np.unique(goals, axis=0, return_inverse=True)
    for number, goal in enumerate(places):
        rows = np.flatnonzero(place_of.reshape(-1)[who] == number)
        wants = ScriptedRater(StepSum(GoalDistance(tuple(goal.tolist()))), "goal", beta=beta)
        label[rows] = wants(a.take(rows), b.take(rows), rng).label
    return Comparisons(a, b, label, rater_id=who, meaning="goal")


def fitted(
    head: str | HeadFactory,
    comparisons: Comparisons,
    rng: np.random.Generator,
    tastes: int = 2,
    epochs: int = EPOCHS,
    members: int = MEMBERS,
) -> RewardModel:
    """A preference model (a key of ``MODELS``, or a head) fitted to answers."""
    if isinstance(head, str):
        raters = int(comparisons.rater_id.max()) + 1
        head = model_head(head, tastes=tastes, raters=raters)
    model = reward_model(SEEN, DONE, members, HIDDEN, seed=int(rng.integers(2**31)), head=head)
    model.normalise(comparisons.a)
    optimizer = adam(model, RATE)
    fit(model, comparisons, optimizer, rng, epochs, batch_pairs=BATCH, stop_accuracy=1.0)
    return model


def right(model: RewardModel, test: Comparisons, voices: Voices | None = None) -> np.ndarray:
    """Which pairs the model prefers as labelled, ``[pairs]``; asks those whose voices came."""
    who = None if voices is None else test.rater_id
    logits = model.logits(test.a, test.b, who, voices).mean(0)
    told: np.ndarray = (logits > 0.0).numpy() == (test.label > 0.5)
    return told


def accuracy_of_new(
    model: RewardModel, rng: np.random.Generator, goals: np.ndarray, each: int
) -> float:
    """Accuracy on people who were not fitted, of each of whom the model knows ``each`` answers."""
    voices = model.infer(answers(rng, goals, each))
    return float(right(model, answers(rng, goals, ASKED_OF_NEW, inf), voices).mean())


def pooled_accuracy(model: RewardModel, rng: np.random.Generator, goals: np.ndarray) -> float:
    """The same of a model that tells nobody apart."""
    return float(right(model, answers(rng, goals, ASKED_OF_NEW, inf)).mean())


def two_groups(rng: np.random.Generator, many: int, minority: float = 0.5) -> np.ndarray:
    """Group 0 or 1 of each of ``many`` people; about that share of them is in group 1."""
    return (rng.random(many) < minority).astype(np.int64)


def anywhere(rng: np.random.Generator, many: int) -> np.ndarray:
    """Goals in [−1, 1]² of as many people, no two alike."""
    return rng.uniform(-1.0, 1.0, (many, 2))
