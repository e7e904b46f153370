"""Aligned arrays of one image, at every level of a pyramid, as objects in a target. Serves any image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..boxes import Index, Region, Shape, shape_of, within
from ..errors import TargetError
from ..stores.target import Target
from .codecs import ArrayLayout, Encoding
from .downsampling import Rule, reduce
from .pyramid import NonEmptyChunks, Pass, Pyramid

if TYPE_CHECKING:
    from .checks import Defect
    from .ledger import Ledger, Task

#: By the path of its array, values of a block: (c, z, y, x) or (z, y, x).
Blocks = Mapping[str, NDArray[Any]]
#: By its key, size and digest of an object that was written.
Written = dict[str, tuple[int, str]]
#: Is shown what an object holds, without padding: the array, the level, and which object.
Observer = Callable[["ArraySpec", int, Index, NDArray[Any]], None]


@dataclass(frozen=True)
class ArraySpec:
    """One of the aligned arrays.

    Attributes
    ----------
    path : str
        Of its group in the target: "" for the root. Level ``k`` is the array ``k`` in it.
    dtype : str
    axes : tuple of str
        ``z``, ``y``, ``x`` or the last two, behind a ``c`` where there are channels.
    channels : int
        Length of ``c``; a chunk holds all of them.
    fill : int or float
        What lies in objects that geometry leaves empty, and beyond the edge of the array.
    rule : str
        How a voxel comes from those of the parent level: see `atlaszarr.engine.downsampling.reduce`.
    mask : str or None
        Path of the array that is not 0 where this one counts in a mean.
    levels : int or None
        How many of the levels it has, from the first; None for all.
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
        """Lengths of the axes that are not of space."""
        return (self.channels,) if "c" in self.axes else ()

    @property
    def dimensions(self) -> int:
        """How many axes are of space."""
        return len(self.axes) - len(self.lead)

    def shape(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of an array, or of a part of it, with such lengths along (z, y, x)."""
        return self.lead + lengths[3 - self.dimensions :]

    def name(self, level: int) -> str:
        """The path of a level's array."""
        return f"{self.path}/{level}".lstrip("/")


@dataclass(frozen=True)
class Multiscale:
    """Small, picklable; silent about the target's credentials.

    A subclass is known in a ledger by its `kind`, a key of what it adds to `to_json`.

    Attributes
    ----------
    target : Target
    arrays : tuple of ArraySpec
        All over the same voxels, and empty in the same places.
    non_empty : NonEmptyChunks
        The objects that hold anything.
    encoding : Encoding
    """

    target: Target
    arrays: tuple[ArraySpec, ...]
    non_empty: NonEmptyChunks
    encoding: Encoding = field(default_factory=Encoding)
    #: Subclasses by their kind, as far as their modules are imported.
    kinds: ClassVar[dict[str, type[Multiscale]]] = {}

    def __init_subclass__(cls, *, kind: str) -> None:
        """Make a kind of multiscale known to `recorded`."""
        cls.kinds[kind] = cls

    @classmethod
    def recorded(cls, target: Target, described: Mapping[str, Any], written: Container[str], **own: Any) -> Self:
        """The inverse of `to_json`.

        Parameters
        ----------
        target : Target
        described : mapping
        written : container of str
            Keys of the objects that are recorded: the others of level 0 are empty.
        **own
            Attributes that a subclass adds.
        """
        arrays = tuple(ArraySpec(**{**spec, "axes": tuple(spec["axes"])}) for spec in described["arrays"])
        pyramid = Pyramid.from_json(described["levels"])
        whole = cls(target, arrays, NonEmptyChunks(pyramid), Encoding(**described["encoding"]), **own)
        base = frozenset(unit for unit in whole.non_empty.units(0) if whole.key(arrays[0], 0, unit) in written)
        return replace(whole, non_empty=NonEmptyChunks(pyramid, base))

    def contents(self, request: Mapping[str, Any], found: Ledger, tasks: Sequence[Task]) -> Iterator[Defect] | None:
        """Compare what some tasks wrote with what it was made from; None to compare each level with the one before."""
        return None

    @property
    def pyramid(self) -> Pyramid:
        """The levels."""
        return self.non_empty.pyramid

    @property
    def objects(self) -> int:
        """Objects that hold voxels, over all arrays and levels."""
        levels = range(len(self.pyramid.levels))
        return sum(len(self.at(level)) * self.non_empty.count(level) for level in levels)

    def at(self, level: int) -> tuple[ArraySpec, ...]:
        """The arrays that have a level."""
        return tuple(spec for spec in self.arrays if spec.levels is None or level < spec.levels)

    def to_json(self) -> dict[str, Any]:
        """All but the target and the non-empty chunks, in JSON's types: what `verify` has to know."""
        return {
            "arrays": [asdict(spec) for spec in self.arrays],
            "levels": self.pyramid.to_json(),
            "encoding": asdict(self.encoding),
        }

    def documents(self) -> dict[str, bytes]:
        """The metadata of every array, by key."""
        found: dict[str, bytes] = {}
        known: dict[tuple[ArraySpec, int], dict[str, bytes]] = {}  # the images of a collection share theirs
        for spec, level, path in self.paths():
            if (spec, level) not in known:
                known[spec, level] = self.layout(spec, level).documents(spec.axes)
            found |= {f"{path}/{name}": body for name, body in known[spec, level].items()}
        return found

    def layout(self, spec: ArraySpec, level: int) -> ArrayLayout:
        """The objects of a level of an array, and their codecs."""
        at = self.pyramid.levels[level]
        shape, chunk, unit = (self.stored(spec, lengths) for lengths in (at.shape, at.chunk, at.unit))
        return self.encoding.layout(shape, chunk, spec.dtype, spec.fill, unit)

    def paths(self) -> Iterator[tuple[ArraySpec, int, str]]:
        """Every array: what it is, its level, its path."""
        for level in range(len(self.pyramid.levels)):
            for spec in self.at(level):
                yield spec, level, spec.name(level)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The beginnings of all keys that belong to the arrays."""
        return tuple(f"{path}/" for _, _, path in self.paths())

    def group(self, spec: ArraySpec, _block: Index, /) -> str:
        """The path of the group whose metadata speak of a block of an array."""
        return spec.path

    def key(self, spec: ArraySpec, level: int, unit: Index) -> str:
        """The key of an object."""
        lead = "c/" if self.encoding.zarr_format == 3 else ""
        channel = "0/" if "c" in spec.axes else ""
        return f"{spec.name(level)}/{lead}{channel}" + "/".join(map(str, unit[3 - spec.dimensions :]))

    def write(self, step: Pass, index: Index, values: Blocks, observe: Observer | None = None) -> Written:
        """Write a block: every object that it holds, of every level that the pass writes.

        Parameters
        ----------
        step : Pass
        index : tuple of int
            Of the block.
        values : mapping
            The block at the level that it is cut from.
        observe : callable, optional
            Called with every object before it is encoded.

        Returns
        -------
        dict
            What was written, by key: size and digest.
        """
        written: Written = {}
        self.target.write_all(self._noted(self._encoded(step, index, values, observe), written))
        return written

    def read(self, level: int, region: Region) -> Blocks:
        """Read a region of a level, as whole objects.

        Raises
        ------
        TargetError
            If an object is missing, or is not what was written.
        """
        return {spec.path: self.read_array(spec, level, region) for spec in self.at(level)}

    def read_array(self, spec: ArraySpec, level: int, region: Region) -> NDArray[Any]:
        """Read a region of a level of one array, as whole objects.

        Raises
        ------
        TargetError
            If an object is missing, or is not what was written.
        """
        at = self.pyramid.levels[level]
        values = np.full(spec.lead + shape_of(region), spec.fill, spec.dtype)
        units = {self.key(spec, level, u): u for u in at.units(region) if self.non_empty.holds(level, u)}
        for key, body in self.target.read_each(units).items():
            if body is None:
                raise TargetError(f"{self.target.url}/{key} is missing; build again to repair it")
            try:
                whole = self.decode(spec, level, body)
            except ValueError as error:
                raise TargetError(f"{self.target.url}/{key} is damaged ({error}); build again to repair it") from None
            there = at.region(units[key])
            z, y, x = shape_of(there)
            values[(..., *within(there, region))] = whole[..., :z, :y, :x]
        return values

    def coarsened(self, values: Blocks, level: int, region: Region) -> Blocks:
        """What a block of the level before makes of a region of this one."""
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
                fill=spec.fill,
            )
            for spec in self.at(level)
        }

    def decode(self, spec: ArraySpec, level: int, body: bytes) -> NDArray[Any]:
        """The voxels of an object with its padding: (c, z, y, x) or (z, y, x)."""
        values = self.layout(spec, level).decode(body, complete=True)
        return values.reshape(values.shape[: len(spec.lead)] + self.pyramid.levels[level].unit)

    def stored(self, spec: ArraySpec, lengths: Shape) -> tuple[int, ...]:
        """The shape that a part of an array, with such lengths along (z, y, x), is stored in."""
        return spec.shape(lengths)

    def _encoded(
        self, step: Pass, index: Index, values: Blocks, observe: Observer | None
    ) -> Iterator[tuple[str, bytes]]:
        if step.computes:
            yield from self._units(step.source, self.pyramid.region(step, index), values, observe)
        for level in range(step.source + 1, step.writes[-1] + 1):
            region = self.pyramid.region(step, index, level)
            values = self.coarsened(values, level, region)
            yield from self._units(level, region, values, observe)

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

    @staticmethod
    def _noted(bodies: Iterator[tuple[str, bytes]], written: Written) -> Iterator[tuple[str, bytes]]:
        for key, body in bodies:
            written[key] = (len(body), digest(body))
            yield key, body


def digest(body: bytes) -> str:
    """BLAKE2b of 128 bits, as ``b2sum -l 128`` prints it."""
    return hashlib.blake2b(body, digest_size=16).hexdigest()
