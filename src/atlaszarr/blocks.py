"""The tasks of a build, as they run on a worker: compute or read a superblock, write it, then record it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import ledger
from .allen.images import MissingImage, SectionImage
from .ledger import Entry, Task
from .pyramid import Index, Occupancy, children, coarsen
from .stack import Stack
from .store import Multiscale
from .volume import compute_block


@dataclass(frozen=True, eq=False)
class Job:
    """What every task of a build needs; small, picklable.

    Attributes
    ----------
    stack : Stack
    multiscale : Multiscale
    occupancy : Occupancy
    """

    stack: Stack
    multiscale: Multiscale
    occupancy: Occupancy


@dataclass(frozen=True)
class Done:
    """The outcome of one task: what the ledger got, and the images that could not be had."""

    task: Task
    entry: Entry
    missing: tuple[MissingImage, ...] = ()


def compute_superblock(
    job: Job, superblock: Index, sections: Sequence[int], images: Sequence[SectionImage | MissingImage]
) -> Done:
    """Compute a superblock of 2 x 2 x 2 chunks from its images and write it at levels 0 and 1."""
    multiscale = job.multiscale
    region = multiscale.pyramid.region(0, superblock, chunks=2)
    image, label = compute_block(job.stack, region, sections, images, multiscale.background)
    multiscale.write(0, region, image, label, job.occupancy)
    if multiscale.pyramid.levels > 1:
        coarse = coarsen(image, label, multiscale.background)
        multiscale.write(1, multiscale.pyramid.region(1, superblock), *coarse, job.occupancy)
    digests = {image.request.image_id: image.sha256 if isinstance(image, SectionImage) else None for image in images}
    missing = tuple(image for image in images if isinstance(image, MissingImage))
    return _record(job, 0, superblock, digests, missing)


def coarsen_superblock(job: Job, level: int, superblock: Index) -> Done:
    """Read a superblock of 2 x 2 x 2 chunks of a level and write the chunk of the next level it makes."""
    multiscale = job.multiscale
    image, label = multiscale.read(level, multiscale.pyramid.region(level, superblock, chunks=2))
    coarse = coarsen(image, label, multiscale.background)
    multiscale.write(level + 1, multiscale.pyramid.region(level + 1, superblock), *coarse, job.occupancy)
    return _record(job, level, superblock, {}, ())


def _record(
    job: Job, level: int, superblock: Index, digests: dict[int, str | None], missing: tuple[MissingImage, ...]
) -> Done:
    written = [] if level else [chunk for chunk in children(superblock) if chunk in job.occupancy.levels[0]]
    coarser = int(job.multiscale.pyramid.levels > 1)
    entry = Entry(chunks=2 * (len(written) + coarser), images=digests)
    ledger.record(job.multiscale.target, (level, superblock), entry)
    return Done((level, superblock), entry, missing)
