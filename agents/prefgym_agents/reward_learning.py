"""Learn a reward from preferences, and a policy from that reward, in turns.

Sources: Christiano et al. (2017), arXiv:1706.03741; Lee et al. (2021), PEBBLE, arXiv:2106.05091,
and B-Pref (PrefPPO), arXiv:2111.03026.

The loop: act; when labels are due, ask about pairs of recent segments, fit the reward model, and
judge again what is still learned from; improve the policy for the learned reward. The phases
differ between the papers only by settings, so they are presets of one learner.

Given comparisons (``data=``) are learned from beside those that are asked, or, with ``labels=0``,
instead of them: before the first update for the model's rewards, and again in every session, which
also brings the rewards to the scale of what the policy does by then.

Departures from the papers. The budget is spread evenly over sessions up to ``ask_until`` of the
run. Learned rewards are divided by their standard deviation; their mean is taken off only while no
episode ever ended early, because where episodes end a constant per step changes what is best
(segments that run into an end fix that constant). Christiano's ensembles and uniform label noise
are there; his label-rate annealing is the even spread.

Metrics: ``pref/labelled``, ``pref/skipped``, ``pref/ties`` (share), ``pref/sessions``,
``pref/asked_now``, ``rater/agreement`` (share of the new labels that the model foretold),
``reward_model/loss``, ``reward_model/accuracy``, ``reward_model/epochs``,
``reward_model/gradient_steps``, ``reward_model/pairs``, ``reward_model/true_return_corr`` (for
people: over pairs that may be compared, the correlation of the two differences of returns; left out
where one does not vary), seconds as ``time/<phase>``, and what the backend says.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefgym import queries, rewards
from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.curation.by_name import curator
from prefgym.losses import PairLoss
from prefgym.metrics import accuracy, pearson
from prefgym.models.combined_features import CombinedFeatures, feature_reward_model
from prefgym.models.ensembles import Voices
from prefgym.models.features import FactorFeatures, FeatureMap, StepFeatures
from prefgym.models.fit import adam
from prefgym.models.personal_features import ImpersonalFeatures
from prefgym.models.presets import MODELS
from prefgym.models.reward_models import PointwiseModel
from prefgym.models.scaled_fit import scaled_fit
from prefgym.names import lookup
from prefgym.raters import HierarchyRater
from prefgym.segments import Segments
from prefgym.wrappers.inner import find_attribute
from prefgym.wrappers.notes import of_the_task
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.learner import Learner, acted, as_rewards, given
from prefgym_agents.people import Serving, described, reads_descriptions
from prefgym_agents.reward_settings import PRESETS, SETTINGS, Config, in_their_place
from prefgym_agents.settled_models import (
    awaited,
    check_activation,
    expected,
    fitted_to,
    loss_of,
    made,
)
from prefgym_agents.shaped_rewards import ShapedRewards

__all__ = ["PRESETS", "Config", "RewardLearning"]


class RewardLearning(Learner):
    """PEBBLE, PrefPPO and Christiano's algorithm, on any backend.

    Args:
        policy: who acts and improves; its environment is asked for preferences.
        config: the settings, or the name of a preset.
        data: comparisons to learn from beside those that are asked; with ``labels=0`` instead.
        model: a reward model of your own, or the name of a published one; by default the backend
            makes an ensemble as the settings say.
        loss: what the reward model is fitted with (``prefgym.losses``); by default that of the
            published model which the settings name, so say it with a model of your own.
        tensorboard_log: folder for TensorBoard.
        verbose: 1 prints tables.
        **changes: single settings that differ from ``config``.

    Raises:
        ValueError: unknown settings, a budget smaller than ``labels``, nothing to learn from, data
            that do not fit the environment or mean something else than its rater's labels, or a
            population that does not fit who answers.
    """

    def __init__(
        self,
        policy: PolicyBackend,
        config: Config | str = "default",
        *,
        data: PreferenceDataset | Comparisons | None = None,
        model: PointwiseModel | str | None = None,
        loss: PairLoss | None = None,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        **changes: Any,
    ) -> None:
        super().__init__(policy, tensorboard_log, verbose)
        if isinstance(config, str):
            config = lookup(config, PRESETS, "preset")
        changes = in_their_place(changes, config.earnings)
        unknown = [name for name in changes if name not in SETTINGS]
        if unknown:
            lookup(unknown[0], SETTINGS, "setting of reward learning")
        if isinstance(model, str):
            changes["model"], model = model, None
        self.config = replace(config, **changes)
        self.loss = loss_of(self.config, loss)
        self.store = self.env.store
        self._inputs = self._factors_read()
        self.data = given(self.env, data, self._inputs)
        self._check_labels()
        self.who = expected(self.env.elicitor.rater, self.data, self.config.labels)
        self.segment_steps = self.env.segment_steps
        self.env.stop_emitting()
        check_activation(self.config, bool(self._inputs), self.env.layout is not None)
        self.model = model or self._reward_model()
        self._gold: PointwiseModel | None = None
        if self.config.curate == "gold":
            self._gold = fitted_to(self._reward_model(), self.data, self.config, self.loss)
        awaited(self.model, self.config)
        self.earned = ShapedRewards(self.model, self.config.earnings)
        if self.config.earnings.serve == "inferred":
            numbers = described(self.model).shape[1]
            reads = reads_descriptions(policy)
            reads.read_descriptions(find_attribute(self.env, "people"), numbers)
        self.optimizer = adam(self.model, self.config.learning_rate)
        self.sessions = 0
        """Portions of labels asked so far."""
        self.told: dict[str, float] = {}
        """Metrics of the last session."""
        self.compared = 0
        """Pairs put to the rater in the last session, answered or not."""
        self._restarted = self.config.explore_steps == 0
        self._unread = self.data is not None

    def step(self, total_timesteps: int) -> dict[str, float] | None:
        """Act; ask, fit and judge again if labels are due; improve the policy."""
        with self.clock("env"):
            segments = self.policy.collect()
        if segments is None:
            return None
        self.earned.begin(segments)
        if self.policy.num_timesteps <= self.config.explore_steps:
            worth = self._novelty(segments)
        else:
            portions = self._due(self.policy.num_timesteps / total_timesteps)
            if portions or self._unread:
                self._session(portions, segments)
            with self.clock("reward_model"):
                worth = self.rewards(segments)
        with self.clock("policy"):
            metrics = self.policy.update(segments, worth)
        return {**metrics, **self.told}

    def rewards(self, segments: Segments) -> np.ndarray:
        """What each step earns, ``[B, T]``."""
        return self.earned(segments)

    def serving(self, voices: Voices, rater_id: Any) -> Serving:
        """The policy as it acts for raters who were not asked in training; ``serve="inferred"``.

        Args:
            voices: ``model.infer`` of some of their answers.
            rater_id: whom to serve: one of them, or one for each lane.
        """
        return Serving(self.policy, voices, np.atleast_1d(rater_id))

    def _factors_read(self) -> tuple[str, ...]:
        """Names of the factors that the reward model reads."""
        if not self.config.factors_as_inputs:
            return ()
        rater = self.env.elicitor.rater
        if isinstance(rater, HierarchyRater):
            return tuple(level.name for level in rater.levels)
        named = of_the_task(self.store.factor_names)
        if not named:
            raise ValueError(
                "factors_as_inputs=True, and this environment names no factors; set it to False."
            )
        return named

    def _reward_model(self) -> PointwiseModel:
        """As the settings say: the backend's own, or one that reads what it is told to."""
        features = self._features()
        make: Any = self.policy.reward_model
        if features is not None:
            make = partial(feature_reward_model, features, activation=self.config.activation)
        return made(self.config, make, self.who)

    def _features(self) -> FeatureMap | None:
        """What the reward model reads; None where the backend's own knows best.

        Factors, where they are wanted. Not for whom an episode is played, where raters are told
        apart by their answers.
        """
        config, env = self.config, self.env
        own = not self._inputs and config.activation == Config.activation
        spaces = env.single_observation_space, env.single_action_space
        happens: list[FeatureMap] = [] if env.layout is not None else [StepFeatures(*spaces)]
        showing = find_attribute(env, "showing")
        if happens and showing is not None and MODELS[config.model].tells_raters_apart:
            task = StepFeatures(showing.task, env.single_action_space)
            happens, own = [ImpersonalFeatures(task, showing)], False
        if own:
            return None
        factors = [FactorFeatures(self._inputs)] if self._inputs else []
        parts = [*happens, *factors]
        return parts[0] if len(parts) == 1 else CombinedFeatures(parts)

    def _session(self, portions: int, segments: Segments) -> None:
        """Ask so many portions of labels at once, and do all that follows; ``segments`` are new."""
        answers = self._ask(portions)
        known = self._known()
        if known is not None:
            agreement = {} if answers is None else {"rater/agreement": self._agreement(answers)}
            self._learn_from(known, segments)
            self.told |= agreement
        self.sessions += portions
        self.told |= self.preference_metrics(self.sessions, answers, known)

    def _known(self) -> Comparisons | None:
        """What there is to learn from: all comparisons that were given, and all that were asked."""
        parts = [] if self.data is None else [self.data]
        if len(self.env.preferences):
            parts.append(acted(self.env.preferences.comparisons, self._inputs))
        return Comparisons.concatenate(parts) if parts else None

    def _agreement(self, answers: Comparisons) -> float:
        """The share of new labels that the model foretold; ½ where nothing was decided."""
        if not len(answers):
            return 0.5
        foretold = self.model.logits(answers.a, answers.b).mean(0).cpu().numpy()
        share = accuracy(foretold, answers.label)
        return 0.5 if np.isnan(share) else share

    def _learn_from(self, comparisons: Comparisons, segments: Segments) -> None:
        """Fit the reward model, and judge again what is still learned from."""
        with self.clock("reward_model"):
            self.told = self._fit(comparisons, segments)
        with self.clock("policy"):
            if self.config.earnings.serve == "inferred":
                reads_descriptions(self.policy).describe(described(self.model))
            self.policy.relabel(self.rewards)
            if not self._restarted:
                self.policy.restart_values()
                self._restarted = True

    def _due(self, progress: float) -> int:
        """Portions whose time has come and which were not asked: evenly spread to ``ask_until``."""
        config = self.config
        idle = self.data is None and self._missing() == 0
        if idle or self.policy.num_timesteps < config.start_steps:
            return 0
        if self.store.starts(self.segment_steps, recent=config.recent_steps) < 2:
            return 0
        reached = 1 + int(config.sessions * min(1.0, progress / config.ask_until))
        return min(reached, config.sessions) - self.sessions

    def _missing(self) -> int:
        """Labels still to be asked for, in all."""
        return self.config.labels - len(self.env.preferences)

    def _ask(self, portions: int) -> Comparisons | None:
        """Choose pairs among candidates, and put them to the environment's rater."""
        config = self.config
        if not portions or self._missing() < 1:
            return None
        count = -(-self._missing() * portions // (config.sessions - self.sessions))
        rng = np.random.default_rng((config.seed, self.sessions))
        pool = count if self.sessions == 0 else count * config.candidates
        with self.clock("reward_model"):
            a, b = self.env.sample_pairs(pool, rng, recent=config.recent_steps)
            chosen = self._choose(a, b, count, rng)
        self.compared = count
        with self.clock("rater"):
            answers: Comparisons = self.env.compare(a.take(chosen), b.take(chosen))
        return answers

    def _choose(self, a: Segments, b: Segments, count: int, rng: np.random.Generator) -> np.ndarray:
        kind = "uniform" if self.sessions == 0 else self.config.queries
        if kind == "uniform":
            return queries.uniform(len(a), count, rng)
        if kind == "k-centre":
            return queries.k_centre(self._outline(a, b), count, rng)
        with torch.no_grad():
            logits = self.model.logits(a, b).cpu().numpy()
        rank = {"disagreement": queries.disagreement, "entropy": queries.entropy}[kind]
        return rank(logits, count)

    def _outline(self, a: Segments, b: Segments) -> np.ndarray:
        """What both segments of each pair are like, ``[B, 2 * numbers]``."""
        return torch.cat([self.model.outline(side) for side in (a, b)], 1).cpu().numpy()

    def _fit(self, comparisons: Comparisons, segments: Segments) -> dict[str, float]:
        config = self.config
        seen = self._seen(segments)
        self.model.normalise(seen)
        if self.data is not None and self._unread:
            self.model.normalise(self.data.a)
            self.model.normalise(self.data.b)
            self._unread = False
        epochs = self._passes(len(comparisons))
        voters = self.model if self.sessions else None
        trusted = len(self.data or ())
        comparisons, router = self._apart(comparisons)
        curate = curator(
            config.curate, config.wrong, epochs, comparisons, voters, self._gold, trusted
        )
        told = scaled_fit(
            self.model,
            comparisons,
            self.optimizer,
            np.random.default_rng((config.seed, self.sessions, 1)),
            scale=seen,
            ends=self.store.any_terminated,
            router=router,
            epochs=epochs,
            batch_pairs=config.batch_pairs,
            loss=self.loss,
            stop_accuracy=1.0 if curate else config.stop_accuracy,
            curate=curate,
        )
        self.earned.refitted()
        return {f"reward_model/{name}": value for name, value in told.items()} | self._truth()

    def _apart(self, comparisons: Comparisons) -> tuple[Comparisons, Comparisons | None]:
        """Those that tastes are fitted to, and those that the router alone is adapted to."""
        kept = min(self.config.hedge, len(comparisons) // 2)
        if not kept:
            return comparisons, None
        rows = np.arange(len(comparisons))
        return comparisons.take(rows[:-kept]), comparisons.take(rows[-kept:])

    def _seen(self, segments: Segments) -> Segments:
        """Segments of the store, as long as those compared; the newest where it has none yet."""
        steps = self.segment_steps
        if not self.store.starts(steps):
            return segments
        rng = np.random.default_rng((self.config.seed, self.sessions, 2))
        found: Segments = self.store.segments(self.store.sample(256, steps, rng), steps)
        return found

    def _truth(self) -> dict[str, float]:
        """How the learned reward tells apart what may be compared, beside the true one."""
        rng = np.random.default_rng((self.config.seed, self.sessions, 4))
        try:
            pairs = self.env.sample_pairs(256, rng)
        except ValueError:  # nothing can be compared yet
            return {}
        learned = np.subtract(*(self.rewards(side).sum(1) for side in pairs))
        known = pearson(learned, np.subtract(*(side.rewards.sum(1) for side in pairs)))
        return {} if np.isnan(known) else {"reward_model/true_return_corr": known}

    def _passes(self, pairs: int) -> int:
        """How often a session's fitting may pass over so many comparisons."""
        steps_per_pass = -(-pairs // self.config.batch_pairs)
        return max(self.config.epochs, -(-self.config.fit_steps // steps_per_pass))

    def _novelty(self, segments: Segments) -> np.ndarray:
        """How far each state is from its nearest ones among those seen: an estimate of entropy."""
        if segments.observations is None:
            raise ValueError(
                f"explore_steps={self.config.explore_steps} rewards new states, but the segments of"
                " this environment hold no observations; set explore_steps=0."
            )
        with self.clock("reward_model"):
            rng = np.random.default_rng((self.config.seed, self.policy.num_timesteps, 3))
            among = self.store.segments(self.store.sample(2048, 1, rng), 1).context
            worth = rewards.state_entropy(segments.observations, among, self.config.neighbours)
            return as_rewards(worth)

    def _check_labels(self) -> None:
        """Refuse labels beyond the budget, of two meanings, or none at all."""
        labels, data = self.config.labels, self.data
        if data is None and not labels:
            raise ValueError("labels=0 leaves nothing to learn from; ask for some, or give data=.")
        self.check_budget(labels)
        meaning = self.env.preferences.meaning
        asked = labels or len(self.env.preferences)
        if data is not None and asked and data.meaning != meaning:
            raise ValueError(
                f"The labels of data= mean {data.meaning!r}, and those of this environment's rater"
                f" {meaning!r}, which one model cannot learn from; ask none (labels=0), or say that"
                f" they mean the same with data.replace(meaning={meaning!r})."
            )

    def state(self) -> dict[str, Any]:
        """Reward model, its optimizer, and where the schedule stands."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sessions": self.sessions,
            "told": self.told,
            "restarted": self._restarted,
            "earned": self.earned.state(),
            "unread": self._unread,
            "given": len(self.data or ()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        if state["given"] != len(self.data or ()):
            raise ValueError(
                f"it learned from {state['given']} given comparisons, and data= holds"
                f" {len(self.data or ())}"
            )
        self.model.load_state_dict(state["model"])
        self.earned.restore(state["earned"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sessions, self.told = state["sessions"], dict(state["told"])
        self._restarted, self._unread = state["restarted"], state["unread"]
