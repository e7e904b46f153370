"""Region volumes and masks against NumPy, from every kind of annotation."""

import csv
import warnings
from contextlib import nullcontext
from pathlib import Path

import dask.array as da
import fsspec
import ngff_zarr
import numcodecs
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from atlaszarr import Terminology, region_mask, region_volumes
from atlaszarr.engine.label_index import add_index
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import AtlaszarrWarning, InputError, NotFoundError, RecordError, TargetError
from atlaszarr.geometry.spaces import ORIENTATION
from atlaszarr.regions.volumes import region_bounds
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure
from atlaszarr.writing import write_multiscales
from codes import raises
from lumps import graph
from lumps import labels as lumps_labels

LARGE = 2**31 + 5
SIZE = (0.025, 0.05, 0.1)  # mm along z, y, x
MICRONS = (25, 50, 100)
VOXEL = 0.000125
PATHS = {1: (1,), 10: (1, 10), 11: (1, 10, 11), 12: (1, 10, 12), 13: (1, 13), LARGE: (1, LARGE)}
NAMES = {1: "root", 10: "A", 11: "A1", 12: "A2", 13: "None", LARGE: "B"}
TERMINOLOGY = Terminology(
    tuple(Structure(id, NAMES[id], f"Area {NAMES[id]}", "#AABBCC", path) for id, path in PATHS.items())
)


def labels():
    """Labels in blocks of five voxels: a structure with children, its children, another structure, and background."""
    coarse = np.random.default_rng(5).choice([0, 10, 11, 12, LARGE], (8, 6, 9)).astype(np.uint32)
    coarse[5:] = 0
    return np.kron(coarse, np.ones((5, 5, 5), np.uint32))[:, :, :43]


def expected(values, by_hemisphere=False, low=21, voxel=VOXEL):
    """The expected `region_volumes` of an annotation without an orientation, counted structure by structure."""
    columns = {"": values}
    if by_hemisphere:
        columns |= {"_low": values[..., :low], "_high": values[..., low:]}
    rows = {}
    for id in PATHS:
        below = [other for other, path in PATHS.items() if id in path]
        row = {"acronym": NAMES[id], "name": f"Area {NAMES[id]}"}
        for side, part in columns.items():
            summed, own = np.isin(part, below).sum(), (part == id).sum()
            row |= {f"voxels{side}": summed, f"voxels_direct{side}": own}
            row |= {f"volume{side}_mm3": summed * voxel, f"volume_direct{side}_mm3": own * voxel}
        rows[id] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("identifier")


def assert_equal(found, wanted):
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False, check_index_type=False, rtol=1e-12)


def geometry(unit="millimeter", **options):
    scale = tuple(length * {"millimeter": 1, "micrometer": 1000, None: 1}[unit] for length in SIZE)
    return Geometry(scale, (0.0, 0.0, 0.0), unit, **options)


def write(path, values=None, **options):
    values = labels() if values is None else values
    write_multiscales(values, path, **{"rule": "mode", "chunk": 16, "geometry": geometry()} | options)
    return str(path)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return write(tmp_path_factory.mktemp("stored") / "annotation.ome.zarr")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("indexed") / "annotation.ome.zarr")
    add_index(Target.of(path))
    return path


# Values


@pytest.mark.parametrize("by_hemisphere", [False, True])
def test_every_structure_is_counted_without_and_with_its_descendants(stored, indexed, by_hemisphere):
    for path in (stored, indexed):
        found = region_volumes(path, TERMINOLOGY, by_hemisphere=by_hemisphere)
        assert_equal(found, expected(labels(), by_hemisphere))
        assert found.attrs["voxel_mm3"] == VOXEL


def test_coarser_levels_are_counted_with_their_own_voxels(stored, indexed):
    values = zarr.open_array(f"{stored}/1", mode="r")[:]
    # Of 43 columns the midline is at 21.5: column 10 of level 1 has its centre at 21 and is low, the next is high.
    wanted = expected(values, by_hemisphere=True, low=11, voxel=8 * VOXEL)
    for path in (stored, indexed):
        assert_equal(region_volumes(path, TERMINOLOGY, 1, by_hemisphere=True), wanted)


def test_a_centre_on_the_midline_is_on_the_high_side():
    found = region_volumes(np.full((1, 1, 5), 11, np.uint8), TERMINOLOGY, by_hemisphere=True, voxel_size=1)
    assert tuple(found.loc[1, ["voxels_low", "voxels_high"]]) == (2, 3)


@pytest.mark.parametrize(
    ("runs", "shape", "low", "explanation"),
    [
        (None, (2, 2, 10), "low", "low is x voxels before 5, high from 5 on; x has no orientation"),
        ("left-to-right", (2, 2, 10), "left", "left is low r (x voxels before 5), right is high r (from 5 on)"),
        ("right-to-left", (2, 2, 10), "right", "high r (from 5 on); x runs right-to-left"),
        (None, (13, 8, 11), "left", "x has no orientation: named as in the CCF"),
        ("left-to-right", (13, 8, 11), "left", "x runs left-to-right"),
        ("right-to-left", (13, 8, 11), "right", "as BrainGlobe names it; the Allen Institute calls low r left"),
    ],
)
def test_the_orientation_of_the_axis_names_the_sides_and_is_recorded(tmp_path, runs, shape, low, explanation):
    values = np.full(shape, 11, np.uint32)
    values[..., :3] = 12
    oriented = Geometry((1.0,) * 3, orientation={"x": runs} if runs else {})
    stored = write(tmp_path / "x.ome.zarr", values, geometry=oriented)
    assumed = runs is not None and shape != (13, 8, 11)
    with pytest.warns(AtlaszarrWarning, match="the midline is assumed") if assumed else nullcontext():
        found = region_volumes(stored, TERMINOLOGY, by_hemisphere=True)
    assert low in found.attrs["sides"]
    assert found.loc[12, f"voxels_{low}"] == found.loc[12, "voxels"] == np.count_nonzero(values == 12)
    assert found.attrs["hemispheres"].startswith(f"{low} is ")
    assert explanation in found.attrs["hemispheres"]
    # An array has no orientation; its extent decides.
    array = region_volumes(values, TERMINOLOGY, by_hemisphere=True, voxel_size=1000)
    assert array.attrs["sides"] == (["left", "right"] if shape == (13, 8, 11) else ["low", "high"])


def test_a_region_at_low_r_is_left_in_an_annotation_of_the_extent_of_the_ccf():
    """480 voxels of 200 um at low r, in an annotation without an orientation."""
    values = np.zeros((66, 40, 57), np.uint32)
    values[20:30, 12:20, 18:24] = 12
    found = region_volumes(values, TERMINOLOGY, by_hemisphere=True, voxel_size=200).loc[12]
    assert tuple(found[["volume_mm3", "volume_left_mm3", "volume_right_mm3"]]) == (3.84, 3.84, 0)


@pytest.mark.parametrize("part", [slice(0, 29), slice(29, 57), slice(10, 50)])
def test_a_part_of_the_ccf_has_no_left_and_right(tmp_path, part):
    """The middle of the left half is not the midline: a left structure would be on the right of it."""
    values = lumps_labels()[:, :, part]
    oriented = Geometry((0.2,) * 3, orientation=ORIENTATION)
    stored = write(tmp_path / "x.ome.zarr", values, geometry=oriented)
    for level in (0, 1):
        found = region_volumes(stored, Terminology.from_structure_graph(graph()), level, by_hemisphere=True)
        assert found.attrs["sides"] == ["low", "high"]
        assert "its midline is not known" in found.attrs["hemispheres"]


def test_hemispheres_of_an_x_axis_that_does_not_run_between_left_and_right_are_refused(tmp_path):
    turned = geometry(orientation={"x": "anterior-to-posterior"})
    path = write(tmp_path / "x.ome.zarr", geometry=turned)
    assert region_volumes(path, TERMINOLOGY).loc[1, "voxels"] == np.count_nonzero(labels())
    with raises(InputError, "unsupported-orientation") as caught:
        region_volumes(path, TERMINOLOGY, by_hemisphere=True)
    assert "anterior-to-posterior" in str(caught.value)


def test_labels_that_are_not_in_the_terminology_are_the_last_rows(tmp_path):
    values = labels()
    values[values == 12] = 2**32 - 1
    path = write(tmp_path / "x.ome.zarr", values)
    with pytest.warns(AtlaszarrWarning, match="labels that are not in the terminology: 4294967295;"):
        found = region_volumes(path, TERMINOLOGY)
    assert found.loc[2**32 - 1, "voxels"] == np.count_nonzero(labels() == 12)
    assert found.loc[2**32 - 1, "acronym"] == ""
    assert found.voxels_direct.sum() == np.count_nonzero(values)


# Kinds of annotation


@pytest.mark.parametrize("level", [0, 1])
def test_the_result_of_ngff_zarr_gives_the_same_volumes(stored, level):
    multiscales = ngff_zarr.from_ngff_zarr(stored)
    wanted = region_volumes(stored, TERMINOLOGY, level, by_hemisphere=True)
    assert_equal(region_volumes(multiscales, TERMINOLOGY, level, by_hemisphere=True), wanted)
    if level == 0:
        assert_equal(region_volumes(multiscales.images[0], TERMINOLOGY, by_hemisphere=True), wanted)


def test_arrays_in_memory_or_lazy_give_the_same_volumes():
    wanted = expected(labels(), by_hemisphere=True)
    lazy = da.from_array(labels(), chunks=(16, 30, 20))
    coordinates = {
        axis: (axis, np.arange(n) * size, {"units": "mm"})
        for axis, n, size in zip("zyx", labels().shape, SIZE, strict=True)
    }
    for array in (labels(), lazy):
        assert_equal(region_volumes(array, TERMINOLOGY, by_hemisphere=True, voxel_size=MICRONS), wanted)
        named = xr.DataArray(array, dims=("z", "y", "x"), coords=coordinates)
        assert_equal(region_volumes(named, TERMINOLOGY, by_hemisphere=True), wanted)


@pytest.mark.parametrize(
    "options",
    [{"ome_zarr": "0.4"}, {"ome_zarr": "0.6"}, {"shard": 32}, {"compressor": "blosc"}],
    ids=lambda options: "-".join(map(str, next(iter(options.items())))),
)
def test_every_format_that_atlaszarr_writes_is_read(tmp_path, options):
    path = write(tmp_path / "x.ome.zarr", **options)
    assert_equal(region_volumes(path, TERMINOLOGY, by_hemisphere=True), expected(labels(), by_hemisphere=True))
    np.testing.assert_array_equal(region_mask(path, TERMINOLOGY, "B").compute(), labels() == LARGE)


FOREIGN = {
    "v2, gzip, dots": {"zarr_format": 2, "compressors": numcodecs.GZip()},
    "v2, big-endian": {"zarr_format": 2, "dtype": ">u4"},
    "v2, uncompressed": {"zarr_format": 2, "compressors": None},
    "v2, Fortran order": {"zarr_format": 2, "order": "F"},
    "v3, gzip": {"compressors": zarr.codecs.GzipCodec()},
    "v3, blosc lz4": {"compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")},
    "v3, shards with holes": {"shards": (32, 32, 32)},
    "v3, dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "v3, int64": {"dtype": "int64"},
    "v3, t and c": {"lead": 2},
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_stores_that_other_libraries_wrote_are_read(tmp_path, kind, protocol):
    options = dict(FOREIGN[kind])
    lead, dtype = options.pop("lead", 0), options.pop("dtype", "uint32")
    version = options.get("zarr_format", 3)
    store = zarr.storage.LocalStore(tmp_path / "x.zarr")
    names = [*"tc"[:lead], *"zyx"]
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": n, "type": kinds.get(n, "space")} | ({"unit": "micrometer"} if n in "zyx" else {}) for n in names]
    scale = [1.0] * lead + [length * 1000 for length in SIZE]
    entry = {
        "axes": axes,
        "datasets": [{"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
    }
    image = {"multiscales": [entry | ({"version": "0.4"} if version == 2 else {})]}
    attributes = image if version == 2 else {"ome": {"version": "0.5", **image}}
    zarr.open_group(store, mode="w", zarr_format=version, attributes=attributes)
    array = zarr.create_array(
        store,
        name="s0",
        shape=(1,) * lead + labels().shape,
        chunks=(1,) * lead + (16, 16, 16),
        dtype=dtype,
        fill_value=0,
        **options,
    )
    array[:] = labels().reshape(array.shape)
    path = str(tmp_path / "x.zarr")
    if protocol:
        fsspec.filesystem("memory").store.clear()
        path = f"memory://{tmp_path.name}/x.zarr"
        for key, body in Target(str(tmp_path / "x.zarr")).read_all("").items():
            Target.of(path).write(key, body)
    # zarr does not write chunks of background.
    with pytest.warns(AtlaszarrWarning, match="6 of 18 chunks of level 0"):
        found = region_volumes(path, TERMINOLOGY, by_hemisphere=True)
    assert_equal(found, expected(labels(), by_hemisphere=True))
    with pytest.warns(AtlaszarrWarning, match="6 of 18 chunks of level 0"):
        mask = region_mask(path, TERMINOLOGY, "A")
    np.testing.assert_array_equal(mask.compute(), np.isin(labels(), [10, 11, 12]))


# Units


@pytest.mark.parametrize("unit", ["millimeter", "micrometer"])
def test_volumes_are_in_mm3_for_every_unit_of_the_axes(tmp_path, unit):
    path = write(tmp_path / "x.ome.zarr", geometry=geometry(unit))
    assert_equal(region_volumes(path, TERMINOLOGY), expected(labels()))


def test_without_a_known_unit_the_voxel_size_must_be_given(tmp_path):
    path = write(tmp_path / "x.ome.zarr", geometry=geometry(None))
    with raises(InputError, "missing-voxel-size") as caught:
        region_volumes(path, TERMINOLOGY)
    assert "--voxel-size" in str(caught.value)
    assert_equal(region_volumes(path, TERMINOLOGY, voxel_size=MICRONS), expected(labels()))
    with raises(InputError, "missing-voxel-size") as caught:
        region_volumes(ngff_zarr.to_ngff_image(labels(), axes_units=dict.fromkeys("zyx", "parsec")), TERMINOLOGY)
    assert "'parsec'" in str(caught.value)


# The terminology


def write_terminology(path, structures):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        parts = ("annotation_value", "name", "abbreviation", "color_hex_triplet", "root_identifier_path")
        rows.writerow(("identifier", "parent_identifier", *parts))
        for s in structures:
            rows.writerow([s.id, s.parent_id, s.id, s.name, s.acronym, s.colour, list(s.path)])


def test_the_terminology_next_to_the_annotation_is_the_default_and_has_its_rows_in_any_order(tmp_path):
    path = write(tmp_path / "annotation.ome.zarr")
    with raises(InputError, "file-not-found") as caught:
        region_volumes(path)
    assert str(tmp_path / "terminology.csv") in str(caught.value)
    write_terminology(tmp_path / "terminology.csv", list(TERMINOLOGY)[::-1])
    found = region_volumes(path)
    assert_equal(found.sort_index(), expected(labels()).sort_index())
    assert list(found.index).index(10) < list(found.index).index(11)
    assert_equal(region_volumes(path, tmp_path / "terminology.csv"), found)


def test_a_table_that_is_not_a_terminology_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with raises(RecordError, "missing-column"):
        region_volumes(labels(), tmp_path / "t.csv", voxel_size=1)


def test_an_unknown_region_is_named_with_similar_acronyms(stored):
    for region, similar in (("a1", "A1"), ("area B", "B")):
        with raises(NotFoundError, "structure-not-found") as caught:
            region_mask(stored, TERMINOLOGY, region)
        assert f"{region!r}" in str(caught.value)
        assert f"did you mean {similar}?" in str(caught.value)


def test_a_region_is_given_by_name_or_acronym(stored):
    by_name, by_acronym = (region_mask(stored, TERMINOLOGY, key).compute() for key in ("Area B", "B"))
    assert (by_name == by_acronym).all()


def test_an_array_needs_a_terminology():
    with raises(InputError, "missing-terminology"):
        region_volumes(labels(), voxel_size=1)


# Masks


class Counted(MemoryFileSystem):
    """Records which objects are read."""

    protocol = "countedreads"
    read: list = []  # noqa: RUF012
    store: dict = {}  # noqa: RUF012

    def cat_file(self, path, *args, **kwargs):
        self.read.append(path)
        return super().cat_file(path, *args, **kwargs)


@pytest.fixture
def counted(indexed):
    fsspec.register_implementation("countedreads", Counted, clobber=True)
    target = Target.of("countedreads://bucket/annotation.ome.zarr")
    for key, body in Target(indexed).read_all("").items():
        target.write(key, body)
    yield target
    Counted.store.clear()


def test_a_mask_of_an_indexed_annotation_reads_only_chunks_that_contain_the_region(counted):
    mask = region_mask(counted.url, TERMINOLOGY, "A1")
    assert mask.dtype == bool
    assert mask.chunks == da.empty(labels().shape, chunks=16).chunks
    Counted.read.clear()
    np.testing.assert_array_equal(mask.compute(), labels() == 11)
    chunks = [c for c in np.ndindex(3, 2, 3) if (labels()[tuple(slice(16 * i, 16 * i + 16) for i in c)] == 11).any()]
    assert sorted(Counted.read) == sorted(f"{counted.url}/0/c/{z}/{y}/{x}" for z, y, x in chunks)
    assert len(chunks) < 18
    Counted.read.clear()
    np.testing.assert_array_equal(mask[3:20:2, ::-1, 17].compute(), (labels() == 11)[3:20:2, ::-1, 17])
    assert len(Counted.read) <= 4


def test_volumes_of_an_indexed_annotation_read_no_chunk(counted):
    Counted.read.clear()
    assert_equal(region_volumes(counted.url, TERMINOLOGY, by_hemisphere=True), expected(labels(), by_hemisphere=True))
    assert not [key for key in Counted.read if "/c/" in key]


def test_a_mask_of_a_lazy_array_is_lazy_and_equal():
    mask = region_mask(da.from_array(labels(), chunks=16), TERMINOLOGY, "B")
    np.testing.assert_array_equal(mask.compute(), labels() == LARGE)
    narrow = region_mask(da.zeros((2, 2, 2), dtype="u1"), TERMINOLOGY, "B")  # its label does not fit u1
    assert not narrow.compute().any()


def test_region_bounds_are_the_smallest_box(indexed):
    box = region_bounds(region_mask(indexed, TERMINOLOGY, "A1"))
    wanted = tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(labels() == 11))
    assert box == wanted
    assert region_bounds(region_mask(indexed, TERMINOLOGY, "None")) is None


# Errors


def test_an_index_is_not_used_after_its_data_have_changed(tmp_path):
    path = write(tmp_path / "annotation.ome.zarr")
    add_index(Target(path))
    array = zarr.open_array(f"{path}/0")
    array[:16, :16, :16] = 12
    with pytest.warns(AtlaszarrWarning, match="0/c/0/0/0 "):
        found = region_volumes(path, TERMINOLOGY)
    assert_equal(found, expected(array[:]))


@pytest.mark.parametrize("link", ["0", "0/c", "0/c/1"])
def test_a_level_that_is_a_link_is_read_and_its_index_is_used(tmp_path, link):
    path, disk = Path(write(tmp_path / "annotation.ome.zarr")), tmp_path / "disk"
    add_index(Target(str(path)))
    (path / link).rename(disk)
    (path / link).symlink_to(disk)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(region_volumes(path, TERMINOLOGY), expected(labels()))
    next(path for path in sorted(disk.rglob("[01]")) if path.is_file()).unlink()
    with pytest.warns(AtlaszarrWarning, match="the data are read"), raises(TargetError, "missing-chunk"):
        region_volumes(path, TERMINOLOGY)


def test_an_annotation_without_an_index_causes_no_warning(stored):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        region_volumes(stored, TERMINOLOGY)


def test_a_damaged_chunk_is_named_and_never_counted_as_background(tmp_path):
    path = write(tmp_path / "annotation.ome.zarr")
    chunk = Path(path) / "0/c/1/1/1"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with raises(TargetError, "damaged-chunk") as caught:
        region_volumes(path, TERMINOLOGY)
    assert "0/c/1/1/1" in str(caught.value)


def test_an_annotation_that_is_not_supported_is_refused(stored, tmp_path):
    write_multiscales(labels().astype(np.float32), tmp_path / "real.ome.zarr", geometry=geometry())
    for given, options, code, named in (
        (stored, {"level": 7}, "level-not-found", "level 7"),
        (labels(), {"level": 1}, "level-not-found", "level 1"),
        (stored, {"storage_options": {"secret": "x"}}, "not-supported", "'secret'"),
        (labels(), {"storage_options": {"secret": "x"}}, "not-supported", "'secret'"),
        (tmp_path / "nothing", {}, "not-an-image", "nothing"),
        (f"{stored}/0/c", {}, "not-an-image", "/0/c"),
        (tmp_path / "real.ome.zarr", {}, "not-labels", "float32"),
        (labels().astype(float), {}, "not-labels", "float64"),
        (labels()[0], {}, "wrong-axes", "y, x"),
        (labels(), {"voxel_size": 0}, "invalid-voxel-size", "voxel size 0"),
    ):
        with raises(InputError, code) as caught:
            region_volumes(given, TERMINOLOGY, **options)
        assert named in str(caught.value)


def test_a_missing_chunk_is_not_counted_as_background(tmp_path):
    path = tmp_path / "x.ome.zarr"
    write_multiscales(labels(), path, rule="mode", chunk=16, levels=1)
    chunk = next(path for path in (path / "0" / "c").rglob("*") if path.is_file())
    chunk.unlink()
    with raises(TargetError, "missing-chunk") as caught:
        region_volumes(path, TERMINOLOGY, voxel_size=1)
    assert chunk.relative_to(path).as_posix() in str(caught.value)


@pytest.mark.parametrize("level", ["0", 0.0, None, True])
def test_a_level_must_be_a_whole_number(level):
    with raises(InputError, "invalid-value") as caught:
        region_volumes(labels(), TERMINOLOGY, level, voxel_size=1)
    assert f"level {level!r}" in str(caught.value)


def test_one_coordinate_does_not_give_a_voxel_size():
    steps = {
        axis: (axis, np.arange(n, dtype="f4") * np.float32(0.1), {"units": "mm"})
        for axis, n in zip("zyx", labels().shape, strict=True)
    }
    whole = xr.DataArray(labels(), dims=("z", "y", "x"), coords=steps)
    assert region_volumes(whole, TERMINOLOGY).attrs["voxel_mm3"] == pytest.approx(0.001)
    with raises(InputError, "missing-step") as caught:
        region_volumes(whole[3:4], TERMINOLOGY)
    assert "along z" in str(caught.value)
