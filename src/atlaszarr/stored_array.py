"""One array of an OME-Zarr, read unit by unit: a unit is what lies in one object, a chunk or a shard.

Chunks that are coded as atlaszarr codes its own are decoded directly, all others by zarr. What is read is the same.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .encoding import Encoding
from .errors import InputError, TargetError
from .lengths import Shape
from .pyramid import Index, Level, everywhere
from .scheduling import usable_cores
from .store import Target

_Result = TypeVar("_Result")
#: Threads that wait for a store that is not a local disk.
_WAITING = 8
#: Voxels of a shard that is read as a whole; of a larger one, chunk by chunk.
_LARGEST = 2**25


@dataclass(frozen=True)
class StoredArray:
    """An array of labels; axes before the last three have length 1. Small, picklable.

    Attributes
    ----------
    target : Target
        Of the image.
    path : str
        Within it.
    level : Level
        Its shape, and what is read at least and at once along (z, y, x).
    dtype : str
    fill : int
    lead : int
        How many axes are before the last three.
    prefix, separator : str
        Of the keys of its objects.
    encoding : Encoding or None
        How its objects are coded, if that is one of ours.
    """

    target: Target
    path: str
    level: Level
    dtype: str
    fill: int
    lead: int
    prefix: str
    separator: str
    encoding: Encoding | None

    @classmethod
    def at(cls, target: Target, path: str, whole: bool) -> StoredArray:
        """The array at a path in a target.

        Parameters
        ----------
        target : Target
        path : str
        whole : bool
            Whether a shard holds all its chunks, as those of atlaszarr do.

        Raises
        ------
        InputError
            If there is none, or one that holds no labels.
        """
        for name, reader in (("zarr.json", _of_v3), (".zarray", _of_v2)):
            if (body := target.read(f"{path}/{name}")) is None:
                continue
            try:
                shape, unit, chunk, dtype, fill, prefix, separator, encoding = reader(json.loads(body))
                if np.dtype(dtype).kind not in "iub":
                    raise InputError(f"{target.url}/{path} holds {dtype}, not labels; labels are integers")
                if any(n != 1 for n in shape[:-3]) or len(shape) < 3:
                    raise InputError(f"{target.url}/{path} has shape {shape}; labels have z, y, x")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{target.url}/{path}/{name} cannot be read as an array ({error!r})") from None
            if unit != chunk and not whole:
                encoding = None
            if encoding is None and math.prod(unit) > _LARGEST:
                unit = chunk
            level = Level(_last(shape), _last(chunk), _last(unit))
            return cls(target, path, level, dtype, int(fill or 0), len(shape) - 3, prefix, separator, encoding)
        raise InputError(f"{target.url}/{path} is named in the metadata and is no array; build or fetch it again")

    @property
    def units(self) -> list[Index]:
        """All units, in C order."""
        return list(self.level.units(everywhere(self.level.shape)))

    def key(self, unit: Index) -> str:
        """The key of a unit's object in the target."""
        return f"{self.path}/{self.prefix}" + self.separator.join(map(str, (0,) * self.lead + unit))

    def read(self, units: Sequence[Index]) -> Iterator[tuple[Index, NDArray[Any]]]:
        """Units with their voxels, cut at the array's end.

        Raises
        ------
        TargetError
            If one cannot be read.
        """
        if self.encoding is None:
            yield from ((unit, self._by_zarr(unit)) for unit in units)
            return
        keys = {self.key(unit): unit for unit in units}
        for key, body in self.target.read_each(keys).items():
            region = self.level.region(keys[key])
            z, y, x = (axis.stop - axis.start for axis in region)
            if body is None:
                yield keys[key], np.full((z, y, x), self.fill, self.dtype)
                continue
            lead = (1,) * self.lead
            try:
                whole = self.encoding.decode(
                    body, lead + self.level.unit, lead + self.level.chunk, np.dtype(self.dtype)
                )
            except ValueError as error:
                raise TargetError(f"{self.target.url}/{key} is damaged ({error}); build or fetch it again") from None
            yield keys[key], whole.reshape(self.level.unit)[:z, :y, :x]

    def each(self, units: Iterable[Index], function: Callable[[Index, NDArray[Any]], _Result]) -> Iterator[_Result]:
        """What a function makes of units, several at a time: on threads of this process."""
        local = self.target.is_local
        batches = _batches(units, 4 if local else 16)
        threads = usable_cores() if local else max(_WAITING, usable_cores())

        def work(batch: list[Index]) -> list[_Result]:
            return [function(unit, values) for unit, values in self.read(batch)]

        with ThreadPoolExecutor(threads, "atlaszarr-read") as pool:
            for found in pool.map(work, batches):
                yield from found

    def _by_zarr(self, unit: Index) -> NDArray[Any]:
        with self.target.reporting("read"):
            try:
                found = self._zarr[(0,) * self.lead + self.level.region(unit)]
            except (ValueError, RuntimeError) as error:
                raise TargetError(f"{self.target.url}/{self.path}, chunk {unit}, cannot be read: {error}") from None
        return np.asarray(found)

    @cached_property
    def _zarr(self) -> Any:
        import zarr

        options = json.loads(self.target.storage_options)
        if self.target.is_local:
            store: Any = zarr.storage.LocalStore(self.target.url, read_only=True)
        else:
            store = zarr.storage.FsspecStore.from_url(self.target.url, storage_options=options, read_only=True)
        return zarr.open_array(store, path=self.path, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_zarr"}


def _batches(units: Iterable[Index], size: int) -> Iterator[list[Index]]:
    rest = iter(units)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def _last(lengths: Sequence[int]) -> Shape:
    z, y, x = map(int, lengths[-3:])
    return z, y, x


_Described = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], str, Any, str, str, Encoding | None]


def _of_v3(stated: Mapping[str, Any]) -> _Described:
    shape = tuple(stated["shape"])
    if stated["chunk_grid"]["name"] != "regular":
        raise ValueError("chunks of different shapes")
    unit = chunk = tuple(stated["chunk_grid"]["configuration"]["chunk_shape"])
    codecs = stated["codecs"]
    if [codec["name"] for codec in codecs] == ["sharding_indexed"]:
        shard = codecs[0]["configuration"]
        chunk, codecs = tuple(shard["chunk_shape"]), shard["codecs"]
        if [codec["name"] for codec in shard["index_codecs"]] != ["bytes", "crc32c"] or (
            shard.get("index_location", "end") != "end"
        ):
            codecs = ()
    keys = stated["chunk_key_encoding"]
    separator = keys.get("configuration", {}).get("separator", "/" if keys["name"] == "default" else ".")
    prefix = f"c{separator}" if keys["name"] == "default" else ""
    return shape, unit, chunk, stated["data_type"], stated["fill_value"], prefix, separator, _coded(codecs)


def _coded(codecs: Sequence[Mapping[str, Any]]) -> Encoding | None:
    """The encoding that codecs of zarr v3 amount to, if one of ours decodes them."""
    names = [codec["name"] for codec in codecs]
    if names[:1] != ["bytes"] or codecs[0].get("configuration", {}).get("endian", "little") != "little":
        return None
    if names[1:] in (["zstd"], ["blosc"]):
        return Encoding(names[1], 2)  # as of v2, where no checksum follows
    return Encoding(names[1], 3) if names[1:] in (["zstd", "crc32c"], ["blosc", "crc32c"]) else None


def _of_v2(stated: Mapping[str, Any]) -> _Described:
    shape, chunk = tuple(stated["shape"]), tuple(stated["chunks"])
    compressor, dtype = stated["compressor"] or {}, np.dtype(stated["dtype"])
    plain = stated["order"] == "C" and not stated.get("filters") and dtype.str[0] in "<|"
    ours = plain and compressor.get("id") in ("zstd", "blosc")
    encoding = Encoding(compressor["id"], 2) if ours else None
    separator = stated.get("dimension_separator", ".")
    return shape, chunk, chunk, dtype.name, stated["fill_value"], "", separator, encoding
