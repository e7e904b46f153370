"""Run many tasks on a scheduler, a bounded number of them at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .schedulers import Future, Scheduler


def in_window(
    scheduler: Scheduler,
    starts: Iterator[Callable[[], Future]],
    window: int | Callable[[], int],
    fetches: set[Future] | None = None,
    fetched: Callable[[], None] = lambda: None,
    failed: Callable[[Future, Exception], Any] | None = None,
) -> Iterator[Any]:
    """Start tasks one after another, at most `window` unfinished, and yield each result once it is available.

    Parameters
    ----------
    scheduler : Scheduler
    starts : iterator of callable
        Each starts one task and returns its future.
    window : int or callable
        A callable is asked before each start.
    fetches : set of Future, optional
        Unfinished fetches that tasks wait for: `starts` adds them, and `in_window` removes them once they are done.
    fetched : callable
        Called after finished fetches are removed.
    failed : callable, optional
        Returns a result for a task that has failed, or raises; default raises.
    """
    unfinished: set[Future] = set()
    fetches = set() if fetches is None else fetches

    def results() -> Iterator[Any]:
        done = scheduler.wait(unfinished | fetches)
        if not fetches.isdisjoint(done):
            fetches.difference_update(done)
            fetched()
        for future in done & unfinished:
            try:
                result = scheduler.result(future)
            except Exception as error:
                if failed is None:
                    raise
                result = failed(future, error)
            yield result
        unfinished.difference_update(done)

    for start in starts:
        unfinished.add(start())
        while len(unfinished) >= (window if isinstance(window, int) else window()):
            yield from results()
    while unfinished:
        yield from results()


def in_order(scheduler: Scheduler, starts: Iterable[Callable[[], Future]], window: int) -> Iterator[Any]:
    """Start tasks one after another, at most `window` ahead of the result that is next, and yield the results in order.

    Parameters
    ----------
    scheduler : Scheduler
    starts : iterable of callable
        Each starts one task and returns its future.
    window : int
        The most results that are held, finished or not.
    """
    ahead: deque[Future] = deque()

    def first() -> Any:
        scheduler.wait({ahead[0]})
        return scheduler.result(ahead.popleft())

    for start in starts:
        ahead.append(start())
        if len(ahead) == window:
            yield first()
    while ahead:
        yield first()
