"""Small sections in closed form: tiles of regions in an ellipse, drawn through a field that is known."""

import numpy as np
from scipy import ndimage

SHAPE = (120, 140)
RESOLUTION = 50.0
PAPER = 240.0


def labels_at(x, y, sectors=9):
    """An ellipse of 5 x 4.4 mm with its long axis along x, divided into rings and sectors; x, y in pixels."""
    u, v = (x - 69.5) / 50.0, (y - 59.5) / 44.0
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    ring = np.floor(radius * 4.0).astype(int)
    sector = np.floor((angle + 0.2 * ring + np.pi) / (2 * np.pi) * sectors).astype(int) % sectors
    return np.where(radius < 1.0, 1 + ring * sectors + sector, 0)


def grid():
    return np.stack(np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))).astype(float)


def greys(seed):
    levels = np.random.default_rng(seed).uniform(90.0, 200.0, 64)
    levels[0] = PAPER
    return levels


def draw(displacement, seed=1, levels=None, sectors=9, texture=8.0):
    """A section whose pixel (x, y) shows the labels at (x, y) + displacement, shape (2, rows, columns), in pixels."""
    x, y = grid() + displacement
    return paint(labels_at(x, y, sectors), greys(seed) if levels is None else levels, seed, texture)


def paint(labels, levels, seed, texture=8.0):
    """An image of labels with grey levels and a texture."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 0.8)
    image = levels[labels]
    image = image + np.where(labels > 0, texture * noise / noise.std(), rng.normal(0.0, 1.0, SHAPE))
    return np.repeat(np.clip(np.rint(image), 0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=-1)


def labels():
    return labels_at(*grid()).astype(np.uint32)


def constant(x, y):
    return np.broadcast_to(np.array([x, y], float)[:, np.newaxis, np.newaxis], (2, *SHAPE))
