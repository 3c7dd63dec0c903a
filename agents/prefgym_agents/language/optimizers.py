"""AdamW for weights that are kept in few bits."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prefgym_agents.processes import Processes, spread, whole


class ExactAdamW:
    """AdamW whose steps are taken in float32, whatever the weights are kept in.

    A step of 1e-6 changes nothing in a bfloat16 weight of 0.1: rounding undoes it. So the weights
    that are kept in fewer bits have exact copies here, which are stepped and rounded back.
    Weights in float32 are stepped as they are.

    Args:
        weights: to improve.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], learning_rate: float, weight_decay: float = 0.0
    ) -> None:
        self.weights = list(weights)
        self.exact = [
            one if one.dtype == torch.float32 else nn.Parameter(one.detach().float())
            for one in self.weights
        ]
        self.adam: Any = torch.optim.AdamW(
            self.exact, learning_rate, weight_decay=weight_decay, fused=True
        )

    def prepare(self, policy: nn.Module, processes: Processes) -> Any:
        """Share the work among processes; returns what to call in place of the policy.

        Raises:
            ValueError: weights are kept in fewer bits.
        """
        if processes.accelerator is not None and self._rounded():
            raise ValueError(
                'distributed=True wants dtype="float32"; let accelerate compute in fewer bits'
                " (mixed_precision: bf16 in its settings)."
            )
        if processes.accelerator is None:
            return policy
        run, self.adam = processes.prepare(policy, self.adam)
        self.weights = [one for group in self.adam.param_groups for one in group["params"]]
        self.exact = self.weights
        return run

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.adam.zero_grad()
        for one in self.weights:
            one.grad = None

    def step(self) -> None:
        """Improve the weights by their gradients."""
        for weight, exact in self._rounded():
            exact.grad = None if weight.grad is None else weight.grad.float()
        self.adam.step()
        with torch.no_grad():
            for weight, exact in self._rounded():
                weight.copy_(exact)

    @torch.no_grad()
    def follow(self) -> None:
        """Take the weights as they are now, because they were changed from outside."""
        for weight, exact in self._rounded():
            exact.copy_(weight)

    def state_dict(self) -> dict[str, Any]:
        """Copies of the moments, and of the weights that are kept exactly here."""
        told = self.adam.state_dict()
        state = {
            place: {name: _copy(value) for name, value in moments.items()}
            for place, moments in told["state"].items()
        }
        exact = [_copy(exact) for _, exact in self._rounded()]
        return {"state": state, "param_groups": told["param_groups"], "exact": exact}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state_dict`."""
        parameters = [one for group in self.adam.param_groups for one in group["params"]]
        moments = {
            int(place): {
                name: spread(value, parameters[int(place)]) if value.ndim else value
                for name, value in some.items()
            }
            for place, some in state["state"].items()
        }
        self.adam.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
        with torch.no_grad():
            for (_, exact), value in zip(self._rounded(), state["exact"], strict=True):
                exact.copy_(spread(value, exact))

    def _rounded(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        pairs = zip(self.weights, self.exact, strict=True)
        return [(weight, exact) for weight, exact in pairs if weight is not exact]


def _copy(value: Any) -> Any:
    return whole(value).detach().cpu().clone() if isinstance(value, Tensor) else value
