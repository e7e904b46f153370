"""Objects of any fsspec filesystem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from .backend import (
    BATCH,
    LARGEST_OBJECT,
    MAX_REDIRECTS,
    Backend,
    ConcurrentUploads,
    TooLargeError,
    Uploads,
    timeout_of,
)
from .failures import is_forbidden

#: The headers of a request that a redirect to another origin keeps.
_HARMLESS = ("Accept", "Accept-Encoding", "Range", "User-Agent")


class FsspecBackend(Backend):
    """Objects of an fsspec filesystem.

    Parameters
    ----------
    url : str
    options : mapping
        Options of the filesystem. Over HTTP, ``timeout`` is the longest silence of the server in seconds (30). The
        proxies of the environment (``HTTP_PROXY``, ``HTTPS_PROXY``, ``NO_PROXY``) are used, and at most 5 redirects are
        followed; a redirect to another origin keeps no header that may hold a credential.
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
            timeout = aiohttp.ClientTimeout(total=300, sock_connect=silence, sock_read=silence)  # 300 s: aiohttp's own
            client = {"timeout": timeout, "trust_env": True, "trace_configs": [_redirects()]}
            given["client_kwargs"] = {**client, **(given.get("client_kwargs") or {})}
            given.setdefault("max_redirects", MAX_REDIRECTS + 1)  # the number that aiohttp refuses
        self._fs, root = fsspec.core.url_to_fs(url, **given)
        self._is_http = url.startswith(("http://", "https://"))
        self._root = str(root)
        self._forbidden_is_absent = forbidden_is_absent

    def read(self, key: str, most: int = LARGEST_OBJECT) -> bytes | None:
        """Same as in `Backend`; only of an HTTP server, whose body may have no end, is reading stopped at `most`."""
        try:
            if self._is_http:
                return _body(self._fs, self._path(key), key, most)
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

    def open(self, key: str) -> Any:
        """Same as in `Backend`."""
        return self._fs.open(self._path(key), "rb")

    def uploads(self) -> Uploads:
        """Same as in `Backend`; the objects of a group are put concurrently if the filesystem supports it."""
        return ConcurrentUploads(self._put, BATCH)

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
