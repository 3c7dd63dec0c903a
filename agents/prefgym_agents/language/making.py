"""A language model made into a policy backend: weights, adapters, processes, for an environment."""

from typing import Any

import torch

from prefgym.names import settings_of
from prefgym.wrappers import preference_layer
from prefgym_agents.language.backend import LanguageBackend
from prefgym_agents.language.models import add_lora, causal_model
from prefgym_agents.language.people import tell_apart
from prefgym_agents.language.policy import LanguagePolicy
from prefgym_agents.language.updates import Config
from prefgym_agents.processes import Processes


def language_backend(
    env: Any,
    model: Any = None,
    *,
    seed: int | None = None,
    device: str = "cpu",
    dtype: str | torch.dtype = "float32",
    lora: int | None = None,
    distributed: bool = False,
    config: Config | None = None,
    **changes: Any,
) -> LanguageBackend:
    """A language model that acts in a preference environment of text.

    Args:
        env: such as ``gymnasium.make_vec`` of a prefgym text id returns.
        model: the folder of a Hugging Face checkpoint; a model of transformers, which is trained in
            place; a configuration of transformers, whose weights are drawn from ``seed``; or None,
            a tiny GPT-2.
        seed: of the weights that are not read, the responses and the environment.
        device: "cpu", "cuda", ...
        dtype: of the weights, "float32" or "bfloat16". The optimizer keeps exact copies.
        lora: rank of low-rank adapters; None trains all weights.
        distributed: train together with other processes, as ``accelerate launch`` has set them up.
        config: the settings.
        **changes: single settings that differ from ``config``, such as ``algorithm="PPO"``.

    Raises:
        ValueError: the environment is not one of text, the model does not fit it, or there is no
            such setting.
    """
    layer = preference_layer(env)
    if layer.layout is None:
        raise ValueError(
            f"{env} is no text environment (it has no layout), so a language model cannot act in"
            " it; use sb3_backend, or make one such as prefgym/TextSort-v0."
        )
    settings: Config = settings_of(config or Config(), changes, "the language backend")
    processes = Processes(distributed)
    if distributed:
        device = str(processes.accelerator.device)
    weights_seed = 0 if seed is None else seed
    base = causal_model(model, layer.layout, seed=weights_seed, dtype=dtype, device=device)
    adapters = None if lora is None else add_lora(base, lora, weights_seed)
    if layer.layout.people:
        if processes.sharded:
            raise ValueError(
                "personal=: a model whose weights are spread over processes (FSDP) cannot read for"
                " whom it writes; train copies of the model (DDP), or without personal=."
            )
        tell_apart(base, layer.layout.people)
    policy = LanguagePolicy(
        base, layer.layout.codec.size, settings.temperature, settings.algorithm == "PPO"
    )
    return LanguageBackend(
        layer, policy, settings, adapters=adapters, seed=seed, processes=processes
    )
