"""Interventions on a pendulum, with networks: a bad expert beside those who imitate it.

Not a claim itself. A torque is fixed in each of 96 boxes of angle and speed; the expert knows the
best one, but in 80 % of the boxes, drawn for every seed, it pushes with a torque of its own, always
the same. It earns about what random torques do. The supervisor knows V* (dynamic programming on a
grid) and takes over, with probability 0.95, after a torque that loses more than half a unit of
return, and in 0.05 of all other cases; then the expert acts for four steps. RLIF learns from that
alone (SAC in RLPD's form). Behaviour cloning, DAgger and HG-DAgger imitate the expert and are told
as many of its actions as it took over in for RLIF; they act for as many steps, and HG-DAgger has
the same supervisor. With takeovers at random, just as often, RLIF must not do as well; it may still
happen to earn more than those who imitate so bad an expert (``pendulum_random_wins``).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from benchmarks.claims.claim import Row
from benchmarks.claims.pendulum_values import FASTEST, STRONGEST, seen, solved
from benchmarks.claims.training import EVALUATION_SEED
from prefgym.interventions import Random, Rule, Supervision, ValueBased
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.evaluation import Predicts, evaluate
from prefgym_agents.imitation import Imitation, whole_episodes
from prefgym_agents.rlif import RLIF
from prefgym_agents.rlpd import RLPD
from prefgym_agents.sb3 import sb3_backend

ENV = "prefgym/Pendulum-v0"
SHARE = 0.8
"""Of the boxes in which the expert is wrong."""
BOXES = (12, 8)
"""Of angle and of speed."""
MARGIN = 0.5
"""Loss of a torque that is let pass, in units of return."""
EXPERTS = 5
"""Of a seed of the claim."""
LANES, STEPS, EPISODES = 4, 5_000, 100
IMITATORS = ("bc", "dagger", "hg_dagger")


@dataclass(frozen=True, eq=False)
class BadExpert:
    """The best torque, and in some boxes of the states another one."""

    seed: int
    share: float = SHARE
    wrong: np.ndarray = field(init=False)
    """``BOXES``: whether it errs there."""
    torque: np.ndarray = field(init=False)
    """``BOXES``: what it does where it errs, in N m."""

    def __post_init__(self) -> None:
        """Draw where it errs, and how."""
        rng = np.random.default_rng(self.seed)
        count = int(np.prod(BOXES))
        wrong = rng.permutation(count) < round(self.share * count)
        object.__setattr__(self, "wrong", wrong.reshape(BOXES))
        object.__setattr__(self, "torque", rng.uniform(-STRONGEST, STRONGEST, BOXES))

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Torques, ``[n, 1]``."""
        angle, speed = seen(observations)
        parts = ((angle + np.pi) / (2.0 * np.pi), (speed + FASTEST) / (2.0 * FASTEST))
        at = tuple(
            np.clip((part * boxes).astype(np.int64), 0, boxes - 1)
            for part, boxes in zip(parts, BOXES, strict=True)
        )
        chosen: np.ndarray = np.where(
            self.wrong[at][:, None], self.torque[at][:, None], solved().act(observations)
        )
        return chosen.astype(np.float32)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """The same, as Stable-Baselines3's models do."""
        return self(np.asarray(observation)), None


@dataclass(frozen=True)
class Outcome:
    """True returns of one seed, per episode of 200 steps."""

    expert: float
    rlif: float
    imitators: dict[str, float]
    at_random: float
    """Of RLIF where takeovers come at random, as often as the watched ones did."""
    labels: int
    """Actions of the expert that each of them was told."""

    @property
    def wins(self) -> bool:
        """Whether RLIF is better than all who imitate."""
        return self.rlif > max(self.imitators.values())


class Section(NamedTuple):
    """This part of the claim."""

    rows: list[Row]
    controls: list[Row]
    figures: dict[str, float]


def compared(seed: int) -> Section:
    """Five experts, and everybody beside each of them."""
    told = [outcome(EXPERTS * seed + number) for number in range(EXPERTS)]
    as_good = sum(one.at_random >= one.rlif for one in told)
    mean = {name: float(np.mean([one.imitators[name] for one in told])) for name in IMITATORS}
    return Section(
        rows=[
            Row(
                f"pendulum: experts of {EXPERTS} beside whom RLIF beats all who imitate",
                sum(one.wins for one in told),
                ">=",
                4,
            )
        ],
        controls=[
            Row(
                f"pendulum: experts of {EXPERTS} beside whom takeovers at random teach as much",
                as_good,
                "<=",
                1,
            )
        ],
        figures={
            "pendulum_expert": float(np.mean([one.expert for one in told])),
            "pendulum_rlif": float(np.mean([one.rlif for one in told])),
            "pendulum_rlif_worst": min(one.rlif for one in told),
            **{f"pendulum_{name}": value for name, value in mean.items()},
            "pendulum_random_wins": sum(
                one.at_random > max(one.imitators.values()) for one in told
            ),
            "pendulum_random": float(np.mean([one.at_random for one in told])),
            "pendulum_labels": float(np.mean([one.labels for one in told])),
        },
    )


def outcome(seed: int, steps: int = STEPS) -> Outcome:
    """Everybody, beside the same expert."""
    torch.set_num_threads(1)
    expert = BadExpert(seed)
    learned, labels, rate = rlif(expert, watched(), steps)
    by_chance, _, _ = rlif(expert, Random(rate), steps)
    return Outcome(
        expert=true_return(expert),
        rlif=learned,
        imitators={name: imitated(name, expert, labels, steps) for name in IMITATORS},
        at_random=by_chance,
        labels=labels,
    )


def watched() -> ValueBased:
    """By somebody who knows V*."""
    return ValueBased(lambda seen, done: solved().advantages(seen, done), MARGIN, scale=1.0)


def rlif(expert: BadExpert, rule: Rule, steps: int) -> tuple[float, int, float]:
    """True return; steps that the expert acted in; share of the others after which it did."""
    learner = RLIF(off_policy(_env(Supervision(expert, rule)), expert.seed)).learn(steps)
    store = learner.store
    told = store.segments(store.since(np.zeros(LANES, np.int64)), store.longest)
    by_expert = (told.factors["intervened"] > 0.0) & told.mask
    own = int((told.mask & ~by_expert).sum())
    return true_return(learner), int(by_expert.sum()), learner.refused / own


def off_policy(env: Any, seed: int) -> PolicyBackend:
    """SAC in RLPD's form, small."""
    return sb3_backend(
        RLPD,
        env,
        seed=seed,
        steps_per_round=4,
        learning_rate=1e-3,
        learning_starts=500,
        batch_size=128,
        policy_kwargs={"net_arch": [64, 64], "critics": 2},
    )


def imitated(preset: str, expert: BadExpert, labels: int, steps: int) -> float:
    """True return after imitating the expert, told so many of its actions."""
    rules: dict[str, Callable[[], Supervision]] = {
        "bc": lambda: whole_episodes(expert),
        "dagger": lambda: Supervision(expert, Random(0.0)),
        "hg_dagger": lambda: Supervision(expert, watched()),
    }
    backend = sb3_backend(
        "PPO",
        _env(rules[preset]()),
        seed=expert.seed,
        n_steps=50,
        batch_size=200,
        learning_rate=1e-3,
        policy_kwargs={"net_arch": [64, 64]},
    )
    learner = Imitation(
        backend, preset, labels=labels, seed=expert.seed, gradient_steps=100, batch_size=128
    )
    return true_return(learner.learn(steps))


def true_return(policy: Predicts) -> float:
    """Of fresh episodes, the mean."""
    return float(evaluate(policy, ENV, episodes=EPISODES, seed=EVALUATION_SEED).mean())


def _env(supervision: Supervision) -> Any:
    return gym.make_vec(ENV, num_envs=LANES, query_every=None, supervision=supervision)
