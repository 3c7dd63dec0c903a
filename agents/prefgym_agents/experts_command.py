"""`prefgym experts train`: graded experts and a reference critic of one task, as files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.progress import Progress

from prefgym.interventions.stored import CRITIC, SUFFIX, GradedExpert, load_experts, save_experts
from prefgym.registration import ENVIRONMENTS
from prefgym_agents import experts
from prefgym_agents.expert_training import check, train_checkpoints

TRAINING = ".training"
"""Between the name of a task and the ending of the file of its checkpoints."""


@dataclass(frozen=True)
class ExpertTraining:
    """Train one agent on the true reward; make experts of several grades, and a critic, of it."""

    env: str
    """Id of an environment with bounded continuous actions."""
    grades: str = "110,70,40,20"
    """Percentages of a good agent's performance."""
    out: Path | None = None
    """Folder of the files; by default runs/experts/ENVIRONMENT."""
    steps: int = 3_000_000
    """Environment steps of the training."""
    seed: int = 0
    """Of everything."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the policy."""
    updates: int = 30_000
    """Of the reference critic."""
    threads: int = 1
    """Threads of torch."""
    quiet: bool = False
    """Show no progress bar."""


def run(words: Sequence[str]) -> int:
    """`prefgym experts train --env ID`; returns the exit status.

    Raises:
        ValueError: it cannot be done, or the files are there already.
    """
    if not words or words[0] != "train":
        raise ValueError("prefgym experts needs a verb: train --env ID [--grades 110,70,40,20].")
    asked = tyro.cli(ExpertTraining, args=list(words[1:]), prog="prefgym experts train")
    grades = _numbers(asked.grades)
    experts.check_grades(grades)
    check(asked.env, asked.steps, asked.hidden)
    if asked.updates < 1:
        raise ValueError(f"updates={asked.updates}; wanted one or more.")
    name = ENVIRONMENTS[asked.env].name
    folder = asked.out or Path("runs") / "experts" / name
    files = {kind: folder / f"{name}{kind}{SUFFIX}" for kind in ("", CRITIC, TRAINING)}
    if files[""].exists() and files[CRITIC].exists():
        raise ValueError(f"{files['']} is there already; choose another folder with --out.")
    torch.set_num_threads(asked.threads)
    try:
        made = _make(asked, grades, files)
    except KeyboardInterrupt:
        print("stopped; the same command goes on after what is finished")
        return 130
    _tell(asked, made, files)
    return 0


def _make(
    asked: ExpertTraining, grades: list[float], files: dict[str, Path]
) -> tuple[GradedExpert, ...]:
    with Progress(disable=asked.quiet, transient=True) as bar:
        task = bar.add_task("training", total=1.0)

        def tell(what: str, share: float) -> None:
            bar.update(task, description=what, completed=share)

        trained = train_checkpoints(
            asked.env,
            asked.steps,
            seed=asked.seed,
            hidden=asked.hidden,
            file=files[TRAINING],
            tell=tell,
        )
        if not files[""].exists():
            found = experts.graded(asked.env, trained, grades, asked.seed, tell)
            save_experts(files[""], found)
        made = load_experts(files[""])
        told = [one.about["asked"] for one in made]
        if told != sorted(grades, reverse=True):
            shown = ", ".join(f"{one:g}" for one in told)
            raise ValueError(
                f"{files['']} holds the grades {shown}; choose another folder with --out."
            )
        critic = experts.reference(
            asked.env, made, trained, seed=asked.seed, updates=asked.updates, tell=tell
        )
        critic.save(files[CRITIC])
    return made


def _tell(asked: ExpertTraining, made: Sequence[GradedExpert], files: dict[str, Path]) -> None:
    from prefgym.values import Critic

    best = max(made, key=lambda one: one.grade)
    told = best.about
    print(f"grade 100 is a return of {told['good']} ({told['good_is']}), 0 is {told['random']}")
    for one in made:
        about = one.about
        beyond = about["asked"] > best.about["grade"] + experts.CLOSE and one.share == 0.0
        print(
            f"asked {about['asked']:g}: grade {about['grade']} ± {about['grade_error']} (true"
            f" return {about['mean_return']} over {about['episodes']} fresh episodes; checkpoint of"
            f" {about['checkpoint']:,} steps, {one.share:.1%} of its states with random actions)"
            + ("; nothing better was reached" if beyond else "")
        )
    about = Critic.load(files[CRITIC]).about
    print(
        f"critic: {files[CRITIC]}; it takes the expert's action for better than a random one in"
        f" {about['better_than_random']:.0%} of held-out states, than a noisy one in"
        f" {about['better_than_noisy']:.0%}"
    )
    print(f'use them: prefgym.interventions.load_expert("{files[""]}", grade={told["asked"]:g})')


def _numbers(text: str) -> list[float]:
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--grades {text}: wanted numbers with commas between them, such as 110,70,40,20."
        ) from None
