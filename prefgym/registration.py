"""Every environment id, as strings: importing this loads no simulator and no learner."""

from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym


@dataclass(frozen=True)
class EnvironmentSpec:
    """One id: where the raw environment is, and how preferences over it are asked by default."""

    name: str
    """The middle of ``prefgym/<name>-v0``."""
    module: str
    """Holds ``raw(**kwargs)`` and, where there is a batched form, ``raw_vector``."""
    max_episode_steps: int | None
    """Episodes are cut off after so many steps; None: they end by themselves."""
    segment_steps: int
    query_every: int
    rater: str | None = "partial-return"
    """None: nobody knows what is good, so nobody is asked unless a rater is given."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of ``raw``."""
    batched: bool = False
    """Whether the module has a native batched form."""
    reward_threshold: float | None = None
    needs: tuple[str, ...] = ()
    """Arguments without which it cannot be made."""
    extra: str | None = None
    """It lives on an optional package, which ``pip install "prefgym[<extra>]"`` brings."""

    @property
    def id(self) -> str:
        """The id that ``gymnasium.make`` takes."""
        return f"prefgym/{self.name}-v0"


def _control(name: str, limit: int, steps: int, module: str = "control") -> EnvironmentSpec:
    return EnvironmentSpec(name, f"prefgym_envs.{module}", limit, steps, 100, kwargs={"name": name})


def _minigrid(name: str, limit: int) -> EnvironmentSpec:
    return _control(name, limit, 20, "minigrid_tasks")


def _traffic(name: str, layout: str) -> EnvironmentSpec:
    return EnvironmentSpec(
        name, "prefgym_envs.traffic", 225, 15, 100, kwargs={"layout": layout}, batched=True
    )


def _text(name: str, tokens: int, rater: str = "partial-return") -> EnvironmentSpec:
    module = f"prefgym_envs.text_{name.lower()}"
    return EnvironmentSpec(f"Text{name}", module, None, tokens, 100, rater, batched=True)


ENVIRONMENTS: dict[str, EnvironmentSpec] = {
    one.id: one
    for one in (
        EnvironmentSpec("Condorcet", "prefgym_envs.condorcet", None, 1, 100, "game", batched=True),
        EnvironmentSpec(
            "Corridor", "prefgym_envs.corridor", None, 20, 100, "low-then-high", batched=True
        ),
        EnvironmentSpec("Delivery", "prefgym_envs.delivery", 200, 3, 100, "regret", batched=True),
        EnvironmentSpec(
            "RandomMDP", "prefgym_envs.random_mdps", 200, 3, 100, "regret", batched=True
        ),
        EnvironmentSpec("PitGrid", "prefgym_envs.pit_grid", 100, 3, 100, "regret", batched=True),
        _control("Pendulum", 200, 50),
        _control("CartPole", 500, 20),
        _control("MountainCarContinuous", 999, 50),
        _control("Acrobot", 500, 50),
        _control("Reacher", 50, 25, "locomotion"),
        _control("HalfCheetah", 1000, 50, "locomotion"),
        _control("Hopper", 1000, 50, "locomotion"),
        _control("Walker2d", 1000, 50, "locomotion"),
        _control("Ant", 1000, 50, "locomotion"),
        replace(_control("AdroitPen", 200, 50, "adroit"), extra="adroit"),
        _minigrid("Empty-8x8", 256),
        _minigrid("DoorKey-5x5", 250),
        _minigrid("DoorKey-6x6", 360),
        _minigrid("DoorKey-8x8", 640),
        _minigrid("KeyCorridorS3R2", 270),
        _minigrid("KeyCorridorS3R3", 270),
        _minigrid("UnlockPickup", 288),
        _minigrid("MultiRoom-N2-S4", 40),
        EnvironmentSpec("NetHack", "prefgym_envs.nethack", 5000, 20, 100, extra="nethack"),
        _traffic("Traffic", "single"),
        _traffic("TrafficGrid", "grid"),
        _text("Sort", 6),
        _text("Copy", 4),
        _text("Arithmetic", 3),
        _text("Polite", 10),
        _text("Style", 6, "groups"),
        _text("Cycle", 2, "game"),
        EnvironmentSpec(
            "TextPrompts",
            "prefgym_envs.text_files",
            max_episode_steps=None,
            segment_steps=64,
            query_every=100,
            rater=None,
            batched=True,
            needs=("tokenizer", "prompts"),
        ),
    )
}
"""Every id that this package registers, with its defaults."""


def register() -> None:
    """Tell Gymnasium about every id; doing it again changes nothing."""
    for one in ENVIRONMENTS.values():
        if one.id not in gym.registry:
            gym.register(
                one.id,
                entry_point="prefgym.making:make",
                vector_entry_point="prefgym.making:make_vector",
                max_episode_steps=one.max_episode_steps,
                reward_threshold=one.reward_threshold,
                kwargs={"task": one.name},
            )
