"""A small solid brain in closed form: an ellipsoid of cells of random size, cut at any depth through a known field."""

import numpy as np
from scipy.spatial import cKDTree

import tiled_sections as sections

SHAPE, RESOLUTION = sections.SHAPE, sections.RESOLUTION
#: Half axes along x and y in pixels and along depth in um.
HALF = (50.0, 44.0, 4000.0)
CENTRES = np.random.default_rng(5).uniform(-1.0, 1.0, (400, 3)) * HALF
CELLS = cKDTree(CENTRES * [RESOLUTION, RESOLUTION, 1.0])


def labels_at(x, y, depth):
    """The cell at pixels (x, y) and a depth in um; 0 outside."""
    points = np.stack([(x - 69.5), (y - 59.5), np.full(x.shape, float(depth))], axis=-1)
    cells = 1 + CELLS.query(points * [RESOLUTION, RESOLUTION, 1.0])[1]
    return np.where(((points / HALF) ** 2).sum(axis=-1) < 1.0, cells, 0)


def labels(depth):
    return labels_at(*sections.grid(), depth).astype(np.uint32)


def draw(depth, displacement=(0.0, 0.0), seed=1):
    """A section whose pixel (x, y) shows the labels at (x, y) + displacement, in pixels."""
    levels = np.random.default_rng(seed).uniform(90.0, 200.0, len(CENTRES) + 1)
    levels[0] = sections.PAPER
    return sections.paint(labels_at(*(sections.grid() + np.reshape(displacement, (2, 1, 1))), depth), levels, seed)
