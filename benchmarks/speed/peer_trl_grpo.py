"""Takes turns in training with TRL's GRPO trainer, on its transformers path. Runs under the peer's
Python: imports no prefgym.

One JSON object comes as the command line. Then, for every line that comes in, one batch is
generated, rewarded and learned from, and its times go out as one line; when no more lines come, a
last line tells the memory. Everything that TRL leaves to the user is set to what is fastest: no
gradient checkpointing, logging, saving or progress bar, and a reward that costs next to nothing.
Weights are float32, as TRL has it by default; on a GPU it computes with them in bfloat16.
"""

import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Timed(GRPOTrainer):
    """The trainer with a clock around generation, and around everything that makes a batch."""

    seconds: dict[str, float]

    def _generate_single_turn(self, *words: Any, **named: Any) -> Any:
        return self._clocked("generate", super()._generate_single_turn, *words, **named)

    def _generate_and_score_completions(self, *words: Any, **named: Any) -> Any:
        return self._clocked("batch", super()._generate_and_score_completions, *words, **named)

    def _clocked(self, phase: str, function: Any, *words: Any, **named: Any) -> Any:
        begun = now()
        result = function(*words, **named)
        self.seconds[phase] = now() - begun
        return result


class Turns(TrainerCallback):
    """Waits before each batch to be told to go on, and tells afterwards how long it took.

    A batch is everything between the last gradient step on one generated batch and the last on the
    next: drawing prompts, generation, rewards, all gradient steps, and the trainer's own code.
    """

    def __init__(self, steps_per_batch: int) -> None:
        self.steps_per_batch = steps_per_batch
        self.trainer: Timed | None = None
        self.begun = self.spent = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self.wait(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        if state.global_step % self.steps_per_batch:
            return
        total, cpu = now() - self.begun, time.process_time() - self.spent
        assert self.trainer is not None
        batch, generate = (self.trainer.seconds[name] for name in ("batch", "generate"))
        told = {
            "total": total,
            "cpu": cpu,
            "generate": generate,
            "environment": batch - generate,
            "update": total - batch,
        }
        print(json.dumps(told), flush=True)
        self.wait(control)

    def wait(self, control: Any) -> None:
        if not sys.stdin.readline():
            control.should_training_stop = True
        self.begun, self.spent = now(), time.process_time()


def now() -> float:
    """Seconds, once the GPU has done all that it was asked for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def memory(device: str) -> float:
    """The peak so far in MiB: of the process, or of what was allocated on the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    told = Path("/proc/self/status").read_text()  # getrusage counts what the parent had, too
    return int(told.split("VmHWM:")[1].split()[0]) / 1024


def settings(work: dict[str, Any], folder: str) -> GRPOConfig:
    """A generated batch is split into `minibatches` gradient steps."""
    parts = work["minibatches"] * work["accumulate"]
    return GRPOConfig(
        output_dir=folder,
        use_cpu=work["device"] == "cpu",
        bf16=work["dtype"] == "bfloat16",
        per_device_train_batch_size=work["responses"] // parts,
        gradient_accumulation_steps=work["accumulate"],
        steps_per_generation=parts,
        num_generations=work["group"],
        max_completion_length=work["response_tokens"],
        max_steps=1_000_000,
        learning_rate=work["learning_rate"],
        beta=work["kl"],
        seed=work["seed"],
        gradient_checkpointing=False,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def main() -> None:
    work = json.loads(sys.argv[1])
    torch.set_num_threads(work["threads"])
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    model = AutoModelForCausalLM.from_pretrained(work["model"], dtype="float32")

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        if any(len(tokens) != work["response_tokens"] for tokens in completion_ids):
            raise ValueError("a response ended early")
        return [float(tokens[0]) for tokens in completion_ids]

    with tempfile.TemporaryDirectory() as folder:
        turns = Turns(work["minibatches"])
        trainer = Timed(
            model=model,
            reward_funcs=reward,
            args=settings(work, folder),
            train_dataset=Dataset.from_dict({"prompt": work["prompts"]}),
            processing_class=AutoTokenizer.from_pretrained(work["model"], padding_side="left"),
            callbacks=[turns],
        )
        trainer.seconds, turns.trainer = {}, trainer
        before = memory(work["device"])
        trainer.train()
    print(json.dumps({"peak_mib": memory(work["device"]), "before_mib": before}))


if __name__ == "__main__":
    main()
