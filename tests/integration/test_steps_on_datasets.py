"""Steps of xarray on the Datasets of `open_volume` and `open_sections`, which `write_multiscales` writes or refuses."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from atlaszarr import open_sections, open_volume, verify
from atlaszarr.errors import InputError
from atlaszarr.versions import version
from atlaszarr.writing import write_multiscales
from codes import raises

DATASET = 69289763
VOLUME = {"resolution": 200, "chunk": 16}
SECTIONS = {"resolution": 200, "chunk": 32}


@pytest.fixture
def volume(allen):
    return open_volume(DATASET, client=allen, **VOLUME)


@pytest.fixture
def sections(allen):
    return open_sections(DATASET, client=allen, **SECTIONS)


def level(target, number, path=""):
    return zarr.open_array(target / path / str(number), mode="r")[:]


def halves(image):
    """2 x 2 x 2 voxels of a volume with even lengths, along the last axis."""
    z, y, x = (n // 2 for n in image.shape[-3:])
    parts = image.reshape(*image.shape[:-3], z, 2, y, 2, x, 2)
    return np.moveaxis(parts, (-5, -3, -1), (-3, -2, -1)).reshape(*image.shape[:-3], z, y, x, 8)


def test_nan_is_no_data_at_coarser_levels(volume, tmp_path):
    part = volume.isel(z=slice(10, 42), y=slice(4, 36), x=slice(8, 40))
    image = part.image.where((part.section > 0) & (part.image < 240))
    write_multiscales(part.assign(image=image), tmp_path / "x")
    cells, covered = halves(level(tmp_path / "x", 0)), halves(level(tmp_path / "x", 0, "labels/section")) > 0
    counted = covered & ~np.isnan(cells)
    assert (covered & np.isnan(cells)).any()
    expected = np.nansum(np.where(counted, cells, 0), axis=-1) / np.maximum(counted.sum(axis=-1), 1)
    found = level(tmp_path / "x", 1)
    some = counted.any(axis=-1)
    np.testing.assert_allclose(found[some], expected[some], rtol=1e-6)
    assert np.isnan(found[~some]).all()
    assert some.any()
    assert not some.all()
    assert verify(tmp_path / "x", deep=True).ok


def test_one_section_is_written_as_a_collection_of_one(sections, tmp_path):
    one = sections.isel(section=3)
    write_multiscales(one, tmp_path / "x")
    write_multiscales(sections.isel(section=[3]), tmp_path / "y")
    np.testing.assert_array_equal(level(tmp_path / "x/0", 0), level(tmp_path / "y/0", 0))
    assert set(np.unique(level(tmp_path / "x/0", 0, "labels/section"))) == {0, int(one.image_id)}
    assert verify(tmp_path / "x", deep=True).ok


def test_sections_in_another_order_keep_their_labels_and_their_paths(sections, tmp_path):
    order = [9, 2, 5]
    write_multiscales(xr.concat([sections.isel(section=[k]) for k in order], "section"), tmp_path / "x")
    table = pd.read_csv(tmp_path / "x/atlaszarr/sections.csv")
    for member, k in enumerate(order):
        id = int(sections.image_id[k])
        assert set(np.unique(level(tmp_path / f"x/{member}", 0, "labels/section"))) == {0, id}
        assert table.path[table.image_id == id].tolist() == [member]
    assert verify(tmp_path / "x", deep=True).ok


def test_a_coarser_volume_has_its_own_label_and_place(volume, tmp_path):
    blocks = volume.coarsen(z=2, y=2, x=2, boundary="trim")
    write_multiscales(blocks.max().assign(image=blocks.mean().image.astype("float32")), tmp_path / "x")
    expected = halves(volume.image.values[..., :66, :40, :56]).mean(axis=-1)
    np.testing.assert_allclose(level(tmp_path / "x", 0), expected, rtol=1e-6)
    ome = json.loads((tmp_path / "x/zarr.json").read_text())["attributes"]["ome"]
    scale, translation = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [1.0, 0.4, 0.4, 0.4]
    first = [float(volume[axis][:2].mean()) for axis in "zyx"]
    np.testing.assert_allclose(translation["translation"][1:], first, atol=1e-12)


@pytest.mark.slow
def test_two_datasets_that_are_combined_keep_the_tables_of_the_first(allen, volume, tmp_path):
    other = open_volume(74272479, client=allen, **VOLUME)
    changed = volume.assign(image=volume.image.astype("int16") - other.image)
    write_multiscales(changed, tmp_path / "x")
    np.testing.assert_array_equal(level(tmp_path / "x", 0), changed.image.values)
    write_multiscales(volume, tmp_path / "alone")
    tables = [(tmp_path / name / "atlaszarr/sections.csv").read_bytes() for name in ("x", "alone")]
    assert tables[0] == tables[1]
    assert verify(tmp_path / "x", deep=True).ok


REFUSED = {
    "an empty axis": ("out-of-range", "along z", lambda opened: opened.isel(z=slice(5, 5))),
    "no channel": ("out-of-range", "along c", lambda opened: opened.isel(c=[])),
    "a stacked axis": ("wrong-axes", "lacks z", lambda opened: opened.stack(p=("z", "y"))),
    "flipped": ("irregular-grid", "along x", lambda opened: opened.isel(x=slice(None, None, -1))),
    "a mean of ids": ("invalid-section-label", "float64", lambda opened: opened.coarsen(z=2, y=2, x=3).mean()),
}


@pytest.mark.parametrize("step", REFUSED)
def test_a_volume_that_cannot_be_written_is_named_and_nothing_is_written(volume, tmp_path, step):
    code, named, change = REFUSED[step]
    with raises(InputError, code) as caught:
        write_multiscales(change(volume), tmp_path / "x")
    assert named in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_a_section_that_is_given_twice_is_named_and_nothing_is_written(sections, tmp_path):
    with raises(InputError, "duplicate-section") as caught:
        write_multiscales(sections.isel(section=[1, 4, 1]), tmp_path / "x")
    assert str(int(sections.image_id[1])) in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_an_image_of_no_voxels_is_refused(tmp_path):
    image = xr.DataArray(np.zeros((0, 4, 4), "u1"), dims=("z", "y", "x"), coords={"z": [], "y": range(4)})
    with raises(InputError, "out-of-range"):
        write_multiscales(image.astype("u1").assign_coords(z=np.zeros(0)), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def opened_by(volume, by):
    """A Dataset with an option that this version does not know, opened by a version."""
    record = json.loads(volume.dataset_id.attrs["atlaszarr"])
    record["options"]["sharpness"], record["version"] = 2, by
    coordinate = volume.dataset_id.copy()
    coordinate.attrs = {"atlaszarr": json.dumps(record)}
    return volume.assign_coords(dataset_id=coordinate)


def test_a_dataset_of_another_version_that_is_not_understood_is_named_with_both_versions(volume, tmp_path):
    with raises(InputError, "version-mismatch") as caught:
        write_multiscales(opened_by(volume, "99.1"), tmp_path / "x")
    for part in ("99.1", version(), "sharpness"):
        assert part in str(caught.value)
    with raises(InputError, "unknown-dataset") as caught:
        write_multiscales(opened_by(volume, version()), tmp_path / "x")
    assert "damaged" in str(caught.value)
    assert not (tmp_path / "x").exists()
