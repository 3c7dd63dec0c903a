"""An update of a language model; test_language_processes.py runs it in one process and in two."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from safetensors.numpy import save_file
from torch.distributed.tensor import DTensor

from prefgym.comparisons import Comparisons
from prefgym.segments import Segments
from prefgym.wrappers import PreferenceVectorEnv
from prefgym_agents.direct import DirectPreference
from prefgym_agents.language import LanguageBackend, language_backend
from prefgym_agents.language.models import causal_model, tiny_config
from prefgym_agents.language.updates import ALGORITHMS
from prefgym_envs import text_sort

TASK = text_sort.task()
GROUPS, GROUP = 4, 4


def shard_as_on_gpus() -> None:
    """Make accelerate use FSDP; by its settings it does so on accelerators only."""
    state = Accelerator().state
    state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        cpu_ram_efficient_loading=False,
    )
    state.distributed_type = DistributedType.FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # read by later ones


def batch(process: int, processes: int) -> tuple[Segments, np.ndarray]:
    """This process's share of responses to a few prompts, and of rewards."""
    rng = np.random.default_rng(0)
    context = np.repeat(np.arange(GROUPS), GROUP)
    actions = rng.integers(1, TASK.layout.codec.size, (len(context), TASK.layout.response_tokens))
    mask = TASK.layout.mask(actions)
    rewards = rng.normal(size=mask.shape) * mask
    whole = Segments(
        actions=np.where(mask, actions, 0),
        mask=mask,
        context=TASK.prompts[context],
        context_id=context,
    )
    mine = slice(process * len(context) // processes, (process + 1) * len(context) // processes)
    return whole.take(mine), rewards[mine]


def model() -> Any:
    """One that is far from uniform, so that every weight has a slope that can be told from 0."""
    made = causal_model(tiny_config(TASK.layout, "llama", width=32), TASK.layout)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    return made


def backend(how: str, **settings: Any) -> LanguageBackend:
    """A model whose weights are in shards where that is asked for, and nowhere else."""
    env = PreferenceVectorEnv(
        text_sort.raw_vector(8, samples_per_prompt=4), segment_steps=6, query_every=None
    )
    made = language_backend(env, model(), seed=0, distributed=how != "alone", **settings)
    assert made.processes.sharded == (how == "fsdp")
    shards = [isinstance(weight, DTensor) for weight in made.policy.parameters()]
    assert all(shards) if how == "fsdp" else not any(shards)
    return made


def learn_directly(how: str, folder: Path) -> None:
    """Two steps of DPO from comparisons; nothing pulls, so that its anchor is all there is."""
    one = backend(how)
    segments, _ = batch(one.processes.number, one.processes.count)
    half = len(segments) // 2
    a, b = segments.take(slice(0, None, 2)), segments.take(slice(1, None, 2))
    data = Comparisons(a, b, np.arange(half) % 2.0)
    agent = DirectPreference(one, "dpo", data=data, batch_pairs=half)
    agent.learn(1)
    one.set_state(one.get_state())
    agent.learn(2)
    learned = one.snapshot()
    if one.processes.number == 0:
        save_file(learned, folder / f"{how}-dpo.safetensors")


def main(how: str, folder: Path) -> None:
    """Update by every algorithm, and write down what became of the parameters."""
    if how == "fsdp":
        shard_as_on_gpus()
    learn_directly(how, folder)
    for algorithm in ALGORITHMS:
        one = backend(how, algorithm=algorithm, kl=0.1, epochs=2, accumulate=2)
        processes = one.processes
        segments, rewards = batch(processes.number, processes.count)
        one.update(segments, rewards)
        one.fit(lambda log_prob: -log_prob.sum(1).mean(), segments)
        learned = one.snapshot()
        one.begin(1_000)
        written = one.collect()
        assert written is not None
        with torch.no_grad():
            noted = one.log_prob(written).numpy()
        assert one._written is not None
        np.testing.assert_allclose(one._written[1].log_prob, noted, atol=1e-5)
        state = one.get_state()
        one.set_state(state)
        one.save_pretrained(folder / f"{how}-{algorithm}-model")
        if processes.number == 0:
            save_file(learned, folder / f"{how}-{algorithm}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for how in ("ddp", "fsdp"):
        main(how, Path(sys.argv[1]))
    # Threads of the group that still run when Python ends would abort the process now and then.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
