"""The depth of sections of the brain-like phantom: what is held out, and what the others of a dataset tell."""

import nrrd
import numpy as np
import pytest

import brain_sections as brains
from atlaszarr import refine
from atlaszarr.dataset_refinement.comparison import Comparison
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_planes import open_planes
from atlaszarr.sections.alignment import plane_of
from atlaszarr.sections.options import SectionsOptions

RESOLUTION, ID = 50.0, brains.SAGITTAL
IMAGES, MANY = slice(8, 10), slice(3, 17)


@pytest.fixture(scope="module")
def annotation(made_once):
    return brains.annotation(made_once)


@pytest.fixture
def opened(connect):
    """The dataset of an emulator, and its images."""

    def of(running):
        client = connect(running)
        dataset = client.section_dataset(ID)
        options = SectionsOptions.of({"resolution": RESOLUTION, "detection_xy": "centre"}, written=False)
        images = [client.try_fetch(each) for each in options.planes(dataset, stored=False).imaged.requests]
        return dataset, options, images

    return of


def scores(dataset, options, image, annotation, hold_out=()):
    with open_planes(annotation, plane_of(dataset), RESOLUTION, reference_space(dataset.space).frame) as planes:
        return Comparison(dataset, options, planes.for_workers(), None, hold_out).scores(0, image)


@pytest.mark.slow
def test_structures_that_are_held_out_have_no_part_in_the_depth(opened, annotation, tmp_path):
    """Neither have their borders, nor is there a depth without any structure."""
    with brains.emulator(ID, images=IMAGES) as running:
        dataset, options, (image, _) = opened(running)
        values, header = nrrd.read(str(annotation))
        labels = np.unique(values[values > 0])
        first, second = (int(label) for label in labels[np.argsort([-(values == label).sum() for label in labels])][:2])
        nrrd.write(str(tmp_path / "merged.nrrd"), np.where(values == second, first, values), header)
        given = dataset, options, image
        found = [scores(*given, file, (first, second)) for file in (annotation, tmp_path / "merged.nrrd")]
        assert found[0] == found[1]
        assert found[0] != scores(*given, annotation)
        nothing = scores(*given, annotation, tuple(labels.tolist()))
        assert (nothing["correlation"], set(nothing["explained"])) == (0.0, {0.0})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sections_of_which_a_half_is_lost_and_that_are_upside_down_are_told_by_the_others(connect, annotation):
    """Whose fits are refused: the first one keeps its own depth, 260 um from that of the others."""
    _, images = brains.records(ID, MANY)
    lost, turned = (images[k]["id"] for k in (3, 6))
    damage = [
        {"match": {"image": lost}, "do": "depth_error", "um": 260},
        {"match": {"image": lost}, "do": "half_lost"},
        {"match": {"image": turned}, "do": "upside_down"},
    ]
    with brains.emulator(ID, damage, MANY) as running:
        report = refine(ID, annotation, resolution=RESOLUTION, client=connect(running))
    rows = report.table
    assert np.abs(rows["depth_um"].drop([lost, turned])).max() < 60
    assert rows.loc[lost, "depth_um"] == pytest.approx(260, abs=80)
    assert rows["flag"][rows["flag"] != ""].to_dict() == {lost: "tissue", turned: "orientation"}
    assert not rows.loc[[lost, turned], "kept"].any()
    assert rows.loc[turned, "agreement"] < 0.4 * rows["agreement"].median()
