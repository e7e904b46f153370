"""The readers that are fuzzed: a function, and valid inputs to change. A further reader is one entry of `READERS`."""

from __future__ import annotations

import functools
import gzip
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lumps
from atlaszarr.engine.ome import Geometry

#: Contents of the files of an input, by their names.
Files = Mapping[str, bytes]
#: Most voxels that are read of an array whose metadata were accepted.
_MOST = 2**22
_GEOMETRY = Geometry((0.8, 0.8, 0.8))


@dataclass(frozen=True)
class Reader:
    """A reader of atlaszarr.

    Attributes
    ----------
    read : callable
        Reads the files of a folder.
    inputs : callable
        Returns valid inputs.
    changed : str
        Pattern of the names of the files that are changed.
    """

    read: Callable[[Path], Any]
    inputs: Callable[[], list[Files]]
    changed: str = ""


def _only(folder: Path) -> Path:
    (path,) = (path for path in folder.iterdir() if path.name != "spool")
    return path


def _files(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _made(make: Callable[[Path], Any]) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        return _files(Path(folder))


def _named(suffix: str, *bodies: bytes) -> list[Files]:
    return [{f"x.{suffix}": body} for body in bodies]


def _small() -> Any:
    return lumps.labels()[::4, ::4, ::4]


def _volume(folder: Path) -> None:
    from atlaszarr.reference_volumes import open_annotation, open_template

    (folder / "spool").mkdir()
    first = min(path for path in folder.iterdir() if path.name != "spool")
    for opening in (open_annotation, open_template):
        with opening(first, folder / "spool", voxel_size=800, orientation="asl") as volume:
            if volume.array.size < _MOST:
                volume.array.compute()
            else:
                volume.array[:1, :1, :1].compute()


def _nrrd(encoding: str) -> bytes:
    header = (
        "NRRD0005\ntype: uint32\ndimension: 3\nspace: left-posterior-superior\nsizes: 17 10 15\n"
        "space directions: (800,0,0) (0,800,0) (0,0,800)\nkinds: domain domain domain\nendian: little\n"
        f'encoding: {encoding}\nspace units: "um" "um" "um"\nspace origin: (0,0,0)\n\n'
    )
    body = np.ascontiguousarray(_small(), "<u4").tobytes("F")
    return header.encode() + (gzip.compress(body) if encoding == "gzip" else body)


def _nifti() -> bytes:
    import nibabel

    image = nibabel.Nifti1Image(_small().astype(np.int32), np.diag([0.8, 0.8, 0.8, 1]))
    image.header.set_xyzt_units("mm")
    return bytes(image.to_bytes())


def _tiff(**options: Any) -> bytes:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, _small(), **options)
    return file.getvalue()


def _metaimage() -> bytes:
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 800 800 800\nDimSize = 17 10 15\n"
        "ElementType = MET_UINT\nElementDataFile = LOCAL\n"
    )
    return header.encode() + np.ascontiguousarray(_small(), "<u4").tobytes("F")


def _image(folder: Path) -> None:
    from atlaszarr.engine.ome_reader import StoredImage
    from atlaszarr.stores.target import Target

    image = StoredImage.at(Target.of(_only(folder)))
    _ = image.geometries
    for level in range(min(len(image.paths), 4)):
        _read_array(image.labels(level))


def _array(folder: Path) -> None:
    from atlaszarr.engine.zarr_reader import StoredArray
    from atlaszarr.stores.target import Target

    _read_array(StoredArray.at(Target.of(_only(folder))))


def _read_array(array: Any) -> None:
    if int(np.prod(array.shape, dtype=object)) < _MOST:
        array[...]
    else:
        array[tuple(slice(0, 1) for _ in array.shape)]


@functools.cache
def _written(version: str = "0.5") -> Files:
    from atlaszarr.writing import write_multiscales

    image = _small().astype("uint16")
    options = {"labels": {"ten": image // 10}, "chunk": 8, "workers": 1, "ome_zarr": version, "geometry": _GEOMETRY}
    return _made(lambda folder: write_multiscales(image, folder / "x.ome.zarr", **options))


@functools.cache
def _annotation() -> Files:
    from atlaszarr.engine.label_index import add_index
    from atlaszarr.stores.target import Target
    from atlaszarr.writing import write_multiscales

    def make(folder: Path) -> None:
        write_multiscales(_small(), folder / "x.ome.zarr", rule="mode", chunk=8, workers=1, geometry=_GEOMETRY)
        add_index(Target.of(folder / "x.ome.zarr"))

    return _made(make)


def _arrays() -> list[Files]:
    import zarr
    from numcodecs import BZ2, LZ4, Blosc, GZip, Zlib, Zstd
    from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

    def made(**options: Any) -> Files:
        options = {"chunks": (8, 8, 8), **options}

        def make(folder: Path) -> None:
            zarr.create_array(folder / "x.zarr", shape=(17, 10, 15), dtype="uint32", **options)[:] = _small()

        return _made(make)

    two = [made(zarr_format=2, compressors=codec) for codec in (Zstd(), Blosc(), GZip(), Zlib(), BZ2(), LZ4(), None)]
    three = [
        made(compressors=codec) for codec in (ZstdCodec(), BloscCodec(), GzipCodec(), [ZstdCodec(), Crc32cCodec()])
    ]
    return [
        *two,
        *three,
        made(zarr_format=2, order="F", compressors=Zstd()),
        made(filters=[TransposeCodec(order=(2, 1, 0))]),
        made(chunks=(4, 4, 4), shards=(8, 8, 8)),
        made(chunks=(4, 4, 4), shards=(8, 8, 8), filters=[TransposeCodec(order=(2, 1, 0))]),
    ]


def _sign(target: Path) -> None:
    """Record the digest of a changed ledger in the root, so that its content is compared."""
    from atlaszarr.engine.ledger import COMPACT, digest

    try:
        root = json.loads((target / "zarr.json").read_bytes())
        lines = (target / COMPACT).read_bytes().removesuffix(b"\n").split(b"\n")[:-1]
        root["attributes"]["atlaszarr"]["ledger"] = digest(b"\n".join(lines))
        (target / "zarr.json").write_text(json.dumps(root))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass


def _verify(folder: Path) -> None:
    from atlaszarr import verify
    from atlaszarr.engine.finished_image import Finished
    from atlaszarr.stores.target import Target

    _sign(_only(folder))
    verify(_only(folder), deep=True)
    Finished.at(Target.of(_only(folder)))


def _resume(folder: Path) -> None:
    from atlaszarr.writing import write_multiscales

    image = _small().astype("uint16")
    write_multiscales(image, _only(folder), labels={"ten": image // 10}, chunk=8, workers=1, geometry=_GEOMETRY)


def _label_index(folder: Path) -> None:
    from atlaszarr import verify
    from atlaszarr.regions.volumes import region_volumes
    from atlaszarr.terminology.terminology import Terminology

    verify(_only(folder))
    region_volumes(_only(folder), Terminology.from_structure_graph(lumps.graph()))


def _build_json(folder: Path) -> None:
    from atlaszarr.atlas.manifest import manifests
    from atlaszarr.dataset_build.records import has_build
    from atlaszarr.stores.target import Target

    target = Target.of(folder)
    has_build(target, {"a": 1})
    list(manifests(target))


def _terminology(folder: Path) -> None:
    from atlaszarr.terminology.terminology import Terminology

    terminology = Terminology.read(_only(folder))
    terminology.to_csv()


def _csv() -> bytes:
    from atlaszarr.terminology.terminology import Terminology

    return Terminology.from_structure_graph(lumps.graph()).to_csv().encode()


def _answer(folder: Path) -> None:
    from atlaszarr.allen.records import SectionDataset
    from atlaszarr.allen.rma import envelope

    rows = [envelope(path.read_bytes(), "http://x")["msg"] for path in sorted(folder.iterdir()) if path.name != "spool"]
    if all(isinstance(row, list) and all(isinstance(record, dict) for record in row) for row in rows) and rows[0]:
        SectionDataset.from_json(rows[0][0], rows[1])


def _answers() -> list[Files]:
    from atlaszarr.testing.records import dataset_records, image_records

    chosen = next(record for record in dataset_records() if record["id"] == 74272479)
    images = [record for record in image_records() if record["data_set_id"] == 74272479][:6]

    def body(rows: list[Any]) -> bytes:
        return json.dumps({"success": True, "num_rows": len(rows), "total_rows": len(rows), "msg": rows}).encode()

    return [{"dataset.json": body([chosen]), "images.json": body(images)}]


def _field(folder: Path) -> None:
    from atlaszarr import Displacement

    field = Displacement.load(_only(folder))
    if field.shape[0] * field.shape[1] < _MOST:
        np.asarray(field.delta_x)


def _fields() -> list[Files]:
    from atlaszarr import Displacement

    values = np.arange(60, dtype="float32").reshape(5, 6, 2)
    npy = _made(lambda folder: np.save(folder / "x.npy", values))
    field = Displacement.from_deltas(values[..., 0], values[..., 1])
    return [npy, npy, _made(lambda folder: field.save(folder / "x.zarr"))]


def _location(folder: Path) -> None:
    from atlaszarr.stores.locations import normalize, overlap, shown

    text = _only(folder).read_bytes().decode(errors="surrogateescape")
    normal = normalize(text)
    shown(text)
    overlap(normal, "/tmp/x")
    overlap(normal, "s3://bucket/x")


_LOCATIONS = (
    b"/tmp/x/../y", b"~/x.zarr", b"file:///tmp/x", b"s3://bucket/prefix/x.zarr?versionId=1#f", b"dir::s3://bucket/x",
    b"https://user:secret@host:80/path?sig=1", b"simplecache::http://host/x", b"abfs://container@account.x/y", b"C:\\x",
)  # fmt: skip

_MANIFEST = {"name": "a", "version": "1", "state": "finished", "sources": {}, "images": [], "files": {}}

READERS: Mapping[str, Reader] = {
    "nrrd": Reader(_volume, lambda: _named("nrrd", _nrrd("raw"), _nrrd("gzip"))),
    "nifti": Reader(_volume, lambda: [*_named("nii", _nifti()), *_named("nii.gz", gzip.compress(_nifti()))]),
    "tiff": Reader(
        _volume, lambda: _named("tif", _tiff(), _tiff(compression="zlib"), _tiff(imagej=False, tile=(16, 16)))
    ),
    "metaimage": Reader(_volume, lambda: _named("mha", _metaimage())),
    "image": Reader(_image, lambda: [_written("0.5"), _written("0.4"), _written("0.6")]),
    "array": Reader(_array, _arrays),
    "ledger": Reader(_verify, lambda: [_written()], r"ledger\.jsonl$"),
    "verify": Reader(_verify, lambda: [_written(), _written("0.4")]),
    "resume": Reader(_resume, lambda: [_written()]),
    "label index": Reader(_label_index, lambda: [_annotation()], r"\.parquet$"),
    "build.json": Reader(
        _build_json,
        lambda: [
            {"atlaszarr/build.json": b'{"request": {"a": 1}}'},
            {"atlaszarr/a-1.json": json.dumps(_MANIFEST).encode()},
        ],
    ),
    "terminology": Reader(
        _terminology,
        lambda: [*_named("json", json.dumps({"success": True, "msg": lumps.graph()}).encode()), *_named("csv", _csv())],
    ),
    "answer": Reader(_answer, _answers),
    "field": Reader(_field, _fields),
    "location": Reader(_location, lambda: [{"x.txt": body} for body in _LOCATIONS]),
}
