"""What the benchmark runs, as plain data: tasks, raters, models, seeds and the size of a fit.

A suite is written to its folder as JSON; a folder that holds another suite is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, NamedTuple

from prefgym import __version__
from prefgym.models.presets import MODELS
from prefgym.names import lookup
from prefgym_agents.bench.own import digest, is_own, own_model, own_rater

Improve = Literal["plan", "best-of-n", "learn"]
"""How a task's policy follows from a reward: exactly, by choice among candidates, by learning."""


@dataclass(frozen=True)
class Task:
    """An environment, how much of it is seen, and how a policy is made there."""

    env: str
    """A prefgym id."""
    improve: Improve
    segment_steps: int | None = None
    """Of the segments that are compared; None: the environment's own."""
    lanes: int = 50
    """Episodes played side by side."""
    steps: int = 10_000
    """Of the behaviour whose segments are compared, over all lanes."""
    stickiness: float = 0.9
    """Lane i of n repeats its last action with probability stickiness · i / (n − 1), so that some
    behave more steadily than others."""
    cut: bool = False
    """Compare segments of different lengths, each ending after a random number of its steps. Where
    episodes end, a constant per step decides whether to go on, and comparisons of segments of one
    length leave it open."""
    layouts: tuple[int, ...] = ()
    """Values of ``layout_seed``, one for each seed in turn; none where there is one board."""
    policy_steps: int = 0
    """Environment steps of "learn"."""
    policy_labels: int = 0
    """Comparisons that "learn" may ask for."""
    reference: float | None = None
    """Of "learn": the true return that counts as 1, where random actions are 0. None: no policy
    can be learned here."""
    fit: tuple[tuple[str, Any], ...] = ()
    """What is fitted otherwise here: fields of :class:`Size` by name."""

    def sized(self, size: "Size") -> "Size":
        """The size of a fit here."""
        return replace(size, **dict(self.fit))

    def env_kwargs(self, seed: int) -> dict[str, Any]:
        """Arguments of the environment under a seed of the suite."""
        if not self.layouts:
            return {}
        return {"layout_seed": self.layouts[seed % len(self.layouts)]}


@dataclass(frozen=True)
class Answers:
    """Who answers, and how."""

    rater: str
    """A key of ``prefgym.raters.RATERS``, or ``module:name``."""
    options: tuple[tuple[str, Any], ...] = ()
    """Of the rater, by name."""
    rationality: float | None = None
    """The log-odds of a choice whose two sides differ by the median of the differences among the
    pairs that are not 0; sets ``beta``, whose unit differs between tasks. None: as the options
    say."""


@dataclass(frozen=True)
class Size:
    """How much is asked, and how a model is fitted: the same for every model."""

    train_pairs: int = 8_000
    test_pairs: int = 1_000
    members: int = 1
    """Networks in the ensemble."""
    hidden: tuple[int, ...] = (64, 64)
    """Of each; where text is written, the width of the last is that of a small transformer."""
    gradient_steps: int = 150
    """Rounded up to whole passes over the pairs."""
    batch_pairs: int = 256
    learning_rate: float = 5e-3
    weight_decay: float = 0.1
    options: int = 12
    """Segments that a policy may choose among, for exploitability."""
    pools: int = 8
    """Sets of such options."""
    best_of: int = 256
    """Responses among which "best-of-n" chooses, for each prompt."""
    starts: int = 16
    """Where no text is written: from how many "best-of-n" chooses."""
    candidates: int = 63
    """Episodes among which it chooses, for each start."""
    candidate_steps: int = 100
    """Of each, at most."""


class Cell(NamedTuple):
    """One fit: names of the suite, and a seed."""

    task: str
    rater: str
    model: str
    seed: int

    @property
    def key(self) -> str:
        """A name for files."""
        return "+".join(str(part).replace(":", "=") for part in self)


@dataclass(frozen=True)
class Suite:
    """Every task × every rater × every model × every seed."""

    tasks: Mapping[str, Task]
    raters: Mapping[str, Answers]
    models: tuple[str, ...]
    """Keys of ``prefgym.models.presets.MODELS``, or ``module:name``."""
    seeds: int
    size: Size

    def cells(self) -> list[Cell]:
        """All of them; those that share segments, then answers, stand beside each other."""
        return list(self._cells())

    def _cells(self) -> Iterator[Cell]:
        for task in self.tasks:
            for seed in range(self.seeds):
                for rater in self.raters:
                    for model in self.models:
                        yield Cell(task, rater, model, seed)


_BOARD: Final[dict[str, Any]] = {
    "segment_steps": 10,
    "lanes": 100,
    "steps": 20_000,
    "stickiness": 0.5,
    "cut": True,
}
_ROBOT: Final[dict[str, Any]] = {"segment_steps": 25, "lanes": 20}

TASKS: Final[dict[str, Task]] = {
    "delivery": Task("prefgym/Delivery-v0", "plan", **_BOARD),
    "random-mdps": Task(
        "prefgym/RandomMDP-v0",
        "plan",
        layouts=(36, 42, 48, 57, 62, 63, 69, 74, 77, 85),
        **_BOARD,
    ),
    "pendulum": Task(
        "prefgym/Pendulum-v0",
        "best-of-n",
        policy_labels=500,
        reference=-119.0,
        **_ROBOT,
    ),
    "hopper": Task(
        "prefgym/Hopper-v0",
        "best-of-n",
        policy_labels=1_000,
        reference=1_053.0,
        **_ROBOT,
    ),
    "half-cheetah": Task(
        "prefgym/HalfCheetah-v0",
        "best-of-n",
        policy_labels=1_000,
        reference=4_079.6,
        **_ROBOT,
    ),
    "text-style": Task(
        "prefgym/TextStyle-v0",
        "best-of-n",
        lanes=100,
        stickiness=0.0,
        fit=(
            ("hidden", (32,)),
            ("gradient_steps", 400),
            ("batch_pairs", 128),
        ),
    ),
}
"""Tasks by name. Layouts are the first of those from 36 on with five kinds of items, at most 50
cells, and 10 or more between the returns of random and of optimal actions. References are the true
returns of the policies whose critics come with the environments."""

RATERS: Final[dict[str, Answers]] = {
    "partial-return": Answers("partial-return", rationality=3.0),
    "regret": Answers("regret", rationality=3.0),
    "cyclic": Answers("cyclic", (("beta", 3.0),)),
    "two-groups": Answers("two-groups", (("people", 5),), rationality=3.0),
    "five-groups": Answers("five-groups", (("people", 4),), rationality=3.0),
    "mistakes": Answers("partial-return", (("mistake", 0.2),)),
    "ties": Answers("partial-return", (("ties", 5.0),), rationality=3.0),
}
"""Raters by name: Boltzmann ones, of one mind or of several, and a hard one who errs."""

FULL: Final = Suite(TASKS, RATERS, tuple(MODELS), 5, Size())
QUICK: Final = Suite(
    {name: TASKS[name] for name in ("delivery", "random-mdps")}
    | {"pendulum": replace(TASKS["pendulum"], segment_steps=10, steps=6_000)},
    {name: RATERS[name] for name in ("partial-return", "regret", "cyclic", "two-groups")},
    ("bt", "gpm", "pal", "vpl", "maxmin"),
    2,
    Size(test_pairs=500),
)


def selected(
    base: Suite,
    tasks: Sequence[str] | None = None,
    raters: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    seeds: int | None = None,
    policy_steps: int | None = None,
) -> Suite:
    """A part of a suite, with raters and models of a user's own where ``module:name`` is said.

    Args:
        base: settles what is not said.
        tasks: keys of ``TASKS``.
        raters: keys of ``RATERS``, or ``module:name``.
        models: keys of ``MODELS``, or ``module:name``.
        seeds: 0, 1, ...
        policy_steps: learn a policy with so many environment steps where one can be learned; 0 and
            None choose among candidates there.

    Raises:
        ValueError: a name that nothing has, or that does not import; no seeds, or steps below 0.
    """
    if policy_steps is not None and policy_steps < 0:
        raise ValueError(f"policy_steps={policy_steps}; wanted 0, which learns none, or more.")
    wanted = tuple(base.tasks if tasks is None else tasks)
    chosen = {name: lookup(name, {**TASKS, **base.tasks}, "task") for name in wanted}
    if policy_steps is not None:
        chosen = {name: _with_steps(one, policy_steps) for name, one in chosen.items()}
    asked = {name: _answers(name) for name in (base.raters if raters is None else raters)}
    known = tuple(dict.fromkeys(base.models if models is None else models))
    for name in known:
        if is_own(name):
            own_model(name)
        else:
            lookup(name, MODELS, "preference model")
    count = base.seeds if seeds is None else seeds
    if count < 1 or not (chosen and asked and known):
        raise ValueError(
            f"A suite of {len(chosen)} tasks, {len(asked)} raters, {len(known)} models and {count}"
            " seeds has no cell; choose at least one of each."
        )
    return Suite(chosen, asked, known, count, base.size)


def plain(suite: Suite) -> dict[str, Any]:
    """As JSON has it, with what its rows depend on besides: this version, and own modules."""
    named = (*suite.models, *(one.rater for one in suite.raters.values()))
    own = {name: digest(name) for name in sorted(set(named)) if is_own(name)}
    return {
        **asdict(suite),
        "models": list(suite.models),
        "prefgym": __version__,
        "own_modules": own,
    }


def _answers(name: str) -> Answers:
    if not is_own(name):
        return lookup(name, RATERS, "rater of the benchmark")
    own_rater(name)
    return Answers(name)


def _with_steps(task: Task, steps: int) -> Task:
    if steps == 0 or task.reference is None:
        return task
    return replace(task, improve="learn", policy_steps=steps)
