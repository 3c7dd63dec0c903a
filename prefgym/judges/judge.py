"""What every judge is: a name, and answers to prompts."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Judge(Protocol):
    """Whoever answers a prompt in words: a language model, or rules that read the same prompts."""

    @property
    def name(self) -> str:
        """Whose answers these are: model and sampling, and never a secret.

        Equal names stand for equal answers: the cache finds an answer by name and prompt.
        """

    def answers(self, prompts: Sequence[str]) -> list[str | None]:
        """The answers, in the order of the prompts; None where no answer came."""


@runtime_checkable
class StreamingJudge(Protocol):
    """A judge, too, whose answers can be had as they come, so that a kill loses hardly any."""

    def stream(self, prompts: Sequence[str]) -> Iterator[tuple[int, str | None]]:
        """Every prompt's number and answer, once each, in the order in which they come."""


@runtime_checkable
class CountingJudge(Protocol):
    """A judge, too, that counts what went wrong."""

    @property
    def counts(self) -> dict[str, int]:
        """Numbers for a log, which only grow; a copy in another process counts anew."""
