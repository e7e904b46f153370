"""The depth of sections of the brain-like phantom: what is held out, and which sections keep their own depth."""

import nrrd
import numpy as np
import pytest

import brain_sections as brains
from atlaszarr.dataset_refinement.comparison import Comparison
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.previews.annotation_planes import open_planes
from atlaszarr.refinement.depth import SectionDepths
from atlaszarr.sections.alignment import plane_of
from atlaszarr.sections.options import SectionsOptions

RESOLUTION, ID = 50.0, brains.SAGITTAL
IMAGES = slice(8, 10)


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
        assert (nothing["correlation"], set(nothing["scores"])) == (0.0, {0.0})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_section_whose_fit_is_refused_takes_the_other_depth(opened, annotation):
    """The first one is displaced within its plane, of the second one a half is lost."""
    lost = brains.records(ID, IMAGES)[1][1]["id"]
    with brains.emulator(ID, [{"match": {"image": lost}, "do": "half_lost"}], IMAGES) as running:
        dataset, options, images = opened(running)
        with open_planes(annotation, plane_of(dataset), RESOLUTION, reference_space(dataset.space).frame) as planes:
            comparison = Comparison(dataset, options, planes.for_workers())
            fits = [comparison.fit(k, SectionDepths(20.0, 70.0), images[k]) for k in (0, 1)]
            elsewhere = comparison.fit(0, SectionDepths(500.0, 600.0, 20.0), images[0])
            back = comparison.fit(0, SectionDepths(20.0, 70.0, 500.0), images[0])
    assert [(fit.section.kept, fit.correction) for fit in fits] == [(True, 20.0), (False, 70.0)]
    assert elsewhere.to_json() == back.to_json() == fits[0].to_json()
