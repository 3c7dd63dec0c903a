"""Critics that come with the package, and the training that made them."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import prefgym  # noqa: F401
from benchmarks.claims.pendulum_values import interpolated, seen, solved
from prefgym.__main__ import main
from prefgym.comparisons import PreferenceDataset
from prefgym.critic_files import as_value_source
from prefgym.raters import make_rater
from prefgym.values import Critic
from prefgym_agents import commands, critics
from prefgym_envs import control, locomotion, trained_critics

NAMES = ("Pendulum", "Hopper", "HalfCheetah")


def raw(name: str, **kwargs: Any) -> Any:
    return (control if name in control.TASKS else locomotion).raw(name, **kwargs)


def random_steps(name: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations and actions of random play."""
    env = raw(name)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    observations, actions = [], []
    for _ in range(steps):
        observations.append(observation)
        actions.append(env.action_space.sample())
        observation, _, ended, _, _ = env.step(actions[-1])
        if ended:
            observation, _ = env.reset()
    return np.array(observations), np.array(actions)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVALUATIONS", "EPISODES", "FINAL_EPISODES"):
        monkeypatch.setattr(critics, name, 2)


# --- the files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_small_and_says_how_it_was_made(name: str) -> None:
    path = trained_critics.FOLDER / f"{name}.safetensors"
    assert path.stat().st_size < 100_000
    about = trained_critics.critic(name).about
    assert about["env"] == f"prefgym/{name}-v0"
    told = (trained_critics.FOLDER / "README.md").read_text()
    row = next(line for line in told.splitlines() if line.startswith(f"| {name} "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    command = (
        f"`prefgym oracle train --env {about['env']} --steps {about['steps']} --seed"
        f" {about['seed']} --learning-rate {about['learning_rate']} --out {name}.safetensors`"
    )
    assert cells[1] == command
    assert cells[2] == f"{about['mean_return']} ± {about['return_std']}"


def test_nothing_else_lies_beside_them() -> None:
    names = {one.name for one in trained_critics.FOLDER.iterdir()}
    assert names == {"README.md", *(f"{name}.safetensors" for name in NAMES)}


@pytest.mark.parametrize("name", NAMES)
def test_random_actions_are_worse_than_the_policys_own(name: str) -> None:
    observations, actions = random_steps(name, 500)
    advantages = raw(name).advantages(observations, actions)
    assert advantages.shape == (500,)
    assert advantages.mean() < -0.5
    assert (advantages < 0).mean() > 0.75


def test_pendulums_advantages_are_nearly_the_exact_ones() -> None:
    """Where the policy of the exact values acts, now and then at random, and everywhere."""
    rng, exact, known = np.random.default_rng(0), solved(), raw("Pendulum").advantages
    angle, speed = rng.uniform(-np.pi, np.pi, 4000), rng.uniform(-8.0, 8.0, 4000)
    observations = np.stack([np.cos(angle), np.sin(angle), speed], 1).astype(np.float32)
    actions = rng.uniform(-2, 2, (4000, 1)).astype(np.float32)

    def correlation(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.corrcoef(one, other)[0, 1])

    pair = known(observations, actions), exact.advantages(observations, actions)
    assert correlation(*pair) > 0.75
    values = interpolated(exact.grid, *seen(observations))
    assert correlation(known.state_values(observations), values) > 0.9
    observations, actions = mixed_play(rng)
    pair = known(observations, actions), exact.advantages(observations, actions)
    assert correlation(*pair) > 0.8
    of_segments = [one.reshape(-1, 50).sum(1) for one in pair]
    assert correlation(of_segments[0], of_segments[1]) > 0.95


def mixed_play(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Twenty episodes, each with a larger share of random actions than the one before."""
    lanes = 20
    env = gym.make_vec("Pendulum-v1", num_envs=lanes)
    observation, _ = env.reset(seed=0)
    observations, actions = [], []
    for _ in range(200):
        drawn = rng.uniform(-2, 2, (lanes, 1)).astype(np.float32)
        at_random = rng.random((lanes, 1)) < np.linspace(0, 1, lanes)[:, None]
        observations.append(observation)
        actions.append(np.where(at_random, drawn, solved().act(observation)))
        observation, *_ = env.step(actions[-1])
    return tuple(np.stack(one, 1).reshape(4000, -1) for one in (observations, actions))  # type: ignore[return-value]


# --- in the environments ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_raters_of_regret_need_nothing_else(name: str) -> None:
    env: Any = gym.make_vec(
        f"prefgym/{name}-v0", num_envs=2, rater="regret", segment_steps=10, query_every=None
    )
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(60):
        env.step(env.action_space.sample())
    rng = np.random.default_rng(0)
    a, b = (env.store.segments(env.store.sample(30, 10, rng), 10) for _ in "ab")
    asked = env.compare(a, b)
    sums = [
        raw(name)
        .advantages(one.observations.reshape(300, -1), one.actions.reshape(300, -1))
        .reshape(30, 10)
        .sum(1)
        for one in (asked.a, asked.b)
    ]
    assert asked.meaning == "regret"
    np.testing.assert_array_equal(asked.label > 0.5, sums[0] > sums[1])
    alone: Any = make_rater("regret", trained_critics.FOLDER / f"{name}.safetensors")
    np.testing.assert_allclose(alone.statistic(asked.a), sums[0])
    single = gym.make(f"prefgym/{name}-v0", rater="regret", query_every=20)
    single.reset(seed=0)
    assert pickle.dumps(single.get_wrapper_attr("elicitor").rater).__len__() < 10_000


def test_torch_is_loaded_when_a_value_is_asked_for_and_not_before() -> None:
    path = trained_critics.FOLDER / "Pendulum.safetensors"
    code = (
        "import sys, numpy, prefgym, gymnasium as gym\n"
        "env = gym.make('prefgym/Pendulum-v0', rater='regret')\n"
        "env.reset(seed=0)\n"
        f"gym.make('prefgym/Pendulum-v0', rater='regret', value_source={str(path)!r})\n"
        "assert 'torch' not in sys.modules\n"
        "env.get_wrapper_attr('advantages')(numpy.zeros((1, 3)), numpy.zeros((1, 1)))\n"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "changed", "harmless"),
    [
        ("Pendulum", {"g": 9.0}, {"render_mode": "rgb_array"}),
        ("Hopper", {"healthy_reward": 2.0}, {"width": 64, "reset_noise_scale": 0.1}),
        ("HalfCheetah", {"ctrl_cost_weight": 0.0}, {"height": 64}),
    ],
)
def test_other_physics_or_rewards_have_no_critic(
    name: str, changed: dict[str, Any], harmless: dict[str, Any]
) -> None:
    assert raw(name, **harmless).advantages == trained_critics.TrainedValues(name)
    for env in (raw(name, **changed), pickle.loads(pickle.dumps(raw(name, **changed)))):
        assert env.advantages is None
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=f"/{name}-v0 knows .* its default arguments only; gi"):
            make(f"prefgym/{name}-v0", rater="regret", **changed)


# --- training -----------------------------------------------------------------------------------


def test_equal_seeds_train_equal_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critics, "evaluate", lambda *_, **asked: np.arange(asked["episodes"]))
    made = [
        critics.train_critic(
            "prefgym/Pendulum-v0", steps=64, seed=seed, hidden=(8, 8), learning_starts=16
        )
        for seed in (3, 3, 4)
    ]
    observations, actions = random_steps("Pendulum", 20)
    first, again, other = (one(observations, actions) for one in made)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    about = made[0].about
    assert {"env": "prefgym/Pendulum-v0", "seed": 3, "steps": 64, "hidden": [8, 8]}.items() <= (
        about.items()
    )
    assert about == made[1].about
    assert (about["episodes"], about["mean_return"]) == (20, 9.5)


@pytest.mark.usefixtures("quick")
def test_the_command_writes_a_critic_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "critic.safetensors"
    words = ["train", "--env", "prefgym/Pendulum-v0", "--steps", "32", "--hidden", "8", "--quiet"]
    assert commands.oracle([*words, "--learning-rate", "0.002", "--out", str(out)]) == 0
    about = Critic.load(out).about
    assert about["learning_rate"] == 0.002
    assert about["hidden"] == [8]
    assert -2000 < about["mean_return"] < 0
    told = capsys.readouterr().out
    assert f"return is {about['mean_return']}" in told.replace("\n", " ")
    with pytest.raises(ValueError, match="is there already; choose another file"):
        commands.oracle([*words, "--out", str(out)])
    monkeypatch.chdir(tmp_path)
    assert commands.oracle(words) == 0
    assert Critic.load("runs/critics/Pendulum.safetensors").about["steps"] == 32


@pytest.mark.usefixtures("quick")
def test_a_critic_made_in_the_shell_judges_a_run_of_the_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the path of its file alone, for people too; and its answers are the critic's own."""
    made, run = tmp_path / "critic.safetensors", tmp_path / "run"
    env = ["--env", "prefgym/Reacher-v0"]
    train = ["oracle", "train", *env, "--steps", "32", "--hidden", "8", "--out", str(made)]
    assert main([*train, "--quiet"]) == 0
    reward_learning = [
        *("train", "reward-learning", *env, "--rater", "regret", "--labels", "12", "--envs", "4"),
        *("--steps", "1200", "--learner.sessions", "2", "--learner.epochs", "2", "--quiet"),
        *("--env-args", "value_source", str(made), "personal", "2", "--out", str(run)),
    ]
    assert main(reward_learning) == 0, capsys.readouterr().err
    answers = PreferenceDataset.open(run / "preferences")
    assert answers.meaning == "regret"
    a, b = answers.comparisons.a, answers.comparisons.b
    known = Critic.load(made)
    sums = [
        known(one.observations[..., :-2].reshape(-1, 10), one.actions.reshape(-1, 2))
        .reshape(one.mask.shape)
        .sum(1)
        for one in (a, b)
    ]
    np.testing.assert_array_equal(answers.comparisons.label > 0.5, sums[0] > sums[1])


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("Reacher", "Pendulum", "of prefgym/Pendulum-v0, for observations of 3 .* give the critic"),
        ("Delivery", "Pendulum", "prefgym/Delivery-v0 shows or takes something else"),
        ("Pendulum", "Nobody", "There is no file .*Nobody.safetensors .* `prefgym oracle train"),
        ("Pendulum", "README", "cannot be read as a critic"),
    ],
)
def test_what_cannot_be_a_value_source_is_refused_at_once(
    name: str, given: str, message: str
) -> None:
    path = trained_critics.FOLDER / f"{given}{'.md' if given == 'README' else '.safetensors'}"
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=message):
            make(f"prefgym/{name}-v0", rater="regret", value_source=path)
    with pytest.raises(ValueError, match="value_source is 3; give a function of observations and"):
        as_value_source(3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs a verb: train --env ID"),
        (["train", "--env", "prefgym/Pendulm-v0"], "did you mean 'prefgym/Pendulum-v0'"),
        (["train", "--env", "prefgym/CartPole-v0"], r"has the actions Discrete\(2\)"),
        (["train", "--env", "prefgym/TextSort-v0"], "writes text, and a critic is for continuous"),
        (["train", "--env", "prefgym/Pendulum-v0", "--steps", "3"], "steps=3; wanted at least"),
        (["train", "--env", "prefgym/Pendulum-v0", "--hidden", "0"], "one or more positive widths"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        commands.oracle(words)
