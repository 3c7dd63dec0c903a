"""The preference model that settings ask for, and whether it fits who answers: said at once."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from prefgym.comparisons import Comparisons
from prefgym.losses import PairLoss, lapsing, logistic
from prefgym.models.ensembles import Ensemble
from prefgym.models.fit import adam, fit
from prefgym.models.heads import HeadFactory
from prefgym.models.presets import MODELS, model_head
from prefgym.models.reward_models import PointwiseModel
from prefgym.raters.populations import Population
from prefgym_agents.reward_settings import Config

BY_SHARES = ("query", "session", "context")
"""Rules under which a rater without a share never answers."""


def answering(rater: Any) -> tuple[int, ...] | None:
    """The ids under which a rater answers, in order; None where it does not say."""
    if not isinstance(rater, Population):
        own = getattr(rater, "rater_id", None)
        return None if own is None else (int(own),)
    told = rater.ids or [getattr(one, "rater_id", None) for one in rater.raters]
    shares = rater.weights or ()
    asked = [
        one
        for one, share in zip(told, shares, strict=True)
        if share > 0.0 or rater.rule not in BY_SHARES
    ]
    known = [one for one in asked if one is not None]
    if len(known) < len(asked):
        return None
    people = range(rater.people)
    return tuple(sorted(one * rater.people + person for one in known for person in people))


def expected(rater: Any, data: Comparisons | None, labels: int) -> tuple[int, ...] | None:
    """The ids of all who answer in a run: the asked, if any are, and those of given comparisons."""
    asked = answering(rater) if labels else ()
    if asked is None:
        return None
    given = () if data is None else np.unique(data.rater_id).tolist()
    return tuple(sorted({*asked, *given}))


def check_room(config: Config, ids: tuple[int, ...] | None) -> None:
    """Refuse a population that does not fit who answers, where that is known.

    Raises:
        ValueError: raters beyond it, or fewer than it wants to tell apart.
    """
    if ids is None or not MODELS[config.model].tells_raters_apart:
        return
    some = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
    room = ids[-1] + 1
    if ids[0] < 0 or config.population < room:
        raise ValueError(
            f"population={config.population} has room for the raters 0 to {config.population - 1},"
            f" and the raters {some} answer; say population={room}, or give them ids that count"
            " from 0."
        )
    if len(ids) == 1:
        raise ValueError(
            f"model={config.model!r} tells raters apart, and all answers carry the rater id"
            f" {ids[0]}; choose a rater of several people (two-groups, experts, ...), data whose"
            " rater_id says who answered, or model='bt'."
        )
    if config.population > room:
        raise ValueError(
            f"population={config.population}, and only {len(ids)} raters answer ({some}); say"
            f" population={room}."
        )
    if config.tastes is not None and config.tastes > len(ids):
        raise ValueError(
            f"tastes={config.tastes} cannot be learned from the {len(ids)} raters who answer"
            f" ({some}); choose tastes={len(ids)}, or a rater of more people."
        )


def head_of(config: Config, ids: tuple[int, ...] | None) -> HeadFactory:
    """The head of the published model that the settings name.

    Where they leave it open there are as many tastes as raters who answer, and at least 2.

    Args:
        config: the settings.
        ids: of all who answer; None where that is not known.

    Raises:
        ValueError: its population does not fit who answers.
    """
    check_room(config, ids)
    asked: dict[str, Any] = {"raters": config.population, "tanh": config.bounded}
    if MODELS[config.model].has_tastes:
        heard = config.population if ids is None else min(config.population, len(ids))
        asked["tastes"] = max(2, heard) if config.tastes is None else config.tastes
    return model_head(config.model, **asked)


def made(config: Config, make: Callable[..., Any], ids: tuple[int, ...] | None) -> PointwiseModel:
    """A model that has learned nothing, by a backend's ``reward_model`` or another such function.

    Raises:
        ValueError: its population does not fit who answers.
    """
    model: PointwiseModel = make(
        members=config.members,
        hidden=config.hidden,
        tanh=config.bounded,
        seed=config.seed,
        head=head_of(config, ids),
    )
    return model


def check_activation(config: Config, factors: bool, text: bool) -> None:
    """Refuse an activation that no layer would have.

    Raises:
        ValueError: text is written, or factors are read.
    """
    if config.activation != Config.activation and (factors or text):
        raise ValueError(
            f"activation={config.activation!r} is of the layers that read observations and actions;"
            f" {'where text is written' if text else 'with factors_as_inputs'} leave it out, or"
            " give a model of your own as model=."
        )


def fitted_to(
    model: PointwiseModel, data: Comparisons | None, config: Config, loss: PairLoss
) -> PointwiseModel:
    """The model, fitted to trusted comparisons alone; equal arguments give equal bits.

    Raises:
        ValueError: there are none.
    """
    if data is None:
        raise ValueError(
            "curate='gold' keeps the labels that a model of trusted comparisons agrees with; give"
            " these as data=."
        )
    model.normalise(data.a)
    model.normalise(data.b)
    steps_per_pass = -(-len(data) // config.batch_pairs)
    fit(
        model,
        data,
        adam(model, config.learning_rate),
        np.random.default_rng((config.seed, 5)),
        epochs=max(config.epochs, -(-config.fit_steps // steps_per_pass)),
        batch_pairs=config.batch_pairs,
        loss=loss,
        stop_accuracy=config.stop_accuracy,
    )
    return model


def loss_of(config: Config, own: PairLoss | None) -> PairLoss:
    """What was given, the published model's own, or one that allows for thoughtless answers.

    Raises:
        ValueError: the last would replace the first.
    """
    noise = config.label_noise
    if noise and own not in (None, logistic):
        raise ValueError(
            f"label_noise={noise} would replace the loss that was given; set label_noise=0, or give"
            " none."
        )
    if noise:
        return partial(lapsing, lapses=noise)
    return MODELS[config.model].loss if own is None else own


def awaited(model: PointwiseModel, config: Config) -> None:
    """Tell a model that answers come by and by, so that who did not answer yet ends no run.

    Raises:
        ValueError: raters are to be served whom it does not know, or other ones than it knows.
    """
    if not isinstance(model, Ensemble):
        return
    if len(model.group_mean) == 1 and config.earnings.serve != "everyone":
        known = ", ".join(name for name, one in MODELS.items() if one.tells_raters_apart)
        raise ValueError(
            f"serve={config.earnings.serve!r} asks what each rater wants, and this model has one"
            f" reward for all; choose serve='everyone', or one of {known}."
        )
    heard = config.earnings.direction
    if heard and len(heard) != len(model.group_mean):
        raise ValueError(
            f"direction={heard} says how much {len(heard)} raters count, and the model tells"
            f" {len(model.group_mean)} apart; give as many numbers."
        )
    if config.labels:
        model.await_raters()
