"""One process, or several that train one model together through accelerate.

Every process acts in lanes of its own, and gradients are averaged over all of them. What is
averaged over samples is therefore divided by the samples of all processes, so that two processes
with half of a batch each take the step that one process takes with the whole. How the model is laid
out over devices (copies: DDP; shards: FSDP, version 2) is said by accelerate's own settings.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class Processes:
    """The processes that train together; alone unless ``distributed``.

    Args:
        distributed: use what ``accelerate launch`` or ``torchrun`` has set up.

    Raises:
        ImportError: accelerate is not installed.
    """

    def __init__(self, distributed: bool = False) -> None:
        self.accelerator: Any = None
        if not distributed:
            return
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise ImportError(
                'distributed=True needs accelerate; pip install "prefgym[text]".'
            ) from error
        self.accelerator = Accelerator()

    @property
    def count(self) -> int:
        """How many there are."""
        return 1 if self.accelerator is None else int(self.accelerator.num_processes)

    @property
    def number(self) -> int:
        """Which of them this is, from 0."""
        return 0 if self.accelerator is None else int(self.accelerator.process_index)

    @property
    def sharded(self) -> bool:
        """Whether each holds a part of the model only, so that all must ask it together."""
        return self.accelerator is not None and self.accelerator.distributed_type == "FSDP"

    def any(self, here: bool) -> bool:
        """Whether it is so in any of them."""
        flag = torch.tensor(float(here), device=self.accelerator.device)
        return bool(self.sum(flag))

    def prepare(
        self, policy: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[Any, torch.optim.Optimizer]:
        """What to call in place of the policy, and what to step in place of the optimizer."""
        run, stepped = self.accelerator.prepare(policy, optimizer)
        return run, stepped

    def together(self, run: Any, last: bool) -> AbstractContextManager[Any]:
        """Where a gradient is added up: processes exchange it with the last part only."""
        if self.accelerator is None or last:
            return nullcontext()
        waiting: AbstractContextManager[Any] = self.accelerator.no_sync(run)
        return waiting

    def backward(self, loss: Tensor) -> None:
        """Add up gradients."""
        if self.accelerator is None:
            loss.backward()
        else:
            self.accelerator.backward(loss)

    def clip(self, parameters: Iterable[nn.Parameter], longest: float) -> float:
        """Shorten the gradient of all parameters together; returns its length before."""
        clip = nn.utils.clip_grad_norm_
        if self.accelerator is not None:
            clip = self.accelerator.clip_grad_norm_
        return float(whole(clip(list(parameters), longest)))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in each of them."""
        if self.count == 1:
            return values
        total: Tensor = self.accelerator.reduce(values, reduction="sum")
        return total


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards, on every process that holds one; itself if it has none."""
    if not _in_shards(tensor):
        return tensor
    gathered: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return gathered


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of another, in shards where that one is."""
    here = tensor.to(like.device, like.dtype)
    if not _in_shards(like):
        return here
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(here, like.device_mesh, like.placements)  # type: ignore[attr-defined]


def _in_shards(tensor: Tensor) -> bool:
    """Asked before anything of torch.distributed is imported, which not every PyTorch has."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
