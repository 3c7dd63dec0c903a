"""Factors that wrappers add to say how a step came about; no part of any task's reward."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from prefgym.captions import CAPTION
from prefgym.interventions.supervision import INTERVENED, PROPOSED, REFUSED

PERSON = "person"
"""For whom the episode is played."""


def of_the_task(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the named factors that the task itself measures."""
    return tuple(one for one in names if not _is_note(one))


def _is_note(name: str) -> bool:
    return name in (PERSON, CAPTION, INTERVENED, REFUSED) or name.startswith(f"{PROPOSED}_")


def with_factors(
    infos: Mapping[str, Any], told: Mapping[str, np.ndarray], acting: np.ndarray
) -> dict[str, Any]:
    """The infos of a step with more factors, also where Gymnasium keeps those of ended lanes."""
    found = {**infos, "factors": {**infos.get("factors", {}), **told}, "_factors": acting}
    if "final_info" in infos:
        last = infos["final_info"]
        found["final_info"] = {**last, "factors": {**last.get("factors", {}), **told}}
    return found
