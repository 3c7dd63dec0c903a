"""Value sources: tables by hand, a critic against the networks it was copied from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from stable_baselines3 import SAC, TD3
from torch import nn

from prefgym.raters import make_rater
from prefgym.raters.scores import regret
from prefgym.segments import Segments
from prefgym.values import Critic, ExactTable, Layer

LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)


def perceptron(inputs: int, outputs: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 8), activation(), nn.Linear(8, 5), activation(), nn.Linear(5, outputs)
    )


@pytest.fixture
def networks() -> tuple[list[nn.Sequential], nn.Sequential]:
    torch.manual_seed(0)
    return [perceptron(5, 1) for _ in range(3)], perceptron(3, 2)


@pytest.fixture
def critic(networks: tuple[list[nn.Sequential], nn.Sequential]) -> Critic:
    return Critic.from_modules(*networks, LOW, HIGH)


@pytest.fixture
def steps(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(50, 3)), rng.uniform(LOW, HIGH, (50, 2))


def state_of(observations: np.ndarray) -> np.ndarray:
    return observations[:, 0] * 2 + observations[:, 1]


def by_hand(
    critics: list[Any], actor: Any, observations: np.ndarray, scaled: np.ndarray
) -> np.ndarray:
    with torch.no_grad():
        seen = torch.as_tensor(observations, dtype=torch.float32)
        taken = torch.as_tensor(scaled, dtype=torch.float32)
        q, v = (
            torch.stack([one(torch.cat([seen, act], 1)) for one in critics]).amin(0)[:, 0]
            for act in (taken, actor(seen))
        )
        return (q - v).numpy()


# --- exact tables ---------------------------------------------------------------------------------


def test_a_table_gives_q_minus_v() -> None:
    table = ExactTable(np.array([[1.0, 4.0], [2.0, 0.0]]), np.array([4.0, 2.0]), state_of)
    observations = np.array([[0, 0], [0, 1], [0, 1]])
    assert table(observations, np.array([0, 0, 1])).tolist() == [-3.0, 0.0, -2.0]


def test_a_table_serves_the_regret_rater(rng: np.random.Generator) -> None:
    table = ExactTable(np.array([[1.0, 4.0], [2.0, 0.0]]), np.array([4.0, 2.0]), state_of)

    def pair(actions: list[int]) -> Segments:
        return Segments(
            actions=np.array([actions]),
            mask=np.array([[True, True, False]]),
            context=np.zeros((1, 2)),
            context_id=np.zeros(1, np.int64),
            observations=np.array([[[0, 0], [0, 1], [9, 9]]]),
        )

    a, b = pair([1, 0, 9]), pair([0, 1, 9])
    assert regret(table)(a).tolist() == [0.0]
    assert regret(table)(b).tolist() == [-5.0]
    assert make_rater("regret", table)(a, b, rng).label.tolist() == [1.0]
    assert np.isclose(
        make_rater("regret", table, beta=0.2).probability(a, b), 1 / (1 + np.exp(-1.0))
    )


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_advantages_of_a_walk_telescope_to_the_values_of_its_ends(seed: int) -> None:
    """Σ γ^t A(s_t, a_t) = Σ γ^t r_t + γ^T V(s_T) − V(s_0), where transitions are deterministic."""
    rng = np.random.default_rng(seed)
    next_state, reward, discount = rng.integers(6, size=(6, 3)), rng.normal(size=(6, 3)), 0.9
    values = np.zeros(6)
    for _ in range(400):
        values = (reward + discount * values[next_state]).max(1)
    table = ExactTable(
        reward + discount * values[next_state], values, lambda seen: seen[:, 0].astype(np.int64)
    )
    states, actions = [int(rng.integers(6))], rng.integers(3, size=20)
    for action in actions:
        states.append(int(next_state[states[-1], action]))
    seen, weights = np.array(states, np.float64)[:, None], discount ** np.arange(20)
    gained = float(weights @ reward[states[:-1], actions])
    begin, end = table.state_values(seen[[0, -1]])
    assert weights @ table(seen[:-1], actions) == pytest.approx(
        gained + discount**20 * end - begin, abs=1e-9
    )
    assert (table(seen[:-1], actions) <= 1e-9).all()


def test_a_table_looks_up_values_of_states() -> None:
    table = ExactTable(np.array([[1.0, 4.0], [2.0, 0.0]]), np.array([4.0, 2.0]), state_of)
    assert table.state_values(np.array([[0, 1], [0, 0], [0, 1]])).tolist() == [2.0, 4.0, 2.0]
    with pytest.raises(ValueError, match="state 3 is not among the table's 2"):
        table.state_values(np.array([[1, 1]]))


@pytest.mark.parametrize(
    ("q", "v", "message"),
    [
        (np.zeros((2, 3)), np.zeros(3), r"q has shape \(2, 3\) and v \(3,\)"),
        (np.zeros((2, 3)), np.full(2, np.nan), "NaN or infinite"),
        (np.full((2, 3), -np.inf), np.zeros(2), "NaN or infinite"),
    ],
)
def test_bad_tables_are_refused(q: np.ndarray, v: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExactTable(q, v, state_of)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [([1, 0], 0, "state 2 is not among the table's 2"), ([0, 1], -1, "action -1 is not among")],
)
def test_steps_outside_the_table_are_refused(
    observation: list[int], action: int, message: str
) -> None:
    table = ExactTable(np.zeros((2, 2)), np.zeros(2), state_of)
    with pytest.raises(ValueError, match=message):
        table(np.array([observation]), np.array([action]))


# --- the critic -----------------------------------------------------------------------------------


def test_a_critic_gives_what_its_networks_give(
    networks: tuple[list[nn.Sequential], nn.Sequential],
    critic: Critic,
    steps: tuple[np.ndarray, np.ndarray],
) -> None:
    critics, actor = networks
    scaled = 2 * (steps[1] - LOW) / (HIGH - LOW) - 1
    wanted = by_hand(critics, nn.Sequential(actor, nn.Tanh()), steps[0], scaled)
    assert np.allclose(critic(*steps), wanted, atol=1e-6)


def test_chunks_do_not_matter(critic: Critic, steps: tuple[np.ndarray, np.ndarray]) -> None:
    small = Critic(critic.critics, critic.actor, LOW, HIGH, chunk=7)
    assert np.allclose(small(*steps), critic(*steps), atol=1e-6)
    assert critic(np.empty((0, 3)), np.empty((0, 2))).shape == (0,)


def test_the_advantage_is_what_an_action_adds_to_the_value_of_the_state(
    networks: tuple[list[nn.Sequential], nn.Sequential],
    critic: Critic,
    steps: tuple[np.ndarray, np.ndarray],
) -> None:
    critics, _ = networks
    scaled = torch.as_tensor(2 * (steps[1] - LOW) / (HIGH - LOW) - 1, dtype=torch.float32)
    both = torch.cat([torch.as_tensor(steps[0], dtype=torch.float32), scaled], 1)
    with torch.no_grad():
        q = torch.stack([one(both) for one in critics]).amin(0)[:, 0].numpy()
    small = Critic(critic.critics, critic.actor, LOW, HIGH, chunk=7)
    assert np.allclose(critic(*steps) + critic.state_values(steps[0]), q, atol=1e-5)
    assert np.allclose(small.state_values(steps[0]), critic.state_values(steps[0]), atol=1e-6)
    with pytest.raises(ValueError, match=r"observations have shape \(2, 4\)"):
        critic.state_values(np.zeros((2, 4)))


def test_the_mean_action_has_no_advantage(critic: Critic, rng: np.random.Generator) -> None:
    observations = rng.normal(size=(20, 3)).astype(np.float32)
    mean = torch.as_tensor(observations)[None]
    for number, layer in enumerate(critic.actor):
        mean = (torch.relu(mean) if number else mean) @ layer.weight + layer.bias
    actions = LOW + (HIGH - LOW) * (torch.tanh(mean)[0].numpy() + 1) / 2
    assert np.allclose(critic(observations, actions), 0.0, atol=1e-5)


def test_it_is_copied_from_stable_baselines3(rng: np.random.Generator) -> None:
    env = gym.make("Pendulum-v1")
    observations = rng.normal(size=(30, 3))
    actions = rng.uniform(-2, 2, (30, 1))
    for algorithm in (SAC, TD3):
        model = algorithm("MlpPolicy", env, seed=0, buffer_size=10, device="cpu")
        if isinstance(model, SAC):
            mean = nn.Sequential(*model.actor.latent_pi, model.actor.mu)
            actor: Any = nn.Sequential(mean, nn.Tanh())
        else:
            mean = actor = model.actor.mu
        made = Critic.from_modules(
            list(model.critic.q_networks), mean, env.action_space.low, env.action_space.high
        )
        wanted = by_hand(model.critic.q_networks, actor, observations, actions / 2)
        assert np.allclose(made(observations, actions), wanted, atol=1e-5)


def test_saving_and_loading_changes_nothing(
    networks: tuple[list[nn.Sequential], nn.Sequential],
    steps: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    copied = Critic.from_modules(
        [perceptron(5, 1, nn.Tanh) for _ in range(2)], perceptron(3, 2, nn.Tanh), LOW, HIGH
    )
    made = replace(copied, about={"env": "Mine", "mean_return": 1.5})
    made.save(tmp_path / "new" / "critic.safetensors")
    again = Critic.load(tmp_path / "new" / "critic.safetensors")
    assert again.activation == "tanh"
    assert again.about == {"env": "Mine", "mean_return": 1.5}
    assert np.array_equal(again(*steps), made(*steps))
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["critic.safetensors"]


def test_files_that_hold_no_critic_are_refused(critic: Critic, tmp_path: Path) -> None:
    path = tmp_path / "critic.safetensors"
    with pytest.raises(ValueError, match=r"There is no file .* `prefgym oracle train"):
        Critic.load(path)
    critic.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        Critic.load(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="holds no critic, and this version"):
        Critic.load(path)


def test_wrong_steps_are_refused(critic: Critic) -> None:
    with pytest.raises(ValueError, match=r"observations have shape \(2, 4\); wanted 2 rows of 3"):
        critic(np.zeros((2, 4)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="actions have shape"):
        critic(np.zeros((2, 3)), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="actions of step 1 hold NaN"):
        critic(np.zeros((2, 3)), np.array([[0.0, 0.0], [0.0, np.nan]]))


def test_wrong_networks_are_refused(networks: tuple[list[nn.Sequential], nn.Sequential]) -> None:
    critics, actor = networks

    def refused(message: str, *parts: Any) -> None:
        with pytest.raises(ValueError, match=message):
            Critic.from_modules(*parts)

    refused("networks of 2 shapes", [*critics, nn.Sequential(nn.Linear(5, 1))], actor, LOW, HIGH)
    refused("networks of 0 shapes", [], actor, LOW, HIGH)
    refused("ReLU, Tanh", [], nn.Sequential(nn.ReLU(), nn.Tanh(), nn.ReLU()), LOW, HIGH)
    refused("must share one activation", critics, perceptron(3, 2, nn.Tanh), LOW, HIGH)
    refused("'softplus'", critics, perceptron(3, 2, nn.Softplus), LOW, HIGH)
    refused("wanted Linear", critics, nn.Sequential(), LOW, HIGH)
    refused("the actor end in 2 numbers; wanted 1", critics, actor, LOW[:1], HIGH[:1])
    refused(r"wanted \[3 members, 6 inputs", critics, perceptron(4, 2), LOW, HIGH)
    refused("low < high", critics, actor, HIGH, LOW)
    refused("low < high", critics, actor, -np.full(2, np.inf, np.float32), HIGH)
    refused(r"low has shape \(2,\) and high \(1,\)", critics, actor, LOW, HIGH[:1])
    with torch.no_grad():
        critics[1][0].weight[0, 0] = np.nan
    refused("NaN or infinite weights", critics, actor, LOW, HIGH)


def test_weights_that_do_not_chain_are_refused(critic: Critic) -> None:
    flat = Layer(critic.actor[0].weight, critic.actor[0].bias[:, :, :3])
    with pytest.raises(ValueError, match="a bias of the actor"):
        Critic(critic.critics, (flat, *critic.actor[1:]), LOW, HIGH)
    with pytest.raises(ValueError, match="Unknown activation 'rellu'"):
        Critic(critic.critics, critic.actor, LOW, HIGH, "rellu")
