"""What a person at a terminal sees: tables on stdout, progress on stderr. Quiet in a pipe."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ..errors import AtlaszarrWarning

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ..allen.images import MissingImage
import os
import signal
import socket
import threading
from typing import NoReturn


class Terminal:
    """Where progress and warnings go.

    Parameters
    ----------
    quiet : bool
        No progress.
    verbose : bool
        Retries and other warnings are told.
    """

    def __init__(self, quiet: bool, verbose: bool) -> None:
        self._quiet = quiet
        level = logging.INFO if verbose else logging.ERROR
        logging.basicConfig(level=level, stream=sys.stderr, format="%(name)s: %(message)s")

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int, str], None] | None]:
        """Progress bars on stderr while the context lasts, fed with (done, total, word): one for each word."""
        if self._quiet or sys.stderr is None or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            first = bars.add_task(f"{title}: metadata", total=None)
            tasks: dict[str, TaskID] = {}

            def show(done: int, total: int, word: str) -> None:
                bars.update(first, visible=False)
                text = f"{title}: {word} {done}/{total}"
                if word not in tasks:
                    tasks[word] = bars.add_task(text, total=total)
                bars.update(tasks[word], completed=done, total=total, description=text, visible=done < total)

            yield show


@contextmanager
def warning_lines() -> Iterator[None]:
    """Print each warning of atlaszarr as one line on stderr, once, without the line of code that raised it."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", AtlaszarrWarning)
        others, printed = warnings.showwarning, set()

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, AtlaszarrWarning):
                others(message, category, *where, **more)
            elif str(message) not in printed:
                printed.add(str(message))
                click.echo(f"atlaszarr: {printable(str(message))}", err=True)

        warnings.showwarning = show
        yield


def printable(text: str) -> str:
    """Text on one line, safe for a terminal: newlines and control characters are escaped as Python escapes them."""
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in text
    )


def table(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> str:
    """Columns of printable text under an optional header, numbers (and blanks among them) to the right."""
    body = [tuple(row) for row in rows]
    cells = [[printable(str(cell)) for cell in row] for row in ([tuple(header)] if header else []) + body]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [
        all(isinstance(value, int | float) or value == "" for value in column) for column in zip(*body, strict=True)
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    )


def plans_text(plans: Sequence[Any], as_json: bool) -> str:
    """What builds will cost, for a person or as JSON."""
    if as_json:
        return json.dumps([plan.to_dict() for plan in plans])
    return "\n".join(table(None, plan.describe()) for plan in plans)


def missing_lines(failures: Iterable[MissingImage]) -> list[str]:
    """A line for every section image that lacks something, with its first reason."""
    by_image: dict[int, list[MissingImage]] = {}
    for failure in failures:
        by_image.setdefault(failure.request.image_id, []).append(failure)
    lines = []
    for id, some in by_image.items():
        part = "" if some[0].request.left is None else f" ({len(some)} windows)"
        lines.append(f"missing: section image {id}{part}: {printable(some[0].reason)}")
    return lines


def python_to_open(url: str, storage_options: Mapping[str, Any]) -> str:
    """The line of Python that opens an OME-Zarr image; of its storage options only the names are shown."""
    given = ", ".join(f"{json.dumps(name)}: ..." for name in storage_options)
    options = f", storage_options={{{given}}}" if given else ""
    return f"from ngff_zarr import from_ngff_zarr; from_ngff_zarr({json.dumps(url, ensure_ascii=False)}{options})"


def command_for_volumes(url: str, storage_options: Mapping[str, Any]) -> str:
    """The command that measures the regions of an annotation; of its storage options only the names are shown."""
    options = [f"--storage-option {shlex.quote(name)}=..." for name in storage_options]
    return " ".join(["atlaszarr volumes", shlex.quote(url), *options])


_EXIT_CODE = 130
#: Seconds until an interrupted command is ended come what may.
_GRACE = 3.0


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM; should that not arrive, end the process a while after.

    Python runs a handler only once the main thread comes back from what it waits in, and some library may swallow
    what the handler raises; the wake-up descriptor is told of the signal itself. A signal that was ignored
    before stays so. In any thread but the main one, which alone may handle signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = [kind for kind in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(kind) is not signal.SIG_IGN]
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    left = threading.Event()
    threading.Thread(target=_insist, args=(reader, kinds, left), name="atlaszarr-stop", daemon=True).start()
    before = [signal.signal(kind, _interrupt) for kind in kinds]
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
        left.set()
        writer.close()


def leave() -> NoReturn:
    """End the process at once: a request that waits for its answer would keep it alive until that came."""
    os.write(2, b"atlaszarr: interrupted; a build goes on when the same command is given again\n")
    os._exit(_EXIT_CODE)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _insist(reader: socket.socket, kinds: Sequence[int], left: threading.Event) -> None:
    with reader:
        while told := reader.recv(1):
            if told[0] in kinds and not left.wait(_GRACE):
                leave()
