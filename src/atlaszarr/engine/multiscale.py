"""Write and read aligned arrays at every level of a pyramid. For any image."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self, get_args

import numpy as np
from numpy.typing import NDArray

from ..boxes import Index, Region, Shape, shape_of, within
from ..errors import TargetError, brief
from ..stores.target import Target
from .array_layout import ArrayLayout, Encoding, numeric_dtype
from .downsampling import Rule, reduce
from .ledger import Defect, Ledger, Task
from .pyramid import NonEmptyChunks, Pass, Pyramid

#: Bytes of the largest block of a recorded array: 2**30 voxels, the most of a pyramid, of eight bytes.
_LARGEST_BLOCK = 2**33
#: Digits of the index of an object: 2**63 has 19.
DIGITS = 20
#: Bytes of objects that a process keeps of a remote target until the next pass reads them.
_UNREAD = 2**26
#: Values of a block for each array, by the path of the array, shape (c, z, y, x) or (z, y, x).
Blocks = Mapping[str, NDArray[Any]]
#: Called with the array, the level, the index and the values without padding of each object, before it is encoded.
Observer = Callable[["ArraySpec", int, Index, NDArray[Any]], None]


@dataclass(frozen=True)
class ArraySpec:
    """One of the aligned arrays.

    Attributes
    ----------
    path : str
        Path of its group in the target: "" for the root. Level ``k`` is the array ``k`` in the group.
    dtype : str
    axes : tuple of str
        ``z``, ``y``, ``x`` or ``y``, ``x``, after ``c`` if there are channels.
    channels : int
        Length of ``c``; a chunk holds all channels.
    fill : int or float
        Value of empty chunks, and of the padding beyond the end of the array.
    rule : str
        Method of downsampling: see `atlaszarr.engine.downsampling.reduce`.
    mask : str or None
        Path of the array that masks this one in means: only voxels where it is not 0 count.
    levels : int or None
        Number of levels of the array, from the first; None for all.
    """

    path: str
    dtype: str
    axes: tuple[str, ...] = ("z", "y", "x")
    channels: int = 1
    fill: float = 0
    rule: Rule = "mean"
    mask: str | None = None
    levels: int | None = None

    @property
    def lead(self) -> tuple[int, ...]:
        """Lengths of the axes that are not spatial."""
        return (self.channels,) if "c" in self.axes else ()

    @property
    def dimensions(self) -> int:
        """Number of spatial axes."""
        return len(self.axes) - len(self.lead)

    def shape(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the array, or of a part of it, given its lengths along (z, y, x)."""
        return self.lead + lengths[3 - self.dimensions :]

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> ArraySpec:
        """The array that a ledger describes.

        Raises
        ------
        ValueError, KeyError, TypeError
            If it describes no array that atlaszarr writes.
        """
        spec = cls(**{**described, "axes": tuple(described["axes"])})
        whole = (
            isinstance(spec.path, str)
            and ".." not in spec.path.split("/")
            and not spec.path.startswith("/")
            and numeric_dtype(spec.dtype).name == spec.dtype
            and spec.axes in (("z", "y", "x"), ("c", "z", "y", "x"), ("y", "x"), ("c", "y", "x"))
            and type(spec.channels) is int
            and 0 < spec.channels < 2**31
            and isinstance(spec.fill, int | float)
            and spec.rule in get_args(Rule)
            and isinstance(spec.mask, str | None)
            and (spec.levels is None or type(spec.levels) is int)
        )
        if not whole:
            raise ValueError(f"{described!r} is not an array of atlaszarr")
        return spec

    def name(self, level: int) -> str:
        """The path of the array of a level."""
        return f"{self.path}/{level}".lstrip("/")


class UnreadObjects:
    """Objects that a process has put and will read again: at most 64 MB, and each for one reader; pickled empty."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}
        self._size = 0
        self._lock = threading.Lock()

    def add(self, key: str, body: bytes) -> None:
        """Keep an object, if there is room for it."""
        with self._lock:
            if self._size + len(body) <= _UNREAD and key not in self._bodies:
                self._bodies[key] = body
                self._size += len(body)

    def take(self, key: str) -> bytes | None:
        """Return an object, which is kept no longer; None if it is not kept."""
        with self._lock:
            body = self._bodies.pop(key, None)
            self._size -= len(body or b"")
        return body

    def __reduce__(self) -> tuple[type[UnreadObjects], tuple[()]]:
        return UnreadObjects, ()


@dataclass(frozen=True)
class Multiscale:
    """Aligned arrays at every level of a pyramid, in a target. Small and picklable; its repr shows no credentials.

    A ledger names a subclass by its `kind`, a key that `to_json` of the subclass adds.

    Attributes
    ----------
    target : Target
    arrays : tuple of ArraySpec
        Arrays over the same voxels, with the same empty chunks.
    non_empty : NonEmptyChunks
    encoding : Encoding
    """

    target: Target
    arrays: tuple[ArraySpec, ...]
    non_empty: NonEmptyChunks
    encoding: Encoding = field(default_factory=Encoding)
    _unread: UnreadObjects = field(default_factory=UnreadObjects, init=False, repr=False, compare=False)
    #: Subclasses by their kind; only those whose modules are imported.
    kinds: ClassVar[dict[str, type[Multiscale]]] = {}
    #: Whether a chunk holds one channel, and chunks that hold only the fill value are absent from their shards.
    sparse: ClassVar[bool] = False

    def __init_subclass__(cls, *, kind: str) -> None:
        """Register a subclass."""
        cls.kinds[kind] = cls

    @classmethod
    def recorded(cls, target: Target, described: Mapping[str, Any], written: Collection[str], **own: Any) -> Self:
        """The multiscale that a ledger describes.

        Parameters
        ----------
        target : Target
        described : mapping
            The result of `to_json`.
        written : collection of str
            Keys of the objects that the ledger records; the other objects of level 0 are empty.
        **own
            Attributes that a subclass adds.

        Raises
        ------
        ValueError, KeyError, TypeError
            If `described` is not the result of `to_json`.
        """
        arrays = tuple(map(ArraySpec.from_json, described["arrays"]))
        pyramid, encoding = Pyramid.from_json(described["levels"]), Encoding(**described["encoding"])
        if not arrays or encoding.zarr_format not in (2, 3):
            raise ValueError(f"{len(arrays)} arrays, zarr format {encoding.zarr_format!r}")
        by_path = {spec.path: spec for spec in arrays}
        for spec in arrays:
            _validate_fill(spec)
            if spec.mask is not None and by_path[spec.mask].levels not in (None, spec.levels):
                raise ValueError(f"the mask {spec.mask!r} lacks levels")
        voxels = max(math.prod(map(min, step.block, pyramid.levels[step.source].shape)) for step in pyramid.passes)
        sizes = ((1 if cls.sparse else spec.channels) * np.dtype(spec.dtype).itemsize for spec in arrays)
        if (size := voxels * max(sizes)) > _LARGEST_BLOCK:
            raise ValueError(f"blocks of {size} bytes")
        whole = cls(target, arrays, NonEmptyChunks(pyramid), encoding, **own)
        units = (whole.unit_of(arrays[0], key) for key in written)
        non_empty = NonEmptyChunks(pyramid, frozenset(unit for unit in units if unit is not None))
        non_empty.validate()
        return replace(whole, non_empty=non_empty)

    def contents(
        self, request: Mapping[str, Any], found: Ledger, tasks: Sequence[Task], most: int | None
    ) -> Iterator[Defect] | None:
        """Compare the objects of tasks with their source, at most `most` of a level unless it is None.

        Return None to compare each level with its parent instead.
        """
        return None

    def counts(self, found: Ledger, tasks: Sequence[Task]) -> Mapping[str, int]:
        """What a validation counts of these tasks, by the attributes of `atlaszarr.engine.verify.VerifyReport`."""
        return {"blocks": len(tasks)}

    @property
    def pyramid(self) -> Pyramid:
        """The pyramid of the arrays."""
        return self.non_empty.pyramid

    @property
    def objects(self) -> int:
        """Number of objects that are not empty, over all arrays and levels."""
        levels = range(len(self.pyramid.levels))
        return sum(len(self.at(level)) * self.non_empty.count(level) for level in levels)

    def at(self, level: int) -> tuple[ArraySpec, ...]:
        """The arrays that have a level."""
        return tuple(spec for spec in self.arrays if spec.levels is None or level < spec.levels)

    def to_json(self) -> dict[str, Any]:
        """All attributes but the target and the non-empty chunks, as JSON types; the ledger records them."""
        return {
            "arrays": [asdict(spec) for spec in self.arrays],
            "levels": self.pyramid.to_json(),
            "encoding": asdict(self.encoding),
            **({"sparse": True} if self.sparse else {}),
        }

    def documents(self) -> dict[str, bytes]:
        """The metadata documents of every array, by key."""
        return {
            f"{path}/{name}": body
            for spec, level, path in self.paths()
            for name, body in self.layout(spec, level).documents(spec.axes).items()
        }

    def layout(self, spec: ArraySpec, level: int) -> ArrayLayout:
        """The layout of a level of an array."""
        at = self.pyramid.levels[level]
        shape, chunk, unit = (self.stored(spec, lengths) for lengths in (at.shape, at.chunk, at.unit))
        return self.encoding.layout(shape, chunk, spec.dtype, spec.fill, unit)

    def paths(self) -> Iterator[tuple[ArraySpec, int, str]]:
        """The spec, level and path of every array."""
        for level in range(len(self.pyramid.levels)):
            for spec in self.at(level):
                yield spec, level, spec.name(level)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Prefixes of the keys of all arrays."""
        return tuple(f"{path}/" for _, _, path in self.paths())

    def blocks(self, step: Pass) -> Shape:
        """Number of blocks of a pass along each axis; the index of a task is that of a block."""
        return self.pyramid.blocks(step)

    def block_name(self, level: int, index: Index) -> str:
        """The name of a block in messages."""
        z, y, x = index
        return f"block {z}, {y}, {x} (z, y, x) of level {level}"

    def group(self, spec: ArraySpec, _block: Index, /) -> str:
        """The path of the group whose metadata describes a block of an array."""
        return spec.path

    def key(self, spec: ArraySpec, level: int, unit: Index) -> str:
        """The key of an object."""
        lead = "c/" if self.encoding.zarr_format == 3 else ""
        channel = "0/" if "c" in spec.axes else ""
        return f"{spec.name(level)}/{lead}{channel}" + "/".join(map(str, unit[3 - spec.dimensions :]))

    def unit_of(self, spec: ArraySpec, key: str) -> Index | None:
        """The index of the object of level 0 with a key; None if there is none."""
        numbers = key.rsplit("/", spec.dimensions)[1:]
        if not all(number.isdecimal() and len(number) < DIGITS for number in numbers):
            return None
        z, y, x = (*(0,) * (3 - len(numbers)), *map(int, numbers))
        return self._existing(spec, key, (z, y, x))

    def _existing(self, spec: ArraySpec, key: str, unit: Index) -> Index | None:
        """A unit of level 0, if it exists and has this key."""
        inside = all(i < n for i, n in zip(unit, self.pyramid.levels[0].grid, strict=True))
        return unit if inside and self.key(spec, 0, unit) == key else None

    def encoded(
        self, step: Pass, index: Index, values: Blocks, observe: Observer | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """The objects of a block, of every level that the pass writes: key and body of each.

        Parameters
        ----------
        step : Pass
        index : tuple of int
            Index of the block.
        values : mapping
            Values of the block at the source level of the pass.
        observe : callable, optional
            Called with every object before it is encoded.
        """
        if step.computes:
            yield from self._units(step.source, self.pyramid.region(step, index), values, observe)
        for level in range(step.source + 1, step.writes[-1] + 1):
            region = self.pyramid.region(step, index, level)
            values = self.coarsened(values, level, region)
            again = not self.target.is_local and level in self.pyramid.read_again
            for key, body in self._units(level, region, values, observe):
                if again:
                    self._unread.add(key, body)
                yield key, body

    def read(self, level: int, region: Region) -> Blocks:
        """Read a region of a level of all arrays; it must consist of whole objects.

        Raises
        ------
        TargetError
            If an object is missing or damaged.
        """
        return {spec.path: self.read_array(spec, level, region) for spec in self.at(level)}

    def read_array(self, spec: ArraySpec, level: int, region: Region) -> NDArray[Any]:
        """Read a region of a level of one array; it must consist of whole objects.

        Raises
        ------
        TargetError
            If an object is missing or damaged.
        """
        at = self.pyramid.levels[level]
        shape = spec.lead + shape_of(region)
        # Zeros that are not read take no memory.
        values = np.full(shape, spec.fill, spec.dtype) if spec.fill else np.zeros(shape, spec.dtype)
        units = {self.key(spec, level, u): u for u in at.units(region) if self.non_empty.holds(level, u)}
        kept = {key: body for key in units if (body := self._unread.take(key)) is not None}
        missing = [key for key in units if key not in kept]
        for key, body in {**kept, **self.target.read_each(missing, self.layout(spec, level).largest)}.items():
            if body is None:
                raise TargetError(f"{self.target.url}/{key} is missing; build again to repair it", code="missing-chunk")
            try:
                whole = self.decode(spec, level, body)
            except ValueError as error:
                raise TargetError(
                    f"{self.target.url}/{key} is damaged ({error}); build again to repair it", code="damaged-chunk"
                ) from None
            inside = at.region(units[key])
            z, y, x = shape_of(inside)
            values[(..., *within(inside, region))] = whole[..., :z, :y, :x]
        return values

    def coarsened(self, values: Blocks, level: int, region: Region) -> Blocks:
        """Downsample a block of the parent level to a region of a level."""
        at = self.pyramid.levels[level]
        z, y, x = (axis.start for axis in region)
        return {
            spec.path: reduce(
                values[spec.path],
                at.factor,
                spec.rule,
                origin=(z, y, x),
                level_shape=at.shape,
                mask=None if spec.mask is None else values[spec.mask],
            )
            for spec in self.at(level)
        }

    def decode(self, spec: ArraySpec, level: int, body: bytes) -> NDArray[Any]:
        """Decode an object with its padding, shape (c, z, y, x) or (z, y, x)."""
        values = self.layout(spec, level).decode(body, complete=True)
        return values.reshape(values.shape[: len(spec.lead)] + self.pyramid.levels[level].unit)

    def validate(self, spec: ArraySpec, level: int, body: bytes) -> None:
        """Raise a ValueError if an object cannot be decoded."""
        self.decode(spec, level, body)

    def stored(self, spec: ArraySpec, lengths: Shape) -> tuple[int, ...]:
        """The stored shape of a part of an array, given its lengths along (z, y, x)."""
        return spec.shape(lengths)

    def _units(
        self, level: int, region: Region, values: Blocks, observe: Observer | None
    ) -> Iterator[tuple[str, bytes]]:
        at = self.pyramid.levels[level]
        layouts = {spec.path: self.layout(spec, level) for spec in self.at(level)}
        for unit in at.units(region):
            if not self.non_empty.holds(level, unit):
                continue
            inside = within(at.region(unit), region)
            for spec in self.at(level):
                part = values[spec.path][(..., *inside)]
                if observe is not None:
                    observe(spec, level, unit, part)
                z, y, x = part.shape[-3:]
                body = layouts[spec.path].encode(part.reshape(self.stored(spec, (z, y, x))))
                yield self.key(spec, level, unit), body


def _validate_fill(spec: ArraySpec) -> None:
    """Raise a ValueError if the fill value is no number of the dtype."""
    try:
        if not isinstance(spec.fill, int | float):
            raise ValueError(f"fill value {brief(spec.fill)}")
        np.dtype(spec.dtype).type(spec.fill)
    except OverflowError:
        raise ValueError(f"fill value {brief(spec.fill)} of {spec.dtype}") from None


def multiscale_of(target: Target, recorded: Ledger) -> Multiscale:
    """The multiscale that a ledger describes.

    Raises
    ------
    ValueError, KeyError, TypeError
        If its header describes no multiscale, or a subclass whose module is not imported.
    """
    described = (recorded.header or {})["multiscale"]
    written = {key for entry in recorded.done.values() for key in entry.written}
    kinds = [Multiscale.kinds[word] for word in described if word not in ("arrays", "levels", "encoding", "sparse")]
    return (kinds[0] if kinds else Multiscale).recorded(target, described, written)
