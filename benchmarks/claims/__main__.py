"""Run claims: ``python -m benchmarks.claims --list | KEY --seed 3 [--quick] | --all --seeds 3``.

``KEY --write`` adds the runs of one claim to the results file, as ``--all`` does for every claim.

Exit status 0 if everything that was run holds, 1 if something does not, 2 for wrong usage, 130
after Ctrl-C. ``--all`` writes ``benchmarks/results/claims.json`` after every single run, so that
whatever stops it, what was measured is kept; runs of other seeds that the file holds stay in it.
"""

import argparse
import contextlib
import importlib
import json
import math
import os
import pkgutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.claims.claim import ClaimResult, Row, closing_line, report
from benchmarks.provenance import RESULTS, provenance
from prefgym.names import lookup

PACKAGE = "benchmarks.claims"
SCHEMA_VERSION = 1
_NO_CLAIMS = {"__main__", "claim"}
PACKAGES = ("gymnasium", "mujoco", "numpy", "stable-baselines3", "torch")
"""Whose versions the figures may depend on."""


@dataclass(frozen=True)
class Claim:
    """A module of the package, as it is run."""

    key: str
    sentence: str
    run: Callable[[int, bool], ClaimResult]


def main(arguments: Sequence[str] | None = None, package: str = PACKAGE) -> int:
    """Do what the command line asks and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        try:
            action = _chosen(options, package)
        except ValueError as mistake:
            parser.error(str(mistake))
        return action()
    except KeyboardInterrupt:
        print(
            "Stopped. The runs that had finished stand above, with --all also in the results file.",
            file=sys.stderr,
        )
        return 130


def _chosen(options: argparse.Namespace, package: str) -> Callable[[], int]:
    """What is to be done.

    Raises:
        ValueError: the command line asks for nothing that can be done.
    """
    if [bool(options.key), options.list, options.all].count(True) != 1:
        raise ValueError("Give a KEY, --list or --all, and one of these only.")
    if options.seeds < 1:
        raise ValueError(f"Got --seeds {options.seeds}; give 1 or more.")
    modules = _modules(package)
    seeds = range(options.seed, options.seed + options.seeds)
    if options.list:
        return partial(_list, _every(modules))
    if options.all:
        _stored(options.results)  # refuse what cannot be added to before the first run
        return partial(_run_all, _every(modules), seeds, options.quick, options.results)
    claim = _loaded(options.key, lookup(options.key, modules, "claim"))
    if claim is None:
        raise ValueError(
            f"{modules[options.key]} is no claim: it lacks KEY, CLAIM or run(seed, quick)."
        )
    if options.write:
        _stored(options.results)
        return partial(_run_all, [claim], seeds, options.quick, options.results)
    return partial(_run_one, claim, seeds, options.quick)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims",
        description="Show whether the claims of published systems hold here.",
    )
    parser.add_argument("key", nargs="?", metavar="KEY", help="the claim to run")
    parser.add_argument("--list", action="store_true", help="print the keys and what they claim")
    parser.add_argument("--all", action="store_true", help="run every claim and write the results")
    parser.add_argument("--write", action="store_true", help="write the results of one KEY too")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (default 1)")
    parser.add_argument("--quick", action="store_true", help="only the part that fits in a test")
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS / "claims.json",
        help="what --all writes (default %(default)s)",
    )
    return parser


def _modules(package: str) -> dict[str, str]:
    """Module names of the package by key, nothing imported yet: a claim's file is its key."""
    path = importlib.import_module(package).__path__
    return {
        one.name: f"{package}.{one.name}"
        for one in pkgutil.iter_modules(path)
        if one.name not in _NO_CLAIMS and not one.name.startswith("_")
    }


def _every(modules: dict[str, str]) -> list[Claim]:
    return [claim for key in sorted(modules) if (claim := _loaded(key, modules[key]))]


def _loaded(key: str, name: str) -> Claim | None:
    """The claim in a module; None where the module is none.

    A module that cannot be imported (an extra that is missing, say) becomes a claim that fails
    with the same error when it is run: the others can be run without it.

    Raises:
        ValueError: the module calls itself by another key than its file.
    """
    try:
        content = vars(importlib.import_module(name))
    except Exception as broken:
        return Claim(key, f"(cannot be run here: {broken})", partial(_fail, broken))
    if not {"KEY", "CLAIM", "run"} <= content.keys():
        return None
    if content["KEY"] != key:
        raise ValueError(f"{name} has KEY {content['KEY']!r}; a claim's file is named by its key.")
    return Claim(key, content["CLAIM"], content["run"])


def _fail(error: Exception, seed: int, quick: bool) -> ClaimResult:
    raise error


def _list(claims: Sequence[Claim]) -> int:
    width = max((len(claim.key) for claim in claims), default=0)
    for claim in claims:
        print(f"{claim.key:{width}}  {claim.sentence}")
    return 0


def _run_one(claim: Claim, seeds: Sequence[int], quick: bool) -> int:
    results = []
    for seed in seeds:
        results.append(_measured(claim, seed, quick))
        print(report(results[-1]), flush=True)
    return 0 if all(result.holds for result in results) else 1


def _run_all(claims: Sequence[Claim], seeds: Sequence[int], quick: bool, results: Path) -> int:
    """Run everything, one record of the file per run; what breaks is recorded as not holding."""
    origin = provenance("benchmarks.claims", PACKAGES)
    todo = [(claim, seed) for claim in claims for seed in seeds]
    outcomes = []
    for number, (claim, seed) in enumerate(todo, start=1):
        try:
            result = _measured(claim, seed, quick, f"[{number}/{len(todo)}] ")
            record, line = _record(result), closing_line(result)
        except Exception as broken:  # one broken claim must not cost the others' results
            traceback.print_exc()
            record = _broken_record(seed, quick, broken)
            line = f"{claim.key} holds=false error={type(broken).__name__}"
        outcomes.append(bool(record["holds"]))
        _merge(results, claim, {**record, "made_by": origin})
        print(line, flush=True)
    length = " (quick)" if quick else ""
    print(f"{sum(outcomes)} of {len(outcomes)} runs hold{length}; see {results}")
    return 0 if all(outcomes) else 1


def _measured(claim: Claim, seed: int, quick: bool, count: str = "") -> ClaimResult:
    with _progress(f"{count}{claim.key} seed {seed}{' (quick)' if quick else ''}"):
        began = time.perf_counter()
        result = claim.run(seed, quick)
        return replace(result, wall_s=time.perf_counter() - began, quick=quick)


@contextlib.contextmanager
def _progress(task: str) -> Iterator[None]:
    """A clock beside the name of what runs; a plain line where nobody watches a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"{task} ...", file=sys.stderr, flush=True)
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(task.replace("[", r"\["), total=None)
        yield


def _record(result: ClaimResult) -> dict[str, Any]:
    return {
        "seed": result.seed,
        "quick": result.quick,
        "holds": result.holds,
        "wall_s": round(result.wall_s, 1),
        "rows": [_row(row) for row in result.rows],
        "controls": [_row(row) for row in result.controls],
        "figures": {name: _plain(value) for name, value in result.figures.items()},
    }


def _broken_record(seed: int, quick: bool, broken: Exception) -> dict[str, Any]:
    reason = f"{type(broken).__name__}: {broken}"
    return {"seed": seed, "quick": quick, "holds": False, "error": reason}


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "measured": _plain(row.measured),
        "comparison": row.comparison,
        "threshold": _plain(row.threshold),
        "holds": row.holds,
    }


def _plain(value: float) -> float | str:
    """JSON knows neither NaN nor infinity."""
    return float(value) if math.isfinite(value) else str(float(value))


def _merge(path: Path, claim: Claim, record: dict[str, Any]) -> None:
    """Put one record in the file, in place of the one of the same seed and length."""
    whole = _stored(path)
    entry = whole["claims"].setdefault(claim.key, {"claim": claim.sentence, "runs": []})
    if "error" not in record:
        entry["claim"] = claim.sentence
    same = (record["quick"], record["seed"])
    others = [run for run in entry["runs"] if (run["quick"], run["seed"]) != same]
    entry["runs"] = sorted([*others, record], key=lambda run: (run["quick"], run["seed"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(f".{os.getpid()}.tmp")
    half.write_text(json.dumps(whole, indent=1, sort_keys=True, allow_nan=False) + "\n")
    half.replace(path)


def _stored(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"schema_version": SCHEMA_VERSION, "claims": {}}
    try:
        whole: dict[str, Any] = json.loads(path.read_text())
        version = whole["schema_version"]
    except (json.JSONDecodeError, KeyError, TypeError) as damage:
        raise ValueError(
            f"{path} cannot be read as results of claims; move it away or give --results."
        ) from damage
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {version}, this program writes {SCHEMA_VERSION}; move it "
            "away or give --results."
        )
    return whole


if __name__ == "__main__":
    sys.exit(main())
