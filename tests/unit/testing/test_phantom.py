"""The phantom brain against its closed form, evaluated here from typed numbers."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaszarr.errors import InputError
from atlaszarr.testing.ontology import structure_graph, structures
from atlaszarr.testing.phantom import Ellipsoid, Phantom, default_phantom
from codes import raises

PHANTOM = default_phantom()
CENTRE, AXES = np.array([7000.0, 4100.0, 5700.0]), np.array([5400.0, 3200.0, 4500.0])
REAL_GRAPH = Path(__file__).parents[4] / "shared" / "data" / "ontology" / "structure_graph_1.json"


def unit_vectors(count: int) -> np.ndarray:
    vectors = np.random.default_rng(7).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brain_points(count: int) -> np.ndarray:
    radii = np.random.default_rng(8).random((count, 1)) ** (1 / 3)
    return CENTRE + unit_vectors(count) * radii * AXES


def quadric(ellipsoid: Ellipsoid, scale: float = 1.0) -> np.ndarray:
    """The symmetric 4 x 4 matrix, in mm from the brain's centre, that is negative inside the ellipsoid."""
    centre, axes = (np.array(ellipsoid.centre) - CENTRE) / 1000, np.array(ellipsoid.semi_axes) * scale / 1000
    matrix = np.diag([*(1 / axes**2), np.sum((centre / axes) ** 2) - 1])
    matrix[:3, 3] = matrix[3, :3] = -centre / axes**2
    return matrix


def test_a_point_of_plain_tissue_has_the_colour_worked_out_by_hand():
    # In mm at (7, 4.1, 5.7), the centre of the brain, in no region.
    p, i, r = 7.0, 4.1, 5.7
    tau = 2 * math.pi
    red = (
        150
        + 14 * math.sin(tau * (p / 7 + r / 11) + 0.4)
        + 12 * math.sin(tau * (i / 6 - r / 9) + 1.9)
        + 10 * math.sin(tau * (-p / 9 + i / 8 + r / 6) + 3.1)
    )
    green = (
        135
        + 13 * math.sin(tau * (p / 9 + i / 7) + 2.2)
        + 12 * math.sin(tau * (p / 8 - r / 7) + 0.7)
        + 11 * math.sin(tau * (i / 9 + r / 10) + 4.4)
    )
    blue = (
        172
        + 15 * math.sin(tau * (i / 8 + r / 8) + 5.0)
        + 11 * math.sin(tau * (p / 6 - i / 10) + 1.1)
        + 10 * math.sin(tau * (p / 10 + r / 7) + 2.6)
    )
    assert PHANTOM.labels(CENTRE) == 997
    np.testing.assert_allclose(PHANTOM.rgb(CENTRE), [red, green, blue], atol=1e-9)


def test_a_region_adds_its_own_shift_of_grey_levels():
    region = next(region for region in PHANTOM.regions if region.acronym == "CP")
    inside = region.centre + np.array([0.0, 0.0, region.semi_axes[2] - 1e-3])
    outside = region.centre + np.array([0.0, 0.0, region.semi_axes[2] + 1e-3])
    np.testing.assert_allclose(PHANTOM.rgb(inside) - PHANTOM.rgb(outside), region.shift, atol=1e-4)


def test_outside_the_brain_is_light_background_without_label_or_expression():
    beyond = CENTRE + unit_vectors(200) * AXES * 1.0001
    assert (PHANTOM.rgb(beyond) == (238.0, 236.0, 232.0)).all()
    assert (PHANTOM.labels(beyond) == 0).all()
    assert (PHANTOM.expression(beyond) == 0).all()


def test_grey_levels_stay_within_eight_bits_and_below_the_background():
    rgb = PHANTOM.rgb(brain_points(20_000))
    assert rgb.min() > 60
    assert rgb.max() < 231


def test_a_shift_of_a_tenth_of_a_millimetre_is_visible_inside_the_brain():
    points = brain_points(5000)
    points = points[PHANTOM.distance_to_edge(points) > 110]
    for axis in np.eye(3):
        step = np.abs(PHANTOM.rgb(points + 100 * axis) - PHANTOM.rgb(points))
        assert step.mean() > 0.4
        assert step.max() < 4.0


def test_a_left_right_flip_is_visible_in_colour_and_in_labels():
    points = brain_points(5000)
    mirrored = points * [1, 1, -1] + [0, 0, 11400]
    assert np.abs(PHANTOM.rgb(points) - PHANTOM.rgb(mirrored)).mean() > 10
    lonely = [region for region in PHANTOM.regions if region.acronym in {"AUDp", "CLA", "GPe", "LC", "VCO"}]
    assert len(lonely) == 5
    for region in lonely:
        p, i, r = region.centre
        assert PHANTOM.labels([p, i, r]) == region.structure_id
        assert PHANTOM.labels([p, i, 11400 - r]) == 997


def test_regions_do_not_touch_one_another():
    # Two ellipsoids A, B are apart if and only if det(x A + B) has two distinct positive roots
    # (Wang, Wang and Kim 2001, Computer Aided Geometric Design 18, 531).
    for one, other in combinations(PHANTOM.regions, 2):
        roots = np.linalg.eigvals(-np.linalg.solve(quadric(one, 1.01), quadric(other, 1.01)))
        positive = np.sort(roots[(np.abs(roots.imag) < 1e-7) & (roots.real > 0)].real)
        assert len(positive) == 2, (one.acronym, other.acronym)
        assert positive[1] - positive[0] > 1e-7, (one.acronym, other.acronym)


def test_regions_lie_inside_the_brain():
    directions = unit_vectors(2000)
    for region in PHANTOM.regions:
        surface = region.centre + directions * region.semi_axes
        assert (((surface - CENTRE) / AXES) ** 2).sum(axis=1).max() < 0.99, region.acronym


@pytest.mark.slow
def test_counted_voxels_agree_with_the_volumes_in_closed_form():
    counts = np.bincount(PHANTOM.annotation(25.0).ravel())
    counted = {id: count * 0.025**3 for id, count in enumerate(counts.tolist()) if count}
    volumes = PHANTOM.volumes_mm3()
    assert set(counted) - {0} == set(volumes)
    assert sum(volumes.values()) == pytest.approx(4 / 3 * math.pi * 5.4 * 3.2 * 4.5)
    assert volumes[672] == pytest.approx(2 * 4 / 3 * math.pi * 1.05 * 1.05 * 0.75)  # CP, both sides
    for id, volume in volumes.items():
        assert counted[id] == pytest.approx(volume, rel=0.01)


def test_the_annotation_is_the_labels_at_the_voxel_centres():
    annotation = PHANTOM.annotation(200.0)
    assert annotation.shape == (66, 40, 57)
    assert annotation.dtype == np.uint32
    centres = (np.moveaxis(np.indices(annotation.shape), 0, -1) + 0.5) * 200
    np.testing.assert_array_equal(annotation, PHANTOM.labels(centres))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_nothing_changes_abruptly_within_the_distance_to_edge(seed):
    rng = np.random.default_rng(seed)
    points = CENTRE + rng.normal(size=(50, 3)) * AXES * 0.5
    directions = rng.normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    distance = PHANTOM.distance_to_edge(points)
    assert (distance >= 0).all()
    moved = points + directions * (distance * 0.999)[:, np.newaxis]
    np.testing.assert_array_equal(PHANTOM.labels(moved), PHANTOM.labels(points))


def test_most_of_the_brain_is_known_to_be_smooth():
    distance = PHANTOM.distance_to_edge(brain_points(5000))
    assert (distance > 100).mean() > 0.6


@pytest.mark.parametrize("expression", [False, True])
def test_pictures_are_the_closed_form_at_every_pixel(expression):
    affine = np.array([[0.3, 41.0, 900.0], [38.0, -2.0, 600.0], [9.0, 12.0, 2600.0]])
    rows, columns = 230, 190
    y, x = np.mgrid[:rows, :columns]
    pir = np.stack([x, y, np.ones_like(x)], axis=-1) @ affine.T
    expected = (PHANTOM.expression if expression else PHANTOM.rgb)(pir)
    assert len(np.unique(PHANTOM.labels(pir))) > 8
    drawn = PHANTOM.draw_rows(affine, 0, (rows, columns), expression)
    np.testing.assert_allclose(drawn, expected, atol=1e-9, rtol=0)
    np.testing.assert_allclose(PHANTOM.draw(affine, (rows, columns), expression), expected, atol=0.5 + 1e-9, rtol=0)


def test_a_plane_without_extent_is_drawn_as_the_one_point_it_is():
    inside, outside = np.zeros((3, 3)), np.zeros((3, 3))
    inside[:, 2], outside[:, 2] = CENTRE, 0.0
    np.testing.assert_allclose(PHANTOM.draw_rows(inside, 0, (2, 3)), np.broadcast_to(PHANTOM.rgb(CENTRE), (2, 3, 3)))
    assert (PHANTOM.draw_rows(outside, 0, (2, 3)) == PHANTOM.background).all()


def test_a_brain_of_whole_numbers_without_regions_is_drawn_as_it_is_evaluated():
    brain = Phantom(
        Ellipsoid((7000, 4100, 5700), (5400, 3200, 4500)), (), (9, 8, 7), (3, 2, 1), waves=(((0,) * 5,),) * 3
    )
    plane = np.array([[0, 0, 7000], [0, 100, 0], [100, 0, 0]])
    pir = np.stack(
        [np.full((80, 114), 7000), *np.meshgrid(*(100 * np.arange(n) for n in (80, 114)), indexing="ij")], -1
    )
    np.testing.assert_array_equal(
        brain.draw_rows(plane, 0, (80, 114)), np.where(brain.labels(pir)[..., None], (3, 2, 1), (9, 8, 7))
    )
    assert not brain.draw(plane, (80, 114), expression=True).any()


@pytest.mark.parametrize("expression", [False, True])
def test_an_affine_of_another_shape_is_refused(expression):
    with raises(InputError, "shape-mismatch") as caught:
        PHANTOM.draw(np.zeros((2, 3)), (4, 4), expression)
    assert "(2, 3)" in str(caught.value)


def test_waves_of_another_shape_are_refused():
    with raises(InputError, "shape-mismatch"):
        Phantom(waves=PHANTOM.waves[:2]).draw(np.zeros((3, 3)), (4, 4))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_plane_that_is_not_finite_is_drawn(value):
    for entry in range(9):
        plane = np.eye(3)
        plane.flat[entry] = value
        assert PHANTOM.draw_rows(plane, 1, (3, 5)).shape == (3, 5, 3)


def test_expression_is_black_between_regions_and_fades_to_nothing_at_their_surface():
    region = next(region for region in PHANTOM.regions if region.acronym == "DG")
    assert region.expression == 1.0
    np.testing.assert_allclose(PHANTOM.expression(region.centre), [255.0, 255.0, 0.0])
    surface = region.centre + unit_vectors(100) * region.semi_axes
    np.testing.assert_allclose(PHANTOM.expression(surface), 0.0, atol=1e-9)


def test_structures_have_their_real_ids_and_descend_from_root():
    known = {"RSPagl": 894, "RSPd": 879, "RSPv": 886, "VISp": 385, "CP": 672, "CA1": 382, "DG": 726, "MOB": 507}
    ids = {region.acronym: region.structure_id for region in PHANTOM.regions}
    assert ids.items() >= known.items()
    assert len(ids) == 53
    for id in ids.values():
        steps = 0
        while (parent := structures()[id]["parent_structure_id"]) is not None:
            id, steps = parent, steps + 1  # noqa: PLW2901
        assert (id, steps > 2) == (997, True)


def test_the_structure_graph_is_nested_as_in_the_api():
    answer = structure_graph()
    (root,) = answer["msg"]
    assert answer["success"] is True
    assert (root["id"], root["acronym"], root["parent_structure_id"]) == (997, "root", None)

    def nodes(node):
        yield node
        for child in node["children"]:
            assert child["parent_structure_id"] == node["id"]
            yield from nodes(child)

    assert [node["id"] for node in nodes(root)] == list(structures())
    for node in nodes(root):
        assert node["ontology_id"] == 1
        assert len(bytes.fromhex(node["color_hex_triplet"])) == 3


def test_every_structure_has_the_figures_of_the_real_graph():
    if not REAL_GRAPH.exists():
        pytest.skip("the shared data (../shared/data) is missing")
    real = {}

    def collect(node):
        children = node.pop("children")
        real[node["id"]] = node
        for child in children:
            collect(child)

    collect(json.loads(REAL_GRAPH.read_text())["msg"][0])
    collected = dict(real)
    for id, structure in structures().items():
        for name, value in structure.items():
            assert collected[id][name] == value, (structure["acronym"], name)
