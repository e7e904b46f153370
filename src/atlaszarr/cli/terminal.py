"""Text for a terminal: results on stdout; progress, warnings and errors on stderr; all of it printable."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from ..errors import AtlaszarrWarning, escaped, printable
from .signals import note_resumable

if TYPE_CHECKING:
    from ..allen.images import MissingImage


def is_quiet() -> bool:
    """Whether ``--quiet`` is given."""
    return bool(click.get_current_context().meta.get("atlaszarr.quiet"))


def prepare_streams() -> None:
    """Make the standard streams safe to write to.

    Characters that a stream cannot encode are escaped. A closed standard stream becomes the null device: the next file
    that is opened would take its number, and what a library prints would be written into that file.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def say(*lines: object) -> None:
    """Print each text as a line on stderr; nothing if it is closed or full."""
    with suppress(OSError):
        click.echo("\n".join(printable(str(line)) for line in lines), err=True)


def echo(*lines: str) -> None:
    """Print each text as a line on stdout."""
    click.echo("\n".join(map(printable, lines)))


def echo_data(text: str) -> None:
    """Print JSON or CSV on stdout, in UTF-8 and unchanged; on a terminal control characters are escaped."""
    lines = text.removesuffix("\n")
    if sys.stdout.isatty():
        click.echo("\n".join(map(escaped, lines.split("\n"))))
    else:
        click.echo(lines.encode("utf-8", errors="backslashreplace"))


@contextmanager
def progress_bars(title: str, resumable: str = "") -> Iterator[Callable[..., None]]:
    """Show progress bars on stderr while the context lasts, if stderr is a terminal and ``--quiet`` is not given.

    Yields a function of (done, total, word), with a bar for each word; a fourth argument is the text of the bar. If the
    same command resumes what this one begins, `resumable` says what, such as ``a build``; the first call means that it
    is begun.
    """

    def note() -> None:
        if resumable:
            note_resumable(resumable)

    if is_quiet():
        yield lambda *_: note()
        return
    from ..progress import progress_bars as bars_of

    with bars_of(title) as bars:

        def show(*progress: Any) -> None:
            note()
            bars(*progress)

        yield show


@contextmanager
def warning_lines() -> Iterator[None]:
    """Print each warning of atlaszarr once, as one line on stderr without its line of code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", AtlaszarrWarning)
        others, printed = warnings.showwarning, set()

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, AtlaszarrWarning):
                others(printable(str(message)), category, *where, **more)
            elif str(message) not in printed:
                printed.add(str(message))
                say(f"atlaszarr: {message}")

        warnings.showwarning = show
        yield


def table(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> list[str]:
    """Align rows as lines of printable columns under an optional header; columns of numbers and blanks to the right."""
    body = [tuple(row) for row in rows]
    cells = [[printable(str(cell)) for cell in row] for row in ([tuple(header)] if header else []) + body]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [
        all(isinstance(value, int | float) or value == "" for value in column) for column in zip(*body, strict=True)
    ]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]


def missing_lines(failures: Iterable[MissingImage]) -> list[str]:
    """Return a line for each section image that is missing, or has missing windows, with its first reason."""
    by_image: dict[int, list[MissingImage]] = {}
    for failure in failures:
        by_image.setdefault(failure.request.image_id, []).append(failure)
    lines = []
    for id, windows in by_image.items():
        part = "" if windows[0].request.left is None else f" ({len(windows)} windows)"
        lines.append(f"missing: section image {id}{part}: {windows[0].reason}")
    return lines
