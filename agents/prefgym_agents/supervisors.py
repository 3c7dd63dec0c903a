"""Who watches a run and may take over, as the command line says it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym

from prefgym.interventions import (
    Distance,
    Random,
    Rule,
    Supervision,
    ValueBased,
    load_expert,
    reference_critic,
)
from prefgym.interventions.stored import SUFFIX
from prefgym.interventions.supervision import Judged
from prefgym.names import lookup
from prefgym_agents.imported import imported
from prefgym_agents.tuned import writes_text

RuleName = Literal["value", "random", "distance"]


@dataclass(frozen=True)
class Supervisor:
    """Who acts in interventions, and what decides about them."""

    expert: str = "40"
    """Who takes over: the grade of an expert that comes with the task (40), one of a file
    (experts.safetensors:40, see `prefgym experts train`), the folder of a language model where text
    is written ("start": the model that the run begins with), or module:name of a function of
    observations."""
    rule: RuleName = "value"
    """When: "value" (an action loses too much, in the eyes of who knows), "random", or "distance"
    (an action is far from the expert's)."""
    margin: float = 0.02
    """For value: how much may be lost, relative to the scale."""
    scale: float | None = None
    """For value: what margins are relative to, in units of return; by default |V(s)|, and 1 where
    text is written."""
    rate: float = 0.5
    """For random: the probability."""
    threshold: float = 1.0
    """For distance: the sum of absolute differences from which on the expert acts."""
    steps: int = 4
    """Of an intervention."""

    def __post_init__(self) -> None:
        """Refuse a rule that there is not."""
        lookup(self.rule, dict.fromkeys(get_args(RuleName)), "rule of interventions")


def expert_of(said: str, env_id: str, start: Any = None) -> Any:
    """Who is meant by ``Supervisor.expert``.

    Args:
        said: as there.
        env_id: of the environment.
        start: makes a language model act, given its folder; None where no text is written.

    Raises:
        ValueError: nobody.
    """
    if start is not None and ":" not in said:
        return start(None if said == "start" else Path(said))
    file, _, grade = said.rpartition(":")
    if file.endswith(SUFFIX):
        return load_expert(file, _grade(grade, said))
    if ":" in said:
        return imported(said, "expert")
    if said.endswith(SUFFIX):
        return load_expert(said)
    return load_expert(env_id, _grade(said, said))


def supervision_of(
    supervisor: Supervisor, expert: Any, env_id: str, judged: Judged, **arguments: Any
) -> Supervision:
    """The expert, and the rule that the settings name.

    Args:
        supervisor: the settings.
        expert: who acts.
        env_id: of the environment.
        judged: "executed" or "proposed" actions.
        **arguments: of the environment.

    Raises:
        ValueError: nobody knows what actions are worth, or settings that cannot be.
    """
    rule: Rule = Random(supervisor.rate)
    if supervisor.rule == "distance":
        rule = Distance(expert, supervisor.threshold)
    elif supervisor.rule == "value":
        scale = 1.0 if supervisor.scale is None and writes_text(env_id) else supervisor.scale
        rule = ValueBased(_values(env_id, arguments), supervisor.margin, scale)
    return Supervision(expert, rule, supervisor.steps, judged)


def _values(env_id: str, arguments: dict[str, Any]) -> Any:
    """Who knows what actions are worth: the task itself, or the critic that comes with it."""
    env = gym.make_vec(env_id, num_envs=1, **arguments)
    task: Any = env.unwrapped
    env.close()
    known = getattr(task, "advantages", None)
    if known is None:
        return reference_critic(env_id)
    return known if writes_text(env_id) else task


def _grade(grade: str, said: str) -> float:
    try:
        return float(grade)
    except ValueError:
        raise ValueError(
            f"The expert {said!r} is no grade; give one such as 40, a file and a grade"
            " (experts.safetensors:40), or module:name of a function of observations."
        ) from None
