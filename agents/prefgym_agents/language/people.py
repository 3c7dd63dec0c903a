"""Language models that write for somebody: a prompt says for whom, and the model reads who that is.

In environments made with ``personal=`` a number stands beside every prompt. A model reads it with
the last token of the prompt, to whose embedding a linear function of the person's row in a table is
added: a row of flags, so that the person has a vector of their own, or what a preference model
inferred about them. The function begins at 0, so that a model begins as what it was before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

DESCRIPTIONS = "descriptions"
"""Name of the table."""


class DescribedTokens(nn.Module):
    """Embeddings of tokens, of which some say for whom a text is written (:func:`addressed`).

    The table is a buffer: not learned, but kept with the weights that are.

    Args:
        tokens: the embeddings themselves.
        people: rows of the table.
        numbers: of each row; None: a flag for each person.
    """

    descriptions: Tensor

    def __init__(self, tokens: Any, people: int, numbers: int | None = None) -> None:
        super().__init__()
        self.tokens = tokens
        like = tokens.weight
        table = torch.eye(people) if numbers is None else torch.zeros(people, numbers)
        self.register_buffer(DESCRIPTIONS, table.to(like.device))
        self.reads = nn.Linear(table.shape[1], like.shape[1], bias=False, device=like.device)
        nn.init.zeros_(self.reads.weight)
        self.flags = numbers is None
        """Whether a row says who it is, and nothing about them."""
        self.quiet = False
        """Write for nobody in particular."""

    @property
    def weight(self) -> Tensor:
        """Of the tokens."""
        found: Tensor = self.tokens.weight
        return found

    @property
    def num_embeddings(self) -> int:
        """Tokens."""
        return int(self.tokens.num_embeddings)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[..., width]``."""
        plain: Tensor = self.tokens(tokens % self.num_embeddings)
        if self.quiet:
            return plain
        told = self.reads(self.descriptions)
        told = torch.cat([told.new_zeros(1, told.shape[1]), told]).to(plain.dtype)
        return plain + told[tokens // self.num_embeddings]


def tell_apart(model: Any, people: int, numbers: int | None = None) -> None:
    """Let a model read for whom it writes, beginning as it is; as :class:`DescribedTokens`."""
    model.set_input_embeddings(DescribedTokens(_plain(model), people, numbers))


def impersonal(model: Any) -> Any:
    """The same model, which from now on writes for nobody in particular."""
    if described_tokens(model) is not None:
        model.set_input_embeddings(_plain(model))
    return model


def described_tokens(model: Any) -> DescribedTokens | None:
    """Where a model reads for whom it writes; None where it does not."""
    found = model.get_input_embeddings()
    return found if isinstance(found, DescribedTokens) else None


def addressed(
    model: Any, prompts: Int[np.ndarray, " batch prompt"], person: Int[np.ndarray, " batch"] | None
) -> Int[np.ndarray, " batch prompt"]:
    """Prompts as a model reads them that tells people apart.

    The last token is ``token + size · (person + 1)``, with the number of embeddings for ``size``.
    """
    tokens = described_tokens(model)
    if person is None or tokens is None:
        return prompts
    found = prompts.copy()
    found[:, -1] += tokens.num_embeddings * (person + 1)
    return found


@contextmanager
def for_nobody(model: Any) -> Iterator[None]:
    """The model as it writes for nobody in particular, for as long as the context lasts."""
    tokens = described_tokens(model)
    if tokens is None:
        yield
        return
    tokens.quiet = True
    try:
        yield
    finally:
        tokens.quiet = False


def _plain(model: Any) -> Any:
    found = model.get_input_embeddings()
    return found.tokens if isinstance(found, DescribedTokens) else found
