"""Fuzz one reader guided by its coverage, with atheris (``pip install atheris``; no other dependency).

    python tests/fuzz/guided.py TARGET [--seconds 120] [--corpus FOLDER]

Ends with a traceback at the first exception that is no error of atlaszarr, and writes the input to the current folder.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "src")]

import atheris  # noqa: E402

#: numba does not compile instrumented functions.
_COMPILED = [
    f"atlaszarr.{path.relative_to(HERE.parents[1] / 'src/atlaszarr').with_suffix('')}".replace("/", ".")
    for path in (HERE.parents[1] / "src/atlaszarr").rglob("*.py")
    if "numba" in path.read_text()
]

with atheris.instrument_imports(include=["atlaszarr"], exclude=_COMPILED):
    import atlaszarr
    from atlaszarr.displacement import files as _files  # noqa: F401
    from atlaszarr.engine import ledger
    from atlaszarr.engine.codecs import ArrayLayout
    from atlaszarr.engine.multiscale import multiscale_of
    from atlaszarr.errors import AtlaszarrError
    from atlaszarr.reference_volumes.nifti import read_nifti_header
    from atlaszarr.reference_volumes.nrrd import read_nrrd_header
    from atlaszarr.stores.documents import parse, parse_object
    from atlaszarr.stores.locations import normalize, overlap, shown
    from atlaszarr.stores.target import Target
    from atlaszarr.terminology.terminology import Terminology

from readers import READERS  # noqa: E402

_TARGET = Target("/nowhere")
_LAYOUT = {"chunk": (4, 4, 4), "dtype": "uint16"}


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


def _file(suffix: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    path = folder / f"x.{suffix}"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return one


#: A parser, the errors with which it refuses input, and the reader and pattern of valid inputs to start from.
TARGETS: dict[str, tuple[Callable[[bytes], object], tuple[type[Exception], ...], str, str]] = {
    "document": (_document, (ValueError,), "image", r"zarr\.json$"),
    "array": (_array, (ValueError, KeyError, TypeError, AttributeError, IndexError), "array", r"zarr\.json$|\.zarray$"),
    "chunk": (_chunk, (ValueError,), "array", r"/c/|/\d"),
    "record": (_record, (ValueError, KeyError, TypeError, AttributeError), "ledger", r"ledger\.jsonl$"),
    "header": (_header, (ValueError, KeyError, TypeError), "ledger", r"ledger\.jsonl$"),
    "location": (_location, (AtlaszarrError,), "location", ""),
    "nrrd": (lambda data: read_nrrd_header(io.BufferedReader(io.BytesIO(data)), "x"), (AtlaszarrError,), "nrrd", ""),
    "nifti": (lambda data: read_nifti_header(io.BytesIO(data), "x"), (AtlaszarrError,), "nifti", r"\.nii$"),
    "json": (_file("json", Terminology.read), (AtlaszarrError,), "terminology", r"\.json$"),
    "csv": (_file("csv", Terminology.read), (AtlaszarrError,), "terminology", r"\.csv$"),
    "npy": (_file("npy", atlaszarr.Displacement.load), (AtlaszarrError,), "field", r"\.npy$"),
}


def _seeds(target: str, reader: str, pattern: str, folder: Path) -> None:
    """Write valid inputs, and changes of them, as the corpus to start from."""
    import re

    from mutations import change

    for number, files in enumerate(READERS[reader].inputs()):
        for place, (name, body) in enumerate(files.items()):
            if not re.search(pattern, name):
                continue
            bodies = [body]
            if target in ("record", "header"):
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
    import json

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

    limits = ["-timeout=10", "-rss_limit_mb=1500", "-max_len=8192", f"-max_total_time={options.seconds}"]
    atheris.Setup([sys.argv[0], str(corpus), *limits], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
