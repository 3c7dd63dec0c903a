"""One cell, from its name to its row: equal arguments, equal row, wherever it is computed."""

import math
from collections.abc import Mapping

import torch

from prefgym_agents.bench.data import answered, played
from prefgym_agents.bench.fitting import fitted
from prefgym_agents.bench.policies import led_to
from prefgym_agents.bench.scores import choice_exploitability, knowledge
from prefgym_agents.bench.suite import Cell, Suite

Row = Mapping[str, float | int | str | None]
"""Names of the cell, then its scores; None where one does not apply."""
SCORES = (
    "accuracy",
    "worst_group_accuracy",
    "calibration_error",
    "strength_slope",
    "true_return",
    "worst_group_return",
    "exploitability",
    "train_accuracy",
)
"""What a row says, in order."""


def run(cell: Cell, suite: Suite) -> Row:
    """Play, ask, fit and score.

    Everything runs on one thread of a CPU, so that a row does not depend on who computes it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        scores = _scores(cell, suite)
    finally:
        torch.set_num_threads(threads)
    kept = {name: scores[name] for name in SCORES}
    return {**cell._asdict(), **{n: one if math.isfinite(one) else None for n, one in kept.items()}}


def _scores(cell: Cell, suite: Suite) -> dict[str, float]:
    task = suite.tasks[cell.task]
    size = task.sized(suite.size)
    sides = played(task, size, cell.seed)
    told = answered(task, suite.raters[cell.rater], size, cell.seed)
    model = fitted(cell.model, sides, told, size, cell.seed)
    return {
        **knowledge(model, told),
        "exploitability": choice_exploitability(model, sides, told, size),
        **led_to(model, cell, task, sides, told, size),
        "train_accuracy": model.accuracy,
    }
