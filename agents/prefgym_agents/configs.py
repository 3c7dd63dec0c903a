"""What a run is asked to be: dataclasses, the same on the command line and from Python.

A configuration is written to the run's folder as plain JSON and read back from it, so that a run
can be gone on with by its folder alone.
"""

import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from prefgym.annotation import Annotator, Inline
from prefgym.comparisons import PreferenceDataset
from prefgym.interventions import Random, Supervision
from prefgym.interventions.supervision import Judged
from prefgym.names import lookup
from prefgym.registration import ENVIRONMENTS
from prefgym_agents import direct, heron, imitation, intrinsic, reward_learning, rlif, spo
from prefgym_agents.annotators import annotator_of
from prefgym_agents.backends import make_backend
from prefgym_agents.judges import named
from prefgym_agents.learner import Learner
from prefgym_agents.runs import RunError
from prefgym_agents.supervisors import Supervisor, expert_of, supervision_of
from prefgym_agents.tuned import MINIGRID, environment_settings, writes_text

HIERARCHY = "heron"
"""The rater that compares factors."""


@dataclass(frozen=True)
class Run:
    """What all learners' runs have in common."""

    env: str = "prefgym/Pendulum-v0"
    """Id of the environment (see `prefgym envs`)."""
    rater: str | None = None
    """Who answers (see `prefgym envs`); the environment's own by default."""
    rater_args: dict[str, str] = field(default_factory=dict)
    """Arguments of the rater, as in `--rater-args beta 0.5 shares [0.8,0.2] rule person`."""
    factors: str | None = None
    """For `--rater heron`: the factors that matter, the most important first, with a minus where
    less is better, as in `--factors "-angle2,-speed2,-torque2"`; see `prefgym envs`."""
    margins: tuple[float, ...] = ()
    """For `--rater heron`: by how many standard deviations two must differ; one number for all
    factors, or one for each."""
    env_args: dict[str, str] = field(default_factory=dict)
    """Arguments of the environment, as in `--env-args personal 2`."""
    labels: int | None = None
    """Comparisons that may be asked in all; the preset's number by default."""
    steps: int = 100_000
    """Environment steps (tokens, where text is written), over all lanes."""
    preset: str | None = None
    """Named settings of the learner."""
    algorithm: str | None = None
    """What improves the policy: PPO, SAC, ... of Stable-Baselines3 (PPO by default); GRPO, PPO,
    RLOO or P3O where text is written (GRPO by default)."""
    language_model: Path | None = None
    """Folder of a language model, where text is written; by default a tiny one is pretrained first,
    as `prefgym text pretrain` does."""
    device: str = "cpu"
    """Where networks are: cpu, or cuda for large ones."""
    envs: int | None = None
    """Environments side by side; by default 8, and 64 where text is written."""
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


@dataclass(frozen=True)
class RewardLearningRun(Run):
    """Learn a reward from preferences and a policy from that reward."""

    model: str | None = None
    """Which preference model: bt, ties, gpm, pal, vpl, maxmin, micro, ...; the preset's (bt) by
    default."""
    population: int | None = None
    """Raters that the preference model tells apart; the preset's number (1) by default."""
    data: Path | None = None
    """Folder of comparisons to learn from beside those that are asked, or, with --labels 0, instead
    of them (`prefgym data inspect` says what it holds); --learner.curate gold trusts them."""
    learner: reward_learning.Config = field(default_factory=reward_learning.Config)
    """Single settings that differ from the preset (default, pebble, pref_ppo, christiano2017)."""


@dataclass(frozen=True)
class HeronRun(Run):
    """Learn a reward from an order of factors, and a policy from that reward."""

    rater: str | None = HIERARCHY
    """Who compares: heron, a hierarchy of factors."""
    segment_steps: int | None = None
    """Length of the segments that are compared; 1 by default, whole responses where text is
    written."""
    learner: reward_learning.Config = field(default_factory=lambda: heron.PRESETS["default"])
    """Single settings that differ from the preset (default, paper)."""


@dataclass(frozen=True)
class DirectRun(Run):
    """Learn a policy from preferences without a reward: DPO and its kin, and CPL."""

    data: Path | None = None
    """Folder of comparisons to learn from instead of asking; --steps then counts gradient steps."""
    learner: direct.Config = field(default_factory=lambda: direct.PRESETS["dpo"])
    """Single settings that differ from the preset (dpo, ipo, kto, simpo, rpo, cpl, ...)."""


@dataclass(frozen=True)
class SPORun(Run):
    """Self-play: what a trajectory earns is how often it is preferred to recent ones."""

    learner: spo.Config = field(default_factory=spo.Config)
    """Single settings that differ from the preset (default, group, segments)."""


@dataclass(frozen=True)
class SupervisedRun(Run):
    """A run that somebody watches."""

    supervisor: Supervisor = field(default_factory=Supervisor)
    """Who may take over, and when."""


@dataclass(frozen=True)
class RLIFRun(SupervisedRun):
    """Learn from takeovers alone: what made somebody take over was wrong."""

    algorithm: str | None = None
    """What improves the policy: RLPD, SAC, ... (RLPD by default; DQN where actions are discrete);
    RLOO, GRPO or PPO where text is written (RLOO by default)."""
    learner: rlif.Config = field(default_factory=rlif.Config)
    """Single settings that differ from the preset (default)."""


@dataclass(frozen=True)
class ImitationRun(SupervisedRun):
    """Imitate an expert: behaviour cloning, DAgger and HG-DAgger; --labels bounds its actions."""

    learner: imitation.Config = field(default_factory=lambda: imitation.PRESETS["bc"])
    """Single settings that differ from the preset (bc, dagger, hg_dagger, ...)."""


@dataclass(frozen=True)
class IntrinsicRun(Run):
    """Learn from the task's reward and from what a judge says of captions: ONI and Motif."""

    env: str = "prefgym/DoorKey-8x8-v0"
    """Id of an environment that tells captions: MiniGrid, or text that has phrases."""
    judge: str = "rules"
    """Who judges captions: rules (words of the goal and what leads to it), openai:URL or
    openai:MODEL@URL (any OpenAI-compatible endpoint; the key is read from OPENAI_API_KEY; a run
    remembers the model), or path:FOLDER (a language model of this machine)."""
    goal: str = ""
    """What captions are judged by, in words, as in --goal "open the door"."""
    learner: intrinsic.Config = field(default_factory=intrinsic.Config)
    """Single settings that differ from the preset (retrieval, classification, ranking, motif)."""


@dataclass(frozen=True)
class Kind:
    """A learner as the command line knows it."""

    run: type[Run]
    presets: Mapping[str, Any]
    make: Callable[..., Learner]


KINDS: dict[str, Kind] = {
    "reward-learning": Kind(
        RewardLearningRun, reward_learning.PRESETS, reward_learning.RewardLearning
    ),
    "heron": Kind(HeronRun, heron.PRESETS, heron.HERON),
    "spo": Kind(SPORun, spo.PRESETS, spo.SPO),
    "direct": Kind(DirectRun, direct.PRESETS, direct.DirectPreference),
    "rlif": Kind(RLIFRun, {"default": rlif.Config()}, rlif.RLIF),
    "imitation": Kind(ImitationRun, imitation.PRESETS, imitation.Imitation),
    "intrinsic": Kind(IntrinsicRun, intrinsic.PRESETS, intrinsic.Intrinsic),
}
"""Name on the command line -> learner."""


def kind_of(config: Run) -> str:
    """The name of the learner that a configuration is of."""
    return next(name for name, kind in KINDS.items() if kind.run is type(config))


def build(config: Run, directory: Path | None = None) -> Learner:
    """The learner that a configuration describes, with its environment and backend.

    Args:
        config: what is wanted.
        directory: where answers are kept; None keeps them in memory.
    """
    lookup(config.env, ENVIRONMENTS, "environment")
    torch.set_num_threads(config.threads)
    config = settled(config)
    settings: Any = getattr(config, "learner")  # noqa: B009  (every run that is built has one)
    arguments: dict[str, Any] = environment_settings(config.env)
    wanted = {
        "num_envs": config.envs, "rater": config.rater, "segment_steps": _segment_steps(config),
        "rater_kwargs": _rater_arguments(config) or None,
    }  # fmt: skip
    arguments |= {name: value for name, value in wanted.items() if value is not None}
    arguments |= environment_arguments(config)
    if isinstance(config, SupervisedRun):
        arguments["supervision"] = _supervision(config, settings)
    annotator = _annotator(config, settings, directory)
    env = gym.make_vec(config.env, budget=config.labels, directory=directory, **arguments)
    backend = make_backend(
        env, config.env, config.algorithm or _algorithm(config, env),
        model=config.language_model, seed=config.seed, device=config.device,
    )  # fmt: skip
    return KINDS[kind_of(config)].make(backend, *annotator, settings, **_data(config))


def lasting(config: Run) -> Run:
    """The same run, which means the same wherever and whenever it is read.

    Its language model, its data and its judge's folder have their whole paths, and a judge's model
    its name. Other files (a critic, experts) stay as they were named.

    Raises:
        ValueError: the judge's model has none, and cannot be asked for.
    """
    given = {name: getattr(config, name, None) for name in ("language_model", "data")}
    whole: dict[str, Any] = {
        name: path.resolve() for name, path in given.items() if path is not None and path.exists()
    }
    if isinstance(config, IntrinsicRun):
        whole["judge"] = named(config.judge)
    return replace(config, **whole)


def unjudged(config: Run) -> Run:
    """The same run for whoever wants its policy alone, which acts without any judge."""
    return replace(config, judge="rules") if isinstance(config, IntrinsicRun) else config


def _annotator(config: Run, learner: Any, directory: Path | None) -> list[Annotator | Inline]:
    """Who has captions judged, in a run where somebody does."""
    if not isinstance(config, IntrinsicRun):
        return []
    kind = intrinsic.MODELS[learner.model]
    folder = None if directory is None else directory.with_name("annotations")
    return [annotator_of(config.judge, config.goal, kind, folder)]


def _algorithm(config: Run, env: Any) -> str | None:
    """What suits a learner better than the backend's own choice; None: that one."""
    if not isinstance(config, RLIFRun):
        return None
    if writes_text(config.env):
        return "RLOO"
    return "DQN" if isinstance(env.single_action_space, gym.spaces.Discrete) else "RLPD"


def _supervision(config: SupervisedRun, learner: Any) -> Supervision:
    """Who watches a run, and may take over."""
    start = None
    if writes_text(config.env):
        start = partial(_acting, config)
    expert = expert_of(config.supervisor.expert, config.env, start)
    judged: Judged = "executed"
    if isinstance(learner, rlif.Config):
        judged = rlif.JUDGED[learner.blame]
    elif learner.ask == "everywhere":  # it only says what it would have done
        return Supervision(expert, Random(0.0))
    elif config.preset in (None, "bc"):
        return imitation.whole_episodes(expert)
    told = environment_arguments(config)
    return supervision_of(config.supervisor, expert, config.env, judged, **told)


def _acting(config: Run, model: Path | None) -> Any:
    """A language model as it acts in the environment of a run."""
    env = gym.make_vec(config.env, num_envs=1, **environment_arguments(config))
    folder = config.language_model if model is None else model
    return make_backend(env, config.env, "PPO", model=folder, seed=config.seed)


def _data(config: Run) -> dict[str, PreferenceDataset]:
    """The comparisons that a run was given, if it was."""
    folder: Path | None = getattr(config, "data", None)
    return {} if folder is None else {"data": PreferenceDataset.open(folder)}


def _segment_steps(config: Run) -> int | None:
    """Single steps for HERON, as in its code, except where only whole responses are compared."""
    if config.segment_steps is None and isinstance(config, HeronRun):
        return None if writes_text(config.env) else 1
    return config.segment_steps


def _rater_arguments(config: Run) -> dict[str, Any]:
    """What the rater is told, the hierarchy of factors included.

    Raises:
        ValueError: a hierarchy was given, and the rater compares none.
    """
    margins = config.margins[0] if len(config.margins) == 1 else list(config.margins)
    said = {"factors": config.factors, "margins": margins}
    hierarchy = {name: value for name, value in said.items() if value not in (None, [])}
    if hierarchy and config.rater != HIERARCHY:
        raise ValueError(
            f"--{' and --'.join(hierarchy)}: only the rater {HIERARCHY!r} compares factors, and"
            f" this run has {config.rater or 'the one of its environment'}; add"
            f" --rater {HIERARCHY}."
        )
    return {**hierarchy, **_read(config.rater_args)}


SAID_TWICE = ("seed", "labels", "model", "population")
"""What a run and its learner's settings both have."""


def settled(config: Run) -> Run:
    """The same run, in which what a run and its learner's settings both have says the same.

    Raises:
        ValueError: both were given, and differ.
    """
    learner: Any = getattr(config, "learner")  # noqa: B009  (every run that is built has one)
    kind = KINDS[kind_of(config)]
    usual: Any = kind.run()
    before = kind.presets.get(config.preset or "", usual.learner)
    both = [one for one in SAID_TWICE if hasattr(config, one) and hasattr(learner, one)]
    for name in both:
        said, own = getattr(config, name), getattr(learner, name)
        if said is not None and own not in (said, getattr(before, name)):
            raise ValueError(
                f"--{name} {said} and --learner.{name} {own} say different things; give --{name}"
                " alone."
            )
    changes = {name: getattr(config, name) for name in both if getattr(config, name) is not None}
    learner = replace(learner, **changes)
    told = {name: getattr(learner, name) for name in both}
    return replace(config, **{"learner": learner, **told})


def environment_arguments(config: Run) -> dict[str, Any]:
    """Arguments of the environment that a run was asked to have, wherever it is made.

    Where captions are rewarded, text tells them, and a grid shows how often each was told.
    """
    usual: dict[str, Any] = {}
    if isinstance(config, IntrinsicRun) and writes_text(config.env):
        usual = {"captions": True}
    elif isinstance(config, IntrinsicRun) and config.env in MINIGRID:
        usual = {"counts": 4}
    return usual | _read(config.env_args)


def _read(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as they were meant: JSON where they are, words elsewhere."""

    def meant(value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError:
            return value

    return {name: meant(value) for name, value in arguments.items()}


def joined(words: list[str], option: str) -> list[str]:
    """An option and its value as one word: a value that begins with a minus looks like one."""
    if option not in words[:-1]:
        return words
    at = words.index(option)
    return [*words[:at], f"{option}={words[at + 1]}", *words[at + 2 :]]


def plain(config: Run) -> dict[str, Any]:
    """As JSON knows it."""
    known: dict[str, Any] = json.loads(json.dumps(asdict(settled(config)), default=str))
    return {"learner_name": kind_of(config), **known}


def restored(saved: Mapping[str, Any]) -> Run:
    """What :func:`plain` made.

    Raises:
        RunError: another version made it.
    """
    values = dict(saved)
    name = values.pop("learner_name", "reward-learning")
    try:
        run: Run = _restored(KINDS[name].run, values)
    except (KeyError, TypeError) as error:
        raise RunError(
            f"The run's config.json does not fit this version of prefgym ({error}); resume it with"
            " the version that started it."
        ) from error
    return run


def _restored(kind: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass from plain values, as its annotations say."""
    hints = typing.get_type_hints(kind)
    unknown = set(values) - {one.name for one in fields(kind)}
    if unknown:
        raise KeyError(sorted(unknown)[0])
    return kind(**{name: _typed(hints[name], value) for name, value in values.items()})


def _typed(hint: Any, value: Any) -> Any:
    if value is not None and is_dataclass(hint):
        return _restored(hint, value)
    if isinstance(value, list):
        return tuple(value)
    paths = Path in (hint, *typing.get_args(hint))
    return Path(value) if paths and isinstance(value, str) else value
