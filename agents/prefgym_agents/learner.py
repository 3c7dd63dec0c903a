"""What all learners share at the user's face: Stable-Baselines3's verbs around one loop."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from prefgym import checkpoints
from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.names import lookup
from prefgym.segments import Segments
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.logs import TensorBoardLog, print_table

PHASES = ("env", "rater", "reward_model", "policy")
"""Where the time of a run goes: acting, being asked, fitting rewards, improving the policy."""


class Clock:
    """Adds up the seconds spent in each phase."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count what happens inside towards ``phase``."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - begun

    def metrics(self) -> dict[str, float]:
        """Seconds so far, as ``time/<phase>``."""
        return {f"time/{phase}": spent for phase, spent in self.seconds.items()}


class Learner(ABC):
    """An algorithm that learns from preferences: the order in which the parts are called.

    Args:
        policy: the backend, with its environment.
        tensorboard_log: folder for TensorBoard; None writes nothing.
        verbose: 1 prints a table now and then.
    """

    def __init__(
        self, policy: PolicyBackend, tensorboard_log: str | Path | None = None, verbose: int = 0
    ) -> None:
        self.policy = policy
        self.env = policy.env
        self.tensorboard_log = tensorboard_log
        self.verbose = verbose
        self.clock = Clock()

    @property
    def num_timesteps(self) -> int:
        """What ``total_timesteps`` counts: environment steps taken, over all lanes."""
        return self.policy.num_timesteps

    @abstractmethod
    def step(self, total_timesteps: int) -> dict[str, float] | None:
        """One turn of the algorithm's loop.

        Args:
            total_timesteps: the environment steps at which training ends.

        Returns:
            Metrics by scalar name; None when a callback asked to stop.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What the learner itself remembers, beside the policy's state."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`."""

    def check_budget(self, labels: int) -> None:
        """Refuse a budget of the environment that does not allow so many labels in all.

        Raises:
            ValueError: it does not.
        """
        left, given = self.env.elicitor.budget_left, self.env.elicitor.labels_given
        if left is not None and left + given < labels:
            raise ValueError(
                f"labels={labels}, but the environment's budget allows only {left + given}; make it"
                f" with budget={labels}."
            )

    def preference_metrics(
        self, sessions: int, answers: Comparisons | None, learned_from: Comparisons | None
    ) -> dict[str, float]:
        """The scalars ``pref/...`` after a session.

        Args:
            sessions: portions of labels asked so far.
            answers: to the questions of this session; None where none was asked.
            learned_from: the comparisons that it learned from; None where there were none.
        """
        preferences = self.env.preferences
        told = {
            "pref/labelled": float(len(preferences)),
            "pref/skipped": float(preferences.skipped),
            "pref/sessions": float(sessions),
            "pref/asked_now": float(len(answers or ())),
        }
        if learned_from is not None:
            told["pref/ties"] = float(np.mean(learned_from.label == 0.5))
        return told

    def iterations(
        self, total_timesteps: int, callback: Any = None
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """Train until ``total_timesteps``, handing out (steps, metrics) after each turn."""
        self.policy.begin(total_timesteps, callback)
        begun, first = time.perf_counter(), self.num_timesteps
        while self.num_timesteps < total_timesteps:
            metrics = self.step(total_timesteps)
            if metrics is None:
                break
            steps = self.num_timesteps
            pace = (steps - first) / max(time.perf_counter() - begun, 1e-9)
            yield (
                steps,
                {
                    **self.policy.episode_statistics(),
                    "time/fps": pace,
                    "time/total_timesteps": float(steps),
                    **self.clock.metrics(),
                    **metrics,
                },
            )
        self.policy.end()

    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        log_interval: int = 1,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> "Learner":
        """Train; a second call with ``reset_num_timesteps=False`` goes on for as long again.

        Args:
            total_timesteps: environment steps, over all lanes.
            callback: Stable-Baselines3's callbacks, or a list of them.
            log_interval: turns of the loop between two log entries.
            tb_log_name: folder below ``tensorboard_log``.
            reset_num_timesteps: count from the first step ever (False: from where it stands).
            progress_bar: show one.
        """
        goal = total_timesteps + (0 if reset_num_timesteps else self.num_timesteps)
        if goal <= self.num_timesteps:
            raise ValueError(
                f"learn({total_timesteps}) would do nothing: {self.num_timesteps} steps were taken"
                " already; ask for more, or pass reset_num_timesteps=False to add to them."
            )
        board = None
        if self.tensorboard_log is not None:
            board = TensorBoardLog(Path(self.tensorboard_log) / tb_log_name)
        with Progress(disable=not progress_bar, transient=False) as bar:
            task = bar.add_task("learning", total=goal, completed=self.num_timesteps)
            for turn, (steps, metrics) in enumerate(self.iterations(goal, callback)):
                bar.update(task, completed=min(steps, goal))
                if turn % log_interval == 0:
                    if board is not None:
                        board(steps, metrics)
                    if self.verbose:
                        print_table(steps, metrics)
        if board is not None:
            board.close()
        return self

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Actions for observations, as Stable-Baselines3 has it."""
        return self.policy.predict(observation, state, episode_start, deterministic)

    def close(self) -> None:
        """Close the environment, and whatever else works for this learner alone."""
        self.env.close()

    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on bit for bit: policy, environment, learner, generators."""
        # The policy comes last in set_state: it puts the global generators back.
        return {
            "learner": deepcopy(self.state()),
            "clock": dict(self.clock.seconds),
            "policy": self.policy.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`get_state`."""
        self.restore(state["learner"])
        self.clock.seconds = dict(state["clock"])
        self.policy.set_state(state["policy"])

    def load_policy(self, state: Mapping[str, Any]) -> None:
        """Act as the agent of a :meth:`get_state` did, and leave everything else as it is."""
        self.policy.load_policy(state["policy"])

    def save(self, path: str | Path) -> None:
        """Write everything to a folder, as safetensors and JSON."""
        checkpoints.save(path, {"kind": type(self).__name__, "state": self.get_state()})

    def load(self, path: str | Path) -> "Learner":
        """Become what was saved; the learner must have been made with the same arguments.

        Raises:
            prefgym.checkpoints.CheckpointError: there is nothing readable at ``path``.
        """
        saved = checkpoints.load(path)
        if saved["kind"] != type(self).__name__:
            raise checkpoints.CheckpointError(
                f"{path} holds a {saved['kind']}, not a {type(self).__name__}; load it with that"
                " class."
            )
        try:
            self.set_state(saved["state"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise checkpoints.CheckpointError(
                f"{path} does not fit this {type(self).__name__} ({error}); make it with the"
                " environment, algorithm and settings that it was saved with."
            ) from error
        return self


def as_rewards(values: Any) -> np.ndarray:
    """Rewards ``[B, T]`` of a model as a numpy array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, np.float32)


def acted(comparisons: Comparisons, factors: Sequence[str] = ()) -> Comparisons:
    """What a learner may read of comparisons: no true rewards, no advantages, no factors.

    Args:
        comparisons: as they are kept.
        factors: those that the learner measures itself wherever it acts, which it may read.

    Raises:
        ValueError: a factor is not there.
    """

    def of(segments: Segments) -> Segments:
        plain = segments.numpy()
        return Segments(
            actions=plain.actions,
            mask=plain.mask,
            context=plain.context,
            context_id=plain.context_id,
            observations=plain.observations,
            factors={name: lookup(name, plain.factors, "factor") for name in factors},
        )

    return comparisons.replace(a=of(comparisons.a), b=of(comparisons.b))


def given(
    env: Any, data: PreferenceDataset | Comparisons | None, factors: Sequence[str] = ()
) -> Comparisons | None:
    """Comparisons from elsewhere, as a learner in this environment reads them.

    Raises:
        ValueError: there are none, or their segments are none of this environment's, or they lack
            factors that the learner reads.
    """
    if data is None:
        return None
    if not len(data):
        raise ValueError("data= holds no comparisons; ask some first.")
    known = acted(data.comparisons if isinstance(data, PreferenceDataset) else data, factors)
    for side in (known.a, known.b):
        try:
            env.check_segments(side)
        except ValueError as error:
            raise ValueError(f"data= does not fit the environment: {error}") from error
    return known
