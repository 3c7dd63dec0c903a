"""Trees of arrays and plain values to and from disk: safetensors and JSON, never pickle.

A tree is what ``get_state`` methods return: dicts, lists and tuples of numpy arrays, torch
tensors, numbers, strings, booleans and None. What comes back equals what was saved, bit for bit,
tensors as tensors.
"""

import json
import os
import shutil
import sys
import zlib
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
    """Write a tree; ``directory`` appears whole or not at all, whenever the process dies.

    What was there before is replaced, and stays readable until all of the new is on the disk.

    Raises:
        TypeError: the tree holds something that is neither an array nor a plain value.
    """
    target = Path(directory)
    partial, previous = _beside(target, "partial"), _beside(target, "previous")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    arrays: dict[str, np.ndarray] = {}
    plain = _encode(tree, "", arrays)
    save_file(arrays, partial / ARRAYS)
    document = {"format": FORMAT, "crc32": _checksum(partial / ARRAYS), "tree": plain}
    (partial / TREE).write_text(json.dumps(document), encoding="utf-8")
    for name in (ARRAYS, TREE):
        _flush(partial / name)
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.replace(target, previous)
    os.replace(partial, target)
    _flush_names(target.parent)
    shutil.rmtree(previous, ignore_errors=True)


def load(directory: str | Path) -> Any:
    """Read what :func:`save` wrote.

    Raises:
        CheckpointError: nothing is there, a file is damaged, or another version wrote it.
    """
    source = Path(directory)
    if not source.exists() and _beside(source, "previous").exists():
        source = _beside(source, "previous")  # the writer died while it exchanged the two
    try:
        document = json.loads((source / TREE).read_text(encoding="utf-8"))
        _check_format(source, document)
        if document["crc32"] != _checksum(source / ARRAYS):
            raise ValueError(f"{ARRAYS} is not what was written")
        return _decode(document["tree"], load_file(source / ARRAYS))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{source} holds no checkpoint ({Path(error.filename or '').name or 'a file'} is"
            " missing); give the folder of a run that has reached its first checkpoint."
        ) from error
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{source} is damaged ({error}); go back to an older checkpoint of the run."
        ) from error


def _check_format(source: Path, document: Any) -> None:
    if not isinstance(document, dict):
        raise ValueError(f"{TREE} holds no checkpoint")
    if document.get("format") != FORMAT:
        raise CheckpointError(
            f"{source} was written in checkpoint format {document.get('format')}, and this version"
            f" of prefgym reads format {FORMAT}; install the version that wrote it, or start anew."
        )


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step."""
    partial = _beside(path, "partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _flush(partial)
    os.replace(partial, path)
    _flush_names(path.parent)


def _encode(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic) and value.dtype.itemsize <= 8:
        return _encode(value.item(), path, arrays)
    if isinstance(value, np.ndarray):
        return {"$array": _kept(np.ascontiguousarray(value).reshape(value.shape), path, arrays)}
    if type(value).__module__.partition(".")[0] == "torch":
        return {"$tensor": _kept(value.detach().cpu().contiguous().numpy(), path, arrays)}
    if isinstance(value, list | tuple):
        items = [_encode(one, f"{path}/{i}", arrays) for i, one in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict):
        return _encode_dict(value, path, arrays)
    raise TypeError(f"A checkpoint cannot hold {type(value).__name__} at {path or 'its top'!r}.")


def _encode_dict(value: dict[Any, Any], path: str, arrays: dict[str, np.ndarray]) -> Any:
    """As JSON's own where its keys can be; a key that begins with $ would be taken for a mark."""
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: _encode(one, f"{path}/{key}", arrays) for key, one in value.items()}
    pairs = [(_encode(k, f"{path}/key", arrays), f"{path}/{k}", v) for k, v in value.items()]
    return {"$items": [[key, _encode(one, place, arrays)] for key, place, one in pairs]}


def _kept(array: np.ndarray, path: str, arrays: dict[str, np.ndarray]) -> str:
    """Add an array under a name of its own; keys with slashes may lead to one path twice."""
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(f"A checkpoint cannot hold an array of {array.dtype} at {path!r}.")
    name = path if path and path not in arrays else f"{path}#{len(arrays)}"
    arrays[name] = array
    return name


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
        return {_decode(key, arrays): _decode(one, arrays) for key, one in value["$items"]}
    return {key: _decode(one, arrays) for key, one in value.items()}


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")


def _checksum(path: Path) -> int:
    """Of the bytes of a file; the two files of a checkpoint belong together."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _flush(path: Path) -> None:
    """Bring the bytes of a file to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_names(directory: Path) -> None:
    """Bring the names in a directory to the disk. Windows does so by itself."""
    if sys.platform != "win32":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
