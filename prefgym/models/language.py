"""Reward models of text: a language model reads prompt and response, heads value every token.

The one file of the core that knows Hugging Face. Members of an ensemble share the language model
and differ in their heads, which are one batched product; in a fit each member still shows it pairs
in an order of its own, so that a fit of three members costs three times one of a single member.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from prefgym.models.encoders import rows_at_once
from prefgym.models.features import as_tensor
from prefgym.models.fit import Pairs
from prefgym.models.heads import ScalarHead
from prefgym.models.reward_models import finite, mean_step, reward_scale
from prefgym.rewards import Aggregator, mean_reward
from prefgym.segments import Array, Segments
from prefgym.text import Layout

KEPT = 30
"""Numbers that a layer keeps of a token for its gradient, in units of its width.

Counted on GPT-2, LLaMA and Qwen2 (27 to 32) and GPT-NeoX (16 to 20), with 24 and 200 tokens.
"""
SMALL = 0.1
"""Standard deviation of a token's reward, about, before any fit: heads begin small."""


class LanguageRewardModel(nn.Module):
    """An ensemble of rewards of tokens, ``rewards(segments) -> [batch, steps]``.

    The reward of token t is a linear function of the hidden state at that token, so that it may
    depend on the prompt and on the tokens up to t. The trunk runs without dropout unless
    ``train()`` is called. As in :class:`~prefgym.models.reward_models.RewardModel`, mean and
    deviation of the rewards are state (:meth:`standardise`); nothing else is normalised.

    Source of the form: Ziegler et al. (2019), arXiv:1909.08593: a linear function of the final
    embedding; here at every token, and summed as the steps are in Christiano et al. (2017).

    Args:
        trunk: a Hugging Face model without its language-modelling head (``AutoModel``), or any
            module with a ``config`` that is called as it is and returns a ``last_hidden_state``.
            It is fitted in place, so give a copy of one that somebody else uses.
        layout: where prompt and response stand.
        members: heads in the ensemble.
        tanh: hold every reward in (−1, 1).
        seed: of the initial heads; members differ.

    Raises:
        ValueError: the trunk is too small for the layout.
    """

    reward_mean: Tensor
    reward_deviation: Tensor

    def __init__(
        self, trunk: nn.Module, layout: Layout, members: int = 1, tanh: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        config: Any = trunk.config
        _check_sizes(config, layout, members)
        self.trunk = trunk.eval()
        self.layout = layout
        self.head = ScalarHead(tanh)
        self._kept_per_token: int = KEPT * config.hidden_size
        self._layers: int = config.num_hidden_layers
        device = next(trunk.parameters()).device
        draws = torch.randn(
            members, config.hidden_size, generator=torch.Generator().manual_seed(seed)
        )
        self.weight = nn.Parameter((SMALL / config.hidden_size**0.5 * draws).to(device))
        self.bias = nn.Parameter(torch.zeros(members, device=device))
        self.register_buffer("reward_mean", torch.zeros(members, device=device))
        self.register_buffer("reward_deviation", torch.ones(members, device=device))

    @property
    def members(self) -> int:
        """Heads in the ensemble."""
        return len(self.weight)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.weight.device

    @property
    def kept_per_step(self) -> int:
        """Numbers kept for the gradient, of a token of the response and its share of the prompt."""
        prompt, response = self.layout.prompt_tokens, self.layout.response_tokens
        return self._layers * self._kept_per_token * (prompt + response) // response

    def features(self, segments: Segments) -> Int[Tensor, " batch tokens"]:
        """Prompt and response, one behind the other, on the model's device; pads at padding.

        Raises:
            ValueError: these are no tokens, or not those of the layout.
        """
        mask, pad = as_tensor(segments.mask), self.layout.codec.pad
        prompt, response = (
            _tokens(values, name, self.layout)
            for values, name in ((segments.context, "context"), (segments.actions, "actions"))
        )
        if prompt.shape[1] != self.layout.prompt_tokens:
            raise ValueError(
                f"LanguageRewardModel: the prompts are {prompt.shape[1]} tokens wide, and the "
                f"layout has {self.layout.prompt_tokens}; pad them on the left with {pad}."
            )
        return torch.cat([prompt, torch.where(mask, response, pad)], 1).to(self.device)

    def margins(self, pairs: Pairs) -> Float[Tensor, " members pairs"]:
        """How much better each member finds the first response, with gradient: for `fit`."""
        sides = pairs.features.shape[:3]
        mask = pairs.mask.flatten(0, 2)
        hidden = self._hidden(pairs.features.flatten(0, 2), mask)
        steps = self._heads(hidden.unflatten(0, (sides[0], -1)))
        summary = self.head.summary(steps, mask.unflatten(0, (sides[0], -1)))
        a, b = summary.unflatten(1, sides[1:]).unbind(2)
        return self.head.margin(a, b)

    @torch.no_grad()
    def logits(self, a: Segments, b: Segments) -> Float[Tensor, " members batch"]:
        """Each member's log-odds that ``a[i]`` is preferred to ``b[i]``, without gradient.

        Rewards are taken as fitted, not as standardised.
        """
        one, other = (self.member_rewards(side).sum(-1, keepdim=True) for side in (a, b))
        return self.head.margin(one, other)

    @torch.no_grad()
    def member_rewards(self, segments: Segments) -> Float[Tensor, " members batch steps"]:
        """Each member's rewards as fitted, without gradient; zeros at padding.

        Raises:
            RuntimeError: a reward is NaN or infinite.
        """
        mask = as_tensor(segments.mask).to(self.device)
        parts = [self._heads(hidden[None]) for hidden, _ in self._blocks(segments)]
        return finite(self.head.rewards(torch.cat(parts, 1)) * mask)

    def rewards(
        self, segments: Segments, aggregate: Aggregator = mean_reward
    ) -> Float[Tensor, " batch steps"]:
        """What every token is worth, without gradient; zeros at padding.

        Args:
            segments: numpy or torch.
            aggregate: makes one reward of the members' standardised ones (``prefgym.rewards``).
        """
        mask = as_tensor(segments.mask).to(self.device)
        mean, deviation = self.reward_mean[:, None, None], self.reward_deviation[:, None, None]
        return aggregate((self.member_rewards(segments) - mean) / deviation) * mask

    def step_reward(self, observation: Any, action: Any) -> float:
        """The reward of a single token, for the ``LearnedReward`` wrapper."""
        prompt, response, length = self.layout.split(np.asarray(observation)[None])
        here = int(length[0])
        actions = np.asarray(response, np.int64).copy()
        actions[0, here] = action
        upto = Segments(
            actions=actions,
            mask=np.arange(actions.shape[1])[None] <= here,
            context=np.asarray(prompt, np.int64),
            context_id=np.zeros(1, np.int64),
        )
        return float(self.rewards(upto)[0, here])

    @torch.no_grad()
    def outline(self, segments: Segments) -> Float[Tensor, " batch width"]:
        """The mean hidden state over the tokens of each response: what k-centre tells apart."""
        return torch.cat([mean_step(hidden, mask) for hidden, mask in self._blocks(segments)])

    def normalise(self, segments: Segments) -> None:
        """Nothing: tokens are names, which need no normalising."""

    @torch.no_grad()
    def standardise(self, segments: Segments) -> None:
        """Give :meth:`rewards` mean 0 and standard deviation 1 over the tokens of ``segments``.

        As :meth:`prefgym.models.reward_models.RewardModel.standardise`.

        Raises:
            ValueError: no real token to measure on.
        """
        mask = as_tensor(segments.mask).to(self.device)
        mean, deviation = reward_scale(self.member_rewards(segments)[:, mask])
        self.reward_mean.copy_(mean)
        self.reward_deviation.copy_(deviation)

    def _heads(
        self, hidden: Float[Tensor, " #members rows steps width"]
    ) -> Float[Tensor, " members rows steps 1"]:
        """Every member's number for every token."""
        hidden = hidden.expand(self.members, -1, -1, -1)
        numbers = torch.einsum("mrtw,mw->mrt", hidden, self.weight)
        return (numbers + self.bias[:, None, None])[..., None]

    def _hidden(
        self, tokens: Int[Tensor, " rows tokens"], mask: Bool[Tensor, " rows steps"]
    ) -> Float[Tensor, " rows steps width"]:
        """The hidden state at every token of the responses; columns of padding are not computed."""
        if not len(tokens):
            return self.weight.new_zeros(*mask.shape, self.weight.shape[1])
        prompt = self.layout.prompt_tokens
        begun = (tokens[:, :prompt] != self.layout.codec.pad).cumsum(1) > 0
        seen = torch.cat([begun, mask], 1)
        used = seen.any(0).nonzero()[:, 0].tolist() or [prompt]
        first, last = min(used[0], prompt), max(used[-1], prompt) + 1
        seen = seen[:, first:last].long()
        output = self.trunk(
            input_ids=tokens[:, first:last],
            attention_mask=seen,
            position_ids=(seen.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        )
        hidden: Tensor = _last_hidden_state(output)[:, prompt - first :].to(self.weight.dtype)
        return functional.pad(hidden, (0, 0, 0, mask.shape[1] - hidden.shape[1]))

    def _blocks(self, segments: Segments) -> Iterator[tuple[Tensor, Tensor]]:
        """Hidden states and mask of a few segments at a time, in bounded memory."""
        tokens, mask = self.features(segments), as_tensor(segments.mask).to(self.device)
        rows = rows_at_once(tokens.shape[1] * self._kept_per_token, self.device)
        for some, real in zip(tokens.split(rows), mask.split(rows), strict=True):
            yield self._hidden(some, real), real


def language_reward_model(
    source: str | Path | Any,
    layout: Layout,
    members: int = 1,
    tanh: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> LanguageRewardModel:
    """A reward model on a trunk that is read from disk, or made anew.

    Args:
        source: a folder with a Hugging Face checkpoint in safetensors (a causal language model's
            will do: its head is left out), a name on the hub, or a configuration, whose weights
            are then drawn from ``seed``.
        layout: where prompt and response stand.
        members: heads in the ensemble.
        tanh: hold every reward in (−1, 1).
        seed: of all weights that are not read.
        dtype: of the trunk; heads stay in float32.

    Raises:
        ImportError: transformers is not installed.
        ValueError: no checkpoint in safetensors is there, or it is too small for the layout.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            'Reward models of text need transformers; pip install "prefgym[text]".'
        ) from error
    models: Any = transformers.AutoModel
    if not isinstance(source, str | Path):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trunk = models.from_config(source)
    else:
        try:
            trunk = models.from_pretrained(source, use_safetensors=True)
        except OSError as error:
            raise ValueError(
                f"{source} holds no Hugging Face checkpoint in safetensors; write one with "
                "model.save_pretrained(folder), or give a configuration to begin from nothing."
            ) from error
    return LanguageRewardModel(trunk.to(dtype), layout, members, tanh, seed)


def _check_sizes(config: Any, layout: Layout, members: int) -> None:
    """Refuse what would fail, or be wrong, at the first segment."""
    if members < 1:
        raise ValueError(f"LanguageRewardModel: members is {members}; wanted 1 or more.")
    if config.vocab_size < layout.codec.size:
        raise ValueError(
            f"LanguageRewardModel: the trunk knows {config.vocab_size} tokens and the layout's "
            f"codec has {layout.codec.size}; take a trunk and a codec of one vocabulary."
        )
    length = layout.prompt_tokens + layout.response_tokens
    longest = getattr(config, "max_position_embeddings", None)  # not every kind has a limit
    if longest is not None and longest < length:
        raise ValueError(
            f"LanguageRewardModel: the trunk reads at most {longest} tokens, and prompt and "
            f"response have {layout.prompt_tokens} + {layout.response_tokens}; take a larger trunk "
            "or shorter texts."
        )


def _tokens(values: Array, name: str, layout: Layout) -> Tensor:
    """``[batch, tokens]`` int64, checked."""
    tokens = as_tensor(values)
    if tokens.ndim != 2:
        raise ValueError(
            f"LanguageRewardModel: {name} has shape {tuple(tokens.shape)}, wanted [batch, tokens]; "
            "segments of control are read by reward_model()."
        )
    layout.check_tokens(tokens.cpu())
    return tokens.long()


def _last_hidden_state(output: Any) -> Tensor:
    try:
        hidden: Tensor = output.last_hidden_state
    except AttributeError as error:
        raise ValueError(
            f"LanguageRewardModel: the trunk returned {type(output).__name__}, which has no "
            "last_hidden_state; give the model without its head (model.base_model, AutoModel)."
        ) from error
    return hidden
