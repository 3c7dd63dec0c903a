"""Networks that score captions: a bag of words, and convolutions over characters.

Captions become rows of integers, one row each, so that a fit turns every text into numbers once.
All draws come from a generator that is given.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

_FEWEST_WORDS = 64
"""That a table of words has room for."""


class WordsEncoder(nn.Module):
    """A vector for every word of the caption; their sum, through a ReLU, makes one number.

    Order and repetition of words are lost. Words get their numbers as they first stand in a caption
    that is learned from; a word that never did adds nothing. The table of vectors grows with them,
    by doubling: a gradient step takes as long as the words that are known.

    Args:
        generator: draws the initial weights of all words that there may be, and nothing later.
        words: different words that can be told apart; later ones count as unknown.
        hidden: width.
        longest: words of a caption that are read.
    """

    learning_rate = 1e-2

    def __init__(
        self,
        generator: torch.Generator,
        words: int = 4096,
        hidden: int = 64,
        longest: int = 32,
    ) -> None:
        super().__init__()
        self._most, self._longest = words, longest
        self._numbers: dict[str, int] = {}
        drawn = _uniform(generator, 4, words + 1, hidden)  # a caption has some four words
        self.drawn: Tensor
        self.register_buffer("drawn", drawn.detach())
        self.vectors = self._table(0)
        self.bias = _uniform(generator, 4, hidden)
        self.out = _uniform(generator, hidden, hidden)

    def meet(self, captions: Sequence[str]) -> None:
        """Give numbers to words that have none; ``vectors`` is another tensor if it has to grow."""
        for caption in captions:
            for word in _words(caption):
                if word not in self._numbers and len(self._numbers) < self._most:
                    self._numbers[word] = len(self._numbers) + 1
        known = len(self.vectors)
        if len(self._numbers) >= known:
            larger = self._table(len(self._numbers))
            with torch.no_grad():
                larger[:known] = self.vectors
            self.vectors = larger

    def rows(self, captions: Sequence[str]) -> Int[Tensor, " captions longest"]:
        """Numbers of the different words of each caption, 0 behind them."""
        rows = np.zeros((len(captions), self._longest), np.int64)
        for row, caption in zip(rows, captions, strict=True):
            known = [self._numbers[one] for one in _words(caption) if one in self._numbers]
            row[: len(known)] = known[: self._longest]
        return torch.as_tensor(rows)

    def forward(
        self, rows: Int[Tensor, " captions longest"], generator: torch.Generator | None = None
    ) -> Float[Tensor, " captions"]:
        """One number for each caption; ``generator`` is not needed."""
        summed = functional.embedding_bag(rows, self.vectors, mode="sum", padding_idx=0)
        scores: Tensor = functional.relu(summed + self.bias) @ self.out
        return scores

    def get_words(self) -> list[str]:
        """The words that have numbers, in their order."""
        return list(self._numbers)

    def set_words(self, words: Sequence[str]) -> None:
        """Go back to :meth:`get_words`; the table has room for them, and its first vectors."""
        self._numbers = {word: number for number, word in enumerate(words, 1)}
        self.vectors = self._table(len(words))

    def _table(self, words: int) -> nn.Parameter:
        """The vectors that were drawn, of at least so many words and of number 0."""
        rows = _FEWEST_WORDS + 1
        while rows <= words:
            rows = 2 * rows - 1
        return nn.Parameter(self.drawn[:rows].clone())


KERNELS = (7, 7, 3, 3, 3, 3)
"""Widths of the convolutions over characters."""
POOLED = (True, True, False, False, False, True)
"""Behind which of them the maximum of every three places is taken."""


class CharactersEncoder(nn.Module):
    """Bytes, as vectors, through six convolutions, then fully connected layers to one number.

    Source: Zhang, Zhao and LeCun (2015), arXiv:1509.01626, in the sizes of Zheng et al. (2024),
    arXiv:2410.23022 (ONI): vectors of 32, 64 channels, kernels of 7, 7, 3, 3, 3, 3, then 128, 512,
    512 with dropout .1 behind the last two.

    Args:
        generator: draws the initial weights.
        longest: bytes of a caption (in UTF-8) that are read, at least 123.
        channels: of the convolutions.
        widths: of the fully connected layers; dropout behind all but the first.
        dropout: share of hidden numbers that are left out while learning.
    """

    learning_rate = 1e-4

    def __init__(
        self,
        generator: torch.Generator,
        longest: int = 256,
        channels: int = 64,
        widths: Sequence[int] = (128, 512, 512),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        places = _places(longest)
        if places < 1:
            raise ValueError(
                f"CharactersEncoder: longest is {longest}; wanted 123 or more, or nothing is left "
                "behind the convolutions."
            )
        self._longest, self._dropout = longest, dropout
        self.vectors = _uniform(generator, 1, 256, 32)
        into = [32] + [channels] * (len(KERNELS) - 1)
        self.kernels = nn.ParameterList(
            _uniform(generator, inner * wide, channels, inner, wide)
            for inner, wide in zip(into, KERNELS, strict=True)
        )
        self.biases = nn.ParameterList(
            _uniform(generator, inner * wide, channels)
            for inner, wide in zip(into, KERNELS, strict=True)
        )
        layers = list(pairwise((places * channels, *widths, 1)))
        self.weights = nn.ParameterList(_uniform(generator, a, b, a) for a, b in layers)
        self.shifts = nn.ParameterList(_uniform(generator, a, b) for a, b in layers)

    def meet(self, captions: Sequence[str]) -> None:
        """Nothing: every character is known."""

    def rows(self, captions: Sequence[str]) -> Int[Tensor, " captions longest"]:
        """The bytes of each caption, 0 behind them."""
        width = self._longest
        cut = [
            caption.encode("utf-8", "replace")[:width].ljust(width, b"\0") for caption in captions
        ]
        return torch.as_tensor(
            np.frombuffer(b"".join(cut), np.uint8).reshape(len(cut), width).astype(np.int64)
        )

    def forward(
        self, rows: Int[Tensor, " captions longest"], generator: torch.Generator | None = None
    ) -> Float[Tensor, " captions"]:
        """One number for each caption; with ``generator`` under dropout."""
        hidden = functional.embedding(rows, self.vectors).transpose(1, 2)
        for kernel, bias, pooled in zip(self.kernels, self.biases, POOLED, strict=True):
            hidden = functional.relu(functional.conv1d(hidden, kernel, bias))
            hidden = functional.max_pool1d(hidden, 3) if pooled else hidden
        hidden = hidden.flatten(1)
        last = len(self.weights) - 1
        for layer, (weight, shift) in enumerate(zip(self.weights, self.shifts, strict=True)):
            hidden = functional.linear(hidden, weight, shift)
            hidden = hidden if layer == last else functional.relu(hidden)
            if generator is not None and 0 < layer < last:
                kept = torch.rand(hidden.shape, generator=generator) >= self._dropout
                hidden = hidden * kept / (1.0 - self._dropout)
        return hidden[:, 0]

    def get_words(self) -> list[str]:
        """None."""
        return []

    def set_words(self, words: Sequence[str]) -> None:
        """Nothing."""


CaptionEncoder = WordsEncoder | CharactersEncoder
ENCODERS: dict[str, type[WordsEncoder] | type[CharactersEncoder]] = {
    "words": WordsEncoder,
    "characters": CharactersEncoder,
}


def _words(caption: str) -> list[str]:
    """Its different words and signs, in lower case."""
    return list(dict.fromkeys(re.findall(r"\w+|[^\w\s]", caption.lower())))


def _places(longest: int) -> int:
    """What the convolutions leave of so many characters."""
    for wide, pooled in zip(KERNELS, POOLED, strict=True):
        longest = max(0, longest - wide + 1)
        longest = longest // 3 if pooled else longest
    return longest


def _uniform(generator: torch.Generator, inputs: int, *shape: int) -> nn.Parameter:
    return nn.Parameter((2.0 * torch.rand(shape, generator=generator) - 1.0) / inputs**0.5)
