"""Preferences that others keep as plain arrays: pairs, CPL, B-Pref, the delivery gridworld.

Every array here is read with ``allow_pickle=False``. Mind the sides: in all of these formats a
label of 1 means that the *second* segment was preferred; in prefgym it means the first.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.names import lookup
from prefgym.segments import Segments

DELIVERY_SIZE = (10, 10)
DELIVERY_HOUSES = ((3, 4), (6, 1), (6, 5))
"""Cells (row, column) of the delivery gridworld that cannot be entered."""
_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Rows and columns of the actions 0 up, 1 down, 2 left, 3 right."""


def from_arrays(
    observations_a: Any,
    actions_a: Any,
    observations_b: Any,
    actions_b: Any,
    label: Any,
    rewards_a: Any = None,
    rewards_b: Any = None,
    mask_a: Any = None,
    mask_b: Any = None,
    meaning: str = "unknown",
    rater_id: Any = None,
) -> Comparisons:
    """Comparisons from arrays of pairs.

    Args:
        observations_a: ``[B, T, *obs]`` what each action answered to.
        actions_a: ``[B, T, *act]``, or ``[B, T]`` integers.
        observations_b: as ``observations_a``, for the second segments.
        actions_b: as ``actions_a``.
        label: ``[B]`` P(a ≻ b) in [0, 1].
        rewards_a: ``[B, T]`` true rewards, where known.
        rewards_b: as ``rewards_a``; both or none.
        mask_a: ``[B, T]`` true where a step is real; default: everywhere.
        mask_b: as ``mask_a``.
        meaning: what the labels mean.
        rater_id: ``[B]`` whole numbers, who answered; all 0 by default.

    Returns:
        Comparisons numbered from 0; equal first observations get equal ``context_id``.

    Raises:
        ValueError: an array has the wrong number of axes or rows, or holds no finite numbers.
    """
    if (rewards_a is None) != (rewards_b is None):
        raise ValueError("from_arrays: rewards came for one side only; give both or none.")
    first = _side("a", observations_a, actions_a, rewards_a, mask_a)
    second = _side("b", observations_b, actions_b, rewards_b, mask_b)
    if first.context.shape[1:] != second.context.shape[1:]:
        raise ValueError(
            f"from_arrays: observations have shape {first.context.shape[1:]} per step on side a "
            f"and {second.context.shape[1:]} on side b; wanted the same."
        )
    contexts = np.concatenate([first.context, second.context]).reshape(len(first) * 2, -1)
    ids = np.unique(contexts, axis=0, return_inverse=True)[1].reshape(2, -1)
    return Comparisons(
        a=first.replace(context_id=ids[0]),
        b=second.replace(context_id=ids[1]),
        label=_finite("label", label),
        query_id=np.arange(len(first)),
        rater_id=_raters(rater_id, len(first)),
        meaning=meaning,
    )


def from_cpl(source: Mapping[str, Any] | Path | str, meaning: str = "unknown") -> Comparisons:
    """Comparisons from the arrays of contrastive preference learning (``jhejna/cpl``).

    Two forms: pairs (``obs_1, action_1, obs_2, action_2, label``, with ``label`` = P(second
    preferred), and ``rater_id`` where :func:`to_cpl` wrote it), and scored segments (``obs, action,
    label``, where the segment ``i`` of the first half is compared with segment ``i`` of the second,
    and the higher score wins; ½ for equal). ``reward`` goes along where present.

    Args:
        source: a mapping of arrays, or an ``.npz`` file.
        meaning: what the labels mean; CPL's own sets hold "regret" labels.

    Raises:
        ValueError: arrays are missing or do not fit.
    """
    data = _loaded(source)
    if "action_1" in data:
        arrays = _wanted(data, ("obs_1", "action_1", "obs_2", "action_2", "label"), "from_cpl")
        label = 1.0 - _finite("label", arrays["label"]).reshape(-1)
        sides = {
            f"{name}_{side}": data.get(f"{short}_{number}")
            for name, short in (
                ("observations", "obs"),
                ("actions", "action"),
                ("rewards", "reward"),
            )
            for side, number in (("a", 1), ("b", 2))
        }
        return from_arrays(label=label, meaning=meaning, rater_id=data.get("rater_id"), **sides)
    arrays = _wanted(data, ("obs", "action", "label"), "from_cpl")
    half = len(arrays["action"]) // 2
    score = _finite("label", arrays["label"]).reshape(-1)
    if len(score) != len(arrays["action"]) or not half:
        raise ValueError(
            f"from_cpl: {len(arrays['action'])} segments with {len(score)} scores make no pairs; "
            "wanted one score for each segment, and two segments at least."
        )
    first, second = score[:half], score[half : 2 * half]
    sides = {
        f"{name}_{side}": None if data.get(short) is None else data[short][rows]
        for name, short in (("observations", "obs"), ("actions", "action"), ("rewards", "reward"))
        for side, rows in (("a", slice(0, half)), ("b", slice(half, 2 * half)))
    }
    label = np.where(first == second, 0.5, (first > second).astype(np.float64))
    return from_arrays(label=label, meaning=meaning, **sides)


def to_cpl(preferences: Comparisons | PreferenceDataset) -> dict[str, Any]:
    """Arrays for ``np.savez`` in the pair form of :func:`from_cpl`; ``label`` = P(second ≻ first).

    Beside CPL's own arrays stands ``rater_id``, who answered each pair.

    Raises:
        ValueError: segments of different lengths (the format has no mask), or of text.
    """
    if isinstance(preferences, PreferenceDataset):
        preferences = preferences.comparisons
    arrays: dict[str, Any] = {
        "label": 1.0 - preferences.label,
        "rater_id": preferences.rater_id,
    }
    for number, side in ((1, preferences.a.numpy()), (2, preferences.b.numpy())):
        if side.observations is None or not side.mask.all():
            raise ValueError(
                "to_cpl: the format wants observations and segments of one length; these are text "
                "or have padding: take those with lengths == steps, or use to_imitation."
            )
        arrays |= {f"obs_{number}": side.observations, f"action_{number}": side.actions}
        if side.rewards is not None:
            arrays[f"reward_{number}"] = side.rewards
    return arrays


def from_bpref(
    segments_1: Any, segments_2: Any, labels: Any, observation_size: int, meaning: str = "unknown"
) -> Comparisons:
    """Comparisons from the buffers of B-Pref's reward model.

    Args:
        segments_1: ``[B, T, observation + action]``, both beside each other in each step.
        segments_2: the second segments.
        labels: ``[B]`` or ``[B, 1]``: 0 the first was preferred, 1 the second, −1 neither.
        observation_size: how many of the numbers of a step are the observation.
        meaning: what the labels mean; its teachers give "partial-return", and
            "discounted-return" with a gamma below 1.

    Raises:
        ValueError: an array has the wrong shape or another label.
    """
    first, second = _finite("segments_1", segments_1), _finite("segments_2", segments_2)
    for name, one in (("segments_1", first), ("segments_2", second)):
        if one.ndim != 3 or not 0 < observation_size < one.shape[2]:
            raise ValueError(
                f"from_bpref: {name} has shape {one.shape} and observation_size is "
                f"{observation_size}; wanted [pairs, steps, observation + action], with at least "
                "one number of each."
            )
    index = _finite("labels", labels).reshape(-1)
    if not np.isin(index, (-1, 0, 1)).all():
        raise ValueError(
            "from_bpref: labels other than 0 (first preferred), 1 (second) and -1 (neither) came; "
            "check that these are B-Pref's labels."
        )
    return from_arrays(
        first[..., :observation_size],
        first[..., observation_size:],
        second[..., :observation_size],
        second[..., observation_size:],
        np.select([index == 0, index == 1], [1.0, 0.0], 0.5),
        meaning=meaning,
    )


def from_delivery(
    segment_pairs: Any,
    labels: Any,
    blocked: np.ndarray | None = None,
    observation: str = "index",
    meaning: str = "human",
) -> Comparisons:
    """Human preferences in the delivery gridworld, as its authors release them.

    Source: Knox et al. (2022), arXiv:2206.02231; the arrays are in ``data/human_data`` of
    github.com/Stephanehk/InfluencingHumanPrefs, which carries no licence: fetch them there.

    Args:
        segment_pairs: ``[B, 2, 1 + T, 2]`` integers: the start cell (row, column), then the moves
            (±1 in one of both). A move of (0, 0) stands behind the end of an episode.
        labels: ``[B]``, 1 where the *second* segment was preferred, 0 the first, ½ neither.
        blocked: ``[height, width]``, true where a cell cannot be entered; default: the houses of
            the delivery board. A move against such a cell or the border stays in place.
        observation: "index" gives cells as integers ``width · row + column``, "coordinates" as
            float32 (row, column), just as the keyword of ``prefgym/Delivery-v0`` does.
        meaning: what the labels mean.

    Returns:
        Comparisons with actions 0 up, 1 down, 2 left, 3 right; ``context_id`` is the start cell.

    Raises:
        ValueError: other shapes, cells off the board, moves that are none.
    """
    pairs, label = np.asarray(segment_pairs), _finite("labels", labels).reshape(-1)
    board = _delivery_board() if blocked is None else np.asarray(blocked, bool)
    lookup(observation, {"index": 0, "coordinates": 1}, "observation")
    if pairs.ndim != 4 or pairs.shape[1] != 2 or pairs.shape[2] < 2 or pairs.shape[3] != 2:
        raise ValueError(
            f"from_delivery: segment_pairs has shape {pairs.shape}, wanted [pairs, 2, 1 + moves, "
            "2]: start cell and moves of both segments."
        )
    if pairs.dtype.kind not in "iu" or len(label) != len(pairs):
        raise ValueError(
            f"from_delivery: got {pairs.dtype} segment_pairs of {len(pairs)} pairs and "
            f"{len(label)} labels; wanted integers, and one label for each pair."
        )
    first, second = (
        _delivery_side(pairs[:, number].astype(np.int64), board, observation) for number in (0, 1)
    )
    return Comparisons(
        a=first,
        b=second,
        label=1.0 - label,
        query_id=np.arange(len(pairs)),
        meaning=meaning,
    )


def read_delivery(path: Path | str, **keywords: Any) -> Comparisons:
    """:func:`from_delivery` from files ``<prefix>_segment_pairs.npy`` and ``<prefix>_Y.npy``.

    Args:
        path: the prefix, or a folder with one such set.
        keywords: for :func:`from_delivery`.

    Raises:
        ValueError: the files are not there, or not arrays.
    """
    ending = "_segment_pairs.npy"
    place = Path(path)
    found = sorted(place.glob(f"*{ending}") if place.is_dir() else [Path(f"{place}{ending}")])
    if len(found) != 1:
        raise ValueError(
            f"{place} holds {len(found)} files that end in {ending}; give the beginning of one "
            f"of their names, as in {place}/Privileged-Control_full_filtered."
        )
    labels = Path(str(found[0]).removesuffix(ending) + "_Y.npy")
    return from_delivery(_array(found[0]), _array(labels), **keywords)


def _side(side: str, observations: Any, actions: Any, rewards: Any, mask: Any) -> Segments:
    """Segments from arrays, padding zeroed; ``context_id`` is not known yet."""
    seen = _finite(f"observations_{side}", observations)
    acted = _finite(f"actions_{side}", actions)
    if seen.ndim < 2 or acted.ndim < 2 or seen.shape[:2] != acted.shape[:2] or 0 in seen.shape[:2]:
        raise ValueError(
            f"from_arrays: observations_{side} has shape {seen.shape} and actions_{side} "
            f"{acted.shape}; wanted [pairs, steps, ...] with the same pairs and steps, at least "
            "one of each."
        )
    shape = seen.shape[:2]
    real = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
    if real.shape != shape or (real[:, 1:] > real[:, :-1]).any():
        raise ValueError(
            f"from_arrays: mask_{side} has shape {real.shape}, wanted {shape}, true up to the end "
            "of each segment and false behind it."
        )
    earned = None if rewards is None else _finite(f"rewards_{side}", rewards)
    if earned is not None and earned.shape not in (shape, (*shape, 1)):
        raise ValueError(f"from_arrays: rewards_{side} has shape {earned.shape}, wanted {shape}.")
    if acted.ndim == 2 and acted.dtype.kind in "iu":
        acted = acted.astype(np.int64)
    return Segments(
        actions=_zeroed(acted, real),
        mask=real,
        context=seen[:, 0],
        context_id=np.zeros(shape[0], np.int64),
        observations=_zeroed(seen, real),
        rewards=None if earned is None else _zeroed(earned.reshape(shape), real),
    )


def _raters(rater_id: Any, pairs: int) -> np.ndarray:
    """Who answered each pair, ``[pairs]``; nobody in particular is 0."""
    if rater_id is None:
        return np.zeros(pairs, np.int64)
    raters = _finite("rater_id", rater_id)
    whole = np.issubdtype(raters.dtype, np.integer) or (raters == np.floor(raters)).all()
    if raters.shape != (pairs,) or not whole:
        raise ValueError(
            f"rater_id came as {raters.dtype} of shape {raters.shape} for {pairs} pairs; wanted one"
            f" whole number for each, shape ({pairs},)."
        )
    return raters.astype(np.int64)


def _zeroed(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``values`` with zeros where the mask is false, in an array of its own."""
    wide = mask.reshape(mask.shape + (1,) * (values.ndim - 2))
    return np.where(wide, values, np.zeros((), values.dtype))


def _finite(name: str, value: Any) -> np.ndarray:
    """An array of finite numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise ValueError(f"{name} came as {type(value).__name__}, wanted an array of numbers.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(one) for one in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"{name} is {array[where]} at {where}; wanted finite numbers: remove that pair."
        )
    return array


def _loaded(source: Mapping[str, Any] | Path | str) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return dict(source)
    try:
        with np.load(source, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{source} cannot be read as .npz ({error}); wanted arrays of numbers saved with "
            "np.savez."
        ) from error


def _array(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); wanted an array of numbers saved with np.save."
        ) from error
    return array


def _wanted(data: Mapping[str, Any], names: tuple[str, ...], who: str) -> dict[str, np.ndarray]:
    missing = [name for name in names if name not in data]
    if missing:
        raise ValueError(
            f"{who}: there is no {', '.join(missing)}; wanted {', '.join(names)}, got "
            f"{', '.join(data)}."
        )
    return {name: np.asarray(data[name]) for name in names}


def _delivery_board() -> np.ndarray:
    board = np.zeros(DELIVERY_SIZE, bool)
    board[tuple(np.transpose(DELIVERY_HOUSES))] = True
    return board


def _delivery_side(segments: np.ndarray, blocked: np.ndarray, observation: str) -> Segments:
    """Cells and moves ``[B, 1 + T, 2]`` as segments, every cell followed over the board."""
    start, moves = segments[:, 0], segments[:, 1:]
    size = np.array(blocked.shape)
    inside = ((start >= 0) & (start < size)).all(1)
    if not inside.all() or blocked[tuple(start.T)].any():
        raise ValueError(
            f"from_delivery: a segment starts off the board of {size[0]} × {size[1]} cells or in a "
            "blocked cell; give the `blocked` array of the board on which it was shown."
        )
    is_move = (moves[:, :, None] == np.array(_MOVES)).all(-1)
    mask = is_move.any(-1)
    if (~mask & (moves != 0).any(-1)).any() or (mask[:, 1:] > mask[:, :-1]).any():
        raise ValueError(
            "from_delivery: a move is neither one cell up, down, left or right nor, behind the "
            "end of an episode, (0, 0)."
        )
    cells = np.zeros_like(moves)
    here = start
    for step in range(moves.shape[1]):
        cells[:, step] = here
        there = np.clip(here + moves[:, step], 0, size - 1)
        here = np.where(blocked[tuple(there.T)][:, None], here, there)
    index = cells @ np.array([blocked.shape[1], 1])
    seen = index if observation == "index" else cells.astype(np.float32)
    return Segments(
        actions=np.where(mask, is_move.argmax(-1), 0),
        mask=mask,
        context=seen[:, 0],
        context_id=index[:, 0],
        observations=_zeroed(seen, mask),
    )
