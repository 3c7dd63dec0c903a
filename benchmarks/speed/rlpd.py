"""One update of RLPD's ten critics, over one update of Stable-Baselines3's SAC with two.

    python -m benchmarks.speed.rlpd

Both agents have the same widths, batch and replayed steps (random play on Hopper), and take the
same number of updates in turns, on one thread; the ratio of medians counts. RLPD takes them as it
is meant to, ten updates of the critics for one of actor and temperature; SAC updates all of them
every time. Told beside it: RLPD with all of them every time. Limit: the matrix products, of which
ten critics are five times those of two; a target is computed for the two that are drawn alone.
"""

import argparse
import statistics
import time
from typing import Any

import gymnasium as gym
import torch

import prefgym  # noqa: F401
from benchmarks.provenance import ROOT, provenance, write_result
from prefgym_agents.rlpd import RLPD
from prefgym_agents.sb3 import sb3_backend

ENV, WIDTH, BATCH, PLAYED, UPDATES = "prefgym/Hopper-v0", (256, 256), 256, 2_000, 20
CRITICS, RATIO, ROUNDS, WANTED = 10, 10, 15, 2.5


def agent(kind: Any, updates_per_step: int | None = None, **network: Any) -> Any:
    """An agent that has played at random."""
    more = {} if updates_per_step is None else {"updates_per_step": updates_per_step}
    env = gym.make_vec(ENV, num_envs=8, query_every=None)
    backend = sb3_backend(
        kind,
        env,
        seed=0,
        batch_size=BATCH,
        learning_starts=PLAYED,
        policy_kwargs={"net_arch": list(WIDTH), **network},
        **more,
    )
    backend.begin(PLAYED)
    while backend.num_timesteps < PLAYED:
        backend.collect()
    return backend.model


def seconds(model: Any) -> float:
    """Of some updates."""
    begun = time.perf_counter()
    steps = UPDATES // getattr(model, "updates_per_step", 1)
    model.train(gradient_steps=steps, batch_size=BATCH)
    return time.perf_counter() - begun


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="alternations; medians count")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    sides = {
        "RLPD": agent(RLPD, RATIO, critics=CRITICS),
        "SAC": agent("SAC", n_critics=2),
        "RLPD, actor every time": agent(RLPD, 1, critics=CRITICS),
    }
    for model in sides.values():
        seconds(model)
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, model in sides.items():
            spent[name].append(seconds(model) / UPDATES)
    medians = {name: statistics.median(values) for name, values in spent.items()}
    ratio = medians["RLPD"] / medians["SAC"]
    path = write_result(
        "speed_rlpd",
        {
            **provenance("benchmarks.speed.rlpd", ("torch", "stable_baselines3")),
            "critics": CRITICS,
            "width": list(WIDTH),
            "batch": BATCH,
            "seconds_per_update": medians,
            "updates_of_the_actor": 1 / RATIO,
            "ratio": ratio,
            "ratio_actor_every_time": medians["RLPD, actor every time"] / medians["SAC"],
        },
    )
    print(f"written to {path.relative_to(ROOT)}")
    print(f"ratio={ratio:.2f} wanted<={WANTED} holds={ratio <= WANTED}")


if __name__ == "__main__":
    main()
