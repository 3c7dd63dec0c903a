"""A user's own parts by ``module:name``."""

import os
import sys
from importlib import import_module
from typing import Any


def imported(name: str, what: str) -> Any:
    """The thing that ``module:name`` names, looked for in the working directory too.

    Args:
        name: of a module that Python finds, and of something in it.
        what: it is meant to be, for messages.

    Raises:
        ValueError: there is none.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        # where `python -m` looks, and an installed command does not
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"The {what} {name!r} cannot be imported ({error}); give module:name of a module that"
            f" Python finds, and of something in it."
        ) from error
