"""The true reward reaches a learner through the labels, and in no other way.

Two trainings with the same seed. In the first, a scripted rater answers from the true reward, and
the answers are recorded. In the second, the environment's true reward is scrambled (shuffled signs
and sizes, drawn anew at every step) and the recorded answers are replayed. If nothing but labels
carries the reward, all parameters of policy and reward model are equal, bit for bit.

The control shows that the comparison can fail at all: a learner that does read the true reward
(plain reinforcement learning) must end with other parameters when it is scrambled.
"""

import hashlib
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from benchmarks.claims.claim import ClaimResult, Row
from prefgym.comparisons import Comparisons, Labels
from prefgym.segments import Segments
from prefgym.vector import ReplayableVectorEnv
from prefgym.wrappers import PreferenceVectorEnv
from prefgym_agents.learner import Learner
from prefgym_agents.oracle import TrueReward
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.sb3 import sb3_backend

KEY = "leak"
CLAIM = "What a learner becomes depends on the true reward through the labels alone."


class Scrambled(gym.Wrapper[Any, Any, Any, Any]):
    """Returns noise in place of the reward; everything else is untouched."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.noise = np.random.default_rng(12345)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act, and hear a random number."""
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, float(self.noise.normal(scale=1000.0)), terminated, truncated, info


class Recorded:
    """Gives the answers that another run was given, in the same order."""

    meaning = "partial-return"

    def __init__(self, answers: Comparisons) -> None:
        self.labels = list(answers.label)

    def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        """The next answers on the record."""
        told, self.labels = self.labels[: len(a)], self.labels[len(a) :]
        return Labels(np.array(told), np.ones(len(a), np.bool_), np.zeros(len(a), np.int64))

    def probability(self, a: Segments, b: Segments) -> np.ndarray:
        """What a record cannot know."""
        return np.full(len(a), 0.5)


def environment(scrambled: bool, rater: Any) -> PreferenceVectorEnv:
    """Four pendulums, with or without the truth."""

    def make() -> gym.Env[Any, Any]:
        env = gym.make("Pendulum-v1", disable_env_checker=True)
        return Scrambled(env) if scrambled else env

    return PreferenceVectorEnv(ReplayableVectorEnv([make] * 4), rater, segment_steps=25)


def fingerprint(learner: Learner) -> str:
    """A hash of every parameter of the policy and of the reward model."""
    digest = hashlib.sha256()
    for name, value in sorted(learner.policy.snapshot().items()):
        digest.update(name.encode() + value.tobytes())
    if isinstance(learner, RewardLearning):
        for name, tensor in sorted(learner.model.state_dict().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def learn(algorithm: str, scrambled: bool, rater: Any, seed: int, steps: int) -> RewardLearning:
    """Reward learning from ``rater``."""
    env = environment(scrambled, rater)
    arguments = {"PPO": {"n_steps": 128}, "SAC": {"learning_starts": 200}}[algorithm]
    backend = sb3_backend(algorithm, env, seed=seed, **arguments)
    return RewardLearning(
        backend, labels=40, sessions=3, epochs=10, start_steps=300, seed=seed
    ).learn(steps)


def read_reward(scrambled: bool, seed: int, steps: int) -> TrueReward:
    """Plain reinforcement learning: the leak on purpose."""
    env = environment(scrambled, "partial-return")
    return TrueReward(sb3_backend("PPO", env, seed=seed, n_steps=128)).learn(steps)


def run(seed: int, quick: bool) -> ClaimResult:
    """On- and off-policy; the off-policy run is left out when quick."""
    torch.set_num_threads(1)
    equal, asked = [], 0
    for algorithm, steps in (("PPO", 4096), ("SAC", 1200))[: 1 if quick else 2]:
        honest = learn(algorithm, False, "partial-return", seed, steps)
        answers = honest.env.preferences.comparisons
        blind = learn(algorithm, True, Recorded(answers), seed, steps)
        equal.append(fingerprint(honest) == fingerprint(blind))
        asked += len(answers)
    seen, unseen = (fingerprint(read_reward(scr, seed, 2048)) for scr in (False, True))
    wanted = len(equal)
    return ClaimResult(
        KEY,
        CLAIM,
        seed,
        rows=[
            Row(
                "algorithms with equal parameters under a scrambled truth", sum(equal), "==", wanted
            )
        ],
        controls=[Row("a learner that reads the reward changes", float(seen != unseen), "==", 1.0)],
        figures={"algorithms": float(len(equal)), "labels": float(asked)},
    )
