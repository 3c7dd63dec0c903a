"""An OpenAI-compatible endpoint on loopback that answers, errs or dies as a test says."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from prefgym.judges import RuleJudge

MODEL = "tiny"


@dataclass
class Said:
    """What the endpoint does with a question."""

    text: str | None = None
    """The answer; None: that of the rules."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Instead of a completion."""
    delay_s: float = 0.0
    finish: str = "stop"
    cut: bool = False
    """Hang up in the middle of the body."""
    chunked: bool = False


Script = Callable[[int, str], Said]
"""What to do with the n-th question, counted from 0, and its prompt."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def do_GET(self) -> None:
        self._note_headers()
        said = self.server.listing
        models = {"data": [{"id": one} for one in self.server.models]}
        self._send(said, said.body or json.dumps(models).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = asked["messages"][0]["content"]
        self._note_headers()
        with self.server.lock:
            number = len(self.server.asked)
            self.server.asked.append(asked)
            self.server.times.append(time.monotonic())
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        said = self.server.script(number, prompt)
        time.sleep(said.delay_s)
        with self.server.lock:
            self.server.now -= 1
        text = RuleJudge().answers([prompt])[0] if said.text is None else said.text
        message = {"role": "assistant", "content": text}
        done = {"choices": [{"index": 0, "message": message, "finish_reason": said.finish}]}
        self._send(said, json.dumps(done).encode() if said.body is None else said.body)

    def _note_headers(self) -> None:
        with self.server.lock:
            self.server.headers.append({name.lower(): one for name, one in self.headers.items()})

    def _send(self, said: Said, body: bytes) -> None:
        self.send_response(said.status)
        for header in said.headers.items():
            self.send_header(*header)
        if said.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            body = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (body[:7], body[7:], b""))
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if said.cut else body)
        self.close_connection |= said.cut

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    script: Script
    listing: Said
    models: tuple[str, ...]

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.lock = Lock()
        self.connections: list[socket.socket] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []  # of the list of models and of the questions
        self.times: list[float] = []
        self.now = self.most = 0

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def hang_up(self) -> None:
        """Close the port, and every connection to it."""
        self.shutdown()
        self.server_close()
        for one in self.connections:
            with suppress(OSError):  # it is closed already
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up on purpose here."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def endpoint(
    script: Script = lambda number, prompt: Said(),
    *,
    listing: Said | None = None,
    models: tuple[str, ...] = (MODEL,),
    port: int = 0,
) -> Iterator[_Server]:
    """Serve until the block ends; then the port refuses connections, and open ones are closed."""
    server = _Server(port)
    server.script, server.listing, server.models = script, listing or Said(), models
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.hang_up()
        thread.join()
