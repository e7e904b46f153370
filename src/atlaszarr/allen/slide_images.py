"""Section images on the slides of an image source: which tier and pixels of a slide, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..boxes import Box
from ..errors import ImageError, InputError
from .images import ImageRequest, Pixels, SectionImage, tier_size
from .records import Section
from .slide_places import SlidePlace, SlideTier

#: Relative difference of the pixel size in two records of an image: both have four digits.
_SAME_RESOLUTION = 1e-3


class ImageOutline(NamedTuple):
    """A section image that need not be aligned; attributes as in `atlaszarr.allen.records.Section`."""

    image_id: int
    section_number: int
    x: int
    y: int
    width: int
    height: int
    resolution: float


@dataclass(frozen=True)
class SlideCrop(ImageRequest):
    """The pixels of a section, or of a window of it, on a slide.

    Attributes
    ----------
    slide : str
        Key of the slide in the image source.
    x, y : int
        The first pixel on the slide, in pixels of the tier.
    slide_size : tuple of int
        Width and height of the slide, in pixels of the tier.
    offset : tuple of float
        Where the tier's crop of the whole section begins within the full-resolution image, along x and y, in
        full-resolution pixels: x 2^T - x0, at most 0 and more than -2^T, since the record rounds down.
    problem : str
        Why the image cannot be fetched; empty if it can.
    """

    slide: str = ""
    x: int = 0
    y: int = 0
    slide_size: tuple[int, int] = (0, 0)
    offset: tuple[float, float] = (0.0, 0.0)
    problem: str = ""

    @property
    def box(self) -> Box:
        """(left, top, right, bottom) in pixels of the slide."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    def window(self, origin: tuple[int, int], box: Box) -> SlideCrop:
        """Same as in `ImageRequest`."""
        window = super().window(origin, box)
        assert isinstance(window, SlideCrop)
        return replace(window, x=self.x + box[0], y=self.y + box[1])

    def url(self, api_url: str) -> str:
        """The path or URL of the slide, for that of the image source."""
        return f"{api_url}/{self.slide}".rstrip("/")

    @property
    def largest_body(self) -> int:
        """Bytes of the pixels."""
        return 3 * self.width * self.height

    def decode(self, body: bytes) -> Pixels:
        """The pixels in a body, which holds them row by row, each as red, green and blue.

        Returns
        -------
        ndarray, uint8, shape (height, width, 3)

        Raises
        ------
        ImageError
            If the body has another length.
        """
        if len(body) != self.largest_body:
            raise ImageError(
                f"section image {self.image_id} at downsample {self.downsample}: {len(body)} bytes are not "
                f"{self.width} x {self.height} pixels",
                code="wrong-image-size",
            )
        return np.frombuffer(body, np.uint8).reshape(self.height, self.width, 3)


@dataclass(frozen=True)
class SlideImage(SectionImage):
    """A section image of a slide: `body` holds its pixels, and `sha256` is their digest.

    Attributes
    ----------
    etag : str or None
        Of the slide.
    """

    etag: str | None = field(default=None)


def refuse_options(view: str, quality: int | None, range: tuple[int, ...] | None) -> None:
    """Raise InputError for an option that only the image service of the API supports."""
    given = {"view": view != "primary" and view, "quality": quality, "range": range}
    for name, value in given.items():
        if value is not None and value is not False:
            raise InputError(
                f"{name} {value!r} is not supported with an image source, which has the primary view alone; "
                "use the image source api (--image-source api)",
                code="not-in-image-source",
            )


def slide_crop(
    section: Section | ImageOutline, place: SlidePlace, resolution: float, downsample: int | None
) -> SlideCrop:
    """The pixels of a whole section at a tier of its slide.

    Parameters
    ----------
    section : Section or ImageOutline
        By the record of the API.
    place : SlidePlace
        By the record of the image source. What contradicts the section, or is missing, is the `problem` of the result.
    resolution : float
        Voxel size in um: the tier is the coarsest whose pixel is not larger, or else the finest that exists.
    downsample : int, optional
        The tier; the next finer one if the record lacks it.

    Raises
    ------
    InputError
        If the section is too small for the tier.
    """
    if downsample is not None:
        tier_size(section.image_id, section.width, section.height, downsample)
    tier, problem = _tier(section, place, resolution, downsample)
    if tier is None:
        level = _level(section, resolution) if downsample is None else downsample
        size = tier_size(section.image_id, section.width, section.height, level)
        return SlideCrop(section.image_id, *size, level, slide=place.folder, problem=problem)
    x0, y0 = _origin(section, place)
    scale = 2**tier.downsample
    return SlideCrop(
        section.image_id,
        tier.width,
        tier.height,
        tier.downsample,
        slide=f"{place.folder}/downsample_{tier.downsample}/{place.file}",
        x=tier.x,
        y=tier.y,
        slide_size=(tier.slide_width, tier.slide_height),
        offset=(tier.x * scale - x0, tier.y * scale - y0),
        problem=_contradiction(section, place, tier, (x0, y0)),
    )


def _tier(
    section: Section | ImageOutline, place: SlidePlace, resolution: float, downsample: int | None
) -> tuple[SlideTier | None, str]:
    if place.problem:
        return None, place.problem
    if downsample is None:
        fitting = [tier for tier in place.tiers if section.resolution * 2**tier.downsample <= resolution]
        return (fitting or place.tiers[:1])[-1], ""
    fitting = [tier for tier in place.tiers if tier.downsample <= downsample]
    found = f"downsample_{place.tiers[0].downsample} to downsample_{place.tiers[-1].downsample}"
    return (fitting[-1], "") if fitting else (None, f"the image source has no downsample_{downsample}, only {found}")


def _level(section: Section | ImageOutline, resolution: float) -> int:
    """The coarsest tier whose pixel is not larger than `resolution`, of those that leave a pixel of the section."""
    coarsest = min(section.width, section.height).bit_length() - 1
    return max((d for d in range(coarsest + 1) if section.resolution * 2**d <= resolution), default=0)


def _origin(section: Section | ImageOutline, place: SlidePlace) -> tuple[float, float]:
    """The section's first full-resolution pixel on its slide, (x, y).

    It is that of ``downsample_0``. Where that is missing, it is the corner in the record of the API, if all tiers agree
    with it; else the middle of what the finest tier leaves open. At tier 1 that is half a pixel from the truth; a
    coarser one is refused.
    """
    finest = place.tiers[0]
    if finest.downsample == 0:
        return finest.x, finest.y
    if all((section.x >> t.downsample, section.y >> t.downsample) == (t.x, t.y) for t in place.tiers):
        return section.x, section.y
    scale = 2**finest.downsample
    return finest.x * scale + (scale - 1) / 2, finest.y * scale + (scale - 1) / 2


def _contradiction(
    section: Section | ImageOutline, place: SlidePlace, tier: SlideTier, origin: tuple[float, float]
) -> str:
    """What the two records of an image disagree about; empty for nothing."""
    d = tier.downsample
    pairs: list[tuple[str, Any, Any]] = [
        ("section_number", place.section_number, section.section_number),
        (f"size at downsample {d}", (tier.width, tier.height), (section.width >> d, section.height >> d)),
    ]
    differing = [(name, found, other) for name, found, other in pairs if found != other]
    if abs(place.resolution - section.resolution) > _SAME_RESOLUTION * section.resolution:
        differing.append(("resolution", place.resolution, section.resolution))
    if differing:
        name, found, other = differing[0]
        return f"its {name} in the image source is {found}, and {other} in the record of the API"
    if origin[0] % 1 and place.tiers[0].downsample > 1:
        return (
            f"its corner at full resolution is not known: the image source has no tier finer than "
            f"{place.tiers[0].downsample}, which contradicts the corner {section.x},{section.y} of the API's record"
        )
    for other in place.tiers:
        d = other.downsample
        # Finer tiers show a wrong corner at full resolution, which moves the section.
        if d <= tier.downsample and (other.x, other.y) != (int(origin[0]) >> d, int(origin[1]) >> d):
            full = f"{origin[0]:.10g},{origin[1]:.10g}"
            return f"its corner {other.x},{other.y} at downsample {d} contradicts {full} at full resolution"
    return ""
