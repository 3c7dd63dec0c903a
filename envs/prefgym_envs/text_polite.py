"""Answers that shall be right, polite and brief: three things to want, in a reader's own order."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from prefgym.text import Layout, Vocabulary
from prefgym_envs.text_env import TextEnv, TextVectorEnv
from prefgym_envs.text_tasks import TextTask, distinct_prompts, example_tokens, phrases

THINGS = ("cat", "key", "hat", "cup")
PLACES = ("box", "bed", "bag", "tub")
POLITE = ("gladly", "thanks")
OTHERS = ("where", "the", "is", "in", "well", "now")
WEIGHTS = {"correctness": 0.6, "politeness": 0.4, "length": -0.03}
NOISE = 0.1
"""Of demonstrations, whose examples are no better than they are."""
RESPONSE_TOKENS = 10
TEMPLATES = (
    "well the {thing} is in the {right} thanks",
    "the {thing} is in the {right} now",
    "well gladly the {thing} is in the {wrong}",
    "now the {thing} is in the {right}",
)
"""How demonstrators answer: wordy, half polite, and wrong one time in four."""


class TextPoliteEnv(TextEnv):
    """Tell where a thing is: rightly, politely and briefly.

    ## Description
    The prompt names the places of two things and asks for one of them
    (``cat box key bed where key``). A good response names the place, says both polite words, and
    stops (``bed gladly thanks``); people who demonstrate it are wordy, and sometimes wrong
    (``well the key is in the bed thanks``).

    ## Action space
    ``Discrete(18)``: the next token: ``<pad>`` (which says nothing), ``<eos>``, four things, four
    places, two polite words, six others.

    ## Observation space
    ``MultiDiscrete`` of 6 + 10 + 1 integers (int64): the prompt; the response so far, padded on the
    right; and its tokens, 0 to 10.

    ## True reward
    r = 0.6 · correctness + 0.4 · politeness − 0.03 · length, where ``info["factors"]`` are

    * ``correctness``: 1 for the right place, if it is the first place that is named;
    * ``politeness``: ½ for each of the two polite words, when it is said for the first time;
    * ``length``: 1 for every token but the end.

    The best response earns 0.91, the worst −0.3.

    ## Start
    A prompt drawn uniformly; ``info["context_id"]`` is its number.

    ## End
    Terminates with ``<eos>``; truncated after 10 tokens.

    ## What a rater may prefer that the reward does not say
    An order instead of a sum: one who wants right answers first, polite ones among these, and short
    ones last, never trades a right answer for two polite words. Whether the words make a sentence
    counts nothing here, and readers may want one.

    ## Arguments
    ``prompts``: how many (64 by default, at most 288). ``seed``: which ones (0 by default).
    ``weights``: of the three factors, where they differ from the above. ``captions``: whether
    ``info["caption"]`` tells the phrase that a token finished. Things, places and polite words are
    phrases; the six other words only lead up to one.

    ## Version history
    * v0: first version.
    """

    def __init__(
        self,
        prompts: int = 64,
        seed: int = 0,
        weights: Mapping[str, float] | None = None,
        render_mode: str | None = None,
        captions: bool = False,
    ) -> None:
        super().__init__(task(prompts, seed, weights), render_mode, captions=captions)


def raw(**kwargs: Any) -> TextPoliteEnv:
    """One environment with its true reward; arguments as :class:`TextPoliteEnv`."""
    return TextPoliteEnv(**kwargs)


def raw_vector(
    num_envs: int,
    prompts: int = 64,
    seed: int = 0,
    weights: Mapping[str, float] | None = None,
    **kwargs: Any,
) -> TextVectorEnv:
    """The batched form; other arguments as :class:`TextVectorEnv`."""
    return TextVectorEnv(task(prompts, seed, weights), num_envs, **kwargs)


def task(prompts: int = 64, seed: int = 0, weights: Mapping[str, float] | None = None) -> TextTask:
    """Prompts and rules."""
    unknown = sorted(set(weights or {}) - set(WEIGHTS))
    if unknown:
        raise ValueError(f"There is no factor {unknown[0]!r}; weigh some of {', '.join(WEIGHTS)}.")

    def question(rng: np.random.Generator) -> list[str]:
        one, other = rng.choice(THINGS, size=2, replace=False).tolist()
        here, there = rng.choice(PLACES, size=2, replace=False).tolist()
        asked = (one, other)[rng.integers(2)]
        return [one, here, other, there, "where", asked]

    pairs = len(THINGS) * (len(THINGS) - 1) * len(PLACES) * (len(PLACES) - 1)
    drawn = distinct_prompts(question, prompts, 2 * pairs, seed)
    codec = Vocabulary.of(*THINGS, *PLACES, *POLITE, *OTHERS)
    layout = Layout(codec, 6, RESPONSE_TOKENS)
    right = [words[1] if words[5] == words[0] else words[3] for words in drawn]
    rules = _Rules(codec)
    return TextTask(
        layout=layout,
        prompts=layout.prompts([codec.encode(" ".join(one)) for one in drawn]),
        start=np.array([PLACES.index(place) for place in right]) * _Rules.STATES_PER_PLACE,
        next_state=rules.next_state,
        factors=rules.factors,
        weights={**WEIGHTS, **(weights or {})},
        examples=example_tokens(layout, [_texts(one) for one in drawn]),
        noise=NOISE,
        captions=phrases(codec, *THINGS, *PLACES, *POLITE),
    )


class _Rules:
    """A state is the right place, whether a place was named, and which polite words were said."""

    STATES_PER_PLACE = 2 * 2 ** len(POLITE)

    def __init__(self, codec: Vocabulary) -> None:
        bits = np.indices((len(PLACES), 2, *([2] * len(POLITE)))).reshape(2 + len(POLITE), -1)
        place, named, said = bits[0], bits[1], bits[2:]
        count = (len(place), codec.size)
        polite, correct, length = np.zeros(count), np.zeros(count), np.ones(count)
        length[:, codec.eos] = 0.0
        step = np.repeat(np.arange(len(place))[:, None], codec.size, axis=1)
        for number, word in enumerate(PLACES):
            token = codec.tokens[word]
            correct[:, token] = (place == number) & (named == 0)
            step[named == 0, token] += 2 ** len(POLITE)
        for number, word in enumerate(POLITE):
            token, fresh = codec.tokens[word], said[number] == 0
            polite[:, token] = fresh / len(POLITE)
            step[fresh, token] += 2 ** (len(POLITE) - 1 - number)
        self.next_state = step.astype(np.int32)
        self.factors = {"correctness": correct, "politeness": polite, "length": length}


def _texts(words: tuple[str, ...]) -> list[str]:
    """What demonstrators answer to one question."""
    one, here, _, there, _, asked = words
    right, wrong = (here, there) if asked == one else (there, here)
    return [form.format(thing=asked, right=right, wrong=wrong) for form in TEMPLATES]
