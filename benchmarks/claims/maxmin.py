"""Groups are found, and nobody is left behind: hard clusters of raters, and max_π min_u J_u(π).

Source: Chakraborty et al. (2024), "MaxMin-RLHF: alignment with diverse human preferences",
arXiv:2402.08925.

*Model.* Four people of five want the point (see ``point_mass.py``) in one corner, one of five in
the opposite one. Clusters are fitted by hard EM; 1000 new people are put into the cluster that
makes 16 of their answers likeliest. The pooled model takes the side of the majority.

*Policy.* A board of 7 × 7 cells; again four people of five want one corner and one of five the
opposite one, by minus the squared distance. Group rewards are learned from comparisons of random
walks, and planned with exactly, by successor features: the best policy of every weighing of the
two, and of these the mixture whose worse-off group is best off, by learned return between random
walks (0) and what would be best for it (1). The way begins in a third corner. A group *succeeds*
where it ends five cells or less from its goal; near the middle both do, and in the start none. The
pooled reward leads to the corner of the majority.

*Bandit.* Three arms worth (1, 0), (0, 1) and (.55, .55) to the two groups, β = 0.1, known rewards:
the saddle point by exponentiated gradients (:func:`prefgym.rewards.group_weights` of what the
groups have got so far) against the policy for the mean of all answers.

Control: all people want the same corner. Then both policies go there, and nobody gains.
"""

from math import inf
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces

from benchmarks.claims.claim import ClaimResult, Row
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
from prefgym.comparisons import Comparisons
from prefgym.models.fit import adam, fit
from prefgym.models.populations import HardClusters, PopulationHead
from prefgym.models.presets import model_head
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.raters.scores import partial_return
from prefgym.raters.scripted import ScriptedRater
from prefgym.rewards import group_weights
from prefgym.segments import Segments
from prefgym_envs.planning import returns, solve_with_features, uniform
from prefgym_envs.tabular_mdps import TabularMDPs

KEY = "maxmin"
CLAIM = (
    "One reward is far from what a minority wants; clusters of raters with the best policy for "
    "the worst-off of them serve the minority too."
)
MINORITY, EPOCHS, QUICK_EPOCHS = 0.2, 30, 15
SIZE, STEPS, DISCOUNT, SURE = 7, 10, 0.95, 2.0
"""Of the board, of a random walk, of planning, and β of those who compare walks."""
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)])
PLACES = np.stack(np.divmod(np.arange(SIZE**2), SIZE), -1)
"""Row and column of every cell."""
GOALS, START, NEAR = np.array([(0, 0), (SIZE - 1, SIZE - 1)]), SIZE - 1, 5.0
WEIGHINGS = 101
ARMS, TEMPERATURE = np.array([[1.0, 0.0, 0.55], [0.0, 1.0, 0.55]]), 0.1
SEEN, DONE = spaces.Box(0.0, SIZE - 1.0, (2,)), spaces.Discrete(len(MOVES))


class Outcome(NamedTuple):
    """What a mixture of policies on the board means for the two groups."""

    success: np.ndarray
    """Chance of each that the way ends near its goal."""
    worth: np.ndarray
    """True return of each, between random walks (0) and its best policy (1)."""


def run(seed: int, quick: bool) -> ClaimResult:
    """The model on the point mass, the policies on the board and of the bandit."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    epochs = QUICK_EPOCHS if quick else EPOCHS
    found, clustered, minority = of_point_mass(rng, epochs)
    fair, pooled = on_board(rng, two_groups(rng, PEOPLE, MINORITY), epochs)
    best = outcome(fairest(true_rewards()), true_rewards())
    alike, alike_pooled = on_board(rng, np.zeros(PEOPLE, np.int64), epochs)
    weighed, heard = bandit()
    rows = [
        Row("people in the right cluster", found, ">=", 0.98),
        Row("worst group's accuracy, new people", clustered, ">=", 0.95),
        Row("pooled: accuracy of the minority", minority, "<=", 0.35),
        Row("board: success of the worse-off, max-min", fair.success.min(), ">=", 0.5),
        Row("board: success of the worse-off, pooled", pooled.success.min(), "<=", 0.05),
        Row(
            "board: worse-off over the best possible",
            fair.worth.min() / best.worth.min(),
            ">=",
            0.5,
        ),
        Row(
            "board: worse-off, gained over pooled", fair.worth.min() - pooled.worth.min(), ">=", 0.2
        ),
        Row("bandit: gap between the groups, max-min", abs(weighed[0] - weighed[1]), "<=", 0.02),
    ]
    gained = abs(alike.worth[0] - alike_pooled.worth[0])
    controls = [
        Row("one taste: max-min and pooled apart", gained, "<=", 0.02),
        Row("one taste: success of max-min", alike.success[0], ">=", 0.99),
    ]
    figures = {
        "worst_group": clustered,
        "pooled_minority": minority,
        **{f"board_maxmin_{u}": float(fair.worth[u]) for u in (0, 1)},
        **{f"board_pooled_{u}": float(pooled.worth[u]) for u in (0, 1)},
        **{f"bandit_maxmin_{u}": float(weighed[u]) for u in (0, 1)},
        **{f"bandit_pooled_{u}": float(heard[u]) for u in (0, 1)},
    }
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


# --- the model --------------------------------------------------------------------------------


def of_point_mass(rng: np.random.Generator, epochs: int) -> tuple[float, float, float]:
    """Accuracy of the clusters, of the worst group's predictions, of the pooled minority's."""
    group, new = two_groups(rng, PEOPLE, MINORITY), two_groups(rng, NEW_PEOPLE, MINORITY)
    answered = answers(rng, CORNERS[group], EACH)
    model = fitted("maxmin", answered, rng, epochs=epochs)
    same = (assignment(model) == group).mean()
    voices = model.infer(answers(rng, CORNERS[new], EACH))
    test = answers(rng, CORNERS[new], ASKED_OF_NEW, inf)
    of = new[test.rater_id]
    known, pooled = right(model, test, voices), right(fitted("bt", answered, rng), test)
    worst = min(float(known[of == number].mean()) for number in (0, 1))
    return float(max(same, 1.0 - same)), worst, float(pooled[of == 1].mean())


def assignment(model: RewardModel) -> np.ndarray:
    """The cluster of every fitted person, as the first member has it."""
    assert isinstance(model.head, PopulationHead)
    assert isinstance(model.head.population, HardClusters)
    clusters: np.ndarray = model.head.population.assignment[0].numpy()
    return clusters


# --- the board --------------------------------------------------------------------------------


def on_board(rng: np.random.Generator, group: np.ndarray, epochs: int) -> tuple[Outcome, Outcome]:
    """What learned rewards lead to for people of these groups: max-min, and pooled."""
    answered = answers_on_board(rng, group)
    outcomes = []
    for name in ("maxmin", "bt"):
        head = model_head(name, raters=len(group))
        model = reward_model(SEEN, DONE, 1, (32, 32), seed=int(rng.integers(2**31)), head=head)
        model.normalise(answered.a)
        fit(model, answered, adam(model, 1e-2), rng, epochs, batch_pairs=256, stop_accuracy=1.0)
        outcomes.append(outcome(fairest(learned_rewards(model)), true_rewards()))
    return outcomes[0], outcomes[1]


def answers_on_board(rng: np.random.Generator, group: np.ndarray) -> Comparisons:
    """What people of these groups say about random walks."""
    who = np.repeat(np.arange(len(group)), EACH)
    a, b = walks(rng, group[who]), walks(rng, group[who])
    label = ScriptedRater(partial_return, "goal", beta=SURE)(a, b, rng).label
    return Comparisons(a, b, label, rater_id=who, meaning="goal")


def walks(rng: np.random.Generator, group: np.ndarray) -> Segments:
    """Random walks from anywhere, each of whose steps is worth what that group finds."""
    many = len(group)
    habit = rng.dirichlet(np.ones(len(MOVES)), many).cumsum(1)
    drawn = rng.random((many, STEPS, 1))
    actions = np.minimum((drawn > habit[:, None]).sum(-1), len(MOVES) - 1)
    cells = np.empty((many, STEPS), np.int64)
    cells[:, 0] = rng.integers(SIZE**2, size=many)
    for step in range(1, STEPS):
        cells[:, step] = ahead()[cells[:, step - 1], actions[:, step - 1]]
    return Segments(
        actions=actions,
        mask=np.ones((many, STEPS), bool),
        context=PLACES[cells[:, 0]].astype(np.float32),
        context_id=np.zeros(many, np.int64),
        observations=PLACES[cells].astype(np.float32),
        rewards=worths()[group[:, None], cells],
    )


def ahead() -> np.ndarray:
    """``[cells, moves]``: where each move leads."""
    there = (PLACES[:, None] + MOVES).clip(0, SIZE - 1)
    cell: np.ndarray = there @ (SIZE, 1)
    return cell


def worths() -> np.ndarray:
    """``[groups, cells]``: what it is worth to be in a cell, from −1 to 0."""
    gap = PLACES - GOALS[:, None]
    worth: np.ndarray = -(gap**2).sum(-1) / (2.0 * (SIZE - 1) ** 2)
    return worth


def true_rewards() -> np.ndarray:
    """``[groups, cells, moves]``."""
    return np.repeat(worths()[..., None], len(MOVES), -1)


def learned_rewards(model: RewardModel) -> np.ndarray:
    """``[clusters, cells, moves]``: one row of rewards for each cluster that has people."""
    cell, move = (index.ravel() for index in np.indices((SIZE**2, len(MOVES))))
    steps = Segments(
        actions=move[:, None],
        mask=np.ones((len(cell), 1), bool),
        context=PLACES[cell].astype(np.float32),
        context_id=np.zeros(len(cell), np.int64),
        observations=PLACES[cell][:, None].astype(np.float32),
    )
    grouped = model.group_rewards(steps)[:, 0].double().numpy()
    first = [0]
    if isinstance(model.head, PopulationHead):
        first = np.unique(assignment(model), return_index=True)[1].tolist()
    return grouped[first].reshape(-1, SIZE**2, len(MOVES))


class Mixture(NamedTuple):
    """Policies, one of which is drawn for every episode."""

    shares: np.ndarray
    policies: np.ndarray
    """``[policies, cells]`` the move in each cell."""


def fairest(rewards: np.ndarray) -> Mixture:
    """The policy of largest least return over the one or two groups, each on its own scale.

    Every vertex of what can be reached is best for some weighing of the groups; of these, no more
    than two need to be mixed.
    """
    weighing = np.linspace(0.0, 1.0, WEIGHINGS) if len(rewards) > 1 else np.ones(1)
    weights = np.stack([weighing, 1.0 - weighing], 1)[:, : len(rewards)]
    known = scaled(rewards)
    world = board(known, weights)
    solution = solve_with_features(world)
    reached = solution.features[:, START]
    policies = solution.q.argmax(-1)
    one, other = (index.ravel() for index in np.indices((len(reached), len(reached))))
    share = np.linspace(0.0, 1.0, WEIGHINGS)[:, None]
    least = np.min([share * each[one] + (1.0 - share) * each[other] for each in reached.T], 0)
    at, pair = np.unravel_index(least.argmax(), least.shape)
    shares = np.array([share[at, 0], 1.0 - share[at, 0]])
    return Mixture(shares, policies[[one[pair], other[pair]]])


def outcome(mixture: Mixture, rewards: np.ndarray) -> Outcome:
    """What it means for the groups whose true rewards these are."""
    world = board(scaled(rewards), np.eye(len(rewards)))
    worth, success = np.zeros(len(rewards)), np.zeros(len(rewards))
    for share, policy in zip(*mixture, strict=True):
        chance = np.eye(len(MOVES))[policy]
        worth += share * returns(world, np.tile(chance, (len(rewards), 1, 1)))
        cell = START
        for _ in range(SIZE**2):
            cell = ahead()[cell, policy[cell]]
        success += share * (np.linalg.norm(PLACES[cell] - GOALS, axis=1) <= NEAR)
    return Outcome(success, worth)


def scaled(rewards: np.ndarray) -> np.ndarray:
    """The same rewards with return 0 of random walks and 1 of the best policy, from the start."""
    world = board(rewards, np.eye(len(rewards)))
    best = np.einsum("ms,ms->m", world.start, solve_with_features(world).v)
    random = returns(world, uniform(world))
    moved = rewards - (1.0 - DISCOUNT) * random[:, None, None]
    known: np.ndarray = moved / (best - random)[:, None, None]
    return known


def board(rewards: np.ndarray, weights: np.ndarray) -> TabularMDPs:
    """One task for every weighing of the groups; the rewards of each group are a feature."""
    shape = (len(weights), SIZE**2, len(MOVES), 1)
    features = np.moveaxis(rewards, 0, -1)[:, :, None]
    return TabularMDPs(
        next_state=np.broadcast_to(ahead()[..., None], shape),
        probability=np.ones(shape),
        features=np.broadcast_to(features, (*shape, len(rewards))),
        weights=weights,
        start=np.tile(np.eye(SIZE**2)[START], (len(weights), 1)),
        discount=DISCOUNT,
    )


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
