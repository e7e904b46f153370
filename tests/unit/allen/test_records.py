"""Records of the API are validated: a section that cannot be registered is skipped, an invalid dataset is refused."""

from __future__ import annotations

import copy
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atlaszarr.allen.records import PLANE_NAMES, SectionDataset
from atlaszarr.dataset_build.api import plan
from atlaszarr.errors import RecordError
from atlaszarr.testing.records import dataset_records, image_records
from codes import raises

DATASETS = {record["id"]: record for record in dataset_records()}
#: JSON values, with whole numbers of any length, and NaN and infinities, which Python reads and writes.
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def whole(dataset_id):
    """A built-in dataset with all its sections."""
    images = [record for record in image_records() if record["data_set_id"] == dataset_id]
    return SectionDataset.from_json(DATASETS[dataset_id], images)


def skipped(records):
    """The one skipped section; the other five are used."""
    (record,), images = records
    dataset = SectionDataset.from_json(record, images)
    assert len(dataset.sections) == 5
    (section,) = dataset.skipped
    assert section.image_id not in {other.image_id for other in dataset.sections}
    assert f"section image {section.image_id} of section dataset {dataset.id}" in section.reason
    return section


def refused(records, code="invalid-record"):
    """The message of the error that refuses the dataset."""
    (record,), images = records
    with raises(RecordError, code) as caught:
        SectionDataset.from_json(record, images)
    assert str(record["id"]) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dataset_id", sorted(DATASETS))
def test_every_section_of_the_built_in_datasets_can_be_registered(dataset_id):
    dataset = whole(dataset_id)
    assert not dataset.skipped
    assert [section.depth for section in dataset.sections] == sorted(
        section.section_number * dataset.section_thickness for section in dataset.sections
    )


@pytest.mark.parametrize("dataset_id", sorted(DATASETS))
def test_a_dataset_survives_json_unchanged(dataset_id):
    dataset = whole(dataset_id)
    assert SectionDataset.from_dict(json.loads(json.dumps(dataset.to_dict()))) == dataset


def test_skipped_sections_survive_json_too(records):
    records[1][2]["alignment2d"] = None
    dataset = SectionDataset.from_json(records[0][0], records[1])
    assert dataset.skipped
    assert SectionDataset.from_dict(json.loads(json.dumps(dataset.to_dict()))) == dataset


def test_sections_are_in_order_of_depth_whatever_order_they_came_in(records, dataset):
    assert SectionDataset.from_json(records[0][0], records[1][::-1]) == dataset


@pytest.mark.parametrize(("dataset_id", "interval", "missing"), [(69289763, 200.0, (94, 110)), (74272479, 200.0, ())])
def test_the_interval_and_the_gaps_of_a_real_dataset_are_known(dataset_id, interval, missing):
    dataset = whole(dataset_id)
    assert dataset.nominal_interval == interval
    assert dataset.missing_numbers == missing


@given(
    first=st.integers(-20, 200), step=st.integers(1, 12), count=st.integers(8, 40), data=st.data(),
    thickness=st.sampled_from([20.0, 25.0, 25.4, 100.0]),
)  # fmt: skip
def test_the_missing_numbers_are_the_sections_taken_out_of_a_regular_sampling(first, step, count, data, thickness):
    numbers = [first + step * index for index in range(count)]
    dropped = data.draw(st.sets(st.sampled_from(numbers[1:-1]), max_size=(count - 1) // 4))
    (record,), (image, *_) = one_section()
    images = [image | {"id": 1000 + n, "section_number": n} for n in numbers if n not in dropped]
    dataset = SectionDataset.from_json(record | {"section_thickness": thickness}, images)
    assert math.isclose(dataset.nominal_interval, step * thickness)
    assert dataset.missing_numbers == tuple(sorted(dropped))


def test_a_section_that_is_one_number_off_is_not_a_gap(records):
    records[1][3]["section_number"] += 1
    assert SectionDataset.from_json(records[0][0], records[1]).missing_numbers == ()


def test_the_interval_of_a_dataset_without_sections_is_its_thickness(records):
    dataset = SectionDataset.from_json(records[0][0], [])
    assert dataset.sections == ()
    assert dataset.missing_numbers == ()
    assert dataset.nominal_interval == dataset.section_thickness == 25.0


@pytest.mark.parametrize("absent", [None, {}, "removed"])
def test_a_section_without_2d_alignment_is_skipped(records, absent):
    if absent == "removed":
        del records[1][2]["alignment2d"]
    else:
        records[1][2]["alignment2d"] = absent
    section = skipped(records)
    assert section.image_id == records[1][2]["id"]
    assert section.section_number == records[1][2]["section_number"]
    assert "no 2-D alignment" in section.reason


def test_a_section_marked_as_failed_is_skipped(records):
    records[1][0]["failed"] = True
    assert "failed" in skipped(records).reason


@pytest.mark.parametrize("number", [None, "12", 12.5, math.nan, True])
def test_a_section_without_a_number_is_skipped(records, number):
    records[1][4]["section_number"] = number
    assert "section_number" in skipped(records).reason


def test_of_two_sections_with_one_number_the_first_image_is_used(records):
    first, second = sorted(records[1][:2], key=lambda image: image["id"])
    second["section_number"] = first["section_number"]
    section = skipped(records)
    assert section.image_id == second["id"]
    assert str(first["id"]) in section.reason
    assert str(first["section_number"]) in section.reason


@pytest.mark.parametrize(
    ("width", "height"), [(0, 100), (100, -1), (None, 100), (65501, 100), (100, 10**9), (10**400, 1), (99.5, 100)]
)
def test_a_section_of_impossible_size_is_skipped(records, width, height):
    records[1][1] |= {"width": width, "height": height}
    skipped(records)


@pytest.mark.parametrize("resolution", [0, -1.0, None, math.inf, "1.049"])
def test_a_section_of_impossible_resolution_is_skipped(records, resolution):
    records[1][1]["resolution"] = resolution
    assert "resolution" in skipped(records).reason


@pytest.mark.parametrize("tiers", [-1, 18, 10**9, math.nan, "six", [6]])
def test_a_section_with_an_impossible_tier_count_is_skipped(records, tiers):
    records[1][1]["tier_count"] = tiers
    assert "tier_count" in skipped(records).reason


def test_a_tier_count_that_is_not_given_follows_from_the_size(records, dataset):
    for image in records[1]:
        del image["tier_count"]
    assert SectionDataset.from_json(records[0][0], records[1]) == dataset


@pytest.mark.parametrize("image_id", [0, -5, 2**32])
def test_an_image_whose_id_no_voxel_could_hold_is_skipped(records, image_id):
    records[1][1]["id"] = image_id
    assert skipped(records).image_id == image_id


def test_an_image_without_id_makes_the_dataset_refused(records):
    records[1][1]["id"] = None
    assert "section image" in refused(records)


@pytest.mark.parametrize("value", [None, math.nan, -math.inf, "0.5", True, 10**400, 1e300])
@pytest.mark.parametrize("key", ["tsv_00", "tsv_05", "tvs_02", "tvs_04"])
def test_a_2d_alignment_that_is_not_six_numbers_skips_its_section(records, key, value):
    records[1][3]["alignment2d"][key] = value
    assert key in skipped(records).reason


def test_a_singular_2d_alignment_skips_its_section(records):
    records[1][3]["alignment2d"] |= {"tsv_00": 1.0, "tsv_01": 2.0, "tsv_02": 0.5, "tsv_03": 1.0}
    assert "singular alignment tsv" in skipped(records).reason


def test_a_2d_alignment_that_contradicts_its_inverse_skips_its_section(records):
    records[1][3]["alignment2d"]["tvs_04"] += 20.0
    assert "differ by" in skipped(records).reason


@pytest.mark.parametrize("plane", [1.5, "coronal", True])
def test_a_plane_that_is_not_an_id_is_refused(records, plane):
    records[0][0]["plane_of_section_id"] = plane
    assert "plane_of_section_id" in refused(records)


@pytest.mark.parametrize("plane", sorted(PLANE_NAMES))
def test_every_known_plane_is_accepted(records, plane):
    records[0][0]["plane_of_section_id"] = plane
    assert SectionDataset.from_json(records[0][0], records[1]).plane == PLANE_NAMES[plane]


@pytest.mark.parametrize("thickness", [0, -25.0, math.nan, math.inf, "25"])
def test_an_impossible_thickness_is_refused(records, thickness):
    records[0][0]["section_thickness"] = thickness
    assert "thickness" in refused(records)


@pytest.mark.parametrize("value", [None, math.nan, "1", 10**400, 1e300])
@pytest.mark.parametrize("key", ["tvr_00", "tvr_11", "trv_04", "trv_09"])
def test_a_3d_alignment_that_is_not_twelve_numbers_is_refused(records, key, value):
    records[0][0]["alignment3d"][key] = value
    assert key in refused(records)


def test_a_singular_3d_alignment_is_refused(records):
    records[0][0]["alignment3d"] |= {"trv_06": 0.0, "trv_07": 0.0, "trv_08": 0.0}
    assert "trv" in refused(records, "singular-alignment")


def test_a_3d_alignment_that_contradicts_its_inverse_is_refused(records):
    records[0][0]["alignment3d"]["tvr_10"] += 20.0
    refused(records, "inconsistent-alignment")


def test_a_dataset_without_3d_alignment_is_read_but_cannot_be_planned(records):
    records[0][0]["alignment3d"] = None
    dataset = SectionDataset.from_json(records[0][0], records[1])
    assert dataset.tvr is None
    assert dataset.trv is None
    with raises(RecordError, "missing-alignment") as caught:
        plan(dataset, resolution=200)
    assert str(dataset.id) in str(caught.value)


def test_descriptive_values_are_optional(records):
    for name in ("genes", "products", "specimen", "specimen_id", "failed"):
        del records[0][0][name]
    dataset = SectionDataset.from_json(records[0][0], records[1])
    assert (dataset.genes, dataset.products, dataset.specimen_id, dataset.age, dataset.failed) == ((), (), None, "", 0)


def one_section():
    """Fresh records of a dataset with one section."""
    images = [record for record in image_records() if record["data_set_id"] == 74272479][27:28]
    return copy.deepcopy([[DATASETS[74272479]], images])


def paths(value, path=()):
    """The path of keys and indices to every value of a record."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


@given(path=st.sampled_from([path for path in paths(one_section()) if len(path) > 2]), value=JSON)
@example(path=(1, 0, "id"), value=10**400)
@example(path=(0, 0, "section_thickness"), value=5e-324)
@example(path=(0, 0, "genes", 0), value={})
@example(path=(0, 0, "specimen", "donor"), value=[1])
def test_any_value_in_a_record_leads_to_a_valid_dataset_or_an_error(path, value):
    records = one_section()
    parent = records
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    try:
        dataset = SectionDataset.from_json(records[0][0], records[1])
    except RecordError:
        return
    assert len(dataset.sections) + len(dataset.skipped) == 1
    assert SectionDataset.from_dict(json.loads(json.dumps(dataset.to_dict()))) == dataset
    for section in dataset.sections:
        assert all(map(math.isfinite, (section.depth, section.resolution, *section.tsv[0], *section.tvs[1])))
