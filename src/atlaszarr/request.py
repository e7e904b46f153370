"""What a registered volume is a pure function of, besides the records: the request. Two equal ones make equal bytes."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .allen.records import SectionDataset
from .displacement import Displacement
from .errors import InputError
from .ome import DEFAULT_VERSION, zarr_format
from .pyramid import Pyramid
from .stack import Stack, stack_sections


@dataclass(frozen=True)
class VolumeRequest:
    """The options of a volume, as the build records them.

    Attributes
    ----------
    resolution : float
        Voxel size in um.
    fill, interpolation, space, r_extent, view, quality, range
        See `atlaszarr.stack.stack_sections`.
    downsample : int or None
        Tier of all images; None for the coarsest whose pixel is not larger than a voxel.
    levels : int or None
        Of the pyramid; None until one chunk holds the last.
    chunk : int
        Side of a chunk in voxels, 8 to 1024.
    shard : int or None
        Side of a shard of level 0 in voxels, whole chunks; those of coarser levels shrink with the level.
    ome_zarr : str
        Version of OME-Zarr: 0.4 (zarr v2, without shards), 0.5 or 0.6.
    background : int
        Grey level where no section is, 0 to 255.
    """

    resolution: float = 25.0
    fill: str = "nearest"
    interpolation: str = "linear"
    space: str = "auto"
    r_extent: float | None = None
    view: str = "primary"
    downsample: int | None = None
    quality: int | None = None
    range: tuple[int, ...] | None = None
    levels: int | None = None
    chunk: int = 64
    shard: int | None = None
    ome_zarr: str = DEFAULT_VERSION
    background: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.resolution < math.inf:
            raise InputError(f"resolution {self.resolution:g} um must be positive")
        if self.r_extent is not None and not 0 < self.r_extent < math.inf:
            raise InputError(f"r_extent {self.r_extent:g} um must be positive")
        if not 8 <= self.chunk <= 1024:
            raise InputError(f"chunk {self.chunk} must be between 8 and 1024 voxels")
        if zarr_format(self.ome_zarr) == 2 and self.shard is not None:
            raise InputError(
                f"shard {self.shard} cannot be had with OME-Zarr {self.ome_zarr}; ask for 0.5 or no shards"
            )
        if not 0 <= self.background <= 255:
            raise InputError(f"background {self.background} must be between 0 and 255")

    @classmethod
    def of(cls, options: dict[str, Any]) -> VolumeRequest:
        """A request from options by name.

        Raises
        ------
        InputError
            If an option is not known.
        """
        known = [option.name for option in fields(cls)]
        if unknown := sorted(set(options) - set(known)):
            raise InputError(f"option {unknown[0]!r} is not known; choose from {', '.join(known)}")
        return cls(**{name: _value(name, value) for name, value in options.items()})

    def stack(self, dataset: SectionDataset, displacement: Mapping[int, Displacement] | None = None) -> Stack:
        """The dataset's sections over the grid asked for, some of them by a field; see `stack_sections`."""
        return stack_sections(
            dataset,
            self.resolution,
            fill=self.fill,
            interpolation=self.interpolation,
            space=self.space,
            r_extent=self.r_extent,
            downsample=self.downsample,
            view=self.view,
            quality=self.quality,
            range=self.range,
            displacement=displacement,
        )

    def pyramid(self, stack: Stack) -> Pyramid:
        """The levels over that grid."""
        return Pyramid.over(stack.grid.shape, self.chunk, self.levels, shard=self.shard)

    def identity(self, dataset: SectionDataset) -> dict[str, Any]:
        """All that decides the bytes of the output, in JSON's types: the options, and a digest of the records."""
        records = json.dumps(dataset.to_dict(), sort_keys=True).encode()
        options = json.loads(json.dumps(asdict(self)))
        return {"dataset": dataset.id, **options, "records_sha256": hashlib.sha256(records).hexdigest()}


_WHOLE = {"quality", "levels", "downsample", "chunk", "shard", "background"}
_REAL = {"resolution", "r_extent"}


def _value(name: str, value: Any) -> Any:
    """An option as the type it must have; ``auto`` is None where None is the default."""
    optional = name in ("levels", "downsample")
    if value is None or (optional and value == "auto"):
        if getattr(VolumeRequest, name) is None:
            return None
        raise InputError(f"{name} must be given a value")
    try:
        if isinstance(value, bool):
            raise TypeError
        if name in _WHOLE:
            return operator.index(value)
        if name in _REAL:
            return float(value)
        if name == "range":
            return tuple(operator.index(limit) for limit in value)
        return str(value)
    except (TypeError, ValueError):
        kind = "a number" if name in _REAL else "six whole numbers" if name == "range" else "a whole number"
        raise InputError(f"{name} {value!r} is not {kind}{' or auto' * optional}") from None
