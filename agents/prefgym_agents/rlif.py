"""Interventions as the only reward: whatever made somebody take over was wrong.

Source: Luo et al. (2023), "RLIF: interactive imitation learning as reinforcement learning",
arXiv:2311.12996.

    act under supervision (prefgym.interventions)
    reward −1 where somebody was provoked to take over, 0 elsewhere
    improve the policy for that reward

It is off-policy, as in the paper, with any backend that replays steps; and on-policy with one that
can leave the expert's steps out of what it learns about.

The supervisor need not act well: the policy may become better than whoever takes over, as long as
takeovers say what is bad. Which step gets the −1 is a rule of its own:

    posthoc     the executed action after which the expert took over (``judged="executed"``)
    previous    the step before a refused proposal, as the paper says (``judged="proposed"``)
    proposal    the refused proposal itself, as a step that ended there (``judged="proposed"``)

The paper's own rule blames a step that led to a state in which the policy proposed something bad.
Where values fall smoothly that is nearly the same; where one step decides, it blames innocent ones.

Demonstrations (``demonstrations=``) are replayed beside these steps with reward 0, in proportion or
as half of every batch (``symmetric``; Ball et al. 2023, arXiv:2302.02948).

Departure: what the expert did is not learned from, unless ``expert_steps`` says so.

Metrics: ``rlif/intervened`` (share of the steps that were the expert's), ``rlif/refused`` (share of
the policy's actions that were not let pass), ``rlif/unblamed`` (with ``previous``: refused at the
first step of an episode so far, where nothing came before), and what the backend says.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from prefgym.interventions.supervision import INTERVENED, REFUSED, Judged, Running
from prefgym.names import lookup, settings_of
from prefgym.segments import Segments
from prefgym.wrappers.inner import find_attribute
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.demonstrations import Demonstrations, as_demonstrations
from prefgym_agents.learner import Learner
from prefgym_agents.silence import Silence, check_share

Blame = Literal["posthoc", "previous", "proposal"]
JUDGED: dict[Blame, Judged] = {
    "posthoc": "executed",
    "previous": "proposed",
    "proposal": "proposed",
}
"""What a supervision must look at for each rule."""


@dataclass(frozen=True)
class Config:
    """Settings of RLIF."""

    blame: Blame = "posthoc"
    """Which step gets the reward −1."""
    expert_steps: bool = False
    """Learn from what the expert did, too, as steps of reward 0."""
    symmetric: bool = False
    """Half of every batch are demonstrations."""
    silence: float = 0.05
    """Share of the training steps after which it is a warning that nobody has intervened."""

    def __post_init__(self) -> None:
        """Refuse settings that can never work."""
        lookup(self.blame, dict.fromkeys(get_args(Blame)), "setting of blame=")
        check_share(self.silence)


class RLIF(Learner):
    """Reinforcement learning from intervention feedback.

    Args:
        policy: acts in an environment made with ``supervision=``.
        config: the settings.
        demonstrations: steps of somebody who acts well, replayed beside the policy's own:
            :func:`prefgym_agents.demonstrations.recorded`, the store of an environment that they
            acted in, or segments of whole episodes.
        tensorboard_log: folder for TensorBoard.
        verbose: 1 prints tables.
        **changes: single settings that differ from ``config``.

    Raises:
        ValueError: unknown settings, nobody who supervises, a supervision that looks at other
            actions than the rule of blame needs, a policy that cannot tell its own steps from the
            expert's, something that only replay can do, or demonstrations that are empty or from
            elsewhere.
    """

    def __init__(
        self,
        policy: PolicyBackend,
        config: Config | None = None,
        *,
        demonstrations: Demonstrations | None = None,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        **changes: Any,
    ) -> None:
        super().__init__(policy, tensorboard_log, verbose)
        self.config: Config = settings_of(config or Config(), changes, "RLIF")
        self.store = self.env.store
        self._check_supervision()
        self.env.stop_emitting()
        replay: Any = getattr(policy, "replay", None)
        learns: Any = policy if replay is None else replay
        if not hasattr(learns, "own_steps_only"):
            raise ValueError(
                f"RLIF: a {type(policy).__name__} learns from each step once and cannot leave out"
                " what the expert did; use an off-policy algorithm, such as SAC."
            )
        learns.own_steps_only = not self.config.expert_steps
        if policy.has_replay:
            learns.refused_proposals = self.config.blame == "proposal"
        elif self.config.blame == "proposal" or self.config.symmetric or demonstrations is not None:
            raise ValueError(
                f"RLIF: a {type(policy).__name__} replays nothing, and blame='proposal',"
                " demonstrations= and symmetric=True are about steps that are replayed; leave them"
                " out, or use an off-policy algorithm, such as SAC."
            )
        self.shown = self._show(learns, demonstrations)
        """Demonstrated steps that are replayed."""
        self.refused = 0
        """Actions of the policy that were not let pass so far."""
        self.unblamed = 0
        """Of these, such at the first step of an episode while the step before would be blamed."""
        self._silence = Silence(
            self.config.silence,
            "RLIF: nobody has intervened in the first {steps} steps, and without interventions"
            " every reward is 0 and there is nothing to learn; lower the margin of the rule, or"
            " look whether it sees what the policy does.",
        )

    def step(self, total_timesteps: int) -> dict[str, float] | None:
        """Act under supervision; blame; improve."""
        with self.clock("env"):
            segments = self.policy.collect()
        if segments is None:
            return None
        seen = np.asarray(segments.mask)
        refused, by_expert = (self._flag(segments, name) for name in (REFUSED, INTERVENED))
        self.refused += int(refused.sum())
        self._silence.look(self.refused > 0, self.num_timesteps, total_timesteps)
        unblamed = self._count_unblamed(segments, refused)
        with self.clock("policy"):
            metrics = self.policy.update(segments, self.blamed(segments))
            if self.config.blame == "previous":
                self.policy.relabel(self.blamed, np.unique(np.asarray(segments.episode)))
        return {
            **metrics,
            "rlif/intervened": float(by_expert.sum() / seen.sum()),
            "rlif/refused": float(refused.sum() / max(1, (seen & ~by_expert).sum())),
            **unblamed,
        }

    def blamed(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """The reward of each step."""
        refused = self._flag(segments, REFUSED).astype(np.float64)
        if self.config.blame == "previous":
            refused = np.pad(refused[:, 1:], ((0, 0), (0, 1)))
        blamed: np.ndarray = -refused * np.asarray(segments.mask)
        return blamed

    def _flag(self, segments: Segments, name: str) -> Bool[np.ndarray, " batch steps"]:
        flagged: np.ndarray = np.asarray(segments.factors[name]) > 0.0
        return flagged & np.asarray(segments.mask, np.bool_)

    def _show(self, replay: Any, demonstrations: Demonstrations | None) -> int:
        """Put demonstrations into the replay; how many steps they have."""
        spaces = self.env.single_observation_space, self.env.single_action_space
        if demonstrations is not None:
            replay.demonstrations = as_demonstrations(demonstrations, *spaces)
            replay.symmetric = self.config.symmetric
            return len(replay.demonstrations.rewards)
        if self.config.symmetric:
            raise ValueError(
                "symmetric=True takes half of every batch from demonstrations, and there are none;"
                " give demonstrations=."
            )
        return 0

    def _count_unblamed(
        self, segments: Segments, refused: Bool[np.ndarray, " batch steps"]
    ) -> dict[str, float]:
        """Count refused proposals that have no step before them, and warn of the first ones."""
        if self.config.blame != "previous":
            return {}
        new = int((refused[:, 0] & (np.asarray(segments.start) == 0)).sum())
        if new and not self.unblamed:
            warnings.warn(
                "RLIF: somebody took over at the first step of an episode, where no step before"
                " can be blamed, so that nothing is learned from it (counted as rlif/unblamed);"
                " with blame='posthoc' or 'proposal' there is always one to blame.",
                stacklevel=2,
            )
        self.unblamed += new
        return {"rlif/unblamed": float(self.unblamed)}

    def _check_supervision(self) -> None:
        running: Running | None = find_attribute(self.env.env, "running")
        if INTERVENED not in self.store.factor_names or running is None:
            raise ValueError(
                "RLIF: nobody supervises this environment; make it with supervision=Supervision("
                "expert, rule) (prefgym.interventions)."
            )
        wanted, judged = JUDGED[self.config.blame], running.supervision.judged
        if judged != wanted:
            raise ValueError(
                f"blame={self.config.blame!r} needs a supervision with judged={wanted!r}; this one"
                f" looks at {judged} actions."
            )

    def state(self) -> dict[str, Any]:
        """How often somebody was provoked so far."""
        return {
            "refused": self.refused,
            "unblamed": self.unblamed,
            "warned": self._silence.warned,
            "shown": self.shown,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`.

        Raises:
            ValueError: it was learned beside other demonstrations.
        """
        if state["shown"] != self.shown:
            raise ValueError(
                f"it was learned beside {state['shown']} demonstrated steps, and this learner has"
                f" {self.shown}; give the same demonstrations"
            )
        self.refused, self.unblamed = state["refused"], state["unblamed"]
        self._silence.warned = state["warned"]
