"""Objects of any fsspec filesystem."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from .backend import (
    BATCH,
    LARGEST_OBJECT,
    MAX_REDIRECTS,
    PATIENCE,
    WAITS,
    Backend,
    ConcurrentUploads,
    Part,
    TooLargeError,
    Uploads,
    WrongRangeError,
    timeout_of,
)
from .failures import is_beyond_end, is_forbidden, is_passing

#: How much longer than a silence an answer over HTTP may take as a whole, that of a range of 5 MB of a file: 300 s by
#: default, as in aiohttp itself. A server that drips is given up at 17 kB/s.
_WHOLE = 10
#: The range of a request, and the most bytes of an answer to one without: a file of one block (5 MB), or a listing.
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_LARGEST_ANSWER = 2**26
#: The range of an answer, and the size of the whole file.
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
#: The headers of a request that a redirect to another origin keeps.
_HARMLESS = ("Accept", "Accept-Encoding", "Range", "User-Agent")


class FsspecBackend(Backend):
    """Objects of an fsspec filesystem.

    Parameters
    ----------
    url : str
    options : mapping
        Options of the filesystem. Over HTTP, ``timeout`` is the longest silence of the server in seconds (30), and a
        tenth of the longest time for an answer. The proxies of the environment (``HTTP_PROXY``, ``HTTPS_PROXY``,
        ``NO_PROXY``) are used, and at most 5 redirects are followed; a redirect to another origin keeps no header that
        may hold a credential.
    forbidden_is_absent : bool
        Whether an object for which an HTTP server answers 403 counts as absent.
    """

    def __init__(self, url: str, options: Mapping[str, Any], forbidden_is_absent: bool = False) -> None:
        import fsspec

        given = dict(options)
        if url.startswith(("http://", "https://")):
            import aiohttp

            silence = timeout_of(given)
            given.pop("timeout", None)
            timeout = aiohttp.ClientTimeout(total=_WHOLE * silence, sock_connect=silence, sock_read=silence)
            client = {
                "timeout": timeout,
                "trust_env": True,
                "trace_configs": [_redirects()],
                "response_class": _bounded(),
            }
            given["client_kwargs"] = {**client, **(given.get("client_kwargs") or {})}
            given.setdefault("max_redirects", MAX_REDIRECTS + 1)  # the number that aiohttp refuses
        self._fs, root = fsspec.core.url_to_fs(url, **given)
        self._is_http = url.startswith(("http://", "https://"))
        self._root = str(root)
        self._forbidden_is_absent = forbidden_is_absent

    def read(self, key: str, most: int = LARGEST_OBJECT) -> bytes | None:
        """Same as in `Backend`.

        Of an HTTP server, whose body may have no end, no more than `most` bytes are read. Filesystems that know the
        size without another request (in memory, in an archive, on a disk) are asked for it first.
        """
        try:
            if self._is_http:
                return _body(self._fs, self._path(key), key, most)
            if not self._fs.async_impl:
                with suppress(FileNotFoundError):  # raised by `cat_file` too, or an error that says more
                    if (self._fs.size(self._path(key)) or 0) > most:
                        raise TooLargeError(key, most)
            body = bytes(self._fs.cat_file(self._path(key)))
            if len(body) > most:
                raise TooLargeError(key, most)
            return body
        except FileNotFoundError:
            return None
        except Exception as error:
            if self._forbidden_is_absent and is_forbidden(error):
                return None
            raise

    def read_range(self, key: str, start: int, stop: int, most: int) -> Part | None:
        """Same as in `Backend`; over HTTP, a request that fails for a passing reason is sent again."""
        path = self._path(key)
        try:
            if self._is_http:
                return _range_of(self._fs, path, key, (start, stop), most)
            size = int(self._fs.size(path))
            return Part(start, bytes(self._fs.cat_file(path, start, min(stop, size))), size, None)
        except FileNotFoundError:
            return None
        except Exception as error:
            if is_beyond_end(error):
                return Part(start, b"", 0, None)
            if self._forbidden_is_absent and is_forbidden(error):
                return None
            raise

    def open(self, key: str) -> Any:
        """Same as in `Backend`."""
        return self._fs.open(self._path(key), "rb")

    def uploads(self) -> Uploads:
        """Same as in `Backend`; the objects of a group are put concurrently if the filesystem supports it."""
        return ConcurrentUploads(self._put, BATCH)

    def put_file(self, key: str, path: Path) -> None:
        """Same as in `Backend`."""
        self._in_folders([self._path(key)], self._fs.put_file, str(path), self._path(key))

    def create(self, key: str, body: bytes) -> bool:
        """Same as in `Backend`."""
        path = self._path(key)
        try:
            self._in_folders([path], self._fs.pipe_file, path, body, mode="create")
        except FileExistsError:
            return False
        return True

    def sizes(self, prefix: str) -> dict[str, int]:
        """Same as in `Backend`."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(f"{self._root}/{prefix}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return {}
        return {path.removeprefix(self._root).lstrip("/"): int(info["size"]) for path, info in found.items()}

    def entries(self, folder: str) -> dict[str, bool]:
        """Same as in `Backend`."""
        self._fs.invalidate_cache()
        path = self._path(folder)
        try:
            listed = self._fs.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        inside = (info for info in listed if info["name"].strip("/") != path.strip("/"))
        return {info["name"].rstrip("/").rpartition("/")[2]: info["type"] == "directory" for info in inside}

    def delete(self, keys: Iterable[str]) -> None:
        """Same as in `Backend`."""
        for key in keys:
            self._fs.rm_file(self._path(key))

    def modified(self, key: str) -> datetime | None:
        """Same as in `Backend`."""
        self._fs.invalidate_cache()
        try:
            found: datetime = self._fs.modified(self._path(key))
        except NotImplementedError:
            return None
        return found

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _put(self, bodies: Mapping[str, bytes]) -> None:
        batch = {self._path(key): body for key, body in bodies.items()}
        self._in_folders(batch, self._fs.pipe, batch)

    def _in_folders(self, paths: Iterable[str], put: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Put objects; if the store has folders, create those that are missing."""
        try:
            put(*arguments, **options)
        except FileNotFoundError:
            for folder in {path.rpartition("/")[0] for path in paths}:
                self._fs.makedirs(folder, exist_ok=True)
            put(*arguments, **options)


def _body(filesystem: Any, url: str, key: str, most: int) -> bytes:
    """The body of an HTTP answer, as the filesystem's ``cat_file`` returns it, but of at most `most` bytes."""
    from fsspec.asyn import sync

    async def read() -> bytes:
        session = await filesystem.set_session()
        async with session.get(filesystem.encode_url(url), **filesystem.kwargs) as answer:
            filesystem._raise_not_found_for_status(answer, url)
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > most:
                    raise TooLargeError(key, most)
        return bytes(body)

    found: bytes = sync(filesystem.loop, read)
    return found


def _range_of(filesystem: Any, url: str, key: str, wanted: tuple[int, int], most: int) -> Part:
    """A part of a file on an HTTP server; the whole file, of at most `most` bytes, from one that sends no parts."""
    from fsspec.asyn import sync

    start, stop = wanted
    # Of a compressed file, a range means other bytes.
    wish = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    headers = {**filesystem.kwargs.get("headers", {}), **wish}
    options = {name: value for name, value in filesystem.kwargs.items() if name != "headers"}

    async def read() -> Part:
        session = await filesystem.set_session()
        async with session.get(filesystem.encode_url(url), headers=headers, **options) as answer:
            filesystem._raise_not_found_for_status(answer, url)
            sent = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status == 206 and (sent is None or int(sent[1]) != start):
                raise WrongRangeError
            length = min(stop, int(sent[2])) - start if sent else most
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > length:
                    raise WrongRangeError if sent else TooLargeError(key, most)
            if sent and len(body) < length:
                raise WrongRangeError
        tag = answer.headers.get("ETag", "").removeprefix("W/").strip('"') or None
        return Part(int(sent[1]), bytes(body), int(sent[2]), tag) if sent else Part(0, bytes(body), len(body), tag)

    began = time.monotonic()
    for wait in WAITS:
        try:
            found: Part = sync(filesystem.loop, read)
        except Exception as error:
            if not is_passing(error) or time.monotonic() - began > PATIENCE:
                raise
            time.sleep(wait)
        else:
            return found
    last: Part = sync(filesystem.loop, read)
    return last


@cache
def _bounded() -> Any:
    """A response of aiohttp that is read as a whole only up to the range that was asked for, or `_LARGEST_ANSWER`."""
    import aiohttp

    class Bounded(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                asked = _RANGE.fullmatch(self.request_info.headers.get("Range", ""))
                most = int(asked[2]) - int(asked[1]) + 1 if asked else _LARGEST_ANSWER
                body = bytearray()
                async for part in self.content.iter_any():
                    body += part
                    if len(body) > most:
                        self.close()
                        raise aiohttp.http_exceptions.BadHttpMessage("the body is longer than the range")
                self._body = bytes(body)
            return await super().read()

    return Bounded


@cache
def _redirects() -> Any:
    """A trace of aiohttp that removes headers from a request which is redirected to another origin.

    aiohttp itself removes Authorization, and no other header that the user has given.
    """
    import aiohttp
    from yarl import URL

    async def strip(_session: Any, _context: Any, redirect: Any) -> None:
        destination = redirect.url.join(URL(redirect.response.headers.get("Location", "")))
        if destination.origin() != redirect.url.origin():
            for name in {name for name in redirect.headers if name.title() not in _HARMLESS}:
                redirect.headers.popall(name, None)

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(strip)
    return trace
