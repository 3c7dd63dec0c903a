"""A language model as rater of captions: is this a step towards the goal, which one is the greater?

Sources: Klissarov et al. (2023), Motif, arXiv:2310.00166; Zheng et al. (2024), ONI,
arXiv:2410.23022. Departures: what cannot be parsed is no answer (in ONI it is 0, or a tie), and
both orders of a pair are asked.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from prefgym.judges.judge import CountingJudge, Judge
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
        lines = [one_line(caption) for caption in captions]
        prompts = [judge_prompt(self.goal, one, self.system) if one else "" for one in lines]
        found = self._verdicts([one for one in prompts if one], HELPFUL)
        labels = np.array([found.get(one, np.nan) for one in prompts], float)
        new = np.array(list(found.values()))
        self._counts["blank"] += lines.count("")
        self._counts["helpful"] += int(np.sum(new == 1.0))
        self._counts["unhelpful"] += int(np.sum(new == 0.0))
        self._warn_if_none_helps()
        return labels

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
        ones, others = ([one_line(caption) for caption in side] for side in (first, second))
        if len(ones) != len(others):
            raise ValueError(
                f"{len(ones)} first captions and {len(others)} second ones; wanted pairs."
            )
        pairs = list(zip(ones, others, strict=True))
        asked = {pair for pair in pairs if all(pair) and pair[0] != pair[1]}
        prompts = {
            pair: compare_prompt(self.goal, *pair, system=self.system)
            for one, other in sorted(asked)
            for pair in ((one, other), (other, one))
        }
        found = self._verdicts(list(prompts.values()), RANKING)
        forward, back = (
            np.array([found.get(prompts.get(pair, ""), np.nan) for pair in side], float)
            for side in (pairs, [(other, one) for one, other in pairs])
        )
        agree = forward == 1.0 - back
        labels = np.where(agree, forward, np.where(np.isnan(forward + back), np.nan, 0.5))
        same = np.array([one == other != "" for one, other in pairs], bool)
        told = np.array([all(pair) for pair in pairs], bool)
        self._count_pairs(labels, forward, back, same, told)
        return np.where(same, 0.5, labels)

    def _verdicts(self, prompts: Sequence[str], verdicts: dict[str, float]) -> dict[str, float]:
        """The verdict on every prompt that got one; each prompt is put to the judge once."""
        once = list(dict.fromkeys(prompts))
        answers = self.judge.answers(once) if once else []
        read = {
            prompt: verdict(answer, verdicts) for prompt, answer in zip(once, answers, strict=True)
        }
        self._counts["asked"] += len(once)
        self._counts["unanswered"] += answers.count(None)
        found = {prompt: one for prompt, one in read.items() if one is not None}
        self._counts["unparsable"] += len(once) - answers.count(None) - len(found)
        return found

    def _count_pairs(
        self,
        labels: Float[np.ndarray, " pairs"],
        forward: Float[np.ndarray, " pairs"],
        back: Float[np.ndarray, " pairs"],
        same: Bool[np.ndarray, " pairs"],
        told: Bool[np.ndarray, " pairs"],
    ) -> None:
        self._counts["blank"] += int(np.sum(~told))
        self._counts["identical"] += int(np.sum(same))
        self._counts["preferred"] += int(np.sum(np.abs(labels - 0.5) == 0.5))
        self._counts["tied"] += int(np.sum(labels == 0.5))
        self._counts["contradicted"] += int(np.sum((forward == back) & (forward != 0.5)))

    def _warn_if_none_helps(self) -> None:
        none = not self._counts["helpful"] and self._counts["unhelpful"] >= _ALWAYS_NO
        if none and not self._warned:
            self._warned = True
            warnings.warn(
                f"The judge said no to all of the first {self._counts['unhelpful']} captions, so"
                f" that the reward is constant; is {self.goal!r} the goal, in the words of the"
                " captions?",
                stacklevel=3,
            )
