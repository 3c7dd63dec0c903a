"""Preferences of the ``imitation`` library: its data set object, and the pickle it is saved as.

imitation stores pairs of trajectory fragments and P(first fragment preferred). A fragment has one
observation more than it has actions; segments have one observation for each action, the one that
it answered to.

A pickle is a program. This reader runs none of it: classes of imitation and numpy become plain
stand-ins of this file, arrays of numbers are made from their bytes, and any other name ends it.
"""

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.converters.arrays import from_arrays
from prefgym.segments import Segments


def from_imitation(source: Any, meaning: str = "unknown") -> Comparisons:
    """Comparisons from imitation's ``PreferenceDataset``, or from the file it was saved to.

    The last observation of a fragment, which no action answered to, is left out, and so are infos.
    Who answered is read from ``rater_id`` where :func:`to_imitation` told it; imitation's own
    object does not know.

    Args:
        source: an object or a mapping with ``fragments1``, ``fragments2`` and ``preferences``
            (P(first preferred)), and perhaps ``rater_id``; or the path of such a pickled object.
        meaning: what the labels mean. imitation's synthetic rater uses "partial-return", or with
            a discount "discounted-return".

    Raises:
        ValueError: the file wants to run code, or fragments have the wrong shapes.
    """
    dataset = _unpickled(Path(source)) if isinstance(source, str | os.PathLike) else source
    first, second, preferences = (
        _part(dataset, name, "the preference data set")
        for name in ("fragments1", "fragments2", "preferences")
    )
    preferences = _numeric(preferences, "preferences").astype(np.float64)
    if not len(first) == len(second) == len(preferences) or not len(first):
        raise ValueError(
            f"from_imitation: got {len(first)} first fragments, {len(second)} second ones and "
            f"{len(preferences)} preferences; wanted as many of each, and at least one."
        )
    rows_of = {
        side: [_fragment(one, number, side) for number, one in enumerate(fragments)]
        for side, fragments in (("a", first), ("b", second))
    }
    steps = max(len(acted) for rows in rows_of.values() for _, acted, _ in rows)
    sides = {}
    for side, rows in rows_of.items():
        for column, name in enumerate(("observations", "actions", "rewards")):
            sides[f"{name}_{side}"] = _padded([row[column] for row in rows], steps, name)
        sides[f"mask_{side}"] = np.arange(steps) < np.array([len(row[1]) for row in rows])[:, None]
    raters = (dataset if isinstance(dataset, Mapping) else vars(dataset)).get("rater_id")
    return from_arrays(label=preferences, meaning=meaning, rater_id=raters, **sides)


def to_imitation(preferences: Comparisons | PreferenceDataset) -> dict[str, Any]:
    """What imitation's ``PreferenceDataset`` is filled with.

    Each fragment is a dict of the arguments of ``TrajectoryWithRew``::

        given = to_imitation(preferences)
        pairs = [
            (TrajectoryWithRew(**one), TrajectoryWithRew(**other))
            for one, other in zip(given["fragments1"], given["fragments2"])
        ]
        dataset.push(pairs, given["preferences"])

    ``given["rater_id"]``, one number for each pair, is for you: imitation has no place for who
    answered. The observation after the last action was not stored; the last one stands in for it.
    Rewards that are not known are NaN.

    Raises:
        ValueError: segments of text, which have no observations.
    """
    if isinstance(preferences, PreferenceDataset):
        preferences = preferences.comparisons
    return {
        "fragments1": _fragments(preferences.a.numpy()),
        "fragments2": _fragments(preferences.b.numpy()),
        "preferences": preferences.label.astype(np.float32),
        "rater_id": preferences.rater_id,
    }


def _fragments(segments: Segments) -> list[dict[str, Any]]:
    if segments.observations is None:
        raise ValueError(
            "to_imitation: these segments have no observations (they are text); imitation knows "
            "control only, so use to_trl."
        )
    rewards = segments.rewards
    if rewards is None:
        rewards = np.full(segments.mask.shape, np.nan)
    return [
        {
            "obs": np.concatenate([observations[:length], observations[length - 1 : length]]),
            "acts": actions[:length],
            "infos": None,
            "terminal": False,
            "rews": earned[:length].astype(np.float64),
        }
        for observations, actions, earned, length in zip(
            segments.observations, segments.actions, rewards, segments.lengths.tolist(), strict=True
        )
    ]


def _part(whole: Any, name: str, what: str) -> Any:
    """Attribute or entry of that name."""
    try:
        return whole[name] if isinstance(whole, Mapping) else vars(whole)[name]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"from_imitation: {what} has no {name} (it is of type {type(whole).__name__}); give "
            "an imitation PreferenceDataset or the file that its save() wrote."
        ) from error


def _fragment(one: Any, number: int, side: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations, actions and rewards of a fragment, ``[T, ...]`` each."""
    observations, actions, rewards = (
        _numeric(_part(one, name, "a fragment"), f"{name} of fragment {number} of side {side}")
        for name in ("obs", "acts", "rews")
    )
    if not len(observations) - 1 == len(actions) == len(rewards) or not len(actions):
        raise ValueError(
            f"from_imitation: fragment {number} of side {side} has {len(observations)} "
            f"observations, {len(actions)} actions and {len(rewards)} rewards; wanted n + 1, n and "
            "n, with n at least 1."
        )
    return observations[:-1], actions, rewards.astype(np.float64)


def _numeric(value: Any, what: str) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"from_imitation: {what} is {type(value).__name__} of {array.dtype}; only arrays of "
            "numbers can be converted (flatten dictionary observations first)."
        )
    return array


def _padded(rows: Sequence[np.ndarray], steps: int, name: str) -> np.ndarray:
    """Rows of different lengths as one array ``[B, steps, ...]``, zeros at the end."""
    shapes = sorted({row.shape[1:] for row in rows})
    if len(shapes) > 1:
        raise ValueError(
            f"from_imitation: {name} have shapes {shapes[0]} and {shapes[1]} per step; fragments "
            "of different environments cannot be in one data set."
        )
    packed = np.zeros((len(rows), steps, *shapes[0]), np.result_type(*{row.dtype for row in rows}))
    for row, values in zip(packed, rows, strict=True):
        row[: len(values)] = values
    return packed


class _StandIn:
    """What an object of imitation becomes: its attributes, and nothing that it can do."""


class _Dtype:
    """A dtype as a pickle writes it: made from a code such as "f4", then told its byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = str(code)
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        self.order = {"<": "<", ">": ">"}.get(state[1], "=")

    def array(self, raw: Any) -> np.ndarray:
        """Numbers from their bytes. Objects and records, which could hide code, come empty."""
        if np.dtype(self.code).kind not in "biuf" or not isinstance(raw, bytes | bytearray):
            return np.zeros(0, object)
        return np.frombuffer(raw, np.dtype(self.order + self.code)).astype(self.code)


class _Array:
    """An array as a pickle writes it: made empty, then told shape, dtype and bytes."""

    def __init__(self, *_: Any) -> None:
        self.values = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, columns_first, raw = state
        self.values = _shaped(raw, dtype, shape, "F" if columns_first else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.values


def _shaped(raw: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    values = dtype.array(raw)
    if values.dtype == object:
        return values
    return values.reshape(shape, order="F" if order == "F" else "C")


def _latin1(text: str, encoding: str) -> bytes:
    """How old pickle protocols write bytes; other encodings do not occur there."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it has bytes in the encoding {encoding!r}")
    return text.encode("latin1")


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("imitation.algorithms.preference_comparisons", "PreferenceDataset"): _StandIn,
    ("imitation.data.types", "Trajectory"): _StandIn,
    ("imitation.data.types", "TrajectoryWithRew"): _StandIn,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _latin1,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}
for _package in ("numpy.core", "numpy._core"):  # numpy 1 and numpy 2
    _NAMES[_package + ".multiarray", "_reconstruct"] = _Array
    _NAMES[_package + ".multiarray", "scalar"] = lambda dtype, raw: dtype.array(raw)
    _NAMES[_package + ".numeric", "_frombuffer"] = _shaped


class _Reader(pickle.Unpickler):
    """Rebuilds containers, numbers and stand-ins; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """The harmless thing that stands for ``module.name``."""
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is neither imitation's nor numpy's data"
            )
        return _NAMES[module, name]


def _unpickled(path: Path) -> Any:
    try:
        return _Reader(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # a damaged pickle may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as imitation's preferences ({reason}); give the file that "
            "PreferenceDataset.save wrote, or load it with imitation and pass the object."
        ) from error
