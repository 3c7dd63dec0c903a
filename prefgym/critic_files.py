"""Files of trained critics, as value sources: torch is loaded when the first value is asked for."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

FORMAT: Final = "prefgym-critic-1"


@dataclass(frozen=True)
class CriticFile:
    """The value source in a file that :meth:`prefgym.values.Critic.save` wrote.

    Small to copy and to send; equal paths are equal sources.

    Raises:
        ValueError: there is no such file, it is damaged, or it holds something else.
    """

    path: str

    def __post_init__(self) -> None:
        """Name the file wherever a process stands, and look at its header."""
        object.__setattr__(self, "path", os.path.abspath(self.path))
        header(self.path)

    def __call__(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """A(s, a) of steps; see :class:`prefgym.values.Critic`."""
        advantages: np.ndarray = _critic(self.path)(observations, actions)
        return advantages

    def state_values(self, observations: np.ndarray) -> np.ndarray:
        """V(s) of states; see :meth:`prefgym.values.Critic.state_values`."""
        values: np.ndarray = _critic(self.path).state_values(observations)
        return values

    def check(self, name: str, observation_size: int, action_size: int) -> None:
        """Refuse environments whose steps the critic cannot judge.

        Args:
            name: of the environment.
            observation_size: numbers in an observation; 0 where it is no array of measurements.
            action_size: numbers in an action; 0 where actions are not continuous.

        Raises:
            ValueError: it was made for other observations or actions.
        """
        told = header(self.path)
        if (told.observation_size, told.action_size) != (observation_size, action_size):
            shown = (
                f"shows observations of {observation_size} and takes actions of {action_size}"
                if observation_size and action_size
                else "shows or takes something else than such numbers"
            )
            raise ValueError(
                f"value_source: {self.path} holds a critic of {told.about.get('env', 'a task')},"
                f" for observations of {told.observation_size} numbers and actions of"
                f" {told.action_size}, and {name} {shown}; give the critic that was trained there."
            )


class Header(NamedTuple):
    """What a file of a critic says before its weights are read."""

    activation: str
    about: Mapping[str, Any]
    observation_size: int
    action_size: int
    bounded: str
    """How its policy's actions are brought into their bounds."""


def header(path: str | Path) -> Header:
    """What a file says about the critic in it.

    Raises:
        ValueError: there is no such file, it is damaged, or it holds something else.
    """
    try:
        with safe_open(path, framework="np") as file:
            told = json.loads((file.metadata() or {}).get("prefgym", "{}"))
            if told.get("format") == FORMAT:
                (_, observed, _), (acted,) = (
                    file.get_slice(name).get_shape() for name in ("actor.0.weight", "low")
                )
                bounded = told.get("bounded", "tanh")
                return Header(told["activation"], told.get("about", {}), observed, acted, bounded)
    except FileNotFoundError:
        raise ValueError(
            f"There is no file {path} of a critic; `prefgym oracle train --env ID --out FILE` makes"
            " one."
        ) from None
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as a critic ({error}); it is damaged or no safetensors file, "
            "so export the critic again."
        ) from error
    raise ValueError(
        f"{path} holds {told.get('format', 'no critic')}, and this version of prefgym reads"
        f" {FORMAT}; export the critic again."
    )


def as_value_source(given: Any) -> Any:
    """A value source as it was given: a function, the file of a critic, or None.

    Raises:
        ValueError: it is something else, or a file that holds no critic.
    """
    if isinstance(given, str | os.PathLike):
        return CriticFile(os.fspath(given))
    if given is None or callable(given):
        return given
    raise ValueError(
        f"value_source is {given!r}; give a function of observations and actions, or the file of a"
        " trained critic."
    )


@cache
def _critic(path: str) -> Any:
    """Read once per process. By name: whoever never asks needs no torch."""
    return import_module("prefgym.values").Critic.load(path)
