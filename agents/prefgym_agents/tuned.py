"""Settings of algorithms and environments that suit each other.

Starting points for a user, and what the benchmarks use. Everything else is the library's default.
"""

from typing import Any

_MUJOCO_PPO: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 128,
    "n_epochs": 10,
    "learning_rate": 5e-4,
    "gae_lambda": 0.92,
    "gamma": 0.98,
    "policy_kwargs": {"log_std_init": -1.0},
    "normalise_observations": True,
}

_TRAFFIC_PPO: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 5,
    "learning_rate": 1e-3,
    "gae_lambda": 0.9,
    "gamma": 0.9,
    "normalise_observations": True,
}

_MINIGRID_PPO: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 4,
    "learning_rate": 5e-4,
    "gamma": 0.99,
    "ent_coef": 0.01,
}
MINIGRID = tuple(
    f"prefgym/{name}-v0"
    for name in (
        *("Empty-8x8", "DoorKey-5x5", "DoorKey-6x6", "DoorKey-8x8", "KeyCorridorS3R2"),
        *("KeyCorridorS3R3", "UnlockPickup", "MultiRoom-N2-S4"),
    )
)

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "PPO": {
        "default": {"n_steps": 256, "batch_size": 64, "n_epochs": 10},
        "prefgym/Pendulum-v0": {
            "n_steps": 256,
            "batch_size": 128,
            "n_epochs": 10,
            "learning_rate": 1e-3,
            "gamma": 0.9,
            "gae_lambda": 0.95,
            "use_sde": True,
            "sde_sample_freq": 4,
        },
        **{
            f"prefgym/{name}-v0": _MUJOCO_PPO
            for name in ("Reacher", "HalfCheetah", "Walker2d", "Ant")
        },
        **dict.fromkeys(MINIGRID, _MINIGRID_PPO),
        "prefgym/Traffic-v0": _TRAFFIC_PPO,
        "prefgym/TrafficGrid-v0": _TRAFFIC_PPO,
        "prefgym/Hopper-v0": {
            **_MUJOCO_PPO,
            "n_steps": 256,
            "learning_rate": 3e-4,
            "gae_lambda": 0.95,
            "gamma": 0.99,
        },
    },
    "SAC": {
        "default": {},
        "prefgym/Pendulum-v0": {"learning_rate": 1e-3, "learning_starts": 1_000},
    },
    "RLPD": {
        "default": {
            "batch_size": 256,
            "learning_starts": 1_000,
            "policy_kwargs": {"net_arch": [256, 256], "critics": 10},
        },
        "prefgym/Pendulum-v0": {
            "learning_rate": 1e-3,
            "batch_size": 128,
            "learning_starts": 500,
            "steps_per_round": 4,
            "policy_kwargs": {"net_arch": [64, 64], "critics": 2},
        },
    },
}
TEXT: dict[str, Any] = {"kl": 0.1}
"""A learned reward is right about text such as it was fitted to: stay near the start."""


def settings(algorithm: str, env_id: str) -> dict[str, Any]:
    """Arguments of the backend for an algorithm on an environment."""
    if writes_text(env_id):
        return dict(TEXT)
    known = SETTINGS.get(algorithm, {})
    return dict(known.get(env_id, known.get("default", {})))


def environment_settings(env_id: str) -> dict[str, Any]:
    """Arguments of ``gymnasium.make_vec`` that suit learners: how many lanes, and which share."""
    if writes_text(env_id):
        return {"num_envs": 64, "samples_per_prompt": 8}
    return {"num_envs": 8}


def writes_text(env_id: str) -> bool:
    """Whether a language model acts there."""
    return env_id.startswith("prefgym/Text")
