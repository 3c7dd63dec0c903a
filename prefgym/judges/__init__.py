"""Judges: whoever answers a prompt in words, and what they are asked.

>>> from prefgym.judges.prompts import judge_prompt
>>> print(RuleJudge().answers([judge_prompt("open the door", "You pick up the key.")])[0])
By the rules for 'open the door', 'You pick up the key.': 0.7.
ANSWER: yes
"""

from prefgym.judges.cache import AnswerCache, Cached
from prefgym.judges.endpoint import EndpointJudge, Patience
from prefgym.judges.judge import CountingJudge, Judge, StreamingJudge
from prefgym.judges.rules import RuleJudge

__all__ = [
    "AnswerCache",
    "Cached",
    "CountingJudge",
    "EndpointJudge",
    "Judge",
    "Patience",
    "RuleJudge",
    "StreamingJudge",
]
