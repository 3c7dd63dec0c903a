"""Off-policy algorithms of Stable-Baselines3 as a policy backend.

The replay buffer is a view of the episode store.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.sac.sac import SAC

from prefgym.segments import Segments
from prefgym.wrappers import PreferenceVectorEnv
from prefgym_agents.backend import RewardFunction
from prefgym_agents.sb3_base import LOG_STD_FLOOR, SB3Backend
from prefgym_agents.sb3_replay import StoreReplayBuffer

RESTART_UPDATES = 100
_DQN = ("exploration_rate", "_n_calls")


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
