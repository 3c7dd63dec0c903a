"""Exact planning in batches of tabular MDPs: V*, Q*, policy values, successor features, returns.

All functions work on a whole batch at once, with no Python loop over the MDPs. They are exact up to
rounding: nothing is stopped at a tolerance of value iteration.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from prefgym_envs.tabular_mdps import TabularMDPs

MDPS_PER_CHUNK = 64
"""Linear systems solved together: bounds the memory to 64 matrices of states × states."""

SWEEPS_AT_FIRST, SWEEPS_PER_ROUND = 16, 8
"""Of value iteration before a policy is evaluated: about the longest way through a small board."""

UNCHECKED: Final = "wrap"
"""Mode of ``numpy.take`` that spares a test of every index; all of ours are in range."""

NEGLIGIBLE = 1e-20
"""A discount that leaves nothing of a sum."""


class Values(NamedTuple):
    """Optimal values, in units of reward: 0 in absorbing states."""

    v: Float[np.ndarray, " mdps states"]
    q: Float[np.ndarray, " mdps states actions"]


class Solution(NamedTuple):
    """Optimal values, and what an optimal policy collects on its way: v = ψ · weights."""

    v: Float[np.ndarray, " mdps states"]
    q: Float[np.ndarray, " mdps states actions"]
    features: Float[np.ndarray, " mdps states features"]
    """Successor features ψ of the policy that takes the first of the best actions."""


def solve(mdps: TabularMDPs) -> Values:
    """Optimal values V* and Q*, for all MDPs together.

    Rounds of value iteration, each followed by the exact values of the greedy policy, until these
    fulfil the optimality equation: max_s |V − max_a (r + γ E V')| ≤ 1e-11 · (1 + max |V|). Starting
    below V*, no round can make a policy worse. With deterministic transitions the values of a
    policy come from path doubling (sums over the first 1, 2, 4, ... steps of every state's path),
    otherwise from linear systems.
    Source: Puterman and Shin (1978), Modified policy iteration algorithms.
    """
    world = _flat(mdps)
    action_values, _ = _optimal(mdps, world)
    return _unflat_values(mdps, world, action_values)


def solve_with_features(mdps: TabularMDPs) -> Solution:
    """:func:`solve`, and the successor features of an optimal policy, in the same pass."""
    world = _flat(mdps)
    action_values, policy = _optimal(mdps, world)
    return Solution(
        *_unflat_values(mdps, world, action_values),
        _features_on_the_way(mdps, world, policy),
    )


def greedy(
    q: Float[np.ndarray, " mdps states actions"], tolerance: float = 1e-8
) -> Float[np.ndarray, " mdps states actions"]:
    """Probabilities of the policy that mixes all best actions uniformly.

    Args:
        q: value of each action, in units of reward.
        tolerance: actions that are worse than the best by no more than this count as tied.
    """
    best = q >= q.max(-1, keepdims=True) - tolerance
    policy: np.ndarray = best / best.sum(-1, keepdims=True)
    return policy


def uniform(mdps: TabularMDPs) -> Float[np.ndarray, " mdps states actions"]:
    """Probabilities of the policy that takes every action equally often."""
    return np.full(mdps.next_state.shape[:3], 1.0 / mdps.actions)


def successor_features(
    mdps: TabularMDPs, policy: Float[np.ndarray, " mdps states actions"]
) -> Float[np.ndarray, " mdps states features"]:
    """Expected discounted sum of the features from each state on: V^π = ψ · weights.

    Source: Barreto et al. (2017), Successor features for transfer, eq. 3, arXiv:1606.05312.

    Args:
        mdps: the MDPs; their weights play no part.
        policy: probability of each action in each state.

    Raises:
        ValueError: the policy has another shape, or its rows are not probabilities.
    """
    _check_policy(mdps, policy)
    expected = np.einsum("msao,msaof,msa->msf", mdps.probability, mdps.features, policy)
    return _discounted_sums(mdps, policy, expected)


def evaluate(
    mdps: TabularMDPs, policy: Float[np.ndarray, " mdps states actions"]
) -> Float[np.ndarray, " mdps states"]:
    """V^π: the expected discounted return of a policy from each state, in units of reward.

    Raises:
        ValueError: the policy has another shape, or its rows are not probabilities.
    """
    _check_policy(mdps, policy)
    expected = np.einsum("msa,msa->ms", mdps.rewards, policy)
    return _discounted_sums(mdps, policy, expected[..., None])[..., 0]


def returns(
    mdps: TabularMDPs, policy: Float[np.ndarray, " mdps states actions"]
) -> Float[np.ndarray, " mdps"]:
    """J(π): the mean of V^π over the start states, in units of reward."""
    means: np.ndarray = np.einsum("ms,ms->m", mdps.start, evaluate(mdps, policy))
    return means


def scaled_returns(
    mdps: TabularMDPs, policy: Float[np.ndarray, " mdps states actions"]
) -> Float[np.ndarray, " mdps"]:
    """(J(π) − J(random)) / (J* − J(random)): 0 for random actions, 1 for an optimal policy.

    Where no policy is better than random actions, every policy scores 1.
    Source: Knox et al. (2022), arXiv:2206.02231.
    """
    worst = returns(mdps, uniform(mdps))
    span = np.einsum("ms,ms->m", mdps.start, solve(mdps).v) - worst
    gained = returns(mdps, policy) - worst
    nothing_to_gain = span <= 1e-9 * (1 + np.abs(worst))
    return np.where(nothing_to_gain, 1.0, gained / np.where(nothing_to_gain, 1.0, span))


class _FlatMDPs(NamedTuple):
    """All MDPs as one: outcomes and actions first, then the states of the whole batch in one row.

    Absorbing states (and the padding of smaller MDPs) share the last column, whose value is 0.
    """

    reward: Float[np.ndarray, " actions columns"]
    ahead: Int[np.ndarray, " outcomes actions columns"]
    """Column of each outcome's next state; deterministic transitions keep one outcome."""
    chance: Float[np.ndarray, " outcomes actions columns"] | float
    """Discount × probability of each outcome; the discount alone where there is one outcome."""
    kept: Int[np.ndarray, " kept"]
    """Which state (MDP · states + state) each column but the last one is."""
    column: Int[np.ndarray, " rows"]
    """Which column each state of the batch is."""

    def action_values(
        self, values: Float[np.ndarray, " columns"]
    ) -> Float[np.ndarray, " actions columns"]:
        """Q: reward plus discounted value of what follows."""
        if isinstance(self.chance, float):
            total: np.ndarray = (self.chance * values).take(self.ahead[0], mode=UNCHECKED)
            total += self.reward
            return total
        total = self.reward
        for ahead, chance in zip(self.ahead, self.chance, strict=True):
            total = total + chance * values.take(ahead, mode=UNCHECKED)
        return total

    def part(self, columns: Int[np.ndarray, " some"]) -> "_FlatMDPs":
        """Whole MDPs out of all, by their columns, of which the last is the shared one."""
        place = np.full(self.ahead.shape[-1], len(columns) - 1)
        place[columns] = np.arange(len(columns))
        chance = self.chance if isinstance(self.chance, float) else self.chance[..., columns]
        ahead, kept = place.take(self.ahead[..., columns]), self.kept[columns[:-1]]
        return _FlatMDPs(self.reward[:, columns], ahead, chance, kept, place.take(self.column))

    def of(self, policy: Int[np.ndarray, " columns"]) -> Int[np.ndarray, " columns"]:
        """Where the chosen actions stand in ``reward`` and ``ahead[0]``, flattened."""
        places: np.ndarray = policy * len(policy) + np.arange(len(policy))
        return places

    def unflat(self, columns: np.ndarray) -> np.ndarray:
        """One entry per state again; absorbing states have that of the last column."""
        return columns.take(self.column, axis=0, mode=UNCHECKED)


def _flat(mdps: TabularMDPs) -> _FlatMDPs:
    count, states, actions, _ = mdps.next_state.shape
    rows, outcomes = count * states, 1 if mdps.deterministic else mdps.next_state.shape[3]
    next_state = mdps.next_state[..., :outcomes]
    own = np.repeat(np.arange(states), actions * outcomes)
    leaves = (next_state.reshape(count, -1) != own).reshape(rows, -1)
    earns = mdps.rewards.reshape(rows, -1) != 0.0
    kept = np.flatnonzero(np.logical_or.reduce([*leaves.T, *earns.T]))
    column = np.full(rows, len(kept))
    column[kept] = np.arange(len(kept))
    ahead = next_state.reshape(rows, -1).take(kept, axis=0) + (kept // states * states)[:, None]
    chance: np.ndarray | float = mdps.discount
    if not mdps.deterministic:
        spread = mdps.probability.reshape(rows, actions, outcomes)[kept].transpose(2, 1, 0)
        chance = _with_sink(mdps.discount * spread, 0)
    onward = column.take(ahead).reshape(-1, actions, outcomes).transpose(2, 1, 0)
    return _FlatMDPs(
        reward=_with_sink(mdps.rewards.reshape(rows, -1).take(kept, axis=0).T, 0),
        ahead=_with_sink(onward, len(kept)),
        chance=chance,
        kept=kept,
        column=column,
    )


def _with_sink(columns: np.ndarray, value: int) -> np.ndarray:
    """One more column, for all absorbing states."""
    wider = np.empty((*columns.shape[:-1], columns.shape[-1] + 1), columns.dtype)
    wider[..., :-1] = columns
    wider[..., -1] = value
    return wider


def _optimal(
    mdps: TabularMDPs, world: _FlatMDPs
) -> tuple[Float[np.ndarray, " actions columns"], Int[np.ndarray, " columns"]]:
    """Q*, and a policy that is greedy in it."""
    every = len(world.kept) + 1
    lowest = world.reward.min()  # 0 at most: the last column's
    values = np.full(every, lowest / (1.0 - mdps.discount))
    values[-1] = 0.0
    policy = np.zeros(every, np.int64)
    owner = np.append(world.kept // mdps.states, len(mdps))
    columns, part, sweeps = np.arange(every), world, SWEEPS_AT_FIRST
    while len(columns) > 1:
        some = values[columns]
        for _ in range(sweeps):
            some = part.action_values(some).max(0)
        policy[columns] = chosen = _first_best(part.action_values(some))
        values[columns] = some = _policy_values(mdps, part, chosen)
        sweeps = SWEEPS_PER_ROUND
        better = part.action_values(some).max(0) - some > 1e-11 * (1.0 + np.abs(some).max())
        if mdps.deterministic or not better.any():
            unsolved = np.zeros(len(mdps) + 1, np.bool_)
            unsolved[owner[columns[better]]] = True
            columns = np.append(np.flatnonzero(unsolved[owner]), every - 1)
            part = world.part(columns)
    return world.action_values(values), policy


def _first_best(
    action_values: Float[np.ndarray, " actions columns"],
) -> Int[np.ndarray, " columns"]:
    """``argmax(0)``, several times as fast where there are few actions."""
    best, first = action_values[0], np.zeros(action_values.shape[1], np.int64)
    for action, value in enumerate(action_values[1:], 1):
        first[value > best] = action
        best = np.maximum(best, value)
    return first


def _unflat_values(
    mdps: TabularMDPs, world: _FlatMDPs, action_values: Float[np.ndarray, " actions columns"]
) -> Values:
    return Values(
        world.unflat(action_values.max(0)).reshape(mdps.next_state.shape[:2]),
        world.unflat(action_values.T).reshape(mdps.next_state.shape[:3]),
    )


def _policy_values(
    mdps: TabularMDPs, world: _FlatMDPs, policy: Int[np.ndarray, " columns"]
) -> Float[np.ndarray, " columns"]:
    """The values of the policy that always takes one action per state."""
    if mdps.deterministic:
        chosen = world.of(policy)
        return _along_paths(world.reward.take(chosen), world.ahead[0].take(chosen), mdps.discount)
    values = evaluate(mdps, _one_hot(mdps, world, policy)).reshape(-1)[world.kept]
    return np.append(values, 0.0)


def _features_on_the_way(
    mdps: TabularMDPs, world: _FlatMDPs, policy: Int[np.ndarray, " columns"]
) -> Float[np.ndarray, " mdps states features"]:
    """Successor features of the policy that always takes one action per state."""
    if not mdps.deterministic:
        return successor_features(mdps, _one_hot(mdps, world, policy))
    count = mdps.weights.shape[-1]
    table = _expected_features(mdps).reshape(-1, count)
    each = np.empty((len(policy), count))
    np.take(table, world.kept * mdps.actions + policy[:-1], 0, each[:-1], mode="clip")
    each[-1] = 0.0
    sums = _along_paths(each, world.ahead[0].take(world.of(policy)), mdps.discount)
    return world.unflat(sums).reshape(*mdps.next_state.shape[:2], count)


def _expected_features(mdps: TabularMDPs) -> Float[np.ndarray, " mdps states actions features"]:
    """What every action counts, on average over its outcomes."""
    if mdps.next_state.shape[3] == 1:
        return mdps.features[..., 0, :]
    expected: np.ndarray = np.einsum("msao,msaof->msaf", mdps.probability, mdps.features)
    return expected


def _one_hot(
    mdps: TabularMDPs, world: _FlatMDPs, policy: Int[np.ndarray, " columns"]
) -> Float[np.ndarray, " mdps states actions"]:
    chosen: np.ndarray = np.eye(mdps.actions)[world.unflat(policy)]
    return chosen.reshape(mdps.next_state.shape[:3])


def _along_paths(
    each: Float[np.ndarray, " columns *features"],
    ahead: Int[np.ndarray, " columns"],
    discount: float,
) -> Float[np.ndarray, " columns *features"]:
    """Σ_t discount^t each[the t-th column on the path from each column], by path doubling.

    What no column leads to is left aside, and the others take two steps at a time; again, as long
    as that leaves much aside. What remains (mostly circles) takes 2, 4, 8, ... steps at a time.

    Args:
        each: what a column counts; 0 in the last one.
        ahead: the column that follows each; the last one follows itself.
        discount: of the next column.
    """
    aside = []
    while discount > NEGLIGIBLE:
        led_to = np.zeros(len(ahead), np.bool_)
        led_to[ahead] = True
        kept = led_to.nonzero()[0]
        if len(kept) > 0.75 * len(ahead):
            break
        place = np.empty(len(ahead), np.int64)
        place[kept] = np.arange(len(kept))
        onward = place.take(ahead)
        aside.append((each, onward, discount))
        each, ahead = each.take(kept, axis=0), onward.take(kept)
        each, ahead, discount = _doubled(each, ahead, discount)
    while discount > NEGLIGIBLE:
        each, ahead, discount = _doubled(each, ahead, discount)
    for own, onward, factor in reversed(aside):
        each = _with_next(own, each, onward, factor)
    return each


def _doubled(
    each: Float[np.ndarray, " columns *features"], ahead: Int[np.ndarray, " columns"], factor: float
) -> tuple[Float[np.ndarray, " columns *features"], Int[np.ndarray, " columns"], float]:
    """The same sums in half as many steps."""
    return _with_next(each, each, ahead, factor), ahead.take(ahead), factor * factor


def _with_next(
    own: Float[np.ndarray, " columns *features"],
    sums: Float[np.ndarray, " others *features"],
    ahead: Int[np.ndarray, " columns"],
    factor: float,
) -> Float[np.ndarray, " columns *features"]:
    """``own`` plus the discounted sums of what follows each."""
    total: np.ndarray = sums.take(ahead, axis=0, mode=UNCHECKED)
    total *= factor
    total += own
    return total


def _check_policy(mdps: TabularMDPs, policy: Float[np.ndarray, " mdps states actions"]) -> None:
    if policy.shape != mdps.next_state.shape[:3]:
        raise ValueError(
            f"The policy has shape {policy.shape}, but (MDPs, states, actions) is "
            f"{mdps.next_state.shape[:3]}; give the probability of each action in each state."
        )
    if not (policy >= 0).all() or not np.allclose(policy.sum(-1), 1.0, rtol=0, atol=1e-6):
        raise ValueError(
            "Every row of a policy must hold non-negative probabilities that sum to 1."
        )


def _discounted_sums(
    mdps: TabularMDPs,
    policy: Float[np.ndarray, " mdps states actions"],
    each: Float[np.ndarray, " mdps states features"],
) -> Float[np.ndarray, " mdps states features"]:
    """Solve (I − γ P^π) x = each, a chunk of MDPs at a time."""
    sums = np.empty_like(each)
    for begin in range(0, len(mdps), MDPS_PER_CHUNK):
        chunk = slice(begin, begin + MDPS_PER_CHUNK)
        system = _transitions(mdps, policy, chunk)
        system *= -mdps.discount
        diagonal = np.arange(mdps.states)
        system[:, diagonal, diagonal] += 1.0
        sums[chunk] = np.linalg.solve(system, each[chunk])
    return sums


def _transitions(
    mdps: TabularMDPs, policy: Float[np.ndarray, " mdps states actions"], chunk: slice
) -> Float[np.ndarray, " chunk states states"]:
    """P^π of some of the MDPs, row = from, column = to."""
    ahead = mdps.next_state[chunk]
    rows = np.arange(len(ahead) * mdps.states).reshape(len(ahead), mdps.states, 1, 1)
    mass = mdps.probability[chunk] * policy[chunk, :, :, None]
    shape = (len(ahead), mdps.states, mdps.states)
    flat = np.bincount(
        (rows * mdps.states + ahead).ravel(), mass.ravel(), minlength=int(np.prod(shape))
    )
    return flat.reshape(shape)
