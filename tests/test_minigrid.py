"""MiniGrid with captions: what is seen, what is told, what is counted, what it earns."""

import copy
import itertools
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT

from prefgym.registration import ENVIRONMENTS
from prefgym.vector import episode_seed
from prefgym_envs.grid_captions import (
    DOOR_STATES,
    EVENTS,
    KINDS,
    Scene,
    Thing,
    caption,
    event,
    sentence,
)
from prefgym_envs.grid_views import AHEAD, SIZE
from prefgym_envs.minigrid_tasks import ACTIONS, FACTORS, TASKS, CaptionedGrid, raw

EACH = pytest.mark.parametrize("name", TASKS)
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(7)
CHANCES = [0.15, 0.15, 0.35, 0.12, 0.05, 0.15, 0.03]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "environments" / "minigrid.md"


def rollout(env: Any, steps: int, seed: int = 0) -> list[tuple[Any, ...]]:
    """Random actions that mostly go on and use things; what every step brought."""
    rng, told = np.random.default_rng(seed), []
    env.reset(seed=seed)
    for _ in range(steps):
        told.append(env.step(int(rng.choice(len(ACTIONS), p=CHANCES))))
        if told[-1][2] or told[-1][3]:
            env.reset()
    return told


def stand_before(env: CaptionedGrid, kind: str) -> None:
    """Put the agent where it looks at a thing of some kind: on the floor, or into a doorway."""
    grid = env.game.grid
    for place, (direction, (dx, dy)) in itertools.product(
        itertools.product(range(1, grid.width - 1), range(1, grid.height - 1)), enumerate(AHEAD)
    ):
        below, thing = grid.get(*place), grid.get(place[0] + dx, place[1] + dy)
        free = below is None or below.type == "door"
        if free and thing is not None and thing.type == kind:
            env.game.agent_pos, env.game.agent_dir = place, direction
            env._scene = env._look(env._cells, forward=False)  # type: ignore[arg-type]
            return
    raise AssertionError(f"there is no {kind}")


def up(env: CaptionedGrid, row: int, column: int, observation: np.ndarray) -> set[str]:
    """Names of the flags that are up for one cell of the agent's view."""
    columns = env.rules.tiles.columns
    first = 2 + (row * SIZE + column) * len(columns)
    here = zip(columns, observation[first : first + len(columns)], strict=True)
    return {name for name, number in here if number}


# --- what is seen and earned --------------------------------------------------------------------


@EACH
def test_the_agent_sees_what_minigrid_shows_and_earns_the_same(name: str) -> None:
    env, rng = raw(name), np.random.default_rng(0)
    game: Any = TASKS[name].create()
    several = len(env.rules.tiles.door_colours) > 1
    for seed in range(2):
        (shown, _), (seen, _) = env.reset(seed=seed), game.reset(seed=seed)
        for _ in range(25):
            assert tuple(shown[:2]) == tuple(game.dir_vec)
            for column, row in itertools.product(range(SIZE), range(SIZE)):
                kind, colour, state = seen["image"][column, row].tolist()
                told = {IDX_TO_OBJECT[kind]}
                if several and IDX_TO_OBJECT[kind] in ("door", "key", "ball", "box"):
                    told |= {IDX_TO_COLOR[colour]}
                if IDX_TO_OBJECT[kind] == "door":
                    told |= {DOOR_STATES[state]}
                assert up(env, row, column, shown) == told
            action = int(rng.choice(len(ACTIONS), p=CHANCES))
            (shown, *mine), (seen, *theirs) = env.step(action), game.step(action)
            assert mine[:3] == theirs[:3]
            if mine[1] or mine[2]:
                break


@EACH
def test_success_earns_what_minigrid_says_and_the_factors_say_it_too(name: str) -> None:
    env, task = raw(name), TASKS[name]
    game: Any = task.create()
    limit = ENVIRONMENTS[f"prefgym/{name}-v0"].max_episode_steps
    assert limit == task.max_episode_steps == game.max_steps
    env.reset(seed=0)
    for _ in range(4):
        assert env.step(DONE)[1:4] == (0.0, False, False)
    stand_before(env, task.target or "goal")
    _, reward, terminated, truncated, info = env.step(PICKUP if task.target else FORWARD)
    assert (terminated, truncated) == (True, False)
    assert reward == pytest.approx(1 - 0.9 * 5 / game.max_steps)
    assert task.reward(info["factors"]) == pytest.approx(reward)
    wanted = f"You pick up the {task.target}." if task.target else "You reach the goal."
    assert info["caption"] == wanted


def test_an_episode_is_cut_off_where_minigrid_cuts_it() -> None:
    env = raw("MultiRoom-N2-S4")
    env.reset(seed=0)
    ends = [env.step(DONE)[2:4] for _ in range(40)]
    assert ends == [(False, False)] * 39 + [(False, True)]


def test_the_full_view_shows_all_cells_the_agent_and_what_it_carries() -> None:
    env = raw("DoorKey-5x5", view="full")
    shown, _ = env.reset(seed=1)
    stand_before(env, "key")
    *_, info = env.step(PICKUP)
    shown = env.step(DONE)[0]
    told = [one for one, number in zip(env.observation_names, shown, strict=True) if number]
    column, row = env.game.agent_pos
    assert f"row {row}, column {column}: agent" in told
    assert "carried: key" in told
    assert sum(one.endswith("agent") for one in told) == 1
    assert sum(one.endswith(": goal") for one in told) == 1
    assert not any(one.endswith("unseen") for one in told)
    assert info["caption"] == "You pick up the key."
    assert not any("see" in text for text in env.possible_captions or ())


# --- what is told -------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("colours", [False, True])
def test_captions_are_functions_of_two_states_and_among_the_possible_ones(
    name: str, colours: bool
) -> None:
    env = raw(name, colours=colours)
    env.reset(seed=3)
    rng, met = np.random.default_rng(3), set[str]()
    for _ in range(80):
        before, action = env._scene, int(rng.choice(len(ACTIONS), p=CHANCES))
        *_, terminated, truncated, info = env.step(action)
        after = env._scene
        assert before is not None
        assert after is not None
        assert info["caption"] == caption(before, after, colours)
        if after == before and action != FORWARD:
            assert info["caption"] == ""
        met.add(info["caption"])
        if terminated or truncated:
            env.reset()
    assert met <= {"", *(env.possible_captions or ())}
    assert len(met) > 2
    coloured = any(shade in text for text in met for shade in ("yellow", "red", "blue", "grey"))
    assert coloured <= colours


def test_every_possible_caption_of_a_small_task_comes() -> None:
    env = raw("DoorKey-5x5")
    met = {info["caption"] for *_, info in rollout(env, 400, seed=9)}
    assert met == {"", *(env.possible_captions or ())}
    names = {text.split()[1] for text in met if text}
    assert names == {"reach", "unlock", "open", "close", "pick", "drop", "see", "bump"}


def test_a_toggled_box_is_told() -> None:
    env = raw("UnlockPickup", colours=True)
    env.reset(seed=0)
    colour = env.game.obj.color
    stand_before(env, "box")
    assert env.step(TOGGLE)[4]["caption"] == f"You toggle the {colour} box."
    assert env.step(TOGGLE)[4]["caption"] == ""


WALL, GOAL = Thing("wall", "grey"), Thing("goal", "green")
KEY, OTHER_KEY, BALL = Thing("key", "red"), Thing("key", "blue"), Thing("ball", "red")
BOX = Thing("box", "grey")
OPEN, CLOSED, LOCKED = (Thing("door", "red", one) for one in DOOR_STATES)
NOWHERE = Scene((1, 1), 0, None, None, None, frozenset())


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({}, {"below": GOAL, "place": (2, 1)}, "You reach the goal."),
        ({"ahead": LOCKED}, {"ahead": OPEN}, "You unlock the red door."),
        ({"ahead": CLOSED}, {"ahead": OPEN}, "You open the red door."),
        ({"ahead": OPEN}, {"ahead": CLOSED}, "You close the red door."),
        ({"ahead": KEY}, {"carried": KEY}, "You pick up the red key."),
        ({"carried": BALL}, {"ahead": BALL}, "You drop the red ball."),
        ({"ahead": BOX}, {}, "You toggle the grey box."),
        ({}, {"seen": frozenset({GOAL, KEY})}, "You see the goal."),
        ({"seen": frozenset({KEY})}, {"seen": frozenset({KEY, OTHER_KEY})}, "You see a blue key."),
        ({"ahead": WALL}, {"ahead": WALL, "forward": True}, "You bump into the wall."),
        ({"ahead": CLOSED}, {"ahead": CLOSED, "forward": True}, "You bump into the red door."),
        # The first of several, and what is none.
        ({"ahead": LOCKED}, {"ahead": OPEN, "seen": frozenset({GOAL})}, "You unlock the red door."),
        ({"ahead": CLOSED}, {"ahead": OPEN, "direction": 1}, ""),
        ({"ahead": WALL, "forward": True}, {"ahead": WALL}, ""),
        ({"seen": frozenset({KEY})}, {"direction": 1}, ""),
    ],
)
def test_events_one_by_one(before: dict[str, Any], after: dict[str, Any], text: str) -> None:
    scenes = NOWHERE._replace(**before), NOWHERE._replace(**after)
    assert caption(*scenes, colours=True) == text
    plain = " ".join(word for word in text.split() if word not in ("red", "blue", "grey"))
    news = "" if "blue" in text else plain  # a key of another colour is no news without colours
    assert caption(*scenes) == news


THINGS = st.sampled_from([None, WALL, GOAL, KEY, OTHER_KEY, BALL, BOX, OPEN, CLOSED, LOCKED])
HELD = st.sampled_from([None, KEY, OTHER_KEY, BALL, BOX])
SCENES = st.builds(
    Scene,
    place=st.sampled_from([(1, 1), (2, 1)]),
    direction=st.integers(0, 3),
    below=st.sampled_from([None, GOAL, OPEN]),
    ahead=THINGS,
    carried=HELD,
    seen=st.frozensets(st.sampled_from([GOAL, KEY, OTHER_KEY, BALL, BOX])),
    forward=st.booleans(),
)


@settings(max_examples=50)
@given(SCENES, SCENES, st.booleans())
def test_there_is_at_most_one_event_and_none_where_nothing_changes(
    before: Scene, after: Scene, colours: bool
) -> None:
    what = event(before, after, colours)
    assert what is None or (what.name in EVENTS and what.thing.kind in ("wall", *KINDS))
    assert caption(before, after, colours) == sentence(what, colours)
    assert event(after, after._replace(forward=False), colours) is None


# --- what is counted ----------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 4])
def test_counts_are_those_of_the_episode(most: int) -> None:
    env, plain = raw("DoorKey-5x5", counts=most), raw("DoorKey-5x5")
    texts = env.possible_captions or ()
    width = (plain.observation_space.shape or (0,))[0]
    assert env.observation_space.shape == (width + len(texts),)
    assert env.observation_names[width:] == tuple(f"count: {text}" for text in texts)
    rng, counted = np.random.default_rng(0), dict.fromkeys(texts, 0)
    env.reset(seed=0)
    plain.reset(seed=0)
    for _ in range(150):
        action = int(rng.choice(len(ACTIONS), p=CHANCES))
        shown, _, terminated, truncated, info = env.step(action)
        np.testing.assert_array_equal(shown[:width], plain.step(action)[0])
        if info["caption"]:
            counted[info["caption"]] += 1
        expected = [min(counted[text], most) / most for text in texts]
        np.testing.assert_allclose(shown[width:], expected, rtol=1e-6)
        if terminated or truncated:
            shown, _ = env.reset(seed=7)
            plain.reset(seed=7)
            counted = dict.fromkeys(texts, 0)
            assert not shown[width:].any()
    assert max(counted.values()) > 1


def test_captions_can_be_left_out_and_be_counted_all_the_same() -> None:
    env = raw("DoorKey-5x5", captions=False, counts=2)
    assert env.possible_captions is None
    told = rollout(env, 50)
    assert all("caption" not in info for *_, info in told)
    assert any(observation[-12:].any() for observation, *_ in told)
    layer = gym.make("prefgym/DoorKey-5x5-v0", captions=False)
    assert "caption" not in layer.get_wrapper_attr("factor_names")


# --- one and many -------------------------------------------------------------------------------


@EACH
def test_equal_seeds_are_equal_episodes_for_copies_too(name: str) -> None:
    one, other = raw(name, counts=2), raw(name, counts=2)
    rollout(other, 10, seed=9)
    first, second = rollout(one, 30), rollout(other, 30)
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])
        assert mine[1:] == theirs[1:]
    twins = copy.deepcopy(one), pickle.loads(pickle.dumps(one))
    for action in (LEFT, FORWARD, TOGGLE):
        expected = one.step(action)
        for found in [twin.step(action) for twin in twins]:
            np.testing.assert_array_equal(found[0], expected[0])
            assert found[1:] == expected[1:]


@EACH
def test_gymnasiums_checks_pass(name: str) -> None:
    check_env(raw(name, counts=3), skip_render_check=True)


def test_lanes_tell_what_single_environments_tell() -> None:
    env: Any = gym.make_vec("prefgym/DoorKey-6x6-v0", num_envs=3, max_episode_steps=25)
    env.reset(seed=5)
    seeds = env.unwrapped.get_state()["seeds"].tolist()
    singles = [raw("DoorKey-6x6") for _ in seeds]
    episodes = [0] * 3
    for lane, single in enumerate(singles):
        single.reset(seed=episode_seed(seeds[lane], lane, 0))
    rng, table = np.random.default_rng(0), env.get_wrapper_attr("captions")
    for _ in range(60):
        actions = rng.choice(len(ACTIONS), p=CHANCES, size=3)
        *_, terminated, truncated, infos = env.step(actions)
        told = [one.step(a)[4]["caption"] for one, a in zip(singles, actions.tolist(), strict=True)]
        assert infos["caption"].tolist() == told
        assert table.texts(infos["factors"]["caption"]) == told
        for lane in np.flatnonzero(terminated | truncated).tolist():
            assert infos["final_info"]["caption"][lane] == told[lane]
            episodes[lane] += 1
            singles[lane].reset(seed=episode_seed(seeds[lane], lane, episodes[lane]))
    assert min(episodes) >= 2
    segments = env.store.segments(env.store.sample(5, 20, rng), 20)
    assert set(table.texts(segments.factors["caption"].ravel())) > {""}


# --- pictures, pages, bad input -----------------------------------------------------------------


def test_pictures_are_minigrids() -> None:
    env = raw("Empty-8x8", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (8 * 32, 8 * 32, 3)
    env.step(RIGHT)
    assert (env.render() != picture).any()
    env.close()


def test_the_page_names_every_task_factor_and_form_of_caption() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, task in TASKS.items():
        assert f"| `prefgym/{name}-v0` |" in text
        assert f"| {task.max_episode_steps} |" in text
        assert f"| {raw(name).observation_space.shape[0]} |" in text  # type: ignore[index]
    assert all(f"| `{one}` |" in text for one in FACTORS)
    assert all(one in text for one in raw("DoorKey-8x8").possible_captions or ())


def test_arguments_that_make_no_task_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Unknown MiniGrid task 'DoorKey-8'; did you mean"):
        raw("DoorKey-8")
    with pytest.raises(ValueError, match=r"counts=-1; give up to which number"):
        raw("DoorKey-8x8", counts=-1)
    with pytest.raises(ValueError, match=r"Unknown view 'ful'; did you mean 'full'"):
        raw("DoorKey-8x8", view="ful")
    with pytest.raises(ValueError, match=r"render_mode 'ansi' is unknown here"):
        raw("DoorKey-8x8", render_mode="ansi")
    env = raw("DoorKey-8x8")
    with pytest.raises(ResetNeeded, match=r"reset\(\) before step\(\)"):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"one whole number from 0 to 6"):
        env.step(7)
    with pytest.raises(ValueError, match=r"rater 'regret' needs a value source, and prefgym/Empty"):
        gym.make("prefgym/Empty-8x8-v0", rater="regret")
