"""What stores and web servers answer: each is reported with its status, its word and what to do, or is followed."""

import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from atlaszarr.engine import lock
from atlaszarr.engine.lock import owning
from atlaszarr.errors import SourceError, TargetError
from atlaszarr.stores.failures import is_forbidden
from atlaszarr.stores.input_file import InputFile
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises

KEY, SECRET = "the-access-key", "the-secret-access-key"
IMAGE = np.ones((8, 8, 8), "uint8")


@contextmanager
def server(answer):
    """A web server: ``answer(request)`` returns status, headers and body; the context has its URL and the requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            running.requests.append(self)
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def __getattr__(self, name):
            if name.startswith("do_"):
                return self.reply
            raise AttributeError(name)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        running = SimpleNamespace(url=f"http://127.0.0.1:{listening.server_port}", requests=[])
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            listening.shutdown()
            thread.join()


def s3_error(status, word, further=""):
    """The answer of S3 for an error; it names the key, as that of S3 does."""
    body = f"<Error><Code>{word}</Code><Message>no</Message>{further}<AWSAccessKeyId>{KEY}</AWSAccessKeyId></Error>"
    return status, {"content-type": "application/xml"}, body.encode()


def on_s3(endpoint, **options):
    return Target.of("s3://atlas/x", {"key": KEY, "secret": SECRET, "endpoint_url": endpoint, "timeout": 1, **options})


OPERATIONS = {
    "put": lambda target: target.write("a", b"1"),
    "create": lambda target: target.create("a", b"1"),
    "replace": lambda target: target.replace("a", b"1", "tag"),
    "get": lambda target: target.read("a"),
    "list": lambda target: target.list_keys(),
    "remove": lambda target: target.remove_each(["a"]),
}
ANSWERS = [
    (301, "PermanentRedirect", "", "wrong-region", "endpoint_url"),
    (400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>", "wrong-region", "is in region eu-west-1"),
    (400, "InvalidRequest", "", "request-refused", "check the URL"),
    (400, "ExpiredToken", "", "access-denied", "renew them"),
    (403, "ExpiredToken", "", "access-denied", "renew them"),
    (403, "InvalidAccessKeyId", "", "access-denied", "check the credentials"),
    (403, "SignatureDoesNotMatch", "", "access-denied", "check the credentials"),
    (403, "RequestTimeTooSkewed", "", "access-denied", "the clock of this machine"),
    (403, "AccessDenied", "", "store-forbidden", "for an absent one"),
    (404, "NoSuchBucket", "", "bucket-not-found", "create the bucket"),
    pytest.param(500, "InternalError", "", "store-error", "later", marks=pytest.mark.slow),
    pytest.param(503, "SlowDown", "", "store-overloaded", "fewer workers", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("status", "word", "further", "code", "advice"), ANSWERS, ids=lambda value: str(value)[:30])
def test_an_answer_of_s3_is_reported_with_its_status_and_word_and_what_to_do(status, word, further, code, advice):
    with server(lambda _: s3_error(status, word, further)) as running:
        target = on_s3(running.url)
        for operation in OPERATIONS.values():
            with raises(TargetError, code) as caught:
                operation(target)
            message = str(caught.value)
            assert f"HTTP {status}" in message
            assert status == 301 or f"HTTP {status} {word}; " in message  # the library drops the body of a redirect
            assert advice in message
            assert KEY not in message
        if status < 500:  # nothing is retried, except conditional puts, once
            assert len(running.requests) <= len(OPERATIONS) + 2


@pytest.mark.parametrize("status", [500, 503])
def test_a_temporary_failure_of_s3_is_retried(status):
    seen = Counter()

    def answer(request):
        seen[request.path] += 1
        return s3_error(status, "SlowDown") if seen[request.path] < 3 else (200, {"ETag": '"1"'}, b"body")

    with server(answer) as running:
        assert on_s3(running.url, timeout=30).read("a") == b"body"
    assert list(seen.values()) == [3]


def test_a_store_without_conditional_puts_creates_and_replaces_an_object():
    stored = {}

    def answer(request):
        if request.command == "PUT":
            if "If-None-Match" in request.headers or "If-Match" in request.headers:
                return s3_error(501, "NotImplemented")
            stored[request.path] = b"1"
            return 200, {"ETag": '"1"'}, b""
        if request.path in stored:
            return 200, {"ETag": '"1"', "Last-Modified": "Sat, 28 Nov 2026 10:00:00 GMT"}, stored[request.path]
        return s3_error(404, "NoSuchKey")

    with server(answer) as running:
        target = on_s3(running.url)
        assert target.create("a", b"1")
        assert not target.create("a", b"1")
        assert target.replace("a", b"1", "tag")
        conditions = [r for r in running.requests if "If-None-Match" in r.headers or "If-Match" in r.headers]
    assert len(conditions) == 1


def test_a_bucket_that_cannot_be_listed_has_absent_objects_once_its_metadata_is_read():
    def answer(request):
        if request.path.endswith("zarr.json"):
            return 200, {"ETag": '"1"', "Last-Modified": "Sat, 28 Nov 2026 10:00:00 GMT"}, b"{}"
        return s3_error(403, "AccessDenied")

    with server(answer) as running:
        target = on_s3(running.url)
        with raises(TargetError, "store-forbidden"):
            target.read("0/c/0")
        assert target.public().read("0/c/0") is None
        assert target.public().read("zarr.json") == b"{}"


@pytest.mark.parametrize("word", ["ExpiredToken", "SignatureDoesNotMatch", "InvalidAccessKeyId"])
def test_credentials_that_fail_while_chunks_are_read_are_never_taken_for_an_absent_chunk(word):
    with server(lambda _: s3_error(403, word)) as running, raises(TargetError, "access-denied"):
        on_s3(running.url).public().read("0/c/0")


def test_a_web_server_that_answers_403_is_told_apart_from_other_failures():
    with server(lambda request: (403 if "a" in request.path else 401, {}, b"")) as running:
        target = Target.of(f"{running.url}/x", {"timeout": 1})
        with raises(TargetError, "store-forbidden"):
            target.read("a")
        assert target.public().read("a") is None
        with raises(TargetError, "access-denied"):
            target.public().read("b")


# Exceptions of other libraries


class HttpError(Exception):
    """As in gcsfs: no OSError, with the status as its code."""

    def __init__(self, code):
        super().__init__(f"Anonymous caller with {SECRET} does not have storage.objects.get access")
        self.code = code


class HttpResponseError(Exception):
    """As in the libraries of Azure."""

    def __init__(self, status, word):
        super().__init__(f"Signature {SECRET}")
        self.status_code, self.error_code = status, word


class Failing(MemoryFileSystem):
    """A store in memory that raises `error` when an object is read, and `put_error` when a chunk is put."""

    protocol = "failing"
    store = {}  # noqa: RUF012 - shared by all instances, as in its parent
    pseudo_dirs = [""]  # noqa: RUF012
    error = put_error = None

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("failing://", "memory://"))

    def cat_file(self, path, start=None, end=None, **options):
        if Failing.error is not None:
            raise Failing.error
        return super().cat_file(path, start, end, **options)

    def pipe_file(self, path, value, **options):
        if Failing.put_error is not None and "/c/" in path:
            raise Failing.put_error
        super().pipe_file(path, value, **options)


fsspec.register_implementation("failing", Failing, clobber=True)


@pytest.fixture
def failing():
    yield
    Failing.error = Failing.put_error = None


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (HttpError(403), "store-forbidden", "HTTP 403; "),
        (HttpError(503), "store-overloaded", "HTTP 503; "),
        (HttpResponseError(403, "AuthenticationFailed"), "store-forbidden", "HTTP 403 AuthenticationFailed; "),
        (RuntimeError(SECRET), "store-error", "RuntimeError"),
    ],
    ids=repr,
)
def test_any_exception_of_a_store_is_an_error_of_the_target_without_its_text(error, code, words):
    Failing.error = error
    with raises(TargetError, code) as caught:
        Target.of("failing://x").read("a")
    assert f"failing://x: {'the store answers ' if 'HTTP' in words else ''}{words}" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize("error", [HttpError(503), RuntimeError("the loop is closed"), BaseException("cancelled")])
def test_a_lease_that_no_renewal_reaches_stops_the_build_with_the_cause(error, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    monkeypatch.setattr(lock, "LEASE", 0.5)

    def hold():
        with owning(Target.of("failing://held")) as owner:
            Failing.error = error
            waiting = threading.Event()
            while True:
                owner.validate()
                waiting.wait(0.01)

    with raises(TargetError, "lock-not-renewed") as caught:
        hold()
    assert ("HTTP 503" if isinstance(error, HttpError) else type(error).__name__) in str(caught.value)
    Failing.error = None
    with owning(Target.of("failing://held")):  # the next build of this process
        pass


@pytest.mark.usefixtures("failing")
def test_a_lease_is_renewed_again_after_a_failure_that_ends_in_time(monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    with owning(Target.of("failing://recovering")) as owner:
        Failing.error = BaseException("cancelled")
        threading.Event().wait(0.1)
        Failing.error = None
        before = Target.of("failing://recovering").read("atlaszarr/owner.json")
        while Target.of("failing://recovering").read("atlaszarr/owner.json") == before:
            threading.Event().wait(0.01)
        owner.validate(read=True)


@pytest.mark.usefixtures("failing")
def test_an_exception_that_is_no_oserror_while_blocks_are_written_is_an_error_of_the_target():
    url = "failing://written.ome.zarr"
    Failing.put_error = HttpError(500)
    with raises(TargetError, "store-error") as caught:
        write_multiscales(IMAGE, url, chunk=4, identity="ones")
    assert f"cannot write to {url}: the store answers HTTP 500; " in str(caught.value)
    Failing.put_error = None
    assert write_multiscales(IMAGE, url, chunk=4, identity="ones").state == "resumed"


# Redirects and proxies

SECRETS = {"X-Api-Key": SECRET, "Authorization": f"Bearer {SECRET}", "Cookie": f"session={SECRET}"}


def read(url, **options):
    with InputFile.open(url, options) as file:
        return file.read()


def test_a_redirect_to_another_host_is_followed_without_credentials():
    with (
        server(lambda _: (200, {}, b"body")) as other,
        server(lambda request: (302, {"Location": f"{other.url}{request.path}"}, b"")) as first,
    ):
        assert read(f"{first.url}/a", client_kwargs={"headers": SECRETS}) == b"body"
        assert any(request.headers.get("X-Api-Key") == SECRET for request in first.requests)
        assert other.requests
        for request in other.requests:
            assert SECRET not in str(request.headers)


def test_a_redirect_within_a_host_keeps_credentials():
    def answer(request):
        return (200, {}, b"body") if request.path == "/b" else (302, {"Location": "/b"}, b"")

    with server(answer) as running:
        assert read(f"{running.url}/a", client_kwargs={"headers": SECRETS}) == b"body"
        assert all(request.headers["X-Api-Key"] == SECRET for request in running.requests)


@pytest.mark.parametrize(("redirects", "followed"), [(5, True), (6, False)])
def test_five_redirects_are_followed_and_no_more(redirects, followed):
    def answer(request):
        number = int(request.path.strip("/"))
        return (200, {}, b"body") if number == redirects else (302, {"Location": f"/{number + 1}"}, b"")

    with server(answer) as running:
        if followed:
            assert read(f"{running.url}/0") == b"body"
            return
        with raises(SourceError, "too-many-redirects") as caught:
            read(f"{running.url}/0")
        assert f"{running.url}/0" in str(caught.value)


@pytest.fixture
def proxied(monkeypatch):
    """Sends requests of this process to any host but this machine to a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def set_proxy(url):
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("http_proxy", url)

    return set_proxy


def test_a_web_server_is_reached_by_the_proxy_of_the_environment(proxied):
    with server(lambda _: (200, {}, b"body")) as proxy:
        proxied(proxy.url)
        assert read("http://atlas.invalid/a") == b"body"
        assert {request.path for request in proxy.requests} == {"http://atlas.invalid/a"}


def test_s3_is_reached_by_the_proxy_of_the_environment(proxied):
    found = 200, {"ETag": '"1"', "Last-Modified": "Sat, 28 Nov 2026 10:00:00 GMT"}, b"body"
    with server(lambda _: found) as proxy:
        proxied(proxy.url)
        assert on_s3("http://s3.invalid").read("a") == b"body"
        assert proxy.requests


def test_a_host_of_no_proxy_is_reached_directly(proxied, monkeypatch):
    with server(lambda _: (500, {}, b"")) as proxy, server(lambda _: (200, {}, b"body")) as direct:
        proxied(proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert read(f"{direct.url}/a") == b"body"
        assert not proxy.requests


def test_a_proxy_that_asks_for_credentials_is_named(proxied):
    with server(lambda _: (407, {"Proxy-Authenticate": "Basic"}, b"")) as proxy:
        proxied(proxy.url)
        with raises(SourceError, "access-denied") as caught:
            read("http://atlas.invalid/a")
    assert "HTTP 407; the proxy asks for credentials" in str(caught.value)


def test_an_error_that_is_not_of_a_store_is_not_forbidden():
    assert not is_forbidden(ValueError("403"))
