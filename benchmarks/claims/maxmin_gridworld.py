"""Two groups on the delivery gridworld, and the policy for the worse off; no claim itself.

The environment is ``prefgym/Delivery-v0`` as everybody gets it by its id; only the raters are ours.
Four people of five want the van in the bottom left corner, one of five in the top right one: a step
is worth 1 in one's own corner and falls with the squared distance, to 0 in the opposite corner. (By
the distance itself, tossing a coin between the two corners would be as good for both as staying
half way.) The corners are 12.7 cells apart. A group *succeeds* in an episode that lasts all 200
steps and ends within :data:`NEAR` cells of its corner.

Rewards are learned from answers that the environment gives about random play. They are planned with
exactly: the best policy for every weighing of the groups by successor features, and of these the
mixture whose worse-off group has the largest return. Answers about equally long segments tell
rewards up to a constant and a scale; every group's is laid between 0 in its worst and 1 in its best
step, so that nobody gains by ending an episode at the flag or a sheep.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

import prefgym  # noqa: F401
from prefgym.comparisons import Comparisons
from prefgym.models.fit import adam, fit
from prefgym.models.populations import HardClusters, PopulationHead
from prefgym.models.presets import model_head
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.raters import Population
from prefgym.raters.scores import StepSum
from prefgym.raters.scripted import ScriptedRater
from prefgym.raters.tastes import GoalDistance
from prefgym.segments import Segments
from prefgym_envs import delivery, planning
from prefgym_envs.tabular_mdps import TabularMDPs

ENV = "prefgym/Delivery-v0"
CORNERS = np.array([(9.0, 0.0), (0.0, 9.0)])
"""Row and column of what either group wants."""
NEAR, FARTHEST = 8.0, 162.0
"""Cells to a corner at the end of a success; the largest squared distance."""
VOTERS, PEOPLE_EACH, EACH = 5, 60, 128
"""Of the voters the last one is the minority; how many people each stands for, and how many pairs a
person is asked about, on average. (With half as many answers the policy for the worse off falls
short on some seeds.)"""
STEPS, SURE = 10, 2.0
"""Of a segment, and β of the answers."""
LANES, PLAY, EPISODES, LIMIT = 50, 600, 400, 200
HIDDEN, RATE, BATCH, EPOCHS = (32, 32), 3e-3, 512, 10
WEIGHINGS = 101


@dataclass(frozen=True)
class Closeness:
    """What a step is worth to somebody: 1 at a corner, 0 in the opposite one."""

    corner: tuple[float, ...]

    def __call__(self, segments: Segments) -> np.ndarray:
        """``[batch, steps]``."""
        worth: np.ndarray = 1.0 - GoalDistance(self.corner)(segments) ** 2 / FARTHEST
        return worth


class Mixture(NamedTuple):
    """Policies, one of which is drawn for every episode."""

    shares: np.ndarray
    policies: np.ndarray
    """``[policies, cells]`` the move in each cell."""


class Outcome(NamedTuple):
    """What a mixture of policies means for the two groups."""

    success: np.ndarray
    """Share of the episodes that are a success for each."""
    both: float
    """Share that are a success for both at once."""
    worth: np.ndarray
    """True return of each, between random moves (0) and its best policy (1); exact."""


def population(minority: bool) -> Population:
    """People of two groups, four of five in the first; or all of them in the first."""
    corners = [0] * (VOTERS - 1) + [int(minority)]
    members = tuple(
        ScriptedRater(
            StepSum(Closeness(tuple(CORNERS[corner].tolist()))),
            f"corner-{corner}",
            beta=SURE,
            rater_id=number,
        )
        for number, corner in enumerate(corners)
    )
    return Population(members, people=PEOPLE_EACH)


def answers_on_board(rng: np.random.Generator, minority: bool) -> Comparisons:
    """What the people say about pairs of random play: each asks somebody at random."""
    env: Any = gym.make_vec(
        ENV,
        num_envs=LANES,
        observation="coordinates",
        rater=population(minority),
        segment_steps=STEPS,
        query_every=None,
    )
    env.reset(seed=int(rng.integers(2**31)))
    env.action_space.seed(int(rng.integers(2**31)))
    for _ in range(PLAY):
        env.step(env.action_space.sample())
    answered: Comparisons = env.compare(*env.sample_pairs(VOTERS * PEOPLE_EACH * EACH, rng))
    env.close()
    return answered


def learned(name: str, answered: Comparisons, rng: np.random.Generator) -> np.ndarray:
    """Rewards ``[groups, cells, moves]`` by a model, a row for each group that has people."""
    env = gym.make(ENV, observation="coordinates", query_every=None)
    model = reward_model(
        env.observation_space,
        env.action_space,
        1,
        HIDDEN,
        seed=int(rng.integers(2**31)),
        head=model_head(name, raters=VOTERS * PEOPLE_EACH),
    )
    model.normalise(answered.a)
    fit(model, answered, adam(model, RATE), rng, EPOCHS, batch_pairs=BATCH, stop_accuracy=1.0)
    grouped = model.group_rewards(every_step())[:, 0].double().numpy()
    found = [0]
    if isinstance(model.head, PopulationHead):
        found = np.unique(clusters(model), return_index=True)[1].tolist()
    mdps = delivery.task().mdps
    return grouped[found].reshape(-1, mdps.states, mdps.actions)


def clusters(model: RewardModel) -> np.ndarray:
    """The cluster of every fitted person, as the first member has it."""
    assert isinstance(model.head, PopulationHead)
    assert isinstance(model.head.population, HardClusters)
    assigned: np.ndarray = model.head.population.assignment[0].numpy()
    return assigned


def every_step() -> Segments:
    """Each move in each cell, as segments of one step."""
    task = delivery.task("coordinates")
    cell, move = (part.ravel() for part in np.indices((task.mdps.states, task.mdps.actions)))
    seen = task.observations[cell]
    return Segments(
        actions=move[:, None],
        mask=np.ones((len(cell), 1), bool),
        context=seen,
        context_id=cell,
        observations=seen[:, None],
    )


def true_rewards() -> np.ndarray:
    """``[groups, cells, moves]``."""
    mdps, steps = delivery.task().mdps, every_step()
    worth = [Closeness(tuple(corner.tolist()))(steps) for corner in CORNERS]
    return np.reshape(worth, (len(CORNERS), mdps.states, mdps.actions))


def fairest(rewards: np.ndarray) -> Mixture:
    """max_π min_u J_u(π) over the one or two groups, each on its own scale.

    Every vertex of what can be reached is best for some weighing of the groups; of these, no more
    than two need to be mixed.
    """
    weighing = np.linspace(0.0, 1.0, WEIGHINGS) if len(rewards) > 1 else np.ones(1)
    weights = np.stack([weighing, 1.0 - weighing], 1)[:, : len(rewards)]
    world = board(rewards, weights)
    solution = planning.solve_with_features(world)
    reached = np.einsum("ms,msg->mg", world.start, solution.features)
    policies = solution.q.argmax(-1)
    one, other = (part.ravel() for part in np.indices((len(reached), len(reached))))
    share = np.linspace(0.0, 1.0, WEIGHINGS)[:, None]
    least = np.min([share * each[one] + (1.0 - share) * each[other] for each in reached.T], 0)
    at, pair = np.unravel_index(least.argmax(), least.shape)
    shares = np.array([share[at, 0], 1.0 - share[at, 0]])
    return Mixture(shares, policies[[one[pair], other[pair]]])


def outcome(mixture: Mixture, rng: np.random.Generator) -> Outcome:
    """What it really means for the two groups: in fresh episodes, and in true returns."""
    near = successes(mixture, rng)
    worlds = board(true_rewards(), np.eye(len(CORNERS)))
    worth = np.zeros(len(CORNERS))
    for share, policy in zip(*mixture, strict=True):
        chance = np.tile(np.eye(worlds.actions)[policy], (len(CORNERS), 1, 1))
        worth += share * planning.scaled_returns(worlds, chance)
    return Outcome(near.mean(0), float(near.all(1).mean()), worth)


def successes(mixture: Mixture | None, rng: np.random.Generator) -> np.ndarray:
    """``[episodes, groups]`` of fresh episodes, from random starts; None moves at random."""
    env: Any = gym.make_vec(ENV, num_envs=EPISODES, query_every=None)
    cell, _ = env.reset(seed=int(rng.integers(2**31)))
    lane = np.zeros(EPISODES, np.int64)
    if mixture is not None:
        lane = rng.choice(len(mixture.shares), EPISODES, p=mixture.shares)
    for _ in range(LIMIT):
        moves = rng.integers(4, size=EPISODES)
        cell, *_ = env.step(moves if mixture is None else mixture.policies[lane, cell])
    played = env.store.segments(env.store.whole(np.arange(EPISODES)), LIMIT)
    env.close()
    place = np.stack(np.divmod(played.observations[:, -1], 10), -1)
    near: np.ndarray = np.linalg.norm(place[:, None] - CORNERS, axis=-1) <= NEAR
    return near & played.mask[:, -1:]


def board(rewards: np.ndarray, weights: np.ndarray) -> TabularMDPs:
    """The gridworld with the groups' rewards as features, once for every weighing of them."""
    mdps, over = delivery.task().mdps, delivery.task().absorbing
    low, high = (end(rewards[:, ~over], (1, 2))[:, None, None] for end in (np.min, np.max))
    known = np.where(over[:, None], 0.0, (rewards - low) / (high - low))
    features = np.moveaxis(known, 0, -1)[None, :, :, None]
    one = replace(mdps, features=features, weights=np.ones((1, len(rewards))))
    return one.with_weights(weights)
