"""Demonstrations: steps of somebody else, replayed beside the policy's own.

A demonstration is a transition like any other. What it is worth is 0, as in Luo et al. (2023),
arXiv:2311.12996, where nobody objects to what a demonstrator does. How many of a batch are
demonstrations is decided by :class:`~prefgym_agents.replayed_steps.ReplayedSteps`.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from prefgym.interventions import as_expert
from prefgym.names import lookup
from prefgym.registration import ENVIRONMENTS
from prefgym.segments import Segments
from prefgym.spaces import check_steps
from prefgym.store import EpisodeStore
from prefgym_agents.replayed_steps import Transitions, transitions

Demonstrations = Transitions | Segments | EpisodeStore
"""What :func:`as_demonstrations` reads."""

RECORD = "record some with prefgym_agents.demonstrations.recorded(expert, env_id)"


def recorded(
    expert: Any, env_id: str, *, episodes: int = 20, seed: int = 0, **env_kwargs: Any
) -> Transitions:
    """The steps of whole episodes in which an expert acts, all played side by side.

    Args:
        expert: a function of observations, or a model with ``predict``.
        env_id: a prefgym id whose environments have observations.
        episodes: how many.
        seed: of the environment.
        **env_kwargs: of the environment.

    Raises:
        ValueError: no episodes, more than are remembered, another environment than the expert's,
            or an environment of text.
    """
    lookup(env_id, ENVIRONMENTS, "environment")
    if episodes < 1:
        raise ValueError(f"episodes={episodes}; wanted one demonstration or more.")
    env: Any = gym.make_vec(env_id, num_envs=episodes, **{**env_kwargs, "query_every": None})
    try:
        store = env.store
        if not isinstance(store, EpisodeStore):
            raise ValueError(
                f"{env_id} writes text, of which no single steps are replayed; record an"
                " environment with observations."
            )
        acting = as_expert(expert, env.single_observation_space, env.single_action_space)
        first = np.arange(episodes)
        seen, _ = env.reset(seed=seed)
        while not store.ended(first).all():
            seen = env.step(acting(seen))[0]
        whole = store.whole(first)
        if whole.start.any():
            raise ValueError(
                f"{episodes} episodes at once are more than the environment remembers; raise"
                " capacity=, or record fewer."
            )
        return transitions(store, whole.pieces(1))
    finally:
        env.close()


def as_demonstrations(
    given: Any, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> Transitions:
    """Demonstrations for an environment with these spaces, with reward 0.

    Args:
        given: what :func:`recorded` returns; the store of an environment that somebody acted in,
            of which all steps are taken; or segments of whole episodes. Segments do not say what
            follows their last step, nor whether it ended the episode, so that step is left out.
        observation_space: of one environment.
        action_space: of one environment. Continuous actions beyond its bounds count as the bounds.

    Raises:
        ValueError: there are none, or they are none of this environment's.
    """
    steps = given
    if isinstance(given, Segments):
        steps = _of_segments(given)
    elif isinstance(given, EpisodeStore):
        steps = transitions(given, given.since(np.zeros(given.lanes, np.int64)).pieces(1))
    if not isinstance(steps, Transitions):
        raise ValueError(
            f"demonstrations= is a {type(given).__name__}; wanted Segments of whole episodes or"
            f" the store of an environment; or {RECORD}."
        )
    count = len(steps.terminal)
    if not count:
        raise ValueError(
            "demonstrations= hold no step with a step after it, so there is nothing to replay;"
            f" {RECORD}."
        )
    for seen in (steps.observations, steps.next_observations):
        alone = _single_steps(seen, steps.actions)
        try:
            check_steps(alone, observation_space, action_space)
        except ValueError as error:
            raise ValueError(
                f"demonstrations= do not fit the environment: {error}".replace(
                    "of the segments ", "of theirs "
                )
            ) from error
    actions = np.asarray(steps.actions, action_space.dtype)
    if isinstance(action_space, gym.spaces.Box):
        actions = np.clip(actions, action_space.low, action_space.high)
    return Transitions(
        observations=np.asarray(steps.observations, observation_space.dtype),
        actions=actions,
        next_observations=np.asarray(steps.next_observations, observation_space.dtype),
        rewards=np.zeros(count, np.float32),
        terminal=np.asarray(steps.terminal, np.bool_),
    )


def _of_segments(segments: Segments) -> Transitions:
    """Every step that is followed by another one."""
    plain = segments.numpy()
    if plain.observations is None:
        raise ValueError(
            "demonstrations= hold no observations (are they text?), so their steps cannot be"
            f" replayed; {RECORD}."
        )
    followed = plain.mask[:, :-1] & plain.mask[:, 1:]
    return Transitions(
        observations=plain.observations[:, :-1][followed],
        actions=plain.actions[:, :-1][followed],
        next_observations=plain.observations[:, 1:][followed],
        rewards=np.zeros(int(followed.sum()), np.float32),
        terminal=np.zeros(int(followed.sum()), np.bool_),
    )


def _single_steps(seen: np.ndarray, done: np.ndarray) -> Segments:
    return Segments(
        actions=np.asarray(done)[:, None],
        mask=np.ones((len(done), 1), np.bool_),
        context=np.asarray(seen),
        context_id=np.arange(len(done)),
        observations=np.asarray(seen)[:, None],
    )
