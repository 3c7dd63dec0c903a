"""A score of captions, learned online from labels as they come.

Both kinds of labels are fitted by one cross-entropy, −y log σ(m) − (1 − y) log σ(−m), where the
margin m is the score of a caption, or the difference of the scores of two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from prefgym.losses import logistic
from prefgym.models.caption_models.encoders import ENCODERS, CaptionEncoder
from prefgym.names import lookup

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Online:
    """How much is learned when. The defaults are those of ONI, arXiv:2410.23022."""

    steps: int = 32
    """Gradient steps of each update of the policy at which labels have come."""
    until: int = 25_000
    """Labels; from so many on there are ``later_steps`` at every update, labels or none."""
    later_steps: int = 1
    batch: int = 256
    """Labels of each step, drawn with replacement."""
    learning_rate: float | None = None
    """Of Adam; None: 1e-4 for characters as in ONI, 1e-2 for words."""
    clip: float = 10.0
    """Longest gradient."""

    def __post_init__(self) -> None:
        """Refuse what cannot be learned with."""
        rate = 1.0 if self.learning_rate is None else self.learning_rate
        if min(self.steps, self.until, self.later_steps) < 0 or self.batch < 1 or rate <= 0.0:
            raise ValueError(
                f"{self}: wanted a batch of 1 or more, a learning rate above 0, and no other "
                "number below 0."
            )

    def steps_due(self, labels: int, new: int) -> int:
        """Gradient steps of this update, with so many labels in all and so many new ones."""
        if not labels:
            return 0
        if labels >= self.until:
            return self.later_steps
        return self.steps if new else 0


class CaptionScores:
    """A network's scores of captions, and the labels that it learns from.

    Args:
        captions: in a label, 1 or 2.
        encoder: "words" or "characters".
        online: how much is learned when.
        seed: of weights, minibatches and dropout; no other random numbers are touched.
    """

    def __init__(self, captions: int, encoder: str, online: Online, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._width, self._online = captions, online
        self.network: CaptionEncoder = lookup(encoder, ENCODERS, "encoder of captions")(
            self._generator
        )
        rate = online.learning_rate or self.network.learning_rate
        self._optimiser = torch.optim.Adam(self.network.parameters(), rate)
        self._numbers: dict[str, int] = {}
        """The row of each caption."""
        self._rows: Tensor = self.network.rows([])
        self._examples: Tensor = torch.zeros(0, captions, dtype=torch.int64)
        """``[labels, 1 or 2]`` rows of the captions of each label."""
        self.label: Tensor = torch.zeros(0)

    def __len__(self) -> int:
        """Labels that it learns from."""
        return len(self.label)

    @property
    def captions(self) -> list[str]:
        """The different captions of the labels, in the order in which they came."""
        return list(self._numbers)

    def learn(
        self, columns: Sequence[Sequence[str]], label: np.ndarray, steps: int | None
    ) -> dict[str, float]:
        """Add labels, and descend; metrics: loss and accuracy (minibatches), gradient_steps."""
        self._add(columns, label)
        if steps is None:
            steps = self._online.steps_due(len(self), len(label))
        elif not len(self):
            steps = 0
        told = [self._step() for _ in range(steps)]
        metrics = {"labels": float(len(self)), "gradient_steps": float(steps)}
        if told:
            loss, right = torch.stack(told).mean(0).tolist()
            metrics |= {"loss": loss, "accuracy": right}
        return metrics

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Float[np.ndarray, " captions"]:
        """The score of each caption."""
        if not captions:
            return np.zeros(0)
        parts = self.network.rows(captions).split(_ROWS_AT_ONCE)
        return torch.cat([self.network(part) for part in parts]).numpy().astype(np.float64)

    def _add(self, columns: Sequence[Sequence[str]], label: np.ndarray) -> None:
        if not len(label):
            return
        known = len(self._numbers)
        for column in columns:
            for caption in column:
                self._numbers.setdefault(caption, len(self._numbers))
        new = self.captions[known:]
        self.network.meet(new)
        self._follow()
        self._rows = torch.cat([self._rows, self.network.rows(new)])
        numbers = [[self._numbers[caption] for caption in column] for column in columns]
        self._examples = torch.cat([self._examples, torch.tensor(numbers).T])
        self.label = torch.cat([self.label, torch.as_tensor(label, dtype=torch.float32)])

    def _follow(self) -> None:
        """Descend on the network's tensors as they are now; of new rows nothing is known yet."""
        group, now = self._optimiser.param_groups[0], list(self.network.parameters())
        for old, new in zip(group["params"], now, strict=True):
            if old is not new and (moments := self._optimiser.state.pop(old, None)):
                self._optimiser.state[new] = {
                    name: one if one.dim() == 0 else _with_rows(one, len(new))
                    for name, one in moments.items()
                }
        group["params"] = now

    def _step(self) -> Tensor:
        """One step of Adam; loss and accuracy of its minibatch."""
        drawn = torch.randint(len(self), (self._online.batch,), generator=self._generator)
        examples, times = drawn.unique(return_counts=True)
        which, place = self._examples[examples].unique(return_inverse=True)
        scores = self.network(self._rows[which], self._generator)[place]
        margin = scores[:, 0] if self._width == 1 else scores[:, 0] - scores[:, 1]
        label, share = self.label[examples], times / self._online.batch
        loss = (logistic(margin, label) * share).sum()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self._online.clip)
        self._optimiser.step()
        agree = 0.5 + 0.5 * torch.sign(margin.detach()) * torch.sign(label - 0.5)
        decided = (label != 0.5) * share
        return torch.stack([loss.detach(), (agree * decided).sum() / decided.sum().clamp(min=1e-9)])

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what happens next, as arrays and plain values."""
        moments = self._optimiser.state_dict()["state"]
        return {
            "parameters": _arrays(self.network.state_dict()),
            "optimiser": {str(number): _arrays(one) for number, one in moments.items()},
            "generator": self._generator.get_state().numpy().copy(),
            "words": self.network.get_words(),
            "captions": self.captions,
            "examples": self._examples.numpy().copy(),
            "label": self.label.numpy().copy(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`get_state`, bit for bit."""
        self.network.set_words(state["words"])
        self.network.load_state_dict(_tensors(state["parameters"]))
        self._follow()
        whole = self._optimiser.state_dict()
        whole["state"] = {int(number): _tensors(one) for number, one in state["optimiser"].items()}
        self._optimiser.load_state_dict(whole)
        self._numbers = {caption: number for number, caption in enumerate(state["captions"])}
        self._rows = self.network.rows(state["captions"])
        self._examples = torch.tensor(state["examples"])
        self.label = torch.tensor(state["label"])
        self._generator.set_state(torch.tensor(state["generator"]))


def _with_rows(values: Tensor, rows: int) -> Tensor:
    """The same, with rows of 0 behind, or fewer rows."""
    more = values.new_zeros(max(0, rows - len(values)), *values.shape[1:])
    return torch.cat([values[:rows], more])


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: one.detach().numpy().copy() for name, one in tensors.items()}


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.tensor(one) for name, one in arrays.items()}
