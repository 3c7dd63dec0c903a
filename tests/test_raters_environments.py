"""Raters by name in every environment: each of them looks at something there, and is emitted."""

import pickle
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from prefgym.raters import RATERS, Rater
from prefgym.raters.features import Columns, FactorSums, Walk
from prefgym.raters.options import checked_options
from prefgym.raters.own import ProbabilityRater
from prefgym.raters.populations import groups
from prefgym.registration import ENVIRONMENTS
from prefgym.segments import Segments
from prefgym.wrappers import PreferenceEnv, PreferenceVectorEnv
from prefgym.wrappers.inner import chosen_rater, find_attribute

GRIDS = [one.id for one in ENVIRONMENTS.values() if one.module == "prefgym_envs.minigrid_tasks"]
IDS = [
    one.id
    for one in ENVIRONMENTS.values()
    if not one.needs and one.extra is None and one.id not in GRIDS[1:]
]
CONDORCET = "prefgym/Condorcet-v0"
FAMILIES = {
    "classic control": "prefgym/Pendulum-v0",
    "robots": "prefgym/Hopper-v0",
    "gridworlds": "prefgym/Delivery-v0",
    "text": "prefgym/TextSort-v0",
    "bandit": CONDORCET,
}
SINGLE_STEP = {"low-then-high", "distance-and-sector"}
"""Ask what came first and what later: nothing for a bandit."""


def act(env: Any, steps: int) -> list[dict[str, Any]]:
    """Random steps; the preferences that they emitted."""
    env.action_space.seed(0)
    env.reset(seed=0)
    emitted = []
    for _ in range(steps):
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        emitted += [info["preference"]] if "preference" in info else []
        if terminated or truncated:
            env.reset()
    return emitted


@cache
def met(env_id: str) -> tuple[Any, Segments, Segments]:
    """An environment, and 60 pairs of what random actions met there."""
    env: Any = gym.make(env_id, rater="random", query_every=None)
    act(env, 1000 if ".locomotion" in ENVIRONMENTS[env_id].module else 400)
    return env, *env.get_wrapper_attr("sample_pairs")(60, np.random.default_rng(0))


def possible(env_id: str, name: str) -> bool:
    if name == "regret":
        return find_attribute(met(env_id)[0], "advantages") is not None
    return env_id != CONDORCET or name not in SINGLE_STEP


def chosen(env_id: str, name: str, **options: Any) -> Any:
    env, _, _ = met(env_id)
    return chosen_rater(env.unwrapped, name, None, options)


@pytest.mark.parametrize("env_id", IDS)
def test_every_name_can_tell_segments_apart(env_id: str) -> None:
    """With no argument, and keeping to the law of mirrored pairs."""
    _, a, b = met(env_id)
    told = {name: chosen(env_id, name) for name in RATERS if possible(env_id, name)}
    for rater in told.values():
        chance = rater.probability(a, b)
        np.testing.assert_allclose(chance + rater.probability(b, a), 1.0, rtol=0, atol=1e-12)
    looking = ("cyclic", "rock-paper-scissors", "matrix", "distance-and-sector", "low-then-high")
    looking += ("heron",)
    for name in {*looking, "two-groups", "five-groups"} & told.keys():
        assert len(set(told[name](a, b, np.random.default_rng(0)).label)) > 1, name


@pytest.mark.parametrize("name", RATERS)
@pytest.mark.parametrize("env_id", FAMILIES.values(), ids=list(FAMILIES))
def test_every_name_is_emitted_in_every_family(env_id: str, name: str) -> None:
    if not possible(env_id, name):
        why = "does not solve itself" if name == "regret" else "single"
        with pytest.raises(ValueError, match=rf"^The rater '{name}' .*{why}.*choose "):
            gym.make(env_id, rater=name)
        return
    asked: dict[str, Any] = {"rater": name, "query_every": 12}
    if ".text_" in ENVIRONMENTS[env_id].module:
        asked["prompts"] = 1
    else:
        asked["segment_steps"] = min(5, ENVIRONMENTS[env_id].segment_steps)
    env: Any = gym.make(env_id, **asked)
    emitted = act(env, 80)
    assert emitted
    assert {one["rater_id"] for one in emitted} <= set(range(5))
    assert env.get_wrapper_attr("preferences").meaning == chosen(env_id, name).meaning


@pytest.mark.parametrize("env_id", IDS)
def test_vector_environments_have_the_same_raters(env_id: str) -> None:
    lanes: Any = gym.make_vec(env_id, num_envs=2)
    for name in RATERS:
        if possible(env_id, name) and name != "regret":  # whose values belong to one environment
            assert chosen_rater(lanes.env, name, None, {}) == chosen(env_id, name)


@pytest.mark.parametrize("env_id", IDS)
def test_headings_go_all_the_way_round(env_id: str) -> None:
    """No half of the circle holds all that random actions met: some of it beats in a circle."""
    env, _, _ = met(env_id)
    steps, store = ENVIRONMENTS[env_id].segment_steps, env.get_wrapper_attr("store")
    some = store.segments(store.sample(200, steps, np.random.default_rng(1)), steps)
    rater = chosen(env_id, "cyclic")
    x, y = rater.rule.plane(some).T
    turn = np.unique(np.arctan2(y, x)[np.hypot(x, y) > 1e-9])
    assert np.diff(turn, append=turn[0] + 2 * np.pi).max() < np.pi


# --- environments of other people ---------------------------------------------------------------


class Elsewhere(gym.Env[Any, Any]):
    """Steps of nothing, in spaces of choice."""

    def __init__(self, seen: Any, acted: Any, factors: tuple[str, ...] = ()) -> None:
        self.observation_space, self.action_space = seen, acted
        self.factor_names = factors

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        info = {"factors": dict.fromkeys(self.factor_names, 1.0)}
        return self.observation_space.sample(), 0.0, False, False, info

    def __str__(self) -> str:
        return "Elsewhere"


def box(*shape: int) -> gym.spaces.Box:
    return gym.spaces.Box(-1.0, 1.0, shape)


@pytest.mark.parametrize(
    ("env", "plane"),
    [
        (Elsewhere(box(2, 2), gym.spaces.Discrete(3)), Columns((0, 1))),
        (Elsewhere(gym.spaces.Discrete(9), gym.spaces.Discrete(4)), Walk(4)),
        (Elsewhere(box(1), box(1), ("f", "g", "h")), FactorSums(("f", "g"))),
    ],
)
def test_unknown_environments_get_what_they_show(env: Any, plane: Any) -> None:
    made: Any = PreferenceEnv(env, "cyclic", segment_steps=2, query_every=3)
    assert made.elicitor.rater.rule.plane == plane
    assert len(act(made, 30)) > 5


def test_what_an_environment_cannot_show_is_said_in_a_sentence() -> None:
    bare = Elsewhere(box(1), box(1))
    for name in ("cyclic", "rock-paper-scissors", "distance-and-sector", "matrix"):
        with pytest.raises(ValueError, match=f"'{name}' needs two numbers of a segment, and Elsew"):
            PreferenceEnv(bare, name)
    with pytest.raises(ValueError, match="Elsewhere names none; group by rater_kwargs"):
        PreferenceEnv(bare, "two-groups")
    with pytest.raises(ValueError, match="'experts' varies how well a scripted rater knows"):
        PreferenceEnv(bare, "experts", rater_kwargs={"of": "cyclic"})
    with pytest.raises(ValueError, match=r"needs a value source, and Elsewhere does not solve"):
        PreferenceEnv(bare, "experts", rater_kwargs={"of": "regret"})
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match="by `prefgym oracle train --env prefgym/Ant-v0 --out"):
            make("prefgym/Ant-v0", rater="regret", personal=2)
        for name in ("game", "groups"):
            with pytest.raises(ValueError, match=f"'{name}' is for .* prefgym/CartPole-v0 "):
                make("prefgym/CartPole-v0", rater=name)


def test_options_replace_what_a_name_looks_at() -> None:
    def made(name: str, **options: Any) -> Any:
        return chosen("prefgym/Pendulum-v0", name, **options)

    assert made("cyclic", plane=[1, 2]).rule.plane == Columns((1, 2))
    assert made("cyclic", plane=["angle2", "speed2"]).rule.plane == FactorSums(("angle2", "speed2"))
    assert made("cyclic", plane=[1, 2], over="sum").rule.plane == Columns((1, 2), "sum")
    assert len(made("rock-paper-scissors", shares=[0.25] * 4).raters) == 4
    goals = made("two-groups", by="goals", radius=2.0)
    assert [one.statistic.step_scores.goal for one in goals.raters] == [
        pytest.approx((2.0, 0.0)),
        pytest.approx((-2.0, 0.0)),
    ]
    assert [one.mistake for one in made("experts", mistakes=[0.0, 0.4]).raters] == [0.0, 0.4]


OPTIONS = {**RATERS, "game": ProbabilityRater, "groups": groups}
"""Who has options: raters by name, and the two that an environment defines."""


@pytest.mark.parametrize("name", OPTIONS)
def test_no_option_is_taken_for_what_it_is_not(name: str) -> None:
    """Whatever a rater by name can be told, something else is refused in a sentence."""
    with pytest.raises(ValueError, match=f"'{name}' has no option 'betta'; it takes ") as told:
        checked_options(name, OPTIONS[name], {"betta": 1})
    options = str(told.value).split("it takes ")[1].rstrip(".").split(", ")
    for option in options:
        with pytest.raises(ValueError, match=f"^make_rater: {option}=.* '{name}'; give [a-z ]+.$"):
            checked_options(name, OPTIONS[name], {option: object()})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("noisy", {"beta": "high"}, "beta='high' came for the rater 'noisy'; give a number"),
        ("experts", {"mistakes": "abc"}, "give a list of numbers"),
        ("experts", {"mistakes": [0.1, "x"]}, "give a list of numbers"),
        ("two-groups", {"count": 2.5}, "give a whole number"),
        ("two-groups", {"by": "goals", "centre": [0.0]}, "the centre has 1 numbers; give two"),
        ("heron", {"factors": 5}, "give a word or a list of words"),
        ("panel", {"member_kwargs": {"mistake": "x"}}, "mistake='x' came for the rater 'mistake'"),
        ("matrix", {"matrix": [1, 2]}, "give a list of lists of numbers"),
        ("oracle", {"soft": 1}, "give true or false"),
        ("two-groups", {"rule": 3}, "give a word or a function"),
    ],
)
def test_options_of_another_kind_are_refused_in_a_sentence(
    name: str, options: dict[str, Any], message: str
) -> None:
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=message):
            make("prefgym/Pendulum-v0", rater=name, rater_kwargs=options)


def test_raters_that_environments_define_check_their_options_too() -> None:
    for env_id, name in ((CONDORCET, "game"), ("prefgym/TextStyle-v0", "groups")):
        with pytest.raises(ValueError, match=f"the rater '{name}' has no option 'betta'"):
            gym.make(env_id, rater=name, rater_kwargs={"betta": 1})
    many = chosen("prefgym/TextStyle-v0", "groups", people=3.0, beta=2, shares=np.array([0.3, 0.7]))
    assert (many.people, many.weights, many.raters[0].beta) == (3, (0.3, 0.7), 2.0)


def test_the_shell_knows_5_0_and_inf_as_words() -> None:
    assert len(chosen("prefgym/Pendulum-v0", "two-groups", count=3.0).raters) == 3
    assert chosen("prefgym/Pendulum-v0", "noisy", beta="inf").beta == np.inf
    assert chosen("prefgym/Pendulum-v0", "cyclic", plane=[1.0, 2.0]).rule.plane == Columns((1, 2))


def test_a_panel_votes_as_any_rater_of_the_environment_does() -> None:
    env_id = "prefgym/TextStyle-v0"
    _, a, b = met(env_id)
    for member in ("groups", "two-groups", "cyclic"):
        panel = chosen(env_id, "panel", member=member, size=3.0)
        alone = chosen(env_id, member)
        np.testing.assert_array_equal(panel.probability(a, b), alone.probability(a, b))
        assert panel.meaning == alone.meaning
    hard = chosen(env_id, "panel", member_kwargs={"mistake": 0.0})
    assert set(hard.probability(a, b)) <= {0.0, 0.5, 1.0}


def test_both_forms_of_regret_come_from_an_environment_that_solves_itself() -> None:
    """Delivery is deterministic: they differ by its discount of 0.999 and no more."""
    _, a, b = met("prefgym/Delivery-v0")
    both = [
        chosen("prefgym/Delivery-v0", "regret", form=one) for one in ("stochastic", "deterministic")
    ]
    stochastic, deterministic = (one.statistic(a) for one in both)
    assert np.abs(stochastic - deterministic).max() < 0.2
    assert stochastic.std() > 5.0
    agree = both[0].probability(a, b) == both[1].probability(a, b)
    assert agree.mean() > 0.9


@pytest.mark.parametrize("env_id", [one for one in IDS if ".text_" in ENVIRONMENTS[one].module])
def test_text_is_deterministic_so_both_forms_of_regret_are_one(env_id: str) -> None:
    """Nothing is discounted: the advantages of a response telescope to its return and its ends."""
    env, a, _ = met(env_id)
    for segments in (a, a.take(slice(0, 1)), a.take(slice(0, 0))):
        sums, ends = (
            chosen(env_id, "regret", form=one).statistic(segments)
            for one in ("stochastic", "deterministic")
        )
        np.testing.assert_allclose(ends, sums, rtol=0, atol=1e-9)
    lanes: Any = gym.make_vec(
        env_id, num_envs=4, rater="regret", rater_kwargs={"form": "deterministic"}, query_every=3
    )
    assert len(act_in_lanes(lanes, 30)) > 5

    values = find_attribute(env, "advantages")
    seen, _ = env.reset(seed=0)
    over = False
    while not over:  # the same law for observations as they are shown
        token = env.action_space.sample()
        after, _, over, cut, info = env.step(token)
        over = over or cut
        before, behind = values.state_values(np.array([seen, after]))
        advantage = values(seen[None], np.array([token]))[0]
        assert advantage == pytest.approx(info["true_reward"] + behind - before, abs=1e-9)
        seen = after
    assert behind == 0.0


@pytest.mark.parametrize("env_id", FAMILIES.values(), ids=list(FAMILIES))
def test_the_chance_of_an_answer_can_be_asked_for_where_it_is_emitted(env_id: str) -> None:
    _, a, b = met(env_id)
    for make in (gym.make, gym.make_vec):
        made: Any = make(env_id, rater="random")
        rater = made.get_wrapper_attr("rater")
        assert isinstance(rater, Rater)
        assert set(rater.probability(a, b)) == {0.5}
        assert len(made.get_wrapper_attr("preferences")) == 0


def act_in_lanes(env: Any, steps: int) -> list[dict[str, Any]]:
    """Random steps of all lanes; the preferences that they emitted."""
    env.action_space.seed(0)
    env.reset(seed=0)
    told = (env.step(env.action_space.sample())[-1] for _ in range(steps))
    return [info["preference"] for info in told if "preference" in info]


def test_ants_are_told_apart_by_where_they_went() -> None:
    """SPO's rule: metres gone since the segment began, or the position where it is observed."""
    there = chosen("prefgym/Ant-v0", "distance-and-sector")
    assert there.rule.plane == Columns((13, 14), "sum", 0.05)
    assert (there.rule.radius, there.rule.sector_weight) == (10.0, 0.7)
    seen = {"exclude_current_positions_from_observation": False}
    placed: Any = gym.make("prefgym/Ant-v0", rater="distance-and-sector", **seen)
    assert placed.get_wrapper_attr("elicitor").rater.rule.plane == Columns((0, 1))

    walked: Any = gym.make("prefgym/Ant-v0", rater="random", segment_steps=20, **seen)
    act(walked, 60)
    store = walked.get_wrapper_attr("store")
    one = store.segments(store.sample(20, 20, np.random.default_rng(0)), 20)
    gone = Columns((0, 1), "change")(one)
    summed = Columns((15, 16), "sum", 0.05)(one)
    assert np.corrcoef(gone.ravel(), summed.ravel())[0, 1] > 0.9


# --- episodes played for somebody ---------------------------------------------------------------


@pytest.mark.parametrize("env_id", [one for one in IDS if ".text_" not in ENVIRONMENTS[one].module])
def test_raters_look_at_the_same_things_whoever_is_served(env_id: str) -> None:
    """Whatever stands behind an observation: answers are those about the task itself."""
    served: Any = gym.make(env_id, rater="random", query_every=None, personal=2)
    act(served, 400)
    pairs = served.get_wrapper_attr("sample_pairs")(60, np.random.default_rng(0))
    showing = served.get_wrapper_attr("showing")
    plain = [one.replace(observations=showing.stripped(one.observations)) for one in pairs]
    layers = [asked(served), asked(gym.make_vec(env_id, num_envs=2, personal=2))]
    for name in (one for one in RATERS if possible(env_id, one)):
        for env in layers:
            told = chosen_rater(env, name, None, {}).probability(*pairs)
            np.testing.assert_array_equal(told, chosen(env_id, name).probability(*plain), name)


def asked(env: Any) -> Any:
    """What the preference layer looks at."""
    while not isinstance(env, PreferenceEnv | PreferenceVectorEnv):
        env = env.env
    return env.env


@pytest.mark.parametrize("form", ["stochastic", "deterministic"])
def test_values_of_the_task_serve_whoever_is_served(form: str) -> None:
    """Its own, and those that are given: what they are asked about are the task's observations."""
    served: Any = gym.make("prefgym/Pendulum-v0", rater="random", query_every=None, personal=3)
    act(served, 400)
    a, b = served.get_wrapper_attr("sample_pairs")(30, np.random.default_rng(0))
    plain = [one.replace(observations=one.observations[:, :, :-3]) for one in (a, b)]
    wanted = chosen("prefgym/Pendulum-v0", "regret", form=form).probability(*plain)
    known = find_attribute(met("prefgym/Pendulum-v0")[0], "advantages")
    for given in (None, known):
        rater = chosen_rater(asked(served), "regret", given, {"form": form})
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(rater)).probability(a, b), wanted)
