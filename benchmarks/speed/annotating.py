"""What annotation costs a training: environment steps/s with the annotator on, over those with off.

    python -m benchmarks.speed.annotating                    # a minute

On: a process asks an endpoint, which is a third one and answers each question in 20 ms, 32 at once,
with no cache. Off: an annotator that answers nothing and starts no process. All else is the same:
DoorKey-8x8 with the settings of the claim ``oni``, captions are made, numbered and offered, and
rewarded by a model that has learned from labels before. What captions earn counts for nothing in
the policy's reward, and both sides draw the same random numbers, so that they take the very same
steps. They do so in turns, a second or so each; meanwhile the other side's process is halted
(SIGSTOP, hence not on Windows). The median over the rounds of neighbouring turns' ratio counts.

DoorKey has twelve captions, and soon there would be nothing to ask. Here every caption gets a
number of its own, as if the agent had never met it, and twenty times ONI's pairs are offered: the
annotator has questions all the time and labels come at every update, which is the hard case.

    ranking            the model of captions learns as in ONI, 32 gradient steps at every update of
                       the policy at which labels came
    ranking unlearned  it takes labels and no gradient steps: what the annotator alone costs
    retrieval          its model is a table; every caption that comes is asked about

What limits it: the gradient steps. They are taken in the training's process because labels came.
Where captions end, as in DoorKey itself, so do they. The annotator does two things in that process:
questions and labels pass a pipe and a file, in a thread that sleeps otherwise. The rest is up to
other cores. Three processes on two cores share caches and, since the endpoint is on the same
machine, processor time; ratios of the training's own processor time, told beside, leave that out.
"""

import argparse
import itertools
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.utils import set_random_seed

import prefgym  # noqa: F401
from benchmarks.claims.leak import fingerprint
from benchmarks.claims.oni import GOAL, LANES, MOST, PPO
from benchmarks.provenance import ROOT, provenance, write_result
from benchmarks.speed.annotating_judge import EndpointsTimeRulesWords
from benchmarks.speed.judging import DELAY_S, endpoint
from prefgym.annotation import Annotator, Inline
from prefgym.captions import CAPTION
from prefgym.judges import RuleJudge
from prefgym.models.caption_models import Online, Ranking, Supply
from prefgym.raters.language import LanguageRater
from prefgym.wrappers.captioned import CaptionedVectorEnv
from prefgym_agents.intrinsic import MODELS, Intrinsic
from prefgym_agents.sb3 import sb3_backend

ENV, WANTED = "prefgym/DoorKey-8x8-v0", 0.9
ROUNDS, UPDATES = 5, 4
STEPS = UPDATES * LANES * PPO["n_steps"]
"""Environment steps of a turn."""
SUPPLY = Supply(pairs=200, enough=400)
"""More than can be answered during an update."""
LABELS, PATIENCE_S = 100, 60.0
"""Awaited before the clock starts, and for how long."""
NEVER = 10**9
CASES = ("ranking", "ranking unlearned", "retrieval")


class Numbered(gym.vector.VectorWrapper):
    """No caption comes twice; its number is told digit by digit, since words are few."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._numbers = itertools.count()

    def step(self, actions: Any) -> Any:
        """A step, in whose captions a number stands."""
        *played, infos = self.env.step(actions)
        said = [
            f"{one} {' '.join(str(next(self._numbers)))}" if one else "" for one in infos[CAPTION]
        ]
        return (*played, {**infos, CAPTION: np.array(said, object)})


def environment() -> Any:
    """The environment, with captions that never end."""
    env: Any = gym.make_vec(ENV, num_envs=LANES, counts=MOST, query_every=None, capacity=60_000)
    layer = env
    while not isinstance(layer, CaptionedVectorEnv):
        layer = layer.env
    layer.env = Numbered(layer.env)
    return env


class Side:
    """A training that goes on by turns."""

    def __init__(self, case: str, annotator: Annotator | Inline) -> None:
        self.annotator = annotator
        policy = sb3_backend("PPO", environment(), seed=0, **PPO)
        self.learner = Intrinsic(policy, annotator, case.split()[0], intrinsic=0.0)
        if case == "ranking":
            self.learner.model = Ranking(supply=SUPPLY)
        elif case == "ranking unlearned":
            self.learner.model = Ranking(supply=SUPPLY, online=Online(steps=0, later_steps=0))
        self._iterations = self.learner.iterations(NEVER)
        self._turns = 0
        self._halt(True)

    def turn(self) -> dict[str, float]:
        """Train for some updates: steps/s, and processor seconds, learning from labels apart."""
        set_random_seed(self._turns)
        self._turns += 1
        self._halt(False)
        before, learning = self.annotator.counts(), self.learner.clock.seconds["reward_model"]
        begun, busy = time.perf_counter(), time.process_time()
        idle = 0
        for _, metrics in itertools.islice(self._iterations, UPDATES):
            idle += metrics["rater/waiting"] == 0
        seconds, busy = time.perf_counter() - begun, time.process_time() - busy
        after = self.annotator.counts()
        self._halt(True)
        return {
            "steps_per_s": STEPS / seconds,
            "processor_s": busy,
            "model_s": self.learner.clock.seconds["reward_model"] - learning,
            "labels_per_s": (after["labelled"] - before["labelled"]) / seconds,
            "idle": idle / UPDATES,
        }

    def await_labels(self) -> None:
        """Let the annotator go on, and the training stand still, until there are labels.

        Raises:
            RuntimeError: there are none after a minute.
        """
        self._halt(False)
        end = time.monotonic() + PATIENCE_S
        while self.annotator.counts()["labelled"] < LABELS:
            if time.monotonic() > end:
                raise RuntimeError(f"no labels came: {self.annotator.counts()}")
            time.sleep(0.01)
        self._halt(True)

    def close(self) -> None:
        """End the environment and the annotator, who has to be awake for it."""
        self._halt(False)
        self.learner.close()

    def _halt(self, still: bool) -> None:
        """Stop the annotator's process, or let it go on."""
        if isinstance(self.annotator, Annotator) and self.annotator.pid is not None:
            os.kill(self.annotator.pid, signal.SIGSTOP if still else signal.SIGCONT)


@contextmanager
def sides(case: str) -> Iterator[dict[str, Side]]:
    """On and off, both with a model that has learned from the same labels."""
    kind = MODELS[case.split()[0]]
    with endpoint() as url, tempfile.TemporaryDirectory() as folder:
        rater = partial(LanguageRater, EndpointsTimeRulesWords(url), GOAL)
        on = Side(case, Annotator(Path(folder), rater, kind))
        off = Side(case, Inline(LanguageRater(RuleJudge(), GOAL), kind, every=NEVER))
        try:
            for side in (on, off):
                side.turn()
            on.await_labels()
            on.turn()
            off.learner.model.set_state(on.learner.model.get_state())
            off.turn()
            yield {"on": on, "off": off}
        finally:
            on.close()
            off.close()


def measure(case: str, rounds: int) -> dict[str, Any]:
    """Turns of both sides, and how they compare.

    Raises:
        RuntimeError: the two did not take the same steps, or the annotator failed.
    """
    told: dict[str, list[dict[str, float]]] = {"on": [], "off": []}
    with sides(case) as both:
        for number in range(rounds):
            for name in sorted(both, reverse=number % 2 == 1):
                told[name].append(both[name].turn())
        prints = {fingerprint(side.learner) for side in both.values()}
        counts = both["on"].annotator.counts()
    if len(prints) > 1 or counts["failures"] or counts["restarts"]:
        raise RuntimeError(
            f"the two did other things ({len(prints)} policies), or failed: {counts}"
        )
    neighbours = list(zip(told["on"], told["off"], strict=True))
    return {
        "ratio": statistics.median(
            on["steps_per_s"] / off["steps_per_s"] for on, off in neighbours
        ),
        "ratio_of_processor_time": statistics.median(
            off["processor_s"] / on["processor_s"] for on, off in neighbours
        ),
        **{
            side: {name: statistics.median(one[name] for one in turns) for name in turns[0]}
            for side, turns in told.items()
        },
        "ratios": [on["steps_per_s"] / off["steps_per_s"] for on, off in neighbours],
        "counts": {name: number for name, number in counts.items() if number},
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="alternations; medians count")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    found = {case: measure(case, rounds) for case in CASES}
    content = {
        **provenance("benchmarks.speed.annotating", ("torch", "stable_baselines3", "openai")),
        "environment": ENV,
        "lanes": LANES,
        "steps_of_a_turn": STEPS,
        "rounds": rounds,
        "delay_s": DELAY_S,
        "ratio": found["retrieval"]["ratio"],
        "cases": found,
    }
    path = write_result("speed_annotating", content)
    print(f"written to {path.relative_to(ROOT)}")
    for case, one in found.items():
        on, off, ratio = one["on"], one["off"], one["ratio"]
        print(
            f"{case}: {on['steps_per_s']:.0f} steps/s on, {off['steps_per_s']:.0f} off,"
            f" {on['labels_per_s']:.0f} labels/s; ratio of processor time"
            f" {one['ratio_of_processor_time']:.3f}"
        )
        print(f"annotating {case} ratio={ratio:.3f} wanted>={WANTED} holds={ratio >= WANTED}")


if __name__ == "__main__":
    main()
