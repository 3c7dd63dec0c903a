"""Imitating an expert: what becomes an example, what it costs, and what comes of it."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import prefgym  # noqa: F401
from benchmarks.claims import leak
from prefgym.interventions import Distance, Supervision
from prefgym_agents.evaluation import evaluate
from prefgym_agents.imitation import Imitation, whole_episodes
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.tabular import TabularQ
from prefgym_envs import pit_grid

GRID = "prefgym/PitGrid-v0"
BEST = pit_grid.task().values.q[0].argmax(1)


def best(cells: np.ndarray) -> np.ndarray:
    return BEST[cells]


SUPERVISED: dict[str, Any] = {
    "bc": whole_episodes(best),
    "dagger": Supervision(best, lambda seen, done, rng: np.zeros(len(seen), bool)),
    "hg_dagger": Supervision(best, Distance(best), steps=3),
    "dagger_released": Supervision(best, lambda seen, done, rng: np.zeros(len(seen), bool)),
    "hg_dagger_released": Supervision(best, Distance(best), steps=3),
}


def imitation(preset: str, seed: int = 0, **changes: Any) -> Imitation:
    env = gym.make_vec(GRID, num_envs=8, query_every=None, supervision=SUPERVISED[preset])
    small = {"n_steps": 16, "batch_size": 128, "learning_rate": 3e-3, "ent_coef": 0.0}
    backend = sb3_backend("PPO", env, seed=seed, policy_kwargs={"net_arch": [32]}, **small)
    return Imitation(backend, preset, seed=seed, **changes)


@pytest.mark.parametrize("preset", SUPERVISED)
def test_examples_are_what_the_method_says(preset: str) -> None:
    learner = imitation(preset, gradient_steps=1).learn(1_024)
    seen, done = np.concatenate(learner._observations), np.concatenate(learner._actions)
    right = done == BEST[seen]
    assert right.all() == (not preset.endswith("released"))
    whole = learner.env.store.segments(learner.env.store.since(np.zeros(8, np.int64)), 100)
    by_expert = whole.factors["intervened"][whole.mask] > 0
    if preset == "bc":
        assert by_expert.all()
    if preset in ("bc", "hg_dagger"):
        assert learner.labels == len(done) == by_expert.sum()
    if preset == "dagger":
        assert learner.labels == len(done) == 1_024
        assert not by_expert.any()
    if preset == "dagger_released":
        assert len(done) == 1_024
        assert abs(learner.labels / 1_024 - 0.5) < 0.06


@pytest.mark.parametrize("preset", ["bc", "dagger", "hg_dagger"])
def test_labels_are_never_more_than_allowed(preset: str) -> None:
    learner = imitation(preset, labels=100, gradient_steps=1).learn(1_024)
    assert learner.labels == 100 == len(np.concatenate(learner._actions))


@pytest.mark.parametrize("preset", ["bc", "dagger", "hg_dagger"])
def test_a_good_expert_is_worth_imitating(preset: str) -> None:
    learner = imitation(preset, gradient_steps=16).learn(4_096)
    assert evaluate(learner, GRID, episodes=100, seed=1_000_000).mean() >= 0.8


def test_saved_and_loaded_it_goes_on_bit_for_bit(run_folder: Any) -> None:
    first = imitation("hg_dagger", gradient_steps=2)
    turns = first.iterations(1_024)
    for steps, _ in turns:
        if steps >= 512:
            break
    first.save(run_folder / "saved")
    for _ in turns:
        pass
    second = imitation("hg_dagger", seed=9, gradient_steps=2)
    second.config = first.config
    second.load(run_folder / "saved").learn(1_024)
    assert leak.fingerprint(first) == leak.fingerprint(second)
    assert first.labels == second.labels


def test_an_expert_who_never_acts_is_a_warning() -> None:
    env = gym.make_vec(GRID, num_envs=8, query_every=None, supervision=SUPERVISED["dagger"])
    backend = sb3_backend("PPO", env, seed=0, n_steps=16, batch_size=128)
    with pytest.warns(UserWarning, match="has not acted in the first 128 steps") as said:
        Imitation(backend, "hg_dagger").learn(1_024)
    assert len(said) == 1


def test_what_cannot_be_is_refused() -> None:
    pytest.importorskip("transformers")
    from prefgym_agents.language import language_backend

    alone = gym.make_vec(GRID, num_envs=2, query_every=None)
    with pytest.raises(ValueError, match="nobody supervises"):
        Imitation(sb3_backend("PPO", alone, n_steps=64, batch_size=64))
    watched = gym.make_vec(GRID, num_envs=2, query_every=None, supervision=SUPERVISED["bc"])
    with pytest.raises(ValueError, match="acts deterministically"):
        Imitation(TabularQ(watched))
    text = gym.make_vec("prefgym/TextCopy-v0", num_envs=2, supervision=SUPERVISED["bc"])
    with pytest.raises(ValueError, match="in single observations, and this environment writes"):
        Imitation(language_backend(text, algorithm="GRPO", seed=0))
    for changes in ({"labels": 0}, {"share": 0.0}, {"silence": 0.0}, {"ask": "nobody"}):
        with pytest.raises(Exception, match=next(iter(changes))):
            imitation("bc", **changes)
