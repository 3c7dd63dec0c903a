"""Graded experts: files, noise, grades, the critic beside them, and the training that made them."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import prefgym
from prefgym.interventions import (
    GradedExpert,
    ValueBased,
    as_expert,
    load_expert,
    load_experts,
    reference_critic,
)
from prefgym.interventions.stored import save_experts
from prefgym.values import Critic, Layer
from prefgym_agents import commands, expert_training, experts
from prefgym_agents.expert_training import mean_policy, returns_of, train_checkpoints
from prefgym_agents.fitted_values import Steps, explored, fitted_critic

FOLDER = Path(prefgym.__file__).parents[1] / "envs" / "prefgym_envs" / "experts"
NAMES = sorted(one.name.split(".")[0] for one in FOLDER.glob("*.critic.safetensors"))
PENDULUM = "prefgym/Pendulum-v0"


def made_up(seed: int = 0, share: float = 0.0, **about: Any) -> GradedExpert:
    """A random perceptron for 3 numbers and 2 actions with unequal bounds."""
    rng = np.random.default_rng(seed)
    weights = tuple(rng.normal(size=shape).astype(np.float32) for shape in ((3, 8), (8, 2)))
    biases = tuple(rng.normal(size=size).astype(np.float32) for size in (8, 2))
    seen = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    acted = gym.spaces.Box(np.float32([-2.0, 0.0]), np.float32([2.0, 5.0]))
    return GradedExpert(weights, biases, seen, acted, "tanh", "tanh", share, seed, about)


def states(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"lanes": 4, "n_steps": 8, "batch_size": 32, "n_epochs": 1}
    small = {**expert_training.SETTINGS[PENDULUM], **few}
    monkeypatch.setitem(expert_training.SETTINGS, PENDULUM, small)
    for module, name, value in (
        (expert_training, "EPISODES", 2),
        (expert_training, "CHECKPOINTS", 6),
        (experts, "CHOICE_EPISODES", 3),
        (experts, "FINAL_EPISODES", 3),
        (experts, "EXPLORED", 600),
        (experts, "HELD_OUT", 300),
        (experts, "BISECTIONS", 2),
    ):
        monkeypatch.setattr(module, name, value)


# --- a policy and its file ----------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_loaded_expert_acts_as_the_saved_one(tmp_path: Path, share: float) -> None:
    path = tmp_path / "some.safetensors"
    saved = [made_up(0, share, asked=70.0, grade=68.5), made_up(1, 0.0, asked=20.0, grade=19.0)]
    save_experts(path, saved)
    for one, other in zip(saved, load_experts(path), strict=True):
        np.testing.assert_array_equal(one(states(200)), other(states(200)))
        assert (one.observation_space, one.action_space) == (
            other.observation_space,
            other.action_space,
        )
        assert one.about == other.about
    assert load_expert(path, 20).grade == 19.0
    assert load_expert(path).grade == 68.5
    assert [one.name for one in tmp_path.iterdir()] == ["some.safetensors"]


def test_an_expert_is_a_fixed_policy() -> None:
    """Neither the order of observations, nor how many come at a time, nor the past matters."""
    expert, rows = made_up(share=0.5), states(300)
    whole, order = expert(rows), np.random.default_rng(2).permutation(300)
    np.testing.assert_array_equal(expert(rows[order]), whole[order])
    np.testing.assert_allclose(np.concatenate([expert(one[None]) for one in rows]), whole, 1e-6)


def test_noise_changes_its_share_of_states_and_draws_from_the_whole_range() -> None:
    rows, sure = states(20_000), made_up()
    changed = {
        share: (replace(sure, share=share)(rows) != sure(rows)).any(1) for share in (0.1, 0.4)
    }
    for share, rows_changed in changed.items():
        assert rows_changed.mean() == pytest.approx(share, abs=4 * np.sqrt(share / 20_000))
    assert not (changed[0.1] & ~changed[0.4]).any()  # more noise keeps the old mistakes
    drawn = replace(sure, share=1.0)(rows)
    low, high = sure.action_space.low, sure.action_space.high
    unit = (drawn - low) / (high - low)
    np.testing.assert_allclose(unit.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(unit.var(0), 1 / 12, atol=0.003)
    assert abs(np.corrcoef(unit.T)[0, 1]) < 0.03
    assert abs(np.corrcoef(unit[:-1, 0], unit[1:, 0])[0, 1]) < 0.03
    other = replace(sure, share=1.0, seed=7)(rows)
    assert abs(np.corrcoef(drawn[:, 0], other[:, 0])[0, 1]) < 0.03


def test_an_expert_of_another_task_is_refused() -> None:
    env = gym.make("prefgym/Reacher-v0")
    with pytest.raises(ValueError, match=r"The expert's observation space is Box.* trained in"):
        as_expert(load_expert("Pendulum"), env.observation_space, env.action_space)
    env = gym.make(PENDULUM)
    acting = as_expert(load_expert("Pendulum"), env.observation_space, env.action_space)
    assert env.action_space.contains(acting(env.reset(seed=0)[0][None])[0])


def test_an_expert_acts_without_torch() -> None:
    code = (
        "import sys, numpy\n"
        "from prefgym.interventions import load_expert, reference_critic\n"
        "load_expert('Pendulum', 40)(numpy.zeros((2, 3)))\n"
        "reference_critic('Pendulum')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("which", "grade", "message"),
    [
        ("Pendulm", None, "Unknown task with experts 'Pendulm'; did you mean 'Pendulum'"),
        ("Pendulum", 35, r"no expert of grade 35; there are 110 \(measured 9.\), 70 \(measured"),
        ("nobody.safetensors", None, "There is no file nobody.safetensors of experts; `prefgym ex"),
        (FOLDER / "Pendulum.critic.safetensors", None, "holds prefgym-critic-1, and this version"),
    ],
)
def test_what_is_no_expert_is_said_in_a_sentence(
    which: str | Path, grade: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_expert(which, grade)


def test_damaged_files_and_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "experts.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="cannot be read as experts"):
        load_experts(path)
    save_file({"a": np.zeros(1)}, path)
    with pytest.raises(ValueError, match="holds no experts"):
        load_experts(path)
    one = made_up()
    with pytest.raises(ValueError, match="NaN or infinity; train it again"):
        replace(one, biases=(one.biases[0] * np.nan, one.biases[1]))
    with pytest.raises(ValueError, match=r"wanted \[3, outputs\]"):
        replace(one, weights=(one.weights[0][:2], one.weights[1]))
    with pytest.raises(ValueError, match="wanted one in"):
        replace(one, share=2.0)
    with pytest.raises(ValueError, match="got no expert"):
        save_experts(path, [])


# --- the files that come along ------------------------------------------------------------------


def test_there_are_experts_of_pendulum() -> None:
    assert "Pendulum" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_and_the_table_says_what_they_say(name: str) -> None:
    found = load_experts(name)
    assert (FOLDER / f"{name}.safetensors").stat().st_size < 200_000
    assert (FOLDER / f"{name}.critic.safetensors").stat().st_size < 200_000
    env = gym.make(f"prefgym/{name}-v0")
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    page = (FOLDER.parents[2] / "docs" / "experts.md").read_text(encoding="utf-8")
    for one in found:
        about = one.about
        as_expert(one, env.observation_space, env.action_space)
        assert about["env"] == f"prefgym/{name}-v0"
        row = (
            f"| {name} | {about['asked']:g} | {about['grade']} ± {about['grade_error']} |"
            f" {about['mean_return']} ± {about['return_std']} | {about['checkpoint']:,} |"
            f" {one.share:.1%} |"
        )
        assert row in told
        assert row in page


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_critic_refuses_random_actions_and_lets_the_best_experts_pass(
    name: str,
) -> None:
    about = Critic.load(FOLDER / f"{name}.critic.safetensors").about
    assert about["better_than_random"] > about["better_than_noisy"]
    assert about["refused_random"] > about["refused_noisy"]
    values = reference_critic(name)
    best = load_expert(name)
    rng = np.random.default_rng(0)
    rows = explored(f"prefgym/{name}-v0", [best] * 6, 600, rng).observations
    rule = ValueBased(values, sure=1.0, slip=0.0)
    assert not rule(rows, best(rows), rng).any()
    space = best.action_space
    drawn = rng.uniform(space.low, space.high, best(rows).shape)
    assert rule(rows, drawn, rng).mean() > 0.02


def test_pendulums_critic_says_that_worse_experts_lose_more() -> None:
    told = Critic.load(FOLDER / "Pendulum.critic.safetensors").about["mean_loss"]
    losses = [told[f"{one.about['asked']:g}"] for one in load_experts("Pendulum")]
    assert losses == sorted(losses)
    assert losses[0] == 0.0
    assert losses[-1] > 0.02


@pytest.mark.parametrize("grade", [110, 70, 40, 20])
def test_pendulums_grades_are_found_again_over_other_episodes(grade: int) -> None:
    expert = load_expert(PENDULUM, grade)
    about = expert.about
    returns = returns_of(expert, PENDULUM, 40, seed=77)
    error = returns.std() / np.sqrt(40) * 100.0 / (about["good"] - about["random"])
    found = 100.0 * (returns.mean() - about["random"]) / (about["good"] - about["random"])
    assert found == pytest.approx(expert.grade, abs=3.5 * np.hypot(error, about["grade_error"]))


def test_more_noise_is_a_lower_return() -> None:
    best = load_expert("Pendulum")
    means = [
        returns_of(replace(best, share=share), PENDULUM, 40, seed=3).mean()
        for share in (0.0, 0.3, 0.6, 1.0)
    ]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[-1] > 500


# --- grades -------------------------------------------------------------------------------------


SCALE = experts.Scale(random=0.0, good=100.0, source="made up")


def checkpoint(steps: int, mean_return: float) -> GradedExpert:
    return made_up(0, steps=steps, mean_return=mean_return)


def known(expert: GradedExpert) -> float:
    """A task in which noise takes away its share of the grade, and more."""
    return float(expert.about["mean_return"]) * (1.0 - expert.share) ** 3


@pytest.mark.parametrize("wanted", [90.0, 70.0, 55.0, 40.0, 20.0, 5.0])
def test_any_grade_below_the_best_is_met(wanted: float) -> None:
    trained = [checkpoint(1, 10.0), checkpoint(2, 39.0), checkpoint(3, 80.0), checkpoint(4, 98.0)]
    found = experts.meeting(wanted, trained, trained[-1], known, SCALE)
    assert abs(known(found) - wanted) <= experts.CLOSE
    assert (found.share == 0.0) == (wanted == 40.0)  # a checkpoint as it is, where one is close


def test_beyond_the_best_there_is_the_best() -> None:
    trained = [checkpoint(1, 10.0), checkpoint(2, 98.0)]
    assert experts.meeting(110.0, trained, trained[-1], known, SCALE) is trained[-1]
    assert experts.best_of(trained, known) is trained[-1]


def test_a_training_that_taught_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"random actions have .*; train longer, with more"):
        experts.scale_of(PENDULUM, [replace(load_expert("Pendulum"), about={"mean_return": -9e9})])


# --- training -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_checkpoint_acts_as_the_policy_of_ppo() -> None:
    env = expert_training._made(PENDULUM, 4)
    backend = expert_training._backend(env, PENDULUM, 0, (8, 8))
    for _ in expert_training._ScaledReward(backend).iterations(128):
        pass
    rng = np.random.default_rng(0)
    rows = np.stack([env.single_observation_space.sample() for _ in range(50)])
    rows *= rng.uniform(0.5, 1.0, (50, 1)).astype(np.float32)
    wanted, _ = backend.predict(rows, deterministic=True)
    np.testing.assert_allclose(mean_policy(backend)(rows), wanted, atol=1e-4)


@pytest.mark.usefixtures("quick")
def test_a_stopped_training_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    path = tmp_path / "some.training.safetensors"
    whole = train_checkpoints(PENDULUM, 192, seed=3, hidden=(8,))

    def stop(what: str, share: float) -> None:
        if share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_checkpoints(PENDULUM, 192, seed=3, hidden=(8,), file=path, tell=stop)
    assert 0 < len(load_experts(path)) < len(whole)
    again = train_checkpoints(PENDULUM, 192, seed=3, hidden=(8,), file=path)
    assert [one.about for one in again] == [one.about for one in whole]
    for one, other in zip(again, whole, strict=True):
        np.testing.assert_array_equal(one.weights[0], other.weights[0])
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match="is of another training"):
        train_checkpoints(PENDULUM, 192, seed=4, hidden=(8,), file=path)


def test_values_of_a_known_task_are_found() -> None:
    """One number x in [−1, 1], which an action moves to; the reward is x + a; half the steps end.

    Under μ(x) = 0.5: V(x) = x + 0.5 + γ/2 · V(0.5), hence V(0.5) = 1 / (1 − γ/2).
    """
    rng, discount = np.random.default_rng(0), 0.8
    x, a = (rng.uniform(-1.0, 1.0, (8_000, 1)) for _ in range(2))
    ends = rng.random(8_000) < 0.5
    steps = Steps(x, a, (x + a)[:, 0], a, ends)
    bounds = gym.spaces.Box(-1.0, 1.0, (1,), np.float64)
    actor = (Layer(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 0.5)),)
    critic = fitted_critic(
        steps,
        actor,
        lambda rows: np.full((len(rows), 1), 0.5),
        bounds,
        discount=discount,
        updates=2_500,
        hidden=(32,),
    )
    half = discount / 2.0
    asked = np.linspace(-0.9, 0.9, 19)[:, None]
    values = asked[:, 0] + 0.5 + half / (1.0 - half)
    np.testing.assert_allclose(critic.state_values(asked), values, atol=0.1)
    # A(x, a) = (a − 0.5) + γ/2 · (V(a) − V(0.5)) = (a − 0.5) (1 + γ/2)
    wanted = (asked[:, 0] - 0.5) * (1.0 + half)
    np.testing.assert_allclose(critic(np.zeros((19, 1)), asked), wanted, atol=0.1)


def test_steps_lead_where_the_episode_went_and_not_where_the_next_begins() -> None:
    rng = np.random.default_rng(0)
    found = explored(PENDULUM, [load_expert("Pendulum")] * 2, 2 * 205, rng)
    _, sine, speed = found.observations.T
    torque = np.clip(found.actions[:, 0], -2.0, 2.0)
    after = np.clip(speed + 0.05 * (15.0 * sine + 3.0 * torque), -8.0, 8.0)
    np.testing.assert_allclose(found.next_observations[:, 2], after, atol=1e-4)
    assert not found.terminated.any()


# --- the command --------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_the_command_makes_files_that_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experts, "scale_of", lambda *_: experts.Scale(-3000.0, 0.0, "made up"))
    words = ["train", "--env", PENDULUM, "--steps", "96", "--hidden", "8", "--updates", "20"]
    words += ["--grades", "40,150", "--out", str(tmp_path), "--quiet"]
    assert commands.experts(words) == 0
    path = tmp_path / "Pendulum.safetensors"
    assert [one.about["asked"] for one in load_experts(path)] == [150.0, 40.0]
    assert "nothing better was reached" in capsys.readouterr().out
    assert reference_critic(path)(np.zeros((2, 3)), np.zeros((2, 1))).shape == (2,)
    with pytest.raises(ValueError, match="is there already; choose another folder"):
        commands.experts(words)
    (tmp_path / "Pendulum.critic.safetensors").unlink()
    with pytest.raises(ValueError, match="holds the grades 150, 40; choose another folder"):
        commands.experts([*words, "--grades", "70"])
    assert commands.experts(words) == 0  # goes on after what is finished
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs a verb: train --env ID"),
        (["train", "--env", "prefgym/Pendulm-v0"], "did you mean 'prefgym/Pendulum-v0'"),
        (["train", "--env", "prefgym/CartPole-v0"], r"has the actions Discrete\(2\)"),
        (["train", "--env", "prefgym/TextSort-v0"], "writes text, and experts of this kind"),
        (["train", "--env", PENDULUM, "--grades", "70,bad"], "wanted numbers with commas between"),
        (["train", "--env", PENDULUM, "--grades", "70,0"], r"grades=70,0; wanted one or more abo"),
        (["train", "--env", PENDULUM, "--grades", "70,nan"], "grades=70,nan; wanted one or more"),
        (["train", "--env", PENDULUM, "--grades", "70,70"], "one is there twice"),
        (["train", "--env", PENDULUM, "--steps", "3"], "steps=3; wanted at least the 2048 of one"),
        (["train", "--env", PENDULUM, "--hidden", "0"], "one or more positive widths"),
        (["train", "--env", PENDULUM, "--updates", "0"], "updates=0; wanted one or more"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        commands.experts(words)
