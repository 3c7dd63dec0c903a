"""`prefgym bench models`: the words of the command line."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from prefgym_agents.bench import report, running
from prefgym_agents.bench.suite import FULL, QUICK, Suite, selected

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


@dataclass(frozen=True)
class ModelsBenchmark:
    """Compare preference models: tasks × raters × models × seeds, scored alike."""

    out: Path | None = None
    """Folder of the results; what is finished there is not done again. By default
    runs/bench-models, or runs/bench-models-quick."""
    quick: bool = False
    """A part that takes minutes: three tasks, four raters, five models, two seeds, small fits."""
    tasks: tuple[str, ...] = ()
    """Only these: delivery, random-mdps, pendulum, hopper, half-cheetah, text-style."""
    raters: tuple[str, ...] = ()
    """Only these: partial-return, regret, cyclic, two-groups, five-groups, mistakes, ties; or
    module:name of your own."""
    models: tuple[str, ...] = ()
    """Only these: keys of prefgym.models.presets.MODELS, or module:name of your own."""
    rater: tuple[str, ...] = ()
    """These too, as module:name."""
    model: tuple[str, ...] = ()
    """These too, as module:name."""
    seeds: int | None = None
    """0, 1, ...; 5 by default, 2 in the quick form."""
    policy_steps: int | None = None
    """Control: learn a policy with so many environment steps, for raters of one mind; by default,
    and with 0, the best of given episodes is chosen instead."""
    workers: int | None = None
    """Processes side by side; by default one for each core."""
    ray: str | None = None
    """Compute on the Ray cluster at this address instead; "local" starts one here."""
    quiet: bool = False
    """Show no progress bar and no table."""


def models(words: list[str]) -> int:
    """`prefgym bench models ...`; returns the exit status."""
    asked = tyro.cli(ModelsBenchmark, args=words, prog="prefgym bench models")
    suite = suite_of(asked)
    folder = asked.out or Path("runs") / f"bench-models{'-quick' if asked.quick else ''}"
    workers = asked.workers or os.cpu_count() or 1
    if workers < 1:
        raise ValueError(f"workers={workers}; wanted at least 1.")
    running.prepare(folder, suite)
    console, begun = Console(quiet=asked.quiet, soft_wrap=True), time.perf_counter()
    try:
        spent = running.run(suite, folder, workers, asked.ray, asked.quiet)
    except KeyboardInterrupt:
        kept = len(running.rows(suite, folder))
        console.print(
            f"stopped; {kept} of {len(suite.cells())} cells are kept in {folder}, and the same"
            " command goes on from there"
        )
        return INTERRUPTED
    rows = running.rows(suite, folder)
    report.write(suite, rows, folder)
    report.show(console, suite, rows)
    console.print(f"results: {folder} (results.parquet, summary.json, accuracy.png, cells/)")
    if spent.cells:
        console.print(
            f"{spent.cells} cells in {time.perf_counter() - begun:.0f} s; inside tensor operations:"
            f" {spent.share:.0%} of the {spent.seconds:.0f} s that the cells took"
        )
    return 0


def suite_of(asked: ModelsBenchmark) -> Suite:
    """The suite that the words ask for.

    Raises:
        ValueError: unknown names, or nothing to run.
    """
    base = QUICK if asked.quick else FULL
    raters = (*(asked.raters or base.raters), *asked.rater)
    known = (*(asked.models or base.models), *asked.model)
    return selected(base, asked.tasks or None, raters, known, asked.seeds, asked.policy_steps)
