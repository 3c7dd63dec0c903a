"""Text as numbers: what turns words into tokens, and where prompt and response stand.

An observation of a text environment is one row of integers, the same for every step of an episode
in length: the prompt, padded on the left; the response so far, padded on the right; and how many
tokens the response has. An action is the next token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float, Int

from prefgym.names import lookup
from prefgym.segments import Segments

PAD = "<pad>"
EOS = "<eos>"
ARROW = " → "
"""Stands between prompt and response where people read them."""


@runtime_checkable
class Codec(Protocol):
    """Turns text into tokens and back; tokens are 0, 1, ..., size − 1."""

    @property
    def size(self) -> int:
        """How many tokens there are."""
        ...

    @property
    def pad(self) -> int:
        """The token that fills rows up; it says nothing."""
        ...

    @property
    def eos(self) -> int:
        """The token that ends a response."""
        ...

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without an end."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; padding and end show as nothing."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """A codec of a few words: ``words[i]`` is token ``i``; blanks part the words of a text.

    Example:
        >>> letters = Vocabulary.of("a", "b")
        >>> letters.words
        ('<pad>', '<eos>', 'a', 'b')
        >>> letters.encode("b a b"), letters.decode([0, 3, 2, 3, 1, 0])
        ([3, 2, 3], 'b a b')
    """

    words: tuple[str, ...]
    """The first two are ``<pad>`` and ``<eos>``."""

    def __post_init__(self) -> None:
        """Refuse words that could not be told apart in a text."""
        if self.words[:2] != (PAD, EOS):
            raise ValueError(
                f"The first two words of a vocabulary are {PAD!r} and {EOS!r}, but"
                f" {self.words[:2]} came; Vocabulary.of(*words) puts them in front."
            )
        odd = [one for one in self.words if one.split() != [one]]
        twice = [one for place, one in enumerate(self.words) if one in self.words[:place]]
        if odd or twice:
            raise ValueError(
                f"The word {(odd or twice)[0]!r} {'is no single word' if odd else 'came twice'};"
                " give every word once, without blanks."
            )

    @classmethod
    def of(cls, *words: str) -> "Vocabulary":
        """The vocabulary of some words, padding and end added in front."""
        return cls((PAD, EOS, *words))

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return len(self.words)

    @property
    def pad(self) -> int:
        """The token of ``<pad>``."""
        return 0

    @property
    def eos(self) -> int:
        """The token of ``<eos>``."""
        return 1

    @cached_property
    def tokens(self) -> Mapping[str, int]:
        """The token of every word."""
        return {word: token for token, word in enumerate(self.words)}

    def encode(self, text: str) -> list[int]:
        """The tokens of a text.

        Raises:
            ValueError: a word is not in the vocabulary, or one of ``<pad>`` and ``<eos>``.
        """
        words = text.split()
        for special in (PAD, EOS):
            if special in words:
                raise ValueError(
                    f"The text {text!r} holds {special!r}, which is no word but padding or the end;"
                    " leave it out."
                )
        return [lookup(word, self.tokens, "word") for word in words]

    def decode(self, tokens: Sequence[int]) -> str:
        """The words of tokens, with blanks between them; padding and end show as nothing.

        Raises:
            ValueError: there is no such token.
        """
        for token in tokens:
            if not 0 <= token < self.size:
                raise ValueError(
                    f"There is no token {token}; this vocabulary has 0 to {self.size - 1}."
                )
        return " ".join(self.words[token] for token in tokens if token > self.eos)


@dataclass(frozen=True)
class Layout:
    """Where prompt and response stand in an observation."""

    codec: Codec
    prompt_tokens: int
    """P: of the longest prompt. Shorter ones are padded on the left."""
    response_tokens: int
    """T: of the longest response; a response that has so many tokens ends. Padded on the right."""
    people: int = 0
    """For how many people responses may be written; whose number stands last in an observation."""

    def __post_init__(self) -> None:
        """Refuse lengths below one."""
        for name in ("prompt_tokens", "response_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1.")

    @cached_property
    def observation_space(self) -> gym.spaces.MultiDiscrete:
        """P prompt tokens, T response tokens, the number of response tokens from 0 to T, who."""
        tokens = np.full(self.prompt_tokens + self.response_tokens, self.codec.size)
        whom = [self.people] if self.people else []
        sizes = [*tokens.tolist(), self.response_tokens + 1, *whom]
        return gym.spaces.MultiDiscrete(sizes, np.int64)

    @cached_property
    def action_space(self) -> gym.spaces.Discrete:
        """The next token."""
        return gym.spaces.Discrete(self.codec.size)

    def prompts(self, rows: Sequence[Sequence[int]]) -> Int[np.ndarray, " rows prompt"]:
        """Prompts of any lengths as one array, padded on the left.

        Raises:
            ValueError: a prompt has no token, or more than ``prompt_tokens``.
        """
        for place, row in enumerate(rows):
            if not 0 < len(row) <= self.prompt_tokens:
                raise ValueError(
                    f"Prompt {place} has {len(row)} tokens; wanted 1 to {self.prompt_tokens}, so"
                    f" {'shorten it or raise prompt_tokens' if row else 'drop it'}."
                )
        padded = np.full((len(rows), self.prompt_tokens), self.codec.pad, np.int64)
        for place, row in enumerate(rows):
            padded[place, -len(row) :] = row
        return padded

    def prompt_mask(
        self, prompts: Int[np.ndarray, " batch prompt"]
    ) -> Bool[np.ndarray, " batch prompt"]:
        """True from the first token of a prompt on that is no padding."""
        real: np.ndarray = np.logical_or.accumulate(prompts != self.codec.pad, axis=1)
        return real

    def observations(
        self,
        prompts: Int[np.ndarray, " batch prompt"],
        responses: Int[np.ndarray, " batch steps"],
        lengths: Int[np.ndarray, " batch"],
        person: Int[np.ndarray, " batch"] | None = None,
    ) -> Int[np.ndarray, " batch width"]:
        """Observations, ``[batch, P + T + 1]``; tokens of responses beyond ``lengths`` are padding.

        Args:
            prompts: padded on the left.
            responses: padded on the right.
            lengths: tokens of each response.
            person: for whom each is written; one more number of an observation, if any.

        Raises:
            ValueError: the arrays are not [batch, P], [batch, T] and [batch] with lengths up to T,
                or it is not said for whom responses are written.
        """
        if (person is None) != (self.people == 0):
            raise ValueError(
                f"This layout is of responses for {self.people or 'no'} people, and person="
                f"{'None' if person is None else 'an array'} came."
            )
        wanted = (len(lengths), self.prompt_tokens), (len(lengths), self.response_tokens)
        if (prompts.shape, responses.shape) != wanted:
            raise ValueError(
                f"Prompts of shape {prompts.shape} and responses of shape {responses.shape} came;"
                f" wanted {wanted[0]} and {wanted[1]}."
            )
        if lengths.size and not 0 <= lengths.min() <= lengths.max() <= self.response_tokens:
            raise ValueError(
                f"Lengths from {lengths.min()} to {lengths.max()} came; a response has 0 to"
                f" {self.response_tokens} tokens."
            )
        real = np.arange(self.response_tokens) < lengths[:, None]
        whom = () if person is None else (person[:, None],)
        columns = (prompts, np.where(real, responses, self.codec.pad), lengths[:, None], *whom)
        return np.concatenate(columns, axis=1, dtype=np.int64)

    def split(
        self, observations: Int[np.ndarray, " batch width"]
    ) -> tuple[
        Int[np.ndarray, " batch prompt"],
        Int[np.ndarray, " batch steps"],
        Int[np.ndarray, " batch"],
    ]:
        """Prompts ``[batch, P]``, responses ``[batch, T]`` and their lengths ``[batch]``, as views.

        Raises:
            ValueError: the rows are of another length.
        """
        given = self._rows(observations)
        end = self.prompt_tokens + self.response_tokens
        return given[:, : self.prompt_tokens], given[:, self.prompt_tokens : end], given[:, end]

    def person(
        self, observations: Int[np.ndarray, " batch width"]
    ) -> Int[np.ndarray, " batch"] | None:
        """For whom each response is written; None where it is for nobody in particular.

        Raises:
            ValueError: the rows are of another length.
        """
        whom: np.ndarray = self._rows(observations)[:, -1]
        return whom if self.people else None

    def _rows(self, observations: np.ndarray) -> np.ndarray:
        given = np.asarray(observations)
        width = self.prompt_tokens + self.response_tokens + 1 + bool(self.people)
        if given.ndim != 2 or given.shape[1] != width:
            raise ValueError(
                f"Observations of shape {given.shape} came; wanted (batch, {width}):"
                f" {self.prompt_tokens} prompt tokens, {self.response_tokens} response tokens, and"
                f" the length of the response{', and for whom it is' if self.people else ''}."
            )
        return given

    def mask(self, actions: Int[np.ndarray, " batch steps"]) -> Bool[np.ndarray, " batch steps"]:
        """True up to the first end, that token included: which tokens belong to a response."""
        ends = np.cumsum(actions == self.codec.eos, axis=1)
        real: np.ndarray = ends - (actions == self.codec.eos) == 0
        return real

    def check_responses(self, actions: Any, mask: Any) -> None:
        """Refuse what is no batch of whole responses of ``[batch, T]``.

        Raises:
            ValueError: a token does not exist, or a row stops before its end, or goes on after it.
        """
        actions, mask = np.asarray(actions), np.asarray(mask)
        wanted = (len(mask), self.response_tokens)
        if actions.shape != wanted or mask.shape != wanted or mask.dtype != np.bool_:
            raise ValueError(
                f"Tokens of shape {actions.shape} and a mask of shape {mask.shape} and type"
                f" {mask.dtype} came; wanted {wanted} both, and booleans for the mask."
            )
        self.check_tokens(actions[mask])
        wrong = (mask != self.mask(np.where(mask, actions, self.codec.pad))).any(1)
        cut = mask.sum(1) < self.response_tokens
        last = np.take_along_axis(actions, np.maximum(mask.sum(1) - 1, 0)[:, None], 1)[:, 0]
        wrong |= cut & ((last != self.codec.eos) | ~mask[:, 0])
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"Row {row} is no whole response: its tokens are {actions[row].tolist()}, its mask"
                f" {mask[row].astype(int).tolist()}; mark all tokens up to the first end"
                f" ({self.codec.eos}), that one included, or all {self.response_tokens} if none"
                " comes."
            )

    def check_segments(self, segments: Segments) -> None:
        """Refuse what is no batch of whole responses to prompts of this layout.

        Raises:
            ValueError: contexts are no prompts, a prompt is empty, a token does not exist, or a
                response is too long or not whole.
        """
        plain = segments.numpy()
        self._check_prompts(plain.context)
        self.check_tokens(plain.context)
        begun = self.prompt_mask(plain.context).any(1)
        if not begun.all():
            raise ValueError(f"Prompt {int(begun.argmin())} is empty; give every prompt a token.")
        limit, lengths = self.response_tokens, plain.lengths
        if plain.actions.ndim != 2 or (lengths > limit).any():
            raise ValueError(
                f"Responses of shape {plain.actions.shape} with up to {lengths.max(initial=0)}"
                f" tokens came; wanted (batch, steps) and at most {limit} tokens."
            )
        whole = plain.padded(max(limit, plain.steps))
        self.check_responses(whole.actions[:, :limit], whole.mask[:, :limit])

    def check_tokens(self, tokens: Any) -> None:
        """Refuse numbers that are no tokens.

        Raises:
            ValueError: one is not an integer from 0 to size − 1.
        """
        given, last = np.asarray(tokens), self.codec.size - 1
        if given.dtype.kind not in "iu":
            raise ValueError(
                f"Tokens of type {given.dtype} came; give integers from 0 to {last}, the tokens of"
                " the vocabulary."
            )
        if given.size and (given.min() < 0 or given.max() > last):
            odd = given[(given < 0) | (given > last)].flat[0]
            raise ValueError(
                f"There is no token {odd}; the vocabulary has 0 to {last}, so give one of these."
            )

    def text(self, segments: Segments) -> list[str]:
        """``prompt → response`` of every segment, for people.

        Raises:
            ValueError: the contexts are no prompts of this layout.
        """
        plain = segments.numpy()
        self._check_prompts(plain.context)
        return [
            self.line(prompt[real], actions[mask])
            for prompt, real, actions, mask in zip(
                plain.context,
                self.prompt_mask(plain.context),
                plain.actions,
                plain.mask,
                strict=True,
            )
        ]

    def line(self, prompt: Int[np.ndarray, " prompt"], response: Int[np.ndarray, " steps"]) -> str:
        """One prompt and its response, as people read them."""
        return ARROW.join(self.codec.decode(one.tolist()) for one in (prompt, response))

    def _check_prompts(self, context: np.ndarray) -> None:
        if context.ndim != 2 or context.shape[1] != self.prompt_tokens:
            raise ValueError(
                f"Contexts of shape {context.shape} came; wanted (batch, {self.prompt_tokens}): the"
                " prompts, padded on the left."
            )


@dataclass(frozen=True, eq=False)
class Played:
    """What whole responses of all lanes met; zero after their ends."""

    rewards: Float[np.ndarray, " lanes steps"]
    """The true reward of every token."""
    factors: Mapping[str, np.ndarray]
    """Its named parts, ``[lanes, steps]`` each."""
    terminated: Bool[np.ndarray, " lanes"]
    """Ended by the end token."""
    truncated: Bool[np.ndarray, " lanes"]
    """Cut off at the longest response."""
