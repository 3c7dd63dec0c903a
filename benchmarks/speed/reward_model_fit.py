"""Speed of fitting reward models: against imitation, and against the matrix products alone.

    python -m benchmarks.speed.reward_model_fit            # 1 thread, a few minutes
    python -m benchmarks.speed.reward_model_fit --threads 2

Everything is measured alternately in one run, and only ratios of medians count:

1. 3 members of 2 x 32 units (imitation's default): pairs fitted per second, over imitation 1.0.1,
   whose `EnsembleTrainer` times itself in an environment of its own. Same pairs, steps, widths,
   minibatch, epochs and threads; both sides start from segments as the user holds them.
2. 3 members of 3 x 256 units (PEBBLE's): pairs fitted per second, over what a loop of nothing but
   the same matrix products reaches, into memory that is there already. The loop runs over whole
   minibatches and over the blocks that `fit` cuts them into; the faster one is the limit.
"""

import argparse
import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch.profiler import ProfilerActivity, profile

from benchmarks.provenance import ROOT, provenance, write_result
from benchmarks.speed.peers import peer_python
from prefgym.comparisons import Comparisons
from prefgym.models.encoders import rows_at_once
from prefgym.models.fit import adam, fit
from prefgym.models.reward_models import RewardModel, reward_model
from prefgym.segments import Segments

OBSERVATIONS, ACTIONS, STEPS, MEMBERS = 11, 3, 50, 3  # Hopper's widths, PEBBLE's segments
WANTED = {"over_imitation": 10.0, "of_matrix_products": 0.8}

KINDS = {
    "matrix products": ("aten::bmm", "aten::baddbmm", "aten::mm"),
    "activations and their slopes": ("leaky_relu",),
    "sums: bias gradients, returns": ("aten::sum",),
    "copies: biases before the products": ("aten::copy_",),
    "the head's products with one column": ("aten::mul",),
    "autograd": ("_Layers", "autograd"),
    "gathering of minibatches": ("aten::index", "aten::take"),
    "optimizer": ("_fused_adam", "Optimizer", "aten::_foreach"),
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, on all sides")
    parser.add_argument("--rounds", type=int, default=5, help="alternations; medians are taken")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    small = against_imitation(arguments.rounds, arguments.threads)
    large = against_products(3 * arguments.rounds)
    split = time_split()
    ratios = {"over_imitation": small["ratio"], "of_matrix_products": large["ratio"]}
    for name, ratio in ratios.items():
        print(f"{name} ratio={ratio:.2f} wanted>={WANTED[name]} holds={ratio >= WANTED[name]}")
    path = write_result(
        "speed_reward_model_fit",
        {
            **provenance("benchmarks.speed.reward_model_fit"),
            "threads": arguments.threads,
            "imitation": "1.0.1",
            "small": small,
            "large": large,
            "large_time_split": split,
        },
    )
    print(f"written to {path.relative_to(ROOT)}")


def against_imitation(rounds: int, threads: int) -> dict[str, Any]:
    """Pairs per second of both on small networks; every pair passes through all members."""
    pairs, epochs = 300, 3
    work: dict[str, Any] = {
        "pairs": pairs,
        "epochs": epochs,
        "batch_pairs": 32,
        "steps": STEPS,
        "observations": OBSERVATIONS,
        "actions": ACTIONS,
        "members": MEMBERS,
        "hidden": [32, 32],
        "threads": threads,
    }
    script = Path(__file__).with_name("peer_imitation_fit.py")
    python = peer_python("imitation")

    def theirs(seed: int) -> float:
        command = [str(python), "-W", "ignore", str(script), json.dumps({**work, "seed": seed})]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout.strip().split("\n")[-1])["seconds"])

    def ours(seed: int) -> float:
        return _seconds_of_fit(pairs, (32, 32), batch_pairs=32, epochs=epochs, seed=seed)

    ours(0)
    measured = [(ours(seed), theirs(seed), ours(seed)) for seed in range(rounds)]
    mine = statistics.median(second for one in measured for second in (one[0], one[2]))
    peer = statistics.median(one[1] for one in measured)
    seen = pairs * epochs
    print(f"3 x (2 x 32): prefgym {seen / mine:.0f} pairs/s, imitation {seen / peer:.0f} pairs/s")
    return {
        **work,
        "rounds": rounds,
        "pairs_per_second": seen / mine,
        "pairs_per_second_imitation": seen / peer,
        "ratio": peer / mine,
    }


def against_products(rounds: int) -> dict[str, Any]:
    """Pairs per second of `fit` and of the bare products on large networks."""
    hidden, batch_pairs, pairs, epochs = (256, 256, 256), 128, 128, 4
    kept = MEMBERS * 2 * STEPS * sum(hidden)
    most = rows_at_once(kept, torch.device("cpu"))
    block = math.ceil(batch_pairs / math.ceil(batch_pairs / most))
    whole, blocks = products(hidden, batch_pairs), products(hidden, block)
    sides: dict[str, Callable[[], float]] = {
        "fit": lambda: _seconds_of_fit(pairs, hidden, batch_pairs, epochs, seed=0),
        "whole": lambda: epochs * _seconds(whole, pairs // batch_pairs),
        "blocks": lambda: epochs * _seconds(blocks, pairs // block),
    }
    for side in sides.values():
        side()
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            measured[name].append(side())
    median = {name: statistics.median(seconds) for name, seconds in measured.items()}
    rate = {name: pairs * epochs / seconds for name, seconds in median.items()}
    limit = max(rate["whole"], rate["blocks"])
    print(
        f"3 x (3 x 256): fit {rate['fit']:.0f} pairs/s, products alone {rate['whole']:.0f} (whole "
        f"minibatches) and {rate['blocks']:.0f} pairs/s (blocks of {block} pairs)"
    )
    return {
        "pairs": pairs,
        "epochs": epochs,
        "batch_pairs": batch_pairs,
        "block_pairs": block,
        "steps": STEPS,
        "members": MEMBERS,
        "hidden": list(hidden),
        "rounds": rounds,
        "pairs_per_second": rate["fit"],
        "pairs_per_second_products_whole": rate["whole"],
        "pairs_per_second_products_blocks": rate["blocks"],
        "ratio": rate["fit"] / limit,
    }


def products(hidden: Sequence[int], pairs: int) -> Callable[[], None]:
    """The matrix products of one gradient on ``pairs`` pairs per member, and nothing else.

    Forward, and backward to the weights in every layer, to the values in all but the first.
    """
    rows = pairs * 2 * STEPS
    widths = (OBSERVATIONS + ACTIONS, *hidden, 1)
    values = [torch.randn(MEMBERS, rows, width) for width in widths]
    slopes = [torch.randn(MEMBERS, rows, width) for width in widths]
    weights = [torch.randn(MEMBERS, into, out) for into, out in pairwise(widths)]
    d_weights = [torch.empty_like(weight) for weight in weights]
    last = len(weights) - 1

    def once() -> None:
        for layer, weight in enumerate(weights[:-1]):
            torch.bmm(values[layer], weight, out=values[layer + 1])
        _narrow(weights[last], values[last], values[-1])
        _narrow(values[last], slopes[-1], d_weights[last], turned=True)
        torch.mul(slopes[-1], weights[last].transpose(1, 2), out=slopes[last])
        for layer in range(last - 1, -1, -1):
            torch.bmm(values[layer].transpose(1, 2), slopes[layer + 1], out=d_weights[layer])
            if layer:
                torch.bmm(slopes[layer + 1], weights[layer].transpose(1, 2), out=slopes[layer])

    return once


def _narrow(
    left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, turned: bool = False
) -> None:
    """A product with one column, in the orientation that BLAS is fast in."""
    if turned:
        torch.bmm(right.transpose(1, 2), left, out=out.view(out.shape[0], 1, -1))
    else:
        torch.bmm(left.transpose(1, 2), right.transpose(1, 2), out=out.view(out.shape[0], 1, -1))


def time_split() -> dict[str, float]:
    """Share of each kind of operation in fitting the large networks."""
    model, data = _model((256, 256, 256), 0), _comparisons(128, 0)
    optimizer, rng = adam(model), np.random.default_rng(0)
    fit(model, data, optimizer, rng, epochs=1, stop_accuracy=1.0)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        fit(model, data, optimizer, rng, epochs=4, stop_accuracy=1.0)
    events = recorded.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    split = dict.fromkeys([*KINDS, "everything else"], 0.0)
    for event in events:
        kinds = (kind for kind, names in KINDS.items() if any(n in event.key for n in names))
        split[next(kinds, "everything else")] += event.self_cpu_time_total / total
    for kind, share in split.items():
        print(f"  {share:6.1%}  {kind}")
    return split


def _seconds_of_fit(
    pairs: int, hidden: Sequence[int], batch_pairs: int, epochs: int, seed: int
) -> float:
    model, data = _model(hidden, seed), _comparisons(pairs, seed)
    optimizer, rng = adam(model, 1e-3), np.random.default_rng(seed)
    return _seconds(
        lambda: fit(model, data, optimizer, rng, epochs, batch_pairs, stop_accuracy=1.0), 1
    )


def _seconds(work: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - start


def _model(hidden: Sequence[int], seed: int) -> RewardModel:
    observation_space = spaces.Box(-np.inf, np.inf, (OBSERVATIONS,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)
    return reward_model(observation_space, action_space, MEMBERS, hidden, seed=seed)


def _comparisons(pairs: int, seed: int) -> Comparisons:
    rng = np.random.default_rng(seed)

    def side() -> Segments:
        observations = rng.standard_normal((pairs, STEPS, OBSERVATIONS)).astype(np.float32)
        return Segments(
            actions=rng.uniform(-1.0, 1.0, (pairs, STEPS, ACTIONS)).astype(np.float32),
            mask=np.ones((pairs, STEPS), bool),
            context=observations[:, 0],
            context_id=np.zeros(pairs, np.int64),
            observations=observations,
        )

    return Comparisons(side(), side(), label=rng.integers(2, size=pairs).astype(np.float64))


if __name__ == "__main__":
    main()
