"""HERON: a reward from an order of factors, and a policy from that reward, in turns.

Source: Bukharin et al. (2023), arXiv:2309.02632.

Someone says which measurements matter more than which, and by how much two must differ to be told
apart; nobody says what they are worth. The loop: act; compare recent pairs by the hierarchy; fit
the reward model to what it decided; judge again what is still learned from; improve the policy for
the learned reward. Comparisons are measured and not asked of people, so there are many, but they
are counted like all others.

The hierarchy is the environment's rater (``rater="heron"``, :mod:`prefgym.raters.hierarchies`), so
that any learner can learn from it; this one has the paper's order of events, its reward model
(one network, which reads the factors beside what happens) and pairs of what was done lately.

Departures from the paper and its code. The policy always learns from the reward model, and what a
replay holds is judged anew whenever the model was fitted. Comparisons of earlier sessions are kept,
and every session fits to all of them. Segments are as long as the environment makes them, a single
step being what the released code compares.

Metrics: those of :mod:`prefgym_agents.reward_learning`, with ``pref/skipped`` for the pairs that no
factor decides, ``rater/undecided`` for their share in the last session, and
``rater/decided_by_<factor>`` for the shares of the others.
"""

from pathlib import Path
from typing import Any

from prefgym.comparisons import Comparisons, PreferenceDataset
from prefgym.models.reward_models import PointwiseModel
from prefgym.names import lookup
from prefgym.raters import HierarchyRater
from prefgym.raters.hierarchies import UNDECIDED
from prefgym_agents.backend import PolicyBackend
from prefgym_agents.reward_learning import RewardLearning
from prefgym_agents.reward_settings import Config

MEANING = "hierarchy"

PRESETS: dict[str, Config] = {
    "default": Config(
        labels=10_000,
        sessions=20,
        ask_until=1.0,
        queries="uniform",
        candidates=1,
        recent_steps=10_000,
        members=1,
        hidden=(64, 64),
        learning_rate=1e-3,
        batch_pairs=128,
        stop_accuracy=1.0,
        factors_as_inputs=True,
    ),
    "paper": Config(
        labels=10_000,
        sessions=20,
        ask_until=1.0,
        queries="uniform",
        candidates=1,
        recent_steps=None,
        members=1,
        hidden=(256, 256),
        learning_rate=1e-4,
        batch_pairs=128,
        epochs=10,
        stop_accuracy=1.0,
        factors_as_inputs=True,
    ),
}


class HERON(RewardLearning):
    """Reward learning from a hierarchy of factors, on any backend.

    Args:
        policy: who acts and improves; its environment was made with ``rater="heron"``.
        config: the settings, or the name of a preset.
        data: comparisons by a hierarchy to learn from beside those that are made.
        model: a reward model of your own; by default one that reads the factors too.
        tensorboard_log: folder for TensorBoard.
        verbose: 1 prints tables.
        **changes: single settings that differ from ``config``.

    Raises:
        ValueError: the environment's rater is no hierarchy, and whatever reward learning refuses.
    """

    def __init__(
        self,
        policy: PolicyBackend,
        config: Config | str = "default",
        *,
        data: PreferenceDataset | Comparisons | None = None,
        model: PointwiseModel | str | None = None,
        tensorboard_log: str | Path | None = None,
        verbose: int = 0,
        **changes: Any,
    ) -> None:
        meaning = policy.env.preferences.meaning
        if meaning != MEANING:
            raise ValueError(
                f"HERON compares by a hierarchy of factors, and the labels of this environment's"
                f" rater mean {meaning!r}; make it with rater='heron' and rater_kwargs={{'factors':"
                " '-one,other', 'margins': 0.5}."
            )
        if isinstance(config, str):
            config = lookup(config, PRESETS, "preset")
        super().__init__(
            policy,
            config,
            data=data,
            model=model,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            **changes,
        )

    def preference_metrics(
        self, sessions: int, answers: Comparisons | None, learned_from: Comparisons | None
    ) -> dict[str, float]:
        """The scalars ``pref/...``, and who decided in this session."""
        told = super().preference_metrics(sessions, answers, learned_from)
        rater = self.env.elicitor.rater
        if answers is None or not isinstance(rater, HierarchyRater):
            return told
        decided = len(answers) / max(self.compared, 1)
        shares = rater.shares_decided(answers.a, answers.b) if len(answers) else {}
        by = {f"rater/decided_by_{name}": decided * share for name, share in shares.items()}
        by.pop(f"rater/decided_by_{UNDECIDED}", None)
        return {**told, **by, "rater/undecided": 1.0 - decided}
