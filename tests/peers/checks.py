"""Runs the checks of one peer in the order in which they are written, one line each.

A check is a function whose name says what holds; it fails by raising. Knows nothing of peers or emulators.
"""

import textwrap
import time
import traceback
from collections.abc import Callable

_checks: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Enter `function` into the list that `run` goes through."""
    _checks.append(function)
    return function


def run(peer: str) -> int:
    """Run every check, print a line for each, and return the exit status: 0 if all hold."""
    failures = 0
    for function in _checks:
        start, failure = time.perf_counter(), ""
        try:
            function()
        except Exception:
            failure = traceback.format_exc()
            failures += 1
        seconds = time.perf_counter() - start
        sentence = function.__name__.replace("_", " ")
        print(f"{'FAILED' if failure else 'ok':<6}  {peer:<8}  {sentence}  ({seconds:.1f} s)", flush=True)
        if failure:
            print(textwrap.indent(failure, " " * 8), flush=True)
    return 1 if failures else 0
