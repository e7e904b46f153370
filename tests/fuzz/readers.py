"""The readers that are fuzzed: a function, and valid inputs to change. A further reader is one entry of `READERS`."""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import http.server
import io
import json
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import institute_assets
import lumps
import tiny_atlas
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import AtlaszarrError

#: Contents of the files of an input, by their names.
Files = Mapping[str, bytes]
#: The section dataset whose records are changed.
_DATASET = 74272479
#: One of its section images.
_IMAGE = 74081149
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


def _each(calls: Iterable[Callable[[], Any]]) -> None:
    """Make every call; then raise the error of several lines, or the last one if all were refused."""
    errors: list[AtlaszarrError] = []
    count = 0
    for call in calls:
        count += 1
        try:
            call()
        except AtlaszarrError as error:
            errors.append(error)
    errors.sort(key=lambda error: "\n" in str(error))
    if errors and (len(errors) == count or "\n" in str(errors[-1])):
        raise errors[-1]


def _volume(folder: Path) -> None:
    from atlaszarr.reference_volumes import open_annotation, open_template

    (folder / "spool").mkdir()
    # A header comes before its voxels: x.hdr, x.mhd, x.nhdr before x.img, x.raw, x.zraw.
    first = min(path for path in folder.iterdir() if path.name != "spool")

    def read(opening: Callable[..., Any], size: float | None) -> None:
        with opening(first, folder / "spool", voxel_size=size, orientation="asl") as volume:
            _compute(volume.array)

    options = ((open_annotation, 800), (open_template, 800), (open_annotation, None))
    _each(functools.partial(read, *one) for one in options)


def _compute(array: Any) -> None:
    if array.size < _MOST:
        array.compute()
    else:
        array[:1, :1, :1].compute()


def _nrrd(encoding: str, *fields: str, body: bytes | None = None) -> bytes:
    """An NRRD; `fields` replace those of the same name or are added, and "name: " alone removes one."""
    given = {
        "type": "uint32",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "17 10 15",
        "space directions": "(800,0,0) (0,800,0) (0,0,800)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": encoding,
        "space units": '"um" "um" "um"',
        "space origin": "(0,0,0)",
    }
    given |= dict(field.split(": ", 1) for field in fields)
    header = "".join(f"{name}: {value}\n" for name, value in given.items() if value)
    voxels = np.ascontiguousarray(_small(), "<u4").tobytes("F") if body is None else body
    coded = {"gzip": gzip.compress, "bzip2": bz2.compress}.get(encoding, bytes)(voxels)
    return b"NRRD0005\n" + header.encode() + b"\n" + coded


def _text() -> bytes:
    return " ".join(map(str, _small().ravel(order="F").tolist())).encode()


def _nrrds() -> list[Files]:
    detached = _nrrd("gzip", "data file: x.raw.gz", "byte skip: 3", body=b""), gzip.compress(b"abc" + _voxels())
    spacings = ("space: ", "space directions: ", "space origin: ", "space units: ")
    return [
        *_named("nrrd", _nrrd("raw"), _nrrd("gzip"), _nrrd("ascii", body=_text()), _nrrd("bzip2")),
        *_named("nrrd", _nrrd("raw", "byte skip: -1"), _nrrd("raw", "line skip: 1", body=b"a line\n" + _voxels())),
        *_named("nrrd", _nrrd("raw", *spacings, "spacings: 800 800 800", 'units: "um" "um" "um"')),
        *_named("nrrd", _nrrd("raw", "dimension: 4", "sizes: 1 17 10 15", "kinds: vector domain domain domain",
                              "space directions: none (800,0,0) (0,800,0) (0,0,800)")),
        {"x.nhdr": _detached(detached[0]), "x.raw.gz": detached[1]},
    ]  # fmt: skip


def _detached(body: bytes) -> bytes:
    """A header without the voxels that follow it."""
    return body.partition(b"\n\n")[0] + b"\n"


def _voxels() -> bytes:
    return np.ascontiguousarray(_small(), "<u4").tobytes("F")


def _nifti(kind: str = "Nifti1Image") -> bytes:
    import nibabel

    image = getattr(nibabel, kind)(_small().astype(np.int32), np.diag([0.8, 0.8, 0.8, 1]))
    image.header.set_xyzt_units("mm")
    return bytes(image.to_bytes())


def _niftis() -> list[Files]:
    import nibabel

    def pair(folder: Path) -> None:
        image = nibabel.Nifti1Pair(_small().astype(np.int32), np.diag([0.8, 0.8, 0.8, 1]))
        nibabel.save(image, folder / "x.hdr")

    return [
        *_named("nii", _nifti(), _nifti("Nifti2Image")),
        *_named("nii.gz", gzip.compress(_nifti())),
        _made(pair),
    ]


def _tiff(**options: Any) -> bytes:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, _small().astype("uint16" if options.get("imagej") else "uint32"), **options)
    return file.getvalue()


def _metaimage(*fields: str, body: bytes | None = None) -> bytes:
    """A MetaImage; `fields` replace those of the same name or are added."""
    given = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "0.8 0.8 0.8",
        "DimSize": "17 10 15",
        "ElementType": "MET_UINT",
    }
    given |= dict(field.split(" = ", 1) for field in fields)
    given["ElementDataFile"] = given.pop("ElementDataFile", "LOCAL")  # the last field
    header = "".join(f"{name} = {value}\n" for name, value in given.items())
    return header.encode() + (_voxels() if body is None else body)


def _metaimages() -> list[Files]:
    compressed = zlib.compress(_voxels())
    zipped = "CompressedData = True", f"CompressedDataSize = {len(compressed)}"
    return [
        *_named("mha", _metaimage(), _metaimage(*zipped, body=compressed)),
        *_named("mha", _metaimage("BinaryData = False", body=_text())),
        {"x.mhd": _metaimage("ElementDataFile = x.raw", "HeaderSize = -1", body=b""), "x.raw": _voxels()},
        {"x.mhd": _metaimage(*zipped, "ElementDataFile = x.zraw", body=b""), "x.zraw": compressed},
    ]


def _others() -> list[Files]:
    """Files of other formats, which are named."""
    npy = io.BytesIO()
    np.save(npy, _small())
    mgh = struct.pack(">7i", 1, 17, 10, 15, 1, 1, 0).ljust(284, b"\0") + _voxels()
    analyze = struct.pack("<i", 348).ljust(348, b"\0")
    bodies = npy.getvalue(), mgh, analyze, gzip.compress(_nrrd("raw")), gzip.compress(mgh), bz2.compress(_voxels())
    return [*_named("x", *bodies), *_named("raw", _voxels()), *_named("json", json.dumps(lumps.graph()).encode())]


def _image(folder: Path) -> None:
    from atlaszarr.engine.ome_reader import StoredImage
    from atlaszarr.stores.target import Target

    image = StoredImage.at(Target.of(_only(folder)))
    _ = image.geometries
    for level in range(min(len(image.paths), 4)):
        _read_array(image.labels(level))


def _image_volume(folder: Path) -> None:
    """An image, its levels and its label group, each as a volume."""
    from atlaszarr.reference_volumes import open_annotation

    (folder / "spool").mkdir()

    def read(path: str) -> None:
        with open_annotation(_only(folder) / path, folder / "spool", voxel_size=800, orientation="asl") as volume:
            _compute(volume.array)

    _each(functools.partial(read, path) for path in ("", "0", "1", "labels/ten"))


@functools.cache
def _placed(kind: str) -> Files:
    """An image of 0.6 whose level is placed by another transformation than a scale and a translation."""
    import zarr

    scale = {"type": "scale", "scale": [2, 3, 4]}
    steps: Mapping[str, Any] = {
        "affine": {"type": "affine", "affine": [[0, 3, 0, 0], [4, 0, 0, 5], [0, 0, 2, 0]]},
        "mapAxis": {"type": "mapAxis", "mapAxis": [2, 1, 0]},
        "sequence": {"type": "sequence", "transformations": [scale, {"type": "translation", "translation": [1, 2, 3]}]},
        "byDimension": {
            "type": "byDimension",
            "transformations": [
                {"inputAxes": [0], "outputAxes": [0], "transformation": {"type": "scale", "scale": [2]}},
                {"inputAxes": [1, 2], "outputAxes": [1, 2], "transformation": {"type": "identity"}},
            ],
        },
    }

    def make(folder: Path) -> None:
        group = zarr.open_group(folder / "x.ome.zarr", mode="w", zarr_format=3)
        group.create_array("0", shape=(4, 4, 4), chunks=(2, 2, 2), dtype="u1")[:] = 1
        axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
        placed = {**steps[kind], "input": {"path": "0"}, "output": {"name": "physical"}}
        after = {**scale, "input": {"name": "physical"}, "output": {"name": "world"}}
        systems = [{"name": name, "axes": axes} for name in ("physical", "world")]
        levels = [{"path": "0", "coordinateTransformations": [placed]}]
        image = {"name": "a", "coordinateSystems": systems, "datasets": levels, "coordinateTransformations": [after]}
        group.attrs["ome"] = {"version": "0.6", "multiscales": [image]}

    return _made(make)


def _images() -> list[Files]:
    written = [_written(version) for version in ("0.5", "0.4", "0.6")]
    return [*written, *map(_placed, ("affine", "mapAxis", "sequence", "byDimension"))]


def _many_images() -> list[Files]:
    """Folders of several images: an image with labels, a root of bioformats2raw, a plate."""
    inner = {name.replace("x.ome.zarr/", "x.zarr/0/"): body for name, body in _written("0.4").items()}
    root = {"x.zarr/.zgroup": b'{"zarr_format": 2}', "x.zarr/.zattrs": b'{"bioformats2raw.layout": 3}', **inner}
    plate = {
        **{name.replace("x.zarr/0/", "x.zarr/A/1/0/"): body for name, body in inner.items()},
        "x.zarr/.zgroup": b'{"zarr_format": 2}',
        "x.zarr/.zattrs": b'{"plate": {"wells": [{"path": "A/1"}], "version": "0.4"}}',
    }
    return [_written(), root, plate]


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


def _verify_atlas(folder: Path) -> None:
    from atlaszarr import verify

    verify(_only(folder))


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
    from atlaszarr.dataset_build.records import begun
    from atlaszarr.stores.target import Target

    begun(Target.of(folder), {"a": 1})
    _atlas_records(folder)


def _atlas_records(folder: Path) -> None:
    from atlaszarr.atlas.record import records
    from atlaszarr.stores.target import Target

    list(records(Target.of(folder)))


def _asset(folder: Path) -> None:
    from atlaszarr.geometry.plane import PLANES
    from atlaszarr.geometry.spaces import reference_space
    from atlaszarr.previews.annotation_planes import label_planes
    from atlaszarr.regions.volumes import region_volumes

    root, space = _only(folder), reference_space(9)
    _each(
        [
            lambda: region_volumes(root / institute_assets.ATLAS, by_hemisphere=True),
            lambda: region_volumes(root, level=1),
            lambda: label_planes(root, PLANES["coronal"], [5100.0], 200.0, space),
        ]
    )


def _assets() -> list[Files]:
    trees = [institute_assets.write_tree]
    trees += [functools.partial(institute_assets.write_packed, style=style) for style in institute_assets.PACKED]
    return [_made(lambda folder, write=write: write(folder / "tree")) for write in trees]


def _terminology(folder: Path) -> None:
    from atlaszarr.terminology.terminology import Terminology

    terminology = Terminology.read(_only(folder))
    terminology.to_csv()


_SEMICOLONS = """identifier;parent_identifier;annotation_value;name;abbreviation;color_hex_triplet;root_identifier_path
997;;997;root;root;#FFFFFF;[997]
8;997;8;Basic cell groups;grey;;"[997, 8]"
10;8;10;Left lump;LL;#11AA11;/997/8/10/
"""


def _terminologies() -> list[Files]:
    from atlaszarr.terminology.terminology import Terminology

    graph = lumps.graph()
    csv = Terminology.from_structure_graph(graph).to_csv()
    rows = [
        {"id": id, "parent_structure_id": parent, "name": name, "acronym": acronym, "color_hex_triplet": colour[1:]}
        for id, parent, name, acronym, colour in lumps.ROWS
    ]
    paths = {997: [997], 8: [997, 8], 10: [997, 8, 10], 20: [997, 8, 20], 614454277: [997, 8, 614454277]}
    structures = [
        {"id": id, "acronym": acronym, "name": name, "structure_id_path": paths[id], "rgb_triplet": [1, 2, id % 256]}
        for id, _, name, acronym, _ in lumps.ROWS
    ]
    abba = {"id": 997, "data": {"acronym": "root", "name": "root"}, "children": [
        {"id": 8, "data": {"acronym": "grey", "name": "Basic cell groups"}, "children": []}]}  # fmt: skip
    tree = ["id,name,acronym,parent_structure_id,structure_id_path,color_hex_triplet"] + [
        f"{id},{name.replace(',', '')},{acronym},{parent or ''},/{'/'.join(map(str, paths[id]))}/,{colour[1:]}"
        for id, parent, name, acronym, colour in lumps.ROWS
    ]
    homba = (
        "identifier,annotation_value,parent_identifier,name,abbreviation,color_hex_triplet,descendants\n"
        "HOMBA:10154,501,,nervous system,CNS,#3cb44b,\"['HOMBA:10154', 'HOMBA:10155']\"\n"
        "HOMBA:10155,502,HOMBA:10154,brain,CNS,,['HOMBA:10155']\n"
    )
    snap = '# ITK-SnAP\n 0 0 0 0 0 0 0 "Clear Label"\n 10 17 170 17 1 1 1 "LL"\n'
    lut = "#No. Label Name:   R G B A\n0 Unknown 0 0 0 0\n10 Left-Thalamus 0 118 14 0\n20 Right-x 1 2 3 0\n"
    documents = ({"success": True, "num_rows": 5, "total_rows": 5, "msg": graph}, graph[0], rows, structures,
                 {"name": "x", "root": abba})  # fmt: skip
    texts = (csv, "\n".join(tree), homba, _SEMICOLONS)
    return [
        *_named("json", *(json.dumps(document).encode() for document in documents)),
        *_named(
            "csv",
            *(text.encode() for text in texts),
            csv.encode("utf-16"),
            csv.replace("lump", "lümp").encode("latin-1"),
        ),
        *_named("label", snap.encode(), lut.encode()),
        *_named("txt", b"10,LL\n20,MID\n", b"index\tname\n10\tLL\n20\tMID\n"),
    ]


def _annotated(folder: Path) -> None:
    """An annotation and a terminology, as `atlaszarr volumes` and `atlas` pair them, also by the command."""
    from atlaszarr.regions.volumes import region_volumes
    from atlaszarr.terminology.terminology import Terminology

    path = _only(folder)
    for name, body in _annotation().items():
        (folder / "spool" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "spool" / name).write_bytes(body)
    image = folder / "spool/x.ome.zarr"
    calls: list[Callable[[], Any]] = [lambda: region_volumes(image, Terminology.read(path))]
    for form in ("table", "csv", "json"):
        arguments = ("volumes", str(image), "--terminology", str(path), "--format", form, "--allow-unknown")
        calls.append(functools.partial(_command, *arguments))
    _each(calls)


def _command(*arguments: str) -> None:
    """Run the command line in this process; an error that it reports is raised."""
    from atlaszarr.cli.commands import main

    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        status = main(arguments)
    said = streams[1].buffer.getvalue().decode().splitlines()  # type: ignore[attr-defined]
    if any(line.startswith("Traceback") for line in said):
        raise RuntimeError("\n".join(said))
    if status:
        raise AtlaszarrError(said[-1], code=f"exit-{status}")


def _served(folder: Path) -> None:
    """The records of a dataset from a server: `info`, the images as `search` lists them, and `plan` in both modes."""
    from atlaszarr.allen.client import AllenClient
    from atlaszarr.cli.search import _summary
    from atlaszarr.dataset_build.api import plan

    class Answers(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            name = "images" if "model::SectionImage" in self.path else "dataset"
            body = (folder / f"{name}.json").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/api/v2"
        try:
            for command in ("info",), ("info", "--json"), ("search", "--id"), ("search", "--images", "--json", "--id"):
                with suppress(AtlaszarrError):
                    _command(*command, str(_DATASET), "--api-url", url, "--cache", "none")
            with AllenClient(url, "none", rate=1e9, retries=0, timeout=(5.0, 5.0)) as client:
                _records(client, _summary, plan)
        finally:
            server.shutdown()
            thread.join()


def _records(client: Any, summary: Callable[[Any], Any], plan: Callable[..., Any]) -> None:
    for images in (False, True):
        with suppress(AtlaszarrError):
            client.search(id=_DATASET, images=images).reset_index().to_json(orient="records")
    dataset = client.section_dataset(_DATASET)
    json.dumps(summary(dataset))
    json.dumps(type(dataset).from_dict(dataset.to_dict()).to_dict())
    modes = ("volume", "sections")
    _each(
        lambda mode=mode: json.dumps(
            [one.to_dict() for one in plan(dataset, mode=mode, client=client, workers=1, resolution=100)]
        )
        for mode in modes
    )


def _answer(folder: Path) -> None:
    from atlaszarr.allen.records import SectionDataset
    from atlaszarr.allen.rma import envelope

    rows = [envelope(path.read_bytes(), "http://x")["msg"] for path in sorted(folder.iterdir())]
    both = [row for part in rows if isinstance(part, list) for row in part]
    SectionDataset.from_json(*_records_of(both))


def _records_of(rows: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The first record and the others, which `rma.query` passes on only if they are objects."""
    records = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return (records[0] if records else {}), records[1:]


def _structures(folder: Path) -> None:
    """A structure graph as the API answers it."""
    from atlaszarr.allen.rma import envelope
    from atlaszarr.terminology.terminology import Terminology

    Terminology.from_structure_graph(envelope(_only(folder).read_bytes(), "http://x")["msg"]).to_csv()


def _answers() -> list[Files]:
    from atlaszarr.testing.records import dataset_records, image_records

    chosen = next(record for record in dataset_records() if record["id"] == _DATASET)
    images = [record for record in image_records() if record["data_set_id"] == _DATASET][:6]

    def body(rows: list[Any]) -> bytes:
        return json.dumps({"success": True, "num_rows": len(rows), "total_rows": len(rows), "msg": rows}).encode()

    return [{"dataset.json": body([chosen]), "images.json": body(images)}]


def _catalogue(folder: Path) -> None:
    """A catalogue whose digests are those of its changed tables: `search`, `info`, an image and an estimate."""
    from atlaszarr.allen.client import AllenClient
    from atlaszarr.cli.search import _summary
    from atlaszarr.dataset_build.estimate import estimate

    root = _only(folder)
    _seal(root)
    client = AllenClient("http://127.0.0.1:1/api/v2", "none", catalogue=root)
    assert client.catalogue is not None
    known = client.catalogue
    _each(
        [
            lambda: client.search(gene="n*"),
            lambda: client.search(limit=None).reset_index().to_json(orient="records"),
            lambda: client.search(id=_DATASET, images=True),
            lambda: json.dumps(_summary(client.section_dataset(_DATASET))),
            lambda: client.image_request(_IMAGE),
            lambda: client.similar_gene("Nrp"),
            lambda: json.dumps(estimate(known, resolution=200).to_dict()),
        ]
    )


def _seal(root: Path) -> None:
    """Record the digests and the sizes of the tables in the document, and its own, so that the content is read."""
    from atlaszarr.catalogue.files import BLOCK, write_document
    from atlaszarr.stores.target import Target

    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError):
        document = json.loads((root / "catalogue.json").read_bytes())
        del document["sha256"]
        for name, described in document["files"].items():
            body = (root / name).read_bytes()
            if described["size"] != len(body) or described["sha256"] != _digests(body, BLOCK):
                described |= {"size": len(body), "sha256": _digests(body, BLOCK)}
        write_document(Target.of(root), document)


def _digests(body: bytes, block: int) -> list[str]:
    return [hashlib.sha256(body[start : start + block]).hexdigest() for start in range(0, len(body), block)]


def _catalogues() -> list[Files]:
    """A catalogue of the records of the emulator; the same without compression and dictionaries: more bytes count."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from atlaszarr.allen.client import AllenClient
    from atlaszarr.testing import Emulator

    def write(folder: Path) -> None:
        with Emulator() as service, AllenClient(service.url, "none", rate=1e9) as client:
            client.write_catalogue(folder / "c")

    def plain(name: str, body: bytes) -> bytes:
        if not name.endswith(".parquet"):
            return body
        sink = pa.BufferOutputStream()
        pq.write_table(pq.read_table(io.BytesIO(body)), sink, compression="none", use_dictionary=False)
        return bytes(sink.getvalue())

    made = _made(write)
    return [made, {name: plain(name, body) for name, body in made.items()}]


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
    npz = _made(lambda folder: np.savez(folder / "x.npz", delta_x=values[..., 0], delta_y=values[..., 1]))
    named = {"x.npy": npz["x.npz"]}
    return [npy, npy, _made(lambda folder: field.save(folder / "x.zarr")), named]


def _location(folder: Path) -> None:
    from atlaszarr.stores.locations import normalize, overlap, shown

    text = _only(folder).read_bytes().decode(errors="surrogateescape")
    normal = normalize(text)
    shown(text)
    overlap(normal, "/tmp/x")
    overlap(normal, "s3://bucket/x")


def _options(folder: Path) -> None:
    """The text of an option of the command line, by each of its parsers."""
    import click

    from atlaszarr.cli import options

    # An argument of a process has no null character, and at most 128 kB; `main` refuses long ones.
    text = _only(folder).read_bytes().decode(errors="surrogateescape").replace("\0", "")[:8192]
    context, parameter = click.Context(click.Command("x")), click.Option(["--voxel-size"])
    parsers: tuple[Callable[[str], Any], ...] = (
        *(lambda text, parse=parse: parse(context, parameter, text)
          for parse in (options.as_lengths, options.as_numbers(3), options.as_number_or_auto, options.as_id)),
        lambda text: options.as_mapping(context, parameter, [text]),
        *(lambda text, kind=kind: kind.convert(text, parameter, context)
          for kind in (options.WHOLE, options.NUMBER, options.Text())),
    )  # fmt: skip

    def call(parse: Callable[[str], Any]) -> None:
        try:
            parse(text)
        except click.ClickException as error:
            raise AtlaszarrError(error.format_message(), code="invalid-value") from None

    _each(functools.partial(call, parse) for parse in parsers)


_OPTIONS = (
    b"200", b"200,200,100", b"1e3", b".5,1,2", b"1,2,3", b"auto", b"74272479", b"key=value", b'key={"a": [1, 2]}',
    b"key=true", b'key=["a"]', b"9" * 20, b"nan", b"1e400", b"1_000",
)  # fmt: skip


@functools.cache
def _atlas() -> Files:
    from atlaszarr.atlas import build_atlas

    def make(folder: Path) -> None:
        options = tiny_atlas.write_sources(folder / "sources")
        build_atlas(folder / "target", **options, workers=1)

    return {name: body for name, body in _made(make).items() if name.startswith("target/")}


def _cache(folder: Path) -> None:
    from atlaszarr.allen.cache import ImageCache

    found = ImageCache(folder).get("key", len(_BODY))
    assert found in (None, _BODY)


def _cached() -> list[Files]:
    from atlaszarr.allen.cache import ImageCache

    return [_made(lambda folder: ImageCache(folder).put("key", _BODY))]


_BODY = bytes(range(256))
_LOCATIONS = (
    b"/tmp/x/../y", b"~/x.zarr", b"file:///tmp/x", b"s3://bucket/prefix/x.zarr?versionId=1#f", b"dir::s3://bucket/x",
    b"https://user:secret@host:80/path?sig=1", b"simplecache::http://host/x", b"abfs://container@account.x/y", b"C:\\x",
)  # fmt: skip

_MANIFEST = {"name": "a", "version": "1", "state": "finished", "sources": {}, "images": [], "files": {}}


def _slide(folder: Path) -> None:
    """Boxes of a slide, first as `plan` reads its header, then their pixels."""
    from atlaszarr.slides.reading import SlideBox, cost_of, open_head, read_boxes
    from atlaszarr.stores.target import Target

    target = Target.of(folder)
    boxes = [SlideBox((3, 5, 40, 44), (50, 45)), SlideBox((0, 0, 50, 45), (50, 45))]
    cost = cost_of(target, open_head(target, _only(folder).name), boxes)
    for box, pixels in zip(boxes, read_boxes(target, cost.head, boxes).boxes, strict=True):
        left, top, right, bottom = box.box
        if isinstance(pixels, AtlaszarrError):
            raise pixels
        if pixels.shape != (bottom - top, right - left, 3) or pixels.dtype != np.uint8:
            raise RuntimeError(f"{pixels.shape} pixels of {pixels.dtype} for {box}")


def _slides() -> list[Files]:
    import tifffile

    picture = np.arange(45 * 50 * 3).reshape(45, 50, 3).astype(np.uint8)

    def tiff(**options: Any) -> bytes:
        body = io.BytesIO()
        tifffile.imwrite(body, picture, photometric="rgb", metadata=None, **options)
        return body.getvalue()

    forms: list[dict[str, Any]] = [{"rowsperstrip": 8}, {"tile": (16, 32)}, {"tile": (16, 16), "bigtiff": True}]
    forms += [{"rowsperstrip": 16, "compression": "zlib", "predictor": True}, {"tile": (16, 16), "compression": "lzma"}]
    forms += [{"rowsperstrip": 8, "byteorder": ">"}]
    with suppress(ImportError):
        import imagecodecs  # noqa: F401

        forms += [{"tile": (16, 16), "compression": codec} for codec in ("jpeg", "jpeg2000", "png", "webp", "lzw")]
    return _named("tif", *(tiff(**form) for form in forms))


def _bucket_record(folder: Path) -> None:
    """A record of the open-data bucket: where each image lies, and whether that is on its slide."""
    from atlaszarr.allen.image_source import ImageSource
    from atlaszarr.allen.slide_images import ImageOutline, slide_crop
    from atlaszarr.allen.slide_places import SlidePlace

    places = ImageSource(folder).places(_DATASET)
    outlines = [ImageOutline(id, id - 100, 701, 703 + 8000 * (id % 2), 9000, 7200, 1.049) for id in range(101, 105)]
    for outline in outlines:
        place = places.get(outline.image_id, SlidePlace(problem="absent"))
        for downsample in (None, 0, 5):
            crop = slide_crop(outline, place, 25, downsample)
            scale = 2**crop.downsample
            if crop.problem:
                continue
            if not all(-scale < offset <= 0 for offset in crop.offset):
                raise RuntimeError(f"{crop} begins elsewhere than its section")
            if min(crop.box) < 0 or crop.box[2] > crop.slide_size[0] or crop.box[3] > crop.slide_size[1]:
                raise RuntimeError(f"{crop} is not on its slide")
            if "/../" in crop.slide or crop.slide.count("/") != 2:
                raise RuntimeError(f"{crop} is not in the folder of its dataset")


def _bucket_records() -> list[Files]:
    def image(id: int, lost: int = -1) -> dict[str, Any]:
        full = {"x": 701, "y": 703 + 8000 * (id % 2), "width": 9000, "height": 7200}
        full |= {"image_file_width": 10500, "image_file_height": 16900}
        tiers = {f"downsample_{t}": {name: value >> t for name, value in full.items()} for t in range(9) if t > lost}
        return {
            "id": id, "section_number": id - 100, "resolution": 1.049, "bits_per_component": 8,
            "image_file_name": f"section_image_{id // 2}.tiff", "downsampling": tiers,
        }  # fmt: skip

    record = {"id": _DATASET, "section_images": [image(101), image(102), image(103, lost=0), image(104, lost=3)]}
    return [{f"section_data_set_{_DATASET}/section_data_set.json": json.dumps(record).encode()}]


READERS: Mapping[str, Reader] = {
    "nrrd": Reader(_volume, _nrrds),
    "nifti": Reader(_volume, _niftis),
    "tiff": Reader(
        _volume,
        lambda: _named(
            "tif",
            _tiff(),
            _tiff(compression="zlib"),
            _tiff(imagej=False, tile=(16, 16)),
            _tiff(imagej=True, resolution=(1 / 800, 1 / 800), metadata={"spacing": 800, "unit": "um", "axes": "ZYX"}),
            _tiff(ome=True, metadata={"axes": "ZYX", **{f"PhysicalSize{axis}": 800 for axis in "XYZ"}}),
        ),
    ),
    "slide": Reader(_slide, _slides),
    "record of a bucket": Reader(_bucket_record, _bucket_records),
    "metaimage": Reader(_volume, _metaimages),
    "other format": Reader(_volume, _others),
    "image": Reader(_image, _images),
    "image metadata": Reader(_image, _images, r"(^x\.ome\.zarr|labels/ten)/(zarr\.json|\.zattrs|\.zgroup)$"),
    "image volume": Reader(_image_volume, lambda: [*_images(), *_many_images()], r"zarr\.json$|\.z[a-z]+$"),
    "array": Reader(_array, _arrays),
    "array metadata": Reader(_array, _arrays, r"zarr\.json$|\.zarray$"),
    "ledger": Reader(_verify, lambda: [_written()], r"ledger\.jsonl$"),
    "verify": Reader(_verify, lambda: [_written(), _written("0.4")]),
    "atlas": Reader(_verify_atlas, lambda: [_atlas()], r"\.jsonl?$|\.csv$|\.parquet$|\.zattrs$|ngff|info"),
    "resume": Reader(_resume, lambda: [_written()]),
    "label index": Reader(_label_index, lambda: [_annotation()], r"\.parquet$"),
    "asset": Reader(_asset, _assets, r"manifest\.json$|terminology\.csv$|ome\.zarr/zarr\.json$"),
    "build.json": Reader(
        _build_json,
        lambda: [
            {"atlaszarr/build.json": b'{"request": {"a": 1}}'},
            {"atlaszarr/a-1.json": json.dumps(_MANIFEST).encode()},
        ],
    ),
    "terminology": Reader(_terminology, _terminologies),
    "annotated": Reader(_annotated, _terminologies),
    "graph": Reader(_structures, lambda: _terminologies()[:1]),
    "answer": Reader(_answer, _answers),
    "records": Reader(_served, _answers),
    "catalogue": Reader(_catalogue, _catalogues),
    "field": Reader(_field, _fields),
    "location": Reader(_location, lambda: [{"x.txt": body} for body in _LOCATIONS]),
    "options": Reader(_options, lambda: [{"x.txt": body} for body in _OPTIONS]),
    "cache": Reader(_cache, _cached),
}
