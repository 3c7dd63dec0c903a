"""RLPD: N critics in one network are N networks, and the targets are what the paper says."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import prefgym  # noqa: F401
from prefgym_agents.oracle import TrueReward
from prefgym_agents.rlpd import RLPD
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.sb3_off_policy import OffPolicySB3

SMALL: dict[str, Any] = {"learning_starts": 50, "batch_size": 32, "gradient_steps": 2}


def backend(seed: int = 0, **changes: Any) -> OffPolicySB3:
    env = gym.make_vec("prefgym/Pendulum-v0", num_envs=2, query_every=None)
    net: dict[str, Any] = {"net_arch": [16, 16], "critics": 4}
    net |= changes.pop("policy_kwargs", {})
    made = sb3_backend(RLPD, env, seed=seed, policy_kwargs=net, **{**SMALL, **changes})
    assert isinstance(made, OffPolicySB3)
    return made


@pytest.mark.parametrize("layer_norm", [True, False])
def test_one_batched_network_is_n_networks(layer_norm: bool) -> None:
    critics: Any = backend(policy_kwargs={"layer_norm": layer_norm}).model.critic
    seen, done = torch.randn(7, 3), torch.randn(7, 1)
    together = critics.values(seen, done)
    assert together.shape == (4, 7)
    for number in range(4):
        layers: list[nn.Module] = []
        for place, (weight, bias) in enumerate(zip(critics.weights, critics.biases, strict=True)):
            linear = nn.Linear(*weight.shape[1:])
            linear.weight.data, linear.bias.data = weight[number].T, bias[number, 0]
            layers.append(linear)
            if place < 2:
                norm = [nn.LayerNorm(weight.shape[2])] if layer_norm else []
                layers += [*norm, nn.ReLU()]
        alone = nn.Sequential(*layers)(torch.cat([seen, done], 1))[:, 0]
        torch.testing.assert_close(together[number], alone)
    for one, other in zip(critics(seen, done), together, strict=True):
        torch.testing.assert_close(one[:, 0], other)


def test_an_update_of_one_critic_leaves_the_others() -> None:
    critics: Any = backend().model.critic
    seen, done = torch.randn(5, 3), torch.randn(5, 1)
    critics.values(seen, done)[2].sum().backward()
    for weight in critics.weights:
        changed = weight.grad.abs().sum((1, 2)) > 0
        assert changed.tolist() == [False, False, True, False]


def test_updates_of_the_critics_are_counted_and_the_actor_moves_once() -> None:
    one = backend(updates_per_step=3)
    one.begin(1_000)
    for _ in range(20):
        segments = one.collect()
        assert segments is not None
        one.update(segments, np.asarray(segments.rewards))
    before = one.model._n_updates
    segments = one.collect()
    assert segments is not None
    told = one.update(segments, np.asarray(segments.rewards))
    assert one.model._n_updates - before == 2 * 3
    assert {"train/critic_loss", "train/actor_loss", "train/ent_coef"} <= set(told)


def test_saved_and_loaded_it_goes_on_bit_for_bit(run_folder: Any) -> None:
    first = TrueReward(backend())
    turns = first.iterations(512)
    for steps, _ in turns:
        if steps >= 256:
            break
    first.save(run_folder / "saved")
    for _ in turns:
        pass
    second = TrueReward(backend(seed=5)).load(run_folder / "saved").learn(512)
    ours, theirs = first.policy.snapshot(), second.policy.snapshot()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="critics=1"):
        backend(policy_kwargs={"critics": 1})
    with pytest.raises(ValueError, match="updates_per_step=0"):
        backend(updates_per_step=0)
