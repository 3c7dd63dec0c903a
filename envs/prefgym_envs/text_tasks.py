"""What the single and the batched form of a text task share: prompts, rules, exact solutions.

The rules are a finite automaton: the state after a prompt and some tokens says all that matters
for what the next token earns. One table is stepped, played, and solved, so that the three cannot
disagree.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from prefgym.segments import Segments
from prefgym.text import Layout, Played, Vocabulary
from prefgym_envs import random_streams, text_planning


@dataclass(frozen=True, eq=False, repr=False)
class TextTask:
    """Prompts, what every token earns after them, and the exact solution.

    The end token ends a response wherever it comes; a response of T tokens ends by itself.
    """

    layout: Layout
    prompts: Int[np.ndarray, " prompts prompt"]
    """Padded on the left; no two are equal. Row i is the prompt with ``context_id`` i."""
    start: Int[np.ndarray, " prompts"]
    """The state in which the response to each prompt begins."""
    next_state: Int[np.ndarray, " states tokens"]
    """Where each token leads; what stands at the end token is never used."""
    factors: Mapping[str, Float[np.ndarray, " states tokens"]]
    """What each token changes, by name. More is better where the weight is positive."""
    weights: Mapping[str, float]
    """The true reward is the sum of the factors with these weights."""
    examples: Int[np.ndarray, " prompts examples steps"] | None = field(default=None)
    """Responses to each prompt as a demonstrator gives them; the end token after their ends."""
    noise: float = 0.3
    """Share of the tokens of a demonstration that are replaced by random ones, unless told
    otherwise. Where the examples are poor themselves, less will do."""
    captions: tuple[str, ...] | None = None
    """For each token the phrase that it finishes, "" if none; None where the task has no phrases.
    """

    def __post_init__(self) -> None:
        """Refuse prompts that cannot be told apart: their values would be guesses."""
        self.layout.check_tokens(self.prompts)
        if not len(self.prompts):
            raise ValueError("There are no prompts; give at least one.")
        if len(np.unique(self.prompts, axis=0)) < len(self.prompts):
            raise ValueError("A prompt came twice; give every prompt once.")

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave out what can be computed again."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __repr__(self) -> str:
        """Sizes and names, in one line."""
        layout, factors = self.layout, ", ".join(self.factors) or "no factors"
        return (
            f"TextTask({len(self.prompts)} prompts of up to {layout.prompt_tokens} tokens,"
            f" responses of up to {layout.response_tokens}, a vocabulary of {layout.codec.size},"
            f" {len(self.next_state)} states, {factors})"
        )

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Names of the parts of the true reward."""
        return tuple(self.factors)

    @cached_property
    def rewards(self) -> Float[np.ndarray, " states tokens"]:
        """The true reward of each token in each state."""
        return sum(
            (self.weights[name] * table for name, table in self.factors.items()),
            np.zeros(self.next_state.shape),
        )

    @cached_property
    def possible_captions(self) -> tuple[str, ...]:
        """Every phrase, once, in the order of their tokens.

        Raises:
            ValueError: the task has no notion of finished phrases.
        """
        if self.captions is None:
            raise ValueError(
                "captions=True: this task has no finished phrases; choose prefgym/TextPolite-v0,"
                " prefgym/TextStyle-v0 or prefgym/TextCopy-v0."
            )
        return tuple(dict.fromkeys(one for one in self.captions if one))

    @cached_property
    def caption_number(self) -> Int[np.ndarray, " tokens"]:
        """For each token the place of its phrase among the possible ones, from 1; 0 if none.

        Raises:
            ValueError: as :attr:`possible_captions`.
        """
        places = {text: place for place, text in enumerate(("", *self.possible_captions))}
        return np.array([places[one] for one in self.captions or ()], np.int64)

    # -- what happens ---------------------------------------------------------------------------

    def states(
        self,
        context_id: Int[np.ndarray, " batch"],
        actions: Int[np.ndarray, " batch steps"],
    ) -> Int[np.ndarray, " batch times"]:
        """The states before every token, and after the last one: ``[batch, steps + 1]``."""
        table, size = self._flat_next_state, self.layout.codec.size
        states = np.empty((actions.shape[1] + 1, len(actions)), np.int64)
        states[0] = self.start.take(context_id)
        for step, tokens in enumerate(actions.T):
            table.take(states[step] * size + tokens, out=states[step + 1])
        return states.T

    def play(
        self,
        context_id: Int[np.ndarray, " batch"],
        actions: Int[np.ndarray, " batch steps"],
        mask: Bool[np.ndarray, " batch steps"],
    ) -> Played:
        """What whole responses to some prompts earn.

        Raises:
            ValueError: a prompt or a token does not exist, or a response is not whole.
        """
        self._check_contexts(context_id)
        self.layout.check_responses(actions, mask)
        real = np.where(mask, actions, 0)
        entry = self.states(context_id, real)[:, :-1] * self.layout.codec.size + real
        terminated = (mask & (actions == self.layout.codec.eos)).any(1)
        return Played(
            rewards=np.where(mask, self.rewards.reshape(-1).take(entry), 0.0),
            factors={
                name: np.where(mask, table.reshape(-1).take(entry), 0.0)
                for name, table in self.factors.items()
            },
            terminated=terminated,
            truncated=~terminated,
        )

    def contexts_of(self, prompts: Int[np.ndarray, " batch prompt"]) -> Int[np.ndarray, " batch"]:
        """The numbers of prompts, from their tokens.

        Raises:
            ValueError: one of them is none of this task's.
        """
        keys, order = self._prompt_keys
        place = np.searchsorted(keys, _key(prompts))
        found: np.ndarray = order.take(np.minimum(place, len(order) - 1))
        wrong = (self.prompts.take(found, axis=0) != prompts).any(1)
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"Prompt {prompts[row].tolist()} (row {row}) is none of this task's"
                f" {len(self.prompts)}."
            )
        return found

    # -- exact solutions ------------------------------------------------------------------------

    def soft_values(self, temperature: float) -> Float[np.ndarray, " times states"]:
        """V_β(t, s) against uniform tokens; see :func:`prefgym_envs.text_planning.soft_values`."""
        eos, steps = self.layout.codec.eos, self.layout.response_tokens
        return text_planning.soft_values(self.next_state, self.rewards, eos, steps, temperature)

    @cached_property
    def values(self) -> Float[np.ndarray, " times states"]:
        """V*(t, s): the best reward to come after t tokens."""
        return self.soft_values(0.0)

    @cached_property
    def optimal_return(self) -> float:
        """J*: the reward of the best responses, the mean over the prompts."""
        return float(self.values[0].take(self.start).mean())

    @cached_property
    def random_return(self) -> float:
        """J of the policy that draws every token uniformly."""
        eos, steps = self.layout.codec.eos, self.layout.response_tokens
        values = text_planning.uniform_values(self.next_state, self.rewards, eos, steps)
        return float(values.take(self.start).mean())

    def optimal_responses(
        self,
    ) -> tuple[Int[np.ndarray, " prompts steps"], Bool[np.ndarray, " prompts steps"]]:
        """A best response to every prompt, and its mask."""
        eos, steps = self.layout.codec.eos, self.layout.response_tokens
        state, chosen = self.start, []
        for time in range(steps):
            to_come = self.values[time + 1].take(self.next_state[state])
            to_come[:, eos] = 0.0
            chosen.append((self.rewards[state] + to_come).argmax(1))
            state = self.next_state[state, chosen[-1]]
        actions = np.stack(chosen, axis=1)
        mask = self.layout.mask(actions)
        return np.where(mask, actions, 0), mask

    def all_responses(
        self,
    ) -> tuple[Int[np.ndarray, " responses steps"], Bool[np.ndarray, " responses steps"]]:
        """Every response there is, and its mask; for small tasks only."""
        return text_planning.all_responses(self.layout)

    @cached_property
    def all_returns(self) -> Float[np.ndarray, " prompts responses"]:
        """What each of :meth:`all_responses` earns after each prompt."""
        actions, mask = self.all_responses()
        return np.stack(
            [
                self.play(np.full(len(actions), one), actions, mask).rewards.sum(1)
                for one in range(len(self.prompts))
            ]
        )

    def kl_optimal(
        self, reference_log_prob: Float[np.ndarray, " _ _"], temperature: float
    ) -> tuple[Float[np.ndarray, " prompts"], Float[np.ndarray, " prompts responses"]]:
        """The best value near a reference; see :func:`prefgym_envs.text_planning.kl_optimal`."""
        return text_planning.kl_optimal(self.all_returns, reference_log_prob, temperature)

    def kl_value(
        self,
        log_prob: Float[np.ndarray, " _ _"],
        reference_log_prob: Float[np.ndarray, " _ _"],
        temperature: float,
    ) -> Float[np.ndarray, " prompts"]:
        """The value of a policy; see :func:`prefgym_envs.text_planning.kl_value`."""
        return text_planning.kl_value(self.all_returns, log_prob, reference_log_prob, temperature)

    # -- examples -------------------------------------------------------------------------------

    def demonstrations(
        self, count: int, rng: np.random.Generator, noise: float | None = None
    ) -> Segments:
        """Responses of the kind that a supervised model starts from: well meant, often wrong.

        Args:
            count: how many; prompts and examples are drawn uniformly, with replacement.
            rng: draws them.
            noise: share of the tokens that are replaced by a random one other than padding, the
                end among them; the task's own by default.

        Raises:
            ValueError: the task has no examples, or the noise is no share.
        """
        if self.examples is None:
            raise ValueError(
                "This task has no examples; give responses of your own for supervised training."
            )
        noise = self.noise if noise is None else noise
        if not 0 <= noise <= 1:
            raise ValueError(f"noise is {noise}; give a share from 0 to 1.")
        context_id = rng.integers(len(self.prompts), size=count)
        good = self.examples[context_id, rng.integers(self.examples.shape[1], size=count)]
        words = np.delete(np.arange(self.layout.codec.size), self.layout.codec.pad)
        actions = np.where(
            rng.random(good.shape) < noise, words[rng.integers(len(words), size=good.shape)], good
        )
        mask = self.layout.mask(actions)
        actions = np.where(mask, actions, 0)
        played = self.play(context_id, actions, mask)
        return Segments(
            actions=actions,
            mask=mask,
            context=self.prompts.take(context_id, axis=0),
            context_id=context_id,
            rewards=played.rewards,
            factors=played.factors,
        )

    # -- inside ---------------------------------------------------------------------------------

    @cached_property
    def _flat_next_state(self) -> Int[np.ndarray, " entries"]:
        return self.next_state.reshape(-1).astype(np.int64)

    @cached_property
    def _prompt_keys(self) -> tuple[np.ndarray, np.ndarray]:
        keys = _key(self.prompts)
        order = np.argsort(keys)
        return keys[order], order

    def _check_contexts(self, context_id: Int[np.ndarray, " batch"]) -> None:
        last = len(self.prompts) - 1
        if context_id.size and (context_id.min() < 0 or context_id.max() > last):
            odd = context_id[(context_id < 0) | (context_id > last)][0]
            raise ValueError(f"There is no prompt {odd}; this task has 0 to {last}.")


@dataclass(frozen=True, eq=False)
class TextAdvantages:
    """A* = Q* − V* of tokens under the true reward, exact: a value source for raters of regret."""

    task: TextTask

    def __call__(
        self,
        observations: Num[np.ndarray, " batch width"],
        actions: Int[np.ndarray, " batch"],
    ) -> Float[np.ndarray, " batch"]:
        """A* of one token each, in units of reward; 0 where the response had ended.

        Raises:
            ValueError: an observation is none of this task's, or a token does not exist.
        """
        self.task.layout.check_tokens(actions)
        time, state, ended = self._reached(observations)
        return np.where(ended, 0.0, self._of(time, state, actions))

    def state_values(
        self, observations: Num[np.ndarray, " batch width"]
    ) -> Float[np.ndarray, " batch"]:
        """V* of what is written so far: the best reward to come; 0 where the response had ended.

        Raises:
            ValueError: an observation is none of this task's.
        """
        time, state, ended = self._reached(observations)
        return np.where(ended, 0.0, self.task.values[time, state])

    def of_segments(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """A* of every token of whole responses, 0 at padding.

        Raises:
            ValueError: the segments belong to other prompts, or hold more tokens than a response.
        """
        tokens, states = self._walked(segments)
        known = self._of(np.arange(tokens.shape[1]), states, tokens)
        return _over_steps(known, segments)

    def values_of_segments(self, segments: Segments) -> Float[np.ndarray, " batch steps"]:
        """V* before every token of whole responses, 0 at padding.

        Raises:
            ValueError: as :meth:`of_segments`.
        """
        tokens, states = self._walked(segments)
        return _over_steps(self.task.values[np.arange(tokens.shape[1]), states], segments)

    def _reached(
        self, observations: Num[np.ndarray, " batch width"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens written, the state after them, and whether the response had ended."""
        layout = self.task.layout
        prompts, responses, lengths = layout.split(observations.astype(np.int64))
        layout.check_tokens(responses)
        real = np.arange(layout.response_tokens) < lengths[:, None]
        ended = (real & (responses == layout.codec.eos)).any(1)
        ended |= lengths >= layout.response_tokens
        states = self.task.states(self.task.contexts_of(prompts), responses)
        time = np.minimum(lengths, layout.response_tokens - 1)
        return time, np.take_along_axis(states, time[:, None], 1)[:, 0], ended

    def _walked(self, segments: Segments) -> tuple[np.ndarray, np.ndarray]:
        """Tokens, zero at padding, and the states before them; as far as a response goes."""
        plain, layout = segments.numpy(), self.task.layout
        contexts = self._contexts(plain)
        width = min(plain.steps, layout.response_tokens)
        if plain.mask[:, width:].any():
            raise ValueError(
                f"A segment has {plain.lengths.max()} tokens, but a response of this task at most"
                f" {layout.response_tokens}."
            )
        tokens = np.where(plain.mask, plain.actions, 0)[:, :width].astype(np.int64)
        layout.check_tokens(tokens)
        return tokens, self.task.states(contexts, tokens)[:, :-1]

    def _of(self, time: np.ndarray, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        values, task = self.task.values, self.task
        to_come = values[time + 1, task.next_state[state, actions]]
        to_come = np.where(actions == task.layout.codec.eos, 0.0, to_come)
        lost: np.ndarray = task.rewards[state, actions] + to_come - values[time, state]
        return lost

    def _contexts(self, segments: Segments) -> np.ndarray:
        contexts = np.asarray(segments.context_id)
        self.task._check_contexts(contexts)
        shown = self.task.prompts.take(contexts, axis=0)
        if shown.shape != segments.context.shape or (shown != segments.context).any():
            raise ValueError(
                "The prompts of these segments are not those that their context_id names in this"
                " task; was it made with other arguments, or another seed?"
            )
        return contexts


def _over_steps(
    known: Float[np.ndarray, " batch width"], segments: Segments
) -> Float[np.ndarray, " batch steps"]:
    """Numbers of the first tokens, and zeros at padding and behind them."""
    mask = segments.numpy().mask
    found = np.zeros(mask.shape)
    width = known.shape[1]
    found[:, :width] = np.where(mask[:, :width], known, 0.0)
    return found


def distinct_prompts(
    draw: Callable[[np.random.Generator], Sequence[str]], count: int, possible: int, seed: int
) -> list[tuple[str, ...]]:
    """Different prompts, in the order in which they were drawn.

    Args:
        draw: makes one prompt, word by word.
        count: how many.
        possible: how many there are.
        seed: which ones.

    Raises:
        ValueError: there are not so many, or the seed is no whole number of 0 or more.
    """
    if not isinstance(count, int | np.integer) or not 1 <= count <= possible:
        raise ValueError(f"prompts={count!r}; this task has 1 to {possible} different prompts.")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed={seed!r}; give a whole number of 0 or more, for the prompts.")
    rng, found = np.random.default_rng(seed), dict[tuple[str, ...], None]()
    while len(found) < count:
        found[tuple(draw(rng))] = None
    return list(found)


def example_tokens(
    layout: Layout, texts: Sequence[Sequence[str]]
) -> Int[np.ndarray, " prompts examples steps"]:
    """Examples from their texts, as many for each prompt, with the end token behind them."""
    shape = len(texts), len(texts[0]), layout.response_tokens
    tokens = np.full(shape, layout.codec.eos)
    for prompt, examples in enumerate(texts):
        for place, text in enumerate(examples):
            words = layout.codec.encode(text)
            tokens[prompt, place, : len(words)] = words
    return tokens


def phrases(codec: Vocabulary, *words: str) -> tuple[str, ...]:
    """For each token its word, if that is one of the words that finish a phrase, else ""."""
    return tuple(word if word in words else "" for word in codec.words)


def _key(prompts: Int[np.ndarray, " batch prompt"]) -> np.ndarray:
    """One number for each row; equal rows have equal ones, and others hardly ever."""
    places = np.arange(1, prompts.shape[1] + 1, dtype=np.uint64)
    multipliers = random_streams.seeded(places) | np.uint64(1)
    keys: np.ndarray = (prompts.astype(np.uint64) * multipliers).sum(1)
    return keys
