"""What preference models with more than one reward cost to fit, over plain Bradley-Terry.

    python -m benchmarks.speed.populations

GPM, PAL and VPL (K = 2 tastes, 20 raters) against a scalar ensemble of equal width: the same pairs,
members, hidden layers, minibatches, passes and optimizer, through the same ``fit``. Two widths:
PEBBLE's 3 × 256, and the 2 × 64 of the benchmark of preference models, where what is done once per
minibatch weighs most. The models alternate, and only ratios of medians count.

What the ratio consists of. PAL: a row per rater and K numbers per step for one. GPM: four numbers
per step, and a product of two vectors for a difference. VPL: sixteen numbers per step, and in every
minibatch a network that reads up to eight answers of each rater, and its gradient.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from gymnasium import spaces

from benchmarks.provenance import ROOT, provenance, write_result
from prefgym.comparisons import Comparisons
from prefgym.models.fit import adam, fit
from prefgym.models.presets import MODELS, model_head
from prefgym.models.reward_models import reward_model
from prefgym.segments import Segments

OBSERVATIONS, ACTIONS, STEPS, MEMBERS = 11, 3, 50, 3  # Hopper's widths, PEBBLE's segments
RATERS, BATCH, WANTED = 20, 128, 1.5
PLAIN, COMPARED = "bt", ("gpm", "pal", "vpl")
WIDTHS = {"3 x 256": ((256, 256, 256), 256), "2 x 64": ((64, 64), 1_024)}
"""Hidden layers, and the pairs that one pass goes over."""


def drawn(rng: np.random.Generator, count: int) -> Segments:
    """Random segments of a control task."""
    observations = rng.standard_normal((count, STEPS, OBSERVATIONS)).astype(np.float32)
    return Segments(
        actions=rng.uniform(-1.0, 1.0, (count, STEPS, ACTIONS)).astype(np.float32),
        mask=np.ones((count, STEPS), np.bool_),
        context=observations[:, 0],
        context_id=np.arange(count),
        observations=observations,
    )


def comparisons(count: int) -> Comparisons:
    """Answers of two groups of raters who want opposite things."""
    rng = np.random.default_rng(0)
    a, b = drawn(rng, count), drawn(rng, count)
    who = rng.integers(RATERS, size=count)
    gap = (a.observations[..., 0] - b.observations[..., 0]).sum(1)
    label = (gap * np.where(who % 2, 1.0, -1.0) > 0.0).astype(np.float64)
    return Comparisons(a, b, label, rater_id=who, meaning="speed")


def seconds(name: str, hidden: tuple[int, ...], data: Comparisons) -> float:
    """One pass over the pairs with a new model."""
    seen = spaces.Box(-np.inf, np.inf, (OBSERVATIONS,), np.float32)
    done = spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)
    head = model_head(name, raters=RATERS)
    model = reward_model(seen, done, members=MEMBERS, hidden=hidden, head=head)
    optimizer = adam(model)
    begun = time.perf_counter()
    fit(
        model,
        data,
        optimizer,
        np.random.default_rng(0),
        epochs=1,
        batch_pairs=BATCH,
        loss=MODELS[name].loss,
        stop_accuracy=1.0,
    )
    return time.perf_counter() - begun


def ratios(rounds: int) -> dict[str, dict[str, float]]:
    """Width -> model -> its median time over that of Bradley-Terry."""
    found = {}
    for width, (hidden, pairs) in WIDTHS.items():
        data = comparisons(pairs)
        spent: dict[str, list[float]] = {name: [] for name in (PLAIN, *COMPARED)}
        for _ in range(rounds + 1):  # the first round warms up, and is left out
            for name, values in spent.items():
                values.append(seconds(name, hidden, data))
        medians = {name: statistics.median(values[1:]) for name, values in spent.items()}
        found[width] = {name: medians[name] / medians[PLAIN] for name in COMPARED}
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--rounds", type=int, default=9, help="alternations; medians are taken")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = ratios(arguments.rounds)
    for width, each in found.items():
        for name, ratio in each.items():
            holds = ratio <= WANTED
            print(f"{name} at {width} ratio={ratio:.2f} wanted<={WANTED} holds={holds}")
    path = write_result(
        "speed_populations",
        {
            **provenance("benchmarks.speed.populations"),
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "raters": RATERS,
            "members": MEMBERS,
            "ratios_to_bradley_terry": found,
        },
    )
    print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
