"""How well a fitted model knows its raters: of pairs that it has not seen."""

import numpy as np
from jaxtyping import Float, Int

from prefgym.metrics import (
    accuracy,
    expected_calibration_error,
    exploitability,
    minimax_winner,
    strength_slope,
)
from prefgym.segments import Segments
from prefgym_agents.bench.clock import tensors
from prefgym_agents.bench.data import Answered, Played
from prefgym_agents.bench.fitting import Fitted
from prefgym_agents.bench.suite import Size

CERTAIN = 0.01
"""How strong a preference is can be told from answers only where both are given now and then."""


def knowledge(fitted: Fitted, answered: Answered) -> dict[str, float]:
    """Scores of the test pairs, each asked of whoever answered it.

    ``accuracy``: share on whose more probable side the model stands. ``calibration_error``: of its
    probabilities, against the exact ones. ``strength_slope``: of its log-odds on the exact ones,
    where these are finite; NaN where none are. ``worst_group_accuracy``: of the group of raters
    that it knows worst.

    Raises:
        ValueError: a group has no comparison to be scored on.
    """
    test = answered.test
    chance = fitted.chances(test.a, test.b, test.rater_id)
    with tensors():
        exact = answered.chance
        uncertain = (exact > CERTAIN) & (exact < 1.0 - CERTAIN) & (exact != 0.5)
        slope = float("nan")
        if answered.exact and uncertain.any():
            slope = strength_slope(log_odds(chance[uncertain]), log_odds(exact[uncertain]))
        groups = answered.group_of[test.rater_id]
        each = group_accuracies(chance - 0.5, exact, groups, answered.groups)
        return {
            "accuracy": accuracy(chance - 0.5, exact),
            "calibration_error": expected_calibration_error(chance, exact),
            "strength_slope": slope,
            "worst_group_accuracy": float(np.nanmin(each)) if np.isfinite(each).any() else np.nan,
        }


def group_accuracies(
    logits: Float[np.ndarray, " pairs"],
    labels: Float[np.ndarray, " pairs"],
    group: Int[np.ndarray, " pairs"],
    groups: int,
) -> Float[np.ndarray, " groups"]:
    """:func:`prefgym.metrics.accuracy` of each group's own comparisons.

    Raises:
        ValueError: a group has none.
    """
    count = np.bincount(group, minlength=groups)
    if not count.all():
        raise ValueError(
            f"Group {int(np.argmin(count))} of {groups} has none of the {len(group)} comparisons,"
            " so it cannot be said how well its raters are known; ask more pairs, or give it a"
            " larger share of the answers."
        )
    return np.array([accuracy(logits[group == one], labels[group == one]) for one in range(groups)])


def log_odds(chance: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """Of probabilities, finite at 0 and 1."""
    held = np.clip(chance, 1e-9, 1.0 - 1e-9)
    odds: np.ndarray = np.log(held) - np.log1p(-held)
    return odds


def choice_exploitability(fitted: Fitted, played: Played, answered: Answered, size: Size) -> float:
    """How often the best answer is preferred to the choice that the model leads to, less ½.

    The choice is among a few test segments that may be compared: the minimax winner of the
    preferences between them that the model expects, which is the best segment where there is one,
    and a mixture where preferences cycle. What beats it is measured in the exact preferences. Of a
    population every group is asked for itself, as far as the model can tell it from others; the
    mean over groups by their shares, and over several sets of options. NaN where a rater does not
    know its probabilities.

    Source of the measure: Swamy et al. (2024), sec. 2, arXiv:2401.04056.
    """
    if not answered.exact:
        return float("nan")
    pools = option_pools(played, size)
    first, second = np.triu_indices(size.options, 1)
    a, b = (Segments.concatenate([pool.take(side) for pool in pools]) for side in (first, second))
    each = [
        _exploited(fitted, answered, group, (a, b), size.options)
        for group in range(answered.groups)
    ]
    return float(np.array(each) @ answered.shares)


def _exploited(
    fitted: Fitted, answered: Answered, group: int, pairs: tuple[Segments, Segments], options: int
) -> float:
    """The same of one group; the pairs of a set stand behind each other."""
    someone = int(np.flatnonzero(answered.group_of == group)[0])
    with tensors():
        true = answered.members[group].probability(*pairs)
    learned = fitted.chances(*pairs, np.full(len(true), someone))
    known, said = (one.reshape(-1, options * (options - 1) // 2) for one in (true, learned))
    return float(
        np.mean(
            [
                exploitability(_matrix(truth, options), minimax_winner(_matrix(belief, options)))
                for truth, belief in zip(known, said, strict=True)
            ]
        )
    )


def option_pools(played: Played, size: Size) -> list[Segments]:
    """Sets of test segments that may be compared: where text is written, with the same prompt.

    Raises:
        ValueError: there are too few of them.
    """
    every = Segments.concatenate(played.test)
    wanted = size.options
    if played.layout is None:
        rows = [np.arange(len(every))]
    else:
        rows = [np.flatnonzero(every.context_id == one) for one in np.unique(every.context_id)]
    parts = [some[begin : begin + wanted] for some in rows for begin in range(0, len(some), wanted)]
    whole = [part for part in parts if len(part) == wanted]
    if not whole:
        raise ValueError(
            f"No {wanted} test segments may be compared with each other; ask more test pairs, or"
            " choose fewer options."
        )
    spread = np.linspace(0, len(whole) - 1, min(size.pools, len(whole))).astype(int)
    return [every.take(whole[one]) for one in spread]


def _matrix(
    chances: Float[np.ndarray, " pairs"], options: int
) -> Float[np.ndarray, " options options"]:
    """P(i ≻ j) of all pairs of options, from those with i < j."""
    matrix = np.full((options, options), 0.5)
    first, second = np.triu_indices(options, 1)
    matrix[first, second], matrix[second, first] = chances, 1.0 - chances
    return matrix
