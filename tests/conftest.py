"""Shared set-up: one thread per process, a seeded generator, a folder of its own for every test."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the suite runs one process per core

# The same examples in every run, no limit on the wall clock of a shared machine, no files left.
settings.register_profile("house", derandomize=True, deadline=None, database=None)
settings.load_profile("house")


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is also the working directory: for tests that train or save."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
