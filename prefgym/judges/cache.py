"""Answers kept on disk: what a judge said once, it is never asked again.

Served language models do not repeat themselves, even under a seed (vllm-project/vllm#17524), so
that a run can be repeated exactly only if every answer is kept.

The file is SQLite in its rollback-journal mode. A write-ahead log would let one process read while
another writes, but needs shared memory, which network file systems lack, and leaves two more files
to be copied along. Here reads and writes are short, and a process waits for another's.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from prefgym.judges.judge import CountingJudge, Judge, StreamingJudge
from prefgym.streams import together

_MARK = 0x70726566
"""What the header of our files says (SQLite's application_id)."""
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
)
_BUSY_S = 60.0
"""How long one process waits for another one's write."""
_KEYS = 500
"""Looked up in one statement."""


def key(name: str, prompt: str) -> bytes:
    """What an answer is found by: SHA-256 of the judge's name (model, sampling) and the prompt."""
    # As json.dumps([name, prompt]), which takes longer: a list is put together piece by piece.
    return hashlib.sha256(f"[{json.dumps(name)}, {json.dumps(prompt)}]".encode()).digest()


class AnswerCache:
    """A file of answers. Any number of processes may use one.

    A connection lives as long as a call, so that a cache can be sent to other processes and
    survives a fork.

    Args:
        file: where the answers are; made, with its folder, if it is not there.

    Raises:
        ValueError: the file is there and is something else, or cannot be used.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        with self._open() as connection:
            connection.execute("SELECT count(*) FROM (SELECT 1 FROM answers LIMIT 1)")

    def __len__(self) -> int:
        """How many answers there are."""
        with self._open() as connection:
            (count,) = connection.execute("SELECT count(*) FROM answers").fetchone()
        return int(count)

    def find(self, name: str, prompts: Sequence[str]) -> list[str | None]:
        """The answers that are there, in the order of the prompts."""
        keys = [key(name, prompt) for prompt in prompts]
        with self._open() as connection:
            found = _find(connection, keys)
        return [found.get(one) for one in keys]

    def keep(self, name: str, answers: Mapping[str, str]) -> dict[str, str]:
        """Write answers down, all of them or, if the process is killed meanwhile, none.

        Args:
            name: of the judge.
            answers: by prompt.

        Returns:
            What the file holds for these prompts from now on: where another process was faster, its
            answer, so that whoever repeats the run is told what was used in it.
        """
        keys = {key(name, prompt): prompt for prompt in answers}
        with self._open() as connection, connection:
            connection.executemany(
                "INSERT OR IGNORE INTO answers VALUES (?, ?)",
                [(one, answers[prompt]) for one, prompt in keys.items()],
            )
            return {keys[one]: answer for one, answer in _find(connection, list(keys)).items()}

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=_BUSY_S)) as connection:
                self._check(connection)
                yield connection
        except (sqlite3.DatabaseError, OSError) as error:
            raise ValueError(
                f"The cache of answers {self.file} cannot be used ({error}); if the file is damaged"
                " or is no cache of answers, move it away or name another one, else free the disk."
            ) from None

    def _check(self, connection: sqlite3.Connection) -> None:
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        if mark == _MARK:
            return
        with connection:
            connection.execute("BEGIN IMMEDIATE")  # another process may be making it just now
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            (mark,) = connection.execute("PRAGMA application_id").fetchone()
            if tables and mark != _MARK:
                raise sqlite3.DatabaseError("a database of something else")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {_MARK}")


def _find(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for begin in range(0, len(keys), _KEYS):
        part = keys[begin : begin + _KEYS]
        marks = ",".join("?" * len(part))
        found.update(
            connection.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", part)
        )
    return found


class Cached:
    """A judge that looks an answer up before it asks another judge.

    A prompt without an answer is not kept, and is asked again the next time. Answers of a
    :class:`StreamingJudge` are written down as they come.

    Args:
        judge: who is asked.
        file: of the :class:`AnswerCache`.
    """

    def __init__(self, judge: Judge, file: str | Path) -> None:
        self.judge = judge
        self.cache = AnswerCache(file)
        self._found = 0

    @property
    def name(self) -> str:
        """That of the judge."""
        return self.judge.name

    @property
    def counts(self) -> dict[str, int]:
        """``cached``: answers found in the file; and what the judge counts."""
        asked = self.judge.counts if isinstance(self.judge, CountingJudge) else {}
        return {"cached": self._found, **asked}

    def answers(self, prompts: Sequence[str]) -> list[str | None]:
        """The answers, in the order of the prompts; None where none came."""
        answers: list[str | None] = [None] * len(prompts)
        for number, answer in self.stream(prompts):
            answers[number] = answer
        return answers

    def stream(self, prompts: Sequence[str]) -> Iterator[tuple[int, str | None]]:
        """Every prompt's number and answer: those in the file first, then as they come."""
        numbers: dict[str, list[int]] = {}
        for number, prompt in enumerate(prompts):
            numbers.setdefault(prompt, []).append(number)
        found = self.cache.find(self.name, list(numbers))
        known = {one: said for one, said in zip(numbers, found, strict=True) if said is not None}
        for prompt, answer in known.items():
            self._found += len(numbers[prompt])
            for number in numbers.pop(prompt):
                yield number, answer
        for some in _in_time(self.judge, list(numbers)):
            for prompt, answer in self.cache.keep(self.name, some).items():
                for number in numbers.pop(prompt):
                    yield number, answer
        yield from ((number, None) for left in numbers.values() for number in left)

    def __repr__(self) -> str:
        """The judge and the file."""
        return f"Cached({self.judge!r}, {str(self.cache.file)!r})"

    def __getstate__(self) -> dict[str, object]:
        """All but the count."""
        return {**self.__dict__, "_found": 0}


def _in_time(judge: Judge, prompts: Sequence[str]) -> Iterator[dict[str, str]]:
    """New answers by prompt, those of half a second together; what got none is left out."""
    if isinstance(judge, StreamingJudge):
        for some in together(judge.stream(prompts)):
            yield {prompts[number]: answer for number, answer in some if answer is not None}
    elif prompts:
        answers = zip(prompts, judge.answers(prompts), strict=True)
        yield {prompt: answer for prompt, answer in answers if answer is not None}
