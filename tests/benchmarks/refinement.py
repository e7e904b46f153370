"""How far sections lie from the truth before and after refinement, in the plane and in depth: prints tables.

Datasets of 20 sections are drawn in the plane grid, from the brain-like phantom or an annotation, through a known
smooth field, an affine of each section, and errors of depth; the truth of the field is its inverse.

displaced  sections of five kinds, the whole dataset and two sections at wrong depths
bad        the same, and four sections that are to be flagged
smooth     clean sections without affines, so that the true fields are smooth in depth

Parameters were chosen on the tuning seeds; the judging seeds were looked at last.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from atlaszarr import Displacement, Grid
from atlaszarr.dataset_refinement.comparison import Fit
from atlaszarr.dataset_refinement.expectations import Expectations
from atlaszarr.geometry.plane import PLANES, Plane
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.refinement.coherence import WINDOW, coherent
from atlaszarr.refinement.depth import OFFSETS, Expectation, depth_scores, find_section
from atlaszarr.refinement.flags import flags
from atlaszarr.refinement.section import NEARBY, RefinedSection, figures_of, refine_section
from atlaszarr.testing.annotated_brain import open_annotated_brain
from atlaszarr.testing.brain import default_brain
from atlaszarr.testing.deformation import Deformation
from atlaszarr.testing.stained_brain import StainedBrain

SEEDS = {"tuning": range(100, 102), "judging": range(990, 994)}
DATASETS = ("displaced", "bad", "smooth")
KINDS = ("clean", "torn", "holes", "low contrast", "already right")
#: To be flagged; what is drawn of a section 500 um off is compared with labels where it is recorded.
BAD = {"half lost": 0.0, "upside down": 0.0, "500 um lower": -500.0, "500 um higher": 500.0}
DEPTHS = {"coronal": (4200.0, 8600.0), "sagittal": (1600.0, 4600.0)}
COUNT = 20
AMPLITUDE = 150.0
RESOLUTION = 25.0
#: Standard deviation of the texture, in grey levels.
TEXTURE = 12.0
#: Largest error of depth of a dataset and of single sections in `displaced`, and of a dataset in the others, in um.
LARGEST_ERROR, SMALL_ERROR = 400.0, 150.0
#: Standard deviation of the depths of all sections, in um.
IRREGULAR = 15.0


@contextmanager
def brain_of(annotation: str | None) -> Iterator[StainedBrain]:
    if annotation is None:
        yield default_brain()
        return
    with open_annotated_brain(annotation) as brain:
        yield brain


@dataclass
class Section:
    kind: str
    image: np.ndarray
    depth: float
    """Recorded, in um."""
    error: float
    """What is to be added to the recorded depth, in um."""
    truth: np.ndarray
    """The true field, in um."""
    there: np.ndarray
    """Where there is tissue of the brain."""


def pixels_of(plane: Plane) -> np.ndarray:
    rows, columns = plane.shape(Grid(reference_space(9), RESOLUTION))
    return np.stack([*np.meshgrid(np.arange(columns), np.arange(rows)), np.ones((rows, columns))], axis=-1)


def labels_of(brain: StainedBrain, plane: Plane, depth: float) -> np.ndarray:
    return brain.labels(pixels_of(plane) @ plane.to_reference(Grid(reference_space(9), RESOLUTION), depth).T)


def draw_dataset(brain: StainedBrain, plane: Plane, name: str, seed: int) -> list[Section]:
    rng = np.random.default_rng([seed, DATASETS.index(name)])
    kinds = list(KINDS) * (COUNT // len(KINDS)) if name != "smooth" else ["clean"] * COUNT
    errors = rng.normal(0.0, IRREGULAR, COUNT) + rng.uniform(-1, 1) * SMALL_ERROR
    if name == "displaced":
        errors += rng.choice([-1, 1]) * rng.uniform(0.5, 1) * LARGEST_ERROR
        errors[rng.choice(COUNT, 2, replace=False)] += rng.uniform(0.5, 1, 2) * [LARGEST_ERROR, -LARGEST_ERROR]
    if name == "bad":
        for index, kind in zip(rng.choice(COUNT, len(BAD), replace=False), BAD, strict=True):
            kinds[index] = kind
            errors[index] += BAD[kind]
    depths = np.linspace(*DEPTHS[plane.name], COUNT)
    given = zip(kinds, depths, errors, strict=True)
    return [draw(brain, plane, *each, seed, number, name != "smooth") for number, each in enumerate(given)]


def draw(
    brain: StainedBrain, plane: Plane, kind: str, depth: float, error: float, seed: int, number: int, turned: bool
) -> Section:
    rng = np.random.default_rng([seed, number])
    pixels = pixels_of(plane)
    rows, columns, _ = pixels.shape
    um = np.concatenate([pixels[..., :2] * RESOLUTION, np.full((rows, columns, 1), depth)], axis=-1)
    amplitude = 0.0 if kind == "already right" else AMPLITUDE
    u = Deformation(amplitude, seed).displacement(seed, um) / RESOLUTION
    if amplitude and turned:
        turn, stretch = np.radians(rng.uniform(-1, 1)), 1 + 0.02 * rng.uniform(-1, 1, 2)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * stretch - np.eye(2)
        u += (pixels[..., :2] - [columns / 2, rows / 2]) @ matrix.T + rng.uniform(-4, 4, 2)
    seen = pixels.copy()
    seen[..., :2] += u
    stained = brain.of_dataset(seed)
    points = seen @ plane.to_reference(Grid(reference_space(9), RESOLUTION), depth + error).T
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
    labels = labels_of(stained, plane, depth)
    there = (labels > 0) & (field.warp(lost.astype(np.float32), border="replicate") < 0.3)
    truth = np.stack([np.asarray(field.delta_x), np.asarray(field.delta_y)]) * RESOLUTION
    return Section(kind, np.clip(np.rint(image), 0, 255).astype(np.uint8), depth, error, truth, there)


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


def expectations_of(brain: StainedBrain, plane: Plane, sections: list[Section]) -> Expectations:
    scores = {}
    for k, section in enumerate(sections):
        found = depth_scores(section.image, inside_of(section), at_offsets(brain, plane, section), RESOLUTION)
        scores[k] = {"explained": found.explained, "levels": found.levels.to_json(), "correlation": 1.0}
    return Expectations.found([section.depth for section in sections], scores)


def refine(brain: StainedBrain, plane: Plane, section: Section, expected: Expectation) -> Fit:
    """As `atlaszarr.dataset_refinement.comparison.Comparison.fit`."""
    image, inside = section.image, inside_of(section)
    depth = find_section(image, inside, at_offsets(brain, plane, section), expected, RESOLUTION)
    labels = labels_of(brain, plane, section.depth + depth.correction)
    nearby = (labels_of(brain, plane, section.depth + depth.correction + um) for um in NEARBY)
    refined = refine_section(image, inside, labels, RESOLUTION, nearby=nearby)
    return Fit(refined.refused("orientation") if depth.turned else refined, refined.before, depth)


def inside_of(section: Section) -> np.ndarray:
    return np.ones(section.image.shape[:2], bool)


def at_offsets(brain: StainedBrain, plane: Plane, section: Section) -> list[np.ndarray]:
    return [labels_of(brain, plane, section.depth + offset) for offset in OFFSETS]


def agree(
    brain: StainedBrain, plane: Plane, sections: list[Section], refined: list[RefinedSection], depths: np.ndarray
) -> list[np.ndarray]:
    order = np.argsort(depths, kind="stable")
    found = [refined[0].field] * len(refined)
    for at, index in enumerate(order):
        window = order[max(at - WINDOW, 0) : at + WINDOW + 1]
        fields = [refined[k].field for k in window]
        weights = [refined[k].weight for k in window]
        section, labels = sections[index], partial(labels_of, brain, plane, depths[index])

        def unseen(field: np.ndarray, section: Section = section, labels: Callable[[], np.ndarray] = labels) -> float:
            return figures_of(section.image, inside_of(section), labels(), field, RESOLUTION).unseen

        found[index] = coherent(fields, depths[window], weights, min(at, WINDOW), unseen)
    return found


def errors_of(field: np.ndarray, section: Section) -> np.ndarray:
    return np.percentile(np.hypot(*(field - section.truth))[section.there], [50, 95])


def roughness(fields: list[np.ndarray], sections: list[Section]) -> float:
    """The root mean square of the second difference along depth, in um."""
    squares = []
    for low, middle, high in zip(range(COUNT - 2), range(1, COUNT - 1), range(2, COUNT), strict=True):
        there = sections[low].there & sections[middle].there & sections[high].there
        second = fields[low] - 2.0 * fields[middle] + fields[high]
        squares.append((second**2).sum(axis=0)[there])
    return float(np.sqrt(np.concatenate(squares).mean()))


def report(brain: StainedBrain, plane: Plane, sections: list[Section], fits: list[Fit]) -> None:
    refined, moves = [fit.section for fit in fits], np.array([fit.depth.correction for fit in fits])
    far = np.array([fit.depth.far for fit in fits])
    agreed = agree(brain, plane, sections, refined, np.array([section.depth for section in sections]) + moves)
    named = flags(
        dict(enumerate(refined)),
        far=set(np.flatnonzero(far)),
        turned={k for k, fit in enumerate(fits) if fit.depth.turned},
        agreements={k: fit.depth.agreement for k, fit in enumerate(fits)},
    )
    ends = []
    for k, (section, found) in enumerate(zip(sections, refined, strict=True)):
        fields = np.zeros(section.truth.shape), found.field, agreed[k]
        ends.append([errors_of(field, section) for field in fields])
        (a, b), (c, d), (e, f) = ends[-1]
        print(
            f"{section.kind:<14} depth {section.error:5.0f} found {moves[k]:5.0f} um  "
            f"agreement {fits[k].depth.agreement:.2f}  "
            f"field {a:4.0f}/{b:4.0f} -> {c:4.0f}/{d:4.0f} -> {e:4.0f}/{f:4.0f} um  "
            f"unseen {found.before.unseen:.3f} -> {found.after.unseen:.3f}  "
            f"dice {found.before.dice:.3f} -> {found.after.dice:.3f}  affine {found.affine:3.0f} um  "
            f"jacobian {found.jacobian:.2f}  {found.reason}  {named.get(k, '')}"
        )
    ends = np.array(ends)
    displaced = np.array([section.kind not in ("already right", *BAD) for section in sections])
    right = np.array([section.kind == "already right" for section in sections])
    bad = np.array([section.kind in BAD for section in sections])
    start, fitted, end = np.moveaxis(ends[displaced], 1, 0)
    wrong = np.abs(moves - [section.error for section in sections])[~bad]
    flagged = np.isin(np.arange(len(sections)), list(named))
    print(
        f"| depth: largest error {wrong.max():.0f} um | median {np.median(start[:, 0]):.0f} -> "
        f"{np.median(fitted[:, 0]):.0f}, coherent {np.median(end[:, 0]):.0f} um | at most 0.4 of the start "
        f"{(end[:, 0] <= 0.4 * start[:, 0]).sum()} of {len(end)} | p95 no worse {(end[:, 1] <= start[:, 1]).sum()}, "
        f"largest ratio {(end[:, 1] / start[:, 1]).max():.2f}, at most 200 um {(end[:, 1] <= 200).sum()} | already "
        f"right {ends[right, 2, 0].round().tolist()} um | flagged {(flagged & bad).sum()} of {bad.sum()} bad, "
        f"{(flagged & ~bad & ~far).sum()} of {(~bad).sum()} good, {(far & ~bad).sum()} of them far | "
        f"roughness true {roughness([section.truth for section in sections], sections):.1f}, refined "
        f"{roughness([each.field for each in refined], sections):.1f}, coherent {roughness(agreed, sections):.1f} um |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotation", help="a file of the whole space; default: the brain-like phantom")
    parser.add_argument("--seeds", choices=SEEDS, default="tuning")
    parser.add_argument("--plane", choices=DEPTHS, action="append")
    parser.add_argument("--dataset", choices=DATASETS, action="append")
    given = parser.parse_args()
    with brain_of(given.annotation) as brain:
        for plane in given.plane or DEPTHS:
            for name in given.dataset or DATASETS:
                for seed in SEEDS[given.seeds]:
                    sections = draw_dataset(brain, PLANES[plane], name, seed)
                    began = time.thread_time()
                    expected = expectations_of(brain, PLANES[plane], sections)
                    half = time.thread_time()
                    fits = [refine(brain, PLANES[plane], each, expected.of(k)) for k, each in enumerate(sections)]
                    seconds = np.array([half - began, time.thread_time() - half]) / len(sections)
                    print(
                        f"{plane} {name} {seed}: {seconds[0]:.1f} s a section for the depth, {seconds[1]:.1f} s refined"
                    )
                    report(brain, PLANES[plane], sections, fits)


if __name__ == "__main__":
    main()
