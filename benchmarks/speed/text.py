"""Speed of training a language model: tokens per second of writing and learning, over TRL's.

    python -m benchmarks.speed.text                    # CPU, 1 thread, about four minutes
    python -m benchmarks.speed.text --threads 2
    python -m benchmarks.speed.text --device cuda      # a GPT-2 of 0.5 B parameters, bfloat16

GRPO on both sides: our language backend in a preference environment, and TRL 1.16.0's
`GRPOTrainer` on its transformers path, in an environment of its own. The same checkpoint of a GPT-2
with random weights, 64 responses of 32 tokens to 8 prompts of 12, the same gradient steps (one per
batch, and four), no pull to a reference, the same precision and number of threads. The weights make
the end of a response impossible, so that all responses are of full length without anything that
costs time. TRL gets what is fastest (see `peer_trl_grpo.py`), and a reward that costs nothing; ours
are played through the environment, which judges and keeps every token.

The sides take turns, one batch each (`turns.py`); a ratio is the median over neighbouring turns.
For every phase of ours the file says how near it comes to two ceilings (`ceilings.py`): its matrix
products at the rate of large ones, and its memory traffic at the rate of a copy.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers

from benchmarks.provenance import ROOT, provenance, write_result
from benchmarks.speed import ceilings
from benchmarks.speed.peers import REQUIREMENTS, peer_python
from benchmarks.speed.text_side import repetition
from benchmarks.speed.turns import Side
from prefgym.text import Vocabulary
from prefgym_agents.language.models import save, tiny_config

WANTED = {"ratio_total": 1.3, "environment_over_generation": 0.05, "memory": 1.0}
SIZES = {"cpu": (4, 128, 4), "cuda": (24, 1280, 20)}
"""Layers, width and heads of the GPT-2: 0.8 M parameters, and 0.5 B."""
WORK: dict[str, Any] = {
    "responses": 64,
    "group": 8,
    "prompts": 256,
    "prompt_tokens": 12,
    "response_tokens": 32,
    "accumulate": 1,
    "kl": 0.0,
    "learning_rate": 1e-6,
    "seed": 0,
}
Turn = tuple[dict[str, float], dict[str, float], ceilings.Ceilings]
PHASES = ("total", "cpu", "generate", "environment", "update")


def checkpoint(folder: Path, device: str) -> Any:
    """Save a GPT-2 with random weights that never ends a response; returns its configuration.

    Logits are a product of the final hidden state with the embeddings. One number of that state is
    made constant, and is what keeps padding and end from being chosen.
    """
    task = repetition(WORK["prompts"], WORK["prompt_tokens"], WORK["response_tokens"])
    codec = task.layout.codec
    assert isinstance(codec, Vocabulary)
    torch.manual_seed(0)
    layers, width, heads = SIZES[device]
    config = tiny_config(task.layout, layers=layers, width=width, heads=heads)
    model: Any = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        words, norm = model.transformer.wte.weight, model.transformer.ln_f
        norm.weight[0], norm.bias[0] = 0.0, 1.0
        words[:, 0] = 0.0
        words[[codec.pad, codec.eos], 0] = -100.0
    save(model, codec, folder)
    return model.config


def compare(
    work: Mapping[str, Any], config: Any, probe: ceilings.Probe, warm_up: int, batches: int
) -> dict[str, Any]:
    """Let the sides take turns."""
    task = repetition(work["prompts"], work["prompt_tokens"], work["response_tokens"])
    texts = [task.layout.codec.decode(one) for one in task.prompts.tolist()]
    theirs = Path(__file__).with_name("peer_trl_grpo.py")
    here = [sys.executable, "-W", "ignore", "-m", "benchmarks.speed.text_side"]
    there = [str(peer_python("trl")), "-W", "ignore", str(theirs)]
    with Side(here, work) as ours, Side(there, {**work, "prompts": texts}) as peer:
        for _ in range(warm_up):
            ours.turn(), peer.turn()
        turns = [(ours.turn(), peer.turn(), probe.measure()) for _ in range(batches)]
        ends = {"prefgym": ours.end(), "trl": peer.end()}
    sides = {"prefgym": [turn[0] for turn in turns], "trl": [turn[1] for turn in turns]}
    seconds = {
        side: {phase: median(one[phase] for one in told) for phase in PHASES}
        for side, told in sides.items()
    }
    tokens = work["responses"] * work["response_tokens"]
    return {
        **{
            f"ratio_{phase}": median(peer[phase] / ours[phase] for ours, peer, _ in turns)
            for phase in ("total", "cpu", "generate", "update")
        },
        "environment_over_generation": median(
            ours["environment"] / ours["generate"] for ours, *_ in turns
        ),
        "memory": ends["prefgym"]["peak_mib"] / ends["trl"]["peak_mib"],
        "tokens_per_second": {side: tokens / one["total"] for side, one in seconds.items()},
        "seconds": seconds,
        "scoring_seconds": ends["prefgym"].pop("scoring"),
        "memory_mib": ends,
        "share_of_time": shares(config, work, turns),
        "machine": {
            "matrix_products_gflops": median(best.flops for *_, best in turns) / 1e9,
            "copy_gb_per_second": median(best.bytes for *_, best in turns) / 1e9,
        },
    }


def shares(config: Any, work: Mapping[str, Any], turns: Sequence[Turn]) -> dict[str, Any]:
    """Of our phases: the share of the time that the phase would take at either ceiling."""
    size = 2 if work["dtype"] == "bfloat16" else 4
    prompt, steps, rows = (work[one] for one in ("prompt_tokens", "response_tokens", "responses"))
    groups = rows // work["group"]
    needs = {
        "generate": ceilings.generation(config, groups, rows, prompt, steps, size),
        "update": ceilings.update(config, groups, rows, prompt, steps, work["minibatches"], size),
    }
    return {
        phase: {
            ceiling: median(
                best.least_seconds(need)[ceiling] / ours[phase] for ours, _, best in turns
            )
            for ceiling in ("matrix_products", "memory")
        }
        for phase, need in needs.items()
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=sorted(SIZES), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, on both sides")
    parser.add_argument("--batches", type=int, default=25, help="turns of each side that count")
    parser.add_argument("--warm-up", type=int, default=5, help="turns before them")
    arguments = parser.parse_args()
    device = arguments.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here; leave --device out to measure on the CPU")
    dtype = "float32" if device == "cpu" else "bfloat16"
    torch.set_num_threads(arguments.threads)
    transformers.logging.disable_progress_bar()
    probe = ceilings.Probe(device, getattr(torch, dtype))
    common = {**WORK, "device": device, "dtype": dtype, "threads": arguments.threads}
    settings: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = checkpoint(Path(folder), device)
        for steps in (1, 4):
            work = {**common, "model": folder, "minibatches": steps}
            found = compare(work, config, probe, arguments.warm_up, arguments.batches)
            settings[f"gradient steps per batch: {steps}"] = found
            show(steps, found)
    name = "speed_text" if device == "cpu" else f"speed_text_{device}"
    content = {
        **provenance("benchmarks.speed.text", ("numpy", "torch", "transformers")),
        "trl": REQUIREMENTS["trl"][0].split("==")[1],
        **common,
        "parameters": _parameters(config),
        "batches": arguments.batches,
        "settings": settings,
        **({"cuda": "not run"} if device == "cpu" else {}),
    }
    print(f"written to {write_result(name, content).relative_to(ROOT)}")


def show(steps: int, found: Mapping[str, Any]) -> None:
    """Print what was found, with what was wanted."""
    print(f"gradient steps per batch: {steps}")
    for side, seconds in found["seconds"].items():
        parts = ", ".join(f"{phase} {1e3 * seconds[phase]:.1f}" for phase in PHASES)
        print(f"  {side}: {found['tokens_per_second'][side]:.0f} tokens/s; ms: {parts}")
    for phase, one in found["share_of_time"].items():
        parts = ", ".join(f"{ceiling} {share:.2f}" for ceiling, share in one.items())
        print(f"  share of {phase} at the ceilings: {parts}")
    for what, wanted in WANTED.items():
        value, least = found[what], what == "ratio_total"
        holds = value >= wanted if least else value <= wanted
        print(f"  {what}={value:.3f} wanted{'>=' if least else '<='}{wanted} holds={holds}")


def _parameters(config: Any) -> int:
    width = config.n_embd
    block = 12 * width**2 + 13 * width
    return int(config.n_layer * block + (config.vocab_size + config.n_positions + 2) * width)


if __name__ == "__main__":
    main()
