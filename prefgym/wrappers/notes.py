"""Factors that wrappers add to say how a step came about; no part of any task's reward."""

from collections.abc import Iterable

from prefgym.captions import CAPTION
from prefgym.interventions.supervision import INTERVENED, PROPOSED, REFUSED
from prefgym.wrappers.personal import PERSON


def of_the_task(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the named factors that the task itself measures."""
    return tuple(one for one in names if not _is_note(one))


def _is_note(name: str) -> bool:
    return name in (PERSON, CAPTION, INTERVENED, REFUSED) or name.startswith(f"{PROPOSED}_")
