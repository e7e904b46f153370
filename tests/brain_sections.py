"""Sections of the brain-like phantom, displaced by a known field, and the error of a registration of them in um."""

import numpy as np

from atlaszarr.testing import Damage, Deformation, Emulator
from atlaszarr.testing.brain import default_brain
from atlaszarr.testing.phantom_volumes import annotation_nrrd
from atlaszarr.testing.records import alignment_matrix, dataset_records, image_records
from atlaszarr.transforms import apply

CORONAL, SAGITTAL = 74272479, 69289763
#: Of each dataset the images that are served: far apart, in the middle of the brain.
IMAGES = {CORONAL: slice(14, 50, 9), SAGITTAL: slice(6, 15, 3)}


def records(id, images=None):
    """The records of a dataset with a few of its images."""
    dataset = [record for record in dataset_records() if record["id"] == id]
    return dataset, [record for record in image_records() if record["data_set_id"] == id][images or IMAGES[id]]


def emulator(id, rules=(), images=None, amplitude=120, **options):
    """An emulator of a dataset whose tissue is displaced, and damaged by rules."""
    deformation = Deformation(amplitude, seed=5) if amplitude else None
    given = {"phantom": default_brain(), "deformation": deformation, **options}
    return Emulator(*records(id, images), damage=Damage(rules, seed=3) if rules else None, **given)


def annotation(made_once, size=100):
    """The annotation of the phantom as an NRRD file."""
    return made_once(f"brain_{size}.nrrd", lambda path: path.write_bytes(annotation_nrrd(default_brain(), size)))


def registration_errors(running, planes):
    """By image id, the distance in the plane of section from where a registration puts tissue to where it belongs.

    Parameters
    ----------
    running : Emulator
    planes : SectionPlanes

    Returns
    -------
    dict of int to ndarray
        In um, of the pixels of the brain that lie inside the section image.
    """
    errors = {}
    plane, grid = planes.plane, planes.grid
    (dataset,) = records(running.truth(planes.imaged.sections[0].image_id).dataset_id)[0]
    tvr = alignment_matrix(dataset, "tvr")
    for k, section in enumerate(planes.imaged.sections):
        request = planes.imaged.requests[k]
        rows, columns = (slice(0, n) for n in planes.shape)
        xy = planes.displacements[k].coordinates(rows, columns)
        inside = ((xy >= 0) & (xy <= np.reshape([request.width - 1, request.height - 1], (2, 1, 1)))).all(axis=0)
        points = apply(section.tsv, (np.moveaxis(xy, 0, -1) + 0.5) * 2**request.downsample - 0.5)
        truth = running.truth(section.image_id)
        moved = truth.displacement(points)
        belongs = np.concatenate([points + moved[..., :2], (truth.depth + moved[..., 2])[..., None]], axis=-1)
        y, x = np.mgrid[rows, columns]
        expected = apply(plane.to_reference(grid, float(planes.coordinates[k])), np.stack([x, y], -1).astype(float))
        found = apply(tvr, belongs)
        brain = inside & (running.phantom.labels(expected) > 0)
        axes = [plane.rows, plane.columns]
        errors[section.image_id] = np.linalg.norm((found - expected)[..., axes], axis=-1)[brain]
    return errors
