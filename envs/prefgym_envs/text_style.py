"""Greetings about whose style two groups of readers disagree."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from prefgym.text import Layout, Vocabulary
from prefgym_envs.text_env import TextEnv, TextVectorEnv
from prefgym_envs.text_tasks import TextTask, distinct_prompts, example_tokens, phrases

NAMES = ("anna", "ben", "cleo", "dan")
FORMAL = ("dear", "regards", "sincerely")
CASUAL = ("hey", "cheers", "yo")
OTHERS = ("to", "hello", "bye")
GROUPS = {"formal": {"formal": 1.0}, "casual": {"casual": 1.0}}
"""What each of the two groups wants: its own factor, and nothing else."""
WEIGHTS = (0.6, 0.4)
"""Shares of the groups by default."""
NAMING, STYLING = 0.4, 0.2
"""What the right name is worth to both groups, and a word of their own style to each."""
NOISE = 0.1
"""Of demonstrations, whose examples are no better than they are."""
RESPONSE_TOKENS = 6
TEMPLATES = (
    "dear {name} regards",
    "hey {name} cheers",
    "hello {name} bye",
    "hey {name} sincerely",
)
"""How demonstrators write: each in a style of its own."""


class TextStyleEnv(TextEnv):
    """Greet somebody, formally or casually.

    ## Description
    The prompt says who writes to whom (``anna to ben``); a response shall name the receiver. Half
    of the vocabulary is formal (dear, regards, sincerely) or casual (hey, cheers, yo), and what one
    group of readers likes the other dislikes.

    ## Action space
    ``Discrete(15)``: the next token: ``<pad>`` (which says nothing), ``<eos>``, four names, three
    formal, three casual and three other words.

    ## Observation space
    ``MultiDiscrete`` of 3 + 6 + 1 integers (int64): the prompt; the response so far, padded on the
    right; and its tokens, 0 to 6.

    ## True reward
    The mean of two groups' rewards with their shares, 0.6 · formal + 0.4 · casual, which are
    ``info["factors"]``:

    * ``formal``: 0.4 for the receiver's name, if it is the first name in the response; 0.2 for each
      formal word, −0.2 for each casual word, when it comes for the first time;
    * ``casual``: the same with the two styles exchanged.

    The best response (the name and all formal words) earns 0.52: 1 in the eyes of the first group,
    −0.2 in those of the second. A response that names the receiver and has no style earns 0.4
    with both.

    ## Start
    A prompt drawn uniformly; ``info["context_id"]`` is its number.

    ## End
    Terminates with ``<eos>``; truncated after 6 tokens.

    ## What a rater may prefer that the reward does not say
    By default each answer comes from one of the groups (``rater="groups"``), which prefers by its
    own factor alone: a rater id tells which. No reward agrees with both, and a fair one may want
    the worse-off group to be as content as can be, which the mean does not.

    ## Arguments
    ``prompts``: how many (12 by default, all there are). ``seed``: which ones (0 by default).
    ``weights``: shares of the formal and of the casual group, adding up to 1. ``captions``: whether
    ``info["caption"]`` tells the phrase that a token finished; every word but ``to`` is one.

    ## Version history
    * v0: first version.
    """

    groups: Mapping[str, Mapping[str, float]] = GROUPS

    def __init__(
        self,
        prompts: int = 12,
        seed: int = 0,
        weights: Sequence[float] = WEIGHTS,
        render_mode: str | None = None,
        captions: bool = False,
    ) -> None:
        super().__init__(task(prompts, seed, weights), render_mode, captions=captions)
        self.group_shares = tuple(float(one) for one in weights)


class TextStyleVectorEnv(TextVectorEnv):
    """The batched form of :class:`TextStyleEnv`; other arguments as :class:`TextVectorEnv`."""

    groups: Mapping[str, Mapping[str, float]] = GROUPS

    def __init__(
        self,
        num_envs: int,
        prompts: int = 12,
        seed: int = 0,
        weights: Sequence[float] = WEIGHTS,
        **kwargs: Any,
    ) -> None:
        super().__init__(task(prompts, seed, weights), num_envs, **kwargs)
        self.group_shares = tuple(float(one) for one in weights)


def raw(**kwargs: Any) -> TextStyleEnv:
    """One environment with its true reward; arguments as :class:`TextStyleEnv`."""
    return TextStyleEnv(**kwargs)


def raw_vector(num_envs: int, **kwargs: Any) -> TextStyleVectorEnv:
    """The batched form; arguments as :class:`TextStyleVectorEnv`."""
    return TextStyleVectorEnv(num_envs, **kwargs)


def task(prompts: int = 12, seed: int = 0, weights: Sequence[float] = WEIGHTS) -> TextTask:
    """Prompts and rules."""
    shares = np.asarray(weights, np.float64)
    if shares.shape != (2,) or not (shares >= 0).all() or abs(shares.sum() - 1.0) > 1e-9:
        raise ValueError(f"weights is {weights!r}; give the shares of two groups, adding up to 1.")

    def who(rng: np.random.Generator) -> list[str]:
        sender, receiver = rng.choice(NAMES, size=2, replace=False).tolist()
        return [sender, "to", receiver]

    drawn = distinct_prompts(who, prompts, len(NAMES) * (len(NAMES) - 1), seed)
    codec = Vocabulary.of(*NAMES, *FORMAL, *CASUAL, *OTHERS)
    layout = Layout(codec, 3, RESPONSE_TOKENS)
    next_state, factors = _rules(codec)
    return TextTask(
        layout=layout,
        prompts=layout.prompts([codec.encode(" ".join(one)) for one in drawn]),
        start=np.array([NAMES.index(words[2]) for words in drawn]) * (len(next_state) // 4),
        next_state=next_state,
        factors=factors,
        weights={"formal": float(shares[0]), "casual": float(shares[1])},
        examples=example_tokens(
            layout, [[form.format(name=words[2]) for form in TEMPLATES] for words in drawn]
        ),
        noise=NOISE,
        captions=phrases(codec, *NAMES, *FORMAL, *CASUAL, "hello", "bye"),
    )


def _rules(
    codec: Vocabulary,
) -> tuple[Int[np.ndarray, " states tokens"], dict[str, Float[np.ndarray, " states tokens"]]]:
    """A state is the receiver, whether a name was named, and which styled words were used."""
    words = (*FORMAL, *CASUAL)
    bits = np.indices((len(NAMES), 2, *([2] * len(words)))).reshape(2 + len(words), -1)
    receiver, named, used = bits[0], bits[1], bits[2:]
    step = np.repeat(np.arange(len(receiver))[:, None], codec.size, axis=1)
    formal, casual = np.zeros(step.shape), np.zeros(step.shape)
    for number, name in enumerate(NAMES):
        token = codec.tokens[name]
        formal[:, token] = casual[:, token] = NAMING * ((receiver == number) & (named == 0))
        step[named == 0, token] += 2 ** len(words)
    for number, word in enumerate(words):
        token, fresh = codec.tokens[word], used[number] == 0
        sign = 1.0 if word in FORMAL else -1.0
        formal[:, token], casual[:, token] = sign * STYLING * fresh, -sign * STYLING * fresh
        step[fresh, token] += 2 ** (len(words) - 1 - number)
    return step.astype(np.int32), {"formal": formal, "casual": casual}
