"""Reference volumes over HTTP and S3, and computed in other processes."""

import hashlib

import dask
import numpy as np
import pytest
import tifffile

from atlaszarr.errors import NotFoundError, SourceError
from atlaszarr.reference_volumes import open_annotation
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd
from codes import raises


@pytest.fixture(scope="module")
def volume():
    return default_phantom().annotation(200)


@pytest.fixture(scope="module")
def body():
    """The bytes of an NRRD file of the volume."""
    return annotation_nrrd(default_phantom(), 200)


@pytest.fixture
def spool(tmp_path):
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.tif", "a.nrrd"])
def test_other_processes_compute_it(name, volume, body, tmp_path, spool):
    # One is mapped, the other spooled.
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    (tmp_path / "a.nrrd").write_bytes(body)
    options = {"orientation": "asl", "voxel_size": 200} if name == "a.tif" else {}
    with open_annotation(tmp_path / name, spool, **options) as found:
        assert (found.sha256 is None) == (name == "a.tif")
        (total,) = dask.compute(found.array.astype("u8").sum(), scheduler="processes", num_workers=1)
    assert total == volume.sum(dtype="u8")


def test_it_is_read_over_http(volume, body, web, tmp_path, spool):
    (tmp_path / "a.nrrd").write_bytes(body)
    with open_annotation(f"{web}/a.nrrd?signature=secret", spool) as found:
        np.testing.assert_array_equal(found.array, volume)
        assert found.uri == f"{web}/a.nrrd"
    with raises(NotFoundError, "file-not-found"), open_annotation(f"{web}/b.nrrd", spool):
        pass
    refused = "http://127.0.0.1:1/a.nrrd"
    with pytest.raises(SourceError, match=refused), open_annotation(refused, spool):
        pass


def test_it_is_read_from_s3_with_storage_options(volume, body, remote, spool):
    for key in ("a.nrrd", "in/a.folder/a.nrrd"):
        remote.write("volumes", key, body)
        with open_annotation(remote.url(f"volumes/{key}"), spool, storage_options=remote.options) as found:
            np.testing.assert_array_equal(found.array, volume)
            assert found.sha256 == hashlib.sha256(body).hexdigest()
    with (
        raises(NotFoundError, "file-not-found") as caught,
        open_annotation(remote.url("volumes/b.nrrd"), spool, storage_options=remote.options),
    ):
        pass
    assert remote.options["secret"] not in str(caught.value)
