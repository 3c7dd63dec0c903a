"""A judge behind an OpenAI-compatible endpoint: vLLM, llama.cpp, Ollama, or a hosted one."""

import asyncio
import hashlib
import json
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from prefgym.judges.background import Background
from prefgym.judges.endpoint_errors import (
    checked_url,
    complaint,
    hopeless,
    key_of,
    only_model,
)

SAMPLING: Mapping[str, Any] = {"temperature": 0.0, "max_tokens": 512}
"""What a question says about how the answer is drawn."""

FAULTS = (
    *("timeouts", "rate_limits", "server_errors", "malformed", "cut_off", "unreachable"),
    *("unfinished", "too_long", "refused", "unauthorised", "unknown_model"),
)
"""What can come instead of an answer."""
_PASSING = frozenset(FAULTS[:6])
"""Faults after which asking again may help."""
_SPEAKS = frozenset(("rate_limits", "server_errors", "refused", "unknown_model"))
"""Faults of the list of models that leave hope for questions: some endpoints have no list."""
_LONGEST_S = 3600.0
"""However long an endpoint wishes to be left alone, it is asked again after that time."""
_TOGETHER_S = 0.1
"""Answers of that time are handed over together."""


@dataclass(frozen=True)
class Patience:
    """How many questions are asked at once, and how often, how long and when again."""

    concurrency: int = 32
    """Questions that are with the endpoint at once."""
    timeout_s: float = 60.0
    """Of one attempt, from the question to the last byte of the answer."""
    attempts: int = 4
    """Times that a question is asked before it is given up."""
    backoff_s: float = 0.5
    """Before the second attempt; twice as long before each further one, times .5 to 1.5."""
    longest_wait_s: float = 60.0
    """An endpoint that wants a longer pause is left alone: till then calls get no answers."""
    seed: int = 0
    """Of the factors .5 to 1.5, which also depend on the prompt."""

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing would be asked."""
        whole = {"concurrency": self.concurrency, "attempts": self.attempts}
        for name, value in whole.items():
            if value < 1:
                raise ValueError(f"Patience: {name} is {value}; wanted 1 or more.")
        if not self.timeout_s > 0.0 or self.backoff_s < 0.0 or self.longest_wait_s < 0.0:
            raise ValueError(
                f"Patience: timeout_s is {self.timeout_s}, backoff_s {self.backoff_s} and"
                f" longest_wait_s {self.longest_wait_s}; wanted a time above 0 and two from 0 on."
            )

    def pause_s(self, prompt: str, attempt: int) -> float:
        """Seconds to wait after a failed attempt, which are counted from 0."""
        drawn = hashlib.sha256(f"{self.seed}\n{attempt}\n{prompt}".encode()).digest()
        factor = 0.5 + int.from_bytes(drawn[:8]) / 2**64
        return min(self.longest_wait_s, self.backoff_s * 2.0**attempt * factor)


@dataclass
class _Batch:
    """Prompts of one call, and what all who ask should know."""

    waiting: Iterator[tuple[int, str]]
    came: "SimpleQueue[list[tuple[int, str | None]] | None]" = field(default_factory=SimpleQueue)
    """Answers for whoever waits, and None when there are no more."""
    fresh: list[tuple[int, str | None]] = field(default_factory=list)
    """Answers that are not yet handed over."""
    answered: int = 0
    closed: bool = False
    """It is gone: what waits gets no answer in this call."""
    error: ValueError | None = None
    """It will never answer."""

    def tell(self, number: int, answer: str | None) -> None:
        """Hand an answer over soon: to wake another thread for every one would take longer."""
        self.fresh.append((number, answer))
        if len(self.fresh) == 1:
            asyncio.get_running_loop().call_later(_TOGETHER_S, self.hand_over)

    def hand_over(self) -> None:
        """Hand over what is there."""
        if self.fresh:
            self.came.put(self.fresh)
            self.fresh = []


class EndpointJudge:
    """Asks a language model that is served somewhere.

    Questions that fail are asked again, later and later, and as late as the endpoint wishes
    (``Retry-After``, which then holds for all questions). What gets no answer in the end is None
    and is counted; nothing is raised for it, so that a training goes on, and the next call asks
    anew. If the endpoint is gone, the rest of a call is not asked at all; if it wants a long pause,
    nothing is asked till then, or for an hour, by later calls neither (a pickled copy begins anew).

    Three things are errors, because they cannot pass: nobody answers at the first contact, the
    model is not there, the key is missing or wrong. They are raised only as long as no answer ever
    came; a judge that was pickled remembers whether one did.

    The key is read from the environment by whoever asks. The judge knows the variable's name only:
    the key is in no pickle, no message, no name and no answer (where a server repeats it, one of
    fewer than 8 characters is let through: dummy keys such as "no" are part of many words).

    Args:
        url: up to and including ``/v1``, which is added if there is no path.
        model: its name; None asks the endpoint, at once, for the only one that it lists.
        sampling: instead of :data:`SAMPLING`; anything that the endpoint understands.
        patience: how many at once, how often, how long.
        key_variable: the environment variable with the key; None sends none.

    Raises:
        ValueError: the URL is none, or has a key in it; or, without a model's name, as
            :meth:`check`.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        sampling: Mapping[str, Any] = SAMPLING,
        patience: Patience = Patience(),
        key_variable: str | None = "OPENAI_API_KEY",
    ) -> None:
        self.url, self.model = checked_url(url), model
        self.sampling, self.patience = dict(sampling), patience
        self.key_variable = key_variable
        self._reached = self._worked = False
        self._begin()
        if model is None:
            self.check()

    def _begin(self) -> None:
        self._counts = dict.fromkeys(("requests", "retries", "given_up", *FAULTS), 0)
        self._warned: set[str] = set()
        self._background: Background | None = None
        self._client: Any = None
        self._finalizer: Any = None
        self._pause_until = self._unwelcome_until = 0.0
        """The endpoint wishes to be left alone until then (of the monotonic clock): for so short a
        time that it is waited for, or for so long that nothing is asked."""

    @property
    def name(self) -> str:
        """Model and sampling."""
        return f"{self.model} {json.dumps(self.sampling, sort_keys=True)}"

    @property
    def counts(self) -> dict[str, int]:
        """Numbers for a log.

        requests (attempts included), retries, given_up (prompts without an answer in the end), and
        how often each of :data:`FAULTS` came.
        """
        return dict(self._counts)

    def check(self) -> None:
        """Make sure that the endpoint is there, takes the key and has the model.

        Raises:
            ValueError: it is not, does not or has not.
        """
        self._connect()
        assert self._background is not None
        try:
            self._background.start(self._check()).result()
        except ValueError:
            self.close()  # the key is read again the next time
            raise

    def answers(self, prompts: Sequence[str]) -> list[str | None]:
        """The answers, in the order of the prompts; None where none came.

        Raises:
            ValueError: the endpoint never answered, and never will.
        """
        answers: list[str | None] = [None] * len(prompts)
        for number, answer in self.stream(prompts):
            answers[number] = answer
        return answers

    def stream(self, prompts: Sequence[str]) -> Iterator[tuple[int, str | None]]:
        """Every prompt's number and answer, in the order in which they come.

        Raises:
            ValueError: as :meth:`answers`.
        """
        if not prompts:
            return
        if not self._reached:
            self.check()
        self._connect()
        assert self._background is not None
        batch = _Batch(iter(enumerate(prompts)))
        asking = self._background.start(self._ask_all(batch, len(prompts)))
        asking.add_done_callback(lambda _: batch.came.put(None))
        try:
            while (some := batch.came.get()) is not None:
                yield from some
        finally:
            asking.cancel()
        asking.result()
        if batch.error is not None:
            self.close()
            raise batch.error

    def close(self) -> None:
        """Hang up; the next question connects anew."""
        if self._finalizer is not None:
            self._finalizer()
        self._background = self._client = self._finalizer = None

    def __repr__(self) -> str:
        """What was asked for; the key's variable only by name."""
        return (
            f"EndpointJudge({self.url!r}, {self.model!r}, sampling={self.sampling},"
            f" patience={self.patience}, key_variable={self.key_variable!r})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """The settings, and whether the endpoint is known to work."""
        mine = ("url", "model", "sampling", "patience", "key_variable", "_reached", "_worked")
        return {name: getattr(self, name) for name in mine}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin anew with these settings."""
        self.__dict__.update(state)
        self._begin()

    # -- in the background ---------------------------------------------------------------------

    def _connect(self) -> None:
        """Have an event loop with a client in this process."""
        if self._background is not None and self._background.alive:
            return
        try:
            from prefgym.judges.client import Client
        except ImportError as missing:
            raise ImportError(
                'Asking an endpoint needs openai; pip install "prefgym[llm]".'
            ) from missing
        if self._finalizer is not None:
            self._finalizer.detach()  # of the process that this one was forked from
        key = key_of(self.key_variable)
        self._client = Client(self.url, key, self.patience.timeout_s)
        self._background = Background()
        self._finalizer = weakref.finalize(self, self._background.stop, self._client.close)

    async def _check(self) -> None:
        for attempt in range(self.patience.attempts):
            if attempt > 0:
                await asyncio.sleep(self.patience.pause_s("", attempt - 1))
            listed = await self._client.models()
            if isinstance(listed, list) or listed.fault not in _PASSING:
                break
        if not isinstance(listed, list):
            if listed.fault not in _SPEAKS:
                raise hopeless(self, listed.fault, listed.words)
            listed = []  # it speaks, but does not list its models
        self.model = only_model(self.url, self.model, listed)
        self._reached = True

    async def _ask_all(self, batch: _Batch, prompts: int) -> None:
        at_once = min(self.patience.concurrency, prompts)
        try:
            await asyncio.gather(*(self._ask_some(batch) for _ in range(at_once)))
        finally:
            batch.hand_over()

    async def _ask_some(self, batch: _Batch) -> None:
        for number, prompt in batch.waiting:
            if batch.error is not None:
                return
            answer = await self._insist(prompt, batch)
            self._counts["given_up"] += answer is None
            batch.tell(number, answer)

    async def _insist(self, prompt: str, batch: _Batch) -> str | None:
        """Ask until an answer comes, or is not to be hoped for."""
        begun = batch.answered
        for attempt in range(self.patience.attempts):
            while (left := self._pause_until - time.monotonic()) > 0.0:
                await asyncio.sleep(left)
            if batch.closed or batch.error or time.monotonic() < self._unwelcome_until:
                return None
            self._counts["requests"] += 1
            self._counts["retries"] += attempt > 0
            reply = await self._client.ask(prompt, {"model": self.model, **self.sampling})
            if reply.answer is not None:
                batch.answered += 1
                self._worked = True
                return str(reply.answer)
            self._counts[reply.fault] += 1
            if reply.fault not in _PASSING:
                self._complain(reply, batch)
                return None
            await self._wait(prompt, attempt, min(reply.wait_s or 0.0, _LONGEST_S))
        batch.closed |= reply.fault == "unreachable" and batch.answered == begun
        return None

    async def _wait(self, prompt: str, attempt: int, wished_s: float) -> None:
        """Heed what the endpoint wishes, in all questions, and wait if this one is asked again."""
        until = time.monotonic() + wished_s
        if wished_s > self.patience.longest_wait_s:
            self._unwelcome_until = max(self._unwelcome_until, until)
            self._warn(
                "unwelcome",
                f"{self.url} wishes not to be asked for {wished_s:g} s; till then there are no"
                " answers.",
            )
            return
        self._pause_until = max(self._pause_until, until)
        if attempt + 1 < self.patience.attempts:
            await asyncio.sleep(self.patience.pause_s(prompt, attempt))

    def _complain(self, reply: Any, batch: _Batch) -> None:
        """Say once what is wrong; as an error where nothing ever was right."""
        if reply.fault in ("unauthorised", "unknown_model") and not self._worked:
            batch.error = hopeless(self, reply.fault, reply.words)
        else:
            self._warn(reply.fault, complaint(self, reply.fault, reply.words))

    def _warn(self, what: str, words: str) -> None:
        """Say something once."""
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(words, stacklevel=2)
