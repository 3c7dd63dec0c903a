"""Our side of `benchmarks.speed.text`: takes turns in training, see `benchmarks.speed.turns`.

A turn is what a learner does: ``collect`` (write a response in every lane, and play it through the
preference environment, which keeps it), and ``update``. It tells besides how long bare writing
takes, and how long the reward model's heads take to judge what was collected.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from prefgym.text import Layout, Vocabulary
from prefgym.wrappers.vector import PreferenceVectorEnv
from prefgym_agents.language import backend as acting
from prefgym_agents.language import language_backend, sampling
from prefgym_envs.text_answers import Answers
from prefgym_envs.text_env import TextVectorEnv
from prefgym_envs.text_tasks import TextTask

LETTERS = 30
MEMBERS = 3


def repetition(prompts: int, prompt_tokens: int, response_tokens: int, seed: int = 0) -> TextTask:
    """Write the prompt's letters over and over, until there is no more room.

    Args:
        prompts: how many.
        prompt_tokens: letters of each.
        response_tokens: of a response; the last one would be the end.
        seed: which prompts.
    """
    codec = Vocabulary.of(*(f"w{number}" for number in range(LETTERS)))
    layout = Layout(codec, prompt_tokens, response_tokens)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(2, codec.size, (prompts, prompt_tokens))
    answers = Answers.of(layout, np.resize(drawn.T, (response_tokens - 1, prompts)).T.tolist())
    share = answers.right / response_tokens
    return TextTask(
        layout=layout,
        prompts=drawn,
        start=answers.start,
        next_state=answers.next_state,
        factors={"letters": share * ~answers.ends, "end": share * answers.ends},
        weights={"letters": 1.0, "end": 1.0},
    )


def environment(work: dict[str, Any], task: TextTask) -> PreferenceVectorEnv:
    """As many lanes as responses, in groups that share a prompt."""
    lanes = TextVectorEnv(task, work["responses"], samples_per_prompt=work["group"], solved=False)
    return PreferenceVectorEnv(lanes, segment_steps=1, query_every=None)


class Watch:
    """Seconds of the latest call of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *words: Any, **named: Any) -> Any:
        begun = now()
        result = self.function(*words, **named)
        self.seconds = now() - begun
        return result


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


def main() -> None:
    """Answer lines until none come."""
    work = json.loads(sys.argv[1])
    torch.set_num_threads(work["threads"])
    transformers.logging.disable_progress_bar()
    task = repetition(work["prompts"], work["prompt_tokens"], work["response_tokens"])
    writing = Watch(sampling.write)
    setattr(acting, "write", writing)  # noqa: B010  (what `collect` calls)
    backend = language_backend(
        environment(work, task),
        work["model"],
        seed=work["seed"],
        device=work["device"],
        dtype=work["dtype"],
        learning_rate=work["learning_rate"],
        minibatch=work["responses"] // work["minibatches"],
        accumulate=work["accumulate"],
        kl=work["kl"],
    )
    backend.begin(0)
    before = memory(work["device"])
    for _ in sys.stdin:
        begun, spent = now(), time.process_time()
        segments = backend.collect()
        assert segments is not None
        collected = now()
        metrics = backend.update(segments, np.asarray(segments.rewards))
        ended, cpu = now(), time.process_time() - spent
        if not segments.mask.all():
            raise ValueError("a response ended early")
        told = {
            "total": ended - begun,
            "cpu": cpu,
            "generate": writing.seconds,
            "environment": collected - begun - writing.seconds,
            "update": ended - collected,
            "gradient_steps": metrics["train/gradient_steps"],
        }
        print(json.dumps(told), flush=True)
    peak = memory(work["device"])
    rewards = Watch(backend.reward_model(MEMBERS, (), False, 0).rewards)
    scoring = []
    for _ in range(5):
        rewards(segments)
        scoring.append(rewards.seconds)
    summary = {"peak_mib": peak, "before_mib": before, "scoring": sorted(scoring)[2]}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
