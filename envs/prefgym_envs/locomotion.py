"""MuJoCo's robots with their true reward and the reward's factors: Gymnasium's -v5 physics.

Each class is Gymnasium's environment plus ``info["factors"]``. The physics, spaces, reward and
keyword arguments are Gymnasium's, to the bit. The pages in ``docs/environments`` hold the tables.
"""

import math
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv
from numpy.typing import NDArray

from prefgym.names import lookup
from prefgym_envs.factors import Task, checked_action
from prefgym_envs.trained_critics import trained_values

# Gymnasium's environments carry few annotations.
# mypy: allow-untyped-calls

StepResult = tuple[NDArray[np.float64], np.float64, bool, bool, dict[str, Any]]
"""Observation, true reward, terminated, truncated (never, by itself), info."""

NEAR_LIMIT = 0.99
"""A joint counts as at its limit beyond this fraction of half its range, as in PyBullet's Ant."""


class Reacher(ReacherEnv):
    """Bring the tip of a two-joint arm to a target on a table.

    True reward: −distance − action2 (weights ``reward_dist_weight``, ``reward_control_weight``).
    Never terminates.

    Factors: ``distance`` from tip to target after the step, m; ``action2``, Σ action², of the
    action as given; ``joint_speed2``, Σ squared joint velocities after the step, rad²/s².
    """

    factor_names = ("distance", "action2", "joint_speed2")

    def step(self, action: Any) -> StepResult:
        """Drive both joints for a fiftieth of a second; 1 is 200 N·m."""
        action = checked_action(action, self.action_space.shape)
        observation, reward, _, _, info = super().step(action)
        speed_1, speed_2, gap_x, gap_y = observation[6:].tolist()
        info["factors"] = {
            "distance": math.hypot(gap_x, gap_y),
            "action2": float(np.vdot(action, action)),
            "joint_speed2": speed_1**2 + speed_2**2,
        }
        return observation, np.float64(reward), False, False, info


class HalfCheetah(HalfCheetahEnv):
    """Run forward on two legs in a plane.

    True reward: progress − 0.1 action2 (weights ``forward_reward_weight``, ``ctrl_cost_weight``).
    Never terminates.

    Factors: ``progress``, forward velocity over the step, m/s; ``action2``, Σ action², of the
    action as given; ``height`` of the torso after the step, m; ``tilt2``, squared angle of the
    torso from level, in (−π, π], rad².
    """

    factor_names = ("progress", "action2", "height", "tilt2")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build the robot; the arguments are Gymnasium's."""
        super().__init__(*args, **kwargs)
        self.advantages = trained_values("HalfCheetah", args, kwargs)
        """Of a trained critic, for raters of regret; None where arguments change the task."""

    def step(self, action: Any) -> StepResult:
        """Drive six joints for a twentieth of a second."""
        action = checked_action(action, self.action_space.shape)
        observation, reward, _, _, info = super().step(action)
        height, tilt2 = _posture(self.model, self.data)
        info["factors"] = {
            "progress": float(info["x_velocity"]),
            "action2": float(np.vdot(action, action)),
            "height": height,
            "tilt2": tilt2,
        }
        return observation, np.float64(reward), False, False, info

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Load the model as Gymnasium does, but scale its mass the way that MuJoCo 4 asks for.

        The model file sets a total mass in its compiler section. MuJoCo 4 deprecates that: it
        warns on stderr and leaves a MUJOCO_LOG.TXT in the working directory. Taking the setting
        out before compiling and applying it afterwards gives the same model to the bit.
        """
        spec = mujoco.MjSpec.from_file(self.fullpath)
        total_mass = spec.compiler.settotalmass
        spec.compiler.settotalmass = -1
        model = spec.compile()
        if total_mass > 0:
            _set_total_mass(model, total_mass, spec.stat)
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
        return model, mujoco.MjData(model)


class Hopper(HopperEnv):
    """Hop forward on one leg in a plane.

    True reward: progress + alive − 0.001 action2 (weights ``forward_reward_weight``,
    ``healthy_reward``, ``ctrl_cost_weight``). Terminates when the torso is below 0.7 m or tilted
    by more than 0.2 rad, or any state is beyond ±100.

    Factors: ``progress``, forward velocity over the step, m/s; ``alive``, 1 while healthy, else 0;
    ``action2``, Σ action², of the action as given; ``height`` of the torso after the step, m;
    ``tilt2``, squared angle of the torso from upright, rad².
    """

    factor_names = ("progress", "alive", "action2", "height", "tilt2")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build the robot; the arguments are Gymnasium's."""
        super().__init__(*args, **kwargs)
        self.advantages = trained_values("Hopper", args, kwargs)
        """Of a trained critic, for raters of regret; None where arguments change the task."""

    def step(self, action: Any) -> StepResult:
        """Drive three joints for 8 ms."""
        action = checked_action(action, self.action_space.shape)
        observation, reward, terminated, _, info = super().step(action)
        info["factors"] = _walking(self, action, terminated, info)
        return observation, np.float64(reward), bool(terminated), False, info


class Walker2d(Walker2dEnv):
    """Walk forward on two legs in a plane.

    True reward: progress + alive − 0.001 action2 (weights ``forward_reward_weight``,
    ``healthy_reward``, ``ctrl_cost_weight``). Terminates when the torso leaves 0.8 to 2 m or
    tilts by more than 1 rad.

    Factors: as :class:`Hopper`.
    """

    factor_names = Hopper.factor_names

    def step(self, action: Any) -> StepResult:
        """Drive six joints for 8 ms."""
        action = checked_action(action, self.action_space.shape)
        observation, reward, terminated, _, info = super().step(action)
        info["factors"] = _walking(self, action, terminated, info)
        return observation, np.float64(reward), bool(terminated), False, info


class Ant(AntEnv):
    """Walk along x on four legs in three dimensions.

    True reward: progress + alive − 0.5 action2 − 0.0005 contact2 (weights
    ``forward_reward_weight``, ``healthy_reward``, ``ctrl_cost_weight``, ``contact_cost_weight``).
    Terminates when the torso leaves 0.2 to 1 m or a state is not finite.

    Factors: ``progress``, velocity along x over the step, m/s; ``alive``, 1 while healthy, else 0;
    ``action2``, Σ action², of the action as given; ``contact2``, Σ of the squared contact forces
    and torques on the bodies, each clipped to ±1 (N, N·m); ``joints_at_limit``, how many of the
    eight joints are within 1 % of half their range from its end; ``feet_on_floor``, how many of
    the four feet touch the floor.
    """

    factor_names = ("progress", "alive", "action2", "contact2", "joints_at_limit", "feet_on_floor")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build the robot; the arguments are Gymnasium's."""
        super().__init__(*args, **kwargs)
        limited = np.flatnonzero(self.model.jnt_limited)
        low, high = self.model.jnt_range[limited].T
        self._hinges = self.model.jnt_qposadr[limited]
        self._centre, self._reach = (low + high) / 2, NEAR_LIMIT * (high - low) / 2
        geoms = range(self.model.ngeom)
        self._feet = [i for i in geoms if self.model.geom(i).name.endswith("ankle_geom")]

    def step(self, action: Any) -> StepResult:
        """Drive eight joints for a twentieth of a second; 1 is 150 N·m."""
        action = checked_action(action, self.action_space.shape)
        observation, reward, terminated, _, info = super().step(action)
        bent = np.abs(self.data.qpos[self._hinges] - self._centre)
        forces = self.contact_forces
        touching = self.data.contact.geom.ravel().tolist()
        info["factors"] = {
            "progress": float(info["x_velocity"]),
            "alive": float(_alive(self, terminated)),
            "action2": float(np.vdot(action, action)),
            "contact2": float(np.vdot(forces, forces)),
            "joints_at_limit": float(np.count_nonzero(bent > self._reach)),
            "feet_on_floor": float(sum(foot in touching for foot in self._feet)),
        }
        return observation, np.float64(reward), bool(terminated), False, info


def _set_total_mass(model: Any, total_mass: float, given: Any) -> None:
    """Scale all masses of a compiled model to a total, kg, and renew what follows from them.

    MuJoCo's own advice (mj_setTotalmass, then mj_setConst) leaves out two statistics, one of which
    scales the tolerance of the constraint solver; they are renewed unless the file gives them.
    """
    mujoco.mj_setTotalmass(model, total_mass)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    if math.isnan(given.meanmass):
        model.stat.meanmass = sum(model.body_mass[1:].tolist()) / (model.nbody - 1)
    if math.isnan(given.meaninertia):
        model.stat.meaninertia = sum(model.dof_M0.tolist()) / model.nv


def _posture(model: Any, data: Any) -> tuple[float, float]:
    """Height (m) and squared tilt (rad²) of the torso of a planar robot."""
    height, angle = data.qpos[1:3].tolist()
    angle = (angle + math.pi) % (2 * math.pi) - math.pi
    return height - float(model.qpos0[1]) + float(model.body_pos[1, 2]), angle**2


def _alive(env: Any, terminated: bool) -> bool:
    """Whether the robot is healthy; asked again only where that does not end the episode."""
    return not terminated and (env._terminate_when_unhealthy or bool(env.is_healthy))


def _walking(
    env: Any, action: np.ndarray, terminated: bool, info: dict[str, Any]
) -> dict[str, float]:
    height, tilt2 = _posture(env.model, env.data)
    return {
        "progress": float(info["x_velocity"]),
        "alive": float(_alive(env, terminated)),
        "action2": float(np.vdot(action, action)),
        "height": height,
        "tilt2": tilt2,
    }


def _reacher_weights(
    reward_dist_weight: float = 1.0, reward_control_weight: float = 1.0, **kwargs: Any
) -> dict[str, float]:
    return {"distance": -reward_dist_weight, "action2": -reward_control_weight}


def _cheetah_weights(
    forward_reward_weight: float = 1.0, ctrl_cost_weight: float = 0.1, **kwargs: Any
) -> dict[str, float]:
    return {"progress": forward_reward_weight, "action2": -ctrl_cost_weight}


def _walking_weights(
    forward_reward_weight: float = 1.0,
    ctrl_cost_weight: float = 1e-3,
    healthy_reward: float = 1.0,
    **kwargs: Any,
) -> dict[str, float]:
    return {
        "progress": forward_reward_weight,
        "alive": healthy_reward,
        "action2": -ctrl_cost_weight,
    }


def _ant_weights(
    ctrl_cost_weight: float = 0.5, contact_cost_weight: float = 5e-4, **kwargs: Any
) -> dict[str, float]:
    walking = _walking_weights(ctrl_cost_weight=ctrl_cost_weight, **kwargs)
    return {**walking, "contact2": -contact_cost_weight}


TASKS = {
    "Reacher": Task("Reacher-v5", Reacher, 50, Reacher.factor_names, _reacher_weights),
    "HalfCheetah": Task(
        "HalfCheetah-v5", HalfCheetah, 1000, HalfCheetah.factor_names, _cheetah_weights
    ),
    "Hopper": Task("Hopper-v5", Hopper, 1000, Hopper.factor_names, _walking_weights),
    "Walker2d": Task("Walker2d-v5", Walker2d, 1000, Walker2d.factor_names, _walking_weights),
    "Ant": Task("Ant-v5", Ant, 1000, Ant.factor_names, _ant_weights),
}
"""Every task of this file by name."""


def raw(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make a task whose true reward is visible, without a time limit.

    Args:
        name: a key of :data:`TASKS`.
        kwargs: as Gymnasium's environment takes them (``render_mode``, ``ctrl_cost_weight``, ...).

    Raises:
        ValueError: no task has that name.
    """
    return lookup(name, TASKS, "MuJoCo task").create(**kwargs)
