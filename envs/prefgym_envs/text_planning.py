"""Exact solutions of text tasks: soft values, all responses, the best policy near a reference.

A response is a path through an automaton, so what can still be gained after t tokens depends on t
and on the automaton's state alone, and one sweep from the last token to the first finds it.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from prefgym.text import Layout

MOST_RESPONSES = 1 << 20
"""So many responses, and no more, are ever listed."""
SUM_TOLERANCE = 1e-3
"""How far the probabilities of all responses may add up to something else than 1."""


def soft_values(
    next_state: Int[np.ndarray, " states tokens"],
    rewards: Float[np.ndarray, " states tokens"],
    eos: int,
    steps: int,
    temperature: float,
) -> Float[np.ndarray, " times states"]:
    """V_β(t, s): the best reward to come, less β · KL to the policy that draws tokens uniformly.

    V_β(T, s) = 0; Q(t, s, a) = r(s, a) + V_β(t + 1, s'), without V_β where a is the end; and
    V_β(t, s) = β log mean_a exp(Q(t, s, a) / β), which is max_a Q where β = 0.

    Args:
        next_state: where a token leads.
        rewards: what it earns.
        eos: the token after which nothing comes.
        steps: T, tokens of the longest response.
        temperature: β, in units of reward.

    Returns:
        ``[T + 1, states]``, in units of reward.

    Raises:
        ValueError: the temperature is negative or not finite.
    """
    if not 0 <= temperature < np.inf:
        raise ValueError(f"temperature is {temperature}; give 0 (no penalty) or more, in rewards.")
    values = np.zeros((steps + 1, len(rewards)))
    for time in reversed(range(steps)):
        to_come = values[time + 1].take(next_state)
        to_come[:, eos] = 0.0
        values[time] = _soft_maximum(rewards + to_come, temperature)
    return values


def uniform_values(
    next_state: Int[np.ndarray, " states tokens"],
    rewards: Float[np.ndarray, " states tokens"],
    eos: int,
    steps: int,
) -> Float[np.ndarray, " states"]:
    """The reward that a policy earns from each state on that draws every token uniformly."""
    values = np.zeros(len(rewards))
    for _ in range(steps):
        to_come = values.take(next_state)
        to_come[:, eos] = 0.0
        values = (rewards + to_come).mean(1)
    return values


def all_responses(
    layout: Layout,
) -> tuple[Int[np.ndarray, " responses steps"], Bool[np.ndarray, " responses steps"]]:
    """Every response there is, the shortest first, and its mask.

    Raises:
        ValueError: there are too many.
    """
    others = np.delete(np.arange(layout.codec.size), layout.codec.eos)
    steps = layout.response_tokens
    lengths = [*range(steps), steps]
    count = sum(len(others) ** length for length in lengths)
    if count > MOST_RESPONSES:
        raise ValueError(
            f"A vocabulary of {layout.codec.size} has {count:.3g} responses of up to {steps} tokens"
            f"; only up to {MOST_RESPONSES} can be listed, so take a smaller task."
        )
    blocks = []
    for length in lengths:
        block = np.full((len(others) ** length, steps), layout.codec.eos)
        for place in range(length):
            block[:, place] = others[np.arange(len(block)) // len(others) ** place % len(others)]
        blocks.append(block)
    actions = np.concatenate(blocks)
    mask = layout.mask(actions)
    return np.where(mask, actions, layout.codec.pad), mask


def kl_optimal(
    returns: Float[np.ndarray, " prompts responses"],
    reference_log_prob: Float[np.ndarray, " _ _"],
    temperature: float,
) -> tuple[Float[np.ndarray, " prompts"], Float[np.ndarray, " prompts responses"]]:
    """The best of all policies under the return less β · KL to a reference, and what it is worth.

    π*(y) ∝ π_ref(y) exp(r(y) / β), and max_π E_π[r] − β KL(π ‖ π_ref) = β log E_ref exp(r / β).

    Source: Rafailov et al. (2023), eq. 3 to 5, arXiv:2305.18290.

    Args:
        returns: r of every response, in units of reward.
        reference_log_prob: log π_ref of every response.
        temperature: β, in units of reward.

    Returns:
        The value for every prompt, and log π* of every response.

    Raises:
        ValueError: the temperature is not above 0, or the reference is no distribution.
    """
    _check_policy("reference_log_prob", reference_log_prob, returns.shape)
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature is {temperature}; give a finite number above 0, in rewards.")
    tilted = reference_log_prob + returns / temperature
    normaliser = np.logaddexp.reduce(tilted, axis=1)
    return temperature * normaliser, tilted - normaliser[:, None]


def kl_value(
    returns: Float[np.ndarray, " prompts responses"],
    log_prob: Float[np.ndarray, " _ _"],
    reference_log_prob: Float[np.ndarray, " _ _"],
    temperature: float,
) -> Float[np.ndarray, " prompts"]:
    """E_π[r] − β KL(π ‖ π_ref) of any policy, for every prompt, in units of reward.

    Raises:
        ValueError: the policy or the reference is no distribution over all responses.
    """
    _check_policy("log_prob", log_prob, returns.shape)
    _check_policy("reference_log_prob", reference_log_prob, returns.shape)
    chance = np.exp(log_prob)
    gap = np.where(chance > 0, log_prob - reference_log_prob, 0.0)
    worth: np.ndarray = (chance * (returns - temperature * gap)).sum(1)
    return worth


def _soft_maximum(
    values: Float[np.ndarray, " states tokens"], temperature: float
) -> Float[np.ndarray, " states"]:
    highest: np.ndarray = values.max(1)
    if temperature == 0:
        return highest
    above = np.exp((values - highest[:, None]) / temperature)
    found: np.ndarray = highest + temperature * np.log(above.mean(1))
    return found


def _check_policy(name: str, log_prob: np.ndarray, shape: tuple[int, ...]) -> None:
    if log_prob.shape != shape:
        raise ValueError(
            f"{name} has shape {log_prob.shape}; wanted {shape}: one row per prompt, one column"
            " per response, in the order of all_responses()."
        )
    total = np.exp(np.logaddexp.reduce(log_prob.astype(np.float64), axis=1))
    if not (abs(total - 1.0) <= SUM_TOLERANCE).all():
        odd = int(np.nan_to_num(abs(total - 1.0), nan=np.inf).argmax())
        raise ValueError(
            f"{name} adds up to a probability of {total[odd]:.6g} for prompt {odd}; give log π of"
            " whole responses, that of the end token included."
        )
