"""Text environments: an action is the next token, an episode is one response to one prompt."""

from collections.abc import Mapping
from dataclasses import replace
from operator import index
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from jaxtyping import Int

from prefgym.captions import CAPTION
from prefgym.text import Played
from prefgym_envs import random_streams
from prefgym_envs.lanes import LanesEnv, check_count
from prefgym_envs.tabular_tasks import checked_actions
from prefgym_envs.text_tasks import TextAdvantages, TextTask


class TextEnv(gym.Env[np.ndarray, np.integer]):
    """One text environment.

    Args:
        task: prompts and rules.
        render_mode: "ansi" (``prompt → response so far``), or None.
        solved: whether the true reward is known, so that exact advantages are.
        captions: whether ``info["caption"]`` says which phrase a token finished, "" if none.

    ``reset(options={"prompt": i})`` begins with prompt ``i`` instead of a random one. The reset's
    ``info["context_id"]`` is the number of the prompt, every step's ``info["factors"]`` what the
    token changed.

    Prompts are drawn from a stream of their own, seeded by ``reset(seed=...)``; ``np_random`` is
    left to wrappers.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}

    def __init__(
        self,
        task: TextTask,
        render_mode: str | None = None,
        solved: bool = True,
        captions: bool = False,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode {render_mode!r} is unknown here; there is 'ansi'.")
        self.task = task
        self.layout = task.layout
        self.render_mode = render_mode
        self.observation_space = task.layout.observation_space
        self.action_space = task.layout.action_space
        self.factor_names = task.factor_names
        self.advantages = TextAdvantages(task) if solved else None
        self.possible_captions = task.possible_captions if captions else None
        self._stream: int | None = None
        self._context: int | None = None
        self._state = 0
        self._tokens: list[int] = []
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a response to a random prompt, or to number ``options["prompt"]``."""
        super().reset(seed=seed)
        if seed is not None:
            self._stream = random_streams.seeded(int(seed))
        elif self._stream is None:
            self._stream = random_streams.seeded(int(self.np_random.integers(2**63)))
        if options and "prompt" in options:
            self._context = _checked_prompt(options["prompt"], self.task)
        elif len(self.task.prompts) == 1:
            self._context = 0
        else:
            self._stream, number = random_streams.draw(self._stream)
            self._context = int(number * len(self.task.prompts))
        self._state = int(self.task.start[self._context])
        self._tokens, self._over = [], False
        return self._observation(), {"context_id": self._context}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Write one token.

        Raises:
            ValueError: there is no such token.
            gymnasium.error.ResetNeeded: no response has begun, or it has ended.
        """
        if self._over:
            raise ResetNeeded("Call reset() before step(): no response is being written.")
        token, task = self._checked(action), self.task
        factors = {name: float(table[self._state, token]) for name, table in task.factors.items()}
        reward = float(task.rewards[self._state, token])
        self._state = int(task.next_state[self._state, token])
        self._tokens.append(token)
        terminated = token == self.layout.codec.eos
        truncated = not terminated and len(self._tokens) == self.layout.response_tokens
        self._over = terminated or truncated
        info: dict[str, Any] = {"factors": factors}
        if self.possible_captions is not None:
            info[CAPTION] = ("", *self.possible_captions)[task.caption_number[token]]
        return self._observation(), reward, terminated, truncated, info

    def render(self) -> str:
        """Prompt and response so far, as text.

        Raises:
            ValueError: the environment was made without a render mode.
            gymnasium.error.ResetNeeded: no response has begun.
        """
        if self._context is None:
            raise ResetNeeded("Call reset() before render().")
        if self.render_mode is None:
            raise ValueError(
                "There is nothing to render with: make the environment with render_mode='ansi'."
            )
        prompt = self.task.prompts[self._context]
        return self.layout.line(prompt, np.array(self._tokens, np.int64))

    def get_state(self) -> dict[str, np.ndarray]:
        """All that continues this very response, and the prompts after it, as int64.

        Raises:
            gymnasium.error.ResetNeeded: no response has begun.
        """
        if self._context is None or self._stream is None:
            raise ResetNeeded("Call reset() before get_state().")
        return {
            "context": np.array(self._context, np.int64),
            "state": np.array(self._state, np.int64),
            "tokens": np.array(self._tokens, np.int64),
            "over": np.array(self._over),
            "stream": np.array(self._stream, np.uint64).view(np.int64),
        }

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to what :meth:`get_state` returned."""
        self._context = int(state["context"])
        self._state = int(state["state"])
        self._tokens = np.asarray(state["tokens"], np.int64).tolist()
        self._over = bool(state["over"])
        self._stream = int(np.array(state["stream"], np.int64).view(np.uint64))

    def _checked(self, action: Any) -> int:
        try:
            token = index(action)
        except TypeError:
            token = -1
        if not 0 <= token < self.layout.codec.size:
            raise ValueError(
                f"There is no token {action!r}; give an integer from 0 to "
                f"{self.layout.codec.size - 1}."
            )
        return token

    def _observation(self) -> np.ndarray:
        layout, written = self.layout, len(self._tokens)
        seen = np.full(layout.prompt_tokens + layout.response_tokens + 1, layout.codec.pad)
        seen[: layout.prompt_tokens] = self.task.prompts[self._context]
        seen[layout.prompt_tokens : layout.prompt_tokens + written] = self._tokens
        seen[-1] = written
        return seen


class TextVectorEnv(LanesEnv):
    """Many lanes of one text task, stepped with a handful of numpy calls, or played at once.

    Lane ``i`` seeded with ``reset(seed=s)`` lives through the same episodes as the single
    environment seeded with ``s + i``, in every autoreset mode and whatever the other lanes do.

    Args:
        task: prompts and rules.
        num_envs: lanes.
        samples_per_prompt: G; lanes i·G to i·G + G − 1 get the same prompts in the same order, as
            the single environment seeded with ``s + i`` does.
        max_episode_steps: of no use here; the task itself ends its responses.
        autoreset_mode: "SameStep" (default), "NextStep" or "Disabled", or Gymnasium's enum. With
            "Disabled", ended lanes are reset by ``reset(options={"reset_mask": ended})``.
        render_mode: "ansi": one line per lane.
        solved: as :class:`TextEnv`.
        captions: likewise; ``infos["caption"]`` is an array of texts, one per lane, and responses
            that are played at once have the factor "caption": the phrases' numbers, from 1.

    ``infos["factors"]`` maps each factor's name to an array of shape (lanes,) that belongs to the
    step just made, in ended lanes too; ``infos["_factors"]`` marks the lanes that made one.
    ``infos["context_id"]`` holds the numbers of the prompts where episodes began. Under "SameStep",
    ``final_obs`` and ``final_info`` are Gymnasium's.

    ``reset(options={"prompt": i})`` begins with prompt ``i``, a number or one per lane.
    """

    start_option = "prompt"

    def __init__(
        self,
        task: TextTask,
        num_envs: int,
        samples_per_prompt: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        solved: bool = True,
        captions: bool = False,
    ) -> None:
        _check_lanes(num_envs, samples_per_prompt, max_episode_steps, task)
        spaces = task.layout.observation_space, task.layout.action_space
        super().__init__(
            num_envs, spaces, autoreset_mode, render_mode, ["ansi"], samples_per_prompt
        )
        self.task = task
        self.layout = task.layout
        self.samples_per_prompt = samples_per_prompt
        self.factor_names = task.factor_names
        self.advantages = TextAdvantages(task) if solved else None
        self.possible_captions = task.possible_captions if captions else None
        self._context = np.zeros(num_envs, np.int64)
        self._state = np.zeros(num_envs, np.int64)
        self._tokens = np.full((num_envs, task.layout.response_tokens), task.layout.codec.pad)
        self._flat_rewards = task.rewards.reshape(-1)
        self._flat_factors = {name: table.reshape(-1) for name, table in task.factors.items()}
        self._flat_next_state = task.next_state.reshape(-1).astype(np.int64)

    @property
    def observations(self) -> Int[np.ndarray, " lanes width"]:
        """What every lane shows now."""
        self._check_begun()
        return self._observations()

    @property
    def context_id(self) -> Int[np.ndarray, " lanes"]:
        """The number of the prompt that every lane answers now."""
        self._check_begun()
        return self._context.copy()

    def step(
        self, actions: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Write a token in every lane; one that is being reset ("NextStep") ignores its own.

        Raises:
            ValueError: a token does not exist, or an ended lane was not reset ("Disabled").
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        self._check_ready()
        tokens = checked_actions(actions, self.layout.codec.size, self.num_envs)
        resetting = self._ended
        acting = ~resetting
        entry = self._state * self.layout.codec.size + tokens
        lanes = np.flatnonzero(acting)
        self._tokens[lanes, self._steps[lanes]] = tokens[lanes]
        self._steps[lanes] += 1
        self._state = np.where(acting, self._flat_next_state.take(entry), self._state)
        rewards = np.where(acting, self._flat_rewards.take(entry), 0.0)
        terminated = acting & (tokens == self.layout.codec.eos)
        truncated = acting & ~terminated & (self._steps >= self.layout.response_tokens)
        infos: dict[str, Any] = {
            "factors": {
                name: np.where(acting, table.take(entry), 0.0)
                for name, table in self._flat_factors.items()
            },
            "_factors": acting,
        }
        if self.possible_captions is not None:
            numbers = np.where(acting, self.task.caption_number.take(tokens), 0)
            infos[CAPTION] = np.array(("", *self.possible_captions), object).take(numbers)
        self._autoreset(resetting, terminated | truncated, infos)
        return self._observations(), rewards, terminated, truncated, infos

    def play(self, actions: Any, mask: Any) -> Played:
        """Live through one whole episode in every lane, and begin new ones.

        Equal, token by token, to stepping every lane by itself until its episode ends.

        Args:
            actions: ``[lanes, T]`` tokens.
            mask: ``[lanes, T]``: true up to the end token, or throughout where there is none.

        Raises:
            ValueError: some lane is in the middle of an episode, a token does not exist, or a
                response is not whole.
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        self._check_begun()
        wanted = (self.num_envs, self.layout.response_tokens)
        if np.shape(actions) != wanted:
            raise ValueError(
                f"play() got tokens of shape {np.shape(actions)}; wanted {wanted}: a whole response"
                " for every lane."
            )
        if self._steps.any() or self._ended.any():
            busy = np.flatnonzero((self._steps > 0) | self._ended).tolist()
            raise ValueError(
                f"play() needs every lane at the beginning of a response, and lanes {busy} are not;"
                " call reset() first, and do not mix play() with step()."
            )
        played = self.task.play(self._context, np.asarray(actions), np.asarray(mask))
        if self.possible_captions is not None:
            tokens = np.where(mask, actions, self.layout.codec.pad)
            told = self.task.caption_number.take(tokens).astype(np.float64)
            played = replace(played, factors={**played.factors, CAPTION: told})
        self._begin(np.ones(self.num_envs, np.bool_))
        return played

    def render(self) -> tuple[str, ...]:
        """One line per lane: ``prompt → response so far``."""
        self._check_begun()
        if self.render_mode is None:
            raise ValueError(
                "There is nothing to render with: make the environments with render_mode='ansi'."
            )
        prompts = self.task.prompts.take(self._context, axis=0)
        return tuple(
            self.layout.line(prompt, tokens[:steps])
            for prompt, tokens, steps in zip(
                prompts, self._tokens, self._steps.tolist(), strict=True
            )
        )

    def _place(self, lanes: np.ndarray, asked: np.ndarray | None) -> None:
        count = len(self.task.prompts)
        if asked is not None:
            self._context[lanes] = [_checked_prompt(one, self.task) for one in asked[lanes]]
        elif count == 1:
            self._context[lanes] = 0
        else:
            self._context[lanes] = self._drawn(lanes, count)
        self._state[lanes] = self.task.start.take(self._context[lanes])
        self._tokens[lanes] = self.layout.codec.pad

    def _observations(self) -> np.ndarray:
        prompts = self.task.prompts.take(self._context, axis=0)
        columns = (prompts, self._tokens, self._steps[:, None])
        return np.concatenate(columns, axis=1, dtype=np.int64)

    def _contexts(self) -> np.ndarray:
        return self._context

    def _places(self) -> dict[str, np.ndarray]:
        return {"context": self._context, "state": self._state, "tokens": self._tokens}

    def _set_places(self, places: Mapping[str, np.ndarray]) -> None:
        self._context, self._state = places["context"], places["state"]
        self._tokens = places["tokens"]


def _checked_prompt(number: Any, task: TextTask) -> int:
    try:
        given = index(number)
    except TypeError:
        given = -1
    if not 0 <= given < len(task.prompts):
        raise ValueError(
            f'options["prompt"] is {number!r}; give a number from 0 to {len(task.prompts) - 1}.'
        )
    return given


def _check_lanes(
    num_envs: int, samples_per_prompt: int, max_episode_steps: int | None, task: TextTask
) -> None:
    check_count("num_envs", num_envs)
    check_count("samples_per_prompt", samples_per_prompt)
    if num_envs % samples_per_prompt:
        raise ValueError(
            f"num_envs={num_envs} is no multiple of samples_per_prompt={samples_per_prompt}; every"
            " prompt needs as many lanes as the others."
        )
    if max_episode_steps is not None:
        raise ValueError(
            f"max_episode_steps={max_episode_steps} came, but a response here ends by itself after"
            f" at most {task.layout.response_tokens} tokens; leave it out."
        )
