"""Any algorithm of Stable-Baselines3 as a policy backend, driven from outside and never forked.

On-policy: the rollout is collected with the reward hidden as 0, so that the buffer's rewards hold
only the bootstrap at time limits; learned rewards of the whole rollout are added in one call, and
advantages computed after that. Off-policy: the replay buffer is a view of the episode store.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.dqn.dqn import DQN
from stable_baselines3.sac.sac import SAC
from stable_baselines3.td3.td3 import TD3

from prefgym.models.heads import HeadFactory
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.names import lookup
from prefgym.segments import Segments
from prefgym.store import EpisodeStore, SegmentIndex
from prefgym.wrappers import PreferenceVectorEnv, preference_layer
from prefgym_agents.astray import astray
from prefgym_agents.backend import RewardFunction
from prefgym_agents.normalisation import RunningNormalisation
from prefgym_agents.rlpd import RLPD
from prefgym_agents.sb3_env import GymnasiumVecEnv
from prefgym_agents.sb3_people import DescribedPerson, describe, descriptions, read_descriptions
from prefgym_agents.sb3_replay import StoreReplayBuffer

RESTART_UPDATES = 100
LOG_STD_FLOOR = -3.0
"""Of the policies' Gaussians, in :meth:`SB3Backend.fit`: densities know no upper bound, and the
loss of a likelihood would be lowest where the deviation is 0."""
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining")

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    name: getattr(stable_baselines3, name) for name in ("A2C", "DDPG", "DQN", "PPO", "SAC", "TD3")
} | {"RLPD": RLPD}


class SB3Backend:
    """What on- and off-policy algorithms have in common; make one with :func:`sb3_backend`."""

    def __init__(self, model: BaseAlgorithm, env: PreferenceVectorEnv) -> None:
        self.model = model
        self.env = env
        self.store = steps_of(env)
        self._callback: BaseCallback = CallbackList([])
        self._index: SegmentIndex | None = None
        self._reference = self.snapshot()
        self._fitted = 0
        self.inspect = "."
        """Folder in which a batch is left whose loss was not finite."""
        model.set_logger(Logger(folder=None, output_formats=[]))

    @property
    def num_timesteps(self) -> int:
        """Environment steps taken, over all lanes."""
        return int(self.model.num_timesteps)

    @property
    def has_log_prob(self) -> bool:
        """On-policy algorithms and SAC; the others act deterministically."""
        return isinstance(self.model, OnPolicyAlgorithm | SAC)

    def begin(self, total_timesteps: int, callback: Any = None) -> None:
        """Get ready for a call of ``learn``; the environment is reset the first time only."""
        fresh = self.model._last_obs is None
        left = total_timesteps if fresh else total_timesteps - self.num_timesteps
        _, self._callback = self.model._setup_learn(left, callback, reset_num_timesteps=fresh)
        self._callback.on_training_start({}, {})

    def end(self) -> None:
        """Tell the callback that training is over."""
        self._callback.on_training_end()

    def episode_statistics(self) -> dict[str, float]:
        """Mean true return and length of recent episodes, under Stable-Baselines3's names."""
        recent: list[dict[str, float]] = list(self.model.ep_info_buffer or [])
        if not recent:
            return {}
        return {
            "rollout/ep_rew_mean": float(np.mean([one["r"] for one in recent])),
            "rollout/ep_len_mean": float(np.mean([one["l"] for one in recent])),
        }

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Actions for a batch of observations."""
        return self.model.predict(observation, state, episode_start, deterministic)

    def read_descriptions(self, people: int, numbers: int) -> None:
        """Make the policy anew; see :class:`prefgym_agents.people.ReadsDescriptions`."""
        read_descriptions(self.model, people, numbers)
        self._reference = self.snapshot()

    def describe(self, table: torch.Tensor) -> None:
        """Read these descriptions of people from now on, ``[people, numbers]``."""
        describe(self.model, table)

    def descriptions(self) -> torch.Tensor | None:
        """Those that are read; None where the policy sees who it is."""
        return descriptions(self.model)

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

    def fit(
        self, loss: Callable[[torch.Tensor], torch.Tensor], segments: Segments
    ) -> dict[str, float]:
        """One gradient step of the policy's own optimizer on ``loss(log_prob(segments))``.

        Raises:
            RuntimeError: the loss is not finite; the batch is left in :attr:`inspect`.
        """
        value = loss(self.log_prob(segments))
        if not torch.isfinite(value):
            path = Path(self.inspect) / f"astray-step-{self._fitted}.safetensors"
            raise astray("the loss", value.item(), self._fitted, segments.numpy().arrays(), path)
        optimizer = self._policy_optimizer()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        self._hold_deviation()
        self._fitted += 1
        return {"loss": float(value.detach())}

    def log_prob(self, segments: Segments) -> torch.Tensor:
        """Log-probability of each action, ``[B, T]``; zero on padding."""
        mask = torch.as_tensor(segments.mask)
        observations = torch.as_tensor(segments.observations)[mask]
        actions = torch.as_tensor(segments.actions)[mask]
        flat = self._log_prob(observations.to(self.model.device), actions.to(self.model.device))
        return torch.zeros(mask.shape, device=flat.device).masked_scatter(mask, flat)

    @torch.no_grad()
    def reference_log_prob(self, segments: Segments) -> torch.Tensor:
        """:meth:`log_prob` of the policy as it was made."""
        now = self.snapshot()
        self.load_snapshot(self._reference)
        try:
            return self.log_prob(segments)
        finally:
            self.load_snapshot(now)

    def snapshot(self) -> dict[str, np.ndarray]:
        """The policy's parameters, copied."""
        return {
            name: value.detach().cpu().numpy().copy()
            for name, value in self.model.policy.state_dict().items()
        }

    def load_snapshot(self, parameters: Mapping[str, Any]) -> None:
        """Act as a :meth:`snapshot` did; arrays or tensors."""
        self.model.policy.load_state_dict(
            {name: torch.as_tensor(value) for name, value in parameters.items()}
        )

    def load_policy(self, state: Mapping[str, Any]) -> None:
        """Act as the policy of a :meth:`get_state` did."""
        self.load_snapshot(state["parameters"]["policy"])

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what happens next, the environment included."""
        model = self.model
        return {
            "parameters": deepcopy(model.get_parameters()),
            "variables": {name: deepcopy(getattr(model, name).data) for name in self._variables},
            "last_obs": model._last_obs,
            "episode_starts": model._last_episode_starts,
            "counters": {name: getattr(model, name) for name in _COUNTERS},
            "reference": self._reference,
            "fitted": self._fitted,
            "recent": [{"r": e["r"], "l": e["l"]} for e in model.ep_info_buffer or []],
            "running": self._vec_env.running(),
            "extra": self._extra_state(),
            "env": self.env.get_state(),
            "random": {
                "torch": torch.get_rng_state(),
                "numpy": np.random.get_state(legacy=False),  # noqa: NPY002  (SB3 draws from it)
                "python": random.getstate(),
                "actions": model.action_space.np_random.bit_generator.state,
            },
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`get_state`."""
        model = self.model
        self.env.set_state(state["env"])
        self._reference = dict(state["reference"])
        self._fitted = state.get("fitted", 0)
        model.set_parameters(state["parameters"], exact_match=True)
        for name, value in state["variables"].items():
            getattr(model, name).data.copy_(value)
        model._last_obs = state["last_obs"]
        model._last_episode_starts = state["episode_starts"]
        for name, value in state["counters"].items():
            setattr(model, name, value)
        model._setup_learn(0, None, reset_num_timesteps=False)
        assert model.ep_info_buffer is not None
        model.ep_info_buffer.extend({**one, "t": 0.0} for one in state["recent"])
        self._vec_env.set_running(state["running"])
        self._set_extra_state(state["extra"])
        torch.set_rng_state(state["random"]["torch"])
        np.random.set_state(state["random"]["numpy"])  # noqa: NPY002
        random.setstate(state["random"]["python"])
        model.action_space.np_random.bit_generator.state = state["random"]["actions"]

    @property
    def _variables(self) -> list[str]:
        """Tensors that learn but belong to no module, such as SAC's temperature."""
        return self.model._get_torch_save_params()[1]

    @property
    def _vec_env(self) -> GymnasiumVecEnv:
        vec_env = self.model.env
        assert isinstance(vec_env, GymnasiumVecEnv)
        return vec_env

    def _steps_collected(self, heads: np.ndarray) -> Segments:
        self._index = self.store.since(heads)
        segments: Segments = self.store.segments(self._index, int(self._index.length.max()))
        return segments

    def _metrics(self) -> dict[str, float]:
        """What Stable-Baselines3 says about its update; its logger is the only place it says it."""
        told = {k: float(v) for k, v in self.model.logger.name_to_value.items()}
        self.model.logger.name_to_value.clear()
        return told

    def _hold_deviation(self) -> None:
        """Keep the standard deviation of actions from collapsing under a loss of densities."""

    def _policy_optimizer(self) -> torch.optim.Optimizer:
        raise NotImplementedError

    def _log_prob(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _extra_state(self) -> dict[str, Any]:
        return {}

    def _set_extra_state(self, state: Mapping[str, Any]) -> None:
        return


def steps_of(env: PreferenceVectorEnv) -> EpisodeStore:
    """The steps of an environment with observations.

    Raises:
        ValueError: it writes text, of which whole responses are kept.
    """
    if not isinstance(env.store, EpisodeStore):
        raise ValueError(
            f"{env} writes text, whose tokens Stable-Baselines3's networks do not read; use"
            " prefgym_agents.language.language_backend(env)."
        )
    return env.store


class LateRolloutBuffer(RolloutBuffer):
    """Computes returns and advantages when the rewards are known, not when the rollout ends."""

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """Remember where the rollout ended."""
        self._end = (last_values.clone(), dones.copy())

    def compute_now(self) -> None:
        """Do what Stable-Baselines3 does at the end of a rollout."""
        super().compute_returns_and_advantage(*self._end)


class OnPolicySB3(SB3Backend):
    """PPO, A2C and their kin."""

    model: OnPolicyAlgorithm

    @property
    def steps_per_collect(self) -> int:
        """One rollout: ``n_steps`` in every lane."""
        return self.model.n_steps * self.model.n_envs

    def collect(self) -> Segments | None:
        """One rollout, cut at the ends of episodes; None when a callback asked to stop."""
        heads = self.store.head.copy()
        buffer = self.model.rollout_buffer
        going_on = self.model.collect_rollouts(
            self._vec_env, self._callback, buffer, self.model.n_steps
        )
        return self._steps_collected(heads) if going_on else None

    def update(self, segments: Segments, rewards: np.ndarray) -> dict[str, float]:
        """Put the rewards where they belong in the rollout, then improve the policy on it."""
        assert self._index is not None
        buffer = self.model.rollout_buffer
        assert isinstance(buffer, LateRolloutBuffer)
        lane, step = self._places(self._index)
        real = np.asarray(segments.mask)
        steps = (step[:, None] + np.arange(real.shape[1]))[real]
        lanes = np.broadcast_to(lane[:, None], real.shape)[real]
        buffer.rewards[steps, lanes] += np.asarray(rewards)[real]
        buffer.compute_now()
        self.model._update_current_progress_remaining(
            self.num_timesteps, self.model._total_timesteps
        )
        self.model.train()
        extractor = self.model.policy.features_extractor
        if isinstance(extractor, RunningNormalisation | DescribedPerson):
            extractor.update(torch.as_tensor(segments.observations)[torch.as_tensor(real)])
        return self._metrics()

    @property
    def has_replay(self) -> bool:
        """No: a rollout is learned from once."""
        return False

    def relabel(self, rewards: RewardFunction, episodes: np.ndarray | None = None) -> None:
        """Nothing: a rollout is forgotten once it was learned from."""

    def restart_values(self) -> None:
        """Nothing: values follow within a few rollouts."""

    def _places(self, index: SegmentIndex) -> tuple[np.ndarray, np.ndarray]:
        """Lane, and step within the rollout, of the beginning of each piece."""
        lane, _ = self.store.rows(index)
        order = np.argsort(lane, kind="stable")
        length = index.length[order]
        before = np.cumsum(length) - length
        first_of_lane = np.searchsorted(lane[order], np.arange(self.store.lanes))
        step = np.empty_like(before)
        step[order] = before - before[np.minimum(first_of_lane, len(order) - 1)][lane[order]]
        return lane, step

    def _hold_deviation(self) -> None:
        """The deviation is a parameter of its own, where actions are continuous."""
        log_std = getattr(self.model.policy, "log_std", None)
        if log_std is not None:
            log_std.data.clamp_(min=LOG_STD_FLOOR)

    def _policy_optimizer(self) -> torch.optim.Optimizer:
        return self.model.policy.optimizer

    def _log_prob(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        _, log_prob, _ = self.model.policy.evaluate_actions(observations, actions)
        assert log_prob is not None
        return log_prob


class OffPolicySB3(SB3Backend):
    """SAC, TD3, DDPG and DQN.

    Args:
        model: made with a :class:`StoreReplayBuffer`.
        env: the preference environment.
        steps_per_round: vector steps between two rounds of gradient steps.
    """

    model: OffPolicyAlgorithm

    def __init__(
        self, model: OffPolicyAlgorithm, env: PreferenceVectorEnv, steps_per_round: int
    ) -> None:
        super().__init__(model, env)
        self.steps_per_round = steps_per_round
        replay = model.replay_buffer
        assert isinstance(replay, StoreReplayBuffer)
        self.replay = replay

    @property
    def steps_per_collect(self) -> int:
        """A round of vector steps, over all lanes."""
        return self.steps_per_round * self.model.n_envs

    def collect(self) -> Segments | None:
        """A round of steps; None when a callback asked to stop."""
        heads = self.store.head.copy()
        rollout = self.model.collect_rollouts(
            self._vec_env,
            self._callback,
            TrainFreq(self.steps_per_round, TrainFrequencyUnit.STEP),
            self.replay,
            self.model.action_noise,
            self.model.learning_starts,
        )
        return self._steps_collected(heads) if rollout.continue_training else None

    def update(self, segments: Segments, rewards: np.ndarray) -> dict[str, float]:
        """Write the rewards beside the steps, then take the gradient steps that are due."""
        assert self._index is not None
        self.replay.write(self._index, np.asarray(rewards))
        if self.num_timesteps <= self.model.learning_starts:
            return {}
        wanted = self.model.gradient_steps
        steps = wanted if wanted >= 0 else int(self._index.length.sum())
        self.model.train(gradient_steps=steps, batch_size=self.model.batch_size)
        return self._metrics()

    @property
    def has_replay(self) -> bool:
        """Yes."""
        return True

    def relabel(self, rewards: RewardFunction, episodes: np.ndarray | None = None) -> None:
        """Judge the whole replay buffer, or some episodes of it, anew in large batches."""
        self.replay.relabel(rewards, episodes)

    def restart_values(self) -> None:
        """Critics start afresh, with their targets and optimizers, and take 100 steps at once.

        Source: PEBBLE's code, where the critic is made anew after exploration. The actor takes
        the same steps, because Stable-Baselines3 improves both together.
        """
        policy: Any = self.model.policy
        known = self.descriptions()
        fresh: Any = type(policy)(
            self.model.observation_space,
            self.model.action_space,
            self.model.lr_schedule,
            **self.model.policy_kwargs,
        ).to(self.model.device)
        for name in ("critic", "critic_target"):
            getattr(policy, name).load_state_dict(getattr(fresh, name).state_dict())
        policy.critic_target.load_state_dict(policy.critic.state_dict())
        if known is not None:
            self.describe(known)
        optimizer = policy.critic.optimizer
        optimizer.load_state_dict(fresh.critic.optimizer.state_dict())
        self.model.train(gradient_steps=RESTART_UPDATES, batch_size=self.model.batch_size)
        self.model.logger.name_to_value.clear()

    def _policy_optimizer(self) -> torch.optim.Optimizer:
        policy: Any = self.model.policy
        optimizer: torch.optim.Optimizer = policy.actor.optimizer
        return optimizer

    def _log_prob(self, observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        if not isinstance(self.model, SAC):
            raise ValueError(
                f"{type(self.model).__name__} acts deterministically, so its actions have no"
                " log-probability; use SAC, PPO or A2C."
            )
        actor = self.model.actor
        mean, log_std, more = actor.get_action_dist_params(observations)
        # Below the floor there is no slope, so that no loss of densities is gained by certainty.
        log_std = log_std.clamp(min=LOG_STD_FLOOR)
        distribution = actor.action_dist.proba_distribution(mean, log_std, **more)
        low, high = (torch.as_tensor(x) for x in (actor.action_space.low, actor.action_space.high))
        scaled = 2.0 * (actions - low) / (high - low) - 1.0
        return distribution.log_prob(scaled)

    def _extra_state(self) -> dict[str, Any]:
        used = int(min(self.store.head.max() + 1, self.store.capacity))
        more = {name: getattr(self.model, name) for name in _DQN if hasattr(self.model, name)}
        return {
            "learned": self.replay.learned[:, :used].copy(),
            "version": self.replay.version,
            "replay_rng": self.replay.rng.bit_generator.state,
            "more": more,
        }

    def _set_extra_state(self, state: Mapping[str, Any]) -> None:
        self.replay.learned[:, : state["learned"].shape[1]] = state["learned"]
        self.replay.version = state["version"]
        self.replay.rng.bit_generator.state = state["replay_rng"]
        for name, value in state["more"].items():
            setattr(self.model, name, value)


_DQN = ("exploration_rate", "_n_calls")


def sb3_backend(
    algorithm: str | type[BaseAlgorithm],
    env: Any,
    *,
    policy: str = "MlpPolicy",
    seed: int | None = None,
    device: str = "cpu",
    steps_per_round: int = 8,
    normalise_observations: bool = False,
    **arguments: Any,
) -> OnPolicySB3 | OffPolicySB3:
    """An algorithm of Stable-Baselines3, acting in a preference environment.

    Args:
        algorithm: "PPO", "SAC", ..., or a class (sb3-contrib's work too).
        env: a :class:`~prefgym.wrappers.PreferenceVectorEnv`, such as ``gymnasium.make_vec`` of a
            prefgym id returns.
        policy: Stable-Baselines3's name for the network.
        seed: of the policy, the actions and the environment.
        device: "cpu" unless the network is large; small ones are slower elsewhere.
        steps_per_round: off-policy only; vector steps between two rounds of gradient steps, of
            which there are as many as steps were taken.
        normalise_observations: on-policy only; give the policy observations of mean 0 and
            standard deviation 1 (running statistics).
        **arguments: of the algorithm.

    Raises:
        ValueError: no algorithm of that name, or an environment that emits no preferences.
    """
    kind = lookup(algorithm, ALGORITHMS, "algorithm") if isinstance(algorithm, str) else algorithm
    if not isinstance(kind, type):
        raise ValueError(
            f"sb3_backend got the model {kind}; wanted a name or a class, such as"
            f" {type(kind).__name__}, because the model is made here."
        )
    layer = preference_layer(env)
    steps_of(layer)
    actions = layer.single_action_space
    if issubclass(kind, DQN) and not isinstance(actions, gym.spaces.Discrete):
        raise ValueError(f"{kind.__name__} needs discrete actions, not {actions}; use PPO or SAC.")
    if issubclass(kind, SAC | TD3) and not isinstance(actions, gym.spaces.Box):
        raise ValueError(f"{kind.__name__} needs Box actions, not {actions}; use PPO or DQN.")
    adapter = GymnasiumVecEnv(env)
    chosen = dict(arguments.get("policy_kwargs") or {})  # some algorithms write into it
    arguments["policy_kwargs"] = chosen
    if issubclass(kind, OffPolicyAlgorithm):
        arguments = {
            "gradient_steps": -1,
            "replay_buffer_class": StoreReplayBuffer,
            "replay_buffer_kwargs": {"store": steps_of(layer)},
            **arguments,
        }
        learner = kind(policy, adapter, seed=seed, device=device, **arguments)
        backend = OffPolicySB3(learner, layer, steps_per_round)
        backend.replay.rng = np.random.default_rng(seed)
        return backend
    if normalise_observations:
        chosen["features_extractor_class"] = RunningNormalisation
    if issubclass(kind, OnPolicyAlgorithm):
        arguments["rollout_buffer_class"] = LateRolloutBuffer
    model = kind(policy, adapter, seed=seed, device=device, **arguments)
    if not isinstance(model, OnPolicyAlgorithm):
        raise ValueError(f"{kind.__name__} is neither an on- nor an off-policy SB3 algorithm.")
    return OnPolicySB3(model, layer)
