"""`region_statistics` of a volume on S3 or on a web server, with an annotation next to it or on a disk."""

import numpy as np
import pytest

from atlaszarr import Terminology, region_statistics
from atlaszarr.assets.locate import locate
from atlaszarr.engine.ome import Geometry
from atlaszarr.writing import write_multiscales
from small_annotation import CSV, labels

GEOMETRY = Geometry((0.1,) * 3)


def write(folder, **options):
    image = np.arange(3 * 20**3, dtype=np.uint32).reshape(3, 20, 20, 20).astype(np.uint8)
    section = (labels() != 3).astype(np.uint32)
    options = {"geometry": GEOMETRY, "chunk": 8} | options
    write_multiscales(image, f"{folder}/v.ome.zarr", labels={"section": section}, **options)
    write_multiscales(labels(), f"{folder}/a.ome.zarr", rule="mode", **options)


@pytest.fixture
def terminology(tmp_path):
    (tmp_path / "terminology.csv").write_text(CSV)
    return Terminology.read(tmp_path / "terminology.csv")


@pytest.mark.slow
def test_options_of_the_store_are_for_what_is_a_url(remote, tmp_path, terminology):
    write(tmp_path)
    folder = remote.url("measured")
    write(folder, storage_options=remote.options)
    local, far = f"{tmp_path}/a.ome.zarr", f"{folder}/a.ome.zarr"
    expected = region_statistics(tmp_path / "v.ome.zarr", local, terminology)
    for annotation in (local, far, locate(far, remote.options)):
        found = region_statistics(f"{folder}/v.ome.zarr", annotation, terminology, storage_options=remote.options)
        assert found.equals(expected)
    mixed = region_statistics(tmp_path / "v.ome.zarr", far, terminology, storage_options=remote.options)
    assert mixed.equals(expected)


def test_a_web_server_is_read_without_listing(web, tmp_path, terminology):
    write(tmp_path)
    expected = region_statistics(tmp_path / "v.ome.zarr", tmp_path / "a.ome.zarr", terminology)
    assert region_statistics(f"{web}/v.ome.zarr", f"{web}/a.ome.zarr", terminology).equals(expected)
