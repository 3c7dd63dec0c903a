"""A causal language model as a policy backend: whole responses are written, judged, learned from.

``collect`` writes a response in every lane of a text environment and plays it there; ``update``
improves the model by PPO, GRPO, RLOO or P3O (``updates.py``), given what each token was
worth. The reference is the model as it was when the backend was made: a frozen copy, or the model
with its adapters switched off.

Metrics: ``train/loss``, ``train/entropy`` (mean of −log π of the sampled tokens, nats),
``train/approx_kl`` (old to new policy, nats per token), ``train/clip_fraction``,
``train/grad_norm`` (before it is shortened), ``train/gradient_steps``, ``train/kl`` (log-ratio to
the reference, nats per response, where something pulls to it), ``train/value_loss`` (PPO).
"""

from collections import deque
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger
from torch import Tensor

from prefgym.interventions.supervision import INTERVENED, Running
from prefgym.models.heads import HeadFactory
from prefgym.models.language import LanguageRewardModel
from prefgym.segments import Segments
from prefgym.text import Layout
from prefgym.wrappers.inner import find_attribute
from prefgym.wrappers.notes import PERSON
from prefgym_agents.backend import RewardFunction
from prefgym_agents.callbacks import as_callback
from prefgym_agents.language.models import save
from prefgym_agents.language.packing import pack, pack_tokens
from prefgym_agents.language.people import (
    addressed,
    described_tokens,
    impersonal,
    tell_apart,
)
from prefgym_agents.language.policy import LanguagePolicy, scores
from prefgym_agents.language.reference import Reference
from prefgym_agents.language.sampling import Written, choose, write
from prefgym_agents.language.steps import GradientSteps, Loss
from prefgym_agents.language.takeovers import Takeovers
from prefgym_agents.language.updates import Config, Lesson, lesson
from prefgym_agents.language.weights import fingerprint, gathered, load_weights, weights_of
from prefgym_agents.processes import Processes

RECENT = 100
"""Responses that episode statistics are taken over."""


class LanguageBackend:
    """A language model in a text environment; made by :mod:`prefgym_agents.language.making`.

    Args:
        env: a preference environment with a ``layout``.
        policy: the model.
        config: how it acts and improves.
        adapters: peft's face of the model, where it has adapters.
        seed: of the responses, and of the environment.
        processes: that train together.
    """

    def __init__(
        self,
        env: Any,
        policy: LanguagePolicy,
        config: Config,
        *,
        adapters: Any = None,
        seed: int | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.env = env
        self.layout: Layout = env.layout
        self.policy = policy
        self.model = policy.model
        """Of transformers; adapters are inside."""
        self.config = config
        self.adapters = adapters
        self.processes = processes or Processes()
        self.logger = Logger(folder=None, output_formats=[])
        self._get_ready()
        self._seed, *streams = _seeds(seed, self.processes.number)
        self._generators = {
            name: torch.Generator().manual_seed(one)
            for name, one in zip(("write", "deal", "predict"), streams, strict=True)
        }
        self._callback: BaseCallback = CallbackList([])
        self._begun = False
        self._tokens = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._written: tuple[Segments, Written] | None = None
        self.running: Running | None = find_attribute(env, "running")
        """Who may take over tokens, in an environment made with ``supervision=``."""
        self.own_steps_only = False
        """Learn nothing about tokens that somebody else wrote."""

    def _get_ready(self) -> None:
        """The reference and the optimizer, for the policy as it is now."""
        self.reference = Reference(self.policy, self.adapters)
        if self.config.kl > 0.0 or self.processes.sharded:  # shards cannot be copied later
            self.reference.keep()
        self.steps = GradientSteps(self.policy, self.layout, self.config, self.processes)

    # -- acting -------------------------------------------------------------------------------

    @property
    def num_timesteps(self) -> int:
        """Tokens written, over all lanes and processes."""
        return self._tokens

    @property
    def steps_per_collect(self) -> int:
        """Tokens of one :meth:`collect`, at most."""
        lanes: int = self.env.num_envs
        return lanes * self.layout.response_tokens * self.processes.count

    @property
    def has_log_prob(self) -> bool:
        """Always."""
        return True

    def get_env(self) -> Any:
        """The environment, as callbacks ask for it."""
        return self.env

    def begin(self, total_timesteps: int, callback: Any = None) -> None:
        """Get ready for a call of ``learn``; the environment is reset the first time only."""
        if not self._begun:
            self.env.reset(seed=self._seed)
            self._begun = True
        self._callback = as_callback(callback, self)
        self._callback.on_training_start({}, {})

    def end(self) -> None:
        """Tell the callback that training is over."""
        self._callback.on_training_end()

    def collect(self) -> Segments | None:
        """Write and play a response in every lane; None when a callback asked to stop."""
        self._callback.on_rollout_start()
        seen = self.env.observations()
        prompts, person = self.layout.split(seen)[0].copy(), self.layout.person(seen)
        watching = None
        if self.running is not None:
            watching = Takeovers(self.running, self.layout, prompts, person)
        written = write(
            self.policy,
            self.layout,
            addressed(self.model, prompts, person),
            generator=self._generators["write"],
            rows_at_once=self.config.generation_batch,
            anyone=self.processes.any if self.processes.sharded else None,
            takeovers=watching,
        )
        told = None if watching is None else watching.factors
        segments: Segments = self.env.play(written.actions, written.mask, told)
        self._written = (self._addressed(segments), written)
        lengths = written.mask.sum(1)
        self._tokens += int(self.processes.sum(torch.tensor(lengths.sum())))
        if segments.rewards is not None:
            returns = np.asarray(segments.rewards).sum(1)
            self._recent.extend(zip(returns.tolist(), lengths.tolist(), strict=True))
        going_on = self._callback.on_step()
        self._callback.on_rollout_end()
        return segments if going_on else None

    def episode_statistics(self) -> dict[str, float]:
        """Mean true return and length of recent responses, under Stable-Baselines3's names."""
        if not self._recent:
            return {}
        returns, lengths = zip(*self._recent, strict=True)
        return {
            "rollout/ep_rew_mean": float(np.mean(returns)),
            "rollout/ep_len_mean": float(np.mean(lengths)),
        }

    @torch.no_grad()
    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """The next token of every response in a batch of observations."""
        seen = np.asarray(observation)
        prompts, responses, lengths = self.layout.split(seen)
        prompts = addressed(self.model, prompts, self.layout.person(seen))
        asked = np.pad(responses, ((0, 0), (0, 1)))
        upto = np.arange(asked.shape[1]) <= lengths[:, None]
        packed = pack_tokens(self.layout, prompts, asked, upto).to(self.policy.device)
        last = packed.place[torch.from_numpy(upto.sum(1).cumsum() - 1).to(packed.place.device)]
        logits = self.policy(packed.tokens, last).logits
        draws = None
        if not deterministic:
            draws = torch.rand(len(prompts), generator=self._generators["predict"])
            draws = draws.to(logits.device)
        return choose(logits, draws).cpu().numpy(), None

    # -- improving ----------------------------------------------------------------------------

    def update(self, segments: Segments, rewards: np.ndarray) -> dict[str, float]:
        """Improve the policy, given what each token that was written is worth, ``[B, T]``."""
        plain = self._addressed(segments)
        taught, metrics = self._lesson(plain, np.asarray(rewards))
        self.reference.moved = True
        return metrics | self.steps.improve(plain, taught, self._generators["deal"])

    @property
    def has_replay(self) -> bool:
        """No: responses are learned from once."""
        return False

    def relabel(self, rewards: RewardFunction, episodes: np.ndarray | None = None) -> None:
        """Nothing: responses are forgotten once they were learned from."""

    def restart_values(self) -> None:
        """The value head begins at 0 again."""
        if self.policy.value_head is not None:
            with torch.no_grad():
                for one in self.policy.value_head.parameters():
                    one.zero_()
            self.steps.optimizer.follow()

    def log_prob(self, segments: Segments) -> Tensor:
        """Log-probability of each token, ``[B, T]``, with gradient; zero on padding."""
        meant = self._addressed(segments)
        packed = pack(self.layout, meant, self.policy.reads_apart).to(self.policy.device)
        return packed.unflatten(self.policy(*packed.inputs)[0])

    def reference_log_prob(self, segments: Segments) -> Tensor:
        """As :meth:`log_prob`, under the policy as it was in the beginning, without gradient.

        Raises:
            RuntimeError: the policy has learned, and no copy was kept (:meth:`keep_reference`).
        """
        return self._under_reference(self._addressed(segments))

    def keep_reference(self) -> None:
        """Keep a copy of the policy as it is in the beginning; with adapters nothing is needed."""
        self.reference.keep()

    def fit(self, loss: Loss, segments: Segments) -> dict[str, float]:
        """One gradient step on ``loss(log_prob(segments))``."""
        self.reference.moved = True
        return self.steps.fit(loss, self._addressed(segments))

    def reward_model(
        self,
        members: int,
        hidden: Sequence[int],
        tanh: bool,
        seed: int,
        head: HeadFactory | None = None,
    ) -> LanguageRewardModel:
        """Heads on a copy of the model as it is now; no layers are made, so ``hidden`` is idle."""
        trunk = self._merged().get_decoder().float().requires_grad_(True)
        return LanguageRewardModel(trunk, self.layout, members, tanh, seed, head)

    # -- for somebody -------------------------------------------------------------------------

    def read_descriptions(self, people: int, numbers: int) -> None:
        """Read so many numbers about each person, in place of a flag; before training.

        Raises:
            ValueError: several processes train together, or the policy has learned already.
        """
        if self.processes.count > 1 or self.reference.moved:
            raise ValueError(
                "serve='inferred': a language model that has learned already, or that several"
                " processes train, cannot change what it reads; make a new backend in one process."
            )
        tell_apart(self.model, people, numbers)
        self._get_ready()

    def describe(self, table: Tensor) -> None:
        """Read these descriptions from now on, ``[people, numbers]``."""
        tokens = described_tokens(self.model)
        if tokens is not None:
            tokens.descriptions.copy_(table)

    def descriptions(self) -> Tensor | None:
        """Those that are read, copied; None where the policy sees who it is."""
        tokens = described_tokens(self.model)
        if tokens is None or tokens.flags:
            return None
        return tokens.descriptions.cpu().clone()

    # -- keeping ------------------------------------------------------------------------------

    def save_pretrained(self, directory: str | Path) -> None:
        """Write model and tokenizer for ``AutoModelForCausalLM.from_pretrained``.

        Adapters are merged into the weights. The value head, the optimizer and everything else
        that a run needs to go on is in :meth:`get_state`, not here. Of a policy that writes for
        somebody, it is what it would write for nobody in particular.
        """
        merged = self._merged()
        if self.processes.number == 0:
            save(merged, self.layout.codec, directory)

    def snapshot(self) -> dict[str, np.ndarray]:
        """The parameters that learn, copied; in float32, whatever they are kept in."""
        return {name: one.numpy() for name, one in weights_of(self.policy).items()}

    def load_snapshot(self, parameters: Mapping[str, Any]) -> None:
        """Act as a :meth:`snapshot` did; arrays or tensors."""
        self.reference.moved = True
        load_weights(self.policy, parameters)
        self.steps.optimizer.follow()

    def load_policy(self, state: Mapping[str, Any]) -> None:
        """Act as the policy of a :meth:`get_state` did."""
        self.load_snapshot(state["parameters"]["policy"])

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what happens next, the environment included."""
        frozen = self.reference.frozen
        return {
            "settings": {**vars(self.config), "inspect": str(self.config.inspect)},
            "parameters": {"policy": weights_of(self.policy)},
            "frozen": fingerprint(self.policy),
            "reference": None if frozen is None else weights_of(frozen, all_of_them=True),
            "moved": self.reference.moved,
            "optimizer": self.steps.optimizer.state_dict(),
            "generators": {name: one.get_state() for name, one in self._generators.items()},
            "counters": [self._tokens, self.steps.taken],
            "begun": self._begun,
            "recent": [list(one) for one in self._recent],
            "env": self.env.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`get_state`.

        Raises:
            ValueError: it was saved under other settings, or the weights that do not learn are
                other ones.
        """
        self.config.check_same(state.get("settings", {}))
        if fingerprint(self.policy) != state["frozen"]:
            raise ValueError(
                "the weights below the adapters are not those that it was saved with; make the"
                " backend with the same model and seed"
            )
        self.env.set_state(state["env"])
        load_weights(self.policy, state["parameters"]["policy"])
        self.reference.set_state(state)
        self.steps.optimizer.load_state_dict(state["optimizer"])
        for name, generator in self._generators.items():
            generator.set_state(state["generators"][name])
        self._tokens, self.steps.taken = state["counters"]
        self._begun = state["begun"]
        self._recent.clear()
        self._recent.extend((value, length) for value, length in state["recent"])
        self._written = None

    # -- inside -------------------------------------------------------------------------------

    def _lesson(self, segments: Segments, rewards: np.ndarray) -> tuple[Lesson, dict[str, float]]:
        device = self.policy.device
        old, value = self._as_written(segments)
        reference = self._under_reference(segments) if self.config.kl > 0.0 else None
        mask, context = (torch.as_tensor(x) for x in (segments.mask, segments.context_id))
        worth = torch.as_tensor(rewards, dtype=torch.float32)
        own = mask
        if INTERVENED in segments.factors:
            own = mask & (torch.as_tensor(segments.factors[INTERVENED]) == 0.0)
        return lesson(
            self.config,
            mask.to(device),
            context.to(device),
            worth.to(device),
            old,
            reference,
            value,
            self.processes,
            own.to(device),
            (own if self.own_steps_only else mask).to(device),
        )

    def _under_reference(self, segments: Segments) -> Tensor:
        with self.reference.acting() as policy:
            return self._scores(policy, segments)[0]

    def _as_written(self, segments: Segments) -> tuple[Tensor, Tensor]:
        """What was noted when these responses were written; found out anew for other ones."""
        if self._written is not None:
            noted_of, written = self._written
            same = np.array_equal(segments.mask, written.mask) and np.array_equal(
                segments.context, noted_of.context
            )
            if same and np.array_equal(segments.actions * segments.mask, written.actions):
                noted = (torch.from_numpy(x) for x in (written.log_prob, written.value))
                log_prob, value = (one.to(self.policy.device) for one in noted)
                return log_prob, value
        return self._scores(self.policy, segments)

    def _scores(self, policy: LanguagePolicy, segments: Segments) -> tuple[Tensor, Tensor]:
        return scores(policy, self.layout, segments, self.config.generation_batch)

    def _merged(self) -> Any:
        """A copy of the model on this device, without adapters, that writes for nobody."""
        if self.processes.sharded:
            return gathered(self.model)
        if self.adapters is None:
            return impersonal(deepcopy(self.model))
        return impersonal(deepcopy(self.adapters).merge_and_unload())

    def _addressed(self, segments: Segments) -> Segments:
        """Responses with prompts as the model reads them; groups are of one prompt and person.

        Raises:
            ValueError: they do not say for whom they were written, and the model wants to know.
        """
        plain, people = segments.numpy(), self.layout.people
        if not people:
            return plain
        if PERSON not in plain.factors:
            raise ValueError(
                "These responses do not say for whom they were written, and this environment was"
                f" made with personal={people}; give segments with the factor {PERSON!r}."
            )
        person = np.asarray(plain.factors[PERSON])[:, 0].astype(np.int64)
        prompts = addressed(self.model, plain.context, person)
        return plain.replace(context=prompts, context_id=plain.context_id * people + person)


def _seeds(seed: int | None, process: int) -> list[int]:
    """Of the environment, and of three streams of random numbers; each process has its own."""
    entropy = None if seed is None else (seed, process)
    drawn = np.random.SeedSequence(entropy).generate_state(4, np.uint64)
    first = int(drawn[0] >> 33) if seed is None or process else seed
    return [first, *(int(one >> 1) for one in drawn[1:])]
