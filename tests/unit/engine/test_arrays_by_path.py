"""Zarr arrays that are given by their path or URL."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from zarr.codecs import TransposeCodec

from atlaszarr.engine.inputs import _files, identity_of, opened, read_directly
from atlaszarr.errors import InputError, TargetError
from atlaszarr.writing import write_multiscales
from codes import raises
from quiet_web import Forbidding, Quiet, web

VALUES = np.random.default_rng(0).integers(0, 255, (3, 20, 30, 40), np.uint8)


def stored(path, values=VALUES, **options):
    array = zarr.create_array(
        path, shape=values.shape, dtype=values.dtype, chunks=(*values.shape[:-3], 16, 16, 16), **options
    )
    array[:] = values
    return array


def files_in(folder):
    """The identity of a zarr array in a folder, by pathlib."""
    known = hashlib.blake2b(digest_size=16)
    for path, _, names in sorted(os.walk(folder)):
        for file in sorted(Path(path, name) for name in names):
            status = file.stat()
            known.update(f"{file.relative_to(folder)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return f"files {known.hexdigest()} of {folder}"


@pytest.mark.parametrize("options", [{}, {"zarr_format": 2}, {"shards": (3, 32, 32, 32)}])
@pytest.mark.parametrize("as_given", [str, Path, lambda path: f"file://{path}"])
def test_an_array_is_written_as_if_it_were_opened(tmp_path, as_given, options):
    source, labels = tmp_path / "source.zarr", tmp_path / "labels.zarr"
    stored(source, **options)
    stored(labels, VALUES[0].astype(np.uint32))
    write_multiscales(as_given(source), tmp_path / "a.ome.zarr", chunk=16, labels={"l": as_given(labels)})
    for level in range(2):
        opened_level = zarr.open_array(tmp_path / f"a.ome.zarr/{level}", mode="r")[:]
        write_multiscales(VALUES, tmp_path / "b.ome.zarr", chunk=16, identity="b", labels={"l": VALUES[0].astype("u4")})
        np.testing.assert_array_equal(opened_level, zarr.open_array(tmp_path / f"b.ome.zarr/{level}", mode="r")[:])
    assert (zarr.open_array(tmp_path / "a.ome.zarr/labels/l/0", mode="r")[:] == VALUES[0]).all()
    same = write_multiscales(zarr.open_array(source, mode="r"), tmp_path / "a.ome.zarr", chunk=16, labels={"l": labels})
    assert same.state == "already finished"  # the identity of an array does not depend on how it is given


@pytest.mark.parametrize("options", [{}, {"shards": (3, 32, 32, 32)}])
def test_an_array_opened_by_a_relative_path_is_read_from_any_folder(tmp_path, monkeypatch, options):
    stored(tmp_path / "source.zarr", **options)
    monkeypatch.chdir(tmp_path)
    array, _, _ = opened(zarr.open_array("source.zarr", mode="r"))
    assert identity_of(array) == files_in("source.zarr")  # as targets record it
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array))[:], VALUES)


@pytest.mark.parametrize(
    "given", ["source.zarr", "./source.zarr/", "link.zarr/../source.zarr", "file://{}/source.zarr"]
)
@pytest.mark.parametrize("options", [{}, {"shards": (3, 32, 32, 32)}])
def test_a_killed_write_is_resumed_by_any_form_of_the_path(tmp_path, monkeypatch, given, options):
    monkeypatch.chdir(tmp_path)
    stored(tmp_path / "source.zarr", **options)
    (tmp_path / "link.zarr").symlink_to("source.zarr")
    code = (
        "import os, signal; from itertools import count; from atlaszarr.writing import write_multiscales; "
        "steps = count(); write_multiscales('source.zarr', 'a.ome.zarr', chunk=16, workers=1, "
        "progress=lambda *_: next(steps) < 2 or os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    report = write_multiscales(given.format(tmp_path), "a.ome.zarr", chunk=16)
    assert report.state == "resumed"
    np.testing.assert_array_equal(zarr.open_array("a.ome.zarr/0", mode="r")[:], VALUES)


@pytest.mark.parametrize("options", [{}, {"shards": (3, 32, 32, 32)}])
def test_a_dask_array_of_a_relative_path_is_read_from_any_folder(tmp_path, monkeypatch, options):
    stored(tmp_path / "source.zarr", **options)
    monkeypatch.chdir(tmp_path)
    array = read_directly(da.from_array(zarr.open_array("source.zarr", mode="r")) + 1)
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(array.compute(scheduler="sync"), VALUES + np.uint8(1))


def test_the_digest_of_files_is_what_targets_record(tmp_path, monkeypatch):
    folder = tmp_path / "a b"
    for name in ("zarr.json", "c/0/0", "c/0/\u00fc", "c. /..d/-", "\\/~", "e\n/f", "c.0.0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "link").symlink_to(folder)
    (folder / "c/file link").symlink_to(folder / "zarr.json")
    (folder / "c/folder link").symlink_to(folder / "e\n")
    monkeypatch.chdir(tmp_path)
    for given in (folder, f"{folder}/", f"{folder}//", "a b", "./a b", "link", "link/", f"{tmp_path}/./a b", "."):
        assert _files(str(given)) == files_in(str(given))


def test_another_source_at_the_path_is_refused(tmp_path):
    stored(tmp_path / "source.zarr")
    write_multiscales(tmp_path / "source.zarr", tmp_path / "a.ome.zarr", chunk=16)
    stored(tmp_path / "source.zarr", VALUES[:, :10], overwrite=True)
    with raises(InputError, "different-options"):
        write_multiscales(tmp_path / "source.zarr", tmp_path / "a.ome.zarr", chunk=16)


def test_an_array_on_a_web_server(tmp_path):
    names = []
    with web(tmp_path) as url:
        for values in (VALUES, VALUES[:, :10]):
            stored(tmp_path / "source.zarr", values, overwrite=True)
            array, _, _ = opened(f"{url}/source.zarr")
            np.testing.assert_array_equal(array[:], values)
            names.append(identity_of(array))
    assert names[0] != names[1]  # the metadata belongs to the identity


@pytest.mark.parametrize("server", [Quiet, Forbidding])  # neither sends parts of files
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zarr_format": 2},
        {"zarr_format": 2, "order": "F"},
        {"shards": (3, 32, 32, 32)},
        {"filters": [TransposeCodec(order=(2, 0, 1, 3))]},
    ],
)
def test_an_array_of_any_codec_on_any_web_server(tmp_path, server, options):
    stored(tmp_path / "source.zarr", **options)
    names = []
    with web(tmp_path, server) as url:
        for _ in range(2):
            array, _, _ = opened(f"{url}/source.zarr")
            np.testing.assert_array_equal(array[:], VALUES)
            np.testing.assert_array_equal(pickle.loads(pickle.dumps(array))[1, 3:9], VALUES[1, 3:9])
            names.append(identity_of(array))
        assert names[0] == names[1]
        missing = (InputError, "array-not-found") if server is Quiet else (TargetError, "store-forbidden")
        with raises(*missing):
            opened(f"{url}/nothing")


def test_absent_shards_of_a_public_bucket_have_the_fill_value(tmp_path):
    array = stored(tmp_path / "source.zarr", shards=(3, 32, 32, 32), fill_value=7)
    (tmp_path / "source.zarr/c/0/0/0/0").unlink()
    with web(tmp_path, Forbidding) as url:
        np.testing.assert_array_equal(opened(f"{url}/source.zarr")[0][:], array[:])


def test_a_codec_that_is_not_installed_is_refused(tmp_path):
    stored(tmp_path / "source.zarr")
    metadata = tmp_path / "source.zarr/zarr.json"
    document = json.loads(metadata.read_text())
    document["codecs"].append({"name": "unheard-of"})
    metadata.write_text(json.dumps(document))
    with raises(InputError, "damaged-metadata") as error:
        write_multiscales(tmp_path / "source.zarr", tmp_path / "a.ome.zarr")
    assert "unheard-of" in str(error.value)
    assert not (tmp_path / "a.ome.zarr").exists()


@pytest.mark.parametrize("options", [{"shards": (3, 32, 32, 32)}, {"filters": [TransposeCodec(order=(2, 0, 1, 3))]}])
def test_a_damaged_chunk_that_zarr_python_reads_is_named(tmp_path, options):
    stored(tmp_path / "source.zarr", **options)
    (tmp_path / "source.zarr/c/0/0/0/0").write_bytes(b"damaged" * 99)
    with raises(TargetError, "damaged-chunk") as error:
        write_multiscales(tmp_path / "source.zarr", tmp_path / "a.ome.zarr", chunk=16)
    assert str(tmp_path / "source.zarr") in str(error.value)


def test_a_file_name_that_is_no_text_and_a_broken_link(tmp_path):
    stored(tmp_path / "source.zarr")
    (tmp_path / "source.zarr" / os.fsdecode(b"\xff")).touch()
    assert write_multiscales(tmp_path / "source.zarr", tmp_path / "a.ome.zarr", chunk=16).state == "built"
    (tmp_path / "source.zarr/link").symlink_to("nothing")
    with raises(TargetError, "store-error"):
        write_multiscales(tmp_path / "source.zarr", tmp_path / "b.ome.zarr")


@pytest.mark.parametrize("labels", ["labels.zarr", ["labels.zarr"]])
def test_labels_without_names_are_refused(tmp_path, labels):
    with raises(InputError, "wrong-type"):
        write_multiscales(VALUES, tmp_path / "a.ome.zarr", labels=labels)


def test_paths_without_an_array_are_refused(tmp_path):
    write_multiscales(VALUES, tmp_path / "image.ome.zarr", identity="image", ome_zarr="0.4")
    write_multiscales(VALUES, tmp_path / "new.ome.zarr", identity="image")
    for name in ("image", "new"):
        with raises(InputError, "not-an-array") as error:
            write_multiscales(tmp_path / f"{name}.ome.zarr", tmp_path / "a.ome.zarr")
        assert f"such as {tmp_path}/{name}.ome.zarr/0" in str(error.value)
    (tmp_path / "file.nii").touch()
    (tmp_path / "empty").mkdir()
    for name in ("nothing", "file.nii", "empty"):
        with raises(InputError, "array-not-found"):
            write_multiscales(tmp_path / name, tmp_path / "a.ome.zarr")
    zarr.create_group(tmp_path / "group")
    with raises(InputError, "not-an-array") as error:
        write_multiscales(tmp_path / "group", tmp_path / "a.ome.zarr")
    assert "such as" not in str(error.value)  # it has no array 0
    (tmp_path / "empty/zarr.json").write_text("{}")
    with raises(InputError, "damaged-metadata"):
        write_multiscales(tmp_path / "empty", tmp_path / "a.ome.zarr")
    assert not (tmp_path / "a.ome.zarr").exists()


def test_the_source_is_not_overwritten(tmp_path):
    stored(tmp_path / "source.zarr")
    with raises(InputError, "target-overlaps-source"):
        write_multiscales(tmp_path / "source.zarr", tmp_path / "source.zarr" / "a.ome.zarr")


def test_zarr_is_not_imported(tmp_path):
    stored(tmp_path / "source.zarr")
    code = (
        "import sys; from atlaszarr.writing import write_multiscales; "
        "write_multiscales(sys.argv[1], sys.argv[2]); assert 'zarr' not in sys.modules and 'dask' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "source.zarr", tmp_path / "a.ome.zarr"], check=True)
