"""Traffic lights: one intersection, and a grid of two by two, whose lights an agent sets."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from jaxtyping import Float, Int

from prefgym_envs import random_streams, traffic_pictures, traffic_sensors
from prefgym_envs.lanes import LanesEnv, check_count
from prefgym_envs.traffic_queues import FACTORS, Traffic, empty
from prefgym_envs.traffic_roads import STEP_SECONDS, Network, network

WEIGHTS = {"vehicles": -STEP_SECONDS / 60}
"""True reward = Σ weight · factor, in minutes; factors left out weigh nothing."""
MODES = ["ansi", "rgb_array"]


@dataclass(frozen=True)
class Task:
    """What single and batched environments have in common.

    Args:
        layout: "single" or "grid".
        demand_scale: of all arrivals; 0 leaves the roads empty.

    Raises:
        ValueError: no such layout, or a scale below 0 or above 3.
    """

    layout: str = "single"
    demand_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.demand_scale <= 3:
            raise ValueError(
                f"demand_scale is {self.demand_scale!r}; give a number from 0 (no vehicles) to 3."
            )

    @cached_property
    def network(self) -> Network:
        """Roads and demand."""
        return network(self.layout)

    @cached_property
    def spaces(self) -> tuple[gym.spaces.Box, gym.Space[Any]]:
        """Of observations and of actions."""
        lights = self.network.intersections
        acted: gym.Space[Any] = gym.spaces.Discrete(2)
        if lights > 1:
            acted = gym.spaces.MultiDiscrete([2] * lights)
        return traffic_sensors.space(lights), acted

    @cached_property
    def chances(self) -> Float[np.ndarray, " patterns entries counts"]:
        """P(at most k arrivals) on each entry in each pattern of demand."""
        return self.network.arrival_chances(self.demand_scale)

    def arrivals(
        self, streams: np.ndarray, demand: Int[np.ndarray, " lanes"]
    ) -> Int[np.ndarray, " lanes entries"]:
        """Vehicles that come from outside, from the streams just advanced."""
        entries = np.arange(len(self.network.entries), dtype=np.uint64)
        _, numbers = random_streams.draw(random_streams.seeded(streams[:, None] + entries))
        counts: np.ndarray = (numbers[..., None] >= self.chances[demand]).sum(-1)
        return counts

    def phases(self, actions: Any, shape: tuple[int, ...]) -> Int[np.ndarray, " lanes lights"]:
        """The actions as phases, one row per lane.

        Args:
            actions: what came.
            shape: of the actions that the environment takes.

        Raises:
            ValueError: they have another shape, are no integers, or neither 0 nor 1.
        """
        given = np.asarray(actions)
        if given.shape != shape or given.dtype.kind not in "iu" or ((given | 1) != 1).any():
            raise ValueError(
                f"step() got the action {given.tolist()} of shape {given.shape} and type"
                f" {given.dtype}; wanted integers of shape {shape}, 0 (green for north and south)"
                " or 1 (for east and west)."
            )
        return given.astype(np.int64).reshape(-1, self.network.intersections)

    def pattern(self, asked: Any) -> int:
        """A pattern of demand by its number.

        Raises:
            ValueError: there is none of that number.
        """
        if not isinstance(asked, int | np.integer) or not 0 <= asked < self.network.patterns:
            raise ValueError(
                f'options["demand"] is {asked!r}; give the number of a pattern, from 0 to '
                f"{self.network.patterns - 1}."
            )
        return int(asked)


def true_reward(factors: Mapping[str, Any]) -> Any:
    """The true reward, from the factors: numbers or arrays."""
    return sum(weight * factors[name] for name, weight in WEIGHTS.items())


class TrafficEnv(gym.Env[np.ndarray, Any]):
    """Set traffic lights so that vehicles spend little time on the roads.

    ## Description
    Four roads meet at every light. Vehicles arrive at random, drive 20 s to the stop line, queue
    there, and cross it, at most 2 in a step of 4 s, while their light is green. All drive straight
    on. In the grid of two by two intersections, whoever crosses one stop line may have another
    ahead; a road between two of them holds 40 vehicles, and while it is full nobody enters it. A
    change of a light costs one step in which all its sides are red. A green lasts 2 steps at least
    and 15 at most (8 s and 60 s): a light keeps to that whatever it is told. Each episode has one
    of four patterns of demand, which the lights are not told.

    ## Action space
    ``Discrete(2)`` for one light, ``MultiDiscrete([2, 2, 2, 2])`` for four, numbered row by row
    from the north west: 0 asks for green for north and south, 1 for east and west. Four choices
    rather than one of 16, so that a policy has a distribution for each light.

    ## Observation space
    ``Box(0, 1, (14 · lights,), float32)``; for each light, the sides in the order north, south,
    east, west (where vehicles come from):

    | entries | meaning | 1 stands for (or more) |
    |---|---|---|
    | 0 to 3 | vehicles in the queue | 40 vehicles |
    | 4 to 7 | vehicles driving towards the stop line | 20 vehicles |
    | 8 to 11 | mean time that those in the queue have stood there | 120 s |
    | 12 | phase: 0 north and south, 1 east and west | |
    | 13 | for how long it has been green, 0 during a change | 15 steps (60 s) |

    ## True reward
    r = −(4 s / 60 s) · vehicles: minus the minutes that vehicles spend in the network, all vehicles
    of the step counted. Its sum over an episode is minus their total travel time.

    ``info["factors"]``, after the step and over all roads:

    | factor | meaning | unit |
    |---|---|---|
    | ``queue_length`` | vehicles in queues | vehicles |
    | ``waiting_time`` | mean time that those have stood at their stop line | s |
    | ``delay`` | 1 − mean speed / speed of free traffic: the share of vehicles that stand | 1 |
    | ``vehicles`` | vehicles on the roads | vehicles |
    | ``switches`` | lights that changed | 1 |
    | ``passed`` | vehicles that crossed a stop line | vehicles |

    ## Start
    Empty roads, north and south green, a pattern of demand, all equally likely, or
    ``reset(options={"demand": number})``. ``info["context_id"]`` is its number.

    ## End
    Never terminates. The registered ids truncate after 225 steps (15 minutes).

    ## What a rater may prefer that the reward does not say
    Fairness: that nobody waits for very long on a quiet road. Calm: that lights change rarely. The
    order of the signals rather than their exchange rate (HERON's: queue length, then waiting time,
    then the rest).

    ## Arguments
    ``layout``: "single" (default) or "grid". ``demand_scale``: of all arrivals, 1 by default.
    ``render_mode``: "ansi" or "rgb_array".

    ## Source
    The domain of Bukharin et al. (2023), HERON, arXiv:2309.02632; simulator and numbers are ours.

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": MODES, "render_fps": 4}

    def __init__(
        self, layout: str = "single", demand_scale: float = 1.0, render_mode: str | None = None
    ) -> None:
        if render_mode is not None and render_mode not in MODES:
            raise ValueError(f"render_mode {render_mode!r} is unknown here; there are {MODES}.")
        self.task = Task(layout, demand_scale)
        self.render_mode = render_mode
        self.observation_space, self.action_space = self.task.spaces
        self.factor_names = FACTORS
        self.traffic = empty(self.task.network, 1)
        self._stream: np.ndarray | None = None
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Empty the roads, under a random pattern of demand or ``options["demand"]``."""
        super().reset(seed=seed)
        if seed is not None:
            self._stream = _stream(int(seed))
        elif self._stream is None:
            self._stream = _stream(int(self.np_random.integers(2**63)))
        if options and "demand" in options:
            pattern = self.task.pattern(options["demand"])
        else:
            self._stream, number = random_streams.draw(self._stream)
            pattern = int(number[0] * self.task.network.patterns)
        self.traffic.clear(np.ones(1, np.bool_), np.array([pattern]))
        self._begun = True
        return traffic_sensors.observe(self.traffic)[0], {"context_id": pattern}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Let four seconds pass.

        Raises:
            ValueError: there is no such action.
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        self._check_begun()
        assert self._stream is not None
        assert self.action_space.shape is not None
        phases = self.task.phases(action, self.action_space.shape)
        self._stream, _ = random_streams.draw(self._stream)
        flows = self.traffic.advance(phases, self.task.arrivals(self._stream, self.traffic.demand))
        factors = {name: float(one[0]) for name, one in self.traffic.factors(flows).items()}
        observation = traffic_sensors.observe(self.traffic)[0]
        return observation, true_reward(factors), False, False, {"factors": factors}

    def render(self) -> Any:
        """The picture of the roads, in the render mode given at the start."""
        self._check_begun()
        return _drawn(self.traffic, 0, self.render_mode)

    def get_state(self) -> dict[str, np.ndarray]:
        """All that continues this very episode, its randomness included, as int64.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        self._check_begun()
        assert self._stream is not None
        arrays = {name: np.array(one[0]) for name, one in self.traffic.arrays().items()}
        return {**arrays, "stream": np.array(self._stream[0]).view(np.int64)}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to what :meth:`get_state` returned."""
        names = self.traffic.arrays()
        self.traffic.restore({name: np.array(state[name], np.int64)[None] for name in names})
        self._stream = np.array(state["stream"], np.int64).view(np.uint64)[None]
        self._begun = True

    def _check_begun(self) -> None:
        if not self._begun:
            raise ResetNeeded("Call reset() first.")


class TrafficVectorEnv(LanesEnv):
    """The batched form of :class:`TrafficEnv`: all lanes, lights and roads in one computation.

    Lane ``i`` seeded with ``reset(seed=s)`` meets the traffic of the single environment seeded with
    ``s + i``, in every autoreset mode and whatever the other lanes do.

    Args:
        num_envs: lanes.
        layout: as :class:`TrafficEnv`.
        demand_scale: as :class:`TrafficEnv`.
        max_episode_steps: truncate episodes after so many steps; None never does.
        autoreset_mode: "SameStep" (default), "NextStep" or "Disabled", or Gymnasium's enum.
        render_mode: "ansi" or "rgb_array"; one picture per lane.

    ``infos`` are those of :class:`prefgym_envs.tabular_vector.TabularVectorEnv`.
    """

    start_option = "demand"

    def __init__(
        self,
        num_envs: int,
        layout: str = "single",
        demand_scale: float = 1.0,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        if max_episode_steps is not None:
            check_count("max_episode_steps", max_episode_steps)
        self.task = Task(layout, demand_scale)
        super().__init__(num_envs, self.task.spaces, autoreset_mode, render_mode, MODES)
        self.max_episode_steps = max_episode_steps
        self.factor_names = FACTORS
        self.traffic = empty(self.task.network, num_envs)

    def step(
        self, actions: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every lane; a lane that is being reset ("NextStep") ignores its action.

        Raises:
            ValueError: an action does not exist, or an ended lane was not reset ("Disabled").
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        self._check_ready()
        assert self.action_space.shape is not None
        phases = self.task.phases(actions, self.action_space.shape)
        resetting = self._ended
        acting = ~resetting
        self._streams[acting], _ = random_streams.draw(self._streams[acting])
        flows = self.traffic.advance(phases, self.task.arrivals(self._streams, self.traffic.demand))
        self._steps += 1
        factors = {name: one * acting for name, one in self.traffic.factors(flows).items()}
        truncated = np.zeros(self.num_envs, np.bool_)
        if self.max_episode_steps is not None:
            truncated = (self._steps >= self.max_episode_steps) & acting
        infos: dict[str, Any] = {"factors": factors, "_factors": acting}
        self._autoreset(resetting, truncated, infos)
        terminated = np.zeros(self.num_envs, np.bool_)
        return self._observations(), true_reward(factors), terminated, truncated, infos

    def render(self) -> tuple[Any, ...]:
        """One picture per lane."""
        self._check_begun()
        return tuple(_drawn(self.traffic, lane, self.render_mode) for lane in range(self.num_envs))

    def _place(self, lanes: np.ndarray, asked: np.ndarray | None) -> None:
        demand = np.zeros(self.num_envs, np.int64)
        if asked is None:
            demand[lanes] = self._drawn(lanes, self.task.network.patterns)
        else:
            demand[lanes] = [self.task.pattern(one) for one in asked[lanes]]
        self.traffic.clear(lanes, demand)

    def _observations(self) -> np.ndarray:
        return traffic_sensors.observe(self.traffic)

    def _contexts(self) -> np.ndarray:
        return self.traffic.demand

    def _places(self) -> dict[str, np.ndarray]:
        return self.traffic.arrays()

    def _set_places(self, places: Mapping[str, np.ndarray]) -> None:
        self.traffic.restore(places)


def raw(**kwargs: Any) -> TrafficEnv:
    """One environment with its true reward; arguments as :class:`TrafficEnv`."""
    return TrafficEnv(**kwargs)


def raw_vector(num_envs: int, **kwargs: Any) -> TrafficVectorEnv:
    """The batched form; arguments as :class:`TrafficVectorEnv`."""
    return TrafficVectorEnv(num_envs, **kwargs)


def _stream(seed: int) -> np.ndarray:
    return np.array([random_streams.seeded(seed)], np.uint64)


def _drawn(traffic: Traffic, lane: int, render_mode: str | None) -> Any:
    """The picture of a lane.

    Raises:
        ValueError: there is no render mode.
    """
    if render_mode is None:
        raise ValueError(
            "There is nothing to render with: make the environment with render_mode set to one of "
            f"{MODES}."
        )
    if render_mode == "ansi":
        return traffic_pictures.text(traffic, lane)
    return traffic_pictures.picture(traffic, lane)
