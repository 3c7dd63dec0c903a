"""Comparisons: pairs of segments, and what a rater said about them.

A label is P(a ≻ b), the probability that the first segment of a pair is preferred; a tie is ½. A
pair that its rater skipped is absent, and counted.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from prefgym.parquet import Arrays, difference, layout
from prefgym.preference_files import Key, Record, open_files
from prefgym.segments import Segments

UNNUMBERED = -1
"""The ``query_id`` of a comparison that nobody has numbered yet; a data set numbers it."""


class Labels(NamedTuple):
    """What a rater answers about a batch of pairs."""

    label: Float[np.ndarray, " batch"]
    """P(a ≻ b) in [0, 1]; a tie is ½. Meaningless where the pair was not answered."""
    answered: Bool[np.ndarray, " batch"]
    """False where the rater skipped the pair."""
    rater_id: Int[np.ndarray, " batch"]
    """Who answered."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparisons:
    """A batch of ``B`` answered pairs, as a struct of numpy arrays, ``[B]`` each.

    A column of one value counts for all pairs. Columns left out have that one value.
    """

    a: Segments
    """The first segments, ``B`` of them."""
    b: Segments
    """The second segments; ``a[i]`` was compared with ``b[i]``."""
    label: np.ndarray
    """P(a ≻ b) in [0, 1]; a tie is ½."""
    rater_id: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    """Who answered."""
    weight: np.ndarray = field(default_factory=lambda: np.ones(1))
    """How much a loss counts the comparison, at least 0."""
    strength: np.ndarray = field(default_factory=lambda: np.full(1, np.nan))
    """How much better the preferred one is, in the rater's own unit; NaN where nobody said."""
    query_id: np.ndarray = field(default_factory=lambda: np.full(1, UNNUMBERED, np.int64))
    """Number of the question; several raters may answer one. ``UNNUMBERED`` (−1) until given."""
    meaning: str = "unknown"
    """What the label speaks about: "partial-return", "discounted-return", "regret", "human", ..."""

    def __post_init__(self) -> None:
        """Bring the columns to ``[B]`` and refuse what cannot be a comparison."""
        if len(self.a) != len(self.b):
            raise ValueError(
                f"Comparisons: {len(self.a)} first segments but {len(self.b)} second ones; give "
                "as many of each."
            )
        for name, kind in _COLUMNS.items():
            object.__setattr__(self, name, _column(name, getattr(self, name), kind, len(self)))
        _require(self.label, (self.label >= 0) & (self.label <= 1), "label", "a number in [0, 1]")
        _require(
            self.weight,
            (self.weight >= 0) & np.isfinite(self.weight),
            "weight",
            "a finite number, at least 0",
        )

    def __len__(self) -> int:
        """How many comparisons there are."""
        return len(self.a)

    def __repr__(self) -> str:
        """Size and meaning, not values."""
        return f"Comparisons({len(self)} pairs, meaning={self.meaning!r}, a={self.a!r})"

    def take(self, index: Any) -> "Comparisons":
        """The comparisons at ``index`` (integers, booleans or a slice), as a new batch."""
        columns = {name: getattr(self, name)[index] for name in _COLUMNS}
        return replace(self, a=self.a.take(index), b=self.b.take(index), **columns)

    def swapped(self) -> "Comparisons":
        """The same judgements with the two sides exchanged: P(b ≻ a) = 1 − P(a ≻ b)."""
        return replace(self, a=self.b, b=self.a, label=1.0 - self.label)

    def replace(self, **changes: Any) -> "Comparisons":
        """A copy with some fields exchanged."""
        return replace(self, **changes)

    @classmethod
    def concatenate(cls, batches: Sequence["Comparisons"]) -> "Comparisons":
        """One batch after the other, segments padded to the longest.

        Raises:
            ValueError: nothing to join, labels of different meanings, or different arrays.
        """
        if not batches:
            raise ValueError("Comparisons.concatenate: got no batches; give at least one.")
        if len(batches) == 1:
            return batches[0]
        meanings = sorted({batch.meaning for batch in batches})
        if len(meanings) > 1:
            raise ValueError(_mixed("Comparisons.concatenate", meanings[0], meanings[1]))
        columns = {
            name: np.concatenate([getattr(batch, name) for batch in batches]) for name in _COLUMNS
        }
        return cls(
            a=_joined([batch.a for batch in batches]),
            b=_joined([batch.b for batch in batches]),
            meaning=meanings[0],
            **columns,
        )

    def arrays(self) -> dict[str, Any]:
        """Every array by name, those of the sides under "a" and "b"; for :meth:`from_arrays`."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        return {"a": self.a.arrays(), "b": self.b.arrays(), **columns}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], meaning: str) -> "Comparisons":
        """The batch that :meth:`arrays` was taken from."""
        a, b = (Segments.from_arrays(arrays[side]) for side in ("a", "b"))
        return cls(a, b, **{name: arrays[name] for name in _COLUMNS}, meaning=meaning)


class Recorded(NamedTuple):
    """What a data set knows about queries that are about to be asked."""

    found: Bool[np.ndarray, " batch"]
    """Whether the query was asked before."""
    labels: Labels
    """What was said then; ``answered`` is false where it was skipped, or never asked."""


class PreferenceDataset:
    """Every comparison of a run, in the order of asking, and how many queries were skipped.

    With a directory, what :meth:`append` was given is on the disk when it returns, and a process
    killed at any moment loses nothing that it returned from. One judgement (query id, rater and
    pair of segments) is held once: to append it again changes nothing, so that a resumed run may
    repeat the questions that it asked after its last checkpoint.
    """

    def __init__(self, directory: Path | str | None = None, meaning: str = "unknown") -> None:
        """Begin a data set, or go on with the one that the directory holds.

        Args:
            directory: where to keep it, as Parquet; ``None`` keeps it in memory only.
            meaning: what its labels mean; "unknown" leaves that to the first comparisons.

        Raises:
            ValueError: the directory is damaged, of another format version or meaning, or another
                live process writes to it.
        """
        self._meaning = meaning
        self._chunks: list[Comparisons] = []
        self._shape: dict[str, Any] = {}
        self._records: dict[Key, Record] = {}
        self._skipped: list[int] = []
        self._files = None if directory is None else open_files(directory, meaning)
        self._load()

    @classmethod
    def open(cls, directory: Path | str) -> "PreferenceDataset":
        """The data set in a directory; it may be read while another process writes to it.

        Raises:
            ValueError: there is none, or it is damaged or of another format version.
        """
        dataset = cls()
        dataset._files = open_files(directory)
        dataset._load()
        return dataset

    def __len__(self) -> int:
        """Answered comparisons."""
        return len(self._records)

    def __repr__(self) -> str:
        """Counts, meaning and place."""
        return (
            f"PreferenceDataset({len(self)} comparisons, {self.skipped} skipped, "
            f"meaning={self.meaning!r}, directory={str(self.directory)!r})"
        )

    @property
    def directory(self) -> Path | None:
        """Where it is kept; ``None`` for memory only."""
        return None if self._files is None else self._files.directory

    @property
    def meaning(self) -> str:
        """What the labels mean; "unknown" until the first comparisons say it."""
        return self._meaning

    @property
    def skipped(self) -> int:
        """Queries that were asked and not answered."""
        return len(self._skipped)

    @property
    def asked(self) -> int:
        """Answered comparisons and skipped queries together."""
        return len(self) + self.skipped

    @property
    def next_query_id(self) -> int:
        """A number that no query has yet, neither here nor on the disk."""
        records, skipped = self._known()
        return max([*(key[0] for key in records), *skipped], default=UNNUMBERED) + 1

    @property
    def comparisons(self) -> Comparisons:
        """All of them as one batch, kept until the next append.

        Raises:
            ValueError: there is none yet.
        """
        if not self._chunks:
            raise ValueError(
                "PreferenceDataset: there are no comparisons yet; ask some first "
                "(len(dataset) tells how many there are)."
            )
        if len(self._chunks) > 1:
            self._chunks = [Comparisons.concatenate(self._chunks)]
        return self._chunks[0]

    def append(
        self,
        comparisons: Comparisons,
        skipped: int | np.integer[Any] | Int[np.ndarray, " skipped"] = 0,
    ) -> None:
        """Add answered comparisons and skipped queries, durably where there is a directory.

        What is here already is passed over. A judgement that only the disk has (this is a view of
        fewer, see :meth:`truncated_to`) comes back with the label recorded there. Unnumbered
        comparisons get the next free query ids.

        Args:
            comparisons: the answered ones, possibly none.
            skipped: ids of the queries that were skipped, or only how many they were. Ids are
                better: then :meth:`answered` knows them, and repeating them counts nothing twice.

        Raises:
            ValueError: the labels mean something else than those here, the arrays are not like
                those here, one judgement comes twice, or another process writes to the directory.
        """
        if self._files is not None:
            self._files.lock()
        batch = self._checked(comparisons) if len(comparisons) else comparisons
        digests = _digests(batch.a, batch.b)
        keys = list(_records(batch, digests))
        if len(keys) < len(batch):
            raise ValueError(
                "PreferenceDataset: two of the comparisons have the same query id, rater and pair "
                "of segments; give every question its own query id."
            )
        fresh = np.array([key not in self._records for key in keys], bool)
        if not fresh.all():
            batch, digests = batch.take(fresh), digests[fresh]
        ids = self._new_skips(skipped)
        if self._files is not None:
            batch = _as_recorded(batch, _records(batch, digests), self._files.records)
            self._write(batch, digests, ids)
        if len(batch):
            self._chunks.append(batch)
            self._records.update(_records(batch, digests))
            self._meaning = batch.meaning
        self._skipped += ids

    def answered(
        self,
        query_ids: Int[np.ndarray, " batch"],
        pairs: tuple[Segments, Segments] | None = None,
    ) -> Recorded:
        """Which queries were asked before, here or in an earlier life of the run, and the answers.

        Args:
            query_ids: the queries.
            pairs: the segments that they are about; given, an answer counts only if it was about
                the very same pair.
        """
        records, skipped = self._known()
        answers: dict[tuple[int, int], tuple[Key, Record]] = {}
        for key, record in records.items():
            answers.setdefault((key[0], key[2] if pairs else 0), (key, record))
        shown = _digests(*pairs) if pairs else np.zeros(len(query_ids), np.int64)
        rows = [answers.get(one) for one in zip(query_ids.tolist(), shown.tolist(), strict=True)]
        answered = np.array([row is not None for row in rows], bool)
        labels = Labels(
            label=np.array([row[1].label if row else 0.5 for row in rows], np.float64),
            answered=answered,
            rater_id=np.array([row[0][1] if row else 0 for row in rows], np.int64),
        )
        return Recorded(answered | np.isin(query_ids, skipped), labels)

    def truncated_to(self, count: int, skipped: int) -> "PreferenceDataset":
        """Go back to the first comparisons and skips, in memory; the disk keeps all.

        For resuming from a checkpoint: the run asks again what came after it, and nothing of that
        is written twice.

        Returns:
            This data set.

        Raises:
            ValueError: there are fewer than that.
        """
        if self._files is not None and (count > len(self) or skipped > self.skipped):
            self._load()
        if not (0 <= count <= len(self) and 0 <= skipped <= self.skipped):
            raise ValueError(
                f"PreferenceDataset: cannot go back to {count} comparisons and {skipped} skips, "
                f"there are {len(self)} and {self.skipped}; the data set is older than the "
                "checkpoint: restore the one that belongs to it."
            )
        self._chunks = [self.comparisons.take(slice(count))] if count else []
        self._records = dict(list(self._records.items())[:count])
        self._skipped = self._skipped[:skipped]
        return self

    def compact(self) -> None:
        """Merge the files of the directory into one; appends do so by themselves now and then."""
        if self._files is not None:
            self._files.compact()

    def close(self) -> None:
        """Let another process write to the directory; a later append takes it back."""
        if self._files is not None:
            self._files.close()

    def _load(self) -> None:
        if self._files is not None:
            arrays, self._meaning = self._files.read()
            self._records = dict(self._files.records)
            self._chunks = [_from_rows(arrays, self._meaning)] if arrays else []
            if arrays and len(arrays["digest"]) > len(self._records):
                self._chunks = [self._chunks[0].take(_first_of_each(arrays))]
            self._skipped = list(self._files.skipped)

    def _known(self) -> tuple[dict[Key, Record], list[int]]:
        """Everything asked so far, also what only the disk remembers."""
        if self._files is None:
            return self._records, self._skipped
        return self._files.records, self._files.skipped

    def _checked(self, comparisons: Comparisons) -> Comparisons:
        """The same, numbered, and in arrays that nobody else holds."""
        batch = _owned(comparisons)
        if batch.meaning != self._meaning and (len(self) or self._meaning != "unknown"):
            raise ValueError(_mixed("PreferenceDataset", self._meaning, batch.meaning))
        odd = difference(layout(*_rows(batch)), self._layout())
        if odd:
            raise ValueError(
                f"PreferenceDataset: the new comparisons differ from those here in {odd}; keep "
                "comparisons of different environments in different data sets."
            )
        unnumbered = batch.query_id == UNNUMBERED
        if unnumbered.any():
            following = max(self.next_query_id, int(batch.query_id.max()) + 1)
            numbers = following + np.cumsum(unnumbered) - 1
            batch = batch.replace(query_id=np.where(unnumbered, numbers, batch.query_id))
        return batch

    def _layout(self) -> dict[str, Any]:
        if self._files is not None:
            return self._files.layout
        if not self._shape and self._chunks:
            self._shape = layout(*_rows(self._chunks[0].take(slice(1))))
        return self._shape

    def _new_skips(self, skipped: int | np.integer[Any] | Int[np.ndarray, " skipped"]) -> list[int]:
        if isinstance(skipped, np.ndarray):
            return [one for one in dict.fromkeys(skipped.tolist()) if one not in self._skipped]
        if skipped < 0:
            raise ValueError(f"PreferenceDataset: skipped is {skipped}, wanted 0 or more.")
        return [UNNUMBERED] * int(skipped)

    def _write(self, batch: Comparisons, digests: np.ndarray, skipped: list[int]) -> None:
        """Bring to the disk what it does not have yet."""
        assert self._files is not None
        disk = self._files.skipped
        unnumbered = (self._skipped + skipped).count(UNNUMBERED) - disk.count(UNNUMBERED)
        skips = [one for one in skipped if one != UNNUMBERED and one not in disk]
        skips += [UNNUMBERED] * max(0, unnumbered)
        keys = _records(batch, digests)
        missing = np.array([key not in self._files.records for key in keys], bool)
        if skips or missing.any():
            arrays, growing = _rows(batch.take(missing))
            arrays["digest"] = digests[missing]
            self._files.append(arrays, growing, batch.meaning, skips)


_COLUMNS: dict[str, type[np.generic]] = {
    "label": np.float64,
    "rater_id": np.int64,
    "weight": np.float64,
    "strength": np.float64,
    "query_id": np.int64,
}


def _column(name: str, value: Any, kind: type[np.generic], batch: int) -> np.ndarray:
    """``value`` as an array ``[batch]`` of ``kind``."""
    array = np.asarray(value)
    if array.dtype.kind not in ("biu" if kind is np.int64 else "biuf"):
        wanted = "integers" if kind is np.int64 else "numbers"
        raise ValueError(f"Comparisons: {name} came as {array.dtype}, wanted {wanted}.")
    if array.shape not in ((), (1,), (batch,)):
        raise ValueError(
            f"Comparisons: {name} has shape {array.shape}, wanted ({batch},), one value for each "
            "pair of segments."
        )
    return np.ascontiguousarray(np.broadcast_to(array, (batch,)), dtype=kind)


def _require(values: np.ndarray, good: np.ndarray, name: str, wanted: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"Comparisons: {name} is {values[row]} in row {row}, wanted {wanted}.")


def _mixed(where: str, one: str, other: str) -> str:
    return (
        f"{where}: labels that mean {one!r} and labels that mean {other!r} cannot be mixed, since "
        "a learner assumes one meaning; keep two data sets, or say that they mean the same with "
        f"comparisons.replace(meaning={one!r})."
    )


def _joined(batches: Sequence[Segments]) -> Segments:
    """Segments one after the other; prompts of different lengths get zeros at their end."""
    if all(batch.observations is None and batch.context.ndim == 2 for batch in batches):
        width = max(batch.context.shape[1] for batch in batches)
        batches = [
            batch.replace(
                context=np.pad(batch.context, ((0, 0), (0, width - batch.context.shape[1])))
            )
            for batch in batches
        ]
    return Segments.concatenate(batches)


_SHARED = ("context", "context_id", "episode", "start")
"""Arrays of segments without an axis of steps."""


def _owned(batch: Comparisons) -> Comparisons:
    """The same in numpy arrays of its own, so that no view keeps an episode alive."""

    def owned(segments: Segments) -> Segments:
        arrays = segments.numpy().arrays()
        return Segments.from_arrays({name: one.copy() for name, one in arrays.items()})

    return batch.replace(a=owned(batch.a), b=owned(batch.b))


def _rows(batch: Comparisons) -> tuple[dict[str, np.ndarray], set[str]]:
    """The columns of a file (but for the digest), and those that may be longer in other files."""
    arrays: dict[str, np.ndarray] = {name: getattr(batch, name) for name in _COLUMNS}
    growing = set()
    for side, segments in (("a", batch.a), ("b", batch.b)):
        arrays[f"length_{side}"] = segments.mask.sum(1)
        prompt = segments.observations is None and segments.context.ndim == 2
        for name, array in segments.arrays().items():
            column = f"{name}_{side}" if name in ("episode", "start") else f"{side}_{name}"
            arrays[column] = array
            if name not in _SHARED or (prompt and name == "context"):
                growing.add(column)
    return arrays, growing


def _from_rows(arrays: Arrays, meaning: str) -> Comparisons:
    """The inverse of :func:`_rows`."""

    def side(letter: str) -> Segments:
        first, last = f"{letter}_", f"_{letter}"
        named = {
            name.removeprefix(first).removesuffix(last): array
            for name, array in arrays.items()
            if name.startswith(first) or name in (f"episode{last}", f"start{last}")
        }
        return Segments.from_arrays(named)

    return Comparisons(
        a=side("a"), b=side("b"), meaning=meaning, **{name: arrays[name] for name in _COLUMNS}
    )


def _first_of_each(arrays: Arrays) -> np.ndarray:
    """Rows without those that came before: somebody copied a file under another name."""
    names = ("query_id", "rater_id", "digest")
    keys = zip(*(arrays[name].tolist() for name in names), strict=True)
    first: dict[Any, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    return np.array(list(first.values()))


def _records(batch: Comparisons, digests: np.ndarray) -> dict[Key, Record]:
    """What makes each comparison the one it is, and what was said."""
    keys = zip(batch.query_id.tolist(), batch.rater_id.tolist(), digests.tolist(), strict=True)
    said = (batch.label.tolist(), batch.weight.tolist(), batch.strength.tolist())
    return dict(zip(keys, map(Record, *said), strict=True))


def _as_recorded(
    batch: Comparisons, keys: Collection[Key], records: dict[Key, Record]
) -> Comparisons:
    """The same comparisons with the labels of the disk where it has them."""
    known = [(row, records[key]) for row, key in enumerate(keys) if key in records]
    if not known:
        return batch
    rows = [row for row, _ in known]
    columns = {name: getattr(batch, name).copy() for name in Record._fields}
    said = zip(*(record for _, record in known), strict=True)
    for name, values in zip(Record._fields, said, strict=True):
        columns[name][rows] = values
    return batch.replace(**columns)


def _digests(a: Segments, b: Segments) -> np.ndarray:
    """A number for each pair, from what was shown; padding and true rewards do not count."""
    digest = np.zeros(len(a), np.uint64)
    for segments in (a, b):
        for name, array in segments.numpy().arrays().items():
            if name in ("actions", "mask", "observations", "context"):
                digest = _scrambled(digest + _hashed(array))
    return digest


def _hashed(array: np.ndarray) -> np.ndarray:
    """Linear hash of the bytes of each row, ``[B]``; zeros at its end change nothing."""
    width = math.prod(array.shape[1:])
    octets = np.ascontiguousarray(array).reshape(len(array), width).view(np.uint8)
    missing = -octets.shape[1] % 8
    if missing:
        octets = np.pad(octets, ((0, 0), (0, missing)))
    words = octets.view(np.uint64)
    return _scrambled(np.asarray(words @ _weights(words.shape[1])))


@lru_cache(maxsize=32)
def _weights(words: int) -> np.ndarray:
    """Odd numbers, the same at the same place for every width."""
    return _scrambled(np.arange(1, words + 1, dtype=np.uint64)) | np.uint64(1)


def _scrambled(values: np.ndarray) -> np.ndarray:
    """Each number sent to a random-looking one, one to one (the finalizer of splitmix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))
