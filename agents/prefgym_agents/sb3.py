"""Any algorithm of Stable-Baselines3 as a policy backend, driven from outside and never forked."""

from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.dqn.dqn import DQN
from stable_baselines3.sac.sac import SAC
from stable_baselines3.td3.td3 import TD3

from prefgym.names import lookup
from prefgym.wrappers import preference_layer
from prefgym_agents.normalisation import RunningNormalisation
from prefgym_agents.rlpd import RLPD
from prefgym_agents.sb3_base import steps_of
from prefgym_agents.sb3_env import GymnasiumVecEnv
from prefgym_agents.sb3_off_policy import OffPolicySB3
from prefgym_agents.sb3_on_policy import LateRolloutBuffer, OnPolicySB3
from prefgym_agents.sb3_replay import StoreReplayBuffer

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    name: getattr(stable_baselines3, name) for name in ("A2C", "DDPG", "DQN", "PPO", "SAC", "TD3")
} | {"RLPD": RLPD}


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
