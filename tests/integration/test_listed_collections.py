"""OME/METADATA.ome.xml lists the images of a collection; collections that were built without it stay valid."""

import shutil
from functools import partial
from xml.etree import ElementTree as ET

import ngff_zarr
import numpy as np
import pytest

from atlaszarr import build, open_sections, verify
from atlaszarr.engine import ledger
from atlaszarr.engine.ome_xml import KEY
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales

CORONAL, SAGITTAL = 74272479, 69289763
OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
OPTIONS = {"resolution": 200, "chunk": 32}


@pytest.fixture
def collection(built):
    return partial(built, mode="sections", **OPTIONS)


def listed(target):
    return ET.fromstring(Target.of(target).read(KEY)).findall(f"{OME}Image")


def as_built_before(target):
    """Take away the list, and its record, which earlier versions did not write."""
    store = Target.of(target)
    recorded = ledger.read(store, finished=True)
    body = store.read(ledger.COMPACT).removesuffix(b"\n").rpartition(b"\n")[0]
    ledger.compact(store, body, {key: value for key, value in recorded.files.items() if key != KEY})
    store.remove(KEY)


@pytest.mark.parametrize(("dataset", "version"), [(CORONAL, "0.5"), (SAGITTAL, "0.4")])
def test_the_list_has_every_section_with_the_name_and_voxels_of_its_image(collection, dataset, version):
    target = collection(dataset, ome_zarr=version)
    images = listed(target)
    assert [image.get("ID") for image in images] == [f"Image:{k}" for k in range(len(images))]
    assert len(images) == len([path for path in target.iterdir() if path.name.isdecimal()])
    for k in range(0, len(images), 5):
        stored = ngff_zarr.from_ngff_zarr(f"{target}/{k}").images[0]
        pixels = images[k].find(f"{OME}Pixels")
        assert images[k].get("Name") == stored.name
        assert tuple(int(pixels.get(f"Size{axis}")) for axis in "CZYX") == stored.data.shape
        assert [float(pixels.get(f"PhysicalSize{axis}")) for axis in "ZYX"] == [stored.scale[axis] for axis in "zyx"]
        assert pixels.get("Type") == stored.data.dtype.name


def test_grey_sections_are_listed_with_one_channel(collection):
    for image in listed(collection(SAGITTAL, grey=True)):
        assert image.find(f"{OME}Pixels").get("SizeC") == "1"
        assert len(image.findall(f".//{OME}Channel")) == 1


def test_a_dataset_that_is_written_after_own_steps_is_listed_too(allen, tmp_path):
    opened = open_sections(SAGITTAL, client=allen, **OPTIONS).isel(section=slice(2, 5))
    write_multiscales(opened.assign(image=opened.image.astype(np.uint16) * 2), tmp_path / "x.ome.zarr")
    assert verify(tmp_path / "x.ome.zarr").ok
    images = listed(tmp_path / "x.ome.zarr")
    assert [image.get("ID") for image in images] == ["Image:0", "Image:1", "Image:2"]
    assert {image.find(f"{OME}Pixels").get("Type") for image in images} == {"uint16"}


def test_a_dtype_that_ome_xml_lacks_is_written_without_a_list(allen, tmp_path):
    opened = open_sections(SAGITTAL, client=allen, **OPTIONS).isel(section=slice(2, 3))
    write_multiscales(opened.assign(image=opened.image.astype(np.int64)), tmp_path / "x.ome.zarr")
    assert verify(tmp_path / "x.ome.zarr").ok
    assert not (tmp_path / "x.ome.zarr" / KEY).exists()


def test_a_collection_that_was_built_without_a_list_is_sound_and_finished(collection, allen, tmp_path):
    target = tmp_path / "x.ome.zarr"
    shutil.copytree(collection(SAGITTAL), target)
    as_built_before(target)
    assert verify(target, deep=True).ok
    (view,) = build(SAGITTAL, target, mode="sections", client=allen, **OPTIONS).views
    assert view.state == "already finished"
    assert not (target / KEY).exists()


def test_a_collection_that_was_built_without_a_list_has_one_once_it_is_repaired(collection, allen, contents, tmp_path):
    target = tmp_path / "x.ome.zarr"
    shutil.copytree(collection(SAGITTAL), target)
    as_built_before(target)
    (target / "7/0/c/0/0/0/0").unlink()
    (view,) = build(SAGITTAL, target, mode="sections", client=allen, **OPTIONS).views
    assert (view.state, view.tasks_done) == ("resumed", 1)
    assert verify(target, deep=True).ok
    assert contents(target) == contents(collection(SAGITTAL))


def test_a_volume_that_replaces_a_collection_has_no_list(collection, allen, tmp_path):
    target = tmp_path / "x.ome.zarr"
    shutil.copytree(collection(SAGITTAL), target)
    assert build(SAGITTAL, target, client=allen, overwrite=True, **OPTIONS).ok
    assert not (target / "OME").exists()
    assert verify(target).ok
