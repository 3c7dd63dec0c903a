"""Several processes that train one language model: together they take the steps of a single one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

from prefgym_agents.language.updates import ALGORITHMS
from tests import language_processes

ROOT = Path(__file__).parent.parent


def test_two_processes_with_half_a_batch_each_step_as_one_with_the_whole(tmp_path: Path) -> None:
    """By copies of the model (DDP) and by shards of it (FSDP)."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    paths = os.pathsep.join(str(ROOT / one) for one in (".", "agents", "envs"))
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*launch, language_processes.__file__, str(tmp_path)],
        env=env, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    language_processes.main("alone", tmp_path)
    for algorithm in ("dpo", *ALGORITHMS):
        alone = load_file(tmp_path / f"alone-{algorithm}.safetensors")
        for how in ("ddp", "fsdp"):
            together = load_file(tmp_path / f"{how}-{algorithm}.safetensors")
            assert alone.keys() == together.keys()
            for name, value in alone.items():
                np.testing.assert_allclose(together[name], value, atol=1e-5, err_msg=name)
            if algorithm == "dpo":
                continue
            folder = tmp_path / f"{how}-{algorithm}-model"
            saved = transformers.AutoModelForCausalLM.from_pretrained(folder)
            for name, value in saved.named_parameters():
                assert torch.equal(value.detach(), torch.as_tensor(together[f"model.{name}"]))
