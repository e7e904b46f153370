"""Runs the checks of one peer in the order in which they are written, one line each.

A check is a function whose name says what holds; it fails by raising, and may return figures to be printed. Knows
nothing of peers or emulators.
"""

import textwrap
import time
import traceback
from collections.abc import Callable

_checks: list[Callable[[], str | None]] = []


def check(function: Callable[[], str | None]) -> Callable[[], str | None]:
    """Enter `function` into the list that `run` goes through."""
    _checks.append(function)
    return function


def run(peer: str) -> int:
    """Run every check, print a line for each, and return the exit status: 0 if all hold."""
    failures = 0
    for function in _checks:
        start, failure, figures = time.perf_counter(), "", None
        try:
            figures = function()
        except Exception:
            failure = traceback.format_exc()
            failures += 1
        seconds = time.perf_counter() - start
        sentence = function.__name__.replace("_", " ")
        print(f"{'FAILED' if failure else 'ok':<6}  {peer:<8}  {sentence}  ({seconds:.1f} s)", flush=True)
        if figures:
            print(textwrap.fill(figures, 150, initial_indent=" " * 18, subsequent_indent=" " * 18), flush=True)
        if failure:
            print(textwrap.indent(failure, " " * 8), flush=True)
    return 1 if failures else 0
