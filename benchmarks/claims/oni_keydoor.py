"""The key and the door on a grid, with a table of values: the small world of the claim ``oni``.

Two rooms of 9 × 4 cells and a wall with a door in its middle. The key lies in the middle of the
left border, the goal in that of the right one, and the agent begins anywhere in the left room. Four
actions move it, the fifth picks up the key that it stands on, and else, with the key and beside the
door, opens or closes the door. The task's reward is 1 at the goal; episodes last 40 steps at most,
of which the way takes about twenty.

The table explores by soft-max. What helps earns 0.4 / N³. Eight trainings with seeds of their own
stand for each claim seed, and two for its quick form; now and then one of them never finds the key.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.claims.claim import Row
from benchmarks.claims.training import EVALUATION_SEED
from prefgym.annotation import Inline
from prefgym.judges import RuleJudge
from prefgym.raters.language import LanguageRater
from prefgym.wrappers import CaptionedVectorEnv, PreferenceVectorEnv
from prefgym_agents.evaluation import true_returns
from prefgym_agents.intrinsic import Intrinsic
from prefgym_agents.tabular import TabularQ
from prefgym_envs.lanes import LanesEnv

SEEDS, FEW = 8, 2
"""Of a claim seed, and of its quick form."""
STEPS, LANES, EPISODES = 100_000, 32, 100
GOAL = "open the door"
SIZE, WALL, MIDDLE = 9, 4, 4
"""Cells on a side, the column of the wall, and the row of all that is to be found."""
LIMIT = 40
KEY, DOOR, END = np.array([[MIDDLE, 0], [MIDDLE, WALL], [MIDDLE, SIZE - 1]])
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)])
USE = 4
CAPTIONS = (
    "You reach the goal.",
    "You open the door.",
    "You close the door.",
    "You pick up the key.",
    "You bump into the door.",
    "You bump into the wall.",
)
MOST = 4
"""Up to which openings are counted in the observation."""
SOLVED = 0.9
"""Share of fresh episodes that reach the goal, in a training that solves the task."""
VARIANTS: dict[str, dict[str, Any]] = {
    "extrinsic": {"intrinsic": 0.0},
    "retrieval": {},
    "uncounted": {"exponent": 0.0},
    "hidden": {"counted": False},
}
"""Settings of the learner, and whether the table knows how often the door was opened."""


def compared(seed: int, quick: bool) -> tuple[list[Row], list[Row], dict[str, float]]:
    """Rows, controls and figures: in how many trainings each variant finds the goal."""
    count = FEW if quick else SEEDS
    seeds = range(SEEDS * seed, SEEDS * seed + count)
    success = {name: np.array([train(k, **one) for k in seeds]) for name, one in VARIANTS.items()}
    solved = {name: int((one >= SOLVED).sum()) for name, one in success.items()}
    rows = [Row("table, retrieval: seeds solved", solved["retrieval"], ">=", 3 * count // 4)]
    if not quick:
        alone = solved["extrinsic"]
        rows.append(Row("table, the task's reward alone: seeds solved", alone, "<=", count // 2))
    controls = [
        Row("table, no count term: seeds solved", solved["uncounted"], "<=", count // 2),
        Row("table, hidden counts: seeds solved", solved["hidden"], "<=", count // 2),
    ]
    figures = {f"table_{name}_solved": float(one) for name, one in solved.items()}
    figures |= {f"table_{name}_success": float(one.mean()) for name, one in success.items()}
    return rows, controls, figures


def train(seed: int, counted: bool = True, **settings: Any) -> float:
    """Train; the share of fresh episodes that reach the goal."""
    learner = Intrinsic(
        TabularQ(
            made(counted, LANES),
            seed=seed,
            temperature=0.01,
            updates_per_round=16,
        ),
        Inline(LanguageRater(RuleJudge(), GOAL)),
        **{"intrinsic": 0.4, **settings},
    )
    learner.learn(STEPS)
    fresh = made(counted, EPISODES)
    return float(true_returns(learner, fresh, EVALUATION_SEED + seed, deterministic=False).mean())


def made(counted: bool, lanes: int) -> PreferenceVectorEnv:
    """Lanes with captions and a store."""
    env = CaptionedVectorEnv(KeyDoorLanes(lanes, counted))
    capacity = STEPS // LANES + LIMIT
    return PreferenceVectorEnv(env, segment_steps=10, query_every=None, capacity=capacity)


class KeyDoorLanes(LanesEnv):
    """Lanes of this world.

    Observations are row, column, whether the agent has the key and whether the door is open, and,
    if they are ``counted``, how often it was opened in this episode, up to :data:`MOST`.
    """

    factor_names = ("goal",)
    possible_captions = CAPTIONS

    def __init__(self, num_envs: int, counted: bool = True) -> None:
        sizes = [SIZE, SIZE, 2, 2, *([MOST + 1] if counted else [])]
        spaces = gym.spaces.MultiDiscrete(sizes), gym.spaces.Discrete(len(MOVES))
        super().__init__(num_envs, spaces, "SameStep", None, [])
        self.counted = counted
        self._cell = np.zeros((num_envs, 2), np.int64)
        self._has_key, self._open, self._openings = np.zeros((3, num_envs), np.int64)

    def step(
        self, actions: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Move, or use what is there."""
        self._check_ready()
        actions = np.asarray(actions)
        use = actions == USE
        at_door = np.abs(self._cell - DOOR).sum(1) == 1
        taken = use & ~self._has_key.astype(bool) & (self._cell == KEY).all(1)
        turned = use & ~taken & self._has_key.astype(bool) & at_door
        to = np.clip(self._cell + MOVES[actions], 0, SIZE - 1)
        into_door = (to == DOOR).all(1) & ~self._open.astype(bool)
        into_wall = ~use & ((to == self._cell).all(1) | ((to[:, 1] == WALL) & (to != DOOR).any(1)))
        self._cell = np.where((into_door | into_wall)[:, None], self._cell, to)
        self._has_key |= taken
        self._open ^= turned
        opened = turned & (self._open == 1)
        self._openings += opened
        self._steps += 1
        reached = (self._cell == END).all(1)
        told = (reached, opened, turned & ~opened, taken, into_door, into_wall)
        number = np.select(told, range(1, len(told) + 1), 0)
        infos: dict[str, Any] = {
            "caption": np.array(("", *CAPTIONS), object)[number],
            "factors": {"goal": reached.astype(np.float64)},
            "_factors": np.ones(self.num_envs, np.bool_),
        }
        late = (self._steps >= LIMIT) & ~reached
        self._autoreset(np.zeros(self.num_envs, np.bool_), reached | late, infos)
        return self._observations(), infos["factors"]["goal"].copy(), reached, late, infos

    def _place(self, lanes: np.ndarray, asked: np.ndarray | None) -> None:
        self._cell[lanes, 0] = self._drawn(lanes, SIZE)
        self._cell[lanes, 1] = self._drawn(lanes, WALL)
        for one in (self._has_key, self._open, self._openings):
            one[lanes] = 0

    def _observations(self) -> np.ndarray:
        seen = [*self._cell.T, self._has_key, self._open]
        if self.counted:
            seen.append(np.minimum(self._openings, MOST))
        return np.stack(seen, 1)

    def _contexts(self) -> np.ndarray:
        return np.zeros(self.num_envs, np.int64)

    def _places(self) -> dict[str, np.ndarray]:
        return {
            "cell": self._cell,
            "has_key": self._has_key,
            "open": self._open,
            "openings": self._openings,
        }

    def _set_places(self, places: Mapping[str, np.ndarray]) -> None:
        self._cell, self._has_key = places["cell"], places["has_key"]
        self._open, self._openings = places["open"], places["openings"]
