"""Causal language models of transformers: read from disk, made anew, checked, and saved.

The one file that reads and writes their format. Models are local: nothing is downloaded.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from prefgym.names import lookup
from prefgym.text import Codec, Layout, Vocabulary

try:
    import transformers
except ImportError as missing:
    raise ImportError(
        'Language models need transformers; pip install "prefgym[text]".'
    ) from missing

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@runtime_checkable
class SavesTokenizer(Protocol):
    """A codec that can write the files of its own Hugging Face tokenizer."""

    def save_pretrained(self, directory: str) -> Any:
        """Write them."""
        ...


def tiny_config(
    layout: Layout, kind: str = "gpt2", *, layers: int = 2, width: int = 64, heads: int = 4
) -> Any:
    """The configuration of a small model that fits a layout; for a CPU.

    Args:
        layout: its vocabulary and lengths become the model's.
        kind: "gpt2" (learned positions) or "llama" (rotated ones).
        layers: blocks of attention and feed-forward network.
        width: numbers in a hidden state.
        heads: of attention in every block.

    Raises:
        ValueError: no kind of that name.
    """
    make = lookup(kind, {"gpt2": _gpt2, "llama": _llama}, "kind of model")
    longest = layout.prompt_tokens + layout.response_tokens
    names = {"pad_token_id": layout.codec.pad, "eos_token_id": layout.codec.eos}
    names["bos_token_id"] = layout.codec.eos
    config = make(layers, width, heads, longest)
    config.update({"vocab_size": layout.codec.size, **names})
    return config


def _gpt2(layers: int, width: int, heads: int, longest: int) -> Any:
    return transformers.GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        n_positions=longest,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own function, fused
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
    )


def _llama(layers: int, width: int, heads: int, longest: int) -> Any:
    return transformers.LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_attention_heads=heads,
        max_position_embeddings=longest,
        tie_word_embeddings=True,
    )


def causal_model(
    source: Any,
    layout: Layout,
    *,
    seed: int = 0,
    dtype: str | torch.dtype = "float32",
    device: str = "cpu",
) -> Any:
    """A language model that can write what a layout holds.

    Args:
        source: the folder of a checkpoint; a configuration, whose weights are drawn from ``seed``;
            a model, which is used as it is and not copied; or None, a tiny model.
        layout: what it shall write.
        seed: of weights that are not read.
        dtype: of its weights, "float32" or "bfloat16"; PyTorch's own names do, too.
        device: where it shall be.

    Raises:
        ValueError: no checkpoint in safetensors is there; it is no model; its vocabulary or context
            does not fit the layout; or the device does not exist.
    """
    kind = lookup(str(dtype).removeprefix("torch."), DTYPES, "dtype")
    place = existing_device(device)
    source = tiny_config(layout) if source is None else source
    if isinstance(source, str | Path):
        model = _read(Path(source), kind)
    elif isinstance(source, transformers.PreTrainedConfig):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = transformers.AutoModelForCausalLM.from_config(source, dtype=kind)
    elif hasattr(source, "get_input_embeddings"):
        model = source
    else:
        raise ValueError(
            f"model={source!r} is no language model; give the folder of a checkpoint, a model or a"
            " configuration of transformers, or None for a tiny new one."
        )
    _check(model, layout)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = layout.codec.pad
    return model.to(place, kind).eval()


def existing_device(name: str) -> torch.device:
    """The device of that name; a number is put there, so that it is known to work.

    Raises:
        ValueError: it is not there.
    """
    try:
        place = torch.device(name)
        torch.zeros(1, device=place).item()
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        gpus = torch.cuda.device_count()
        if not str(name).startswith("cuda"):
            why = "and PyTorch can put nothing there"
        elif gpus:
            why = f"but PyTorch can use no such GPU; it sees {gpus}, counted from cuda:0"
        else:
            why = "but PyTorch sees no GPU here"
        raise ValueError(
            f"device={name!r} was asked for, {why}; pass device='cpu', or install a build of"
            " PyTorch that fits the hardware and its driver."
        ) from error
    return place


def _read(folder: Path, dtype: torch.dtype) -> Any:
    if not (folder / "config.json").exists():
        raise ValueError(
            f"{folder} holds no language model (no config.json); give the folder of a checkpoint in"
            " Hugging Face's format, downloaded beforehand, or a configuration to begin anew."
        )
    if not list(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} holds no safetensors, and pickled weights are not read; write them anew with"
            " model.save_pretrained(folder)."
        )
    with _no_bars():
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True
        )


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the progress bars of transformers, which are over before they can be read."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _check(model: Any, layout: Layout) -> None:
    """Refuse a model that cannot write what the layout holds."""
    codec = layout.codec
    for name in ("pad", "eos"):
        token = getattr(codec, name)
        if not isinstance(token, int) or not 0 <= token < codec.size:
            raise ValueError(
                f"The tokenizer's {name} token is {token}, and its tokens are 0 to"
                f" {codec.size - 1}; give it one, such as tokenizer.{name}_token = '<{name}>'."
            )
    known = model.get_input_embeddings().num_embeddings
    if known != codec.size and not _padded_up(model, codec):
        raise ValueError(
            f"The model knows {known} tokens and the environment's tokenizer has {codec.size}; take"
            " a model and a tokenizer that were made for one another."
        )
    longest = context_tokens(model.config)
    wanted = layout.prompt_tokens + layout.response_tokens
    if longest is not None and longest < wanted:
        raise ValueError(
            f"The model reads at most {longest} tokens, and prompt and response have"
            f" {layout.prompt_tokens} + {layout.response_tokens} = {wanted}; take a model with a"
            " longer context, or an environment of shorter texts."
        )


def _padded_up(model: Any, codec: Codec) -> bool:
    """Whether a model has rows to spare, as large ones do for speed: up to the next 1,024."""
    spare = model.get_input_embeddings().num_embeddings - codec.size
    return codec.size > 1024 and 0 <= spare < 1024


def context_tokens(config: Any) -> int | None:
    """The longest text that a model reads; None where there is no limit."""
    longest: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return longest


def add_lora(model: Any, rank: int, seed: int = 0) -> Any:
    """Freeze a model, and put low-rank adapters on all its linear layers; it begins unchanged.

    Source: Hu et al. (2022), arXiv:2106.09685; all layers as Dettmers et al. (2023),
    arXiv:2305.14314. The adapters' scale is 2.

    Raises:
        ImportError: peft is not installed.
        ValueError: the rank is no whole number above 0.
    """
    if isinstance(rank, bool) or not isinstance(rank, Integral) or rank < 1:
        raise ValueError(
            f"lora={rank!r}; wanted a rank of 1 or more, a whole number, or None for no adapters."
        )
    try:
        import peft
    except ImportError as error:
        raise ImportError('LoRA needs peft; pip install "prefgym[text]".') from error
    turned = any(type(one).__name__ == "Conv1D" for one in model.modules())  # GPT-2's layers
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        fan_in_fan_out=turned,
        task_type=peft.TaskType.CAUSAL_LM,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for an old name
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config).eval()


def save(model: Any, codec: Codec, directory: str | Path) -> None:
    """Write a model and its tokenizer so that ``from_pretrained`` of transformers reads both.

    Args:
        model: without adapters.
        codec: the tokenizer's words, or a codec that writes its own tokenizer.
        directory: of the checkpoint.
    """
    with _no_bars():
        model.save_pretrained(directory)
    if isinstance(codec, Vocabulary):
        tokenizer(codec).save_pretrained(directory)
    elif isinstance(codec, SavesTokenizer):
        codec.save_pretrained(str(directory))


def tokenizer(vocabulary: Vocabulary) -> Any:
    """A vocabulary as a tokenizer of transformers: words with blanks between them."""
    import tokenizers

    pad, eos = vocabulary.words[vocabulary.pad], vocabulary.words[vocabulary.eos]
    words = tokenizers.models.WordLevel(dict(vocabulary.tokens), unk_token=pad)
    fast = tokenizers.Tokenizer(words)
    fast.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token=pad,
        eos_token=eos,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
