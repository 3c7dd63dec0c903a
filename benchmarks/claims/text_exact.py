"""Language models that learn near a reference end where the exact optimum says they should.

The task is so small that every response can be listed (8 prompts, 341 responses each), so that the
value of a policy, mean return − β · KL(π ‖ π_start), is a sum and not an estimate, and its optimum
is known in closed form: π* ∝ π_start exp(return / β), worth β log E_start exp(return / β). With
β = 0.5 the optimum is far from greedy: a model that only collects reward ends far below it.

A tiny GPT-2, pretrained on the task's demonstrations, is trained four ways: by RLOO, PPO and P3O on
the true reward with the distance to the start charged at β, and by DPO at a matching temperature
(labels are the probabilities σ(2 (return_a − return_b)), and its β = 1, so that its optimum is the
same π*). What is reported is the share of the gap from the start's value to the optimum, and the
value over the optimum's, each for the worst of three seeds.

GRPO is a figure and no claim: it divides advantages by each prompt's deviation and descends the
estimate k3 of the distance, so that its optimum is another one. DPO is a figure too: on 1,000
labels its share of the gap is above 95 % on average, but not in every seed.

Controls: RLOO without the pull to the start (β = 0) ends far below the optimum; and what was
trained near one reference is far from the optimum near another one (that of the next prompt).

Source of the closed form: Rafailov et al. (2023), eq. 3 to 5, arXiv:2305.18290.
"""

from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import prefgym  # noqa: F401
from benchmarks.claims.claim import ClaimResult, Row
from prefgym.segments import Segments
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.direct import DirectPreference
from prefgym_agents.language import language_backend
from prefgym_agents.language.models import causal_model
from prefgym_agents.language.pretraining import PretrainingConfig, pretrain
from prefgym_agents.oracle import TrueReward

KEY = "text_exact"
CLAIM = "Near a reference, a trained language model is worth what the exact optimum is worth."

ENV = "prefgym/TextCopy-v0"
BETA = 0.5
"""Worth of a nat of distance to the start, in units of reward."""
STEPS, LABELS = 80_000, 1_000
SEEDS = 3
"""Trainings of everything."""
WITHIN = 0.05
"""Of the optimum; of the gap to it, and of its value."""
ASTRAY = 0.5
"""What the controls stay below: a share of the gap, or of the optimum's value."""
ALGORITHMS = ("RLOO", "PPO", "P3O")


class Task:
    """The start, the optimum, and the exact value of any policy between them.

    Args:
        seed: of the model and its pretraining.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        env = self.make("partial-return")
        self.task = env.get_wrapper_attr("task")
        layout = env.get_wrapper_attr("layout")
        self.model = causal_model(None, layout, seed=seed)
        examples = self.task.demonstrations(4_000, np.random.default_rng(seed))
        pretrain(self.model, layout, examples, PretrainingConfig(epochs=5, seed=seed))
        self.reference = self.log_prob(self.backend(env))
        self.start = self.value(self.reference)
        self.best = float(self.task.kl_optimal(self.reference, BETA)[0].mean())

    def make(self, rater: str, **rater_kwargs: Any) -> Any:
        """The environment, with somebody to ask."""
        return gym.make_vec(
            ENV,
            num_envs=128,
            samples_per_prompt=16,
            rater=rater,
            rater_kwargs=rater_kwargs,
            query_every=None,
            budget=LABELS,
        )

    def backend(self, env: Any, **changes: Any) -> PolicyBackend:
        """The start again, to be trained."""
        return language_backend(env, deepcopy(self.model), seed=self.seed, **changes)

    @torch.no_grad()
    def log_prob(self, policy: PolicyBackend) -> np.ndarray:
        """Of every response to every prompt, ``[prompts, responses]``."""
        actions, mask = self.task.all_responses()
        of_prompts = []
        for number, prompt in enumerate(self.task.prompts):
            every = Segments(
                actions=actions,
                mask=mask,
                context=np.tile(prompt, (len(actions), 1)),
                context_id=np.full(len(actions), number),
            )
            of_prompts.append(policy.log_prob(every).double().sum(1).cpu().numpy())
        return np.stack(of_prompts)

    def value(self, log_prob: np.ndarray) -> float:
        """Mean return − β · KL to the start, over all prompts."""
        return float(self.task.kl_value(log_prob, self.reference, BETA).mean())

    def reinforced(self, algorithm: str, kl: float) -> np.ndarray:
        """Log-probabilities after training on the true reward."""
        policy = self.backend(
            self.make("partial-return"), algorithm=algorithm, kl=kl, learning_rate=3e-4
        )
        TrueReward(policy).learn(STEPS)
        return self.log_prob(policy)

    def direct(self) -> np.ndarray:
        """Log-probabilities after DPO on soft labels, in two rounds."""
        env = self.make("partial-return", beta=1.0 / BETA, soft=True)
        policy = self.backend(env, learning_rate=1e-3)
        DirectPreference(
            policy,
            "dpo",
            beta=1.0,
            labels=LABELS,
            rounds=2,
            epochs=20,
            batch_pairs=64,
            seed=self.seed,
        ).learn(STEPS // 4)
        return self.log_prob(policy)

    def elsewhere(self, log_prob: np.ndarray) -> float:
        """The value near the start's answers to the next prompt, over the optimum's there."""
        other = np.roll(self.reference, 1, axis=0)
        value = self.task.kl_value(log_prob, other, BETA).mean()
        return float(value / self.task.kl_optimal(other, BETA)[0].mean())

    def share(self, value: float) -> float:
        """Of the gap between the start and the optimum."""
        return (value - self.start) / (self.best - self.start)


def run(seed: int, quick: bool) -> ClaimResult:
    """Three seeds of four ways to the optimum, and of what misses it; when quick, one of PPO."""
    torch.set_num_threads(1)
    seeds = [SEEDS * seed + k for k in range(1 if quick else SEEDS)]
    told = [trained(one, quick) for one in seeds]
    found = {name: np.array([one[name] for one in told]) for name in told[0]}
    names = ("PPO",) if quick else ALGORITHMS
    rows, controls = [], []
    for name in names:
        share, over = (float(found[f"{name}{what}"].min()) for what in ("", "_over_best"))
        rows += [
            Row(f"{name}: smallest share of the gap to the optimum", share, ">=", 1.0 - WITHIN),
            Row(f"{name}: smallest value over the optimum's", over, ">=", 1.0 - WITHIN),
        ]
        other = float(found[f"{name}_elsewhere"].max())
        controls.append(Row(f"{name}, another reference: value / optimum", other, "<=", ASTRAY))
    if not quick:
        highest = float(found["without_pull"].max())
        controls.append(Row("RLOO without pull: largest share of the gap", highest, "<=", ASTRAY))
    figures = {name: float(values.mean()) for name, values in found.items()}
    figures |= {
        f"{name}_min": float(found[name].min()) for name in (*names, "DPO") if name in found
    }
    return ClaimResult(KEY, CLAIM, seed, rows, controls, figures | {"seeds": float(len(seeds))})


def trained(seed: int, quick: bool) -> dict[str, float]:
    """Shares of the gap by name, and where the gap begins and ends."""
    task = Task(seed)
    found = {"start": task.start, "best": task.best}
    ends = {"PPO": task.reinforced("PPO", BETA)}
    if not quick:
        ends |= {name: task.reinforced(name, BETA) for name in ("RLOO", "P3O")}
        ends["DPO"] = task.direct()
        found["GRPO"] = task.share(task.value(task.reinforced("GRPO", BETA)))
        found["without_pull"] = task.share(task.value(task.reinforced("RLOO", 0.0)))
    for name, log_prob in ends.items():
        value = task.value(log_prob)
        found |= {name: task.share(value), f"{name}_over_best": value / task.best}
        found[f"{name}_elsewhere"] = task.elsewhere(log_prob)
    return found
