"""SAC with many critics as one batched network, many updates per step, and demonstrations at hand.

Source: Ball et al. (2023), "Efficient online reinforcement learning with offline data",
arXiv:2302.02948 (RLPD), as used by Luo et al. (2023), arXiv:2311.12996.

    target   r + γ · min over a random pair of the N target critics [− α log π, where asked]
    critics  every one of the N to the same target; layer normalisation before every ReLU
    actor    the mean of all N, once for every ``updates_per_step`` updates of the critics

The N critics lie behind each other in one tensor: an update costs a few large matrix products
instead of N times as many small ones.
"""

import math
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.sac.sac import SAC
from torch import Tensor, nn
from torch.nn import functional


class BatchedCritics(BasePolicy):
    """N action values, ``forward(observations, actions) -> N × [batch, 1]``; see :meth:`values`."""

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        critics: int = 10,
        layer_norm: bool = True,
        **ignored: Any,
    ) -> None:
        super().__init__(observation_space, action_space, features_extractor=features_extractor)
        widths = (features_dim + get_action_dim(action_space), *net_arch, 1)
        self.critics, self.layer_norm = critics, layer_norm
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.gains, self.shifts = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            bound = 1.0 / math.sqrt(inputs)
            for into, shape in ((self.weights, (inputs, outputs)), (self.biases, (1, outputs))):
                into.append(nn.Parameter(torch.empty(critics, *shape).uniform_(-bound, bound)))
            if layer_norm and outputs > 1:
                self.gains.append(nn.Parameter(torch.ones(critics, 1, outputs)))
                self.shifts.append(nn.Parameter(torch.zeros(critics, 1, outputs)))

    def forward(self, observations: Any, actions: Tensor) -> tuple[Tensor, ...]:
        """As Stable-Baselines3's critics answer."""
        return tuple(self.values(observations, actions)[..., None].unbind(0))

    def values(
        self, observations: Any, actions: Tensor, only: Tensor | None = None
    ) -> Float[Tensor, " critics batch"]:
        """Q of every critic, or of some of them."""

        def of(parameter: Tensor) -> Tensor:
            return parameter if only is None else parameter[only]

        features = self.extract_features(observations, self.features_extractor)
        rows = torch.cat([features, actions], 1)
        rows = rows.expand(self.critics if only is None else len(only), -1, -1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            rows = torch.baddbmm(of(bias), rows, of(weight))
            if layer == last:
                break
            if self.layer_norm:
                rows = functional.layer_norm(rows, rows.shape[-1:])
                rows = torch.addcmul(of(self.shifts[layer]), rows, of(self.gains[layer]))
            rows = torch.relu(rows)
        return rows[..., 0]

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        raise NotImplementedError("Critics judge actions; ask the actor for one.")


class RLPDPolicy(SACPolicy):
    """SAC's actor, and N critics in one.

    Args: as :class:`stable_baselines3.sac.policies.SACPolicy`, and
        critics: N, at least 2.
        layer_norm: whether hidden layers of the critics are normalised.

    Raises:
        ValueError: fewer than two critics.
    """

    def __init__(self, *args: Any, critics: int = 10, layer_norm: bool = True, **more: Any) -> None:
        if critics < 2:
            raise ValueError(f"critics={critics}; wanted 2 or more, for the least of a pair.")
        self._critics: dict[str, Any] = {"critics": critics, "layer_norm": layer_norm}
        super().__init__(*args, **more)

    def make_critic(self, features_extractor: Any = None) -> Any:
        """All critics, or all their targets."""
        arguments = self._update_features_extractor(self.critic_kwargs, features_extractor)
        known = ("observation_space", "action_space", "net_arch", "features_extractor")
        chosen = {name: arguments[name] for name in (*known, "features_dim")}
        return BatchedCritics(**chosen, **self._critics).to(self.device)


class RLPD(SAC):
    """SAC in RLPD's form; arguments as SAC's, and below. ``policy_kwargs`` as :class:`RLPDPolicy`.

    Args of the constructor:
        updates_per_step: updates of the critics for every step, the "UTD ratio".
        entropy_in_target: whether the target knows the bonus for entropy.

    Raises:
        ValueError: fewer updates than one.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": RLPDPolicy}

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        updates_per_step: int = 1,
        entropy_in_target: bool = False,
        **arguments: Any,
    ) -> None:
        if updates_per_step < 1:
            raise ValueError(f"updates_per_step={updates_per_step}; wanted 1 or more.")
        self.updates_per_step = updates_per_step
        self.entropy_in_target = entropy_in_target
        super().__init__(policy, env, **arguments)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Update the critics so often for each gradient step, then actor and temperature once."""
        self.policy.set_training_mode(True)
        tuned = [] if self.ent_coef_optimizer is None else [self.ent_coef_optimizer]
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer, *tuned])
        told: list[tuple[float, float, float]] = []
        for _ in range(gradient_steps):
            for _ in range(self.updates_per_step):
                data = self.replay_buffer.sample(batch_size)  # type: ignore[union-attr]
                critic_loss = self._improve_critics(data)
            told.append((critic_loss, *self._improve_actor(data.observations)))
        self._n_updates += gradient_steps * self.updates_per_step
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        names = ("train/critic_loss", "train/actor_loss", "train/ent_coef")
        for name, value in zip(names, np.mean(told, 0), strict=True):
            self.logger.record(name, float(value))

    @property
    def _temperature(self) -> Tensor:
        if self.ent_coef_optimizer is None:
            return self.ent_coef_tensor
        assert self.log_ent_coef is not None
        return self.log_ent_coef.detach().exp()

    def _improve_critics(self, data: Any) -> float:
        critics: Any = self.critic
        targets: Any = self.critic_target
        with torch.no_grad():
            actions, log_prob = self.actor.action_log_prob(data.next_observations)
            pair = torch.randperm(targets.critics)[:2].to(self.device)
            following = targets.values(data.next_observations, actions, pair).amin(0)
            if self.entropy_in_target:
                following = following - self._temperature * log_prob
            goal = data.rewards[:, 0] + (1.0 - data.dones[:, 0]) * self.gamma * following
        loss = 0.5 * (critics.values(data.observations, data.actions) - goal).square().mean(1).sum()
        critics.optimizer.zero_grad()
        loss.backward()
        critics.optimizer.step()
        polyak_update(critics.parameters(), targets.parameters(), self.tau)
        return float(loss.detach())

    def _improve_actor(self, observations: Any) -> tuple[float, float]:
        critics: Any = self.critic
        actions, log_prob = self.actor.action_log_prob(observations)
        if self.ent_coef_optimizer is not None:
            assert self.log_ent_coef is not None
            excess = (log_prob + float(self.target_entropy)).detach()
            loss = -(self.log_ent_coef * excess).mean()
            self.ent_coef_optimizer.zero_grad()
            loss.backward()
            self.ent_coef_optimizer.step()
        critics.requires_grad_(False)  # the actor's gradient goes through them, not into them
        worth = critics.values(observations, actions).mean(0)
        actor_loss = (self._temperature * log_prob - worth).mean()
        self.actor.optimizer.zero_grad()
        actor_loss.backward()
        self.actor.optimizer.step()
        critics.requires_grad_(True)
        return float(actor_loss.detach()), float(self._temperature)
