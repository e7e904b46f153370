"""Progress bars on a terminal."""

import io
import re
import sys

import atlaszarr
from atlaszarr.dataset_batch.report import BatchStatus


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self):
        """True."""
        return True


def clocks(monkeypatch, *steps):
    """The times on the last line that the bars draw."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with atlaszarr.progress_bars("batch") as show:
        for step in steps:
            show(*step)
    *_, last, _ = terminal.getvalue().split("\x1b[2K")
    return re.findall(r"[-\d]+:[-\d]{2}:[-\d]{2}", last)


def test_the_bar_of_a_batch_has_the_one_clock_of_its_text(monkeypatch):
    status = BatchStatus(6, done=3, images=18, stored_bytes=10**6, seconds=30.0)
    assert clocks(monkeypatch, (status,)) == ["0:00:30"]


def test_any_other_bar_has_a_clock(monkeypatch):
    assert clocks(monkeypatch, (1, 4, "images")) == ["-:--:--"]
