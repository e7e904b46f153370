"""Refinements of datasets with known fields and corrections of depth, in folders as `refine` writes them."""

import numpy as np

from atlaszarr.geometry.grid import Grid
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.sections.alignment import plane_of
from atlaszarr.sections.refined import DOCUMENT, pixels_of, refinement_document, write_field
from atlaszarr.stores.target import Target


def pixels(dataset, resolution=25.0, mirror=False):
    """The pixels of the fields of a dataset."""
    return pixels_of(plane_of(dataset), Grid(reference_space(dataset.space).frame, resolution), mirror)


def wave(dataset, size=300.0, resolution=25.0, mirror=False):
    """A smooth field over the plane of a dataset, in um, x first, and the function that it samples.

    The function maps points (columns, rows) of the plane in um of the reference space to displacements; its slopes are
    below 0.4 for a size of 300 um. It is given in the space, not in the mirror image of a mirrored plane.
    """
    over = pixels(dataset, resolution, mirror)
    across, down = (over.grid.centres(axis) for axis in (over.plane.columns, over.plane.rows))
    turned = mirror and over.plane.columns == 2

    def at(x, y):
        return size * np.sin(x / 1500.0 + y / 2600.0), size * np.cos(x / 2100.0 - y / 1700.0)

    x, y = np.meshgrid(over.grid.space.extent[2] - across if turned else across, down)
    u, v = at(x, y)
    return np.stack([-u if turned else u, v]), at


def write_refinement(folder, dataset, corrections, fields, resolution=25.0, mirror=False, options=None, **made_of):
    """Write a refinement: corrections in um and fields in um, (2, rows, columns), by SectionImage id."""
    target, over = Target.of(folder, options), pixels(dataset, resolution, mirror)
    digests = {id: write_field(target, id, field, over) for id, field in fields.items()}
    target.write(DOCUMENT, refinement_document(dataset, over, corrections, digests, made_of))
    return folder
