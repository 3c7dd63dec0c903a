"""Rules of the tasks that have one right answer to every prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from prefgym.text import Layout


@dataclass(frozen=True, eq=False)
class Answers:
    """What every token is worth where an answer and then the end is wanted.

    A state is a prompt, the place of the next token, and whether all tokens so far were right.
    """

    layout: Layout
    wanted: Int[np.ndarray, " prompts steps"]
    """The answers, with the end token behind them; all others are padding."""

    @classmethod
    def of(cls, layout: Layout, answers: Sequence[Sequence[int]]) -> "Answers":
        """From answers of any lengths below that of the longest response."""
        wanted = np.full((len(answers), layout.response_tokens), layout.codec.pad)
        for row, answer in enumerate(answers):
            wanted[row, : len(answer)] = answer
            wanted[row, len(answer)] = layout.codec.eos
        return cls(layout, wanted)

    @property
    def start(self) -> Int[np.ndarray, " prompts"]:
        """The state in which the response to every prompt begins."""
        return np.arange(len(self.wanted)) * 2 * self.layout.response_tokens + 1

    @property
    def next_state(self) -> Int[np.ndarray, " states tokens"]:
        """Where every token leads: one place further; nowhere from the last one."""
        prompt, place, clean = self._parts
        right = (self.target[:, None] == np.arange(self.layout.codec.size)) & clean[:, None]
        place = np.minimum(place + 1, self.layout.response_tokens - 1)
        table: np.ndarray = (prompt * self.layout.response_tokens + place)[:, None] * 2 + right
        return table.astype(np.int32)

    @property
    def target(self) -> Int[np.ndarray, " states"]:
        """The token that is wanted in every state; padding behind the end."""
        prompt, place, _ = self._parts
        wanted: np.ndarray = self.wanted[prompt, place]
        return wanted

    @property
    def length(self) -> Int[np.ndarray, " states"]:
        """Tokens of the answer to the prompt of every state, the end not among them."""
        prompt, _, _ = self._parts
        lengths: np.ndarray = (self.wanted == self.layout.codec.eos).argmax(1)
        of_states: np.ndarray = lengths[prompt]
        return of_states

    @property
    def right(self) -> Bool[np.ndarray, " states tokens"]:
        """Whether a token is the one that is wanted; never behind the end."""
        written = np.arange(self.layout.codec.size)
        hit: np.ndarray = self.target[:, None] == written
        right: np.ndarray = hit & (self.target != self.layout.codec.pad)[:, None]
        return right

    @property
    def ends(self) -> Bool[np.ndarray, " tokens"]:
        """Which token is the end."""
        ends: np.ndarray = np.arange(self.layout.codec.size) == self.layout.codec.eos
        return ends

    @property
    def exact(self) -> Float[np.ndarray, " states tokens"]:
        """1 for the end that completes an answer without a mistake."""
        clean = self._parts[2].astype(bool)
        complete: np.ndarray = self.right & self.ends & clean[:, None]
        return complete.astype(np.float64)

    @property
    def examples(self) -> Int[np.ndarray, " prompts 1 steps"]:
        """The right answers; the end token behind their ends."""
        eos, pad = self.layout.codec.eos, self.layout.codec.pad
        return np.where(self.wanted == pad, eos, self.wanted)[:, None]

    @property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        prompts, steps = self.wanted.shape
        prompt, place, clean = np.indices((prompts, steps, 2)).reshape(3, -1)
        return prompt, place, clean
