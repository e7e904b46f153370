"""Datasets of human, primate and developing brains: what can be read of them, and why they are not registered."""

from __future__ import annotations

import json
import math
from xml.etree import ElementTree

import pytest
import simplejpeg

from atlaszarr.allen.records import SectionDataset
from atlaszarr.dataset_build.api import plan
from atlaszarr.errors import InputError, RecordError
from atlaszarr.sections.lazy_sections import open_sections
from atlaszarr.sections.lazy_volume import open_volume
from atlaszarr.testing.records import invented, invented_elsewhere
from codes import raises

#: What the datasets of `invented_elsewhere` lack.
LACKS = {
    "HumanNT": ["no 3-D alignment", "no reference space", "no section thickness"],
    "NhpISH": ["no 3-D alignment", "no reference space", "no section with a 2-D alignment"],
    "DevMouse": ["no 3-D alignment", "no section with a 2-D alignment"],
}
PLANES = {"HumanNT": "Coronal (Caudal to Rostral)", "NhpISH": "Tangential", "DevMouse": "sagittal"}


@pytest.fixture(params=LACKS)
def elsewhere(request, serve):
    """A dataset that is not aligned with a reference space: its product, id, section images, and a running Emulator."""
    record, images = invented_elsewhere(request.param)
    return request.param, record["id"], images, serve([record], images)


def test_info_describes_the_dataset_and_says_why_it_is_not_registered(elsewhere, command):
    product, id, images, emulator = elsewhere
    outcome = command("info", id, "--api-url", emulator.url)
    assert (outcome.code, outcome.err) == (0, "")
    assert PLANES[product] in outcome.out
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("not registered: ")]
    assert all(lack in line for lack in LACKS[product])
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("skipped: ")]
    assert f"{len(images)} section images" in line
    facts = json.loads(command("info", id, "--json", "--api-url", emulator.url).out)
    assert (facts["section images"], facts["sections"], facts["products"]) == (len(images), 0, [product])
    assert [skipped["image_id"] for skipped in facts["skipped"]] == [image["id"] for image in images]


def test_search_lists_the_dataset_and_its_images(elsewhere, command):
    product, id, images, emulator = elsewhere
    outcome = command("search", "--product", product, "--api-url", emulator.url)
    assert outcome.code == 0
    assert PLANES[product] in outcome.out
    found = json.loads(command("search", "--id", id, "--images", "--json", "--api-url", emulator.url).out)
    assert [row["id"] for row in found] == [image["id"] for image in images]


def test_an_image_is_saved(elsewhere, command, tmp_path):
    _, _, images, emulator = elsewhere
    out = tmp_path / "image.jpg"
    outcome = command("image", images[0]["id"], out, "--downsample", 5, "--api-url", emulator.url, "--cache", "none")
    assert outcome.code == 0
    assert simplejpeg.decode_jpeg_header(out.read_bytes())[:2] == (4400 >> 5, 6000 >> 5)


@pytest.mark.parametrize("name", ["build", "plan", "preview"])
def test_a_registration_is_refused_in_one_sentence_and_nothing_is_written(elsewhere, command, tmp_path, name):
    product, id, _, emulator = elsewhere
    target = {"build": [tmp_path / "x.ome.zarr"], "plan": [], "preview": [tmp_path / "x.png"]}[name]
    outcome = command(name, id, *target, "--api-url", emulator.url)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert all(lack in outcome.err for lack in [f"section dataset {id}", *LACKS[product]])
    assert not list(tmp_path.iterdir())
    assert emulator.count("section_image_download") == 0


@pytest.mark.parametrize("opened", [open_sections, open_volume])
def test_it_is_not_opened_lazily(elsewhere, connect, opened):
    product, id, _, emulator = elsewhere
    with raises(RecordError, "missing-alignment") as caught:
        opened(id, client=connect(emulator))
    assert LACKS[product][1] in str(caught.value)


@pytest.mark.parametrize(
    ("lacking", "code", "named"),
    [
        ({"alignment3d": None}, "missing-alignment", "3-D alignment"),
        ({"reference_space_id": None}, "missing-reference-space", "reference space"),
        ({"section_thickness": None}, "missing-thickness", "section thickness"),
        ({"plane_of_section_id": None}, "unknown-plane", "null"),
        ({"plane_of_section_id": 12}, "unknown-plane", "12"),
    ],
)
def test_a_dataset_that_lacks_one_thing_is_read_and_not_registered(lacking, code, named):
    record, images = invented()
    dataset = SectionDataset.from_json(record | lacking, images)
    assert SectionDataset.from_dict(json.loads(json.dumps(dataset.to_dict()))) == dataset
    with raises(RecordError, code) as caught:
        plan(dataset, resolution=200)
    assert named in str(caught.value)


@pytest.mark.parametrize("id", [7, 8, 9, 10, 11, 531107579, 1082279372])
def test_a_dataset_of_any_known_plane_is_registered_by_its_alignment(id, connect, emulator):
    record, images = invented()
    coronal, other = (SectionDataset.from_json(record | {"plane_of_section_id": one}, images) for one in (1, id))
    one, two = (
        plan(dataset, resolution=200, mode="sections", client=connect(emulator)) for dataset in (coronal, other)
    )
    assert one == two


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("section_number", [10**9, -(10**9), 100_001, math.nan, math.inf, 10**400, "1", True]),
        ("width", [10**9, 0, -1, math.nan]),
        ("height", [65501, None, 10**400]),
        ("resolution", [0, -1.0, math.nan, math.inf, 1e9]),
        ("alignment2d", [{}, {"tsv_00": math.nan}, 5]),
    ],
)
def test_an_image_whose_record_is_absurd_is_skipped_and_named(key, values):
    record, images = invented()
    for value in values:
        images[2][key] = value
        dataset = SectionDataset.from_json(record, images)
        assert [(skipped.image_id, str(images[2]["id"]) in skipped.reason) for skipped in dataset.skipped] == [
            (images[2]["id"], True)
        ]
        assert len(dataset.missing_numbers) == 1


@pytest.mark.parametrize("thickness", [0, -25.0, math.nan, math.inf, 1e9, "25"])
def test_an_absurd_thickness_is_refused(thickness):
    record, images = invented()
    with raises(RecordError, "invalid-record") as caught:
        SectionDataset.from_json(record | {"section_thickness": thickness}, images)
    assert "thickness" in str(caught.value)


@pytest.mark.parametrize("roi", [None, (0, 0, 40000, 30000)])
def test_an_image_too_large_for_memory_is_refused_before_it_is_fetched(serve, connect, roi):
    record, images = invented(size=(65000, 65000))
    emulator = serve([record], images)
    with raises(InputError, "image-too-large") as caught:
        connect(emulator).image(images[0]["id"], roi=roi)
    assert str(images[0]["id"]) in str(caught.value)
    assert emulator.count("section_image_download") == 0


@pytest.mark.first(1)
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_names_that_are_no_plain_text_are_drawn_as_they_are_read(serve, command, records, tmp_path, suffix):
    (record,), images = records
    record["genes"][0]["acronym"] = "a$b\x1b[31m_$^{\n\x00"
    emulator = serve([record], images)
    out = tmp_path / f"preview{suffix}"
    outcome = command("preview", record["id"], out, "--api-url", emulator.url, "--cache", "none")
    assert (outcome.code, outcome.err) == (0, "")
    if suffix == ".svg":
        text = "".join(ElementTree.parse(out).getroot().itertext())
        assert r"a$b\x1b[31m_$^{\n\x00" in text


def test_a_similar_gene_reaches_the_terminal_escaped(serve, command, records):
    (record,), images = records
    record["genes"][0]["acronym"] = "Nrp1\x1b[31m"
    outcome = command("search", "--gene", "Nrp1", "--api-url", serve([record], images).url)
    assert outcome.err == "did you mean Nrp1\\x1b[31m?\n"


def test_a_second_record_of_an_image_is_skipped(records):
    (record,), images = records
    images.append(images[0] | {"section_number": images[-1]["section_number"] + 4})
    dataset = SectionDataset.from_json(record, images)
    assert len({section.image_id for section in dataset.sections}) == len(dataset.sections) == 6
    assert "two records" in dataset.skipped[0].reason
