"""Sums: an answer that can be checked, and that is nearly right or right."""

from typing import Any

import numpy as np

from prefgym.text import Layout, Vocabulary
from prefgym_envs.text_answers import Answers
from prefgym_envs.text_env import TextEnv, TextVectorEnv
from prefgym_envs.text_tasks import TextTask, distinct_prompts

DIGITS = tuple("0123456789")
MOST = 9_999
"""The largest number that can be asked for."""


class TextArithmeticEnv(TextEnv):
    """Add two numbers.

    ## Description
    The prompt is a sum of two numbers, digit by digit (``1 7 + 5 =``); the response shall be its
    value, the highest digit first, and then the end (``2 2``).

    ## Action space
    ``Discrete(14)``: the next token: ``<pad>`` (which says nothing, and is always wrong),
    ``<eos>``, the ten digits, ``+`` and ``=``.

    ## Observation space
    ``MultiDiscrete`` of 6 + 3 + 1 integers (int64) by default: the prompt, padded on the left; the
    response so far, padded on the right; and its tokens, 0 to 3. With a ``largest`` of d digits, a
    prompt has up to 2 d + 2 tokens, and a response as many as 2 · largest has digits, and one more.

    ## True reward
    ½ for the end that completes a value without mistake, and for a value of k digits, 1 / (2 k) for
    every right digit at its place: 1 for a response without mistake, at least 0.
    ``info["factors"]``: ``exact`` (1 for the right value) and ``digits`` (the share of its digits);
    the reward is their mean.

    ## Start
    A prompt drawn uniformly; ``info["context_id"]`` is its number.

    ## End
    Terminates with ``<eos>``; truncated after 3 tokens by default.

    ## What a rater may prefer that the reward does not say
    A teacher may count the right value only (``exact``), or how far the number is off, of which
    right digits say little: for 17 + 5, the value 32 is as good as 29 to the reward.

    ## Arguments
    ``prompts``: how many (64 by default). ``seed``: which ones (0 by default). ``largest``: the
    largest number to be added (19 by default).

    ## Version history
    * v0: first version.
    """

    def __init__(
        self,
        prompts: int = 64,
        seed: int = 0,
        largest: int = 19,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(task(prompts, seed, largest), render_mode)


def raw(**kwargs: Any) -> TextArithmeticEnv:
    """One environment with its true reward; arguments as :class:`TextArithmeticEnv`."""
    return TextArithmeticEnv(**kwargs)


def raw_vector(
    num_envs: int, prompts: int = 64, seed: int = 0, largest: int = 19, **kwargs: Any
) -> TextVectorEnv:
    """The batched form; other arguments as :class:`TextVectorEnv`."""
    return TextVectorEnv(task(prompts, seed, largest), num_envs, **kwargs)


def task(prompts: int = 64, seed: int = 0, largest: int = 19) -> TextTask:
    """Prompts and rules."""
    if not isinstance(largest, int | np.integer) or not 1 <= largest <= MOST:
        raise ValueError(f"largest={largest!r}; give a whole number from 1 to {MOST}.")

    def numbers(rng: np.random.Generator) -> list[str]:
        one, other = rng.integers(largest + 1, size=2).tolist()
        return [*str(one), "+", *str(other), "="]

    drawn = distinct_prompts(numbers, prompts, (int(largest) + 1) ** 2, seed)
    values = [sum(int(one) for one in "".join(words[:-1]).split("+")) for words in drawn]
    codec = Vocabulary.of(*DIGITS, "+", "=")
    layout = Layout(codec, 2 * len(str(largest)) + 2, len(str(2 * largest)) + 1)
    answers = Answers.of(layout, [codec.encode(" ".join(str(value))) for value in values])
    return TextTask(
        layout=layout,
        prompts=layout.prompts([codec.encode(" ".join(one)) for one in drawn]),
        start=answers.start,
        next_state=answers.next_state,
        factors={
            "exact": answers.exact,
            "digits": answers.right * ~answers.ends / answers.length[:, None],
        },
        weights={"exact": 0.5, "digits": 0.5},
        examples=answers.examples,
    )
