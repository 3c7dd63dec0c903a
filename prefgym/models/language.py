"""Reward models of text: a language model reads prompt and response, heads value every token.

The one file of the core that knows Hugging Face. Members of an ensemble share the language model
and differ in their heads, which are one batched product; in a fit each member still shows it pairs
in an order of its own, so that a fit of three members costs three times one of a single member.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from prefgym.models.encoders import MLPEncoder, rows_at_once
from prefgym.models.ensembles import Ensemble, mean_step
from prefgym.models.features import as_tensor
from prefgym.models.heads import SMALL, HeadFactory, ScalarHead
from prefgym.segments import Array, Segments
from prefgym.text import Layout

KEPT = 30
"""Numbers that a layer keeps of a token for its gradient, in units of its width.

Counted on GPT-2, LLaMA and Qwen2 (27 to 32) and GPT-NeoX (16 to 20), with 24 and 200 tokens.
"""


class LanguageRewardModel(Ensemble):
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
        head: makes another head than one reward per token (``prefgym.models.presets``).
        hidden: SiLU layers between the trunk and the head; none, and it is linear.

    Raises:
        ValueError: the trunk is too small for the layout.
    """

    def __init__(
        self,
        trunk: nn.Module,
        layout: Layout,
        members: int = 1,
        tanh: bool = False,
        seed: int = 0,
        head: HeadFactory | None = None,
        hidden: Sequence[int] = (),
    ) -> None:
        config: Any = trunk.config
        _check_sizes(config, layout, members)
        generator, reads = torch.Generator().manual_seed(seed), config.hidden_size
        made = ScalarHead(tanh) if head is None else head(members, reads, generator)
        device = next(trunk.parameters()).device
        super().__init__(made.to(device), members, device)
        self.trunk = trunk.eval()
        self.layout = layout
        self._kept_per_token: int = KEPT * config.hidden_size
        self._layers: int = config.num_hidden_layers
        self.heads = MLPEncoder(reads, made.width, members, hidden, "silu", generator).to(device)
        with torch.no_grad():
            self.heads.weights[-1].mul_(3.0**0.5 * SMALL)
            self.heads.biases[-1].zero_()

    @property
    def members(self) -> int:
        """Heads in the ensemble."""
        return self.heads.members

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.reward_mean.device

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

    def steps(
        self,
        features: Int[Tensor, " members rows tokens"],
        mask: Bool[Tensor, " members rows steps"],
    ) -> Float[Tensor, " members rows steps width"]:
        """Every member's numbers for the tokens of its own rows, with gradient."""
        hidden = self._hidden(features.flatten(0, 1), mask.flatten(0, 1))
        return self._heads(hidden.unflatten(0, mask.shape[:2]))

    @torch.no_grad()
    def beginnings(
        self,
        features: Int[Tensor, " members rows tokens"],
        mask: Bool[Tensor, " members rows steps"],
    ) -> Float[Tensor, " members rows numbers"]:
        """The hidden state at the last token of each prompt."""
        prompts = features[..., : self.layout.prompt_tokens + 1].flatten(0, 1)
        nothing = torch.zeros(len(prompts), 1, dtype=torch.bool, device=prompts.device)
        begun: Tensor = self._hidden(prompts, nothing, back=1)[:, 0].unflatten(0, mask.shape[:2])
        return begun

    @torch.no_grad()
    def means(
        self, features: Int[Tensor, " rows tokens"], mask: Bool[Tensor, " rows steps"]
    ) -> Float[Tensor, " rows width"]:
        """The mean hidden state over the tokens of each response: what k-centre tells apart."""
        return torch.cat([mean_step(*one) for one in self._blocks(features, mask)])

    @torch.no_grad()
    def outputs(self, segments: Segments) -> Float[Tensor, " members batch steps width"]:
        """Every member's numbers, computed in blocks of bounded memory."""
        tokens, mask = self.features(segments), as_tensor(segments.mask).to(self.device)
        parts = [self._heads(hidden[None]) for hidden, _ in self._blocks(tokens, mask)]
        return torch.cat(parts, 1)

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

    def normalise(self, segments: Segments) -> None:
        """Nothing: tokens are names, which need no normalising."""

    def _heads(
        self, hidden: Float[Tensor, " #members rows steps width"]
    ) -> Float[Tensor, " members rows steps numbers"]:
        """Every member's numbers for every token."""
        shown = hidden.flatten(1, 2).expand(self.members, -1, -1)
        numbers: Tensor = self.heads(shown).unflatten(1, hidden.shape[1:3])
        return numbers

    def _hidden(
        self,
        tokens: Int[Tensor, " rows tokens"],
        mask: Bool[Tensor, " rows steps"],
        back: int = 0,
    ) -> Float[Tensor, " rows steps width"]:
        """The hidden state at every token of the responses; columns of padding are not computed.

        With ``back`` that at the token so many places before it.
        """
        prompt = self.layout.prompt_tokens
        if not len(tokens):
            width: int = self.heads.weights[0].shape[1]
            return self.reward_mean.new_zeros(*mask.shape, width)
        begun = (tokens[:, :prompt] != self.layout.codec.pad).cumsum(1) > 0
        seen = torch.cat([begun, mask], 1)
        used = seen.any(0).nonzero()[:, 0].tolist() or [prompt]
        first, last = min(used[0], prompt - back), max(used[-1], prompt) + 1
        seen = seen[:, first:last].long()
        output = self.trunk(
            input_ids=tokens[:, first:last],
            attention_mask=seen,
            position_ids=(seen.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        )
        hidden: Tensor = _last_hidden_state(output)[:, prompt - first - back :]
        hidden = hidden.to(self.reward_mean.dtype)[:, : mask.shape[1]]
        return functional.pad(hidden, (0, 0, 0, mask.shape[1] - hidden.shape[1]))

    def _blocks(
        self, tokens: Int[Tensor, " rows tokens"], mask: Bool[Tensor, " rows steps"]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Hidden states and mask of a few segments at a time, in bounded memory."""
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
    head: HeadFactory | None = None,
    hidden: Sequence[int] = (),
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
        head: makes another head than one reward per token (``prefgym.models.presets``).
        hidden: SiLU layers between the trunk and the head; none, and it is linear.

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
    return LanguageRewardModel(trunk.to(dtype), layout, members, tanh, seed, head, hidden)


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
