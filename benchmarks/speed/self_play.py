"""What self-play costs: wall time per step of SPO, over plain Stable-Baselines3.

    python -m benchmarks.speed.self_play                  # three seeds, a few minutes
    python -m benchmarks.speed.self_play --seeds 1 --steps 20480

PPO on Pendulum with 8 environments, equal settings, steps and updates: plain Stable-Baselines3
on its own ``DummyVecEnv``, and SPO, whose trajectories are each compared with a queue of 10. The
two take turns, one rollout and its update each, so that a change of the machine's speed meets both.

What limits ours: beside what every learner costs (the adapter and the store), one call of the rater
per rollout, which copies the trajectories of all pairs out of the store: as many numbers as pairs ×
steps × (observation + action), at the speed of memory.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

import prefgym  # noqa: F401
from benchmarks.provenance import ROOT, provenance, write_result
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.spo import SPO
from prefgym_agents.tuned import settings

ENV, ENVS, QUEUE, WANTED = "prefgym/Pendulum-v0", 8, 10, 1.10


def measure(seed: int, steps: int) -> dict[str, Any]:
    """Seconds of both sides over a whole training, taken in turns."""
    tuned = settings("PPO", ENV)
    turn = tuned["n_steps"] * ENVS
    plain = PPO("MlpPolicy", make_vec_env("Pendulum-v1", ENVS, seed=seed), seed=seed, **tuned)
    env = gym.make_vec(ENV, num_envs=ENVS)
    learner = SPO(sb3_backend("PPO", env, seed=seed, **tuned), queue=QUEUE, seed=seed)
    turns = learner.iterations(steps)
    functions: dict[str, Callable[[], Any]] = {
        "plain": lambda: plain.learn(turn, reset_num_timesteps=plain.num_timesteps == 0),
        "self-play": lambda: next(turns),
    }
    wall = dict.fromkeys(functions, 0.0)
    for _ in range(steps // turn):
        for name, function in functions.items():
            begun = time.perf_counter()
            function()
            wall[name] += time.perf_counter() - begun
    return {
        "wall_s": wall,
        "comparisons": learner.env.elicitor.judged,
        "phases_s": dict(learner.clock.seconds),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=61_440)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    turn = settings("PPO", ENV)["n_steps"] * ENVS
    steps = max(turn, arguments.steps // turn * turn)
    runs = [measure(seed, steps) for seed in range(arguments.seeds)]
    ratio = statistics.median(one["wall_s"]["self-play"] / one["wall_s"]["plain"] for one in runs)
    rater = statistics.median(one["phases_s"]["rater"] / one["wall_s"]["plain"] for one in runs)
    path = write_result(
        "speed_self_play",
        {
            **provenance("benchmarks.speed.self_play", ("torch", "stable-baselines3", "gymnasium")),
            "threads": 1,
            "steps": steps,
            "queue": QUEUE,
            "ratio": ratio,
            "rater_over_plain": rater,
            "runs": runs,
        },
    )
    print(f"written to {path.relative_to(ROOT)}")
    print(f"comparing takes {rater:.3f} of the plain side's time")
    print(f"self-play ratio={ratio:.3f} wanted<={WANTED} holds={ratio <= WANTED}")


if __name__ == "__main__":
    main()
