"""Memory of one million stored Hopper steps, over the raw columns alone.

    python -m benchmarks.speed.memory

Raw columns are observation (11 doubles), action (3 floats), true reward and the five factors (a
double each) of every step. The store adds a row per episode (its final observation) and a table of
episodes, so short episodes cost most: the episodes here are as short as those of random actions.
Measured twice: by adding up the arrays, and by what the process grows by, in a process of its own.
"""

import json
import resource
import subprocess
import sys

import gymnasium as gym
import numpy as np

import prefgym  # noqa: F401
from benchmarks.provenance import ROOT, provenance, write_result
from prefgym.store import EpisodeStore
from prefgym.wrappers import PreferenceEnv

STEPS, LANES, WANTED = 1_000_000, 8, 1.1


def random_episode_steps(episodes: int = 200) -> float:
    """Mean length of Hopper's episodes under random actions."""
    env = gym.make("prefgym/Hopper-v0", query_every=None)
    env.action_space.seed(0)
    env.reset(seed=0)
    steps = 0
    for _ in range(episodes):
        ended = False
        while not ended:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            ended, steps = terminated or truncated, steps + 1
        env.reset()
    return steps / episodes


def resident() -> int:
    """Largest resident memory so far, bytes (Linux counts in kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fill(mean_episode_steps: float) -> dict[str, float]:
    """Store a million steps; bytes of the arrays, of the process, and of the raw columns."""
    env = gym.make("prefgym/Hopper-v0", query_every=None)
    layer = env
    while not isinstance(layer, PreferenceEnv):
        layer = layer.env
    names = layer.store.factor_names
    observation, action = env.observation_space, env.action_space
    rng = np.random.default_rng(0)
    per_lane = STEPS // LANES
    rows = int(per_lane * (1.0 + 1.2 / mean_episode_steps)) + 2
    before = resident()
    store = EpisodeStore(observation, action, LANES, rows, names)
    lanes = np.arange(LANES)
    seen = np.ones((LANES, *observation.shape))
    done = np.ones((LANES, *action.shape), np.float32)
    reward, no = np.ones(LANES), np.zeros(LANES, np.bool_)
    factors = dict.fromkeys(names, reward)
    store.begin(lanes, seen)
    for _ in range(per_lane):
        ended = rng.random(LANES) < 1.0 / mean_episode_steps
        store.append(lanes, done, reward, seen, ended, no, factors)
        if ended.any():
            store.begin(lanes[ended], seen[ended])
    step_bytes = observation.dtype.itemsize * 11 + action.dtype.itemsize * 3 + 8 * (1 + len(names))
    return {
        "steps": float(len(store)),
        "raw_bytes": float(step_bytes * len(store)),
        "store_bytes": float(store.nbytes),
        "process_bytes": float(resident() - before),
    }


def main() -> None:
    """Measure, print, write."""
    if len(sys.argv) > 1:
        print(json.dumps(fill(float(sys.argv[1]))))
        return
    length = random_episode_steps()
    words = [sys.executable, "-m", "benchmarks.speed.memory", str(length)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    measured = json.loads(done.stdout.splitlines()[-1])
    ratios = {
        name: measured[f"{name}_bytes"] / measured["raw_bytes"] for name in ("store", "process")
    }
    path = write_result(
        "speed_memory",
        {
            **provenance("benchmarks.speed.memory", ("numpy", "gymnasium", "mujoco")),
            **measured,
            "steps": int(measured["steps"]),
            "mean_episode_steps": length,
            "ratio": max(ratios.values()),
            "ratios": ratios,
        },
    )
    print(f"written to {path.relative_to(ROOT)}")
    for name, ratio in ratios.items():
        print(f"{name} ratio={ratio:.3f} wanted<={WANTED} holds={ratio <= WANTED}")


if __name__ == "__main__":
    main()
