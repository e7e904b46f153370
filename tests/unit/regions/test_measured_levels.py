"""`region_statistics` of a level of an image, of infinite values, and of what is not a volume; tables of them."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from atlaszarr import Terminology, region_statistics, region_volumes
from atlaszarr.engine.ome import Geometry
from atlaszarr.errors import InputError
from atlaszarr.regions.tables import statistics_tree, tree
from atlaszarr.writing import write_multiscales
from codes import raises
from small_annotation import CSV, GEOMETRY, labels

pytestmark = pytest.mark.filterwarnings("ignore:the midline is assumed")


def picture(dtype=np.uint8):
    return np.random.default_rng(5).integers(0, 256, (3, 20, 20, 20)).astype(dtype)


def sections():
    values = np.zeros((20, 20, 20), np.uint32)
    values[2:8, :, 4:] = 7
    return values


def write(folder, image, name="volume", **options):
    options = {"geometry": GEOMETRY, "chunk": 8, "levels": 2} | options
    write_multiscales(image, folder / f"{name}.ome.zarr", **options)
    return folder / f"{name}.ome.zarr"


@pytest.fixture(scope="module")
def annotation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotation")
    (folder / "terminology.csv").write_text(CSV)
    return write(folder, labels(), "annotation", rule="mode")


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("ome_zarr", ["0.4", "0.5", "0.6"])
def test_a_level_of_an_image_has_the_sections_of_the_image(tmp_path, annotation, level, ome_zarr):
    volume = write(tmp_path, picture(), labels={"section": sections()}, ome_zarr=ome_zarr)
    found = region_statistics(volume / str(level), annotation, None, True)
    whole = region_statistics(volume, annotation / str(level), None, True)
    assert found.equals(whole)
    assert 0 < found.loc[1, "covered"] < found.loc[1, "voxels"]


def test_a_level_of_an_image_behind_a_link_has_the_sections_of_the_image(tmp_path, annotation):
    volume = write(tmp_path, picture(), labels={"section": sections()})
    (tmp_path / "link").symlink_to(volume / "1")
    assert region_statistics(tmp_path / "link", annotation).equals(region_statistics(volume / "1", annotation))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("error")
def test_infinite_values_have_the_means_of_numpy(tmp_path, annotation, dtype):
    image = picture(dtype)
    image[0, 3, 3, 3] = np.inf  # in RSP
    image[1, 6, 6, 6] = -np.inf  # in CTX alone
    image[2, 0, 0, 0], image[2, 1, 1, 17] = np.inf, -np.inf
    image[:, 4] = np.nan
    table = region_statistics(write(tmp_path, image, rule="mean_of_numbers"), annotation, None, True)
    assert len(table) == 4
    for id, members in {1: (2, 3), 2: (2, 3), 3: (3,)}.items():
        for side, columns in {"": slice(None), "_left": slice(10), "_right": slice(10, None)}.items():
            where = np.isin(labels(), members)[..., columns]
            for channel, values in enumerate(image[..., columns]):
                with np.errstate(invalid="ignore"):
                    numbers = values[where & ~np.isnan(values)].astype(np.float64)
                    mean, deviation = numbers.mean(), numbers.std()
                row = table.loc[id]
                assert row[f"mean_channel_{channel}{side}"] == pytest.approx(mean, rel=1e-12, nan_ok=True)
                assert row[f"std_channel_{channel}{side}"] == pytest.approx(deviation, rel=1e-9, nan_ok=True)


@pytest.mark.filterwarnings("error")
def test_values_whose_squares_are_too_large_have_a_mean_and_no_warning(tmp_path, annotation):
    image = picture(np.float64) * 1e300
    table = region_statistics(write(tmp_path, image), annotation)
    assert table.loc[3, "mean_channel_0"] == pytest.approx(image[0][labels() == 3].mean(), rel=1e-12)


@pytest.mark.parametrize("given", [None, 5, [1, 2], b"volume.ome.zarr", object()])
def test_what_is_not_a_volume_is_refused(annotation, given):
    with raises(InputError, "wrong-type") as caught:
        region_statistics(given, annotation)
    assert repr(given)[:10] in str(caught.value)


@pytest.mark.parametrize("workers", ["4", 2.5, True])
def test_workers_that_are_not_a_number_are_refused(tmp_path, annotation, workers):
    with raises(InputError, "wrong-type") as caught:
        region_statistics(write(tmp_path, picture()), annotation, workers=workers)
    assert repr(workers) in str(caught.value)


ALONG = {axis: (axis, np.arange(20) * 0.1, {"units": "mm"}) for axis in "zyx"}


@pytest.mark.parametrize(
    ("dims", "values", "named"),
    [
        (("y", "x"), np.ones((20, 20), np.uint32), "uint32 along y, x"),
        (("z", "y", "x"), np.ones((20, 20, 20), np.float32), "float32 along z, y, x"),
    ],
)
def test_a_dataset_whose_section_is_no_label_over_its_voxels_is_refused(annotation, dims, values, named):
    image = xr.DataArray(picture(), dims=("c", "z", "y", "x"), coords=ALONG)
    section = xr.DataArray(values, dims=dims, coords={axis: ALONG[axis] for axis in dims})
    with raises(InputError, "wrong-axes") as caught:
        region_statistics(xr.Dataset({"image": image, "section": section}), annotation)
    assert named in str(caught.value)


@pytest.mark.parametrize("region", [(), ("--region", "NIL"), ("--region", "NIL", "--region", "RSP")])
def test_the_printed_table_counts_the_structures_without_voxels(command, tmp_path, annotation, region):
    found = command("measure", write(tmp_path, picture()), "--annotation", annotation, *region)
    assert found.code == 0
    assert "structures without voxels, not listed: 1\n" in found.out
    assert ("RSP" in found.out) == (region != ("--region", "NIL"))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_ids_and_names_of_datasets_are_one_column_of_text(capfdbinary, tmp_path, annotation, form):
    from atlaszarr.cli import main

    first, second = write(tmp_path, picture()), write(tmp_path, picture(), "second")
    document = json.loads((second / "zarr.json").read_text())
    document["attributes"]["atlaszarr"] = {"request": {"dataset": 69289763, "view": "primary"}}  # as of a build
    (second / "zarr.json").write_text(json.dumps(document))
    assert main(["measure", str(first), str(second), "--annotation", str(annotation), "--format", form]) == 0
    printed = io.BytesIO(capfdbinary.readouterr().out)
    table = pd.read_csv(printed, dtype={"dataset": str}) if form == "csv" else pd.read_parquet(printed)
    assert table["dataset"].tolist() == [str(first)] * 4 + ["69289763"] * 4


def test_half_a_voxel_is_another_grid(tmp_path, annotation):
    volume = write(tmp_path, picture(), geometry=Geometry((0.1,) * 3, (0.0, 0.0, 0.05)))
    with raises(InputError, "grids-differ") as caught:
        region_statistics(volume, annotation)
    assert "0, 0, 50" in str(caught.value)


@pytest.mark.parametrize("width", [20, 60, 80, None])
@pytest.mark.parametrize("by_hemisphere", [False, True])
def test_a_narrow_terminal_cuts_names_and_never_numbers(tmp_path, annotation, width, by_hemisphere):
    terminology = Terminology.read(annotation.parent / "terminology.csv")
    volumes = region_volumes(annotation, terminology, by_hemisphere=by_hemisphere)
    table = region_statistics(write(tmp_path, picture()), annotation, terminology, by_hemisphere)
    for wide, narrow in (
        (tree(volumes, terminology), tree(volumes, terminology, width)),
        (statistics_tree(table, terminology), statistics_tree(table, terminology, width)),
    ):
        expected, found = wide.splitlines(), narrow.splitlines()
        assert len(found) == len(expected)
        for one, other in zip(expected, found, strict=True):
            assert one.split()[0] == other.split()[0]
            numbers = re.findall(r"[\d.]+(?: %)?$|[\d.]+(?: %)?(?=  )", one)
            assert re.findall(r"[\d.]+(?: %)?$|[\d.]+(?: %)?(?=  )", other) == numbers
    assert width != 60 or any("…" in line for line in statistics_tree(table, terminology, width).splitlines())


def test_a_side_is_a_line_after_its_structure(tmp_path, annotation):
    terminology = Terminology.read(annotation.parent / "terminology.csv")
    table = region_statistics(write(tmp_path, picture()), annotation, terminology, True)
    lines = [line.split() for line in statistics_tree(table, terminology).splitlines()]
    assert [line[0] for line in lines[:7]] == ["region", "root", "left", "right", "CTX", "left", "right"]
    assert lines[2][1:4] == ["2.00", "100", "%"]
    assert float(lines[2][4]) == pytest.approx(table.loc[1, "mean_channel_0_left"], rel=1e-3)


def test_an_annotation_that_is_missing_or_a_file_is_named_rather_than_its_terminology(command, tmp_path):
    (tmp_path / "annotation.nrrd").write_bytes(b"NRRD0004")
    volume = write(tmp_path, picture())
    for name in ("annotation.nrrd", "missing.ome.zarr"):
        found = command("measure", volume, "--annotation", tmp_path / name)
        assert (found.code, found.out) == (2, "")
        assert name in found.err
        assert "terminology" not in found.err
