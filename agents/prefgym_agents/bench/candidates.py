"""What "best-of-n" chooses among: responses to prompts, or episodes from equal starts.

Drawn once for a task and a seed, and kept for the cells that follow; a function of its arguments,
kept or not.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from prefgym.raters.scores import ValueSource
from prefgym.segments import Segments
from prefgym.store import EpisodeStore, SegmentIndex
from prefgym.text import Layout
from prefgym.wrappers import PreferenceVectorEnv
from prefgym_agents.bench.clock import tensors
from prefgym_agents.bench.data import drawn_actions, made, played
from prefgym_agents.bench.suite import Size, Task

GRADES = 7
"""Of behaviours: at each step the best of 1, 2, 4, ..., 64 random actions."""
STEADIEST = 0.8
"""The largest probability with which a behaviour repeats its last action."""


class Candidates(NamedTuple):
    """Candidates of all starts, one start behind the other."""

    segments: Segments
    starts: int
    each: int
    """Candidates of every start."""


@lru_cache(maxsize=4)
def candidates(task: Task, size: Size, seed: int) -> Candidates:
    """Responses where the task writes text, episodes elsewhere."""
    sides = played(task, size, seed)
    if sides.layout is not None:
        return _written(sides.rules, sides.layout, size, np.random.default_rng((seed, 4)))
    return _acted(task, size, seed)


def drawn_tokens(
    layout: Layout, count: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " count steps"], Bool[np.ndarray, " count steps"]]:
    """Responses of uniformly random tokens, and their masks."""
    drawn = rng.integers(layout.codec.size, size=(count, layout.response_tokens))
    mask = layout.mask(drawn)
    return np.where(mask, drawn, 0), mask


def _written(rules: Any, layout: Layout, size: Size, rng: np.random.Generator) -> Candidates:
    """Random responses to each prompt."""
    prompts = len(rules.prompts)
    context_id = np.repeat(np.arange(prompts), size.best_of)
    actions, mask = drawn_tokens(layout, len(context_id), rng)
    told = rules.play(context_id, actions, mask)
    responses = Segments(
        actions=actions,
        mask=mask,
        context=rules.prompts[context_id],
        context_id=context_id,
        rewards=told.rewards,
        factors=told.factors,
    )
    return Candidates(responses, prompts, size.best_of)


def _acted(task: Task, size: Size, seed: int) -> Candidates:
    """Beginnings of episodes by behaviours from random to good, all from the same starts.

    A behaviour takes the action that the environment's value source likes best of a few random
    ones; behaviours differ in how few, and in how often they repeat their last action instead.
    Where the environment has no value source all are random.
    """
    env = made(task, size.starts, seed)
    begin = int(np.random.default_rng((seed, 5)).integers(2**31))
    behaviours = [
        _behaved(env, number, size, begin, np.random.default_rng((seed, 6, number)))
        for number in range(size.candidates)
    ]
    env.close()
    by_start = np.arange(len(behaviours) * size.starts).reshape(-1, size.starts).T.reshape(-1)
    segments = Segments.concatenate(behaviours).take(by_start)
    start = np.repeat(np.arange(size.starts), len(behaviours))
    return Candidates(segments.replace(context_id=start), size.starts, len(behaviours))


def _behaved(
    env: PreferenceVectorEnv, number: int, size: Size, begin: int, rng: np.random.Generator
) -> Segments:
    """One candidate of every start: first episodes, each until it ends or is long enough."""
    tried = 2 ** (number % GRADES)
    sticky = STEADIEST * (number // GRADES) / max(1, (size.candidates - 1) // GRADES)
    store = env.store
    assert isinstance(store, EpisodeStore)
    observations, _ = env.reset(seed=begin)
    heads, running = store.head.copy(), np.ones(env.num_envs, bool)
    actions = None
    for _ in range(size.candidate_steps):
        fresh = _best(env, observations, tried, rng)
        kept = (rng.random(env.num_envs) < sticky).reshape(-1, *[1] * (fresh.ndim - 1))
        actions = fresh if actions is None else np.where(kept, actions, fresh)
        observations, _, terminated, truncated, _ = env.step(actions)
        running &= ~(terminated | truncated)
        if not running.any():
            break
    index = store.since(heads)
    lanes, _ = store.rows(index)
    _, first = np.unique(lanes, return_index=True)
    length = np.minimum(index.length[first], size.candidate_steps)
    episodes = SegmentIndex(index.episode[first], index.start[first], length)
    return store.segments(episodes, size.candidate_steps)


def _best(
    env: PreferenceVectorEnv, observations: np.ndarray, tried: int, rng: np.random.Generator
) -> np.ndarray:
    """For every lane the best of so many random actions."""
    lanes, source = env.num_envs, _value_source(env)
    drawn = drawn_actions(env.single_action_space, lanes * tried, rng)
    if tried == 1 or source is None:
        return drawn[:lanes]
    with tensors():
        told = source(np.repeat(observations, tried, 0), drawn).reshape(lanes, tried)
    chosen: np.ndarray = drawn[np.arange(lanes) * tried + told.argmax(1)]
    return chosen


def _value_source(env: PreferenceVectorEnv) -> ValueSource | None:
    """The environment's own; None where it has none."""
    try:
        source: ValueSource | None = env.get_wrapper_attr("advantages")
    except AttributeError:
        return None
    return source
