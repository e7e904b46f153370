"""Targets: which locations are one, how they are shown, and what is said of a store's errors."""

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
from scripted import Fault, Scripted, StoreFaultError


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nope://bucket/x", "protocol 'nope' is not known"),
        ("s3://atlas/../x", "has '..' in it; write it without"),
        ("s3://atlas//x", "has an empty or '.' part"),
        ("s3://atlas/x.zarr?token=abc", r"URL 's3://atlas/x\.zarr' has parameters"),
        ("simplecache::http://host/x.zarr#abc", r"URL 'simplecache::http://host/x\.zarr' has parameters"),
        ("", "'' is neither a path nor a URL; give one"),
        ("s3://", "URL 's3://' has no bucket or path"),
        ("file://", "has no bucket or path"),
        ("s3://key:secret@atlas/x", "^s3://... holds a user name or password; give them as storage options$"),
        ("simplecache::ftp://me:secret@host/x", "^ftp://... holds a user name"),
        ("s3:/atlas/x", "'s3:/atlas/x' is neither a path nor a URL; write 's3://atlas/x'"),
        ("S3:atlas/x", "write 's3://atlas/x'"),
        ("file:/data/x", "write 'file:///data/x'"),
        ("nope:/atlas/x", "write 'nope://atlas/x'"),
        ("simplecache::/data/x", "is neither a path nor a URL"),
        ("~nobody-of-that-name/x", "begins with a user who has no home folder"),
    ],
)
def test_a_location_that_cannot_be_a_target_is_refused_in_a_sentence(url, said):
    with pytest.raises(InputError, match=said) as caught:
        Target.of(url)
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
        with pytest.raises(InputError, match=f"cannot open '{re.escape(url)}.*{package}"):
            opening()


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
def test_a_location_is_shown_without_what_may_be_secret(given, shown_as):
    assert shown(given) == shown_as


def test_paths_are_taken_as_a_shell_takes_them(tmp_path, monkeypatch):
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
    """A store of folders, of which a file needs one, and whose reads wait until several are under way."""

    protocol = "folders"
    store = {}  # noqa: RUF012 - one for all instances, as of its parent
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


def test_folders_are_made_where_a_store_needs_them():
    write_multiscales(np.ones((8, 8, 8), "uint8"), "folders://bucket/deep/x.ome.zarr", chunk=4)
    assert verify("folders://bucket/deep/x.ome.zarr", deep=True).ok


def test_objects_of_any_store_are_read_several_at_a_time():
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
def test_any_error_of_a_store_is_the_store_s(operation, error):
    target = Target.of("scripted://faults")
    target.write("a", b"1")
    Scripted.faults[:] = [Fault(operation, "faults", error)]
    with pytest.raises(TargetError, match=rf"cannot \w+( to)? scripted://faults: {type(error).__name__}") as caught:
        OPERATIONS[operation](target)
    assert "the-secret" not in str(caught.value)
    assert not Scripted.faults


def test_an_error_with_a_status_says_it_whatever_its_class():
    class HttpError(Exception):
        code = 429

    Scripted.faults[:] = [Fault("put", "status", HttpError("the-secret"))]
    with pytest.raises(TargetError, match=r"status: the store answers HTTP 429; it is overloaded: run the same"):
        Target.of("scripted://status").write("a", b"1")


def test_an_option_that_a_store_refuses_when_it_first_connects_is_the_user_s():
    Scripted.faults[:] = [Fault("list", "first", TypeError("unexpected keyword"))]
    with pytest.raises(InputError, match="cannot list scripted://first: TypeError; check the URL and the storage"):
        Target.of("scripted://first").list_keys()
