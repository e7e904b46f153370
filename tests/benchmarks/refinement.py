"""How far sections lie from the truth before and after refinement, by kind of damage: prints a table.

Sections are drawn in the plane grid, from the brain-like phantom or an annotation, through a known smooth field; the
truth is the inverse of that field. Parameters were chosen on the tuning seeds; the judging seeds were looked at last.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy import ndimage

from atlaszarr import Displacement, Grid
from atlaszarr.geometry.plane import PLANES, Plane
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.refinement.flags import flags
from atlaszarr.refinement.section import RefinedSection, refine_section
from atlaszarr.testing.annotated_brain import open_annotated_brain
from atlaszarr.testing.brain import default_brain
from atlaszarr.testing.deformation import Deformation
from atlaszarr.testing.stained_brain import StainedBrain

SEEDS = {"tuning": range(100, 103), "judging": range(900, 904)}
KINDS = ("clean", "torn", "holes", "low contrast", "already right")
#: To be flagged; what is drawn of a section 500 um off is compared with labels where it is recorded.
BAD = ("half lost", "upside down", "500 um lower", "500 um higher")
DEPTHS = {"coronal": (4200.0, 8600.0), "sagittal": (1600.0, 4600.0)}
AMPLITUDE = 150.0
RESOLUTION = 25.0
#: Standard deviation of the texture, in grey levels.
TEXTURE = 12.0


@contextmanager
def brain_of(annotation: str | None) -> Iterator[StainedBrain]:
    if annotation is None:
        yield default_brain()
        return
    with open_annotated_brain(annotation) as brain:
        yield brain


def draw(brain: StainedBrain, plane: Plane, kind: str, seed: int):
    """A section in the plane, the labels there, the true field in um, and where there is tissue of the brain."""
    rng = np.random.default_rng(seed)
    grid = Grid(reference_space(9), RESOLUTION)
    depth = rng.uniform(*DEPTHS[plane.name])
    rows, columns = plane.shape(grid)
    pixels = np.stack([*np.meshgrid(np.arange(columns), np.arange(rows)), np.ones((rows, columns))], axis=-1)
    affine = plane.to_reference(grid, depth)
    um = np.concatenate([pixels[..., :2] * RESOLUTION, np.full((rows, columns, 1), depth)], axis=-1)
    amplitude = 0.0 if kind == "already right" else AMPLITUDE
    u = Deformation(amplitude, seed).displacement(seed, um) / RESOLUTION
    if amplitude:
        turn, stretch = np.radians(rng.uniform(-1, 1)), 1 + 0.02 * rng.uniform(-1, 1, 2)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * stretch - np.eye(2)
        u += (pixels[..., :2] - [columns / 2, rows / 2]) @ matrix.T + rng.uniform(-4, 4, 2)
    shift = {"500 um lower": -500.0, "500 um higher": 500.0}.get(kind, 0.0)
    drawn = plane.to_reference(grid, depth + shift)
    seen = pixels.copy()
    seen[..., :2] += u
    stained = brain.of_dataset(seed)
    points = seen @ drawn.T
    image = stained.rgb(points, RESOLUTION)
    found = stained.labels(points) > 0
    paper = np.array(stained.background)
    if kind == "low contrast":
        mean = image[found].mean(axis=0)
        slots = stained.labels(points)
        ids, inverse = np.unique(slots, return_inverse=True)
        inverse = inverse.reshape(slots.shape)
        means = np.stack([ndimage.mean(image[..., c], inverse, np.arange(len(ids))) for c in range(3)], -1)[inverse]
        image = np.where(found[..., np.newaxis], image - (means - mean) * 2 / 3, image)
    uneven = ndimage.gaussian_filter(rng.standard_normal((rows, columns)), 30)
    image = image - np.where(found, 8.0 * uneven / uneven.std(), 0.0)[..., np.newaxis]
    # Texture within a region, about as much as between regions; the brain's own is finer than a pixel.
    texture = ndimage.gaussian_filter(rng.standard_normal((rows, columns)), 0.8)
    image += np.where(found, TEXTURE * texture / texture.std(), rng.normal(0, 1.5, (rows, columns)))[..., np.newaxis]
    lost = damage(rng, found, kind)
    image[lost] = paper
    if kind == "upside down":
        image = image[::-1]
    field, _ = Displacement.from_deltas(u[..., 0], u[..., 1]).invert()
    labels = stained.labels(pixels @ affine.T)
    there = (labels > 0) & (field.warp(lost.astype(np.float32), border="replicate") < 0.3)
    truth = np.stack([np.asarray(field.delta_x), np.asarray(field.delta_y)]) * RESOLUTION
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), labels, truth, there


def damage(rng: np.random.Generator, found: np.ndarray, kind: str) -> np.ndarray:
    """Where tissue is lost."""
    rows, columns = found.shape
    y, x = np.mgrid[:rows, :columns].astype(float)
    lost = np.zeros(found.shape, bool)
    cy, cx = ndimage.center_of_mass(found)
    if kind == "torn":
        for _ in range(2):
            angle = rng.uniform(0, 2 * np.pi)
            along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
            across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
            lost |= (along > 40) & (np.abs(across) < (along - 40) * 0.1)
    elif kind == "holes":
        places = np.argwhere(found)
        for _ in range(4):
            py, px = places[rng.integers(len(places))]
            lost |= ((x - px) / rng.uniform(10, 25)) ** 2 + ((y - py) / rng.uniform(10, 25)) ** 2 < 1
    elif kind == "half lost":
        lost = x > cx + rng.uniform(-20, 20)
    return lost


def errors(field: np.ndarray, truth: np.ndarray, there: np.ndarray) -> np.ndarray:
    return np.percentile(np.hypot(*(field - truth))[there], [50, 95])


def line(name: str, refined: RefinedSection, start: np.ndarray, end: np.ndarray, seconds: float) -> str:
    return (
        f"{name:<32} {start[0]:4.0f}/{start[1]:4.0f} -> {end[0]:4.0f}/{end[1]:4.0f} um  "
        f"unseen {refined.before.unseen:.3f} -> {refined.after.unseen:.3f}  all {refined.before.correlation:.3f} -> "
        f"{refined.after.correlation:.3f}  dice {refined.before.dice:.3f} -> {refined.after.dice:.3f}  "
        f"affine {refined.affine:3.0f} deformation {refined.deformation[0]:3.0f}/{refined.deformation[1]:3.0f} um  "
        f"jacobian {refined.jacobian:.2f}  {seconds:4.1f} s  {refined.reason}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotation", help="a file of the whole space; default: the brain-like phantom")
    parser.add_argument("--seeds", choices=SEEDS, default="tuning")
    parser.add_argument("--plane", choices=DEPTHS, action="append")
    parser.add_argument("--kind", choices=KINDS + BAD, action="append")
    given = parser.parse_args()
    with brain_of(given.annotation) as brain:
        for plane in given.plane or DEPTHS:
            sections, bad = {}, set()
            for kind in given.kind or KINDS + BAD:
                found = []
                for seed in SEEDS[given.seeds]:
                    image, labels, truth, there = draw(brain, PLANES[plane], kind, seed)
                    began = time.thread_time()
                    refined = refine_section(image, np.ones(labels.shape, bool), labels, RESOLUTION)
                    seconds = time.thread_time() - began
                    ends = errors(np.zeros(truth.shape), truth, there), errors(refined.field, truth, there)
                    found.append([*ends[0], *ends[1], seconds])
                    if kind in BAD:
                        bad.add(len(sections))
                    sections[len(sections)] = refined
                    print(line(f"{plane} {kind} {seed}", refined, *ends, seconds), flush=True)
                a, b, c, d, seconds = np.median(found, axis=0)
                print(f"| {plane}, {kind} | {a:.0f}/{b:.0f} | {c:.0f}/{d:.0f} | {seconds:.1f} |", flush=True)
            flagged = set(flags(sections))
            print(
                f"{plane}: {len(bad & flagged)} of {len(bad)} bad sections are flagged, and "
                f"{len(flagged - bad)} of {len(sections) - len(bad)} good ones"
            )


if __name__ == "__main__":
    main()
