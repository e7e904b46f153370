"""Answers without end: a bound on the time and the size of a whole answer, whatever it consists of."""

from __future__ import annotations

import itertools
import json
import socketserver
import threading
import tracemalloc
import zlib
from contextlib import contextmanager
from functools import cache, partial

import pytest

from atlaszarr.allen.client import AllenClient
from atlaszarr.allen.http import Http
from atlaszarr.errors import RecordError, ServiceError
from codes import raises

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@contextmanager
def sending(pieces, drip=0.0):
    """A server that sends pieces of bytes to every request until the client hangs up; yields its URL and the number of
    requests as a list of one number.
    """
    stopped, asked = threading.Event(), [0]

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            request = b""
            while b"\r\n\r\n" not in request:
                if not (more := self.request.recv(65536)):
                    return
                request += more
            asked[0] += 1
            try:
                for piece in pieces(request):
                    if stopped.wait(drip) if drip else stopped.is_set():
                        return
                    self.request.sendall(piece)
            except OSError:
                pass

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/api/v2", asked
        finally:
            stopped.set()
            server.shutdown()


def one_by_one(data):
    return (data[i : i + 1] for i in range(len(data)))


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(lambda _: one_by_one(b"HTTP/1.1 200 O" + b"K" * 10**6), id="a status line"),
        pytest.param(lambda _: one_by_one(OK + b"X: " + b"x" * 10**6), id="a header"),
        pytest.param(lambda _: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"), id="status after status"),
        pytest.param(lambda _: one_by_one(OK + b"Content-Length: 1000000\r\n\r\n" + b"x" * 10**6), id="a body"),
        pytest.param(lambda _: itertools.chain([OK, b"\r\n"], itertools.repeat(b"x")), id="a body without a length"),
        pytest.param(lambda _: itertools.chain([CHUNKED], itertools.repeat(b"1\r\nx\r\n")), id="chunks"),
        pytest.param(lambda _: itertools.chain([CHUNKED, b"1;"], itertools.repeat(b"x")), id="a chunk extension"),
        pytest.param(lambda _: itertools.chain([CHUNKED, b"0\r\n"], itertools.repeat(b"X: x\r\n")), id="trailers"),
    ],
)
def test_an_answer_that_drips_ends_at_the_time_limit_and_is_not_asked_for_again(pieces):
    http = Http(timeout=(5.0, 60.0), backoff=3600.0, longest_answer=0.5)
    with sending(pieces, drip=0.005) as (url, asked):
        with raises(ServiceError, "answer-too-slow") as caught:
            http.get(url, 2**20, bytes)
        assert url in str(caught.value)
        assert "0.5 s" in str(caught.value)
        assert asked == [1]
    http.close()


def test_the_waits_between_tries_do_not_count_as_an_answer():
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\nRetry-After: 1\r\n\r\n"
    answers = iter([busy, OK + b"Content-Length: 4\r\nConnection: close\r\n\r\ndone"])
    http = Http(timeout=(5.0, 60.0), longest_answer=0.5)
    with sending(lambda _: [next(answers)]) as (url, asked):
        assert http.get(url, 2**20, bytes) == b"done"
        assert asked == [2]
    http.close()


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(lambda _: itertools.chain([OK, b"X: "], itertools.repeat(b"x" * 2**16)), id="a header"),
        pytest.param(lambda _: itertools.chain([OK], itertools.repeat(b"X: x\r\n" * 1000)), id="headers"),
        pytest.param(lambda _: itertools.chain([CHUNKED, b"1;"], itertools.repeat(b"x" * 2**16)), id="an extension"),
    ],
)
def test_lines_without_end_are_not_read(pieces):
    http = Http(timeout=(5.0, 60.0), retries=1, backoff=0.01, longest_answer=60.0)
    tracemalloc.start()
    with sending(pieces) as (url, asked):
        with raises(ServiceError, "retries-exhausted"):
            http.get(url, 2**20, bytes)
        assert asked == [2]
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()
    http.close()


def jsonlike(body, headers=b""):
    """Pieces of an answer of JSON."""
    return [OK + b"Content-Length: %d\r\n" % len(body) + headers + b"\r\n", body]


@cache
def bomb():
    """A quarter of a MB of gzip that becomes 256 MB."""
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(2**8)) + packer.flush()


@pytest.mark.first(4)
@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        pytest.param(
            lambda _: itertools.chain(
                [OK + b"Content-Length: 268435456\r\n\r\n"], itertools.repeat(b"[[],[],[],[],[],[]," * 4096)
            ),
            "answer-too-large",
            id="256 MB of JSON",
        ),
        pytest.param(
            lambda _: jsonlike(bomb(), b"Content-Encoding: gzip\r\n"),
            "answer-too-large",
            id="a quarter of a MB that becomes 256",
        ),
        pytest.param(lambda _: jsonlike(b"[" * 2**23), "not-json", id="brackets without end"),
        pytest.param(lambda _: jsonlike(b'{"msg":' * 2**20), "not-json", id="objects without end"),
        pytest.param(lambda _: jsonlike(b"9" * 2**20), "not-json", id="an integer of a million digits"),
    ],
)
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda client: client.section_dataset(1), id="dataset"),
        pytest.param(lambda client: client.structure_graph(), id="terminology"),
    ],
)
def test_a_body_beyond_every_size_is_one_error_and_takes_little_memory(pieces, code, ask):
    with sending(pieces) as (url, asked), AllenClient(url, "none", rate=1e9) as client:
        tracemalloc.start()
        with raises(ServiceError, code) as caught:
            ask(client)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100 * 2**20
        assert asked == [1]
    assert len(str(caught.value)) < 1000


def page(request, total, rows, ignored=0):
    """A page of section datasets whose ids go on from page to page, unless the start row is ignored."""
    start = int(request.partition(b"start_row$eq")[2].partition(b"%")[0]) * (not ignored)
    body = {"success": True, "total_rows": total, "msg": [{"id": start + row + 1} for row in range(rows)]}
    return jsonlike(json.dumps(body).encode(), b"Connection: close\r\n")


def test_pages_of_one_row_are_not_followed_to_the_end():
    with (
        sending(lambda request: page(request, 200_000, 1)) as (url, asked),
        AllenClient(url, "none", rate=1e9) as client,
    ):
        with raises(ServiceError, "query-too-long") as caught:
            client.search(limit=None)
        assert asked == [250]
        assert "250 pages" in str(caught.value)


@pytest.mark.parametrize("images", [False, True])
def test_more_section_images_than_a_brain_has_are_not_read(images):
    def pieces(request):
        return page(request, 1, 1) if b"SectionDataSet" in request else page(request, 10_001, 2000)

    with sending(pieces) as (url, asked), AllenClient(url, "none", rate=1e9) as client:
        with raises(ServiceError, "too-many-rows") as caught:
            client.search(id=1, images=True) if images else client.section_dataset(1)
        assert "10001 rows" in str(caught.value)
        assert asked == [2]


@pytest.mark.slow
def test_a_redirect_to_https_on_the_same_host_is_followed_and_shows_no_password():
    def pieces(request):
        port = request.partition(b"Host: 127.0.0.1:")[2].partition(b"\r")[0]
        location = b"Location: https://jo:the-secret@127.0.0.1:%s/x\r\n" % port
        return [b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n" + location + b"Connection: close\r\n\r\n"]

    http = Http(timeout=(5.0, 0.5), retries=0)
    with sending(pieces) as (url, _):
        with raises(ServiceError, "retries-exhausted") as caught:
            http.get(url, 2**20, bytes)
        assert "HttpsPool(host='127.0.0.1'" in str(caught.value)  # the server, without TLS, does not answer
        assert "the-secret" not in str(caught.value)
    http.close()


def test_rows_without_end_are_not_read():
    with sending(lambda request: page(request, 10**9, 2)) as (url, asked), AllenClient(url, "none", rate=1e9) as client:
        with raises(ServiceError, "too-many-rows"):
            client.search(limit=None)
        assert asked == [1]


@pytest.mark.parametrize(
    ("total", "rows", "ignored", "requests"),
    [
        pytest.param(-1, 2, False, 1, id="a negative number of rows"),
        pytest.param(True, 1, False, 1, id="a number of rows that is no number"),
        pytest.param(1.0, 1, False, 1, id="a fractional number of rows"),
        pytest.param(3, 4, False, 1, id="more rows than there are"),
        pytest.param(5000, 2001, False, 1, id="more rows than asked for"),
        pytest.param(5000, 2000, True, 2, id="the first page again and again"),
    ],
)
def test_rows_that_cannot_be_those_of_the_query_are_refused(total, rows, ignored, requests):
    pieces = partial(page, total=total, rows=rows, ignored=ignored)
    with sending(pieces) as (url, asked), AllenClient(url, "none", rate=1e9) as client:
        with raises(ServiceError, "unexpected-answer"):
            client.search(limit=None)
        assert asked == [requests]


@pytest.mark.parametrize("value", [None, [], {}, "\0", "1", 1.5, 2**63, 10**400, True])
@pytest.mark.parametrize(
    ("model", "attribute", "images"),
    [("SectionDataSet", "id", False), ("SectionImage", "id", True), ("SectionImage", "data_set_id", False)],
)
def test_a_search_names_an_id_that_is_none(serve, connect, model, attribute, images, value):
    fault = {"do": "other_record", "match": {"path": f"model::{model},"}, "attribute": attribute, "value": value}
    with pytest.raises((RecordError, ServiceError)) as caught:
        connect(serve(faults=[fault])).search(images=images)
    assert caught.value.code in ("invalid-record", "wrong-record")
    assert attribute in str(caught.value) or "dataset None" in str(caught.value)
