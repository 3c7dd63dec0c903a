"""Copying with one word forbidden: so small that every response there is can be listed."""

from typing import Any

import numpy as np

from prefgym.text import Layout, Vocabulary
from prefgym_envs.text_answers import Answers
from prefgym_envs.text_env import TextEnv, TextVectorEnv
from prefgym_envs.text_tasks import TextTask, distinct_prompts, phrases

LETTERS = ("a", "b", "x")
FORBIDDEN = "x"
LENGTH = 3
"""Letters of a prompt."""


class TextCopyEnv(TextEnv):
    """Copy the prompt, but never write an x.

    ## Description
    The prompt is three letters from ``a``, ``b`` and ``x`` (``a x b``); the response shall be the
    same letters without any ``x``, and then the end (``a b``). There are 341 responses in all, so
    that the best policy near any reference is known exactly: ``task.all_responses()``,
    ``task.all_returns``, ``task.kl_optimal(reference_log_prob, temperature)``.

    ## Action space
    ``Discrete(5)``: the next token: ``<pad>`` (which says nothing, and is always wrong), ``<eos>``,
    ``a``, ``b``, ``x``.

    ## Observation space
    ``MultiDiscrete`` of 3 + 4 + 1 integers (int64): the prompt; the response so far, padded on the
    right; and its tokens, 0 to 4.

    ## True reward
    For an answer of k letters, 1 / (k + 1) for every token that is the right one at its place, the
    end among them, and −1/4 for every ``x``: 1 for a response without mistake, at least −1.
    ``info["factors"]``: ``copied`` (the first part) and ``forbidden`` (every x counts 1); the
    reward is copied − forbidden / 4.

    ## Start
    A prompt drawn uniformly; ``info["context_id"]`` is its number.

    ## End
    Terminates with ``<eos>``; truncated after 4 tokens.

    ## What a rater may prefer that the reward does not say
    How bad a forbidden word is: a rater who must never see one ranks responses by ``forbidden``
    first, while for the reward one of them costs less than a mistake in a short answer.

    ## Arguments
    ``prompts``: how many (8 by default; there are 27). ``seed``: which ones (0 by default).
    ``captions``: whether ``info["caption"]`` tells the phrase that a token finished; every letter
    is one.

    ## Version history
    * v0: first version.
    """

    def __init__(
        self,
        prompts: int = 8,
        seed: int = 0,
        render_mode: str | None = None,
        captions: bool = False,
    ) -> None:
        super().__init__(task(prompts, seed), render_mode, captions=captions)


def raw(**kwargs: Any) -> TextCopyEnv:
    """One environment with its true reward; arguments as :class:`TextCopyEnv`."""
    return TextCopyEnv(**kwargs)


def raw_vector(num_envs: int, prompts: int = 8, seed: int = 0, **kwargs: Any) -> TextVectorEnv:
    """The batched form; other arguments as :class:`TextVectorEnv`."""
    return TextVectorEnv(task(prompts, seed), num_envs, **kwargs)


def task(prompts: int = 8, seed: int = 0) -> TextTask:
    """Prompts and rules."""

    def letters(rng: np.random.Generator) -> list[str]:
        return [str(one) for one in rng.choice(LETTERS, size=LENGTH)]

    drawn = distinct_prompts(letters, prompts, len(LETTERS) ** LENGTH, seed)
    codec = Vocabulary.of(*LETTERS)
    layout = Layout(codec, LENGTH, LENGTH + 1)
    kept = [[letter for letter in one if letter != FORBIDDEN] for one in drawn]
    answers = Answers.of(layout, [codec.encode(" ".join(one)) for one in kept])
    forbidden = np.zeros(answers.right.shape)
    forbidden[:, codec.tokens[FORBIDDEN]] = 1.0
    return TextTask(
        layout=layout,
        prompts=layout.prompts([codec.encode(" ".join(one)) for one in drawn]),
        start=answers.start,
        next_state=answers.next_state,
        factors={
            "copied": answers.right / (answers.length + 1.0)[:, None],
            "forbidden": forbidden,
        },
        weights={"copied": 1.0, "forbidden": -0.25},
        examples=answers.examples,
        captions=phrases(codec, *LETTERS),
    )
