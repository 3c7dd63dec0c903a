"""Labels of captions: what is asked, what comes back, and the file that answers are kept in.

The file is the only place where a label is: one line of JSON each, appended by one process and
brought to the disk before anybody hears of it. A database would do no better with one writer, and
plain lines can be read while they are written, also by people. What a killed writer leaves is at
most one line without an end, which no reader takes, and which the next writer cuts off.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from prefgym.checkpoints import write_json
from prefgym.names import lookup

Question = tuple[str, ...]
"""One caption (is it helpful?) or two (which is the better one?)."""
Labelled = tuple[Question, float]

KINDS = {"helpful": 1, "ranking": 2}
"""Captions in a question of each kind."""

FORMAT = 1
FILE, ABOUT = "labels.jsonl", "about.json"


class CaptionLabels(NamedTuple):
    """Captions that were judged one by one."""

    captions: list[str]
    label: Float[np.ndarray, " labels"]
    """Whether each is helpful, in [0, 1]."""


class PairLabels(NamedTuple):
    """Captions that were compared."""

    first: list[str]
    second: list[str]
    label: Float[np.ndarray, " labels"]
    """P(first preferred); a tie is ½."""


Labels = CaptionLabels | PairLabels


def captions_in_question(kind: str) -> int:
    """How many captions a question of this kind has.

    Raises:
        ValueError: there is no such kind.
    """
    return lookup(kind, KINDS, "kind of question about captions")


def as_labels(kind: str, labelled: Sequence[Labelled]) -> Labels:
    """The same labels as columns."""
    label = np.array([label for _, label in labelled], np.float64)
    first = [question[0] for question, _ in labelled]
    if kind == "helpful":
        return CaptionLabels(first, label)
    return PairLabels(first, [question[1] for question, _ in labelled], label)


def claim_folder(folder: Path, kind: str, about: str) -> None:
    """Note in a folder what its labels are about, or check it against what stands there.

    Raises:
        ValueError: its labels answer another question.
    """
    wanted = {"format": FORMAT, "kind": kind, "about": about}
    try:
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_json(folder / ABOUT, wanted)
        return
    except ValueError as error:
        raise ValueError(f"{folder / ABOUT} is damaged ({error}); choose another folder.") from None
    if found != wanted:
        raise ValueError(
            f"{folder} holds labels of {found}, and wanted are {wanted}; choose another folder, or "
            "ask what was asked there."
        )


class LabelReader:
    """Reads what is new in a file of labels, as often as one likes, while another writes it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._path, self._captions = folder / FILE, captions_in_question(kind)
        self._read_to = 0
        self.damaged = 0
        """Lines that are no labels."""

    def read(self, until: int | None = None) -> list[Labelled]:
        """The whole lines since the last call; none while the file is not to be read.

        Args:
            until: of the file's bytes; None: to its end, for when nobody writes.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                new = file.read(-1 if until is None else max(0, until - self._read_to))
        except OSError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._read_to += len(whole)
        labelled = [self._labelled(line) for line in whole.splitlines()]
        self.damaged += labelled.count(None)
        return [one for one in labelled if one is not None]

    def _labelled(self, line: bytes) -> Labelled | None:
        try:
            found = json.loads(line)
            question, label = tuple(found["captions"]), float(found["label"])
        except (ValueError, TypeError, KeyError):
            return None
        fits = len(question) == self._captions and all(isinstance(one, str) for one in question)
        return (question, label) if fits and 0.0 <= label <= 1.0 else None


class LabelWriter:
    """Appends to a file of labels; the caller sees to it that there is one."""

    def __init__(self, folder: Path) -> None:
        # Unbuffered: what could not be written must not turn up later.
        self._file = (folder / FILE).open("ab+", buffering=0)
        self._file.seek(0)
        self._cut(self._file.read().rfind(b"\n") + 1)

    def append(self, labelled: Sequence[Labelled]) -> int:
        """Write labels; all of them are on the disk when this returns.

        Until then nobody should read them: where writing fails they are cut off again.

        Returns:
            The bytes of the file.

        Raises:
            OSError: they cannot be written, and none of them was.
        """
        if not labelled:
            return self._file.seek(0, os.SEEK_END)
        lines = [json.dumps({"captions": question, "label": label}) for question, label in labelled]
        end = self._file.seek(0, os.SEEK_END)
        left = memoryview("".join(f"{line}\n" for line in lines).encode())
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):
                self._cut(end)
            raise
        return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _cut(self, end: int) -> None:
        """End the file there."""
        if end < self._file.seek(0, os.SEEK_END):
            self._file.truncate(end)
