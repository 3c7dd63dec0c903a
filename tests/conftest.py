"""Shared set-up: one thread per process, a seeded generator, a folder of its own for every test."""

from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the suite runs one process per core


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is also the working directory: for tests that train or save."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
