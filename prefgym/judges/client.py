"""One question to an OpenAI-compatible endpoint, and what can come back.

The one file that knows the package openai. Its own retries are off: who asks decides when to ask
again, counts it, and tells all who wait.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, NamedTuple

import httpx2
import openai

from prefgym.judges.connections import Connections, suits
from prefgym.judges.endpoint_errors import SECRET

_TOO_LONG = ("context_length_exceeded", "context length", "context size", "context window")
"""How servers say that a prompt does not fit."""
_FAULTS = {401: "unauthorised", 403: "unauthorised", 404: "unknown_model", 408: "timeouts"}
_FAULTS |= {409: "server_errors", 425: "server_errors", 429: "rate_limits"}
_FAULTS |= dict.fromkeys(
    (301, 302, 303, 307, 308), "unknown_model"
)  # a key stays where it was sent
_WORDS = 300


class Reply(NamedTuple):
    """What came of one attempt: an answer, or a fault."""

    answer: str | None
    fault: str = ""
    """What it is counted as."""
    words: str = ""
    """How the fault shows."""
    wait_s: float | None = None
    """How long the server asks to wait."""


class _OpenAI(openai.AsyncOpenAI):
    """Tells the endpoint the key, and nothing about this machine or from its environment.

    openai would add headers for the machine's system and for OPENAI_ORG_ID, OPENAI_PROJECT_ID and
    OPENAI_CUSTOM_HEADERS (which may hold other keys, or replace this one), wherever the URL leads.
    """

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        """All that is sent besides the key."""
        form, agent = "application/json", f"AsyncOpenAI/Python {openai.__version__}"
        return {"Accept": form, "Content-Type": form, "User-Agent": agent}


class _Http(openai.DefaultAsyncHttpxClient):
    """Reads each address once, and not anew for every request."""

    def build_request(self, method: str, url: Any, **settings: Any) -> httpx2.Request:
        """As its parent does."""
        return super().build_request(method, _read(str(url)), **settings)


@cache
def _read(url: str) -> httpx2.URL:
    return httpx2.URL(url)


class Client:
    """Connections to an endpoint; belongs to the event loop that uses it first.

    Args:
        url: of the endpoint, up to and including ``/v1``.
        key: the secret; it is never shown.
        timeout_s: of one attempt, from the question to the last byte of the answer.
    """

    def __init__(self, url: str, key: str, timeout_s: float) -> None:
        settings: dict[str, Any] = {"timeout": timeout_s, "follow_redirects": False}
        if suits(url):
            settings["transport"] = Connections(url)
        self._key, self._timeout_s, self._url = key, timeout_s, url.rstrip("/")
        self._openai = _OpenAI(
            base_url=url,
            api_key=key,
            max_retries=0,
            timeout=timeout_s,
            http_client=_Http(**settings),
        )

    async def ask(self, prompt: str, body: Mapping[str, Any]) -> Reply:
        """Ask once; whatever happens is told and not raised.

        Args:
            prompt: the question.
            body: what is said besides: the model and the sampling.
        """
        message = [{"role": "user", "content": prompt}]
        came = await self._send("/chat/completions", {**body, "messages": message})
        return came if isinstance(came, Reply) else self._answer(came)

    async def models(self) -> list[str] | Reply:
        """The names of the models that the endpoint lists, none if it does not list any."""
        came = await self._send("/models", None)
        if isinstance(came, Reply):
            return came
        try:
            return [str(one["id"]) for one in came.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return []

    async def close(self) -> None:
        """Hang up."""
        await self._openai.close()

    async def _send(self, path: str, body: dict[str, Any] | None) -> httpx2.Response | Reply:
        """The response as it came: openai's own reading of it costs as much as all the rest."""
        where = self._url + path  # put together here, since openai would parse it once more
        try:
            async with asyncio.timeout(self._timeout_s):
                if body is None:
                    return await self._openai.get(where, cast_to=httpx2.Response)
                return await self._openai.post(where, cast_to=httpx2.Response, body=body)
        except (TimeoutError, openai.APITimeoutError):
            return Reply(None, "timeouts", f"no complete answer within {self._timeout_s:g} s")
        except openai.APIStatusError as error:
            return self._refusal(error.response)
        except openai.APIConnectionError as error:
            cause = error.__cause__
            reached = not isinstance(cause, httpx2.ConnectError | httpx2.ProxyError)
            words = self._without_key(f"{type(cause).__name__}: {cause}")
            return Reply(None, "cut_off" if reached else "unreachable", words)
        except (openai.OpenAIError, httpx2.HTTPError, UnicodeError) as error:
            # A UnicodeError would show what it could not write, and that may be the key.
            words = "" if isinstance(error, UnicodeError) else self._without_key(str(error))
            return Reply(None, "malformed", f"{type(error).__name__} {words}".strip())

    def _answer(self, response: httpx2.Response) -> Reply:
        """The text of a completion."""
        try:
            choice = json.loads(response.content)["choices"][0]
            text, end = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError):
            return Reply(None, "malformed", f"no completion but {self._said(response)!r}")
        if end == "length":
            return Reply(None, "unfinished", "it was cut off at its greatest length")
        if not isinstance(text, str) or end == "content_filter":
            return Reply(None, "malformed", f"a completion without a text (it ended by {end!r})")
        return Reply(self._without_key(text))

    def _refusal(self, response: httpx2.Response) -> Reply:
        """What a status other than success means."""
        status, said = response.status_code, self._said(response)
        server = "server_errors" if status >= 500 else "refused"
        fault = _FAULTS.get(status, server)
        if status in (400, 413, 422, 500) and any(one in said.lower() for one in _TOO_LONG):
            fault = "too_long"
        words = f"{status}: {said}" if said and fault != "unauthorised" else str(status)
        return Reply(None, fault, words, _wait_s(response.headers))

    def _said(self, response: httpx2.Response) -> str:
        """The server's own words; where they are JSON, its message and code."""
        if "location" in response.headers:
            return self._without_key(f"go to {response.headers['location']}")[:_WORDS]
        text = response.content.decode(errors="replace")
        try:
            error = json.loads(text)
            error = error.get("error", error)
            if isinstance(error, dict):
                parts = (error.get(one) for one in ("message", "code", "detail"))
                error = " ".join(str(one) for one in parts if one) or text
        except (ValueError, AttributeError):
            error = text
        return self._without_key(" ".join(str(error).split()))[:_WORDS]

    def _without_key(self, text: str) -> str:
        return text if len(self._key) < SECRET else text.replace(self._key, "***")


def _wait_s(headers: httpx2.Headers) -> float | None:
    """Seconds until the server wants to be asked again: a number, or a date (RFC 9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        told = headers.get(name, "")
        with suppress(ValueError):
            return max(0.0, float(told) * unit)
        with suppress(ValueError, TypeError, OverflowError):
            return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    return None
