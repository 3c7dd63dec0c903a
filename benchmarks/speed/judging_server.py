"""An OpenAI-compatible endpoint that answers every question after a fixed time, on one core.

    python -m benchmarks.speed.judging_server 0.020       # prints its port; serves until ended

It does as little as a server can, so that what is measured is the client.
"""

import asyncio
import json
import sys

_MESSAGE = {"role": "assistant", "content": "It is a step on the way.\nANSWER: yes"}
_CHOICE = {"index": 0, "finish_reason": "stop", "message": _MESSAGE}
_DONE = {"id": "0", "object": "chat.completion", "created": 0, "model": "m", "choices": [_CHOICE]}


def _response(content: dict[str, object]) -> bytes:
    body = json.dumps(content).encode()
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


ANSWER, MODELS = _response(_DONE), _response({"data": [{"id": "m"}]})


class Connection(asyncio.Protocol):
    """Takes one request after the other; what they say does not matter."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if not blank or len(body) < int(length or 0):
            return
        self.received = b""
        if head.startswith(b"GET"):
            self.transport.write(MODELS)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(self.delay_s, self.transport.write, ANSWER)


async def main(delay_s: float) -> None:
    """Serve on a free port of loopback."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(delay_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
