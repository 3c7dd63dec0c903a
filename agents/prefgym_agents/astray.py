"""A batch whose loss was not finite: left for inspection before training stops."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def astray(
    what: str, value: float, step: int, arrays: Mapping[str, np.ndarray], path: Path
) -> RuntimeError:
    """Write the batch as safetensors; returns what to raise, which says where it is.

    Args:
        what: is not finite, such as "the loss".
        value: of it.
        step: gradient steps taken before.
        arrays: of the batch.
        path: of the file; folders on the way are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: np.ascontiguousarray(one) for key, one in arrays.items()}, path)
    return RuntimeError(
        f"{what.capitalize()} became {value} at gradient step {step}, and training stopped before"
        f" it did harm; the batch is in {path}. Look there for rewards that are not finite, and"
        " lower the learning rate if they all are."
    )
