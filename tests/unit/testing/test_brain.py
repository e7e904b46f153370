"""The brain-like phantom: its regions tile a brain, mirror each other, have real names, and are drawn as evaluated."""

import csv
import json
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from atlaszarr.errors import InputError
from atlaszarr.testing.brain import MIDLINE, default_brain
from atlaszarr.testing.grids import grid_values
from atlaszarr.testing.ontology import structures
from atlaszarr.testing.phantom_volumes import template_nrrd
from codes import raises

REAL_GRAPH = Path(__file__).parents[4] / "shared/data/ontology/structure_graph_1.json"
BRAIN = default_brain()
IDS = {structure["acronym"]: id for id, structure in structures().items()}
#: Structures that hold no tissue.
VENTRICLES = [IDS[name] for name in ("VL", "V3", "AQ", "V4")]


@pytest.fixture(scope="module")
def annotations():
    """The annotation by its voxel size in um."""
    return {size: BRAIN.annotation(size) for size in (50, 100)}


def names_along(start, step, count):
    """Acronyms met along a line, without repetitions."""
    labels = BRAIN.labels(np.array(start, float) + np.arange(count)[:, np.newaxis] * np.array(step, float))
    kept = labels[np.concatenate([[True], labels[1:] != labels[:-1]])]
    return [structures()[int(id)]["acronym"] if id else "" for id in kept]


@pytest.mark.parametrize(("size", "part", "total"), [(50, 0.08, 1e-3), (100, 0.12, 2e-3)])
def test_the_volumes_are_those_of_the_annotation_at_any_resolution(annotations, size, part, total):
    counts = np.bincount(annotations[size].ravel(), minlength=max(IDS.values()) + 1)
    truth = BRAIN.volumes_mm3()
    found = {id: counts[id] * size**3 * 1e-9 for id in truth}
    assert counts[1:].sum() == sum(counts[id] for id in truth)
    assert sum(found.values()) == pytest.approx(sum(truth.values()), rel=total)
    large = [id for id, volume in truth.items() if volume > 1]
    assert len(large) > 100
    # The largest part is that of the layers along the midline, sheets of 120 um.
    assert {id: found[id] for id in large} == pytest.approx({id: truth[id] for id in large}, rel=part)
    assert np.median([abs(found[id] / truth[id] - 1) for id in large]) < part / 8


def test_a_coarser_annotation_is_the_closed_form_at_its_own_voxel_centres(annotations):
    for size, volume in annotations.items():
        at = np.random.default_rng(size).integers(0, volume.shape, (5000, 3))
        np.testing.assert_array_equal(volume[tuple(at.T)], BRAIN.labels((at + 0.5) * size))


def test_the_regions_tile_the_brain_without_gaps(annotations):
    volume = annotations[100]
    assert set(np.unique(volume)) - {0} <= set(BRAIN.volumes_mm3())
    empty, _ = ndimage.label(volume == 0)
    outside = np.unique(np.concatenate([np.take(empty, k, axis).ravel() for axis in range(3) for k in (0, -1)]))
    enclosed = np.argwhere(~np.isin(empty, outside))
    # In the cerebellum, a fissure that is thinner than a voxel comes and goes.
    assert (enclosed[:, 0] * 100 > 10_200).all()
    assert len(enclosed) < 4e-3 * (volume > 0).sum()
    assert set(BRAIN.volumes_mm3()) & {997, 8, 315, 1009} == set(), (
        "no tissue is of a structure that only groups others"
    )


def test_the_hemispheres_mirror_each_other_exactly(annotations):
    for volume in annotations.values():
        np.testing.assert_array_equal(volume, volume[:, :, ::-1])
    # Whole micrometres and quarters, whose mirror images have no rounding.
    points = np.random.default_rng(1).integers(0, [52800, 32000, 22800], (100_000, 3)) / 4
    mirrored = points * [1, 1, -1] + [0, 0, 2 * MIDLINE]
    labels = BRAIN.labels(points)
    assert (labels > 0).mean() > 0.3
    np.testing.assert_array_equal(labels, BRAIN.labels(mirrored))


def test_every_structure_has_a_volume_and_descends_from_root():
    volumes = BRAIN.volumes_mm3()
    assert set(volumes) == set(BRAIN.ids[1:].tolist())
    assert min(volumes.values()) > 0
    assert 400 < sum(volumes.values()) < 560  # an adult mouse has about 500 mm3
    for id in volumes:
        path = [id]
        while (parent := structures()[path[-1]]["parent_structure_id"]) is not None:
            path.append(parent)
        assert path[-1] == 997
        assert len(path) > 2


def test_structures_have_the_ids_of_the_real_graph():
    known = {"CA1sp": 407, "DG-sg": 632, "VISp4": 721, "CP": 672, "CUL4gr": 10714, "MOBgr": 220, "cc": 776, "V3": 129}
    assert {name: int(BRAIN.ids[BRAIN.acronyms.index(name)]) for name in known} == known
    if not REAL_GRAPH.exists():
        pytest.skip("the shared data (../shared/data) is missing")
    text = REAL_GRAPH.read_text()
    real = {node["id"]: node["acronym"] for node in nodes(json.loads(text)["msg"][0])}
    assert all(real[int(id)] == name for id, name in zip(BRAIN.ids[1:], BRAIN.acronyms[1:], strict=True))


def nodes(node):
    yield node
    for child in node["children"]:
        yield from nodes(child)


def test_cortical_layers_lie_in_order_under_the_surface():
    met = names_along((6900, 100, MIDLINE - 3300), (0, 10, 5), 220)
    suffixes = [name.removeprefix("SSp-bfd") for name in met if name.startswith("SSp-bfd")]
    assert suffixes == ["1", "2/3", "4", "5", "6a"]
    assert met[0] == ""
    assert met[met.index("SSp-bfd6a") + 1] in ("cc", "ec")


def test_the_granule_layer_of_the_dentate_gyrus_is_thin_and_lies_between_molecular_and_polymorph_layer():
    met = names_along((7400, 1400, MIDLINE - 1000), (0, 4, 0), 450)
    at = met.index("DG-sg")
    assert met[at - 1 : at + 2] == ["DG-mo", "DG-sg", "DG-po"]
    assert met.count("DG-sg") == 2  # both blades
    labels = BRAIN.labels([(7400, i, MIDLINE - 1000) for i in range(1400, 3200)])
    assert 40 < (labels == IDS["DG-sg"]).sum() / 2 < 110
    pyramids = met.index("CA1sp")
    assert met[pyramids - 1 : pyramids + 2] == ["CA1so", "CA1sp", "CA1sr"]


def test_the_cerebellum_has_folia_with_layers_around_white_matter():
    """Along an arc under the surface, in a sagittal plane, fissures alternate with molecular and granular layers."""
    angles = np.linspace(0.3, 2.6, 4000)
    points = np.stack(
        [11650 - 1250 * np.cos(angles), 3500 - 1900 * np.sin(angles), np.full(angles.shape, MIDLINE - 300)], axis=-1
    )
    labels = BRAIN.labels(points)
    names = [structures()[int(id)]["acronym"] if id else "" for id in labels]
    order = {"": 0, "mo": 1, "gr": 2}
    kinds = np.array([order.get(name[-2:], 3) for name in names])
    changes = kinds[np.flatnonzero(np.diff(kinds, prepend=-1))].tolist()
    assert changes.count(0) >= 3, "fissures"
    assert changes.count(2) >= 4, "granular layers"
    assert all(1 in (before, after) for before, after in pairwise(changes) if 0 in (before, after))


def test_ventricles_look_like_paper_in_every_dataset():
    inside = np.array([(7000, 6000, MIDLINE), (11450, 4450, MIDLINE), (9000, 3500, MIDLINE)])
    assert set(BRAIN.labels(inside).tolist()) == {IDS["V3"], IDS["V4"], IDS["AQ"]}
    for id in (74272479, 69289763):
        np.testing.assert_array_equal(BRAIN.of_dataset(id).rgb(inside), np.broadcast_to(BRAIN.background, (3, 3)))


def test_greys_belong_to_the_dataset_and_are_alike_in_every_process():
    first, again, other = BRAIN.of_dataset(74272479), BRAIN.of_dataset(74272479), BRAIN.of_dataset(69289763)
    np.testing.assert_array_equal(first.levels, again.levels)
    tissue = first.levels > 0
    difference = first.levels[tissue] - other.levels[tissue]
    assert 0.04 < difference.std() < 0.25
    # Typed, so that a change of the greys is noticed.
    assert first.levels[BRAIN.acronyms.index("CP")] == pytest.approx(0.5830436374311256, abs=1e-12)
    assert repr(first) != repr(other)


def test_the_mean_grey_of_a_region_is_its_level():
    brain = BRAIN.of_dataset(74272479)
    slot = BRAIN.acronyms.index("CP")
    grid = np.stack(np.meshgrid(np.arange(5000, 5600, 7.0), np.arange(3000, 3800, 7.0), [MIDLINE - 2300.0]), axis=-1)
    assert (brain.slots(grid) == slot).all()
    paper, ink = np.array(brain.background), np.array(brain.ink)
    expected = paper + brain.levels[slot] * (ink - paper)
    for pixel in (0.0, 7.0, 17.0):
        np.testing.assert_allclose(brain.rgb(grid, pixel).reshape(-1, 3).mean(axis=0), expected, atol=4)
    assert brain.rgb(grid, 1.0)[..., 0].std() > 3 * brain.rgb(grid, 25.0)[..., 0].std() > 0


@pytest.mark.parametrize("expression", [False, True])
def test_a_plane_is_drawn_as_the_brain_is_evaluated(expression):
    brain = BRAIN.of_dataset(74272479)
    affine = np.array([[3.0, 41.0, 6900.0], [2.0, -60.0, 7300.0], [70.0, 1.0, 900.0]])
    y, x = np.mgrid[:97, :131]
    points = np.stack([x, y, np.ones_like(x)], axis=-1) @ affine.T
    expected = brain.expression(points) if expression else brain.rgb(points, 71.0)
    np.testing.assert_allclose(brain.draw(affine, (97, 131), expression), expected, atol=0.5 + 1e-6, rtol=0)
    assert expected.std() > 5


def test_expression_is_that_of_whole_structures():
    brain = BRAIN.of_dataset(74272479)
    points = np.random.default_rng(2).uniform(0, [13200, 8000, 11400], (200_000, 3))
    slots, heat = brain.slots(points), brain.expression(points)
    assert 0 < (heat[..., 0] > 0).mean() < 0.2
    np.testing.assert_array_equal(heat[..., 0] > 0, brain.expressed[slots] > 0)


def test_grids_have_data_inside_the_brain_alone():
    dataset = {"reference_space_id": 9, "plane_of_section_id": 1}
    grids = grid_values(BRAIN.of_dataset(74272479), dataset)
    points = np.stack(np.meshgrid(*(np.arange(n) * 200.0 for n in (67, 41, 58)), indexing="ij"), axis=-1)
    np.testing.assert_array_equal(grids["density"] >= 0, BRAIN.labels(points) > 0)
    assert grids["energy"].max() > 10


def test_the_template_is_the_mean_of_the_channels():
    body = template_nrrd(BRAIN, 200)
    assert body == template_nrrd(BRAIN, 200)
    assert body.startswith(b"NRRD")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_points_that_are_not_in_any_space_are_outside_the_brain(value):
    for axis in range(3):
        point = np.array([7000.0, 4000.0, 5000.0])
        point[axis] = value
        assert BRAIN.labels(point) == 0
        np.testing.assert_array_equal(BRAIN.rgb(point), BRAIN.background)


@pytest.mark.parametrize("method", ["labels", "rgb", "expression"])
def test_points_of_another_shape_are_refused(method):
    with raises(InputError, "shape-mismatch") as caught:
        getattr(BRAIN, method)(np.zeros((4, 2)))
    assert "(4, 2)" in str(caught.value)


def test_uniform_surroundings_have_one_label():
    points = np.random.default_rng(3).uniform(0, [13200, 8000, 11400], (20_000, 3))
    uniform = BRAIN.is_uniform(points, 60)
    near = np.random.default_rng(4).normal(size=(20_000, 3))
    near *= 30 / np.linalg.norm(near, axis=1, keepdims=True)
    same = BRAIN.labels(points) == BRAIN.labels(points + near)
    assert same[uniform].mean() > 0.9995
    assert not uniform.all()


def test_the_table_of_seeds_has_its_parts_in_order_and_no_row_twice():
    text = (files("atlaszarr.testing") / "figures/brain.csv").read_text()
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    parts = list(dict.fromkeys(row["part"] for row in rows))
    assert [row["part"] for row in rows] == sorted((row["part"] for row in rows), key=parts.index)
    assert len({tuple(row.values()) for row in rows if row["p"]}) == sum(bool(row["p"]) for row in rows)
