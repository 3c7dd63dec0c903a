"""Self-play preference optimisation (SPO): what a trajectory earns is how often it is preferred.

Source: Swamy et al. (2024), A minimaximalist approach to reinforcement learning from human
feedback, arXiv:2401.04056, algorithm 2.

The loop: act; compare every new trajectory with the policy's own recent ones; give its win rate to
its steps, in equal parts; improve the policy. No reward is learned, so none has to exist: where
preferences go round in a circle the *average* of all policies is the one that no other beats, and
a reservoir of snapshots keeps a sample of it (:meth:`SPO.average`).

    r(ξ) = mean over opponents q of P(ξ ≻ q),   every step of ξ earns scale · (r(ξ) − ½) / H

with H the steps of ξ. No trajectory is compared with itself or its own episode. While the queue is
not full the trajectories of the same turn are opponents, too.

Steps are learned from once (on-policy) or again and again (off-policy):

- once: what was collected has to be judged at once, though episodes may go on. One that does is
  compared, as far as it has come, with the first as many steps of its opponents, and H is the mean
  length of theirs if that is longer.
- again: episodes are judged when they end, and all of their steps get their share then; until then
  these earn 0, the same as for an even match. Win rates in the replay grow stale as the queue moves
  on; ``rejudge_every`` asks anew.

Segments (``compare="segments"``) in the place of whole episodes say better which part was good, but
a preference for something that happens over a whole episode is lost on them.

Metrics: ``pref/labelled`` (comparisons asked so far), ``spo/win_rate`` (mean of this turn's),
``spo/win_rate_deviation``, ``spo/trajectories`` (judged so far), ``spo/opponents`` (in the queue),
``spo/snapshots``; seconds as ``time/<phase>``, and what the backend says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from prefgym.names import lookup, settings_of
from prefgym.rewards import win_rates
from prefgym.segments import Segments
from prefgym.store import SegmentIndex
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.learner import Learner
from prefgym_agents.opponents import Queue, drawn_opponents, may_meet
from prefgym_agents.reservoir import AveragePolicy, Reservoir
from prefgym_agents.worth import Worth

Compare = Literal["episodes", "segments"]
Opponents = Literal["queue", "group"]
Answers = Literal["drawn", "exact"]
BYTES_AT_ONCE = 1 << 28
"""Of one side of the pairs that are put to a rater in one call."""


@dataclass(frozen=True)
class Config:
    """Settings of SPO."""

    compare: Compare = "episodes"
    """What is compared: whole episodes, or pieces of them as long as the environment's segments."""
    opponents: Opponents = "queue"
    """Whom with: recent trajectories, or those of the same turn. Where only equal contexts may be
    compared, it is those with the same context."""
    queue: int = 10
    """Trajectories in the queue; where only equal contexts may be compared, for each of them."""
    comparisons: int | None = None
    """Opponents of each trajectory, drawn anew; None: all that there are."""
    answers: Answers = "drawn"
    """Answers as a person gives them, or the rater's exact probabilities."""
    labels: int | None = None
    """Comparisons that may be asked in all, spread evenly over the steps; None: no limit."""
    scale: float = 1.0
    """What a trajectory that always wins earns more than one that always loses."""
    rejudge_every: int | None = None
    """Turns after which all that is still learned from is judged anew; None: never."""
    snapshots: int = 16
    """Policies that are kept for the average; 0 keeps none."""
    act: Literal["last", "average"] = "last"
    """Who ``predict`` is: the newest policy, or a snapshot that is drawn for every episode."""
    seed: int = 0
    """Of the draws of opponents and snapshots."""

    def __post_init__(self) -> None:
        """Refuse settings that can never work."""
        for name, kind in (("compare", Compare), ("opponents", Opponents), ("answers", Answers)):
            lookup(getattr(self, name), dict.fromkeys(get_args(kind)), f"setting of {name}=")
        lookup(self.act, dict.fromkeys(("last", "average")), "setting of act=")
        for name, least in (
            ("queue", 1),
            ("comparisons", 1),
            ("labels", 1),
            ("rejudge_every", 1),
            ("snapshots", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value}; wanted at least {least}.")
        if not self.scale > 0.0:
            raise ValueError(f"scale={self.scale}; wanted a number above 0.")
        if self.act == "average" and not self.snapshots:
            raise ValueError("act='average' needs snapshots to act as; give snapshots=1 or more.")


PRESETS: dict[str, Config] = {
    "default": Config(),
    "group": Config(opponents="group"),
    "segments": Config(compare="segments", queue=50, comparisons=10),
}


class SPO(Learner):
    """Self-play preference optimisation, on any backend.

    Args:
        policy: who acts and improves; its environment's rater compares trajectories.
        config: the settings, or the name of a preset: default, group or segments.
        tensorboard_log: folder for TensorBoard.
        verbose: 1 prints tables.
        **changes: single settings that differ from ``config``.

    Raises:
        ValueError: unknown settings, or a budget smaller than ``labels``.

    Example: ``SPO(backend, queue=20).learn(100_000).average().predict(observations)``.
    """

    def __init__(
        self,
        policy: PolicyBackend,
        config: Config | str = "default",
        *,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        **changes: Any,
    ) -> None:
        super().__init__(policy, tensorboard_log, verbose)
        self.config: Config = settings_of(config, changes, "SPO", PRESETS)
        if self.config.labels is not None:
            self.check_budget(self.config.labels)
        self.store = self.env.store
        self.env.stop_emitting()
        self.queue = Queue(self.config.queue, self.store.across_contexts)
        self.reservoir = Reservoir(self.config.snapshots, self.config.seed)
        self.turns = 0
        """Turns of the loop so far."""
        self.judged = 0
        """Trajectories judged so far."""
        self._mean_rate = 0.5, 0.0
        self._average: AveragePolicy | None = None

    # -- the algorithm ------------------------------------------------------------------------

    def step(self, total_timesteps: int) -> dict[str, float] | None:
        """Act; compare what came of it with the queue; improve the policy for the win rates."""
        with self.clock("env"):
            segments = self.policy.collect()
        if segments is None:
            return None
        with self.clock("rater"):
            worth = self._compared(self._trajectories(segments), total_timesteps)
        with self.clock("policy"):
            if self.policy.has_replay and len(worth.episodes):
                self.policy.relabel(worth.of, worth.episodes)
            metrics = self.policy.update(segments, worth.of(segments))
        self.turns += 1
        if self.config.rejudge_every and self.turns % self.config.rejudge_every == 0:
            self.policy.relabel(self._judged_anew)
        self.reservoir.offer(self.policy.snapshot)
        return {**metrics, **self._metrics()}

    def average(self, seed: int = 0) -> AveragePolicy:
        """The average of the policies so far: acts as one of the snapshots in each episode.

        Raises:
            ValueError: there are none.
        """
        return AveragePolicy(self.policy, list(self.reservoir.kept), seed)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Actions for observations, by the newest policy or by the average (``act``)."""
        if self.config.act == "last" or not len(self.reservoir):
            return self.policy.predict(observation, state, episode_start, deterministic)
        if self._average is None or state is None:
            self._average = self.average(self.config.seed)
        return self._average.predict(observation, state, episode_start, deterministic)

    def load_policy(self, state: Mapping[str, Any]) -> None:
        """Act as the agent of a state did, the snapshots for its average included."""
        super().load_policy(state)
        self.reservoir.restore(state["learner"]["reservoir"])
        self._average = None

    # -- trajectories -------------------------------------------------------------------------

    def _trajectories(self, segments: Segments) -> SegmentIndex:
        """What is to be judged after these steps."""
        episodes = np.unique(np.asarray(segments.episode))
        if self.policy.has_replay:
            return self._cut(self.store.whole(episodes[self.store.ended(episodes)]))
        if self.config.compare == "segments":
            index = (segments.episode, segments.start, segments.lengths)
            return self._cut(SegmentIndex(*(np.asarray(one, np.int64) for one in index)))
        return self._cut(self.store.whole(episodes))

    def _cut(self, index: SegmentIndex) -> SegmentIndex:
        return index if self.config.compare == "episodes" else index.pieces(self.env.segment_steps)

    def _compared(self, index: SegmentIndex, total_timesteps: int) -> Worth:
        """Judge new trajectories, and let those that are complete join the queue."""
        if not len(index.episode):
            return Worth(np.zeros(0, np.int64), np.zeros((0, 0)))
        known, going_on = self._read(index)
        complete = known.take(np.flatnonzero(~going_on))
        allowed = self._allowed(total_timesteps)
        if self.config.opponents == "group":
            rates = self._rates(known, going_on, known, allowed)
        elif self.queue.is_full_for(np.asarray(known.context_id)).all():
            assert self.queue.members is not None
            rates = self._rates(known, going_on, self.queue.members, allowed)
            self.queue.push(complete)
        else:
            older = [] if self.queue.members is None else [self.queue.members]
            rates = self._rates(known, going_on, Segments.concatenate([*older, complete]), allowed)
            self.queue.push(complete)
        self.judged += len(rates)
        self._mean_rate = float(rates.mean()), float(rates.std())
        return self._spread(index, rates, going_on)

    def _read(self, index: SegmentIndex) -> tuple[Segments, Bool[np.ndarray, " n"]]:
        """Trajectories, and which of them go on."""
        return self.store.segments(index, int(index.length.max())), self._goes_on(index)

    def _goes_on(self, index: SegmentIndex) -> Bool[np.ndarray, " n"]:
        """Which trajectories are shorter than they would have been, had they not been cut off."""
        short = np.zeros(len(index.episode), np.bool_)
        if self.config.compare == "episodes":
            short |= ~self.store.ended(index.episode)
        else:
            short |= (index.length < self.env.segment_steps) & ~self.store.terminal(index)
        return short

    def _spread(
        self,
        index: SegmentIndex,
        rates: Float[np.ndarray, " n"],
        going_on: Bool[np.ndarray, " n"],
    ) -> Worth:
        """Win rates in equal parts over the steps of their trajectories."""
        steps = index.length.astype(np.float64)
        if going_on.any() and self.queue.members is not None:
            steps[going_on] = np.maximum(steps, self.queue.members.lengths.mean())[going_on]
        each = self.config.scale * (rates - 0.5) / steps
        episodes, row = np.unique(index.episode, return_inverse=True)
        worth = np.zeros((len(episodes), int((index.start + index.length).max())))
        before = np.repeat(np.cumsum(index.length) - index.length, index.length)
        place = np.arange(len(before)) - before + np.repeat(index.start, index.length)
        worth[np.repeat(row, index.length), place] = np.repeat(each, index.length)
        return Worth(episodes, worth)

    def _judged_anew(self, segments: Segments) -> np.ndarray:
        """What steps in the replay are worth against today's opponents."""
        index = self.store.whole(np.unique(np.asarray(segments.episode)))
        index = self._cut(SegmentIndex(*(one[self.store.ended(index.episode)] for one in index)))
        opponents = self.queue.members
        if opponents is None or not len(index.episode):
            return np.zeros(segments.mask.shape)
        known, going_on = self._read(index)
        rates = self._rates(known, going_on, opponents, self.env.elicitor.budget_left)
        return self._spread(index, rates, going_on).of(segments)

    # -- win rates ----------------------------------------------------------------------------

    def _rates(
        self,
        known: Segments,
        going_on: Bool[np.ndarray, " n"],
        opponents: Segments,
        allowed: int | None,
    ) -> Float[np.ndarray, " n"]:
        """How often each is preferred to its opponents; ½ for one without any."""
        rng = np.random.default_rng((self.config.seed, self.turns, self.judged))
        meet = may_meet(known, opponents, self.store.across_contexts)
        mutual = opponents is known
        if mutual:
            meet = np.triu(meet)  # the other half says the same
        if self.config.comparisons is not None:
            meet = drawn_opponents(meet, self.config.comparisons, rng)
        first, second = np.nonzero(meet)
        if allowed is not None and len(first) > allowed:
            kept = np.sort(rng.permutation(len(first))[:allowed])
            first, second = first[kept], second[kept]
        open_ended = going_on[first] | (going_on[second] if mutual else False)
        answers = self._asked(known, opponents, first, second, open_ended)
        chances, met = np.full(meet.shape, 0.5), np.zeros(meet.shape, np.bool_)
        chances[first, second], met[first, second] = answers, True
        if mutual:
            chances[second, first], met[second, first] = 1.0 - answers, True
        rates: np.ndarray = win_rates(torch.as_tensor(chances), torch.as_tensor(met)).numpy()
        return rates

    def _asked(
        self,
        known: Segments,
        opponents: Segments,
        first: Int[np.ndarray, " pairs"],
        second: Int[np.ndarray, " pairs"],
        open_ended: Bool[np.ndarray, " pairs"],
    ) -> Float[np.ndarray, " pairs"]:
        """The rater's answers, in one call unless that would take too much memory.

        Of an open-ended pair as many steps of both sides are compared as the shorter one has.
        """
        lengths = known.lengths[first], opponents.lengths[second]
        limit = np.where(open_ended, np.minimum(*lengths), max(known.steps, opponents.steps))
        at_once = max(1, int(BYTES_AT_ONCE // max(_row_bytes(known), _row_bytes(opponents))))
        answers = [np.zeros(0)]
        for begin in range(0, len(first), at_once):
            part = slice(begin, begin + at_once)
            sides = known.take(first[part]), opponents.take(second[part])
            if open_ended[part].any():
                sides = sides[0].first(limit[part]), sides[1].first(limit[part])
            answers.append(self.env.judge(*sides, exact=self.config.answers == "exact"))
        return np.concatenate(answers)

    def _allowed(self, total_timesteps: int) -> int | None:
        """Comparisons that this turn may ask for; None: as many as it likes."""
        left: int | None = self.env.elicitor.budget_left
        if self.config.labels is None:
            return left
        due = int(self.config.labels * min(1.0, self.num_timesteps / total_timesteps))
        share: int = max(0, due - self.env.elicitor.judged)
        return share if left is None else min(left, share)

    # -- keeping ------------------------------------------------------------------------------

    def _metrics(self) -> dict[str, float]:
        return {
            "pref/labelled": float(self.env.elicitor.judged),
            "spo/win_rate": self._mean_rate[0],
            "spo/win_rate_deviation": self._mean_rate[1],
            "spo/trajectories": float(self.judged),
            "spo/opponents": float(len(self.queue)),
            "spo/snapshots": float(len(self.reservoir)),
        }

    def state(self) -> dict[str, Any]:
        """Queue, snapshots, and where the schedule stands."""
        return {
            "queue": self.queue.state(),
            "reservoir": self.reservoir.state(),
            "turns": self.turns,
            "judged": self.judged,
            "mean_rate": list(self._mean_rate),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.queue.restore(state["queue"])
        self.reservoir.restore(state["reservoir"])
        self.turns, self.judged = state["turns"], state["judged"]
        self._mean_rate = (state["mean_rate"][0], state["mean_rate"][1])
        self._average = None


def _row_bytes(segments: Segments) -> float:
    """Memory of one of them."""
    whole = sum(int(one.nbytes) for one in segments.arrays().values())
    return max(1.0, whole / max(1, len(segments)))
