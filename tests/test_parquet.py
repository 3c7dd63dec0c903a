"""Preferences on disk: killed writers, damage, versions, locks, and files that others can read."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefgym import parquet, preference_files
from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.segments import Segments


def comparisons(first: int, batch: int, steps: int = 3) -> Comparisons:
    """Comparisons whose every number follows from their query ids."""
    ids = np.arange(first, first + batch)

    def side(shift: float) -> Segments:
        wide = (ids[:, None] + shift + np.arange(steps)).astype(np.float64)
        return Segments(
            actions=wide.astype(np.int64),
            mask=np.ones((batch, steps), bool),
            context=wide[:, :1].astype(np.float32),
            context_id=ids,
            observations=wide[..., None].astype(np.float32),
            rewards=wide,
            factors={"a.b": wide},
            episode=ids,
            start=ids,
        )

    return Comparisons(
        side(0.0), side(1000.0), label=(ids % 3) / 2, query_id=ids, meaning="partial-return"
    )


def assert_holds(dataset: PreferenceDataset, count: int) -> None:
    """Assert that the rows are 0 … count − 1, each once, in order, and right to the last number."""
    found, wanted = dataset.comparisons, comparisons(0, count)
    np.testing.assert_array_equal(found.query_id, wanted.query_id)
    np.testing.assert_array_equal(found.label, wanted.label)
    for one, other in ((found.a, wanted.a), (found.b, wanted.b)):
        for name, array in other.arrays().items():
            np.testing.assert_array_equal(one.arrays()[name], array)


def parts(directory: Path) -> list[Path]:
    return sorted(directory.glob("part-*.parquet"))


# What the files are.


def test_others_can_read_the_files(tmp_path: Path) -> None:
    dataset = PreferenceDataset(tmp_path)
    dataset.append(comparisons(0, 4))
    dataset.append(comparisons(4, 3), skipped=np.array([99]))
    table = pyarrow.dataset.dataset(tmp_path).to_table()
    assert table.num_rows == 7
    assert table["label"].to_pylist() == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0, 0.0]
    assert set(table["meaning"].to_pylist()) == {"partial-return"}
    assert table["length_a"].to_pylist() == [3] * 7
    for name in ("query_id", "rater_id", "weight", "strength", "episode_a", "start_b"):
        assert name in table.column_names
    assert table.schema.field("a_observations").type == pa.list_(pa.float32(), 3)
    assert table.schema.field("b_factors/a.b").type == pa.list_(pa.float64(), 3)
    header = json.loads(pq.read_schema(parts(tmp_path)[1]).metadata[b"prefgym"])
    assert (header["format"], header["version"]) == (parquet.FORMAT, parquet.VERSION)
    assert header["columns"]["a_observations"] == {
        "dtype": "float32",
        "shape": [3, 1],
        "grows": True,
    }
    assert header["skipped"] == [99]


@settings(max_examples=25)
@given(
    kind=st.sampled_from([np.uint8, np.int16, np.int64, np.float32, np.float64, np.bool_]),
    shape=st.lists(st.integers(0, 3), min_size=0, max_size=3),
    steps=st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_arrays_of_every_kind_and_shape_come_back(
    tmp_path_factory: pytest.TempPathFactory, kind: type, shape: list[int], steps: list[int]
) -> None:
    directory = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(0)
    batches = []
    for number, length in enumerate(steps):
        values = rng.integers(0, 2, (2, length, *shape)).astype(kind)
        one = Segments(
            actions=np.zeros((2, length), np.int64),
            mask=np.ones((2, length), bool),
            context=values[:, 0],
            context_id=np.arange(2),
            observations=values,
        )
        batches.append(Comparisons(one, one, np.ones(2), query_id=np.arange(2) + 2 * number))
    dataset = PreferenceDataset(directory)
    for batch in batches:
        dataset.append(batch)
    wanted = Comparisons.concatenate(batches).a.arrays()
    for name, array in PreferenceDataset.open(directory).comparisons.a.arrays().items():
        np.testing.assert_array_equal(array, wanted[name])
        assert array.dtype == wanted[name].dtype
        assert array.flags.writeable


def test_shorter_segments_are_padded_on_reading(tmp_path: Path) -> None:
    dataset = PreferenceDataset(tmp_path)
    dataset.append(comparisons(0, 2, steps=2))
    dataset.append(comparisons(2, 2, steps=5))
    read = PreferenceDataset.open(tmp_path).comparisons
    assert read.a.lengths.tolist() == [2, 2, 5, 5]
    assert not read.a.observations[:2, 2:].any()
    dataset.compact()
    again = PreferenceDataset.open(tmp_path).comparisons
    np.testing.assert_array_equal(again.a.observations, read.a.observations)
    np.testing.assert_array_equal(again.a.mask, read.a.mask)
    dataset.append(comparisons(0, 2, steps=2))  # padding does not make another pair of it
    assert len(dataset) == 4


def test_many_appends_leave_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preference_files, "MERGED_AT_ONCE", 4)
    dataset = PreferenceDataset(tmp_path)
    for number in range(40):
        dataset.append(comparisons(number, 1), skipped=1)
        assert len(parts(tmp_path)) <= 3 * 4
    assert_holds(dataset, 40)
    reopened = PreferenceDataset.open(tmp_path)
    assert_holds(reopened, 40)
    assert reopened.skipped == 40
    dataset.compact()
    assert len(parts(tmp_path)) == 1
    assert_holds(PreferenceDataset.open(tmp_path), 40)


def test_files_that_a_kill_left_unmerged_are_merged_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = PreferenceDataset(tmp_path)
    for number in range(7):
        monkeypatch.setattr(preference_files, "MERGED_AT_ONCE", 3 if number == 6 else 100)
        dataset.append(comparisons(number, 1))
    assert len(parts(tmp_path)) == 1
    assert_holds(PreferenceDataset.open(tmp_path), 7)


def test_ten_thousand_segments_are_written_in_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(10_000, 50, 14)).astype(np.float32)
    one = Segments(
        actions=observations[..., :3],
        mask=np.ones((10_000, 50), bool),
        context=observations[:, 0],
        context_id=np.arange(10_000),
        observations=observations,
    )
    began = time.perf_counter()
    PreferenceDataset(tmp_path).append(Comparisons(one, one, np.ones(10_000)))
    read = PreferenceDataset.open(tmp_path).comparisons
    assert time.perf_counter() - began < 20.0  # about one second on an idle core
    np.testing.assert_array_equal(read.b.observations, observations)


# A writer that is killed.

WRITER = """
import sys
sys.path.insert(0, {tests!r})
import test_parquet
from prefgym import parquet, preference_files
from prefgym.comparisons import PreferenceDataset

preference_files.MERGED_AT_ONCE = 3
dataset = PreferenceDataset({directory!r})
while True:
    count = len(dataset)
    dataset.append(test_parquet.comparisons(count, 2), skipped=1)
    print(len(dataset), dataset.skipped, flush=True)
"""


def started(code: str, directory: Path) -> "subprocess.Popen[str]":
    """Start a Python process on the directory."""
    paths = [str(Path(parquet.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            code.format(tests=str(Path(__file__).parent), directory=str(directory)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )


@contextmanager
def writing(directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """Give a process that has begun to append and goes on until it is killed."""
    process = started(WRITER, directory)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_killed_writer_loses_nothing_and_doubles_nothing(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for _ in range(4):
        with writing(tmp_path) as process:
            time.sleep(rng.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
            assert process.stdout is not None
            lines = [line.split() for line in process.stdout.read().splitlines()]
        dataset = PreferenceDataset.open(tmp_path)
        acknowledged = [int(line[0]) for line in lines if len(line) == 2]
        if acknowledged:
            assert acknowledged[-1] <= len(dataset) <= acknowledged[-1] + 2
        assert dataset.skipped == len(dataset) // 2
        assert_holds(dataset, len(dataset))
    dataset.append(comparisons(len(dataset), 2))  # the lock of the dead is free
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("survivors", [0, 1, 2])
def test_a_kill_while_files_are_merged_changes_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    dataset = PreferenceDataset(tmp_path)
    for number in range(3):
        dataset.append(comparisons(number, 1), skipped=1)
    removed: list[Path] = []
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if len(removed) == 3 - survivors:
            raise KeyboardInterrupt
        removed.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        if survivors:
            with pytest.raises(KeyboardInterrupt):
                dataset.compact()
        else:
            dataset.compact()
    assert len(parts(tmp_path)) == 1 + survivors
    for reopened in (dataset, PreferenceDataset.open(tmp_path)):
        assert_holds(reopened, 3)
        assert reopened.skipped == 3
    dataset.close()
    PreferenceDataset(tmp_path).append(comparisons(3, 1))
    assert len(parts(tmp_path)) == 2
    assert_holds(PreferenceDataset.open(tmp_path), 4)


def test_an_interrupt_behind_the_write_does_not_double_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = PreferenceDataset(tmp_path)
    dataset.append(comparisons(0, 2))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preference_files.PreferenceFiles, "_add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dataset.append(comparisons(2, 2), skipped=1)
    dataset.append(comparisons(2, 2), skipped=1)
    reopened = PreferenceDataset.open(tmp_path)
    assert_holds(reopened, 4)
    assert reopened.skipped == 1


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = PreferenceDataset(tmp_path)
    dataset.append(comparisons(0, 2))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ValueError, match=r"No space left.*recorded before is safe"):
            dataset.append(comparisons(2, 2))
    assert len(dataset) == 2
    assert not list(tmp_path.glob(".*"))
    dataset.append(comparisons(2, 2))
    assert_holds(PreferenceDataset.open(tmp_path), 4)


def test_leftovers_of_a_killed_writer_are_ignored_and_removed(tmp_path: Path) -> None:
    PreferenceDataset(tmp_path).append(comparisons(0, 2))
    content = parts(tmp_path)[0].read_bytes()
    leftover = tmp_path / ".part-00000001-00000001.parquet.17.tmp"
    leftover.write_bytes(content[: len(content) // 2])
    assert_holds(PreferenceDataset.open(tmp_path), 2)
    assert leftover.exists()  # a reader removes nothing
    preference_files._OPEN.clear()
    PreferenceDataset(tmp_path).append(comparisons(2, 2))
    assert not leftover.exists()
    assert_holds(PreferenceDataset.open(tmp_path), 4)


# Damage and strangers.


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, Path]:
    """Return a directory of two parts, and the second one."""
    dataset = PreferenceDataset(tmp_path)
    dataset.append(comparisons(0, 2))
    dataset.append(comparisons(2, 2))
    dataset.close()
    return tmp_path, parts(tmp_path)[1]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named_with_what_to_do(
    damaged: tuple[Path, Path], share: float
) -> None:
    directory, part = damaged
    content = part.read_bytes()
    part.write_bytes(content[: int(share * len(content))])
    for attempt in (PreferenceDataset.open, PreferenceDataset):
        with pytest.raises(ValueError, match=rf"{part.name} is damaged .* move it out"):
            attempt(directory)
    part.rename(directory.parent / "elsewhere.parquet")
    dataset = PreferenceDataset(directory)
    assert_holds(dataset, 2)
    dataset.append(comparisons(2, 1))
    assert_holds(PreferenceDataset.open(directory), 3)


def test_flipped_bits_are_noticed(damaged: tuple[Path, Path], rng: np.random.Generator) -> None:
    directory, part = damaged
    content = part.read_bytes()
    sentences = []
    for place in rng.integers(4, len(content) - 8, 60):
        part.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        preference_files._OPEN.clear()
        try:
            dataset = PreferenceDataset.open(directory)
        except ValueError as error:
            sentences.append(str(error))
        else:
            assert_holds(dataset, 4)
    assert len(sentences) > 20
    assert all(str(part) in sentence for sentence in sentences)


def test_a_stranger_among_the_files_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "stranger.parquet")
    with pytest.raises(ValueError, match=r"stranger\.parquet is a Parquet file that prefgym did"):
        PreferenceDataset(tmp_path)
    (tmp_path / "stranger.parquet").unlink()
    assert len(PreferenceDataset(tmp_path)) == 0


def _rewritten(part: Path, **changes: Any) -> None:
    table = pq.read_table(part, partitioning=None)
    header = json.loads(table.schema.metadata[b"prefgym"]) | changes
    pq.write_table(table.replace_schema_metadata({b"prefgym": json.dumps(header)}), part)


def test_another_format_version_is_refused(damaged: tuple[Path, Path]) -> None:
    directory, part = damaged
    _rewritten(part, version=parquet.VERSION + 1)
    with pytest.raises(ValueError, match=rf"{part.name} is of format version 2, .* reads version"):
        PreferenceDataset.open(directory)
    _rewritten(part, version=parquet.VERSION)
    assert_holds(PreferenceDataset.open(directory), 4)
    about = directory / "_prefgym.json"
    about.write_text(about.read_text().replace('"version": 1', '"version": 7'))
    with pytest.raises(ValueError, match=r"_prefgym\.json is of format version 7"):
        PreferenceDataset(directory)


def test_parts_that_do_not_fit_together_are_named(damaged: tuple[Path, Path]) -> None:
    directory, part = damaged
    _rewritten(part, meaning="regret")
    with pytest.raises(ValueError, match=r"'regret' and .* 'partial-return'; keep them in two"):
        PreferenceDataset.open(directory)


def test_the_parts_are_enough_without_the_json(damaged: tuple[Path, Path]) -> None:
    directory, _ = damaged
    about = directory / "_prefgym.json"
    about.write_text("{ half")
    with pytest.raises(ValueError, match=r"_prefgym\.json is damaged .* remove it"):
        PreferenceDataset.open(directory)
    about.unlink()
    assert_holds(PreferenceDataset.open(directory), 4)
    assert PreferenceDataset(directory).meaning == "partial-return"
    assert about.exists()


def test_a_directory_keeps_its_meaning(tmp_path: Path) -> None:
    PreferenceDataset(tmp_path / "new", meaning="human").close()
    assert PreferenceDataset.open(tmp_path / "new").meaning == "human"
    with pytest.raises(ValueError, match="holds labels that mean 'human', not 'regret'"):
        PreferenceDataset(tmp_path / "new", meaning="regret")


def test_a_copied_file_counts_once(damaged: tuple[Path, Path]) -> None:
    directory, part = damaged
    (directory / "part-00000009-00000009.parquet").write_bytes(part.read_bytes())
    dataset = PreferenceDataset(directory)
    assert_holds(dataset, 4)
    dataset.append(comparisons(4, 1))
    assert_holds(PreferenceDataset.open(directory), 5)


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no preferences"):
        PreferenceDataset.open(tmp_path)
    with pytest.raises(ValueError, match="holds no preferences"):
        PreferenceDataset.open(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be made"):
        PreferenceDataset(tmp_path / "file")


# One writer at a time.


def test_a_second_live_writer_is_refused_and_may_read(tmp_path: Path) -> None:
    with writing(tmp_path) as process:
        with pytest.raises(ValueError, match=f"is being written to by process {process.pid} on"):
            PreferenceDataset(tmp_path)
        for _ in range(20):  # while the writer appends and merges
            reader = PreferenceDataset.open(tmp_path)
            assert_holds(reader, len(reader))
        with pytest.raises(ValueError, match="is being written to by"):
            reader.append(comparisons(10**6, 1))
    reader.append(comparisons(10**6, 1))
    assert PreferenceDataset.open(tmp_path).comparisons.query_id[-1] == 10**6


FORKS = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_parquet
from prefgym.comparisons import PreferenceDataset

dataset = PreferenceDataset({directory!r})
dataset.append(test_parquet.comparisons(0, 1))
told, tell = os.pipe()
if os.fork():
    os.read(told, 1)  # the child has tried
    os.kill(os.getpid(), signal.SIGKILL)
try:
    dataset.append(test_parquet.comparisons(1, 1))
    print("the child wrote", flush=True)
except ValueError as error:
    print(error, flush=True)
os.write(tell, b".")
sys.stdin.read()  # live on without the parent
"""


@pytest.mark.parametrize("code", [FORKS] if hasattr(os, "fork") else [])
def test_a_forked_child_neither_writes_nor_keeps_the_lock_of_a_dead_parent(
    tmp_path: Path, code: str
) -> None:
    parent = started(code, tmp_path)
    assert parent.stdin is not None
    assert parent.stdout is not None
    try:
        assert f"is being written to by process {parent.pid}" in parent.stdout.readline()
        assert parent.wait() == -signal.SIGKILL
        PreferenceDataset(tmp_path).append(comparisons(1, 1))
    finally:
        parent.stdin.close()
        parent.stdout.close()
    assert_holds(PreferenceDataset.open(tmp_path), 2)


def test_two_data_sets_of_one_process_share_a_directory(tmp_path: Path) -> None:
    first, second = PreferenceDataset(tmp_path), PreferenceDataset(tmp_path)
    first.append(comparisons(0, 2))
    second.append(comparisons(0, 2))
    second.append(comparisons(2, 2))
    assert (len(first), len(second)) == (2, 4)
    assert_holds(PreferenceDataset.open(tmp_path), 4)


def test_a_directory_that_was_removed_begins_anew(tmp_path: Path) -> None:
    place = tmp_path / "run"
    old = PreferenceDataset(place)
    old.append(comparisons(0, 2))
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    new = PreferenceDataset(place)
    assert len(new) == 0
    new.append(comparisons(0, 1))
    assert_holds(PreferenceDataset.open(place), 1)
    assert len(old) == 2


def test_what_another_writer_added_meanwhile_is_not_written_again(tmp_path: Path) -> None:
    mine = PreferenceDataset(tmp_path)
    mine.append(comparisons(0, 2))
    mine.close()
    with writing(tmp_path):
        pass
    mine.append(comparisons(2, 2))
    reopened = PreferenceDataset.open(tmp_path)
    assert_holds(reopened, len(reopened))
