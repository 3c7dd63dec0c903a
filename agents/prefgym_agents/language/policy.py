"""A causal language model as a policy: log-probabilities and values of the tokens of responses.

Everything that a model is asked goes through one class, whatever wraps it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from prefgym.segments import Segments
from prefgym.text import Layout
from prefgym_agents.language.decoding import decoder_of, goes_on
from prefgym_agents.language.packing import Prompts, pack

LOGITS_AT_ONCE = 1 << 26
"""Numbers; where prediction needs more, they are computed twice so as not to be kept."""


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
        self.reads_apart = goes_on(model)
        """Whether prompts may be read apart from the responses that share them."""
        self.decoder = decoder_of(model) if self._plain_head else None
        """The short way to one more token, where there is one."""
        self._no_split_modules = getattr(model, "_no_split_modules", None)  # accelerate reads it

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(
        self,
        tokens: Tensor,
        place: Tensor,
        actions: Tensor | None = None,
        prompts: Prompts | None = None,
        **cached: Any,
    ) -> Any:
        """Log-probability and value of ``actions``; without them, the :class:`Outputs`.

        Args:
            tokens: ``[rows, length]``.
            place: positions in ``tokens`` laid flat; see ``Packed``.
            actions: ``[positions]`` tokens that were chosen there.
            prompts: of the rows, where they are apart.
            **cached: what transformers wants beside the tokens when it goes on from a cache.
        """
        if prompts is not None:
            read = self._read_apart(prompts, tokens)
        else:
            read = self._read_together(tokens, cached)
        hidden, logits = self._heads(read, place)
        if actions is None:
            return Outputs(logits(hidden), self._value(hidden))
        return self._log_prob(hidden, actions, logits), self._value(hidden)

    def outputs(self, hidden: Tensor) -> Outputs:
        """What the heads say of last hidden states ``[rows, width]``; see :attr:`decoder`."""
        logits = self._scaled(self.model.get_output_embeddings()(hidden))
        return Outputs(logits, self._value(hidden))

    def _read_together(self, tokens: Tensor, cached: dict[str, Any]) -> list[Tensor]:
        if not cached:
            cached = {"use_cache": False}
            if bool((tokens == self.model.config.pad_token_id).any()):
                # Written, and so not padding; without a mask some models take it for that.
                cached["attention_mask"] = torch.ones_like(tokens)
        again = self.recompute and torch.is_grad_enabled() and "past_key_values" not in cached
        with _recomputing(self.model) if again else nullcontext():
            return self._read(tokens, cached)

    def _read_apart(self, prompts: Prompts, tokens: Tensor) -> list[Tensor]:
        """Each row's hidden state at the end of its prompt, and those of its response."""
        cache = DynamicCache(config=self.model.config)
        kept = {"past_key_values": cache, "use_cache": True}
        all_seen = torch.ones_like(prompts.tokens)
        before = self._read(prompts.tokens, {"attention_mask": all_seen, **kept})
        cache.batch_select_indices(prompts.row)
        column = torch.arange(prompts.tokens.shape[1], device=tokens.device)
        length = prompts.length[prompts.row]
        seen = torch.cat([(column < length[:, None]).long(), torch.ones_like(tokens)], 1)
        position = length[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        after = self._read(tokens, {"attention_mask": seen, "position_ids": position, **kept})
        return [
            torch.cat([first[prompts.row, length - 1][:, None], rest], 1)
            for first, rest in zip(before, after, strict=True)
        ]

    def _read(self, tokens: Tensor, told: dict[str, Any]) -> list[Tensor]:
        """Last hidden states, and logits where they are no function of these alone."""
        if self._plain_head:
            return [self.model.get_decoder()(input_ids=tokens, **told).last_hidden_state]
        said = self.model(input_ids=tokens, output_hidden_states=True, **told)
        return [said.hidden_states[-1], said.logits]

    def _heads(
        self, read: list[Tensor], place: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Hidden states at ``place``, and what makes logits of (some of) them."""
        hidden, *logits = (one.flatten(0, 1).index_select(0, place) for one in read)
        if logits:
            rows = self._scaled(logits[0])
            return hidden, lambda _: rows
        head = self.model.get_output_embeddings()
        return hidden, lambda some: self._scaled(head(some))

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
        packed = pack(layout, some, policy.reads_apart).to(policy.device)
        parts.append([packed.unflatten(one) for one in policy(*packed.inputs)])
    log_prob, value = (torch.cat(some) for some in zip(*parts, strict=True))
    return log_prob, value


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
