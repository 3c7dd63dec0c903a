"""Whole trainings whose judge is an endpoint that errs, dies and returns, or is slow."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import prefgym  # noqa: F401
from prefgym.annotation import Annotator
from prefgym.annotation.labels import LabelReader
from prefgym.captions import CAPTION
from prefgym.judges import Cached, EndpointJudge, Patience
from prefgym.judges.prompts import judge_prompt
from prefgym.raters.language import LanguageRater
from prefgym_agents.intrinsic import Intrinsic
from prefgym_agents.sb3 import sb3_backend
from tests.endpoint_server import MODEL, Said, endpoint

GOAL, STEPS, TURN = "open the door", 1_536, 128
PATIENCE = Patience(concurrency=16, timeout_s=20.0, attempts=2, backoff_s=0.01)
TIMEOUT_S = 1.0


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def until(true: Callable[[], Any], most_s: float = 120.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@contextmanager
def training(
    folder: Path, url: str, patience: Patience = PATIENCE, cached: bool = False
) -> Iterator[Intrinsic]:
    """A learner whose annotator asks there; it is closed behind the block."""
    judge: Any = EndpointJudge(url, MODEL, patience=patience, key_variable=None)
    if cached:
        judge = Cached(judge, folder / "answers.db")
    away = Annotator(folder / "labels", partial(LanguageRater, judge, GOAL), retry_s=0.02)
    env = gym.make_vec("prefgym/DoorKey-5x5-v0", num_envs=4, counts=4, query_every=None)
    settings = {"n_steps": TURN // 4, "batch_size": 64, "n_epochs": 2}
    policy = sb3_backend("PPO", env, seed=0, policy_kwargs={"net_arch": [16]}, **settings)
    made = Intrinsic(policy, away)
    try:
        yield made
    finally:
        made.close()


def trained(made: Intrinsic, server: Any) -> dict[str, float]:
    """Metrics at the end of a whole training, which the first question precedes."""
    turns = made.iterations(STEPS)
    next(turns)
    until(lambda: server.asked)
    *_, (steps, metrics) = turns
    assert steps == STEPS
    return dict(metrics)


def trained_until(
    turns: Iterator[Any], enough: Callable[[dict[str, float]], Any]
) -> dict[str, float]:
    """Metrics of the first turn after which it is enough."""
    return next(metrics for _, metrics in turns if enough(metrics))


def seen(made: Intrinsic) -> set[str]:
    """All captions that steps told."""
    pieces = made.store.segments(made.store.since(np.zeros(4, np.int64), 7), 7)
    return {*made.captions.texts(np.unique(pieces.factors[CAPTION][pieces.mask]))} - {""}


def check_kept(made: Intrinsic, folder: Path) -> set[str]:
    """Every caption that was seen waits, or has one label; those that have one."""
    labelled = [question[0] for question, _ in LabelReader(folder / "labels", "helpful").read()]
    assert len({*labelled}) == len(labelled) == made.annotator.counts()["labelled"]
    waiting = [one["captions"][0] for one in made.annotator.get_state()["waiting"]]
    assert sorted([*labelled, *waiting]) == sorted(seen(made))
    return {*labelled}


WAYS = {
    "rate_limits": Said(status=429, headers={"Retry-After": "0"}, body=b"slow down"),
    "server_errors": Said(status=500),
    "malformed": Said(body=b'{"choices": ['),
    "cut_off": Said(cut=True),
    "timeouts": Said(delay_s=1.5 * TIMEOUT_S),
}
QUICK = [*WAYS][:4]


class Moody:
    """Errs at the first two attempts of every question, in another way each time.

    The judge gives up after two, so that the annotator has to ask again.
    """

    def __init__(self) -> None:
        self.lock, self.asked = Lock(), Counter[str]()
        self.errors, self.answered = Counter[str](), Counter[str]()

    def __call__(self, number: int, prompt: str) -> Said:
        with self.lock:
            self.asked[prompt] += 1
            if self.asked[prompt] > 2:
                self.answered[prompt] += 1
                return Said()
            name = (*QUICK, *WAYS)[self.errors.total() % (len(QUICK) + len(WAYS))]
            self.errors[name] += 1
            return WAYS[name]


@pytest.mark.filterwarnings("ignore:Intrinsic. no label has come")
@pytest.mark.filterwarnings("ignore:The annotator's judge fails")
def test_all_that_a_server_can_do_wrong_stops_nothing_and_is_counted(run_folder: Path) -> None:
    moody = Moody()
    patience = replace(PATIENCE, timeout_s=TIMEOUT_S)
    with (
        endpoint(moody) as server,
        training(run_folder, server.url, patience, cached=True) as made,
    ):
        trained(made, server)
        counts = made.annotator.counts
        until(lambda: not counts()["waiting"])
        errors = moody.errors.copy()
        (metrics,) = (metrics for _, metrics in made.iterations(STEPS + TURN))
        assert errors.keys() == {*WAYS}
        assert all(metrics[f"rater/{name}"] >= number for name, number in errors.items())
        assert metrics["rater/failures"] > 0
        assert metrics["reward_model/positive_labels"] > 0.0

        until(lambda: not counts()["waiting"])
        labelled = check_kept(made, run_folder)
        assert moody.answered == dict.fromkeys((judge_prompt(GOAL, one) for one in labelled), 1)
        assert {name: counts()[name] for name in moody.errors} == moody.errors
        assert counts()["given_up"] == counts()["unanswered"] == len(labelled)
        assert counts()["restarts"] == counts()["dropped"] == counts()["unparsable"] == 0


@pytest.mark.filterwarnings("ignore:Intrinsic. no label has come")
def test_a_server_may_die_in_mid_training_and_return(run_folder: Path) -> None:
    dying, dead = Event(), Event()

    def mortal(number: int, prompt: str) -> Said:
        if number >= 3:
            dying.set()
            dead.wait(600.0)
        return Said()

    one_by_one = replace(PATIENCE, concurrency=1)
    with endpoint(mortal) as server, training(run_folder, server.url, one_by_one) as made:
        turns = made.iterations(200_000)
        next(turns)
        until(lambda: server.asked)
        died = trained_until(turns, lambda _: dying.is_set())
        server.hang_up()
        dead.set()

        begun, later = time.monotonic(), died["time/total_timesteps"] + 8 * TURN
        with pytest.warns(RuntimeWarning, match="judge fails .no answer came"):
            gone = trained_until(
                turns,
                lambda now: now["time/total_timesteps"] >= later and now["rater/failures"] >= 3,
            )
        kept_waiting_s = gone["time/rater"] - died["time/rater"]
        assert kept_waiting_s < 0.1 * (time.monotonic() - begun)
        assert gone["rater/labelled"] == 3
        assert gone["rater/waiting"] == len(seen(made)) - 3 > 0
        assert gone["rater/unreachable"] >= 3

        with endpoint(port=server.server_port) as returned:
            metrics = trained_until(turns, lambda now: not now["rater/waiting"])
            labelled = check_kept(made, run_folder)
    assert metrics["rater/labelled"] == len(labelled) > 3
    assert metrics["rater/restarts"] == 0
    asked = [one["messages"][0]["content"] for one in server.asked[:3] + returned.asked]
    assert sorted(asked) == sorted(judge_prompt(GOAL, one) for one in labelled)


def test_answers_that_take_longer_than_the_training_keep_nobody_waiting(run_folder: Path) -> None:
    """Those of 10 s, or of more where the training takes more."""
    over = Event()

    def slow(number: int, prompt: str) -> Said:
        over.wait(600.0)
        return Said()

    with endpoint(slow) as server:
        with training(run_folder, server.url) as made:
            with pytest.warns(UserWarning, match="no label has come in the first"):
                metrics = trained(made, server)
            assert metrics["rater/labelled"] == metrics["rater/failures"] == 0
            assert metrics["rater/waiting"] == len(seen(made)) > 0
            made.save(run_folder / "saved")
            waited, begun = seen(made), time.monotonic()
        assert time.monotonic() - begun < 5.0
        over.set()
        with training(run_folder, server.url) as made:
            made.load(run_folder / "saved")
            until(lambda: not made.annotator.counts()["waiting"])
            assert check_kept(made, run_folder) == waited
