"""A page in a Chromium without a window, by its devtools protocol: what it shows, picks and asks for."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager, suppress

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: Marks of tests with Chromium.
WITH_CHROMIUM = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on PATH (Debian's package chromium)"),
]
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--window-size=1000,800",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
#: Seconds to wait for Chromium, many times what anything takes.
PATIENCE = 120


class Page:
    """An open page.

    Parameters
    ----------
    address : str
        Host and port of the devtools.
    """

    def __init__(self, address):
        self._address, self._numbers = address, iter(range(10**9))

    def run(self, script):
        """The value of an expression of JavaScript, in the types of JSON."""
        found = asyncio.run(self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True))
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script):
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + PATIENCE
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"{script} stays {value!r}"
            time.sleep(0.2)
        return value

    def move(self, x, y):
        """Move the mouse."""
        asyncio.run(self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y))

    def end(self):
        """Close the browser."""
        asyncio.run(self._call("Browser.close"))

    async def _call(self, method, **parameters):
        from tornado.websocket import websocket_connect

        with urllib.request.urlopen(f"http://{self._address}/json", timeout=PATIENCE) as answer:
            (target,) = (each for each in json.load(answer) if each["type"] == "page")
        connection = await websocket_connect(target["webSocketDebuggerUrl"])
        number = next(self._numbers)
        await connection.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        result = {}
        while (text := await connection.read_message()) is not None:  # until it is closed
            if (answer := json.loads(text)).get("id") == number:
                result = answer["result"]
                connection.close()
        return result


class Browser:
    """A Chromium; `page` is its page, and after its end `requests` are the URLs that the page asked for."""

    def __init__(self, page):
        self.page, self.requests = page, set()


@contextmanager
def browsing(url, folder):
    """Open a URL in Chromium, and yield a Browser."""
    log = folder / "net-log.json"
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", url]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if found := re.search(r"DevTools listening on ws://([^/]+)/", line):
                break
        browser = Browser(Page(found[1]))
        browser.page.wait("document.readyState === 'complete'")
        yield browser
        browser.page.end()
        process.communicate(timeout=PATIENCE)
        browser.requests = set(_asked(log))
    finally:
        process.kill()
        process.wait()


def _asked(log):
    """The URLs that pages asked for, not the browser itself, such as for its updates, by a log of its network."""
    for line in log.read_text().splitlines():
        with suppress(ValueError, AttributeError):
            parameters = json.loads(line.rstrip(",")).get("params", {})
            if str(parameters.get("initiator", "not an origin")) != "not an origin":
                yield parameters["url"]
