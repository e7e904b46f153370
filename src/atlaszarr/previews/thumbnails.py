"""The sections of a dataset as small registered images, each fetched once. Knows of no picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..allen.client import AllenClient
from ..allen.images import MissingImage, Pixels
from ..allen.records import Section
from ..engine.writer import Progress
from ..sections.planes import SectionPlanes

#: Grey level where the image of a section is not.
_PAPER = 255


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """One section, registered.

    Attributes
    ----------
    section : Section
    coordinate : float
        Where its plane lies, in um along the axis across it.
    image : ndarray, uint8, shape (rows, columns, 3), or None
        White where the section image is not; None if that could not be had.
    """

    section: Section
    coordinate: float
    image: Pixels | None


def make_thumbnails(
    planes: SectionPlanes, client: AllenClient, progress: Progress | None = None
) -> tuple[tuple[Thumbnail, ...], tuple[MissingImage, ...]]:
    """Fetch and register every section.

    Parameters
    ----------
    planes : SectionPlanes
    client : AllenClient
    progress : callable, optional
        Called with the sections done, their number, and a word on what is going on.

    Returns
    -------
    thumbnails : tuple of Thumbnail
        In order of depth.
    failures : tuple of MissingImage
        Images that could not be had.
    """
    rows, columns = (slice(0, length) for length in planes.shape)
    boxes = [planes.box(section, rows, columns) for section in range(len(planes.imaged.sections))]

    def registered(position: int) -> Pixels | MissingImage:
        pixels, box = None, boxes[position]
        if box is not None:
            found = client.try_fetch(planes.imaged.requests[position])
            if isinstance(found, MissingImage):
                return found
            left, top, right, bottom = box
            pixels = found.request.decode(found.body)[top:bottom, left:right]
        image, _ = planes.register(position, rows, columns, box, pixels, _PAPER)
        return image

    thumbnails: list[Thumbnail] = []
    failures: list[MissingImage] = []
    pool = ThreadPoolExecutor(client.concurrency, "atlaszarr-preview")
    try:
        for position, found in enumerate(pool.map(registered, range(len(boxes)))):
            if isinstance(found, MissingImage):
                failures.append(found)
            image = None if isinstance(found, MissingImage) else found
            thumbnails.append(Thumbnail(planes.imaged.sections[position], float(planes.coordinates[position]), image))
            if progress is not None:
                progress(position + 1, len(boxes), "images")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # who interrupts need not wait for what is under way
    return tuple(thumbnails), tuple(failures)
