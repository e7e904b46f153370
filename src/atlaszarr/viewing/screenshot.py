"""A picture of a page of neuroglancer, drawn by a Chromium without a window."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from ..errors import InputError, TargetError
from ..stores.temporary import temporary_folder

#: The names of Chromium and Chrome on PATH, and where macOS has it.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
#: Seconds to wait for a picture: many times what a volume of 25 um takes without a graphics card.
_PATIENCE = 300.0
#: Seconds between two looks at whether Chromium still runs.
_LOOK = 0.5
#: Pictures that are taken until two are equal: the first may be taken before all layers are there.
_MOST_PICTURES = 20
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # containers lack what the sandbox needs, and the page is from this machine
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


def chromium() -> str:
    """The path of a Chromium or Chrome.

    Raises
    ------
    InputError
        If none is installed.
    """
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None and Path(_ON_MACOS).exists():
        found = _ON_MACOS
    if found is None:
        raise InputError(
            "a picture needs Chromium or Chrome, and none is on PATH; install it (Debian, Ubuntu: apt install chromium;"
            " macOS: brew install --cask chromium), or leave out --screenshot",
            code="missing-dependency",
        )
    return found


def picture(url: str, viewer: Any, size: tuple[int, int]) -> bytes:
    """Open a page in Chromium, wait until it is drawn, and return the picture, a PNG.

    Parameters
    ----------
    url : str
    viewer : neuroglancer.viewer_base.ViewerBase
        Of the page.
    size : tuple of int
        Width and height of the window in pixels.

    Raises
    ------
    InputError
        If no Chromium is installed.
    TargetError
        If Chromium ends, or does not draw the page in time.
    """
    program = chromium()
    with temporary_folder() as profile:
        window = f"--window-size={size[0]},{size[1]}"
        command = [program, *_OPTIONS, window, f"--user-data-dir={profile}", url]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        try:
            return _drawn(process, viewer, size)
        finally:
            _end(process)


def _drawn(process: subprocess.Popen[bytes], viewer: Any, size: tuple[int, int]) -> bytes:
    """The first picture that equals the one before."""
    with viewer.config_state.txn() as state:
        state.show_ui_controls = False
        state.show_panel_borders = False
        state.viewer_size = list(size)
    end, before = time.monotonic() + _PATIENCE, b""
    for _ in range(_MOST_PICTURES):
        replies: Queue[bytes] = Queue()
        viewer.async_screenshot(lambda reply, replies=replies: replies.put(reply.screenshot.image))
        while True:
            try:
                body = replies.get(timeout=_LOOK)
                break
            except Empty:
                pass
            if process.poll() is not None:
                raise TargetError(
                    f"Chromium ended with exit code {process.returncode} before it drew the page; try it with "
                    f"{process.args[0]!r} --headless",  # type: ignore[index]
                    code="browser-failed",
                )
            if time.monotonic() > end:
                raise TargetError(
                    f"Chromium did not draw the page within {_PATIENCE:g} s; show a smaller image, or take the picture "
                    "in a browser",
                    code="browser-failed",
                )
        if body == before:
            break
        before = body
    with viewer.config_state.txn() as state:
        state.show_ui_controls = True
        state.show_panel_borders = True
        state.viewer_size = None
    return body


def _end(process: subprocess.Popen[bytes]) -> None:
    """End Chromium with all its processes."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
