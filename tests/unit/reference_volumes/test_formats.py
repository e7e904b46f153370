"""Every form that people save a volume in gives the same voxels in the same places, or is refused in a sentence.

The volume is `lumps.labels`: 480 voxels of LL, all left, which are 3.84 mm3. MetaImage headers are as ITK writes them.
"""

import bz2
import gzip
import io
import itertools
import lzma
import tracemalloc
import zipfile
import zlib

import fsspec
import nibabel
import numpy as np
import pytest
import tifffile

import lumps
from atlaszarr.errors import InputError, NotFoundError
from atlaszarr.reference_volumes import open_annotation, open_template
from atlaszarr.reference_volumes.metaimage import read_metaimage_header
from atlaszarr.reference_volumes.nifti import read_nifti_header
from atlaszarr.reference_volumes.nrrd import read_nrrd_header
from codes import raises

#: The axes p, i, r in the space left-posterior-superior of ITK and NRRD: a row for each.
PIR = np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]])
LABELS = lumps.labels()
BODY = LABELS.tobytes(order="F")


@pytest.fixture
def spool(tmp_path):
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def assert_lumps(found):
    """Whether the volume is that of `lumps`, with LL left and of the right size."""
    assert found.voxel_size == pytest.approx((200, 200, 200), rel=1e-6)
    values = np.asarray(found.array)
    np.testing.assert_array_equal(values, LABELS)
    places = np.argwhere(values == 10)
    assert len(places) * np.prod(found.voxel_size) / 1e9 == pytest.approx(lumps.LL_MM3)
    assert places[:, 2].max() < values.shape[2] / 2


def numbers(values):
    return " ".join(f"{value:.17g}" for value in np.ravel(values))


# MetaImage


def metaimage(data_file="LOCAL", directions=PIR, spacing=(0.2, 0.2, 0.2), **changes):
    """A header as ITK writes it, with other fields, or without those that are None."""
    fields = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": False,
        "TransformMatrix": numbers(directions),
        "Offset": "0 0 0",
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": "ASL",
        "ElementSpacing": numbers(spacing),
        "DimSize": "66 40 57",
        "ElementType": "MET_UINT",
        **changes,
        "ElementDataFile": data_file,
    }
    return "".join(f"{key} = {value}\n" for key, value in fields.items() if value is not None).encode()


def text_of(values):
    return "\n".join(" ".join(map(str, row)) for row in values.ravel(order="F").reshape(-1, 66)).encode()


#: Files by their names; the first is opened.
METAIMAGES = {
    "mha": {"a.mha": metaimage() + BODY},
    "mhd with raw": {"a.mhd": metaimage("a.raw"), "a.raw": BODY},
    "mhd with ./raw": {"a.mhd": metaimage("./a b.raw"), "a b.raw": BODY},
    "compressed mha": {"a.mha": metaimage(CompressedData=True, CompressedDataSize=1) + zlib.compress(BODY)},
    "mhd with zraw": {"a.mhd": metaimage("a.zraw", CompressedData=True), "a.zraw": zlib.compress(BODY)},
    "mhd with a gzip": {"a.mhd": metaimage("a.zraw", CompressedData=True), "a.zraw": gzip.compress(BODY)},
    "big endian": {"a.mha": metaimage(BinaryDataByteOrderMSB=True) + LABELS.astype(">u4").tobytes(order="F")},
    "big endian by the other name": {
        "a.mha": metaimage(BinaryDataByteOrderMSB=None, ElementByteOrderMSB=True)
        + LABELS.astype(">u4").tobytes(order="F")
    },
    "text": {"a.mha": metaimage(BinaryData=False) + text_of(LABELS)},
    "bytes before the voxels": {"a.mhd": metaimage("a.raw", HeaderSize=7), "a.raw": b"\n" * 7 + BODY},
    "voxels at the end": {"a.mhd": metaimage("a.raw", HeaderSize=-1), "a.raw": b"junk" + BODY},
    "voxels at the end of an mha": {"a.mha": metaimage(HeaderSize=-1) + b"junk" + BODY},
    "one channel": {"a.mha": metaimage(ElementNumberOfChannels=1) + BODY},
    "a fourth axis": {
        "a.mha": metaimage(
            NDims=4,
            DimSize="66 40 57 1",
            ElementSpacing="0.2 0.2 0.2 1",
            Offset="0 0 0 0",
            TransformMatrix=numbers(np.block([[PIR, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])),
        )
        + BODY
    },
    "sizes in ElementSize": {"a.mha": metaimage(ElementSpacing=None, ElementSize="0.2 0.2 0.2") + BODY},
    "ElementSize next to ElementSpacing": {"a.mha": metaimage(ElementSize="9 9 9") + BODY},
    "Rotation and Position": {
        "a.mha": metaimage(TransformMatrix=None, Offset=None, Rotation=numbers(PIR), Position="0 0 0") + BODY
    },
    "Orientation and Origin": {
        "a.mha": metaimage(TransformMatrix=None, Offset=None, Orientation=numbers(PIR), Origin="0 0 0") + BODY
    },
    "a negative spacing": {"a.mha": metaimage(directions=PIR * [[1], [1], [-1]], spacing=(0.2, 0.2, -0.2)) + BODY},
    "a comment first, and an empty line": {"a.mha": b"Comment = by hand: x = y\n\n" + metaimage() + BODY},
    "colons, and ends of lines of Windows": {
        "a.mha": metaimage().replace(b" = ", b": ").replace(b"\n", b"\r\n") + BODY,
    },
    "no spaces": {"a.mha": metaimage(ObjectType=None).replace(b" = ", b"=") + BODY},
}


def write_files(folder, files):
    for name, body in files.items():
        (folder / name).write_bytes(body)
    return folder / next(iter(files))


@pytest.mark.parametrize("name", METAIMAGES)
def test_a_metaimage_is_read(name, tmp_path, spool):
    path = write_files(tmp_path, METAIMAGES[name])
    with open_annotation(path, spool) as found:
        assert_lumps(found)
        assert any("no unit of length (spacing 0.2 x 0.2 x 0.2 (no unit)" in remark for remark in found.remarks)
        assert ("size and digest are those of that file" in found.remarks[-1]) == (path.suffix == ".mhd")
    # From its beginning, at any URL.
    for file, body in METAIMAGES[name].items():
        with fsspec.open(f"memory://formats/{file}", "wb") as target:
            target.write(body)
    with open_annotation(f"memory://formats/{path.name}", spool) as found:
        assert_lumps(found)


def test_the_grid_data_of_the_allen_institute_is_read_with_what_its_header_lacks(tmp_path, spool):
    short = metaimage("a.raw", BinaryDataByteOrderMSB=False, ElementSpacing="200 200 200")
    kept = [line for line in short.splitlines(True) if line.split(b" ")[0] not in (b"TransformMatrix", b"Offset")]
    path = write_files(tmp_path, {"a.mhd": b"".join(kept), "a.raw": BODY})
    with open_annotation(path, spool, orientation="asl", voxel_size=200) as found:
        assert_lumps(found)
    header = read_metaimage_header(io.BytesIO(b"".join(kept)), "a.mhd")
    assert header.unit_assumed
    assert (header.origin, header.spacing, header.position) == (None, (200_000,) * 3, None)
    assert header.numbers == "spacing 200 x 200 x 200 (no unit)"


@pytest.mark.parametrize(
    ("element", "dtype"),
    [
        ("CHAR", "i1"),
        ("UCHAR", "u1"),
        ("SHORT", "i2"),
        ("USHORT", "u2"),
        ("INT", "i4"),
        ("UINT", "u4"),
        ("LONG", "i4"),
        ("ULONG", "u4"),
        ("LONG_LONG", "i8"),
        ("ULONG_LONG", "u8"),
        ("FLOAT", "f4"),
        ("DOUBLE", "f8"),
    ],
)
@pytest.mark.parametrize("binary", [True, False])
def test_every_type_of_a_metaimage_is_read(element, dtype, binary, tmp_path, spool):
    values = (np.arange(24) * 5).astype(dtype).reshape(2, 3, 4)
    header = metaimage(ElementType=f"MET_{element}", DimSize="2 3 4", BinaryData=binary)
    body = values.tobytes(order="F") if binary else text_of_any(values)
    (tmp_path / "a.mha").write_bytes(header + body)
    with open_template(tmp_path / "a.mha", spool) as found:
        assert found.array.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(found.array, values)


def text_of_any(values):
    return " ".join(map(str, values.ravel(order="F"))).encode()


@pytest.mark.parametrize("sides", list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_matrix_of_a_metaimage_puts_every_voxel_where_itk_puts_it(order, sides):
    directions = np.zeros((3, 3))
    for axis, (main, side) in enumerate(zip(order, sides, strict=True)):
        directions[axis, main] = side
    spacing, first = np.array([0.1, 0.2, 0.3]), np.array([1.0, -2.0, 3.0])
    text = metaimage(directions=directions, spacing=spacing, Offset=numbers(first), DimSize="4 5 6")
    header = read_metaimage_header(io.BytesIO(text), "a.mha")
    # ITK: point = first + index * spacing * direction, in mm, towards left, posterior and superior.
    for axis, letter in enumerate(header.origin):
        main = order[axis]
        assert letter == ("r", "a", "i")[main] if sides[axis] > 0 else ("l", "p", "s")[main]
        index = np.eye(3)[axis] * 3
        point = first + (index * spacing) @ directions
        along = header.position[axis] + 3 * header.spacing[axis]
        assert point[main] * sides[axis] * 1000 == pytest.approx(along)


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"ObjectType": "Scene"}, "not-supported", "Scene"),
        ({"NDims": None}, "unreadable-header", "NDims"),
        ({"NDims": "9" * 5000}, "unreadable-header", "NDims"),
        ({"NDims": 11}, "unreadable-header", "NDims is 11"),
        ({"NDims": "x"}, "unreadable-header", "'x'"),
        ({"NDims": 2}, "unreadable-header", "DimSize has 3 numbers"),
        (
            {"NDims": 2, "DimSize": "66 40", "ElementSpacing": "1 1", "TransformMatrix": None, "Offset": None},
            "wrong-dimensions",
            "66 x 40",
        ),
        ({"DimSize": None}, "unreadable-header", "DimSize has 0 numbers"),
        ({"DimSize": "66 40 5.5"}, "unreadable-header", "'5.5'"),
        ({"DimSize": "66 40 0"}, "wrong-dimensions", "66 x 40 x 0"),
        ({"DimSize": "66 40 -57"}, "wrong-dimensions", "66 x 40 x -57"),
        ({"DimSize": "66 40 58"}, "truncated-file", "cut short"),
        ({"DimSize": "66 40 56"}, "file-too-large", "591360"),
        ({"DimSize": "66 40 57000000000000"}, "wrong-dimensions", "57000000000000"),
        ({"ElementType": None}, "unreadable-header", "ElementType"),
        ({"ElementType": "MET_STRING"}, "unreadable-header", "MET_STRING"),
        ({"ElementType": "MET_UCHAR_ARRAY"}, "unreadable-header", "MET_UCHAR_ARRAY"),
        ({"ElementNumberOfChannels": 3}, "wrong-dimensions", "3 channels"),
        ({"BinaryData": "maybe"}, "unreadable-header", "'maybe'"),
        ({"CompressedData": "2"}, "unreadable-header", "'2'"),
        ({"CompressedData": True}, "damaged-file", "compressed"),
        ({"HeaderSize": 4}, "not-supported", "HeaderSize 4"),
        ({"HeaderSize": -2}, "not-supported", "-2"),
        ({"HeaderSize": -1, "CompressedData": True}, "not-supported", "-1"),
        ({"ElementSpacing": "0.2 0.2"}, "unreadable-header", "ElementSpacing has 2"),
        ({"ElementSpacing": "0.2 0.2 0,2"}, "unreadable-header", "'0,2'"),
        ({"ElementSpacing": "0.2 0.2 nan"}, "unreadable-header", "'nan'"),
        ({"ElementSpacing": "0.2 0.2 0"}, "missing-voxel-size", "0.2 x 0.2 x 0"),
        ({"ElementSpacing": "0.2 0.2 1e999"}, "missing-voxel-size", "inf"),
        ({"ElementSpacing": None}, "missing-voxel-size", "no voxel size"),
        ({"TransformMatrix": None, "DimSize": "40 66 57"}, "missing-orientation", "TransformMatrix"),
        ({"TransformMatrix": "1 0 0 0 1 0"}, "unreadable-header", "TransformMatrix has 6"),
        ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, "missing-orientation", "oblique"),
        ({"TransformMatrix": "1e300 1e300 0 0 1 0 0 0 1"}, "missing-orientation", "oblique"),
        ({"TransformMatrix": "0.8 0.6 0 -0.6 0.8 0 0 0 1"}, "missing-orientation", "oblique"),
        ({"data_file": "../a.raw"}, "invalid-data-file", "../a.raw"),
        ({"data_file": "/etc/passwd"}, "invalid-data-file", "/etc/passwd"),
        ({"data_file": "LIST"}, "invalid-data-file", "LIST"),
        ({"data_file": "a%03d.raw 1 57 1"}, "invalid-data-file", "a%03d.raw"),
        ({"data_file": ""}, "invalid-data-file", "''"),
        ({"data_file": "9" * 256}, "invalid-data-file", "999"),
        ({"data_file": "a\0b"}, "invalid-data-file", "a"),
        ({"ElementSpacing": "0.2 0.2 1e307"}, "missing-voxel-size", "1e+307"),
        ({"Comment": "x" * 2**16}, "damaged-file", "65536"),
    ],
)
def test_a_metaimage_that_cannot_be_read_is_refused(changes, code, named, tmp_path, spool):
    (tmp_path / "a.mha").write_bytes(metaimage(**changes) + BODY)
    with raises(InputError, code) as caught, open_annotation(tmp_path / "a.mha", spool):
        pass
    assert named in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (metaimage()[:100], "truncated-file"),
        (metaimage().replace(b"NDims = 3", b"NDims = 3\nnonsense"), "unreadable-header"),
        (metaimage().replace(b"NDims = 3", b"NDims = 3\nNDims = 3"), "unreadable-header"),
        (metaimage(CompressedData=True) + zlib.compress(BODY)[:500], "truncated-file"),
        (metaimage(CompressedData=True) + zlib.compress(BODY)[:-1] + b"x", "damaged-file"),
        (metaimage(BinaryData=False) + b"1 2 x", "damaged-file"),
        (metaimage(BinaryData=False) + b"1 2 -3", "damaged-file"),
        (metaimage(BinaryData=False) + b"1 2 3.5", "damaged-file"),
        (metaimage(BinaryData=False) + b"1 2 1_0", "damaged-file"),
        (metaimage(BinaryData=False) + b"1 2 4294967296", "damaged-file"),
        (metaimage(BinaryData=False) + b"1 2 " + b"9" * 2**21, "damaged-file"),
        (metaimage(BinaryData=False) + b"1 2 3 ", "truncated-file"),
        (metaimage(BinaryData=False) + text_of(LABELS) + b" 1", "file-too-large"),
    ],
)
def test_a_damaged_metaimage_is_refused(body, code, tmp_path, spool):
    (tmp_path / "a.mha").write_bytes(body)
    with raises(InputError, code), open_annotation(tmp_path / "a.mha", spool):
        pass


def test_a_metaimage_without_its_data_file_is_named(tmp_path, spool):
    (tmp_path / "a.mhd").write_bytes(metaimage("a.raw"))
    with raises(NotFoundError, "file-not-found") as caught, open_annotation(tmp_path / "a.mhd", spool):
        pass
    assert "a.raw" in str(caught.value)


# NRRD


def nrrd_file(body=BODY, *, sizes="66 40 57", encoding="raw", kind="uint32", more=()):
    """A header of the corrected files of the Allen Institute, with other or more lines, and a body."""
    fields = {
        "type": kind,
        "dimension": 3,
        "space": "left-posterior-superior",
        "sizes": sizes,
        "space directions": "(0,0.2,0) (0,0,-0.2) (-0.2,0,0)",
        "endian": "little",
        "encoding": encoding,
        "space origin": "(1,2,3)",
        **dict(more),
    }
    lines = "".join(f"{key}: {value}\n" for key, value in fields.items() if value is not None)
    return f"NRRD0005\n{lines}\n".encode() + body


#: Neither space nor directions.
NO_SPACE = {"space": None, "space directions": None, "space origin": None}
GIVEN = {"orientation": "asl"}
NRRDS = {
    "directions without a unit": ({"a.nrrd": nrrd_file()}, {}),
    "ascii": ({"a.nrrd": nrrd_file(text_of(LABELS), encoding="ascii")}, {}),
    "text, without endian": ({"a.nrrd": nrrd_file(text_of(LABELS), encoding="text", more={"endian": None})}, {}),
    "txt": ({"a.nrrd": nrrd_file(text_of(LABELS), encoding="txt")}, {}),
    "byte skip": ({"a.nrrd": nrrd_file(b"12345" + BODY, more={"byte skip": 5})}, {}),
    "byteskip": ({"a.nrrd": nrrd_file(b"12345" + BODY, more={"byteskip": 5})}, {}),
    "byte skip of a gzip": (
        {"a.nrrd": nrrd_file(gzip.compress(b"12345" + BODY), encoding="gzip", more={"byte skip": 5})},
        {},
    ),
    "byte skip of a detached file": (
        {"a.nhdr": nrrd_file(b"", more={"byte skip": 5, "data file": "a.raw"}), "a.raw": b"12345" + BODY},
        {},
    ),
    "byte skip -1": ({"a.nrrd": nrrd_file(b"junk" + BODY, more={"byte skip": -1})}, {}),
    "byte skip -1 of a detached file": (
        {"a.nhdr": nrrd_file(b"", more={"byte skip": -1, "data file": "a.raw"}), "a.raw": b"junk" + BODY},
        {},
    ),
    "line skip": ({"a.nrrd": nrrd_file(b"one\n\nthree\n" + BODY, more={"line skip": 3})}, {}),
    "line skip of a gzip, and byte skip": (
        {
            "a.nrrd": nrrd_file(
                b"one\ntwo\n" + gzip.compress(b"12345" + BODY),
                encoding="gz",
                more={"lineskip": 2, "byte skip": 5},
            )
        },
        {},
    ),
    "a detached gzip": (
        {"a.nhdr": nrrd_file(b"", encoding="gzip", more={"data file": "./a.raw.gz"}), "a.raw.gz": gzip.compress(BODY)},
        {},
    ),
    "a detached bzip2": (
        {"a.nhdr": nrrd_file(b"", encoding="bz2", more={"datafile": "a.raw.bz2"}), "a.raw.bz2": bz2.compress(BODY)},
        {},
    ),
    "a gzip of two members": (
        {"a.nrrd": nrrd_file(gzip.compress(BODY[:1000]) + gzip.compress(BODY[1000:]), encoding="gzip")},
        {},
    ),
    "spacings": ({"a.nrrd": nrrd_file(more={**NO_SPACE, "spacings": "0.2 0.2 0.2"})}, GIVEN),
    "spacings in um": (
        {"a.nrrd": nrrd_file(more={**NO_SPACE, "spacings": "200 200 200", "units": '"um" "um" "um"'})},
        GIVEN,
    ),
    "a fourth axis without a direction first": (
        {
            "a.nrrd": nrrd_file(
                sizes="1 66 40 57",
                more={
                    "dimension": 4,
                    "space directions": "none (0,0.2,0) (0,0,-0.2) (-0.2,0,0)",
                    "kinds": "vector domain domain domain",
                },
            )
        },
        {},
    ),
    "a fourth axis without a direction last": (
        {
            "a.nrrd": nrrd_file(
                sizes="66 40 57 1",
                more={
                    "dimension": 4,
                    "space directions": "(0,0.2,0) (0,0,-0.2) (-0.2,0,0) none",
                    "kinds": "space space space list",
                },
            )
        },
        {},
    ),
    "a fourth axis with a spacing": (
        {"a.nrrd": nrrd_file(sizes="66 40 57 1", more={**NO_SPACE, "dimension": 4, "spacings": "0.2 0.2 0.2 1"})},
        GIVEN,
    ),
}


@pytest.mark.parametrize("name", NRRDS)
def test_an_nrrd_is_read(name, tmp_path, spool):
    files, options = NRRDS[name]
    path = write_files(tmp_path, files)
    with open_annotation(path, spool, **options) as found:
        assert_lumps(found)
        assert any("no unit" in remark for remark in found.remarks) == ("um" not in name)
    for file, body in files.items():
        with fsspec.open(f"memory://formats/{file}", "wb") as target:
            target.write(body)
    with open_annotation(f"memory://formats/{path.name}", spool, **options) as found:
        assert_lumps(found)


@pytest.mark.parametrize(
    ("unit", "length"),
    [
        ("um", 200),
        ("µm", 200),
        ("μm", 200),
        ("micron", 200),
        ("microns", 200),
        ("Micrometer", 200),
        ("micrometers", 200),
        ("mm", 0.2),
        ("millimeters", 0.2),
        ("cm", 0.02),
        ("nm", 200_000),
        ("m", 0.0002),
    ],
)
def test_an_nrrd_may_have_any_unit_of_length(unit, length, tmp_path, spool):
    directions = f"(0,{length},0) (0,0,-{length}) (-{length},0,0)"
    units = f'"{unit}" "{unit}" "{unit}"'
    (tmp_path / "a.nrrd").write_bytes(nrrd_file(more={"space directions": directions, "space units": units}))
    with open_annotation(tmp_path / "a.nrrd", spool) as found:
        assert_lumps(found)
        assert not any("no unit" in remark for remark in found.remarks)
    spacings = {**NO_SPACE, "spacings": f"{length} {length} {length}", "units": units}
    (tmp_path / "b.nrrd").write_bytes(nrrd_file(more=spacings))
    with open_annotation(tmp_path / "b.nrrd", spool, orientation="asl") as found:
        assert_lumps(found)


@pytest.mark.parametrize(
    ("more", "code", "named"),
    [
        ({"space units": '"ell" "ell" "ell"'}, "missing-voxel-size", "'ell'"),
        ({"space units": '"mm" "um" "mm"'}, "missing-voxel-size", "mm and um"),
        ({**NO_SPACE}, "missing-orientation", "space directions"),
        ({"space": None, "space dimension": 3, "sizes": "40 66 57"}, "missing-orientation", "space None"),
        ({"kinds": "RGB-color domain domain"}, "wrong-dimensions", "rgb-color"),
        ({"kinds": "domain domain 3-vector"}, "wrong-dimensions", "57 components"),
        ({"dimension": 4, "sizes": "2 66 40 57", **NO_SPACE}, "wrong-dimensions", "2 x 66 x 40 x 57"),
        ({"dimension": 3, "sizes": "66 40 " + "9" * 30}, "wrong-dimensions", ""),
        ({"dimension": 3, "sizes": "66 40 " + "9" * 5000}, "wrong-dimensions", ""),
        ({"sizes": "66 40 9000000000000000000"}, "wrong-dimensions", "9000000000000000000"),
        ({"sizes": "1 1 300000"}, "wrong-dimensions", "300000"),
        ({"sizes": "200000 200000 200000"}, "implausible-size", "40000 mm"),
        ({"encoding": "hex"}, "not-supported", "'hex'"),
        ({"encoding": "zrl"}, "not-supported", "'zrl'"),
        ({"byte skip": -2}, "not-supported", "-2"),
        ({"byte skip": 10**12}, "not-supported", "1000000000000"),
        ({"line skip": -1}, "not-supported", "-1 lines"),
        ({"line skip": 10**7}, "not-supported", "10000000 lines"),
        ({"line skip": 10**4}, "truncated-file", ""),
        ({"byte skip": 601921}, "truncated-file", ""),
        ({"byte skip": 1}, "truncated-file", ""),
        ({"byte skip": -1, "encoding": "gzip"}, "not-supported", "-1"),
        ({"byte skip": -1, "sizes": "66 40 58"}, "truncated-file", ""),
        ({"space directions": "(0,1e300,0) (0,0,-0.2) (-0.2,0,0)"}, "missing-voxel-size", "inf"),
        ({"space directions": "(0,0,0) (0,0,-0.2) (-0.2,0,0)"}, "missing-orientation", "oblique"),
        ({"space directions": "(0,0.2,0) (0,0,-0.2)"}, "missing-orientation", "space directions"),
    ],
)
def test_an_nrrd_that_cannot_be_read_is_refused(more, code, named, tmp_path, spool):
    (tmp_path / "a.nrrd").write_bytes(nrrd_file(more=more))
    with raises(InputError, code) as caught, open_annotation(tmp_path / "a.nrrd", spool):
        pass
    assert named in str(caught.value)


# NIfTI


#: The affine of the axes p, i, r in the space right-anterior-superior, in mm.
AFFINE = np.array([[0, 0, 0.2, -5.6], [-0.2, 0, 0, 5.3], [0, -0.2, 0, 5.2], [0, 0, 0, 1]])


def nifti_image(values=LABELS, *, unit="mm", kind=nibabel.Nifti1Image, sform=AFFINE, qform=AFFINE):
    image = kind(values, None)
    image.header.set_xyzt_units(unit)
    if qform is not None:
        image.set_qform(qform, 1)
    if sform is not None:
        image.set_sform(sform, 2)
    return image


def test_a_nifti_without_a_unit_is_in_mm_with_a_remark(tmp_path, spool):
    nibabel.save(nifti_image(unit="unknown"), tmp_path / "a.nii.gz")
    with open_annotation(tmp_path / "a.nii.gz", spool) as found:
        assert_lumps(found)
        (remark,) = [remark for remark in found.remarks if "no unit of length" in remark]
        assert "0.2 x 0.2 x 0.2" in remark
        assert "-5.6, 5.3, 5.2" in remark


@pytest.mark.parametrize("unit", ["mm", "micron", "meter"])
def test_a_nifti_with_a_unit_has_no_remark_on_it(unit, tmp_path, spool):
    scale = np.diag([{"mm": 1, "micron": 1e3, "meter": 1e-3}[unit]] * 3 + [1])
    image = nifti_image(unit=unit, sform=scale @ AFFINE, qform=None)
    nibabel.save(image, tmp_path / "a.nii")
    with open_annotation(tmp_path / "a.nii", spool) as found:
        assert_lumps(found)
        assert not any("no unit" in remark for remark in found.remarks)
        # pixdim is 1 x 1 x 1, which some programs follow.
        assert any("1 x 1 x 1 by pixdim" in remark for remark in found.remarks)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_nifti_pair_is_read(kind, ending, tmp_path, spool):
    nibabel.save(nifti_image(kind=kind), tmp_path / f"a.hdr{ending}")
    assert (tmp_path / f"a.img{ending}").is_file()
    with open_annotation(tmp_path / f"a.hdr{ending}", spool) as found:
        assert_lumps(found)
        assert "a.img" in found.remarks[-1]
    (tmp_path / f"b.hdr{ending}").write_bytes((tmp_path / f"a.hdr{ending}").read_bytes())
    with raises(NotFoundError, "file-not-found") as caught, open_annotation(tmp_path / f"b.hdr{ending}", spool):
        pass
    assert f"b.img{ending}" in str(caught.value)
    (tmp_path / "header").write_bytes((tmp_path / f"a.hdr{ending}").read_bytes())
    with raises(InputError, "invalid-data-file"), open_annotation(tmp_path / "header", spool):
        pass


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_nifti_with_trailing_axes_of_length_1_is_read(kind, tmp_path, spool):
    nibabel.save(nifti_image(LABELS[..., None, None], kind=kind), tmp_path / "a.nii.gz")
    with open_annotation(tmp_path / "a.nii.gz", spool) as found:
        assert_lumps(found)


def test_a_nifti_that_scales_its_values_is_read(tmp_path, spool):
    values = LABELS.copy()
    values[values > 100] = 30
    image = nifti_image((values / 10).astype("i2"))
    image.header.set_slope_inter(10, 0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    with open_annotation(tmp_path / "a.nii.gz", spool) as found:
        np.testing.assert_array_equal(found.array, values)


@pytest.mark.parametrize(
    ("qform", "named"),
    [
        (np.diag([0.2, 0.2, 0.2, 1]), "lpi by its qform"),
        (np.diag([2, 2, 2, 1]) @ AFFINE, "0.4 x 0.4 x 0.4 from asl by its qform"),
        (AFFINE * [[-1, -1, 1, 1]], "0.2 x 0.2 x 0.2 from pil by its qform"),
    ],
)
def test_a_nifti_whose_sform_and_qform_disagree_is_refused_unless_both_are_given(qform, named, tmp_path, spool):
    nibabel.save(nifti_image(qform=qform), tmp_path / "a.nii.gz")
    for options in ({}, {"orientation": "asl"}, {"voxel_size": 200}):
        with (
            raises(InputError, "contradictory-header") as caught,
            open_annotation(tmp_path / "a.nii.gz", spool, **options),
        ):
            pass
        assert named in str(caught.value)
        assert "0.2 x 0.2 x 0.2 from asl by its sform" in str(caught.value)
    with open_annotation(tmp_path / "a.nii.gz", spool, orientation="asl", voxel_size=200) as found:
        assert_lumps(found)


def test_a_nifti_whose_sform_and_qform_differ_by_the_precision_of_a_quaternion_is_read(tmp_path, spool):
    nibabel.save(nifti_image(qform=AFFINE * 1.0001), tmp_path / "a.nii.gz")
    with open_annotation(tmp_path / "a.nii.gz", spool) as found:
        assert_lumps(found)


@pytest.mark.parametrize(
    ("field", "value"), [("sform_code", 256), ("qform_code", -1), ("sizeof_hdr", 347), ("datatype", 3)]
)
def test_a_nifti_header_is_not_repaired_with_a_guess(field, value, tmp_path, spool, caplog):
    image = nifti_image()
    header = bytearray(image.to_bytes())
    at = {"sform_code": 254, "qform_code": 252, "sizeof_hdr": 0, "datatype": 70}[field]
    header[at : at + 2] = value.to_bytes(2, "little", signed=True)
    (tmp_path / "a.nii").write_bytes(header)
    with raises(InputError, "unreadable-header") as caught, open_annotation(tmp_path / "a.nii", spool):
        pass
    assert str(value) in str(caught.value)
    assert not caplog.records


# TIFF


def test_an_ome_tiff_has_a_voxel_size(tmp_path, spool):
    sizes = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 200, "PhysicalSizeZ": 200_000}
    units = {"PhysicalSizeXUnit": "mm", "PhysicalSizeZUnit": "nm"}
    for axes, shape in (("ZYX", LABELS.shape), ("TCZYX", (1, 1, *LABELS.shape))):
        values = LABELS.reshape(shape)
        tifffile.imwrite(tmp_path / "a.ome.tif", values, metadata={"axes": axes, **sizes, **units})
        with open_annotation(tmp_path / "a.ome.tif", spool, orientation="asl") as found:
            assert_lumps(found)
        with open_annotation(tmp_path / "a.ome.tif", spool) as found:  # the CCF, by its extent
            assert_lumps(found)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_an_imagej_tiff_has_a_voxel_size(compression, tmp_path, spool):
    values = np.where(LABELS == 614454277, 30, LABELS).astype("u2")
    for unit, size in (("um", 200), ("micron", 200), ("\\u00B5m", 200), ("mm", 0.2)):
        metadata = {"axes": "ZYX", "spacing": size, "unit": unit}
        options = {"resolution": (1 / size, 1 / size), "compression": compression}
        tifffile.imwrite(tmp_path / "a.tif", values, imagej=True, metadata=metadata, **options)
        with open_annotation(tmp_path / "a.tif", spool, orientation="asl") as found:
            np.testing.assert_array_equal(found.array, values)
            assert found.voxel_size == pytest.approx((200, 200, 200), rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": (72, 72), "resolutionunit": "inch"},
        {"resolution": (50, 50), "resolutionunit": "centimeter"},
        {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 200}, "resolution": (1 / 200, 1 / 200)},
        {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 200, "unit": "pixel"}},
        {"imagej": True, "metadata": {"axes": "ZYX", "unit": "um"}, "resolution": (1 / 200, 1 / 200)},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 200, "PhysicalSizeY": 200}},
        {"ome": True, "metadata": {"axes": "ZYX", **{f"PhysicalSize{axis}": -1 for axis in "XYZ"}}},
        {"ome": True, "metadata": {"axes": "ZYX", **{f"PhysicalSize{axis}Unit": "pixel" for axis in "XYZ"}}},
    ],
)
def test_a_tiff_without_a_whole_voxel_size_has_none(options, tmp_path, spool):
    tifffile.imwrite(tmp_path / "a.tif", LABELS.astype("u2"), photometric="minisblack", **options)
    with (
        raises(InputError, "missing-voxel-size"),
        open_annotation(tmp_path / "a.tif", spool, orientation="asl"),
    ):
        pass


def test_a_tiff_of_several_images_is_read_by_its_first_with_a_remark(tmp_path, spool):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(LABELS, metadata=None, photometric="minisblack")
        tiff.write(np.zeros((4, 9, 9), "u1"), metadata=None, photometric="minisblack")
    with open_annotation(tmp_path / "a.tif", spool, orientation="asl", voxel_size=200) as found:
        assert_lumps(found)
        assert "2 images; the first, of 66 x 40 x 57 voxels" in found.remarks[0]


@pytest.mark.parametrize(
    ("values", "options", "named"),
    [
        (np.zeros((4, 5, 6, 3), "u1"), {"photometric": "rgb"}, "3 samples"),
        (np.zeros((5, 6, 3), "u1"), {"photometric": "rgb"}, "3 samples"),
        (np.zeros((3, 5, 6), "u1"), {"photometric": "rgb", "planarconfig": "separate"}, "3 samples"),
        (np.zeros((2, 4, 5, 6), "u1"), {"ome": True, "metadata": {"axes": "CZYX"}}, "2 channels"),
        (np.zeros((4, 2, 5, 6), "u1"), {"ome": True, "metadata": {"axes": "ZCYX"}}, "2 channels"),
        (np.zeros((2, 5, 6), "u1"), {"ome": True, "metadata": {"axes": "CYX"}}, "2 channels"),
        (np.zeros((4, 2, 5, 6), "u1"), {"imagej": True, "metadata": {"axes": "ZCYX"}}, "2 channels"),
        (np.zeros((2, 4, 5, 6), "u1"), {"ome": True, "metadata": {"axes": "TZYX"}}, "2 x 4 x 5 x 6"),
        (np.zeros((5, 6), "u1"), {}, "5 x 6"),
    ],
)
def test_a_tiff_of_several_values_per_voxel_is_refused(values, options, named, tmp_path, spool):
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with (
        raises(InputError, "wrong-dimensions") as caught,
        open_annotation(tmp_path / "a.tif", spool, orientation="asl", voxel_size=1),
    ):
        pass
    assert named in str(caught.value)


# What the header of each format gives


def header_of(format):
    """The header of the same volume, 0.1 x 0.2 x 0.3 mm from i, r, p, with its origin at 1, -2, 3 mm of LPS."""
    directions = np.array([[0, 0, 0.1], [0.2, 0, 0], [0, -0.3, 0]])
    if format == "metaimage":
        body = metaimage(directions=np.sign(directions), spacing=(0.1, 0.2, 0.3), Offset="1 -2 3")
        return read_metaimage_header(io.BytesIO(body), "a")
    if format == "nrrd":
        rows = " ".join(f"({','.join(map(str, row))})" for row in directions)
        return read_nrrd_header(io.BytesIO(nrrd_file(more={"space directions": rows, "space origin": "(1,-2,3)"})), "a")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.diag([-1, -1, 1]) @ directions.T, (-1, 2, 3)
    image = nifti_image(unit="unknown", sform=affine, qform=affine)
    return read_nifti_header(io.BytesIO(image.to_bytes()), "a")


@pytest.mark.parametrize("format", ["metaimage", "nrrd", "nifti"])
def test_a_header_gives_its_origin_along_the_axes_of_the_file_and_its_numbers(format):
    header = header_of(format)
    assert header.origin == "irp"
    assert header.spacing == pytest.approx((100, 200, 300))
    # Each along the direction in which its axis runs: superior, left, anterior.
    assert header.position == pytest.approx((3000, 1000, 2000))
    assert header.unit_assumed
    assert not header.contradiction
    assert header.numbers.startswith("spacing 0.1 x 0.2 x 0.3 (no unit), origin ")
    assert header.numbers.endswith("-1, 2, 3" if format == "nifti" else "1, -2, 3")


# Files of other formats


def mgh():
    return np.array([1, 4, 5, 6, 1, 0, 0], ">i4").tobytes() + bytes(300)


def saved(function, *arguments):
    target = io.BytesIO()
    function(target, *arguments)
    return target.getvalue()


def zipped():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.nii", b"x")
    return target.getvalue()


def tar():
    return b"a.nii".ljust(257, b"\0") + b"ustar\x0000" + bytes(300)


NIFTI = saved(lambda target: target.write(nifti_image().to_bytes()))
OTHERS = {
    "a.npy": (saved(np.save, LABELS), "a NumPy array"),
    "a.npz": (saved(np.savez, LABELS), "a zip archive"),
    "a.zip": (zipped(), "a zip archive"),
    "a.mgh": (mgh(), "an MGH file"),
    "a.mnc": (b"\x89HDF\r\n\x1a\n" + bytes(400), "HDF5"),
    "a.ims": (b"\x89HDF\r\n\x1a\n" + bytes(400), "HDF5"),
    "old.mnc": (b"CDF\x01" + bytes(400), "NetCDF"),
    "a.czi": (b"ZISRAWFILE" + bytes(400), "CZI"),
    "a.nd2": (b"\xda\xce\xbe\x0a" + bytes(400), "ND2"),
    "a.jpg": (b"\xff\xd8\xff\xe0" + bytes(400), "JPEG"),
    "a.png": (b"\x89PNG\r\n\x1a\n" + bytes(400), "PNG"),
    "a.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(400), "JPEG 2000"),
    "a.dcm": (bytes(128) + b"DICM" + bytes(400), "DICOM"),
    "a.hdr": (np.array([348], "<i4").tobytes() + bytes(344), "Analyze"),
    "big.hdr": (np.array([348], ">i4").tobytes() + bytes(344), "Analyze"),
    "a.tar": (tar(), "a tar archive"),
    "a.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(400), "7z"),
    "a.nii.bz2": (bz2.compress(NIFTI), "bunzip2 it first"),
    "a.nii.xz": (lzma.compress(NIFTI), "unxz it first"),
    "a.nii.zst": (b"\x28\xb5\x2f\xfd" + bytes(400), "unzstd it first"),
    "a.nii.lz4": (b"\x04\x22\x4d\x18" + bytes(400), "unlz4 it first"),
    "page.nrrd": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
    "pointer.nrrd": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
    "annexed.nrrd": (b"/annex/objects/MD5E-s1--1.nrrd\n", "git annex get"),
    "graph.json": (b'{"success": true}', "a JSON document"),
    "a.raw": (BODY, "give the .mhd or .nhdr"),
    "a.zraw": (zlib.compress(BODY), "give the .mhd"),
    "a.img": (BODY, "give the .hdr"),
    "a.vtk": (b"# vtk DataFile Version 3.0\n", "VTK"),
}
COMPRESSED = {
    "a.mgz": (mgh(), "an MGH file"),
    "a.nrrd.gz": (nrrd_file(), "an NRRD"),
    "a.tif.gz": (saved(tifffile.imwrite, LABELS), "a TIFF"),
    "a.mha.gz": (metaimage() + BODY, "a MetaImage"),
    "a.tar.gz": (tar(), "a tar archive"),
    "a.nii.gz.gz": (gzip.compress(NIFTI), "a gzip"),
    "a.npy.gz": (saved(np.save, LABELS), "a NumPy array"),
    "a.json.gz": (b'{"a": 1}', "a JSON document"),
    "a.raw.gz": (b"plain bytes", "give the .nhdr"),
    "a.img.gz": (BODY, "give the .hdr.gz"),
    "empty.gz": (b"", "b''"),
}


@pytest.mark.parametrize("name", [*OTHERS, *COMPRESSED])
def test_a_file_of_another_format_is_named_for_what_it_is(name, tmp_path, spool, caplog):
    body, named = OTHERS[name] if name in OTHERS else COMPRESSED[name]
    (tmp_path / name).write_bytes(body if name in OTHERS else gzip.compress(body))
    with raises(InputError, "unknown-format") as caught, open_annotation(tmp_path / name, spool):
        pass
    sentence = str(caught.value).removeprefix(str(tmp_path / name))
    assert named in sentence
    assert ("gzip of" in sentence) == (name in COMPRESSED)
    if name in COMPRESSED and "b'" not in named and "give" not in named:
        assert "gunzip it first" in sentence
    assert not caplog.records


# Bombs, and headers that lie


@pytest.fixture
def measured(tmp_path, spool):
    """The peak of the memory that the test takes, in bytes, as a callable; imports are done before."""
    (tmp_path / "small").write_bytes(nrrd_file(gzip.compress(bytes(8)), encoding="gzip", kind="uint8", sizes="2 2 2"))
    with open_annotation(tmp_path / "small", spool):
        pass
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def deflated_zeros(size, wbits):
    """Zeros as one deflated stream, whose second block is repeated; its checksum is not theirs."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, wbits)
    first, second = (compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + second * (size // 2**20 - 1) + compressor.flush()


@pytest.mark.parametrize("format", ["nrrd", "nifti", "metaimage"])
def test_a_bomb_is_decompressed_only_into_what_its_header_states(format, tmp_path, spool, measured):
    size = 2**27
    if format == "nrrd":
        body = nrrd_file(deflated_zeros(size, 31), encoding="gzip", sizes="2 2 2")
    elif format == "metaimage":
        body = metaimage(CompressedData=True, DimSize="2 2 2") + deflated_zeros(size, 15)
    else:
        head = nifti_image(np.zeros((2, 2, 2), "u4")).to_bytes()[:352]
        body = gzip.compress(head) + deflated_zeros(size, 31)
    (tmp_path / "a").write_bytes(body)
    with raises(InputError, "file-too-large"), open_annotation(tmp_path / "a", spool):
        pass
    assert measured() < 2**24


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
def test_a_segment_of_a_tiff_is_decompressed_only_into_what_its_page_states(compression, tmp_path, spool, measured):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((2, 16, 16), "u1"), compression=compression, metadata=None)
    bomb = deflated_zeros(2**27 + 2**24, 15) if compression == "zlib" else lzma_zeros(2**27)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        end = tiff.filehandle.size
        tags = tiff.pages[1].tags
        tags["StripOffsets"].overwrite([end])
        tags["StripByteCounts"].overwrite([len(bomb)])
    with (tmp_path / "a.tif").open("ab") as file:
        file.write(bomb)
    tracemalloc.reset_peak()
    with (
        raises(InputError, "damaged-file") as caught,
        open_annotation(tmp_path / "a.tif", spool, orientation="asl", voxel_size=1),
    ):
        pass
    assert "256 bytes" in str(caught.value)
    assert measured() < 2**26


def lzma_zeros(size):
    compressor = lzma.LZMACompressor(preset=0)
    piece = bytes(2**20)
    return b"".join([*(compressor.compress(piece) for _ in range(size // 2**20)), compressor.flush()])


@pytest.mark.parametrize("format", ["nrrd", "nifti", "metaimage"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_header_that_states_more_than_the_file_holds_is_refused_before_memory_is_taken(
    format, compressed, tmp_path, spool, measured
):
    sizes = "16384 16384 32767"
    pack = gzip.compress if compressed else bytes
    if format == "nrrd":
        body = nrrd_file(pack(BODY), encoding="gzip" if compressed else "raw", kind="uint8", sizes=sizes)
    elif format == "metaimage":
        text = metaimage(CompressedData=compressed, DimSize=sizes, ElementType="MET_UCHAR")
        body = text + (zlib.compress(BODY) if compressed else BODY)
    else:
        head = nifti_image(np.zeros((2, 2, 2), "u1")).header
        head["dim"][1:4] = 16384, 16384, 32767
        head["vox_offset"] = 352
        body = pack(head.binaryblock + bytes(4) + BODY)
    (tmp_path / "a").write_bytes(body)
    given = {"orientation": "asl", "voxel_size": 1}
    with pytest.raises(InputError) as caught, open_annotation(tmp_path / "a", spool, **given):
        pass
    assert caught.value.code in ("truncated-file", "plane-too-large")
    assert measured() < 2**29
    assert list(spool.iterdir()) == []
