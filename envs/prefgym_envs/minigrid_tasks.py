"""MiniGrid with captions: what changed in a step is told in one sentence.

Layouts, dynamics, reward and time limits are those of MiniGrid (https://minigrid.farama.org); what
the agent sees is computed by :mod:`prefgym_envs.grid_views`, cell by cell what MiniGrid shows. The
page ``docs/environments/minigrid.md`` holds the tables.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from minigrid.core.constants import COLOR_NAMES
from minigrid.envs.doorkey import DoorKeyEnv
from minigrid.envs.empty import EmptyEnv
from minigrid.envs.keycorridor import KeyCorridorEnv
from minigrid.envs.multiroom import MultiRoomEnv
from minigrid.envs.unlockpickup import UnlockPickupEnv

from prefgym.names import lookup
from prefgym_envs.factors import Task, checked_choice
from prefgym_envs.grid_captions import Event, Scene, event, possible_captions, sentence
from prefgym_envs.grid_views import AHEAD, SIZE, Cells, Tiles, as_thing

# MiniGrid carries few annotations.
# mypy: allow-untyped-calls

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]
"""Observation, true reward, terminated, truncated, info."""
ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
"""MiniGrid's; the last one does nothing."""
FACTORS = ("goal", "delay", "opened", "picked_up", "bumped", "steps")
VIEWS = ("agent", "full")
LATE = 0.9
"""What arriving at the very last step costs of the reward of 1."""


@dataclass(frozen=True)
class GridTask(Task):
    """What is known about a task of MiniGrid before its grid is made."""

    tiles: Tiles = field(default_factory=lambda: Tiles(()))
    """What cells can hold."""
    target: str | None = None
    """What must be picked up; None where a goal must be reached."""
    see_through: bool = False
    """Whether the agent sees through walls."""

    def captions(self, colours: bool, sees: bool) -> tuple[str, ...]:
        """Every caption that there can be."""
        tiles = self.tiles
        return possible_captions(
            tiles.kinds,
            tiles.door_colours,
            tiles.thing_colours,
            colours=colours,
            locked=tiles.locked,
            target=self.target,
            sees=sees,
        )


class CaptionedGrid(gym.Env[np.ndarray, np.integer]):
    """One gridworld of MiniGrid, whose steps are told in words.

    True reward: MiniGrid's, 1 − 0.9 · t / T at step t of at most T if that step reaches the goal,
    or picks up what is wanted, and 0 else: goal − 0.9 · delay.

    Factors: ``goal``, 1 at the step that succeeds, else 0; ``delay``, t / T at that step, else 0;
    ``opened``, 1 if the step opened or unlocked a door; ``picked_up``, 1 if it picked up a thing;
    ``bumped``, 1 if its caption tells of a bump; ``steps``, 1.

    Args:
        name: a key of :data:`TASKS`.
        captions: whether ``info["caption"]`` says what changed in every step.
        colours: whether captions tell the colours of doors and things.
        counts: if above 0, observations end in min(n, counts) / counts for each of
            ``possible_captions``, n being how often the caption came in this episode.
        view: "agent", the seven cells ahead and across that MiniGrid shows, or "full".
        render_mode: "human", "rgb_array" or None.

    Raises:
        ValueError: no such task, view or render mode, or counts below 0.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 10}
    factor_names = FACTORS

    game: Any
    """MiniGrid's own environment, in which everything happens."""

    def __init__(
        self,
        name: str,
        captions: bool = True,
        colours: bool = False,
        counts: int = 0,
        view: str = "agent",
        render_mode: str | None = None,
    ) -> None:
        self.task_name = name
        self.rules = grid_task(name)
        lookup(view, dict.fromkeys(VIEWS), "view")
        if not isinstance(counts, int | np.integer) or counts < 0:
            raise ValueError(
                f"counts={counts!r}; give up to which number captions are counted, 0 for none."
            )
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"render_mode {render_mode!r} is unknown here; there are"
                f" {self.metadata['render_modes']}."
            )
        self.colours, self.counts, self.view = bool(colours), int(counts), view
        self.render_mode = render_mode
        game: Any = self.rules.create(render_mode=render_mode)
        game.gen_obs = _nothing
        self.game = game
        everything = self.rules.captions(self.colours, sees=view == "agent")
        self.possible_captions = everything if captions else None
        """All captions that there can be; None where none are told."""
        self._place_of = {text: number for number, text in enumerate(everything)}
        self._counted = np.zeros(len(everything), np.int64)
        self.action_space = gym.spaces.Discrete(len(ACTIONS))
        self.observation_space = self._space()
        self._cells: Cells | None = None
        self._scene: Scene | None = None
        self._seen = np.zeros(0, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; a seed gives the layout that MiniGrid makes of it."""
        super().reset(seed=seed)
        self.game.reset(seed=seed)
        self._cells = Cells(self.rules.tiles, self.game.grid)
        self._counted[:] = 0
        self._scene = self._look(self._cells, forward=False)
        return self._observation(self._scene), {}

    def step(self, action: Any) -> StepResult:
        """Turn, go forward, pick up, drop or toggle what is ahead, or do nothing.

        Raises:
            ValueError: there is no such action.
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        choice = checked_choice(action, len(ACTIONS))
        before, cells = self._scene, self._cells
        if before is None or cells is None:
            raise ResetNeeded("Call reset() before step(): no episode has begun.")
        _, reward, terminated, truncated, _ = self.game.step(choice)
        touched = _ahead(before.place, before.direction)
        cells.update(touched, self.game.grid.get(*touched))
        after = self._look(cells, forward=ACTIONS[choice] == "forward")
        what = event(before, after, self.colours)
        info: dict[str, Any] = {"factors": self._factors(what, bool(terminated))}
        self._scene, text = after, sentence(what, self.colours)
        if text:
            self._counted[self._place_of[text]] += 1
        if self.possible_captions is not None:
            info["caption"] = text
        return self._observation(after), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """MiniGrid's picture: an array for "rgb_array", a window for "human"."""
        return self.game.render()

    def close(self) -> None:
        """Close the window, if there is one."""
        self.game.close()

    @cached_property
    def observation_names(self) -> tuple[str, ...]:
        """What each number of an observation says."""
        cells = [f"row {row}, column {column}" for row, column in self._shown_cells()]
        shown = [*cells, "carried"] if self.view == "full" else cells
        here = [f"{cell}: {flag}" for cell in shown for flag in (*self._flags, *self._agent)]
        counted = [f"count: {text}" for text in self._place_of] if self.counts else []
        return ("direction x", "direction y", *here, *counted)

    # -- inside ---------------------------------------------------------------------------------

    @property
    def _flags(self) -> tuple[str, ...]:
        return self.rules.tiles.columns

    @property
    def _agent(self) -> tuple[str, ...]:
        """In the full view, one flag more says where the agent is."""
        return ("agent",) if self.view == "full" else ()

    def _shown_cells(self) -> list[tuple[int, int]]:
        full = self.view == "full"
        rows, columns = (self.game.height, self.game.width) if full else (SIZE, SIZE)
        return [(row, column) for row in range(rows) for column in range(columns)]

    def _space(self) -> gym.spaces.Box:
        low = np.zeros(len(self.observation_names), np.float32)
        low[:2] = -1.0
        return gym.spaces.Box(low, np.ones_like(low), dtype=np.float32)

    def _look(self, cells: Cells, forward: bool) -> Scene:
        """The scene as it is now; what is seen is remembered for the observation."""
        game = self.game
        place = int(game.agent_pos[0]), int(game.agent_pos[1])
        direction = int(game.agent_dir)
        carried = None if game.carrying is None else as_thing(game.carrying)
        if self.view == "agent":
            self._seen = cells.view(place, direction, carried, self.rules.see_through)
            seen = self.rules.tiles.seen(self._seen)
        else:
            self._seen, seen = cells.whole(), frozenset()
        ahead = cells.at(_ahead(place, direction))
        return Scene(place, direction, cells.at(place), ahead, carried, seen, forward)

    def _observation(self, scene: Scene) -> np.ndarray:
        tiles, (dx, dy) = self.rules.tiles, AHEAD[scene.direction]
        if self.view == "full":
            numbers = np.append(self._seen, tiles.numbers[scene.carried])
            here = np.zeros((len(numbers), 1), np.float32)
            here[scene.place[1] * self.game.width + scene.place[0]] = 1.0
            shown = np.concatenate([tiles.flags.take(numbers, axis=0), here], axis=1)
        else:
            shown = tiles.flags.take(self._seen, axis=0)
        observation = np.empty(self.observation_space.shape or (), np.float32)
        end = 2 + shown.size
        observation[0], observation[1] = dx, dy
        observation[2:end] = shown.reshape(-1)
        if self.counts:
            observation[end:] = np.minimum(self._counted, self.counts) / self.counts
        return observation

    def _factors(self, what: Event | None, success: bool) -> dict[str, float]:
        name = None if what is None else what.name
        return {
            "goal": float(success),
            "delay": self.game.step_count / self.game.max_steps if success else 0.0,
            "opened": float(name in ("opened", "unlocked")),
            "picked_up": float(name == "picked_up"),
            "bumped": float(name == "bumped"),
            "steps": 1.0,
        }


def _nothing() -> dict[str, Any]:
    """In place of MiniGrid's own view, which takes most of its time."""
    return {}


def _ahead(place: tuple[int, int], direction: int) -> tuple[int, int]:
    dx, dy = AHEAD[direction]
    return place[0] + dx, place[1] + dy


def _weights(**kwargs: Any) -> dict[str, float]:
    return {"goal": 1.0, "delay": -LATE}


def _task(name: str, create: Callable[..., Any], limit: int, **known: Any) -> GridTask:
    return GridTask(f"MiniGrid-{name}-v0", create, limit, FACTORS, _weights, **known)


_ALL, _YELLOW = tuple(COLOR_NAMES), ("yellow",)
_DOOR_KEY = Tiles(("door", "key", "goal"), _YELLOW, _YELLOW, locked=True)
_CORRIDOR = Tiles(("door", "key", "ball"), _ALL, _ALL, locked=True)
TASKS = {
    "Empty-8x8": _task(
        "Empty-8x8", partial(EmptyEnv, size=8), 256, tiles=Tiles(("goal",)), see_through=True
    ),
    **{
        f"DoorKey-{n}x{n}": _task(
            f"DoorKey-{n}x{n}", partial(DoorKeyEnv, size=n), 10 * n * n, tiles=_DOOR_KEY
        )
        for n in (5, 6, 8)
    },
    **{
        f"KeyCorridorS3R{rows}": _task(
            f"KeyCorridorS3R{rows}",
            partial(KeyCorridorEnv, room_size=3, num_rows=rows),
            270,
            tiles=_CORRIDOR,
            target="ball",
        )
        for rows in (2, 3)
    },
    "UnlockPickup": _task(
        "UnlockPickup",
        UnlockPickupEnv,
        288,
        tiles=Tiles(("door", "key", "box"), _ALL, _ALL, locked=True),
        target="box",
    ),
    "MultiRoom-N2-S4": _task(
        "MultiRoom-N2-S4",
        partial(MultiRoomEnv, minNumRooms=2, maxNumRooms=2, maxRoomSize=4),
        40,
        tiles=Tiles(("door", "goal"), _ALL),
    ),
}
"""Every task of this file by name."""


def grid_task(name: str) -> GridTask:
    """What is known about a task.

    Raises:
        ValueError: no task has that name.
    """
    return lookup(name, TASKS, "MiniGrid task")


def raw(name: str, **kwargs: Any) -> CaptionedGrid:
    """Make a task whose true reward is visible.

    Args:
        name: a key of :data:`TASKS`.
        kwargs: as :class:`CaptionedGrid` takes them.

    Raises:
        ValueError: no task has that name.
    """
    return CaptionedGrid(name, **kwargs)
