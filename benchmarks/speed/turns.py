"""Programs that take turns: one works while the other waits, batch by batch.

A change of the machine's speed meets both, so that the ratio of neighbouring turns stands where
times do not. A program is given one JSON object as its last word; then it answers every line that
comes in with one line, a JSON object; and when no more lines come, with a last one.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

from benchmarks.provenance import ROOT


class Side:
    """One program. Use as a context; leaving it ends the program.

    Args:
        command: how it is started.
        work: what it is told.
    """

    def __init__(self, command: Sequence[str], work: Mapping[str, Any]) -> None:
        self.complaints: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*command, json.dumps(work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
            cwd=ROOT,
        )

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.complaints.close()

    def turn(self) -> dict[str, float]:
        """Let it work on one batch.

        Raises:
            RuntimeError: it ended instead; the message ends with what it said.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer, which does not come, says why
        return self._answer()

    def end(self) -> dict[str, float]:
        """Tell it that no more turns come.

        Raises:
            RuntimeError: as :meth:`turn`.
        """
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                try:
                    told: dict[str, float] = json.loads(line)
                except json.JSONDecodeError:
                    continue  # a library printed something of its own
                return told
        self.complaints.seek(0)
        raise RuntimeError(f"{self.process.args!r} ended: {self.complaints.read().strip()[-2000:]}")
