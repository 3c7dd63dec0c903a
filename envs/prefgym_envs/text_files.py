"""Prompts from a file, words from any Hugging Face tokenizer: text whose reward nobody knows."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pyarrow import ArrowException

from prefgym.text import Layout
from prefgym_envs.lanes import check_count
from prefgym_envs.text_env import TextEnv, TextVectorEnv
from prefgym_envs.text_tasks import TextTask

RESPONSE_TOKENS = 64


class TextPromptsEnv(TextEnv):
    """Answer prompts of your own, in the words of a tokenizer of your own.

    ## Description
    The prompts are the rows of a file, each once; what a good response is, only a rater can say.

    ## Action space
    ``Discrete(size of the tokenizer)``: the next token.

    ## Observation space
    ``MultiDiscrete`` of P + T + 1 integers (int64): the prompt, padded on the left to P tokens; the
    response so far, padded on the right to T tokens; and its tokens, 0 to T.

    ## True reward
    Unknown: 0 for every token, and there are no factors.

    ## Start
    A prompt drawn uniformly; ``info["context_id"]`` is its number. A prompt that the file repeats
    counts once.

    ## End
    Terminates with the tokenizer's end token; truncated after T tokens.

    ## What a rater may prefer that the reward does not say
    Everything. Give ``rater=`` a function of your own or a judge; without one, no question is
    asked, which is what learning from answers that are on disk already needs.

    ## Arguments
    ``tokenizer``: a folder that ``AutoTokenizer`` reads, or a tokenizer. ``prompts``: a file of
    JSON lines (``.jsonl``, ``.json``) or Parquet (``.parquet``), or a list of texts. ``column``:
    where a row has its prompt ("prompt" by default). ``prompt_tokens``: P; the longest prompt's
    own length by default. ``response_tokens``: T (64 by default).

    ## Version history
    * v0: first version.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompts: str | Path | Sequence[str],
        column: str = "prompt",
        prompt_tokens: int | None = None,
        response_tokens: int = RESPONSE_TOKENS,
        render_mode: str | None = None,
    ) -> None:
        rules = task(tokenizer, prompts, column, prompt_tokens, response_tokens)
        super().__init__(rules, render_mode, solved=False)


@dataclass(frozen=True, eq=False)
class TokenizerCodec:
    """A Hugging Face tokenizer as a codec."""

    tokenizer: Any

    def __post_init__(self) -> None:
        """Refuse a tokenizer that cannot fill rows up, or cannot end a response."""
        for name, use in (("pad", "fill rows up"), ("eos", "end a response")):
            if getattr(self.tokenizer, f"{name}_token_id", None) is None:
                raise ValueError(
                    f"The tokenizer has no {name} token, which is needed to {use}; set"
                    f" tokenizer.{name}_token to one of its words, and save it again."
                )

    @property
    def size(self) -> int:
        """How many tokens there are, added ones among them."""
        return len(self.tokenizer)

    @property
    def pad(self) -> int:
        """The token that fills rows up."""
        return int(self.tokenizer.pad_token_id)

    @property
    def eos(self) -> int:
        """The token that ends a response."""
        return int(self.tokenizer.eos_token_id)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special ones around it."""
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without padding and end."""
        shown = [one for one in tokens if one not in (self.pad, self.eos)]
        text: str = self.tokenizer.decode(shown)
        return text


def raw(**kwargs: Any) -> TextPromptsEnv:
    """One environment; arguments as :class:`TextPromptsEnv`."""
    return TextPromptsEnv(**kwargs)


def raw_vector(
    num_envs: int,
    tokenizer: Any,
    prompts: str | Path | Sequence[str],
    column: str = "prompt",
    prompt_tokens: int | None = None,
    response_tokens: int = RESPONSE_TOKENS,
    **kwargs: Any,
) -> TextVectorEnv:
    """The batched form; other arguments as :class:`TextVectorEnv`."""
    rules = task(tokenizer, prompts, column, prompt_tokens, response_tokens)
    return TextVectorEnv(rules, num_envs, solved=False, **kwargs)


def task(
    tokenizer: Any,
    prompts: str | Path | Sequence[str],
    column: str = "prompt",
    prompt_tokens: int | None = None,
    response_tokens: int = RESPONSE_TOKENS,
) -> TextTask:
    """Prompts and rules: one state, in which every token earns nothing.

    Raises:
        ValueError: the tokenizer lacks a token, a file cannot be read or holds no prompts, or a
            prompt is empty or too long.
    """
    for name, tokens in (("prompt_tokens", prompt_tokens), ("response_tokens", response_tokens)):
        if tokens is not None:
            check_count(name, tokens)
    codec = TokenizerCodec(_tokenizer(tokenizer))
    texts = list(_read(Path(prompts), column) if isinstance(prompts, str | Path) else prompts)
    rows: dict[tuple[int, ...], None] = {}
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"Prompt {place} of {_named(prompts)} is {text!r}; give text in every row."
            )
        row = tuple(codec.encode(text))
        if prompt_tokens is not None and len(row) > prompt_tokens:
            raise ValueError(
                f"Prompt {place} of {_named(prompts)} has {len(row)} tokens, but the context has"
                f" room for {prompt_tokens}; shorten it, or raise prompt_tokens."
            )
        rows[row] = None
    if not rows:
        raise ValueError(f"There are no prompts in {_named(prompts)}; give at least one.")
    layout = Layout(codec, prompt_tokens or max(map(len, rows)), response_tokens)
    return TextTask(
        layout=layout,
        prompts=layout.prompts(list(rows)),
        start=np.zeros(len(rows), np.int64),
        next_state=np.zeros((1, codec.size), np.int32),
        factors={},
        weights={},
    )


def _tokenizer(given: Any) -> Any:
    if not isinstance(given, str | Path):
        return given
    if not Path(given).is_dir():
        raise ValueError(
            f"There is no folder {str(given)!r} with a tokenizer; give the folder to which"
            " tokenizer.save_pretrained wrote it."
        )
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(
            'Tokenizers of Hugging Face need transformers; pip install "prefgym[text]".'
        ) from error
    try:
        return AutoTokenizer.from_pretrained(str(given), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"The folder {str(given)!r} holds no tokenizer ({error}).") from error


def _read(path: Path, column: str) -> Iterator[Any]:
    """What stands under ``column``, row by row."""
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r} with prompts.")
    if path.suffix == ".parquet":
        yield from _read_parquet(path, column)
    elif path.suffix in (".jsonl", ".json"):
        yield from _read_lines(path, column)
    else:
        raise ValueError(
            f"{path.name} is no kind of file that is read here; give .jsonl or .parquet."
        )


def _read_parquet(path: Path, column: str) -> Iterator[Any]:
    try:
        names = pq.read_schema(path).names
    except ArrowException as error:
        raise ValueError(f"{path.name} is no Parquet file ({error}).") from error
    if column not in names:
        raise _missing(column, path, names)
    yield from pq.read_table(path, columns=[column])[column].to_pylist()


def _read_lines(path: Path, column: str) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"Line {number} of {path.name} is no JSON ({error}).") from error
            if not isinstance(row, dict) or column not in row:
                raise _missing(column, path, row if isinstance(row, dict) else ())
            yield row[column]


def _missing(column: str, path: Path, there: Any) -> ValueError:
    names = ", ".join(map(str, there)) or "nothing"
    return ValueError(
        f"{path.name} has no column {column!r}, but {names}; say which holds the prompts with"
        " column=."
    )


def _named(prompts: Any) -> str:
    return Path(prompts).name if isinstance(prompts, str | Path) else "the list"
