"""Self-play: win rates by hand, whom trajectories meet, averages, and what replays are told."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import prefgym  # noqa: F401
from prefgym.comparisons import Labels
from prefgym.elicitation import BudgetExhaustedError
from prefgym.raters import make_rater
from prefgym.raters.mirrored import MirrorCheck
from prefgym.raters.own import own_rater
from prefgym.rewards import win_rates, win_rates_in_group
from prefgym.segments import Segments
from prefgym_agents.evaluation import evaluate, played, win_rate_matrix
from prefgym_agents.opponents import Queue, drawn_opponents, may_meet
from prefgym_agents.reservoir import AveragePolicy, Reservoir
from prefgym_agents.sb3 import sb3_backend
from prefgym_agents.spo import SPO, Worth

PENDULUM, CORRIDOR = "prefgym/Pendulum-v0", "prefgym/Corridor-v0"


def walks(scores: list[float], context: list[int] | None = None, episode: int = 0) -> Segments:
    """Trajectories of one step each, known by their reward."""
    count = len(scores)
    return Segments(
        actions=np.zeros((count, 1)),
        mask=np.ones((count, 1), bool),
        context=np.zeros((count, 1)),
        context_id=np.zeros(count, np.int64) if context is None else np.array(context),
        observations=np.zeros((count, 1, 1)),
        rewards=np.array(scores)[:, None],
        episode=np.arange(count) + episode,
        start=np.zeros(count, np.int64),
    )


def learner(algorithm: str = "PPO", env_id: str = CORRIDOR, **settings: Any) -> SPO:
    lanes = settings.pop("lanes", 4)
    env = gym.make_vec(env_id, num_envs=lanes, **settings.pop("env", {}))
    more: dict[str, Any] = {"n_steps": 20, "batch_size": 20 * lanes, "n_epochs": 1}
    if algorithm != "PPO":
        more = {"learning_starts": 10_000}
    return SPO(sb3_backend(algorithm, env, seed=0, **more), **settings)


def turns(agent: SPO, count: int) -> list[tuple[Segments, np.ndarray]]:
    """What was collected, and what the backend was told that it is worth."""
    told: list[tuple[Segments, np.ndarray]] = []
    update = agent.policy.update

    def noting(segments: Segments, rewards: np.ndarray) -> Any:
        told.append((segments, rewards.copy()))
        return update(segments, rewards)

    agent.policy.update = noting  # type: ignore[method-assign]
    for number, _ in enumerate(agent.iterations(10**6)):
        if number + 1 == count:
            break
    return told


# --- win rates ----------------------------------------------------------------------------------


def test_masked_win_rates_are_those_of_the_opponents_that_count() -> None:
    chances = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.4, 0.9]])
    against = torch.tensor([[True, False, True], [False, False, False]])
    assert win_rates(chances, against).tolist() == [0.75, 0.5]
    everyone = torch.ones_like(against)
    torch.testing.assert_close(win_rates(chances, everyone), win_rates(chances))
    square = torch.rand(4, 5, 5, generator=torch.Generator().manual_seed(0))
    others = ~torch.eye(5, dtype=torch.bool)
    masked = win_rates(square, others.expand(4, 5, 5))
    torch.testing.assert_close(masked, win_rates_in_group(square))


def test_a_walk_earns_its_win_rate_in_equal_parts() -> None:
    agent = learner(queue=3, lanes=6)
    for segments, worth in turns(agent, 5):
        score = agent.env.elicitor.rater.statistic(segments)
        assert worth.shape == segments.mask.shape
        np.testing.assert_allclose(worth, np.broadcast_to(worth[:, :1], worth.shape))
        total = worth.sum(1)
        assert (np.abs(total) <= 0.5 + 1e-9).all()
        if np.ptp(score) and np.ptp(total):
            assert np.corrcoef(total, score)[0, 1] > 0.5


def test_win_rates_against_the_queue_by_hand() -> None:
    agent = learner(queue=4, lanes=8)
    told = turns(agent, 3)
    rater = agent.env.elicitor.rater
    before, (now, worth) = told[1][0], told[2]
    score, theirs = rater.statistic(now), rater.statistic(before)[-4:]
    beaten = (score[:, None] > theirs) + 0.5 * (score[:, None] == theirs)
    np.testing.assert_allclose(worth.sum(1), beaten.mean(1) - 0.5)


@pytest.mark.parametrize("compare", ["episodes", "segments"])
def test_a_coin_is_even_in_the_end(compare: str) -> None:
    settings = {"env": {"rater": "random", "segment_steps": 5}, "lanes": 64}
    agent = learner(queue=50, compare=compare, **settings)
    rates = [worth.sum() / 64 for _, worth in turns(agent, 6)]
    assert abs(np.mean(rates)) < 0.03


# --- whom trajectories meet ---------------------------------------------------------------------


def test_nobody_meets_itself_nor_another_context() -> None:
    ours = walks([1, 2, 3], [0, 0, 1])
    theirs = walks([1, 2, 3, 4], [0, 1, 1, 0], episode=2)
    assert may_meet(ours, theirs, across_contexts=True).sum() == 11
    assert may_meet(ours, theirs, across_contexts=False).tolist() == [
        [True, False, False, True],
        [True, False, False, True],
        [False, True, True, False],
    ]
    assert not may_meet(ours, ours, across_contexts=True).diagonal().any()


@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    size=st.integers(1, 3),
    across=st.booleans(),
)
def test_a_queue_holds_the_newest(sizes: list[int], size: int, across: bool) -> None:
    queue, listed, rng = Queue(size, across), [], np.random.default_rng(sum(sizes))
    for many in sizes:
        context = rng.integers(2, size=many).tolist()
        queue.push(walks([0.0] * many, context, episode=len(listed)))
        listed += context
    numbers = np.arange(len(listed))
    wanted = set(numbers[-size:]) if across else set()
    for one in () if across else (0, 1):
        wanted |= set(numbers[np.array(listed, int) == one][-size:])
    held = [] if queue.members is None else queue.members.episode.tolist()
    assert held == sorted(wanted)
    full = queue.is_full_for(np.array([0, 1]))
    counts = [listed.count(one) for one in (0, 1)]
    expected = [len(listed) >= size] * 2 if across else [one >= size for one in counts]
    assert full.tolist() == expected


def test_drawn_opponents_are_so_many_of_those_allowed() -> None:
    rng = np.random.default_rng(0)
    meet = rng.random((50, 9)) < 0.6
    drawn = drawn_opponents(meet, 3, rng)
    assert not (drawn & ~meet).any()
    assert (drawn.sum(1) == np.minimum(meet.sum(1), 3)).all()
    assert (drawn_opponents(meet, 9, rng) == meet).all()


def test_a_trajectory_that_goes_on_is_compared_as_far_as_it_has_come() -> None:
    agent = learner(env_id=PENDULUM, queue=2, env={"segment_steps": 20}, lanes=2)
    seen: list[tuple[int, int]] = []
    judge = agent.env.judge

    def noting(a: Segments, b: Segments, **more: Any) -> np.ndarray:
        seen.extend(zip(a.lengths.tolist(), b.lengths.tolist(), strict=True))
        return judge(a, b, **more)

    agent.env.judge = noting
    told = turns(agent, 13)  # 260 steps of episodes of 200
    assert seen
    assert all(mine == other for mine, other in seen)
    assert {mine for mine, _ in seen} == {200, 20, 40, 60}
    for segments, worth in told[:9]:
        assert not worth.any(), segments  # nobody to be compared with yet


def test_groups_ask_every_pair_once() -> None:
    agent = learner(opponents="group", lanes=6, answers="exact")
    _, worth = turns(agent, 1)[0]
    assert agent.env.elicitor.judged == 15
    np.testing.assert_allclose(worth.sum(), 0.0, atol=1e-9)


# --- replays ------------------------------------------------------------------------------------


def test_a_replay_is_told_of_whole_episodes_when_they_end() -> None:
    agent = learner("SAC", PENDULUM, queue=4, lanes=3, scale=7.0)
    replay: Any = agent.policy.replay  # type: ignore[attr-defined]
    turns(agent, 30)  # 240 steps: each lane has one whole episode
    learned = replay.learned[:, :200]
    assert learned.any()
    np.testing.assert_array_equal(learned, np.broadcast_to(learned[:, :1], learned.shape))
    assert not replay.learned[:, 200:].any()
    np.testing.assert_allclose(learned.sum(), 0.0, atol=1e-4)  # three that met each other


def test_what_is_in_a_replay_is_judged_anew_against_todays_queue() -> None:
    stale, fresh = (
        learner("SAC", PENDULUM, queue=3, lanes=3, rejudge_every=every) for every in (None, 10)
    )
    for agent in (stale, fresh):
        turns(agent, 90)
    ours, theirs = (one.policy.replay.learned for one in (stale, fresh))  # type: ignore[attr-defined]
    assert (ours[:, :200] != theirs[:, :200]).any()
    assert fresh.env.elicitor.judged > stale.env.elicitor.judged


# --- comparisons are counted --------------------------------------------------------------------


def test_no_more_is_asked_than_allowed_and_evenly_over_the_steps() -> None:
    agent = learner(queue=8, labels=100, lanes=8, env={"budget": 100})
    asked = [agent.env.elicitor.judged for _ in agent.iterations(160 * 10)]
    assert asked[-1] == 100
    assert all(one <= 10 * (turn + 1) for turn, one in enumerate(asked))
    with pytest.raises(BudgetExhaustedError):
        agent.env.judge(walks([0.0]), walks([1.0]))
    with pytest.raises(ValueError, match="labels=200, but the environment's budget allows only"):
        learner(labels=200, env={"budget": 100})


# --- the average --------------------------------------------------------------------------------


def test_a_reservoir_keeps_every_offer_with_the_same_chance() -> None:
    counts = np.zeros(20)
    for seed in range(600):
        kept = Reservoir(5, seed)
        for number in range(20):
            kept.offer(lambda number=number: {"is": np.array(number)})  # type: ignore[misc]
        counts[[int(one["is"]) for one in kept.kept]] += 1
    assert counts.sum() == 600 * 5
    assert np.abs(counts / 600 - 0.25).max() < 4.5 * np.sqrt(0.25 * 0.75 / 600)


def test_the_average_acts_as_one_snapshot_for_a_whole_episode() -> None:
    agent = learner(snapshots=3)
    agent.learn(400)
    policy = agent.average()
    newest = agent.policy.snapshot()
    seen = np.zeros((40, 2), np.int64)
    _, acting = policy.predict(seen, None, np.ones(40, bool), True)
    assert set(acting) == {0, 1, 2}
    _, still = policy.predict(seen, acting, np.zeros(40, bool), True)
    assert (still == acting).all()
    ended = np.arange(40) < 20
    _, then = policy.predict(seen, acting, ended, True)
    assert (then[20:] == acting[20:]).all()
    assert (then[:20] != acting[:20]).any()
    for name, values in agent.policy.snapshot().items():
        np.testing.assert_array_equal(values, newest[name])
    with pytest.raises(ValueError, match="there are no snapshots"):
        AveragePolicy(agent.policy, [])


def test_the_matrix_of_win_rates_by_hand() -> None:
    weak, strong = walks([0.0, 1.0]), walks([1.0, 2.0])
    matrix = win_rate_matrix([weak, strong, weak], make_rater("partial-return"))
    assert matrix.tolist() == [[0.5, 0.125, 0.5], [0.875, 0.5, 0.875], [0.5, 0.125, 0.5]]


def test_episodes_that_were_played_are_whole_and_return_what_evaluation_says() -> None:
    agent = learner(env_id=PENDULUM).policy
    episodes = played(agent, PENDULUM, episodes=3, seed=5, deterministic=True)
    assert episodes.lengths.tolist() == [200] * 3
    returns = evaluate(agent, PENDULUM, episodes=3, seed=5)
    np.testing.assert_allclose(episodes.rewards.sum(1), returns)


# --- mistakes -----------------------------------------------------------------------------------


def test_a_rater_that_favours_the_first_side_is_found_out() -> None:
    def first(a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        return Labels(np.ones(len(a)), np.ones(len(a), bool), np.zeros(len(a), np.int64))

    agent = learner(env={"rater": first}, lanes=8)
    with pytest.raises(ValueError, match="by the order of the two sides: labels of"):
        agent.learn(160 * 20)


def test_probabilities_that_do_not_mirror_are_found_out_at_once() -> None:
    class Odd:
        meaning = "odd"

        def __call__(self, a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
            return Labels(np.ones(len(a)), np.ones(len(a), bool), np.zeros(len(a), np.int64))

        def probability(self, a: Segments, b: Segments) -> np.ndarray:
            return np.full(len(a), 0.7)

    with pytest.raises(ValueError, match=r"P\(b ≻ a\) is 1.4"):
        learner(env={"rater": Odd()}, lanes=8).learn(160)


def test_a_noisy_but_fair_rater_passes() -> None:
    def coin(a: Segments, b: Segments, rng: np.random.Generator) -> Labels:
        label = rng.integers(0, 2, len(a)).astype(float)
        return Labels(label, np.ones(len(a), bool), np.zeros(len(a), np.int64))

    check, rng = MirrorCheck(), np.random.default_rng(0)
    for _ in range(2000):
        check(own_rater(coin), walks([1.0] * 9), walks([2.0] * 9), rng)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"queue": 0}, "queue=0; wanted at least 1"),
        ({"queue": -3}, "queue=-3"),
        ({"comparisons": 0}, "comparisons=0"),
        ({"snapshots": -1}, "snapshots=-1; wanted at least 0"),
        ({"snapshots": 0, "act": "average"}, "needs snapshots"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"que": 3}, "did you mean 'queue'"),
        ({"config": "groups"}, "did you mean 'group'"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        learner(**wrong)


def test_worth_of_steps_is_read_by_episode_and_place() -> None:
    worth = Worth(np.array([3, 5]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    asked = Segments(
        actions=np.zeros((3, 2)),
        mask=np.array([[True, True], [True, False], [True, True]]),
        context=np.zeros((3, 1)),
        context_id=np.zeros(3, np.int64),
        episode=np.array([5, 3, 4]),
        start=np.array([1, 2, 0]),
    )
    assert worth.of(asked).tolist() == [[5.0, 6.0], [3.0, 0.0], [0.0, 0.0]]
