"""Segments of a fixed behaviour, and what a rater says of pairs of them.

What was played is kept for the cells that follow with the same task and seed, and answers for those
with the same rater, too; either is a function of its arguments, kept or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float, Int

import prefgym  # noqa: F401  (registers the environments)
from prefgym.comparisons import Comparisons, Labels
from prefgym.raters import AdaptiveRater, Rater
from prefgym.raters.populations import Population
from prefgym.raters.scripted import ScriptedRater
from prefgym.registration import ENVIRONMENTS
from prefgym.segments import Segments
from prefgym.text import Layout
from prefgym.wrappers import PreferenceVectorEnv
from prefgym.wrappers.inner import chosen_rater
from prefgym_agents.bench.clock import tensors
from prefgym_agents.bench.own import is_own, own_rater
from prefgym_agents.bench.suite import Answers, Size, Task

TRAIN, TEST = 0, 1
"""Parts of what is played: their seeds differ, so that no step is in both."""
SAME = 1e-9
"""Differences this much smaller than the largest are rounding."""
PEOPLE = "people"
"""Option of a population: how many answer alike."""


@dataclass(frozen=True, eq=False)
class Played:
    """What a behaviour did in a task: pairs of segments that may be compared."""

    train: tuple[Segments, Segments]
    test: tuple[Segments, Segments]
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    layout: Layout | None
    """Where prompt and response stand; None where there is no text."""
    rules: Any
    """The environment's rules and exact solution; None where it names none."""
    limit: int | None
    """After how many steps episodes are cut off; None: they end by themselves."""
    ends: bool
    """Whether some episode ended for good."""


@dataclass(frozen=True)
class Numbered:
    """A rater whose answers carry numbers from 0: the places of its ids."""

    rater: Rater
    ids: tuple[int, ...]
    """In order."""

    @property
    def meaning(self) -> str:
        """As the rater's own."""
        return self.rater.meaning

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """The rater's answers.

        Raises:
            ValueError: somebody answers who answered none of the pairs that the ids are from.
        """
        told = self.rater(a, b, rng)
        who = np.where(told.answered, told.rater_id, self.ids[0])
        known = np.isin(who, self.ids)
        if not known.all():
            raise ValueError(
                f"The rater {self.meaning!r} answers as {int(who[~known][0])}, who answered none of"
                " the training and test pairs; ask more pairs."
            )
        return told._replace(rater_id=np.searchsorted(self.ids, who))

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """As the rater's own."""
        return self.rater.probability(a, b)

    @property
    def adaptive(self) -> bool:
        """As the rater's own."""
        return isinstance(self.rater, AdaptiveRater) and self.rater.adaptive

    def adapted_to(self, seen: Segments) -> "Numbered":
        """The same, with the rater adapted."""
        if not isinstance(self.rater, AdaptiveRater) or not self.rater.adaptive:
            return self
        return replace(self, rater=self.rater.adapted_to(seen))


@dataclass(frozen=True, eq=False)
class Answered:
    """Pairs that a rater answered, and what is known of who answered.

    Raters are numbered from 0 in the order of their ids, and so are groups.
    """

    train: Comparisons
    test: Comparisons
    chance: Float[np.ndarray, " test"]
    """P(a ≻ b) by whoever answered: exact where that is known, else the label."""
    exact: bool
    """Whether it is known."""
    ids: Int[np.ndarray, " raters"]
    """Under which the raters answer, in order."""
    group_of: Int[np.ndarray, " raters"]
    """Of which group each rater is."""
    members: tuple[Rater, ...]
    """Who answers for each group."""
    shares: Float[np.ndarray, " groups"]
    """Of the training answers."""
    rater: Rater
    """Who was asked: one rater, or a population."""

    @property
    def numbered(self) -> Rater:
        """Who was asked, answering under the numbers that the pairs have here."""
        if np.array_equal(self.ids, np.arange(len(self.ids))):
            return self.rater
        return Numbered(self.rater, tuple(self.ids.tolist()))

    @property
    def raters(self) -> int:
        """How many answered."""
        return len(self.group_of)

    @property
    def groups(self) -> int:
        """How many kinds of raters there are."""
        return len(self.members)


@lru_cache(maxsize=4)
def played(task: Task, size: Size, seed: int) -> Played:
    """Play a task with sticky random actions, and draw pairs for training and for testing."""
    train, test = (_behaved(task, seed, part) for part in (TRAIN, TEST))
    found = Played(
        _pairs(train, task, size.train_pairs, seed, TRAIN),
        _pairs(test, task, size.test_pairs, seed, TEST),
        train.single_observation_space,
        train.single_action_space,
        train.layout,
        train.task,
        ENVIRONMENTS[task.env].max_episode_steps,
        bool(getattr(train.store, "any_terminated", True)),
    )
    train.close()
    test.close()
    return found


@lru_cache(maxsize=4)
def answered(task: Task, answers: Answers, size: Size, seed: int) -> Answered:
    """Put the pairs of a task to a rater.

    Raises:
        ValueError: it answered none of them.
    """
    sides = played(task, size, seed)
    rater = rater_of(task, answers, sides.train, seed)
    with tensors():
        train, test = (
            _asked(rater, pairs, np.random.default_rng((seed, part, 2)))
            for pairs, part in ((sides.train, TRAIN), (sides.test, TEST))
        )
        people = getattr(rater, PEOPLE) if isinstance(rater, Population) else 1
        ids = np.unique(np.concatenate([train.rater_id, test.rater_id]))
        groups, group_of = np.unique(ids // people, return_inverse=True)
        train, test = (_numbered(one, ids) for one in (train, test))
        by_id = members_of(rater)
        members = tuple(by_id.get(int(one), rater) for one in groups)
        known = _chances(members, test, group_of[test.rater_id])
        shares = np.bincount(group_of[train.rater_id], minlength=len(groups)) / len(train)
    chance = test.label if known is None else known
    return Answered(train, test, chance, known is not None, ids, group_of, members, shares, rater)


def rater_of(task: Task, answers: Answers, pairs: tuple[Segments, Segments], seed: int) -> Rater:
    """The rater of a task, as rational as is asked of it over these pairs."""
    who: Any = own_rater(answers.rater) if is_own(answers.rater) else answers.rater
    env = made(task, 1, seed)
    rater = chosen_rater(env, who, None, dict(answers.options))
    env.close()
    if isinstance(rater, AdaptiveRater) and rater.adaptive:
        rater = rater.adapted_to(pairs[0])
    return rater if answers.rationality is None else _rational(rater, pairs, answers.rationality)


def _behaved(task: Task, seed: int, part: int) -> PreferenceVectorEnv:
    """An environment in which so many steps were played."""
    env = made(task, task.lanes, seed)
    rng = np.random.default_rng((seed, part, 0))
    env.reset(seed=int(rng.integers(2**31)))
    sticky = task.stickiness * np.linspace(0.0, 1.0, task.lanes)
    actions = drawn_actions(env.single_action_space, task.lanes, rng)
    for _ in range(task.steps // task.lanes):
        fresh = drawn_actions(env.single_action_space, task.lanes, rng)
        kept = rng.random(task.lanes) < sticky
        actions = np.where(kept.reshape(-1, *[1] * (actions.ndim - 1)), actions, fresh)
        env.step(actions)
    return env


def drawn_actions(space: gym.Space[Any], lanes: int, rng: np.random.Generator) -> np.ndarray:
    """Uniformly random actions, one per lane."""
    if isinstance(space, gym.spaces.Discrete):
        numbers: np.ndarray = space.start + rng.integers(space.n, size=lanes)
        return numbers
    assert isinstance(space, gym.spaces.Box)
    drawn: np.ndarray = rng.uniform(space.low, space.high, (lanes, *space.shape))
    return drawn.astype(space.dtype)


def made(task: Task, lanes: int, seed: int) -> PreferenceVectorEnv:
    """The environment of a task, which asks nothing by itself."""
    steps = {} if task.segment_steps is None else {"segment_steps": task.segment_steps}
    asked = {"num_envs": lanes, "query_every": None, **steps, **task.env_kwargs(seed)}
    env = gym.make_vec(task.env, **asked)
    assert isinstance(env, PreferenceVectorEnv)
    return env


def _pairs(
    env: PreferenceVectorEnv, task: Task, count: int, seed: int, part: int
) -> tuple[Segments, Segments]:
    rng = np.random.default_rng((seed, part, 1))
    a, b = env.sample_pairs(count, rng)
    return (cut(a, rng), cut(b, rng)) if task.cut else (a, b)


def cut(segments: Segments, rng: np.random.Generator) -> Segments:
    """The same segments, each ending after a random number of its steps: from 1 to all."""
    return segments.first(1 + (rng.random(len(segments)) * segments.lengths).astype(np.int64))


def _asked(rater: Rater, pairs: tuple[Segments, Segments], rng: np.random.Generator) -> Comparisons:
    """What a rater says of pairs, those that it skipped left out."""
    label, told, rater_id = rater(*pairs, rng)
    if not told.any():
        raise ValueError(
            f"The rater {rater.meaning!r} answered none of {len(told)} pairs; the benchmark needs"
            " one that does."
        )
    a, b = (side.take(told) for side in pairs)
    return Comparisons(a, b, label[told], rater_id=rater_id[told], meaning=rater.meaning)


def _numbered(comparisons: Comparisons, ids: Int[np.ndarray, " raters"]) -> Comparisons:
    """The same with raters numbered by their place among ``ids``."""
    return comparisons.replace(rater_id=np.searchsorted(ids, comparisons.rater_id))


def _chances(
    members: Sequence[Rater], test: Comparisons, group: Int[np.ndarray, " test"]
) -> Float[np.ndarray, " test"] | None:
    """P(a ≻ b) by the group that answered each pair; None where a rater does not know it."""
    chance = np.full(len(test), np.nan)
    try:
        for one, rater in enumerate(members):
            rows = np.flatnonzero(group == one)
            if len(rows):
                chance[rows] = rater.probability(test.a.take(rows), test.b.take(rows))
    except ValueError:  # as a user's function that only answers says
        return None
    return chance


def members_of(rater: Rater) -> dict[int, Rater]:
    """The raters of a population by their ids; none where there is one rater only."""
    if not isinstance(rater, Population):
        return {}
    told: list[Any] = [getattr(one, "rater_id", number) for number, one in enumerate(rater.raters)]
    return dict(zip(told if rater.ids is None else rater.ids, rater.raters, strict=True))


def _rational(rater: Rater, pairs: tuple[Segments, Segments], rationality: float) -> Rater:
    """The same rater with ``beta`` in units of the median difference among these pairs."""
    if isinstance(rater, Population):
        members = tuple(_rational(one, pairs, rationality) for one in rater.raters)
        return replace(rater, raters=members)
    if not isinstance(rater, ScriptedRater):
        return rater
    gaps = np.abs(np.subtract(*(rater.statistic(side) for side in pairs)))
    differ = gaps[gaps > SAME * gaps.max()]
    return replace(rater, beta=rationality / float(np.median(differ))) if len(differ) else rater
