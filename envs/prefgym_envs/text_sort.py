"""Sorting letters: one token is as clearly right or wrong as the next."""

from typing import Any

import numpy as np

from prefgym.text import Layout, Vocabulary
from prefgym_envs.text_answers import Answers
from prefgym_envs.text_env import TextEnv, TextVectorEnv
from prefgym_envs.text_tasks import TextTask, distinct_prompts

LETTERS = ("a", "b", "c", "d", "e", "f")
LENGTHS = (3, 4, 5)
"""Letters of a prompt."""


class TextSortEnv(TextEnv):
    """Write the letters of the prompt in order, and stop.

    ## Description
    The prompt is three to five letters from ``a`` to ``f``, the same letter perhaps several times
    (``c a c``); the response shall be the same letters in order, and then the end (``a c c``).

    ## Action space
    ``Discrete(8)``: the next token: ``<pad>`` (which says nothing, and is always wrong), ``<eos>``
    and the six letters.

    ## Observation space
    ``MultiDiscrete`` of 5 + 6 + 1 integers (int64): the prompt, padded on the left; the response so
    far, padded on the right; and its tokens, 0 to 6.

    ## True reward
    For a prompt of k letters, 1 / (k + 1) for every token that is the right one at its place, the
    end among them: 1 for a response without mistake, at least 0. ``info["factors"]``: ``letters``
    (right letters, in the same unit) and ``end`` (the end, where it is right); the reward is their
    sum.

    ## Start
    A prompt drawn uniformly; ``info["context_id"]`` is its number.

    ## End
    Terminates with ``<eos>``; truncated after 6 tokens.

    ## What a rater may prefer that the reward does not say
    A letter at the wrong place counts as little as one that is not in the prompt, and a response
    that breaks off early loses only what it left out. A rater may see either otherwise.

    ## Arguments
    ``prompts``: how many (64 by default). ``seed``: which ones (0 by default).

    ## Version history
    * v0: first version.
    """

    def __init__(self, prompts: int = 64, seed: int = 0, render_mode: str | None = None) -> None:
        super().__init__(task(prompts, seed), render_mode)


def raw(**kwargs: Any) -> TextSortEnv:
    """One environment with its true reward; arguments as :class:`TextSortEnv`."""
    return TextSortEnv(**kwargs)


def raw_vector(num_envs: int, prompts: int = 64, seed: int = 0, **kwargs: Any) -> TextVectorEnv:
    """The batched form; other arguments as :class:`TextVectorEnv`."""
    return TextVectorEnv(task(prompts, seed), num_envs, **kwargs)


def task(prompts: int = 64, seed: int = 0) -> TextTask:
    """Prompts and rules."""

    def letters(rng: np.random.Generator) -> list[str]:
        return [str(one) for one in rng.choice(LETTERS, size=rng.choice(LENGTHS))]

    possible = sum(len(LETTERS) ** length for length in LENGTHS)
    drawn = distinct_prompts(letters, prompts, possible, seed)
    codec = Vocabulary.of(*LETTERS)
    layout = Layout(codec, max(LENGTHS), max(LENGTHS) + 1)
    answers = Answers.of(layout, [codec.encode(" ".join(sorted(one))) for one in drawn])
    share = answers.right / (answers.length + 1.0)[:, None]
    return TextTask(
        layout=layout,
        prompts=layout.prompts([codec.encode(" ".join(one)) for one in drawn]),
        start=answers.start,
        next_state=answers.next_state,
        factors={"letters": share * ~answers.ends, "end": share * answers.ends},
        weights={"letters": 1.0, "end": 1.0},
        examples=answers.examples,
    )
