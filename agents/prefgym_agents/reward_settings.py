"""What a learner of rewards is told: its settings, and those of the papers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from prefgym.curation.by_name import CURATIONS, check_share
from prefgym.losses import logistic
from prefgym.models.encoders import ACTIVATIONS
from prefgym.models.heads import at_least_one
from prefgym.models.presets import MODELS, ignored_tastes
from prefgym.names import lookup
from prefgym_agents.shaped_rewards import Earnings

Queries = Literal["uniform", "disagreement", "entropy", "k-centre"]


@dataclass(frozen=True)
class Config:
    """Settings of reward learning; defaults suit small control tasks."""

    labels: int = 200
    """Comparisons to ask for in all; 0 only where some are given."""
    sessions: int = 6
    """In how many portions they are asked."""
    ask_until: float = 0.6
    """Share of the training steps by which the last portion is asked."""
    queries: Queries = "disagreement"
    """How pairs are chosen among the candidates; the first portion is always uniform."""
    candidates: int = 10
    """Candidate pairs per pair that is asked."""
    recent_steps: int | None = None
    """Compare segments of about the newest so many steps; None: of everything in the store."""
    model: str = "bt"
    """Which preference model: a key of ``prefgym.models.presets.MODELS``."""
    population: int = 1
    """Raters that the model tells apart; their ids count from 0."""
    tastes: int | None = None
    """Tastes that the model tells apart; None: as many as raters, and at least 2."""
    hedge: int = 0
    """For model="micro": of the comparisons the newest so many (half of all, while they are fewer
    than twice as many) teach no taste, but after each fit which taste speaks in which context."""
    earnings: Earnings = field(default_factory=Earnings)
    """What the policy earns, given what the model says."""
    members: int = 3
    """Reward networks in the ensemble."""
    hidden: tuple[int, ...] = (32, 32)
    """Units of the hidden layers of each."""
    activation: str = "leaky_relu"
    """Of the hidden layers: "leaky_relu", "relu", "tanh", "silu" or "gelu". Where text is written
    there are none; a head with layers is given as ``model=``."""
    bounded: bool = False
    """Squash each member's reward by tanh."""
    factors_as_inputs: bool = False
    """The reward model reads factors too, where they are measured wherever the policy learns: those
    that a hierarchy compares, or else all that the environment names. Where segments hold no
    observations it reads the factors alone."""
    learning_rate: float = 3e-3
    """Of Adam, for the reward model."""
    batch_pairs: int = 32
    """Comparisons per gradient step of the reward model."""
    epochs: int = 3
    """Passes over all comparisons per session, at most."""
    fit_steps: int = 40
    """Gradient steps that a session may take even so, where comparisons are few."""
    stop_accuracy: float = 0.97
    """A session's fitting stops when the model agrees with this share of the labels."""
    label_noise: float = 0.0
    """Share of labels that the loss assumes were given at random."""
    curate: str = "none"
    """What is done about wrong labels: "none", "peers", "own", "flip", "drop", "soften", "margin",
    "close" (``prefgym.curation.by_name``; what votes is the model of the session before) or "gold":
    what is asked is kept where a model of the comparisons given as ``data=`` agrees."""
    wrong: float = 0.2
    """Share of the labels that curation takes for wrong."""
    start_steps: int = 1_000
    """Steps before the first label is asked."""
    explore_steps: int = 0
    """Steps at the start that are rewarded for reaching new states, before any label."""
    neighbours: int = 5
    """Which nearest neighbour measures how new a state is."""
    seed: int = 0
    """Of the reward model and of the choice of pairs."""

    def __post_init__(self) -> None:
        """Refuse settings that can never work."""
        for name in (
            "labels",
            "sessions",
            "candidates",
            "members",
            "epochs",
            "neighbours",
            "population",
            "hedge",
        ):
            least = 0 if name in ("labels", "hedge") else 1
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}; wanted at least {least}.")
        lookup(self.curate, dict.fromkeys(CURATIONS), "curation")
        lookup(self.queries, dict.fromkeys(get_args(Queries)), "way to choose queries")
        lookup(self.activation, ACTIVATIONS, "activation")
        check_share(self.curate, self.wrong)
        self._check_model()
        for name in ("ask_until", "stop_accuracy"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)}; wanted a share in (0, 1].")

    def _check_model(self) -> None:
        """Refuse what the published model would ignore or cannot have."""
        published = lookup(self.model, MODELS, "preference model")
        if published.tells_raters_apart and self.population < 2:
            raise ValueError(
                f"model={self.model!r} tells raters apart, and population={self.population}; say"
                " how many raters answer (population=2 or more), or choose model='bt'."
            )
        if self.label_noise and published.loss is not logistic:
            raise ValueError(
                f"model={self.model!r} has a loss of its own, which label_noise={self.label_noise}"
                " would replace; set label_noise=0, or choose model='bt'."
            )
        if not published.tells_raters_apart and self.population > 1:
            raise ValueError(
                f"model={self.model!r} does not tell raters apart, and population="
                f"{self.population} would be ignored; leave it out, or choose one of"
                f" {', '.join(name for name, one in MODELS.items() if one.tells_raters_apart)}."
            )
        if self.hedge and not published.has_router:
            raise ValueError(
                f"hedge={self.hedge} adapts a router, and model={self.model!r} has none; set"
                " hedge=0, or choose model='micro'."
            )
        if self.tastes is not None:
            at_least_one("reward learning", "tastes", self.tastes)
            if not published.has_tastes:
                raise ValueError(ignored_tastes(self.model, self.tastes))


SETTINGS = {one.name: one for one in fields(Config)}
PRESETS: dict[str, Config] = {
    "default": Config(),
    "pebble": Config(
        sessions=10,
        hidden=(256, 256, 256),
        bounded=True,
        learning_rate=3e-4,
        batch_pairs=128,
        epochs=50,
        fit_steps=1,
        explore_steps=9_000,
    ),
    "pref_ppo": Config(
        sessions=10,
        hidden=(256, 256, 256),
        bounded=True,
        learning_rate=3e-4,
        batch_pairs=128,
        epochs=50,
        fit_steps=1,
        explore_steps=32_000,
    ),
    "christiano2017": Config(
        sessions=10,
        hidden=(64, 64),
        learning_rate=1e-3,
        epochs=50,
        fit_steps=1,
        stop_accuracy=1.0,
        label_noise=0.1,
        ask_until=1.0,
    ),
}


def in_their_place(changes: Mapping[str, Any], earnings: Earnings) -> dict[str, Any]:
    """Single settings, with those of the earnings gathered in one."""
    own = {one.name for one in fields(Earnings)}
    earned = {name: value for name, value in changes.items() if name in own}
    others = {name: value for name, value in changes.items() if name not in own}
    return {**others, "earnings": replace(earnings, **earned)} if earned else others
