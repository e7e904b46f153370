"""GET with timeouts, bounded and jittered retries, limits on requests, and proxies. Knows nothing of the Allen API."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Retry, Timeout
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    MaxRetryError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    ResponseError,
)
from urllib3.util import make_headers

from ..engine.schedulers import active_client
from ..errors import ImageError, InputError, ServiceError

#: Statuses that say "later", not "no".
_TRANSIENT = (408, 429, 500, 502, 503, 504)
#: What `http.client` raises where a proxy refuses CONNECT.
_REFUSED_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_PIECE = 2**20
_MOST_REDIRECTS = 5
#: Seconds that the first connection of a client may take, name resolution included.
_FIRST_CONNECTION = 5.0
_PORTS = {"http": 80, "https": 443}
_LOG = logging.getLogger(__name__)

Checked = TypeVar("Checked")


class Http:
    """A pool of connections that many threads share; a pickled copy is one pool in every other process.

    When a `distributed` client is active, or in a task on one of its workers, `concurrency` and `rate` hold for the
    whole cluster.

    Parameters
    ----------
    concurrency : int
        The most requests under way.
    rate : float
        The most requests started per second, over any time much longer than ``concurrency / rate``; infinite for no
        limit.
    timeout : tuple of float
        Seconds to connect, and seconds without a byte.
    retries : int
        How often a request is tried again. The waits between are 0, 2, 4, 8, ... times `backoff` seconds, at
        most 30 times, each with up to `backoff` of jitter; a Retry-After is obeyed up to `longest_wait`.
    backoff : float
        In seconds.
    longest_wait : float
        The longest Retry-After obeyed, in seconds.
    longest_answer : float
        The most seconds for the body of one answer, however steadily it comes.
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
        #: The slots of a cluster, and the id of the worker or client that they are reached through.
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
        #: Whether a connection has opened; until then a host that cannot be reached is not tried again.
        self._reached = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared, self._settings, {"_reached": self._reached}

    def __setstate__(self, state: dict[str, bool]) -> None:
        self._reached |= state["_reached"]

    def get(self, url: str, limit: int, check: Callable[[bytes], Checked]) -> Checked:
        """What a check makes of the body of an answer with status 200.

        Parameters
        ----------
        url : str
        limit : int
            Bytes; no more is read.
        check : callable
            Raises ImageError for a body that must be fetched again: it counts against the same retries as all else.

        Raises
        ------
        ServiceError
            With the URL and the reason, once the retries are spent or the status is final; with the host alone if it
            cannot be reached at all.
        ImageError
            If the last body failed its check.
        """
        retry: Retry = self._retry
        try:
            while True:
                with self._slot():
                    response, body = self._answer(url, limit, retry)
                if response.status == 407 and (proxy := proxy_for(url)):
                    raise refusal(urlsplit(proxy.url).netloc, urlsplit(url).scheme, 407)
                if response.status != 200:
                    raise ServiceError(f"{url} answered with HTTP status {response.status}: {_excerpt(body)}")
                try:
                    return check(body)
                except ImageError as error:
                    retry = (response.retries or retry).increment("GET", url, error=error)
                    retry.sleep(response)
        except MaxRetryError as error:
            reason = error.reason
            explained = isinstance(reason, ResponseError | ImageError)
            detail = str(reason) if explained else f"{type(reason).__name__}: {reason}"
            tries = (self._retry.total or 0) + 1
            kind = ImageError if isinstance(reason, ImageError) else ServiceError
            raise kind(f"{url} failed {tries} times, last with {detail}") from error
        except HTTPError as error:
            raise ServiceError(f"{url} failed: {type(error).__name__}: {error}") from error

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """One of the requests that may be under way, its retries included."""
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
        """The semaphore of this process, or that of the cluster that it belongs to."""
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
        """An answer and its body; a body that breaks off counts against the same retries as all else."""
        redirects = 0
        while True:
            pool = self._pool(url)
            response = pool.request("GET", url, retries=retry, redirect=False, preload_content=False)
            try:
                body = self._body(response, url, limit)
            except (ProtocolError, ReadTimeoutError) as error:
                retry = (response.retries or retry).increment("GET", url, error=error)
                retry.sleep()
                continue
            finally:
                response.release_conn()
            location = response.get_redirect_location()
            if not location:
                return response, body
            redirects += 1
            url = _followed(url, location, redirects)

    def _pool(self, url: str) -> PoolManager:
        """The connections to a URL's host, directly or through the environment's proxy."""
        proxy = proxy_for(url)
        if not self._reached:
            check_reachable(url, proxy, self._timeout[0])
            self._reached = True
        with self._pools_lock:
            if proxy not in self._pools:
                options: dict[str, Any] = {
                    "timeout": Timeout(connect=self._timeout[0], read=self._timeout[1]),
                    "maxsize": self._concurrency,
                    "headers": {"User-Agent": "atlaszarr"},
                }
                self._pools[proxy] = (
                    ProxyManager(proxy.url, proxy_headers=proxy.headers, **options) if proxy else PoolManager(**options)
                )
            return self._pools[proxy]

    def _body(self, response: BaseHTTPResponse, url: str, limit: int) -> bytes:
        pieces, size, late = [], 0, threading.Event()

        def hang_up() -> None:
            late.set()
            with suppress(RuntimeError, ValueError, OSError):  # the body has ended meanwhile
                response.shutdown()

        timer = threading.Timer(self._longest_answer, hang_up)
        timer.daemon = True
        timer.start()
        try:
            for piece in response.stream(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise ServiceError(f"{url} answered more than {limit} bytes; the rest was not read")
        except HTTPError:
            if not late.is_set():
                raise
        finally:
            timer.cancel()
            if size > limit or late.is_set():
                response.close()
        if late.is_set():
            raise ServiceError(f"{url} answered for more than {self._longest_answer:g} s; the rest was not read")
        return b"".join(pieces)

    def close(self) -> None:
        """Close the connections."""
        with self._pools_lock:
            for pool in self._pools.values():
                pool.clear()


@cache
def _shared(*settings: Any) -> Http:
    """One pool in a process, however many copies are sent to it."""
    return Http(*settings)


def _release(slots: Any) -> None:
    """Give a slot back; if the cluster has gone, its slots have too."""
    with suppress(RuntimeError, OSError):
        slots.release()


class _Retry(Retry):
    """Retries that ignore a Retry-After that cannot be read, and stop where a proxy refuses a tunnel for good."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        """The retries left after a failure.

        Raises
        ------
        ServiceError
            If a proxy refuses a tunnel with a status that is final.
        """
        refused = isinstance(error, ProxyError) and _REFUSED_TUNNEL.search(str(error.original_error))
        if refused and (status := int(refused[1])) not in _TRANSIENT:
            proxy = getattr(_pool, "proxy", None)
            raise refusal(proxy.netloc if proxy else "of the environment", "https", status) from None
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """What the server asked us to wait, in seconds."""
        try:
            return super().get_retry_after(response)
        except InvalidHeader:
            return None


def _followed(url: str, location: str, redirects: int) -> str:
    """Where a redirect leads: on the same host, and not from https to http."""
    here, there = urlsplit(url), urlsplit(urljoin(url, location))
    if there.hostname != here.hostname or there.scheme not in (here.scheme, "https"):
        raise ServiceError(f"{url} redirects to {there.scheme}://{there.hostname}, another service; check the API URL")
    if redirects > _MOST_REDIRECTS:
        raise ServiceError(f"{url} redirects more than {_MOST_REDIRECTS} times; check the API URL")
    return there.geturl()


def _excerpt(body: bytes, length: int = 200) -> str:
    """The beginning of a body on one line, for a message."""
    return " ".join(body[: 4 * length].decode("utf-8", errors="replace").split())[:length]


@dataclass(frozen=True)
class Proxy:
    """A proxy that the environment names.

    Attributes
    ----------
    url : str
        Without user name and password.
    headers : dict
        With user name and password; never shown.
    """

    url: str
    headers: dict[str, str] = field(repr=False, hash=False)


def proxy_for(url: str) -> Proxy | None:
    """The proxy for a URL by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; None for a direct connection.

    A loopback address is always connected to directly.

    Raises
    ------
    InputError
        If the environment names a proxy that is not of HTTP.
    """
    parts = urlsplit(url)
    proxies = getproxies()
    text = proxies.get(parts.scheme) or proxies.get("all")
    if not text or _is_loopback(parts.hostname or "") or proxy_bypass(parts.netloc):
        return None
    found = urlsplit(text if "://" in text else f"http://{text}")
    variable = f"{parts.scheme.upper()}_PROXY"
    try:
        netloc = found.netloc.rpartition("@")[2]
        port = found.port
    except ValueError:
        port = -1
    if found.scheme not in _PORTS or not found.hostname or port == -1:
        raise InputError(f"{variable} does not name an http or https proxy; write it as http://HOST:PORT")
    headers = {}
    if found.username:
        headers = make_headers(proxy_basic_auth=f"{unquote(found.username)}:{unquote(found.password or '')}")
    return Proxy(f"{found.scheme}://{netloc}", headers)


def refusal(proxy: str, scheme: str, status: int) -> ServiceError:
    """The error for a proxy that refuses with an HTTP status that is final.

    Parameters
    ----------
    proxy : str
        Host and port of the proxy.
    scheme : str
        Of the URL that was requested through it.
    status : int
    """
    variable = f"{scheme.upper()}_PROXY"
    if status == 407:
        return ServiceError(
            f"the proxy {proxy} answered with HTTP status 407: it asks for a valid user name and password; write "
            f"{variable} as http://USER:PASSWORD@HOST:PORT"
        )
    return ServiceError(
        f"the proxy {proxy} refused the connection with HTTP status {status}; check {variable}, or set NO_PROXY"
    )


def check_reachable(url: str, proxy: Proxy | None, timeout: float) -> None:
    """Open a connection to the host of a URL, or to its proxy, and close it.

    Raises
    ------
    ServiceError
        With the host and the cause, if none opens within `timeout` or 5 seconds.
    """
    parts = urlsplit(proxy.url if proxy else url)
    timeout = min(timeout, _FIRST_CONNECTION)
    cause = _cause(parts, timeout)
    if cause is None:
        return
    _LOG.info("%s was not requested: no connection to %s", url, parts.netloc)
    variable = f"{urlsplit(url).scheme.upper()}_PROXY"
    if proxy:
        raise ServiceError(f"cannot reach the proxy {parts.netloc}: {cause}; check {variable}, or set NO_PROXY")
    raise ServiceError(
        f"cannot reach {parts.netloc}: {cause}; check the network and the API URL, or set {variable} if the network "
        "needs a proxy"
    )


def _cause(parts: SplitResult, timeout: float) -> str | None:
    """Why no connection opens, or None. In a thread, since a name may take any time to resolve."""
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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
