"""Progress bars, in a terminal and in a notebook, for the functions that take `progress`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .errors import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

#: Seconds between two pictures of the bars of a notebook: each is a message to the browser.
_INTERVAL = 0.2


@contextmanager
def progress_bars(title: str = "") -> Iterator[Callable[..., None]]:
    """Show progress bars while the context lasts: in the output of a notebook's cell, or on stderr of a terminal.

    Nothing is shown in a script whose stderr is not a terminal. The bars are removed at the end.

    Parameters
    ----------
    title : str
        Begins the text of each bar.

    Yields
    ------
    callable
        For the parameter `progress` of `atlaszarr.build`, `atlaszarr.build_many`, `atlaszarr.build_atlas`,
        `atlaszarr.preview` and others: called with the number done, the total and the word for them, it shows a bar for
        each word. A fourth argument is the text of the bar.

    Examples
    --------
    >>> with atlaszarr.progress_bars("Prox1") as progress:
    ...     atlaszarr.build(69289763, "prox1.ome.zarr", progress=progress)
    """
    title = printable(title)
    if (display := _notebook()) is not None:
        with _notebook_bars(display, title) as show:
            yield _of_any(show)
    elif sys.stderr is not None and sys.stderr.isatty():
        with _terminal_bars(title) as show:
            yield _of_any(show)
    else:
        yield lambda *_: None


def _of_any(show: Callable[[int, int, str, str], None]) -> Callable[..., None]:
    """A function that takes a `BatchStatus` too, which is all the progress of a batch."""

    def any_progress(done: Any, total: int = 0, word: str = "", text: str = "") -> None:
        if isinstance(done, int):
            show(done, total, word, text)
        else:
            show(done.finished + done.done, done.total, "datasets", str(done))

    return any_progress


@contextmanager
def _terminal_bars(title: str) -> Iterator[Callable[[int, int, str, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Clock(TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            return Text() if task.fields.get("has_clock") else super().render(task)

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), Clock())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        first = bars.add_task(_words(title, "metadata"), total=None)
        tasks: dict[str, TaskID] = {}

        def show(done: int, total: int, word: str, text: str) -> None:
            bars.update(first, visible=False)
            has_clock = bool(text)  # that of a batch ends with its time
            text = text or _words(title, f"{word} {done}/{total}")
            if word not in tasks:
                tasks[word] = bars.add_task(text, total=total, has_clock=has_clock)
            bars.update(tasks[word], completed=done, total=total, description=text, visible=done < total)

        yield show


@contextmanager
def _notebook_bars(display: Any, title: str) -> Iterator[Callable[[int, int, str, str], None]]:
    """Bars as the HTML element ``progress``, which needs no widgets."""
    from .engine.notebook import text_html

    handle = display.display(display.HTML(f"<div>{text_html(_words(title, 'metadata'))}</div>"), display_id=True)
    bars: dict[str, str] = {}
    drawn = 0.0

    def show(done: int, total: int, word: str, text: str) -> None:
        nonlocal drawn
        begins = word not in bars
        text = text or _words(title, f"{word} {done}/{total}")
        bars[word] = f"<div><progress value='{done}' max='{max(total, 1)}'></progress> {text_html(text)}</div>"
        if done >= total:
            bars[word] = ""
        if begins or done >= total or time.monotonic() - drawn >= _INTERVAL:
            handle.update(display.HTML("".join(bars.values())))
            drawn = time.monotonic()

    try:
        yield show
    finally:
        handle.update(display.HTML(""))


def _words(title: str, words: str) -> str:
    return f"{title}: {words}" if title else words


def _notebook() -> Any:
    """IPython's module of displays, if this process is the kernel of a notebook."""
    if (ipython := sys.modules.get("IPython")) is None:
        return None
    if getattr(ipython.get_ipython(), "kernel", None) is None:  # IPython in a terminal has none
        return None
    from importlib import import_module

    return import_module("IPython.display")
