"""An ant that is judged in a circle: how far it got, and whether its heading is a little ahead.

    python -m benchmarks.control.ant_cycle                    # 400,000 steps, then the picture
    python -m benchmarks.control.ant_cycle --steps 40000 --out runs/ant

SPO (PPO, segments of 50 steps, each against 10 of the newest 50) on Ant with the rater
``distance-and-sector``: of two ways the one that led farther is liked, and more so the one whose
heading lies within 45 degrees anticlockwise of the other's, so that no direction is best. Snapshots
are taken at equal intervals; each plays 16 fresh episodes. The picture shows where they went, and
how often the whole episodes of each snapshot are preferred to those of each. Under a circle later
snapshots need not beat all earlier ones.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.progress import Progress

import prefgym  # noqa: F401
from benchmarks.provenance import RESULTS, provenance, write_result
from prefgym.segments import Segments
from prefgym_agents.evaluation import played, win_rate_matrix
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.spo import SPO
from prefgym_agents.tuned import settings

ENV, RATER, SEGMENT = "prefgym/Ant-v0", "distance-and-sector", 50
VELOCITY, SECONDS = slice(13, 15), 0.05
"""Columns of the velocity in the plane, and how long a step takes."""


@dataclass(frozen=True)
class Settings:
    """What to run."""

    steps: int = 400_000
    """Environment steps."""
    snapshots: int = 6
    """Policies that are compared, at equal intervals."""
    episodes: int = 16
    """That each of them plays."""
    seed: int = 0
    """Of everything."""
    out: Path = RESULTS
    """Folder of the picture and the figures."""


def trained(asked: Settings) -> tuple[SPO, list[Any]]:
    """The learner, and its snapshots."""
    env = gym.make_vec(ENV, num_envs=8, rater=RATER, segment_steps=SEGMENT)
    backend = sb3_backend("PPO", env, seed=asked.seed, **settings("PPO", ENV))
    learner = SPO(backend, "segments", scale=SEGMENT, snapshots=0, seed=asked.seed)
    taken, every = [], asked.steps / asked.snapshots
    with Progress() as bar:
        task = bar.add_task("training", total=asked.steps)
        for steps, _ in learner.iterations(asked.steps):
            bar.update(task, completed=min(steps, asked.steps))
            if steps >= every * (len(taken) + 1):
                taken.append(backend.snapshot())
    return learner, taken


def paths(episodes: Segments) -> list[np.ndarray]:
    """Where each episode went, in metres from its start, ``[steps, 2]``."""
    seen = episodes.numpy()
    moved = np.cumsum(np.asarray(seen.observations)[..., VELOCITY], 1) * SECONDS
    return [one[:length] for one, length in zip(moved, seen.lengths, strict=True)]


def picture(
    path: Path, ways: list[list[np.ndarray]], matrix: np.ndarray, labels: list[str]
) -> None:
    """Ways of every snapshot, and the matrix of win rates."""
    columns = len(ways) // 2 + len(ways) % 2
    figure = Figure(figsize=(2.4 * columns + 4.4, 5.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=[2.4 * columns, 4.4])
    axes = left.subplots(2, columns, squeeze=False)
    reach = 1.1 * max(float(np.abs(one).max()) for some in ways for one in some)
    for place, label, some in zip(axes.ravel(), labels, ways, strict=False):
        for one in some:
            place.plot(*one.T, lw=0.8, alpha=0.8)
            place.plot(*one[-1], "o", ms=3, color="k")
        place.plot(0, 0, "+", ms=9, color="k")
        place.set_title(f"{label} steps", fontsize=9)
        place.set_xlim(-reach, reach)
        place.set_ylim(-reach, reach)
        place.set_aspect("equal")
    left.supxlabel("metres", fontsize=9)
    place = right.subplots()
    image = place.imshow(matrix, cmap="RdBu", vmin=0.0, vmax=1.0)
    for (row, column), value in np.ndenumerate(matrix):
        place.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8)
    place.set_xticks(range(len(labels)), labels, fontsize=8, rotation=45)
    place.set_yticks(range(len(labels)), labels, fontsize=8)
    place.set_title("how often the row is preferred to the column", fontsize=9)
    right.colorbar(image, ax=place, shrink=0.7)
    figure.savefig(path)


def main() -> None:
    """Train, play, compare, draw."""
    asked = tyro.cli(Settings)
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    learner, snapshots = trained(asked)
    groups = []
    for one in snapshots:
        learner.policy.load_snapshot(one)
        groups.append(played(learner, ENV, episodes=asked.episodes, seed=1_000_000 + asked.seed))
    matrix = win_rate_matrix(groups, learner.env.rater)
    labels = [f"{asked.steps * (k + 1) // len(groups) // 1000}k" for k in range(len(groups))]
    ways = [paths(one) for one in groups]
    picture(asked.out / "control_ant_cycle.png", ways, matrix, labels)
    far = [float(np.mean([np.hypot(*one[-1]) for one in some])) for some in ways]
    content = {
        **provenance("benchmarks.control.ant_cycle"),
        "steps": asked.steps,
        "seed": asked.seed,
        "comparisons": learner.env.elicitor.judged,
        "snapshots": labels,
        "win_rates": matrix.tolist(),
        "metres_from_start": far,
        "mean_steps": [float(one.lengths.mean()) for one in groups],
    }
    if asked.out == RESULTS:
        write_result("control_ant_cycle", content)
    print(f"metres: {np.round(far, 1).tolist()}")
    print(np.round(matrix, 2))


if __name__ == "__main__":
    main()
