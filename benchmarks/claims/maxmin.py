"""Groups are found, and nobody is left behind: hard clusters of raters, and max_π min_u J_u(π).

Source: Chakraborty et al. (2024), "MaxMin-RLHF: alignment with diverse human preferences",
arXiv:2402.08925.

*Model.* Four people of five want the point (see ``point_mass.py``) in one corner, one of five in
the opposite one. Clusters are fitted by hard EM; 1000 new people are put into the cluster that
makes 16 of their answers likeliest. The pooled model takes the side of the majority.

*Policy.* On ``prefgym/Delivery-v0``, see ``maxmin_gridworld.py``: again four people of five want
one corner and one of five the opposite one. Group rewards are learned from answers that the
environment gives, and planned with: the mixture of policies whose worse-off group has the largest
return. What counts is in how many fresh episodes either group gets what it wants, and the true
return. The pooled reward leads towards the corner of the majority.

*Bandit.* Three arms worth (1, 0), (0, 1) and (.55, .55) to the two groups, β = 0.1, known rewards:
the saddle point by exponentiated gradients (:func:`prefgym.rewards.group_weights` of what the
groups have got so far) against the policy for the mean of all answers.

Control: all people want the same corner. Then both policies go there, and nobody gains. Random
moves are a success for nobody.
"""

from math import inf

import numpy as np
import torch

from benchmarks.claims.claim import ClaimResult, Row
from benchmarks.claims.maxmin_gridworld import (
    Outcome,
    answers_on_board,
    clusters,
    fairest,
    learned,
    outcome,
    successes,
    true_rewards,
)
from benchmarks.claims.point_mass import (
    ASKED_OF_NEW,
    CORNERS,
    EACH,
    NEW_PEOPLE,
    PEOPLE,
    answers,
    fitted,
    right,
    two_groups,
)
from prefgym.rewards import group_weights

KEY = "maxmin"
CLAIM = (
    "One reward is far from what a minority wants; clusters of raters with the best policy for "
    "the worst-off of them serve the minority too."
)
MINORITY, EPOCHS, QUICK_EPOCHS = 0.2, 30, 15
ARMS, TEMPERATURE = np.array([[1.0, 0.0, 0.55], [0.0, 1.0, 0.55]]), 0.1


def run(seed: int, quick: bool) -> ClaimResult:
    """The model on the point mass, the policies on the gridworld and of the bandit."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    found, clustered, minority = of_point_mass(rng, QUICK_EPOCHS if quick else EPOCHS)
    fair, pooled = on_board(rng, True)
    alike, alike_pooled = on_board(rng, False)
    best, chance = outcome(fairest(true_rewards()), rng), successes(None, rng).mean(0)
    weighed, heard = bandit()
    reached = fair.worth.min() / best.worth.min()
    gained = fair.worth.min() - pooled.worth.min()
    rows = [
        Row("people in the right cluster", found, ">=", 0.98),
        Row("worst group's accuracy, new people", clustered, ">=", 0.95),
        Row("pooled: accuracy of the minority", minority, "<=", 0.35),
        Row("Delivery: success of the worse-off, max-min", fair.success.min(), ">=", 0.5),
        Row("Delivery: success of the worse-off, pooled", pooled.success.min(), "<=", 0.05),
        Row("Delivery: return of the worse-off over the best possible", reached, ">=", 0.8),
        Row("Delivery: the same, gained over pooled", gained, ">=", 0.1),
        Row("bandit: gap between the groups, max-min", abs(weighed[0] - weighed[1]), "<=", 0.02),
    ]
    apart = abs(alike.worth[0] - alike_pooled.worth[0])
    controls = [
        Row("one taste: success of max-min", alike.success[0], ">=", 0.99),
        Row("one taste: success of pooled", alike_pooled.success[0], ">=", 0.99),
        Row("one taste: return, max-min and pooled apart", apart, "<=", 0.05),
        Row("random moves: success of the better-off", chance.max(), "<=", 0.05),
    ]
    figures = {
        "worst_group": clustered,
        "pooled_minority": minority,
        **of_groups("delivery_success_maxmin", fair.success),
        **of_groups("delivery_success_pooled", pooled.success),
        **of_groups("delivery_return_maxmin", fair.worth),
        **of_groups("delivery_return_pooled", pooled.worth),
        "delivery_both_maxmin": fair.both,
        **of_groups("bandit_maxmin", weighed),
        **of_groups("bandit_pooled", heard),
    }
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


def of_groups(name: str, measured: np.ndarray) -> dict[str, float]:
    """One figure for each group."""
    return {f"{name}_{number}": float(one) for number, one in enumerate(measured)}


# --- the model --------------------------------------------------------------------------------


def of_point_mass(rng: np.random.Generator, epochs: int) -> tuple[float, float, float]:
    """Accuracy of the clusters, of the worst group's predictions, of the pooled minority's."""
    group, new = two_groups(rng, PEOPLE, MINORITY), two_groups(rng, NEW_PEOPLE, MINORITY)
    answered = answers(rng, CORNERS[group], EACH)
    model = fitted("maxmin", answered, rng, epochs=epochs)
    same = (clusters(model) == group).mean()
    voices = model.infer(answers(rng, CORNERS[new], EACH))
    test = answers(rng, CORNERS[new], ASKED_OF_NEW, inf)
    of = new[test.rater_id]
    known, pooled = right(model, test, voices), right(fitted("bt", answered, rng), test)
    worst = min(float(known[of == number].mean()) for number in (0, 1))
    return float(max(same, 1.0 - same)), worst, float(pooled[of == 1].mean())


# --- the gridworld ----------------------------------------------------------------------------


def on_board(rng: np.random.Generator, minority: bool) -> tuple[Outcome, Outcome]:
    """What learned rewards lead to, with a minority or without: max-min, and pooled."""
    answered = answers_on_board(rng, minority)
    fair, pooled = (outcome(fairest(learned(one, answered, rng)), rng) for one in ("maxmin", "bt"))
    return fair, pooled


# --- the bandit -------------------------------------------------------------------------------


def bandit() -> tuple[np.ndarray, np.ndarray]:
    """What the groups get from the max-min policy, and from that for the mean answer."""
    got = torch.zeros(2, dtype=torch.float64)
    for _ in range(2000):
        weights = group_weights(got, temperature=20.0).numpy()
        got += torch.as_tensor(ARMS @ tilted(weights))
    return ARMS @ tilted(weights), ARMS @ tilted(np.array([1.0 - MINORITY, MINORITY]))


def tilted(weights: np.ndarray) -> np.ndarray:
    """The best policy for that mean of the groups' rewards at divergence cost β, in closed form."""
    chance = np.exp(weights @ ARMS / TEMPERATURE)
    policy: np.ndarray = chance / chance.sum()
    return policy
