"""Where no reward stands behind preferences, self-play finds what is preferred to everything else.

Source: Swamy et al. (2024), "A minimaximalist approach to reinforcement learning from human
feedback", arXiv:2401.04056.

*A circle.* Thirty Condorcet bandits: three populations with cyclic rankings in random proportions,
each below one half. SPO (A2C, answers drawn) gives a reservoir of policies, whose average is scored
by exploitability: how much more often than half of the time the best answer to it is preferred.
Against it stands the option with the best Bradley-Terry reward, fitted to as many answers as a
reward can use: to the exact preferences of all pairs of options.

*What happened when.* In the corridor people like who was at the left end early and at the right
end late (0, 1 or 2). SPO (PPO) and reward learning have the same algorithm, steps and number of
comparisons; the reward model reads cells and actions, as Markovian rewards do. Scores are of
the most probable actions. A reward model that is told the time beside the cell could say what is
wanted; what it reaches is told as ``timed`` and no part of the claim.

*In words.* The same learner with a language model as its backend, by queue and by group, offers
drinks that beat each other in a circle (``spo_text.py``).

*One answer in four wrong.* By queue and by group, from a rater of that kind, two tiny language
models per seed learn to copy (``spo_noisy.py``): what is wanted is that on average they close 0.6
of the gap in true return to the optimum, a threshold that was set by what was measured. There is a
true reward here, and a learned one is no worse for it: reward learning with as many comparisons
and tokens closes more, in both seeds that were tried (0.94 and 0.97). It keeps its comparisons and
learns from them again, while SPO learns from each once. It is told as a figure.

Controls: where one population decides alone there is no circle, and the Bradley-Terry option is
not exploitable either; and where a coin answers, SPO's walks score no more than one, and its
language model comes no nearer to the optimum.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from benchmarks.claims import spo_noisy, spo_text
from benchmarks.claims.claim import ClaimResult, Row
from prefgym.metrics import exploitability
from prefgym.models.combined_features import feature_reward_model
from prefgym.models.features import MappedFeatures
from prefgym.models.reward_models import RewardModel
from prefgym.raters.histories import LowThenHigh
from prefgym.segments import Segments
from prefgym_agents.evaluation import Predicts
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.spo import SPO

KEY = "spo"
CLAIM = (
    "Self-play on preferences alone finds a policy that nothing is preferred to where preferences "
    "cycle, and one that meets a rule about whole walks, where a learned reward fails at both."
)
CONDORCET, CORRIDOR = "prefgym/Condorcet-v0", "prefgym/Corridor-v0"
WEIGHTINGS, QUICK_WEIGHTINGS = 30, 2
LANES, UPDATES, GAMES = 64, 300, 4
"""Of a bandit: side by side, gradient steps, and games in each lane for one of them."""
BANDIT: dict[str, Any] = {
    "n_steps": GAMES,
    "learning_rate": 0.5,
    "ent_coef": 0.0,
    "policy_kwargs": {
        "net_arch": [],
        "optimizer_class": torch.optim.SGD,
        "optimizer_kwargs": {},
    },
}
WALKERS, STEPS, CELLS = 32, 20, 9
WALKS: dict[str, Any] = {
    "n_steps": STEPS,
    "batch_size": WALKERS * STEPS,
    "n_epochs": 2,
    "gae_lambda": 1.0,
    "learning_rate": 3e-3,
    "ent_coef": 0.02,
    "normalize_advantage": False,
}
"""Advantages keep their scale, so that a win rate that all walks share leaves room to explore."""
TURNS, RUNS, OPPONENTS, SESSIONS = 400, 3, 4, 12
"""Of the corridor: rollouts, agents, comparisons of each walk, and portions of as many labels."""
COPIERS = 2
"""Language models per seed whose rater is at times mistaken."""


def run(seed: int, quick: bool) -> ClaimResult:
    """The bandits, then the corridor."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    mixes = [cyclic_weights(rng) for _ in range(QUICK_WEIGHTINGS if quick else WEIGHTINGS)]
    average, last, reward = np.mean([bandit(one, seed + k) for k, one in enumerate(mixes)], axis=0)
    _, _, alone = bandit(np.array([0.9, 0.06, 0.04]), seed)
    rows = [
        Row("circle: exploitability of SPO's average", average, "<=", 0.02),
        Row("circle: the same over that of the best reward", average / reward, "<=", 0.25),
    ]
    controls = [Row("no circle: exploitability of the best reward", alone, "<=", 0.001)]
    figures = {"average": average, "last": last, "bradley_terry": reward}
    if not quick:
        seeds = [1000 * seed + k for k in range(RUNS)]
        played = [score(self_play(one)) for one in seeds]
        learned = [score(reward_learning(one, cell_and_action)) for one in seeds[:2]]
        timed = score(reward_learning(seed, cell_time_and_action))
        rows += [
            Row("corridor: mean score of SPO", float(np.mean(played)), ">=", 1.3),
            Row("corridor: best agent of SPO", max(played), ">=", 1.95),
            Row("corridor: best agent of a Markovian reward", max(learned), "<=", 1.05),
        ]
        words = {form: spo_text.offered(seed, form) for form in ("queue", "group")}
        rows += [
            Row(f"text, by {form}: exploitability of SPO's average", one.average, "<=", 0.06)
            for form, one in words.items()
        ]
        rows.append(Row("text: that of the best reward", words["queue"].best_reward, ">=", 0.1))
        figures |= {f"text_{form}": one.average for form, one in words.items()}
        figures |= {f"text_{form}_last": one.last for form, one in words.items()}
        noisy = mistaken(seed)
        rows += [
            Row(f"mistakes, by {form}: share of the gap closed", noisy[form], ">=", 0.6)
            for form in spo_noisy.FORMS
        ]
        controls.append(Row("mistakes: the same by a coin", noisy["coin"], "<=", 0.2))
        figures |= {f"noisy_{name}": value for name, value in noisy.items()}
        coin = score(self_play(seed, rater="random"))
        controls.append(Row("corridor: SPO by a coin's answers", coin, "<=", 1.0))
        figures |= {"spo_score": float(np.mean(played)), "markovian_score": max(learned)}
        figures |= {"timed": timed, "coin": coin}
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures)


# --- mistakes ---------------------------------------------------------------------------------


def mistaken(seed: int) -> dict[str, float]:
    """Shares of the gap that are closed where one answer in four is wrong; means over models."""
    seeds = [COPIERS * seed + k for k in range(COPIERS)]
    told = [spo_noisy.closed(one, learned=one == seeds[0]) for one in seeds]
    return {name: float(np.mean([one[name] for one in told if name in one])) for name in told[0]}


# --- the bandits ------------------------------------------------------------------------------


def cyclic_weights(rng: np.random.Generator) -> np.ndarray:
    """Shares of three populations, uniform among those below one half."""
    while True:
        weights = rng.dirichlet(np.ones(3))
        if weights.max() < 0.5:
            return np.asarray(weights)


def bandit(weights: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Exploitability of SPO's average, of its newest policy, of the Bradley-Terry option."""
    env: Any = gym.make_vec(CONDORCET, num_envs=LANES, weights=weights)
    matrix = env.get_wrapper_attr("preference_matrix")
    learner = SPO(
        sb3_backend("A2C", env, seed=seed, **BANDIT),
        queue=LANES,
        comparisons=16,
        snapshots=256,
        seed=seed,
    )
    learner.learn(UPDATES * LANES * GAMES)
    last, mixtures = chances(learner), []
    for one in learner.reservoir.kept:
        learner.policy.load_snapshot(one)
        mixtures.append(chances(learner))
    best = np.eye(3)[int(np.argmax(matrix.mean(1)))]
    return tuple(exploitability(matrix, one) for one in (np.mean(mixtures, 0), last, best))  # type: ignore[return-value]


def chances(learner: SPO) -> np.ndarray:
    """Probability of each option, by the policy as it is."""
    options = Segments(
        actions=np.arange(3)[:, None],
        mask=np.ones((3, 1), bool),
        context=np.zeros(3, np.int64),
        context_id=np.zeros(3, np.int64),
        observations=np.zeros((3, 1), np.int64),
    )
    with torch.no_grad():
        known = learner.policy.log_prob(options)[:, 0].double().exp().numpy()
    shares: np.ndarray = known / known.sum()
    return shares


# --- the corridor -----------------------------------------------------------------------------


def walkers(seed: int, rater: str | None = None) -> Any:
    """A PPO agent in the corridor."""
    asked = {} if rater is None else {"rater": rater}
    env = gym.make_vec(CORRIDOR, num_envs=WALKERS, **asked)
    return sb3_backend("PPO", env, seed=seed, **WALKS)


def self_play(seed: int, rater: str | None = None) -> SPO:
    """An agent whose walks are compared with each other's."""
    learner = SPO(walkers(seed, rater), queue=WALKERS, comparisons=OPPONENTS, snapshots=0)
    learner.learn(TURNS * WALKERS * STEPS)
    return learner


def reward_learning(seed: int, reads: Any) -> RewardLearning:
    """An agent that learns a reward from as many comparisons."""
    learner = RewardLearning(
        walkers(seed),
        model=made(reads, seed),
        labels=TURNS * WALKERS * OPPONENTS,
        sessions=SESSIONS,
        ask_until=0.9,
        queries="uniform",
        batch_pairs=256,
        epochs=2,
        recent_steps=20_000,
        start_steps=0,
        seed=seed,
    )
    learner.learn(TURNS * WALKERS * STEPS)
    return learner


def made(reads: Any, seed: int) -> RewardModel:
    """A reward model of the numbers that ``reads`` makes of steps."""
    width = CELLS + 3 + (STEPS + 1 if reads is cell_time_and_action else 0)
    return feature_reward_model(MappedFeatures(reads, width), 3, (32, 32), seed=seed)


def cell_and_action(walks: Segments) -> np.ndarray:
    """What a Markovian reward knows of every step."""
    plain = walks.numpy()
    known = np.eye(CELLS)[plain.observations[..., 0]], np.eye(3)[plain.actions]
    return np.concatenate(known, -1)


def cell_time_and_action(walks: Segments) -> np.ndarray:
    """The same, and the time."""
    plain = walks.numpy()
    return np.concatenate(
        [cell_and_action(plain), np.eye(STEPS + 1)[plain.observations[..., 1]]], -1
    )


def score(learner: Predicts) -> float:
    """What a walk of most probable actions scores."""
    env: Any = gym.make_vec(CORRIDOR, num_envs=1, query_every=None)
    seen, _ = env.reset(seed=0)
    for _ in range(STEPS):
        actions, _ = learner.predict(seen, None, None, True)
        seen, *_ = env.step(actions)
    walk = env.store.segments(env.store.whole(np.zeros(1, np.int64)), STEPS)
    return float(LowThenHigh(0, 0.0, CELLS - 1.0)(walk)[0])
