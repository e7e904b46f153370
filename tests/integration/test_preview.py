"""Previews: geometry, borders, requests and contents."""

import json
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import zarr
from PIL import Image

from atlaszarr import AllenClient, Terminology, preview
from atlaszarr.allen.records import SectionDataset
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import InputError, RecordError
from atlaszarr.geometry.spaces import ORIENTATION, reference_space
from atlaszarr.previews.thumbnails import make_thumbnails
from atlaszarr.sections.alignment import align_sections
from atlaszarr.sections.planes import section_planes
from atlaszarr.testing.ontology import structure_graph
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.records import dataset_records, image_records
from atlaszarr.writing import write_multiscales
from codes import raises
from drawn_words import places_of, words_of
from phantom_annotations import write_annotations

CORONAL, SAGITTAL = 74272479, 69289763
SPACE = reference_space(9)


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    return write_annotations(tmp_path_factory.mktemp("annotation"))


@pytest.fixture(scope="module")
def client(emulator):
    with AllenClient(emulator.url, "none", rate=1e9) as connected:
        yield connected


def built_in(id):
    (record,) = (record for record in dataset_records() if record["id"] == id)
    return SectionDataset.from_json(record, [image for image in image_records() if image["data_set_id"] == id])


# Thumbnails


@pytest.mark.parametrize(("id", "sections"), [(CORONAL, slice(8, 60, 5)), (SAGITTAL, slice(None))])
@pytest.mark.slow
def test_the_brain_of_a_thumbnail_lies_within_its_borders(client, id, sections):
    whole = built_in(id)
    planes = section_planes(
        align_sections(replace(whole, sections=whole.sections[sections]), 50), detection_xy="centre"
    )
    thumbnails, failures = make_thumbnails(planes, client)
    assert not failures
    for section, image, coordinate in zip(planes.imaged.sections, thumbnails, planes.coordinates, strict=True):
        rows, columns = ((np.arange(length) + 0.5) * 50 for length in planes.shape)
        pir = np.empty((*planes.shape, 3))
        pir[..., planes.plane.fixed] = coordinate
        pir[..., planes.plane.rows], pir[..., planes.plane.columns] = rows[:, np.newaxis], columns
        brain = default_phantom().labels(pir) > 0
        tissue = image.min(axis=-1) < 215
        dice = 2 * (brain & tissue).sum() / (brain.sum() + tissue.sum())
        assert dice > 0.96, (section.section_number, dice)


# The picture


@pytest.mark.first(1)
@pytest.mark.parametrize(("id", "count"), [(CORONAL, 6), (SAGITTAL, 18)])
def test_a_preview_requests_the_metadata_and_one_image_per_section(command, emulator, serve, tmp_path, id, count):
    emulator = serve() if id == CORONAL else emulator
    emulator.reset()
    out = tmp_path / "x.png"
    ran = command("preview", id, out, "--api-url", emulator.url)
    plane = "coronal" if id == CORONAL else "sagittal"
    assert (ran.code, ran.out, ran.err) == (0, f"{out}: {count} {plane} sections in reference space 9\n", "")
    assert emulator.count("section_image_download") == count
    assert emulator.count() == count + 2
    with Image.open(out) as picture:
        assert picture.width == 2800
        assert f"Section dataset {id}" in picture.info["Title"]
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels @ np.array([65536, 256, 1]))) > 1000


@pytest.mark.slow
def test_a_preview_names_its_contents_and_has_the_same_bytes_every_time(
    client, dataset, annotations, tmp_path, monkeypatch
):
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")  # as in a user's settings
    settings = dict(matplotlib.rcParams)
    first, second, png, again = (tmp_path / name for name in ("a.svg", "b.svg", "a.png", "b.PNG"))
    for out in (first, second, png, again):
        preview(dataset, out, client=client, annotation=annotations / "two.ome.zarr")
    assert first.read_bytes() == second.read_bytes()
    assert png.read_bytes() == again.read_bytes()
    assert dict(matplotlib.rcParams) == settings
    words = words_of(first.read_bytes())
    assert "Section dataset 74272479  |  Nrp1  |  coronal sections  |  reference space 9, P56 Brain" in words
    assert {"Horizontal view: superior edges", "Horizontal view: inferior edges"} <= set(words)
    assert {"Sagittal view: left edges", "Sagittal view: right edges"} <= set(words)
    assert {"posterior  ←  AP (mm)  →  anterior", "anterior  ←  AP (mm)  →  posterior"} <= set(words)
    assert {"left  ←  ML (mm)  →  right", "inferior  ←  DV (mm)  →  superior", "5 mm"} <= set(words)
    assert {str(section.section_number) for section in dataset.sections} <= set(words)
    assert sum(one.startswith("AP ") and one.endswith(" mm") for one in words) == 6
    root = ET.fromstring(first.read_bytes())
    embedded = [one for one in root.iter() if one.tag.endswith("}image")]
    assert len(embedded) == 6
    assert "Allen" in first.read_text()


def test_missing_section_numbers_are_named(client, tmp_path):
    report = preview(built_in(SAGITTAL), tmp_path / "x.svg", client=client, view="expression")
    assert report.missing_numbers == (94, 110)
    words = words_of((tmp_path / "x.svg").read_bytes())
    assert "section number, every 8th section of 25 µm; missing of the regular sampling (hatched): 94, 110" in words
    assert any("(expression view)" in one for one in words)


@pytest.mark.slow
def test_borders_are_drawn_if_an_annotation_is_given(client, dataset, annotations, tmp_path):
    counts = {}
    for name, annotation in (("with", annotations / "x.nrrd"), ("without", None)):
        report = preview(dataset, tmp_path / f"{name}.svg", client=client, annotation=annotation)
        counts[name] = (tmp_path / f"{name}.svg").read_text().count("<path")
        assert report.annotation == (str(annotation) if annotation else None)
    assert counts["with"] == counts["without"] + len(dataset.sections)


@pytest.mark.slow
def test_borders_are_drawn_from_the_level_nearest_to_a_pixel_of_the_picture(client, dataset, tmp_path):
    # Pixels are 17.5 um in 6 coronal sections, and 31 um in 18 sagittal ones. Only the level of 20 um has a border.
    counts = {}
    for whole, axis in ((dataset, 0), (built_in(SAGITTAL), 2)):
        report = preview(whole, tmp_path / "bare.svg", client=client)
        at = [6.0, 4.0, 5.7]
        at[axis] = next(iter(report.coordinates.values())) / 1000
        labels = np.ones((32, 32, 32), np.uint32)
        labels[8:24, 8:24, 8:24] = 2
        annotation = tmp_path / f"{whole.id}.ome.zarr"
        corner = [round(middle / 0.02) * 0.02 - 0.32 for middle in at]
        geometry = Geometry((0.02,) * 3, tuple(begin + 0.01 - 0.005 for begin in corner), orientation=ORIENTATION)
        write_multiscales(labels, annotation, rule="mode", geometry=geometry, levels=2)
        zarr.open_array(annotation / "1")[:] = 1
        preview(whole, tmp_path / "x.svg", client=client, annotation=annotation)
        counts[whole.id] = [(tmp_path / name).read_text().count("<path") for name in ("bare.svg", "x.svg")]
        assert report.resolution == pytest.approx(17.5 if axis == 0 else 30.9, abs=0.1)
    before, after = counts[CORONAL]
    assert after == before + 1
    before, after = counts[SAGITTAL]
    assert after == before


@pytest.mark.slow
def test_acronyms_are_drawn_if_the_annotation_has_a_terminology(client, dataset, annotations, tmp_path):
    sizes = {}
    for name in ("without", "with", "damaged"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "x.nrrd").symlink_to(annotations / "x.nrrd")
        if name != "without":
            text = Terminology.from_structure_graph(structure_graph()["msg"]).to_csv()
            (folder / "terminology.csv").write_text(text if name == "with" else "damaged")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            preview(dataset, folder / "x.svg", client=client, annotation=folder / "x.nrrd")
        sizes[name] = len((folder / "x.svg").read_bytes())
        assert ["no acronyms" in str(one.message) for one in caught] == [True] * (name == "damaged")
    assert sizes["with"] != sizes["without"] == sizes["damaged"]
    out, terminology = tmp_path / "given.svg", tmp_path / "with" / "terminology.csv"
    for given in (terminology, Terminology.read(terminology)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            preview(dataset, out, client=client, annotation=tmp_path / "damaged" / "x.nrrd", terminology=given)
        assert len(out.read_bytes()) == sizes["with"]


def test_a_terminology_that_is_given_must_be_readable_and_have_an_annotation(client, dataset, annotations, tmp_path):
    out, damaged = tmp_path / "x.svg", tmp_path / "damaged.csv"
    damaged.write_text("damaged")
    given = {"client": client, "terminology": damaged}
    with raises(InputError, code="missing-annotation"):
        preview(dataset, out, **given)
    with raises(RecordError, code="missing-column"):
        preview(dataset, out, annotation=annotations / "x.nrrd", **given)
    assert not out.exists()


def test_the_words_of_a_thumbnail_are_at_its_sides(client, dataset, tmp_path):
    preview(dataset, tmp_path / "x.svg", client=client)
    body = (tmp_path / "x.svg").read_bytes()
    places = places_of(body)
    for left, right, superior, inferior in zip(
        *(places[word] for word in ("left", "right", "superior", "inferior")), strict=True
    ):
        assert left[0] < superior[0] < right[0]
        assert superior[1] < left[1] < inferior[1]
    assert len(places["left"]) == 2  # of two rows


def test_a_missing_image_is_a_crossed_frame_and_exit_code_1(command, serve, records, tmp_path):
    missing = records[1][2]["id"]
    emulator = serve(faults=[{"match": {"path": f"section_image_download/{missing}"}, "do": "status", "status": 404}])
    out = tmp_path / "x.svg"
    ran = command("preview", CORONAL, out, "--api-url", emulator.url, "--json")
    assert ran.code == 1
    assert f"missing: section image {missing}: " in ran.err
    reported = json.loads(ran.out)
    assert (reported["path"], reported["ok"], len(reported["sections"])) == (str(out), False, 6)
    assert [failure["image_id"] for failure in reported["failures"]] == [missing]
    assert words_of(out.read_bytes()).count("image missing") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["x.jpg"], "'x.jpg'"),
        (["nowhere/x.png"], "nowhere/x.png"),
    ],
)
def test_an_invalid_output_is_refused_before_any_request(command, emulator, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    emulator.reset()
    ran = command("preview", CORONAL, *arguments, "--api-url", emulator.url)
    assert (ran.code, ran.out) == (2, "")
    assert named in ran.err
    assert emulator.count() == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--plane", "oblique"], ["plane 'oblique'"]),
        (["--plane", "sagittal"], ["sagittal", "coronal"]),
        (["--plane", "horizontal"], ["transverse", "coronal"]),
        (["--space", "9"], ["--space", "--mirror"]),
        (["--view", "x"], ["view 'x'"]),
        (["--annotation", "missing.ome.zarr"], ["missing.ome.zarr"]),
        (["--annotation", "missing.nrrd"], ["missing.nrrd"]),
        (["--annotation", "far.ome.zarr"], ["far.ome.zarr", "from 50000 to 50200 um along p", "13200 um"]),
        (["--annotation", "bare.ome.zarr"], ["bare.ome.zarr", "no unit"]),
        (["--annotation", "left.ome.zarr"], ["left.ome.zarr", "right-to-left", "left-to-right"]),
        (["--annotation", "x.ome.zarr", "--storage-option", "a"], ["storage option 'a'"]),
    ],
)
def test_wrong_values_are_refused_before_any_image_is_fetched(command, emulator, tmp_path, monkeypatch, options, named):
    monkeypatch.chdir(tmp_path)
    labels = np.ones((2, 2, 2), np.uint32)
    write_multiscales(labels, "far.ome.zarr", rule="mode", geometry=Geometry((0.1,) * 3, (50.045, 0, 0)))
    write_multiscales(labels, "bare.ome.zarr", rule="mode")
    write_multiscales(
        labels, "left.ome.zarr", rule="mode", geometry=Geometry((1,) * 3, orientation={"x": "right-to-left"})
    )
    emulator.reset()
    ran = command("preview", CORONAL, *options, "--api-url", emulator.url)
    assert (ran.code, ran.out) == (2, "")
    assert all(value in ran.err for value in named)
    assert len(ran.err.splitlines()) == 1
    assert emulator.count("section_image_download") == 0
    assert not (tmp_path / f"{CORONAL}-preview.png").exists()


def test_a_preview_does_not_overwrite_its_annotation(command, emulator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_multiscales(np.ones((2, 2, 2), np.uint32), "x.ome.zarr", rule="mode")
    (tmp_path / "volume.png").write_bytes(b"NRRD0004")
    (tmp_path / "link.png").symlink_to(tmp_path / "volume.png")
    (tmp_path / "folder").symlink_to(tmp_path / "x.ome.zarr")
    emulator.reset()
    for out, annotation in (
        ("x.ome.zarr/0/p.png", "x.ome.zarr"),
        ("folder/p.svg", f"file://{tmp_path}/x.ome.zarr"),
        ("volume.png", "link.png"),
        ("link.png", "../" + tmp_path.name + "/volume.png"),
    ):
        ran = command("preview", CORONAL, out, "--annotation", annotation, "--api-url", emulator.url)
        assert ran.code == 2
        assert "the annotation" in ran.err
    assert emulator.count() == 0
    assert (tmp_path / "volume.png").read_bytes() == b"NRRD0004"
    assert not (tmp_path / "x.ome.zarr/0/p.png").exists()


@pytest.mark.slow
def test_an_output_path_is_expanded_and_must_be_local(command, serve, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = command("preview", CORONAL, "~/here/../one.png", "--api-url", serve().url)
    assert ran.code == 0, ran.err
    assert (tmp_path / "one.png").exists()
    for out in ("s3://bucket/x.png", "s3:/bucket/x.png"):
        refused = command("preview", CORONAL, out)
        assert refused.code == 2
        assert "s3://bucket/x.png" in refused.err


@pytest.mark.slow
def test_the_default_output_is_named_after_the_dataset(command, serve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("preview", CORONAL, "--mirror", "--api-url", serve().url)
    assert (ran.code, ran.out) == (0, "74272479-preview.png: 6 coronal sections in reference space 9\n")
    assert (tmp_path / "74272479-preview.png").exists()


def test_the_removed_option_space_is_refused_with_its_replacement(client, tmp_path):
    with raises(InputError, "removed-option") as caught:
        preview(CORONAL, tmp_path / "x.png", client=client, space="native")
    assert "mirror" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
