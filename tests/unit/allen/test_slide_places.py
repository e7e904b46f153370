"""Where a tier's crop of a slide lies in full-resolution pixels of the section, and which tier is taken."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atlaszarr.allen.images import imaged_sections, tier_image
from atlaszarr.allen.records import SectionDataset
from atlaszarr.allen.slide_images import ImageOutline, slide_crop
from atlaszarr.allen.slide_places import SlidePlace, SlideTier
from atlaszarr.allen.slide_records import slide_places
from atlaszarr.errors import RecordError
from atlaszarr.transforms import apply, tier_affine
from codes import raises

#: A record of the open-data bucket as the Allen Institute publishes it.
REAL = Path(__file__).parents[4] / "shared/data/open-data/section_data_set_100055044.json"
OUTLINE = ImageOutline(7, 45, 3248, 20688, 10992, 7296, 1.049)


def place(tiers=range(9), x0=3248, y0=20688, **changes):
    """The place of section 45 of 100055044, from its full-resolution figures."""
    found = tuple(
        SlideTier(t, x0 >> t, y0 >> t, 10992 >> t, 7296 >> t, 19200 >> t, 38272 >> t) for t in tiers
    )  # fmt: skip
    return replace(SlidePlace("section_data_set_100055044", "section_image_179717.tiff", 45, 1.049, found), **changes)


@pytest.mark.skipif(not REAL.exists(), reason="needs the real record in ../shared/data")
def test_a_real_record_is_read_whole():
    record = json.loads(REAL.read_text())
    places = slide_places(record, 100055044)
    assert len(places) == len(record["section_images"]) == 16
    assert {found.problem for found in places.values()} == {""}
    assert len({found.file for found in places.values()}) == 5
    assert places[101082286].tiers == place().tiers
    crop = slide_crop(replace_id(101082286), places[101082286], 40, None)
    assert (crop.downsample, crop.offset) == (5, (-16, 20672 - 20688))
    assert crop.slide == "section_data_set_100055044/downsample_5/section_image_179717.tiff"


def replace_id(id):
    return OUTLINE._replace(image_id=id)


@pytest.mark.parametrize("downsample", range(9))
@pytest.mark.parametrize(("x0", "y0"), [(3248, 20688), (3251, 20709), (0, 1)])
def test_the_centre_of_a_pixel_is_where_the_formula_has_it(downsample, x0, y0):
    crop = slide_crop(OUTLINE, place(x0=x0, y0=y0), 25, downsample)
    pixels = np.array([[0, 0], [5, 3], [crop.width - 1, crop.height - 1]])
    scale = 2**downsample
    expected = (pixels + (crop.x, crop.y) + 0.5) * scale - 0.5 - (x0, y0)
    found = apply(tier_affine(downsample, crop.offset), expected)
    np.testing.assert_allclose(found, pixels, atol=1e-9)
    # On the slide, the same pixel covers [scale k, scale (k + 1)): its centre lies between.
    assert -scale < crop.offset[0] <= 0
    assert -scale < crop.offset[1] <= 0


@pytest.mark.parametrize(
    ("tiers", "resolution", "downsample", "taken"),
    [
        (range(9), 25, None, 4),
        (range(9), 50, None, 5),
        (range(9), 0.5, None, 0),
        ((0, 1, 2, 3, 5), 25, None, 3),
        ((5, 6), 25, None, 5),
        (range(1, 9), 1, None, 1),
        ((0, 1, 2, 3, 5), 25, 4, 3),
        ((5, 6), 25, 4, None),
    ],
)
def test_the_tier_is_the_coarsest_that_is_fine_enough_of_those_in_the_record(tiers, resolution, downsample, taken):
    crop = slide_crop(OUTLINE, place(tiers), resolution, downsample)
    if taken is None:
        assert "downsample_4" in crop.problem
    else:
        assert (crop.downsample, crop.problem) == (taken, "")


@pytest.mark.parametrize(
    ("tiers", "corner", "offset"),
    [
        ((1, 2, 5), (3251, 20709), (0, 0)),  # the API's corner fits all tiers
        ((1, 2, 5), (3250, 20708), (1, 1)),  # so does another one: nothing is known but the API's
        ((1, 2, 5), (0, 0), (0.5, 0.5)),  # it does not: the middle of what tier 1 leaves open
        ((2, 5), (3251, 20709), (0, 0)),
        ((2, 5), (0, 0), None),
    ],
)
def test_without_the_finest_tier_the_corner_is_that_of_the_api_where_it_fits(tiers, corner, offset):
    outline = OUTLINE._replace(x=corner[0], y=corner[1])
    truth = slide_crop(OUTLINE, place(x0=3251, y0=20709), 40, 5)
    crop = slide_crop(outline, place(tiers, x0=3251, y0=20709), 40, 5)
    if offset is None:
        assert "not known" in crop.problem
    else:
        assert crop.problem == ""
        assert np.subtract(crop.offset, truth.offset).tolist() == list(offset)


def test_a_window_has_its_corner_on_the_slide_and_the_offset_of_the_whole():
    crop = slide_crop(OUTLINE, place(), 1, 0)
    tier = tier_image(OUTLINE, crop)
    windows = list(tier.requests((2000, 0, 4001, 10)))
    assert [window.box[:2] for window in windows] == [(3248 + k * 1832, 20688) for k in (1, 2)]
    assert {window.offset for window in windows} == {crop.offset}
    assert len({window.name for window in windows}) == 2


def test_a_dataset_with_places_is_the_same_after_json_and_another_request(dataset):
    places = (replace(section, slide=place()) for section in dataset.sections)
    with_places = replace(dataset, sections=tuple(places))
    assert SectionDataset.from_dict(json.loads(json.dumps(with_places.to_dict()))) == with_places
    assert "slide" not in dataset.to_dict()["sections"][0]
    from atlaszarr.sections.options import VolumeOptions

    plain, other = VolumeOptions().identity(dataset), VolumeOptions().identity(with_places)
    assert "image_source" not in plain
    assert other["image_source"] == "slides"
    assert plain["records_sha256"] != other["records_sha256"]


def entry(**changes):
    return {
        "id": 7, "section_number": 45, "resolution": 1.049, "image_file_name": "section_image_1.tiff",
        "downsampling": {"downsample_3": {"x": 1, "y": 2, "width": 3, "height": 4, "image_file_width": 9,
                                          "image_file_height": 9}},
        **changes,
    }  # fmt: skip


TIER = entry()["downsampling"]["downsample_3"]


@pytest.mark.parametrize(
    "changes",
    [
        {"image_file_name": None},
        {"image_file_name": "../x.tiff"},
        {"image_file_name": "a/b.tiff"},
        {"image_file_name": "x" * 300},
        {"image_file_name": "a\nb"},
        {"section_number": "45"},
        {"resolution": float("nan")},
        {"downsampling": None},
        {"downsampling": []},
        {"downsampling": {"downsample_99": TIER}},
        {"downsampling": {"downsample_3": 5}},
        {"downsampling": {"downsample_3": {**TIER, "x": -1}}},
        {"downsampling": {"downsample_3": {**TIER, "width": 0}}},
        {"downsampling": {"downsample_3": {**TIER, "width": 99}}},
        {"downsampling": {"downsample_3": {**TIER, "image_file_width": 2**20, "width": 2**19}}},
        {"downsampling": {"downsample_3": {**TIER, "height": None}}},
    ],
)
def test_an_image_whose_entry_is_not_valid_has_a_problem_and_the_others_none(changes):
    record = {"id": 1, "section_images": [entry(**changes), entry(id=8)]}
    places = slide_places(record, 1)
    assert places[7].problem
    assert places[8].problem == ""


@pytest.mark.parametrize("images", [None, {}, [5], [{"id": "x"}]])
def test_a_record_without_a_list_of_images_is_refused(images):
    with raises(RecordError, "invalid-record"):
        slide_places({"id": 1, "section_images": images}, 1)


def test_the_requests_of_a_dataset_with_places_are_crops(dataset):
    with_places = replace(
        dataset, sections=tuple(replace(section, slide=SlidePlace(problem="lost")) for section in dataset.sections)
    )
    imaged = imaged_sections(with_places, 25)
    assert {request.problem for request in imaged.requests} == {"lost"}
    plain = imaged_sections(dataset, 25)
    assert [r.downsample for r in imaged.requests] == [r.downsample for r in plain.requests]
