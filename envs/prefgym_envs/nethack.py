"""NetHack, whose messages are the captions: the game and the reward of NLE's score task.

NLE, the NetHack Learning Environment (arXiv:2006.13760), is an optional package:
``prefgym[nethack]``. The page ``docs/environments/nethack.md`` holds the tables.
"""

import importlib
import re
from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import EzPickle

from prefgym.captions import CAPTION, NOTHING
from prefgym_envs.factors import Task, checked_choice
from prefgym_envs.nethack_views import CELLS, NUMBERS, Glyphs, stats

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]
"""Observation, true reward, terminated, truncated (never, by itself), info."""
FACTORS = ("score", "frozen", "died", "deeper", "health", "steps")
PENALTY = 0.01
"""What a step costs in which no time passes in the game."""
KEYS = ("glyphs", "blstats", "message", "misc", "chars", "tty_chars", "tty_colors", "tty_cursor")
PICTURES = {"human": "human", "ansi": "ansi", "rgb_array": "pixel"}
"""Our render modes -> what NLE calls them."""
NEVER = 2**31 - 1
"""NLE calls its own time limit an end of the game; ours stands outside."""
HP, MAX_HP, DEPTH, TIME = 10, 11, 12, 20
"""Where NLE's bottom line has them."""
OVER = "The game is over."
"""The caption of the last step, whose own messages NLE has read away."""
OFFERED = re.compile(r"\? \[[^\]]*\](?: \(.\))?$")
"""The answers to a question, and the default among them."""


class NetHack(gym.Env[np.ndarray, np.integer], EzPickle):
    """A game of NetHack, whose messages are the captions.

    True reward: that of NLE's score task, score − 0.01 frozen. Terminates when the game is over.

    Factors: ``score``, the points that the step earned; ``frozen``, 1 if no time passed in the
    game; ``died``, 1 at the step at which the game is over; ``deeper``, by how many levels the
    step went below the deepest one of this episode; ``health``, hit points after the step as a
    share of the most; ``steps``, 1.

    Args:
        character: who plays, as NLE writes it: role, race, gender and alignment.
        captions: whether ``info["caption"]`` holds the game's message.
        counts: if above 0, observations end in min(n, counts) / counts, n being how often the
            message of this step came in this episode, this step included; 0 without a message.
        render_mode: "human", "ansi", "rgb_array" or None.

    Raises:
        ImportError: nle is not installed.
        ValueError: no such render mode, or counts below 0.
    """

    metadata = {"render_modes": list(PICTURES), "render_fps": 10}
    factor_names = FACTORS

    game: Any
    """NLE's own environment, in which everything happens."""

    def __init__(
        self,
        character: str = "mon-hum-neu-mal",
        captions: bool = True,
        counts: int = 0,
        render_mode: str | None = None,
    ) -> None:
        EzPickle.__init__(self, character, captions, counts, render_mode)
        if not isinstance(counts, int | np.integer) or counts < 0:
            raise ValueError(
                f"counts={counts!r}; give up to which number messages are counted, 0 for none."
            )
        if render_mode is not None and render_mode not in PICTURES:
            raise ValueError(
                f"render_mode {render_mode!r} is unknown here; there are {list(PICTURES)}."
            )
        self.counts, self.render_mode = int(counts), render_mode
        self.game, glyphs = _game(character, PICTURES.get(str(render_mode), "ansi"))
        self.glyphs = Glyphs(glyphs)
        self.possible_captions: tuple[str, ...] | None = () if captions else None
        """Empty: the game's messages are too many to be listed. None where none are told."""
        self._choices = int(self.game.action_space.n)
        self.action_space = gym.spaces.Discrete(self._choices)
        low = np.zeros(len(self.observation_names), np.float32)
        low[: len(NUMBERS)] = [one.low for one in NUMBERS]
        self.observation_space = gym.spaces.Box(low, np.ones_like(low), dtype=np.float32)
        self._counted: Counter[str] = Counter()
        self._bottom: np.ndarray | None = None
        self._deepest = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a game; it follows from the seed."""
        super().reset(seed=seed)
        core, display = self.np_random.integers(1, 2**31, size=2).tolist()
        self.game.seed(core=core, disp=display, reseed=False)
        shown, _ = self.game.reset()
        self._counted.clear()
        self._bottom = shown["blstats"].copy()
        self._deepest = int(self._bottom[DEPTH])
        return self._observation(shown, message(shown["message"])), {}

    def step(self, action: Any) -> StepResult:
        """Press one key, and those that lead on to where another one is asked for."""
        choice = checked_choice(action, self._choices)
        before = self._bottom
        if before is None:
            raise ResetNeeded("Call reset() before step(): no episode has begun.")
        shown, reward, over, _, _ = self.game.step(choice)
        after = shown["blstats"].copy()
        text = message(shown["message"]) or (OVER if over else NOTHING)
        info: dict[str, Any] = {"factors": self._factors(before, after, reward, bool(over))}
        if text:
            self._counted[text] += 1
        if self.possible_captions is not None:
            info[CAPTION] = text
        self._bottom = None if over else after
        return self._observation(shown, text), float(reward), bool(over), False, info

    def render(self) -> Any:
        """The terminal's text for "ansi" (printed for "human"), NetHack's tiles for "rgb_array"."""
        return None if self.render_mode is None else self.game.render()

    def close(self) -> None:
        """End the game, if it still runs."""
        self.game.close()

    @property
    def observation_names(self) -> tuple[str, ...]:
        """What each number of an observation says."""
        named = tuple(one.name for one in NUMBERS)
        return (*named, "asked", *CELLS, *(["count of the message"] if self.counts else []))

    # -- inside ---------------------------------------------------------------------------------

    def _observation(self, shown: dict[str, np.ndarray], text: str) -> np.ndarray:
        bottom = shown["blstats"]
        around = self.glyphs.around(shown["glyphs"], int(bottom[0]), int(bottom[1]))
        asked = float(shown["misc"].any())
        counted = [min(self._counted[text], self.counts) / self.counts] if self.counts else []
        return np.concatenate([stats(bottom), [asked], around, counted]).astype(np.float32)

    def _factors(
        self, before: np.ndarray, after: np.ndarray, reward: float, over: bool
    ) -> dict[str, float]:
        frozen = float(before[TIME] == after[TIME])
        deeper = 0 if over else max(int(after[DEPTH]) - self._deepest, 0)
        self._deepest += deeper
        return {
            "score": float(round(reward + PENALTY * frozen)),
            "frozen": frozen,
            "died": float(over),
            "deeper": float(deeper),
            "health": 0.0 if over else float(after[HP] / max(after[MAX_HP], 1)),
            "steps": 1.0,
        }


def message(written: np.ndarray) -> str:
    """The game's message as one line, without the answers that a question offers.

    "What do you want to eat? [fg or ?*]" tells of the bag what no caption should depend on.

    Args:
        written: bytes as NLE gives them, with zeros at the end.
    """
    text = " ".join(bytes(written).split(b"\0", 1)[0].decode("latin-1").split())
    return OFFERED.sub("?", text)


def _game(character: str, render_mode: str) -> tuple[Any, Any]:
    """NLE's environment and its module of NetHack's numbers, which are imported only here."""
    try:
        tasks = importlib.import_module("nle.env.tasks")
        numbers = importlib.import_module("nle.nethack")
    except ImportError as missing:
        raise ImportError(
            f'prefgym/NetHack-v0 needs nle ({missing}); pip install "prefgym[nethack]".'
        ) from missing
    game = tasks.NetHackScore(
        character=character,
        observation_keys=KEYS,
        max_episode_steps=NEVER,
        render_mode=render_mode,
        fix_moon_phase=True,
    )
    return game, numbers


def _weights(**kwargs: Any) -> dict[str, float]:
    return {"score": 1.0, "frozen": -PENALTY}


TASK = Task("NetHackScore-v0", NetHack, 5000, FACTORS, _weights)
"""What is known before a game is made."""


def raw(**kwargs: Any) -> NetHack:
    """Make the game with its true reward visible, without a time limit.

    Args:
        kwargs: as :class:`NetHack` takes them.

    Raises:
        ImportError: nle is not installed.
    """
    return NetHack(**kwargs)
