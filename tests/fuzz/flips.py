"""Flip single bits of cache entries, targets and sources that have a checksum or a ledger, and see what happens.

    python tests/fuzz/flips.py [N] [SEED]

Each flip must change nothing, be repaired, or be named by an error, a warning or `verify`; in a source without a
checksum it may also change the digest that an atlas records of the source. Prints the counts, and each flip that was
silent; the exit status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import readers  # noqa: E402

from atlaszarr import verify  # noqa: E402
from atlaszarr.allen.cache import ImageCache  # noqa: E402
from atlaszarr.errors import AtlaszarrError, AtlaszarrWarning  # noqa: E402
from atlaszarr.reference_volumes import open_annotation  # noqa: E402
from atlaszarr.writing import write_multiscales  # noqa: E402

NOTHING, REPAIRED, NAMED, DIGEST, SILENT = "changes nothing", "repaired", "named", "in the digest", "silent"
OUTCOMES = (NOTHING, REPAIRED, NAMED, DIGEST, SILENT)
_OPTIONS: dict[str, Any] = {"chunk": 8, "workers": 1, "geometry": readers._GEOMETRY}


def flip(path: Path, rng: random.Random, first: int = 0) -> int:
    """Flip a bit of a file, from a byte on; returns its number."""
    body = bytearray(path.read_bytes())
    bit = rng.randrange(8 * first, 8 * len(body))
    body[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(body))
    return bit


def _write(target: Path) -> str:
    image = readers._small().astype("uint16")
    return write_multiscales(image, target, labels={"ten": image // 10}, **_OPTIONS).state


def _contents(target: Path) -> dict[str, bytes]:
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


@contextmanager
def _naming() -> Iterator[list[str]]:
    """What is named: warnings, and the error that ends the context."""
    named: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield named
        except AtlaszarrError as error:
            named.append(str(error))
    named += [str(warning.message) for warning in caught if issubclass(warning.category, AtlaszarrWarning)]


def _same_json(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


class Finished:
    """A finished target: `verify` names the flip, and the same call repairs it."""

    def __init__(self, folder: Path) -> None:
        self.intact = folder / "intact.ome.zarr"
        _write(self.intact)
        self.before = _contents(self.intact)

    def one(self, folder: Path, rng: random.Random) -> tuple[str, str]:
        """Flip a bit of a copy."""
        target = Path(shutil.copytree(self.intact, folder / "x.ome.zarr"))
        key = rng.choice(sorted(self.before))
        bit = flip(target / key, rng)
        where, changed = f"bit {bit} of {key}", (target / key).read_bytes()
        with _naming() as named:
            named.extend(map(str, verify(target, deep=True).defects))
        if not named:
            is_same = key.endswith(".json") and _same_json(changed, self.before[key])
            return (NOTHING if is_same else SILENT), where
        with _naming() as refused:
            _write(target)
        if refused:
            return NAMED, where
        after = _contents(target)
        same = after.keys() == self.before.keys() and all(
            after[name] == body or _same_json(after[name], body) for name, body in self.before.items()
        )
        return (REPAIRED if same else SILENT), where


class Unfinished(Finished):
    """A target whose build was stopped after its chunks: a resume repairs the flip."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.chunks = sorted(key for key in self.before if "/c/" in key)

    def one(self, folder: Path, rng: random.Random) -> tuple[str, str]:
        """Flip a bit of a chunk of a copy."""
        target = Path(shutil.copytree(self.intact, folder / "x.ome.zarr"))
        root = json.loads((target / "zarr.json").read_bytes())
        own = root["attributes"]["atlaszarr"]
        root["attributes"] = {"atlaszarr": {**own, "state": "unfinished"}}
        (target / "zarr.json").write_text(json.dumps(root))
        key = rng.choice(self.chunks)
        where = f"bit {flip(target / key, rng)} of {key}"
        with _naming() as refused:
            _write(target)
        if refused:
            return NAMED, where
        after = _contents(target)
        return (REPAIRED if all(after[key] == self.before[key] for key in self.chunks) else SILENT), where


class Cache:
    """A cached image: a flip is a miss."""

    def __init__(self, folder: Path) -> None:
        self.body = random.Random(0).randbytes(2000)

    def one(self, folder: Path, rng: random.Random) -> tuple[str, str]:
        """Flip a bit of an entry."""
        cache = ImageCache(folder / "cache")
        cache.put("key", self.body)
        (entry,) = (path for path in (folder / "cache").rglob("*") if path.is_file())
        where = f"bit {flip(entry, rng)}"
        found = cache.get("key", 2000)
        return (REPAIRED if found is None else NOTHING if found == self.body else SILENT), where


class Source:
    """A file or an OME-Zarr that is read: its values are the same, or it is refused.

    Parameters
    ----------
    files : dict
        Its files, by their names.
    first : callable
        The first byte that a checksum covers, by the name and body of a file; None for a file that none covers.
    is_digested : bool
        Whether there is no checksum, so that a flip may also change the digest of the source.
    """

    def __init__(
        self, files: readers.Files, first: Callable[[str, bytes], int | None], is_digested: bool = False
    ) -> None:
        self.is_digested = is_digested
        self.files = dict(files)
        self._size = None if "x.ome.zarr/zarr.json" in self.files else 800
        self.covered = {name: start for name, body in files.items() if (start := first(name, body)) is not None}
        with tempfile.TemporaryDirectory() as folder:
            self.intact = self.read(self._made(Path(folder)))

    def _made(self, folder: Path) -> Path:
        for name, body in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(body)
        return folder / next(iter(self.files)).split("/")[0]

    def read(self, path: Path) -> tuple[Any, Any, Any]:
        """The values, the geometry, and what an atlas records of the source."""
        with (
            tempfile.TemporaryDirectory() as spool,
            open_annotation(path, spool, voxel_size=self._size, orientation="asl") as volume,
        ):
            return volume.array.compute(), volume.voxel_size, volume.identity()

    def one(self, folder: Path, rng: random.Random) -> tuple[str, str]:
        """Flip a bit of a copy."""
        path = self._made(folder)
        name = rng.choice(sorted(self.covered))
        where = f"bit {flip(folder / name, rng, self.covered[name])} of {name}"
        with _naming() as named:
            values, geometry, identity = self.read(path)
        if named:
            return NAMED, where
        same = np.array_equal(values, self.intact[0]) and geometry == self.intact[1]
        if not same and self.is_digested and identity != self.intact[2]:
            return DIGEST, where
        return (NOTHING if same else SILENT), where


def _gzip_body(_: str, body: bytes) -> int:
    return body.index(b"\x1f\x8b")


def _zlib_body(_: str, body: bytes) -> int:
    return body.index(b"LOCAL\n") + 6


def _compressed(body: bytes) -> bytes:
    """A MetaImage with its voxels in zlib, which ends in an Adler-32."""
    first = _zlib_body("", body)
    header = body[:first].replace(b"CompressedData = False", b"CompressedData = True")
    return header + zlib.compress(body[first:])


def _voxels(_: str, body: bytes) -> int:
    """The first voxel of a file whose header is before all voxels, or of a TIFF of tifffile."""
    return len(body) - readers._small().nbytes if not body.startswith(b"II") else 512


def kinds(folder: Path) -> dict[str, Any]:
    """Everything whose bits are flipped."""
    import gzip

    return {
        "cache": Cache(folder),
        "target": Finished(folder / "target"),
        "unfinished target": Unfinished(folder / "unfinished"),
        "OME-Zarr with a ledger": Source(readers._annotation(), lambda name, _: None if ".parquet" in name else 0),
        "metadata with a ledger": Source(
            readers._annotation(), lambda name, _: 0 if name.endswith("zarr.json") else None
        ),
        "crc32c shards": Source(sharded(), lambda name, _: 0 if "/c/" in name else None),
        "gzip NRRD": Source({"x.nrrd": readers._nrrd("gzip")}, _gzip_body),
        "gzip NIfTI": Source({"x.nii.gz": gzip.compress(readers._nifti())}, _gzip_body),
        "zlib MetaImage": Source({"x.mha": _compressed(readers._metaimage())}, _zlib_body),
        "raw MetaImage": Source({"x.mha": readers._metaimage()}, _voxels, is_digested=True),
        "raw NRRD": Source({"x.nrrd": readers._nrrd("raw")}, _voxels, is_digested=True),
        "TIFF": Source({"x.tif": readers._tiff(metadata=None)}, _voxels, is_digested=True),
        "OME-Zarr without a ledger": Source(plain(), lambda name, _: 0 if "/c/" in name else None, is_digested=True),
    }


def plain() -> readers.Files:
    """An OME-Zarr without a checksum or a ledger, as another program writes it."""

    def make(folder: Path) -> None:
        import zarr

        write_multiscales(readers._small(), folder / "x.ome.zarr", rule="mode", **_OPTIONS)
        shutil.rmtree(folder / "x.ome.zarr/atlaszarr")
        for level in sorted((folder / "x.ome.zarr").glob("[0-9]")):
            array = zarr.open_array(level)
            values, chunks, names = array[:], array.chunks, array.metadata.dimension_names
            shutil.rmtree(level)
            options = {"chunks": chunks, "dtype": values.dtype, "dimension_names": names, "compressors": None}
            zarr.create_array(level, shape=values.shape, **options)[:] = values

    return readers._made(make)


def sharded() -> readers.Files:
    """An OME-Zarr in shards, as another program writes it: without a ledger."""

    def make(folder: Path) -> None:
        write_multiscales(readers._small(), folder / "x.ome.zarr", rule="mode", **{**_OPTIONS, "chunk": 4, "shard": 8})
        shutil.rmtree(folder / "x.ome.zarr/atlaszarr")

    return readers._made(make)


def main() -> int:
    """Read the arguments, flip, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("count", nargs="?", type=int, default=1000)
    parser.add_argument("seed", nargs="?", type=int, default=0)
    options = parser.parse_args()
    count, seed = options.count, options.seed
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        (Path(folder) / "kinds").mkdir()
        made = kinds(Path(folder) / "kinds")
        for position, (name, kind) in enumerate(made.items()):
            counts: Counter[str] = Counter()
            for number in range(position, count, len(made)):
                place = Path(folder, "one")
                place.mkdir()
                outcome, where = kind.one(place, random.Random(f"{seed} {number}"))
                shutil.rmtree(place)
                counts[outcome] += 1
                if outcome == SILENT:
                    print(f"{number} {name}: {where}", flush=True)
            print(f"{name:24}" + "".join(f"{counts[o]:>6} {o}" for o in OUTCOMES), flush=True)
            total += counts
    print(f"{'all':24}" + "".join(f"{total[o]:>6} {o}" for o in OUTCOMES))
    return 1 if total[SILENT] else 0


if __name__ == "__main__":
    sys.exit(main())
