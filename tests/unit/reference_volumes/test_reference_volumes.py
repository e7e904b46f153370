"""Reference volumes in every format and from every store, against plain NumPy; remarks, and errors."""

import bz2
import functools
import gzip
import hashlib
import pickle
import tracemalloc
from pathlib import Path

import cloudpickle
import fsspec
import nibabel
import nrrd
import numpy as np
import pytest
import tifffile
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaszarr import Terminology
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import InputError, NotFoundError, SourceError, TargetError
from atlaszarr.geometry.spaces import ORIENTATION
from atlaszarr.reference_volumes import (
    ReferenceVolume,
    open_annotation,
    open_template,
    strided_factor,
    unknown_labels,
    unknown_labels_remark,
)
from atlaszarr.reference_volumes.orientation import Orientation
from atlaszarr.stores.input_file import InputFile
from atlaszarr.testing.ontology import structure_graph
from atlaszarr.writing import write_multiscales
from codes import raises

CCF = Path(__file__).parents[4] / "shared" / "data" / "ccf"
real = pytest.mark.skipif(not CCF.is_dir(), reason="the shared data (../shared/data) is missing")

#: The CCF at 200 um: headers of the Allen Institute are recognised by the extent of the volume.
SHAPE = (66, 40, 57)
HEADER = """NRRD0004
# an invented volume
type: {type}
dimension: 3
space: left-posterior-superior
sizes: {sizes}
space directions: ({size},0,0) (0,{size},0) (0,0,{size})
kinds: domain domain domain
endian: little
encoding: {encoding}
space origin: (0,0,0)
{more}
"""
TYPES = {
    "u1": "uchar",
    "u2": "ushort",
    "u4": "unsigned int",
    "i4": "int",
    "u8": "uint64",
    "f4": "float",
    "f8": "double",
}
PACK = {"raw": bytes, "gzip": functools.partial(gzip.compress, mtime=0), "bzip2": bz2.compress}


def labels_of(shape, dtype="u4", seed=0):
    """Boxes of labels, among them ids that only unsigned 32 bits hold, in a field of 0."""
    rng = np.random.default_rng(seed)
    volume = np.zeros(shape, dtype)
    for label in (997, 8, 614454277, 3000000019, 4294967295) if np.dtype(dtype).itemsize > 2 else (3, 200, 8):
        low = [rng.integers(0, n) for n in shape]
        high = [rng.integers(a, n) + 1 for a, n in zip(low, shape, strict=True)]
        volume[tuple(map(slice, low, high))] = label
    return volume


def nrrd_bytes(volume, encoding="gzip", size=200, more="", shape=None):
    """A file with a header as the Allen Institute writes it: fastest axis first."""
    sizes = " ".join(map(str, shape or volume.shape))
    kind = TYPES[volume.dtype.str[1:]]
    head = HEADER.format(type=kind, sizes=sizes, size=size, encoding=encoding, more=more + "\n" if more else "")
    return head.encode() + PACK[encoding](volume.tobytes(order="F"))


def write(path, volume, **options):
    path.write_bytes(nrrd_bytes(volume, **options))
    return path


@pytest.fixture(scope="module")
def volume():
    return labels_of(SHAPE)


@pytest.fixture
def spool(tmp_path):
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def affine(size=0.2):
    """The affine of a NIfTI whose axes are p, i, r with the origin at the anterior superior left."""
    found = np.zeros((4, 4))
    found[1, 0] = found[2, 1] = -size
    found[0, 2] = size
    found[3, 3] = 1
    return found


def nifti(volume, path, kind=nibabel.Nifti1Image, at=None):
    image = kind(volume, affine() if at is None else at)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


def as_nrrd(encoding, volume, folder):
    return write(folder / "a.nrrd", volume, encoding=encoding)


def as_nifti(name, kind, volume, folder):
    return nifti(volume, folder / name, kind)


def as_tiff(options, volume, folder):
    tifffile.imwrite(folder / "a.tif", volume, photometric="minisblack", **options)
    return folder / "a.tif"


def as_ome_zarr(version, volume, folder):
    geometry = Geometry((0.2, 0.2, 0.2), orientation=ORIENTATION)
    write_multiscales(volume, folder / "a.ome.zarr", rule="mode", geometry=geometry, ome_zarr=version, chunk=32)
    return folder / "a.ome.zarr"


FORMATS = {
    "nrrd": functools.partial(as_nrrd, "raw"),
    "nrrd gzip": functools.partial(as_nrrd, "gzip"),
    "nrrd bzip2": functools.partial(as_nrrd, "bzip2"),
    "nifti": functools.partial(as_nifti, "a.nii", nibabel.Nifti1Image),
    "nifti gzip": functools.partial(as_nifti, "a.nii.gz", nibabel.Nifti1Image),
    "nifti 2": functools.partial(as_nifti, "a.nii", nibabel.Nifti2Image),
    "nifti 2 gzip": functools.partial(as_nifti, "a.nii.gz", nibabel.Nifti2Image),
    "tiff": functools.partial(as_tiff, {}),
    "tiff big endian": functools.partial(as_tiff, {"byteorder": ">"}),
    "tiff deflate": functools.partial(as_tiff, {"compression": "zlib"}),
    "ome-zarr 0.4": functools.partial(as_ome_zarr, "0.4"),
    "ome-zarr 0.5": functools.partial(as_ome_zarr, "0.5"),
}
MAPPED = {"nrrd", "nifti", "nifti 2", "tiff", "tiff big endian"}


def missing_metadata(name):
    """The options for what the files of a format lack."""
    return {"orientation": "asl", "voxel_size": 200} if name.startswith("tiff") else {}


# Every format, every store


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_volume(name, volume, tmp_path, spool):
    if name == "ome-zarr 0.4":
        write_multiscales(volume, tmp_path / "a.ome.zarr", rule="mode", ome_zarr="0.4", chunk=32)
        path = tmp_path / "a.ome.zarr"
        options = {"orientation": "asl", "voxel_size": 200}  # 0.4 has no orientations
    else:
        path, options = FORMATS[name](volume, tmp_path), missing_metadata(name)
    with open_annotation(path, spool, **options) as found:
        assert found.array.dtype == np.uint32
        np.testing.assert_array_equal(found.array, volume)
        np.testing.assert_allclose(found.voxel_size, 200, rtol=1e-12)
        np.testing.assert_array_equal(found.find_labels(), np.unique(volume)[1:])
        assert found.uri == str(path)
        if "zarr" in name:
            assert found.size is found.sha256 is found.labels is None
        elif name in MAPPED:
            assert found.size == path.stat().st_size
            assert found.sha256 is found.labels is None
        else:
            assert found.size == path.stat().st_size
            assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            np.testing.assert_array_equal(found.labels, np.unique(volume)[1:])
        kept = list(spool.iterdir())
        assert bool(kept) == (found.sha256 is not None)
        # Workers get the path of the voxels, not the voxels.
        assert len(cloudpickle.dumps(found.array)) < 20_000
        again = pickle.loads(cloudpickle.dumps(found.array))
        np.testing.assert_array_equal(again[10:20, :, 5], volume[10:20, :, 5])
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in FORMATS if "zarr" not in name])
def test_a_remote_file_is_read_once_and_spooled(name, volume, tmp_path, spool):
    body = FORMATS[name](volume, tmp_path).read_bytes()
    fsspec.register_implementation("countedbytes", Counted, clobber=True)
    Counted.read = 0
    with fsspec.open("memory://counted/a", "wb") as file:
        file.write(body)
    with open_annotation("countedbytes://counted/a", spool, **missing_metadata(name)) as found:
        np.testing.assert_array_equal(found.array, volume)
        assert found.sha256 == hashlib.sha256(body).hexdigest()
        assert found.size == Counted.read == len(body)


class Counted(MemoryFileSystem):
    """The memory filesystem, with a count of the bytes that were read."""

    protocol = "countedbytes"
    read = 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("countedbytes://", "memory://"))

    def _open(self, path, mode="rb", **options):
        body = super()._open(path, mode, **options).getvalue()
        return CountedFile(None, path, body)


class CountedFile(MemoryFile):
    def read(self, size=-1):
        body = super().read(size)
        Counted.read += len(body)
        return body


@pytest.mark.slow
def test_reading_continues_where_a_connection_broke(spool):
    fsspec.register_implementation("breaking", Breaking, clobber=True)
    body = nrrd_bytes(np.random.default_rng(0).integers(0, 2**32, SHAPE, "u4"), encoding="raw")
    assert len(body) > 2**19
    with fsspec.open("memory://breaking/a", "wb") as file:
        file.write(body * 8)
    Breaking.left = 2
    with InputFile.open("breaking://breaking/a") as file:
        assert file.read() == body * 8
        assert file.finish() == (len(body) * 8, hashlib.sha256(body * 8).hexdigest())
    assert Breaking.left == 0
    Breaking.left = 100
    with pytest.raises(SourceError, match="breaking://breaking/a"):
        open_annotation("breaking://breaking/a", spool).__enter__()


class Breaking(MemoryFileSystem):
    """The memory filesystem over a connection that breaks `left` times, past its first megabyte or at once."""

    protocol = "breaking"
    left = 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("breaking://", "memory://"))

    def _open(self, path, mode="rb", **options):
        return BreakingFile(None, path, super()._open(path, mode, **options).getvalue())


class BreakingFile(MemoryFile):
    def read(self, size=-1):
        if Breaking.left and (self.tell() or Breaking.left > 2):
            Breaking.left -= 1
            raise ConnectionResetError(104, "Connection reset by peer")
        return super().read(size)


def test_memory_is_bounded_by_a_slab(tmp_path, spool):
    deep = np.zeros((128, 96, 64 * 16), "u4")
    deep[5, 6, ::7] = 5
    path = write(tmp_path / "a.nrrd", deep)
    slab = deep.nbytes // 16
    size = deep.nbytes
    del deep
    tracemalloc.start()
    try:
        with open_annotation(path, spool, orientation="asl", voxel_size=1):
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert slab < peak < 4 * slab < size / 3


# Orientation


def test_a_header_of_the_allen_institute_is_recognised_with_a_remark(volume, tmp_path, spool):
    with open_annotation(write(tmp_path / "a.nrrd", volume), spool) as found:
        (remark,) = found.remarks
    assert "names the space left-posterior-superior" in remark
    assert "read as p, i, r (asl)" in remark


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        (("sizes: 66 40 57", "sizes: 66 40 56"), "missing-orientation", "left-posterior-superior"),
        (("(200,0,0)", "(-200,0,0)"), "contradictory-header", "begin at lai"),
        (("(200,0,0)", "(100,0,0)"), "missing-orientation", "left-posterior-superior"),
        (
            ("space directions: (200,0,0) (0,200,0) (0,0,200)", "spacings: 250 200 200"),
            "missing-orientation",
            "space directions",
        ),
        (("(200,0,0)", "(200,20,0)"), "missing-orientation", "oblique"),
        (("encoding: gzip\n", "encoding: gzip\nspace units: ell ell ell\n"), "missing-voxel-size", "unit 'ell'"),
        (("left-posterior-superior", "right-anterior-superior"), "contradictory-header", "begin at lpi"),
    ],
)
def test_a_header_without_a_certain_orientation_is_refused_unless_it_is_given(change, code, named, tmp_path, spool):
    shape = (66, 40, 56) if "sizes" in change[0] else SHAPE
    volume = labels_of(shape)
    body = nrrd_bytes(volume).replace(change[0].encode(), change[1].encode(), 1)
    assert body != nrrd_bytes(volume) or "sizes" in change[0]
    (tmp_path / "a.nrrd").write_bytes(body)
    with raises(InputError, code) as caught, open_annotation(tmp_path / "a.nrrd", spool):
        pass
    assert named in str(caught.value)
    assert list(spool.iterdir()) == []
    with open_annotation(tmp_path / "a.nrrd", spool, orientation="asl", voxel_size=(200, 200, 200)) as found:
        np.testing.assert_array_equal(found.array, volume)
        assert found.voxel_size == (200.0, 200.0, 200.0)


def test_a_valid_header_gives_the_orientation_and_the_voxel_size(volume, tmp_path, spool):
    header = {
        "space": "right-anterior-superior",
        "space directions": [[0.3, 0, 0], [0, 0.2, 0], [0, 0, 0.1]],
        "space units": ["mm", "mm", "mm"],
    }
    nrrd.write(str(tmp_path / "a.nrrd"), volume, header)
    with open_annotation(tmp_path / "a.nrrd", spool) as found:
        np.testing.assert_array_equal(found.array, volume.transpose(1, 2, 0)[::-1, ::-1])
        np.testing.assert_allclose(found.voxel_size, (200, 100, 300))
        (remark,) = found.remarks
    assert "begin at lpi" in remark
    with open_annotation(tmp_path / "a.nrrd", spool, orientation="asl", voxel_size=25) as found:
        np.testing.assert_array_equal(found.array, volume)
        first, second = found.remarks
    assert "read as asl" in first
    assert "read as 25 um, as given" in second


@settings(max_examples=30)
@given(pairs=st.permutations(("ap", "si", "rl")), sides=st.tuples(*[st.integers(0, 1)] * 3), data=st.data())
def test_every_orientation_is_that_of_nibabel(pairs, sides, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("oriented")
    (folder / "spool").mkdir()
    origin = "".join(pair[side] for pair, side in zip(pairs, sides, strict=True))
    shape = tuple(
        data.draw(st.permutations([data.draw(st.sampled_from([1, 64, 130])), 3, data.draw(st.integers(1, 5))]))
    )
    volume = np.random.default_rng(0).integers(0, 2**32, shape, "u4")
    grows = {"a": "P", "p": "A", "s": "I", "i": "S", "r": "L", "l": "R"}
    codes = [tuple(grows[letter] for letter in letters) for letters in (origin, "asl")]
    change = nibabel.orientations.ornt_transform(*map(nibabel.orientations.axcodes2ornt, codes))
    expected = nibabel.orientations.apply_orientation(volume, change)
    for encoding in ("raw", "gzip"):
        path = write(folder / "a.nrrd", volume, encoding=encoding)
        with open_annotation(path, folder / "spool", orientation=origin, voxel_size=25) as found:
            np.testing.assert_array_equal(found.array, expected)
    at = np.zeros((4, 4))
    for axis, (world, sign) in enumerate(nibabel.orientations.axcodes2ornt(codes[0])):
        at[int(world), axis] = sign * 0.025
    at[3, 3] = 1
    nifti(volume, folder / "a.nii", at=at)
    with open_annotation(folder / "a.nii", folder / "spool") as found:
        np.testing.assert_array_equal(found.array, expected)
        assert found.voxel_size == (25.0, 25.0, 25.0)


@pytest.mark.parametrize("orientation", ["", "as", "aaa", "asx", "apr", "asrl", 7])
def test_an_invalid_orientation_is_refused(orientation, volume, tmp_path, spool):
    path = write(tmp_path / "a.nrrd", volume)
    with raises(InputError, "invalid-orientation") as caught:
        open_annotation(path, spool, orientation=orientation).__enter__()
    assert repr(orientation) in str(caught.value)


@pytest.mark.parametrize("voxel_size", [0, -1, float("nan"), (1, 2), "x", (1, 1, float("inf"))])
def test_an_invalid_voxel_size_is_refused(voxel_size, volume, tmp_path, spool):
    path = write(tmp_path / "a.nrrd", volume)
    with raises(InputError, "invalid-voxel-size") as caught:
        open_annotation(path, spool, voxel_size=voxel_size).__enter__()
    assert repr(voxel_size) in str(caught.value)


def test_a_nifti_without_orientation_or_oblique_is_refused(tmp_path, spool):
    volume = labels_of((66, 40, 50))
    image = nibabel.Nifti1Image(volume, affine())
    image.header.set_xyzt_units("mm")
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    image.to_filename(tmp_path / "a.nii.gz")
    with raises(InputError, "missing-orientation"), open_annotation(tmp_path / "a.nii.gz", spool):
        pass
    with open_annotation(tmp_path / "a.nii.gz", spool, orientation="asl") as found:
        np.testing.assert_array_equal(found.array, volume)
        assert found.voxel_size == (200.0, 200.0, 200.0)
    at = affine()
    at[0, 0] = 0.05
    nifti(volume, tmp_path / "b.nii", at=at)
    with raises(InputError, "missing-orientation"), open_annotation(tmp_path / "b.nii", spool):
        pass


def test_a_tiff_has_neither_orientation_nor_voxel_size(volume, tmp_path, spool):
    path = as_tiff({}, volume, tmp_path)
    with raises(InputError, "missing-orientation") as caught, open_annotation(path, spool):
        pass
    assert "--voxel-size" in str(caught.value)
    with raises(InputError, "missing-orientation") as caught, open_annotation(path, spool, voxel_size=100):
        pass
    assert "--voxel-size" not in str(caught.value)
    with raises(InputError, "missing-voxel-size"), open_annotation(path, spool, orientation="asl"):
        pass


# Templates


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8", ">u2", ">f4"])
def test_a_template_keeps_its_dtype(dtype, tmp_path, spool):
    volume = np.random.default_rng(0).normal(100, 50, SHAPE).clip(0, 255).astype(dtype)
    path = nifti(volume, tmp_path / "a.nii.gz")
    with open_template(path, spool) as found:
        assert found.array.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(found.array, volume)
        assert found.labels is None


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_scaled_nifti_has_the_values_that_nibabel_reads(name, tmp_path, spool):
    image = nibabel.Nifti1Image(np.random.default_rng(0).normal(0, 1, SHAPE), affine())
    image.header.set_data_dtype("i2")
    image.header.set_xyzt_units("mm")
    image.to_filename(tmp_path / name)
    with open_template(tmp_path / name, spool) as found:
        assert found.array.dtype == np.float64
        np.testing.assert_allclose(found.array, nibabel.load(tmp_path / name).get_fdata(), rtol=1e-12)


# Labels


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "u8", "f4", "f8"])
def test_whole_labels_of_any_dtype_are_converted_with_a_remark(encoding, dtype, tmp_path, spool):
    volume = np.minimum(labels_of(SHAPE), 200 if dtype == "u1" else 60000).astype(dtype)
    if dtype in ("u8", "f8"):
        volume[0, 0, 0] = 4294967295
    with open_annotation(write(tmp_path / "a.nrrd", volume, encoding=encoding), spool) as found:
        assert found.array.dtype == np.uint32
        np.testing.assert_array_equal(found.array, volume)
        converted = [remark for remark in found.remarks if "converted to uint32" in remark]
    assert len(converted) == (dtype in ("i4", "f4", "f8"))


BAD = [
    ("f4", 3.5, "3.5"),
    ("f8", -1, "-1.0"),
    ("f4", np.nan, "nan"),
    ("f8", np.inf, "inf"),
    ("f8", 4294967296, "4294967296.0"),
    ("f4", 614454277, "614454272.0"),
    ("i4", -7, "-7"),
    ("u8", 2**32, "4294967296"),
]


@pytest.mark.parametrize(("dtype", "value", "named"), BAD, ids=str)
def test_an_invalid_label_is_refused_when_the_file_is_read_as_a_whole(dtype, value, named, tmp_path, spool):
    volume = np.zeros(SHAPE, dtype)
    volume[65, 30, 40] = value
    with raises(InputError, "invalid-label") as caught, open_annotation(write(tmp_path / "a.nrrd", volume), spool):
        pass
    assert f" {named};" in str(caught.value)
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(("dtype", "value", "named"), BAD, ids=str)
def test_an_invalid_label_is_refused_when_computed_and_leaves_an_image_unfinished(dtype, value, named, tmp_path, spool):
    volume = np.zeros(SHAPE, dtype)
    volume[65, 30, 40] = value
    with open_annotation(write(tmp_path / "a.nrrd", volume, encoding="raw"), spool) as found:
        with raises(InputError, "invalid-label") as caught:
            found.find_labels()
        assert f" {named};" in str(caught.value)
        with raises(InputError, "invalid-label"):
            write_multiscales(found.array, tmp_path / "out.ome.zarr", rule="mode", identity="x")
        assert not found.array[:50].any().compute()
    with raises(InputError, "target-unfinished"), open_annotation(tmp_path / "out.ome.zarr", spool):
        pass


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_labels_without_a_structure_are_named(ids, extra):
    roots = [
        {"id": id, "acronym": f"a{id}", "name": "x", "color_hex_triplet": "000000", "children": []}
        for id in {*ids} - {0, extra} or {1 + (extra == 1)}
    ]
    terminology = Terminology.from_structure_graph(roots)
    labels = np.unique(np.array([*ids, extra], np.uint32))
    known = {structure.id for structure in terminology} | {0}
    unknown = unknown_labels(labels, terminology)
    assert unknown == tuple(sorted({*ids, extra} - known))
    assert all(isinstance(label, int) for label in unknown)


def test_the_remark_on_labels_without_a_structure_names_the_first_20(volume, tmp_path, spool):
    terminology = Terminology.from_structure_graph(structure_graph()["msg"])
    with open_annotation(write(tmp_path / "a.nrrd", volume), spool) as found:
        unknown = unknown_labels(found.labels, terminology)
    assert unknown == tuple(int(label) for label in np.unique(volume) if label not in (0, 8, 997))
    assert unknown_labels_remark(unknown, "a.nrrd").startswith(
        f"a.nrrd has {len(unknown)} labels of no structure in the terminology: {unknown[0]}, "
    )
    assert unknown_labels_remark((5,), "b") == "b has a label of no structure in the terminology: 5"
    assert unknown_labels_remark(tuple(range(1, 100)), "b").endswith("19, 20, ...")


# Faults


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.9999])
def test_a_body_that_is_cut_short_is_refused(encoding, part, volume, tmp_path, spool):
    body = nrrd_bytes(volume, encoding=encoding)
    start = body.index(b"\n\n") + 2
    cut = body[: start + max(1, int((len(body) - start) * part))]
    (tmp_path / "a.nrrd").write_bytes(cut)
    with raises(InputError, "truncated-file"), open_annotation(tmp_path / "a.nrrd", spool):
        pass
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("encoding", ["gzip", "bzip2"])
def test_a_flipped_bit_in_compressed_voxels_is_found(encoding, volume, tmp_path, spool):
    body = bytearray(nrrd_bytes(volume, encoding=encoding))
    body[-6] ^= 4
    (tmp_path / "a.nrrd").write_bytes(body)
    with pytest.raises(InputError) as caught, open_annotation(tmp_path / "a.nrrd", spool):
        pass
    assert caught.value.code in ("damaged-file", "truncated-file")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize(("planes", "code"), [(56, "file-too-large"), (58, "truncated-file")])
def test_a_wrong_size_in_a_header_is_refused(encoding, planes, code, volume, tmp_path, spool):
    path = write(tmp_path / "a.nrrd", volume, encoding=encoding, shape=(66, 40, planes))
    options = {"orientation": "asl", "voxel_size": 200}
    with raises(InputError, code), open_annotation(path, spool, **options):
        pass


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_detached_header_needs_its_data_file_in_its_folder(encoding, volume, tmp_path, spool):
    body = nrrd_bytes(volume, encoding=encoding, more="data file: voxels.bin")
    start = body.index(b"\n\n") + 2
    (tmp_path / "a.nhdr").write_bytes(body[: start - 1])
    with raises(NotFoundError, "file-not-found") as caught:
        open_annotation(tmp_path / "a.nhdr", spool).__enter__()
    assert "voxels.bin" in str(caught.value)
    (tmp_path / "voxels.bin").write_bytes(body[start:])
    with open_annotation(tmp_path / "a.nhdr", spool) as found:
        np.testing.assert_array_equal(found.array, volume)
        assert "voxels.bin" in found.remarks[-1]
        assert found.size == len(body) - start
    for url in ("memory://detached/a.nhdr", "memory://detached/voxels.bin"):
        with fsspec.open(url, "wb") as file:
            file.write((tmp_path / url.rpartition("/")[2]).read_bytes())
    with open_annotation("memory://detached/a.nhdr", spool) as found:
        np.testing.assert_array_equal(found.array, volume)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("data file: ../voxels.bin", "invalid-data-file"),
        ("data file: /etc/passwd", "invalid-data-file"),
        ("data file: LIST", "invalid-data-file"),
        ("data file: v%03d.raw 1 40 1", "invalid-data-file"),
        ("byte skip: 4", "truncated-file"),
        ("type: float", "unreadable-header"),
        ("nonsense", "unreadable-header"),
    ],
)
def test_an_unsupported_header_is_refused(more, code, volume, tmp_path, spool):
    path = write(tmp_path / "a.nrrd", volume, more=more)
    with raises(InputError, code), open_annotation(path, spool):
        pass


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("type: unsigned int", "type: block", "unreadable-header"),
        ("encoding: gzip", "encoding: hex", "not-supported"),
        ("endian: little\n", "", "unreadable-header"),
        ("dimension: 3", "dimension: x", "unreadable-header"),
        ("sizes: 66 40 57", "sizes: 66 40", "wrong-dimensions"),
        ("sizes: 66 40 57", "sizes: 66 40 0", "wrong-dimensions"),
        ("sizes: 66 40 57", "sizes: 66 40 -57", "wrong-dimensions"),
        ("sizes: 66 40 57", "sizes: 100000 100000 57", "plane-too-large"),
        ("(0,0,200)", "(0,0,nan)", "missing-orientation"),
    ],
)
def test_an_invalid_header_is_refused(old, new, code, volume, tmp_path, spool):
    body = nrrd_bytes(volume)
    assert old.encode() in body
    (tmp_path / "a.nrrd").write_bytes(body.replace(old.encode(), new.encode(), 1))
    options = {} if "nan" in new else {"orientation": "asl", "voxel_size": 1}
    with raises(InputError, code), open_annotation(tmp_path / "a.nrrd", spool, **options):
        pass
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty-file"),
        (b"<html>Service unavailable</html>", "unknown-format"),
        (b"NRRD0004\ntype: uchar", "unreadable-header"),
        (b"NRRD", "unreadable-header"),
        (gzip.compress(b"no volume", mtime=0), "unknown-format"),
        (gzip.compress(bytes(1000), mtime=0)[:12], "truncated-file"),
        (b"II*\0\x08\0\0\0", "damaged-file"),
        (bytes(344) + b"n+1\0", "unreadable-header"),
    ],
)
def test_a_file_that_is_not_a_volume_is_refused(body, code, tmp_path, spool):
    (tmp_path / "a").write_bytes(body)
    with raises(InputError, code), open_annotation(tmp_path / "a", spool):
        pass


@pytest.mark.parametrize("name", ["nifti", "nifti gzip", "tiff", "tiff deflate"])
@pytest.mark.parametrize("part", [0.2, 0.6, 0.99])
def test_any_format_that_is_cut_short_is_refused(name, part, tmp_path, spool):
    path = FORMATS[name](np.random.default_rng(0).integers(0, 9, SHAPE, "u4"), tmp_path)
    body = path.read_bytes()
    path.write_bytes(body[: int(len(body) * part)])
    with (
        pytest.raises(InputError) as caught,
        open_annotation(path, spool, orientation="asl", voxel_size=1),
    ):
        pass
    assert caught.value.code in ("truncated-file", "damaged-file")


def test_a_volume_of_other_axes_is_refused(tmp_path, spool):
    write_multiscales(np.zeros((2, 8, 8, 8), "u1"), tmp_path / "two.ome.zarr", rule="mode")
    with raises(InputError, "wrong-dimensions"), open_annotation(tmp_path / "two.ome.zarr", spool):
        pass
    write_multiscales(np.zeros((8, 8), "u1"), tmp_path / "flat.ome.zarr", rule="mode")
    with raises(InputError, "missing-axis"), open_annotation(tmp_path / "flat.ome.zarr", spool):
        pass
    nifti(np.zeros((3, 4, 5, 2), "u1"), tmp_path / "a.nii")
    with raises(InputError, "wrong-dimensions"), open_annotation(tmp_path / "a.nii", spool):
        pass
    nifti(np.ones((3, 4, 5, 1), "u1"), tmp_path / "b.nii.gz")
    with open_annotation(tmp_path / "b.nii.gz", spool) as found:
        assert found.array.shape == (3, 4, 5)
    with raises(InputError, "not-an-image"):
        open_annotation(tmp_path / "none.ome.zarr", spool).__enter__()


def test_an_ome_zarr_without_orientation_or_unit_is_refused(tmp_path, spool):
    write_multiscales(np.zeros((8, 8, 8), "u1"), tmp_path / "a.ome.zarr", rule="mode")
    with raises(InputError, "missing-orientation"), open_annotation(tmp_path / "a.ome.zarr", spool):
        pass
    with raises(InputError, "missing-voxel-size"):
        open_annotation(tmp_path / "a.ome.zarr", spool, orientation="asl").__enter__()


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_an_ome_zarr_is_read_at_any_url(version, volume, spool):
    geometry = Geometry((0.2, 0.1, 0.3), orientation=ORIENTATION)
    url = f"memory://reference/{version}.ome.zarr"
    write_multiscales(volume, url, rule="mode", geometry=geometry, ome_zarr=version, chunk=32)
    options = {"orientation": "asl"} if version == "0.4" else {}
    with open_annotation(url, spool, **options) as found:
        np.testing.assert_array_equal(found.array, volume)
        assert found.voxel_size == (200.0, 100.0, 300.0)
    with open_annotation(url, spool, orientation="pil") as found:
        np.testing.assert_array_equal(found.array, volume[::-1, ::-1])


def test_a_spool_folder_that_does_not_exist_is_named(volume, tmp_path):
    path = write(tmp_path / "a.nrrd", volume)
    with raises(TargetError, "store-error") as caught:
        open_annotation(path, tmp_path / "nowhere").__enter__()
    assert "nowhere" in str(caught.value)
    with open_annotation(write(tmp_path / "b.nrrd", volume, encoding="raw"), tmp_path / "nowhere") as found:
        assert found.array[3, 4, 5].compute() == volume[3, 4, 5]


# Striding


def in_memory(array, size):
    import dask.array as da

    return ReferenceVolume(da.from_array(array, 16), (size, size, size), "memory", Orientation.of("asl"))


@given(st.integers(2, 5), st.tuples(*[st.integers(1, 40)] * 3), st.data())
def test_every_nth_voxel_is_recognised_unless_one_differs(n, shape, data):
    fine = np.random.default_rng(1).integers(0, 9, shape, "u4")
    coarse = fine[::n, ::n, ::n].copy()
    assert strided_factor(in_memory(coarse, 25.0 * n), in_memory(fine, 25.0)) == n
    coarse[tuple(data.draw(st.integers(0, m - 1)) for m in coarse.shape)] += 1
    assert strided_factor(in_memory(coarse, 25.0 * n), in_memory(fine, 25.0)) is None


def test_sizes_that_do_not_fit_are_not_strided():
    fine = np.zeros((10, 10, 10), "u4")
    assert strided_factor(in_memory(fine[::2, ::2, ::2], 25.0), in_memory(fine, 10.0)) is None
    assert strided_factor(in_memory(fine[::2, ::2, 1::3], 20.0), in_memory(fine, 10.0)) is None
    assert strided_factor(in_memory(fine, 10.0), in_memory(fine, 10.0)) is None


# Real files


@pytest.mark.slow
@real
def test_the_real_annotation_is_what_pynrrd_reads(spool):
    path = CCF / "annotation_25_ccf2017.nrrd"
    with open_annotation(path, spool) as found:
        volume = found.array.compute()
        assert found.voxel_size == (25.0, 25.0, 25.0)
        assert found.sha256.startswith("c620cbcc")
        assert found.size == path.stat().st_size
        assert len(found.labels) == 671
        assert len(found.remarks) == 1
        graph = CCF.parent / "ontology" / "structure_graph_1.json"
        terminology = Terminology.read(graph)
        assert unknown_labels(found.labels, terminology) == ()
    np.testing.assert_array_equal(volume, nrrd.read(str(path))[0])
    region = [structure.id for structure in terminology.descendants("RSP")]
    assert np.isin(volume, region).sum() == 672_063


@real
@pytest.mark.slow
def test_the_real_coarser_annotations_are_strided(spool):
    with (
        open_annotation(CCF / "annotation_25_ccf2017.nrrd", spool) as fine,
        open_annotation(CCF / "annotation_50_ccf2017.nrrd", spool) as half,
        open_annotation(CCF / "annotation_100_every4th_of_25.nrrd", spool) as quarter,
    ):
        assert strided_factor(half, fine) == 2
        assert strided_factor(quarter, fine) == 4
        assert strided_factor(quarter, half) == 2
        assert strided_factor(fine, half) is None
        with open_template(CCF / "average_template_100.nrrd", spool) as template:
            assert template.array.dtype == np.uint16
            assert strided_factor(template, half) is None
