"""What on- and off-policy algorithms of Stable-Baselines3 have in common as policy backends."""

import random
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.sac.sac import SAC

from prefgym.models.heads import HeadFactory
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.segments import Segments
from prefgym.store import EpisodeStore, SegmentIndex
from prefgym.wrappers import PreferenceVectorEnv
from prefgym_agents.astray import astray
from prefgym_agents.sb3_env import GymnasiumVecEnv
from prefgym_agents.sb3_people import describe, descriptions, read_descriptions

LOG_STD_FLOOR = -3.0
"""Of the policies' Gaussians, in :meth:`SB3Backend.fit`: densities know no upper bound, and the
loss of a likelihood would be lowest where the deviation is 0."""
_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining")


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
