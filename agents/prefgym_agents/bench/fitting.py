"""A preference model by name, fitted to what was answered."""

import math
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from prefgym.losses import PairLoss
from prefgym.metrics import sigmoid
from prefgym.models.fit import PreferenceModel, adam, fit
from prefgym.models.presets import MODELS, Asked, Preset
from prefgym.models.reward_models import PointwiseModel, reward_model
from prefgym.models.scaled_fit import scaled_fit
from prefgym.segments import Segments
from prefgym_agents.bench.clock import tensors
from prefgym_agents.bench.data import Answered, Played
from prefgym_agents.bench.own import OwnModel, is_own, own_model
from prefgym_agents.bench.suite import Size


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model after its fit."""

    model: Any
    loss: PairLoss
    accuracy: float
    """On the minibatches of the last pass over the training pairs, before each step."""

    def chances(
        self, a: Segments, b: Segments, rater_id: Int[np.ndarray, " batch"] | None = None
    ) -> Float[np.ndarray, " batch"]:
        """The mean label that the model expects, ties counting ½: P(a ≻ b) where there are none.

        Args:
            a: the first segments.
            b: the second ones.
            rater_id: who is asked, where the model tells raters apart; None asks all together.
        """
        asked = {} if rater_id is None or not _hears(self.model) else {"rater_id": rater_id}
        with tensors(), torch.no_grad():
            margins = self.model.logits(a, b, **asked).mean(0)
            return expected_label(self.loss, margins)

    @property
    def is_pointwise(self) -> bool:
        """Whether every step has a reward."""
        return isinstance(self.model, PointwiseModel)


def fitted(name: str, played: Played, answered: Answered, size: Size, seed: int) -> Fitted:
    """Make the model of that name, and fit it to the training pairs.

    Every model gets the same pairs, width, members, passes and optimizer. The rewards of a
    pointwise one are left on the scale of the training segments, and as the fit put them where
    episodes end.

    Raises:
        ValueError: a user's own model is none.
    """
    own = own_model(name) if is_own(name) else OwnModel(MODELS[name], None)
    model = made_model(own, played, answered, size, seed)
    if not isinstance(model, PreferenceModel) or not hasattr(model, "logits"):
        raise ValueError(
            f"The model {name} is a {type(model).__name__}, which cannot be fitted or asked; it"
            " needs what prefgym.models.fit.PreferenceModel has, and logits(a, b)."
        )
    with tensors():
        told = _fit(model, own.preset.loss, played, answered, size, seed)
    return Fitted(model, own.preset.loss, told["accuracy"])


def made_model(own: OwnModel, played: Played, answered: Answered, size: Size, seed: int) -> Any:
    """A model that has learned nothing."""
    if own.make is not None:
        return own.make(played.observation_space, played.action_space, seed)
    head = own.preset.head(_asked(own.preset, answered))
    if played.layout is None:
        spaces = played.observation_space, played.action_space
        return reward_model(*spaces, members=size.members, hidden=size.hidden, seed=seed, head=head)
    from prefgym.models.language import language_reward_model  # needs transformers, an extra
    from prefgym_agents.language.models import tiny_config

    config = tiny_config(played.layout, layers=1, width=size.hidden[-1])
    return language_reward_model(config, played.layout, size.members, seed=seed, head=head)


def expected_label(loss: PairLoss, margins: torch.Tensor) -> Float[np.ndarray, " batch"]:
    """The mean label of pairs with these margins, under the likelihood that a loss stands for.

    With exp(−loss) the likelihood of a label it is P(1) + ½ (1 − P(1) − P(0)): σ(margin) for the
    logistic loss, and with half of the ties for that of Rao and Kupper. A loss that is no
    likelihood (P(1) + P(0) above 1) is read as the logistic one.
    """
    first, second = (
        torch.exp(-loss(margins, torch.full_like(margins, label))).double().cpu().numpy()
        for label in (1.0, 0.0)
    )
    tie = 1.0 - first - second
    if (tie < -1e-6).any():
        return sigmoid(margins.double().cpu().numpy())
    label: np.ndarray = np.clip(first + 0.5 * tie, 0.0, 1.0)
    return label


def _asked(preset: Preset, answered: Answered) -> Asked:
    """As many tastes as there are groups of raters; two where nobody is told apart."""
    tastes = max(2, answered.groups)
    if preset.tells_raters_apart:
        tastes = min(tastes, answered.raters)
    return Asked(tastes=tastes, raters=answered.raters)


def _fit(
    model: Any, loss: PairLoss, played: Played, answered: Answered, size: Size, seed: int
) -> dict[str, float]:
    train = answered.train
    settings: dict[str, Any] = {
        "epochs": math.ceil(size.gradient_steps * size.batch_pairs / len(train)),
        "batch_pairs": size.batch_pairs,
        "loss": loss,
        "stop_accuracy": 1.0,
    }
    optimizer = adam(model, size.learning_rate, size.weight_decay)
    rng = np.random.default_rng((seed, 3))
    if not isinstance(model, PointwiseModel):
        return fit(model, train, optimizer, rng, **settings)
    model.normalise(train.a)
    model.normalise(train.b)
    return scaled_fit(model, train, optimizer, rng, train.a, played.ends, **settings)


def _hears(model: Any) -> bool:
    return "rater_id" in signature(model.logits).parameters
