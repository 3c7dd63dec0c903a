"""Where a figure comes from: command, commit, versions; every file under results/ says it."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def provenance(module: str, packages: tuple[str, ...] = ("numpy", "torch")) -> dict[str, Any]:
    """What made the figures: the command as typed, the commit, versions.

    Args:
        module: name of the benchmark's module; ``__main__`` is not a name that can be typed.
        packages: distributions whose versions matter.
    """
    return {
        "command": " ".join(["python -m", module, *sys.argv[1:]]),
        "commit": commit(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def commit() -> str:
    """The commit of the checkout; ``+`` behind it says that files differ from it."""
    head = _git("rev-parse", "HEAD")
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results"
    )
    return head + ("+" if changed else "")


def write_result(name: str, content: dict[str, Any]) -> Path:
    """Write ``benchmarks/results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
