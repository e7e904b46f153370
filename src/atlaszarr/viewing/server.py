"""The server of a view: neuroglancer's page, and the objects of targets, on one port of the loopback interface.

The page and the data have one origin, so a page of any other origin cannot read them; and both have a random token in
their path. Local and remote targets are read alike, through `stores`: the browser needs no credentials.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import socket
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import neuroglancer.random_token
import neuroglancer.server
import neuroglancer.viewer_base
import tornado.iostream
import tornado.web

from ..engine.absent_chunks import AbsentChunks
from ..errors import AtlaszarrError, AtlaszarrWarning, InputError
from ..stores.target import Target

_HOST = "127.0.0.1"
#: The names by which a browser on this machine asks for the server. A page that gives its own name this address is
#: refused, as the names of others are.
_HOSTS = r"(?:127\.0\.0\.1|localhost)"
#: The most bytes of an answer: a chunk of 512**3 voxels of one byte. A page has some 3 GiB for all its chunks.
LARGEST_ANSWER = 2**27
#: Answers that are held at a time, each from its reading until the browser has it, and once more while it is sent: as
#: many as a browser asks one server for.
_ANSWERS = 6
#: Seconds after which a browser that does not take an answer loses it, so that others get theirs.
_PATIENCE = 60.0
#: The most objects whose size is kept, so that each is asked for once: the shards of several large volumes.
_MOST_SIZES = 2**16
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
#: Headers of all answers: only the page itself may read them.
_HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Type": "application/octet-stream",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Source:
    """What the browser may read under one address.

    Attributes
    ----------
    documents : mapping of str to bytes
        Objects in memory by their keys.
    folders : mapping of str to Target
        Targets by the first part of the keys of their objects.
    absent : mapping of str to AbsentChunks
        The absent chunks of the targets that are arrays, by the same parts.
    """

    documents: Mapping[str, bytes] = field(default_factory=dict)
    folders: Mapping[str, Target] = field(default_factory=dict)
    absent: Mapping[str, AbsentChunks] = field(default_factory=dict)

    def find(self, key: str) -> bytes | tuple[Target, str] | None:
        """A document, or a target and the key in it; None for what is not served."""
        if key in self.documents:
            return self.documents[key]
        folder, _, inner = key.partition("/")
        target = self.folders.get(folder)
        return None if target is None or not _is_inside(target, inner) else (target, inner)

    def warn_of_loss(self, key: str) -> None:
        """Warn, once for each array, if an object that is not found is lost: an empty chunk is never written."""
        folder, _, inner = key.partition("/")
        if folder in self.absent and (text := self.absent[folder].first_loss(inner)) is not None:
            text += "; what they hold is drawn as background; repeat the command that wrote them to repair it"
            warnings.warn(text, AtlaszarrWarning, stacklevel=2)


class ViewServer:
    """A running server with one viewer.

    Parameters
    ----------
    port : int
        Port on 127.0.0.1; 0 for any free one.

    Raises
    ------
    InputError
        If the port is not available.
    """

    def __init__(self, port: int = 0) -> None:
        try:
            with socket.create_server((_HOST, port)):  # tornado leaves its socket open if it cannot bind it
                pass
            self._server = neuroglancer.server.Server(bind_address=_HOST, bind_port=port)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error  # its own text repeats the address
            message = f"port {port} is not available: {reason}; choose another (--port)"
            raise InputError(message, code="port-unavailable") from None
        token = neuroglancer.random_token.make_random_token()
        # A token of its own: without one neuroglancer gives the page the credentials of the user for other services.
        self.viewer = neuroglancer.viewer_base.ViewerBase(token=token, allow_credentials=False)
        self._server.viewers[token] = self.viewer
        self.url = f"http://{_HOST}:{self._server.port}/v/{token}/"
        self._data = neuroglancer.random_token.make_random_token()
        self._sources: list[Source] = []
        self._pool = ThreadPoolExecutor(_ANSWERS, "atlaszarr-view")
        given = {"token": self._data, "sources": self._sources, "pool": self._pool, "sizes": {}, "slots": _Slots()}
        self._server.app.add_handlers(_HOSTS, [(r"/data/([0-9a-f]+)/(\d{1,9})/(.*)", _DataHandler, given)])

    def serve(self, source: Source) -> str:
        """Serve a source, and return its URL."""
        self._sources.append(source)
        return f"http://{_HOST}:{self._server.port}/data/{self._data}/{len(self._sources) - 1}"

    def close(self) -> None:
        """Stop the server; pages that are open show an error."""
        with suppress(RuntimeError):  # in the thread of the server, by the garbage collector
            self._server.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Slots:
    """The semaphore of the answers; made in the thread of the event loop that waits for it."""

    def __init__(self) -> None:
        self._semaphore: asyncio.Semaphore | None = None

    def get(self) -> asyncio.Semaphore:
        if self._semaphore is None:
            self._semaphore = asyncio.Semaphore(_ANSWERS)
        return self._semaphore


class _DataHandler(tornado.web.RequestHandler):
    """Answers GET and HEAD for the objects of sources, with ranges."""

    def initialize(
        self,
        token: str,
        sources: list[Source],
        pool: ThreadPoolExecutor,
        sizes: dict[tuple[str, str], int],
        slots: _Slots,
    ) -> None:
        self._token, self._sources, self._pool, self._sizes, self._slots = token, sources, pool, sizes, slots

    def set_default_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    async def get(self, token: str, number: str, key: str) -> None:
        await self._answer(token, number, key)

    async def head(self, token: str, number: str, key: str) -> None:
        await self._answer(token, number, key)

    async def _answer(self, token: str, number: str, key: str) -> None:
        source = Source()
        if hmac.compare_digest(token, self._token) and int(number) < len(self._sources):
            source = self._sources[int(number)]
        if (found := source.find(key)) is None:
            self._refuse(404)
            return
        async with self._slots.get():
            try:
                if not await self._send(found):
                    await asyncio.get_running_loop().run_in_executor(self._pool, source.warn_of_loss, key)
                    self._refuse(404)
            except AtlaszarrError as error:
                self._refuse(413 if error.code == "file-too-large" else 502, str(error))
            except (TimeoutError, tornado.iostream.StreamClosedError):
                if self.request.connection is not None:
                    self.request.connection.close()  # type: ignore[attr-defined]

    async def _send(self, found: bytes | tuple[Target, str]) -> bool:
        """Send a document or an object, or its range; False if it is missing."""
        asked = _RANGE.fullmatch(self.request.headers.get("Range", ""))
        start, stop = (int(asked[1]), int(asked[2]) + 1 if asked[2] else None) if asked else (0, None)
        body, size = await self._read(found, start, stop, whole=asked is None)
        if body is None:
            return False
        if self.request.method == "HEAD":
            self.set_header("Content-Length", size)
            self.finish()
        elif asked and start >= size:
            self.set_header("Content-Range", f"bytes */{size}")
            self._refuse(416)
        else:
            if asked:
                self.set_status(206)
                self.set_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{size}")
            await asyncio.wait_for(self.finish(body), _PATIENCE)
        return True

    async def _read(
        self, found: bytes | tuple[Target, str], start: int, stop: int | None, whole: bool
    ) -> tuple[bytes | None, int]:
        """The bytes [start, stop) of an object and its size; of a HEAD only the size counts."""
        if isinstance(found, bytes):
            return found[start:stop], len(found)
        loop, (target, key) = asyncio.get_running_loop(), found
        if self.request.method == "HEAD":
            name = (target.url, key)
            if name not in self._sizes:
                part = await loop.run_in_executor(self._pool, partial(target.read_range, key, 0, 1, LARGEST_ANSWER))
                if part is None:
                    return None, 0
                if len(self._sizes) >= _MOST_SIZES:
                    self._sizes.clear()
                self._sizes[name] = part.size
            return b"", self._sizes[name]
        if whole:
            body = await loop.run_in_executor(self._pool, target.read, key, LARGEST_ANSWER)
            return body, len(body or b"")
        end = start + LARGEST_ANSWER if stop is None else stop
        if end - start > LARGEST_ANSWER:
            raise InputError(
                f"{end - start} bytes of {target.url}/{key} are asked for at once, and at most {LARGEST_ANSWER} are "
                "sent; write it with smaller chunks",
                code="file-too-large",
            )
        part = await loop.run_in_executor(self._pool, target.read_range, key, start, end, LARGEST_ANSWER)
        if part is None:
            return None, 0
        first = start - part.start  # a server without ranges sends the whole object
        return part.body[first : first + end - start], part.size

    def _refuse(self, status: int, text: str = "") -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(text)


def _is_inside(target: Target, key: str) -> bool:
    """Whether a key names an object in a target, and no link of a local target leads out of it."""
    parts = key.split("/")
    if not key or "\0" in key or "\\" in key or any(part in ("", ".", "..") for part in parts):
        return False
    if not target.is_local:
        return True
    folder = os.path.realpath(target.url)
    return os.path.realpath(os.path.join(folder, *parts)).startswith(folder.rstrip(os.sep) + os.sep)  # noqa: PTH118
