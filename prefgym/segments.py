"""Segments: a batch of stretches of episodes, of a robot or of a language model alike.

A segment is a context and then actions. For control the context is the first observation and
``observations`` holds what each action answered to; for text the context is the prompt, and the
actions taken so far are the state, so that ``observations`` may be absent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

Array = Any
"""A numpy array or a torch tensor; one batch holds one kind throughout."""

_ORIGIN = ("episode", "start")
_PER_STEP = ("actions", "mask", "observations", "rewards", "advantages")


@dataclass(frozen=True, eq=False, repr=False)
class Segments:
    """A batch of ``B`` segments of at most ``T`` steps, as a struct of arrays.

    Steps beyond the end of a segment are padding: they stand at the end of the row, ``mask`` is
    false there, the values are zero, and no score counts them.
    """

    actions: Array
    """``[B, T, *act]``; ``[B, T]`` integers where the action space is discrete."""
    mask: Array
    """``[B, T]`` boolean: true where a real step is."""
    context: Array
    """``[B, *obs]`` first observation, or ``[B, P]`` prompt tokens."""
    context_id: Array
    """``[B]`` integers; equal ids mean comparable starts (same prompt, same reset state)."""
    observations: Array | None = None
    """``[B, T, *obs]`` what each action answered to; absent for text."""
    rewards: Array | None = None
    """``[B, T]`` the *true* reward. Raters and scores read it; learners never do."""
    advantages: Array | None = None
    """``[B, T]`` advantages under the true reward, where a value source supplied them."""
    factors: Mapping[str, Array] = field(default_factory=dict)
    """Named parts of the true reward, ``[B, T]`` each. For raters, as ``rewards`` is."""
    episode: Array | None = None
    """``[B]`` integers: the episode in the store that the segment was cut from."""
    start: Array | None = None
    """``[B]`` integers: the step of that episode at which it begins."""

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together, with both shapes in the sentence."""
        if self.mask.ndim != 2:
            raise ValueError(
                f"Segments: mask has shape {tuple(self.mask.shape)}, wanted [batch, steps]."
            )
        if str(self.mask.dtype).removeprefix("torch.") != "bool":
            raise ValueError(
                f"Segments: mask is of type {self.mask.dtype}, wanted booleans; pass mask > 0."
            )
        shape = tuple(self.mask.shape)
        for name, value in self._present():
            wanted = shape if _stepwise(name) else shape[:1]
            if tuple(value.shape[: len(wanted)]) != wanted:
                raise ValueError(
                    f"Segments: {name} has shape {tuple(value.shape)}, which does not begin with "
                    f"{wanted}, the shape of the mask; every array of one batch needs the same "
                    "[batch, steps]."
                )

    def __len__(self) -> int:
        """How many segments there are."""
        return int(self.mask.shape[0])

    def __repr__(self) -> str:
        """Shapes and kinds, not values."""
        shapes = ", ".join(
            f"{name}={str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
            for name, value in self._present()
        )
        return f"Segments({shapes})"

    @property
    def steps(self) -> int:
        """The length that the batch is padded to."""
        return int(self.mask.shape[1])

    @property
    def lengths(self) -> Array:
        """Real steps of each segment, ``[B]``."""
        return self.mask.sum(1)

    def take(self, index: Array) -> "Segments":
        """The segments at ``index`` (integers, booleans or a slice), as a new batch."""
        return self._map(lambda _, value: value[index])

    def numpy(self) -> "Segments":
        """The same batch as numpy arrays; itself where it is that already."""
        if isinstance(self.mask, np.ndarray):
            return self
        return self._map(lambda _, value: _as_numpy(value))

    def to(self, device: Any) -> "Segments":
        """The same batch as torch tensors on ``device``."""
        import torch  # here, so that environments and raters work without loading torch

        return self._map(lambda _, value: torch.as_tensor(_writable(value)).to(device))

    def padded(self, steps: int) -> "Segments":
        """The same segments in rows of ``steps`` steps (at least as many as there are now).

        Raises:
            ValueError: ``steps`` would cut real steps off.
        """
        missing = steps - self.steps
        if missing == 0:
            return self
        if missing < 0:
            raise ValueError(
                f"Segments: cannot pad rows of {self.steps} steps to {steps}; choose {self.steps} "
                "or more."
            )
        return self._map(lambda name, value: _grow(value, missing) if _stepwise(name) else value)

    def trimmed(self) -> "Segments":
        """The same segments in rows as long as the longest of them."""
        longest = int(self.lengths.max()) if len(self) else 0
        if longest == self.steps:
            return self
        return self._map(lambda name, value: value[:, :longest] if _stepwise(name) else value)

    def first(self, steps: Any) -> "Segments":
        """The beginnings of the same segments: of each at most ``steps`` ``[B]`` steps; numpy."""
        plain = self.numpy()
        mask = plain.mask & (np.arange(plain.steps) < np.asarray(steps)[:, None])

        def kept(name: str, value: np.ndarray) -> np.ndarray:
            if not _stepwise(name):
                return value
            real = mask.reshape(*mask.shape, *[1] * (value.ndim - 2))
            return np.where(real, value, np.zeros((), value.dtype))

        return plain._map(kept)

    def replace(self, **changes: Any) -> "Segments":
        """A copy with some arrays exchanged."""
        return replace(self, **changes)

    @classmethod
    def concatenate(cls, batches: Sequence["Segments"]) -> "Segments":
        """One batch after the other, padded to the longest row.

        ``episode`` and ``start`` are kept where all batches have them: demonstrations, say, were
        cut from no store.

        Raises:
            ValueError: nothing to join, one batch has an array that another lacks, or the arrays
                differ in what one step or one context looks like.
        """
        if not batches:
            raise ValueError("Segments.concatenate: got no batches; give at least one.")
        if len(batches) == 1:
            return batches[0]
        steps = max(batch.steps for batch in batches)
        rows = _known_of_all([dict(batch.padded(steps)._present()) for batch in batches])
        for row in rows[1:]:
            if row.keys() != rows[0].keys():
                odd = ", ".join(sorted(row.keys() ^ rows[0].keys()))
                raise ValueError(
                    f"Segments.concatenate: only some of the batches have {odd}; give all of them "
                    "the same arrays."
                )
            for name, value in row.items():
                wanted = tuple(rows[0][name].shape)
                if tuple(value.shape[1:]) != wanted[1:]:
                    raise ValueError(
                        f"Segments.concatenate: {name} has shape {tuple(value.shape)} in one batch"
                        f" and {wanted} in another; all but the first number must agree, so join"
                        " segments of one environment only."
                    )
        return cls._assembled({name: _join([row[name] for row in rows]) for name in rows[0]})

    def _present(self) -> list[tuple[str, Array]]:
        named = [(one.name, getattr(self, one.name)) for one in fields(self)]
        plain = [(name, value) for name, value in named if name != "factors" and value is not None]
        return plain + [(f"factors/{name}", value) for name, value in self.factors.items()]

    def _map(self, change: Any) -> "Segments":
        return self._assembled({name: change(name, value) for name, value in self._present()})

    @classmethod
    def _assembled(cls, arrays: Mapping[str, Array]) -> "Segments":
        plain = {name: value for name, value in arrays.items() if not name.startswith("factors/")}
        factors = {
            name.removeprefix("factors/"): value
            for name, value in arrays.items()
            if name.startswith("factors/")
        }
        return cls(**plain, factors=factors)

    def arrays(self) -> dict[str, Array]:
        """Every array by name, factors as ``factors/<name>``; see :meth:`from_arrays`."""
        return dict(self._present())

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> "Segments":
        """The batch that :meth:`arrays` was taken from."""
        return cls._assembled(arrays)


def _stepwise(name: str) -> bool:
    return name in _PER_STEP or name.startswith("factors/")


def _known_of_all(rows: Sequence[dict[str, Array]]) -> list[dict[str, Array]]:
    """The arrays of some batches, without the origin that only some of them know."""
    unknown = [name for name in _ORIGIN if any(name not in row for row in rows)]
    return [{name: one for name, one in row.items() if name not in unknown} for row in rows]


def _as_numpy(value: Array) -> Array:
    return value if isinstance(value, np.ndarray) else value.detach().cpu().numpy()


def _writable(value: Array) -> Array:
    """The same array; a copy where torch cannot share it (read-only, or strides below 0)."""
    return np.require(value, requirements=["C", "W"]) if isinstance(value, np.ndarray) else value


def _grow(value: Array, missing: int) -> Array:
    shape = (value.shape[0], missing, *value.shape[2:])
    if isinstance(value, np.ndarray):
        return np.concatenate([value, np.zeros(shape, value.dtype)], axis=1)
    return _join([value, value.new_zeros(shape)], axis=1)


def _join(values: Sequence[Array], axis: int = 0) -> Array:
    if isinstance(values[0], np.ndarray):
        return np.concatenate(values, axis=axis)
    import torch  # as in Segments.to

    return torch.cat(list(values), dim=axis)
