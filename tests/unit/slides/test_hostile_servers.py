"""Slides from web servers that misbehave: a pixel is right, or the fault of the server is named."""

import gzip
import http.server
import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import tifffile

from atlaszarr.errors import ImageError
from atlaszarr.slides.reading import SlideBox, open_head, read_boxes
from atlaszarr.stores.target import Target

SIZE = (1507, 303)
BOX = (3, 150, 701, 300)
PICTURE = np.random.default_rng(3).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)


def slide():
    body = io.BytesIO()
    tifffile.imwrite(body, PICTURE, photometric="rgb", metadata=None, rowsperstrip=16)
    return body.getvalue()


BODY = slide()
ZIPPED = gzip.compress(BODY)


def part(start, stop, body=BODY):
    """The bytes that a server sends with the status 206, and its Content-Range."""
    return 206, body[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(BODY)}"}


def bare(start, stop):
    return 206, BODY[start:stop], {}


#: What a server answers to a request for [start, stop), which is its `number`th for the slide, counted from 1.
RIGHT = {
    "parts": lambda start, stop, _: part(start, stop),
    "the whole file": lambda *_: (200, BODY, {}),
    "the whole file, later": lambda start, stop, number: part(start, stop) if number == 1 else (200, BODY, {}),
    "the whole file, compressed": lambda *_: (200, ZIPPED, {"Content-Encoding": "gzip"}),
}
WRONG = {
    "no range": (lambda start, stop, _: bare(start, stop), "wrong-range"),
    "no size": (lambda start, stop, _: (*bare(start, stop)[:2], {"Content-Range": "bytes 0-9/*"}), "wrong-range"),
    "a later range": (lambda start, stop, _: part(start + 7, stop), "wrong-range"),
    "the first bytes": (lambda start, stop, _: part(0, stop - start), "wrong-range"),
    "fewer bytes": (lambda start, stop, _: part(start, stop - 100), "wrong-range"),
    "more bytes": (lambda start, stop, _: (206, BODY[start : stop + 100], part(start, stop)[2]), "wrong-range"),
    "part of a compressed file": (
        lambda start, stop, _: (206, ZIPPED[start:stop], {**part(start, stop)[2], "Content-Encoding": "gzip"}),
        "wrong-range",
    ),
    "another ETag each time": (
        lambda start, stop, number: (*part(start, stop)[:2], {**part(start, stop)[2], "ETag": f'"{number}"'}),
        "slide-changed",
    ),
    "another size each time": (
        lambda start, stop, n: (206, BODY[start:stop], {"Content-Range": f"bytes {start}-9/{len(BODY) + n}"}),
        "slide-changed",
    ),
    "gone after the header": (
        lambda start, stop, number: part(start, stop) if number == 1 else (404, b"", {}),
        "slide-changed",
    ),
    "shorter after the header": (
        lambda start, stop, number: part(start, stop) if number == 1 else (416, b"", {}),
        "slide-changed",
    ),
    "a page": (lambda *_: (200, b"<html>Please log in</html>" + bytes(9000), {}), "slide-damaged"),
    "an empty file": (lambda *_: (416, b"", {"Content-Range": "bytes */0"}), "slide-truncated"),
    "nothing": (lambda *_: None, "store-error"),
}


@contextmanager
def serving(answers):
    """Serve one slide for each answer, at its number; yield (URL, numbers of requests by path)."""
    counts = dict.fromkeys((f"/{number}/slide.tiff" for number in range(len(answers))), 0)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
            start, stop = int(asked[1]), min(int(asked[2]) + 1, len(BODY))
            counts[self.path] += 1
            found = answers[int(self.path.split("/")[1])](start, stop, counts[self.path])
            if found is None:
                self.close_connection = True
                return
            status, body, headers = found
            self.send_response(status)
            known = {"Content-Length": str(len(body)), "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "ETag": '"1"'}
            for name, value in {**known, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(body)

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            """Nothing: a client that leaves early is part of the tests."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", counts
        finally:
            server.shutdown()
            thread.join()


def read(url, **options):
    """The pixels of `BOX`, or the error."""
    target = Target.of(url, options)
    try:
        (found,) = read_boxes(target, open_head(target, "slide.tiff"), [SlideBox(BOX, SIZE)]).boxes
    except ImageError as error:
        return error
    return found


@pytest.mark.parametrize("kind", RIGHT)
def test_parts_of_a_file_and_whole_files_are_read(kind):
    with serving([RIGHT[kind]]) as (url, counts):
        found = read(f"{url}/0")
    np.testing.assert_array_equal(found, PICTURE[BOX[1] : BOX[3], BOX[0] : BOX[2]])
    assert sum(counts.values()) <= 2


def test_a_server_that_misbehaves_is_named_after_few_requests():
    """All at once, since some are asked again after 0.5, 1 and 4 s."""
    with serving([answer for answer, _ in WRONG.values()]) as (url, counts), ThreadPoolExecutor(len(WRONG)) as threads:
        found = dict(zip(WRONG, threads.map(read, [f"{url}/{number}" for number in range(len(WRONG))]), strict=True))
    for kind, (_, code) in WRONG.items():
        assert isinstance(found[kind], ImageError), kind
        assert found[kind].code == code, (kind, found[kind])
        assert "slide.tiff" in str(found[kind])
        assert "\n" not in str(found[kind])
    assert max(counts.values()) <= 8  # four times, and aiohttp repeats each one that is closed without an answer


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("the whole file", "not-supported"),
        ("no range", "wrong-range"),
        ("no size", "wrong-range"),
        ("a later range", "wrong-range"),
        ("fewer bytes", "wrong-range"),
        ("more bytes", "wrong-range"),
        ("another ETag each time", "slide-changed"),
        ("gone after the header", "slide-changed"),
        ("shorter after the header", "slide-changed"),
    ],
)
def test_an_s3_server_that_misbehaves_is_named(kind, code):
    answer = RIGHT[kind] if kind in RIGHT else WRONG[kind][0]
    with serving([None, None, None, answer]) as (url, _):
        found = read("s3://3", endpoint_url=url, anon=True, region_name="x")
    assert isinstance(found, ImageError)
    assert found.code == code, str(found)
