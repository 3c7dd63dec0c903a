"""What learning a reward costs: wall time per step of reward learning, over plain SB3.

    python -m benchmarks.speed.overhead                   # three seeds, about eight minutes
    python -m benchmarks.speed.overhead --seeds 1 --steps 40960

PPO on Pendulum with 8 environments, the same settings, steps and updates on three sides: plain
Stable-Baselines3 on its own ``DummyVecEnv``; plain Stable-Baselines3 on our adapter; and reward
learning, which besides hides the reward, keeps every step, asks for 500 labels and fits an ensemble
to them. The sides take turns, one rollout and its update each, so that a change of the machine's
speed meets all of them.

imitation 1.0.1 does the same work in an environment of its own: plain Stable-Baselines3 (in the
version that it needs), then its ``PreferenceComparisons`` with an ensemble of the same width, as
many labels, sessions and steps per segment. It rounds up its steps, so times are per step.

What limits ours: the policy's own updates and forward passes take as long as on the plain side, so
what is left is Python between the simulator and the store, a few numpy calls per column and step,
and the matrix products of the reward model, which the number of labels decides and the number of
steps does not.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

import prefgym  # noqa: F401
from benchmarks.provenance import ROOT, provenance, write_result
from benchmarks.speed.peers import peer_python
from prefgym.registration import ENVIRONMENTS
from prefgym_agents.learner import Clock
from prefgym_agents.reward_learning import Config, RewardLearning
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.sb3_env import GymnasiumVecEnv
from prefgym_agents.tuned import settings

ENV, ENVS, LABELS, WANTED = "prefgym/Pendulum-v0", 8, 500, 1.10


def sides(
    seed: int, steps: int, updates: Clock
) -> tuple[dict[str, Callable[[], Any]], RewardLearning]:
    """One turn of each side, as a function; and the learner. ``updates`` times the plain side's."""
    tuned = settings("PPO", ENV)
    turn = tuned["n_steps"] * ENVS
    plain = PPO("MlpPolicy", make_vec_env("Pendulum-v1", ENVS, seed=seed), seed=seed, **tuned)
    train = plain.train

    def timed() -> None:
        with updates("policy"):
            train()

    setattr(plain, "train", timed)  # noqa: B010  (a method, to the type checker)
    raw = gym.make_vec(ENV, num_envs=ENVS, query_every=None).env  # type: ignore[attr-defined]
    adapter = PPO("MlpPolicy", GymnasiumVecEnv(raw), seed=seed, **tuned)
    env = gym.make_vec(ENV, num_envs=ENVS, budget=LABELS)
    learner = RewardLearning(sb3_backend("PPO", env, seed=seed, **tuned), labels=LABELS, seed=seed)
    turns = learner.iterations(steps)
    return {
        "plain": lambda: plain.learn(turn, reset_num_timesteps=plain.num_timesteps == 0),
        "adapter": lambda: adapter.learn(turn, reset_num_timesteps=adapter.num_timesteps == 0),
        "reward learning": lambda: next(turns),
    }, learner


def measure(seed: int, steps: int) -> dict[str, Any]:
    """Seconds of each side over a whole training, taken in turns."""
    updates = Clock()
    functions, learner = sides(seed, steps, updates)
    wall, cpu = (dict.fromkeys(functions, 0.0) for _ in range(2))
    turn = settings("PPO", ENV)["n_steps"] * ENVS
    for _ in range(steps // turn):
        for name, function in functions.items():
            begun, spent = time.perf_counter(), time.process_time()
            function()
            wall[name] += time.perf_counter() - begun
            cpu[name] += time.process_time() - spent
    return {
        "wall_s": wall,
        "cpu_s": cpu,
        "labels": len(learner.env.preferences),
        "plain_policy_s": updates.seconds["policy"],
        "phases_s": dict(learner.clock.seconds),
    }


def imitations(seed: int, steps: int) -> float:
    """Time per step of imitation's reward learning, over that of the plain SB3 beside it."""
    config = Config()
    work = {
        "threads": 1,
        "seed": seed,
        "envs": ENVS,
        "steps": steps,
        "ppo": settings("PPO", ENV),
        "labels": LABELS,
        "sessions": config.sessions,
        "segment_steps": ENVIRONMENTS[ENV].segment_steps,
        "members": config.members,
        "hidden": config.hidden,
    }
    script = Path(__file__).with_name("peer_imitation_overhead.py")
    words = [str(peer_python("imitation")), "-W", "ignore", str(script), json.dumps(work)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    return float(told["reward learning"] / told["steps"] / (told["plain"] / steps))


def ratio(runs: list[dict[str, Any]], kind: str, base: str) -> float:
    """Median over seeds of reward learning's time over that of ``base``."""
    return float(statistics.median(one[kind]["reward learning"] / one[kind][base] for one in runs))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=98_304)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    turn = settings("PPO", ENV)["n_steps"] * ENVS
    steps = max(turn, arguments.steps // turn * turn)
    runs, peer = [], []
    for seed in range(arguments.seeds):
        runs.append(measure(seed, steps))
        peer.append(imitations(seed, steps))
    phases = {
        name: float(np.median([one["phases_s"][name] / one["wall_s"]["plain"] for one in runs]))
        for name in runs[0]["phases_s"]
    }
    plain_policy = statistics.median(one["plain_policy_s"] / one["wall_s"]["plain"] for one in runs)
    content = {
        **provenance("benchmarks.speed.overhead", ("torch", "stable-baselines3", "gymnasium")),
        "threads": 1,
        "labels": LABELS,
        "steps": steps,
        "ratio": ratio(runs, "wall_s", "plain"),
        "ratio_cpu": ratio(runs, "cpu_s", "plain"),
        "ratio_over_adapter": ratio(runs, "wall_s", "adapter"),
        "ratio_imitation": statistics.median(peer),
        "phases_over_plain": phases,
        "plain_policy_over_plain": plain_policy,
        "runs": runs,
    }
    path = write_result("speed_overhead", content)
    print(f"written to {path.relative_to(ROOT)}")
    parts = ", ".join(f"{name} {share:.3f}" for name, share in phases.items())
    print(f"phases, as shares of the plain time: {parts}")
    print(f"the plain side's own: env {1.0 - plain_policy:.3f}, policy {plain_policy:.3f}")
    print(f"cpu ratio={content['ratio_cpu']:.3f}, over adapter={content['ratio_over_adapter']:.3f}")
    print(f"imitation 1.0.1 over its plain side: {content['ratio_imitation']:.2f}")
    holds = content["ratio"] <= WANTED
    print(f"reward learning ratio={content['ratio']:.3f} wanted<={WANTED} holds={holds}")


if __name__ == "__main__":
    main()
