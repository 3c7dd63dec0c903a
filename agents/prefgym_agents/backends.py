"""Which backend acts in an environment: a language model where text is written, else a network."""

from pathlib import Path
from typing import Any

from prefgym.wrappers import preference_layer
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.tuned import settings

DEFAULT = {"text": "GRPO", "control": "PPO"}


def make_backend(
    env: Any,
    env_id: str,
    algorithm: str | None = None,
    *,
    model: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    **changes: Any,
) -> PolicyBackend:
    """The backend that suits an environment, with settings that suit it too.

    Args:
        env: a preference environment.
        env_id: its id; settings are looked up by it.
        algorithm: of Stable-Baselines3, or of the language backend; by default PPO and GRPO.
        model: folder of a language model; a new tiny one by default. For text only.
        seed: of everything.
        device: where networks are.
        **changes: settings that differ.

    Raises:
        ValueError: an unknown algorithm, or a language model for an environment without text.
    """
    writes = preference_layer(env).layout is not None
    algorithm = algorithm or DEFAULT["text" if writes else "control"]
    arguments = {**settings(algorithm, env_id), "seed": seed, "device": device, **changes}
    if writes:
        from prefgym_agents.language import language_backend  # needs transformers, an extra

        return language_backend(env, model, algorithm=algorithm, **arguments)
    if model is not None:
        raise ValueError(
            f"{env_id} writes no text, so the language model {model} cannot act in it; leave model"
            " out, or choose a prefgym/Text... environment."
        )
    return sb3_backend(algorithm, env, **arguments)
