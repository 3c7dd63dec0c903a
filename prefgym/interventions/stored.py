"""Experts in files: small policies whose quality was measured, and who knows what is better.

One safetensors file holds the experts of one task, each with the grade that was measured:

    grade = 100 · (return − random) / (good − random)

with the returns of a good agent and of uniformly random actions. Luo et al. (2023),
arXiv:2311.12996, name their experts so. They act by numpy alone: nothing here loads torch.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import numpy as np
from jaxtyping import Float, Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prefgym.critic_files import CriticFile
from prefgym.names import lookup

FORMAT: Final = "prefgym-experts-1"
SUFFIX: Final = ".safetensors"
CRITIC: Final = ".critic"
"""Between the name of a task and the ending of its reference critic's file."""

_ACTIVATIONS: Final[dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
}
_BOUNDS: Final[dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "clip": lambda x: np.clip(x, -1.0, 1.0),
    "tanh": np.tanh,
}


@dataclass(frozen=True, eq=False)
class GradedExpert:
    """A perceptron's action, and in a share of the states another one, always the same.

    With probability ``share`` over states the action is uniformly random. Which states, and which
    actions, follows from the observation and the seed: the expert is a fixed policy that is wrong
    in some places, and a run that is resumed meets the same one.
    """

    weights: tuple[np.ndarray, ...]
    """Of each layer, ``[inputs, outputs]``."""
    biases: tuple[np.ndarray, ...]
    """Of each layer, ``[outputs]``; the last gives the action, scaled to [−1, 1], before bounds."""
    observation_space: gym.spaces.Box
    action_space: gym.spaces.Box
    activation: str = "relu"
    """Between layers: relu or tanh."""
    bounded: str = "clip"
    """How actions are brought into their bounds: clip or tanh."""
    share: float = 0.0
    """Of random actions."""
    seed: int = 0
    """Of the random actions."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """How it was made and measured, as JSON has it; kept in the file."""

    def __post_init__(self) -> None:
        """Refuse weights that do not chain, are not finite, or do not fit the spaces."""
        lookup(self.activation, _ACTIVATIONS, "activation")
        lookup(self.bounded, _BOUNDS, "way to bound actions")
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"GradedExpert: share={self.share}; wanted one in [0, 1].")
        if not (np.isfinite(self.action_space.low) & np.isfinite(self.action_space.high)).all():
            raise ValueError(
                f"GradedExpert: the actions {self.action_space} have no bounds to scale them by."
            )
        sizes = [int(np.prod(self.observation_space.shape))]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            if weight.ndim != 2 or len(weight) != sizes[-1] or bias.shape != weight.shape[1:]:
                raise ValueError(
                    f"GradedExpert: a layer has a weight of shape {weight.shape} and a bias of"
                    f" {bias.shape}; wanted [{sizes[-1]}, outputs] and [outputs]."
                )
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise ValueError("GradedExpert: a layer holds NaN or infinity; train it again.")
            sizes.append(weight.shape[1])
        if sizes[-1] != np.prod(self.action_space.shape) or not self.weights:
            raise ValueError(
                f"GradedExpert: the layers end in {sizes[-1]} numbers; the actions are"
                f" {self.action_space}."
            )

    @property
    def grade(self) -> float:
        """As measured; NaN where it was not."""
        return float(self.about.get("grade", np.nan))

    def __call__(
        self, observations: Shaped[np.ndarray, " n *obs"]
    ) -> Shaped[np.ndarray, " n *act"]:
        """Actions, in the environment's units."""
        flat = np.asarray(observations, np.float64).reshape(len(observations), -1)
        scaled = self._mean(flat)
        if self.share > 0.0:
            drawn = _uniform(flat, scaled.shape[1] + 1, self.seed)
            scaled = np.where(drawn[:, :1] < self.share, 2.0 * drawn[:, 1:] - 1.0, scaled)
        low, high = (one.reshape(-1) for one in (self.action_space.low, self.action_space.high))
        actions: np.ndarray = low + (scaled + 1.0) * 0.5 * (high - low)
        shaped = actions.reshape(len(actions), *self.action_space.shape)
        return shaped.astype(self.action_space.dtype)

    def _mean(self, flat: Float[np.ndarray, " n obs"]) -> Float[np.ndarray, " n act"]:
        hidden = flat @ self.weights[0] + self.biases[0]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            hidden = _ACTIVATIONS[self.activation](hidden) @ weight + bias
        return _BOUNDS[self.bounded](hidden)


def save_experts(path: str | Path, experts: Sequence[GradedExpert]) -> None:
    """Write one safetensors file, whole or not at all.

    Raises:
        ValueError: nobody to write.
    """
    if not experts:
        raise ValueError("save_experts: got no expert to write.")
    path = Path(path)
    tensors: dict[str, np.ndarray] = {}
    told = []
    for number, one in enumerate(experts):
        for layer, (weight, bias) in enumerate(zip(one.weights, one.biases, strict=True)):
            tensors[f"{number}.weight.{layer}"] = np.ascontiguousarray(weight, np.float32)
            tensors[f"{number}.bias.{layer}"] = np.ascontiguousarray(bias, np.float32)
        for name in ("observation_space", "action_space"):
            space = getattr(one, name)
            tensors[f"{number}.{name}.low"] = np.ascontiguousarray(space.low)
            tensors[f"{number}.{name}.high"] = np.ascontiguousarray(space.high)
        plain = ("activation", "bounded", "share", "seed")
        told.append({name: getattr(one, name) for name in plain} | {"about": dict(one.about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    header = json.dumps({"format": FORMAT, "experts": told})
    save_file(tensors, unfinished, metadata={"prefgym": header})
    os.replace(unfinished, path)


def load_experts(which: str | Path) -> tuple[GradedExpert, ...]:
    """All experts of a task or of a file, as they were written: the best first.

    Args:
        which: "Hopper", "prefgym/Hopper-v0", or a file of ``prefgym experts train``.

    Raises:
        ValueError: there are none, or the file is damaged or holds something else.
    """
    path = _path(which, "")
    try:
        with safe_open(path, framework="np") as file:
            told = json.loads((file.metadata() or {}).get("prefgym", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ValueError(
            f"There is no file {path} of experts; `prefgym experts train --env ID` makes one."
        ) from None
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as experts ({error}); it is damaged or no safetensors file, so"
            " make it again."
        ) from error
    if told.get("format") != FORMAT:
        raise ValueError(
            f"{path} holds {told.get('format', 'no experts')}, and this version of prefgym reads"
            f" {FORMAT}; `prefgym experts train --env ID` makes a file of experts."
        )
    return tuple(_restored(n, one, tensors) for n, one in enumerate(told["experts"]))


def load_expert(which: str | Path, grade: int | float | None = None) -> GradedExpert:
    """One expert of a task or of a file.

    Args:
        which: as for :func:`load_experts`.
        grade: the one that was asked for when it was made; None: the best. ``expert.grade`` tells
            the grade that was measured.

    Raises:
        ValueError: there is no such expert.
    """
    experts = load_experts(which)
    if grade is None:
        return max(experts, key=lambda one: one.grade)
    for one in experts:
        if one.about.get("asked") == grade:
            return one
    there = ", ".join(f"{one.about.get('asked'):g} (measured {one.grade:.0f})" for one in experts)
    raise ValueError(f"{which} has no expert of grade {grade:g}; there are {there}.")


def reference_critic(which: str | Path) -> CriticFile:
    """Who knows what actions are worth in a task, as :class:`~prefgym.interventions.ValueBased`.

    Args:
        which: "Hopper", "prefgym/Hopper-v0", or a file of experts, beside which its critic lies.

    Raises:
        ValueError: there is none.
    """
    return CriticFile(os.fspath(_path(which, CRITIC)))


def _path(which: str | Path, kind: str) -> Path:
    """The file that is meant: one that comes with the package, or one of the user's."""
    given = Path(which)
    if given.suffix == SUFFIX:
        return given.with_name(given.stem.removesuffix(CRITIC) + kind + SUFFIX) if kind else given
    name = str(which).removeprefix("prefgym/").removesuffix("-v0")
    folder = Path(str(files("prefgym_envs"))) / "experts"
    ending = CRITIC + SUFFIX
    known = {one.name.removesuffix(ending): one for one in folder.glob(f"*{ending}")}
    critic = lookup(name, known, "task with experts")
    return critic.with_name(name + kind + SUFFIX)


def _restored(
    number: int, told: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> GradedExpert:
    def box(name: str) -> gym.spaces.Box:
        low, high = (tensors[f"{number}.{name}.{end}"] for end in ("low", "high"))
        return gym.spaces.Box(low, high, dtype=low.dtype.type)

    layers = sum(key.startswith(f"{number}.weight.") for key in tensors)
    weights, biases = (
        tuple(tensors[f"{number}.{part}.{layer}"] for layer in range(layers))
        for part in ("weight", "bias")
    )
    return GradedExpert(weights, biases, box("observation_space"), box("action_space"), **told)


def _uniform(rows: Float[np.ndarray, " n k"], count: int, seed: int) -> Float[np.ndarray, " n c"]:
    """Numbers in [0, 1) that look random and follow from a row and the seed alone.

    The bits of a row are hashed by multiplication with random odd numbers (Dietzfelbinger et al.
    1997), and mixed by the finaliser of SplitMix64 (Steele et al. 2014).
    """
    rng = np.random.default_rng(seed)
    odd, starts = (rng.integers(2**63, size=k, dtype=np.uint64) for k in (rows.shape[1], count))
    bits = (rows + 0.0).view(np.uint64)  # −0 is 0
    bits = (bits ^ (bits >> np.uint64(32))) * (odd | np.uint64(1))
    state = bits.sum(1, dtype=np.uint64)[:, None] + starts
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    state ^= state >> np.uint64(31)
    drawn: np.ndarray = (state >> np.uint64(11)) * 2.0**-53
    return drawn
