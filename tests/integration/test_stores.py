"""Every kind of store: the behaviour of all stores, a real S3 server, and the errors of stores."""

import hashlib
import json
import logging
import pickle
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import dask.array as da
import fsspec
import ngff_zarr
import numpy as np
import obstore.store
import pytest
import tensorstore
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from atlaszarr import AllenClient, Displacement, Terminology, build, plan, verify
from atlaszarr.allen.cache import ImageCache
from atlaszarr.cli.commands import main
from atlaszarr.errors import InputError, NotFoundError, SourceError, TargetError
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.stores.input_file import InputFile
from atlaszarr.stores.target import Target
from atlaszarr.testing.emulator import Emulator
from atlaszarr.testing.ontology import structure_graph
from atlaszarr.writing import write_multiscales
from codes import raises
from s3_server import S3Server

DATASET = 69289763
KEY, SECRET = "the-access-key", "the-secret-access-key"


@pytest.fixture(scope="module")
def server():
    with Emulator() as running:
        yield running


@pytest.fixture
def client(server):
    server.reset()
    with AllenClient(server.url, cache="none", rate=1e9) as client:
        yield client


@pytest.fixture(scope="module")
def s3():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = S3Server()
    moto.start()
    endpoint = moto.url
    boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    ).create_bucket(Bucket="atlas")
    yield {"key": KEY, "secret": SECRET, "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}
    moto.stop()


def listed(s3, prefix):
    client = boto3.client(
        "s3",
        endpoint_url=s3["endpoint_url"],
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="atlas", Prefix=prefix)
    return {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", ())}


@pytest.fixture(scope="module")
def on_s3(server, s3):
    with AllenClient(server.url, cache="none", rate=1e9) as client:
        build(DATASET, "s3://atlas/prox1.ome.zarr", client=client, storage_options=s3, resolution=100)
    return "s3://atlas/prox1.ome.zarr"


def test_s3_holds_what_a_local_disk_holds_and_as_many_objects_as_planned(on_s3, s3, client, tmp_path):
    local = tmp_path / "prox1.ome.zarr"
    build(DATASET, local, client=client, resolution=100)
    remote = Target.of(on_s3, s3)
    names = [name for name in Target.of(local).list_keys() if not name.startswith("atlaszarr/")]
    assert names == [name for name in remote.list_keys() if not name.startswith("atlaszarr/")]
    assert all(remote.read(name) == (local / name).read_bytes() for name in names)
    (planned,) = plan(DATASET, client=client, resolution=100)
    assert len(listed(s3, "prox1.ome.zarr/")) == planned.objects


def test_ngff_zarr_and_tensorstore_read_it_from_s3(on_s3, s3, monkeypatch):
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    options = {
        "key": KEY,
        "secret": SECRET,
        "endpoint_url": s3["endpoint_url"],
        "client_kwargs": {"region_name": "us-east-1"},
    }
    read = ngff_zarr.from_ngff_zarr(on_s3, validate=True, storage_options=options)
    found = np.asarray(read.images[2].data)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    store = {"driver": "s3", "bucket": "atlas", "path": "prox1.ome.zarr/2/", "endpoint": s3["endpoint_url"]}
    store["aws_region"] = "us-east-1"
    again = tensorstore.open({"driver": "zarr3", "kvstore": store}, open=True).result().read().result()
    np.testing.assert_array_equal(found, again)
    assert found.any()


def test_the_command_says_how_to_open_what_is_on_s3_without_the_values_of_its_options(
    on_s3, server, s3, command, monkeypatch
):
    given = {**s3, "client_kwargs": json.dumps(s3["client_kwargs"])}
    options = [part for name, value in given.items() for part in ("--storage-option", f"{name}={value}")]
    ran = command("build", DATASET, on_s3, "--resolution", 100, "--api-url", server.url, *options)
    first, line = ran.out.splitlines()
    assert (ran.code, first) == (0, f"already finished: {on_s3}")
    assert SECRET not in ran.out
    statement, _, expression = line.removeprefix("open it with: ").partition("; ")
    assert statement == "from ngff_zarr import from_ngff_zarr"
    for name, value in s3.items():
        expression = expression.replace(f'"{name}": ...', f'"{name}": {value!r}')
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert len(eval(expression, {"from_ngff_zarr": ngff_zarr.from_ngff_zarr}).images) > 1


@pytest.mark.parametrize(("version", "shard"), [("0.4", None), ("0.5", 32), ("0.6", None), ("0.6", 32)])
@pytest.mark.slow
def test_every_variant_is_read_from_s3(s3, monkeypatch, version, shard):
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 30, 50)).astype("uint8")
    url = f"s3://atlas/variant-{version}-{shard}.ome.zarr"
    write_multiscales(image, url, chunk=16, shard=shard, ome_zarr=version, storage_options=s3)
    assert verify(url, storage_options=s3, deep=True).ok
    for name, value in (("ALLOW_HTTP", "true"), ("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET)):
        monkeypatch.setenv(f"AWS_{name}", value)
    read = ngff_zarr.from_ngff_zarr(url, validate=True, storage_options=s3)
    np.testing.assert_array_equal(np.asarray(read.images[0].data), image)
    kvstore = {"driver": "s3", "bucket": "atlas", "path": f"{url.removeprefix('s3://atlas/')}/1/"}
    kvstore |= {"endpoint": s3["endpoint_url"], "aws_region": "us-east-1"}
    spec = {"driver": "zarr" if version == "0.4" else "zarr3", "kvstore": kvstore}
    coarser = tensorstore.open(spec, open=True).result().read().result()
    np.testing.assert_array_equal(coarser, np.asarray(read.images[1].data))
    store = zarr.storage.FsspecStore.from_url(url, storage_options=s3)
    np.testing.assert_array_equal(zarr.open_array(store, path="1", mode="r")[:], coarser)


def test_an_interrupted_build_on_s3_is_resumed(s3, client):
    class StopError(Exception):
        pass

    def stop(done, _total, word):
        if (done, word) == (3, "blocks"):
            raise StopError

    options = {"client": client, "storage_options": s3, "resolution": 100, "chunk": 32}
    with pytest.raises(StopError):
        build(DATASET, "s3://atlas/stopped.ome.zarr", progress=stop, **options)
    root = json.loads(Target.of("s3://atlas/stopped.ome.zarr", s3).read("zarr.json"))
    assert root["attributes"]["atlaszarr"]["state"] == "unfinished"
    assert build(DATASET, "s3://atlas/stopped.ome.zarr", **options).views[0].state == "resumed"
    build(DATASET, "s3://atlas/fresh.ome.zarr", **options)
    resumed, fresh = (
        {
            key.split("/", 1)[1]: etag
            for key, etag in listed(s3, f"{name}.ome.zarr/").items()
            if "/atlaszarr/" not in key
        }
        for name in ("stopped", "fresh")
    )
    assert resumed == fresh


def test_a_missing_bucket_is_a_clear_error_without_a_key(s3, client):
    with raises(TargetError, "bucket-not-found") as caught:
        build(DATASET, "s3://nowhere/x.ome.zarr", client=client, storage_options=s3, resolution=200)
    assert "s3://nowhere/x.ome.zarr" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert KEY not in str(caught.value)


def test_no_store_at_the_endpoint_is_a_clear_error(s3, client, capsys):
    options = {**s3, "endpoint_url": "http://127.0.0.1:9"}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
    arguments = [x for key, text in texts.items() for x in ("--storage-option", f"{key}={text}")]
    code = main(
        ["build", str(DATASET), "s3://atlas/x.ome.zarr", "--api-url", client.api_url, "--cache", "none", *arguments]
    )
    told = capsys.readouterr()
    assert code == 1
    assert "s3://atlas/x.ome.zarr" in told.err
    assert SECRET not in told.err + told.out


def test_credentials_show_in_no_repr_report_or_object(on_s3, s3, client):
    target = Target.of(on_s3, s3)
    report = build(DATASET, on_s3, client=client, storage_options=s3, resolution=100)
    assert report.views[0].state == "already finished"
    written = b"".join(target.read(name) or b"" for name in target.list_keys("atlaszarr")) + (
        target.read("zarr.json") or b""
    )
    for text in (repr(target), repr(report), json.dumps(report.to_dict()), written.decode()):
        assert SECRET not in text
        assert KEY not in text


def test_memory_works_within_one_process_and_is_refused_across_several(client):
    build(DATASET, "memory://x.ome.zarr", client=client, resolution=200)
    store = zarr.storage.FsspecStore.from_url("memory://x.ome.zarr")
    assert zarr.open_group(store, mode="r")["0"].shape == (3, 66, 40, 57)
    with pytest.raises(InputError, match=r"memory://y\.ome\.zarr"):
        build(DATASET, "memory://y.ome.zarr", client=client, resolution=200, scheduler="tcp://127.0.0.1:1")


def test_an_option_that_the_store_does_not_know_is_refused_in_one_line(client, capsys):
    arguments = ["build", str(DATASET), "s3://atlas/x.ome.zarr", "--api-url", client.api_url, "--cache", "none"]
    assert main([*arguments, "--storage-option", "junk=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'junk'" in line


def test_an_image_in_a_bucket_is_not_written_over_while_it_is_read(s3):
    url = "s3://atlas/source.ome.zarr"
    write_multiscales(np.ones((8, 8, 8), "uint8"), url, chunk=4, storage_options=s3)
    before = listed(s3, "source.ome.zarr/")
    by_obstore = obstore.store.S3Store(
        "atlas",
        prefix="source.ome.zarr/0",
        endpoint=s3["endpoint_url"],
        region="us-east-1",
        access_key_id=KEY,
        secret_access_key=SECRET,
        client_options={"allow_http": True},
    )
    for source in (
        da.from_zarr(f"{url}/0", storage_options=s3),
        zarr.open_array(zarr.storage.ObjectStore(by_obstore), mode="r"),
    ):
        for target in (url, f"{url}/0/inner.ome.zarr", f"dir::{url}"):
            with pytest.raises(InputError, match=r"s3://atlas/source\.ome\.zarr"):
                write_multiscales(source, target, chunk=8, overwrite=True, storage_options=s3)
    assert listed(s3, "source.ome.zarr/") == before


# What holds for every store


class ForeignError(Exception):
    """The error of `Foreign` for all faults except an object that is missing or exists."""


class Foreign(MemoryFileSystem):
    """A store whose errors are not OSErrors, as in gcsfs, and which refuses every request under ``closed``."""

    protocol = "foreign"
    store = {}  # noqa: RUF012 - shared by all instances, as in its parent
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("foreign://", "memory://"))

    def _refuse(self, path):
        if "/closed" in path:
            raise ForeignError(f"{SECRET} does not open {path}")

    def pipe_file(self, path, value, mode="overwrite", **options):
        self._refuse(path)
        super().pipe_file(path, value, mode=mode, **options)

    def cat_file(self, path, start=None, end=None, **options):
        self._refuse(path)
        return super().cat_file(path, start, end, **options)

    def find(self, path, **options):
        self._refuse(path)
        return super().find(path, **options)

    def ls(self, path, detail=True, **options):
        self._refuse(path)
        return super().ls(path, detail, **options)

    def rm_file(self, path):
        self._refuse(path)
        super().rm_file(path)

    def _open(self, path, mode="rb", **options):
        self._refuse(path)
        return super()._open(path, mode, **options)


fsspec.register_implementation("foreign", Foreign, clobber=True)


@dataclass(frozen=True)
class Store:
    """A store: the URL of an empty root, a URL at which every request is refused, and the storage options."""

    root: str
    refusing: str
    options: dict | None = None

    def target(self, name="x"):
        return Target.of(self.url(name), self.options)

    def url(self, name="x"):
        return f"{self.root}/{name}"


KINDS = ["local disk", "local://", "memory://", "s3://", "foreign://"]


@pytest.fixture(params=KINDS)
def any_store(request, tmp_path):
    """An empty store of every kind."""
    kind, name = request.param, tmp_path.name
    if kind == "s3://":
        return Store(f"s3://atlas/{name}", "s3://nowhere/x", request.getfixturevalue("s3"))
    if kind == "foreign://":
        return Store(f"foreign://{name}", "foreign://closed/x", {"token": SECRET})
    root = {"local disk": str(tmp_path), "local://": f"local://{tmp_path}"}.get(kind, f"memory://{name}")
    Target.of(root).write("file", b"not a folder")
    return Store(root, f"{root}/file/x")


BODIES = {"a/b/c": b"1", "a/d": b"22", "ab": b"333", "empty": b""}
ERRORS = [ValueError("four is no gene"), TypeError("no number"), FileNotFoundError(2, "No such file", "atlas.nrrd")]
OPERATIONS = {
    "put": lambda target: target.write("a", b"1"),
    "get": lambda target: target.read("a"),
    "list": lambda target: target.list_keys(),
    "list a folder": lambda target: target.entries(),
    "remove": lambda target: target.remove_each(["a"]),
}


class TestEveryStore:
    """The behaviour of targets, input files and images in every store."""

    def test_objects_are_read_as_written_one_by_one_and_together(self, any_store):
        target = any_store.target()
        target.write_all(BODIES.items())
        assert {key: target.read(key) for key in BODIES} == BODIES
        assert target.read_each([*BODIES, "a/missing"]) == {**BODIES, "a/missing": None}
        assert target.read_all("a") == {"a/b/c": b"1", "a/d": b"22"}
        target.write("a/d", b"4444")
        assert target.read("a/d") == b"4444"

    def test_keys_and_sizes_are_those_at_or_under_a_prefix(self, any_store):
        target = any_store.target()
        target.write_all(BODIES.items())
        assert target.sizes() == {key: len(body) for key, body in BODIES.items()}
        assert target.list_keys() == sorted(BODIES)
        assert target.sizes("a") == target.sizes("a/") == {"a/b/c": 1, "a/d": 2}
        assert target.sizes("a/d") == {"a/d": 2}
        assert target.list_keys("b") == []

    def test_the_entries_of_a_folder_are_its_objects_and_folders(self, any_store):
        target = any_store.target()
        target.write_all([("0/c/0", b"one"), ("0/zarr.json", b"{}"), ("00/c", b"two"), ("zarr.json", b"root")])
        assert target.entries() == {"0": True, "00": True, "zarr.json": False}
        assert target.entries("0") == {"c": True, "zarr.json": False}
        assert target.entries("0/c") == {"0": False}
        assert any_store.target("empty").entries() == {}
        assert target.entries("zarr.json") == target.entries("missing") == target.entries("0/c/0") == {}

    def test_a_missing_object_is_none_and_a_missing_prefix_is_empty(self, any_store):
        target = any_store.target("missing")
        assert target.read("a") is None
        assert target.read_tagged("a") is None
        assert target.read_each(["a", "b/c"]) == {"a": None, "b/c": None}
        assert target.list_keys() == target.links() == []
        target.remove()
        target.remove("a")

    def test_only_the_first_of_two_creations_succeeds(self, any_store):
        target = any_store.target()
        assert target.create("deep/in/it", b"first")
        assert not target.create("deep/in/it", b"second")
        assert target.read("deep/in/it") == b"first"
        target.remove("deep/in/it")
        assert target.create("deep/in/it", b"third")

    def test_an_object_is_replaced_unless_its_tag_changed(self, any_store):
        target = any_store.target()
        target.write("a", b"first")
        body, tag = target.read_tagged("a")
        assert body == b"first"
        assert target.replace("a", b"second", tag)
        assert target.read("a") == b"second"
        assert target.replace("a", b"third", tag) == (tag is None)
        assert target.read("a") == (b"second" if tag else b"third")

    def test_a_prefix_is_removed_and_its_neighbours_are_kept(self, any_store):
        target, other = any_store.target(), any_store.target("other")
        target.write_all(BODIES.items())
        other.write("a/d", b"of another")
        target.remove("a")
        assert target.list_keys() == ["ab", "empty"]
        target.remove_each(["ab"])
        assert target.list_keys() == ["empty"]
        target.remove()
        assert (target.list_keys(), other.list_keys()) == ([], ["a/d"])

    def test_the_age_of_an_object_is_measured_by_the_clock_of_the_store(self, any_store):
        target = any_store.target()
        target.write("a", b"1")
        assert 0 <= target.age("a") < 60
        assert target.age("removed meanwhile") is None
        assert target.list_keys() == ["a"]

    def test_more_objects_than_one_batch_are_written_whole(self, any_store):
        target = any_store.target()
        bodies = {f"0/c/{number}": bytes([number]) * 2**20 for number in range(20)}
        target.write_all(bodies.items())
        assert target.read_each(bodies) == bodies

    def test_a_target_is_pickled_and_shows_no_credential(self, any_store):
        target = any_store.target()
        again = pickle.loads(pickle.dumps(target))
        again.write("a", b"1")
        assert target == again
        assert target.read("a") == b"1"
        assert SECRET not in repr(target)

    @pytest.mark.parametrize("operation", ["put", "get", "list", "list a folder"])
    def test_an_error_names_the_target_and_no_credential(self, any_store, operation):
        target = Target.of(any_store.refusing, any_store.options)
        if operation != "put" and any_store.refusing.endswith("/file/x"):
            assert not OPERATIONS[operation](target)  # these stores have folders, and none of this name
            return
        with pytest.raises(TargetError) as caught:
            OPERATIONS[operation](target)
        assert caught.value.code in ("store-error", "bucket-not-found")
        assert f" {target.url}: " in str(caught.value)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    def test_an_exception_of_the_iterator_of_objects_is_raised_unchanged(self, any_store, error):
        target = any_store.target()

        def bodies():
            yield "a", b"1"
            raise error

        with pytest.raises(type(error)) as caught:
            target.write_all(bodies())
        assert caught.value is error
        target.write_all([("b", b"2")])
        assert target.read("b") == b"2"

    def test_an_exception_of_a_function_of_the_image_is_raised_with_its_block_named(self, any_store):
        url = any_store.url("function.ome.zarr")
        options = {"chunk": 8, "workers": 2, "identity": "f", "storage_options": any_store.options}
        with pytest.raises(ValueError, match="gene") as caught:
            write_multiscales(failing("four is no gene"), url, **options)
        assert_blamed(caught, any_store.target("function.ome.zarr").url)

    def test_an_input_file_is_read_with_its_size_and_digest(self, any_store):
        body = np.random.default_rng(0).bytes(3 * 2**20 + 7)
        any_store.target("files").write("a.bin", body)
        with InputFile.open(any_store.url("files/a.bin"), any_store.options) as file:
            assert file.stream.read(100) == body[:100]
            assert file.finish() == (len(body), hashlib.sha256(body).hexdigest())
        with InputFile.open(any_store.url("files/a.bin"), any_store.options) as file:
            assert file.read() == body
        with (
            InputFile.open(any_store.url("files/a.bin"), any_store.options) as file,
            raises(InputError, "file-too-large") as caught,
        ):
            file.read(1000)
        assert "a.bin" in str(caught.value)

    def test_a_missing_input_file_is_named_without_a_credential(self, any_store):
        url = any_store.url("files/missing.bin")
        with raises(NotFoundError, "file-not-found") as caught:
            InputFile.open(url, any_store.options)
        assert "missing.bin" in str(caught.value)
        assert SECRET not in str(caught.value)

    def test_terminologies_fields_and_cached_images_are_reached_as_targets_are(self, any_store, tmp_path):
        terminology = Terminology.from_structure_graph(structure_graph()["msg"])
        np.save(tmp_path / "kept.npy", np.ones((4, 5, 2), "float32"))
        target = any_store.target("sources")
        target.write("terminology.csv", terminology.to_csv().encode())
        target.write("field.npy", (tmp_path / "kept.npy").read_bytes())
        assert Terminology.read(any_store.url("sources/terminology.csv"), any_store.options) == terminology
        field = Displacement.load(any_store.url("sources/field.npy"), any_store.options)
        assert field == Displacement.from_deltas(np.ones((4, 5)), np.ones((4, 5)))
        cache = ImageCache(any_store.url("cache"), any_store.options)
        cache.put("key", b"body")
        assert "key" in cache
        assert (cache.get("key", 4), cache.get("other", 4)) == (b"body", None)

    def test_a_recorded_chunk_of_the_same_size_that_was_altered_is_repaired_when_a_build_resumes(self, any_store):
        class StopError(Exception):
            pass

        def stop(done, *_):
            if done >= 2:
                raise StopError

        url, options = any_store.url("altered.ome.zarr"), any_store.options
        image = np.random.default_rng(0).integers(0, 255, (32, 16, 16)).astype("uint8")
        arguments = {
            "chunk": 8,
            "levels": 2,
            "workers": 1,
            "identity": "i",
            "ome_zarr": "0.4",
            "storage_options": options,
        }
        with pytest.raises(StopError):
            write_multiscales(image, url, progress=stop, **arguments)
        target = Target.of(url, options)
        chunks = [key for key in target.list_keys("0") if key.rsplit("/", 1)[1][0] != "."]
        body = target.read(chunks[0])
        target.write(chunks[0], bytes([*body[:-1], body[-1] ^ 1]))
        assert write_multiscales(image, url, **arguments).state == "resumed"
        assert target.read(chunks[0]) == body
        assert verify(url, deep=True, storage_options=options).ok


def failing(message):
    """An image whose last block raises a ValueError."""

    def block(values, block_info=None):
        if block_info and block_info[0]["chunk-location"] == (3, 1, 1):
            raise ValueError(message)
        return values

    return da.map_blocks(block, da.zeros((32, 16, 16), chunks=8, dtype="uint8"), dtype="uint8")


def assert_blamed(caught, url):
    assert type(caught.value) is ValueError
    assert str(caught.value) == "four is no gene"
    assert caught.value.__notes__ == [f"while making block 1, 0, 0 (z, y, x) of level 0 of {url}"]


# A store that never answers


@pytest.fixture
def frozen():
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


ENTRIES = {
    "target": lambda url, options: Target.of(url, options).read("a"),
    "listing": lambda url, options: Target.of(url, options).list_keys(),
    "file": InputFile.open,
    "terminology": Terminology.read,
    "field": lambda url, options: Displacement.load(f"{url}.npy", options),
    "volume": lambda url, options: open_annotation(f"{url}.nrrd", None, storage_options=options).__enter__(),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.slow
def test_a_frozen_s3_server_ends_in_an_error_within_the_timeout(frozen, entry):
    options = {"key": KEY, "secret": SECRET, "endpoint_url": frozen, "timeout": 1}
    began = time.monotonic()
    with raises((TargetError, SourceError), "store-unreachable") as caught:
        ENTRIES[entry]("s3://atlas/x", options)
    assert time.monotonic() - began < 20
    assert "s3://atlas/x" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("entry", ["target", "file"])
def test_a_frozen_web_server_ends_in_an_error_within_the_timeout(frozen, entry):
    began = time.monotonic()
    with raises((TargetError, SourceError), "store-unreachable") as caught:
        ENTRIES[entry](f"{frozen}/x", {"timeout": 1})
    assert time.monotonic() - began < 20
    assert f"{frozen}/x" in str(caught.value)


@pytest.mark.parametrize("url", ["s3://atlas/x", "http://127.0.0.1:1/x"])
@pytest.mark.parametrize("timeout", ["soon", 0, -1, 1e300])
def test_a_timeout_that_is_not_a_number_of_seconds_is_refused(url, timeout):
    for opening in (Target.of, InputFile.open):
        with raises(InputError, "invalid-storage-options") as caught:
            opening(url, {"key": KEY, "secret": SECRET, "timeout": timeout})
        assert repr(timeout) in str(caught.value)


def test_s3_is_reached_by_either_protocol_and_not_behind_another(s3):
    Target.of("s3a://atlas/either", s3).write("a", b"1")
    assert Target.of("S3A://atlas/either", s3) == Target.of("s3://atlas/either", s3)
    assert Target.of("s3://atlas/either", s3).read("a") == b"1"
    with raises(InputError, "not-supported"):
        InputFile.open("simplecache::s3://atlas/either/a", {"s3": s3})


# Whose fault an error is


@pytest.mark.slow
def test_an_exception_of_a_function_of_the_image_is_raised_from_other_processes(s3, cluster):
    url = "s3://atlas/a-cluster.ome.zarr"
    with pytest.raises(ValueError, match="gene") as caught:
        write_multiscales(failing("four is no gene"), url, chunk=8, identity="f", scheduler=cluster, storage_options=s3)
    assert_blamed(caught, url)


@contextmanager
def answering(status, word):
    """A server that refuses all requests with the answer of S3."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            text = f"<Error><Code>{word}</Code><Message>no</Message><AWSAccessKeyId>{KEY}</AWSAccessKeyId></Error>"
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def __getattr__(self, name):
            if name.startswith("do_"):
                return self.answer
            raise AttributeError(name)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "word", "code"),
    [
        (301, "PermanentRedirect", "wrong-region"),
        (400, "AuthorizationHeaderMalformed", "request-refused"),
        (403, "SignatureDoesNotMatch", "access-denied"),
        (404, "NoSuchBucket", "bucket-not-found"),
        (500, "InternalError", "store-error"),
        (501, "NotImplemented", "not-supported"),
        (503, "SlowDown", "store-overloaded"),
    ],
)
@pytest.mark.slow
def test_an_answer_of_s3_is_reported_with_its_status_and_without_a_key(status, word, code):
    with answering(status, word) as endpoint:
        options = {"key": KEY, "secret": SECRET, "endpoint_url": endpoint, "timeout": 1}
        target = Target.of("s3://atlas/x", options)
        for operation in ("put", "list"):
            with raises(TargetError, code) as caught:
                OPERATIONS[operation](target)
            named = f"HTTP {status}" if status == 301 else f"HTTP {status} {word}"
            assert f"s3://atlas/x: the store answers {named}; " in str(caught.value)
            assert KEY not in str(caught.value)
