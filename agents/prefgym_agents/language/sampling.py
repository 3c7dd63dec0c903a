"""Writing responses with a language model: a decoding loop of its own, with a cache.

Responses are written in batches of prompts of like length. Equal prompts are read once. What was
computed for earlier tokens is kept in memory that is set aside beforehand, and rows that have ended
leave the batch. Every response uses random numbers of its own, so that it does not depend on the
batch that it is written in.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefgym.text import Layout
from prefgym_agents.language.decoding import roomy_cache
from prefgym_agents.language.policy import LanguagePolicy, Outputs
from prefgym_agents.language.takeovers import Takeovers

Watched = Callable[[Tensor, int, Tensor, Tensor], Tensor]
"""``watched(rows, step, chosen, going_on)``: the tokens that are written instead."""
STAY = 0.875
"""Ended rows leave once less than this share of a batch goes on: moving a cache costs, too."""


class Written(NamedTuple):
    """Responses, ``[rows, steps]`` each; zeros behind their ends."""

    actions: np.ndarray
    mask: np.ndarray
    log_prob: np.ndarray
    """Of each token under the policy, also of those that somebody else wrote."""
    value: np.ndarray
    """What the value head said before each token."""


def write(
    policy: LanguagePolicy,
    layout: Layout,
    prompts: np.ndarray,
    *,
    generator: torch.Generator | None,
    rows_at_once: int = 512,
    anyone: Callable[[bool], bool] | None = None,
    takeovers: Takeovers | None = None,
) -> Written:
    """A response to every prompt.

    Args:
        policy: who writes.
        layout: where prompts and responses stand.
        prompts: ``[rows, P]``, padded on the left.
        generator: of the random numbers, on the CPU; None takes the most likely tokens.
        rows_at_once: responses written side by side.
        anyone: whether any of several processes goes on, where every step needs them all.
        takeovers: who may write tokens in the policy's place; None: nobody does.
    """
    rows, steps = len(prompts), layout.response_tokens
    draws = None if generator is None else torch.rand((rows, steps), generator=generator)
    written = Written(
        np.zeros((rows, steps), np.int64),
        np.zeros((rows, steps), np.bool_),
        np.zeros((rows, steps), np.float32),
        np.zeros((rows, steps), np.float32),
    )
    order = np.argsort(layout.prompt_mask(prompts).sum(1), kind="stable")
    for begin in range(0, rows, rows_at_once):
        some = order[begin : begin + rows_at_once]
        mine = None if draws is None else draws[torch.from_numpy(some)]
        batch = _Batch(policy, layout, anyone)
        watched = None if takeovers is None else partial(_watched, takeovers, some)
        for whole, part in zip(written, batch.write(prompts[some], mine, watched), strict=True):
            whole[some] = part
    return written


def choose(logits: Tensor, draws: Tensor | None) -> Tensor:
    """A token of each row ``[rows, vocabulary]``: by a number in [0, 1), or the most likely one.

    Where logits are NaN it is the last token: the update that follows stops and says what is wrong.
    """
    if draws is None:
        return logits.argmax(1)
    reach = logits.softmax(1).cumsum(1)
    total = reach[:, -1:]
    below = torch.minimum(draws[:, None] * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(reach, below, right=True)[:, 0].clamp(max=logits.shape[1] - 1)


def _watched(
    takeovers: Takeovers, lanes: np.ndarray, rows: Tensor, step: int, chosen: Tensor, on: Tensor
) -> Tensor:
    """The tokens that are written in place of those that were chosen."""
    who, tokens, going_on = (one.cpu().numpy() for one in (rows, chosen, on))
    return torch.from_numpy(takeovers(lanes[who], step, tokens, going_on)).to(chosen)


class _Batch:
    """Responses that are written side by side: the cache, and what has to be told with it."""

    def __init__(
        self, policy: LanguagePolicy, layout: Layout, anyone: Callable[[bool], bool] | None
    ) -> None:
        self.policy = policy
        self.layout = layout
        self.anyone = anyone
        self.device = policy.device
        self.length = 0
        self.position = torch.zeros(0, dtype=torch.long)
        """``[rows]`` of the token that comes next."""
        self.seen: Tensor | None = None
        """``[rows, P + T]``: false at padding; None where all prompts are of one length."""

    @torch.no_grad()
    def write(
        self, prompts: np.ndarray, draws: Tensor | None, watched: Watched | None = None
    ) -> list[np.ndarray]:
        """Actions, mask, log-probabilities and values of a response to each prompt."""
        count, steps, eos = len(prompts), self.layout.response_tokens, self.layout.codec.eos
        draws = None if draws is None else draws.to(self.device)
        actions = torch.zeros((count, steps), dtype=torch.long, device=self.device)
        mask = torch.zeros((count, steps), dtype=torch.bool, device=self.device)
        log_prob, value = torch.zeros((2, count, steps), device=self.device)
        rows = torch.arange(count, device=self.device)
        going_on = torch.ones_like(rows, dtype=torch.bool)
        said = self._read(prompts)
        for step in range(steps):
            chosen = choose(said.logits, None if draws is None else draws[rows, step])
            if watched is not None:
                chosen = watched(rows, step, chosen, going_on)
            chances = said.logits.gather(1, chosen[:, None])[:, 0] - said.logits.logsumexp(1)
            mask[rows, step] = going_on
            actions[rows, step], log_prob[rows, step], value[rows, step] = (
                torch.where(going_on, one, torch.zeros_like(one))
                for one in (chosen, chances, said.value)
            )
            going_on = going_on & (chosen != eos)
            left = int(going_on.sum())
            if step == steps - 1 or not (self.anyone or bool)(left > 0):
                break
            if left < STAY * len(rows) and len(rows) > 1:
                stay = going_on.nonzero()[:, 0] if left else rows.new_zeros(1)
                rows, chosen, going_on = rows[stay], chosen[stay], going_on[stay]
                self._keep(stay)
            said = self._read_on(chosen)
        return [one.cpu().numpy() for one in (actions, mask, log_prob, value)]

    def _read(self, prompts: np.ndarray) -> Outputs:
        """What the model says after each prompt; equal prompts are read once."""
        distinct, row = np.unique(prompts, axis=0, return_inverse=True)
        real = self.layout.prompt_mask(distinct)
        first = int(real.argmax(1).min())
        tokens = torch.from_numpy(distinct[:, first:].astype(np.int64)).to(self.device)
        self.length = tokens.shape[1]
        room = self.length + self.layout.response_tokens
        self.cache = roomy_cache(self.policy.model.config, room)
        self.position = torch.full((len(tokens),), self.length, device=self.device)
        positions = None
        if not real[:, first:].all():
            seen = torch.ones((len(tokens), room), dtype=torch.bool)
            seen[:, : self.length] = torch.from_numpy(real[:, first:])
            self.seen = seen.to(self.device)
            positions = (self.seen[:, : self.length].long().cumsum(1) - 1).clamp(min=0)
            self.position = positions[:, -1] + 1
        said = self._ask(tokens, positions)
        index = torch.from_numpy(row.reshape(-1)).to(self.device)
        self._keep(index)
        return Outputs(said.logits[index], said.value[index])

    def _read_on(self, chosen: Tensor) -> Outputs:
        """What the model says after one more token of each response."""
        self.length += 1
        position, self.position = self.position, self.position + 1
        decoder = self.policy.decoder
        if decoder is None or self.anyone is not None:
            return self._ask(chosen[:, None], None if self.seen is None else position[:, None])
        seen = None if self.seen is None else self.seen[:, None, None, : self.length]
        hidden = decoder(self.policy.model, chosen, position, self.cache.layers, seen)
        return self.policy.outputs(hidden)

    def _ask(self, tokens: Tensor, positions: Tensor | None) -> Outputs:
        """The long way, through all of transformers."""
        count, new = tokens.shape
        last = torch.arange(1, count + 1, device=self.device) * new - 1
        told: dict[str, Any] = {"past_key_values": self.cache, "use_cache": True}
        if self.seen is not None:
            told["attention_mask"] = self.seen[:, : self.length].long()
            told["position_ids"] = positions
        elif bool((tokens == self.layout.codec.pad).any()):  # written, and so not padding
            told["attention_mask"] = torch.ones((count, self.length), device=self.device)
        said: Outputs = self.policy(tokens, last, **told)
        return said

    def _keep(self, rows: Tensor) -> None:
        """Go on with these rows only; a row may come several times."""
        self.cache.batch_select_indices(rows)
        self.position = self.position[rows]
        if self.seen is not None:
            self.seen = self.seen[rows]
