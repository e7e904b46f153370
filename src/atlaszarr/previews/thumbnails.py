"""Thumbnails: the sections of a dataset as small registered images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ..allen.client import AllenClient
from ..allen.images import MissingImage, Pixels
from ..engine.writer import Progress
from ..sections.planes import SectionPlanes

#: Grey level outside the section image.
_WHITE = 255


def make_thumbnails(
    planes: SectionPlanes, client: AllenClient, progress: Progress | None = None
) -> tuple[list[Pixels | None], tuple[MissingImage, ...]]:
    """Fetch and register each section once.

    Parameters
    ----------
    planes : SectionPlanes
    client : AllenClient
    progress : callable, optional
        Called with the number of sections done, the number of all sections, and the name of the step.

    Returns
    -------
    thumbnails : list of (ndarray, uint8, shape (rows, columns, 3), or None)
        In the order of the planes. White outside the section image; None if the image is missing.
    failures : tuple of MissingImage
        Missing images.
    """
    rows, columns = (slice(0, length) for length in planes.shape)
    count = len(planes.imaged.sections)

    def registered(position: int) -> Pixels | MissingImage:
        if planes.box(position, rows, columns) is None:
            return planes.register(position, rows, columns, None, None, _WHITE)[0]
        image = client.try_fetch(planes.imaged.requests[position])
        if isinstance(image, MissingImage):
            return image
        return planes.register_whole(position, image, _WHITE)[0]

    thumbnails: list[Pixels | None] = []
    failures: list[MissingImage] = []
    pool = ThreadPoolExecutor(client.concurrency, "atlaszarr-preview")
    try:
        for done, result in enumerate(pool.map(registered, range(count)), 1):
            if isinstance(result, MissingImage):
                failures.append(result)
            thumbnails.append(None if isinstance(result, MissingImage) else result)
            if progress is not None:
                progress(done, count, "images")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # so that an interruption does not wait for pending requests
    return thumbnails, tuple(failures)
