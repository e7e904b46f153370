"""A viewer of single planes begins in the middle of a volume: `omero.rdefs.defaultZ` of its metadata."""

import json
import shutil

import ngff_zarr
import numpy as np
import pytest
import yaozarrs
import zarr

from atlaszarr import build, open_volume, verify
from atlaszarr.engine import ledger
from atlaszarr.expression_grids.grids import write_grid
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales

CORONAL, SAGITTAL = 74272479, 69289763
OPTIONS = {"resolution": 200, "chunk": 32}


def omero(image):
    attributes = zarr.open_group(image, mode="r").attrs.asdict()
    return attributes.get("ome", attributes)["omero"]


def assert_middle(image):
    z = zarr.open_array(f"{image}/0", mode="r").shape[1]
    assert omero(image)["rdefs"]["defaultZ"] == z // 2
    ngff_zarr.from_ngff_zarr(str(image), validate=True)
    return z


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_the_default_plane_of_a_volume_is_the_middle_and_shows_the_brain(built, version):
    image = built(CORONAL, **OPTIONS, ome_zarr=version)
    assert assert_middle(image) == 66
    assert zarr.open_array(f"{image}/0", mode="r")[:, 33].any()
    if version != "0.6":  # yaozarrs does not support it
        yaozarrs.validate_zarr_store(str(image))


@pytest.mark.parametrize(("dataset", "planes"), [(CORONAL, 1), (SAGITTAL, 66)])
def test_the_default_plane_of_a_section_is_its_only_one_or_the_middle(built, dataset, planes):
    assert assert_middle(built(dataset, mode="sections", **OPTIONS) / "3") == planes


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_a_grey_volume_has_one_channel_whose_contrast_is_that_of_the_section_images(built, version):
    image = built(CORONAL, ome_zarr=version, grey=True, **OPTIONS)
    found = omero(image)
    (channel,) = found["channels"]
    assert channel["label"] == "grey"
    assert channel["color"] == "FFFFFF"
    assert channel["window"] == {"min": 0, "max": 255, "start": 0, "end": 255}
    assert found["rdefs"] == {"model": "greyscale", "defaultZ": zarr.open_array(f"{image}/0", mode="r").shape[0] // 2}
    assert [channel.label for channel in ngff_zarr.from_ngff_zarr(image, validate=True).metadata.omero.channels] == [
        "grey"
    ]
    if version != "0.6":
        yaozarrs.validate_zarr_store(str(image))


def test_the_default_plane_of_a_part_is_the_middle_of_the_part(allen, tmp_path):
    part = open_volume(CORONAL, client=allen, **OPTIONS).isel(z=slice(10, 31))
    write_multiscales(part.assign(image=part.image // np.uint8(2)), tmp_path / "x.ome.zarr")
    assert assert_middle(tmp_path / "x.ome.zarr") == 21


def test_the_default_plane_of_a_grid_is_the_middle(allen, tmp_path):
    write_grid(SAGITTAL, tmp_path / "grid.ome.zarr", client=allen)
    assert_middle(tmp_path / "grid.ome.zarr")


def test_a_volume_that_was_built_without_a_default_plane_is_sound_and_finished(built, allen, tmp_path):
    target = tmp_path / "x.ome.zarr"
    shutil.copytree(built(CORONAL, **OPTIONS), target)
    store = Target.of(target)
    recorded = ledger.read(store, finished=True)
    root = json.loads(recorded.header["root"]["zarr.json"])
    del root["attributes"]["ome"]["omero"]["rdefs"]["defaultZ"]
    body = ledger.compacted({**recorded.header, "root": {"zarr.json": json.dumps(root)}}, recorded.done)
    ledger.compact(store, body, recorded.files)
    root["attributes"]["atlaszarr"]["ledger"] = ledger.digest(body)
    store.write("zarr.json", json.dumps(root).encode())
    assert verify(target, deep=True).ok
    (view,) = build(CORONAL, target, client=allen, **OPTIONS).views
    assert view.state == "already finished"
