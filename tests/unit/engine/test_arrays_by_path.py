"""Zarr arrays that are given by their path or URL."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from atlaszarr.engine.inputs import identity_of, opened
from atlaszarr.errors import InputError
from atlaszarr.writing import write_multiscales
from codes import raises
from quiet_web import web

VALUES = np.random.default_rng(0).integers(0, 255, (3, 20, 30, 40), np.uint8)


def stored(path, values=VALUES, **options):
    array = zarr.create_array(
        path, shape=values.shape, dtype=values.dtype, chunks=(*values.shape[:-3], 16, 16, 16), **options
    )
    array[:] = values
    return array


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


def test_paths_without_an_array_are_refused(tmp_path):
    write_multiscales(VALUES, tmp_path / "image.ome.zarr", identity="image", ome_zarr="0.4")
    write_multiscales(VALUES, tmp_path / "new.ome.zarr", identity="image")
    for name in ("image", "new"):
        with raises(InputError, "not-an-array") as error:
            write_multiscales(tmp_path / f"{name}.ome.zarr", tmp_path / "a.ome.zarr")
        assert f"such as {tmp_path}/{name}.ome.zarr/0" in str(error.value)
    with raises(InputError, "array-not-found"):
        write_multiscales(tmp_path / "nothing", tmp_path / "a.ome.zarr")
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
