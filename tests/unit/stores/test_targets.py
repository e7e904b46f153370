"""Targets: their locations, locations without secrets, and errors of stores."""

import re
import shutil
import threading

import fsspec
import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from atlaszarr import Displacement, Terminology, build_atlas, verify
from atlaszarr.errors import InputError, TargetError
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.stores.locations import shown
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import terminology_of
from atlaszarr.writing import write_multiscales
from codes import raises
from scripted import Fault, Scripted, StoreFaultError


@pytest.mark.parametrize(
    ("url", "code", "named"),
    [
        ("nope://bucket/x", "unknown-protocol", "'nope'"),
        ("s3://atlas/../x", "malformed-url", "'s3://atlas/../x'"),
        ("s3://atlas//x", "malformed-url", "'s3://atlas//x'"),
        ("s3://atlas/x.zarr?token=abc", "url-with-parameters", "'s3://atlas/x.zarr'"),
        ("simplecache::http://host/x.zarr#abc", "url-with-parameters", "'simplecache::http://host/x.zarr'"),
        ("", "not-a-location", "''"),
        ("s3://", "incomplete-url", "'s3://'"),
        ("file://", "incomplete-url", "'file://'"),
        ("s3://key:secret@atlas/x", "credentials-in-url", "s3://..."),
        ("simplecache::ftp://me:secret@host/x", "credentials-in-url", "ftp://..."),
        ("s3:/atlas/x", "not-a-location", "write 's3://atlas/x'"),
        ("S3:atlas/x", "not-a-location", "write 's3://atlas/x'"),
        ("file:/data/x", "not-a-location", "write 'file:///data/x'"),
        ("nope:/atlas/x", "not-a-location", "write 'nope://atlas/x'"),
        ("simplecache::/data/x", "not-a-location", "'simplecache::/data/x'"),
        ("~nobody-of-that-name/x", "unknown-user", "'~nobody-of-that-name/x'"),
        ("/tmp/" + "a/../" * 200_000, "not-a-location", "1000005 characters"),
        ("https://host/" + "x" * 10_000 + "?sig=secret", "not-a-location", "10024 characters"),
    ],
)
def test_a_location_that_is_not_a_target_is_refused_and_named_without_secrets(url, code, named):
    with raises(InputError, code) as caught:
        Target.of(url)
    assert named in str(caught.value)
    assert not re.search("secret|token|abc", str(caught.value))


@pytest.mark.parametrize(
    ("url", "package"), [("gs://bucket/x.zarr", "gcsfs"), ("simplecache::abfs://c@a.dfs.core.windows.net/x", "adlfs")]
)
def test_the_package_that_a_protocol_needs_is_named_wherever_a_url_is_opened(url, package, tmp_path):
    openings = {
        "target": lambda: Target.of(url),
        "terminology": lambda: Terminology.read(url),
        "terminology of an annotation": lambda: terminology_of(url),
        "field": lambda: Displacement.load(f"{url}.npy"),
        "file": lambda: open_annotation(f"{url}.nrrd", tmp_path).__enter__(),
        "image": lambda: open_annotation(f"{url}.zarr", tmp_path).__enter__(),
        "sources of an atlas": lambda: build_atlas(tmp_path / "atlas", annotation=url),
    }
    for opening in openings.values():
        with raises(InputError, "missing-dependency") as caught:
            opening()
        assert url in str(caught.value)
        assert package in str(caught.value)


@pytest.mark.parametrize(
    ("given", "shown_as"),
    [
        ("HTTPS://host/a.nrrd?sig=x", "HTTPS://host/a.nrrd"),
        ("https://host/a.nrrd#sig=x", "https://host/a.nrrd"),
        ("simplecache::http://host/a.nrrd?sig=x", "simplecache::http://host/a.nrrd"),
        ("simplecache::http://host/a.nrrd?sig=x::y", "simplecache::http://host/a.nrrd"),
        ("abfs://box@account.dfs.core.windows.net/a?sig=x", "abfs://box@account.dfs.core.windows.net/a"),
        ("ftp://user:x@host/a.nrrd", "ftp://host/a.nrrd"),
        ("zip://a.nrrd::ftp://user:x@host/a.zip", "zip://a.nrrd::ftp://host/a.zip"),
        ("s3://bucket/a.nrrd?X-Amz-Signature=x", "s3://bucket/a.nrrd"),
        ("https://host?sig=x", "https://host"),
        ("/data/what?.nrrd", "/data/what?.nrrd"),
        ("file:///data/a#1.nrrd", "file:///data/a#1.nrrd"),
    ],
)
def test_a_location_is_shown_without_secrets(given, shown_as):
    assert shown(given) == shown_as


def test_paths_mean_the_same_as_in_a_shell(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    (here / "inner").mkdir(parents=True)
    (home / "elsewhere").mkdir(parents=True)
    (here / "link").symlink_to(home / "elsewhere")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here / "inner")
    for given, meant in {
        "x.zarr": here / "inner/x.zarr",
        "../x.zarr": here / "x.zarr",
        "../link/../x.zarr": home / "x.zarr",
        "missing/../x.zarr": here / "inner/x.zarr",
        "~/x.zarr": home / "x.zarr",
        "file://x.zarr": here / "inner/x.zarr",
        f"file://{home}/x.zarr": home / "x.zarr",
        f"local://{home}/x.zarr": home / "x.zarr",
        f"LOCAL://{home}/x.zarr": home / "x.zarr",
        f"dir::file://{home}/x.zarr": home / "x.zarr",
        "a:b.zarr": here / "inner/a:b.zarr",
    }.items():
        assert Target.of(given).url == str(meant)
        write_multiscales(np.ones((4, 4, 4), "uint8"), given, chunk=4)
        assert zarr.open_array(meant / "0", mode="r").shape == (4, 4, 4)
        assert verify(given, deep=True).ok
        shutil.rmtree(meant)


class WithFolders(MemoryFileSystem):
    """A store in which a file needs a folder, and in which a read waits until four reads are running."""

    protocol = "folders"
    store = {}  # noqa: RUF012 - shared by all instances, as in its parent
    pseudo_dirs = [""]  # noqa: RUF012
    together = threading.Barrier(4)

    def pipe_file(self, path, value, mode="overwrite", **_):
        if not self.isdir(self._parent(path)):
            raise FileNotFoundError(path)
        super().pipe_file(path, value, mode=mode)

    def cat_file(self, path, start=None, end=None, **options):
        if "/waiting/" in path:
            WithFolders.together.wait(timeout=60)
        return super().cat_file(path, start, end, **options)

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("folders://", "memory://"))


fsspec.register_implementation("folders", WithFolders, clobber=True)


def test_folders_are_created_in_a_store_that_needs_them():
    write_multiscales(np.ones((8, 8, 8), "uint8"), "folders://bucket/deep/x.ome.zarr", chunk=4)
    assert verify("folders://bucket/deep/x.ome.zarr", deep=True).ok


def test_objects_of_any_store_are_read_concurrently():
    target = Target.of("folders://bucket/waiting")
    keys = [f"a/{number}" for number in range(8)]
    target.write_all((key, key.encode()) for key in keys)
    assert target.read_each(keys) == {key: key.encode() for key in keys}


OPERATIONS = {
    "put": lambda target: target.write("a", b"1"),
    "get": lambda target: target.read("a"),
    "list": lambda target: target.list_keys(),
    "remove": lambda target: target.remove_each(["a"]),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("error", [StoreFaultError("the-secret"), ValueError("the-secret"), KeyError("the-secret")])
def test_any_exception_of_a_store_is_a_target_error_without_its_message(operation, error):
    target = Target.of("scripted://faults")
    target.write("a", b"1")
    Scripted.faults[:] = [Fault(operation, "faults", error)]
    with raises(TargetError, "store-error") as caught:
        OPERATIONS[operation](target)
    assert f"scripted://faults: {type(error).__name__}" in str(caught.value)
    assert "the-secret" not in str(caught.value)
    assert not Scripted.faults


def test_the_status_of_an_exception_of_any_class_is_reported():
    class HttpError(Exception):
        code = 429

    Scripted.faults[:] = [Fault("put", "status", HttpError("the-secret"))]
    with raises(TargetError, "store-overloaded") as caught:
        Target.of("scripted://status").write("a", b"1")
    assert "scripted://status: the store answers HTTP 429" in str(caught.value)


def test_an_option_that_a_store_refuses_when_it_first_connects_is_an_input_error():
    Scripted.faults[:] = [Fault("list", "first", TypeError("unexpected keyword"))]
    with raises(InputError, "invalid-storage-options") as caught:
        Target.of("scripted://first").list_keys()
    assert "scripted://first: TypeError" in str(caught.value)
