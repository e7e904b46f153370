"""Assets as the packager of the Allen Institute writes them are read the right way round, in every form it has had."""

import numpy as np
import pytest
import zarr

import institute_assets as institute
import lumps
from atlaszarr import region_mask, region_volumes
from atlaszarr.errors import InputError
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_planes import label_planes
from atlaszarr.reference_volumes import open_annotation
from codes import raises
from institute_assets import MASKS, PACKED, SET

SPACE = reference_space(9)


@pytest.fixture(params=[(style, False) for style in PACKED] + [("axes p, i, r, rotated", True)], ids=str)
def packed(request, tmp_path):
    style, is_label_group = request.param
    return institute.write_packed(tmp_path / "tree", style, is_label_group) / SET


def test_region_volumes_are_right_on_both_sides(packed):
    table = region_volumes(packed, by_hemisphere=True)
    assert table.loc["MBA:10", "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
    assert table.loc["MBA:10", "volume_right_mm3"] == 0
    assert table.loc["MBA:20", "voxels"] == np.count_nonzero(lumps.labels() == 20)
    middle = (lumps.SHAPE[2] - 1) / 2
    left = np.count_nonzero(lumps.labels()[:, :, : int(np.ceil(middle))] == 20)
    assert table.loc["MBA:20", "voxels_left"] == left
    assert table.attrs["hemispheres"].startswith("left is low r")
    coarse = region_volumes(packed, level=1, by_hemisphere=True)
    assert coarse.loc["MBA:10", "volume_left_mm3"] == pytest.approx(lumps.LL_MM3)


def test_a_mask_has_the_axes_of_the_image(packed):
    mask = region_mask(packed, None, "LL").compute()
    assert sorted(mask.shape) == sorted(lumps.SHAPE)
    assert mask.sum() == 480


@pytest.mark.parametrize("name", ["coronal", "sagittal", "transverse"])
def test_a_preview_draws_it_the_right_way_round(packed, name):
    plane = PLANES[name]
    depth = {"coronal": 25, "sagittal": 21, "transverse": 15}[name]
    (found,) = label_planes(packed, plane, [depth * 200 + 100.0], 200.0, SPACE)
    section = np.take(lumps.labels(), depth, axis=plane.fixed)
    section = section if plane.rows < plane.columns else section.T
    np.testing.assert_array_equal(found.labels == 1, section == 10)
    np.testing.assert_array_equal(found.labels == 1132, section == 20)
    assert (found.corner, found.size) == (pytest.approx((0, 0)), pytest.approx((200, 200)))


def test_an_atlas_has_its_voxels_along_the_axes_of_the_space(packed, tmp_path):
    with open_annotation(packed, tmp_path) as volume:
        assert volume.is_ccf
        np.testing.assert_array_equal(np.asarray(volume.array) == 1, lumps.labels() == 10)
        np.testing.assert_array_equal(np.asarray(volume.array) == 7, lumps.labels() == 614454277)


def test_masks_in_a_label_group_are_named_for_what_they_are(tmp_path):
    root = institute.write_tree(tmp_path / "tree")
    zarr.open_group(root / MASKS, mode="w", zarr_format=3).require_group("labels/annotations")
    institute.write_masks(root / MASKS / "labels/annotations")
    for path in (MASKS, f"{MASKS}/labels/annotations", f"{MASKS}/labels/annotations/s0"):
        with raises(InputError, "masks-not-labels"):
            region_volumes(root / path)


def test_an_axis_without_an_orientation_cannot_be_reversed(tmp_path):
    ome, _ = PACKED["axes p, i, r, by an affine"]
    bare = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    systems = [{"name": system["name"], "axes": bare} for system in ome["coordinateSystems"]]
    root = institute.write_tree(tmp_path / "tree", ome | {"coordinateSystems": systems})
    with raises(InputError, "unsupported-transformation") as caught:
        region_volumes(root / SET)
    assert "reverses the axis" in str(caught.value)


def test_words_for_an_animal_on_four_legs_are_understood(tmp_path):
    words = ("rostral-to-caudal", "dorsal-to-ventral", "left-to-right")
    ome = institute.multiscales()
    for axis, word in zip(ome["multiscales"][0]["axes"][1:], words, strict=True):
        axis["orientation"]["value"] = word
    root = institute.write_tree(tmp_path / "tree", ome)
    values = institute.labels()[::-1, ::-1].transpose(1, 0, 2)[np.newaxis]
    institute.write_image(root / institute.LABELS, values, ome)
    with open_annotation(root / SET, tmp_path) as volume:
        np.testing.assert_array_equal(np.asarray(volume.array) == 1, lumps.labels() == 10)
    assert region_volumes(root / SET, by_hemisphere=True).loc["MBA:10", "voxels_left"] == 480
    (found,) = label_planes(root / SET, PLANES["coronal"], [5100.0], 200.0, SPACE)
    np.testing.assert_array_equal(found.labels == 1, lumps.labels()[25] == 10)
