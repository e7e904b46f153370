"""The picture of where sections lie: its geometry, its borders, its requests, and that it shows what it should."""

import csv
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from atlaszarr import AllenClient, Grid, preview
from atlaszarr.allen.records import SectionDataset
from atlaszarr.dataset_build.records import geometry
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import AtlaszarrWarning, InputError
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_borders import LabelPlane, border_lines
from atlaszarr.previews.annotation_planes import label_planes
from atlaszarr.previews.section_edges import corners_in_space, edges_of
from atlaszarr.previews.thumbnails import make_thumbnails
from atlaszarr.sections.alignment import align_sections
from atlaszarr.sections.planes import section_planes
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd
from atlaszarr.testing.records import dataset_records, image_records
from atlaszarr.writing import write_multiscales

CORONAL, SAGITTAL = 74272479, 69289763
RECORDED = Path(__file__).parents[1] / "figures" / "recorded_synchronisation.csv"
SPACE = reference_space(9)


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    """The phantom's annotation of 100 um: alone, with a level of 200 um, and as NRRD."""
    folder = tmp_path_factory.mktemp("annotation")
    labels, place = default_phantom().annotation(100), geometry(Grid(SPACE, 100))
    write_multiscales(labels, folder / "one.ome.zarr", rule="mode", geometry=place, levels=1, chunk=32)
    write_multiscales(labels, folder / "two.ome.zarr", rule="mode", geometry=place, levels=2)
    (folder / "x.nrrd").write_bytes(annotation_nrrd(default_phantom(), 100))
    return folder


@pytest.fixture(scope="module")
def client(emulator):
    with AllenClient(emulator.url, "none", rate=1e9) as found:
        yield found


def built_in(id):
    (record,) = (one for one in dataset_records() if one["id"] == id)
    return SectionDataset.from_json(record, [one for one in image_records() if one["data_set_id"] == id])


def words_of(svg):
    """What is written in a picture: matplotlib draws the letters, and notes the words."""
    return [words.strip() for words in re.findall(r"<!--(.*?)-->", svg.decode(), flags=re.DOTALL)]


# Edges


def recorded():
    with RECORDED.open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [row for row in rows if row["service"] == "image_to_reference"]


@pytest.mark.parametrize("row", recorded(), ids=lambda row: f"{row['image']} {row['x']},{row['y']}")
def test_the_far_corner_of_an_image_lies_where_the_service_says(row, dataset):
    a2, a3 = (
        tuple(tuple(float(row[f"{name}_{i}{j}"]) for j in range(columns)) for i in range(columns - 1))
        for name, columns in (("a2", 3), ("a3", 4))
    )
    depth = int(row["section_number"]) * float(row["thickness_um"])
    section = replace(dataset.sections[0], width=int(row["x"]), height=int(row["y"]), depth=depth, tsv=a2)
    (corners,) = corners_in_space(replace(dataset, tvr=a3, sections=(section,)))
    np.testing.assert_allclose(corners[2], [float(row[name]) for name in "pir"], rtol=0, atol=1e-9)


def test_corners_of_a_dataset_of_space_10_lie_as_in_space_9_unless_they_are_mirrored(dataset):
    there, ten = corners_in_space(dataset), replace(dataset, reference_space_id=10)
    np.testing.assert_array_equal(corners_in_space(ten), there)
    mirrored = corners_in_space(ten, mirror=True)
    np.testing.assert_array_equal(mirrored[..., :2], there[..., :2])
    np.testing.assert_allclose(mirrored[..., 2], 11400 - there[..., 2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_edges_are_named_by_where_they_lie_however_an_image_is_turned(dataset, turns, mirrored):
    corners = corners_in_space(dataset)
    wanted = {edges.name: np.sort(edges.ends, axis=1) for edges in edges_of(corners, PLANES["coronal"])}
    assert list(wanted) == ["superior", "inferior", "left", "right"]
    assert (wanted["superior"][..., 1] < wanted["inferior"][..., 1]).all()
    assert (wanted["left"][..., 2] < wanted["right"][..., 2]).all()
    # The first section alone is scanned in another way.
    turned = corners.copy()
    turned[0] = np.roll(corners[0][::-1] if mirrored else corners[0], turns, axis=0)
    for edges in edges_of(turned, PLANES["coronal"]):
        np.testing.assert_array_equal(np.sort(edges.ends, axis=1), wanted[edges.name])


# Borders


@given(arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 2)))
def test_border_lines_run_through_the_middles_of_the_pixel_sides_between_unlike_labels(labels):
    rows, columns = labels.shape
    meeting = {}
    for i, j in np.ndindex(rows, columns):
        # The side below a pixel and the one to its right: their corners and middles, as (column, row).
        if i + 1 < rows and labels[i, j] != labels[i + 1, j]:
            for corner in ((j, i + 1), (j + 1, i + 1)):
                meeting.setdefault(corner, []).append((j + 0.5, i + 1))
        if j + 1 < columns and labels[i, j] != labels[i, j + 1]:
            for corner in ((j + 1, i), (j + 1, i + 1)):
                meeting.setdefault(corner, []).append((j + 1, i + 0.5))
    expected = []
    for corner, middles in meeting.items():
        expected += [tuple(middles)] if len(middles) == 2 else [(corner, middle) for middle in middles]
    lines = border_lines(LabelPlane(labels, (10.0, 20.0), (2.0, 4.0)))
    found = [sorted(map(tuple, line)) for line in ((lines - (20, 10)) / (4, 2)).tolist()]
    assert sorted(found) == sorted(sorted(line) for line in expected)


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("kind", ["one.ome.zarr", "x.nrrd"])
def test_label_planes_are_those_of_the_annotation(annotations, kind, stride, name):
    plane, whole = PLANES[name], default_phantom().annotation(100)
    # The middle one of so many stands for all.
    every = [slice((stride - 1) // 2, None, stride)] * 3
    every[plane.fixed] = slice(None)
    whole = whole[tuple(every)]
    coordinates = [-1.0, 4999.0, 5001.0, 5049.0, 7777.0, 13201.0]
    planes = label_planes(annotations / kind, plane, coordinates, 100 * stride, SPACE)
    assert planes[0] is None
    assert planes[-1] is None
    for at, found in zip(coordinates[1:-1], planes[1:-1], strict=True):
        expected = np.take(whole, int(at // 100), axis=plane.fixed)
        np.testing.assert_array_equal(found.labels, expected if plane.rows < plane.columns else expected.T)
        assert found.corner == (0.0, 0.0)
        assert found.size == (100 * stride, 100 * stride)


def test_an_annotation_of_the_ccf_in_brainglobes_words_lies_as_any_other_with_a_warning(annotations, tmp_path):
    place = replace(geometry(Grid(SPACE, 100)), orientation={"x": "right-to-left"})
    write_multiscales(default_phantom().annotation(100), tmp_path / "bg.ome.zarr", rule="mode", geometry=place)
    (expected,) = label_planes(annotations / "one.ome.zarr", PLANES["coronal"], [5700.0], 100, SPACE)
    with pytest.warns(AtlaszarrWarning, match="names the sides of its x axis otherwise"):
        (found,) = label_planes(tmp_path / "bg.ome.zarr", PLANES["coronal"], [5700.0], 100, SPACE)
    np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.mark.parametrize("kind", ["one.ome.zarr", "x.nrrd"])
def test_an_annotation_that_reaches_beyond_the_reference_space_is_refused(annotations, kind):
    with pytest.raises(InputError, match=r"to 132\d\d um along p, of which reference space 2 has 8900 um"):
        label_planes(annotations / kind, PLANES["coronal"], [4000.0], 50, reference_space(2))


@pytest.mark.parametrize(("resolution", "size"), [(50, 100), (130, 100), (150, 200), (300, 400)])
def test_the_level_is_the_one_nearest_to_the_resolution(annotations, resolution, size):
    (plane,) = label_planes(annotations / "two.ome.zarr", PLANES["sagittal"], [5700.0], resolution, SPACE)
    assert plane.size == (size, size)
    assert plane.labels.shape == (-(-8000 // size), -(-13200 // size))


# Thumbnails


@pytest.mark.parametrize(("id", "sections"), [(CORONAL, slice(8, 60, 5)), (SAGITTAL, slice(None))])
def test_a_thumbnail_shows_the_brain_under_its_borders(client, id, sections):
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


@pytest.mark.parametrize(("id", "count"), [(CORONAL, 60), (SAGITTAL, 18)])
def test_a_picture_takes_the_metadata_and_one_request_a_section(command, emulator, tmp_path, id, count):
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


def test_a_picture_says_what_it_shows_and_is_the_same_bytes_every_time(
    client, dataset, annotations, tmp_path, monkeypatch
):
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")  # as a user's own may be
    settings = dict(matplotlib.rcParams)
    first, second, png, again = (tmp_path / name for name in ("a.svg", "b.svg", "a.png", "b.PNG"))
    for out in (first, second, png, again):
        preview(dataset, out, client=client, annotation=annotations / "two.ome.zarr")
    assert first.read_bytes() == second.read_bytes()
    assert png.read_bytes() == again.read_bytes()
    assert dict(matplotlib.rcParams) == settings
    words = words_of(first.read_bytes())
    assert "Section dataset 74272479  |  Nrp1  |  coronal  |  reference space 9, P56 Brain" in words
    assert {"superior edges", "inferior edges", "left edges", "right edges"} <= set(words)
    assert {"posterior  ←  p (mm)  →  anterior", "anterior  ←  p (mm)  →  posterior", "r (mm)"} <= set(words)
    assert {str(section.section_number) for section in dataset.sections} <= set(words)
    assert sum(one.startswith("p ") and one.endswith(" mm") for one in words) == 6
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


def test_borders_are_drawn_where_an_annotation_is_given(client, dataset, annotations, tmp_path):
    counts = {}
    for name, annotation in (("with", annotations / "x.nrrd"), ("without", None)):
        report = preview(dataset, tmp_path / f"{name}.svg", client=client, annotation=annotation)
        counts[name] = (tmp_path / f"{name}.svg").read_text().count("<path")
        assert report.annotation == (str(annotation) if annotation else None)
    assert counts["with"] == counts["without"] + 2 * len(dataset.sections)


def test_an_image_that_cannot_be_had_is_a_crossed_frame_and_exit_code_1(command, serve, records, tmp_path):
    gone = records[1][2]["id"]
    emulator = serve(faults=[{"match": {"path": f"section_image_download/{gone}"}, "do": "status", "status": 404}])
    out = tmp_path / "x.svg"
    ran = command("preview", CORONAL, out, "--api-url", emulator.url, "--json")
    assert ran.code == 1
    assert f"missing: section image {gone}: " in ran.err
    shown = json.loads(ran.out)
    assert (shown["path"], shown["ok"], len(shown["sections"])) == (str(out), False, 6)
    assert [failure["image_id"] for failure in shown["failures"]] == [gone]
    assert words_of(out.read_bytes()).count("image missing") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.jpg"], "'x.jpg' must be a file ending in .png or .svg"),
        (["nowhere/x.png"], "lies in a folder that does not exist"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_asked(
    command, emulator, tmp_path, monkeypatch, arguments, said
):
    monkeypatch.chdir(tmp_path)
    emulator.reset()
    ran = command("preview", CORONAL, *arguments, "--api-url", emulator.url)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert emulator.count() == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--plane", "oblique"], "plane 'oblique' is not known"),
        (["--plane", "sagittal"], "ask for the plane coronal"),
        (["--plane", "horizontal"], "off the transverse plane; ask for the plane coronal"),
        (["--space", "9"], "option --space no longer exists: reference spaces 9 and 10 are one frame"),
        (["--view", "x"], "view 'x' is not known"),
        (["--annotation", "gone.ome.zarr"], "gone.ome.zarr is not an OME-Zarr image"),
        (["--annotation", "gone.nrrd"], "gone.nrrd"),
        (
            ["--annotation", "far.ome.zarr"],
            "far.ome.zarr lies from 50000 to 50200 um along p, of which reference space 9 has 13200",
        ),
        (["--annotation", "bare.ome.zarr"], "bare.ome.zarr has axes of no unit"),
        (["--annotation", "left.ome.zarr"], "left.ome.zarr runs right-to-left; give an annotation of left-to-right"),
        (["--annotation", "x.ome.zarr", "--storage-option", "a"], "storage option 'a' has no value"),
    ],
)
def test_wrong_values_are_refused_before_an_image_is_asked_for(command, emulator, tmp_path, monkeypatch, options, said):
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
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1
    assert emulator.count("section_image_download") == 0
    assert not (tmp_path / f"{CORONAL}-preview.png").exists()


def test_a_picture_is_not_drawn_into_its_annotation(command, emulator, tmp_path, monkeypatch):
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
        assert "lies in the annotation" in ran.err
    assert emulator.count() == 0
    assert (tmp_path / "volume.png").read_bytes() == b"NRRD0004"
    assert not (tmp_path / "x.ome.zarr/0/p.png").exists()


def test_a_picture_goes_where_a_path_leads(command, serve, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = command("preview", CORONAL, "~/here/../one.png", "--api-url", serve().url)
    assert ran.code == 0, ran.err
    assert (tmp_path / "one.png").exists()
    for out, said in (("s3://bucket/x.png", "is a URL; give a local file"), ("s3:/bucket/x.png", "s3://bucket/x.png")):
        refused = command("preview", CORONAL, out)
        assert refused.code == 2
        assert said in refused.err


def test_the_picture_of_a_dataset_is_named_after_it(command, serve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("preview", CORONAL, "--mirror", "--api-url", serve().url)
    assert (ran.code, ran.out) == (0, "74272479-preview.png: 6 coronal sections in reference space 9\n")
    assert (tmp_path / "74272479-preview.png").exists()


def test_a_space_is_refused_with_the_option_that_does_what_it_did(client, tmp_path):
    with pytest.raises(InputError, match=r"option 'space' no longer exists: .*mirror"):
        preview(CORONAL, tmp_path / "x.png", client=client, space="native")
    assert list(tmp_path.iterdir()) == []
