"""GET with timeouts, bounded and jittered retries, and politeness. Knows HTTP and nothing of the Allen API."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ProtocolError, ReadTimeoutError, ResponseError

from ..errors import ServiceError
from .politeness import Politeness

#: Statuses that say "later", not "no".
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_PIECE = 2**20


class _Retry(Retry):
    """A Retry-After that cannot be read is no reason to give up: it counts as none."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """What the server asked us to wait, in seconds."""
        try:
            return super().get_retry_after(response)
        except InvalidHeader:
            return None


class Http:
    """A pool of connections that many threads share; a pickled copy is one pool in every other process.

    Parameters
    ----------
    concurrency : int
        The most requests under way.
    rate : float
        The most requests per second.
    timeout : tuple of float
        Seconds to connect, and seconds without a byte.
    retries : int
        How often a request is tried again. The waits between are 0, 2, 4, 8, ... times `backoff` seconds, at
        most 30 times, each with up to `backoff` of jitter; a Retry-After is obeyed up to `longest_wait`.
    backoff : float
        In seconds.
    longest_wait : float
        The longest Retry-After obeyed, in seconds.
    longest_body : float
        Seconds that the body of one answer may take to come, however steadily.
    """

    def __init__(
        self,
        concurrency: int = 6,
        rate: float = 20.0,
        timeout: tuple[float, float] = (10.0, 60.0),
        retries: int = 5,
        backoff: float = 0.5,
        longest_wait: float = 60.0,
        longest_body: float = 900.0,
    ) -> None:
        self._settings = (concurrency, rate, timeout, retries, backoff, longest_wait, longest_body)
        self._politeness = Politeness(concurrency, rate)
        self._longest_body = longest_body
        self._retry = _Retry(
            total=retries,
            status_forcelist=_TRANSIENT,
            backoff_factor=backoff,
            backoff_max=30 * backoff,
            backoff_jitter=backoff,
            retry_after_max=int(longest_wait),
        )
        self._pool = PoolManager(
            timeout=Timeout(connect=timeout[0], read=timeout[1]),
            maxsize=concurrency,
            headers={"User-Agent": "atlaszarr"},
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared, self._settings

    def get(self, url: str, limit: int) -> bytes:
        """The body of an answer with status 200.

        Parameters
        ----------
        url : str
        limit : int
            Bytes; no more is read.

        Raises
        ------
        ServiceError
            With the URL and the reason, once the retries are spent or the status is final.
        """
        try:
            with self._politeness:
                status, body = self._answer(url, limit)
        except MaxRetryError as error:
            reason = error.reason
            detail = str(reason) if isinstance(reason, ResponseError) else type(reason).__name__ + f": {reason}"
            tries = (self._retry.total or 0) + 1
            raise ServiceError(f"{url} failed {tries} times, last with {detail}") from error
        except HTTPError as error:
            raise ServiceError(f"{url} failed: {type(error).__name__}: {error}") from error
        if status != 200:
            raise ServiceError(f"{url} answered with HTTP status {status}: {_excerpt(body)}")
        return body

    def _answer(self, url: str, limit: int) -> tuple[int, bytes]:
        """Status and body; a body that breaks off counts against the same retries as all else."""
        retry: Retry = self._retry
        while True:
            response = self._pool.request("GET", url, retries=retry, preload_content=False)
            try:
                return response.status, self._body(response, url, limit)
            except (ProtocolError, ReadTimeoutError) as error:
                retry = (response.retries or retry).increment("GET", url, error=error)
                retry.sleep()
            finally:
                response.release_conn()

    def _body(self, response: BaseHTTPResponse, url: str, limit: int) -> bytes:
        deadline = time.monotonic() + self._longest_body
        pieces, size = [], 0
        for piece in response.stream(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > limit or time.monotonic() > deadline:
                response.close()
                what = f"more than {limit} bytes" if size > limit else f"for more than {self._longest_body:g} s"
                raise ServiceError(f"{url} answered {what}; the rest was not read")
        return b"".join(pieces)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


@cache
def _shared(*settings: Any) -> Http:
    """One pool in a process, however many copies are sent to it."""
    return Http(*settings)


def _excerpt(body: bytes, length: int = 200) -> str:
    """The beginning of a body on one line, for a message."""
    return " ".join(body[: 4 * length].decode("utf-8", errors="replace").split())[:length]
