"""A language model as rater of captions: is this a step towards the goal, which one is the greater?

Sources: Klissarov et al. (2023), Motif, arXiv:2310.00166; Zheng et al. (2024), ONI,
arXiv:2410.23022. Departures: what cannot be parsed is no answer (in ONI it is 0, or a tie), and
both orders of a pair are asked.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from prefgym.judges.judge import CountingJudge, Judge, StreamingJudge
from prefgym.judges.prompts import (
    HELPFUL,
    RANKING,
    SYSTEM,
    compare_prompt,
    judge_prompt,
    one_line,
    verdict,
)

_COUNTS = (
    *("asked", "unparsable", "unanswered", "helpful", "unhelpful"),
    *("preferred", "tied", "contradicted", "identical", "blank"),
)
_ALWAYS_NO = 20
"""Captions in a row from the beginning after which it is said that none helps."""


class LanguageRater:
    """Puts captions to a judge, and reads its verdicts.

    Args:
        judge: who answers.
        goal: what the captions should bring nearer, in words.
        system: how every prompt begins, such as what game this is. It is a part of the prompt and
            not a message of its own, which not every model takes.

    Raises:
        ValueError: the goal is empty.
    """

    def __init__(self, judge: Judge, goal: str, system: str = SYSTEM) -> None:
        if not one_line(goal):
            raise ValueError(
                f"The goal is {goal!r}; wanted what captions are judged by, such as 'open the"
                " door'."
            )
        self.judge, self.goal, self.system = judge, one_line(goal), system.strip()
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._warned = False

    @property
    def counts(self) -> dict[str, int]:
        """Numbers for a log, which only grow.

        asked (prompts put to the judge), unanswered and unparsable of them; helpful and unhelpful
        captions; of pairs preferred, tied, contradicted (the two orders name different captions;
        a tie) and identical; blank captions or pairs, never asked about. Then what the judge
        counts, with those that have no name among these.
        """
        judges = self.judge.counts if isinstance(self.judge, CountingJudge) else {}
        return judges | self._counts

    def helpful(self, captions: Sequence[str]) -> Float[np.ndarray, " captions"]:
        """Whether each caption reports a step towards the goal: 1, 0, or nan for no answer.

        Equal captions are asked about once. An empty caption says that nothing happened; it is not
        asked about, and has no label.
        """
        return self._all("helpful", [(caption,) for caption in captions])

    def prefer(self, first: Sequence[str], second: Sequence[str]) -> Float[np.ndarray, " pairs"]:
        """P(first preferred): 1, 0, ½ for a tie, or nan for no answer.

        Models favour a place in the prompt, the first as a rule, and such a model would say "first"
        to both orders. Hence both are asked, and a caption is preferred only if it is in both. All
        else is a tie: a contradiction, which averages to one, and also a preference that is a tie
        the other way round. It could as well be ¾, but then labels of a judge who leans would be
        other numbers than those of one who does not. If one order has no answer the pair has none:
        the other alone would bring the favour back.

        Identical captions are a tie without asking; a pair with an empty one has no label.
        """
        if len(first) != len(second):
            raise ValueError(
                f"{len(first)} first captions and {len(second)} second ones; wanted pairs."
            )
        return self._all("ranking", list(zip(first, second, strict=True)))

    def stream(
        self, kind: str, questions: Sequence[tuple[str, ...]]
    ) -> Iterator[tuple[int, float]]:
        """Number and label of every question that gets one, as soon as it does.

        Args:
            kind: "helpful", of questions with one caption as for :meth:`helpful`, or "ranking", of
                pairs as for :meth:`prefer`.
            questions: in any order.
        """
        lines = [tuple(one_line(caption) for caption in question) for question in questions]
        self._counts["blank"] += sum(not all(line) for line in lines)
        return self._single(lines) if kind == "helpful" else self._compared(lines)

    def _all(
        self, kind: str, questions: Sequence[tuple[str, ...]]
    ) -> Float[np.ndarray, " questions"]:
        labels = np.full(len(questions), np.nan)
        for number, label in self.stream(kind, questions):
            labels[number] = label
        return labels

    def _single(self, lines: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, float]]:
        numbers: dict[str, list[int]] = {}
        for number, (line,) in enumerate(lines):
            if line:
                numbers.setdefault(judge_prompt(self.goal, line, self.system), []).append(number)
        for prompt, label in self._verdicts(list(numbers), HELPFUL):
            self._counts["helpful" if label == 1.0 else "unhelpful"] += 1
            for number in numbers[prompt]:
                yield number, label
        self._warn_if_none_helps()

    def _compared(self, lines: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, float]]:
        numbers: dict[tuple[str, ...], list[int]] = {}
        for number, pair in enumerate(lines):
            if all(pair) and len(set(pair)) > 1:
                numbers.setdefault(pair, []).append(number)
            elif all(pair):
                self._counts["identical"] += 1
                yield number, 0.5
        prompts = {
            compare_prompt(self.goal, *pair, system=self.system): pair
            for one, other in sorted(numbers)
            for pair in ((one, other), (other, one))
        }
        found: dict[tuple[str, ...], float] = {}
        for prompt, label in self._verdicts(list(prompts), RANKING):
            pair = prompts[prompt]
            found[pair] = label
            if pair[::-1] in found:
                for one in (pair, pair[::-1]):
                    for number in numbers.get(one, ()):
                        yield number, self._agreed(found[one], found[one[::-1]])

    def _agreed(self, forward: float, back: float) -> float:
        """The label of a pair by the verdicts on both orders, counted."""
        label = forward if forward == 1.0 - back else 0.5
        self._counts["tied" if label == 0.5 else "preferred"] += 1
        self._counts["contradicted"] += forward == back != 0.5
        return label

    def _verdicts(
        self, prompts: Sequence[str], verdicts: dict[str, float]
    ) -> Iterator[tuple[str, float]]:
        """Every prompt that gets a verdict, and which, as the answers come."""
        self._counts["asked"] += len(prompts)
        for number, answer in _streamed(self.judge, prompts):
            found = None if answer is None else verdict(answer, verdicts)
            if found is not None:
                yield prompts[number], found
            else:
                self._counts["unanswered" if answer is None else "unparsable"] += 1

    def _warn_if_none_helps(self) -> None:
        none = not self._counts["helpful"] and self._counts["unhelpful"] >= _ALWAYS_NO
        if none and not self._warned:
            self._warned = True
            warnings.warn(
                f"The judge said no to all of the first {self._counts['unhelpful']} captions, so"
                f" that the reward is constant; is {self.goal!r} the goal, in the words of the"
                " captions?",
                stacklevel=5,
            )


def _streamed(judge: Judge, prompts: Sequence[str]) -> Iterable[tuple[int, str | None]]:
    """Every prompt's number and answer, as they come where the judge can tell."""
    if isinstance(judge, StreamingJudge):
        return judge.stream(prompts)
    return enumerate(judge.answers(prompts)) if prompts else ()
