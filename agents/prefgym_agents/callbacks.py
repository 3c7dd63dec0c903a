"""Stable-Baselines3's callbacks, for backends that are not of Stable-Baselines3."""

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback


def as_callback(given: Any, backend: Any) -> BaseCallback:
    """What was given to ``learn`` as one callback.

    Args:
        given: None, a callback, a function, or a list of callbacks.
        backend: what the callbacks get as their ``model``: ``num_timesteps``, ``logger`` and
            ``get_env()``.
    """
    if given is None:
        chosen: BaseCallback = CallbackList([])
    elif isinstance(given, list):
        chosen = CallbackList(given)
    elif isinstance(given, BaseCallback):
        chosen = given
    else:
        chosen = ConvertCallback(given)
    chosen.init_callback(backend)
    return chosen
