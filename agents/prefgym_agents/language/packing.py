"""Prompts and responses as a model reads them, and where the tokens stand that were chosen.

Prompt and response stand behind each other without a gap, rows are filled up on the right, and
attention looks back only: so no mask is needed, and what fills a row up changes nothing. Where many
responses share a prompt, it is read once, and every response goes on from what was computed for it:
the same numbers and the same gradient, for less work and memory.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefgym.segments import Segments
from prefgym.text import Layout

WORTHWHILE = 0.2
"""Prompts are read apart from responses where that saves such a share of all tokens."""


class Prompts(NamedTuple):
    """Prompts that several responses share."""

    tokens: Tensor
    """``[prompts, longest]``, filled up on the right."""
    length: Tensor
    """``[prompts]``."""
    row: Tensor
    """``[rows]`` the prompt of each response."""


class Packed(NamedTuple):
    """Texts as a model reads them, and where the tokens stand that a policy chose."""

    tokens: Tensor
    """``[rows, length]`` prompt and response; the response alone where prompts are apart."""
    place: Tensor
    """``[actions]`` the position, in ``tokens`` laid flat, that each action was chosen at. Where
    prompts are apart, each row begins with one more position: the end of its prompt."""
    actions: Tensor
    """``[actions]`` what was chosen there."""
    mask: np.ndarray
    """``[rows, steps]``: true at the actions, row by row."""
    prompts: Prompts | None = None
    """Where they are apart."""

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Prompts | None]:
        """What :meth:`LanguagePolicy.forward` takes."""
        return self.tokens, self.place, self.actions, self.prompts

    def to(self, device: torch.device) -> "Packed":
        """The same on a device."""
        tokens, place, actions = (one.to(device) for one in self.inputs[:3])
        apart = self.prompts and Prompts(*(one.to(device) for one in self.prompts))
        return Packed(tokens, place, actions, self.mask, apart)

    def unflatten(self, values: Tensor) -> Tensor:
        """Numbers of actions as ``[rows, steps]``, zero on padding."""
        mask = torch.as_tensor(self.mask, device=values.device)
        return values.new_zeros(mask.shape).masked_scatter(mask, values)


def pack(layout: Layout, segments: Segments, apart: bool = False) -> Packed:
    """Prompts and responses as a model reads them.

    Args:
        layout: where they stand in the segments.
        segments: of text.
        apart: read prompts that are shared apart from the responses, where that is worthwhile.

    Raises:
        ValueError: a prompt is empty, or these are no segments of the layout.
    """
    plain = segments.numpy()
    prompts, actions, mask = plain.context, plain.actions, plain.mask
    length = _prompt_length(layout, prompts, actions)
    if apart and mask.shape[1] > 1:
        distinct, first, row = np.unique(prompts, axis=0, return_index=True, return_inverse=True)
        row = row.reshape(-1)
        saved = length.sum() - length[first].sum()
        if saved >= WORTHWHILE * (length.sum() + mask.sum()) and mask[:, 1:].any():
            return _pack_apart(layout, distinct, length[first], row, actions, mask)
    return pack_tokens(layout, prompts, actions, mask)


def pack_tokens(
    layout: Layout, prompts: np.ndarray, actions: np.ndarray, mask: np.ndarray
) -> Packed:
    """As :func:`pack`, from the arrays, prompts and responses together."""
    prompt_length = _prompt_length(layout, prompts, actions)
    last = prompt_length + mask.sum(1) - 1
    length = max(1, int(last.max(initial=1)))
    column = np.arange(length)
    joined = _to_the_left(np.concatenate([prompts, actions], 1), prompts.shape[1] - prompt_length)
    tokens = np.where(column < last[:, None], joined[:, :length], _filler(layout))
    first = np.arange(len(prompts)) * length + prompt_length - 1
    place = (first[:, None] + np.arange(mask.shape[1]))[mask]
    return Packed(_tensor(tokens), _tensor(place), _tensor(actions[mask]), mask)


def _pack_apart(
    layout: Layout,
    distinct: np.ndarray,
    length: np.ndarray,
    row: np.ndarray,
    actions: np.ndarray,
    mask: np.ndarray,
) -> Packed:
    longest = int(length.max())
    read = _to_the_left(distinct, distinct.shape[1] - length)[:, :longest]
    read = np.where(np.arange(longest) < length[:, None], read, _filler(layout))
    steps = int(mask.sum(1).max())
    tokens = np.where(mask[:, 1:steps], actions[:, : steps - 1], _filler(layout))
    place = (np.arange(len(mask))[:, None] * steps + np.arange(mask.shape[1]))[mask]
    prompts = Prompts(_tensor(read), _tensor(length), _tensor(row))
    return Packed(_tensor(tokens), _tensor(place), _tensor(actions[mask]), mask, prompts)


def _prompt_length(layout: Layout, prompts: np.ndarray, actions: np.ndarray) -> np.ndarray:
    if prompts.ndim != 2 or prompts.shape[1] != layout.prompt_tokens or actions.ndim != 2:
        raise ValueError(
            f"Contexts of shape {prompts.shape} and actions of shape {actions.shape} came; a"
            f" language model wants [batch, {layout.prompt_tokens}] prompt tokens and [batch,"
            " steps] tokens."
        )
    length: np.ndarray = layout.prompt_mask(prompts).sum(1)
    if not length.all():
        raise ValueError(
            f"Prompt {int(length.argmin())} is empty, so that nothing says where its"
            " response begins; give every prompt a token."
        )
    return length


def _filler(layout: Layout) -> int:
    """Any token but padding may fill rows up; transformers warns of padding without a mask."""
    return 0 if layout.codec.pad != 0 else 1


def _to_the_left(rows: np.ndarray, lead: np.ndarray) -> np.ndarray:
    """Rows without the first ``lead`` numbers; what then stands at their ends is not meant."""
    where = np.minimum(lead[:, None] + np.arange(rows.shape[1]), rows.shape[1] - 1)
    return np.take_along_axis(rows, where, 1)


def _tensor(integers: np.ndarray) -> Tensor:
    return torch.from_numpy(integers.astype(np.int64))
