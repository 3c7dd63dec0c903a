"""Trees of arrays and plain values to and from disk: safetensors and JSON, never pickle.

A tree is what ``get_state`` methods return: dicts, lists and tuples of numpy arrays, torch
tensors, numbers, strings, booleans and None. What comes back equals what was saved, bit for bit,
tensors as tensors.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

FORMAT = 1
"""Raised whenever what is written changes its meaning."""

ARRAYS, TREE = "arrays.safetensors", "tree.json"


class CheckpointError(ValueError):
    """What was found on disk is not a checkpoint that this version can read."""


def save(directory: str | Path, tree: Any) -> None:
    """Write a tree; ``directory`` appears whole or not at all, whenever the process dies."""
    target = Path(directory)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    arrays: dict[str, np.ndarray] = {}
    plain = _encode(tree, "", arrays)
    save_file(arrays, partial / ARRAYS)
    (partial / TREE).write_text(json.dumps({"format": FORMAT, "tree": plain}))
    for name in (ARRAYS, TREE):
        _flush(partial / name)
    if target.exists():
        shutil.rmtree(target)
    os.replace(partial, target)
    _flush(target.parent)


def load(directory: str | Path) -> Any:
    """Read what :func:`save` wrote.

    Raises:
        CheckpointError: nothing is there, a file is damaged, or another version wrote it.
    """
    source = Path(directory)
    try:
        document = json.loads((source / TREE).read_text())
        arrays = load_file(source / ARRAYS)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{source} holds no checkpoint ({Path(error.filename or '').name or 'a file'} is"
            " missing); give the folder of a run that has reached its first checkpoint."
        ) from error
    except (json.JSONDecodeError, SafetensorError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{source} is damaged ({error}); go back to an older checkpoint of the run."
        ) from error
    if document.get("format") != FORMAT:
        raise CheckpointError(
            f"{source} was written in checkpoint format {document.get('format')}, and this version"
            f" of prefgym reads format {FORMAT}; install the version that wrote it, or start anew."
        )
    return _decode(document["tree"], arrays)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    _flush(partial)
    os.replace(partial, path)


def _encode(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        arrays[path] = np.ascontiguousarray(value).reshape(value.shape)
        return {"$array": path}
    if type(value).__module__.partition(".")[0] == "torch":
        arrays[path] = value.detach().cpu().contiguous().numpy()
        return {"$tensor": path}
    if isinstance(value, list | tuple):
        items = [_encode(one, f"{path}/{i}", arrays) for i, one in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _encode(one, f"{path}/{key}", arrays) for key, one in value.items()}
        return {"$items": [[k, _encode(one, f"{path}/{k}", arrays)] for k, one in value.items()]}
    raise TypeError(f"A checkpoint cannot hold {type(value).__name__} at {path or 'its top'!r}.")


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(one, arrays) for one in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return arrays[value["$array"]]
    if "$tensor" in value:
        import torch  # here, so that reading plain arrays works without loading torch

        return torch.as_tensor(arrays[value["$tensor"]])
    if "$tuple" in value:
        return tuple(_decode(one, arrays) for one in value["$tuple"])
    if "$items" in value:
        return {key: _decode(one, arrays) for key, one in value["$items"]}
    return {key: _decode(one, arrays) for key, one in value.items()}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
