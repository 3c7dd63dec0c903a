"""Preferences on disk: one directory of Parquet files that survives being killed at any moment.

Layout, format version 1::

    _prefgym.json                        format, version, meaning of the labels
    _writer.lock                         held by the one process that may write
    part-00000007-00000007.parquet       what append number 7 wrote
    part-00000000-00000031.parquet       appends 0 to 31, merged

A file (:mod:`prefgym.parquet`) gets its name only when all of it is on the disk: written under a
temporary name, fsync, atomic rename, fsync of the directory. A merged file names what it replaces,
so that a process killed between the rename and the removal of the small files neither loses nor
doubles a row.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from prefgym.locks import WriterLock
from prefgym.parquet import (
    DAMAGE,
    FORMAT,
    VERSION,
    Arrays,
    Part,
    check_version,
    columns_of,
    growing_of,
    layout,
    opened,
    stacked,
    write_table,
)

MERGED_AT_ONCE = 32
"""So many files of one size become one file, so that N appends leave O(log N) files."""

Key = tuple[int, int, int]
"""``query_id``, ``rater_id`` and digest of the pair: what makes a row the same row."""
T = TypeVar("T")

_ABOUT = "_prefgym.json"
_LOCK = "_writer.lock"
_TEMPORARY = ".tmp"
_INDEX = ("query_id", "rater_id", "digest", "label", "weight", "strength")
_RETRIES = 20


class Record(NamedTuple):
    """What the disk knows of a row without its segments."""

    label: float
    weight: float
    strength: float


class PreferenceFiles:
    """The files of one directory: an index in memory, appends that are durable when they return.

    Made by :func:`open_files`, which gives every caller of one process the same object.
    """

    def __init__(self, directory: Path) -> None:
        """Read the index of what is there; see :func:`open_files`."""
        self.directory = directory
        self.meaning = "unknown"
        self.records: dict[Key, Record] = {}
        """Every row on the disk, in its order."""
        self.skipped: list[int] = []
        """Ids of the skipped queries; −1 for one that had no id."""
        self._parts: list[Part] = []
        self._lock: WriterLock | None = None
        self._current = False
        self._busy = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, also one in another process, works on the same directory."""
        return open_files, (self.directory,)

    def create(self, meaning: str) -> None:
        """Make the directory if need be, and become its writer.

        Raises:
            ValueError: another live process writes there, its labels mean something else, or it
                holds Parquet files of somebody else.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _sync(self.directory.parent)
        except OSError as error:
            raise ValueError(
                f"{self.directory} cannot be made ({error}); choose another directory."
            ) from error
        with self._busy:
            self.lock()
            if self.meaning == "unknown" and not self.records:
                self.meaning = meaning
            if meaning not in ("unknown", self.meaning):
                raise ValueError(
                    f"{self.directory} holds labels that mean {self.meaning!r}, not {meaning!r}; "
                    "choose another directory for these."
                )
            about = {"format": FORMAT, "version": VERSION, "meaning": self.meaning}
            if _about(self.directory) != about:
                self._publish(_ABOUT, lambda file: _dump_json(about, file))

    def lock(self) -> None:
        """Become the writer, if this process is not yet, and learn what was written meanwhile.

        Raises:
            ValueError: another live process writes to the directory.
        """
        with self._busy:
            if self._lock is None or not self._lock.held():
                self._lock = WriterLock(self.directory / _LOCK)
                self._current = False
                for leftover in self.directory.glob(f".*{_TEMPORARY}"):
                    leftover.unlink(missing_ok=True)
            if not self._current:
                self._steadily(lambda: None)
                for part in _replaced(_listed(self.directory, self._headers())):
                    part.path.unlink(missing_ok=True)  # their writer died before it did so
                self._current = True

    @property
    def layout(self) -> dict[str, Any]:
        """Columns of the rows here, as :func:`layout` gives them; empty where there are none."""
        filled = [part for part in self._parts if part.rows]
        return filled[-1].header["columns"] if filled else {}

    def append(
        self, arrays: Arrays, growing: Iterable[str], meaning: str, skipped: Sequence[int] = ()
    ) -> None:
        """Write rows and skipped queries; both are on the disk when this returns.

        Args:
            arrays: the columns, ``[rows, ...]`` each, with at least the columns of the index.
            growing: names of columns whose first axis after the rows may differ between appends;
                shorter rows are padded with zeros on reading.
            meaning: what the labels mean.
            skipped: ids of queries that were asked and not answered, −1 where there is no id.

        Raises:
            ValueError: another live process writes to the directory.
        """
        with self._busy:
            self.lock()
            self._current = False  # until the index knows what the disk is about to know
            number = max((part.last for part in self._parts), default=-1) + 1
            part = self._write(number, number, arrays, growing, meaning, skipped)
            self._add(part, arrays)
            self._current = True
            while full := self._full_tail():
                self._merge(full)

    def read(self) -> tuple[dict[str, np.ndarray], str]:
        """All rows, in the order of their appends, and what their labels mean.

        Raises:
            ValueError: a file is damaged, or files do not fit together.
        """
        with self._busy:
            return self._steadily(
                lambda: (stacked([part for part in self._parts if part.rows]), self.meaning)
            )

    def compact(self) -> None:
        """Merge all files into one."""
        with self._busy:
            self.lock()
            if len(self._parts) > 1:
                self._merge(self._parts)

    def close(self) -> None:
        """Let another process write. A later append takes the lock again."""
        with self._busy:
            if self._lock is not None:
                self._lock.release()
            self._lock = None

    def describe(self) -> dict[str, Any]:
        """What an inspector wants to know of the files themselves."""
        with self._busy:
            return self._steadily(
                lambda: {
                    "format_version": VERSION,
                    "files": len(self._parts),
                    "bytes": sum(part.path.stat().st_size for part in self._parts),
                }
            )

    def _headers(self) -> dict[Path, Part]:
        return {part.path: part for part in self._parts}

    def _steadily(self, read: Callable[[], T]) -> T:
        """Bring the index up to date, then read; again if the writer merged files meanwhile."""
        for _ in range(_RETRIES):
            try:
                about = _about(self.directory)
                listed = _listed(self.directory, self._headers())
                replaced = _replaced(listed)
                live = [part for part in listed if part not in replaced]
                if self._parts != live:
                    self._index(live)
                if not self.records:
                    self.meaning = about.get("meaning", "unknown")
                return read()
            except FileNotFoundError:
                continue
        raise ValueError(f"{self.directory} changes faster than it can be read; try again.")

    def _index(self, parts: list[Part]) -> None:
        self._parts, self.records, self.skipped = [], {}, []
        for part in parts:
            self._add(part, columns_of(part, _INDEX))

    def _add(self, part: Part, columns: Arrays) -> None:
        if part.rows:
            ids, raters, digests, *said = (columns[name].tolist() for name in _INDEX)
            keys = zip(ids, raters, digests, strict=True)
            self.records.update(zip(keys, map(Record, *said), strict=True))
            self.meaning = part.header["meaning"]
        self.skipped.extend(part.header["skipped"])
        self._parts.append(part)

    def _full_tail(self) -> list[Part]:
        """The newest files, if so many of one level are among them that they should be merged."""
        levels = [part.level for part in self._parts]
        for level in sorted(set(levels)):
            higher = [at for at, one in enumerate(levels) if one > level]
            tail = slice(higher[-1] + 1 if higher else 0, None)
            if levels[tail].count(level) >= MERGED_AT_ONCE:
                return self._parts[tail]
        return []

    def _merge(self, parts: list[Part]) -> None:
        """Exchange files that follow each other for one; a kill at any point changes no row."""
        filled = [part for part in parts if part.rows]
        arrays = stacked(filled)
        merged = self._write(
            parts[0].first,
            max(part.last for part in parts),
            arrays,
            growing_of(filled[0].header) if filled else (),
            self.meaning,
            [one for part in parts for one in part.header["skipped"]],
            replaces=[part.path.name for part in parts],
            level=max(part.level for part in parts) + 1,
        )
        self._parts = [*self._parts[: self._parts.index(parts[0])], merged]
        for part in parts:
            part.path.unlink(missing_ok=True)

    def _write(
        self,
        first: int,
        last: int,
        arrays: Arrays,
        growing: Iterable[str],
        meaning: str,
        skipped: Sequence[int],
        replaces: Sequence[str] = (),
        level: int = 0,
    ) -> Part:
        rows = len(next(iter(arrays.values()))) if arrays else 0
        kept = arrays if rows else {"query_id": np.zeros(0, np.int64)}
        header = {
            "format": FORMAT,
            "version": VERSION,
            "meaning": meaning,
            "columns": layout(kept, growing),
            "skipped": [int(one) for one in skipped],
            "replaces": list(replaces),
            "level": level,
        }
        path = self._publish(
            f"part-{first:08d}-{last:08d}.parquet",
            lambda file: write_table(kept, meaning, header, file),
        )
        return Part(path, rows, header)

    def _publish(self, name: str, write: Any) -> Path:
        """Put a file under its name only when all of it is on the disk."""
        temporary = self.directory / f".{name}.{os.getpid()}{_TEMPORARY}"
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.directory / name)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise ValueError(
                f"{self.directory / name} could not be written ({error}); everything recorded "
                "before is safe: make room or choose another directory, and append again."
            ) from error
        _sync(self.directory)
        return self.directory / name


_OPEN: WeakValueDictionary[Path, PreferenceFiles] = WeakValueDictionary()


def open_files(directory: Path | str, meaning: str | None = None) -> PreferenceFiles:
    """The files of a directory; two calls of one process share one object.

    Args:
        directory: where.
        meaning: given, the directory is made if need be and locked for writing now; ``None`` reads
            what must be there, and locks at the first append.

    Raises:
        ValueError: nothing there, damage, another version, or another live writer.
    """
    where = Path(directory).expanduser().resolve()
    files = _OPEN.get(where)
    if files is None:
        files = PreferenceFiles(where)
    if meaning is not None:
        files.create(meaning)
    else:
        if not is_ours(where):
            raise ValueError(
                f"{where} holds no preferences (neither {_ABOUT} nor part files); give the folder "
                "that a data set was written to, or make a new one with "
                "PreferenceDataset(directory)."
            )
    _OPEN[where] = files
    return files


def is_ours(directory: Path) -> bool:
    """Whether a data set was written there."""
    return (directory / _ABOUT).exists() or any(directory.glob("part-*.parquet"))


def _sync(directory: Path) -> None:
    """Bring the names in a directory to the disk. Windows does so by itself."""
    if sys.platform != "win32":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _about(directory: Path) -> dict[str, Any]:
    """The small JSON file, empty where there is none; refuses other formats and versions."""
    path = directory / _ABOUT
    if not path.exists():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        about["format"], about["version"], about["meaning"]
    except DAMAGE as error:
        raise ValueError(
            f"{path} is damaged ({error}); remove it: the part files hold all that is needed."
        ) from error
    check_version(path, about)
    return dict(about)


def _listed(directory: Path, known: Mapping[Path, Part]) -> list[Part]:
    """Every Parquet file of the directory, by number; headers already read are not read again."""
    paths = sorted(path for path in directory.glob("*.parquet") if not path.name.startswith("."))
    return sorted((known.get(path) or opened(path) for path in paths), key=lambda part: part.path)


def _replaced(parts: Sequence[Part]) -> list[Part]:
    """Parts whose rows a merged part already holds."""
    names = {name for part in parts for name in part.header["replaces"]}
    return [part for part in parts if part.path.name in names]


def _dump_json(content: Mapping[str, Any], file: IO[bytes]) -> None:
    file.write((json.dumps(content, indent=2) + "\n").encode())
