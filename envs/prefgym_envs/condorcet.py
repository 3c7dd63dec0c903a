"""Condorcet bandits: options that no reward can rank, because preferences go round in a circle."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float, Int

from prefgym.metrics import minimax_winner
from prefgym_envs.tabular import TabularEnv
from prefgym_envs.tabular_mdps import TabularMDPs
from prefgym_envs.tabular_tasks import TabularTask, checked_actions
from prefgym_envs.tabular_vector import TabularVectorEnv

WEIGHTS = (0.45, 0.35, 0.2)
"""Shares of the populations by default: the minimax winner is then (0.6, 0.1, 0.3)."""


class CondorcetEnv(TabularEnv):
    """Choose one of a few options about which a mixed population disagrees in circles.

    ## Description
    A one-step game. Every population ranks all options, population k in the order k, k+1, ..., n−1,
    0, ..., k−1; a stranger drawn from the mix prefers option i to option j with probability
    P(i ≻ j) = Σ_k weight_k · [population k ranks i before j]. If every weight is below ½, three
    populations give a circle (0 beats 1 beats 2 beats 0): no option beats all others, and no reward
    can say so. The answer is the minimax winner, a mixture of options to which none is preferred
    by more than half. Under the default weights (.45, .35, .2) it is (.6, .1, .3), while the
    option with the best win rate against random options, and so the best true reward, is 1.

    ## Action space
    ``Discrete(n)``: the option, n being the number of populations (3 by default), or of rows of
    ``preference_matrix``.

    ## Observation space
    ``Discrete(1)``: always 0.

    ## True reward
    r(i) = (1/n) Σ_j P(i ≻ j): the chance that option i is preferred to an option drawn uniformly
    (i itself included, where P = ½), in [0, 1]. ``info["factors"]`` holds the same chance within
    every population, ``population_0``, ``population_1``, ...; the reward is their mean with the
    weights.

    ## Start
    Always the same. ``info["context_id"]`` is 0.

    ## End
    Terminates after one step.

    ## What a rater may prefer that the reward does not say
    Everything that matters here: the pairwise preferences ``preference_matrix`` go round in a
    circle, and their exact solution ``minimax_winner`` differs from the best reward.

    ## Arguments
    ``weights``: shares of the populations, adding up to 1. ``preference_matrix``: instead of
    weights, any matrix with P(i ≻ j) + P(j ≻ i) = 1, as one population.

    ## Source
    Swamy et al. (2024), A minimaximalist approach to RLHF, arXiv:2401.04056 (three populations
    in different proportions).

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": []}

    def __init__(
        self,
        weights: Sequence[float] | np.ndarray | None = None,
        preference_matrix: Sequence[Sequence[float]] | np.ndarray | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.game = Game(weights, preference_matrix)
        super().__init__(self.game.task, render_mode)

    @property
    def preference_matrix(self) -> Float[np.ndarray, " options options"]:
        """P(i ≻ j), the truth about every pair of options."""
        return self.game.preference_matrix

    @property
    def minimax_winner(self) -> Float[np.ndarray, " options"]:
        """The mixture of options to which none is preferred by more than half."""
        return self.game.minimax_winner

    def preference(
        self, first: Int[np.ndarray, " batch"], second: Int[np.ndarray, " batch"]
    ) -> Float[np.ndarray, " batch"]:
        """P(first ≻ second) of pairs of options."""
        return self.game.preference(first, second)


class CondorcetVectorEnv(TabularVectorEnv):
    """The batched form of :class:`CondorcetEnv`.

    Args:
        num_envs: lanes.
        weights: as :class:`CondorcetEnv`.
        preference_matrix: as :class:`CondorcetEnv`.
        **kwargs: as :class:`TabularVectorEnv`.
    """

    def __init__(
        self,
        num_envs: int,
        weights: Sequence[float] | np.ndarray | None = None,
        preference_matrix: Sequence[Sequence[float]] | np.ndarray | None = None,
        **kwargs: Any,
    ) -> None:
        self.game = Game(weights, preference_matrix)
        super().__init__(self.game.task, num_envs, **kwargs)

    @property
    def preference_matrix(self) -> Float[np.ndarray, " options options"]:
        """P(i ≻ j), the truth about every pair of options."""
        return self.game.preference_matrix

    @property
    def minimax_winner(self) -> Float[np.ndarray, " options"]:
        """The mixture of options to which none is preferred by more than half."""
        return self.game.minimax_winner

    def preference(
        self, first: Int[np.ndarray, " batch"], second: Int[np.ndarray, " batch"]
    ) -> Float[np.ndarray, " batch"]:
        """P(first ≻ second) of pairs of options."""
        return self.game.preference(first, second)


class Game:
    """A preference matrix, made of populations, as a task and with its solution.

    Args:
        weights: shares of the populations of a cyclic mix; None for :data:`WEIGHTS`.
        preference_matrix: a matrix of one's own instead.

    Raises:
        ValueError: both were given, or one of them is not what it should be.
    """

    def __init__(
        self,
        weights: Sequence[float] | np.ndarray | None = None,
        preference_matrix: Sequence[Sequence[float]] | np.ndarray | None = None,
    ) -> None:
        if weights is not None and preference_matrix is not None:
            raise ValueError("Give weights or a preference_matrix, not both.")
        if preference_matrix is None:
            self.weights = _checked_weights(WEIGHTS if weights is None else weights)
            self.populations = _cyclic_rankings(len(self.weights))
        else:
            self.weights = np.ones(1)
            self.populations = _checked_matrix(preference_matrix)[None]
        self.preference_matrix: np.ndarray = np.einsum("k,kij->ij", self.weights, self.populations)

    @cached_property
    def minimax_winner(self) -> Float[np.ndarray, " options"]:
        """The mixture of options to which none is preferred by more than half; exact."""
        return minimax_winner(self.preference_matrix)

    @cached_property
    def task(self) -> TabularTask:
        """The game as a task of one step: state 0 is the choice, state 1 the end."""
        options = len(self.preference_matrix)
        features = np.zeros((1, 2, options, 1, len(self.weights)))
        features[0, 0, :, 0] = self.populations.mean(2).T
        mdps = TabularMDPs(
            next_state=np.ones((1, 2, options, 1), np.int64),
            probability=np.ones((1, 2, options, 1)),
            features=features,
            weights=self.weights[None],
            start=np.array([[1.0, 0.0]]),
        )
        return TabularTask(
            mdps=mdps,
            absorbing=np.array([False, True]),
            observations=np.zeros(2, np.int64),
            observation_space=gym.spaces.Discrete(1),
            place_values=(1,),
            factor_names=tuple(f"population_{k}" for k in range(len(self.weights))),
        )

    def preference(
        self, first: Int[np.ndarray, " batch"], second: Int[np.ndarray, " batch"]
    ) -> Float[np.ndarray, " batch"]:
        """P(first ≻ second) of pairs of options.

        Raises:
            ValueError: an option does not exist, or the numbers of options differ.
        """
        options = len(self.preference_matrix)
        chosen = [checked_actions(side, options, len(first)) for side in (first, second)]
        chances: np.ndarray = self.preference_matrix[chosen[0], chosen[1]]
        return chances


def raw(**kwargs: Any) -> CondorcetEnv:
    """One environment with its true reward; arguments as :class:`CondorcetEnv`."""
    return CondorcetEnv(**kwargs)


def raw_vector(num_envs: int, **kwargs: Any) -> CondorcetVectorEnv:
    """The batched form; arguments as :class:`CondorcetVectorEnv`."""
    return CondorcetVectorEnv(num_envs, **kwargs)


def _cyclic_rankings(
    options: int,
) -> Float[np.ndarray, " options options options"]:
    """Preference matrix of each population: population k ranks k, k + 1, ..., k − 1."""
    option = np.arange(options)
    place = (option - option[:, None]) % options
    before = place[:, :, None] < place[:, None, :]
    return before + 0.5 * np.eye(options)


def _checked_weights(weights: Sequence[float] | np.ndarray) -> Float[np.ndarray, " populations"]:
    try:
        given = np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"weights is {weights!r}; give one number per population.") from error
    if given.ndim != 1 or len(given) < 2 or not (given >= 0).all():
        raise ValueError(
            f"weights is {weights!r}; give at least two shares, none of them negative or NaN."
        )
    if abs(given.sum() - 1.0) > 1e-9:
        raise ValueError(
            f"weights add up to {given.sum():.6g} instead of 1; divide each of them by that sum."
        )
    return given


def _checked_matrix(
    matrix: Sequence[Sequence[float]] | np.ndarray,
) -> Float[np.ndarray, " options options"]:
    try:
        given = np.asarray(matrix, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError("preference_matrix needs numbers, as many in each row as rows.") from error
    if given.ndim != 2 or len(given) < 2 or given.shape[0] != given.shape[1]:
        raise ValueError(
            f"preference_matrix has shape {given.shape}; give one row and one column per option, "
            "at least two."
        )
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError("preference_matrix must hold probabilities from 0 to 1, without NaN.")
    excess = np.abs(given + given.T - 1.0)
    if excess.max() > 1e-9:
        i, j = np.unravel_index(int(excess.argmax()), excess.shape)
        raise ValueError(
            f"preference_matrix[{i}, {j}] + preference_matrix[{j}, {i}] is "
            f"{given[i, j] + given[j, i]:.6g}, but P(i ≻ j) + P(j ≻ i) must be 1 for every pair "
            "(so ½ on the diagonal)."
        )
    return given
