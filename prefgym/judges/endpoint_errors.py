"""What is said about endpoints that will not answer: what came, what was wanted, what to do."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from prefgym.names import lookup

NO_KEY = "none"
"""What is sent where no key is known; servers without keys do not look at it."""
SECRET = 8
"""Characters from which on a key is worth hiding; a shorter one may stand in any text."""


@runtime_checkable
class Endpoint(Protocol):
    """Who was asked for what, how, and with the key in which variable."""

    url: str
    model: str | None
    key_variable: str | None

    @property
    def sampling(self) -> Mapping[str, Any]:
        """What a question says about how the answer is drawn."""
        ...


def checked_url(url: str) -> str:
    """The URL without a last slash, and with ``/v1`` if it has no path.

    Raises:
        ValueError: it is no URL of HTTP, or holds a user, a password or a query.
    """
    try:
        parts = urlsplit(url.strip())
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{url!r} is no URL; wanted one such as 'http://localhost:8000/v1'.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"The URL of {parts.hostname!r} holds a user, a password, a query or a fragment; leave"
            " it out: keys come from the environment only."
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def key_of(variable: str | None) -> str:
    """The key in an environment variable; :data:`NO_KEY` where there is none.

    Raises:
        ValueError: what it holds can be no key. The message does not show it.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if not all("!" <= character <= "~" for character in key):
        raise ValueError(
            f"The environment variable {variable} holds blanks, line breaks or letters that no key"
            " has; set it to the key and nothing else."
        )
    return key or NO_KEY


def only_model(url: str, model: str | None, listed: Sequence[str]) -> str:
    """The model to ask: the one that was named, or the only one there is.

    Args:
        url: of the endpoint.
        model: what the user named, if anything.
        listed: what the endpoint lists; nothing where it lists none.

    Raises:
        ValueError: it is not there, or none was named and there is not exactly one.
    """
    if model is None:
        if len(listed) != 1:
            raise ValueError(
                f"{url} lists {len(listed)} models ({', '.join(sorted(listed)) or 'none'}); name"
                " the one to ask."
            )
        return listed[0]
    if listed:
        lookup(model, dict.fromkeys(listed), f"model of {url}:")
    return model


def hopeless(endpoint: Endpoint, fault: str, words: str) -> ValueError:
    """The error for what will not pass.

    Args:
        endpoint: who was asked.
        fault: "unauthorised", "unknown_model", or that nobody answers.
        words: how it shows.
    """
    url, variable = endpoint.url, endpoint.key_variable
    if fault == "unauthorised":
        if variable is None:
            lack = "and none is sent; name the environment variable that holds one"
        elif key_of(variable) == NO_KEY:
            lack = f"and the environment variable {variable} holds none; set it"
        else:
            lack = f"and refuses the one in the environment variable {variable}; set it anew"
        return ValueError(f"{url} wants a key (it said {words}), {lack}.")
    if fault == "unknown_model":
        return ValueError(
            f"{url} knows no model {endpoint.model!r}, or is no endpoint (it said {words}); correct"
            " the model's name, or the URL, which ends in /v1 as a rule."
        )
    return ValueError(
        f"Nobody answers at {url} ({words}); start the server there, or correct the URL."
    )


def complaint(endpoint: Endpoint, fault: str, words: str) -> str:
    """What is said once about questions that stay without an answer."""
    if fault == "too_long":
        return (
            f"A prompt is longer than what {endpoint.model!r} reads ({words}); such captions get no"
            " answer and are counted: shorten them, or serve the model with a longer context."
        )
    if fault == "unfinished":
        limit = "max_completion_tokens"  # as newer models of OpenAI call it
        limit = limit if limit in endpoint.sampling else "max_tokens"
        now = endpoint.sampling.get(limit, "the endpoint's own")
        return (
            f"{endpoint.model!r} did not finish an answer ({words}); such captions get no answer"
            f" and are counted: set a greater {limit} in sampling= (now {now}); models that think"
            " first need more."
        )
    return (
        f"{endpoint.url} refuses a question ({words}); such captions get no answer and are counted:"
        " see whether the endpoint understands the sampling options."
    )
