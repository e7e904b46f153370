"""A real section image, built and opened, against the brain mask of the real annotation.

The data of the Allen Institute is not part of the project; without it the tests are skipped.
"""

from pathlib import Path

import nrrd
import numpy as np
import pytest
import zarr
from scipy import ndimage

from atlaszarr import AllenClient, build, iter_sections, open_sections
from atlaszarr.testing.emulator import Emulator

DATA = Path(__file__).parents[3] / "shared" / "data"
IMAGE, DATASET = 69177654, 69289763

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data in ../shared/data")


@pytest.mark.slow
def test_the_tissue_of_a_real_section_overlaps_the_brain_of_the_annotation(tmp_path):
    body = (DATA / "sections" / f"{IMAGE}_downsample2.jpg").read_bytes()
    with Emulator(pixels={IMAGE: {2: body}}) as api, AllenClient(api.url, cache="none", rate=1e9) as client:
        dataset = client.section_dataset(DATASET)
        build(dataset, tmp_path / "x.ome.zarr", client=client, resolution=25)
    image, section = (
        zarr.open_array(tmp_path / "x.ome.zarr" / path, mode="r")[:] for path in ("0", "labels/section/0")
    )
    brain = nrrd.read(str(DATA / "ccf" / "annotation_25_ccf2017.nrrd"))[0] > 0

    # The voxel of each row along r that is nearest to the plane of the section.
    own = next(s for s in dataset.sections if s.image_id == IMAGE)
    z, y, x = np.meshgrid(*(np.arange(n) for n in section.shape), indexing="ij", sparse=True)
    trv = np.array(dataset.trv)
    p, i, r = 25 * (z + 0.5), 25 * (y + 0.5), 25 * (x + 0.5)
    depth = trv[2, 0] * p + trv[2, 1] * i + trv[2, 2] * r + trv[2, 3]
    plane = np.abs(depth - own.depth).argmin(axis=2)[..., np.newaxis]
    inside = np.take_along_axis(section, plane, 2)[..., 0] == IMAGE
    grey = np.take_along_axis(image.mean(axis=0), plane, 2)[..., 0]
    mask = np.take_along_axis(brain, plane, 2)[..., 0]
    assert inside[mask].mean() > 0.99

    assert dice(grey, inside, mask, own.resolution) >= 0.94


@pytest.mark.slow
def test_the_tissue_of_a_registered_plane_overlaps_the_brain_in_that_plane():
    body = (DATA / "sections" / f"{IMAGE}_downsample2.jpg").read_bytes()
    with Emulator(pixels={IMAGE: {2: body}}) as api, AllenClient(api.url, cache="none", rate=1e9) as client:
        opened = open_sections(DATASET, 25, client=client, detection_xy="centre")
        plane = opened.isel(section=int(np.flatnonzero(opened.image_id == IMAGE)[0])).load()
        (section,) = iter_sections(plane)
        own = next(s for s in client.section_dataset(DATASET).sections if s.image_id == IMAGE)
    height, width = section.image.shape[:2]
    x, y = section.displacement.coordinates()
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    brain = nrrd.read(str(DATA / "ccf" / "annotation_25_ccf2017.nrrd"))[0] > 0
    mask = brain[:, :, int(float(plane.coordinate) / 25)].T  # rows along i, columns along p, as in the plane
    assert inside[mask].mean() > 0.99
    assert dice(plane.image.values.mean(axis=-1), inside, mask, own.resolution) >= 0.94


def dice(grey, inside, mask, resolution):
    """Dice coefficient of tissue and a mask.

    Tissue is the largest component with grey < 230 after a Gaussian filter of 5 pixels of tier 4.
    """
    sigma = 5 * resolution * 2**4 / 25
    dark = ndimage.gaussian_filter(np.where(inside, grey, 255), sigma) < 230
    labels, count = ndimage.label(dark)
    tissue = labels == 1 + np.argmax(ndimage.sum_labels(dark, labels, range(1, count + 1)))
    return 2 * (tissue & mask).sum() / (tissue.sum() + mask.sum())
