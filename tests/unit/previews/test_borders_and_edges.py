"""Previews: the edges of sections, the borders of labels, and the planes of an annotation."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atlaszarr import Grid
from atlaszarr.dataset_build.records import geometry
from atlaszarr.errors import AtlaszarrWarning, InputError
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_borders import LabelPlane, border_lines
from atlaszarr.previews.annotation_planes import label_planes
from atlaszarr.previews.section_edges import corners_in_space, edges_of
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.writing import write_multiscales
from codes import raises
from phantom_annotations import write_annotations

RECORDED = Path(__file__).parents[2] / "figures" / "recorded_synchronisation.csv"

SPACE = reference_space(9)


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    return write_annotations(tmp_path_factory.mktemp("annotation"))


def recorded():
    with RECORDED.open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [row for row in rows if row["service"] == "image_to_reference"]


@pytest.mark.parametrize("row", recorded(), ids=lambda row: f"{row['image']} {row['x']},{row['y']}")
def test_the_far_corner_of_an_image_agrees_with_the_service(row, dataset):
    a2, a3 = (
        tuple(tuple(float(row[f"{name}_{i}{j}"]) for j in range(columns)) for i in range(columns - 1))
        for name, columns in (("a2", 3), ("a3", 4))
    )
    depth = int(row["section_number"]) * float(row["thickness_um"])
    section = replace(dataset.sections[0], width=int(row["x"]), height=int(row["y"]), depth=depth, tsv=a2)
    (corners,) = corners_in_space(replace(dataset, tvr=a3, sections=(section,)))
    np.testing.assert_allclose(corners[2], [float(row[name]) for name in "pir"], rtol=0, atol=1e-9)


def test_spaces_9_and_10_have_the_same_corners_unless_they_are_mirrored(dataset):
    nine, ten = corners_in_space(dataset), replace(dataset, reference_space_id=10)
    np.testing.assert_array_equal(corners_in_space(ten), nine)
    mirrored = corners_in_space(ten, mirror=True)
    np.testing.assert_array_equal(mirrored[..., :2], nine[..., :2])
    np.testing.assert_allclose(mirrored[..., 2], 11400 - nine[..., 2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_edges_are_named_by_their_sides_for_any_rotation_of_an_image(dataset, turns, mirrored):
    corners = corners_in_space(dataset)
    wanted = {edges.name: np.sort(edges.ends, axis=1) for edges in edges_of(corners, PLANES["coronal"])}
    assert list(wanted) == ["superior", "inferior", "left", "right"]
    assert (wanted["superior"][..., 1] < wanted["inferior"][..., 1]).all()
    assert (wanted["left"][..., 2] < wanted["right"][..., 2]).all()
    # Only the image of the first section is rotated or mirrored.
    turned = corners.copy()
    turned[0] = np.roll(corners[0][::-1] if mirrored else corners[0], turns, axis=0)
    for edges in edges_of(turned, PLANES["coronal"]):
        np.testing.assert_array_equal(np.sort(edges.ends, axis=1), wanted[edges.name])


@given(arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 2)))
def test_border_lines_join_the_midpoints_of_pixel_sides_between_different_labels(labels):
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
    result = [sorted(map(tuple, line)) for line in ((lines - (20, 10)) / (4, 2)).tolist()]
    assert sorted(result) == sorted(sorted(line) for line in expected)


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("kind", ["one.ome.zarr", "x.nrrd"])
def test_label_planes_are_those_of_the_annotation(annotations, kind, stride, name):
    plane, whole = PLANES[name], default_phantom().annotation(100)
    # The middle voxel of each step is taken.
    every = [slice((stride - 1) // 2, None, stride)] * 3
    every[plane.fixed] = slice(None)
    whole = whole[tuple(every)]
    coordinates = [-1.0, 4999.0, 5001.0, 5049.0, 7777.0, 13201.0]
    planes = label_planes(annotations / kind, plane, coordinates, 100 * stride, SPACE)
    assert planes[0] is None
    assert planes[-1] is None
    for at, result in zip(coordinates[1:-1], planes[1:-1], strict=True):
        expected = np.take(whole, int(at // 100), axis=plane.fixed)
        np.testing.assert_array_equal(result.labels, expected if plane.rows < plane.columns else expected.T)
        assert result.corner == (0.0, 0.0)
        assert result.size == (100 * stride, 100 * stride)


def test_an_annotation_with_brainglobe_s_orientation_is_read_as_any_other_with_a_warning(annotations, tmp_path):
    position = replace(geometry(Grid(SPACE, 100)), orientation={"x": "right-to-left"})
    write_multiscales(default_phantom().annotation(100), tmp_path / "bg.ome.zarr", rule="mode", geometry=position)
    (expected,) = label_planes(annotations / "one.ome.zarr", PLANES["coronal"], [5700.0], 100, SPACE)
    with pytest.warns(AtlaszarrWarning, match="x axis"):
        (result,) = label_planes(tmp_path / "bg.ome.zarr", PLANES["coronal"], [5700.0], 100, SPACE)
    np.testing.assert_array_equal(result.labels, expected.labels)


@pytest.mark.parametrize("kind", ["one.ome.zarr", "x.nrrd"])
def test_an_annotation_that_reaches_beyond_the_reference_space_is_refused(annotations, kind):
    with raises(InputError, "wrong-reference-space") as caught:
        label_planes(annotations / kind, PLANES["coronal"], [4000.0], 50, reference_space(2))
    assert "reference space 2 has 8900 " in str(caught.value)


@pytest.mark.parametrize(("resolution", "size"), [(50, 100), (130, 100), (150, 200), (300, 400)])
def test_the_level_is_the_one_nearest_to_the_resolution(annotations, resolution, size):
    (plane,) = label_planes(annotations / "two.ome.zarr", PLANES["sagittal"], [5700.0], resolution, SPACE)
    assert plane.size == (size, size)
    assert plane.labels.shape == (-(-8000 // size), -(-13200 // size))
