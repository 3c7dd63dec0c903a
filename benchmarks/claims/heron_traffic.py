"""One intersection by a hierarchy of six signals, and by sums of them that people write.

Not a claim itself. PPO learns with the reward of HERON, or with a fixed weighted sum; settings,
environment steps and the episodes that judge are the same. All figures are minutes that vehicles
spend on the roads in an episode, so that less is better.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import gymnasium as gym
import numpy as np

import prefgym  # noqa: F401
from prefgym.segments import Segments
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.evaluation import Predicts, evaluate
from prefgym_agents.heron import HERON
from prefgym_agents.learner import Learner
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.tuned import settings
from prefgym_envs.traffic_controllers import FixedTime, MaxPressure

ENV = "prefgym/Traffic-v0"
ORDER = "-queue_length,-waiting_time,-delay,-vehicles,-switches,passed"
REVERSED = ",".join(reversed(ORDER.split(",")))
IRRELEVANT = "-switches"
"""Calm alone, whatever the traffic."""
SIGNS: Final = {
    "queue_length": -1.0, "waiting_time": -1.0, "delay": -1.0, "vehicles": -1.0, "switches": -1.0,
    "passed": 1.0,
}  # fmt: skip
PUBLISHED: Final = {
    "queue_length": -0.25, "waiting_time": -0.25, "delay": -0.25, "switches": -5.0, "passed": 1.0,
}  # fmt: skip
"""The numbers of IntelliLight (Wei et al. 2018, KDD) for the signals that it shares with us."""
TRUE: Final = {"vehicles": -1.0}
LANES, EPISODE = 8, 225
MEASURED = 10_000
"""Steps of random lights from which spreads are taken."""
EPISODES, EVALUATION_SEED = 200, 1_000_000
TIMINGS = range(4, 16)
"""Green steps of the fixed timings that are tried."""

Reward = Callable[[Segments], np.ndarray]
"""``[B, T]``, what each step earns."""


class FixedWeights(Learner):
    """Reinforcement learning on a reward that somebody wrote."""

    def __init__(self, policy: PolicyBackend, reward: Reward) -> None:
        super().__init__(policy)
        self.reward = reward

    def step(self, total_timesteps: int) -> dict[str, float] | None:
        """Act, and improve the policy for the written reward."""
        segments = self.policy.collect()
        return None if segments is None else self.policy.update(segments, self.reward(segments))

    def state(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing of its own."""


def random_lights() -> dict[str, np.ndarray]:
    """Each factor ``[steps]`` in single steps under random lights; the same in every run."""
    env = gym.make_vec(ENV, num_envs=20, rater="random", query_every=None, segment_steps=1)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(5 * EPISODE):
        env.step(env.action_space.sample())
    found, _ = env.sample_pairs(MEASURED, np.random.default_rng(0))  # type: ignore[attr-defined]
    env.close()
    return {name: found.factors[name][:, 0] for name in SIGNS}


def rules(seen: Mapping[str, np.ndarray]) -> dict[str, Mapping[str, float]]:
    """Weights by the rule that they follow: two that people write, and the true ones."""
    return {
        "equal_say": {name: sign / float(seen[name].std()) for name, sign in SIGNS.items()},
        "published": PUBLISHED,
        "true": TRUE,
    }


def written(weights: Mapping[str, float], seen: Mapping[str, np.ndarray]) -> Reward:
    """Σ weight · factor, brought to mean 0 and deviation 1 under random lights.

    Learned rewards are brought to such a scale too, and PPO's value network is at home there.
    """

    def total(factors: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(sum(weight * factors[name] for name, weight in weights.items()))

    usual = total(seen)
    mean, deviation = usual.mean(), usual.std()
    return lambda segments: ((total(segments.factors) - mean) / deviation).astype(np.float32)


def travel_minutes(policy: Predicts) -> float:
    """Minutes that vehicles spend on the roads in an episode: minus the mean true return."""
    returns = evaluate(policy, ENV, episodes=EPISODES, seed=EVALUATION_SEED)
    return -float(returns.mean())


def by_weights(reward: Reward, steps: int, seed: int) -> float:
    """Minutes of travel under PPO on a written reward."""
    env = gym.make_vec(ENV, num_envs=LANES, rater="random", query_every=None)
    learner = FixedWeights(sb3_backend("PPO", env, seed=seed, **settings("PPO", ENV)), reward)
    return _trained(learner, steps)


def by_hierarchy(order: str, margin: float, steps: int, seed: int) -> float:
    """Minutes of travel under HERON with PPO, which compares single steps."""
    env = gym.make_vec(
        ENV, num_envs=LANES, rater="heron", rater_kwargs={"factors": order, "margins": margin},
        segment_steps=1, query_every=None,
    )  # fmt: skip
    backend = sb3_backend("PPO", env, seed=seed, **settings("PPO", ENV))
    return _trained(HERON(backend, seed=seed), steps)


def best_timing() -> float:
    """Minutes of travel under the best fixed timing of equal greens."""
    return min(travel_minutes(FixedTime(steps)) for steps in TIMINGS)


def max_pressure() -> float:
    """Minutes of travel under max pressure."""
    return travel_minutes(MaxPressure())


def _trained(learner: Learner, steps: int) -> float:
    learner.learn(steps)
    learner.env.close()
    return travel_minutes(learner)
