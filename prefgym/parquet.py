"""Preferences on disk: one directory of Parquet files that survives being killed at any moment.

Layout, format version 1::

    _prefgym.json                        format, version, meaning of the labels
    _writer.lock                         held by the one process that may write
    part-00000007-00000007.parquet       what append number 7 wrote
    part-00000000-00000031.parquet       appends 0 to 31, merged

A row is one comparison, an array of a row is a ``FixedSizeList`` (flattened, C order), and the
Arrow schema metadata of every file holds, under ``prefgym``, JSON with the format version, each
column's dtype and shape, the skipped queries and the files that a merged file replaces. pandas and
pyarrow read the files without this module. Nothing is ever pickled.

A file gets its name only when all of it is on the disk (written under a temporary name, fsync,
atomic rename, fsync of the directory). A merged file names what it replaces, so that a process
killed between the rename and the removal of the small files neither loses nor doubles a row.
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
import pyarrow as pa
import pyarrow.parquet as pq

from prefgym.locks import WriterLock

FORMAT = "prefgym-preferences"
VERSION = 1
"""Version of the layout. A reader refuses every other one."""
MERGED_AT_ONCE = 32
"""So many files of one size become one file, so that N appends leave O(log N) files."""

Arrays = Mapping[str, np.ndarray]
"""Columns by name, all with the same first axis, the rows."""
Key = tuple[int, int, int]
"""``query_id``, ``rater_id`` and digest of the pair: what makes a row the same row."""

T = TypeVar("T")

_ABOUT = "_prefgym.json"
_LOCK = "_writer.lock"
_TEMPORARY = ".tmp"
_HEADER = b"prefgym"
_INDEX = ("query_id", "rater_id", "digest", "label", "weight", "strength")
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)


class Record(NamedTuple):
    """What the disk knows of a row without its segments."""

    label: float
    weight: float
    strength: float


class _Part(NamedTuple):
    path: Path
    rows: int
    header: dict[str, Any]

    @property
    def first(self) -> int:
        return int(self.path.stem.split("-")[1])

    @property
    def last(self) -> int:
        return int(self.path.stem.split("-")[2])

    @property
    def level(self) -> int:
        return int(self.header["level"])


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
        self._parts: list[_Part] = []
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
                lambda: (_stacked([part for part in self._parts if part.rows]), self.meaning)
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

    def _headers(self) -> dict[Path, _Part]:
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

    def _index(self, parts: list[_Part]) -> None:
        self._parts, self.records, self.skipped = [], {}, []
        for part in parts:
            self._add(part, _columns(part, _INDEX))

    def _add(self, part: _Part, columns: Arrays) -> None:
        if part.rows:
            ids, raters, digests, *said = (columns[name].tolist() for name in _INDEX)
            keys = zip(ids, raters, digests, strict=True)
            self.records.update(zip(keys, map(Record, *said), strict=True))
            self.meaning = part.header["meaning"]
        self.skipped.extend(part.header["skipped"])
        self._parts.append(part)

    def _full_tail(self) -> list[_Part]:
        """The newest files, if so many of one level are among them that they should be merged."""
        levels = [part.level for part in self._parts]
        for level in sorted(set(levels)):
            higher = [at for at, one in enumerate(levels) if one > level]
            tail = slice(higher[-1] + 1 if higher else 0, None)
            if levels[tail].count(level) >= MERGED_AT_ONCE:
                return self._parts[tail]
        return []

    def _merge(self, parts: list[_Part]) -> None:
        """Exchange files that follow each other for one; a kill at any point changes no row."""
        filled = [part for part in parts if part.rows]
        arrays = _stacked(filled)
        merged = self._write(
            parts[0].first,
            max(part.last for part in parts),
            arrays,
            _growing(filled[0].header) if filled else (),
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
    ) -> _Part:
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
            lambda file: _dump_table(kept, meaning, header, file),
        )
        return _Part(path, rows, header)

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


def layout(arrays: Arrays, growing: Iterable[str]) -> dict[str, Any]:
    """Dtype and shape of a row of each column, and whether its first axis may differ."""
    may_grow = frozenset(growing)
    return {
        name: {
            "dtype": array.dtype.name,
            "shape": list(array.shape[1:]),
            "grows": name in may_grow,
        }
        for name, array in arrays.items()
    }


def difference(new: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """The first columns in which two layouts do not fit, in words; empty where they do."""
    if not new or not known:
        return ""
    extra = sorted((new.keys() ^ known.keys()) - {"digest"})
    if extra:
        return ", ".join(f"{name} ({'new' if name in new else 'missing'})" for name in extra)
    odd = [name for name in known if name in new and _row(new[name]) != _row(known[name])]
    return ", ".join(
        f"{name} ({new[name]['dtype']}{new[name]['shape']}, "
        f"before {known[name]['dtype']}{known[name]['shape']})"
        for name in odd
    )


def _row(column: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be equal between files: all but the length of an axis that grows."""
    shape = list(column["shape"])
    return column["dtype"], shape[1:] if column["grows"] else shape, len(shape)


_RETRIES = 20
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
        if not _about(where) and not any(where.glob("part-*.parquet")):
            raise ValueError(
                f"{where} holds no preferences (neither {_ABOUT} nor part files); give the folder "
                "that a data set was written to, or make a new one with "
                "PreferenceDataset(directory)."
            )
    _OPEN[where] = files
    return files


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
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is damaged ({error}); remove it: the part files hold all that is needed."
        ) from error
    _check_version(path, about)
    return dict(about)


def _check_version(path: Path, header: Mapping[str, Any]) -> None:
    if header["format"] != FORMAT:
        raise ValueError(f"{path} has the format {header['format']!r}, wanted {FORMAT!r}.")
    if header["version"] != VERSION:
        raise ValueError(
            f"{path} is of format version {header['version']}, this prefgym reads version "
            f"{VERSION}; install the prefgym that wrote it."
        )


def _listed(directory: Path, known: Mapping[Path, _Part]) -> list[_Part]:
    """Every Parquet file of the directory, by number; headers already read are not read again."""
    paths = sorted(path for path in directory.glob("*.parquet") if not path.name.startswith("."))
    return sorted((known.get(path) or _opened(path) for path in paths), key=lambda part: part.path)


def _replaced(parts: Sequence[_Part]) -> list[_Part]:
    """Parts whose rows a merged part already holds."""
    names = {name for part in parts for name in part.header["replaces"]}
    return [part for part in parts if part.path.name in names]


def _opened(path: Path) -> _Part:
    try:
        with pq.ParquetFile(path) as file:
            header = (file.schema_arrow.metadata or {}).get(_HEADER)
            rows = file.metadata.num_rows
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    if header is None:
        raise ValueError(
            f"{path} is a Parquet file that prefgym did not write; move it elsewhere, or bring it "
            "in with `prefgym data convert`."
        )
    try:
        part = _Part(path, rows, json.loads(header))
        _ = part.first, part.last, part.header["format"], part.header["version"]
    except (*_DAMAGE, IndexError) as error:
        raise _damaged(path, error) from error
    _check_version(path, part.header)
    return part


def _damaged(path: Path, error: BaseException) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(
        f"{path} is damaged ({reason}); put a backup in its place, or move it out of the directory "
        "to go on without the comparisons in it (the other files are not affected)."
    )


def _growing(header: Mapping[str, Any]) -> list[str]:
    return [name for name, one in header["columns"].items() if one["grows"]]


def _dump_json(content: Mapping[str, Any], file: IO[bytes]) -> None:
    file.write((json.dumps(content, indent=2) + "\n").encode())


def _dump_table(arrays: Arrays, meaning: str, header: Mapping[str, Any], file: IO[bytes]) -> None:
    rows = len(next(iter(arrays.values())))
    columns = {name: _to_arrow(array) for name, array in arrays.items() if _width(array)}
    columns["meaning"] = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(rows, np.int32)), pa.array([meaning])
    )
    table = pa.table(columns).replace_schema_metadata({_HEADER: json.dumps(header)})
    pq.write_table(
        table,
        file,
        compression="zstd",
        compression_level=1,
        use_dictionary=["meaning"],
        write_statistics=False,
        write_page_checksum=True,
    )


def _width(array: np.ndarray) -> int:
    return int(np.prod(array.shape[1:], dtype=np.int64))


def _to_arrow(array: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(array).reshape(-1))
    return flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, _width(array))


def _columns(part: _Part, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Columns of one file as writable arrays, shorter rows not yet padded."""
    wanted = part.header["columns"]
    if names is not None:
        wanted = {name: wanted[name] for name in names if name in wanted}
    try:
        names = [name for name, one in wanted.items() if 0 not in one["shape"]]
        with pq.ParquetFile(part.path, page_checksum_verification=True) as file:
            table = file.read(columns=names)
        if table.num_rows != part.rows:
            raise ValueError(f"{table.num_rows} rows where {part.rows} were announced")
        return {name: _to_numpy(table, name, one) for name, one in wanted.items()}
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise _damaged(part.path, error) from error


def _to_numpy(table: pa.Table, name: str, specification: Mapping[str, Any]) -> np.ndarray:
    shape = (table.num_rows, *specification["shape"])
    dtype = np.dtype(specification["dtype"])
    if 0 in specification["shape"]:
        return np.zeros(shape, dtype)
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    flat = column.flatten() if specification["shape"] else column
    if flat.null_count:
        raise ValueError(f"column {name} has empty cells")
    values: np.ndarray = flat.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    values = values.reshape(shape)
    return values if values.flags.writeable else values.copy()


def _stacked(parts: Sequence[_Part]) -> dict[str, np.ndarray]:
    """The rows of all parts, one below the other, shorter ones padded with zeros."""
    if not parts:
        return {}
    shapes = _shapes(parts)
    if len(parts) == 1:
        return _columns(parts[0])
    rows = sum(part.rows for part in parts)
    columns = parts[0].header["columns"]
    stacked = {
        name: np.zeros((rows, *shape), np.dtype(columns[name]["dtype"]))
        for name, shape in shapes.items()
    }
    begin = 0
    for part in parts:
        for name, array in _columns(part).items():
            area = (slice(begin, begin + part.rows), *(slice(0, size) for size in array.shape[1:]))
            stacked[name][area] = array
        begin += part.rows
    return stacked


def _shapes(parts: Sequence[_Part]) -> dict[str, tuple[int, ...]]:
    """The shape of a row of every column; refuses parts that are not of one kind."""
    first = parts[0]
    for part in parts[1:]:
        if part.header["meaning"] != first.header["meaning"]:
            raise ValueError(
                f"{part.path} holds labels that mean {part.header['meaning']!r} and {first.path} "
                f"labels that mean {first.header['meaning']!r}; keep them in two directories."
            )
        odd = difference(part.header["columns"], first.header["columns"])
        if odd:
            raise ValueError(
                f"{part.path} and {first.path} differ in {odd}; they come from different "
                "environments: keep them in two directories."
            )
    shapes = [
        {name: one["shape"] for name, one in part.header["columns"].items()} for part in parts
    ]
    return {
        name: tuple(max(axis) for axis in zip(*(one[name] for one in shapes), strict=True))
        for name in shapes[0]
    }
