"""A judge of rules: reads the prompts that language models get, and answers in their format."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from prefgym.judges.goals import worth
from prefgym.judges.prompts import form, question

_VERSION = 1
"""Of the rules; other rules are another judge to a cache."""
_HASHES = 2**64


@dataclass(frozen=True)
class RuleJudge:
    """Answers by :func:`prefgym.judges.goals.worth`, in the words that a model is asked for.

    One caption helps if it is worth anything; of two the one worth more is preferred. No network,
    no model, and equal answers to equal prompts in every process.
    """

    mistake: float = 0.0
    """Share of all prompts that get a wrong answer, always the same ones: drawn by their hash."""
    seed: int = 0
    """Which ones."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if not 0.0 <= self.mistake <= 1.0:
            raise ValueError(
                f"RuleJudge: mistake is {self.mistake}; wanted the share of prompts that are"
                " answered wrongly, from 0 to 1."
            )

    @property
    def name(self) -> str:
        """The version of the rules, and the mistakes."""
        erring = f" mistake={self.mistake} seed={self.seed}" if self.mistake else ""
        return f"rules-{_VERSION}{erring}"

    def answers(self, prompts: Sequence[str]) -> list[str | None]:
        """An answer to every prompt.

        Raises:
            ValueError: a prompt was not made by :mod:`prefgym.judges.prompts`.
        """
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: str) -> str:
        goal, captions = question(prompt)
        worths = [worth(goal, caption) for caption in captions]
        if len(worths) == 1:
            verdicts, right = ["yes", "no"], "yes" if worths[0] > 0.0 else "no"
        else:
            verdicts = ["first", "second", "tie"]
            right = verdicts[(worths[0] < worths[1]) + 2 * (worths[0] == worths[1])]
        given = self._wrong(prompt, [one for one in verdicts if one != right]) or right
        told = "; ".join(
            f"{caption!r}: {one:.2g}" for caption, one in zip(captions, worths, strict=True)
        )
        return f"By the rules for {goal!r}, {told}.\n{form(given)}"

    def _wrong(self, prompt: str, others: list[str]) -> str | None:
        """One of the wrong verdicts, for the prompts that are drawn."""
        drawn = hashlib.sha256(f"{self.seed}\n{prompt}".encode()).digest()
        if int.from_bytes(drawn[:8]) >= self.mistake * _HASHES:
            return None
        return others[drawn[8] % len(others)]
