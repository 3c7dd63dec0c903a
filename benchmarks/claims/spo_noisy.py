"""Self-play by a language model where one answer in four is wrong; no claim itself.

The task is ``prefgym/TextCopy-v0`` (27 prompts) with a rater that knows the true return and turns
every fourth answer round. The start is a tiny model that was pretrained on the demonstrations, in
which 3 tokens of 10 are wrong, as in ``text_transfer``. SPO by queue, SPO by group and reward
learning improve it by RLOO with the same pull to the start, for the same number of tokens and with
as many comparisons.
"""

from functools import partial
from typing import Any

from benchmarks.claims.text_transfer import LEARNERS
from benchmarks.claims.text_transfer_tasks import TASKS
from prefgym_agents.spo import SPO

MISTAKE, COIN = 0.25, 0.5
LABELS, TOKENS = 10_000, 60_000
TASK = TASKS["text"]
FORMS = ("queue", "group")
PLAY: dict[str, Any] = {"queue": 8, "comparisons": 4, "scale": 4.0, "snapshots": 0}


def closed(seed: int, learned: bool) -> dict[str, float]:
    """Shares of the gap in true return, between the start and the optimum, that learners close.

    By "queue" and "group"; by "reward" and "coin" (SPO by group whose answers are a coin's) where
    ``learned``.
    """
    env = asked(MISTAKE)
    backends = TASK.backends(env, seed)
    start, best = TASK.score(backends(env), seed), TASK.best(env, seed)

    def share(make: Any, mistake: float = MISTAKE) -> float:
        learner = make(backends(asked(mistake)), labels=LABELS, seed=seed).learn(TOKENS)
        return (TASK.score(learner, seed) - start) / (best - start)

    play = {form: partial(SPO, opponents=form, **PLAY) for form in FORMS}
    found = {form: share(make) for form, make in play.items()}
    if learned:
        found["reward"] = share(LEARNERS["reward_learning"].make)
        found["coin"] = share(play["group"], COIN)
    return found


def asked(mistake: float) -> Any:
    """The environment, with a rater who is at times mistaken."""
    return TASK.make(rater="mistake", rater_kwargs={"mistake": mistake}, budget=LABELS)
