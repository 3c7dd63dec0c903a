"""A vector environment that hides its reward and emits preferences about its segments."""

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Float

from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.elicitation import Elicitor, Schedule
from prefgym.raters import Rater
from prefgym.responses import ResponseStore
from prefgym.segments import Segments
from prefgym.spaces import check_steps
from prefgym.text import Layout
from prefgym.wrappers.inner import (
    CAPACITY,
    check_length,
    chosen_rater,
    find_attribute,
    fitting_store,
    limit,
    name_of,
)


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
        value_source: Callable[..., Any] | str | PathLike[str] | None = None,
    ) -> None:
        super().__init__(env)
        check_length(segment_steps, *limit(env))
        schedule = Schedule(segment_steps, query_every, budget, recent)
        self.autoreset_mode = AutoresetMode(env.metadata.get("autoreset_mode", "NextStep"))
        spaces = env.single_observation_space, env.single_action_space
        self.store = fitting_store(env, *spaces, env.num_envs, capacity)
        chosen = chosen_rater(env, rater, value_source, rater_kwargs)
        self.elicitor = Elicitor(self.store, chosen, schedule, directory)
        self._seeded = False
        self._resetting = np.zeros(env.num_envs, np.bool_)
        self._lanes = np.arange(env.num_envs)

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

    def judge(
        self, a: Segments, b: Segments, *, exact: bool = False
    ) -> Float[np.ndarray, " batch"]:
        """Ask about pairs that are not kept; see :meth:`Elicitor.judge`."""
        return self.elicitor.judge(a, b, exact=exact)

    def sample_pairs(
        self, count: int, rng: np.random.Generator, recent: int | None = None
    ) -> tuple[Segments, Segments]:
        """Draw pairs that may be compared; see :meth:`Elicitor.sample_pairs`."""
        return self.elicitor.sample_pairs(count, rng, recent)

    def rewind(self) -> None:
        """Begin with the first question again; what the disk has is not asked a second time."""
        self.elicitor.rewind()

    def close(self, **kwargs: Any) -> None:
        """Close all lanes, and let another process write to the directory of the answers."""
        if hasattr(
            self, "elicitor"
        ):  # Gymnasium 1.2 closes what was refused while it was made, too
            self.preferences.close()
        super().close(**kwargs)

    def get_wrapper_attr(self, name: str) -> Any:
        """As single environments have it: an attribute of this layer or of one below."""
        found = find_attribute(self, name)
        if found is None:
            raise AttributeError(f"{name_of(self)} has no attribute {name!r}.")
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
        chosen = self._of(lanes, np.asarray(infos.get("executed_action", actions)))
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

    @property
    def layout(self) -> Layout | None:
        """Where prompt and response stand in an observation; None where there is no text."""
        found: Layout | None = find_attribute(self.env, "layout")
        return found

    @property
    def task(self) -> Any:
        """The environment's rules and exact solution; None where it names none."""
        return find_attribute(self.env, "task")

    def check_segments(self, segments: Segments) -> None:
        """Refuse segments from elsewhere that this environment could not have made.

        Raises:
            ValueError: they hold other prompts, tokens, observations or actions than its spaces.
        """
        if self.layout is not None:
            self.layout.check_segments(segments)
        else:
            check_steps(segments, self.single_observation_space, self.single_action_space)

    def observations(self) -> np.ndarray:
        """What every lane shows now: for agents that act in whole episodes.

        Raises:
            ValueError: the environment is not one of text.
        """
        seen: np.ndarray = self._text().observations
        return seen

    def play(
        self, actions: Any, mask: Any, factors: Mapping[str, np.ndarray] | None = None
    ) -> Segments:
        """Live through one whole episode in every lane, by actions that are all known.

        Equal to stepping every lane by itself; for agents that write a response at once. New
        episodes have begun in all lanes afterwards. At most one comparison is emitted.

        Args:
            actions: ``[lanes, steps]`` tokens.
            mask: ``[lanes, steps]``, true where a token is.
            factors: ``[lanes, steps]`` each: named parts of the steps that only who wrote knows,
                such as whether the supervisor of an environment did.

        Returns:
            The episodes, one for each lane, in order.

        Raises:
            ValueError: the environment is not one of text, a lane is in the middle of an episode,
                a response neither ends by itself nor reaches the limit, or nobody says what the
                environment's supervisor did.
        """
        text = self._text()
        assert isinstance(self.store, ResponseStore)
        steps = self.store.layout.response_tokens
        tokens, real = _filled(np.asarray(actions), steps), _filled(np.asarray(mask, bool), steps)
        self.store.check_actions(tokens)
        if find_attribute(self.env, "running") is not None and factors is None:
            raise ValueError(
                f"{name_of(self)} has a supervisor who watches every step, and play() was given"
                " whole responses; use step(), or let a language backend write under supervision."
            )
        played = text.play(tokens, real)
        told = {**played.factors, **{n: _filled(one, steps) for n, one in (factors or {}).items()}}
        index = self.store.extend(tokens, real.sum(1), played.rewards, played.terminated, told)
        everyone = np.ones(self.num_envs, np.bool_)
        self._begin(everyone, text.observations, {"context_id": text.context_id})
        self.elicitor.emit(int(real.sum()))
        return self.store.segments(index, steps)

    def _text(self) -> Any:
        if not isinstance(self.store, ResponseStore):
            raise ValueError(
                f"{name_of(self)} writes no text, so it cannot play whole episodes at once; use"
                " step()."
            )
        layer: Any = self.env
        while not hasattr(layer, "play"):
            layer = layer.env
        return layer

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
        for number, layer in enumerate(self._layers_with_state()):
            state |= {f"layer{number}/{name}": one for name, one in layer.get_state().items()}
        state |= {f"store/{name}": value for name, value in self.store.state().items()}
        state |= {f"ask/{name}": value for name, value in self.elicitor.get_state().items()}
        return state | {"resetting": self._resetting.copy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`get_state`."""

        def part(prefix: str) -> dict[str, Any]:
            return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}

        vector: Any = self.env.unwrapped
        vector.set_state(part("env/"))
        for number, layer in enumerate(self._layers_with_state()):
            layer.set_state(part(f"layer{number}/"))
        self.store.restore(part("store/"))
        self.elicitor.set_state(part("ask/"))
        self._resetting = state["resetting"].copy()
        self._seeded = True

    def _layers_with_state(self) -> list[Any]:
        """Wrappers between this one and the environment itself that remember something."""
        found, layer = [], self.env
        while isinstance(layer, gym.vector.VectorWrapper):
            if "get_state" in vars(type(layer)):
                found.append(layer)
            layer = layer.env
        return found

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


def preference_layer(env: Any) -> PreferenceVectorEnv:
    """The preference layer among the wrappers of a vector environment.

    Raises:
        ValueError: there is none.
    """
    if isinstance(env, gym.Env):
        raise ValueError(
            f"{name_of(env)} is a single environment; learners act in vector environments: make it"
            " with gymnasium.make_vec(id, num_envs=8)."
        )
    layer = env
    while not isinstance(layer, PreferenceVectorEnv):
        layer = getattr(layer, "env", None)
        if layer is None:
            raise ValueError(
                f"{name_of(env)} does not emit preferences; make it with gymnasium.make_vec on a"
                " prefgym id, or wrap a vector environment in prefgym.wrappers.PreferenceVectorEnv."
            )
    return layer


def _filled(values: np.ndarray, steps: int) -> np.ndarray:
    """Rows of ``steps`` values, zeros behind those that are given."""
    if values.ndim != 2 or values.shape[1] > steps:
        raise ValueError(
            f"play() got an array of shape {values.shape}; wanted one row per lane of at most"
            f" {steps} tokens."
        )
    return np.pad(values, ((0, 0), (0, steps - values.shape[1])))
