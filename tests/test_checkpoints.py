"""Checkpoints: what comes back is what was saved; old or new, never half; damage is seen."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefgym import checkpoints
from prefgym.checkpoints import CheckpointError

ROOT = Path(__file__).resolve().parents[1]

KINDS = ("bool", "int8", "uint8", "int32", "uint64", "int64", "float16", "float32", "float64")


def filled(kind: str, shape: list[int], seed: int, as_torch: bool) -> Any:
    """Random bytes read as some numbers, NaNs among them."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    octets = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    array = (octets % 2 if kind == "bool" else octets).view(kind).reshape(shape)
    return torch.as_tensor(array.copy()) if as_torch else array


arrays = st.builds(
    filled,
    st.sampled_from(KINDS),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 1000),
    st.booleans(),
)
plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=True)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)
keys = st.text(st.sampled_from("a/$#0"), max_size=4) | st.integers(-2, 2)
more_keys = keys | st.booleans() | st.none() | st.tuples(st.integers(0, 1), st.just("x"))
trees = st.recursive(
    plain | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(more_keys, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal in type and value, bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and same(one.numpy(), other.numpy())
    if isinstance(one, np.ndarray):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and one.tobytes() == other.tobytes()
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other or (one != one and other != other))


@settings(max_examples=150)
@given(tree=trees)
def test_what_comes_back_is_what_was_saved(
    tree: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.getbasetemp() / "tree"
    checkpoints.save(place, tree)
    assert same(checkpoints.load(place), tree)


def test_states_of_generators_and_optimizers_come_back(tmp_path: Path) -> None:
    net = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    net(torch.ones(1, 3)).sum().backward()
    adam.step()
    rng = np.random.default_rng(3)
    tree = {
        "net": net.state_dict(),
        "adam": adam.state_dict(),
        "rng": rng.bit_generator.state,
        "legacy": np.random.RandomState(1).get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }
    checkpoints.save(tmp_path / "all", tree)
    back = checkpoints.load(tmp_path / "all")
    assert same({**tree, "net": dict(tree["net"])}, back)
    adam.load_state_dict(back["adam"])
    rng.random(5)
    rng.bit_generator.state = back["rng"]
    assert rng.random() == np.random.default_rng(3).random()


def test_arrays_come_back_writable_and_scalars_as_numbers(tmp_path: Path) -> None:
    locked = np.broadcast_to(np.float32(1.5), (2, 2))
    sliced = torch.arange(12.0).reshape(3, 4)[:, ::2]
    tree = {"locked": locked, "sliced": sliced, "scalar": np.float32(0.5), "yes": np.bool_(True)}
    checkpoints.save(tmp_path / "one", tree)
    back = checkpoints.load(tmp_path / "one")
    back["locked"][0, 0] = 7.0
    back["sliced"] += 1.0
    assert back["sliced"].tolist() == [[1.0, 3.0], [5.0, 7.0], [9.0, 11.0]]
    assert (type(back["scalar"]), type(back["yes"])) == (float, bool)


def test_parameters_are_saved_without_their_gradients(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    checkpoints.save(tmp_path / "one", weight)
    assert same(checkpoints.load(tmp_path / "one"), torch.ones(2))


@pytest.mark.parametrize(
    "odd",
    [object(), {1, 2}, np.array(["text"]), np.array([object()]), np.ones(2, complex), 1j, b"bytes"],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is_lost(tmp_path: Path, odd: Any) -> None:
    checkpoints.save(tmp_path / "one", {"steps": 1})
    with pytest.raises(TypeError, match=r"A checkpoint cannot hold .* at '/deep/0'"):
        checkpoints.save(tmp_path / "one", {"deep": [odd]})
    assert checkpoints.load(tmp_path / "one") == {"steps": 1}


# --- old or new, never half ---------------------------------------------------------------------

WRITER = """
import sys
import numpy as np
from prefgym import checkpoints
number = 0
while True:
    checkpoints.save(sys.argv[1], {"number": number, "array": np.full(200_000, number)})
    print(number, flush=True)
    number += 1
"""


def test_a_killed_writer_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    place = tmp_path / "latest"
    wait = np.random.default_rng(0)
    command = [sys.executable, "-c", WRITER, str(place)]
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(5):
        with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "0\n"
            time.sleep(wait.uniform(0.0, 0.03))
            writer.send_signal(signal.SIGKILL)
            finished = ["0", *writer.stdout.read().split()]
        found = checkpoints.load(place)
        assert found["number"] in (len(finished) - 1, len(finished))
        assert (found["array"] == found["number"]).all()
    checkpoints.save(place, {"number": -1})
    assert checkpoints.load(place) == {"number": -1}
    assert os.listdir(tmp_path) == ["latest"]


@pytest.mark.parametrize("calls_before_death", range(8))
def test_death_between_any_two_steps_of_an_exchange_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls_before_death: int
) -> None:
    place = tmp_path / "latest"
    checkpoints.save(place, "old")
    left = [calls_before_death]

    def dying(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for module, name in ((os, "replace"), (os, "fsync"), (checkpoints.shutil, "rmtree")):
            patched.setattr(module, name, dying(getattr(module, name)))
        try:
            checkpoints.save(place, "new")
        except KeyboardInterrupt:
            assert checkpoints.load(place) in ("old", "new")
        else:
            assert left[0] >= 0
            assert checkpoints.load(place) == "new"
    checkpoints.save(place, "newer")
    assert checkpoints.load(place) == "newer"
    assert os.listdir(tmp_path) == ["latest"]


def test_a_first_checkpoint_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        checkpoints.save(tmp_path / "one", object())
    assert not (tmp_path / "one").exists()
    with pytest.raises(CheckpointError, match=r"one holds no checkpoint"):
        checkpoints.load(tmp_path / "one")


def test_json_is_replaced_in_one_step(tmp_path: Path) -> None:
    place = tmp_path / "summary.json"
    for number in (1, 2):
        checkpoints.write_json(place, {"número": number})
        assert json.loads(place.read_text(encoding="utf-8")) == {"número": number}
    assert os.listdir(tmp_path) == ["summary.json"]


# --- damage and strangers -----------------------------------------------------------------------


def saved(folder: Path) -> Path:
    checkpoints.save(folder / "one", {"a": np.arange(100.0), "b": [1, 2]})
    return folder / "one"


@pytest.mark.parametrize("file", [checkpoints.ARRAYS, checkpoints.TREE])
@pytest.mark.parametrize("harm", ["cut", "empty", "noise", "flip", "gone", "folder"])
def test_damage_is_seen_and_said_in_a_sentence(tmp_path: Path, file: str, harm: str) -> None:
    path = saved(tmp_path) / file
    whole = path.read_bytes()
    path.unlink()
    harmed = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "noise": bytes(range(256)),
        "flip": whole[:-20] + bytes([whole[-20] ^ 0x80]) + whole[-19:],
    }
    if harm == "folder":
        path.mkdir()
    elif harm != "gone":
        path.write_bytes(harmed[harm])
    with pytest.raises(CheckpointError, match=r"one (is damaged .*; go back|holds no .*; give)"):
        checkpoints.load(tmp_path / "one")


def test_files_of_two_checkpoints_do_not_mix(tmp_path: Path) -> None:
    place = saved(tmp_path)
    checkpoints.save(tmp_path / "two", {"a": np.arange(100.0) + 1, "b": [1, 2]})
    os.replace(tmp_path / "two" / checkpoints.ARRAYS, place / checkpoints.ARRAYS)
    with pytest.raises(CheckpointError, match=r"not what was written"):
        checkpoints.load(place)


@pytest.mark.parametrize("stranger", [[1, 2], "text", {}, {"format": 1}, {"format": 0}])
def test_other_documents_are_refused(tmp_path: Path, stranger: Any) -> None:
    place = saved(tmp_path)
    (place / checkpoints.TREE).write_text(json.dumps(stranger))
    with pytest.raises(CheckpointError, match=r"is damaged|was written in checkpoint format"):
        checkpoints.load(place)


def test_another_format_is_named_with_what_to_do(tmp_path: Path) -> None:
    place = saved(tmp_path)
    document = json.loads((place / checkpoints.TREE).read_text())
    (place / checkpoints.TREE).write_text(json.dumps({**document, "format": 99}))
    with pytest.raises(CheckpointError, match=r"format 99, .* reads format 1; install") as told:
        checkpoints.load(place)
    assert "\n" not in str(told.value)


def test_a_checkpoint_error_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"give the folder of a run"):
        checkpoints.load(tmp_path)
