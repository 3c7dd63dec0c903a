"""Somebody who takes over tokens of a response: as in stepping, and learned from as own or not."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import prefgym  # noqa: F401
from prefgym.interventions import Random, Supervision, ValueBased
from prefgym.interventions.supervision import INTERVENED, REFUSED
from prefgym.wrappers.inner import find_attribute
from prefgym_agents.language import language_backend
from prefgym_agents.language.takeovers import Takeovers
from prefgym_agents.language.updates import ALGORITHMS, Config, lesson
from prefgym_agents.processes import Processes
from prefgym_agents.rlif import RLIF

TEXT = "prefgym/TextCopy-v0"


def values(**arguments: Any) -> Any:
    return gym.make(TEXT, **arguments).get_wrapper_attr("advantages")


def first_letter(seen: np.ndarray) -> np.ndarray:
    """An expert of whom nobody would learn to copy."""
    return np.full(len(seen), 2)


def supervised(
    rule: Any = None, steps: int | None = 2, judged: Any = "executed", **arguments: Any
) -> Any:
    known = values(**arguments)
    chosen = rule or ValueBased(known, margin=0.02, scale=1.0, sure=1.0, slip=0.0)
    return gym.make_vec(
        TEXT,
        num_envs=16,
        samples_per_prompt=4,
        query_every=None,
        supervision=Supervision(first_letter, chosen, steps, judged),
        **arguments,
    )


@pytest.mark.parametrize(
    ("judged", "more"), [("executed", {}), ("proposed", {}), ("executed", {"personal": 3})]
)
def test_a_response_is_written_as_an_environment_is_stepped(
    judged: Any, more: dict[str, Any]
) -> None:
    stepped, watched = (supervised(judged=judged, **more) for _ in range(2))
    layout = stepped.get_wrapper_attr("layout")
    proposals = np.random.default_rng(0).integers(
        1, layout.codec.size, (16, layout.response_tokens)
    )
    stepped.reset(seed=3)
    watched.reset(seed=3)
    running = find_attribute(watched, "running")
    seen = watched.observations()
    takeovers = Takeovers(running, layout, layout.split(seen)[0], layout.person(seen))
    lanes, going_on = np.arange(16), np.ones(16, np.bool_)
    for step in range(layout.response_tokens):
        written = takeovers(lanes, step, proposals[:, step], going_on)
        _, _, terminated, truncated, infos = stepped.step(proposals[:, step])
        told = {**infos["factors"], **infos.get("final_info", {}).get("factors", {})}
        np.testing.assert_array_equal(written[going_on], infos["executed_action"][going_on])
        for name in (INTERVENED, REFUSED):
            factor = takeovers.factors[name][going_on, step]
            np.testing.assert_array_equal(factor, told[name][going_on])
        going_on = going_on & ~(terminated | truncated)
    assert takeovers.factors[INTERVENED].any()
    mask = layout.mask(takeovers.tokens)
    played = watched.play(takeovers.tokens, mask, takeovers.factors)
    np.testing.assert_array_equal(played.factors[REFUSED], takeovers.factors[REFUSED])


def test_whole_responses_of_an_environment_with_a_supervisor_need_one_who_asked_it() -> None:
    env = supervised()
    env.reset(seed=0)
    layout = env.get_wrapper_attr("layout")
    tokens = np.full((16, layout.response_tokens), layout.codec.eos)
    with pytest.raises(ValueError, match="has a supervisor who watches every step"):
        env.play(tokens, layout.mask(tokens))


@pytest.mark.parametrize("algorithm", ["RLOO", "PPO"])
def test_nothing_is_learned_of_tokens_that_somebody_else_wrote(algorithm: str) -> None:
    everything = Random(1.0)
    for expert_steps in (False, True):
        env = supervised(everything, None, "proposed")
        policy = language_backend(env, None, seed=0, algorithm=algorithm)
        RLIF(policy, blame="previous", expert_steps=expert_steps)
        before = policy.snapshot()
        policy.begin(1_000)
        segments = policy.collect()
        assert segments is not None
        assert (segments.factors[INTERVENED][segments.mask] == 1.0).all()
        assert (segments.actions[segments.mask] == 2).all()
        worth = np.arange(16.0)[:, None] * segments.mask
        policy.update(segments, worth)
        moved = any((one != before[name]).any() for name, one in policy.snapshot().items())
        assert moved == expert_steps


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("expert_steps", [False, True])
def test_what_the_policy_would_never_write_is_no_reward_for_being_taken_over(
    algorithm: str, expert_steps: bool
) -> None:
    mask = torch.ones(2, 4, dtype=torch.bool)
    own, rewards = mask.clone(), torch.zeros(2, 4)
    own[0, 1:], rewards[0, 0] = False, -1.0  # the first token was refused

    def advantage(unlikely: float) -> torch.Tensor:
        old = torch.where(own, -0.1, unlikely)
        reference, value = torch.full((2, 4), -0.3), torch.zeros(2, 4)
        return lesson(
            Config(algorithm=algorithm, kl=0.1),
            mask,
            torch.zeros(2, dtype=torch.int64),
            rewards,
            old,
            reference,
            value,
            Processes(),
            own,
            mask if expert_steps else own,
        )[0].advantage

    told = advantage(-20.0)
    assert told[0, 0] < told[1, 0]
    torch.testing.assert_close(told, advantage(-0.1))


@pytest.mark.parametrize("expert_steps", [False, True])
def test_nobody_is_pulled_to_the_reference_by_what_somebody_else_wrote(expert_steps: bool) -> None:
    policy = language_backend(
        supervised(Random(1.0), None, "proposed"), None, seed=0, algorithm="RLOO", kl=0.1
    )
    RLIF(policy, blame="previous", expert_steps=expert_steps)
    rng = np.random.default_rng(0)
    moved = {name: one + rng.normal(0, 0.1, one.shape) for name, one in policy.snapshot().items()}
    policy.load_snapshot(moved)
    policy.begin(1_000)
    segments = policy.collect()
    assert segments is not None
    metrics = policy.update(segments, np.zeros(segments.mask.shape))
    assert metrics["train/kl"] == metrics["train/loss"] == 0.0
    segments.factors[INTERVENED][:] = 0.0
    assert policy.update(segments, np.zeros(segments.mask.shape))["train/kl"] != 0.0


@pytest.mark.parametrize(
    ("asked", "judged"),
    [({"blame": "proposal"}, "proposed"), ({"symmetric": True}, "executed")],
)
def test_what_needs_replay_is_refused(asked: dict[str, Any], judged: Any) -> None:
    policy = language_backend(supervised(judged=judged), None, seed=0)
    with pytest.raises(ValueError, match="a LanguageBackend replays nothing"):
        RLIF(policy, **asked)
