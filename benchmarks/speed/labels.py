"""Labels per second of scripted raters on 50-step segments, over imitation's gatherer.

    python -m benchmarks.speed.labels

Both sides label the same number of pairs of segments that are there already, by the Boltzmann rule;
imitation 1.0.1 times its own ``SyntheticGatherer`` in an environment of its own. Regret is read
from advantages that a value source left with the segments, and also, which is more work than the
peer does, looked up in an exact table for both segments of every label. The two sides alternate;
only ratios of medians count. What limits ours is the memory that the numbers of all steps pass
through (the table: a hundred look-ups a label); what limits imitation's is a Python loop.
"""

import json
import statistics
import subprocess
import time
from pathlib import Path

import gymnasium as gym
import numpy as np

import prefgym  # noqa: F401
from benchmarks.provenance import ROOT, provenance, write_result
from benchmarks.speed.peers import peer_python
from prefgym.raters import Rater, make_rater
from prefgym.segments import Segments
from prefgym.wrappers import PreferenceVectorEnv

PAIRS, STEPS, OBSERVATIONS, ACTIONS, ROUNDS, WANTED = 4_000, 50, 11, 3, 5, 50.0


def continuous(rng: np.random.Generator) -> Segments:
    """Random segments of a control task, with stored advantages."""
    shape = (PAIRS, STEPS)
    observations = rng.standard_normal((*shape, OBSERVATIONS))
    return Segments(
        actions=rng.uniform(-1.0, 1.0, (*shape, ACTIONS)),
        mask=np.ones(shape, np.bool_),
        context=observations[:, 0],
        context_id=np.arange(PAIRS),
        observations=observations,
        rewards=rng.standard_normal(shape),
        advantages=-rng.random(shape),
    )


def tabular(env: PreferenceVectorEnv, rng: np.random.Generator) -> Segments:
    """Segments of the delivery gridworld under random actions, without stored advantages."""
    return env.store.segments(env.store.sample(PAIRS, STEPS, rng), STEPS)


def ours(rater: Rater, a: Segments, b: Segments) -> float:
    """Labels per second."""
    begun = time.perf_counter()
    rater(a, b, np.random.default_rng(0))
    return PAIRS / (time.perf_counter() - begun)


def imitations(seed: int) -> float:
    """Labels per second of the peer, in its own process."""
    work = {"pairs": PAIRS, "steps": STEPS, "observations": OBSERVATIONS, "actions": ACTIONS}
    script = Path(__file__).with_name("peer_imitation_labels.py")
    words = [str(peer_python("imitation")), "-W", "ignore", str(script)]
    done = subprocess.run(
        [*words, json.dumps({**work, "seed": seed})], capture_output=True, text=True, check=True
    )
    return PAIRS / float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> None:
    """Measure, print, write."""
    rng = np.random.default_rng(0)
    env = gym.make_vec("prefgym/Delivery-v0", num_envs=64, query_every=None)
    assert isinstance(env, PreferenceVectorEnv)
    env.reset(seed=0)
    for _ in range(400):
        env.step(env.action_space.sample())
    table = env.get_wrapper_attr("advantages")
    cases = {
        "partial return": (
            make_rater("partial-return", beta=1.0),
            (continuous(rng), continuous(rng)),
        ),
        "regret, advantages stored": (
            make_rater("regret", beta=1.0),
            (continuous(rng), continuous(rng)),
        ),
        "regret, looked up in an exact table": (
            make_rater("regret", table, beta=1.0),
            (tabular(env, rng), tabular(env, rng)),
        ),
    }
    speeds: dict[str, list[float]] = {name: [] for name in (*cases, "imitation")}
    for seed in range(ROUNDS):
        speeds["imitation"].append(imitations(seed))
        for name, (rater, pair) in cases.items():
            ours(rater, *pair)
            speeds[name].append(ours(rater, *pair))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ratios = {name: medians[name] / medians["imitation"] for name in cases}
    path = write_result(
        "speed_labels",
        {
            **provenance("benchmarks.speed.labels", ("numpy",)),
            "imitation": "1.0.1",
            "pairs": PAIRS,
            "steps": STEPS,
            "rounds": ROUNDS,
            "labels_per_second": medians,
            "ratios": ratios,
        },
    )
    print(f"written to {path.relative_to(ROOT)}")
    for name, ratio in ratios.items():
        print(f"{name} ratio={ratio:.0f} wanted>={WANTED:.0f} holds={ratio >= WANTED}")


if __name__ == "__main__":
    main()
