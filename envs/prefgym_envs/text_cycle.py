"""Offers that no reward can rank, because preferences among them go round in a circle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from prefgym.text import Layout, Vocabulary
from prefgym_envs.condorcet import Game
from prefgym_envs.text_env import TextEnv, TextVectorEnv
from prefgym_envs.text_tasks import TextTask, distinct_prompts, example_tokens

DRINKS = ("tea", "coffee", "juice", "water", "cocoa", "milk", "soda", "cider")
TIMES = ("morning", "noon", "evening")
GUESTS = ("guest", "friend", "child")
RESPONSE_TOKENS = 2


class TextCycleEnv(TextEnv):
    """Offer a drink to guests whose tastes go round in a circle.

    ## Description
    The prompt is an occasion (``morning guest ?``), the response a drink, and then the end. It is
    the game of :class:`prefgym_envs.condorcet.CondorcetEnv` in words: a mixed population prefers
    tea to coffee, coffee to juice, and juice to tea, each with a probability above ½, whatever the
    occasion. A response that begins with no drink loses to all that do. The answer is the minimax
    winner, a mixture of drinks to which none is preferred by more than half.

    ## Action space
    ``Discrete(9 + n)``: the next token: ``<pad>`` (which says nothing), ``<eos>``, three times of
    the day, three guests, a question mark, and n drinks, one for each population (3 by default), or
    for each row of ``preference_matrix``.

    ## Observation space
    ``MultiDiscrete`` of 3 + 2 + 1 integers (int64): the prompt; the response so far, padded on the
    right; and its tokens, 0 to 2.

    ## True reward
    For the first token, if it is a drink: r(i) = (1/n) Σ_j P(i ≻ j), the chance that it is
    preferred to a drink drawn uniformly (itself included, where P = ½), in [0, 1]; else 0. The
    second token earns nothing. ``info["factors"]`` holds the same chance within every population,
    ``population_0``, ``population_1``, ...; the reward is their mean with the weights.

    ## Start
    A prompt drawn uniformly; ``info["context_id"]`` is its number.

    ## End
    Terminates with ``<eos>``; truncated after 2 tokens.

    ## What a rater may prefer that the reward does not say
    Everything that matters here: the default rater (``"game"``) answers by ``preference``, which
    goes round in a circle, and the exact solution ``minimax_winner`` differs from the best reward.

    ## Arguments
    ``prompts``: how many (4 by default, at most 9). ``seed``: which ones (0 by default).
    ``weights`` and ``preference_matrix``: as :class:`~prefgym_envs.condorcet.CondorcetEnv`.

    ## Source
    Swamy et al. (2024), A minimaximalist approach to RLHF, arXiv:2401.04056.

    ## Version history
    * v0: first version.
    """

    def __init__(
        self,
        prompts: int = 4,
        seed: int = 0,
        weights: Sequence[float] | np.ndarray | None = None,
        preference_matrix: Sequence[Sequence[float]] | np.ndarray | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.menu = Menu(weights, preference_matrix)
        super().__init__(self.menu.task(prompts, seed), render_mode)

    @property
    def preference_matrix(self) -> Float[np.ndarray, " tokens tokens"]:
        """P(i ≻ j) of responses that begin with tokens i and j."""
        return self.menu.preference_matrix

    @property
    def minimax_winner(self) -> Float[np.ndarray, " tokens"]:
        """The mixture of first tokens to which none is preferred by more than half."""
        return self.menu.minimax_winner

    def preference(
        self, first: Int[np.ndarray, " batch"], second: Int[np.ndarray, " batch"]
    ) -> Float[np.ndarray, " batch"]:
        """P(first ≻ second) of pairs of first tokens."""
        return self.menu.preference(first, second)


class TextCycleVectorEnv(TextVectorEnv):
    """The batched form of :class:`TextCycleEnv`; other arguments as :class:`TextVectorEnv`."""

    def __init__(
        self,
        num_envs: int,
        prompts: int = 4,
        seed: int = 0,
        weights: Sequence[float] | np.ndarray | None = None,
        preference_matrix: Sequence[Sequence[float]] | np.ndarray | None = None,
        **kwargs: Any,
    ) -> None:
        self.menu = Menu(weights, preference_matrix)
        super().__init__(self.menu.task(prompts, seed), num_envs, **kwargs)

    @property
    def preference_matrix(self) -> Float[np.ndarray, " tokens tokens"]:
        """P(i ≻ j) of responses that begin with tokens i and j."""
        return self.menu.preference_matrix

    @property
    def minimax_winner(self) -> Float[np.ndarray, " tokens"]:
        """The mixture of first tokens to which none is preferred by more than half."""
        return self.menu.minimax_winner

    def preference(
        self, first: Int[np.ndarray, " batch"], second: Int[np.ndarray, " batch"]
    ) -> Float[np.ndarray, " batch"]:
        """P(first ≻ second) of pairs of first tokens."""
        return self.menu.preference(first, second)


class Menu:
    """The game in words: a vocabulary, and preferences among all of its tokens.

    Args:
        weights: as :class:`prefgym_envs.condorcet.Game`.
        preference_matrix: as :class:`prefgym_envs.condorcet.Game`.

    Raises:
        ValueError: they make no game, or one of more drinks than there are.
    """

    def __init__(
        self,
        weights: Sequence[float] | np.ndarray | None = None,
        preference_matrix: Sequence[Sequence[float]] | np.ndarray | None = None,
    ) -> None:
        self.game = Game(weights, preference_matrix)
        count = len(self.game.preference_matrix)
        if count > len(DRINKS):
            raise ValueError(f"There are {len(DRINKS)} drinks, too few for {count} options.")
        self.codec = Vocabulary.of(*TIMES, *GUESTS, "?", *DRINKS[:count])
        self.drinks = self.codec.size - count + np.arange(count)
        """The tokens of the drinks."""
        self.preference_matrix: np.ndarray = self._among_tokens(self.game.preference_matrix)

    @property
    def minimax_winner(self) -> Float[np.ndarray, " tokens"]:
        """The mixture of first tokens to which none is preferred by more than half."""
        mixture = np.zeros(self.codec.size)
        mixture[self.drinks] = self.game.minimax_winner
        return mixture

    def preference(
        self, first: Int[np.ndarray, " batch"], second: Int[np.ndarray, " batch"]
    ) -> Float[np.ndarray, " batch"]:
        """P(first ≻ second) of pairs of first tokens.

        Raises:
            ValueError: a token does not exist.
        """
        layout = Layout(self.codec, 3, RESPONSE_TOKENS)
        for side in (first, second):
            layout.check_tokens(side)
        chances: np.ndarray = self.preference_matrix[first, second]
        return chances

    def task(self, prompts: int = 4, seed: int = 0) -> TextTask:
        """Prompts and rules: state 0 chooses, state 1 does not matter any more."""

        def occasion(rng: np.random.Generator) -> list[str]:
            return [str(rng.choice(TIMES)), str(rng.choice(GUESTS)), "?"]

        drawn = distinct_prompts(occasion, prompts, len(TIMES) * len(GUESTS), seed)
        layout = Layout(self.codec, 3, RESPONSE_TOKENS)
        factors = {}
        for number, population in enumerate(self.game.populations):
            factors[f"population_{number}"] = np.zeros((2, self.codec.size))
            factors[f"population_{number}"][0, self.drinks] = population.mean(1)
        drinks = [self.codec.words[token] for token in self.drinks]
        return TextTask(
            layout=layout,
            prompts=layout.prompts([self.codec.encode(" ".join(one)) for one in drawn]),
            start=np.zeros(len(drawn), np.int64),
            next_state=np.ones((2, self.codec.size), np.int32),
            factors=factors,
            weights=dict(zip(factors, self.game.weights.tolist(), strict=True)),
            examples=example_tokens(layout, [drinks] * len(drawn)),
        )

    def _among_tokens(
        self, among_drinks: Float[np.ndarray, " drinks drinks"]
    ) -> Float[np.ndarray, " tokens tokens"]:
        """The drinks' own matrix; all other tokens lose to drinks and tie with each other."""
        drink = np.isin(np.arange(self.codec.size), self.drinks).astype(np.float64)
        matrix: np.ndarray = 0.5 + 0.5 * (drink[:, None] - drink)
        matrix[np.ix_(self.drinks, self.drinks)] = among_drinks
        return matrix


def raw(**kwargs: Any) -> TextCycleEnv:
    """One environment with its true reward; arguments as :class:`TextCycleEnv`."""
    return TextCycleEnv(**kwargs)


def raw_vector(num_envs: int, **kwargs: Any) -> TextCycleVectorEnv:
    """The batched form; arguments as :class:`TextCycleVectorEnv`."""
    return TextCycleVectorEnv(num_envs, **kwargs)
