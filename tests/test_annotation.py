"""The annotator: what is asked, in which order, how often, and what survives which death."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefgym import checkpoints
from prefgym.annotation import Annotator, CaptionLabels, Inline, PairLabels
from prefgym.annotation.asking import ask, told
from prefgym.annotation.backlog import Backlog
from prefgym.annotation.labels import FILE, LabelReader, LabelWriter
from tests.annotation_raters import Fake, Streaming, dead, fake, streaming


def until(true: Callable[[], bool], most_s: float = 20.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def labelled(annotator: Annotator | Inline) -> dict[str, float]:
    got = annotator.labels()
    assert isinstance(got, CaptionLabels)
    return dict(zip(got.captions, got.label.tolist(), strict=True))


# --- the backlog ------------------------------------------------------------------------------


def one(*captions: str) -> list[tuple[str, ...]]:
    return [(caption,) for caption in captions]


def test_the_newest_come_first_and_each_once() -> None:
    backlog = Backlog(10)
    backlog.add(one("a", "b", "", "c", "b"))
    assert backlog.take(2, 0.0) == one("b", "c")
    backlog.add(one("c", "d"))  # c is being asked
    assert backlog.take(9, 0.0) == one("d", "a")
    backlog.answered(one("a", "b", "c", "d"))
    backlog.add(one("a", "d", "e"))
    assert backlog.take(9, 0.0) == one("e")
    assert backlog.asked == 5


def test_a_pair_is_its_mirror_image_and_tells_nothing_of_one_caption() -> None:
    backlog = Backlog(10)
    backlog.add([("b", "a"), ("a", "b"), ("a", "a"), ("", "a")])
    assert backlog.take(9, 0.0) == [("b", "a")]


@given(
    offers=st.lists(st.sampled_from("abcdefgh"), max_size=40),
    capacity=st.integers(1, 5),
    most=st.integers(1, 5),
)
def test_a_bounded_backlog_keeps_the_newest(offers: list[str], capacity: int, most: int) -> None:
    backlog = Backlog(capacity)
    backlog.add(one(*offers))
    newest = list(dict.fromkeys(reversed(offers)))
    assert backlog.take(most, 0.0) == one(*newest[:capacity][:most])
    assert len(backlog) == min(capacity, len(newest))
    assert backlog.dropped >= max(0, len(newest) - capacity)


def test_what_is_given_back_waits_at_its_old_place() -> None:
    backlog = Backlog(10)
    backlog.add(one("a", "b", "c"))
    assert backlog.take(2, 0.0) == one("c", "b")
    backlog.add(one("d"))
    backlog.give_back()
    assert backlog.take(9, 0.0) == one("d", "c", "b", "a")


def test_a_question_without_an_answer_is_asked_ever_more_rarely() -> None:
    backlog, asked_at = Backlog(10), []
    backlog.add(one("a"))
    for now in np.arange(64.0).tolist():
        if backlog.take(1, now):
            asked_at.append(now)
            backlog.postpone(now, 1.0)
    assert asked_at == [0, 1, 3, 7, 15, 31, 63]
    assert backlog.next_due(64.0) == 127.0 - 64.0


def test_a_backlog_goes_on_from_its_state() -> None:
    backlog, other = Backlog(10), Backlog(10)
    backlog.add(one("a", "b", "c"))
    backlog.take(1, 5.0)
    backlog.postpone(5.0, 2.0)
    other.answered(one("a"))
    other.set_state(json.loads(json.dumps(backlog.get_state(5.0))), 100.0)
    assert other.take(9, 101.9) == one("b")
    assert other.next_due(101.5) == pytest.approx(0.5)
    assert other.take(9, 102.0) == one("c")


# --- asking and keeping -----------------------------------------------------------------------


def test_a_judge_that_is_gone_is_told_from_one_that_says_nothing() -> None:
    rater = Fake()
    assert ask(rater, "helpful", one("key", "wall")).labelled == [(("key",), 1.0), (("wall",), 0.0)]
    assert ask(rater, "helpful", one("?")) == ([], False, None)
    rater.helpful = lambda captions: np.full(len(captions), np.nan)  # type: ignore[method-assign]
    assert ask(rater, "helpful", one("key")) == ([], True, "no answer came")
    rater.helpful = lambda captions: np.full(len(captions), 2.0)  # type: ignore[method-assign]
    outcome = ask(rater, "helpful", one("key"))
    assert outcome.down
    assert "wanted as many numbers in [0, 1]" in str(outcome.error)


@pytest.mark.parametrize("reason", ["blank", "too_long", "refused", "unfinished"])
def test_a_judge_who_cannot_answer_a_question_is_there(reason: str) -> None:
    rater = Fake()

    def silent(captions: Sequence[str]) -> np.ndarray:
        rater.counts[reason] = rater.counts.get(reason, 0) + len(captions)
        return np.full(len(captions), np.nan)

    rater.helpful = silent  # type: ignore[method-assign]
    assert ask(rater, "helpful", one("key")) == ([], False, None)
    inline = Inline(rater)
    for _ in range(64):
        inline.offer(["key"])
    assert inline.counts()["failures"] == 0
    assert inline.counts()["asked"] == 7  # ever more rarely


def test_what_came_before_a_judge_failed_is_kept() -> None:
    class Failing(Streaming):
        def helpful(self, captions: Sequence[str]) -> np.ndarray:
            if captions == ["wall"]:
                raise ConnectionError("gone")
            return super().helpful(captions)

    heard: list[Any] = []
    outcome = ask(Failing(), "helpful", one("key", "wall", "torch"), heard.extend)
    assert outcome == ([(("key",), 1.0)], False, "ConnectionError: gone")
    assert heard == outcome.labelled
    rater = Streaming()
    rater.helpful = lambda captions: np.array([2.0])  # type: ignore[method-assign]
    assert "wanted a number in [0, 1]" in str(ask(rater, "helpful", one("key")).error)


def test_no_secret_of_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-12345678")
    assert told(ValueError("bad key sk-12345678\nand more")) == "ValueError: bad key *** and more"


def test_the_file_of_labels_survives_a_half_written_line(tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        file.write(b'{"captions": ["a key"], "label": 1.0}\nno label\n{"captions": ["a w')
    reader = LabelReader(tmp_path, "helpful")
    assert reader.read() == [(("a key",), 1.0)]
    assert reader.damaged == 1
    writer = LabelWriter(tmp_path)
    writer.append([(("a ‘wall’\n\udc80",), 0.0)])
    writer.close()
    assert reader.read() == [(("a ‘wall’\n\udc80",), 0.0)]
    assert len(LabelReader(tmp_path, "helpful").read()) == 2
    assert LabelReader(tmp_path, "ranking").read() == []


def test_labels_are_heard_of_when_they_are_on_the_disk(tmp_path: Path) -> None:
    writer, reader = LabelWriter(tmp_path), LabelReader(tmp_path, "helpful")
    end = writer.append([(("key",), 1.0)])
    writer.append([(("door",), 1.0)])
    writer.close()
    assert reader.read(0) == []
    assert reader.read(end) == [(("key",), 1.0)]  # the other one may still be cut off
    assert reader.read(end) == []
    assert reader.read() == [(("door",), 1.0)]


def test_labels_that_cannot_be_written_were_never_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError("No space left on device")

    writer = LabelWriter(tmp_path)
    writer.append([(("a key",), 1.0)])
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            writer.append([(("a wall",), 0.0)])
    writer.append([(("a door",), 1.0)])
    writer.close()
    assert LabelReader(tmp_path, "helpful").read() == [(("a key",), 1.0), (("a door",), 1.0)]


# --- inline -----------------------------------------------------------------------------------


def test_inline_answers_the_newest_at_every_so_many_offers() -> None:
    rater = Fake()
    inline = Inline(rater, batch=2, every=2)
    inline.offer(["a", "b", "key"])
    assert labelled(inline) == {}
    inline.offer(["c", "a"])
    assert rater.calls == [["a", "c"]]
    assert labelled(inline) == {"a": 0.0, "c": 0.0}
    inline.offer([])
    inline.offer(["a"])
    assert labelled(inline) == {"key": 1.0, "b": 0.0}
    assert inline.counts() | {"asked": 4, "labelled": 4, "waiting": 0} == inline.counts()
    with pytest.raises(ValueError, match=r"use offer, or make it with kind='ranking'"):
        inline.offer_pairs([("a", "b")])


def test_inline_labels_pairs() -> None:
    inline = Inline(Fake(), "ranking")
    inline.offer_pairs([("a", "bb"), ("bb", "a"), ("cc", "bb")])
    labels = inline.labels()
    assert isinstance(labels, PairLabels)
    assert [labels.first, labels.second] == [["cc", "a"], ["bb", "bb"]]
    assert labels.label.tolist() == [0.5, 0.0]


def test_inline_goes_on_from_its_state(tmp_path: Path) -> None:
    def run(inline: Inline, offers: list[list[str]]) -> list[dict[str, float]]:
        got = []
        for captions in offers:
            inline.offer(captions)
            got.append(labelled(inline))
        return got

    offers = [[f"{i}?", f"k{i}", f"{i}"] for i in range(8)]
    straight = Inline(Fake(), batch=2, every=2)
    wanted = run(straight, offers)
    first, second = Inline(Fake(), batch=2, every=2), Inline(Fake(), batch=2, every=2)
    begun = run(first, offers[:5])
    checkpoints.save(tmp_path / "state", first.get_state())
    second.set_state(checkpoints.load(tmp_path / "state"))
    assert begun + run(second, offers[5:]) == wanted
    assert second.get_state() == straight.get_state()
    assert second.counts() == straight.counts()


def test_inline_survives_a_judge_that_fails() -> None:
    rater = Fake()
    rater.helpful = lambda captions: np.ones(3)  # type: ignore[method-assign]
    inline = Inline(rater)
    with pytest.warns(RuntimeWarning, match=r"judge fails \(ValueError: the rater gave"):
        inline.offer(["key"])
    del rater.helpful
    inline.offer([])
    assert labelled(inline) == {"key": 1.0}
    assert inline.counts()["failures"] == 1


# --- the process ------------------------------------------------------------------------------


def test_the_process_survives_its_judge_and_its_own_death(tmp_path: Path) -> None:
    notes, folder = tmp_path / "notes", tmp_path / "labels"
    make = partial(fake, notes)
    with Annotator(folder, make, batch=2, about="keys", retry_s=0.05) as annotator:
        annotator.offer(["wall", "torch", "?", "key", ""])
        got: dict[str, float] = {}
        until(lambda: got.update(labelled(annotator)) or len(got) == 3)
        assert got == {"wall": 0.0, "torch": 0.0, "key": 1.0}  # the process has not loaded torch
        asked = notes.read_text().splitlines()
        assert asked[:2] == ["key", "?"]
        until(lambda: notes.read_text().splitlines().count("?") > 1)  # asked again, never lost
        assert annotator.counts()["unparsable"] >= 1

        (tmp_path / "down").touch()
        annotator.offer(["a", "b", "c"])
        with pytest.warns(RuntimeWarning, match=r"judge fails \(ConnectionError"):
            until(lambda: annotator.offer([]) or annotator.counts()["failures"] > 1)
        assert annotator.counts()["waiting"] == 4

        assert annotator.pid is not None
        os.kill(annotator.pid, signal.SIGKILL)
        annotator._process.join()
        (tmp_path / "down").unlink()
        got = {}
        until(lambda: got.update(labelled(annotator)) or len(got) == 3)
        assert got.keys() == {"a", "b", "c"}
        counts = annotator.counts()
        assert (counts["restarts"], counts["labelled"], counts["waiting"]) == (1, 6, 1)
        with pytest.raises(ValueError, match="is being written to by process"):
            Annotator(folder, make)
        state = annotator.get_state()
    assert annotator.pid is None
    with pytest.raises(ValueError, match=r"holds labels of .*; choose another folder"):
        Annotator(folder, make, about="doors")

    lines = (folder / FILE).read_text().splitlines()
    (folder / FILE).write_text("\n".join([*lines, '{"captions": ["ha']))
    begun = notes.read_text().splitlines()
    with Annotator(folder, make, batch=2, about="keys") as again:
        again.offer(["key", "a", "new"])
        got = {}
        until(lambda: got.update(labelled(again)) or len(got) == 7)
        assert notes.read_text().splitlines()[len(begun) :][0] == "new"
        again.set_state(json.loads(json.dumps(state)))
        assert labelled(again) == {"new": 0.0}
        assert again.counts()["restarts"] == 1
    known = {"key", "wall", "torch", "a", "b", "c", "new"}
    asked = [one for one in notes.read_text().splitlines() if one in known - {"a", "b", "c"}]
    assert sorted(asked) == sorted(known - {"a", "b", "c"})


SCRIPT = """
import sys, time
from functools import partial
from pathlib import Path
from prefgym.annotation import Annotator
from tests.annotation_raters import fake
annotator = Annotator(sys.argv[1], partial(fake, Path(sys.argv[1]) / "notes", 60.0))
annotator.offer(["key"])
while not (Path(sys.argv[1]) / "notes").exists():
    time.sleep(0.02)
print(annotator.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_labels_are_written_while_others_come_and_a_kill_loses_hardly_any(tmp_path: Path) -> None:
    notes, names = tmp_path / "notes", [f"key {number}" for number in range(8)]
    make = partial(streaming, notes, 0.15)
    (tmp_path / "wait").touch()
    with Annotator(tmp_path / "labels", make, batch=50) as annotator:
        annotator.offer(names)
        got: dict[str, float] = {}
        until(lambda: got.update(labelled(annotator)) or len(got) > 0)
        assert annotator.counts()["waiting"] > 0  # the call goes on
        assert annotator.pid is not None
        os.kill(annotator.pid, signal.SIGKILL)
        annotator._process.join()
        (tmp_path / "wait").unlink()
        before = dict(got)
        until(lambda: got.update(labelled(annotator)) or len(got) == 8)
    asked = notes.read_text().splitlines()
    assert {asked.count(one) for one in before} == {1}
    assert len(asked) <= 8 + 4 - len(before)  # of the four that were answered


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_process_ends_with_its_parent_and_leaves_interrupts_to_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)  # without a guard: the new process must not run it again
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    child = int(parent.stdout.readline())
    os.kill(child, signal.SIGINT)  # as Ctrl-C does to all of a terminal
    time.sleep(0.1)
    assert alive(child)
    parent.kill()
    parent.wait()
    until(lambda: not alive(child))
    assert "Traceback" not in parent.stderr.read()
    parent.stdout.close()
    parent.stderr.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")  # one whom nobody has waited for yet is no more
    return not state.exists() or state.read_text().rpartition(") ")[2][0] != "Z"


def test_a_process_that_cannot_live_is_not_started_for_ever(tmp_path: Path) -> None:
    annotator = Annotator(tmp_path, dead)
    annotator.offer(["key"])
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            annotator.offer([])
    assert annotator.counts()["restarts"] <= 2
    assert annotator.counts()["waiting"] == 1
    annotator.close()
    with pytest.raises(ValueError, match="it is closed"):
        annotator.offer(["key"])


def test_who_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="make_rater cannot be sent to another process"):
        Annotator(tmp_path, lambda: Fake())
    with pytest.raises(ValueError, match=r"Unknown kind of question about captions 'x'"):
        Annotator(tmp_path, dead, kind="x")
