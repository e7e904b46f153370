"""Nothing is allocated, decoded or waited for by a number that a file or a store gives before it is checked."""

import gzip
import http.server
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
import threading
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zarr
from numcodecs import BZ2, LZ4, LZMA, Blosc, GZip, Zlib, Zstd

import lumps
from atlaszarr import Displacement, verify
from atlaszarr.atlas import build_atlas
from atlaszarr.cli.commands import main
from atlaszarr.engine import ledger
from atlaszarr.engine.ledger import COMPACT, digest, opened, sealed
from atlaszarr.engine.ome_reader import StoredImage
from atlaszarr.engine.zarr_reader import StoredArray
from atlaszarr.errors import InputError, SourceError, TargetError
from atlaszarr.stores.documents import DEEPEST, LARGEST, MOST_VALUES, parse
from atlaszarr.stores.input_file import InputFile
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Terminology
from atlaszarr.writing import write_multiscales
from codes import raises
from little_memory import little_memory

#: Far above what any of these inputs needs, and far below what they declare.
ENOUGH = 2**28


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    target = tmp_path_factory.mktemp("made") / "x.ome.zarr"
    image = np.arange(12 * 8 * 8, dtype="uint16").reshape(12, 8, 8)
    write_multiscales(image, target, labels={"ten": image // 10}, chunk=4, workers=1)
    return target


@pytest.fixture
def target(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "x.ome.zarr"))


class Server(http.server.ThreadingHTTPServer):
    """Answers every request with the same headers and the parts of an iterator."""

    def __init__(self, headers, parts):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.send_response(200)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for part in parts() if self.command == "GET" else ():
                        chunk = b"%x\r\n%b\r\n" % (len(part), part)
                        self.wfile.write(chunk if "Transfer-Encoding" in headers else part)
                except OSError:
                    pass
                self.close_connection = True

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/x"

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.thread.join()
        self.server_close()


def endless():
    while True:
        yield b" " * 2**20


def squeezed():
    """The first 4 MB of gzip that expand to 4 GB."""
    packer = zlib.compressobj(9, wbits=31)
    for _ in range(4096):
        if part := packer.compress(bytes(2**20)):
            yield part


CHUNKED = {"Transfer-Encoding": "chunked"}
WITHOUT_END = {
    "a body without end": (CHUNKED, endless),
    "a body without a length": ({"Connection": "close"}, endless),
    "a gzip encoding that expands without end": ({**CHUNKED, "Content-Encoding": "gzip"}, squeezed),
}


@pytest.mark.parametrize("kind", WITHOUT_END)
@pytest.mark.parametrize(
    "read",
    [
        lambda url: StoredImage.at(Target.of(url)),
        lambda url: StoredArray.at(Target.of(url)),
        lambda url: Target.of(url).read(COMPACT, 2**24),
        verify,
        lambda url: Terminology.read(f"{url}.json"),
    ],
    ids=["image", "array", "ledger", "verify", "terminology"],
)
@pytest.mark.slow
def test_an_answer_without_end_is_refused(kind, read):
    with Server(*WITHOUT_END[kind]) as server, little_memory(2**30), pytest.raises(InputError) as caught:
        read(server.url)
    assert caught.value.code in ("file-too-large", "damaged-metadata", "not-atlaszarr")
    assert server.url in str(caught.value)


def test_a_body_that_is_longer_than_its_length_ends_there_or_is_refused():
    with Server({"Content-Length": "10"}, lambda: [b"0123456789", b"more"]) as server:
        with suppress(TargetError):
            assert Target.of(server.url).read("x") == b"0123456789"
        with suppress(SourceError), InputFile.open(server.url) as file:
            assert file.read() == b"0123456789"


def test_a_file_that_is_copied_has_a_largest_size(tmp_path):
    with (
        Server(*WITHOUT_END["a body without end"]) as server,
        raises(InputError, "file-too-large") as caught,
        InputFile.open(server.url) as file,
    ):
        file.copy_to(tmp_path / "copy", 2**24)
    assert server.url in str(caught.value)
    assert (tmp_path / "copy").stat().st_size <= 2**24


DOCUMENTS = {
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 900 + b"]" * 900,
    "deep objects": b'{"a":' * 900 + b"1" + b"}" * 900,
    "a number of 5000 digits": b'{"a": ' + b"1" * 5000 + b"}",
    "many values": b'{"a": [' + b"0," * MOST_VALUES + b"0]}",
    "many objects": b'{"a": [' + b"{}," * MOST_VALUES + b"{}]}",
    "large": b'{"a": "' + b" " * LARGEST + b'"}',
    "not UTF-8": b'{"a": "\xff"}',
    "a list": b"[]",
    "null": b"null",
    "text": b'"attributes"',
    "cut short": b'{"a": ',
    "empty": b"",
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_document_that_is_no_metadata_is_refused_wherever_it_is_read(kind, target):
    for key in ("zarr.json", "0/zarr.json"):
        (target / key).write_bytes(DOCUMENTS[kind])
    with little_memory(2**30):
        for read in (StoredImage.at, lambda location: StoredArray.at(location, "0")):
            with pytest.raises(InputError) as caught:
                read(Target.of(target))
            assert caught.value.code in ("damaged-metadata", "file-too-large")
            assert str(target) in str(caught.value)
        if kind == "large":
            return
        assert {defect.key for defect in verify(target).defects} == {"zarr.json", "0/zarr.json"}
    assert main(["verify", str(target)]) == 1


def test_a_document_as_deep_as_allowed_is_parsed():
    text = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse(text)) == text
    with pytest.raises(ValueError, match=str(DEEPEST)):
        parse(f"[{text}]")


RECORDS = {
    "a line that is no JSON": b"nothing",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "an object": b'{"task": "0-0.0.0"}',
    "sizes that are text": json.dumps({"task": "0-0.0.0", "objects": {"0/c/0/0/0": ["1", 1]}, "from": {}}).encode(),
    "a key outside": json.dumps({"task": "0-0.0.0", "objects": {"../x": [1, ""]}, "from": {}}).encode(),
    "a block of 5000 digits": json.dumps({"task": "0-0.0." + "9" * 5000, "objects": {}, "from": {}}).encode(),
    "an origin that is a list": json.dumps({"task": "0-0.0.0", "objects": {}, "from": []}).encode(),
}


def seal(content):
    """A line of a ledger with a right checksum, whatever its content."""
    return b'{"check": "%b", "content": %b}' % (digest(content).encode(), content)


def rewrite(target, change):
    """Change the lines of a ledger, and sign it as the one that the target was finished with."""
    lines = (target / COMPACT).read_bytes().removesuffix(b"\n").split(b"\n")
    change(lines)
    (target / COMPACT).write_bytes(b"\n".join((*lines, b"")))
    root = json.loads((target / "zarr.json").read_bytes())
    root["attributes"]["atlaszarr"]["ledger"] = digest(b"\n".join(lines[:-1]))
    (target / "zarr.json").write_text(json.dumps(root))


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_that_atlaszarr_does_not_write_is_a_defect(kind, target):
    def change(lines):
        lines[1] = seal(RECORDS[kind])

    rewrite(target, change)
    assert "ledger" in {defect.kind for defect in verify(target).defects}
    assert main(["verify", str(target)]) == 1


def levels(**values):
    """Change level 0 in the header of a ledger."""
    return lambda header: header["multiscale"]["levels"][0].update(values)


def arrays(**values):
    """Change the image in the header of a ledger."""
    return lambda header: header["multiscale"]["arrays"][0].update(values)


def many_images(header):
    levels(shape=[10**12, 8, 8])(header)
    header["multiscale"]["collection"] = {"fixed": 0}


HEADERS = {
    "10^18 objects": levels(shape=[10**6] * 3, unit=[1] * 3, chunk=[1] * 3),
    "a chunk of 10^18 voxels": levels(shape=[10**6] * 3, unit=[10**6] * 3, chunk=[10**6] * 3),
    "a chunk of 0": levels(chunk=[0, 4, 4]),
    "a negative shape": levels(shape=[-1, 4, 4]),
    "a shape that is text": levels(shape=["1", 4, 4]),
    "a length of 10^30": levels(shape=[12, 10**30, 8]),
    "a level that is larger than the one before": lambda header: header["multiscale"]["levels"][1].update(
        shape=[10**10] * 3
    ),
    "a factor of minutes": levels(factor=["1e999999999", "1", "1"]),
    "a factor of 1/0": levels(factor=["1/0", "1", "1"]),
    "no levels": lambda header: header["multiscale"].update(levels=[]),
    "no arrays": lambda header: header["multiscale"].update(arrays=[]),
    "many levels": lambda header: header["multiscale"].update(levels=header["multiscale"]["levels"][:1] * 1000),
    "a dtype that is none": arrays(dtype="nothing"),
    "objects": arrays(dtype="O"),
    "an axis that is none": arrays(axes=["t", "y", "x"]),
    "10^9 channels": arrays(axes=["c", "z", "y", "x"], channels=10**9),
    "no channels": arrays(channels=0),
    "a rule that is none": arrays(rule="nothing"),
    "a mask that is none": arrays(mask="nothing"),
    "a fill value that the dtype lacks": arrays(fill=10**30),
    "a fill value that is text": arrays(fill="nothing"),
    "a path outside": arrays(path="../x"),
    "another argument": arrays(other=1),
    "a kind that is none": lambda header: header["multiscale"].update(nothing={}),
    "a collection of 10^12 images": many_images,
    "a fixed axis that is none": lambda header: header["multiscale"].update(collection={"fixed": 7}),
    "a zarr format that is none": lambda header: header["multiscale"]["encoding"].update(zarr_format=9),
    "documents that are a list": lambda header: header.update(documents=[]),
    "documents outside": lambda header: header.update(documents={"../../x": "{}"}),
    "documents that are no JSON": lambda header: header.update(documents={"0/zarr.json": "[" * 100_000}),
    "a root that is no JSON": lambda header: header.update(root={"zarr.json": "nothing"}),
    "no multiscale": lambda header: header.pop("multiscale"),
    "a multiscale that is text": lambda header: header.update(multiscale="levels"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_ledger_with_a_header_that_atlaszarr_does_not_write_is_a_defect(kind, target):
    def change(lines):
        header = opened(lines[0])
        HEADERS[kind](header)
        lines[0] = sealed(header)

    rewrite(target, change)
    with little_memory(ENOUGH):
        assert verify(target).defects
    assert main(["verify", str(target)]) == 1


def test_a_ledger_of_more_than_any_build_is_refused_unread(target, capsys):
    with (target / COMPACT).open("wb") as file:
        file.truncate(2**30)
    with little_memory(ENOUGH):
        assert main(["verify", str(target)]) == 2
    assert re.search(r"ledger\.jsonl is larger than the \d+ bytes", capsys.readouterr().err)


def test_a_ledger_of_very_many_lines_is_refused(target, capsys):
    (target / COMPACT).write_bytes(b"\n" * (ledger.MOST_LINES + 1))
    with little_memory(ENOUGH):
        assert main(["verify", str(target)]) == 2
    assert str(ledger.MOST_LINES) in capsys.readouterr().err


CODECS = {
    "zstd": Zstd(19),
    "blosc": Blosc("zstd", 9),
    "gzip": GZip(9),
    "zlib": Zlib(9),
    "bz2": BZ2(9),
    "lzma": LZMA(),
    "lz4": LZ4(),
}


def compressed(codec, size):
    return bytes(CODECS[codec].encode(np.zeros(size, np.uint8)))


@pytest.mark.first(8)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_is_decoded_into_no_more_than_its_metadata_gives(codec, order, tmp_path):
    store = tmp_path / "a.zarr"
    values = np.arange(512, dtype="uint16").reshape(8, 8, 8)
    array = zarr.create_array(
        store, shape=(8, 8, 8), chunks=(8, 8, 8), dtype="uint16", zarr_format=2, order=order, compressors=CODECS[codec]
    )
    array[:] = values
    stored = StoredArray.at(Target.of(store))
    np.testing.assert_array_equal(stored[...], values)
    for size in (2**25, 1023, 1025, 0):
        (store / "0.0.0").write_bytes(compressed(codec, size))
        with little_memory(2**24), pytest.raises((TargetError, InputError)) as caught:
            stored[...]
        assert caught.value.code in ("damaged-chunk", "file-too-large")
        assert "0.0.0" in str(caught.value)


@pytest.mark.parametrize("codec", ["zstd", "gzip", "blosc"])
def test_a_chunk_behind_a_codec_of_zarr_alone_is_decoded_into_no_more_than_its_metadata_gives(codec, tmp_path):
    from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec, ZstdCodec

    store = tmp_path / "a.zarr"
    values = np.arange(512, dtype="uint16").reshape(8, 8, 8)
    array = zarr.create_array(
        store,
        shape=(8, 8, 8),
        chunks=(8, 8, 8),
        dtype="uint16",
        filters=[TransposeCodec(order=(2, 1, 0))],
        compressors={"zstd": ZstdCodec(), "gzip": GzipCodec(), "blosc": BloscCodec()}[codec],
    )
    array[:] = values
    stored = StoredArray.at(Target.of(store))
    np.testing.assert_array_equal(stored[...], values)
    (store / "c/0/0/0").write_bytes(compressed(codec, 2**25))
    with little_memory(2**24), raises(TargetError, "damaged-chunk"):
        stored[...]


def test_an_object_that_is_larger_than_its_metadata_gives_is_refused_unread(tmp_path):
    store = tmp_path / "a.zarr"
    zarr.create_array(store, shape=(8, 8, 8), chunks=(8, 8, 8), dtype="uint16")[:] = 1
    with (store / "c/0/0/0").open("wb") as file:
        file.truncate(2**31)
    with little_memory(2**24), raises(InputError, "file-too-large") as caught:
        StoredArray.at(Target.of(store))[...]
    assert "c/0/0/0" in str(caught.value)


V3 = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [8, 8, 8],
    "data_type": "uint16",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, 8, 8]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
}


@pytest.mark.parametrize(
    "change",
    [
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**6] * 3}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 8, 8]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [-8, 8, 8]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, 8]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8.5, 8, 8]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [True, 8, 8]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": "888"}}},
        {"chunk_grid": []},
        {"shape": [-1, 8, 8]},
        {"shape": [float("nan"), 8, 8]},
        {"shape": 8},
        {"data_type": "nothing"},
        {"data_type": ["uint16"]},
        {"data_type": "U1000000000"},
        {"fill_value": "0xzz"},
        {"fill_value": 10**4000},
        {"fill_value": -1},
        {"codecs": []},
        {"codecs": None},
        {"zarr_format": 4},
    ],
    ids=str,
)
def test_array_metadata_that_no_array_has_is_refused(change, tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr/zarr.json").write_text(json.dumps({**V3, **change}))
    with little_memory(ENOUGH), raises(InputError, "damaged-metadata") as caught:
        StoredArray.at(Target.of(tmp_path / "a.zarr"))
    assert "zarr.json" in str(caught.value)


def npy(shape="(4, 5, 2)", descr="'<f4'", fortran="False", body=bytes(160), version=(1, 0)):
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    size = len(header).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + header + body


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", npy())
    return file.getvalue()


FIELDS = {
    "10^12 elements": (npy("(1000000, 500000, 2)"), "truncated-file"),
    "10^30 elements": (npy(f"({10**30}, {10**30}, 2)"), "truncated-file"),
    "a negative shape": (npy("(-4, 5, 2)"), "invalid-array"),
    "no elements": (npy("(0, 5, 2)"), "invalid-array"),
    "a flat shape": (npy("(20, 2)"), "invalid-array"),
    "a shape of text": (npy("'abc'"), "damaged-file"),
    "objects": (npy(descr="'|O'"), "invalid-array"),
    "a structure": (npy(descr="[('a', '<f4')]"), "invalid-array"),
    "a descr that is none": (npy(descr="'nothing'"), "damaged-file"),
    "a deep header": (npy("(" * 5000 + ")" * 5000), "damaged-file"),
    "a header that is no Python": (npy("(4, 5, 2"), "damaged-file"),
    "a header of 10 MB": (npy("(4, 5, 2)" + " " * 10**7, version=(2, 0)), "damaged-file"),
    "a header of 4 GB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "damaged-file"),
    "an unknown version": (npy(version=(9, 0)), "damaged-file"),
    "a body cut short": (npy(body=bytes(159)), "truncated-file"),
    "a body too long": (npy(body=bytes(161)), "file-too-large"),
    "a zip": (zipped(), "damaged-file"),
    "gzip": (gzip.compress(npy()), "damaged-file"),
    "a pickle": (pickle.dumps(np.zeros((4, 5, 2))), "damaged-file"),
    "nothing": (b"", "damaged-file"),
}


@pytest.mark.parametrize("where", ["disk", "web"])
@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.slow
def test_a_displacement_field_is_checked_before_it_is_read(kind, where, tmp_path):
    body, code = FIELDS[kind]
    path = tmp_path / "field.npy"
    path.write_bytes(body)
    with Server({"Content-Length": str(len(body))}, lambda: [body]) as server, little_memory(ENOUGH):
        name = str(path) if where == "disk" else f"{server.url}.npy"
        if where == "web" and kind in ("10^12 elements", "10^30 elements"):
            code = "file-too-large"
        with raises(InputError, code) as caught:
            Displacement.load(name)
    assert name in str(caught.value)


def test_a_remote_displacement_field_without_end_is_refused():
    def parts():
        yield npy(body=b"")
        yield from endless()

    with Server(CHUNKED, parts) as server, little_memory(ENOUGH), raises(InputError, "file-too-large"):
        Displacement.load(f"{server.url}.npy")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("fortran", ["False", "True"])
def test_a_displacement_field_of_any_version_of_npy_is_read(version, fortran, tmp_path):
    values = np.arange(40, dtype="<f4").reshape(4, 5, 2)
    body = values.tobytes("F" if fortran == "True" else "C")
    path = tmp_path / "field.npy"
    path.write_bytes(npy(fortran=fortran, body=body, version=version))
    np.testing.assert_array_equal(np.load(path), values)
    with Server({"Content-Length": str(path.stat().st_size)}, lambda: [path.read_bytes()]) as server:
        for field in (Displacement.load(path), Displacement.load(f"{server.url}.npy")):
            np.testing.assert_array_equal(np.asarray(field.delta_x), values[..., 0])


SYNCED = """
import os, sys, json
import numpy as np
events = []
sync, rename = os.fsync, os.replace
def watch(event, arguments):
    if event == "os.rename":
        events.append(["rename", str(arguments[0]), str(arguments[1])])
sys.addaudithook(watch)
def fsync(descriptor):
    sync(descriptor)
    events.append(["sync", os.readlink(f"/proc/self/fd/{descriptor}")])
os.fsync = fsync
from atlaszarr.writing import write_multiscales
write_multiscales(np.arange(768, dtype="uint16").reshape(12, 8, 8), sys.argv[1], chunk=4, workers=1)
print(json.dumps(events))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_objects_and_their_folders_are_synced_before_the_record_of_their_task(tmp_path):
    """A power cut then leaves no record of an object that is not on the disk."""
    target = tmp_path / "x.ome.zarr"
    run = subprocess.run([sys.executable, "-c", SYNCED, target], capture_output=True, text=True, check=True)
    events = json.loads(run.stdout)
    synced, records = set(), 0
    pending = {}
    for event, *paths in events:
        if event == "sync":
            synced.add(paths[0])
            pending.pop(paths[0], None)
            continue
        source, destination = paths
        assert source in synced, f"{destination} is renamed before it is synced"
        folder = str(Path(destination).parent)
        if "/atlaszarr/ledger/" in destination:
            records += 1
            left = {path for path in pending if f"{target}/0" in path or f"{target}/1" in path}
            assert not left, f"{destination} is recorded before {left} are synced"
        pending[folder] = destination
    assert records
    assert not pending


class Broken:
    """An array whose blocks cannot be read, with an error that a store could raise too."""

    shape, dtype, ndim = (8, 8, 8), np.dtype("uint16"), 3

    def __getitem__(self, index):
        raise PermissionError(13, "the scanner is locked")


@pytest.mark.parametrize("url", ["local", "memory://bounds/blame.ome.zarr"])
def test_an_error_of_making_a_block_is_not_blamed_on_the_target(url, tmp_path):
    import dask.array as da

    image = da.from_array(Broken(), chunks=4, asarray=False, meta=np.empty((0, 0, 0), "uint16"), name="broken")
    with pytest.raises(PermissionError, match="the scanner is locked") as caught:
        write_multiscales(image, tmp_path / "x.ome.zarr" if url == "local" else url, chunk=4, workers=1)
    assert "while making block 0, 0, 0" in caught.value.__notes__[0]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    import nrrd

    folder = tmp_path_factory.mktemp("atlas")
    header = {"space": "left-posterior-superior", "space directions": np.eye(3) * 200, "space units": ["um"] * 3}
    for name, values in (("annotation", lumps.labels()), ("template", lumps.template())):
        nrrd.write(str(folder / f"{name}.nrrd"), values, header)
    (folder / "graph.json").write_text(json.dumps(lumps.graph()))
    build_atlas(
        folder / "atlas",
        annotation=folder / "annotation.nrrd",
        template=folder / "template.nrrd",
        ontology=folder / "graph.json",
        orientation="asl",
        brainglobe=True,
        workers=1,
    )
    return folder / "atlas"


SET = "annotation-sets/allen-adult-mouse-annotation/2017"


@pytest.mark.filterwarnings("ignore::atlaszarr.errors.AtlaszarrWarning")
@pytest.mark.parametrize(
    ("record", "key"),
    [
        ("atlaszarr/allen-adult-mouse-2017.json", "atlaszarr/allen-adult-mouse-2017.json"),
        (f"{SET}/annotations.precomputed/{COMPACT}", f"{SET}/annotations.precomputed/{COMPACT}"),
        (f"{SET}/annotation.ome.zarr/{COMPACT}", f"{SET}/annotation.ome.zarr/{COMPACT}"),
        (f"{SET}/annotations.ome.zarr/{COMPACT}", f"{SET}/annotations.ome.zarr/{COMPACT}"),
    ],
)
def test_a_deleted_record_of_an_atlas_is_a_defect(atlas, record, key):
    body = (atlas / record).read_bytes()
    (atlas / record).unlink()
    try:
        assert key in {defect.key for defect in verify(atlas).defects}
    finally:
        (atlas / record).write_bytes(body)
    assert verify(atlas).ok


@pytest.mark.filterwarnings("ignore::atlaszarr.errors.AtlaszarrWarning")
@pytest.mark.parametrize("attributes", ["text", ["atlaszarr"], 1, None])
def test_attributes_that_are_no_object_in_an_atlas_are_a_defect(atlas, attributes):
    root = atlas / SET / "annotation.ome.zarr/zarr.json"
    body = root.read_bytes()
    root.write_text(json.dumps({**json.loads(body), "attributes": attributes}))
    try:
        assert any("annotation.ome.zarr" in str(defect) for defect in verify(atlas).defects)
    finally:
        root.write_bytes(body)


@pytest.mark.parametrize(
    "change",
    [
        {"images": [1]},
        {"images": ["../../x"]},
        {"images": "annotation"},
        {"files": {"x": 1}},
        {"files": {"/etc/hostname": [1, "x"]}},
        {"files": []},
    ],
    ids=str,
)
def test_a_manifest_that_atlaszarr_does_not_write_is_a_defect(atlas, change):
    path = atlas / "atlaszarr/allen-adult-mouse-2017.json"
    body = path.read_bytes()
    path.write_text(json.dumps({**json.loads(body), **change}))
    try:
        assert [defect.kind for defect in verify(atlas).defects] == ["metadata"]
    finally:
        path.write_bytes(body)
