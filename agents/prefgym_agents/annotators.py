"""Who has captions judged in a run, as the command line says it."""

from functools import partial
from pathlib import Path

from prefgym.annotation import Annotator, Inline
from prefgym.judges import Cached, EndpointJudge, RuleJudge
from prefgym.raters.language import LanguageRater
from prefgym_agents.judges import judge_from


def annotator_of(judge: str, goal: str, kind: str, folder: Path | None) -> Annotator | Inline:
    """The annotator of a run.

    The rule-based judge answers in the run itself, so that a run can be repeated exactly; every
    other one in a process of its own, its labels and answers kept in the folder.

    Args:
        judge: in one word; see :func:`prefgym_agents.judges.judge_from`.
        goal: what captions are judged by.
        kind: "helpful" or "ranking".
        folder: of labels and answers; None: nothing is asked but whether the judge is there.

    Raises:
        ValueError: there is no such judge, it cannot be reached, or the goal is empty.
    """
    chosen = judge_from(judge)
    rater = LanguageRater(chosen, goal)
    if isinstance(chosen, RuleJudge):
        return Inline(rater, kind)
    if folder is None:
        if isinstance(chosen, EndpointJudge):
            chosen.check()
        return Inline(rater, kind)
    folder.mkdir(parents=True, exist_ok=True)
    kept = Cached(chosen, folder / "answers.sqlite")
    about = f"{chosen.name}: {rater.goal}"
    return Annotator(folder, partial(LanguageRater, kept, rater.goal), kind, about=about)
