"""The slides that the emulator writes: places, pixels and storage, by the layout of the open-data bucket."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from atlaszarr.stores.target import Target
from atlaszarr.testing import Emulator
from atlaszarr.testing.open_data import on_slides
from atlaszarr.testing.records import invented

REAL = Path(__file__).parents[3] / "shared" / "data" / "open-data" / "section_data_set_100055044.json"
TIER = 5


def emulator_of(numbers=(100, 140, 180), per_slide=2):
    dataset, images = invented(numbers=numbers)
    return Emulator([dataset], on_slides(images, per_slide))


def record_in(folder):
    return json.loads((folder / "section_data_set_909" / "section_data_set.json").read_text())


def slides_in(folder, tier=TIER):
    return {path.name: path for path in (folder / "section_data_set_909" / f"downsample_{tier}").iterdir()}


def test_a_record_has_the_keys_of_a_real_one(tmp_path):
    if not REAL.exists():
        pytest.skip(f"{REAL} is absent")
    emulator_of().write_bucket(Target.of(tmp_path), tiers=())
    real, ours = json.loads(REAL.read_text()), record_in(tmp_path)
    assert real.keys() <= ours.keys()
    assert real["section_images"][0].keys() == ours["section_images"][0].keys()
    place = real["section_images"][0]["downsampling"]
    assert place.keys() == ours["section_images"][0]["downsampling"].keys()
    assert place["downsample_3"].keys() == ours["section_images"][0]["downsampling"]["downsample_3"].keys()


def test_sections_share_slides_and_every_figure_is_that_of_full_resolution_rounded_down(tmp_path):
    emulator_of().write_bucket(Target.of(tmp_path), tiers=[TIER])
    images = record_in(tmp_path)["section_images"]
    assert [image["image_file_name"] for image in images] == [
        "section_image_909100.tiff",
        "section_image_909100.tiff",
        "section_image_909180.tiff",
    ]
    for image in images:
        full = image["downsampling"]["downsample_0"]
        assert full["x"] % 2 == full["y"] % 2 == 1
        assert image["downsampling"][f"downsample_{TIER}"] == {name: value >> TIER for name, value in full.items()}
        with tifffile.TiffFile(slides_in(tmp_path)[image["image_file_name"]]) as file:
            place = image["downsampling"][f"downsample_{TIER}"]
            assert file.pages[0].shape == (place["image_file_height"], place["image_file_width"], 3)


def test_a_pixel_of_a_slide_is_the_phantom_at_the_place_of_its_centre(tmp_path):
    emulator = emulator_of()
    emulator.write_bucket(Target.of(tmp_path), tiers=[TIER])
    for image in record_in(tmp_path)["section_images"]:
        full, place = (image["downsampling"][f"downsample_{tier}"] for tier in (0, TIER))
        slide = tifffile.imread(slides_in(tmp_path)[image["image_file_name"]])
        crop = slide[place["y"] : place["y"] + place["height"], place["x"] : place["x"] + place["width"]]
        y, x = np.indices(crop.shape[:2])
        centre = [
            (at + start + 0.5) * 2**TIER - 0.5 - first
            for at, start, first in ((x, place["x"], full["x"]), (y, place["y"], full["y"]))
        ]
        # Pixel centres of full resolution to (p, i, r) in um.
        affine = emulator._painter.pixel_to_pir(image["id"], 0)
        pir = np.stack([*centre, np.ones(x.shape)], axis=-1) @ affine.T
        expected = np.rint(emulator.phantom.rgb(pir))
        assert np.abs(crop - expected).max() <= 1
        assert (crop != expected).mean() < 1e-3  # float noise at .5


@pytest.mark.parametrize(("tiled", "compression"), [(False, None), (True, None), (False, "zlib"), (True, "zlib")])
def test_storage_changes_no_pixel(tmp_path, tiled, compression):
    emulator = emulator_of()
    emulator.write_bucket(Target.of(tmp_path / "plain"), tiers=[TIER])
    emulator.write_bucket(Target.of(tmp_path / "other"), tiers=[TIER], tiled=tiled, compression=compression)
    for name, path in slides_in(tmp_path / "other").items():
        with tifffile.TiffFile(io.BytesIO(path.read_bytes())) as file:
            page = file.pages[0]
            assert page.is_tiled == tiled
            assert (page.compression == tifffile.COMPRESSION.NONE) == (compression is None)
            np.testing.assert_array_equal(page.asarray(), tifffile.imread(slides_in(tmp_path / "plain")[name]))


def test_lost_tiers_are_not_in_the_record_and_datasets_without_alignment_are_not_in_the_bucket(tmp_path):
    dataset, images = invented(numbers=(100, 140))
    bare, bare_images = invented(id=910, numbers=(100,))
    emulator = Emulator([dataset, bare], [*images, *({**image, "alignment2d": None} for image in bare_images)])
    keys = emulator.write_bucket(Target.of(tmp_path), tiers=[TIER], lost={909100: [0, 1]})
    first, second = record_in(tmp_path)["section_images"]
    assert "downsample_0" not in first["downsampling"]
    assert "downsample_2" in first["downsampling"]
    assert "downsample_0" in second["downsampling"]
    assert [record["id"] for record in json.loads((tmp_path / "section_data_sets.json").read_text())] == [909]
    assert len(keys) == 2
