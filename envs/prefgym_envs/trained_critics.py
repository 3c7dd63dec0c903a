"""Critics that come with the package: regret on control tasks, without training anything first.

Each file of ``critics/`` was written by the command that ``critics/README.md`` names. It is read,
and torch loaded, when the first advantage is asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from prefgym.values import Critic

FOLDER = Path(__file__).parent / "critics"

_HARMLESS = {
    *("render_mode", "screen", "width", "height", "camera_id", "camera_name"),
    *("default_camera_config", "max_geom", "visual_options", "reset_noise_scale"),
}
"""Arguments of an environment that change neither its dynamics nor its reward."""


@dataclass(frozen=True)
class TrainedValues:
    """The value source of a control task, from its file; small to copy and to send."""

    name: str
    """Of the file, without its ending."""

    def __call__(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """A(s, a) of steps; see :class:`prefgym.values.Critic`."""
        return critic(self.name)(observations, actions)

    def state_values(self, observations: np.ndarray) -> np.ndarray:
        """V(s) of states; see :meth:`prefgym.values.Critic.state_values`."""
        return critic(self.name).state_values(observations)


@cache
def critic(name: str) -> "Critic":
    """The critic of a file in :data:`FOLDER`, read once per process.

    Raises:
        ValueError: there is no such file.
    """
    from prefgym.values import Critic  # loads torch

    return Critic.load(FOLDER / f"{name}.safetensors")


def trained_values(
    name: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> TrainedValues | None:
    """The values of a task as its critic knows them; None where the task was changed.

    Args:
        name: of the task.
        arguments: with which it was made, those without a name.
        keywords: those with one; of these, a different picture or start changes no value.
    """
    return None if arguments or set(keywords) - _HARMLESS else TrainedValues(name)
