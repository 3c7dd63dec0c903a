"""One environment that hides its reward and emits preferences about its segments."""

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.elicitation import Elicitor, Schedule
from prefgym.raters import Rater
from prefgym.registration import ENVIRONMENTS
from prefgym.segments import Segments
from prefgym.wrappers.inner import (
    CAPACITY,
    check_length,
    chosen_rater,
    fitting_store,
    limit,
)

_ALONE = np.zeros(1, np.int64)


class PreferenceEnv(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Hide the reward of any Gymnasium environment, and emit preferences about its segments.

    Args:
        env: the environment; its reward is the truth that scripted raters read.
        rater: a name, a rater, or a callable of your own (see :func:`prefgym.raters.make_rater`).
        rater_kwargs: arguments for a rater given by name.
        segment_steps: length of the segments that are compared.
        query_every: steps between two emitted comparisons; None emits none by itself.
        budget: labels that may be given in all; None means no limit.
        recent: compare only segments of about the newest so many steps; None means all.
        capacity: steps that are remembered.
        directory: keep the answers on disk here, crash-safe; None keeps them in memory.
        value_source: advantages for raters that read regret: a function of observations and
            actions, or the file of a trained critic; by default those that the environment knows.

    ``step`` returns reward 0.0. ``env.get_wrapper_attr`` reaches ``preferences`` (the answers),
    ``store`` (the steps), ``rater`` (who answers) and ``compare(a, b)`` (ask now, within the
    budget).
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        rater: str | Rater | Callable[..., Any] = "partial-return",
        *,
        rater_kwargs: Mapping[str, Any] | None = None,
        segment_steps: int = 50,
        query_every: int | None = 100,
        budget: int | None = None,
        recent: int | None = None,
        capacity: int = CAPACITY,
        directory: str | Path | None = None,
        value_source: Callable[..., Any] | str | PathLike[str] | None = None,
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            _disable_deepcopy=True,  # a rater may be a person at a screen
            rater=rater,
            rater_kwargs=rater_kwargs,
            segment_steps=segment_steps,
            query_every=query_every,
            budget=budget,
            recent=recent,
            capacity=capacity,
            directory=directory,
            value_source=value_source,
        )
        gym.Wrapper.__init__(self, env)
        check_length(segment_steps, *limit(env))
        schedule = Schedule(segment_steps, query_every, budget, recent)
        self.store = fitting_store(env, env.observation_space, env.action_space, 1, capacity)
        chosen = chosen_rater(env, rater, value_source, rater_kwargs)
        self.elicitor = Elicitor(self.store, chosen, schedule, directory)
        self._seeded = False

    @property
    def spec(self) -> Any:  # type: ignore[override]  # as gymnasium.Wrapper itself does
        """Of a ``prefgym/`` id: that id, which holds this layer. Else with this wrapper added."""
        inner = self.env.spec
        if inner is not None and inner.id in ENVIRONMENTS:
            return inner
        return super().spec

    @property
    def preferences(self) -> PreferenceDataset:
        """Every comparison answered so far."""
        return self.elicitor.preferences

    @property
    def rater(self) -> Rater:
        """Who answers: its ``probability(a, b)`` is the exact mean label, and costs no budget."""
        return self.elicitor.rater

    @property
    def segment_steps(self) -> int:
        """Steps of each segment of an emitted pair."""
        return self.elicitor.schedule.segment_steps

    def stop_emitting(self) -> None:
        """From now on compare only on request: a learner that chooses its pairs does this."""
        self.elicitor.stop_emitting()

    def compare(self, a: Segments, b: Segments) -> Comparisons:
        """Ask the rater about pairs of segments now; see :meth:`Elicitor.compare`."""
        return self.elicitor.compare(a, b)

    def sample_pairs(
        self, count: int, rng: np.random.Generator, recent: int | None = None
    ) -> tuple[Segments, Segments]:
        """Draw pairs that may be compared; see :meth:`Elicitor.sample_pairs`."""
        return self.elicitor.sample_pairs(count, rng, recent)

    def rewind(self) -> None:
        """Begin with the first question again; what the disk has is not asked a second time."""
        self.elicitor.rewind()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; a seed also fixes who is asked what, and the answers."""
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None or not self._seeded:
            self.elicitor.seed(int(self.np_random.spawn(1)[0].integers(2**62)))
            self._seeded = True
        context = info.get("context_id")
        self.store.begin(
            _ALONE, np.asarray(observation)[None], None if context is None else np.array([context])
        )
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act; the reward is 0.0, and a comparison may have been answered."""
        actions = np.asarray(action)[None]
        self.store.check_actions(actions)
        observation, reward, terminated, truncated, info = self.env.step(action)
        actions = np.asarray(info.get("executed_action", action))[None]
        truth = float(reward)
        self.store.append(
            _ALONE,
            actions,
            np.array([truth]),
            np.asarray(observation)[None],
            np.array([terminated], np.bool_),
            np.array([truncated], np.bool_),
            info.get("factors"),
        )
        info = {**info, "true_reward": truth}
        answer = self.elicitor.emit(1)
        if answer is not None:
            info["preference"] = answer
        return observation, 0.0, terminated, truncated, info

    def close(self) -> None:
        """Close the environment, and let another process write to the directory of the answers."""
        self.preferences.close()
        super().close()
