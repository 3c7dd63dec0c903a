"""One more token of many responses at once, for models whose layers are known.

The forward pass of transformers does much besides arithmetic, and a single token has little of
that. Here the same layers are called one after the other, adapters and all. Whether the outcome is
the same is tried on every model before it is relied on; other models go the long way.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


class RoomyLayer(DynamicLayer):
    """A layer's cache in memory that is set aside beforehand, so that growing copies nothing.

    Args:
        room: tokens that it will hold at most.
    """

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room
        self.filled = 0
        self.keys: Tensor
        self.values: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Set the memory aside, when it is known how much a token needs."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.all_keys, self.all_values = (
            one.new_empty((*one.shape[:2], self.room, one.shape[3]))
            for one in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens, and return all that there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin, self.filled = self.filled, self.filled + key_states.shape[2]
        self.all_keys[:, :, begin : self.filled] = key_states
        self.all_values[:, :, begin : self.filled] = value_states
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only; a row may come several times."""
        kept = self.keys[indices], self.values[indices]
        self.lazy_initialization(*kept)
        self.all_keys[:, :, : self.filled], self.all_values[:, :, : self.filled] = kept
        self._show()

    def _show(self) -> None:
        self.keys = self.all_keys[:, :, : self.filled]
        self.values = self.all_values[:, :, : self.filled]


Decoder = Callable[[Any, Tensor, Tensor, Sequence[Any], Tensor | None], Tensor]
"""``decoder(model, tokens [rows], position [rows], cache, seen [rows, 1, 1, length])``: the last
hidden state ``[rows, width]``, the tokens added to the cache."""


def roomy_cache(config: Any, room: int) -> DynamicCache:
    """A cache for texts of up to ``room`` tokens; layers of other kinds stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(one) is DynamicLayer else one for one in cache.layers]
    return cache


@torch.no_grad()
def goes_on(model: Any) -> bool:
    """Whether a text may be read in two parts, the first kept in a plain cache: tried."""
    cache = DynamicCache(config=model.config)
    if not all(type(one) is DynamicLayer for one in cache.layers):
        return False
    trunk, text = model.get_decoder(), _probe(model)
    wanted = trunk(input_ids=text, use_cache=False).last_hidden_state[:, 1:]
    trunk(input_ids=text[:, :1], past_key_values=cache, use_cache=True)
    told = {"attention_mask": torch.ones_like(text), "past_key_values": cache, "use_cache": True}
    positions = torch.arange(1, 3, device=text.device).expand(len(text), -1)
    got = trunk(input_ids=text[:, 1:], position_ids=positions, **told).last_hidden_state
    return _near(got, wanted)


@torch.no_grad()
def decoder_of(model: Any) -> Decoder | None:
    """The short way through a model; None where there is none, or it leads elsewhere."""
    found = _DECODERS.get(type(model).__name__)
    cache = roomy_cache(model.config, 3)
    if found is None or not all(isinstance(one, RoomyLayer) for one in cache.layers):
        return None
    trunk = model.get_decoder()
    text = _probe(model)
    wanted = trunk(input_ids=text).last_hidden_state[:, -1]
    trunk(input_ids=text[:, :2], past_key_values=cache, use_cache=True)
    position = torch.full((2,), 2, device=text.device)
    got = found(model, text[:, 2], position, cache.layers, None)
    return found if _near(got, wanted) else None


def _probe(model: Any) -> Tensor:
    device, words = next(model.parameters()).device, int(model.config.vocab_size)
    return torch.tensor([[2, 3, 2], [3, 3, 2]], device=device) % words


def _near(got: Tensor, wanted: Tensor) -> bool:
    near = 1e-4 if wanted.dtype == torch.float32 else 0.05
    return torch.allclose(got, wanted, rtol=near, atol=near * float(wanted.abs().max()))


def _gpt2(
    model: Any,
    tokens: Tensor,
    position: Tensor,
    cache: Sequence[Any],
    seen: Tensor | None,
) -> Tensor:
    trunk = model.transformer
    hidden: Tensor = trunk.wte(tokens) + trunk.wpe(position)
    rows, width = hidden.shape
    for block, layer in zip(trunk.h, cache, strict=True):
        inner = block.attn
        new = inner.c_attn(block.ln_1(hidden)).view(rows, 3, inner.num_heads, 1, inner.head_dim)
        keys, values = layer.update(new[:, 1], new[:, 2])
        heard = functional.scaled_dot_product_attention(
            new[:, 0], keys, values, attn_mask=seen, scale=inner.scaling
        )
        hidden = hidden + inner.c_proj(heard.reshape(rows, width))
        hidden = hidden + block.mlp(block.ln_2(hidden))
    last: Tensor = trunk.ln_f(hidden)
    return last


def _llama(
    model: Any,
    tokens: Tensor,
    position: Tensor,
    cache: Sequence[Any],
    seen: Tensor | None,
) -> Tensor:
    trunk, rows = model.model, len(tokens)
    hidden: Tensor = trunk.embed_tokens(tokens[:, None])
    turns = trunk.rotary_emb(hidden, position[:, None])
    for block, layer in zip(trunk.layers, cache, strict=True):
        inner = block.self_attn
        normed = block.input_layernorm(hidden)
        query, key, value = (
            project(normed).view(rows, 1, -1, inner.head_dim).transpose(1, 2)
            for project in (inner.q_proj, inner.k_proj, inner.v_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *turns)
        keys, values = layer.update(key, value)
        # Queries that share a key stand where several tokens of one response would.
        grouped = query.reshape(rows, keys.shape[1], -1, inner.head_dim)
        heard = functional.scaled_dot_product_attention(
            grouped, keys, values, attn_mask=seen, scale=inner.scaling
        )
        hidden = hidden + inner.o_proj(heard.reshape(rows, 1, -1))
        hidden = hidden + block.mlp(block.post_attention_layernorm(hidden))
    last: Tensor = trunk.norm(hidden)[:, 0]
    return last


_DECODERS: dict[str, Decoder] = {
    "GPT2LMHeadModel": _gpt2,
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _llama,
    "Qwen2ForCausalLM": _llama,
}
