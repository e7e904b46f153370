"""The zip of expression grids: an intact one in every order, and those that are refused."""

import io
import warnings
import zipfile
import zlib

import numpy as np
import pytest

from atlaszarr.errors import ImageError, RecordError
from atlaszarr.expression_grids.archive import GridArchive, read_archive
from atlaszarr.geometry.spaces import reference_space
from codes import raises

SHAPE = (4, 3, 2)
HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 200 200 200
DimSize = 4 3 2
ElementType = MET_FLOAT
ElementDataFile = energy.raw
"""
VALUES = np.arange(24, dtype="<f4").reshape(SHAPE)
VALUES[1, 2, 0] = -1
BODY = VALUES.tobytes(order="F")


def archive(*members, compression=zipfile.ZIP_DEFLATED):
    """A zip of pairs of name and content."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", compression) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that occurs twice
        for name, content in members:
            opened.writestr(name, content)
    return body.getvalue()


def test_the_first_axis_is_p_and_no_data_is_nan():
    found = read_archive(archive(("energy.mhd", HEADER), ("energy.raw", BODY)), ["energy"], "grid")
    assert (found.values.shape, found.values.dtype, found.spacing) == ((1, *SHAPE), np.float32, 200.0)
    assert np.isnan(found.values[0, 1, 2, 0])
    assert np.array_equal(np.nan_to_num(found.values[0], nan=-1), VALUES)


def test_compressed_voxels_and_big_endian_ones_are_read():
    for old, new, body in (
        ("BinaryData = True\n", "BinaryData = True\nCompressedData = True\n", zlib.compress(BODY)),
        ("MSB = False", "MSB = True", VALUES.astype(">f4").tobytes(order="F")),
    ):
        members = ("energy.mhd", HEADER.replace(old, new)), ("energy.raw", body)
        found = read_archive(archive(*members), ["energy"], "grid")
        assert np.array_equal(np.nan_to_num(found.values[0], nan=-1), VALUES)


def cut(body):
    return body[: len(body) // 2]


def flipped(body):
    """With one bit of the voxels changed, which their checksum reveals."""
    at = body.index(BODY[40:60])
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def with_value(value):
    """The voxels with another first value."""
    values = VALUES.copy()
    values[0, 0, 0] = value
    return values.tobytes(order="F")


INTACT = ("energy.mhd", HEADER), ("energy.raw", BODY)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"<html>the service is down</html>", "zip"),
        (b"", "zip"),
        (cut(archive(*INTACT)), "zip"),
        (flipped(archive(*INTACT, compression=zipfile.ZIP_STORED)), "CRC"),
        (archive(INTACT[0]), "energy.raw"),
        (archive(INTACT[1]), "energy.mhd"),
        (archive(("energy.mhd", ""), INTACT[1]), "cut short"),
        (archive(("energy.mhd", "x" * 2**17), INTACT[1]), "65536"),
        (archive(INTACT[0], ("energy.raw", BODY[:-4])), "cut short"),
        (archive(INTACT[0], ("energy.raw", BODY + b"1234")), "more than the 96 bytes"),
        (archive(INTACT[0], ("energy.raw", bytes(2**26))), "more than the 96 bytes"),
        (archive(*INTACT, INTACT[1]), "two members"),
        (archive(*INTACT, ("../evil", b"")), "'../evil'"),
        (archive(*INTACT, ("a/energy.raw", BODY)), "another folder"),
        (archive(*INTACT, *((str(n), b"") for n in range(20))), "22 members"),
        (archive(("energy.mhd", HEADER.replace("energy.raw", "../energy.raw")), INTACT[1]), "'../energy.raw'"),
        (archive(("energy.mhd", HEADER.replace("energy.raw", "LOCAL")), INTACT[1]), "None"),
        (archive(("energy.mhd", HEADER.replace("4 3 2", "4000 3000 2000")), INTACT[1]), "4000 x 3000 x 2000"),
        (archive(("energy.mhd", HEADER.replace("MET_FLOAT", "MET_DOUBLE")), INTACT[1]), "float64"),
        (archive(("energy.mhd", HEADER.replace("200 200 200", "200 200 100")), INTACT[1]), "not one distance"),
        (archive(("energy.mhd", HEADER.replace("ElementType", "HeaderSize = 8\nElementType")), INTACT[1]), "8 bytes"),
        (archive(("energy.mhd", HEADER.replace("200 200 200", "0 0 0")), INTACT[1]), "not one distance"),
        (archive(("energy.mhd", HEADER.replace("200 200 200", "inf inf inf")), INTACT[1]), "'inf'"),
        (archive(("energy.mhd", HEADER.replace("4 3 2", "-4 3 -2")), INTACT[1]), "-4 x 3 x -2"),
        (archive(INTACT[0], ("energy.raw", with_value(np.inf))), "the value inf"),
        (archive(INTACT[0], ("energy.raw", with_value(-np.inf))), "the value -inf"),
        (archive(INTACT[0], ("energy.raw", with_value(-2))), "the value -2"),
    ],
)
def test_a_zip_that_is_not_a_grid_is_refused(body, named):
    with raises(ImageError, "damaged-grid") as caught:
        read_archive(body, ["energy"], "grid")
    assert named in str(caught.value)


def test_two_quantities_with_one_data_file_are_refused():
    with raises(ImageError, "damaged-grid") as caught:
        read_archive(archive(*INTACT, ("density.mhd", HEADER)), ["energy", "density"], "grid")
    assert "density.mhd in grid" in str(caught.value)
    assert "those of energy" in str(caught.value)


COMPRESSIONS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_zip_with_any_byte_changed_is_refused_or_has_its_values(compression):
    body = archive(*INTACT, compression=compression)
    rng = np.random.default_rng(1)
    refused = 0
    for at in range(len(body)):
        damaged = bytearray(body)
        damaged[at] ^= int(rng.integers(1, 256))
        if at % 5 == 0:
            damaged[int(rng.integers(len(body)))] ^= 255
        try:
            found = read_archive(bytes(damaged), ["energy"], "grid")
        except ImageError:
            refused += 1
        else:
            assert np.array_equal(np.nan_to_num(found.values[0], nan=-1), VALUES)
    assert refused > len(body) / 2


def test_a_zip_that_encrypts_its_members_is_refused():
    body = bytearray(archive(*INTACT))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = 0
        while (at := body.find(signature, at)) >= 0:
            body[at + offset] |= 1
            at += 4
    with raises(ImageError, "damaged-grid"):
        read_archive(bytes(body), ["energy"], "grid")


@pytest.mark.parametrize(
    ("space", "shape", "spacing", "first"),
    [(9, (67, 41, 58), 200.0, 0.0), (9, (66, 40, 57), 200.0, 100.0), (6, (77, 43, 50), 160.0, 80.0)],
)
def test_the_points_fill_the_reference_space(space, shape, spacing, first):
    grid = GridArchive(("energy",), np.zeros((1, *shape), np.float32), spacing)
    assert grid.first(reference_space(space)) == first


@pytest.mark.parametrize(("shape", "spacing"), [((67, 41, 57), 200.0), ((1, 1, 1), 20_000.0), ((2, 2, 2), 1e-300)])
def test_a_grid_that_does_not_fill_its_space_is_refused(shape, spacing):
    with raises(RecordError, "wrong-grid") as caught:
        GridArchive(("energy",), np.zeros((1, *shape), np.float32), spacing).first(reference_space(9))
    assert " x ".join(map(str, shape)) in str(caught.value)
