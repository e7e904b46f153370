"""Section images of the emulated service: the phantom brain seen through an image's own alignment.

A pixel of a tier is the phantom at the pixel's centre, carried to the reference space by the record's
`tsv` and `tvr` (and stretched from the extent of a developing age's space). Images without alignment
show a plain pattern. A caller's own pixels can stand for an image; its other tiers are then derived
from them. What is drawn is kept.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ..errors import InputError
from ..geometry.spaces import reference_space
from ..transforms import compose, tier_affine
from .catalogue import Catalogue
from .phantom import Phantom
from .records import Record, alignment_matrix, depth

Pixels = NDArray[np.uint8]

#: For each image id, its pixels (uint8, (H, W, 3)) or a JPEG of them by tier.
OwnPixels = Mapping[int, Mapping[int, Pixels | bytes]]


class NotServedError(Exception):
    """What was asked for cannot be served: the HTTP status and a line of text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Drawing:
    """What part of an image is asked for, and how.

    Attributes
    ----------
    downsample : int
        Tier: pixels are 2**downsample wide.
    view : str or None
        None or ``primary`` the section itself; ``expression`` and ``projection`` the mask.
    left, top : int or None
        Full-resolution pixels; default the record's x, y. Cut down to whole tier pixels.
    width, height : int or None
        Pixels of the tier; default, and at most, to the image's edge.
    quality : int or None
        JPEG quality, 0 to 100; default the emulator's.
    range : tuple of int or None
        Lower and upper bound (0 to 4095) of red, green and blue, for fluorescence: images of datasets
        with a red, green or blue channel are scaled linearly between them. Others are left alone.
    """

    downsample: int = 0
    view: str | None = None
    left: int | None = None
    top: int | None = None
    width: int | None = None
    height: int | None = None
    quality: int | None = None
    range: tuple[int, ...] | None = None

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Drawing:
        """From the parameters of a URL; NotServedError (400) if one is not a whole number in its bounds."""
        bounds = {"downsample": 31, "left": None, "top": None, "width": None, "height": None, "quality": 100}
        numbers = {}
        for name, limit in bounds.items():
            if parameters.get(name):
                if not parameters[name].isdigit() or (limit is not None and int(parameters[name]) > limit):
                    raise NotServedError(400, f"{name} must be a whole number, not '{parameters[name]}'")
                numbers[name] = int(parameters[name])
        view = parameters.get("view") or None
        for name in ("expression", "projection"):
            if parameters.get(name) == "true":
                view = name
        limits = None
        if parameters.get("range"):
            texts = parameters["range"].split(",")
            if len(texts) != 6 or not all(text.isdigit() for text in texts):
                raise NotServedError(400, "range must be six whole numbers")
            limits = tuple(map(int, texts))
        return cls(view=None if view == "primary" else view, range=limits, **numbers)


class Painter:
    """Draws section images.

    Parameters
    ----------
    catalogue : Catalogue
        The records to draw from.
    phantom : Phantom
        The brain to show.
    pixels : mapping, optional
        Own pixels by image id and tier. Coarser tiers are box averages with floor sizes, finer ones
        repeat pixels.
    quality : int
        JPEG quality where none is asked for.
    directory : path, optional
        Where drawn images are kept between runs.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        phantom: Phantom,
        pixels: OwnPixels | None = None,
        quality: int = 95,
        directory: str | Path | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.phantom = phantom
        self.quality = quality
        self._drawn_images = DrawnImages(directory)
        self._phantom_text = repr(phantom)
        self._pixels = {id: dict(tiers) for id, tiers in (pixels or {}).items()}
        for id, tiers in self._pixels.items():
            if catalogue.image(id) is None or not tiers:
                raise InputError(f"pixels are given for image {id}, which is not served or has no tier")

    def has_view(self, image_id: int, view: str | None) -> bool:
        """Whether an image can be seen so: as a mask only if its record has an `expression_path`."""
        record = self.catalogue.image(image_id) or {}
        return view is None or (view in ("expression", "projection") and bool(record.get("expression_path")))

    def image(self, image_id: int, request: Drawing) -> bytes:
        """What `jpeg` draws, kept for the next time unless it shows a caller's own pixels."""
        if image_id in self._pixels:
            return self.jpeg(image_id, request)
        record = self.catalogue.image(image_id)
        dataset = self.catalogue.dataset_of(record)
        content = repr((request, self.quality, record, dataset, self._phantom_text))
        key = f"{image_id}-{request.downsample}-{hashlib.sha256(content.encode()).hexdigest()[:24]}.jpg"
        return self._drawn_images.get(key, lambda: self.jpeg(image_id, request))

    def jpeg(self, image_id: int, request: Drawing) -> bytes:
        """An image, or part of it, as a baseline RGB JPEG without chroma subsampling.

        Raises
        ------
        NotServedError
            404 for an unknown image, a view it does not have, or an empty picture.
        """
        record = self.catalogue.image(image_id)
        if record is None:
            raise NotServedError(404, f"SectionImage {image_id} was not found")
        if not self.has_view(image_id, request.view):
            raise NotServedError(404, f"SectionImage {image_id} has no view '{request.view}'")
        whole = Drawing(request.downsample, quality=request.quality)
        given = self._pixels.get(image_id, {}).get(request.downsample)
        if isinstance(given, bytes) and request == whole and request.quality is None:
            return given
        left, top, width, height = _window(record, request)
        if width < 1 or height < 1:
            raise NotServedError(404, f"nothing of SectionImage {image_id} is left at that tier and region")
        if image_id in self._pixels and request.view is None:
            picture = self._own(image_id, record, request.downsample)[top : top + height, left : left + width]
        else:
            picture = self._drawn(record, request, (left, top), (height, width))
        quality = self.quality if request.quality is None else request.quality
        picture = np.ascontiguousarray(picture)
        return bytes(simplejpeg.encode_jpeg(picture, max(quality, 1), colorsubsampling="444"))

    def pixel_to_pir(self, image_id: int, downsample: int) -> NDArray[np.float64] | None:
        """Tier pixels to the phantom.

        Returns
        -------
        ndarray, float64, shape (3, 3), or None
            (x, y, 1) of the tier's pixel centres to (p, i, r) in um of reference space 9; None if the image
            or its dataset is not aligned.
        """
        image = self.catalogue.image(image_id)
        dataset = self.catalogue.dataset_of(image)
        tsv, tvr = alignment_matrix(image, "tsv"), alignment_matrix(dataset, "tvr")
        if image is None or dataset is None or tsv is None or tvr is None:
            return None
        try:
            to_phantom = _to_space_9(dataset["reference_space_id"])
        except InputError:
            return None
        plane = compose(tsv, tier_affine(-downsample))
        section = np.vstack([plane, [0.0, 0.0, depth(image, dataset)]])
        return compose(to_phantom, compose(tvr, section))

    def _drawn(self, record: Record, request: Drawing, offset: tuple[int, int], shape: tuple[int, int]) -> Pixels:
        affine = self.pixel_to_pir(record["id"], request.downsample)
        if affine is None:
            return _pattern(record["id"], request, offset, shape)
        affine = compose(affine, [[1.0, 0.0, offset[0]], [0.0, 1.0, offset[1]]])
        picture = self.phantom.draw(affine, shape, expression=request.view is not None)
        dataset = self.catalogue.dataset_of(record) or {}
        if request.range and any(dataset.get(f"{colour}_channel") for colour in ("red", "green", "blue")):
            lower, upper = np.array(request.range, dtype=np.float64).reshape(3, 2).T
            scaled = (picture * (4095.0 / 255.0) - lower) / np.maximum(upper - lower, 1.0)
            picture = np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)
        return picture

    def _own(self, image_id: int, record: Record, downsample: int) -> Pixels:
        """A caller's pixels at a tier: from the nearest finer tier given, or else from the finest."""
        tiers = self._pixels[image_id]
        source = max((tier for tier in tiers if tier <= downsample), default=min(tiers))
        given = tiers[source]
        picture: Pixels = simplejpeg.decode_jpeg(given, colorspace="RGB") if isinstance(given, bytes) else given
        rows, columns = record["height"] >> downsample, record["width"] >> downsample
        if source < downsample:
            factor = 2 ** (downsample - source)
            rows, columns = min(rows, len(picture) // factor), min(columns, picture.shape[1] // factor)
            blocks = picture[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
            return np.asarray(np.rint(blocks.mean(axis=(1, 3))), dtype=np.uint8)
        factor = 2 ** (source - downsample)
        y, x = (np.minimum(np.arange(n) // factor, m - 1) for n, m in zip((rows, columns), picture.shape, strict=False))
        return np.asarray(picture[y[:, np.newaxis], x])


class DrawnImages:
    """Encoded images by key; safe to use from many threads.

    Parameters
    ----------
    directory : path, optional
        Where images are kept between runs.
    limit : int
        Bytes kept in memory; the least recently used go first.
    """

    def __init__(self, directory: str | Path | None = None, limit: int = 256 * 1024**2) -> None:
        self._directory = None if directory is None else Path(directory)
        self._limit = limit
        self._size = 0
        self._images: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, draw: Callable[[], bytes]) -> bytes:
        """The image of a key (a file name), drawn now if it never was."""
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
        image = self._read(key)
        if image is None:
            image = draw()
            self._write(key, image)
        with self._lock:
            if key not in self._images:
                self._images[key] = image
                self._size += len(image)
            while self._size > self._limit:
                self._size -= len(self._images.popitem(last=False)[1])
        return image

    def _read(self, key: str) -> bytes | None:
        if self._directory is None:
            return None
        try:
            return (self._directory / key).read_bytes()
        except FileNotFoundError:
            return None

    def _write(self, key: str, image: bytes) -> None:
        """Whole or not at all: another process may read the same directory."""
        if self._directory is None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        partial = self._directory / f"{key}.{os.getpid()}-{threading.get_ident()}"
        partial.write_bytes(image)
        partial.replace(self._directory / key)


def _window(record: Record, request: Drawing) -> tuple[int, int, int, int]:
    """Left, top, width and height in tier pixels of the image's crop."""
    rows, columns = record["height"] >> request.downsample, record["width"] >> request.downsample
    left = max((request.left - record.get("x", 0)) >> request.downsample, 0) if request.left is not None else 0
    top = max((request.top - record.get("y", 0)) >> request.downsample, 0) if request.top is not None else 0
    width = columns - left if request.width is None else min(request.width, columns - left)
    height = rows - top if request.height is None else min(request.height, rows - top)
    return left, top, width, height


def _to_space_9(space_id: Any) -> NDArray[np.float64]:
    """Affine (3, 4) from a dataset's reference space to the phantom's."""
    space, adult = reference_space(space_id).frame, reference_space(9)
    stretched = np.zeros((3, 4))
    np.fill_diagonal(stretched, np.divide(adult.extent, space.extent))
    return stretched


def _pattern(image_id: int, request: Drawing, offset: tuple[int, int], shape: tuple[int, int]) -> Pixels:
    """A smooth pattern, always the same, for an image without alignment."""
    pixel = 2.0**request.downsample
    x = (np.arange(shape[1]) + offset[0] + 0.5) * pixel
    y = (np.arange(shape[0]) + offset[1] + 0.5)[:, np.newaxis] * pixel
    picture = np.empty((*shape, 3), dtype=np.uint8)
    picture[..., 0] = 128.0 + 90.0 * np.sin(x / 150.0 + image_id % 7)
    picture[..., 1] = 128.0 + 90.0 * np.sin(y / 190.0 + image_id % 11)
    picture[..., 2] = 128.0 + 45.0 * np.sin(x / 310.0) + 45.0 * np.cos(y / 270.0)
    return picture
