"""Voxels from slides against plain NumPy: each is the slide where the formula of the open-data bucket has it."""

import json
from itertools import product

import numpy as np
import pytest
import tifffile
import zarr

from atlaszarr import build, plan
from atlaszarr.stores.target import Target
from atlaszarr.testing import Emulator
from atlaszarr.testing.open_data import on_slides
from atlaszarr.testing.records import invented

TIERS = (2, 3, 4, 5, 6)
ID = 909
#: From the frame of an OME-Zarr, whose origin is the centre of the first voxel of 10 um, to (p, i, r), in um.
FRAME = 5.0


class Bucket:
    """The slides of three turned and tilted sections, two to a slide, at odd places."""

    def __init__(self, folder, plane, tiers, size=(6000, 4400)):
        dataset, images = invented(ID, plane, numbers=(140, 180, 200), size=size)
        self.emulator = Emulator([dataset], on_slides(images, per_slide=2))
        self.emulator.write_bucket(Target(str(folder)), tiers=tiers)
        self.folder = folder / f"section_data_set_{ID}"
        record = json.loads((self.folder / "section_data_set.json").read_text())
        self.entries = {entry["id"]: entry for entry in record["section_images"]}
        assert all(entry["downsampling"]["downsample_0"][axis] % 2 for entry in self.entries.values() for axis in "xy")

    def at(self, id, tier, xy):
        """Colours (n, 3) of a section at full-resolution pixels (n, 2), and whether they lie inside its crop.

        A pixel (X, Y) of the crop has its centre at ((X + x + 1/2) 2^T - 1/2 - x0, (Y + y + 1/2) 2^T - 1/2 - y0).
        """
        entry = self.entries[id]
        place, full = (entry["downsampling"][f"downsample_{number}"] for number in (tier, 0))
        slide = tifffile.imread(self.folder / f"downsample_{tier}" / entry["image_file_name"]).astype(float)
        x, y = ((xy[:, k] + full[axis] + 0.5) / 2**tier - 0.5 - place[axis] for k, axis in enumerate("xy"))
        width, height = place["width"], place["height"]
        inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        left, top = np.clip(x.astype(int), 0, width - 2), np.clip(y.astype(int), 0, height - 2)
        across, down = (x - left)[:, np.newaxis], (y - top)[:, np.newaxis]
        crop = slide[place["y"] : place["y"] + height, place["x"] : place["x"] + width]
        upper = crop[top, left] * (1 - across) + crop[top, left + 1] * across
        lower = crop[top + 1, left] * (1 - across) + crop[top + 1, left + 1] * across
        return upper * (1 - down) + lower * down, inside


@pytest.fixture(scope="module", params=["coronal", "sagittal"])
def bucket(request, tmp_path_factory):
    return Bucket(tmp_path_factory.mktemp(request.param), request.param, TIERS)


def largest_difference(bucket, section, tier, trv, pir, values):
    """In grey levels, of the voxels of a section whose centres are at `pir` (n, 3) in um."""
    plane = pir @ trv[:, :3].T + trv[:, 3]
    tvs = np.asarray(section.tvs)
    expected, inside = bucket.at(section.image_id, tier, plane[:, :2] @ tvs[:, :2].T + tvs[:, 2])
    assert inside.mean() > 0.9
    return np.abs(values - expected)[inside].max()


@pytest.mark.first(6)
@pytest.mark.parametrize(("tier", "mirror"), [*product(TIERS, [False]), (5, True)])
def test_a_voxel_of_a_volume_is_the_slide_at_its_place(bucket, connect, tmp_path, tier, mirror):
    with bucket.emulator as emulator:
        client = connect(emulator, image_source=bucket.folder.parent)
        dataset = client.section_dataset(ID)
        options = {"resolution": 200, "downsample": tier, "mirror": mirror}
        assert build(dataset, tmp_path / "x", client=client, **options).ok
    image, label = (zarr.open_array(tmp_path / "x" / path, mode="r")[:] for path in ("0", "labels/section/0"))
    trv = np.asarray(dataset.trv)
    for section in dataset.sections:
        index = np.argwhere(label == section.image_id)
        pir = (index + 0.5) * 200.0
        if mirror:
            pir[:, 2] = 11_400 - pir[:, 2]
        values = image[:, *index.T].T
        assert len(values) > 1000
        assert largest_difference(bucket, section, tier, trv, pir, values) <= 0.501, section


def voxels_of(image):
    """Centres (n, 3) in um and colours (n, 3) of the voxels of a registered section in which there is anything."""
    (multiscale,) = json.loads((image / "zarr.json").read_text())["attributes"]["ome"]["multiscales"]
    scale, shift = multiscale["datasets"][0]["coordinateTransformations"]
    values = zarr.open_array(image / "0", mode="r")[:]
    index = np.argwhere(values.any(axis=0))
    centres = index * np.array(scale["scale"][1:]) + np.array(shift["translation"][1:])
    return centres * 1000.0 + FRAME, values[:, *index.T].T


@pytest.mark.first(5)
@pytest.mark.parametrize("tier", TIERS)
def test_a_voxel_of_a_registered_section_is_the_slide_at_its_place(bucket, connect, tmp_path, tier):
    with bucket.emulator as emulator:
        client = connect(emulator, image_source=bucket.folder.parent)
        dataset = client.section_dataset(ID)
        options = {"mode": "sections", "resolution": 200, "downsample": tier}
        assert build(dataset, tmp_path / "x", client=client, **options).ok
    for number, section in enumerate(dataset.sections):
        pir, values = voxels_of(tmp_path / f"x/{number}")
        assert len(values) > 500
        assert largest_difference(bucket, section, tier, np.asarray(dataset.trv), pir, values) <= 0.501, section


@pytest.mark.slow
def test_a_section_that_is_read_in_windows_is_the_slide_at_its_place(connect, tmp_path):
    """At tier 0, of more than 4096 x 4096 pixels."""
    bucket = Bucket(tmp_path / "bucket", "coronal", [0], size=(4301, 4103))
    with bucket.emulator as emulator:
        client = connect(emulator, image_source=tmp_path / "bucket")
        dataset = client.section_dataset(ID)
        options = {"resolution": 200, "downsample": 0, "client": client}
        (planned,) = plan(dataset, **options)
        assert planned.sections_in_windows == 3
        assert build(dataset, tmp_path / "x", **options).ok
    image, label = (zarr.open_array(tmp_path / "x" / path, mode="r")[:] for path in ("0", "labels/section/0"))
    for section in dataset.sections:
        index = np.argwhere(label == section.image_id)
        pir = (index + 0.5) * 200.0
        values = image[:, *index.T].T
        assert largest_difference(bucket, section, 0, np.asarray(dataset.trv), pir, values) <= 0.501, section
