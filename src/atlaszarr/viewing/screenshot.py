"""A picture of a page of neuroglancer, drawn by a Chromium without a window."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from ..errors import InputError, TargetError
from ..previews.paper import DPI, Paper, print_page
from ..stores.temporary import temporary_folder
from .planes import Panel

#: The names of Chromium and Chrome on PATH, and where macOS has it.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
#: Seconds to wait for a picture: many times what a volume of 25 um takes without a graphics card.
_PATIENCE = 300.0
#: Seconds between two looks at whether Chromium still runs.
_LOOK = 0.5
#: Pictures that are taken until two are equal: the first may be taken before all layers are there.
_MOST_PICTURES = 20
#: Space around names, in inches, and their style; a page is black, and an image on it may be white.
_GAP = 0.06
_WORDS: dict[str, Any] = {
    "size": 8,
    "color": "white",
    "va": "top",
    "bbox": {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1},
}
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


def with_names(body: bytes, panels: Sequence[Panel]) -> bytes:
    """Write the names of planes and of their sides into a picture, a PNG.

    Parameters
    ----------
    body : bytes
    panels : sequence of Panel
        Without any, the picture is returned as it is.
    """
    if not panels:
        return body
    from matplotlib.image import imread

    image = imread(io.BytesIO(body))
    width, height = image.shape[1] / DPI, image.shape[0] / DPI

    def draw(paper: Paper) -> None:
        axes = paper.axes(0, 0, width, height)
        axes.set_axis_off()
        axes.imshow(image, interpolation="none", aspect="auto")
        for panel in panels:
            left, top, wide, high = panel.left * width, panel.top * height, panel.width * width, panel.height * height
            first, last, above, below = panel.sides
            middle, centre = left + wide / 2, top + high / 2
            paper.text(left + _GAP, top + _GAP, panel.name.capitalize(), weight="bold", **_WORDS)
            paper.text(middle, top + _GAP, above, ha="center", **_WORDS)
            paper.text(middle, top + high - _GAP, below, ha="center", **{**_WORDS, "va": "bottom"})
            beside = {**_WORDS, "va": "center", "rotation": 90}
            paper.text(left + _GAP, centre, first, **beside)
            paper.text(left + wide - _GAP, centre, last, ha="right", **beside)

    return print_page(width, height, draw, ".png", {"Title": "atlaszarr view"})


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
