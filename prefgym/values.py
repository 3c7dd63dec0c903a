"""Value sources: who tells a rater the advantage A(s, a) of a step under the true reward.

Exact tables for tasks with few states; a trained critic for control. Either is a callable
(observations, actions) -> advantages, for :func:`prefgym.raters.scores.regret`, and also tells the
value of a state, ``state_values(observations)``.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from prefgym import critic_files
from prefgym.names import lookup
from prefgym.raters.scores import ValueSource

__all__ = ["Critic", "ExactTable", "Layer", "ValueSource"]

_ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "elu": nn.functional.elu,
    "gelu": nn.functional.gelu,
    "relu": torch.relu,
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
}
_BOUNDS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "clip": lambda mean: mean.clamp(-1.0, 1.0),
    "tanh": torch.tanh,
}


_AT_ONCE = 1 << 16
"""Steps whose places in a table are held at a time: they stay in a processor's cache."""


@dataclass(frozen=True, eq=False)
class ExactTable:
    """A(s, a) = Q(s, a) − V(s), looked up."""

    q: np.ndarray
    """Q(s, a), [states, actions]."""
    v: np.ndarray
    """V(s), [states]."""
    state_of: Callable[[np.ndarray], np.ndarray]
    """Observations [N, *obs] -> numbers of their states [N]."""

    def __post_init__(self) -> None:
        """Refuse tables that do not fit together or hold NaN."""
        if self.q.ndim != 2 or self.v.shape != self.q.shape[:1]:
            raise ValueError(
                f"ExactTable: q has shape {self.q.shape} and v {self.v.shape}; wanted "
                "[states, actions] and [states]."
            )
        if not (np.isfinite(self.q).all() and np.isfinite(self.v).all()):
            raise ValueError(
                "ExactTable: q or v holds NaN or infinite values; give finite ones (an impossible "
                "action may have a very low value)."
            )

    def __call__(
        self,
        observations: Shaped[np.ndarray, " batch *obs"],
        actions: Int[np.ndarray, " batch"],
    ) -> Float[np.ndarray, " batch"]:
        """The advantage of each action, in units of return.

        Raises:
            ValueError: a state or an action lies outside the table.
        """
        state = self._states(observations)
        _check_listed("action", actions, self.q.shape[1])
        advantages = np.empty(len(state))
        for first in range(0, len(state), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            place = np.multiply(state[part], self.q.shape[1], dtype=np.intp)
            place += actions[part]
            self._advantages.take(place, out=advantages[part], mode="clip")
        return advantages

    def state_values(
        self, observations: Shaped[np.ndarray, " batch *obs"]
    ) -> Float[np.ndarray, " batch"]:
        """V(s) of each state, in units of return.

        Raises:
            ValueError: a state lies outside the table.
        """
        values: np.ndarray = self.v[self._states(observations)]
        return values

    @cached_property
    def _advantages(self) -> np.ndarray:
        """Q(s, a) − V(s), a state's actions behind each other: one look-up per step."""
        table: np.ndarray = self.q - self.v[:, None]
        return table.reshape(-1)

    def _states(self, observations: np.ndarray) -> np.ndarray:
        states = np.asarray(self.state_of(observations))
        _check_listed("state", states, len(self.v))
        return states


class Layer(NamedTuple):
    """One linear layer of several networks at once: x @ weight + bias."""

    weight: Float[Tensor, " members inputs outputs"]
    bias: Float[Tensor, " members 1 outputs"]


@dataclass(frozen=True, eq=False)
class Critic:
    """The advantage of an action over the one that a trained policy would take.

    A(s, a) = min_i Q_i(s, a) − min_i Q_i(s, μ(s)), with μ(s) = tanh(actor(s)), the mean action;
    or the actor's numbers cut off at ±1, as in PPO.

    The minimum over the critics is what SAC and TD3 learn with (Fujimoto et al. 2018,
    arXiv:1802.09477). Departure from the regret of Knox et al. (2022): V*(s) is taken to be the
    value of the policy's mean action, so a critic that is not at its optimum can give A > 0, and
    an entropy bonus in Q falls out of the difference only in part.

    Networks are plain perceptrons; actions in [low, high] are scaled to [−1, 1] before they go in,
    after the flattened observation, as in Stable-Baselines3.
    """

    critics: tuple[Layer, ...]
    actor: tuple[Layer, ...]
    """One member; its last layer gives the mean before the tanh."""
    low: np.ndarray
    high: np.ndarray
    """Bounds of the action space, [act] each."""
    activation: str = "relu"
    """Between layers: a key of elu, gelu, relu, silu, tanh."""
    chunk: int = 16_384
    """Steps that go through the networks at a time."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """How it was made, as JSON has it; kept in the file."""
    bounded: str = "tanh"
    """How the actor's actions are brought into [−1, 1]: tanh or clip."""

    def __post_init__(self) -> None:
        """Refuse weights that do not chain, are not finite, or do not fit the action bounds."""
        lookup(self.activation, _ACTIVATIONS, "activation")
        lookup(self.bounded, _BOUNDS, "way to bound actions")
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise ValueError(
                f"Critic: low has shape {self.low.shape} and high {self.high.shape}; both must be "
                "[act]."
            )
        if (
            not (np.isfinite(self.low).all() and np.isfinite(self.high).all())
            or (self.low >= self.high).any()
        ):
            raise ValueError(
                "Critic: the action bounds must be finite with low < high, to scale actions by."
            )
        _check_chain("actor", self.actor, self.observation_size, len(self.low))
        _check_chain("critics", self.critics, self.observation_size + len(self.low), 1)

    @classmethod
    def from_modules(
        cls,
        critics: Sequence[nn.Sequential],
        actor: nn.Sequential,
        low: np.ndarray,
        high: np.ndarray,
    ) -> "Critic":
        """Copy the weights out of perceptrons: Linear, activation, Linear, ..., Linear.

        A tanh at the end of the actor, as in TD3, is understood. For SAC of Stable-Baselines3 the
        parts are ``model.critic.q_networks`` and ``nn.Sequential(*model.actor.latent_pi,
        model.actor.mu)``.

        Raises:
            ValueError: the networks hold other layers, or differ in shape or activation.
        """
        squashed = len(actor) > 0 and isinstance(actor[-1], nn.Tanh)
        mean = nn.Sequential(*list(actor)[:-1]) if squashed else actor
        used = {name for network in (*critics, mean) for name in _activations(network)}
        if len(used) > 1:
            raise ValueError(
                f"Critic.from_modules: the networks use {', '.join(sorted(used))}; they must share "
                "one activation."
            )
        activation = used.pop() if used else "relu"
        return cls(_stacked(critics), _stacked([mean]), low, high, activation)

    @property
    def observation_size(self) -> int:
        """Numbers in a flattened observation."""
        return int(self.actor[0].weight.shape[1])

    def __call__(
        self,
        observations: Shaped[np.ndarray, " batch *obs"],
        actions: Shaped[np.ndarray, " batch *act"],
    ) -> Float[np.ndarray, " batch"]:
        """A(s, a) of every step, in units of return.

        Raises:
            ValueError: observations or actions have the wrong size, or hold NaN.
        """
        count = len(observations)
        flat = self._flat("observations", observations, count, self.observation_size)
        taken = self._flat("actions", actions, count, len(self.low))
        advantages = np.empty(count)
        for first in range(0, count, self.chunk):
            part = slice(first, first + self.chunk)
            advantages[part] = self._advantages(flat[part], taken[part])
        return advantages

    def state_values(
        self, observations: Shaped[np.ndarray, " batch *obs"]
    ) -> Float[np.ndarray, " batch"]:
        """V(s) = min_i Q_i(s, μ(s)) of each state, in units of (discounted) return.

        Raises:
            ValueError: observations have the wrong size, or hold NaN.
        """
        count = len(observations)
        flat = self._flat("observations", observations, count, self.observation_size)
        values = np.empty(count)
        for first in range(0, count, self.chunk):
            part = slice(first, first + self.chunk)
            values[part] = self._state_values(flat[part])
        return values

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all."""
        path = Path(path)
        tensors = {
            f"{name}.{number}.{part}": getattr(layer, part).contiguous()
            for name, layers in (("critics", self.critics), ("actor", self.actor))
            for number, layer in enumerate(layers)
            for part in Layer._fields
        }
        bounds = {"low": torch.as_tensor(self.low), "high": torch.as_tensor(self.high)}
        header = {
            "format": critic_files.FORMAT,
            "activation": self.activation,
            "about": dict(self.about),
            "bounded": self.bounded,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".part")
        save_file(tensors | bounds, unfinished, metadata={"prefgym": json.dumps(header)})
        os.replace(unfinished, path)

    @classmethod
    def load(cls, path: str | Path) -> "Critic":
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: there is no such file, it is damaged, or it holds something else.
        """
        told = critic_files.header(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return cls(
            _restored("critics", tensors),
            _restored("actor", tensors),
            tensors["low"].numpy(),
            tensors["high"].numpy(),
            told.activation,
            about=told.about,
            bounded=told.bounded,
        )

    def _flat(self, what: str, values: np.ndarray, count: int, size: int) -> Float[Tensor, " n k"]:
        flat = np.asarray(values, np.float32).reshape(len(values), math.prod(values.shape[1:]))
        if flat.shape != (count, size):
            raise ValueError(
                f"Critic: {what} have shape {values.shape}; wanted {count} rows of {size} numbers."
            )
        if not np.isfinite(flat).all():
            raise ValueError(
                f"Critic: {what} of step {int(np.argmin(np.isfinite(flat).all(axis=1)))} hold NaN "
                "or infinite values; an advantage needs finite ones."
            )
        return torch.from_numpy(flat)

    @torch.no_grad()
    def _advantages(
        self, observations: Float[Tensor, " n obs"], actions: Float[Tensor, " n act"]
    ) -> Float[np.ndarray, " n"]:
        low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (self.low, self.high))
        scaled = 2.0 * (actions - low) / (high - low) - 1.0
        both = torch.cat([scaled, self._mean(observations)])
        taken, best = self._values(observations.repeat(2, 1), both).chunk(2)
        return (taken - best).numpy()

    @torch.no_grad()
    def _state_values(self, observations: Float[Tensor, " n obs"]) -> Float[np.ndarray, " n"]:
        return self._values(observations, self._mean(observations)).numpy()

    def _mean(self, observations: Float[Tensor, " n obs"]) -> Float[Tensor, " n act"]:
        """μ(s), scaled to [−1, 1]."""
        return _BOUNDS[self.bounded](self._forward(self.actor, observations[None])[0])

    def _values(
        self, observations: Float[Tensor, " n obs"], scaled: Float[Tensor, " n act"]
    ) -> Float[Tensor, " n"]:
        """min_i Q_i(s, a)."""
        inputs = torch.cat([observations, scaled], 1)[None]
        return self._forward(self.critics, inputs)[..., 0].amin(0).double()

    def _forward(
        self, layers: tuple[Layer, ...], inputs: Float[Tensor, " 1 n inputs"]
    ) -> Float[Tensor, " members n outputs"]:
        hidden = torch.matmul(inputs, layers[0].weight) + layers[0].bias
        for layer in layers[1:]:
            hidden = torch.baddbmm(layer.bias, _ACTIVATIONS[self.activation](hidden), layer.weight)
        return hidden


def _check_listed(what: str, index: np.ndarray, count: int) -> None:
    if index.size and (index.min() < 0 or index.max() >= count):
        outside = index[(index < 0) | (index >= count)][0]
        raise ValueError(
            f"ExactTable: {what} {outside} is not among the table's {count} (0 to {count - 1}); "
            "was it made for another environment?"
        )


def _check_chain(what: str, layers: Sequence[Layer], inputs: int, outputs: int) -> None:
    sizes = [inputs]
    for weight, bias in layers:
        members = layers[0].weight.shape[0]
        if weight.ndim != 3 or weight.shape[:2] != (members, sizes[-1]):
            raise ValueError(
                f"Critic: a weight of the {what} has shape {tuple(weight.shape)}; wanted "
                f"[{members} members, {sizes[-1]} inputs, outputs]."
            )
        if bias.shape != (members, 1, weight.shape[2]):
            raise ValueError(
                f"Critic: a bias of the {what} has shape {tuple(bias.shape)}; wanted "
                f"{(members, 1, weight.shape[2])}."
            )
        if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise ValueError(
                f"Critic: a layer of the {what} holds NaN or infinite weights; its training "
                "diverged, so train it again."
            )
        sizes.append(int(weight.shape[2]))
    if sizes[-1] != outputs:
        raise ValueError(f"Critic: the {what} end in {sizes[-1]} numbers; wanted {outputs}.")


def _activations(network: nn.Sequential) -> Iterable[str]:
    linear = [isinstance(one, nn.Linear) and one.bias is not None for one in network]
    if len(linear) % 2 == 0 or linear != [number % 2 == 0 for number in range(len(linear))]:
        raise ValueError(
            f"Critic.from_modules: got {', '.join(type(one).__name__ for one in network)}; wanted "
            "Linear (with a bias) and activations in turn, beginning and ending with Linear."
        )
    for module in list(network)[1::2]:
        name = type(module).__name__.lower()
        lookup(name, _ACTIVATIONS, "activation")
        yield name


def _stacked(networks: Sequence[nn.Sequential]) -> tuple[Layer, ...]:
    columns = [[one for one in network if isinstance(one, nn.Linear)] for network in networks]
    shapes = {tuple(one.weight.shape for one in column) for column in columns}
    if len(shapes) != 1:
        raise ValueError(
            f"Critic.from_modules: got networks of {len(shapes)} shapes; wanted one or more "
            "critics, all of the same shape."
        )
    return tuple(
        Layer(
            torch.stack([one.weight.detach().T for one in layer]),
            torch.stack([one.bias.detach()[None] for one in layer]),
        )
        for layer in zip(*columns, strict=True)
    )


def _restored(name: str, tensors: dict[str, Tensor]) -> tuple[Layer, ...]:
    count = sum(key.startswith(f"{name}.") for key in tensors) // len(Layer._fields)
    return tuple(
        Layer(tensors[f"{name}.{number}.weight"], tensors[f"{name}.{number}.bias"])
        for number in range(count)
    )
