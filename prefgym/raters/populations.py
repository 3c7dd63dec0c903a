"""Populations: several raters behind one face, one of whom answers each question."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int

from prefgym.comparisons import Labels
from prefgym.mixing import mixed
from prefgym.names import lookup
from prefgym.raters.protocols import AdaptiveRater, Rater, answer_probability
from prefgym.raters.scores import StepSum, WeightedFactors
from prefgym.raters.scripted import ScriptedRater, check_pair
from prefgym.segments import Segments

Chooser = Callable[[Segments, Segments], Any]
"""(a, b) -> who answers: the number of a rater for every pair, ``[batch]``; or the share of each
rater, ``[batch, raters]``. The order of the two sides must not matter."""

RULES: Final = {
    "query": "drawn anew for every pair",
    "session": "drawn once for all pairs of a call",
    "context": "fixed by the two context ids of a pair",
    "person": "the one for whom the segments were made",
}
"""Who answers."""


@dataclass(frozen=True)
class Population:
    """Raters of whom one answers each pair, and is told as ``rater_id``.

    A reward fitted to all answers together sees only the mixture: where groups disagree, no single
    reward agrees with all of them.

    Who answers is told by ``rule``. "query": drawn anew for every pair. "session": drawn once, and
    answers every pair of one call. "context": a hash of the two context ids, so that one question
    is always answered by the same rater (where text is written: one prompt). "person": for whom
    the segments were made, by their factor of that name; either of two. Or a function of the pair
    that gives the number of a rater, or the share of each; :data:`Chooser`.

    Raises:
        ValueError: weights that are no shares, ids or rules that cannot be.
    """

    raters: tuple[Rater, ...]
    weights: tuple[float, ...] | None = None
    """Shares of the answers, adding up to 1; equal ones by default. A function as ``rule`` needs
    none."""
    meaning: str = "population"
    rule: str | Chooser = "query"
    ids: tuple[int, ...] | None = None
    """Who the raters are; by default they tell their own ``rater_id``."""
    people: int = 1
    """How many people answer alike as each rater, all equally often and under ids of their own:
    person p of rater k is number k · people + p, with k its id."""

    def __post_init__(self) -> None:
        """Take lists too, and refuse what cannot be."""
        members = tuple(self.raters)
        weights = self.weights
        if weights is None:
            weights = (1.0 / max(len(members), 1),) * len(members)
        object.__setattr__(self, "raters", members)
        object.__setattr__(self, "weights", _checked_shares(weights, len(members)))
        if not callable(self.rule):
            lookup(self.rule, RULES, "rule for who answers")
        if not isinstance(self.people, int) or self.people < 1:
            raise ValueError(
                f"Population: people is {self.people}; give a whole number of at least 1."
            )
        self._check_ids()

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """Answer every pair, each by one of the raters."""
        check_pair(a, b)
        a, b = a.numpy(), b.numpy()
        who = self._who(a, b, rng)
        told = Labels(np.full(len(a), 0.5), np.zeros(len(a), bool), np.zeros(len(a), np.int64))
        for number in np.unique(who):
            rows = np.flatnonzero(who == number)
            sides = (a, b) if len(rows) == len(a) else (a.take(rows), b.take(rows))
            answers = self.raters[number](*sides, rng)
            for column, values in zip(told, answers, strict=True):
                column[rows] = values
        if self.ids is not None:
            told = told._replace(rater_id=np.asarray(self.ids, np.int64)[who])
        if self.people > 1:
            person = self._person(a, b, rng)
            told = told._replace(rater_id=told.rater_id * self.people + person)
        return told

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """The mean label of the mixture, E[label | answered]; exact.

        ½ where nobody would answer. Under the rule "session" it holds for every pair by itself; the
        answers of one call go together.

        Raises:
            ValueError: a function as rule tells other shares for mirrored pairs.
        """
        chances = np.stack([rater.probability(a, b) for rater in self.raters], -1)
        answering = self._answering(a, b)
        share = answering.sum(1)
        mixed = (answering * chances).sum(1) / np.where(share > 0.0, share, 1.0)
        known: np.ndarray = np.where(share > 0.0, mixed, 0.5)
        return known

    def answer_probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """The chance that whoever is asked does answer."""
        chance: np.ndarray = np.minimum(self._answering(a, b).sum(1), 1.0)
        return chance

    @property
    def adaptive(self) -> bool:
        """Whether the habits of some rater follow the agent."""
        return any(isinstance(one, AdaptiveRater) and one.adaptive for one in self.raters)

    def adapted_to(self, seen: Segments) -> "Population":
        """The same population, with every such rater adapted."""
        if not self.adaptive:
            return self
        members = tuple(
            one.adapted_to(seen) if isinstance(one, AdaptiveRater) else one for one in self.raters
        )
        return replace(self, raters=members)

    def _check_ids(self) -> None:
        if self.ids is not None:
            object.__setattr__(self, "ids", tuple(int(one) for one in self.ids))
        ids = self.ids or tuple(one.rater_id for one in self.raters if hasattr(one, "rater_id"))
        missing = self.ids is not None and len(ids) != len(self.raters)
        if missing or len(set(ids)) < len(ids):
            raise ValueError(
                f"Population: the ids of {len(self.raters)} raters are"
                f" {', '.join(map(str, ids))}; give every rater one of its own, as ids=(0, 1, ...)."
            )

    def _answering(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch raters"]:
        """The chance that a rater is asked and answers."""
        asked = self._shares(a.numpy(), b.numpy())
        answers = [answer_probability(rater, a, b) for rater in self.raters]
        both: np.ndarray = asked * np.stack(answers, -1)
        return both

    def _shares(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch raters"]:
        """The chance that a rater is asked about a pair."""
        check_pair(a, b)
        if self.rule == "context":
            return _certain(self._by_context(a, b), len(self.raters))
        if self.rule == "person":
            count = len(self.raters)
            first, second = (_certain(_person_of(side, count), count) for side in (a, b))
            either: np.ndarray = 0.5 * (first + second)
            return either
        if not callable(self.rule):
            return np.broadcast_to(np.asarray(self.weights), (len(a), len(self.raters)))
        forward, backward = (
            _told_shares(self.rule(*pair), len(a), len(self.raters)) for pair in ((a, b), (b, a))
        )
        differ = np.abs(forward - backward).max(1, initial=0.0) > 1e-6
        if differ.any():
            raise ValueError(
                f"Population: the rule says {forward[differ][0]} of a pair and"
                f" {backward[differ][0]} of its mirror image; who answers must not depend on the "
                "order of the two sides."
            )
        return forward

    def _who(self, a: Segments, b: Segments, rng: np.random.Generator) -> Int[np.ndarray, " batch"]:
        """The number of the rater who answers each pair."""
        if self.rule == "session":
            return np.full(len(a), rng.choice(len(self.raters), p=self.weights))
        if self.rule == "query":
            return rng.choice(len(self.raters), size=len(a), p=self.weights)
        if self.rule == "context":
            return self._by_context(a, b)
        reach = np.cumsum(self._shares(a, b), 1)
        passed: np.ndarray = (rng.random((len(a), 1)) >= reach).sum(1)
        chosen: np.ndarray = np.minimum(passed, len(self.raters) - 1)
        return chosen

    def _by_context(self, a: Segments, b: Segments) -> Int[np.ndarray, " batch"]:
        reach = np.cumsum(np.asarray(self.weights))
        chosen = np.searchsorted(reach, _hashed(a, b, 1), side="right")
        return np.minimum(chosen, len(self.raters) - 1)

    def _person(
        self, a: Segments, b: Segments, rng: np.random.Generator
    ) -> Int[np.ndarray, " batch"]:
        if self.rule == "session":
            return np.full(len(a), rng.integers(self.people))
        if self.rule == "context":
            return (_hashed(a, b, 2) * self.people).astype(np.int64)
        return rng.integers(self.people, size=len(a))


def groups(
    tastes: Mapping[str, Mapping[str, float]],
    shares: Sequence[float] | None = None,
    rule: str | Chooser = "query",
    people: int = 1,
    **options: Any,
) -> Population:
    """A population whose groups weigh the factors of an environment each in their own way.

    Args:
        tastes: group -> factor -> weight.
        shares: of the groups, in the same order; equal ones by default.
        rule: who answers; see :class:`Population`.
        people: how many there are in every group.
        **options: fields of :class:`ScriptedRater`, for all of them.
    """
    raters = tuple(
        replace(
            ScriptedRater(StepSum(WeightedFactors(dict(taste))), f"group-{name}", **options),
            rater_id=number,
        )
        for number, (name, taste) in enumerate(tastes.items())
    )
    return Population(raters, as_shares(shares), rule=rule, people=people)


def experts(
    rater: ScriptedRater,
    mistakes: Sequence[float] = (0.0, 0.1, 0.3),
    betas: Sequence[float] | None = None,
    shares: Sequence[float] | None = None,
    rule: str | Chooser = "query",
    people: int = 1,
) -> Population:
    """Raters who want the same and know it differently well.

    Args:
        rater: what they all want.
        mistakes: how often each turns an answer round.
        betas: how rational each is; all as ``rater`` by default.
        shares: of the answers, in the same order; equal ones by default.
        rule: who answers; see :class:`Population`.
        people: how many there are of every expertise.

    Raises:
        ValueError: not as many betas as mistakes.
    """
    rational = (rater.beta,) * len(mistakes) if betas is None else tuple(betas)
    if len(rational) != len(mistakes):
        raise ValueError(
            f"experts: {len(mistakes)} mistakes and {len(rational)} betas came; give one of both "
            "for every expert."
        )
    members = tuple(
        replace(rater, mistake=mistake, beta=beta, rater_id=number)
        for number, (mistake, beta) in enumerate(zip(mistakes, rational, strict=True))
    )
    return Population(members, as_shares(shares), rater.meaning, rule, people=people)


def as_shares(shares: Sequence[float] | None) -> tuple[float, ...] | None:
    """Shares as a population takes them; None are equal ones."""
    return None if shares is None else tuple(float(one) for one in shares)


def _checked_shares(weights: Sequence[float], count: int) -> tuple[float, ...]:
    shares = np.asarray(weights, np.float64)
    if shares.ndim != 1 or len(shares) != count or not len(shares):
        raise ValueError(
            f"Population: {count} raters and {shares.size} weights came; give one"
            " weight for each rater, and at least one of both."
        )
    if not (shares >= 0).all() or abs(shares.sum() - 1.0) > 1e-9:
        raise ValueError(
            f"Population: the weights {tuple(weights)} are no shares; give numbers of 0 or more"
            " that add up to 1."
        )
    return tuple(float(one) for one in shares)


def _told_shares(told: Any, pairs: int, raters: int) -> Float[np.ndarray, " batch raters"]:
    """Shares from what a user's rule says."""
    known = np.asarray(told)
    if known.shape == (pairs,) and known.dtype.kind in "iu":
        if ((known >= 0) & (known < raters)).all():
            return _certain(known, raters)
        raise ValueError(
            f"Population: the rule names rater {known[(known < 0) | (known >= raters)][0]}, and"
            f" there are {raters} (0 to {raters - 1})."
        )
    good = known.shape == (pairs, raters) and known.dtype.kind == "f"
    if not good or not ((known >= 0).all() and (np.abs(known.sum(1) - 1.0) < 1e-6).all()):
        raise ValueError(
            f"Population: the rule gave {known.dtype} of shape {known.shape} for {pairs} pairs and"
            f" {raters} raters; give the number of a rater for every pair, shape ({pairs},), or"
            f" shares that add up to 1, shape ({pairs}, {raters})."
        )
    return known.astype(np.float64)


def _certain(who: Int[np.ndarray, " batch"], raters: int) -> Float[np.ndarray, " batch raters"]:
    """Shares of 1 for those who answer for certain."""
    shares: np.ndarray = np.eye(raters)[who]
    return shares


def _person_of(segments: Segments, raters: int) -> Int[np.ndarray, " batch"]:
    """For whom each segment was made."""
    if "person" not in segments.factors:
        raise ValueError(
            "Population: the rule 'person' asks for whom segments were made, and these do not say;"
            " make the environment with personal=, or choose another rule."
        )
    who: np.ndarray = np.asarray(segments.factors["person"])[:, 0].astype(np.int64)
    if len(who) and not (who.min() >= 0 and who.max() < raters):
        raise ValueError(
            f"Population: a segment was made for person {who.max()}, and there are {raters} raters;"
            " give personal= as many people as the population has raters."
        )
    return who


def _hashed(a: Segments, b: Segments, salt: int) -> Float[np.ndarray, " batch"]:
    """A number in [0, 1) that the two context ids of a pair fix, whatever their order."""
    first, second = (mixed(side.context_id.astype(np.int64).view(np.uint64)) for side in (a, b))
    stirred = mixed(first + second + np.uint64(salt))
    return (stirred >> np.uint64(11)) * 2.0**-53
