"""One Parquet file of preferences: columns of numpy arrays in, the same columns out.

A row is one comparison. An array of a row is a ``FixedSizeList`` (flattened, C order), and the
Arrow schema metadata holds, under ``prefgym``, JSON with the format version, each column's dtype
and shape, the skipped queries and the files that a merged file replaces. pandas and pyarrow read
the files without this module. Nothing is ever pickled. :mod:`prefgym.preference_files` keeps many
of these files in one directory.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FORMAT = "prefgym-preferences"
VERSION = 1
"""Version of the layout. A reader refuses every other one."""
DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)
"""What reading a damaged file may raise."""

Arrays = Mapping[str, np.ndarray]
"""Columns by name, all with the same first axis, the rows."""

_HEADER = b"prefgym"


class Part(NamedTuple):
    """A file that was opened: where, how many rows, and what its header says."""

    path: Path
    rows: int
    header: dict[str, Any]

    @property
    def first(self) -> int:
        """Number of the first append that is in it."""
        return int(self.path.stem.split("-")[1])

    @property
    def last(self) -> int:
        """Number of the last append that is in it."""
        return int(self.path.stem.split("-")[2])

    @property
    def level(self) -> int:
        """How often its rows were merged."""
        return int(self.header["level"])


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


def opened(path: Path) -> Part:
    """Read the header of a file.

    Raises:
        ValueError: it is damaged, of another version, or not ours.
        FileNotFoundError: it is not there (any more).
    """
    try:
        with pq.ParquetFile(path) as file:
            header = (file.schema_arrow.metadata or {}).get(_HEADER)
            rows = file.metadata.num_rows
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise _damaged(path, error) from error
    if header is None:
        raise ValueError(
            f"{path} is a Parquet file that prefgym did not write; move it elsewhere, or bring it "
            "in with `prefgym data convert`."
        )
    try:
        part = Part(path, rows, json.loads(header))
        _ = part.first, part.last, part.header["format"], part.header["version"]
    except (*DAMAGE, IndexError) as error:
        raise _damaged(path, error) from error
    check_version(path, part.header)
    return part


def check_version(path: Path, header: Mapping[str, Any]) -> None:
    """Refuse other formats and versions.

    Raises:
        ValueError: the header says another one.
    """
    if header["format"] != FORMAT:
        raise ValueError(f"{path} has the format {header['format']!r}, wanted {FORMAT!r}.")
    if header["version"] != VERSION:
        raise ValueError(
            f"{path} is of format version {header['version']}, this prefgym reads version "
            f"{VERSION}; install the prefgym that wrote it."
        )


def _damaged(path: Path, error: BaseException) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(
        f"{path} is damaged ({reason}); put a backup in its place, or move it out of the directory "
        "to go on without the comparisons in it (the other files are not affected)."
    )


def growing_of(header: Mapping[str, Any]) -> list[str]:
    """Names of the columns whose first axis may differ between files."""
    return [name for name, one in header["columns"].items() if one["grows"]]


def write_table(arrays: Arrays, meaning: str, header: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write columns, the meaning of their labels and a header as Parquet."""
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


def columns_of(part: Part, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
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
    except DAMAGE as error:
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


def stacked(parts: Sequence[Part]) -> dict[str, np.ndarray]:
    """The rows of all parts, one below the other, shorter ones padded with zeros."""
    if not parts:
        return {}
    shapes = _shapes(parts)
    if len(parts) == 1:
        return columns_of(parts[0])
    rows = sum(part.rows for part in parts)
    columns = parts[0].header["columns"]
    stacked = {
        name: np.zeros((rows, *shape), np.dtype(columns[name]["dtype"]))
        for name, shape in shapes.items()
    }
    begin = 0
    for part in parts:
        for name, array in columns_of(part).items():
            area = (slice(begin, begin + part.rows), *(slice(0, size) for size in array.shape[1:]))
            stacked[name][area] = array
        begin += part.rows
    return stacked


def _shapes(parts: Sequence[Part]) -> dict[str, tuple[int, ...]]:
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
