"""Interruption of a command by SIGINT and SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

_EXIT_CODE = 130
#: Seconds after which an interrupted command is ended.
_GRACE = 3.0
#: Set once the command can be resumed.
_RESUMABLE = threading.Event()


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


def note_resumable() -> None:
    """Note that the same command resumes what this one has begun."""
    _RESUMABLE.set()


def leave() -> NoReturn:
    """End the process at once; an ordinary exit would wait for pending requests."""
    message = b"atlaszarr: interrupted; run the same command again to resume\n"
    with suppress(OSError):  # stderr is closed or full
        os.write(2, message if _RESUMABLE.is_set() else b"atlaszarr: interrupted\n")
    os._exit(_EXIT_CODE)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _insist(reader: socket.socket, kinds: Sequence[int], left: threading.Event) -> None:
    with reader:
        while received := reader.recv(1):
            if received[0] in kinds and not left.wait(_GRACE):
                leave()
