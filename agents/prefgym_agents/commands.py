"""The commands of the command line; each takes its words and returns an exit status.

The dataclasses are the configuration of a run, on the command line and from Python alike.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

import prefgym
from prefgym import checkpoints
from prefgym.converters import READERS, WRITERS, convert, inspect, summary
from prefgym.names import lookup
from prefgym.raters import RATERS
from prefgym.registration import ENVIRONMENTS, EnvironmentSpec
from prefgym_agents import runs
from prefgym_agents.evaluation import RandomPolicy
from prefgym_agents.evaluation import evaluate as true_returns
from prefgym_agents.learner import Learner
from prefgym_agents.reward_learning import PRESETS, Config, RewardLearning
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.tuned import settings

EVALUATION_SEED = 1_000_000
"""Fresh episodes: no training seed comes near it."""


@dataclass(frozen=True)
class RewardLearningRun:
    """Learn a reward from preferences and a policy from that reward."""

    env: str = "prefgym/Pendulum-v0"
    """Id of the environment (see `prefgym envs`)."""
    rater: str = "partial-return"
    """Who answers (see `prefgym envs`)."""
    rater_args: dict[str, float] = field(default_factory=dict)
    """Arguments of the rater, as in `--rater-args beta 0.5 mistake 0.1`."""
    labels: int | None = None
    """Comparisons that may be asked in all; the preset's number by default."""
    steps: int = 100_000
    """Environment steps, over all lanes."""
    preset: str = "default"
    """Settings of the learner: default, pebble, pref_ppo or christiano2017."""
    algorithm: str = "PPO"
    """Stable-Baselines3 algorithm that improves the policy."""
    envs: int = 8
    """Environments side by side."""
    segment_steps: int | None = None
    """Length of the segments that are compared; the environment's own by default."""
    seed: int = 0
    """Of everything."""
    threads: int = 1
    """Threads of torch; more rarely help networks of this size."""
    out: Path | None = None
    """Folder of the run; by default a new one below runs/."""
    checkpoint_every: int = 20_000
    """Steps between checkpoints."""
    quiet: bool = False
    """Show no progress bar."""
    learner: Config = field(default_factory=Config)
    """Single settings that differ from the preset."""


@dataclass(frozen=True)
class Resume:
    """Go on with a run that was stopped or killed."""

    resume: Path
    """Folder of the run."""
    quiet: bool = False
    """Show no progress bar."""


@dataclass(frozen=True)
class Evaluation:
    """True returns of a trained agent in fresh episodes."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    episodes: int = 20
    """How many, played side by side."""
    seed: int = EVALUATION_SEED
    """Of the environment."""
    stochastic: bool = False
    """Draw actions instead of taking the most likely ones."""


@dataclass(frozen=True)
class Inspection:
    """Say what a data set of preferences holds."""

    directory: Annotated[Path, tyro.conf.Positional]
    """Folder of the data set (a run keeps its own in `preferences/`)."""


@dataclass(frozen=True)
class Conversion:
    """Bring preferences from, or take them to, another library's format."""

    source: Annotated[Path, tyro.conf.Positional]
    """File or folder to read."""
    target: Annotated[Path, tyro.conf.Positional]
    """File or folder to write."""
    format: str
    """Of the side that is not ours: trl, trl-messages, kto, imitation, cpl or delivery."""
    meaning: str | None = None
    """What labels from elsewhere mean; by default what the format says."""


def environments(words: list[str]) -> int:
    """`prefgym envs`."""
    if words:
        raise ValueError(f"prefgym envs takes no arguments, got {' '.join(words)}.")
    console = Console()
    table = Table(title="environments (gymnasium.make or make_vec)")
    for name in ("id", "steps", "segment", "default rater", "factors"):
        table.add_column(name, overflow="fold")
    for one in ENVIRONMENTS.values():
        limit, steps = str(one.max_episode_steps or "-"), str(one.segment_steps)
        table.add_row(one.id, limit, steps, one.rater or "-", _factors(one))
    console.print(table)
    console.print("raters: " + ", ".join(sorted(RATERS)), soft_wrap=True)
    return 0


def _factors(spec: EnvironmentSpec) -> str:
    """The named parts of an environment's reward, or what it cannot be made without."""
    if spec.needs:
        return f"(needs {', '.join(f'{name}=' for name in spec.needs)})"
    env = gym.make(spec.id)
    names: tuple[str, ...] = env.get_wrapper_attr("store").factor_names
    env.close()
    return ", ".join(names)


def train(words: list[str]) -> int:
    """`prefgym train LEARNER ...` and `prefgym train --resume RUN`."""
    if words and words[0].startswith("--resume"):
        asked = tyro.cli(Resume, args=words, prog="prefgym train")
        return _train(asked.resume, asked.quiet)
    learners = {"reward-learning": _parse_reward_learning}
    if not words or words[0].startswith("-"):
        raise ValueError(
            f"prefgym train needs a learner ({', '.join(learners)}) or --resume RUN; for example:"
            " prefgym train reward-learning --env prefgym/Pendulum-v0 --labels 200"
        )
    config = lookup(words[0], learners, "learner")(words[1:])
    build(config).env.close()  # whatever is wrong with the settings is said before a run begins
    folder = config.out or _new_folder(config)
    runs.create(folder, {"learner_name": words[0], **_plain(config)})
    return _train(folder, config.quiet)


def evaluate(words: list[str]) -> int:
    """`prefgym eval RUN`."""
    asked = tyro.cli(Evaluation, args=words, prog="prefgym eval")
    config = _config(asked.run)
    found = runs.latest_checkpoint(asked.run)
    if found is None:
        raise runs.RunError(f"{asked.run} has no checkpoint yet; let it train a little first.")
    learner = build(config)
    learner.policy.load_snapshot(checkpoints.load(found)["state"]["policy"]["parameters"]["policy"])
    returns = true_returns(
        learner,
        config.env,
        episodes=asked.episodes,
        seed=asked.seed,
        deterministic=not asked.stochastic,
    )
    print(
        f"{config.env}: mean true return {returns.mean():.1f} over {len(returns)} fresh episodes"
        f" (standard deviation {returns.std():.1f}, worst {returns.min():.1f}, best"
        f" {returns.max():.1f})"
    )
    return 0


def data(words: list[str]) -> int:
    """`prefgym data inspect DIR` and `prefgym data convert SOURCE TARGET`."""
    if not words or words[0] not in ("inspect", "convert"):
        raise ValueError("prefgym data needs a verb: inspect DIR, or convert SOURCE TARGET.")
    prog = f"prefgym data {words[0]}"
    if words[0] == "inspect":
        print(summary(inspect(tyro.cli(Inspection, args=words[1:], prog=prog).directory)))
        return 0
    asked = tyro.cli(Conversion, args=words[1:], prog=prog)
    lookup(asked.format, {**READERS, **WRITERS}, "format")
    print(summary(convert(asked.source, asked.target, asked.format, asked.meaning)))
    return 0


def build(config: RewardLearningRun, directory: Path | None = None) -> RewardLearning:
    """The learner that a configuration describes, with its environment and backend.

    Args:
        config: what is wanted.
        directory: where answers are kept; None keeps them in memory.
    """
    lookup(config.env, ENVIRONMENTS, "environment")
    torch.set_num_threads(config.threads)
    labels = config.learner.labels if config.labels is None else config.labels
    arguments: dict[str, Any] = {"rater": config.rater, "rater_kwargs": config.rater_args}
    if config.segment_steps is not None:
        arguments["segment_steps"] = config.segment_steps
    env = gym.make_vec(
        config.env, num_envs=config.envs, budget=labels, directory=directory, **arguments
    )
    backend = sb3_backend(
        config.algorithm, env, seed=config.seed, **settings(config.algorithm, config.env)
    )
    return RewardLearning(backend, replace(config.learner, labels=labels, seed=config.seed))


def _train(folder: Path, quiet: bool) -> int:
    config = _config(folder)
    console = Console(quiet=quiet)
    learner = build(config, folder / "preferences")
    finished = runs.train(
        folder,
        learner,
        config.steps,
        checkpoint_every=config.checkpoint_every,
        quiet=quiet,
    )
    console.print(runs.time_budget(learner))
    if not finished:
        console.print(f"stopped and saved; go on with: prefgym train --resume {folder}")
        return 130
    summary = _summary(config, learner)
    checkpoints.write_json(folder / "summary.json", summary)
    console.print(
        f"true return {summary['true_return']:.1f} over {summary['episodes']} fresh episodes"
        f" (random actions: {summary['random_return']:.1f}), from {summary['labels']} labels and"
        f" {summary['steps']:,} steps"
    )
    console.print(f"run: {folder} (learning_curve.png, summary.json, tb/, preferences/)")
    return 0


def _summary(config: RewardLearningRun, learner: Learner) -> dict[str, Any]:
    returns = true_returns(learner, config.env, seed=EVALUATION_SEED)
    actions = learner.env.single_action_space
    floor = true_returns(RandomPolicy(actions), config.env, seed=EVALUATION_SEED)
    return {
        "env": config.env,
        "rater": config.rater,
        "seed": config.seed,
        "steps": learner.policy.num_timesteps,
        "labels": len(learner.env.preferences),
        "episodes": len(returns),
        "true_return": float(np.mean(returns)),
        "true_return_std": float(np.std(returns)),
        "random_return": float(np.mean(floor)),
        "prefgym": prefgym.__version__,
        **learner.clock.metrics(),
    }


def _parse_reward_learning(words: list[str]) -> RewardLearningRun:
    """The preset named in the words sets the defaults of all others."""
    named = [w.partition("=")[2] or n for w, n in zip(words, [*words[1:], ""], strict=True)
             if w.partition("=")[0] == "--preset"]  # fmt: skip
    preset = lookup(named[-1], PRESETS, "preset") if named else Config()
    return tyro.cli(
        RewardLearningRun,
        args=words,
        prog="prefgym train reward-learning",
        default=RewardLearningRun(learner=preset),
    )


def _plain(config: RewardLearningRun) -> dict[str, Any]:
    """As JSON knows it."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return plain


def _config(folder: Path) -> RewardLearningRun:
    saved = dict(runs.read_config(folder))
    saved.pop("learner_name", None)
    return _restored(saved)


def _restored(saved: Mapping[str, Any]) -> RewardLearningRun:
    try:
        learner = {**saved["learner"], "hidden": tuple(saved["learner"]["hidden"])}
        out = None if saved["out"] is None else Path(saved["out"])
        return RewardLearningRun(**{**saved, "learner": Config(**learner), "out": out})
    except (KeyError, TypeError) as error:
        raise runs.RunError(
            f"The run's config.json does not fit this version of prefgym ({error}); resume it with"
            " the version that started it."
        ) from error


def _new_folder(config: RewardLearningRun) -> Path:
    task = config.env.partition("/")[2].removesuffix("-v0")
    stem = f"{task}-reward-learning-{config.seed}"
    taken = 1
    while (folder := Path("runs") / (stem if taken == 1 else f"{stem}-{taken}")).exists():
        taken += 1
    return folder
