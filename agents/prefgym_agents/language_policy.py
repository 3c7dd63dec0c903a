"""A causal language model as a policy: log-probabilities and values of the tokens of responses.

Prompt and response stand behind each other without a gap, rows are filled up on the right, and
attention looks back only: so no mask is needed, and what fills a row up changes nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from prefgym.segments import Segments
from prefgym.text import Layout
from prefgym_agents.language_decoding import decoder_of

LOGITS_AT_ONCE = 1 << 26
"""Numbers; where prediction needs more, they are computed twice so as not to be kept."""


class Packed(NamedTuple):
    """Texts as a model reads them, and where the tokens stand that a policy chose."""

    tokens: Tensor
    """``[rows, length]`` prompt and response."""
    place: Tensor
    """``[actions]`` the position, in ``tokens`` laid flat, that each action was chosen at."""
    actions: Tensor
    """``[actions]`` what was chosen there."""
    mask: np.ndarray
    """``[rows, steps]``: true at the actions, row by row."""

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """What :meth:`LanguagePolicy.forward` takes."""
        return self.tokens, self.place, self.actions

    def to(self, device: torch.device) -> "Packed":
        """The same on a device."""
        tokens, place, actions = (one.to(device) for one in self.inputs)
        return Packed(tokens, place, actions, self.mask)

    def unflatten(self, values: Tensor) -> Tensor:
        """Numbers of actions as ``[rows, steps]``, zero on padding."""
        mask = torch.as_tensor(self.mask, device=values.device)
        return values.new_zeros(mask.shape).masked_scatter(mask, values)


def pack(layout: Layout, segments: Segments) -> Packed:
    """Prompts and responses as a model reads them.

    Raises:
        ValueError: a prompt is empty, or these are no segments of the layout.
    """
    plain = segments.numpy()
    return pack_tokens(layout, plain.context, plain.actions, plain.mask)


def pack_tokens(
    layout: Layout, prompts: np.ndarray, actions: np.ndarray, mask: np.ndarray
) -> Packed:
    """As :func:`pack`, from the arrays."""
    if prompts.ndim != 2 or prompts.shape[1] != layout.prompt_tokens or actions.ndim != 2:
        raise ValueError(
            f"Contexts of shape {prompts.shape} and actions of shape {actions.shape} came; a"
            f" language model wants [batch, {layout.prompt_tokens}] prompt tokens and [batch,"
            " steps] tokens."
        )
    prompt_length = layout.prompt_mask(prompts).sum(1)
    if not prompt_length.all():
        raise ValueError(
            f"Prompt {int(prompt_length.argmin())} is empty, so that nothing says where its"
            " response begins; give every prompt a token."
        )
    last = prompt_length + mask.sum(1) - 1
    length = max(1, int(last.max(initial=1)))
    lead = layout.prompt_tokens - prompt_length
    column = np.arange(length)
    joined = np.concatenate([prompts, actions], 1)
    where = np.minimum(lead[:, None] + column, joined.shape[1] - 1)
    # Any token but padding may fill the rows up; transformers warns of padding without a mask.
    fill = 0 if layout.codec.pad != 0 else 1
    tokens = np.where(column < last[:, None], np.take_along_axis(joined, where, 1), fill)
    first = np.arange(len(prompts)) * length + prompt_length - 1
    place = (first[:, None] + np.arange(mask.shape[1]))[mask]
    return Packed(
        torch.from_numpy(tokens.astype(np.int64)),
        torch.from_numpy(place),
        torch.from_numpy(actions[mask].astype(np.int64)),
        mask,
    )


class Outputs(NamedTuple):
    """What a model says at some positions."""

    logits: Tensor
    """``[positions, vocabulary]`` in float32."""
    value: Tensor
    """``[positions]``; zeros without a value head."""


class LanguagePolicy(nn.Module):
    """A causal language model, the temperature at which it acts, and a value head.

    Everything that the model is asked goes through :meth:`forward`, so that it may be wrapped for
    several devices.

    Args:
        model: of transformers; adapters of peft may be inside.
        vocabulary: tokens that may be chosen: the first so many.
        temperature: the policy is softmax(logits / temperature), when it acts and when it is asked.
        values: have a value head, a linear function of the hidden state; it begins at 0.
    """

    def __init__(
        self, model: Any, vocabulary: int, temperature: float = 1.0, values: bool = False
    ) -> None:
        super().__init__()
        if temperature <= 0.0:
            raise ValueError(
                f"temperature={temperature}; wanted a number above 0 (predict(deterministic=True)"
                " chooses the most likely token)."
            )
        self.model = model
        self.vocabulary = vocabulary
        self.temperature = temperature
        self.value_head: nn.Linear | None = None
        if values:
            weight = model.get_output_embeddings().weight
            head = nn.Linear(weight.shape[1], 1, device=weight.device)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            self.value_head = head
        self.recompute = False
        """Keep fewer hidden numbers for the gradient, and compute them a second time instead."""
        self._plain_head = _has_plain_head(model)
        self.decoder = decoder_of(model) if self._plain_head else None
        """The short way to one more token, where there is one."""
        self._no_split_modules = getattr(model, "_no_split_modules", None)  # accelerate reads it

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(
        self, tokens: Tensor, place: Tensor, actions: Tensor | None = None, **cached: Any
    ) -> Any:
        """Log-probability and value of ``actions``; without them, the :class:`Outputs`.

        Args:
            tokens: ``[rows, length]``.
            place: positions in ``tokens`` laid flat.
            actions: ``[positions]`` tokens that were chosen there.
            **cached: what transformers wants beside the tokens when it goes on from a cache.
        """
        if not cached and bool((tokens == self.model.config.pad_token_id).any()):
            # Written, and so not padding; without a mask some models take it for that, and warn.
            cached = {"attention_mask": torch.ones_like(tokens)}
        again = self.recompute and torch.is_grad_enabled() and "use_cache" not in cached
        with _recomputing(self.model) if again else nullcontext():
            hidden, logits = self._run(tokens, place, cached)
        if actions is None:
            return Outputs(logits(hidden), self._value(hidden))
        return self._log_prob(hidden, actions, logits), self._value(hidden)

    def outputs(self, hidden: Tensor) -> Outputs:
        """What the heads say of last hidden states ``[rows, width]``; see :attr:`decoder`."""
        logits = self._scaled(self.model.get_output_embeddings()(hidden))
        return Outputs(logits, self._value(hidden))

    def _run(
        self, tokens: Tensor, place: Tensor, cached: dict[str, Any]
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Hidden states at ``place``, and what makes logits of (some of) them."""
        model = self.model
        if self._plain_head:
            states = model.get_decoder()(input_ids=tokens, **cached).last_hidden_state
            head = model.get_output_embeddings()
            return _at(states, place), lambda hidden: self._scaled(head(hidden))
        told = model(input_ids=tokens, output_hidden_states=True, **cached)
        rows = self._scaled(_at(told.logits, place))
        return _at(told.hidden_states[-1], place), lambda hidden: rows

    def _value(self, hidden: Tensor) -> Tensor:
        if self.value_head is None:
            return hidden.new_zeros(len(hidden), dtype=torch.float32)
        value: Tensor = self.value_head(hidden.to(self.value_head.weight.dtype))[:, 0]
        return value

    def _scaled(self, logits: Tensor) -> Tensor:
        chosen = logits[:, : self.vocabulary].float()
        return chosen if self.temperature == 1.0 else chosen / self.temperature

    def _log_prob(
        self, hidden: Tensor, actions: Tensor, logits: Callable[[Tensor], Tensor]
    ) -> Tensor:
        def some(rows: Tensor, chosen: Tensor) -> Tensor:
            numbers = logits(rows)
            picked = numbers.gather(1, chosen[:, None])[:, 0]
            return picked - torch.logsumexp(numbers, 1)

        at_once = max(1, LOGITS_AT_ONCE // self.vocabulary)
        if len(actions) <= at_once or not self._plain_head:
            return some(hidden, actions)
        parts = [
            checkpoint(some, rows, chosen, use_reentrant=False)
            for rows, chosen in zip(hidden.split(at_once), actions.split(at_once), strict=True)
        ]
        return torch.cat(parts)


@torch.no_grad()
def scores(
    policy: LanguagePolicy, layout: Layout, segments: Segments, rows_at_once: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and values of all tokens, ``[B, T]`` each, in bounded memory."""
    parts = []
    for begin in range(0, len(segments), rows_at_once):
        some = segments.take(slice(begin, begin + rows_at_once))
        packed = pack(layout, some).to(policy.device)
        parts.append([packed.unflatten(one) for one in policy(*packed.inputs)])
    log_prob, value = (torch.cat(some) for some in zip(*parts, strict=True))
    return log_prob, value


def _at(states: Tensor, place: Tensor) -> Tensor:
    return states.flatten(0, 1).index_select(0, place)


def _has_plain_head(model: Any) -> bool:
    """Whether logits are a function of the last hidden state alone: tried, not known by name."""
    head = model.get_output_embeddings()
    token = 0 if model.config.pad_token_id != 0 else 1
    probe = torch.full((1, 2), token, device=head.weight.device)
    with torch.no_grad():
        states = model.get_decoder()(input_ids=probe).last_hidden_state
        return torch.equal(head(states), model(input_ids=probe).logits)


@contextmanager
def _recomputing(model: nn.Module) -> Iterator[None]:
    """Gradient checkpointing of every block, without turning dropout on."""
    blocks = [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]
    for one in blocks:
        vars(one)["_gradient_checkpointing_func"] = partial(checkpoint, use_reentrant=False)
        one.gradient_checkpointing = one.training = True
    try:
        yield
    finally:
        for one in blocks:
            one.gradient_checkpointing = one.training = False
