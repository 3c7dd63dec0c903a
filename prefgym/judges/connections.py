"""HTTP/1.1 over plain connections that stay open: less work per question than httpx2 has.

openai hands its requests to a transport of httpx2. The standard one spends about half of a
question's processor time on its pool, which looks at every connection for every question; at
concurrency 32 a local endpoint would wait for its client. TLS, HTTP/2 and proxies are left to it.
"""

import asyncio
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

_LONGEST = 64 * 2**20
"""Bytes of a response; more is no answer to a question."""


def suits(url: str) -> bool:
    """Whether these connections lead there: plain HTTP, and no proxy in between."""
    parts = urlsplit(url)
    proxied = {"http", "all"} & set(getproxies()) and not proxy_bypass(parts.hostname or "")
    return parts.scheme == "http" and not proxied


class Message(NamedTuple):
    """A response that is complete."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    stays: bool
    """Whether the connection can be used again."""


def read_message(received: bytes, ended: bool = False) -> Message | None:
    """The response in what was received; None while it is incomplete.

    Source: RFC 9112, sections 4 to 7.

    Args:
        received: everything since the request.
        ended: whether nothing more will come.

    Raises:
        ValueError: it is no response of HTTP/1.1.
    """
    while True:
        head, blank, rest = received.partition(b"\r\n\r\n")
        if not blank:
            if received[:5] not in (b"HTTP/", b"HTTP/"[: len(received)]):
                raise ValueError("no response of HTTP/1.1")
            return None
        first, *lines = head.split(b"\r\n")
        version, status = first[:9], int(first[9:12])
        if not version.startswith(b"HTTP/1."):
            raise ValueError("no response of HTTP/1.1")
        if status >= 200:
            break
        received = rest  # 100 Continue and its like come before the response
    headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    told = {name.lower(): value.lower() for name, value in headers}
    body, left = _body(status, told, rest, ended)
    if body is None:
        return None
    kept = version == b"HTTP/1.1 " and told.get(b"connection") != b"close"
    return Message(status, headers, body, kept and not ended and left == b"")


def _body(
    status: int, told: dict[bytes, bytes], rest: bytes, ended: bool
) -> tuple[bytes | None, bytes]:
    """The body if it is complete, and what was received beyond it."""
    if status in (204, 304):
        return b"", rest
    if told.get(b"transfer-encoding", b"").endswith(b"chunked"):
        return _chunks(rest)
    if b"content-length" in told:
        length = int(told[b"content-length"])
        return (rest[:length], rest[length:]) if len(rest) >= length else (None, b"")
    return (rest, b"") if ended else (None, b"")  # it ends with the connection


def _chunks(rest: bytes) -> tuple[bytes | None, bytes]:
    parts = []
    while True:
        size, line, rest = rest.partition(b"\r\n")
        if not line:
            return None, b""
        length = int(size.partition(b";")[0], 16)
        if length == 0:
            break
        if len(rest) < length + 2:
            return None, b""
        parts.append(rest[:length])
        rest = rest[length + 2 :]
    while True:  # trailers, up to an empty line
        field, line, rest = rest.partition(b"\r\n")
        if not line:
            return None, b""
        if not field:
            return b"".join(parts), rest


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.open = False
        self.received = b""
        self._waiting: asyncio.Future[Message] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.open = transport, True

    def data_received(self, data: bytes) -> None:
        """Take a part of the response."""
        self.received += data
        self._look(ended=False)
        if len(self.received) > _LONGEST:
            self._fail(httpx2.RemoteProtocolError(f"a response of more than {_LONGEST} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Take what came for all there is."""
        self.open = False
        self._look(ended=True)
        self._fail(httpx2.ReadError("the connection was closed before the response was complete"))

    async def send(self, request: bytes) -> Message:
        """Send a request, and wait for the response.

        Raises:
            httpx2.TransportError: no complete response came.
        """
        assert self.transport is not None
        self.received = b""
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            return await self._waiting
        finally:
            self._waiting = None

    def close(self) -> None:
        """Hang up."""
        self.open = False
        if self.transport is not None:
            self.transport.close()

    def _look(self, ended: bool) -> None:
        if self._waiting is None or self._waiting.done():
            if self.received:
                self.close()  # it speaks without being asked
            return
        try:
            message = read_message(self.received, ended)
        except ValueError as error:
            self._fail(httpx2.RemoteProtocolError(f"what came is no response: {error}"))
            return
        if message is not None:
            self.received = b""
            self._waiting.set_result(message)

    def _fail(self, error: httpx2.TransportError) -> None:
        self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


class Connections(httpx2.AsyncBaseTransport):
    """A transport of httpx2 to one endpoint, whatever host a request names.

    There are as many connections as there were requests at once. How long a request may take is up
    to whoever waits for it.

    Args:
        url: of the endpoint; one that :func:`suits`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._idle: list[_Connection] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, on a connection that is open already if there is one.

        A connection may have been closed from afar just then; the request is sent once more, on a
        new one, if nothing came back.

        Raises:
            httpx2.TransportError: the endpoint cannot be reached, or hung up.
        """
        written = _written(request, await request.aread())
        while self._idle:
            connection = self._idle.pop()
            if not connection.open:
                continue
            try:
                return await self._response(connection, written)
            except httpx2.ReadError:
                if connection.received:
                    raise
                break
        return await self._response(await self._connected(), written)

    async def _response(self, connection: _Connection, written: bytes) -> httpx2.Response:
        stays = False
        try:
            message = await connection.send(written)
            stays = message.stays
        finally:
            if stays and connection.open:
                self._idle.append(connection)
            else:
                connection.close()
        return httpx2.Response(message.status, headers=message.headers, content=message.body)

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(_Connection, self._host, self._port)
        except OSError as error:
            raise httpx2.ConnectError(error.strerror or str(error)) from None
        return connection

    async def aclose(self) -> None:
        """Close every connection."""
        while self._idle:
            self._idle.pop().close()


def _written(request: httpx2.Request, body: bytes) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    if any(b"\n" in line or b"\r" in line for line in lines):
        raise httpx2.LocalProtocolError("a header of the request holds a line break")
    return b"\r\n".join([*lines, b"", body])
