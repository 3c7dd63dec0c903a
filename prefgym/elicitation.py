"""Asking a rater about segments of a store: the schedule, the budget, the record.

One :class:`Elicitor` stands behind each preference environment, single or vectorised. Every
answer is a pure function of (seed, query number, the two segments), so equal seeds give equal
preferences, and a run that is resumed is told again what it was told before.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from prefgym.comparisons import Comparisons, Labels, PreferenceDataset
from prefgym.raters import AdaptiveRater, Rater, RememberingRater
from prefgym.raters.mirrored import MirrorCheck
from prefgym.raters.protocols import answer_probability
from prefgym.responses import ResponseStore
from prefgym.segments import Segments
from prefgym.store import EpisodeStore, SegmentIndex

SAMPLE = 64
"""Segments from which a rater learns what to expect."""
THESE_DAYS = 10_000
"""Steps from which they are drawn: ten episodes of 1000 steps, as in B-Pref."""


class BudgetExhaustedError(ValueError):
    """More labels were asked for than the budget still holds."""


@dataclass(frozen=True)
class Schedule:
    """When an environment asks by itself, and how much may be asked in all."""

    segment_steps: int = 50
    """Steps of each segment of a pair."""
    query_every: int | None = 100
    """Environment steps between two comparisons that are emitted (at most one in each step of a
    vector environment); None: only on request."""
    budget: int | None = None
    """Labels that may be given in all; None: no limit."""
    recent: int | None = None
    """Emit comparisons of about the newest so many steps only; None: of the whole store."""

    def __post_init__(self) -> None:
        """Refuse what can never be asked."""
        for name in ("segment_steps", "query_every", "budget", "recent"):
            value = getattr(self, name)
            least = 0 if name == "budget" else 1
            optional = name != "segment_steps"
            if value is None and optional:
                continue
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(
                    f"{name}={value!r}; wanted a whole number of at least {least}"
                    f"{', or None' if optional else ''}."
                )


class Elicitor:
    """Asks ``rater`` about segments of ``store``, within a budget, and keeps the answers.

    Args:
        store: where the steps are.
        rater: who answers.
        schedule: when to ask, and how much.
        directory: where answers are kept on disk; None keeps them in memory.

    Raises:
        ValueError: the store, or what is recent of it, can never hold two segments.
    """

    def __init__(
        self,
        store: EpisodeStore | ResponseStore,
        rater: Rater,
        schedule: Schedule,
        directory: str | Path | None = None,
    ) -> None:
        self.store, self.rater, self.schedule = store, rater, schedule
        store.check_room(schedule.segment_steps, schedule.recent)
        self._unadapted = rater
        self.preferences = PreferenceDataset(
            None if directory is None else Path(directory), rater.meaning
        )
        self.queries = self.preferences.next_query_id
        """The number of the next question."""
        self._recorded = self.queries
        """Questions below this number may have been answered in an earlier life of the run."""
        self.judged = 0
        """Pairs that were judged without being kept."""
        self._mirror = MirrorCheck()
        self._entropy = 0
        self._waited = 0
        self._warned = False

    def seed(self, entropy: int) -> None:
        """Fix all randomness of pairs and answers from here on."""
        self._entropy = entropy
        self._waited = 0

    def stop_emitting(self) -> None:
        """Ask only on request from now on."""
        self.schedule = replace(self.schedule, query_every=None)

    @property
    def labels_given(self) -> int:
        """Comparisons that were answered so far, kept or not."""
        return len(self.preferences) + self.judged

    @property
    def budget_left(self) -> int | None:
        """Labels that may still be given; None without a limit."""
        budget = self.schedule.budget
        return None if budget is None else max(0, budget - self.labels_given)

    def emit(self, steps: int) -> dict[str, Any] | None:
        """Count ``steps`` environment steps; at the appointed one, ask about a random pair.

        Returns:
            The answer as plain numbers, or None on all other steps, when the rater skipped the
            pair, when nothing can be compared yet, or when the budget is spent.
        """
        every = self.schedule.query_every
        self._waited += steps
        if every is None or self._waited < every or self.budget_left == 0:
            return None
        pair = self._draw()
        if pair is None:
            self._waited = every - max(1, every // 10)
            self._warn_of_silence()
            return None
        self._waited = 0
        answer = self.compare(*pair)
        return _event(answer) if len(answer) else None

    def compare(self, a: Segments, b: Segments) -> Comparisons:
        """Ask about pairs, now.

        Args:
            a: the first segment of each pair.
            b: the second.

        Returns:
            The pairs that were answered; skipped ones are counted and left out.

        Raises:
            BudgetExhaustedError: more pairs than labels are left.
            ValueError: the two batches differ in number, or are empty.
        """
        a, b = self._affordable(a, b)
        numbers = np.arange(self.queries, self.queries + len(a))
        labels = self._ask(a, b, numbers)
        self.queries += len(a)
        kept = np.nonzero(labels.answered)[0]
        answers = Comparisons(
            a=a.take(kept),
            b=b.take(kept),
            label=labels.label[kept],
            rater_id=labels.rater_id[kept],
            weight=np.ones(len(kept)),
            strength=np.full(len(kept), np.nan),
            query_id=numbers[kept],
            meaning=self.rater.meaning,
        )
        self.preferences.append(answers, skipped=numbers[~labels.answered])
        return answers

    def judge(
        self, a: Segments, b: Segments, *, exact: bool = False
    ) -> Float[np.ndarray, " batch"]:
        """Ask about pairs that are looked at once and not kept: how often ``a`` is preferred.

        Counts against the budget as :meth:`compare` does. A few of the pairs are asked about in
        the other order, too, to find out whether the rater has a preference or an order in mind.

        Args:
            a: the first segment of each pair.
            b: the second.
            exact: the probability itself instead of an answer that is drawn from it.

        Returns:
            Labels in [0, 1]; ½ where the rater leaves a pair unanswered.

        Raises:
            BudgetExhaustedError: more pairs than labels are left.
            ValueError: the two batches differ in number, or are empty; the rater does not know its
                probabilities and ``exact`` ones are wanted; or P(a ≻ b) + P(b ≻ a) is not 1.
        """
        a, b = self._affordable(a, b)
        rater = self._adapted()
        entropy = (self._entropy, self.queries, self.judged)
        self._mirror(rater, a, b, np.random.default_rng((*entropy, 4)))
        self.judged += len(a)
        if exact:
            answered = answer_probability(rater, a, b)
            return 0.5 + answered * (rater.probability(a, b) - 0.5)
        labels = rater(a, b, np.random.default_rng((*entropy, 3)))
        return np.where(labels.answered, labels.label, 0.5)

    def sample_pairs(
        self, count: int, rng: np.random.Generator, recent: int | None = None
    ) -> tuple[Segments, Segments]:
        """Draw pairs that may be compared: of responses, two to the same prompt; else any two.

        Args:
            count: how many.
            rng: where the randomness comes from.
            recent: only of about the newest so many steps.

        Raises:
            ValueError: nothing in the store can be compared yet.
        """
        steps = self.schedule.segment_steps
        index = self.store.sample_pairs(count, steps, rng, recent=recent)
        a, b = (self.store.segments(side, steps) for side in index)
        return a, b

    def get_state(self) -> dict[str, Any]:
        """Where the schedule stands; the answers themselves only if no directory keeps them."""
        held = self.preferences
        in_memory = held.directory is None and held.asked > 0
        return {
            "entropy": self._entropy,
            "waited": self._waited,
            "queries": self.queries,
            "judged": self.judged,
            "labels": len(held),
            "skipped": held.skipped,
            "answers": self._answers().arrays() if in_memory else None,
            "rater": self.rater.memory() if isinstance(self.rater, RememberingRater) else None,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`get_state`.

        Where answers are kept on disk, those given since are not asked for a second time.
        """
        self._entropy, self._waited = state["entropy"], state["waited"]
        self.queries, self.judged = state["queries"], state.get("judged", 0)
        self._recorded = self.preferences.next_query_id
        if state["answers"] is None:
            self.preferences.truncated_to(state["labels"], state["skipped"])
        else:
            answers = Comparisons.from_arrays(state["answers"], self.rater.meaning)
            self.preferences.truncated_to(0, 0).append(answers, skipped=state["skipped"])
        self.rater = self._unadapted
        if isinstance(self.rater, RememberingRater):
            self.rater = self.rater.remembering(state["rater"])
        elif self.queries or self.judged:
            self._adapted()  # a rater may count how often it was told

    def rewind(self) -> None:
        """Begin with the first question again; what the disk has is not asked a second time."""
        self._recorded = self.preferences.next_query_id
        self.preferences.truncated_to(0, 0)
        self.rater = self._unadapted
        self.queries = self.judged = self._waited = 0

    def _affordable(self, a: Segments, b: Segments) -> tuple[Segments, Segments]:
        """Pairs that may be asked about now, as numpy arrays."""
        if len(a) != len(b) or len(a) == 0:
            raise ValueError(
                f"compare() got {len(a)} and {len(b)} segments; wanted two batches of the same"
                " number, at least one."
            )
        if self.budget_left is not None and len(a) > self.budget_left:
            raise BudgetExhaustedError(
                f"{len(a)} comparisons were asked for but {self.budget_left} of the budget of"
                f" {self.schedule.budget} labels are left; ask for fewer or raise budget=."
            )
        return a.numpy(), b.numpy()

    def _answers(self) -> Comparisons:
        """All of them; a batch of none where every question was skipped."""
        if len(self.preferences):
            return self.preferences.comparisons
        nothing = np.zeros(0, np.int64)
        none = self.store.segments(SegmentIndex(nothing, nothing, nothing), 1)
        return Comparisons(none, none, np.zeros(0), meaning=self.rater.meaning)

    def _ask(self, a: Segments, b: Segments, numbers: np.ndarray) -> Labels:
        """The rater's answers, or those that an earlier life of this run was given."""
        rater = self._adapted(len(numbers))
        rng = np.random.default_rng((self._entropy, self.queries, 1))
        if numbers[0] >= self._recorded:
            return rater(a, b, rng)
        known, labels = self.preferences.answered(numbers, (a, b))
        if not known.all():
            open_ = np.nonzero(~known)[0]
            new = rater(a.take(open_), b.take(open_), rng)
            for column, values in zip(labels, new, strict=True):
                column[open_] = values
        return labels

    def _adapted(self, pairs: int = 1) -> Rater:
        """Let a rater with relative thresholds know what segments are like these days.

        One that adds up what it was told of hears of as many segments as it will be shown pairs.
        """
        steps, recent = self.schedule.segment_steps, self.schedule.recent or THESE_DAYS
        if not isinstance(self.rater, AdaptiveRater) or not self.rater.adaptive:
            return self.rater
        if self.store.starts(steps, recent=recent):
            rng = np.random.default_rng((self._entropy, self.queries + self.judged, 2))
            count = max(SAMPLE, pairs if isinstance(self.rater, RememberingRater) else 0)
            seen = self.store.sample(count, steps, rng, recent=recent)
            self.rater = self.rater.adapted_to(self.store.segments(seen, steps))
        return self.rater

    def _warn_of_silence(self) -> None:
        """Say it once when segments are longer than episodes ever get."""
        steps = self.schedule.segment_steps
        if not self._warned and self.store.total_steps > 50 * steps * self.store.lanes:
            self._warned = True
            warnings.warn(
                f"No preference was emitted in {self.store.total_steps} steps: segments have"
                f" {steps} steps, and the longest episode had {self.store.longest}. Make the"
                " environment with a smaller segment_steps.",
                stacklevel=4,
            )

    def _draw(self) -> tuple[Segments, Segments] | None:
        steps, recent = self.schedule.segment_steps, self.schedule.recent
        rng = np.random.default_rng((self._entropy, self.queries, 0))
        pair = self.store.distinct_pair(steps, rng, recent=recent)
        if pair is None:
            return None
        a, b = (self.store.segments(side, steps) for side in pair)
        return a, b


def _event(answer: Comparisons) -> dict[str, Any]:
    """What ``info["preference"]`` holds: which segments, and what was said of them."""
    places: dict[str, Any] = {}
    for side, one in (("a", answer.a), ("b", answer.b)):
        assert one.episode is not None
        assert one.start is not None
        places[f"episode_{side}"] = int(one.episode[0])
        places[f"start_{side}"] = int(one.start[0])
        places[f"length_{side}"] = int(one.lengths[0])
    return {
        "query_id": int(answer.query_id[0]),
        **places,
        "label": float(answer.label[0]),
        "rater_id": int(answer.rater_id[0]),
    }
