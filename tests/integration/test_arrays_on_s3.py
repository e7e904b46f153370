"""Zarr arrays that are given by their URL on S3."""

import numpy as np
import pytest
import zarr
from zarr.codecs import TransposeCodec

from atlaszarr.engine.inputs import identity_of, opened
from atlaszarr.errors import AtlaszarrWarning, InputError
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises

VALUES = np.random.default_rng(0).integers(1, 99, (20, 30, 40), np.uint16)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"zarr_format": 2, "order": "F"},
        {"shards": (32, 32, 32)},
        {"filters": [TransposeCodec(order=(2, 0, 1))]},
    ],
)
def test_an_array_is_read_from_s3(tmp_path, remote, monkeypatch, options):
    for name, value in {
        "AWS_ENDPOINT_URL": remote.options["endpoint_url"],
        "AWS_ACCESS_KEY_ID": remote.options["key"],
        "AWS_SECRET_ACCESS_KEY": remote.options["secret"],
    }.items():
        monkeypatch.setenv(name, value)
    array = zarr.create_array(tmp_path / "x", shape=VALUES.shape, dtype="u2", chunks=(16, 16, 16), **options)
    array[:] = VALUES
    first = "0.0.0" if options.get("zarr_format") == 2 else "c/0/0/0"
    (tmp_path / "x" / first).unlink()
    url = remote.url(tmp_path.name)
    Target.of(url).write_all(Target.of(tmp_path / "x").read_all("").items())
    with pytest.warns(AtlaszarrWarning, match="of 12 chunks"):
        write_multiscales(f"{url}/", tmp_path / "a.ome.zarr", chunk=16)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.ome.zarr/0", mode="r")[:], array[:])
    assert identity_of(opened(url)[0]) == identity_of(opened(f"{url}/")[0])
    with raises(InputError, "target-overlaps-source"):
        write_multiscales(url, f"{url}/a.ome.zarr", storage_options=remote.options)
