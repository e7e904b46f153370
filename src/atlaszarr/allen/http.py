"""GET with timeouts, bounded and jittered retries, and politeness. Knows HTTP and nothing of the Allen API."""

from __future__ import annotations

from typing import Any

from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ResponseError

from ..errors import ServiceError
from .politeness import Politeness

#: Statuses that say "later", not "no".
_TRANSIENT = (408, 429, 500, 502, 503, 504)


class _Retry(Retry):
    """A Retry-After that cannot be read is no reason to give up: it counts as none."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """What the server asked us to wait, in seconds."""
        try:
            return super().get_retry_after(response)
        except InvalidHeader:
            return None


class Http:
    """A pool of connections that many threads share, and that travels to other processes by pickle.

    Parameters
    ----------
    politeness : Politeness
        Bounds the requests under way and their rate.
    timeout : tuple of float
        Seconds to connect, and seconds without a byte.
    retries : int
        How often a request is tried again. The waits between are 0, 1, 2, 4, ... times twice `backoff`
        seconds, at most 30 times `backoff`, each with up to `backoff` of jitter; a Retry-After is obeyed up to
        `longest_wait`. So a request ends within (retries + 1) x (timeouts + longest wait) whatever happens.
    backoff : float
        In seconds.
    longest_wait : float
        The longest Retry-After obeyed, in seconds.
    """

    def __init__(
        self,
        politeness: Politeness,
        *,
        timeout: tuple[float, float] = (10.0, 60.0),
        retries: int = 5,
        backoff: float = 0.5,
        longest_wait: float = 60.0,
    ) -> None:
        self._settings = (politeness, timeout, retries, backoff, longest_wait)
        self._politeness = politeness
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
            maxsize=politeness.concurrency,
            headers={"User-Agent": "atlaszarr (https://pypi.org/project/atlaszarr)"},
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._settings

    def get(self, url: str) -> bytes:
        """The body of an answer with status 200.

        Raises
        ------
        ServiceError
            With the URL and the reason, once the retries are spent or the status is final.
        """
        try:
            with self._politeness:
                response = self._pool.request("GET", url, retries=self._retry)
        except MaxRetryError as error:
            reason = error.reason
            detail = str(reason) if isinstance(reason, ResponseError) else type(reason).__name__ + f": {reason}"
            tries = (self._retry.total or 0) + 1
            raise ServiceError(f"{url} failed {tries} times, last with {detail}") from error
        except HTTPError as error:
            raise ServiceError(f"{url} failed: {type(error).__name__}: {error}") from error
        if response.status != 200:
            raise ServiceError(f"{url} answered with HTTP status {response.status}: {_excerpt(response.data)}")
        return response.data

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def _rebuild(
    politeness: Politeness, timeout: tuple[float, float], retries: int, backoff: float, longest_wait: float
) -> Http:
    return Http(politeness, timeout=timeout, retries=retries, backoff=backoff, longest_wait=longest_wait)


def _excerpt(body: bytes, length: int = 200) -> str:
    """The beginning of a body on one line, for a message."""
    return " ".join(body[: 4 * length].decode("utf-8", errors="replace").split())[:length]
