"""The HTTP server of the emulated service: keeps connections alive, plays scripted faults, records requests.

The answers come from `service.py`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from .drawing import Painter
from .envelope import Answer
from .faults import INSTEAD, FaultScript, apply_fault
from .service import answer, kind_of

_NOTHING = Answer(200, "text/plain", b"")


class Server(ThreadingHTTPServer):
    """An HTTP server with a thread for each connection.

    Parameters
    ----------
    address : tuple
        Host and port; port 0 for any free one.
    painter : Painter
        The records and images.
    faults : FaultScript
    traffic : Traffic
        Records all requests.
    latency : float
        Minimum duration of every answer, in seconds.
    access_log : bool
        Write a line per request to stderr.
    """

    request_queue_size = 128
    daemon_threads = False

    def __init__(
        self,
        address: tuple[str, int],
        painter: Painter,
        faults: FaultScript,
        traffic: Traffic,
        latency: float = 0.0,
        access_log: bool = False,
    ) -> None:
        self.painter = painter
        self.faults = faults
        self.traffic = traffic
        self.latency = latency
        self.access_log = access_log
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, _Handler)

    def stop(self) -> None:
        """End scripted hangs, close all connections, and wait for the threads."""
        self.stopping.set()
        self.shutdown()
        with self._open_lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Register the connection, and handle it in a thread."""
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Unregister the connection, and close it."""
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnected."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """A connection: answers GET, with scripted faults."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        """Answer, or play a scripted fault."""
        started, server = time.monotonic(), self.server
        server.traffic.begin()
        parts = urlsplit(self.path)
        path, parameters = unquote_plus(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True))
        rule = server.faults.next(unquote_plus(self.path))
        try:
            reply = _NOTHING if rule is not None and rule.do in INSTEAD else answer(server.painter, path, parameters)
            if rule is not None:
                reply = apply_fault(rule, reply)
        except Exception as error:
            reply = Answer(500, "text/plain", repr(error).encode())
        wait = rule.seconds if rule is not None and rule.do == "hang" else server.latency
        server.stopping.wait(max(0.0, started + wait - time.monotonic()))
        reset = rule is not None and rule.do == "reset"
        sent = int(len(reply.body) * rule.fraction) if rule is not None and rule.do == "cut" else len(reply.body)
        did = None if rule is None else rule.do
        status, sent = (0, 0) if reset else (reply.status, sent)
        server.traffic.end(ServedRequest(path, parameters, kind_of(path), status, sent, started, did))
        if reset:
            self._reset()
        else:
            self._send(reply, sent)

    def _send(self, answer: Answer, length: int) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if length < len(answer.body):
            self.close_connection = True
        self.end_headers()
        self.wfile.write(memoryview(answer.body)[:length])

    def _reset(self) -> None:
        """Close the connection with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Write a line to stderr if the access log is on."""
        if self.server.access_log:
            super().log_message(format, *args)


@dataclass(frozen=True)
class ServedRequest:
    """A request that was answered.

    Attributes
    ----------
    path : str
        Decoded path, without the query.
    query : dict
        Decoded parameters.
    kind : str
        ``query`` (metadata), ``section_image_download``, ``structure_graph_download``, ... or ``unknown``.
    status : int
        HTTP status of the answer; 0 for a connection that was reset.
    bytes_sent : int
        Number of bytes of the body that were sent.
    started : float
        `time.monotonic` at arrival.
    fault : str or None
        Kind of the scripted fault that was applied.
    """

    path: str
    query: dict[str, str]
    kind: str
    status: int
    bytes_sent: int
    started: float
    fault: str | None = None


class Traffic:
    """A thread-safe record of requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[ServedRequest] = []
        self._active = 0
        self._peak = 0

    @property
    def requests(self) -> list[ServedRequest]:
        """The requests answered since the start or the last `reset`, in the order of the answers."""
        with self._lock:
            return list(self._requests)

    @property
    def peak(self) -> int:
        """The maximum number of concurrent requests since the start or the last `reset`."""
        with self._lock:
            return self._peak

    def begin(self) -> None:
        """Count a request that arrived."""
        with self._lock:
            self._active += 1
            self._peak = max(self._peak, self._active)

    def end(self, request: ServedRequest) -> None:
        """Record a request; called before its answer is sent, so that the client finds the request recorded."""
        with self._lock:
            self._active -= 1
            self._requests.append(request)

    def reset(self) -> None:
        """Forget the requests and the peak."""
        with self._lock:
            self._requests.clear()
            self._peak = self._active
