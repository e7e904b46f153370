"""NIfTI exports of finished images: the voxels, where they lie, the bytes, and what other readers make of them."""

import gzip
import subprocess
import zlib
from fractions import Fraction

import nibabel
import numpy as np
import pytest

from atlaszarr.atlas.nifti_export import export_nifti, nifti_header, nifti_names
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ledger import digest, matches
from atlaszarr.engine.multiscale import ArraySpec, Multiscale
from atlaszarr.engine.ome import Geometry
from atlaszarr.engine.pyramid import NonEmptyChunks, Pyramid
from atlaszarr.engine.schedulers import Threads
from atlaszarr.errors import InputError, TargetError
from atlaszarr.geometry.spaces import BRAINGLOBE_SIDES, ORIENTATION
from atlaszarr.reference_volumes import open_annotation, open_template
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from codes import raises
from tiny_atlas import labels

KEY = "templates/x/1/template_25.nii.gz"
SIZE = (0.025, 0.025, 0.025)


def image_of(folder, values, scale=SIZE, translation=(0.0, 0.0, 0.0), x=ORIENTATION["x"], chunk=16, **more):
    """A finished image of these voxels."""
    geometry = Geometry(scale, translation, "millimeter", {**ORIENTATION, "x": x})
    write_multiscales(values, folder, geometry=geometry, chunk=chunk, **more)
    return Finished.at(Target.of(folder))


def planned(shape, dtype="uint16", orientation=ORIENTATION):
    """An image that is not written."""
    multiscale = Multiscale(
        Target.of("/nowhere/x.ome.zarr"), (ArraySpec("", dtype),), NonEmptyChunks(Pyramid.over(shape))
    )
    return Finished(multiscale, Geometry(SIZE, orientation=orientation), "")


def exported(image, folder, level=0, workers=2):
    """The path of the export of a level."""
    with Threads(workers) as scheduler:
        recorded = export_nifti(image, Target.of(folder), KEY, level, scheduler)
    path = folder / KEY
    body = path.read_bytes()
    assert recorded == (len(body), digest(body))
    return path


def read(path):
    """The voxels of a file along (z, y, x), in their own dtype, and its affine."""
    image = nibabel.load(path)
    return np.asarray(image.dataobj).transpose(2, 1, 0), image.affine


def noise(shape=(20, 17, 33), dtype="uint16"):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"])
def test_nibabel_reads_the_same_voxels_in_the_same_dtype(tmp_path, dtype):
    values = noise(dtype=dtype)
    if dtype == "u4":
        values[0, 0, 0] = 2**32 - 1
    found, _ = read(exported(image_of(tmp_path / "x.ome.zarr", values), tmp_path))
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def test_float16_which_nifti_lacks_becomes_float32(tmp_path):
    values = noise(dtype="f2") / np.float16(3)
    found, _ = read(exported(image_of(tmp_path / "x.ome.zarr", values), tmp_path))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(("x", "sign"), [(ORIENTATION["x"], 1), (BRAINGLOBE_SIDES, -1)])
def test_every_level_lies_where_its_ome_zarr_says(tmp_path, x, sign):
    translation = (-1.5, 2.25, 0.0125)
    image = image_of(
        tmp_path / "x.ome.zarr", noise(), (0.01, 0.02, 0.025), translation, x, factors=[Fraction(5, 2), 2], levels=3
    )
    entry = _multiscales(tmp_path / "x.ome.zarr")
    for level, dataset in enumerate(entry["datasets"]):
        scale, start = (step[step["type"]] for step in dataset["coordinateTransformations"])
        path = exported(image, tmp_path, level)
        found, affine = read(path)
        header = nibabel.load(path).header
        assert header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(header.get_sform(), header.get_qform(), atol=1e-6)
        assert int(header["sform_code"]) == int(header["qform_code"]) == 1
        for k, j, i in [(0, 0, 0), (found.shape[0] - 1, 1, found.shape[2] - 1)]:
            at = [s * n + t for s, n, t in zip(scale, (k, j, i), start, strict=True)]
            np.testing.assert_allclose(affine @ (i, j, k, 1), [sign * at[2], -at[0], -at[1], 1], atol=1e-6)


def _multiscales(path):
    import zarr

    return zarr.open_group(path, mode="r").attrs["ome"]["multiscales"][0]


@pytest.mark.parametrize("shard", [None, 32])
def test_slabs_of_any_size_make_the_same_bytes_with_any_number_of_workers(tmp_path, shard):
    values = noise((50, 40, 36))
    image = image_of(tmp_path / "x.ome.zarr", values, shard=shard)
    bodies = [exported(image, tmp_path, workers=workers).read_bytes() for workers in (1, 3)]
    assert bodies[0] == bodies[1]
    assert gzip.decompress(bodies[0])[352:] == values.tobytes()


def test_the_time_is_not_in_the_bytes_and_a_slab_is_a_gzip_member(tmp_path):
    body = exported(image_of(tmp_path / "x.ome.zarr", noise()), tmp_path).read_bytes()
    members = []
    while body:
        assert body[4:8] == bytes(4)
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        members.append(len(unpacker.decompress(body)))
        body = unpacker.unused_data
    # A header, and the planes of two rows of chunks.
    assert members == [352, 16 * 17 * 33 * 2, 4 * 17 * 33 * 2]


def test_gzip_itself_reads_the_members(tmp_path):
    values = noise()
    path = exported(image_of(tmp_path / "x.ome.zarr", values), tmp_path)
    found = subprocess.run(["gzip", "-dc", path], capture_output=True, check=True, timeout=60).stdout
    assert found[352:] == values.tobytes()


@pytest.mark.slow
def test_a_plane_that_is_larger_than_a_slab_is_made_in_rows(tmp_path):
    values = np.zeros((2, 3000, 12_000), np.uint16)  # 72 MB a plane
    values[1, ::7, ::11] = 3
    image = image_of(tmp_path / "x.ome.zarr", values, chunk=[(2, 512, 512)], levels=1)
    found, _ = read(exported(image, tmp_path))
    np.testing.assert_array_equal(found, values)


CCF = (66, 40, 57)


@pytest.mark.parametrize("wanted", ["asl", "asr"])
@pytest.mark.parametrize(("x", "named"), [(ORIENTATION["x"], "asl"), (BRAINGLOBE_SIDES, "asr")])
def test_an_export_of_the_ccf_is_recognised_and_never_flipped(tmp_path, x, named, wanted):
    values = labels(CCF)
    translation = (0.095,) * 3  # of 200 um, from the centre of the first voxel of 10 um
    path = exported(image_of(tmp_path / "x.ome.zarr", values, (0.2,) * 3, translation, x, rule="mode"), tmp_path)
    with open_annotation(path, tmp_path, origin=wanted) as found:
        assert found.is_ccf
        assert found.voxel_size == (200.0,) * 3
        np.testing.assert_array_equal(found.array, values)
        assert len(found.remarks) == (named != wanted)
    assert all("opposite names" in remark for remark in found.remarks)


@pytest.mark.parametrize("x", [ORIENTATION["x"], BRAINGLOBE_SIDES])
def test_an_export_of_another_atlas_is_read_back_to_its_own_frame_without_a_remark(tmp_path, x):
    values, translation = noise(dtype="f4"), (-1.5, 2.25, 0.0125)
    path = exported(image_of(tmp_path / "x.ome.zarr", values, (0.01, 0.02, 0.025), translation, x), tmp_path)
    with open_template(path, tmp_path, origin="asl" if x == ORIENTATION["x"] else "asr") as found:
        np.testing.assert_array_equal(found.array, values)
        assert found.voxel_size == (10.0, 20.0, 25.0)
        np.testing.assert_allclose(found.position, np.multiply(translation, 1000), atol=1e-3)
        assert found.remarks == ()


def test_a_file_of_another_program_with_the_same_axes_keeps_its_remark(tmp_path):
    path = exported(image_of(tmp_path / "x.ome.zarr", noise()), tmp_path)
    image = nibabel.load(path)
    image.header["descrip"] = b"another"
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), tmp_path / "other.nii.gz")
    with open_template(tmp_path / "other.nii.gz", tmp_path) as found:
        assert any("by its header" in remark for remark in found.remarks)


def test_files_are_named_by_their_voxel_size(tmp_path):
    image = image_of(tmp_path / "x.ome.zarr", noise(), factors=[2], levels=2)
    assert nifti_names("template", image) == ["template_25.nii.gz", "template_50.nii.gz"]
    halves = Finished(image.multiscale, Geometry((0.0125,) * 3), "")
    assert nifti_names("template", halves)[0] == "template_12.5.nii.gz"
    unequal = Finished(image.multiscale, Geometry((0.1, 0.025, 0.025)), "")
    assert nifti_names("template", unequal)[0] == "template_100x25x25.nii.gz"


def test_an_axis_that_nifti_cannot_hold_is_refused_before_anything_is_written():
    with raises(InputError, "wrong-dimensions") as caught:
        nifti_header(planned((40_000, 4, 4)), 0)
    assert "40000" in str(caught.value)


def test_an_image_of_unknown_orientation_is_refused():
    with raises(InputError, "missing-orientation") as caught:
        nifti_header(planned((4, 4, 4), orientation={}), 0)
    assert "/nowhere/x.ome.zarr" in str(caught.value)


def test_a_missing_chunk_leaves_the_earlier_file_as_it_was(tmp_path):
    image = image_of(tmp_path / "x.ome.zarr", noise())
    path = exported(image, tmp_path)
    before = path.read_bytes()
    (tmp_path / "x.ome.zarr/0/c/1/0/0").unlink()
    with raises(TargetError, "missing-chunk"):
        exported(image, tmp_path)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_file_matches_its_record_until_a_byte_changes(tmp_path):
    image, root = image_of(tmp_path / "x.ome.zarr", noise()), Target.of(tmp_path)
    with Threads(2) as scheduler:
        size, checksum = export_nifti(image, root, KEY, 0, scheduler)
    assert matches(root, KEY, size, checksum)
    assert not matches(root, KEY, size + 1, checksum)
    body = bytearray((tmp_path / KEY).read_bytes())
    body[-1] ^= 1
    (tmp_path / KEY).write_bytes(body)
    assert not matches(root, KEY, size, checksum)
    assert not matches(root, "absent.nii.gz", size, checksum)


def test_progress_counts_the_slabs(tmp_path):
    image, seen = image_of(tmp_path / "x.ome.zarr", noise()), []
    with Threads(2) as scheduler:
        export_nifti(image, Target.of(tmp_path), KEY, 0, scheduler, lambda *each: seen.append(each))
    assert seen[0] == (0, 2, "template_25.nii.gz")
    assert seen[-1] == (2, 2, "template_25.nii.gz")


@pytest.mark.parametrize("path", ["memory://exports-of-an-atlas"])
def test_an_export_to_another_store_has_the_same_bytes(tmp_path, path):
    image = image_of(tmp_path / "x.ome.zarr", noise())
    local, root = exported(image, tmp_path), Target.of(path)
    with Threads(2) as scheduler:
        recorded = export_nifti(image, root, KEY, 0, scheduler, spool=tmp_path)
    assert root.read(KEY) == local.read_bytes()
    assert matches(root, KEY, *recorded)
