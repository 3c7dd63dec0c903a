"""The Gymnasium layer: environments that hide their reward and emit preferences instead.

``info`` of every step holds the truth under one key, ``true_reward``, for scores; ``factors``
where the task names parts of its reward; and, only on the step at which a comparison was
answered, ``preference`` with plain numbers (which two segments, the label, who answered). The
segments themselves stay in the store.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.elicitation import Elicitor, Schedule
from prefgym.raters import ProbabilityRater, Rater, make_rater
from prefgym.registration import ENVIRONMENTS
from prefgym.segments import Segments
from prefgym.store import EpisodeStore
from prefgym.vector import ReplayableVectorEnv

GAME = "game"
CAPACITY = 1_000_000
"""Steps that a preference environment remembers, over all its lanes, unless told otherwise."""
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
        value_source: advantages for raters that read regret; taken from the environment where it
            solves itself exactly.

    ``step`` returns reward 0.0. ``env.get_wrapper_attr`` reaches ``preferences`` (the answers),
    ``store`` (the steps) and ``compare(a, b)`` (ask now, within the budget).
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
        value_source: Callable[..., Any] | None = None,
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
        check_length(segment_steps, *_limit(env))
        schedule = Schedule(segment_steps, query_every, budget, recent)
        self.store = EpisodeStore(
            env.observation_space, env.action_space, 1, capacity, _factor_names(env)
        )
        chosen = _chosen(env, rater, value_source, rater_kwargs)
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
    def segment_steps(self) -> int:
        """Steps of each segment of an emitted pair."""
        return self.elicitor.schedule.segment_steps

    def stop_emitting(self) -> None:
        """From now on compare only on request: a learner that chooses its pairs does this."""
        self.elicitor.stop_emitting()

    def compare(self, a: Segments, b: Segments) -> Comparisons:
        """Ask the rater about pairs of segments now; see :meth:`Elicitor.compare`."""
        return self.elicitor.compare(a, b)

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


class PreferenceVectorEnv(gym.vector.VectorWrapper):
    """:class:`PreferenceEnv` for vector environments: one store, one rater, one budget.

    Works under all three autoreset modes; a reset step never enters a segment. ``infos`` hold
    ``true_reward`` (``[n]``, with the mask ``_true_reward`` of lanes that really acted),
    ``factors``, and ``preference`` only where one was answered.

    Args: as :class:`PreferenceEnv`.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        rater: str | Rater | Callable[..., Any] = "partial-return",
        *,
        rater_kwargs: Mapping[str, Any] | None = None,
        segment_steps: int = 50,
        query_every: int | None = 100,
        budget: int | None = None,
        recent: int | None = None,
        capacity: int = CAPACITY,
        directory: str | Path | None = None,
        value_source: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(env)
        check_length(segment_steps, *_limit(env))
        schedule = Schedule(segment_steps, query_every, budget, recent)
        self.autoreset_mode = AutoresetMode(env.metadata.get("autoreset_mode", "NextStep"))
        self.store = EpisodeStore(
            env.single_observation_space,
            env.single_action_space,
            env.num_envs,
            max(2, capacity // env.num_envs),
            _factor_names(env),
        )
        chosen = _chosen(env, rater, value_source, rater_kwargs)
        self.elicitor = Elicitor(self.store, chosen, schedule, directory)
        self._seeded = False
        self._resetting = np.zeros(env.num_envs, np.bool_)
        self._lanes = np.arange(env.num_envs)

    @property
    def preferences(self) -> PreferenceDataset:
        """Every comparison answered so far."""
        return self.elicitor.preferences

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

    def rewind(self) -> None:
        """Begin with the first question again; what the disk has is not asked a second time."""
        self.elicitor.rewind()

    def close(self, **kwargs: Any) -> None:
        """Close all lanes, and let another process write to the directory of the answers."""
        self.preferences.close()
        super().close(**kwargs)

    def get_wrapper_attr(self, name: str) -> Any:
        """As single environments have it: an attribute of this layer or of one below."""
        found = find_attribute(self, name)
        if found is None:
            raise AttributeError(f"{self} has no attribute {name!r}.")
        return found

    def reset(
        self,
        *,
        seed: Any = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin episodes; a seed (or one per lane) also fixes all questions and answers."""
        mask = np.ones(self.num_envs, np.bool_)
        if options is not None and "reset_mask" in options:
            mask = np.asarray(options["reset_mask"], np.bool_)
        observations, infos = self.env.reset(seed=seed, options=options)
        if seed is not None or not self._seeded:
            given = [0 if one is None else one for one in np.atleast_1d(np.asarray(seed))]
            entropy = np.random.SeedSequence(None if seed is None else [int(s) for s in given])
            self.elicitor.seed(int(np.random.default_rng(entropy).integers(2**62)))
            self._seeded = True
        self._resetting[mask] = False
        self._begin(mask, observations, infos)
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every lane; rewards are 0.0, and comparisons may have been answered."""
        acted = ~self._resetting
        lanes = self._lanes if np.count_nonzero(acted) == self.num_envs else np.nonzero(acted)[0]
        chosen = self._of(lanes, np.asarray(actions))
        self.store.check_actions(chosen)
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        ended = terminated | truncated
        arrived = observations
        if self.autoreset_mode == AutoresetMode.SAME_STEP and np.count_nonzero(ended):
            arrived = np.array(observations)
            arrived[ended] = np.stack(list(infos["final_obs"][ended]))
        self.store.append(
            lanes,
            chosen,
            self._of(lanes, rewards),
            self._of(lanes, arrived),
            self._of(lanes, terminated),
            self._of(lanes, truncated),
            self._factors(infos, lanes, ended),
        )
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            self._begin(ended, observations, infos)
        else:
            self._begin(self._resetting, observations, infos)
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            self._resetting = ended
        infos = {**infos, "true_reward": np.where(acted, rewards, 0.0), "_true_reward": acted}
        answer = self.elicitor.emit(len(lanes))
        if answer is not None:
            infos["preference"] = answer
        return observations, np.zeros(self.num_envs), terminated, truncated, infos

    def get_state(self) -> dict[str, Any]:
        """Everything but the answers: steps, running episodes, where the schedule stands.

        Raises:
            ValueError: the wrapped vector environment cannot be resumed.
        """
        vector: Any = self.env.unwrapped
        if not hasattr(vector, "get_state"):
            raise ValueError(
                f"{type(vector).__name__} cannot be resumed exactly; make the"
                " environment with gymnasium.make_vec on a prefgym id, or wrap your factories in"
                " prefgym.vector.ReplayableVectorEnv."
            )
        state = {f"env/{name}": value for name, value in vector.get_state().items()}
        state |= {f"store/{name}": value for name, value in self.store.state().items()}
        state |= {f"ask/{name}": value for name, value in self.elicitor.get_state().items()}
        return state | {"resetting": self._resetting.copy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`get_state`."""

        def part(prefix: str) -> dict[str, Any]:
            return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}

        vector: Any = self.env.unwrapped
        vector.set_state(part("env/"))
        self.store.restore(part("store/"))
        self.elicitor.set_state(part("ask/"))
        self._resetting = state["resetting"].copy()
        self._seeded = True

    def _begin(self, mask: np.ndarray, observations: Any, infos: Mapping[str, Any]) -> None:
        lanes = np.nonzero(mask)[0]
        if len(lanes):
            context = infos.get("context_id")
            self.store.begin(
                lanes, observations[lanes], None if context is None else context[lanes]
            )

    def _factors(
        self, infos: Mapping[str, Any], lanes: np.ndarray, ended: np.ndarray
    ) -> dict[str, np.ndarray] | None:
        """The factors of the step just taken; Gymnasium keeps those of a last step elsewhere."""
        if not self.store.factor_names or ("factors" not in infos and "final_info" not in infos):
            return None
        names, nothing = self.store.factor_names, np.zeros(self.num_envs)
        told = infos.get("factors", {})
        if "final_info" in infos:
            last = infos["final_info"].get("factors", {})
            told = {
                name: np.where(ended, last.get(name, nothing), told.get(name, nothing))
                for name in names
            }
        return {name: self._of(lanes, told.get(name, nothing)) for name in names}

    def _of(self, lanes: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Those of some lanes; as it is where all are meant, which is nearly always."""
        return values if lanes is self._lanes else values[lanes]


class LearnedReward(gym.Wrapper[Any, Any, Any, Any]):
    """Give a stock agent a learned reward: any function of observation and action.

    Args:
        env: usually a preference environment.
        reward: ``(observation, action) -> float``, for example a reward model's
            :meth:`~prefgym.models.reward_models.RewardModel.step_reward`.

    The truth stays in ``info["true_reward"]``.
    """

    def __init__(self, env: gym.Env[Any, Any], reward: Callable[[Any, Any], float]) -> None:
        super().__init__(env)
        self.reward = reward
        self._observation: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act; the reward is the learned one for what was seen before the action."""
        reward = float(self.reward(self._observation, action))
        if not np.isfinite(reward):
            raise ValueError(
                f"LearnedReward: the reward function returned {reward}; wanted a finite number."
            )
        self._observation, _, terminated, truncated, info = self.env.step(action)
        return self._observation, reward, terminated, truncated, info


def preference_layer(env: Any) -> PreferenceVectorEnv:
    """The preference layer among the wrappers of a vector environment.

    Raises:
        ValueError: there is none.
    """
    if isinstance(env, gym.Env):
        raise ValueError(
            f"{env} is a single environment; learners act in vector environments: make it with"
            " gymnasium.make_vec(id, num_envs=8)."
        )
    layer = env
    while not isinstance(layer, PreferenceVectorEnv):
        layer = getattr(layer, "env", None)
        if layer is None:
            raise ValueError(
                f"{env} does not emit preferences; make it with gymnasium.make_vec on a prefgym id,"
                " or wrap a vector environment in prefgym.wrappers.PreferenceVectorEnv."
            )
    return layer


def find_attribute(env: Any, name: str) -> Any:
    """An attribute of the outermost layer that has it; None where none does.

    Gymnasium's vector environments lack ``get_wrapper_attr``. The lanes of a vector environment
    are alike, so the first one speaks for all, where it lives in this process.
    """
    layer = env
    while layer is not None:
        if hasattr(layer, name):
            return getattr(layer, name)
        layer = _inner(layer)
    return None


def _inner(layer: Any) -> Any:
    if isinstance(layer, ReplayableVectorEnv | SyncVectorEnv):
        return layer.envs[0]
    return layer.env if isinstance(layer, gym.Wrapper | gym.vector.VectorWrapper) else None


def _chosen(
    env: Any,
    rater: str | Rater | Callable[..., Any],
    value_source: Callable[..., Any] | None,
    options: Mapping[str, Any] | None,
) -> Rater:
    """The rater that is meant; "game" is the preference that the environment itself defines."""
    if rater == GAME:
        preference = find_attribute(env, "preference")
        if preference is None:
            raise ValueError(
                f"The rater {GAME!r} is for environments that define a preference of their own"
                f" (prefgym/Condorcet-v0); {env} does not. Choose another rater."
            )
        rater, options = partial(_first_choices, preference), {"meaning": GAME, **(options or {})}
        return ProbabilityRater(rater, **options)
    values = value_source or _own_values(env)
    if rater == "regret" and values is None:
        raise ValueError(
            f"The rater 'regret' needs a value source, and {env} does not solve itself; pass"
            " value_source= (for example a prefgym.values.Critic), or choose another rater."
        )
    return make_rater(rater, values, **(options or {}))


def _first_choices(preference: Callable[..., Any], a: Segments, b: Segments) -> Any:
    return preference(a.actions[:, 0], b.actions[:, 0])


def _factor_names(env: Any) -> tuple[str, ...]:
    return tuple(find_attribute(env, "factor_names") or ())


def _own_values(env: Any) -> Callable[..., Any] | None:
    """The exact advantages of environments that solve themselves."""
    found: Callable[..., Any] | None = find_attribute(env, "advantages")
    return found


def _limit(env: Any) -> tuple[str, int | None]:
    """The id of an environment, and after how many steps its episodes end, where that is known."""
    spec = env.spec
    if spec is None:
        return str(env), None
    return spec.id, spec.kwargs.get("max_episode_steps", spec.max_episode_steps)


def check_length(segment_steps: Any, name: str, limit: int | None) -> None:
    """Refuse segments that no episode can hold."""
    if limit is not None and isinstance(segment_steps, int) and 0 < limit < segment_steps:
        raise ValueError(
            f"segment_steps={segment_steps} is longer than an episode of {name}, which has at most"
            f" {limit} steps; choose shorter segments."
        )
