"""Text for a terminal: tables on stdout, progress and warnings on stderr."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ..errors import AtlaszarrWarning, printable
from .options import is_quiet

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ..allen.images import MissingImage


@contextmanager
def progress_bars(title: str) -> Iterator[Callable[[int, int, str], None] | None]:
    """Show progress bars on stderr while the context lasts.

    Yields a function of (done, total, word), with a bar for each word; None if stderr is not a terminal, or with
    ``--quiet``.
    """
    if is_quiet() or sys.stderr is None or not sys.stderr.isatty():
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
    """Print each warning of atlaszarr once, as one line on stderr without its line of code."""
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


def table(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> str:
    """Align rows as columns of printable text under an optional header; columns of numbers and blanks to the right."""
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


def missing_lines(failures: Iterable[MissingImage]) -> list[str]:
    """Return a line for each section image that is missing, or has missing windows, with its first reason."""
    by_image: dict[int, list[MissingImage]] = {}
    for failure in failures:
        by_image.setdefault(failure.request.image_id, []).append(failure)
    lines = []
    for id, windows in by_image.items():
        part = "" if windows[0].request.left is None else f" ({len(windows)} windows)"
        lines.append(f"missing: section image {id}{part}: {printable(windows[0].reason)}")
    return lines
