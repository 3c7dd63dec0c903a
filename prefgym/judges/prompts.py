"""What judges are asked, and how their answers are read: one caption, or two of them.

A judge may think aloud first. Its verdict is the last line of the answer and nothing else, so that
an answer that breaks off, hedges or says two things at once is not taken for a verdict.
"""

import re
from typing import NamedTuple

SYSTEM = "You advise somebody who plays a game and learns from your advice."
"""How every prompt begins."""

HELPFUL = {"yes": 1.0, "no": 0.0}
"""Verdicts on one caption."""

RANKING = {"first": 1.0, "second": 0.0, "tie": 0.5}
"""Verdicts on two captions, as P(first preferred)."""

_JUDGE = """{system}

You are told the player's goal and one message that the game has just shown. Decide whether what \
the message reports brings the player nearer to the goal. Steps that make the goal possible count; \
merely looking, running into things and undoing what was done do not.

Think in one or two short sentences. Then end with a line that is exactly one of these:
ANSWER: yes
ANSWER: no

An example:
Goal: bake a loaf of bread
Message: You knead the dough.
Bread is made of dough, so this is a step on the way.
ANSWER: yes

Another example:
Goal: bake a loaf of bread
Message: You look at the clouds.
The loaf is no nearer for it.
ANSWER: no

Your turn:
Goal: {goal}
Message: {caption}
"""

_COMPARE = """{system}

You are told the player's goal and two messages that the game has shown at different times. Decide \
which of them reports the greater step towards the goal. Steps that make the goal possible count; \
merely looking, running into things and undoing what was done do not.

Think in one or two short sentences. Then end with a line that is exactly one of these:
ANSWER: first
ANSWER: second
ANSWER: tie

An example:
Goal: bake a loaf of bread
First: You look at the clouds.
Second: You knead the dough.
Bread is made of dough, and clouds have nothing to do with it.
ANSWER: second

Another example:
Goal: bake a loaf of bread
First: You look at the clouds.
Second: You count your coins.
Neither brings the loaf nearer.
ANSWER: tie

Your turn:
Goal: {goal}
First: {first}
Second: {second}
"""

_TURN = "\nYour turn:\nGoal: "
_QUESTION = re.compile(r"(.*)\n(?:Message: (.*)|First: (.*)\nSecond: (.*))\n")
_VERDICT = re.compile(r"ANSWER: (\w+)", re.IGNORECASE)


class Question(NamedTuple):
    """What a prompt asks: about one caption, or about two."""

    goal: str
    captions: tuple[str, ...]


def judge_prompt(goal: str, caption: str, system: str = SYSTEM) -> str:
    """The prompt that asks whether a caption reports a step towards a goal.

    Args:
        goal: in words; see :func:`one_line`.
        caption: what happened.
        system: how the prompt begins.
    """
    return _JUDGE.format(system=system, goal=one_line(goal), caption=one_line(caption))


def compare_prompt(goal: str, first: str, second: str, system: str = SYSTEM) -> str:
    """The prompt that asks which of two captions reports the greater step towards a goal."""
    return _COMPARE.format(
        system=system, goal=one_line(goal), first=one_line(first), second=one_line(second)
    )


def one_line(text: str) -> str:
    """A text on one line, so that a caption cannot pass for a part of the prompt."""
    return " ".join(text.split())


def question(prompt: str) -> Question:
    """What a prompt made here asks.

    Raises:
        ValueError: it was not made here.
    """
    _, turn, rest = prompt.rpartition(_TURN)
    found = _QUESTION.fullmatch(rest) if turn else None
    if found is None:
        raise ValueError(
            f"A prompt that ends in {prompt[-60:]!r} asks neither about one caption nor about two;"
            " make it with judge_prompt or compare_prompt of prefgym.judges.prompts."
        )
    goal, *captions = found.groups()
    return Question(goal, tuple(one for one in captions if one is not None))


def verdict(answer: str | None, verdicts: dict[str, float]) -> float | None:
    r"""The number that an answer stands for.

    The last line that is not empty must be ``ANSWER:`` and one of the words, in capitals or not; no
    other line may give another verdict.

    Args:
        answer: what the judge wrote; None if nothing came.
        verdicts: :data:`HELPFUL` or :data:`RANKING`.

    Returns:
        Its number, or None: such an answer is no verdict, and neither 0 nor a tie.

    Example:
        >>> verdict("The key fits the door.\nANSWER: yes", HELPFUL)
        1.0
        >>> verdict("Perhaps yes, perhaps no.", HELPFUL) is None
        True
    """
    lines = [line.strip() for line in (answer or "").splitlines() if line.strip()]
    said = [found[1].lower() for line in lines if (found := _VERDICT.fullmatch(line))]
    if not said or not _VERDICT.fullmatch(lines[-1]) or len(set(said)) > 1:
        return None
    return verdicts.get(said[-1])


def form(word: str) -> str:
    """The line that gives a verdict."""
    return f"ANSWER: {word}"
