"""On-policy algorithms of Stable-Baselines3 as a policy backend.

The rollout is collected with the reward hidden as 0, so that the buffer's rewards hold only the
bootstrap at time limits; learned rewards of the whole rollout are added in one call, and advantages
computed after that.
"""

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from prefgym.segments import Segments
from prefgym.store import SegmentIndex
from prefgym_agents.backend import RewardFunction
from prefgym_agents.normalisation import RunningNormalisation
from prefgym_agents.sb3_base import LOG_STD_FLOOR, SB3Backend
from prefgym_agents.sb3_people import DescribedPerson


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
