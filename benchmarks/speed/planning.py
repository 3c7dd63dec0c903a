"""Exact V*, Q* and successor features of 100 random MDPs in one batch, over loops over the MDPs.

    python -m benchmarks.speed.planning

All sides start from the same tables and end with the same numbers, which is checked to 1e-6. The
loop that a textbook has: for one MDP after the other, value iteration with a matrix of transitions
per action, until no value changes by more than 1e-9, then one linear system for the successor
features. Beside it, for what it tells: our own functions called for one MDP after the other, and
the loop that visits the states in Python too, without the successor features.

The sides alternate; only ratios of medians count. What limits ours: the values of the next states
are gathered from memory, four per state and sweep, and a sweep cannot know more than the one before
it. What limits our own functions in a loop is the interpreter, some hundred array operations per
MDP, and the boards are large enough to keep a processor busy for a part of that time; so the ratio
to them is the smaller one.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.provenance import ROOT, provenance, write_result
from prefgym_envs import planning, random_mdps
from prefgym_envs.planning import Solution
from prefgym_envs.tabular_mdps import TabularMDPs, stack

MDPS, ROUNDS, STOP, WANTED = 100, 15, 1e-9, 20.0


def textbook(mdp: TabularMDPs) -> Solution:
    """Value iteration with dense matrices, then a linear system; a batch of one, deterministic."""
    next_state, reward = mdp.next_state[0, :, :, 0], mdp.rewards[0].T
    states = np.arange(mdp.states)
    transitions = np.zeros((mdp.actions, mdp.states, mdp.states))
    transitions[np.arange(mdp.actions), states[:, None], next_state] = 1.0
    value, change = np.zeros(mdp.states), np.inf
    while change >= STOP:
        action_values = reward + mdp.discount * transitions @ value
        better = action_values.max(0)
        change = np.abs(better - value).max()
        value = better
    policy = action_values.argmax(0)
    system = np.eye(mdp.states) - mdp.discount * transitions[policy, states]
    features = np.linalg.solve(system, mdp.features[0, states, policy, 0])
    return Solution(value[None], action_values.T[None], features[None])


def state_by_state(mdp: TabularMDPs) -> list[float]:
    """V* by value iteration in plain Python."""
    moves = list(zip(mdp.next_state[0, :, :, 0].tolist(), mdp.rewards[0].tolist(), strict=True))
    value, change = [0.0] * mdp.states, float("inf")
    while change >= STOP:
        change = 0.0
        for state, (ahead, reward) in enumerate(moves):
            pairs = zip(ahead, reward, strict=True)
            best = max(now + mdp.discount * value[later] for later, now in pairs)
            change, value[state] = max(change, abs(best - value[state])), best
    return value


def largest_difference(batch: Solution, singles: Sequence[Solution], mdps: TabularMDPs) -> float:
    """Between two solutions; successor features by what they are worth, as policies may tie."""
    gaps = [0.0]
    for i, one in enumerate(singles):
        states = one.v.shape[1]
        gaps.append(float(np.abs(batch.v[i, :states] - one.v[0]).max()))
        gaps.append(float(np.abs(batch.q[i, :states] - one.q[0]).max()))
        worth = (batch.features[i, :states] - one.features[0]) @ mdps.weights[i]
        gaps.append(float(np.abs(worth).max()))
    return max(gaps)


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    """How long, and what came of it: to be kept, so that no side gives its memory back at once."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="alternations; medians count")
    rounds = parser.parse_args().rounds
    singles = [random_mdps.task(seed).mdps for seed in range(MDPS)]
    batch = stack(singles)
    gap = largest_difference(
        planning.solve_with_features(batch), [textbook(one) for one in singles], batch
    )
    if gap > 1e-6:
        raise RuntimeError(f"The two sides differ by {gap:.2g}; wanted the same numbers.")
    sides: dict[str, Callable[[], object]] = {
        "one batch": lambda: planning.solve_with_features(batch),
        "textbook, one MDP at a time": lambda: [textbook(one) for one in singles],
        "our functions, one MDP at a time": lambda: [
            planning.solve_with_features(one) for one in singles
        ],
        "one state at a time (V* only)": lambda: [state_by_state(one) for one in singles],
    }
    spent: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, object] = {}
    for _ in range(rounds):
        for name, work in sides.items():
            taken, results[name] = seconds(work)
            spent[name].append(taken)
    medians = {name: statistics.median(values) for name, values in spent.items()}
    ratios = {name: medians[name] / medians["one batch"] for name in list(sides)[1:]}
    path = write_result(
        "speed_planning",
        {
            **provenance("benchmarks.speed.planning", ("numpy",)),
            "mdps": MDPS,
            "states": int(sum(one.states for one in singles)),
            "rounds": rounds,
            "largest_difference": gap,
            "seconds": medians,
            "ratios": ratios,
        },
    )
    print(f"written to {path.relative_to(ROOT)}")
    for name, ratio in ratios.items():
        print(f"{name} ratio={ratio:.1f} wanted>={WANTED:.0f} holds={ratio >= WANTED}")


if __name__ == "__main__":
    main()
