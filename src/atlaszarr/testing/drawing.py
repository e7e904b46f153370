"""Section images of the emulated service, drawn from a brain.

A pixel of a tier is the brain at the pixel's centre, mapped to the reference space by the record's `tsv` and `tvr`
(and scaled from the extent of a developmental age to reference space 9), and displaced before if the sections are
deformed or damaged. Images without alignment have a plain pattern. The caller can supply pixels of an image; its other
tiers are then derived from them. Drawn images are cached.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ..errors import InputError, brief
from ..geometry.spaces import reference_space
from ..transforms import apply, compose, tier_affine
from .catalogue import Catalogue
from .damage import Damage, Layer, SectionTruth, damage_of_section, point_with_tissue
from .deformation import Deformation
from .records import Record, alignment_matrix, depth
from .sectioned_brain import SectionedBrain, draw_strips, pixel_size

Pixels = NDArray[np.uint8]

#: By image id and tier: pixels (uint8, (H, W, 3)) or a JPEG.
UserPixels = Mapping[int, Mapping[int, Pixels | bytes]]


#: Brains with the greys of a dataset that are kept: more than are asked for at a time.
_DATASETS = 64
#: Sections of which the damage is kept.
_SECTIONS = 1024


class NotServedError(Exception):
    """A request for an image that cannot be served: an HTTP status and a line of text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Drawing:
    """A request for an image or a region of it.

    Attributes
    ----------
    downsample : int
        Tier: a pixel is 2**downsample full-resolution pixels wide.
    view : str or None
        None or ``primary`` for the section, ``expression`` or ``projection`` for the mask.
    left, top : int or None
        In full-resolution pixels, rounded down to pixels of the tier; default the record's x and y.
    width, height : int or None
        In pixels of the tier; default, and maximum, to the image's edge.
    quality : int or None
        JPEG quality, 0 to 100; default the emulator's.
    range : tuple of int or None
        Lower and upper bounds (0 to 4095) of red, green and blue, for fluorescence: images of datasets
        with a red, green or blue channel are scaled linearly between them. Other images ignore it.
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
        """From the parameters of a URL; NotServedError (400) if one is not a whole number within its bounds."""
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
        The records of the images.
    phantom : SectionedBrain
        The brain in the images.
    pixels : mapping, optional
        User-supplied pixels by image id and tier. Coarser tiers are box averages with floor sizes, finer ones
        repeat pixels.
    quality : int
        Default JPEG quality.
    directory : path, optional
        Folder of a cache of drawn images that lasts between runs.
    deformation : Deformation, optional
        How the tissue in the images is displaced from where their alignments put it.
    damage : Damage, optional
        Of the sections, and the errors of their positions. Images in `pixels` have none.

    Raises
    ------
    InputError
        If `pixels` names an image that is not in the catalogue, or gives it no tier; if the damage is of a dataset or
        an image that is not in the catalogue, has no alignment or is in `pixels`, or changes the contrast of a
        `Phantom`.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        phantom: SectionedBrain,
        pixels: UserPixels | None = None,
        quality: int = 95,
        directory: str | Path | None = None,
        deformation: Deformation | None = None,
        damage: Damage | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.phantom = phantom
        self.quality = quality
        self._drawn_images = DrawnImages(directory)
        self._deformation = deformation
        self._damage = damage
        shown = [part for part in (deformation, damage) if part is not None]
        self._phantom_text = repr((phantom, *shown)) if shown else repr(phantom)
        self.truth = lru_cache(maxsize=_SECTIONS)(self._truth)
        self._pixels = {id: dict(tiers) for id, tiers in (pixels or {}).items()}
        self._refuse_damage()
        self._of_dataset = lru_cache(maxsize=_DATASETS)(phantom.of_dataset)
        for id, tiers in self._pixels.items():
            if catalogue.image(id) is None or not tiers:
                raise InputError(
                    f"pixels of image {id}: the image is not served, or no tier is given", code="image-not-served"
                )

    def has_view(self, image_id: int, view: str | None) -> bool:
        """Whether an image has a view; masks need an `expression_path` in its record."""
        record = self.catalogue.image(image_id) or {}
        return view is None or (view in ("expression", "projection") and bool(record.get("expression_path")))

    def image(self, image_id: int, request: Drawing) -> bytes:
        """Same as `jpeg`, with a cache for images that are not user-supplied."""
        if image_id in self._pixels:
            return self.jpeg(image_id, request)
        record = self.catalogue.image(image_id)
        dataset = self.catalogue.dataset_of(record)
        content = repr((request, self.quality, record, dataset, self._phantom_text))
        key = f"{image_id}-{request.downsample}-{hashlib.sha256(content.encode()).hexdigest()[:24]}.jpg"
        return self._drawn_images.get(key, lambda: self.jpeg(image_id, request))

    def jpeg(self, image_id: int, request: Drawing) -> bytes:
        """An image or a region of it, as a baseline RGB JPEG without chroma subsampling.

        Raises
        ------
        NotServedError
            404 for an unknown image, a view that the image does not have, or an empty region.
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
            raise NotServedError(404, f"SectionImage {image_id} has no pixels at that tier and region")
        if image_id in self._pixels and request.view is None:
            picture = self._user_pixels(image_id, record, request.downsample)[top : top + height, left : left + width]
        else:
            picture = self.draw(record, request, (left, top), (height, width))
        quality = self.quality if request.quality is None else request.quality
        picture = np.ascontiguousarray(picture)
        return bytes(simplejpeg.encode_jpeg(picture, max(quality, 1), colorsubsampling="444"))

    def pixel_to_pir(self, image_id: int, downsample: int) -> NDArray[np.float64] | None:
        """The affine from pixels of a tier to the brain, as the alignments have it, without deformation.

        Returns
        -------
        ndarray, float64, shape (3, 3), or None
            (x, y, 1) of the tier's pixel centres to (p, i, r) in um of reference space 9; None if the image
            or its dataset is not aligned.
        """
        affines = self._affines(image_id, downsample)
        return None if affines is None else compose(affines[1], affines[0])

    def points(
        self, image_id: int, downsample: int, offset: tuple[float, float], shape: tuple[int, int]
    ) -> NDArray[np.float64] | None:
        """The points of the brain that the pixels of a tier show, with deformation.

        Parameters
        ----------
        image_id, downsample : int
        offset : tuple of float
            (x, y) of the first pixel, in pixels of the tier.
        shape : tuple of int
            Rows and columns.

        Returns
        -------
        ndarray, float64, shape (rows, columns, 3), or None
            (p, i, r) in um of reference space 9; None if the image or its dataset is not aligned.
        """
        affines = self._affines(image_id, downsample)
        if affines is None:
            return None
        truth = self.truth(image_id)
        layer = truth.shown(_plane_points(affines[0], offset, shape))
        return apply(affines[1], truth.brain_points(layer)).reshape(*shape, 3)

    def _truth(self, image_id: int) -> SectionTruth:
        """What an aligned image shows where; cached as `truth`."""
        image = self.catalogue.image(image_id) or {}
        dataset = self.catalogue.dataset_of(image) or {}
        known = (dataset["id"], depth(image, dataset), self._deformation)
        if self._damage is None or image_id in self._pixels:
            return SectionTruth(*known)
        affines = self._affines(image_id, 0)
        assert affines is not None
        to_plane, to_brain = affines[0][:2], affines[1]
        pixels = (image["width"], image["height"])
        undamaged = SectionTruth(*known)

        def is_tissue(points: NDArray[np.float64]) -> NDArray[np.bool_]:
            at = apply(to_brain, undamaged.brain_points(undamaged.shown(points)))
            return np.asarray(self.phantom.labels(at) > 0)

        found = damage_of_section(
            self._damage,
            dataset["id"],
            image_id,
            apply(to_plane, np.divide(pixels, 2.0) - 0.5).tolist(),
            # Records of an emulator may have a singular matrix.
            np.linalg.lstsq(to_brain[:, :3], np.divide(reference_space(9).extent, 2.0) - to_brain[:, 3])[0].tolist(),
            lambda random, given: point_with_tissue(random, pixels, to_plane, is_tissue, given).tolist(),
        )
        return SectionTruth(*known, found)

    def _refuse_damage(self) -> None:
        """Refuse damage of what is not drawn from the brain."""
        for rule in () if self._damage is None else self._damage.rules:
            if rule.image is not None or rule.dataset is not None:
                image = None if rule.image is None else self.catalogue.image(rule.image)
                images = self.catalogue.images_of(rule.dataset) if rule.image is None else [image or {}]
                of_dataset = (one["id"] for one in images if rule.dataset in (None, one.get("data_set_id")) and one)
                if all(self._affines(id, 0) is None for id in of_dataset):
                    raise InputError(
                        f"damage of dataset {brief(rule.dataset)}, image {brief(rule.image)}: it is not served, or has "
                        "no alignment",
                        code="image-not-served",
                    )
            if rule.image in self._pixels:
                raise InputError(
                    f"damage of image {rule.image}: its pixels are given, not drawn; leave out the rule",
                    code="conflicting-options",
                )
            if rule.do == "contrast":
                self.phantom.with_contrast(rule.numbers.get("factor", 1.0))

    def _affines(self, image_id: int, downsample: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """The affines from pixels of a tier to (x, y, depth) in um of the sections, and from there to the brain."""
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
        return section, compose(to_phantom, tvr)

    def draw(self, record: Record, request: Drawing, offset: tuple[float, float], shape: tuple[int, int]) -> Pixels:
        """Draw a region of a section image, also one that extends beyond the image.

        Parameters
        ----------
        record : dict
            The SectionImage record.
        request : Drawing
            The tier, the view and the range.
        offset : tuple of float
            (x, y) of the first pixel from that of the image, in pixels of the tier.
        shape : tuple of int
            Rows and columns.

        Returns
        -------
        ndarray, uint8, shape (rows, columns, 3)
        """
        affine = self.pixel_to_pir(record["id"], request.downsample)
        if affine is None:
            return _pattern(record["id"], request, offset, shape)
        affine = compose(affine, [[1.0, 0.0, offset[0]], [0.0, 1.0, offset[1]]])
        dataset = self.catalogue.dataset_of(record) or {}
        brain = self._of_dataset(dataset["id"])
        if self._deformation is None and not self.truth(record["id"]).damage:
            picture = brain.draw(affine, shape, expression=request.view is not None)
        else:
            picture = self._draw_moved(brain, record["id"], request, offset, shape)
        if request.range and any(dataset.get(f"{colour}_channel") for colour in ("red", "green", "blue")):
            lower, upper = np.array(request.range, dtype=np.float64).reshape(3, 2).T
            scaled = (picture * (4095.0 / 255.0) - lower) / np.maximum(upper - lower, 1.0)
            picture = np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)
        return picture

    def _draw_moved(
        self, brain: SectionedBrain, id: int, request: Drawing, offset: tuple[float, float], shape: tuple[int, int]
    ) -> Pixels:
        """Same as `draw`, for the points of the deformed and damaged section."""
        size = pixel_size(self.pixel_to_pir(id, request.downsample))
        affines, truth = self._affines(id, request.downsample), self.truth(id)
        assert affines is not None
        to_plane, to_brain = affines
        if truth.contrast != 1.0:
            brain = brain.with_contrast(truth.contrast)

        def colours(layer: Layer) -> NDArray[np.float64]:
            points = apply(to_brain, truth.brain_points(layer))
            if request.view is not None:
                values = brain.expression(points)
                values[layer.missing] = 0.0
                for at, below in layer.below:
                    values[at] = np.maximum(values[at], colours(below))
                return values
            paper = np.array(brain.background)
            values = brain.rgb(points, size)
            if not isinstance(layer.stain, float):
                values = np.clip(paper + (values - paper) * layer.stain[:, np.newaxis], 0.0, 255.0)
            values[layer.missing] = paper
            for at, below in layer.below:
                values[at] *= colours(below) / paper
            return values

        def strip(top: int, part: tuple[int, int]) -> NDArray[np.float64]:
            layer = truth.shown(_plane_points(to_plane, (offset[0], offset[1] + top), part))
            return colours(layer).reshape(*part, 3)

        return draw_strips(shape, strip)

    def _user_pixels(self, image_id: int, record: Record, downsample: int) -> Pixels:
        """User-supplied pixels at a tier: derived from the nearest finer tier supplied, or from the finest."""
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
    """A thread-safe cache of encoded images.

    Parameters
    ----------
    directory : path, optional
        Folder of the images that last between runs.
    limit : int
        Maximum size in memory, in bytes; the least recently used images are dropped.
    """

    def __init__(self, directory: str | Path | None = None, limit: int = 256 * 1024**2) -> None:
        self._directory = None if directory is None else Path(directory)
        self._limit = limit
        self._size = 0
        self._images: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, draw: Callable[[], bytes]) -> bytes:
        """The image of a key (a file name); `draw` is called if it is not cached."""
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
        """Write atomically: other processes may read the same folder."""
        if self._directory is None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        partial = self._directory / f"{key}.{os.getpid()}-{threading.get_ident()}"
        partial.write_bytes(image)
        partial.replace(self._directory / key)


def _window(record: Record, request: Drawing) -> tuple[int, int, int, int]:
    """Left, top, width and height of the requested region, in tier pixels of the image."""
    rows, columns = record["height"] >> request.downsample, record["width"] >> request.downsample
    left = max((request.left - record.get("x", 0)) >> request.downsample, 0) if request.left is not None else 0
    top = max((request.top - record.get("y", 0)) >> request.downsample, 0) if request.top is not None else 0
    width = columns - left if request.width is None else min(request.width, columns - left)
    height = rows - top if request.height is None else min(request.height, rows - top)
    return left, top, width, height


def _plane_points(
    to_section: NDArray[np.float64], offset: tuple[float, float], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """The points of the section plane at pixels, in um: float64, shape (rows, columns, 2)."""
    x, y = np.meshgrid(np.arange(shape[1]) + offset[0], np.arange(shape[0]) + offset[1])
    return apply(to_section[:2], np.stack([x, y], axis=-1))


def _to_space_9(space_id: Any) -> NDArray[np.float64]:
    """Affine (3, 4) from a dataset's reference space to the phantom's."""
    space, adult = reference_space(space_id).frame, reference_space(9)
    stretched = np.zeros((3, 4))
    np.fill_diagonal(stretched, np.divide(adult.extent, space.extent))
    return stretched


def _pattern(image_id: int, request: Drawing, offset: tuple[float, float], shape: tuple[int, int]) -> Pixels:
    """A smooth, reproducible pattern for an image without alignment."""
    pixel = 2.0**request.downsample
    x = (np.arange(shape[1]) + offset[0] + 0.5) * pixel
    y = (np.arange(shape[0]) + offset[1] + 0.5)[:, np.newaxis] * pixel
    picture = np.empty((*shape, 3), dtype=np.uint8)
    picture[..., 0] = 128.0 + 90.0 * np.sin(x / 150.0 + image_id % 7)
    picture[..., 1] = 128.0 + 90.0 * np.sin(y / 190.0 + image_id % 11)
    picture[..., 2] = 128.0 + 45.0 * np.sin(x / 310.0) + 45.0 * np.cos(y / 270.0)
    return picture
