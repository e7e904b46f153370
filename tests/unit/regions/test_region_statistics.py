"""`region_statistics` against plain NumPy: on made-up volumes, in all orders of axes, and on damaged ones."""

import pickle
import shutil

import dask.array as da
import numpy as np
import pytest

from atlaszarr import Terminology, region_statistics, region_volumes
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import AtlaszarrWarning, InputError, TargetError
from atlaszarr.regions.measured_volume import largest_unit
from atlaszarr.regions.placed_arrays import PlacedArray
from atlaszarr.writing import write_multiscales
from codes import raises
from small_annotation import CSV, GEOMETRY, labels

pytestmark = pytest.mark.filterwarnings("ignore:the midline is assumed")
MIDLINE = 10


@pytest.fixture(scope="module")
def terminology(tmp_path_factory):
    path = tmp_path_factory.mktemp("terminology") / "terminology.csv"
    path.write_text(CSV)
    return Terminology.read(path)


def picture(dtype=np.uint8):
    rng = np.random.default_rng(3)
    return rng.integers(0, np.iinfo(dtype).max, (3, 20, 20, 20), dtype, endpoint=True)


def sections():
    values = np.zeros((20, 20, 20), np.uint32)
    values[2:8], values[8:13, :, 3:] = 11, 12
    return values


def write(folder, image=None, section=None, name="volume", chunk=8, **options):
    image = picture() if image is None else image
    given = {"section": sections() if section is None else section} if section is not False else {}
    options = {"geometry": GEOMETRY, "chunk": chunk, "levels": 2} | options
    write_multiscales(image, folder / f"{name}.ome.zarr", labels=given, **options)
    return folder / f"{name}.ome.zarr"


def write_labels(folder, values=None, name="annotation", **options):
    options = {"geometry": GEOMETRY, "chunk": 8, "levels": 2} | options
    values = labels() if values is None else values
    write_multiscales(values, folder / f"{name}.ome.zarr", rule="mode", **options)
    return folder / f"{name}.ome.zarr"


def expected(values, image, covered, mine):
    """Voxels, covered voxels, and mean and deviation of each channel, by NumPy."""
    where = np.isin(values, mine)
    inside = where & covered
    channels = image[:, inside].astype(np.float64)
    if not inside.any():
        return where.sum(), 0, [np.nan] * len(image), [np.nan] * len(image)
    return where.sum(), inside.sum(), channels.mean(axis=1), channels.std(axis=1)


MEMBERS = {1: (1, 2, 3, 4), 2: (2, 3), 3: (3,), 4: (4,)}


def assert_equal(table, values, image, covered, names, suffix="", columns=slice(None)):
    for id, members in MEMBERS.items():
        for scope, mine in (("", members), ("_direct", (id,))):
            where = (..., columns)
            voxels, inside, means, deviations = expected(values[where], image[where], covered[where], mine)
            row = table.loc[id]
            assert row[f"voxels{scope}{suffix}"] == voxels
            assert row[f"covered{scope}{suffix}"] == inside
            for name, mean, deviation in zip(names, means, deviations, strict=True):
                assert row[f"mean_{name}{scope}{suffix}"] == pytest.approx(mean, rel=1e-12, nan_ok=True)
                assert row[f"std_{name}{scope}{suffix}"] == pytest.approx(deviation, rel=1e-9, nan_ok=True)


CHANNELS = ("channel_0", "channel_1", "channel_2")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_counts_are_exact_and_means_are_those_of_numpy(tmp_path, terminology, dtype):
    image = picture(np.uint16 if np.dtype(dtype).kind == "f" else dtype).astype(dtype)
    table = region_statistics(write(tmp_path, image), write_labels(tmp_path), terminology, True)
    covered = sections() != 0
    assert_equal(table, labels(), image, covered, CHANNELS)
    assert_equal(table, labels(), image, covered, CHANNELS, "_left", slice(MIDLINE))
    assert_equal(table, labels(), image, covered, CHANNELS, "_right", slice(MIDLINE, None))


def test_voxels_are_those_of_region_volumes(tmp_path, terminology):
    annotation = write_labels(tmp_path)
    table = region_statistics(write(tmp_path), annotation, terminology, True)
    volumes = region_volumes(annotation, terminology, by_hemisphere=True)
    same = [name for name in volumes.columns if name in table.columns]
    assert len(same) == 14
    assert (table[same] == volumes[same]).all(axis=None)
    assert table.attrs["sides"] == volumes.attrs["sides"]


@pytest.fixture(scope="module")
def written(tmp_path_factory, terminology):
    """A folder with the volume and the annotation, and the statistics of them."""
    folder = tmp_path_factory.mktemp("written")
    write(folder)
    write_labels(folder)
    return folder, measured(folder, terminology)


def measured(folder, terminology, annotation="annotation", **options):
    return region_statistics(
        folder / "volume.ome.zarr", folder / f"{annotation}.ome.zarr", terminology, True, **options
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_means_of_floating_point_do_not_depend_on_the_number_of_threads(tmp_path, terminology, workers):
    rng = np.random.default_rng(1)
    write(tmp_path, (rng.normal(1e6, 1.0, (2, 20, 20, 20))).astype(np.float32))
    write_labels(tmp_path)
    first = measured(tmp_path, terminology, workers=1)
    again = measured(tmp_path, terminology, workers=workers, scheduler="threads")
    assert first.equals(again)
    values = labels() > 0
    inside = values & (sections() != 0)
    import zarr

    stored = zarr.open_array(tmp_path / "volume.ome.zarr" / "0", mode="r")[0][inside].astype(np.float64)
    assert first.loc[1, "mean_channel_0"] == pytest.approx(stored.mean(), rel=1e-12)
    assert first.loc[1, "std_channel_0"] == pytest.approx(stored.std(), rel=1e-9)


def test_chunks_of_other_sizes_give_the_same_table(written, tmp_path, terminology):
    write(tmp_path, chunk=6)
    write_labels(tmp_path, chunk=20)
    assert measured(tmp_path, terminology).equals(written[1])


def test_an_image_without_section_label_is_covered_everywhere(tmp_path, terminology):
    write(tmp_path, section=False)
    write_labels(tmp_path)
    table = measured(tmp_path, terminology)
    assert (table["covered"] == table["voxels"]).all()
    assert_equal(table, labels(), picture(), np.ones((20, 20, 20), bool), CHANNELS)


def test_nan_is_no_value(tmp_path, terminology):
    image = picture().astype(np.float32)
    image[0, :4], image[:, :, :5] = np.nan, np.nan
    write(tmp_path, image, section=False)
    write_labels(tmp_path)
    table = measured(tmp_path, terminology)
    where = labels() == 3
    assert table.loc[3, "covered"] == (where & ~np.isnan(image).all(axis=0)).sum()
    for channel in range(3):
        values = image[channel][where & ~np.isnan(image[channel])].astype(np.float64)
        assert table.loc[3, f"mean_channel_{channel}"] == pytest.approx(values.mean(), rel=1e-12)
        assert table.loc[3, f"std_channel_{channel}"] == pytest.approx(values.std(), rel=1e-9)


def test_levels_are_matched_by_the_size_of_their_voxels(written, tmp_path, terminology):
    folder, table = written
    half = Geometry((0.05, 0.05, 0.05), (-0.025, -0.025, -0.025), orientation=GEOMETRY.orientation)
    doubled = np.repeat(np.repeat(np.repeat(labels(), 2, 0), 2, 1), 2, 2)
    write_labels(tmp_path, doubled, "fine", geometry=half)
    found = region_statistics(folder / "volume.ome.zarr", tmp_path / "fine.ome.zarr", terminology, True)
    assert (found.attrs["level"], found.attrs["annotation_level"]) == (0, 1)
    assert found.equals(table)
    coarse = write_labels(
        tmp_path, labels()[::2, ::2, ::2].copy(), "coarse", geometry=Geometry((0.2,) * 3, (0.05,) * 3)
    )
    found = region_statistics(folder / "volume.ome.zarr", coarse, terminology)
    assert (found.attrs["level"], found.attrs["annotation_level"]) == (1, 0)


def moved(geometry=None, values=None):
    return {"geometry": geometry or GEOMETRY, "values": labels() if values is None else values}


@pytest.mark.parametrize(
    ("given", "code", "named"),
    [
        (moved(Geometry((0.03,) * 3)), "no-matching-level", ("100 um", "30 um", "--resolution")),
        (moved(Geometry((0.1,) * 3, (0.04,) * 3)), "grids-differ", ("0, 0, 0", "40, 40, 40")),
        (moved(values=labels()[:16]), "grids-differ", ("(20, 20, 20)", "(16, 20, 20)")),
        (moved(Geometry((1.0,) * 3, unit=None)), "missing-voxel-size", ("scale",)),
    ],
)
def test_an_annotation_on_another_grid_is_refused_with_both_named(written, tmp_path, terminology, given, code, named):
    write_labels(tmp_path, **given)
    with raises(InputError, code) as caught:
        region_statistics(written[0] / "volume.ome.zarr", tmp_path / "annotation.ome.zarr", terminology)
    assert all(word in str(caught.value) for word in named), str(caught.value)


WORDS = ("anterior-to-posterior", "superior-to-inferior", "left-to-right")


def oriented(*words):
    return Geometry((0.1,) * 3, orientation=dict(zip("zyx", words, strict=True)))


def turned(word):
    first, _, last = word.partition("-to-")
    return f"{last}-to-{first}"


@pytest.mark.first(5)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("flipped", [(), (0,), (1, 2)])
def test_axes_are_matched_by_their_orientation(tmp_path, terminology, order, flipped):
    write(tmp_path, geometry=oriented(*WORDS))
    write_labels(tmp_path, geometry=oriented(*WORDS))
    words = [turned(WORDS[k]) if k in flipped else WORDS[k] for k in order]
    values = np.flip(labels(), flipped).transpose(order)
    write_labels(tmp_path, np.ascontiguousarray(values), "other", geometry=oriented(*words))
    first, again = measured(tmp_path, terminology), measured(tmp_path, terminology, "other")
    assert first.attrs["sides"] == again.attrs["sides"] == ["left", "right"]
    assert first.equals(again)


def test_axes_that_cannot_be_matched_are_refused(tmp_path, terminology):
    write(tmp_path, geometry=oriented(*WORDS))
    write_labels(tmp_path, geometry=oriented(WORDS[0], WORDS[0], WORDS[2]))
    with raises(InputError, "orientations-differ") as caught:
        measured(tmp_path, terminology)
    assert "anterior-to-posterior, anterior-to-posterior" in str(caught.value)


def test_a_missing_chunk_of_the_volume_is_an_error(written, tmp_path, terminology):
    folder, _ = written
    shutil.copytree(folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "volume.ome.zarr" / "0" / "c" / "0" / "0" / "0" / "0").unlink()
    with raises(TargetError, "missing-chunk"):
        measured(tmp_path / "damaged", terminology)


def test_chunks_that_no_ledger_records_are_counted_in_a_warning(written, tmp_path, terminology):
    folder, table = written
    shutil.copytree(folder, tmp_path / "copy")
    volume = tmp_path / "copy" / "volume.ome.zarr"
    shutil.rmtree(volume / "atlaszarr")
    (volume / "labels" / "section" / "0" / "c" / "0" / "0" / "0").unlink()
    with pytest.warns(AtlaszarrWarning, match="1 of 27 chunks"):
        found = measured(tmp_path / "copy", terminology)
    assert found.loc[1, "covered"] < table.loc[1, "covered"]


def test_open_arrays_are_measured_as_stored_ones_are(written, terminology):
    import xarray as xr

    _, table = written
    along = {axis: (axis, np.arange(20) * 0.1, {"units": "mm"}) for axis in "zyx"}
    channels = {"c": list(CHANNELS)}
    image = xr.DataArray(picture(), dims=("c", "z", "y", "x"), coords=along | channels)
    section = xr.DataArray(sections(), dims=("z", "y", "x"), coords=along)
    lazy = xr.Dataset({"image": image.chunk(z=7), "section": section.chunk(y=9)})
    annotation = xr.DataArray(labels(), dims=("z", "y", "x"), coords=along)
    for volume in (xr.Dataset({"image": image, "section": section}), lazy):
        found = region_statistics(volume, annotation, terminology)
        assert found.equals(table[found.columns])


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (np.zeros((20, 20, 20), np.complex64), "unsupported-dtype"),
        (np.zeros((17, 20, 20, 20), np.uint8), "out-of-range"),
        (np.zeros((20, 20), np.uint8), "wrong-axes"),
    ],
)
def test_an_array_that_is_no_volume_is_refused(terminology, image, code):
    with raises(InputError, code):
        region_statistics(image, labels(), terminology)


def test_columns_have_the_same_types_in_every_table(written, tmp_path, terminology):
    _, table = written
    empty = np.zeros((3, 20, 20, 20), np.uint8)
    write(tmp_path, empty, np.zeros((20, 20, 20), np.uint32))
    write_labels(tmp_path)
    with pytest.warns(AtlaszarrWarning, match=r"no section covers any of the 4,000 voxels with a label"):
        found = measured(tmp_path, terminology)
    assert (found.dtypes == table.dtypes).all()
    assert (found["covered"] == 0).all()
    assert found["mean_channel_0"].isna().all()
    assert str(found["expressing"].dtype) == "Int64"
    assert pickle.loads(pickle.dumps(found)).equals(found)


def test_multiscales_are_measured_at_the_level_that_fits(written, terminology):
    from ngff_zarr import from_ngff_zarr

    folder, table = written
    volume = from_ngff_zarr(str(folder / "volume.ome.zarr"))
    found = region_statistics(volume, folder / "annotation.ome.zarr", terminology)
    assert (found["voxels"] == table["voxels"]).all()
    coarse = region_statistics(volume, folder / "annotation.ome.zarr" / "1", terminology)
    assert coarse.attrs["level"] == 1


@pytest.mark.first(1)
@pytest.mark.parametrize("chunk", [(20, 20, 20), (1, 20, 20), (7, 3, 20)])
def test_chunks_of_any_shape_give_the_same_table(written, tmp_path, terminology, chunk):
    write(tmp_path, chunk=chunk)
    write_labels(tmp_path, chunk=(5, 20, 20))
    assert measured(tmp_path, terminology).equals(written[1])


@pytest.mark.parametrize(
    ("chunks", "most", "expected"),
    [
        ([(64, 64, 64), (64, 64, 64)], 2**24, (64, 64, 64)),
        ([(64, 64, 64), (32, 64, 128)], 2**24, (64, 64, 128)),
        ([(512, 512, 512), (64, 64, 64)], 2**24, (256, 256, 256)),
        ([(63, 63, 63), (64, 64, 64)], 2**20, (63, 126, 126)),
    ],
)
def test_blocks_are_whole_chunks_and_bounded(chunks, most, expected):
    arrays = [PlacedArray(da.zeros((1024,) * 3, chunks=chunk), None, (0, 1, 2)) for chunk in chunks]
    lengths = largest_unit(arrays, most)
    assert lengths == expected
    assert np.prod(lengths) <= most


def hemisphere(low):
    """Labels and sections of the whole height, on one side of x each."""
    values, covered = np.zeros((20, 20, 20), np.uint32), np.zeros((20, 20, 20), np.uint32)
    values[:, :, 12:], covered[:, :, low:] = 3, 7
    return values, covered


@pytest.mark.parametrize(("low", "covered"), [(0, 8000), (12, 3200)])
def test_a_volume_that_fits_its_annotation_is_measured_without_a_warning(tmp_path, terminology, low, covered):
    values, sections = hemisphere(low)
    write(tmp_path, section=sections)
    write_labels(tmp_path, values)
    assert np.count_nonzero(sections) == covered
    assert measured(tmp_path, terminology).loc[3, "covered"] == 3200


@pytest.mark.parametrize("chunk", [2, 20])
def test_a_warning_says_which_parts_of_volume_and_annotation_overlap(tmp_path, terminology, chunk):
    values = np.zeros((20, 20, 20), np.uint32)
    values[:, :, 18:] = 3
    sections = np.zeros((20, 20, 20), np.uint32)
    sections[:, :10] = 7
    write(tmp_path, section=sections, chunk=chunk)
    write_labels(tmp_path, values, chunk=chunk)
    words = (
        r"400 of 4,000 \(10 %\) covered voxels have a label, and 400 of 800 \(50 %\) voxels with a label are covered"
    )
    with pytest.warns(AtlaszarrWarning, match=words):
        found = measured(tmp_path, terminology)
    assert found.loc[3, "covered"] == 400


def test_in_an_image_without_sections_all_voxels_are_covered_also_where_no_label_is(tmp_path, terminology):
    values = np.zeros((20, 20, 20), np.uint32)
    values[:2, :2, :2] = 3
    write(tmp_path, section=False)
    write_labels(tmp_path, values)
    with pytest.warns(AtlaszarrWarning, match=r"8 of 8,000 \(0\.1 %\) covered voxels have a label"):
        measured(tmp_path, terminology)
