"""Raters for test_annotation.py that another process can import; nothing heavy stands here."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np


class Fake:
    """Says yes to captions that hold a k; prefers the longer one; notes what it was asked."""

    def __init__(self, notes: Path | None = None, delay_s: float = 0.0) -> None:
        self.notes, self.delay_s = notes, delay_s
        self.counts = {"asked": 0, "unparsable": 0}
        self.calls: list[list[str]] = []

    def helpful(self, captions: Sequence[str]) -> np.ndarray:
        self.calls.append(list(captions))
        self.counts["asked"] += len(captions)
        if self.notes is not None:
            with self.notes.open("a") as file:
                file.write("".join(f"{one}\n" for one in captions))
        if self.notes is not None and self.notes.with_name("down").exists():
            raise ConnectionError("the server is gone")
        time.sleep(self.delay_s)
        label = np.array([float("k" in one) for one in captions])
        silent = np.array(["?" in one for one in captions])
        self.counts["unparsable"] += int(silent.sum())
        label[["torch" in one for one in captions]] = float("torch" in sys.modules)
        return np.where(silent, np.nan, label)

    def prefer(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        self.calls.append([f"{a}|{b}" for a, b in zip(first, second, strict=True)])
        gaps = np.array([len(a) - len(b) for a, b in zip(first, second, strict=True)])
        return 0.5 + 0.5 * np.sign(gaps)


class Streaming(Fake):
    """Answers one question after the other; the fifth when there is no file that says wait."""

    def stream(
        self, kind: str, questions: Sequence[tuple[str, ...]]
    ) -> Iterator[tuple[int, float]]:
        for number, (caption,) in enumerate(questions):
            while number == 4 and self.notes is not None and self.notes.with_name("wait").exists():
                time.sleep(0.01)
            yield number, float(self.helpful([caption])[0])


def streaming(notes: Path, delay_s: float = 0.0) -> Streaming:
    """Another one."""
    return Streaming(notes, delay_s)


def fake(notes: Path, delay_s: float = 0.0) -> Fake:
    """What an annotator calls in its process."""
    return Fake(notes, delay_s)


def dead() -> Fake:
    """A process that ends before it answers."""
    os._exit(3)
