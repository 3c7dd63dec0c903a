"""The weights of a language model: copied, put back, told apart, and gathered from shards."""

from collections.abc import Mapping
from typing import Any
from zlib import crc32

import torch
import transformers
from torch import Tensor, nn

from prefgym_agents.language.people import DESCRIPTIONS
from prefgym_agents.processes import spread, whole


def weights_of(policy: nn.Module, all_of_them: bool = False) -> dict[str, Tensor]:
    """Copies of what changes in training (or of all parameters too), in float32 on the CPU.

    Parameters that learn, and the table of a policy that reads descriptions of people.
    """
    return {
        name: whole(one).detach().float().cpu().clone()
        for name, one in _places(policy).items()
        if all_of_them or one.requires_grad or name.endswith(DESCRIPTIONS)
    }


def _places(policy: nn.Module) -> dict[str, Tensor]:
    tables = {name: one for name, one in policy.named_buffers() if name.endswith(DESCRIPTIONS)}
    return {**dict(policy.named_parameters()), **tables}


@torch.no_grad()
def load_weights(policy: nn.Module, parameters: Mapping[str, Any]) -> None:
    """Overwrite what :func:`weights_of` copies, by arrays or tensors.

    Raises:
        ValueError: one has no place here, or another shape.
    """
    places = _places(policy)
    for name, value in parameters.items():
        tensor = torch.as_tensor(value)
        if name not in places or places[name].shape != tensor.shape:
            raise ValueError(
                f"the parameter {name} of shape {tuple(tensor.shape)} has no place in this model"
            )
        places[name].copy_(spread(tensor, places[name]))


def fingerprint(policy: nn.Module) -> int:
    """A number that tells weights that do not learn from other ones, by a little of each."""
    found = 0
    for name, one in policy.named_parameters():
        if not one.requires_grad:
            some = whole(one).detach().flatten()[:1024].float().cpu().numpy()
            found = crc32(some.tobytes(), crc32(name.encode(), found))
    return found


def gathered(model: Any) -> Any:
    """A copy of a model of transformers whose weights are spread over processes, whole.

    Raises:
        ValueError: it has adapters.
    """
    if any("lora_" in name for name, _ in model.named_parameters()):
        raise ValueError(
            "Adapters cannot be merged while the weights are spread over processes (FSDP); train"
            " adapters with copies of the model (DDP), or save get_state()."
        )
    with torch.random.fork_rng(devices=[]):
        copied = transformers.AutoModelForCausalLM.from_config(model.config, dtype=model.dtype)
    copied = copied.to(next(model.parameters()).device).eval()
    load_weights(copied, weights_of(model, all_of_them=True))
    return copied
