"""The contract of every learner, on every kind of backend, on robots and on text alike."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback

import prefgym  # noqa: F401
from benchmarks.claims import leak
from prefgym.annotation import Inline
from prefgym.comparisons import Comparisons
from prefgym.interventions import Random, Supervision
from prefgym.judges import RuleJudge
from prefgym.raters.language import LanguageRater
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.demonstrations import recorded
from prefgym_agents.direct import DirectPreference
from prefgym_agents.heron import HERON
from prefgym_agents.imitation import Imitation, whole_episodes
from prefgym_agents.intrinsic import Intrinsic
from prefgym_agents.learner import Learner
from prefgym_agents.oracle import TrueReward
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.rlif import RLIF
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.spo import SPO
from prefgym_agents.tabular import TabularQ

CONTROL, GRID, TEXT = "prefgym/Pendulum-v0", "prefgym/Delivery-v0", "prefgym/TextCopy-v0"
CAPTIONED = "prefgym/DoorKey-5x5-v0"


def place(policy: PolicyBackend) -> str:
    """The environment that a policy without words acts in."""
    return GRID if isinstance(policy, TabularQ) else CONTROL


def answered(policy: PolicyBackend, pairs: int = 20) -> Comparisons:
    """Comparisons that random actions were given, in an environment like a policy's."""
    if policy.env.layout is None:
        env: Any = gym.make_vec(place(policy), num_envs=16, segment_steps=10)
    else:
        env = gym.make_vec(TEXT, num_envs=16, samples_per_prompt=4)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(30):
        env.step(env.action_space.sample())
    found: Comparisons = env.compare(*env.sample_pairs(pairs, np.random.default_rng(0)))
    return found


LEARNERS: dict[str, Any] = {
    "reward-learning": lambda backend: RewardLearning(
        backend, labels=20, sessions=2, epochs=3, start_steps=100, hidden=(16,)
    ),
    "reward-learning from given comparisons": lambda backend: RewardLearning(
        backend,
        data=answered(backend),
        labels=0,
        sessions=2,
        epochs=3,
        start_steps=100,
        hidden=(16,),
    ),
    "HERON": lambda backend: HERON(
        backend, labels=200, sessions=4, batch_pairs=32, start_steps=100, hidden=(16,)
    ),
    "true-reward": TrueReward,
    "self-play against a queue": lambda backend: SPO(backend, queue=4, snapshots=2),
    "self-play in groups": lambda backend: SPO(
        backend, "group", answers="exact", comparisons=2, act="average"
    ),
    "self-play of segments": lambda backend: SPO(
        backend, "segments", labels=200, rejudge_every=2, snapshots=0
    ),
    "direct": lambda backend: DirectPreference(backend, labels=20, rounds=2, epochs=2),
    "RLIF": RLIF,
    "RLIF as the paper blames": lambda backend: RLIF(backend, blame="previous"),
    "RLIF on proposals": lambda backend: RLIF(backend, blame="proposal"),
    "RLIF beside demonstrations": lambda backend: RLIF(
        backend, demonstrations=recorded(still, place(backend), episodes=1), symmetric=True
    ),
    "behaviour cloning": lambda backend: Imitation(backend, "bc", gradient_steps=2),
    "DAgger": lambda backend: Imitation(backend, "dagger", labels=300, gradient_steps=2),
    "HG-DAgger": lambda backend: Imitation(backend, "hg_dagger", gradient_steps=2),
    "intrinsic rewards": lambda backend: Intrinsic(
        backend, Inline(LanguageRater(RuleJudge(), "open the door, or say b")), "classification"
    ),
}
"""Every learner, small; a new one is tested by being named here."""


def still(seen: np.ndarray) -> np.ndarray:
    """Somebody who takes over anywhere, and does the same all the time."""
    return np.full(len(seen), 2) if seen.dtype.kind == "i" else np.zeros((len(seen), 1))


SEEN = {judged: Supervision(still, Random(0.3), 2, judged) for judged in ("executed", "proposed")}
ASKED: dict[str, dict[str, Any]] = {
    "HERON": {"rater": "heron"},
    "RLIF": {"supervision": SEEN["executed"]},
    "RLIF as the paper blames": {"supervision": SEEN["proposed"]},
    "RLIF on proposals": {"supervision": SEEN["proposed"]},
    "RLIF beside demonstrations": {"supervision": SEEN["executed"]},
    "behaviour cloning": {"supervision": whole_episodes(still)},
    "DAgger": {"supervision": Supervision(still, Random(0.0))},
    "HG-DAgger": {"supervision": SEEN["executed"]},
    "intrinsic rewards": {"captions": True},
}
"""Of the environment, by learners that want a rater of their own, or somebody who watches."""


def grid(seed: int, asked: Any) -> PolicyBackend:
    return TabularQ(gym.make_vec(GRID, num_envs=2, segment_steps=10, **asked), seed=seed)


def control(algorithm: str, seed: int, asked: Any, **settings: Any) -> PolicyBackend:
    place = CAPTIONED if "captions" in asked else CONTROL
    env = gym.make_vec(place, num_envs=2, segment_steps=10, **asked)
    return sb3_backend(algorithm, env, seed=seed, policy_kwargs={"net_arch": [16]}, **settings)


def text(algorithm: str, seed: int, asked: Any) -> PolicyBackend:
    pytest.importorskip("transformers")
    from prefgym_agents.language import language_backend

    env = gym.make_vec(TEXT, num_envs=16, samples_per_prompt=4, **asked)
    return language_backend(env, algorithm=algorithm, seed=seed, learning_rate=1e-3)


BACKENDS: dict[str, Any] = {
    "SB3's PPO": lambda seed, **asked: control("PPO", seed, asked, n_steps=64, n_epochs=2),
    "SB3's SAC": lambda seed, **asked: control(
        "SAC", seed, asked, learning_starts=100, batch_size=32, gradient_steps=2
    ),
    "a table": lambda seed, **asked: grid(seed, asked),
    "a language model's GRPO": lambda seed, **asked: text("GRPO", seed, asked),
    "a language model's PPO": lambda seed, **asked: text("PPO", seed, asked),
}
"""Every kind of backend; a new one is tested by being named here."""
SUPERVISED = {name for name, asked in ASKED.items() if "supervision" in asked}
IMITATING = {"behaviour cloning", "DAgger", "HG-DAgger"}
REPLAYING, WRITING = {"SB3's SAC", "a table"}, {one for one in BACKENDS if "language" in one}


def fits(name: str, backend: str) -> bool:
    """Whether a learner can be had on a backend at all."""
    if name in SUPERVISED and backend in WRITING:
        return name in ("RLIF", "RLIF as the paper blames")  # all else wants replay or observations
    if "captions" in ASKED.get(name, {}):
        return backend == "SB3's PPO" or backend in WRITING  # it acts by one of a few actions
    if name in IMITATING or name == "direct":
        return backend != "a table"  # no densities
    return backend in REPLAYING if name in SUPERVISED else True


CASES = [(name, backend) for backend in BACKENDS for name in LEARNERS if fits(name, backend)]


def make(name: str, backend: str, seed: int = 0) -> Learner:
    learner: Learner = LEARNERS[name](BACKENDS[backend](seed, **ASKED.get(name, {})))
    return learner


@pytest.mark.filterwarnings("ignore:RLIF. somebody took over at the first step")
@pytest.mark.filterwarnings("ignore:Intrinsic. no caption is found helpful")
@pytest.mark.parametrize(("name", "backend"), CASES)
class TestContract:
    """What every learner keeps, on every kind of backend."""

    def test_a_seed_decides_the_agent_and_metrics_are_finite(self, name: str, backend: str) -> None:
        def trained(seed: int) -> str:
            learner = make(name, backend, seed=seed)
            for _, metrics in learner.iterations(256):
                assert all(np.isfinite(value) for value in metrics.values()), metrics
            return leak.fingerprint(learner)

        assert trained(3) == trained(3) != trained(4)

    def test_a_callback_is_told_of_every_step_and_can_stop(self, name: str, backend: str) -> None:
        class Stop(BaseCallback):
            def _on_step(self) -> bool:
                return self.n_calls < 3

        told = Stop()
        learner = make(name, backend).learn(100_000, callback=told)
        assert told.n_calls == 3
        assert told.num_timesteps == learner.num_timesteps
        assert 0 < learner.num_timesteps < 1_000

    def test_saved_and_loaded_it_goes_on_bit_for_bit(
        self, name: str, backend: str, run_folder: Any
    ) -> None:
        first = make(name, backend)
        turns = first.iterations(512)
        for steps, _ in turns:
            if steps >= 256:
                break
        first.save(run_folder / "saved")
        for _ in turns:
            pass
        second = make(name, backend, seed=77).load(run_folder / "saved").learn(512)
        assert leak.fingerprint(first) == leak.fingerprint(second)
        ours, theirs = (one.env.preferences for one in (first, second))
        assert len(ours) == len(theirs)
        if len(ours):
            ours, theirs = ours.comparisons, theirs.comparisons
            assert np.array_equal(ours.label, theirs.label)
            for mine, other in ((ours.a, theirs.a), (ours.b, theirs.b)):
                for key, value in mine.arrays().items():
                    assert np.array_equal(value, other.arrays()[key]), key
