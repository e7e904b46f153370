"""The record of what the emulated service was asked: counted, timed, safe to use from many threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One request that was made.

    Attributes
    ----------
    path : str
        Without the query.
    query : dict
        Parameters, decoded.
    kind : str
        ``query`` (metadata), ``section_image_download``, ``structure_graph_download``, ... or ``unknown``.
    status : int
        HTTP status of the answer; 0 for a connection that was reset.
    bytes_sent : int
        Length of the body as sent.
    started : float
        `time.monotonic` when it arrived.
    fault : str or None
        What a scripted fault did to it.
    """

    path: str
    query: dict[str, str]
    kind: str
    status: int
    bytes_sent: int
    started: float
    fault: str | None = None


class Traffic:
    """Requests under way and answered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._under_way = 0
        self._peak = 0

    @property
    def requests(self) -> list[Request]:
        """Those answered since the start or the last `reset`, in that order."""
        with self._lock:
            return list(self._requests)

    @property
    def peak(self) -> int:
        """The most that were under way at once since the start or the last `reset`."""
        with self._lock:
            return self._peak

    def begin(self) -> None:
        """A request has arrived."""
        with self._lock:
            self._under_way += 1
            self._peak = max(self._peak, self._under_way)

    def end(self, request: Request) -> None:
        """An answer is about to leave: who has it must find it counted, and no longer under way."""
        with self._lock:
            self._under_way -= 1
            self._requests.append(request)

    def reset(self) -> None:
        """Forget the requests and the peak."""
        with self._lock:
            self._requests.clear()
            self._peak = self._under_way
