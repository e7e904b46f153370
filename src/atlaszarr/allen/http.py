"""HTTP GET with timeouts, retries and request limits, also through a proxy. Independent of the Allen API."""

from __future__ import annotations

import http.client
import io
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    MaxRetryError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    ResponseError,
)

from ..engine.schedulers import active_client
from ..errors import ImageError, ServiceError
from ..stores.backend import MAX_REDIRECTS
from .proxies import Proxy, proxy_error, proxy_for

#: HTTP statuses that are retried.
_TRANSIENT = (408, 429, 500, 502, 503, 504)
#: The message of `http.client` for a proxy that refuses CONNECT.
_REFUSED_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_PIECE = 2**20
#: Longest line of an answer, in bytes, such as the header of a chunk: the limit of `http.client` for a header.
_LONGEST_LINE = 2**16
#: Time limit of a client's first connection, including name resolution, in seconds.
_FIRST_CONNECTION = 5.0
_PORTS = {"http": 80, "https": 443}
#: The title of a page of HTML, a tag, and the status at the beginning of an answer, which the message has already.
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>")
_STATED = r"^(HTTP )?(status|error)?( code)?[ :]*{}\b[ :.-]*"
_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")


class Http:
    """A thread-safe pool of connections. Pickled copies share one pool per process.

    If a `distributed` client is active, and in tasks on its workers, `concurrency` and `rate` apply to the whole
    cluster.

    Parameters
    ----------
    concurrency : int
        Maximum number of concurrent requests.
    rate : float
        Maximum number of requests started per second, averaged over much more than ``concurrency / rate`` seconds;
        infinite for no limit.
    timeout : tuple of float
        Seconds to connect, and seconds to wait for the next byte.
    retries : int
        Maximum number of retries. The waits are 0, 2, 4, 8, ..., at most 30 times `backoff`, each with up to `backoff`
        of jitter; a Retry-After is obeyed up to `longest_wait`.
    backoff : float
        In seconds.
    longest_wait : float
        Longest Retry-After obeyed, in seconds.
    longest_answer : float
        Time limit for one answer, headers and body, in seconds.
    """

    def __init__(
        self,
        concurrency: int = 6,
        rate: float = 20.0,
        timeout: tuple[float, float] = (10.0, 60.0),
        retries: int = 5,
        backoff: float = 0.5,
        longest_wait: float = 60.0,
        longest_answer: float = 900.0,
    ) -> None:
        self._settings = (concurrency, rate, timeout, retries, backoff, longest_wait, longest_answer)
        self._concurrency = concurrency
        self._seconds_per_slot = concurrency / rate
        self._local_slots = threading.BoundedSemaphore(concurrency)
        #: The id of a worker or client, and the semaphore of its cluster.
        self._cluster_slots: tuple[str, Any] | None = None
        self._timeout = timeout
        self._longest_answer = longest_answer
        self._retry = _Retry(
            total=retries,
            status_forcelist=_TRANSIENT,
            backoff_factor=backoff,
            backoff_max=30 * backoff,
            backoff_jitter=backoff,
            retry_after_max=int(longest_wait),
        )
        self._pools: dict[Proxy | None, PoolManager] = {}
        self._pools_lock = threading.Lock()
        #: Whether a connection has opened; until then an unreachable host is not retried.
        self._reached = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared, self._settings, {"_reached": self._reached}

    def __setstate__(self, state: dict[str, bool]) -> None:
        self._reached |= state["_reached"]

    def get(self, url: str, limit: int, parse: Callable[[bytes], Result]) -> Result:
        """Fetch a URL and parse the body of the answer.

        Parameters
        ----------
        url : str
        limit : int
            Maximum size of the body, in bytes.
        parse : callable
            Converts the body. If it raises ImageError, the URL is fetched again, within the same number of retries.

        Raises
        ------
        ServiceError
            If all retries fail, or the status is neither 200 nor retried (the message names the URL); if the host
            cannot be reached (the message names the host).
        ImageError
            If `parse` raises it for the last body.
        """
        retry: Retry = self._retry
        try:
            while True:
                with self._slot():
                    response, body = self._answer(url, limit, retry)
                if response.status == 407 and (proxy := proxy_for(url)):
                    raise proxy_error(urlsplit(proxy.url).netloc, urlsplit(url).scheme, 407)
                if response.status != 200:
                    said = _words(response.status, body)
                    refused = ServiceError(
                        f"{url} answered with HTTP status {response.status}{said and f': {said}'}", code="http-status"
                    )
                    refused.status = response.status
                    raise refused
                try:
                    return parse(body)
                except ImageError as error:
                    retry = (response.retries or retry).increment("GET", url, error=error)
                    retry.sleep(response)
        except MaxRetryError as error:
            reason, failed = error.reason, f"{url} failed {(self._retry.total or 0) + 1} times, last with"
            if isinstance(reason, ImageError):
                raise ImageError(f"{failed} {reason}", code=reason.code) from error
            detail = str(reason) if isinstance(reason, ResponseError) else f"{type(reason).__name__}: {reason}"
            raise ServiceError(f"{failed} {detail}", code="retries-exhausted") from error
        except HTTPError as error:
            raise ServiceError(f"{url} failed: {type(error).__name__}: {error}", code="request-failed") from error

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Hold one of the slots for concurrent requests during a request and its retries."""
        slots = self._slots()
        slots.acquire()
        since = time.monotonic()
        try:
            yield
        finally:
            left = self._seconds_per_slot - (time.monotonic() - since)
            if left <= 0:
                slots.release()
            else:
                timer = threading.Timer(left, _release, [slots])
                timer.daemon = True
                timer.start()

    def _slots(self) -> Any:
        """The semaphore of the cluster that this process belongs to, or of the process."""
        if "distributed" not in sys.modules:
            return self._local_slots
        from distributed import Semaphore, get_worker

        try:
            member = get_worker().id
        except ValueError:
            if (client := active_client()) is None:
                return self._local_slots
            member = client.id
        if self._cluster_slots is None or self._cluster_slots[0] != member:
            name = f"atlaszarr-requests-{self._concurrency}"
            self._cluster_slots = (member, Semaphore(max_leases=self._concurrency, name=name))
        return self._cluster_slots[1]

    def _answer(self, url: str, limit: int, retry: Retry) -> tuple[BaseHTTPResponse, bytes]:
        """An answer and its body, after redirects; an interrupted body is retried like any other failure."""
        redirects = 0
        while True:
            with _Awaited(url, self._longest_answer) as awaited:
                response = self._pool(url).request("GET", url, retries=retry, redirect=False, preload_content=False)
                try:
                    awaited.validate()
                    body = _body(response, url, limit)
                    awaited.validate()
                except HTTPError as error:
                    awaited.validate()
                    if not isinstance(error, ProtocolError | ReadTimeoutError):
                        raise
                    retry = (response.retries or retry).increment("GET", url, error=error)
                    retry.sleep()
                    continue
                except ServiceError:
                    response.close()
                    raise
                finally:
                    response.release_conn()
            location = response.get_redirect_location()
            if not location:
                return response, body
            redirects += 1
            url = _redirected(url, location, redirects)

    def _pool(self, url: str) -> PoolManager:
        """The pool for a URL: of direct connections, or of connections through the environment's proxy."""
        proxy = proxy_for(url)
        if not self._reached:
            _test_connection(url, proxy, self._timeout[0])
            self._reached = True
        with self._pools_lock:
            if proxy not in self._pools:
                options: dict[str, Any] = {
                    "timeout": Timeout(connect=self._timeout[0], read=self._timeout[1]),
                    "maxsize": self._concurrency,
                    "headers": {"User-Agent": "atlaszarr"},
                }
                pools = (
                    ProxyManager(proxy.url, proxy_headers=proxy.headers, **options) if proxy else PoolManager(**options)
                )
                pools.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
                self._pools[proxy] = pools
            return self._pools[proxy]

    def close(self) -> None:
        """Close the connections."""
        with self._pools_lock:
            for pool in self._pools.values():
                pool.clear()


@cache
def _shared(*settings: Any) -> Http:
    """The pool of a process that all unpickled copies with the same settings share."""
    return Http(*settings)


def _body(response: BaseHTTPResponse, url: str, limit: int) -> bytes:
    """The body of an answer, decompressed; ServiceError if it has more than `limit` bytes."""
    pieces, size = [], 0
    for piece in response.stream(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise ServiceError(
                f"{url} answered more than {limit} bytes; the rest was not read", code="answer-too-large"
            )
    return b"".join(pieces)


class _Awaited:
    """The answer that a thread awaits: the connection is shut down if the answer takes too long.

    Parameters
    ----------
    url : str
    seconds : float
        Time limit for the answer to one request, from the first byte sent.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._url, self._seconds = url, seconds
        self._timer: threading.Timer | None = None
        self._late = threading.Event()

    def __enter__(self) -> Self:
        _THREAD.awaited = self
        return self

    def __exit__(self, *_: object) -> None:
        _THREAD.awaited = None
        self.end()

    def begin(self, connection: Any) -> None:
        """Start the time limit of a request on a socket."""
        self.end()
        self._timer = threading.Timer(self._seconds, self._hang_up, [connection])
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Stop the time limit: the request has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def validate(self) -> None:
        """Raise ServiceError if the answer took too long."""
        if self._late.is_set():
            raise ServiceError(
                f"{self._url} answered for more than {self._seconds:g} s; the rest was not read",
                code="answer-too-slow",
            )

    def _hang_up(self, connection: Any) -> None:
        self._late.set()
        plain = connection if isinstance(connection, socket.socket) else connection.socket  # TLS within TLS
        with suppress(OSError):  # the answer ended in the meantime
            socket.socket.shutdown(plain, socket.SHUT_RDWR)


class _Thread(threading.local):
    awaited: _Awaited | None = None


_THREAD = _Thread()


class _Response(http.client.HTTPResponse):
    """An answer whose lines are limited: urllib3 reads the header of a chunk, with its extension, without a limit."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fp = _LimitedLines(self.fp.detach())


class _LimitedLines(io.BufferedReader):
    def readline(self, size: int | None = -1, /) -> bytes:
        if size is not None and size >= 0:
            return super().readline(size)
        line = super().readline(_LONGEST_LINE + 1)
        if len(line) > _LONGEST_LINE:
            raise http.client.LineTooLong("line of the answer")
        return line


class _HTTPConnection(HTTPConnection):
    """A connection on which the time limit of the awaited answer holds from the first byte on."""

    response_class = _Response

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        _watch(connection)
        return connection

    def getresponse(self) -> Any:
        _watch(self.sock)
        return super().getresponse()


class _HTTPSConnection(_HTTPConnection, HTTPSConnection):
    pass


class HttpPool(HTTPConnectionPool):
    """Connections with the time limit of the awaited answer."""

    ConnectionCls = _HTTPConnection


class HttpsPool(HTTPSConnectionPool):
    """Same as `HttpPool`, over TLS."""

    ConnectionCls = _HTTPSConnection


def _watch(connection: Any) -> None:
    """Start the time limit of the answer that this thread awaits on a socket."""
    if _THREAD.awaited is not None:
        _THREAD.awaited.begin(connection)


def _release(slots: Any) -> None:
    """Release a slot; a cluster that was closed has no slots left."""
    with suppress(RuntimeError, OSError):
        slots.release()


class _Retry(Retry):
    """Retries that ignore an invalid Retry-After, and end with an answer that takes too long or a final refusal."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        """The remaining retries after a failure.

        Raises
        ------
        ServiceError
            If the answer took too long, or a proxy refuses a tunnel with a final status.
        """
        if _THREAD.awaited is not None:
            _THREAD.awaited.end()
            _THREAD.awaited.validate()
        refused = isinstance(error, ProxyError) and _REFUSED_TUNNEL.search(str(error.original_error))
        if refused and (status := int(refused[1])) not in _TRANSIENT:
            proxy = getattr(_pool, "proxy", None)
            raise proxy_error(proxy.netloc if proxy else "of the environment", "https", status) from None
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """The Retry-After of a response, in seconds; None if it is missing or invalid."""
        try:
            return super().get_retry_after(response)
        except InvalidHeader:
            return None


def _redirected(url: str, location: str, redirects: int) -> str:
    """The URL that a redirect leads to; ServiceError if it is on another host, or changes from https to http."""
    old, new = urlsplit(url), urlsplit(urljoin(url, location))
    if new.hostname != old.hostname or new.scheme not in (old.scheme, "https"):
        raise ServiceError(
            f"{url} redirects to {new.scheme}://{new.hostname}, another service; check the API URL",
            code="redirect-to-other-host",
        )
    if redirects > MAX_REDIRECTS:
        raise ServiceError(
            f"{url} redirects more than {MAX_REDIRECTS} times; check the API URL", code="too-many-redirects"
        )
    return new._replace(netloc=new.netloc.rpartition("@")[2]).geturl()  # messages show the URL


def _test_connection(url: str, proxy: Proxy | None, timeout: float) -> None:
    """Open and close a connection to the host of a URL, or to its proxy.

    Raises
    ------
    ServiceError
        If no connection opens within `timeout`, at most 5 seconds; the message names the host and the cause.
    """
    parts = urlsplit(proxy.url if proxy else url)
    timeout = min(timeout, _FIRST_CONNECTION)
    cause = _connection_failure(parts, timeout)
    if cause is None:
        return
    _LOG.info("%s was not requested: no connection to %s", url, parts.netloc)
    variable = f"{urlsplit(url).scheme.upper()}_PROXY"
    if proxy:
        raise ServiceError(
            f"cannot reach the proxy {parts.netloc}: {cause}; check {variable}, or set NO_PROXY",
            code="proxy-unreachable",
        )
    raise ServiceError(
        f"cannot reach {parts.netloc}: {cause}; check the network and the API URL, or set {variable} if the network "
        "needs a proxy",
        code="service-unreachable",
    )


def _connection_failure(parts: SplitResult, timeout: float) -> str | None:
    """The reason why a connection does not open, or None. Uses a thread, since name resolution has no time limit."""
    causes: SimpleQueue[str | None] = SimpleQueue()

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname, parts.port or _PORTS[parts.scheme]), timeout).close()
            causes.put(None)
        except (socket.gaierror, UnicodeError):
            causes.put("its name is not resolved")
        except ConnectionRefusedError:
            causes.put("the connection is refused")
        except TimeoutError:
            causes.put(f"it does not answer within {timeout:g} s")
        except OSError as error:
            causes.put((error.strerror or type(error).__name__).lower())

    threading.Thread(target=connect, name="atlaszarr-first-connection", daemon=True).start()
    try:
        return causes.get(timeout=timeout)
    except Empty:
        return f"it does not answer within {timeout:g} s"


def _words(status: int, body: bytes) -> str:
    """What an answer says in its first 200 characters, or the title of its page, without the status."""
    text = " ".join(body[:2000].decode("utf-8", errors="replace").split())
    if text.startswith("<"):
        text = " ".join((found[1] if (found := _TITLE.search(text)) else _TAG.sub(" ", text)).split())
    return re.sub(_STATED.format(status), "", text, count=1, flags=re.IGNORECASE)[:200].strip()
