"""HalfCheetah and Hopper: the true reward, rewards learned from 500 and 2,000 labels, and a coin.

    python -m benchmarks.control.reward_learning            # whatever is missing, then the plots
    python -m benchmarks.control.reward_learning --seeds 1 --steps 20000 --out runs/try

PPO in all conditions, with the same settings and seeds. Every run is a file of its own under
``benchmarks/results/control_reward_learning/``; runs that are there are not made again, so that
the command can be stopped and repeated. Then one CSV, one JSON and one PNG per environment.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.progress import Progress

from benchmarks.provenance import RESULTS, commit, provenance
from prefgym.statistics import bootstrap_interval
from prefgym_agents.plots import curves_csv, learning_curve

ENVIRONMENTS = ("HalfCheetah", "Hopper")
CONDITIONS = ("true reward", "2000 labels", "500 labels", "random rater")
LABELS = {"2000 labels": 2_000, "500 labels": 500, "random rater": 500}
REWARD_MODEL = {
    "hidden": (64, 64), "learning_rate": 1e-3, "batch_pairs": 64, "epochs": 20, "fit_steps": 1,
}  # fmt: skip
"""Settings of the reward model, fixed here so that a change of the defaults leaves curves whole."""
FOLDER = RESULTS / "control_reward_learning"


@dataclass(frozen=True)
class Settings:
    """What to run."""

    steps: int = 300_000
    """Environment steps of each run."""
    seeds: int = 5
    """Seeds 0, 1, ... of each condition."""
    workers: int = 2
    """Runs side by side."""
    out: Path = FOLDER
    """Where the runs are kept."""
    job: tuple[str, str, int] | None = None
    """One run only: environment, condition, seed (what the workers are started with)."""


def run(name: str, condition: str, seed: int, steps: int) -> dict[str, object]:
    """Train once; returns the curve and the true returns of 20 fresh episodes."""
    import gymnasium as gym
    import torch

    import prefgym  # noqa: F401
    from prefgym_agents.evaluation import evaluate
    from prefgym_agents.oracle import TrueReward
    from prefgym_agents.reward_learning import RewardLearning
    from prefgym_agents.sb3 import sb3_backend
    from prefgym_agents.tuned import settings

    torch.set_num_threads(1)
    env_id = f"prefgym/{name}-v0"
    labels = LABELS.get(condition)
    rater = "random" if condition == "random rater" else "partial-return"
    env = gym.make_vec(env_id, num_envs=8, rater=rater, budget=labels)
    backend = sb3_backend("PPO", env, seed=seed, **settings("PPO", env_id))
    learner = (
        TrueReward(backend)
        if labels is None
        else RewardLearning(
            backend, labels=labels, sessions=max(10, labels // 100), seed=seed, **REWARD_MODEL
        )
    )
    begun = time.perf_counter()
    curve = [
        (step, metrics["rollout/ep_rew_mean"], metrics.get("reward_model/true_return_corr"))
        for step, metrics in learner.iterations(steps)
        if "rollout/ep_rew_mean" in metrics
    ]
    returns = evaluate(learner, env_id, episodes=20, seed=1_000_000 + seed)
    return {
        "environment": env_id,
        "condition": condition,
        "seed": seed,
        "steps": steps,
        "labels": 0 if labels is None else len(env.preferences),
        "commit": commit(),
        "wall_s": round(time.perf_counter() - begun, 1),
        "time": learner.clock.seconds,
        "curve": {
            "steps": [one[0] for one in curve],
            "true_return": [one[1] for one in curve],
            "reward_correlation": [one[2] for one in curve],
        },
        "final_true_returns": returns.tolist(),
    }


def path_of(settings: Settings, name: str, condition: str, seed: int) -> Path:
    """The file of one run."""
    return settings.out / f"{name}-{condition.replace(' ', '-')}-{seed}.json"


def missing(settings: Settings) -> list[tuple[str, str, int]]:
    """Runs whose file is not there; seeds in the outer loop, so that early stops are balanced."""
    jobs = [
        (name, condition, seed)
        for seed in range(settings.seeds)
        for name in ENVIRONMENTS
        for condition in CONDITIONS
    ]
    return [job for job in jobs if not path_of(settings, *job).exists()]


def work(settings: Settings, job: tuple[str, str, int]) -> None:
    """One run in a process of its own."""
    words = ["--job", job[0], job[1], str(job[2])]
    words += ["--steps", str(settings.steps), "--out", str(settings.out)]
    module = "benchmarks.control.reward_learning"
    subprocess.run([sys.executable, "-m", module, *words], check=True)


def summarise(settings: Settings) -> None:
    """Curves, intervals and the table, from the runs that are there."""
    table: dict[str, dict[str, object]] = {}
    for name in ENVIRONMENTS:
        curves, finals = {}, {}
        for condition in CONDITIONS:
            paths = sorted(settings.out.glob(f"{name}-{condition.replace(' ', '-')}-*.json"))
            runs = [json.loads(path.read_text()) for path in paths]
            if not runs:
                continue
            length = min(len(one["curve"]["steps"]) for one in runs)
            values = [one["curve"]["true_return"][:length] for one in runs]
            curves[condition] = (np.array(runs[0]["curve"]["steps"][:length]), np.array(values))
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
            stem = settings.out.parent / f"control_reward_learning_{name}"
            title = f"{name}: PPO on rewards learned from preferences"
            learning_curve(stem.with_suffix(".png"), curves, "true return", title)
            curves_csv(stem.with_suffix(".csv"), curves)
    content = {**provenance("benchmarks.control.reward_learning"), "results": table}
    target = settings.out.parent / "control_reward_learning.json"
    target.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(table, indent=2))


def main() -> None:
    """Make the missing runs, then the pictures and the table."""
    settings = tyro.cli(Settings)
    settings.out.mkdir(parents=True, exist_ok=True)
    if settings.job is not None:
        result = run(*settings.job, settings.steps)
        path_of(settings, *settings.job).write_text(json.dumps(result) + "\n")
        return
    jobs = missing(settings)
    with Progress() as bar, ThreadPoolExecutor(settings.workers) as pool:
        task = bar.add_task("runs", total=len(jobs))
        for done in as_completed([pool.submit(work, settings, job) for job in jobs]):
            done.result()
            bar.advance(task)
    summarise(settings)


if __name__ == "__main__":
    main()
