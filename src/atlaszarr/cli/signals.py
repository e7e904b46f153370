"""Interruption of a command by SIGINT and SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

_EXIT_CODE = 130
#: Seconds after which an interrupted command is ended.
_GRACE = 3.0
#: What the same command resumes: one text, once there is something to resume.
_RESUMABLE: list[str] = []


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM; if the command continues for 3 s, end the process.

    Python runs a handler only when the main thread returns to bytecode, and a library may suppress the exception of
    the handler; the wake-up descriptor always receives the signal. An ignored signal stays ignored. Python handles
    signals in the main thread only: in other threads this does nothing.
    """
    _RESUMABLE.clear()
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


def note_resumable(what: str) -> None:
    """Note what the same command resumes, such as ``a build``."""
    _RESUMABLE[:] = [what]


def leave() -> NoReturn:
    """End the process at once; an ordinary exit would wait for pending requests."""
    resumes = "".join(f"; the same command resumes {what}" for what in _RESUMABLE)
    with suppress(OSError):  # stderr is closed or full
        os.write(2, f"atlaszarr: interrupted{resumes}\n".encode())
    os._exit(_EXIT_CODE)


def end() -> NoReturn:
    """End the process at once with exit code 0: an ordinary exit would wait for pending requests."""
    with suppress(OSError):  # stdout is closed or full
        sys.stdout.flush()
    os._exit(0)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _insist(reader: socket.socket, kinds: Sequence[int], left: threading.Event) -> None:
    with reader:
        while received := reader.recv(1):
            if received[0] in kinds and not left.wait(_GRACE):
                leave()
