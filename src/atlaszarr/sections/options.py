"""The options of volumes and of registered sections. Equal options and records give equal bytes."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from ..allen.images import validate_options
from ..allen.records import SectionDataset, plane_name
from ..boxes import Shape
from ..engine.ome import DEFAULT_VERSION, zarr_format
from ..engine.pyramid import Pyramid, lengths
from ..errors import InputError
from ..resampling.sampler import validate_names
from .alignment import AlignedSections, align_sections, validate_chunk_count
from .fields import SectionFields
from .planes import DetectionPoint, SectionPlanes, section_planes
from .stack import MAX_GAP, Stack, stack_sections, validate_fill

#: Options of what is written, not of how sections are registered.
_WRITING_ONLY = frozenset(("levels", "shard", "ome_zarr", "displacement", "grey"))
#: Finest resolution in um: far below the 0.1 um of a light microscope.
_FINEST_UM = 1e-3
#: Options of earlier versions that were removed, and what to use instead.
REMOVED_OPTIONS = dict.fromkeys(
    ("space", "r_extent"),
    "reference spaces 9 and 10 are one frame, in which low r is left; "
    "to mirror left to right (r -> 11400 - r), use mirror (--mirror)",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options that all modes of a build share.

    Attributes
    ----------
    resolution : float
        Voxel size in um.
    interpolation : str
        Interpolation within the image; see `atlaszarr.sections.stack.stack_sections`.
    mirror, view, quality, range
        See `atlaszarr.sections.alignment.align_sections`.
    downsample : int or None
        Tier of all images; None for the coarsest tier whose pixel is not larger than a voxel.
    levels : int or None
        Levels of the pyramid; None for as many as it takes to fit the last into one chunk.
    chunk : int
        Side of a chunk in voxels.
    shard : int or None
        Side of a shard of level 0 in voxels, a multiple of the chunk; shards of coarser levels shrink with the level.
    ome_zarr : str
        OME-Zarr version: 0.4 (Zarr v2, without shards), 0.5 or 0.6.
    background : int
        Grey level of voxels without a section, 0 to 255.
    grey : bool
        Whether to write one channel without an axis c, the mean of red, green and blue, instead of three.
    """

    mode: ClassVar[str]
    #: The smallest and the largest chunk side.
    chunks: ClassVar[tuple[int, int]]

    resolution: float = 25.0
    interpolation: str = "linear"
    mirror: bool = False
    view: str = "primary"
    downsample: int | None = None
    quality: int | None = None
    range: tuple[int, ...] | None = None
    levels: int | None = None
    chunk: int
    shard: int | None = None
    ome_zarr: str = DEFAULT_VERSION
    background: int = 0
    grey: bool = False

    def __post_init__(self) -> None:
        if not _FINEST_UM <= self.resolution < math.inf:
            raise InputError(
                f"resolution {self.resolution:g} um must be finite and at least {_FINEST_UM:g}", code="out-of-range"
            )
        low, high = self.chunks
        if not low <= self.chunk <= high:
            raise InputError(f"chunk {self.chunk} must be between {low} and {high} voxels", code="out-of-range")
        if zarr_format(self.ome_zarr) == 2 and self.shard is not None:
            raise InputError(
                f"shard {self.shard} is not supported with OME-Zarr {self.ome_zarr}; use version 0.5 or no shards",
                code="not-supported",
            )
        if not 0 <= self.background <= 255:
            raise InputError(f"background {self.background} must be between 0 and 255", code="out-of-range")
        validate_names(self.interpolation, "constant")
        validate_options(self.view, self.quality, self.range)
        if self.downsample is not None and self.downsample < 0:
            raise InputError(f"downsample {self.downsample} must be 0 or more, or auto", code="out-of-range")
        if self.levels is not None and self.levels < 1:
            raise InputError(f"levels {self.levels} must be 1 or more, or auto", code="out-of-range")
        if self.shard is not None:
            lengths("shard", self.shard)

    @classmethod
    def of(cls, options: Mapping[str, Any], written: bool = True) -> Self:
        """Options from values by name.

        Parameters
        ----------
        options : mapping
        written : bool
            Whether the output is written; otherwise options that only concern writing are refused.

        Raises
        ------
        InputError
            If an option is unknown or its value is not valid.
        """
        known = {option.name: option.default for option in fields(cls) if written or option.name not in _WRITING_ONLY}
        for name in {*options} & {*REMOVED_OPTIONS}:
            raise InputError(f"option {name!r} no longer exists: {REMOVED_OPTIONS[name]}", code="removed-option")
        if not written and "displacement" in options:
            raise InputError(
                "option 'displacement' no longer takes fields; give them to fields, and true or false to displacement "
                "of open_volume",
                code="removed-option",
            )
        if unknown := sorted(set(options) - set(known)):
            raise InputError(
                f"option {unknown[0]!r} is not known; mode {cls.mode} has the options {', '.join(known)}",
                code="unknown-option",
            )
        return cls(**{name: _value(name, value, known[name]) for name, value in options.items()})

    @classmethod
    def of_views(cls, view: str | Sequence[str], options: Mapping[str, Any], written: bool = True) -> list[Self]:
        """The options of each view, otherwise equal; see `of`.

        Raises
        ------
        InputError
            If there is no view, a view is repeated, or an option is unknown.
        """
        views = [view] if isinstance(view, str) else list(view)
        if not views or len(set(views)) < len(views):
            raise InputError(
                f"view {', '.join(views)!r} must name at least one view, and none twice", code="invalid-views"
            )
        return [cls.of({**options, "view": view}, written) for view in views]

    def identity(self, dataset: SectionDataset, fields: SectionFields | None = None) -> dict[str, Any]:
        """Everything that the bytes of the output depend on: options and digests of records and fields, as JSON."""
        records = json.dumps(dataset.to_dict(), sort_keys=True).encode()
        options = json.loads(json.dumps(asdict(self)))
        if not self.grey:  # so that targets of versions without this option are resumed
            del options["grey"]
        if any(section.slide is not None for section in dataset.sections):
            options["image_source"] = "slides"  # whose pixels are not those of the API's JPEGs
        digest = hashlib.sha256(records).hexdigest()
        registered = {} if fields is None else {"fields_sha256": fields.digest}
        return {"dataset": dataset.id, "mode": self.mode, **options, "records_sha256": digest, **registered}

    def aligned(self, dataset: SectionDataset, fields: SectionFields | None = None) -> AlignedSections:
        """Align the sections of a dataset; see `atlaszarr.sections.alignment.align_sections`."""
        names = ("resolution", "mirror", "downsample", "view", "quality", "range")
        return align_sections(dataset, fields=fields, **{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class VolumeOptions(Options):
    """The options of a volume, in addition to those of `Options`.

    Attributes
    ----------
    chunk : int
        Side of a chunk in voxels, 8 to 1024.
    fill, max_gap
        See `atlaszarr.sections.stack.stack_sections`.
    """

    mode = "volume"
    chunks = (8, 1024)

    chunk: int = 64
    fill: str = "nearest"
    max_gap: float = MAX_GAP

    def __post_init__(self) -> None:
        super().__post_init__()
        validate_fill(self.fill, self.max_gap)

    def stack(self, dataset: SectionDataset, fields: SectionFields | None = None) -> Stack:
        """Stack the sections of a dataset over the grid; see `atlaszarr.sections.stack.stack_sections`."""
        return stack_sections(
            self.aligned(dataset, fields), fill=self.fill, max_gap=self.max_gap, interpolation=self.interpolation
        )

    def pyramid(self, shape: Shape) -> Pyramid:
        """The levels of a volume with a shape along (z, y, x)."""
        return Pyramid.over(shape, self.chunk, self.levels, shard=self.shard)


@dataclass(frozen=True, kw_only=True)
class SectionsOptions(Options):
    """The options of registered sections, in addition to those of `Options`.

    Attributes
    ----------
    chunk : int
        Side of a square chunk in pixels, 32 to 4096.
    plane, detection_xy
        See `atlaszarr.sections.planes.section_planes`.
    displacement : bool
        Whether to write the displacement fields.
    """

    mode = "sections"
    chunks = (32, 4096)

    chunk: int = 512
    plane: str = "auto"
    detection_xy: DetectionPoint = (0.0, 0.0)
    displacement: bool = False

    def planes(
        self, dataset: SectionDataset, stored: bool = True, fields: SectionFields | None = None
    ) -> SectionPlanes:
        """Register the sections of a dataset to planes; see `atlaszarr.sections.planes.section_planes`.

        Raises
        ------
        InputError
            If the planes have more than a million chunks.
        """
        planes = section_planes(
            self.aligned(dataset, fields),
            plane=self.plane,
            stored=stored,
            interpolation=self.interpolation,
            detection_xy=self.detection_xy,
        )
        chunks = len(planes.displacements) * math.prod(-(-n // self.chunk) for n in planes.shape)
        validate_chunk_count(chunks, self.resolution)
        return planes

    def pyramid(self, count: int, sides: tuple[int, int]) -> Pyramid:
        """The levels of a stack of planes of (rows, columns), downsampled within the planes only."""
        most = max(sides).bit_length()
        if self.levels is not None and not 1 <= self.levels <= most:
            raise InputError(
                f"levels {self.levels} must be between 1 and {most} for {sides[0]} x {sides[1]} pixels",
                code="out-of-range",
            )
        wanted = self.levels or 1 + max(math.ceil(math.log2(max(sides) / self.chunk)), 0)
        shard = None if self.shard is None else (1, self.shard, self.shard)
        return Pyramid.over(
            (count, *sides),
            [(1, self.chunk, self.chunk)],
            wanted,
            [(1, 2, 2)] * (wanted - 1),
            shard,
        )


def _value(name: str, value: Any, default: Any) -> Any:
    """An option converted to its type; ``auto`` is None for levels and downsample."""
    optional = name in ("levels", "downsample")
    if value is None or (optional and value == "auto"):
        if default is None:
            return None
        raise InputError(f"{name} must have a value", code="missing-value")
    convert, kind = _CONVERTERS.get(name, (str, "text"))
    try:
        if isinstance(value, bool) is not (convert is bool):
            raise TypeError
        return convert(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} {value!r} is not {kind}{' or auto' * optional}", code="invalid-value") from None


def _limits(value: Any) -> tuple[int, ...]:
    return tuple(operator.index(limit) for limit in value)


#: Largest detection point, in pixels: thirty times the longest side of the largest images.
_MAX_DISTANCE = 1_000_000


def _point(value: Any) -> DetectionPoint:
    if isinstance(value, str) and value in ("centre", "center"):
        return "centre"
    x, y = map(float, value.split(",") if isinstance(value, str) else value)
    if not (abs(x) <= _MAX_DISTANCE and abs(y) <= _MAX_DISTANCE):
        raise ValueError
    return x, y


_WHOLE = (operator.index, "a whole number")
_CONVERTERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    **dict.fromkeys(("quality", "levels", "downsample", "chunk", "shard", "background"), _WHOLE),
    **dict.fromkeys(("resolution", "max_gap"), (float, "a number")),
    "range": (_limits, "six whole numbers"),
    "plane": (lambda value: plane_name(str(value)), "text"),
    "detection_xy": (_point, f"two numbers of at most {_MAX_DISTANCE:,} pixels or 'centre'"),
    **dict.fromkeys(("displacement", "grey", "mirror"), (bool, "True or False")),
}
