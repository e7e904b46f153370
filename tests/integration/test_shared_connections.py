"""Targets on S3 with the same options share their connections, and no other targets do."""

import http.server
import threading

import pytest

from atlaszarr.stores.target import Target


class Kept(http.server.BaseHTTPRequestHandler):
    """Answers that nothing is there, and keeps the connection open."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections += 1

    def do_GET(self):
        self.server.keys.append(self.headers["Authorization"].partition("Credential=")[2].partition("/")[0])
        body = b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kept) as server:
        server.connections, server.keys, server.daemon_threads = 0, [], True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def options(server):
    return {"key": "one", "secret": "secret", "endpoint_url": f"http://127.0.0.1:{server.server_port}"}


def test_targets_of_one_bucket_use_one_connection(server, options):
    for number in range(20):
        assert Target.of(f"s3://bucket/folder/{number}", options).read("zarr.json") is None
    assert (server.connections, server.keys) == (1, ["one"] * 20)


def test_targets_with_other_credentials_do_not_use_the_connection_of_the_first(server, options):
    for key in ("one", "two", "one"):
        assert Target.of("s3://bucket/folder", {**options, "key": key}).read("zarr.json") is None
    assert (server.connections, server.keys) == (2, ["one", "two", "one"])


def test_a_change_of_the_environment_is_seen_by_the_next_target(server, options, monkeypatch):
    given = {"endpoint_url": options["endpoint_url"]}
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for key in ("one", "two"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        assert Target.of("s3://bucket/folder", given).read("zarr.json") is None
    assert server.keys == ["one", "two"]
