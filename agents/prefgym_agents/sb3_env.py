"""A Gymnasium vector environment, seen as a Stable-Baselines3 ``VecEnv``."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv

from prefgym.wrappers.inner import find_attribute


class GymnasiumVecEnv(VecEnv):
    """Lets Stable-Baselines3 act in a vector environment of Gymnasium.

    Rewards are what the environment returns (0 under a preference environment). Statistics of
    episodes (``rollout/ep_rew_mean``) are of the *true* reward where ``infos`` tell it: they are
    for people to read, and nothing is learned from them.

    Args:
        env: with autoreset mode SAME_STEP or DISABLED.

    Raises:
        ValueError: the autoreset mode is NEXT_STEP, in which a step can be one that does nothing;
            Stable-Baselines3 would learn from it.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        self.mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        if self.mode == AutoresetMode.NEXT_STEP:
            raise ValueError(
                "The vector environment resets at the next step, which Stable-Baselines3 cannot"
                ' use; make it with vector_kwargs={"autoreset_mode": "SameStep"}, or with'
                " gymnasium.make_vec on a prefgym id."
            )
        self.vector_env = env
        self.render_mode = env.render_mode
        self._actions: Any = None
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, np.int64)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Begin an episode in every lane, with the seed set before, if one was."""
        observations, _ = self.vector_env.reset(seed=self._seeds[0])
        self._reset_seeds()
        self._returns[:], self._lengths[:] = 0.0, 0
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Remember what to do."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Do it."""
        observations, rewards, terminated, truncated, infos = self.vector_env.step(self._actions)
        ended = terminated | truncated
        self._returns += infos.get("true_reward", rewards)
        self._lengths += 1
        told: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if np.count_nonzero(ended):
            last = observations if self.mode == AutoresetMode.DISABLED else infos["final_obs"]
            for lane in np.nonzero(ended)[0]:
                told[lane] = {
                    "terminal_observation": np.array(last[lane]),
                    "TimeLimit.truncated": bool(truncated[lane] and not terminated[lane]),
                    "episode": {
                        "r": float(self._returns[lane]),
                        "l": int(self._lengths[lane]),
                        "t": 0.0,
                    },
                }
            self._returns[ended], self._lengths[ended] = 0.0, 0
            if self.mode == AutoresetMode.DISABLED:
                observations, _ = self.vector_env.reset(options={"reset_mask": ended})
        return observations, rewards.astype(np.float32), ended, told

    def running(self) -> dict[str, np.ndarray]:
        """Returns and lengths of the episodes under way, copied."""
        return {"returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def set_running(self, state: dict[str, np.ndarray]) -> None:
        """Go back to a :meth:`running`."""
        self._returns, self._lengths = state["returns"].copy(), state["lengths"].copy()

    def close(self) -> None:
        """Close every lane."""
        self.vector_env.close()

    def render(self, mode: str | None = None) -> Any:
        """One picture of all lanes, or None."""
        return self.vector_env.render()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same attribute for every lane that is asked for."""
        value = (
            self.render_mode
            if attr_name == "render_mode"
            else find_attribute(self.vector_env, attr_name)
        )
        return [value] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the vector environment."""
        setattr(self.vector_env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment."""
        return [find_attribute(self.vector_env, method_name)(*method_args, **method_kwargs)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Whether lanes are wrapped is not known from outside: no."""
        return [False] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture per lane."""
        frames: Any = self.vector_env.render()
        return [None] * self.num_envs if frames is None else list(frames)
