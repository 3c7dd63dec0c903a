"""Q-learning with a table as a policy backend: for worlds small enough to be written down.

Steps are replayed from the environment's store like those of Stable-Baselines3's off-policy
algorithms, and values are learned by batches of

    Q(s, a) ← Q(s, a) + rate · mean over the visits of (r + γ max Q(s', ·) − Q(s, a))

with nothing behind a step that ended its episode for good. Source: Watkins (1989).
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Int
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from prefgym.models.heads import HeadFactory
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.segments import Segments
from prefgym.store import EpisodeStore, SegmentIndex
from prefgym.wrappers import preference_layer
from prefgym_agents.backend import RewardFunction
from prefgym_agents.callbacks import as_callback
from prefgym_agents.replayed_steps import ReplayedSteps, Transitions

RECENT = 100
"""Episodes whose mean is told to people."""

_NO_DENSITY = "A table acts greedily, so its actions have no log-probability; use PPO, A2C or SAC."


class TabularQ:
    """A table of values; it explores in training and is greedy afterwards.

    Args:
        env: a preference environment with Discrete or MultiDiscrete observations and Discrete
            actions.
        learning_rate: of the values, in (0, 1].
        gamma: discount of the next step.
        exploration: ε, the share of random actions in training.
        temperature: explore by soft-max instead, with probabilities ∝ exp(Q / temperature), also
            wherever a prediction need not be deterministic.
        steps_per_round: vector steps between two rounds of updates.
        batch_size: steps of an update.
        updates_per_round: updates of a round.
        initial: value of everything that was never tried.
        seed: of actions, updates and the environment.

    Raises:
        ValueError: other spaces, or numbers that can never work.
    """

    def __init__(
        self,
        env: Any,
        *,
        learning_rate: float = 0.5,
        gamma: float = 0.99,
        exploration: float = 0.1,
        temperature: float | None = None,
        steps_per_round: int = 8,
        batch_size: int = 256,
        updates_per_round: int = 8,
        initial: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self.env: Any = preference_layer(env)
        acts: Any = self.env.single_action_space
        self.sizes = _sizes(self.env.single_observation_space, acts)
        for name, value in (("learning_rate", learning_rate), ("exploration", exploration)):
            if not 0.0 < value <= 1.0:
                raise ValueError(f"{name}={value}; wanted a number in (0, 1].")
        if temperature is not None and not temperature > 0.0:
            raise ValueError(f"temperature={temperature}; wanted a number above 0, or None.")
        if not 0.0 <= gamma < 1.0:
            raise ValueError(f"gamma={gamma}; wanted 0 or more, and below 1.")
        assert isinstance(self.env.store, EpisodeStore)
        self.store = self.env.store
        self.learning_rate, self.gamma = learning_rate, gamma
        self.exploration, self.temperature = exploration, temperature
        self.steps_per_round, self.batch_size = steps_per_round, batch_size
        self.updates_per_round = updates_per_round
        self.actions, self.first_action = int(acts.n), int(acts.start)
        self._first_state = np.asarray(getattr(self.env.single_observation_space, "start", 0))
        self.initial = initial
        self.q = np.full((math.prod(self.sizes), self.actions), initial)
        """``[states, actions]``."""
        self.replay = ReplayedSteps()
        self.replay.begin(self.store)
        self.replay.rng = np.random.default_rng(None if seed is None else (seed, 1))
        self.rng = np.random.default_rng(None if seed is None else (seed, 2))
        self.seed = seed
        self.steps_taken = 0
        self._seen: np.ndarray | None = None
        self._callback: BaseCallback = CallbackList([])
        self._index: SegmentIndex | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._running = np.zeros((2, self.env.num_envs))
        """Return and steps of the episode in each lane."""

    # -- what it is ---------------------------------------------------------------------------

    @property
    def num_timesteps(self) -> int:
        """Environment steps taken, over all lanes."""
        return self.steps_taken

    @property
    def steps_per_collect(self) -> int:
        """A round of vector steps, over all lanes."""
        return int(self.steps_per_round * self.env.num_envs)

    @property
    def has_log_prob(self) -> bool:
        """No: it acts greedily."""
        return False

    @property
    def has_replay(self) -> bool:
        """Yes."""
        return True

    def begin(self, total_timesteps: int, callback: Any = None) -> None:
        """Get ready for a call of ``learn``; the environment is reset the first time only."""
        if self._seen is None:
            self._seen, _ = self.env.reset(seed=self.seed)
        self._callback = as_callback(callback, self)
        self._callback.on_training_start({}, {})

    def end(self) -> None:
        """Tell the callback that training is over."""
        self._callback.on_training_end()

    def get_env(self) -> Any:
        """The environment, as callbacks ask for it."""
        return self.env

    def episode_statistics(self) -> dict[str, float]:
        """Mean true return and length of recent episodes, under Stable-Baselines3's names."""
        if not self._recent:
            return {}
        returns, lengths = zip(*self._recent, strict=True)
        return {
            "rollout/ep_rew_mean": float(np.mean(returns)),
            "rollout/ep_len_mean": float(np.mean(lengths)),
        }

    # -- acting -------------------------------------------------------------------------------

    def collect(self) -> Segments | None:
        """A round of exploring steps; None when a callback asked to stop."""
        assert self._seen is not None
        heads = self.store.head.copy()
        self._callback.on_rollout_start()
        for _ in range(self.steps_per_round):
            told = self.env.step(self._exploring(self._seen))
            self._seen = told[0]
            self._count(told[4]["true_reward"], told[2] | told[3])
            if not self._callback.on_step():
                return None
        self._callback.on_rollout_end()
        self._index = self.store.since(heads)
        segments: Segments = self.store.segments(self._index, int(self._index.length.max()))
        return segments

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Greedy actions; unless it must not be, chance breaks ties, or draws by soft-max."""
        return self._greedy(np.asarray(observation), None if deterministic else self.rng), None

    def _exploring(self, observations: np.ndarray) -> Int[np.ndarray, " lanes"]:
        actions = self._greedy(observations, self.rng)
        if self.temperature is not None:
            return actions
        at_random = self.rng.random(len(actions)) < self.exploration
        drawn = self.first_action + self.rng.integers(self.actions, size=len(actions))
        return np.where(at_random, drawn, actions)

    def _greedy(
        self, observations: np.ndarray, rng: np.random.Generator | None
    ) -> Int[np.ndarray, " lanes"]:
        """The best actions; by soft-max, those that are best with Gumbel's noise added."""
        values = self.q[self._states(observations)]
        if rng is not None and self.temperature is not None:
            values = values + self.temperature * rng.gumbel(size=values.shape)
        elif rng is not None:
            best = values == values.max(1, keepdims=True)
            values = np.where(best, rng.random(values.shape), -1.0)
        chosen: np.ndarray = self.first_action + values.argmax(1)
        return chosen

    def _states(self, observations: np.ndarray) -> Int[np.ndarray, " batch"]:
        numbers = (np.asarray(observations) - self._first_state).reshape(len(observations), -1)
        states: np.ndarray = np.ravel_multi_index(tuple(numbers.T), self.sizes)
        return states

    def _count(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        self.steps_taken += self.env.num_envs
        self._running += np.stack([rewards, np.ones(len(rewards))])
        for lane in np.flatnonzero(ended):
            self._recent.append((float(self._running[0, lane]), int(self._running[1, lane])))
        self._running[:, ended] = 0.0

    # -- improving ----------------------------------------------------------------------------

    def update(self, segments: Segments, rewards: np.ndarray) -> dict[str, float]:
        """Write the rewards beside the steps, then make a round of updates."""
        assert self._index is not None
        self.replay.write(self._index, np.asarray(rewards))
        errors = [
            self._improve(self.replay.drawn(self.batch_size)) for _ in range(self.updates_per_round)
        ]
        return {"train/value_error": float(np.mean(errors))}

    def _improve(self, drawn: Transitions) -> float:
        states, ahead = self._states(drawn.observations), self._states(drawn.next_observations)
        place = states * self.actions + drawn.actions.reshape(-1) - self.first_action
        following = np.where(drawn.terminal, 0.0, self.q[ahead].max(1))
        error = drawn.rewards + self.gamma * following - self.q.reshape(-1)[place]
        visited, where = np.unique(place, return_inverse=True)
        mean = np.bincount(where, error) / np.bincount(where)
        self.q.reshape(-1)[visited] += self.learning_rate * mean
        return float(np.abs(error).mean())

    def relabel(self, rewards: RewardFunction, episodes: np.ndarray | None = None) -> None:
        """Judge everything in the store, or some episodes of it, anew."""
        self.replay.relabel(rewards, episodes)

    def restart_values(self) -> None:
        """Forget all values: they are all that is known."""
        self.q.fill(self.initial)

    def reward_model(
        self,
        members: int,
        hidden: Sequence[int],
        tanh: bool,
        seed: int,
        head: HeadFactory | None = None,
    ) -> RewardModel:
        """An ensemble of networks over single observations and actions."""
        spaces = self.env.single_observation_space, self.env.single_action_space
        return reward_model(
            *spaces, members=members, hidden=hidden, tanh=tanh, seed=seed, head=head
        )

    def log_prob(self, segments: Segments) -> torch.Tensor:
        """There is none.

        Raises:
            ValueError: always.
        """
        raise ValueError(_NO_DENSITY)

    def reference_log_prob(self, segments: Segments) -> torch.Tensor:
        """There is none.

        Raises:
            ValueError: always.
        """
        raise ValueError(_NO_DENSITY)

    def fit(
        self, loss: Callable[[torch.Tensor], torch.Tensor], segments: Segments
    ) -> dict[str, float]:
        """Nothing has a gradient.

        Raises:
            ValueError: always.
        """
        raise ValueError(_NO_DENSITY)

    # -- saving -------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, np.ndarray]:
        """The table, copied."""
        return {"q": self.q.copy()}

    def load_snapshot(self, parameters: Mapping[str, Any]) -> None:
        """Act as a :meth:`snapshot` did."""
        self.q[:] = np.asarray(parameters["q"])

    def load_policy(self, state: Mapping[str, Any]) -> None:
        """Act as the policy of a :meth:`get_state` did."""
        self.load_snapshot(state)

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what happens next, the environment included."""
        used = int(min(self.store.head.max() + 1, self.store.capacity))
        return {
            "q": self.q.copy(),
            "learned": self.replay.learned[:, :used].copy(),
            "version": self.replay.version,
            "steps_taken": self.steps_taken,
            "seen": self._seen,
            "running": self._running.copy(),
            "recent": [list(one) for one in self._recent],
            "random": {
                "actions": self.rng.bit_generator.state,
                "replay": self.replay.rng.bit_generator.state,
            },
            "env": self.env.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`get_state`."""
        self.env.set_state(state["env"])
        self.load_snapshot(state)
        self.replay.learned[:, : state["learned"].shape[1]] = state["learned"]
        self.replay.version, self.steps_taken = state["version"], state["steps_taken"]
        self._seen, self._running = state["seen"], np.array(state["running"])
        self._recent = deque((tuple(one) for one in state["recent"]), maxlen=RECENT)
        self.rng.bit_generator.state = state["random"]["actions"]
        self.replay.rng.bit_generator.state = state["random"]["replay"]


def _sizes(seen: gym.Space[Any], acts: gym.Space[Any]) -> tuple[int, ...]:
    """How many values each number of an observation takes.

    Raises:
        ValueError: observations or actions that cannot be listed.
    """
    if not isinstance(acts, gym.spaces.Discrete):
        raise ValueError(f"A table needs Discrete actions, not {acts}; use sb3_backend, a network.")
    if isinstance(seen, gym.spaces.Discrete):
        return (int(seen.n),)
    if isinstance(seen, gym.spaces.MultiDiscrete):
        return tuple(int(one) for one in np.ravel(seen.nvec))
    raise ValueError(
        f"A table needs Discrete or MultiDiscrete observations, not {seen}; use a network"
        " (sb3_backend)."
    )
