"""The server and the command of a view: what it sends to whom, how it ends, and what it lacks."""

import gc
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import numpy as np
import pytest
import zarr

import atlaszarr
from atlaszarr.engine.ome_reader import StoredImage
from atlaszarr.errors import AtlaszarrWarning, InputError, TargetError
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises
from ranged_web import serving
from small_annotation import GEOMETRY, write_annotation
from tiny_atlas import write_sources

pytest.importorskip("neuroglancer", reason="the package neuroglancer is not installed")

from atlaszarr.viewing.server import LARGEST_ANSWER, Source, ViewServer

BODY = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def server():
    running = ViewServer()
    yield running
    running.close()


@pytest.fixture
def folder(tmp_path):
    """A folder that is served, with files around it."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "object").write_bytes(BODY)
    (tmp_path / "served" / "empty").write_bytes(b"")
    (tmp_path / "served" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "served" / "up").symlink_to(tmp_path)
    (tmp_path / "served" / "inside").symlink_to("object")
    return tmp_path / "served"


def ask(url, method="GET", **headers):
    """The answer to a request whose path is sent as it is: status, headers, body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.request(method, parts.path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        (None, 200, 0, 1024),
        ("bytes=0-0", 206, 0, 1),
        ("bytes=100-199", 206, 100, 200),
        ("bytes=1000-5000", 206, 1000, 1024),
        ("bytes=1000-", 206, 1000, 1024),
        ("bytes=1024-1025", 416, 0, 0),
        ("bytes=a-b", 200, 0, 1024),
    ],
)
def test_objects_are_sent_whole_or_in_ranges(server, folder, asked, status, start, stop):
    url = server.serve(Source({"document": BODY}, {"f": Target.of(folder)}))
    for key in ("document", "f/object", "f/inside"):
        found, headers, body = ask(f"{url}/{key}", **({"Range": asked} if asked else {}))
        assert (found, body) == (status, BODY[start:stop])
        if status == 206:
            assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/1024"
        if status == 416:
            assert headers["Content-Range"] == "bytes */1024"


def test_a_head_request_gives_the_size(server, folder):
    url = server.serve(Source({"document": BODY}, {"f": Target.of(folder)}))
    for key, size in (("document", "1024"), ("f/object", "1024"), ("f/empty", "0")):
        status, headers, body = ask(f"{url}/{key}", "HEAD")
        assert (status, headers["Content-Length"], body) == (200, size, b"")
    assert ask(f"{url}/f/missing", "HEAD")[0] == 404


@pytest.mark.parametrize(
    "key",
    [
        *("", "f", "f/", "f/missing", "f//object", "f/./object", "g/object", "../0/f/object", "/etc/passwd"),
        *("f/../secret", "f/%2e%2e/secret", "f/%2E%2E%2Fsecret", "f/a/../../secret", "f/..%5csecret", "f/%00"),
        *("f/out", "f/up/secret"),
    ],
)
def test_nothing_but_the_objects_of_a_source_is_sent(server, folder, key):
    url = server.serve(Source(folders={"f": Target.of(folder)}))
    status, _, body = ask(f"{url}/{key}")
    assert status == 404, (key, body)
    assert b"secret" not in body


def test_lost_chunks_are_counted_in_one_warning_and_empty_ones_are_not(tmp_path):
    image = np.ones((4, 4, 8), np.uint8)
    image[:, :, 4:6] = 0
    level = tmp_path / "x.ome.zarr" / "0"
    write_multiscales(image, level.parent, chunk=2, levels=1, geometry=GEOMETRY)
    written = sum(path.is_file() for path in (level / "c").rglob("*"))
    for key in ("c/0/0/1", "c/1/1/0"):
        (level / key).unlink()
    with atlaszarr.view(level.parent) as shown:
        source = shown.viewer.state.to_json()["layers"][0]["source"][0]["url"]
        url = f"{source.removeprefix('zarr://')}0"
        assert ask(f"{url}/c/0/0/0")[0] == 200
        assert ask(f"{url}/c/9/9/9")[0] == 404
        with pytest.warns(AtlaszarrWarning) as warned:
            assert [ask(f"{url}/{key}")[0] for key in ("c/1/1/0", "c/0/0/1", "c/1/1/0")] == [404] * 3
    (text,) = (str(one.message) for one in warned)
    assert text.startswith(f"2 of {written} objects of {level} are missing, the first is c/0/0/1; ")


def test_a_folder_or_a_pipe_is_not_sent(server, folder):
    os.mkfifo(folder / "pipe")
    (folder / "inner").mkdir()
    url = server.serve(Source(folders={"f": Target.of(folder)}))
    assert {ask(f"{url}/f/{key}")[0] for key in ("pipe", "inner")} == {502}


def test_another_token_host_or_method_is_refused(server, folder):
    url = server.serve(Source(folders={"f": Target.of(folder)}))
    base, token, number = url.rsplit("/", 2)
    assert ask(f"{url}/f/object")[0] == 200
    assert ask(f"{base}/{'0' * len(token)}/{number}/f/object")[0] == 404
    assert ask(f"{base}/{token}/999/f/object")[0] == 404
    assert ask(f"{url}/f/object", Host="localhost")[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example"):  # names that were given this address
        assert ask(f"{url}/f/object", Host=host)[0] == 404
    assert ask(f"{url}/f/object", "PUT")[0] == 405
    assert ask(f"{url}/f/object", "DELETE")[0] == 405


def test_a_page_of_another_origin_cannot_read_the_data(server, folder):
    url = server.serve(Source(folders={"f": Target.of(folder)}))
    _, headers, _ = ask(f"{url}/f/object", Origin="http://evil.example")
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_only_the_loopback_interface_is_bound(server):
    port = urlsplit(server.url).port
    for host in ("127.0.0.2", "::1"):  # other addresses of this machine
        with pytest.raises(OSError), socket.create_connection((host, port), timeout=5):  # noqa: PT011
            pass


def test_more_than_the_bound_is_not_sent_at_once(server, tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGEST_ANSWER + 1)
    url = server.serve(Source(folders={"f": Target.of(tmp_path)}))
    status, _, body = ask(f"{url}/f/large")
    assert status == 413
    assert str(LARGEST_ANSWER).encode() in body
    assert ask(f"{url}/f/large", Range=f"bytes=0-{LARGEST_ANSWER}")[0] == 413
    status, headers, body = ask(f"{url}/f/large", Range=f"bytes={LARGEST_ANSWER - 9}-")
    assert (status, len(body)) == (206, 10)
    assert headers["Content-Range"].endswith(f"/{LARGEST_ANSWER + 1}")


def test_a_store_that_fails_is_an_answer_in_one_sentence(server):
    target = Target.of("s3://bucket/x", {"key": "k", "secret": "hidden", "endpoint_url": "http://127.0.0.1:1"})
    url = server.serve(Source(folders={"f": target}))
    status, _, body = ask(f"{url}/f/object")
    assert status == 502
    assert b"s3://bucket/x" in body
    assert b"hidden" not in body


def test_an_image_on_s3_is_read_with_credentials_that_the_browser_does_not_have(remote, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 20)).astype(np.uint8)
    write_multiscales(
        values, remote.url("random.ome.zarr"), geometry=GEOMETRY, shard=64, storage_options=remote.options
    )
    remote.write("outside", "object", b"secret")
    local = write_annotation(tmp_path)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        remote.write("small", str(path.relative_to(tmp_path)), path.read_bytes())
    over = f"{remote.url('small')}/{local.name}"
    with atlaszarr.view(remote.url("random.ome.zarr"), over, storage_options=remote.options, regions="RSP") as view:
        state = view.viewer.state.to_json()
        assert "secret" not in json.dumps(state)
        url = state["layers"][0]["source"][0]["url"].removeprefix("zarr://")
        image = StoredImage.at(Target.of(url))  # with ranges, as a browser does
        np.testing.assert_array_equal(image.stored(0)[...], values)
        assert state["layers"][1]["segments"] == ["3"]
        for key in ("0/../../outside/object", "0/%2e%2e/%2e%2e/outside/object", "../outside/object"):
            assert ask(f"{url}{key}")[0] == 404


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_an_image_on_a_web_server_is_sent_in_ranges_whether_or_not_the_server_knows_them(tmp_path, ranges):
    values = np.random.default_rng(0).integers(0, 256, (3, 40, 20, 20)).astype(np.uint8)
    write_multiscales(values, tmp_path / "x.ome.zarr", geometry=GEOMETRY, chunk=16, shard=32)
    bodies = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with serving(bodies, ranges) as (web, _), atlaszarr.view(f"{web}/x.ome.zarr") as view:
        url = view.viewer.state.to_json()["layers"][0]["source"][0]["url"].removeprefix("zarr://")
        shard = "0/c/0/0/0/0"
        body = bodies[f"x.ome.zarr/{shard}"]
        assert ask(f"{url}{shard}", "HEAD")[1]["Content-Length"] == str(len(body))
        assert ask(f"{url}{shard}", Range="bytes=100-149")[2] == body[100:150]
        np.testing.assert_array_equal(StoredImage.at(Target.of(url)).stored(0)[...], values)


def test_a_view_ends_with_its_context_or_its_last_reference(tmp_path):
    image = write_annotation(tmp_path)
    with atlaszarr.view(image) as view:
        url = view.url
        assert ask(url)[0] == 200
        assert url in view._repr_html_()
        assert "<iframe" in view._repr_html_()
    view.close()
    with pytest.raises(OSError):  # noqa: PT011
        ask(url)
    view = atlaszarr.view(image)
    url = view.url
    del view
    gc.collect()
    with pytest.raises(OSError):  # noqa: PT011
        ask(url)


def test_the_page_gets_no_credentials_of_the_user(tmp_path):
    with atlaszarr.view(write_annotation(tmp_path)) as view:
        token = view.url.rstrip("/").rpartition("/")[2]
        assert ask(f"{view.url.partition('/v/')[0]}/credentials/{token}", "POST")[0] == 403


def test_a_port_can_be_chosen_and_one_that_is_taken_is_refused(tmp_path):
    image = write_annotation(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with raises(InputError, "port-unavailable") as caught:
            atlaszarr.view(image, port=port)
        assert str(caught.value) == f"port {port} is not available: Address already in use; choose another (--port)"
    with atlaszarr.view(image, port=port) as view:
        assert f":{port}/" in view.url
    with raises(InputError, "out-of-range"):
        atlaszarr.view(image, port=70000)


def test_a_target_that_is_refused_leaves_no_server(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with raises(InputError, "not-an-image"):
        atlaszarr.view(tmp_path / "missing.ome.zarr", port=port)
    with atlaszarr.view(write_annotation(tmp_path), port=port):
        pass


# Sections, atlases.


@pytest.mark.parametrize("version", ["0.5", "0.4", "0.6"])
def test_the_sections_of_a_collection_are_the_sources_of_one_layer_and_the_page_begins_on_one(allen, tmp_path, version):
    path = tmp_path / "x.ome.zarr"
    atlaszarr.build(74272479, path, mode="sections", resolution=400, ome_zarr=version, client=allen)
    count = len(list(path.glob("[0-9]*")))
    with atlaszarr.view(path) as view:
        state = view.viewer.state.to_json()
    (layer,) = state["layers"]
    assert len(layer["source"]) == count > 50
    assert state["dimensions"]["z"] == [pytest.approx(200e-6, rel=1e-3), "m"]  # from section to section
    positions = [StoredImage.at(Target.of(folder)).translations[0][1] for folder in path.glob("[0-9]*")]
    assert min(abs(at - state["position"][2] * state["dimensions"]["z"][0] * 1e3) for at in positions) < 1e-6
    assert state["layout"] == "xy"


def test_a_collection_of_sagittal_sections_is_shown_from_the_left(allen, tmp_path):
    path = tmp_path / "x.ome.zarr"
    atlaszarr.build(69289763, path, mode="sections", resolution=400, client=allen)
    with atlaszarr.view(path) as view:
        state = view.viewer.state.to_json()
    assert state["crossSectionOrientation"] == [0.5, 0.5, 0.5, 0.5]


WRONG_SERIES = {
    "none": ([], "out-of-range"),
    "too many": ([f"{k}" for k in range(1001)], "out-of-range"),
    "outside": (["../0"], "damaged-metadata"),
    "text": ("0", "damaged-metadata"),
    "missing": (None, "damaged-metadata"),
    "not there": (["0"], "not-an-image"),
}


@pytest.mark.parametrize(("series", "code"), WRONG_SERIES.values(), ids=WRONG_SERIES)
def test_a_collection_with_a_wrong_list_is_refused(tmp_path, series, code):
    group = zarr.open_group(tmp_path / "x.ome.zarr", mode="w")
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    group.create_group("OME").attrs["ome"] = {"version": "0.5", "series": series}
    with raises(InputError, code):
        atlaszarr.view(tmp_path / "x.ome.zarr")


@pytest.mark.parametrize("layout", ["plain", "assets"])
def test_an_atlas_is_shown_over_its_template(tmp_path, layout):
    sources = write_sources(tmp_path / "sources") | {"version": "2017"}
    atlaszarr.build_atlas(tmp_path / "atlas", **sources, layout=[layout])
    with atlaszarr.view(tmp_path / "atlas", regions="B") as view:
        layers = view.viewer.state.to_json()["layers"]
    assert [layer["name"] for layer in layers[:2]] == ["template", "regions"]
    assert layers[1]["segments"] == ["7"]
    if layout == "assets":
        for given in ("atlases/tiny-atlas", "atlases/tiny-atlas/2017", "atlases/tiny-atlas/2017/manifest.json"):
            with atlaszarr.view(tmp_path / "atlas" / given) as view:
                assert view.viewer.state.to_json()["layers"][0]["name"] == "template"
        with atlaszarr.view(tmp_path / "atlas/annotation-sets/tiny-annotation/2017") as view:
            assert view.viewer.state.to_json()["layers"][0]["name"] == "regions"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """An atlas of the standard."""
    folder = tmp_path_factory.mktemp("tree")
    atlaszarr.build_atlas(
        folder / "atlas", **write_sources(folder / "sources") | {"version": "2017"}, layout=["assets"]
    )
    return folder / "atlas"


@pytest.mark.parametrize(
    ("templates", "code"),
    [
        ("x", "damaged-manifest"),
        (5, "damaged-manifest"),
        ([5], "invalid-reference"),
        ([{"name": "x", "version": "1", "location": "../../secret"}], "invalid-reference"),
        ([{"name": "tiny-template", "version": "9999"}], "not-an-image"),
    ],
    ids=str,
)
def test_a_manifest_that_names_no_template_of_the_tree_is_refused(tree, templates, code):
    manifest = next(tree.glob("atlases/*/*/manifest.json"))
    before = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(before), "templates": templates}))
    try:
        with raises(InputError, code):
            atlaszarr.view(manifest)
    finally:
        manifest.write_text(before)


# The command.


@pytest.mark.parametrize("form", [[], ["--json"]], ids=str)
def test_the_command_serves_the_page_until_interrupted_and_ends_quietly(tmp_path, form):
    image = write_annotation(tmp_path)
    command = [sys.executable, "-m", "atlaszarr", "view", image, "--no-browser", "-q", *form]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with child:
        line = child.stdout.readline()
        url = json.loads(line)["url"] if form else line.strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v/[0-9a-f]{40}/", url)
        assert b"neuroglancer" in ask(url)[2].lower()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (0, "", "")


def test_without_the_package_the_command_says_how_to_install_it(tmp_path):
    (tmp_path / "neuroglancer.py").write_text("raise ModuleNotFoundError('No module', name='neuroglancer')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "atlaszarr", "view", write_annotation(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1)
    assert "pip install 'atlaszarr[view]'" in ran.stderr


def test_without_chromium_a_picture_is_refused_with_how_to_install_it(tmp_path, command, monkeypatch):
    image = write_annotation(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = command("view", image, "--screenshot", tmp_path / "x.png")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert "apt install chromium" in ran.err
    assert not (tmp_path / "x.png").exists()


def test_a_browser_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "chromium").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "bin" / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with atlaszarr.view(write_annotation(tmp_path)) as view, raises(TargetError, "browser-failed") as caught:
        view.screenshot(tmp_path / "x.png")
    assert "exit code 7" in str(caught.value)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--screenshot", "x.jpg"], "x.jpg"),
        (["--screenshot", "missing/x.png"], "missing"),
        (["--region", "RSPx"], "RSPx"),
        (["--over", "missing.ome.zarr"], "missing.ome.zarr"),
        (["--port", "65536"], "65536"),
    ],
)
def test_a_wrong_option_is_one_line_with_exit_code_2(tmp_path, command, monkeypatch, options, word):
    image = write_annotation(tmp_path)
    if options[0] == "--over":
        zarr.create_array(tmp_path / "x.zarr", shape=(4, 4, 4), chunks=(4, 4, 4), dtype="uint8")
        image = tmp_path / "x.zarr"
    monkeypatch.chdir(tmp_path)
    ran = command("view", image, "--no-browser", *options)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert word in ran.err
