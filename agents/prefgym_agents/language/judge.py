"""A judge in this process: a causal language model of transformers, by path or as it is."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from prefgym.judges.prompts import form
from prefgym_agents.language.models import DTYPES, _read, context_tokens, existing_device

_COUNTS = ("requests", "too_long", "unfinished")
_BEGIN = form("")
_TELLING = {".json", ".safetensors", ".jinja", ".txt", ".model"}
"""Suffixes of a checkpoint's files that decide about its answers."""


class LocalJudge:
    """Answers with a language model's likeliest tokens, many prompts side by side.

    A model of its own is read when it is first asked, so that the judge can be sent to another
    process before that. It is put on the GPU if there is one. Prompts are wrapped in the
    tokenizer's chat template if it has one. An answer ends with its verdict's line, or where the
    model ends it; one that reaches neither within ``new_tokens`` is None and is counted.

    Rows of one batch are filled up to the longest prompt, and on some hardware that changes the
    last digits of a logit, so that a near tie between two tokens can depend on the batch. A cache
    (:class:`prefgym.judges.Cached`) makes a run repeatable in any case.

    Args:
        model: the folder of a checkpoint with its tokenizer (safetensors; nothing is downloaded),
            or a model of transformers, which is used as it is and where it is.
        tokenizer: of a model that is no folder.
        batch: prompts side by side.
        new_tokens: of the longest answer.
        device: for a folder's model; None takes the GPU if there is one.
        dtype: of its weights; None takes bfloat16 on a GPU and else float32.

    Raises:
        ValueError: no checkpoint or no tokenizer is there, or a number is below 1.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        batch: int = 16,
        new_tokens: int = 96,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        if batch < 1 or new_tokens < 1:
            raise ValueError(
                f"LocalJudge: batch is {batch} and new_tokens {new_tokens}; wanted 1 or more."
            )
        self.folder = Path(model) if isinstance(model, str | Path) else None
        if self.folder is not None:
            _check_folder(self.folder)
        elif tokenizer is None:
            raise ValueError("A model that is no folder needs its tokenizer; pass tokenizer=.")
        self.batch, self.new_tokens = batch, new_tokens
        self.device, self.dtype = device, dtype
        self._model = None if self.folder is not None else model
        self._tokenizer = tokenizer
        self._content: str | None = None
        self._counts = dict.fromkeys(_COUNTS, 0)

    @property
    def name(self) -> str:
        """What decides about an answer: a hash of the weights, or of the folder's files, and more.

        A folder's model is not loaded for that: whoever wants the name may be another process than
        the one that asks.
        """
        if self._content is None:
            self._content = _files(self.folder) if self.folder else _weights(self._model)
        settings = {"new_tokens": self.new_tokens, "dtype": self._place()[1]}
        if self.folder is None:
            settings["template"] = self._tokenizer.chat_template
        return f"{self._content} {json.dumps(settings, sort_keys=True)}"

    @property
    def counts(self) -> dict[str, int]:
        """Numbers for a log: requests, too_long (for the context), unfinished (answers)."""
        return dict(self._counts)

    def answers(self, prompts: Sequence[str]) -> list[str | None]:
        """The answers, in the order of the prompts; None where it has no end or does not fit."""
        answers: list[str | None] = [None] * len(prompts)
        for number, answer in self.stream(prompts):
            answers[number] = answer
        return answers

    def stream(self, prompts: Sequence[str]) -> Iterator[tuple[int, str | None]]:
        """Every prompt's number and answer, batch by batch; the shortest prompts come first."""
        if not prompts:
            return
        _, tokenizer = self._loaded()
        texts = [_wrapped(tokenizer, prompt) for prompt in prompts]
        tokens = [
            tokenizer(text, add_special_tokens=tokenizer.chat_template is None)["input_ids"]
            for text in texts
        ]
        self._counts["requests"] += len(prompts)
        fits = [self._fits(len(one)) for one in tokens]
        yield from ((number, None) for number, one in enumerate(fits) if not one)
        fitting = [number for number, one in enumerate(fits) if one]
        fitting.sort(key=lambda number: len(tokens[number]))  # little to fill up
        for begin in range(0, len(fitting), self.batch):
            rows = fitting[begin : begin + self.batch]
            yield from zip(rows, self._write([tokens[number] for number in rows]), strict=True)

    def __getstate__(self) -> dict[str, Any]:
        """Without the weights if they can be read again."""
        state = {**self.__dict__, "_counts": dict.fromkeys(_COUNTS, 0)}
        return state if self.folder is None else {**state, "_model": None, "_tokenizer": None}

    def __repr__(self) -> str:
        """Where the model is from."""
        kind = str(self.folder) if self.folder is not None else type(self._model).__name__
        return f"LocalJudge({kind!r}, batch={self.batch}, new_tokens={self.new_tokens})"

    def _loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer, read if they are not there yet."""
        if self._model is None and self.folder is not None:
            device, dtype = self._place()
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                self.folder, local_files_only=True
            )
            self._model = _read(self.folder, DTYPES[dtype]).to(existing_device(device)).eval()
        return self._model, self._tokenizer

    def _place(self) -> tuple[str, str]:
        """The device, and the type of the weights."""
        if self.folder is None:
            model, _ = self._loaded()
            return str(model.device), str(model.dtype).removeprefix("torch.")
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return device, self.dtype or ("bfloat16" if device.startswith("cuda") else "float32")

    def _fits(self, prompt_tokens: int) -> bool:
        longest = context_tokens(self._loaded()[0].config)
        if prompt_tokens > 0 and (longest is None or prompt_tokens + self.new_tokens <= longest):
            return True
        if not self._counts["too_long"]:
            warnings.warn(
                f"A prompt has {prompt_tokens} tokens, and with {self.new_tokens} of an answer that"
                f" is more than the {longest} that the model reads; such captions get no answer"
                " and are counted: shorten them, or take a model with a longer context.",
                stacklevel=3,
            )
        self._counts["too_long"] += 1
        return False

    @torch.inference_mode()
    def _write(self, prompts: Sequence[Sequence[int]]) -> list[str | None]:
        """The answers to one batch of prompts."""
        model, tokenizer = self._loaded()
        longest = max(len(one) for one in prompts)
        pad = next(
            one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if one is not None
        )
        filled = torch.tensor([[pad] * (longest - len(one)) + list(one) for one in prompts])
        told = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
        written = model.generate(
            input_ids=filled.to(model.device),
            attention_mask=told.to(model.device),
            max_new_tokens=self.new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad,
            stopping_criteria=[_Ended(tokenizer, longest)],
        )
        ends = _ends(model, tokenizer)
        return [self._answer(row, ends) for row in written[:, longest:].tolist()]

    def _answer(self, tokens: list[int], ends: set[int]) -> str | None:
        """The text up to its end; None where it has none."""
        end = next((place for place, one in enumerate(tokens) if one in ends), None)
        text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True)
        verdict = _verdict_end(text)
        if verdict is not None:
            return str(text[:verdict])
        if end is None:
            self._counts["unfinished"] += 1
            return None
        return str(text)


class _Ended(transformers.StoppingCriteria):
    """Which rows have their verdict, so that a model without manners does not write on."""

    def __init__(self, tokenizer: Any, prompt_tokens: int) -> None:
        self.tokenizer, self.prompt_tokens = tokenizer, prompt_tokens

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Look at what was written so far."""
        texts = self.tokenizer.batch_decode(
            input_ids[:, self.prompt_tokens :], skip_special_tokens=True
        )
        ended = [_verdict_end(text) is not None for text in texts]
        return torch.tensor(ended, device=input_ids.device)


def _verdict_end(text: str) -> int | None:
    """Where the line of the verdict ends, if it has ended."""
    begin = text.find(_BEGIN)
    end = text.find("\n", begin)
    return end if begin >= 0 and end >= 0 else None


def _wrapped(tokenizer: Any, prompt: str) -> str:
    if tokenizer.chat_template is None:
        return prompt
    message = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end an answer."""
    told = model.generation_config.eos_token_id
    several = told if isinstance(told, list) else [told]
    return {one for one in (*several, tokenizer.eos_token_id) if one is not None}


def _weights(model: Any) -> str:
    """The model's class, and a hash of all weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return f"{type(model).__name__} {digest.hexdigest()[:16]}"


def _files(folder: Path) -> str:
    """The model's class, and a hash of the files of its folder: weights, settings, tokenizer."""
    digest = hashlib.sha256()
    for file in sorted(one for one in folder.iterdir() if one.suffix in _TELLING and one.is_file()):
        with file.open("rb") as content:
            digest.update(
                f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode()
            )
    classes = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures")
    return f"{(classes or ['model'])[0]} {digest.hexdigest()[:16]}"


def _check_folder(folder: Path) -> None:
    """Refuse a folder from which nothing can be read, before another process tries to."""
    if not (folder / "config.json").exists() or not list(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} holds no language model (config.json and *.safetensors); give the folder of"
            " a checkpoint in Hugging Face's format, downloaded beforehand."
        )
    if not (folder / "tokenizer_config.json").exists():
        raise ValueError(
            f"{folder} holds no tokenizer (tokenizer_config.json); save it beside the model with"
            " tokenizer.save_pretrained(folder)."
        )
