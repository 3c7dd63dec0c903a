"""Scripted raters: simulated teachers that read the true reward, and err as people do.

Source: Lee et al. (2021), "B-Pref: Benchmarking Preference-Based Reinforcement Learning",
arXiv:2111.03026, section 3 and algorithm 2. Ties: Rao and Kupper (1967), "Ties in paired-comparison
experiments: a generalization of the Bradley-Terry model".
"""

from dataclasses import dataclass, replace
from math import inf, isfinite, isnan, log
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from prefgym.comparisons import Labels
from prefgym.raters.scores import Statistic, StepSum
from prefgym.segments import Segments


def check_pair(a: Segments, b: Segments) -> None:
    """Refuse two batches that do not pair off."""
    if len(a) != len(b):
        raise ValueError(
            f"Rater: the left side holds {len(a)} segments and the right side {len(b)}; a "
            "comparison needs one of each, so give equally many."
        )


class _Judgement(NamedTuple):
    """What a scripted rater thinks of every pair before chance comes in."""

    gap: Float[np.ndarray, " batch"]
    """Perceived score of ``a`` minus that of ``b``; 0 where they differ by rounding only."""
    better: Float[np.ndarray, " batch"]
    """Probability of naming the better one of the two, mistakes aside."""
    between: Float[np.ndarray, " batch"]
    """Probability of calling a tie, where it is not certain."""
    tie: Bool[np.ndarray, " batch"]
    answered: Bool[np.ndarray, " batch"]


@dataclass(frozen=True)
class ScriptedRater:
    """A teacher that compares a statistic of two segments, through B-Pref's five behaviours.

    With G the statistic and g the same with step t of n weighted by gamma^(n−1−t), it

    1. skips the pair if max(G(a), G(b)) ≤ ``skip_threshold`` (both are too bad to judge);
    2. calls a tie, label ½, if abs(G(a) − G(b)) < ``equal_threshold``;
    3. otherwise prefers ``a`` with probability σ(beta · (g(a) − g(b))); with beta = ∞ it names the
       one with the larger g, and calls a tie where they are equal. With ``ties`` = k > 1 it names
       ``a`` with σ(Δ − log k) and ``b`` with σ(−Δ − log k), Δ = beta · (g(a) − g(b)), and calls a
       tie otherwise (Rao and Kupper 1967; :func:`prefgym.losses.ties` is the loss for it);
    4. and turns that answer round with probability ``mistake``. A tie stays a tie.

    Thresholds follow the agent: :meth:`adapted` is told m, the mean of G over recent segments, and
    sets ``skip_threshold`` = m − (1 − skip)·|m| and ``equal_threshold`` = equal · |m|. For m > 0
    these are B-Pref's skip · m and equal · m. For m < 0 (costs, as in Pendulum) those would be a
    threshold far *above* what the agent reaches and a tie of negative width; here skip = 0.1 means
    in both cases "90 % of |m| below the mean", and equal = 0.1 "closer than 10 % of |m|".

    A rater is a value: equal fields answer alike, and nothing in it changes.

    Departures of ``bpref_compatible=True``, which answers like B-Pref's released code:

    - the first adaptation sets the thresholds to skip · m and equal · m, every later one to
      skip² · m and equal² · m: that code multiplies by its own epsilon a second time, so that
      after the first session a teacher of 0.1 is one of 0.01;
    - nobody skips while ``skip_threshold`` ≤ 0, and nothing is a tie while ``equal_threshold`` ≤ 0:
      with negative returns both behaviours are off;
    - a mistake is made when u ≤ mistake, u uniform on [0, 1), instead of u < mistake;
    - the tie label is written last, over any mistake (which here comes to the same).

    One thing of that code is not copied even then: a hard teacher there prefers the first of two
    exactly equal segments, which would make P(a ≻ b) + P(b ≻ a) = 2. It is a tie here.
    """

    statistic: Statistic
    meaning: str
    """What the labels are about, as stored with them: "partial-return", "regret", ..."""
    beta: float = inf
    """Rationality, per unit of the statistic; ∞ never errs, 0 tosses a coin."""
    gamma: float = 1.0
    """Weight of a step relative to the next one; below 1 the end of a segment counts more."""
    mistake: float = 0.0
    """Probability of turning an answer round."""
    skip: float = 0.0
    """How good the better segment must be to be judged, as a fraction of m; 0 never skips."""
    equal: float = 0.0
    """How close two segments must be to be called equal, as a fraction of |m|."""
    skip_threshold: float = -inf
    """In units of the statistic; set by :meth:`adapted` if ``skip`` is not 0."""
    equal_threshold: float = 0.0
    """In units of the statistic; set by :meth:`adapted` if ``equal`` is not 0."""
    soft: bool = False
    """Answer with the probability itself instead of drawing from it."""
    rater_id: int = 0
    bpref_compatible: bool = False
    rounding: float = 1e-9
    """Scores that differ by no more than this (absolutely, and relative to their size) are equal,
    so that a sum of advantages of 1e-16 is no better than one of 0."""
    ties: float = 1.0
    """k of Rao and Kupper: log k is the Δ at which a win is as likely as not; 1 draws no ties."""
    adaptations: int = 0
    """How often the thresholds were set; matters to ``bpref_compatible`` only."""

    def __post_init__(self) -> None:
        """Refuse what is no probability, no weight, or not available for the statistic."""
        rates = (("mistake", self.mistake), ("skip", self.skip), ("equal", self.equal))
        for name, rate in rates:
            _check(0.0 <= rate <= 1.0, name, rate, "from 0 to 1")
        _check(0.0 < self.gamma <= 1.0, "gamma", self.gamma, "above 0 and at most 1")
        _check(
            self.beta >= 0.0, "beta", self.beta, "of 0 or more (the hard teacher is inf, not −1)"
        )
        _check(0.0 <= self.rounding < inf, "rounding", self.rounding, "of 0 or more")
        _check(1.0 <= self.ties < inf, "ties", self.ties, "of 1 or more (1 draws none)")
        thresholds = (self.skip_threshold, self.equal_threshold)
        for name, threshold in zip(("skip_threshold", "equal_threshold"), thresholds, strict=True):
            _check(not isnan(threshold), name, threshold, "that is not NaN")
        if self.gamma < 1.0 and not isinstance(self.statistic, StepSum):
            raise ValueError(
                f"ScriptedRater: gamma={self.gamma} weights the steps of a sum, and "
                f"{self.statistic!r} is not one; build it as prefgym.raters.scores.StepSum(...), "
                "or leave gamma at 1."
            )

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """Label every pair: 1 where ``a`` is preferred, 0 where ``b`` is, ½ for a tie.

        Chance decides whether the better of the two is named, so under an equal generator a
        mirrored pair gets the mirrored answer, except where a coin decides (gap 0, finite beta).

        Raises:
            ValueError: the two batches differ in size, or lack what the statistic reads.
        """
        judged = self._judge(a, b)
        if self.soft:
            label = self._preference(judged)
        else:
            choice, lapse = rng.random((2, len(a)))
            wrong = lapse <= self.mistake if self.bpref_compatible else lapse < self.mistake
            names_better = (choice < judged.better) ^ wrong
            label = np.where(names_better == (judged.gap >= 0.0), 1.0, 0.0)
            drawn = (choice >= judged.better) & (choice < judged.better + judged.between)
            label[judged.tie | drawn] = 0.5
        return Labels(label, judged.answered, np.full(len(a), self.rater_id, np.int64))

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """E[label | answered]: P(a ≻ b) after mistakes, and ½ for a tie; exact."""
        return self._preference(self._judge(a, b))

    def answer_probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """1 where the pair is answered, 0 where it is skipped."""
        return self._judge(a, b).answered.astype(np.float64)

    @property
    def adaptive(self) -> bool:
        """Whether skip or equal thresholds follow the agent."""
        return self.skip != 0.0 or self.equal != 0.0

    def adapted_to(self, seen: Segments) -> "ScriptedRater":
        """:meth:`adapted` to the mean statistic of segments."""
        return self.adapted(float(np.mean(self.statistic(seen)))) if self.adaptive else self

    def adapted(self, mean_segment_return: float) -> "ScriptedRater":
        """The same teacher with its skip and equal thresholds set for agents this good.

        Args:
            mean_segment_return: m, the mean of the *statistic* over recent segments. For partial
                return: mean return of recent episodes × segment steps / episode steps.

        Returns:
            A new rater, or this one if ``skip`` and ``equal`` are both 0.
        """
        if not self.adaptive:
            return self
        if not isfinite(mean_segment_return):
            raise ValueError(
                f"ScriptedRater.adapted: the mean return is {mean_segment_return}; give the finite "
                "mean of recent segments."
            )
        skip_threshold, equal_threshold = self._thresholds(float(mean_segment_return))
        return replace(
            self,
            skip_threshold=skip_threshold if self.skip else self.skip_threshold,
            equal_threshold=equal_threshold if self.equal else self.equal_threshold,
            adaptations=self.adaptations + 1,
        )

    def _thresholds(self, mean: float) -> tuple[float, float]:
        if self.bpref_compatible:
            again = self.adaptations > 0
            skip, equal = (eps * eps if again else eps for eps in (self.skip, self.equal))
            return skip * mean, equal * mean
        return mean - (1.0 - self.skip) * abs(mean), self.equal * abs(mean)

    def _judge(self, a: Segments, b: Segments) -> _Judgement:
        check_pair(a, b)
        total_a, total_b = self.statistic(a), self.statistic(b)
        seen_a, seen_b = total_a, total_b
        if self.gamma < 1.0 and isinstance(self.statistic, StepSum):
            myopic = replace(self.statistic, recency=self.statistic.recency * self.gamma)
            seen_a, seen_b = myopic(a), myopic(b)

        size = np.maximum(np.maximum(np.abs(seen_a), np.abs(seen_b)), 1.0)
        gap = np.where(np.abs(seen_a - seen_b) <= self.rounding * size, 0.0, seen_a - seen_b)
        tie = np.abs(total_a - total_b) < self.equal_threshold
        if self.beta == inf:
            better, between = np.where(gap == 0.0, 0.5, 1.0), np.zeros(len(a))
            tie |= gap == 0.0
        else:
            with np.errstate(over="ignore"):  # a large gap times a large beta: certainty
                delta = self.beta * np.abs(gap)
            better = 0.5 + 0.5 * np.tanh(0.5 * (delta - log(self.ties)))
            worse = 0.5 + 0.5 * np.tanh(0.5 * (-delta - log(self.ties)))
            between = (self.ties**2 - 1.0) * better * worse

        best = np.maximum(total_a, total_b)
        silent = self.bpref_compatible and self.skip_threshold <= 0.0
        answered = np.ones(len(a), bool) if silent else best > self.skip_threshold
        return _Judgement(gap, better, between, tie, answered)

    def _preference(self, judged: _Judgement) -> Float[np.ndarray, " batch"]:
        better = judged.better + 0.5 * judged.between
        better = better + self.mistake * (1.0 - 2.0 * better)
        preferred = np.where(judged.gap >= 0.0, better, 1.0 - better)
        return np.where(judged.tie, 0.5, preferred)


def _check(good: bool, name: str, value: float, wanted: str) -> None:
    if not good:
        raise ValueError(f"ScriptedRater: {name} is {value}; give a number {wanted}.")


@dataclass(frozen=True)
class RandomRater:
    """A rater that looks at nothing and tosses a fair coin: the control of every experiment."""

    rater_id: int = 0
    meaning: str = "random"

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """Answer every pair, 1 or 0 with equal chances."""
        check_pair(a, b)
        label = rng.integers(0, 2, len(a)).astype(np.float64)
        return Labels(label, np.ones(len(a), bool), np.full(len(a), self.rater_id, np.int64))

    def probability(self, a: Segments, b: Segments) -> Float[np.ndarray, " batch"]:
        """½ for every pair."""
        check_pair(a, b)
        return np.full(len(a), 0.5)
