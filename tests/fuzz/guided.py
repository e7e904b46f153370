"""Fuzz one reader guided by its coverage, with atheris (``pip install atheris``; no other dependency).

    python tests/fuzz/guided.py TARGET [--seconds 120] [--corpus FOLDER]

Ends with a traceback at the first exception that is no error of atlaszarr, and writes the input to the current folder.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "src")]

import atheris  # noqa: E402
import numpy as np  # noqa: E402

with atheris.instrument_imports(include=["atlaszarr"]):
    import atlaszarr
    from atlaszarr.allen.records import SectionDataset
    from atlaszarr.allen.rma import envelope
    from atlaszarr.allen.search import search
    from atlaszarr.cli.search import _summary
    from atlaszarr.displacement import files as _files  # noqa: F401
    from atlaszarr.engine import ledger
    from atlaszarr.engine.array_layout import ArrayLayout
    from atlaszarr.engine.multiscale import multiscale_of
    from atlaszarr.engine.ome_reader import StoredImage
    from atlaszarr.errors import AtlaszarrError
    from atlaszarr.reference_volumes.header import Header
    from atlaszarr.reference_volumes.metaimage import is_metaimage, read_metaimage_header
    from atlaszarr.reference_volumes.nifti import read_nifti_header
    from atlaszarr.reference_volumes.nrrd import read_nrrd_header
    from atlaszarr.reference_volumes.other_formats import not_a_volume
    from atlaszarr.reference_volumes.tiff import read_tiff_header
    from atlaszarr.reference_volumes.voxels import decompressed, stream_planes
    from atlaszarr.stores.documents import parse, parse_object
    from atlaszarr.stores.locations import normalize, overlap, shown
    from atlaszarr.stores.target import Target
    from atlaszarr.terminology.terminology import Terminology

import mutations  # noqa: E402
from mutations import change  # noqa: E402
from readers import READERS, _atlas_records, _options, _records_of  # noqa: E402

_TARGET = Target("/nowhere")


def _document(data: bytes) -> None:
    parse(data)


def _array(data: bytes) -> None:
    ArrayLayout.of(parse_object(data))


def _chunk(data: bytes) -> None:
    """The first byte chooses the codecs, and whether there are shards."""
    codecs = ("zstd", "blosc", "gzip", "crc32c", "zlib", "bz2", "lzma", "lz4")
    kind = data[0] if data else 0
    unit = (8, 8, 8) if kind & 8 else (4, 4, 4)
    ArrayLayout((8, 8, 8), (4, 4, 4), unit, "<u2", 0, (codecs[kind & 7],), "c/", "/").decode(data[1:])


def _image(data: bytes) -> None:
    """The metadata of an image; those of its arrays are the target `array`."""
    document = parse_object(data)
    attributes = document.get("attributes", document)
    if isinstance(attributes, dict):
        image = StoredImage.of(_TARGET, attributes)
        _ = image.geometries, image.numbers


def _record(data: bytes) -> None:
    _, entry = ledger.Entry.read(ledger_line(data))
    _ = entry.written, entry.origin


def _header(data: bytes) -> None:
    multiscale = multiscale_of(_TARGET, ledger.Ledger(parse_object(data)))
    _ = multiscale.objects, multiscale.prefixes


def ledger_line(content: bytes) -> bytes:
    """A line of a ledger with a right checksum."""
    return b'{"check": "%b", "content": %b}' % (ledger.digest(content).encode(), content)


def _location(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    shown(text)
    overlap(normalize(text), "s3://bucket/x")


def _answer(data: bytes) -> None:
    """The answer of the API to every query: a dataset's own records and the images."""
    dataset, images = _records_of(envelope(data, "http://x")["msg"])
    _summary(SectionDataset.from_json(dataset, images))


def _search(data: bytes) -> None:
    dataset, images = _records_of(envelope(data, "http://x")["msg"])

    def query(model: str, *_: object, **__: object) -> tuple[list[dict[str, object]], int]:
        return ([dataset] if model == "SectionDataSet" else images), 1

    for kind in (False, True):
        search(query, id=1, gene=None, plane=None, product=None, specimen=None, images=kind, limit=5)


def _metaimage(data: bytes) -> None:
    is_metaimage(data[:348])
    read_metaimage_header(io.BufferedReader(io.BytesIO(data)), "x")  # type: ignore[arg-type]


def _voxels(data: bytes) -> None:
    """The first byte chooses how the voxels are compressed, and their dtype."""
    kind = data[0] if data else 0
    compression = ("text", "zlib", "gzip", "bzip2", "none")[kind % 5]
    dtype = np.dtype(("u1", "<i2", ">f4", "<f8")[kind // 5 % 4])
    header = Header("x", (3, 2, 2), dtype, fastest_first=True, compression=compression)
    for _ in stream_planes(decompressed(io.BufferedReader(io.BytesIO(data[1:])), header), header):  # type: ignore[arg-type]
        pass


def _file(suffix: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    path = folder / suffix
    path.parent.mkdir(parents=True, exist_ok=True)

    def one(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return one


#: A parser, the errors with which it refuses input, and the reader and pattern of valid inputs to start from.
TARGETS: dict[str, tuple[Callable[[bytes], object], tuple[type[Exception], ...], str, str]] = {
    "metaimage": (_metaimage, (AtlaszarrError,), "metaimage", r"\.mh[ad]$"),
    "terminology": (_file("x", lambda path: Terminology.read(path).to_csv()), (AtlaszarrError,), "terminology", ""),
    "image": (_image, (AtlaszarrError, ValueError), "image metadata", r"^x\.ome\.zarr/(zarr\.json|\.zattrs)$"),
    "array": (
        _array,
        (ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
        "array",
        r"zarr\.json$|\.zarray$",
    ),
    "chunk": (_chunk, (ValueError,), "array", r"/c/|/\d"),
    "voxels": (_voxels, (AtlaszarrError,), "nrrd", r"\.nrrd$"),
    "nrrd": (lambda data: read_nrrd_header(io.BufferedReader(io.BytesIO(data)), "x"), (AtlaszarrError,), "nrrd", ""),
    "record": (_record, (ValueError, KeyError, TypeError, AttributeError), "ledger", r"ledger\.jsonl$"),
    "answer": (_answer, (AtlaszarrError,), "answer", ""),
    "search": (_search, (AtlaszarrError,), "answer", ""),
    "location": (_location, (AtlaszarrError,), "location", ""),
    "header": (_header, (ValueError, KeyError, TypeError), "ledger", r"ledger\.jsonl$"),
    "options": (_file("x", lambda path: _options(path.parent)), (AtlaszarrError,), "options", ""),
    "npy": (_file("x.npy", atlaszarr.Displacement.load), (AtlaszarrError,), "field", r"\.npy$"),
    "nifti": (lambda data: read_nifti_header(io.BytesIO(data), "x"), (AtlaszarrError,), "nifti", r"\.nii$"),
    "tiff": (_file("x.tif", lambda path: read_tiff_header(path, "x")), (AtlaszarrError,), "tiff", ""),
    "manifest": (
        _file("atlaszarr/a-1.json", lambda path: _atlas_records(path.parent.parent)),
        (AtlaszarrError,),
        "build.json",
        "",
    ),
    "document": (_document, (ValueError,), "image", r"zarr\.json$"),
    "other": (lambda data: not_a_volume(data[:348], "x"), (), "other format", ""),
}


def _seeds(target: str, reader: str, pattern: str, folder: Path) -> None:
    """Write valid inputs, and changes of them, as the corpus to start from."""
    for number, files in enumerate(READERS[reader].inputs()):
        for place, (name, body) in enumerate(files.items()):
            if not re.search(pattern, name):
                continue
            bodies = [body]
            if target in ("answer", "search"):
                if name != "dataset.json":
                    continue
                answers = (json.loads(files[each])["msg"] for each in ("dataset.json", "images.json"))
                both = [row for rows in answers for row in rows]
                bodies = [json.dumps({"success": True, "msg": both}).encode()]
            elif target == "voxels":
                voxels = body.partition(b"\n\n")[2]
                bodies = [bytes([kind]) + voxels[:2000] for kind in range(20)] + [b"\0" + b"1 2 3 4 5 6 7 8 9 0 1 2"]
            elif target in ("record", "header"):
                lines = [line.partition(b', "content": ')[2][:-1] for line in body.splitlines()]
                bodies = lines[1:-1] if target == "record" else [b'{"multiscale": %b}' % parse_multiscale(lines[0])]
            elif target == "chunk":
                bodies = [bytes([kind]) + body for kind in range(16)]
            for k, seed in enumerate(bodies):
                (folder / f"{number}-{place}-{k}").write_bytes(seed)
                for again in range(10):
                    mutant = change("x", seed, random.Random(f"{name} {k} {again}"))
                    (folder / f"{number}-{place}-{k}-{again}").write_bytes(mutant)


def parse_multiscale(header: bytes) -> bytes:
    """The part of the header of a ledger that describes the arrays."""
    return json.dumps(parse_object(header)["multiscale"]).encode()


def main() -> None:
    """Read the arguments and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--corpus", type=Path)
    options = parser.parse_args()
    call, refusals, reader, pattern = TARGETS[options.target]
    corpus = options.corpus or Path(tempfile.mkdtemp())
    corpus.mkdir(exist_ok=True)
    warnings.simplefilter("ignore")
    _seeds(options.target, reader, pattern, corpus)

    def one(data: bytes) -> None:
        with suppress(*refusals):
            call(data)

    mutations.LONG = 0  # libFuzzer bounds the length of inputs

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        """Half of the time by the structure of the input."""
        rng = random.Random(seed)
        name = "x.json" if data.lstrip()[:1] in (b"{", b"[") else "x.txt"
        return change(name, data, rng)[:size] if rng.random() < 0.5 else atheris.Mutate(data, size)

    limits = ["-timeout=10", "-rss_limit_mb=1500", "-max_len=16384", f"-max_total_time={options.seconds}"]
    atheris.Setup([sys.argv[0], str(corpus), *limits], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
