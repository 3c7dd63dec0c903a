"""Environments in which a supervisor watches what a policy does, and may take over."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from prefgym.interventions.supervision import Running, Supervision
from prefgym.wrappers.inner import find_attribute, limit
from prefgym.wrappers.notes import with_factors

ALONE = np.ones(1, np.bool_)


class InterventionEnv(gym.Wrapper[Any, Any, Any, Any]):
    """A supervisor watches the actions of one environment, and may take over for some steps.

    ``info`` of every step holds ``executed_action``, ``intervened`` (the expert acted),
    ``handover`` (somebody else acts than in the step before) and ``refused`` (the policy's action
    was not let pass). ``intervened`` and ``refused`` stand among its ``factors``, too, so that
    segments carry them. A preference layer around it stores what was executed.

    Args:
        env: any environment.
        supervision: who decides and acts.

    Raises:
        ValueError: an expert for other spaces, or interventions longer than an episode.
    """

    def __init__(self, env: gym.Env[Any, Any], supervision: Supervision) -> None:
        super().__init__(env)
        spaces = env.observation_space, env.action_space
        self.running = Running(supervision, 1, *spaces, _time_limit(env))
        named = find_attribute(env, "factor_names") or ()
        self.factor_names = (*named, *self.running.factor_names)
        self._observation: Any = None
        self._intervened = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, in which the policy acts first; a seed also fixes what is decided."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self.running.rng = np.random.default_rng((seed, 1))
        self.running.begin(ALONE)
        self._intervened = False
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """A step, by the policy's action or the expert's."""
        seen, proposed = np.asarray(self._observation)[None], np.asarray(action)[None]
        decided = self.running.before(seen, proposed, ALONE)
        executed = decided.actions[0]
        observation, reward, terminated, truncated, info = self.env.step(executed)
        ended = np.array([terminated or truncated])
        refused = self.running.after(seen, decided, ALONE, ended)
        told = self.running.factors(decided, refused, proposed)
        intervened = bool(decided.intervened[0])
        info = {
            **info,
            "executed_action": executed.copy(),
            "intervened": intervened,
            "handover": intervened != self._intervened,
            "refused": bool(refused[0]),
            "factors": {**info.get("factors", {}), **{n: float(v[0]) for n, v in told.items()}},
        }
        self._observation, self._intervened = observation, intervened
        return observation, reward, terminated, truncated, info


class InterventionVectorEnv(gym.vector.VectorWrapper):
    """:class:`InterventionEnv` for all lanes at once: the expert and the rule see batches.

    Lanes that are being reset ("NextStep") make no step, and nobody decides about them.

    Args: as :class:`InterventionEnv`.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], supervision: Supervision) -> None:
        super().__init__(env)
        spaces = env.single_observation_space, env.single_action_space
        self.running = Running(supervision, env.num_envs, *spaces, _time_limit(env))
        self.autoreset_mode = AutoresetMode(env.metadata.get("autoreset_mode", "NextStep"))
        named = find_attribute(env, "factor_names") or ()
        self.factor_names = (*named, *self.running.factor_names)
        self._observations: Any = None
        self._resetting = np.zeros(env.num_envs, np.bool_)
        self._intervened = np.zeros(env.num_envs, np.bool_)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin episodes; a seed (or one per lane) also fixes what is decided."""
        observations, infos = self.env.reset(seed=seed, options=options)
        mask = np.ones(self.num_envs, np.bool_)
        if options is not None and "reset_mask" in options:
            mask = np.asarray(options["reset_mask"], np.bool_)
        if seed is not None:
            given = [0 if one is None else int(one) for one in np.atleast_1d(np.asarray(seed))]
            self.running.rng = np.random.default_rng((*given, 1))
        self.running.begin(mask)
        self._intervened[mask] = self._resetting[mask] = False
        self._observations = np.array(observations)
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, np.ndarray, np.ndarray, dict[str, Any]]:
        """A step in every lane, by the policy's action or the expert's."""
        proposed, acting = np.asarray(actions), ~self._resetting
        seen = self._observations
        decided = self.running.before(seen, proposed, acting)
        observations, rewards, terminated, truncated, infos = self.env.step(decided.actions)
        ended = terminated | truncated
        refused = self.running.after(seen, decided, acting, ended)
        told = self.running.factors(decided, refused, proposed)
        infos = with_factors(infos, told, acting)
        infos |= {
            "executed_action": decided.actions.copy(),
            "intervened": decided.intervened,
            "handover": decided.intervened != self._intervened,
            "refused": refused,
        }
        self._intervened = decided.intervened & ~ended
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            self._resetting = ended
        self._observations = np.array(observations)
        return observations, rewards, terminated, truncated, infos

    def get_state(self) -> dict[str, Any]:
        """What this layer alone remembers."""
        return {
            **self.running.get_state(),
            "observations": np.array(self._observations),
            "resetting": self._resetting.copy(),
            "intervened": self._intervened.copy(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`get_state`."""
        self.running.set_state(state)
        self._observations = np.array(state["observations"])
        self._resetting = np.array(state["resetting"])
        self._intervened = np.array(state["intervened"])


def _time_limit(env: Any) -> int | None:
    """Steps of an episode at most, where that is known."""
    told = limit(env)[1]
    for name in ("max_episode_steps", "_max_episode_steps"):
        told = find_attribute(env, name) if told is None else told
    return told
