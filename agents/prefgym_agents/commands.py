"""The commands of the command line; each takes its words and returns an exit status.

The dataclasses are the configuration of a run, on the command line and from Python alike.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
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
from prefgym.text import Layout
from prefgym.wrappers.inner import GAME, GROUPS, find_attribute
from prefgym_agents import configs, runs
from prefgym_agents.bench.command import models as bench_models
from prefgym_agents.critics import train_critic
from prefgym_agents.evaluation import RandomPolicy
from prefgym_agents.evaluation import evaluate as true_returns
from prefgym_agents.experts_command import run as train_experts
from prefgym_agents.learner import Learner
from prefgym_agents.tuned import writes_text

EVALUATION_SEED = 1_000_000
"""Fresh episodes: no training seed comes near it."""
START = "start"
"""Folder, within a run's, of the language model that it began with, if the run made it."""
RESULTS = ("learning_curve.png", "summary.json", "tb", "preferences", "annotations")
"""What people look for in a run's folder; a short run has no curve, and few are annotated."""


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
class Pretraining:
    """Train a new tiny language model to respond as a task's demonstrators do."""

    env: str
    """Id of the text environment."""
    out: Path
    """Folder of the model, in Hugging Face's format."""
    demonstrations: int = 4_096
    """Responses to learn from."""
    epochs: int = 3
    """Passes over them."""
    layers: int = 2
    """Of the model."""
    width: int = 64
    """Numbers in a hidden state of the model."""
    kind: str = "gpt2"
    """Of model: gpt2 or llama."""
    seed: int = 0
    """Of weights, demonstrations and their order."""
    threads: int = 1
    """Threads of torch."""


@dataclass(frozen=True)
class CriticTraining:
    """Train a critic on the true reward, so that a rater can judge by regret."""

    env: str
    """Id of an environment with continuous actions."""
    out: Path | None = None
    """File of the critic (safetensors); by default runs/critics/ENVIRONMENT.safetensors."""
    steps: int = 100_000
    """Environment steps."""
    seed: int = 0
    """Of everything."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the networks."""
    learning_rate: float | None = None
    """Of SAC; by default what suits the environment."""
    threads: int = 1
    """Threads of torch."""
    quiet: bool = False
    """Show no progress bar."""


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
    console.print("raters: " + ", ".join(sorted([*RATERS, GAME, GROUPS])), soft_wrap=True)
    return 0


def _factors(spec: EnvironmentSpec) -> str:
    """The named parts of an environment's reward, or what it cannot be made without."""
    if spec.needs:
        return f"(needs {', '.join(f'{name}=' for name in spec.needs)})"
    try:
        env = gym.make(spec.id)
    except ImportError:
        if spec.extra is None:
            raise
        return f"(needs the extra {spec.extra})"
    names: tuple[str, ...] = env.get_wrapper_attr("store").factor_names
    env.close()
    return ", ".join(names)


def train(words: list[str]) -> int:
    """`prefgym train LEARNER ...` and `prefgym train --resume RUN`."""
    if words and words[0].startswith("--resume"):
        asked = tyro.cli(Resume, args=words, prog="prefgym train")
        return _train(asked.resume, asked.quiet)
    if not words or words[0].startswith("-"):
        raise ValueError(
            f"prefgym train needs a learner ({', '.join(configs.KINDS)}) or --resume RUN; for"
            " example: prefgym train reward-learning --env prefgym/Pendulum-v0 --labels 200"
        )
    lookup(words[0], configs.KINDS, "learner")
    config = configs.lasting(_parsed(words[0], words[1:]))
    configs.build(config).close()  # what is wrong with the settings is said before a run begins
    folder = config.out or _new_folder(config)
    runs.create(folder, configs.plain(config))
    return _train(folder, config.quiet)


def evaluate(words: list[str]) -> int:
    """`prefgym eval RUN`."""
    asked = tyro.cli(Evaluation, args=words, prog="prefgym eval")
    config = _config(asked.run)
    found = runs.latest_checkpoint(asked.run)
    if found is None:
        raise runs.RunError(f"{asked.run} has no checkpoint yet; let it train a little first.")
    learner = configs.build(configs.unjudged(config))
    learner.load_policy(checkpoints.load(found)["state"])
    returns = true_returns(
        learner,
        config.env,
        episodes=asked.episodes,
        seed=asked.seed,
        deterministic=not asked.stochastic,
        **configs.environment_arguments(config),
    )
    print(
        f"{config.env}: mean true return {returns.mean():.1f} over {len(returns)} fresh episodes"
        f" (standard deviation {returns.std():.1f}, worst {returns.min():.1f}, best"
        f" {returns.max():.1f})"
    )
    return 0


def text(words: list[str]) -> int:
    """`prefgym text pretrain --env ID --out DIR`."""
    if not words or words[0] != "pretrain":
        raise ValueError("prefgym text needs a verb: pretrain --env ID --out DIR.")
    asked = tyro.cli(Pretraining, args=words[1:], prog="prefgym text pretrain")
    lookup(asked.env, ENVIRONMENTS, "environment")
    if asked.out.exists() and (not asked.out.is_dir() or any(asked.out.iterdir())):
        raise ValueError(f"{asked.out} is not empty; choose another folder with --out.")
    for name, least in (("demonstrations", 2), ("epochs", 1), ("layers", 1), ("width", 4)):
        if getattr(asked, name) < least:
            raise ValueError(f"{name}={getattr(asked, name)}; wanted at least {least}.")
    if asked.width % 4:
        raise ValueError(f"width={asked.width}; wanted a multiple of the 4 heads.")
    torch.set_num_threads(asked.threads)
    _pretrain(asked, Console(soft_wrap=True))
    return 0


def oracle(words: list[str]) -> int:
    """`prefgym oracle train --env ID`."""
    if not words or words[0] != "train":
        raise ValueError("prefgym oracle needs a verb: train --env ID.")
    asked = tyro.cli(CriticTraining, args=words[1:], prog="prefgym oracle train")
    lookup(asked.env, ENVIRONMENTS, "environment")
    out = asked.out or Path("runs") / "critics" / f"{_task(asked.env)}.safetensors"
    if out.exists():
        raise ValueError(f"{out} is there already; choose another file with --out.")
    torch.set_num_threads(asked.threads)
    rate = {} if asked.learning_rate is None else {"learning_rate": asked.learning_rate}
    critic = train_critic(
        asked.env,
        steps=asked.steps,
        seed=asked.seed,
        hidden=asked.hidden,
        progress_bar=not asked.quiet,
        **rate,
    )
    critic.save(out)
    print(
        f"critic: {out} ({out.stat().st_size / 1000:.0f} kB); its policy's mean true return is"
        f" {critic.about['mean_return']} (standard deviation {critic.about['return_std']}) over"
        f" {critic.about['episodes']} fresh episodes"
    )
    print(
        f"use it: prefgym train reward-learning --env {asked.env} --rater regret --env-args"
        f" value_source {out}"
    )
    print(f'or: gymnasium.make("{asked.env}", rater="regret", value_source="{out}")')
    return 0


def experts(words: list[str]) -> int:
    """`prefgym experts train --env ID`."""
    return train_experts(words)


def bench(words: list[str]) -> int:
    """`prefgym bench models`."""
    if not words or words[0] != "models":
        raise ValueError("prefgym bench needs what to compare: models [--quick] [--out DIR].")
    return bench_models(words[1:])


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
    layout = _layout(asked.source.resolve().parent)
    print(summary(convert(asked.source, asked.target, asked.format, asked.meaning, layout)))
    return 0


def _layout(folder: Path) -> Layout | None:
    """That of the text environment of a run; None where the folder is no run on text."""
    if not (folder / "config.json").exists():
        return None
    config = _config(folder)
    env = gym.make_vec(config.env, num_envs=1, **configs.environment_arguments(config))
    found: Layout | None = find_attribute(env, "layout")
    env.close()
    return found


def _train(folder: Path, quiet: bool) -> int:
    config = _config(folder)
    console = Console(quiet=quiet, soft_wrap=True)
    if config.language_model == folder / START and not (folder / START).exists():
        asked = Pretraining(config.env, folder / START, seed=config.seed)
        _pretrain(asked, console, **configs.environment_arguments(config))
    learner = configs.build(config, folder / "preferences")
    try:
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
    finally:
        learner.close()
    checkpoints.write_json(folder / "summary.json", summary)
    console.print(
        f"true return {summary['true_return']:.1f} over {summary['episodes']} fresh episodes"
        f" (random actions: {summary['random_return']:.1f}), from {summary['labels']} labels and"
        f" {summary['steps']:,} steps"
    )
    there = [one for one in RESULTS if (folder / one).exists()]
    console.print(f"run: {folder} ({', '.join(there)})")
    return 0


def _pretrain(asked: Pretraining, console: Console, **env_kwargs: Any) -> None:
    """Write a model of a text task; all or nothing, so that a killed run begins it anew."""
    from prefgym_agents.language.models import causal_model, save, tiny_config  # needs an extra
    from prefgym_agents.language.pretraining import PretrainingConfig, pretrain

    env = gym.make_vec(asked.env, num_envs=1, **env_kwargs)
    layout, task = (find_attribute(env, name) for name in ("layout", "task"))
    env.close()
    if layout is None:
        raise ValueError(
            f"{asked.env} writes no text, so no language model is made for it; choose one of"
            f" {', '.join(o.id for o in ENVIRONMENTS.values() if 'Text' in o.id and not o.needs)}."
        )
    config = tiny_config(layout, asked.kind, layers=asked.layers, width=asked.width)
    model = causal_model(config, layout, seed=asked.seed)
    shown = task.demonstrations(asked.demonstrations, np.random.default_rng(asked.seed))
    console.print(
        f"pretraining a {asked.kind} of {model.num_parameters():,} parameters on"
        f" {len(shown):,} demonstrations of {asked.env}"
    )
    told = pretrain(model, layout, shown, PretrainingConfig(epochs=asked.epochs, seed=asked.seed))[
        -1
    ]
    partial = asked.out.with_name(f"{asked.out.name}.partial")
    save(model, layout.codec, partial)
    partial.rename(asked.out)
    measured = "held_out_loss" if "pretrain/held_out_loss" in told else "loss"
    console.print(
        f"model: {asked.out} ({measured.replace('_', ' ')} {told[f'pretrain/{measured}']:.3f} nats"
        " per token)"
    )


def _summary(config: configs.Run, learner: Learner) -> dict[str, Any]:
    asked = {"seed": EVALUATION_SEED, **configs.environment_arguments(config)}
    returns = true_returns(learner, config.env, **asked)
    actions = learner.env.single_action_space
    floor = true_returns(RandomPolicy(actions), config.env, **asked)
    return {
        "env": config.env,
        "rater": _who_answers(config, learner),
        "seed": config.seed,
        "steps": learner.num_timesteps,
        "labels": getattr(learner, "labels", learner.env.elicitor.labels_given),
        "episodes": len(returns),
        "true_return": float(np.mean(returns)),
        "true_return_std": float(np.std(returns)),
        "random_return": float(np.mean(floor)),
        "prefgym": prefgym.__version__,
        **learner.clock.metrics(),
    }


def _who_answers(config: configs.Run, learner: Learner) -> str:
    if isinstance(config, configs.IntrinsicRun):
        return config.judge
    return config.rater or str(learner.env.preferences.meaning)


def _parsed(name: str, words: list[str]) -> configs.Run:
    """The preset named in the words sets the defaults of all others, then the preference model."""
    kind = configs.KINDS[name]
    words = configs.joined(words, "--factors")
    default: Any = kind.run()
    preset, model, population = (
        _last(words, option) for option in ("--preset", "--model", "--population")
    )
    if preset:
        default = replace(default, learner=lookup(preset, kind.presets, "preset"))
    if model and isinstance(default, configs.RewardLearningRun):
        people = int(population) if population.isdecimal() else default.learner.population
        known = replace(default.learner, model=model, population=people)
        default = replace(default, learner=known)
    config: configs.Run = tyro.cli(
        kind.run, args=words, prog=f"prefgym train {name}", default=default
    )
    return config


def _last(words: list[str], option: str) -> str:
    """The value that an option was given last, as `--option value` or `--option=value`; or ""."""
    following = pairwise([*words, ""])
    given = [w.partition("=")[2] or n for w, n in following if w.partition("=")[0] == option]
    return given[-1] if given else ""


def _config(folder: Path) -> configs.Run:
    """What a run was asked to be; a model that it made itself is found wherever the folder is."""
    config = configs.restored(runs.read_config(folder))
    if config.language_model is None and writes_text(config.env):
        return replace(config, language_model=folder / START)
    return config


def _new_folder(config: configs.Run) -> Path:
    stem = f"{_task(config.env)}-{configs.kind_of(config)}-{config.seed}"
    taken = 1
    while (folder := Path("runs") / (stem if taken == 1 else f"{stem}-{taken}")).exists():
        taken += 1
    return folder


def _task(env_id: str) -> str:
    return env_id.partition("/")[2].removesuffix("-v0")
