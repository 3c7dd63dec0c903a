"""Learning curves of several conditions on several environments, one file per run.

Runs that are there are not made again, so that a command can be stopped and repeated. Seeds are in
the outer loop: a command that is stopped early leaves as many of each condition.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.progress import Progress

from benchmarks.provenance import RESULTS, commit, provenance
from prefgym.statistics import bootstrap_interval
from prefgym_agents.plots import curves_csv, learning_curve

EVALUATION_SEED = 1_000_000


@dataclass(frozen=True)
class Settings:
    """What to run."""

    steps: int | None = None
    """Environment steps of each run; None: as many as the benchmark says."""
    seeds: int = 5
    """Seeds 0, 1, ... of each condition."""
    workers: int = 2
    """Runs side by side."""
    out: Path | None = None
    """Where the runs are kept; by default a folder of benchmarks/results."""
    job: tuple[str, str, int] | None = None
    """One run only: environment, condition, seed (what the workers are started with)."""


@dataclass(frozen=True)
class Curves:
    """A benchmark of learning curves."""

    name: str
    """Of its files, and of its module in ``benchmarks.control``."""
    environments: tuple[str, ...]
    """The middles of ``prefgym/<name>-v0``."""
    conditions: tuple[str, ...]
    make: Callable[[str, str, int], Any]
    """(environment id, condition, seed) -> a learner."""
    title: str
    """Of the pictures, after the environment's name."""
    figures: Mapping[str, str]
    """Metrics that curves hold beside the true return: name in the file -> name of the scalar."""
    steps: int = 300_000
    """Of each run, unless told otherwise."""

    def main(self) -> None:
        """Make the missing runs, then the pictures and the table."""
        settings = tyro.cli(Settings)
        steps = settings.steps or self.steps
        out = settings.out or RESULTS / f"control_{self.name}"
        out.mkdir(parents=True, exist_ok=True)
        if settings.job is not None:
            result = self.run(*settings.job, steps)
            self.path_of(out, *settings.job).write_text(json.dumps(result) + "\n")
            return
        jobs = self.missing(out, settings.seeds)
        with Progress() as bar, ThreadPoolExecutor(settings.workers) as pool:
            task = bar.add_task("runs", total=len(jobs))
            waiting = [pool.submit(self.work, out, steps, job) for job in jobs]
            for done in as_completed(waiting):
                done.result()
                bar.advance(task)
        self.summarise(out)

    def run(self, name: str, condition: str, seed: int, steps: int) -> dict[str, object]:
        """Train once; returns the curve and the true returns of 20 fresh episodes."""
        import torch

        from prefgym_agents.evaluation import evaluate

        torch.set_num_threads(1)
        env_id = f"prefgym/{name}-v0"
        learner = self.make(env_id, condition, seed)
        begun = time.perf_counter()
        curve = [
            (
                step,
                metrics["rollout/ep_rew_mean"],
                [metrics.get(one) for one in self.figures.values()],
            )
            for step, metrics in learner.iterations(steps)
            if "rollout/ep_rew_mean" in metrics
        ]
        returns = evaluate(learner, env_id, episodes=20, seed=EVALUATION_SEED + seed)
        more = {name: [one[2][k] for one in curve] for k, name in enumerate(self.figures)}
        return {
            "environment": env_id,
            "condition": condition,
            "seed": seed,
            "steps": steps,
            "labels": getattr(learner, "labels", learner.env.elicitor.labels_given),
            "commit": commit(),
            "wall_s": round(time.perf_counter() - begun, 1),
            "time": learner.clock.seconds,
            "curve": {
                "steps": [one[0] for one in curve],
                "true_return": [one[1] for one in curve],
                **more,
            },
            "final_true_returns": returns.tolist(),
        }

    def path_of(self, out: Path, name: str, condition: str, seed: int) -> Path:
        """The file of one run."""
        return out / f"{name}-{condition.replace(' ', '-')}-{seed}.json"

    def missing(self, out: Path, seeds: int) -> list[tuple[str, str, int]]:
        """Runs whose file is not there."""
        jobs = [
            (name, condition, seed)
            for seed in range(seeds)
            for name in self.environments
            for condition in self.conditions
        ]
        return [job for job in jobs if not self.path_of(out, *job).exists()]

    def work(self, out: Path, steps: int, job: tuple[str, str, int]) -> None:
        """One run in a process of its own."""
        words = ["--job", job[0], job[1], str(job[2]), "--steps", str(steps), "--out", str(out)]
        module = f"benchmarks.control.{self.name}"
        subprocess.run([sys.executable, "-m", module, *words], check=True)

    def summarise(self, out: Path) -> None:
        """Curves, intervals and the table, from the runs that are there."""
        table: dict[str, dict[str, object]] = {}
        for name in self.environments:
            curves, finals = {}, {}
            for condition in self.conditions:
                paths = sorted(out.glob(f"{name}-{condition.replace(' ', '-')}-[0-9]*.json"))
                runs = [json.loads(path.read_text()) for path in paths]
                if not runs:
                    continue
                length = min(len(one["curve"]["steps"]) for one in runs)
                values = [one["curve"]["true_return"][:length] for one in runs]
                if length:
                    steps = np.array(runs[0]["curve"]["steps"][:length])
                    curves[condition] = (steps, np.array(values))
                finals[condition] = np.array([np.mean(one["final_true_returns"]) for one in runs])
                interval = bootstrap_interval(finals[condition], np.random.default_rng(0))
                table.setdefault(f"prefgym/{name}-v0", {})[condition] = {
                    "iqm": float(interval.value),
                    "interval_95": [float(interval.low), float(interval.high)],
                    "seeds": [one["seed"] for one in runs],
                    "steps": sorted({one["steps"] for one in runs}),
                    "labels": sorted({one["labels"] for one in runs}),
                    "means_of_20_episodes": finals[condition].tolist(),
                    "commits": sorted({one["commit"] for one in runs}),
                }
            if curves:
                stem = out.parent / f"control_{self.name}_{name}"
                learning_curve(
                    stem.with_suffix(".png"), curves, "true return", f"{name}: {self.title}"
                )
                curves_csv(stem.with_suffix(".csv"), curves)
        content = {**provenance(f"benchmarks.control.{self.name}"), "results": table}
        target = out.parent / f"control_{self.name}.json"
        target.write_text(json.dumps(content, indent=2) + "\n")
        print(json.dumps(table, indent=2))
